//! What the carriers hand over and get back.

use crate::problem::Problem;

/// A request, whichever way it came.
#[derive(Debug, Clone)]
pub struct SignalRequest {
    /// `POST`, `PATCH`, `DELETE`, `OPTIONS`, `GET`, `HEAD`; others are refused.
    pub method: String,
    /// The path, `/whip/{seat}`, `/whep/{name}`, or either with a session after it.
    pub path: String,
    /// The `Content-Type`, as sent.
    pub content_type: Option<String>,
    /// The `Authorization`, as sent.
    pub authorization: Option<String>,
    /// The `If-Match`, as sent.
    pub if_match: Option<String>,
    /// Whom its rate is counted for: an address, or a tenant.
    pub client: String,
    /// Whether the caller may watch; what to answer when not.
    pub crew: Result<(), Problem>,
    /// A viewer's token that did not come in the `Authorization`.
    pub token: Option<String>,
}

/// An answer, for either way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignalResponse {
    /// The HTTP status.
    pub status: u16,
    /// Headers in order; `Link` may come more than once.
    pub headers: Vec<(&'static str, String)>,
    /// The body; empty when there is none.
    pub body: String,
}

impl SignalResponse {
    /// An answer without a body.
    pub fn new(status: u16) -> Self {
        Self { status, headers: Vec::new(), body: String::new() }
    }

    /// Adds a header.
    #[must_use]
    pub fn header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    /// Adds a body with its type.
    #[must_use]
    pub fn body(self, content_type: &str, body: String) -> Self {
        Self { body, ..self.header("Content-Type", content_type) }
    }
}

impl From<Problem> for SignalResponse {
    fn from(problem: Problem) -> Self {
        let mut response = Self::new(problem.status().as_u16());
        for (name, value) in problem.headers() {
            response = response.header(name, value);
        }
        response.body(Problem::MEDIA_TYPE, problem.to_json())
    }
}

/// Whom a path is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Target {
    pub(super) side: Side,
    /// The seat, or what is watched.
    pub(super) name: String,
    pub(super) session: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    Whip,
    Whep,
}

impl Target {
    pub(super) fn parse(path: &str) -> Option<Self> {
        let mut parts = path.strip_prefix('/')?.split('/');
        let side = match parts.next()? {
            "whip" => Side::Whip,
            "whep" => Side::Whep,
            _ => return None,
        };
        let name = decoded(parts.next()?)?;
        let session = parts.next().map(decoded).map(|one| one.ok_or(())).transpose().ok()?;
        parts.next().is_none().then_some(Self { side, name, session })
    }
}

/// Undoes percent-encoding (RFC 3986, section 2.1); `None` for what is empty or no text.
pub fn decoded(part: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(part.len());
    let mut rest = part.as_bytes();
    while let [first, tail @ ..] = rest {
        rest = tail;
        if *first != b'%' {
            bytes.push(*first);
            continue;
        }
        let [high, low, tail @ ..] = rest else { return None };
        let digit = |byte: u8| char::from(byte).to_digit(16);
        bytes.push(u8::try_from(digit(*high)? * 16 + digit(*low)?).ok()?);
        rest = tail;
    }
    String::from_utf8(bytes).ok().filter(|text| !text.is_empty())
}

/// The word after `Bearer`, if any.
pub fn bearer(authorization: Option<&str>) -> Option<String> {
    let (scheme, token) = authorization?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim().to_owned())
}

/// Whether a `Content-Type` is of this type: whatever its case and its parameters.
pub(super) fn is_type(content_type: Option<&str>, wanted: &str) -> bool {
    let essence = content_type.unwrap_or_default().split(';').next().unwrap_or_default().trim();
    essence.eq_ignore_ascii_case(wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_an_endpoint_or_a_session_and_nothing_else() {
        let target = |side, name: &str, session: Option<&str>| {
            Some(Target { side, name: name.into(), session: session.map(str::to_owned) })
        };
        assert_eq!(Target::parse("/whip/guest1"), target(Side::Whip, "guest1", None));
        assert_eq!(Target::parse("/whep/programme/0a"), target(Side::Whep, "programme", Some("0a")));
        assert_eq!(Target::parse("/whip/Caf%C3%A9"), target(Side::Whip, "Café", None));
        for path in
            ["", "/", "/whip", "/whip/", "/whip//x", "/whip/a/", "/whip/a/b/c", "/wish/a", "/whip/%f", "/whip/%ff"]
        {
            assert_eq!(Target::parse(path), None, "{path}");
        }
    }

    #[test]
    fn a_type_matches_in_any_case_and_with_any_parameters() {
        for same in ["application/sdp", "Application/SDP", "application/sdp; charset=utf-8", " application/sdp ;x"] {
            assert!(is_type(Some(same), "application/sdp"), "{same}");
        }
        for other in [None, Some(""), Some("application/sdpx"), Some("text/plain"), Some("; application/sdp")] {
            assert!(!is_type(other, "application/sdp"), "{other:?}");
        }
    }

    #[test]
    fn a_bearer_word_is_found_whatever_its_case() {
        assert_eq!(bearer(Some("bearer  abc")).as_deref(), Some("abc"));
        assert_eq!(bearer(Some("Basic abc")), None);
        assert_eq!(bearer(None), None);
    }
}
