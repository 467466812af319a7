//! Between this crate's words and rumqttc's: options, TLS, messages, reasons.

use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use rumqttc::tokio_native_tls::native_tls::{Certificate, Identity, Protocol, TlsConnector};
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5 as mqtt;
use rumqttc::v5::{AsyncClient, ConnectionError, EventLoop, MqttOptions, StateError};
use rumqttc::{NetworkOptions, TlsConfiguration, Transport};

use super::{DisconnectReason, NotSent, Outgoing, Properties, Qos, RetainHandling, SessionSettings, Subscription};
use crate::MqttError;

/// Accepted instead of [`SessionSettings::max_packet`] while an oversized message is being thrown away. Larger than what
/// any broker of ours lets in, small enough for a box's memory.
pub(super) const TOLERANT_PACKET: u32 = 16 * 1024 * 1024;

/// The id space of outgoing packets must exceed the window by one, else rumqttc stops taking acknowledgements at a full one.
pub(super) const MAX_INFLIGHT: u16 = 1024;

/// What one connection is made with, beyond the settings.
pub(super) struct Attempt {
    pub conn_seq: u64,
    pub tolerant: bool,
    pub clean: bool,
}

/// Refuses settings that could never work, before anything is started.
pub(super) fn check(settings: &SessionSettings) -> Result<(), MqttError> {
    let wrong = |why: &str| Err(MqttError::Misconfigured(why.to_owned()));
    brokers(&settings.url).try_for_each(|url| split_url(url).map(drop))?;
    if settings.client_id.is_empty() {
        return wrong("mqtt client id is empty");
    }
    if settings.receive_max == 0 || settings.inflight == 0 || settings.inflight > MAX_INFLIGHT {
        return wrong("mqtt receive maximum must be 1 to 65535, inflight 1 to 1024");
    }
    if settings.keep_alive < Duration::from_secs(5) {
        return wrong("mqtt keep alive must be at least 5 s");
    }
    if settings.max_packet < 1024 || settings.max_packet > TOLERANT_PACKET {
        return wrong("mqtt packet limit must be 1 KiB to 16 MiB");
    }
    if let Some(bad) = settings.subscriptions.iter().find(|s| !rumqttc::valid_filter(&s.filter)) {
        return Err(MqttError::Misconfigured(format!("mqtt topic filter {:?} is not valid", bad.filter)));
    }
    settings.ca.as_deref().map(authorities).transpose()?;
    Ok(())
}

fn authorities(pem: &[u8]) -> Result<Vec<Certificate>, MqttError> {
    match Certificate::stack_from_pem(pem) {
        Ok(list) if !list.is_empty() => Ok(list),
        Ok(_) => Err(MqttError::Misconfigured("mqtt ca certificate: there is none in PEM".into())),
        Err(e) => Err(MqttError::Misconfigured(format!("mqtt ca certificate: {e}"))),
    }
}

/// Whom one connection believes, and what it shows.
fn connector(settings: &SessionSettings) -> Result<TlsConnector, MqttError> {
    let mut builder = TlsConnector::builder();
    builder.min_protocol_version(Some(Protocol::Tlsv12));
    for authority in settings.ca.as_deref().map(authorities).transpose()?.unwrap_or_default() {
        builder.add_root_certificate(authority);
    }
    if let Some((cert, key)) = &settings.shown {
        let read = |path: &Path| {
            std::fs::read(path).map_err(|source| MqttError::Io { what: format!("read {}", path.display()), source })
        };
        let own = Identity::from_pkcs8(&read(cert)?, &read(key)?);
        builder.identity(own.map_err(|e| {
            MqttError::Misconfigured(format!(
                "{} and {} are no certificate and its key: {e}",
                cert.display(),
                key.display()
            ))
        })?);
    }
    builder.build().map_err(|e| MqttError::Misconfigured(format!("tls: {e}")))
}

/// The addresses in a list that commas separate; of nothing, one that is empty and will be refused.
pub(super) fn brokers(list: &str) -> impl Iterator<Item = &str> {
    list.split(',').map(str::trim)
}

/// Host, port and whether TLS is wanted.
fn split_url(url: &str) -> Result<(String, u16, bool), MqttError> {
    let wrong = || MqttError::Misconfigured(format!("{url:?} is not mqtt://host[:port] or mqtts://host[:port]"));
    let (scheme, rest) = url.split_once("://").ok_or_else(wrong)?;
    let tls = match scheme {
        "mqtt" => false,
        "mqtts" => true,
        _ => return Err(wrong()),
    };
    let authority = rest.strip_suffix('/').unwrap_or(rest);
    if authority.is_empty() || authority.contains(['/', '@', '?', '#']) {
        return Err(wrong());
    }
    let default = if tls { 8883 } else { 1883 };
    // An IPv6 literal keeps its brackets; its own colons are no port separator.
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, port.parse().map_err(|_| wrong())?),
        _ => (authority, default),
    };
    if host.is_empty() || port == 0 {
        return Err(wrong());
    }
    Ok((host.to_owned(), port, tls))
}

/// A client from scratch.
pub(super) fn client(
    settings: &SessionSettings,
    broker: &str,
    attempt: &Attempt,
) -> Result<(AsyncClient, EventLoop), MqttError> {
    let (host, port, tls) = split_url(broker)?;
    let mut options = MqttOptions::new(&settings.client_id, host, port);
    if tls {
        options.set_transport(Transport::tls_with_config(TlsConfiguration::NativeConnector(connector(settings)?)));
    }
    let mut network = NetworkOptions::new();
    network.set_tcp_nodelay(true);
    network.set_connection_timeout(settings.connect_timeout.as_secs().max(1));
    options.set_network_options(network);
    options.set_connection_timeout(settings.connect_timeout.as_secs().max(1));
    options.set_credentials(&settings.username, &settings.password);
    options.set_keep_alive(settings.keep_alive);
    options.set_manual_acks(true);
    options.set_clean_start(attempt.clean || settings.session_expiry.is_zero());
    options.set_outgoing_inflight_upper_limit(settings.inflight + 1);
    options.set_connect_properties(mqtt::ConnectProperties {
        session_expiry_interval: Some(whole_seconds(settings.session_expiry)),
        receive_maximum: Some(settings.receive_max),
        max_packet_size: Some(if attempt.tolerant { TOLERANT_PACKET } else { settings.max_packet }),
        ..mqtt::ConnectProperties::new()
    });
    if let Some(source) = &settings.will {
        let will = source.make(attempt.conn_seq);
        let properties = mqtt::LastWillProperties {
            delay_interval: (!will.delay.is_zero()).then(|| whole_seconds(will.delay)),
            payload_format_indicator: None,
            message_expiry_interval: None,
            content_type: Some("application/json".into()),
            response_topic: None,
            correlation_data: None,
            user_properties: Vec::new(),
        };
        let last =
            mqtt::LastWill::new(will.topic, will.payload.to_vec(), qos_out(will.qos), will.retain, Some(properties));
        options.set_last_will(last);
    }
    // Every message that waits in rumqttc's channel has a place in a window, so it cannot fill up.
    let capacity = usize::from(settings.inflight) + usize::from(settings.receive_max) + 16;
    Ok(AsyncClient::new(options, capacity))
}

/// Seconds rounded up, at most what the protocol can say.
fn whole_seconds(time: Duration) -> u32 {
    let seconds = time.as_secs() + u64::from(time.subsec_nanos() > 0);
    u32::try_from(seconds).unwrap_or(u32::MAX)
}

fn qos_out(qos: Qos) -> QoS {
    match qos {
        Qos::AtMostOnce => QoS::AtMostOnce,
        Qos::AtLeastOnce => QoS::AtLeastOnce,
    }
}

/// QoS 2 of a foreign publisher is capped by our own subscriptions; it cannot arrive.
pub(super) fn qos_in(qos: QoS) -> Qos {
    match qos {
        QoS::AtMostOnce => Qos::AtMostOnce,
        QoS::AtLeastOnce | QoS::ExactlyOnce => Qos::AtLeastOnce,
    }
}

pub(super) fn filter(subscription: &Subscription) -> mqtt::Filter {
    mqtt::Filter {
        path: subscription.filter.clone(),
        qos: qos_out(subscription.qos),
        nolocal: false,
        preserve_retain: true,
        retain_forward_rule: match subscription.retain_handling {
            RetainHandling::AtSubscribe => mqtt::RetainForwardRule::OnEverySubscribe,
            RetainHandling::AtNewSubscribe => mqtt::RetainForwardRule::OnNewSubscribe,
            RetainHandling::Never => mqtt::RetainForwardRule::Never,
        },
    }
}

/// The packet, if its topic may be published to.
pub(super) fn publish(message: &Outgoing) -> Result<mqtt::Publish, NotSent> {
    let topic = &message.topic;
    if topic.is_empty() || topic.len() > usize::from(u16::MAX) || topic.contains(['+', '#', '\0']) {
        return Err(NotSent::InvalidTopic);
    }
    let p = &message.properties;
    let properties = mqtt::PublishProperties {
        payload_format_indicator: None,
        message_expiry_interval: p.expiry.map(whole_seconds),
        topic_alias: None,
        response_topic: p.response_topic.clone(),
        correlation_data: p.correlation.clone(),
        user_properties: p.user.clone(),
        subscription_identifiers: Vec::new(),
        content_type: p.content_type.clone(),
    };
    let mut publish =
        mqtt::Publish::new(topic.clone(), qos_out(message.qos), message.payload.clone(), Some(properties));
    publish.retain = message.retain;
    Ok(publish)
}

/// A packet that carries nothing but what an acknowledgement is made from.
pub(super) fn acknowledged(pkid: u16) -> mqtt::Publish {
    mqtt::Publish { qos: QoS::AtLeastOnce, pkid, ..mqtt::Publish::default() }
}

pub(super) fn properties(packet: Option<mqtt::PublishProperties>) -> Properties {
    packet.map_or_else(Properties::default, |p| Properties {
        content_type: p.content_type,
        expiry: p.message_expiry_interval.map(|s| Duration::from_secs(u64::from(s))),
        user: p.user_properties,
        response_topic: p.response_topic,
        correlation: p.correlation_data,
    })
}

pub(super) fn text(topic: &Bytes) -> Result<String, String> {
    std::str::from_utf8(topic).map(str::to_owned).map_err(|_| String::from_utf8_lossy(topic).into_owned())
}

/// Why rumqttc gave up.
pub(super) fn reason(error: ConnectionError) -> DisconnectReason {
    use mqtt::ConnectReturnCode as Code;
    match error {
        ConnectionError::ConnectionRefused(code) => match code {
            Code::BadUserNamePassword
            | Code::NotAuthorized
            | Code::Banned
            | Code::BadClientId
            | Code::ClientIdentifierNotValid
            | Code::BadAuthenticationMethod => DisconnectReason::Refused(format!("{code:?}")),
            other => DisconnectReason::Unavailable(format!("{other:?}")),
        },
        ConnectionError::MqttState(state) => match state {
            StateError::ServerDisconnect { reason_code: mqtt::DisconnectReasonCode::SessionTakenOver, .. } => {
                DisconnectReason::TakenOver
            }
            StateError::ServerDisconnect { reason_code, .. } => DisconnectReason::ByBroker(format!("{reason_code:?}")),
            StateError::Io(e) => DisconnectReason::Network(e.to_string()),
            StateError::ConnectionAborted => DisconnectReason::Network("closed by peer".into()),
            StateError::AwaitPingResp => DisconnectReason::Network("no answer to ping".into()),
            StateError::Deserialization(rumqttc::v5::mqttbytes::Error::Io(e)) => {
                DisconnectReason::Network(e.to_string())
            }
            other => DisconnectReason::Protocol(other.to_string()),
        },
        ConnectionError::Timeout(_) => DisconnectReason::Network("connect timed out".into()),
        ConnectionError::Io(e) => DisconnectReason::Network(e.to_string()),
        ConnectionError::Tls(e) => DisconnectReason::Network(e.to_string()),
        ConnectionError::NotConnAck(_) => DisconnectReason::Protocol("no CONNACK after CONNECT".into()),
        ConnectionError::RequestsDone => DisconnectReason::Network("requests done".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_gives_host_port_and_scheme() {
        assert_eq!(split_url("mqtt://broker").unwrap(), ("broker".into(), 1883, false));
        assert_eq!(split_url("mqtts://broker/").unwrap(), ("broker".into(), 8883, true));
        assert_eq!(split_url("mqtt://127.0.0.1:4").unwrap(), ("127.0.0.1".into(), 4, false));
        assert_eq!(split_url("mqtt://[::1]").unwrap(), ("[::1]".into(), 1883, false));
        assert_eq!(split_url("mqtt://[::1]:99").unwrap(), ("[::1]".into(), 99, false));
    }

    #[test]
    fn a_url_that_is_none_is_refused() {
        for url in [
            "",
            "broker",
            "http://broker",
            "mqtt://",
            "mqtt://b:0",
            "mqtt://b:x",
            "mqtt://u@b",
            "mqtt://b/x",
            "mqtt://:1",
        ] {
            assert!(split_url(url).is_err(), "{url}");
        }
    }

    #[test]
    fn a_list_of_brokers_is_refused_when_one_of_them_is_none() {
        let with = |url: &str| check(&SessionSettings::new(url, "c", "u", "p"));
        assert!(with("mqtt://a, mqtts://b:1,mqtt://[::1]").is_ok());
        for list in ["mqtt://a,", "mqtt://a,b", ",", "mqtt://a mqtt://b"] {
            assert!(with(list).is_err(), "{list}");
        }
        assert_eq!(brokers("mqtt://a, mqtt://b").collect::<Vec<_>>(), ["mqtt://a", "mqtt://b"]);
    }

    #[test]
    fn settings_that_cannot_work_are_refused_before_anything_starts() {
        let good = SessionSettings::new("mqtt://b", "c", "u", "p");
        assert!(check(&good).is_ok());
        let changes: [fn(&mut SessionSettings); 7] = [
            |s| s.client_id.clear(),
            |s| s.receive_max = 0,
            |s| s.inflight = 0,
            |s| s.keep_alive = Duration::from_secs(4),
            |s| s.max_packet = 100,
            |s| s.subscriptions = vec![Subscription::new("a/#/b")],
            |s| s.ca = Some(b"no certificate".to_vec()),
        ];
        for change in changes {
            let mut bad = good.clone();
            change(&mut bad);
            assert!(check(&bad).is_err());
        }
    }

    #[test]
    fn a_topic_with_wildcards_cannot_be_published() {
        for topic in ["", "a/+/b", "a/#", "a\0b"] {
            assert_eq!(publish(&Outgoing::json(topic, "")), Err(NotSent::InvalidTopic), "{topic:?}");
        }
    }
}
