//! The goals: what the product should reach on one machine with its load and its database, and whether this run did. A
//! missed goal is recorded and does not make the run fail.

use std::time::Duration;

use crate::cases::{
    CHECK, CHECK_POSTED, CONSUME_BATCHES, CONSUME_EVERY, CONSUME_HOT, CONSUME_ONE_USER, CONSUME_SUPABASE, CONSUME_TWO,
    DIRECT, GATEWAY, GATEWAY_ONE_USER, PAIRS, PAIRS_ONE_USER,
};
use crate::gateway::{FIRST_TOKEN, FIRST_TOKEN_DIRECT, OPEN_STREAMS};
use crate::report::{Row, aligned, thousands};

struct Goal {
    figure: Figure,
    asked: Asked,
    aim: Option<f64>,
}

/// How a figure is computed from the rows.
enum Figure {
    /// Items of this case at this many connections, divided by the best of its yardstick.
    ToBest(&'static str, u32),
    /// The same divided by the row of this yardstick at as many clients.
    ToSame(&'static str, &'static str, u32),
    /// Items of the first case divided by those of the second.
    ToCase(&'static str, &'static str, u32),
    /// The median p99 of its runs, in milliseconds.
    P99(&'static str, u32),
    /// The maximum of all processes after all metering measurements, in MiB.
    Memory,
    /// The maximum of the gateway's process, with its open streams.
    GatewayMemory,
    /// Requests of this case at this many connections.
    PerSecond(&'static str, u32),
    /// The median of the first case minus that of the second, at one connection.
    Beyond(&'static str, &'static str),
}

#[derive(Clone, Copy)]
enum Asked {
    AtLeast(f64),
    AtMost(f64),
    Below(f64),
}

const fn goal(figure: Figure, asked: Asked, aim: Option<f64>) -> Goal {
    Goal { figure, asked, aim }
}

static GOALS: [Goal; 18] = [
    goal(Figure::ToBest(CONSUME_EVERY, 64), Asked::AtLeast(1.2), Some(1.5)),
    goal(Figure::ToBest(CONSUME_EVERY, 256), Asked::AtLeast(1.6), Some(2.5)),
    goal(Figure::ToBest(CONSUME_SUPABASE, 64), Asked::AtLeast(1.2), Some(1.5)),
    goal(Figure::ToBest(CONSUME_BATCHES, 16), Asked::AtLeast(2.0), Some(4.0)),
    goal(Figure::ToSame(CONSUME_ONE_USER, CONSUME_HOT.name, 64), Asked::AtLeast(5.0), Some(6.0)),
    goal(Figure::ToBest(CONSUME_ONE_USER, 64), Asked::AtLeast(3.0), None),
    goal(Figure::ToBest(CHECK, 64), Asked::AtLeast(1.5), Some(2.0)),
    goal(Figure::ToBest(CHECK_POSTED, 64), Asked::AtLeast(1.5), Some(2.0)),
    goal(Figure::ToBest(PAIRS, 64), Asked::AtLeast(1.0), None),
    goal(Figure::ToBest(PAIRS_ONE_USER, 64), Asked::AtLeast(1.0), None),
    goal(Figure::P99(CONSUME_EVERY, 64), Asked::AtMost(30.0), Some(20.0)),
    goal(Figure::ToCase(CONSUME_TWO, CONSUME_EVERY, 64), Asked::AtLeast(0.8), None),
    goal(Figure::Memory, Asked::Below(150.0), None),
    goal(Figure::PerSecond(GATEWAY, 32), Asked::AtLeast(2_000.0), Some(3_000.0)),
    goal(Figure::PerSecond(GATEWAY_ONE_USER, 32), Asked::AtLeast(500.0), None),
    goal(Figure::Beyond(GATEWAY, DIRECT), Asked::AtMost(3.0), Some(2.0)),
    goal(Figure::Beyond(FIRST_TOKEN, FIRST_TOKEN_DIRECT), Asked::AtMost(3.0), None),
    goal(Figure::GatewayMemory, Asked::Below(200.0), None),
];

/// A line for each goal whose rows exist; in a whole run they all do.
pub fn table(rows: &[Row]) -> String {
    let lines = GOALS.iter().filter_map(|goal| Some((goal, goal.figure.of(rows)?)));
    let lines: Vec<[String; 5]> = lines.map(|(goal, measured)| goal.line(measured)).collect();
    if lines.is_empty() { String::new() } else { aligned(["goal", "asked", "aim", "measured", "met"], lines) }
}

impl Goal {
    fn line(&self, measured: f64) -> [String; 5] {
        let bound = |asked: Asked| match asked {
            Asked::AtLeast(bound) => format!(">= {}", self.figure.written(bound)),
            Asked::AtMost(bound) => format!("<= {}", self.figure.written(bound)),
            Asked::Below(bound) => format!("< {}", self.figure.written(bound)),
        };
        let aim = self.aim.map(|aim| self.asked.with(aim));
        let met = match aim {
            _ if !self.asked.is_met_by(measured) => "no",
            Some(aim) if aim.is_met_by(measured) => "yes, and the aim",
            _ => "yes",
        };
        [
            self.figure.name(),
            bound(self.asked),
            aim.map_or_else(|| "-".to_owned(), bound),
            self.figure.written(measured),
            met.to_owned(),
        ]
    }
}

impl Asked {
    fn with(self, bound: f64) -> Self {
        match self {
            Self::AtLeast(_) => Self::AtLeast(bound),
            Self::AtMost(_) => Self::AtMost(bound),
            Self::Below(_) => Self::Below(bound),
        }
    }

    fn is_met_by(self, measured: f64) -> bool {
        match self {
            Self::AtLeast(bound) => measured >= bound,
            Self::AtMost(bound) => measured <= bound,
            Self::Below(bound) => measured < bound,
        }
    }
}

impl Figure {
    fn of(&self, rows: &[Row]) -> Option<f64> {
        let row =
            |name: &str, connections: u32| rows.iter().find(|row| row.name == name && row.connections == connections);
        match *self {
            Self::ToBest(case, connections) => row(case, connections)?.ratio,
            Self::ToSame(one, other, connections) | Self::ToCase(one, other, connections) => {
                Some(row(one, connections)?.items_per_second / row(other, connections)?.items_per_second)
            }
            Self::P99(case, connections) => Some(milliseconds(row(case, connections)?.median_p99())),
            Self::Memory => largest(rows.iter().filter(|row| !row.name.starts_with("gateway"))),
            Self::GatewayMemory => largest(rows.iter().filter(|row| row.name.starts_with("gateway"))),
            Self::PerSecond(case, connections) => Some(row(case, connections)?.per_second),
            Self::Beyond(case, other) => Some(milliseconds(row(case, 1)?.median) - milliseconds(row(other, 1)?.median)),
        }
    }

    fn name(&self) -> String {
        match self {
            Self::ToBest(case, connections) => format!("{case}, {connections} connections, to the best of pgbench"),
            Self::ToSame(case, _, connections) => {
                format!("{case}, {connections} connections, to pgbench with as many clients")
            }
            Self::ToCase(case, other, connections) => format!("{case}, {connections} connections, to {other}"),
            Self::P99(case, connections) => format!("{case}, {connections} connections, median p99"),
            Self::Memory => "resident memory of a process, at most".to_owned(),
            Self::GatewayMemory => format!("gateway, resident memory with {OPEN_STREAMS} open streams"),
            Self::PerSecond(case, connections) => format!("{case}, {connections} connections, requests/s"),
            Self::Beyond(case, other) => format!("{case}, one connection, p50 beyond {other}"),
        }
    }

    fn written(&self, number: f64) -> String {
        match self {
            Self::ToBest(..) | Self::ToSame(..) | Self::ToCase(..) => format!("{number:.2} x"),
            Self::P99(..) => format!("{number:.1} ms"),
            Self::Beyond(..) => format!("{number:.2} ms"),
            Self::Memory | Self::GatewayMemory => format!("{number:.0} MiB"),
            Self::PerSecond(..) => thousands(number),
        }
    }
}

fn largest<'a>(rows: impl Iterator<Item = &'a Row>) -> Option<f64> {
    rows.filter_map(|row| row.resident_mebibytes).reduce(f64::max)
}

fn milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1_000.0
}
