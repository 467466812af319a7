//! Invitations: a guest's link made, listed, taken back.

use serde_json::{Value, json};

use super::client::{Client, CtlError};
use super::output::{Output, plain};
use super::{segment, word};

/// Whom to invite, and how.
#[derive(Debug, clap::Args)]
pub struct Invite {
    /// The device.
    device: String,
    /// The seat.
    seat: String,
    /// What the guest is called on the programme.
    name: String,
    /// Life in seconds; a day unless given.
    #[arg(long)]
    expires_in: Option<u32>,
    /// The link works until it ends, not for one guest only.
    #[arg(long)]
    repeated: bool,
    /// The guest does not wait until the crew lets it in.
    #[arg(long)]
    no_waiting_room: bool,
    /// By which way picture and sound come: auto, direct, turn or sfu.
    #[arg(long)]
    road: Option<String>,
}

/// Makes an invitation and prints its link, the only time that it is told.
///
/// # Errors
/// When the server or the box refuses, or does not answer.
pub async fn invite(client: &mut Client, output: Output, order: &Invite) -> Result<(), CtlError> {
    let mut body = json!({
        "seat": order.seat,
        "name": order.name,
        "uses": if order.repeated { "repeated" } else { "single" },
        "admit": !order.no_waiting_room,
    });
    if let Some(seconds) = order.expires_in {
        body["expires_in_seconds"] = json!(seconds);
    }
    if let Some(road) = &order.road {
        body["road"] = json!(road);
    }
    let made = client.post(&format!("/devices/{}/invitations", segment(&order.device)), &body).await?;
    output.show(&made, || {
        let until = word(&made, "expires_at").get(..19).unwrap_or_default().replace('T', " ");
        format!(
            "{}\nThis link is shown once. It is good until {until} UTC; to take it back: r58 ctl revoke {} {}",
            word(&made, "join_url"),
            order.device,
            word(&made, "id")
        )
    });
    Ok(())
}

/// Shows a box's invitations.
///
/// # Errors
/// As [`invite`].
pub async fn list(client: &mut Client, output: Output, device: &str) -> Result<(), CtlError> {
    output.invitations(&client.get(&format!("/devices/{}/invitations", segment(device))).await?);
    Ok(())
}

/// Takes an invitation back.
///
/// # Errors
/// As [`invite`].
pub async fn revoke(client: &mut Client, output: Output, device: &str, invitation: &str) -> Result<(), CtlError> {
    client.delete(&format!("/devices/{}/invitations/{}", segment(device), segment(invitation))).await?;
    output.show(&json!({ "revoked": invitation }), || "revoked".into());
    Ok(())
}

/// Shows who is in the seats of a box, and who waits.
///
/// # Errors
/// As [`invite`].
pub async fn guests(client: &mut Client, output: Output, device: &str) -> Result<(), CtlError> {
    let found = client.get(&format!("/devices/{}/guests", segment(device))).await?;
    let line = |seat: &Value| {
        let waits = if seat["waiting"] == true { "  waits" } else { "" };
        format!("{}  {}  {}{waits}", word(seat, "id"), word(seat, "state"), plain(word(seat, "label")))
    };
    let lines = || found["items"].as_array().into_iter().flatten().map(line).collect::<Vec<_>>();
    output.show(&found["items"], || lines().join("\n"));
    Ok(())
}

/// Lets a guest in, refuses it, or removes it.
///
/// # Errors
/// As [`invite`].
pub async fn order(client: &mut Client, output: Output, device: &str, seat: &str, order: &str) -> Result<(), CtlError> {
    let path = format!("/devices/{}/guests/{}/{}", segment(device), segment(seat), segment(order));
    client.post(&path, &json!({})).await?;
    output.show(&json!({"seat": seat, "order": order}), || format!("{seat}: {order}"));
    Ok(())
}
