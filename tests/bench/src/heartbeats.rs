//! Heartbeats that reach the database through the broker and Ingest, against a bare subscriber that throws them away, against
//! PostgreSQL's own COPY of the same rows, and against Node-RED. What the store alone takes says how much of it is the broker's.
//!
//! One connection publishes live heartbeats (QoS 0) of many boxes as fast as they are taken: never more than a window of
//! them is under way, so nothing is dropped and the rate is that of the receiver. Both receivers stay connected; each has
//! topics of its own.

use std::io::{BufWriter, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use chrono::Utc;
use futures_util::StreamExt as _;
use r58::fleet::store::Store;
use r58_actors::ingest::core::BATCH_MAX;
use r58_actors::ingest::store::{FleetStore as _, Record, Report};
use r58_mqtt::payload::{Heartbeat, Payload as _};
use r58_mqtt::{DeviceAddress, DeviceId, OrgId};
use sqlx::PgPool;
use sqlx::sqlite::{SqliteConnectOptions, SqlitePool};

use crate::fleet::{Fleet, ORG};
use crate::mqtt::{FLEET, PASSWORD, Sink};
use crate::nodered::NodeRed;
use crate::postgres::Postgres;
use crate::table::{Row, Target, Unit, median};

const ROUNDS: usize = 5;
const LASTS: Duration = Duration::from_secs(4);
/// Heartbeats under way at most: what Ingest holds in memory.
const WINDOW: u64 = 8192;
/// Boxes that the fleet server must know: more than are under way, so that no batch has one of them twice. In a fleet of many
/// boxes that is so, and it costs more than many heartbeats of few.
const BOXES: usize = 3 * BATCH_MAX;
/// Boxes that stand for all where all would be too many to ask: they send in turn.
const SAMPLE: usize = 16;

/// The rows of this room.
///
/// # Errors
/// When nothing is stored.
pub async fn rows() -> Result<Vec<Row>> {
    let mut rows = in_a_file(&Fleet::start(BOXES).await?).await?;
    let postgres = Postgres::start_as_shipped().await;
    let url = postgres.database().await;
    rows.extend(in_postgres(&Fleet::on(Some(&url), BOXES).await?, &url).await?);
    Ok(rows)
}

/// On PostgreSQL, against its COPY of the rows that came of it.
async fn in_postgres(fleet: &Fleet, url: &str) -> Result<Vec<Row>> {
    let pool = PgPool::connect(url).await?;
    // A count of all rows would read them all. Boxes number theirs without a gap.
    let sample: Vec<String> = (0..SAMPLE).map(|n| format!("box{}", n * BOXES / SAMPLE)).collect();
    let sample: Vec<i64> =
        sqlx::query_scalar("SELECT no FROM devices WHERE id = ANY($1)").bind(sample).fetch_all(&pool).await?;
    let stored = async || {
        let sum = "SELECT CAST(SUM(heartbeat_seq) AS BIGINT) FROM device_pulse WHERE device_no = ANY($1)";
        let sum = sqlx::query_scalar::<_, i64>(sum).bind(&sample).fetch_one(&pool).await?;
        anyhow::Ok(u64::try_from(sum.max(0))? * (BOXES / SAMPLE) as u64)
    };
    let (mut ours, mut alone, mut copied) = (Vec::new(), Vec::new(), Vec::new());
    let home = tempfile::tempdir()?;
    let store = Store::open(Some(url), None, home.path()).await?;
    let mut first = 1;
    for _ in 0..ROUNDS {
        ours.push(run(fleet.broker.addr, "hb", &mut first, &stored).await?);
        alone.push(store_alone(&store, &mut first).await?);
        copied.push(copy(&pool).await?);
    }
    store.close().await;
    let bytes = "SELECT CAST(SUM(pg_total_relation_size(relid)) AS DOUBLE PRECISION) / (SELECT COUNT(*) FROM heartbeats) \
                 FROM pg_partition_tree('heartbeats')";
    let bytes = sqlx::query_scalar::<_, f64>(bytes).fetch_one(&pool).await?;
    pool.close().await;
    let size = Row::new("a heartbeat in PostgreSQL, its index included", Unit::Kb, bytes / 1e3);
    let rows =
        [("heartbeats stored (broker, Ingest, PostgreSQL)", ours), ("heartbeats stored (PostgreSQL alone)", alone)];
    let copied = median(&copied).context("no figure")?;
    rows.into_iter()
        .map(|(what, ours)| {
            let ours = median(&ours).context("no figure")?;
            let row = Row::new(what, Unit::PerSecond, ours).against("COPY of these rows", Ok(copied));
            Ok(row.target(Target::RatioAtLeast(0.5)))
        })
        .chain([Ok(size)])
        .collect()
}

/// Heartbeats a second that the store takes in Ingest's batches, without a broker before it.
async fn store_alone(store: &Store, first: &mut u64) -> Result<f64> {
    let org = OrgId::new(ORG)?;
    let (mut stored, mut took) = (0_usize, Duration::ZERO);
    while took < LASTS || !stored.is_multiple_of(BOXES) {
        let mut batch = Vec::with_capacity(BATCH_MAX);
        for n in stored..stored + BATCH_MAX {
            let mut body = Vec::new();
            heartbeat(&mut body, *first + (n / BOXES) as u64)?;
            let device = DeviceAddress { org: org.clone(), device: DeviceId::new(format!("box{}", n % BOXES))? };
            let heartbeat = Box::new(Heartbeat::parse(&body)?);
            let report = Report::Heartbeat { heartbeat, body: String::from_utf8(body)?.into() };
            batch.push(Record { device, received_at: Utc::now(), report });
        }
        let begin = Instant::now();
        let applied = store.apply(&batch).await?;
        took += begin.elapsed();
        ensure!(applied.unknown == 0, "boxes that the database does not know");
        stored += BATCH_MAX;
    }
    *first += (stored / BOXES) as u64;
    Ok(stored as f64 / took.as_secs_f64())
}

/// Rows a second that PostgreSQL copies into a table like that of heartbeats: what it holds now, over one connection.
async fn copy(pool: &PgPool) -> Result<f64> {
    let mut connection = pool.acquire().await?;
    sqlx::raw_sql("DROP TABLE IF EXISTS copied; CREATE TABLE copied (LIKE heartbeats INCLUDING ALL)")
        .execute(&mut *connection)
        .await?;
    let mut rows = Vec::new();
    let mut out = connection.copy_out_raw("COPY (SELECT * FROM heartbeats) TO STDOUT (FORMAT binary)").await?;
    while let Some(chunk) = out.next().await {
        rows.extend_from_slice(&chunk?);
    }
    drop(out);
    let begin = Instant::now();
    let mut into = connection.copy_in_raw("COPY copied FROM STDIN (FORMAT binary)").await?;
    for chunk in rows.chunks(64 * 1024) {
        into.send(chunk).await?;
    }
    let copied = into.finish().await?;
    Ok(copied as f64 / begin.elapsed().as_secs_f64())
}

async fn in_a_file(fleet: &Fleet) -> Result<Vec<Row>> {
    let broker = fleet.broker.addr;
    let database = fleet.home.state("fleet").join("fleet.db");
    let pool = SqlitePool::connect_with(SqliteConnectOptions::new().filename(database).read_only(true)).await?;
    let thrown = Arc::new(AtomicU64::new(0));
    let counter = thrown.clone();
    let filter = format!("r58/1/{ORG}/+/up/hb0");
    let sink = Sink::start(broker, &filter, move || {
        counter.fetch_add(1, Ordering::Relaxed);
    })
    .await?;

    let (mut stored, mut bare) = (Vec::new(), Vec::new());
    let (mut first, mut first_thrown) = (1, 1);
    for _ in 0..ROUNDS {
        let rows = async || {
            let newest =
                sqlx::query_scalar::<_, Option<i64>>("SELECT max(rowid) FROM heartbeats").fetch_one(&pool).await?;
            anyhow::Ok(u64::try_from(newest.unwrap_or(0))?)
        };
        stored.push(run(broker, "hb", &mut first, rows).await?);
        bare.push(run(broker, "hb0", &mut first_thrown, async || anyhow::Ok(thrown.load(Ordering::Relaxed))).await?);
    }
    drop(sink);
    let other = by_node_red(broker).await.map_err(|error| format!("{error:#}"));
    pool.close().await;
    let (stored, bare) = (median(&stored).context("no figure")?, median(&bare).context("no figure")?);
    let what = "heartbeats stored (broker, Ingest, SQLite)";
    Ok(vec![
        Row::new(what, Unit::PerSecond, stored).against("bare subscriber", Ok(bare)).target(Target::RatioAtLeast(0.5)),
        Row::new(what, Unit::PerSecond, stored).against("Node-RED", other).target(Target::RatioAtLeast(10.0)),
        Row::new(format!("{what}, on this machine"), Unit::PerSecond, stored).target(Target::AtLeast(20_000.0)),
    ])
}

/// Heartbeats a second that Node-RED stores.
async fn by_node_red(broker: SocketAddr) -> Result<f64> {
    let other = NodeRed::start(broker, &format!("r58/1/{ORG}/+/up/hb1")).await?;
    let stored = async || {
        tokio::time::sleep(Duration::from_millis(100)).await;
        let count = sqlx::query_scalar::<_, i64>("SELECT COUNT(*) FROM heartbeats").fetch_one(&other.pool).await?;
        anyhow::Ok(u64::try_from(count)?)
    };
    run(broker, "hb1", &mut 1, stored).await
}

/// Heartbeats a second that the receiver of `kind` took; every box numbers its own from `first` on, which is moved on.
async fn run(
    broker: SocketAddr,
    kind: &'static str,
    first: &mut u64,
    taken: impl AsyncFn() -> Result<u64>,
) -> Result<f64> {
    let start = taken().await?;
    let (sent, seen, end) =
        (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
    let source = {
        let (first, sent, seen, end) = (*first, sent.clone(), seen.clone(), end.clone());
        std::thread::spawn(move || publish(broker, kind, first, &sent, &seen, &end))
    };
    let begin = Instant::now();
    let outcome = async {
        let (mut first, mut stuck) = (None, Instant::now());
        loop {
            let now = taken().await?.saturating_sub(start);
            if now > seen.swap(now, Ordering::Relaxed) {
                stuck = Instant::now();
            }
            ensure!(
                stuck.elapsed() < Duration::from_secs(5),
                "{now} taken, {} sent, then nothing",
                sent.load(Ordering::Relaxed)
            );
            // The first second warms up.
            if begin.elapsed() > Duration::from_secs(1) {
                let (at, had) = *first.get_or_insert((Instant::now(), now));
                if at.elapsed() > LASTS {
                    return Ok((now - had) as f64 / at.elapsed().as_secs_f64());
                }
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let outcome = outcome.await;
    end.store(true, Ordering::Relaxed);
    let published = tokio::task::spawn_blocking(move || source.join()).await?;
    published.map_err(|_| anyhow::anyhow!("the source of heartbeats panicked"))??;
    *first += sent.load(Ordering::Relaxed) / BOXES as u64;
    // What is still under way belongs to this round, not to the next one.
    let drained = Instant::now();
    while taken().await?.saturating_sub(start) < sent.load(Ordering::Relaxed)
        && drained.elapsed() < Duration::from_secs(5)
    {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    outcome
}

/// MQTT 3.1.1 by hand, because a client library would take more time for it than the receivers.
fn publish(
    broker: SocketAddr,
    kind: &str,
    first: u64,
    sent: &AtomicU64,
    seen: &AtomicU64,
    end: &AtomicBool,
) -> Result<()> {
    let mut stream = TcpStream::connect(broker)?;
    stream.set_nodelay(true)?;
    let mut hello = vec![0, 4];
    hello.extend(b"MQTT");
    // Version 4, clean session with user name and password, keep alive 60 s.
    hello.extend([4, 0b1100_0010, 0, 60]);
    string(&mut hello, &format!("bench-source-{kind}-{first}"));
    string(&mut hello, FLEET);
    string(&mut hello, PASSWORD);
    let mut connect = vec![0x10];
    length(&mut connect, hello.len());
    connect.extend(hello);
    stream.write_all(&connect)?;
    let mut answer = [0; 4];
    stream.read_exact(&mut answer)?;
    ensure!(answer[0] == 0x20 && answer[3] == 0, "the broker refuses the source: {answer:?}");

    let mut out = BufWriter::with_capacity(64 * 1024, stream);
    let (mut packet, mut body) = (Vec::new(), Vec::new());
    let mut n = 0_u64;
    // To the end of a turn, so that no box has a gap.
    while !end.load(Ordering::Relaxed) || !n.is_multiple_of(BOXES as u64) {
        // Nobody counts any more what is seen once this is over.
        if n.saturating_sub(seen.load(Ordering::Relaxed)) >= WINDOW && !end.load(Ordering::Relaxed) {
            out.flush()?;
            std::thread::sleep(Duration::from_millis(1));
            continue;
        }
        body.clear();
        string(&mut body, &format!("r58/1/{ORG}/box{}/up/{kind}", n % BOXES as u64));
        heartbeat(&mut body, first + n / BOXES as u64)?;
        packet.clear();
        packet.push(0x30);
        length(&mut packet, body.len());
        out.write_all(&packet)?;
        out.write_all(&body)?;
        n += 1;
        sent.store(n, Ordering::Relaxed);
    }
    out.write_all(&[0xE0, 0])?;
    out.flush()?;
    Ok(())
}

fn string(to: &mut Vec<u8>, text: &str) {
    to.extend((text.len() as u16).to_be_bytes());
    to.extend(text.as_bytes());
}

/// MQTT's variable byte integer.
fn length(to: &mut Vec<u8>, mut length: usize) {
    while length >= 128 {
        to.push((length % 128) as u8 | 0x80);
        length /= 128;
    }
    to.push(length as u8);
}

/// What a box with four inputs says, some 1.2 KB.
fn heartbeat(to: &mut Vec<u8>, seq: u64) -> Result<()> {
    static PARTS: LazyLock<String> = LazyLock::new(|| {
        let inputs: Vec<String> = (1..=4)
            .map(|n| format!(r#"{{"id":"cam{n}","label":"CAM {n}","kind":"camera","signal":"live","fps":30}}"#))
            .collect();
        let actors: Vec<String> =
            (1..=8).map(|n| format!(r#"{{"name":"camera cam{n}","state":"running","restarts":0}}"#)).collect();
        format!(r#""inputs":[{}],"actors":[{}]"#, inputs.join(","), actors.join(","))
    });
    write!(
        to,
        r#"{{"ts":"{}","version":"0.1.0","uptime_seconds":{seq},"boot_seq":1,"seq":{seq},"interval_s":60,"boot_id":"3f0c6a1e-5d0a-4c57-9d2f-0d6c9b7f6a11",{},"metrics":{{"cpu_percent":41.5,"mem_percent":63.2,"disk_free_gb":118.4,"disk_total_gb":256.0,"temperature_c":58.1,"load_avg":[1.2,1.1,0.9]}}}}"#,
        Utc::now().to_rfc3339(),
        *PARTS
    )?;
    Ok(())
}
