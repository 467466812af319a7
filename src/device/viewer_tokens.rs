//! Tokens for viewers from outside: signed, with an end, for some streams by name.
//!
//! A token is a JWT (RFC 7519, HS256) whose key lies in the box's durable store, together with a row for each token that is
//! good: taking the row away takes the token back, a new key takes all of them back. Whoever is refused is not told why.
//!
//! A guest's own picture is for the crew: it may be one who still waits to be let in. Others see guests in the programme.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::{Context, Result};
use chrono::{DateTime, Duration, Utc};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use r58_mqtt::durable::{Changes, KeyValue, commit_async};
use rand::RngCore;
use rand::rngs::OsRng;
use serde::{Deserialize, Serialize};

use crate::problem::Problem;

/// Who issues them.
const ISSUER: &str = "r58-box";
/// Where the key lies.
const KEY: &[u8] = b"viewer/key";
/// Before the id of each good token.
const ROWS: &[u8] = b"viewer/token/";
/// Stands for every stream.
pub const ANY: &str = "*";
/// Tokens that may be good at the same time.
const MOST: usize = 1000;
/// Bounds of a token's life in seconds: a minute, a year.
pub const LIFE: std::ops::RangeInclusive<i64> = 60..=31_536_000;
/// Longest token that is looked at, in bytes.
const LONGEST: usize = 4096;

/// What is known of a token; the token itself is kept nowhere.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ViewerToken {
    /// Its id.
    pub id: String,
    /// What the crew calls it.
    pub label: String,
    /// What it opens: names of streams, or [`ANY`].
    pub names: Vec<String>,
    /// When it ends.
    pub expires_at: DateTime<Utc>,
}

#[derive(Serialize, Deserialize)]
struct Claims {
    iss: String,
    jti: String,
    names: Vec<String>,
    iat: i64,
    exp: i64,
}

/// See the module.
pub struct ViewerTokens {
    store: Arc<dyn KeyValue>,
    /// Names of seats, which no token opens.
    seats: Vec<String>,
    kept: Mutex<Kept>,
}

struct Kept {
    key: Vec<u8>,
    good: BTreeMap<String, ViewerToken>,
}

impl ViewerTokens {
    /// Reads key and rows; makes a key at the first start. Blocks for as long as the disk takes. No token opens `seats`.
    ///
    /// # Errors
    /// When the store cannot be read or written.
    pub fn open(store: Arc<dyn KeyValue>, seats: Vec<String>) -> Result<Self> {
        let mut changes = Changes::new();
        let key = store.get(KEY).context("cannot read the key of viewers' tokens")?;
        let key = key.unwrap_or_else(|| {
            let key = new_key();
            changes.put(KEY, key.clone());
            key
        });
        let mut good = BTreeMap::new();
        for (row, value) in store.scan(ROWS).context("cannot read viewers' tokens")? {
            match serde_json::from_slice::<ViewerToken>(&value) {
                Ok(token) if token.expires_at > Utc::now() => drop(good.insert(token.id.clone(), token)),
                // Over, or damaged: either way it opens nothing.
                _ => changes.delete(row),
            }
        }
        if !changes.is_empty() {
            store.commit(changes).context("cannot write the key of viewers' tokens")?;
        }
        Ok(Self { store, seats, kept: Mutex::new(Kept { key, good }) })
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether it is a guest's seat, which is not for viewers from outside.
    pub fn is_seat(&self, name: &str) -> bool {
        self.seats.iter().any(|seat| seat == name)
    }

    /// Makes a token that is good for `life` from now on.
    ///
    /// # Errors
    /// 409 when there are as many as may be, 503 when it could not be made to last.
    pub async fn issue(
        &self,
        label: String,
        names: Vec<String>,
        now: DateTime<Utc>,
        life: Duration,
    ) -> Result<(ViewerToken, String), Problem> {
        let token = ViewerToken { id: new_id(), label, names, expires_at: now + life };
        let claims = Claims {
            iss: ISSUER.into(),
            jti: token.id.clone(),
            names: token.names.clone(),
            iat: now.timestamp(),
            exp: token.expires_at.timestamp(),
        };
        let (word, over) = {
            let kept = self.kept();
            let over: Vec<String> =
                kept.good.values().filter(|token| token.expires_at <= now).map(|token| token.id.clone()).collect();
            if kept.good.len() - over.len() >= MOST {
                return Err(Problem::conflict(format!("there are {MOST} tokens: take some back first")));
            }
            let key = EncodingKey::from_secret(&kept.key);
            (jsonwebtoken::encode(&Header::new(Algorithm::HS256), &claims, &key), over)
        };
        let word = word.map_err(|_| Problem::unavailable("the token could not be signed"))?;
        let mut changes = Changes::new();
        for id in &over {
            changes.delete(row(id));
        }
        changes.put(row(&token.id), serde_json::to_vec(&token).unwrap_or_default());
        self.commit(changes).await?;
        let mut kept = self.kept();
        for id in &over {
            kept.good.remove(id);
        }
        kept.good.insert(token.id.clone(), token.clone());
        Ok((token, word))
    }

    /// The tokens that are good at `now`.
    pub fn list(&self, now: DateTime<Utc>) -> Vec<ViewerToken> {
        self.kept().good.values().filter(|token| token.expires_at > now).cloned().collect()
    }

    /// Takes one back.
    ///
    /// # Errors
    /// 404 when there is none of that id, 503 when it could not be made to last; it is taken back until the next start then.
    pub async fn revoke(&self, id: &str) -> Result<(), Problem> {
        if self.kept().good.remove(id).is_none() {
            return Err(Problem::not_found("no such token"));
        }
        let mut changes = Changes::new();
        changes.delete(row(id));
        self.commit(changes).await
    }

    /// Takes all back, by a new key.
    ///
    /// # Errors
    /// 503 when it could not be made to last; they are taken back until the next start then.
    pub async fn revoke_all(&self) -> Result<(), Problem> {
        let mut changes = Changes::new();
        {
            let mut kept = self.kept();
            kept.key = new_key();
            changes.put(KEY, kept.key.clone());
            for id in std::mem::take(&mut kept.good).into_keys() {
                changes.delete(row(&id));
            }
        }
        self.commit(changes).await
    }

    async fn commit(&self, changes: Changes) -> Result<(), Problem> {
        commit_async(&*self.store, changes).await.map_err(|error| {
            tracing::warn!(%error, "viewers' tokens could not be written");
            Problem::unavailable("the box could not write that down")
        })
    }

    /// Whether a token opens a stream at `now`; any stream, without a name.
    ///
    /// # Errors
    /// 401 for one that is not, or no longer, good; 403 for one that is good for something else.
    pub fn check(&self, word: &str, name: Option<&str>, now: DateTime<Utc>) -> Result<(), Problem> {
        let bad = || Problem::unauthorized("the token is not valid");
        if word.len() > LONGEST {
            return Err(bad());
        }
        let kept = self.kept();
        let mut validation = Validation::new(Algorithm::HS256);
        validation.set_issuer(&[ISSUER]);
        validation.set_required_spec_claims(&["exp", "iss"]);
        // The library reads the clock itself; we judge by the one we are given.
        validation.validate_exp = false;
        let claims = jsonwebtoken::decode::<Claims>(word, &DecodingKey::from_secret(&kept.key), &validation);
        let claims = claims.map_err(|_| bad())?.claims;
        if claims.exp <= now.timestamp() || !kept.good.contains_key(&claims.jti) {
            return Err(bad());
        }
        match name {
            Some(name) if self.is_seat(name) || !claims.names.iter().any(|known| known == ANY || known == name) => {
                Err(Problem::forbidden("the token is not valid here"))
            }
            _ => Ok(()),
        }
    }
}

fn row(id: &str) -> Vec<u8> {
    [ROWS, id.as_bytes()].concat()
}

fn new_key() -> Vec<u8> {
    let mut key = vec![0; 32];
    OsRng.fill_bytes(&mut key);
    key
}

fn new_id() -> String {
    let mut bytes = [0; 8];
    OsRng.fill_bytes(&mut bytes);
    hex::encode(bytes)
}

#[cfg(test)]
mod tests {
    use r58_mqtt::durable::Memory;

    use super::*;

    fn tokens() -> (ViewerTokens, Arc<Memory>) {
        let store = Arc::new(Memory::new());
        (ViewerTokens::open(store.clone(), vec!["guest1".into()]).unwrap(), store)
    }

    async fn issue(tokens: &ViewerTokens, names: &[&str]) -> (ViewerToken, String) {
        let names = names.iter().map(|name| (*name).to_owned()).collect();
        tokens.issue("a screen".into(), names, Utc::now(), Duration::hours(1)).await.unwrap()
    }

    fn status(tokens: &ViewerTokens, word: &str, name: &str, later: Duration) -> u16 {
        tokens.check(word, Some(name), Utc::now() + later).err().map_or(200, |problem| problem.status().as_u16())
    }

    #[tokio::test]
    async fn a_token_opens_its_streams_for_its_time() {
        let (tokens, _) = tokens();
        let (_, word) = issue(&tokens, &["programme", "cam1"]).await;
        let none = Duration::zero();
        assert_eq!(status(&tokens, &word, "programme", none), 200);
        assert_eq!(status(&tokens, &word, "cam2", none), 403);
        assert_eq!(status(&tokens, &word, "programme", Duration::hours(1)), 401);
        let (_, any) = issue(&tokens, &[ANY]).await;
        assert_eq!(status(&tokens, &any, "cam2", none), 200);
        assert_eq!(status(&tokens, &any, "guest1", none), 403, "a guest's own picture");
    }

    #[tokio::test]
    async fn a_start_keeps_the_tokens_and_both_ways_to_take_them_back_last() {
        let (tokens, store) = tokens();
        let ((first, one), (_, two), none) =
            (issue(&tokens, &[ANY]).await, issue(&tokens, &[ANY]).await, Duration::zero());
        let again = || ViewerTokens::open(store.clone(), Vec::new()).unwrap();
        assert_eq!(again().list(Utc::now()).len(), 2);
        tokens.revoke(&first.id).await.unwrap();
        assert_eq!(tokens.revoke(&first.id).await.unwrap_err().status().as_u16(), 404);
        for tokens in [&tokens, &again()] {
            assert_eq!((status(tokens, &one, "x", none), status(tokens, &two, "x", none)), (401, 200));
        }
        tokens.revoke_all().await.unwrap();
        for tokens in [&tokens, &again()] {
            assert_eq!(status(tokens, &two, "x", none), 401);
        }
    }

    #[tokio::test]
    async fn what_is_no_token_of_this_box_opens_nothing() {
        let (tokens, _) = tokens();
        let (other, _) = self::tokens();
        let (_, foreign) = issue(&other, &[ANY]).await;
        let (_, own) = issue(&tokens, &[ANY]).await;
        let unsigned = "eyJhbGciOiJub25lIiwidHlwIjoiSldUIn0.eyJpc3MiOiJyNTgtYm94IiwianRpIjoiIiwibmFtZXMiOlsiKiJdLCJpYXQiOjAsImV4cCI6OTk5OTk5OTk5OX0.";
        for word in [foreign.as_str(), "", "a.b.c", unsigned, &own[..own.len() - 2], &"a".repeat(100_000)] {
            assert_eq!(status(&tokens, word, "programme", Duration::zero()), 401);
        }
    }

    #[tokio::test]
    async fn tokens_are_bounded_and_those_that_are_over_make_room() {
        let (tokens, store) = tokens();
        let issue = async |now: DateTime<Utc>| {
            tokens.issue(String::new(), vec![ANY.into()], now, Duration::minutes(1)).await.map(drop)
        };
        for _ in 0..MOST {
            issue(Utc::now()).await.unwrap();
        }
        assert_eq!(issue(Utc::now()).await.unwrap_err().status().as_u16(), 409);
        issue(Utc::now() + Duration::minutes(2)).await.unwrap();
        assert_eq!(store.scan(ROWS).unwrap().len(), 1);
    }
}
