//! Access tokens of the built-in identity: signed with HS256 by this service, and verified by it.
//!
//! Promises: the holder of a token had a session when it was issued; a token cannot be revoked before it expires, so it
//! is short-lived. The claims have the shape of Supabase's, so that row-level security reads both alike. The user's
//! role in the product is not in the token: the profile decides at every request. Issuing or verifying one costs an
//! HMAC.

use std::fmt;
use std::ops::RangeInclusive;
use std::sync::Arc;

use async_trait::async_trait;
use domain::identity::{Role, StoredEmail};
use domain::users::UserId;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header};
use ports::clock::Clock;
use ports::identity::{
    AccessToken, SecretError, TokenIssuer, TokenRefused, TokenScope, TokenVerifier, VerifiedIdentity,
};
use serde::Serialize;
use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::claims::{ClaimRules, OWN_ACCOUNT, ROLE};

const ISSUER: &str = "product-base";
const AUDIENCE: &str = "authenticated";
const ALGORITHM: Algorithm = Algorithm::HS256;

/// A key shorter than the hash is weaker than the hash (RFC 7518, section 3.2).
pub(super) const SECRET_MIN_BYTES: usize = 32;

/// A token cannot be revoked, so it lives at most a day.
const TTL_SECONDS: RangeInclusive<u64> = 1..=86_400;

pub struct BuiltInTokens {
    signing: EncodingKey,
    verifying: DecodingKey,
    key_id: String,
    ttl_seconds: u64,
    rules: ClaimRules,
    clock: Arc<dyn Clock>,
}

#[derive(Serialize)]
struct IssuedClaims<'a> {
    sub: UserId,
    role: &'static str,
    aud: &'static str,
    iss: &'static str,
    email: &'a str,
    iat: i64,
    exp: i64,
    sid: Uuid,
    #[serde(skip_serializing_if = "Option::is_none")]
    scope: Option<&'static str>,
}

impl BuiltInTokens {
    pub fn new(secret: &[u8], ttl_seconds: u64, clock: Arc<dyn Clock>) -> Result<Self, SecretError> {
        if secret.len() < SECRET_MIN_BYTES {
            return Err(SecretError(format!("the signing key needs at least {SECRET_MIN_BYTES} bytes")));
        }
        if !TTL_SECONDS.contains(&ttl_seconds) {
            return Err(SecretError("an access token lives between 1 second and 1 day".to_owned()));
        }
        Ok(Self {
            signing: EncodingKey::from_secret(secret),
            verifying: DecodingKey::from_secret(secret),
            key_id: hex::encode(Sha256::digest(secret)).chars().take(16).collect(),
            ttl_seconds,
            rules: ClaimRules::new(Some(ISSUER), AUDIENCE, Arc::clone(&clock)),
            clock,
        })
    }
}

impl fmt::Debug for BuiltInTokens {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("BuiltInTokens").field("key_id", &self.key_id).finish_non_exhaustive()
    }
}

impl TokenIssuer for BuiltInTokens {
    // The product role is not in the token: a demoted administrator would keep it until the token expires.
    fn issue(
        &self,
        user_id: UserId,
        email: &StoredEmail,
        _role: Role,
        session_id: Uuid,
        scope: TokenScope,
    ) -> Result<AccessToken, SecretError> {
        let issued_at = self.clock.now().timestamp();
        let expires_at = issued_at.saturating_add_unsigned(self.ttl_seconds);
        let header = Header { kid: Some(self.key_id.clone()), ..Header::new(ALGORITHM) };
        let claims = IssuedClaims {
            sub: user_id,
            role: ROLE,
            aud: AUDIENCE,
            iss: ISSUER,
            email: email.as_str(),
            iat: issued_at,
            exp: expires_at,
            sid: session_id,
            scope: (scope == TokenScope::OwnAccount).then_some(OWN_ACCOUNT),
        };
        let token = jsonwebtoken::encode(&header, &claims, &self.signing)
            .map_err(|error| SecretError(format!("a token could not be signed: {error}")))?;
        Ok(AccessToken { token, expires_in_seconds: self.ttl_seconds })
    }

    fn key(&self) -> (String, &'static str) {
        (self.key_id.clone(), "HS256")
    }
}

#[async_trait]
impl TokenVerifier for BuiltInTokens {
    async fn verify(&self, token: &str) -> Result<VerifiedIdentity, TokenRefused> {
        self.rules.check(token, &self.verifying, ALGORITHM)
    }

    fn verify_at_once(&self, token: &str) -> Option<VerifiedIdentity> {
        self.rules.check(token, &self.verifying, ALGORITHM).ok()
    }
}

#[cfg(test)]
mod tests {
    use chrono::TimeDelta;
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::super::testing::{self, SECRET, refused};
    use super::*;

    fn issue(tokens: &BuiltInTokens, user_id: Uuid) -> String {
        let email = StoredEmail::new("ada@example.com").unwrap();
        tokens.issue(UserId(user_id), &email, Role::Admin, Uuid::max(), TokenScope::Everything).unwrap().token
    }

    fn claims() -> Value {
        let now = testing::now().timestamp();
        json!({ "sub": Uuid::nil(), "role": "authenticated", "aud": "authenticated", "iss": "product-base",
            "iat": now, "exp": now + 900 })
    }

    fn built_in() -> (BuiltInTokens, Arc<testkit::clock::FixedClock>) {
        let clock = testing::clock();
        (BuiltInTokens::new(SECRET, 900, clock.clone()).unwrap(), clock)
    }

    #[tokio::test]
    async fn what_is_issued_is_accepted_until_30_seconds_after_its_expiry() {
        let (tokens, clock) = built_in();
        let user_id = Uuid::from_u128(7);
        let token = issue(&tokens, user_id);
        let expected = VerifiedIdentity {
            user_id: UserId(user_id),
            issued_at: Some(testing::now()),
            authenticated_at: None,
            session_id: Some(Uuid::max()),
            scope: TokenScope::Everything,
            expires_at: testing::now() + TimeDelta::seconds(900),
        };
        assert_eq!(tokens.verify(&token).await.unwrap(), expected);
        clock.advance(TimeDelta::seconds(929));
        assert_eq!(tokens.verify(&token).await.unwrap(), expected);
        clock.advance(TimeDelta::seconds(1));
        assert_eq!(refused(tokens.verify(&token).await), "it is expired");
    }

    #[tokio::test]
    async fn the_claims_have_the_shape_of_supabases() {
        let (tokens, _) = built_in();
        let token = issue(&tokens, Uuid::from_u128(7));
        let shown = jsonwebtoken::dangerous::insecure_decode::<Value>(&token).unwrap();
        let now = testing::now().timestamp();
        assert_eq!(shown.header.kid, Some(tokens.key().0));
        assert_eq!(tokens.key().0, hex::encode(Sha256::digest(SECRET))[..16]);
        let expected = json!({ "sub": Uuid::from_u128(7), "role": "authenticated", "aud": "authenticated",
            "iss": "product-base", "email": "ada@example.com", "iat": now, "exp": now + 900, "sid": Uuid::max() });
        assert_eq!(shown.claims, expected);
    }

    #[tokio::test]
    async fn a_claim_that_is_missing_or_wrong_is_refused() {
        let (tokens, _) = built_in();
        let sign = |claims: &Value| testing::sign_with_secret(SECRET, claims);
        assert!(tokens.verify(&sign(&claims())).await.is_ok());
        let now = testing::now().timestamp();
        for (claim, value, reason) in [
            ("exp", Value::Null, "a required claim is missing"),
            ("exp", json!("never"), "it is malformed"),
            ("exp", json!(now - 31), "it is expired"),
            ("exp", json!(u64::MAX), "its `exp` is not a time"),
            ("iat", json!(u64::MAX), "its `iat` is not a time"),
            ("nbf", json!(now + 31), "it is not valid yet"),
            ("sub", Value::Null, "a required claim is missing"),
            ("sub", json!("ada"), "its `sub` is not a UUID"),
            ("aud", Value::Null, "a required claim is missing"),
            ("aud", json!("another"), "it is for another audience"),
            ("iss", Value::Null, "a required claim is missing"),
            ("iss", json!("https://example.com/auth/v1"), "it is from another issuer"),
            ("role", Value::Null, "its role is not `authenticated`"),
            ("role", json!("service_role"), "its role is not `authenticated`"),
        ] {
            let mut changed = claims();
            changed[claim] = value.clone();
            if value.is_null() {
                changed.as_object_mut().unwrap().remove(claim);
            }
            assert_eq!(refused(tokens.verify(&sign(&changed)).await), reason, "{claim} = {value}");
        }
    }

    #[tokio::test]
    async fn a_fraction_of_a_second_is_no_reason_to_refuse() {
        let (tokens, _) = built_in();
        let mut changed = claims();
        changed["exp"] = json!(1_763_639_999.75 + 1e9);
        changed["nbf"] = json!(0.5);
        assert!(tokens.verify(&testing::sign_with_secret(SECRET, &changed)).await.is_ok());
    }

    #[tokio::test]
    async fn the_header_decides_nothing() {
        let (tokens, _) = built_in();
        let sign = |header: Value| testing::sign_raw_hs256(SECRET, &header, &claims());
        assert!(tokens.verify(&sign(json!({ "alg": "HS256" }))).await.is_ok());
        let lures = json!({ "alg": "HS256", "kid": "../../dev/null", "jku": "http://127.0.0.1:9/keys",
            "x5u": "http://127.0.0.1:9/cert" });
        assert!(tokens.verify(&sign(lures)).await.is_ok());
        for header in [
            json!({ "alg": "none" }),
            json!({ "alg": "HS384" }),
            json!({ "alg": "RS256" }),
            json!({ "alg": "HS256", "crit": ["b64"], "b64": false }),
            json!({}),
        ] {
            assert!(tokens.verify(&sign(header.clone())).await.is_err(), "{header}");
        }
    }

    #[tokio::test]
    async fn a_token_of_9_kb_is_refused_before_it_is_read() {
        let (tokens, _) = built_in();
        let mut long = claims();
        long["email"] = json!("x".repeat(9 * 1024));
        assert_eq!(refused(tokens.verify(&testing::sign_with_secret(SECRET, &long)).await), "it is longer than 8 KB");
    }

    #[test]
    fn a_weak_key_or_an_endless_token_is_refused_at_the_start() {
        assert!(BuiltInTokens::new(&[7; 31], 900, testing::clock()).is_err());
        assert!(BuiltInTokens::new(SECRET, 0, testing::clock()).is_err());
        assert!(BuiltInTokens::new(SECRET, 86_401, testing::clock()).is_err());
    }

    #[test]
    fn the_key_is_not_shown() {
        let shown = format!("{:?}", built_in().0);
        assert!(!shown.contains(std::str::from_utf8(SECRET).unwrap()), "{shown}");
    }

    proptest! {
        #[test]
        fn no_changed_byte_is_accepted(at: prop::sample::Index, other in "[A-Za-z0-9_.-]") {
            let (tokens, _) = built_in();
            let token = issue(&tokens, Uuid::nil());
            let at = at.index(token.len());
            prop_assume!(token[at..=at] != other);
            let changed = format!("{}{other}{}", &token[..at], &token[at + 1..]);
            prop_assert!(testing::now_or_never(tokens.verify(&changed)).is_err());
        }

        #[test]
        fn no_text_is_accepted_or_makes_it_panic(text in ".{0,200}") {
            let (tokens, _) = built_in();
            prop_assert!(testing::now_or_never(tokens.verify(&text)).is_err());
        }
    }
}
