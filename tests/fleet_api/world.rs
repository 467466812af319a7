//! A running fleet server and its callers.

use std::path::Path;

use r58::fleet::auth::password;
use r58::fleet::store::{Actor, NewUser};
use r58::fleet::switchboard::BridgePlan;
use r58::fleet::{self, AccessPlan, BrokerPlan, FleetHandle, FleetPlan, RetainedPlan, TurnPlan};
use reqwest::{Client, Method, Response};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::postgres::Postgres;

/// Everybody's password.
pub const PASSWORD: &str = "a good password";

/// A server with its directory and its description.
pub struct World {
    pub handle: FleetHandle,
    dir: TempDir,
    pub http: Client,
    pub admin: String,
    description: Value,
}

/// What came back.
pub struct Answer {
    pub status: u16,
    pub body: Value,
    pub headers: reqwest::header::HeaderMap,
}

impl Answer {
    /// A text of the body.
    pub fn text(&self, name: &str) -> String {
        self.body[name].as_str().unwrap_or_else(|| panic!("no text {name} in {}", self.body)).to_owned()
    }

    /// The body, if the status is the expected one.
    #[track_caller]
    pub fn expect(self, status: u16) -> Self {
        assert_eq!(self.status, status, "{}", self.body);
        self
    }
}

pub fn plan(state_dir: &Path) -> FleetPlan {
    FleetPlan {
        listen: ([127, 0, 0, 1], 0).into(),
        tls: None,
        public_url: None,
        database_url: None,
        trusted_proxies: Default::default(),
        database_password: None,
        retention: r58::fleet::store::retention::RetentionPlan::default(),
        keys_dir: None,
        state_dir: state_dir.to_owned(),
        broker: BrokerPlan::Embedded {
            listen: ([127, 0, 0, 1], 0).into(),
            tls: None,
            public_url: None,
            retained: RetainedPlan::default(),
        },
        turn: TurnPlan::default(),
        access: AccessPlan { admin_password: Some(PASSWORD.into()), ..AccessPlan::default() },
        bridge: BridgePlan::default(),
        bundles: Default::default(),
        alerts: Default::default(),
        home_assistant: Vec::new(),
    }
}

impl World {
    pub async fn new() -> Self {
        Self::with(|_| {}).await
    }

    /// A server of a changed plan.
    pub async fn with(change: impl FnOnce(&mut FleetPlan)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut plan = plan(dir.path());
        if std::env::var("R58_TEST_DATABASE").is_ok_and(|engine| engine == "postgres") {
            plan.database_url = Some(Postgres::shared().await.database().await);
        }
        change(&mut plan);
        let handle = fleet::start(plan).await.unwrap();
        let http = Client::builder().build().unwrap();
        let url = format!("http://{}/openapi.json", handle.addr);
        let description = http.get(url).send().await.unwrap().json().await.unwrap();
        let mut world = Self { handle, dir, http, admin: String::new(), description };
        world.admin = world.sign_in("admin@r58.local").await;
        world
    }

    /// Stops the server and removes its directory.
    pub async fn end(self) {
        self.handle.stop().await;
    }

    /// A file of the server's state directory.
    pub fn state_file(&self, name: &str) -> std::path::PathBuf {
        self.dir.path().join(name)
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.handle.addr)
    }

    /// An access token.
    pub async fn sign_in(&self, email: &str) -> String {
        let body = json!({"email": email, "password": PASSWORD});
        self.call(Method::POST, "/api/v1/auth/login", "", Some(body)).await.expect(200).text("access_token")
    }

    /// A user of an organization, signed in; made past the API, so that a test can begin with any.
    pub async fn user(&self, org: &str, role: &str) -> String {
        let (store, now) = (self.handle.store(), chrono::Utc::now());
        store.ensure_organization(org, org, now).await.unwrap();
        let email = format!("{role}@{org}.example");
        let user = NewUser {
            id: ulid::Ulid::new().to_string(),
            email: email.clone(),
            name: role.into(),
            role: role.into(),
            password_hash: password::hash(PASSWORD.into()).await.unwrap(),
        };
        store.create_user(&Actor::server(org), user, now).await.unwrap();
        self.sign_in(&email).await
    }

    /// A device, enrolled with a code of `admin`; answers with its registration.
    pub async fn enrol(&self, admin: &str, id: &str) -> Value {
        let code = self.call(Method::POST, "/api/v1/enrolment-codes", admin, Some(json!({}))).await.expect(201);
        let body = registration(&code.text("code"), id);
        self.call(Method::POST, "/api/v1/devices/register", "", Some(body)).await.expect(201).body
    }

    pub async fn get(&self, path: &str, token: &str) -> Answer {
        self.call(Method::GET, path, token, None).await
    }

    pub async fn post(&self, path: &str, token: &str, body: Value) -> Answer {
        self.call(Method::POST, path, token, Some(body)).await
    }

    /// A request, its answer checked against the description.
    pub async fn call(&self, method: Method, path: &str, token: &str, body: Option<Value>) -> Answer {
        let mut request = self.http.request(method.clone(), self.url(path));
        if !token.is_empty() {
            request = request.bearer_auth(token);
        }
        if let Some(body) = body {
            request = request.json(&body);
        }
        let response = request.send().await.unwrap();
        self.read(&method, path, response).await
    }

    /// Reads an answer and checks it against the description.
    pub async fn read(&self, method: &Method, path: &str, response: Response) -> Answer {
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        let media = headers.get("content-type").and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned();
        let bytes = response.bytes().await.unwrap();
        let body = serde_json::from_slice(&bytes).unwrap_or(Value::Null);
        assert!(status != 429 || headers.contains_key("retry-after"), "{method} {path}: when to come again?");
        self.check_described(method, path, status, &media, &body);
        Answer { status, body, headers }
    }

    #[track_caller]
    fn check_described(&self, method: &Method, path: &str, status: u16, media: &str, body: &Value) {
        // HEAD answers without a body (RFC 9110, section 9.3.2).
        if status >= 400 && *method != Method::HEAD {
            assert!(
                media.starts_with("application/problem+json"),
                "{method} {path}: {status} came as {media:?}: {body}"
            );
            assert_eq!(body["status"], status, "{body}");
            for member in ["type", "title", "detail"] {
                assert!(body[member].is_string(), "{member} in {body}");
            }
        }
        let path = path.split('?').next().unwrap();
        let Some((template, item)) = self.described(path) else {
            assert_eq!(status, 404, "{method} {path} is not described and was served");
            return;
        };
        let operation = &item[method.as_str().to_lowercase()];
        if operation.is_null() {
            assert_eq!(status, 405, "{method} {template} is not described and was served");
            return;
        }
        assert!(
            !operation["responses"][status.to_string()].is_null(),
            "{method} {template}: {status} is not described"
        );
    }

    fn described(&self, path: &str) -> Option<(&str, &Value)> {
        let paths = self.description["paths"].as_object()?;
        let fits = |template: &str| {
            let (a, b): (Vec<_>, Vec<_>) = (template.split('/').collect(), path.split('/').collect());
            a.len() == b.len() && a.iter().zip(&b).all(|(a, b)| a == b || (a.starts_with('{') && !b.is_empty()))
        };
        // A literal path wins over a template.
        let mut found: Vec<_> = paths.iter().filter(|(template, _)| fits(template)).collect();
        found.sort_by_key(|(template, _)| template.matches('{').count());
        found.first().map(|(template, item)| (template.as_str(), *item))
    }

    /// Every described operation: its method in capitals and its path as described.
    pub fn templates(&self) -> Vec<(String, String)> {
        let paths = self.description["paths"].as_object().unwrap();
        let methods = |(path, item): (&String, &Value)| {
            let all: Vec<_> =
                item.as_object().unwrap().keys().map(|method| (method.to_uppercase(), path.clone())).collect();
            all
        };
        paths.iter().flat_map(methods).filter(|(method, _)| method != "PARAMETERS").collect()
    }

    /// Every described operation: method, path with `{id}` filled in, and its answers.
    pub fn operations(&self, id: &str) -> Vec<(Method, String, Value)> {
        let mut all = Vec::new();
        for (template, item) in self.description["paths"].as_object().unwrap() {
            for (method, operation) in item.as_object().unwrap() {
                if let Ok(method) = method.to_uppercase().parse::<Method>() {
                    let path = template
                        .replace("{id}", id)
                        .replace("{name}", "programme")
                        .replace("{ver}", "1")
                        .replace("{v}", "1.0.0");
                    all.push((method, path, operation.clone()));
                }
            }
        }
        all
    }
}

pub fn registration(code: &str, id: &str) -> Value {
    json!({"enrolment_code": code, "device_id": id, "name": format!("Box {id}"), "platform": "linux",
        "arch": "aarch64", "serial_number": "s-1", "current_version": "0.1.0", "capabilities": {"inputs": 4}})
}
