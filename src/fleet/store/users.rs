//! Organizations and their users.

use chrono::{DateTime, Utc};

use super::alert_rules::make_usual;
use super::audit::record;
use super::sql::{query, query_as};
use super::{Actor, Store, StoreError, millis};

/// A user as stored.
#[derive(Debug, Clone, sqlx::FromRow)]
pub struct UserRow {
    /// ULID.
    pub id: String,
    /// Organization.
    pub org: String,
    /// Address to sign in with, lower case, unique over all organizations.
    pub email: String,
    /// Name to show.
    pub name: String,
    /// `viewer`, `operator` or `admin`.
    pub role: String,
    /// argon2id, in PHC form.
    pub password_hash: String,
    /// Whether signing in is allowed.
    pub is_active: bool,
    /// Whether it looks after organizations, besides its own.
    pub platform: bool,
    /// Tokens of an older generation are dead.
    pub generation: i64,
    /// Milliseconds since 1970.
    pub created_at: i64,
    /// Milliseconds since 1970.
    pub last_login_at: Option<i64>,
}

/// A user to be made.
#[derive(Debug, Clone)]
pub struct NewUser {
    /// ULID.
    pub id: String,
    /// Address, lower case.
    pub email: String,
    /// Name to show.
    pub name: String,
    /// `viewer`, `operator` or `admin`.
    pub role: String,
    /// argon2id, in PHC form.
    pub password_hash: String,
}

/// What to change of a user; `None` leaves it.
#[derive(Debug, Clone, Default)]
pub struct UserChange {
    /// New name.
    pub name: Option<String>,
    /// New role.
    pub role: Option<String>,
    /// Switch on or off.
    pub is_active: Option<bool>,
    /// New password's hash.
    pub password_hash: Option<String>,
}

macro_rules! select_user {
    ($tail:literal) => {
        concat!(
            "SELECT id, org, email, name, role, password_hash, is_active, platform, generation, created_at, \
             last_login_at FROM users ",
            $tail
        )
    };
}

impl Store {
    /// Makes an organization unless it is there.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn ensure_organization(&self, id: &str, name: &str, now: DateTime<Utc>) -> Result<(), StoreError> {
        let mut tx = self.begin().await?;
        query("INSERT INTO organizations (id, name, created_at) VALUES ($1, $2, $3) ON CONFLICT (id) DO NOTHING")
            .bind(id)
            .bind(name)
            .bind(millis(now))
            .execute(&mut *tx)
            .await?;
        make_usual(&mut tx, &Actor::server(id), millis(now)).await?;
        tx.commit().await?;
        Ok(())
    }

    /// How many users there are, over all organizations.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn count_users(&self) -> Result<i64, StoreError> {
        let (count,): (i64,) = query_as("SELECT COUNT(*) FROM users").fetch_one(&self.reader).await?;
        Ok(count)
    }

    /// Makes a user.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] when the address is in use.
    pub async fn create_user(&self, actor: &Actor, user: NewUser, now: DateTime<Utc>) -> Result<UserRow, StoreError> {
        let mut tx = self.begin().await?;
        query(
            "INSERT INTO users (id, org, email, name, role, password_hash, is_active, generation, created_at) \
             VALUES ($1, $2, $3, $4, $5, $6, $7, 0, $8)",
        )
        .bind(&user.id)
        .bind(&actor.org)
        .bind(&user.email)
        .bind(&user.name)
        .bind(&user.role)
        .bind(&user.password_hash)
        .bind(true)
        .bind(millis(now))
        .execute(&mut *tx)
        .await
        .map_err(|error| StoreError::from(error).conflict("a user with this email"))?;
        record(&mut tx, actor, "user.create", &user.id, Some(user.role.clone()), millis(now)).await?;
        tx.commit().await?;
        self.user(&actor.org, &user.id).await?.ok_or(StoreError::Corrupt("user"))
    }

    /// The user with this address, of any organization.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn user_by_email(&self, email: &str) -> Result<Option<UserRow>, StoreError> {
        Ok(query_as(select_user!("WHERE email = $1")).bind(email).fetch_optional(&self.reader).await?)
    }

    /// A user of any organization.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn user_by_id(&self, id: &str) -> Result<Option<UserRow>, StoreError> {
        Ok(query_as(select_user!("WHERE id = $1")).bind(id).fetch_optional(&self.reader).await?)
    }

    /// A user of an organization.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn user(&self, org: &str, id: &str) -> Result<Option<UserRow>, StoreError> {
        Ok(query_as(select_user!("WHERE id = $1 AND org = $2")).bind(id).bind(org).fetch_optional(&self.reader).await?)
    }

    /// One page of an organization's users, and how many there are.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn users(&self, org: &str, offset: i64, limit: i64) -> Result<(Vec<UserRow>, i64), StoreError> {
        let rows = select_user!("WHERE org = $1 ORDER BY email LIMIT $2 OFFSET $3");
        self.page((rows, "SELECT COUNT(*) FROM users WHERE org = $1"), org, offset, limit).await
    }

    /// Changes a user. A new role, a new password or switching off ends every token issued before.
    ///
    /// # Errors
    /// Those of the database; `Ok(None)` when there is no such user.
    pub async fn change_user(
        &self,
        actor: &Actor,
        id: &str,
        change: UserChange,
        now: DateTime<Utc>,
    ) -> Result<Option<UserRow>, StoreError> {
        let mut tx = self.begin().await?;
        let ends = change.password_hash.is_some() || change.role.is_some() || change.is_active == Some(false);
        let done = query(
            "UPDATE users SET name = COALESCE($3, name), role = COALESCE($4, role), \
             is_active = COALESCE($5, is_active), password_hash = COALESCE($6, password_hash), \
             generation = generation + $7 WHERE id = $1 AND org = $2",
        )
        .bind(id)
        .bind(&actor.org)
        .bind(&change.name)
        .bind(&change.role)
        .bind(change.is_active)
        .bind(&change.password_hash)
        .bind(i64::from(ends))
        .execute(&mut *tx)
        .await?;
        if done.rows_affected() == 0 {
            return Ok(None);
        }
        if ends {
            query("DELETE FROM refresh_tokens WHERE user_id = $1").bind(id).execute(&mut *tx).await?;
        }
        let what = if change.password_hash.is_some() { "user.reset_password" } else { "user.change" };
        record(&mut tx, actor, what, id, change.role.clone(), millis(now)).await?;
        tx.commit().await?;
        self.user(&actor.org, id).await
    }

    /// Deletes a user; `false` when there is no such user.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn delete_user(&self, actor: &Actor, id: &str, now: DateTime<Utc>) -> Result<bool, StoreError> {
        self.delete("DELETE FROM users WHERE id = $1 AND org = $2", "user.delete", actor, id, now).await
    }

    /// Notes a sign-in.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn note_login(&self, id: &str, now: DateTime<Utc>) -> Result<(), StoreError> {
        query("UPDATE users SET last_login_at = $2 WHERE id = $1")
            .bind(id)
            .bind(millis(now))
            .execute(&self.writer)
            .await?;
        Ok(())
    }
}
