//! The secrets that a box holds, told to the redactor as they come up.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use r58_actors::fleet_link::identity::Identity;
use r58_actors::redact::Redactor;
use r58_actors::turn::IceSnapshot;
use r58_pipelines::input::SourceSpec;
use tokio::sync::watch;

use super::http::SeatLink;
use crate::config::DeviceSettings;

/// Everything that the configuration names or points to.
pub fn learn(redactor: &Redactor, settings: &DeviceSettings, seats: &[SeatLink]) {
    if let Some(password) = &settings.crew_password {
        redactor.learn(password);
        redactor.learn(&STANDARD.encode(format!("crew:{password}")));
    }
    seats.iter().for_each(|seat| redactor.learn(&seat.token));
    if let Some(code) = &settings.link.enrolment_code {
        redactor.learn(code);
    }
    if let Some(secret) = &settings.sfu.secret {
        redactor.learn(secret.expose());
    }
    let files = [
        &settings.turn.cloudflare_token_file,
        &settings.turn.shared_secret_file,
        &settings.sfu.secret_file,
        &settings.link.broker_password_file,
    ];
    for file in files.into_iter().flatten() {
        // One that cannot be read is told by whoever needs it.
        if let Ok(secret) = std::fs::read_to_string(file) {
            redactor.learn(&secret);
        }
    }
    for input in &settings.inputs {
        if let SourceSpec::Rtsp { url, .. } = &input.source {
            learn_user_part(redactor, url);
        }
    }
}

/// User and password of an address.
fn learn_user_part(redactor: &Redactor, url: &str) {
    let user = url.split_once("://").and_then(|(_, rest)| rest.rsplit_once('@')).map(|(user, _)| user);
    if let Some((_, password)) = user.and_then(|user| user.split_once(':')) {
        redactor.learn(password);
    }
}

/// The device's token once it is enrolled, and each TURN credential that is granted.
pub fn follow(
    redactor: Redactor,
    mut identity: watch::Receiver<Option<Identity>>,
    mut ice: watch::Receiver<IceSnapshot>,
) {
    let learner = redactor.clone();
    actix_rt::spawn(async move {
        loop {
            if let Some(identity) = &*identity.borrow_and_update() {
                learner.learn(identity.token.expose());
            }
            if identity.changed().await.is_err() {
                return;
            }
        }
    });
    actix_rt::spawn(async move {
        loop {
            for server in &ice.borrow_and_update().servers {
                if let Some(credential) = &server.credential {
                    redactor.learn(credential);
                }
            }
            if ice.changed().await.is_err() {
                return;
            }
        }
    });
}
