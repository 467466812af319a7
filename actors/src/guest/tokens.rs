//! Seat tokens: who may sit where, compared without telling by time how much of a guess was right.

use std::sync::Arc;

use sha2::{Digest, Sha256};

/// The tokens of all seats. Cheap to clone, answers without a mailbox. Holds digests only.
#[derive(Clone, Default)]
pub struct SeatTokens(Arc<Vec<(String, [u8; 32])>>);

impl std::fmt::Debug for SeatTokens {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SeatTokens({})", self.0.len())
    }
}

pub(super) fn digest(token: &str) -> [u8; 32] {
    Sha256::digest(token.as_bytes()).into()
}

/// Equal digests, in a time that depends on nothing.
pub(super) fn same(a: &[u8; 32], b: &[u8; 32]) -> bool {
    let difference = a.iter().zip(b).fold(0u8, |difference, (a, b)| difference | (a ^ b));
    std::hint::black_box(difference) == 0
}

impl SeatTokens {
    /// From pairs of seat and token. An empty token opens nothing.
    pub fn new<'a>(seats: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        let filled = seats.into_iter().filter(|(_, token)| !token.is_empty());
        Self(Arc::new(filled.map(|(seat, token)| (seat.to_owned(), digest(token))).collect()))
    }

    /// The seat that a token belongs to. Every seat is compared, whichever matches.
    pub fn seat_of(&self, token: &str) -> Option<&str> {
        let given = digest(token);
        self.0.iter().fold(None, |found, (seat, known)| if same(known, &given) { Some(seat.as_str()) } else { found })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_opens_its_own_seat_only() {
        let tokens = SeatTokens::new([("g1", "one"), ("g2", "two")]);
        assert_eq!(tokens.seat_of("one"), Some("g1"));
        assert_eq!(tokens.seat_of("two"), Some("g2"));
        assert_eq!(tokens.seat_of("three"), None);
        assert_eq!(tokens.seat_of("one "), None);
    }

    #[test]
    fn an_empty_token_opens_nothing() {
        let tokens = SeatTokens::new([("g1", "")]);
        assert_eq!(tokens.seat_of(""), None);
    }
}
