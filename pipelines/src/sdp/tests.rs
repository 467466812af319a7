//! Rules of offers and answers, one sentence each.

use super::*;
use proptest::prelude::*;

const FINGERPRINT: &str = "a=fingerprint:sha-256 00:01:02:03:04:05:06:07:08:09:0A:0B:0C:0D:0E:0F:10:11:12:13:14:15:16:17:18:19:1A:1B:1C:1D:1E:1F";

fn head(group: &str) -> String {
    format!("v=0\r\no=- 46117317 2 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\na=group:BUNDLE {group}\r\n")
}

fn section(kind: &str, mid: &str, direction: &str, codecs: &[(u8, &str, &str)]) -> String {
    let formats: Vec<String> = codecs.iter().map(|(pt, ..)| pt.to_string()).collect();
    let mut text = format!(
        "m={kind} 9 UDP/TLS/RTP/SAVPF {}\r\nc=IN IP4 0.0.0.0\r\na=ice-ufrag:abcd\r\na=ice-pwd:abcdefghijklmnopqrstuvwx\r\n{FINGERPRINT}\r\na=setup:actpass\r\na=mid:{mid}\r\na={direction}\r\na=rtcp-mux\r\na=ssrc:{}1 cname:x\r\n",
        formats.join(" "),
        mid.len()
    );
    for (pt, map, fmtp) in codecs {
        text += &format!("a=rtpmap:{pt} {map}\r\n");
        if !fmtp.is_empty() {
            text += &format!("a=fmtp:{pt} {fmtp}\r\n");
        }
    }
    text
}

const OPUS: (u8, &str, &str) = (111, "opus/48000/2", "minptime=10;useinbandfec=1");
const VP8: (u8, &str, &str) = (96, "VP8/90000", "");

fn audio() -> String {
    section("audio", "0", "sendonly", &[OPUS])
}

fn video() -> String {
    section("video", "11", "sendonly", &[VP8])
}

fn publish(text: &str) -> Result<CheckedOffer, SdpError> {
    CheckedOffer::parse(text, Purpose::Publish)
}

fn whole() -> String {
    head("0 11") + &audio() + &video()
}

#[test]
fn a_browsers_offer_is_taken_and_rewritten_into_one_that_is_taken_again() {
    let offer = publish(&whole()).unwrap();
    assert_eq!(offer.media.len(), 2);
    assert_eq!(offer.section(MediaKind::Audio).unwrap().codecs[0].codec, Codec::Opus);
    let again = publish(offer.sdp()).unwrap();
    assert_eq!(again.sdp(), offer.sdp());
}

#[test]
fn an_end_that_only_answers_checks_stays_known_as_such() {
    let lite = whole().replace("t=0 0\r\n", "t=0 0\r\na=ice-lite\r\n");
    assert!(publish(&lite).unwrap().sdp().contains("a=ice-lite\r\n"));
    assert!(!publish(&whole()).unwrap().sdp().contains("ice-lite"));
}

#[test]
fn what_is_malformed_is_told_from_what_cannot_be_done() {
    for (text, status) in [
        (String::new(), 400),
        ("hello".to_owned(), 400),
        ("v=0\r\n".to_owned(), 400),
        (whole().replace("v=0", "v=1"), 400),
        (whole().replace("a=mid:0\r\n", ""), 400),
        (whole().replace("a=ice-pwd:abcdefghijklmnopqrstuvwx\r\n", ""), 400),
        (whole() + "a=x\u{0}y\r\n", 400),
        (whole() + &"a".repeat(MAX_OFFER_BYTES), 413),
        (head(""), 422),
        (whole().replace("UDP/TLS/RTP/SAVPF", "RTP/AVP"), 422),
        (whole().replace("a=rtcp-mux\r\n", ""), 422),
        (whole().replace("BUNDLE 0 11", "BUNDLE 0"), 422),
        (whole().replace("setup:actpass", "setup:passive"), 422),
        (whole().replace("sha-256", "sha-1"), 422),
        (whole() + "m=application 9 UDP/DTLS/SCTP webrtc-datachannel\r\na=mid:2\r\n", 422),
    ] {
        let error = publish(&text).unwrap_err();
        assert_eq!(error.http_status(), status, "{error}: {}", &text[..text.len().min(400)]);
    }
}

#[test]
fn the_direction_must_fit_the_endpoint() {
    let with = |direction: &str| whole().replace("sendonly", direction);
    for direction in ["sendonly", "sendrecv"] {
        assert!(CheckedOffer::parse(&with(direction), Purpose::Publish).is_ok());
    }
    for direction in ["recvonly", "inactive"] {
        let error = CheckedOffer::parse(&with(direction), Purpose::Publish).unwrap_err();
        assert_eq!(error, SdpError::Direction(MediaKind::Audio));
    }
    let with = |direction: &str| with(direction).replace("VP8/90000", "H264/90000\r\na=fmtp:96 packetization-mode=1");
    for direction in ["recvonly", "sendrecv"] {
        let offer = CheckedOffer::parse(&with(direction), Purpose::View).unwrap();
        assert!(offer.sdp().contains("a=recvonly"));
    }
    assert!(CheckedOffer::parse(&with("sendonly"), Purpose::View).is_err());
}

#[test]
fn a_viewer_is_sent_one_h264_and_never_vp8() {
    let codecs = [
        VP8,
        (100, "H264/90000", "profile-level-id=64001f;packetization-mode=1"),
        (101, "H264/90000", "profile-level-id=42e01f;packetization-mode=0"),
        (102, "H264/90000", "profile-level-id=42e01f;packetization-mode=1"),
    ];
    let view =
        |codecs: &[_]| CheckedOffer::parse(&(head("11") + &section("video", "11", "recvonly", codecs)), Purpose::View);
    let offer = view(&codecs).unwrap();
    assert_eq!(offer.media[0].codecs.iter().map(|c| c.payload_type).collect::<Vec<_>>(), [102]);
    assert_eq!(view(&codecs[..1]).unwrap_err(), SdpError::NoCommonCodec(MediaKind::Video));
}

#[test]
fn two_tracks_of_a_kind_are_refused() {
    let text = head("0 11 222") + &audio() + &video() + &section("video", "222", "sendonly", &[VP8]);
    assert_eq!(publish(&text).unwrap_err(), SdpError::DuplicateKind(MediaKind::Video));
}

#[test]
fn one_section_without_a_common_codec_refuses_the_whole_offer() {
    let text = head("0 11") + &audio() + &section("video", "11", "sendonly", &[(98, "VP9/90000", "profile-id=0")]);
    assert_eq!(publish(&text).unwrap_err(), SdpError::NoCommonCodec(MediaKind::Video));
}

#[test]
fn the_four_profiles_are_known_by_any_constraint_bits_and_retransmission_is_dropped() {
    let codecs = [
        (102, "H264/90000", "profile-level-id=42001f;packetization-mode=1"),
        (103, "H264/90000", "profile-level-id=42C01E;packetization-mode=1"),
        (104, "H264/90000", "packetization-mode=0; profile-level-id=4d0032"),
        (105, "H264/90000", "profile-level-id=640c1f;packetization-mode=1"),
        (106, "H264/90000", ""),
        (107, "H264/90000", "profile-level-id=f4001f;packetization-mode=1"),
        (108, "H264/90000", "profile-level-id=42e01f;packetization-mode=2"),
        (109, "rtx/90000", "apt=102"),
    ];
    let offer = publish(&(head("11") + &section("video", "11", "sendonly", &codecs))).unwrap();
    let found: Vec<_> = offer.media[0].codecs.iter().map(|c| (c.payload_type, c.h264.unwrap())).collect();
    use H264Profile::*;
    let expected = [
        (102, (Baseline, 1)),
        (103, (ConstrainedBaseline, 1)),
        (104, (Main, 0)),
        (105, (High, 1)),
        (106, (Baseline, 0)),
    ];
    assert_eq!(found, expected);
    assert!(!offer.sdp().contains("rtx"));
}

#[test]
fn candidates_that_no_check_should_be_sent_to_are_skipped_and_the_rest_apply() {
    let lines = [
        "a=candidate:1 1 udp 2122260223 192.0.2.7 50000 typ host generation 0",
        "a=candidate:2 1 tcp 1518280447 192.0.2.7 9 typ host tcptype active",
        "a=candidate:3 1 udp 2122260223 0a1b2c3d.local 50001 typ host",
        "a=candidate:4 2 udp 2122260222 192.0.2.7 50002 typ host",
        "a=candidate:5 1 udp 1686052607 203.0.113.9 50003 typ srflx raddr 192.0.2.7 rport 50000",
        "a=candidate:6 1 udp 1686052607 0.0.0.0 50003 typ host",
        "a=candidate:7 1 udp 1686052607 224.0.0.1 50003 typ host",
        "a=candidate:8 1 udp 1686052607 203.0.113.9 0 typ host",
        "a=candidate:9 1 udp x 203.0.113.9 5 typ host",
        "a=candidate:10 1 udp 5 203.0.113.9 5 typ carrier-pigeon",
        "a=candidate:",
    ];
    let offer = publish(&(whole() + &lines.join("\r\n") + "\r\n")).unwrap();
    let kinds: Vec<_> = offer.candidates.iter().map(|c| (c.kind, c.port)).collect();
    assert_eq!(kinds, [(CandidateKind::Host, 50000), (CandidateKind::Srflx, 50003)]);
    let many: String = (1..500).map(|n| format!("a=candidate:1 1 udp 1 192.0.2.7 {n} typ host\r\n")).collect();
    assert_eq!(publish(&(whole() + &many)).unwrap().candidates.len(), MAX_CANDIDATES);
}

#[test]
fn the_retransmission_stream_is_not_taken_for_the_picture() {
    let text = (head("11") + &section("video", "11", "sendonly", &[VP8]))
        .replace("a=ssrc:21 cname:x", "a=ssrc-group:FID 7 8\r\na=ssrc:8 cname:x\r\na=ssrc:7 cname:x");
    let offer = publish(&text).unwrap();
    assert!(offer.sdp().contains("a=ssrc:7 ") && !offer.sdp().contains("a=ssrc:8 "));
}

#[test]
fn streams_that_cannot_be_told_apart_are_refused_and_a_single_one_needs_no_ssrc() {
    let strip = |text: String| text.replace("a=ssrc:11 cname:x\r\n", "").replace("a=ssrc:21 cname:x\r\n", "");
    assert_eq!(publish(&strip(whole())).unwrap_err(), SdpError::NoSsrc(MediaKind::Audio));
    assert!(publish(&strip(head("0") + &audio())).is_ok());
    let viewer = strip(head("0") + &audio()).replace("sendonly", "recvonly");
    assert!(CheckedOffer::parse(&viewer, Purpose::View).is_ok());
}

fn answer_to(offer: &CheckedOffer) -> String {
    offer.sdp().replace("sendonly", "recvonly").replace("actpass", "passive")
}

#[test]
fn the_answer_gains_rtcp_mux_only_and_the_offered_parameters_and_loses_rtcp_candidates() {
    let codecs = [(103, "H264/90000", "profile-level-id=42C01E;packetization-mode=1")];
    let offer = publish(&(head("11") + &section("video", "11", "sendonly", &codecs))).unwrap();
    let raw = answer_to(&offer)
        + "a=candidate:1 1 udp 1 192.0.2.1 5 typ host\r\na=candidate:1 2 udp 1 192.0.2.1 5 typ host\r\n";
    let answer = finish_answer(&raw, &offer, Purpose::Publish).unwrap();
    assert!(answer.contains("a=rtcp-mux\r\na=rtcp-mux-only\r\n"));
    assert!(answer.contains("a=fmtp:103 profile-level-id=42C01E;packetization-mode=1\r\n"));
    assert_eq!(answer.matches("a=candidate:").count(), 1);
}

#[test]
fn the_first_candidate_is_the_one_that_most_clients_can_use() {
    let offer = publish(&whole()).unwrap();
    let addresses = ["::1", "2001:db8::2", "127.0.0.1", "198.51.100.7", "192.0.2.1"];
    let kinds = ["host", "host", "host", "srflx", "host"];
    let listed: String =
        addresses.iter().zip(kinds).map(|(ip, kind)| format!("a=candidate:1 1 udp 1 {ip} 5 typ {kind}\r\n")).collect();
    let raw = answer_to(&offer).replace("m=video", &format!("{listed}m=video")) + &listed;
    let answer = finish_answer(&raw, &offer, Purpose::Publish).unwrap();
    let order = |section: &str| {
        let listed = section.lines().filter_map(|line| line.strip_prefix("a=candidate:1 1 udp 1 "));
        listed.map(|line| line.split(' ').next().unwrap().to_owned()).collect::<Vec<_>>()
    };
    let (sound, picture) = answer.split_once("m=video").unwrap();
    for section in [sound, picture] {
        assert_eq!(order(section), ["192.0.2.1", "2001:db8::2", "127.0.0.1", "::1", "198.51.100.7"]);
    }
}

#[test]
fn an_answer_that_rejects_or_turns_a_section_is_not_given_out() {
    let offer = publish(&whole()).unwrap();
    let good = answer_to(&offer);
    assert!(finish_answer(&good, &offer, Purpose::Publish).is_ok());
    for bad in [
        good.replace("m=video 9", "m=video 0"),
        good.replacen("a=recvonly", "a=inactive", 1),
        good.split("m=video").next().unwrap().to_owned(),
        String::new(),
    ] {
        assert_eq!(finish_answer(&bad, &offer, Purpose::Publish), Err(SdpError::PartialAnswer));
    }
}

proptest! {
    #[test]
    fn no_text_makes_it_panic(text in "(?s).{0,400}") {
        let _ = publish(&text);
    }

    #[test]
    fn no_mutation_of_a_good_offer_makes_it_panic_and_what_is_taken_stays_taken(
        edits in prop::collection::vec((any::<prop::sample::Index>(), 0usize..24, "(?s).{0,12}"), 1..6)
    ) {
        let mut text = whole() + "a=candidate:1 1 udp 2122260223 192.0.2.7 50000 typ host\r\n";
        for (at, length, insert) in edits {
            let bytes: Vec<char> = text.chars().collect();
            let at = at.index(bytes.len() + 1);
            let end = (at + length).min(bytes.len());
            text = bytes[..at].iter().copied().chain(insert.chars()).chain(bytes[end..].iter().copied()).collect();
        }
        if let Ok(offer) = publish(&text) {
            let again = publish(offer.sdp());
            prop_assert_eq!(again.map(|o| o.sdp().to_owned()), Ok(offer.sdp().to_owned()));
            let _ = finish_answer(&text, &offer, Purpose::Publish);
        }
    }
}
