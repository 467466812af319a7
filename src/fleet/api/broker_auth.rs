//! What the nodes of an rmqttd cluster ask before they let a client in (rmqttd's plugin `rmqtt-auth-http`): who it is, and
//! where it may publish and subscribe. One answer a connection; the node then judges each topic by itself.
//!
//! Nodes show a secret that the server shares with them. Passwords of people count towards their lock-out as at the embedded
//! broker; wrong secrets towards that of the address they come from.

use std::future::{Ready, ready};

use actix_web::dev::Payload;
use actix_web::http::header::AUTHORIZATION;
use actix_web::{FromRequest, HttpRequest, HttpResponse, web};
use r58_mqtt::broker::{Authenticate as _, Role, Verdict};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::problem::ProblemBody;
use super::resource;
use crate::fleet::auth::secret;
use crate::fleet::state::Fleet;
use crate::problem::{Answer, Problem};

pub(super) fn configure(config: &mut web::ServiceConfig) {
    config.service(resource("/broker/auth", "POST").route(web::post().to(authenticate)));
}

/// A client that wants to connect.
#[derive(Deserialize, ToSchema)]
pub struct Connecting {
    #[schema(max_length = 256)]
    client_id: String,
    #[schema(max_length = 256)]
    username: String,
    #[schema(max_length = 1024)]
    password: String,
}

/// Whether it may, and what.
#[derive(Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct Judged {
    /// `allow` or `deny`.
    result: &'static str,
    /// Whether no rule holds for it: the server's own clients.
    superuser: bool,
    /// Rules, the first that fits decides.
    acl: Vec<AclRule>,
}

/// One rule.
#[derive(Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct AclRule {
    /// `allow` or `deny`.
    permission: &'static str,
    /// `publish`, `subscribe` or `all`.
    action: &'static str,
    /// Topic filter.
    topic: String,
}

fn rule(permission: &'static str, action: &'static str, topic: String) -> AclRule {
    AclRule { permission, action, topic }
}

/// The embedded broker's rules, in rmqttd's words.
fn judged(verdict: &Verdict) -> Judged {
    let Verdict::Allowed(role) = verdict else {
        return Judged { result: "deny", superuser: false, acl: Vec::new() };
    };
    let mut acl = match role {
        Role::Fleet => return Judged { result: "allow", superuser: true, acl: Vec::new() },
        Role::Device { org, dev } => vec![
            rule("allow", "publish", format!("r58/1/{org}/{dev}/up/#")),
            rule("allow", "subscribe", format!("r58/1/{org}/{dev}/down/#")),
            rule("allow", "subscribe", format!("r58/1/{org}/_g/+/down/#")),
        ],
        Role::Person { org, commands } => {
            let read = rule("allow", "subscribe", format!("r58/1/{org}/#"));
            let write = rule("allow", "publish", format!("r58/1/{org}/+/down/cmd/+"));
            if *commands { vec![read, write] } else { vec![read] }
        }
    };
    acl.push(rule("deny", "all", "#".to_owned()));
    Judged { result: "allow", superuser: false, acl }
}

/// A node that has shown the secret.
pub struct Node;

impl FromRequest for Node {
    type Error = Problem;
    type Future = Ready<Result<Self, Problem>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        ready(known(request))
    }
}

fn known(request: &HttpRequest) -> Result<Node, Problem> {
    let Some(fleet) = request.app_data::<web::Data<Fleet>>() else {
        return Err(Problem::unavailable("the server is starting"));
    };
    let stranger = || Problem::unauthorized("this is not the secret of the broker's nodes");
    let gate = fleet.broker_gate.as_ref().ok_or_else(stranger)?;
    let from = fleet.client(request)?;
    Fleet::check_lockout(&gate.failures, "", from)?;
    let shown = request.headers().get(AUTHORIZATION).and_then(|value| value.to_str().ok());
    let shown = shown.and_then(|value| value.strip_prefix("Bearer ")).unwrap_or_default();
    let good = secret::equal(&secret::hash(shown), &gate.secret_hash);
    Fleet::note_attempt(&gate.failures, "", from, good);
    if good { Ok(Node) } else { Err(stranger()) }
}

/// Says whether a client may connect to the broker, and what it may do there. For nodes of the broker only, by
/// `Authorization: Bearer` and the shared secret.
#[utoipa::path(post, path = "/api/v1/broker/auth", tag = "broker", security(("broker" = [])), request_body = Connecting,
    responses((status = 200, body = Judged), (status = 400, body = ProblemBody), (status = 401, body = ProblemBody),
    (status = 413, body = ProblemBody), (status = 415, body = ProblemBody), (status = 429, body = ProblemBody),
    (status = 503, body = ProblemBody)))]
pub async fn authenticate(_: Node, fleet: web::Data<Fleet>, body: web::Json<Connecting>) -> Answer {
    let Connecting { client_id, username, password } = &*body;
    // Only such a name is one level of a topic.
    let plain = !client_id.is_empty() && !client_id.contains(['/', '+', '#', '\0', '$']);
    let verdict = match &fleet.broker_gate {
        Some(gate) if plain => gate.keeper.authenticate(username, client_id, password.as_bytes()).await,
        _ => Verdict::Denied,
    };
    Ok(HttpResponse::Ok().json(judged(&verdict)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn topics(verdict: &Verdict) -> Vec<String> {
        judged(verdict).acl.iter().map(|r| format!("{} {} {}", r.permission, r.action, r.topic)).collect()
    }

    #[test]
    fn a_box_gets_its_own_branch_and_its_groups_and_nothing_else() {
        let verdict = Verdict::Allowed(Role::Device { org: "acme".into(), dev: "box1".into() });
        let rules = [
            "allow publish r58/1/acme/box1/up/#",
            "allow subscribe r58/1/acme/box1/down/#",
            "allow subscribe r58/1/acme/_g/+/down/#",
            "deny all #",
        ];
        assert_eq!(topics(&verdict), rules);
    }

    #[test]
    fn a_viewer_reads_and_only_an_operator_also_commands() {
        let person = |commands| Verdict::Allowed(Role::Person { org: "acme".into(), commands });
        assert_eq!(topics(&person(false)), ["allow subscribe r58/1/acme/#", "deny all #"]);
        assert!(topics(&person(true)).contains(&"allow publish r58/1/acme/+/down/cmd/+".to_owned()));
    }

    #[test]
    fn who_is_denied_gets_no_rules_and_the_servers_own_need_none() {
        assert_eq!(judged(&Verdict::Denied), Judged { result: "deny", superuser: false, acl: Vec::new() });
        assert!(judged(&Verdict::Allowed(Role::Fleet)).superuser);
    }
}
