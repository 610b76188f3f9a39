//! Tests of the SQL texts: what one file creates, the others must cover.

use std::collections::BTreeSet;

use crate::objects::{self, created};
use crate::replaceable::{GRANTS, POLICIES, TRIGGERS, sections};
use crate::step::PartKind;
use crate::steps::STEPS;

#[test]
fn every_step_drops_what_it_makes_and_nothing_else() {
    for step in STEPS {
        let made: BTreeSet<&str> = step.tables().into_iter().collect();
        let dropped: BTreeSet<&str> = created(step.down, "DROP TABLE public.", ";").into_iter().collect();
        assert_eq!(made, dropped, "{}", step.name);
        let dropping = step.down.replace("ON DELETE CASCADE", "");
        assert!(!dropping.contains("CASCADE"), "{} must not drop what others built on it", step.name);
    }
}

#[test]
fn steps_are_in_order_and_named_as_their_files() {
    let names = crate::names();
    assert!(names.is_sorted());
    for (position, name) in names.iter().enumerate() {
        let (day, rest) = name.split_at("m20261120".len());
        // The numbers rise; steps of branches that were merged late may leave gaps.
        let number: usize = rest.get(1..7).and_then(|number| number.parse().ok()).unwrap_or_default();
        assert!(day.starts_with('m') && number > position, "{name}");
    }
}

/// Steps up to this one were released before steps were divided into parts.
const RELEASED_WHOLE: &str = "m20261121_000013";

/// The tables of earlier steps that a text locks against writers: each statement names the table that it changes.
fn locked<'a>(sql: &'a str, own: &[&str]) -> BTreeSet<&'a str> {
    let mut tables = BTreeSet::new();
    for before in [
        "ALTER TABLE public.",
        "ALTER TABLE ONLY public.",
        "DROP TABLE public.",
        " ON public.",
        " ON ONLY public.",
        "UPDATE public.",
        "LOCK TABLE public.",
    ] {
        tables.extend(created(sql, before, ""));
    }
    tables.retain(|table| !own.contains(table));
    tables
}

#[test]
fn a_part_of_a_step_locks_one_table_that_rows_are_in() {
    for step in STEPS.iter().filter(|step| !step.name.starts_with(RELEASED_WHOLE) && step.name > RELEASED_WHOLE) {
        let own = step.tables();
        assert!(!step.down.contains("\n-- @ "), "{} is undone in one transaction", step.name);
        for part in step.parts().unwrap() {
            let locked = locked(part.sql, &own);
            assert!(locked.len() <= 1, "{}: {locked:?}: open the next one by a line `-- @ transaction`", step.name);
            let is_index = |statement: &str| {
                let words: Vec<&str> = statement.split_whitespace().collect();
                words.windows(2).any(|pair| pair == ["CREATE", "INDEX"])
                    || words.windows(3).any(|three| three == ["CREATE", "UNIQUE", "INDEX"])
            };
            let on_others =
                |statement: &str| !created(statement, " ON public.", "").iter().all(|table| own.contains(table));
            for statement in part.sql.split(';').filter(|statement| is_index(statement) && on_others(statement)) {
                assert_eq!(part.kind, PartKind::Concurrently, "{}: {statement}", step.name);
            }
            if part.kind == PartKind::Transaction {
                assert!(
                    !part.sql.contains("UPDATE public."),
                    "{}: rows are changed in a part `-- @ batches`",
                    step.name
                );
            }
        }
    }
}

#[test]
fn every_table_has_its_policies_and_its_rights() {
    let mut tables: BTreeSet<&str> = objects::tables().into_iter().collect();
    tables.insert(objects::RECORD);
    for (file, text) in [("policies", POLICIES), ("grants", GRANTS)] {
        let named: BTreeSet<&str> = sections(text).map(|(table, _)| table).collect();
        assert_eq!(named, tables, "{file}.sql");
        for (table, body) in sections(text) {
            assert!(body.contains("app_service"), "{file}.sql forgets the service on {table}");
        }
    }
}

#[test]
fn a_section_speaks_of_its_own_table_only() {
    for text in [POLICIES, GRANTS, TRIGGERS] {
        for (table, body) in sections(text) {
            for verb in ["ON public.", "ON TABLE public."] {
                for statement in body.split(';') {
                    let target = created(statement, verb, "").first().copied().unwrap_or(table);
                    assert_eq!(target, table, "{statement}");
                }
            }
        }
    }
}

#[test]
fn every_updated_at_is_kept_by_its_trigger() {
    let added = |table: &str| {
        let alterations = STEPS.iter().flat_map(|step| step.up.split("ALTER TABLE public.").skip(1));
        let mut own = alterations.filter_map(|text| text.split(';').next()).filter(|text| text.starts_with(table));
        own.any(|text| text.contains("ADD COLUMN updated_at "))
    };
    for step in STEPS {
        for definition in step.up.split("CREATE TABLE public.").skip(1) {
            let Some((table, body)) = definition.split_once(" (") else { continue };
            let columns = body.split("\n)").next().unwrap_or_default();
            let is_kept = columns.contains("\n    updated_at ") || added(&format!("{table}\n"));
            let trigger = format!("TRIGGER update_{table}_updated_at BEFORE UPDATE ON public.{table}");
            let hand_kept = table == "replaceable_checksums";
            assert_eq!(is_kept, TRIGGERS.contains(&trigger) && !hand_kept, "{table}");
        }
    }
}

#[test]
fn secrets_are_nobodys_but_the_services() {
    let secret = [
        "refresh_tokens",
        "signing_keys",
        "stripe_events",
        "ai_answers",
        "idempotency_keys",
        "idempotent_answers",
        "audit_logs",
        "outbox",
        "api_key_counters",
        "address_digests",
        "second_factors",
    ];
    for (table, body) in sections(GRANTS) {
        let for_users: Vec<&str> =
            body.lines().filter(|line| line.contains("authenticated") || line.contains("anon")).collect();
        if secret.contains(&table) {
            assert!(for_users.is_empty(), "{table}: {for_users:?}");
        }
        let granted_to_users = body.split(';').filter(|statement| statement.contains("TO authenticated"));
        for statement in granted_to_users {
            assert!(!statement.contains("key_hash") && !statement.contains("sealed_"), "{statement}");
        }
    }
}

#[test]
fn a_user_may_change_a_name_and_a_wallet_address_and_no_more() {
    let users = sections(GRANTS).find(|(table, _)| *table == "users").map(|(_, body)| body).unwrap_or_default();
    let writes: Vec<&str> =
        users.lines().filter(|line| line.contains("TO authenticated") && !line.contains("created_at")).collect();
    assert_eq!(writes, ["GRANT UPDATE (name, wallet_address) ON public.users TO authenticated;"]);
}

/// Definer functions, trigger functions and all PL/pgSQL set their own search path, with the temporary schema last.
/// Functions without one, so that they can be inlined, qualify their types, except those that the grammar names.
#[test]
fn no_function_takes_a_type_from_its_callers_path() {
    let texts = crate::replaceable::FUNCTIONS.iter().chain(&crate::replaceable::BUILTIN_FUNCTIONS);
    let of_the_grammar = ["bigint", "integer", "smallint", "numeric", "decimal", "varchar", "boolean", "timestamp"];
    for text in texts {
        for statement in text.split("CREATE OR REPLACE FUNCTION").skip(1) {
            let (head, rest) = statement.split_once("$$").unwrap_or((statement, ""));
            if head.contains("SET search_path = pg_catalog, pg_temp") {
                continue;
            }
            assert!(
                !head.contains("SECURITY DEFINER") && !head.contains("plpgsql") && !head.contains("trigger"),
                "{head}"
            );
            let body = rest.split("$$").next().unwrap_or_default();
            for cast in body.split("::").skip(1) {
                let end = cast.find(|c: char| !(c.is_ascii_lowercase() || c == '_' || c == '.')).unwrap_or(cast.len());
                let name = &cast[..end];
                assert!(name.starts_with("pg_catalog.") || of_the_grammar.contains(&name), "{head}: {name}");
            }
        }
    }
}

#[test]
fn nothing_that_runs_as_its_caller_names_the_schema_auth() {
    let invoker_texts = [crate::replaceable::VIEWS];
    for text in invoker_texts {
        let code = text.lines().filter(|line| !line.trim_start().starts_with("--"));
        assert!(code.into_iter().all(|line| !line.contains("auth.")));
    }
    for text in crate::replaceable::FUNCTIONS {
        for statement in text.split("CREATE OR REPLACE FUNCTION").skip(1) {
            let code: String = statement.lines().filter(|line| !line.trim_start().starts_with("--")).collect();
            assert!(!code.contains("auth.") || code.contains("SECURITY DEFINER"), "{statement}");
        }
    }
}

#[test]
fn the_api_may_be_awaited_on_any_thread() {
    fn is_send<T: Send>(_: &T) {}
    is_send(&crate::up(""));
    is_send(&crate::down("", None));
    is_send(&crate::fresh(""));
    is_send(&crate::seed(""));
    is_send(&crate::status(""));
    is_send(&crate::verify(""));
    is_send(&crate::ledger_line(""));
    is_send(&crate::compare_ledgers("", ""));
    is_send(&crate::repair(""));
    is_send(&crate::schema_sql(""));
}
