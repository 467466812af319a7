//! Organizations, and the keys of programs.

use serde_json::{Value, json};

use super::client::{Client, CtlError};
use super::output::Output;
use super::{segment, word};

/// What to do with organizations; for platform administrators.
#[derive(Debug, clap::Subcommand)]
pub enum Org {
    /// List organizations.
    List,
    /// Make one with its first administrator.
    Create {
        /// Word of its topics: letters, digits, `-`, `_` and `.`.
        id: String,
        /// Name to show.
        name: String,
        /// The administrator's address; a password is made and told once.
        #[arg(long)]
        admin_email: String,
        /// The administrator's name.
        #[arg(long, default_value = "Administrator")]
        admin_name: String,
    },
    /// Give one another name.
    Rename {
        /// The organization.
        id: String,
        /// Its new name.
        name: String,
    },
}

/// What to do with API keys.
#[derive(Debug, clap::Subcommand)]
pub enum Key {
    /// List keys.
    List,
    /// Make a key; it is told once.
    Create {
        /// Name to show.
        name: String,
        /// What it may do, such as devices:read or commands:write.
        #[arg(required = true)]
        scopes: Vec<String>,
        /// Life in days; for ever unless given.
        #[arg(long)]
        expires_in_days: Option<u32>,
    },
    /// End a key.
    Delete {
        /// The key's id.
        id: String,
    },
}

/// Runs `r58 ctl org`.
///
/// # Errors
/// When the server refuses or does not answer.
pub async fn org(client: &mut Client, output: Output, order: &Org) -> Result<(), CtlError> {
    match order {
        Org::List => {
            let all = client.all("/organizations", &[]).await?;
            let line = |org: &Value| {
                let (users, devices) = (&org["users"], &org["devices"]);
                format!("{}  {}  {users} users, {devices} devices", word(org, "id"), word(org, "name"))
            };
            output.show(&json!(all), || all.iter().map(line).collect::<Vec<_>>().join("\n"));
        }
        Org::Create { id, name, admin_email, admin_name } => {
            let body = json!({"id": id, "name": name, "admin": {"email": admin_email, "name": admin_name}});
            let made = client.post("/organizations", &body).await?;
            output.show(&made, || {
                format!(
                    "{id}: {} may sign in with {} (shown once)",
                    word(&made, "admin_email"),
                    word(&made, "admin_password")
                )
            });
        }
        Org::Rename { id, name } => {
            let changed = client.patch(&format!("/organizations/{}", segment(id)), &json!({"name": name})).await?;
            output.show(&changed, || format!("{id} is called {name} now"));
        }
    }
    Ok(())
}

/// Runs `r58 ctl key`.
///
/// # Errors
/// When the server refuses or does not answer.
pub async fn key(client: &mut Client, output: Output, order: &Key) -> Result<(), CtlError> {
    match order {
        Key::List => {
            let all = client.all("/api-keys", &[]).await?;
            let line = |key: &Value| {
                let scopes: Vec<&str> =
                    key["scopes"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
                let used = key["last_used_at"].as_str().unwrap_or("never used");
                format!(
                    "{}  {}  {}  {}  {used}",
                    word(key, "id"),
                    word(key, "name"),
                    word(key, "created_by"),
                    scopes.join(" ")
                )
            };
            output.show(&json!(all), || all.iter().map(line).collect::<Vec<_>>().join("\n"));
        }
        Key::Create { name, scopes, expires_in_days } => {
            let end = expires_in_days.map(|days| chrono::Utc::now() + chrono::Duration::days(i64::from(days)));
            let body = json!({"name": name, "scopes": scopes, "expires_at": end});
            let made = client.post("/api-keys", &body).await?;
            output.show(&made, || {
                format!(
                    "{}\nThis key is shown once; to end it: r58 ctl key delete {}",
                    word(&made, "key"),
                    word(&made, "id")
                )
            });
        }
        Key::Delete { id } => {
            client.delete(&format!("/api-keys/{}", segment(id))).await?;
            output.show(&json!({"deleted": id}), || "the key is no longer good".to_owned());
        }
    }
    Ok(())
}
