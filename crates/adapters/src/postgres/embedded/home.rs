//! The folder of the cluster: the one that the setting names, or, when root runs the program and the server's user
//! cannot reach that folder, one below `/var/lib/product-base`.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _, chown};
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};

use super::account::SystemAccount;
use super::error::EmbeddedError;
use super::settings::EmbeddedSettings;

const FALLBACK: &str = "/var/lib/product-base";
const PRIVATE: u32 = 0o700;
/// Mode of root's folder that the server's group may traverse but not list.
const PASSABLE: u32 = 0o710;

/// The folders of one cluster, and the account that runs it.
#[derive(Clone, Debug)]
pub struct ClusterFolder {
    /// The folder of the setting: absolute, without links.
    pub data_dir: PathBuf,
    /// The folder that contains the cluster: the same, or one below `/var/lib/product-base`.
    pub folder: PathBuf,
    pub account: SystemAccount,
}

impl ClusterFolder {
    pub fn prepare(settings: &EmbeddedSettings, notices: &mut Vec<String>) -> Result<Self, EmbeddedError> {
        let data_dir = make_data_dir(&settings.data_dir)?;
        let fallback = fallback_of(&data_dir);
        let existing = [&data_dir, &fallback].into_iter().find(|folder| has_cluster(folder));
        let home = match existing {
            Some(folder) => Self::of_existing(data_dir.clone(), folder.clone())?,
            None => Self::of_new(data_dir, fallback)?,
        };
        if home.folder != home.data_dir {
            notices.push(format!(
                "The database lies in {}, because the user `{}`, as which Postgres runs, cannot reach {}.",
                home.folder.display(),
                home.account.name,
                home.data_dir.display()
            ));
        }
        Ok(home)
    }

    pub fn cluster(&self) -> PathBuf {
        self.folder.join("postgres")
    }

    pub fn log(&self) -> PathBuf {
        self.folder.join("postgres.log")
    }

    /// Whether the cluster is outside the folder of the setting.
    pub fn is_fallback(&self) -> bool {
        self.folder != self.data_dir
    }

    /// Existing data is not moved: starting elsewhere with an empty database would look like data loss.
    fn of_existing(data_dir: PathBuf, folder: PathBuf) -> Result<Self, EmbeddedError> {
        let cluster = folder.join("postgres");
        let account = SystemAccount::choose(Some(&cluster))?;
        if account.ids.is_some() && !account.can_enter(&cluster) {
            return Err(EmbeddedError::Unreachable { path: cluster, user: account.name });
        }
        Ok(Self { data_dir, folder, account })
    }

    fn of_new(data_dir: PathBuf, fallback: PathBuf) -> Result<Self, EmbeddedError> {
        let account = SystemAccount::choose(None)?;
        let reachable = match account.ids {
            None => true,
            Some((_, group)) => account.can_enter(&data_dir) || let_pass(&account, &data_dir, group)?,
        };
        let folder = if reachable { data_dir.clone() } else { fallback };
        if let (false, Some((_, group))) = (reachable, account.ids) {
            make_fallback(&folder, group).map_err(EmbeddedError::file(&folder))?;
        }
        Ok(Self { data_dir, folder, account })
    }
}

fn make_data_dir(named: &Path) -> Result<PathBuf, EmbeddedError> {
    let absolute = std::path::absolute(named).map_err(EmbeddedError::file(named))?;
    if let Some(parent) = absolute.parent() {
        fs::create_dir_all(parent).map_err(EmbeddedError::file(parent))?;
    }
    let made = DirBuilder::new().recursive(true).mode(PRIVATE).create(&absolute);
    made.map_err(EmbeddedError::file(&absolute))?;
    fs::canonicalize(&absolute).map_err(EmbeddedError::file(&absolute))
}

fn fallback_of(data_dir: &Path) -> PathBuf {
    let digest = Sha256::digest(data_dir.as_os_str().as_encoded_bytes());
    let mut name = hex::encode(digest);
    name.truncate(16);
    Path::new(FALLBACK).join(name)
}

fn has_cluster(folder: &Path) -> bool {
    folder.join("postgres/PG_VERSION").is_file()
}

/// Lets the server's group traverse a folder that root has closed, if that is all that is needed.
fn let_pass(account: &SystemAccount, folder: &Path, group: u32) -> Result<bool, EmbeddedError> {
    let before = fs::metadata(folder).map_err(EmbeddedError::file(folder))?;
    if before.uid() != 0 || before.mode() & 0o077 != 0 {
        return Ok(false);
    }
    open_to_group(folder, group).map_err(EmbeddedError::file(folder))?;
    if account.can_enter(folder) {
        return Ok(true);
    }
    let closed = chown(folder, None, Some(before.gid()))
        .and_then(|()| fs::set_permissions(folder, fs::Permissions::from_mode(PRIVATE)));
    closed.map_err(EmbeddedError::file(folder))?;
    Ok(false)
}

fn make_fallback(folder: &Path, group: u32) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o755).create(FALLBACK)?;
    DirBuilder::new().recursive(true).mode(PASSABLE).create(folder)?;
    open_to_group(folder, group)
}

fn open_to_group(folder: &Path, group: u32) -> io::Result<()> {
    chown(folder, None, Some(group))?;
    fs::set_permissions(folder, fs::Permissions::from_mode(PASSABLE))
}
