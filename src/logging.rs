//! Where log lines go: the journal under systemd, text for people, JSON for collectors; and, whatever the form, the book that
//! the box keeps of itself. Whatever is secret is taken out of each.

mod journal;

use std::io::{IsTerminal, Write};
use std::sync::LazyLock;

use anyhow::{Context, Result};
use r58_actors::logs::LogBook;
use r58_actors::logs::layer::LogLayer;
use r58_actors::redact::Redactor;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use self::journal::Journal;
use crate::config::{LogFormat, LogSettings};

/// What this process says of itself; there is one subscriber in a process, and so one book.
static BOOK: LazyLock<LogBook> = LazyLock::new(LogBook::default);

/// The process's book.
pub fn book() -> LogBook {
    BOOK.clone()
}

/// Standard error without secrets. A line comes in one piece.
struct Clean(Redactor);

impl Write for Clean {
    fn write(&mut self, line: &[u8]) -> std::io::Result<usize> {
        let text = String::from_utf8_lossy(line);
        std::io::stderr().lock().write_all(self.0.text(&text).as_bytes())?;
        Ok(line.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        std::io::stderr().flush()
    }
}

/// Installs the process's subscriber; `RUST_LOG` wins over the configured filter.
///
/// # Errors
/// A filter that cannot be parsed, or a journal that was asked for and is not there.
pub fn start(settings: &LogSettings) -> Result<()> {
    let filter = match std::env::var("RUST_LOG") {
        Ok(filter) if !filter.is_empty() => EnvFilter::try_new(filter).context("RUST_LOG is no log filter")?,
        _ => EnvFilter::try_new(&settings.filter).context("log.filter is no log filter")?,
    };
    // At its most talkative it writes every byte that it stores, commands with what they bring among them.
    let filter = filter.add_directive("sled=info".parse().context("a directive")?);
    let registry = tracing_subscriber::registry().with(filter).with(LogLayer::new(book()));
    let clean = || Clean(BOOK.redactor().clone());
    // systemd sets JOURNAL_STREAM for a unit whose standard error is the journal.
    let under_systemd = std::env::var_os("JOURNAL_STREAM").is_some();
    let open = || Journal::open(BOOK.redactor().clone());
    let journal = match settings.format {
        LogFormat::Journald => Some(open().context("no systemd journal here")?),
        LogFormat::Auto if under_systemd => open().ok(),
        _ => None,
    };
    match (journal, &settings.format) {
        (Some(journal), _) => registry.with(journal::layer(journal)).try_init()?,
        (None, LogFormat::Json) => {
            registry.with(tracing_subscriber::fmt::layer().json().with_writer(clean)).try_init()?;
        }
        (None, _) => {
            registry
                .with(tracing_subscriber::fmt::layer().with_writer(clean).with_ansi(std::io::stderr().is_terminal()))
                .try_init()?;
        }
    }
    Ok(())
}
