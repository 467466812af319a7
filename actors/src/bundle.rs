//! BundleMaker: what a box knows of itself, in one archive for those who look for what is wrong.
//!
//! Job: on [`MakeBundle`], gather logs, configuration, actor tree, pipeline graphs, recent telemetry and facts of the machine,
//! take secrets out ([`crate::redact`]), and write a tar.gz of bounded size, on a thread of its own. In: [`MakeBundle`], the
//! Governor's word by watch. Out: a [`Bundle`] on the [`Shelf`], which the courier takes to the fleet.
//!
//! Failure policy: a bundle is whole or not there. The same id is made once: asked again, the answer is the same. Without room
//! on the disk it is refused, with the figures. A collector that hangs costs the bundle, never the box: whoever asked is told after
//! [`DEADLINE`], and the thread is left to itself. Supervised by the house.

pub mod archive;
pub mod shelf;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use actix::{Actor, AsyncContext as _, Context, Handler, Message, ResponseFuture, Supervised};
use chrono::Utc;
use r58_mqtt::CommandId;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::watch;

pub use self::shelf::{Bundle, Shelf};

use self::archive::Archive;
use crate::governor::Metrics;
use crate::logs::{LogBook, files};
use crate::offthread::off_thread;
use crate::redact::Redactor;
use crate::supervision::{ActorReport, Life};

/// A bundle that is not there by then has failed. Less than the protocol's usual time for an effect.
pub const DEADLINE: Duration = Duration::from_secs(50);
/// Distance of the samples that make recent telemetry.
const SAMPLE_EVERY: Duration = Duration::from_secs(10);
/// Samples kept: an hour.
const SAMPLES: usize = 360;
/// Room on the disk that a bundle leaves to everybody else, in bytes.
const DISK_RESERVE: u64 = 256 * 1024 * 1024;

/// What is wanted in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Wants {
    /// The log.
    pub include_logs: bool,
    /// The configuration, without secrets.
    pub include_config: bool,
    /// Recordings.
    pub include_recordings: bool,
    /// Actor tree, state, graphs, telemetry, machine.
    pub include_diagnostics: bool,
}

impl Default for Wants {
    /// Everything but recordings.
    fn default() -> Self {
        Self { include_logs: true, include_config: true, include_recordings: false, include_diagnostics: true }
    }
}

/// Told how far it is, 0 to 1.
pub type Progress = Arc<dyn Fn(f64) + Send + Sync>;

/// Makes a bundle, or finds the one that was made.
#[derive(Clone, Message)]
#[rtype(result = "Result<Bundle, BundleError>")]
pub struct MakeBundle {
    /// That of the command.
    pub id: CommandId,
    /// What is wanted.
    pub wants: Wants,
    /// Told how far it is.
    pub progress: Progress,
}

/// Why there is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BundleError {
    /// The disk has no room.
    #[error("{free_mb} MB are free on the box's disk and a bundle wants {wanted_mb} MB")]
    NoRoom {
        /// Free.
        free_mb: u64,
        /// Wanted.
        wanted_mb: u64,
    },
    /// The disk said no.
    #[error("the bundle cannot be written: {0}")]
    Disk(String),
    /// It did not come to an end.
    #[error("the bundle was not ready in time, or its maker failed")]
    Lost,
}

impl BundleError {
    /// One word for a command's status.
    pub fn code(&self) -> &'static str {
        match self {
            Self::NoRoom { .. } => "no_room",
            Self::Disk(_) => "disk",
            Self::Lost => "failed",
        }
    }
}

/// What the box knows; called on a thread that may wait. Secrets are taken out of whatever it says.
pub trait BundleSources: Send + Sync {
    /// The configuration in force.
    fn config(&self) -> Value;

    /// The state as the pages show it, and whatever else explains it.
    fn state(&self) -> Value;

    /// The actors.
    fn actors(&self) -> Vec<ActorReport>;

    /// Name and graph of each pipeline.
    fn graphs(&self) -> Vec<(String, String)>;
}

/// What a [`BundleMaker`] is made of; cheap to clone, one for all of its lives.
#[derive(Clone)]
pub struct BundleSettings {
    /// Where bundles go.
    pub shelf: Shelf,
    /// Most bytes of one.
    pub max_bytes: u64,
    /// The log, and what takes secrets out.
    pub book: LogBook,
    /// Where the log's files are.
    pub log_directory: std::path::PathBuf,
    /// Everything else.
    pub sources: Arc<dyn BundleSources>,
    /// The Governor's last word.
    pub metrics: watch::Receiver<Metrics>,
    /// Told when there is a new one.
    pub made: watch::Sender<u64>,
}

/// The actor.
pub struct BundleMaker {
    life: Life,
    settings: BundleSettings,
    samples: VecDeque<Value>,
}

impl BundleMaker {
    /// For the house's factory.
    pub fn new(life: Life, settings: BundleSettings) -> Self {
        Self { life, settings, samples: VecDeque::new() }
    }

    fn sample(&mut self) {
        let metrics = self.settings.metrics.borrow().clone();
        if metrics.taken.is_none() {
            return;
        }
        let sample = &metrics.sample;
        self.samples.push_back(json!({
            "ts": Utc::now(),
            "cpu_percent": sample.cpu_percent,
            "mem_percent": sample.mem_percent,
            "degradation_level": metrics.degradation.level,
            "sample": format!("{sample:?}"),
        }));
        if self.samples.len() > SAMPLES {
            self.samples.pop_front();
        }
    }
}

impl Actor for BundleMaker {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        self.life.opened();
        ctx.run_interval(SAMPLE_EVERY, |actor, _| actor.sample());
    }
}

impl Supervised for BundleMaker {}

crate::supervised!(BundleMaker);

impl Handler<MakeBundle> for BundleMaker {
    type Result = ResponseFuture<Result<Bundle, BundleError>>;

    fn handle(&mut self, order: MakeBundle, _: &mut Self::Context) -> Self::Result {
        self.sample();
        let (settings, samples) = (self.settings.clone(), self.samples.iter().cloned().collect::<Vec<_>>());
        let made = off_thread("bundle", move || make(&settings, &samples, &order));
        Box::pin(async move {
            match tokio::time::timeout(DEADLINE, made).await {
                Ok(Some(made)) => made,
                Ok(None) | Err(_) => Err(BundleError::Lost),
            }
        })
    }
}

fn make(settings: &BundleSettings, samples: &[Value], order: &MakeBundle) -> Result<Bundle, BundleError> {
    let shelf = &settings.shelf;
    if let Some(done) = shelf.find(&order.id) {
        return Ok(done);
    }
    let disk = |error: std::io::Error| BundleError::Disk(error.to_string());
    std::fs::create_dir_all(shelf.directory()).map_err(disk)?;
    archive::sweep(shelf.directory()).map_err(disk)?;
    let (free, wanted) = (archive::free_bytes(shelf.directory()).map_err(disk)?, settings.max_bytes + DISK_RESERVE);
    if free < wanted {
        return Err(BundleError::NoRoom { free_mb: free / 1_000_000, wanted_mb: wanted.div_ceil(1_000_000) });
    }
    let created_at = Utc::now();
    let seconds = u64::try_from(created_at.timestamp()).unwrap_or_default();
    let part = shelf.part(&order.id);
    let mut archive = Archive::create(&part, settings.max_bytes, seconds).map_err(disk)?;
    let filled = fill(&mut archive, settings, samples, order);
    let manifest = json!({
        "format": 1,
        "bundle": order.id.as_str(),
        "created_at": created_at,
        "software": env!("CARGO_PKG_VERSION"),
        "redacted": true,
    });
    let finished = filled.and_then(|()| archive.finish(manifest));
    let (size_bytes, sha256) = match finished {
        Ok(finished) => finished,
        Err(error) => {
            let _ = std::fs::remove_file(&part);
            return Err(disk(error));
        }
    };
    let state = shelf::WAITING.to_owned();
    let bundle = Bundle { id: order.id.clone(), size_bytes, sha256, created_at, state };
    shelf.put(&part, &bundle).map_err(disk)?;
    (order.progress)(1.0);
    settings.made.send_modify(|count| *count += 1);
    Ok(bundle)
}

fn fill(
    archive: &mut Archive,
    settings: &BundleSettings,
    samples: &[Value],
    order: &MakeBundle,
) -> std::io::Result<()> {
    let redactor = settings.book.redactor();
    let document = |mut value: Value| {
        redactor.json(&mut value);
        serde_json::to_vec_pretty(&value)
    };
    let wants = order.wants;
    (order.progress)(0.05);
    // What is small and says most goes first; the log takes what room is left.
    if wants.include_config {
        archive.add("config.json", &document(settings.sources.config())?)?;
    } else {
        archive.leave_out("config", "it was not asked for");
    }
    (order.progress)(0.1);
    if wants.include_diagnostics {
        archive.add("actors.json", &document(serde_json::to_value(settings.sources.actors())?)?)?;
        archive.add("state.json", &document(settings.sources.state())?)?;
        archive.add("system.json", &document(machine())?)?;
        let lines: Vec<String> = samples.iter().map(Value::to_string).collect();
        archive.add("telemetry.jsonl", redactor.text(&lines.join("\n")).as_bytes())?;
        (order.progress)(0.2);
        for (n, (name, graph)) in settings.sources.graphs().into_iter().enumerate() {
            archive.add(&format!("graphs/{n:02}-{}.dot", plain(&name)), redactor.text(&graph).as_bytes())?;
        }
    } else {
        archive.leave_out("diagnostics", "they were not asked for");
    }
    (order.progress)(0.4);
    match wants.include_recordings {
        true => archive.leave_out("recordings", "this box does not record yet"),
        false => archive.leave_out("recordings", "they were not asked for"),
    }
    if wants.include_logs {
        logs(archive, settings, redactor, &order.progress)
    } else {
        archive.leave_out("logs", "they were not asked for");
        Ok(())
    }
}

/// Newest first, so that what there is no room for is the oldest. Secrets were taken out when it was written; those that the
/// box has learnt since then go now.
fn logs(
    archive: &mut Archive,
    settings: &BundleSettings,
    redactor: &Redactor,
    progress: &Progress,
) -> std::io::Result<()> {
    let memory = settings.book.recent(0);
    let lines: Result<Vec<String>, _> = memory.iter().map(|record| serde_json::to_string(&**record)).collect();
    archive.add("logs/newest.jsonl", clean(redactor, &lines?.join("\n")).as_bytes())?;
    let Ok(mut kept) = files::list(&settings.log_directory) else { return Ok(()) };
    kept.reverse();
    let all = kept.len().max(1) as f64;
    for (n, (first, path)) in kept.into_iter().enumerate() {
        // One that was rotated away meanwhile is gone.
        let Ok(bytes) = std::fs::read(path) else { continue };
        archive
            .add(&format!("logs/{first:020}.jsonl"), clean(redactor, &String::from_utf8_lossy(&bytes)).as_bytes())?;
        progress(0.4 + 0.55 * (n + 1) as f64 / all);
    }
    Ok(())
}

/// Line by line: what one line holds must not take the next ones along.
fn clean(redactor: &Redactor, text: &str) -> String {
    let mut lines: Vec<_> = Vec::new();
    for line in text.lines() {
        lines.push(match serde_json::from_str::<Value>(line) {
            Ok(mut record) => {
                redactor.json(&mut record);
                record.to_string()
            }
            Err(_) => redactor.text(line).into_owned(),
        });
    }
    lines.join("\n")
}

fn machine() -> Value {
    use sysinfo::{Disks, System};
    let disks = Disks::new_with_refreshed_list();
    let disks = disks.as_ref().map(|disks| {
        let one = |disk: &sysinfo::Disk| {
            json!({
                "mount": disk.mount_point().display().to_string(),
                "file_system": disk.file_system().to_string_lossy(),
                "total_bytes": disk.total_space(),
                "available_bytes": disk.available_space(),
            })
        };
        disks.iter().map(one).collect::<Vec<_>>()
    });
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    json!({
        "arch": std::env::consts::ARCH,
        "kernel": System::kernel_version().ok(),
        "os": System::long_os_version().ok(),
        "uptime_seconds": read("/proc/uptime").split('.').next().and_then(|text| text.parse::<u64>().ok()),
        "load_avg": read("/proc/loadavg").trim(),
        "meminfo": read("/proc/meminfo").lines().take(12).collect::<Vec<_>>(),
        "cpus": std::thread::available_parallelism().map(usize::from).ok(),
        "disks": disks.ok(),
    })
}

/// A name that is good in an archive, whatever it was.
fn plain(name: &str) -> String {
    name.chars().map(|c| if c.is_ascii_alphanumeric() || "-_".contains(c) { c } else { '_' }).take(48).collect()
}
