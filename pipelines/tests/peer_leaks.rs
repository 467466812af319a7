//! Peers that end leave nothing behind: sockets, threads, tasks. The only test of its process, because it counts them all.

#![allow(clippy::unwrap_used, reason = "a test fails where it unwraps")]

#[path = "rtc_support/passing.rs"]
mod passing;
mod rtc_support;

use std::sync::Arc;
use std::time::Instant;

use passing::{Nowhere, guest_comes_and_goes};
use r58_pipelines::RtpFanout;
use r58_pipelines::peer::{PeerEvent, PeerFactory, PeerSettings, UdpPorts};
use rtc_support::*;

/// The factory's ports; the clients use the system's ephemeral ones.
const PORTS: (u16, u16) = (20_000, 24_999);

/// Open UDP sockets on the factory's ports, in the whole machine: nobody else takes these.
fn sockets() -> usize {
    let open = |file: &str| {
        let table = std::fs::read_to_string(file).unwrap_or_default();
        let ports = table.lines().skip(1).filter_map(|line| {
            let local = line.split_whitespace().nth(1)?;
            u16::from_str_radix(local.rsplit(':').next()?, 16).ok()
        });
        ports.filter(|port| (PORTS.0..=PORTS.1).contains(port)).count()
    };
    open("/proc/self/net/udp") + open("/proc/self/net/udp6")
}

/// Threads of this process, less those that last ran the client's own source: GLib keeps a pool's idle threads under the
/// name of their last task. What the factory or a guest's pipeline leaves running has another name.
fn threads() -> usize {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap().flatten();
    let names = tasks.filter_map(|task| std::fs::read_to_string(task.path().join("comm")).ok());
    names.filter(|name| !name.starts_with("audiotestsrc")).count()
}

async fn settle(what: &str, limit: usize, now: impl Fn() -> usize) {
    let begun = Instant::now();
    while now() > limit {
        assert!(begun.elapsed() < PATIENCE, "{} {what}, at most {limit} expected", now());
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
}

async fn viewer_comes_and_goes(factory: &PeerFactory, fanout: &RtpFanout) {
    let client = Client::open(&[OPUS], &[], false).await;
    client.receive(&[OPUS]).await;
    let offer = client.offer().await;
    let (on_event, mut queue) = events();
    let (peer, answer) = factory.viewer(&offer, &[], fanout.clone(), on_event).await.unwrap();
    client.accept(answer).await;
    wait_event(&mut queue, |e| matches!(e, PeerEvent::Connected { .. })).await;
    client.close().await;
    peer.close().await;
}

/// A client that posts and is never heard of again.
async fn stranger_posts(factory: &PeerFactory) {
    let client = Client::open(&[OPUS], &[], false).await;
    client.send(&[OPUS]).await;
    let offer = client.offer().await;
    client.close().await;
    let (on_event, _queue) = events();
    let (peer, _answer) = factory.publisher(&offer, &[], Arc::new(Nowhere), on_event).await.unwrap();
    drop(peer);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fifty_joins_leave_no_socket_no_thread_and_no_task() {
    let ports = UdpPorts::Range(PORTS.0, PORTS.1);
    let factory = PeerFactory::new(PeerSettings { loopback: true, ports, ..PeerSettings::default() }).unwrap();
    let fanout = RtpFanout::new();
    for _ in 0..3 {
        guest_comes_and_goes(&factory).await;
        viewer_comes_and_goes(&factory, &fanout).await;
        stranger_posts(&factory).await;
    }
    // What starts once in a process is there now; what is still ending gets the time to.
    let mut base = (sockets(), threads(), factory.tasks());
    let begun = Instant::now();
    while begun.elapsed() < std::time::Duration::from_secs(1) {
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        base = (base.0.min(sockets()), base.1.min(threads()), base.2.min(factory.tasks()));
    }
    let begun = Instant::now();
    for _ in 0..25 {
        guest_comes_and_goes(&factory).await;
        viewer_comes_and_goes(&factory, &fanout).await;
    }
    println!(
        "50 joins in {:?}; before: sockets, threads, tasks = {base:?}, now {:?}",
        begun.elapsed(),
        (sockets(), threads(), factory.tasks())
    );
    for _ in 0..10 {
        stranger_posts(&factory).await;
    }
    settle("sockets", base.0, sockets).await;
    // GLib keeps up to eight idle threads in its pool.
    settle("threads", base.1 + 8, threads).await;
    settle("tasks", base.2, || factory.tasks()).await;
    println!("after: {:?}", (sockets(), threads(), factory.tasks()));
}
