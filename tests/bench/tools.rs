//! The programs that make the load, and where they are.

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
    /// `Err` is the line that says what is missing, and how it gets here. `bin` is where Postgres's own programs are.
    pub async fn find(bin: &Path) -> Result<Self, String> {
        // `wrk -v` ends with a failure, and its version all the same.
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
