//! Devices as callers of the API: `X-Device-Token`, and `X-Device-Id`, which older ones leave out.

use actix_web::dev::Payload;
use actix_web::{FromRequest, HttpRequest, web};
use chrono::Utc;
use futures_util::future::LocalBoxFuture;

use super::secret;
use crate::fleet::api::problem::store_problem;
use crate::fleet::state::Fleet;
use crate::fleet::store::{Store, StoreError};
use crate::problem::Problem;

/// A device that proved its token.
#[derive(Debug, Clone)]
pub struct DeviceCaller {
    /// Organization.
    pub org: String,
    /// The device.
    pub id: String,
}

/// The organization of a device in service whose token this is.
///
/// # Errors
/// Those of the database.
pub async fn check_token(store: &Store, id: &str, token: &str) -> Result<Option<String>, StoreError> {
    let Some(held) = store.device_secrets(id).await? else { return Ok(None) };
    let hash = secret::hash(token);
    if secret::equal(&hash, &held.token_hash) {
        // The device has the new token: the one before it has done its duty.
        if held.old_token_hash.is_some()
            && let Err(error) = store.retire_old_token(id, &held.token_hash).await
        {
            tracing::warn!(%error, device = id, "the token before could not be retired");
        }
        return Ok(Some(held.org));
    }
    let old = held.old_token_hash.is_some_and(|old| secret::equal(&hash, &old));
    let good = held.old_token_until.is_some_and(|until| until > Utc::now().timestamp_millis());
    Ok((old && good).then_some(held.org))
}

impl FromRequest for DeviceCaller {
    type Error = Problem;
    type Future = LocalBoxFuture<'static, Result<Self, Problem>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        let request = request.clone();
        Box::pin(async move {
            let Some(fleet) = request.app_data::<web::Data<Fleet>>() else {
                return Err(Problem::unavailable("the server is starting"));
            };
            let header = |name: &str| request.headers().get(name).and_then(|value| value.to_str().ok());
            let Some(token) = header("X-Device-Token") else {
                return Err(Problem::unauthorized("a device shows its token in X-Device-Token"));
            };
            let id = match header("X-Device-Id") {
                Some(id) => Some(id.to_owned()),
                None => fleet.store.device_of_token(&secret::hash(token)).await.map_err(store_problem)?,
            };
            let invalid = || Problem::unauthorized("the device's token is not valid");
            let id = id.ok_or_else(invalid)?;
            let org = check_token(&fleet.store, &id, token).await.map_err(store_problem)?.ok_or_else(invalid)?;
            Ok(Self { org, id })
        })
    }
}
