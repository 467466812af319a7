//! Support bundles on their way in and out: pieces, cuts, limits, and whose they are.

use std::path::PathBuf;

use reqwest::{Method, Response};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

use crate::world::World;

/// A device with its token and one bundle that it was asked for.
struct Sender {
    world: World,
    token: String,
    id: String,
    body: Vec<u8>,
}

impl Sender {
    async fn new(change: impl FnOnce(&mut r58::fleet::FleetPlan)) -> Self {
        let world = World::with(change).await;
        let token = world.enrol(&world.admin, "box1").await["token"].as_str().unwrap().to_owned();
        let asked = world.post("/api/v1/devices/box1/bundles", &world.admin, json!({})).await.expect(201);
        assert_eq!(asked.text("state"), "requested");
        let body = (0..2_500_000_u32).map(|n| (n * 7 % 251) as u8).collect();
        Self { id: asked.text("id"), world, token, body }
    }

    fn path(&self) -> String {
        format!("/api/v1/bundles/{}/upload", self.id)
    }

    fn file(&self) -> PathBuf {
        self.world.state_file(&format!("bundles/{}.tar.gz", self.id))
    }

    async fn call(&self, method: Method, headers: &[(&str, String)], body: impl Into<reqwest::Body>) -> Response {
        let mut request = self.world.http.request(method, self.world.url(&self.path()));
        request = request.header("X-Device-Id", "box1").header("X-Device-Token", &self.token);
        for (name, value) in headers {
            request = request.header(*name, value);
        }
        request.body(body).send().await.unwrap()
    }

    async fn announce(&self, size: usize, sha256: &str) -> Response {
        let body = json!({"size_bytes": size, "sha256": sha256}).to_string();
        self.call(Method::POST, &[("content-type", "application/json".into())], body).await
    }

    async fn announced(&self) -> i64 {
        offset(&self.announce(self.body.len(), &hash(&self.body)).await)
    }

    async fn piece(&self, at: usize, length: usize) -> Response {
        let piece = self.body[at..(at + length).min(self.body.len())].to_vec();
        self.send(at, &hash(&piece), piece).await
    }

    async fn send(&self, at: usize, checksum: &str, piece: Vec<u8>) -> Response {
        let headers = [("upload-offset", at.to_string()), ("upload-checksum", checksum.to_owned())];
        self.call(Method::PATCH, &headers, piece).await
    }

    /// Says a piece of this length and sends half of it; whoever drops the connection leaves it at that.
    async fn half_of_a_piece(&self, at: usize, length: usize) -> TcpStream {
        let piece = &self.body[at..at + length];
        let (path, token, checksum) = (self.path(), &self.token, hash(piece));
        let mut connection = TcpStream::connect(self.world.handle.addr).await.unwrap();
        let head = format!(
            "PATCH {path} HTTP/1.1\r\nHost: fleet\r\nX-Device-Id: box1\r\nX-Device-Token: {token}\r\n\
             Upload-Offset: {at}\r\nUpload-Checksum: {checksum}\r\nContent-Length: {length}\r\n\r\n"
        );
        connection.write_all(head.as_bytes()).await.unwrap();
        connection.write_all(&piece[..length / 2]).await.unwrap();
        connection.flush().await.unwrap();
        connection
    }

    async fn bundle(&self) -> Value {
        self.world.get(&format!("/api/v1/bundles/{}", self.id), &self.world.admin).await.expect(200).body
    }

    async fn download(&self, range: Option<&str>) -> Response {
        let url = self.world.url(&format!("/api/v1/bundles/{}/download", self.id));
        let mut request = self.world.http.get(url).bearer_auth(&self.world.admin);
        if let Some(range) = range {
            request = request.header("Range", range);
        }
        request.send().await.unwrap()
    }
}

fn hash(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}

#[track_caller]
fn offset(answer: &Response) -> i64 {
    answer.headers()["upload-offset"].to_str().unwrap().parse().unwrap()
}

const MIB: usize = 1024 * 1024;

#[actix_web::test]
async fn a_bundle_comes_in_pieces_goes_on_where_it_stopped_and_goes_out_whole_or_in_part() {
    let sender = Sender::new(|_| {}).await;
    assert_eq!(sender.announced().await, 0);
    let first = sender.piece(0, MIB).await;
    assert_eq!((first.status().as_u16(), offset(&first)), (204, MIB as i64));
    assert_eq!(sender.download(None).await.status(), 409, "not here yet");

    // The server was killed when a piece was written and not yet counted: what lies behind is not trusted.
    let mut torn = std::fs::read(sender.file()).unwrap();
    torn.extend_from_slice(&[0xaa; 300_000]);
    std::fs::write(sender.file(), torn).unwrap();
    assert_eq!(offset(&sender.call(Method::HEAD, &[], "").await), MIB as i64);
    assert_eq!(sender.announced().await, MIB as i64, "said again, it goes on");

    // The box was killed in the middle of a piece: half of it, then nothing more.
    let half = sender.half_of_a_piece(MIB, MIB).await;
    drop(half);
    assert_eq!(offset(&sender.call(Method::HEAD, &[], "").await), MIB as i64, "as if it had never begun");

    // The answer to a piece was lost, and the piece comes again; then one from the future.
    for at in [0, 2 * MIB] {
        let wrong = sender.piece(at, 1_000).await;
        assert_eq!((wrong.status().as_u16(), offset(&wrong)), (409, MIB as i64));
    }
    let spoilt = sender.send(MIB, &hash(b"another"), vec![1; 100]).await;
    assert_eq!(spoilt.status(), 400);
    assert_eq!(sender.bundle().await["state"], "uploading");
    assert_eq!(sender.piece(MIB, MIB).await.status(), 204);
    let last = sender.piece(2 * MIB, MIB).await;
    assert_eq!((last.status().as_u16(), last.headers()["upload-complete"].to_str().unwrap()), (204, "?1"));
    let bundle = sender.bundle().await;
    assert_eq!((&bundle["state"], &bundle["size_bytes"]), (&json!("ready"), &json!(sender.body.len())));
    // The last answer was lost: nothing is written any more.
    assert_eq!(sender.piece(0, 10).await.headers()["upload-complete"], "?1");

    let whole = sender.download(None).await;
    assert_eq!(whole.headers()["content-type"], "application/gzip");
    let name = format!("attachment; filename=\"r58-box1-{}.tar.gz\"", sender.id);
    assert_eq!(whole.headers()["content-disposition"].to_str().unwrap(), name);
    assert_eq!(hash(&whole.bytes().await.unwrap()), hash(&sender.body));
    let part = sender.download(Some("bytes=100-199")).await;
    assert_eq!(part.status(), 206);
    assert_eq!(part.headers()["content-range"].to_str().unwrap(), format!("bytes 100-199/{}", sender.body.len()));
    assert_eq!(part.bytes().await.unwrap(), sender.body[100..200]);
    let outside = sender.download(Some("bytes=99999999-")).await;
    assert_eq!(outside.status(), 416);
    assert_eq!(outside.headers()["content-type"], "application/problem+json");

    let listed = sender.world.get("/api/v1/devices/box1/bundles", &sender.world.admin).await.expect(200);
    assert_eq!(listed.body["items"][0]["id"], sender.id.as_str());
    let path = format!("/api/v1/bundles/{}", sender.id);
    sender.world.call(Method::DELETE, &path, &sender.world.admin, None).await.expect(204);
    assert!(!sender.file().exists());
    assert_eq!(sender.announce(sender.body.len(), &hash(&sender.body)).await.status(), 404, "deleted is not wanted");
    sender.world.end().await;
}

#[actix_web::test]
async fn a_whole_that_is_not_what_was_announced_begins_anew_and_limits_hold() {
    let sender = Sender::new(|plan| {
        plan.bundles.max_bytes = 3_000_000;
        plan.bundles.quota_bytes = 4_000_000;
    })
    .await;
    assert_eq!(sender.announce(3_000_001, &hash(b"")).await.status(), 413);
    for (size, sha256) in [(0, hash(b"")), (10, "../../x".to_owned())] {
        assert_eq!(sender.announce(size, &sha256).await.status(), 400);
    }
    assert_eq!(sender.announce(5, &hash(b"right")).await.status(), 204);
    assert_eq!(sender.announce(6, &hash(b"other!")).await.status(), 409, "one id, one bundle");
    assert_eq!(sender.send(0, &hash(b"toolong"), b"toolong".to_vec()).await.status(), 400);
    let wrong = sender.send(0, &hash(b"wrong"), b"wrong".to_vec()).await;
    assert_eq!((wrong.status().as_u16(), offset(&wrong)), (422, 0));
    assert_eq!(sender.send(0, &hash(b"right"), b"right".to_vec()).await.headers()["upload-complete"], "?1");

    // Another one fits its own bound, and not what the organization has left.
    let asked = sender.world.post("/api/v1/devices/box1/bundles", &sender.world.admin, json!({})).await.expect(201);
    let second = Sender { id: asked.text("id"), ..sender };
    assert_eq!(second.announce(2_900_000, &hash(b"x")).await.status(), 204);
    let asked = second.world.post("/api/v1/devices/box1/bundles", &second.world.admin, json!({})).await.expect(201);
    let third = Sender { id: asked.text("id"), ..second };
    let full = third.announce(2_900_000, &hash(b"x")).await;
    assert_eq!(full.status(), 507);
    assert!(full.headers().contains_key("retry-after"));
    third.world.end().await;
}

#[actix_web::test]
async fn a_bundle_is_taken_from_the_device_that_was_asked_and_from_nobody_else() {
    let sender = Sender::new(|_| {}).await;
    let other = sender.world.enrol(&sender.world.admin, "box2").await["token"].as_str().unwrap().to_owned();
    let url = sender.world.url(&sender.path());
    let as_device = |method: Method, url: String, id: &str, token: &str| {
        let request = sender.world.http.request(method, url).header("X-Device-Id", id).header("X-Device-Token", token);
        request.json(&json!({"size_bytes": 5, "sha256": hash(b"right")})).send()
    };
    assert_eq!(as_device(Method::POST, url.clone(), "box2", &other).await.unwrap().status(), 404);
    assert_eq!(as_device(Method::POST, url.clone(), "box1", &other).await.unwrap().status(), 401);
    assert_eq!(as_device(Method::HEAD, url.clone(), "box2", &other).await.unwrap().status(), 404);
    for id in [ulid::Ulid::new().to_string(), "..%2f..%2fetc".into(), "x".into()] {
        let url = sender.world.url(&format!("/api/v1/bundles/{id}/upload"));
        assert_eq!(as_device(Method::POST, url, "box1", &sender.token).await.unwrap().status(), 404, "{id}");
    }
    // A command `bundle` that did not come by way of `/bundles` has its bundle too.
    let body = json!({"type": "bundle", "payload": {"include_logs": false}});
    let command = sender.world.post("/api/v1/devices/box1/commands", &sender.world.admin, body).await.expect(201);
    let url = sender.world.url(&format!("/api/v1/bundles/{}/upload", command.text("id")));
    assert_eq!(as_device(Method::POST, url, "box1", &sender.token).await.unwrap().status(), 204);
    let other =
        sender.world.post("/api/v1/devices/box1/commands", &sender.world.admin, json!({"type": "identify"})).await;
    let url = sender.world.url(&format!("/api/v1/bundles/{}/upload", other.expect(201).text("id")));
    assert_eq!(as_device(Method::POST, url, "box1", &sender.token).await.unwrap().status(), 404);
    sender.world.end().await;
}

#[actix_web::test]
async fn what_is_over_is_gone_and_its_device_is_told_to_stop() {
    let sender = Sender::new(|plan| plan.bundles.keep = std::time::Duration::from_millis(1)).await;
    sender.announced().await;
    sender.piece(0, MIB).await;
    let store = sender.world.handle.store();
    store.expire_bundles(chrono::Utc::now()).await.unwrap();
    assert!(store.expire_bundles(chrono::Utc::now()).await.unwrap().is_empty());
    let path = format!("/api/v1/bundles/{}", sender.id);
    sender.world.get(&path, &sender.world.admin).await.expect(404);
    assert_eq!(sender.piece(MIB, 10).await.status(), 404);
    sender.world.end().await;
}
