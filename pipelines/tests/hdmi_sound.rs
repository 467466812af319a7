//! The sound of a capture device, by a real ALSA device: ALSA's own plugin in front of a PulseAudio server of the test's, which
//! hears a tone. ALSA's `null` device, also under a `file`, delivers without any pace, and a machine for tests has no sound card.
//!
//! Alone in its process: ALSA finds its configuration by the environment.

#![allow(clippy::unwrap_used, reason = "a test fails where it unwraps")]

mod support;

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Instant;

use r58_pipelines::input::v4l2::scripted::{Scene, Script};
use r58_pipelines::signal::Driver;
use r58_pipelines::{InputEvent, InputPipeline, Signal};
use support::{Cell, Ear, LIMIT, MODE, wait_frames, wait_signal};

/// A sound server whose sink `hdmi` plays a tone, and can be listened to. Dropping it kills it.
struct Server(Child);

const TONE: f64 = 1000.0;

impl Server {
    fn start(folder: &Path) -> Self {
        let script = folder.join("pulse.pa");
        let socket = folder.join("native");
        let modules = format!(
            "load-module module-native-protocol-unix auth-anonymous=1 socket={}\n\
             load-module module-null-sink sink_name=hdmi rate=48000\n\
             load-module module-sine sink=hdmi frequency={TONE}\n",
            socket.display()
        );
        std::fs::write(&script, modules).unwrap();
        let child = Command::new("pulseaudio")
            .args(["-n", "--daemonize=no", "--exit-idle-time=-1", "--use-pid-file=no", "--disable-shm=yes"])
            .args(["--realtime=no", "--high-priority=no", "-F"])
            .arg(&script)
            .env("HOME", folder)
            .env("PULSE_RUNTIME_PATH", folder.join("runtime"))
            .env("PULSE_STATE_PATH", folder.join("state"))
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        Self(child)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// ALSA with one device, `hdmi`, that listens to the server's sink.
fn configure_alsa(folder: &Path) -> PathBuf {
    let file = folder.join("asound.conf");
    let device = format!(
        "pcm.hdmi {{ type pulse server \"unix:{}\" device \"hdmi.monitor\" }}\n",
        folder.join("native").display()
    );
    std::fs::write(&file, device).unwrap();
    file
}

fn wait_sound(input: &InputPipeline, what: &str, wanted: impl Fn(&str) -> bool) -> String {
    let begun = Instant::now();
    loop {
        let sound = input.signal().sound;
        if wanted(&sound) {
            return sound;
        }
        assert!(begun.elapsed() < LIMIT * 2, "never {what}: {sound:?}");
        wait_frames(&input.feed(), 1);
    }
}

#[test]
fn hdmi_sound_is_heard_and_its_device_may_be_missing_or_die_without_costing_a_picture() {
    let folder = tempfile::tempdir().unwrap();
    let config = configure_alsa(folder.path());
    // SAFETY: nothing else runs in this process yet that could read the environment.
    unsafe { std::env::set_var("ALSA_CONFIG_PATH", &config) };
    r58_pipelines::init().unwrap();

    let script = Script::new(Scene::healthy());
    let events = Cell::new(Vec::new());
    let sink = events.clone();
    let report = Arc::new(move |event| sink.update(|events: &mut Vec<InputEvent>| events.push(event)));
    let input =
        InputPipeline::start_capture("cam1", script.device(Driver::Rkcif), Some("hdmi"), &MODE, report).unwrap();
    wait_signal(&events, Signal::Live);
    let missing = wait_sound(&input, "missing", |sound| !sound.is_empty());
    assert_eq!(missing, "hdmi: Recording open error on device 'hdmi': Connection refused");

    let ear = Ear::on(&input.feed());
    let server = Server::start(folder.path());
    ear.wait_tone(TONE);
    ear.wait_whole();
    wait_sound(&input, "heard", str::is_empty);

    drop(server);
    let died = wait_sound(&input, "dead", |sound| !sound.is_empty());
    assert!(died.starts_with("hdmi: "), "{died}");
    let _back = Server::start(folder.path());
    wait_sound(&input, "heard again", str::is_empty);
    ear.wait_tone(TONE);

    // A cable that is pulled takes the sound with it, and gives it back.
    script.change(|scene| {
        *scene = Scene::no_cable();
        scene.changes = 1;
    });
    wait_signal(&events, Signal::NoCable);
    script.change(|scene| *scene = Scene::healthy());
    wait_signal(&events, Signal::Live);
    ear.wait_whole();
    ear.wait_tone(TONE);

    let changes =
        events.peek(|events| events.iter().filter(|event| matches!(event, InputEvent::SignalChanged { .. })).count());
    assert_eq!(changes, 4, "the picture was live, without a cable, starting and live, and never anything else");
    assert_eq!(script.violations(), 0);
    assert!(input.stop());
}
