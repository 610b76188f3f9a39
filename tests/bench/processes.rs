//! Processes: what they used, by Linux's /proc (elsewhere nothing is known), and how a program is run to its end.

use std::fs;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use tokio::process::Command;

/// The unit of /proc's times, whatever the kernel's own tick is.
const TICK_MILLISECONDS: u64 = 10;

/// How often a family is looked at until none of it is in the middle of ending.
const LOOKS_MAX: u32 = 20;

/// How long a program that only answers a question may take.
const QUESTION_LIMIT: Duration = Duration::from_secs(10);

/// Processor time of one process.
#[derive(Clone, Copy)]
struct Times {
    own: Duration,
    /// Of its children that ended and were waited for.
    reaped: Duration,
}

/// Who takes part in a measurement.
pub struct Actors {
    /// None of them, where the load goes past the service.
    pub services: Vec<u32>,
    pub postmaster: Option<u32>,
}

/// A moment between whose readings a measurement lies.
pub struct Reading {
    at: Instant,
    service: Option<Duration>,
    postgres: Option<Duration>,
    load: Option<Duration>,
}

/// What each used in between, in processors: 1.0 is one of them all the time.
#[derive(Clone, Copy, Default)]
pub struct Usage {
    /// Of all its processes.
    pub service: Option<f64>,
    pub postgres: Option<f64>,
    /// The program that makes the load.
    pub load: Option<f64>,
}

impl Actors {
    pub fn read(&self) -> Reading {
        let of_services = self.services.iter().map(|process| times_of(*process).map(|times| times.own)).collect();
        Reading {
            at: Instant::now(),
            service: Option::<Vec<Duration>>::filter(of_services, |times| !times.is_empty())
                .map(|times| times.into_iter().sum()),
            postgres: self.postmaster.and_then(family),
            // No other child ends during a measurement than those that make the load.
            load: times_of(std::process::id()).map(|times| times.reaped),
        }
    }

    pub fn usage_since(&self, before: &Reading) -> Usage {
        let now = self.read();
        let elapsed = now.at.duration_since(before.at).as_secs_f64();
        let share = |now: Option<Duration>, before: Option<Duration>| {
            Some(now?.saturating_sub(before?).as_secs_f64() / elapsed)
        };
        Usage {
            service: share(now.service, before.service),
            postgres: share(now.postgres, before.postgres),
            load: share(now.load, before.load),
        }
    }
}

/// Memory of a process that is not swapped out, in MiB.
pub fn resident_mebibytes(process: u32) -> Option<f64> {
    let status = fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kibibytes: f64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kibibytes / 1024.0)
}

/// The program and its children: a server that gives each connection a process of its own.
fn family(head: u32) -> Option<Duration> {
    let mut before = times_of(head)?;
    // A child that is waited for between two looks would count twice or not at all: look again.
    for _ in 0..LOOKS_MAX {
        let everybody = fs::read_dir("/proc").ok()?.flatten();
        let everybody = everybody.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        let children = everybody.filter(|process| parent_of(*process) == Some(head)).filter_map(times_of);
        let living: Duration = children.map(|times| times.own + times.reaped).sum();
        let after = times_of(head)?;
        if after.reaped == before.reaped {
            return Some(after.own + after.reaped + living);
        }
        before = after;
    }
    None
}

fn times_of(process: u32) -> Option<Times> {
    let fields = stat(process)?;
    let mut times = fields.split(' ').skip(11).map(|field| field.parse::<u64>().ok());
    let mut next = || times.next().flatten().map(|ticks| Duration::from_millis(ticks * TICK_MILLISECONDS));
    Some(Times { own: next()? + next()?, reaped: next()? + next()? })
}

fn parent_of(process: u32) -> Option<u32> {
    stat(process)?.split(' ').nth(1)?.parse().ok()
}

/// The fields after the name, which may hold spaces and parentheses itself: state, parent, ..
fn stat(process: u32) -> Option<String> {
    let line = fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    Some(line.rsplit_once(") ")?.1.to_owned())
}

/// Runs a program to its end and answers what it printed. It is killed when it takes longer than `limit`.
pub async fn output(command: &mut Command, limit: Duration) -> anyhow::Result<String> {
    let name = command.as_std().get_program().display().to_string();
    let ended = command.stdin(Stdio::null()).kill_on_drop(true).output();
    let ended = tokio::time::timeout(limit, ended).await.with_context(|| format!("{name} took over {limit:?}"))?;
    let ended = ended.with_context(|| format!("{name} could not be run"))?;
    let printed = String::from_utf8_lossy(&[ended.stdout, ended.stderr].concat()).into_owned();
    if !ended.status.success() {
        bail!("{name} ended with {}: {}", ended.status, printed.trim_end());
    }
    Ok(printed)
}

/// The first line of what a program answers to a question, if it is there and answers, whatever its exit status.
pub async fn answer(command: &mut Command) -> Option<String> {
    let ended = command.stdin(Stdio::null()).kill_on_drop(true).output();
    let ended = tokio::time::timeout(QUESTION_LIMIT, ended).await.ok()?.ok()?;
    let text = String::from_utf8_lossy(&[ended.stdout, ended.stderr].concat()).into_owned();
    text.lines().map(str::trim).find(|line| !line.is_empty()).map(str::to_owned)
}
