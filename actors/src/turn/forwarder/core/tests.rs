//! The choice of roads, in virtual time.

use proptest::prelude::*;

use super::*;

const UDP: &str = "turn:t.example:3478?transport=udp";
const TCP: &str = "turn:t.example:3478?transport=tcp";
const TLS: &str = "turns:t.example:443?transport=tcp";
const LOCAL: &str = "turn:127.0.0.1:40000?transport=udp";
const RTT: Duration = Duration::from_millis(12);

fn entry(urls: &[&str], credential: &str) -> IceServer {
    IceServer {
        urls: urls.iter().map(|url| (*url).to_owned()).collect(),
        username: Some("u".to_owned()),
        credential: Some(credential.to_owned()),
    }
}

struct World {
    core: ForwarderCore,
    now: Instant,
}

impl World {
    fn new(entries: &[IceServer]) -> Self {
        let mut world = Self { core: ForwarderCore::default(), now: Instant::now() };
        world.give(entries);
        world
    }

    fn give(&mut self, entries: &[IceServer]) {
        self.core.handle(self.now, Input::Servers(entries.to_vec()));
    }

    /// Carries everything out; a probe is answered by `answer`.
    fn settle(&mut self, answer: Option<Duration>) -> Vec<Output> {
        let mut done = Vec::new();
        while let Some(output) = self.core.poll_output() {
            match output.clone() {
                Output::Open(key) => {
                    self.core.handle(self.now, Input::Opened { key, url: Some(LOCAL.to_owned()) });
                }
                Output::Probe(targets) => {
                    self.core.handle(self.now, Input::Probed { targets, answer, jitter: 0.5 });
                }
                Output::Changed => {}
            }
            done.push(output);
        }
        done
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
        self.core.handle_timeout(self.now);
    }

    fn urls(&self) -> Vec<String> {
        self.core.for_peers().into_iter().flat_map(|server| server.urls).collect()
    }

    fn probes(outputs: &[Output]) -> usize {
        outputs.iter().filter(|output| matches!(output, Output::Probe(_))).count()
    }
}

#[test]
fn a_box_whose_udp_works_uses_it_alone_and_is_asked_again_every_minute() {
    let mut world = World::new(&[entry(&[UDP, TCP, TLS], "c")]);
    world.settle(Some(RTT));
    assert_eq!(world.urls(), [UDP]);
    assert_eq!(world.core.standings()[0].udp, Udp::Answers(RTT));
    world.pass(PROBE_EVERY - Duration::from_secs(1));
    assert_eq!(World::probes(&world.settle(Some(RTT))), 0);
    world.pass(Duration::from_secs(1));
    assert_eq!(World::probes(&world.settle(Some(RTT))), 1);
}

#[test]
fn until_the_first_probe_is_back_peers_get_both_roads() {
    let mut world = World::new(&[entry(&[UDP, TLS], "c")]);
    let open = Output::Open(vec![IceUrl::parse(TLS).unwrap()]);
    assert_eq!(world.core.poll_output(), Some(open.clone()));
    let Output::Open(key) = open else { unreachable!() };
    world.core.handle(world.now, Input::Opened { key, url: Some(LOCAL.to_owned()) });
    assert_eq!(world.urls(), [UDP, LOCAL]);
}

#[test]
fn where_udp_is_silent_from_the_start_peers_get_the_forwarder_with_the_same_credential() {
    let mut world = World::new(&[IceServer::stun("stun:s.example:3478"), entry(&[UDP, TCP, TLS], "c")]);
    world.settle(None);
    assert_eq!(world.core.for_peers(), [IceServer::stun("stun:s.example:3478"), entry(&[LOCAL], "c")]);
    let [standing] = &world.core.standings()[..] else { panic!("one server") };
    assert_eq!((standing.udp, standing.by_udp), (Udp::Silent, false));
    assert_eq!(standing.forwarded.as_ref().unwrap().len(), 2);
}

#[test]
fn one_lost_probe_gives_both_roads_a_second_one_the_forwarder_and_an_answer_udp_again() {
    let mut world = World::new(&[entry(&[UDP, TLS], "c")]);
    world.settle(Some(RTT));
    world.pass(PROBE_EVERY);
    world.settle(None);
    assert_eq!((world.urls(), world.core.standings()[0].udp), (vec![UDP.into(), LOCAL.into()], Udp::Doubtful));
    world.pass(PROBE_AGAIN);
    world.settle(None);
    assert_eq!(world.urls(), [LOCAL]);
    world.pass(PROBE_EVERY);
    world.settle(Some(RTT));
    assert_eq!(world.urls(), [UDP]);
    assert_eq!(world.core.needed(), Vec::<Key>::new());
}

#[test]
fn a_server_by_udp_alone_keeps_it_though_it_is_silent_and_one_by_tls_alone_is_forwarded_without_a_probe() {
    let mut world = World::new(&[entry(&[UDP], "a"), entry(&[TLS], "b")]);
    assert_eq!(World::probes(&world.settle(None)), 1);
    assert_eq!(world.core.for_peers(), [entry(&[UDP], "a"), entry(&[LOCAL], "b")]);
    assert_eq!(world.core.standings()[1].udp, Udp::NotOffered);
}

#[test]
fn without_a_forwarder_a_silent_server_is_still_tried_by_udp() {
    let mut world = World::new(&[entry(&[UDP, TLS], "c")]);
    while let Some(output) = world.core.poll_output() {
        match output {
            Output::Open(key) => world.core.handle(world.now, Input::Opened { key, url: None }),
            Output::Probe(targets) => {
                world.core.handle(world.now, Input::Probed { targets, answer: None, jitter: 0.0 });
                break;
            }
            Output::Changed => {}
        }
    }
    assert_eq!(world.urls(), [UDP]);
}

#[test]
fn urls_of_one_credential_in_several_entries_are_one_server() {
    let mut world = World::new(&[entry(&[UDP], "c"), entry(&[TLS], "c"), entry(&[TCP], "c")]);
    assert_eq!(World::probes(&world.settle(None)), 1);
    assert_eq!(world.core.for_peers(), [entry(&[LOCAL], "c")]);
}

#[test]
fn a_new_credential_for_the_same_server_is_probed_at_once_and_keeps_what_is_known_meanwhile() {
    let mut world = World::new(&[entry(&[UDP, TLS], "old")]);
    world.settle(None);
    world.pass(Duration::from_secs(10));
    world.give(&[entry(&[UDP, TLS], "new")]);
    assert_eq!(world.core.for_peers(), [entry(&[LOCAL], "new")]);
    let done = world.settle(None);
    assert_eq!(World::probes(&done), 1);
    assert!(!done.iter().any(|output| matches!(output, Output::Open(_))), "the forwarder stays: {done:?}");
}

#[test]
fn a_lost_probe_is_asked_anew() {
    let mut world = World::new(&[entry(&[UDP, TLS], "c")]);
    while world.core.poll_output().is_some() {}
    world.pass(PROBE_LOST_AFTER - Duration::from_secs(1));
    assert_eq!(World::probes(&world.settle(None)), 0);
    world.pass(Duration::from_secs(1));
    assert_eq!(World::probes(&world.settle(None)), 1);
}

proptest! {
    #[test]
    fn whatever_happens_peers_keep_a_way_and_get_no_stream_url_and_no_server_is_asked_twice_at_once(
        steps in proptest::collection::vec((0u8..5, 0u64..90, any::<bool>()), 1..120)
    ) {
        let sets = [
            vec![entry(&[UDP, TCP, TLS], "a")],
            vec![entry(&[UDP], "a"), entry(&[TLS], "b")],
            vec![entry(&[TCP], "a"), entry(&["turn:other.example"], "a")],
        ];
        let mut world = World::new(&sets[0]);
        let (mut open, mut stands): (Vec<Vec<IceUrl>>, Vec<Key>) = (Vec::new(), Vec::new());
        for (what, seconds, good) in steps {
            match what {
                0 => world.give(&sets[(seconds % 3) as usize]),
                1 if !open.is_empty() => {
                    let targets = open.remove(0);
                    let answer = good.then_some(RTT);
                    world.core.handle(world.now, Input::Probed { targets, answer, jitter: 0.3 });
                }
                2 if !stands.is_empty() => {
                    let key = stands.remove(0);
                    world.core.handle(world.now, Input::Opened { key, url: good.then(|| LOCAL.to_owned()) });
                }
                _ => {
                    world.pass(Duration::from_secs(seconds));
                    if Duration::from_secs(seconds) >= PROBE_LOST_AFTER {
                        open.clear();
                    }
                }
            }
            while let Some(output) = world.core.poll_output() {
                match output {
                    Output::Probe(targets) => open.push(targets),
                    Output::Open(key) => stands.push(key),
                    Output::Changed => {}
                }
            }
            let kinds: Vec<_> = world.urls().iter().map(|url| IceUrl::parse(url).unwrap().scheme).collect();
            prop_assert!(kinds.iter().all(|scheme| *scheme == IceScheme::TurnUdp));
            let has_udp = world.core.standings().iter().any(|s| s.udp != Udp::NotOffered);
            prop_assert!(!has_udp || !kinds.is_empty(), "a box with a server by UDP was left without any");
            prop_assert!(!has_udp || world.core.poll_timeout().is_some(), "the core would sleep for ever");
        }
    }
}
