//! The secrets in guests' links: configured, or generated once and kept in the state directory.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result};
use rand::RngCore;
use rand::rngs::OsRng;

use super::http::SeatLink;
use crate::config::SeatSettings;

const FILE: &str = "seats.json";

/// A link for each seat, in the order of the configuration.
///
/// # Errors
/// When the file of generated tokens can be neither read nor written.
pub fn links(seats: &[SeatSettings], state_dir: &Path, base_url: &str) -> Result<Vec<SeatLink>> {
    let path = state_dir.join(FILE);
    let mut kept: BTreeMap<String, String> = match std::fs::read(&path) {
        // A damaged file costs new links, not the start of the box.
        Ok(bytes) => serde_json::from_slice(&bytes).unwrap_or_else(|error| {
            tracing::warn!(%error, "the seats' links cannot be read, new ones are made");
            BTreeMap::new()
        }),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => BTreeMap::new(),
        Err(error) => return Err(error).with_context(|| format!("cannot read {}", path.display())),
    };
    let before = kept.clone();
    let links = seats.iter().map(|seat| {
        let token = match &seat.token {
            Some(token) => token.clone(),
            None => kept.entry(seat.id.clone()).or_insert_with(new_token).clone(),
        };
        SeatLink {
            id: seat.id.clone(),
            label: label(&seat.label, &seat.id),
            join_url: format!("{base_url}guest_join?seat={}&token={}", encoded(&seat.id), encoded(&token)),
            token,
        }
    });
    let links = links.collect();
    if kept != before {
        r58_actors::fleet_link::identity::write_private(&path, &serde_json::to_vec(&kept)?)
            .with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(links)
}

/// What people see: the label, or the id in capitals.
pub fn label(label: &str, id: &str) -> String {
    if label.is_empty() { id.to_uppercase() } else { label.to_owned() }
}

/// 128 random bits in hex: as unguessable as a session (RFC 9725, section 5).
fn new_token() -> String {
    let mut bytes = [0; 16];
    OsRng.fill_bytes(&mut bytes);
    hex::encode(bytes)
}

/// Percent-encoding of what a query may not hold (RFC 3986, section 2.3).
pub fn encoded(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    text.bytes().map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seat(id: &str, token: Option<&str>) -> SeatSettings {
        SeatSettings { id: id.into(), label: String::new(), token: token.map(str::to_owned) }
    }

    #[test]
    fn a_generated_link_stays_the_same_over_starts() {
        let dir = tempfile::tempdir().expect("a directory");
        let seats = [seat("guest1", None), seat("guest2", Some("a secret & 16 long"))];
        let first = links(&seats, dir.path(), "http://box/").expect("links");
        let second = links(&seats, dir.path(), "http://box/").expect("links");
        assert_eq!(first[0].token, second[0].token);
        assert_eq!(first[0].token.len(), 32);
        assert_eq!(second[1].join_url, "http://box/guest_join?seat=guest2&token=a%20secret%20%26%2016%20long");
        assert_eq!(second[1].label, "GUEST2");
    }

    #[test]
    fn a_damaged_file_costs_new_links_and_nothing_else() {
        let dir = tempfile::tempdir().expect("a directory");
        std::fs::write(dir.path().join(FILE), b"{").expect("write");
        let made = links(&[seat("guest1", None)], dir.path(), "/").expect("links");
        assert_eq!(links(&[seat("guest1", None)], dir.path(), "/").expect("links")[0].token, made[0].token);
    }
}
