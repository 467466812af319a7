//! Lists, searches and figures of a million devices with the history of a hundred million heartbeats, summed up, on PostgreSQL.
//!
//! The rows are made by the database itself; what is measured is what a dashboard asks the server for, request by request.

use std::time::Instant;

use anyhow::{Context, Result};
use chrono::{TimeDelta, Utc};
use sqlx::{AssertSqlSafe, Connection as _, PgConnection};

use crate::fleet::{ORG, Server};
use crate::peers::Home;
use crate::postgres::Postgres;
use crate::table::{Row, Target, Unit, percentile};

const DEVICES: i64 = 1_000_000;
/// Sums of an hour, each of 60 heartbeats.
const HOURS: i64 = 100_000_000 / 60;
/// Hours of each device that has any.
const HOURS_EACH: i64 = 7 * 24;
const REQUESTS: usize = 200;
/// What the issue of a slow page begins at, in milliseconds.
const TARGET: f64 = 100.0;

/// The rows of this room.
///
/// # Errors
/// When the database or the server refuse.
pub async fn rows() -> Result<Vec<Row>> {
    let postgres = Postgres::start().await;
    let url = postgres.database().await;
    let home = Home::new(&format!(
        "[log]\nfilter = \"off\"\n[fleet]\nlisten = \"127.0.0.1:0\"\ndatabase_url = \"{url}\"\n\
         [fleet.broker]\nlisten = \"127.0.0.1:0\"\n"
    ))?;
    // The first start makes the tables.
    let password = {
        let server = Server::start(&home, None).await?;
        let password = server.password.clone();
        server.process.stop().await;
        password
    };
    fill(&url).await?;
    let server = Server::start(&home, Some(password)).await?;

    let device = |n: usize| format!("box-{:07}", (n * 7_919) as i64 % DEVICES + 1);
    let with_history = |n: usize| format!("box-{:07}", (n * 7_919) as i64 % (HOURS / HOURS_EACH) + 1);
    let since = (Utc::now() - TimeDelta::days(7)).format("%Y-%m-%dT%H:%M:%SZ");
    let mut cursor = String::new();
    let mut rows = Vec::new();
    let mut list = Vec::with_capacity(REQUESTS);
    for _ in 0..REQUESTS {
        let path = format!("/devices?limit=100&cursor={cursor}");
        let begin = Instant::now();
        let page = server.get(&path).await?;
        list.push(begin.elapsed().as_secs_f64() * 1000.0);
        cursor = page["next_cursor"].as_str().context("the list ended early")?.to_owned();
    }
    rows.push(row("list, page after page", &list)?);
    rows.push(row("one device", &times(&server, |n| format!("/devices/{}", device(n))).await?)?);
    let number = |n: usize| format!("/devices?limit=100&search={}", &device(n)[6..]);
    rows.push(row("search that finds some", &times(&server, number).await?)?);
    let everywhere = |_| "/devices?limit=100&search=venue".to_owned();
    rows.push(row("search that finds all", &times(&server, everywhere).await?)?);
    let nowhere = |n| format!("/devices?limit=100&search=nowhere{n}");
    rows.push(row("search that finds none", &times(&server, nowhere).await?)?);
    let tag = |n: usize| format!("/devices?limit=100&tag=hall{}", n % 1000);
    rows.push(row("devices with a tag", &times(&server, tag).await?)?);
    let offline = |_| "/devices?limit=100&status=offline".to_owned();
    rows.push(row("devices that are offline, one in a thousand", &times(&server, offline).await?)?);
    let week = |n| format!("/devices/{}/metrics?from={since}&bucket=hour", with_history(n));
    rows.push(row("figures of a device over a week", &times(&server, week).await?)?);
    server.process.stop().await;
    Ok(rows)
}

fn row(what: &str, took: &[f64]) -> Result<Row> {
    let p99 = percentile(took, 99).context("no figure")?;
    Ok(Row::new(format!("a million devices: {what}, p99"), Unit::Ms, p99).target(Target::AtMost(TARGET)))
}

/// Milliseconds of each request.
async fn times(server: &Server, path: impl Fn(usize) -> String) -> Result<Vec<f64>> {
    let mut took = Vec::with_capacity(REQUESTS);
    for n in 0..REQUESTS {
        let path = path(n);
        let begin = Instant::now();
        server.get(&path).await?;
        took.push(begin.elapsed().as_secs_f64() * 1000.0);
    }
    Ok(took)
}

async fn fill(url: &str) -> Result<()> {
    let now = Utc::now().timestamp_millis();
    let hour = now - now % 3_600_000;
    let mut connection = PgConnection::connect(url).await?;
    let metric = |name: &str| format!("{name}_min, {name}_max, {name}_sum, {name}_count, {name}_latest");
    let columns: Vec<String> =
        ["cpu", "mem", "disk", "temp", "load", "level"].iter().map(|name| metric(name)).collect();
    let figures = ["r, r + 5, r * 60, 60, r + 1"; 6].join(", ");
    for statement in [
        format!(
            "INSERT INTO devices (id, no, org, name, platform, arch, location, tags, metadata, update_channel, token_hash, \
             command_seq, registered_at, updated_at) \
             SELECT 'box-' || lpad(n::text, 7, '0'), n, '{ORG}', 'Box ' || n, 'linux', 'aarch64', 'Venue ' || n % 5000, \
             '[\"hall' || n % 1000 || '\"]', '{{}}', 'stable', 'hash' || n, 0, {now}, {now} FROM generate_series(1, {DEVICES}) n"
        ),
        format!(
            "INSERT INTO device_tags (org, tag, device_id) \
             SELECT '{ORG}', 'hall' || n % 1000, 'box-' || lpad(n::text, 7, '0') FROM generate_series(1, {DEVICES}) n"
        ),
        format!(
            "INSERT INTO device_state (device_no, presence, presence_at, presence_boot, presence_conn, reported_boot, reported_ver) \
             SELECT n, CASE WHEN n % 1000 = 0 THEN 'offline' ELSE 'online' END, {now}, 1, 1, 1, 1 \
             FROM generate_series(1, {DEVICES}) n"
        ),
        format!(
            "INSERT INTO device_pulse (device_no, last_seen, heartbeat_boot, heartbeat_seq, heartbeat_mark, silent) \
             SELECT n, {now}, 1, 1, 1, FALSE FROM generate_series(1, {DEVICES}) n"
        ),
        format!(
            "INSERT INTO heartbeats_hour (device_no, ts, {}) SELECT n, {hour} - h * 3600000::bigint, {figures} \
             FROM generate_series(1, {}) n, generate_series(1, {HOURS_EACH}) h, LATERAL (SELECT random() * 80 AS r) dice",
            columns.join(", "),
            HOURS / HOURS_EACH
        ),
        // What the server would do a little at a time.
        "WITH moved AS (DELETE FROM device_moves RETURNING org, state, n) INSERT INTO device_counts (org, state, n) \
         SELECT org, state, SUM(n) FROM moved GROUP BY org, state \
         ON CONFLICT (org, state) DO UPDATE SET n = device_counts.n + excluded.n"
            .to_owned(),
        format!("UPDATE counters SET value = {DEVICES} WHERE name = 'device'"),
        "VACUUM ANALYZE".to_owned(),
    ] {
        sqlx::query(AssertSqlSafe(statement)).persistent(false).execute(&mut connection).await?;
    }
    Ok(connection.close().await?)
}
