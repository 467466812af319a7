//! Access tokens: JWT, HS256, short-lived.

use chrono::{DateTime, Utc};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use serde::{Deserialize, Serialize};

/// Who issues our tokens.
const ISSUER: &str = "r58-fleet";

/// What a token says (RFC 7519, section 4.1). The role is not in it: it is looked up, so that a change counts at once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claims {
    /// The user.
    pub sub: String,
    /// Organization.
    pub org: String,
    /// The user's generation when it was issued.
    #[serde(rename = "gen")]
    pub generation: i64,
    /// Issuer.
    pub iss: String,
    /// Issued at, seconds since 1970.
    pub iat: i64,
    /// Good until, seconds since 1970.
    pub exp: i64,
}

/// Makes a token.
///
/// # Errors
/// `None` when it cannot be encoded, which does not happen with these claims.
pub fn issue(
    key: &[u8],
    user: &str,
    org: &str,
    generation: i64,
    now: DateTime<Utc>,
    expires_at: DateTime<Utc>,
) -> Option<String> {
    let claims = Claims {
        sub: user.to_owned(),
        org: org.to_owned(),
        generation,
        iss: ISSUER.to_owned(),
        iat: now.timestamp(),
        exp: expires_at.timestamp(),
    };
    jsonwebtoken::encode(&Header::new(Algorithm::HS256), &claims, &EncodingKey::from_secret(key)).ok()
}

/// Reads a token of ours that is good at `now`.
pub fn verify(key: &[u8], token: &str, now: DateTime<Utc>) -> Option<Claims> {
    let mut validation = Validation::new(Algorithm::HS256);
    validation.set_issuer(&[ISSUER]);
    validation.set_required_spec_claims(&["exp", "iss", "sub"]);
    // The library reads the clock itself; we judge by the one we are given.
    validation.validate_exp = false;
    let claims = jsonwebtoken::decode::<Claims>(token, &DecodingKey::from_secret(key), &validation).ok()?.claims;
    (claims.exp > now.timestamp()).then_some(claims)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_good_for_its_key_and_its_time_only() {
        let now = Utc::now();
        let end = now + chrono::Duration::minutes(15);
        let token = issue(&[1; 32], "u1", "default", 3, now, end).unwrap();
        let claims = verify(&[1; 32], &token, now).unwrap();
        assert_eq!((claims.sub.as_str(), claims.org.as_str(), claims.generation), ("u1", "default", 3));
        assert_eq!(verify(&[2; 32], &token, now), None);
        assert_eq!(verify(&[1; 32], &token, end), None);
    }

    #[test]
    fn an_unsigned_token_is_refused() {
        // {"alg":"none","typ":"JWT"} . {"sub":"u1","org":"default","gen":0,"iss":"r58-fleet","iat":0,"exp":9999999999} .
        let token = "eyJhbGciOiJub25lIiwidHlwIjoiSldUIn0.eyJzdWIiOiJ1MSIsIm9yZyI6ImRlZmF1bHQiLCJnZW4iOjAsImlzcyI6InI1OC1mbGVldCIsImlhdCI6MCwiZXhwIjo5OTk5OTk5OTk5fQ.";
        assert_eq!(verify(&[1; 32], token, Utc::now()), None);
    }
}
