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

#[cfg(test)]
mod tests;

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
