//! Certificates: made offline by an authority of one's own, read and checked, and taken up anew when their files change.
//!
//! | room | what lives there |
//! |---|---|
//! | `authority` | a directory that holds an authority, and what it issues and revokes (`r58 ctl ca`) |
//! | `name` | how a certificate names a device (pure) |
//! | `files` | reads a server's files and says in one sentence what is wrong with them |
//! | `keeper` | what TLS listeners ask during each handshake; follows the files |
//! | `client` | what a client believes and shows |

pub mod authority;
pub mod client;
pub mod files;
pub mod keeper;
pub mod name;

pub use files::{Part, TlsFiles, Wrong};
pub use keeper::Certificates;
