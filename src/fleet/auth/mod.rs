//! Who may do what: users with a role in one organization, and devices with a token.
//!
//! A handler names the least role it serves by the extractor it takes: [`Viewer`], [`Operator`] or [`Admin`]. None
//! of them can be made without a valid access token whose user is still active. [`PlatformAdmin`] is an administrator who also
//! makes organizations; inside of them it sees nothing.
//!
//! In place of a token an API key may stand. It acts for its maker, with the lesser of its scopes and the maker's role at this
//! moment: a demoted maker's keys shrink at once, those of one who was switched off rest, those of one who was deleted are
//! gone.

pub mod certificate;
pub(crate) mod device;
mod lockout;
pub mod password;
pub mod scope;
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

use self::scope::{Need, Scope};
use super::api::problem::store_problem;
use super::state::Fleet;
use super::store::{Actor, ApiKeyRow, UserRow, instant};
use crate::problem::Problem;

/// How an API key begins.
pub const KEY_PREFIX: &str = "r58k_";
/// What lasts, such as live updates, is looked at again after this time when it was opened with a key.
const KEY_SESSION: chrono::Duration = chrono::Duration::minutes(15);

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
    /// Whether the user looks after organizations.
    pub platform: bool,
    /// The API key that acts for the user.
    pub key: Option<String>,
    /// End of the access token.
    pub expires_at: DateTime<Utc>,
    /// The user's generation when the session was checked.
    pub generation: i64,
}

impl Session {
    /// As the audit log names the user.
    pub fn actor(&self) -> Actor {
        let name = match &self.key {
            None => format!("user:{}", self.email),
            Some(key) => format!("user:{} by key:{key}", self.email),
        };
        Actor { org: self.org.clone(), name }
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
    match bearer.starts_with(KEY_PREFIX) {
        true => session_of_key(fleet, bearer, request).await,
        false => session_of(fleet, bearer).await,
    }
}

/// The session of an API key, if its scopes reach what is asked for.
async fn session_of_key(fleet: &Fleet, key: &str, request: &HttpRequest) -> Result<Session, Problem> {
    let now = Utc::now();
    let found = fleet.store.api_key_by_hash(&secret::hash(key)).await.map_err(store_problem)?;
    let good = |key: &ApiKeyRow| key.is_active && key.expires_at.is_none_or(|end| end > now.timestamp_millis());
    let Some(key) = found.filter(good) else {
        return Err(Problem::unauthorized("the API key is not valid or has expired"));
    };
    let scopes: Vec<String> = serde_json::from_str(&key.scopes).unwrap_or_default();
    match scope::needed(request.method(), request.path()) {
        Need::Nothing => {}
        Need::Person => return Err(Problem::forbidden("this needs a person; API keys cannot do it")),
        Need::Scope(needed) => {
            if !scopes.iter().filter_map(|word| word.parse::<Scope>().ok()).any(|scope| scope.covers(needed)) {
                return Err(Problem::forbidden(format!("this needs an API key with the scope {needed}")));
            }
        }
    }
    if let Err(error) = fleet.store.note_api_key_use(&key, now).await {
        // A full disk must not take reading away.
        tracing::warn!(%error, "the use of an API key could not be noted");
    }
    Ok(Session {
        expires_at: key.expires_at.map_or(now + KEY_SESSION, |end| instant(end).min(now + KEY_SESSION)),
        role: Role::from_stored(&key.role),
        user_id: key.user_id,
        email: key.email,
        org: key.org,
        platform: false,
        key: Some(key.id),
        generation: 0,
    })
}

/// Whether a session that was checked before would be again. One of an API key is not: whoever has it shows it again.
pub async fn lasts(fleet: &Fleet, session: &Session) -> bool {
    let user = fleet.store.user(&session.org, &session.user_id).await;
    let same = |user: &UserRow| user.is_active && user.generation == session.generation;
    session.key.is_none() && matches!(user, Ok(Some(user)) if same(&user))
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
            platform: user.platform,
            key: None,
            generation: user.generation,
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

/// An administrator who also makes and lists organizations.
#[derive(Debug, Clone)]
pub struct PlatformAdmin(pub Session);

impl FromRequest for PlatformAdmin {
    type Error = Problem;
    type Future = LocalBoxFuture<'static, Result<Self, Problem>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        let request = request.clone();
        Box::pin(async move {
            let session = session(&request).await?;
            match session.platform && session.role == Role::Admin {
                true => Ok(Self(session)),
                false => Err(Problem::forbidden("this needs a platform administrator")),
            }
        })
    }
}
