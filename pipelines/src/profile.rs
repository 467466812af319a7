//! Hardware profiles: which nodes, chips, encoders and budgets a kind of box has. Data, never code.
//!
//! Node numbers differ between kernels and boards, so they live in a file (`firmware-image/profiles/*.toml`) that an image
//! ships and an operator can replace. The profile `auto` is any PC: no capture devices, encoders found by trying.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::encoder;
use crate::error::PipelineError;
use crate::input::SourceSpec;
use crate::signal::Driver;

/// One video connector of a box.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Port {
    /// The input's id.
    pub id: String,
    /// What is printed on the case.
    pub label: String,
    /// The video node.
    pub device: PathBuf,
    /// The subdevice that knows the true signal, where the node itself does not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subdev: Option<PathBuf>,
    /// Which capture chip it is.
    pub driver: Driver,
    /// The ALSA device of its sound, where it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub audio: Option<String>,
}

/// What a box can do at the same time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Budgets {
    /// Hardware encoder sessions that run stably, the programme's included; 0 is no limit.
    pub encoder_sessions: u32,
}

/// A kind of box.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Profile {
    /// Its name.
    pub name: String,
    /// Encoders in the order to try them; empty is this software's own order.
    #[serde(default)]
    pub encoders: Vec<String>,
    /// What it can do at the same time.
    pub budgets: Budgets,
    /// Where recordings go, if the box has a disk for them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recordings: Option<PathBuf>,
    /// Its video connectors, in the order of the case.
    #[serde(default)]
    pub ports: Vec<Port>,
}

const R58_4X4: &str = include_str!("../../firmware-image/profiles/r58-4x4.toml");

impl Profile {
    /// Any PC.
    pub fn auto() -> Self {
        Self {
            name: "auto".into(),
            encoders: Vec::new(),
            budgets: Budgets { encoder_sessions: 0 },
            recordings: None,
            ports: Vec::new(),
        }
    }

    /// A profile by name (`auto`, `r58-4x4`) or by the path of a file.
    ///
    /// # Errors
    /// `Misconfigured` when there is no such profile or its file cannot be read, `Corrupt` when it is no profile.
    pub fn load(name: &str) -> Result<Self, PipelineError> {
        match name {
            "auto" => Ok(Self::auto()),
            "r58-4x4" => Self::parse("r58-4x4.toml", R58_4X4),
            path if path.contains('/') || path.ends_with(".toml") => {
                let text = std::fs::read_to_string(Path::new(path))
                    .map_err(|error| PipelineError::misconfigured("device.profile", format!("{path}: {error}")))?;
                Self::parse(path, &text)
            }
            other => {
                let reason = format!("there is no profile {other}; known are auto, r58-4x4 and files");
                Err(PipelineError::misconfigured("device.profile", reason))
            }
        }
    }

    fn parse(file: &str, text: &str) -> Result<Self, PipelineError> {
        let profile: Self = toml::from_str(text)
            .map_err(|error| PipelineError::Corrupt { file: file.into(), reason: error.to_string() })?;
        if let Some(stranger) = profile.encoders.iter().find(|name| !encoder::is_known(name)) {
            let reason = format!("{file}: encoders: {stranger} is none of {}", encoder::CANDIDATES.join(", "));
            return Err(PipelineError::misconfigured("device.profile", reason));
        }
        Ok(profile)
    }
}

impl Port {
    /// The source to configure an input with.
    pub fn source(&self) -> SourceSpec {
        SourceSpec::V4l2 {
            device: self.device.clone(),
            subdev: self.subdev.clone(),
            driver: self.driver,
            audio: self.audio.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_box_has_four_ports_in_the_order_of_its_case() {
        let profile = Profile::load("r58-4x4").unwrap();
        let nodes: Vec<_> = profile.ports.iter().map(|port| port.device.to_str().unwrap()).collect();
        assert_eq!(nodes, ["/dev/video0", "/dev/video60", "/dev/video11", "/dev/video22"]);
        assert_eq!(profile.ports[1].driver, Driver::RkHdmirx);
        assert_eq!(profile.budgets.encoder_sessions, 3);
        assert_eq!(profile.ports[0].source().kind(), "v4l2");
    }

    #[test]
    fn an_encoder_that_nobody_can_set_up_is_refused_by_name() {
        let text = "name = \"x\"\nencoders = [\"x264enc\", \"nvh264enc\"]\n[budgets]\nencoder_sessions = 1\n";
        let refused = Profile::parse("x.toml", text).unwrap_err().to_string();
        assert!(refused.starts_with("device.profile: x.toml: encoders: nvh264enc is none of mpph264enc"), "{refused}");
    }

    #[test]
    fn any_pc_has_no_ports_and_a_stranger_is_named() {
        assert!(Profile::load("auto").unwrap().ports.is_empty());
        assert!(Profile::load("r59").unwrap_err().to_string().contains("there is no profile r59"));
        assert!(
            Profile::load("/nowhere/x.toml").unwrap_err().to_string().starts_with("device.profile: /nowhere/x.toml")
        );
    }
}
