//! Creates the cluster.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, chown};
use std::path::Path;
use std::time::Duration;

use super::account::{SystemAccount, finish};
use super::error::EmbeddedError;
use super::files;
use super::home::ClusterFolder;
use super::log;
use super::programs::PostgresPrograms;

/// The superuser of the private cluster. It creates the database and the role that owns the schema.
pub const OWNER: &str = "postgres";
const INITDB_LIMIT: Duration = Duration::from_mins(1);

/// Appended once, so that an operator may change it; port and address are set on the command line at each start. Terse
/// errors without their statement, so that the log does not contain what users entered.
const CONFIGURATION: &str = "
# Product Base. These may be changed; the port and the listening address come from the program.
max_connections = 200
shared_buffers = 256MB
password_encryption = 'scram-sha-256'
timezone = 'UTC'
log_timezone = 'UTC'
log_checkpoints = off
log_error_verbosity = terse
log_min_error_statement = panic
";

/// The major version of an existing cluster, from its `PG_VERSION` file.
pub fn major_of(cluster: &Path) -> Option<String> {
    let version = fs::read_to_string(cluster.join("PG_VERSION")).ok()?;
    Some(version.trim().to_owned())
}

/// Creates the cluster if it does not exist, and returns the owner's password.
pub async fn ensure(
    home: &ClusterFolder,
    programs: &PostgresPrograms,
    is_ephemeral: bool,
) -> Result<String, EmbeddedError> {
    if major_of(&home.cluster()).is_some() {
        return files::kept_password(&home.folder, OWNER).ok_or_else(|| EmbeddedError::Password {
            path: files::password_file(&home.folder, OWNER),
            what: "missing",
        });
    }
    let password = files::new_password();
    files::write_private(&files::password_file(&home.folder, OWNER), &password)?;
    make(home, programs, &password, is_ephemeral).await?;
    Ok(password)
}

async fn make(
    home: &ClusterFolder,
    programs: &PostgresPrograms,
    password: &str,
    is_ephemeral: bool,
) -> Result<(), EmbeddedError> {
    let draft = home.folder.join("postgres.new");
    let password_copy = home.folder.join("initdb.password");
    remove_folder(&draft)?; // left by an interrupted run
    files::write_private(&password_copy, password)?;
    let prepared = prepare_for(&home.account, &draft, &password_copy);
    let made = match prepared {
        Ok(()) => initdb(home, programs, &draft, &password_copy, is_ephemeral).await,
        Err(cause) => Err(EmbeddedError::File { path: draft.clone(), cause }),
    };
    let _ = fs::remove_file(&password_copy);
    let kept = made.and_then(|()| {
        let configured = configure(&draft).and_then(|()| fs::rename(&draft, home.cluster()));
        configured.map_err(EmbeddedError::file(&draft))
    });
    if kept.is_err() {
        remove_folder(&draft)?;
    }
    kept
}

/// The server's user must own the folder and read the password once.
fn prepare_for(account: &SystemAccount, draft: &Path, password: &Path) -> io::Result<()> {
    DirBuilder::new().mode(0o700).create(draft)?;
    if let Some((uid, gid)) = account.ids {
        chown(draft, Some(uid), Some(gid))?;
        chown(password, Some(uid), Some(gid))?;
    }
    Ok(())
}

async fn initdb(
    home: &ClusterFolder,
    programs: &PostgresPrograms,
    draft: &Path,
    password: &Path,
    is_ephemeral: bool,
) -> Result<(), EmbeddedError> {
    let mut command = home.account.command(&programs.path("initdb"));
    command.arg("--pgdata").arg(draft).arg("--pwfile").arg(password);
    command.args(["--username", OWNER, "--auth", "scram-sha-256", "--data-checksums"]);
    command.args(["--encoding", "UTF8", "--locale", "C", "--no-instructions"]);
    if is_ephemeral {
        command.arg("--no-sync");
    }
    let ended = finish(command, INITDB_LIMIT).await?;
    if ended.succeeded {
        return Ok(());
    }
    Err(EmbeddedError::Initdb { folder: home.folder.clone(), tail: log::tail_of(&ended.output) })
}

fn configure(cluster: &Path) -> io::Result<()> {
    let mut file = OpenOptions::new().append(true).open(cluster.join("postgresql.conf"))?;
    file.write_all(CONFIGURATION.as_bytes())?;
    file.sync_all()
}

fn remove_folder(folder: &Path) -> Result<(), EmbeddedError> {
    match fs::remove_dir_all(folder) {
        Err(cause) if cause.kind() != io::ErrorKind::NotFound => {
            Err(EmbeddedError::File { path: folder.to_owned(), cause })
        }
        _ => Ok(()),
    }
}
