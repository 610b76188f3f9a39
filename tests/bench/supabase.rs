//! Supabase as the issuer of tokens: its keys on a port of the loopback, and a token of ES256 for every user.

use std::path::Path;
use std::sync::Arc;
use std::thread::available_parallelism;
use std::time::{Duration, Instant};

use adapters::clock::SystemClock;
use anyhow::Context as _;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use harness::IssuerKey;
use ports::clock::Clock as _;
use sea_orm::sqlx::PgConnection;
use serde_json::{Value, json};
use testkit::jwks::StubJwks;
use tokio::task::spawn_blocking;
use tokio::time::timeout;
use uuid::Uuid;

use crate::people::{self, TOKEN_SECONDS};
use crate::wrk::Tokens;

/// How many tokens are shown at once: the service checks them on its own threads.
const SHOWN_AT_ONCE: usize = 64;

/// For showing one token.
const SHOWING_LIMIT: Duration = Duration::from_secs(10);

/// For showing all of them, and again so much for each million. The service forgets them a minute after it saw them.
const WALK_LIMIT: Duration = Duration::from_mins(5);

/// It stops when it is dropped.
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

    /// Shows every token once, on a public route: the service looks at each that it is shown.
    pub async fn introduce(&self, service_url: &str) -> anyhow::Result<()> {
        let tokens = std::fs::read_to_string(&self.tokens.file).context("the tokens")?;
        let client = reqwest::Client::builder().timeout(SHOWING_LIMIT).build()?;
        let url = format!("{service_url}/api/plans");
        let show = |token: &str| {
            let request = client.get(&url).bearer_auth(token).send();
            async move { request.await?.error_for_status()?.bytes().await.map(drop) }
        };
        let showing = stream::iter(tokens.lines()).map(show).buffer_unordered(SHOWN_AT_ONCE);
        let limit = WALK_LIMIT + WALK_LIMIT * (self.tokens.count / 1_000_000);
        let started = Instant::now();
        let shown = timeout(limit, showing.try_for_each(|()| async { Ok(()) })).await;
        shown.context("the tokens took too long to be shown")??;
        eprintln!("  {} tokens shown in {:.0?}", self.tokens.count, started.elapsed());
        Ok(())
    }
}

/// As a session of Supabase has them.
fn claims(issuer: &str, id: Uuid, email: &str, now: i64) -> Value {
    let expires_at = now + i64::try_from(TOKEN_SECONDS).unwrap_or(i64::MAX);
    json!({
        "iss": issuer, "sub": id, "aud": "authenticated", "exp": expires_at, "iat": now, "email": email, "phone": "",
        "app_metadata": { "provider": "email", "providers": ["email"] }, "user_metadata": {}, "role": "authenticated",
        "aal": "aal1", "amr": [{ "method": "password", "timestamp": now }], "session_id": id, "is_anonymous": false
    })
}
