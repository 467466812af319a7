//! Live updates as server-sent events, read with `fetch`, so that the token travels in a header.

use std::collections::BTreeSet;
use std::time::Duration;

use actix_web::{HttpResponse, web};
use bytes::Bytes;
use chrono::Utc;
use futures_util::stream;
use serde::Deserialize;
use serde_json::json;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{broadcast, watch};
use tokio::time::{Instant, Interval, MissedTickBehavior, interval_at, sleep_until};
use utoipa::IntoParams;

use super::problem::ProblemBody;
use super::resource;
use crate::fleet::auth::{self, Role, Session, Viewer};
use crate::fleet::push::interest::{Interest, Wanted};
use crate::fleet::push::{ACCESS, CHANGED, MISSED, Update};
use crate::fleet::state::Fleet;
use crate::problem::{Answer, Problem};

/// A line that keeps proxies from closing a quiet stream; they are known to wait 30 s and more.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

pub(super) fn configure(config: &mut web::ServiceConfig) {
    config.service(resource("/events", "GET").route(web::get().to(events)));
}

/// Most devices that a listener names: those of a screen, and what it may scroll to.
const MOST_NAMED: usize = 400;

/// Which devices to hear of.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct EventsQuery {
    /// Identifiers with commas between them, up to 400, or nothing for none; every device unless given.
    #[param(max_length = 26000)]
    devices: Option<String>,
    /// Whether to hear of every change in the audit log, too; for administrators. An API key cannot ask for it.
    changes: Option<bool>,
}

impl EventsQuery {
    fn wanted(&self) -> Result<Wanted, Problem> {
        let Some(text) = &self.devices else { return Ok(None) };
        let named: BTreeSet<String> = text.split(',').filter(|id| !id.is_empty()).map(str::to_owned).collect();
        match named.len() <= MOST_NAMED {
            true => Ok(Some(named)),
            false => Err(Problem::bad_request(format!("devices: at most {MOST_NAMED}"))),
        }
    }

    /// Whether changes are wanted, by somebody who may read them.
    fn changes(&self, caller: &Session) -> Result<bool, Problem> {
        let wanted = self.changes.unwrap_or(false);
        match wanted && (caller.role < Role::Admin || caller.key.is_some()) {
            true => Err(Problem::forbidden("changes are told to administrators only, and to no API key")),
            false => Ok(wanted),
        }
    }
}

/// Server-sent events: `hello` first, then `device` with a card, `command` with a command, `alert` with an alert, `alerts` when many
/// changed, `rollout` with the {id} of one that moved, `release` when releases changed, `thumbnail` with {device_id, name, seq}, and
/// to who asks for it `changed` with the {kind} of what the audit log has a change of, such as `user`. Who names devices hears of
/// these alone, at once how they are, and by `moved` that others changed, at most every five seconds. The stream ends with the
/// access token, when its user may no longer come in, and when its reader is so slow that updates were lost; who connects again
/// should read everything anew.
#[utoipa::path(get, path = "/api/v1/events", tag = "events", security(("user" = [])), params(EventsQuery), responses(
    (status = 200, content_type = "text/event-stream", body = String), (status = 400, body = ProblemBody), (status = 401, body = ProblemBody),
    (status = 403, body = ProblemBody), (status = 503, body = ProblemBody)))]
pub async fn events(fleet: web::Data<Fleet>, caller: Viewer, query: web::Query<EventsQuery>) -> Answer {
    let changes = query.changes(&caller)?;
    let (updates, interest) = fleet.hub.listen(&caller.org, query.wanted()?);
    let left = (caller.expires_at - Utc::now()).to_std().unwrap_or_default();
    let now = Instant::now();
    let mut keep_alive = interval_at(now + KEEP_ALIVE, KEEP_ALIVE);
    keep_alive.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let listener = Listener {
        greet: true,
        updates,
        interest,
        closed: fleet.hub.closed(),
        keep_alive,
        ends: now + left,
        session: caller.0,
        changes,
        fleet: fleet.clone(),
    };
    let lines = stream::unfold(listener, |mut listener| async move {
        let line = listener.next().await?;
        Some((Ok::<Bytes, actix_web::Error>(line), listener))
    });
    Ok(HttpResponse::Ok()
        .content_type("text/event-stream")
        .insert_header(("Cache-Control", "no-store"))
        .insert_header(("X-Accel-Buffering", "no"))
        .streaming(lines))
}

struct Listener {
    /// Nothing was said yet.
    greet: bool,
    updates: broadcast::Receiver<Update>,
    interest: Interest,
    closed: watch::Receiver<bool>,
    keep_alive: Interval,
    ends: Instant,
    session: Session,
    /// Whether it hears of every change.
    changes: bool,
    fleet: web::Data<Fleet>,
}

impl Listener {
    async fn next(&mut self) -> Option<Bytes> {
        if std::mem::take(&mut self.greet) {
            let (org, role) = (&self.session.org, self.session.role);
            let hello = json!({"server_time": Utc::now(), "org": org, "role": role});
            return Some(format!("event: hello\ndata: {hello}\n\n").into());
        }
        loop {
            let update = tokio::select! {
                _ = self.closed.wait_for(|closed| *closed) => return None,
                () = sleep_until(self.ends) => return None,
                _ = self.keep_alive.tick() => return Some(Bytes::from_static(b": still here\n\n")),
                update = self.updates.recv() => update,
            };
            match update {
                Ok(update) if *update.org == *self.session.org => {
                    if update.event == ACCESS {
                        if auth::lasts(&self.fleet, &self.session).await {
                            continue;
                        }
                        return None;
                    }
                    let hears = update.event != CHANGED || self.changes;
                    if !hears || !self.interest.wants(update.device.as_deref(), update.event) {
                        continue;
                    }
                    return Some(format!("event: {}\ndata: {}\n\n", update.event, update.data).into());
                }
                Ok(update) if update.event != MISSED => {}
                // What was missed cannot be told any more: the reader comes again and reads everything.
                Ok(_) | Err(RecvError::Lagged(_) | RecvError::Closed) => return None,
            }
        }
    }
}
