//! A guest that is only heard: str0m, a WebRTC stack that shares nothing with the box's, with a socket on loopback and silence
//! to say. It can leave as people do, or vanish.

use std::io::ErrorKind;
use std::net::UdpSocket;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use reqwest::{Client, StatusCode};
use str0m::change::SdpAnswer;
use str0m::media::{Direction, Frequency, MediaKind, MediaTime, Mid};
use str0m::net::{Protocol, Receive};
use str0m::{Candidate, Input, Output, Rtc, RtcConfig, RtcError};

/// 20 ms of silence, as Opus has it (a CELT frame of three bytes).
const SILENCE: [u8; 3] = [0xf8, 0xff, 0xfe];
/// One packet each.
const EVERY: Duration = Duration::from_millis(20);

/// A guest that has its answer.
pub struct Voice {
    http: Client,
    session: String,
    token: String,
    over: Arc<AtomicBool>,
    thread: JoinHandle<UdpSocket>,
}

impl Voice {
    /// Offers sound by WHIP; the refusal's status when there is no seat.
    pub async fn join(http: &Client, base: &str, seat: &str, token: &str) -> Result<Self, StatusCode> {
        let socket = UdpSocket::bind("127.0.0.1:0").expect("a port");
        let config = RtcConfig::new().set_crypto_provider(Arc::new(str0m::crypto::from_feature_flags()));
        let mut rtc = config.clear_codecs().enable_opus(true, false).build(Instant::now());
        let host = Candidate::host(socket.local_addr().expect("its address"), "udp").expect("a candidate");
        rtc.add_local_candidate(host);
        let mut changes = rtc.sdp_api();
        let mid = changes.add_media(MediaKind::Audio, Direction::SendOnly, None, None, None);
        let (offer, pending) = changes.apply().expect("an offer");
        let request =
            http.post(format!("{base}/whip/{seat}")).bearer_auth(token).header("Content-Type", "application/sdp");
        let answer = request.body(offer.to_sdp_string()).send().await.expect("an answer of the box");
        if answer.status() != StatusCode::CREATED {
            return Err(answer.status());
        }
        let session = format!("{base}{}", answer.headers()["location"].to_str().expect("text"));
        let answer =
            SdpAnswer::from_sdp_string(&answer.text().await.expect("SDP")).expect("an answer that can be read");
        rtc.sdp_api().accept_answer(pending, answer).expect("an answer that fits");
        let over = Arc::new(AtomicBool::new(false));
        let until = Arc::clone(&over);
        let thread = std::thread::spawn(move || {
            speak(rtc, &socket, mid, &until).expect("a voice");
            socket
        });
        Ok(Self { http: http.clone(), session, token: token.to_owned(), over, thread })
    }

    /// Leaves: DELETE.
    pub async fn leave(self) -> StatusCode {
        let answer = self.http.delete(&self.session).bearer_auth(&self.token).send().await;
        let status = answer.expect("an answer of the box").status();
        drop(self.vanish());
        status
    }

    /// Says nothing more to anybody. Its socket takes what still comes, as a network that was cut would; dropped, the system
    /// answers that nobody is there, as for a process that was killed.
    pub fn vanish(self) -> UdpSocket {
        self.over.store(true, Ordering::Relaxed);
        self.thread.join().expect("the voice's thread")
    }
}

fn speak(mut rtc: Rtc, socket: &UdpSocket, mid: Mid, over: &AtomicBool) -> Result<(), RtcError> {
    let begun = Instant::now();
    let (mut said, mut buffer) = (0u32, vec![0; 2000]);
    while !over.load(Ordering::Relaxed) && rtc.is_alive() {
        let due = begun + EVERY * said;
        let now = Instant::now();
        if now >= due {
            said += 1;
            if let Some(writer) = rtc.is_connected().then(|| rtc.writer(mid)).flatten() {
                let format = writer.payload_params().map(str0m::format::PayloadParams::pt).next();
                let at = MediaTime::new(u64::from(said) * 960, Frequency::FORTY_EIGHT_KHZ);
                writer.write(format.expect("Opus was agreed on"), now, at, SILENCE.to_vec())?;
            }
        }
        let wake = loop {
            match rtc.poll_output()? {
                Output::Timeout(at) => break at.min(due),
                // The box may be gone by now.
                Output::Transmit(datagram) => drop(socket.send_to(&datagram.contents, datagram.destination)),
                Output::Event(_) => {}
            }
        };
        let wait = wake.saturating_duration_since(Instant::now()).clamp(Duration::from_millis(1), EVERY);
        socket.set_read_timeout(Some(wait)).expect("a timeout");
        match socket.recv_from(&mut buffer) {
            Ok((length, source)) => {
                let destination = socket.local_addr().expect("its address");
                if let Ok(contents) = buffer[..length].try_into() {
                    let datagram = Receive { proto: Protocol::Udp, source, destination, contents };
                    rtc.handle_input(Input::Receive(Instant::now(), datagram))?;
                }
            }
            Err(error)
                if matches!(
                    error.kind(),
                    ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::ConnectionRefused
                ) => {}
            Err(error) => panic!("the voice's socket: {error}"),
        }
        rtc.handle_input(Input::Timeout(Instant::now()))?;
    }
    Ok(())
}
