//! Reading records back: oldest first, bounded, with a cursor to go on from.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use super::{Level, LogBook, Record, files};

/// Records of an answer unless asked otherwise.
pub const USUAL: usize = 200;
/// Most records of an answer.
pub const MOST: usize = 1_000;

/// What is asked for. Without `since` and `cursor` the newest are meant, else the first that fit.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LogQuery {
    /// Not before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<DateTime<Utc>>,
    /// Before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub until: Option<DateTime<Utc>>,
    /// At least as bad.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub level: Option<Level>,
    /// Of this actor ([`Record::is_of`]).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub actor: Option<String>,
    /// 1 to [`MOST`], [`USUAL`] unless given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<usize>,
    /// After the record of this number.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cursor: Option<u64>,
}

impl LogQuery {
    fn wants(&self, record: &Record) -> bool {
        self.since.is_none_or(|since| record.ts >= since)
            && self.until.is_none_or(|until| record.ts < until)
            && self.level.is_none_or(|level| record.level <= level)
            && self.actor.as_deref().is_none_or(|actor| record.is_of(actor))
    }

    fn limit(&self) -> usize {
        self.limit.unwrap_or(USUAL).clamp(1, MOST)
    }
}

/// An answer.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct LogPage {
    /// Oldest first.
    pub items: Vec<Record>,
    /// Where to go on, also later: the number of the last record looked at.
    pub cursor: u64,
    /// Whether there is more to be had right now.
    pub has_more: bool,
}

impl LogBook {
    /// Answers a query with at most `bytes` of records (by [`Record::weight`]). Reads files: blocks for as long as the disk
    /// takes. Files that cannot be read count as empty; what is in memory is found in any case.
    pub fn query(&self, query: &LogQuery, bytes: usize) -> LogPage {
        match (query.cursor, query.since) {
            (None, None) => self.newest(query, bytes),
            (cursor, _) => self.forward(query, cursor.unwrap_or(0), bytes),
        }
    }

    fn forward(&self, query: &LogQuery, after: u64, bytes: usize) -> LogPage {
        let mut page =
            Filling { page: LogPage { cursor: after, ..LogPage::default() }, limit: query.limit(), left: bytes };
        // Taken before the files are read: what is rotated away meanwhile was in them.
        let memory = self.recent(after);
        let covered = memory.first().is_some_and(|first| first.seq == after + 1);
        if !covered {
            let files = self.directory().and_then(|directory| files::list(&directory).ok()).unwrap_or_default();
            for (n, (_, path)) in files.iter().enumerate() {
                let ends_before = files.get(n + 1).is_some_and(|(next, _)| *next <= after + 1);
                if ends_before || !page.is_open() {
                    continue;
                }
                let _ = files::read(path, |record| record.seq <= page.page.cursor || page.take(query, record));
            }
        }
        for record in memory {
            if record.seq > page.page.cursor && !page.take(query, Record::clone(&record)) {
                break;
            }
        }
        page.page
    }

    /// The last ones: from memory if it has enough, else from the newest file backwards.
    fn newest(&self, query: &LogQuery, bytes: usize) -> LogPage {
        let memory = self.recent(0);
        let mut items: Vec<Record> =
            memory.iter().filter(|record| query.wants(record)).map(|record| Record::clone(record)).collect();
        let limit = query.limit();
        let mut oldest = memory.first().map_or(u64::MAX, |record| record.seq);
        if items.len() < limit {
            let files = self.directory().and_then(|directory| files::list(&directory).ok()).unwrap_or_default();
            for (first, path) in files.iter().rev().filter(|(first, _)| *first < oldest).collect::<Vec<_>>() {
                let mut older = Vec::new();
                let _ = files::read(path, |record| {
                    let is_older = record.seq < oldest;
                    if is_older && query.wants(&record) {
                        older.push(record);
                    }
                    is_older
                });
                oldest = oldest.min(*first);
                older.append(&mut items);
                items = older;
                if items.len() >= limit {
                    break;
                }
            }
        }
        let mut left = bytes;
        let fits = |record: &&Record| {
            let fits = record.weight() <= left;
            left = left.saturating_sub(record.weight());
            fits
        };
        let kept = items.iter().rev().take(limit).take_while(fits).count();
        let items = items.split_off(items.len() - kept);
        let cursor = memory.last().map_or_else(|| items.last().map_or(0, |last| last.seq), |last| last.seq);
        LogPage { items, cursor, has_more: false }
    }
}

struct Filling {
    page: LogPage,
    limit: usize,
    left: usize,
}

impl Filling {
    fn is_open(&self) -> bool {
        !self.page.has_more
    }

    /// Whether another one may come.
    fn take(&mut self, query: &LogQuery, record: Record) -> bool {
        let seq = record.seq;
        if query.wants(&record) {
            let weight = record.weight();
            // One is always told, or a reader would never get past it.
            if self.page.items.len() >= self.limit || (weight > self.left && !self.page.items.is_empty()) {
                self.page.has_more = true;
                return false;
            }
            self.left = self.left.saturating_sub(weight);
            self.page.items.push(record);
        }
        self.page.cursor = seq;
        true
    }
}
