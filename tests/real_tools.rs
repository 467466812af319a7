//! Tools that publish by WHIP, as people run them: each gets in, is seen, and gives the seat back.

use std::path::Path;
use std::process::Command;
use std::time::Instant;

use nix::sys::signal::Signal;
use serde_json::Value;
use tempfile::TempDir;

use super::real_clients::{TOKEN, device, seat, stays_live, until_seat_is};
use super::support::process::Process;
use super::support::r58::PATIENCE;
use super::support::{python, stage, until};

/// Debian's package cannot run as it is installed: the tool is linked with libsoup 2, what its GStreamer loads for UPnP with
/// libsoup 3, and the two refuse to be in one process. Nobody needs UPnP here.
const NO_UPNP: &str = "void *gupnp_simple_igd_thread_new(void) { return 0; }\n\
    unsigned long gupnp_simple_igd_get_type(void) { return 0; }\n\
    void gupnp_simple_igd_add_port(void) {}\nvoid gupnp_simple_igd_remove_port_local(void) {}\n";

fn run(command: &mut Command) {
    let status = command.status().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(status.success(), "{command:?}: {status}");
}

/// A library of this name that does nothing, for the tool to find first.
fn without_upnp(dir: &Path) {
    let (source, library) = (dir.join("no-upnp.c"), dir.join("libgupnp-igd-1.0.so.4"));
    std::fs::write(&source, NO_UPNP).expect("write");
    run(Command::new("cc")
        .args(["-shared", "-fPIC", "-Wl,-soname,libgupnp-igd-1.0.so.4", "-o"])
        .arg(library)
        .arg(source));
}

#[tokio::test]
async fn simple_whip_client_trickles_and_leaves() {
    let _stage = stage().await;
    let (r58, _home) = device().await;
    let dir = TempDir::new().expect("a directory");
    without_upnp(dir.path());
    let endpoint = format!("{}/whip/guest1", r58.device);
    let sound = "audiotestsrc is-live=true ! audioconvert ! audioresample ! queue ! opusenc ! rtpopuspay pt=100 ssrc=1 ! queue ! \
        application/x-rtp,media=audio,encoding-name=OPUS,payload=100";
    let picture = "videotestsrc is-live=true pattern=ball ! videoconvert ! queue ! vp8enc deadline=1 ! rtpvp8pay pt=96 ssrc=2 ! \
        queue ! application/x-rtp,media=video,encoding-name=VP8,payload=96";
    let asked = Instant::now();
    let mut client = Process::start(
        "whip-client",
        Command::new("whip-client")
            .env("LD_LIBRARY_PATH", dir.path())
            .env("G_DEBUG", "fatal-criticals")
            .args(["-o", "-l", "7", "-u", &endpoint, "-t", TOKEN, "-A", sound, "-V", picture]),
    );
    let seat = until_seat_is(&r58, "live").await;
    println!("simple-whip-client: live by {} after {:?}, its own start included", seat["path"], asked.elapsed());
    client
        .line(PATIENCE, "the end of its trickling", |line| line.contains("Sending candidates: end-of").then_some(()))
        .await;
    stays_live(&r58).await;
    client.signal(Signal::SIGINT);
    client.ended(PATIENCE).await;
    until_seat_is(&r58, "free").await;
    let said = client.output();
    assert!(!said.contains("[ERR]") && !said.contains("[WARN]"), "{said}");
    assert!(r58.stop().await.success());
}

/// Its own key is a P-224 one where it is built with GnuTLS; the DTLS stack here, as RFC 8827 asks, speaks P-256.
#[tokio::test]
async fn ffmpegs_muxer_gets_in_as_dtls_client_with_a_key_that_others_know() {
    let _stage = stage().await;
    let (r58, _home) = device().await;
    let dir = TempDir::new().expect("a directory");
    let (cert, key) = (dir.path().join("cert.pem"), dir.path().join("key.pem"));
    let request = ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"];
    run(Command::new("openssl").args(request).args(["-subj", "/CN=guest", "-out"]).arg(&cert).arg("-keyout").arg(&key));
    let endpoint = format!("{}/whip/guest1", r58.device);
    let files = [format!("cert_file={}", cert.display()), format!("key_file={}", key.display())];
    let asked = Instant::now();
    let mut client =
        python::client("pyav_whip.py", &[&endpoint, TOKEN, "8", "whip_flags=dtls_active", &files[0], &files[1]]);
    client.line(PATIENCE, "its connection", |line| (line == "connected").then_some(())).await;
    until_seat_is(&r58, "live").await;
    println!("FFmpeg's muxer: live after {:?}, its own start included", asked.elapsed());
    stays_live(&r58).await;
    assert!(client.ended(PATIENCE).await.success(), "{}", client.output());
    until_seat_is(&r58, "free").await;

    // With its defaults it is told why at once, and holds no seat.
    let mut client = python::client("pyav_whip.py", &[&endpoint, TOKEN, "5"]);
    assert!(!client.ended(PATIENCE).await.success());
    until(PATIENCE, "the refusal in its log", || async {
        let said = client.output();
        if said.contains("422") { Ok(()) } else { Err(said) }
    })
    .await;
    until_seat_is(&r58, "free").await;
    assert!(r58.stop().await.success());
}

/// It offers every codec of its encoders with all candidates in the offer, sends no PATCH and asks for no entity tag.
#[tokio::test]
#[ignore = "building GStreamer's client takes minutes: make test-whipclientsink"]
async fn whipclientsink_of_gstreamer_is_seen_and_leaves() {
    let _stage = stage().await;
    let program = std::env::var_os("R58_WHIPCLIENTSINK").expect("R58_WHIPCLIENTSINK, as make sets it");
    let (r58, _home) = device().await;
    let endpoint = format!("{}/whip/guest1", r58.device);
    let asked = Instant::now();
    let mut client = Process::start("whipclientsink", Command::new(program).args([&endpoint, TOKEN]));
    let live = until_seat_is(&r58, "live").await;
    println!("whipclientsink: live by {} after {:?}, its own start included", live["path"], asked.elapsed());
    let decoded = |state: &Value| state["inputs"].as_array().into_iter().flatten().any(is_seen);
    r58.state_until("pictures of the guest", decoded).await;
    stays_live(&r58).await;
    client.signal(Signal::SIGINT);
    assert!(client.ended(PATIENCE).await.success(), "{}", client.output());
    // Whoever only vanished would keep it for half a minute.
    assert_eq!(seat(&r58).await["state"], "free", "{}", client.output());
    assert!(r58.stop().await.success());
}

fn is_seen(input: &Value) -> bool {
    input["id"] == "guest1" && input["signal"] == "live" && input["frames"].as_u64().is_some_and(|frames| frames > 30)
}
