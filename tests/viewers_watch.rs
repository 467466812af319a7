//! Viewers watch, by WHEP and by HLS, from inside and with a token from outside, and none of them disturbs the programme.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use reqwest::{Client, StatusCode};
use serde_json::{Value, json};
use tokio::task::JoinSet;

use super::support::r58::{Home, PATIENCE, R58};
use super::support::{free_port, stage, stage_alone, until};

/// Players of the crowd.
const CROWD: usize = 200;
/// How long the crowd plays.
const CROWD_PLAYS: Duration = Duration::from_secs(10);
const PASSWORD: &str = "a password of the crew";

async fn device(device: &str, webrtc: &str) -> (R58, Home) {
    let home = Home::small(
        &format!("listen = \"127.0.0.1:0\"\n{device}"),
        &format!("[device.webrtc]\nloopback = true\n{webrtc}"),
    );
    (R58::start(&home, "device").await, home)
}

async fn on_air(r58: &R58) -> u64 {
    let right =
        |state: &Value| state["programme"]["frames"].as_u64() > Some(30) && state["inputs"][0]["signal"] == "live";
    missed(&r58.state_until("a programme on air", right).await)
}

fn missed(state: &Value) -> u64 {
    state["programme"]["missed_slots"].as_u64().expect("a count")
}

/// What follows `key`, up to a quote, comma or end of line, wherever it is.
fn values<'a>(text: &'a str, key: &'a str) -> impl Iterator<Item = &'a str> {
    text.split(key).skip(1).map(|rest| rest.split(['"', ',', '\n']).next().unwrap_or_default())
}

/// A player that follows a playlist as the specification says: blocking reloads, each part that is new, its segment too.
struct Player {
    http: Client,
    base: String,
    query: String,
    fetched: BTreeSet<String>,
    bytes: usize,
}

impl Player {
    fn new(http: &Client, base: &str, query: &str) -> Self {
        let (http, base, query) = (http.clone(), base.to_owned(), query.to_owned());
        Self { http, base, query, fetched: BTreeSet::new(), bytes: 0 }
    }

    async fn get(&mut self, name: &str) -> Result<bytes::Bytes, String> {
        let answer = self.http.get(format!("{}/{name}", self.base)).send().await.map_err(|error| error.to_string())?;
        if answer.status() != StatusCode::OK {
            return Err(format!("{} for {name}", answer.status()));
        }
        let bytes = answer.bytes().await.map_err(|error| format!("{name}: {error}"))?;
        self.bytes += bytes.len();
        Ok(bytes)
    }

    async fn playlist(&mut self, query: &str) -> Result<String, String> {
        let bytes = self.get(&format!("index.m3u8?{query}{}", self.query)).await?;
        String::from_utf8(bytes.to_vec()).map_err(|error| error.to_string())
    }

    /// Everything new in a playlist, the oldest first: that is what is about to go.
    async fn fetch(&mut self, text: &str) -> Result<(), String> {
        let quoted = values(text, "URI=\"").filter(|name| !text.contains(&format!("HINT:TYPE=PART,URI=\"{name}\"")));
        let names: Vec<String> = quoted
            .chain(text.lines().filter(|line| !line.starts_with('#') && !line.is_empty()))
            .map(str::to_owned)
            .collect();
        for name in names {
            if !self.fetched.contains(&name) {
                assert!(!self.get(&name).await?.is_empty(), "{name} is empty");
                self.fetched.insert(name);
            }
        }
        Ok(())
    }

    async fn play(&mut self, until: Instant) -> Result<(), String> {
        let mut text = self.playlist("").await?;
        while Instant::now() < until {
            self.fetch(&text).await?;
            let segment = values(&text, "MEDIA-SEQUENCE:").next().and_then(|number| number.parse::<u64>().ok());
            let segment = segment.ok_or("no sequence")? + text.matches("#EXTINF").count() as u64;
            let open = text.rsplit("#EXTINF").next().unwrap_or_default().split_once(".m4s");
            let part = open.map_or(0, |(_, open)| open.matches("#EXT-X-PART:").count());
            let hint = values(&text, "PRELOAD-HINT:TYPE=PART,URI=\"").next().ok_or("no hint")?.to_owned();
            let mut other = Self::new(&self.http, &self.base, &self.query);
            let query = format!("_HLS_msn={segment}&_HLS_part={part}");
            let (next, hinted) = tokio::join!(self.playlist(&query), other.get(&hint));
            hinted?;
            self.fetched.insert(hint);
            text = next?;
        }
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hundred_players_of_hls_find_everything_and_the_programme_misses_no_frame() {
    // No frame slot may be missed.
    let _stage = stage_alone().await;
    let (r58, _home) = device("", "").await;
    let before = on_air(&r58).await;
    let http = Client::new();
    let until = Instant::now() + CROWD_PLAYS;
    let base = format!("{}/hls/programme", r58.device);
    let mut players = JoinSet::new();
    for _ in 0..CROWD {
        let mut player = Player::new(&http, &base, "");
        players.spawn(async move { player.play(until).await.map(|()| (player.fetched.len(), player.bytes)) });
    }
    let mut fetched = Vec::new();
    while let Some(player) = players.join_next().await {
        fetched.push(player.expect("a player").expect("no request fails"));
    }
    let least = fetched.iter().min().expect("players");
    println!("{CROWD} players for {CROWD_PLAYS:?}: each fetched at least {} files, {} bytes", least.0, least.1);
    assert!(least.0 >= 15, "{least:?}");
    assert_eq!(missed(&r58.state().await), before, "frame slots were missed");
    assert!(r58.stop().await.success());
}

#[tokio::test]
async fn an_input_is_packaged_while_it_is_watched_and_wrong_requests_are_told_so() {
    let _stage = stage().await;
    let (r58, _home) = device("", "").await;
    on_air(&r58).await;
    let http = Client::new();
    let mut player = Player::new(&http, &format!("{}/hls/cam1", r58.device), "");
    player.play(Instant::now() + Duration::from_secs(3)).await.expect("no request fails");
    let status = async |path: &str| r58.get(path).await.status().as_u16();
    assert_eq!(status("/hls/cam9/index.m3u8").await, 404);
    assert_eq!(status("/hls/cam1/part-1.m4s").await, 404);
    assert_eq!(status("/hls/cam1/index.m3u8?_HLS_msn=99999999999").await, 400);
    assert_eq!(status("/hls/cam1/index.m3u8?_HLS_part=0").await, 400);
    assert_eq!(status("/hls/cam1/index.m3u8?_HLS_msn=-1").await, 400);
    let answer = r58.get("/hls/cam1/index.m3u8").await;
    assert_eq!(answer.headers()["content-type"], "application/vnd.apple.mpegurl");
    assert_eq!(answer.headers()["cache-control"], "no-store");
    let ended = || async {
        let output = r58.process.output();
        if output.contains("input no longer encoded") { Ok(()) } else { Err(output.lines().count()) }
    };
    until(PATIENCE, "the end of the input's encoder", ended).await;
    assert!(r58.stop().await.success());
}

#[tokio::test]
async fn a_box_that_is_killed_and_comes_back_goes_on_with_higher_numbers() {
    let _stage = stage().await;
    let home = Home::small(&format!("listen = \"127.0.0.1:{}\"", free_port()), "");
    let mut last = 0;
    for _ in 0..2 {
        let mut r58 = R58::start(&home, "device").await;
        on_air(&r58).await;
        let mut player = Player::new(r58.http(), &format!("{}/hls/programme", r58.device), "");
        let text = player.playlist("").await.expect("a playlist");
        let number = |key| values(&text, key).next().and_then(|number| number.parse::<u64>().ok()).expect("a number");
        assert!(number("MEDIA-SEQUENCE:") > last, "a player that stayed takes it for news");
        player.play(Instant::now() + Duration::from_secs(2)).await.expect("no request fails");
        let segment = |name: &String| name.strip_prefix("segment-")?.split('.').next()?.parse().ok();
        last = player.fetched.iter().filter_map(segment).max().expect("a segment");
        r58.process.kill();
    }
}

#[tokio::test]
async fn a_viewers_token_opens_what_it_names_until_it_ends_or_is_taken_back() {
    let _stage = stage().await;
    let (r58, _home) = device(&format!("crew_password = \"{PASSWORD}\""), "").await;
    let r58 = r58.with_crew_password(PASSWORD);
    on_air(&r58).await;
    let make = async |order: Value| r58.post("/api/viewer-tokens", &order).await;
    let (status, made) = make(json!({ "label": "the foyer", "names": ["programme"], "expires_in_s": 600 })).await;
    assert_eq!(status, StatusCode::CREATED, "{made}");
    let token = made["token"].as_str().expect("a token").to_owned();
    let anonymous = Client::new();
    let get = async |path: String, bearer: Option<&str>| {
        let request = anonymous.get(format!("{}{path}", r58.device)).header("Origin", "https://elsewhere.example");
        let request = if let Some(token) = bearer { request.bearer_auth(token) } else { request };
        request.send().await.expect("an answer")
    };
    let hls = |token: &str| format!("/hls/programme/index.m3u8?token={token}");
    // Without one, and with a wrong one, nothing is told but that.
    for (path, expected) in [
        ("/hls/programme/index.m3u8".to_owned(), 401),
        ("/hls/cam9/index.m3u8".to_owned(), 401),
        (hls("wrong"), 401),
        (format!("/hls/cam1/index.m3u8?token={token}"), 403),
        (format!("/hls/cam9/index.m3u8?token={token}"), 403),
    ] {
        let answer = get(path.clone(), None).await;
        assert_eq!(answer.status().as_u16(), expected, "{path}");
    }
    let playlist = get(hls(&token), None).await;
    assert_eq!(playlist.headers()["access-control-allow-origin"], "*");
    let mut player = Player::new(&anonymous, &format!("{}/hls/programme", r58.device), &format!("&token={token}"));
    player.play(Instant::now() + Duration::from_secs(2)).await.expect("the playlist's addresses carry the token");
    // WHEP: what is refused to a stranger gets as far as the offer with a token.
    let whep = async |name: &str, bearer: Option<&str>| {
        let request = anonymous.post(format!("{}/whep/{name}", r58.device)).header("Content-Type", "application/sdp");
        let request = if let Some(token) = bearer { request.bearer_auth(token) } else { request };
        request.body("no offer").send().await.expect("an answer").status().as_u16()
    };
    assert_eq!((whep("programme", None).await, whep("programme", Some("wrong")).await), (401, 401));
    assert_eq!((whep("cam1", Some(&token)).await, whep("programme", Some(&token)).await), (403, 400));
    assert_eq!(get("/api/turn-credentials".into(), Some(&token)).await.status(), StatusCode::OK);
    assert_eq!(get("/api/state".into(), Some(&token)).await.status(), StatusCode::UNAUTHORIZED);
    let refused = anonymous.post(format!("{}/api/viewer-tokens", r58.device)).bearer_auth(&token).json(&json!({}));
    assert_eq!(refused.send().await.expect("an answer").status(), StatusCode::UNAUTHORIZED, "no token makes tokens");
    // Taken back by its id, then all.
    let listed = r58.json("/api/viewer-tokens").await;
    assert_eq!(listed["items"][0]["label"], "the foyer");
    assert!(!listed.to_string().contains(&token), "a token is shown once");
    let delete = async |path: &str| {
        let request = anonymous.delete(format!("{}{path}", r58.device)).basic_auth("crew", Some(PASSWORD));
        request.send().await.expect("an answer").status().as_u16()
    };
    let id = made["id"].as_str().expect("an id");
    assert_eq!(delete(&format!("/api/viewer-tokens/{id}")).await, 204);
    assert_eq!(delete(&format!("/api/viewer-tokens/{id}")).await, 404);
    assert_eq!(get(hls(&token), None).await.status(), StatusCode::UNAUTHORIZED);
    let (_, second) = make(json!({ "names": ["*"] })).await;
    let second = second["token"].as_str().expect("a token").to_owned();
    assert_eq!(get(hls(&second), None).await.status(), StatusCode::OK);
    assert_eq!(delete("/api/viewer-tokens").await, 204);
    assert_eq!(get(hls(&second), None).await.status(), StatusCode::UNAUTHORIZED);
    for wrong in [json!({ "names": ["cam9"] }), json!({ "names": [] }), json!({ "expires_in_s": 5 })] {
        assert_eq!(make(wrong.clone()).await.0, StatusCode::UNPROCESSABLE_ENTITY, "{wrong}");
    }
    // Whoever guesses is told to wait.
    let mut seen = BTreeSet::new();
    for n in 0..300 {
        seen.insert(get(hls(&format!("guess{n}")), None).await.status().as_u16());
    }
    assert!(seen.is_subset(&BTreeSet::from([401, 503])) && seen.contains(&503), "{seen:?}");
    assert!(!r58.process.output().contains(&token), "a token is logged nowhere");
    assert!(r58.stop().await.success());
}
