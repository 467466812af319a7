//! Requests to a device (`down/request`) and its answers (`up/response/{server}`): an HTTP exchange carried by MQTT 5
//! request/response, so that a box without an open port can be asked something.

use std::fmt;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use super::{Extra, MAX_SMALL_BYTES, VERSION, payload};
use crate::id::{DeviceAddress, DeviceId, Name, OrgId};

/// The largest answer, in bytes.
pub const MAX_RESPONSE_BYTES: usize = 96 * 1024;

/// The methods that are carried.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Method {
    /// Reads.
    Get,
    /// Makes.
    Post,
    /// Changes.
    Patch,
    /// Ends.
    Delete,
}

impl Method {
    /// The word of HTTP.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Post => "POST",
            Self::Patch => "PATCH",
            Self::Delete => "DELETE",
        }
    }
}

/// The body of `down/request`. Its MQTT properties name the response topic and repeat `id` as correlation data.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub struct Request {
    /// Always 1.
    #[serde(default)]
    pub v: u64,
    /// Unique; a repetition of it is the same request and is not carried out again.
    pub id: Name,
    /// For whom.
    pub org: OrgId,
    /// For whom.
    pub device: DeviceId,
    /// When the asker stops waiting; at or after it the request is not carried out.
    pub expires_at: DateTime<Utc>,
    /// What to do.
    pub method: Method,
    /// With what: an absolute path, without scheme, host and query.
    pub path: String,
    /// `Content-Type` of the body.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content_type: Option<String>,
    /// `Authorization`, as the asker's client sent it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub authorization: Option<String>,
    /// `If-Match`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub if_match: Option<String>,
    /// The body; text, as SDP and JSON are.
    #[serde(default)]
    pub body: String,
    /// `sha256:` and the hash of the canonical bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hash: Option<String>,
    /// `ed25519:{kid}:` and the signature.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sig: Option<String>,
    /// Unknown fields.
    #[serde(flatten)]
    pub extra: Extra,
}

payload!(Request, "request", MAX_SMALL_BYTES + 16 * 1024);

impl Request {
    /// An unsigned request without headers and body.
    pub fn new(id: Name, to: &DeviceAddress, method: Method, path: &str, expires_at: DateTime<Utc>) -> Self {
        Self {
            v: VERSION,
            id,
            org: to.org.clone(),
            device: to.device.clone(),
            expires_at,
            method,
            path: path.to_owned(),
            content_type: None,
            authorization: None,
            if_match: None,
            body: String::new(),
            hash: None,
            sig: None,
            extra: Extra::new(),
        }
    }
}

impl fmt::Debug for Request {
    /// Without what is secret: bearer tokens, SDP and what a path may tell of them.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("Request");
        shown.field("id", &self.id).field("method", &self.method).field("body_bytes", &self.body.len());
        shown.finish_non_exhaustive()
    }
}

/// The body of `up/response/{server}`. Its correlation data repeat the request's.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub struct Response {
    /// Always 1.
    #[serde(default)]
    pub v: u64,
    /// The request's id.
    pub id: Name,
    /// HTTP's status, 100 to 599.
    pub status: u16,
    /// Names and values, in order.
    #[serde(default)]
    pub headers: Vec<(String, String)>,
    /// The body.
    #[serde(default)]
    pub body: String,
    /// Unknown fields.
    #[serde(flatten)]
    pub extra: Extra,
}

payload!(Response, "response", MAX_RESPONSE_BYTES);

impl Response {
    /// An answer without headers and body.
    pub fn new(id: Name, status: u16) -> Self {
        Self { v: VERSION, id, status, headers: Vec::new(), body: String::new(), extra: Extra::new() }
    }
}

impl fmt::Debug for Response {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("Response");
        shown.field("id", &self.id).field("status", &self.status).field("body_bytes", &self.body.len());
        shown.finish_non_exhaustive()
    }
}
