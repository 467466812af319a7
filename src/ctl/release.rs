//! Releases and rollouts.

use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ed25519_dalek::pkcs8::DecodePrivateKey as _;
use ed25519_dalek::{Signer as _, SigningKey};
use serde_json::{Value, json};

use super::client::{Client, CtlError};
use super::output::{Output, plain};
use super::{segment, word};

/// What to do with releases.
#[derive(Debug, clap::Subcommand)]
pub enum Release {
    /// List releases, the highest version first.
    List,
    /// Enter the public half of a maker's key: `openssl genpkey -algorithm ed25519` makes one.
    Key {
        /// Name to show.
        name: String,
        /// The private key, PEM (PKCS 8). It is only read here; its public half is sent.
        #[arg(long)]
        private_key: PathBuf,
    },
    /// List the makers' keys.
    Keys,
    /// Take a maker's key back; what it signed stays published.
    DeleteKey {
        /// The key's id.
        id: String,
    },
    /// Enter a release: one JSON object with version, channel, artifact_url, checksum_sha256, size_bytes and so on.
    Create {
        /// The object.
        release: String,
    },
    /// Sign a release here and publish it.
    Publish {
        /// The version.
        version: String,
        /// The key's id.
        #[arg(long)]
        key: String,
        /// The private key, PEM (PKCS 8). It is only read here.
        #[arg(long)]
        private_key: PathBuf,
        /// The processor that it is for.
        #[arg(long, default_value = "any")]
        arch: String,
    },
    /// Delete a release; boxes that have it keep it.
    Delete {
        /// The version.
        version: String,
        /// The processor that it is for.
        #[arg(long, default_value = "any")]
        arch: String,
    },
    /// List rollouts.
    Rollouts,
    /// Begin a rollout.
    Rollout {
        /// The version.
        version: String,
        /// Part of the devices, 1 to 100.
        #[arg(long)]
        percent: u8,
        /// Devices with this tag; without one, those on the release's channel.
        #[arg(long)]
        tag: Option<String>,
        /// More than this many of a hundred that ended have failed: it halts.
        #[arg(long, default_value_t = 10)]
        abort_percent: u8,
        /// Devices that are at it at the same time, 1 to 1000.
        #[arg(long, default_value_t = 50)]
        at_once: u16,
    },
    /// List the commands of a rollout, by device: who has it, who is at it, who failed and why.
    Boxes {
        /// The rollout.
        id: String,
        /// Only those that ended badly.
        #[arg(long)]
        failed: bool,
    },
    /// Take a rollout further, pause it, go on with it, or end it.
    Change {
        /// The rollout.
        id: String,
        /// A larger part.
        #[arg(long)]
        percent: Option<u8>,
        /// running, paused or cancelled.
        #[arg(long)]
        state: Option<String>,
    },
}

/// Runs `r58 ctl release`.
///
/// # Errors
/// When a key cannot be read, or the server refuses or does not answer.
pub async fn run(client: &mut Client, output: Output, order: &Release) -> Result<(), CtlError> {
    match order {
        Release::List => {
            let all = client.all("/releases", &[]).await?;
            let line = |one: &Value| {
                let state = if one["published"] == true { "published" } else { "draft" };
                format!("{}  {}  {}  {state}", word(one, "version"), word(one, "arch"), word(one, "channel"))
            };
            output.show(&json!(all), || all.iter().map(line).collect::<Vec<_>>().join("\n"));
        }
        Release::Key { name, private_key } => {
            let public = STANDARD.encode(signing_key(private_key)?.verifying_key().to_bytes());
            let made = client.post("/release-keys", &json!({"name": name, "public_key": public})).await?;
            output.show(&made, || format!("{} ({public})", word(&made, "id")));
        }
        Release::Create { release } => {
            let body = serde_json::from_str(release)
                .map_err(|error| CtlError::Usage(format!("the release is not JSON: {error}")))?;
            output.document(&client.post("/releases", &body).await?);
        }
        Release::Publish { version, key, private_key, arch } => {
            let signing = signing_key(private_key)?;
            let (version, arch) = (segment(version), segment(arch));
            let release = client.get(&format!("/releases/{version}?arch={arch}")).await?;
            let signature = STANDARD.encode(signing.sign(word(&release, "signed_text").as_bytes()).to_bytes());
            let body = json!({"key_id": key, "signature": signature});
            output.document(&client.post(&format!("/releases/{version}/publish?arch={arch}"), &body).await?);
        }
        Release::Rollouts => {
            let all = client.all("/rollouts", &[]).await?;
            let line = |one: &Value| {
                let counts = &one["counts"];
                format!(
                    "{}  {}  {} %  {}  {} sent, {} done, {} failed, {} cannot",
                    word(one, "id"),
                    word(one, "version"),
                    one["percent"],
                    word(one, "state"),
                    counts["sent"],
                    counts["succeeded"],
                    counts["failed"],
                    counts["unsupported"]
                )
            };
            output.show(&json!(all), || all.iter().map(line).collect::<Vec<_>>().join("\n"));
        }
        Release::Keys => {
            let all = client.all("/release-keys", &[]).await?;
            let line = |key: &Value| format!("{}  {}  {}", word(key, "id"), word(key, "name"), word(key, "public_key"));
            output.show(&json!(all), || all.iter().map(line).collect::<Vec<_>>().join("\n"));
        }
        Release::DeleteKey { id } => {
            client.delete(&format!("/release-keys/{}", segment(id))).await?;
            output.show(&json!({"deleted": id}), || "the key is no longer good".into());
        }
        Release::Delete { version, arch } => {
            client.delete(&format!("/releases/{}?arch={}", segment(version), segment(arch))).await?;
            output.show(&json!({"deleted": version}), || format!("{version} is deleted"));
        }
        Release::Boxes { id, failed } => {
            let asked = [("failed", Some(failed.to_string()))];
            let all = client.all(&format!("/rollouts/{}/commands", segment(id)), &asked).await?;
            let line = |one: &Value| {
                let words = ["device_id", "state", "code", "reason"].map(|name| plain(word(one, name)));
                words.join("  ").trim_end().to_owned()
            };
            output.show(&json!(all), || all.iter().map(line).collect::<Vec<_>>().join("\n"));
        }
        Release::Rollout { version, percent, tag, abort_percent, at_once } => {
            let body = json!({"version": version, "percent": percent, "tag": tag, "abort_percent": abort_percent,
                "at_once": at_once});
            output.document(&client.post("/rollouts", &body).await?);
        }
        Release::Change { id, percent, state } => {
            let body = json!({"percent": percent, "state": state});
            output.document(&client.patch(&format!("/rollouts/{}", segment(id)), &body).await?);
        }
    }
    Ok(())
}

fn signing_key(path: &Path) -> Result<SigningKey, CtlError> {
    let unusable = |reason: String| CtlError::Usage(format!("{}: {reason}", path.display()));
    let text = std::fs::read_to_string(path).map_err(|error| unusable(error.to_string()))?;
    SigningKey::from_pkcs8_pem(&text).map_err(|_| unusable("not an ed25519 key in PEM (PKCS 8)".into()))
}
