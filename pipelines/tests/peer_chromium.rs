//! A real browser at the other end: it publishes its test camera by WHIP, and watches by WHEP.

#![allow(clippy::unwrap_used, reason = "a test fails where it unwraps")]

mod rtc_support;

use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use r58_pipelines::RtpFanout;
use r58_pipelines::feed::Feed;
use r58_pipelines::guest::{GuestPipeline, GuestSettings};
use r58_pipelines::mode::Mode;
use r58_pipelines::peer::{PeerEvent, PeerFactory, PeerSettings, PublisherPeer, ViewerPeer};
use r58_pipelines::sdp::Codec;
use rtc_support::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};

const PAGE: &str = r#"<!doctype html><video id=v autoplay playsinline></video><script>
const gathered = pc => new Promise(done => {
  const look = () => pc.iceGatheringState === 'complete' && done();
  pc.addEventListener('icegatheringstatechange', look); look();
});
const post = async (path, pc) => {
  await pc.setLocalDescription();
  await gathered(pc);
  const reply = await fetch(path, { method: 'POST', headers: { 'Content-Type': 'application/sdp' }, body: pc.localDescription.sdp });
  if (reply.status !== 201) throw new Error(await reply.text());
  await pc.setRemoteDescription({ type: 'answer', sdp: await reply.text() });
};
const say = text => fetch('/say', { method: 'POST', body: text });
const publish = async mime => {
  const stream = await navigator.mediaDevices.getUserMedia({ audio: true, video: { width: 640, height: 360 } });
  const pc = new RTCPeerConnection();
  for (const track of stream.getTracks()) {
    const transceiver = pc.addTransceiver(track, { direction: 'sendonly', streams: [stream] });
    if (track.kind === 'video') {
      const codecs = RTCRtpSender.getCapabilities('video').codecs.filter(c => c.mimeType === mime);
      if (!codecs.length) throw new Error('no ' + mime);
      transceiver.setCodecPreferences(codecs);
    }
  }
  await post('/whip', pc);
  window.pc = pc;
};
const view = async () => {
  const pc = new RTCPeerConnection();
  pc.addTransceiver('video', { direction: 'recvonly' });
  pc.addTransceiver('audio', { direction: 'recvonly' });
  const stream = new MediaStream();
  pc.ontrack = event => { stream.addTrack(event.track); v.srcObject = stream; };
  await post('/whep', pc);
  window.pc = pc;
  const canvas = document.createElement('canvas');
  for (;;) {
    await new Promise(done => v.requestVideoFrameCallback(done));
    canvas.width = v.videoWidth; canvas.height = v.videoHeight;
    const context = canvas.getContext('2d');
    context.drawImage(v, 0, 0);
    const [r, g, b] = context.getImageData(v.videoWidth / 2, v.videoHeight / 2, 1, 1).data;
    const audio = [...(await pc.getStats()).values()].find(s => s.type === 'inbound-rtp' && s.kind === 'audio');
    await say(`seen ${r} ${g} ${b} ${audio ? audio.totalAudioEnergy : 0}`);
  }
};
const [task, mime] = location.hash.slice(1).split(',');
(task === 'publish' ? publish(mime) : view()).catch(error => say('error ' + error));
</script>"#;

/// The box's HTTP face, as small as it gets.
struct Face {
    factory: PeerFactory,
    guest: Option<GuestPipeline>,
    fanout: RtpFanout,
    peers: Mutex<(Vec<PublisherPeer>, Vec<ViewerPeer>)>,
    events: Mutex<Vec<mpsc::UnboundedReceiver<PeerEvent>>>,
    posted: Mutex<Option<(Instant, Duration)>>,
    said: watch::Sender<String>,
}

impl Face {
    async fn serve(self: Arc<Self>, listener: TcpListener) {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(self.clone().answer(stream));
        }
    }

    async fn answer(self: Arc<Self>, mut stream: TcpStream) -> Option<()> {
        let (mut request, mut buffer) = (Vec::new(), [0u8; 4096]);
        let (head, length) = loop {
            let read = stream.read(&mut buffer).await.ok().filter(|n| *n > 0)?;
            request.extend_from_slice(&buffer[..read]);
            if let Some(end) = request.windows(4).position(|w| w == b"\r\n\r\n") {
                let head = String::from_utf8_lossy(&request[..end]).to_string();
                let length = head
                    .lines()
                    .find_map(|l| l.to_ascii_lowercase().strip_prefix("content-length:")?.trim().parse().ok());
                break (head, (end + 4, length.unwrap_or(0usize)));
            }
        };
        while request.len() < length.0 + length.1 {
            let read = stream.read(&mut buffer).await.ok().filter(|n| *n > 0)?;
            request.extend_from_slice(&buffer[..read]);
        }
        let body = String::from_utf8_lossy(&request[length.0..]).to_string();
        let (status, kind, reply) = self.reply(&head, body).await;
        let text = format!(
            "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{reply}",
            reply.len()
        );
        stream.write_all(text.as_bytes()).await.ok()
    }

    async fn reply(&self, head: &str, body: String) -> (&'static str, &'static str, String) {
        let (on_event, queue) = events();
        let begun = Instant::now();
        let answer = if head.starts_with("POST /whip") {
            let sink = self.guest.as_ref().unwrap().sink();
            let answered = self.factory.publisher(&body, &[], sink, on_event).await;
            *self.posted.lock().unwrap() = Some((begun, begun.elapsed()));
            answered.map(|(peer, answer)| {
                self.guest.as_ref().unwrap().on_keyframe_request(peer.keyframe_requester());
                self.peers.lock().unwrap().0.push(peer);
                answer
            })
        } else if head.starts_with("POST /whep") {
            self.factory.viewer(&body, &[], self.fanout.clone(), on_event).await.map(|(peer, answer)| {
                self.peers.lock().unwrap().1.push(peer);
                answer
            })
        } else if head.starts_with("POST /say") {
            self.said.send_replace(body);
            return ("204 No Content", "text/plain", String::new());
        } else {
            return ("200 OK", "text/html", PAGE.to_owned());
        };
        self.events.lock().unwrap().push(queue);
        match answer {
            Ok(answer) => ("201 Created", "application/sdp", answer),
            Err(error) => ("422 Unprocessable Content", "text/plain", error.to_string()),
        }
    }
}

struct Browser {
    child: Child,
    _profile: tempfile::TempDir,
}

impl Browser {
    fn open(url: &str) -> Self {
        let profile = tempfile::tempdir().unwrap();
        let child = Command::new("chromium")
            .args([
                "--headless=new",
                "--no-sandbox",
                "--disable-gpu",
                "--mute-audio",
                "--no-first-run",
                "--disable-dev-shm-usage",
            ])
            .args([
                "--use-fake-ui-for-media-stream",
                "--use-fake-device-for-media-stream",
                "--autoplay-policy=no-user-gesture-required",
            ])
            .arg(format!("--user-data-dir={}", profile.path().display()))
            .arg(url)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("chromium is needed");
        Self { child, _profile: profile }
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // SIGTERM lets it end its own children; what a browser does at its end is none of this test's business.
        let _ = Command::new("kill").arg(self.child.id().to_string()).status();
        let _ = self.child.wait();
    }
}

async fn face(guest: Option<GuestPipeline>, fanout: RtpFanout) -> (Arc<Face>, u16) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let face = Arc::new(Face {
        factory: PeerFactory::new(PeerSettings { loopback: true, ..PeerSettings::default() }).unwrap(),
        guest,
        fanout,
        peers: Mutex::default(),
        events: Mutex::default(),
        posted: Mutex::default(),
        said: watch::Sender::new(String::new()),
    });
    tokio::spawn(face.clone().serve(listener));
    (face, port)
}

async fn browser_publishes(mime: &str, codec: Codec) {
    let feed = Feed::new("guest1", &Mode::new(640, 360, 30));
    let guest =
        GuestPipeline::start("guest1", &feed, GuestSettings::default(), Arc::new(|event| println!("guest: {event:?}")))
            .unwrap();
    let (face, port) = face(Some(guest), RtpFanout::new()).await;
    let (mut seen, _link) = watch_feed(&feed);
    let browser = Browser::open(&format!("http://127.0.0.1:{port}/#publish,{mime}"));
    let mut said = face.said.subscribe();
    tokio::select! {
        () = wait_seen(&mut seen, "the browser's camera", |s| s.pictures > 30 && s.hertz.is_some()) => {}
        error = said.changed() => panic!("{error:?}: {}", *said.borrow()),
    }
    // A browser answers when it is told the time, with its next report.
    wait_seen(&mut seen, "a round trip", |_| face.peers.lock().unwrap().0[0].stats().round_trip.is_some()).await;
    let trip = face.peers.lock().unwrap().0[0].stats().round_trip.unwrap();
    assert!(trip < Duration::from_millis(100), "{trip:?} within one machine");
    let guest = face.guest.as_ref().unwrap().stats();
    let (posted, answered) = face.posted.lock().unwrap().unwrap();
    println!("{mime}: answer {answered:?}, decoded {:?}", guest.first_decoded_frame.unwrap() - posted);
    println!("{guest:?}\n{:?}\n{:?}", feed.stats(), face.peers.lock().unwrap().0[0].stats());
    assert_eq!(guest.video_codec, Some(codec));
    // The tab goes: its end of DTLS or its silence must show.
    let closed = Instant::now();
    drop(browser);
    let mut queue = face.events.lock().unwrap().remove(0);
    let event = wait_event(&mut queue, |e| !matches!(e, PeerEvent::Connected { .. })).await;
    println!("{event:?} after {:?}", closed.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn chromium_is_a_guest_by_vp8() {
    browser_publishes("video/VP8", Codec::Vp8).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn chromium_is_a_guest_by_h264() {
    browser_publishes("video/H264", Codec::H264).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn chromium_sees_and_hears_the_programme() {
    let fanout = RtpFanout::new();
    let to = fanout.clone();
    let video = Encoder::start(&CONSTRAINED_BASELINE, move |packet| to.publish_video(packet));
    fanout.on_keyframe_request(video.keyframe());
    let to = fanout.clone();
    let _audio = Encoder::start(&OPUS, move |packet| to.publish_audio(packet));
    let (face, port) = face(None, fanout).await;
    let mut said = face.said.subscribe();
    let _browser = Browser::open(&format!("http://127.0.0.1:{port}/#view"));
    let red = |text: &String| {
        assert!(!text.starts_with("error"), "{text}");
        let numbers: Vec<f64> = text.split(' ').skip(1).filter_map(|n| n.parse().ok()).collect();
        matches!(numbers[..], [r, g, b, energy] if r > 200.0 && g < 50.0 && b < 50.0 && energy > 0.0)
    };
    let waited = tokio::time::timeout(PATIENCE, said.wait_for(red)).await.is_ok();
    println!("{}", *face.said.borrow());
    assert!(waited, "no red picture with a tone: {}", *face.said.borrow());
    println!("{:?}", face.peers.lock().unwrap().1[0].stats());
}
