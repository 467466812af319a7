//! A network cable that a rehearsal can pull: connections end without a goodbye, and none is made until it is back.

use tokio::sync::watch;

/// The end that a session hangs on. Cheap to clone; several sessions may hang on one.
#[derive(Debug, Clone)]
pub struct Cable(watch::Receiver<bool>);

/// The hand that pulls the cable. When it is gone the cable stays as it is.
#[derive(Debug)]
pub struct Hand(watch::Sender<bool>);

impl Cable {
    /// A cable that is plugged in, and the hand on it.
    pub fn plugged() -> (Hand, Self) {
        let (hand, cable) = watch::channel(true);
        (Hand(hand), Self(cable))
    }

    pub(super) fn is_plugged(&self) -> bool {
        *self.0.borrow()
    }

    /// Resolves when it is pulled; never when nobody can pull it any more.
    pub(super) async fn pulled(&mut self) {
        if self.0.wait_for(|plugged| !plugged).await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

impl Hand {
    /// Pulls the cable: whoever hangs on it is cut off at once.
    pub fn pull(&self) {
        self.0.send_replace(false);
    }

    /// Plugs it in again: sessions come back when their pause is over.
    pub fn plug(&self) {
        self.0.send_replace(true);
    }

    /// Whether it is plugged in.
    pub fn is_plugged(&self) -> bool {
        *self.0.borrow()
    }
}

/// Resolves when a cable is pulled; without one, never.
pub(super) async fn pulled(cable: Option<&mut Cable>) {
    match cable {
        Some(cable) => cable.pulled().await,
        None => std::future::pending().await,
    }
}
