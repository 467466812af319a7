//! The same command for many devices.

use chrono::Utc;
use serde_json::{Value, json};

use super::client::{Client, CtlError};
use super::order::Order;
use super::output::Output;
use super::{segment, word};

/// What to do with groups of commands.
#[derive(Debug, clap::Subcommand)]
pub enum Group {
    /// Send a command to every device with a tag.
    Send {
        /// The tag.
        tag: String,
        #[command(flatten)]
        order: Order,
        /// Only say what each device would answer.
        #[arg(long)]
        dry_run: bool,
    },
    /// List groups, newest first.
    List,
    /// Show how one stands.
    Show {
        /// The group.
        id: String,
    },
    /// List the commands of one, by device.
    Commands {
        /// The group.
        id: String,
    },
    /// Cancel what has not begun.
    Cancel {
        /// The group.
        id: String,
    },
}

/// Runs `r58 ctl group`.
///
/// # Errors
/// When the server refuses or does not answer.
pub async fn run(client: &mut Client, output: Output, order: &Group) -> Result<(), CtlError> {
    match order {
        Group::Send { tag, order, dry_run } => {
            let command = order.body(Utc::now())?;
            let path = if *dry_run { "/command-groups/dry-run" } else { "/command-groups" };
            let body = json!({"devices": {"tag": tag}, "command": command});
            output.document(&client.post(path, &body).await?);
        }
        Group::List => {
            let all = client.all("/command-groups", &[]).await?;
            let line = |one: &Value| {
                let (id, op, tag) = (word(one, "id"), word(one, "type"), word(one, "tag"));
                format!("{id}  {op}  {tag}  {} of {} ended  {}", one["ended"], one["total"], one["states"])
            };
            output.show(&json!(all), || all.iter().map(line).collect::<Vec<_>>().join("\n"));
        }
        Group::Show { id } => output.document(&client.get(&format!("/command-groups/{}", segment(id))).await?),
        Group::Commands { id } => {
            let all = client.all(&format!("/command-groups/{}/commands", segment(id)), &[]).await?;
            output.commands(&json!({"items": all}));
        }
        Group::Cancel { id } => {
            let path = format!("/command-groups/{}/cancel", segment(id));
            output.document(&client.post(&path, &json!({})).await?);
        }
    }
    Ok(())
}
