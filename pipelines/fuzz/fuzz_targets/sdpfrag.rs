//! A fragment from the network: refused, or one that says the same when it is applied to an offer; and what an answer gives
//! back is a fragment again.
#![no_main]

use libfuzzer_sys::fuzz_target;
use r58_pipelines::sdp::{AnswerFragment, CheckedOffer, MAX_CANDIDATES, Purpose, SdpFragment};

fuzz_target!(|bytes: &[u8]| {
    let text = String::from_utf8_lossy(bytes);
    if let Ok(answer) = AnswerFragment::of_answer(&text) {
        let _ = answer.to_string();
    }
    let Ok(fragment) = SdpFragment::parse(&text) else { return };
    assert!(fragment.candidates.len() <= MAX_CANDIDATES);
    let offer = CheckedOffer::parse(OFFER, Purpose::Publish).expect("a good offer");
    let restarted = offer.restarted(&fragment);
    let read = CheckedOffer::parse(restarted.sdp(), Purpose::Publish).expect("a restarted offer keeps every rule");
    assert_eq!((read.ufrag(), read.candidates.len()), (fragment.ufrag.as_str(), fragment.candidates.len()));
});

const OFFER: &str = "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\na=group:BUNDLE 0\r\n\
    m=audio 9 UDP/TLS/RTP/SAVPF 111\r\nc=IN IP4 0.0.0.0\r\na=mid:0\r\na=ice-ufrag:abcd\r\n\
    a=ice-pwd:abcdefghijklmnopqrstuvwx\r\na=setup:actpass\r\na=sendonly\r\na=rtcp-mux\r\na=ssrc:1 cname:x\r\n\
    a=fingerprint:sha-256 00:01:02:03:04:05:06:07:08:09:0A:0B:0C:0D:0E:0F:10:11:12:13:14:15:16:17:18:19:1A:1B:1C:1D:1E:1F\r\n\
    a=rtpmap:111 opus/48000/2\r\n";
