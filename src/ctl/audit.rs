//! The audit log on the command line: listed, exported, verified, the latter also without a server.

use std::fs::File;
use std::io::{BufRead, BufReader, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use r58_mqtt::sign::PublicKey;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::client::{Client, CtlError};
use super::output::{Output, plain};
use super::{segment, word};
use crate::audit::verify::{Kept, LONGEST_LINE, Misfit, Verdict, Verifier, Why};

/// What to do with the audit log; for administrators.
#[derive(Debug, clap::Subcommand)]
pub enum Audit {
    /// List changes, newest first.
    List {
        /// By this one: user:{email}, device:{id} or server.
        #[arg(long)]
        actor: Option<String>,
        /// Of this kind, such as device.change.
        #[arg(long)]
        action: Option<String>,
        /// To this: an id.
        #[arg(long)]
        target: Option<String>,
        /// From this time on (RFC 3339).
        #[arg(long)]
        since: Option<String>,
        /// Before this time (RFC 3339).
        #[arg(long)]
        until: Option<String>,
        /// How many, at most.
        #[arg(long, default_value_t = 50)]
        limit: usize,
    },
    /// Write the whole log, chained and signed, as lines of JSON.
    Export {
        /// The file; must not exist yet.
        file: PathBuf,
    },
    /// Say whether a log is whole and unchanged; of the server, or of an export, for which no server is needed.
    Verify(Verify),
}

/// What to verify.
#[derive(Debug, clap::Args)]
pub struct Verify {
    /// An export; without one, the server's log as it is now.
    file: Option<PathBuf>,
    /// An earlier export, or the line of a checkpoint of one (such as its last), which must be in this log.
    #[arg(long, value_name = "FILE")]
    against: Option<PathBuf>,
    /// Only this server key is good (base64, ed25519); may be given several times.
    #[arg(long, value_name = "PUBLIC_KEY")]
    key: Vec<String>,
}

impl Verify {
    fn begin(&self) -> Result<Verifier, CtlError> {
        let mut kept = Kept::default();
        if let Some(file) = &self.against {
            let mut number = 0;
            lines(file, |line| {
                number += 1;
                let refused = |why: Why| CtlError::Refused(format!("{}: line {number}: {why}", file.display()));
                kept.line(line).map_err(refused)
            })?;
            if kept.is_empty() {
                return Err(CtlError::Refused(format!("{}: there is no checkpoint in it", file.display())));
            }
        }
        Ok(Verifier::new(kept, self.key.iter().map(|key| public_key(key)).collect()))
    }
}

/// A key under the id that a server gives it.
fn public_key(text: &str) -> PublicKey {
    use base64::Engine as _;
    let bytes = base64::engine::general_purpose::STANDARD.decode(text).unwrap_or_default();
    PublicKey { kid: hex::encode(&Sha256::digest(bytes)[..8]), public_key: text.to_owned() }
}

/// Does what needs no server; `None` when it needs one.
pub fn offline(output: Output, order: &Audit) -> Option<Result<ExitCode, CtlError>> {
    let Audit::Verify(Verify { file: Some(file), .. }) = order else { return None };
    let Audit::Verify(verify) = order else { return None };
    Some(verify.begin().and_then(|mut verifier| {
        let mut misfit = None;
        lines(file, |line| {
            if misfit.is_none() {
                misfit = verifier.line(line).err();
            }
            Ok(())
        })?;
        Ok(show(output, misfit.map_or_else(|| verifier.finish(), Err)))
    }))
}

/// Does what needs one.
///
/// # Errors
/// When the server refuses or does not answer, or a file cannot be read or written.
pub async fn run(client: &mut Client, output: Output, order: &Audit) -> Result<ExitCode, CtlError> {
    match order {
        Audit::List { actor, action, target, since, until, limit } => {
            let asked = [("actor", actor), ("action", action), ("target", target), ("since", since), ("until", until)];
            output.changes(&list(client, &asked, *limit).await?);
        }
        Audit::Export { file } => {
            let written = export(client, file).await?;
            let sentence = || format!("{} ({written} bytes)", file.display());
            output.show(&json!({"file": file.display().to_string(), "bytes": written}), sentence);
        }
        Audit::Verify(verify) => {
            let mut verifier = verify.begin()?;
            let mut response = client.stream("/audit/export").await?;
            let mut rest = Vec::new();
            // An end that does not come is found by the verifier.
            while let Ok(Some(chunk)) = response.chunk().await {
                rest.extend_from_slice(&chunk);
                while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
                    let line: Vec<u8> = rest.drain(..=end).collect();
                    if let Err(misfit) = verifier.line(&String::from_utf8_lossy(&line)) {
                        return Ok(show(output, Err(misfit)));
                    }
                }
                if rest.len() > LONGEST_LINE {
                    return Err(CtlError::Refused("a line is too long; is it a fleet server?".into()));
                }
            }
            return Ok(show(output, verifier.finish()));
        }
    }
    Ok(ExitCode::SUCCESS)
}

async fn list(client: &mut Client, asked: &[(&str, &Option<String>)], limit: usize) -> Result<Vec<Value>, CtlError> {
    let mut query = String::new();
    for (name, value) in asked {
        if let Some(value) = value {
            query.push_str(&format!("&{name}={}", segment(value)));
        }
    }
    let (mut items, mut cursor) = (Vec::new(), String::new());
    while items.len() < limit {
        let size = (limit - items.len()).min(200);
        let mut page = client.get(&format!("/audit?limit={size}&cursor={}{query}", segment(&cursor))).await?;
        if let Some(Value::Array(more)) = page.get_mut("items").map(Value::take) {
            items.extend(more);
        }
        cursor = word(&page, "next_cursor").to_owned();
        if cursor.is_empty() {
            break;
        }
    }
    Ok(items)
}

/// Writes to a file of another name first: an export is there as a whole or not at all.
async fn export(client: &mut Client, file: &Path) -> Result<u64, CtlError> {
    let failed = |error: std::io::Error| CtlError::Refused(format!("cannot write {}: {error}", file.display()));
    if file.exists() {
        return Err(CtlError::Refused(format!("{} exists already", file.display())));
    }
    let mut name = file.as_os_str().to_owned();
    name.push(".part");
    let part = PathBuf::from(name);
    let mut response = client.stream("/audit/export").await?;
    let mut out = File::create(&part).map_err(failed)?;
    let mut written = 0;
    loop {
        let chunk = response.chunk().await.map_err(|_| CtlError::Unreachable("the export was cut off".into()))?;
        let Some(chunk) = chunk else { break };
        out.write_all(&chunk).map_err(failed)?;
        written += chunk.len() as u64;
    }
    out.sync_all().map_err(failed)?;
    std::fs::rename(&part, file).map_err(failed)?;
    Ok(written)
}

/// Gives each line of a file to `take`, one in memory at a time.
fn lines(file: &Path, mut take: impl FnMut(&str) -> Result<(), CtlError>) -> Result<(), CtlError> {
    let failed = |error: std::io::Error| CtlError::Refused(format!("cannot read {}: {error}", file.display()));
    let mut reader = BufReader::new(File::open(file).map_err(failed)?);
    let mut line = Vec::new();
    loop {
        line.clear();
        let read = reader.by_ref().take(LONGEST_LINE as u64).read_until(b'\n', &mut line).map_err(failed)?;
        if read == 0 {
            return Ok(());
        }
        take(&String::from_utf8_lossy(&line))?;
    }
}

fn show(output: Output, found: Result<Verdict, Misfit>) -> ExitCode {
    match found {
        Ok(verdict) => {
            let Verdict { org, changes, head, checkpoints, kid } = verdict;
            let document = json!({"valid": true, "org": org, "changes": changes, "head": head,
                "checkpoints": checkpoints, "key": kid});
            output.show(&document, || {
                let head = head.to_string();
                format!("{org}: {changes} changes, whole and unchanged; head {head}, signed by key {kid}")
            });
            ExitCode::SUCCESS
        }
        Err(misfit) => {
            let document = json!({"valid": false, "line": misfit.line, "change": misfit.change,
                "reason": misfit.why.to_string()});
            output.show(&document, || format!("not as it was: {}", plain(&misfit.to_string())));
            ExitCode::FAILURE
        }
    }
}
