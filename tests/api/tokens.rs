//! Tokens: the own balance and its ledger, and credits by administrators, each applied once under concurrency.

use futures_util::future::join_all;
use harness::{Answer, TestApp, TestUser};
use serde_json::{Value, json};

use crate::{NOBODY, expect_field, find, time_at};

const ROUTES: [&str; 3] = ["topup", "bonus", "refund"];

async fn post(app: &TestApp, admin: &TestUser, route: &str, body: &Value) -> Answer {
    app.post(&format!("/api/tokens/{route}")).bearer(admin).json(body).send().await
}

async fn keyed(app: &TestApp, admin: &TestUser, route: &str, key: &str, body: &Value) -> Answer {
    app.post(&format!("/api/tokens/{route}")).bearer(admin).idempotency_key(key).json(body).send().await
}

async fn balance(app: &TestApp, user: &TestUser) -> Value {
    app.get("/api/tokens").bearer(user).send().await.expect_status(200).body
}

async fn ledger(app: &TestApp, user: &TestUser) -> Value {
    let answer = app.get("/api/tokens/transactions?limit=100").bearer(user).send().await.expect_status(200);
    answer.at("/data").clone()
}

/// Consumes this amount beyond the limit of a feature; returns the id of the ledger row with the charge.
async fn spend(app: &TestApp, user: &TestUser, amount: i64) -> String {
    let terms = format!(
        "UPDATE plan_features SET limit_value = 0, overage = 'tokens' WHERE plan_id = 'gold' AND feature_id = 'ai_requests';
         UPDATE users SET plan_id = 'gold' WHERE id = '{}'",
        user.id
    );
    app.database().sql(&terms).await;
    let body = json!({ "feature_id": "ai_requests", "amount": amount });
    app.post("/api/usage").bearer(user).json(body).send().await.expect_status(200);
    let rows = ledger(app, user).await;
    assert_eq!((&rows[0]["type"], &rows[0]["amount"]), (&json!("usage"), &json!(-amount)));
    rows[0]["id"].as_str().unwrap().to_owned()
}

async fn expect_sound(app: &TestApp, admin: &TestUser) {
    let findings = app.get("/api/admin/integrity").bearer(admin).send().await.expect_status(200);
    assert_eq!(findings.at("/data"), &json!([]));
}

async fn count(app: &TestApp, sql: &str) -> i64 {
    app.database().query_scalar(sql).await
}

#[tokio::test]
async fn a_balance_says_what_is_held_and_what_is_left() {
    let app = TestApp::start().await;
    let (admin, ada) = (app.admin().await, app.signup("ada@example.com").await);
    assert_eq!(balance(&app, &ada).await, json!({ "balance": 100, "reserved": 0, "available": 100 }));
    let body = json!({ "user_id": ada.id, "amount": 50, "description": "Invoice 7", "reference_id": NOBODY });
    let answer = post(&app, &admin, "topup", &body).await.expect_status(201);
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    assert_eq!(answer.header("idempotency-replayed"), None);
    time_at(&answer, "/created_at");
    let expected = json!({ "id": answer.at("/id"), "amount": 50, "type": "topup", "description": "Invoice 7",
        "reference_id": NOBODY, "balance_after": 150, "created_at": answer.at("/created_at") });
    assert_eq!(answer.body, expected);
    app.database().sql(&format!("UPDATE users SET token_reserved = 20 WHERE id = '{}'", ada.id)).await;
    assert_eq!(balance(&app, &ada).await, json!({ "balance": 150, "reserved": 20, "available": 130 }));
    let rows = ledger(&app, &ada).await;
    assert_eq!((rows.as_array().unwrap().len(), &rows[0]), (2, &expected));
    let first = find(&rows, "type", "bonus");
    let start = (&first["amount"], &first["balance_after"], &first["reference_id"], &first["description"]);
    assert_eq!(start, (&json!(100), &json!(100), &Value::Null, &json!("Starting balance")));
}

#[tokio::test]
async fn the_ledger_is_read_newest_first_page_by_page() {
    let app = TestApp::start().await;
    let ada = app.signup("ada@example.com").await;
    // One statement gives its rows the same time: only their position in the chain gives their order.
    let rows = format!(
        "INSERT INTO token_transactions (user_id, amount, type) SELECT '{0}', 1, 'topup' FROM generate_series(1, 6);
         UPDATE users SET token_balance = 106 WHERE id = '{0}'",
        ada.id
    );
    app.database().sql(&rows).await;
    let (mut seen, mut cursor) = (Vec::new(), String::new());
    for expected in [3, 3, 1] {
        let path = format!("/api/tokens/transactions?limit=3{cursor}");
        let page = app.get(&path).bearer(&ada).send().await.expect_status(200);
        let data = page.at("/data").as_array().unwrap();
        assert_eq!(data.len(), expected, "{page}");
        seen.extend(data.iter().map(|row| row["balance_after"].as_i64().unwrap()));
        cursor = page.at("/next_cursor").as_str().map(|next| format!("&cursor={next}")).unwrap_or_default();
        // Rows that are added meanwhile are newer, and shift nothing.
        app.database()
            .sql(&format!("INSERT INTO token_transactions (user_id, amount, type) VALUES ('{}', 1, 'topup')", ada.id))
            .await;
    }
    assert_eq!((seen, cursor), (vec![106, 105, 104, 103, 102, 101, 100], String::new()));
    for query in ["limit=0", "limit=101", "cursor=x", "user_id=ada", "type=usage"] {
        let answer = app.get(&format!("/api/tokens/transactions?{query}")).bearer(&ada).send().await;
        answer.expect_problem(422, "invalid");
    }
    let eve = app.signup("eve@example.com").await;
    let own = ledger(&app, &ada).await;
    let foreign = format!("1_{}", own[0]["id"].as_str().unwrap().replace('-', ""));
    let answer = app.get(&format!("/api/tokens/transactions?cursor={foreign}")).bearer(&eve).send().await;
    assert_eq!(answer.expect_status(200).at("/data"), &json!([]), "another's place is none");
}

#[tokio::test]
async fn anothers_ledger_is_for_administrators() {
    let app = TestApp::start().await;
    let (admin, ada, eve) =
        (app.admin().await, app.signup("ada@example.com").await, app.signup("eve@example.com").await);
    let of = |id: &str| format!("/api/tokens/transactions?user_id={id}");
    let id = ada.id.to_string();
    app.get(&of(&id)).send().await.expect_problem(401, "unauthorized");
    for other in [id.as_str(), NOBODY] {
        app.get(&of(other)).bearer(&eve).send().await.expect_problem(403, "forbidden");
    }
    let seen = app.get(&of(&id)).bearer(&admin).send().await.expect_status(200);
    assert_eq!(seen.at("/data"), &ledger(&app, &ada).await);
    app.get(&of(&id)).bearer(&ada).send().await.expect_status(200);
    app.get(&of(NOBODY)).bearer(&admin).send().await.expect_problem(404, "not_found");
    for (permission, on_behalf, own, others) in
        [("usage:check", false, 200, 403), ("usage:check", true, 200, 200), ("plans:read", false, 403, 403)]
    {
        let body = json!({ "name": "reader", "permissions": [permission], "on_behalf": on_behalf });
        let key = app.post("/api/keys").bearer(&admin).json(body).send().await.expect_status(201);
        let key = key.text_at("/key");
        app.get("/api/tokens").bearer(key).send().await.expect_status(own);
        app.get("/api/tokens/transactions").bearer(key).send().await.expect_status(own);
        app.get(&of(&id)).bearer(key).send().await.expect_status(others);
    }
}

#[tokio::test]
async fn adding_tokens_is_for_administrators_with_the_right() {
    let app = TestApp::start().await;
    let (admin, ada) = (app.admin().await, app.signup("ada@example.com").await);
    let usage = spend(&app, &ada, 30).await;
    let body = |route: &str| match route {
        "refund" => json!({ "user_id": ada.id, "transaction_id": usage, "amount": 1 }),
        _ => json!({ "user_id": ada.id, "amount": 1 }),
    };
    let key = async |permission: &str| {
        let body = json!({ "name": "desk", "permissions": [permission] });
        let key = app.post("/api/keys").bearer(&admin).json(body).send().await.expect_status(201);
        key.text_at("/key").to_owned()
    };
    let (fit, unfit) = (key("billing:manage").await, key("usage:write").await);
    for route in ROUTES {
        let asked = || app.post(&format!("/api/tokens/{route}")).json(body(route));
        asked().send().await.expect_problem(401, "unauthorized");
        asked().bearer(&unfit).send().await.expect_problem(403, "forbidden");
        // The role `user` also has `billing:manage`, for the own plan; it allows no credits.
        asked().bearer(&ada).send().await.expect_problem(403, "forbidden");
        let unread = app.post(&format!("/api/tokens/{route}")).bearer(&ada).json(json!({ "nonsense": 1 }));
        unread.send().await.expect_problem(403, "forbidden");
        assert_eq!(asked().bearer(&fit).send().await.expect_status(201).text_at("/type"), route);
    }
    assert_eq!(balance(&app, &ada).await["balance"], 73);
    expect_sound(&app, &admin).await;
}

#[tokio::test]
async fn an_unfit_credit_names_its_field_and_changes_nothing() {
    let app = TestApp::start().await;
    let (admin, ada) = (app.admin().await, app.signup("ada@example.com").await);
    for route in ["topup", "bonus"] {
        for amount in [json!(0), json!(-1), json!(1.5), json!("5"), json!(null), json!(1e30)] {
            let body = json!({ "user_id": ada.id, "amount": amount });
            expect_field(post(&app, &admin, route, &body).await, "amount");
        }
        expect_field(post(&app, &admin, route, &json!({ "user_id": ada.id })).await, "amount");
        expect_field(post(&app, &admin, route, &json!({ "amount": 5 })).await, "user_id");
        for (field, value) in [
            ("description", json!("d".repeat(501))),
            ("description", json!(" ")),
            ("description", json!("a\u{0}b")),
            ("reference_id", json!("invoice")),
            ("idempotency_key", json!("")),
            ("idempotency_key", json!("鍵")),
            ("balance_after", json!(1)),
        ] {
            let mut body = json!({ "user_id": ada.id, "amount": 5 });
            body[field] = value;
            expect_field(post(&app, &admin, route, &body).await, field);
        }
        let absent = json!({ "user_id": NOBODY, "amount": 5 });
        post(&app, &admin, route, &absent).await.expect_problem(404, "not_found");
        // The maximum balance is 2^63 - 1.
        let full =
            expect_field(post(&app, &admin, route, &json!({ "user_id": ada.id, "amount": i64::MAX })).await, "amount");
        assert!(full.text_at("/detail").contains("9223372036854775807"), "{full}");
    }
    assert_eq!(balance(&app, &ada).await["balance"], 100);
    assert_eq!(ledger(&app, &ada).await.as_array().unwrap().len(), 1);
    let most = json!({ "user_id": ada.id, "amount": i64::MAX - 100 });
    let most = post(&app, &admin, "topup", &most).await.expect_status(201);
    assert_eq!(most.at("/balance_after"), &json!(i64::MAX));
    expect_field(post(&app, &admin, "bonus", &json!({ "user_id": ada.id, "amount": 1 })).await, "amount");
    expect_sound(&app, &admin).await;
}

#[tokio::test]
async fn a_repeat_is_answered_with_the_first_answer_and_another_body_is_refused() {
    let app = TestApp::start().await;
    let (admin, ada, eve) =
        (app.admin().await, app.signup("ada@example.com").await, app.signup("eve@example.com").await);
    let body = json!({ "user_id": ada.id, "amount": 5, "description": "Invoice 7", "reference_id": NOBODY });
    let first = keyed(&app, &admin, "topup", "one", &body).await.expect_status(201);
    assert_eq!(first.header("idempotency-replayed"), None);
    post(&app, &admin, "bonus", &json!({ "user_id": ada.id, "amount": 1 })).await.expect_status(201);
    // The key belongs to the charged user: in the body or from another administrator, it is the same key.
    let set_role =
        app.put(&format!("/api/admin/users/{}/role", eve.id)).bearer(&admin).json(json!({ "role": "admin" }));
    set_role.send().await.expect_status(200);
    let mut in_body = body.clone();
    in_body["idempotency_key"] = json!("one");
    for again in [
        keyed(&app, &admin, "topup", "one", &body).await,
        keyed(&app, &admin, "topup", "one", &in_body).await,
        post(&app, &eve, "topup", &in_body).await,
    ] {
        let again = again.expect_status(201);
        assert_eq!((again.header("idempotency-replayed"), &again.text), (Some("true"), &first.text));
    }
    expect_field(keyed(&app, &admin, "topup", "two", &in_body).await, "idempotency_key");
    for (route, field, value) in [
        ("topup", "amount", json!(6)),
        ("topup", "description", json!("Invoice 8")),
        ("topup", "description", Value::Null),
        ("topup", "reference_id", Value::Null),
        ("bonus", "amount", json!(5)),
    ] {
        let mut other = body.clone();
        other[field] = value;
        keyed(&app, &admin, route, "one", &other).await.expect_problem(422, "idempotency_key_reused");
    }
    let usage = spend(&app, &ada, 5).await;
    let refund = json!({ "user_id": ada.id, "transaction_id": usage });
    keyed(&app, &admin, "refund", "one", &refund).await.expect_problem(422, "idempotency_key_reused");
    assert_eq!(balance(&app, &ada).await["balance"], 101);
    // The same key for another user is another key, and a refused request claims none.
    let nothing = json!({ "user_id": eve.id, "amount": i64::MAX });
    expect_field(keyed(&app, &admin, "topup", "one", &nothing).await, "amount");
    let fresh = keyed(&app, &admin, "topup", "one", &json!({ "user_id": eve.id, "amount": 5 })).await;
    assert_eq!(fresh.expect_status(201).header("idempotency-replayed"), None);
    expect_sound(&app, &admin).await;
}

#[tokio::test]
async fn a_refund_gives_back_what_a_use_took_and_no_more() {
    let app = TestApp::start().await;
    let (admin, ada, eve) =
        (app.admin().await, app.signup("ada@example.com").await, app.signup("eve@example.com").await);
    let usage = spend(&app, &ada, 30).await;
    let body = |amount: Option<i64>| match amount {
        None => json!({ "user_id": ada.id, "transaction_id": usage }),
        Some(amount) => json!({ "user_id": ada.id, "transaction_id": usage, "amount": amount }),
    };
    let beyond = expect_field(post(&app, &admin, "refund", &body(Some(31))).await, "amount");
    assert!(beyond.text_at("/detail").contains("30 that are left"), "{beyond}");
    expect_field(post(&app, &admin, "refund", &body(Some(0))).await, "amount");
    let part = keyed(&app, &admin, "refund", "a", &body(Some(10))).await.expect_status(201);
    let told = (part.at("/amount"), part.text_at("/type"), part.text_at("/reference_id"), part.at("/balance_after"));
    assert_eq!(told, (&json!(10), "refund", usage.as_str(), &json!(80)));
    expect_field(post(&app, &admin, "refund", &body(Some(21))).await, "amount");
    let rest = keyed(&app, &admin, "refund", "b", &body(None)).await.expect_status(201);
    assert_eq!((rest.at("/amount"), rest.at("/balance_after")), (&json!(20), &json!(100)));
    for amount in [None, Some(1), Some(31)] {
        post(&app, &admin, "refund", &body(amount)).await.expect_problem(409, "nothing_to_refund");
    }
    // Each is its own repeat, judged by what was left then, although nothing is left now.
    for (key, amount, first) in [("a", Some(10), &part), ("b", None, &rest), ("b", Some(20), &rest)] {
        let again = keyed(&app, &admin, "refund", key, &body(amount)).await.expect_status(201);
        assert_eq!((again.header("idempotency-replayed"), &again.text), (Some("true"), &first.text));
    }
    for (key, amount) in [("a", None), ("a", Some(20)), ("a", Some(31)), ("b", Some(10))] {
        let other = keyed(&app, &admin, "refund", key, &body(amount)).await;
        other.expect_problem(422, "idempotency_key_reused");
    }
    let unknown = json!({ "user_id": ada.id, "transaction_id": NOBODY });
    keyed(&app, &admin, "refund", "a", &unknown).await.expect_problem(422, "idempotency_key_reused");
    post(&app, &admin, "refund", &unknown).await.expect_problem(404, "not_found");
    let rows = ledger(&app, &ada).await;
    for no_use in ["bonus", "refund"] {
        let body = json!({ "user_id": ada.id, "transaction_id": find(&rows, "type", no_use)["id"] });
        post(&app, &admin, "refund", &body).await.expect_problem(404, "not_found");
    }
    for (user_id, amount) in [(eve.id.to_string(), None), (NOBODY.to_owned(), Some(1))] {
        let body = json!({ "user_id": user_id, "transaction_id": usage, "amount": amount });
        post(&app, &admin, "refund", &body).await.expect_problem(404, "not_found");
    }
    for (field, value) in
        [("transaction_id", json!("x")), ("transaction_id", Value::Null), ("reference_id", json!(NOBODY))]
    {
        let mut unfit = body(None);
        unfit[field] = value;
        expect_field(post(&app, &admin, "refund", &unfit).await, field);
    }
    assert_eq!(balance(&app, &ada).await["balance"], 100);
    expect_sound(&app, &admin).await;
}

#[tokio::test]
async fn duplicates_at_once_give_one_row() {
    let app = TestApp::start().await;
    let (admin, ada) = (app.admin().await, app.signup("ada@example.com").await);
    let usage = spend(&app, &ada, 30).await;
    let topup = json!({ "user_id": ada.id, "amount": 5 });
    let refund = json!({ "user_id": ada.id, "transaction_id": usage });
    for (route, body) in [("topup", topup), ("refund", refund)] {
        let answers = join_all((0..20).map(|_| keyed(&app, &admin, route, route, &body))).await;
        let texts: std::collections::BTreeSet<_> = answers.iter().map(|answer| (answer.status, &answer.text)).collect();
        assert_eq!((texts.len(), answers[0].status), (1, 201), "{texts:?}");
        let fresh = answers.iter().filter(|answer| answer.header("idempotency-replayed").is_none());
        assert_eq!(fresh.count(), 1);
    }
    assert_eq!(balance(&app, &ada).await["balance"], 105);
    expect_sound(&app, &admin).await;
}

#[tokio::test]
async fn refunds_at_once_never_exceed_their_use() {
    let app = TestApp::start().await;
    let (admin, ada) = (app.admin().await, app.signup("ada@example.com").await);
    for round in 1..=3 {
        let usage = spend(&app, &ada, 30).await;
        // More than half each, so that any two of them together are too much.
        let body = json!({ "user_id": ada.id, "transaction_id": usage, "amount": 16 });
        let answers = join_all((0..10).map(|_| post(&app, &admin, "refund", &body))).await;
        let granted = answers.iter().filter(|answer| answer.status == 201).count();
        assert_eq!(granted, 1, "{answers:?}");
        assert!(answers.iter().all(|answer| answer.status == 201 || answer.body["code"] == "invalid"), "{answers:?}");
        assert_eq!(balance(&app, &ada).await["balance"], 100 - 14 * round);
    }
    expect_sound(&app, &admin).await;
}

#[tokio::test]
async fn many_at_once_keep_the_balance_and_the_chain() {
    let app = TestApp::start().await;
    let (admin, ada) = (app.admin().await, app.signup("ada@example.com").await);
    let usage = spend(&app, &ada, 30).await;
    let topup = json!({ "user_id": ada.id, "amount": 7 });
    let refund = json!({ "user_id": ada.id, "transaction_id": usage, "amount": 4 });
    let spending = json!({ "feature_id": "ai_requests", "amount": 2 });
    let credits = (0..30).map(|number| {
        let (route, body) = if number % 2 == 0 { ("topup", &topup) } else { ("refund", &refund) };
        post(&app, &admin, route, body)
    });
    let spends = (0..10).map(|_| app.post("/api/usage").bearer(&ada).json(&spending).send());
    let (credited, spent) = futures_util::future::join(join_all(credits), join_all(spends)).await;
    let (topups, refunds): (Vec<_>, Vec<_>) =
        credited.into_iter().partition(|answer| answer.request.ends_with("topup"));
    assert!(topups.iter().all(|answer| answer.status == 201), "{topups:?}");
    assert!(spent.iter().all(|answer| answer.status == 200), "{spent:?}");
    // Seven times four fit into thirty; then two are left, which is less than four.
    let granted = refunds.iter().filter(|answer| answer.status == 201).count();
    assert_eq!(granted, 7);
    assert!(refunds.iter().all(|answer| answer.status == 201 || answer.body["code"] == "invalid"), "{refunds:?}");
    assert_eq!(balance(&app, &ada).await["balance"], 100 - 30 + 15 * 7 + 7 * 4 - 10 * 2);
    assert_eq!(count(&app, "SELECT sum(amount)::bigint FROM token_transactions WHERE type = 'refund'").await, 28);
    expect_sound(&app, &admin).await;
}

#[tokio::test]
async fn a_credit_is_in_the_ledger_and_in_the_export_and_nowhere_else() {
    let app = TestApp::start().await;
    let (admin, ada) = (app.admin().await, app.signup("ada@example.com").await);
    let audited = count(&app, "SELECT count(*) FROM audit_logs").await;
    let body = json!({ "user_id": ada.id, "amount": 5, "description": "Invoice 7" });
    let added = post(&app, &admin, "topup", &body).await.expect_status(201);
    assert_eq!(count(&app, "SELECT count(*) FROM audit_logs").await, audited);
    let export = app.get("/api/users/me/export").bearer(&ada).send().await.expect_status(200);
    assert_eq!(export.at("/token_transactions/rows/0/id"), added.at("/id"));
    assert_eq!(export.at("/token_transactions/rows/0/description"), "Invoice 7");
    assert_eq!(app.get("/api/users/me").bearer(&ada).send().await.at("/token_balance"), 105);
}
