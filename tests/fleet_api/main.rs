//! Promise: the fleet's API answers as it is described, to whom it may, and to nobody else.
//!
//! Every test runs against a server of its own on a free port, with its own database and its own embedded broker.
//! With `R58_TEST_DATABASE=postgres` that is one of a PostgreSQL that the tests start themselves, else an SQLite file.
//! Every answer that passes through [`world::World::call`] is checked against the server's own description.

#![allow(clippy::unwrap_used, reason = "a test fails where it unwraps")]

mod access;
mod alerts;
mod alerts_told;
mod api_keys;
mod audit;
mod bridge;
mod broker_auth;
mod bundles;
mod by_http;
mod command_groups;
mod commands;
mod config;
mod description;
mod devices;
mod duties;
#[path = "../support/environment.rs"]
mod environment;
mod home_assistant;
mod input;
mod isolation;
mod join;
mod live;
mod metrics;
mod organizations;
#[path = "../support/postgres.rs"]
#[allow(dead_code, reason = "other suites use more of it")]
mod postgres;
mod releases;
mod users;
mod whep;
mod world;
