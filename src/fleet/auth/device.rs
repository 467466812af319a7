//! Devices as callers of the API: `X-Device-Id` and `X-Device-Token`.

use actix_web::dev::Payload;
use actix_web::{FromRequest, HttpRequest, web};
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
    let Some((org, stored)) = store.device_secret(id).await? else { return Ok(None) };
    Ok(secret::equal(&secret::hash(token), &stored).then_some(org))
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
            let (Some(id), Some(token)) = (header("X-Device-Id"), header("X-Device-Token")) else {
                return Err(Problem::unauthorized("a device names itself by X-Device-Id and X-Device-Token"));
            };
            match check_token(&fleet.store, id, token).await.map_err(store_problem)? {
                Some(org) => Ok(Self { org, id: id.to_owned() }),
                None => Err(Problem::unauthorized("the device's token is not valid")),
            }
        })
    }
}
