//! What the operator may say about the embedded cluster.

use std::path::PathBuf;

/// Where the cluster lies and which programs run it.
#[derive(Clone, Debug)]
pub struct EmbeddedSettings {
    /// The folder of the cluster; a relative one counts from the working directory.
    pub data_dir: PathBuf,
    /// The folder of `initdb`, `postgres` and `pg_ctl`; without it they are looked for.
    pub bin: Option<PathBuf>,
    /// The database to create and to serve.
    pub database: String,
    /// Data that may be lost: no fsync, and what this run made is removed when it stops.
    pub ephemeral: bool,
}

impl EmbeddedSettings {
    /// A cluster for tests: the semantics of transactions are the usual ones, only a power failure loses data.
    /// The cluster is removed when it stops; `dir` itself stays and belongs to the caller.
    pub fn ephemeral(dir: impl Into<PathBuf>) -> Self {
        Self { data_dir: dir.into(), ephemeral: true, ..Self::default() }
    }
}

impl Default for EmbeddedSettings {
    fn default() -> Self {
        Self { data_dir: PathBuf::from(".data"), bin: None, database: "product_base".to_owned(), ephemeral: false }
    }
}
