//! Switchboard of the WebSocket bridge: which units and which controllers are connected, and what goes from whom to whom.
//! No sockets, no clock, no tasks: frames come in by [`Seat::tell`] and go out by queues.
//!
//! Every connection has a number. Whoever leaves takes away what has its own number and nothing else: the close of an old
//! connection cannot delete the unit that has come back meanwhile.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use r58_mqtt::DeviceAddress;
use tokio::sync::mpsc;

/// Frames that a reader may be behind; one more and it is put out, so that it slows nobody.
const QUEUE: usize = 64;

/// Limits of the bridge.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct BridgePlan {
    /// Connections of everybody together. Default 512.
    pub most: usize,
    /// Controllers of one unit. Default 16.
    pub most_controllers: usize,
    /// Largest frame, in bytes. Default 64 KiB, as for the requests that it may become.
    pub frame_bytes: usize,
    /// Frames at once after a pause. Default 100.
    pub burst: u32,
    /// Frames a second in the long run. Default 50: a fader that is moved sends some thirty.
    pub per_second: u32,
    /// How often a ping is sent, and the right to be here looked at. Default 15 s, as for other streams here.
    pub ping_every: Duration,
    /// Silence, pongs included, after which a connection is dead. Default 40 s: two pings and some.
    pub silent_after: Duration,
}

impl Default for BridgePlan {
    fn default() -> Self {
        Self {
            most: 512,
            most_controllers: 16,
            frame_bytes: 64 * 1024,
            burst: 100,
            per_second: 50,
            ping_every: Duration::from_secs(15),
            silent_after: Duration::from_secs(40),
        }
    }
}

/// What is passed on, as it came: text stays text, bytes stay bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Frame {
    /// UTF-8.
    Text(Arc<str>),
    /// Anything.
    Binary(Bytes),
}

/// Which end of the line somebody is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// The unit; there is one, and the last to come is it.
    Unit,
    /// One of its controllers.
    Controller,
}

/// What became of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Told {
    /// It is on its way to whoever is there.
    Passed,
    /// The unit is not connected.
    Nobody,
    /// The unit does not keep up.
    Slow,
}

/// There is no room for another connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("too many connections are open")]
pub struct Full;

/// The switchboard. Cheap to clone.
#[derive(Clone)]
pub struct Switchboard {
    plan: BridgePlan,
    rooms: Arc<Mutex<Rooms>>,
}

#[derive(Default)]
struct Rooms {
    number: u64,
    open: usize,
    rooms: HashMap<DeviceAddress, Room>,
}

#[derive(Default)]
struct Room {
    unit: Option<Line>,
    controllers: Vec<Line>,
}

struct Line {
    number: u64,
    queue: mpsc::Sender<Frame>,
}

/// A connection's place; it is given up when dropped.
pub struct Seat {
    board: Switchboard,
    address: DeviceAddress,
    end: End,
    number: u64,
}

impl Switchboard {
    /// Nobody is connected.
    pub fn new(plan: BridgePlan) -> Self {
        Self { plan, rooms: Arc::default() }
    }

    /// Its limits.
    pub fn plan(&self) -> &BridgePlan {
        &self.plan
    }

    /// Connects somebody. The queue ends when another takes a unit's place, or when its reader was too slow.
    ///
    /// # Errors
    /// [`Full`]; a unit that comes back is let in even then, since it takes its own place.
    pub fn join(&self, address: &DeviceAddress, end: End) -> Result<(Seat, mpsc::Receiver<Frame>), Full> {
        let mut rooms = self.lock();
        let known = rooms.rooms.get(address);
        let comes_back = end == End::Unit && known.is_some_and(|room| room.unit.is_some());
        let crowded = known.is_some_and(|room| room.controllers.len() >= self.plan.most_controllers);
        if (rooms.open >= self.plan.most && !comes_back) || (end == End::Controller && crowded) {
            return Err(Full);
        }
        rooms.number += 1;
        rooms.open += 1;
        let number = rooms.number;
        let (queue, frames) = mpsc::channel(QUEUE);
        let room = rooms.rooms.entry(address.clone()).or_default();
        let line = Line { number, queue };
        match end {
            End::Unit => room.unit = Some(line),
            End::Controller => room.controllers.push(line),
        }
        drop(rooms);
        Ok((Seat { board: self.clone(), address: address.clone(), end, number }, frames))
    }

    /// Units and controllers that are connected.
    pub fn counts(&self) -> (usize, usize) {
        let rooms = self.lock();
        let units = rooms.rooms.values().filter(|room| room.unit.is_some()).count();
        (units, rooms.rooms.values().map(|room| room.controllers.len()).sum())
    }

    fn lock(&self) -> MutexGuard<'_, Rooms> {
        self.rooms.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Seat {
    /// Passes a frame on: of a unit to all of its controllers, of a controller to its unit.
    pub fn tell(&self, frame: Frame) -> Told {
        let mut rooms = self.board.lock();
        let Some(room) = rooms.rooms.get_mut(&self.address) else { return Told::Nobody };
        match self.end {
            // What a connection still says after another took its place is not the unit's word any more.
            End::Unit if room.unit.as_ref().is_none_or(|unit| unit.number != self.number) => Told::Nobody,
            End::Unit => {
                room.controllers.retain(|controller| controller.queue.try_send(frame.clone()).is_ok());
                Told::Passed
            }
            End::Controller => match room.unit.as_ref().map(|unit| unit.queue.try_send(frame)) {
                Some(Ok(())) => Told::Passed,
                Some(Err(mpsc::error::TrySendError::Full(_))) => Told::Slow,
                Some(Err(mpsc::error::TrySendError::Closed(_))) | None => Told::Nobody,
            },
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut rooms = self.board.lock();
        rooms.open = rooms.open.saturating_sub(1);
        if let Some(room) = rooms.rooms.get_mut(&self.address) {
            room.controllers.retain(|controller| controller.number != self.number);
            room.unit.take_if(|unit| unit.number == self.number);
            if room.unit.is_none() && room.controllers.is_empty() {
                rooms.rooms.remove(&self.address);
            }
        }
    }
}

/// How many frames one connection may send: a bucket that fills again.
#[derive(Debug)]
pub struct Pace {
    burst: f64,
    per_second: f64,
    left: f64,
    at: Instant,
}

impl Pace {
    /// A full bucket.
    pub fn new(now: Instant, plan: &BridgePlan) -> Self {
        let burst = f64::from(plan.burst);
        Self { burst, per_second: f64::from(plan.per_second), left: burst, at: now }
    }

    /// Takes note of a frame. False: it is one too many.
    pub fn handle_frame(&mut self, now: Instant) -> bool {
        let gained = now.saturating_duration_since(self.at).as_secs_f64() * self.per_second;
        (self.left, self.at) = ((self.left + gained).min(self.burst), now);
        let granted = self.left >= 1.0;
        self.left -= if granted { 1.0 } else { 0.0 };
        granted
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address() -> DeviceAddress {
        DeviceAddress::new("acme", "box1").unwrap()
    }

    fn text(words: &str) -> Frame {
        Frame::Text(words.into())
    }

    #[test]
    fn the_close_of_an_old_connection_does_not_delete_the_unit_that_came_back() {
        let board = Switchboard::new(BridgePlan::default());
        let (old, mut to_old) = board.join(&address(), End::Unit).unwrap();
        let (new, mut to_new) = board.join(&address(), End::Unit).unwrap();
        assert_eq!(to_old.try_recv(), Err(mpsc::error::TryRecvError::Disconnected), "the old one hears of its end");
        let (controller, mut to_controller) = board.join(&address(), End::Controller).unwrap();
        assert_eq!(old.tell(text("from the grave")), Told::Nobody);
        drop(old);
        assert_eq!(board.counts(), (1, 1));
        assert_eq!(controller.tell(text("hello")), Told::Passed);
        assert_eq!(to_new.try_recv(), Ok(text("hello")));
        assert_eq!(new.tell(text("yes")), Told::Passed);
        assert_eq!(to_controller.try_recv(), Ok(text("yes")));
        drop(new);
        assert_eq!(controller.tell(text("hello?")), Told::Nobody);
        drop(controller);
        assert_eq!(board.counts(), (0, 0));
        assert!(board.lock().rooms.is_empty() && board.lock().open == 0);
    }

    #[test]
    fn whoever_does_not_keep_up_slows_nobody() {
        let board = Switchboard::new(BridgePlan::default());
        let (unit, mut to_unit) = board.join(&address(), End::Unit).unwrap();
        let (sleeper, mut to_sleeper) = board.join(&address(), End::Controller).unwrap();
        let (awake, mut to_awake) = board.join(&address(), End::Controller).unwrap();
        for n in 0..2 * QUEUE {
            assert_eq!(unit.tell(text("x")), Told::Passed);
            assert!(to_awake.try_recv().is_ok(), "{n}");
        }
        assert_eq!(board.counts(), (1, 1), "the sleeper is put out");
        let kept = std::iter::from_fn(|| to_sleeper.try_recv().ok()).count();
        assert_eq!(kept, QUEUE);
        let told: Vec<Told> = (0..QUEUE + 1).map(|_| awake.tell(text("y"))).collect();
        assert_eq!(told.iter().filter(|told| **told == Told::Slow).count(), 1);
        assert!(to_unit.try_recv().is_ok());
        drop(sleeper);
        assert_eq!(board.counts(), (1, 1));
    }

    #[test]
    fn nobody_hears_of_a_unit_of_the_same_name_elsewhere() {
        let board = Switchboard::new(BridgePlan::default());
        let (unit, _to_unit) = board.join(&address(), End::Unit).unwrap();
        let elsewhere = DeviceAddress::new("other", "box1").unwrap();
        let (stranger, mut to_stranger) = board.join(&elsewhere, End::Controller).unwrap();
        unit.tell(text("secret"));
        assert!(to_stranger.try_recv().is_err());
        assert_eq!(stranger.tell(text("hello")), Told::Nobody);
    }

    #[test]
    fn connections_are_bounded_and_a_unit_always_gets_its_own_place_back() {
        let plan = BridgePlan { most: 3, most_controllers: 2, ..BridgePlan::default() };
        let board = Switchboard::new(plan);
        let one = board.join(&address(), End::Controller).unwrap();
        let _two = board.join(&address(), End::Controller).unwrap();
        assert_eq!(board.join(&address(), End::Controller).err(), Some(Full));
        let _unit = board.join(&address(), End::Unit).unwrap();
        let elsewhere = DeviceAddress::new("other", "box1").unwrap();
        assert_eq!(board.join(&elsewhere, End::Unit).err(), Some(Full));
        assert!(board.join(&address(), End::Unit).is_ok());
        drop(one);
    }

    #[test]
    fn a_flood_is_noticed_and_a_fader_is_not_one() {
        let start = Instant::now();
        let mut pace = Pace::new(start, &BridgePlan::default());
        for n in 0..300 {
            assert!(pace.handle_frame(start + Duration::from_millis(33) * n));
        }
        let mut pace = Pace::new(start, &BridgePlan::default());
        assert_eq!((0..1000).filter(|_| pace.handle_frame(start)).count(), 100);
        assert!(pace.handle_frame(start + Duration::from_millis(20)));
    }
}
