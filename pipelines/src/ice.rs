//! ICE servers: what a TURN service hands out, and the part of it that each end can use. Pure.
//!
//! Services differ in form: `iceServers` is an object or an array, `urls` a string or an array, credentials may be absent
//! (Cloudflare's newer and older replies, coturn's REST draft, hand-written configuration). All of them are read, one form
//! is written.

use serde::{Deserialize, Deserializer, Serialize};

/// One entry of `iceServers`, as browsers take it.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct IceServer {
    /// `stun:`, `turn:` and `turns:` URLs; a single string is read as a list of one.
    #[serde(default, alias = "url", deserialize_with = "one_or_many")]
    pub urls: Vec<String>,
    /// User name for TURN.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub username: Option<String>,
    /// Password for TURN; a secret.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credential: Option<String>,
}

impl std::fmt::Debug for IceServer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let credential = self.credential.as_ref().map(|_| "***");
        f.debug_struct("IceServer").field("urls", &self.urls).field("credential", &credential).finish_non_exhaustive()
    }
}

impl IceServer {
    /// A STUN server.
    pub fn stun(url: impl Into<String>) -> Self {
        Self { urls: vec![url.into()], ..Self::default() }
    }

    /// A TURN server with its credential.
    pub fn turn(url: impl Into<String>, username: impl Into<String>, credential: impl Into<String>) -> Self {
        Self { urls: vec![url.into()], username: Some(username.into()), credential: Some(credential.into()) }
    }

    fn has_credential(&self) -> bool {
        let filled = |field: &Option<String>| field.as_deref().is_some_and(|text| !text.is_empty());
        filled(&self.username) && filled(&self.credential)
    }
}

/// A list of servers that reads an object, an array or null, and writes an array.
///
/// ```
/// use r58_pipelines::ice::IceServers;
/// let object: IceServers = serde_json::from_str(r#"{"urls":"stun:s.example"}"#).unwrap();
/// let array: IceServers = serde_json::from_str(r#"[{"urls":["stun:s.example"]}]"#).unwrap();
/// assert_eq!(object, array);
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct IceServers(pub Vec<IceServer>);

impl<'de> Deserialize<'de> for IceServers {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        one_or_many(deserializer).map(Self)
    }
}

fn one_or_many<'de, D, T>(deserializer: D) -> Result<Vec<T>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum OneOrMany<T> {
        Many(Vec<T>),
        One(T),
    }
    Ok(match Option::<OneOrMany<T>>::deserialize(deserializer)? {
        None => Vec::new(),
        Some(OneOrMany::One(one)) => vec![one],
        Some(OneOrMany::Many(many)) => many,
    })
}

/// What a URL of a server means (RFC 7064, RFC 7065).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IceUrl {
    /// STUN, or TURN over some transport.
    pub scheme: IceScheme,
    /// Host name or address, without brackets.
    pub host: String,
    /// Port; 3478, or 5349 for the TLS schemes, when the URL names none.
    pub port: u16,
}

/// Service and transport of an [`IceUrl`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IceScheme {
    /// `stun:`
    Stun,
    /// `turn:` over UDP.
    TurnUdp,
    /// `turn:` over TCP.
    TurnTcp,
    /// `turns:`, TLS over TCP; `stuns:` too, which nobody uses.
    Tls,
}

impl IceUrl {
    /// Reads a URL; `None` when it is none of STUN's or TURN's.
    pub fn parse(url: &str) -> Option<Self> {
        let (scheme, rest) = url.trim().split_once(':')?;
        let (address, query) = rest.split_once('?').unwrap_or((rest, ""));
        let transport = query.split('&').find_map(|pair| pair.strip_prefix("transport="));
        let scheme = match (scheme.to_ascii_lowercase().as_str(), transport) {
            ("stun", _) => IceScheme::Stun,
            ("turn", None | Some("udp")) => IceScheme::TurnUdp,
            ("turn", Some("tcp")) => IceScheme::TurnTcp,
            ("turns" | "stuns", None | Some("tcp" | "udp")) => IceScheme::Tls,
            _ => return None,
        };
        let (host, port) = host_port(address)?;
        let port = port.unwrap_or(if scheme == IceScheme::Tls { 5349 } else { 3478 });
        Some(Self { scheme, host, port })
    }

    /// The one spelling that the WebRTC stack is given.
    pub fn to_url(&self) -> String {
        let host = if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() };
        match self.scheme {
            IceScheme::Stun => format!("stun:{host}:{}", self.port),
            IceScheme::TurnUdp => format!("turn:{host}:{}?transport=udp", self.port),
            IceScheme::TurnTcp => format!("turn:{host}:{}?transport=tcp", self.port),
            IceScheme::Tls => format!("turns:{host}:{}?transport=tcp", self.port),
        }
    }
}

fn host_port(address: &str) -> Option<(String, Option<u16>)> {
    let (host, port) = match address.strip_prefix('[') {
        Some(rest) => {
            let (host, tail) = rest.split_once(']')?;
            host.parse::<std::net::Ipv6Addr>().ok()?;
            (host, tail.strip_prefix(':').or(tail.is_empty().then_some(""))?)
        }
        None => address.split_once(':').unwrap_or((address, "")),
    };
    let proper = |c: char| c.is_ascii_alphanumeric() || "-._:".contains(c);
    if host.is_empty() || host.len() > 253 || !host.chars().all(proper) {
        return None;
    }
    let port = match port {
        "" => None,
        text => Some(text.parse::<u16>().ok().filter(|port| *port != 0)?),
    };
    Some((host.to_owned(), port))
}

/// The servers for a browser: without URLs of port 53, which browsers block and then spend seconds on, without URLs that
/// are malformed, and without TURN entries that lack a credential (a browser refuses the whole list for one of those).
pub fn for_browser(servers: &[IceServer]) -> Vec<IceServer> {
    filter(servers, |_| true)
}

/// The servers that the box's own peers can use: STUN and TURN over UDP. The stack has no TURN over TCP or TLS.
pub fn for_peer(servers: &[IceServer]) -> Vec<IceServer> {
    filter(servers, |url| matches!(url.scheme, IceScheme::Stun | IceScheme::TurnUdp))
}

/// Whether a relay can be asked for at all.
pub fn has_turn(servers: &[IceServer]) -> bool {
    for_peer(servers).iter().any(|s| s.urls.iter().any(|u| u.starts_with("turn:")))
}

fn filter(servers: &[IceServer], keep: impl Fn(&IceUrl) -> bool) -> Vec<IceServer> {
    let mut kept = Vec::new();
    for server in servers {
        let usable =
            |url: &IceUrl| url.port != 53 && keep(url) && (url.scheme == IceScheme::Stun || server.has_credential());
        let mut urls: Vec<String> = Vec::new();
        for url in server.urls.iter().filter_map(|u| IceUrl::parse(u)).filter(usable) {
            let text = url.to_url();
            if !urls.contains(&text) {
                urls.push(text);
            }
        }
        if !urls.is_empty() {
            kept.push(IceServer { urls, ..server.clone() });
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(json: &str) -> IceServers {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn object_and_array_urls_as_string_or_list_and_missing_credentials_are_all_read() {
        let cloudflare = read(
            r#"[{"urls":["stun:s.example:3478"]},{"urls":["turn:t.example:3478?transport=udp"],"username":"u","credential":"c"}]"#,
        );
        assert_eq!(cloudflare.0.len(), 2);
        assert_eq!(cloudflare.0[0].username, None);
        let older = read(r#"{"urls":["turn:t.example:3478?transport=udp"],"username":"u","credential":"c"}"#);
        assert_eq!(older.0[0], cloudflare.0[1]);
        assert_eq!(read(r#"{"urls":"stun:s.example"}"#).0[0].urls, ["stun:s.example"]);
        assert_eq!(read("null").0, []);
    }

    #[test]
    fn a_guest_gets_no_port_53_and_no_turn_without_a_credential() {
        let servers = [
            IceServer {
                urls: [
                    "stun:s.example:53",
                    "turn:t.example:53?transport=udp",
                    "turn:t.example:3478?transport=udp",
                    "turns:t.example:443?transport=tcp",
                ]
                .map(str::to_owned)
                .to_vec(),
                username: Some("u".into()),
                credential: Some("c".into()),
            },
            IceServer::stun("turn:open.example:3478"),
        ];
        let kept = for_browser(&servers);
        assert_eq!(kept.len(), 1);
        assert_eq!(kept[0].urls, ["turn:t.example:3478?transport=udp", "turns:t.example:443?transport=tcp"]);
    }

    #[test]
    fn the_peer_gets_stun_and_turn_over_udp_only() {
        let servers = [IceServer {
            urls: ["stun:s.example", "turn:t.example", "turn:t.example?transport=tcp", "turns:t.example", "http://x"]
                .map(str::to_owned)
                .to_vec(),
            username: Some("u".into()),
            credential: Some("c".into()),
        }];
        assert_eq!(for_peer(&servers)[0].urls, ["stun:s.example:3478", "turn:t.example:3478?transport=udp"]);
        assert!(has_turn(&servers));
        assert!(!has_turn(&[IceServer::stun("stun:s.example")]));
    }

    #[test]
    fn an_address_of_the_sixth_version_keeps_its_brackets() {
        let url = IceUrl::parse("turn:[2001:db8::1]:3479?transport=udp").unwrap();
        assert_eq!((url.host.as_str(), url.port), ("2001:db8::1", 3479));
        assert_eq!(url.to_url(), "turn:[2001:db8::1]:3479?transport=udp");
    }

    #[test]
    fn a_credential_is_never_printed() {
        assert!(!format!("{:?}", IceServer::turn("turn:t.example", "u", "secret")).contains("secret"));
    }

    proptest! {
        #[test]
        fn any_text_is_a_url_or_not_and_never_a_panic(text in ".{0,80}") {
            if let Some(url) = IceUrl::parse(&text) {
                prop_assert_eq!(IceUrl::parse(&url.to_url()), Some(url));
            }
        }
    }
}
