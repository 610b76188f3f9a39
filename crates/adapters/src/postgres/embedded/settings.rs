//! The operator's settings of the embedded cluster.

use std::path::PathBuf;
use std::process::{Command, Stdio};

/// Memory instead of a disk: cloning a database writes hundreds of small files, which takes 40 ms in memory but up to a
/// second on a busy disk.
const MEMORY: &str = "/dev/shm";

/// A container may have 64 MB there by default, too little for a cluster.
const MEMORY_KIB_MIN: u64 = 2 * 1024 * 1024;

/// The folder of the cluster and the programs that run it.
#[derive(Clone, Debug)]
pub struct EmbeddedSettings {
    /// The folder of the cluster; a relative path starts at the working directory.
    pub data_dir: PathBuf,
    /// The folder of `initdb`, `postgres` and `pg_ctl`; without it they are searched for.
    pub bin: Option<PathBuf>,
    /// The database to create and to serve.
    pub database: String,
    /// Data that may be lost: no fsync, and files that this run created are removed when it stops.
    pub ephemeral: bool,
}

impl EmbeddedSettings {
    /// A cluster for tests: transactions behave as usual, only a power failure loses data. The cluster is removed when
    /// it stops; `dir` itself stays and belongs to the caller.
    pub fn ephemeral(dir: impl Into<PathBuf>) -> Self {
        Self { data_dir: dir.into(), ephemeral: true, ..Self::default() }
    }
}

impl Default for EmbeddedSettings {
    fn default() -> Self {
        Self { data_dir: PathBuf::from(".data"), bin: None, database: "product_base".to_owned(), ephemeral: false }
    }
}

/// The best place for an ephemeral cluster: in memory if there is room, else among the temporary files.
pub fn place_for_ephemeral() -> PathBuf {
    if memory_is_roomy() { PathBuf::from(MEMORY) } else { std::env::temp_dir() }
}

/// Asks `df`, whose portable form has the free space in the fourth column of the second line.
fn memory_is_roomy() -> bool {
    let Ok(answer) = Command::new("df").args(["-Pk", MEMORY]).stderr(Stdio::null()).output() else { return false };
    let text = String::from_utf8_lossy(&answer.stdout);
    let free = text.lines().nth(1).and_then(|line| line.split_whitespace().nth(3)?.parse::<u64>().ok());
    answer.status.success() && free.is_some_and(|kib| kib >= MEMORY_KIB_MIN)
}
