//! The programs that make the load, and their paths.

use std::path::{Path, PathBuf};

use tokio::process::Command;

use crate::processes::answer;

pub struct Tools {
    pub wrk: PathBuf,
    pub wrk_version: String,
    pub pgbench: PathBuf,
    pub pgbench_version: String,
}

impl Tools {
    /// `Err` is a line that names the missing program and how to install it. `bin` is the folder of Postgres's own
    /// programs.
    pub async fn find(bin: &Path) -> Result<Self, String> {
        // `wrk -v` fails, but prints its version.
        let wrk = PathBuf::from("wrk");
        let wrk_version = answer(Command::new(&wrk).arg("-v")).await;
        let wrk_version = wrk_version.ok_or("wrk is not on this machine (Debian: apt-get install wrk)")?;
        for pgbench in [bin.join("pgbench"), PathBuf::from("pgbench")] {
            if let Some(pgbench_version) = answer(Command::new(&pgbench).arg("--version")).await {
                return Ok(Self { wrk, wrk_version, pgbench, pgbench_version });
            }
        }
        Err("pgbench is not on this machine (Debian: apt-get install postgresql-contrib)".to_owned())
    }
}
