//! What is asked of the SFU and what it says: Cloudflare's HTTPS API v1 as paths and JSON. Pure.
//!
//! Nothing that comes back is believed before it is read here: an id that could change a path is no id, an error may stand at the
//! top of a reply or beside one of its tracks although the status is 200, and an SDP counts by its type, never by a flag.

use std::time::Duration;

use serde::Deserialize;
use serde_json::{Value, json};

/// Codes of tracks that are not there yet, and may be soon.
const NOT_YET: [&str; 2] = ["not_found_track_error", "empty_track_error"];
/// The code of a track that cannot be closed because it is.
const CLOSED_ALREADY: &str = "close_track_error";
/// Longest words of the other side that are passed on, in characters.
const WORDS_MAX: usize = 120;
/// Longest pause that a `Retry-After` may ask for.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(30);

/// A track that a session publishes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LocalTrack {
    /// Its section in the publisher's offer; means nothing in any other session.
    pub mid: String,
    /// What the box calls it: `audio` or `video`.
    pub name: String,
}

/// A track of another session: found by its publisher and its name, never by a `mid`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RemoteTrack {
    /// The session that publishes it.
    pub publisher: String,
    /// What it is called there.
    pub name: String,
}

/// One request.
#[derive(Clone, PartialEq, Eq)]
pub enum Ask {
    /// A session.
    NewSession,
    /// Publish by this offer.
    Push {
        /// In which session.
        session: String,
        /// The publisher's offer, letter by letter.
        offer: String,
        /// A name for each of its sections.
        tracks: Vec<LocalTrack>,
    },
    /// Offer these tracks to the session.
    Pull {
        /// The session that wants them.
        session: String,
        /// Which.
        tracks: Vec<RemoteTrack>,
    },
    /// The answer to the offer of a pull.
    Answer {
        /// The session that pulled.
        session: String,
        /// Its SDP.
        answer: String,
    },
    /// End tracks without another offer.
    Close {
        /// Of which session.
        session: String,
        /// Their sections there.
        mids: Vec<String>,
    },
    /// How are its tracks?
    Look {
        /// Which session.
        session: String,
    },
}

/// How a request is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verb {
    /// GET
    Get,
    /// POST
    Post,
    /// PUT
    Put,
}

/// Offer or answer.
#[derive(Clone, PartialEq, Eq)]
pub struct Description {
    /// Whether it is an offer, and wants an answer.
    pub is_offer: bool,
    /// Letter by letter: a missing last line end makes it invalid.
    pub sdp: String,
}

impl std::fmt::Debug for Description {
    /// Without the SDP: it holds addresses and passwords.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(if self.is_offer { "Offer" } else { "Answer" })
    }
}

/// What is wrong with one track of a reply that is fine otherwise.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TrackFault {
    /// It has no media yet, or is not known yet.
    NotYet,
    /// It will not do.
    Refused(String),
}

/// One track of a reply.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TrackReply {
    /// Its section in the session that was asked.
    pub mid: Option<String>,
    /// Its name.
    pub name: Option<String>,
    /// Whether media flow.
    pub active: bool,
    /// What is wrong with it.
    pub fault: Option<TrackFault>,
}

/// What came of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    /// To `NewSession`: its id.
    Session(String),
    /// To `Push`, `Pull`, `Look`.
    Tracks {
        /// An answer to a push, an offer to a pull; it may be missing.
        description: Option<Description>,
        /// Each track.
        tracks: Vec<TrackReply>,
    },
    /// To `Answer` and `Close`.
    Done,
}

/// Why nothing came of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Failure {
    /// The app's secret cannot be read.
    NoSecret,
    /// It never left.
    Unreachable,
    /// It left, and no answer came: it may have been carried out.
    Lost,
    /// 401, 403, or an app that does not exist.
    Denied(u16),
    /// 406: the session is busy with another change.
    Overlap,
    /// 425: the session is not connected yet.
    NotConnected,
    /// 404, 410: the session is gone.
    Gone,
    /// 429, with what it said about when.
    Busy(Option<Duration>),
    /// 5xx.
    Down(u16),
    /// Anything else, with the code it gave.
    Refused(String),
    /// A 2xx that is not what it should be.
    Unreadable(&'static str),
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawReply {
    session_id: Option<String>,
    session_description: Option<RawDescription>,
    #[serde(default)]
    tracks: Vec<RawTrack>,
    error_code: Option<String>,
}

#[derive(Deserialize)]
struct RawDescription {
    r#type: String,
    sdp: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawTrack {
    mid: Option<String>,
    track_name: Option<String>,
    status: Option<String>,
    error_code: Option<String>,
}

impl Ask {
    /// What it is, for the log.
    pub fn name(&self) -> &'static str {
        match self {
            Self::NewSession => "a session",
            Self::Push { .. } => "the guest's offer",
            Self::Pull { .. } => "the guest's tracks",
            Self::Answer { .. } => "the answer",
            Self::Close { .. } => "to close tracks",
            Self::Look { .. } => "a look at a session",
        }
    }

    /// How it is sent.
    pub fn verb(&self) -> Verb {
        match self {
            Self::NewSession | Self::Push { .. } | Self::Pull { .. } => Verb::Post,
            Self::Answer { .. } | Self::Close { .. } => Verb::Put,
            Self::Look { .. } => Verb::Get,
        }
    }

    /// Where, below the app.
    pub fn path(&self) -> String {
        match self {
            Self::NewSession => "/sessions/new".to_owned(),
            Self::Push { session, .. } | Self::Pull { session, .. } => format!("/sessions/{session}/tracks/new"),
            Self::Answer { session, .. } => format!("/sessions/{session}/renegotiate"),
            Self::Close { session, .. } => format!("/sessions/{session}/tracks/close"),
            Self::Look { session } => format!("/sessions/{session}"),
        }
    }

    /// With what; `None` is no body at all, which is what a new session wants: `{}` is refused.
    pub fn body(&self) -> Option<Value> {
        match self {
            Self::NewSession | Self::Look { .. } => None,
            Self::Push { offer, tracks, .. } => {
                let track =
                    |track: &LocalTrack| json!({ "location": "local", "mid": track.mid, "trackName": track.name });
                Some(json!({
                    "sessionDescription": { "type": "offer", "sdp": offer },
                    "tracks": tracks.iter().map(track).collect::<Vec<_>>(),
                }))
            }
            Self::Pull { tracks, .. } => {
                let track = |track: &RemoteTrack| json!({ "location": "remote", "sessionId": track.publisher, "trackName": track.name });
                // No description of ours: an offer here would publish, and nothing would be pulled.
                Some(json!({ "tracks": tracks.iter().map(track).collect::<Vec<_>>() }))
            }
            Self::Answer { answer, .. } => Some(json!({ "sessionDescription": { "type": "answer", "sdp": answer } })),
            Self::Close { mids, .. } => {
                let tracks: Vec<Value> = mids.iter().map(|mid| json!({ "mid": mid })).collect();
                Some(json!({ "tracks": tracks, "force": true }))
            }
        }
    }

    /// Reads the answer.
    ///
    /// # Errors
    /// What it means when it is not the one that was hoped for.
    pub fn read(&self, status: u16, retry_after: Option<Duration>, body: &[u8]) -> Result<Reply, Failure> {
        let closed = matches!(self, Self::Close { .. });
        match status {
            200..=299 => {}
            404 | 410 if closed => return Ok(Reply::Done),
            404 | 410 if *self == Self::NewSession => return Err(Failure::Denied(status)),
            401 | 403 => return Err(Failure::Denied(status)),
            404 | 410 => return Err(Failure::Gone),
            406 => return Err(Failure::Overlap),
            425 => return Err(Failure::NotConnected),
            429 => return Err(Failure::Busy(retry_after.map(|wait| wait.min(RETRY_AFTER_MAX)))),
            500.. => return Err(Failure::Down(status)),
            _ => {
                let code = serde_json::from_slice::<RawReply>(body).ok().and_then(|reply| reply.error_code);
                return match code {
                    Some(code) if closed && code == CLOSED_ALREADY => Ok(Reply::Done),
                    Some(code) => Err(Failure::Refused(plain(&code))),
                    None => Err(Failure::Refused(format!("status {status}"))),
                };
            }
        }
        let raw: RawReply =
            serde_json::from_slice(body).map_err(|_| Failure::Unreadable("it is not JSON of its API"))?;
        if let Some(code) = raw.error_code {
            return if closed { Ok(Reply::Done) } else { Err(Failure::Refused(plain(&code))) };
        }
        match self {
            Self::NewSession => {
                let id = raw.session_id.filter(|id| is_id(id));
                id.map(Reply::Session).ok_or(Failure::Unreadable("a new session has no proper id"))
            }
            Self::Answer { .. } | Self::Close { .. } => Ok(Reply::Done),
            Self::Push { .. } | Self::Pull { .. } | Self::Look { .. } => {
                let description = raw.session_description.map(description).transpose()?;
                Ok(Reply::Tracks { description, tracks: raw.tracks.into_iter().take(64).map(track).collect() })
            }
        }
    }
}

impl std::fmt::Debug for Ask {
    /// Without SDP: it holds addresses and passwords.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?} {}", self.verb(), self.path())
    }
}

fn description(raw: RawDescription) -> Result<Description, Failure> {
    let is_offer = match raw.r#type.as_str() {
        "offer" => true,
        "answer" => false,
        _ => return Err(Failure::Unreadable("a description is neither offer nor answer")),
    };
    Ok(Description { is_offer, sdp: raw.sdp })
}

fn track(raw: RawTrack) -> TrackReply {
    let fault = raw.error_code.map(|code| match NOT_YET.contains(&code.as_str()) {
        true => TrackFault::NotYet,
        false => TrackFault::Refused(plain(&code)),
    });
    // A reply that does not tell may be of a track that is fine: the pull will say.
    let active = raw.status.as_deref().is_none_or(|status| status == "active");
    TrackReply { mid: raw.mid.filter(|mid| is_id(mid)), name: raw.track_name, active, fault }
}

/// Ids go into paths.
fn is_id(text: &str) -> bool {
    (1..=128).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
}

/// The other side's words, fit for a line of log and an answer.
fn plain(words: &str) -> String {
    words.chars().filter(|c| !c.is_control()).take(WORDS_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn push() -> Ask {
        let tracks = vec![LocalTrack { mid: "0".into(), name: "audio".into() }];
        Ask::Push { session: "P".into(), offer: "v=0\r\n".into(), tracks }
    }

    fn close() -> Ask {
        Ask::Close { session: "P".into(), mids: vec!["0".into()] }
    }

    #[test]
    fn a_new_session_has_no_body_and_200_is_as_good_as_201() {
        assert_eq!(Ask::NewSession.body(), None);
        for status in [200, 201] {
            assert_eq!(Ask::NewSession.read(status, None, br#"{"sessionId":"ab"}"#), Ok(Reply::Session("ab".into())));
        }
    }

    #[test]
    fn a_session_id_that_could_change_a_path_is_none() {
        for id in ["", "../x", "a/b", "a?b", "a b", &"x".repeat(129)] {
            let body = json!({ "sessionId": id }).to_string();
            assert!(matches!(Ask::NewSession.read(201, None, body.as_bytes()), Err(Failure::Unreadable(_))), "{id}");
        }
    }

    #[test]
    fn sdp_goes_and_comes_letter_by_letter() {
        let body = push().body().unwrap();
        assert_eq!(body["sessionDescription"]["sdp"], "v=0\r\n");
        let reply = br#"{"sessionDescription":{"type":"answer","sdp":"v=0\r\n\r\n"},"tracks":[]}"#;
        let Ok(Reply::Tracks { description, .. }) = push().read(200, None, reply) else { panic!("no tracks") };
        assert_eq!(description.unwrap().sdp, "v=0\r\n\r\n");
    }

    #[test]
    fn a_pull_names_publisher_and_track_and_has_neither_mid_nor_description() {
        let tracks = vec![RemoteTrack { publisher: "P".into(), name: "video".into() }];
        let body = Ask::Pull { session: "S".into(), tracks }.body().unwrap();
        assert_eq!(body, json!({ "tracks": [{ "location": "remote", "sessionId": "P", "trackName": "video" }] }));
    }

    #[test]
    fn an_error_may_stand_at_the_top_or_at_one_track_of_a_200() {
        let top = push().read(200, None, br#"{"errorCode":"invalid_session_description","errorDescription":"x"}"#);
        assert_eq!(top, Err(Failure::Refused("invalid_session_description".into())));
        let reply = br#"{"tracks":[{"mid":"1","trackName":"video"},
            {"trackName":"audio","errorCode":"empty_track_error"},{"trackName":"x","errorCode":"odd\r\nerror"}]}"#;
        let Ok(Reply::Tracks { tracks, description }) = push().read(200, None, reply) else { panic!("no tracks") };
        assert_eq!(description, None);
        let faults: Vec<_> = tracks.into_iter().map(|track| track.fault).collect();
        assert_eq!(faults, [None, Some(TrackFault::NotYet), Some(TrackFault::Refused("odderror".into()))]);
    }

    #[test]
    fn each_status_has_its_meaning() {
        let said = |ask: &Ask, status| ask.read(status, Some(Duration::from_secs(90)), b"<html>");
        let pull = Ask::Pull { session: "S".into(), tracks: Vec::new() };
        assert_eq!(said(&pull, 406), Err(Failure::Overlap));
        assert_eq!(said(&pull, 425), Err(Failure::NotConnected));
        assert_eq!(said(&pull, 410), Err(Failure::Gone));
        assert_eq!(said(&pull, 429), Err(Failure::Busy(Some(Duration::from_secs(30)))));
        assert_eq!(said(&pull, 502), Err(Failure::Down(502)));
        assert_eq!(said(&pull, 401), Err(Failure::Denied(401)));
        assert_eq!(said(&pull, 400), Err(Failure::Refused("status 400".into())));
        assert!(matches!(said(&pull, 200), Err(Failure::Unreadable(_))));
        assert_eq!(said(&Ask::NewSession, 404), Err(Failure::Denied(404)), "an app that does not exist");
    }

    #[test]
    fn what_is_gone_already_counts_as_closed() {
        for status in [404, 410] {
            assert_eq!(close().read(status, None, b""), Ok(Reply::Done));
        }
        assert_eq!(close().read(400, None, br#"{"errorCode":"close_track_error"}"#), Ok(Reply::Done));
        let item = br#"{"tracks":[{"mid":"0","errorCode":"close_track_error"}]}"#;
        assert_eq!(close().read(200, None, item), Ok(Reply::Done));
        assert_eq!(close().body().unwrap()["force"], true);
    }

    #[test]
    fn no_description_is_ever_printed() {
        let text = format!("{:?} {:?}", push(), Description { is_offer: true, sdp: "a=ice-pwd:secret".into() });
        assert!(!text.contains("v=0") && !text.contains("secret"), "{text}");
    }
}
