//! Random orders of everything that can happen to a call, with an SFU that remembers what is open.

use proptest::prelude::*;

use super::*;

/// What an SFU knows of a session.
#[derive(Default)]
struct Held {
    open: Vec<String>,
    busy: bool,
}

/// One step of a random run.
#[derive(Debug, Clone)]
enum Step {
    Wait(u64),
    /// Carries out the oldest request; answers so.
    Answer(u8),
    /// Carries it out, and the answer is lost.
    Lose,
    Fail(u8),
    SeatSays(bool),
    SeatEnds,
    Leave,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => (0u64..3000).prop_map(Step::Wait),
        8 => any::<u8>().prop_map(Step::Answer),
        1 => Just(Step::Lose),
        1 => any::<u8>().prop_map(Step::Fail),
        3 => any::<bool>().prop_map(Step::SeatSays),
        1 => Just(Step::SeatEnds),
        1 => Just(Step::Leave),
    ]
}

/// A world with an SFU that remembers what is open.
struct Model {
    world: World,
    held: BTreeMap<String, Held>,
    seat_asked: bool,
    sessions: usize,
    /// What fails as often as it may is given up, and rightly stays open.
    hindered: u32,
}

impl Model {
    fn session_of(ask: &Ask) -> Option<String> {
        match ask {
            Ask::NewSession => None,
            Ask::Push { session, .. }
            | Ask::Pull { session, .. }
            | Ask::Answer { session, .. }
            | Ask::Close { session, .. }
            | Ask::Look { session } => Some(session.clone()),
        }
    }

    /// Notes what went out: never two at once for one session.
    fn look(&mut self, seen: &mut usize) {
        for (_, ask) in self.world.sent.iter().skip(*seen) {
            if let Some(session) = Self::session_of(ask) {
                let held = self.held.entry(session).or_default();
                assert!(!held.busy, "two at once: {:?}", self.world.sent);
                held.busy = true;
            }
        }
        *seen = self.world.sent.len();
        while let Some(effect) = self.world.effects.pop_front() {
            if let Output::Seat { .. } = effect {
                self.seat_asked = true;
            }
        }
    }

    fn carry_out(&mut self, ask: &Ask, dice: u8) -> Result<Reply, Failure> {
        let held = Self::session_of(ask).map(|session| self.held.entry(session).or_default());
        match (ask, held) {
            (Ask::NewSession, _) => {
                self.sessions += 1;
                session(&format!("X{}", self.sessions))
            }
            (Ask::Push { tracks, .. }, Some(held)) => {
                held.open = tracks.iter().map(|track| track.mid.clone()).collect();
                described(false, vec![])
            }
            (Ask::Pull { .. }, Some(held)) if dice < 200 => {
                held.open = vec!["a0".into(), "a1".into()];
                offered()
            }
            (Ask::Pull { .. }, _) => {
                let late = |name: &str| TrackReply { fault: Some(TrackFault::NotYet), ..seen(name, false) };
                Ok(Reply::Tracks { description: None, tracks: vec![late("audio"), late("video")] })
            }
            (Ask::Look { .. }, Some(held)) => {
                let track = |mid: &String| TrackReply { mid: Some(mid.clone()), ..seen("video", dice < 200) };
                let mut tracks: Vec<_> = held.open.iter().map(track).collect();
                tracks.push(seen("audio", dice < 200));
                Ok(Reply::Tracks { description: None, tracks })
            }
            (Ask::Close { mids, .. }, Some(held)) => {
                held.open.retain(|mid| !mids.contains(mid));
                Ok(Reply::Done)
            }
            _ => Ok(Reply::Done),
        }
    }

    fn take(&mut self, seen: &mut usize) -> Option<(u64, Ask)> {
        let (id, ask) = self.world.sent.pop_front()?;
        *seen = seen.saturating_sub(1);
        if let Some(held) = Self::session_of(&ask).and_then(|session| self.held.get_mut(&session)) {
            held.busy = false;
        }
        Some((id, ask))
    }

    fn step(&mut self, step: Step, seen: &mut usize) {
        match step {
            Step::Wait(ms) => self.world.pass(Duration::from_millis(ms)),
            Step::Answer(dice) => {
                if let Some((id, ask)) = self.take(seen) {
                    let reply = self.carry_out(&ask, dice);
                    self.world.reply(id, reply);
                }
            }
            Step::Lose => {
                if let Some((id, ask)) = self.take(seen) {
                    let _ = self.carry_out(&ask, 0);
                    self.world.reply(id, Err(Failure::Lost));
                }
            }
            Step::Fail(dice) => {
                let ends_it = |ask: &Ask| matches!(ask, Ask::Close { .. } | Ask::Look { .. });
                self.hindered += u32::from(self.world.sent.front().is_some_and(|(_, ask)| ends_it(ask)));
                if self.hindered < ATTEMPTS
                    && let Some((id, _)) = self.take(seen)
                {
                    let failures = [
                        Failure::Down(500),
                        Failure::Busy(None),
                        Failure::Overlap,
                        Failure::NotConnected,
                        Failure::Unreachable,
                    ];
                    self.world.reply(id, Err(failures[usize::from(dice) % failures.len()].clone()));
                }
            }
            Step::SeatSays(yes) => {
                if std::mem::take(&mut self.seat_asked) {
                    let said = if yes { Ok(("seat-session".into(), "ours".into())) } else { Err("no".into()) };
                    self.world.core.handle_seated(self.world.now, "c1", said);
                    self.world.drain();
                }
            }
            Step::SeatEnds => {
                self.world.core.handle_unseated(self.world.now, "seat-session");
                self.world.drain();
            }
            Step::Leave => {
                let _ = self.world.core.handle_leave(self.world.now, "guest1", None);
                self.world.drain();
            }
        }
        self.look(seen);
    }
}

proptest! {
    /// In whatever order things happen: never two requests for one session at once, and in the end nothing is left open.
    #[test]
    fn no_session_is_asked_two_things_at_once_and_nothing_stays_open(steps in prop::collection::vec(step(), 0..60)) {
        let mut model = Model { world: World::new(), held: BTreeMap::new(), seat_asked: false, sessions: 0, hindered: 0 };
        let mut seen = 0;
        model.look(&mut seen);
        for step in steps {
            model.step(step, &mut seen);
        }
        model.step(Step::Leave, &mut seen);
        for _ in 0..200 {
            model.step(Step::SeatSays(true), &mut seen);
            model.step(Step::Answer(0), &mut seen);
            model.step(Step::Wait(100), &mut seen);
        }
        prop_assert!(model.world.core.reports().is_empty(), "{:?}", model.world.core.reports());
        for (session, held) in &model.held {
            prop_assert!(held.open.is_empty(), "{session} has {:?}", held.open);
        }
    }
}
