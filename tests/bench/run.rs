//! One run: every yardstick, every case, every yardstick again.

use std::sync::OnceLock;
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use futures_util::future::try_join_all;

use crate::arguments::Arguments;
use crate::cases::{CASES, Case, House, YARDSTICKS, Yardstick};
use crate::gateway;
use crate::pgbench::Pgbench;
use crate::processes::{Actors, resident_mebibytes};
use crate::report::{Row, median, thousands};
use crate::service::{Gathered, Service, Special};
use crate::stage::Stage;
use crate::tools::Tools;
use crate::warmth::introduce;
use crate::wrk::{Tokens, Wrk};

pub struct Run<'a> {
    pub arguments: &'a Arguments,
    pub stage: &'a Stage,
    pub tools: &'a Tools,
    /// The best number of clients of each yardstick, once it is measured.
    pub best: OnceLock<Vec<(&'static Yardstick, u32)>>,
}

/// The number of measurements of a whole run.
pub fn measurements() -> u32 {
    let connections = |case: &Case| case.connections.iter().map(|connections| runs(case, *connections)).sum::<u32>();
    // Each repeated run is followed by its yardstick.
    let of_cases: u32 = CASES.iter().map(connections).sum::<u32>() * 2;
    let of_yardsticks: usize = YARDSTICKS.iter().map(|yardstick| 2 * yardstick.clients.len()).sum();
    of_cases + u32::try_from(of_yardsticks).unwrap_or(u32::MAX)
}

fn runs(case: &Case, connections: u32) -> u32 {
    case.repeated.iter().find(|(at, _)| *at == connections).map_or(1, |(_, runs)| *runs)
}

impl Run<'_> {
    /// The yardsticks are measured before and after, because the speed of a machine varies over minutes.
    pub async fn measure(&self) -> anyhow::Result<Vec<Row>> {
        let mut standards = self.yardsticks().await?;
        self.best.get_or_init(|| best_clients(&standards));
        let mut cases = Vec::new();
        for case in CASES.iter().filter(|case| self.arguments.wants(case.name) && !case.asks_models()) {
            cases.push((case, self.case(case).await?));
        }
        let asking: Vec<&'static Case> =
            CASES.iter().filter(|case| self.arguments.wants(case.name) && case.asks_models()).collect();
        let mut models = Vec::new();
        if !asking.is_empty() {
            models = self.gateway(&asking).await?;
        }
        for (kept, (yardstick, row)) in standards.iter_mut().zip(self.yardsticks().await?) {
            if row.per_second > kept.1.per_second {
                *kept = (yardstick, row);
            }
        }
        let mut rows = Vec::new();
        for (case, measured) in cases {
            let best = case.yardstick.and_then(|yardstick| best_of(&standards, yardstick));
            let to_best = |row: &Row| best.map(|best| row.items_per_second / best.per_second);
            rows.extend(measured.into_iter().map(|row| Row { ratio: row.ratio.or_else(|| to_best(&row)), ..row }));
        }
        rows.extend(models);
        rows.extend(standards.into_iter().map(|(_, row)| row));
        Ok(rows)
    }

    /// Model calls, through a separate service and without it.
    async fn gateway(&self, cases: &[&'static Case]) -> anyhow::Result<Vec<Row>> {
        let upstream = gateway::upstream();
        let openai_url = upstream.openai_url();
        let special = Special { openai_url: Some(&openai_url), ..Special::default() };
        let guest = self.stage.guest(special).await?;
        let direct = format!("http://{}", upstream.address());
        let mut rows = Vec::new();
        for case in cases {
            rows.extend(match case.house {
                House::Upstream => self.measured_at(case, &[], &[&direct], &self.stage.tokens).await?,
                _ => self.measured(case, &[&guest], &self.stage.tokens).await?,
            });
        }
        let watched = gateway::Watched { direct: &direct, service: &guest, tokens: &self.stage.tokens };
        rows.extend(watched.measure(&upstream).await?.into_iter().map(told));
        guest.stop().await?;
        Ok(rows)
    }

    async fn yardsticks(&self) -> anyhow::Result<Vec<(&'static Yardstick, Row)>> {
        let pgbench = self.pgbench();
        let actors = Actors { services: Vec::new(), postmaster: self.stage.postmaster };
        let mut rows = Vec::new();
        let wanted = |yardstick: &Yardstick| {
            let compared = |case: &Case| case.yardstick == Some(yardstick) && self.arguments.wants(case.name);
            CASES.iter().any(compared)
        };
        for yardstick in YARDSTICKS.into_iter().filter(|yardstick| wanted(yardstick)) {
            for clients in yardstick.clients {
                let before = actors.read();
                let measured = pgbench.measure(yardstick, *clients, self.arguments.seconds).await?;
                let row = Row {
                    name: yardstick.name,
                    connections: *clients,
                    per_second: measured.per_second,
                    items_per_second: measured.per_second,
                    median: measured.median,
                    p99: measured.p99,
                    p99_of_runs: vec![measured.p99],
                    errors: 0,
                    usage: actors.usage_since(&before),
                    resident_mebibytes: None,
                    batch: None,
                    ratio: None,
                };
                rows.push((yardstick, told(row)));
            }
        }
        Ok(rows)
    }

    /// The first service stays; a further one, or one that replaces it, is started for the case and stopped after it.
    async fn case(&self, case: &'static Case) -> anyhow::Result<Vec<Row>> {
        let (first, tokens) = (&self.stage.service, &self.stage.tokens);
        let is_foreign = matches!(case.house, House::Supabase | House::SupabaseUnseen);
        let supabase = self.stage.supabase.as_ref().filter(|_| is_foreign);
        if case.house == House::One {
            return self.measured(case, &[first], tokens).await;
        }
        let jwks_url = supabase.map(crate::supabase::Supabase::jwks_url);
        let special = Special { jwks_url: jwks_url.as_deref(), ..Special::default() };
        let guest = self.stage.guest(special).await?;
        match supabase {
            Some(supabase) if case.house == House::Supabase => introduce(&supabase.tokens, guest.url()).await?,
            Some(_) => {}
            None => introduce(tokens, guest.url()).await?,
        }
        let rows = match supabase {
            Some(supabase) => self.measured(case, &[&guest], &supabase.tokens).await?,
            None => self.measured(case, &[first, &guest], tokens).await?,
        };
        guest.stop().await?;
        Ok(rows)
    }

    async fn measured(&self, case: &'static Case, services: &[&Service], tokens: &Tokens) -> anyhow::Result<Vec<Row>> {
        let urls: Vec<&str> = services.iter().map(|service| service.url()).collect();
        self.measured_at(case, services, &urls, tokens).await
    }

    async fn measured_at(
        &self,
        case: &'static Case,
        services: &[&Service],
        urls: &[&str],
        tokens: &Tokens,
    ) -> anyhow::Result<Vec<Row>> {
        let wrk = Wrk { tools: self.tools, tokens, urls: urls.to_vec(), folder: self.stage.folder() };
        let mut rows = Vec::new();
        for connections in case.connections {
            let warmed_up = wrk.warm_up(case, *connections).await;
            warmed_up.map_err(|error| {
                let words: Vec<String> = services.iter().map(|service| service.last_words()).collect();
                anyhow!("{error:#}\nThe service's last words:\n{}", words.join("\n"))
            })?;
            let mut repeated = Vec::new();
            let runs = runs(case, *connections);
            for _ in 0..runs {
                let row = told(self.once(case, services, &wrk, *connections).await?);
                let ratio = if runs > 1 { self.beside(case, &row).await? } else { None };
                repeated.push(Row { ratio, ..row });
            }
            rows.push(middle(repeated).context("a case is run at least once")?);
        }
        Ok(rows)
    }

    fn pgbench(&self) -> Pgbench<'_> {
        let (users, folder) = (self.arguments.users, self.stage.folder());
        Pgbench { tools: self.tools, owner: &self.stage.owner, users, folder }
    }

    /// The ratio of a run to the yardstick directly after it, with that yardstick's best number of clients.
    async fn beside(&self, case: &Case, row: &Row) -> anyhow::Result<Option<f64>> {
        let best = self.best.get().into_iter().flatten();
        let Some((yardstick, clients)) = best.copied().find(|(yardstick, _)| case.yardstick == Some(yardstick)) else {
            return Ok(None);
        };
        let measured = self.pgbench().measure(yardstick, clients, self.arguments.seconds).await?;
        eprintln!("    beside it {} ({clients}): {}/s", yardstick.name, thousands(measured.per_second));
        Ok(Some(row.items_per_second / measured.per_second))
    }

    async fn once(
        &self,
        case: &'static Case,
        services: &[&Service],
        wrk: &Wrk<'_>,
        connections: u32,
    ) -> anyhow::Result<Row> {
        let processes: Vec<u32> = services.iter().filter_map(|service| service.process()).collect();
        let actors = Actors { services: processes.clone(), postmaster: self.stage.postmaster };
        let gathered_before = gathered(services).await?;
        let before = actors.read();
        let driven = wrk.measure(case, connections, self.arguments.seconds).await?;
        let usage = actors.usage_since(&before);
        let gathered = gathered(services).await?;
        let (batches, commands) =
            (gathered.batches - gathered_before.batches, gathered.commands - gathered_before.commands);
        Ok(Row {
            name: case.name,
            connections,
            per_second: driven.per_second,
            items_per_second: driven.items_per_second,
            median: driven.median,
            p99: driven.p99,
            p99_of_runs: vec![driven.p99],
            errors: driven.errors.sum(),
            usage,
            resident_mebibytes: processes.into_iter().filter_map(resident_mebibytes).reduce(f64::max),
            // A reservation or two may expire during any case.
            batch: (case.gathers() && batches > 0.0).then_some(commands / batches),
            ratio: None,
        })
    }
}

/// The best row of a yardstick, if it was measured.
fn best_of<'rows>(standards: &'rows [(&'static Yardstick, Row)], yardstick: &Yardstick) -> Option<&'rows Row> {
    let rows = standards.iter().filter(|(other, _)| *other == yardstick).map(|(_, row)| row);
    rows.max_by(|one, other| one.per_second.total_cmp(&other.per_second))
}

/// The best number of clients of each yardstick.
fn best_clients(standards: &[(&'static Yardstick, Row)]) -> Vec<(&'static Yardstick, u32)> {
    let best = |yardstick| best_of(standards, yardstick).map(|row| (yardstick, row.connections));
    YARDSTICKS.into_iter().filter_map(best).collect()
}

async fn gathered(services: &[&Service]) -> anyhow::Result<Gathered> {
    let all = try_join_all(services.iter().map(|service| service.gathered())).await?;
    let sum = |sum: Gathered, one: &Gathered| Gathered {
        batches: sum.batches + one.batches,
        commands: sum.commands + one.commands,
    };
    Ok(all.iter().fold(Gathered::default(), sum))
}

/// The median run, with the errors of all runs and the largest memory.
fn middle(mut runs: Vec<Row>) -> Option<Row> {
    let p99_of_runs: Vec<Duration> = runs.iter().map(|row| row.p99).collect();
    let mut ratios: Vec<f64> = runs.iter().filter_map(|row| row.ratio).collect();
    let ratio = median(&mut ratios, f64::total_cmp);
    let errors = runs.iter().map(|row| row.errors).sum();
    let resident_mebibytes = runs.iter().filter_map(|row| row.resident_mebibytes).reduce(f64::max);
    runs.sort_by(|one, other| one.per_second.total_cmp(&other.per_second));
    let middle = runs.len() / 2;
    let row = runs.into_iter().nth(middle)?;
    Some(Row { p99_of_runs, errors, resident_mebibytes, ratio, ..row })
}

/// Prints the figure on the terminal.
fn told(row: Row) -> Row {
    let errors = if row.errors > 0 { format!(", {} ERRORS", row.errors) } else { String::new() };
    eprintln!("  {} ({}): {}/s{errors}", row.name, row.connections, thousands(row.per_second));
    row
}
