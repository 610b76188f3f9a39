//! The command line of the run. `make bench` passes on `BENCH_USERS`, `BENCH_SECONDS` and `BENCH_ONLY`.

use std::ops::RangeInclusive;
use std::path::PathBuf;

use anyhow::{Context as _, bail};

const USERS: RangeInclusive<u32> = 1..=10_000_000;
const MINUTES: RangeInclusive<u32> = 1..=600;
const SECONDS: RangeInclusive<u32> = 1..=600;

#[derive(Clone, Debug)]
pub struct Arguments {
    /// The `dist` build of the service.
    pub service: PathBuf,
    /// The file for the table.
    pub report: PathBuf,
    pub users: u32,
    /// The duration of one measurement.
    pub seconds: u32,
    /// Only the cases with this in their name, while one of them is being improved. Nothing is written then.
    pub only: Option<String>,
    /// The duration of the soak test in minutes; it runs instead of everything else.
    pub soak_minutes: Option<u32>,
    /// Another build of the service, for the comparison in turns; it runs instead of everything else.
    pub against: Option<PathBuf>,
}

impl Arguments {
    /// From `--name value` pairs, in any order.
    pub fn parse(mut words: impl Iterator<Item = String>) -> anyhow::Result<Self> {
        let mut arguments = Self {
            service: PathBuf::from("target/dist/product-base"),
            report: PathBuf::from("docs/BENCHMARKS.md"),
            users: 100_000,
            seconds: 5,
            only: None,
            soak_minutes: None,
            against: None,
        };
        while let Some(name) = words.next() {
            let value = words.next().with_context(|| format!("{name} needs a value"))?;
            match name.as_str() {
                "--service" => arguments.service = PathBuf::from(value),
                "--report" => arguments.report = PathBuf::from(value),
                "--users" => arguments.users = number(&name, &value, USERS)?,
                "--seconds" => arguments.seconds = number(&name, &value, SECONDS)?,
                "--soak" => arguments.soak_minutes = Some(number(&name, &value, MINUTES)?),
                "--only" => arguments.only = Some(value).filter(|only| !only.is_empty()),
                "--against" => {
                    arguments.against =
                        Some(value).filter(|path| !path.is_empty()).map(std::path::absolute).transpose()?;
                }
                _ => bail!(
                    "{name} is unknown; there are --service, --report, --users, --seconds, --only, --soak and --against"
                ),
            }
        }
        arguments.service = std::path::absolute(&arguments.service)?;
        for program in [&arguments.service].into_iter().chain(&arguments.against) {
            if !program.is_file() {
                let program = program.display();
                bail!(
                    "{program} is not there: type `make bench`, or `cargo build --profile dist -p product-base` first"
                );
            }
        }
        Ok(arguments)
    }
}

impl Arguments {
    pub fn wants(&self, name: &str) -> bool {
        self.soak_minutes.is_none() && self.only.as_ref().is_none_or(|only| name.contains(only))
    }
}

fn number(name: &str, text: &str, within: RangeInclusive<u32>) -> anyhow::Result<u32> {
    let number = text.parse().ok().filter(|number| within.contains(number));
    number.with_context(|| format!("{name} is {text:?}; a number from {} to {} is meant", within.start(), within.end()))
}
