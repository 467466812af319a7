//! The parts of the `r58` binary: command line, configuration, wiring, the box's HTTP face, the fleet server.
//!
//! `main.rs` stays thin: it parses the command line, reads the configuration and starts one of the sides.

pub mod ctl;
pub mod fleet;
pub mod pages;
pub mod preflight;
pub mod problem;
