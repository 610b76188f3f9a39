//! Organizations outlive the profiles of their owners.

use harness::TestDatabase;

use crate::people::sign_up;

/// The owner, and the members with their roles.
async fn standing(database: &TestDatabase) -> (Option<String>, String) {
    database
        .query_one(
            "SELECT (SELECT u.name FROM organizations o JOIN users u ON u.id = o.owner_id),
                (SELECT coalesce(string_agg(u.name || ' ' || m.role, ', ' ORDER BY u.name), '') FROM organization_members m JOIN users u ON u.id = m.user_id)",
        )
        .await
}

#[tokio::test]
async fn the_next_owner_is_another_owner_else_an_admin_else_nobody_and_members_stay() {
    for (members, owner, left) in [
        (vec![("bob", "admin"), ("cid", "owner"), ("dan", "member")], Some("cid"), "bob admin, cid owner, dan member"),
        (vec![("bob", "member"), ("cid", "admin"), ("dan", "admin")], Some("cid"), "bob member, cid owner, dan admin"),
        (vec![("bob", "member"), ("cid", "viewer")], None, "bob member, cid viewer"),
        (vec![], None, ""),
    ] {
        for deletion in ["DELETE FROM users WHERE id = '$1'", "DELETE FROM auth.users WHERE id = '$1'"] {
            let database = TestDatabase::new().await;
            let ann = sign_up(&database, "ann").await;
            database.sql(&format!("INSERT INTO organizations (name, owner_id) VALUES ('acme', '{ann}')")).await;
            database
                .sql(&format!("INSERT INTO organization_members SELECT id, '{ann}', 'owner' FROM organizations"))
                .await;
            for (name, role) in &members {
                let id = sign_up(&database, name).await;
                database.sql(&format!("INSERT INTO organization_members SELECT id, '{id}', '{role}', clock_timestamp() FROM organizations")).await;
            }
            database.sql(&deletion.replace("$1", &ann.to_string())).await;
            let (found_owner, found) = standing(&database).await;
            assert_eq!((found_owner.as_deref(), found.as_str()), (owner, left), "{members:?}");
            let audited: i64 = database
                .query_scalar(
                    "SELECT count(*) FROM audit_logs WHERE table_name = 'organizations' AND action = 'hand_over'",
                )
                .await;
            assert_eq!(audited, 1);
        }
    }
}

#[tokio::test]
async fn a_banned_or_deleted_identity_is_given_no_organization() {
    for end in ["banned_until = now() + interval '1 day'", "deleted_at = now()"] {
        let database = TestDatabase::new().await;
        database
            .sql("ALTER TABLE auth.users ADD COLUMN banned_until timestamptz, ADD COLUMN deleted_at timestamptz")
            .await;
        let ann = sign_up(&database, "ann").await;
        database.sql(&format!("INSERT INTO organizations (name, owner_id) VALUES ('acme', '{ann}')")).await;
        for (name, role) in [("bob", "owner"), ("cid", "admin")] {
            let id = sign_up(&database, name).await;
            database
                .sql(&format!(
                    "INSERT INTO organization_members SELECT id, '{id}', '{role}', clock_timestamp() FROM organizations"
                ))
                .await;
            if name == "bob" {
                database.sql(&format!("UPDATE auth.users SET {end} WHERE id = '{id}'")).await;
            }
        }
        database.sql(&format!("DELETE FROM auth.users WHERE id = '{ann}'")).await;
        assert_eq!(standing(&database).await.0.as_deref(), Some("cid"), "{end}");
    }
}
