//! squawk over the steps: a complaint about a new step is an error, unless it is listed here.

use std::path::{Path, PathBuf};
use std::process::Command;

/// Rules that do not apply here: the runner sets the lock timeouts, identifiers are `varchar(n)` as in the seeds, and
/// the design uses 32-bit integers for small numbers.
const NOT_OURS: [&str; 7] = [
    "require-timeout-settings",
    "prefer-text-field",
    "prefer-robust-stmts",
    "prefer-bigint-over-int",
    "prefer-bigint-over-smallint",
    "prefer-identity",
    "ban-char-field",
];

/// Steps that were released before they were checked. Nothing is added here: the list only shrinks.
const RELEASED: [&str; 3] = ["000011", "000012", "000013"];

fn steps() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../migration/src/steps");
    let mut files: Vec<PathBuf> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|file| file.to_string_lossy().ends_with(".up.sql"));
    files.sort();
    files
}

fn number(file: &Path) -> String {
    file.file_name().unwrap().to_string_lossy().chars().take(6).collect()
}

/// The parts of a step, as the runner runs them: whether in a transaction, and the text.
fn parts(text: &str) -> Vec<(bool, String)> {
    let marked = format!("transaction\n{text}");
    let parts = marked.split("\n-- @ ").filter_map(|part| part.split_once('\n'));
    parts.map(|(kind, sql)| (kind.trim() != "concurrently", sql.to_owned())).collect()
}

/// The complaints of squawk about a step; empty if there are none.
fn complaints(file: &Path, scratch: &Path) -> String {
    let mut said = String::new();
    for (is_transaction, sql) in parts(&std::fs::read_to_string(file).unwrap()) {
        std::fs::write(scratch, sql).unwrap();
        let mut squawk = Command::new("squawk");
        squawk.args(["--pg-version", "15.0", "--exclude", &NOT_OURS.join(",")]);
        if is_transaction {
            squawk.arg("--assume-in-transaction");
        }
        let answer = squawk.arg(scratch).output().unwrap();
        if !answer.status.success() {
            said.push_str(&String::from_utf8_lossy(&answer.stdout));
            said.push_str(&String::from_utf8_lossy(&answer.stderr));
        }
    }
    said
}

#[test]
fn squawk_finds_nothing_in_a_new_step() {
    if Command::new("squawk").arg("--version").output().is_err() {
        return harness::skip(
            "the steps were not linted",
            "squawk is missing",
            "`pip install squawk-cli` installs it.",
        );
    }
    let folder = tempfile::tempdir().unwrap();
    let scratch = folder.path().join("part.sql");
    let mut wrong = Vec::new();
    for file in steps() {
        let (name, said) = (number(&file), complaints(&file, &scratch));
        match (RELEASED.contains(&name.as_str()), said.is_empty()) {
            (false, false) => wrong.push(format!("{name}: {said}")),
            (true, true) => wrong.push(format!("{name} is clean: take it off the list")),
            _ => {}
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
