//! TurnForwarder with real TURN servers on loopback: one that takes UDP, and one that does not.

use std::process::{Child, Command, Stdio};

use r58_pipelines::ice::IceServer;

use super::*;
use crate::supervision::testing::{LIMIT, brisk, in_a_house, until};
use crate::supervision::{House, HouseSettings, RestartActor};
use crate::turn::TurnSettings;

struct Turn {
    child: Child,
    port: u16,
    _state: tempfile::TempDir,
}

impl Turn {
    fn start(more: &[&str]) -> Self {
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let state = tempfile::tempdir().unwrap();
        let child = Command::new("turnserver")
            .args(["-n", "--listening-ip=127.0.0.1", "--relay-ip=127.0.0.1", "--no-tls", "--no-dtls", "--no-cli"])
            .args(["--lt-cred-mech", "--realm=r58.test", "--user=u:c", "--log-file=stdout", "--relay-threads=1"])
            .args(more)
            .arg(format!("--listening-port={port}"))
            .arg(format!("--pidfile={}", state.path().join("pid").display()))
            .arg(format!("--userdb={}", state.path().join("db").display()))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("turnserver (Debian package coturn) is needed");
        let begun = Instant::now();
        while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(begun.elapsed() < LIMIT, "the TURN server does not listen");
            std::thread::yield_now();
        }
        Self { child, port, _state: state }
    }

    fn udp(&self) -> String {
        format!("turn:127.0.0.1:{}?transport=udp", self.port)
    }

    fn snapshot(&self) -> IceSnapshot {
        let server = IceServer {
            urls: vec![self.udp(), format!("turn:127.0.0.1:{}?transport=tcp", self.port)],
            username: Some("u".to_owned()),
            credential: Some("c".to_owned()),
        };
        IceSnapshot { servers: vec![server], provider: "fleet".to_owned(), ..TurnSettings::first_snapshot(&[]) }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

struct Rig {
    provide: watch::Sender<IceSnapshot>,
    peers: watch::Receiver<IceSnapshot>,
    roads: watch::Receiver<Vec<TurnRoad>>,
}

fn rig(house: &House) -> Rig {
    let first = TurnSettings::first_snapshot(&["stun:stun.example:3478".to_owned()]);
    let (provide, provided) = watch::channel(first.clone());
    let (peers_out, peers) = watch::channel(first);
    let (roads_out, roads) = watch::channel(Vec::new());
    let shelf = Shelf::new(Forwarders::new(None).unwrap());
    let settings = ForwarderSettings { shelf, provided, peers: peers_out, roads: roads_out };
    house.engage(brisk("turn", "turn forwarder"), move |life| TurnForwarder::new(life, settings.clone()));
    Rig { provide, peers, roads }
}

impl Rig {
    /// Waits until the first road is `road`; answers the URLs that peers are given by then.
    async fn takes(&mut self, road: &str) -> Vec<String> {
        let taken = self.roads.wait_for(|roads| roads.first().is_some_and(|first| first.road == road));
        tokio::time::timeout(LIMIT, taken).await.expect("the road is not taken").unwrap();
        self.peers.borrow().servers.iter().flat_map(|server| server.urls.clone()).collect()
    }
}

#[test]
fn a_server_that_answers_by_udp_is_used_so_and_one_that_does_not_by_a_forwarder_that_survives_its_actor() {
    let (with_udp, without_udp) = (Turn::start(&[]), Turn::start(&["--no-udp"]));
    in_a_house(HouseSettings::default(), |house| async move {
        let mut rig = rig(&house);
        rig.provide.send_replace(with_udp.snapshot());
        assert_eq!(rig.takes("udp").await, [with_udp.udp()]);
        assert_eq!(rig.roads.borrow()[0].udp, "answers");

        rig.provide.send_replace(without_udp.snapshot());
        let urls = rig.takes("tcp").await;
        assert!(urls.len() == 1 && urls[0].starts_with("turn:127.0.0.1:") && urls[0] != without_udp.udp(), "{urls:?}");
        let snapshot = rig.peers.borrow().clone();
        assert_eq!((snapshot.provider.as_str(), snapshot.servers[0].credential.as_deref()), ("fleet", Some("c")));
        let report = until(&house, "turn forwarder", |report| {
            report.detail.as_ref().is_some_and(|detail| detail.contains("UDP silent"))
        });
        assert!(report.await.detail.unwrap().contains("?transport=tcp for 0 connections"));

        let order = RestartActor { name: "turn forwarder".to_owned() };
        house.restart_door().send(order).await.unwrap().unwrap();
        until(&house, "turn forwarder", |report| report.restarts > 0 && report.detail.is_some()).await;
        // Until UDP was found silent once more, both are tried.
        let same = rig.peers.wait_for(|now| now.servers.iter().flat_map(|server| &server.urls).eq(&urls));
        let same = tokio::time::timeout(LIMIT, same).await;
        assert!(same.is_ok(), "guests on air speak to the port of before");
    });
}
