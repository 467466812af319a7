//! How all devices are, in one letter each: what a map of a large fleet is drawn from.

use std::collections::BTreeMap;

use actix_web::HttpResponse;
use actix_web::http::header::ContentType;
use actix_web::web::{self, Bytes};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::super::problem::{ProblemBody, store_problem};
use crate::fleet::auth::Viewer;
use crate::fleet::kept::FRESH_UP_TO;
use crate::fleet::state::Fleet;
use crate::fleet::store::{DeviceCounts, StateRow, StoreError};
use crate::problem::Answer;

/// Most devices of one answer: some 3 MB before it is compressed.
const MOST: i64 = 200_000;
/// From here on a processor is hot, in degrees Celsius, as on the dashboard.
const HOT: f64 = 85.0;
/// Below this a disk is nearly full, in GB: where a box begins to give things up.
const FULL: f64 = 10.0;

/// What devices are put together by.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum GroupBy {
    /// Their place.
    #[default]
    Place,
    /// The first of their tags.
    Tag,
}

/// How to group.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct StatesQuery {
    /// `place` unless given.
    #[param(inline)]
    by: Option<GroupBy>,
}

/// Devices that belong together.
#[derive(Debug, Default, Serialize, ToSchema)]
pub struct StateGroup {
    /// Place or tag; empty for those that have none.
    name: String,
    /// By name.
    ids: Vec<String>,
    /// One letter for each of them: `o` online, `t` online and in trouble (load level, temperature, disk), `f` offline, `u`
    /// never seen.
    states: String,
}

/// How many are in which state.
#[derive(Debug, Default, PartialEq, Eq, Serialize, ToSchema)]
pub struct StateCounts {
    online: u64,
    /// Of those online; of those that are listed where there are more.
    trouble: u64,
    offline: u64,
    unknown: u64,
}

/// All devices in service.
#[derive(Debug, Default, Serialize, ToSchema)]
pub struct States {
    groups: Vec<StateGroup>,
    counts: StateCounts,
    /// Whether there are more devices than one answer holds: 200,000.
    truncated: bool,
}

/// All devices in service, each by its identifier and one letter, in groups. Of more than 2,000 devices it is up to five seconds
/// old.
#[utoipa::path(get, path = "/api/v1/devices/states", tag = "devices", security(("user" = [])), params(StatesQuery),
    responses((status = 200, body = States), (status = 400, body = ProblemBody), (status = 401, body = ProblemBody),
    (status = 503, body = ProblemBody)))]
pub async fn states(fleet: web::Data<Fleet>, caller: Viewer, query: web::Query<StatesQuery>) -> Answer {
    let (org, by) = (&caller.org, query.by.unwrap_or_default());
    let counts = fleet.store.device_counts(org).await.map_err(store_problem)?;
    let read = async || {
        let mut states = grouped(fleet.store.device_states(org, MOST + 1).await?, by);
        if states.truncated {
            // Of those that are listed only, trouble cannot be counted otherwise.
            states.counts.take_in(&counts);
        }
        serde_json::to_vec(&states).map(Bytes::from).map_err(|_| StoreError::Bug("a map of states".into()))
    };
    let body = match counts.in_service() <= FRESH_UP_TO {
        true => read().await,
        false => fleet.maps.get((org.clone(), by), read).await,
    };
    Ok(HttpResponse::Ok().content_type(ContentType::json()).body(body.map_err(store_problem)?))
}

impl StateCounts {
    fn take_in(&mut self, counts: &DeviceCounts) {
        let of = |state| u64::try_from(counts.of(state)).unwrap_or(0);
        (self.online, self.offline, self.unknown) = (of("online"), of("offline"), of("unknown"));
    }
}

fn grouped(mut rows: Vec<StateRow>, by: GroupBy) -> States {
    let most = usize::try_from(MOST).unwrap_or(usize::MAX);
    let truncated = rows.len() > most;
    rows.truncate(most);
    let mut groups: BTreeMap<String, StateGroup> = BTreeMap::new();
    let mut counts = StateCounts::default();
    for row in rows {
        let letter = letter(&row);
        match letter {
            'f' => counts.offline += 1,
            'u' => counts.unknown += 1,
            _ => counts.online += 1,
        }
        counts.trouble += u64::from(letter == 't');
        let name = match by {
            GroupBy::Place => row.location,
            GroupBy::Tag => serde_json::from_str(&row.tags).ok().and_then(|tags: Vec<String>| tags.into_iter().min()),
        };
        let group = groups.entry(name.unwrap_or_default()).or_default();
        group.ids.push(row.id);
        group.states.push(letter);
    }
    let mut groups: Vec<StateGroup> = groups.into_iter().map(|(name, group)| StateGroup { name, ..group }).collect();
    // Those without a place come last.
    groups.sort_by_key(|group| group.name.is_empty());
    States { groups, counts, truncated }
}

fn letter(row: &StateRow) -> char {
    let pressed = row.degradation_level.is_some_and(|level| level > 0)
        || row.temperature_c.is_some_and(|degrees| degrees >= HOT)
        || row.disk_free_gb.is_some_and(|free| free < FULL);
    match row.presence.as_str() {
        "online" if pressed => 't',
        "online" => 'o',
        "unknown" => 'u',
        _ => 'f',
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_stand_in_their_group_with_one_letter_each_and_are_counted() {
        let row = |id: &str, place: Option<&str>, presence: &str, level: i64| StateRow {
            id: id.into(),
            location: place.map(str::to_owned),
            tags: r#"["stage","left"]"#.into(),
            presence: presence.into(),
            degradation_level: Some(level),
            temperature_c: None,
            disk_free_gb: Some(50.0),
        };
        let rows = || {
            vec![
                row("a", Some("Oslo"), "online", 0),
                row("b", None, "unknown", 0),
                row("c", Some("Bergen"), "offline", 2),
                row("d", Some("Oslo"), "online", 1),
            ]
        };
        let found = grouped(rows(), GroupBy::Place);
        let told: Vec<_> =
            found.groups.iter().map(|one| (one.name.as_str(), one.ids.len(), one.states.as_str())).collect();
        assert_eq!(told, [("Bergen", 1, "f"), ("Oslo", 2, "ot"), ("", 1, "u")]);
        assert_eq!(found.counts, StateCounts { online: 2, trouble: 1, offline: 1, unknown: 1 });
        let by_tag = grouped(rows(), GroupBy::Tag);
        assert_eq!((by_tag.groups.len(), by_tag.groups[0].name.as_str()), (1, "left"));
    }
}
