//! What a device looks like to operators: the card of a list, and the page of one device.

use chrono::{DateTime, Utc};
use serde::Serialize;
use serde_json::{Map, Value, json};
use utoipa::ToSchema;

use crate::fleet::store::{DeviceRow, instant};

/// A device in short, as in lists and live updates.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct DeviceCard {
    /// Identifier.
    pub id: String,
    /// The same, under its older name.
    pub device_id: String,
    /// Name to show.
    pub name: String,
    /// Connected, and heard of lately.
    pub online: bool,
    /// `online`, `offline`, or `unknown` until it connects for the first time.
    pub presence: String,
    /// Why it is offline: `lwt`, `stopped`, `rebooting`, `silent`, `decommissioned`.
    pub presence_reason: Option<String>,
    /// Since when.
    pub presence_at: Option<DateTime<Utc>>,
    /// Heard of last, by the server's clock.
    pub last_seen: Option<DateTime<Utc>>,
    /// `online`, `offline` or `decommissioned`.
    pub status: String,
    /// Version of its software.
    pub version: Option<String>,
    /// Seconds since its software started.
    pub uptime_seconds: Option<u64>,
    /// 0 to 100.
    pub cpu_percent: Option<f64>,
    /// 0 to 100.
    pub mem_percent: Option<f64>,
    /// GB.
    pub disk_free_gb: Option<f64>,
    /// GB.
    pub disk_total_gb: Option<f64>,
    /// Degrees Celsius.
    pub temperature_c: Option<f64>,
    /// 0 to 3.
    pub degradation_level: Option<u64>,
    /// `{id, label, kind, signal, reason, fps, tally}` for each input.
    #[schema(value_type = Vec<Object>)]
    pub inputs: Vec<Value>,
    /// `{fps, frames, missed_slots, scene}`.
    #[schema(value_type = Object)]
    pub programme: Value,
    /// What is wrong, in words.
    pub errors: Vec<String>,
    /// Tags.
    pub tags: Vec<String>,
    /// Place.
    pub location: Option<String>,
}

/// A device in full.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct Device {
    /// The card.
    #[serde(flatten)]
    pub card: DeviceCard,
    /// Organization.
    pub org: String,
    /// Operating system.
    pub platform: String,
    /// Processor.
    pub arch: String,
    /// Serial number of the board.
    pub serial_number: Option<String>,
    /// Address of its first network interface.
    pub mac_address: Option<String>,
    /// Version it registered with.
    pub registered_version: Option<String>,
    /// Free-form data of the operators.
    #[schema(value_type = Object)]
    pub metadata: Value,
    /// Notes of the operators.
    pub notes: Option<String>,
    /// Update channel.
    pub update_channel: String,
    /// Version it should reach.
    pub target_version: Option<String>,
    /// When it was let in.
    pub registered_at: DateTime<Utc>,
    /// When its record was changed.
    pub updated_at: DateTime<Utc>,
    /// When it was taken out of service.
    pub decommissioned_at: Option<DateTime<Utc>>,
    /// What it registered as being able to do.
    #[schema(value_type = Option<Object>)]
    pub capabilities: Option<Value>,
    /// Its operations, versions and limits.
    #[schema(value_type = Option<Object>)]
    pub caps: Option<Value>,
    /// Its latest reported state.
    #[schema(value_type = Option<Object>)]
    pub reported: Option<Value>,
    /// Its latest heartbeat.
    #[schema(value_type = Option<Object>)]
    pub heartbeat: Option<Value>,
    /// Its actors: from the reported state, in full, else from the heartbeat, in short.
    #[schema(value_type = Vec<Object>)]
    pub actors: Vec<Value>,
}

/// What was stored was JSON; what cannot be read is left out.
fn read(text: Option<&str>) -> Option<Value> {
    serde_json::from_str(text?).ok()
}

fn list(value: Option<&Value>) -> Option<&Vec<Value>> {
    value.and_then(Value::as_array).filter(|list| !list.is_empty())
}

impl DeviceCard {
    /// The card of a stored device.
    pub fn new(row: &DeviceRow) -> Self {
        Self::from_parts(row, read(row.heartbeat.as_deref()).as_ref(), read(row.reported.as_deref()).as_ref())
    }

    fn from_parts(row: &DeviceRow, heartbeat: Option<&Value>, reported: Option<&Value>) -> Self {
        let field = |name: &str| heartbeat.and_then(|heartbeat| heartbeat.get(name));
        let metric = |name: &str| field("metrics").and_then(|metrics| metrics.get(name)).and_then(Value::as_f64);
        let online = row.presence == "online" && row.decommissioned_at.is_none();
        let status = match (row.decommissioned_at, online) {
            (Some(_), _) => "decommissioned",
            (None, true) => "online",
            (None, false) => "offline",
        };
        let version = field("version").and_then(Value::as_str).map(str::to_owned);
        Self {
            id: row.id.clone(),
            device_id: row.id.clone(),
            name: row.name.clone(),
            online,
            presence: row.presence.clone(),
            presence_reason: row.presence_reason.clone(),
            presence_at: row.presence_at.map(instant),
            last_seen: row.last_seen.map(instant),
            status: status.to_owned(),
            version: version.or_else(|| row.registered_version.clone()),
            uptime_seconds: field("uptime_seconds").and_then(Value::as_u64),
            cpu_percent: metric("cpu_percent"),
            mem_percent: metric("mem_percent"),
            disk_free_gb: metric("disk_free_gb"),
            disk_total_gb: metric("disk_total_gb"),
            temperature_c: metric("temperature_c"),
            degradation_level: field("status")
                .and_then(|status| status.get("degradation_level"))
                .and_then(Value::as_u64),
            inputs: inputs(field("inputs"), reported.and_then(|reported| reported.get("inputs"))),
            programme: programme(field("programme"), reported.and_then(|reported| reported.get("mixer"))),
            errors: field("errors")
                .and_then(Value::as_array)
                .map(|errors| errors.iter().filter_map(Value::as_str).map(str::to_owned).collect())
                .unwrap_or_default(),
            tags: serde_json::from_str(&row.tags).unwrap_or_default(),
            location: row.location.clone(),
        }
    }
}

/// The reported state follows every change; the heartbeat adds what only it measures.
fn inputs(heartbeat: Option<&Value>, reported: Option<&Value>) -> Vec<Value> {
    let measured = heartbeat.and_then(Value::as_array);
    let Some(reported) = list(reported) else { return measured.cloned().unwrap_or_default() };
    let with_rate = |input: &Value| {
        let mut input = input.clone();
        let same = measured.and_then(|list| list.iter().find(|other| other.get("id") == input.get("id")));
        if let (Some(fields), Some(fps)) = (input.as_object_mut(), same.and_then(|same| same.get("fps"))) {
            fields.entry("fps").or_insert_with(|| fps.clone());
        }
        input
    };
    reported.iter().map(with_rate).collect()
}

fn programme(heartbeat: Option<&Value>, mixer: Option<&Value>) -> Value {
    let mut fields = heartbeat.and_then(Value::as_object).cloned().unwrap_or_else(Map::new);
    for (name, source) in [("scene", "pgm"), ("preview_scene", "pvw")] {
        if let Some(scene) = mixer.and_then(|mixer| mixer.get(source)).filter(|scene| !scene.is_null()) {
            fields.insert(name.to_owned(), scene.clone());
        }
    }
    Value::Object(fields)
}

impl Device {
    /// A stored device in full.
    pub fn new(row: DeviceRow) -> Self {
        let (heartbeat, reported) = (read(row.heartbeat.as_deref()), read(row.reported.as_deref()));
        let card = DeviceCard::from_parts(&row, heartbeat.as_ref(), reported.as_ref());
        let actors = list(reported.as_ref().and_then(|reported| reported.get("actors")))
            .or_else(|| list(heartbeat.as_ref().and_then(|heartbeat| heartbeat.get("actors"))));
        Self {
            actors: actors.cloned().unwrap_or_default(),
            card,
            metadata: read(Some(&row.metadata)).unwrap_or_else(|| json!({})),
            capabilities: read(row.capabilities.as_deref()),
            caps: read(row.caps.as_deref()),
            reported,
            heartbeat,
            org: row.org,
            platform: row.platform,
            arch: row.arch,
            serial_number: row.serial_number,
            mac_address: row.mac_address,
            registered_version: row.registered_version,
            notes: row.notes,
            update_channel: row.update_channel,
            target_version: row.target_version,
            registered_at: instant(row.registered_at),
            updated_at: instant(row.updated_at),
            decommissioned_at: row.decommissioned_at.map(instant),
        }
    }
}
