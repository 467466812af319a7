//! Configurations of devices.

use serde_json::{Value, json};

use super::client::{Client, CtlError};
use super::order::payload;
use super::output::Output;
use super::{segment, word};

/// What to do with a device's configuration.
#[derive(Debug, clap::Subcommand)]
pub enum Config {
    /// What should be in force, and what is.
    Show {
        /// The device.
        device: String,
    },
    /// Change it: one JSON object, or `key=value` pairs; null removes.
    Change {
        /// The device.
        device: String,
        /// Changes.
        changes: Vec<String>,
        /// The version that was seen; another one since is refused.
        #[arg(long)]
        expected: Option<u64>,
        /// Why, for whoever reads the versions.
        #[arg(long)]
        notes: Option<String>,
    },
    /// Set the whole document, in the place of the one before.
    Replace {
        /// The device.
        device: String,
        /// One JSON object, or `key=value` pairs.
        document: Vec<String>,
        /// The version that was seen; another one since is refused.
        #[arg(long)]
        expected: Option<u64>,
        /// Why, for whoever reads the versions.
        #[arg(long)]
        notes: Option<String>,
    },
    /// List versions.
    Versions {
        /// The device.
        device: String,
    },
    /// What differs.
    Diff {
        /// The device.
        device: String,
        /// reported, desired or a version.
        #[arg(long, default_value = "reported")]
        from: String,
        /// reported, desired or a version.
        #[arg(long, default_value = "desired")]
        to: String,
    },
    /// Go back to a version.
    Rollback {
        /// The device.
        device: String,
        /// The version.
        version: u64,
        /// Why, for whoever reads the versions.
        #[arg(long)]
        notes: Option<String>,
    },
}

/// Runs `r58 ctl config`.
///
/// # Errors
/// When the server refuses or does not answer.
pub async fn run(client: &mut Client, output: Output, order: &Config) -> Result<(), CtlError> {
    let place = |device: &str| format!("/devices/{}/config", segment(device));
    match order {
        Config::Show { device } => output.document(&client.get(&place(device)).await?),
        Config::Change { device, changes, expected, notes } => {
            let body = json!({"changes": payload(changes)?, "expected_ver": expected, "notes": notes});
            output.document(&client.patch(&place(device), &body).await?);
        }
        Config::Replace { device, document, expected, notes } => {
            let body = json!({"document": payload(document)?, "expected_ver": expected, "notes": notes});
            output.document(&client.put(&place(device), &body).await?);
        }
        Config::Versions { device } => {
            let all = client.all(&format!("{}/versions", place(device)), &[]).await?;
            let line = |one: &Value| {
                let (at, by, notes) = (word(one, "created_at"), word(one, "created_by"), word(one, "notes"));
                let back = one["restores"].as_i64().map(|ver| format!("back to {ver}  ")).unwrap_or_default();
                format!("{}  {at}  {by}  {back}{notes}", one["ver"])
            };
            output.show(&json!(all), || all.iter().map(line).collect::<Vec<_>>().join("\n"));
        }
        Config::Diff { device, from, to } => {
            let query = format!("{}/diff?from={}&to={}", place(device), segment(from), segment(to));
            let found = client.get(&query).await?;
            let line =
                |one: &Value| format!("{} {}: {} -> {}", word(one, "kind"), word(one, "path"), one["from"], one["to"]);
            let lines = || found["differences"].as_array().into_iter().flatten().map(line).collect::<Vec<_>>();
            output.show(&found, || match lines() {
                none if none.is_empty() => "nothing differs".into(),
                lines => lines.join("\n"),
            });
        }
        Config::Rollback { device, version, notes } => {
            let body = json!({"ver": version, "notes": notes});
            output.document(&client.post(&format!("{}/rollback", place(device)), &body).await?);
        }
    }
    Ok(())
}
