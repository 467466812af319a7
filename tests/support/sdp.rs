//! Offers by WHIP and WHEP from nobody: well-formed, and with nothing behind them.

/// An offer of sound and picture as a browser writes it, `sendonly` (a guest) or `recvonly` (a viewer), without candidates.
pub fn offer(direction: &str) -> String {
    let fingerprint: Vec<String> = (0..32).map(|n| format!("{n:02X}")).collect();
    let section = |kind: &str, mid: u8, format: u8, codec: &str| {
        format!(
            "m={kind} 9 UDP/TLS/RTP/SAVPF {format}\r\nc=IN IP4 0.0.0.0\r\na=ice-ufrag:abcd\r\na=ice-pwd:abcdefghijklmnopqrstuvwx\r\n\
             a=fingerprint:sha-256 {}\r\na=setup:actpass\r\na=mid:{mid}\r\na={direction}\r\na=rtcp-mux\r\na=ssrc:{mid}1 cname:x\r\na=rtpmap:{format} {codec}\r\n",
            fingerprint.join(":")
        )
    };
    format!(
        "v=0\r\no=- 46117317 2 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\na=group:BUNDLE 0 1\r\n{}{}\
         a=fmtp:102 level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=42e01f\r\n",
        section("audio", 0, 111, "opus/48000/2"),
        section("video", 1, 102, "H264/90000"),
    )
}
