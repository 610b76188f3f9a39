//! The account of the Postgres programs: the current user, and never root.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use super::error::EmbeddedError;

/// The account that runs the server. `ids` is empty when it is the user who runs the program.
#[derive(Clone, Debug)]
pub struct SystemAccount {
    pub name: String,
    pub ids: Option<(u32, u32)>,
}

/// The result of a short-lived program.
pub struct FinishedProgram {
    pub succeeded: bool,
    pub output: String,
}

impl SystemAccount {
    fn ourselves() -> Self {
        Self { name: "yourself".to_owned(), ids: None }
    }

    /// The current user, or the owner of an existing cluster, or `postgres`, or `nobody`.
    pub fn choose(cluster: Option<&Path>) -> Result<Self, EmbeddedError> {
        if !is_root()? {
            return Ok(Self::ourselves());
        }
        let users = fs::read_to_string("/etc/passwd").map_err(EmbeddedError::file(Path::new("/etc/passwd")))?;
        if let Some(cluster) = cluster {
            let owner = fs::metadata(cluster).map_err(EmbeddedError::file(cluster))?;
            if owner.uid() != 0 {
                let name = name_of(&users, owner.uid()).unwrap_or_else(|| owner.uid().to_string());
                return Ok(Self { name, ids: Some((owner.uid(), owner.gid())) });
            }
        }
        let found = ["postgres", "nobody"]
            .into_iter()
            .find_map(|name| ids_of(&users, name).map(|ids| Self { name: name.to_owned(), ids: Some(ids) }));
        found.ok_or(EmbeddedError::NoAccount)
    }

    /// A command that runs as this account without our environment: the settings in it are secrets.
    pub fn command(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        command
            .env_clear()
            .env("PATH", "/usr/local/bin:/usr/bin:/bin")
            .env("LC_ALL", "C")
            .env("TZ", "UTC") // or initdb compares every time zone file with the clock
            .current_dir("/")
            .stdin(Stdio::null());
        if let Some((uid, gid)) = self.ids {
            command.uid(uid).gid(gid); // std also drops root's supplementary groups
        }
        command
    }

    /// Tests as that account, so that access lists and mounts count too.
    pub fn can_enter(&self, folder: &Path) -> bool {
        let mut shell = self.command(Path::new("/bin/sh"));
        shell.args(["-c", "cd -- \"$1\"", "sh"]).arg(folder);
        shell.stdout(Stdio::null()).stderr(Stdio::null());
        shell.status().is_ok_and(|status| status.success())
    }

    pub fn can_run(&self, program: &Path) -> bool {
        let mut shell = self.command(Path::new("/bin/sh"));
        shell.args(["-c", "test -x \"$1\"", "sh"]).arg(program);
        shell.status().is_ok_and(|status| status.success())
    }
}

/// Runs a program to its end. It is killed at the time limit or when the future is dropped.
pub async fn finish(command: Command, limit: Duration) -> Result<FinishedProgram, EmbeddedError> {
    let program = Path::new(command.get_program()).to_owned();
    let mut command = tokio::process::Command::from(command);
    command.kill_on_drop(true);
    let Ok(ended) = tokio::time::timeout(limit, command.output()).await else {
        return Err(EmbeddedError::ProgramSlow { program, seconds: limit.as_secs() });
    };
    let mut ended = ended.map_err(|cause| EmbeddedError::Program { program, cause })?;
    let _ = ended.stdout.write_all(&ended.stderr);
    Ok(FinishedProgram {
        succeeded: ended.status.success(),
        output: String::from_utf8_lossy(&ended.stdout).into_owned(),
    })
}

/// `id -u` gives the effective user on every platform; the standard library does not.
fn is_root() -> Result<bool, EmbeddedError> {
    let answer = Command::new("id").arg("-u").stdin(Stdio::null()).output();
    let answer = answer.map_err(|cause| EmbeddedError::Program { program: "id".into(), cause })?;
    Ok(answer.stdout.trim_ascii() == b"0")
}

fn ids_of(passwd: &str, name: &str) -> Option<(u32, u32)> {
    passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        (fields.next()? == name).then_some(())?;
        let uid = fields.nth(1)?.parse().ok()?;
        Some((uid, fields.next()?.parse().ok()?))
    })
}

fn name_of(passwd: &str, uid: u32) -> Option<String> {
    let uid = uid.to_string();
    passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)? == uid).then(|| name.to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::{ids_of, name_of};

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/bash\npostgres:x:101:104:a,,,:/var/lib:/bin/bash\nbroken\n";

    #[test]
    fn users_are_read_from_passwd() {
        assert_eq!(ids_of(PASSWD, "postgres"), Some((101, 104)));
        assert_eq!(ids_of(PASSWD, "nobody"), None);
        assert_eq!(name_of(PASSWD, 101).as_deref(), Some("postgres"));
        assert_eq!(name_of(PASSWD, 7), None);
    }
}
