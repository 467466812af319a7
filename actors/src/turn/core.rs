//! Which ICE servers the box hands out now, and whom it asks next: pure, in virtual time.
//!
//! Providers are ranked; rank 0 is preferred. One fetch is in flight at a time. A grant is refreshed once
//! three quarters to nine tenths of its life are spent (the shell gives the jitter), and while that fails it
//! is still served until it expires. A provider of a lower rank than the one that granted what is held is
//! asked only in the last tenth of the grant's life; one of a higher rank is asked as soon as its backoff
//! allows, so that a box that started while its fleet was away comes back to its fleet's own relay.
//!
//! Expiry is judged by the monotonic clock: a grant read back from disk is converted once, and never trusted
//! for longer than its whole life, so a box whose clock is not set yet cannot serve one for years.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use r58_pipelines::ice::IceServer;

use super::grant::{Grant, IceSnapshot, ProviderReport};

/// First pause after a provider failed; doubled with every further failure.
pub const BACKOFF_FIRST: Duration = Duration::from_secs(5);
/// Longest pause between two attempts at one provider.
pub const BACKOFF_MAX: Duration = Duration::from_secs(300);
/// A fetch that has not answered by then is taken as failed. Above the shell's own 15 s HTTP timeout
/// (facts/cloudflare.md), so it only matters when an answer was lost with a restarted actor.
pub const FETCH_LOST_AFTER: Duration = Duration::from_secs(20);

/// Both clocks of one moment, given by the shell.
#[derive(Clone, Copy, Debug)]
pub struct Now {
    /// Judges every delay and expiry.
    pub mono: Instant,
    /// Only converts the wall-clock times of a grant when it arrives.
    pub wall: DateTime<Utc>,
}

/// What happened.
#[derive(Clone, Debug)]
pub enum Input {
    /// A grant was read back from disk at start.
    Restored(Grant),
    /// A provider granted.
    Fetched {
        /// Which provider.
        rank: usize,
        /// What it granted.
        grant: Grant,
        /// In 0..1: places the refresh.
        jitter: f64,
    },
    /// A provider failed.
    Failed {
        /// Which provider.
        rank: usize,
        /// Why, without secrets.
        error: String,
        /// In 0..1: spreads the next attempt.
        jitter: f64,
    },
    /// Something a provider depends on changed (the box enrolled): ask again now.
    Kicked,
}

/// What the shell has to do.
#[derive(Clone, Debug, PartialEq)]
pub enum Output {
    /// Ask the provider of this rank.
    Fetch(usize),
    /// Write this grant to disk.
    Store(Grant),
    /// The snapshot is another one than before.
    Changed,
}

#[derive(Debug, Default)]
struct Slot {
    name: String,
    failures: u32,
    not_before: Option<Instant>,
    last_error: Option<String>,
}

#[derive(Debug)]
struct Held {
    grant: Grant,
    rank: usize,
    refresh_at: Instant,
    fallback_at: Instant,
    expires: Instant,
}

/// The state machine. Drive it with [`TurnCore::handle`] and [`TurnCore::handle_timeout`], then drain
/// [`TurnCore::poll_output`] and arm one timer at [`TurnCore::poll_timeout`].
#[derive(Debug)]
pub struct TurnCore {
    stun: Vec<String>,
    slots: Vec<Slot>,
    held: Option<Held>,
    in_flight: Option<(usize, Instant)>,
    seen: Option<Instant>,
    outputs: VecDeque<Output>,
}

impl TurnCore {
    /// `providers` by rank; `stun` is what is served while nobody has granted anything.
    pub fn new<S: Into<String>>(providers: impl IntoIterator<Item = S>, stun: Vec<String>) -> Self {
        let slots = providers.into_iter().map(|name| Slot { name: name.into(), ..Slot::default() }).collect();
        Self { stun, slots, held: None, in_flight: None, seen: None, outputs: VecDeque::new() }
    }

    /// Takes one event.
    pub fn handle(&mut self, now: Now, input: Input) {
        match input {
            Input::Restored(grant) => self.restore(now, grant),
            Input::Fetched { rank, grant, jitter } => self.fetched(now, rank, grant, jitter),
            Input::Failed { rank, error, jitter } => self.failed(now, rank, error, jitter),
            Input::Kicked => self.slots.iter_mut().for_each(|slot| {
                slot.failures = 0;
                slot.not_before = None;
            }),
        }
        self.handle_timeout(now);
    }

    /// Lets time pass up to `now`.
    pub fn handle_timeout(&mut self, now: Now) {
        self.seen = Some(now.mono);
        if self.held.as_ref().is_some_and(|held| held.expires <= now.mono) {
            self.held = None;
            self.outputs.push_back(Output::Changed);
        }
        if let Some((rank, lost_at)) = self.in_flight {
            if now.mono < lost_at {
                return;
            }
            self.failed(now, rank, "no answer".to_owned(), 0.5);
        }
        if let Some(rank) = (0..self.slots.len()).find(|rank| self.is_wanted(*rank, now.mono)) {
            self.in_flight = Some((rank, now.mono + FETCH_LOST_AFTER));
            self.outputs.push_back(Output::Fetch(rank));
        }
    }

    /// When [`TurnCore::handle_timeout`] has something to do, if nothing arrives before.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let seen = self.seen?;
        let held = self.held.iter().flat_map(|held| [held.refresh_at, held.fallback_at, held.expires]);
        match self.in_flight {
            Some((_, lost_at)) => held.chain([lost_at]).filter(|at| *at > seen).min(),
            None => held.chain(self.slots.iter().filter_map(|slot| slot.not_before)).filter(|at| *at > seen).min(),
        }
    }

    /// The next thing to do.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// What a peer is given at this moment: never empty-handed, never waiting.
    pub fn snapshot(&self, now: Instant) -> IceSnapshot {
        match self.held.as_ref().filter(|held| held.expires > now) {
            Some(held) => IceSnapshot {
                servers: held.grant.servers.clone(),
                provider: held.grant.provider.clone(),
                expires_at: Some(held.grant.expires_at),
                stale: held.refresh_at <= now && self.slots.get(held.rank).is_some_and(|slot| slot.failures > 0),
            },
            None => IceSnapshot {
                servers: stun_only(&self.stun),
                provider: "stun".to_owned(),
                expires_at: None,
                stale: false,
            },
        }
    }

    /// How each provider is doing, by rank.
    pub fn report(&self, now: Instant) -> Vec<ProviderReport> {
        let asked = self.in_flight.map(|(rank, _)| rank);
        let row = |(rank, slot): (usize, &Slot)| ProviderReport {
            name: slot.name.clone(),
            asking: asked == Some(rank),
            failures: slot.failures,
            last_error: slot.last_error.clone(),
            next_attempt_in: slot.not_before.and_then(|at| at.checked_duration_since(now)),
        };
        self.slots.iter().enumerate().map(row).collect()
    }

    fn is_wanted(&self, rank: usize, now: Instant) -> bool {
        let ready = self.slots.get(rank).is_some_and(|slot| slot.not_before.is_none_or(|at| at <= now));
        let useful = self.held.as_ref().is_none_or(|held| {
            rank < held.rank
                || (rank == held.rank && held.refresh_at <= now)
                || (rank > held.rank && held.fallback_at <= now)
        });
        ready && useful
    }

    fn restore(&mut self, now: Now, grant: Grant) {
        let Some(rank) = self.slots.iter().position(|slot| slot.name == grant.provider) else { return };
        let whole = grant.lifetime();
        let left = (grant.expires_at - now.wall).to_std().unwrap_or_default().min(whole);
        if left.is_zero() || self.held.is_some() {
            return;
        }
        // Issued "in the future": this clock is behind, the age is unknown. Serve it, and ask at once.
        let age_known = grant.issued_at <= now.wall;
        let refresh_at = match age_known {
            true => now.mono + left.saturating_sub(whole / 5),
            false => now.mono,
        };
        let fallback_at = now.mono + left.saturating_sub(whole / 10);
        self.held = Some(Held { grant, rank, refresh_at, fallback_at, expires: now.mono + left });
        self.outputs.push_back(Output::Changed);
    }

    fn fetched(&mut self, now: Now, rank: usize, grant: Grant, jitter: f64) {
        self.settle(rank);
        let Some(slot) = self.slots.get_mut(rank) else { return };
        let life = (grant.expires_at - now.wall).to_std().unwrap_or_default();
        if life.is_zero() {
            self.failed(now, rank, "granted credentials that have expired already".to_owned(), jitter);
            return;
        }
        slot.failures = 0;
        slot.not_before = None;
        slot.last_error = None;
        self.held = Some(Held {
            rank,
            refresh_at: now.mono + life.mul_f64(0.75 + 0.15 * jitter.clamp(0.0, 1.0)),
            fallback_at: now.mono + life.mul_f64(0.9),
            expires: now.mono + life,
            grant: grant.clone(),
        });
        self.outputs.push_back(Output::Store(grant));
        self.outputs.push_back(Output::Changed);
    }

    fn failed(&mut self, now: Now, rank: usize, error: String, jitter: f64) {
        self.settle(rank);
        let Some(slot) = self.slots.get_mut(rank) else { return };
        let pause = BACKOFF_FIRST.saturating_mul(1 << slot.failures.min(10)).min(BACKOFF_MAX);
        slot.failures = slot.failures.saturating_add(1);
        slot.not_before = Some(now.mono + pause.mul_f64(0.5 + 0.5 * jitter.clamp(0.0, 1.0)));
        slot.last_error = Some(error);
        self.outputs.push_back(Output::Changed);
    }

    fn settle(&mut self, rank: usize) {
        if self.in_flight.is_some_and(|(asked, _)| asked == rank) {
            self.in_flight = None;
        }
    }
}

fn stun_only(urls: &[String]) -> Vec<IceServer> {
    match urls.is_empty() {
        true => Vec::new(),
        false => vec![IceServer { urls: urls.to_vec(), username: None, credential: None }],
    }
}

#[cfg(test)]
mod tests {
    use chrono::TimeDelta;
    use proptest::prelude::*;

    use super::*;

    const DAY: i64 = 86_400;

    struct World {
        core: TurnCore,
        mono: Instant,
        wall: DateTime<Utc>,
    }

    impl World {
        fn new(providers: &[&str]) -> Self {
            let wall = DateTime::from_timestamp(1_800_000_000, 0).unwrap();
            let core = TurnCore::new(providers.iter().copied(), vec!["stun:stun.example:3478".to_owned()]);
            let mut world = Self { core, mono: Instant::now(), wall };
            world.core.handle_timeout(world.now());
            world
        }

        fn now(&self) -> Now {
            Now { mono: self.mono, wall: self.wall }
        }

        fn pass(&mut self, seconds: i64) {
            self.mono += Duration::from_secs(seconds as u64);
            self.wall += TimeDelta::seconds(seconds);
            self.core.handle_timeout(self.now());
        }

        fn grant(&self, provider: &str, seconds: i64) -> Grant {
            Grant {
                provider: provider.to_owned(),
                servers: vec![IceServer {
                    urls: vec!["turn:relay.example:3478".to_owned()],
                    username: Some("u".to_owned()),
                    credential: Some("c".to_owned()),
                }],
                issued_at: self.wall,
                expires_at: self.wall + TimeDelta::seconds(seconds),
            }
        }

        fn give(&mut self, rank: usize, provider: &str, seconds: i64) {
            let grant = self.grant(provider, seconds);
            let now = self.now();
            self.core.handle(now, Input::Fetched { rank, grant, jitter: 0.0 });
        }

        fn fail(&mut self, rank: usize) {
            let now = self.now();
            self.core.handle(now, Input::Failed { rank, error: "down".to_owned(), jitter: 1.0 });
        }

        fn fetches(&mut self) -> Vec<usize> {
            std::iter::from_fn(|| self.core.poll_output())
                .filter_map(|output| match output {
                    Output::Fetch(rank) => Some(rank),
                    _ => None,
                })
                .collect()
        }

        fn provider(&self) -> String {
            self.core.snapshot(self.mono).provider
        }
    }

    #[test]
    fn providers_are_asked_in_their_order_and_stun_is_served_meanwhile() {
        let mut world = World::new(&["fleet", "cloudflare", "shared-secret"]);
        assert_eq!(world.fetches(), [0]);
        assert_eq!(world.provider(), "stun");
        world.fail(0);
        assert_eq!(world.fetches(), [1]);
        world.fail(1);
        assert_eq!(world.fetches(), [2]);
        world.give(2, "shared-secret", DAY);
        assert_eq!(world.provider(), "shared-secret");
    }

    #[test]
    fn a_preferred_provider_takes_over_again_once_it_is_back() {
        let mut world = World::new(&["fleet", "cloudflare"]);
        world.fail(0);
        world.give(1, "cloudflare", DAY);
        world.fetches();
        world.pass(5);
        assert_eq!(world.fetches(), [0]);
        world.give(0, "fleet", DAY);
        assert_eq!(world.provider(), "fleet");
    }

    #[test]
    fn a_grant_is_refreshed_before_it_expires_and_served_stale_while_that_fails() {
        let mut world = World::new(&["fleet"]);
        world.give(0, "fleet", DAY);
        world.fetches();
        world.pass(DAY * 3 / 4 - 1);
        assert_eq!(world.fetches(), [] as [usize; 0]);
        world.pass(1);
        assert_eq!(world.fetches(), [0]);
        assert!(!world.core.snapshot(world.mono).stale, "a refresh under way is not yet a failure");
        world.fail(0);
        let snapshot = world.core.snapshot(world.mono);
        assert!(snapshot.stale);
        assert_eq!(snapshot.provider, "fleet");
        world.pass(DAY / 4);
        assert_eq!(world.provider(), "stun", "an expired credential would disconnect a guest");
    }

    #[test]
    fn a_lower_provider_is_asked_only_in_the_last_tenth_of_a_grants_life() {
        let mut world = World::new(&["fleet", "cloudflare"]);
        world.give(0, "fleet", DAY);
        world.fetches();
        world.pass(DAY * 3 / 4);
        world.fail(0);
        assert_eq!(world.fetches(), [0], "only the first request of the refresh");
        world.pass(DAY * 15 / 100);
        let asked = world.fetches();
        assert_eq!(asked, [0]);
        world.fail(0);
        assert_eq!(world.fetches(), [1]);
    }

    #[test]
    fn a_restored_grant_is_served_without_asking_anybody() {
        let mut world = World::new(&["fleet"]);
        world.fetches();
        let grant = world.grant("fleet", DAY);
        let mut core = TurnCore::new(["fleet"], Vec::new());
        core.handle(world.now(), Input::Restored(grant));
        assert_eq!(core.snapshot(world.mono).provider, "fleet");
        assert!(std::iter::from_fn(|| core.poll_output()).all(|output| output == Output::Changed));
    }

    #[test]
    fn a_grant_from_the_future_is_served_for_its_own_life_at_most_and_refreshed_at_once() {
        let world = World::new(&["fleet"]);
        let grant = world.grant("fleet", DAY);
        let mut core = TurnCore::new(["fleet"], Vec::new());
        let unset = Now { mono: world.mono, wall: DateTime::from_timestamp(60, 0).unwrap() };
        core.handle(unset, Input::Restored(grant));
        assert_eq!(core.snapshot(world.mono).provider, "fleet");
        assert!(std::iter::from_fn(|| core.poll_output()).any(|output| output == Output::Fetch(0)));
        assert_eq!(core.snapshot(world.mono + Duration::from_secs(DAY as u64)).provider, "stun");
    }

    #[test]
    fn a_restored_grant_of_an_unknown_provider_or_an_expired_one_is_dropped() {
        let world = World::new(&["fleet"]);
        let mut core = TurnCore::new(["fleet"], Vec::new());
        core.handle(world.now(), Input::Restored(world.grant("elsewhere", DAY)));
        core.handle(world.now(), Input::Restored(world.grant("fleet", -1)));
        assert_eq!(core.snapshot(world.mono).provider, "stun");
    }

    #[test]
    fn a_lost_answer_does_not_block_the_next_attempt() {
        let mut world = World::new(&["fleet"]);
        world.fetches();
        world.pass(19);
        assert_eq!(world.fetches(), [] as [usize; 0]);
        world.pass(1);
        world.pass(5);
        assert_eq!(world.fetches(), [0]);
    }

    #[test]
    fn enrolment_asks_again_without_waiting_for_the_backoff() {
        let mut world = World::new(&["fleet"]);
        world.fail(0);
        world.fail(0);
        world.fetches();
        let now = world.now();
        world.core.handle(now, Input::Kicked);
        assert_eq!(world.fetches(), [0]);
    }

    proptest! {
        #[test]
        fn one_fetch_at_a_time_and_never_an_expired_credential(
            steps in proptest::collection::vec((0u8..4, 1i64..5_000, 0.0f64..1.0), 1..200)
        ) {
            let mut world = World::new(&["fleet", "cloudflare", "shared-secret"]);
            let names = ["fleet", "cloudflare", "shared-secret"];
            let mut open: Option<usize> = world.fetches().pop();
            let mut granted: Option<DateTime<Utc>> = None;
            for (what, seconds, jitter) in steps {
                match (what, open.take()) {
                    (0, Some(rank)) => {
                        let grant = world.grant(names[rank], seconds);
                        granted = Some(grant.expires_at);
                        let now = world.now();
                        world.core.handle(now, Input::Fetched { rank, grant, jitter });
                    }
                    (1, Some(rank)) => {
                        let now = world.now();
                        world.core.handle(now, Input::Failed { rank, error: "down".to_owned(), jitter });
                    }
                    (_, kept) => {
                        open = kept;
                        // The shell answers before the core gives a request up for lost.
                        world.pass(if open.is_some() { seconds % 3 } else { seconds });
                        if let Some(rank) = open.take() {
                            let now = world.now();
                            world.core.handle(now, Input::Failed { rank, error: "slow".to_owned(), jitter });
                        }
                    }
                }
                for rank in world.fetches() {
                    prop_assert!(open.is_none(), "two fetches in flight");
                    open = Some(rank);
                }
                let snapshot = world.core.snapshot(world.mono);
                if let Some(expires_at) = snapshot.expires_at {
                    prop_assert!(expires_at > world.wall);
                    prop_assert_eq!(Some(expires_at), granted);
                }
                if open.is_none() {
                    prop_assert!(world.core.poll_timeout().is_some(), "the core would sleep for ever");
                }
            }
        }
    }
}
