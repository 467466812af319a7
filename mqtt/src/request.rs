//! Requests and their answers, thought through at both ends. Pure.
//!
//! QoS 1 brings a request twice now and then, and an answer may be lost: the device's [`Answers`] carries each request out
//! once and repeats its answer, the server's [`Calls`] matches answers to whoever waits and ends those that wait in vain.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};

use crate::id::{DeviceAddress, Name};
use crate::payload::{Request, Response};

/// How long an asker waits. WHIP clients give up after eight seconds (OBS does), and by then they want to have the answer, be it
/// an error. It is also well below the delay of a device's will: whoever asks a device that just died is not told by chance
/// that it is not connected.
pub const DEADLINE: Duration = Duration::from_secs(6);
/// How long an answer is kept for a repetition: past the deadline of any asker, with a clock that is a little off.
const KEPT: Duration = Duration::from_secs(60);
/// Answers kept at most; some are 8 KiB of SDP.
const MAX_KEPT: usize = 256;
/// Requests carried out at the same time.
const MAX_UNDER_WAY: usize = 32;

/// What to do with a request.
#[derive(Debug, PartialEq)]
pub enum Verdict {
    /// Carry it out, then tell [`Answers::handle_answered`].
    CarryOut,
    /// It was answered before: say this again.
    SayAgain(Response),
    /// It is being carried out: its answer is on its way.
    UnderWay,
    /// Nobody waits for it any more.
    TooLate,
    /// Too many at once.
    Busy,
}

/// What a device knows of requests.
#[derive(Debug, Default)]
pub struct Answers {
    under_way: BTreeMap<Name, Instant>,
    kept: BTreeMap<Name, Response>,
    order: VecDeque<(Instant, Name)>,
}

impl Answers {
    /// Judges a verified request. `wall` is none while the host's clock is not set: the broker's message expiry then bounds
    /// its age alone.
    pub fn handle_request(&mut self, now: Instant, wall: Option<DateTime<Utc>>, request: &Request) -> Verdict {
        self.forget(now);
        if let Some(answer) = self.kept.get(&request.id) {
            return Verdict::SayAgain(answer.clone());
        }
        if self.under_way.contains_key(&request.id) {
            return Verdict::UnderWay;
        }
        if wall.is_some_and(|wall| wall >= request.expires_at) {
            return Verdict::TooLate;
        }
        if self.under_way.len() >= MAX_UNDER_WAY {
            return Verdict::Busy;
        }
        self.under_way.insert(request.id.clone(), now);
        Verdict::CarryOut
    }

    /// A request has its answer, which is kept for its repetition.
    pub fn handle_answered(&mut self, now: Instant, answer: &Response) {
        if self.under_way.remove(&answer.id).is_none() {
            return;
        }
        self.kept.insert(answer.id.clone(), answer.clone());
        self.order.push_back((now, answer.id.clone()));
        self.forget(now);
    }

    /// Requests being carried out.
    pub fn under_way(&self) -> usize {
        self.under_way.len()
    }

    fn forget(&mut self, now: Instant) {
        while let Some((at, id)) = self.order.front() {
            if now.saturating_duration_since(*at) < KEPT && self.order.len() <= MAX_KEPT {
                break;
            }
            self.kept.remove(id);
            self.order.pop_front();
        }
    }
}

/// Why a call has no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// The device did not answer in time.
    #[error("the device did not answer in time")]
    TimedOut,
    /// The device went offline, or is.
    #[error("the device is not connected")]
    Offline,
    /// Too many calls to one device wait for an answer.
    #[error("too many requests to the device are under way")]
    Busy,
    /// The server has no connection to its broker.
    #[error("the server is not connected to its broker")]
    BrokerAway,
    /// It is larger than a request may be.
    #[error("the request is too large")]
    Unsendable,
}

/// What a server waits for. `T` is who waits.
#[derive(Debug)]
pub struct Calls<T> {
    waiting: BTreeMap<Name, Call<T>>,
}

#[derive(Debug)]
struct Call<T> {
    device: DeviceAddress,
    until: Instant,
    asker: T,
}

impl<T> Default for Calls<T> {
    fn default() -> Self {
        Self { waiting: BTreeMap::new() }
    }
}

impl<T> Calls<T> {
    /// Waits for an answer to `id` from `device` until [`DEADLINE`] from now.
    ///
    /// # Errors
    /// [`CallError::Busy`] with the asker, when too many calls to this device wait already.
    pub fn handle_call(
        &mut self,
        now: Instant,
        id: Name,
        device: DeviceAddress,
        asker: T,
    ) -> Result<(), (CallError, T)> {
        let of_device = self.waiting.values().filter(|call| call.device == device).count();
        if of_device >= MAX_UNDER_WAY {
            return Err((CallError::Busy, asker));
        }
        self.waiting.insert(id, Call { device, until: now + DEADLINE, asker });
        Ok(())
    }

    /// An answer came: who waits for it. None for a second copy, for one that is too late, and for one from another device
    /// than was asked (its ACL lets a device write only below its own name).
    pub fn handle_response(&mut self, from: &DeviceAddress, response: &Response) -> Option<T> {
        let known = self.waiting.get(&response.id).is_some_and(|call| call.device == *from);
        known.then(|| self.waiting.remove(&response.id).map(|call| call.asker)).flatten()
    }

    /// A device went offline: nothing it was asked will be answered.
    pub fn handle_offline(&mut self, device: &DeviceAddress) -> Vec<T> {
        self.take(|call| call.device == *device)
    }

    /// Who has waited long enough.
    pub fn handle_timeout(&mut self, now: Instant) -> Vec<T> {
        self.take(|call| call.until <= now)
    }

    /// When [`Calls::handle_timeout`] wants to be called.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.waiting.values().map(|call| call.until).min()
    }

    /// How many wait.
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Everybody who waits.
    pub fn into_askers(self) -> impl Iterator<Item = T> {
        self.waiting.into_values().map(|call| call.asker)
    }

    fn take(&mut self, which: impl Fn(&Call<T>) -> bool) -> Vec<T> {
        let ids: Vec<Name> = self.waiting.iter().filter(|(_, call)| which(call)).map(|(id, _)| id.clone()).collect();
        ids.into_iter().filter_map(|id| self.waiting.remove(&id)).map(|call| call.asker).collect()
    }
}

#[cfg(test)]
#[path = "request_tests.rs"]
mod tests;
