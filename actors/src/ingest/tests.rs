//! Ingest and CommandDesk against a real broker and a fleet in memory.

use r58_mqtt::payload::ConnectionOrder;
use r58_mqtt::payload::{CommandStatus, DeviceState, Heartbeat, Payload as _, Presence, PresenceState, SyncDown};

use super::desk::{CommandDesk, DeskSettings};
use super::store::StoreError;
use super::*;
use crate::supervision::{Duty, House, HouseSettings, Slot};
use crate::testkit::{Listener, MemoryFleet, Mosquitto, eventually};

struct Rig {
    broker: Mosquitto,
    fleet: Arc<MemoryFleet>,
    house: House,
    ingest: Slot<Ingest>,
    events: broadcast::Receiver<FleetEvent>,
    device: DeviceAddress,
}

impl Rig {
    async fn start() -> Self {
        let broker = Mosquitto::start();
        let fleet = Arc::new(MemoryFleet::default());
        let house = House::open(HouseSettings::default());
        let (events, seen) = broadcast::channel(1024);
        let desk = DeskSettings { session: broker.client("desk"), store: fleet.clone(), events: events.clone() };
        let desk = house.engage(Duty::new("desk", "desk"), move |life| CommandDesk::new(life, desk.clone()));
        let mut settings = IngestSettings::new(broker.client("ingest"), fleet.clone(), events);
        settings.desk = Some(desk.door());
        settings.silence_grace = Duration::from_millis(500);
        let ingest = house.engage(Duty::new("ingest", "ingest"), move |life| Ingest::new(life, settings.clone()));
        let device = DeviceAddress::new("org", "box1").unwrap();
        let rig = Self { broker, fleet, house, ingest, events: seen, device };
        rig.linked().await;
        rig
    }

    async fn stats(&self) -> IngestStats {
        self.ingest.door().send(GetIngestStats).await.unwrap()
    }

    async fn stats_until(&self, wanted: impl Fn(&IngestStats) -> bool) -> IngestStats {
        let deadline = std::time::Instant::now() + crate::testkit::LIMIT;
        loop {
            let stats = self.stats().await;
            if wanted(&stats) {
                return stats;
            }
            assert!(std::time::Instant::now() < deadline, "{stats:?}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    async fn linked(&self) {
        self.stats_until(|stats| stats.linked).await;
    }

    fn up(&self, tail: &str) -> String {
        format!("r58/1/{}/up/{tail}", self.device)
    }

    async fn stop(self) {
        assert!(self.house.stop(Duration::from_secs(5)).await.is_empty());
    }
}

fn beat(seq: u64) -> Vec<u8> {
    Heartbeat { ts: chrono::Utc::now(), boot_seq: 1, seq, ..Heartbeat::default() }.to_bytes().unwrap()
}

fn status(id: &str, rev: u64, state: &str) -> Vec<u8> {
    let body = format!(r#"{{"id":"{id}","rev":{rev},"state":"{state}"}}"#);
    CommandStatus::parse(body.as_bytes()).unwrap().to_bytes().unwrap()
}

#[actix_rt::test]
async fn what_a_device_says_is_stored_acknowledged_and_told_to_watchers() {
    let mut rig = Rig::start().await;
    let mut device = Listener::start(&rig.broker, "box1", "r58/1/org/box1/down/#").await;
    let order = ConnectionOrder { boot_seq: 1, conn_seq: 1 };
    device.say(&rig.up("presence"), Presence::online(order).to_bytes().unwrap(), true).await;
    device.say(&rig.up("hb"), beat(1), false).await;
    let acked =
        device.until(|message| SyncDown::parse(&message.payload).ok().filter(|sync| !sync.acked.is_empty())).await;
    assert_eq!(acked.acked[&Name::new("hb").unwrap()], 1);
    assert_eq!(acked.pending, None, "a mere acknowledgement");
    assert_eq!(rig.events.recv().await.unwrap(), FleetEvent::Device(rig.device.clone()));
    assert_eq!(rig.fleet.0.lock().unwrap().presence[&rig.device].state, PresenceState::Online);
    rig.stop().await;
}

#[actix_rt::test]
async fn a_store_that_is_away_loses_nothing_and_the_order_stays() {
    let rig = Rig::start().await;
    let device = Listener::start(&rig.broker, "box1", "r58/1/org/box1/down/#").await;
    let id = CommandId::new("c1").unwrap();
    rig.fleet.add_command(&rig.device, &id, "{}");
    rig.fleet.0.lock().unwrap().failing = Some(StoreError::Unavailable("locked".to_owned()));
    for (rev, state) in [(1, "accepted"), (2, "executing"), (3, "succeeded")] {
        device.say(&rig.up("cmd/c1"), status("c1", rev, state), false).await;
    }
    let before = rig.stats_until(|stats| stats.held == 3).await;
    assert_eq!(before.stored, 0);
    rig.fleet.0.lock().unwrap().failing = None;
    let history = eventually("the terminal state", || {
        let row = rig.fleet.command(&id);
        row.state.filter(|state| state.is_terminal()).map(|_| row.history)
    })
    .await;
    assert_eq!(history, [DeviceState::Accepted, DeviceState::Executing, DeviceState::Succeeded]);
    rig.stop().await;
}

#[actix_rt::test]
async fn a_server_that_dies_with_a_full_hand_gets_it_dealt_again() {
    let rig = Rig::start().await;
    let device = Listener::start(&rig.broker, "box1", "r58/1/org/box1/down/#").await;
    let id = CommandId::new("c1").unwrap();
    rig.fleet.add_command(&rig.device, &id, "{}");
    rig.fleet.0.lock().unwrap().failing = Some(StoreError::Unavailable("locked".to_owned()));
    device.say(&rig.up("cmd/c1"), status("c1", 1, "succeeded"), false).await;
    rig.stats_until(|stats| stats.held == 1).await;
    assert!(rig.house.restart("ingest").await);
    rig.fleet.0.lock().unwrap().failing = None;
    eventually("the status", || rig.fleet.command(&id).state).await;
    rig.stop().await;
}

#[actix_rt::test]
async fn rubbish_and_poison_are_counted_and_do_not_loop() {
    let rig = Rig::start().await;
    let device = Listener::start(&rig.broker, "box1", "r58/1/org/box1/down/#").await;
    let bad = DeviceAddress::new("org", "bad").unwrap();
    rig.fleet.0.lock().unwrap().poison = Some(bad.clone());
    device.say(&rig.up("cmd/c1"), "{", false).await;
    device.say(&rig.up("tm/hb"), vec![b'x'; 200_000], false).await;
    for seq in 1..=20 {
        device.say(&rig.up("hb"), beat(seq), false).await;
        let topic = format!("r58/1/{bad}/up/evt/odd");
        let event = format!(r#"{{"kind":"odd","boot_seq":1,"seq":{seq},"text":"x"}}"#);
        device.say(&topic, event, false).await;
    }
    let stats = rig.stats_until(|stats| stats.given_up == 20 && stats.stored == 20).await;
    assert_eq!(stats.refused, 2);
    assert_eq!(stats.held, 0);
    assert_eq!(rig.fleet.0.lock().unwrap().heartbeats.len(), 20);
    rig.stop().await;
}

#[actix_rt::test]
async fn a_sync_is_answered_and_a_command_the_broker_lost_is_published_again() {
    let rig = Rig::start().await;
    let mut device = Listener::start(&rig.broker, "box1", "r58/1/org/box1/down/#").await;
    let id = CommandId::new("c1").unwrap();
    rig.fleet.add_command(&rig.device, &id, "{\"signed\":true}");
    device.until(|message| message.topic.ends_with("down/cmd/c1").then_some(())).await;
    eventually("the mark", || rig.fleet.command(&id).published.then_some(())).await;
    device.say(&rig.up("sync"), r#"{"pending":[],"seq_floor":0}"#, false).await;
    // In this order: a device that is told of a command it has asks no more.
    device.until(|message| message.topic.ends_with("down/cmd/c1").then_some(())).await;
    let answer =
        device.until(|message| SyncDown::parse(&message.payload).ok().filter(|sync| sync.pending.is_some())).await;
    assert_eq!(answer.pending, Some(vec![id.clone()]));
    assert_eq!(answer.seq_floor, Some(0));
    rig.stop().await;
}

#[actix_rt::test]
async fn a_command_goes_onto_the_broker_retained_and_off_it_once_it_is_terminal() {
    let rig = Rig::start().await;
    let id = CommandId::new("c1").unwrap();
    rig.fleet.add_command(&rig.device, &id, "{\"signed\":true}");
    eventually("the mark", || rig.fleet.command(&id).published.then_some(())).await;
    let mut late = Listener::start(&rig.broker, "late", "r58/1/org/box1/down/cmd/#").await;
    let retained = late.until(|message| Some(message.retain)).await;
    assert!(retained);
    late.say(&rig.up("cmd/c1"), status("c1", 1, "succeeded"), false).await;
    late.until(|message| message.payload.is_empty().then_some(())).await;
    eventually("the mark", || rig.fleet.command(&id).withdrawn.then_some(())).await;
    rig.stop().await;
}

#[actix_rt::test]
async fn a_device_that_falls_silent_is_offline_and_online_presence_is_kept_over_a_late_will() {
    let rig = Rig::start().await;
    let device = Listener::start(&rig.broker, "box1", "r58/1/org/box1/down/#").await;
    let order = |conn_seq| ConnectionOrder { boot_seq: 1, conn_seq };
    device.say(&rig.up("presence"), Presence::online(order(2)).to_bytes().unwrap(), true).await;
    device.say(&rig.up("presence"), Presence::will(order(1)).to_bytes().unwrap(), true).await;
    let old = Heartbeat { ts: chrono::Utc::now() - chrono::TimeDelta::minutes(5), seq: 1, ..Heartbeat::default() };
    rig.stats_until(|stats| stats.stored >= 2).await;
    assert_eq!(rig.fleet.0.lock().unwrap().presence[&rig.device].state, PresenceState::Online);
    device.say(&rig.up("hb"), old.to_bytes().unwrap(), false).await;
    eventually("silence", || {
        let rows = rig.fleet.0.lock().unwrap();
        (rows.presence[&rig.device].reason.as_deref() == Some("silent")).then_some(())
    })
    .await;
    rig.stop().await;
}

#[actix_rt::test]
async fn what_the_broker_retained_before_the_server_started_is_fetched() {
    let broker = Mosquitto::start();
    let device = Listener::start(&broker, "box1", "none").await;
    for n in 0..200 {
        let presence = Presence::online(ConnectionOrder { boot_seq: 1, conn_seq: 1 }).to_bytes().unwrap();
        device.say(&format!("r58/1/org/box{n}/up/presence"), presence, true).await;
    }
    let fleet = Arc::new(MemoryFleet::default());
    let house = House::open(HouseSettings::default());
    let (events, _) = broadcast::channel(1024);
    let settings = IngestSettings::new(broker.client("ingest"), fleet.clone(), events);
    house.engage(Duty::new("ingest", "ingest"), move |life| Ingest::new(life, settings.clone()));
    eventually("200 presences", || (fleet.0.lock().unwrap().presence.len() == 200).then_some(())).await;
    assert!(house.stop(Duration::from_secs(5)).await.is_empty());
}

#[actix_rt::test]
async fn a_thumbnail_goes_to_the_shelf_and_to_watchers() {
    let mut rig = Rig::start().await;
    let device = Listener::start(&rig.broker, "box1", "none").await;
    let jpeg = [&[0xff, 0xd8][..], &[7; 100]].concat();
    device.say(&rig.up("thumb/cam1"), jpeg.clone(), false).await;
    let FleetEvent::Thumbnail { device: of, name, seq } = rig.events.recv().await.unwrap() else { panic!() };
    assert_eq!((of, name.as_str(), seq), (rig.device.clone(), "cam1", 1));
    rig.stop().await;
}
