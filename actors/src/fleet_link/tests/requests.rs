//! Requests over a real broker: once each, only from the fleet, answered to whom they came from.

use r58_mqtt::Name;
use r58_mqtt::payload::{Method, Request, Response};
use r58_mqtt::session::{Outgoing, Properties};

use super::*;

/// A desk that counts, and answers with what it was asked.
#[derive(Default)]
pub(super) struct ProbeDesk {
    asked: Mutex<Vec<String>>,
}

#[async_trait::async_trait]
impl crate::fleet_link::requests::RequestDesk for ProbeDesk {
    async fn answer(&self, request: Request) -> Response {
        lock(&self.asked).push(format!("{} {}", request.method.as_str(), request.path));
        assert_ne!(request.path, "/panic", "told to");
        Response { body: request.body, ..Response::new(request.id, 201) }
    }
}

impl Rig {
    fn request(&self, id: &str, path: &str) -> Request {
        let until = chrono::Utc::now() + TimeDelta::seconds(8);
        let mut request = Request::new(Name::new(id).unwrap(), &self.address, Method::Post, path, until);
        request.body = "offer".to_owned();
        request
    }

    async fn ask(&self, body: Vec<u8>, response_topic: &str) {
        let properties = Properties { response_topic: Some(response_topic.to_owned()), ..Properties::json() };
        let message = Outgoing { properties, ..Outgoing::json("r58/1/org/box1/down/request", body) };
        self.fleet.session.publish(message).await.unwrap();
    }

    async fn answered(&mut self, id: &str) -> (Response, Option<Bytes>) {
        self.fleet
            .until(|message| {
                let ours = message.topic == "r58/1/org/box1/up/response/server1";
                let answer = ours.then(|| Response::parse(&message.payload).unwrap())?;
                (answer.id.as_str() == id).then(|| (answer, message.properties.correlation.clone()))
            })
            .await
    }
}

const BACK: &str = "r58/1/org/box1/up/response/server1";

#[actix_rt::test]
async fn a_request_is_carried_out_once_and_answered_as_often_as_it_comes() {
    let mut rig = Rig::start().await;
    let body = rig.signer.sign_request(&mut rig.request("r1", "/whip/guest1")).unwrap();
    for _ in 0..3 {
        rig.ask(body.clone(), BACK).await;
        let (answer, correlation) = rig.answered("r1").await;
        assert_eq!((answer.status, answer.body.as_str()), (201, "offer"));
        assert_eq!(correlation.unwrap(), "r1");
        rig.fleet.heard.clear();
    }
    assert_eq!(*lock(&rig.desk.asked), ["POST /whip/guest1"]);
    rig.stop().await;
}

#[actix_rt::test]
async fn strangers_and_latecomers_are_not_served_and_a_panic_is_an_answer() {
    let mut rig = Rig::start().await;
    let unsigned = rig.request("r1", "/unsigned").to_bytes().unwrap();
    let forged = CommandSigner::generate().sign_request(&mut rig.request("r2", "/forged")).unwrap();
    let mut late = rig.request("r3", "/late");
    late.expires_at = chrono::Utc::now() - TimeDelta::seconds(1);
    let late = rig.signer.sign_request(&mut late).unwrap();
    for body in [unsigned, forged, late, b"nonsense".to_vec()] {
        rig.ask(body, BACK).await;
    }
    let elsewhere = rig.signer.sign_request(&mut rig.request("r4", "/elsewhere")).unwrap();
    rig.ask(elsewhere, "r58/1/org/box2/up/response/server1").await;
    let panics = rig.signer.sign_request(&mut rig.request("r5", "/panic")).unwrap();
    rig.ask(panics, BACK).await;
    // In order: whatever the ones before had brought about would be here by now.
    assert_eq!(rig.answered("r5").await.0.status, 500);
    assert_eq!(*lock(&rig.desk.asked), ["POST /panic"]);
    rig.stop().await;
}
