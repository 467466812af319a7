//! A broker that misbehaves, byte by byte: the session says what is wrong, waits longer each time, and never loops.
#![allow(missing_docs, clippy::unwrap_used)]

mod support;

use std::time::{Duration, Instant};

use r58_mqtt::session::{DisconnectReason, Qos, RetainHandling, SessionEvent, Subscription};
use support::{Client, LIMIT, quick};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

const CONNACK: &[u8] = &[0x20, 3, 0, 0, 0];
const CONNACK_PRESENT: &[u8] = &[0x20, 3, 1, 0, 0];

/// One packet: its first byte and its body.
async fn read_packet(stream: &mut TcpStream) -> Option<(u8, Vec<u8>)> {
    let first = stream.read_u8().await.ok()?;
    let (mut length, mut shift) = (0usize, 0);
    loop {
        let byte = stream.read_u8().await.ok()?;
        length |= usize::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            break;
        }
        shift += 7;
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await.ok()?;
    Some((first, body))
}

/// A QoS 1 PUBLISH on topic `t`.
fn publish(pkid: u16, payload: &[u8]) -> Vec<u8> {
    let mut length = 2 + 1 + 2 + 1 + payload.len();
    let mut packet = vec![0x32];
    loop {
        let more = length >= 128;
        packet.push((length % 128) as u8 | if more { 0x80 } else { 0 });
        length /= 128;
        if !more {
            break;
        }
    }
    packet.extend([0, 1, b't']);
    packet.extend(pkid.to_be_bytes());
    packet.push(0);
    packet.extend(payload);
    packet
}

async fn listen() -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("mqtt://{}", listener.local_addr().unwrap());
    (listener, url)
}

/// A broker that answers each CONNECT with these bytes.
async fn answer_with(bytes: &'static [u8]) -> Client {
    let (listener, url) = listen().await;
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            tokio::spawn(async move {
                read_packet(&mut stream).await;
                let _ = stream.write_all(bytes).await;
                while read_packet(&mut stream).await.is_some() {}
            });
        }
    });
    let mut settings = quick(&url, "acme", "box-1");
    settings.connect_timeout = Duration::from_secs(1);
    Client::new(r58_mqtt::session::Session::start(settings).unwrap())
}

async fn reasons(client: &mut Client, count: usize) -> Vec<DisconnectReason> {
    let mut reasons = Vec::new();
    while reasons.len() < count {
        if let SessionEvent::Disconnected { reason, .. } = client.event().await {
            reasons.push(reason);
        }
    }
    reasons
}

#[tokio::test]
async fn garbage_after_the_connack_is_a_protocol_error_with_pauses() {
    for garbage in [
        &[0x20, 3, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0xff][..],
        // PUBLISH whose topic is longer than the packet.
        &[0x20, 3, 0, 0, 0, 0x30, 3, 0xff, 0xff, b'x'],
        // PUBLISH of QoS 3, a packet of type 0, PUBACK for nothing.
        &[0x20, 3, 0, 0, 0, 0x36, 5, 0, 1, b't', 0, 1],
        &[0x20, 3, 0, 0, 0, 0x00, 0],
        &[0x20, 3, 0, 0, 0, 0x40, 2, 0, 9],
        // An unknown property.
        &[0x20, 3, 0, 0, 0, 0x30, 6, 0, 1, b't', 2, 0x7e, 0],
    ] {
        let mut client = answer_with(garbage).await;
        let begun = Instant::now();
        for reason in reasons(&mut client, 4).await {
            assert!(matches!(reason, DisconnectReason::Protocol(_)), "{garbage:?}: {reason:?}");
        }
        assert!(begun.elapsed() >= Duration::from_millis(30), "{garbage:?}");
    }
}

#[tokio::test]
async fn garbage_instead_of_a_connack_is_an_error_too() {
    for garbage in [&b"HTTP/1.1 400 Bad Request\r\n\r\n"[..], &[0xd0, 0], &[0x20, 0x7f, 0]] {
        let mut client = answer_with(garbage).await;
        reasons(&mut client, 2).await;
    }
}

#[tokio::test]
async fn a_broker_that_says_nothing_times_out() {
    let mut client = answer_with(&[]).await;
    assert_eq!(reasons(&mut client, 1).await, [DisconnectReason::Network("connect timed out".into())]);
}

#[tokio::test]
async fn an_oversized_message_forced_upon_the_client_is_acknowledged_and_discarded() {
    let (listener, url) = listen().await;
    // Ignores Maximum Packet Size, and sends its message again until it is acknowledged.
    let broker = tokio::spawn(async move {
        for connection in 1.. {
            let (mut stream, _) = listener.accept().await.unwrap();
            read_packet(&mut stream).await;
            stream.write_all(CONNACK_PRESENT).await.unwrap();
            let _ = stream.write_all(&publish(7, &vec![b'x'; 100_000])).await;
            let _ = stream.write_all(&publish(8, b"end")).await;
            while let Some((first, body)) = read_packet(&mut stream).await {
                if first == 0x40 && body[..2] == [0, 7] {
                    return connection;
                }
            }
        }
        unreachable!()
    });
    let mut settings = quick(&url, "acme", "box-1");
    settings.max_packet = 2048;
    let mut client = Client::new(r58_mqtt::session::Session::start(settings).unwrap());
    let mut discarded = None;
    loop {
        match client.event().await {
            SessionEvent::Discarded { topic, size } => discarded = Some((topic, size)),
            SessionEvent::Message(message) => {
                assert_eq!(&message.payload[..], b"end");
                break;
            }
            _ => {}
        }
    }
    assert_eq!(discarded, Some(("t".to_owned(), 100_000)));
    assert_eq!(tokio::time::timeout(LIMIT, broker).await.unwrap().unwrap(), 2, "at the second connection");
}

#[tokio::test]
async fn a_session_that_cannot_be_read_is_started_clean() {
    let (listener, url) = listen().await;
    let broker = tokio::spawn(async move {
        for connection in 1.. {
            let (mut stream, _) = listener.accept().await.unwrap();
            let (_, connect) = read_packet(&mut stream).await.unwrap();
            // Flags of CONNECT: bit 1 is Clean Start.
            if connect[7] & 2 != 0 {
                stream.write_all(CONNACK).await.unwrap();
                return (connection, stream);
            }
            stream.write_all(CONNACK_PRESENT).await.unwrap();
            let _ = stream.write_all(&[0x36, 5, 0, 1, b't', 0, 1]).await;
            while read_packet(&mut stream).await.is_some() {}
        }
        unreachable!()
    });
    let mut client = Client::new(r58_mqtt::session::Session::start(quick(&url, "acme", "box-1")).unwrap());
    let (connection, _stream) = tokio::time::timeout(LIMIT, broker).await.unwrap().unwrap();
    assert_eq!(connection, 4, "after three that failed");
    reasons(&mut client, 3).await;
    client.subscribed().await;
}

#[tokio::test]
async fn a_flood_for_a_stuck_reader_costs_neither_memory_nor_the_connection() {
    let broker = support::Broker::embedded(false);
    let mut settings = broker.device("box-1");
    settings.event_capacity = 16;
    settings.keep_alive = Duration::from_secs(5);
    settings.subscriptions = vec![Subscription {
        filter: "r58/1/acme/box-1/down/#".into(),
        qos: Qos::AtMostOnce,
        retain_handling: RetainHandling::Never,
    }];
    let mut device = Client::start(settings).await;
    let fleet = Client::start(broker.fleet("fleet")).await;
    for _ in 0..3000 {
        fleet.say("r58/1/acme/box-1/down/cmd/x", &"x".repeat(1000)).await;
    }
    // As long as the broker keeps a client with the same keep-alive that says nothing at all.
    let addr = broker.addr;
    tokio::task::spawn_blocking(move || support::closed_for_silence(addr, 5)).await.unwrap();
    let dropped = device.session.dropped();
    assert!(dropped > 1000, "{dropped}");
    fleet.say("r58/1/acme/box-1/down/cmd/x", "end").await;
    assert!(device.before_the_end().await.len() < 3000 - 1000);
    assert_eq!(device.disconnects, 0);
}
