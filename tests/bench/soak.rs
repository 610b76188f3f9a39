//! The soak: model calls without a pause, for minutes. The service must not get slower or larger as its tables grow.
//!
//! Promise: it fails if the last third of the time did less than nine tenths of the first third's work, if the memory
//! grew by more than a third of its size after the first, if any response was wrong, or if the books do not balance at
//! the end.

use std::process::ExitCode;

use anyhow::{Context as _, bail, ensure};
use sea_orm::sqlx::{self, Connection as _, PgConnection};

use crate::cases::{CASES, GATEWAY};
use crate::gateway;
use crate::processes::resident_mebibytes;
use crate::report::thousands;
use crate::service::Special;
use crate::stage::Stage;
use crate::tools::Tools;
use crate::wrk::Wrk;

/// The duration of one figure, in seconds.
const SLICE: u32 = 20;

/// The number of callers that wait for a response at any time.
const CONNECTIONS: u32 = 32;

/// The minimum work of the last third, as a part of the first third's.
const KEPT_PACE: f64 = 0.9;

/// The maximum size of the process at the end, as a multiple of that after a third of the time.
const GROWTH: f64 = 1.33;

pub struct Soak<'a> {
    pub stage: &'a Stage,
    pub tools: &'a Tools,
    pub minutes: u32,
}

/// One slice of the time.
#[derive(Clone, Copy)]
struct Slice {
    per_second: f64,
    mebibytes: f64,
}

impl Soak<'_> {
    pub async fn run(&self) -> anyhow::Result<ExitCode> {
        let case = CASES.iter().find(|case| case.name == GATEWAY).context("the case of the soak")?;
        let upstream = gateway::upstream();
        let openai_url = upstream.openai_url();
        let service = self.stage.guest(Special { openai_url: Some(&openai_url), ..Special::default() }).await?;
        let process = service.process().context("the service has ended")?;
        let folder = self.stage.folder();
        let wrk = Wrk { tools: self.tools, tokens: &self.stage.tokens, urls: vec![service.url()], folder };
        wrk.warm_up(case, CONNECTIONS).await?;
        let mut slices = Vec::new();
        for slice in 0..(self.minutes * 60).div_ceil(SLICE).max(3) {
            let driven = wrk.measure(case, CONNECTIONS, SLICE).await?;
            let errors = driven.errors.sum();
            ensure!(errors == 0, "{errors} calls had no good answer: {}", service.last_words());
            let mebibytes = resident_mebibytes(process).context("the memory of the service")?;
            let (seconds, p99) = ((slice + 1) * SLICE, driven.p99);
            eprintln!("  {seconds} s: {}/s, p99 {p99:.1?}, {mebibytes:.0} MiB", thousands(driven.per_second));
            slices.push(Slice { per_second: driven.per_second, mebibytes });
        }
        service.stop().await?;
        self.balance().await?;
        judged(&slices)
    }

    /// The books have no findings, and nothing is reserved any more.
    async fn balance(&self) -> anyhow::Result<()> {
        let mut owner = PgConnection::connect(self.stage.owner.as_str()).await?;
        let held: i64 = sqlx::query_scalar("SELECT count(*) FROM usage_reservations WHERE status = 'pending'")
            .fetch_one(&mut owner)
            .await?;
        let calls: i64 = sqlx::query_scalar("SELECT count(*) FROM ai_usage_logs").fetch_one(&mut owner).await?;
        let found: i64 = sqlx::query_scalar("SELECT count(*) FROM integrity_findings()").fetch_one(&mut owner).await?;
        ensure!(held == 0 && found == 0, "{held} calls are still held, and {found} findings are in the books");
        println!("{calls} calls, none held any more, nothing found in the books.");
        Ok(())
    }
}

fn judged(slices: &[Slice]) -> anyhow::Result<ExitCode> {
    let third = (slices.len() / 3).max(1);
    let count = f64::from(u32::try_from(third)?);
    let pace = |slices: &[Slice]| slices.iter().map(|slice| slice.per_second).sum::<f64>() / count;
    let first = slices.get(..third).context("the first third")?;
    let last = slices.get(slices.len() - third..).context("the last third")?;
    let (begun, ended) = (pace(first), pace(last));
    let size = |slices: &[Slice]| slices.last().map_or(0.0, |slice| slice.mebibytes);
    let (small, large) = (size(first), size(last));
    println!(
        "The first third did {}/s, the last {}/s; {small:.0} MiB after the first, {large:.0} MiB at the end.",
        thousands(begun),
        thousands(ended)
    );
    if ended < begun * KEPT_PACE {
        bail!("it got slower");
    }
    if large > small * GROWTH {
        bail!("it grew");
    }
    Ok(ExitCode::SUCCESS)
}
