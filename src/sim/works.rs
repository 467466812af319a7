//! Carries out commands for a simulated device: each takes a while, some fail, a changed configuration is kept.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use r58_actors::bundle::Progress;
use r58_actors::fleet_link::config::Change;
use r58_actors::fleet_link::effects::Workshop;
use r58_actors::fleet_link::operations::{Operation, Refusal};
use r58_actors::host::Rebooting;
use r58_mqtt::CommandId;
use r58_mqtt::command::EffectOutcome;
use r58_mqtt::durable::{Changes, KeyValue, commit_async};
use r58_mqtt::payload::DeviceState;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::script::Script;
use super::tally::Tally;

/// The scenes of every simulated box.
pub const SCENES: [(&str, &str); 4] =
    [("full-cam1", "CAM 1"), ("quad", "Quad"), ("two-up", "Two-up"), ("pip", "Picture in picture")];
/// What `restart_service` may restart.
pub const SERVICES: [&str; 2] = ["kiosk.service", "mixer"];
/// Where the configuration lies in the device's store.
const CONFIG: &[u8] = b"s/config";

/// The configuration that commands have changed.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
struct Config {
    ver: u64,
    by: Option<CommandId>,
    doc: Map<String, Value>,
}

/// The workshop of one life of one device.
pub struct Played {
    device: u32,
    script: Arc<Mutex<Script>>,
    store: Arc<dyn KeyValue>,
    tally: Arc<Tally>,
    config: Mutex<Config>,
    running: AtomicU64,
}

/// Counts an effect for as long as it lasts, however it ends.
struct Running<'a>(&'a Played);

impl<'a> Running<'a> {
    fn begin(played: &'a Played) -> Self {
        played.running.fetch_add(1, Ordering::Relaxed);
        played.tally.running.step(true);
        Self(played)
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.running.fetch_sub(1, Ordering::Relaxed);
        self.0.tally.running.step(false);
    }
}

impl Played {
    /// With the configuration that the store holds.
    pub fn open(device: u32, script: Arc<Mutex<Script>>, store: Arc<dyn KeyValue>, tally: Arc<Tally>) -> Self {
        let held = store.get(CONFIG).ok().flatten();
        let config = held.and_then(|held| serde_json::from_slice(&held).ok()).unwrap_or_default();
        Self { device, script, store, tally, config: Mutex::new(config), running: AtomicU64::new(0) }
    }

    /// Whether an effect is under way.
    pub fn is_busy(&self) -> bool {
        self.running.load(Ordering::Relaxed) > 0
    }

    /// What commands have changed.
    pub fn document(&self) -> Value {
        Value::Object(self.config().doc)
    }

    fn config(&self) -> Config {
        self.config.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn dice(&self) -> (Duration, bool) {
        self.script.lock().unwrap_or_else(PoisonError::into_inner).effect()
    }

    async fn configure(&self, id: &CommandId, change: Change) -> Result<Value, String> {
        let mut config = self.config();
        match change {
            Change::Merge(changes) => {
                config.ver += 1;
                config.doc.extend(changes);
            }
            Change::Replace { version, .. } if version <= config.ver => return Err("it comes too late".to_owned()),
            Change::Replace { document, version } => (config.ver, config.doc) = (version, document),
        }
        config.by = Some(id.clone());
        let mut written = Changes::new();
        written.put(CONFIG, serde_json::to_vec(&config).map_err(|error| error.to_string())?);
        commit_async(&*self.store, written).await.map_err(|error| error.to_string())?;
        let ver = config.ver;
        *self.config.lock().unwrap_or_else(PoisonError::into_inner) = config;
        Ok(json!({"ver": ver, "restarted": []}))
    }
}

#[async_trait]
impl Workshop for Played {
    fn desired_ver(&self) -> u64 {
        self.config().ver
    }

    fn judge(&self, op: &str, args: &Map<String, Value>) -> Result<Operation, Refusal> {
        let operation = Operation::parse(op, args)?;
        let known = |scene: &str| SCENES.iter().any(|(id, _)| *id == scene);
        match &operation {
            Operation::Take { scene: Some(scene), .. } | Operation::Scene { scene } if !known(scene) => {
                Err(Refusal::rejected("unknown_scene", "this box has no such scene"))
            }
            Operation::RestartService { service } if !SERVICES.contains(&service.as_str()) => {
                Err(Refusal::rejected("not_listed", "the service is not on this box's list"))
            }
            Operation::RotateToken | Operation::Bundle { .. } => {
                Err(Refusal::rejected("unsupported", "a simulated box does not do that"))
            }
            _ => Ok(operation),
        }
    }

    async fn run(&self, id: &CommandId, operation: Operation, _: Progress) -> EffectOutcome {
        let running = Running::begin(self);
        let may_repeat = matches!(operation, Operation::Scene { .. } | Operation::Identify { .. });
        self.tally.effect_begins(self.device, id, !may_repeat);
        let (takes, succeeds) = self.dice();
        tokio::time::sleep(takes).await;
        drop(running);
        if !succeeds {
            let reason = "it was this effect's turn to fail".to_owned();
            return EffectOutcome::Failed { code: "simulated".to_owned(), reason };
        }
        let result = match operation {
            Operation::Take { scene, .. } => Ok(json!({"pgm": scene.unwrap_or_else(|| "quad".to_owned())})),
            Operation::Scene { scene } => Ok(json!({"pvw": scene})),
            Operation::RestartService { service } => Ok(json!({"unit": service})),
            Operation::Config { change } => self.configure(id, change).await,
            _ => Ok(json!({"simulated": true})),
        };
        match result {
            Ok(result) => EffectOutcome::Succeeded(Some(result)),
            Err(reason) => EffectOutcome::Failed { code: "disk".to_owned(), reason },
        }
    }

    async fn reboot(&self, delay: Duration) -> Result<Rebooting, String> {
        let _running = Running::begin(self);
        tokio::time::sleep(delay).await;
        Ok(Rebooting::Played)
    }

    fn is_applied(&self, id: &CommandId) -> bool {
        self.config().by.as_ref() == Some(id)
    }

    fn ended(&self, id: &CommandId, state: DeviceState) {
        self.tally.command_ended(self.device, id, state);
    }
}
