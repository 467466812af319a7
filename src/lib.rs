//! The parts of the `r58` binary: command line, configuration, wiring, the box's HTTP face, the fleet server.
//!
//! `main.rs` stays thin: it hands over to [`cli`], which reads the configuration and starts one of the sides.

pub mod audit;
pub mod certificates;
pub mod cli;
pub mod config;
pub mod conformance;
pub mod ctl;
pub mod demo;
pub mod device;
pub mod fleet;
pub mod logging;
pub mod metrics;
pub mod pages;
pub mod preflight;
pub mod problem;
pub mod proxies;
mod rates;
pub mod run;
pub mod service;
pub mod sim;
