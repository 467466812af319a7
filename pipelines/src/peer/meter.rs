//! What arrives, measured: packets, loss, jitter and bit rate of one RTP stream (RFC 3550, appendix A). Pure.

use std::time::{Duration, Instant};

/// Bit rates are averaged over this long.
const WINDOW: Duration = Duration::from_secs(1);

/// A jump of more than this many sequence numbers is a new stream, not a loss (RFC 3550, appendix A.1).
const MAX_DROPOUT: i32 = 3000;

/// How far back it is known which packets came: what is asked for again and comes twice is no packet more. Two seconds of
/// 6 Mbit/s; a jitter buffer has no use for anything older.
const REMEMBERED: usize = 1024;

/// Meter of one stream. Feed it every packet.
#[derive(Debug)]
pub struct Meter {
    clock_rate: u32,
    reading: MeterReading,
    expected: Option<Expected>,
    transit: Option<f64>,
    start: Option<Instant>,
    window: Option<(Instant, u64)>,
}

/// The newest packet, and which of those before it came.
#[derive(Debug, Clone)]
struct Expected {
    highest: u16,
    came: [u64; REMEMBERED / 64],
}

impl Expected {
    fn first(sequence: u16) -> Self {
        let mut expected = Self { highest: sequence, came: [0; REMEMBERED / 64] };
        // Nothing before the first packet is missed: it would be a loss of somebody else's.
        expected.came.fill(u64::MAX);
        expected
    }

    /// Whether this packet came before, and that it has come now.
    fn mark(&mut self, sequence: u16, came: bool) -> bool {
        let place = usize::from(sequence) % REMEMBERED;
        let (word, bit) = (&mut self.came[place / 64], 1u64 << (place % 64));
        let before = *word & bit != 0;
        *word = if came { *word | bit } else { *word & !bit };
        before
    }
}

/// What a [`Meter`] shows.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct MeterReading {
    /// Packets received, each once.
    pub packets: u64,
    /// Bytes of those packets, headers included.
    pub bytes: u64,
    /// Packets that never came, or have not come yet.
    pub lost: u64,
    /// Packets that came after a later one: overtaken on the way, or sent again.
    pub recovered: u64,
    /// Packets that came again although they were there.
    pub repeated: u64,
    /// Interarrival jitter.
    pub jitter: Duration,
    /// Bits per second over the last full second.
    pub bitrate: u64,
    /// When the last packet came.
    pub last_packet: Option<Instant>,
}

impl Meter {
    /// A meter for a stream of this RTP clock rate in Hz.
    pub fn new(clock_rate: u32) -> Self {
        let reading = MeterReading::default();
        Self { clock_rate: clock_rate.max(1), reading, expected: None, transit: None, start: None, window: None }
    }

    /// One packet: its sequence number, RTP timestamp and size in bytes.
    pub fn handle_packet(&mut self, now: Instant, sequence: u16, timestamp: u32, bytes: usize) {
        self.reading.bytes += bytes as u64;
        self.reading.last_packet = Some(now);
        self.measure_rate(now, bytes as u64);
        // What was sent again says nothing of how evenly the road delivers.
        if self.count(sequence) {
            self.measure_jitter(now, timestamp);
        }
    }

    /// The state now; a stream that has stopped has no bit rate.
    pub fn reading(&self, now: Instant) -> MeterReading {
        let silent = self.reading.last_packet.is_none_or(|last| now.saturating_duration_since(last) > 2 * WINDOW);
        MeterReading { bitrate: if silent { 0 } else { self.reading.bitrate }, ..self.reading }
    }

    /// Whether it is the newest packet.
    fn count(&mut self, sequence: u16) -> bool {
        let reading = &mut self.reading;
        let Some(expected) = &mut self.expected else {
            self.expected = Some(Expected::first(sequence));
            reading.packets += 1;
            return true;
        };
        let ahead = i32::from(sequence.wrapping_sub(expected.highest) as i16);
        if ahead.abs() > MAX_DROPOUT {
            *expected = Expected::first(sequence);
            (reading.lost, self.transit) = (0, None);
            reading.packets += 1;
            return true;
        }
        if ahead > 0 {
            for missed in 1..ahead {
                expected.mark(expected.highest.wrapping_add(missed as u16), false);
            }
            expected.mark(sequence, true);
            expected.highest = sequence;
            reading.lost += ahead as u64 - 1;
            reading.packets += 1;
            return true;
        }
        // Beyond memory it cannot be told from a repetition, and is of no use either.
        if ahead.unsigned_abs() as usize >= REMEMBERED || expected.mark(sequence, true) {
            reading.repeated += 1;
        } else {
            reading.lost = reading.lost.saturating_sub(1);
            reading.recovered += 1;
            reading.packets += 1;
        }
        false
    }

    fn measure_jitter(&mut self, now: Instant, timestamp: u32) {
        let start = *self.start.get_or_insert(now);
        let arrival = now.saturating_duration_since(start).as_secs_f64() * f64::from(self.clock_rate);
        // Wraps with the timestamp, so that the difference of two transits is right across a wrap.
        let transit = (arrival - f64::from(timestamp)).rem_euclid(f64::from(u32::MAX) + 1.0);
        if let Some(before) = self.transit {
            let difference = (transit - before).abs();
            // More than ten seconds is a jump of the sender's clock.
            if difference < 10.0 * f64::from(self.clock_rate) {
                let jitter = self.reading.jitter.as_secs_f64() * f64::from(self.clock_rate);
                let jitter = jitter + (difference - jitter) / 16.0;
                self.reading.jitter = Duration::from_secs_f64(jitter.max(0.0) / f64::from(self.clock_rate));
            }
        }
        self.transit = Some(transit);
    }

    fn measure_rate(&mut self, now: Instant, bytes: u64) {
        let (since, sum) = self.window.get_or_insert((now, 0));
        let elapsed = now.saturating_duration_since(*since);
        if elapsed >= WINDOW {
            self.reading.bitrate = (*sum as f64 * 8.0 / elapsed.as_secs_f64()) as u64;
            (*since, *sum) = (now, 0);
        }
        *sum += bytes;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_gap_is_a_loss_until_it_is_filled_and_a_wrap_is_none() {
        let (mut meter, now) = (Meter::new(90_000), Instant::now());
        for sequence in [65_533, 65_534, 65_535, 0, 1, 4] {
            meter.handle_packet(now, sequence, 0, 100);
        }
        assert_eq!(meter.reading(now).lost, 2);
        meter.handle_packet(now, 2, 0, 100);
        assert_eq!(meter.reading(now).lost, 1);
    }

    #[test]
    fn what_was_asked_for_twice_and_comes_twice_is_counted_once() {
        let (mut meter, now) = (Meter::new(90_000), Instant::now());
        for sequence in [10, 11, 14, 12, 12, 12, 14, 11] {
            meter.handle_packet(now, sequence, 0, 100);
        }
        let reading = meter.reading(now);
        assert_eq!((reading.packets, reading.lost, reading.recovered, reading.repeated), (4, 1, 1, 4));
        // A packet from before the first one was never missed.
        meter.handle_packet(now, 9, 0, 100);
        assert_eq!(meter.reading(now).lost, 1);
    }

    #[test]
    fn a_steady_stream_has_no_jitter_and_its_rate_is_known_after_a_second() {
        let (mut meter, start) = (Meter::new(48_000), Instant::now());
        for n in 0..200u32 {
            let now = start + Duration::from_millis(u64::from(n) * 20);
            meter.handle_packet(now, n as u16, n.wrapping_mul(960), 100);
        }
        let reading = meter.reading(start + Duration::from_millis(3990));
        assert!(reading.jitter < Duration::from_micros(50), "{:?}", reading.jitter);
        assert_eq!(reading.bitrate, 40_000);
        assert_eq!(meter.reading(start + Duration::from_secs(60)).bitrate, 0);
    }

    proptest! {
        #[test]
        fn any_sequence_of_packets_is_counted_without_a_panic(packets in prop::collection::vec((any::<u16>(), any::<u32>(), 0u64..5000), 0..200)) {
            let (mut meter, mut now) = (Meter::new(90_000), Instant::now());
            for (sequence, timestamp, millis) in &packets {
                now += Duration::from_millis(*millis);
                meter.handle_packet(now, *sequence, *timestamp, 50);
            }
            let reading = meter.reading(now);
            prop_assert_eq!(reading.packets + reading.repeated, packets.len() as u64);
            prop_assert!(reading.recovered <= reading.packets);
        }
    }
}
