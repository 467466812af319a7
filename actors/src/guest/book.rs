//! The guest book: who may come in by which word, for everybody who has to know. It outlives the actor that keeps the seats.
//!
//! Seat tokens are configured and never end; invitations are made, used and kept on disk. Both are answered here without a
//! mailbox; what changes goes to disk in the order it happened.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use chrono::Utc;
use r58_mqtt::durable::{Changes, KeyValue, commit_async};
use tracing::{error, warn};

use super::fresh_session;
use super::invitations::{
    Invitation, InvitationOutput, InvitationRefusal, Invitations, NewInvitation, Road, Withdrawn,
};
use super::tokens::SeatTokens;
use crate::error::GuestError;
use crate::supervision::lock;

/// Where invitations stand in the box's store.
const PREFIX: &[u8] = b"inv/";
/// How long the holder of a seat's own token stays outside after the crew has put it out: its page comes back by itself, and
/// gives up when it is told no.
const BARRED_FOR: Duration = Duration::from_secs(60);

/// What a word opens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pass {
    /// The seat.
    pub seat: String,
    /// The invitation it comes from; none for a seat's own token.
    pub invitation: Option<String>,
    /// What the guest is called, if its invitation says so.
    pub name: Option<String>,
    /// Whether it goes past the waiting room.
    pub admitted: bool,
    /// By which way its media come.
    pub road: Road,
}

/// An invitation that was just made, with the only copy of its token.
#[derive(Clone)]
pub struct Made {
    /// As it is kept.
    pub invitation: Invitation,
    /// 128 random bits in hex.
    pub token: String,
}

/// See the module. Cheap to clone.
#[derive(Clone)]
pub struct GuestBook(Arc<Inner>);

struct Inner {
    seats: Vec<String>,
    tokens: SeatTokens,
    store: Arc<dyn KeyValue>,
    kept: Mutex<Kept>,
}

#[derive(Default)]
struct Kept {
    invitations: Invitations,
    /// Seats whose own token opens nothing until then.
    barred: BTreeMap<String, Instant>,
}

fn key(id: &str) -> Vec<u8> {
    [PREFIX, id.as_bytes()].concat()
}

impl GuestBook {
    /// With what is on disk. A row that cannot be read costs that invitation and nothing else.
    pub fn open(seats: Vec<String>, tokens: SeatTokens, store: Arc<dyn KeyValue>) -> Self {
        let rows = store.scan(PREFIX).unwrap_or_else(|error| {
            error!(%error, "the invitations cannot be read");
            Vec::new()
        });
        let read = rows.iter().filter_map(|(_, bytes)| {
            let row = serde_json::from_slice::<Invitation>(bytes);
            row.inspect_err(|error| warn!(%error, "an invitation cannot be read")).ok()
        });
        let invitations = Invitations::new(Utc::now(), read);
        let book = Self(Arc::new(Inner { seats, tokens, store, kept: Mutex::default() }));
        lock(&book.0.kept).invitations = invitations;
        book.change(|_| ());
        book
    }

    /// Whom a bearer lets in by `name`, a seat or an invitation, now. Nothing is used by asking.
    ///
    /// # Errors
    /// `NoToken`, `BadToken`, `WrongSeat`, `Barred`, `Invitation`: none of them says whose it is.
    pub fn enter(&self, name: &str, bearer: Option<&str>) -> Result<Pass, GuestError> {
        let pass = self.known(name, bearer)?;
        let mut kept = lock(&self.0.kept);
        let Some(id) = &pass.invitation else {
            let now = Instant::now();
            kept.barred.retain(|_, until| now < *until);
            return if kept.barred.contains_key(&pass.seat) { Err(GuestError::Barred) } else { Ok(pass) };
        };
        let entry = kept.invitations.may_enter(Utc::now(), id)?;
        Ok(Pass { admitted: entry.admitted, ..pass })
    }

    /// Whose word a bearer is, whether it still opens anything or not: for what concerns a session that exists.
    ///
    /// # Errors
    /// `NoToken`, `BadToken`, `WrongSeat`.
    pub fn known(&self, name: &str, bearer: Option<&str>) -> Result<Pass, GuestError> {
        let bearer = bearer.filter(|token| !token.is_empty()).ok_or(GuestError::NoToken)?;
        let pass = self.of(bearer).ok_or(GuestError::BadToken)?;
        let named = pass.seat == name || pass.invitation.as_deref() == Some(name);
        named.then_some(pass).ok_or(GuestError::WrongSeat)
    }

    /// What a bearer is for, whether it still opens anything or not.
    pub fn of(&self, bearer: &str) -> Option<Pass> {
        if let Some(seat) = self.0.tokens.seat_of(bearer) {
            let (seat, road) = (seat.to_owned(), Road::Auto);
            return Some(Pass { seat, invitation: None, name: None, admitted: true, road });
        }
        let kept = lock(&self.0.kept);
        kept.invitations.find(bearer).map(|item| Pass {
            seat: item.seat.clone(),
            invitation: Some(item.id.clone()),
            name: Some(item.name.clone()),
            admitted: item.stay.as_ref().map_or(!item.admit, |stay| stay.admitted),
            road: item.road,
        })
    }

    /// What a bearer opens: also for a guest who is in by an invitation that was taken back meanwhile.
    ///
    /// # Errors
    /// `BadToken`, `Invitation`.
    pub fn opens(&self, bearer: &str) -> Result<Pass, GuestError> {
        let pass = self.of(bearer).ok_or(GuestError::BadToken)?;
        if let Some(id) = &pass.invitation {
            let kept = lock(&self.0.kept);
            let stay = kept.invitations.get(id).and_then(|item| item.stay.as_ref());
            if stay.is_none_or(|stay| stay.away_since.is_some()) {
                kept.invitations.may_enter(Utc::now(), id)?;
            }
        }
        Ok(pass)
    }

    /// Makes an invitation; answers when it is on disk.
    ///
    /// # Errors
    /// [`InvitationRefusal`] as `Ok(Err(..))`; `Unavailable` when the disk does not take it: then there is none.
    pub async fn invite(&self, new: NewInvitation) -> Result<Result<Made, InvitationRefusal>, GuestError> {
        // Half as long as a token: it has to be unique, not secret.
        let (id, token) = (fresh_session()[..16].to_owned(), fresh_session());
        let (made, changes) = {
            let mut kept = lock(&self.0.kept);
            let made = kept.invitations.handle_create(Utc::now(), (&id, &token), &self.0.seats, new);
            (made, rows(&mut kept.invitations))
        };
        let invitation = match made {
            Ok(invitation) => invitation,
            Err(refusal) => {
                self.0.store.submit_lazily(changes);
                return Ok(Err(refusal));
            }
        };
        if let Err(error) = commit_async(&*self.0.store, changes).await {
            error!(%error, "an invitation cannot be kept");
            self.change(|kept| drop(kept.invitations.handle_withdraw(Utc::now(), &id, Withdrawn::Revoked)));
            return Err(GuestError::Unavailable("the box's disk does not take the invitation".into()));
        }
        Ok(Ok(Made { invitation, token }))
    }

    /// All invitations, the newest first.
    pub fn invitations(&self) -> Vec<Invitation> {
        self.change(|kept| kept.invitations.handle_timeout(Utc::now()));
        lock(&self.0.kept).invitations.all()
    }

    /// The seats that one can be invited to.
    pub fn seats(&self) -> &[String] {
        &self.0.seats
    }

    /// Takes an invitation back; its guest, if in, stays.
    ///
    /// # Errors
    /// `Unknown`.
    pub fn revoke(&self, id: &str) -> Result<(), InvitationRefusal> {
        self.change(|kept| kept.invitations.handle_withdraw(Utc::now(), id, Withdrawn::Revoked))
    }

    pub(super) fn connected(&self, invitation: &str, admitted: bool) {
        self.change(|kept| kept.invitations.handle_connected(Utc::now(), invitation, admitted));
    }

    pub(super) fn admitted(&self, invitation: &str) {
        self.change(|kept| kept.invitations.handle_admitted(invitation));
    }

    pub(super) fn left(&self, invitation: &str) {
        self.change(|kept| kept.invitations.handle_left(Utc::now(), invitation));
    }

    /// Whoever keeps the seats has begun anew, with all of them free.
    pub(super) fn all_left(&self) {
        self.change(|kept| kept.invitations.handle_all_left(Utc::now()));
    }

    pub(super) fn rename(&self, invitation: &str, name: &str) -> Result<(), InvitationRefusal> {
        self.change(|kept| kept.invitations.handle_rename(invitation, name))
    }

    /// A guest was put out by the crew: its word opens nothing any more, or not for a while.
    pub(super) fn put_out(&self, seat: &str, invitation: Option<&str>, why: Withdrawn) {
        self.change(|kept| match invitation {
            Some(id) => drop(kept.invitations.handle_withdraw(Utc::now(), id, why)),
            None => drop(kept.barred.insert(seat.to_owned(), Instant::now() + BARRED_FOR)),
        });
    }

    /// Changes something, and hands what has to be kept to the disk in the same order.
    fn change<T>(&self, with: impl FnOnce(&mut Kept) -> T) -> T {
        let mut kept = lock(&self.0.kept);
        let result = with(&mut kept);
        let changes = rows(&mut kept.invitations);
        if !changes.is_empty() {
            let done = |result: Result<(), _>| {
                if let Err(error) = result {
                    error!(%error, "what became of an invitation cannot be kept");
                }
            };
            self.0.store.submit(changes, Box::new(done));
        }
        result
    }
}

fn rows(invitations: &mut Invitations) -> Changes {
    let mut changes = Changes::new();
    while let Some(output) = invitations.poll_output() {
        match output {
            InvitationOutput::Keep(row) => match serde_json::to_vec(&row) {
                Ok(bytes) => changes.put(key(&row.id), bytes),
                Err(error) => error!(%error, "an invitation cannot be written"),
            },
            InvitationOutput::Forget(id) => changes.delete(key(&id)),
        }
    }
    changes
}

#[cfg(test)]
mod tests {
    use chrono::TimeDelta;
    use r58_mqtt::durable::Memory;

    use super::super::invitations::Uses;
    use super::*;

    fn book(store: &Arc<Memory>) -> GuestBook {
        let tokens = SeatTokens::new([("g1", "one"), ("g2", "two")]);
        GuestBook::open(vec!["g1".into(), "g2".into()], tokens, store.clone())
    }

    fn new(seat: &str) -> NewInvitation {
        NewInvitation {
            seat: seat.into(),
            name: "Ada".into(),
            expires_at: Utc::now() + TimeDelta::hours(1),
            uses: Uses::Single,
            road: Road::Auto,
            admit: true,
            created_by: "crew".into(),
        }
    }

    #[tokio::test]
    async fn a_seats_own_token_and_an_invitation_open_the_same_seat_and_no_other() {
        let store = Arc::new(Memory::new());
        let book = book(&store);
        let made = book.invite(new("g1")).await.unwrap().unwrap();
        let (id, token) = (made.invitation.id.as_str(), Some(made.token.as_str()));
        assert_eq!((id.len(), made.token.len()), (16, 32));
        assert!(book.enter("g1", Some("one")).unwrap().admitted);
        for name in ["g1", id] {
            let pass = book.enter(name, token).unwrap();
            assert_eq!((pass.seat.as_str(), pass.invitation.as_deref(), pass.admitted), ("g1", Some(id), false));
        }
        for (name, bearer, status) in
            [("g2", token, 403), (id, Some("one"), 403), (id, Some(id), 401), ("g1", None, 401), ("g9", token, 403)]
        {
            let refusal = book.enter(name, bearer).unwrap_err();
            assert_eq!(refusal.status(), status, "{name}: {refusal}");
        }
    }

    #[tokio::test]
    async fn an_invitation_outlives_a_start_of_the_box_and_its_end_does_too() {
        let store = Arc::new(Memory::new());
        let made = book(&store).invite(new("g1")).await.unwrap().unwrap();
        let (id, token) = (made.invitation.id, Some(made.token.as_str()));
        assert!(book(&store).enter(&id, token).is_ok());
        book(&store).revoke(&id).unwrap();
        let again = book(&store);
        assert_eq!(again.enter(&id, token).unwrap_err().status(), 403);
        assert!(again.known(&id, token).is_ok(), "who is in may still leave");
        assert_eq!(again.opens(token.unwrap()).unwrap_err().status(), 403);
        assert_eq!(again.revoke("nobody"), Err(InvitationRefusal::Unknown));
        store
            .commit({
                let mut changes = Changes::new();
                changes.put(key("broken"), b"{".to_vec());
                changes
            })
            .unwrap();
        assert_eq!(book(&store).invitations().len(), 1);
    }

    #[tokio::test]
    async fn whom_the_crew_has_put_out_does_not_come_back_by_the_seats_own_token_at_once() {
        let book = book(&Arc::new(Memory::new()));
        book.put_out("g1", None, Withdrawn::Removed);
        assert_eq!(book.enter("g1", Some("one")).unwrap_err().status(), 403);
        assert!(book.enter("g2", Some("two")).is_ok());
    }
}
