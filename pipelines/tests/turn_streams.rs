//! TURN over TCP and TLS: a real TURN server that takes no UDP from its clients, behind the forwarder on loopback.

#![allow(clippy::unwrap_used, reason = "a test fails where it unwraps")]

mod rtc_support;

use std::io::Write as _;
use std::net::{SocketAddr, TcpListener};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use r58_pipelines::feed::Feed;
use r58_pipelines::forwarder::{Forwarder, ForwarderReport, Forwarders, answers_by_udp};
use r58_pipelines::guest::{GuestPipeline, GuestSettings};
use r58_pipelines::ice::{IceServer, IceUrl};
use r58_pipelines::mode::Mode;
use r58_pipelines::peer::{Path, PeerEvent, PeerFactory, PeerSettings};
use rtc_support::*;
use tokio::net::UdpSocket;
use webrtc::turn::client::{Client as TurnClient, ClientConfig};
use webrtc::util::Conn;

const USER: &str = "box";
const PASSWORD: &str = "for-this-test-only";

/// An authority of the test's own and a certificate of its making.
struct Paper {
    ca: String,
    certificate: String,
    key: String,
}

impl Paper {
    fn of(name: &str) -> Self {
        let ca_key = rcgen::KeyPair::generate().unwrap();
        let mut ca = rcgen::CertificateParams::new(Vec::<String>::new()).unwrap();
        ca.distinguished_name.push(rcgen::DnType::CommonName, format!("who vouches for {name}"));
        ca.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let ca = ca.self_signed(&ca_key).unwrap();
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate = rcgen::CertificateParams::new(vec![name.to_owned()]).unwrap();
        let certificate = certificate.signed_by(&key, &ca, &ca_key).unwrap();
        Self { ca: ca.pem(), certificate: certificate.pem(), key: key.serialize_pem() }
    }
}

/// A TURN server that listens on TCP and TLS only; it ends with the test.
struct Turn {
    child: Option<Child>,
    tcp: u16,
    tls: u16,
    state: tempfile::TempDir,
}

impl Turn {
    fn start(paper: &Paper) -> Self {
        let state = tempfile::tempdir().unwrap();
        std::fs::write(state.path().join("cert.pem"), &paper.certificate).unwrap();
        std::fs::write(state.path().join("key.pem"), &paper.key).unwrap();
        let mut turn = Self { child: None, tcp: free_port(), tls: free_port(), state };
        turn.begin();
        turn
    }

    fn begin(&mut self) {
        let file = |name: &str| self.state.path().join(name).display().to_string();
        let child = Command::new("turnserver")
            .args(["-n", "--listening-ip=127.0.0.1", "--relay-ip=127.0.0.1", "--no-udp", "--no-dtls", "--no-cli"])
            .args(["--allow-loopback-peers", "--lt-cred-mech", "--realm=r58.test", "--log-file=stdout", "--simple-log"])
            .args(["--no-tcp-relay", "--relay-threads=1", &format!("--user={USER}:{PASSWORD}")])
            .args([format!("--listening-port={}", self.tcp), format!("--tls-listening-port={}", self.tls)])
            .args([format!("--cert={}", file("cert.pem")), format!("--pkey={}", file("key.pem"))])
            .args([format!("--pidfile={}", file("pid")), format!("--userdb={}", file("db"))])
            .current_dir(self.state.path())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("turnserver (Debian package coturn) is needed");
        self.child = Some(child);
        let begun = Instant::now();
        while std::net::TcpStream::connect(("127.0.0.1", self.tls)).is_err() {
            assert!(begun.elapsed() < PATIENCE, "the TURN server does not listen");
            std::thread::yield_now();
        }
    }

    fn kill(&mut self) {
        let mut child = self.child.take().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
    }

    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.as_ref().unwrap().id().cast_signed()), signal).unwrap();
    }

    fn by_tcp(&self) -> String {
        format!("turn:127.0.0.1:{}?transport=tcp", self.tcp)
    }

    fn by_tls(&self) -> String {
        format!("turns:127.0.0.1:{}?transport=tcp", self.tls)
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        if self.child.is_some() {
            self.kill();
        }
    }
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn open(forwarders: &Forwarders, urls: &[String]) -> Forwarder {
    let urls: Vec<IceUrl> = urls.iter().map(|url| IceUrl::parse(url).unwrap()).collect();
    forwarders.open(&urls).unwrap()
}

fn servers(forwarder: &Forwarder) -> Vec<IceServer> {
    vec![IceServer::turn(forwarder.url(), USER, PASSWORD)]
}

/// A TURN client of the stack's, as its peers use it.
async fn turn_client(forwarder: &Forwarder) -> TurnClient {
    let socket = UdpSocket::bind("0.0.0.0:0").await.unwrap();
    let client = TurnClient::new(ClientConfig {
        stun_serv_addr: String::new(),
        turn_serv_addr: forwarder.address().to_string(),
        username: USER.to_owned(),
        password: PASSWORD.to_owned(),
        realm: String::new(),
        software: String::new(),
        rto_in_ms: 0,
        conn: Arc::new(socket),
        vnet: None,
    });
    let client = client.await.unwrap();
    client.listen().await.unwrap();
    client
}

/// One local socket, and what it asks: an allocation without a credential, which every server answers with 401.
struct Asker {
    socket: UdpSocket,
    to: SocketAddr,
    asked: u8,
}

impl Asker {
    async fn new(forwarder: &Forwarder) -> Self {
        Self { socket: UdpSocket::bind("127.0.0.1:0").await.unwrap(), to: forwarder.address(), asked: 0 }
    }

    /// Asks once, as clients by UDP do: again and again. True when the answer came within `within`.
    async fn is_answered(&mut self, within: Duration) -> bool {
        self.asked += 1;
        let request = [&[0, 3, 0, 0, 0x21, 0x12, 0xA4, 0x42][..], &[self.asked; 12]].concat();
        let asking = async {
            let mut buffer = [0; 1_500];
            loop {
                self.socket.send_to(&request, self.to).await.unwrap();
                let answer = tokio::time::timeout(Duration::from_millis(100), self.socket.recv_from(&mut buffer)).await;
                if answer.is_ok() && buffer[..2] == [1, 0x13] && buffer[8..20] == request[8..20] {
                    return;
                }
            }
        };
        tokio::time::timeout(within, asking).await.is_ok()
    }
}

async fn until(forwarder: &Forwarder, what: &str, right: impl Fn(&ForwarderReport) -> bool) -> ForwarderReport {
    let begun = Instant::now();
    loop {
        let report = forwarder.report();
        if right(&report) {
            return report;
        }
        assert!(begun.elapsed() < PATIENCE, "{what}: {report:?}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn by_tcp_and_by_tls_a_socket_gets_the_servers_relay_and_data_of_any_length_flow_both_ways() {
    let paper = Paper::of("127.0.0.1");
    let turn = Turn::start(&paper);
    let forwarders = Forwarders::new(Some(paper.ca.as_bytes())).unwrap();
    assert_eq!(answers_by_udp("127.0.0.1", turn.tcp).await, None, "the server takes no UDP");
    for url in [turn.by_tcp(), turn.by_tls()] {
        let forwarder = open(&forwarders, std::slice::from_ref(&url));
        let client = turn_client(&forwarder).await;
        let begun = Instant::now();
        let relay = client.allocate().await.unwrap();
        let took = begun.elapsed();
        let relayed = relay.local_addr().unwrap();
        assert!(relayed.port() != forwarder.address().port() && relayed.port() >= 49_152, "{relayed}");
        let far = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let far_address = far.local_addr().unwrap();
        let (mut near_buffer, mut far_buffer) = ([0; 2_000], [0; 2_000]);
        for length in (1..60).chain([500, 1_199, 1_200, 1_201]) {
            let word: Vec<u8> = (0..length).map(|n| (n * 7 + length) as u8).collect();
            relay.send_to(&word, far_address).await.unwrap();
            let (got, from) = tokio::time::timeout(PATIENCE, far.recv_from(&mut far_buffer)).await.unwrap().unwrap();
            assert_eq!((from, &far_buffer[..got]), (relayed, &word[..]));
            far.send_to(&word, relayed).await.unwrap();
            let (got, from) = tokio::time::timeout(PATIENCE, relay.recv_from(&mut near_buffer)).await.unwrap().unwrap();
            assert_eq!((from, &near_buffer[..got]), (far_address, &word[..]));
        }
        let report = forwarder.report();
        println!("{url}: stream in {:?}, allocation in {took:?}: {report:?}", report.connected_in.unwrap());
        assert_eq!((report.road.to_url(), report.open, report.streams), (url, 1, 1));
        assert_eq!((report.dropped, report.refused, report.reconnects, &report.last_error), (0, 0, 0, &None));
        // Whoever gives the allocation back needs no stream any more.
        relay.close().await.unwrap();
        until(&forwarder, "the stream is closed", |report| report.open == 0).await;
        client.close().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_may_use_relays_only_joins_by_tls_and_shows_no_loopback_of_its_own() {
    let paper = Paper::of("127.0.0.1");
    let turn = Turn::start(&paper);
    let forwarders = Forwarders::new(Some(paper.ca.as_bytes())).unwrap();
    let forwarder = open(&forwarders, &[turn.by_tcp(), turn.by_tls()]);
    let feed = Feed::new("guest1", &Mode::new(640, 360, 30));
    let guest = GuestPipeline::start("guest1", &feed, GuestSettings::default(), Arc::new(|_| {})).unwrap();
    let factory = PeerFactory::new(PeerSettings { relay_only: true, ..PeerSettings::default() }).unwrap();
    let client = Client::open(&[VP8, OPUS], &[], false).await;
    client.send(&[VP8, OPUS]).await;
    let offer = client.offer().await;
    let (on_event, mut queue) = events();
    let posted = Instant::now();
    let (peer, answer) = factory.publisher(&offer, &servers(&forwarder), guest.sink(), on_event).await.unwrap();
    let answered = posted.elapsed();
    assert!(answer.contains("typ relay"), "{answer}");
    guest.on_keyframe_request(peer.keyframe_requester());
    client.accept(answer).await;
    let event = wait_event(&mut queue, |e| matches!(e, PeerEvent::Connected { .. })).await;
    assert_eq!(event, PeerEvent::Connected { path: Path::Relay });
    let (mut seen, _link) = watch_feed(&feed);
    wait_seen(&mut seen, "red", |s| s.colour.is_some_and(is_red)).await;
    let decoded = guest.stats().first_decoded_frame.unwrap() - posted;
    let report = forwarder.report();
    println!("by tls: answer {answered:?}, stream {:?}, decoded {decoded:?}", report.connected_in.unwrap());
    assert!(report.bytes_down > 4_000 && report.bytes_up > 0 && report.dropped == 0, "{report:?}");
    assert_eq!(report.road.to_url(), turn.by_tls());

    // The forwarder's address is a way to a relay, and no candidate of the box.
    let factory = PeerFactory::new(PeerSettings::default()).unwrap();
    let far: String = offer.lines().filter(|l| !l.starts_with("a=candidate")).map(|l| format!("{l}\r\n")).collect();
    let (on_event, _queue) = events();
    let (other, answer) = factory.publisher(&far, &servers(&forwarder), guest.sink(), on_event).await.unwrap();
    assert!(answer.contains("typ relay"), "{answer}");
    let hosts = || answer.lines().filter(|line| line.contains("typ host"));
    assert!(hosts().all(|line| !line.contains("127.0.0.1")), "{answer}");
    assert!(!answer.contains("typ srflx"), "nobody looked at the box's UDP sockets from outside: {answer}");
    assert_eq!(forwarder.report().streams, 2, "a stream for each relay and for nothing else");

    client.close().await;
    other.close().await;
    peer.close().await;
    until(&forwarder, "all streams are closed", |report| report.open == 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_of_an_unknown_authority_or_for_another_name_is_refused_in_clear_words() {
    let (paper, elsewhere) = (Paper::of("127.0.0.1"), Paper::of("turn.elsewhere.example"));
    for (shown, trusted, words) in [
        (&paper, None, "nobody whom this machine trusts has signed it"),
        (&paper, Some(&elsewhere.ca), "nobody whom this machine trusts has signed it"),
        (&elsewhere, Some(&elsewhere.ca), "it is for another name"),
    ] {
        let turn = Turn::start(shown);
        let forwarders = Forwarders::new(trusted.map(|pem| pem.as_bytes())).unwrap();
        let forwarder = open(&forwarders, &[turn.by_tls()]);
        let mut asker = Asker::new(&forwarder).await;
        assert!(!asker.is_answered(Duration::from_secs(1)).await);
        let report = forwarder.report();
        let error = report.last_error.unwrap();
        let port = turn.tls;
        assert_eq!(error, format!("the certificate of 127.0.0.1 port {port} is refused: {words}"));
        assert_eq!((report.streams, report.bytes_up), (0, 0), "not a word before the certificate is right");
    }
    assert!(Forwarders::new(Some(b"no certificate")).is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn when_the_server_is_killed_and_comes_back_the_same_socket_and_a_new_one_get_through_again() {
    let paper = Paper::of("127.0.0.1");
    let mut turn = Turn::start(&paper);
    let forwarders = Forwarders::new(Some(paper.ca.as_bytes())).unwrap();
    let forwarder = open(&forwarders, &[turn.by_tls()]);
    let mut asker = Asker::new(&forwarder).await;
    assert!(asker.is_answered(PATIENCE).await);
    turn.kill();
    let report = until(&forwarder, "the stream is lost", |report| report.open == 0).await;
    assert!(report.last_error.is_some());
    assert!(!asker.is_answered(Duration::from_millis(700)).await);
    let error = forwarder.report().last_error.unwrap();
    assert!(error.contains("connection refused"), "{error}");
    turn.begin();
    let begun = Instant::now();
    assert!(asker.is_answered(PATIENCE).await);
    println!("back after {:?}", begun.elapsed());
    let report = forwarder.report();
    assert_eq!((report.reconnects, report.open, &report.last_error), (1, 1, &None));
    assert!(Asker::new(&forwarder).await.is_answered(PATIENCE).await);
    assert_eq!(forwarder.report().streams, 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_stalls_loses_the_oldest_and_never_holds_the_local_side_up() {
    let paper = Paper::of("127.0.0.1");
    let turn = Turn::start(&paper);
    let forwarders = Forwarders::new(Some(paper.ca.as_bytes())).unwrap();
    let forwarder = open(&forwarders, &[turn.by_tls()]);
    let mut asker = Asker::new(&forwarder).await;
    assert!(asker.is_answered(PATIENCE).await);
    turn.signal(Signal::SIGSTOP);
    let media = [&[0x40, 0, 0x04, 0xB0][..], &[7; 1_200]].concat();
    let begun = Instant::now();
    let mut sent = 0;
    while forwarder.report().dropped < 1_000 {
        asker.socket.send_to(&media, asker.to).await.unwrap();
        sent += 1;
        assert!(begun.elapsed() < PATIENCE, "nothing is dropped: {:?}", forwarder.report());
    }
    println!("{sent} sent in {:?}: {:?}", begun.elapsed(), forwarder.report());
    turn.signal(Signal::SIGCONT);
    assert!(asker.is_answered(PATIENCE).await, "{:?}", forwarder.report());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_that_takes_the_connection_and_talks_http_is_left_for_the_next_road() {
    let turn = Turn::start(&Paper::of("127.0.0.1"));
    let proxy = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = proxy.local_addr().unwrap();
    std::thread::spawn(move || {
        while let Ok((mut stream, _)) = proxy.accept() {
            let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n");
        }
    });
    let forwarder = open(&Forwarders::new(None).unwrap(), &[format!("turn:{address}?transport=tcp"), turn.by_tcp()]);
    let mut asker = Asker::new(&forwarder).await;
    asker.socket.send_to(b"no TURN", asker.to).await.unwrap();
    assert!(asker.is_answered(PATIENCE).await);
    let report = forwarder.report();
    assert_eq!((report.road.to_url(), report.refused), (turn.by_tcp(), 1), "{report:?}");
}
