//! Enrolment codes: each lets one box in, once, or as many as it was made for.

use chrono::{DateTime, Utc};

use super::audit::record;
use super::devices::{NewDevice, insert_device};
use super::sql::{query, query_as};
use super::{Actor, Store, StoreError, millis};

/// An enrolment code as stored; the code itself is not.
#[derive(Debug, Clone, sqlx::FromRow)]
pub struct EnrolmentRow {
    /// ULID.
    pub id: String,
    /// What the administrator noted.
    pub note: Option<String>,
    /// Who made it.
    pub created_by: String,
    /// Milliseconds since 1970.
    pub created_at: i64,
    /// Milliseconds since 1970.
    pub expires_at: i64,
    /// Milliseconds since 1970, when it was used up.
    pub used_at: Option<i64>,
    /// The box it let in last.
    pub used_by: Option<String>,
    /// How many boxes it lets in.
    pub max_uses: i64,
    /// How many it has let in.
    pub uses: i64,
}

/// An enrolment code to be stored.
#[derive(Debug, Clone, Copy)]
pub struct NewEnrolmentCode<'a> {
    /// ULID.
    pub id: &'a str,
    /// The code is not stored.
    pub code_hash: &'a str,
    /// What the administrator noted.
    pub note: Option<&'a str>,
    /// How many boxes it lets in.
    pub uses: u32,
    /// Its end.
    pub expires_at: DateTime<Utc>,
}

/// What came of an enrolment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Enrolled {
    /// The box belongs to this organization now.
    Done {
        /// The organization.
        org: String,
    },
    /// The code is unknown, expired or used.
    BadCode,
    /// A box with this identifier is in service; the code stays good.
    Known,
    /// The organization that a certificate names does not exist.
    NoOrganization,
    /// The device that a certificate names was taken out of service: only an administrator's code brings it back.
    Decommissioned,
}

/// What a device gets that proves itself by a certificate.
#[derive(Debug, Clone, Copy)]
pub struct Certified<'a> {
    /// The organization that the certificate names.
    pub org: &'a str,
    /// SHA-256 of the new token, in hex.
    pub token_hash: &'a str,
    /// Until when the token before is good, unless the new one is used earlier.
    pub old_until: DateTime<Utc>,
}

impl Store {
    /// Stores the hash of a code for one box.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn create_enrolment_code(
        &self,
        actor: &Actor,
        id: &str,
        code_hash: &str,
        note: Option<&str>,
        now: DateTime<Utc>,
        expires_at: DateTime<Utc>,
    ) -> Result<(), StoreError> {
        self.store_enrolment_code(actor, NewEnrolmentCode { id, code_hash, note, uses: 1, expires_at }, now).await
    }

    /// Stores a code's hash.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn store_enrolment_code(
        &self,
        actor: &Actor,
        code: NewEnrolmentCode<'_>,
        now: DateTime<Utc>,
    ) -> Result<(), StoreError> {
        let mut tx = self.begin().await?;
        query(
            "INSERT INTO enrolment_codes (id, org, code_hash, note, created_by, created_at, expires_at, max_uses) \
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
        )
        .bind(code.id)
        .bind(&actor.org)
        .bind(code.code_hash)
        .bind(code.note)
        .bind(&actor.name)
        .bind(millis(now))
        .bind(millis(code.expires_at))
        .bind(i64::from(code.uses))
        .execute(&mut *tx)
        .await?;
        record(&mut tx, actor, "enrolment_code.create", code.id, None, millis(now)).await?;
        tx.commit().await?;
        Ok(())
    }

    /// One page of an organization's codes, newest first, and how many there are.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn enrolment_codes(
        &self,
        org: &str,
        offset: i64,
        limit: i64,
    ) -> Result<(Vec<EnrolmentRow>, i64), StoreError> {
        let rows = "SELECT id, note, created_by, created_at, expires_at, used_at, used_by, max_uses, uses FROM enrolment_codes \
                    WHERE org = $1 ORDER BY created_at DESC, id DESC LIMIT $2 OFFSET $3";
        self.page((rows, "SELECT COUNT(*) FROM enrolment_codes WHERE org = $1"), org, offset, limit).await
    }

    /// Deletes a code that was not used; `false` when there is none.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn delete_enrolment_code(&self, actor: &Actor, id: &str, now: DateTime<Utc>) -> Result<bool, StoreError> {
        self.delete(
            "DELETE FROM enrolment_codes WHERE id = $1 AND org = $2 AND used_at IS NULL",
            "enrolment_code.delete",
            actor,
            id,
            now,
        )
        .await
    }

    /// Lets a box in and counts the use of the code, both or neither. A decommissioned box of the same organization comes back
    /// with its history.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn enrol(
        &self,
        code_hash: &str,
        device: &NewDevice,
        token_hash: &str,
        now: DateTime<Utc>,
    ) -> Result<Enrolled, StoreError> {
        let mut tx = self.begin().await?;
        let row: Option<(String,)> = query_as(
            "UPDATE enrolment_codes SET uses = uses + 1, used_by = $3, \
             used_at = CASE WHEN uses + 1 >= max_uses THEN $2 ELSE NULL END WHERE code_hash = $1 \
             AND used_at IS NULL AND expires_at > $2 RETURNING org",
        )
        .bind(code_hash)
        .bind(millis(now))
        .bind(&device.id)
        .fetch_optional(&mut *tx)
        .await?;
        let Some((org,)) = row else { return Ok(Enrolled::BadCode) };
        if !insert_device(&mut tx, &org, device, token_hash, millis(now)).await? {
            // Dropping the transaction gives the code back.
            return Ok(Enrolled::Known);
        }
        let actor = Actor { org: org.clone(), name: format!("device:{}", device.id) };
        record(&mut tx, &actor, "device.register", &device.id, None, millis(now)).await?;
        tx.commit().await?;
        Ok(Enrolled::Done { org })
    }

    /// Lets a box in that a certificate names, or gives it another token if it is in service already.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn enrol_certified(
        &self,
        device: &NewDevice,
        order: Certified<'_>,
        now: DateTime<Utc>,
    ) -> Result<Enrolled, StoreError> {
        let mut tx = self.begin().await?;
        tx.alone("device", &device.id).await?;
        let exists: Option<(String,)> =
            query_as("SELECT id FROM organizations WHERE id = $1").bind(order.org).fetch_optional(&mut *tx).await?;
        if exists.is_none() {
            return Ok(Enrolled::NoOrganization);
        }
        let held: Option<(String, Option<i64>)> = query_as("SELECT org, decommissioned_at FROM devices WHERE id = $1")
            .bind(&device.id)
            .fetch_optional(&mut *tx)
            .await?;
        let actor = Actor { org: order.org.to_owned(), name: format!("device:{}", device.id) };
        let by = Some("by certificate".to_owned());
        match held {
            None => {
                if !insert_device(&mut tx, order.org, device, order.token_hash, millis(now)).await? {
                    return Ok(Enrolled::Known);
                }
                record(&mut tx, &actor, "device.register", &device.id, by, millis(now)).await?;
            }
            Some((owner, _)) if owner != order.org => return Ok(Enrolled::Known),
            Some((_, Some(_))) => return Ok(Enrolled::Decommissioned),
            Some((_, None)) => {
                super::tokens::rotate(&mut tx, &actor, &device.id, order.token_hash, Some(order.old_until), now)
                    .await?;
                record(&mut tx, &actor, "device.rotate_token", &device.id, by, millis(now)).await?;
            }
        }
        tx.commit().await?;
        Ok(Enrolled::Done { org: actor.org })
    }
}
