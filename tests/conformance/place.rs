//! The server that is tried: somebody's, or a box of our own.

use std::process::Command;

use r58::conformance::Check;
use serde_json::Value;

use super::support::free_udp_port;
use super::support::process::Process;
use super::support::r58::{Home, R58};

const SECRET: &str = "for-this-test-only";
const TOKEN: &str = "the-token-of-these-tests";

/// A server, and the right to use it.
pub struct Place {
    pub base: String,
    pub seat: String,
    pub token: String,
    pub crew: Option<String>,
    own: Option<Own>,
}

struct Own {
    demo: R58,
    _turn: Process,
    _home: Home,
}

impl Place {
    pub async fn open() -> Self {
        let text = |name: &str| std::env::var(name).ok().filter(|text| !text.is_empty());
        if let Some(base) = text("R58_CONFORMANCE_URL") {
            return Self {
                base,
                seat: text("R58_CONFORMANCE_SEAT").unwrap_or_else(|| "guest1".into()),
                token: text("R58_CONFORMANCE_TOKEN").unwrap_or_default(),
                crew: text("R58_CONFORMANCE_CREW"),
                own: None,
            };
        }
        let port = free_udp_port();
        let seat = format!(
            r#"token = "{TOKEN}"
            [device.webrtc]
            loopback = true
            [device.turn]
            shared_secret_file = "turn-secret"
            shared_urls = ["turn:127.0.0.1:{port}?transport=udp"]"#
        );
        let home = Home::small("listen = \"127.0.0.1:0\"", &seat);
        std::fs::write(home.path().join("turn-secret"), SECRET).expect("write the secret");
        let file = |name: &str| home.path().join(name).display().to_string();
        let turn = Process::start(
            "turnserver",
            Command::new("turnserver")
                .args(["-n", "--listening-ip=127.0.0.1", "--relay-ip=127.0.0.1", "--no-tls", "--no-dtls", "--no-cli"])
                .args(["--allow-loopback-peers", "--no-tcp-relay", "--relay-threads=1", "--realm=r58.test"])
                .args(["--use-auth-secret", &format!("--static-auth-secret={SECRET}"), "--log-file=stdout"])
                .args([&format!("--listening-port={port}"), &format!("--userdb={}", file("turn.db"))])
                .arg(format!("--pidfile={}", file("turn.pid")))
                .current_dir(home.path()),
        );
        let demo = R58::start(&home, "device").await;
        demo.state_until("a programme on air", |state| state["programme"]["frames"].as_u64() > Some(15)).await;
        Self {
            base: demo.device.clone(),
            seat: "guest1".into(),
            token: TOKEN.into(),
            crew: None,
            own: Some(Own { demo, _turn: turn, _home: home }),
        }
    }

    /// Whether it is a box of our own.
    pub fn is_own(&self) -> bool {
        self.own.is_some()
    }

    /// The box's own list: nothing is claimed before a run, and after one everything that can be checked has passed.
    pub async fn checks_itself(&self) -> Check {
        let demo = &self.own.as_ref().ok_or("no box of our own")?.demo;
        let before = demo.json("/conformance").await;
        let unchecked = before["items"].as_array().is_some_and(|all| all.iter().all(|one| one["checked_at"].is_null()));
        if !unchecked || before["passed"] != 0 {
            return Err(format!("results without a run: {before}"));
        }
        let (status, after) = demo.post("/conformance", &Value::Null).await;
        let shown = demo.json("/conformance").await;
        let failed = |list: &Value| list["failed"].as_u64() == Some(0) && list["passed"].as_u64() >= Some(30);
        let timed = |one: &Value| one["verdict"] != "passed" || one["checked_at"].is_string();
        let whole = shown["items"].as_array().is_some_and(|all| all.iter().all(timed));
        if status.is_success() && failed(&after) && whole && shown == after {
            return Ok(());
        }
        Err(format!("{status}: {after}"))
    }

    /// Ends what was started.
    pub async fn close(self) {
        if let Some(own) = self.own {
            assert!(own.demo.stop().await.success(), "the box did not stop in order");
        }
    }
}
