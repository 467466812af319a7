//! `r58 ctl`: an operator's command line against a fleet server.
//!
//! `login` keeps a session in the user's configuration directory (mode 0600); every other command uses it, renews it
//! when it has expired, or signs in anew when `--email` is given. Exit codes: 0 done, 1 the fleet or the device refused
//! or the command failed, 2 wrong usage, 3 the server cannot be reached, 4 not signed in or not allowed.

mod alert;
mod audit;
mod bundles;
mod ca;
mod client;
mod config;
mod device;
mod enrol;
mod group;
mod invite;
mod logs;
mod order;
mod org;
mod output;
mod release;
mod session;
mod user;
mod watch;

use std::io::{IsTerminal, Read, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use chrono::Utc;
use serde_json::{Value, json};

use self::client::{Client, CtlError, Files};
use self::order::Order;
use self::output::Output;

/// How long `send --wait` waits unless told otherwise, in seconds.
const WAIT_SECONDS: u64 = 60;

/// Under it the help of every command shows what is the same for all, below what is its own.
const SERVER: &str = "Server, sign-in and output";

/// Arguments of `r58 ctl`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Address of the fleet server.
    #[arg(long, env = "R58_FLEET_URL", default_value = "http://127.0.0.1:8180", global = true, help_heading = SERVER)]
    pub url: String,
    /// An access token or an API key, instead of the kept session.
    #[arg(long, env = "R58_FLEET_TOKEN", hide_env_values = true, global = true, help_heading = SERVER)]
    token: Option<String>,
    /// Sign in as this user for this command; the password comes from R58_FLEET_PASSWORD or is asked for.
    #[arg(long, env = "R58_FLEET_EMAIL", global = true, help_heading = SERVER)]
    email: Option<String>,
    /// File of authorities in PEM to believe besides the system's, when the server's certificate is one's own.
    #[arg(long, env = "R58_FLEET_CA_FILE", global = true, help_heading = SERVER)]
    ca_file: Option<PathBuf>,
    /// File of a certificate in PEM to show to the server, with --key-file.
    #[arg(long, env = "R58_FLEET_CERT_FILE", global = true, help_heading = SERVER, requires = "key_file")]
    cert_file: Option<PathBuf>,
    /// File of that certificate's key.
    #[arg(long, env = "R58_FLEET_KEY_FILE", global = true, help_heading = SERVER)]
    key_file: Option<PathBuf>,
    /// Answer in JSON.
    #[arg(long, global = true, help_heading = SERVER)]
    json: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Say whether the server works; needs no session.
    Health,
    /// Print what a shell needs to complete `r58` commands.
    Completion {
        /// bash, zsh, fish, elvish or powershell.
        shell: clap_complete::Shell,
    },
    /// Sign in and keep the session.
    Login,
    /// End the kept session.
    Logout,
    /// Say who is signed in.
    Whoami,
    /// List devices.
    Devices {
        /// Only those that are `online`, `offline` or `decommissioned`.
        #[arg(long)]
        status: Option<String>,
        /// Only those whose identifier, name, place or tag holds this.
        #[arg(long)]
        search: Option<String>,
        /// Only those with this tag.
        #[arg(long)]
        tag: Option<String>,
    },
    /// Show one device in full.
    Device {
        /// The device.
        device: String,
    },
    #[command(flatten)]
    OfDevice(device::Device),
    /// Send a command to a device.
    Send {
        /// The device.
        device: String,
        #[command(flatten)]
        order: Order,
        /// Only say what the device would answer.
        #[arg(long, conflicts_with = "wait")]
        dry_run: bool,
        /// Wait until the command has ended.
        #[arg(long)]
        wait: bool,
        /// How long to wait, in seconds.
        #[arg(long, default_value_t = WAIT_SECONDS)]
        wait_seconds: u64,
    },
    /// Show a device's commands.
    Commands {
        /// The device.
        device: String,
    },
    /// Cancel a command.
    Cancel {
        /// The command.
        id: String,
    },
    /// Show what happens, until interrupted.
    Watch {
        /// Only this device.
        #[arg(long)]
        device: Option<String>,
    },
    /// Have a command signed, to be published by hand (retained, QoS 1).
    Sign {
        /// The device.
        device: String,
        #[command(flatten)]
        order: Order,
    },
    /// Invite a guest to a seat of a box; the link is told once.
    Invite(invite::Invite),
    /// Show a box's invitations.
    Invitations {
        /// The device.
        device: String,
    },
    /// Take an invitation back; its guest, if in, stays.
    Revoke {
        /// The device.
        device: String,
        /// The invitation.
        invitation: String,
    },
    /// Show who is in the seats of a box, and who waits.
    Guests {
        /// The device.
        device: String,
    },
    /// Let a guest in that waits, refuse it, or remove one.
    Guest {
        /// The device.
        device: String,
        /// The seat.
        seat: String,
        /// admit, refuse or remove.
        order: String,
    },
    /// The same command for many devices.
    #[command(subcommand)]
    Group(group::Group),
    /// What should be in force on a device, and what is.
    #[command(subcommand)]
    Config(config::Config),
    /// Releases, and their way into the fleet.
    #[command(subcommand)]
    Release(release::Release),
    /// What is the matter with the fleet, and who is told.
    #[command(subcommand)]
    Alert(alert::Alert),
    /// Organizations; for platform administrators.
    #[command(subcommand)]
    Org(org::Org),
    /// People of the organization; for its administrators.
    #[command(subcommand)]
    User(user::User),
    /// Keys that programs sign in with.
    #[command(subcommand)]
    Key(org::Key),
    /// Who changed what.
    #[command(subcommand)]
    Audit(audit::Audit),
    /// Show a box's log.
    Logs(logs::Logs),
    /// Have a box make a support bundle.
    Bundle(bundles::Bundle),
    /// Show a box's support bundles.
    Bundles {
        /// The device.
        device: String,
    },
    /// Write a support bundle that is here to a file.
    FetchBundle {
        /// The bundle.
        id: String,
        /// The file.
        file: PathBuf,
    },
    /// Delete a support bundle.
    DeleteBundle {
        /// The bundle.
        id: String,
    },
    /// An authority of one's own: certificates for servers and devices. Offline; needs no session.
    #[command(subcommand)]
    Ca(ca::Ca),
    /// Make a one-time code with which a box enrols itself.
    Enrol(enrol::Enrol),
    /// List enrolment codes.
    Codes,
    /// Take an enrolment code back.
    DeleteCode {
        /// The code's id.
        id: String,
    },
}

/// Runs one command and answers with the process's exit code.
pub async fn run(args: Args) -> ExitCode {
    let output = Output { json: args.json };
    match execute(args, output).await {
        Ok(code) => code,
        Err(error) => {
            output.error(&error);
            ExitCode::from(error.exit_code())
        }
    }
}

async fn execute(args: Args, output: Output) -> Result<ExitCode, CtlError> {
    if let Command::Ca(order) = &args.command {
        ca::run(order, output)?;
        return Ok(ExitCode::SUCCESS);
    }
    let files = Files { ca: args.ca_file, shown: args.cert_file.zip(args.key_file) };
    let mut client = Client::new(&args.url, &files)?;
    if let Command::Completion { shell } = args.command {
        let mut script = Vec::new();
        clap_complete::generate(shell, &mut crate::cli::command(), "r58", &mut script);
        output::print(String::from_utf8_lossy(&script).trim_end());
        return Ok(ExitCode::SUCCESS);
    }
    if let Command::Health = args.command {
        let health = client.health().await?;
        output.show(&health, || format!("{} {} works", word(&health, "service"), word(&health, "version")));
        return Ok(ExitCode::SUCCESS);
    }
    if let Command::Login = args.command {
        let email = match args.email {
            Some(email) => email,
            None => ask("email: ", false)?,
        };
        client.sign_in(&email, &password()?).await?;
        let user = client.get("/auth/me").await?;
        client.keep_session()?;
        output.show(&user, || format!("signed in as {}", word(&user, "email")));
        return Ok(ExitCode::SUCCESS);
    }
    if let Command::Audit(order) = &args.command
        && let Some(code) = audit::offline(output, order)
    {
        return code;
    }
    match (args.token, args.email) {
        (Some(token), _) => client.use_token(token),
        (None, Some(email)) => client.sign_in(&email, &password()?).await?,
        (None, None) => client.take_up_session()?,
    }
    match args.command {
        Command::Login | Command::Health | Command::Completion { .. } | Command::Ca(_) => {}
        Command::Logout => {
            client.sign_out().await?;
            output.show(&json!({"signed_out": true}), || "signed out".into());
        }
        Command::Whoami => {
            let user = client.get("/auth/me").await?;
            output
                .show(&user, || format!("{} ({}, {})", word(&user, "email"), word(&user, "role"), word(&user, "org")));
        }
        Command::Devices { status, search, tag } => {
            let devices = client.all("/devices", &[("status", status), ("search", search), ("tag", tag)]).await?;
            output.devices(&devices);
        }
        Command::Device { device } => {
            let device = client.get(&format!("/devices/{}", segment(&device))).await?;
            output.document(&device);
        }
        Command::OfDevice(order) => device::run(&mut client, output, &order).await?,
        Command::Send { device, order, dry_run, wait, wait_seconds } => {
            let body = order.body(Utc::now())?;
            let place = format!("/devices/{}/commands", segment(&device));
            if dry_run {
                output.document(&client.post(&format!("{place}/dry-run"), &body).await?);
                return Ok(ExitCode::SUCCESS);
            }
            let command = client.post(&place, &body).await?;
            if !wait {
                output.command(&command);
                return Ok(ExitCode::SUCCESS);
            }
            return finished(&mut client, output, command, Duration::from_secs(wait_seconds)).await;
        }
        Command::Commands { device } => {
            let page = client.get(&format!("/devices/{}/commands?page_size=50", segment(&device))).await?;
            output.commands(&page);
        }
        Command::Cancel { id } => {
            let command = client.post(&format!("/commands/{}/cancel", segment(&id)), &json!({})).await?;
            output.command(&command);
        }
        Command::Watch { device } => watch::run(&mut client, output, device.as_deref()).await?,
        Command::Sign { device, order } => {
            let mut body = order.body(Utc::now())?;
            body["draft"] = Value::Bool(true);
            let command = client.post(&format!("/devices/{}/commands", segment(&device)), &body).await?;
            output.signed(&command);
        }
        Command::Invite(order) => invite::invite(&mut client, output, &order).await?,
        Command::Invitations { device } => invite::list(&mut client, output, &device).await?,
        Command::Revoke { device, invitation } => invite::revoke(&mut client, output, &device, &invitation).await?,
        Command::Guests { device } => invite::guests(&mut client, output, &device).await?,
        Command::Guest { device, seat, order } => invite::order(&mut client, output, &device, &seat, &order).await?,
        Command::Group(order) => group::run(&mut client, output, &order).await?,
        Command::Config(order) => config::run(&mut client, output, &order).await?,
        Command::Release(order) => release::run(&mut client, output, &order).await?,
        Command::Alert(order) => alert::run(&mut client, output, &order).await?,
        Command::Org(order) => org::org(&mut client, output, &order).await?,
        Command::User(order) => user::run(&mut client, output, &order).await?,
        Command::Key(order) => org::key(&mut client, output, &order).await?,
        Command::Audit(order) => return audit::run(&mut client, output, &order).await,
        Command::Logs(order) => logs::run(&mut client, output, &order).await?,
        Command::Bundle(order) => bundles::make(&mut client, output, &order).await?,
        Command::Bundles { device } => bundles::list(&mut client, output, &device).await?,
        Command::Enrol(order) => enrol::make(&mut client, output, &order).await?,
        Command::Codes => enrol::list(&mut client, output).await?,
        Command::DeleteCode { id } => enrol::delete(&mut client, output, &id).await?,
        Command::FetchBundle { id, file } => bundles::fetch_one(&mut client, output, &id, &file).await?,
        Command::DeleteBundle { id } => bundles::delete(&mut client, output, &id).await?,
    }
    Ok(ExitCode::SUCCESS)
}

/// Waits for a command's end; success only when it succeeded.
async fn finished(
    client: &mut Client,
    output: Output,
    command: Value,
    patience: Duration,
) -> Result<ExitCode, CtlError> {
    let id = word(&command, "id").to_owned();
    let waited = tokio::time::timeout(patience, watch::until_finished(client, output, &id)).await;
    let command = match waited {
        Ok(ended) => ended?,
        Err(_) => {
            let seconds = patience.as_secs();
            return Err(CtlError::Refused(format!("the command {id} has not ended within {seconds} s; it goes on")));
        }
    };
    output.command(&command);
    Ok(if word(&command, "state") == "succeeded" { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// A word of a document, empty where it has none.
fn word<'a>(document: &'a Value, name: &str) -> &'a str {
    document.get(name).and_then(Value::as_str).unwrap_or_default()
}

/// A path segment, percent-encoded but for the letters of names (RFC 3986, section 2.3).
fn segment(text: &str) -> String {
    text.bytes()
        .map(|byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => char::from(byte).to_string(),
            other => format!("%{other:02X}"),
        })
        .collect()
}

fn password() -> Result<String, CtlError> {
    match std::env::var("R58_FLEET_PASSWORD") {
        Ok(password) => Ok(password),
        Err(_) => ask("password: ", true),
    }
}

/// Asks on the terminal; what is piped in is read without asking.
fn ask(question: &str, hidden: bool) -> Result<String, CtlError> {
    let failed = |error: std::io::Error| CtlError::Usage(format!("nothing can be read: {error}"));
    let mut text = String::new();
    if !std::io::stdin().is_terminal() {
        // Byte by byte up to the line's end, so that the next question finds the rest.
        let mut stdin = std::io::stdin().lock();
        let mut byte = [0];
        let mut line = Vec::new();
        while stdin.read(&mut byte).map_err(failed)? == 1 && byte[0] != b'\n' {
            line.push(byte[0]);
        }
        text = String::from_utf8_lossy(&line).into_owned();
    } else {
        eprint!("{question}");
        std::io::stderr().flush().map_err(failed)?;
        let quiet = hidden.then(session::Quiet::new).flatten();
        std::io::stdin().read_line(&mut text).map_err(failed)?;
        if quiet.is_some() {
            eprintln!();
        }
    }
    match text.trim_end_matches(['\r', '\n']) {
        "" => Err(CtlError::Usage(format!("nothing was given for {}", question.trim_end_matches(": ")))),
        text => Ok(text.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stay_inside_their_path_segment() {
        assert_eq!(segment("box-1"), "box-1");
        assert_eq!(segment("../users?x"), "..%2Fusers%3Fx");
    }
}
