//! The store on real files. What one module needs alone is tested beside it.

use chrono::{DateTime, Duration, Utc};
use r58_actors::ingest::store::{FleetStore, Record, Report, StreamPosition};
use r58_mqtt::payload::{
    Batch, BatchItem, ClockState, CommandStatus, ConnectionOrder, DeviceState, Heartbeat, Metrics, Payload, Presence,
    Reported, SyncUp,
};
use r58_mqtt::{CommandId, DeviceAddress, DeviceId, Name, OrgId};
use serde_json::json;
use tempfile::TempDir;

mod alerts;
mod census;
mod commands;
mod engines;
mod history;
mod late;
mod upgrades;

use super::sql::QueryBuilder;
use super::*;
use crate::fleet::ErrorKind;

#[path = "../../../tests/support/postgres.rs"]
#[allow(dead_code, reason = "the suites of processes use more of it")]
mod postgres;

use self::postgres::Postgres;

struct World {
    store: Store,
    _dir: TempDir,
}

impl Drop for World {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("on {:?}", self.store.writer.engine());
        }
    }
}

fn actor() -> Actor {
    Actor { org: "default".into(), name: "user:test".into() }
}

fn new_device(id: &str) -> NewDevice {
    NewDevice {
        id: id.into(),
        name: format!("Box {id}"),
        platform: "linux".into(),
        arch: "aarch64".into(),
        serial_number: None,
        mac_address: None,
        version: Some("0.1.0".into()),
        capabilities: None,
    }
}

impl World {
    /// One on each engine.
    async fn both() -> [Self; 2] {
        let url = Postgres::shared().await.database().await;
        [Self::new(None).await, Self::new(Some(&url)).await]
    }

    async fn new(url: Option<&str>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(url, None, dir.path()).await.unwrap();
        for org in ["default", "other"] {
            store.ensure_organization(org, org, Utc::now()).await.unwrap();
        }
        Self { store, _dir: dir }
    }

    async fn enrol(&self, org: &str, id: &str) -> DeviceAddress {
        let (actor, now, code) = (Actor::server(org), Utc::now(), format!("code-{id}-{}", rand::random::<u64>()));
        self.store.create_enrolment_code(&actor, &code, &code, None, now, now + Duration::hours(1)).await.unwrap();
        let done = self.store.enrol(&code, &new_device(id), "hash", now).await.unwrap();
        assert_eq!(done, Enrolled::Done { org: org.into() });
        address(org, id)
    }

    async fn command(&self, device: &str, id: &str) -> CommandRow {
        self.command_until(device, id, Utc::now() + Duration::hours(1)).await
    }

    async fn command_until(&self, device: &str, id: &str, expires_at: DateTime<Utc>) -> CommandRow {
        let command = NewCommand {
            id: id.into(),
            device_id: device.into(),
            kind: "identify".into(),
            payload: "{}".into(),
            priority: 5,
            notes: None,
            not_before: None,
            expires_at,
            draft: false,
            ..NewCommand::default()
        };
        let sign =
            |seq: u64| Ok::<_, StoreError>(Signed { text: format!("signed {seq}"), hash: format!("sha256:{id}") });
        self.store.create_command(&actor(), &command, Utc::now(), sign).await.unwrap().unwrap()
    }

    async fn state(&self, id: &str) -> String {
        self.store.command("default", id).await.unwrap().unwrap().state
    }

    async fn card(&self, id: &str) -> DeviceRow {
        self.store.device("default", id).await.unwrap().unwrap()
    }
}

fn address(org: &str, id: &str) -> DeviceAddress {
    DeviceAddress { org: OrgId::new(org).unwrap(), device: DeviceId::new(id).unwrap() }
}

fn record(device: &DeviceAddress, report: Report) -> Record {
    Record { device: device.clone(), received_at: Utc::now(), report }
}

fn said(heartbeat: Heartbeat) -> Report {
    let body = serde_json::to_string(&heartbeat).unwrap().into();
    Report::Heartbeat { heartbeat: Box::new(heartbeat), body }
}

fn heartbeat(boot_seq: u64, seq: u64, cpu: f64) -> Heartbeat {
    Heartbeat {
        ts: DateTime::from_timestamp(1_800_000_000 + i64::try_from(seq).unwrap(), 0).unwrap(),
        version: "0.1.0".into(),
        metrics: Metrics { cpu_percent: Some(cpu), ..Metrics::default() },
        boot_seq,
        seq,
        interval_s: 60,
        ..Heartbeat::default()
    }
}

fn beat(device: &DeviceAddress, seq: u64) -> Record {
    record(device, said(heartbeat(1, seq, 10.0)))
}

fn batch(device: &DeviceAddress, first_available: u64, seqs: &[u64]) -> Record {
    let items =
        seqs.iter().map(|seq| BatchItem { seq: *seq, ts: None, data: heartbeat(1, *seq, 20.0).to_value() }).collect();
    let stream = Name::new("hb").unwrap();
    record(device, Report::Batch(Batch { stream, boot_seq: 1, first_available, items, extra: Default::default() }))
}

fn status(device: &DeviceAddress, id: &str, rev: u64, state: DeviceState) -> Record {
    let text = json!({"id": id, "rev": rev, "state": state, "attempt": 1, "hash": format!("sha256:{id}")}).to_string();
    let status = CommandStatus::parse(text.as_bytes()).unwrap();
    assert_eq!(status.clock, ClockState::Unset);
    record(device, Report::Status { status, position: None })
}

fn presence(device: &DeviceAddress, online: bool, boot_seq: u64, conn_seq: u64) -> Record {
    let order = ConnectionOrder { boot_seq, conn_seq };
    record(device, Report::Presence(if online { Presence::online(order) } else { Presence::will(order) }))
}

fn acked(applied: &r58_actors::ingest::store::Applied, device: &DeviceAddress, stream: &str) -> Option<u64> {
    applied.acked.get(device)?.get(&Name::new(stream).unwrap()).copied()
}

#[tokio::test]
async fn a_second_start_finds_what_the_first_one_stored() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(None, None, dir.path()).await.unwrap();
    store.ensure_organization("default", "Default", Utc::now()).await.unwrap();
    let user = NewUser {
        id: "u1".into(),
        email: "a@b".into(),
        name: "A".into(),
        role: "admin".into(),
        password_hash: "x".into(),
    };
    store.create_user(&actor(), user.clone(), Utc::now()).await.unwrap();
    let again = store.create_user(&actor(), NewUser { id: "u2".into(), ..user }, Utc::now()).await;
    assert_eq!(again.unwrap_err().to_string(), "a user with this email exists already");
    store.close().await;
    let store = Store::open(None, None, dir.path()).await.unwrap();
    assert_eq!(store.user_by_email("a@b").await.unwrap().unwrap().id, "u1");
}

#[tokio::test]
async fn a_damaged_file_and_a_foreign_url_are_refused_with_a_sentence() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("fleet.db"), vec![7; 8192]).unwrap();
    let refused = Store::open(None, None, dir.path()).await.err().unwrap();
    assert_eq!(refused.kind(), ErrorKind::Corrupt, "{refused}");
    let refused = Store::open(Some("mysql://x"), None, dir.path()).await.err().unwrap();
    assert_eq!(refused.kind(), ErrorKind::Misconfigured, "{refused}");
    let refused = Store::open(None, None, &dir.path().join("missing")).await.err().unwrap();
    assert_eq!(refused.kind(), ErrorKind::Unavailable, "{refused}");
}

#[tokio::test]
async fn an_enrolment_code_lets_one_box_in_once() {
    for world in World::both().await {
        let now = Utc::now();
        for (id, life) in [("fresh", 1), ("stale", -1)] {
            world.store.create_enrolment_code(&actor(), id, id, None, now, now + Duration::hours(life)).await.unwrap();
        }
        let enrol = async |code: &str, id: &str| world.store.enrol(code, &new_device(id), "t", now).await.unwrap();
        assert_eq!(enrol("stale", "a").await, Enrolled::BadCode);
        assert_eq!(enrol("guess", "a").await, Enrolled::BadCode);
        assert_eq!(enrol("fresh", "a").await, Enrolled::Done { org: "default".into() });
        assert_eq!(enrol("fresh", "b").await, Enrolled::BadCode);
    }
}

#[tokio::test]
async fn a_known_device_does_not_use_the_code_up_and_a_decommissioned_one_comes_back_with_its_numbers() {
    for world in World::both().await {
        world.enrol("default", "a").await;
        assert_eq!(world.command("a", "c1").await.seq, 1);
        let now = Utc::now();
        world.store.create_enrolment_code(&actor(), "x", "x", None, now, now + Duration::hours(1)).await.unwrap();
        assert_eq!(world.store.enrol("x", &new_device("a"), "t", now).await.unwrap(), Enrolled::Known);
        assert!(world.store.decommission_device(&actor(), "a", now).await.unwrap());
        assert_eq!(world.state("c1").await, "cancelled");
        assert!(world.store.device_secret("a").await.unwrap().is_none(), "its token is dead");
        assert!(world.store.device_no("default", "a").await.unwrap().is_none());
        assert_eq!(
            world.store.enrol("x", &new_device("a"), "t", now).await.unwrap(),
            Enrolled::Done { org: "default".into() }
        );
        assert_eq!(world.command("a", "c2").await.seq, 2, "numbers go on, so old ones stay stale on the box");
    }
}

#[tokio::test]
async fn a_device_of_another_organization_cannot_be_taken_over() {
    for world in World::both().await {
        world.enrol("default", "a").await;
        world.store.decommission_device(&actor(), "a", Utc::now()).await.unwrap();
        let now = Utc::now();
        let other = Actor::server("other");
        world.store.create_enrolment_code(&other, "o", "o", None, now, now + Duration::hours(1)).await.unwrap();
        assert_eq!(world.store.enrol("o", &new_device("a"), "t", now).await.unwrap(), Enrolled::Known);
        assert!(world.store.device("other", "a").await.unwrap().is_none());
    }
}

#[tokio::test]
async fn a_heartbeat_is_stored_once_however_often_it_comes() {
    for world in World::both().await {
        let device = world.enrol("default", "a").await;
        let applied = world.store.apply(&[beat(&device, 1), beat(&device, 1), beat(&device, 2)]).await.unwrap();
        assert_eq!(acked(&applied, &device, "hb"), Some(2));
        let applied = world.store.apply(&[beat(&device, 2), batch(&device, 1, &[1, 2, 3])]).await.unwrap();
        assert_eq!(acked(&applied, &device, "hb"), Some(3));
        let no = world.store.device_no("default", "a").await.unwrap().unwrap();
        let (rows, total) = world.store.heartbeats(no, DateTime::UNIX_EPOCH, 0, 10).await.unwrap();
        assert_eq!((rows.len(), total), (3, 3));
        assert!(rows[0].ts > rows[2].ts, "newest first");
        // One that comes back into service begins anew, and its outbox may hold what it said in its earlier life.
        assert!(world.store.decommission_device(&actor(), "a", Utc::now()).await.unwrap());
        let (device, other) = (world.enrol("default", "a").await, world.enrol("default", "b").await);
        world.store.apply(&[beat(&other, 1), batch(&device, 1, &[1, 2, 3, 4]), beat(&other, 2)]).await.unwrap();
        for (no, stored) in [(no, 4), (world.store.device_no("default", "b").await.unwrap().unwrap(), 2)] {
            assert_eq!(world.store.heartbeats(no, DateTime::UNIX_EPOCH, 0, 10).await.unwrap().1, stored);
        }
    }
}

#[tokio::test]
async fn an_older_heartbeat_never_replaces_the_current_one() {
    for world in World::both().await {
        let device = world.enrol("default", "a").await;
        world.store.apply(&[record(&device, said(heartbeat(2, 10, 50.0)))]).await.unwrap();
        let late = [record(&device, said(heartbeat(2, 9, 1.0))), record(&device, said(heartbeat(1, 99, 2.0)))];
        world.store.apply(&late).await.unwrap();
        let card = world.card("a").await;
        let current = Heartbeat::parse(card.heartbeat.unwrap().as_bytes()).unwrap();
        assert_eq!((current.boot_seq, current.seq), (2, 10));
        world.store.apply(&[record(&device, said(heartbeat(3, 1, 3.0)))]).await.unwrap();
        let current = Heartbeat::parse(world.card("a").await.heartbeat.unwrap().as_bytes()).unwrap();
        assert_eq!(current.boot_seq, 3, "a new start begins again");
    }
}

#[tokio::test]
async fn what_a_newer_box_says_and_this_server_does_not_know_is_kept() {
    for world in World::both().await {
        let device = world.enrol("default", "a").await;
        let mut beat = heartbeat(1, 1, 1.0).to_value();
        (beat["later"], beat["inputs"]) = (json!(1), json!([{"id": "cam1", "hdr": true}]));
        let state = json!({"ver": 1, "boot_seq": 1, "inputs": [{"id": "cam1", "hdr": true}], "later": 2});
        let read = |text: &str| serde_json::from_str::<serde_json::Value>(text).unwrap();
        let (beat, state) = (beat.to_string(), state.to_string());
        let heartbeat = Heartbeat::parse(beat.as_bytes()).unwrap();
        let reported = Reported::parse(state.as_bytes()).unwrap();
        let said = [
            record(&device, Report::Heartbeat { heartbeat: Box::new(heartbeat), body: beat.as_str().into() }),
            record(&device, Report::Reported { reported, body: state.as_str().into() }),
        ];
        world.store.apply(&said).await.unwrap();
        let card = world.card("a").await;
        assert_eq!(read(&card.heartbeat.unwrap()), read(&beat));
        assert_eq!(read(&card.reported.unwrap()), read(&state));
    }
}

#[tokio::test]
async fn live_heartbeats_in_turn_are_acknowledged_two_at_a_time_and_whatever_else_at_once() {
    for world in World::both().await {
        let device = world.enrol("default", "a").await;
        for (record, told) in [
            (beat(&device, 1), None),
            (beat(&device, 2), Some(2)),
            (beat(&device, 3), None),
            (beat(&device, 3), Some(3)),
            (beat(&device, 5), Some(3)),
            (batch(&device, 4, &[4, 5]), Some(5)),
            (batch(&device, 4, &[4, 5]), Some(5)),
            (record(&device, Report::Sync(SyncUp::default())), None),
        ] {
            let applied = world.store.apply(std::slice::from_ref(&record)).await.unwrap();
            assert_eq!(acked(&applied, &device, "hb"), told, "{record:?}");
        }
    }
}

#[tokio::test]
async fn acknowledgements_stop_at_a_gap_until_the_device_says_that_nothing_will_fill_it() {
    for world in World::both().await {
        let device = world.enrol("default", "a").await;
        let applied = world.store.apply(&[beat(&device, 1), beat(&device, 4)]).await.unwrap();
        assert_eq!(acked(&applied, &device, "hb"), Some(1));
        let applied = world.store.apply(&[batch(&device, 3, &[3, 4, 6])]).await.unwrap();
        assert_eq!(acked(&applied, &device, "hb"), Some(4), "2 is gone for good, 5 may still come");
        let state = world.store.sync_state(&device).await.unwrap().unwrap();
        assert_eq!(state.acked.get(&Name::new("hb").unwrap()), Some(&4));
        let sync = SyncUp { streams: [(Name::new("hb").unwrap(), 2)].into(), ..SyncUp::default() };
        let applied = world.store.apply(&[record(&device, Report::Sync(sync))]).await.unwrap();
        assert_eq!(acked(&applied, &device, "hb"), Some(0), "its outbox was wiped");
    }
}

#[tokio::test]
async fn presence_follows_the_latest_connection_whatever_the_order_of_delivery() {
    for world in World::both().await {
        let device = world.enrol("default", "a").await;
        let steps = [
            (true, 1, 1, "online"),
            (true, 1, 2, "online"),
            (false, 1, 1, "online"),
            (false, 1, 2, "offline"),
            (true, 1, 2, "offline"),
            (true, 2, 1, "online"),
            (false, 1, 9, "online"),
        ];
        for (online, boot, conn, expected) in steps {
            world.store.apply(&[presence(&device, online, boot, conn)]).await.unwrap();
            assert_eq!(world.card("a").await.presence, expected, "after {online} of {boot}.{conn}");
        }
    }
}

#[tokio::test]
async fn a_silent_device_goes_offline_and_any_heartbeat_brings_it_back() {
    for world in World::both().await {
        let device = world.enrol("default", "a").await;
        world.store.apply(&[presence(&device, true, 1, 1), beat(&device, 1)]).await.unwrap();
        let now = Utc::now();
        assert_eq!(world.store.mark_silent(now + Duration::seconds(170)).await.unwrap(), []);
        let silent = world.store.mark_silent(now + Duration::seconds(190)).await.unwrap();
        assert_eq!(silent, std::slice::from_ref(&device));
        assert_eq!(world.card("a").await.presence_reason.as_deref(), Some("silent"));
        world.store.apply(&[beat(&device, 2)]).await.unwrap();
        let card = world.card("a").await;
        assert_eq!((card.presence.as_str(), card.presence_reason), ("online", None));
        world.store.apply(&[presence(&device, false, 1, 1), beat(&device, 3)]).await.unwrap();
        assert_eq!(world.card("a").await.presence, "offline", "a heartbeat does not outvote the will");
    }
}

#[tokio::test]
async fn messages_of_unknown_devices_store_nothing_and_stop_nobody() {
    for world in World::both().await {
        let device = world.enrol("default", "a").await;
        let stranger = address("other", "a");
        let applied = world.store.apply(&[beat(&stranger, 1), beat(&device, 1)]).await.unwrap();
        assert_eq!((applied.unknown, applied.devices), (1, vec![device]));
    }
}

#[tokio::test]
async fn twenty_thousand_heartbeats_of_many_devices_arrive_complete() {
    for world in World::both().await {
        let mut devices = Vec::new();
        for n in 0..200 {
            devices.push(world.enrol("default", &format!("box{n}")).await);
        }
        for seq in 1..=100_u64 {
            let records: Vec<Record> = devices.iter().map(|device| beat(device, seq)).collect();
            let applied = world.store.apply(&records).await.unwrap();
            assert_eq!(applied.devices.len(), 200);
        }
        let no = world.store.device_no("default", "box7").await.unwrap().unwrap();
        assert_eq!(world.store.heartbeats(no, DateTime::UNIX_EPOCH, 0, 1).await.unwrap().1, 100);
        let metrics = world.store.metrics(no, DateTime::UNIX_EPOCH).await.unwrap();
        let cpu = metrics[0].unwrap();
        assert_eq!((cpu.min, cpu.max, cpu.avg(), cpu.latest), (10.0, 10.0, 10.0, 10.0));
        assert_eq!(metrics[3], None, "its temperature was never measured");
    }
}

#[tokio::test]
async fn a_refresh_token_used_twice_ends_its_family() {
    for world in World::both().await {
        let user = NewUser {
            id: "u".into(),
            email: "a@b".into(),
            name: "A".into(),
            role: "viewer".into(),
            password_hash: "x".into(),
        };
        world.store.create_user(&actor(), user, Utc::now()).await.unwrap();
        let now = Utc::now();
        let later = now + Duration::hours(1);
        let add = async |hash: &str| world.store.add_refresh_token("u", "f", hash, now, later).await.unwrap();
        let spend = async |hash: &str| world.store.use_refresh_token(hash, now).await.unwrap();
        add("one").await;
        assert_eq!(spend("one").await, Refreshed::Good { user_id: "u".into(), family: "f".into() });
        add("two").await;
        assert_eq!(spend("one").await, Refreshed::Reused);
        assert_eq!(spend("two").await, Refreshed::Unknown, "the successor is dead too");
    }
}

#[tokio::test]
async fn a_locked_database_is_reported_as_busy_and_reading_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(None, None, dir.path()).await.unwrap();
    store.ensure_organization("default", "Default", Utc::now()).await.unwrap();
    query("PRAGMA busy_timeout = 50").execute(&store.writer).await.unwrap();
    let other = Store::open(None, None, dir.path()).await.unwrap();
    let mut held = other.begin().await.unwrap();
    query("UPDATE counters SET value = value").execute(&mut *held).await.unwrap();
    let refused = store.ensure_organization("new", "New", Utc::now()).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Transient, "{refused}");
    assert_eq!(store.count_users().await.unwrap(), 0);
    held.rollback().await.unwrap();
    store.ensure_organization("new", "New", Utc::now()).await.unwrap();
}

#[tokio::test]
async fn a_full_disk_is_named_and_reading_goes_on() {
    let world = World::new(None).await;
    // The engine's own limit stands in for the file system's: it answers with the same SQLITE_FULL.
    let (pages,): (i64,) = query_as("PRAGMA page_count").fetch_one(&world.store.writer).await.unwrap();
    let limit = format!("PRAGMA max_page_count = {}", pages + 2);
    QueryBuilder::new(limit).build().execute(&world.store.writer).await.unwrap();
    let mut refused = None;
    for n in 0..200 {
        let name = "x".repeat(2_000);
        if let Err(error) = world.store.ensure_organization(&format!("org{n}"), &name, Utc::now()).await {
            refused = Some(error);
            break;
        }
    }
    assert!(matches!(refused, Some(StoreError::DiskFull)), "{refused:?}");
    assert_eq!(world.store.count_users().await.unwrap(), 0);
}
