//! The machine and the versions, without which the figures mean nothing.

use std::fs;
use std::path::Path;
use std::thread::available_parallelism;

use tokio::process::Command;

use crate::arguments::Arguments;
use crate::processes::answer;
use crate::stage::Stage;
use crate::tools::Tools;

/// Pairs of a name and its value.
pub async fn describe(arguments: &Arguments, stage: &Stage, tools: &Tools) -> Vec<(&'static str, String)> {
    let unknown = || "unknown".to_owned();
    let asked = async |program: &str, words: &[&str]| answer(Command::new(program).args(words)).await;
    let processors = available_parallelism().map_or_else(|_| unknown(), |count| count.to_string());
    let service = answer(Command::new(&arguments.service).arg("--version")).await;
    vec![
        ("Processors", format!("{processors} x {}", processor().unwrap_or_else(unknown))),
        ("Memory", memory().unwrap_or_else(unknown)),
        ("System", asked("uname", &["-srm"]).await.unwrap_or_else(unknown)),
        ("Disk of the database", file_system(&stage.data()).await.unwrap_or_else(unknown)),
        ("Service", format!("{}, commit {}", service.unwrap_or_else(unknown), commit().await.unwrap_or_else(unknown))),
        ("Compiler", asked("rustc", &["--version"]).await.unwrap_or_else(unknown)),
        ("Postgres", stage.postgres_version.clone()),
        ("wrk", tools.wrk_version.clone()),
        ("pgbench", tools.pgbench_version.clone()),
    ]
}

fn processor() -> Option<String> {
    let text = fs::read_to_string("/proc/cpuinfo").ok()?;
    let line = text.lines().find(|line| line.starts_with("model name"))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

fn memory() -> Option<String> {
    let text = fs::read_to_string("/proc/meminfo").ok()?;
    let kibibytes: u64 = text.lines().next()?.split_whitespace().nth(1)?.parse().ok()?;
    Some(format!("{} GiB", (kibibytes + (1 << 19)) >> 20))
}

/// The second line, second column of `df`: ext4 and tmpfs give different figures.
async fn file_system(folder: &Path) -> Option<String> {
    let listed = Command::new("df").args(["-PT"]).arg(folder).output().await.ok()?;
    let text = String::from_utf8_lossy(&listed.stdout).into_owned();
    text.lines().nth(1)?.split_whitespace().nth(1).map(str::to_owned)
}

/// The commit, with a note if there are uncommitted changes.
async fn commit() -> Option<String> {
    let commit = answer(Command::new("git").args(["rev-parse", "--short", "HEAD"])).await?;
    let changed = answer(Command::new("git").args(["status", "--porcelain", "--", "crates", "migration"])).await;
    Some(if changed.is_some() { format!("{commit} and changes") } else { commit })
}
