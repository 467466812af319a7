//! Organizations: each with users, devices and everything else of its own.

use chrono::{DateTime, Utc};

use super::alert_rules::make_usual;
use super::audit::record;
use super::sql::{query, query_as};
use super::{Actor, NewUser, Store, StoreError, millis};

/// An organization as stored.
#[derive(Debug, Clone, sqlx::FromRow)]
pub struct OrganizationRow {
    /// Word of its topics and of its boxes' user name.
    pub id: String,
    /// Name to show.
    pub name: String,
    /// Milliseconds since 1970.
    pub created_at: i64,
    /// How many users it has.
    pub users: i64,
    /// How many devices of it are in service.
    pub devices: i64,
}

macro_rules! select_organization {
    ($tail:literal) => {
        concat!(
            "SELECT o.id, o.name, o.created_at, (SELECT COUNT(*) FROM users u WHERE u.org = o.id) AS users, \
             CAST(COALESCE((SELECT SUM(c.n) FROM device_census c WHERE c.org = o.id AND c.state <> 'decommissioned'), 0) \
             AS BIGINT) AS devices \
             FROM organizations o ",
            $tail
        )
    };
}

impl Store {
    /// Makes an organization with its first administrator, both or neither.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] when the identifier or the address is in use.
    pub async fn create_organization(
        &self,
        actor: &Actor,
        id: &str,
        name: &str,
        admin: &NewUser,
        now: DateTime<Utc>,
    ) -> Result<(), StoreError> {
        let mut tx = self.begin().await?;
        query("INSERT INTO organizations (id, name, created_at) VALUES ($1, $2, $3)")
            .bind(id)
            .bind(name)
            .bind(millis(now))
            .execute(&mut *tx)
            .await
            .map_err(|error| StoreError::from(error).conflict("an organization with this id"))?;
        query(
            "INSERT INTO users (id, org, email, name, role, password_hash, is_active, generation, created_at) \
             VALUES ($1, $2, $3, $4, $5, $6, $7, 0, $8)",
        )
        .bind(&admin.id)
        .bind(id)
        .bind(&admin.email)
        .bind(&admin.name)
        .bind(&admin.role)
        .bind(&admin.password_hash)
        .bind(true)
        .bind(millis(now))
        .execute(&mut *tx)
        .await
        .map_err(|error| StoreError::from(error).conflict("a user with this email"))?;
        record(&mut tx, actor, "organization.create", id, Some(name.to_owned()), millis(now)).await?;
        // In the books of the new organization as well: that is where its people look.
        let inside = Actor { org: id.to_owned(), name: actor.name.clone() };
        make_usual(&mut tx, &inside, millis(now)).await?;
        record(&mut tx, &inside, "user.create", &admin.id, Some(admin.role.clone()), millis(now)).await?;
        tx.commit().await?;
        Ok(())
    }

    /// Gives an organization another name; `false` when there is none.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn rename_organization(
        &self,
        actor: &Actor,
        id: &str,
        name: &str,
        now: DateTime<Utc>,
    ) -> Result<bool, StoreError> {
        let mut tx = self.begin().await?;
        let done = query("UPDATE organizations SET name = $2 WHERE id = $1").bind(id).bind(name);
        if done.execute(&mut *tx).await?.rows_affected() == 0 {
            return Ok(false);
        }
        record(&mut tx, actor, "organization.change", id, Some(name.to_owned()), millis(now)).await?;
        tx.commit().await?;
        Ok(true)
    }

    /// An organization.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn organization(&self, id: &str) -> Result<Option<OrganizationRow>, StoreError> {
        Ok(query_as(select_organization!("WHERE o.id = $1")).bind(id).fetch_optional(&self.reader).await?)
    }

    /// One page of all organizations, and how many there are.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn organizations(&self, offset: i64, limit: i64) -> Result<(Vec<OrganizationRow>, i64), StoreError> {
        let rows = query_as(select_organization!("ORDER BY o.id LIMIT $1 OFFSET $2"))
            .bind(limit)
            .bind(offset)
            .fetch_all(&self.reader)
            .await?;
        let (total,): (i64,) = query_as("SELECT COUNT(*) FROM organizations").fetch_one(&self.reader).await?;
        Ok((rows, total))
    }

    /// Makes a user a platform administrator, or one no more; `false` when there is no such user in the organization.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn set_platform(
        &self,
        actor: &Actor,
        user: &str,
        platform: bool,
        now: DateTime<Utc>,
    ) -> Result<bool, StoreError> {
        let mut tx = self.begin().await?;
        let done = query("UPDATE users SET platform = $3 WHERE id = $1 AND org = $2")
            .bind(user)
            .bind(&actor.org)
            .bind(platform)
            .execute(&mut *tx)
            .await?;
        if done.rows_affected() == 0 {
            return Ok(false);
        }
        record(&mut tx, actor, "user.platform", user, Some(platform.to_string()), millis(now)).await?;
        tx.commit().await?;
        Ok(true)
    }
}
