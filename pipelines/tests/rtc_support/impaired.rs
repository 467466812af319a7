//! A bad road between two peers: a UDP relay on loopback that loses, delays and reorders what passes, in both directions.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::net::UdpSocket;
use tokio::task::JoinSet;

/// What happens to a packet. Only RTP and RTCP are lost, so that no test waits for DTLS's first retransmission, a second.
#[derive(Debug, Clone, Copy, Default)]
pub struct Road {
    /// Share of the media packets that are lost, 0 to 1.
    pub loss: f64,
    /// Every packet is delayed by up to this much, each by another amount: they overtake one another.
    pub jitter: Duration,
    /// RTP packets of these payload types are later than the others by this much.
    pub later: Option<(u8, Duration)>,
}

/// What passed.
#[derive(Default)]
pub struct Traffic {
    /// RTP packets towards the box, the lost ones included.
    pub offered: AtomicU64,
    /// RTP packets towards the box that were lost.
    pub lost: AtomicU64,
}

/// The relay. Dropping it ends it.
pub struct Relay {
    pub traffic: Arc<Traffic>,
    front: SocketAddr,
    target: Arc<Mutex<Option<SocketAddr>>>,
    _tasks: JoinSet<()>,
}

impl Relay {
    pub async fn open(road: Road, seed: u64) -> Self {
        let front = Arc::new(UdpSocket::bind("127.0.0.1:0").await.unwrap());
        let address = front.local_addr().unwrap();
        let (traffic, target): (Arc<Traffic>, Arc<Mutex<Option<SocketAddr>>>) = Default::default();
        let mut tasks = JoinSet::new();
        tasks.spawn(carry(front, target.clone(), road, seed, traffic.clone()));
        Self { traffic, front: address, target, _tasks: tasks }
    }

    /// An offer that leads nowhere: the box learns of its client by what comes out of the relay.
    pub fn hide(offer: &str) -> String {
        offer.lines().filter(|line| !line.starts_with("a=candidate:")).map(|line| format!("{line}\r\n")).collect()
    }

    /// An answer that leads to the relay, and the relay to where the answer led.
    pub fn bend(&self, answer: &str) -> String {
        let mut bent = String::new();
        for line in answer.lines() {
            if let Some(rest) = line.strip_prefix("a=candidate:") {
                let mut words: Vec<String> = rest.split(' ').map(str::to_owned).collect();
                if words[4] != "127.0.0.1" {
                    continue;
                }
                let address = SocketAddr::new(words[4].parse().unwrap(), words[5].parse().unwrap());
                *self.target.lock().unwrap() = Some(address);
                (words[4], words[5]) = (self.front.ip().to_string(), self.front.port().to_string());
                bent += &format!("a=candidate:{}\r\n", words.join(" "));
            } else {
                bent += &format!("{line}\r\n");
            }
        }
        assert!(self.target.lock().unwrap().is_some(), "no candidate on loopback in {answer}");
        bent
    }
}

/// The same numbers for the same seed (SplitMix64).
struct Dice(u64);

impl Dice {
    /// From 0 to 1.
    fn throw(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 11) as f64 / (1u64 << 53) as f64
    }
}

impl Road {
    /// How late the packet arrives, or that it never does.
    fn fate(&self, packet: &[u8], dice: &mut Dice) -> Option<Duration> {
        // RFC 7983: 128 to 191 is RTP or RTCP; RFC 5761: RTCP's second byte is 192 to 223.
        let media = packet.first().is_some_and(|first| (128..192).contains(first));
        let rtcp = media && packet.get(1).is_some_and(|second| (192..224).contains(second));
        let (lost, share) = (dice.throw() < self.loss, dice.throw());
        if media && lost {
            return None;
        }
        let late = match self.later {
            Some((payload_type, by)) if media && !rtcp && packet[1] & 0x7f == payload_type => by,
            _ => Duration::ZERO,
        };
        Some(late + self.jitter.mul_f64(share))
    }
}

fn is_rtp(packet: &[u8]) -> bool {
    packet.len() > 12 && (128..192).contains(&packet[0]) && !(192..224).contains(&packet[1])
}

async fn carry(
    front: Arc<UdpSocket>,
    target: Arc<Mutex<Option<SocketAddr>>>,
    road: Road,
    seed: u64,
    traffic: Arc<Traffic>,
) {
    let mut dice = Dice(seed);
    // A socket of its own for each of the client's: to the box they are different addresses, as they are without a relay.
    let mut backs: HashMap<SocketAddr, Arc<UdpSocket>> = HashMap::new();
    let mut tasks = JoinSet::new();
    let mut buffer = [0u8; 2048];
    while let Ok((length, from)) = front.recv_from(&mut buffer).await {
        let Some(box_address) = *target.lock().unwrap() else { continue };
        let back = match backs.get(&from) {
            Some(back) => back.clone(),
            None => {
                let back = Arc::new(UdpSocket::bind("127.0.0.1:0").await.unwrap());
                tasks.spawn(carry_back(back.clone(), front.clone(), from, road, Dice(seed ^ from.port() as u64)));
                backs.insert(from, back.clone());
                back
            }
        };
        let packet = buffer[..length].to_vec();
        let fate = road.fate(&packet, &mut dice);
        if is_rtp(&packet) {
            traffic.offered.fetch_add(1, Ordering::Relaxed);
            traffic.lost.fetch_add(u64::from(fate.is_none()), Ordering::Relaxed);
        }
        if let Some(late) = fate {
            tasks.spawn(deliver(back, box_address, packet, late));
        }
    }
}

async fn carry_back(back: Arc<UdpSocket>, front: Arc<UdpSocket>, to: SocketAddr, road: Road, mut dice: Dice) {
    let mut tasks = JoinSet::new();
    let mut buffer = [0u8; 2048];
    loop {
        let Ok((length, _)) = back.recv_from(&mut buffer).await else { continue };
        let packet = buffer[..length].to_vec();
        if let Some(late) = road.fate(&packet, &mut dice) {
            tasks.spawn(deliver(front.clone(), to, packet, late));
        }
    }
}

async fn deliver(socket: Arc<UdpSocket>, to: SocketAddr, packet: Vec<u8>, late: Duration) {
    tokio::time::sleep(late).await;
    let _ = socket.send_to(&packet, to).await;
}
