//! The HTTP side: requests with a token that is renewed once when it has expired.

use std::path::PathBuf;
use std::time::Duration;

use reqwest::{Method, RequestBuilder, Response, StatusCode};
use serde_json::{Value, json};

use super::session::{self, Kept};
use crate::certificates;

/// A request has this long; live updates have no end.
const TIMEOUT: Duration = Duration::from_secs(30);
/// A connection has this long.
const CONNECT: Duration = Duration::from_secs(5);
/// Pages read of one list, at most: 200,000 items.
const MAX_PAGES: u32 = 1_000;

/// Why a command did not do its work.
#[derive(Debug, thiserror::Error)]
pub enum CtlError {
    /// The command line cannot be followed.
    #[error("{0}")]
    Usage(String),
    /// The server does not answer.
    #[error("{0}")]
    Unreachable(String),
    /// No session, or not allowed.
    #[error("{0}")]
    NotSignedIn(String),
    /// The server said no.
    #[error("{0}")]
    Refused(String),
}

impl CtlError {
    /// The process's exit code.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Refused(_) => 1,
            Self::Usage(_) => 2,
            Self::Unreachable(_) => 3,
            Self::NotSignedIn(_) => 4,
        }
    }
}

/// Whom the command line believes besides the system's authorities, and what it shows.
#[derive(Debug, Default)]
pub struct Files {
    /// File of authorities in PEM.
    pub ca: Option<PathBuf>,
    /// Files of a certificate and its key.
    pub shown: Option<(PathBuf, PathBuf)>,
}

/// A fleet server as a signed-in user sees it.
pub struct Client {
    http: reqwest::Client,
    url: String,
    tokens: Option<Kept>,
    /// Renewed tokens are kept on disk.
    kept: bool,
}

impl Client {
    /// For the server at `url`.
    ///
    /// # Errors
    /// When the address is not one, or a file is not what it should be.
    pub fn new(url: &str, files: &Files) -> Result<Self, CtlError> {
        let url = url.trim_end_matches('/').to_owned();
        if !url.starts_with("http://") && !url.starts_with("https://") {
            return Err(CtlError::Usage(format!("{url} is not an http:// or https:// address")));
        }
        let shown = files.shown.as_ref().map(|(cert, key)| (cert.as_path(), key.as_path()));
        let http = certificates::client::prepare(reqwest::Client::builder(), files.ca.as_deref(), shown)
            .map_err(|error| CtlError::Usage(format!("{error:#}")))?
            .connect_timeout(CONNECT)
            .redirect(reqwest::redirect::Policy::none())
            .user_agent(concat!("r58-ctl/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|error| CtlError::Usage(error.to_string()))?;
        Ok(Self { http, url, tokens: None, kept: false })
    }

    /// Uses an access token as it is.
    pub fn use_token(&mut self, token: String) {
        self.tokens = Some(Kept { access_token: token, refresh_token: String::new() });
    }

    /// Uses the kept session.
    ///
    /// # Errors
    /// When there is none.
    pub fn take_up_session(&mut self) -> Result<(), CtlError> {
        self.tokens = session::load(&self.url)?;
        self.kept = true;
        match self.tokens {
            Some(_) => Ok(()),
            None => {
                let url = &self.url;
                Err(CtlError::NotSignedIn(format!("not signed in at {url}; run `r58 ctl login --url {url}` first")))
            }
        }
    }

    /// Signs in.
    ///
    /// # Errors
    /// When the server refuses or does not answer.
    pub async fn sign_in(&mut self, email: &str, password: &str) -> Result<(), CtlError> {
        let body = json!({"email": email, "password": password});
        let answer = read(self.raw(Method::POST, "/auth/login", Some(&body)).await?).await?;
        self.take_tokens(&answer)
    }

    fn take_tokens(&mut self, answer: &Value) -> Result<(), CtlError> {
        let word = |name: &str| answer.get(name).and_then(Value::as_str).map(str::to_owned);
        let (Some(access_token), Some(refresh_token)) = (word("access_token"), word("refresh_token")) else {
            return Err(CtlError::Refused("the server's answer holds no tokens; is it a fleet server?".into()));
        };
        self.tokens = Some(Kept { access_token, refresh_token });
        Ok(())
    }

    /// Keeps the session on disk.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn keep_session(&mut self) -> Result<(), CtlError> {
        self.kept = true;
        session::store(&self.url, self.tokens.as_ref())
    }

    /// Ends the session here and at the server.
    ///
    /// # Errors
    /// When the file cannot be written or the server does not answer; it is forgotten here in any case.
    pub async fn sign_out(&mut self) -> Result<(), CtlError> {
        session::store(&self.url, None)?;
        if let Some(tokens) = self.tokens.take().filter(|tokens| !tokens.refresh_token.is_empty()) {
            let body = json!({"refresh_token": tokens.refresh_token});
            self.raw(Method::POST, "/auth/logout", Some(&body)).await?;
        }
        Ok(())
    }

    /// Reads a document under `/api/v1`.
    ///
    /// # Errors
    /// When the server refuses or does not answer.
    pub async fn get(&mut self, path: &str) -> Result<Value, CtlError> {
        read(self.signed_in(Method::GET, path, None).await?).await
    }

    /// What the server says of itself to anybody.
    ///
    /// # Errors
    /// When it is not well or does not answer.
    pub async fn health(&self) -> Result<Value, CtlError> {
        read(self.send(self.http.get(format!("{}/health", self.url)).timeout(TIMEOUT)).await?).await
    }

    /// Posts a document under `/api/v1`.
    ///
    /// # Errors
    /// When the server refuses or does not answer.
    pub async fn post(&mut self, path: &str, body: &Value) -> Result<Value, CtlError> {
        read(self.signed_in(Method::POST, path, Some(body)).await?).await
    }

    /// Changes a document under `/api/v1`.
    ///
    /// # Errors
    /// When the server refuses or does not answer.
    pub async fn patch(&mut self, path: &str, body: &Value) -> Result<Value, CtlError> {
        read(self.signed_in(Method::PATCH, path, Some(body)).await?).await
    }

    /// Sets a whole document under `/api/v1`.
    ///
    /// # Errors
    /// When the server refuses or does not answer.
    pub async fn put(&mut self, path: &str, body: &Value) -> Result<Value, CtlError> {
        read(self.signed_in(Method::PUT, path, Some(body)).await?).await
    }

    /// Reads something under `/api/v1` that is no document.
    ///
    /// # Errors
    /// When the server refuses, does not answer, or breaks off.
    pub async fn bytes(&mut self, path: &str) -> Result<Vec<u8>, CtlError> {
        let response = self.stream(path).await?;
        let whole = response.bytes().await.map_err(|_| CtlError::Unreachable("the answer was cut off".into()))?;
        Ok(whole.to_vec())
    }

    /// Deletes something under `/api/v1`.
    ///
    /// # Errors
    /// When the server refuses or does not answer.
    pub async fn delete(&mut self, path: &str) -> Result<Value, CtlError> {
        read(self.signed_in(Method::DELETE, path, None).await?).await
    }

    /// Opens a stream of live updates.
    ///
    /// # Errors
    /// When the server refuses or does not answer.
    pub async fn stream(&mut self, path: &str) -> Result<Response, CtlError> {
        let response = self.signed_in(Method::GET, path, None).await?;
        if response.status().is_success() { Ok(response) } else { Err(refusal(response).await) }
    }

    /// Every item of a list, page by page.
    ///
    /// # Errors
    /// When the server refuses or does not answer.
    pub async fn all(&mut self, path: &str, query: &[(&str, Option<String>)]) -> Result<Vec<Value>, CtlError> {
        let mut items = Vec::new();
        for page in 1..=MAX_PAGES {
            let mut full = format!("{path}?page={page}&page_size=200");
            for (name, value) in query {
                if let Some(value) = value {
                    full.push_str(&format!("&{name}={}", super::segment(value)));
                }
            }
            let mut answer = self.get(&full).await?;
            if let Some(Value::Array(page)) = answer.get_mut("items").map(Value::take) {
                items.extend(page);
            }
            if answer.get("has_more") != Some(&Value::Bool(true)) {
                break;
            }
        }
        Ok(items)
    }

    async fn signed_in(&mut self, method: Method, path: &str, body: Option<&Value>) -> Result<Response, CtlError> {
        let response = self.raw(method.clone(), path, body).await?;
        let refresh = self.tokens.as_ref().map(|tokens| tokens.refresh_token.clone()).unwrap_or_default();
        if response.status() != StatusCode::UNAUTHORIZED || refresh.is_empty() {
            return Ok(response);
        }
        let renewed = self.raw(Method::POST, "/auth/refresh", Some(&json!({"refresh_token": refresh}))).await?;
        if !renewed.status().is_success() {
            if self.kept {
                session::store(&self.url, None)?;
            }
            return Err(CtlError::NotSignedIn("the session has ended; run `r58 ctl login` again".into()));
        }
        let answer = read(renewed).await?;
        self.take_tokens(&answer)?;
        if self.kept {
            session::store(&self.url, self.tokens.as_ref())?;
        }
        self.raw(method, path, body).await
    }

    async fn raw(&self, method: Method, path: &str, body: Option<&Value>) -> Result<Response, CtlError> {
        let mut request = self.http.request(method, format!("{}/api/v1{path}", self.url));
        // Only a stream may stay open.
        let is_stream = path == "/events"
            || path.contains("/logs/live")
            || ["/download", "/audit/export"].iter().any(|end| path.ends_with(end));
        if !is_stream {
            request = request.timeout(TIMEOUT);
        }
        if let Some(tokens) = self.tokens.as_ref().filter(|_| !path.starts_with("/auth/refresh")) {
            request = request.bearer_auth(&tokens.access_token);
        }
        if let Some(body) = body {
            request = request.json(body);
        }
        self.send(request).await
    }

    async fn send(&self, request: RequestBuilder) -> Result<Response, CtlError> {
        request.send().await.map_err(|error| {
            let reason = match error.is_timeout() {
                true => "it does not answer in time",
                false if is_about_certificates(&error) => {
                    "its certificate is not believed (--ca-file names a private authority)"
                }
                false => "no connection",
            };
            CtlError::Unreachable(format!("cannot reach the fleet server at {}: {reason}", self.url))
        })
    }
}

/// Whether a server was reached and not believed.
fn is_about_certificates(error: &reqwest::Error) -> bool {
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        if error.to_string().contains("invalid peer certificate") {
            return true;
        }
        cause = error.source();
    }
    false
}

async fn read(response: Response) -> Result<Value, CtlError> {
    if !response.status().is_success() {
        return Err(refusal(response).await);
    }
    if response.status() == StatusCode::NO_CONTENT {
        return Ok(Value::Null);
    }
    response.json().await.map_err(|_| CtlError::Refused("the answer is not JSON; is it a fleet server?".into()))
}

async fn refusal(response: Response) -> CtlError {
    let status = response.status();
    let problem: Option<Value> = response.json().await.ok();
    let detail = problem.as_ref().and_then(|problem| problem.get("detail")).and_then(Value::as_str);
    let text = detail.map_or_else(|| format!("the server answers {status}"), str::to_owned);
    match status {
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => CtlError::NotSignedIn(text),
        _ => CtlError::Refused(text),
    }
}
