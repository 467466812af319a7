//! What the fleet asks a box over the broker is done once and answered once, or ends in a clear error, and leaves nothing
//! behind: a request that comes twice, an answer that is lost, a box that goes in the middle.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use r58_mqtt::session::Incoming;
use reqwest::{Method, Response, StatusCode};
use serde_json::Value;

use super::support::mosquitto::{Mosquitto, PASSWORD, TESTER};
use super::support::r58::{PATIENCE, R58};
use super::support::sdp::offer;
use super::support::site::{Boxed, ORG, Site};
use super::support::wire::Wire;
use super::support::{stage, until};

/// The programme of the box, as people who are signed in reach it.
const PROGRAMME: &str = "/whep/box1/programme";
/// Whoever never comes to see anything is forgotten after this long, in the worst case.
const FORGOTTEN_WITHIN: Duration = Duration::from_secs(45);

struct Rig {
    broker: Mosquitto,
    site: Site,
    boxed: Boxed,
    device: R58,
    wire: Wire,
}

impl Rig {
    async fn start() -> Self {
        let mut broker = Mosquitto::prepare();
        broker.start().await;
        let site = Site::with(&broker).await;
        let boxed = site.enrol("box1", "[device.webrtc]\nloopback = true").await;
        broker.let_in(ORG, boxed.identity().token.expose());
        let wire = Wire::start(&broker.url(), "tester", TESTER, PASSWORD, &boxed.topic("#")).await;
        let device = boxed.start().await;
        let rig = Self { broker, site, boxed, device, wire };
        rig.is_online().await;
        rig
    }

    async fn is_online(&self) {
        until(PATIENCE, "the box online", || async {
            let card = self.site.api.get("/api/v1/devices/box1").await;
            if card["online"] == true { Ok(()) } else { Err(card) }
        })
        .await;
        self.device.state_until("the programme", |state| state["programme"]["encoder"]["name"] != "").await;
    }

    async fn ask(&self) -> Response {
        self.site.api.signal(Method::POST, PROGRAMME, offer("recvonly")).await
    }

    /// Ends the session that an answer made.
    async fn end(&self, made: &Response) {
        let location = made.headers()["location"].to_str().expect("text").to_owned();
        let ended = self.site.api.signal(Method::DELETE, &location, "").await;
        assert_eq!(ended.status(), StatusCode::OK);
    }

    fn heard(&self, part: &str) -> Vec<Incoming> {
        self.wire.heard().into_iter().filter(|message| message.topic.contains(part)).collect()
    }

    /// Waits until so many messages below this topic were seen, and answers with the last.
    async fn hears(&self, part: &str, count: usize) -> Incoming {
        until(PATIENCE, &format!("{count} of {part}"), || async {
            let heard = self.heard(part);
            heard.last().filter(|_| heard.len() >= count).cloned().ok_or(heard.len())
        })
        .await
    }

    async fn viewers(&self, count: usize, within: Duration) {
        until(within, &format!("{count} viewers"), || async {
            let state = self.device.state().await;
            if state["programme"]["viewers"] == count { Ok(()) } else { Err(state["programme"].clone()) }
        })
        .await;
    }
}

/// The words of a problem+json.
async fn problem(answer: Response) -> String {
    assert_eq!(answer.headers()["content-type"], "application/problem+json");
    let status = answer.status().as_u16();
    let body: Value = answer.json().await.expect("JSON");
    assert_eq!(body["status"], status, "{body}");
    body["detail"].as_str().expect("a detail").to_owned()
}

#[tokio::test]
async fn a_request_that_comes_again_and_again_makes_one_session_and_gets_the_same_answer() {
    let _stage = stage().await;
    let rig = Rig::start().await;

    // The second copy comes before the box has looked at the first.
    rig.device.process.signal(Signal::SIGSTOP);
    let again = async {
        let request = rig.hears("/down/request", 1).await;
        rig.wire.say_again(&request).await;
        rig.device.process.signal(Signal::SIGCONT);
        request
    };
    let (made, request) = tokio::join!(rig.ask(), again);
    assert_eq!(made.status(), StatusCode::CREATED);
    rig.viewers(1, PATIENCE).await;

    // And a third long after it was answered.
    let answer = rig.hears("/up/response/", 1).await;
    let so_far = rig.heard("/up/response/").len();
    rig.wire.say_again(&request).await;
    let repeated = rig.hears("/up/response/", so_far + 1).await;
    assert!(answer.payload == repeated.payload, "the answer of a repetition is another one");
    assert_eq!(answer.properties.correlation, repeated.properties.correlation);
    rig.viewers(1, PATIENCE).await;
    rig.end(&made).await;
    rig.viewers(0, PATIENCE).await;

    // Once more after the session's end: it does not come back.
    rig.wire.say_again(&request).await;
    rig.hears("/up/response/", so_far + 3).await;
    rig.viewers(0, PATIENCE).await;
    assert!(rig.device.stop().await.success());
}

#[tokio::test]
async fn a_lost_answer_is_a_clear_error_and_its_session_does_not_stay() {
    let stage = stage().await;
    let rig = Rig::start().await;
    rig.broker.lose_answers();
    let asked = Instant::now();
    let answer = rig.ask().await;
    println!("a lost answer: {} after {:?}", answer.status(), asked.elapsed());
    assert_eq!(answer.status(), StatusCode::GATEWAY_TIMEOUT);
    assert_eq!(problem(answer).await, "the device did not answer in time");
    assert_eq!(rig.heard("/up/response/").len(), 0);
    // The box did as it was asked, for nobody. What is left is waiting: others may have the machine.
    rig.viewers(1, PATIENCE).await;
    drop(stage);
    rig.viewers(0, FORGOTTEN_WITHIN.saturating_sub(asked.elapsed())).await;
    println!("its session was forgotten after {:?}", asked.elapsed());
    assert!(rig.device.stop().await.success());
}

#[tokio::test]
async fn a_box_that_is_killed_in_the_middle_is_a_clear_error_and_answers_again_when_it_is_back() {
    let _stage = stage().await;
    let mut rig = Rig::start().await;
    rig.device.process.signal(Signal::SIGSTOP);
    let killed = async {
        rig.hears("/down/request", 1).await;
        rig.device.process.signal(Signal::SIGKILL);
        Instant::now()
    };
    // A box that only restarts might still answer: the broker holds its will back for longer than anybody waits.
    let (answer, killed) = tokio::join!(rig.ask(), killed);
    println!("a box killed in the middle: {} after {:?}", answer.status(), killed.elapsed());
    assert_eq!(answer.status(), StatusCode::GATEWAY_TIMEOUT);
    assert_eq!(problem(answer).await, "the device did not answer in time");
    until(PATIENCE, "the box offline", || async {
        let card = rig.site.api.get("/api/v1/devices/box1").await;
        if card["online"] == false { Ok(()) } else { Err(card) }
    })
    .await;
    let asked = Instant::now();
    let answer = rig.ask().await;
    assert_eq!(answer.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert!(asked.elapsed() < Duration::from_secs(1) && answer.headers().contains_key("retry-after"));
    assert_eq!(problem(answer).await, "the device is not connected");

    rig.device.process.kill();
    rig.device = rig.boxed.start().await;
    rig.is_online().await;
    // What its earlier life was asked is nobody's wish any more.
    rig.viewers(0, PATIENCE).await;
    let made = rig.ask().await;
    assert_eq!(made.status(), StatusCode::CREATED);
    rig.viewers(1, PATIENCE).await;
    rig.end(&made).await;
    rig.viewers(0, PATIENCE).await;
    assert!(rig.device.stop().await.success());
}
