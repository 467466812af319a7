//! Many devices at once, and how many there are.

use std::collections::BTreeMap;
use std::sync::Arc;

use actix_web::{HttpResponse, web};
use chrono::Utc;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{MAX_TAGS, tags};
use crate::fleet::api::input;
use crate::fleet::api::problem::{ProblemBody, store_problem};
use crate::fleet::auth::{Operator, Viewer};
use crate::fleet::kept::FRESH_UP_TO;
use crate::fleet::state::Fleet;
use crate::fleet::store::{self, BulkChange, Selection};
use crate::problem::{Answer, Problem};

/// Most devices of one call; with their tags this takes about a second of the database.
pub const MOST: usize = 10_000;
/// Devices changed in one transaction: others write in between.
const AT_ONCE: usize = 500;

/// Which devices: those with a tag, or a list.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Which {
    /// All in service with this tag.
    #[schema(max_length = 200)]
    tag: Option<String>,
    /// These.
    #[schema(min_items = 1, max_items = 10000)]
    ids: Option<Vec<String>>,
}

impl Which {
    /// One of both, not both.
    ///
    /// # Errors
    /// 400 when it is neither, or too many.
    pub fn check(self, most: usize) -> Result<Selection, Problem> {
        match (self.tag, self.ids) {
            (Some(tag), None) => Ok(Selection::Tag(input::line("devices.tag", &tag)?)),
            (None, Some(ids)) if (1..=most).contains(&ids.len()) => Ok(Selection::Ids(ids)),
            (None, Some(_)) => Err(Problem::bad_request(format!("devices.ids: 1 to {most}"))),
            _ => Err(Problem::bad_request("devices: either tag or ids")),
        }
    }
}

/// What to change of each; `null` clears the place.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ChangeDevices {
    devices: Which,
    #[serde(default)]
    #[schema(max_items = 32)]
    add_tags: Vec<String>,
    /// After adding.
    #[serde(default)]
    #[schema(max_items = 32)]
    remove_tags: Vec<String>,
    #[serde(default, deserialize_with = "input::nullable")]
    #[schema(value_type = Option<String>, max_length = 200)]
    location: Option<Option<String>>,
    #[schema(max_length = 200)]
    update_channel: Option<String>,
}

/// What was changed.
#[derive(Debug, Serialize, ToSchema)]
pub struct ChangedDevices {
    /// Devices that were changed.
    changed: usize,
    /// Named ones that are not in service here.
    unknown: Vec<String>,
    /// Those that would have had more tags than a device may have; they were left as they are.
    too_many_tags: Vec<String>,
}

/// How many devices there are.
#[derive(Debug, Serialize, ToSchema)]
pub struct SummaryAnswer {
    /// In service.
    total: i64,
    /// `online`, `offline`, `unknown` (never connected) and `decommissioned`.
    states: BTreeMap<String, i64>,
    /// The 500 tags of most devices.
    tags: Vec<TagCount>,
}

/// Devices in service with a tag.
#[derive(Debug, Serialize, ToSchema)]
pub struct TagCount {
    tag: String,
    total: i64,
    online: i64,
}

/// Changes many devices: tags, place, update channel.
#[utoipa::path(post, path = "/api/v1/devices/bulk", tag = "devices", security(("user" = [])),
    request_body = ChangeDevices, responses((status = 200, body = ChangedDevices), (status = 400, body = ProblemBody),
    (status = 401, body = ProblemBody), (status = 403, body = ProblemBody), (status = 413, body = ProblemBody),
    (status = 415, body = ProblemBody), (status = 503, body = ProblemBody)))]
pub async fn change(fleet: web::Data<Fleet>, caller: Operator, body: web::Json<ChangeDevices>) -> Answer {
    let body = body.into_inner();
    let change = BulkChange {
        add_tags: tags("add_tags", &body.add_tags)?,
        remove_tags: tags("remove_tags", &body.remove_tags)?,
        location: body.location.map(|location| input::optional_line("location", location.as_deref())).transpose()?,
        update_channel: body.update_channel.as_deref().map(|name| input::line("update_channel", name)).transpose()?,
        max_tags: MAX_TAGS,
    };
    let selection = body.devices.check(MOST)?;
    let ids = selected(&fleet, &caller.org, &selection, MOST).await?;
    let mut changed = Vec::new();
    for chunk in ids.chunks(AT_ONCE) {
        let done = fleet.store.change_devices(&caller.actor(), chunk, &change, Utc::now()).await;
        changed.extend(done.map_err(store_problem)?);
    }
    for id in &changed {
        fleet.hub.device_changed(&caller.org, id);
    }
    let left = |id: &&String| changed.binary_search(id).is_err();
    Ok(HttpResponse::Ok().json(ChangedDevices {
        changed: changed.len(),
        unknown: unknown(&selection, &ids),
        too_many_tags: ids.iter().filter(left).cloned().collect(),
    }))
}

/// The selected devices of an organization.
///
/// # Errors
/// 400 when there are more than `most`.
pub async fn selected(fleet: &Fleet, org: &str, selection: &Selection, most: usize) -> Result<Vec<String>, Problem> {
    let limit = i64::try_from(most).unwrap_or(i64::MAX).saturating_add(1);
    let ids = fleet.store.selected_devices(org, selection, limit).await.map_err(store_problem)?;
    match ids.len() <= most {
        true => Ok(ids),
        false => Err(Problem::bad_request(format!("devices: more than {most} at once; take a narrower tag"))),
    }
}

/// Which of the named devices are not among those found.
pub fn unknown(selection: &Selection, found: &[String]) -> Vec<String> {
    match selection {
        Selection::Tag(_) => Vec::new(),
        Selection::Ids(ids) => ids.iter().filter(|id| found.binary_search(id).is_err()).cloned().collect(),
    }
}

/// Counts devices by state and by tag; of more than 2,000 devices, those by tag are up to five seconds old.
#[utoipa::path(get, path = "/api/v1/devices/summary", tag = "devices", security(("user" = [])), responses(
    (status = 200, body = SummaryAnswer), (status = 401, body = ProblemBody), (status = 503, body = ProblemBody)))]
pub async fn summary(fleet: web::Data<Fleet>, caller: Viewer) -> Answer {
    let counts = fleet.store.device_counts(&caller.org).await.map_err(store_problem)?;
    let read = async || fleet.store.tag_counts(&caller.org).await.map(Arc::from);
    let tags: Arc<[store::TagCount]> = match counts.in_service() <= FRESH_UP_TO {
        true => read().await,
        false => fleet.tag_counts.get(caller.org.clone(), read).await,
    }
    .map_err(store_problem)?;
    let tags = tags.iter().cloned().map(|(tag, total, online)| TagCount { tag, total, online }).collect();
    Ok(HttpResponse::Ok().json(SummaryAnswer { total: counts.in_service(), states: counts.0, tags }))
}
