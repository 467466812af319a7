//! The round trip to a client that only sends (RFC 3611, sections 4.4 and 4.5): we tell it our time, it tells with its next
//! report which of our times it heard last and how long ago. Browsers answer so; who does not is not measured. Pure.

use std::time::Duration;

/// Seconds from the NTP epoch (1900) to that of Unix.
const NTP_EPOCH: u64 = 2_208_988_800;

/// A longer round trip is none: the reply was made up, or is of another life.
const LONGEST: Duration = Duration::from_secs(10);

/// A moment as NTP's 64 bits, by the time since the Unix epoch.
pub(super) fn ntp(since_epoch: Duration) -> u64 {
    let seconds = since_epoch.as_secs().wrapping_add(NTP_EPOCH);
    (seconds << 32) | ((u64::from(since_epoch.subsec_nanos()) << 32) / 1_000_000_000)
}

/// The round trip by a reply that arrives at `now` (NTP): `last` are the middle 32 bits of the time of ours that was heard,
/// `delay` is how long ago that was, in units of 1/65,536 s. `None` for a reply that cannot be true.
pub(super) fn round_trip(now: u64, last: u32, delay: u32) -> Option<Duration> {
    if last == 0 {
        return None;
    }
    let now = (now >> 16) as u32;
    let trip = now.wrapping_sub(last).wrapping_sub(delay);
    // A clock of 1/65,536 s that is rounded at both ends can make a short trip negative by a little.
    let trip = if trip > u32::MAX - 64 { 0 } else { trip };
    let trip = Duration::from_nanos(u64::from(trip) * 1_000_000_000 / 65_536);
    (trip <= LONGEST).then_some(trip)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn millis(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    /// A reply to what was sent at `sent`, that was on its way for half of `trip` each way and rested for `rest`.
    fn reply(sent: Duration, trip: Duration, rest: Duration) -> Option<Duration> {
        let last = (ntp(sent) >> 16) as u32;
        let delay = (rest.as_nanos() * 65_536 / 1_000_000_000) as u32;
        round_trip(ntp(sent + trip + rest), last, delay)
    }

    #[test]
    fn the_time_that_a_reply_rested_at_the_other_end_is_no_part_of_the_trip() {
        for (trip, rest) in [(0, 700), (1, 0), (40, 3), (40, 4900), (900, 1)] {
            let found = reply(Duration::from_secs(1_763_000_000), millis(trip), millis(rest)).unwrap();
            assert!(found.abs_diff(millis(trip)) < millis(1), "{trip} ms: {found:?}");
        }
    }

    #[test]
    fn the_wrap_of_the_middle_bits_every_eighteen_hours_does_no_harm() {
        // The next multiple of 65,536 s of NTP time, less a little.
        let now = 1_763_000_000 + NTP_EPOCH;
        let wrap = Duration::from_secs((now / 65_536 + 1) * 65_536 - NTP_EPOCH);
        let found = reply(wrap - millis(20), millis(50), millis(10)).unwrap();
        assert!(found.abs_diff(millis(50)) < millis(1), "{found:?}");
    }

    #[test]
    fn what_a_hostile_client_makes_up_is_no_round_trip() {
        let now = ntp(Duration::from_secs(1_763_000_000));
        assert_eq!(round_trip(now, 0, 5), None);
        assert_eq!(round_trip(now, 1, 0), None);
        assert_eq!(round_trip(now, (now >> 16) as u32, u32::MAX / 2), None);
    }
}
