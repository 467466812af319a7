//! The parts of the `r58` binary: the fleet server and the operator's command line.
//!
//! `main.rs` stays thin: it parses the command line, reads the configuration and starts one of these.

pub mod ctl;
pub mod fleet;
