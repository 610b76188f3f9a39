//! The message that begins a transaction: BEGIN, and the settings for identity and time limits.
//!
//! It is sent with the simple protocol in one round trip and so has no parameters: it contains only UUIDs, numbers, and
//! the reason, which is quoted here. Every setting is local to the transaction (`true`), so that a pooled connection
//! never keeps an identity. A commit is durable whatever the database sets: `off` is raised to `on`.

use std::fmt::Write;

use ports::store::{Scope, StoreError};

/// Time limits of a transaction in milliseconds, enforced by Postgres.
#[derive(Clone, Copy, Debug)]
pub(super) struct Milliseconds {
    pub statement: u64,
    pub lock: u64,
    pub idle: u64,
}

/// A prepared statement keeps its first plan. A plan made on empty tables scans them sequentially, and would still do
/// so on millions of rows, so each counting statement is forced to use its indexes. The plan is generic: the planner
/// rates a plan for a short array as cheaper and would plan anew for every small batch, which takes longer than running
/// it.
const THROUGH_KEYS: &str = ", set_config('enable_seqscan', 'off', true), set_config('enable_hashjoin', 'off', true), \
    set_config('enable_mergejoin', 'off', true), set_config('plan_cache_mode', 'force_generic_plan', true)";

/// How long a batch shared by many users waits for a lock. Its own row locks skip locked rows; this bounds the other
/// waits: foreign keys, unique indexes, schema changes.
const BATCH_LOCK_MS: u64 = 200;
/// Where names are looked up, whatever the login or the database sets; temporary objects come last.
const SEARCH_PATH: &str = "public, pg_temp";

/// The role and plan cache mode of a counting session, by which it is recognized.
pub(super) const COUNTING_ROLE: &str = "app_service";
pub(super) const COUNTING_PLANS: &str = "force_generic_plan";

/// An acknowledged commit must survive a crash. Where the database, the login or the session sets `off`, a commit would
/// be acknowledged before it is on disk, so `off` is raised to `on`. Every other level waits at least for the local
/// disk; waiting for standbys is the operator's choice. `$local` is whether the setting ends with the transaction.
macro_rules! durable_commit {
    ($local:literal) => {
        concat!(
            "set_config('synchronous_commit', CASE current_setting('synchronous_commit') WHEN 'off' THEN 'on' ",
            "ELSE current_setting('synchronous_commit') END, ",
            $local,
            ")"
        )
    };
}

const DURABLE_COMMIT: &str = concat!(", ", durable_commit!("true"));

/// Run on a counting session before its first use: reads its role and plan cache mode, and makes its commits durable
/// for its lifetime, since the startup packet cannot raise a setting to a minimum.
pub(super) const COUNTING_CHECK: &str =
    concat!("SELECT current_setting('role'), current_setting('plan_cache_mode'), ", durable_commit!("false"));

/// The same settings for a session that only counts: sent in its startup packet, in force for its lifetime.
pub(super) fn session(limits: Milliseconds) -> [(&'static str, String); 14] {
    let Milliseconds { statement, lock, idle } = limits;
    let off = || String::from("off");
    [
        ("role", COUNTING_ROLE.into()),
        ("search_path", SEARCH_PATH.into()),
        ("request.jwt.claims", String::new()),
        ("request.jwt.claim.sub", String::new()),
        ("app.actor_id", String::new()),
        ("app.reason", String::new()),
        ("default_transaction_isolation", String::from("read committed")),
        ("statement_timeout", statement.to_string()),
        ("lock_timeout", lock.min(BATCH_LOCK_MS).to_string()),
        ("idle_in_transaction_session_timeout", idle.to_string()),
        ("enable_seqscan", off()),
        ("enable_hashjoin", off()),
        ("enable_mergejoin", off()),
        ("plan_cache_mode", COUNTING_PLANS.into()),
    ]
}

/// The whole message for one scope.
pub(super) fn opening(scope: &Scope, limits: Milliseconds) -> Result<String, StoreError> {
    let (role, subject, actor, reason) = match scope {
        Scope::User(user_id) => ("authenticated", user_id.to_string(), user_id.to_string(), String::from("''")),
        // The login may set no other role; without claims, the policies allow only the public catalogue.
        Scope::Anonymous => ("authenticated", String::new(), String::new(), String::from("''")),
        Scope::Counting | Scope::Reading => ("app_service", String::new(), String::new(), String::from("''")),
        Scope::Service { actor, reason } => (
            "app_service",
            String::new(),
            actor.map(|actor| actor.to_string()).unwrap_or_default(),
            quoted(reason.as_deref().unwrap_or_default())?,
        ),
    };
    let claims = match scope {
        Scope::User(_) => format!(r#"{{"sub":"{subject}","role":"authenticated"}}"#),
        _ => String::new(),
    };
    let Milliseconds { statement, lock, idle } = limits;
    let lock = if *scope == Scope::Counting { lock.min(BATCH_LOCK_MS) } else { lock };
    // READ COMMITTED is explicit: locks and advisory locks need each statement to see what was committed.
    let mut message = String::from("BEGIN ISOLATION LEVEL READ COMMITTED; SELECT ");
    for (name, value) in [
        ("role", format!("'{role}'")),
        ("search_path", format!("'{SEARCH_PATH}'")),
        ("request.jwt.claims", format!("'{claims}'")),
        // auth.uid() reads this setting first, so a value left in the session would win.
        ("request.jwt.claim.sub", format!("'{subject}'")),
        ("app.actor_id", format!("'{actor}'")),
        ("app.reason", reason),
        ("statement_timeout", format!("'{statement}'")),
        ("lock_timeout", format!("'{lock}'")),
    ] {
        write_setting(&mut message, name, &value);
        message.push_str(", ");
    }
    write_setting(&mut message, "idle_in_transaction_session_timeout", &format!("'{idle}'"));
    message.push_str(DURABLE_COMMIT);
    if matches!(scope, Scope::Counting | Scope::Reading) {
        message.push_str(THROUGH_KEYS);
    }
    Ok(message)
}

fn write_setting(message: &mut String, name: &str, value: &str) {
    // Writing to a String cannot fail.
    let _ = write!(message, "set_config('{name}', {value}, true)");
}

/// A text as an SQL literal. Quotes and backslashes are doubled in the E form, which does not depend on
/// `standard_conforming_strings`. U+0000 would end the message early, so it is refused.
fn quoted(text: &str) -> Result<String, StoreError> {
    if text.contains('\0') {
        return Err(StoreError::Unexpected("the reason of a change holds U+0000".into()));
    }
    Ok(format!("E'{}'", text.replace('\\', r"\\").replace('\'', "''")))
}

#[cfg(test)]
mod tests {
    use domain::users::UserId;
    use uuid::Uuid;

    use super::*;

    const LIMITS: Milliseconds = Milliseconds { statement: 2000, lock: 1000, idle: 5000 };

    #[test]
    fn a_reason_cannot_leave_its_quotes() {
        assert_eq!(quoted("it's").ok().as_deref(), Some("E'it''s'"));
        assert_eq!(quoted(r"\'; DROP TABLE users; --").ok().as_deref(), Some(r"E'\\''; DROP TABLE users; --'"));
        assert_eq!(quoted("解約 $$ \u{2019}").ok().as_deref(), Some("E'解約 $$ \u{2019}'"));
        assert!(quoted("a\0b").is_err());
    }

    #[test]
    fn a_user_is_authenticated_and_nothing_more() {
        let message = opening(&Scope::User(UserId(Uuid::nil())), LIMITS).unwrap();
        assert!(
            message
                .starts_with("BEGIN ISOLATION LEVEL READ COMMITTED; SELECT set_config('role', 'authenticated', true)")
        );
        assert!(message.contains(
            r#"set_config('request.jwt.claims', '{"sub":"00000000-0000-0000-0000-000000000000","role":"authenticated"}', true)"#
        ));
        assert!(message.contains("set_config('request.jwt.claim.sub', '00000000-0000-0000-0000-000000000000', true)"));
    }

    #[test]
    fn the_service_speaks_for_nobody_and_names_its_actor() {
        let reason = Some("customer's wish".to_owned());
        let message = opening(&Scope::Service { actor: Some(UserId(Uuid::max())), reason }, LIMITS).unwrap();
        assert!(
            message.contains(
                "set_config('role', 'app_service', true), set_config('search_path', 'public, pg_temp', true)"
            ) && message.contains("set_config('request.jwt.claims', '', true)")
        );
        assert!(message.contains("set_config('app.actor_id', 'ffffffff-ffff-ffff-ffff-ffffffffffff', true)"));
        assert!(message.contains("set_config('app.reason', E'customer''s wish', true)"));
        let counting = opening(&Scope::Counting, LIMITS).unwrap();
        assert!(counting.contains("'app_service'") && counting.contains("set_config('enable_seqscan', 'off', true)"));
        assert!(opening(&Scope::Anonymous, LIMITS).unwrap().contains("set_config('role', 'authenticated', true)"));
    }

    #[test]
    fn every_transaction_is_durable_and_carries_no_subject_but_its_own() {
        for scope in [Scope::SERVICE, Scope::Counting, Scope::Reading, Scope::Anonymous] {
            let message = opening(&scope, LIMITS).unwrap();
            assert!(message.contains(DURABLE_COMMIT), "{message}");
            assert!(message.contains("set_config('request.jwt.claim.sub', '', true)"), "{message}");
        }
        assert!(COUNTING_CHECK.ends_with("current_setting('synchronous_commit') END, false)"));
    }
}
