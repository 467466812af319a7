//! How failures of the database look to a caller, and the shape of every error in the API's description.

use std::time::Duration;

use actix_web::http::StatusCode;
use utoipa::ToSchema;

use crate::fleet::store::StoreError;
use crate::problem::Problem;

/// Every error's body, `application/problem+json` (RFC 9457).
#[derive(ToSchema)]
#[schema(as = Problem)]
#[allow(dead_code)]
pub struct ProblemBody {
    /// Always `about:blank`: the status says it all.
    #[schema(example = "about:blank")]
    r#type: String,
    /// The status in words.
    title: String,
    /// The HTTP status.
    status: u16,
    /// What is wrong, for a person.
    detail: String,
}

/// A failure of the database as an answer.
pub fn store_problem(error: StoreError) -> Problem {
    match error {
        StoreError::Conflict(what) => Problem::conflict(format!("{what} exists already")),
        StoreError::DiskFull => {
            tracing::error!("the disk is full: nothing can be written");
            Problem::new(StatusCode::INSUFFICIENT_STORAGE, "the server's disk is full; reading goes on")
        }
        StoreError::Busy => Problem::unavailable("the database is busy; try again").retry_after(Duration::from_secs(1)),
        StoreError::ReadOnly | StoreError::Unavailable(_) | StoreError::Url(_) => {
            tracing::error!(%error, "the database is unavailable");
            Problem::unavailable("the database is unavailable").retry_after(Duration::from_secs(5))
        }
        StoreError::Corrupt(_) | StoreError::Bug(_) => {
            tracing::error!(%error, "the database failed");
            Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "the server failed; its log says why")
        }
    }
}
