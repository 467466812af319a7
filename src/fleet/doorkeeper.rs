//! How often strangers may knock: guests come to the fleet server with a link and no account, and each of their requests
//! costs a box something.

use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use actix_web::http::StatusCode;

use super::auth::Lockout;
use crate::problem::Problem;
use crate::rates::{RatePolicy, Rates, client_of};

/// For one address: an office of eight guests whose browsers send their candidates one by one, at once; and their pages'
/// questions afterwards.
const OF_ADDRESS: RatePolicy = RatePolicy { burst: 100, per_second: 10 };
/// For one box, whoever asks: below what a box itself takes from its fleet, so that its crew and viewers get through.
const OF_BOX: RatePolicy = RatePolicy { burst: 150, per_second: 20 };
/// For one box that registers by certificate: each time costs a token and a line in the audit log.
const OF_REGISTRATION: RatePolicy = RatePolicy { burst: 5, per_second: 1 };
/// Wrong words for one invitation from one address, before it has to wait; five times as many for the address as a whole.
const MOST_FAILURES: u32 = 10;
/// How long it then waits.
const WAIT: Duration = Duration::from_secs(60);

/// See the module.
pub struct Doorkeeper {
    addresses: Mutex<Rates>,
    boxes: Mutex<Rates>,
    registrations: Mutex<Rates>,
    failures: Mutex<Lockout>,
}

impl Default for Doorkeeper {
    fn default() -> Self {
        Self {
            addresses: Mutex::new(Rates::new(OF_ADDRESS)),
            boxes: Mutex::new(Rates::new(OF_BOX)),
            registrations: Mutex::new(Rates::new(OF_REGISTRATION)),
            failures: Mutex::new(Lockout::new(MOST_FAILURES, WAIT)),
        }
    }
}

impl Doorkeeper {
    /// Counts a request from an address to a box by an invitation.
    ///
    /// # Errors
    /// 429 with the time to wait.
    pub fn knock(&self, from: IpAddr, device: &str, invitation: &str) -> Result<(), Problem> {
        let now = Instant::now();
        lock(&self.addresses).handle(now, &client_of(from)).map_err(too_many)?;
        match lock(&self.failures).must_wait(invitation, from, now) {
            Some(wait) => Err(too_many(wait)),
            None => lock(&self.boxes).handle(now, device).map_err(too_many),
        }
    }

    /// Counts a registration by certificate.
    ///
    /// # Errors
    /// 429 with the time to wait.
    pub fn register(&self, device: &str) -> Result<(), Problem> {
        lock(&self.registrations).handle(Instant::now(), device).map_err(too_many)
    }

    /// Takes note of what the box said.
    pub fn answered(&self, from: IpAddr, invitation: &str, status: u16) {
        let mut failures = lock(&self.failures);
        match status {
            401 | 403 => failures.failed(invitation, from, Instant::now()),
            200..=299 => failures.succeeded(invitation, from),
            _ => {}
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn too_many(wait: Duration) -> Problem {
    Problem::new(StatusCode::TOO_MANY_REQUESTS, "too many requests; wait a little").retry_after(wait)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);
    const THERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 7));

    #[test]
    fn whoever_guesses_has_to_wait_and_nobody_else_does() {
        let door = Doorkeeper::default();
        for _ in 0..MOST_FAILURES {
            door.knock(HERE, "box1", "a").unwrap();
            door.answered(HERE, "a", 401);
        }
        assert_eq!(door.knock(HERE, "box1", "a").unwrap_err().status(), 429);
        door.knock(HERE, "box1", "b").unwrap();
        door.knock(THERE, "box1", "a").unwrap();
    }

    #[test]
    fn one_address_and_all_of_them_together_may_ask_a_box_only_so_often() {
        let door = Doorkeeper::default();
        let count =
            |from: &dyn Fn(u32) -> IpAddr| (0..1000u32).filter(|n| door.knock(from(*n), "box1", "a").is_ok()).count();
        assert!((100..110).contains(&count(&|_| HERE)));
        let many = count(&|n| IpAddr::V4((0x0a00_0000 + n).into()));
        assert!((50..80).contains(&many), "{many} came through after those of one address");
        door.knock(THERE, "box2", "a").unwrap();
    }
}
