//! The audit log beside its table: heads are signed now and then, and a whole chain is written out.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use chrono::Utc;
use futures_util::stream::{self, Stream};
use r58_actors::rounds::Round;
use r58_mqtt::sign::CommandSigner;

use super::store::{Store, StoreError};
use crate::audit::{Begin, Checkpoint, FORMAT, Hash, Line};

/// How often heads that moved are signed. What was changed since the last time can be cut off unseen.
const SIGN_EVERY: Duration = Duration::from_secs(600);
/// The same for the first time after a start.
const SIGN_FIRST: Duration = Duration::from_secs(20);

/// Signs the head of a chain.
fn signed(signer: &CommandSigner, org: &str, (seq, hash): (u64, Hash)) -> Checkpoint {
    let at_ms = Utc::now().timestamp_millis();
    let sig = signer.sign_audit_head(&Checkpoint::head(org, seq, hash, at_ms));
    Checkpoint { org: org.to_owned(), seq, hash, at_ms, sig }
}

/// The leader's duty of signing heads that moved.
pub(super) struct HeadSigner {
    store: Store,
    signer: Arc<CommandSigner>,
    first: bool,
}

impl HeadSigner {
    pub fn new(store: Store, signer: Arc<CommandSigner>) -> Self {
        Self { store, signer, first: true }
    }
}

#[async_trait]
impl Round for HeadSigner {
    async fn round(&mut self) -> Result<Duration, String> {
        if std::mem::take(&mut self.first) {
            return Ok(SIGN_FIRST);
        }
        if self.store.leads() {
            sign_heads(&self.store, &self.signer).await.map_err(|error| error.to_string())?;
        }
        Ok(SIGN_EVERY)
    }
}

/// Signs every head that moved. Each is told to the server's log as well, which is often kept elsewhere.
async fn sign_heads(store: &Store, signer: &CommandSigner) -> Result<(), StoreError> {
    let mut before = Vec::new();
    loop {
        let heads = store.unsigned_heads().await?;
        // What was signed and comes again was not kept: another time, rather than for ever.
        if heads.is_empty() || heads == before {
            return Ok(());
        }
        before.clone_from(&heads);
        for (org, seq, hash) in heads {
            let point = signed(signer, &org, (seq, hash));
            store.keep_checkpoint(&point).await?;
            tracing::info!(%org, seq, %hash, sig = %point.sig, "head of the audit log");
        }
    }
}

/// Where an export stands.
struct Export {
    store: Store,
    signer: Arc<CommandSigner>,
    org: String,
    /// The head when it began: what comes later is for the next one.
    head: (u64, Hash),
    written: u64,
    stage: Stage,
}

#[derive(PartialEq)]
enum Stage {
    Begin,
    Changes,
    Done,
}

/// The chain of an organization as the lines of an export, read bit by bit as they are taken.
///
/// # Errors
/// Those of the database; later ones end the stream before its signed end.
pub async fn export(
    store: Store,
    signer: Arc<CommandSigner>,
    org: String,
) -> Result<impl Stream<Item = Result<Bytes, StoreError>>, StoreError> {
    let head = store.chain_head(&org).await?;
    let export = Export { store, signer, org, head, written: 0, stage: Stage::Begin };
    Ok(stream::try_unfold(export, |mut export| async move {
        Ok(export.next().await?.map(|lines| (Bytes::from(lines), export)))
    }))
}

impl Export {
    async fn next(&mut self) -> Result<Option<String>, StoreError> {
        match self.stage {
            Stage::Done => Ok(None),
            Stage::Begin => {
                self.stage = Stage::Changes;
                let begin = Begin { format: FORMAT, org: self.org.clone(), keys: self.store.server_keys().await? };
                Ok(Some(Line::Begin(begin).written()))
            }
            Stage::Changes => {
                let changes = self.store.chain(&self.org, self.written, self.head.0).await?;
                let Some(last) = changes.last().map(|change| change.seq) else {
                    self.stage = Stage::Done;
                    return Ok(Some(self.end().await?));
                };
                // That of the end is made anew.
                let upto = last.min(self.head.0.saturating_sub(1));
                let mut points = self.store.checkpoints(&self.org, self.written, upto).await?.into_iter().peekable();
                let mut lines = String::with_capacity(changes.len() * 300);
                for change in changes {
                    let seq = change.seq;
                    lines.push_str(&Line::Change(change).written());
                    while let Some(point) = points.next_if(|point| point.seq <= seq) {
                        lines.push_str(&Line::Checkpoint(point).written());
                    }
                }
                self.written = last;
                Ok(Some(lines))
            }
        }
    }

    async fn end(&self) -> Result<String, StoreError> {
        let point = signed(&self.signer, &self.org, self.head);
        if self.head.0 > 0
            && let Err(error) = self.store.keep_checkpoint(&point).await
        {
            // Reading goes on with a full disk.
            tracing::warn!(%error, "the head of the audit log that was exported could not be kept");
        }
        Ok(Line::Checkpoint(point).written())
    }
}
