//! Heartbeats that come very late, and those of boxes that do not know what time it is.

use super::super::downsample::{DAY, HOUR, MINUTE};
use super::super::retention::RetentionPlan;
use super::*;

fn at(millis: i64) -> DateTime<Utc> {
    DateTime::from_timestamp_millis(millis).unwrap()
}

/// A full hour.
const START: i64 = 1_800_000_000_000;

/// A heartbeat every twenty seconds from `from` on, with its number as its value, received at `received`.
fn beats(device: &DeviceAddress, from: i64, seqs: std::ops::Range<u64>, received: i64) -> Vec<Record> {
    seqs.map(|seq| {
        let mut beat = heartbeat(1, seq, seq as f64);
        beat.ts = at(from + 20_000 * i64::try_from(seq).unwrap());
        Record { received_at: at(received), ..record(device, said(beat)) }
    })
    .collect()
}

async fn keep(world: &World, now: i64, plan: &RetentionPlan) {
    world.store.keep_history(plan, at(now)).await.unwrap();
    while world.store.sum_up_once(at(now), plan).await.unwrap() {}
}

#[tokio::test]
async fn what_comes_after_raw_heartbeats_are_gone_is_added_to_the_sums_once() {
    for world in World::both().await {
        let store = &world.store;
        let device = world.enrol("default", "a").await;
        let no = store.device_no("default", "a").await.unwrap().unwrap();
        let plan = RetentionPlan { raw_days: 2, minute_days: 10, hour_days: 400 };
        // Half of two hours came as it was measured, and one of these again later.
        for seq in (0..360).step_by(2) {
            let [one] =
                beats(&device, START, seq..seq + 1, START + 20_000 * i64::try_from(seq).unwrap()).try_into().unwrap();
            store.apply(&[one]).await.unwrap();
        }
        keep(&world, START + DAY, &plan).await;
        let line = async |span| store.metric_series(no, at(START), at(START + DAY), span).await.unwrap();
        let sums = async |span| -> Vec<(i64, f64)> {
            line(span).await.iter().map(|point| point.metrics[0].map(|sum| (sum.count, sum.sum)).unwrap()).collect()
        };
        assert_eq!(sums(HOUR).await, [(90, 8_010.0), (90, 24_210.0)]);
        // The other half comes when raw ones are gone, in pieces that overlap, each piece twice, with looks in between.
        let now = START + 5 * DAY;
        keep(&world, now, &plan).await;
        let odd = |seqs: std::ops::Range<u64>| -> Vec<Record> {
            beats(&device, START, seqs, now).into_iter().skip(1).step_by(2).collect()
        };
        for seqs in [0..200, 0..200, 100..360] {
            store.apply(&odd(seqs.clone())).await.unwrap();
            store.apply(&odd(seqs)).await.unwrap();
            keep(&world, now, &plan).await;
        }
        let whole = [(180, (0..180).sum::<i64>() as f64), (180, (180..360).sum::<i64>() as f64)];
        assert_eq!(sums(HOUR).await, whole);
        let minutes = line(MINUTE).await;
        assert_eq!(minutes.len(), 120);
        assert!(minutes.iter().all(|point| point.metrics[0].unwrap().count == 3), "{minutes:?}");
        // Raw ones are removed once more; what comes again even then is known.
        keep(&world, now + HOUR, &plan).await;
        store.apply(&odd(0..360)).await.unwrap();
        keep(&world, now + HOUR, &plan).await;
        assert_eq!(sums(HOUR).await, whole);
    }
}

#[tokio::test]
async fn what_was_heard_live_above_a_gap_is_not_counted_again_when_its_batch_comes_weeks_later() {
    for world in World::both().await {
        let store = &world.store;
        let device = world.enrol("default", "a").await;
        let no = store.device_no("default", "a").await.unwrap().unwrap();
        let plan = RetentionPlan { raw_days: 2, minute_days: 10, hour_days: 400 };
        // The box says what is now, before it has told what it kept of an outage; then it is gone for days.
        for seq in 60..120 {
            let received = START + 20_000 * i64::try_from(seq).unwrap();
            store.apply(&beats(&device, START, seq..seq + 1, received)).await.unwrap();
        }
        keep(&world, START + DAY, &plan).await;
        let sums = async || -> Vec<(i64, f64)> {
            let hours = store.metric_series(no, at(START), at(START + DAY), HOUR).await.unwrap();
            hours.iter().map(|point| point.metrics[0].map(|sum| (sum.count, sum.sum)).unwrap()).collect()
        };
        assert_eq!(sums().await, [(60, (60..120).sum::<i64>() as f64)]);
        let now = START + 5 * DAY;
        keep(&world, now, &plan).await;
        // Nothing of it was acknowledged, so all of it comes.
        let items = (1..120).map(|seq| {
            let mut beat = heartbeat(1, seq, seq as f64);
            beat.ts = at(START + 20_000 * i64::try_from(seq).unwrap());
            BatchItem { seq, ts: None, data: beat.to_value() }
        });
        let (stream, items) = (Name::new("hb").unwrap(), items.collect());
        let batch = Batch { stream, boot_seq: 1, first_available: 1, items, extra: Default::default() };
        store.apply(&[Record { received_at: at(now), ..record(&device, Report::Batch(batch)) }]).await.unwrap();
        keep(&world, now, &plan).await;
        assert_eq!(sums().await, [(119, (1..120).sum::<i64>() as f64)], "each once");
    }
}

#[tokio::test]
async fn what_is_older_than_minutes_goes_to_its_hour_and_what_is_older_than_hours_nowhere() {
    for world in World::both().await {
        let store = &world.store;
        let device = world.enrol("default", "a").await;
        let no = store.device_no("default", "a").await.unwrap().unwrap();
        let plan = RetentionPlan { raw_days: 1, minute_days: 2, hour_days: 30 };
        let now = START + 20 * DAY;
        keep(&world, now, &plan).await;
        store.apply(&beats(&device, START, 0..180, now)).await.unwrap();
        store.apply(&beats(&device, START - 20 * DAY, 0..180, now)).await.unwrap();
        keep(&world, now, &plan).await;
        let line = async |span| store.metric_series(no, at(START - 30 * DAY), at(now), span).await.unwrap();
        let hours = line(HOUR).await;
        assert_eq!((hours.len(), hours[0].ts, hours[0].metrics[0].unwrap().count), (1, START, 180));
        assert_eq!(line(MINUTE).await, []);
        let left = async || -> i64 {
            let count = query_as("SELECT COUNT(*) FROM heartbeats_overdue").fetch_one(&store.reader).await;
            let (left,): (i64,) = count.unwrap();
            left
        };
        assert_eq!(left().await, 360);
        keep(&world, now + 2 * DAY, &plan).await;
        assert_eq!(left().await, 0, "known for as long as raw ones are kept");
    }
}

/// A heartbeat of a box that began at 1970 with this start of its process.
fn clockless(boot_seq: u64, seq: u64, uptime_seconds: u64) -> Heartbeat {
    let ts = DateTime::from_timestamp(i64::try_from(uptime_seconds).unwrap() + 5, 0).unwrap();
    Heartbeat { ts, uptime_seconds, ..heartbeat(boot_seq, seq, 1.0) }
}

#[tokio::test]
async fn a_box_whose_clock_is_not_set_is_placed_in_time_by_how_long_it_has_been_running() {
    for world in World::both().await {
        let store = &world.store;
        let device = world.enrol("default", "a").await;
        let no = store.device_no("default", "a").await.unwrap().unwrap();
        let live = |beat: Heartbeat, now: i64| Record { received_at: at(now), ..record(&device, said(beat)) };
        let told = |boot_seq: u64, first: u64, beats: Vec<Heartbeat>, now: i64| {
            let items = beats.iter().map(|beat| BatchItem { seq: beat.seq, ts: None, data: beat.to_value() }).collect();
            let stream = Name::new("hb").unwrap();
            let batch = Batch { stream, boot_seq, first_available: first, items, extra: Default::default() };
            Record { received_at: at(now), ..record(&device, Report::Batch(batch)) }
        };
        let times = async || -> Vec<(i64, i64)> {
            let rows: Vec<(i64, i64)> = query_as("SELECT seq, ts FROM heartbeats WHERE device_no = $1 ORDER BY seq")
                .bind(no.0)
                .fetch_all(&store.reader)
                .await
                .unwrap();
            rows
        };
        // Three hours after its start it connects: what it says now, then what it kept, of which some comes twice.
        let now = START + 3 * HOUR;
        store.apply(&[live(clockless(2, 40, 10_800), now)]).await.unwrap();
        // Of the start before it is known that it was over by then.
        let before: Vec<Heartbeat> = (10..13).map(|seq| clockless(1, seq, (seq - 10) * 60)).collect();
        store.apply(&[told(2, 10, before, now + 500)]).await.unwrap();
        assert_eq!(times().await[..3], [(10, START - 2 * MINUTE), (11, START - MINUTE), (12, START)]);
        let kept: Vec<Heartbeat> = (30..40).map(|seq| clockless(2, seq, (seq - 30) * 60)).collect();
        store.apply(&[told(2, 30, kept.clone(), now + 1_000)]).await.unwrap();
        store.apply(&[told(2, 30, [kept, vec![clockless(2, 40, 10_800)]].concat(), now + 9_000)]).await.unwrap();
        let expected: Vec<(i64, i64)> =
            (30..40).map(|seq| (seq, START + (seq - 30) * MINUTE)).chain([(40, now)]).collect();
        assert_eq!(times().await[3..], expected);
        // They are in a history of the day, and in its sums.
        let (rows, total) = store.heartbeats(no, at(now) - Duration::days(1), 0, 100).await.unwrap();
        assert_eq!((rows.len(), total), (14, 14));
        keep(&world, now + 3 * HOUR, &RetentionPlan::default()).await;
        let hours = store.metric_series(no, at(START - HOUR), at(now + HOUR), HOUR).await.unwrap();
        let counts: Vec<i64> = hours.iter().map(|point| point.metrics[0].unwrap().count).collect();
        assert_eq!(counts, [2, 11, 1]);
        assert!(world.card("a").await.heartbeat.is_some_and(|body| body.contains("\"seq\":40")));
    }
}

#[tokio::test]
async fn a_word_that_was_long_on_its_way_is_put_right_by_one_that_came_faster() {
    let world = World::new(None).await;
    let device = world.enrol("default", "a").await;
    let no = world.store.device_no("default", "a").await.unwrap().unwrap();
    let live = |beat: Heartbeat, now: i64| Record { received_at: at(now), ..record(&device, said(beat)) };
    world.store.apply(&[live(clockless(1, 1, 60), START + HOUR)]).await.unwrap();
    world.store.apply(&[live(clockless(1, 2, 3_600), START + HOUR)]).await.unwrap();
    // The first one again: it stays where it is, and is not another one.
    world.store.apply(&[live(clockless(1, 1, 60), START + HOUR + MINUTE)]).await.unwrap();
    // By HTTP, of before there were starts to count.
    world.store.apply(&[live(clockless(0, 3, 0), START + 2 * HOUR)]).await.unwrap();
    // Nonsense stays within bounds.
    world.store.apply(&[live(Heartbeat { uptime_seconds: u64::MAX, ..clockless(7, 4, 0) }, START)]).await.unwrap();
    let (rows, _) = world.store.heartbeats(no, DateTime::UNIX_EPOCH, 0, 10).await.unwrap();
    let times: Vec<i64> = rows.iter().map(|row| row.ts).collect();
    assert_eq!(times, [START + 2 * HOUR, START + HOUR, START + HOUR, START]);
}
