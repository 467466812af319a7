//! One-time codes with which boxes enrol themselves.

use serde_json::{Value, json};

use super::client::{Client, CtlError};
use super::output::Output;
use super::{segment, word};

/// What a code is for.
#[derive(Debug, clap::Args)]
pub struct Enrol {
    /// For whom it is.
    #[arg(long)]
    note: Option<String>,
    /// Life in seconds.
    #[arg(long)]
    expires_in: Option<u32>,
    /// How many boxes it lets in.
    #[arg(long)]
    uses: Option<u32>,
}

/// Makes a code and prints it, the only time that it is told.
///
/// # Errors
/// When the server refuses or does not answer.
pub async fn make(client: &mut Client, output: Output, order: &Enrol) -> Result<(), CtlError> {
    let body = json!({"note": order.note, "expires_in_seconds": order.expires_in, "uses": order.uses});
    let code = client.post("/enrolment-codes", &body).await?;
    output.show(&code, || format!("{} (good until {})", word(&code, "code"), word(&code, "expires_at")));
    Ok(())
}

/// Lists codes, without themselves.
///
/// # Errors
/// As [`make`].
pub async fn list(client: &mut Client, output: Output) -> Result<(), CtlError> {
    let all = client.all("/enrolment-codes", &[]).await?;
    let line = |code: &Value| {
        let (uses, most) = (&code["uses"], &code["max_uses"]);
        let words = ["id", "expires_at", "created_by", "note"].map(|name| word(code, name));
        format!("{}  {uses} of {most} used", words.join("  "))
    };
    output.show(&json!(all), || all.iter().map(line).collect::<Vec<_>>().join("\n"));
    Ok(())
}

/// Takes a code back.
///
/// # Errors
/// As [`make`].
pub async fn delete(client: &mut Client, output: Output, id: &str) -> Result<(), CtlError> {
    client.delete(&format!("/enrolment-codes/{}", segment(id))).await?;
    output.show(&json!({"deleted": id}), || "the code is no longer good".into());
    Ok(())
}
