use std::time::Instant;

use proptest::prelude::*;
use serde_json::json;
use testkit::clock::FixedClock;

use super::super::testing::{self, KeyServer, SigningKey, http, refused};
use super::*;

async fn jwks(keys: &[Value]) -> (Arc<Jwks>, KeyServer, Arc<FixedClock>) {
    let server = KeyServer::start(keys).await;
    let clock = testing::clock();
    (Arc::new(Jwks::new(&server.url(), clock.clone()).unwrap()), server, clock)
}

fn pin(keys: &[Value]) -> HashMap<String, Arc<PinnedKey>> {
    Document { keys: keys.to_vec() }.pinned()
}

fn with(mut key: Value, name: &str, value: Value) -> Value {
    key[name] = value;
    key
}

async fn unavailable(jwks: &Jwks, key_id: &str) -> bool {
    matches!(jwks.find(key_id).await, Err(TokenRefused::Unavailable(_)))
}

#[tokio::test]
async fn known_keys_are_found_with_one_request() {
    let (jwks, server, _) = jwks(&[SigningKey::es256("a").public(), SigningKey::eddsa("b").public()]).await;
    for _ in 0..5 {
        assert_eq!(jwks.find("a").await.unwrap().algorithm, Algorithm::ES256);
        assert_eq!(jwks.find("b").await.unwrap().algorithm, Algorithm::EdDSA);
    }
    assert_eq!(server.requests(), 1);
}

#[tokio::test]
async fn an_unknown_key_is_asked_for_once_in_a_cooldown() {
    let (jwks, server, clock) = jwks(&[SigningKey::es256("a").public()]).await;
    jwks.find("a").await.unwrap();
    clock.advance(COOLDOWN);
    assert_eq!(refused(jwks.find("x").await), "its key is not known");
    assert_eq!(refused(jwks.find("x").await), "its key is not known");
    assert_eq!(refused(jwks.find("y").await), "its key is not known");
    assert_eq!(server.requests(), 2);
    clock.advance(COOLDOWN);
    assert_eq!(refused(jwks.find("x").await), "its key is not known");
    assert_eq!(server.requests(), 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fifty_callers_with_a_new_key_make_one_request() {
    let (jwks, server, clock) = jwks(&[SigningKey::es256("a").public()]).await;
    jwks.find("a").await.unwrap();
    clock.advance(COOLDOWN);
    server.publish(&[SigningKey::es256("b").public()]);
    let callers: Vec<_> = (0..50)
        .map(|_| {
            let jwks = Arc::clone(&jwks);
            tokio::spawn(async move { jwks.find("b").await.is_ok() })
        })
        .collect();
    for caller in callers {
        assert!(caller.await.unwrap());
    }
    assert_eq!(server.requests(), 2);
}

#[tokio::test]
async fn a_rotated_key_is_accepted_and_the_old_one_refused_after_the_cooldown() {
    let (jwks, server, clock) = jwks(&[SigningKey::es256("old").public()]).await;
    jwks.find("old").await.unwrap();
    server.publish(&[SigningKey::es256("new").public()]);
    assert_eq!(refused(jwks.find("new").await), "its key is not known");
    clock.advance(COOLDOWN);
    jwks.find("new").await.unwrap();
    assert_eq!(refused(jwks.find("old").await), "its key is not known");
}

#[tokio::test]
async fn a_withdrawn_key_is_dropped_behind_the_requests_that_use_it() {
    let (jwks, server, clock) = jwks(&[SigningKey::es256("old").public()]).await;
    jwks.find("old").await.unwrap();
    server.publish(&[]);
    clock.advance(FRESH_FOR);
    jwks.find("old").await.expect("the renewal is not waited for");
    drop(jwks.shared.last_attempt.lock().await);
    assert_eq!(refused(jwks.find("old").await), "its key is not known");
    assert_eq!(server.requests(), 2);
}

#[tokio::test]
async fn keys_outlive_an_outage_by_a_day() {
    let (jwks, server, clock) = jwks(&[SigningKey::es256("a").public()]).await;
    jwks.find("a").await.unwrap();
    server.stop();
    clock.advance(KEPT_FOR - TimeDelta::seconds(11));
    jwks.find("a").await.unwrap();
    assert_eq!(refused(jwks.find("x").await), "its key is not known");
    clock.advance(TimeDelta::seconds(11));
    assert!(unavailable(&jwks, "a").await);
}

#[tokio::test]
async fn without_a_first_answer_nothing_can_be_said() {
    let (jwks, server, clock) = jwks(&[]).await;
    server.answer(http("503 Service Unavailable", "{}"));
    assert!(unavailable(&jwks, "a").await);
    server.publish(&[SigningKey::es256("a").public()]);
    assert!(unavailable(&jwks, "a").await, "the cooldown holds for failures too");
    assert_eq!(server.requests(), 1);
    clock.advance(COOLDOWN);
    jwks.find("a").await.unwrap();
}

#[tokio::test]
async fn a_bad_answer_leaves_the_keys_in_force() {
    let (jwks, server, clock) = jwks(&[SigningKey::es256("a").public()]).await;
    jwks.find("a").await.unwrap();
    let elsewhere = KeyServer::start(&[SigningKey::es256("x").public()]).await;
    let padded = json!({ "keys": [SigningKey::es256("x").public()], "padding": "x".repeat(BODY_MAX_BYTES) });
    for answer in [
        http("500 Internal Server Error", "{}"),
        http("200 OK", "<html>"),
        http("200 OK", "{}"),
        http("200 OK", &padded.to_string()),
        format!("HTTP/1.1 302 Found\r\nlocation: {}\r\ncontent-length: 0\r\n\r\n", elsewhere.url()),
        "HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{\"keys\":[]}".to_owned(),
    ] {
        clock.advance(COOLDOWN);
        server.answer(answer.clone());
        let before = server.requests();
        assert_eq!(refused(jwks.find("x").await), "its key is not known", "{answer:.60}");
        assert_eq!(server.requests(), before + 1);
        jwks.find("a").await.unwrap();
    }
    assert_eq!(elsewhere.requests(), 0);
}

#[tokio::test]
async fn a_silent_issuer_is_waited_for_three_seconds_at_most() {
    let (jwks, server, _) = jwks(&[]).await;
    server.answer(String::new());
    let begun = Instant::now();
    assert!(unavailable(&jwks, "a").await);
    assert!(begun.elapsed() < FETCH_TIMEOUT + Duration::from_secs(2));
}

#[tokio::test]
async fn a_caller_who_hangs_up_does_not_end_the_fetch() {
    let (jwks, server, _) = jwks(&[SigningKey::es256("a").public()]).await;
    assert!(tokio::time::timeout(Duration::from_millis(10), jwks.find("a")).await.is_err());
    jwks.find("a").await.unwrap();
    assert_eq!(server.requests(), 1);
}

#[tokio::test]
async fn a_clock_that_is_set_back_does_not_stretch_the_cooldown() {
    let (jwks, server, clock) = jwks(&[SigningKey::es256("a").public()]).await;
    jwks.find("a").await.unwrap();
    clock.advance(TimeDelta::hours(-1));
    jwks.find("x").await.ok();
    assert_eq!(server.requests(), 2);
}

#[test]
fn plain_http_is_for_the_loopback_only() {
    for (url, accepted) in [
        ("https://project.supabase.co/auth/v1/.well-known/jwks.json", true),
        ("http://localhost:54321/keys", true),
        ("http://127.0.0.1:54321/keys", true),
        ("http://[::1]:54321/keys", true),
        ("http://project.supabase.co/keys", false),
        ("http://localhost.example.com/keys", false),
        ("http://169.254.169.254/keys", false),
        ("file:///etc/passwd", false),
        ("keys", false),
    ] {
        assert_eq!(Jwks::new(url, testing::clock()).is_ok(), accepted, "{url}");
    }
}

#[test]
fn each_kind_of_key_has_its_one_algorithm() {
    let (ec, ed, rsa) = (SigningKey::es256("ec"), SigningKey::eddsa("ed"), SigningKey::rs256("rsa"));
    let mut published = [ec.public(), ed.public(), rsa.public()];
    let algorithms = |published: &[Value]| {
        let pinned = pin(published);
        ["ec", "ed", "rsa"].map(|key_id| pinned.get(key_id).map(|key| key.algorithm))
    };
    let expected = [Algorithm::ES256, Algorithm::EdDSA, Algorithm::RS256].map(Some);
    assert_eq!(algorithms(&published), expected);
    for key in &mut published {
        key.as_object_mut().unwrap().remove("alg");
    }
    assert_eq!(algorithms(&published), expected, "the kind of the key is enough");
}

#[test]
fn keys_that_cannot_be_trusted_are_ignored() {
    let (ec, ed, rsa) =
        (SigningKey::es256("k").public(), SigningKey::eddsa("k").public(), SigningKey::rs256("k").public());
    let short = testing::base64url(&[1; 31]);
    for key in [
        json!({ "kid": "k", "kty": "oct", "alg": "HS256", "k": testing::base64url(testing::SECRET) }),
        with(ec.clone(), "alg", json!("HS256")),
        with(rsa.clone(), "alg", json!("HS256")),
        with(rsa.clone(), "alg", json!("none")),
        with(ec.clone(), "alg", json!("RS256")),
        with(ec.clone(), "crv", json!("P-521")),
        with(ec.clone(), "use", json!("enc")),
        with(ec.clone(), "key_ops", json!(["sign"])),
        with(ec.clone(), "x", json!(short)),
        with(ec.clone(), "y", Value::Null),
        with(ec.clone(), "kid", Value::Null),
        with(ed.clone(), "x", json!(short)),
        with(ed, "x", json!("")),
        with(rsa, "n", json!("not base64!")),
        SigningKey::weak_rs256("k").public(),
        json!("k"),
    ] {
        assert!(pin(std::slice::from_ref(&key)).is_empty(), "{key}");
    }
    assert_eq!(pin(&[json!({ "kty": "new" }), with(ec, "extra", json!(1))]).len(), 1, "one bad key spoils no other");
}

#[test]
fn at_most_32_keys_are_kept() {
    let key = SigningKey::es256("k").public();
    let many: Vec<Value> = (0..100).map(|number| with(key.clone(), "kid", json!(number.to_string()))).collect();
    assert_eq!(pin(&many).len(), KEYS_MAX);
}

proptest! {
    /// Whatever point an issuer publishes, a check against it returns a result and does not panic.
    #[test]
    fn no_published_point_makes_a_check_panic(x in prop::collection::vec(any::<u8>(), 0..40), kind in 0..2_usize) {
        let (kty, crv) = [("EC", "P-256"), ("OKP", "Ed25519")][kind];
        let key = json!({ "kid": "k", "kty": kty, "crv": crv, "x": testing::base64url(&x), "y": testing::base64url(&x) });
        for key in pin(&[key]).values() {
            let token = "eyJhbGciOiJFZERTQSJ9.e30.AAAA";
            prop_assert!(jsonwebtoken::decode::<Value>(token, &key.key, &jsonwebtoken::Validation::new(key.algorithm)).is_err());
        }
    }
}
