//! Warmth: everybody has been seen once before anything is measured, as in a service that has run for a while.
//!
//! One check a user, so that the service knows their token, their role and what they may use. Counts it asks for again
//! after a second, as ever.

use std::time::{Duration, Instant};

use anyhow::Context as _;
use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};
use tokio::time::timeout;

use crate::wrk::Tokens;

/// How many tokens are shown at once: the service checks them on its own threads.
const SHOWN_AT_ONCE: usize = 64;

/// For showing one token.
const SHOWING_LIMIT: Duration = Duration::from_secs(10);

/// For showing all of them, and again so much for each million. The service forgets them a minute after it saw them.
const WALK_LIMIT: Duration = Duration::from_mins(5);

/// Lets every user ask once whether they may.
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
