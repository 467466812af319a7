//! Guests come and go, in order or not, and what strangers ask for all at once is bounded: nothing of it stays, and the programme
//! misses no frame.

use std::net::UdpSocket;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use reqwest::{Client, StatusCode};
use serde_json::Value;

use super::support::r58::{Home, PATIENCE, R58};
use super::support::sdp::offer;
use super::support::voice::Voice;
use super::support::{stage_alone, until};

/// As many as a box may have.
const SEATS: usize = 8;
const TOKEN: &str = "the-token-of-these-tests";
/// GLib keeps so many idle threads in its pool, and a runtime some blocking ones for ten seconds.
const IDLE_THREADS: usize = 16;
/// Descriptors that come and go at any moment: connections of this test, a thumbnail's file.
const PASSING_DESCRIPTORS: usize = 8;

async fn full_house() -> (R58, Home) {
    let seats = (1..=SEATS).map(|n| format!("[[device.seats]]\nid = \"guest{n}\"\ntoken = \"{TOKEN}-{n}\"\n"));
    let home = Home::new(&format!(
        "[log]\nfilter = \"warn,webrtc=off,webrtc_ice=off,webrtc_srtp=off,webrtc_sctp=off,dtls=off\"\n[device]\nlisten = \
         \"127.0.0.1:0\"\n[device.programme]\nwidth = 320\nheight = 180\nfps = 10\n[device.webrtc]\nloopback = true\n\
         [[device.inputs]]\nid = \"cam1\"\nsource = {{ kind = \"test\", pattern = \"ball\", tone_hz = 330 }}\n{}",
        seats.collect::<String>()
    ));
    let r58 = R58::start(&home, "device").await;
    r58.state_until("the programme", |state| state["programme"]["frames"].as_u64() > Some(10)).await;
    (r58, home)
}

/// What a process holds.
#[derive(Debug, Clone, Copy)]
struct Holdings {
    threads: usize,
    descriptors: usize,
    sockets: usize,
    megabytes: u64,
}

impl Holdings {
    fn of(r58: &R58) -> Self {
        let dir = format!("/proc/{}", r58.process.id());
        let entries = |name: &str| std::fs::read_dir(format!("{dir}/{name}")).expect("a process").flatten();
        let links = || entries("fd").filter_map(|entry| std::fs::read_link(entry.path()).ok());
        Self {
            threads: entries("task").count(),
            descriptors: links().count(),
            sockets: links().filter(|link| link.to_string_lossy().starts_with("socket:")).count(),
            megabytes: r58.process.resident() / 1_000_000,
        }
    }
}

/// How a guest goes.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Going {
    Clean,
    Killed,
    Cut,
}

/// One guest on each seat, all at once; each goes in its own way as soon as it is heard. Answers the sockets of those whose network
/// was cut, to be kept for a while.
async fn round(r58: &R58, going: impl Fn(usize) -> Going) -> Vec<UdpSocket> {
    let http = Client::builder().pool_max_idle_per_host(0).build().expect("a client");
    let seen = async || {
        let seats = r58.json("/api/seats").await;
        let live = |seat: &&Value| seat["state"] == "live";
        (seats["items"].as_array().into_iter().flatten().filter(live).count(), seats)
    };
    // A guest that vanished keeps its seat for three seconds. Offers meanwhile would use up what one address may ask, and a goodbye
    // would be told to come back later.
    until(PATIENCE, "seats", || async {
        let (live, seats) = seen().await;
        if live == 0 { Ok(()) } else { Err(seats) }
    })
    .await;
    let one = |n: usize| {
        let (http, base) = (http.clone(), r58.device.clone());
        async move {
            let (seat, token) = (format!("guest{}", n + 1), format!("{TOKEN}-{}", n + 1));
            until(PATIENCE, "a seat", || Voice::join(&http, &base, &seat, &token)).await
        }
    };
    let voices = join_all((0..SEATS).map(one)).await;
    until(PATIENCE, "all seats live", || async {
        let (live, seats) = seen().await;
        if live == SEATS { Ok(()) } else { Err(seats) }
    })
    .await;
    let mut cut = Vec::new();
    for (n, voice) in voices.into_iter().enumerate() {
        match going(n) {
            Going::Clean => assert_eq!(voice.leave().await, StatusCode::OK),
            Going::Killed => drop(voice.vanish()),
            Going::Cut => cut.push(voice.vanish()),
        }
    }
    cut
}

async fn come_and_go(rounds: usize) {
    // No frame slot may be missed.
    let _stage = stage_alone().await;
    let (r58, _home) = full_house().await;
    let mixed = |n: usize| [Going::Clean, Going::Killed, Going::Cut][n % 3];
    // What starts once in a process is there after these.
    for _ in 0..2 {
        drop(round(&r58, mixed).await);
    }
    drop(round(&r58, |_| Going::Clean).await);
    let before = settled(&r58, None).await;
    let programme = mixer(&r58).await;
    let begun = Instant::now();
    for n in 0..rounds {
        drop(round(&r58, |seat| mixed(seat + n)).await);
        if n % 10 == 9 {
            println!("after {} guests: {:?}", (n + 1) * SEATS, Holdings::of(&r58));
        }
    }
    drop(round(&r58, |_| Going::Clean).await);
    let after = settled(&r58, Some(before)).await;
    println!("{} guests in {:?}: before {before:?}, after {after:?}", (rounds + 1) * SEATS, begun.elapsed());
    // An allocator gives back what it likes; a guest that stayed would cost some 3 MB each.
    let grown = after.megabytes.saturating_sub(before.megabytes);
    assert!(grown < 40, "{grown} MB more");
    let now = mixer(&r58).await;
    assert_eq!(now["missed_slots"], programme["missed_slots"], "{now}");
    assert!(r58.stop().await.success());
}

/// Waits until what ended has given back what it held: two looks that are alike, or what there was before.
async fn settled(r58: &R58, before: Option<Holdings>) -> Holdings {
    let seen = std::sync::Mutex::new((Instant::now(), Holdings::of(r58)));
    until(PATIENCE, "an end of what ended", || async {
        let now = Holdings::of(r58);
        if let Some(before) = before {
            let back = now.threads <= before.threads + IDLE_THREADS
                && now.descriptors <= before.descriptors + PASSING_DESCRIPTORS
                && now.sockets <= before.sockets + PASSING_DESCRIPTORS;
            return if back { Ok(now) } else { Err((before, now)) };
        }
        let mut seen = seen.lock().expect("seen");
        if now.threads < seen.1.threads || now.descriptors < seen.1.descriptors {
            *seen = (Instant::now(), now);
        }
        if seen.0.elapsed() > Duration::from_secs(2) { Ok(now) } else { Err((now, now)) }
    })
    .await
}

async fn mixer(r58: &R58) -> Value {
    r58.json("/api/mixer/status").await["stats"].clone()
}

#[tokio::test]
async fn forty_guests_that_leave_or_vanish_leave_nothing_behind() {
    come_and_go(4).await;
}

/// Some nine minutes: `cargo test --test promises a_thousand_guests -- --ignored --nocapture`.
#[tokio::test]
#[ignore = "a measurement of some minutes"]
async fn a_thousand_guests_that_leave_or_vanish_leave_nothing_behind() {
    come_and_go(124).await;
}

#[tokio::test]
async fn two_hundred_offers_at_once_with_nobody_behind_them_do_not_disturb_the_programme() {
    // No frame slot may be missed.
    let _stage = stage_alone().await;
    let (r58, _home) = full_house().await;
    let (before, http) = (mixer(&r58).await, Client::new());
    let post = |n: usize| {
        let (path, direction) = if n.is_multiple_of(2) {
            (format!("/whip/guest{}", n % SEATS + 1), "sendonly")
        } else {
            ("/whep/programme".into(), "recvonly")
        };
        let request = http.post(format!("{}{path}", r58.device)).header("Content-Type", "application/sdp");
        let request = request.bearer_auth(format!("{TOKEN}-{}", n % SEATS + 1)).body(offer(direction));
        async move { request.send().await.expect("an answer").status().as_u16() }
    };
    let asked = Instant::now();
    let mut answers = std::collections::BTreeMap::new();
    for status in join_all((0..200).map(post)).await {
        *answers.entry(status).or_insert(0) += 1;
    }
    println!("200 offers in {:?}: {answers:?}", asked.elapsed());
    assert!(answers.keys().all(|status| [201, 409, 503].contains(status)), "{answers:?}");
    assert!(
        answers[&201] >= 8 && answers.len() > 1,
        "some are let in, and no more than there is room for: {answers:?}"
    );
    // Ten seconds of programme with all of them half open.
    let frames = before["frames"].as_f64().expect("frames") + 100.0;
    let after = until(PATIENCE, "ten seconds of programme", || async {
        let now = mixer(&r58).await;
        if now["frames"].as_f64() > Some(frames) { Ok(now) } else { Err(now) }
    })
    .await;
    assert_eq!(after["missed_slots"], before["missed_slots"], "{after}");
    println!("longest gap between two frames: {} ms, before {}", after["longest_gap_ms"], before["longest_gap_ms"]);
    assert!(after["longest_gap_ms"].as_f64().is_none_or(|gap| gap < 500.0), "five frames of ten a second: {after}");
    assert!(r58.stop().await.success());
}
