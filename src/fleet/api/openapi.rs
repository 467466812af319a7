//! The API's description, made from the handlers themselves.

use utoipa::openapi::header::HeaderBuilder;
use utoipa::openapi::schema::{ObjectBuilder, Type};
use utoipa::openapi::security::{ApiKey, ApiKeyValue, HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::{Modify, OpenApi};

use super::{
    alert_receivers, alert_rules, alerts, api_keys, audit, auth, broker_auth, bundle_upload, bundles, by_http,
    command_groups, commands, config, devices, dry_run, enrolment, events, heartbeats, invitations, logs, metrics,
    organizations, public, releases, rollouts, silences, thumbnails, users,
};

/// The description.
#[derive(OpenApi)]
#[openapi(
    info(
        title = "R58 fleet",
        description = "Every error is application/problem+json (RFC 9457). A method that a path does not have is answered by 405 with \
            Allow. Beside this, by protocols of their own: WHEP at /whep/{device}/{name}; WHIP and what else a guest needs at \
            /join, /whip, /guest and /api/calls with the name of an invitation; WebSockets at /unit/{id} and /control/{id}."
    ),
    paths(
        auth::login, auth::refresh, auth::logout, auth::me,
        organizations::list, organizations::create, organizations::get, organizations::change,
        users::list, users::create, users::get, users::change, users::delete, users::reset_password,
        api_keys::list, api_keys::create, api_keys::delete,
        alerts::list, alerts::summary, alerts::get, alerts::acknowledge, alerts::unacknowledge, silences::list, silences::create, silences::get,
        silences::end, alert_rules::list, alert_rules::create, alert_rules::get, alert_rules::change, alert_rules::delete,
        alert_receivers::list, alert_receivers::create, alert_receivers::get, alert_receivers::change,
        alert_receivers::delete, alert_receivers::deliveries, alert_receivers::test,
        enrolment::create, enrolment::list, enrolment::delete, enrolment::register,
        devices::list, devices::get, devices::change, devices::decommission,
        devices::bulk::summary, devices::states::states, devices::bulk::change, devices::tokens::rotate, devices::tokens::renew,
        heartbeats::list, heartbeats::metrics,
        by_http::heartbeat, by_http::report,
        command_groups::create, command_groups::list, command_groups::get, command_groups::members,
        command_groups::cancel, dry_run::one, dry_run::many,
        commands::create, commands::list, commands::get, commands::cancel,
        config::get, config::replace, config::change, config::diff, config::rollback, config::versions, config::version,
        releases::keys, releases::create_key, releases::delete_key, releases::list, releases::create, releases::latest,
        releases::get, releases::publish, releases::delete, rollouts::list, rollouts::create, rollouts::get, rollouts::change,
        rollouts::members,
        invitations::create, invitations::list, invitations::revoke, invitations::guests, invitations::order,
        bundles::create, bundles::list, bundles::get, bundles::delete, bundles::download,
        bundle_upload::announce, bundle_upload::state, bundle_upload::append,
        logs::past, logs::live, audit::list, audit::export, audit::verify,
        broker_auth::authenticate, thumbnails::get, events::events, metrics::metrics, public::health, public::turn_credentials,
    ),
    modifiers(&Schemes, &Problems)
)]
pub struct Description;

struct Schemes;

impl Modify for Schemes {
    fn modify(&self, openapi: &mut utoipa::openapi::OpenApi) {
        let components = openapi.components.get_or_insert_default();
        let bearer = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).bearer_format("JWT").build();
        components.add_security_scheme("user", SecurityScheme::Http(bearer));
        let shared = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).build();
        components.add_security_scheme("broker", SecurityScheme::Http(shared));
        let said = "A device's own token. With X-Device-Id it has to be that of the device named there.";
        let token = ApiKey::Header(ApiKeyValue::with_description("X-Device-Token", said));
        components.add_security_scheme("device_token", SecurityScheme::ApiKey(token));
    }
}

struct Problems;

impl Modify for Problems {
    /// Errors have a media type of their own, and those that pass say when to come again; said here once instead of at every
    /// answer. Every path may also fail for reasons that are not its own: a full disk (507), a mistake (500), a foreign page (403).
    fn modify(&self, openapi: &mut utoipa::openapi::OpenApi) {
        for item in openapi.paths.paths.values_mut() {
            let operations =
                [&mut item.get, &mut item.head, &mut item.post, &mut item.put, &mut item.patch, &mut item.delete];
            for operation in operations.into_iter().flatten() {
                let template = operation.responses.responses.get("503").cloned();
                if let Some(problem) = template {
                    for status in ["500", "507", "403"] {
                        operation.responses.responses.entry(status.into()).or_insert_with(|| problem.clone());
                    }
                }
                for (status, response) in &mut operation.responses.responses {
                    let utoipa::openapi::RefOr::T(response) = response else { continue };
                    if !status.starts_with(['4', '5']) {
                        continue;
                    }
                    if ["429", "503", "507"].contains(&status.as_str()) {
                        let seconds = ObjectBuilder::new().schema_type(Type::Integer).minimum(Some(1_isize)).build();
                        let header =
                            HeaderBuilder::new().schema(seconds).description(Some("Seconds to wait, if it is known."));
                        response.headers.insert("Retry-After".into(), header.build());
                    }
                    if let Some(content) = response.content.shift_remove("application/json") {
                        response.content.insert("application/problem+json".into(), content);
                    }
                }
            }
        }
    }
}
