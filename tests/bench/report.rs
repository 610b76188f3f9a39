//! The table, for the terminal and for docs/BENCHMARKS.md.

use std::fmt::Write as _;
use std::time::Duration;

use crate::arguments::Arguments;
use crate::processes::Usage;

/// One measurement, of a case or of a yardstick.
pub struct Row {
    pub name: &'static str,
    /// Or clients.
    pub connections: u32,
    /// Requests, or transactions.
    pub per_second: f64,
    pub median: Duration,
    pub p99: Duration,
    pub errors: u64,
    pub usage: Usage,
    /// Of the service; a yardstick goes past it.
    pub resident_mebibytes: Option<f64>,
    /// By how much the case does better than the best of its yardstick, in the same run.
    pub ratio: Option<f64>,
}

const HEADS: [&str; 11] = [
    "case",
    "connections",
    "requests/s",
    "p50 ms",
    "p99 ms",
    "errors",
    "app CPU %",
    "load CPU %",
    "Postgres CPU %",
    "app MiB",
    "x yardstick",
];

/// In Markdown, and aligned so that it reads on a terminal.
pub fn table(rows: &[Row]) -> String {
    let mut lines = vec![HEADS.map(str::to_owned).to_vec()];
    lines.extend(rows.iter().map(cells));
    let widths: Vec<usize> = (0..HEADS.len())
        .map(|column| {
            lines.iter().filter_map(|line| line.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0)
        })
        .collect();
    let rule: Vec<String> = widths.iter().enumerate().map(|(column, width)| ruled(column, *width)).collect();
    lines.insert(1, rule);
    let mut text = String::new();
    for line in &lines {
        let padded = line.iter().zip(&widths).enumerate().map(|(column, (cell, width))| match column {
            0 => format!("{cell:<width$}"),
            _ => format!("{cell:>width$}"),
        });
        // Writing to a String cannot fail.
        let _ = writeln!(text, "| {} |", padded.collect::<Vec<_>>().join(" | "));
    }
    text
}

fn ruled(column: usize, width: usize) -> String {
    if column == 0 { "-".repeat(width) } else { format!("{}:", "-".repeat(width.saturating_sub(1))) }
}

fn cells(row: &Row) -> Vec<String> {
    let percent = |share: Option<f64>| known(share.map(|share| share * 100.0), 0);
    vec![
        row.name.to_owned(),
        row.connections.to_string(),
        thousands(row.per_second),
        milliseconds(row.median),
        milliseconds(row.p99),
        row.errors.to_string(),
        percent(row.usage.service),
        percent(row.usage.load),
        percent(row.usage.postgres),
        known(row.resident_mebibytes, 0),
        known(row.ratio, 2),
    ]
}

fn known(number: Option<f64>, decimals: usize) -> String {
    number.map_or_else(|| "-".to_owned(), |number| format!("{number:.decimals$}"))
}

fn milliseconds(duration: Duration) -> String {
    format!("{:.2}", duration.as_secs_f64() * 1_000.0)
}

/// 12345.6 as 12,346.
pub fn thousands(number: f64) -> String {
    let digits = format!("{number:.0}");
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// The whole page. `when` is the date of the run.
pub fn page(arguments: &Arguments, when: &str, machine: &[(&str, String)], rows: &[Row]) -> String {
    let Arguments { users, seconds, .. } = arguments;
    let machine: Vec<String> = machine.iter().map(|(name, what)| format!("- {name}: {what}")).collect();
    let machine = machine.join("\n");
    let table = table(rows);
    format!(
        "<!-- Written by `make bench`. Do not edit: what is said here stands in tests/bench/report.rs. -->\n\
         # Benchmarks\n\n\
         What the service does a second, beside what Postgres alone does with the same work in the same run. Everything\n\
         (service, Postgres, load) shares one machine, so the figures are comparable with one another and with another\n\
         run on the same machine, not with those of a cluster.\n\n\
         ## Run of {when}\n\n\
         {machine}\n- Users: {users}; a measurement takes {seconds} s\n\n\
         {table}\n\
         ## How it is measured\n\n\
         ```\n\
         make bench                                  # 100,000 users, 5 s a measurement\n\
         BENCH_USERS=5000 BENCH_SECONDS=2 make bench # shorter, and less to be relied on\n\
         BENCH_ONLY=check make bench                 # cases with this in their name; nothing is written\n\
         ```\n\n\
         {METHOD}"
    )
}

const METHOD: &str = "\
- Postgres is a private cluster of this run with the settings of `make run`: fsync is on. `tests/bench/population.sql`
  makes the users: 80 % on the free plan, 15 % on gold, 5 % on platinum, with subscriptions, counters and overrides.
- The service is the release build as a process of its own, logged in as `app_user`, with its default settings but for
  `log.filter=warn` and without rate limits.
- Load: `wrk --threads 2 --connections N --duration S` with the Lua script of the case (`tests/bench/cases.rs`), whose
  callers show a token of a random user out of so many, or out of all. A second of warm-up comes first, in which every
  answer must be of 2xx; an error in a measurement makes the run fail.
- Yardstick: `pgbench --protocol=prepared --client=N --jobs=2 --time=S`, one statement a transaction
  (`tests/bench/yardsticks/`), by the owner of the tables, so without row-level security. Measured before and after the
  cases, its first second left out; each row shows the better of the two, and the ratio is to the best row. A request
  that brings a batch counts as its items in the ratio.
- 100 % CPU is one processor. `load` is wrk or pgbench. `app MiB` is resident memory at the end of the measurement.
";
