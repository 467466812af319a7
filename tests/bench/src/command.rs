//! A signed, retained command from its publish to its terminal status, against a bare echo through the same broker.

use std::time::Instant;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::fleet::{Fleet, ORG};
use crate::mqtt::{Client, Echo};
use crate::peers::{PATIENCE, RunningBox};
use crate::table::{Row, Target, Unit, median};

const ROUNDS: usize = 30;
const BOX: &str = "bench-commanded";

/// The rows of this room.
///
/// # Errors
/// When the box does not come up, or a command does not end.
pub async fn rows(fleet: &Fleet) -> Result<Vec<Row>> {
    let status_topic = format!("r58/1/{ORG}/{BOX}/up/cmd/");
    let (ping, pong) = (format!("r58/1/{ORG}/echo/up/ping"), format!("r58/1/{ORG}/echo/up/pong"));
    let broker = fleet.broker.addr;
    let mut client = Client::connect(broker, "bench-operator", &[&format!("r58/1/{ORG}/{BOX}/up/#"), &pong]).await?;
    let echo = Echo::start(broker, &ping, &pong).await?;
    let home = fleet
        .box_home(
            BOX,
            "[[device.inputs]]\nid = \"cam1\"\nsource = { kind = \"test\", pattern = \"smpte\", tone_hz = 440.0 }\n",
        )
        .await?;
    let device = RunningBox::start(&home).await?;
    client.next("sync of the box", |topic, _| topic.ends_with("/up/sync")).await?;
    device.mixer("programme", |stats| stats["frames"].as_u64() > Some(60)).await?;

    let (mut commands, mut echoes, mut rest) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        // To preview, where it stands already: the road is measured, not the picture.
        let order = |draft: bool| json!({"type": "scene", "payload": {"scene": "full-cam1"}, "draft": draft});
        let draft = fleet.post(&format!("/devices/{BOX}/commands"), order(true)).await?;
        let text = |key: &str| draft[key].as_str().map(str::to_owned).with_context(|| format!("a draft without {key}"));
        let (id, topic, message) = (text("id")?, text("topic")?, text("message")?);

        let begin = Instant::now();
        client.publish(&ping, false, message.clone()).await?;
        echoes.push(millis(begin, client.next("echo", |topic, _| topic == pong).await?));

        let begin = Instant::now();
        client.publish(&topic, true, message).await?;
        commands.push(millis(begin, terminal(&mut client, &status_topic, &id).await?));

        let begin = Instant::now();
        let made = fleet.post(&format!("/devices/{BOX}/commands"), order(false)).await?;
        let id = made["id"].as_str().context("a command without an id")?;
        rest.push(millis(begin, terminal(&mut client, &status_topic, id).await?));
    }
    drop(echo);
    device.process.stop().await;
    let figure = |values: &[f64]| median(values).context("no figure");
    let bare = figure(&echoes)?;
    Ok(vec![
        Row::new("command: MQTT publish to terminal status", Unit::Ms, figure(&commands)?)
            .against("bare echo", Ok(bare))
            .target(Target::RatioAtMost(2.0)),
        Row::new("command: REST POST to terminal status", Unit::Ms, figure(&rest)?).against("bare echo", Ok(bare)),
    ])
}

/// When the command succeeded; any other end is an error.
async fn terminal(client: &mut Client, prefix: &str, id: &str) -> Result<Instant> {
    let ended = |topic: &str, payload: &[u8]| {
        let Some(of) = topic.strip_prefix(prefix) else { return false };
        let state = serde_json::from_slice::<Value>(payload).unwrap_or_default()["state"].as_str().map(str::to_owned);
        of == id && state.as_deref() == Some("succeeded")
    };
    client.next(&format!("status \"succeeded\" (within {PATIENCE:?})"), ended).await
}

fn millis(begin: Instant, end: Instant) -> f64 {
    (end - begin).as_secs_f64() * 1000.0
}
