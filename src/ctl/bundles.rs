//! Support bundles on the command line: made, waited for, downloaded.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tokio::io::AsyncWriteExt as _;

use super::client::{Client, CtlError};
use super::output::Output;
use super::{segment, word};

/// How often a bundle is looked at while it is waited for.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// What to make.
#[derive(Debug, clap::Args)]
pub struct Bundle {
    /// The device.
    device: String,
    /// Wait for it and write it to this file.
    #[arg(long)]
    download: Option<PathBuf>,
    /// Leave the log out.
    #[arg(long)]
    without_logs: bool,
    /// Leave the configuration out.
    #[arg(long)]
    without_config: bool,
    /// Leave the diagnostics out.
    #[arg(long)]
    without_diagnostics: bool,
    /// With recordings.
    #[arg(long)]
    with_recordings: bool,
    /// How long to wait, in seconds.
    #[arg(long, default_value_t = 600)]
    wait_seconds: u64,
}

/// Has a box make a bundle; with `--download`, fetches it.
///
/// # Errors
/// When the server refuses or does not answer, the box makes none, or the file cannot be written.
pub async fn make(client: &mut Client, output: Output, order: &Bundle) -> Result<(), CtlError> {
    let body = json!({
        "include_logs": !order.without_logs,
        "include_config": !order.without_config,
        "include_recordings": order.with_recordings,
        "include_diagnostics": !order.without_diagnostics,
    });
    let bundle = client.post(&format!("/devices/{}/bundles", segment(&order.device)), &body).await?;
    let Some(file) = &order.download else {
        output.show(&bundle, || one_line(&bundle));
        return Ok(());
    };
    let id = word(&bundle, "id").to_owned();
    let patience = Duration::from_secs(order.wait_seconds);
    let ready = tokio::time::timeout(patience, until_ready(client, output, &id)).await;
    let bundle = ready.map_err(|_| {
        CtlError::Refused(format!("the bundle {id} is not here within {} s; it goes on", patience.as_secs()))
    })??;
    fetch(client, &bundle, file).await?;
    output.show(&bundle, || format!("{} ({} bytes)", file.display(), bundle["size_bytes"]));
    Ok(())
}

async fn until_ready(client: &mut Client, output: Output, id: &str) -> Result<Value, CtlError> {
    let mut shown = String::new();
    loop {
        let bundle = client.get(&format!("/bundles/{}", segment(id))).await?;
        match word(&bundle, "state") {
            "ready" => return Ok(bundle),
            "failed" => return Err(CtlError::Refused(format!("there is no bundle: {}", word(&bundle, "error")))),
            _ => {}
        }
        let now = one_line(&bundle);
        if now != shown {
            output.note(&now);
            shown = now;
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// Writes a bundle that is here to a file.
///
/// # Errors
/// When the server refuses or does not answer, or the file cannot be written.
pub async fn fetch_one(client: &mut Client, output: Output, id: &str, file: &Path) -> Result<(), CtlError> {
    let bundle = client.get(&format!("/bundles/{}", segment(id))).await?;
    fetch(client, &bundle, file).await?;
    output.show(&bundle, || format!("{} ({} bytes)", file.display(), bundle["size_bytes"]));
    Ok(())
}

/// Deletes a bundle.
///
/// # Errors
/// When the server refuses or does not answer.
pub async fn delete(client: &mut Client, output: Output, id: &str) -> Result<(), CtlError> {
    client.delete(&format!("/bundles/{}", segment(id))).await?;
    output.show(&json!({"deleted": id}), || "the bundle is deleted".into());
    Ok(())
}

async fn fetch(client: &mut Client, bundle: &Value, file: &Path) -> Result<(), CtlError> {
    let failed = |error: std::io::Error| CtlError::Refused(format!("cannot write {}: {error}", file.display()));
    let mut response = client.stream(&format!("/bundles/{}/download", segment(word(bundle, "id")))).await?;
    let mut written = tokio::fs::File::create(file).await.map_err(failed)?;
    let mut hash = Sha256::new();
    loop {
        let chunk = response.chunk().await.map_err(|_| CtlError::Unreachable("the download was cut off".into()))?;
        let Some(chunk) = chunk else { break };
        hash.update(&chunk);
        written.write_all(&chunk).await.map_err(failed)?;
    }
    written.sync_all().await.map_err(failed)?;
    if hex::encode(hash.finalize()) != word(bundle, "sha256") {
        return Err(CtlError::Refused("what came does not have the bundle's checksum".into()));
    }
    Ok(())
}

/// Shows a box's bundles.
///
/// # Errors
/// When the server refuses or does not answer.
pub async fn list(client: &mut Client, output: Output, device: &str) -> Result<(), CtlError> {
    let items = client.all(&format!("/devices/{}/bundles", segment(device)), &[]).await?;
    output.bundles(&items);
    Ok(())
}

fn one_line(bundle: &Value) -> String {
    let progress = bundle["progress"].as_f64().map(|part| format!(", {:.0} %", part * 100.0)).unwrap_or_default();
    format!("{} {} {}{progress}", word(bundle, "device_id"), word(bundle, "id"), word(bundle, "state"))
}
