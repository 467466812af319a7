//! Real parts for tests: a mosquitto of one's own on a free port, a listener on the broker, a fleet in memory.

use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use chrono::{DateTime, Utc};
use r58_mqtt::payload::{Batch, DeviceState, Heartbeat, Payload as _, Presence, PresenceState};
use r58_mqtt::session::{
    BackoffSettings, Incoming, Outgoing, RetainHandling, Session, SessionEvent, SessionEvents, SessionSettings,
    Subscription,
};
use r58_mqtt::{CommandId, DeviceAddress, Name};

use crate::ingest::store::{Applied, FleetStore, Outgoing as OutgoingCommand, Record, Report, StoreError, SyncState};
use crate::supervision::lock;

/// Longest wait for a condition on a busy machine.
pub const LIMIT: Duration = Duration::from_secs(20);

/// A mosquitto process; ended when dropped.
pub struct Mosquitto {
    dir: tempfile::TempDir,
    address: SocketAddr,
    child: Option<Child>,
}

impl Mosquitto {
    /// Starts one on a free port of the loopback interface. What it persists, it writes at its orderly end.
    pub fn start() -> Self {
        let address = TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap();
        let dir = tempfile::tempdir().unwrap();
        let config = format!(
            "listener {} 127.0.0.1\nallow_anonymous true\nuser root\npersistence true\npersistence_location {}/\n\
             autosave_interval 1\nautosave_on_changes true\nmax_queued_messages 100000\nmax_inflight_messages 1000\n",
            address.port(),
            dir.path().display()
        );
        std::fs::write(dir.path().join("mosquitto.conf"), config).unwrap();
        let mut broker = Self { dir, address, child: None };
        broker.again();
        broker
    }

    /// Starts it again on the same port and files; waits until it listens.
    pub fn again(&mut self) {
        assert!(self.child.is_none());
        let child = Command::new("mosquitto")
            .arg("-c")
            .arg(self.dir.path().join("mosquitto.conf"))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("mosquitto is installed");
        self.child = Some(child);
        let deadline = Instant::now() + LIMIT;
        while TcpStream::connect(self.address).is_err() {
            assert!(Instant::now() < deadline, "mosquitto does not listen");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    pub fn url(&self) -> String {
        format!("mqtt://{}", self.address)
    }

    /// Settings of a client that comes back quickly.
    pub fn client(&self, id: &str) -> SessionSettings {
        let mut settings = SessionSettings::new(self.url(), id, "$fleet", "secret");
        settings.backoff = brisk();
        settings
    }
}

impl Drop for Mosquitto {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Pauses that suit a test.
pub fn brisk() -> BackoffSettings {
    let (first, max, floor) = (Duration::from_millis(20), Duration::from_millis(200), Duration::from_millis(10));
    BackoffSettings { first, max, floor, ..BackoffSettings::default() }
}

/// Hears everything below one filter, and can speak.
pub struct Listener {
    pub session: Session,
    events: SessionEvents,
    /// Everything heard so far.
    pub heard: Vec<Incoming>,
}

impl Listener {
    /// Connected and subscribed when it returns.
    pub async fn start(broker: &Mosquitto, id: &str, filter: &str) -> Self {
        let mut settings = broker.client(id);
        settings.session_expiry = Duration::ZERO;
        settings.receive_max = 1000;
        settings.event_capacity = 4096;
        settings.subscriptions =
            vec![Subscription { retain_handling: RetainHandling::AtSubscribe, ..Subscription::new(filter) }];
        let (session, events) = Session::start(settings).unwrap();
        let mut listener = Self { session, events, heard: Vec::new() };
        listener.ready().await;
        listener
    }

    /// Waits until the next SUBACK.
    pub async fn ready(&mut self) {
        while !matches!(self.event().await, SessionEvent::Subscribed { .. }) {}
    }

    async fn event(&mut self) -> SessionEvent {
        let event = tokio::time::timeout(LIMIT, self.events.recv()).await;
        let event = event.expect("an event in time").expect("the session lives");
        if let SessionEvent::Message(message) = &event {
            if let Some(token) = message.ack {
                self.session.ack(token);
            }
            self.heard.push(message.clone());
        }
        event
    }

    /// The next message for which `wanted` gives something.
    pub async fn until<T>(&mut self, mut wanted: impl FnMut(&Incoming) -> Option<T>) -> T {
        let deadline = tokio::time::Instant::now() + LIMIT;
        loop {
            let event = tokio::time::timeout_at(deadline, self.event()).await;
            let Ok(event) = event else {
                let heard: Vec<&str> = self.heard.iter().map(|message| message.topic.as_str()).collect();
                panic!("not heard; heard were {heard:?}");
            };
            if let SessionEvent::Message(message) = event
                && let Some(found) = wanted(&message)
            {
                return found;
            }
        }
    }

    /// Says something with QoS 1 and waits for its acknowledgement.
    pub async fn say(&self, topic: &str, body: impl Into<Bytes>, retain: bool) {
        let receipt = self.session.publish(Outgoing::json(topic, body).retained(retain)).await.unwrap();
        tokio::time::timeout(LIMIT, receipt).await.unwrap().unwrap();
    }
}

/// Polls a condition until it holds.
pub async fn eventually<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + LIMIT;
    loop {
        if let Some(found) = condition() {
            return found;
        }
        assert!(Instant::now() < deadline, "not in time: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// A command's row.
#[derive(Debug, Clone)]
pub struct CommandRow {
    pub device: DeviceAddress,
    pub message: Bytes,
    pub state: Option<DeviceState>,
    pub rev: u64,
    pub published: bool,
    pub withdrawn: bool,
    /// Every state taken, in order.
    pub history: Vec<DeviceState>,
}

/// What a [`MemoryFleet`] holds.
#[derive(Debug, Default)]
pub struct Rows {
    pub presence: BTreeMap<DeviceAddress, Presence>,
    /// By (device, seq), once each.
    pub heartbeats: BTreeMap<(DeviceAddress, u64), Heartbeat>,
    pub acked: BTreeMap<(DeviceAddress, Name), u64>,
    pub commands: BTreeMap<CommandId, CommandRow>,
    pub events: Vec<String>,
    pub applied: u64,
    pub calls: u64,
    /// What the next calls answer in place of doing anything.
    pub failing: Option<StoreError>,
    /// A device whose records the store refuses.
    pub poison: Option<DeviceAddress>,
}

/// A fleet's database in memory, guarded as the trait demands.
#[derive(Default)]
pub struct MemoryFleet(pub Mutex<Rows>);

impl MemoryFleet {
    pub fn add_command(&self, device: &DeviceAddress, id: &CommandId, message: impl Into<Bytes>) {
        let row = CommandRow {
            device: device.clone(),
            message: message.into(),
            state: None,
            rev: 0,
            published: false,
            withdrawn: false,
            history: Vec::new(),
        };
        lock(&self.0).commands.insert(id.clone(), row);
    }

    pub fn command(&self, id: &CommandId) -> CommandRow {
        lock(&self.0).commands[id].clone()
    }

    fn ask(&self) -> Result<std::sync::MutexGuard<'_, Rows>, StoreError> {
        let mut rows = lock(&self.0);
        rows.calls += 1;
        match &rows.failing {
            Some(error) => Err(error.clone()),
            None => Ok(rows),
        }
    }
}

impl Rows {
    fn heartbeat(&mut self, device: &DeviceAddress, heartbeat: Heartbeat) {
        self.heartbeats.entry((device.clone(), heartbeat.seq)).or_insert(heartbeat);
    }

    fn batch(&mut self, device: &DeviceAddress, batch: &Batch) {
        for item in &batch.items {
            if let Ok(heartbeat) = Heartbeat::from_value(item.data.clone()) {
                self.heartbeat(device, heartbeat);
            }
        }
        let acked = self.acked.entry((device.clone(), batch.stream.clone())).or_default();
        *acked = batch.contiguous_after(*acked);
    }

    fn apply(&mut self, record: &Record, applied: &mut Applied) {
        let device = &record.device;
        let hb = Name::new("hb").unwrap();
        match &record.report {
            Report::Presence(presence) => {
                let held = self.presence.get(device).map(|held| (held.state, held.order));
                if presence.is_news(held) {
                    self.presence.insert(device.clone(), presence.clone());
                    applied.devices.push(device.clone());
                }
            }
            Report::Heartbeat { heartbeat, .. } => {
                self.heartbeat(device, (**heartbeat).clone());
                let acked = self.acked.entry((device.clone(), hb.clone())).or_default();
                if *acked == 0 || heartbeat.seq == *acked + 1 {
                    *acked = heartbeat.seq;
                }
                applied.acked.entry(device.clone()).or_default().insert(hb, *acked);
                applied.devices.push(device.clone());
            }
            Report::Batch(batch) => {
                self.batch(device, batch);
                let acked = self.acked[&(device.clone(), batch.stream.clone())];
                applied.acked.entry(device.clone()).or_default().insert(batch.stream.clone(), acked);
            }
            Report::Status { status, .. } => {
                if let Some(row) = self.commands.get_mut(&status.id)
                    && status.is_news(Some(row.rev))
                {
                    (row.rev, row.state) = (status.rev, Some(status.state));
                    row.history.push(status.state);
                    applied.commands.push((device.clone(), status.id.clone()));
                }
            }
            Report::Event { event, .. } => self.events.push(event.text.clone()),
            Report::Caps(_) | Report::Reported { .. } | Report::Sync(_) => {}
        }
    }
}

#[async_trait]
impl FleetStore for MemoryFleet {
    async fn apply(&self, records: &[Record]) -> Result<Applied, StoreError> {
        let mut rows = self.ask()?;
        if records.iter().any(|record| rows.poison.as_ref() == Some(&record.device)) {
            return Err(StoreError::Refused("poison".to_owned()));
        }
        let mut applied = Applied::default();
        for record in records {
            rows.apply(record, &mut applied);
            rows.applied += 1;
        }
        Ok(applied)
    }

    async fn mark_silent(&self, now: DateTime<Utc>) -> Result<Vec<DeviceAddress>, StoreError> {
        let mut rows = self.ask()?;
        let last = |rows: &Rows, device: &DeviceAddress| {
            rows.heartbeats.iter().filter(|((of, _), _)| of == device).map(|(_, beat)| beat.ts).max()
        };
        let silent: Vec<DeviceAddress> = rows
            .presence
            .iter()
            .filter(|(device, held)| {
                held.state == PresenceState::Online
                    && last(&rows, device).is_some_and(|at| now - at > chrono::TimeDelta::seconds(3))
            })
            .map(|(device, _)| device.clone())
            .collect();
        for device in &silent {
            if let Some(held) = rows.presence.get_mut(device) {
                held.state = PresenceState::Offline;
                held.reason = Some("silent".to_owned());
            }
        }
        Ok(silent)
    }

    async fn sync_state(&self, device: &DeviceAddress) -> Result<Option<SyncState>, StoreError> {
        let rows = self.ask()?;
        let open = rows.commands.iter().filter(|(_, row)| {
            row.device == *device && row.published && !row.state.is_some_and(DeviceState::is_terminal)
        });
        let pending = open.map(|(id, _)| id.clone()).collect();
        let acked = rows.acked.iter().filter(|((of, _), _)| of == device);
        let acked = acked.map(|((_, stream), seq)| (stream.clone(), *seq)).collect();
        Ok(Some(SyncState { pending, acked, seq_floor: 0 }))
    }

    async fn expire_commands(&self, _: DateTime<Utc>) -> Result<Vec<(DeviceAddress, CommandId)>, StoreError> {
        Ok(Vec::new())
    }

    async fn commands_to_publish(&self, limit: usize) -> Result<Vec<OutgoingCommand>, StoreError> {
        let rows = self.ask()?;
        let drafts = rows.commands.iter().filter(|(_, row)| !row.published);
        let outgoing = |(id, row): (&CommandId, &CommandRow)| OutgoingCommand {
            device: row.device.clone(),
            id: id.clone(),
            message: row.message.clone(),
        };
        Ok(drafts.map(outgoing).take(limit).collect())
    }

    async fn mark_published(&self, ids: &[CommandId], _: DateTime<Utc>) -> Result<(), StoreError> {
        let mut rows = self.ask()?;
        for id in ids {
            rows.commands.get_mut(id).unwrap().published = true;
        }
        Ok(())
    }

    async fn commands_to_withdraw(&self, limit: usize) -> Result<Vec<(DeviceAddress, CommandId)>, StoreError> {
        let rows = self.ask()?;
        let over = rows
            .commands
            .iter()
            .filter(|(_, row)| row.published && !row.withdrawn && row.state.is_some_and(DeviceState::is_terminal));
        Ok(over.map(|(id, row)| (row.device.clone(), id.clone())).take(limit).collect())
    }

    async fn mark_withdrawn(&self, ids: &[CommandId]) -> Result<(), StoreError> {
        let mut rows = self.ask()?;
        for id in ids {
            rows.commands.get_mut(id).unwrap().withdrawn = true;
        }
        Ok(())
    }

    async fn open_commands(&self, device: &DeviceAddress) -> Result<Vec<OutgoingCommand>, StoreError> {
        let rows = self.ask()?;
        let open = rows.commands.iter().filter(|(_, row)| {
            row.device == *device && row.published && !row.state.is_some_and(DeviceState::is_terminal)
        });
        let outgoing = |(id, row): (&CommandId, &CommandRow)| OutgoingCommand {
            device: row.device.clone(),
            id: id.clone(),
            message: row.message.clone(),
        };
        Ok(open.map(outgoing).collect())
    }
}
