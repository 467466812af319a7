//! What a controller says to a unit that is on the broker: an exchange of WHEP, or a command.
//!
//! ```text
//! {"id":1,"method":"POST","path":"/whep/programme","content_type":"application/sdp","body":"v=0..."}
//!     {"id":1,"status":201,"headers":{"location":"..."},"body":"v=0..."}
//! {"id":2,"type":"take","payload":{"scene":"quad"}}
//!     {"id":2,"command":{...}}, and {"command":{...}} again at each change
//! ```
//!
//! `id` is the controller's own and comes back as it was. Both go the way that the API's calls go, with the same rights.

use std::collections::BTreeSet;

use actix_web::http::StatusCode;
use actix_web::web;
use futures_util::StreamExt as _;
use futures_util::future::LocalBoxFuture;
use futures_util::stream::FuturesUnordered;
use r58_actors::caller::Ask;
use r58_mqtt::DeviceAddress;
use r58_mqtt::payload::Method;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use tokio::sync::broadcast;

use crate::fleet::api::{commands, whep};
use crate::fleet::auth::Session;
use crate::fleet::push::Update;
use crate::fleet::state::Fleet;
use crate::problem::Problem;

/// Exchanges of one controller at the same time.
const AT_ONCE: usize = 8;
/// Commands of one controller whose changes it is told; the oldest is forgotten first.
const FOLLOWED: usize = 64;

/// One controller's wishes on their way.
pub struct Carried {
    fleet: web::Data<Fleet>,
    session: Session,
    address: DeviceAddress,
    answers: FuturesUnordered<LocalBoxFuture<'static, Value>>,
    followed: BTreeSet<String>,
    updates: broadcast::Receiver<Update>,
}

#[derive(Deserialize)]
struct Wish {
    #[serde(default)]
    id: Value,
    #[serde(flatten)]
    what: What,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum What {
    Exchange {
        method: Method,
        path: String,
        #[serde(default)]
        content_type: Option<String>,
        #[serde(default)]
        if_match: Option<String>,
        #[serde(default)]
        body: String,
    },
    Command {
        r#type: String,
        #[serde(default)]
        payload: Map<String, Value>,
    },
}

impl Carried {
    /// Nothing was asked yet.
    pub fn new(fleet: web::Data<Fleet>, session: Session, address: DeviceAddress) -> Self {
        // Commands are told whatever devices are named.
        let (updates, _) = fleet.hub.listen(&session.org, Some(BTreeSet::new()));
        let (answers, followed) = (FuturesUnordered::new(), BTreeSet::new());
        Self { fleet, session, address, answers, followed, updates }
    }

    /// Takes a frame. False: it is nothing that could be carried, or the unit is not on the broker.
    pub async fn take(&mut self, text: &str) -> bool {
        let Ok(Wish { id, what }) = serde_json::from_str(text) else { return false };
        let device = self.fleet.store.device(&self.session.org, self.address.device.as_str()).await;
        if !matches!(device, Ok(Some(row)) if row.presence == "online") {
            return false;
        }
        if self.answers.len() >= AT_ONCE {
            let busy = refused(&id, &Problem::unavailable("too many requests are under way"));
            self.answers.push(Box::pin(std::future::ready(busy)));
            return true;
        }
        let (fleet, session, address) = (self.fleet.clone(), self.session.clone(), self.address.clone());
        self.answers.push(match what {
            What::Exchange { method, path, content_type, if_match, body } => Box::pin(async move {
                let ask = Ask { method, path, content_type, authorization: None, if_match, body };
                let answered = exchange(&fleet, address, ask).await;
                answered.map_or_else(
                    |problem| refused(&id, &problem),
                    |(status, headers, body)| json!({ "id": id, "status": status, "headers": headers, "body": body }),
                )
            }),
            What::Command { r#type, payload } => Box::pin(async move {
                let made = commands::make(&fleet, &session, address, r#type, payload).await;
                made.map_or_else(|problem| refused(&id, &problem), |command| json!({ "id": id, "command": command }))
            }),
        });
        true
    }

    /// What the controller is told next; for ever, when that is nothing.
    pub async fn next(&mut self) -> String {
        loop {
            tokio::select! {
                Some(answer) = self.answers.next() => {
                    if let Some(id) = answer["command"]["id"].as_str() {
                        self.follow(id.to_owned());
                    }
                    return answer.to_string();
                }
                update = self.updates.recv() => match update {
                    Ok(update) if self.concerns(&update) => return format!("{{\"command\":{}}}", update.data),
                    // What was missed is asked for by whoever wants it, as on the dashboard.
                    Ok(_) | Err(broadcast::error::RecvError::Lagged(_)) => {}
                    // The server stops, and the line with it.
                    Err(broadcast::error::RecvError::Closed) => std::future::pending().await,
                }
            }
        }
    }

    fn follow(&mut self, id: String) {
        self.followed.insert(id);
        // Ids grow with time.
        if self.followed.len() > FOLLOWED {
            self.followed.pop_first();
        }
    }

    fn concerns(&self, update: &Update) -> bool {
        #[derive(Deserialize)]
        struct Named {
            id: String,
        }
        let ours = update.event == "command" && *update.org == *self.session.org && !self.followed.is_empty();
        ours && serde_json::from_str(&update.data).is_ok_and(|Named { id }| self.followed.contains(&id))
    }
}

type Answered = (u16, Map<String, Value>, String);

async fn exchange(fleet: &Fleet, address: DeviceAddress, ask: Ask) -> Result<Answered, Problem> {
    if ask.method == Method::Get {
        return Err(Problem::new(StatusCode::METHOD_NOT_ALLOWED, "an exchange is POST, PATCH or DELETE"));
    }
    // What a box shows, and nothing else of it.
    let parts: Vec<&str> = ask.path.split('/').collect();
    match parts[..] {
        ["", "whep", name] => whep::segment(name).map(drop)?,
        ["", "whep", name, session] => whep::segment(name).and(whep::segment(session)).map(drop)?,
        _ => return Err(Problem::not_found("no such path of a unit")),
    }
    let answer = fleet.broker.ask(address, ask).await.map_err(whep::away)?;
    let headers = answer.headers.into_iter().map(|(name, value)| (name.to_ascii_lowercase(), Value::String(value)));
    Ok((answer.status, headers.collect(), answer.body))
}

fn refused(id: &Value, problem: &Problem) -> Value {
    let words: Value = serde_json::from_str(&problem.to_json()).unwrap_or_default();
    json!({ "id": id, "status": problem.status().as_u16(), "error": words["detail"] })
}
