//! Devices: who they are, and what they last said of themselves.

use chrono::{DateTime, Utc};
use serde_json::Value;

use super::audit::record;
use super::census::Total;
use super::selection::index_tags;
use super::sql::{QueryBuilder, Tx, query, query_as};
use super::{Actor, Store, StoreError, millis, pulse};

/// A device that asks to be let in.
#[derive(Debug, Clone)]
pub struct NewDevice {
    /// Identifier; also its MQTT client identifier.
    pub id: String,
    /// Name to show.
    pub name: String,
    /// Operating system.
    pub platform: String,
    /// Processor.
    pub arch: String,
    /// Serial number of the board.
    pub serial_number: Option<String>,
    /// Address of its first network interface.
    pub mac_address: Option<String>,
    /// Version of its software.
    pub version: Option<String>,
    /// What it says it can do, as JSON.
    pub capabilities: Option<String>,
}

/// What to change of a device; `None` leaves it, `Some(None)` clears it.
#[derive(Debug, Clone, Default)]
pub struct DeviceChange {
    /// New name.
    pub name: Option<String>,
    /// New place.
    pub location: Option<Option<String>>,
    /// New tags.
    pub tags: Option<Vec<String>>,
    /// New metadata, an object.
    pub metadata: Option<Value>,
    /// New notes.
    pub notes: Option<Option<String>>,
    /// New update channel.
    pub update_channel: Option<String>,
    /// New version to reach.
    pub target_version: Option<Option<String>>,
}

/// Which devices to list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PresenceFilter {
    /// Connected.
    Online,
    /// In service and not connected.
    Offline,
    /// Taken out of service.
    Decommissioned,
}

/// Which devices to list.
#[derive(Debug, Clone, Default)]
pub struct DeviceFilter {
    /// By presence; `None` lists all that are in service.
    pub presence: Option<PresenceFilter>,
    /// Part of identifier, name, place or a tag, in any case.
    pub search: Option<String>,
    /// Only these identifiers.
    pub ids: Option<Vec<String>>,
    /// Only with this tag.
    pub tag: Option<String>,
}

/// A device with its last words.
#[derive(Debug, Clone, sqlx::FromRow)]
pub struct DeviceRow {
    /// Identifier.
    pub id: String,
    /// Short key.
    pub no: i64,
    /// Organization.
    pub org: String,
    /// Name to show.
    pub name: String,
    /// Operating system.
    pub platform: String,
    /// Processor.
    pub arch: String,
    /// Serial number of the board.
    pub serial_number: Option<String>,
    /// Address of its first network interface.
    pub mac_address: Option<String>,
    /// Version it registered with.
    pub registered_version: Option<String>,
    /// What it registered as being able to do, JSON.
    pub capabilities: Option<String>,
    /// Place.
    pub location: Option<String>,
    /// JSON array of strings.
    pub tags: String,
    /// JSON object.
    pub metadata: String,
    /// Notes.
    pub notes: Option<String>,
    /// Update channel.
    pub update_channel: String,
    /// Version it should reach.
    pub target_version: Option<String>,
    /// Milliseconds since 1970.
    pub registered_at: i64,
    /// Milliseconds since 1970.
    pub updated_at: i64,
    /// Milliseconds since 1970.
    pub decommissioned_at: Option<i64>,
    /// `online`, `offline` or `unknown`.
    pub presence: String,
    /// Why it is offline.
    pub presence_reason: Option<String>,
    /// Milliseconds since 1970.
    pub presence_at: Option<i64>,
    /// Milliseconds since 1970, by the server's clock.
    pub last_seen: Option<i64>,
    /// Its latest heartbeat, JSON.
    pub heartbeat: Option<String>,
    /// Its latest reported state, JSON.
    pub reported: Option<String>,
    /// Its operations and limits, JSON.
    pub caps: Option<String>,
}

macro_rules! select_device {
    ($tail:literal) => {
        concat!(
            "SELECT d.id, d.no, d.org, d.name, d.platform, d.arch, d.serial_number, d.mac_address, \
             d.registered_version, d.capabilities, d.location, d.tags, d.metadata, d.notes, d.update_channel, \
             d.target_version, d.registered_at, d.updated_at, d.decommissioned_at, s.presence, s.presence_reason, \
             s.presence_at, p.last_seen, h.body AS heartbeat, s.reported, s.caps \
             FROM devices d JOIN device_state s ON s.device_no = d.no JOIN device_pulse p ON p.device_no = d.no \
             LEFT JOIN heartbeats h ON h.device_no = p.device_no AND h.ts = p.heartbeat_ts \
             AND h.boot_seq = p.heartbeat_boot AND h.seq = p.heartbeat_seq ",
            $tail
        )
    };
}

/// Inserts a device or brings a decommissioned one of the same organization back; `false` when it is known.
pub(super) async fn insert_device(
    tx: &mut Tx,
    org: &str,
    device: &NewDevice,
    token_hash: &str,
    now: i64,
) -> Result<bool, StoreError> {
    tx.alone("device", &device.id).await?;
    let known: Option<(String, Option<i64>, i64)> =
        query_as("SELECT org, decommissioned_at, no FROM devices WHERE id = $1")
            .bind(&device.id)
            .fetch_optional(&mut **tx)
            .await?;
    let no = match known {
        Some((ref owner, Some(_), no)) if owner == org => {
            query("DELETE FROM device_pulse WHERE device_no = $1").bind(no).execute(&mut **tx).await?;
            query("DELETE FROM device_state WHERE device_no = $1").bind(no).execute(&mut **tx).await?;
            query("DELETE FROM stream_acks WHERE device_no = $1").bind(no).execute(&mut **tx).await?;
            no
        }
        Some(_) => return Ok(false),
        None => {
            let (no,): (i64,) = query_as("UPDATE counters SET value = value + 1 WHERE name = 'device' RETURNING value")
                .fetch_one(&mut **tx)
                .await?;
            no
        }
    };
    query(
        "INSERT INTO devices (id, no, org, name, platform, arch, serial_number, mac_address, registered_version, \
         capabilities, tags, metadata, update_channel, token_hash, command_seq, registered_at, updated_at) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, '[]', '{}', 'stable', $11, 0, $12, $12) \
         ON CONFLICT (id) DO UPDATE SET name = excluded.name, platform = excluded.platform, arch = excluded.arch, \
         serial_number = excluded.serial_number, mac_address = excluded.mac_address, \
         registered_version = excluded.registered_version, capabilities = excluded.capabilities, \
         token_hash = excluded.token_hash, old_token_hash = NULL, registered_at = excluded.registered_at, updated_at = excluded.updated_at, \
         decommissioned_at = NULL",
    )
    .bind(&device.id)
    .bind(no)
    .bind(org)
    .bind(&device.name)
    .bind(&device.platform)
    .bind(&device.arch)
    .bind(&device.serial_number)
    .bind(&device.mac_address)
    .bind(&device.version)
    .bind(&device.capabilities)
    .bind(token_hash)
    .bind(now)
    .execute(&mut **tx)
    .await?;
    query(
        "INSERT INTO device_state (device_no, presence, presence_boot, presence_conn, reported_boot, reported_ver) \
         VALUES ($1, 'unknown', -1, -1, -1, -1)",
    )
    .bind(no)
    .execute(&mut **tx)
    .await?;
    pulse::begin(tx, no).await?;
    Ok(true)
}

pub(super) fn where_filter(query: &mut QueryBuilder, org: &str, filter: &DeviceFilter) {
    query.push(" WHERE d.org = ").push_bind(org.to_owned());
    match filter.presence {
        None => query.push(" AND d.decommissioned_at IS NULL"),
        Some(PresenceFilter::Online) => query.push(" AND d.decommissioned_at IS NULL AND s.presence = 'online'"),
        Some(PresenceFilter::Offline) => {
            query.push(" AND d.decommissioned_at IS NULL AND s.presence IN ('offline', 'unknown')")
        }
        Some(PresenceFilter::Decommissioned) => query.push(" AND d.decommissioned_at IS NOT NULL"),
    };
    if let Some(search) = filter.search.as_deref().filter(|search| !search.is_empty()) {
        let escaped = search.to_lowercase().replace('\\', "\\\\").replace('%', "\\%").replace('_', "\\_");
        query.push(" AND d.search_text LIKE ").push_bind(format!("%{escaped}%")).push(" ESCAPE '\\'");
    }
    if let Some(ids) = &filter.ids {
        query.push(" AND d.id IN (");
        let mut list = query.separated(", ");
        for id in ids {
            list.push_bind(id.clone());
        }
        list.push_unseparated(")");
    }
    if let Some(tag) = &filter.tag {
        query.push(" AND EXISTS (SELECT 1 FROM device_tags t WHERE t.org = d.org AND t.tag = ").push_bind(tag.clone());
        query.push(" AND t.device_id = d.id)");
    }
}

impl Store {
    /// A device of an organization, in service or not.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn device(&self, org: &str, id: &str) -> Result<Option<DeviceRow>, StoreError> {
        Ok(query_as(select_device!("WHERE d.id = $1 AND d.org = $2"))
            .bind(id)
            .bind(org)
            .fetch_optional(&self.reader)
            .await?)
    }

    /// One page of an organization's devices by name, and how many there are (see [`Store::total`]).
    ///
    /// # Errors
    /// Those of the database.
    pub async fn devices(
        &self,
        org: &str,
        filter: &DeviceFilter,
        offset: i64,
        limit: i64,
    ) -> Result<(Vec<DeviceRow>, Total), StoreError> {
        let total = self.total(org, filter, offset.saturating_add(limit)).await?;
        let mut query = QueryBuilder::new(select_device!(""));
        where_filter(&mut query, org, filter);
        query.push(" ORDER BY d.name, d.id LIMIT ").push_bind(limit).push(" OFFSET ").push_bind(offset);
        Ok((query.build_query_as().fetch_all(&self.reader).await?, total))
    }

    /// Devices of an organization by name, after the place of one (its name and identifier), at most `limit`. Unlike a page,
    /// this costs the same however far it goes.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn devices_after(
        &self,
        org: &str,
        filter: &DeviceFilter,
        after: Option<(String, String)>,
        limit: i64,
    ) -> Result<Vec<DeviceRow>, StoreError> {
        let mut query = QueryBuilder::new(select_device!(""));
        where_filter(&mut query, org, filter);
        if let Some((name, id)) = after {
            query.push(" AND (d.name, d.id) > (").push_bind(name).push(", ").push_bind(id).push(")");
        }
        query.push(" ORDER BY d.name, d.id LIMIT ").push_bind(limit);
        Ok(query.build_query_as().fetch_all(&self.reader).await?)
    }

    /// Changes a device; `None` when it is not in service.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn change_device(
        &self,
        actor: &Actor,
        id: &str,
        change: DeviceChange,
        now: DateTime<Utc>,
    ) -> Result<Option<DeviceRow>, StoreError> {
        let mut tx = self.begin().await?;
        let mut query = QueryBuilder::new("UPDATE devices SET updated_at = ");
        query.push_bind(millis(now));
        let mut changed = Vec::new();
        if let Some(name) = change.name {
            query.push(", name = ").push_bind(name);
            changed.push("name");
        }
        for (column, value) in
            [("location", change.location), ("notes", change.notes), ("target_version", change.target_version)]
        {
            if let Some(value) = value {
                query.push(", ").push(column).push(" = ").push_bind(value);
                changed.push(column);
            }
        }
        if let Some(channel) = change.update_channel {
            query.push(", update_channel = ").push_bind(channel);
            changed.push("update_channel");
        }
        if let Some(tags) = change.tags {
            index_tags(&mut tx, &actor.org, id, &tags).await?;
            query.push(", tags = ").push_bind(Value::from(tags).to_string());
            changed.push("tags");
        }
        if let Some(metadata) = change.metadata {
            query.push(", metadata = ").push_bind(metadata.to_string());
            changed.push("metadata");
        }
        query.push(" WHERE id = ").push_bind(id.to_owned()).push(" AND org = ").push_bind(actor.org.clone());
        query.push(" AND decommissioned_at IS NULL");
        if query.build().execute(&mut *tx).await?.rows_affected() == 0 {
            return Ok(None);
        }
        record(&mut tx, actor, "device.change", id, Some(changed.join(",")), millis(now)).await?;
        tx.commit().await?;
        self.device(&actor.org, id).await
    }

    /// Takes a device out of service: its token dies, its open commands are cancelled and withdrawn, its history stays.
    /// `false` when it was not in service.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn decommission_device(&self, actor: &Actor, id: &str, now: DateTime<Utc>) -> Result<bool, StoreError> {
        let mut tx = self.begin().await?;
        // First, as in ingest: whoever holds this row is alone with the device's commands.
        query(
            "UPDATE device_pulse SET in_service = $2 WHERE device_no = (SELECT no FROM devices WHERE id = $1 AND org = $3)",
        )
        .bind(id)
        .bind(false)
        .bind(&actor.org)
        .execute(&mut *tx)
        .await?;
        query(
            "UPDATE device_state SET presence = 'offline', presence_reason = 'decommissioned', presence_at = $3 \
             WHERE device_no = (SELECT no FROM devices WHERE id = $1 AND org = $2 AND decommissioned_at IS NULL)",
        )
        .bind(id)
        .bind(&actor.org)
        .bind(millis(now))
        .execute(&mut *tx)
        .await?;
        let done = query(
            "UPDATE devices SET token_hash = NULL, decommissioned_at = $3, updated_at = $3 \
             WHERE id = $1 AND org = $2 AND decommissioned_at IS NULL",
        )
        .bind(id)
        .bind(&actor.org)
        .bind(millis(now))
        .execute(&mut *tx)
        .await?;
        if done.rows_affected() == 0 {
            return Ok(false);
        }
        let open: Vec<(String,)> = query_as("SELECT id FROM commands WHERE device_id = $1 AND finished_at IS NULL")
            .bind(id)
            .fetch_all(&mut *tx)
            .await?;
        for (command,) in open {
            super::commands::finish(&mut tx, &command, "cancelled", "the device was decommissioned", millis(now))
                .await?;
        }
        record(&mut tx, actor, "device.decommission", id, None, millis(now)).await?;
        tx.commit().await?;
        self.forget_number(id);
        Ok(true)
    }

    /// Organization and hashed token of a device that is in service.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn device_secret(&self, id: &str) -> Result<Option<(String, String)>, StoreError> {
        Ok(query_as(
            "SELECT org, token_hash FROM devices \
             WHERE id = $1 AND decommissioned_at IS NULL AND token_hash IS NOT NULL",
        )
        .bind(id)
        .fetch_optional(&self.reader)
        .await?)
    }
}
