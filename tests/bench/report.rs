//! The table, for the terminal and for docs/BENCHMARKS.md.

use std::cmp::Ordering;
use std::fmt::Write as _;
use std::time::Duration;

use crate::arguments::Arguments;
use crate::goals;
use crate::processes::Usage;

/// One measurement, of a case or of a yardstick.
pub struct Row {
    pub name: &'static str,
    /// Or clients.
    pub connections: u32,
    /// Requests, or transactions.
    pub per_second: f64,
    /// In units of one transaction (or script) of the yardstick.
    pub items_per_second: f64,
    pub median: Duration,
    pub p99: Duration,
    /// Of each run, if there were several: this row is the median run.
    pub p99_of_runs: Vec<Duration>,
    pub errors: u64,
    pub usage: Usage,
    /// Of the service, the larger process if there are two; `None` for a yardstick.
    pub resident_mebibytes: Option<f64>,
    /// The mean number of commands in a transaction of the service, for cases that are batched.
    pub batch: Option<f64>,
    /// The rate of the case divided by the best of its yardstick, in the same run.
    pub ratio: Option<f64>,
}

impl Row {
    pub fn median_p99(&self) -> Duration {
        median(&mut self.p99_of_runs.clone(), Duration::cmp).unwrap_or(self.p99)
    }
}

/// Leaves them sorted. `None` for an empty slice.
pub fn median<T: Copy>(figures: &mut [T], order: impl FnMut(&T, &T) -> Ordering) -> Option<T> {
    figures.sort_by(order);
    figures.get(figures.len() / 2).copied()
}

const HEADS: [&str; 13] = [
    "case",
    "connections",
    "requests/s",
    "items/s",
    "p50 ms",
    "p99 ms",
    "errors",
    "app CPU %",
    "load CPU %",
    "Postgres CPU %",
    "app MiB",
    "batch",
    "x yardstick",
];

pub fn table(rows: &[Row]) -> String {
    aligned(HEADS, rows.iter().map(cells).collect())
}

/// A line for each case that was run several times, ended by a newline.
pub fn notes(rows: &[Row]) -> String {
    let mut text = String::new();
    for row in rows.iter().filter(|row| row.p99_of_runs.len() > 1) {
        let (name, connections, median) = (row.name, row.connections, milliseconds(row.median_p99()));
        let runs: Vec<String> = row.p99_of_runs.iter().copied().map(milliseconds).collect();
        let (count, runs) = (runs.len(), runs.join(", "));
        // Writing to a String cannot fail.
        let _ = writeln!(
            text,
            "- p99 of {name} at {connections} connections: {median} ms, the median of {count} runs ({runs})"
        );
    }
    text
}

/// A Markdown table, aligned so that it is readable on a terminal too: the first column to the left, all others to the
/// right.
pub fn aligned<const COLUMNS: usize>(heads: [&str; COLUMNS], rows: Vec<[String; COLUMNS]>) -> String {
    let mut lines = vec![heads.map(str::to_owned)];
    lines.extend(rows);
    let widths: Vec<usize> = (0..COLUMNS)
        .map(|column| {
            lines.iter().filter_map(|line| line.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0)
        })
        .collect();
    let mut text = String::new();
    for (number, line) in lines.iter().enumerate() {
        let padded = line.iter().zip(&widths).enumerate().map(|(column, (cell, width))| match column {
            0 => format!("{cell:<width$}"),
            _ => format!("{cell:>width$}"),
        });
        // Writing to a String cannot fail.
        let _ = writeln!(text, "| {} |", padded.collect::<Vec<_>>().join(" | "));
        if number == 0 {
            let rule = widths.iter().enumerate().map(|(column, width)| ruled(column, *width));
            let _ = writeln!(text, "| {} |", rule.collect::<Vec<_>>().join(" | "));
        }
    }
    text
}

fn ruled(column: usize, width: usize) -> String {
    if column == 0 { "-".repeat(width) } else { format!("{}:", "-".repeat(width.saturating_sub(1))) }
}

fn cells(row: &Row) -> [String; HEADS.len()] {
    let percent = |share: Option<f64>| known(share.map(|share| share * 100.0), 0);
    [
        row.name.to_owned(),
        row.connections.to_string(),
        thousands(row.per_second),
        thousands(row.items_per_second),
        milliseconds(row.median),
        milliseconds(row.p99),
        row.errors.to_string(),
        percent(row.usage.service),
        percent(row.usage.load),
        percent(row.usage.postgres),
        known(row.resident_mebibytes, 0),
        known(row.batch, 1),
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
    let (table, notes, goals) = (table(rows), notes(rows), goals::table(rows));
    format!(
        "<!-- Written by `make bench`. Do not edit: what is said here stands in tests/bench/report.rs. -->\n\
         # Benchmarks\n\n\
         What the service does a second, beside what Postgres alone does with the same work in the same run. Everything\n\
         (service, Postgres, load) shares one machine, so the figures are comparable with one another and with another\n\
         run on the same machine, not with those of a cluster.\n\n\
         ## Run of {when}\n\n\
         {machine}\n- Users: {users}; a measurement takes {seconds} s\n\n\
         {table}\n\
         {notes}\n\
         ## Goals\n\n\
         What was asked for, by the rows above; the aim is what was hoped for. Missing one does not fail a run.\n\n\
         {goals}\n\
         ## How it is measured\n\n\
         ```\n\
         make bench                                  # 100,000 users, 5 s a measurement: eight minutes\n\
         BENCH_USERS=5000 BENCH_SECONDS=2 make bench # shorter, and less to be relied on\n\
         BENCH_ONLY=check make bench                 # cases with this in their name; nothing is written\n\
         ```\n\n\
         {METHOD}"
    )
}

const METHOD: &str = "\
- Postgres is a private cluster of this run with the settings of `make run`: fsync is on. `tests/bench/population.sql`
  makes the users: 80 % on the free plan, 15 % on gold, 5 % on platinum, with subscriptions, counters and overrides.
- The service is the `dist` build as a process of its own, logged in as `app_user`, with its default settings but for
  `log.filter=warn` and without rate limits.
- Load: `wrk --threads 2 --connections N --duration S` with the Lua script of the case (`tests/bench/cases.rs`), whose
  callers show a token of a random user out of so many, or out of all. A second of warm-up comes first, in which every
  answer must be of 2xx; an error in a measurement makes the run fail. Before all of it every user has asked one check, as
  in a service that has run for a while: who they are and what they may use is known, the counts are not. One connection is measured only where the time of
  a lone request is of interest.
- Yardstick: `pgbench --protocol=prepared --client=N --jobs=2 --time=S`, one statement a transaction
  (`tests/bench/yardsticks/`), by the owner of the tables, so without row-level security. Measured before and after the
  cases, its first second left out; each row shows the better of the two, and the ratio is to the best row.
- Where a case is run several times, the row is the run in the middle by its rate. The yardstick is run after each of them,
  with as many clients as it did best, and the ratio is that of the pair in the middle: a machine has better and worse
  minutes, and neighbours in time share them.
- An item is what the yardstick does in one go: a request that brings a batch of 100 is 100 items. A pair is a
  reservation and its settlement: two requests, counted by the answers to the second, are one item, and two transactions of one statement each are pgbench's.
- Two processes: each is on the same database and gets half of the 64 connections from a wrk of its own. The rates are
  added up, the percentiles are the worse of the two, the memory is the larger one's. Compared with the one process
  measured just before.
- ES256 tokens are signed as Supabase signs them, by a key that the run itself publishes, and shown to a process of its
  own. `unseen`: most are shown to it for the first time and pay for the check of a signature. Otherwise each was shown
  once before: what was found good is remembered for a minute.
- 100 % CPU is one processor. `load` is wrk or pgbench. `app MiB` is resident memory at the end of the measurement.
  `batch` is how many commands the service gathered in a transaction, in the mean, by its own metrics.
";
