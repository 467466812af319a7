//! An authority of one's own: certificates for servers and devices, made and revoked offline.

use std::path::PathBuf;

use r58_mqtt::DeviceAddress;
use serde_json::json;

use super::client::CtlError;
use super::output::Output;
use crate::certificates::authority::{AUTHORITY_DAYS, Authority, DEVICE_DAYS, Issued, SERVER_DAYS, Written};

/// What to do with the authority in a directory.
#[derive(Debug, clap::Subcommand)]
pub enum Ca {
    /// Make an authority; one that is there is never overwritten.
    Init {
        /// Its directory.
        #[arg(long)]
        dir: PathBuf,
        /// What it is called.
        #[arg(long, default_value = "R58 fleet")]
        name: String,
        /// Life in days.
        #[arg(long, default_value_t = AUTHORITY_DAYS)]
        days: u32,
    },
    /// Issue a certificate for a server.
    Server {
        /// The authority's directory.
        #[arg(long)]
        dir: PathBuf,
        /// A name or address by which clients reach it; several are possible.
        #[arg(long, required = true)]
        host: Vec<String>,
        /// Life in days.
        #[arg(long, default_value_t = SERVER_DAYS)]
        days: u32,
    },
    /// Issue a certificate with which a device proves itself.
    Device {
        /// The authority's directory.
        #[arg(long)]
        dir: PathBuf,
        /// Its organization.
        #[arg(long)]
        org: String,
        /// The device.
        #[arg(long)]
        id: String,
        /// Life in days.
        #[arg(long, default_value_t = DEVICE_DAYS)]
        days: u32,
    },
    /// Issue a certificate that a fleet server shows to a broker of somebody else.
    Client {
        /// The authority's directory.
        #[arg(long)]
        dir: PathBuf,
        /// Its common name, which the broker's rules speak of.
        #[arg(long, default_value = "$fleet")]
        name: String,
        /// Life in days.
        #[arg(long, default_value_t = SERVER_DAYS)]
        days: u32,
    },
    /// Show the authority and what it issued.
    Show {
        /// The authority's directory.
        #[arg(long)]
        dir: PathBuf,
    },
    /// Revoke a certificate; servers that read `crl.pem` refuse it from then on.
    Revoke {
        /// The authority's directory.
        #[arg(long)]
        dir: PathBuf,
        /// Its serial number, as `show` lists it.
        #[arg(long)]
        serial: String,
    },
}

/// Does it.
///
/// # Errors
/// What stands in the way, in one sentence.
pub fn run(order: &Ca, output: Output) -> Result<(), CtlError> {
    let failed = |error: anyhow::Error| CtlError::Refused(format!("{error:#}"));
    match order {
        Ca::Init { dir, name, days } => {
            let about = Authority::create(dir, name, *days).and_then(|made| made.about()).map_err(failed)?;
            output.show(&json!(about), || {
                format!(
                    "{}: good until {}\nKeep {} safe: whoever has it can be every device.",
                    about.name,
                    about.not_after.format("%Y-%m-%d"),
                    dir.join("ca.key").display()
                )
            });
        }
        Ca::Server { dir, host, days } => {
            let made = Authority::open(dir).and_then(|mut authority| authority.server(host, *days)).map_err(failed)?;
            output.show(&json!(made), || written(&made));
        }
        Ca::Device { dir, org, id, days } => {
            let device = DeviceAddress::new(org, id).map_err(|error| CtlError::Usage(error.to_string()))?;
            let made =
                Authority::open(dir).and_then(|mut authority| authority.device(&device, *days)).map_err(failed)?;
            output.show(&json!(made), || written(&made));
        }
        Ca::Client { dir, name, days } => {
            let made = Authority::open(dir).and_then(|mut authority| authority.client(name, *days)).map_err(failed)?;
            output.show(&json!(made), || written(&made));
        }
        Ca::Show { dir } => {
            let about = Authority::open(dir).and_then(|authority| authority.about()).map_err(failed)?;
            output.show(&json!(about), || {
                let head = format!(
                    "{}: good until {}, SHA-256 {}",
                    about.name,
                    about.not_after.format("%Y-%m-%d"),
                    about.fingerprint
                );
                let lines = about.certificates.iter().map(line);
                std::iter::once(head).chain(lines).collect::<Vec<_>>().join("\n")
            });
        }
        Ca::Revoke { dir, serial } => {
            let mut authority = Authority::open(dir).map_err(failed)?;
            let revoked = authority.revoke(serial).map_err(failed)?;
            output.show(&json!(revoked), || {
                format!("revoked {}; servers need the new {}", revoked.name, dir.join("crl.pem").display())
            });
        }
    }
    Ok(())
}

fn written(made: &Written) -> String {
    let until = made.issued.not_after.format("%Y-%m-%d");
    let (cert, key) = (made.cert_file.display(), made.key_file.display());
    format!("{}: serial {}, good until {until}\n{cert}\n{key}", made.issued.name, made.issued.serial)
}

fn line(issued: &Issued) -> String {
    let state = match issued.revoked_at {
        Some(at) => format!("revoked on {}", at.format("%Y-%m-%d")),
        None => format!("until {}", issued.not_after.format("%Y-%m-%d")),
    };
    let kind = match issued.kind {
        crate::certificates::authority::Kind::Server => "server",
        crate::certificates::authority::Kind::Device => "device",
        crate::certificates::authority::Kind::Client => "client",
    };
    format!("{}  {kind}  {state}  {}", issued.serial, issued.name)
}
