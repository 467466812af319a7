//! What the Mixer keeps in mind: which scene is on programme and on preview, the mix that is running, the name that is shown,
//! and from that each input's tally. Pure.

use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

/// Longest mix and longest identification.
pub const LONGEST_MIX: Duration = Duration::from_secs(10);
/// A mix without a duration: half a second, as switchers' auto keys come set.
pub const USUAL_MIX: Duration = Duration::from_millis(500);
/// Longest identification.
pub const LONGEST_IDENTIFY: Duration = Duration::from_secs(300);

/// How one scene gives way to another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum TakeKind {
    /// From one frame to the next.
    #[default]
    Cut,
    /// Over some time.
    Mix {
        /// Milliseconds, 1..=10,000.
        duration_ms: u64,
    },
}

impl TakeKind {
    /// From the words of the API: `cut`, or `mix` with a duration.
    ///
    /// # Errors
    /// `BadTransition` for another word or a duration outside 1..=10,000 ms.
    pub fn parse(kind: &str, duration_ms: Option<u64>) -> Result<Self, MixerRefusal> {
        match kind {
            "cut" => Ok(Self::Cut),
            "mix" => {
                let duration_ms = duration_ms.unwrap_or(USUAL_MIX.as_millis() as u64);
                Self::Mix { duration_ms }.checked()
            }
            other => Err(MixerRefusal::BadTransition(format!("{other:?} is neither cut nor mix"))),
        }
    }

    fn checked(self) -> Result<Self, MixerRefusal> {
        match self {
            Self::Mix { duration_ms } if !(1..=LONGEST_MIX.as_millis() as u64).contains(&duration_ms) => {
                Err(MixerRefusal::BadTransition(format!("a mix takes from 1 to {} ms", LONGEST_MIX.as_millis())))
            }
            kind => Ok(kind),
        }
    }

    /// How long both scenes are on air.
    pub fn duration(self) -> Duration {
        match self {
            Self::Cut => Duration::ZERO,
            Self::Mix { duration_ms } => Duration::from_millis(duration_ms),
        }
    }
}

/// Why the Mixer does not do it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MixerRefusal {
    /// There is no such scene.
    #[error("there is no scene {0:?}")]
    UnknownScene(String),
    /// The transition makes no sense.
    #[error("{0}")]
    BadTransition(String),
}

/// Where an input is seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Tally {
    /// Nowhere.
    #[default]
    None,
    /// In the scene that comes next.
    Preview,
    /// On air.
    Programme,
}

/// What the core needs to know of a scene.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SceneFacts {
    /// Its id.
    pub id: String,
    /// The inputs that are seen in it.
    pub inputs: Vec<String>,
}

/// A take that was checked and not yet carried out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TakePlan {
    /// The scene to put on programme.
    pub scene: String,
    /// How.
    pub kind: TakeKind,
    /// Whether the scene that leaves goes to preview.
    pub swap: bool,
}

/// A mix that is running.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Mixing {
    from: String,
    kind: TakeKind,
    until: Instant,
}

/// The Mixer's mind; a new life of the actor gets a copy of the old one's.
#[derive(Debug, Clone)]
pub struct MixerCore {
    scenes: Vec<SceneFacts>,
    pgm: String,
    pvw: String,
    mixing: Option<Mixing>,
    identify: Option<(String, Instant)>,
}

impl MixerCore {
    /// Starts with the first scene on programme and the second on preview.
    pub fn new(scenes: Vec<SceneFacts>) -> Self {
        let first = scenes.first().map(|scene| scene.id.clone()).unwrap_or_default();
        let second = scenes.get(1).map_or_else(|| first.clone(), |scene| scene.id.clone());
        Self { scenes, pgm: first, pvw: second, mixing: None, identify: None }
    }

    /// The scene on programme.
    pub fn pgm(&self) -> &str {
        &self.pgm
    }

    /// The scene on preview.
    pub fn pvw(&self) -> &str {
        &self.pvw
    }

    /// The transition that is running.
    pub fn transition(&self) -> Option<TakeKind> {
        self.mixing.as_ref().map(|mixing| mixing.kind)
    }

    /// The name that is shown on the programme.
    pub fn identify(&self) -> Option<&str> {
        self.identify.as_ref().map(|(text, _)| text.as_str())
    }

    /// Puts a scene on preview.
    ///
    /// # Errors
    /// `UnknownScene`.
    pub fn handle_set_preview(&mut self, scene: &str) -> Result<(), MixerRefusal> {
        self.pvw = self.known(scene)?;
        Ok(())
    }

    /// Checks a take of `scene`, or of the preview when there is none; a take of the preview swaps the two.
    ///
    /// # Errors
    /// `UnknownScene`, `BadTransition`.
    pub fn plan(&self, scene: Option<&str>, kind: TakeKind) -> Result<TakePlan, MixerRefusal> {
        let kind = kind.checked()?;
        match scene {
            Some(scene) => Ok(TakePlan { scene: self.known(scene)?, kind, swap: false }),
            None => Ok(TakePlan { scene: self.pvw.clone(), kind, swap: true }),
        }
    }

    /// The pipeline has accepted the take at `now`.
    pub fn handle_taken(&mut self, now: Instant, plan: TakePlan) {
        let leaving = std::mem::replace(&mut self.pgm, plan.scene);
        if plan.swap {
            self.pvw = leaving.clone();
        }
        self.mixing = match plan.kind {
            TakeKind::Cut => None,
            kind => Some(Mixing { from: leaving, kind, until: now + kind.duration() }),
        };
    }

    /// Shows a name for a while, in place of one that is shown already.
    pub fn handle_identify(&mut self, now: Instant, text: &str, length: Duration) {
        self.identify = Some((text.to_owned(), now + length.min(LONGEST_IDENTIFY)));
    }

    /// Ends what is over. The answer says whether anything changed.
    pub fn handle_timeout(&mut self, now: Instant) -> bool {
        let mixed = self.mixing.take_if(|mixing| now >= mixing.until).is_some();
        let identified = self.identify.take_if(|(_, until)| now >= *until).is_some();
        mixed || identified
    }

    /// When [`Self::handle_timeout`] wants to be called.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let mixing = self.mixing.as_ref().map(|mixing| mixing.until);
        let identify = self.identify.as_ref().map(|(_, until)| *until);
        mixing.into_iter().chain(identify).min()
    }

    /// Where an input is seen; during a mix both scenes are on air.
    pub fn tally(&self, input: &str) -> Tally {
        let leaving = self.mixing.as_ref().map(|mixing| mixing.from.as_str());
        if self.shows(&self.pgm, input) || leaving.is_some_and(|scene| self.shows(scene, input)) {
            Tally::Programme
        } else if self.shows(&self.pvw, input) {
            Tally::Preview
        } else {
            Tally::None
        }
    }

    fn shows(&self, scene: &str, input: &str) -> bool {
        self.scenes.iter().any(|known| known.id == scene && known.inputs.iter().any(|shown| shown == input))
    }

    fn known(&self, scene: &str) -> Result<String, MixerRefusal> {
        let found = self.scenes.iter().find(|known| known.id == scene);
        found.map(|known| known.id.clone()).ok_or_else(|| MixerRefusal::UnknownScene(scene.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn core() -> MixerCore {
        let scene = |id: &str, inputs: &[&str]| SceneFacts {
            id: id.into(),
            inputs: inputs.iter().map(|input| (*input).to_owned()).collect(),
        };
        MixerCore::new(vec![scene("one", &["cam1"]), scene("two", &["cam2"]), scene("both", &["cam1", "cam2"])])
    }

    #[test]
    fn a_take_of_the_preview_swaps_the_two() {
        let (now, mut core) = (Instant::now(), core());
        let plan = core.plan(None, TakeKind::Cut).unwrap();
        core.handle_taken(now, plan);
        assert_eq!((core.pgm(), core.pvw()), ("two", "one"));
    }

    #[test]
    fn a_take_of_a_scene_leaves_the_preview_alone() {
        let (now, mut core) = (Instant::now(), core());
        let plan = core.plan(Some("both"), TakeKind::Cut).unwrap();
        core.handle_taken(now, plan);
        assert_eq!((core.pgm(), core.pvw()), ("both", "two"));
        assert_eq!(core.plan(Some("nine"), TakeKind::Cut), Err(MixerRefusal::UnknownScene("nine".into())));
    }

    #[test]
    fn both_scenes_are_on_air_while_they_mix() {
        let (now, mut core) = (Instant::now(), core());
        let plan = core.plan(None, TakeKind::Mix { duration_ms: 400 }).unwrap();
        core.handle_taken(now, plan);
        assert_eq!((core.tally("cam1"), core.tally("cam2")), (Tally::Programme, Tally::Programme));
        let due = core.poll_timeout().unwrap();
        assert_eq!(due, now + Duration::from_millis(400));
        assert!(core.handle_timeout(due));
        assert_eq!((core.tally("cam1"), core.tally("cam2")), (Tally::Preview, Tally::Programme));
    }

    #[test]
    fn an_identification_ends_by_itself_and_never_lasts_longer_than_five_minutes() {
        let (now, mut core) = (Instant::now(), core());
        core.handle_identify(now, "BOX 7", Duration::from_secs(86_400));
        assert_eq!(core.identify(), Some("BOX 7"));
        assert!(core.handle_timeout(now + LONGEST_IDENTIFY));
        assert_eq!(core.identify(), None);
    }

    #[test]
    fn a_mix_of_no_length_or_of_an_hour_is_refused() {
        assert!(TakeKind::parse("mix", Some(0)).is_err());
        assert!(TakeKind::parse("mix", Some(3_600_000)).is_err());
        assert!(TakeKind::parse("wipe", None).is_err());
        assert_eq!(TakeKind::parse("mix", None), Ok(TakeKind::Mix { duration_ms: 500 }));
    }

    proptest! {
        /// Programme and preview are always known scenes, and what is on programme has its tally.
        #[test]
        fn programme_always_has_its_tally(events in prop::collection::vec((0u8..5, 0usize..4, 0u64..3_000), 1..100)) {
            let (mut now, mut core) = (Instant::now(), core());
            let names = ["one", "two", "both", "none"];
            for (event, which, pause) in events {
                let kind = if pause == 0 { TakeKind::Cut } else { TakeKind::Mix { duration_ms: pause } };
                let plan = match event {
                    0 => { let _ = core.handle_set_preview(names[which]); None }
                    1 => core.plan(None, kind).ok(),
                    2 => core.plan(Some(names[which]), kind).ok(),
                    _ => { now += Duration::from_millis(pause); core.handle_timeout(now); None }
                };
                if let Some(plan) = plan {
                    core.handle_taken(now, plan);
                }
                prop_assert!(names[..3].contains(&core.pgm()) && names[..3].contains(&core.pvw()));
                let scene = core.scenes.iter().find(|scene| scene.id == core.pgm()).unwrap();
                for input in &scene.inputs {
                    prop_assert_eq!(core.tally(input), Tally::Programme);
                }
                prop_assert!(core.poll_timeout().is_none_or(|due| due > now) || core.transition().is_some());
            }
        }
    }
}
