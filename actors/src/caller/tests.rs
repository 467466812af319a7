//! The Caller against a real broker, with a box played by the test.

use r58_mqtt::payload::ConnectionOrder;
use r58_mqtt::sign::KeyRing;

use super::*;
use crate::supervision::{Door, Duty, House, HouseSettings};
use crate::testkit::{Listener, Mosquitto, eventually};

struct Rig {
    broker: Mosquitto,
    house: House,
    door: Door<CallDevice>,
    ring: KeyRing,
    device: DeviceAddress,
    listener: Listener,
}

impl Rig {
    async fn start() -> Self {
        let broker = Mosquitto::start();
        let house = House::open(HouseSettings::default());
        let signer = Arc::new(CommandSigner::generate());
        let ring = KeyRing::new([&signer.public_key()]).unwrap();
        let settings =
            CallerSettings { session: broker.client("caller"), signer, logs: tokio::sync::broadcast::channel(16).0 };
        let ward = house.engage(Duty::new("caller", "caller"), move |life| Caller::new(life, settings.clone()));
        let device = DeviceAddress::new("org", "box1").unwrap();
        let listener = Listener::start(&broker, "box1", "r58/1/org/box1/down/#").await;
        let rig = Self { broker, house, door: ward.door(), ring, device, listener };
        rig.until(ONLINE).await;
        rig
    }

    async fn until(&self, word: &str) {
        let said =
            || self.house.reports().into_iter().find(|report| report.name == "caller").and_then(|report| report.detail);
        eventually(word, || (said().as_deref() == Some(word)).then_some(())).await;
    }

    async fn call(&self, device: &DeviceAddress, path: &str) -> Result<Response, CallError> {
        self.door
            .send_within(CallDevice { device: device.clone(), ask: ask(path) }, Duration::from_secs(20))
            .await
            .unwrap()
    }

    /// The next request to the box, and where its answer goes.
    async fn asked(&mut self) -> (Request, String) {
        let ring = self.ring.clone();
        let device = self.device.clone();
        self.listener
            .until(|message| {
                let request = ring.verify_request(&device, &message.payload).ok()?;
                assert_eq!(message.properties.correlation.as_deref(), Some(request.id.as_str().as_bytes()));
                Some((request, message.properties.response_topic.clone()?))
            })
            .await
    }

    async fn say(&self, topic: &str, response: &Response) {
        self.listener.session.publish(Outgoing::json(topic, response.to_bytes().unwrap())).await.unwrap();
    }

    async fn stop(self) {
        assert!(self.house.stop(Duration::from_secs(10)).await.is_empty());
    }
}

fn ask(path: &str) -> Ask {
    Ask {
        method: Method::Post,
        path: path.to_owned(),
        content_type: Some("application/sdp".to_owned()),
        authorization: Some("Bearer token".to_owned()),
        if_match: None,
        body: "offer".to_owned(),
    }
}

#[actix_rt::test]
async fn a_box_is_asked_and_its_answer_comes_back_once() {
    let mut rig = Rig::start().await;
    let (door, device) = (rig.door.clone(), rig.device.clone());
    let ask = ask("/whip/guest1");
    let call =
        actix_rt::spawn(
            async move { door.send_within(CallDevice { device, ask }, Duration::from_secs(20)).await.unwrap() },
        );
    let (request, back) = rig.asked().await;
    assert_eq!((request.path.as_str(), request.body.as_str()), ("/whip/guest1", "offer"));
    assert_eq!(request.authorization.as_deref(), Some("Bearer token"));
    // A stranger's answer, nonsense, then the right one twice.
    rig.listener.session.publish(Outgoing::json(back.clone(), "nonsense")).await.unwrap();
    let foreign = back.replace("/box1/", "/box2/");
    rig.say(&foreign, &Response::new(request.id.clone(), 200)).await;
    let answer = Response { body: "answer".to_owned(), ..Response::new(request.id, 201) };
    rig.say(&back, &answer).await;
    rig.say(&back, &answer).await;
    assert_eq!(call.await.unwrap().unwrap(), answer);
    rig.stop().await;
}

#[actix_rt::test]
async fn a_box_that_does_not_answer_ends_the_call_at_its_deadline_and_one_that_goes_at_once() {
    let mut rig = Rig::start().await;
    let silent = rig.device.clone();
    let begun = Instant::now();
    let mut heard = Listener::start(&rig.broker, "witness", "r58/1/org/box2/down/#").await;
    let (late, gone) = tokio::join!(rig.call(&silent, "/late"), async {
        let other = DeviceAddress::new("org", "box2").unwrap();
        let leaving = async {
            // Its request is on its way by then: both go through the same broker.
            heard.until(|message| message.topic.ends_with("/box2/down/request").then_some(())).await;
            let body = Presence::offline(ConnectionOrder { boot_seq: 1, conn_seq: 1 }, "lwt").to_bytes().unwrap();
            heard.say("r58/1/org/box2/up/presence", body, true).await;
        };
        let (answer, ()) = tokio::join!(rig.call(&other, "/gone"), leaving);
        (answer, begun.elapsed())
    });
    assert_eq!(gone.0, Err(CallError::Offline));
    assert!(gone.1 < DEADLINE, "{:?}", gone.1);
    assert_eq!(late, Err(CallError::TimedOut));
    assert!(begun.elapsed() >= DEADLINE);
    // The request of the one that was too late is not carried out: it says itself until when it is good.
    let (request, _) = rig.asked().await;
    assert!(request.expires_at <= Utc::now());
    rig.stop().await;
}

#[actix_rt::test]
async fn without_a_broker_nobody_waits_for_long() {
    let mut rig = Rig::start().await;
    let device = rig.device.clone();
    rig.broker.kill();
    rig.until(AWAY).await;
    let begun = Instant::now();
    assert_eq!(rig.call(&device, "/x").await, Err(CallError::BrokerAway));
    assert!((GRACE..DEADLINE).contains(&begun.elapsed()), "{:?}", begun.elapsed());
    rig.stop().await;
}

#[actix_rt::test]
async fn a_call_is_sent_when_the_broker_comes_back_in_time() {
    let mut rig = Rig::start().await;
    let device = rig.device.clone();
    rig.broker.kill();
    rig.until(AWAY).await;
    let door = rig.door.clone();
    let asked = door.send_within(CallDevice { device, ask: ask("/x") }, Duration::from_secs(20));
    let (outcome, ()) = tokio::join!(asked, async { rig.broker.again() });
    // Nobody answers it, which is only found out of a call that was sent.
    assert_eq!(outcome.unwrap(), Err(CallError::TimedOut));
    rig.until(ONLINE).await;
    rig.stop().await;
}
