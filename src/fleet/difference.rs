//! What differs between two configurations. Pure.

use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

/// How a place differs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Only the second has it.
    Added,
    /// Only the first has it.
    Removed,
    /// Both have it, with other values.
    Changed,
}

/// One place that differs.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct Difference {
    /// Where: a JSON pointer (RFC 6901).
    pub path: String,
    /// How.
    pub kind: Kind,
    /// In the first.
    #[schema(value_type = Option<Object>)]
    pub from: Option<Value>,
    /// In the second.
    #[schema(value_type = Option<Object>)]
    pub to: Option<Value>,
}

/// Everything that differs, in the order of names. Objects are compared key by key, all else as a whole.
pub fn between(from: &Value, to: &Value) -> Vec<Difference> {
    let mut found = Vec::new();
    walk("", Some(from), Some(to), &mut found);
    found
}

/// `whole` without what `part` does not speak of: a device reports everything, a desired configuration says only what is
/// to be different from its file.
pub fn within(whole: &Value, part: &Value) -> Value {
    match (whole, part) {
        (Value::Object(whole), Value::Object(part)) => {
            let both = part.iter().filter_map(|(key, part)| Some((key.clone(), within(whole.get(key)?, part))));
            Value::Object(both.collect())
        }
        (whole, _) => whole.clone(),
    }
}

fn walk(path: &str, from: Option<&Value>, to: Option<&Value>, found: &mut Vec<Difference>) {
    if from == to {
        return;
    }
    if let (Some(Value::Object(a)), Some(Value::Object(b))) = (from, to) {
        let mut keys: Vec<&String> = a.keys().chain(b.keys()).collect();
        keys.sort();
        keys.dedup();
        for key in keys {
            let step = key.replace('~', "~0").replace('/', "~1");
            walk(&format!("{path}/{step}"), a.get(key), b.get(key), found);
        }
        return;
    }
    let kind = match (from, to) {
        (None, _) => Kind::Added,
        (_, None) => Kind::Removed,
        _ => Kind::Changed,
    };
    found.push(Difference { path: path.to_owned(), kind, from: from.cloned(), to: to.cloned() });
}

/// Takes user and password out of every address in it, as devices do before they report their configuration.
pub fn mask(value: &mut Value) {
    match value {
        Value::String(text) => {
            if let (Some((scheme, _)), Some((_, host))) = (text.split_once("://"), text.rsplit_once('@')) {
                *text = format!("{scheme}://{host}");
            }
        }
        Value::Array(items) => items.iter_mut().for_each(mask),
        Value::Object(fields) => fields.values_mut().for_each(mask),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_differs_is_told_with_its_place() {
        let (from, to) =
            (json!({"a": 1, "b": {"c/d": [1], "e": 2}, "f": 3}), json!({"a": 1, "b": {"c/d": [2]}, "g": {}}));
        let told = between(&from, &to);
        let short: Vec<(&str, Kind)> = told.iter().map(|one| (one.path.as_str(), one.kind)).collect();
        assert_eq!(
            short,
            [("/b/c~1d", Kind::Changed), ("/b/e", Kind::Removed), ("/f", Kind::Removed), ("/g", Kind::Added)]
        );
        assert!(between(&from, &from).is_empty());
    }

    #[test]
    fn the_other_way_round_says_the_opposite() {
        let (a, b) = (json!({"x": 1, "y": {"z": 2}}), json!({"x": 2, "w": 0}));
        let back: Vec<Difference> = between(&b, &a);
        for one in between(&a, &b) {
            let other = back.iter().find(|other| other.path == one.path).unwrap();
            assert_eq!((&one.from, &one.to), (&other.to, &other.from));
        }
    }

    #[test]
    fn a_device_is_compared_by_what_was_asked_of_it() {
        let reported = json!({"inputs": {"cam1": {"source": 1}, "cam2": {"source": 2}}, "link": {}});
        let desired = json!({"inputs": {"cam1": {"source": 9}, "cam3": {"source": 3}}});
        assert_eq!(within(&reported, &desired), json!({"inputs": {"cam1": {"source": 1}}}));
    }

    #[test]
    fn passwords_in_addresses_are_not_shown() {
        let mut value = json!({"a": ["rtsp://u:p@h/x@y", "plain", "mail@example.org", "rtsp://h/1"]});
        mask(&mut value);
        assert_eq!(value, json!({"a": ["rtsp://y", "plain", "mail@example.org", "rtsp://h/1"]}));
    }
}
