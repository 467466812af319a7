//! Whether a server answers by UDP: a STUN binding (RFC 8489, section 2) with a deadline of its own.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use tokio::net::UdpSocket;

use super::frame::{MAGIC_COOKIE, Role, TransactionId, role};

/// Pauses before each repetition; all of them lost means a loss of every packet for two seconds, or a wall.
const PAUSES: [Duration; 5] = [
    Duration::from_millis(200),
    Duration::from_millis(300),
    Duration::from_millis(400),
    Duration::from_millis(500),
    Duration::from_millis(600),
];
/// When a probe gives up at the latest: the sum of the pauses, and a second for the name.
pub const PROBE_WITHIN: Duration = Duration::from_secs(3);

const BINDING: [u8; 2] = [0, 1];

/// The round trip to `host` by UDP; `None` when nothing came back within [`PROBE_WITHIN`].
///
/// By IPv4 only: so does the WebRTC stack speak to TURN servers.
pub async fn answers_by_udp(host: &str, port: u16) -> Option<Duration> {
    tokio::time::timeout(PROBE_WITHIN, ask(host, port)).await.ok()?
}

async fn ask(host: &str, port: u16) -> Option<Duration> {
    let server = tokio::net::lookup_host((host, port)).await.ok()?.find(SocketAddr::is_ipv4)?;
    let socket = UdpSocket::bind(("0.0.0.0", 0)).await.ok()?;
    socket.connect(server).await.ok()?;
    let id: TransactionId = rand::random();
    let request = [&BINDING[..], &[0, 0], &MAGIC_COOKIE, &id].concat();
    let begun = Instant::now();
    for pause in PAUSES {
        // An error may be an earlier packet's: the port was closed, or the firewall says no.
        let _ = socket.send(&request).await;
        if tokio::time::timeout(pause, answer(&socket, id)).await.is_ok() {
            return Some(begun.elapsed());
        }
    }
    None
}

/// Resolves when the server has answered, with a success or an error: both came back by UDP.
async fn answer(socket: &UdpSocket, id: TransactionId) {
    let mut buffer = [0; 1_500];
    loop {
        match socket.recv(&mut buffer).await {
            Ok(length) if role(&buffer[..length]) == Role::Answer(id) => return,
            Ok(_) => {}
            // What ICMP said of an earlier packet, told once; the next packet may fare better.
            Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::frame::tests::stun;
    use super::*;

    #[tokio::test]
    async fn an_answer_to_the_third_repetition_counts_and_a_strangers_does_not() {
        let server = UdpSocket::bind(("127.0.0.1", 0)).await.unwrap();
        let port = server.local_addr().unwrap().port();
        let answering = async {
            let mut buffer = [0; 100];
            for n in 0.. {
                let (length, from) = server.recv_from(&mut buffer).await.unwrap();
                assert_eq!(length, 20);
                server.send_to(&stun(0x0101, 0, &[]), from).await.unwrap();
                if n == 2 {
                    buffer[0] = 1;
                    server.send_to(&buffer[..20], from).await.unwrap();
                    return;
                }
            }
        };
        let (rtt, ()) = tokio::join!(answers_by_udp("127.0.0.1", port), answering);
        assert!(rtt.unwrap() >= PAUSES[0] + PAUSES[1]);
    }

    #[tokio::test]
    async fn a_closed_port_and_a_name_without_an_address_do_not_answer() {
        let begun = Instant::now();
        let (closed, unnamed) = tokio::join!(answers_by_udp("127.0.0.1", 9), answers_by_udp("turn.invalid", 3478));
        assert_eq!((closed, unnamed), (None, None));
        assert!(begun.elapsed() <= PROBE_WITHIN + Duration::from_secs(2));
    }
}
