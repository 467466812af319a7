//! The command line: which side to run, with which configuration.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::{config, ctl, run, sim};

/// A live-production box and its fleet: cameras and remote guests into one programme that never stops.
#[derive(Debug, Parser)]
#[command(name = "r58", version, about)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the box: cameras, mixer, guests, pages.
    Device {
        /// Configuration file (TOML); environment variables R58__SECTION__KEY win over it.
        #[arg(long)]
        config: Option<PathBuf>,
    },
    /// Run the fleet server: broker, database, API, dashboard.
    Fleet {
        /// Configuration file (TOML); environment variables R58__SECTION__KEY win over it.
        #[arg(long, global = true)]
        config: Option<PathBuf>,
        #[command(subcommand)]
        command: Option<FleetCommand>,
    },
    /// Run both on this machine, with an embedded broker and four live test cameras.
    Demo {
        /// Configuration file (TOML) to start from; the demo needs none.
        #[arg(long)]
        config: Option<PathBuf>,
    },
    /// Look at a configuration without running it.
    Config {
        #[command(subcommand)]
        command: ConfigCommand,
    },
    /// An operator's command line against a fleet server.
    Ctl(ctl::Args),
    /// Simulate a fleet against a fleet server, for load and rehearsal.
    Sim(sim::Args),
}

#[derive(Debug, Subcommand)]
enum FleetCommand {
    /// Write a back-up of the server of this configuration to one file; it may be running.
    Backup {
        /// The file; must not exist yet. It holds keys and is as secret as they are.
        #[arg(long)]
        to: PathBuf,
    },
    /// Put a back-up in its place again. The server, and every other one on its database, must be stopped.
    Restore {
        /// The file.
        #[arg(long)]
        from: PathBuf,
        /// Replace database, keys and bundles that are there.
        #[arg(long)]
        replace: bool,
    },
}

#[derive(Debug, Subcommand)]
enum ConfigCommand {
    /// Say what is wrong in a file, with its line; exit code 1 if anything is.
    Check {
        /// The file.
        file: PathBuf,
    },
}

/// The command line's own description, for shells that complete it.
pub fn command() -> clap::Command {
    <Cli as clap::CommandFactory>::command()
}

/// Parses the command line, does what it says, and answers with the process's exit code.
pub fn main() -> ExitCode {
    let done = match Cli::parse().command {
        Command::Config { command: ConfigCommand::Check { file } } => return check(&file),
        Command::Ctl(args) => return run::blocking(ctl::run(args)),
        Command::Device { config } => run::device(config.as_deref()),
        Command::Fleet { config, command: None } => run::fleet(config.as_deref()),
        Command::Fleet { config, command: Some(FleetCommand::Backup { to }) } => run::backup(config.as_deref(), &to),
        Command::Fleet { config, command: Some(FleetCommand::Restore { from, replace }) } => {
            run::restore(config.as_deref(), &from, replace)
        }
        Command::Demo { config } => run::demo(config.as_deref()),
        Command::Sim(args) => sim::run(args),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("r58: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn check(file: &std::path::Path) -> ExitCode {
    let problems = config::check_file(file);
    if problems.is_empty() {
        println!("{}: right", file.display());
        return ExitCode::SUCCESS;
    }
    for problem in &problems {
        eprintln!("{}: {problem}", file.display());
    }
    ExitCode::FAILURE
}
