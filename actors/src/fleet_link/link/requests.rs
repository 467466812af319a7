//! Requests on the wire: which are taken, and where their answers go.

use std::time::Instant;

use r58_mqtt::payload::{Payload as _, Response};
use r58_mqtt::request::DEADLINE;
use r58_mqtt::session::{Incoming, Outgoing, Properties};
use r58_mqtt::{Name, Topic, Up};
use tracing::{debug, warn};

use super::super::courier::Parcel;
use super::super::requests::Taken;
use super::Link;

impl Link {
    pub(super) fn take_request(&mut self, now: Instant, message: &Incoming) {
        let Some(requests) = self.parts.requests.clone() else { return debug!("this box takes no requests") };
        let request = match self.parts.ring.verify_request(&self.parts.address, &message.payload) {
            Ok(request) => request,
            Err(error) => {
                if self.strange.admit(now) {
                    warn!(%error, "a request is refused");
                }
                return;
            }
        };
        let Some(server) = self.asker(message) else {
            if self.strange.admit(now) {
                warn!(id = %request.id, "a request names no place for its answer");
            }
            return;
        };
        let wall = self.wall();
        match requests.take(now, wall, request) {
            Taken::Say(answer) => self.post(self.answer_parcel(server, &answer)),
            Taken::Await(answer) => {
                let (courier, parcel) = (self.courier.clone(), self.answer_maker(server));
                // Not one of the link's tasks: what has begun is finished, so that a repetition finds its answer.
                tokio::spawn(async move { drop(courier.send(parcel(&answer.await))) });
            }
            Taken::Silence => {}
        }
    }

    /// The server that waits, if the response topic is this box's own.
    fn asker(&self, message: &Incoming) -> Option<Name> {
        match Topic::parse(message.properties.response_topic.as_deref()?) {
            Ok(Topic::Up(address, Up::Response(server))) if address == self.parts.address => Some(server),
            _ => None,
        }
    }

    fn answer_parcel(&self, server: Name, answer: &Response) -> Parcel {
        self.answer_maker(server)(answer)
    }

    fn answer_maker(&self, server: Name) -> impl Fn(&Response) -> Parcel + Send + use<> {
        let topic = self.topic(Up::Response(server));
        move |answer| {
            let body = answer.to_bytes().unwrap_or_else(|error| {
                warn!(id = %answer.id, %error, "an answer cannot be said");
                Response::new(answer.id.clone(), 500).to_bytes().unwrap_or_default()
            });
            let correlation = Some(answer.id.as_str().as_bytes().to_vec().into());
            let properties = Properties { correlation, expiry: Some(DEADLINE), ..Properties::json() };
            Parcel {
                ticket: None,
                message: Outgoing { properties, ..Outgoing::json(topic.clone(), body) },
                is_status: false,
            }
        }
    }
}
