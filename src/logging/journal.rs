//! The systemd journal, by its native protocol (systemd.io/JOURNAL_NATIVE_PROTOCOL): one datagram an entry, with priority and
//! target as fields of their own, so that `journalctl -p` and `R58_TARGET=` find them.
//!
//! The crate for it (tracing-journald) hands each field on as it is; here an entry becomes text first, as for any other form, and
//! what is secret is taken out of that.

use std::io::{self, Write};
use std::os::unix::net::UnixDatagram;
use std::sync::Arc;

use r58_actors::redact::Redactor;
use tracing::{Level, Metadata, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::registry::LookupSpan;

/// Where journald listens.
const SOCKET: &str = "/run/systemd/journal/socket";
/// Longest entry, in bytes: well under what a datagram holds (`net.core.wmem_default` is 208 KiB).
const LONGEST: usize = 64 * 1024;

/// The journal of this machine. Cheap to clone.
#[derive(Clone)]
pub(super) struct Journal {
    socket: Arc<UnixDatagram>,
    redactor: Redactor,
}

impl Journal {
    /// Opens it.
    ///
    /// # Errors
    /// That there is none.
    pub fn open(redactor: Redactor) -> io::Result<Self> {
        let socket = UnixDatagram::unbound()?;
        // Said once, to nobody: an entry without fields is none.
        socket.send_to(&[], SOCKET)?;
        // A journal that is stuck holds nobody up.
        socket.set_nonblocking(true)?;
        Ok(Self { socket: Arc::new(socket), redactor })
    }
}

/// What writes every event to it.
pub(super) fn layer<S>(journal: Journal) -> impl Layer<S>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    let plain = tracing_subscriber::fmt::layer().without_time().with_level(false).with_target(false);
    plain.with_ansi(false).with_writer(journal)
}

/// One event on its way.
pub(super) struct Entry {
    journal: Journal,
    level: Level,
    target: String,
}

impl<'a> MakeWriter<'a> for Journal {
    type Writer = Entry;

    fn make_writer(&'a self) -> Entry {
        Entry { journal: self.clone(), level: Level::INFO, target: String::new() }
    }

    fn make_writer_for(&'a self, meta: &Metadata<'_>) -> Entry {
        Entry { journal: self.clone(), level: *meta.level(), target: meta.target().to_owned() }
    }
}

impl Write for Entry {
    fn write(&mut self, text: &[u8]) -> io::Result<usize> {
        let clean = self.journal.redactor.text(&String::from_utf8_lossy(text)).into_owned();
        if self.journal.socket.send_to(&datagram(self.level, &self.target, clean.trim_end()), SOCKET).is_err() {
            // Being restarted, or behind: under systemd this finds its way, too.
            io::stderr().lock().write_all(clean.as_bytes())?;
        }
        Ok(text.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// An entry as journald wants it: fields, one a line; a text that may hold line breaks by its length.
fn datagram(level: Level, target: &str, text: &str) -> Vec<u8> {
    // syslog(3).
    let priority = match level {
        Level::ERROR => 3,
        Level::WARN => 4,
        Level::INFO => 6,
        Level::DEBUG | Level::TRACE => 7,
    };
    let target: String = target.chars().filter(|c| !c.is_control()).collect();
    let text = &text[..text.floor_char_boundary(LONGEST)];
    let mut entry = format!("PRIORITY={priority}\nSYSLOG_IDENTIFIER=r58\nR58_TARGET={target}\nMESSAGE\n").into_bytes();
    entry.extend((text.len() as u64).to_le_bytes());
    entry.extend(text.as_bytes());
    entry.push(b'\n');
    entry
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_holds_any_text_whole_and_no_text_adds_a_field() {
        let entry = datagram(Level::WARN, "r58::fleet\nPRIORITY=0", "one\nPRIORITY=0\ntwo");
        let head = b"PRIORITY=4\nSYSLOG_IDENTIFIER=r58\nR58_TARGET=r58::fleetPRIORITY=0\nMESSAGE\n";
        let rest = entry.strip_prefix(&head[..]).unwrap();
        assert_eq!(rest[..8], 18_u64.to_le_bytes());
        assert_eq!(&rest[8..], b"one\nPRIORITY=0\ntwo\n");
        let long = datagram(Level::TRACE, "", &"ä".repeat(LONGEST));
        assert!(long.len() < LONGEST + 200 && std::str::from_utf8(&long[long.len() - 3..]).is_ok());
    }
}
