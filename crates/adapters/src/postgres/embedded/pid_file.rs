//! `postmaster.pid`: the process that serves the cluster, if any.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

/// Fields written by the postmaster, by line: 1 process id, 2 data folder, 4 port, 8 state.
#[derive(Debug, PartialEq, Eq)]
pub struct PidFile {
    pub pid: u32,
    pub port: Option<u16>,
    pub is_ready: bool,
}

/// The process that has the id in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PidFileOwner {
    Postmaster,
    NoProcess,
    OtherProgram,
}

impl PidFile {
    pub fn read(cluster: &Path) -> Option<Self> {
        Self::parse(&fs::read_to_string(cluster.join("postmaster.pid")).ok()?)
    }

    fn parse(text: &str) -> Option<Self> {
        let lines: Vec<&str> = text.lines().map(str::trim).collect();
        Some(Self {
            pid: lines.first()?.parse().ok()?,
            port: lines.get(3).and_then(|port| port.parse().ok()),
            is_ready: lines.get(7).is_some_and(|state| *state == "ready"),
        })
    }

    /// A postmaster of this cluster names the folder in its arguments. The process id alone proves nothing: after a
    /// restart of the machine any program may have it.
    pub fn holder(&self, cluster: &Path) -> PidFileOwner {
        let Some(arguments) = arguments_of(self.pid) else {
            return PidFileOwner::NoProcess;
        };
        let names_cluster = arguments.iter().any(|argument| Path::new(argument) == cluster);
        let is_postgres = arguments.first().is_some_and(|program| Path::new(program).ends_with("postgres"));
        if names_cluster && is_postgres { PidFileOwner::Postmaster } else { PidFileOwner::OtherProgram }
    }
}

pub fn remove(cluster: &Path) -> std::io::Result<()> {
    match fs::remove_file(cluster.join("postmaster.pid")) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        done => done,
    }
}

/// The command line of a running process. Every user may read it, unlike its working directory.
fn arguments_of(pid: u32) -> Option<Vec<String>> {
    if Path::new("/proc/self/cmdline").exists() {
        let line = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
        let arguments = line.split(|byte| *byte == 0);
        return Some(arguments.map(|argument| String::from_utf8_lossy(argument).into_owned()).collect());
    }
    let mut ps = Command::new("ps");
    ps.args(["-ww", "-o", "args=", "-p", &pid.to_string()]).stdin(Stdio::null());
    let answer = ps.output().ok().filter(|answer| answer.status.success())?;
    let line = String::from_utf8_lossy(&answer.stdout).into_owned();
    Some(line.split_whitespace().map(str::to_owned).collect())
}

#[cfg(test)]
mod tests {
    use super::{PidFile, PidFileOwner};
    use std::path::Path;

    #[test]
    fn the_file_is_read_in_every_state() {
        let ready = PidFile::parse("42\n/d\n1700000000\n5433\n\n127.0.0.1\n  1 2\nready   \n");
        assert_eq!(ready, Some(PidFile { pid: 42, port: Some(5433), is_ready: true }));
        let early = PidFile::parse("42\n/d\n");
        assert_eq!(early, Some(PidFile { pid: 42, port: None, is_ready: false }));
        assert_eq!(PidFile::parse(""), None);
    }

    #[test]
    fn a_number_in_use_by_another_program_is_not_our_server() {
        let of = |pid| PidFile { pid, port: None, is_ready: true }.holder(Path::new("/some/cluster"));
        assert_eq!(of(std::process::id()), PidFileOwner::OtherProgram);
        assert_eq!(of(u32::MAX), PidFileOwner::NoProcess);
    }
}
