//! Who may do what: users with a role in one organization, and devices with a token.
//!
//! A handler names the least role it serves by the extractor it takes: [`Viewer`], [`Operator`] or [`Admin`]. None
//! of them can be made without a valid access token whose user is still active.

pub(crate) mod device;
mod lockout;
pub mod password;
pub mod secret;
pub mod token;

pub use device::DeviceCaller;
pub use lockout::Lockout;

use actix_web::dev::Payload;
use actix_web::http::header::AUTHORIZATION;
use actix_web::{FromRequest, HttpRequest, web};
use chrono::{DateTime, Utc};
use futures_util::future::LocalBoxFuture;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::api::problem::store_problem;
use super::state::Fleet;
use super::store::Actor;
use crate::problem::Problem;

/// What a user may do in its organization. Each includes those before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Reads.
    Viewer,
    /// Also updates devices and creates commands.
    Operator,
    /// Everything.
    Admin,
}

impl Role {
    /// As stored.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Operator => "operator",
            Self::Admin => "admin",
        }
    }

    /// From its stored word; an unknown one is the least.
    pub fn from_stored(word: &str) -> Self {
        match word {
            "admin" => Self::Admin,
            "operator" => Self::Operator,
            _ => Self::Viewer,
        }
    }
}

/// A signed-in user.
#[derive(Debug, Clone)]
pub struct Session {
    /// The user.
    pub user_id: String,
    /// Address.
    pub email: String,
    /// Organization; every query is bound to it.
    pub org: String,
    /// What the user may do.
    pub role: Role,
    /// End of the access token.
    pub expires_at: DateTime<Utc>,
}

impl Session {
    /// As the audit log names the user.
    pub fn actor(&self) -> Actor {
        Actor { org: self.org.clone(), name: format!("user:{}", self.email) }
    }
}

/// Reads and checks the access token of a request.
///
/// # Errors
/// 401 when it is missing, not ours, expired, or its user was switched off, deleted or changed.
pub async fn session(request: &HttpRequest) -> Result<Session, Problem> {
    let Some(fleet) = request.app_data::<web::Data<Fleet>>() else {
        return Err(Problem::unavailable("the server is starting"));
    };
    let bearer = request
        .headers()
        .get(AUTHORIZATION)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.split_once(' '))
        .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))
        .map(|(_, token)| token.trim());
    let Some(bearer) = bearer else { return Err(Problem::unauthorized("sign in first")) };
    session_of(fleet, bearer).await
}

/// Checks an access token.
///
/// # Errors
/// As [`session`].
pub async fn session_of(fleet: &Fleet, bearer: &str) -> Result<Session, Problem> {
    let claims = token::verify(&fleet.keys.access, bearer, Utc::now())
        .ok_or_else(|| Problem::unauthorized("the access token is not valid or has expired"))?;
    let user = fleet.store.user(&claims.org, &claims.sub).await.map_err(store_problem)?;
    match user.filter(|user| user.is_active && user.generation == claims.generation) {
        Some(user) => Ok(Session {
            user_id: user.id,
            email: user.email,
            org: user.org,
            role: Role::from_stored(&user.role),
            expires_at: DateTime::from_timestamp(claims.exp, 0).unwrap_or_default(),
        }),
        None => Err(Problem::unauthorized("the access token is not valid any more")),
    }
}

macro_rules! role_extractor {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone)]
        pub struct $name(pub Session);

        impl FromRequest for $name {
            type Error = Problem;
            type Future = LocalBoxFuture<'static, Result<Self, Problem>>;

            fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
                let request = request.clone();
                Box::pin(async move {
                    let session = session(&request).await?;
                    if session.role < Role::$name {
                        let least = Role::$name.as_str();
                        return Err(Problem::forbidden(format!("this needs the role {least}")));
                    }
                    Ok(Self(session))
                })
            }
        }

        impl std::ops::Deref for $name {
            type Target = Session;
            fn deref(&self) -> &Session {
                &self.0
            }
        }
    };
}

role_extractor! {
    /// Any signed-in user.
    Viewer
}
role_extractor! {
    /// A user who may also act.
    Operator
}
role_extractor! {
    /// A user who may do everything in its organization.
    Admin
}
