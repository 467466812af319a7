//! Live updates: what changed is noted here, read back from the database, and told to everyone who listens.
//!
//! Notes are collected for a moment, so that a device that changes ten times in it costs one query and one card, and
//! with nobody listening they cost nothing. What is pushed is always what the database holds; of devices, what somebody shows
//! ([`interest`]).

pub mod interest;

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use r58_actors::rounds::Round;
use r58_mqtt::DeviceAddress;
use serde::Serialize;
use tokio::sync::{Notify, broadcast, watch};

use self::interest::{Interest, Interests, Wanted};
use super::api::alerts::Alert;
use super::api::commands::CommandAnswer;
use super::api::devices::card::DeviceCard;
use super::store::{DeviceFilter, Store, StoreError};

/// Updates that a slow listener may be behind before it has to read everything again.
const BACKLOG: usize = 1_024;
/// Time for which notes are collected.
const GATHER: Duration = Duration::from_millis(100);
/// How often there is a look who is to be told that something moved.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Devices read in one query.
const AT_ONCE: usize = 200;
/// Alerts told one by one; of more, listeners read the list anew.
const ALERTS: usize = 20;

/// Told to who shows a part of the devices, when others changed.
pub const MOVED: &str = "moved";
/// Told to who asked for it, of each change in the audit log.
pub const CHANGED: &str = "changed";
/// Who may come in may have changed: streams look again whether theirs still may.
pub const ACCESS: &str = "access";
/// Kinds of changes that may end a session.
const WHO: &[&str] = &["user", "api_key"];
/// Ends the streams of every organization, so that their readers read everything anew.
pub const MISSED: &str = "missed";

/// One update for the listeners of an organization.
#[derive(Debug, Clone)]
pub struct Update {
    /// Only its own users hear of it.
    pub org: Arc<str>,
    /// The device that it speaks of.
    pub device: Option<Arc<str>>,
    /// `device`, `command`, `alert`, `alerts`, `rollout`, `release`, `thumbnail`, [`MOVED`], [`CHANGED`], [`ACCESS`] or [`MISSED`].
    pub event: &'static str,
    /// JSON in one line.
    pub data: Arc<str>,
}

/// What changed: organization and identifier, or kind.
#[derive(Debug, Default)]
pub(super) struct Notes {
    /// Devices.
    pub devices: BTreeSet<(String, String)>,
    /// Commands.
    pub commands: BTreeSet<(String, String)>,
    /// Alerts; without an identifier, something about all of an organization's.
    pub alerts: BTreeSet<(String, String)>,
    /// Rollouts.
    pub rollouts: BTreeSet<(String, String)>,
    /// Kinds of things, of which the audit log has changes; `sign_in` besides.
    pub kinds: BTreeSet<(String, String)>,
}

/// Notes for the other servers of the same database.
#[derive(Default)]
struct Outgoing {
    notes: Mutex<Notes>,
    noted: Notify,
}

struct Inner {
    notes: Mutex<Notes>,
    noted: Notify,
    outgoing: Option<Outgoing>,
    updates: broadcast::Sender<Update>,
    interests: Interests,
    closed: watch::Sender<bool>,
}

/// Where changes are noted and updates come out. Cheap to clone.
#[derive(Clone)]
pub struct Hub {
    inner: Arc<Inner>,
}

impl Default for Hub {
    fn default() -> Self {
        Self::new(false)
    }
}

impl Hub {
    /// A hub; `shared` when other servers are told too.
    pub fn new(shared: bool) -> Self {
        let inner = Inner {
            notes: Mutex::default(),
            noted: Notify::new(),
            outgoing: shared.then(Outgoing::default),
            updates: broadcast::channel(BACKLOG).0,
            interests: Interests::default(),
            closed: watch::channel(false).0,
        };
        Self { inner: Arc::new(inner) }
    }
}

/// Turns notes into updates.
pub(super) struct Pump {
    hub: Hub,
    store: Store,
    looked: Option<Instant>,
}

impl Pump {
    pub fn new(hub: Hub, store: Store) -> Self {
        Self { hub, store, looked: None }
    }
}

#[async_trait]
impl Round for Pump {
    async fn round(&mut self) -> Result<Duration, String> {
        let inner = &self.hub.inner;
        let looked = *self.looked.get_or_insert_with(Instant::now);
        tokio::select! {
            () = tokio::time::sleep_until((looked + LOOK_EVERY).into()) => {
                self.looked = Some(Instant::now());
                for org in inner.interests.due(Instant::now()) {
                    self.hub.tell_of(&org, None, MOVED, &serde_json::json!({}));
                }
                return Ok(Duration::ZERO);
            }
            () = inner.noted.notified() => {}
        }
        let notes = std::mem::take(&mut *inner.notes.lock().unwrap_or_else(PoisonError::into_inner));
        if let Err(error) = self.hub.run_once(&self.store, notes).await {
            // What they would have told is lost.
            self.hub.missed();
            return Err(error.to_string());
        }
        Ok(GATHER)
    }
}

/// A picture that came in.
#[derive(Debug, Serialize)]
struct ThumbnailNote<'a> {
    device_id: &'a str,
    name: &'a str,
    seq: u64,
}

impl Hub {
    /// Listens to updates. Devices that are named are told at once as they are now.
    pub fn listen(&self, org: &str, wanted: Wanted) -> (broadcast::Receiver<Update>, Interest) {
        let updates = self.inner.updates.subscribe();
        let named = wanted.clone().unwrap_or_default();
        let interest = self.inner.interests.enter(org, wanted);
        if !named.is_empty() {
            self.note_here(|notes| notes.devices.extend(named.into_iter().map(|id| (org.to_owned(), id))));
        }
        (updates, interest)
    }

    /// How many listen.
    pub fn listeners(&self) -> usize {
        self.inner.updates.receiver_count()
    }

    /// Becomes true when the server stops.
    pub fn closed(&self) -> watch::Receiver<bool> {
        self.inner.closed.subscribe()
    }

    /// Ends every stream.
    pub fn close(&self) {
        self.inner.closed.send_replace(true);
    }

    /// Notes that devices changed.
    pub fn devices_changed<'a>(&self, devices: impl IntoIterator<Item = &'a DeviceAddress>) {
        let keys: Vec<(String, String)> =
            devices.into_iter().map(|device| (device.org.to_string(), device.device.to_string())).collect();
        self.note(|notes| notes.devices.extend(keys.iter().cloned()));
    }

    /// Notes that a device changed.
    pub fn device_changed(&self, org: &str, device: &str) {
        self.note(|notes| {
            notes.devices.insert((org.to_owned(), device.to_owned()));
        });
    }

    /// Notes that a command changed.
    pub fn command_changed(&self, org: &str, id: &str) {
        self.note(|notes| {
            notes.commands.insert((org.to_owned(), id.to_owned()));
        });
    }

    /// Notes that an alert changed.
    pub fn alert_changed(&self, org: &str, id: &str) {
        self.note(|notes| {
            notes.alerts.insert((org.to_owned(), id.to_owned()));
        });
    }

    /// Notes that something about all alerts of an organization changed, such as a silence or a rule.
    pub fn alerts_regrouped(&self, org: &str) {
        self.alert_changed(org, "");
    }

    /// Notes that a rollout began, moved or ended.
    pub fn rollout_changed(&self, org: &str, id: &str) {
        self.note(|notes| {
            notes.rollouts.insert((org.to_owned(), id.to_owned()));
        });
    }

    /// Notes changes that the audit log has: organizations and kinds of things.
    pub fn kinds_changed(&self, kinds: BTreeSet<(String, String)>) {
        self.note(|notes| notes.kinds.extend(kinds.iter().cloned()));
    }

    /// Notes that somebody signed in.
    pub fn signed_in(&self, org: &str) {
        self.kinds_changed([(org.to_owned(), "sign_in".to_owned())].into());
    }

    /// Tells that a picture came in.
    pub fn picture_came(&self, org: &str, device: &str, name: &str, seq: u64) {
        if self.inner.updates.receiver_count() > 0 {
            self.tell_of(org, Some(device), "thumbnail", &ThumbnailNote { device_id: device, name, seq });
        }
    }

    /// Tells everyone that updates were lost and everything should be read anew.
    pub fn missed(&self) {
        let _ = self.inner.updates.send(Update { org: "".into(), device: None, event: MISSED, data: "".into() });
    }

    fn note(&self, change: impl Fn(&mut Notes)) {
        if let Some(outgoing) = &self.inner.outgoing {
            change(&mut outgoing.notes.lock().unwrap_or_else(PoisonError::into_inner));
            outgoing.noted.notify_one();
        }
        self.note_here(change);
    }

    /// Waits for something that the other servers should hear, and a moment longer for what comes with it.
    pub(super) async fn outgoing(&self) -> Notes {
        let Some(outgoing) = &self.inner.outgoing else { return std::future::pending().await };
        outgoing.noted.notified().await;
        tokio::time::sleep(GATHER).await;
        std::mem::take(&mut *outgoing.notes.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Takes what another server noted.
    pub(super) fn heard(&self, notes: Notes) {
        self.note_here(|held| {
            held.devices.extend(notes.devices);
            held.commands.extend(notes.commands);
            held.alerts.extend(notes.alerts);
            held.rollouts.extend(notes.rollouts);
            held.kinds.extend(notes.kinds);
        });
    }

    fn note_here(&self, change: impl FnOnce(&mut Notes)) {
        if self.inner.updates.receiver_count() == 0 {
            return;
        }
        change(&mut self.inner.notes.lock().unwrap_or_else(PoisonError::into_inner));
        self.inner.noted.notify_one();
    }

    fn tell(&self, org: &str, event: &'static str, data: &impl Serialize) {
        self.tell_of(org, None, event, data);
    }

    fn tell_of(&self, org: &str, device: Option<&str>, event: &'static str, data: &impl Serialize) {
        if let Ok(data) = serde_json::to_string(data) {
            let device = device.map(Arc::from);
            // No listener is no error.
            let _ = self.inner.updates.send(Update { org: org.into(), device, event, data: data.into() });
        }
    }

    /// Alerts one by one while they are few, and in one word when they are many.
    async fn alerts(&self, store: &Store, notes: &BTreeSet<(String, String)>) -> Result<(), StoreError> {
        let notes: Vec<&(String, String)> = notes.iter().collect();
        for same_org in notes.chunk_by(|a, b| a.0 == b.0) {
            let org = &same_org[0].0;
            if same_org.len() > ALERTS || same_org.iter().any(|(_, id)| id.is_empty()) {
                self.tell(org, "alerts", &serde_json::json!({}));
                continue;
            }
            let now = chrono::Utc::now();
            let silences = store.silences_in_force(org, now).await?;
            for (org, id) in same_org {
                if let Some(row) = store.alert(org, id).await? {
                    self.tell(org, "alert", &Alert::new(row, &silences, now));
                }
            }
        }
        Ok(())
    }

    async fn run_once(&self, store: &Store, notes: Notes) -> Result<(), StoreError> {
        for (org, kind) in &notes.kinds {
            self.tell(org, CHANGED, &serde_json::json!({ "kind": kind }));
            if kind == "release" {
                self.tell(org, "release", &serde_json::json!({}));
            }
            if WHO.contains(&kind.as_str()) {
                self.tell(org, ACCESS, &serde_json::json!({}));
            }
        }
        self.inner.interests.moved(&notes.devices);
        let devices: Vec<(String, String)> = self.inner.interests.sift(notes.devices).into_iter().collect();
        for same_org in devices.chunk_by(|a, b| a.0 == b.0) {
            for chunk in same_org.chunks(AT_ONCE) {
                let ids = chunk.iter().map(|(_, id)| id.clone()).collect();
                let filter = DeviceFilter { ids: Some(ids), ..DeviceFilter::default() };
                let rows = store.devices_after(&chunk[0].0, &filter, None, AT_ONCE as i64).await?;
                for row in &rows {
                    self.tell_of(&row.org, Some(&row.id), "device", &DeviceCard::new(row));
                }
            }
        }
        self.alerts(store, &notes.alerts).await?;
        for (org, id) in &notes.rollouts {
            // How its devices stand is counted by who reads it.
            self.tell(org, "rollout", &serde_json::json!({"id": id}));
        }
        for (org, id) in &notes.commands {
            let Some(row) = store.command(org, id).await? else { continue };
            let history = store.command_history(std::slice::from_ref(id)).await?;
            let device = row.device_id.clone();
            self.tell_of(org, Some(&device), "command", &CommandAnswer::new(row, history));
        }
        Ok(())
    }
}
