//! Order, loss, size and restarts of the outbox.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::durable::Memory;
use crate::id::CommandId;

fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

fn hb() -> Up {
    Up::Telemetry(name("hb"))
}

fn status(n: usize) -> Up {
    Up::CommandStatus(CommandId::new(format!("c{n}")).unwrap())
}

fn config(max_bytes: u64) -> OutboxConfig {
    OutboxConfig { limits: Limits { max_bytes, ..Limits::default() }, boot_seq: 1, first_seq: 1 }
}

fn open(store: &Arc<Memory>, now: Instant, config: OutboxConfig) -> Outbox {
    let store: Arc<dyn KeyValue> = store.clone();
    Outbox::open(now, store, config).unwrap()
}

fn body(seq: u64) -> Vec<u8> {
    json!({"n": seq}).to_string().into_bytes()
}

fn batch_seqs(outgoing: &Outgoing) -> Vec<u64> {
    Batch::parse(&outgoing.payload).unwrap().items.iter().map(|item| item.seq).collect()
}

#[test]
fn results_go_before_events_before_telemetry() {
    let (store, now) = (Arc::new(Memory::new()), Instant::now());
    let mut outbox = open(&store, now, config(1 << 20));
    outbox.enqueue(now, &hb(), None, body).unwrap();
    outbox.enqueue(now, &Up::Event(name("alarm")), None, body).unwrap();
    outbox.enqueue(now, &status(1), None, |_| b"{}".to_vec()).unwrap();
    let order: Vec<Up> = std::iter::from_fn(|| outbox.next_batch(now).unwrap()).map(|out| out.up).collect();
    assert_eq!(order, [status(1), Up::Event(name("alarm")), hb()]);
}

#[test]
fn nothing_is_published_before_it_is_durable() {
    let (store, now) = (Arc::new(Memory::new()), Instant::now());
    let mut outbox = open(&store, now, config(1 << 20));
    let staged = outbox.stage(now, &status(1), Duration::ZERO, None, |_| b"{}".to_vec()).unwrap();
    assert_eq!(outbox.next_batch(now).unwrap(), None);
    store.commit(staged.changes).unwrap();
    outbox.committed(staged.order);
    assert!(outbox.next_batch(now).unwrap().is_some());
}

#[test]
fn a_held_heartbeat_is_sent_in_a_batch_only_when_the_server_stays_silent() {
    let (store, now) = (Arc::new(Memory::new()), Instant::now());
    let mut outbox = open(&store, now, config(1 << 20));
    let hold = Duration::from_secs(120);
    for _ in 0..3 {
        let staged = outbox.stage(now, &hb(), hold, None, body).unwrap();
        store.commit(staged.changes).unwrap();
        outbox.committed(staged.order);
    }
    assert_eq!(outbox.next_batch(now).unwrap(), None);
    assert_eq!(outbox.poll_timeout(), Some(now + hold));
    outbox.acked_through(now, &name("hb"), 1).unwrap();
    let sent = outbox.next_batch(now + hold).unwrap().unwrap();
    assert_eq!(batch_seqs(&sent), [2, 3]);
    let batch = Batch::parse(&sent.payload).unwrap();
    assert_eq!((batch.first_available, batch.items[0].data["n"].as_u64()), (2, Some(2)));
    outbox.acked(now + hold, sent.ticket);
    assert_eq!(outbox.pending(), 2, "a PUBACK is not the server's word");
    let later = now + hold + Limits::default().resend_after;
    assert_eq!(batch_seqs(&outbox.next_batch(later).unwrap().unwrap()), [2, 3]);
    outbox.acked_through(later, &name("hb"), 3).unwrap();
    assert_eq!((outbox.pending(), store.scan(ENTRY).unwrap().len()), (0, 0));
}

#[test]
fn the_oldest_telemetry_goes_overboard_first_and_results_never() {
    let (store, now) = (Arc::new(Memory::new()), Instant::now());
    let mut outbox = open(&store, now, config(2_000));
    let blob = |_| vec![b'x'; 180];
    for n in 0..5 {
        outbox.enqueue(now, &status(n), None, blob).unwrap();
    }
    for _ in 0..20 {
        outbox.enqueue(now, &hb(), None, blob).unwrap();
    }
    assert_eq!(outbox.dropped(), 16);
    for n in 5..30 {
        outbox.enqueue(now, &status(n), None, blob).unwrap();
    }
    assert_eq!(outbox.dropped(), 20, "all telemetry, no result");
    assert!(outbox.enqueue(now, &hb(), None, blob).is_err());
    assert!(outbox.enqueue(now, &Up::Event(name("e")), None, blob).is_err());
    assert_eq!((outbox.dropped(), outbox.pending()), (22, 30));
    let outbox = open(&store, now, config(2_000));
    assert_eq!((outbox.dropped(), outbox.pending()), (22, 30), "counts survive a restart");
}

#[test]
fn numbers_grow_across_restarts_even_of_an_empty_stream() {
    let (store, now) = (Arc::new(Memory::new()), Instant::now());
    let mut outbox = open(&store, now, config(1 << 20));
    assert_eq!(outbox.enqueue(now, &hb(), None, body).unwrap(), 1);
    outbox.acked_through(now, &name("hb"), 1).unwrap();
    let mut outbox = open(&store, now, config(1 << 20));
    assert_eq!(outbox.pending(), 0);
    assert_eq!(outbox.enqueue(now, &hb(), None, body).unwrap(), 2);
}

#[test]
fn an_outbox_whose_disk_was_wiped_without_a_clock_takes_new_numbers_above_the_servers() {
    let (store, now) = (Arc::new(Memory::new()), Instant::now());
    let mut outbox = open(&store, now, config(1 << 20));
    for _ in 0..3 {
        outbox.enqueue(now, &hb(), None, body).unwrap();
    }
    let sent = outbox.next_batch(now).unwrap().unwrap();
    outbox.acked_through(now, &name("hb"), 900).unwrap();
    assert_eq!(outbox.pending(), 3, "nothing of it was stored");
    outbox.acked(now, sent.ticket);
    assert_eq!(batch_seqs(&outbox.next_batch(now).unwrap().unwrap()), [901, 902, 903]);
    let mut outbox = open(&store, now, config(1 << 20));
    assert_eq!(outbox.enqueue(now, &hb(), None, body).unwrap(), 904);
    let wall = Utc.timestamp_opt(1_800_000_000, 0).single();
    assert!(fresh_seq(wall) > 1_700_000_000 << 20 && fresh_seq(wall) < 1 << 53);
    assert_eq!(fresh_seq(None), 1);
}

#[test]
fn rows_that_make_no_sense_are_dropped_and_do_not_stop_the_rest() {
    let (store, now) = (Arc::new(Memory::new()), Instant::now());
    let mut outbox = open(&store, now, config(1 << 20));
    outbox.enqueue(now, &status(1), None, |_| b"{}".to_vec()).unwrap();
    let mut garbage = Changes::new();
    garbage.put([ENTRY, b"cmd/", &9u64.to_be_bytes()].concat(), b"short".to_vec());
    garbage.put([ENTRY, b"nowhere"].concat(), b"".to_vec());
    garbage.put([ENTRY, b"cmd/", &7u64.to_be_bytes()].concat(), {
        let entry = Entry { order: 9, ts_ms: 0, target: "no/such/topic".into(), body: Vec::new() };
        entry.write()
    });
    store.commit(garbage).unwrap();
    let mut outbox = open(&store, now, config(1 << 20));
    let sent: Vec<Up> = std::iter::from_fn(|| outbox.next_batch(now).unwrap()).map(|out| out.up).collect();
    assert_eq!(sent, [status(1)]);
    assert_eq!(store.scan(ENTRY).unwrap().len(), 1);
}

#[test]
fn telemetry_that_cannot_be_read_does_not_hold_up_what_lies_behind_it() {
    let (store, now) = (Arc::new(Memory::new()), Instant::now());
    let mut outbox = open(&store, now, config(1 << 20));
    for n in 1..=5 {
        outbox.enqueue(now, &hb(), None, |seq| if n == 3 { b"{half".to_vec() } else { body(seq) }).unwrap();
    }
    let sent = outbox.next_batch(now).unwrap().unwrap();
    assert_eq!((batch_seqs(&sent), outbox.dropped(), outbox.pending()), (vec![1, 2, 4, 5], 1, 4));
    outbox.acked(now, sent.ticket);
    let have = Batch::parse(&sent.payload).unwrap().contiguous_after(0);
    assert_eq!(have, 2, "3 could still come, as far as the server knows");
    outbox.acked_through(now, &name("hb"), have).unwrap();
    let later = now + Limits::default().resend_after;
    let again = outbox.next_batch(later).unwrap().unwrap();
    assert_eq!(Batch::parse(&again.payload).unwrap().contiguous_after(have), 5);
}

#[test]
fn a_message_the_broker_never_takes_is_given_up_and_counted() {
    let (store, now) = (Arc::new(Memory::new()), Instant::now());
    let mut outbox = open(&store, now, config(1 << 20));
    outbox.enqueue(now, &hb(), None, body).unwrap();
    outbox.enqueue(now, &status(1), None, body).unwrap();
    while let Some(out) = outbox.next_batch(now).unwrap() {
        outbox.give_up(out.ticket);
        outbox.give_up(out.ticket);
    }
    assert_eq!((outbox.pending(), outbox.dropped(), store.scan(ENTRY).unwrap().len()), (0, 2, 0));
}

#[test]
fn an_impossible_acknowledgement_is_ignored() {
    let (store, now) = (Arc::new(Memory::new()), Instant::now());
    let mut outbox = open(&store, now, config(1 << 20));
    outbox.enqueue(now, &hb(), None, body).unwrap();
    outbox.acked_through(now, &name("hb"), u64::MAX).unwrap();
    outbox.acked_through(now, &name("hb"), MAX_SEQ).unwrap();
    assert_eq!((outbox.pending(), outbox.enqueue(now, &hb(), None, body).unwrap()), (1, 2));
}

#[test]
fn a_long_backlog_is_worked_off_in_order_and_in_time() {
    let (store, now) = (Arc::new(Memory::new()), Instant::now());
    let mut outbox = open(&store, now, config(64 << 20));
    for n in 0..5_000 {
        outbox.enqueue(now, &status(n), None, |_| b"{}".to_vec()).unwrap();
        outbox.enqueue(now, &hb(), None, body).unwrap();
    }
    outbox.next_batch(now).unwrap().unwrap();
    outbox.disconnected(now);
    let (mut results, mut items) = (Vec::new(), Vec::new());
    while let Some(out) = outbox.next_batch(now).unwrap() {
        match out.up {
            Up::CommandStatus(_) => results.push(out.seq),
            _ => items.extend(batch_seqs(&out)),
        }
        outbox.acked(now, out.ticket);
    }
    assert_eq!(results, (1..=5_000).collect::<Vec<_>>());
    assert_eq!(items, results);
}

#[test]
fn topics_that_are_not_durable_are_a_bug() {
    let (store, now) = (Arc::new(Memory::new()), Instant::now());
    let mut outbox = open(&store, now, config(1 << 20));
    assert!(matches!(outbox.enqueue(now, &Up::Presence, None, body), Err(MqttError::Bug(_))));
}

#[derive(Debug, Clone)]
enum Act {
    Telemetry,
    Event,
    Result,
    Send,
    Puback(usize),
    ServerStores,
    Disconnect,
    Restart,
    Pass(u64),
}

fn any_act() -> impl Strategy<Value = Act> {
    prop_oneof![
        4 => Just(Act::Telemetry),
        2 => Just(Act::Event),
        3 => Just(Act::Result),
        6 => Just(Act::Send),
        5 => (0..8usize).prop_map(Act::Puback),
        3 => Just(Act::ServerStores),
        1 => Just(Act::Disconnect),
        1 => Just(Act::Restart),
        2 => (1..300u64).prop_map(Act::Pass),
    ]
}

/// What the other end has seen.
#[derive(Default)]
struct Server {
    results: Vec<u64>,
    events: Vec<u64>,
    telemetry: BTreeSet<u64>,
    contiguous: u64,
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn every_result_arrives_in_order_and_telemetry_is_stored_or_counted_as_dropped(
        acts in prop::collection::vec(any_act(), 1..150),
        small in any::<bool>(),
    ) {
        let store = Arc::new(Memory::new());
        let mut now = Instant::now();
        let config = config(if small { 1_500 } else { 1 << 20 });
        let mut outbox = open(&store, now, config.clone());
        let mut server = Server::default();
        let mut flying: Vec<Outgoing> = Vec::new();
        let (mut results, mut offered, mut refused) = (0u64, 0u64, 0u64);
        let mut acts = acts;
        // At the end the line is good and the server answers.
        for _ in 0..300 {
            acts.extend([Act::Send, Act::Puback(0), Act::ServerStores]);
        }
        acts.extend([Act::Pass(300), Act::Send, Act::Puback(0), Act::ServerStores]);
        for act in acts {
            match act {
                Act::Telemetry => {
                    offered += 1;
                    refused += u64::from(outbox.enqueue(now, &hb(), None, body).is_err());
                }
                Act::Event => drop(outbox.enqueue(now, &Up::Event(name("e")), None, body)),
                Act::Result => {
                    results = outbox.enqueue(now, &status(1), None, body).unwrap();
                }
                Act::Send => {
                    if let Some(outgoing) = outbox.next_batch(now).unwrap() {
                        prop_assert!(flying.len() < Limits::default().window);
                        flying.push(outgoing);
                    }
                }
                Act::Puback(n) if !flying.is_empty() => {
                    // Brokers acknowledge in order; the server sees a message when the broker has it.
                    for outgoing in flying.drain(..=n.min(flying.len() - 1)) {
                        match &outgoing.up {
                            Up::CommandStatus(_) => server.results.push(outgoing.seq),
                            Up::Event(_) => server.events.push(outgoing.seq),
                            _ => {
                                let batch = Batch::parse(&outgoing.payload).unwrap();
                                server.telemetry.extend(batch.items.iter().map(|item| item.seq));
                                server.contiguous = batch.contiguous_after(server.contiguous);
                                while server.telemetry.contains(&(server.contiguous + 1)) {
                                    server.contiguous += 1;
                                }
                            }
                        }
                        outbox.acked(now, outgoing.ticket);
                    }
                }
                Act::Puback(_) => {}
                Act::ServerStores => outbox.acked_through(now, &name("hb"), server.contiguous).unwrap(),
                Act::Disconnect => {
                    flying.clear();
                    outbox.disconnected(now);
                }
                Act::Restart => {
                    flying.clear();
                    outbox = open(&store, now, config.clone());
                }
                Act::Pass(seconds) => now += Duration::from_secs(seconds),
            }
        }
        // Results: all, and in order once repetitions are set aside.
        let mut first_seen = BTreeMap::new();
        for (place, seq) in server.results.iter().enumerate() {
            first_seen.entry(*seq).or_insert(place);
        }
        prop_assert_eq!(first_seen.len() as u64, results);
        prop_assert!(first_seen.values().is_sorted());
        let mut events = BTreeMap::new();
        for (place, seq) in server.events.iter().enumerate() {
            events.entry(*seq).or_insert(place);
        }
        prop_assert!(events.values().is_sorted());
        // Telemetry: stored or counted.
        prop_assert_eq!(outbox.pending(), 0);
        let missing = offered - server.telemetry.len() as u64;
        prop_assert!(missing <= outbox.dropped(), "{} missing, {} dropped", missing, outbox.dropped());
        prop_assert!(refused <= outbox.dropped());
    }
}
