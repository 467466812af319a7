//! The seams of the link on the real parts of a box.

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use r58_pipelines::SceneSet;
use serde_json::{Value, json};

use super::ThumbnailSource;
use super::operations::{MixerDesk, Refusal};
use crate::device::MixerDoors;
use crate::error::{ActorsError, ErrorKind};
use crate::mixer::core::TakeKind;
use crate::mixer::{Identify, MixerReport, SetPreview, TakeScene, Transition};
use crate::studio::ThumbnailBoard;
use crate::supervision::DoorError;

/// A box that has just started is handed what waited for it at the broker: its programme has this long to come up. Less than
/// the link waits for an answer.
const COMES_UP_WITHIN: Duration = Duration::from_secs(10);
/// How soon the mixer is asked again.
const ASK_AGAIN: Duration = Duration::from_millis(100);

impl ThumbnailSource for ThumbnailBoard {
    fn pictures(&self) -> Vec<(String, Bytes, u64)> {
        let picture = |name: String| self.latest(&name).map(|picture| (name, picture.jpeg, picture.seq));
        self.names().into_iter().filter_map(picture).collect()
    }
}

/// Commands for the mixer by its doors.
#[derive(Clone)]
pub struct MixerByDoors {
    doors: MixerDoors,
    scenes: Arc<SceneSet>,
    name: String,
}

impl MixerByDoors {
    /// `scenes` are the mixer's; `name` is what `identify` shows.
    pub fn new(doors: MixerDoors, scenes: Arc<SceneSet>, name: impl Into<String>) -> Self {
        Self { doors, scenes, name: name.into() }
    }
}

#[async_trait]
impl MixerDesk for MixerByDoors {
    fn knows(&self, scene: &str) -> bool {
        self.scenes.get(scene).is_some()
    }

    async fn take(&self, scene: Option<String>, kind: TakeKind) -> Result<Value, Refusal> {
        answer(match scene {
            Some(scene) => once_up(|| self.doors.take.send(TakeScene { scene: scene.clone(), kind })).await,
            None => once_up(|| self.doors.transition.send(Transition { kind })).await,
        })
    }

    async fn preview(&self, scene: String) -> Result<Value, Refusal> {
        answer(once_up(|| self.doors.set_preview.send(SetPreview { scene: scene.clone() })).await)
    }

    async fn identify(&self, length: Duration) -> Result<Value, Refusal> {
        let asked = once_up(|| self.doors.identify.send(Identify { text: self.name.clone(), length })).await;
        asked.map(|()| json!({"shown": self.name, "seconds": length.as_secs()})).map_err(|error| refusal(&error))
    }
}

/// Asks until the programme is there. A mixer that says it is not has done nothing, so that asking again is no second effect;
/// anything else that goes wrong is the answer.
async fn once_up<T, F, A>(mut ask: F) -> Result<T, ActorsError>
where
    F: FnMut() -> A,
    A: Future<Output = Result<Result<T, ActorsError>, DoorError>>,
{
    let begin = Instant::now();
    loop {
        match ask().await {
            Ok(Err(ActorsError::Unavailable(_))) if begin.elapsed() < COMES_UP_WITHIN => {
                tokio::time::sleep(ASK_AGAIN).await;
            }
            Ok(said) => return said,
            Err(error) => return Err(error.into()),
        }
    }
}

fn answer(said: Result<MixerReport, ActorsError>) -> Result<Value, Refusal> {
    said.map(|report| json!({"pgm": report.pgm, "pvw": report.pvw})).map_err(|error| refusal(&error))
}

fn refusal(error: &ActorsError) -> Refusal {
    match (error, error.kind()) {
        (ActorsError::Unknown { what, .. }, _) => Refusal::rejected(&format!("unknown_{what}"), error.to_string()),
        (_, ErrorKind::Rejected) => Refusal::rejected("refused", error.to_string()),
        (_, _) => Refusal::failed("unavailable", error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scene_that_is_not_there_and_a_mixer_that_is_not_there_are_told_apart() {
        let unknown = ActorsError::Unknown { what: "scene", name: "x".to_owned() };
        assert!(matches!(refusal(&unknown), Refusal::Rejected { code, .. } if code == "unknown_scene"));
        let away = ActorsError::Door(DoorError::Degraded("mixer".to_owned()));
        assert!(matches!(refusal(&away), Refusal::Failed { code, .. } if code == "unavailable"));
    }

    #[tokio::test]
    async fn a_programme_that_is_starting_is_waited_for_and_a_mixer_that_is_down_is_not() {
        let asked = std::cell::Cell::new(0);
        let late = |up_at: u32| {
            asked.set(asked.get() + 1);
            let up = asked.get() >= up_at;
            async move { Ok(if up { Ok(()) } else { Err(ActorsError::Unavailable("starting".to_owned())) }) }
        };
        assert!(once_up(|| late(3)).await.is_ok());
        assert_eq!(asked.get(), 3);
        let broken = once_up(|| async { Err::<Result<(), _>, _>(DoorError::Degraded("mixer".to_owned())) }).await;
        assert!(matches!(broken, Err(ActorsError::Door(_))), "asked once");
    }
}
