//! Warm-up: every user makes one request before the measurements, as in a service that has run for a while.
//!
//! The request is a check, so that the service caches each user's token, role and entitlements. Counts expire from the
//! cache after a second, as always.

use std::time::{Duration, Instant};

use anyhow::Context as _;
use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};
use tokio::time::timeout;

use crate::wrk::Tokens;

/// The number of requests in parallel: the service verifies the tokens on its own threads.
const SHOWN_AT_ONCE: usize = 64;

/// The time limit for one request.
const SHOWING_LIMIT: Duration = Duration::from_secs(10);

/// For all requests, and the same again for each million of them. The service's cache forgets a user after a minute.
const WALK_LIMIT: Duration = Duration::from_mins(5);

/// Makes one check for every user.
pub async fn introduce(tokens: &Tokens, service_url: &str) -> anyhow::Result<()> {
    let text = std::fs::read_to_string(&tokens.file).context("the tokens")?;
    let client = reqwest::Client::builder().timeout(SHOWING_LIMIT).build()?;
    let url = format!("{service_url}/api/users/me/features/ai_requests");
    let show = |token: &str| {
        let request = client.get(&url).bearer_auth(token).send();
        async move { request.await?.error_for_status()?.bytes().await.map(drop) }
    };
    let showing = stream::iter(text.lines()).map(show).buffer_unordered(SHOWN_AT_ONCE);
    let limit = WALK_LIMIT + WALK_LIMIT * (tokens.count / 1_000_000);
    let started = Instant::now();
    let shown = timeout(limit, showing.try_for_each(|()| async { Ok(()) })).await;
    shown.context("the users took too long to be seen")??;
    eprintln!("  {} users seen in {:.0?}", tokens.count, started.elapsed());
    Ok(())
}
