//! TurnCache against a real HTTP server on loopback, in all of its shapes and failures.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use actix_web::http::StatusCode;
use actix_web::{App, HttpRequest, HttpResponse, HttpServer, web};

use r58_mqtt::durable::Memory;

use super::providers::{Cloudflare, FleetApi, SharedSecret, http_client};
use super::*;
use crate::fleet_link::identity::Secret;
use crate::supervision::{Duty, House, HouseSettings, Slot};

/// What the stand-in answers to the next requests, and what it was asked.
#[derive(Default)]
struct Script {
    answer: Mutex<(u16, String)>,
    asked: Mutex<Vec<String>>,
    hits: AtomicUsize,
}

impl Script {
    fn say(&self, status: u16, body: impl Into<String>) {
        *self.answer.lock().unwrap() = (status, body.into());
    }
}

struct Provider {
    script: Arc<Script>,
    base: String,
    handle: actix_web::dev::ServerHandle,
}

async fn answer(script: web::Data<Script>, request: HttpRequest, body: String) -> HttpResponse {
    script.hits.fetch_add(1, Ordering::SeqCst);
    let header = |name: &str| request.headers().get(name).map_or("", |value| value.to_str().unwrap()).to_owned();
    script.asked.lock().unwrap().push(format!(
        "{} {} auth={} id={} token={} agent={} type={} body={}",
        request.method(),
        request.path(),
        header("Authorization"),
        header("X-Device-Id"),
        header("X-Device-Token"),
        header("User-Agent").split('/').next().unwrap(),
        header("Content-Type"),
        body
    ));
    let (status, body) = script.answer.lock().unwrap().clone();
    let mut response = HttpResponse::build(StatusCode::from_u16(status).unwrap());
    if status == 302 {
        response.insert_header(("Location", "/elsewhere"));
    }
    response.body(body)
}

fn provider() -> Provider {
    let script = Arc::new(Script::default());
    let data = web::Data::from(script.clone());
    let server = HttpServer::new(move || App::new().app_data(data.clone()).default_service(web::to(answer)))
        .workers(1)
        .disable_signals()
        .bind(("127.0.0.1", 0))
        .unwrap();
    let base = format!("http://{}", server.addrs()[0]);
    let server = server.run();
    let handle = server.handle();
    actix_rt::spawn(server);
    Provider { script, base, handle }
}

fn identity(base: &str) -> Identity {
    Identity {
        device_id: "box-1".to_owned(),
        token: Secret::new("ab".repeat(32)),
        fleet_url: base.to_owned(),
        org: "default".to_owned(),
        mqtt_url: String::new(),
        command_keys: Vec::new(),
    }
}

fn cloudflare(provider: &Provider, dir: &std::path::Path, ttl: u64) -> Cloudflare {
    let file = dir.join("token");
    std::fs::write(&file, "key-token\n").unwrap();
    Cloudflare::new(http_client().unwrap(), &provider.base, "key1", file, Duration::from_secs(ttl))
}

const ARRAY: &str = r#"{"iceServers":[{"urls":["stun:t.example:3478","stun:t.example:53"]},
    {"urls":["turn:t.example:3478?transport=udp","turn:t.example:53?transport=udp"],"username":"u","credential":"c"}]}"#;

#[actix_rt::test]
async fn cloudflare_is_asked_as_documented_and_its_array_loses_port_53() {
    let stand_in = provider();
    let dir = tempfile::tempdir().unwrap();
    stand_in.script.say(201, ARRAY);
    let wall = Utc::now();
    let grant = cloudflare(&stand_in, dir.path(), 999_999).fetch(wall).await.unwrap();
    assert_eq!(grant.expires_at - wall, chrono::TimeDelta::hours(48));
    let urls: Vec<&String> = grant.servers.iter().flat_map(|server| &server.urls).collect();
    assert_eq!(urls, ["stun:t.example:3478", "turn:t.example:3478?transport=udp"]);
    assert_eq!(
        *stand_in.script.asked.lock().unwrap(),
        ["POST /v1/turn/keys/key1/credentials/generate-ice-servers auth=Bearer key-token id= token= agent=r58 \
         type=application/json body={\"ttl\":172800}"]
    );
    stand_in.handle.stop(false).await;
}

#[actix_rt::test]
async fn cloudflares_older_object_form_is_read_too() {
    let stand_in = provider();
    let dir = tempfile::tempdir().unwrap();
    stand_in.script.say(200, r#"{"iceServers":{"urls":"turn:t.example:3478","username":"u","credential":"c"}}"#);
    let grant = cloudflare(&stand_in, dir.path(), 600).fetch(Utc::now()).await.unwrap();
    assert_eq!(grant.servers[0].username.as_deref(), Some("u"));
    stand_in.handle.stop(false).await;
}

#[actix_rt::test]
async fn whatever_else_a_provider_says_is_an_opaque_failure_without_its_words() {
    let stand_in = provider();
    let dir = tempfile::tempdir().unwrap();
    let cloudflare = cloudflare(&stand_in, dir.path(), 600);
    for (status, body) in [
        (401, r#"{"error":"s3cret"}"#.to_owned()),
        (302, String::new()),
        (500, "<html>s3cret".to_owned()),
        (200, "s3cret, not JSON".to_owned()),
        (200, r#"{"iceServers":[]}"#.to_owned()),
        (200, format!(r#"{{"iceServers":[],"padding":"{}"}}"#, "s3cret".repeat(20_000))),
    ] {
        stand_in.script.say(status, body);
        let error = cloudflare.fetch(Utc::now()).await.unwrap_err().to_string();
        assert!(!error.contains("s3cret") && !error.contains("key-token"), "{error}");
    }
    stand_in.handle.stop(false).await;
    // A worker of the stand-in may answer once more.
    let begun = std::time::Instant::now();
    while !matches!(cloudflare.fetch(Utc::now()).await, Err(ProviderError::Unreachable(_))) {
        assert!(begun.elapsed() < Duration::from_secs(20), "nobody is there any more");
    }
}

#[actix_rt::test]
async fn the_fleets_expiry_is_counted_by_the_fleets_clock() {
    let stand_in = provider();
    let (_sender, identity) = watch::channel(Some(identity(&stand_in.base)));
    let fleet = FleetApi::new(http_client().unwrap(), identity);
    let at = (Utc::now() + chrono::TimeDelta::hours(2)).to_rfc3339();
    stand_in.script.say(
        200,
        format!(
            r#"{{"iceServers":{{"urls":["turn:t.example:3478"],"username":"u","credential":"c"}},"expiresAt":"{at}"}}"#
        ),
    );
    // A box whose clock stands at 1970.
    let unset = chrono::DateTime::from_timestamp(100, 0).unwrap();
    let grant = fleet.fetch(unset).await.unwrap();
    let life = (grant.expires_at - unset).num_seconds();
    assert!((7_190..=7_201).contains(&life), "{life}");
    let asked = stand_in.script.asked.lock().unwrap()[0].clone();
    let token = "ab".repeat(32);
    assert!(asked.starts_with(&format!("GET /turn-credentials auth= id=box-1 token={token} agent=r58")), "{asked}");
    stand_in.handle.stop(false).await;
}

#[actix_rt::test]
async fn a_shared_secret_needs_no_network() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("secret");
    let urls = vec!["turn:10.0.0.1:3478?transport=udp".to_owned(), "turn:10.0.0.1:53".to_owned()];
    let shared = SharedSecret::new(urls, file.clone(), "box-1", Duration::from_secs(3600));
    assert!(matches!(shared.fetch(Utc::now()).await, Err(ProviderError::NotReady(_))));
    std::fs::write(&file, "north\n").unwrap();
    let grant = shared.fetch(Utc::now()).await.unwrap();
    assert_eq!(grant.servers[0].urls.len(), 1);
    assert!(grant.servers[0].username.as_deref().unwrap().ends_with(":box-1"));
}

struct Rig {
    house: House,
    slot: Slot<TurnCache>,
    seen: watch::Receiver<IceSnapshot>,
    enrol: watch::Sender<Option<Identity>>,
}

fn rig(store: Arc<dyn KeyValue>, first: Option<Identity>) -> Rig {
    let stun = vec!["stun:stun.example:3478".to_owned()];
    let (enrol, identity) = watch::channel(first);
    let (snapshots, seen) = watch::channel(TurnSettings::first_snapshot(&stun));
    let settings = TurnSettings {
        providers: vec![Arc::new(FleetApi::new(http_client().unwrap(), identity.clone()))],
        stun,
        cache: Some(Arc::new(StoredGrant::new(store))),
        identity,
        snapshots,
    };
    let house = House::open(HouseSettings::default());
    let slot = house.engage(Duty::new("turn", "turn"), move |life| TurnCache::new(life, settings.clone()));
    Rig { house, slot, seen, enrol }
}

async fn until(seen: &mut watch::Receiver<IceSnapshot>, wanted: impl Fn(&IceSnapshot) -> bool) -> IceSnapshot {
    let found = tokio::time::timeout(Duration::from_secs(20), seen.wait_for(|snapshot| wanted(snapshot)));
    found.await.unwrap().unwrap().clone()
}

#[actix_rt::test]
async fn a_box_that_enrols_gets_its_fleets_relay_and_keeps_it_over_a_restart_without_the_fleet() {
    let stand_in = provider();
    let at = (Utc::now() + chrono::TimeDelta::hours(2)).to_rfc3339();
    stand_in.script.say(
        200,
        format!(
            r#"{{"iceServers":{{"urls":["turn:t.example:3478"],"username":"u","credential":"c"}},"expiresAt":"{at}"}}"#
        ),
    );
    let disk: Arc<dyn KeyValue> = Arc::new(Memory::new());
    let mut rig1 = rig(disk.clone(), None);
    let before = rig1.slot.door::<GetIceServers>().send(GetIceServers).await.unwrap();
    assert_eq!(before.provider, "stun");
    rig1.enrol.send_replace(Some(identity(&stand_in.base)));
    let snapshot = until(&mut rig1.seen, |snapshot| snapshot.provider == "fleet").await;
    assert_eq!(snapshot.servers[0].urls, ["turn:t.example:3478?transport=udp"]);
    let same = rig1.slot.door::<GetIceServers>().send(GetIceServers).await.unwrap();
    assert_eq!(same, snapshot);
    assert_eq!(stand_in.script.hits.load(Ordering::SeqCst), 1);
    rig1.house.stop(Duration::from_secs(5)).await;
    stand_in.handle.stop(false).await;

    let mut rig2 = rig(disk, Some(identity(&stand_in.base)));
    let again = until(&mut rig2.seen, |snapshot| snapshot.provider == "fleet").await;
    assert_eq!(again.expires_at, snapshot.expires_at);
    rig2.house.stop(Duration::from_secs(5)).await;
}

#[actix_rt::test]
async fn an_answer_never_waits_for_a_provider_that_hangs() {
    let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let base = format!("http://{}", listener.local_addr().unwrap());
    let rig = rig(Arc::new(Memory::new()), Some(identity(&base)));
    let door = rig.slot.door::<GetIceServers>();
    let begun = Instant::now();
    for _ in 0..100 {
        assert_eq!(door.send(GetIceServers).await.unwrap().provider, "stun");
    }
    assert!(begun.elapsed() < Duration::from_secs(5));
    rig.house.stop(Duration::from_secs(5)).await;
}
