//! What a command may ask of this box, and how it is done.
//!
//! | operation | arguments | done by |
//! |---|---|---|
//! | `take` | `scene?`, `kind?` (`cut`, `mix`), `duration_ms?` | the mixer |
//! | `scene` | `scene` (puts it on preview) | the mixer |
//! | `identify` | `seconds?` 1..300, default 10 | the mixer |
//! | `restart_service` | `service`, on the allow-list: an actor's name or a systemd unit | the house, or the host |
//! | `reboot` | `delay_seconds?` 0..300, default 0 | the host |
//! | `config` | `changes`, or `document` and `version` | [`config`](super::config) |
//! | `rotate_token` | | [`renewal`](super::renewal) |
//! | `bundle` | `include_logs?`, `include_config?`, `include_recordings?`, `include_diagnostics?` | [`bundle`](crate::bundle) |
//!
//! What the arguments alone decide is refused before anything is begun ([`Operations::judge`]): unknown arguments or ones
//! of another kind, an unknown scene, a service that is not on the list, a configuration that is not valid. What only the
//! effect can find out makes the command fail.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use r58_mqtt::CommandId;
use r58_mqtt::command::{EffectOutcome, OpSpec};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

use super::actors::{ActorsView, ComeBack};
use super::config::{Change, ConfigDesk, ConfigOutcome};
use crate::bundle::{self, MakeBundle, Progress, Wants};
use crate::host::{Host, REBOOT_DELAY_MAX, is_unit_name};
use crate::mixer::core::{MixerRefusal, TakeKind};
use crate::supervision::Door;

/// How long a restarted actor may take to run again.
pub const SERVICE_DEADLINE: Duration = Duration::from_secs(30);
/// The longest `identify`.
pub const IDENTIFY_MAX: Duration = Duration::from_secs(300);
/// A mixer, or the host, that has not answered by then has failed.
const ANSWER_DEADLINE: Duration = Duration::from_secs(15);
/// A systemd unit may take its time; the host ends its own call after 20 s.
const HOST_DEADLINE: Duration = Duration::from_secs(25);

/// Why an operation was not done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// It cannot be done here: an unknown scene, a service that is not listed. Nothing was begun.
    Rejected {
        /// One word.
        code: String,
        /// One sentence.
        reason: String,
    },
    /// It was tried.
    Failed {
        /// One word.
        code: String,
        /// One sentence.
        reason: String,
    },
}

impl Refusal {
    /// Nothing was begun.
    pub fn rejected(code: &str, reason: impl Into<String>) -> Self {
        Self::Rejected { code: code.to_owned(), reason: reason.into() }
    }

    /// It was tried.
    pub fn failed(code: &str, reason: impl Into<String>) -> Self {
        Self::Failed { code: code.to_owned(), reason: reason.into() }
    }
}

/// The mixer, as far as a command reaches it.
#[async_trait]
pub trait MixerDesk: Send + Sync {
    /// Whether a scene of that name can be taken; asks nobody.
    fn knows(&self, scene: &str) -> bool;

    /// Puts a scene (or the preview) on programme; the answer goes into the command's result.
    async fn take(&self, scene: Option<String>, kind: TakeKind) -> Result<Value, Refusal>;

    /// Puts a scene on preview.
    async fn preview(&self, scene: String) -> Result<Value, Refusal>;

    /// Shows the box's name on its programme.
    async fn identify(&self, length: Duration) -> Result<Value, Refusal>;
}

/// A command's operation with checked arguments.
#[derive(Debug, Clone, PartialEq)]
pub enum Operation {
    /// `take`
    Take {
        /// The scene; the preview when absent.
        scene: Option<String>,
        /// How.
        kind: TakeKind,
    },
    /// `scene`
    Scene {
        /// The scene.
        scene: String,
    },
    /// `identify`
    Identify {
        /// How long.
        length: Duration,
    },
    /// `restart_service`
    RestartService {
        /// Actor or unit.
        service: String,
    },
    /// `reboot`
    Reboot {
        /// How long to wait before it.
        delay: Duration,
    },
    /// `config`
    Config {
        /// What changes.
        change: Change,
    },
    /// `rotate_token`
    RotateToken,
    /// `bundle`
    Bundle {
        /// What is wanted in it.
        wants: Wants,
    },
}

/// The operations and what the command core must know about each.
///
/// Only what leaves the same state behind however often it runs counts as idempotent.
pub fn specs() -> BTreeMap<String, OpSpec> {
    let spec = |idempotent, reboots| OpSpec { idempotent, reboots };
    [
        ("take", spec(false, false)),
        ("scene", spec(true, false)),
        ("identify", spec(true, false)),
        ("restart_service", spec(false, false)),
        ("reboot", spec(false, true)),
        ("config", spec(false, false)),
        ("rotate_token", spec(true, false)),
        // By its id: what was made is found again.
        ("bundle", spec(true, false)),
    ]
    .into_iter()
    .map(|(name, spec)| (name.to_owned(), spec))
    .collect()
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TakeArgs {
    scene: Option<String>,
    kind: Option<String>,
    duration_ms: Option<u64>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SceneArgs {
    scene: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct IdentifyArgs {
    seconds: Option<u64>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ServiceArgs {
    service: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RebootArgs {
    delay_seconds: Option<u64>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NoArgs {}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ConfigArgs {
    changes: Option<Map<String, Value>>,
    document: Option<Map<String, Value>>,
    version: Option<u64>,
}

impl Operation {
    /// Checks the arguments of `op`.
    ///
    /// # Errors
    /// [`Refusal::Rejected`] with code `unsupported` or `arguments`.
    pub fn parse(op: &str, args: &Map<String, Value>) -> Result<Self, Refusal> {
        match op {
            "take" => {
                let TakeArgs { scene, kind, duration_ms } = read(args)?;
                match TakeKind::parse(kind.as_deref().unwrap_or("cut"), duration_ms) {
                    Ok(kind) => Ok(Self::Take { scene, kind }),
                    Err(error) => Err(Refusal::rejected("arguments", error.to_string())),
                }
            }
            "scene" => read::<SceneArgs>(args).map(|SceneArgs { scene }| Self::Scene { scene }),
            "identify" => {
                let seconds = read::<IdentifyArgs>(args)?.seconds.unwrap_or(10);
                within("seconds", seconds, 1, IDENTIFY_MAX).map(|length| Self::Identify { length })
            }
            "restart_service" => {
                read::<ServiceArgs>(args).map(|ServiceArgs { service }| Self::RestartService { service })
            }
            "reboot" => {
                let seconds = read::<RebootArgs>(args)?.delay_seconds.unwrap_or(0);
                within("delay_seconds", seconds, 0, REBOOT_DELAY_MAX).map(|delay| Self::Reboot { delay })
            }
            "bundle" => read::<Wants>(args).map(|wants| Self::Bundle { wants }),
            "config" => match read::<ConfigArgs>(args)? {
                ConfigArgs { changes: Some(changes), document: None, .. } => {
                    Ok(Self::Config { change: Change::Merge(changes) })
                }
                ConfigArgs { changes: None, document: Some(document), version: Some(version) } => {
                    Ok(Self::Config { change: Change::Replace { document, version } })
                }
                _ => Err(Refusal::rejected("arguments", "either changes, or document and version")),
            },
            "rotate_token" => read::<NoArgs>(args).map(|_| Self::RotateToken),
            _ => Err(Refusal::rejected("unsupported", "this box does not know the operation")),
        }
    }
}

fn read<T: DeserializeOwned>(args: &Map<String, Value>) -> Result<T, Refusal> {
    serde_json::from_value(Value::Object(args.clone())).map_err(|error| {
        let words: String = error.to_string().chars().filter(|c| !c.is_control()).take(160).collect();
        Refusal::rejected("arguments", words)
    })
}

fn within(what: &str, seconds: u64, least: u64, most: Duration) -> Result<Duration, Refusal> {
    match (least..=most.as_secs()).contains(&seconds) {
        true => Ok(Duration::from_secs(seconds)),
        false => Err(Refusal::rejected("arguments", format!("{what} is not within {least} to {}", most.as_secs()))),
    }
}

/// Everything that operations need. Cheap to clone.
#[derive(Clone)]
pub struct Operations {
    /// The mixer.
    pub mixer: Arc<dyn MixerDesk>,
    /// The tree.
    pub actors: ActorsView,
    /// The machine.
    pub host: Arc<dyn Host>,
    /// Allow-list of `restart_service`.
    pub services: Vec<String>,
    /// Who changes the configuration.
    pub config: Arc<ConfigDesk>,
    /// Who makes support bundles.
    pub bundles: Door<MakeBundle>,
}

impl Operations {
    /// The operation that a command asks for, with everything checked that its arguments decide. Has no effect and asks
    /// nobody.
    ///
    /// # Errors
    /// [`Refusal::Rejected`] with code `unsupported`, `arguments`, `unknown_scene`, `not_listed` or `invalid`.
    pub fn judge(&self, op: &str, args: &Map<String, Value>) -> Result<Operation, Refusal> {
        let operation = Operation::parse(op, args)?;
        match &operation {
            Operation::Take { scene: Some(scene), .. } | Operation::Scene { scene } if !self.mixer.knows(scene) => {
                Err(Refusal::rejected("unknown_scene", MixerRefusal::UnknownScene(scene.clone()).to_string()))
            }
            Operation::RestartService { service } if !self.services.contains(service) => {
                Err(Refusal::rejected("not_listed", "the service is not on this box's list"))
            }
            Operation::Config { change } => match self.config.check(change) {
                Ok(()) => Ok(operation),
                Err(reason) => Err(Refusal::rejected("invalid", reason)),
            },
            _ => Ok(operation),
        }
    }

    /// Does everything but what concerns the link itself: a reboot, another token. What takes its time tells how far it is.
    pub async fn run(&self, id: &CommandId, operation: Operation, progress: Progress) -> EffectOutcome {
        let done = match operation {
            Operation::Take { scene, kind } => answered("the mixer", self.mixer.take(scene, kind)).await,
            Operation::Scene { scene } => answered("the mixer", self.mixer.preview(scene)).await,
            Operation::Identify { length } => answered("the mixer", self.mixer.identify(length)).await,
            Operation::RestartService { service } => self.restart(&service).await,
            Operation::Config { change } => match self.config.change(id, change, &self.actors).await {
                ConfigOutcome::Applied { ver, restarted } => Ok(json!({"ver": ver, "restarted": restarted})),
                ConfigOutcome::Refused(reason) => Err(Refusal::rejected("invalid", reason)),
                ConfigOutcome::RolledBack(reason) => Err(Refusal::failed("rolled_back", reason)),
                ConfigOutcome::Unwritable(reason) => Err(Refusal::failed("disk", reason)),
            },
            Operation::Bundle { wants } => self.bundle(id, wants, progress).await,
            Operation::Reboot { .. } | Operation::RotateToken => {
                Err(Refusal::failed("bug", "this is not an ordinary effect"))
            }
        };
        outcome(done)
    }

    /// The bundle goes to the fleet by itself, afterwards.
    async fn bundle(&self, id: &CommandId, wants: Wants, progress: Progress) -> Result<Value, Refusal> {
        let order = MakeBundle { id: id.clone(), wants, progress };
        match self.bundles.send_within(order, bundle::DEADLINE + ANSWER_DEADLINE).await {
            Ok(Ok(made)) => {
                Ok(json!({"bundle": made.id.as_str(), "size_bytes": made.size_bytes, "sha256": made.sha256}))
            }
            Ok(Err(error)) => Err(Refusal::failed(error.code(), error.to_string())),
            Err(error) => Err(Refusal::failed("unavailable", error.to_string())),
        }
    }

    async fn restart(&self, service: &str) -> Result<Value, Refusal> {
        if is_unit_name(service) {
            let (host, unit) = (self.host.clone(), service.to_owned());
            let restarted = tokio::task::spawn_blocking(move || host.restart_unit(&unit));
            return match tokio::time::timeout(HOST_DEADLINE, restarted).await {
                Ok(Ok(Ok(()))) => Ok(json!({"unit": service})),
                Ok(Ok(Err(error))) => Err(Refusal::failed("host", error.to_string())),
                Ok(Err(_)) | Err(_) => Err(Refusal::failed("host", "the host did not answer")),
            };
        }
        match self.actors.restart(service, SERVICE_DEADLINE).await {
            ComeBack::Running { restarts } => Ok(json!({"actor": service, "restarts": restarts})),
            ComeBack::Unknown => Err(Refusal::rejected("unknown", "no actor or unit has that name")),
            ComeBack::Failed(reason) => Err(Refusal::failed("not_back", reason)),
        }
    }
}

/// What the command core is told.
pub(super) fn outcome(done: Result<Value, Refusal>) -> EffectOutcome {
    match done {
        Ok(Value::Null) => EffectOutcome::Succeeded(None),
        Ok(result) => EffectOutcome::Succeeded(Some(result)),
        Err(Refusal::Rejected { code, reason } | Refusal::Failed { code, reason }) => {
            EffectOutcome::Failed { code, reason }
        }
    }
}

async fn answered(who: &str, asked: impl Future<Output = Result<Value, Refusal>>) -> Result<Value, Refusal> {
    let late = || Err(Refusal::failed("timeout", format!("{who} did not answer")));
    tokio::time::timeout(ANSWER_DEADLINE, asked).await.unwrap_or_else(|_| late())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(op: &str, args: Value) -> Result<Operation, Refusal> {
        let Value::Object(args) = args else { panic!("not an object") };
        Operation::parse(op, &args)
    }

    #[test]
    fn arguments_are_checked_before_anything_begins() {
        let code = |parsed: Result<Operation, Refusal>| match parsed {
            Err(Refusal::Rejected { code, .. }) => code,
            other => panic!("{other:?}"),
        };
        assert_eq!(code(parse("format_disk", json!({}))), "unsupported");
        assert_eq!(code(parse("scene", json!({}))), "arguments");
        assert_eq!(code(parse("scene", json!({"scene": 3}))), "arguments");
        assert_eq!(code(parse("scene", json!({"scene": "quad", "force": true}))), "arguments");
        assert_eq!(code(parse("take", json!({"kind": "wipe"}))), "arguments");
        assert_eq!(code(parse("take", json!({"kind": "mix", "duration_ms": 0}))), "arguments");
        assert_eq!(code(parse("identify", json!({"seconds": 0}))), "arguments");
        assert_eq!(code(parse("reboot", json!({"delay_seconds": 301}))), "arguments");
        assert_eq!(code(parse("reboot", json!({"delay_seconds": -1}))), "arguments");
        assert_eq!(code(parse("config", json!({"document": {}}))), "arguments");
        assert_eq!(code(parse("config", json!({"document": {}, "version": 2, "changes": {}}))), "arguments");
        assert_eq!(code(parse("rotate_token", json!({"token": "ab"}))), "arguments");
    }

    #[test]
    fn what_may_be_left_out_has_its_default() {
        let take = Operation::Take { scene: None, kind: TakeKind::Cut };
        assert_eq!(parse("take", json!({})), Ok(take));
        assert_eq!(parse("reboot", json!({})), Ok(Operation::Reboot { delay: Duration::ZERO }));
        assert_eq!(parse("identify", json!({})), Ok(Operation::Identify { length: Duration::from_secs(10) }));
    }

    #[test]
    fn every_operation_of_the_table_can_be_parsed_and_only_a_reboot_reboots() {
        let specs = specs();
        assert_eq!(specs.len(), 8);
        assert!(specs.iter().all(|(name, spec)| spec.reboots == (name == "reboot")));
        for op in specs.keys() {
            let unsupported =
                matches!(parse(op, json!({})), Err(Refusal::Rejected { code, .. }) if code == "unsupported");
            assert!(!unsupported, "{op}");
        }
    }
}
