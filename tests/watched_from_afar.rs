//! A box that can only connect outwards is watched through the fleet server within seconds: signalling goes by the broker, the
//! media find a way of their own through two translating routers, and never only one of the two. A guest gets in likewise.

use std::time::{Duration, Instant};

use r58_actors::fleet_link::identity::{self, Registration, Secret};
use reqwest::StatusCode;
use serde_json::{Value, json};

use super::guest_gets_in::{COLOUR, PITCH};
use super::support::browser::{Browser, Capture};
use super::support::footage::Footage;
use super::support::namespace::is_root_or_ran_as_root;
use super::support::nat::{BROKER_URL, FLEET_URL, Internet, STUN_URL, TURN_URL};
use super::support::r58::{Home, PATIENCE, R58, binary};
use super::support::site::Api;
use super::support::{stage_alone, until};

pub(super) const TURN_SECRET: &str = "north-sea-herring";
/// From the click to the first frame of the programme.
const PROMISED: Duration = Duration::from_secs(3);

/// Watches by WHEP as a page would, from the click on. Arguments: token, path of the stream, ICE servers (asked for when
/// null), the policy of candidates.
const WATCH: &str = r#"
    const done = arguments[arguments.length - 1];
    const [token, stream, servers, policy] = arguments;
    const clicked = performance.now();
    const after = () => performance.now() - clicked;
    const told = {};
    const bearer = { authorization: `Bearer ${token}` };
    const call = (method, path, more) => fetch(path, { method, ...more, headers: { ...bearer, ...more?.headers } });
    (async () => {
        const iceServers = servers ?? (await (await call("GET", "/turn-credentials")).json()).iceServers;
        const peer = new RTCPeerConnection({ iceServers: [iceServers].flat(), iceTransportPolicy: policy, bundlePolicy: "max-bundle" });
        const video = document.body.appendChild(document.createElement("video"));
        video.muted = video.autoplay = true;
        video.srcObject = new MediaStream();
        const frame = new Promise((seen) => video.requestVideoFrameCallback(seen));
        peer.ontrack = ({ track }) => video.srcObject.addTrack(track);
        const up = new Promise((done) => (peer.onconnectionstatechange = () => peer.connectionState === "connected" && done()));
        for (const kind of ["video", "audio"]) peer.addTransceiver(kind, { direction: "recvonly" });
        const offer = await peer.createOffer();
        const waiting = [];
        let send = (line) => waiting.push(line);
        peer.onicecandidate = ({ candidate }) => candidate?.candidate && send(`a=${candidate.candidate}`);
        await peer.setLocalDescription(offer);
        const answer = await call("POST", stream, { body: offer.sdp, headers: { "content-type": "application/sdp" } });
        told.status = answer.status;
        if (answer.status !== 201) throw new Error(await answer.text());
        const location = answer.headers.get("location"), tag = answer.headers.get("etag");
        told.answered = after();
        await peer.setRemoteDescription({ type: "answer", sdp: await answer.text() });
        const of = (name) => offer.sdp.match(new RegExp(`a=${name}:.*`))[0];
        const head = [of("ice-ufrag"), of("ice-pwd"), offer.sdp.match(/m=.*/)[0], of("mid")];
        told.patches = [];
        send = async (...lines) => {
            const body = [...head, ...lines].join("\r\n") + "\r\n";
            const headers = { "content-type": "application/trickle-ice-sdpfrag", "if-match": tag };
            told.patches.push((await call("PATCH", location, { body, headers })).status);
        };
        if (waiting.length) send(...waiting);
        await Promise.race([up, new Promise((_, no) => setTimeout(() => no(new Error(`ice ${peer.iceConnectionState}`)), 20000))]);
        told.connected = after();
        await Promise.race([frame, new Promise((_, no) => setTimeout(() => no(new Error("no frame")), 10000))]);
        told.frame = after();
        const stats = [...(await peer.getStats()).values()];
        const pair = stats.find((one) => one.type === "candidate-pair" && one.nominated && one.state === "succeeded");
        const type = (id) => stats.find((one) => one.id === id)?.candidateType;
        told.pair = `${type(pair.localCandidateId)} to ${type(pair.remoteCandidateId)}`;
        told.rtt = pair.currentRoundTripTime;
        told.ended = (await call("DELETE", location)).status;
        peer.close();
        video.remove();
        done(told);
    })().catch((error) => done({ ...told, error: String(error) }));
"#;

#[test]
fn a_box_behind_a_router_that_lets_nothing_in_is_watched_through_the_fleet_server_within_three_seconds() {
    let here = concat!(
        module_path!(),
        "::a_box_behind_a_router_that_lets_nothing_in_is_watched_through_the_fleet_server_within_three_seconds"
    );
    if is_root_or_ran_as_root(here.split_once("::").expect("a module").1) {
        let internet = Internet::outward_only();
        internet.guest.run(watched(&internet));
    }
}

#[test]
fn a_guest_behind_one_router_is_in_the_programme_of_a_box_behind_another_within_three_seconds() {
    let here = concat!(
        module_path!(),
        "::a_guest_behind_one_router_is_in_the_programme_of_a_box_behind_another_within_three_seconds"
    );
    if is_root_or_ran_as_root(here.split_once("::").expect("a module").1) {
        let internet = Internet::outward_only();
        internet.guest.run(joined(&internet));
    }
}

async fn joined(internet: &Internet) {
    // Seconds are measured.
    let _stage = stage_alone().await;
    let files = tempfile::tempdir().expect("a directory");
    let _turn = internet.turn_server(TURN_SECRET, files.path()).await;
    let afar = Afar::start(internet, "").await;
    let order = json!({ "seat": "guest1", "name": "Ada Lovelace", "uses": "repeated", "admit": false });
    let made = afar.api.post("/api/v1/devices/box1/invitations", &order).await;
    let footage = Footage::new(COLOUR, PITCH);
    let guest = Browser::start(&footage.capture(), Some(FLEET_URL)).await;
    let id = afar.api.command("box1", "take", json!({ "scene": "full-guest1", "kind": "cut" })).await;
    assert_eq!(afar.api.ended(&id).await["state"], "succeeded");
    guest.open(made["join_url"].as_str().expect("a link")).await;
    for round in 1..=3 {
        let ready = "document.querySelector('[data-testid=join]')?.disabled === false";
        guest.until(PATIENCE, "a page that lets one join", ready, "document.body.innerText").await;
        guest.click("join").await;
        let clicked = Instant::now();
        // What the box says of the seat, by its own log: it is live when a picture was decoded.
        let live = "seat=\"guest1\" state=\"live\"";
        until(PATIENCE, "a live seat", || async {
            if afar.device.process.output().matches(live).count() >= round { Ok(()) } else { Err("not yet") }
        })
        .await;
        let decoded = clicked.elapsed();
        guest.until(PATIENCE, "a live page", "document.body.dataset.state === 'live'", "document.body.innerText").await;
        println!("join {round}: first picture decoded {decoded:?} after the click");
        assert!(decoded < PROMISED, "{decoded:?}");
        // And it is on air, as the box says to whoever asks it from within its own network.
        let state = format!("{}/api/state", afar.device.device);
        until(PATIENCE, "the guest in the programme", || async {
            let state: Value = internet
                .device
                .run(async { reqwest::get(&state).await.expect("an answer").json().await.expect("JSON") });
            let on_air =
                |input: &Value| input["id"] == "guest1" && input["signal"] == "live" && input["tally"] == "programme";
            if state["inputs"].as_array().into_iter().flatten().any(on_air) { Ok(()) } else { Err(state) }
        })
        .await;
        guest.click("leave").await;
    }
    afar.stop().await;
}

/// Fleet server, broker and TURN server on the public network, and a box that was enrolled there.
pub(super) struct Afar {
    fleet: R58,
    /// The box.
    pub(super) device: R58,
    /// The server's API, as the administrator.
    pub(super) api: Api,
    _homes: (Home, Home),
}

impl Afar {
    /// `tables` are further ones of the box.
    pub(super) async fn start(internet: &Internet, tables: &str) -> Self {
        let turn = |urls: &str| format!("shared_secret_file = \"turn-secret\"\n{urls} = [\"{TURN_URL}\"]");
        let listen = |url: &str| url.split_once("://").expect("a URL").1.to_owned();
        let home = Home::new(&format!(
            "[fleet]\nlisten = \"{}\"\n[fleet.broker]\nlisten = \"{}\"\n[fleet.turn]\n{}\n",
            listen(FLEET_URL),
            listen(BROKER_URL),
            turn("urls")
        ));
        write_secret(&home);
        let fleet = R58::spawn("fleet", &mut in_namespace(&internet.public, &home, "fleet")).await;
        let password = fleet.password.clone().expect("the first start shows a password");
        let api = Api::sign_in(FLEET_URL, &password).await;

        let code = api.post("/api/v1/enrolment-codes", &json!({})).await;
        let code = Secret::new(code["code"].as_str().expect("a code"));
        let registration = Registration::of_this_machine(code, "box1", "box1", "0");
        let identity = identity::register(&api.http, FLEET_URL, &registration).await.expect("an identity");
        let link = format!(
            "[device.link]\nfleet_url = \"{FLEET_URL}\"\nmqtt_url = \"{BROKER_URL}\"\n[device.turn]\n{}\n{tables}",
            turn("shared_urls")
        );
        let boxed = Home::small("id = \"box1\"\nlisten = \"127.0.0.1:0\"", &link);
        write_secret(&boxed);
        let dir = boxed.state().join("device");
        std::fs::create_dir_all(&dir).expect("a directory");
        identity::save(&dir, &identity).expect("save the identity");
        let device = R58::spawn("device", &mut in_namespace(&internet.device, &boxed, "device")).await;
        until(PATIENCE, "the box online with a programme", || async {
            let card = api.get("/api/v1/devices/box1").await;
            if card["online"] == true && card["heartbeat"].is_object() { Ok(()) } else { Err(card) }
        })
        .await;
        Self { fleet, device, api, _homes: (home, boxed) }
    }

    pub(super) async fn stop(self) {
        assert!(self.device.stop().await.success());
        assert!(self.fleet.stop().await.success());
    }
}

fn write_secret(home: &Home) {
    std::fs::write(home.path().join("turn-secret"), TURN_SECRET).expect("write the secret");
}

fn in_namespace(host: &super::support::namespace::Namespace, home: &Home, side: &str) -> std::process::Command {
    let mut command = host.command(&binary().display().to_string());
    command.arg(side).arg("--config").arg(home.config()).env("R58_STATE_DIR", home.state()).current_dir(home.path());
    command
}

async fn watched(internet: &Internet) {
    // Seconds are measured.
    let _stage = stage_alone().await;
    let files = tempfile::tempdir().expect("a directory");
    let _turn = internet.turn_server(TURN_SECRET, files.path()).await;
    let afar = Afar::start(internet, "").await;
    let viewer = Browser::start(&Capture::Pattern, Some(FLEET_URL)).await;
    viewer.open(FLEET_URL).await;

    // The box answers at once; its first frames come by what is left of the way. A first watcher pays for what starts once.
    let mut times = Vec::new();
    for (who, servers, policy) in [
        ("a viewer with the fleet's ICE servers", Value::Null, "all"),
        ("a viewer without a relay of its own", json!([{ "urls": STUN_URL }]), "all"),
        ("a viewer by relay alone", Value::Null, "relay"),
    ] {
        let told = watch(&viewer, &afar, servers, policy).await;
        println!("{who}: {told}");
        assert!(told["error"].is_null(), "{who}: {told}");
        assert!(told["pair"].as_str().is_some_and(|pair| pair.contains("relay")), "no direct way exists: {told}");
        assert_eq!(told["ended"], 200, "{told}");
        times.push(Duration::from_secs_f64(told["frame"].as_f64().expect("a time") / 1000.0));
    }
    println!("from the click to the first frame: {times:?}");
    assert!(times.iter().all(|time| *time < PROMISED), "{times:?}");

    // A tunnel alone once made a viewer whose signalling worked and who saw nothing. Now one of two relays is enough, and
    // with none the session ends on both sides by itself.
    internet.cut_box_from_turn();
    let told = watch(&viewer, &afar, Value::Null, "all").await;
    assert_eq!(told["status"], StatusCode::CREATED.as_u16(), "{told}");
    println!("without a way for media: {told}");
    afar.stop().await;
}

async fn watch(viewer: &Browser, afar: &Afar, servers: Value, policy: &str) -> Value {
    let arguments = vec![afar.api.token().into(), "/whep/box1/programme".into(), servers, policy.into()];
    viewer.page.execute_async(WATCH, arguments).await.expect("the script runs")
}
