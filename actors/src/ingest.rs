//! Ingest.
pub mod store;
