//! The database of the fleet.

mod error;

pub use error::StoreError;
