//! What the link says of the box: entries for the outbox, presence, sync, retained values, pictures.

use std::time::{Duration, Instant};

use bytes::Bytes;
use chrono::{DateTime, Utc};
use r58_mqtt::payload::{MAX_THUMBNAIL_BYTES, Payload as _, Presence, SyncUp};
use r58_mqtt::session::{Outgoing, Properties, Qos};
use r58_mqtt::{Name, Up};
use tracing::{debug, warn};

use super::{Link, Note, Noted, Parcel, SYNC_AGAIN};
use crate::fleet_link::connection;

impl Link {
    /// Numbers an entry, writes it, and publishes `live` (made from the same body) once it is durable.
    pub fn record(
        &mut self,
        now: Instant,
        up: &Up,
        hold: Duration,
        ts: Option<DateTime<Utc>>,
        live: Option<(Up, Duration)>,
        body: impl FnOnce(u64) -> Vec<u8>,
    ) {
        let mut copy = Bytes::new();
        let staged = self.parts.outbox.stage(now, up, hold, ts, |seq| {
            let body = body(seq);
            copy = Bytes::copy_from_slice(&body);
            body
        });
        let staged = match staged {
            Ok(staged) => staged,
            // Counted by the outbox, and told with every heartbeat.
            Err(error) => return debug!(%error, "not recorded"),
        };
        let live = live.map(|(up, expiry)| {
            let properties = Properties { expiry: Some(expiry), ..Properties::json() };
            Outgoing { properties, ..Outgoing::json(self.topic(up), copy).qos(Qos::AtMostOnce) }
        });
        let (notes, epoch, order) = (self.parts.notes.clone(), self.parts.epoch, staged.order);
        let done = move |result| drop(notes.send(Note { epoch, what: Noted::Recorded { order, live, result } }));
        self.store.submit(staged.changes, Box::new(done));
    }

    /// Presence and sync of a new connection. Caps and reported state are the actor's.
    pub fn say_birth(&mut self, now: Instant, conn_seq: u64) {
        let mut presence = Presence::online(connection(self.parts.boot_seq, conn_seq));
        presence.boot_id = Some(self.parts.boot_id.clone());
        presence.version = Some(self.parts.version.clone());
        presence.ts = self.wall();
        self.say_retained(Up::Presence, presence.to_bytes());
        self.say_sync(now, SYNC_AGAIN);
        self.drain(now);
    }

    /// Publishes the current value of a retained topic.
    pub fn say_retained(&self, up: Up, body: Result<Vec<u8>, r58_mqtt::payload::PayloadError>) {
        match body {
            Ok(body) => {
                let message = Outgoing::json(self.topic(up), body).retained(true);
                self.post(Parcel { ticket: None, message, is_status: false });
            }
            Err(error) => warn!(%error, "cannot be said"),
        }
    }

    /// Publishes a picture if there is room for it right now.
    pub fn show(&self, name: Name, jpeg: Bytes) -> bool {
        if !self.online || jpeg.len() > MAX_THUMBNAIL_BYTES {
            return false;
        }
        let properties = Properties { content_type: Some("image/jpeg".to_owned()), ..Properties::default() };
        let message = Outgoing { properties, ..Outgoing::json(self.topic(Up::Thumbnail(name)), jpeg) };
        self.parts.session.try_publish(message.qos(Qos::AtMostOnce))
    }

    /// Publishes something for those who listen right now, if there is room for it.
    pub fn say_live(&self, up: Up, body: Vec<u8>) -> bool {
        self.online && self.parts.session.try_publish(Outgoing::json(self.topic(up), body).qos(Qos::AtMostOnce))
    }

    pub(super) fn say_sync(&mut self, now: Instant, again: Duration) {
        let sync = SyncUp {
            pending: self.parts.core.pending(),
            seq_floor: self.parts.core.seq_floor(),
            desired_ver: self.effects.desired_ver(),
            clock: self.clock,
            streams: self.parts.outbox.last_seqs().into_iter().collect(),
            ..SyncUp::default()
        };
        self.sync_again = Some((now + again, again));
        match sync.to_bytes() {
            Ok(body) => {
                let message = Outgoing::json(self.topic(Up::Sync), body);
                self.post(Parcel { ticket: None, message, is_status: false });
            }
            Err(error) => warn!(%error, "the sync cannot be said"),
        }
    }
}
