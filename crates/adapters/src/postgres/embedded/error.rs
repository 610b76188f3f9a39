//! Why the embedded cluster does not run: one line each, which says what to do.

use std::io;
use std::path::{Path, PathBuf};

/// Every message is one complete line for a terminal. Causes are part of the text, so none is chained.
#[derive(Debug, thiserror::Error)]
pub enum EmbeddedError {
    #[error(
        "No Postgres programs (initdb, postgres, pg_ctl) were found on this machine: type `make postgres` to install \
         them, or name their folder in PB__DATABASE__EMBEDDED__BIN, or a running database in PB__DATABASE__URL."
    )]
    NoPrograms,
    #[error("PB__DATABASE__EMBEDDED__BIN names {}, but initdb, postgres and pg_ctl are not all there.", bin.display())]
    NotProgrammed { bin: PathBuf },
    #[error("The Postgres in {} is version {major}, and {oldest} or newer is needed: type `make postgres` to install one.", bin.display())]
    TooOld { bin: PathBuf, major: u32, oldest: u32 },
    #[error(
        "The data in {} is of Postgres {cluster}, but the programs in {} are Postgres {programs}: install Postgres \
         {cluster} (or name its folder in PB__DATABASE__EMBEDDED__BIN), or move the data away to start with an empty database.",
        data.display(), bin.display()
    )]
    OtherMajor { data: PathBuf, cluster: String, programs: u32, bin: PathBuf },
    #[error(
        "Another Product Base{} already uses {}: stop it first, or name another folder in PB__DATABASE__EMBEDDED__DIR.",
        holder.map(|pid| format!(" (process {pid})")).unwrap_or_default(), folder.display()
    )]
    InUse { folder: PathBuf, holder: Option<u32> },
    #[error("{} cannot be used for the database: {cause}. Make it writable, or name another folder in PB__DATABASE__EMBEDDED__DIR.", path.display())]
    File { path: PathBuf, cause: io::Error },
    #[error("The user `{user}`, as which Postgres runs, cannot reach {}: open the folders above it (chmod o+x), or move it elsewhere.", path.display())]
    Unreachable { path: PathBuf, user: String },
    #[error(
        "There is no user `postgres` or `nobody` on this machine, and Postgres does not run as root: start the program as another user."
    )]
    NoAccount,
    #[error("{} could not be run: {cause}.", program.display())]
    Program { program: PathBuf, cause: io::Error },
    #[error("{} did not end within {seconds} seconds.", program.display())]
    ProgramSlow { program: PathBuf, seconds: u64 },
    #[error("The database cluster in {} could not be made: {tail}", folder.display())]
    Initdb { folder: PathBuf, tail: String },
    #[error("Postgres did not start: {tail} (the whole log is {})", log.display())]
    Start { log: PathBuf, tail: String },
    #[error("Postgres did not accept connections within {seconds} seconds: {tail} (the whole log is {})", log.display())]
    StartSlow { log: PathBuf, seconds: u64, tail: String },
    #[error("Postgres did not stop within {seconds} seconds: {tail}")]
    StopSlow { seconds: u64, tail: String },
    #[error(
        "The cluster's own password, kept in {}, is {what}: put it back, or move the folder away to start with an empty database.",
        path.display()
    )]
    Password { path: PathBuf, what: &'static str },
    #[error("The embedded Postgres refused a statement: {0}")]
    Statement(String),
}

impl EmbeddedError {
    /// For `map_err` on file operations.
    pub(super) fn file(path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |cause| Self::File { path, cause }
    }
}
