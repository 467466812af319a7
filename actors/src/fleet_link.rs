//! FleetLink.
pub mod identity;
