//! The scenes that come with the box, drawn for the inputs it has.
//!
//! A file in `scenes/` is a drawing with placeholders: `input:2` is the second input, `each` the input or guest that the
//! drawing is repeated for. A drawing whose placeholders cannot be filled is left out.

use serde::Deserialize;

use super::{Resolution, Scene, Slot, SourceType};
use crate::error::PipelineError;

const FILES: &[(&str, &str)] = &[
    ("scenes/full.json", include_str!("../../scenes/full.json")),
    ("scenes/quad.json", include_str!("../../scenes/quad.json")),
    ("scenes/two-up.json", include_str!("../../scenes/two-up.json")),
    ("scenes/three-up.json", include_str!("../../scenes/three-up.json")),
    ("scenes/picture-in-picture.json", include_str!("../../scenes/picture-in-picture.json")),
    ("scenes/interview.json", include_str!("../../scenes/interview.json")),
    ("scenes/interview-guest.json", include_str!("../../scenes/interview-guest.json")),
    ("scenes/presentation.json", include_str!("../../scenes/presentation.json")),
];

/// An input as the scenes see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SceneInput {
    /// Its id.
    pub id: String,
    /// What the crew calls it.
    pub label: String,
    /// What it is.
    pub source_type: SourceType,
}

impl SceneInput {
    /// One of the box's own inputs.
    pub fn camera(id: &str, label: &str) -> Self {
        Self { id: id.into(), label: label.into(), source_type: SourceType::Camera }
    }

    /// A guest's seat.
    pub fn guest(id: &str, label: &str) -> Self {
        Self { id: id.into(), label: label.into(), source_type: SourceType::Guest }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Repeat {
    Once,
    EachInput,
    EachGuest,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Drawing {
    id: String,
    label: String,
    repeat: Repeat,
    slots: Vec<Slot>,
}

/// All scenes of a box, in the order of its buttons.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct SceneSet {
    scenes: Vec<Scene>,
}

impl SceneSet {
    /// The shipped scenes for these inputs (cameras first, then guest seats).
    ///
    /// # Errors
    /// `Corrupt` when a shipped file cannot be read, `Rejected` when it draws outside the picture.
    pub fn shipped(inputs: &[SceneInput]) -> Result<Self, PipelineError> {
        let ids: Vec<String> = inputs.iter().map(|input| input.id.clone()).collect();
        let mut scenes = Vec::new();
        for (file, text) in FILES {
            let drawing: Drawing = serde_json::from_str(text)
                .map_err(|error| PipelineError::Corrupt { file: (*file).into(), reason: error.to_string() })?;
            for scene in drawing.fill(inputs) {
                scene.validate(&ids)?;
                scenes.push(scene);
            }
        }
        Ok(Self { scenes })
    }

    /// In the order of the buttons.
    pub fn all(&self) -> &[Scene] {
        &self.scenes
    }

    /// The scene with this id.
    pub fn get(&self, id: &str) -> Option<&Scene> {
        self.scenes.iter().find(|scene| scene.id == id)
    }
}

impl Drawing {
    fn fill(&self, inputs: &[SceneInput]) -> Vec<Scene> {
        match self.repeat {
            Repeat::Once => self.fill_for(inputs, None).into_iter().collect(),
            Repeat::EachInput => inputs.iter().filter_map(|input| self.fill_for(inputs, Some(input))).collect(),
            Repeat::EachGuest => inputs
                .iter()
                .filter(|input| input.source_type == SourceType::Guest)
                .filter_map(|input| self.fill_for(inputs, Some(input)))
                .collect(),
        }
    }

    fn fill_for(&self, inputs: &[SceneInput], each: Option<&SceneInput>) -> Option<Scene> {
        let mut slots = Vec::with_capacity(self.slots.len());
        for slot in &self.slots {
            let input = match slot.source.as_str() {
                "each" => each?,
                place => inputs.get(place.strip_prefix("input:")?.parse::<usize>().ok()?.checked_sub(1)?)?,
            };
            if slots.iter().any(|other: &Slot| other.source == input.id) {
                return None;
            }
            slots.push(Slot { source: input.id.clone(), source_type: input.source_type, ..slot.clone() });
        }
        let name = |text: &str| match each {
            Some(input) => text.replace("{id}", &input.id).replace("{label}", &input.label),
            None => text.to_owned(),
        };
        Some(Scene { id: name(&self.id), label: name(&self.label), resolution: Resolution::default(), slots })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn inputs(cameras: usize, guests: usize) -> Vec<SceneInput> {
        let cameras = (1..=cameras).map(|n| SceneInput::camera(&format!("cam{n}"), &format!("CAM {n}")));
        let guests = (1..=guests).map(|n| SceneInput::guest(&format!("guest{n}"), &format!("GUEST {n}")));
        cameras.chain(guests).collect()
    }

    #[test]
    fn four_cameras_and_a_guest_have_every_scene_that_crews_know() {
        let set = SceneSet::shipped(&inputs(4, 1)).unwrap();
        let ids: Vec<_> = set.all().iter().map(|scene| scene.id.as_str()).collect();
        assert_eq!(
            ids,
            [
                "full-cam1",
                "full-cam2",
                "full-cam3",
                "full-cam4",
                "full-guest1",
                "quad",
                "two-up",
                "three-up",
                "pip",
                "interview",
                "interview-guest1",
                "presentation",
            ]
        );
        assert!(set.get("interview-guest1").unwrap().shows("guest1"));
        assert!(set.get("full-cam2").unwrap().shows("cam2"));
        assert_eq!(set.get("full-cam2").unwrap().label, "CAM 2");
    }

    #[test]
    fn a_box_with_fewer_inputs_has_fewer_scenes() {
        let one = SceneSet::shipped(&inputs(1, 0)).unwrap();
        assert_eq!(one.all().len(), 1);
        let two = SceneSet::shipped(&inputs(2, 0)).unwrap();
        assert!(two.get("two-up").is_some() && two.get("three-up").is_none() && two.get("quad").is_none());
        let guests_only = SceneSet::shipped(&inputs(0, 2)).unwrap();
        assert!(guests_only.get("interview-guest1").is_none());
        assert!(guests_only.get("interview-guest2").is_some());
        assert_eq!(SceneSet::shipped(&[]).unwrap().all().len(), 0);
    }
}
