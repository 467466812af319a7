//! A headless Chromium behind its driver: opens pages, runs scripts in them, plays a guest with a picture and a tone of its own.
//!
//! For a browser in a namespace, start it and talk to it inside `Namespace::run`.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use fantoccini::{Client, ClientBuilder};
use hyper_util::client::legacy::connect::HttpConnector;
use serde_json::{Map, Value, json};
use tempfile::TempDir;

use super::process::Process;
use super::until;

/// A running browser; dropped, its driver ends and takes the browser with it.
pub struct Browser {
    /// The session, for whatever the harness has no word for.
    pub page: Client,
    driver: Process,
    _profile: TempDir,
}

/// What the browser's camera and microphone give.
pub enum Capture {
    /// Chromium's own moving pattern and beep.
    Pattern,
    /// A file of pictures (.y4m) and a file of sound (.wav), both looped.
    Files(PathBuf, PathBuf),
    /// The user refuses.
    Refused,
}

impl Browser {
    /// Starts a browser; `trusted` is a plain-HTTP origin off loopback that it shall treat as secure.
    pub async fn start(capture: &Capture, trusted: Option<&str>) -> Self {
        Self::start_trusting(capture, trusted, None).await
    }

    /// The same; a server whose key has this pin is believed, whoever signed its certificate.
    pub async fn start_trusting(capture: &Capture, trusted: Option<&str>, pin: Option<&str>) -> Self {
        let profile = tempfile::tempdir().expect("a directory");
        let mut driver = Process::start("chromedriver", Command::new("chromedriver").arg("--port=0"));
        let port: u16 = driver
            .line(Duration::from_secs(30), "the driver's port", |line| {
                line.split("started successfully on port ").nth(1)?.trim_end_matches('.').parse().ok()
            })
            .await;
        let page = ClientBuilder::new(HttpConnector::new())
            .capabilities(capabilities(capture, profile.path(), trusted, pin))
            .connect(&format!("http://127.0.0.1:{port}"))
            .await
            .expect("a browser session");
        Self { page, driver, _profile: profile }
    }

    /// Opens an address.
    pub async fn open(&self, url: &str) {
        self.page.goto(url).await.expect("the page opens");
    }

    /// Runs a script (the body of a function) and answers what it returns.
    pub async fn script(&self, body: &str) -> Value {
        self.page.execute(body, vec![]).await.unwrap_or_else(|error| panic!("script {body}: {error}"))
    }

    /// Runs a script whose last argument is the callback that ends it.
    pub async fn script_async(&self, body: &str) -> Value {
        self.page.execute_async(body, vec![]).await.unwrap_or_else(|error| panic!("script {body}: {error}"))
    }

    /// Waits until an expression is true; fails with the value of `excuse`.
    pub async fn until(&self, within: Duration, what: &str, expression: &str, excuse: &str) {
        until(within, what, || async {
            let answer = self.script(&format!("return [Boolean({expression}), {excuse}]")).await;
            if answer[0] == Value::Bool(true) { Ok(()) } else { Err(answer[1].clone()) }
        })
        .await;
    }

    /// Clicks the element with a `data-testid`.
    pub async fn click(&self, testid: &str) {
        let script =
            format!("const e = document.querySelector('[data-testid=\"{testid}\"]'); e?.click(); return Boolean(e)");
        assert_eq!(self.script(&script).await, Value::Bool(true), "no element {testid}");
    }

    /// A picture of the window, for the eyes of whoever runs the test with `R58_SCREENSHOTS` set to a directory.
    pub async fn screenshot(&self, name: &str) {
        let Some(dir) = std::env::var_os("R58_SCREENSHOTS") else { return };
        let png = self.page.screenshot().await.expect("a screenshot");
        std::fs::write(Path::new(&dir).join(format!("{name}.png")), png).expect("write the screenshot");
    }

    /// Kills browser and driver at once, as a crash would: no page gets to say goodbye.
    pub fn kill(self) {
        drop(self);
    }

    /// Closes the tab, as a user would who has another one open.
    pub async fn close_tab(&self) {
        let tab = self.page.window().await.expect("the tab");
        let other = self.page.new_window(true).await.expect("another tab");
        self.page.switch_to_window(tab).await.expect("back to the first");
        self.page.close_window().await.expect("the tab closes");
        self.page.switch_to_window(other.handle).await.expect("the other tab");
    }

    /// Closes the window, as a user would, and ends the browser.
    pub async fn close(self) {
        self.page.clone().close().await.expect("the browser closes");
    }
}

impl Drop for Browser {
    /// The browser first: a driver that is killed leaves it running.
    fn drop(&mut self) {
        for id in self.driver.children() {
            let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(id), nix::sys::signal::Signal::SIGKILL);
        }
        self.driver.kill();
    }
}

fn capabilities(capture: &Capture, profile: &Path, trusted: Option<&str>, pin: Option<&str>) -> Map<String, Value> {
    let mut args: Vec<String> = [
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-quic",
        "--no-first-run",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        "--disable-dev-shm-usage",
        "--autoplay-policy=no-user-gesture-required",
        "--window-size=1280,900",
    ]
    .map(str::to_owned)
    .to_vec();
    args.push(format!("--user-data-dir={}", profile.display()));
    if let Some(origin) = trusted {
        args.push(format!("--unsafely-treat-insecure-origin-as-secure={origin}"));
    }
    if let Some(pin) = pin {
        args.push(format!("--ignore-certificate-errors-spki-list={pin}"));
    }
    match capture {
        Capture::Pattern => args.push("--use-fake-device-for-media-stream".into()),
        Capture::Files(pictures, sound) => args.extend([
            "--use-fake-device-for-media-stream".into(),
            format!("--use-file-for-fake-video-capture={}", pictures.display()),
            format!("--use-file-for-fake-audio-capture={}", sound.display()),
        ]),
        // There is a camera: without one the page would have nothing to ask for.
        Capture::Refused => {
            args.extend(["--use-fake-device-for-media-stream".into(), "--deny-permission-prompts".into()])
        }
    }
    if !matches!(capture, Capture::Refused) {
        args.push("--use-fake-ui-for-media-stream".into());
    }
    let mut capabilities = Map::new();
    capabilities.insert("browserName".into(), json!("chrome"));
    capabilities.insert("goog:chromeOptions".into(), json!({ "args": args, "binary": "/usr/bin/chromium" }));
    capabilities
}
