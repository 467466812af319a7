//! Where a list of devices goes on: a word that holds the place of the last one, not its number, so that devices that come
//! and go in between neither repeat nor hide others.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

/// A place within the order by name and identifier.
pub type Place = (String, String);

/// The place as a word.
pub fn encode(name: &str, id: &str) -> String {
    URL_SAFE_NO_PAD.encode(serde_json::json!([name, id]).to_string())
}

/// The place of a word; `None` when it is not one.
pub fn decode(word: &str) -> Option<Place> {
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(word).ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_reads_back_from_its_word_and_nothing_else_does() {
        let word = encode("Hall \"7\"", "box-1");
        assert!(word.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_'));
        assert_eq!(decode(&word), Some(("Hall \"7\"".into(), "box-1".into())));
        for bad in ["", "?", "e30", "WzFd"] {
            assert_eq!(decode(bad), None, "{bad}");
        }
    }
}
