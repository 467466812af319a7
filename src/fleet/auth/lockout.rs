//! Slows down guessing: an account from one address, and an address as a whole, may fail only so often.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use crate::rates::client_of;

/// Entries kept; beyond it those whose time is over go, then the older half.
const MAX_ENTRIES: usize = 4_096;
/// An address may fail this many times as often as one account from it: people share addresses.
const ADDRESS_FACTOR: u32 = 5;

#[derive(Debug, Clone, Copy)]
struct Failures {
    count: u32,
    last: Instant,
}

/// The pure core: no clock, no lock.
#[derive(Debug)]
pub struct Lockout {
    max_failures: u32,
    wait: Duration,
    /// By account, or for all accounts together; and by client.
    failures: HashMap<(Option<String>, String), Failures>,
}

impl Lockout {
    /// Allows `max_failures` in a row, then asks to wait.
    pub fn new(max_failures: u32, wait: Duration) -> Self {
        Self { max_failures: max_failures.max(1), wait, failures: HashMap::new() }
    }

    /// How long the caller has to wait before it may try; `None` when it may now.
    pub fn must_wait(&self, account: &str, from: IpAddr, now: Instant) -> Option<Duration> {
        let from = client_of(from);
        let account = self.waits(&(Some(account.to_owned()), from.clone()), self.max_failures, now);
        let address = self.waits(&(None, from), self.max_failures.saturating_mul(ADDRESS_FACTOR), now);
        account.max(address)
    }

    fn waits(&self, key: &(Option<String>, String), max: u32, now: Instant) -> Option<Duration> {
        let failures = self.failures.get(key).filter(|failures| failures.count >= max)?;
        self.wait.checked_sub(now.saturating_duration_since(failures.last)).filter(|left| !left.is_zero())
    }

    /// Notes a failure.
    pub fn failed(&mut self, account: &str, from: IpAddr, now: Instant) {
        self.make_room(now);
        let from = client_of(from);
        for key in [(Some(account.to_owned()), from.clone()), (None, from)] {
            let wait = self.wait;
            let entry = self.failures.entry(key).or_insert(Failures { count: 0, last: now });
            if now.saturating_duration_since(entry.last) >= wait {
                entry.count = 0;
            }
            entry.count = entry.count.saturating_add(1);
            entry.last = now;
        }
    }

    /// Notes a success: the account's failures from there are forgotten, the address's are not.
    pub fn succeeded(&mut self, account: &str, from: IpAddr) {
        self.failures.remove(&(Some(account.to_owned()), client_of(from)));
    }

    fn make_room(&mut self, now: Instant) {
        if self.failures.len() < MAX_ENTRIES {
            return;
        }
        let wait = self.wait;
        self.failures.retain(|_, failures| now.saturating_duration_since(failures.last) < wait);
        if self.failures.len() >= MAX_ENTRIES {
            // Half at once, so that a flood does not pay for a search each time.
            let mut times: Vec<Instant> = self.failures.values().map(|failures| failures.last).collect();
            let middle = times.len() / 2;
            let (_, cut, _) = times.select_nth_unstable(middle);
            let cut = *cut;
            self.failures.retain(|_, failures| failures.last > cut);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

    #[test]
    fn an_account_has_to_wait_after_too_many_failures_and_may_try_again_later() {
        let now = Instant::now();
        let mut lockout = Lockout::new(3, Duration::from_secs(60));
        for _ in 0..2 {
            lockout.failed("a", HERE, now);
        }
        assert_eq!(lockout.must_wait("a", HERE, now), None);
        lockout.failed("a", HERE, now);
        assert_eq!(lockout.must_wait("a", HERE, now + Duration::from_secs(20)), Some(Duration::from_secs(40)));
        assert_eq!(lockout.must_wait("b", HERE, now), None, "another account is free");
        assert_eq!(lockout.must_wait("a", HERE, now + Duration::from_secs(60)), None);
    }

    #[test]
    fn an_address_that_tries_many_accounts_has_to_wait_too() {
        let now = Instant::now();
        let mut lockout = Lockout::new(2, Duration::from_secs(60));
        for n in 0..10 {
            lockout.failed(&format!("user{n}"), HERE, now);
        }
        assert!(lockout.must_wait("somebody", HERE, now).is_some());
    }

    #[test]
    fn a_network_of_the_sixth_version_that_changes_addresses_is_the_same_guesser() {
        let now = Instant::now();
        let mut lockout = Lockout::new(2, Duration::from_secs(60));
        for n in 0..2u16 {
            lockout.failed("a", IpAddr::from([0x2001, 0xdb8, 0, 1, 0, 0, 0, n]), now);
        }
        assert!(lockout.must_wait("a", IpAddr::from([0x2001, 0xdb8, 0, 1, 9, 9, 9, 9]), now).is_some());
        assert!(lockout.must_wait("a", IpAddr::from([0x2001, 0xdb8, 0, 2, 0, 0, 0, 1]), now).is_none());
    }

    #[test]
    fn memory_is_bounded_whoever_asks() {
        let now = Instant::now();
        let mut lockout = Lockout::new(2, Duration::from_secs(60));
        for n in 0..20_000u32 {
            lockout.failed("a", IpAddr::V4(n.into()), now);
        }
        assert!(lockout.failures.len() <= MAX_ENTRIES + 2);
    }
}
