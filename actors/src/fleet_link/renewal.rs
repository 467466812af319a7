//! Another token for the box, asked for by the box itself when the fleet tells it to (`rotate_token`).
//!
//! The token travels in the answer to a request that shows the present one, so that no command and no broker ever
//! holds it. The present one stays good until the new one is used: an answer that is lost, or a power cut before the
//! identity is on disk, costs nothing but asking again.

use std::path::PathBuf;

use reqwest::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};

use super::identity::{Identity, Secret, save};
use super::operations::Refusal;
use super::trust::Trust;
use crate::turn::providers::http_builder;

/// As the fleet makes them: 64 hex digits.
const TOKEN_CHARS: usize = 64;

/// Who the box is, and where that is written.
#[derive(Clone)]
pub(super) struct Renewal {
    pub state_dir: PathBuf,
    pub identity: Identity,
    pub trust: Trust,
}

#[derive(Deserialize)]
struct Answer {
    device_id: String,
    token: String,
}

impl Renewal {
    /// Asks for a token and writes it down. The link has to sign in anew afterwards.
    pub async fn renew(self) -> Result<Value, Refusal> {
        let away = |what: &str| Refusal::failed("fleet", format!("the fleet did not give a token: {what}"));
        let http = self.trust.believe(http_builder()).map_err(|error| away(&error))?;
        let http = http.build().map_err(|_| away("TLS cannot be set up"))?;
        let Identity { fleet_url, device_id, token, .. } = &self.identity;
        let url = format!("{}/api/v1/devices/{device_id}/token", fleet_url.trim_end_matches('/'));
        let asked = http.post(url).header("X-Device-Id", device_id).header("X-Device-Token", token.expose()).send();
        let answer = asked.await.map_err(|_| away("no connection"))?;
        if answer.status() != StatusCode::OK {
            return Err(away(&format!("status {}", answer.status().as_u16())));
        }
        let answer: Answer = answer.json().await.map_err(|_| away("its answer cannot be read"))?;
        let hex = answer.token.bytes().all(|byte| byte.is_ascii_hexdigit());
        if answer.device_id != *device_id || answer.token.len() != TOKEN_CHARS || !hex {
            return Err(away("its answer is for somebody else, or no token"));
        }
        let identity = Identity { token: Secret::new(answer.token), ..self.identity };
        let written = tokio::task::spawn_blocking(move || save(&self.state_dir, &identity)).await;
        match written {
            Ok(Ok(())) => Ok(json!({"renewed": true})),
            Ok(Err(error)) => Err(Refusal::failed("disk", error.to_string())),
            Err(_) => Err(Refusal::failed("disk", "writing the identity failed")),
        }
    }
}
