//! A box that speaks HTTP alone: what it says and does is the test's own.

use reqwest::Method;
use serde_json::{Value, json};

use super::r58::PATIENCE;
use super::site::Api;
use super::until;

/// A registered box.
pub struct HttpBox<'a> {
    api: &'a Api,
    /// Its id.
    pub id: String,
    token: String,
}

impl<'a> HttpBox<'a> {
    /// Registers it with a code.
    pub async fn register(api: &'a Api, code: &Value, id: &str) -> Self {
        let body = json!({"enrolment_code": code, "device_id": id, "name": id, "platform": "linux", "arch": "aarch64"});
        let made = api.post("/api/v1/devices/register", &body).await;
        Self { api, id: id.to_owned(), token: made["token"].as_str().expect("a token").to_owned() }
    }

    /// A heartbeat: it is there.
    pub async fn beat(&self) {
        let body = json!({"ts": chrono::Utc::now(), "version": "1.0.0", "uptime_seconds": 9, "errors": [],
            "metrics": {"cpu_percent": 12.5, "mem_percent": 40, "disk_free_gb": 30.5, "temperature_c": 45},
            "status": {"recording_active": false, "mixer_active": true, "active_inputs": [], "degradation_level": 0}});
        let path = format!("/api/v1/devices/{}/heartbeat", self.id);
        self.call(Method::POST, &path, Some(&body)).await.expect("an answer");
    }

    /// Waits until it is told of a command, and says what became of it.
    pub async fn does_next(&self, report: &Value) {
        let path = format!("/api/v1/devices/{}/commands", self.id);
        let command = until(PATIENCE, &format!("a command for {}", self.id), || async {
            let told = self.call(Method::GET, &path, None).await?;
            told["items"][0]["id"].as_str().map(str::to_owned).ok_or_else(|| told.to_string())
        })
        .await;
        self.call(Method::PATCH, &format!("/api/v1/commands/{command}"), Some(report)).await.expect("an answer");
    }

    async fn call(&self, method: Method, path: &str, body: Option<&Value>) -> Result<Value, String> {
        let request = self.api.http.request(method, format!("{}{path}", self.api.base));
        let mut request = request.header("X-Device-Id", &self.id).header("X-Device-Token", &self.token);
        if let Some(body) = body {
            request = request.json(body);
        }
        let answer = request.send().await.map_err(|error| error.to_string())?;
        let status = answer.status();
        let body: Value = answer.json().await.map_err(|error| error.to_string())?;
        if status.is_success() { Ok(body) } else { Err(format!("{status}: {body}")) }
    }
}
