//! Heartbeats over time: summed up, read back as lines, and removed.

use super::super::downsample::{DAY, HOUR, MINUTE};
use super::super::levels::HOURS;
use super::super::retention::RetentionPlan;
use super::*;

fn at(millis: i64) -> DateTime<Utc> {
    DateTime::from_timestamp_millis(millis).unwrap()
}

/// Half past something.
const START: i64 = 1_800_001_800_000;

/// A heartbeat every twenty seconds from `from` on, received at once.
fn beats(device: &DeviceAddress, from: i64, seqs: std::ops::Range<u64>) -> Vec<Record> {
    seqs.map(|seq| {
        let mut beat = heartbeat(1, seq, (seq % 50) as f64);
        beat.ts = at(from + 20_000 * i64::try_from(seq).unwrap());
        let received_at = beat.ts;
        Record { received_at, ..record(device, said(beat)) }
    })
    .collect()
}

async fn sum_up(world: &World, now: i64, plan: &RetentionPlan) {
    while world.store.sum_up_once(at(now), plan).await.unwrap() {}
}

#[tokio::test]
async fn a_line_says_the_same_whether_it_is_read_from_hours_minutes_or_what_came() {
    for world in World::both().await {
        let device = world.enrol("default", "a").await;
        world.enrol("default", "silent").await;
        let no = world.store.device_no("default", "a").await.unwrap().unwrap();
        world.store.apply(&beats(&device, START, 0..720)).await.unwrap();
        let end = START + 4 * HOUR;
        let line = async |span| world.store.metric_series(no, at(START), at(end), span).await.unwrap();
        let as_it_came = (line(MINUTE).await, line(HOUR).await, line(DAY).await);
        let figures = world.store.metrics(no, at(START)).await.unwrap();
        assert_eq!((as_it_came.0.len(), as_it_came.1.len()), (240, 5));
        let plan = RetentionPlan { raw_days: 1, ..RetentionPlan::default() };
        world.store.keep_history(&plan, at(end)).await.unwrap();
        sum_up(&world, end, &plan).await;
        assert!(world.store.summed_upto().await.unwrap().unwrap() > START + 2 * HOUR);
        assert_eq!((line(MINUTE).await, line(HOUR).await, line(DAY).await), as_it_came);
        assert_eq!(world.store.metrics(no, at(START)).await.unwrap(), figures);
        // Twice is no more than once.
        query("DELETE FROM summed_up").execute(&world.store.writer).await.unwrap();
        sum_up(&world, end, &plan).await;
        assert_eq!((line(MINUTE).await, line(HOUR).await, line(DAY).await), as_it_came);
    }
}

#[tokio::test]
async fn hours_in_which_nobody_said_anything_are_passed_over() {
    for world in World::both().await {
        let device = world.enrol("default", "a").await;
        let no = world.store.device_no("default", "a").await.unwrap().unwrap();
        let plan = RetentionPlan { raw_days: 14, ..RetentionPlan::default() };
        let parts = async |now| {
            let mut parts = 0;
            while world.store.sum_up_once(at(now), &plan).await.unwrap() {
                parts += 1;
            }
            parts
        };
        // Nobody yet: a day at a time to the hour that is not over.
        assert_eq!(parts(START).await, 14);
        let first = world.store.summed_upto().await.unwrap().unwrap();
        assert!((START - 2 * HOUR..=START).contains(&first), "{first}");
        // A word now and then, and a server that was away for days between them.
        world.store.apply(&beats(&device, START, 0..1)).await.unwrap();
        world.store.apply(&beats(&device, START + 5 * DAY, 1..91)).await.unwrap();
        let now = START + 5 * DAY + 30 * HOUR;
        let parts = parts(now).await;
        assert!((10..20).contains(&parts), "{parts} parts");
        let upto = world.store.summed_upto().await.unwrap().unwrap();
        assert!((now - 2 * HOUR..=now).contains(&upto), "{upto}");
        let hours = world.store.points(no, HOURS, 0, i64::MAX).await.unwrap();
        let counts: Vec<i64> = hours.iter().map(|point| point.metrics[0].unwrap().count).collect();
        assert_eq!(counts, [1, 89, 1], "as in every hour");
    }
}

#[tokio::test]
async fn what_comes_days_late_is_in_the_sums_too() {
    for world in World::both().await {
        let device = world.enrol("default", "a").await;
        let no = world.store.device_no("default", "a").await.unwrap().unwrap();
        let plan = RetentionPlan { raw_days: 4, ..RetentionPlan::default() };
        let now = START + 3 * DAY;
        world.store.apply(&beats(&device, START, 0..90)).await.unwrap();
        sum_up(&world, now, &plan).await;
        let late: Vec<Record> =
            beats(&device, START, 90..360).into_iter().map(|late| Record { received_at: at(now), ..late }).collect();
        world.store.apply(&late).await.unwrap();
        sum_up(&world, now, &plan).await;
        let line = world.store.metric_series(no, at(START), at(now), HOUR).await.unwrap();
        let counts: Vec<i64> = line.iter().map(|point| point.metrics[0].unwrap().count).collect();
        assert_eq!(counts, [90, 180, 90]);
        let (left,): (i64,) =
            query_as("SELECT COUNT(*) FROM heartbeats_late").fetch_one(&world.store.reader).await.unwrap();
        assert_eq!(left, 0);
    }
}

#[tokio::test]
async fn old_heartbeats_go_their_sums_stay_and_a_silent_box_keeps_its_last_word() {
    for world in World::both().await {
        let device = world.enrol("default", "a").await;
        let no = world.store.device_no("default", "a").await.unwrap().unwrap();
        let plan = RetentionPlan { raw_days: 2, minute_days: 10, hour_days: 400 };
        let now = START + HOUR;
        // Before there is a partition for it, and with a clock that is years ahead.
        world.store.apply(&beats(&device, START, 0..100)).await.unwrap();
        let mut ahead = heartbeat(0, 1, 1.0);
        ahead.ts = at(START + 4_000 * DAY);
        let ahead = Record { received_at: at(START), ..record(&device, said(ahead)) };
        world.store.apply(&[ahead]).await.unwrap();
        let stored = async || world.store.heartbeats(no, DateTime::UNIX_EPOCH, 0, 1).await.unwrap().1;
        world.store.keep_history(&plan, at(now)).await.unwrap();
        sum_up(&world, now + HOUR, &plan).await;
        assert_eq!(stored().await, 101);
        world.store.keep_history(&plan, at(now + 5 * DAY)).await.unwrap();
        assert_eq!(stored().await, 1, "its latest");
        let current = Heartbeat::parse(world.card("a").await.heartbeat.unwrap().as_bytes()).unwrap();
        assert_eq!(current.seq, 99);
        let line = async |span| world.store.metric_series(no, at(START), at(now), span).await.unwrap().len();
        assert_eq!((line(MINUTE).await, line(HOUR).await), (34, 2));
        world.store.keep_history(&plan, at(now + 80 * DAY)).await.unwrap();
        assert_eq!(line(HOUR).await, 2);
        // Years later, with a clock that jumped: there is room for what comes, and nothing is left of what was.
        let later = START + 3_000 * DAY;
        world.store.keep_history(&plan, at(later)).await.unwrap();
        assert_eq!((line(MINUTE).await, line(HOUR).await, stored().await), (0, 0, 1));
        world.store.apply(&beats(&device, later, 1_000..1_010)).await.unwrap();
        world.store.keep_history(&plan, at(later)).await.unwrap();
        assert_eq!(stored().await, 10, "another one is the latest now");
        // And back again.
        world.store.keep_history(&plan, at(now)).await.unwrap();
        world.store.apply(&beats(&device, now, 2_000..2_010)).await.unwrap();
        assert_eq!(stored().await, 20);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_batches_at_the_same_time_the_latest_heartbeat_counts_and_no_acknowledgement_is_taken_back() {
    const AT_ONCE: u64 = 6;
    for world in World::both().await {
        let devices = ["a", "b", "c"].map(|id| address("default", id));
        for device in &devices {
            world.enrol("default", device.device.as_str()).await;
        }
        for round in 0..20 {
            let seqs = round * AT_ONCE + 1..=(round + 1) * AT_ONCE;
            let batches: Vec<Vec<Record>> =
                seqs.clone().map(|seq| devices.iter().map(|device| beat(device, seq)).collect()).collect();
            let takes = batches.iter().map(|batch| world.store.take(batch));
            let applied = futures_util::future::try_join_all(takes).await.unwrap();
            for device in &devices {
                let no = world.store.device_no("default", device.device.as_str()).await.unwrap().unwrap();
                let (latest, mark): (i64, i64) =
                    query_as("SELECT heartbeat_seq, heartbeat_mark FROM device_pulse WHERE device_no = $1")
                        .bind(no.0)
                        .fetch_one(&world.store.reader)
                        .await
                        .unwrap();
                assert_eq!(latest.unsigned_abs(), *seqs.end());
                let told = applied.iter().filter_map(|applied| acked(applied, device, "hb")).max();
                assert!(told <= Some(mark.unsigned_abs()), "{told:?} was acknowledged, {mark} is stored");
                // What came out of turn is told again with the rest, as a box does.
                let all: Vec<u64> = seqs.clone().collect();
                world.store.take(&[batch(device, *seqs.start(), &all)]).await.unwrap();
            }
        }
        for device in &devices {
            let no = world.store.device_no("default", device.device.as_str()).await.unwrap().unwrap();
            let (_, stored) = world.store.heartbeats(no, DateTime::UNIX_EPOCH, 0, 1).await.unwrap();
            assert_eq!(stored.unsigned_abs(), 20 * AT_ONCE);
        }
    }
}
