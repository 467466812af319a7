//! A child process: its output with times, its processor time, its memory, and its end.

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// Ticks of `/proc/<pid>/stat` in a second: 100 on Linux, whatever the kernel's own rate is (proc(5), USER_HZ).
const TICKS: f64 = 100.0;
/// An orderly stop takes no longer than this.
const STOP_WITHIN: Duration = Duration::from_secs(8);

/// A running child; killed when dropped.
pub struct Process {
    name: String,
    child: Child,
    started: Instant,
    lines: Arc<Mutex<Vec<(Instant, String)>>>,
}

impl Process {
    /// Starts a command and keeps every line of its standard output and error.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(name: &str, command: &mut Command) -> Result<Self> {
        let started = Instant::now();
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().with_context(|| format!("{name} cannot be started"))?;
        let lines = Arc::new(Mutex::new(Vec::new()));
        if let Some(stdout) = child.stdout.take() {
            keep(stdout, Arc::clone(&lines));
        }
        if let Some(stderr) = child.stderr.take() {
            keep(stderr, Arc::clone(&lines));
        }
        Ok(Self { name: name.into(), child, started, lines })
    }

    /// Just before it was started.
    pub fn started(&self) -> Instant {
        self.started
    }

    /// The last lines that it said, for a reason.
    fn last_words(&self) -> String {
        let lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        let last: Vec<&str> = lines.iter().rev().take(3).rev().map(|(_, line)| line.as_str()).collect();
        last.join(" | ")
    }

    /// Waits for a line at or after `since` for which `found` answers `Some`; answers when it came, too.
    ///
    /// # Errors
    /// When the process ends first, or the time is over.
    pub async fn line<T>(
        &mut self,
        since: Instant,
        within: Duration,
        what: &str,
        found: impl Fn(&str) -> Option<T>,
    ) -> Result<(Instant, T)> {
        let begin = Instant::now();
        loop {
            let ended = self.child.try_wait()?;
            let hit = {
                let lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
                lines.iter().filter(|(at, _)| *at >= since).find_map(|(at, line)| found(line).map(|hit| (*at, hit)))
            };
            if let Some(hit) = hit {
                return Ok(hit);
            }
            if let Some(status) = ended {
                bail!("{} ended ({status}) before {what}: {}", self.name, self.last_words());
            }
            if begin.elapsed() > within {
                bail!("{}: no {what} within {within:?}: {}", self.name, self.last_words());
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Proves that it has not ended.
    ///
    /// # Errors
    /// With its last words.
    pub fn is_alive(&mut self) -> Result<()> {
        match self.child.try_wait()? {
            Some(status) => bail!("{} ended ({status}): {}", self.name, self.last_words()),
            None => Ok(()),
        }
    }

    /// User and system time so far, in seconds.
    ///
    /// # Errors
    /// When it is gone.
    pub fn cpu_seconds(&self) -> Result<f64> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id())).context("it is gone")?;
        let after = stat.rsplit(')').next().unwrap_or_default();
        let ticks = after.split_whitespace().skip(11).take(2).filter_map(|text| text.parse::<f64>().ok());
        Ok(ticks.sum::<f64>() / TICKS)
    }

    /// Resident memory in bytes.
    ///
    /// # Errors
    /// When it is gone.
    pub fn resident(&self) -> Result<f64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).context("it is gone")?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
        Ok(line.trim().trim_end_matches(" kB").trim().parse::<f64>()? * 1024.0)
    }

    /// Sends a signal.
    ///
    /// # Errors
    /// When it is gone.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        Ok(kill(Pid::from_raw(i32::try_from(self.child.id())?), signal)?)
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// When it ends badly, or not in time.
    pub async fn ended(&mut self, within: Duration) -> Result<()> {
        let begin = Instant::now();
        loop {
            match self.child.try_wait()? {
                Some(status) if status.success() => return Ok(()),
                Some(status) => bail!("{} ended with {status}: {}", self.name, self.last_words()),
                None if begin.elapsed() > within => bail!("{} does not end: {}", self.name, self.last_words()),
                None => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        }
    }

    /// Asks it to stop, waits for its end, and kills it if that does not come.
    pub async fn stop(mut self) {
        if let Ok(id) = i32::try_from(self.child.id()) {
            let _ = kill(Pid::from_raw(id), Signal::SIGTERM);
        }
        let begin = Instant::now();
        while matches!(self.child.try_wait(), Ok(None)) && begin.elapsed() < STOP_WITHIN {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn keep(stream: impl Read + Send + 'static, lines: Arc<Mutex<Vec<(Instant, String)>>>) {
    std::thread::spawn(move || {
        for line in BufReader::new(stream).lines().map_while(Result::ok) {
            let at = Instant::now();
            lines.lock().unwrap_or_else(PoisonError::into_inner).push((at, line));
        }
    });
}
