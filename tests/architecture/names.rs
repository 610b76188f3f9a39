//! Names: a public type has one name in the whole workspace, and that name describes it. The lists of exceptions only
//! shrink.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use super::{hold, read, root, sources};

/// Words without a meaning in this field. No identifier may be one of them.
const RIDDLES: [&str; 8] = ["whoever", "nobody", "somebody", "spoken", "hearing", "vouch", "wary", "knock"];

/// Names of public types that are defined in two places, each in its own room.
const DEFINED_TWICE: &[&str] = &[];

/// Public types whose name is a single bare word.
const BARE_WORDS: &[&str] = &[
    "Access",
    "Admission",
    "Allowance",
    "Breaker",
    "Call",
    "Caller",
    "Change",
    "Cli",
    "Clock",
    "Coalescer",
    "Consistency",
    "Consumption",
    "Conversation",
    "Cors",
    "Cost",
    "Count",
    "Credential",
    "Currency",
    "Decision",
    "Delivery",
    "Dialect",
    "Email",
    "Entitlement",
    "Environment",
    "Fault",
    "Feature",
    "Geo",
    "Hold",
    "Locked",
    "Meter",
    "Overage",
    "Page",
    "Period",
    "Permission",
    "Plan",
    "Price",
    "Problem",
    "Randomness",
    "Readiness",
    "Reason",
    "Refusal",
    "Refused",
    "Role",
    "Scope",
    "Script",
    "Services",
    "Session",
    "Settings",
    "Snapshot",
    "Source",
    "Speaker",
    "Stopping",
    "Store",
    "Subscription",
    "Tier",
    "Transcript",
    "Upstream",
    "User",
    "Why",
];

#[test]
fn a_public_type_is_defined_once() {
    let mut places: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (name, file) in public_types() {
        places.entry(name).or_default().insert(file);
    }
    let twice: BTreeMap<_, _> = places.into_iter().filter(|(_, files)| files.len() > 1).collect();
    let strange = twice.iter().filter(|(name, _)| !DEFINED_TWICE.contains(&name.as_str()));
    let stale = DEFINED_TWICE.iter().filter(|name| !twice.contains_key(**name));
    let broken = strange
        .map(|(name, files)| format!("{name} is defined in {files:?}"))
        .chain(stale.map(|name| format!("{name} is defined once by now: take it off DEFINED_TWICE")));
    hold("a public type name is defined once", &broken.collect::<Vec<_>>());
}

#[test]
fn a_public_type_has_its_room_in_its_name() {
    let bare: BTreeSet<String> =
        public_types().into_iter().map(|(name, _)| name).filter(|name| is_bare(name)).collect();
    let strange = bare.iter().filter(|name| !BARE_WORDS.contains(&name.as_str()));
    let stale = BARE_WORDS.iter().filter(|name| !bare.contains(**name));
    let broken = strange
        .map(|name| format!("{name} is one bare word: add what it is of"))
        .chain(stale.map(|name| format!("{name} is gone: take it off BARE_WORDS")));
    hold("no public type is one bare word", &broken.collect::<Vec<_>>());
}

#[test]
fn no_identifier_is_a_riddle() {
    let mut broken = Vec::new();
    for file in sources().iter().filter(|file| file.as_str() != "tests/architecture/names.rs") {
        let text = read(&root().join(file));
        let code = text.lines().enumerate().filter(|(_, line)| !line.trim_start().starts_with("//"));
        for (number, line) in code {
            // Quoted text is for readers and is not checked.
            let code: String = line.split('"').step_by(2).collect::<Vec<_>>().join(" ");
            let code = code.split("//").next().unwrap_or_default();
            let words = code.split(|character: char| !character.is_alphanumeric() && character != '_');
            for word in words.filter(|word| RIDDLES.contains(word)) {
                broken.push(format!("{file}:{} has the identifier `{word}`", number + 1));
            }
        }
    }
    hold("no identifier is a riddle (RIDDLES)", &broken);
}

/// The public types of our crates, except the `Model` of each entity, with their files.
fn public_types() -> Vec<(String, String)> {
    let mut types = Vec::new();
    let is_ours = |file: &&String| {
        let path = Path::new(file.as_str());
        file.contains("/src/") && !path.components().any(|part| part.as_os_str() == "entities")
    };
    for file in sources().iter().filter(is_ours) {
        let text = read(&root().join(file));
        let product = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
        for line in product.lines().map(str::trim_start) {
            let Some(rest) = line.strip_prefix("pub ") else { continue };
            let mut words = rest.split_whitespace();
            if !matches!(words.next(), Some("struct" | "enum" | "trait" | "type")) {
                continue;
            }
            let declared = words.next().unwrap_or_default();
            let name: String = declared.chars().take_while(|character| character.is_alphanumeric()).collect();
            types.push((name, file.clone()));
        }
    }
    assert!(types.len() > 100, "the types were not found: {types:?}");
    types
}

fn is_bare(name: &str) -> bool {
    name.chars().filter(|character| character.is_uppercase()).count() == 1
}
