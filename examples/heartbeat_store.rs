//! Measures the store alone: heartbeats of many devices per second, in the batches that Ingest makes.
//!
//! `cargo run --release --example heartbeat_store [devices] [rounds]`

use std::time::Instant;

use anyhow::Result;
use chrono::{Duration, Utc};
use r58::fleet::store::{Actor, NewDevice, Store};
use r58_actors::ingest::core::BATCH_MAX;
use r58_actors::ingest::store::{FleetStore, Record, Report};
use r58_mqtt::payload::Heartbeat;
use r58_mqtt::{DeviceAddress, DeviceId, OrgId};
use serde_json::{Value, json};

/// A heartbeat of a box with four inputs.
fn heartbeat(seq: u64) -> Result<Heartbeat> {
    let inputs: Vec<Value> = (1..=4)
        .map(|n| json!({"id": format!("cam{n}"), "label": format!("CAM {n}"), "kind": "camera", "signal": "live", "fps": 30}))
        .collect();
    let actors: Vec<Value> =
        (1..=8).map(|n| json!({"name": format!("camera cam{n}"), "state": "running", "restarts": 0})).collect();
    Ok(serde_json::from_value(json!({
        "ts": Utc::now(), "version": "0.1.0", "uptime_seconds": seq, "boot_seq": 1, "seq": seq, "interval_s": 60,
        "boot_id": "3f0c6a1e-5d0a-4c57-9d2f-0d6c9b7f6a11", "inputs": inputs, "actors": actors,
        "metrics": {"cpu_percent": 41.5, "mem_percent": 63.2, "disk_free_gb": 118.4, "disk_total_gb": 256.0,
            "temperature_c": 58.1, "load_avg": [1.2, 1.1, 0.9]},
    }))?)
}

#[tokio::main]
async fn main() -> Result<()> {
    let mut args = std::env::args().skip(1).map(|arg| arg.parse::<usize>());
    let devices = args.next().transpose()?.unwrap_or(10_000);
    let rounds = args.next().transpose()?.unwrap_or(10);
    let dir = std::env::temp_dir().join(format!("r58-heartbeat-store-{}", std::process::id()));
    std::fs::create_dir_all(&dir)?;
    let store = Store::open(None, &dir).await?;
    let now = Utc::now();
    store.ensure_organization("default", "Default", now).await?;
    let org = OrgId::new("default")?;
    let mut addresses = Vec::with_capacity(devices);
    for n in 0..devices {
        let id = format!("box{n}");
        store.create_enrolment_code(&Actor::server("default"), &id, &id, None, now, now + Duration::hours(1)).await?;
        let device = NewDevice {
            id: id.clone(),
            name: id.clone(),
            platform: "linux".into(),
            arch: "aarch64".into(),
            serial_number: None,
            mac_address: None,
            version: None,
            capabilities: None,
        };
        store.enrol(&id, &device, "hash", now).await?;
        addresses.push(DeviceAddress { org: org.clone(), device: DeviceId::new(&id)? });
    }
    let bytes = serde_json::to_vec(&heartbeat(1)?)?.len();
    let mut spent = std::time::Duration::ZERO;
    for round in 1..=rounds {
        let said = heartbeat(u64::try_from(round)?)?;
        let records: Vec<Record> = addresses
            .iter()
            .map(|device| Record {
                device: device.clone(),
                received_at: Utc::now(),
                report: Report::Heartbeat(said.clone()),
            })
            .collect();
        let begin = Instant::now();
        for batch in records.chunks(BATCH_MAX) {
            store.apply(batch).await?;
        }
        spent += begin.elapsed();
    }
    let stored = devices * rounds;
    let rate = stored as f64 / spent.as_secs_f64();
    println!(
        "{stored} heartbeats of {bytes} bytes from {devices} devices: {rate:.0}/s in {:.2} s",
        spent.as_secs_f64()
    );
    let size = std::fs::metadata(dir.join("fleet.db"))?.len();
    println!("database {:.1} MB, {:.0} bytes for each", size as f64 / 1e6, size as f64 / stored as f64);
    store.close().await;
    std::fs::remove_dir_all(&dir)?;
    Ok(())
}
