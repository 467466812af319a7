//! Scenes: which inputs stand where in the picture. The shipped ones are data files in `scenes/`.

use serde::{Deserialize, Serialize};

use crate::error::PipelineError;

pub mod shipped;

/// What a slot's source is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SourceType {
    /// One of the box's own inputs.
    Camera,
    /// A remote guest's seat.
    Guest,
}

/// Size of the picture that a scene was drawn for, in pixels. Scenes are relative; this is only what editors show.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Resolution {
    /// Pixels across.
    pub width: u32,
    /// Pixels down.
    pub height: u32,
}

impl Default for Resolution {
    fn default() -> Self {
        Self { width: 1280, height: 720 }
    }
}

/// One input's place in a scene. Positions and sizes are shares of the picture, from the top left corner.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Slot {
    /// The input's id. A source stands in a scene at most once.
    pub source: String,
    /// What the source is.
    #[serde(default = "camera")]
    pub source_type: SourceType,
    /// Left edge, 0..1.
    pub x_rel: f64,
    /// Top edge, 0..1.
    pub y_rel: f64,
    /// Width, above 0, with `x_rel` at most 1.
    pub w_rel: f64,
    /// Height, above 0, with `y_rel` at most 1.
    pub h_rel: f64,
    /// Order from the back, 0..=15. Slots with the same value stand in their order in the list.
    #[serde(default)]
    pub z: u32,
    /// Opacity, 0..=1.
    #[serde(default = "one")]
    pub alpha: f64,
    /// Share cut off at the left. Not carried out yet: only 0 is accepted.
    #[serde(default)]
    pub crop_left: f64,
    /// Share cut off at the right. Not carried out yet: only 0 is accepted.
    #[serde(default)]
    pub crop_right: f64,
    /// Share cut off at the top. Not carried out yet: only 0 is accepted.
    #[serde(default)]
    pub crop_top: f64,
    /// Share cut off at the bottom. Not carried out yet: only 0 is accepted.
    #[serde(default)]
    pub crop_bottom: f64,
    /// Border in pixels. Not carried out yet: only 0 is accepted.
    #[serde(default)]
    pub border_width: u32,
    /// Border colour as `#rrggbb`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub border_color: Option<String>,
}

fn camera() -> SourceType {
    SourceType::Camera
}

fn one() -> f64 {
    1.0
}

/// A picture made of inputs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scene {
    /// Its id, unique on the box.
    pub id: String,
    /// What the crew reads on the button.
    pub label: String,
    /// What it was drawn for.
    #[serde(default)]
    pub resolution: Resolution,
    /// At least one.
    pub slots: Vec<Slot>,
}

/// Tolerance for shares that do not add up exactly, such as three thirds.
const EPSILON: f64 = 1e-6;

impl Scene {
    /// Refuses what cannot be shown: no slots, a source twice or unknown, places outside the picture.
    ///
    /// # Errors
    /// `Rejected`, naming the scene, the slot and what is wrong with it.
    pub fn validate(&self, inputs: &[String]) -> Result<(), PipelineError> {
        let reject = |reason: String| Err(PipelineError::Rejected(format!("scene {}: {reason}", self.id)));
        if self.slots.is_empty() {
            return reject("it has no slots".into());
        }
        for (n, slot) in self.slots.iter().enumerate() {
            if let Some(reason) = slot.fault() {
                return reject(format!("slot {} ({}): {reason}", n + 1, slot.source));
            }
            if !inputs.contains(&slot.source) {
                return reject(format!("slot {}: there is no input {}", n + 1, slot.source));
            }
            if self.slots[..n].iter().any(|other| other.source == slot.source) {
                return reject(format!("slot {}: {} is in this scene already", n + 1, slot.source));
            }
        }
        Ok(())
    }

    /// Whether an input is visible in this scene.
    pub fn shows(&self, input: &str) -> bool {
        self.slots.iter().any(|slot| slot.source == input && slot.alpha > 0.0)
    }
}

impl Slot {
    fn fault(&self) -> Option<String> {
        let share = |value: f64| (0.0..=1.0 + EPSILON).contains(&value);
        let shares = [("x_rel", self.x_rel), ("y_rel", self.y_rel), ("alpha", self.alpha)];
        if let Some((name, value)) = shares.into_iter().find(|(_, value)| !share(*value)) {
            return Some(format!("{name} is {value}, not from 0 to 1"));
        }
        for (name, start, size) in [("w_rel", self.x_rel, self.w_rel), ("h_rel", self.y_rel, self.h_rel)] {
            if size.is_nan() || size <= 0.0 || !share(start + size) {
                return Some(format!("{name} is {size}, which does not end inside the picture"));
            }
        }
        if self.z > 15 {
            return Some(format!("z is {}, not from 0 to 15", self.z));
        }
        if [self.crop_left, self.crop_right, self.crop_top, self.crop_bottom].iter().any(|crop| *crop != 0.0) {
            return Some("cropping is not supported".into());
        }
        if self.border_width != 0 {
            return Some("borders are not supported".into());
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scene(text: &str) -> Scene {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn faults_are_named_with_scene_slot_and_field() {
        let inputs = ["cam1".to_owned(), "cam2".to_owned()];
        let cases = [
            (r#"{"id":"s","label":"","slots":[]}"#, "scene s: it has no slots"),
            (
                r#"{"id":"s","label":"","slots":[{"source":"cam9","x_rel":0,"y_rel":0,"w_rel":1,"h_rel":1}]}"#,
                "scene s: slot 1: there is no input cam9",
            ),
            (
                r#"{"id":"s","label":"","slots":[{"source":"cam1","x_rel":0.6,"y_rel":0,"w_rel":0.5,"h_rel":1}]}"#,
                "scene s: slot 1 (cam1): w_rel is 0.5, which does not end inside the picture",
            ),
            (
                r#"{"id":"s","label":"","slots":[{"source":"cam1","x_rel":-0.1,"y_rel":0,"w_rel":0.5,"h_rel":1}]}"#,
                "scene s: slot 1 (cam1): x_rel is -0.1, not from 0 to 1",
            ),
            (
                r#"{"id":"s","label":"","slots":[{"source":"cam1","x_rel":0,"y_rel":0,"w_rel":1,"h_rel":1},
                   {"source":"cam1","x_rel":0,"y_rel":0,"w_rel":0.5,"h_rel":0.5}]}"#,
                "scene s: slot 2: cam1 is in this scene already",
            ),
            (
                r#"{"id":"s","label":"","slots":[{"source":"cam1","x_rel":0,"y_rel":0,"w_rel":1,"h_rel":1,"crop_left":0.2}]}"#,
                "scene s: slot 1 (cam1): cropping is not supported",
            ),
        ];
        for (text, expected) in cases {
            assert_eq!(scene(text).validate(&inputs).unwrap_err().to_string(), expected);
        }
    }

    #[test]
    fn unknown_fields_are_refused() {
        let text = r#"{"id":"s","label":"","slots":[],"colour":"red"}"#;
        assert!(serde_json::from_str::<Scene>(text).is_err());
    }
}
