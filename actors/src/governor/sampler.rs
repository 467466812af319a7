//! Looks at the machine every five seconds, on a thread of its own: a hung mount must not stop an actor.

use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;

use sysinfo::{Components, System};

use super::core::Sample;

/// A running sampler; dropping it ends its thread at the next wake-up, without waiting for it.
pub(super) struct Sampler {
    _stop: mpsc::Sender<()>,
}

impl Sampler {
    /// Calls `deliver` with the first sample after `every`, and so on. `state_dir` says which disk counts.
    pub fn start(
        state_dir: PathBuf,
        every: Duration,
        mut deliver: impl FnMut(Sample) + Send + 'static,
    ) -> std::io::Result<Self> {
        let (stop, stopped) = mpsc::channel::<()>();
        std::thread::Builder::new().name("governor-sampler".to_owned()).spawn(move || {
            let mut machine = Machine::new(&state_dir);
            // The processor's load is a difference of two readings: the first one only opens the interval.
            machine.sample();
            while let Err(RecvTimeoutError::Timeout) = stopped.recv_timeout(every) {
                deliver(machine.sample());
            }
        })?;
        Ok(Self { _stop: stop })
    }
}

struct Machine {
    system: Option<System>,
    components: Option<Components>,
    state_dir: PathBuf,
}

impl Machine {
    fn new(state_dir: &Path) -> Self {
        Self {
            system: System::new().ok(),
            components: Components::new_with_refreshed_list().ok(),
            state_dir: state_dir.to_owned(),
        }
    }

    fn sample(&mut self) -> Sample {
        let mut sample = Sample::default();
        if let Some(system) = &mut self.system {
            system.refresh_cpu_usage();
            system.refresh_memory();
            sample.cpu_percent = Some(system.global_cpu_usage().clamp(0.0, 100.0));
            let (total, available) = (system.total_memory(), system.available_memory());
            sample.mem_percent =
                (total > 0).then(|| (100.0 * total.saturating_sub(available) as f64 / total as f64) as f32);
        }
        if let Some(components) = &mut self.components {
            components.refresh(false);
            sample.temperature_c = hottest(components);
        }
        if let Ok(disk) = nix::sys::statvfs::statvfs(&self.state_dir) {
            let fragment = disk.fragment_size();
            sample.disk_free = Some(disk.blocks_available() * fragment);
            sample.disk_total = Some(disk.blocks() * fragment);
        }
        sample.load_avg = System::load_average().ok().map(|load| [load.one, load.five, load.fifteen]);
        sample
    }
}

/// The hottest sensor of the processor; of anything, when none names itself so.
fn hottest(components: &Components) -> Option<f32> {
    let of_processor = |label: &str| {
        let label = label.to_ascii_lowercase();
        ["cpu", "soc", "core", "package", "k10temp", "bigcore", "littlecore"].iter().any(|word| label.contains(word))
    };
    let readings = || {
        components.iter().filter_map(|component| {
            let celsius = component.temperature().filter(|value| value.is_finite() && *value > 0.0)?;
            Some((of_processor(component.label()), celsius))
        })
    };
    let max = |a: f32, b: f32| a.max(b);
    readings()
        .filter(|(processor, _)| *processor)
        .map(|(_, celsius)| celsius)
        .reduce(max)
        .or_else(|| readings().map(|(_, celsius)| celsius).reduce(max))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_has_a_processor_memory_and_a_disk() {
        let dir = tempfile::tempdir().unwrap();
        let (tx, rx) = mpsc::channel();
        let sampler = Sampler::start(dir.path().to_owned(), Duration::from_millis(250), move |sample| {
            let _ = tx.send(sample);
        });
        let sample = rx.recv_timeout(Duration::from_secs(10)).unwrap();
        drop(sampler);
        assert!((0.0..=100.0).contains(&sample.cpu_percent.unwrap()));
        assert!((0.0..=100.0).contains(&sample.mem_percent.unwrap()));
        assert!(sample.disk_free.unwrap() <= sample.disk_total.unwrap());
        assert!(sample.load_avg.is_some());
    }
}
