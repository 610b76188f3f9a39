//! The server's log: kept within two files of bounded size, and quoted when something fails.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};
use std::time::Duration;

const MAX_BYTES: u64 = 10 * 1024 * 1024;
const ROTATION_PERIOD: Duration = Duration::from_mins(1);
const TAIL_BYTES: u64 = 8 * 1024;
const TAIL_LINES: usize = 3;

/// Keeps the log within its size until it is aborted.
pub async fn keep_bounded(log: PathBuf) {
    let mut tick = tokio::time::interval(ROTATION_PERIOD);
    loop {
        tick.tick().await;
        let log = log.clone();
        let rotated = tokio::task::spawn_blocking(move || rotate(&log)).await;
        if let Ok(Err(error)) = rotated {
            tracing::warn!(%error, "the log of the embedded Postgres could not be rotated");
        }
    }
}

/// The server has the file open for appending, so it is copied and truncated, not moved.
fn rotate(log: &Path) -> io::Result<()> {
    if fs::metadata(log)?.len() <= MAX_BYTES {
        return Ok(());
    }
    let copied = fs::copy(log, log.with_extension("log.1"));
    OpenOptions::new().write(true).open(log)?.set_len(0)?; // also when the copy failed, above all on a full disk
    copied.map(|_| ())
}

pub fn length(log: &Path) -> u64 {
    fs::metadata(log).map_or(0, |log| log.len())
}

/// The end of what was written after `start`, on one line.
pub fn tail_since(log: &Path, start: u64) -> String {
    tail_of(&read_since(log, start).unwrap_or_default())
}

pub fn read_since(log: &Path, start: u64) -> io::Result<String> {
    let mut file = File::open(log)?;
    let end = file.metadata()?.len();
    file.seek(SeekFrom::Start(start.max(end.saturating_sub(TAIL_BYTES))))?;
    let mut text = Vec::new();
    file.take(TAIL_BYTES).read_to_end(&mut text)?;
    Ok(String::from_utf8_lossy(&text).into_owned())
}

/// The last failure line with the lines before it, or else the last lines, joined into one.
pub fn tail_of(text: &str) -> String {
    let mut lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    let tells = |line: &&str| ["FATAL:", "PANIC:", "error:"].iter().any(|word| line.contains(word));
    if let Some(last) = lines.iter().rposition(tells) {
        lines.truncate(last + 1);
    }
    let tail = lines.split_off(lines.len().saturating_sub(TAIL_LINES));
    if tail.is_empty() {
        return "it said nothing.".to_owned();
    }
    tail.join(" | ")
}

#[cfg(test)]
mod tests {
    use super::{MAX_BYTES, rotate, tail_of, tail_since};

    #[test]
    fn the_tail_ends_with_the_failure() {
        let said = "creating\n\ninitdb: error: could not write: No space left on device\ninitdb: removing contents\n";
        assert_eq!(tail_of(said), "creating | initdb: error: could not write: No space left on device");
        assert_eq!(tail_of("one\ntwo\n"), "one | two");
        assert_eq!(tail_of(""), "it said nothing.");
    }

    #[test]
    fn a_large_log_is_emptied_and_one_copy_kept() -> std::io::Result<()> {
        let folder = tempfile::tempdir()?;
        let log = folder.path().join("postgres.log");
        std::fs::write(&log, "small")?;
        rotate(&log)?;
        assert_eq!(tail_since(&log, 0), "small");
        std::fs::write(&log, "x".repeat(10 * 1024 * 1024 + 1))?;
        rotate(&log)?;
        assert_eq!(std::fs::metadata(&log)?.len(), 0);
        assert_eq!(std::fs::metadata(folder.path().join("postgres.log.1"))?.len(), MAX_BYTES + 1);
        Ok(())
    }
}
