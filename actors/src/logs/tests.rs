//! The log's ring, files and cursors.

use std::time::{Duration, Instant};

use chrono::TimeDelta;
use proptest::prelude::*;
use tracing_subscriber::layer::SubscriberExt;

use super::layer::{LogLayer, cut};
use super::query::{LogQuery, MOST};
use super::*;

const PLENTY: usize = 1 << 20;

fn record(message: &str) -> Record {
    Record {
        seq: 0,
        ts: Utc::now(),
        level: Level::Info,
        target: "r58_actors::camera".into(),
        actor: "camera".into(),
        message: message.into(),
        fields: BTreeMap::new(),
    }
}

fn words(page: &query::LogPage) -> Vec<&str> {
    page.items.iter().map(|record| record.message.as_str()).collect()
}

/// Waits until the files hold so many records.
fn written(directory: &Path, last: u64) {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let mut found = 0;
        for (_, path) in files::list(directory).unwrap() {
            let _ = files::read(&path, |record| {
                found = found.max(record.seq);
                true
            });
        }
        if found >= last {
            return;
        }
        assert!(Instant::now() < deadline, "the files end at {found}");
        std::thread::yield_now();
    }
}

#[test]
fn an_event_becomes_a_record_without_its_secrets() {
    let book = LogBook::default();
    book.redactor().learn("planted-marker");
    let subscriber = tracing_subscriber::registry().with(LogLayer::new(book.clone()));
    tracing::subscriber::with_default(subscriber, || {
        tracing::warn!(input = "cam1", tries = 3, token = "x1y2", url = "rtsp://a:b@cam/1", "planted-marker is gone");
        tracing::info!(actor = "fleet link", "password=hunter22");
    });
    let records = book.recent(0);
    assert_eq!(records.len(), 2);
    let first = &records[0];
    assert_eq!((first.seq, first.level, first.message.as_str()), (1, Level::Warn, "[redacted] is gone"));
    assert_eq!(first.fields["input"], "cam1");
    assert_eq!(first.fields["tries"], 3);
    assert_eq!(first.fields["token"], "[redacted]");
    assert_eq!(first.fields["url"], "rtsp://[redacted]@cam/1");
    assert!(first.target.ends_with("logs::tests") && first.actor == "logs");
    assert!(first.is_of("CAM1") && first.is_of("logs") && !first.is_of("cam2"));
    assert!(records[1].is_of("fleet_link"));
    assert_eq!(records[1].message, "password=[redacted]");
}

#[test]
fn memory_is_bounded_and_keeps_the_newest() {
    let book = LogBook::default();
    let long = "x".repeat(2_000);
    for n in 0..5_000 {
        book.append(record(&format!("{n} {long}")));
    }
    let kept = book.recent(0);
    assert!(kept.iter().map(|record| record.weight()).sum::<usize>() <= RING_BYTES);
    assert_eq!(kept.last().unwrap().seq, 5_000);
    assert_eq!(book.recent(4_999).len(), 1);
}

#[test]
fn numbers_go_on_over_a_restart_and_a_half_written_line_is_skipped() {
    let dir = tempfile::tempdir().unwrap();
    let first = LogBook::default();
    first.append(record("before the files"));
    first.keep_in(dir.path(), FileLimits::default()).unwrap();
    first.append(record("after"));
    written(dir.path(), 2);
    let (_, path) = files::list(dir.path()).unwrap().remove(0);
    let mut text = std::fs::read(&path).unwrap();
    text.extend_from_slice(b"{\"seq\":3,\"ts\":\"20");
    std::fs::write(&path, text).unwrap();

    let second = LogBook::default();
    second.append(record("second start"));
    second.keep_in(dir.path(), FileLimits::default()).unwrap();
    assert_eq!(second.last_seq(), 3);
    let page = second.query(&LogQuery { cursor: Some(0), ..LogQuery::default() }, PLENTY);
    assert_eq!(words(&page), ["before the files", "after", "second start"]);
    assert_eq!((page.cursor, page.has_more), (3, false));
}

#[test]
fn files_rotate_and_the_oldest_go() {
    let dir = tempfile::tempdir().unwrap();
    let book = LogBook::default();
    let limits = FileLimits { bytes: 2_000, files: 3 };
    book.keep_in(dir.path(), limits).unwrap();
    for n in 1..=100 {
        book.append(record(&format!("number {n}")));
    }
    written(dir.path(), 100);
    let files = files::list(dir.path()).unwrap();
    assert!(files.len() <= 3, "{files:?}");
    for (_, path) in &files {
        assert!(std::fs::metadata(path).unwrap().len() <= 2_000);
    }
}

#[test]
fn a_cursor_walks_through_everything_once_and_in_order() {
    let dir = tempfile::tempdir().unwrap();
    let book = LogBook::default();
    book.keep_in(dir.path(), FileLimits { bytes: 4_000, files: 100 }).unwrap();
    for n in 1..=6_000 {
        book.append(record(&format!("{n}")));
        // As slow as the disk: a queue that overflows is another test's.
        if n % 2_000 == 0 {
            written(dir.path(), n);
        }
    }
    let (mut cursor, mut seen) = (0, Vec::new());
    loop {
        let page = book.query(&LogQuery { cursor: Some(cursor), limit: Some(900), ..LogQuery::default() }, PLENTY);
        seen.extend(page.items.iter().map(|record| record.seq));
        cursor = page.cursor;
        if !page.has_more {
            break;
        }
    }
    assert!(seen.windows(2).all(|pair| pair[0] + 1 == pair[1]), "a gap or a repetition");
    assert_eq!(seen.last(), Some(&6_000));
    let newest = book.query(&LogQuery { limit: Some(3), ..LogQuery::default() }, PLENTY);
    assert_eq!(words(&newest), ["5998", "5999", "6000"]);
}

#[test]
fn an_answer_is_bounded_by_bytes_and_says_where_to_go_on() {
    let book = LogBook::default();
    (1..=50).for_each(|n| book.append(record(&format!("{n} {}", "y".repeat(300)))));
    let page = book.query(&LogQuery { cursor: Some(0), ..LogQuery::default() }, 5_000);
    assert!(page.has_more && !page.items.is_empty());
    assert!(page.items.iter().map(Record::weight).sum::<usize>() <= 5_000);
    assert_eq!(page.cursor, page.items.last().unwrap().seq);
    let newest = book.query(&LogQuery::default(), 5_000);
    assert_eq!(newest.items.last().unwrap().seq, 50);
    let one = book.query(&LogQuery { cursor: Some(49), ..LogQuery::default() }, 1);
    assert_eq!(one.items.len(), 1, "a reader gets past a large one");
}

#[test]
fn level_actor_and_time_filter() {
    let book = LogBook::default();
    let start = Utc::now();
    for (n, level) in [(0, Level::Error), (1, Level::Warn), (2, Level::Info)] {
        book.append(Record { ts: start + TimeDelta::seconds(n), level, ..record(level.as_str()) });
    }
    book.append(Record { ts: start + TimeDelta::seconds(3), actor: "mixer".into(), ..record("take") });
    let ask = |query: LogQuery| words(&book.query(&query, PLENTY)).join(" ");
    assert_eq!(ask(LogQuery { level: Some(Level::Warn), ..LogQuery::default() }), "error warn");
    assert_eq!(ask(LogQuery { actor: Some("Mixer".into()), ..LogQuery::default() }), "take");
    let window = LogQuery {
        since: Some(start + TimeDelta::seconds(1)),
        until: Some(start + TimeDelta::seconds(3)),
        ..LogQuery::default()
    };
    assert_eq!(ask(window), "warn info");
    assert_eq!(book.query(&LogQuery { limit: Some(MOST * 9), ..LogQuery::default() }, PLENTY).items.len(), 4);
}

proptest! {
    #[test]
    fn what_is_cut_off_never_shows_half_a_secret(before in "\\PC{0,5000}", after in "\\PC{0,5000}") {
        let redactor = crate::redact::Redactor::default();
        let secret = "Qm4rk3r0fS3cr3cy";
        redactor.learn(secret);
        let text = format!("{before}{secret}{after}");
        let clean = redactor.text(&text);
        prop_assert!(!cut(&clean).contains("Qm4rk3r0"));
    }
}
