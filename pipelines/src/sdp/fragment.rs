//! Fragments of SDP that carry candidates after the offer (trickle ICE) or begin a new ICE session (restart): the bodies of
//! WHIP's PATCH, `application/trickle-ice-sdpfrag` (RFC 8840, section 9).

use std::fmt;

use super::lines::{self, Block};
use super::offer::{self, OfferedCandidate};
use super::{MAX_CANDIDATES, SdpError};

/// What a client's fragment says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SdpFragment {
    /// The user fragment of the ICE session that it speaks of.
    pub ufrag: String,
    /// Its password.
    pub pwd: String,
    /// The candidates that can be used. Others (TCP, mDNS names, unknown types) were skipped (RFC 9725, section 4.3).
    pub candidates: Vec<OfferedCandidate>,
    /// Whether the client has no more to come.
    pub is_end: bool,
}

impl SdpFragment {
    /// Reads a fragment. Costs time linear in its size.
    ///
    /// # Errors
    /// [`SdpError::TooLarge`] above 64 KiB; [`SdpError::Malformed`] for what is no fragment, or one without the ICE
    /// credentials that say which session it belongs to.
    pub fn parse(text: &str) -> Result<Self, SdpError> {
        let (session, blocks) = lines::split_fragment(text)?;
        let all = || [&session].into_iter().chain(&blocks);
        let first = |name: &str| all().find_map(|block| block.first(name));
        let (Some(ufrag), Some(pwd)) = (first("ice-ufrag"), first("ice-pwd")) else {
            return Err(SdpError::Malformed("ice-ufrag or ice-pwd is missing"));
        };
        if !offer::is_ice_text(ufrag, 4) || !offer::is_ice_text(pwd, 22) {
            return Err(SdpError::Malformed("ice-ufrag or ice-pwd is malformed"));
        }
        for block in &blocks {
            if !block.first("mid").is_some_and(lines::is_token) {
                return Err(SdpError::Malformed("a section has no proper mid"));
            }
        }
        // Under a BUNDLE every section repeats the same ICE session; one that names another would be of no use.
        if all().any(|block| block.first("ice-ufrag").is_some_and(|other| other != ufrag)) {
            return Err(SdpError::Malformed("a fragment speaks of one ICE session"));
        }
        let values = all().flat_map(|block| block.values("candidate"));
        let candidates = offer::distinct_candidates(values);
        let is_end = all().any(|block: &Block<'_>| block.has("end-of-candidates"));
        Ok(Self { ufrag: ufrag.to_owned(), pwd: pwd.to_owned(), candidates, is_end })
    }
}

/// What this box answers to a restart: the ICE part of its own description.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AnswerFragment {
    /// The user fragment of the new ICE session.
    pub ufrag: String,
    /// Its password.
    pub pwd: String,
    mid: String,
    head: String,
    /// Attributes that repeat those of the answer: `ice-options`, `ice-lite`, `ice-pacing` (RFC 9725, section 4.3).
    options: Vec<String>,
    candidates: Vec<String>,
}

impl AnswerFragment {
    /// The ICE part of a whole answer of ours.
    ///
    /// # Errors
    /// [`SdpError::PartialAnswer`] when the text is no answer.
    pub fn of_answer(answer: &str) -> Result<Self, SdpError> {
        let (session, blocks) = lines::split(answer).map_err(|_| SdpError::PartialAnswer)?;
        let block = blocks.first().ok_or(SdpError::PartialAnswer)?;
        let first = |name: &str| block.first(name).or_else(|| session.first(name)).ok_or(SdpError::PartialAnswer);
        let mut options = Vec::new();
        for name in ["ice-lite", "ice-options", "ice-pacing"] {
            let value = session.first(name).or_else(|| block.first(name));
            options
                .extend(value.map(|value| if value.is_empty() { name.to_owned() } else { format!("{name}:{value}") }));
        }
        Ok(Self {
            ufrag: first("ice-ufrag")?.to_owned(),
            pwd: first("ice-pwd")?.to_owned(),
            mid: first("mid")?.to_owned(),
            head: block.head.to_owned(),
            options,
            candidates: block.values("candidate").take(MAX_CANDIDATES).map(str::to_owned).collect(),
        })
    }
}

impl fmt::Display for AnswerFragment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for option in &self.options {
            write!(f, "a={option}\r\n")?;
        }
        write!(f, "a=ice-ufrag:{}\r\na=ice-pwd:{}\r\n", self.ufrag, self.pwd)?;
        write!(f, "m={}\r\na=mid:{}\r\n", self.head, self.mid)?;
        for candidate in &self.candidates {
            write!(f, "a=candidate:{candidate}\r\n")?;
        }
        f.write_str("a=end-of-candidates\r\n")
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::sdp::CandidateKind;

    const TRICKLED: &str = "a=ice-ufrag:EsAw\r\na=ice-pwd:P2uYro0UCOQ4zxjKXaWCBui1\r\nm=audio 9 RTP/AVP 0\r\na=mid:0\r\n\
        a=candidate:1387637174 1 udp 2122260223 192.0.2.1 61764 typ host generation 0 ufrag EsAw network-id 1\r\n\
        a=candidate:3471623853 1 udp 2122194687 198.51.100.2 61765 typ host generation 0 ufrag EsAw network-id 2\r\n\
        a=candidate:473322822 1 tcp 1518280447 192.0.2.1 9 typ host tcptype active\r\n\
        a=candidate:2154773085 1 udp 2122262783 f3f1a8e0-8c0f-4a6b-9d3f-2b6f.local 61766 typ host\r\n\
        a=end-of-candidates\r\n";

    #[test]
    fn usable_candidates_are_taken_and_the_others_skipped() {
        let fragment = SdpFragment::parse(TRICKLED).unwrap();
        assert_eq!((fragment.ufrag.as_str(), fragment.is_end), ("EsAw", true));
        let ports: Vec<u16> = fragment.candidates.iter().map(|candidate| candidate.port).collect();
        assert_eq!(ports, [61764, 61765]);
        assert!(fragment.candidates.iter().all(|candidate| candidate.kind == CandidateKind::Host));
    }

    #[test]
    fn a_fragment_without_candidates_is_one_too() {
        let fragment = SdpFragment::parse("a=ice-ufrag:abcd\na=ice-pwd:0123456789012345678901\n").unwrap();
        assert!(fragment.candidates.is_empty() && !fragment.is_end);
    }

    #[test]
    fn what_is_no_fragment_is_refused_in_words() {
        for (text, why) in [
            ("", "ice-ufrag"),
            ("hello", "x=value"),
            ("a=ice-ufrag:EsAw\r\n", "missing"),
            ("a=ice-ufrag:EsAw\r\na=ice-pwd:short\r\n", "malformed"),
            ("a=ice-ufrag:Es w\r\na=ice-pwd:P2uYro0UCOQ4zxjKXaWCBui1\r\n", "malformed"),
            ("a=ice-ufrag:EsAw\r\na=ice-pwd:P2uYro0UCOQ4zxjKXaWCBui1\r\nm=audio 9 RTP/AVP 0\r\n", "mid"),
            (
                "a=ice-ufrag:EsAw\r\na=ice-pwd:P2uYro0UCOQ4zxjKXaWCBui1\r\nm=audio 9 RTP/AVP 0\r\na=mid:0\r\na=ice-ufrag:other\r\n",
                "one ICE session",
            ),
        ] {
            let error = SdpFragment::parse(text).unwrap_err();
            assert!(error.to_string().contains(why) && error.http_status() == 400, "{text:?}: {error}");
        }
        let large = "a=x\r\n".repeat(20_000);
        assert_eq!(SdpFragment::parse(&large).unwrap_err().http_status(), 413);
    }

    #[test]
    fn a_stranger_cannot_make_the_box_check_many_addresses() {
        let mut text = TRICKLED.to_owned();
        for n in 0..500 {
            text.push_str(&format!("a=candidate:{n} 1 udp 1 203.0.113.9 {} typ host\r\n", 1000 + n));
        }
        assert_eq!(SdpFragment::parse(&text).unwrap().candidates.len(), MAX_CANDIDATES);
    }

    #[test]
    fn the_answer_of_a_restart_repeats_what_the_answer_said_of_ice() {
        let answer = "v=0\r\no=- 1 2 IN IP4 0.0.0.0\r\ns=-\r\nt=0 0\r\na=ice-lite\r\na=ice-options:trickle ice2\r\na=group:BUNDLE 0 1\r\n\
            m=audio 9 UDP/TLS/RTP/SAVPF 111\r\na=mid:0\r\na=ice-ufrag:new1\r\na=ice-pwd:abcdefabcdefabcdefabcdef\r\n\
            a=candidate:1 1 udp 2130706431 192.0.2.7 50000 typ host\r\nm=video 9 UDP/TLS/RTP/SAVPF 96\r\na=mid:1\r\n\
            a=ice-ufrag:new1\r\na=ice-pwd:abcdefabcdefabcdefabcdef\r\n";
        let text = AnswerFragment::of_answer(answer).unwrap().to_string();
        assert_eq!(
            text,
            "a=ice-lite\r\na=ice-options:trickle ice2\r\na=ice-ufrag:new1\r\na=ice-pwd:abcdefabcdefabcdefabcdef\r\n\
             m=audio 9 UDP/TLS/RTP/SAVPF 111\r\na=mid:0\r\na=candidate:1 1 udp 2130706431 192.0.2.7 50000 typ host\r\n\
             a=end-of-candidates\r\n"
        );
        let read = SdpFragment::parse(&text).unwrap();
        assert_eq!((read.ufrag.as_str(), read.candidates.len(), read.is_end), ("new1", 1, true));
    }

    proptest! {
        #[test]
        fn no_text_makes_the_parser_panic(text in "(a=|m=|v=)?[ -~\r\n]{0,400}") {
            let _ = SdpFragment::parse(&text);
        }

        #[test]
        fn pieces_of_a_real_fragment_never_make_it_panic(cuts in proptest::collection::vec(0..TRICKLED.len(), 2)) {
            let (from, to) = (cuts[0].min(cuts[1]), cuts[0].max(cuts[1]));
            let _ = SdpFragment::parse(&TRICKLED[from..to]);
        }
    }
}
