//! People of the organization, for its administrators.

use serde_json::{Value, json};

use super::client::{Client, CtlError};
use super::output::Output;
use super::{segment, word};
use crate::fleet::auth::secret;

/// What to do with users. Where one is asked for, an address does as well as an id.
#[derive(Debug, clap::Subcommand)]
pub enum User {
    /// List users.
    List,
    /// Make one; the first password comes from R58_USER_PASSWORD, else one is made and told once.
    Create {
        /// E-mail address, for signing in.
        #[arg(value_name = "EMAIL")]
        address: String,
        /// Name to show.
        name: String,
        /// viewer, operator or admin.
        #[arg(long, default_value = "viewer")]
        role: String,
    },
    /// Change one.
    Change {
        /// The user.
        user: String,
        /// Name to show.
        #[arg(long)]
        name: Option<String>,
        /// viewer, operator or admin.
        #[arg(long)]
        role: Option<String>,
        /// true or false: whether they may sign in.
        #[arg(long)]
        active: Option<bool>,
        /// true or false: whether they look after organizations; for platform administrators.
        #[arg(long)]
        platform_admin: Option<bool>,
    },
    /// Give one another password: that in R58_USER_PASSWORD, else one is made and told once. Ends their sessions.
    ResetPassword {
        /// The user.
        user: String,
    },
    /// Delete one; what they did stays in the audit log.
    Delete {
        /// The user.
        user: String,
    },
}

/// Runs `r58 ctl user`.
///
/// # Errors
/// When there is no such user, or the server refuses or does not answer.
pub async fn run(client: &mut Client, output: Output, order: &User) -> Result<(), CtlError> {
    match order {
        User::List => {
            let all = client.all("/users", &[]).await?;
            let line = |user: &Value| {
                let off = if user["is_active"] == false { "  switched off" } else { "" };
                format!(
                    "{}  {}  {}  {}{off}",
                    word(user, "id"),
                    word(user, "email"),
                    word(user, "role"),
                    word(user, "name")
                )
            };
            output.show(&json!(all), || all.iter().map(line).collect::<Vec<_>>().join("\n"));
        }
        User::Create { address, name, role } => {
            let (given, first) = given().map_or_else(|| (false, secret::password()), |given| (true, given));
            let body = json!({"email": address, "name": name, "role": role, "password": first});
            let mut made = client.post("/users", &body).await?;
            if !given {
                made["password"] = json!(first);
            }
            output.show(&made, || match given {
                true => format!("{address} may sign in"),
                false => format!("{address} may sign in with {first} (shown once)"),
            });
        }
        User::Change { user, name, role, active, platform_admin } => {
            let body = json!({"name": name, "role": role, "is_active": active, "platform_admin": platform_admin});
            let path = place(client, user).await?;
            output.document(&client.patch(&path, &body).await?);
        }
        User::ResetPassword { user } => {
            let path = format!("{}/reset-password", place(client, user).await?);
            let made = client.post(&path, &json!({"password": given()})).await?;
            output.show(&made, || match word(&made, "password") {
                "" => format!("{user} has the password that was given"),
                made => format!("{user} may sign in with {made} (shown once)"),
            });
        }
        User::Delete { user } => {
            let path = place(client, user).await?;
            client.delete(&path).await?;
            output.show(&json!({"deleted": user}), || format!("{user} is deleted"));
        }
    }
    Ok(())
}

/// The password that whoever calls has thought of.
fn given() -> Option<String> {
    std::env::var("R58_USER_PASSWORD").ok().filter(|password| !password.is_empty())
}

/// The path of a user who is named by address or by id.
async fn place(client: &mut Client, user: &str) -> Result<String, CtlError> {
    if !user.contains('@') {
        return Ok(format!("/users/{}", segment(user)));
    }
    let all = client.all("/users", &[]).await?;
    let found = all.iter().find(|one| word(one, "email").eq_ignore_ascii_case(user));
    let found = found.ok_or_else(|| CtlError::Refused(format!("there is no user {user}")))?;
    Ok(format!("/users/{}", segment(word(found, "id"))))
}
