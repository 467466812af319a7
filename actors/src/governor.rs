//! Governor: watches the machine and gives up what matters least when it is pressed.
//!
//! Job: sample processor, memory, disk and temperature every five seconds, decide a degradation of 0..3
//! (thresholds in [`core::Thresholds`]) and act on it through its peers:
//!
//! | level | what is given up |
//! |---|---|
//! | 1 | thumbnails come every 5 s in place of every second |
//! | 2 | and WHEP of single inputs is refused, running ones end; the programme's stays |
//! | 3 | and the programme's encoder takes a cheaper preset |
//!
//! The programme itself and a recording are never given up. In: samples from its own thread, [`GetMetrics`].
//! Out: [`SetThumbnailInterval`], [`AllowInputViewers`], [`SetProgrammePreset`], and the snapshot by watch.
//!
//! Failure policy: a part of the machine that cannot be read presses nobody; a sampler that stands still is
//! seen by [`Metrics::age`] and restarted; a peer that refuses is told again with the next sample. After a
//! rebuild the level starts at 0 and is told to all peers. Supervised by the house.

pub mod core;
mod sampler;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use actix::{Actor, AsyncContext as _, Context, Handler, Message, MessageResult, Supervised};
use tokio::sync::watch;
use tracing::{debug, info, warn};

use self::core::{Degradation, GovernorCore, SAMPLE_EVERY, Sample, Thresholds};
use self::sampler::Sampler;
use crate::supervision::{Door, Life};

/// Interval of thumbnails at level 0.
pub const THUMBNAILS_EVERY: Duration = Duration::from_secs(1);
/// Interval of thumbnails from level 1 on.
pub const THUMBNAILS_EVERY_PRESSED: Duration = Duration::from_secs(5);
/// A sampler that has not delivered for this long hangs in a mount or a sensor.
const SAMPLER_LOST_AFTER: Duration = Duration::from_secs(30);

/// How often each input and the programme make a thumbnail.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Message)]
#[rtype(result = "()")]
pub struct SetThumbnailInterval(pub Duration);

/// Whether viewers of single inputs are served; the programme's always are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Message)]
#[rtype(result = "()")]
pub struct AllowInputViewers(pub bool);

/// How cheap the programme's encoder has to be: 0 as configured, 1 cheaper.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Message)]
#[rtype(result = "()")]
pub struct SetProgrammePreset(pub u8);

/// Asks for the last sample and the level.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "Metrics")]
pub struct GetMetrics;

/// What the Governor last saw, and decided.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Metrics {
    /// The machine.
    pub sample: Sample,
    /// What is given up, and why.
    pub degradation: Degradation,
    /// When the sample was taken; `None` before the first.
    pub taken: Option<Instant>,
}

impl Metrics {
    /// Time since the sample; `None` before the first.
    pub fn age(&self, now: Instant) -> Option<Duration> {
        self.taken.map(|taken| now.saturating_duration_since(taken))
    }
}

/// Whom the Governor tells. Each list may be empty.
#[derive(Clone, Default)]
pub struct GovernorPeers {
    /// Told from level 1 on.
    pub thumbnails: Vec<Door<SetThumbnailInterval>>,
    /// Told from level 2 on.
    pub viewers: Vec<Door<AllowInputViewers>>,
    /// Told at level 3.
    pub programme: Vec<Door<SetProgrammePreset>>,
}

/// What a [`Governor`] is made of.
#[derive(Clone)]
pub struct GovernorSettings {
    /// Its file system is the one whose free space counts.
    pub state_dir: PathBuf,
    /// When which level begins.
    pub thresholds: Thresholds,
    /// Whom to tell.
    pub peers: GovernorPeers,
    /// Every snapshot goes here too, for the heartbeat and the pages.
    pub metrics: watch::Sender<Metrics>,
}

/// What one level means for the peers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Measures {
    thumbnails: Duration,
    input_viewers: bool,
    preset: u8,
}

impl Measures {
    fn at(level: u8) -> Self {
        Self {
            thumbnails: if level >= 1 { THUMBNAILS_EVERY_PRESSED } else { THUMBNAILS_EVERY },
            input_viewers: level < 2,
            preset: u8::from(level >= 3),
        }
    }
}

/// The actor.
pub struct Governor {
    life: Life,
    settings: GovernorSettings,
    core: GovernorCore,
    sampler: Option<Sampler>,
    last: Metrics,
    heard: Instant,
    /// What every peer has taken; `None` while one of them has not.
    told: Option<Measures>,
}

impl Governor {
    /// For the house's factory.
    pub fn new(life: Life, settings: GovernorSettings) -> Self {
        let core = GovernorCore::new(settings.thresholds.clone());
        Self { life, settings, core, sampler: None, last: Metrics::default(), heard: Instant::now(), told: None }
    }

    fn start_sampler(&mut self, ctx: &mut Context<Self>) {
        let samples = ctx.address().recipient::<Sampled>();
        // A full mailbox drops this sample; the next one tells more.
        let deliver = move |sample| drop(samples.try_send(Sampled(sample)));
        self.heard = Instant::now();
        self.sampler = match Sampler::start(self.settings.state_dir.clone(), SAMPLE_EVERY, deliver) {
            Ok(sampler) => Some(sampler),
            Err(error) => {
                warn!(%error, "no thread for looking at the machine");
                None
            }
        };
    }

    fn look_after_sampler(&mut self, ctx: &mut Context<Self>) {
        if self.heard.elapsed() > SAMPLER_LOST_AFTER {
            warn!("the machine cannot be looked at: a mount or a sensor hangs");
            self.life.detail("no samples");
            self.start_sampler(ctx);
        }
    }

    fn tell_peers(&mut self, level: u8) {
        let measures = Measures::at(level);
        if self.told == Some(measures) {
            return;
        }
        let peers = &self.settings.peers;
        let refused = peers
            .thumbnails
            .iter()
            .map(|door| door.try_send(SetThumbnailInterval(measures.thumbnails)))
            .chain(peers.viewers.iter().map(|door| door.try_send(AllowInputViewers(measures.input_viewers))))
            .chain(peers.programme.iter().map(|door| door.try_send(SetProgrammePreset(measures.preset))))
            .filter_map(Result::err)
            .inspect(|error| debug!(%error, "told again with the next sample"))
            .count();
        self.told = (refused == 0).then_some(measures);
    }
}

/// A look at the machine, from the sampler's thread.
#[derive(Message)]
#[rtype(result = "()")]
pub struct Sampled(pub Sample);

#[derive(Message)]
#[rtype(result = "()")]
struct Open;

impl Actor for Governor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.notify(Open);
    }
}

impl Supervised for Governor {}

crate::supervised!(Governor);

impl Handler<Open> for Governor {
    type Result = ();

    fn handle(&mut self, _: Open, ctx: &mut Self::Context) {
        self.life.opened();
        self.start_sampler(ctx);
        ctx.run_interval(SAMPLER_LOST_AFTER, Self::look_after_sampler);
    }
}

impl Handler<Sampled> for Governor {
    type Result = ();

    fn handle(&mut self, Sampled(sample): Sampled, _: &mut Self::Context) {
        let now = Instant::now();
        self.heard = now;
        if let Some(changed) = self.core.handle(now, &sample) {
            let reasons = changed.reasons.join(", ");
            match changed.level {
                0 => info!("the machine has room again, nothing is given up"),
                level => warn!(level, reasons, "the machine is pressed"),
            }
        }
        let degradation = self.core.degradation().clone();
        self.life.detail(match degradation.level {
            0 => String::new(),
            level => format!("level {level}: {}", degradation.reasons.join(", ")),
        });
        self.tell_peers(degradation.level);
        self.last = Metrics { sample, degradation, taken: Some(now) };
        self.settings.metrics.send_replace(self.last.clone());
    }
}

impl Handler<GetMetrics> for Governor {
    type Result = MessageResult<GetMetrics>;

    fn handle(&mut self, _: GetMetrics, _: &mut Self::Context) -> Self::Result {
        MessageResult(self.last.clone())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;
    use crate::supervision::{Duty, House, HouseSettings};

    fn settings(peers: GovernorPeers) -> (GovernorSettings, watch::Receiver<Metrics>) {
        let (metrics, seen) = watch::channel(Metrics::default());
        let settings =
            GovernorSettings { state_dir: std::env::temp_dir(), thresholds: Thresholds::default(), peers, metrics };
        (settings, seen)
    }

    #[actix_rt::test]
    async fn a_full_disk_slows_thumbnails_ends_input_viewers_and_cheapens_the_encoder() {
        let told = Arc::new(Mutex::new(Vec::new()));
        let (a, b, c) = (told.clone(), told.clone(), told.clone());
        let peers = GovernorPeers {
            thumbnails: vec![Door::from_fn(move |SetThumbnailInterval(every)| {
                a.lock().unwrap().push(format!("thumbnails every {} s", every.as_secs()));
            })],
            viewers: vec![Door::from_fn(move |AllowInputViewers(allowed)| {
                b.lock().unwrap().push(format!("viewers {allowed}"));
            })],
            programme: vec![Door::from_fn(move |SetProgrammePreset(level)| {
                c.lock().unwrap().push(format!("preset {level}"));
            })],
        };
        let (settings, _seen) = settings(peers);
        let house = House::open(HouseSettings::default());
        let governor =
            house.engage(Duty::new("governor", "governor"), move |life| Governor::new(life, settings.clone()));
        let sampled = governor.door::<Sampled>();
        let disk = |free| Sample { disk_free: Some(free), ..Sample::default() };
        sampled.send(Sampled(disk(100_000_000_000))).await.unwrap();
        assert_eq!(*told.lock().unwrap(), ["thumbnails every 1 s", "viewers true", "preset 0"]);
        told.lock().unwrap().clear();
        sampled.send(Sampled(disk(6_000_000_000))).await.unwrap();
        assert_eq!(*told.lock().unwrap(), ["thumbnails every 5 s", "viewers true", "preset 0"]);
        told.lock().unwrap().clear();
        sampled.send(Sampled(disk(500_000_000))).await.unwrap();
        assert_eq!(*told.lock().unwrap(), ["thumbnails every 5 s", "viewers false", "preset 1"]);
        let metrics = governor.door::<GetMetrics>().send(GetMetrics).await.unwrap();
        assert_eq!(metrics.degradation.level, 3);
        assert!(house.stop(Duration::from_secs(5)).await.is_empty());
    }

    #[test]
    fn each_level_gives_up_what_the_one_below_gave_up() {
        let preset = |level| Measures::at(level).preset;
        assert_eq!([preset(0), preset(1), preset(2), preset(3)], [0, 0, 0, 1]);
        let viewers = |level| Measures::at(level).input_viewers;
        assert_eq!([viewers(0), viewers(1), viewers(2), viewers(3)], [true, true, false, false]);
    }
}
