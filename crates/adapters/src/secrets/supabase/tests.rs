use chrono::TimeDelta;
use domain::users::UserId;
use serde_json::{Value, json};
use testkit::clock::FixedClock;
use uuid::Uuid;

use super::super::testing::{self, KeyServer, SECRET, SigningKey, refused};
use super::*;

const AUDIENCE: &str = "authenticated";

/// The claims of a token as Supabase issues it.
fn claims(issuer: &str) -> Value {
    let now = testing::now().timestamp();
    json!({ "iss": issuer, "sub": Uuid::from_u128(7), "aud": AUDIENCE, "exp": now + 3_600, "iat": now,
        "email": "ada@example.com", "phone": "", "app_metadata": { "provider": "email" }, "user_metadata": {},
        "role": "authenticated", "aal": "aal1", "amr": [{ "method": "password", "timestamp": now }],
        "session_id": Uuid::max(), "is_anonymous": false })
}

async fn published(keys: &[SigningKey]) -> (SupabaseTokens, KeyServer, Arc<FixedClock>) {
    let public: Vec<Value> = keys.iter().map(SigningKey::public).collect();
    let server = KeyServer::start(&public).await;
    let clock = testing::clock();
    (SupabaseTokens::with_jwks(&server.url(), None, AUDIENCE, clock.clone()).unwrap(), server, clock)
}

fn with_secret(issuer: Option<&str>) -> SupabaseTokens {
    SupabaseTokens::with_secret(SECRET, issuer, AUDIENCE, testing::clock()).unwrap()
}

/// Each claim that is checked, missing and wrong, with the reason for the refusal.
fn refusals(issuer: &str) -> Vec<(Value, &'static str)> {
    let now = testing::now().timestamp();
    let without = |claim: &str| {
        let mut claims = claims(issuer);
        claims.as_object_mut().unwrap().remove(claim);
        claims
    };
    let with = |claim: &str, value: Value| {
        let mut claims = claims(issuer);
        claims[claim] = value;
        claims
    };
    vec![
        (without("exp"), "a required claim is missing"),
        (without("sub"), "a required claim is missing"),
        (without("aud"), "a required claim is missing"),
        (without("role"), "its role is not `authenticated`"),
        (with("exp", json!(now - 30)), "it is expired"),
        (with("exp", json!(now.to_string())), "it is malformed"),
        (with("nbf", json!(now + 31)), "it is not valid yet"),
        (with("sub", json!("not-a-uuid")), "its `sub` is not a UUID"),
        (with("sub", json!("")), "its `sub` is not a UUID"),
        (with("aud", json!("anon")), "it is for another audience"),
        (with("aud", json!([])), "it is for another audience"),
        (with("role", json!("service_role")), "its role is not `authenticated`"),
        (with("role", json!("anon")), "its role is not `authenticated`"),
        (with("user_metadata", json!({ "padding": "x".repeat(9 * 1024) })), "it is longer than 8 KB"),
    ]
}

#[tokio::test]
async fn a_user_is_accepted_by_each_kind_of_key() {
    let keys = [SigningKey::es256("ec"), SigningKey::eddsa("ed"), SigningKey::rs256("rsa")];
    let (tokens, server, _) = published(&keys).await;
    let issuer = format!("{}/auth/v1", server.origin());
    for key in &keys {
        let identity = tokens.verify(&key.sign(&claims(&issuer))).await.unwrap();
        assert_eq!(identity.user_id, UserId(Uuid::from_u128(7)));
        assert_eq!(identity.expires_at, testing::now() + TimeDelta::hours(1));
    }
    assert_eq!(server.requests(), 1);
}

#[tokio::test]
async fn a_claim_that_is_missing_or_wrong_is_refused_with_published_keys() {
    let key = SigningKey::es256("ec");
    let (tokens, server, _) = published(std::slice::from_ref(&key)).await;
    let issuer = format!("{}/auth/v1", server.origin());
    for (claims, reason) in refusals(&issuer) {
        assert_eq!(refused(tokens.verify(&key.sign(&claims)).await), reason, "{claims:.200}");
    }
    for issuer in ["https://evil.supabase.co/auth/v1", "", &server.origin()] {
        assert_eq!(refused(tokens.verify(&key.sign(&claims(issuer))).await), "it is from another issuer");
    }
    let mut without = claims(&issuer);
    without.as_object_mut().unwrap().remove("iss");
    assert_eq!(refused(tokens.verify(&key.sign(&without)).await), "a required claim is missing");
}

#[tokio::test]
async fn a_claim_that_is_missing_or_wrong_is_refused_with_a_secret() {
    let sign = |claims: &Value| testing::sign_with_secret(SECRET, claims);
    let (any_issuer, one_issuer) = (with_secret(None), with_secret(Some("https://one.supabase.co/auth/v1")));
    for (claims, reason) in refusals("https://one.supabase.co/auth/v1") {
        assert_eq!(refused(any_issuer.verify(&sign(&claims)).await), reason, "{claims:.200}");
        assert_eq!(refused(one_issuer.verify(&sign(&claims)).await), reason, "{claims:.200}");
    }
    let other = sign(&claims("https://other.supabase.co/auth/v1"));
    assert!(any_issuer.verify(&other).await.is_ok());
    assert_eq!(refused(one_issuer.verify(&other).await), "it is from another issuer");
    let elsewhere = testing::sign_with_secret(b"another secret of at least 32 bytes!", &claims("x"));
    assert_eq!(refused(any_issuer.verify(&elsewhere).await), "its signature does not fit");
}

#[tokio::test]
async fn the_audience_may_be_one_of_several() {
    let mut several = claims("x");
    several["aud"] = json!(["storage", "authenticated"]);
    assert!(with_secret(None).verify(&testing::sign_with_secret(SECRET, &several)).await.is_ok());
}

#[tokio::test]
async fn the_header_cannot_choose_the_algorithm() {
    let keys = [SigningKey::es256("ec"), SigningKey::eddsa("ed"), SigningKey::rs256("rsa")];
    let (tokens, server, _) = published(&keys).await;
    let claims = claims(&format!("{}/auth/v1", server.origin()));
    for key in &keys {
        // The classic confusion: a public key is used as the secret of HS256.
        let public = key.public();
        let parts = ["x", "n"].into_iter().filter_map(|name| public[name].as_str());
        let secrets = parts.map(|part| part.as_bytes().to_vec()).chain([public.to_string().into_bytes()]);
        for secret in secrets {
            let header = json!({ "alg": "HS256", "typ": "JWT", "kid": key.key_id });
            let forged = testing::sign_raw_hs256(&secret, &header, &claims);
            assert_eq!(refused(tokens.verify(&forged).await), "its algorithm is not the key's");
        }
        for algorithm in ["none", "None", "NONE", ""] {
            let header = json!({ "alg": algorithm, "typ": "JWT", "kid": key.key_id });
            let forged = testing::sign_raw_hs256(b"", &header, &claims);
            let unsigned = format!("{}.", forged.rsplit_once('.').unwrap().0);
            assert_eq!(refused(tokens.verify(&forged).await), "it is malformed");
            assert_eq!(refused(tokens.verify(&unsigned).await), "it is malformed");
        }
    }
    let renamed = SigningKey::es256("ec").named("rsa");
    assert_eq!(refused(tokens.verify(&renamed.sign(&claims)).await), "its algorithm is not the key's");
    assert_eq!(server.requests(), 1);
}

#[tokio::test]
async fn a_key_in_the_header_is_not_believed() {
    let (tokens, server, _) = published(&[SigningKey::es256("ec")]).await;
    let own = SigningKey::es256("ec");
    let lures = json!({ "alg": "HS256", "kid": "ec", "jwk": own.public(), "jku": server.url(), "x5u": server.url() });
    let forged = testing::sign_raw_hs256(SECRET, &lures, &claims(&format!("{}/auth/v1", server.origin())));
    assert!(tokens.verify(&forged).await.is_err());
    let same_name = own.sign(&claims(&format!("{}/auth/v1", server.origin())));
    assert_eq!(refused(tokens.verify(&same_name).await), "its signature does not fit");
    assert_eq!(server.requests(), 1);
}

#[tokio::test]
async fn a_token_without_a_key_id_asks_nobody() {
    let (tokens, server, _) = published(&[SigningKey::es256("ec")]).await;
    assert_eq!(refused(tokens.verify(&testing::sign_with_secret(SECRET, &claims("x"))).await), "it names no key");
    assert!(tokens.verify("").await.is_err() && tokens.verify("a.b.c").await.is_err());
    assert!(tokens.verify(&"x".repeat(9 * 1024)).await.is_err());
    assert_eq!(server.requests(), 0);
}

#[tokio::test]
async fn an_outage_is_told_apart_from_a_bad_token() {
    let key = SigningKey::es256("ec");
    let (tokens, server, clock) = published(std::slice::from_ref(&key)).await;
    let token = key.sign(&claims(&format!("{}/auth/v1", server.origin())));
    server.answer(testing::http("502 Bad Gateway", ""));
    assert!(matches!(tokens.verify(&token).await, Err(TokenRefused::Unavailable(_))));
    server.publish(&[key.public()]);
    clock.advance(TimeDelta::seconds(10));
    tokens.verify(&token).await.unwrap();
    server.stop();
    clock.advance(TimeDelta::minutes(30));
    tokens.verify(&token).await.unwrap();
}

#[test]
fn what_cannot_be_safe_is_refused_at_the_start() {
    assert!(SupabaseTokens::with_secret(&[7; 31], None, AUDIENCE, testing::clock()).is_err());
    let plain = SupabaseTokens::with_jwks("http://project.supabase.co/keys", None, AUDIENCE, testing::clock());
    assert!(plain.is_err());
}

#[test]
fn the_secret_is_not_shown() {
    let shown = format!("{:?}", with_secret(None));
    assert!(!shown.contains(std::str::from_utf8(SECRET).unwrap()), "{shown}");
}
