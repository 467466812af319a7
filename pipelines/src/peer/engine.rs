//! What all peers share: codecs, interceptors, ICE settings.

use std::net::IpAddr;
use std::time::Duration;

use webrtc::api::interceptor_registry::{configure_rtcp_reports, configure_twcc_receiver_only};
use webrtc::api::media_engine::{MIME_TYPE_H264, MIME_TYPE_OPUS, MIME_TYPE_VP8, MediaEngine};
use webrtc::api::setting_engine::SettingEngine;
use webrtc::api::{API, APIBuilder};
use webrtc::dtls_transport::dtls_role::DTLSRole;
use webrtc::ice::mdns::MulticastDnsMode;
use webrtc::ice::network_type::NetworkType;
use webrtc::ice::udp_mux::{UDPMuxDefault, UDPMuxParams};
use webrtc::ice::udp_network::{EphemeralUDP, UDPNetwork};
use webrtc::interceptor::nack::responder::Responder;
use webrtc::interceptor::registry::Registry;
use webrtc::rtp_transceiver::RTCPFeedback;
use webrtc::rtp_transceiver::rtp_codec::{RTCRtpCodecCapability, RTCRtpCodecParameters, RTPCodecType};
use webrtc::util::vnet::net::Net;

use super::{PeerError, PeerSettings, UdpPorts};
use crate::sdp::{CandidateKind, CheckedOffer, H264Profile, h264_fmtp};

/// Without a packet for this long a peer is disconnected.
const DISCONNECTED_AFTER: Duration = Duration::from_secs(5);
/// And this much later it has failed; together less than the 30 s of consent (RFC 7675, section 5.1).
const FAILED_AFTER: Duration = Duration::from_secs(15);
/// Connectivity checks on an idle path.
const KEEPALIVE: Duration = Duration::from_secs(2);
/// Packets that may be overtaken and still pass the check for replays (RFC 3711, section 3.3.2). The stack's own 64 are less
/// than what passes in the round trip of a retransmission at 4 Mbit/s, and without RTX it has its old number.
const REPLAY_WINDOW: usize = 1024;
/// Largest UDP payload that is received: an Ethernet frame's.
const RECEIVE_MTU: usize = 1500;

/// Interfaces of containers and virtual machines: no guest ever comes through them.
const BRIDGES: [&str; 4] = ["docker", "br-", "veth", "virbr"];

pub(super) struct Engine {
    pub(super) api: API,
    pub(super) settings: PeerSettings,
}

impl Engine {
    /// Must be called inside the runtime: a shared port is bound here.
    pub(super) fn new(mut settings: PeerSettings) -> Result<Self, PeerError> {
        // The shared socket is one of IPv4; waiting for candidates that it cannot have would delay every answer.
        settings.ipv6 &= !matches!(settings.ports, UdpPorts::Single(_));
        let mut media = media_engine()?;
        let registry = interceptors(&mut media)?;
        let api = APIBuilder::new()
            .with_media_engine(media)
            .with_interceptor_registry(registry)
            .with_setting_engine(setting_engine(&settings)?)
            .build();
        Ok(Self { api, settings })
    }

    /// Addresses of this box that peers may use, each with whether another one is in its network.
    fn networks(&self) -> Vec<LocalNetwork> {
        // Reads the list of interfaces anew each time: a box is replugged while it runs.
        let Net::Ifs(interfaces) = Net::new(None) else { return Vec::new() };
        let mut networks = Vec::new();
        for interface in interfaces.iter().filter(|i| interface_wanted(&self.settings, i.name())) {
            for net in interface.addrs() {
                if address_wanted(&self.settings, net.addr()) {
                    networks.push(LocalNetwork { address: net.addr(), prefix: net.prefix_len() });
                }
            }
        }
        networks
    }

    /// How many host candidates a connection will gather.
    pub(super) fn host_candidates(&self) -> usize {
        if self.settings.relay_only { 0 } else { self.networks().len() }
    }

    /// Whether the offer shows an address that this box reaches without anybody's help.
    pub(super) fn reaches(&self, offer: &CheckedOffer) -> bool {
        let networks = self.networks();
        let host = |kind| kind == CandidateKind::Host;
        offer.candidates.iter().filter(|c| host(c.kind)).any(|c| networks.iter().any(|n| n.contains(c.ip)))
    }
}

struct LocalNetwork {
    address: IpAddr,
    prefix: u8,
}

impl LocalNetwork {
    fn contains(&self, other: IpAddr) -> bool {
        match (self.address, other) {
            (IpAddr::V4(a), IpAddr::V4(b)) => {
                let shift = 32 - u32::from(self.prefix.min(32));
                (u64::from(a.to_bits()) >> shift) == (u64::from(b.to_bits()) >> shift)
            }
            (IpAddr::V6(a), IpAddr::V6(b)) => {
                let shift = 128 - u32::from(self.prefix.min(128));
                a.to_bits().checked_shr(shift) == b.to_bits().checked_shr(shift)
            }
            _ => false,
        }
    }
}

fn interface_wanted(settings: &PeerSettings, name: &str) -> bool {
    if settings.interfaces.is_empty() {
        return !BRIDGES.iter().any(|bridge| name.starts_with(bridge));
    }
    settings.interfaces.iter().any(|wanted| wanted == name) || (settings.loopback && name == "lo")
}

fn address_wanted(settings: &PeerSettings, address: IpAddr) -> bool {
    if address.is_loopback() {
        return settings.loopback && (address.is_ipv4() || settings.ipv6);
    }
    match address {
        IpAddr::V4(v4) => !v4.is_link_local(),
        // A link-local address needs a scope, which candidates cannot carry.
        IpAddr::V6(v6) => settings.ipv6 && !v6.is_unicast_link_local(),
    }
}

fn setting_engine(settings: &PeerSettings) -> Result<SettingEngine, PeerError> {
    let mut engine = SettingEngine::default();
    engine.set_udp_network(udp_network(settings.ports)?);
    engine.set_ice_timeouts(Some(DISCONNECTED_AFTER), Some(FAILED_AFTER), Some(KEEPALIVE));
    // Names of `.local` candidates are not resolved: their owner's checks reach this box and show the address.
    engine.set_ice_multicast_dns_mode(MulticastDnsMode::Disabled);
    engine.set_include_loopback_candidate(settings.loopback);
    let mut networks = vec![NetworkType::Udp4];
    if settings.ipv6 {
        networks.push(NetworkType::Udp6);
    }
    engine.set_network_types(networks);
    let (names, addresses) = (settings.clone(), settings.clone());
    engine.set_interface_filter(Box::new(move |name| interface_wanted(&names, name)));
    engine.set_ip_filter(Box::new(move |address| address_wanted(&addresses, address)));
    // WHIP: an offer of `actpass` is answered `passive`.
    engine.set_answering_dtls_role(DTLSRole::Server)?;
    engine.set_receive_mtu(RECEIVE_MTU);
    engine.set_srtp_replay_protection_window(REPLAY_WINDOW);
    Ok(engine)
}

fn udp_network(ports: UdpPorts) -> Result<UDPNetwork, PeerError> {
    let bad = |error: &dyn std::fmt::Display| PeerError::Settings(format!("udp ports: {error}"));
    Ok(match ports {
        UdpPorts::Any => UDPNetwork::Ephemeral(EphemeralUDP::default()),
        UdpPorts::Range(0, _) => return Err(bad(&"a range begins at 1 or more")),
        UdpPorts::Range(min, max) => UDPNetwork::Ephemeral(EphemeralUDP::new(min, max).map_err(|e| bad(&e))?),
        UdpPorts::Single(port) => {
            let socket = std::net::UdpSocket::bind(("0.0.0.0", port)).map_err(|e| bad(&e))?;
            socket.set_nonblocking(true).map_err(|e| bad(&e))?;
            let socket = tokio::net::UdpSocket::from_std(socket).map_err(|e| bad(&e))?;
            UDPNetwork::Muxed(UDPMuxDefault::new(UDPMuxParams::new(socket)))
        }
    })
}

/// What the stack calls H.264 of one profile and mode.
pub(super) fn h264_capability(profile: H264Profile, mode: u8) -> RTCRtpCodecCapability {
    RTCRtpCodecCapability {
        mime_type: MIME_TYPE_H264.to_owned(),
        clock_rate: 90_000,
        channels: 0,
        sdp_fmtp_line: h264_fmtp(profile, mode),
        rtcp_feedback: video_feedback(),
    }
}

/// What the stack calls Opus: stereo, with in-band error correction.
pub(super) fn opus_capability() -> RTCRtpCodecCapability {
    RTCRtpCodecCapability {
        mime_type: MIME_TYPE_OPUS.to_owned(),
        clock_rate: 48_000,
        channels: 2,
        sdp_fmtp_line: "minptime=10;useinbandfec=1;stereo=1;sprop-stereo=1".to_owned(),
        rtcp_feedback: Vec::new(),
    }
}

fn video_feedback() -> Vec<RTCPFeedback> {
    let feedback = |typ: &str, parameter: &str| RTCPFeedback { typ: typ.to_owned(), parameter: parameter.to_owned() };
    vec![feedback("nack", ""), feedback("nack", "pli"), feedback("ccm", "fir")]
}

fn media_engine() -> Result<MediaEngine, PeerError> {
    let mut media = MediaEngine::default();
    let codec = |capability, payload_type| RTCRtpCodecParameters { capability, payload_type, ..Default::default() };
    media.register_codec(codec(opus_capability(), 111), RTPCodecType::Audio)?;
    let mut payload_type = 96;
    for profile in H264Profile::ALL {
        for mode in [1, 0] {
            media.register_codec(codec(h264_capability(profile, mode), payload_type), RTPCodecType::Video)?;
            payload_type += 1;
        }
    }
    let vp8 = RTCRtpCodecCapability {
        mime_type: MIME_TYPE_VP8.to_owned(),
        clock_rate: 90_000,
        rtcp_feedback: video_feedback(),
        ..Default::default()
    };
    media.register_codec(codec(vp8, payload_type), RTPCodecType::Video)?;
    Ok(media)
}

/// What viewers miss is sent again by the stack; what guests lose is asked for by [`super::nack`], not by the stack's generator
/// and not by GStreamer's jitter buffer.
fn interceptors(media: &mut MediaEngine) -> Result<Registry, PeerError> {
    let mut registry = Registry::new();
    registry.add(Box::new(Responder::builder()));
    registry = configure_rtcp_reports(registry);
    Ok(configure_twcc_receiver_only(registry, media)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_neighbour_is_in_the_network_and_a_stranger_is_not() {
        let lan = LocalNetwork { address: "192.168.7.2".parse().unwrap(), prefix: 24 };
        assert!(lan.contains("192.168.7.200".parse().unwrap()));
        assert!(!lan.contains("192.168.8.2".parse().unwrap()));
        assert!(!lan.contains("fd00::1".parse().unwrap()));
        let all = LocalNetwork { address: "10.0.0.1".parse().unwrap(), prefix: 0 };
        assert!(all.contains("203.0.113.1".parse().unwrap()));
        let six = LocalNetwork { address: "fd00::2".parse().unwrap(), prefix: 64 };
        assert!(six.contains("fd00::99".parse().unwrap()) && !six.contains("fd01::99".parse().unwrap()));
    }

    #[test]
    fn container_bridges_are_left_out_unless_they_are_named() {
        let mut settings = PeerSettings::default();
        assert!(interface_wanted(&settings, "eth0") && !interface_wanted(&settings, "docker0"));
        settings.interfaces = vec!["docker0".to_owned()];
        assert!(!interface_wanted(&settings, "eth0") && interface_wanted(&settings, "docker0"));
    }

    #[test]
    fn link_local_addresses_are_never_offered() {
        let settings = PeerSettings { loopback: true, ..PeerSettings::default() };
        for (address, wanted) in [("169.254.1.1", false), ("fe80::1", false), ("127.0.0.1", true), ("fd00::1", true)] {
            assert_eq!(address_wanted(&settings, address.parse().unwrap()), wanted, "{address}");
        }
    }
}
