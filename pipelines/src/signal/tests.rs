//! The signal's state machine in virtual time: errnos, pictures of nothing, spurious changes, stalls and freezes.

use proptest::prelude::*;

use super::*;

fn after(start: Instant, ms: u64) -> Instant {
    start + Duration::from_millis(ms)
}

const HD: Timings = Timings { width: 1920, height: 1080, pixel_clock: 148_500_000, interlaced: false };

fn drain(core: &mut SignalCore) -> Vec<SignalAction> {
    std::iter::from_fn(|| core.poll_output()).collect()
}

#[test]
fn only_frames_make_an_input_live() {
    let start = Instant::now();
    let mut core = SignalCore::new(start, Driver::Generic);
    core.handle(start, SignalInput::Probed(Probe::Timings(HD)));
    core.handle(start, SignalInput::Opened);
    assert_eq!(core.state(), Signal::Starting);
    core.handle(after(start, 10), SignalInput::Frame(None));
    assert_eq!((core.state(), core.reason()), (Signal::Live, ""));
    core.handle_timeout(after(start, 1009));
    assert_eq!(core.state(), Signal::Live);
    core.handle_timeout(after(start, 1010));
    assert_eq!((core.state(), core.reason()), (Signal::Stalled, "no frames for 1 s"));
    core.handle(after(start, 1500), SignalInput::Frame(None));
    assert_eq!(core.state(), Signal::Live);
}

#[test]
fn every_errno_of_the_query_has_its_state() {
    use nix::errno::Errno;
    let cases = [
        (Errno::ENOLINK, Signal::NoCable),
        (Errno::ENOLCK, Signal::NoSync),
        (Errno::EIO, Signal::NoSync),
        (Errno::ETIMEDOUT, Signal::NoSync),
        (Errno::ERANGE, Signal::OutOfRange),
        (Errno::ENODATA, Signal::NoSignal),
        (Errno::EBUSY, Signal::Failed),
    ];
    for (errno, state) in cases {
        let mut core = SignalCore::new(Instant::now(), Driver::Generic);
        core.handle(Instant::now(), SignalInput::Probed(Probe::Errno(errno as i32)));
        assert_eq!(core.state(), state, "{errno}");
        assert!(!core.reason().is_empty());
    }
}

#[test]
fn a_chips_picture_of_nothing_is_never_live() {
    let format = |fourcc: &str, width, height| CaptureFormat { fourcc: fourcc.into(), width, height };
    let cases = [
        (Driver::Rkcif, format("UYVY", 320, 240)),
        (Driver::RkHdmirx, format("BGR3", 640, 480)),
        (Driver::Rkcif, format("UYVY", 720, 240)),
        (Driver::RkHdmirx, format("NV16", 720, 240)),
    ];
    for (driver, format) in cases {
        let now = Instant::now();
        let mut core = SignalCore::new(now, driver);
        core.handle(now, SignalInput::Format(format.clone()));
        core.handle(now, SignalInput::Frame(Some(1)));
        assert_eq!(core.state(), Signal::NoSignal, "{format:?}");
    }
    let now = Instant::now();
    let mut core = SignalCore::new(now, Driver::RkHdmirx);
    core.handle(now, SignalInput::Format(format("NV16", 640, 480)));
    core.handle(now, SignalInput::Frame(Some(1)));
    assert_eq!(core.state(), Signal::Live);
}

#[test]
fn spurious_changes_are_looked_at_ever_less_often_and_restart_nothing() {
    let start = Instant::now();
    let mut core = SignalCore::new(start, Driver::Rkcif);
    core.handle(start, SignalInput::Probed(Probe::Timings(HD)));
    assert_eq!(drain(&mut core), [SignalAction::Restart]);
    let mut now = after(start, 1000);
    let mut probes = 0;
    for _ in 0..600 {
        core.handle(now, SignalInput::SourceChange);
        core.handle_timeout(now);
        for action in drain(&mut core) {
            assert_eq!(action, SignalAction::Probe);
            probes += 1;
            core.handle(now, SignalInput::Probed(Probe::Timings(HD)));
        }
        core.handle(now, SignalInput::Frame(None));
        now += Duration::from_secs(1);
    }
    assert_eq!(drain(&mut core), []);
    assert!((10..=20).contains(&probes), "{probes} probes in ten minutes");
    assert_eq!(core.spurious_changes(), probes);
    assert_eq!(core.state(), Signal::Live);
}

#[test]
fn a_change_during_the_pause_is_not_forgotten() {
    let start = Instant::now();
    let mut core = SignalCore::new(start, Driver::Rkcif);
    core.handle(start, SignalInput::Probed(Probe::Timings(HD)));
    drain(&mut core);
    core.handle(after(start, 10), SignalInput::SourceChange);
    assert_eq!(drain(&mut core), []);
    assert_eq!(core.poll_timeout(), Some(after(start, 1000)));
    core.handle_timeout(after(start, 1000));
    assert_eq!(drain(&mut core), [SignalAction::Probe]);
    let other = Timings { width: 1280, height: 720, ..HD };
    core.handle(after(start, 1001), SignalInput::Probed(Probe::Timings(other)));
    assert_eq!(drain(&mut core), [SignalAction::Restart]);
}

#[test]
fn identical_frames_for_ten_seconds_are_frozen_and_any_change_ends_it() {
    let start = Instant::now();
    let mut core = SignalCore::new(start, Driver::Generic);
    for ms in (0..=10_000).step_by(100) {
        core.handle(after(start, ms), SignalInput::Frame(Some(7)));
        core.handle_timeout(after(start, ms));
    }
    assert_eq!(core.state(), Signal::Frozen);
    assert!(core.state().has_picture());
    core.handle(after(start, 10_100), SignalInput::Frame(Some(8)));
    assert_eq!(core.state(), Signal::Live);
}

proptest! {
    #[test]
    fn whatever_happens_live_means_a_recent_frame(steps in proptest::collection::vec((0u8..8, 0u64..1500), 1..200)) {
        let start = Instant::now();
        let mut now = start;
        let mut core = SignalCore::new(start, Driver::Rkcif);
        let mut last_frame: Option<Instant> = None;
        for (what, ms) in steps {
            now += Duration::from_millis(ms);
            match what {
                0 => core.handle(now, SignalInput::Opened),
                1 => core.handle(now, SignalInput::Probed(Probe::Timings(HD))),
                2 => core.handle(now, SignalInput::Probed(Probe::Errno(67))),
                3 => core.handle(now, SignalInput::SourceChange),
                4 => core.handle(now, SignalInput::Error("gone".into())),
                5 => core.handle(now, SignalInput::Probed(Probe::TimedOut)),
                _ => {
                    core.handle(now, SignalInput::Frame(Some(ms)));
                    last_frame = Some(now);
                }
            }
            core.handle_timeout(now);
            drain(&mut core);
            if core.state() == Signal::Live {
                prop_assert!(last_frame.is_some_and(|last| now.duration_since(last) < STALL_AFTER));
                prop_assert_eq!(core.reason(), "");
            } else if core.state() != Signal::Starting {
                prop_assert!(!core.reason().is_empty());
            }
            prop_assert!(core.poll_timeout().is_none_or(|at| at > now));
        }
    }
}
