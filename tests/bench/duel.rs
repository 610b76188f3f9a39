//! The duel: two builds of the service on one database, in turns of two seconds, to compare a change of the hot path.
//! The speed of a machine varies over minutes, so one run of each proves little; adjacent turns are compared instead.
//!
//! Promise: each build is first in every other round, and the printed ratio is the median of all rounds.

use std::path::Path;
use std::process::ExitCode;

use anyhow::ensure;
use futures_util::future::try_join;

use crate::arguments::Arguments;
use crate::cases::{CASES, Case, House};
use crate::gateway;
use crate::report::{median, thousands};
use crate::service::{Service, Special};
use crate::stage::Stage;
use crate::tools::Tools;
use crate::warmth::introduce;
use crate::wrk::Wrk;

const ROUNDS: usize = 8;
const TURN_SECONDS: u32 = 2;

pub struct Duel<'a> {
    pub arguments: &'a Arguments,
    pub stage: &'a Stage,
    pub tools: &'a Tools,
    /// The other build of the service.
    pub against: &'a Path,
}

impl Duel<'_> {
    pub async fn run(&self) -> anyhow::Result<ExitCode> {
        let upstream = gateway::upstream();
        let openai_url = upstream.openai_url();
        let of = |program| Special { openai_url: Some(&openai_url), program, ..Special::default() };
        let (ours, theirs) = try_join(self.stage.guest(of(None)), self.stage.guest(of(Some(self.against)))).await?;
        introduce(&self.stage.tokens, ours.url()).await?;
        introduce(&self.stage.tokens, theirs.url()).await?;
        let wanted =
            |case: &&Case| self.arguments.wants(case.name) && matches!(case.house, House::One | House::Gateway);
        let mut is_any = false;
        println!(
            "| case | connections | this build, /s | the other, /s | this by the other | rounds |\n| - | -: | -: | -: | -: | - |"
        );
        for case in CASES.iter().filter(wanted) {
            for connections in case.connections {
                is_any = true;
                println!("{}", self.fight(case, *connections, &ours, &theirs).await?);
            }
        }
        ours.stop().await?;
        theirs.stop().await?;
        ensure!(is_any, "no case has that name");
        Ok(ExitCode::SUCCESS)
    }

    /// One row.
    async fn fight(&self, case: &Case, connections: u32, ours: &Service, theirs: &Service) -> anyhow::Result<String> {
        let (ours, theirs) = (self.wrk(ours), self.wrk(theirs));
        ours.warm_up(case, connections).await?;
        theirs.warm_up(case, connections).await?;
        let turn = async |wrk: &Wrk<'_>| {
            let driven = wrk.measure(case, connections, TURN_SECONDS).await?;
            ensure!(driven.errors.sum() == 0, "{}: {} requests had no good answer", case.name, driven.errors.sum());
            Ok(driven.items_per_second)
        };
        let (mut our_rates, mut their_rates, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
        for round in 0..ROUNDS {
            let (our_rate, their_rate) = if round % 2 == 0 {
                let our_rate = turn(&ours).await?;
                (our_rate, turn(&theirs).await?)
            } else {
                let their_rate = turn(&theirs).await?;
                (turn(&ours).await?, their_rate)
            };
            our_rates.push(our_rate);
            their_rates.push(their_rate);
            ratios.push(our_rate / their_rate);
        }
        let [ours, theirs, ratio] = [&mut our_rates, &mut their_rates, &mut ratios]
            .map(|figures| median(figures, f64::total_cmp).unwrap_or(f64::NAN));
        let [lower, upper] = [ROUNDS / 4, ROUNDS * 3 / 4].map(|place| ratios.get(place).copied().unwrap_or(f64::NAN));
        let (ours, theirs) = (thousands(ours), thousands(theirs));
        let name = case.name;
        Ok(format!(
            "| {name} | {connections} | {ours} | {theirs} | {ratio:.3} | half of them within {lower:.3} to {upper:.3} |"
        ))
    }

    fn wrk<'s>(&'s self, service: &'s Service) -> Wrk<'s> {
        let Stage { tokens, .. } = self.stage;
        Wrk { tools: self.tools, tokens, urls: vec![service.url()], folder: self.stage.folder() }
    }
}
