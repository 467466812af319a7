//! The line that moves while a simulation runs, and the keys that it listens to.

use std::io::{BufRead as _, IsTerminal as _, Write as _};
use std::time::{Duration, Instant};

use tokio::sync::mpsc;

use super::device::{Phase, Shared};

/// Where nobody watches, a line comes this often.
const QUIET_EVERY: Duration = Duration::from_secs(10);

/// What somebody at the keyboard wants; each is a letter and the enter key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Key {
    /// `s`: a reconnect storm.
    Storm,
    /// `c`: no more outages.
    Calm,
    /// `q`: the end.
    Quit,
}

/// Listens to the keyboard, if there is one.
pub fn keys() -> mpsc::UnboundedReceiver<Key> {
    let (pressed, keys) = mpsc::unbounded_channel();
    if std::io::stdin().is_terminal() {
        // Ends with the process: a read of the terminal cannot be interrupted.
        std::thread::spawn(move || {
            for line in std::io::stdin().lock().lines().map_while(Result::ok) {
                let key = match line.trim() {
                    "s" => Key::Storm,
                    "c" => Key::Calm,
                    "q" => Key::Quit,
                    _ => continue,
                };
                if pressed.send(key).is_err() {
                    return;
                }
            }
        });
    }
    keys
}

/// The line.
pub struct Screen {
    devices: u32,
    live: bool,
    shown: Option<Instant>,
    heartbeats: u64,
    phase: Option<Phase>,
}

impl Screen {
    /// Of a fleet of this size.
    pub fn new(devices: u32) -> Self {
        Self { devices, live: std::io::stderr().is_terminal(), shown: None, heartbeats: 0, phase: None }
    }

    /// So many have enrolled.
    pub fn enrolled(&mut self, n: usize) {
        if self.live || n.is_multiple_of(500) || n == self.devices as usize {
            self.say(&format!("enrolled {n} of {}", self.devices));
        }
    }

    /// The counters.
    pub fn show(&mut self, shared: &Shared, phase: Phase) {
        let now = Instant::now();
        let passed = self.shown.map(|shown| now - shown);
        if !self.live && self.phase == Some(phase) && passed.is_some_and(|passed| passed < QUIET_EVERY) {
            return;
        }
        let tally = &shared.tally;
        let heartbeats = tally.heartbeats.get();
        let rate = passed.map_or(0.0, |passed| (heartbeats - self.heartbeats) as f64 / passed.as_secs_f64().max(0.1));
        (self.shown, self.heartbeats, self.phase) = (Some(now), heartbeats, Some(phase));
        let word = match phase {
            Phase::Rough => "rough",
            Phase::Calm => "calm",
            Phase::Settle | Phase::Close => "settling",
        };
        let settled = match phase {
            Phase::Settle | Phase::Close => format!(", {} settled", tally.settled.get()),
            _ => String::new(),
        };
        self.say(&format!(
            "{:5.0} s {word}: {} of {} online{settled}, {rate:.0} heartbeats/s, commands {} running {} done, \
             {} connections, {} failed, {} errors",
            shared.began.elapsed().as_secs_f64(),
            tally.online.get(),
            self.devices,
            tally.running.get(),
            tally.ended(),
            tally.connections.get(),
            tally.failed_connections.get() + tally.refused.get(),
            tally.errors.get(),
        ));
    }

    /// No more lines.
    pub fn over(&mut self) {
        if self.live {
            let _ = writeln!(std::io::stderr());
        }
    }

    fn say(&self, line: &str) {
        // A terminal that went away is no reason to stop.
        let mut to = std::io::stderr().lock();
        let _ = if self.live { write!(to, "\r\x1b[K{line}") } else { writeln!(to, "r58 sim: {line}") };
        let _ = to.flush();
    }
}
