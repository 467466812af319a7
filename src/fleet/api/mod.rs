//! The REST interface under `/api/v1`, one file a resource, and what stands beside it.
//!
//! | file | paths |
//! |---|---|
//! | `auth` | /api/v1/auth/... |
//! | `organizations` | /api/v1/organizations... |
//! | `users` | /api/v1/users... |
//! | `api_keys` | /api/v1/api-keys... |
//! | `alerts`, `alert_rules`, `silences` | /api/v1/alerts..., /api/v1/alert-rules..., /api/v1/silences... |
//! | `alert_receivers` | /api/v1/alert-receivers... |
//! | `enrolment` | /api/v1/enrolment-codes..., /api/v1/devices/register |
//! | `devices` | /api/v1/devices, .../summary, .../states, .../bulk, /api/v1/devices/{id}, .../rotate-token, .../token |
//! | `heartbeats` | /api/v1/devices/{id}/heartbeats, .../metrics |
//! | `dry_run` | /api/v1/devices/{id}/commands/dry-run, /api/v1/command-groups/dry-run |
//! | `by_http` | /api/v1/devices/{id}/heartbeat, and what devices do with `commands` |
//! | `command_groups` | /api/v1/command-groups... |
//! | `commands` | /api/v1/devices/{id}/commands, /api/v1/commands/{id}... |
//! | `config` | /api/v1/devices/{id}/config... |
//! | `releases` | /api/v1/releases..., /api/v1/release-keys... |
//! | `rollouts` | /api/v1/rollouts... |
//! | `invitations` | /api/v1/devices/{id}/invitations..., /api/v1/devices/{id}/guests... |
//! | `join` | /join/{invitation}, and /whip and /guest of it, carried to the box |
//! | `bundles` | /api/v1/devices/{id}/bundles, /api/v1/bundles/{id}, .../download |
//! | `bundle_upload` | /api/v1/bundles/{id}/upload, for devices |
//! | `audit` | /api/v1/audit, .../export, .../verify |
//! | `logs` | /api/v1/devices/{id}/logs, .../logs/live |
//! | `broker_auth` | /api/v1/broker/auth, for nodes of an rmqttd cluster |
//! | `thumbnails` | /api/v1/devices/{id}/thumbnails/{name} |
//! | `events` | /api/v1/events |
//! | `whep` | /whep/{device}/{name}, carried to the box |
//! | `bridge` | /unit/{id} and /control/{id}, WebSockets of older units and controllers |
//! | `metrics` | /metrics |
//! | `public` | /health, /turn-credentials, /openapi.json |
//! | `pages` | everything else that is a page |

pub mod alert_receivers;
pub mod alert_rules;
pub mod alerts;
pub mod api_keys;
pub mod audit;
pub mod auth;
pub mod bridge;
pub mod broker_auth;
pub mod bundle_upload;
pub mod bundles;
pub mod by_http;
pub mod command_groups;
pub mod commands;
pub mod config;
pub mod devices;
pub mod dry_run;
pub mod enrolment;
pub mod events;
pub mod gate;
pub mod heartbeats;
pub mod idempotency;
pub mod input;
pub mod invitations;
pub mod join;
pub mod logs;
pub mod metrics;
pub mod openapi;
pub mod organizations;
pub mod pages;
pub mod paging;
pub mod problem;
pub mod public;
pub mod releases;
pub mod rollouts;
pub mod silences;
pub mod thumbnails;
pub mod users;
pub mod whep;

use actix_web::http::StatusCode;
use actix_web::{Resource, web};

use crate::problem::{Problem, extractors, no_such_path};

/// Largest body of any request, in bytes.
const BODY_LIMIT: usize = crate::problem::JSON_LIMIT;

/// Everything this server answers to.
pub fn configure(config: &mut web::ServiceConfig) {
    extractors(config);
    config.app_data(web::PayloadConfig::new(BODY_LIMIT));
    config.service(
        web::scope("/api/v1")
            .configure(auth::configure)
            .configure(organizations::configure)
            .configure(users::configure)
            .configure(api_keys::configure)
            .configure(alerts::configure)
            .configure(alert_rules::configure)
            .configure(alert_receivers::configure)
            .configure(silences::configure)
            .configure(enrolment::configure)
            .configure(broker_auth::configure)
            .configure(heartbeats::configure)
            .configure(by_http::configure)
            .configure(dry_run::configure)
            .configure(command_groups::configure)
            .configure(commands::configure)
            .configure(self::config::configure)
            .configure(releases::configure)
            .configure(rollouts::configure)
            .configure(invitations::configure)
            .configure(bundles::configure)
            .configure(bundle_upload::configure)
            .configure(logs::configure)
            .configure(audit::configure)
            .configure(thumbnails::configure)
            .configure(events::configure)
            .configure(devices::configure)
            .default_service(web::to(no_such_path)),
    );
    config
        .configure(join::configure)
        .configure(whep::configure)
        .configure(bridge::configure)
        .configure(metrics::configure)
        .configure(public::configure)
        .configure(pages::configure);
    config.default_service(web::to(no_such_path));
}

/// A path with the methods that it answers to; all others are 405 with `Allow` (RFC 9110, section 15.5.6).
fn resource(path: &str, allow: &'static str) -> Resource {
    web::resource(path).default_service(web::to(move || async move {
        let problem = Problem::new(StatusCode::METHOD_NOT_ALLOWED, format!("this path answers to {allow}"));
        Err::<actix_web::HttpResponse, _>(problem.header("Allow", allow))
    }))
}
