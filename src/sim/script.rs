//! What happens to one simulated device, and when: from a seed alone, so that a rehearsal can be repeated. Pure.
//!
//! Times are spans since the simulation began. Outages of a device come at random (a Poisson process); outages of its site
//! come from the site's own seed, so that all of its devices go together without anybody telling them.

use std::time::Duration;

use chrono::TimeDelta;
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};

/// How rough it gets. Rates are per hour, shares are 0 to 1.
#[derive(Debug, Clone, PartialEq)]
pub struct Chaos {
    /// Outages of each device.
    pub outages: f64,
    /// Outages of each site.
    pub site_outages: f64,
    /// Mean length of an outage.
    pub outage: Duration,
    /// Share of a device's outages that cut its power, in place of its network.
    pub power_cuts: f64,
    /// Share of devices whose clock is wrong, by up to ten minutes either way.
    pub wrong_clocks: f64,
    /// Share of devices whose clock is not set.
    pub unset_clocks: f64,
    /// Mean length of a command's effect.
    pub effect: Duration,
    /// Share of effects that fail.
    pub failures: f64,
}

/// What a device's clock is like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Clock {
    /// Set, and off by this much.
    Set(TimeDelta),
    /// Not set: it shows 1970 and nobody believes it.
    Unset,
}

/// What is lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Loss {
    /// The network of this device.
    Network,
    /// The network of the whole site.
    Site,
    /// The power.
    Power,
}

/// One outage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Outage {
    /// When it begins.
    pub at: Duration,
    /// How long it lasts.
    pub lasts: Duration,
    /// What is lost.
    pub loss: Loss,
}

/// A random process of outages.
#[derive(Debug)]
struct Process {
    rng: StdRng,
    per_hour: f64,
    mean: Duration,
    next: Duration,
}

impl Process {
    fn new(seed: u64, per_hour: f64, mean: Duration) -> Self {
        let mut process = Self { rng: StdRng::seed_from_u64(seed), per_hour, mean, next: Duration::ZERO };
        process.step(Duration::ZERO);
        process
    }

    fn step(&mut self, from: Duration) {
        let gap = match self.per_hour > 0.0 {
            true => exponential(&mut self.rng, Duration::from_secs_f64(3600.0 / self.per_hour)),
            false => FAR,
        };
        self.next = from.saturating_add(gap).min(FAR);
    }
}

/// Stands for never: a hundred years.
const FAR: Duration = Duration::from_secs(100 * 365 * 86_400);

/// The script of one device.
#[derive(Debug)]
pub struct Script {
    own: Process,
    site: Process,
    power_cuts: f64,
    dice: StdRng,
    clock: Clock,
    effect: Duration,
    failures: f64,
}

impl Script {
    /// That of the device with this number, at the site with that one.
    pub fn new(seed: u64, device: u32, site: u32, chaos: &Chaos) -> Self {
        let mut dice = StdRng::seed_from_u64(mix(seed, 1, device));
        let roll: f64 = dice.r#gen();
        let clock = if roll < chaos.unset_clocks {
            Clock::Unset
        } else if roll < chaos.unset_clocks + chaos.wrong_clocks {
            Clock::Set(TimeDelta::seconds(dice.gen_range(-600..=600)))
        } else {
            Clock::Set(TimeDelta::zero())
        };
        Self {
            own: Process::new(mix(seed, 2, device), chaos.outages, chaos.outage),
            site: Process::new(mix(seed, 3, site), chaos.site_outages, chaos.outage),
            power_cuts: chaos.power_cuts,
            dice,
            clock,
            effect: chaos.effect,
            failures: chaos.failures,
        }
    }

    /// The device's clock.
    pub fn clock(&self) -> Clock {
        self.clock
    }

    /// When the next outage begins; a hundred years from the start if there is none.
    pub fn next_outage(&self) -> Duration {
        self.own.next.min(self.site.next)
    }

    /// The outage that has begun by `now`, if one has. Those that began while another lasted are swallowed by it.
    pub fn outage(&mut self, now: Duration) -> Option<Outage> {
        let of_site = self.site.next <= self.own.next;
        let process = if of_site { &mut self.site } else { &mut self.own };
        if process.next > now {
            return None;
        }
        let at = process.next;
        let lasts = exponential(&mut process.rng, process.mean).clamp(Duration::from_millis(100), process.mean * 5);
        let over = at + lasts;
        process.step(over);
        let loss = match of_site {
            true => Loss::Site,
            // Of its own dice: a site's must roll alike for all.
            false if process.rng.r#gen::<f64>() < self.power_cuts => Loss::Power,
            false => Loss::Network,
        };
        let other = if of_site { &mut self.own } else { &mut self.site };
        while other.next < over {
            let from = other.next;
            other.step(from);
        }
        Some(Outage { at, lasts, loss })
    }

    /// A number of 0 to 1, for whatever else is random in this device's life.
    pub fn roll(&mut self) -> f64 {
        self.dice.r#gen()
    }

    /// How long the next effect takes (a tenth of the mean to five times it), and whether it succeeds.
    pub fn effect(&mut self) -> (Duration, bool) {
        let takes = exponential(&mut self.dice, self.effect).clamp(self.effect / 10, self.effect * 5);
        (takes, self.dice.r#gen::<f64>() >= self.failures)
    }

    /// A boot id that no other boot has.
    pub fn boot_id(&mut self) -> String {
        format!("{:032x}", self.dice.r#gen::<u128>())
    }
}

/// A span with this mean, exponentially distributed.
fn exponential(rng: &mut StdRng, mean: Duration) -> Duration {
    let u: f64 = rng.gen_range(f64::MIN_POSITIVE..1.0);
    Duration::try_from_secs_f64(-u.ln() * mean.as_secs_f64()).unwrap_or(FAR)
}

/// A seed of its own for each use and number (SplitMix64's finalizer, so that neighbours have nothing in common).
fn mix(seed: u64, r#use: u64, number: u32) -> u64 {
    let mut z = seed.wrapping_add((u64::from(number) << 3 | r#use).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    fn chaos() -> Chaos {
        Chaos {
            outages: 6.0,
            site_outages: 1.0,
            outage: Duration::from_secs(30),
            power_cuts: 0.25,
            wrong_clocks: 0.2,
            unset_clocks: 0.1,
            effect: Duration::from_millis(500),
            failures: 0.1,
        }
    }

    fn all(seed: u64, device: u32, site: u32) -> Vec<Outage> {
        let mut script = Script::new(seed, device, site, &chaos());
        std::iter::from_fn(|| script.outage(HOUR * 100)).collect()
    }

    #[test]
    fn the_same_seed_is_the_same_rehearsal_and_another_is_another() {
        assert_eq!(all(7, 3, 0), all(7, 3, 0));
        assert_ne!(all(7, 3, 0), all(8, 3, 0));
        assert_ne!(all(7, 3, 0), all(7, 4, 0));
    }

    #[test]
    fn outages_come_as_often_and_last_as_long_as_asked_and_never_overlap() {
        let outages = all(1, 1, 1);
        let (of_site, own): (Vec<&Outage>, Vec<&Outage>) = outages.iter().partition(|outage| outage.loss == Loss::Site);
        assert!((450..750).contains(&own.len()), "{} in a hundred hours", own.len());
        assert!((60..140).contains(&of_site.len()), "{} of the site", of_site.len());
        let cuts = own.iter().filter(|outage| outage.loss == Loss::Power).count();
        assert!((own.len() / 6..own.len() / 3).contains(&cuts), "{cuts} power cuts");
        let mean = outages.iter().map(|outage| outage.lasts).sum::<Duration>() / outages.len() as u32;
        assert!((20..40).contains(&mean.as_secs()), "{mean:?}");
        assert!(outages.windows(2).all(|pair| pair[0].at + pair[0].lasts <= pair[1].at));
    }

    #[test]
    fn a_site_goes_as_a_whole() {
        let only_site = Chaos { outages: 0.0, ..chaos() };
        let first = |device| Script::new(5, device, 9, &only_site).outage(HOUR * 100);
        assert!(first(1).is_some());
        assert_eq!(first(1), first(2));
    }

    #[test]
    fn nothing_happens_where_nothing_is_asked_for() {
        let calm = Chaos { outages: 0.0, site_outages: 0.0, wrong_clocks: 0.0, unset_clocks: 0.0, ..chaos() };
        let mut script = Script::new(1, 1, 1, &calm);
        assert_eq!(script.outage(HOUR * 10_000), None);
        assert_eq!(script.clock(), Clock::Set(TimeDelta::zero()));
    }

    #[test]
    fn clocks_are_wrong_as_often_as_asked() {
        let clocks: Vec<Clock> = (0..1000).map(|device| Script::new(1, device, 0, &chaos()).clock()).collect();
        let unset = clocks.iter().filter(|clock| **clock == Clock::Unset).count();
        let right = clocks.iter().filter(|clock| **clock == Clock::Set(TimeDelta::zero())).count();
        assert!((60..140).contains(&unset), "{unset} unset");
        assert!((640..760).contains(&right), "{right} right");
    }
}
