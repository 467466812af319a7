//! Lays the layers over each other: defaults, the file, then the environment.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use config::{Config, Environment, File, FileFormat};
use r58_actors::fleet_link::identity::Secret;

use super::check::{Problem, check_text, judge};
use super::settings::Settings;

/// Why no configuration came out.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file is not there or cannot be read.
    #[error("cannot read the configuration {path}: {source}")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The file has problems, each with its line.
    #[error("{path}: {}", listed(.problems))]
    Wrong {
        /// The file.
        path: PathBuf,
        /// All that is wrong.
        problems: Vec<Problem>,
    },
    /// A value of the environment is wrong, alone or together with the file.
    #[error("the environment (R58__SECTION__KEY): {0}")]
    Environment(String),
}

fn listed(problems: &[Problem]) -> String {
    problems.iter().map(Problem::to_string).collect::<Vec<_>>().join("; ")
}

/// Lists that the environment may hold, with commas between.
const LISTS: [&str; 8] = [
    "device.trusted_proxies",
    "device.turn.stun",
    "device.turn.shared_urls",
    "device.webrtc.interfaces",
    "device.link.services",
    "fleet.trusted_proxies",
    "fleet.turn.stun",
    "fleet.turn.urls",
];

fn environment() -> Environment {
    let environment = Environment::with_prefix("R58").prefix_separator("__").separator("__").try_parsing(true);
    LISTS.iter().fold(environment.list_separator(","), |environment, key| environment.with_list_parse_key(key))
}

/// Reads `file` if given, then `R58__SECTION__KEY` and `R58_STATE_DIR` of the environment.
///
/// # Errors
/// Says which file and line, or which variable, is wrong; nothing is half applied.
pub fn load(file: Option<&Path>) -> Result<Settings, ConfigError> {
    let mut builder = Config::builder();
    let mut in_file = Vec::new();
    if let Some(path) = file {
        let text = std::fs::read_to_string(path)
            .map_err(|source| ConfigError::Unreadable { path: path.to_owned(), source })?;
        in_file = check_text(&text);
        if in_file.iter().any(|problem| problem.key.is_empty()) {
            return Err(ConfigError::Wrong { path: path.to_owned(), problems: in_file });
        }
        builder = builder.add_source(File::from_str(&text, FileFormat::Toml));
    }
    let mut settings: Settings = builder
        .add_source(environment())
        .build()
        .and_then(Config::try_deserialize)
        .map_err(|error| ConfigError::Environment(error.to_string()))?;
    if let Some(dir) = std::env::var_os("R58_STATE_DIR").filter(|dir| !dir.is_empty()) {
        settings.state_dir = PathBuf::from(dir);
    }
    // The environment may mend what the file alone gets wrong, so only what is still wrong counts.
    let wrong = judge(&settings);
    in_file.retain(|problem| wrong.iter().any(|(key, message)| *key == problem.key && *message == problem.message));
    if let (Some(path), false) = (file, in_file.is_empty()) {
        return Err(ConfigError::Wrong { path: path.to_owned(), problems: in_file });
    }
    if let Some((key, message)) = wrong.first() {
        return Err(ConfigError::Environment(format!("{key}: {message}")));
    }
    Ok(settings)
}

/// The secret that a file holds, without the end of its line.
///
/// # Errors
/// When the file cannot be read; says which.
pub fn secret_in(file: &Path) -> anyhow::Result<Secret> {
    let text = std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
    Ok(Secret::new(text.trim_end()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_can_come_from_the_environment_and_what_is_no_list_keeps_its_commas() {
        let variables = [
            ("R58__FLEET__TRUSTED_PROXIES", "10.0.0.0/8,fd00::/8"),
            ("R58__DEVICE__TURN__STUN", "stun:stun.example:3478"),
            ("R58__DEVICE__NAME", "left, and right"),
            ("R58__DEVICE__LINK__HEARTBEAT_SECONDS", "30"),
        ];
        let variables = variables.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let source = environment().source(Some(variables.into()));
        let settings: Settings = Config::builder().add_source(source).build().unwrap().try_deserialize().unwrap();
        assert_eq!(settings.fleet.trusted_proxies, ["10.0.0.0/8", "fd00::/8"]);
        assert_eq!(settings.device.turn.stun, ["stun:stun.example:3478"]);
        assert_eq!(settings.device.name, "left, and right");
        assert_eq!(settings.device.link.heartbeat_seconds, 30);
    }
}
