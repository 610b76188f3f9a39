//! Supabase as the issuer of tokens: its public keys on a loopback port, and an ES256 token for every user.

use std::path::Path;
use std::sync::Arc;
use std::thread::available_parallelism;

use adapters::clock::SystemClock;
use harness::IssuerKey;
use ports::clock::Clock as _;
use sea_orm::sqlx::PgConnection;
use serde_json::{Value, json};
use testkit::jwks::StubJwks;
use tokio::task::spawn_blocking;
use uuid::Uuid;

use crate::people::{self, TOKEN_SECONDS};
use crate::wrk::Tokens;

/// The stub of the issuer; it stops when this is dropped.
pub struct Supabase {
    stub: StubJwks,
    pub tokens: Tokens,
}

impl Supabase {
    /// Signs on every processor: a signature takes a hundred times as long as one of our own tokens.
    pub async fn open(owner: &mut PgConnection, file: &Path) -> anyhow::Result<Self> {
        let key = Arc::new(IssuerKey::new("bench", 7));
        let stub = StubJwks::start(&[key.public()]);
        let issuer = format!("{}/auth/v1", stub.origin());
        let (users, now) = (people::list(owner).await?, SystemClock.now().timestamp());
        let share = users.len().div_ceil(available_parallelism().map_or(1, usize::from)).max(1);
        let signers: Vec<_> = users
            .chunks(share)
            .map(|share| {
                let (key, issuer, share) = (Arc::clone(&key), issuer.clone(), share.to_vec());
                let sign = move |(id, email): (Uuid, String)| key.sign(&claims(&issuer, id, &email, now));
                spawn_blocking(move || share.into_iter().map(sign).collect::<Vec<_>>())
            })
            .collect();
        let mut tokens = Vec::with_capacity(users.len());
        for signer in signers {
            tokens.extend(signer.await?);
        }
        Ok(Self { stub, tokens: people::keep_tokens(&tokens, file)? })
    }

    pub fn jwks_url(&self) -> String {
        self.stub.url()
    }
}

/// The claims of a Supabase session.
fn claims(issuer: &str, id: Uuid, email: &str, now: i64) -> Value {
    let expires_at = now + i64::try_from(TOKEN_SECONDS).unwrap_or(i64::MAX);
    json!({
        "iss": issuer, "sub": id, "aud": "authenticated", "exp": expires_at, "iat": now, "email": email, "phone": "",
        "app_metadata": { "provider": "email", "providers": ["email"] }, "user_metadata": {}, "role": "authenticated",
        "aal": "aal1", "amr": [{ "method": "password", "timestamp": now }], "session_id": id, "is_anonymous": false
    })
}
