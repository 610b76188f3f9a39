//! The message that opens a transaction: BEGIN, and on whose behalf and within which times it runs.
//!
//! It travels by the simple protocol, in one round trip, and so has no parameters: all that is written into it are
//! UUIDs, numbers, and the reason, which is quoted here. Every setting is local to the transaction (`true`), so that
//! a pooled connection never carries an identity over. A commit is durable whatever the database says: `off` is raised to `on`.

use std::fmt::Write;

use ports::store::{Scope, StoreError};

/// How long a transaction may take, part by part, in milliseconds. Postgres enforces them.
#[derive(Clone, Copy, Debug)]
pub(super) struct Milliseconds {
    pub statement: u64,
    pub lock: u64,
    pub idle: u64,
}

/// A prepared statement keeps the plan of the day it was made. With the tables still empty that is a walk over the
/// whole of them, and later, over millions of keys, it still is: each counting statement goes through its keys instead.
/// And it is planned once: to the planner a short array looks cheaper than a generic one, so that it would plan the
/// statement anew for every small batch, which takes longer than running it.
const THROUGH_KEYS: &str = ", set_config('enable_seqscan', 'off', true), set_config('enable_hashjoin', 'off', true), \
    set_config('enable_mergejoin', 'off', true), set_config('plan_cache_mode', 'force_generic_plan', true)";

/// How long a batch that many users share waits for a lock. Its own locks skip what is locked; this bounds what else waits:
/// foreign keys, unique indexes, changes of the schema.
const BATCH_LOCK_MS: u64 = 200;
/// Where names are looked up, whatever the login or the database says; what is temporary comes last.
const SEARCH_PATH: &str = "public, pg_temp";

/// The role and the planner's habit of a session that counts, by which it is known.
pub(super) const COUNTING_ROLE: &str = "app_service";
pub(super) const COUNTING_PLANS: &str = "force_generic_plan";

/// What was answered must survive a crash. Where the database, the login or the session says `off`, a commit would be
/// answered before it is on the disk, so that is raised to `on`. Every other level waits for the own disk at least, and how
/// far to wait for standbys is the operator's choice. `$local` says whether it ends with the transaction.
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

/// What a session that counts is asked before it serves: its role and plans, and with that its commits are made durable for
/// as long as it lives, since the first packet cannot say "at least".
pub(super) const COUNTING_CHECK: &str =
    concat!("SELECT current_setting('role'), current_setting('plan_cache_mode'), ", durable_commit!("false"));

/// The same for a session that does nothing but count: said in its first packet, and then in force for all that it does.
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
        // The login may set no other role; without claims, the policies show it the public catalogue alone.
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
    // READ COMMITTED is said outright: locks and advisory locks rely on each statement seeing what was committed.
    let mut message = String::from("BEGIN ISOLATION LEVEL READ COMMITTED; SELECT ");
    for (name, value) in [
        ("role", format!("'{role}'")),
        ("search_path", format!("'{SEARCH_PATH}'")),
        ("request.jwt.claims", format!("'{claims}'")),
        // auth.uid() reads this one first, so that a value that the session had would win.
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

/// A text as an SQL literal. The E form means the same whatever `standard_conforming_strings` says, since the
/// backslashes are doubled as well as the quotes. U+0000 would end the message early, so it is refused.
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
