//! Takes rollouts further: looks how their commands stand, stops those where too many fail, and sends the next devices their
//! command. Any number of servers may do it at the same time: the database lets each device in once.

use std::collections::HashMap;
use std::time::Duration;

use actix_web::web;
use async_trait::async_trait;
use chrono::{DateTime, Utc};
use r58_actors::rounds::Round;
use r58_mqtt::{DeviceAddress, DeviceId, OrgId};
use serde_json::{Map, json};

use super::api::commands::{self, CreateCommand, Refusal};
use super::auth::{Role, Session};
use super::rollout::{Halt, Tally, first_of, is_in};
use super::state::Fleet;
use super::store::{Actor, NewCommand, RolloutRow, Store, StoreError};

/// How often rollouts are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Devices looked at in one go.
const AT_ONCE: i64 = 500;
/// Goes of one look: the database has other work, and the next look comes soon.
const GOES: usize = 10;
/// A device that is connected has this long to begin.
const LIFE: chrono::Duration = chrono::Duration::hours(24);

/// Where a rollout's walk over the devices stands. Lost at a restart, and begun anew then.
#[derive(Debug, Default)]
struct Walk {
    /// The last identifier.
    after: String,
    /// How its devices stood when that was last told.
    told: Tally,
}

type Walks = HashMap<String, Walk>;

/// The leader's duty of rollouts.
pub(super) struct RolloutDriver {
    fleet: web::Data<Fleet>,
    walks: Walks,
}

impl RolloutDriver {
    pub fn new(fleet: web::Data<Fleet>) -> Self {
        Self { fleet, walks: Walks::new() }
    }
}

#[async_trait]
impl Round for RolloutDriver {
    async fn round(&mut self) -> Result<Duration, String> {
        if self.fleet.store.leads() {
            look(&self.fleet, &mut self.walks).await.map_err(|error| error.to_string())?;
        }
        Ok(LOOK_EVERY)
    }
}

async fn look(fleet: &Fleet, walks: &mut Walks) -> Result<(), StoreError> {
    let running = fleet.store.running_rollouts().await?;
    walks.retain(|id, _| running.iter().any(|rollout| rollout.id == *id));
    for rollout in &running {
        further(fleet, rollout, walks.entry(rollout.id.clone()).or_default()).await?;
    }
    Ok(())
}

/// How the commands of a rollout stand.
///
/// # Errors
/// Those of the database.
pub async fn tally(store: &Store, rollout: &str) -> Result<Tally, StoreError> {
    let mut tally = Tally::default();
    for count in store.group_states(rollout).await? {
        tally.add(&count.state, count.code.as_deref(), count.count.max(0).unsigned_abs());
    }
    Ok(tally)
}

/// Cancels what has not begun.
///
/// # Errors
/// Those of the database.
pub async fn take_back(fleet: &Fleet, actor: &Actor, rollout: &str) -> Result<(), StoreError> {
    for command in fleet.store.open_of_group(&actor.org, rollout).await? {
        // One that has begun meanwhile is left alone.
        let _ = fleet.store.cancel_command(actor, &command, Utc::now()).await?;
        fleet.hub.command_changed(&actor.org, &command);
    }
    fleet.broker.commands_changed();
    Ok(())
}

async fn further(fleet: &Fleet, rollout: &RolloutRow, walk: &mut Walk) -> Result<(), StoreError> {
    let tally = tally(&fleet.store, &rollout.id).await?;
    if tally != walk.told {
        walk.told = tally;
        fleet.hub.rollout_changed(&rollout.org, &rollout.id);
    }
    let actor = Actor { org: rollout.org.clone(), name: format!("rollout:{}", rollout.id) };
    if let Some(halt) = tally.halt(rollout.abort_percent.unsigned_abs()) {
        let (state, reason) = match halt {
            Halt::Failures => ("halted", format!("failed on {}", boxes(tally.failed))),
            Halt::Unsupported => {
                ("unsupported", format!("unknown to {}, which cannot update", boxes(tally.unsupported)))
            }
        };
        tracing::warn!(rollout = %rollout.id, version = %rollout.version, reason, "the rollout stops");
        let moved = ("running", state);
        if fleet.store.move_rollout(&actor, &rollout.id, moved, None, Some(&reason), Utc::now()).await? {
            take_back(fleet, &actor, &rollout.id).await?;
            fleet.hub.rollout_changed(&rollout.org, &rollout.id);
        }
        return Ok(());
    }
    let mut room = tally.room(rollout.at_once.unsigned_abs());
    for _ in 0..GOES {
        if room == 0 {
            return Ok(());
        }
        let devices = fleet.store.rollout_candidates(rollout, &walk.after, AT_ONCE).await?;
        let Some(last) = devices.last() else {
            walk.after.clear();
            return ended(fleet, rollout, &actor).await;
        };
        let percent = rollout.percent.unsigned_abs();
        let mut reached = walk.after.clone();
        for device in devices.iter().filter(|device| is_in(&rollout.id, device, percent)) {
            if room == 0 {
                // The walk goes on with this one.
                break;
            }
            if send(fleet, rollout, &actor, device, Utc::now()).await? {
                room -= 1;
            }
            reached.clone_from(device);
        }
        if room > 0 {
            reached.clone_from(last);
        }
        walk.after = reached;
    }
    Ok(())
}

fn boxes(count: u64) -> String {
    if count == 1 { "1 box".into() } else { format!("{count} boxes") }
}

/// Over when every device that it is for was reached and none is at it any more.
async fn ended(fleet: &Fleet, rollout: &RolloutRow, actor: &Actor) -> Result<(), StoreError> {
    if rollout.percent < 100 {
        return begin_with_one(fleet, rollout, actor).await;
    }
    // Counted anew: this very look may have sent the last ones.
    let tally = tally(&fleet.store, &rollout.id).await?;
    if tally.open > 0 || tally.halt(rollout.abort_percent.unsigned_abs()).is_some() {
        return Ok(());
    }
    let (devices, reached) = fleet.store.rollout_reach(rollout).await?;
    if devices > 0 && reached >= devices {
        let moved = ("running", "completed");
        if fleet.store.move_rollout(actor, &rollout.id, moved, None, None, Utc::now()).await? {
            fleet.hub.rollout_changed(&rollout.org, &rollout.id);
        }
    }
    Ok(())
}

/// A part of few may be nobody by the places alone; then the first goes, or the rollout would run and never begin.
async fn begin_with_one(fleet: &Fleet, rollout: &RolloutRow, actor: &Actor) -> Result<(), StoreError> {
    if !fleet.store.group_states(&rollout.id).await?.is_empty() {
        return Ok(());
    }
    let devices = fleet.store.rollout_candidates(rollout, "", AT_ONCE).await?;
    if let Some(first) = first_of(&rollout.id, &devices) {
        send(fleet, rollout, actor, first, Utc::now()).await?;
    }
    Ok(())
}

async fn send(
    fleet: &Fleet,
    rollout: &RolloutRow,
    actor: &Actor,
    device: &str,
    now: DateTime<Utc>,
) -> Result<bool, StoreError> {
    let (Ok(org), Ok(id)) = (OrgId::new(&rollout.org), DeviceId::new(device)) else { return Ok(false) };
    let address = DeviceAddress { org, device: id };
    let session = Session {
        user_id: String::new(),
        email: actor.name.clone(),
        org: rollout.org.clone(),
        role: Role::Admin,
        platform: false,
        key: None,
        expires_at: now,
        generation: 0,
    };
    let arguments =
        Map::from_iter([("version".to_owned(), json!(rollout.version)), ("force".to_owned(), json!(false))]);
    let order = CreateCommand::plain("update", arguments).until(now + LIFE);
    let bug = |what: &str| StoreError::Bug(format!("a rollout's command {what}"));
    let command = commands::checked(&order, &address, &session, now).map_err(|_| bug("is refused"))?;
    let row = commands::row(&order, &command, device).map_err(|_| bug("is refused"))?;
    let row = NewCommand { group: Some(rollout.id.clone()), ..row };
    let sent = fleet.store.roll_to(actor, rollout, &row, now, |seq| commands::sign(fleet, command, seq)).await;
    let sent = sent.map_err(|refusal| match refusal {
        Refusal::Store(error) => error,
        Refusal::Problem(_) | Refusal::Unsignable(_) => bug("cannot be signed"),
    })?;
    if sent {
        fleet.broker.commands_changed();
        fleet.hub.command_changed(&rollout.org, &row.id);
        fleet.hub.device_changed(&rollout.org, device);
    }
    Ok(sent)
}
