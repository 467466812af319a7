//! What must not leave the box, taken out of texts and documents: the one place. Pure.
//!
//! Three nets, one behind the other. **Known values**: secrets that the box holds are learnt at its start and found wherever
//! they stand. **Names**: what follows a name such as `token` or `password`, in logs, TOML, JSON and query strings.
//! **Patterns**: addresses with a user's part, authorization values, JWTs, keys in PEM, tokens of 64 hex digits, fragments of
//! links, SDP. It errs on the side of taking too much.

use std::borrow::Cow;
use std::sync::{Arc, LazyLock, RwLock};

use regex::{Captures, Regex};
use serde_json::Value;

/// What stands in place of a secret.
pub const GONE: &str = "[redacted]";
/// What stands in place of a session description.
const SDP_GONE: &str = "[SDP redacted]";
/// Shorter values are not learnt: they would be found in ordinary words.
const LEARN_FROM: usize = 6;

/// Parts of names whose value is a secret, in lower case and without separators.
const NAMES: [&str; 18] = [
    "token",
    "secret",
    "password",
    "passwd",
    "passphrase",
    "pwd",
    "credential",
    "authorization",
    "apikey",
    "privatekey",
    "signingkey",
    "cookie",
    "enrolmentcode",
    "joinurl",
    "watchurl",
    "hlsurl",
    "ufrag",
    "sdp",
];

/// In the order in which they are applied. Each pattern's replacement holds what it matched of no secret.
const PATTERNS: [(&str, &str); 8] = [
    // Keys in PEM, also cut off in the middle.
    (r"(?s)-----BEGIN [A-Z0-9 ]*PRIVATE KEY-----.*?(?:-----END [A-Z0-9 ]*PRIVATE KEY-----|\z)", GONE),
    // A session description goes on to the text's end (RFC 8866, section 5: v= and o= come first).
    (r"(?s)\bv=0(?:\r?\n|\\r\\n|\\n)\s*o=.*", SDP_GONE),
    (r"(?i)\ba=(ice-pwd|ice-ufrag|fingerprint|crypto):[^\r\n\\]*", "a=${1}:[redacted]"),
    // A password may hold an at sign, so everything up to the last one goes.
    (r#"([A-Za-z][A-Za-z0-9+.\-]*://)[^\s"'<>]*@"#, "${1}[redacted]@"),
    // Links carry their secret in the fragment.
    (r#"(https?://[^\s"'<>#]*#)[^\s"'<>]+"#, "${1}[redacted]"),
    (
        r#"(?i)\b((?:proxy-)?authorization|cookie|set-cookie|x-device-token|x-api-key)(\\*"?\s*[:=]\s*)[^\r\n]*"#,
        "${1}${2}[redacted]",
    ),
    (r"(?i)\b(bearer|basic|digest)\s+[A-Za-z0-9._~+/=\-]{6,}", "${1} [redacted]"),
    (r"\beyJ[A-Za-z0-9_\-]{5,}(?:\.[A-Za-z0-9_\-]*){1,2}", GONE),
];

static RULES: LazyLock<Vec<(Regex, &str)>> =
    LazyLock::new(|| PATTERNS.iter().filter_map(|(pattern, with)| Some((Regex::new(pattern).ok()?, *with))).collect());

/// A name whose value is a secret, up to where the value begins: `name = `, `"name": `, `name=`, also as Debug shows them.
static NAME: LazyLock<Option<Regex>> = LazyLock::new(|| {
    Regex::new(concat!(
        r#"(?i)[a-z0-9_.\-]*(?:token|secret|passwo?r?d|passphrase|pwd|credential|api[_\-]?key|private[_\-]?key|"#,
        r#"signing[_\-]?key|enrolment[_\-]?code|join[_\-]?url|watch[_\-]?url|hls[_\-]?url|ufrag)[a-z0-9_\-]*"#,
        r#"\\*["']?\s*(?:=>|=|:)\s*(?:Some\()?"#,
    ))
    .ok()
});

/// A value: in quotes (escaped ones too, and those that never close or are cut off within an escape), or up to what ends a word.
static VALUE: LazyLock<Option<Regex>> = LazyLock::new(|| {
    Regex::new(concat!(
        r#"(?s)\A(?:\\+"(?:[^"\\]|\\[^"])*(?:\\*"|\\*\z)|"(?:[^"\\]|\\.)*(?:"|\\?\z)|"#,
        r#"'[^']*(?:'|\z)|[^\s,;&"'{}()]+)"#,
    ))
    .ok()
});

/// A box's token, and whatever else is as long: 64 hex digits that are not said to be a checksum.
static HEX: LazyLock<Option<Regex>> =
    LazyLock::new(|| Regex::new(r#"(?i)(sha256["']?\s*[:=]\s*["']?)?\b[0-9a-f]{64}\b"#).ok());

/// Takes secrets out. Cheap to clone; all clones know the same values.
#[derive(Clone, Default)]
pub struct Redactor {
    known: Arc<RwLock<Vec<String>>>,
}

impl std::fmt::Debug for Redactor {
    /// Without what it knows.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Redactor")
    }
}

impl Redactor {
    /// Takes note of a secret, which is found wherever it stands from now on, also with its JSON escapes and
    /// percent-encoded. One shorter than six bytes is left to names and patterns.
    pub fn learn(&self, secret: &str) {
        let secret = secret.trim();
        if secret.len() < LEARN_FROM {
            return;
        }
        let escaped = Value::from(secret).to_string();
        let encoded: String = secret.bytes().map(encoded).collect();
        let mut known = self.known.write().unwrap_or_else(std::sync::PoisonError::into_inner);
        for form in [secret, escaped.trim_matches('"'), encoded.as_str()] {
            if form.len() >= LEARN_FROM && !known.iter().any(|old| old == form) {
                known.push(form.to_owned());
            }
        }
        // A value that holds another one goes first, so that nothing of it is left.
        known.sort_by_key(|value| std::cmp::Reverse(value.len()));
    }

    /// The text without what is secret in it.
    pub fn text<'a>(&self, text: &'a str) -> Cow<'a, str> {
        let mut clean = Cow::Borrowed(text);
        {
            let known = self.known.read().unwrap_or_else(std::sync::PoisonError::into_inner);
            for secret in known.iter().filter(|secret| text.contains(secret.as_str())) {
                clean = Cow::Owned(clean.replace(secret.as_str(), GONE));
            }
        }
        for (rule, with) in RULES.iter() {
            if let Cow::Owned(cleaner) = rule.replace_all(&clean, *with) {
                clean = Cow::Owned(cleaner);
            }
        }
        if let Some(cleaner) = without_named(&clean) {
            clean = Cow::Owned(cleaner);
        }
        let Some(hex) = &*HEX else { return clean };
        if let Cow::Owned(cleaner) = hex.replace_all(&clean, |found: &Captures<'_>| match found.get(1) {
            Some(_) => found[0].to_owned(),
            None => GONE.to_owned(),
        }) {
            clean = Cow::Owned(cleaner);
        }
        clean
    }

    /// A document without what is secret in it, by the names of its fields and in its texts, keys included.
    pub fn json(&self, value: &mut Value) {
        match value {
            Value::String(text) => {
                if let Cow::Owned(clean) = self.text(text) {
                    *text = clean;
                }
            }
            Value::Array(items) => items.iter_mut().for_each(|item| self.json(item)),
            Value::Object(fields) => {
                let before = std::mem::take(fields);
                for (name, mut field) in before {
                    if is_secret_name(&name) {
                        if !field.is_null() {
                            field = Value::from(GONE);
                        }
                    } else {
                        self.json(&mut field);
                    }
                    fields.insert(self.text(&name).into_owned(), field);
                }
            }
            Value::Null | Value::Bool(_) | Value::Number(_) => {}
        }
    }
}

/// The text without the values behind secret names; none when there are no such names. Each name is looked at, also one that
/// stands where another one's value does.
fn without_named(text: &str) -> Option<String> {
    let (name, value) = (NAME.as_ref()?, VALUE.as_ref()?);
    let mut gone: Vec<std::ops::Range<usize>> = Vec::new();
    let mut from = 0;
    while let Some(found) = name.find_at(text, from) {
        from = found.end();
        let Some(value) = value.find(&text[from..]) else { continue };
        let range = from..from + value.end();
        match gone.last_mut() {
            Some(last) if range.start <= last.end => last.end = last.end.max(range.end),
            _ => gone.push(range),
        }
    }
    let mut clean = text.to_owned();
    for range in gone.iter().rev() {
        clean.replace_range(range.clone(), GONE);
    }
    (!gone.is_empty()).then_some(clean)
}

/// Whether the value of a field of this name is a secret. The path of a file that holds one is none, nor is its lifetime.
pub fn is_secret_name(name: &str) -> bool {
    let plain: String = name.chars().filter(char::is_ascii_alphanumeric).collect::<String>().to_ascii_lowercase();
    let about = ["file", "path", "type", "ttl", "seconds", "id", "at"].iter().any(|end| plain.ends_with(end));
    !about && NAMES.iter().any(|part| plain.contains(part))
}

fn encoded(byte: u8) -> String {
    match byte {
        byte if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) => char::from(byte).to_string(),
        byte => format!("%{byte:02X}"),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    const MARK: &str = "Qm4rk3r0fS3cr3cy";

    fn cleaned(text: &str) -> String {
        Redactor::default().text(text).into_owned()
    }

    #[test]
    fn every_rule_can_be_read() {
        assert_eq!(RULES.len(), PATTERNS.len());
        assert!(HEX.is_some() && NAME.is_some() && VALUE.is_some());
    }

    #[test]
    fn a_secret_goes_by_the_name_before_it_whatever_the_notation() {
        for text in [
            format!("password={MARK}"),
            format!("token = \"{MARK} with more\" rest"),
            format!("{{\"password\": \"{MARK}\", \"n\": 1}}"),
            format!("{{\"crew_password\":\"a\\\"{MARK}\"}}"),
            format!("{{\\\"turn_secret\\\":\\\"{MARK}\\\"}}"),
            format!("Settings {{ crew_password: Some(\"{MARK}\"), name: 1 }}"),
            format!("http://box/guest_join?seat=guest1&token={MARK}&x=1"),
            format!("credential: '{MARK}'"),
            format!("apiKey: {MARK}, next"),
            format!("X-Device-Token: {MARK} {MARK}"),
            format!("Authorization: Digest username={MARK}, realm={MARK}"),
            format!("\"authorization\": \"{MARK}\""),
            format!("sent Bearer {MARK}."),
            format!("password= token: \"{MARK}\""),
            format!("secret=turn_secret={MARK}"),
            format!("device_token\": \"{MARK} \\"),
            format!("token=\"a\\\n{MARK}\""),
        ] {
            let clean = cleaned(&text);
            assert!(!clean.contains(MARK), "{text} became {clean}");
            assert!(clean.contains(GONE), "{clean}");
        }
    }

    #[test]
    fn a_secret_goes_by_its_look() {
        let token = "0123456789abcdef".repeat(4);
        for (text, secret) in [
            (format!("rtsp://user:{MARK}@camera/stream failed"), MARK),
            (format!("rtsp://user:p@ss/{MARK}@camera/stream failed"), MARK),
            (format!("see https://fleet/join/01J.box#{MARK}"), MARK),
            (format!("got eyJhbGciOiJIUzI1NiJ9.{MARK}.x"), MARK),
            (format!("-----BEGIN PRIVATE KEY-----\n{MARK}\n"), MARK),
            (format!("offer v=0\r\no=- 1 1 IN IP4 0.0.0.0\r\na=x:{MARK}\r\n"), MARK),
            (format!("offer \"v=0\\r\\no=- 1 1 IN IP4 0.0.0.0\\r\\na=x:{MARK}\""), MARK),
            (format!("a=ice-pwd:{MARK}"), MARK),
            (format!("it is {token}!"), token.as_str()),
        ] {
            let clean = cleaned(&text);
            assert!(!clean.contains(secret), "{text} became {clean}");
        }
        assert!(cleaned("rtsp://u:p@camera/stream failed").ends_with("@camera/stream failed"), "the host stays");
    }

    #[test]
    fn what_is_no_secret_stays() {
        for text in [
            "a mix to quad took 500 ms",
            "http://127.0.0.1:8180/api/v1/devices",
            "the token is not valid any more",
            "command 01JABCDEFGHJKMNPQRSTVWXYZ0 begins",
        ] {
            assert_eq!(cleaned(text), text);
        }
        let sum = format!("sha256: {}", "ab".repeat(32));
        assert_eq!(cleaned(&sum), sum);
    }

    #[test]
    fn a_document_loses_its_secrets_by_name_and_by_look() {
        let mut document = json!({
            "device": {"crew_password": MARK, "inputs": [{"source": {"url": format!("rtsp://a:{MARK}@cam/1")}}]},
            "token_file": "/etc/r58/token", "expires_at": 3, "turn": {"secret": {"deep": MARK}}, "password": null,
            format!("k {MARK}"): 1,
        });
        let redactor = Redactor::default();
        redactor.learn(MARK);
        redactor.json(&mut document);
        assert!(!document.to_string().contains(MARK), "{document}");
        assert_eq!(document["token_file"], "/etc/r58/token");
        assert_eq!(document["password"], Value::Null, "that there is none is worth knowing");
        assert_eq!(document["device"]["inputs"][0]["source"]["url"], "rtsp://[redacted]@cam/1");
    }

    #[test]
    fn a_learnt_secret_is_found_in_each_of_its_forms() {
        let redactor = Redactor::default();
        let secret = "p\"ss w/rd ä";
        redactor.learn(secret);
        redactor.learn("abc");
        let json = json!({ "note": secret }).to_string();
        for text in [secret.to_owned(), json, "see p%22ss%20w%2Frd%20%C3%A4 there".to_owned()] {
            let clean = redactor.text(&text);
            assert!(!clean.contains("w/rd") && !clean.contains("w%2Frd"), "{clean}");
        }
        assert_eq!(redactor.text("abc"), "abc", "too short to be told from a word");
    }

    proptest! {
        #[test]
        fn a_learnt_secret_never_leaks_whatever_stands_around_it(before in ".{0,40}", secret in "[!-~]{6,40}", after in ".{0,40}") {
            let redactor = Redactor::default();
            redactor.learn(&secret);
            let text = format!("{before}{secret}{after}");
            let clean = redactor.text(&text);
            // What the stand-in is made of may hold a very plain secret.
            prop_assume!(!GONE.contains(&secret) && !SDP_GONE.contains(&secret));
            prop_assert!(!clean.contains(&secret), "{clean}");
        }

        #[test]
        fn a_value_behind_a_secret_name_never_leaks(
            before in "[^\"'\\\\]{0,30}",
            name in "(device_token|crew_password|turn_secret|credential|api_key)",
            joint in "(=| = |: |\": \"|=\")",
            after in "([\",&; ][ -~]{0,30})?",
        ) {
            let text = format!("{before} {name}{joint}{MARK}{after}");
            let clean = cleaned(&text);
            prop_assert!(!clean.contains(MARK), "{text} became {clean}");
        }

        #[test]
        fn cleaning_twice_is_cleaning_once_and_never_panics(text in "(?s).{0,200}") {
            let once = cleaned(&text);
            prop_assert_eq!(cleaned(&once), once);
        }
    }
}
