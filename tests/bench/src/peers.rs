//! Where our own programs are, and how we run the box and the fleet server.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use reqwest::Client;
use serde_json::Value;
use tempfile::TempDir;

use crate::process::Process;

/// A start may take this long on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// A program beside this one.
///
/// # Errors
/// When it was not built.
pub fn beside(name: &str) -> Result<PathBuf> {
    let mut path = std::env::current_exe().context("this program has no path")?;
    path.set_file_name(name);
    ensure!(path.exists(), "{name} is not built ({} is missing)", path.display());
    Ok(path)
}

/// A directory with a configuration and a state in it, that goes when dropped.
pub struct Home {
    dir: TempDir,
}

impl Home {
    /// A fresh directory with `r58.toml`.
    ///
    /// # Errors
    /// When the system gives no directory.
    pub fn new(config: &str) -> Result<Self> {
        let home = Self { dir: tempfile::tempdir()? };
        home.write("r58.toml", config)?;
        Ok(home)
    }

    /// Writes a file beside the configuration; the program runs in this directory.
    ///
    /// # Errors
    /// What the system says.
    pub fn write(&self, name: &str, text: &str) -> Result<()> {
        Ok(std::fs::write(self.dir.path().join(name), text)?)
    }

    /// The state directory of a side.
    pub fn state(&self, side: &str) -> PathBuf {
        self.dir.path().join("state").join(side)
    }

    /// Starts the real binary.
    ///
    /// # Errors
    /// When it is not built or cannot be started.
    pub fn start(&self, side: &str) -> Result<Process> {
        let dir: &Path = self.dir.path();
        let mut command = Command::new(beside("r58")?);
        command
            .arg(side)
            .arg("--config")
            .arg(dir.join("r58.toml"))
            .env("R58_STATE_DIR", dir.join("state"))
            .current_dir(dir);
        command.env_remove("RUST_LOG");
        Process::start(&format!("r58 {side}"), &mut command)
    }
}

/// A running box.
pub struct RunningBox {
    /// The process.
    pub process: Process,
    /// Base address of its pages, without a slash at the end.
    pub url: String,
    /// For its API.
    pub http: Client,
}

impl RunningBox {
    /// Starts it and waits for its address.
    ///
    /// # Errors
    /// What it said instead.
    pub async fn start(home: &Home) -> Result<Self> {
        let mut process = home.start("device")?;
        let address = |line: &str| {
            let address = line.contains(" on http://").then(|| line.split_whitespace().last())??;
            Some(address.trim_end_matches('/').to_owned())
        };
        let since = process.started();
        let (_, url) = process.line(since, PATIENCE, "address", address).await?;
        Ok(Self { process, url, http: Client::new() })
    }

    /// GETs JSON.
    ///
    /// # Errors
    /// What HTTP says.
    pub async fn get(&self, path: &str) -> Result<Value> {
        let answer = self.http.get(format!("{}{path}", self.url)).send().await?;
        Ok(answer.error_for_status()?.json().await?)
    }

    /// POSTs JSON.
    ///
    /// # Errors
    /// What HTTP says.
    pub async fn post(&self, path: &str, body: Value) -> Result<()> {
        self.http.post(format!("{}{path}", self.url)).json(&body).send().await?.error_for_status()?;
        Ok(())
    }

    /// Cores that the box uses, over so long.
    ///
    /// # Errors
    /// When the process is gone.
    pub async fn cores(&self, window: Duration) -> Result<f64> {
        let (begin, used) = (Instant::now(), self.process.cpu_seconds()?);
        tokio::time::sleep(window).await;
        Ok((self.process.cpu_seconds()? - used) / begin.elapsed().as_secs_f64())
    }

    /// Waits until the figures of the mixer are as wanted.
    ///
    /// # Errors
    /// When the time is over.
    pub async fn mixer(&self, what: &str, right: impl Fn(&Value) -> bool) -> Result<Value> {
        let begin = Instant::now();
        loop {
            if let Ok(status) = self.get("/api/mixer/status").await
                && right(&status["stats"])
            {
                return Ok(status["stats"].clone());
            }
            ensure!(begin.elapsed() < PATIENCE, "the mixer: no {what} within {PATIENCE:?}");
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }
}

/// Four test cameras, a programme with an encoder, two seats: the box of the demo.
pub fn cameras() -> String {
    let patterns = ["ball", "smpte", "pinwheel", "circular"];
    let one = |(n, pattern): (usize, &str)| {
        format!(
            "[[device.inputs]]\nid = \"cam{n}\"\nsource = {{ kind = \"test\", pattern = \"{pattern}\", tone_hz = {}.0 }}\n",
            220 + n * 110
        )
    };
    (1..).zip(patterns).map(one).collect()
}
