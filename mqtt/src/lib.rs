//! The protocol between a box and its fleet, over MQTT 5.
//!
//! | room | what lives there |
//! |---|---|
//! | [`id`], [`topic`] | checked names, and the topic tree: parsed and formatted in one file |
//! | [`payload`] | what travels on each topic; unknown fields are preserved |
//! | [`session`] | one client's MQTT 5 session: connect, stay connected, say what became of each message |
//! | [`broker`] | the embedded broker |
//! | [`sign`] | commands signed end to end (ed25519), and their verification |
//! | [`command`] | the state machine of a device's commands, as a pure core |
//! | [`durable`] | what survives a power cut: sled behind a small trait, with a real fsync |
//! | [`outbox`], [`journal`] | what must reach the fleet, and what became of each command, in one store |
//! | [`request`] | requests to a device and their answers (MQTT 5 request/response), as pure cores |
//! | [`sparing`] | log lines that strangers can cause, a few a minute |
//! | [`fuzz`] | entry points that take any bytes |
//!
//! Nothing here reads a clock or the network unless its name says so (the session, the broker): cores take `now`.
//! The crate knows nothing of cameras, pipelines or actors.

pub mod broker;
pub mod command;
pub mod durable;
pub mod error;
pub mod fuzz;
pub mod id;
pub mod journal;
pub mod outbox;
pub mod payload;
pub mod request;
pub mod session;
pub mod sign;
pub mod sparing;
pub mod topic;

pub use error::{ErrorKind, MqttError};
pub use id::{CommandId, DeviceAddress, DeviceId, Name, OrgId};
pub use topic::{Down, Topic, Up};
