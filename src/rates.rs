//! How many requests one address may make. Pure: a bucket for each address, time from outside.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// Addresses that have a bucket of their own; those that come beyond share one.
const MOST_ADDRESSES: usize = 4096;

/// What an address may do.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RatePolicy {
    /// Requests at once, after a pause.
    pub burst: u32,
    /// Requests a second in the long run.
    pub per_second: u32,
}

impl Default for RatePolicy {
    /// A room of eight guests behind one address, whose browsers send some ten candidates one by one, comes to a hundred at
    /// once; and a soak of joins and leaves as fast as a box can do them stays under the rate.
    fn default() -> Self {
        Self { burst: 200, per_second: 40 }
    }
}

#[derive(Debug, Clone, Copy)]
struct Bucket {
    left: f64,
    at: Instant,
}

/// The buckets.
#[derive(Debug)]
pub struct Rates {
    policy: RatePolicy,
    buckets: HashMap<String, Bucket>,
}

impl Rates {
    /// All buckets full.
    pub fn new(policy: RatePolicy) -> Self {
        Self { policy, buckets: HashMap::new() }
    }

    /// Takes note of a request.
    ///
    /// # Errors
    /// How long to wait, when there were too many.
    pub fn handle(&mut self, now: Instant, client: &str) -> Result<(), Duration> {
        let policy = self.policy;
        let refilled = |bucket: &Bucket| {
            let gained = now.saturating_duration_since(bucket.at).as_secs_f64() * f64::from(policy.per_second);
            (bucket.left + gained).min(f64::from(policy.burst))
        };
        if self.buckets.len() >= MOST_ADDRESSES && !self.buckets.contains_key(client) {
            self.buckets.retain(|_, bucket| refilled(bucket) < f64::from(policy.burst));
        }
        let room = self.buckets.len() < MOST_ADDRESSES || self.buckets.contains_key(client);
        let name = if room { client } else { "" };
        let full = Bucket { left: f64::from(policy.burst), at: now };
        let bucket = self.buckets.entry(name.to_owned()).or_insert(full);
        *bucket = Bucket { left: refilled(bucket), at: now };
        if bucket.left < 1.0 {
            return Err(Duration::from_secs_f64((1.0 - bucket.left) / f64::from(policy.per_second)));
        }
        bucket.left -= 1.0;
        Ok(())
    }
}

/// Whom an address counts for: a network of the sixth version is one client, since its addresses are for the taking.
pub fn client_of(address: IpAddr) -> String {
    match address.to_canonical() {
        IpAddr::V4(v4) => v4.to_string(),
        IpAddr::V6(v6) => {
            let [a, b, c, d, ..] = v6.segments();
            format!("{a:x}:{b:x}:{c:x}:{d:x}::/64")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rates() -> Rates {
        Rates::new(RatePolicy { burst: 3, per_second: 2 })
    }

    #[test]
    fn a_burst_is_let_through_and_the_next_is_told_how_long_to_wait() {
        let (now, mut rates) = (Instant::now(), rates());
        for _ in 0..3 {
            assert_eq!(rates.handle(now, "a"), Ok(()));
        }
        assert_eq!(rates.handle(now, "a"), Err(Duration::from_millis(500)));
        assert_eq!(rates.handle(now, "b"), Ok(()), "another address is not its neighbour's keeper");
        assert_eq!(rates.handle(now + Duration::from_millis(500), "a"), Ok(()));
        assert!(rates.handle(now + Duration::from_millis(500), "a").is_err());
    }

    #[test]
    fn a_pause_fills_the_bucket_and_no_more_than_that() {
        let (now, mut rates) = (Instant::now(), rates());
        rates.handle(now, "a").unwrap();
        let later = now + Duration::from_secs(3600);
        let let_in = (0..10).filter(|_| rates.handle(later, "a").is_ok()).count();
        assert_eq!(let_in, 3);
    }

    #[test]
    fn a_crowd_of_addresses_costs_bounded_memory_and_no_known_one_its_bucket() {
        let (now, mut rates) = (Instant::now(), rates());
        for n in 0..2 * MOST_ADDRESSES {
            let _ = rates.handle(now, &format!("client {n}"));
        }
        assert!(rates.buckets.len() <= MOST_ADDRESSES + 1);
        assert_eq!(rates.handle(now, "client 0"), Ok(()));
        assert!(rates.handle(now, "a newcomer").is_err(), "newcomers share a bucket while the crowd lasts");
        assert_eq!(rates.handle(now + Duration::from_secs(10), "a newcomer"), Ok(()));
    }

    #[test]
    fn a_network_of_the_sixth_version_is_one_client() {
        let client = |text: &str| client_of(text.parse().unwrap());
        assert_eq!(client("2001:db8:1:2::1"), client("2001:db8:1:2:ffff::9"));
        assert_ne!(client("2001:db8:1:2::1"), client("2001:db8:1:3::1"));
        assert_eq!(client("::ffff:192.0.2.1"), "192.0.2.1");
    }
}
