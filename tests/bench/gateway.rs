//! Model calls: the stub upstream that answers them, and what wrk cannot measure: the time to the first chunk of a
//! stream, and the memory for many open streams.

use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use futures_util::future::try_join_all;
use reqwest::{Client, Response};
use testkit::upstream::{AnswerPace, Script, ScriptedAnswer, Upstream, sentence};

use crate::processes::{Usage, resident_mebibytes};
use crate::report::Row;
use crate::service::Service;
use crate::wrk::Tokens;

/// The number of open streams when the memory is read.
pub const OPEN_STREAMS: usize = 1_000;

/// The number of streams for the median time to the first chunk.
const STREAMS: usize = 300;

pub const FIRST_TOKEN: &str = "gateway, first token";
pub const FIRST_TOKEN_DIRECT: &str = "stub upstream, first token";
pub const MEMORY: &str = "gateway, open streams";

/// A model that sends a word a second: its streams stay open.
const SLOW: &str = "gpt-4o";
const QUICK: &str = "gpt-4o-mini";

/// The time limit for the start of a response.
const LIMIT: Duration = Duration::from_secs(30);

/// The stub, on a thread of this process; its prices do not matter.
pub fn upstream() -> Upstream {
    let upstream = Upstream::start();
    let answer = ScriptedAnswer { text: sentence(120), ..ScriptedAnswer::default() };
    let pace = AnswerPace { between: Duration::from_secs(1), ..AnswerPace::default() };
    upstream.script(SLOW, Script { answer, pace, ..Script::default() });
    upstream
}

pub struct Watched<'a> {
    /// `http://` and the address of the stub.
    pub direct: &'a str,
    pub service: &'a Service,
    pub tokens: &'a Tokens,
}

impl Watched<'_> {
    pub async fn measure(&self, upstream: &Upstream) -> anyhow::Result<Vec<Row>> {
        let text = std::fs::read_to_string(&self.tokens.file).context("the tokens")?;
        let tokens: Vec<&str> = text.lines().take(crate::cases::GATEWAY_USERS as usize).collect();
        let client = Client::builder().timeout(Duration::from_mins(5)).build()?;
        let direct = first_tokens(&client, self.direct, &tokens).await?;
        let gateway = first_tokens(&client, self.service.url(), &tokens).await?;
        let memory = self.open_streams(&client, &tokens).await?;
        // Ends the streams whose clients have disconnected.
        upstream.clear();
        Ok(vec![row(FIRST_TOKEN_DIRECT, &direct), row(FIRST_TOKEN, &gateway), memory])
    }

    /// The memory of the service while all streams are open, each after its first chunk.
    async fn open_streams(&self, client: &Client, tokens: &[&str]) -> anyhow::Result<Row> {
        let begin = async |place: usize| {
            let token = tokens.get(place % tokens.len()).context("a token")?;
            let mut answer = ask(client, self.service.url(), token, SLOW).await?;
            answer.chunk().await?.context("a stream that says nothing")?;
            anyhow::Ok(answer)
        };
        let mut open = Vec::with_capacity(OPEN_STREAMS);
        // A hundred at a time: the number of streams matters, not a burst of requests.
        for first in (0..OPEN_STREAMS).step_by(100) {
            open.extend(try_join_all((first..first + 100).map(begin)).await?);
        }
        let process = self.service.process().context("the service has ended")?;
        let resident_mebibytes = resident_mebibytes(process);
        ensure!(open.len() == OPEN_STREAMS, "{} streams are open", open.len());
        drop(open);
        let connections = u32::try_from(OPEN_STREAMS)?;
        Ok(Row { connections, resident_mebibytes, ..row(MEMORY, &[]) })
    }
}

/// The time to the first chunk of each stream, one stream after the other.
async fn first_tokens(client: &Client, url: &str, tokens: &[&str]) -> anyhow::Result<Vec<Duration>> {
    let mut took = Vec::with_capacity(STREAMS);
    for place in 0..STREAMS {
        let token = tokens.get(place % tokens.len()).context("a token")?;
        let asked = Instant::now();
        let mut answer = ask(client, url, token, QUICK).await?;
        answer.chunk().await?.context("a stream that says nothing")?;
        took.push(asked.elapsed());
        while answer.chunk().await?.is_some() {}
    }
    took.sort_unstable();
    Ok(took)
}

async fn ask(client: &Client, url: &str, token: &str, model: &str) -> anyhow::Result<Response> {
    let body = serde_json::json!({
        "model": model,
        "max_tokens": 256,
        "stream": true,
        "messages": [{ "role": "user", "content": "Say something kind." }],
    });
    let asked = client.post(format!("{url}/v1/chat/completions")).bearer_auth(token).json(&body).send();
    let answer = tokio::time::timeout(LIMIT, asked).await.context("a stream took too long to begin")??;
    Ok(answer.error_for_status()?)
}

/// A row from sorted times.
fn row(name: &'static str, sorted: &[Duration]) -> Row {
    let at = |share: usize| sorted.get(sorted.len() * share / 100).copied().unwrap_or_default();
    let total: Duration = sorted.iter().sum();
    let per_second = if total.is_zero() {
        0.0
    } else {
        f64::from(u32::try_from(sorted.len()).unwrap_or(u32::MAX)) / total.as_secs_f64()
    };
    Row {
        name,
        connections: 1,
        per_second,
        items_per_second: per_second,
        median: at(50),
        p99: at(99),
        p99_of_runs: vec![at(99)],
        errors: 0,
        usage: Usage::default(),
        resident_mebibytes: None,
        batch: None,
        ratio: None,
    }
}
