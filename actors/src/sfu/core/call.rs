//! One guest's call.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::super::wire::{Ask, Failure, LocalTrack, RemoteTrack, Reply, TrackFault, TrackReply};
use super::lane::{BACKOFF_FIRST, Lane};
use super::{ANSWER_WITHIN, CallError, CallReport, CallState, Output, SEATED_WITHIN};

/// How long a picture waits for the sound beside it.
pub const SOUND_PATIENCE: Duration = Duration::from_secs(4);
/// How many pulling sessions one call may use up.
pub const PULLERS: u32 = 3;
/// Longest that a call takes to close: after as long without media the SFU collects its tracks by itself.
pub const CLOSING_LIMIT: Duration = Duration::from_secs(30);
/// Longest pause between two looks at a guest that is connecting.
const LOOK_MAX: Duration = Duration::from_secs(1);
/// The track without which there is nothing to see.
const VIDEO: &str = "video";

#[derive(Debug)]
enum Stage {
    /// The guest has no answer yet.
    Publishing,
    /// The guest's tracks are looked at from time to time.
    Connecting { look_at: Option<Instant>, pause: Duration },
    /// Its tracks are asked for; `retry_at` while they were not there yet.
    Pulling { retry_at: Option<Instant>, pause: Duration },
    /// The seat makes an answer to the SFU's offer.
    Seating,
    /// The SFU gets it.
    Answering { seat_session: String },
    /// Nothing is left to do but to watch the seat.
    Joined { seat_session: String },
    /// Everything is being closed.
    Closing { since: Instant },
}

/// One guest's call.
#[derive(Debug)]
pub struct Call {
    pub(super) id: String,
    pub(super) seat: String,
    offer: String,
    tracks: Vec<LocalTrack>,
    stage: Stage,
    deadline: Instant,
    publisher: Lane,
    puller: Lane,
    /// Pulling sessions that were of no use.
    retired: Vec<Lane>,
    pullers: u32,
    /// Since when there has been a picture without its sound.
    mute_since: Option<Instant>,
    seating: bool,
    why: Option<CallError>,
}

impl Call {
    pub(super) fn new(now: Instant, id: &str, seat: &str, offer: String, tracks: Vec<LocalTrack>) -> Self {
        let mut publisher = Lane::default();
        publisher.ask(Ask::NewSession);
        Self {
            id: id.to_owned(),
            seat: seat.to_owned(),
            offer,
            tracks,
            stage: Stage::Publishing,
            deadline: now + ANSWER_WITHIN,
            publisher,
            puller: Lane::default(),
            retired: Vec::new(),
            pullers: 0,
            mute_since: None,
            seating: false,
            why: None,
        }
    }

    pub(super) fn is_closing(&self) -> bool {
        matches!(self.stage, Stage::Closing { .. })
    }

    pub(super) fn is_joined(&self) -> bool {
        matches!(self.stage, Stage::Joined { .. })
    }

    pub(super) fn why(&self) -> Option<&CallError> {
        self.why.as_ref()
    }

    pub(super) fn report(&self) -> CallReport {
        let state = match self.stage {
            Stage::Publishing => CallState::Publishing,
            Stage::Connecting { .. } => CallState::Connecting,
            Stage::Pulling { .. } | Stage::Seating | Stage::Answering { .. } => CallState::Pulling,
            Stage::Joined { .. } => CallState::Joined,
            Stage::Closing { .. } => CallState::Closing,
        };
        let reason = self.why.as_ref().map(CallError::to_string);
        CallReport { guest: self.seat.clone(), session: self.id.clone(), state, reason }
    }

    /// Ends it, whatever it does now.
    pub(super) fn end(&mut self, now: Instant, why: Option<CallError>, out: &mut VecDeque<Output>) {
        match &self.stage {
            Stage::Closing { .. } => return,
            Stage::Publishing => {
                let why = why.clone().unwrap_or(CallError::Left);
                out.push_back(Output::Refused { call: self.id.clone(), why });
            }
            Stage::Answering { seat_session } | Stage::Joined { seat_session } => {
                out.push_back(self.unseat(seat_session.clone()));
            }
            Stage::Connecting { .. } | Stage::Pulling { .. } | Stage::Seating => {}
        }
        self.close(now, why);
    }

    fn unseat(&self, session: String) -> Output {
        Output::Unseat { call: self.id.clone(), seat: self.seat.clone(), session }
    }

    fn close(&mut self, now: Instant, why: Option<CallError>) {
        self.stage = Stage::Closing { since: now };
        self.why = why;
        self.puller.retire();
    }

    pub(super) fn handle_reply(
        &mut self,
        now: Instant,
        request: u64,
        result: &Result<Reply, Failure>,
        out: &mut VecDeque<Output>,
    ) -> bool {
        if let Some((ask, result)) = self.publisher.handle(now, request, result.clone()) {
            self.published(now, ask, result, out);
            return true;
        }
        if let Some((ask, result)) = self.puller.handle(now, request, result.clone()) {
            self.pulled(now, ask, result, out);
            return true;
        }
        self.retired.iter_mut().any(|lane| lane.handle(now, request, result.clone()).is_some())
    }

    fn published(&mut self, now: Instant, ask: Ask, result: Result<Reply, Failure>, out: &mut VecDeque<Output>) {
        let looks = matches!(self.stage, Stage::Connecting { .. });
        match (&self.stage, &ask, result) {
            (Stage::Publishing, Ask::NewSession, Ok(Reply::Session(session))) => {
                let (offer, tracks) = (std::mem::take(&mut self.offer), self.tracks.clone());
                self.publisher.ask(Ask::Push { session, offer, tracks });
            }
            (Stage::Publishing, Ask::Push { .. }, Ok(Reply::Tracks { description, tracks })) => {
                let fault = tracks.into_iter().find_map(|track| track.fault);
                let answer = description.filter(|description| !description.is_offer);
                match (fault, answer) {
                    (Some(TrackFault::Refused(code)), _) => {
                        self.end(now, Some(CallError::Refused(ask.name(), code)), out);
                    }
                    // What is published cannot be missing.
                    (Some(TrackFault::NotYet), _) | (None, None) => {
                        let why = CallError::Unreadable("an offer has no answer");
                        self.end(now, Some(why), out);
                    }
                    (None, Some(answer)) => {
                        out.push_back(Output::Answered { call: self.id.clone(), answer: answer.sdp });
                        self.deadline = now + SEATED_WITHIN;
                        self.stage = Stage::Connecting { look_at: Some(now), pause: BACKOFF_FIRST };
                        // It is wanted as soon as the guest is there.
                        self.puller.ask(Ask::NewSession);
                        self.pullers = 1;
                    }
                }
            }
            (Stage::Connecting { .. }, Ask::Look { .. }, Ok(Reply::Tracks { tracks, .. })) => {
                self.looked(now, &tracks);
            }
            (Stage::Publishing | Stage::Connecting { .. }, _, Err(failure)) => {
                let why = match (looks, failure) {
                    (true, Failure::NotConnected) => CallError::NoMedia,
                    (_, failure) => CallError::of(&ask, failure),
                };
                self.end(now, Some(why), out);
            }
            _ => {}
        }
    }

    fn looked(&mut self, now: Instant, seen: &[TrackReply]) {
        let is_there = |track: &LocalTrack| {
            let found = seen.iter().find(|one| one.name.as_ref() == Some(&track.name));
            found.is_some_and(|one| one.active && one.fault.is_none())
        };
        let picture = self.tracks.iter().any(|track| track.name == VIDEO && is_there(track));
        if self.tracks.iter().all(is_there) || (picture && self.sound_is_given_up(now)) {
            self.stage = Stage::Pulling { retry_at: Some(now), pause: BACKOFF_FIRST };
        } else if let Stage::Connecting { look_at, pause } = &mut self.stage {
            *look_at = Some(now + *pause);
            *pause = (*pause * 2).min(LOOK_MAX);
        }
    }

    /// Called whenever there is a picture and no sound beside it.
    fn sound_is_given_up(&mut self, now: Instant) -> bool {
        now.saturating_duration_since(*self.mute_since.get_or_insert(now)) >= SOUND_PATIENCE
    }

    fn pulled(&mut self, now: Instant, ask: Ask, result: Result<Reply, Failure>, out: &mut VecDeque<Output>) {
        match (&self.stage, &ask, result) {
            (Stage::Closing { .. }, ..) | (_, Ask::NewSession, Ok(_)) => {}
            (Stage::Pulling { .. }, Ask::Pull { .. }, Ok(Reply::Tracks { description, tracks })) => {
                let offer = description.filter(|description| description.is_offer);
                self.offered(now, offer.map(|offer| offer.sdp), &tracks, out);
            }
            (Stage::Answering { seat_session }, Ask::Answer { .. }, Ok(_)) => {
                self.stage = Stage::Joined { seat_session: seat_session.clone() };
            }
            // This session is of no use, and another one may be: a new one asks for nothing twice.
            (_, Ask::Pull { .. } | Ask::Answer { .. }, Err(failure @ (Failure::Gone | Failure::Lost))) => {
                self.replace_puller(now, CallError::of(&ask, failure), out);
            }
            (_, _, Err(failure)) => self.end(now, Some(CallError::of(&ask, failure)), out),
            _ => {}
        }
    }

    fn offered(&mut self, now: Instant, offer: Option<String>, tracks: &[TrackReply], out: &mut VecDeque<Output>) {
        let refused = tracks.iter().find_map(|track| match &track.fault {
            Some(TrackFault::Refused(code)) => Some(code.clone()),
            _ => None,
        });
        if let Some(code) = refused {
            return self.end(now, Some(CallError::Refused("the guest's tracks", code)), out);
        }
        let late = |track: &TrackReply| track.fault == Some(TrackFault::NotYet);
        // Some replies name a track that failed, others leave the good ones out.
        let picture = !tracks.iter().any(|track| late(track) && track.name.as_deref() == Some(VIDEO));
        let whole = !tracks.iter().any(late);
        match offer {
            Some(offer) if whole || (picture && self.sound_is_given_up(now)) => {
                self.stage = Stage::Seating;
                self.seating = true;
                out.push_back(Output::Seat { call: self.id.clone(), offer });
            }
            // A half offer can only be answered, not added to.
            Some(_) => {
                self.pullers = self.pullers.saturating_sub(1);
                self.replace_puller(now, CallError::NoMedia, out);
                self.rest(now);
            }
            None if whole => self.end(now, Some(CallError::Unreadable("tracks come without an offer")), out),
            None => self.rest(now),
        }
    }

    /// The tracks are not there yet: a pause, longer each time.
    fn rest(&mut self, now: Instant) {
        if let Stage::Pulling { retry_at, pause } = &mut self.stage {
            *retry_at = Some(now + *pause);
            *pause = (*pause * 2).min(LOOK_MAX);
        }
    }

    fn replace_puller(&mut self, now: Instant, why: CallError, out: &mut VecDeque<Output>) {
        if self.pullers >= PULLERS {
            return self.end(now, Some(why), out);
        }
        self.pullers += 1;
        if let Stage::Answering { seat_session } = &self.stage {
            out.push_back(self.unseat(seat_session.clone()));
        }
        let mut old = std::mem::take(&mut self.puller);
        old.retire();
        self.retired.push(old);
        self.puller.ask(Ask::NewSession);
        if !matches!(self.stage, Stage::Pulling { .. }) {
            self.stage = Stage::Pulling { retry_at: None, pause: BACKOFF_FIRST };
        }
        if let Stage::Pulling { retry_at, .. } = &mut self.stage {
            *retry_at = Some(now);
        }
    }

    pub(super) fn handle_seated(
        &mut self,
        now: Instant,
        result: Result<(String, String), String>,
        out: &mut VecDeque<Output>,
    ) {
        self.seating = false;
        match (&self.stage, result) {
            (Stage::Seating, Ok((seat_session, answer))) => {
                let Some(session) = self.puller.session.clone() else { return };
                self.puller.ask(Ask::Answer { session, answer });
                self.stage = Stage::Answering { seat_session };
            }
            (Stage::Seating, Err(why)) => self.end(now, Some(CallError::Seat(why)), out),
            // It ended while the seat was busy with it.
            (_, Ok((session, _))) => out.push_back(self.unseat(session)),
            (_, Err(_)) => {}
        }
    }

    /// The seat's session, while it has one.
    pub(super) fn seat_session(&self) -> Option<&str> {
        match &self.stage {
            Stage::Answering { seat_session } | Stage::Joined { seat_session } => Some(seat_session),
            _ => None,
        }
    }

    /// The seat was given up by somebody else: there is nobody to be ended.
    pub(super) fn handle_unseated(&mut self, now: Instant) {
        self.close(now, None);
    }

    pub(super) fn settle(&mut self, now: Instant, out: &mut VecDeque<Output>) {
        if now >= self.deadline {
            match &self.stage {
                Stage::Publishing => self.end(now, Some(CallError::Late), out),
                Stage::Connecting { .. } | Stage::Pulling { .. } => self.end(now, Some(CallError::NoMedia), out),
                Stage::Answering { .. } => self.end(now, Some(CallError::Late), out),
                Stage::Seating | Stage::Joined { .. } | Stage::Closing { .. } => {}
            }
        }
        let due = |at: &Option<Instant>| at.is_some_and(|at| at <= now);
        match &mut self.stage {
            Stage::Connecting { look_at, .. } if due(look_at) => {
                if let Some(session) = self.publisher.session.clone() {
                    *look_at = None;
                    self.publisher.ask(Ask::Look { session });
                }
            }
            Stage::Pulling { retry_at, .. } if due(retry_at) => {
                if let (Some(session), Some(publisher)) = (self.puller.session.clone(), self.publisher.session.clone())
                {
                    *retry_at = None;
                    let name =
                        |track: &LocalTrack| RemoteTrack { publisher: publisher.clone(), name: track.name.clone() };
                    let without_sound = self.mute_since.is_some_and(|since| now - since >= SOUND_PATIENCE);
                    let wanted = self.tracks.iter().filter(|track| !without_sound || track.name == VIDEO);
                    self.puller.ask(Ask::Pull { session, tracks: wanted.map(name).collect() });
                }
            }
            // The box's side first: nobody pulls what is gone.
            Stage::Closing { .. } if self.puller.is_idle() && self.retired.iter().all(Lane::is_idle) => {
                self.publisher.retire();
            }
            _ => {}
        }
        self.retired.retain(|lane| !lane.is_idle());
    }

    pub(super) fn poll_send(&mut self, now: Instant, next: &mut u64) -> Option<(u64, Ask)> {
        let lanes = [&mut self.publisher, &mut self.puller];
        lanes.into_iter().chain(&mut self.retired).find_map(|lane| lane.poll(now, next))
    }

    pub(super) fn is_over(&self, now: Instant) -> bool {
        let Stage::Closing { since } = self.stage else { return false };
        let idle = self.publisher.is_idle() && self.puller.is_idle() && self.retired.is_empty() && !self.seating;
        idle || now.saturating_duration_since(since) >= CLOSING_LIMIT
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        let stage = match &self.stage {
            Stage::Publishing | Stage::Answering { .. } => Some(self.deadline),
            Stage::Connecting { look_at, .. } => Some(look_at.map_or(self.deadline, |at| at.min(self.deadline))),
            Stage::Pulling { retry_at, .. } => {
                // Without a session there is nothing to ask yet: its reply wakes us.
                let due = retry_at.filter(|_| self.puller.session.is_some());
                Some(due.map_or(self.deadline, |at| at.min(self.deadline)))
            }
            Stage::Seating | Stage::Joined { .. } => None,
            Stage::Closing { since } => Some(*since + CLOSING_LIMIT),
        };
        let lanes = [&self.publisher, &self.puller].into_iter().chain(&self.retired);
        lanes.filter_map(Lane::poll_timeout).chain(stage).min()
    }
}
