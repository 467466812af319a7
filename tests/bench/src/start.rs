//! How soon a box is there, and how much memory it holds, with cameras and without.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::fleet::{Fleet, ORG};
use crate::mqtt::Client;
use crate::peers::{Home, RunningBox, cameras};
use crate::table::{Row, Unit, median};

const ROUNDS: usize = 3;
/// Memory is read this long after the start.
const SETTLED: Duration = Duration::from_secs(5);

/// A box needs one place for a picture; nobody sits in this one.
const SEAT: &str = "[[device.seats]]\nid = \"guest1\"\n";

#[derive(Default)]
struct Figures {
    heartbeat: Vec<f64>,
    frame: Vec<f64>,
    resident: Vec<f64>,
}

/// The rows of this room.
///
/// # Errors
/// When a box does not come up.
pub async fn rows(fleet: &Fleet) -> Result<Vec<Row>> {
    let (with, without) = ("bench-media", "bench-bare");
    let homes = [
        (with, fleet.box_home(with, &cameras()).await?, ", four test cameras on programme"),
        (without, fleet.box_home(without, SEAT).await?, ", no cameras, slate on programme"),
    ];
    let mut figures = [Figures::default(), Figures::default()];
    // The first start enrols; it is not counted.
    for round in 0..=ROUNDS {
        for ((id, home, _), figures) in homes.iter().zip(&mut figures) {
            let mut thrown = Figures::default();
            start(fleet, id, home, if round == 0 { &mut thrown } else { figures }).await?;
        }
    }
    let mut rows = Vec::new();
    for ((_, _, which), figures) in homes.iter().zip(&figures) {
        let figure = |values: &[f64]| median(values).context("no figure");
        rows.push(Row::new(format!("box{which}: resident memory"), Unit::Mb, figure(&figures.resident)? / 1e6));
        rows.push(Row::new(
            format!("box{which}: exec to first programme frame"),
            Unit::Seconds,
            figure(&figures.frame)?,
        ));
        rows.push(Row::new(format!("box{which}: exec to first heartbeat"), Unit::Seconds, figure(&figures.heartbeat)?));
    }
    Ok(rows)
}

async fn start(fleet: &Fleet, id: &str, home: &Home, figures: &mut Figures) -> Result<()> {
    let topic = format!("r58/1/{ORG}/{id}/up/hb");
    let mut client = Client::connect(fleet.broker.addr, "bench-observer", &[&topic]).await?;
    let device = RunningBox::start(home).await?;
    let begin = device.process.started();
    device.mixer("frame", |stats| stats["frames"].as_u64() > Some(0)).await?;
    figures.frame.push(begin.elapsed().as_secs_f64());
    let at = client.next("heartbeat", |_, _| true).await?;
    figures.heartbeat.push((at - begin).as_secs_f64());
    tokio::time::sleep_until((begin + SETTLED).max(Instant::now()).into()).await;
    figures.resident.push(device.process.resident()?);
    device.process.stop().await;
    Ok(())
}
