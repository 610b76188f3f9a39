//! Processes: their use of processors and memory from Linux's /proc (unknown on other systems), and running a program
//! to its end.

use std::fs;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use tokio::process::Command;

/// The unit of the times in /proc, independent of the kernel's own tick.
const TICK_MILLISECONDS: u64 = 10;

/// The number of tries to read a process with its children while none of them ends.
const LOOKS_MAX: u32 = 20;

/// The time limit for a program that only prints an answer.
const QUESTION_LIMIT: Duration = Duration::from_secs(10);

/// Processor time of one process.
#[derive(Clone, Copy)]
struct Times {
    own: Duration,
    /// Of its children that ended and were waited for.
    reaped: Duration,
}

/// The processes of a measurement.
pub struct Actors {
    /// Empty if the load does not go through the service.
    pub services: Vec<u32>,
    pub postmaster: Option<u32>,
}

/// The times at one moment; a measurement lies between two readings.
pub struct Reading {
    at: Instant,
    service: Option<Duration>,
    postgres: Option<Duration>,
    load: Option<Duration>,
}

/// Use between two readings, in processors: 1.0 is one of them all the time.
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
            // During a measurement, only children that make the load end.
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

/// Resident memory of a process, in MiB.
pub fn resident_mebibytes(process: u32) -> Option<f64> {
    let status = fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kibibytes: f64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kibibytes / 1024.0)
}

/// The processor time of a program and its children: a server with a process for each connection.
fn family(head: u32) -> Option<Duration> {
    let mut before = times_of(head)?;
    // A child that ends between two reads would count twice or not at all, so the read is repeated.
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

/// The fields after the name, which may contain spaces and parentheses itself: state, parent, ..
fn stat(process: u32) -> Option<String> {
    let line = fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    Some(line.rsplit_once(") ")?.1.to_owned())
}

/// Runs a program to its end and returns its output. It is killed when it takes longer than `limit`.
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

/// The first line of a program's output, if it exists and prints one, whatever its exit status.
pub async fn answer(command: &mut Command) -> Option<String> {
    let ended = command.stdin(Stdio::null()).kill_on_drop(true).output();
    let ended = tokio::time::timeout(QUESTION_LIMIT, ended).await.ok()?.ok()?;
    let text = String::from_utf8_lossy(&[ended.stdout, ended.stderr].concat()).into_owned();
    text.lines().map(str::trim).find(|line| !line.is_empty()).map(str::to_owned)
}
