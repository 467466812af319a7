//! TURN's messages as datagrams and on a stream (RFC 8656, section 12.5; RFC 8489, section 6.2.2). Pure.
//!
//! A stream has no edges: a STUN message ends by its length field, a ChannelData message by its own and up to three bytes of
//! padding that its length does not count. What comes from either side is believed only as far as its first eight bytes go.

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use thiserror::Error;

/// Longest message: what fits a UDP datagram of IPv4 (65,535 bytes less the headers of IP and UDP).
pub const MAX_MESSAGE: usize = 65_507;
/// In every STUN message since RFC 5389, in network byte order.
pub const MAGIC_COOKIE: [u8; 4] = [0x21, 0x12, 0xA4, 0x42];

const STUN_HEADER: usize = 20;
const CHANNEL_HEADER: usize = 4;
/// Binding (RFC 8489, section 18.2), as a request and as an error response.
const BINDING: u16 = 0x0001;
const BINDING_ERROR: u16 = 0x0111;
/// The attribute ERROR-CODE with 403, Forbidden (RFC 8489, section 14.8).
const FORBIDDEN: [u8; 8] = [0x00, 0x09, 0x00, 0x04, 0x00, 0x00, 0x04, 0x03];
/// Refresh (RFC 8656, section 18.2), as a request.
const REFRESH: u16 = 0x0004;
/// The attribute LIFETIME (RFC 8656, section 18.2).
const LIFETIME: u16 = 0x000D;

/// Why bytes are no message of TURN's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum FrameError {
    /// The first two bits are neither STUN's nor ChannelData's.
    #[error("neither STUN nor ChannelData: first byte {0:#04x}")]
    Neither(u8),
    /// A STUN header without the magic cookie.
    #[error("a STUN header without its cookie")]
    NoCookie,
    /// A STUN length that is no multiple of four.
    #[error("a STUN message of {0} bytes")]
    OddLength(usize),
    /// ChannelData as the first word of a stream, on which no channel can be bound yet.
    #[error("ChannelData before any STUN message")]
    TooEarly,
    /// Longer than any datagram.
    #[error("a message of {0} bytes fits no datagram")]
    TooLong(usize),
    /// A datagram that holds less or more than its one message.
    #[error("a datagram of {datagram} bytes around a message of {message}")]
    NotOneMessage {
        /// Bytes of the datagram.
        datagram: usize,
        /// Bytes that its header promises.
        message: usize,
    },
}

/// A message's length, and with padding.
#[derive(Debug, Clone, Copy)]
struct Extent {
    message: usize,
    on_stream: usize,
}

/// From a message's beginning; `None` while there are too few bytes to tell.
fn extent(head: &[u8]) -> Result<Option<Extent>, FrameError> {
    let Some(first) = head.first() else { return Ok(None) };
    let kind = first >> 6;
    if kind > 1 {
        return Err(FrameError::Neither(*first));
    }
    let [_, _, high, low, ..] = head else { return Ok(None) };
    let length = usize::from(u16::from_be_bytes([*high, *low]));
    let (message, on_stream) = match kind {
        0 if !length.is_multiple_of(4) => return Err(FrameError::OddLength(STUN_HEADER + length)),
        0 => (STUN_HEADER + length, STUN_HEADER + length),
        _ => (CHANNEL_HEADER + length, (CHANNEL_HEADER + length).next_multiple_of(4)),
    };
    if message > MAX_MESSAGE {
        return Err(FrameError::TooLong(message));
    }
    if kind == 0 {
        let Some(cookie) = head.get(4..8) else { return Ok(None) };
        if cookie != MAGIC_COOKIE {
            return Err(FrameError::NoCookie);
        }
    }
    Ok(Some(Extent { message, on_stream }))
}

/// Whether a datagram is exactly one message. Padding behind ChannelData may be there (RFC 8656, section 12.5).
///
/// # Errors
/// What it is instead.
pub fn check(datagram: &[u8]) -> Result<(), FrameError> {
    whole(datagram).map(|_| ())
}

fn whole(datagram: &[u8]) -> Result<Extent, FrameError> {
    let not_one = |message| FrameError::NotOneMessage { datagram: datagram.len(), message };
    let extent = extent(datagram)?.ok_or(not_one(CHANNEL_HEADER))?;
    match (extent.message..=extent.on_stream).contains(&datagram.len()) {
        true => Ok(extent),
        false => Err(not_one(extent.message)),
    }
}

/// Puts a datagram on a stream, padded if it must be.
///
/// # Errors
/// When [`check`] refuses it; `stream` is then as it was.
pub fn put(datagram: &[u8], stream: &mut BytesMut) -> Result<(), FrameError> {
    let extent = whole(datagram)?;
    stream.put_slice(&datagram[..extent.message]);
    stream.put_bytes(0, extent.on_stream - extent.message);
    Ok(())
}

/// Cuts a stream into messages, however its bytes arrive.
#[derive(Debug, Default)]
pub struct Deframer {
    buffer: BytesMut,
    begun: bool,
}

impl Deframer {
    /// Takes what was read.
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The next message without its padding, once it is there as a whole.
    ///
    /// # Errors
    /// When the stream is none of TURN's; it stays so, there is no way to find the next message.
    pub fn next_message(&mut self) -> Result<Option<Bytes>, FrameError> {
        if !self.begun && self.buffer.first().is_some_and(|first| first >> 6 == 1) {
            return Err(FrameError::TooEarly);
        }
        let Some(extent) = extent(&self.buffer)? else { return Ok(None) };
        if self.buffer.len() < extent.on_stream {
            return Ok(None);
        }
        self.begun = true;
        let mut message = self.buffer.split_to(extent.on_stream).freeze();
        message.truncate(extent.message);
        Ok(Some(message))
    }
}

/// The 96 bits that tie an answer to its request.
pub type TransactionId = [u8; 12];

/// What a whole message is to a conversation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// A STUN request.
    Request {
        /// Of this transaction.
        id: TransactionId,
        /// It gives the allocation back: a Refresh with a lifetime of zero.
        release: bool,
    },
    /// A success or error response.
    Answer(TransactionId),
    /// An indication or ChannelData: nobody answers it.
    Other,
}

/// Reads the role of a message that [`put`] or [`Deframer`] let through.
pub fn role(message: &[u8]) -> Role {
    let (Some(first), Some(id)) = (message.first(), message.get(8..STUN_HEADER)) else { return Role::Other };
    let Ok(id) = TransactionId::try_from(id) else { return Role::Other };
    if first >> 6 != 0 {
        return Role::Other;
    }
    let kind = u16::from_be_bytes([*first, message[1]]);
    match kind & 0x0110 {
        0x0000 => Role::Request { id, release: kind == REFRESH && lifetime(&message[STUN_HEADER..]) == Some(0) },
        0x0010 => Role::Other,
        _ => Role::Answer(id),
    }
}

/// The refusal of a Binding request; `None` for any other message.
pub fn binding_refused(message: &[u8]) -> Option<[u8; STUN_HEADER + FORBIDDEN.len()]> {
    if message.get(..2)? != BINDING.to_be_bytes() {
        return None;
    }
    let mut refusal = [0; STUN_HEADER + FORBIDDEN.len()];
    refusal[..2].copy_from_slice(&BINDING_ERROR.to_be_bytes());
    refusal[2..4].copy_from_slice(&8u16.to_be_bytes());
    refusal[4..STUN_HEADER].copy_from_slice(message.get(4..STUN_HEADER)?);
    refusal[STUN_HEADER..].copy_from_slice(&FORBIDDEN);
    Some(refusal)
}

fn lifetime(mut attributes: &[u8]) -> Option<u32> {
    while attributes.len() >= 4 {
        let (kind, length) = (attributes.get_u16(), usize::from(attributes.get_u16()));
        let value = attributes.get(..length)?;
        if kind == LIFETIME {
            return Some(u32::from_be_bytes(value.try_into().ok()?));
        }
        attributes = attributes.get(length.next_multiple_of(4)..)?;
    }
    None
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;

    use super::*;

    pub fn stun(kind: u16, id: u8, attributes: &[u8]) -> Bytes {
        let mut message = BytesMut::new();
        message.put_u16(kind);
        message.put_u16(u16::try_from(attributes.len()).unwrap());
        message.put_slice(&MAGIC_COOKIE);
        message.put_bytes(id, 12);
        message.put_slice(attributes);
        message.freeze()
    }

    pub fn channel(number: u16, payload: &[u8]) -> Bytes {
        let mut message = BytesMut::new();
        message.put_u16(number);
        message.put_u16(u16::try_from(payload.len()).unwrap());
        message.put_slice(payload);
        message.freeze()
    }

    fn on_stream(datagram: &[u8]) -> Vec<u8> {
        let mut stream = BytesMut::new();
        put(datagram, &mut stream).unwrap();
        stream.to_vec()
    }

    fn refusal(bytes: &[u8]) -> FrameError {
        let mut deframer = Deframer::default();
        deframer.push(bytes);
        let error = deframer.next_message().unwrap_err();
        deframer.push(&stun(1, 1, &[]));
        assert_eq!(deframer.next_message().unwrap_err(), error, "a broken stream stays broken");
        error
    }

    #[test]
    fn channel_data_is_padded_to_four_bytes_on_a_stream_and_stun_never_is() {
        assert_eq!(on_stream(&channel(0x4001, b"hello")), b"\x40\x01\x00\x05hello\0\0\0");
        assert_eq!(on_stream(&channel(0x4001, b"four")), b"\x40\x01\x00\x04four");
        assert_eq!(on_stream(&channel(0x4001, b"")), b"\x40\x01\x00\x00");
        let message = stun(0x0003, 7, &[0, 0x19, 0, 4, 17, 0, 0, 0]);
        assert_eq!(on_stream(&message), message);
    }

    #[test]
    fn padding_that_a_datagram_brought_along_is_replaced_and_more_than_padding_is_refused() {
        let padded = [channel(0x4001, b"hello").as_ref(), b"xyz"].concat();
        assert_eq!(on_stream(&padded), b"\x40\x01\x00\x05hello\0\0\0");
        let mut stream = BytesMut::new();
        for datagram in [
            [padded.as_slice(), b"!"].concat(),
            [stun(1, 1, &[]).as_ref(), b"1234"].concat(),
            stun(1, 1, &[0; 8])[..24].to_vec(),
            b"\x40\x01\x00\x05hell".to_vec(),
            b"\x40\x01\x00".to_vec(),
            Vec::new(),
        ] {
            assert!(matches!(put(&datagram, &mut stream), Err(FrameError::NotOneMessage { .. })), "{datagram:?}");
        }
        assert!(stream.is_empty());
    }

    #[test]
    fn hostile_lengths_and_strangers_on_a_stream_are_refused_at_their_first_bytes() {
        let mut begun = Deframer { begun: true, ..Deframer::default() };
        begun.push(&[0x40, 0, 0xff, 0xff]);
        assert_eq!(begun.next_message(), Err(FrameError::TooLong(65_539)));
        // A proxy's page would pass for the beginning of ChannelData.
        assert_eq!(refusal(b"HTTP/1.1 400 Bad Request"), FrameError::TooEarly);
        // A TLS handshake where plain TCP was promised.
        assert_eq!(refusal(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc"), FrameError::OddLength(278));
        assert_eq!(refusal(&[0x80]), FrameError::Neither(0x80));
        assert_eq!(refusal(&[0x40, 0, 0, 4]), FrameError::TooEarly);
        assert_eq!(refusal(&[0, 1, 0xff, 0xfc]), FrameError::TooLong(65_552));
        assert_eq!(refusal(&[0, 1, 0, 3]), FrameError::OddLength(23));
        assert_eq!(refusal(&[0, 1, 0, 0, 0x21, 0x12, 0xA4, 0x43]), FrameError::NoCookie);
    }

    #[test]
    fn a_refresh_of_no_lifetime_gives_the_allocation_back() {
        let zero = [0, 0x0D, 0, 4, 0, 0, 0, 0];
        let with = |attributes: &[u8]| role(&stun(REFRESH, 9, attributes));
        assert_eq!(with(&zero), Role::Request { id: [9; 12], release: true });
        let behind_a_realm = [&[0, 0x14, 0, 3, b'r', b'5', b'8', 0][..], &zero].concat();
        assert_eq!(with(&behind_a_realm), Role::Request { id: [9; 12], release: true });
        assert_eq!(with(&[0, 0x0D, 0, 4, 0, 0, 2, 88]), Role::Request { id: [9; 12], release: false });
        assert_eq!(with(&[0, 0x0D, 0, 9, 0, 0, 0, 0]), Role::Request { id: [9; 12], release: false });
        assert_eq!(role(&stun(0x0003, 9, &zero)), Role::Request { id: [9; 12], release: false });
        assert_eq!(role(&stun(0x0104, 9, &zero)), Role::Answer([9; 12]));
        assert_eq!(role(&stun(0x0113, 9, &[])), Role::Answer([9; 12]));
        assert_eq!(role(&stun(0x0017, 9, &[])), Role::Other);
        assert_eq!(role(&channel(0x4000, &[0; 40])), Role::Other);
    }

    #[test]
    fn a_binding_is_refused_under_its_own_transaction_and_nothing_else_is() {
        let refusal = binding_refused(&stun(BINDING, 7, &[])).unwrap();
        assert_eq!(role(&refusal), Role::Answer([7; 12]));
        assert_eq!(check(&refusal), Ok(()));
        assert_eq!(binding_refused(&stun(0x0003, 7, &[])), None);
        assert_eq!(binding_refused(&channel(0x4000, &[0; 20])), None);
    }

    fn message() -> impl Strategy<Value = Bytes> {
        prop_oneof![
            (0u16..0x4000, any::<u8>(), 0usize..300).prop_map(|(kind, id, words)| stun(kind, id, &vec![id; words * 4])),
            (0x4000u16..0x8000, proptest::collection::vec(any::<u8>(), 0..1_500))
                .prop_map(|(number, payload)| channel(number, &payload)),
        ]
    }

    proptest! {
        #[test]
        fn any_chunking_of_a_stream_gives_the_same_messages_back(
            later in proptest::collection::vec(message(), 0..12),
            cuts in proptest::collection::vec(1usize..900, 1..60),
        ) {
            let messages: Vec<Bytes> = std::iter::once(stun(0x0101, 1, &[])).chain(later).collect();
            let mut stream = BytesMut::new();
            for message in &messages {
                put(message, &mut stream).unwrap();
            }
            prop_assert_eq!(stream.len() % 4, 0);
            let (mut deframer, mut seen, mut cuts) = (Deframer::default(), Vec::new(), cuts.into_iter().cycle());
            while !stream.is_empty() {
                let chunk = stream.split_to(cuts.next().unwrap().min(stream.len()));
                deframer.push(&chunk);
                while let Some(message) = deframer.next_message().unwrap() {
                    seen.push(message);
                }
            }
            prop_assert_eq!(seen, messages);
        }

        #[test]
        fn any_bytes_are_messages_or_refused_and_never_a_panic(
            chunks in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..100), 0..20)
        ) {
            let mut deframer = Deframer::default();
            deframer.push(&stun(0x0101, 1, &[]));
            deframer.push(&stun(0x0101, 1, &[]));
            'stream: for chunk in chunks {
                let mut out = BytesMut::new();
                let _ = put(&chunk, &mut out);
                deframer.push(&chunk);
                loop {
                    match deframer.next_message() {
                        Ok(Some(message)) => {
                            prop_assert!(message.len() <= MAX_MESSAGE);
                            let _ = role(&message);
                            prop_assert!(put(&message, &mut out).is_ok());
                        }
                        Ok(None) => break,
                        Err(_) => break 'stream,
                    }
                }
            }
        }
    }
}
