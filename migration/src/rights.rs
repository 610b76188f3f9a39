//! Every right of every role on our objects: as found, and as the texts grant them.
//!
//! Promise: there is no second list of rights. The texts grant them again in a transaction that is rolled back, after
//! all rights of roles outside the texts were revoked. Cost: a lock of each table's row in the catalogue.

use std::collections::BTreeSet;

use anyhow::Context;
use sea_orm_migration::sea_orm::{ConnectionTrait, DatabaseConnection, TransactionTrait};

use crate::connection::{auth_is_ours, name_array, query_all};
use crate::objects::{self, LOCKS, RECORD};
use crate::replaceable;

/// The roles that the texts cover.
pub const ROLES: [&str; 6] = ["anon", "authenticated", "service_role", "app_service", "app_user", "readonly_user"];

pub async fn found_and_meant(connection: &DatabaseConnection) -> anyhow::Result<(BTreeSet<String>, BTreeSet<String>)> {
    let builtin = auth_is_ours(connection).await?;
    let transaction = connection.begin().await?;
    transaction.execute_unprepared("SET LOCAL lock_timeout = '5s'").await?;
    let found = rights(&transaction).await?;
    let mut texts = vec![close_to_others(builtin)];
    texts.extend(replaceable::rights(builtin));
    for text in texts {
        transaction.execute_unprepared(&text).await.context(
            "rights could not be compared: verify needs the login that migrates, over PB__DATABASE__DIRECT_URL",
        )?;
    }
    let meant = rights(&transaction).await?;
    transaction.rollback().await?;
    Ok((found, meant))
}

/// Revokes the rights of roles that the texts do not cover, and every grant option. Without an identity provider
/// `service_role` has only what the texts grant; otherwise default privileges grant it tables.
pub fn close_to_others(builtin: bool) -> String {
    let spoken_of: Vec<&str> = ROLES.into_iter().filter(|role| !(builtin && *role == "service_role")).collect();
    format!(
        "DO $others$ DECLARE target record; BEGIN FOR target IN \
           SELECT DISTINCT r.kind, r.object, CASE WHEN r.grantee = 0 THEN 'PUBLIC' ELSE r.grantee::regrole::text END AS grantee, \
             r.grantee <> 0 AND pg_catalog.pg_get_userbyid(r.grantee) = ANY ({spoken_of}) AS spoken_of \
           FROM ({all}) r \
           WHERE r.relation IS DISTINCT FROM '{LOCKS}' AND (r.is_grantable OR r.grantee <> 0 AND pg_catalog.pg_get_userbyid(r.grantee) <> ALL ({spoken_of})) \
         LOOP EXECUTE format('REVOKE %s ALL ON %s %s FROM %s CASCADE', CASE WHEN target.spoken_of THEN 'GRANT OPTION FOR' ELSE '' END, \
           target.kind, target.object, target.grantee); END LOOP; END $others$",
        spoken_of = name_array(&spoken_of),
        all = all_rights(),
    )
}

async fn rights<C: ConnectionTrait>(connection: &C) -> anyhow::Result<BTreeSet<String>> {
    let sql = format!(
        "SELECT CASE WHEN r.grantee = 0 THEN 'PUBLIC' ELSE r.grantee::regrole::text END || ' ' || r.privilege \
           || CASE WHEN r.is_grantable THEN ' and to grant it' ELSE '' END || ' ' || r.object || coalesce('.' || r.attribute, '') AS line FROM ({}) r",
        all_rights()
    );
    let mut lines = BTreeSet::new();
    for row in query_all(connection, &sql).await? {
        lines.insert(row.try_get::<String>("", "line")?);
    }
    Ok(lines)
}

/// Every right of roles other than the owner on our tables, partitions, views, sequences and functions.
fn all_rights() -> String {
    let mut relations = objects::tables();
    relations.extend([RECORD, LOCKS]);
    relations.extend(objects::views());
    format!(
        "WITH ours AS (SELECT c.oid, c.relacl, c.relowner, c.relname, c.relkind FROM pg_catalog.pg_class c \
           LEFT JOIN pg_catalog.pg_inherits i ON i.inhrelid = c.oid LEFT JOIN pg_catalog.pg_class p ON p.oid = i.inhparent \
           WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p', 'v', 'm') AND coalesce(p.relname, c.relname) = ANY ({relations}) \
           UNION ALL SELECT s.oid, s.relacl, s.relowner, s.relname, s.relkind FROM pg_catalog.pg_class s \
             JOIN pg_catalog.pg_depend d ON d.classid = 'pg_catalog.pg_class'::regclass AND d.refclassid = d.classid AND d.objid = s.oid AND d.deptype IN ('a', 'i') \
             JOIN pg_catalog.pg_class t ON t.oid = d.refobjid \
           WHERE s.relkind = 'S' AND t.relnamespace = 'public'::regnamespace AND t.relname = ANY ({relations})), \
         rights AS ( \
           SELECT CASE o.relkind WHEN 'S' THEN 'SEQUENCE' ELSE 'TABLE' END AS kind, o.relname::text AS relation, o.oid::regclass::text AS object, NULL::text AS attribute, \
             x.grantee, x.privilege_type AS privilege, x.is_grantable, o.relowner AS owner FROM ours o CROSS JOIN LATERAL aclexplode(o.relacl) x \
           UNION ALL SELECT 'TABLE', o.relname::text, o.oid::regclass::text, a.attname::text, x.grantee, x.privilege_type, x.is_grantable, o.relowner FROM ours o \
             JOIN pg_catalog.pg_attribute a ON a.attrelid = o.oid CROSS JOIN LATERAL aclexplode(a.attacl) x \
           UNION ALL SELECT 'FUNCTION', NULL, p.oid::regprocedure::text, NULL, x.grantee, x.privilege_type, x.is_grantable, p.proowner FROM pg_catalog.pg_proc p \
             CROSS JOIN LATERAL aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) x \
             WHERE p.pronamespace = 'public'::regnamespace AND p.proname = ANY ({functions})) \
         SELECT * FROM rights WHERE grantee <> owner",
        relations = name_array(&relations),
        functions = name_array(&objects::functions()),
    )
}
