//! Bad input, from the broker, the disk and the network: each gets its clear answer, the process lives, the programme goes on,
//! memory stays flat.

mod commands;
mod http;
