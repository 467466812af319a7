//! What retained messages may cost: the embedded broker's memory for each, and its refusal when there are too many.
#![allow(missing_docs, clippy::unwrap_used)]

mod support;

use bytes::Bytes;
use r58_mqtt::broker::BrokerLimits;
use r58_mqtt::session::{NotSent, Outgoing, Qos, Will, WillSource};
use std::time::Duration;
use support::{Broker, ChildBroker, Client, quick, set};
use tempfile::TempDir;

const CHILD: &str = "a_broker_for_another_process";

async fn keep(client: &Client, topic: &str, bytes: usize) -> Result<(), NotSent> {
    client.publish(Outgoing::json(topic, vec![b'x'; bytes]).retained(true)).await
}

fn quota() -> Result<(), NotSent> {
    Err(NotSent::Refused("QuotaExceeded".to_owned()))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_retained_message_too_many_is_refused_until_another_goes() {
    let mut broker = Broker::limited(BrokerLimits { max_retained: 2, ..BrokerLimits::default() });
    let mut fleet = Client::with(broker.fleet("fleet"), &["r58/1/acme/+/up/#"]).await;
    let device = Client::start(broker.device("box-1")).await;
    keep(&device, "r58/1/acme/box-1/up/caps", 10).await.unwrap();
    keep(&device, "r58/1/acme/box-1/up/reported", 10).await.unwrap();
    assert_eq!(keep(&device, "r58/1/acme/box-1/up/presence", 10).await, quota());
    // A known topic may always be said anew, what is not to be kept goes through, and the connection has lived on.
    keep(&device, "r58/1/acme/box-1/up/caps", 20).await.unwrap();
    device.say("r58/1/acme/box-1/up/evt/x", "end").await;
    assert_eq!(fleet.before_the_end().await.iter().map(String::len).collect::<Vec<_>>(), [10, 10, 20]);
    assert_eq!(device.disconnects, 0);
    // The bounds hold after a restart, and what goes makes room.
    fleet.leave().await;
    broker.restart().await;
    let again = Client::start(broker.device("box-2")).await;
    assert_eq!(keep(&again, "r58/1/acme/box-2/up/caps", 10).await, quota());
    let fleet = Client::start(broker.fleet("fleet-2")).await;
    fleet.retain("r58/1/acme/box-1/up/caps", "").await;
    keep(&again, "r58/1/acme/box-2/up/caps", 10).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn retained_bytes_are_bounded_too() {
    let broker = Broker::limited(BrokerLimits { max_retained_bytes: 10_000, ..BrokerLimits::default() });
    let device = Client::start(broker.device("box-1")).await;
    keep(&device, "r58/1/acme/box-1/up/reported", 6_000).await.unwrap();
    assert_eq!(keep(&device, "r58/1/acme/box-1/up/caps", 6_000).await, quota());
    assert_eq!(keep(&device, "r58/1/acme/box-1/up/reported", 12_000).await, quota());
    keep(&device, "r58/1/acme/box-1/up/reported", 5_000).await.unwrap();
    keep(&device, "r58/1/acme/box-1/up/caps", 3_000).await.unwrap();
    let mut fleet = Client::with(broker.fleet("fleet"), &["r58/1/acme/+/up/#"]).await;
    let lengths: Vec<usize> = set(fleet.payloads(2).await).iter().map(String::len).collect();
    assert_eq!(lengths, [3_000, 5_000]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_will_that_finds_no_room_is_delivered_and_not_kept() {
    let broker = Broker::limited(BrokerLimits { max_retained: 0, ..BrokerLimits::default() });
    let mut fleet = Client::with(broker.fleet("fleet"), &["r58/1/+/+/up/presence"]).await;
    let mut settings = broker.device("box-1");
    let topic = "r58/1/acme/box-1/up/presence".to_owned();
    let payload = Bytes::from_static(b"gone");
    let will = Will { topic, payload, qos: Qos::AtLeastOnce, retain: true, delay: Duration::ZERO };
    settings.will = Some(WillSource::fixed(will));
    Client::start(settings).await.vanish().await;
    assert_eq!(fleet.payloads(1).await, ["gone"]);
    let mut late = Client::with(broker.fleet("late"), &["r58/1/+/+/up/presence"]).await;
    fleet.say("r58/1/acme/box-1/up/presence", "end").await;
    assert_eq!(late.before_the_end().await, [""; 0]);
}

/// A message is refused to an old client too, which cannot be told why; nothing breaks by it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_broker_serves_old_clients_all_the_same() {
    let broker = Broker::limited(BrokerLimits { max_retained: 0, ..BrokerLimits::default() });
    let mut device = Client::with(broker.device("box-1"), &["r58/1/acme/box-1/down/#"]).await;
    for retain in [&["-r"][..], &[]] {
        let port = broker.addr.port().to_string();
        let mut tool = std::process::Command::new("mosquitto_pub");
        tool.args(["-h", "127.0.0.1", "-p", &port, "-V", "311", "-q", "1", "-u", "$fleet", "-P", support::PASSWORD]);
        tool.args(["-t", "r58/1/acme/box-1/down/cmd/1", "-m", if retain.is_empty() { "end" } else { "kept" }]);
        assert!(tool.args(retain).status().unwrap().success());
    }
    assert_eq!(device.before_the_end().await, [""; 0]);
}

/// The child process of the measurement; does nothing by itself.
#[test]
#[ignore = "started by other tests"]
fn a_broker_for_another_process() {
    support::be_a_broker();
}

/// Prints the resident memory for each retained message of 200 bytes, with one of them on each device and with all of
/// them on one: the first ones, which fill the store's cache as well, and those after them. Run it with
/// `--test retained -- --ignored --nocapture measure`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement"]
async fn measure() {
    const COUNT: u64 = 20_000;
    type TopicOf = fn(u64) -> String;
    let topics: [(&str, TopicOf); 2] = [
        ("one on each device", |n| format!("r58/1/acme/dev-{n}/up/reported")),
        ("all on one device", |n| format!("r58/1/acme/box-2/down/cmd/{n}")),
    ];
    for (name, topic) in topics {
        let dir = TempDir::new().unwrap();
        let child = ChildBroker::start(dir.path(), CHILD);
        let fleet = Client::start(quick(&format!("mqtt://{}", child.addr), "$fleet", "fleet")).await;
        let resident = || support::resident_kib(child.child.id());
        let (mut first, mut before) = (0, resident());
        for count in [COUNT, 3 * COUNT] {
            let mut receipts = Vec::new();
            for n in first..first + count {
                let message = Outgoing::json(topic(n), vec![b'x'; 200]).retained(true);
                receipts.push(fleet.session.publish(message).await.unwrap());
            }
            for receipt in receipts {
                receipt.await.unwrap();
            }
            let after = resident();
            let each = (after - before) * 1024 / count;
            println!("{name}, {count} after {first}: {each} bytes each ({before} KiB, then {after} KiB)");
            (first, before) = (first + count, after);
        }
    }
}
