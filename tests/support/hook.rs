//! A webhook that takes whatever comes and remembers it.

use std::sync::{Arc, Mutex};

use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

/// Listens until the test ends.
pub struct Hook {
    pub url: String,
    calls: Arc<Mutex<Vec<Value>>>,
}

impl Hook {
    pub async fn start() -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a port");
        let url = format!("http://{}/hook", listener.local_addr().expect("an address"));
        let calls: Arc<Mutex<Vec<Value>>> = Arc::default();
        let held = calls.clone();
        tokio::spawn(async move {
            while let Ok((connection, _)) = listener.accept().await {
                let held = held.clone();
                tokio::spawn(async move {
                    if let Some(body) = take(connection).await {
                        held.lock().expect("calls").push(body);
                    }
                });
            }
        });
        Self { url, calls }
    }

    /// The bodies of all calls so far.
    pub fn calls(&self) -> Vec<Value> {
        self.calls.lock().expect("calls").clone()
    }
}

/// Reads one request with a body of known length, and says that it was taken.
async fn take(mut connection: TcpStream) -> Option<Value> {
    let mut request = Vec::new();
    loop {
        let text = String::from_utf8_lossy(&request).to_lowercase();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length: usize =
                head.lines().find_map(|line| line.strip_prefix("content-length:"))?.trim().parse().ok()?;
            if body.len() >= length {
                let body = serde_json::from_slice(&request[head.len() + 4..]).ok();
                connection.write_all(b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n").await.ok()?;
                return body;
            }
        }
        if connection.read_buf(&mut request).await.ok()? == 0 {
            return None;
        }
    }
}
