//! "Why is this guest black?", answered in one sentence from what was seen on the way of its pictures. Pure.
//!
//! The way has five gates: an address, a path, keys, packets, a decoder. The answer is the first gate that is shut, and what
//! that usually means. Nothing is concluded from what was promised; a gate that has had no time yet is not called shut.

use std::time::{Duration, Instant};

use r58_pipelines::peer::Step;

use super::vitals::MediaSample;

/// What a path, keys and first packets may take before something is wrong: three times what a guest behind two NATs and a
/// TURN server was seen to take.
const PATIENCE: Duration = Duration::from_secs(5);
/// A camera sends at least one picture in this time, a slow one in the dark too.
const QUIET: Duration = Duration::from_secs(2);
/// A lost key frame is asked for once a second; two of them may go missing on a bad road.
const BLIND: Duration = Duration::from_secs(3);

/// Why a guest is seen, or is not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Diagnosis {
    /// Its pictures are decoded, and are not black.
    Fine,
    /// It came with sound alone, and is heard.
    Voice,
    /// It has not had the time yet.
    Connecting,
    /// Neither its addresses nor its checks arrived.
    NoCandidates,
    /// Its addresses are known, and no check between them and ours came back.
    NoPath,
    /// There was a path, and it is gone.
    PathLost,
    /// Packets pass, keys were not agreed on.
    KeysPending,
    /// Agreeing on keys failed.
    KeysFailed,
    /// Connected, and no packet at all has come.
    NoMedia,
    /// Sound comes, and no packet of a picture ever did.
    OnlySound,
    /// Pictures came, and their packets stopped while the path is alive.
    MutedAtSource,
    /// Pictures are decoded, and they are black.
    Dark,
    /// Packets of pictures come, a key frame to begin with does not.
    NoKeyframe,
    /// Key frames come, and the decoder makes nothing of them.
    NoDecode,
}

impl Diagnosis {
    /// One sentence for the crew.
    pub fn sentence(self) -> &'static str {
        match self {
            Self::Fine => "Pictures arrive and are decoded.",
            Self::Voice => "The guest came with sound alone, which arrives and is decoded.",
            Self::Connecting => "The guest is being connected.",
            Self::NoCandidates => {
                "No network address of the guest has arrived and none of its checks got through: a firewall on its side \
                 lets nothing out by UDP, and it uses no TURN server."
            }
            Self::NoPath => {
                "The guest's addresses are known, but no path to any of them works: a firewall stands between, and no \
                 TURN server helps around it."
            }
            Self::PathLost => {
                "The path to the guest broke off: its network is gone, it sleeps, or its page was closed."
            }
            Self::KeysPending => {
                "A path was found, but the keys for the media (DTLS) are not agreed on: something between lets small \
                 packets through and not these."
            }
            Self::KeysFailed => {
                "A path was found, but agreeing on keys for the media (DTLS) failed: the guest's program and this box do \
                 not understand each other, or something between changes the packets."
            }
            Self::NoMedia => {
                "The guest is connected and sends nothing: its page has not been given camera and microphone, or holds \
                 them back."
            }
            Self::OnlySound => "The guest sends sound and no picture: its camera is not on, or not chosen in its page.",
            Self::MutedAtSource => {
                "The guest stopped sending while its connection lives on: its camera, or the microphone of a voice, is off or \
                 muted at its end."
            }
            Self::Dark => {
                "The guest's pictures are decoded and are black: the camera is muted in its page, covered, or in the dark."
            }
            Self::NoKeyframe => {
                "Packets of pictures arrive, but no key frame to begin with: the guest's encoder does not answer the \
                 requests for one, or the line loses them all."
            }
            Self::NoDecode => {
                "Key frames arrive, but nothing can be decoded from them: the stream is damaged, or of a kind that this \
                 box cannot decode."
            }
        }
    }
}

/// The first gate that is shut for a guest that was admitted at `admitted`.
pub fn diagnose(now: Instant, admitted: Instant, sample: &MediaSample) -> Diagnosis {
    let (way, seen) = (&sample.connectivity, &sample.pipeline);
    let age = |moment: Option<Instant>| moment.map_or(Duration::MAX, |at| now.saturating_duration_since(at));
    let waited = now.saturating_duration_since(admitted) >= PATIENCE;
    let or_wait = |diagnosis: Diagnosis| if waited { diagnosis } else { Diagnosis::Connecting };
    if sample.is_voice && age(seen.last_decoded_sound) < QUIET {
        return Diagnosis::Voice;
    }
    if age(seen.last_decoded_frame) < QUIET {
        return if seen.dark { Diagnosis::Dark } else { Diagnosis::Fine };
    }
    match (way.ice, way.dtls) {
        (Step::Waiting | Step::Trying, _) if way.candidates == 0 => return or_wait(Diagnosis::NoCandidates),
        (Step::Waiting | Step::Trying, _) => return or_wait(Diagnosis::NoPath),
        // The stack calls a path that never was and one that is gone by the same name; keys tell which.
        (Step::Lost | Step::Failed, Step::Done) => return Diagnosis::PathLost,
        (Step::Lost | Step::Failed, _) if way.candidates == 0 => return Diagnosis::NoCandidates,
        (Step::Lost | Step::Failed, _) => return Diagnosis::NoPath,
        (Step::Done, Step::Failed | Step::Lost) => return Diagnosis::KeysFailed,
        (Step::Done, Step::Waiting | Step::Trying) => return or_wait(Diagnosis::KeysPending),
        (Step::Done, Step::Done) => {}
    }
    if sample.is_voice && seen.audio_packets > 0 {
        return or_wait(Diagnosis::MutedAtSource);
    }
    if seen.video_packets == 0 {
        let silent = if seen.audio_packets == 0 { Diagnosis::NoMedia } else { Diagnosis::OnlySound };
        return or_wait(silent);
    }
    if age(seen.last_video_packet) >= QUIET {
        return Diagnosis::MutedAtSource;
    }
    // Packets flow and nothing is decoded of them. A key frame that came since the last picture should have been.
    let since_picture = age(seen.last_decoded_frame);
    let keyframe = age(seen.last_keyframe);
    match () {
        () if seen.keyframes > 0 && keyframe < since_picture && keyframe >= BLIND / 3 => Diagnosis::NoDecode,
        () if seen.keyframes > 0 && keyframe < since_picture => Diagnosis::Connecting,
        () if seen.decoded_frames == 0 => or_wait(Diagnosis::NoKeyframe),
        () if since_picture >= BLIND => Diagnosis::NoKeyframe,
        () => Diagnosis::Connecting,
    }
}

#[cfg(test)]
mod tests {
    use super::super::vitals::tests::nothing;
    use super::*;

    const LONG: Duration = Duration::from_secs(10);

    struct Case {
        start: Instant,
        sample: MediaSample,
    }

    impl Case {
        fn connected(ice: Step, dtls: Step, candidates: usize) -> Self {
            let mut sample = nothing();
            (sample.connectivity.ice, sample.connectivity.dtls) = (ice, dtls);
            sample.connectivity.candidates = candidates;
            Self { start: Instant::now(), sample }
        }

        fn with(mut self, change: impl FnOnce(&mut MediaSample, Instant)) -> Self {
            change(&mut self.sample, self.start);
            self
        }

        fn after(&self, waited: Duration) -> Diagnosis {
            diagnose(self.start + waited, self.start, &self.sample)
        }
    }

    #[test]
    fn no_candidates_and_no_check_is_told_from_a_path_that_does_not_work() {
        let hidden = Case::connected(Step::Trying, Step::Waiting, 0);
        assert_eq!(hidden.after(Duration::from_secs(1)), Diagnosis::Connecting);
        assert_eq!(hidden.after(LONG), Diagnosis::NoCandidates);
        assert_eq!(Case::connected(Step::Failed, Step::Waiting, 0).after(LONG), Diagnosis::NoCandidates);
        assert_eq!(Case::connected(Step::Trying, Step::Waiting, 3).after(LONG), Diagnosis::NoPath);
        assert_eq!(Case::connected(Step::Failed, Step::Waiting, 3).after(Duration::ZERO), Diagnosis::NoPath);
    }

    #[test]
    fn a_path_that_broke_is_no_path_that_never_was() {
        assert_eq!(Case::connected(Step::Lost, Step::Done, 2).after(LONG), Diagnosis::PathLost);
        assert_eq!(Case::connected(Step::Failed, Step::Done, 0).after(LONG), Diagnosis::PathLost);
    }

    #[test]
    fn keys_that_take_too_long_and_keys_that_failed_are_two_faults() {
        assert_eq!(Case::connected(Step::Done, Step::Trying, 1).after(Duration::from_secs(2)), Diagnosis::Connecting);
        assert_eq!(Case::connected(Step::Done, Step::Trying, 1).after(LONG), Diagnosis::KeysPending);
        assert_eq!(Case::connected(Step::Done, Step::Failed, 1).after(Duration::ZERO), Diagnosis::KeysFailed);
    }

    #[test]
    fn a_connected_guest_that_sends_nothing_or_only_sound_is_named_so() {
        let silent = Case::connected(Step::Done, Step::Done, 1);
        assert_eq!(silent.after(Duration::from_secs(1)), Diagnosis::Connecting);
        assert_eq!(silent.after(LONG), Diagnosis::NoMedia);
        let voice = silent.with(|sample, _| sample.pipeline.audio_packets = 50);
        assert_eq!(voice.after(LONG), Diagnosis::OnlySound);
        let voice = voice.with(|sample, start| {
            (sample.is_voice, sample.pipeline.last_decoded_sound) = (true, Some(start + LONG));
        });
        assert_eq!(voice.after(LONG), Diagnosis::Voice);
        assert_eq!(voice.after(LONG * 2), Diagnosis::MutedAtSource);
    }

    #[test]
    fn packets_without_a_key_frame_and_key_frames_without_a_picture_are_two_faults() {
        let flowing = |sample: &mut MediaSample, start: Instant| {
            sample.pipeline.video_packets = 500;
            sample.pipeline.last_video_packet = Some(start + LONG);
        };
        let blind = Case::connected(Step::Done, Step::Done, 1).with(flowing);
        assert_eq!(blind.after(Duration::from_secs(1)), Diagnosis::Connecting);
        assert_eq!(blind.after(LONG), Diagnosis::NoKeyframe);
        let broken = blind.with(|sample, start| {
            (sample.pipeline.keyframes, sample.pipeline.last_keyframe) = (3, Some(start + LONG - BLIND));
        });
        assert_eq!(broken.after(LONG), Diagnosis::NoDecode);
        // One that has just begun to arrive is given its time.
        let arriving = broken.with(|sample, start| sample.pipeline.last_keyframe = Some(start + LONG));
        assert_eq!(arriving.after(LONG), Diagnosis::Connecting);
    }

    #[test]
    fn a_decoder_that_lost_its_thread_waits_for_a_key_frame() {
        let lost = Case::connected(Step::Done, Step::Done, 1).with(|sample, start| {
            (sample.pipeline.video_packets, sample.pipeline.last_video_packet) = (500, Some(start + LONG));
            (sample.pipeline.keyframes, sample.pipeline.last_keyframe) = (1, Some(start));
            (sample.pipeline.decoded_frames, sample.pipeline.last_decoded_frame) = (90, Some(start + LONG - BLIND));
        });
        assert_eq!(lost.after(LONG), Diagnosis::NoKeyframe);
    }

    #[test]
    fn a_muted_camera_is_known_by_its_silence_or_by_its_blackness() {
        let seen = Case::connected(Step::Done, Step::Done, 1).with(|sample, start| {
            (sample.pipeline.video_packets, sample.pipeline.last_video_packet) = (500, Some(start));
            (sample.pipeline.keyframes, sample.pipeline.last_keyframe) = (1, Some(start));
            (sample.pipeline.decoded_frames, sample.pipeline.last_decoded_frame) = (90, Some(start));
        });
        assert_eq!(seen.after(Duration::from_secs(1)), Diagnosis::Fine);
        assert_eq!(seen.after(LONG), Diagnosis::MutedAtSource);
        let dark = seen.with(|sample, _| sample.pipeline.dark = true);
        assert_eq!(dark.after(Duration::from_secs(1)), Diagnosis::Dark);
    }

    #[test]
    fn every_answer_is_one_sentence() {
        use Diagnosis::*;
        let all = [
            Fine,
            Voice,
            Connecting,
            NoCandidates,
            NoPath,
            PathLost,
            KeysPending,
            KeysFailed,
            NoMedia,
            OnlySound,
            MutedAtSource,
            Dark,
            NoKeyframe,
            NoDecode,
        ];
        for diagnosis in all {
            let sentence = diagnosis.sentence();
            assert!(sentence.ends_with('.') && sentence.matches('.').count() == 1, "{sentence}");
        }
    }
}
