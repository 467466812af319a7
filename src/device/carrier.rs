//! WHIP, WHEP, guests by the SFU, invitations, guests and the log over the fleet's broker: the other thin carrier of `signalling`,
//! `calls`, `guest_desk` and `log_desk`.

use std::sync::Arc;

use async_trait::async_trait;
use r58_actors::fleet_link::requests::RequestDesk;
use r58_mqtt::payload::{Request, Response};

use super::calls::Calls;
use super::guest_desk::{DeskRequest, FLEET, GuestDesk};
use super::log_desk::LogDesk;
use super::signalling::{BODY_LIMIT, SignalRequest, SignalResponse, Signalling};
use crate::problem::Problem;

/// Answers what the fleet asks. The fleet signed it, and has judged whether its asker may watch this box or act on it; a
/// guest's token is judged here as everywhere.
pub struct Carrier {
    /// WHIP and WHEP.
    pub signalling: Arc<Signalling>,
    /// Guests by way of the SFU.
    pub calls: Arc<Calls>,
    /// Invitations and guests.
    pub desk: Arc<GuestDesk>,
    /// The log.
    pub logs: Arc<LogDesk>,
}

/// Whom the rate of all these requests is counted for: the fleet limits its own clients.
const CLIENT: &str = "fleet";

#[async_trait]
impl RequestDesk for Carrier {
    async fn answer(&self, request: Request) -> Response {
        let id = request.id.clone();
        let answer = if LogDesk::serves(&request.path) {
            self.logs.handle(request.method.as_str(), &request.path, &request.body).await
        } else if GuestDesk::serves(&request.path) {
            let order = DeskRequest {
                method: request.method.as_str(),
                path: &request.path,
                authorization: request.authorization.as_deref(),
                body: request.body.as_bytes(),
                crew: Ok(FLEET.to_owned()),
            };
            self.desk.handle(order).await
        } else {
            self.signal(request).await
        };
        Response {
            headers: answer.headers.into_iter().map(|(name, value)| (name.to_owned(), value)).collect(),
            body: answer.body,
            ..Response::new(id, answer.status)
        }
    }
}

impl Carrier {
    async fn signal(&self, request: Request) -> SignalResponse {
        let order = SignalRequest {
            method: request.method.as_str().to_owned(),
            path: request.path,
            content_type: request.content_type,
            authorization: request.authorization,
            if_match: request.if_match,
            client: CLIENT.to_owned(),
            crew: Ok(()),
            token: None,
        };
        let body = request.body.into_bytes();
        let body = async move {
            let fits = body.len() <= BODY_LIMIT;
            fits.then_some(body)
                .ok_or_else(|| Problem::with_status(413, format!("a body has at most {BODY_LIMIT} bytes")))
        };
        match Calls::serves(&order.path) {
            true => self.calls.handle(order, body).await,
            false => self.signalling.handle(order, body).await,
        }
    }
}
