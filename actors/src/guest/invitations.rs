//! What the box decides about its invitations. Pure: the shell brings the time, fresh ids and tokens, and the disk.
//!
//! An invitation is a link for one seat, with a name, an end and a secret of which only the digest is kept. It is used by a
//! guest whose peer connects, not by a request that fails. A single one then opens the door to nobody else, but to that guest
//! again for [`RETURN_WITHIN`] after it was last in the seat: whether the network dropped or the page was loaded anew, its
//! goodbye looks the same. A guest who came in before the end of its invitation is not put out by it, and comes back within
//! the same time.
//!
//! Whoever was let in from the waiting room stays so as long: what the crew decided belongs to the [`Stay`] and is kept with
//! the invitation, so that neither a rebuilt actor nor a power cut asks the crew again.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};

use super::tokens::{digest, same};

/// Most invitations of a box, those of the last day that are over included; those go first when there is no room.
pub const MOST_INVITATIONS: usize = 256;
/// How long a guest may be away and come back with the same invitation. Changing from Wi-Fi to mobile data, or reloading the
/// page, takes seconds; a phone that restarts, a minute or so.
pub const RETURN_WITHIN: TimeDelta = TimeDelta::minutes(2);
/// How long one that is over is still listed.
const FORGET_AFTER: TimeDelta = TimeDelta::days(1);
/// Longest life of an invitation: a season's worth, for one that is used again and again.
pub const LONGEST_LIFE: TimeDelta = TimeDelta::days(90);
/// Longest name of a guest, in characters; it stands on tiles and slates.
pub const LONGEST_NAME: usize = 60;

/// How often an invitation opens the door.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Uses {
    /// To one guest, once; coming back counts as the same time.
    #[default]
    Single,
    /// Until it ends.
    Repeated,
}

/// By which way a guest's media come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Road {
    /// Directly, and otherwise when that does not come about.
    #[default]
    Auto,
    /// By whatever ICE finds.
    Direct,
    /// Through a TURN relay only.
    Turn,
    /// Through the SFU.
    Sfu,
}

/// Why an invitation opens no door any more, though it has not ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Withdrawn {
    /// The crew took it back.
    Revoked,
    /// The crew did not let its guest in.
    Refused,
    /// The crew put its guest out.
    Removed,
}

/// A guest's time in its seat, from the first connection until it does not come back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stay {
    /// Whether the crew has let it in, or never wanted to be asked.
    pub admitted: bool,
    /// Since when it is away; absent while it has its seat.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub away_since: Option<DateTime<Utc>>,
}

impl Stay {
    fn holds(&self, now: DateTime<Utc>) -> bool {
        self.away_since.is_none_or(|since| now.signed_duration_since(since) < RETURN_WITHIN)
    }
}

/// One invitation, as it is kept on disk.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Invitation {
    /// Names it in addresses; tells nothing and opens nothing.
    pub id: String,
    /// The seat it is for.
    pub seat: String,
    /// What the guest is called on the programme.
    pub name: String,
    /// From then on nobody gets in by it.
    pub expires_at: DateTime<Utc>,
    /// How often it opens the door.
    #[serde(default)]
    pub uses: Uses,
    /// By which way the media come.
    #[serde(default)]
    pub road: Road,
    /// Whether the guest waits until the crew lets it in.
    pub admit: bool,
    /// When it was made.
    pub created_at: DateTime<Utc>,
    /// By whom.
    pub created_by: String,
    /// SHA-256 of the token, in hex.
    pub token_sha256: String,
    /// When and why it was withdrawn.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub withdrawn: Option<(DateTime<Utc>, Withdrawn)>,
    /// When somebody first got in by it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub used_at: Option<DateTime<Utc>>,
    /// Its guest, while there is one or one may come back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stay: Option<Stay>,
}

impl std::fmt::Debug for Invitation {
    /// Without the digest.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Invitation").field("id", &self.id).field("seat", &self.seat).finish_non_exhaustive()
    }
}

impl Invitation {
    fn staying(&self, now: DateTime<Utc>) -> Option<&Stay> {
        self.stay.as_ref().filter(|stay| stay.holds(now))
    }

    /// When it was over, if it is; one whose guest may come back is not.
    fn over_since(&self, now: DateTime<Utc>) -> Option<DateTime<Utc>> {
        if let Some((at, _)) = self.withdrawn {
            return Some(at);
        }
        (now >= self.expires_at && self.staying(now).is_none()).then_some(self.expires_at)
    }

    /// How it stands, in a word: `open`, `in`, `expired`, `revoked`, `refused`, `removed` or `used`.
    pub fn state(&self, now: DateTime<Utc>) -> &'static str {
        match self.withdrawn {
            Some((_, Withdrawn::Revoked)) => "revoked",
            Some((_, Withdrawn::Refused)) => "refused",
            Some((_, Withdrawn::Removed)) => "removed",
            None if self.staying(now).is_some_and(|stay| stay.away_since.is_none()) => "in",
            None if self.is_spent(now) => "used",
            None if self.over_since(now).is_some() => "expired",
            None => "open",
        }
    }

    /// A single one that was used and whose guest will not come back.
    fn is_spent(&self, now: DateTime<Utc>) -> bool {
        self.uses == Uses::Single && self.used_at.is_some() && self.staying(now).is_none()
    }
}

/// What an invitation is to be.
#[derive(Debug, Clone)]
pub struct NewInvitation {
    /// The seat it is for.
    pub seat: String,
    /// What the guest is called; 1 to [`LONGEST_NAME`] characters.
    pub name: String,
    /// In the future, at most [`LONGEST_LIFE`] from now.
    pub expires_at: DateTime<Utc>,
    /// How often it opens the door.
    pub uses: Uses,
    /// By which way the media come.
    pub road: Road,
    /// Whether the guest waits until the crew lets it in.
    pub admit: bool,
    /// Who makes it.
    pub created_by: String,
}

/// Why there is no new invitation, or no such one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvitationRefusal {
    /// There is no such seat.
    #[error("there is no seat {0:?}")]
    UnknownSeat(String),
    /// There is no such invitation.
    #[error("there is no such invitation")]
    Unknown,
    /// The name cannot be shown.
    #[error("a guest's name has 1 to {LONGEST_NAME} characters, none of them for control")]
    BadName,
    /// It ends too soon or too late.
    #[error("an invitation ends in the future, at most 90 days from now")]
    BadExpiry,
    /// As many are open as may.
    #[error("there are {MOST_INVITATIONS} open invitations; revoke one first")]
    TooMany,
}

impl InvitationRefusal {
    /// The HTTP status that says the same (RFC 9110, section 15).
    pub fn status(&self) -> u16 {
        match self {
            Self::UnknownSeat(_) | Self::Unknown => 404,
            Self::BadName | Self::BadExpiry => 400,
            Self::TooMany => 409,
        }
    }
}

/// Why a token that is known opens nothing. It says nothing of seat and guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvitationFault {
    /// Its time is over.
    #[error("this invitation has expired")]
    Expired,
    /// Its guest has come and gone.
    #[error("this invitation has been used")]
    Used,
    /// The crew took it back.
    #[error("this invitation was withdrawn")]
    Revoked,
    /// The crew did not let its guest in.
    #[error("the crew has not let you in")]
    Refused,
    /// The crew put its guest out.
    #[error("the crew has taken you out of the programme")]
    Removed,
}

/// What becomes of a row on disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum InvitationOutput {
    /// Write it.
    Keep(Invitation),
    /// Remove it.
    Forget(String),
}

/// All invitations of a box.
#[derive(Debug, Default)]
pub struct Invitations {
    items: BTreeMap<String, Invitation>,
    touched: BTreeSet<String>,
}

/// A name for people: trimmed.
///
/// # Errors
/// [`InvitationRefusal::BadName`].
pub fn checked_name(name: &str) -> Result<String, InvitationRefusal> {
    let name = name.trim();
    let fits = !name.is_empty() && name.chars().count() <= LONGEST_NAME && !name.chars().any(char::is_control);
    fits.then(|| name.to_owned()).ok_or(InvitationRefusal::BadName)
}

impl Invitations {
    /// Those that were on disk. Nobody sits anywhere after a start: who was in is away as of now.
    pub fn new(now: DateTime<Utc>, rows: impl IntoIterator<Item = Invitation>) -> Self {
        let items = rows.into_iter().map(|row| (row.id.clone(), row)).collect();
        let mut all = Self { items, touched: BTreeSet::new() };
        all.handle_all_left(now);
        all
    }

    /// Makes one. `id` and `token` are fresh and random.
    ///
    /// # Errors
    /// `UnknownSeat`, `BadName`, `BadExpiry`, `TooMany`.
    pub fn handle_create(
        &mut self,
        now: DateTime<Utc>,
        (id, token): (&str, &str),
        seats: &[String],
        new: NewInvitation,
    ) -> Result<Invitation, InvitationRefusal> {
        if !seats.contains(&new.seat) {
            return Err(InvitationRefusal::UnknownSeat(new.seat));
        }
        let name = checked_name(&new.name)?;
        let life = new.expires_at.signed_duration_since(now);
        // Whoever asks looks at the clock a little earlier.
        if life <= TimeDelta::zero() || life > LONGEST_LIFE {
            return Err(InvitationRefusal::BadExpiry);
        }
        self.make_room(now)?;
        let invitation = Invitation {
            id: id.to_owned(),
            seat: new.seat,
            name,
            expires_at: new.expires_at,
            uses: new.uses,
            road: new.road,
            admit: new.admit,
            created_at: now,
            created_by: new.created_by,
            token_sha256: hex::encode(digest(token)),
            withdrawn: None,
            used_at: None,
            stay: None,
        };
        self.items.insert(id.to_owned(), invitation.clone());
        self.touched.insert(id.to_owned());
        Ok(invitation)
    }

    fn make_room(&mut self, now: DateTime<Utc>) -> Result<(), InvitationRefusal> {
        self.handle_timeout(now);
        if self.items.len() < MOST_INVITATIONS {
            return Ok(());
        }
        let over = self.items.values().filter_map(|item| Some((item.over_since(now)?, item.id.clone())));
        let (_, oldest) = over.min().ok_or(InvitationRefusal::TooMany)?;
        self.forget(&oldest);
        Ok(())
    }

    /// The one that a token belongs to, whether it still opens anything or not. Every one is compared, whichever matches.
    pub fn find(&self, token: &str) -> Option<&Invitation> {
        let given = digest(token);
        self.items.values().fold(None, |found, item| {
            let mut known = [0; 32];
            let read = hex::decode_to_slice(&item.token_sha256, &mut known).is_ok();
            if read && same(&known, &given) { Some(item) } else { found }
        })
    }

    /// Whether an invitation lets its guest in now, and whether past the waiting room.
    ///
    /// # Errors
    /// Why not.
    pub fn may_enter(&self, now: DateTime<Utc>, id: &str) -> Result<Entry, InvitationFault> {
        let item = self.items.get(id).ok_or(InvitationFault::Revoked)?;
        match item.withdrawn {
            Some((_, Withdrawn::Revoked)) => return Err(InvitationFault::Revoked),
            Some((_, Withdrawn::Refused)) => return Err(InvitationFault::Refused),
            Some((_, Withdrawn::Removed)) => return Err(InvitationFault::Removed),
            None => {}
        }
        let stay = item.staying(now);
        if stay.is_none() && item.is_spent(now) {
            return Err(InvitationFault::Used);
        }
        if stay.is_none() && now >= item.expires_at {
            return Err(InvitationFault::Expired);
        }
        let admitted = stay.map_or(!item.admit, |stay| stay.admitted);
        Ok(Entry { admitted })
    }

    /// One by its id.
    pub fn get(&self, id: &str) -> Option<&Invitation> {
        self.items.get(id)
    }

    /// All, the newest first.
    pub fn all(&self) -> Vec<Invitation> {
        let mut all: Vec<Invitation> = self.items.values().cloned().collect();
        all.sort_by(|a, b| (b.created_at, &b.id).cmp(&(a.created_at, &a.id)));
        all
    }

    /// Its guest's peer is connected, in the waiting room or past it: now it is used.
    pub fn handle_connected(&mut self, now: DateTime<Utc>, id: &str, admitted: bool) {
        self.change(id, |item| {
            item.stay = Some(Stay { admitted, away_since: None });
            item.used_at.get_or_insert(now);
        });
    }

    /// The crew lets its guest in, who may be anywhere between its request and the waiting room.
    pub fn handle_admitted(&mut self, id: &str) {
        self.change(id, |item| {
            let away_since = item.stay.as_ref().and_then(|stay| stay.away_since);
            item.stay = Some(Stay { admitted: true, away_since });
        });
    }

    /// Its guest has no seat any more, and may come back for a while.
    pub fn handle_left(&mut self, now: DateTime<Utc>, id: &str) {
        self.change(id, |item| {
            if item.used_at.is_none() {
                // It never got in: nothing is used, and nobody is expected back.
                item.stay = None;
            } else if let Some(stay) = &mut item.stay {
                stay.away_since.get_or_insert(now);
            }
        });
    }

    /// Nobody has a seat any more: whoever keeps them has begun anew.
    pub fn handle_all_left(&mut self, now: DateTime<Utc>) {
        let present =
            self.items.values().filter(|item| item.stay.as_ref().is_some_and(|stay| stay.away_since.is_none()));
        let ids: Vec<String> = present.map(|item| item.id.clone()).collect();
        for id in ids {
            self.handle_left(now, &id);
        }
    }

    /// Takes one back. Its guest, if in, stays until it leaves or is put out.
    ///
    /// # Errors
    /// `Unknown`.
    pub fn handle_withdraw(&mut self, now: DateTime<Utc>, id: &str, why: Withdrawn) -> Result<(), InvitationRefusal> {
        if !self.items.contains_key(id) {
            return Err(InvitationRefusal::Unknown);
        }
        self.change(id, |item| {
            if item.withdrawn.is_none() {
                item.withdrawn = Some((now, why));
            }
        });
        Ok(())
    }

    /// Its guest is called otherwise.
    ///
    /// # Errors
    /// `BadName`, `Unknown`.
    pub fn handle_rename(&mut self, id: &str, name: &str) -> Result<(), InvitationRefusal> {
        let name = checked_name(name)?;
        if !self.items.contains_key(id) {
            return Err(InvitationRefusal::Unknown);
        }
        self.change(id, |item| item.name = name);
        Ok(())
    }

    /// Forgets what has been over for a day.
    pub fn handle_timeout(&mut self, now: DateTime<Utc>) {
        let old = |item: &&Invitation| {
            item.over_since(now).is_some_and(|since| now.signed_duration_since(since) >= FORGET_AFTER)
        };
        let ids: Vec<String> = self.items.values().filter(old).map(|item| item.id.clone()).collect();
        for id in ids {
            self.forget(&id);
        }
    }

    /// What to do on disk, next.
    pub fn poll_output(&mut self) -> Option<InvitationOutput> {
        let id = self.touched.pop_first()?;
        Some(match self.items.get(&id) {
            Some(item) => InvitationOutput::Keep(item.clone()),
            None => InvitationOutput::Forget(id),
        })
    }

    fn change(&mut self, id: &str, with: impl FnOnce(&mut Invitation)) {
        let Some(item) = self.items.get_mut(id) else { return };
        let before = item.clone();
        with(item);
        if *item != before {
            self.touched.insert(id.to_owned());
        }
    }

    fn forget(&mut self, id: &str) {
        self.items.remove(id);
        self.touched.insert(id.to_owned());
    }
}

/// How a guest comes in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry {
    /// At once; else by the waiting room.
    pub admitted: bool,
}
