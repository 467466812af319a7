//! Checks of what callers send.

use serde::{Deserialize, Deserializer};

use crate::problem::Problem;

/// Longest line of text, in bytes.
pub const LINE: usize = 200;
/// Longest longer text, in bytes.
pub const TEXT: usize = 4_000;

/// A line of text that is not empty and holds no control characters; trimmed.
///
/// # Errors
/// 400, naming the field.
pub fn line(field: &str, value: &str) -> Result<String, Problem> {
    let value = value.trim();
    if value.is_empty() {
        return Err(Problem::bad_request(format!("{field}: must not be empty")));
    }
    if value.len() > LINE {
        return Err(Problem::bad_request(format!("{field}: at most {LINE} bytes")));
    }
    if value.chars().any(char::is_control) {
        return Err(Problem::bad_request(format!("{field}: must not hold control characters")));
    }
    Ok(value.to_owned())
}

/// A longer text that may hold line breaks.
///
/// # Errors
/// 400, naming the field.
pub fn text(field: &str, value: &str) -> Result<String, Problem> {
    if value.len() > TEXT {
        return Err(Problem::bad_request(format!("{field}: at most {TEXT} bytes")));
    }
    if value.chars().any(|c| c.is_control() && c != '\n' && c != '\t' && c != '\r') {
        return Err(Problem::bad_request(format!("{field}: must not hold control characters")));
    }
    Ok(value.to_owned())
}

/// An optional line: empty counts as absent.
///
/// # Errors
/// As [`line`].
pub fn optional_line(field: &str, value: Option<&str>) -> Result<Option<String>, Problem> {
    match value.map(str::trim).filter(|value| !value.is_empty()) {
        Some(value) => line(field, value).map(Some),
        None => Ok(None),
    }
}

/// Tells `null` (clear it) from absent (leave it) in a PATCH.
///
/// # Errors
/// Those of the value.
pub fn nullable<'de, D, T>(deserializer: D) -> Result<Option<Option<T>>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    Option::<T>::deserialize(deserializer).map(Some)
}
