//! LogTail: the box's log, told live.
//!
//! Job: while somebody at the fleet watches, say new log records on `up/tm/log`, in small batches. In: [`WatchLogs`], a lease
//! that ends by itself. Out: [`SayLog`] to the fleet link, QoS 0.
//!
//! Failure policy: nothing here may cost the box anything: records beyond the rate, and those that the link has no room for, are
//! left out and counted, and the count is told. They are all in the log that can be read afterwards. Supervised by the house.

pub mod core;

use std::sync::Arc;
use std::time::{Duration, Instant};

use actix::{Actor, AsyncContext as _, Context, Handler, Message, SpawnHandle, Supervised};
use r58_mqtt::payload::{Batch, BatchItem, Extra, Payload as _};
use r58_mqtt::{Name, Up};
use serde_json::Value;
use tokio::sync::watch;

use self::core::{Said, Tail};
use crate::logs::{Level, LogBook};
use crate::supervision::{Door, Life};

/// How often new records are looked for while somebody watches.
const LOOK_EVERY: Duration = Duration::from_millis(300);
/// The stream's name: the last level of its topic.
pub const STREAM: &str = "log";
/// Field of a batch with the number of records left out before it.
pub const DROPPED: &str = "dropped";

/// Somebody watches. Answered with the number after which records will come.
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "u64")]
pub struct WatchLogs {
    /// At least as bad.
    pub level: Level,
    /// For how long unless it is said again; at most a minute.
    pub lease: Duration,
}

/// Asks the fleet link to say a batch right now; what it has no room for is lost. Answered with whether it went out.
#[derive(Debug, Clone, Message)]
#[rtype(result = "bool")]
pub struct SayLog {
    /// Where.
    pub up: Up,
    /// What.
    pub body: Vec<u8>,
}

/// The way out.
#[derive(Debug, Clone)]
pub struct LogLink {
    /// To the fleet link.
    pub door: Door<SayLog>,
    /// Which start of the process this is.
    pub boot_seq: u64,
}

/// What a [`LogTail`] is made of.
#[derive(Clone)]
pub struct LogTailSettings {
    /// The records.
    pub book: LogBook,
    /// The way out, once there is one: the link hands requests to those who knock here, so it comes up later.
    pub link: watch::Receiver<Option<LogLink>>,
}

/// The actor.
pub struct LogTail {
    life: Life,
    settings: Arc<LogTailSettings>,
    tail: Tail,
    timer: Option<SpawnHandle>,
}

impl LogTail {
    /// For the house's factory.
    pub fn new(life: Life, settings: LogTailSettings) -> Self {
        Self { life, settings: Arc::new(settings), tail: Tail::new(Instant::now()), timer: None }
    }

    fn look(&mut self, ctx: &mut Context<Self>) {
        let now = Instant::now();
        if self.tail.level(now).is_none() {
            self.life.detail("nobody watches");
            if let Some(timer) = self.timer.take() {
                ctx.cancel_future(timer);
            }
            return;
        }
        let records = self.settings.book.recent(self.tail.said());
        let Some(said) = self.tail.handle_records(now, records) else { return };
        let went = self.settings.link.borrow().as_ref().is_some_and(|link| {
            message(&said, link.boot_seq).is_some_and(|message| link.door.try_send(message).is_ok())
        });
        if !went {
            self.tail.handle_unsaid(&said);
        }
    }
}

fn message(said: &Said, boot_seq: u64) -> Option<SayLog> {
    let stream = Name::new(STREAM).ok()?;
    let items = said.records.iter().map(|record| {
        let data = serde_json::to_value(&**record).unwrap_or(Value::Null);
        BatchItem { seq: record.seq, ts: Some(record.ts), data }
    });
    let items: Vec<_> = items.collect();
    let mut extra = Extra::new();
    extra.insert(DROPPED.to_owned(), Value::from(said.dropped));
    let first_available = items.first().map_or(0, |item| item.seq);
    let batch = Batch { stream: stream.clone(), boot_seq, first_available, items, extra };
    Some(SayLog { up: Up::Telemetry(stream), body: batch.to_bytes().ok()? })
}

impl Actor for LogTail {
    type Context = Context<Self>;

    fn started(&mut self, _: &mut Self::Context) {
        self.life.opened();
        self.life.detail("nobody watches");
    }
}

impl Supervised for LogTail {
    fn restarting(&mut self, _: &mut Self::Context) {
        self.timer = None;
    }
}

crate::supervised!(LogTail);

impl Handler<WatchLogs> for LogTail {
    type Result = u64;

    fn handle(&mut self, order: WatchLogs, ctx: &mut Self::Context) -> u64 {
        let last = self.settings.book.last_seq();
        let from = self.tail.handle_watch(Instant::now(), order.level, order.lease, last);
        self.life.detail("somebody watches");
        if self.timer.is_none() {
            self.timer = Some(ctx.run_interval(LOOK_EVERY, Self::look));
        }
        from
    }
}
