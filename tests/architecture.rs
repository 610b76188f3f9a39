//! The house rules of docs/ARCHITECTURE.md that a machine can check: imports, locations, and what may be written in one
//! place only. Lists of exceptions may only shrink: an exception that is not needed is a failure too.
//!
//! Clippy limits functions to 70 lines (`too_many_lines`, `.clippy.toml`), because it knows where they end.

#![expect(clippy::expect_used, clippy::indexing_slicing, reason = "a test that cannot go on fails")]

#[path = "architecture/names.rs"]
mod names;
#[path = "architecture/tables.rs"]
mod tables;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use cargo_metadata::{DependencyKind, Metadata, MetadataCommand, Package, PackageId};
use tables::{
    DOMAIN, FILE_LINES_MAX, HOUSES, IMPORTS, Imports, NO_ROOMS, NO_TLS_BUT_RING, NOT_UNDER_DOMAIN, ONE_PLACE, OWNERS,
    ROOMS_ABSENT, RoomAbsent, TESTS, TOP_LEVEL, TOP_LEVEL_OPTIONAL, WORDS_ALLOWED, WordAllowed,
};

#[test]
fn crates_import_what_the_table_allows() {
    let metadata = metadata();
    let mut broken = Vec::new();
    let ours: BTreeSet<&str> = metadata.workspace_packages().iter().map(|package| package.name.as_str()).collect();
    let known: BTreeSet<&str> = IMPORTS.iter().map(|row| row.package).chain([TESTS]).collect();
    if ours != known {
        broken.push(format!("the workspace has {ours:?}, tests/architecture/tables.rs {known:?}"));
    }
    for Imports { package, ours: allowed_ours, others } in IMPORTS {
        let imported = normal_dependencies(member(&metadata, package));
        let imported_ours: BTreeSet<&str> = imported.iter().copied().filter(|name| ours.contains(name)).collect();
        let allowed_ours: BTreeSet<&str> = allowed_ours.iter().copied().collect();
        if imported_ours != allowed_ours {
            broken.push(format!("{package} imports {imported_ours:?} of ours; the table says {allowed_ours:?}"));
        }
        for other in imported.iter().filter(|name| !ours.contains(*name)) {
            if others.is_some_and(|allowed| !allowed.contains(other)) {
                broken.push(format!("{package} imports {other}, which the table does not list for it"));
            }
            if let Some((_, owners)) = OWNERS.iter().find(|(names, _)| matches_any(names, other))
                && !owners.contains(&package)
            {
                broken.push(format!("{package} imports {other}, which only {owners:?} may"));
            }
        }
    }
    hold("who may import whom (docs/ARCHITECTURE.md)", &broken);
}

#[test]
fn the_rules_reach_no_runtime() {
    let metadata = metadata();
    let domain = member(&metadata, DOMAIN);
    let broken: Vec<String> = reached_from(&metadata, &domain.id)
        .into_iter()
        .filter(|name| matches_any(&NOT_UNDER_DOMAIN, name))
        .map(|name| format!("{DOMAIN} reaches {name}: see `cargo tree -p {DOMAIN} -e normal -i {name}`"))
        .collect();
    hold("domain is pure: another service can import it alone, without a runtime", &broken);
}

#[test]
fn tls_is_by_ring_only() {
    let metadata = metadata();
    let resolve = metadata.resolve.as_ref().expect("cargo metadata resolves");
    let mut found: BTreeSet<&str> = resolve.nodes.iter().map(|node| metadata[&node.id].name.as_str()).collect();
    // The lock file covers the other platforms too.
    let lock = read(&root().join("Cargo.lock"));
    found.extend(lock.lines().filter_map(|line| line.strip_prefix("name = \"")?.strip_suffix('"')));
    let broken: Vec<String> = found
        .into_iter()
        .filter(|name| NO_TLS_BUT_RING.contains(name))
        .map(|name| format!("{name} is in the dependency graph: see `cargo tree --target all -i {name}`"))
        .collect();
    hold("TLS is by ring only", &broken);
}

#[test]
fn every_package_inherits_the_lints() {
    let metadata = metadata();
    let broken: Vec<String> = metadata
        .workspace_packages()
        .iter()
        .filter(|package| !read(package.manifest_path.as_std_path()).contains("[lints]\nworkspace = true\n"))
        .map(|package| format!("{} lacks `[lints]` with `workspace = true`", package.manifest_path))
        .collect();
    hold("every package inherits [workspace.lints]", &broken);
}

#[test]
fn files_stay_short() {
    let broken: Vec<String> = sources()
        .iter()
        .map(|file| (file, read(&root().join(file)).lines().count()))
        .filter(|(_, lines)| *lines > FILE_LINES_MAX)
        .map(|(file, lines)| format!("{file} has {lines} lines, {FILE_LINES_MAX} are allowed: divide it by subject"))
        .collect();
    hold("files under 400 lines", &broken);
}

#[test]
fn some_words_stand_in_one_place() {
    let mut broken = Vec::new();
    let mut used = BTreeSet::new();
    for file in sources().iter().filter(|file| file.as_str() != "tests/architecture/tables.rs") {
        let text = read(&root().join(file));
        let code = text.lines().enumerate().filter(|(_, line)| !line.trim_start().starts_with("//"));
        for (number, line) in code {
            for (word, rule) in ONE_PLACE.into_iter().filter(|(word, _)| line.contains(word)) {
                if WORDS_ALLOWED.iter().any(|allowed| allowed.word == word && allowed.file == file) {
                    used.insert((word, file.clone()));
                } else {
                    broken.push(format!("{file}:{} says `{word}`: {rule}", number + 1));
                }
            }
        }
    }
    for WordAllowed { word, file, because } in WORDS_ALLOWED {
        if !used.contains(&(word, file.to_owned())) {
            broken.push(format!("{file} no longer says `{word}` ({because}): take it off the list"));
        }
    }
    hold("words that stand in one place only (ONE_PLACE, WORDS_ALLOWED)", &broken);
}

#[test]
fn rooms_are_named_for_what_is_in_them() {
    let mut broken = Vec::new();
    for file in sources() {
        let path = Path::new(&file);
        for part in path.with_extension("").iter().filter_map(|part| part.to_str()) {
            if NO_ROOMS.contains(&part) {
                broken.push(format!("{file}: `{part}` says nothing of what is in it"));
            }
        }
        if path.ends_with("mod.rs") && read(&root().join(path)).lines().any(declares_function) {
            broken.push(format!("{file} has a function: a mod.rs only lists its rooms"));
        }
    }
    hold("no room named utils, common, helpers or types; no logic in a mod.rs", &broken);
}

#[test]
fn the_same_word_names_a_room_in_every_crate() {
    let mut broken = Vec::new();
    let mut needed = BTreeSet::new();
    for room in rooms_of("crates/ports/src") {
        for house in HOUSES.into_iter().filter(|house| !rooms_of(house).contains(&room)) {
            if ROOMS_ABSENT.iter().any(|absent| absent.room == room && absent.from.contains(&house)) {
                needed.insert((room.clone(), house));
            } else {
                broken.push(format!("{house}/{room}.rs is missing: crates/ports/src/{room}.rs names the room"));
            }
        }
    }
    for RoomAbsent { room, from, because } in ROOMS_ABSENT {
        for house in from.iter().filter(|house| !needed.contains(&(room.to_owned(), **house))) {
            broken.push(format!("{room} is no longer absent from {house} ({because}): take it off ROOMS_ABSENT"));
        }
    }
    hold("the same word names a room in every crate", &broken);
}

#[test]
fn the_top_of_the_repository_holds_these_and_no_more() {
    let entries: BTreeSet<String> = names_in(&root()).into_iter().filter(|name| !name.starts_with('.')).collect();
    let missing = TOP_LEVEL.iter().filter(|name| !entries.contains(**name)).map(|name| format!("{name} is missing"));
    let strange = entries
        .iter()
        .filter(|name| !TOP_LEVEL.contains(&name.as_str()) && !TOP_LEVEL_OPTIONAL.contains(&name.as_str()))
        .map(|name| format!("{name} has no place there"));
    hold("the top of the repository", &missing.chain(strange).collect::<Vec<_>>());
}

#[track_caller]
fn hold(rule: &str, broken: &[String]) {
    assert!(broken.is_empty(), "the rule is broken: {rule}\n  {}\n", broken.join("\n  "));
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests/ stands in the repository").to_owned()
}

/// For this machine's platform only, because the crates of others need not be downloaded.
fn metadata() -> Metadata {
    MetadataCommand::new()
        .manifest_path(root().join("Cargo.toml"))
        .other_options(["--offline", "--locked", "--filter-platform", "host-tuple"].map(str::to_owned))
        .exec()
        .expect("cargo metadata knows the workspace")
}

fn member<'a>(metadata: &'a Metadata, name: &str) -> &'a Package {
    let packages = metadata.workspace_packages();
    packages.into_iter().find(|package| package.name.as_str() == name).unwrap_or_else(|| panic!("no package {name}"))
}

fn normal_dependencies(package: &Package) -> BTreeSet<&str> {
    let normal = package.dependencies.iter().filter(|dependency| dependency.kind == DependencyKind::Normal);
    normal.map(|dependency| dependency.name.as_str()).collect()
}

fn reached_from<'a>(metadata: &'a Metadata, start: &PackageId) -> BTreeSet<&'a str> {
    let resolve = metadata.resolve.as_ref().expect("cargo metadata resolves");
    let nodes: BTreeMap<&PackageId, _> = resolve.nodes.iter().map(|node| (&node.id, node)).collect();
    let mut waiting = vec![start];
    let mut reached = BTreeSet::new();
    while let Some(id) = waiting.pop() {
        let normal = nodes[id]
            .deps
            .iter()
            .filter(|dependency| dependency.dep_kinds.iter().any(|kind| kind.kind == DependencyKind::Normal));
        for dependency in normal {
            if reached.insert(metadata[&dependency.pkg].name.as_str()) {
                waiting.push(&dependency.pkg);
            }
        }
    }
    reached
}

fn matches_any(patterns: &[&str], name: &str) -> bool {
    patterns.iter().any(|pattern| pattern.strip_suffix('*').map_or(*pattern == name, |start| name.starts_with(start)))
}

/// The paths of all our Rust files, relative to the root of the repository.
fn sources() -> Vec<String> {
    let mut files = Vec::new();
    let mut waiting = ["crates", "migration", "tests"].map(PathBuf::from).to_vec();
    while let Some(folder) = waiting.pop() {
        for name in names_in(&root().join(&folder)) {
            let path = folder.join(&name);
            if root().join(&path).is_dir() {
                waiting.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                files.push(path.to_string_lossy().into_owned());
            }
        }
    }
    assert!(files.len() > 20, "the sources were not found: {files:?}");
    files.sort();
    files
}

fn rooms_of(folder: &str) -> BTreeSet<String> {
    let names = names_in(&root().join(folder)).into_iter();
    names.map(|name| name.trim_end_matches(".rs").to_owned()).filter(|name| name != "lib" && name != "mod").collect()
}

fn declares_function(line: &str) -> bool {
    let line = line.trim_start();
    !line.starts_with("//") && (line.starts_with("fn ") || line.contains(" fn "))
}

fn names_in(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    entries.map(|entry| entry.expect("a folder can be listed").file_name().to_string_lossy().into_owned()).collect()
}

fn read(file: &Path) -> String {
    fs::read_to_string(file).unwrap_or_else(|error| panic!("{}: {error}", file.display()))
}
