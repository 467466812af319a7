//! What the crew does to its guests: the waiting room's door, names, levels, and the way out.

use actix::{Context, Handler, MessageResult};

use super::core::{Farewell, SeatRefusal, SeatState};
use super::invitations::{Withdrawn, checked_name};
use super::{GetSeats, GuestIngest, GuestOrder, ManageGuest, Sitter};
use crate::error::GuestError;
use crate::state::SeatReport;

impl GuestIngest {
    fn manage(&mut self, seat: &str, order: GuestOrder) -> Result<(), GuestError> {
        let room = self.room(seat).cloned().ok_or_else(|| SeatRefusal::UnknownSeat(seat.to_owned()))?;
        let session = self.core.session(seat).map(str::to_owned);
        let sitting = session.ok_or(SeatRefusal::Empty);
        match order {
            GuestOrder::Admit => {
                let session = sitting?;
                if let Some(invitation) = self.invited.get(&session) {
                    self.settings.book.admitted(invitation);
                }
                self.core.handle_let_in(seat)?;
            }
            GuestOrder::Refuse if !self.core.is_waiting(seat) && sitting.is_ok() => {
                return Err(SeatRefusal::NotWaiting.into());
            }
            GuestOrder::Refuse => self.put_out(seat, &sitting?, Withdrawn::Refused, Farewell::Refused)?,
            GuestOrder::Remove => self.put_out(seat, &sitting?, Withdrawn::Removed, Farewell::Removed)?,
            GuestOrder::Rename(name) => {
                let name = checked_name(&name)?;
                if let Some(invitation) = self.invited.get(&sitting?) {
                    self.settings.book.rename(invitation, &name)?;
                }
                room.set_label(Some(name));
            }
            GuestOrder::Mute(muted) => room.change_fader(|fader| fader.set_muted(muted)),
            GuestOrder::Level(level) => room.change_fader(|fader| fader.set_level_db(level)),
        }
        self.drain();
        Ok(())
    }

    /// The word first: the guest's page comes back by itself, and must find the door shut.
    fn put_out(&mut self, seat: &str, session: &str, why: Withdrawn, farewell: Farewell) -> Result<(), GuestError> {
        self.settings.book.put_out(seat, self.invited.get(session).map(String::as_str), why);
        Ok(self.core.handle_end(session, farewell)?)
    }

    fn report(&self, seat: &str) -> SeatReport {
        let session = self.core.session(seat).map(str::to_owned);
        let sitter = session.as_ref().and_then(|session| self.sitters.get(session));
        let room = self.room(seat);
        let fader = room.map(|room| room.feed().fader());
        SeatReport {
            id: seat.to_owned(),
            label: room.map(|room| room.label()).unwrap_or_default(),
            state: self.core.state(seat).unwrap_or(SeatState::Free),
            waiting: self.core.is_waiting(seat),
            muted: fader.is_some_and(|fader| fader.is_muted()),
            level_db: fader.map_or(0.0, |fader| fader.level_db()),
            invitation: session.as_ref().and_then(|session| self.invited.get(session).cloned()),
            path: sitter.and_then(|sitter| sitter.path.clone()),
            road: sitter.and_then(Sitter::road),
            session,
        }
    }
}

impl Handler<ManageGuest> for GuestIngest {
    type Result = Result<SeatReport, GuestError>;
    fn handle(&mut self, ManageGuest { seat, order }: ManageGuest, _: &mut Context<Self>) -> Self::Result {
        self.manage(&seat, order)?;
        Ok(self.report(&seat))
    }
}

impl Handler<GetSeats> for GuestIngest {
    type Result = MessageResult<GetSeats>;
    fn handle(&mut self, _: GetSeats, _: &mut Context<Self>) -> Self::Result {
        MessageResult(self.settings.seats.iter().map(|seat| self.report(seat)).collect())
    }
}
