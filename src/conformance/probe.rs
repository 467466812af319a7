//! A client that does exactly what it is told, and the words in which answers are judged.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use reqwest::header::{CONTENT_TYPE, HeaderMap, IF_MATCH};
use reqwest::{Client, Method, RequestBuilder, Response, Url};
use serde_json::Value;
use tokio::net::UdpSocket;

use super::Check;

pub(super) const SDP: &str = "application/sdp";
pub(super) const FRAGMENT: &str = "application/trickle-ice-sdpfrag";
/// The password of every client here, by the client's user fragment; nobody connects.
pub(super) const PASSWORD: &str = "abcdefghijklmnopqrstuvwx";
/// The user fragment of [`offer`].
pub(super) const UFRAG: &str = "abcd";
/// Nothing that is waited for here takes this long unless it is broken.
const PATIENCE: Duration = Duration::from_secs(10);

/// Where to knock, and with what.
#[derive(Clone)]
pub struct Probe {
    http: Client,
    pub(super) base: Url,
    seat: String,
    token: String,
    crew: Option<String>,
}

/// A session that was made here.
pub struct Session {
    /// Its address.
    pub url: Url,
    /// Its entity tag, with quotes; empty when there was none.
    pub tag: String,
    /// The answer.
    pub answer: String,
    /// The `Location`, as sent.
    pub location: String,
    /// The `Link` headers.
    pub links: Vec<String>,
}

/// An offer of sound and picture, `sendonly`, `recvonly`, `sendrecv` or `inactive`, without candidates and with nothing
/// behind it.
pub fn offer(direction: &str) -> String {
    let fingerprint: Vec<String> = (0..32).map(|n| format!("{n:02X}")).collect();
    let section = |kind: &str, mid: u8, format: u8, codec: &str| {
        format!(
            "m={kind} 9 UDP/TLS/RTP/SAVPF {format}\r\nc=IN IP4 0.0.0.0\r\na=mid:{mid}\r\na=ice-ufrag:{UFRAG}\r\n\
             a=ice-pwd:{PASSWORD}\r\na=fingerprint:sha-256 {}\r\na=setup:actpass\r\na={direction}\r\na=rtcp-mux\r\n\
             a=rtcp-mux-only\r\na=ssrc:{} cname:probe\r\na=rtpmap:{format} {codec}\r\n",
            fingerprint.join(":"),
            1000 + u32::from(mid),
        )
    };
    format!(
        "v=0\r\no=- 58 2 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\na=group:BUNDLE 0 1\r\na=ice-options:trickle\r\n{}{}\
         a=fmtp:102 level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=42e01f\r\n",
        section("audio", 0, 111, "opus/48000/2"),
        section("video", 1, 102, "H264/90000"),
    )
}

/// A fragment of this ICE session, with these lines in its first section.
pub(super) fn fragment(ufrag: &str, lines: &[String]) -> String {
    let lines: String = lines.iter().map(|line| format!("{line}\r\n")).collect();
    format!("a=ice-ufrag:{ufrag}\r\na=ice-pwd:{PASSWORD}\r\nm=audio 9 UDP/TLS/RTP/SAVPF 111\r\na=mid:0\r\n{lines}")
}

impl Probe {
    /// A probe of the server at `base` by a seat and its token; `crew` is the password of whoever may watch.
    ///
    /// # Errors
    /// An address that is none.
    pub fn new(base: &str, seat: &str, token: &str, crew: Option<&str>) -> Result<Self, String> {
        let http = Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .timeout(PATIENCE)
            .pool_max_idle_per_host(0)
            .build()
            .map_err(|error| error.to_string())?;
        Ok(Self {
            http,
            base: Url::parse(base).map_err(|error| format!("{base}: {error}"))?,
            seat: seat.into(),
            token: token.into(),
            crew: crew.map(str::to_owned),
        })
    }

    /// A path of the server.
    pub(super) fn at(&self, path: &str) -> Result<Url, String> {
        self.base.join(path).map_err(|error| error.to_string())
    }

    pub(super) fn endpoint(&self) -> Result<Url, String> {
        self.at(&format!("/whip/{}", self.seat))
    }

    pub(super) fn seat(&self) -> &str {
        &self.seat
    }

    pub(super) fn bare(&self, method: &str, url: Url) -> RequestBuilder {
        self.http.request(Method::from_bytes(method.as_bytes()).unwrap_or_default(), url)
    }

    /// A request with the right to do it.
    pub(super) fn request(&self, method: &str, url: Url) -> RequestBuilder {
        let request = self.bare(method, url.clone());
        match &self.crew {
            _ if url.path().starts_with("/whip/") => request.bearer_auth(&self.token),
            Some(password) => request.basic_auth("crew", Some(password)),
            None => request,
        }
    }

    pub(super) fn post(&self, offer: String) -> Result<RequestBuilder, String> {
        Ok(self.request("POST", self.endpoint()?).header(CONTENT_TYPE, SDP).body(offer))
    }

    pub(super) fn patch(&self, session: &Session, if_match: Option<&str>, body: String) -> RequestBuilder {
        let request = self.request("PATCH", session.url.clone()).header(CONTENT_TYPE, FRAGMENT).body(body);
        match if_match {
            Some(tag) => request.header(IF_MATCH, tag),
            None => request,
        }
    }

    /// Makes a session at the endpoint of the seat.
    ///
    /// # Errors
    /// What was answered instead.
    pub async fn join(&self, offer: String) -> Result<Session, String> {
        self.join_at(self.endpoint()?, offer).await
    }

    /// Makes a session; comes back as often as the server asks, within reason.
    pub(super) async fn join_at(&self, url: Url, offer: String) -> Result<Session, String> {
        let order = || self.request("POST", url.clone()).header(CONTENT_TYPE, SDP).body(offer.clone());
        let answer = self.patiently(order).await?;
        let answer = expect(answer, &[201], "an offer").await?;
        let text = |name| header(answer.headers(), name);
        let location = text("location");
        let links = answer.headers().get_all("link").iter().filter_map(|link| link.to_str().ok());
        Ok(Session {
            url: url.join(&location).map_err(|error| format!("Location {location:?}: {error}"))?,
            tag: text("etag"),
            links: links.map(str::to_owned).collect(),
            location,
            answer: answer.text().await.map_err(|error| error.to_string())?,
        })
    }

    /// Sends a request, and again when the server asks for patience.
    pub(super) async fn patiently(&self, request: impl Fn() -> RequestBuilder) -> Result<Response, String> {
        let begun = Instant::now();
        loop {
            let answer = sent(request()).await?;
            let wait = header(answer.headers(), "retry-after").parse::<u64>();
            match (answer.status().as_u16(), wait) {
                (409 | 503, Ok(wait)) if begun.elapsed() < PATIENCE => {
                    tokio::time::sleep(Duration::from_secs(wait.min(5))).await;
                }
                _ => return Ok(answer),
            }
        }
    }

    /// Begins a new ICE session, and answers its tag and its fragment.
    ///
    /// # Errors
    /// What was answered instead.
    pub async fn restart(&self, session: &Session, if_match: &str, body: String) -> Result<(String, String), String> {
        let answer = self.patiently(|| self.patch(session, Some(if_match), body.clone())).await?;
        let answer = expect(answer, &[200], "a restart").await?;
        let (tag, kind) = (header(answer.headers(), "etag"), header(answer.headers(), "content-type"));
        ensure(kind.starts_with(FRAGMENT), || format!("a restart is answered with {kind:?}"))?;
        Ok((tag, answer.text().await.map_err(|error| error.to_string())?))
    }

    /// Whether a session is known to the server: an empty change of it is refused in different ways.
    ///
    /// # Errors
    /// No answer.
    pub async fn is_known(&self, url: &str) -> Result<bool, String> {
        let url = Url::parse(url).map_err(|error| error.to_string())?;
        let request = self.request("PATCH", url).header(CONTENT_TYPE, FRAGMENT).header(IF_MATCH, "\"none\"");
        Ok(sent(request.body(fragment(UFRAG, &[]))).await?.status().as_u16() != 404)
    }

    /// Ends a session, whatever came of it.
    pub async fn leave(&self, session: &Session) {
        let _ = self.request("DELETE", session.url.clone()).send().await;
    }

    /// Does something with a session and ends it.
    pub(super) async fn within(&self, offer: String, work: impl AsyncFnOnce(&Session) -> Check) -> Check {
        self.within_at(self.endpoint()?, offer, work).await
    }

    pub(super) async fn within_at(&self, url: Url, offer: String, work: impl AsyncFnOnce(&Session) -> Check) -> Check {
        let session = self.join_at(url, offer).await?;
        let done = work(&session).await;
        self.leave(&session).await;
        done
    }

    /// A UDP socket that the server can reach, to be named as a candidate.
    pub(super) async fn witness(&self) -> Result<Witness, String> {
        let io = |error: std::io::Error| error.to_string();
        let host = self.base.host_str().unwrap_or_default().trim_matches(['[', ']']);
        let port = self.base.port_or_known_default().unwrap_or(80);
        let server =
            tokio::net::lookup_host((host, port)).await.map_err(io)?.next().ok_or("the server has no address")?;
        let any = if server.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
        // Connecting a datagram socket sends nothing; it only says which of our addresses leads there.
        let route = UdpSocket::bind(any).await.map_err(io)?;
        route.connect(server).await.map_err(io)?;
        let own = route.local_addr().map_err(io)?.ip();
        let socket = UdpSocket::bind((own, 0)).await.map_err(io)?;
        let address = socket.local_addr().map_err(io)?;
        Ok(Witness { socket, address })
    }
}

/// Sees the connectivity checks that are sent to it.
pub(super) struct Witness {
    socket: UdpSocket,
    pub(super) address: SocketAddr,
}

impl Witness {
    pub(super) fn candidate(&self) -> String {
        format!("a=candidate:1 1 udp 2130706431 {} {} typ host", self.address.ip(), self.address.port())
    }

    /// Waits for a check of the ICE session that the client calls `ufrag` (RFC 8445, section 7.2.2: `USERNAME` is the other
    /// end's fragment, a colon, one's own).
    pub(super) async fn is_checked(&self, ufrag: &str, within: Duration) -> bool {
        let mut packet = [0u8; 1500];
        let wanted = format!("{ufrag}:");
        let seen = async {
            loop {
                let Ok((length, _)) = self.socket.recv_from(&mut packet).await else { continue };
                let packet = &packet[..length];
                // A STUN binding request: type 1, and the magic cookie (RFC 8489, section 5).
                let is_request = packet.len() > 20 && packet[..2] == [0, 1] && packet[4..8] == [0x21, 0x12, 0xa4, 0x42];
                if is_request && packet.windows(wanted.len()).any(|window| window == wanted.as_bytes()) {
                    return;
                }
            }
        };
        tokio::time::timeout(within, seen).await.is_ok()
    }

    pub(super) async fn expects_checks(&self, ufrag: &str) -> Check {
        let seen = self.is_checked(ufrag, PATIENCE).await;
        ensure(seen, || format!("no connectivity check came to {}", self.address))
    }
}

pub(super) async fn sent(request: RequestBuilder) -> Result<Response, String> {
    request.send().await.map_err(|error| format!("no answer: {error}"))
}

pub(super) fn ensure(right: bool, fault: impl FnOnce() -> String) -> Check {
    if right { Ok(()) } else { Err(fault()) }
}

/// The answer, if its status is one of these.
pub(super) async fn expect(answer: Response, statuses: &[u16], what: &str) -> Result<Response, String> {
    let status = answer.status().as_u16();
    if statuses.contains(&status) {
        return Ok(answer);
    }
    let text = answer.text().await.unwrap_or_default();
    let text: String = text.chars().take(200).collect();
    Err(format!("{what} is answered {status} in place of {statuses:?}: {text}"))
}

/// Sends and expects a problem document (RFC 9457) with one of these statuses; its headers.
pub(super) async fn refused(request: RequestBuilder, statuses: &[u16], what: &str) -> Result<HeaderMap, String> {
    let answer = expect(sent(request).await?, statuses, what).await?;
    let (status, kind) = (answer.status().as_u16(), header(answer.headers(), "content-type"));
    ensure(kind == "application/problem+json", || format!("{what}: the {status} is {kind:?}"))?;
    let headers = answer.headers().clone();
    let body: Value = answer.json().await.map_err(|error| format!("{what}: {error}"))?;
    ensure(body["status"] == status && body["title"].is_string(), || format!("{what}: {body}"))?;
    Ok(headers)
}

/// A header as text; empty when it is not there.
pub(super) fn header(headers: &HeaderMap, name: &str) -> String {
    headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned()
}
