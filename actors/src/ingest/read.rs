//! From a message of the broker to a record for the store, or the reason why it is none. Pure.

use std::sync::Arc;

use bytes::Bytes;
use chrono::{DateTime, Utc};
use r58_mqtt::payload::{
    Batch, Caps, CommandStatus, Event, Heartbeat, MAX_THUMBNAIL_BYTES, Payload as _, PayloadError, Presence, Reported,
    SyncUp,
};
use r58_mqtt::session::{Incoming, Properties};
use r58_mqtt::topic::TopicError;
use r58_mqtt::{DeviceAddress, Name, Topic, Up};

use super::store::{Record, Report, StreamPosition};

/// User property with a message's number in its outbox stream.
pub const SEQ: &str = "seq";
/// User property with the lowest number that the stream still holds.
pub const FIRST: &str = "first";
/// A live heartbeat goes through no outbox, but counts in this stream.
const COMMAND_STREAM: &str = "cmd";
const EVENT_STREAM: &str = "evt";
/// How a JPEG begins (ITU-T T.81, SOI).
const JPEG_START: [u8; 2] = [0xff, 0xd8];

/// A message that says something.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "moved once, from the reader into the gatherer")]
pub(super) enum Taken {
    /// For the store.
    Record(Record),
    /// For the shelf.
    Thumbnail { device: DeviceAddress, name: Name, jpeg: Bytes },
}

impl Taken {
    /// Whether somebody waits for it: presence, commands and syncs, as opposed to measurements.
    pub fn is_urgent(&self) -> bool {
        let Self::Record(record) = self else { return false };
        matches!(record.report, Report::Presence(_) | Report::Status { .. } | Report::Sync(_))
    }
}

/// Why a message says nothing. It is acknowledged, counted and forgotten.
#[derive(Debug, thiserror::Error)]
pub(super) enum Refusal {
    #[error(transparent)]
    Topic(#[from] TopicError),
    #[error(transparent)]
    Payload(#[from] PayloadError),
    #[error("a body that does not belong to its topic")]
    Misplaced,
    #[error("a thumbnail that is no JPEG, or larger than {MAX_THUMBNAIL_BYTES} bytes")]
    Thumbnail,
    #[error("a body that is not UTF-8")]
    NotText,
    #[error("not from a device")]
    NotUp,
}

/// Reads one message. `Ok(None)`: an empty retained message, which clears a topic and says nothing.
pub(super) fn read(message: &Incoming, received_at: DateTime<Utc>) -> Result<Option<Taken>, Refusal> {
    let Topic::Up(device, up) = Topic::parse(&message.topic)? else { return Err(Refusal::NotUp) };
    let body: &[u8] = &message.payload;
    if body.is_empty() {
        return Ok(None);
    }
    let report = match up {
        Up::Presence => Report::Presence(Presence::parse(body)?),
        Up::Heartbeat => {
            let heartbeat = Box::new(Heartbeat::parse(body)?);
            Report::Heartbeat { heartbeat, body: text(body)? }
        }
        // For those who watch, at every server; never for the store.
        Up::Telemetry(stream) if stream.as_str() == crate::log_tail::STREAM => return Ok(None),
        Up::Telemetry(stream) => {
            let batch = Batch::parse(body)?;
            let in_order = batch.items.is_sorted_by(|a, b| a.seq < b.seq);
            if batch.stream != stream || !in_order {
                return Err(Refusal::Misplaced);
            }
            Report::Batch(batch)
        }
        Up::Event(kind) => {
            let event = Event::parse(body)?;
            if event.kind != kind {
                return Err(Refusal::Misplaced);
            }
            Report::Event { event, position: position(EVENT_STREAM, &message.properties) }
        }
        Up::CommandStatus(id) => {
            let status = CommandStatus::parse(body)?;
            if status.id != id {
                return Err(Refusal::Misplaced);
            }
            Report::Status { status, position: position(COMMAND_STREAM, &message.properties) }
        }
        // For one server alone, by a subscription of its own.
        Up::Response(_) => return Ok(None),
        Up::Caps => Report::Caps(Caps::parse(body)?),
        Up::Reported => {
            let reported = Reported::parse(body)?;
            Report::Reported { reported, body: text(body)? }
        }
        Up::Sync => Report::Sync(SyncUp::parse(body)?),
        Up::Thumbnail(name) => {
            if body.len() > MAX_THUMBNAIL_BYTES || !body.starts_with(&JPEG_START) {
                return Err(Refusal::Thumbnail);
            }
            return Ok(Some(Taken::Thumbnail { device, name, jpeg: message.payload.clone() }));
        }
    };
    Ok(Some(Taken::Record(Record { device, received_at, report })))
}

fn text(body: &[u8]) -> Result<Arc<str>, Refusal> {
    Ok(std::str::from_utf8(body).map_err(|_| Refusal::NotText)?.into())
}

fn position(stream: &str, properties: &Properties) -> Option<StreamPosition> {
    let number = |key: &str| {
        let found = properties.user.iter().find(|(name, _)| name == key);
        found.and_then(|(_, value)| value.parse::<u64>().ok())
    };
    let stream = Name::new(stream).ok()?;
    Some(StreamPosition { stream, seq: number(SEQ)?, first_available: number(FIRST).unwrap_or(0) })
}

#[cfg(test)]
mod tests {
    use r58_mqtt::session::Qos;

    use super::*;

    fn message(topic: &str, body: &str) -> Incoming {
        Incoming {
            topic: topic.to_owned(),
            payload: Bytes::copy_from_slice(body.as_bytes()),
            qos: Qos::AtLeastOnce,
            retain: false,
            dup: false,
            properties: Properties::default(),
            ack: None,
        }
    }

    fn taken(message: &Incoming) -> Result<Option<Taken>, Refusal> {
        read(message, Utc::now())
    }

    #[test]
    fn a_status_carries_its_place_in_the_outbox() {
        let body = r#"{"id":"01J","rev":3,"state":"succeeded"}"#;
        let mut status = message("r58/1/org/box/up/cmd/01J", body);
        status.properties.user = vec![("seq".into(), "17".into()), ("first".into(), "12".into())];
        let Ok(Some(Taken::Record(record))) = taken(&status) else { panic!("refused") };
        let Report::Status { position: Some(position), .. } = record.report else { panic!("{record:?}") };
        assert_eq!((position.seq, position.first_available), (17, 12));
        assert_eq!(position.contiguous_after(3), 11);
        assert_eq!(position.contiguous_after(16), 17);
        assert_eq!(position.contiguous_after(20), 20);
    }

    #[test]
    fn a_body_on_another_ones_topic_is_refused() {
        let other_id = message("r58/1/org/box/up/cmd/01K", r#"{"id":"01J","rev":3,"state":"succeeded"}"#);
        let other_stream = r#"{"stream":"hb","boot_seq":1,"first_available":1,"items":[]}"#;
        let other_stream = message("r58/1/org/box/up/tm/net", other_stream);
        let unsorted =
            r#"{"stream":"hb","boot_seq":1,"first_available":1,"items":[{"seq":2,"data":{}},{"seq":2,"data":{}}]}"#;
        for message in [other_id, other_stream, message("r58/1/org/box/up/tm/hb", unsorted)] {
            assert!(matches!(taken(&message), Err(Refusal::Misplaced)), "{}", message.topic);
        }
    }

    #[test]
    fn rubbish_is_told_apart_and_an_empty_message_says_nothing() {
        assert!(matches!(taken(&message("r58/1/org/box/up/hb", "{")), Err(Refusal::Payload(_))));
        assert!(matches!(taken(&message("r58/1/org/box/up/nope", "{}")), Err(Refusal::Topic(_))));
        assert!(matches!(taken(&message("r58/1/org/box/down/sync", "{}")), Err(Refusal::NotUp)));
        assert!(matches!(taken(&message("r58/1/org/box/up/thumb/cam1", "GIF89a")), Err(Refusal::Thumbnail)));
        assert!(matches!(taken(&message("r58/1/org/box/up/presence", "")), Ok(None)));
    }
}
