//! The fleet server: database, API, pages, and the desk that sends commands to boxes.
//!
//! [`start`] brings it up from a [`FleetPlan`] and answers with a [`FleetHandle`]; nothing here reads a
//! configuration file or the environment.

mod error;
pub mod store;
pub mod plan;

pub use error::{ErrorKind, FleetError};
pub use plan::{AccessPlan, BrokerPlan, BrokerTls, FleetPlan, TurnPlan};

use std::net::SocketAddr;

/// The administrator made at the first start of a database, to be shown once.
#[derive(Clone)]
pub struct GeneratedAdmin {
    /// The address to sign in with.
    pub email: String,
    /// The generated password; only its argon2id hash is stored.
    pub password: String,
}

/// A running fleet server.
pub struct FleetHandle {
    /// Where the API and the dashboard listen.
    pub addr: SocketAddr,
    /// Where the embedded broker listens, if the server runs one.
    pub broker: Option<SocketAddr>,
    /// The administrator, if this start made one.
    pub first_start: Option<GeneratedAdmin>,
}

impl FleetHandle {
    /// Makes a one-time code with which a box enrols itself in the default organization; it is valid for an hour.
    pub async fn create_enrolment_code(&self) -> Result<String, FleetError> {
        Err(FleetError::Bug("the server is not wired yet".into()))
    }

    /// Stops the server: no new requests, pending writes committed, broker last. Bounded by five seconds.
    pub async fn stop(self) {}
}

/// Starts the fleet server and returns when it answers.
///
/// # Errors
/// Says in one sentence what is in the way: a port that is taken, a directory that is not writable, a database
/// that is locked.
pub async fn start(_plan: FleetPlan) -> Result<FleetHandle, FleetError> {
    Err(FleetError::Bug("the server is not wired yet".into()))
}
