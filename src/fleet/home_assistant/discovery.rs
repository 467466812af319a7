//! What Home Assistant is told of a box, so that it makes a device of it: pure.
//!
//! One retained message a box (Home Assistant's device-based discovery: `{prefix}/device/{id}/config`), with the prefix
//! `r58/1/{org}/_ha`: below the organization's own tree, which its people may read and nobody of another organization may. The
//! values come from what the box says anyway (`up/presence`, `up/reported`, `up/hb`).
//!
//! There are no buttons: a command must be signed by the fleet, and Home Assistant cannot sign. What it should do goes by the
//! REST API, with an API key.

use r58_mqtt::Name;
use serde_json::{Map, Value, json};

use crate::fleet::store::DeviceRow;

/// Level below an organization that no box's topics have: a box's go on with `up` or `down`, this one with `device`.
const LEVEL: &str = "_ha";
/// Inputs of a box that are shown.
const MOST_INPUTS: usize = 16;
/// Longest name of an input, in characters.
const MOST_NAME: usize = 64;

/// What the server listens to, to know what is retained.
pub const FILTER: &str = "r58/1/+/_ha/device/+/config";

/// Where the message about a box stands.
pub fn topic(org: &str, device: &str) -> String {
    format!("r58/1/{org}/{LEVEL}/device/{device}/config")
}

/// The organization of such a topic.
pub fn org_of(topic: &str) -> Option<&str> {
    match topic.split('/').collect::<Vec<_>>()[..] {
        ["r58", "1", org, LEVEL, "device", _, "config"] => Some(org),
        _ => None,
    }
}

/// The message about a box. `dashboard` is the public address of the fleet server, if it has one.
pub fn config(row: &DeviceRow, dashboard: Option<&str>) -> Value {
    let up = |leaf: &str| format!("r58/1/{}/{}/up/{leaf}", row.org, row.id);
    let own = |entity: &str| format!("r58_{}_{}_{entity}", row.org, row.id);
    let mut components = Map::new();
    let mut add = |entity: &str, name: &str, platform: &str, topic: String, template: String, more: Value| {
        let mut component = json!({"platform": platform, "unique_id": own(entity), "name": name, "state_topic": topic,
            "value_template": template});
        if let (Some(all), Some(more)) = (component.as_object_mut(), more.as_object()) {
            all.extend(more.clone());
            if entity != "online" {
                all.insert(
                    "availability".into(),
                    json!([{"topic": up("presence"), "payload_available": "online",
                    "payload_not_available": "offline", "value_template": "{{ value_json.state }}"}]),
                );
            }
        }
        components.insert(entity.to_owned(), component);
    };
    let on = |condition: &str| format!("{{{{ 'ON' if {condition} else 'OFF' }}}}");
    let diagnostic = json!({"device_class": "connectivity", "entity_category": "diagnostic"});
    add("online", "Online", "binary_sensor", up("presence"), on("value_json.state == 'online'"), diagnostic);
    let on_air = on("value_json.status.mixer_active");
    add("programme", "Programme", "binary_sensor", up("hb"), on_air, json!({"device_class": "running"}));
    let scene = "{{ value_json.mixer.pgm | default('') }}".to_owned();
    add("scene", "Scene", "sensor", up("reported"), scene, json!({"icon": "mdi:video-switch"}));
    let measured = json!({"device_class": "temperature", "unit_of_measurement": "°C", "state_class": "measurement",
        "entity_category": "diagnostic"});
    let temperature = "{{ value_json.metrics.temperature_c | default(none) }}".to_owned();
    add("temperature", "Temperature", "sensor", up("hb"), temperature, measured);
    for (id, label) in inputs(row) {
        // A proper name holds nothing that a template could take for more than a word.
        let one = format!("value_json.inputs | selectattr('id', 'eq', '{id}') | map(attribute='signal') | first");
        let live = on(&format!("({one} | default('')) == 'live'"));
        let more = json!({"device_class": "connectivity"});
        add(&format!("input_{id}"), &label, "binary_sensor", up("reported"), live, more);
    }
    let mut device = json!({"identifiers": [own("box")], "name": row.name, "manufacturer": "R58", "model": "R58",
        "sw_version": row.registered_version, "serial_number": row.serial_number, "suggested_area": row.location,
        "configuration_url": dashboard.map(|url| format!("{url}/devices/{}", row.id))});
    if let Some(fields) = device.as_object_mut() {
        fields.retain(|_, value| !value.is_null());
    }
    json!({"device": device, "origin": {"name": "R58 fleet", "sw_version": env!("CARGO_PKG_VERSION")},
        "components": components, "qos": 1})
}

/// The inputs that a box reported, with their names. A box is not trusted to say what Home Assistant evaluates: what is no proper
/// name is left out.
fn inputs(row: &DeviceRow) -> Vec<(Name, String)> {
    let reported: Value = row.reported.as_deref().and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default();
    let inputs = reported.get("inputs").and_then(Value::as_array).cloned().unwrap_or_default();
    let proper = |input: &Value| {
        let id = Name::new(input.get("id")?.as_str()?).ok()?;
        let label = input.get("label").and_then(Value::as_str).filter(|label| !label.trim().is_empty());
        let label: String = label.unwrap_or(id.as_str()).chars().filter(|c| !c.is_control()).take(MOST_NAME).collect();
        Some((id, label))
    };
    inputs.iter().filter_map(proper).take(MOST_INPUTS).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(reported: Option<Value>) -> DeviceRow {
        DeviceRow {
            id: "stage".into(),
            no: 1,
            org: "acme".into(),
            name: "Stage left".into(),
            platform: "linux".into(),
            arch: "aarch64".into(),
            serial_number: None,
            mac_address: None,
            registered_version: Some("1.2.3".into()),
            capabilities: None,
            location: Some("Hall".into()),
            tags: "[]".into(),
            metadata: "{}".into(),
            notes: None,
            update_channel: "stable".into(),
            target_version: None,
            registered_at: 0,
            updated_at: 0,
            decommissioned_at: None,
            presence: "online".into(),
            presence_reason: None,
            presence_at: None,
            last_seen: None,
            heartbeat: None,
            reported: reported.map(|value| value.to_string()),
            caps: None,
        }
    }

    #[test]
    fn every_entity_reads_below_its_own_box_is_unique_and_none_of_them_commands() {
        let told =
            config(&row(Some(json!({"inputs": [{"id": "cam1", "label": "Left"}]}))), Some("https://fleet.example"));
        assert_eq!(told["device"]["configuration_url"], "https://fleet.example/devices/stage");
        assert!(told["origin"]["name"].is_string());
        let components = told["components"].as_object().unwrap();
        let names: Vec<&str> = components.keys().map(String::as_str).collect();
        assert_eq!(names, ["input_cam1", "online", "programme", "scene", "temperature"]);
        for (entity, component) in components {
            assert!(component["state_topic"].as_str().unwrap().starts_with("r58/1/acme/stage/up/"), "{component}");
            assert_eq!(component["unique_id"], format!("r58_acme_stage_{entity}"));
            assert!(component["platform"].as_str().unwrap().ends_with("sensor"), "{component}");
            assert!(!component.to_string().contains("command"), "{component}");
            // One that is away is offline; the rest of it is not known.
            assert_eq!(component["availability"].is_null(), entity == "online");
        }
        assert_eq!(components["input_cam1"]["name"], "Left");
    }

    #[test]
    fn a_box_cannot_bring_a_template_in() {
        let evil = "x') }}{{ states('lock.door') }}";
        let inputs = json!({"inputs": [{"id": evil, "label": "a"}, {"id": 7}, {}, {"id": "cam2", "label": evil}]});
        let told = config(&row(Some(inputs)), None);
        let components = told["components"].as_object().unwrap();
        assert_eq!(components.len(), 5);
        let templates: String = components.values().map(|one| one["value_template"].to_string()).collect();
        assert!(!templates.contains("lock.door"), "{templates}");
        let many: Vec<Value> = (0..100).map(|n| json!({"id": format!("cam{n}")})).collect();
        let told = config(&row(Some(json!({"inputs": many}))), None);
        assert_eq!(told["components"].as_object().unwrap().len(), 4 + MOST_INPUTS);
    }

    #[test]
    fn a_topic_tells_its_organization() {
        assert_eq!(org_of(&topic("acme", "stage")), Some("acme"));
        for other in ["r58/1/acme/stage/up/hb", "r58/1/acme/_ha/device/stage", "homeassistant/device/x/config", ""] {
            assert_eq!(org_of(other), None, "{other}");
        }
    }
}
