//! Configuration by command: which keys may change while the box runs, and who has to be restarted for each.
//!
//! What may change is the source of an input (`inputs.{id}.source`): the camera concerned is restarted, and nothing else
//! notices. Everything else is refused with a sentence, because it would stop the programme or cut the command's own way.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use r58_actors::device::SourceCell;
use r58_actors::fleet_link::config::ConfigSeam;
use r58_pipelines::input::SourceSpec;
use serde_json::{Map, Value, json};

use crate::config::DeviceSettings;

/// The sources as configured, and where the cameras read what is in force.
pub struct LiveConfig {
    configured: DeviceSettings,
    cells: BTreeMap<String, SourceCell>,
    installed: Mutex<Map<String, Value>>,
}

impl LiveConfig {
    /// Over the configuration file's settings.
    pub fn new(configured: &DeviceSettings, cells: BTreeMap<String, SourceCell>) -> Self {
        Self { configured: configured.clone(), cells, installed: Mutex::default() }
    }

    /// The sources that an overlay makes of the configured ones.
    fn sources(&self, overlay: &Map<String, Value>) -> Result<BTreeMap<String, SourceSpec>, String> {
        let configured = self.configured.inputs.iter().map(|input| (input.id.clone(), input.source.clone()));
        let mut sources: BTreeMap<String, SourceSpec> = configured.collect();
        for (key, value) in overlay {
            if key != "inputs" {
                return Err(format!("{key} cannot be changed while the box runs; inputs.{{id}}.source can"));
            }
            let inputs = value.as_object().ok_or("inputs wants an object")?;
            for (id, input) in inputs {
                let held = sources.get_mut(id).ok_or_else(|| format!("no input is named {id}"))?;
                *held = source_of(id, input)?.unwrap_or_else(|| held.clone());
            }
        }
        Ok(sources)
    }
}

fn source_of(id: &str, input: &Value) -> Result<Option<SourceSpec>, String> {
    let fields = input.as_object().ok_or_else(|| format!("inputs.{id} wants an object"))?;
    let mut source = None;
    for (key, value) in fields {
        if key != "source" {
            return Err(format!("inputs.{id}.{key} cannot be changed while the box runs; inputs.{id}.source can"));
        }
        let spec = serde_json::from_value(value.clone()).map_err(|error| format!("inputs.{id}.source: {error}"))?;
        source = Some(spec);
    }
    Ok(source)
}

impl ConfigSeam for LiveConfig {
    fn check(&self, before: &Map<String, Value>, after: &Map<String, Value>) -> Result<Vec<String>, String> {
        let (before, after) = (self.sources(before)?, self.sources(after)?);
        let changed = after.iter().filter(|(id, source)| before.get(*id) != Some(source));
        Ok(changed.map(|(id, _)| format!("camera {id}")).collect())
    }

    fn install(&self, overlay: &Map<String, Value>) {
        let sources = match self.sources(overlay) {
            Ok(sources) => sources,
            Err(reason) => {
                tracing::error!(reason, "a configuration that was checked cannot be installed");
                return;
            }
        };
        for (id, source) in sources {
            if let Some(cell) = self.cells.get(&id) {
                cell.set(source);
            }
        }
        *self.installed.lock().unwrap_or_else(PoisonError::into_inner) = overlay.clone();
    }

    fn public(&self) -> Value {
        let programme = &self.configured.programme;
        let inputs: Map<String, Value> =
            self.cells.iter().map(|(id, cell)| (id.clone(), json!({ "source": shown(&cell.get()) }))).collect();
        json!({
            "programme": { "width": programme.width, "height": programme.height, "fps": programme.fps, "bitrate_kbps": programme.bitrate_kbps },
            "inputs": inputs,
            "link": { "heartbeat_seconds": self.configured.link.heartbeat_seconds },
        })
    }
}

/// A source without the user and password that an RTSP address may carry.
fn shown(source: &SourceSpec) -> Value {
    let mut shown = json!(source);
    if let Some(url) = shown.get("url").and_then(Value::as_str) {
        let bare = match (url.split_once("://"), url.rsplit_once('@')) {
            (Some((scheme, _)), Some((_, host))) => format!("{scheme}://{host}"),
            _ => url.to_owned(),
        };
        shown["url"] = json!(bare);
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::InputSettings;

    fn live() -> LiveConfig {
        let source = SourceSpec::Test { pattern: "ball".into(), tone_hz: 440.0 };
        let input = |id: &str| InputSettings { id: id.into(), label: String::new(), source: source.clone() };
        let settings = DeviceSettings { inputs: vec![input("cam1"), input("cam2")], ..DeviceSettings::default() };
        let cells = ["cam1", "cam2"].map(|id| (id.to_owned(), SourceCell::new(source.clone())));
        LiveConfig::new(&settings, cells.into())
    }

    fn doc(value: Value) -> Map<String, Value> {
        value.as_object().cloned().expect("an object")
    }

    #[test]
    fn a_new_source_concerns_its_camera_only() {
        let live = live();
        let after = doc(json!({ "inputs": { "cam2": { "source": { "kind": "test", "pattern": "red" } } } }));
        assert_eq!(live.check(&Map::new(), &after), Ok(vec!["camera cam2".to_owned()]));
        live.install(&after);
        assert_eq!(live.public()["inputs"]["cam2"]["source"]["pattern"], "red");
        assert_eq!(live.public()["inputs"]["cam1"]["source"]["pattern"], "ball");
        live.install(&Map::new());
        assert_eq!(live.public()["inputs"]["cam2"]["source"]["pattern"], "ball");
    }

    #[test]
    fn what_cannot_change_is_refused_with_a_sentence() {
        let live = live();
        for (change, said) in [
            (json!({ "programme": { "fps": 50 } }), "programme cannot be changed"),
            (json!({ "inputs": { "cam9": {} } }), "no input is named cam9"),
            (json!({ "inputs": { "cam1": { "label": "X" } } }), "inputs.cam1.label cannot be changed"),
            (json!({ "inputs": { "cam1": { "source": { "kind": "film" } } } }), "inputs.cam1.source: "),
            (json!({ "inputs": { "cam1": { "source": { "kind": "test", "colour": "red" } } } }), "colour"),
            (json!({ "inputs": [] }), "inputs wants an object"),
        ] {
            let refused = live.check(&Map::new(), &doc(change)).expect_err("refused");
            assert!(refused.contains(said), "{refused}");
        }
    }

    #[test]
    fn a_password_in_an_address_is_not_shown() {
        let source = SourceSpec::Rtsp { url: "rtsp://user:secret@cam.example/1".into(), latency_ms: 200, tcp: true };
        assert_eq!(shown(&source)["url"], "rtsp://cam.example/1");
    }
}
