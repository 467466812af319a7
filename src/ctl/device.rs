//! What operators know of devices, changed; their tokens, their end, their figures and pictures.

use std::path::PathBuf;

use serde_json::{Map, Value, json};

use super::client::{Client, CtlError};
use super::output::Output;
use super::{segment, word};

/// What to do with devices.
#[derive(Debug, clap::Subcommand)]
pub enum Device {
    /// Change what operators know of a device; an empty text clears.
    Change {
        /// The device.
        device: String,
        /// Name to show.
        #[arg(long)]
        name: Option<String>,
        /// Where it stands.
        #[arg(long)]
        location: Option<String>,
        /// One of its tags, in the place of those it has; may be given several times, "" for none.
        #[arg(long)]
        tag: Option<Vec<String>>,
        /// For whoever looks after it.
        #[arg(long)]
        notes: Option<String>,
        /// The channel that its releases come by.
        #[arg(long)]
        channel: Option<String>,
        /// The version that it should reach.
        #[arg(long)]
        target_version: Option<String>,
    },
    /// Change every device with a tag; an empty place clears.
    ChangeAll {
        /// The tag.
        tag: String,
        /// A tag to add; may be given several times.
        #[arg(long)]
        add_tag: Vec<String>,
        /// A tag to remove, after adding; may be given several times.
        #[arg(long)]
        remove_tag: Vec<String>,
        /// Where they stand.
        #[arg(long)]
        location: Option<String>,
        /// The channel that their releases come by.
        #[arg(long)]
        channel: Option<String>,
    },
    /// Take a device out of service: its token ends, its history stays.
    Decommission {
        /// The device.
        device: String,
    },
    /// Give a device another token, to be carried there by hand; it is told once.
    RotateToken {
        /// The device.
        device: String,
        /// Seconds that the present one stays good unless the new one is used before; a day unless given.
        #[arg(long)]
        overlap: Option<u32>,
    },
    /// Say how many devices there are, by state and by tag.
    Summary,
    /// Say which devices are how, by place or by tag: o online, t online and in trouble, f offline, u never seen.
    Map {
        /// place or tag.
        #[arg(long, default_value = "place")]
        by: String,
    },
    /// Show a device's figures over time.
    Metrics {
        /// The device.
        device: String,
        /// How many hours back.
        #[arg(long, default_value_t = 24)]
        hours: u32,
    },
    /// Show a device's heartbeats, newest first.
    Heartbeats {
        /// The device.
        device: String,
        /// No more than so many, 200 at most.
        #[arg(long, default_value_t = 50)]
        limit: u32,
    },
    /// Write the latest picture of an input, or of `programme`, to a file.
    Picture {
        /// The device.
        device: String,
        /// The input.
        name: String,
        /// The file.
        file: PathBuf,
    },
}

/// A text to set, or null where it is empty.
fn or_clear(text: &str) -> Value {
    if text.trim().is_empty() { Value::Null } else { json!(text) }
}

/// Runs `r58 ctl change`, `decommission` and the like.
///
/// # Errors
/// When nothing is asked for, the server refuses or does not answer, or the file cannot be written.
pub async fn run(client: &mut Client, output: Output, order: &Device) -> Result<(), CtlError> {
    let place = |device: &str| format!("/devices/{}", segment(device));
    match order {
        Device::Change { device, name, location, tag, notes, channel, target_version } => {
            let mut body = Map::new();
            body.extend(name.as_ref().map(|name| ("name".to_owned(), json!(name))));
            for (key, text) in [("location", location), ("notes", notes), ("target_version", target_version)] {
                body.extend(text.as_deref().map(|text| (key.to_owned(), or_clear(text))));
            }
            let proper = |tags: &Vec<String>| tags.iter().filter(|tag| !tag.is_empty()).cloned().collect::<Vec<_>>();
            body.extend(tag.as_ref().map(|tags| ("tags".to_owned(), json!(proper(tags)))));
            body.extend(channel.as_ref().map(|channel| ("update_channel".to_owned(), json!(channel))));
            if body.is_empty() {
                return Err(CtlError::Usage("nothing to change; --help says what can be".into()));
            }
            output.document(&client.patch(&place(device), &Value::Object(body)).await?);
        }
        Device::ChangeAll { tag, add_tag, remove_tag, location, channel } => {
            let mut body = json!({"devices": {"tag": tag}, "add_tags": add_tag, "remove_tags": remove_tag});
            if let Some(location) = location {
                body["location"] = or_clear(location);
            }
            if let Some(channel) = channel {
                body["update_channel"] = json!(channel);
            }
            let done = client.post("/devices/bulk", &body).await?;
            output.show(&done, || format!("{} devices changed", done["changed"]));
        }
        Device::Decommission { device } => {
            client.delete(&place(device)).await?;
            output.show(&json!({"decommissioned": device}), || format!("{device} is out of service"));
        }
        Device::RotateToken { device, overlap } => {
            let made =
                client.post(&format!("{}/rotate-token", place(device)), &json!({"overlap_seconds": overlap})).await?;
            output.show(&made, || format!("{}\nThis token is shown once.", word(&made, "token")));
        }
        Device::Summary => {
            let summary = client.get("/devices/summary").await?;
            let states = &summary["states"];
            output.show(&summary, || {
                format!(
                    "{} devices: {} online, {} offline, {} never seen",
                    summary["total"], states["online"], states["offline"], states["unknown"]
                )
            });
        }
        Device::Map { by } => {
            let map = client.get(&format!("/devices/states?by={}", segment(by))).await?;
            let line = |group: &Value| format!("{:<24} {}", word(group, "name"), word(group, "states"));
            let groups = || map["groups"].as_array().into_iter().flatten().map(line).collect::<Vec<_>>();
            output.show(&map, || groups().join("\n"));
        }
        Device::Metrics { device, hours } => {
            output.document(&client.get(&format!("{}/metrics?hours={hours}", place(device))).await?);
        }
        Device::Heartbeats { device, limit } => {
            let page = client.get(&format!("{}/heartbeats?page_size={limit}", place(device))).await?;
            output.document(&page["items"]);
        }
        Device::Picture { device, name, file } => {
            let path = format!("{}/thumbnails/{}", place(device), segment(name));
            let picture = client.bytes(&path).await?;
            if picture.is_empty() {
                return Err(CtlError::Refused(format!("no picture of {name} came in")));
            }
            let failed = |error: std::io::Error| CtlError::Refused(format!("cannot write {}: {error}", file.display()));
            std::fs::write(file, &picture).map_err(failed)?;
            let told = json!({"file": file.display().to_string(), "bytes": picture.len()});
            output.show(&told, || format!("{} ({} bytes)", file.display(), picture.len()));
        }
    }
    Ok(())
}
