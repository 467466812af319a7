//! `Idempotency-Key`: a request that came before is answered as it was then, and carried out once.

use actix_web::HttpRequest;
use serde::Serialize;

use crate::fleet::auth::{Session, secret};
use crate::fleet::store::Once;
use crate::problem::Problem;

/// The header.
const HEADER: &str = "Idempotency-Key";
/// Longest key, in bytes.
const LONGEST: usize = 200;

/// The key of a request, with a hash of who asks where for what.
///
/// # Errors
/// 400 when the header is not a key.
pub fn once(
    request: &HttpRequest,
    caller: &Session,
    place: &str,
    body: &impl Serialize,
) -> Result<Option<Once>, Problem> {
    let Some(key) = request.headers().get(HEADER) else { return Ok(None) };
    let key = key.to_str().ok().map(str::trim).filter(|key| (1..=LONGEST).contains(&key.len()));
    let Some(key) = key else {
        return Err(Problem::bad_request(format!("{HEADER}: 1 to {LONGEST} visible characters of ASCII")));
    };
    let body = serde_json::to_string(body).map_err(|_| Problem::bad_request("the body cannot be read"))?;
    let hash = secret::hash(&format!("{}\n{place}\n{body}", caller.user_id));
    Ok(Some(Once { key: key.to_owned(), hash }))
}
