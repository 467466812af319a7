//! `r58 ctl`: an operator's command line against a fleet server.

use std::process::ExitCode;

/// Arguments of `r58 ctl`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Address of the fleet server.
    #[arg(long, env = "R58_FLEET_URL", default_value = "http://127.0.0.1:8180", global = true)]
    pub url: String,
}

/// Runs one command and answers with the process's exit code.
pub async fn run(_args: Args) -> ExitCode {
    ExitCode::SUCCESS
}
