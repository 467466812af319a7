//! What only the embedded broker promises: to come back with everything, and to say plainly why it does not start.
#![allow(missing_docs, clippy::unwrap_used)]

mod support;

use std::net::TcpListener;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use r58_mqtt::broker::EmbeddedBroker;
use r58_mqtt::session::{Cable, DisconnectReason, Outgoing, Qos, Session, SessionEvent, Will, WillSource};
use r58_mqtt::{ErrorKind, MqttError};
use support::{
    Broker, ChildBroker, Client, Everyone, Kind, LIMIT, PASSWORD, embedded_settings, quick, resident_kib, set, until,
};
use tempfile::TempDir;

const DOWN: &str = "r58/1/acme/box-1/down/#";
const CHILD: &str = "a_broker_for_another_process";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_keeps_retained_messages_sessions_and_queues() {
    let mut broker = Broker::embedded(false);
    let fleet = Client::start(broker.fleet("fleet")).await;
    let mut settings = broker.device("box-1");
    settings.receive_max = 4;
    let mut device = Client::with(settings.clone(), &[DOWN]).await;
    for n in 0..100 {
        fleet.retain(&format!("r58/1/acme/box-2/down/cmd/{n}"), &n.to_string()).await;
    }
    fleet.retain("r58/1/acme/box-2/down/cmd/0", "").await;
    // One acknowledged, four in flight, five behind them when it goes, five more while it is away.
    for n in 0..10 {
        fleet.say("r58/1/acme/box-1/down/cmd/x", &n.to_string()).await;
    }
    assert_eq!(device.payloads(1).await, ["0"]);
    device.unacked().await;
    device.settled().await.vanish().await;
    for n in 10..15 {
        fleet.say("r58/1/acme/box-1/down/cmd/x", &n.to_string()).await;
    }
    broker.restart().await;
    // Its subscription is there before it is: a message published now waits for it.
    let again = Client::start(broker.fleet("fleet-2")).await;
    again.say("r58/1/acme/box-1/down/cmd/x", "15").await;
    let mut device = Client::start(settings).await;
    assert!(device.session_present);
    let expected: Vec<String> = (1..16).map(|n| n.to_string()).collect();
    assert_eq!(device.payloads(15).await, expected);
    let mut other = Client::with(broker.device("box-2"), &["r58/1/acme/box-2/down/#"]).await;
    assert_eq!(set(other.payloads(99).await).len(), 99);
    again.say("r58/1/acme/box-2/down/sync", "end").await;
    assert!(other.before_the_end().await.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_is_connected_at_a_restart_comes_back_and_misses_nothing() {
    let mut broker = Broker::embedded(false);
    let mut device = Client::with(broker.device("box-1"), &[DOWN]).await;
    let fleet = Client::start(broker.fleet("fleet")).await;
    fleet.say("r58/1/acme/box-1/down/cmd/x", "before").await;
    device.unacked().await;
    broker.restart().await;
    let publisher = Client::start(broker.fleet("other")).await;
    publisher.say("r58/1/acme/box-1/down/cmd/x", "after").await;
    // What is published while a client is on its way back may overtake what waits for it.
    assert_eq!(set(device.payloads(2).await), set(vec!["before".into(), "after".into()]));
    assert!(device.session_present);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_publishes_only_the_wills_of_those_who_stay_away() {
    let mut broker = Broker::embedded(false);
    let with_will = |dev: &str| {
        let mut settings = broker.device(dev);
        let topic = format!("r58/1/acme/{dev}/up/presence");
        let payload = Bytes::from(format!("{dev} is gone"));
        let delay = Duration::from_secs(1);
        settings.will = Some(WillSource::fixed(Will { topic, payload, qos: Qos::AtLeastOnce, retain: true, delay }));
        settings
    };
    let Kind::Embedded(Some(running)) = &broker.kind else { unreachable!() };
    // A client is told that it is connected before the broker reads what it says, and counts it.
    let connected = |count| until(|| running.connections() == count);
    let stays = Client::start(with_will("stays")).await;
    connected(1);
    let goodbye = Client::start(with_will("said-goodbye")).await;
    connected(2);
    goodbye.leave().await;
    connected(1);
    let vanishes = Client::start(with_will("vanishes")).await;
    connected(2);
    vanishes.vanish().await;
    connected(1);
    broker.restart().await;
    let mut fleet = Client::with(broker.fleet("fleet"), &["r58/1/+/+/up/presence"]).await;
    assert_eq!(fleet.payloads(1).await, ["vanishes is gone"]);
    stays.say("r58/1/acme/stays/up/presence", "end").await;
    assert_eq!(fleet.before_the_end().await, [""; 0]);
}

/// Waits until the broker's files hold a text; what was handed to the broker before it is in them as well.
fn until_on_disk(dir: &Path, text: &str) {
    until(|| {
        let log = std::fs::read(dir.join("broker/db")).unwrap_or_default();
        log.windows(text.len()).any(|bytes| bytes == text.as_bytes())
    });
}

/// The child process of [`a_killed_broker_comes_back_with_its_state`]; does nothing by itself.
#[test]
#[ignore = "started by other tests"]
fn a_broker_for_another_process() {
    support::be_a_broker();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_broker_comes_back_with_its_state() {
    let dir = TempDir::new().unwrap();
    let first = ChildBroker::start(dir.path(), CHILD);
    let url = format!("mqtt://{}", first.addr);
    Client::with(quick(&url, "acme", "box-1"), &[DOWN]).await.leave().await;
    let fleet = Client::start(quick(&url, "$fleet", "fleet")).await;
    for n in 0..1000 {
        fleet.retain(&format!("r58/1/acme/box-2/down/cmd/{n}"), &n.to_string()).await;
    }
    for n in 0..5 {
        fleet.say("r58/1/acme/box-1/down/cmd/x", &format!("waits {n}")).await;
    }
    // What is younger than the flush interval is not promised.
    until_on_disk(dir.path(), "waits 4");
    first.kill();
    let second = ChildBroker::start(dir.path(), CHILD);
    let url = format!("mqtt://{}", second.addr);
    let mut device = Client::with(quick(&url, "acme", "box-1"), &[DOWN]).await;
    assert!(device.session_present);
    assert_eq!(device.payloads(5).await, ["waits 0", "waits 1", "waits 2", "waits 3", "waits 4"]);
    let mut other = Client::with(quick(&url, "acme", "box-2"), &["r58/1/acme/box-2/down/#"]).await;
    assert_eq!(set(other.payloads(1000).await).len(), 1000);
}

#[test]
fn a_taken_port_is_one_clear_error() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let dir = TempDir::new().unwrap();
    let mut settings = embedded_settings(dir.path());
    settings.listen = taken.local_addr().unwrap();
    let error = EmbeddedBroker::start(settings, Arc::new(Everyone)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Misconfigured);
    assert_eq!(
        error.to_string(),
        format!("embedded broker: {} is already in use by another program", taken.local_addr().unwrap())
    );
    assert!(!dir.path().join("broker").exists(), "nothing half up");
}

#[test]
fn one_state_directory_serves_one_broker_at_a_time() {
    let dir = TempDir::new().unwrap();
    let first = EmbeddedBroker::start(embedded_settings(dir.path()), Arc::new(Everyone)).unwrap();
    let second = EmbeddedBroker::start(embedded_settings(dir.path()), Arc::new(Everyone)).unwrap_err();
    assert!(matches!(second, MqttError::StoreLocked { .. }), "{second}");
    first.stop();
    for _ in 0..3 {
        EmbeddedBroker::start(embedded_settings(dir.path()), Arc::new(Everyone)).unwrap().stop();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_corrupt_store_is_moved_aside_and_the_broker_starts_empty() {
    let mut broker = Broker::embedded(false);
    let fleet = Client::start(broker.fleet("fleet")).await;
    fleet.retain("r58/1/acme/box-1/down/desired", "x").await;
    fleet.leave().await;
    if let Kind::Embedded(running) = &mut broker.kind {
        let running = running.take().unwrap();
        tokio::task::spawn_blocking(move || running.stop()).await.unwrap();
    }
    let store = broker.dir.path().join("broker");
    std::fs::write(store.join("conf"), b"this is no configuration of a database").unwrap();
    std::fs::write(store.join("db"), vec![0x5a; 4096]).unwrap();
    let path = broker.dir.path().to_owned();
    let start = move || EmbeddedBroker::start(embedded_settings(&path), Arc::new(Everyone)).unwrap();
    let fresh = tokio::task::spawn_blocking(start).await.unwrap();
    broker.addr = fresh.addr();
    broker.kind = Kind::Embedded(Some(fresh));
    let fleet = Client::start(broker.fleet("fleet")).await;
    fleet.say("r58/1/acme/box-1/down/sync", "it works").await;
    assert!(broker.dir.path().join("broker.corrupt-0").exists());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disconnected_client_keeps_its_session() {
    let broker = Broker::embedded(false);
    let mut device = Client::with(broker.device("box-1"), &[DOWN]).await;
    let Kind::Embedded(Some(running)) = &broker.kind else { unreachable!() };
    assert!(running.is_running());
    assert!(running.disconnect("box-1").await);
    assert!(!running.disconnect("nobody").await);
    loop {
        if let SessionEvent::Disconnected { reason, .. } = device.event().await {
            // rmqtt 0.24 closes the socket before it would send DISCONNECT.
            assert!(matches!(reason, DisconnectReason::Network(_)), "{reason}");
            break;
        }
    }
    device.subscribed().await;
    assert!(device.session_present);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_id_or_a_will_of_another_device_is_refused() {
    let broker = Broker::embedded(false);
    let mut wills = broker.device("box-1");
    wills.will = Some(WillSource::fixed(Will {
        topic: "r58/1/acme/box-2/up/presence".into(),
        payload: Bytes::from_static(b"offline"),
        qos: Qos::AtLeastOnce,
        retain: true,
        delay: Duration::ZERO,
    }));
    for settings in [broker.device("wrong-box-1"), wills, broker.settings("nobody", "box-1")] {
        let (_session, mut events) = Session::start(settings).unwrap();
        match tokio::time::timeout(LIMIT, events.recv()).await.unwrap().unwrap() {
            SessionEvent::Disconnected { reason: DisconnectReason::Refused(_), .. } => {}
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_panicking_authenticator_costs_one_client_and_nobody_else() {
    let broker = Broker::embedded(false);
    let mut device = Client::with(broker.device("box-1"), &[DOWN]).await;
    let mut victim = Client::new(Session::start(broker.settings("panic", "box-2")).unwrap());
    while victim.disconnects < 2 {
        victim.event().await;
    }
    let fleet = Client::start(broker.fleet("fleet")).await;
    fleet.say("r58/1/acme/box-1/down/sync", "end").await;
    assert!(device.before_the_end().await.is_empty());
    assert_eq!(device.disconnects, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_command_can_be_sent_with_a_common_tool() {
    let broker = Broker::embedded(false);
    let mut device = Client::with(broker.device("box-1"), &[DOWN]).await;
    for (version, user, expected) in [("311", "$fleet", true), ("5", "$fleet", true), ("5", "stranger", false)] {
        let sent = std::process::Command::new("mosquitto_pub")
            .args([
                "-h",
                "127.0.0.1",
                "-p",
                &broker.addr.port().to_string(),
                "-i",
                "tool",
                "-V",
                version,
                "-q",
                "1",
                "-r",
            ])
            .args(["-u", user, "-P", PASSWORD, "-t", "r58/1/acme/box-1/down/cmd/1", "-m", version])
            .output()
            .expect("mosquitto-clients are installed");
        assert_eq!(sent.status.success(), expected, "{version} {user}: {}", String::from_utf8_lossy(&sent.stderr));
    }
    assert_eq!(device.payloads(2).await, ["311", "5"]);
}

/// Addresses that a process listens on, TCP of both families and UDP.
fn listening(pid: u32) -> Vec<String> {
    let mut sockets = Vec::new();
    for fd in std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().flatten() {
        let Ok(link) = std::fs::read_link(fd.path()) else { continue };
        let link = link.display().to_string();
        sockets.extend(link.strip_prefix("socket:[").and_then(|l| l.strip_suffix(']')).map(str::to_owned));
    }
    let mut found = Vec::new();
    for (table, state) in [("tcp", "0A"), ("tcp6", "0A"), ("udp", "07"), ("udp6", "07")] {
        let text = std::fs::read_to_string(format!("/proc/{pid}/net/{table}")).unwrap_or_default();
        for line in text.lines().skip(1) {
            let columns: Vec<&str> = line.split_whitespace().collect();
            if columns.get(3) == Some(&state) && columns.get(9).is_some_and(|inode| sockets.iter().any(|s| s == inode))
            {
                found.push(format!("{table} {}", columns[1]));
            }
        }
    }
    found
}

#[test]
fn a_broker_opens_exactly_one_port() {
    let dir = TempDir::new().unwrap();
    let child = ChildBroker::start(dir.path(), CHILD);
    assert_eq!(listening(child.child.id()), [format!("tcp 0100007F:{:04X}", child.addr.port())]);
}

/// Prints throughput, memory and start time. Run it with `--release -- --ignored --nocapture measure`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement"]
async fn measure() {
    let dir = TempDir::new().unwrap();
    let begun = Instant::now();
    EmbeddedBroker::start(embedded_settings(dir.path()), Arc::new(Everyone)).unwrap().stop();
    println!("start and stop of an empty broker: {:?}", begun.elapsed());
    let child = ChildBroker::start(dir.path(), CHILD);
    println!("resident, empty: {} KiB", resident_kib(child.child.id()));
    let url = format!("mqtt://{}", child.addr);
    for inflight in [1, 16, 64] {
        let mut settings = quick(&url, "$fleet", "reader");
        settings.receive_max = 64;
        let mut reader = Client::with(settings, &["r58/1/+/+/up/#"]).await;
        let mut settings = quick(&url, "acme", "box-1");
        settings.inflight = inflight;
        let device = Client::start(settings).await;
        let count = if inflight == 1 { 5_000 } else { 20_000 };
        let begun = Instant::now();
        let session = device.session.clone();
        let sender = tokio::spawn(async move {
            let mut receipts = Vec::with_capacity(count);
            for _ in 0..count {
                receipts
                    .push(session.publish(Outgoing::json("r58/1/acme/box-1/up/tm/x", vec![b'x'; 64])).await.unwrap());
            }
            for receipt in receipts {
                receipt.await.unwrap();
            }
        });
        for _ in 0..count {
            reader.message().await;
        }
        sender.await.unwrap();
        let rate = count as f64 / begun.elapsed().as_secs_f64();
        println!("QoS 1, 64 B, window {inflight}, one to one, end to end: {rate:.0} messages/s");
        reader.leave().await;
        device.leave().await;
    }
    let fleet = Client::start(quick(&url, "$fleet", "fleet")).await;
    Client::with(quick(&url, "acme", "away"), &["r58/1/acme/away/down/#"]).await.leave().await;
    let begun = Instant::now();
    let mut receipts = Vec::new();
    for n in 0..20_000 {
        let message = Outgoing::json(format!("r58/1/acme/dev-{n}/up/reported"), vec![b'x'; 1024]).retained(true);
        receipts.push(fleet.session.publish(message).await.unwrap());
    }
    for receipt in receipts {
        receipt.await.unwrap();
    }
    let rate = 20_000.0 / begun.elapsed().as_secs_f64();
    println!(
        "retained, 1 KiB, window 16: {rate:.0} messages/s; resident with 20,000: {} KiB",
        resident_kib(child.child.id())
    );
    fleet.say("r58/1/acme/away/down/cmd/x", "measured").await;
    until_on_disk(dir.path(), "measured");
    child.kill();
    let begun = Instant::now();
    let broker = EmbeddedBroker::start(embedded_settings(dir.path()), Arc::new(Everyone)).unwrap();
    println!("start with 20,000 retained messages after a kill: {:?}", begun.elapsed());
    broker.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_whose_broker_goes_finds_another_of_its_list() {
    let brokers = [Broker::embedded(false), Broker::embedded(false)];
    let watchers =
        [Client::with(brokers[0].fleet("watch"), &["r58/1/#"]), Client::with(brokers[1].fleet("watch"), &["r58/1/#"])];
    let [mut first, mut second]: [Client; 2] = futures_util::future::join_all(watchers).await.try_into().ok().unwrap();
    let mut settings = brokers[0].device("box-1");
    settings.url = format!("{}, {}", brokers[0].url(), brokers[1].url());
    let mut device = Client::with(settings, &[DOWN]).await;
    device.say("r58/1/acme/box-1/up/evt/here", "1").await;
    let here = tokio::select! {
        _ = first.message() => 0,
        _ = second.message() => 1,
    };
    let [one, two] = brokers;
    let (gone, left, mut watch) = if here == 0 { (one, two, second) } else { (two, one, first) };
    drop(gone);
    device.subscribed().await;
    device.say("r58/1/acme/box-1/up/evt/here", "2").await;
    assert_eq!(watch.payloads(1).await, ["2"]);
    drop(left);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pulled_cable_cuts_without_a_goodbye_and_nobody_gets_through_until_it_is_back() {
    let broker = Broker::embedded(false);
    let mut watch = Client::with(broker.fleet("watch"), &["r58/1/#"]).await;
    let (hand, cable) = Cable::plugged();
    let mut settings = broker.device("box-1");
    settings.cable = Some(cable);
    settings.will = Some(WillSource::fixed(Will {
        topic: "r58/1/acme/box-1/up/presence".into(),
        payload: Bytes::from_static(b"gone"),
        qos: Qos::AtLeastOnce,
        retain: false,
        delay: Duration::ZERO,
    }));
    let mut device = Client::with(settings, &[DOWN]).await;
    hand.pull();
    assert_eq!(watch.payloads(1).await, ["gone"], "the will, since there was no goodbye");
    assert!(matches!(device.event().await, SessionEvent::Disconnected { .. }));
    for _ in 0..2 {
        assert!(matches!(device.event().await, SessionEvent::Disconnected { .. }), "tried in vain");
    }
    hand.plug();
    device.subscribed().await;
    device.say("r58/1/acme/box-1/up/evt/back", "back").await;
    assert_eq!(watch.payloads(1).await, ["back"]);
}
