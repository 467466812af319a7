//! Where log lines go: the journal under systemd, text for people, JSON for collectors.

use std::io::IsTerminal;

use anyhow::{Context, Result};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use crate::config::{LogFormat, LogSettings};

/// Installs the process's subscriber; `RUST_LOG` wins over the configured filter.
///
/// # Errors
/// A filter that cannot be parsed, or a journal that was asked for and is not there.
pub fn start(settings: &LogSettings) -> Result<()> {
    let filter = match std::env::var("RUST_LOG") {
        Ok(filter) if !filter.is_empty() => EnvFilter::try_new(filter).context("RUST_LOG is no log filter")?,
        _ => EnvFilter::try_new(&settings.filter).context("log.filter is no log filter")?,
    };
    let registry = tracing_subscriber::registry().with(filter);
    // systemd sets JOURNAL_STREAM for a unit whose standard error is the journal.
    let under_systemd = std::env::var_os("JOURNAL_STREAM").is_some();
    match settings.format {
        LogFormat::Journald => {
            registry.with(tracing_journald::layer().context("no systemd journal here")?).try_init()?
        }
        LogFormat::Auto if under_systemd && tracing_journald::layer().is_ok() => {
            registry.with(tracing_journald::layer()?).try_init()?;
        }
        LogFormat::Json => {
            registry.with(tracing_subscriber::fmt::layer().json().with_writer(std::io::stderr)).try_init()?
        }
        LogFormat::Auto | LogFormat::Text => {
            registry
                .with(
                    tracing_subscriber::fmt::layer()
                        .with_writer(std::io::stderr)
                        .with_ansi(std::io::stderr().is_terminal()),
                )
                .try_init()?;
        }
    }
    Ok(())
}
