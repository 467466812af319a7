//! Many devices at once: by tag or by a list, and how many there are of each kind.

use chrono::{DateTime, Utc};
use serde_json::Value;

use super::audit::record;
use super::sql::{QueryBuilder, Tx, query, query_as};
use super::{Actor, Store, StoreError, millis};

/// Tags in a summary, those of most devices first.
const SUMMARY_TAGS: i64 = 500;
/// Name of the counter that says whether the tags of older rows were indexed.
const TAGS_INDEXED: &str = "tags indexed";

/// Which devices, all of one organization and in service.
#[derive(Debug, Clone)]
pub enum Selection {
    /// Those with this tag.
    Tag(String),
    /// These.
    Ids(Vec<String>),
}

/// What to change of each; `None` leaves it, `Some(None)` clears it.
#[derive(Debug, Clone, Default)]
pub struct BulkChange {
    /// Tags to add.
    pub add_tags: Vec<String>,
    /// Tags to take away, after adding.
    pub remove_tags: Vec<String>,
    /// New place.
    pub location: Option<Option<String>>,
    /// New update channel.
    pub update_channel: Option<String>,
    /// Most tags that a device may have; one that would have more is left as it is.
    pub max_tags: usize,
}

/// A tag, devices in service with it, and how many of these are online.
pub type TagCount = (String, i64, i64);

/// Replaces the index of a device's tags.
pub(super) async fn index_tags(tx: &mut Tx, org: &str, device: &str, tags: &[String]) -> Result<(), StoreError> {
    query("DELETE FROM device_tags WHERE device_id = $1").bind(device).execute(&mut **tx).await?;
    for tag in tags {
        query("INSERT INTO device_tags (org, tag, device_id) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING")
            .bind(org)
            .bind(tag)
            .bind(device)
            .execute(&mut **tx)
            .await?;
    }
    Ok(())
}

impl Store {
    /// Indexes the tags of devices that are older than the index; once in a database's life.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn index_older_tags(&self) -> Result<(), StoreError> {
        let mut tx = self.begin().await?;
        let first = query("INSERT INTO counters (name, value) VALUES ($1, 1) ON CONFLICT (name) DO NOTHING")
            .bind(TAGS_INDEXED)
            .execute(&mut *tx)
            .await?;
        if first.rows_affected() == 0 {
            return Ok(());
        }
        let rows: Vec<(String, String, String)> =
            query_as("SELECT org, id, tags FROM devices WHERE tags <> '[]'").fetch_all(&mut *tx).await?;
        for (org, id, tags) in rows {
            let tags: Vec<String> = serde_json::from_str(&tags).unwrap_or_default();
            index_tags(&mut tx, &org, &id, &tags).await?;
        }
        tx.commit().await?;
        Ok(())
    }

    /// Identifiers of the selected devices, in order, at most `limit`.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn selected_devices(
        &self,
        org: &str,
        selection: &Selection,
        limit: i64,
    ) -> Result<Vec<String>, StoreError> {
        let rows: Vec<(String,)> = match selection {
            Selection::Tag(tag) => {
                query_as(
                    "SELECT d.id FROM device_tags t JOIN devices d ON d.id = t.device_id \
                     WHERE t.org = $1 AND t.tag = $2 AND d.decommissioned_at IS NULL ORDER BY d.id LIMIT $3",
                )
                .bind(org)
                .bind(tag)
                .bind(limit)
                .fetch_all(&self.reader)
                .await?
            }
            Selection::Ids(ids) => {
                let mut found = Vec::new();
                for chunk in ids.chunks(500) {
                    let mut query = QueryBuilder::new("SELECT id FROM devices WHERE org = ");
                    query.push_bind(org.to_owned()).push(" AND decommissioned_at IS NULL AND id IN (");
                    let mut list = query.separated(", ");
                    for id in chunk {
                        list.push_bind(id.clone());
                    }
                    list.push_unseparated(")");
                    let rows: Vec<(String,)> = query.build_query_as().fetch_all(&self.reader).await?;
                    found.extend(rows);
                }
                found.sort();
                found.dedup();
                found.truncate(usize::try_from(limit).unwrap_or(usize::MAX));
                found
            }
        };
        Ok(rows.into_iter().map(|(id,)| id).collect())
    }

    /// Changes these devices in one transaction; answers with those that were changed.
    ///
    /// # Errors
    /// Those of the database; then none was changed.
    pub async fn change_devices(
        &self,
        actor: &Actor,
        ids: &[String],
        change: &BulkChange,
        now: DateTime<Utc>,
    ) -> Result<Vec<String>, StoreError> {
        let mut tx = self.begin().await?;
        let mut changed = Vec::new();
        for id in ids {
            let row: Option<(String,)> =
                query_as("SELECT tags FROM devices WHERE id = $1 AND org = $2 AND decommissioned_at IS NULL")
                    .bind(id)
                    .bind(&actor.org)
                    .for_update()
                    .fetch_optional(&mut *tx)
                    .await?;
            let Some((tags,)) = row else { continue };
            let before: Vec<String> = serde_json::from_str(&tags).unwrap_or_default();
            let mut after = before.clone();
            after.extend(change.add_tags.iter().cloned());
            after.retain(|tag| !change.remove_tags.contains(tag));
            after.sort();
            after.dedup();
            if after.len() > change.max_tags {
                continue;
            }
            let mut query = QueryBuilder::new("UPDATE devices SET updated_at = ");
            query.push_bind(millis(now));
            if after != before {
                query.push(", tags = ").push_bind(Value::from(after.clone()).to_string());
                index_tags(&mut tx, &actor.org, id, &after).await?;
            }
            if let Some(location) = &change.location {
                query.push(", location = ").push_bind(location.clone());
            }
            if let Some(channel) = &change.update_channel {
                query.push(", update_channel = ").push_bind(channel.clone());
            }
            query.push(" WHERE id = ").push_bind(id.clone());
            query.build().execute(&mut *tx).await?;
            record(&mut tx, actor, "device.change", id, Some("in bulk".into()), millis(now)).await?;
            changed.push(id.clone());
        }
        tx.commit().await?;
        Ok(changed)
    }

    /// Counts an organization's devices by tag: the 500 tags of most devices. Every device with a tag is looked at.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn tag_counts(&self, org: &str) -> Result<Vec<TagCount>, StoreError> {
        let tags = query_as(
            "SELECT t.tag, COUNT(*), COUNT(CASE WHEN s.presence = 'online' THEN 1 END) FROM device_tags t \
             JOIN devices d ON d.id = t.device_id JOIN device_state s ON s.device_no = d.no \
             WHERE t.org = $1 AND d.decommissioned_at IS NULL GROUP BY t.tag ORDER BY COUNT(*) DESC, t.tag LIMIT $2",
        );
        Ok(tags.bind(org).bind(SUMMARY_TAGS).fetch_all(&self.reader).await?)
    }
}
