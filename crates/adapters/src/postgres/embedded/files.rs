//! Small private files: passwords, the port, the lock.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, chown};
use std::path::{Path, PathBuf};

use rand::RngExt as _;

use super::error::EmbeddedError;

const PASSWORD_BYTES: usize = 24;

/// Locks the folder while it exists. The kernel releases the lock when the process ends, however it ends.
#[derive(Debug)]
pub struct FolderLock {
    _file: File,
}

impl FolderLock {
    pub fn take(folder: &Path) -> Result<Self, EmbeddedError> {
        let path = folder.join("lock");
        let mut file = private(&path, false)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut holder = String::new();
                let _ = file.read_to_string(&mut holder);
                return Err(EmbeddedError::InUse { folder: folder.to_owned(), holder: holder.trim().parse().ok() });
            }
            Err(TryLockError::Error(cause)) => return Err(EmbeddedError::File { path, cause }),
        }
        let note = file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id()));
        note.map_err(EmbeddedError::file(&path))?;
        Ok(Self { _file: file })
    }
}

/// A file that only its owner may read. Its owner is the folder's, also when root writes it.
pub fn private(path: &Path, append: bool) -> Result<File, EmbeddedError> {
    let mut options = OpenOptions::new();
    options.create(true).read(true).mode(0o600);
    if append {
        options.append(true);
    } else {
        options.write(true).truncate(false);
    }
    let file = options.open(path).map_err(EmbeddedError::file(path))?;
    if let Some(folder) = path.parent().and_then(|folder| fs::metadata(folder).ok()) {
        let _ = chown(path, Some(folder.uid()), None); // not needed, and refused, unless we are root
    }
    Ok(file)
}

/// A file with mode 0600, written beside its place and renamed: a full disk leaves the old file whole.
pub fn write_private(path: &Path, content: &str) -> Result<(), EmbeddedError> {
    let mut fresh = path.as_os_str().to_owned();
    fresh.push(".draft");
    let fresh = PathBuf::from(fresh);
    let mut file = private(&fresh, false)?;
    let written = file.set_len(0).and_then(|()| file.write_all(content.as_bytes()));
    let kept = written.and_then(|()| file.sync_all()).and_then(|()| fs::rename(&fresh, path));
    kept.map_err(EmbeddedError::file(path))
}

pub fn password_file(folder: &Path, role: &str) -> PathBuf {
    folder.join(format!("{role}.password"))
}

/// The stored password of a role, if there is one.
pub fn kept_password(folder: &Path, role: &str) -> Option<String> {
    let kept = fs::read_to_string(password_file(folder, role)).ok()?;
    let kept = kept.trim();
    (!kept.is_empty()).then(|| kept.to_owned())
}

pub fn new_password() -> String {
    hex::encode(rand::rng().random::<[u8; PASSWORD_BYTES]>())
}
