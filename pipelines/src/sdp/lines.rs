//! The outermost grammar: an SDP as a session block and media blocks of `key=value` lines (RFC 8866, section 9).

use super::{MAX_OFFER_BYTES, SdpError};

/// Longest line that is read. The longest real ones, H.264 parameter sets in `a=fmtp`, stay under 1 KiB.
const MAX_LINE_BYTES: usize = 4096;

/// Most media sections that are read; every legal offer has one or two.
const MAX_SECTIONS: usize = 16;

/// One block: the m-line's value (empty for the session) and the attributes after it, as `(name, value)`.
#[derive(Debug, Default)]
pub(super) struct Block<'a> {
    pub(super) head: &'a str,
    pub(super) attributes: Vec<(&'a str, &'a str)>,
}

impl<'a> Block<'a> {
    pub(super) fn values(&self, name: &str) -> impl Iterator<Item = &'a str> {
        self.attributes.iter().filter(move |(key, _)| *key == name).map(|(_, value)| *value)
    }

    pub(super) fn first(&self, name: &str) -> Option<&'a str> {
        self.values(name).next()
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.first(name).is_some()
    }
}

/// Splits a text into its session block and its media blocks.
pub(super) fn split(text: &str) -> Result<(Block<'_>, Vec<Block<'_>>), SdpError> {
    let mut blocks = Blocks::default();
    let mut seen = Seen::default();
    for line in lines(text)? {
        let (key, value) = key_value(line)?;
        if !seen.version {
            if (key, value) != (b'v', "0") {
                return Err(SdpError::Malformed("it does not begin with v=0"));
            }
            seen.version = true;
            continue;
        }
        match key {
            b'v' => return Err(SdpError::Malformed("two version lines")),
            b'o' => seen.origin = true,
            b's' => seen.name = true,
            b't' => seen.time = true,
            _ => blocks.take(key, value)?,
        }
    }
    if !(seen.version && seen.origin && seen.name && seen.time) {
        return Err(SdpError::Malformed("v=, o=, s= and t= lines are required"));
    }
    Ok((blocks.session, blocks.media))
}

/// Splits a fragment (RFC 8840, section 9), which has no session lines of its own.
pub(super) fn split_fragment(text: &str) -> Result<(Block<'_>, Vec<Block<'_>>), SdpError> {
    let mut blocks = Blocks::default();
    for line in lines(text)? {
        let (key, value) = key_value(line)?;
        blocks.take(key, value)?;
    }
    Ok((blocks.session, blocks.media))
}

fn lines(text: &str) -> Result<impl Iterator<Item = &str>, SdpError> {
    if text.len() > MAX_OFFER_BYTES {
        return Err(SdpError::TooLarge(text.len()));
    }
    Ok(text.split('\n').map(|line| line.strip_suffix('\r').unwrap_or(line)).filter(|line| !line.is_empty()))
}

#[derive(Default)]
struct Blocks<'a> {
    session: Block<'a>,
    media: Vec<Block<'a>>,
}

impl<'a> Blocks<'a> {
    fn take(&mut self, key: u8, value: &'a str) -> Result<(), SdpError> {
        match key {
            b'm' if self.media.len() == MAX_SECTIONS => return Err(SdpError::Malformed("too many sections")),
            b'm' => self.media.push(Block { head: value, attributes: Vec::new() }),
            b'a' => {
                let attribute = value.split_once(':').unwrap_or((value, ""));
                self.media.last_mut().unwrap_or(&mut self.session).attributes.push(attribute);
            }
            // Information, bandwidth, connection data and the like: legal, and of no use to ICE.
            _ => {}
        }
        Ok(())
    }
}

#[derive(Default)]
struct Seen {
    version: bool,
    origin: bool,
    name: bool,
    time: bool,
}

fn key_value(line: &str) -> Result<(u8, &str), SdpError> {
    if line.len() > MAX_LINE_BYTES {
        return Err(SdpError::Malformed("a line is too long"));
    }
    if line.chars().any(|c| c.is_control() && c != '\t') {
        return Err(SdpError::Malformed("a line holds control characters"));
    }
    match line.as_bytes() {
        [key, b'=', ..] if key.is_ascii_lowercase() => Ok((*key, &line[2..])),
        _ => Err(SdpError::Malformed("a line is not of the form x=value")),
    }
}

/// A token of RFC 8866 (names of sections, of transports and the like), at most 64 bytes.
pub(super) fn is_token(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= 64
        && text.bytes().all(|b| b.is_ascii_graphic() && !b"\"(),/:;<=>?@[\\]".contains(&b))
}
