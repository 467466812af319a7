//! The offer: checked, understood and rewritten.

use std::fmt::Write as _;
use std::net::IpAddr;

use super::codec::{self, OfferedCodec};
use super::fragment::SdpFragment;
use super::lines::{self, Block};
use super::{MAX_CANDIDATES, MediaKind, SdpError};

/// Which endpoint the offer was sent to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// WHIP: the client sends.
    Publish,
    /// WHEP: the client receives.
    View,
}

impl Purpose {
    /// The direction that fits the endpoint; `sendrecv` is taken too, and answered as if it were this one.
    fn offered(self) -> Direction {
        match self {
            Self::Publish => Direction::SendOnly,
            Self::View => Direction::RecvOnly,
        }
    }
}

/// Direction of a section, from the offerer's point of view.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// Both ways; the default of RFC 8866.
    SendRecv,
    /// The client only sends.
    SendOnly,
    /// The client only receives.
    RecvOnly,
    /// Neither.
    Inactive,
}

impl Direction {
    fn as_str(self) -> &'static str {
        match self {
            Self::SendRecv => "sendrecv",
            Self::SendOnly => "sendonly",
            Self::RecvOnly => "recvonly",
            Self::Inactive => "inactive",
        }
    }

    fn of(block: &Block<'_>) -> Option<Self> {
        block.attributes.iter().rev().find_map(|(name, _)| {
            [Self::SendRecv, Self::SendOnly, Self::RecvOnly, Self::Inactive].into_iter().find(|d| d.as_str() == *name)
        })
    }
}

/// How a candidate came about (RFC 8445, section 5.1.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CandidateKind {
    /// An address of the client's own interface.
    Host,
    /// Its address as a STUN server saw it.
    Srflx,
    /// Its address as the other peer saw it.
    Prflx,
    /// An address on a TURN server.
    Relay,
}

/// A candidate of the offer that can be used: UDP, component 1, a plain address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OfferedCandidate {
    /// Where it is.
    pub ip: IpAddr,
    /// UDP port, never 0.
    pub port: u16,
    /// How it came about.
    pub kind: CandidateKind,
    line: String,
}

impl OfferedCandidate {
    /// The value of its `a=candidate` line, in canonical form.
    pub fn line(&self) -> &str {
        &self.line
    }
}

/// One section of a checked offer.
#[derive(Debug, Clone)]
pub struct OfferedMedia {
    /// Sound or picture.
    pub kind: MediaKind,
    /// The section's `a=mid`.
    pub mid: String,
    /// The offered direction.
    pub direction: Direction,
    /// Codecs that both sides know, in the client's order of preference; never empty.
    pub codecs: Vec<OfferedCodec>,
    ssrc: Option<u32>,
    extmaps: Vec<String>,
    feedback: Vec<String>,
}

/// An offer that keeps every rule of this endpoint.
#[derive(Debug, Clone)]
pub struct CheckedOffer {
    /// Its sections, in order.
    pub media: Vec<OfferedMedia>,
    /// Its usable candidates; a client that trickles or hides its addresses behind mDNS names has none.
    pub candidates: Vec<OfferedCandidate>,
    transport: Transport,
    purpose: Purpose,
    sdp: String,
}

impl CheckedOffer {
    /// Checks an offer by the rules of the module.
    ///
    /// # Errors
    /// The first rule that the offer breaks; [`SdpError::http_status`] says what to answer.
    pub fn parse(text: &str, purpose: Purpose) -> Result<Self, SdpError> {
        let (session, blocks) = lines::split(text)?;
        if blocks.is_empty() {
            return Err(SdpError::NoMedia);
        }
        let default_direction = Direction::of(&session).unwrap_or(Direction::SendRecv);
        let mut media: Vec<OfferedMedia> = Vec::new();
        for block in &blocks {
            let section = OfferedMedia::read(block, default_direction)?;
            if media.iter().any(|m| m.kind == section.kind) {
                return Err(SdpError::DuplicateKind(section.kind));
            }
            if media.iter().any(|m| m.mid == section.mid) {
                return Err(SdpError::Malformed("two sections share a mid"));
            }
            media.push(section);
        }
        check_bundle(&session, &media)?;
        let transport = Transport::read(&session, &blocks)?;
        let sections = media.len();
        for section in &mut media {
            if purpose == Purpose::View {
                codec::keep_what_is_sent(&mut section.codecs);
                // Nothing here acts on the feedback, so none is asked for.
                section.extmaps.clear();
            }
            section.check(purpose, sections)?;
        }
        let candidates = read_candidates(&session, &blocks, &transport.ufrag);
        let sdp = write(&media, &transport, &candidates, purpose);
        Ok(Self { media, candidates, transport, purpose, sdp })
    }

    /// The rewritten offer, for the stack.
    pub fn sdp(&self) -> &str {
        &self.sdp
    }

    /// Whether it holds sound and no picture.
    pub fn is_voice(&self) -> bool {
        self.media.iter().all(|section| section.kind == MediaKind::Audio)
    }

    /// The user fragment of the client's ICE session.
    pub fn ufrag(&self) -> &str {
        &self.transport.ufrag
    }

    /// The same offer in a new ICE session: its credentials, and its candidates in place of the old ones (RFC 9725, section
    /// 4.3: replaced, not merged).
    pub fn restarted(&self, fragment: &SdpFragment) -> Self {
        let mut transport = self.transport.clone();
        (transport.ufrag, transport.pwd) = (fragment.ufrag.clone(), fragment.pwd.clone());
        let candidates = fragment.candidates.clone();
        let sdp = write(&self.media, &transport, &candidates, self.purpose);
        Self { media: self.media.clone(), candidates, transport, purpose: self.purpose, sdp }
    }

    /// Takes note of the stream that a section turned out to carry, where the offer named none: a new description that is
    /// silent about it would end the track.
    pub(crate) fn name_ssrc(&mut self, kind: MediaKind, ssrc: u32) {
        if let Some(section) = self.media.iter_mut().find(|m| m.kind == kind && m.ssrc.is_none()) {
            section.ssrc = Some(ssrc);
        }
    }

    /// Adds candidates that came after the offer, as far as they are new and not too many; those that were added.
    pub(crate) fn add_candidates(&mut self, fragment: &SdpFragment) -> Vec<OfferedCandidate> {
        let mut added = Vec::new();
        for candidate in &fragment.candidates {
            let known = self.candidates.iter().any(|c| (c.ip, c.port) == (candidate.ip, candidate.port));
            if !known && self.candidates.len() < super::MAX_CANDIDATES {
                self.candidates.push(candidate.clone());
                added.push(candidate.clone());
            }
        }
        added
    }

    /// The section of a kind.
    pub fn section(&self, kind: MediaKind) -> Option<&OfferedMedia> {
        self.media.iter().find(|m| m.kind == kind)
    }

    /// The codec behind a payload type.
    pub fn codec(&self, payload_type: u8) -> Option<&OfferedCodec> {
        self.media.iter().flat_map(|m| &m.codecs).find(|c| c.payload_type == payload_type)
    }
}

impl OfferedMedia {
    fn read(block: &Block<'_>, default_direction: Direction) -> Result<Self, SdpError> {
        let mut words = block.head.split_ascii_whitespace();
        let (Some(kind), Some(port), Some(proto)) = (words.next(), words.next(), words.next()) else {
            return Err(SdpError::Malformed("an m-line is too short"));
        };
        let formats: Vec<&str> = words.take(128).collect();
        let port: u16 = port.parse().map_err(|_| SdpError::Malformed("an m-line has no port"))?;
        let kind = match kind {
            "audio" => MediaKind::Audio,
            "video" => MediaKind::Video,
            _ => return Err(SdpError::UnsupportedSection("only audio and video are taken")),
        };
        if port == 0 && !block.has("bundle-only") {
            return Err(SdpError::UnsupportedSection("a section is rejected by its own offer"));
        }
        if proto != "UDP/TLS/RTP/SAVPF" {
            return Err(SdpError::UnsupportedSection("media must be UDP/TLS/RTP/SAVPF"));
        }
        let mid = block.first("mid").filter(|mid| lines::is_token(mid));
        let mid = mid.ok_or(SdpError::Malformed("a section has no proper mid"))?.to_owned();
        if !block.has("rtcp-mux") {
            return Err(SdpError::NotBundled);
        }
        let codecs = codec::supported(kind, &formats, block);
        Ok(Self {
            kind,
            mid,
            direction: Direction::of(block).unwrap_or(default_direction),
            ssrc: primary_ssrc(block),
            extmaps: transport_cc(block),
            feedback: feedback(block, &codecs),
            codecs,
        })
    }

    fn check(&self, purpose: Purpose, sections: usize) -> Result<(), SdpError> {
        if self.direction != purpose.offered() && self.direction != Direction::SendRecv {
            return Err(SdpError::Direction(self.kind));
        }
        if self.codecs.is_empty() {
            return Err(SdpError::NoCommonCodec(self.kind));
        }
        if purpose == Purpose::Publish && sections > 1 && self.ssrc.is_none() {
            return Err(SdpError::NoSsrc(self.kind));
        }
        Ok(())
    }
}

/// The session's ICE and DTLS parameters: those of the first section, which carries the BUNDLE (RFC 8843, section 7.1.3).
#[derive(Debug, Clone)]
struct Transport {
    ufrag: String,
    pwd: String,
    fingerprint: String,
    setup: String,
    /// The other end only answers checks, and this one has to choose the path (RFC 8445, section 2.5).
    lite: bool,
}

impl Transport {
    fn read(session: &Block<'_>, blocks: &[Block<'_>]) -> Result<Self, SdpError> {
        let first = |name: &str| blocks.first().and_then(|b| b.first(name)).or_else(|| session.first(name));
        let (Some(ufrag), Some(pwd)) = (first("ice-ufrag"), first("ice-pwd")) else {
            return Err(SdpError::Malformed("ice-ufrag or ice-pwd is missing"));
        };
        // Lengths and alphabet of RFC 8839, section 5.4.
        if !is_ice_text(ufrag, 4) || !is_ice_text(pwd, 22) {
            return Err(SdpError::Malformed("ice-ufrag or ice-pwd is malformed"));
        }
        match first("setup") {
            Some(setup @ ("actpass" | "active")) => {
                let fingerprint = blocks.first().into_iter().chain([session]).flat_map(|b| b.values("fingerprint"));
                let fingerprint = fingerprint.into_iter().find_map(sha256).ok_or(SdpError::Fingerprint)?;
                let [ufrag, pwd, fingerprint, setup] = [ufrag, pwd, fingerprint, setup].map(str::to_owned);
                Ok(Self { ufrag, pwd, fingerprint, setup, lite: session.has("ice-lite") })
            }
            _ => Err(SdpError::Setup),
        }
    }
}

pub(super) fn is_ice_text(text: &str, least: usize) -> bool {
    (least..=256).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'+' || b == b'/')
}

fn sha256(value: &str) -> Option<&str> {
    let (hash, digest) = value.split_once(' ')?;
    let digest = digest.trim();
    let pairs = digest.split(':').filter(|p| p.len() == 2 && p.bytes().all(|b| b.is_ascii_hexdigit())).count();
    (hash.eq_ignore_ascii_case("sha-256") && pairs == 32 && digest.len() == 95).then_some(digest)
}

fn check_bundle(session: &Block<'_>, media: &[OfferedMedia]) -> Result<(), SdpError> {
    let bundle = session.values("group").find_map(|group| group.strip_prefix("BUNDLE"));
    let mids: Vec<&str> = bundle.unwrap_or_default().split_ascii_whitespace().take(32).collect();
    if !media.iter().all(|m| mids.contains(&m.mid.as_str())) {
        return Err(SdpError::NotBundled);
    }
    // An offer that was cut off on its way still promises its last section here.
    if mids.len() != media.len() {
        return Err(SdpError::Malformed("the BUNDLE group names a section that is not there"));
    }
    Ok(())
}

/// The first SSRC that is not the retransmission of another one (RFC 5576, RFC 4588) nor a later layer of a simulcast.
fn primary_ssrc(block: &Block<'_>) -> Option<u32> {
    let number = |text: &str| text.split_ascii_whitespace().next().and_then(|s| s.parse::<u32>().ok());
    let repairs: Vec<u32> = block
        .values("ssrc-group")
        .filter_map(|group| group.strip_prefix("FID "))
        .flat_map(|group| group.split_ascii_whitespace().skip(1).filter_map(number))
        .take(64)
        .collect();
    block.values("ssrc").filter_map(number).find(|ssrc| *ssrc != 0 && !repairs.contains(ssrc))
}

const TRANSPORT_CC: &str = "http://www.ietf.org/id/draft-holmer-rmcat-transport-wide-cc-extensions-01";

fn transport_cc(block: &Block<'_>) -> Vec<String> {
    let id = block.values("extmap").find_map(|value| {
        let mut words = value.split_ascii_whitespace();
        let (id, uri) = (words.next()?, words.next()?);
        let id: u8 = id.split('/').next()?.parse().ok()?;
        // One-byte header extensions number 1 to 14 (RFC 8285, section 4.2).
        (uri == TRANSPORT_CC && (1..15).contains(&id)).then_some(id)
    });
    id.map(|id| format!("{id} {TRANSPORT_CC}")).into_iter().collect()
}

fn feedback(block: &Block<'_>, codecs: &[OfferedCodec]) -> Vec<String> {
    const KNOWN: [&str; 5] = ["nack", "nack pli", "ccm fir", "goog-remb", "transport-cc"];
    let mut lines = Vec::new();
    for value in block.values("rtcp-fb").take(256) {
        let Some((pt, what)) = value.split_once(' ') else { continue };
        let what = what.trim();
        if !KNOWN.contains(&what) {
            continue;
        }
        for codec in codecs.iter().filter(|c| pt == "*" || pt.parse() == Ok(c.payload_type)) {
            let line = format!("{} {what}", codec.payload_type);
            if !lines.contains(&line) {
                lines.push(line);
            }
        }
    }
    lines
}

fn read_candidates(session: &Block<'_>, blocks: &[Block<'_>], ufrag: &str) -> Vec<OfferedCandidate> {
    // A balanced offer may carry another transport in its second section; its candidates are of no use in a BUNDLE.
    let same = |block: &&Block<'_>| block.first("ice-ufrag").is_none_or(|other| other == ufrag);
    distinct_candidates([session].into_iter().chain(blocks.iter().filter(same)).flat_map(|b| b.values("candidate")))
}

/// The candidates that can be used, each address once, at most [`MAX_CANDIDATES`].
pub(super) fn distinct_candidates<'a>(values: impl Iterator<Item = &'a str>) -> Vec<OfferedCandidate> {
    let mut found: Vec<OfferedCandidate> = Vec::new();
    for value in values {
        if found.len() == MAX_CANDIDATES {
            break;
        }
        let Some(candidate) = candidate(value) else { continue };
        if !found.iter().any(|c| (c.ip, c.port) == (candidate.ip, candidate.port)) {
            found.push(candidate);
        }
    }
    found
}

/// Reads one candidate (RFC 8839, section 5.1); `None` for whatever cannot be used: TCP, other components, mDNS names,
/// unknown types, addresses that no packet should be sent to.
fn candidate(value: &str) -> Option<OfferedCandidate> {
    let words: Vec<&str> = value.split_ascii_whitespace().take(16).collect();
    let [foundation, component, transport, priority, address, port, typ, kind, ..] = words.as_slice() else {
        return None;
    };
    if *component != "1" || !transport.eq_ignore_ascii_case("udp") || *typ != "typ" {
        return None;
    }
    let kind = match *kind {
        "host" => CandidateKind::Host,
        "srflx" => CandidateKind::Srflx,
        "prflx" => CandidateKind::Prflx,
        "relay" => CandidateKind::Relay,
        _ => return None,
    };
    let priority: u32 = priority.parse().ok()?;
    let ip: IpAddr = address.parse().ok()?;
    let port: u16 = port.parse().ok().filter(|port| *port != 0)?;
    let broadcast = matches!(ip, IpAddr::V4(v4) if v4.is_broadcast());
    if ip.is_unspecified() || ip.is_multicast() || broadcast || !is_ice_text(foundation, 1) {
        return None;
    }
    let related = if kind == CandidateKind::Host { "" } else { " raddr 0.0.0.0 rport 9" };
    let name = match kind {
        CandidateKind::Host => "host",
        CandidateKind::Srflx => "srflx",
        CandidateKind::Prflx => "prflx",
        CandidateKind::Relay => "relay",
    };
    let line = format!("{foundation} 1 udp {priority} {ip} {port} typ {name}{related}");
    Some(OfferedCandidate { ip, port, kind, line })
}

fn write(media: &[OfferedMedia], transport: &Transport, candidates: &[OfferedCandidate], purpose: Purpose) -> String {
    let mut sdp = String::from("v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\na=group:BUNDLE");
    for section in media {
        sdp.push(' ');
        sdp.push_str(&section.mid);
    }
    sdp.push_str("\r\n");
    if transport.lite {
        sdp.push_str("a=ice-lite\r\n");
    }
    for (index, section) in media.iter().enumerate() {
        let here = if index == 0 { candidates } else { &[] };
        // Writing to a String does not fail.
        let _ = write_section(&mut sdp, section, transport, here, purpose.offered());
    }
    sdp
}

fn write_section(
    sdp: &mut String,
    section: &OfferedMedia,
    transport: &Transport,
    candidates: &[OfferedCandidate],
    direction: Direction,
) -> std::fmt::Result {
    write!(sdp, "m={} 9 UDP/TLS/RTP/SAVPF", section.kind.as_str())?;
    for codec in &section.codecs {
        write!(sdp, " {}", codec.payload_type)?;
    }
    write!(sdp, "\r\nc=IN IP4 0.0.0.0\r\na=mid:{}\r\n", section.mid)?;
    write!(sdp, "a=ice-ufrag:{}\r\na=ice-pwd:{}\r\n", transport.ufrag, transport.pwd)?;
    write!(sdp, "a=fingerprint:sha-256 {}\r\na=setup:{}\r\n", transport.fingerprint, transport.setup)?;
    write!(sdp, "a={}\r\na=rtcp-mux\r\na=rtcp-rsize\r\n", direction.as_str())?;
    for codec in &section.codecs {
        let channels = if section.kind == MediaKind::Audio { "/2" } else { "" };
        write!(
            sdp,
            "a=rtpmap:{} {}/{}{channels}\r\n",
            codec.payload_type,
            codec.codec.name(),
            codec.codec.clock_rate()
        )?;
        let fmtp = codec.canonical_fmtp();
        if !fmtp.is_empty() {
            write!(sdp, "a=fmtp:{} {fmtp}\r\n", codec.payload_type)?;
        }
    }
    for line in &section.feedback {
        write!(sdp, "a=rtcp-fb:{line}\r\n")?;
    }
    for line in &section.extmaps {
        write!(sdp, "a=extmap:{line}\r\n")?;
    }
    if let Some(ssrc) = section.ssrc {
        write!(sdp, "a=msid:guest {0}\r\na=ssrc:{ssrc} cname:guest\r\n", section.kind.as_str())?;
    }
    for candidate in candidates {
        write!(sdp, "a=candidate:{}\r\n", candidate.line)?;
    }
    Ok(())
}
