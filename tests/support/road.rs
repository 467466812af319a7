//! The way from a client to a server by TCP, which lets through what the test wants let through.

use std::sync::Arc;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::r58::PATIENCE;
use super::until;

/// Listens until it is dropped; open at first. What the server says always passes; whoever comes while it is away waits.
pub struct Road {
    /// Where clients find the server.
    pub url: String,
    gate: Arc<Gate>,
    keeper: JoinHandle<()>,
}

struct Gate {
    /// Bytes that may still pass towards the server.
    left: watch::Sender<u64>,
    /// Bytes that have passed.
    passed: watch::Sender<u64>,
    /// Whether some wait.
    held: watch::Sender<bool>,
}

impl Road {
    /// To the server at this address, which may go away and come back.
    pub async fn to(url: &str) -> Self {
        let (scheme, host) = url.split_once("://").expect("an address");
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a port");
        let url = format!("{scheme}://{}", listener.local_addr().expect("its address"));
        let (left, passed, held) = (watch::Sender::new(u64::MAX), watch::Sender::new(0), watch::Sender::new(false));
        let gate = Arc::new(Gate { left, passed, held });
        let (host, open) = (host.to_owned(), gate.clone());
        let keeper = tokio::spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                let (host, gate) = (host.clone(), open.clone());
                tokio::spawn(async move {
                    let far = until(PATIENCE, "the server", || TcpStream::connect(&host)).await;
                    let ((from_client, mut to_client), (mut from_server, to_server)) =
                        (near.into_split(), far.into_split());
                    // Whoever ends first ends the other.
                    tokio::select! {
                        () = gate.carry(from_client, to_server) => {}
                        _ = tokio::io::copy(&mut from_server, &mut to_client) => {}
                    }
                });
            }
        });
        Self { url, gate, keeper }
    }

    /// Lets so many more bytes through to the server, and then none.
    pub fn let_through(&self, bytes: u64) {
        self.gate.left.send_replace(bytes);
    }

    /// Lets everything through again.
    pub fn open(&self) {
        self.let_through(u64::MAX);
    }

    /// Bytes that have passed to the server so far.
    pub fn passed(&self) -> u64 {
        *self.gate.passed.borrow()
    }

    /// Waits until somebody has more to say than may pass.
    pub async fn is_held(&self) {
        let mut held = self.gate.held.subscribe();
        let waited = tokio::time::timeout(PATIENCE, held.wait_for(|held| *held)).await;
        assert!(matches!(waited, Ok(Ok(_))), "everything passed: {} bytes", self.passed());
    }
}

impl Gate {
    async fn carry(&self, mut from: OwnedReadHalf, mut to: OwnedWriteHalf) {
        let mut bytes = vec![0; 16 * 1024];
        while let Ok(count @ 1..) = from.read(&mut bytes).await {
            let mut rest = &bytes[..count];
            while !rest.is_empty() {
                let (now, later) = rest.split_at(self.ticket(rest.len()).await);
                if to.write_all(now).await.is_err() {
                    return;
                }
                self.passed.send_modify(|passed| *passed += now.len() as u64);
                rest = later;
            }
        }
    }

    /// How many of these bytes may pass now: at least one.
    async fn ticket(&self, wanted: usize) -> usize {
        loop {
            let mut granted = 0;
            self.left.send_modify(|left| {
                granted = wanted.min(usize::try_from(*left).unwrap_or(usize::MAX));
                // An open road stays open.
                *left = if *left == u64::MAX { u64::MAX } else { *left - granted as u64 };
            });
            self.held.send_replace(granted == 0);
            if granted > 0 {
                return granted;
            }
            let mut left = self.left.subscribe();
            let _ = left.wait_for(|left| *left > 0).await;
        }
    }
}

impl Drop for Road {
    fn drop(&mut self) {
        self.keeper.abort();
    }
}
