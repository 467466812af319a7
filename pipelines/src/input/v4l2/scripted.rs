//! A capture device that plays a script: what the box's chips were seen to do, for tests without the box.
//!
//! Its frames go through the same pipeline as a real device's. It refuses, loudly, what crashes the real one: setting the
//! format while it streams.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use gst::prelude::*;

use super::{CaptureDevice, CaptureError};
use crate::elements::make;
use crate::error::PipelineError;
use crate::signal::{CaptureFormat, Driver, Probe, Timings};

/// What the device is doing; a test changes it while it runs.
#[derive(Debug, Clone, PartialEq)]
pub struct Scene {
    /// What a probe answers.
    pub probe: Probe,
    /// How long a probe takes.
    pub probe_takes: Duration,
    /// The format that is taken.
    pub format: CaptureFormat,
    /// Whether every frame is the same.
    pub frozen: bool,
    /// Whether frames come at all.
    pub flowing: bool,
    /// Change events that wait to be read.
    pub changes: u32,
}

impl Scene {
    /// A healthy 1080p source.
    pub fn healthy() -> Self {
        Self {
            probe: Probe::Timings(Timings { width: 1920, height: 1080, pixel_clock: 148_500_000, interlaced: false }),
            probe_takes: Duration::ZERO,
            format: CaptureFormat { fourcc: "UYVY".into(), width: 1920, height: 1080 },
            frozen: false,
            flowing: true,
            changes: 0,
        }
    }

    /// Nothing plugged in.
    pub fn no_cable() -> Self {
        Self { probe: Probe::Errno(nix::errno::Errno::ENOLINK as i32), flowing: false, ..Self::healthy() }
    }

    /// A cable without a stable picture.
    pub fn no_sync() -> Self {
        Self { probe: Probe::Errno(nix::errno::Errno::ENOLCK as i32), flowing: false, ..Self::healthy() }
    }
}

#[derive(Default)]
struct Log {
    calls: Vec<&'static str>,
    source: Option<gst::glib::WeakRef<gst::Element>>,
    violations: u32,
}

/// The test's hold on the device.
#[derive(Clone)]
pub struct Script {
    scene: Arc<Mutex<Scene>>,
    log: Arc<Mutex<Log>>,
}

impl Script {
    /// A script that begins with this scene.
    pub fn new(scene: Scene) -> Self {
        Self { scene: Arc::new(Mutex::new(scene)), log: Arc::default() }
    }

    /// Changes the scene.
    pub fn change(&self, change: impl FnOnce(&mut Scene)) {
        change(&mut self.scene.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// The calls that were made, in order: `probe`, `configure`, `source`.
    pub fn calls(&self) -> Vec<&'static str> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner).calls.clone()
    }

    /// How often the format was set while the node streamed. Must be 0: it crashes the box.
    pub fn violations(&self) -> u32 {
        self.log.lock().unwrap_or_else(PoisonError::into_inner).violations
    }

    /// The device that plays it.
    pub fn device(&self, driver: Driver) -> Box<dyn CaptureDevice> {
        Box::new(ScriptedDevice { script: self.clone(), driver })
    }

    fn scene(&self) -> Scene {
        self.scene.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn log(&self, call: &'static str) {
        self.log.lock().unwrap_or_else(PoisonError::into_inner).calls.push(call);
    }
}

struct ScriptedDevice {
    script: Script,
    driver: Driver,
}

impl CaptureDevice for ScriptedDevice {
    fn driver(&self) -> Driver {
        self.driver
    }

    fn probe(&mut self) -> Probe {
        let scene = self.script.scene();
        // The duration is the script's: a driver that hangs.
        std::thread::sleep(scene.probe_takes);
        self.script.log("probe");
        scene.probe
    }

    fn configure(&mut self, _timings: &Timings) -> Result<CaptureFormat, CaptureError> {
        let mut log = self.script.log.lock().unwrap_or_else(PoisonError::into_inner);
        log.calls.push("configure");
        let streaming = log.source.as_ref().and_then(gst::glib::WeakRef::upgrade);
        if streaming.is_some_and(|source| source.current_state() >= gst::State::Paused) {
            log.violations += 1;
            return Err(CaptureError::Unusable("S_FMT on a streaming node".into()));
        }
        drop(log);
        Ok(self.script.scene().format)
    }

    fn source_changed(&mut self) -> bool {
        let mut scene = self.script.scene.lock().unwrap_or_else(PoisonError::into_inner);
        let changed = scene.changes > 0;
        scene.changes = scene.changes.saturating_sub(1);
        changed
    }

    /// A bin: live test pictures in the script's format, held back or frozen by the script.
    fn source(&mut self, format: &CaptureFormat) -> Result<gst::Element, PipelineError> {
        self.script.log("source");
        let bin = gst::Bin::new();
        let source = make("videotestsrc")?;
        source.set_property("is-live", true);
        source.set_property_from_str("pattern", "ball");
        let filter = make("capsfilter")?;
        let name = match format.fourcc.as_str() {
            "NV12" => "NV12",
            "NV16" => "NV16",
            "BGR3" => "BGR",
            _ => "UYVY",
        };
        let caps = gst::Caps::builder("video/x-raw")
            .field("format", name)
            .field("width", format.width as i32)
            .field("height", format.height as i32)
            .field("framerate", gst::Fraction::new(30, 1))
            .build();
        filter.set_property("caps", caps);
        let failed = |error: gst::glib::BoolError| PipelineError::failed("scripted capture", error);
        bin.add_many([&source, &filter]).map_err(failed)?;
        source.link(&filter).map_err(failed)?;
        let pad = filter.static_pad("src").ok_or_else(|| PipelineError::Bug("a filter without a source".into()))?;
        let script = self.script.clone();
        let kept: Mutex<Option<gst::Buffer>> = Mutex::new(None);
        pad.add_probe(gst::PadProbeType::BUFFER, move |_, info| {
            let scene = script.scene();
            if !scene.flowing {
                return gst::PadProbeReturn::Drop;
            }
            let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(buffer) = info.buffer_mut() {
                match (&*kept, scene.frozen) {
                    (Some(old), true) => {
                        let mut same = old.copy();
                        if let Some(stamped) = same.get_mut() {
                            stamped.set_pts(buffer.pts());
                        }
                        *buffer = same;
                    }
                    _ => *kept = Some(buffer.clone()),
                }
            }
            gst::PadProbeReturn::Ok
        });
        let ghost = gst::GhostPad::with_target(&pad).map_err(failed)?;
        bin.add_pad(&ghost).map_err(failed)?;
        self.script.log.lock().unwrap_or_else(PoisonError::into_inner).source =
            Some(bin.clone().upcast::<gst::Element>().downgrade());
        Ok(bin.upcast())
    }
}
