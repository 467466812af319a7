//! Seat tokens: who may sit where, compared without telling by time how much of a guess was right.

use std::sync::Arc;

use sha2::{Digest, Sha256};

/// Whether a bearer may publish to a seat.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenVerdict {
    /// It is this seat's.
    Granted,
    /// It is another seat's.
    WrongSeat,
    /// It is nobody's.
    Unknown,
}

/// The tokens of all seats. Cheap to clone, answers without a mailbox. Holds digests only.
#[derive(Clone, Default)]
pub struct SeatTokens(Arc<Vec<(String, [u8; 32])>>);

impl std::fmt::Debug for SeatTokens {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SeatTokens({})", self.0.len())
    }
}

fn digest(token: &str) -> [u8; 32] {
    Sha256::digest(token.as_bytes()).into()
}

/// Equal digests, in a time that depends on nothing.
fn same(a: &[u8; 32], b: &[u8; 32]) -> bool {
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

    /// Whether a token may publish to `seat`.
    pub fn check(&self, seat: &str, token: &str) -> TokenVerdict {
        match self.seat_of(token) {
            Some(found) if found == seat => TokenVerdict::Granted,
            Some(_) => TokenVerdict::WrongSeat,
            None => TokenVerdict::Unknown,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_opens_its_own_seat_only() {
        let tokens = SeatTokens::new([("g1", "one"), ("g2", "two")]);
        assert_eq!(tokens.check("g1", "one"), TokenVerdict::Granted);
        assert_eq!(tokens.check("g1", "two"), TokenVerdict::WrongSeat);
        assert_eq!(tokens.check("g1", "three"), TokenVerdict::Unknown);
        assert_eq!(tokens.check("g1", "one "), TokenVerdict::Unknown);
    }

    #[test]
    fn an_empty_token_opens_nothing() {
        let tokens = SeatTokens::new([("g1", "")]);
        assert_eq!(tokens.check("g1", ""), TokenVerdict::Unknown);
    }
}
