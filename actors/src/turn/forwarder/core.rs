//! Which TURN servers the box's own peers reach by UDP and which by the local forwarder: pure, in virtual time.
//!
//! One credential is one server here, with all URLs that it opens. Each is asked by UDP every minute and whenever the ICE
//! servers change:
//!
//! | by UDP it | peers get | asked again in |
//! |---|---|---|
//! | has not been asked yet | UDP and forwarder | at once |
//! | answers | UDP | 60 s |
//! | answered before, not now | UDP and forwarder | 5 s |
//! | is silent | forwarder | 60 s |
//!
//! Both at once cost a box whose UDP works nothing: candidates are gathered side by side, and an answer waits for the first
//! relay. A server without a URL of TCP or TLS stays on UDP, whatever the probe says; one without a URL of UDP is not asked.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use r58_pipelines::ice::{IceScheme, IceServer, IceUrl};

/// Pause between two probes of a server; the shell's jitter moves it by a tenth.
pub const PROBE_EVERY: Duration = Duration::from_secs(60);
/// The same after a first failure.
pub const PROBE_AGAIN: Duration = Duration::from_secs(5);
/// A probe that has not come back by then was lost with its asker; above its own deadline.
pub const PROBE_LOST_AFTER: Duration = Duration::from_secs(10);

/// A server's URLs by TCP and TLS: what a forwarder is opened for.
pub type Key = Vec<IceUrl>;

/// What a server says to UDP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Udp {
    /// It has not been asked, or not answered yet.
    Unknown,
    /// It answers, and this fast.
    Answers(Duration),
    /// It has answered, but not the last time.
    Doubtful,
    /// It does not answer.
    Silent,
    /// None of its URLs is by UDP.
    NotOffered,
}

/// What happened.
#[derive(Debug, Clone)]
pub enum Input {
    /// The provider's servers; also when they are the same as before.
    Servers(Vec<IceServer>),
    /// A probe's end: the round trip, or nothing.
    Probed {
        /// Whom, as in [`Output::Probe`].
        targets: Vec<IceUrl>,
        /// The fastest answer.
        answer: Option<Duration>,
        /// In 0..1: places the next probe.
        jitter: f64,
    },
    /// A forwarder stands, with its URL, or cannot be had.
    Opened {
        /// For which server.
        key: Key,
        /// Its URL for peers.
        url: Option<String>,
    },
}

/// What the shell has to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// Ask these, all at once; the first answer counts.
    Probe(Vec<IceUrl>),
    /// Have a forwarder for these.
    Open(Key),
    /// What peers are given, or what is known of a server, has changed.
    Changed,
}

/// One server as it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    /// Host of its first URL.
    pub host: String,
    /// By UDP.
    pub udp: Udp,
    /// Whether peers are given the URLs of UDP.
    pub by_udp: bool,
    /// Whose forwarder peers are given.
    pub forwarded: Option<Key>,
}

#[derive(Debug)]
struct Server {
    username: Option<String>,
    credential: Option<String>,
    udp_urls: Vec<IceUrl>,
    streams: Key,
    udp: Udp,
    next_probe: Instant,
    probing_until: Option<Instant>,
    forwarder: Option<String>,
}

impl Server {
    fn wants_forwarder(&self) -> bool {
        !self.streams.is_empty() && !matches!(self.udp, Udp::Answers(_))
    }

    /// Without a forwarder that stands, UDP is all there is.
    fn by_udp(&self) -> bool {
        self.udp != Udp::Silent || self.forwarder.is_none()
    }

    fn opens(&self, entry: &IceServer) -> bool {
        self.username == entry.username && self.credential == entry.credential
    }

    fn host(&self) -> String {
        self.udp_urls.iter().chain(&self.streams).map(|url| url.host.clone()).next().unwrap_or_default()
    }
}

/// The state machine. Drive it with [`ForwarderCore::handle`] and [`ForwarderCore::handle_timeout`], then drain
/// [`ForwarderCore::poll_output`] and arm one timer at [`ForwarderCore::poll_timeout`].
#[derive(Debug, Default)]
pub struct ForwarderCore {
    entries: Vec<IceServer>,
    servers: Vec<Server>,
    outputs: VecDeque<Output>,
}

impl ForwarderCore {
    /// Takes one event.
    pub fn handle(&mut self, now: Instant, input: Input) {
        match input {
            Input::Servers(entries) => self.replace(now, entries),
            Input::Probed { targets, answer, jitter } => self.probed(now, &targets, answer, jitter),
            Input::Opened { key, url } => {
                for server in self.servers.iter_mut().filter(|server| server.streams == key) {
                    server.forwarder = url.clone();
                }
                self.outputs.push_back(Output::Changed);
            }
        }
        self.handle_timeout(now);
    }

    /// Lets time pass up to `now`.
    pub fn handle_timeout(&mut self, now: Instant) {
        for server in &mut self.servers {
            if server.probing_until.is_some_and(|until| until <= now) {
                server.probing_until = None;
                server.next_probe = now;
            }
            if server.udp != Udp::NotOffered && server.probing_until.is_none() && server.next_probe <= now {
                server.probing_until = Some(now + PROBE_LOST_AFTER);
                self.outputs.push_back(Output::Probe(server.udp_urls.clone()));
            }
        }
    }

    /// When [`ForwarderCore::handle_timeout`] has something to do, if nothing arrives before.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let asked = self.servers.iter().filter(|server| server.udp != Udp::NotOffered);
        asked.map(|server| server.probing_until.unwrap_or(server.next_probe)).min()
    }

    /// The next thing to do.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// The servers for the box's own peers.
    pub fn for_peers(&self) -> Vec<IceServer> {
        let mut told = vec![false; self.servers.len()];
        let mut list = Vec::new();
        for entry in &self.entries {
            let found = self.servers.iter().position(|server| server.opens(entry));
            let by_udp = found.is_none_or(|at| self.servers[at].by_udp());
            let kept = |url: &String| match IceUrl::parse(url).map(|url| url.scheme) {
                Some(IceScheme::Stun) => true,
                Some(IceScheme::TurnUdp) => by_udp,
                _ => false,
            };
            let mut urls: Vec<String> = entry.urls.iter().filter(|url| kept(url)).cloned().collect();
            if let Some(at) = found
                && !std::mem::replace(&mut told[at], true)
                && self.servers[at].wants_forwarder()
            {
                urls.extend(self.servers[at].forwarder.clone());
            }
            if !urls.is_empty() {
                list.push(IceServer { urls, ..entry.clone() });
            }
        }
        list
    }

    /// Every TURN server as it stands.
    pub fn standings(&self) -> Vec<Standing> {
        let stand = |server: &Server| Standing {
            host: server.host(),
            udp: server.udp,
            by_udp: !server.udp_urls.is_empty() && server.by_udp(),
            forwarded: (server.wants_forwarder() && server.forwarder.is_some()).then(|| server.streams.clone()),
        };
        self.servers.iter().map(stand).collect()
    }

    /// Forwarders that peers are given; any other may go once its streams have ended.
    pub fn needed(&self) -> Vec<Key> {
        self.servers.iter().filter(|server| server.wants_forwarder()).map(|server| server.streams.clone()).collect()
    }

    /// What is known of a server outlives its credential: that changes once a day.
    fn replace(&mut self, now: Instant, entries: Vec<IceServer>) {
        let before = std::mem::take(&mut self.servers);
        for entry in &entries {
            let urls: Vec<IceUrl> = entry.urls.iter().filter_map(|url| IceUrl::parse(url)).collect();
            if !urls.iter().any(|url| url.scheme != IceScheme::Stun) {
                continue;
            }
            let at = self.servers.iter().position(|server| server.opens(entry)).unwrap_or_else(|| {
                self.servers.push(Server {
                    username: entry.username.clone(),
                    credential: entry.credential.clone(),
                    udp_urls: Vec::new(),
                    streams: Vec::new(),
                    udp: Udp::Unknown,
                    next_probe: now,
                    probing_until: None,
                    forwarder: None,
                });
                self.servers.len() - 1
            });
            for url in urls {
                let list = match url.scheme {
                    IceScheme::Stun => continue,
                    IceScheme::TurnUdp => &mut self.servers[at].udp_urls,
                    IceScheme::TurnTcp | IceScheme::Tls => &mut self.servers[at].streams,
                };
                if !list.contains(&url) {
                    list.push(url);
                }
            }
        }
        for server in &mut self.servers {
            let known = |old: &&Server| old.udp_urls == server.udp_urls;
            if server.udp_urls.is_empty() {
                server.udp = Udp::NotOffered;
            } else if let Some(old) = before.iter().find(known) {
                (server.udp, server.probing_until) = (old.udp, old.probing_until);
            }
            if let Some(old) = before.iter().find(|old| old.streams == server.streams) {
                server.forwarder = old.forwarder.clone();
            }
        }
        self.entries = entries;
        self.open_forwarders();
        self.outputs.push_back(Output::Changed);
    }

    fn probed(&mut self, now: Instant, targets: &[IceUrl], answer: Option<Duration>, jitter: f64) {
        let every = PROBE_EVERY.mul_f64(0.9 + 0.2 * jitter.clamp(0.0, 1.0));
        for server in self.servers.iter_mut().filter(|server| server.udp_urls == targets) {
            let (udp, pause) = match (answer, server.udp) {
                (Some(took), _) => (Udp::Answers(took), every),
                (None, Udp::Answers(_)) => (Udp::Doubtful, PROBE_AGAIN),
                (None, _) => (Udp::Silent, every),
            };
            (server.udp, server.probing_until, server.next_probe) = (udp, None, now + pause);
        }
        self.open_forwarders();
        self.outputs.push_back(Output::Changed);
    }

    fn open_forwarders(&mut self) {
        for server in self.servers.iter().filter(|server| server.wants_forwarder() && server.forwarder.is_none()) {
            let open = Output::Open(server.streams.clone());
            if !self.outputs.contains(&open) {
                self.outputs.push_back(open);
            }
        }
    }
}

#[cfg(test)]
mod tests {
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
}
