//! The answer: what the stack wrote, mended where WHIP asks for more, and refused when it is not whole.

use std::net::IpAddr;

use super::offer::{CheckedOffer, Purpose};
use super::{MediaKind, SdpError};

/// Finishes the stack's answer to a checked offer.
///
/// Every section must be accepted and have the direction of the endpoint (`recvonly` for WHIP, `sendonly` for WHEP), or
/// the whole offer is refused (RFC 9725, section 4.2: never a partial answer). `a=rtcp-mux-only` is added to each section
/// (section 4.4), candidates of the RTCP component, which does not exist here, are dropped, and the format parameters of
/// H.264 are given back as they were offered (RFC 6184, section 8.2.2: symmetric). Candidates, which the stack lists as they
/// happened to be gathered, are put in an order: FFmpeg's muxer tries the first one alone.
///
/// # Errors
/// [`SdpError::PartialAnswer`].
pub fn finish_answer(answer: &str, offer: &CheckedOffer, purpose: Purpose) -> Result<String, SdpError> {
    let direction = match purpose {
        Purpose::Publish => "a=recvonly",
        Purpose::View => "a=sendonly",
    };
    let mut out = String::with_capacity(answer.len() + 256);
    let mut sections: Vec<(MediaKind, bool)> = Vec::new();
    let mut candidates: Vec<&str> = Vec::new();
    for line in answer.lines() {
        let line = line.trim_end();
        if let Some(head) = line.strip_prefix("m=") {
            sections.push((accepted_kind(head)?, false));
        } else if line == direction
            && let Some((_, seen)) = sections.last_mut()
        {
            *seen = true;
        }
        if line.is_empty() || is_rtcp_candidate(line) {
            continue;
        }
        if line.starts_with("a=candidate:") {
            candidates.push(line);
            continue;
        }
        put_in_order(&mut candidates, &mut out);
        match restored_fmtp(line, offer) {
            Some(fmtp) => out.push_str(&fmtp),
            None => out.push_str(line),
        }
        out.push_str("\r\n");
        if line == "a=rtcp-mux" {
            out.push_str("a=rtcp-mux-only\r\n");
        }
    }
    put_in_order(&mut candidates, &mut out);
    let offered: Vec<(MediaKind, bool)> = offer.media.iter().map(|m| (m.kind, true)).collect();
    if sections == offered { Ok(out) } else { Err(SdpError::PartialAnswer) }
}

fn accepted_kind(head: &str) -> Result<MediaKind, SdpError> {
    let mut words = head.split_ascii_whitespace();
    match (words.next(), words.next()) {
        (_, Some("0") | None) => Err(SdpError::PartialAnswer),
        (Some("audio"), _) => Ok(MediaKind::Audio),
        (Some("video"), _) => Ok(MediaKind::Video),
        _ => Err(SdpError::PartialAnswer),
    }
}

fn is_rtcp_candidate(line: &str) -> bool {
    line.strip_prefix("a=candidate:").is_some_and(|c| c.split_ascii_whitespace().nth(1) == Some("2"))
}

/// Writes the candidates of a section, those first that most clients can use: the box's own addresses before those that others
/// lend it, those of networks before the loopback's, IPv4 before IPv6.
fn put_in_order(candidates: &mut Vec<&str>, out: &mut String) {
    candidates.sort_by_cached_key(|line| {
        let fields: Vec<&str> = line.split_ascii_whitespace().collect();
        let address: Option<IpAddr> = fields.get(4).and_then(|address| address.parse().ok());
        let (loopback, v6) = address.map_or((true, true), |address| (address.is_loopback(), address.is_ipv6()));
        (fields.get(7) != Some(&"host"), loopback, v6)
    });
    for line in candidates.drain(..) {
        out.push_str(line);
        out.push_str("\r\n");
    }
}

fn restored_fmtp(line: &str, offer: &CheckedOffer) -> Option<String> {
    let (payload_type, _) = line.strip_prefix("a=fmtp:")?.split_once(' ')?;
    let codec = offer.codec(payload_type.parse().ok()?)?;
    codec.h264?;
    (!codec.fmtp.is_empty()).then(|| format!("a=fmtp:{payload_type} {}", codec.fmtp))
}
