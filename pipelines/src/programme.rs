//! The programme: one pipeline that never leaves PLAYING, whatever its inputs do.
//!
//! All places are built at the start. A feed is attached to a place and detached from it by pointing its buffers elsewhere;
//! nothing in the pipeline is linked, unlinked or changes state. Takes are carried out in the compositor's own thread, once
//! per output frame, between choosing the pictures and blending them (the aggregator's `samples-selected` signal): a take
//! lands on exactly one frame. A controller per property would need eight bindings for each of a dozen pads and tear when one of
//! them is set late.

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use gst::prelude::*;

use crate::clock;
use crate::encoder::{self, EncoderLease};
use crate::error::PipelineError;
use crate::fanout::RtpFanout;
use crate::feed::Feed;
use crate::feed::level::rms_db;
use crate::layout::{FramePlan, PadState, Stage, Transition};
use crate::mode::{AUDIO_RATE, Mode};
use crate::render;
use crate::scene::Scene;
use crate::teardown;
use crate::thumbnail::Thumbnails;

mod build;
mod meter;
mod returns;
mod slot;
mod snap;
mod types;
mod watch;

use build::Built;
use meter::Meter;
pub use returns::ReturnMix;
pub use slot::HOLD;
use slot::{Events, Slot};
pub use types::{InputOnProgramme, ProgrammeEvent, ProgrammeInput, ProgrammePlan, ProgrammeStats, TakeTicket};

/// Most inputs that one programme is built for.
pub const MOST_INPUTS: usize = 16;

/// Longest time from PAUSED until every pad has its first buffer; typically some milliseconds.
const PRIME_LIMIT: Duration = Duration::from_secs(5);

/// Everything that streaming threads, the watch and the owner share.
struct Shared {
    plan: ProgrammePlan,
    built: Built,
    slots: Vec<Arc<Slot>>,
    stage: Mutex<Stage>,
    applied: Mutex<Applied>,
    meter: Mutex<Meter>,
    fanout: RtpFanout,
    thumbnails: Thumbnails,
    events: Events,
    encoder_dropped: Arc<AtomicU64>,
    preset: AtomicU8,
    identified: AtomicBool,
    identity: Mutex<Option<String>>,
    stopping: AtomicBool,
}

/// What the pads were last told, so that only changes are set.
#[derive(Default)]
struct Applied {
    plan: Option<FramePlan>,
    strip: bool,
    landed: Vec<u64>,
}

/// The running programme. Dropping it stops it.
pub struct Programme {
    shared: Arc<Shared>,
    base: Arc<AtomicU64>,
    lease: Option<EncoderLease>,
}

impl Programme {
    /// Builds and starts the programme: every place shows its slate, the picture is black until the first take.
    ///
    /// # Errors
    /// `MissingElements`, `Misconfigured` for an impossible plan, `Failed` when the pipeline does not start.
    pub fn start(
        plan: ProgrammePlan,
        events: impl Fn(ProgrammeEvent) + Send + Sync + 'static,
    ) -> Result<Self, PipelineError> {
        crate::init()?;
        check(&plan)?;
        let fanout = RtpFanout::new();
        let encoder_dropped = Arc::new(AtomicU64::new(0));
        let built = build::build(&plan, &fanout, &encoder_dropped)?;
        let thumbnails = Thumbnails::start("programme", &plan.mode)?;
        let small: Vec<_> =
            plan.inputs.iter().map(|input| Thumbnails::start(&input.id, &plan.mode)).collect::<Result<_, _>>()?;
        let stills = Stills::draw(&plan.mode)?;
        let events: Events = Arc::new(events);
        let base = Arc::new(AtomicU64::new(0));
        let mut slots = Vec::with_capacity(plan.inputs.len());
        for (n, (input, small)) in plan.inputs.iter().zip(small).enumerate() {
            let sources = (built.video[n].clone(), built.audio[n].clone());
            slots.push(Arc::new(Slot::new(input.clone(), plan.mode, base.clone(), sources, small, events.clone())));
        }
        let ids: Vec<_> = plan.inputs.iter().map(|input| input.id.clone()).collect();
        let shared = Arc::new(Shared {
            stage: Mutex::new(Stage::new(plan.mode, &ids)),
            applied: Mutex::default(),
            meter: Mutex::new(Meter::new(plan.mode)),
            thumbnails,
            plan,
            built,
            slots,
            fanout,
            events,
            encoder_dropped,
            preset: AtomicU8::new(0),
            identified: AtomicBool::new(false),
            identity: Mutex::new(None),
            stopping: AtomicBool::new(false),
        });
        let programme = Self { shared, base, lease: None };
        programme.run(stills)?;
        Ok(programme)
    }

    /// Keeps its encoder's lease until the pipeline has really stopped.
    pub fn holding(mut self, lease: EncoderLease) -> Self {
        self.lease = Some(lease);
        self
    }

    /// The lease of its encoder, where it has one.
    pub fn lease(&self) -> Option<&EncoderLease> {
        self.lease.as_ref()
    }

    /// Gives an input's place to a feed; whatever was there before is forgotten. The slate goes with the first picture.
    ///
    /// # Errors
    /// `Rejected` when there is no such input, or the feed is in another mode.
    pub fn attach(&self, input: &str, feed: &Feed) -> Result<(), PipelineError> {
        let slot = self.slot(input)?;
        if feed.mode() != self.shared.plan.mode {
            return Err(PipelineError::Rejected(format!("{input}: the feed is not in the programme's mode")));
        }
        slot.attach(feed);
        Ok(())
    }

    /// Takes an input's place back; the slate with this reason follows within a tenth of a second.
    ///
    /// # Errors
    /// `Rejected` when there is no such input.
    pub fn detach(&self, input: &str, reason: &str) -> Result<(), PipelineError> {
        self.slot(input)?.detach(reason);
        Ok(())
    }

    /// Says why an input has no picture. It is shown while the slate is; pictures that come are still shown.
    ///
    /// # Errors
    /// `Rejected` when there is no such input.
    pub fn set_slate(&self, input: &str, reason: &str) -> Result<(), PipelineError> {
        self.slot(input)?.explain(reason);
        Ok(())
    }

    /// Puts a scene on air with the next frame.
    ///
    /// # Errors
    /// `Rejected` when the scene or the transition cannot be carried out.
    pub fn take(&self, scene: &Scene, transition: Transition) -> Result<TakeTicket, PipelineError> {
        // The stage is held until the meter knows the take: it cannot land before it was requested.
        let mut stage = lock(&self.shared.stage);
        let id = stage.take(scene, transition)?;
        let mut meter = lock(&self.shared.meter);
        meter.requested(Instant::now(), id);
        Ok(TakeTicket { id, frame: meter.frames() + 1 })
    }

    /// Shows a line of text on the programme, or takes it away.
    ///
    /// # Errors
    /// `Failed` when the text cannot be drawn.
    pub fn identify(&self, text: Option<&str>) -> Result<(), PipelineError> {
        if let Some(text) = text {
            let (picture, _) = render::strip(&self.shared.plan.mode, text)?;
            self.push_still(&self.shared.built.strip.0, picture);
        }
        self.shared.identified.store(text.is_some(), Ordering::Relaxed);
        *lock(&self.shared.identity) = text.map(str::to_owned);
        Ok(())
    }

    /// The text that is shown by [`Programme::identify`].
    pub fn identity(&self) -> Option<String> {
        lock(&self.shared.identity).clone()
    }

    /// What the programme did so far.
    pub fn stats(&self) -> ProgrammeStats {
        let dropped = self.shared.encoder_dropped.load(Ordering::Relaxed);
        let preset = self.shared.preset.load(Ordering::Relaxed);
        lock(&self.shared.meter).stats(Instant::now(), dropped, preset)
    }

    /// Forgets the longest gap so far (benchmarks look at one incident at a time).
    pub fn reset_gap(&self) {
        lock(&self.shared.meter).reset_gap();
    }

    /// What each place shows, in the fixed order.
    pub fn inputs(&self) -> Vec<InputOnProgramme> {
        self.shared.slots.iter().map(|slot| slot.report()).collect()
    }

    /// The encoded programme.
    pub fn rtp(&self) -> RtpFanout {
        self.shared.fanout.clone()
    }

    /// Small pictures of the programme.
    pub fn thumbnail(&self) -> Thumbnails {
        self.shared.thumbnails.clone()
    }

    /// Small pictures of what an input's place shows, its slate included.
    pub fn input_thumbnail(&self, input: &str) -> Option<Thumbnails> {
        self.slot(input).ok().map(|slot| slot.thumbnails.clone())
    }

    /// Makes encoding cheaper: 0 is normal, up to [`encoder::LOWEST_PRESET`].
    pub fn set_preset(&self, level: u8) {
        let level = level.min(encoder::LOWEST_PRESET);
        self.shared.preset.store(level, Ordering::Relaxed);
        if let Some(element) = &self.shared.built.encoder {
            encoder::set_preset(element, self.shared.plan.bitrate_kbps, level);
        }
    }

    /// The plan it was built from.
    pub fn plan(&self) -> &ProgrammePlan {
        &self.shared.plan
    }

    /// Hands every composed frame to `look`, on the compositor's thread. For tests and benchmarks.
    pub fn watch_frames(&self, look: impl Fn(&gst::Buffer) + Send + Sync + 'static) {
        if let Some(pad) = self.shared.built.compositor.static_pad("src") {
            pad.add_probe(gst::PadProbeType::BUFFER, move |_, info| {
                if let Some(buffer) = info.buffer() {
                    look(buffer);
                }
                gst::PadProbeReturn::Ok
            });
        }
    }

    /// Hands every block of mixed sound to `listen`, on the mixer's thread. For tests and benchmarks.
    pub fn watch_sound(&self, listen: impl Fn(&gst::Buffer) + Send + Sync + 'static) {
        if let Some(pad) = self.shared.built.audiomixer.static_pad("src") {
            pad.add_probe(gst::PadProbeType::BUFFER, move |_, info| {
                if let Some(buffer) = info.buffer() {
                    listen(buffer);
                }
                gst::PadProbeReturn::Ok
            });
        }
    }

    /// Stops it, in at most [`teardown::DEADLINE`]. Answers whether the pipeline stopped in time.
    pub fn stop(mut self) -> bool {
        self.begin_stop();
        teardown::dismantle_holding(self.shared.built.pipeline.clone(), self.lease.take())
    }

    fn begin_stop(&self) -> bool {
        let first = !self.shared.stopping.swap(true, Ordering::SeqCst);
        for slot in &self.shared.slots {
            slot.detach("stopped");
        }
        first
    }

    /// Brings the pipeline to PLAYING.
    fn run(&self, stills: Stills) -> Result<(), PipelineError> {
        let shared = &self.shared;
        let pipeline = &shared.built.pipeline;
        Shared::hook(shared)?;
        let primed = shared.built.count_first_buffers();
        for slot in &shared.slots {
            slot.prime(&stills.plain, &stills.silence);
        }
        self.push_still(&shared.built.black.0, stills.black);
        self.push_still(&shared.built.strip.0, stills.strip);
        primed.play(pipeline, PRIME_LIMIT, |begins| self.base.store(begins, Ordering::Relaxed))?;
        watch::spawn(shared)
    }

    fn push_still(&self, source: &gst_app::AppSrc, mut picture: gst::Buffer) {
        let mode = &self.shared.plan.mode;
        let slot = mode.nearest_slot(self.running_nanos());
        if let Some(buffer) = picture.get_mut() {
            buffer.set_pts(gst::ClockTime::from_nseconds(mode.slot_start(slot)));
            buffer.set_duration(gst::ClockTime::from_nseconds(mode.frame_nanos()));
        }
        let _ = source.push_buffer(picture);
    }

    fn running_nanos(&self) -> u64 {
        match self.base.load(Ordering::Relaxed) {
            0 => 0,
            base => clock::now_nanos().saturating_sub(base),
        }
    }

    fn slot(&self, input: &str) -> Result<&Arc<Slot>, PipelineError> {
        let found = self.shared.slots.iter().find(|slot| slot.input.id == input);
        found.ok_or_else(|| PipelineError::Rejected(format!("the programme has no input {input}")))
    }
}

/// The pictures that every pad is given before the first frame.
struct Stills {
    plain: gst::Buffer,
    black: gst::Buffer,
    strip: gst::Buffer,
    /// A frame's worth of no sound.
    silence: gst::Buffer,
}

impl Stills {
    fn draw(mode: &Mode) -> Result<Self, PipelineError> {
        Ok(Self {
            plain: render::plain(mode, 0xff20_2830)?,
            black: render::plain(mode, 0xff00_0000)?,
            strip: render::strip(mode, "")?.0,
            silence: silence(mode),
        })
    }
}

fn silence(mode: &Mode) -> gst::Buffer {
    let samples = (mode.frame_nanos() * u64::from(AUDIO_RATE) / 1_000_000_000) as usize;
    let mut buffer = gst::Buffer::from_mut_slice(vec![0u8; samples * 4]);
    if let Some(stamped) = buffer.get_mut() {
        stamped.set_pts(gst::ClockTime::ZERO);
        stamped.set_duration(gst::ClockTime::from_nseconds(mode.frame_nanos()));
    }
    buffer
}

impl Drop for Programme {
    fn drop(&mut self) {
        if self.begin_stop() {
            teardown::dismantle_in_background(self.shared.built.pipeline.clone(), self.lease.take());
        }
    }
}

impl Shared {
    /// Puts the take logic in front of every frame, and the meters behind it.
    fn hook(this: &Arc<Self>) -> Result<(), PipelineError> {
        let bug = |what: &str| PipelineError::Bug(format!("the programme has no {what}"));
        let weak = Arc::downgrade(this);
        this.built.compositor.connect("samples-selected", false, move |values| {
            let shared = weak.upgrade()?;
            let pts = values.get(2)?.get::<Option<gst::ClockTime>>().ok().flatten()?;
            shared.before_frame(pts.nseconds());
            None
        });
        let weak = Arc::downgrade(this);
        let frames = this.built.compositor.static_pad("src").ok_or_else(|| bug("picture"))?;
        frames.add_probe(gst::PadProbeType::BUFFER, move |_, info| {
            if let (Some(shared), Some(buffer)) = (weak.upgrade(), info.buffer()) {
                shared.after_frame(buffer);
            }
            gst::PadProbeReturn::Ok
        });
        // A slow consumer must never make the compositor skip a frame.
        frames.add_probe(gst::PadProbeType::EVENT_UPSTREAM, |_, info| match info.event() {
            Some(event) if event.type_() == gst::EventType::Qos => gst::PadProbeReturn::Drop,
            _ => gst::PadProbeReturn::Ok,
        });
        let weak = Arc::downgrade(this);
        let sound = this.built.audiomixer.static_pad("src").ok_or_else(|| bug("sound"))?;
        sound.add_probe(gst::PadProbeType::BUFFER, move |_, info| {
            let map = info.buffer().and_then(|buffer| buffer.map_readable().ok());
            if let (Some(shared), Some(map)) = (weak.upgrade(), map) {
                let level = rms_db(map.as_slice());
                lock(&shared.meter).level_db = level;
            }
            gst::PadProbeReturn::Ok
        });
        Ok(())
    }

    /// Sets every pad for the frame that is about to be blended.
    fn before_frame(&self, pts: u64) {
        let plan = lock(&self.stage).frame(pts);
        let mut applied = lock(&self.applied);
        let before = applied.plan.as_ref();
        for bus in 0..2 {
            for (n, state) in plan.pads[bus].iter().enumerate() {
                set_pad(&self.built.pads[bus][n], before.map(|plan| &plan.pads[bus][n]), state);
            }
        }
        if before.map(|plan| plan.black) != Some(plan.black) {
            self.built.black.1.set_property("alpha", plan.black.0);
            self.built.black.1.set_property("zorder", plan.black.1);
        }
        for (n, gain) in plan.gains.iter().enumerate() {
            if before.map(|plan| plan.gains[n]) != Some(*gain) {
                self.built.volumes[n].set_property("volume", *gain);
                self.slots[n].set_gain(*gain);
            }
        }
        let strip = self.identified.load(Ordering::Relaxed);
        if strip != applied.strip {
            self.built.strip.1.set_property("alpha", f64::from(u8::from(strip)));
            applied.strip = strip;
        }
        applied.landed.extend(&plan.landed);
        applied.plan = Some(plan);
    }

    fn after_frame(&self, buffer: &gst::Buffer) {
        let pts = buffer.pts().map_or(0, gst::ClockTime::nseconds);
        let duration = buffer.duration().map_or(0, gst::ClockTime::nseconds);
        let landed = std::mem::take(&mut lock(&self.applied).landed);
        let (first, reports) = {
            let mut meter = lock(&self.meter);
            let reports = meter.frame(Instant::now(), (pts, duration), &landed);
            (meter.frames() == 1, reports)
        };
        if first {
            (self.events)(ProgrammeEvent::FirstFrame);
        }
        for (id, frames) in reports {
            (self.events)(ProgrammeEvent::TakeLanded { id, frames });
        }
        self.thumbnails.offer(buffer);
    }
}

fn set_pad(pad: &gst::Pad, before: Option<&PadState>, now: &PadState) {
    let changed = |same: fn(&PadState, &PadState) -> bool| before.is_none_or(|before| !same(before, now));
    if changed(|a, b| (a.x, a.y) == (b.x, b.y)) {
        pad.set_properties(&[("xpos", &now.x), ("ypos", &now.y)]);
    }
    if changed(|a, b| (a.w, a.h) == (b.w, b.h)) {
        pad.set_properties(&[("width", &now.w), ("height", &now.h)]);
    }
    if changed(|a, b| a.z == b.z) {
        pad.set_property("zorder", now.z);
    }
    if changed(|a, b| a.alpha == b.alpha) {
        pad.set_property("alpha", now.alpha);
    }
}

fn check(plan: &ProgrammePlan) -> Result<(), PipelineError> {
    plan.mode.validate()?;
    if plan.inputs.is_empty() || plan.inputs.len() > MOST_INPUTS {
        let reason = format!("{} inputs, not from 1 to {MOST_INPUTS}", plan.inputs.len());
        return Err(PipelineError::misconfigured("programme.inputs", reason));
    }
    if !(100..=50_000).contains(&plan.bitrate_kbps) {
        let reason = format!("{} is not from 100 to 50000", plan.bitrate_kbps);
        return Err(PipelineError::misconfigured("programme.bitrate_kbps", reason));
    }
    Ok(())
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
