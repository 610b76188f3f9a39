//! The content of a database as lines of text, for comparisons before and after.

use harness::sqlx::{self, AssertSqlSafe, Connection as _, PgConnection};

/// Every object outside the system's own schemas, every right on the database and its schemas, and the default
/// privileges for new objects. Rights of tables and functions are dropped with their objects.
const EVERYTHING: &str = r"
WITH ours AS (SELECT oid, nspname, nspacl, nspowner FROM pg_namespace WHERE nspname !~ '^pg_' AND nspname <> 'information_schema')
SELECT 'schema ' || nspname FROM ours
UNION ALL SELECT 'comment on schema ' || nspname || ': ' || obj_description(oid, 'pg_namespace') FROM ours
WHERE nspname <> 'public' AND obj_description(oid, 'pg_namespace') IS NOT NULL
UNION ALL SELECT format('relation %s %s.%s', c.relkind, n.nspname, c.relname) FROM pg_class c JOIN ours n ON n.oid = c.relnamespace
UNION ALL SELECT 'function ' || n.nspname || ' ' || p.oid::regprocedure FROM pg_proc p JOIN ours n ON n.oid = p.pronamespace
UNION ALL SELECT format('type %s.%s', n.nspname, t.typname) FROM pg_type t JOIN ours n ON n.oid = t.typnamespace
UNION ALL SELECT format('policy %s on %s', p.polname, p.polrelid::regclass) FROM pg_policy p
UNION ALL SELECT format('trigger %s on %s', t.tgname, t.tgrelid::regclass) FROM pg_trigger t WHERE NOT t.tgisinternal
UNION ALL SELECT 'constraint ' || c.conname || ' of ' || n.nspname FROM pg_constraint c JOIN ours n ON n.oid = c.connamespace
UNION ALL SELECT 'extension ' || extname FROM pg_extension
UNION ALL SELECT 'event trigger ' || evtname FROM pg_event_trigger
UNION ALL SELECT format('right %s on schema %s of %s', x.privilege_type, n.nspname, x.grantee::regrole)
    FROM ours n CROSS JOIN LATERAL aclexplode(coalesce(n.nspacl, acldefault('n', n.nspowner))) x
UNION ALL SELECT format('right %s on the database of %s', x.privilege_type, x.grantee::regrole)
    FROM pg_database d CROSS JOIN LATERAL aclexplode(coalesce(d.datacl, acldefault('d', d.datdba))) x WHERE d.datname = current_database()
UNION ALL SELECT format('default right %s of %s on new %s of %s', x.privilege_type, x.grantee::regrole, d.defaclobjtype, d.defaclrole::regrole)
    FROM pg_default_acl d CROSS JOIN LATERAL aclexplode(d.defaclacl) x
ORDER BY 1";

/// Everything about the objects in one schema: definitions, owners, rights, comments. The internal triggers of foreign
/// keys are omitted: a reference to a table does not change the table.
const SCHEMA: &str = r"
WITH it AS (SELECT oid, nspname, nspacl, nspowner FROM pg_namespace WHERE nspname = $1)
SELECT format('schema %s of %s: %s, %s', nspname, nspowner::regrole, nspacl::text, obj_description(oid, 'pg_namespace')) FROM it
UNION ALL SELECT format('relation %s %s of %s: %s, options %s, policies %s/%s, %s columns, %s', c.relkind, c.relname,
c.relowner::regrole, c.relacl::text, c.reloptions::text,
        c.relrowsecurity, c.relforcerowsecurity, c.relnatts, obj_description(c.oid, 'pg_class'))
    FROM pg_class c JOIN it ON it.oid = c.relnamespace
UNION ALL SELECT format('column %s.%s %s %s default %s: %s, %s', c.relname, a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull,
        pg_get_expr(d.adbin, d.adrelid), a.attacl::text, col_description(c.oid, a.attnum))
    FROM pg_class c JOIN it ON it.oid = c.relnamespace JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0
    LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
UNION ALL SELECT format('constraint %s on %s: %s', k.conname, c.relname, pg_get_constraintdef(k.oid))
    FROM pg_constraint k JOIN pg_class c ON c.oid = k.conrelid JOIN it ON it.oid = c.relnamespace
UNION ALL SELECT 'index ' || pg_get_indexdef(x.indexrelid) FROM pg_index x JOIN pg_class c ON c.oid = x.indrelid JOIN it ON it.oid = c.relnamespace
UNION ALL SELECT 'trigger ' || pg_get_triggerdef(t.oid) FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid
JOIN it ON it.oid = c.relnamespace WHERE NOT t.tgisinternal
UNION ALL SELECT format('policy %s on %s %s to %s using %s check %s', p.policyname, p.tablename, p.cmd, p.roles::text, p.qual, p.with_check)
    FROM pg_policies p JOIN it ON it.nspname = p.schemaname
UNION ALL SELECT format('function of %s: %s, %s', p.proowner::regrole, p.proacl::text, pg_get_functiondef(p.oid)) FROM pg_proc p
JOIN it ON it.oid = p.pronamespace
UNION ALL SELECT format('type %s of %s: %s', t.typname, t.typowner::regrole, t.typacl::text) FROM pg_type t JOIN it ON it.oid = t.typnamespace
ORDER BY 1";

/// Every right of `PUBLIC`, `anon` and `authenticated` on the objects in `public`: tables, partitions, columns, views,
/// sequences and functions. Months are numbered, so that the lines do not depend on the date.
const RIGHTS_OF_USERS: &str = r"
WITH told AS (
    SELECT c.oid::regclass::text AS object, x.grantee, x.privilege_type FROM pg_class c CROSS JOIN LATERAL aclexplode(c.relacl) x
        WHERE c.relnamespace = 'public'::regnamespace
    UNION ALL SELECT a.attrelid::regclass || '.' || a.attname, x.grantee, x.privilege_type
        FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid CROSS JOIN LATERAL aclexplode(a.attacl) x
        WHERE NOT a.attisdropped AND c.relnamespace = 'public'::regnamespace
    UNION ALL SELECT p.oid::regprocedure::text, x.grantee, x.privilege_type
        FROM pg_proc p CROSS JOIN LATERAL aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) x WHERE p.pronamespace = 'public'::regnamespace
)
SELECT format('%s may %s %s', CASE WHEN grantee = 0 THEN 'PUBLIC' ELSE grantee::regrole::text END, privilege_type, object)
FROM told WHERE grantee = 0 OR grantee::regrole::text IN ('anon', 'authenticated') ORDER BY 1";

pub async fn everything(url: &str) -> Vec<String> {
    lines(url, EVERYTHING).await
}

pub async fn schema(url: &str, name: &str) -> Vec<String> {
    lines(url, &SCHEMA.replace("$1", &format!("'{name}'"))).await
}

pub async fn rights_of_users(url: &str) -> Vec<String> {
    lines(url, RIGHTS_OF_USERS).await
}

/// The one text column of a query, on its own connection.
pub async fn lines(url: &str, query: &str) -> Vec<String> {
    let mut connection = PgConnection::connect(url).await.unwrap();
    let answer = sqlx::query_scalar(AssertSqlSafe(query)).fetch_all(&mut connection).await;
    connection.close().await.unwrap();
    answer.unwrap_or_else(|error| panic!("{query}: {error}"))
}

/// Fails with the lines that only one side has.
#[track_caller]
pub fn assert_same(what: &str, before: &[String], after: &[String]) {
    let only = |these: &[String], those: &[String]| {
        these.iter().filter(|line| !those.contains(line)).cloned().collect::<Vec<_>>().join("\n  ")
    };
    assert!(
        before == after,
        "{what}\n only before:\n  {}\n only after:\n  {}",
        only(before, after),
        only(after, before)
    );
}
