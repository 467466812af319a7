//! The seams of the link on the real parts of a box.

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use serde_json::{Value, json};

use super::ThumbnailSource;
use super::operations::{MixerDesk, Refusal};
use crate::device::MixerDoors;
use crate::error::{ActorsError, ErrorKind};
use crate::mixer::core::TakeKind;
use crate::mixer::{Identify, MixerReport, SetPreview, TakeScene, Transition};
use crate::studio::ThumbnailBoard;
use crate::supervision::DoorError;

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
    name: String,
}

impl MixerByDoors {
    /// `name` is what `identify` shows.
    pub fn new(doors: MixerDoors, name: impl Into<String>) -> Self {
        Self { doors, name: name.into() }
    }
}

#[async_trait]
impl MixerDesk for MixerByDoors {
    async fn take(&self, scene: Option<String>, kind: String, duration_ms: Option<u64>) -> Result<Value, Refusal> {
        let kind = TakeKind::parse(&kind, duration_ms)
            .map_err(|error| Refusal::rejected("arguments", error.to_string()))?;
        let report = match scene {
            Some(scene) => self.doors.take.send(TakeScene { scene, kind }).await,
            None => self.doors.transition.send(Transition { kind }).await,
        };
        answer(report)
    }

    async fn preview(&self, scene: String) -> Result<Value, Refusal> {
        answer(self.doors.set_preview.send(SetPreview { scene }).await)
    }

    async fn identify(&self, length: Duration) -> Result<Value, Refusal> {
        let text = self.name.clone();
        match self.doors.identify.send(Identify { text, length }).await {
            Ok(Ok(())) => Ok(json!({"shown": self.name, "seconds": length.as_secs()})),
            Ok(Err(error)) => Err(refusal(&error)),
            Err(error) => Err(refusal(&error.into())),
        }
    }
}

fn answer(said: Result<Result<MixerReport, ActorsError>, DoorError>) -> Result<Value, Refusal> {
    match said {
        Ok(Ok(report)) => Ok(json!({"pgm": report.pgm, "pvw": report.pvw})),
        Ok(Err(error)) => Err(refusal(&error)),
        Err(error) => Err(refusal(&error.into())),
    }
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
}
