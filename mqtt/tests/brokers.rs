//! The same tests against the embedded broker and a real mosquitto: what the protocol relies on holds on both.
#![allow(missing_docs, clippy::unwrap_used)]

mod support;

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use bytes::Bytes;
use r58_mqtt::session::{
    DisconnectReason, NotSent, Outgoing, Properties, Qos, RetainHandling, Session, SessionEvent, Subscription, Will,
    WillSource,
};
use support::{Broker, Client, LIMIT, at_most_once, set};

macro_rules! on_each_broker {
    ($($test:ident),+ $(,)?) => {
        mod on_the_embedded_broker {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $test() {
                super::$test(super::Broker::embedded(false)).await;
            })+
        }
        mod on_mosquitto {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $test() {
                super::$test(super::Broker::mosquitto(false)).await;
            })+
        }
    };
}

on_each_broker!(
    five_thousand_retained_topics_arrive_by_one_wildcard,
    an_empty_message_without_the_retain_flag_keeps_the_retained_one,
    a_retained_message_is_replaced_and_cleared,
    a_retained_message_carries_the_time_it_has_left,
    one_share_group_loses_and_doubles_nothing,
    two_share_groups_get_everything_each,
    messages_wait_for_a_client_that_is_away,
    a_session_is_forgotten_after_its_expiry,
    a_will_comes_after_its_delay,
    a_will_is_cancelled_by_a_clean_goodbye,
    a_will_is_cancelled_by_coming_back_in_time,
    a_goodbye_publishes_its_last_message_first,
    a_device_reaches_no_topics_but_its_own,
    wrong_credentials_are_named_and_asked_again_slowly,
    an_oversized_message_does_not_loop_the_client,
    a_message_too_large_to_send_is_refused_at_once,
    an_unacknowledged_message_comes_again_after_a_reconnect,
    a_reconnect_brings_no_retained_message_twice,
    a_slow_reader_loses_no_acknowledged_delivery,
    properties_travel_with_a_message,
    tracked_publishes_are_reported_in_the_events,
    a_publish_while_the_broker_is_away_is_not_sent,
);

const DOWN: &str = "r58/1/acme/box-1/down/#";

async fn five_thousand_retained_topics_arrive_by_one_wildcard(broker: Broker) {
    let mut settings = broker.fleet("publisher");
    settings.inflight = 64;
    let publisher = Client::start(settings).await;
    let mut receipts = Vec::new();
    for n in 0..5000 {
        let topic = format!("r58/1/acme/box-1/down/cmd/{n}");
        receipts.push(publisher.session.publish(Outgoing::json(topic, n.to_string()).retained(true)).await.unwrap());
    }
    for receipt in receipts {
        tokio::time::timeout(LIMIT, receipt).await.unwrap().unwrap();
    }
    let mut device = Client::with(broker.device("box-1"), &[DOWN]).await;
    assert_eq!(set(device.payloads(5000).await).len(), 5000);
    let mut settings = broker.fleet("reader");
    settings.subscriptions = vec![at_most_once("r58/1/+/+/down/#", RetainHandling::AtSubscribe)];
    let mut reader = Client::start(settings).await;
    assert_eq!(set(reader.payloads(5000).await).len(), 5000);
}

async fn an_empty_message_without_the_retain_flag_keeps_the_retained_one(broker: Broker) {
    let fleet = Client::start(broker.fleet("fleet")).await;
    fleet.retain("r58/1/acme/box-1/down/desired", "kept").await;
    fleet.say("r58/1/acme/box-1/down/desired", "").await;
    let mut device = Client::with(broker.device("box-1"), &[DOWN]).await;
    assert_eq!(device.payloads(1).await, ["kept"]);
}

async fn a_retained_message_is_replaced_and_cleared(broker: Broker) {
    let fleet = Client::start(broker.fleet("fleet")).await;
    for payload in ["old", "new"] {
        fleet.retain("r58/1/acme/box-1/down/cmd/1", payload).await;
    }
    fleet.retain("r58/1/acme/box-1/down/cmd/2", "withdrawn").await;
    fleet.retain("r58/1/acme/box-1/down/cmd/2", "").await;
    let mut device = Client::with(broker.device("box-1"), &[DOWN]).await;
    let message = device.message().await;
    assert_eq!((&message.payload[..], message.retain), (&b"new"[..], true));
    fleet.say("r58/1/acme/box-1/down/sync", "end").await;
    assert!(device.before_the_end().await.is_empty());
}

async fn a_retained_message_carries_the_time_it_has_left(broker: Broker) {
    let fleet = Client::start(broker.fleet("fleet")).await;
    let mut message = Outgoing::json("r58/1/acme/box-1/down/cmd/1", "x").retained(true);
    message.properties.expiry = Some(Duration::from_secs(100));
    fleet.publish(message).await.unwrap();
    let begun = Instant::now();
    loop {
        let mut settings = broker.fleet("reader");
        settings.session_expiry = Duration::ZERO;
        let mut reader = Client::with(settings, &["r58/1/acme/#"]).await;
        let left = reader.message().await.properties.expiry.expect("an expiry");
        reader.leave().await;
        if left < Duration::from_secs(100) {
            assert!(left > Duration::from_secs(80));
            return;
        }
        assert!(begun.elapsed() < LIMIT, "the expiry does not count down");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// Publishes 200 messages from a device, then waits until each group has seen all of them.
async fn share(broker: &Broker, groups: &[&str]) {
    let mut members = Vec::new();
    for group in groups {
        for n in 0..2 {
            let filters =
                [format!("$share/{group}/r58/1/+/+/up/tm/#"), format!("$share/{group}-evt/r58/1/+/+/up/evt/#")];
            let filters: Vec<&str> = filters.iter().map(String::as_str).collect();
            members.push((*group, Client::with(broker.fleet(&format!("{group}-{n}")), &filters).await));
        }
    }
    let device = Client::start(broker.device("box-1")).await;
    for n in 0..200 {
        let kind = if n % 2 == 0 { "tm" } else { "evt" };
        device.say(&format!("r58/1/acme/box-1/up/{kind}/x"), &n.to_string()).await;
    }
    let mut seen = vec![Vec::new(); groups.len()];
    let begun = Instant::now();
    while seen.iter().any(|s| s.len() < 200) {
        assert!(begun.elapsed() < LIMIT, "lost: {:?}", seen.iter().map(Vec::len).collect::<Vec<_>>());
        for (group, member) in &mut members {
            while let Ok(event) = member.events.try_recv() {
                if let SessionEvent::Message(message) = event {
                    member.session.ack(message.ack.unwrap());
                    let index = groups.iter().position(|g| g == group).unwrap();
                    seen[index].push(String::from_utf8(message.payload.to_vec()).unwrap());
                }
            }
        }
        tokio::task::yield_now().await;
    }
    for group in seen {
        assert_eq!(group.len(), 200);
        assert_eq!(set(group).len(), 200, "each once");
    }
}

async fn one_share_group_loses_and_doubles_nothing(broker: Broker) {
    share(&broker, &["ingest"]).await;
}

async fn two_share_groups_get_everything_each(broker: Broker) {
    share(&broker, &["ingest", "audit"]).await;
}

async fn messages_wait_for_a_client_that_is_away(broker: Broker) {
    Client::with(broker.device("box-1"), &[DOWN]).await.leave().await;
    let fleet = Client::start(broker.fleet("fleet")).await;
    for n in 0..5 {
        fleet.say("r58/1/acme/box-1/down/cmd/x", &n.to_string()).await;
    }
    let mut device = Client::with(broker.device("box-1"), &[DOWN]).await;
    assert!(device.session_present);
    assert_eq!(device.payloads(5).await, ["0", "1", "2", "3", "4"]);
}

async fn a_session_is_forgotten_after_its_expiry(broker: Broker) {
    let mut fleet = Client::with(broker.fleet("fleet"), &["r58/1/+/+/up/presence"]).await;
    let mut settings = broker.device("box-1");
    settings.session_expiry = Duration::from_secs(1);
    // Looking at a session would renew it. Its will is published when it ends, if not before (MQTT 5, 3.1.3.2.2).
    settings.will = Some(presence(3600));
    Client::with(settings.clone(), &[DOWN]).await.vanish().await;
    fleet.say("r58/1/acme/box-1/down/sync", "too late").await;
    fleet.message().await;
    settings.will = None;
    let mut device = Client::with(settings, &[DOWN]).await;
    assert!(!device.session_present);
    fleet.say("r58/1/acme/box-1/down/sync", "end").await;
    assert!(device.before_the_end().await.is_empty());
}

fn presence(delay: u64) -> WillSource {
    WillSource::per_connection(move |conn_seq| Will {
        topic: "r58/1/acme/box-1/up/presence".into(),
        payload: Bytes::from(format!("offline {conn_seq}")),
        qos: Qos::AtLeastOnce,
        retain: true,
        delay: Duration::from_secs(delay),
    })
}

async fn a_will_comes_after_its_delay(broker: Broker) {
    let mut fleet = Client::with(broker.fleet("fleet"), &["r58/1/+/+/up/presence"]).await;
    let mut settings = broker.device("box-1");
    settings.will = Some(presence(1));
    let device = Client::start(settings).await;
    device.vanish().await;
    let begun = Instant::now();
    assert_eq!(fleet.payloads(1).await, ["offline 1"]);
    assert!(begun.elapsed() >= Duration::from_millis(600), "after {:?}", begun.elapsed());
}

async fn a_will_is_cancelled_by_a_clean_goodbye(broker: Broker) {
    let mut fleet = Client::with(broker.fleet("fleet"), &["r58/1/+/+/up/presence"]).await;
    let mut settings = broker.device("box-1");
    settings.will = Some(presence(0));
    Client::start(settings).await.leave().await;
    let other = Client::start(broker.device("box-2")).await;
    other.say("r58/1/acme/box-2/up/presence", "end").await;
    assert!(fleet.before_the_end().await.is_empty());
}

async fn a_will_is_cancelled_by_coming_back_in_time(broker: Broker) {
    let mut fleet = Client::with(broker.fleet("fleet"), &["r58/1/+/+/up/presence"]).await;
    let mut settings = broker.device("box-1");
    settings.will = Some(presence(1));
    Client::start(settings.clone()).await.vanish().await;
    let back = Client::start(settings).await;
    // A second box that goes later with the same delay: when its will is here, the first one's would have been.
    let mut settings = broker.device("box-2");
    settings.will = Some(WillSource::fixed(Will {
        topic: "r58/1/acme/box-2/up/presence".into(),
        payload: Bytes::from_static(b"box-2 is gone"),
        qos: Qos::AtLeastOnce,
        retain: false,
        delay: Duration::from_secs(1),
    }));
    Client::start(settings).await.vanish().await;
    assert_eq!(fleet.payloads(1).await, ["box-2 is gone"]);
    back.say("r58/1/acme/box-1/up/presence", "end").await;
    assert!(fleet.before_the_end().await.is_empty());
    back.leave().await;
}

async fn a_goodbye_publishes_its_last_message_first(broker: Broker) {
    let mut settings = broker.device("box-1");
    settings.will = Some(presence(0));
    let device = Client::start(settings).await;
    let last = Outgoing::json("r58/1/acme/box-1/up/presence", "offline, in order").retained(true);
    assert!(device.session.close(Some(last), LIMIT).await);
    assert_eq!(
        device.session.publish(Outgoing::json("r58/1/acme/box-1/up/hb", "")).await.unwrap_err(),
        NotSent::Closed
    );
    let mut fleet = Client::with(broker.fleet("fleet"), &["r58/1/+/+/up/presence"]).await;
    assert_eq!(fleet.payloads(1).await, ["offline, in order"]);
}

async fn a_device_reaches_no_topics_but_its_own(broker: Broker) {
    let foreign = [
        "r58/1/acme/box-2/down/#",
        "r58/1/other/box-1/down/#",
        "r58/1/+/+/down/#",
        "r58/1/acme/+/up/#",
        "r58/1/other/_g/+/down/#",
        "#",
        "$SYS/#",
        "$share/g/r58/1/acme/box-2/down/#",
    ];
    let mut settings = broker.device("box-1");
    settings.subscriptions =
        foreign.iter().chain(&[DOWN, "r58/1/acme/_g/+/down/#"]).map(|f| Subscription::new(*f)).collect();
    let mut device = Client::new(Session::start(settings).unwrap());
    let grants = loop {
        if let SessionEvent::Subscribed { grants } = device.event().await {
            break grants;
        }
    };
    if broker.is_embedded() {
        let granted: Vec<&str> = grants.iter().filter(|g| g.granted.is_ok()).map(|g| g.filter.as_str()).collect();
        assert_eq!(granted, [DOWN, "r58/1/acme/_g/+/down/#"]);
    }
    let fleet = Client::start(broker.fleet("fleet")).await;
    for topic in ["r58/1/acme/box-2/down/cmd/1", "r58/1/other/box-1/down/cmd/1", "r58/1/other/_g/all/down/cmd/1"] {
        fleet.say(topic, "foreign").await;
    }
    fleet.say("r58/1/acme/_g/all/down/cmd/1", "group").await;
    fleet.say("r58/1/acme/box-1/down/cmd/1", "end").await;
    // Its own filters overlap on no topic, but "#" and "+" do on a broker that grants them; each may bring a copy.
    assert_eq!(set(device.before_the_end().await), BTreeSet::from(["group".to_owned()]));

    let mut watch = Client::with(broker.fleet("watch"), &["r58/1/#"]).await;
    for topic in ["r58/1/acme/box-2/up/hb", "r58/1/acme/box-1/down/cmd/9", "r58/1/other/box-1/up/hb", "elsewhere"] {
        let refused = device.publish(Outgoing::json(topic, "forged")).await;
        assert!(matches!(refused, Err(NotSent::Refused(_))), "{topic}: {refused:?}");
        assert!(!refused.unwrap_err().is_retryable());
    }
    device.say("r58/1/acme/box-1/up/hb", "end").await;
    assert!(watch.before_the_end().await.is_empty());
    assert_eq!(device.disconnects, 0);
}

async fn wrong_credentials_are_named_and_asked_again_slowly(broker: Broker) {
    let mut settings = broker.device("box-1");
    settings.password = "guess".into();
    let (_session, mut events) = Session::start(settings).unwrap();
    let begun = Instant::now();
    for _ in 0..2 {
        match tokio::time::timeout(LIMIT, events.recv()).await.unwrap().unwrap() {
            SessionEvent::Disconnected { reason: DisconnectReason::Refused(_), retry_in } => {
                assert!(retry_in >= Duration::from_millis(300), "{retry_in:?}");
            }
            other => panic!("{other:?}"),
        }
    }
    assert!(begun.elapsed() >= Duration::from_millis(300));
}

async fn an_oversized_message_does_not_loop_the_client(broker: Broker) {
    let mut settings = broker.device("box-1");
    settings.max_packet = 2048;
    let device = Client::with(settings.clone(), &[DOWN]).await;
    let fleet = Client::start(broker.fleet("fleet")).await;
    let big = "x".repeat(50_000);
    fleet.retain("r58/1/acme/box-1/down/desired", &big).await;
    fleet.say("r58/1/acme/box-1/down/cmd/1", &big).await;
    fleet.say("r58/1/acme/box-1/down/cmd/2", "end").await;
    let mut device = device;
    assert!(device.before_the_end().await.is_empty());
    // And again from a queue, with the retained one in the way.
    device.leave().await;
    fleet.say("r58/1/acme/box-1/down/cmd/1", &big).await;
    fleet.say("r58/1/acme/box-1/down/cmd/2", "end").await;
    let mut device = Client::with(settings, &[DOWN]).await;
    assert!(device.before_the_end().await.is_empty());
    fleet.say("r58/1/acme/box-1/down/cmd/3", "end").await;
    assert!(device.before_the_end().await.is_empty());
    assert!(device.disconnects <= 4, "{} reconnects", device.disconnects);
}

async fn a_message_too_large_to_send_is_refused_at_once(broker: Broker) {
    let device = Client::start(broker.device("box-1")).await;
    let big = Outgoing::json("r58/1/acme/box-1/up/evt/x", vec![0u8; 300_000]);
    let refused = device.publish(big).await.unwrap_err();
    assert!(matches!(refused, NotSent::TooLarge { limit: 262_144, .. }), "{refused:?}");
    device.say("r58/1/acme/box-1/up/evt/x", "still connected").await;
}

async fn an_unacknowledged_message_comes_again_after_a_reconnect(broker: Broker) {
    let mut device = Client::with(broker.device("box-1"), &[DOWN]).await;
    let fleet = Client::start(broker.fleet("fleet")).await;
    for n in 0..3 {
        fleet.say("r58/1/acme/box-1/down/cmd/x", &n.to_string()).await;
    }
    assert_eq!(device.payloads(1).await, ["0"]);
    let stale = device.unacked().await.ack.unwrap();
    device.unacked().await;
    device.settled().await.leave().await;
    let mut device = Client::with(broker.device("box-1"), &[DOWN]).await;
    assert!(device.session_present);
    // A token of the old connection acknowledges nothing.
    device.session.ack(stale);
    assert_eq!(device.payloads(2).await, ["1", "2"]);
    device.settled().await.leave().await;
    let mut device = Client::with(broker.device("box-1"), &[DOWN]).await;
    fleet.say("r58/1/acme/box-1/down/sync", "end").await;
    assert!(device.before_the_end().await.is_empty());
}

async fn a_reconnect_brings_no_retained_message_twice(broker: Broker) {
    let fleet = Client::start(broker.fleet("fleet")).await;
    fleet.retain("r58/1/acme/box-1/down/cmd/1", "once").await;
    let mut device = Client::with(broker.device("box-1"), &[DOWN]).await;
    assert_eq!(device.payloads(1).await, ["once"]);
    device.settled().await.vanish().await;
    fleet.retain("r58/1/acme/box-1/down/cmd/2", "queued").await;
    let mut device = Client::with(broker.device("box-1"), &[DOWN]).await;
    assert!(device.session_present);
    assert_eq!(device.payloads(1).await, ["queued"]);
    fleet.say("r58/1/acme/box-1/down/sync", "end").await;
    assert!(device.before_the_end().await.is_empty());
}

async fn a_slow_reader_loses_no_acknowledged_delivery(broker: Broker) {
    let mut settings = broker.device("box-1");
    settings.event_capacity = 4;
    let mut device = Client::with(settings, &[DOWN]).await;
    let fleet = Client::start(broker.fleet("fleet")).await;
    for n in 0..500 {
        fleet.say("r58/1/acme/box-1/down/cmd/x", &n.to_string()).await;
    }
    // It publishes while nothing of its own is read: outcomes must come nevertheless.
    for _ in 0..50 {
        device.say("r58/1/acme/box-1/up/evt/x", "").await;
    }
    let expected: Vec<String> = (0..500).map(|n| n.to_string()).collect();
    assert_eq!(device.payloads(500).await, expected);
    assert_eq!((device.disconnects, device.session.dropped()), (0, 0));
}

async fn properties_travel_with_a_message(broker: Broker) {
    let mut device = Client::with(broker.device("box-1"), &[DOWN]).await;
    let fleet = Client::start(broker.fleet("fleet")).await;
    let properties = Properties {
        content_type: Some("application/json".into()),
        expiry: Some(Duration::from_secs(3600)),
        user: vec![("schema".into(), "1".into()), ("seq".into(), "7".into())],
        response_topic: Some("r58/1/acme/box-1/up/cmd/1".into()),
        correlation: Some(Bytes::from_static(b"01J")),
    };
    let mut message = Outgoing::json("r58/1/acme/box-1/down/cmd/1", "{}");
    message.properties = properties.clone();
    fleet.publish(message).await.unwrap();
    let mut received = device.message().await.properties;
    // A broker may have counted a second of it.
    let left = received.expiry.take().unwrap();
    assert!(left <= Duration::from_secs(3600) && left > Duration::from_secs(3590), "{left:?}");
    assert_eq!(received, Properties { expiry: None, ..properties });
}

async fn tracked_publishes_are_reported_in_the_events(broker: Broker) {
    let mut device = Client::start(broker.device("box-1")).await;
    for token in 0..40 {
        device.session.publish_tracked(token, Outgoing::json("r58/1/acme/box-1/up/tm/x", "{}")).await.unwrap();
    }
    device.session.publish_tracked(99, Outgoing::json("r58/1/acme/+/up/tm/x", "{}")).await.unwrap();
    let mut acked = BTreeSet::new();
    let mut failed = Vec::new();
    while acked.len() < 40 || failed.is_empty() {
        match device.event().await {
            SessionEvent::PublishAcked { token } => assert!(acked.insert(token)),
            SessionEvent::PublishFailed { token, reason } => failed.push((token, reason)),
            _ => {}
        }
    }
    assert_eq!(acked, (0..40).collect());
    assert_eq!(failed, [(99, NotSent::InvalidTopic)]);
}

async fn a_publish_while_the_broker_is_away_is_not_sent(broker: Broker) {
    let mut device = Client::start(broker.device("box-1")).await;
    tokio::task::spawn_blocking(move || drop(broker)).await.unwrap();
    while device.disconnects == 0 {
        device.event().await;
    }
    let outcome = device.publish(Outgoing::json("r58/1/acme/box-1/up/hb", "")).await.unwrap_err();
    assert!(outcome.is_retryable(), "{outcome:?}");
}

mod over_tls {
    use super::*;

    async fn a_client_that_knows_the_certificate_talks(broker: Broker) {
        let mut device = Client::with(broker.device("box-1"), &[DOWN]).await;
        let fleet = Client::start(broker.fleet("fleet")).await;
        fleet.say("r58/1/acme/box-1/down/cmd/1", "over tls").await;
        assert_eq!(device.payloads(1).await, ["over tls"]);

        let mut stranger = broker.device("box-2");
        stranger.ca = None;
        let (_session, mut events) = Session::start(stranger).unwrap();
        match tokio::time::timeout(LIMIT, events.recv()).await.unwrap().unwrap() {
            SessionEvent::Disconnected { reason: DisconnectReason::Network(_), .. } => {}
            other => panic!("{other:?}"),
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_client_that_knows_the_certificate_talks_to_the_embedded_broker() {
        a_client_that_knows_the_certificate_talks(Broker::embedded(true)).await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_client_that_knows_the_certificate_talks_to_mosquitto() {
        a_client_that_knows_the_certificate_talks(Broker::mosquitto(true)).await;
    }
}
