//! A body must be an object: every route with a body refuses arrays, scalars and duplicate names.

use harness::TestApp;
use serde_json::{Value, json};

use crate::coverage::{body_of, document, known, operations};

/// Arrays that serde's derived code would accept as the object: its values, in some order and number.
fn as_arrays(object: &Value) -> Vec<Value> {
    let values: Vec<Value> = object.as_object().unwrap().values().cloned().collect();
    let nulls = |count: usize| Value::Array(vec![Value::Null; count]);
    let mut arrays = vec![json!([]), Value::Array(values), json!([object])];
    arrays.extend((1..=12).map(nulls));
    arrays
}

#[tokio::test]
async fn no_route_takes_anything_else_for_an_object() {
    let app = TestApp::start().await;
    let (admin, ada) = (app.admin().await, app.signup("ada@example.com").await);
    let mut asked = 0;
    for operation in operations(&document(&app).await).iter().filter(|operation| operation.has_body) {
        let object = body_of(&operation.id);
        let fields = object.as_object().unwrap();
        let twice = fields.iter().next().map(|(name, value)| format!("{{\"{name}\":{value},\"{name}\":{value}}}"));
        let scalars = [json!(null), json!(1), json!("x"), json!(true)];
        let others = as_arrays(&object).into_iter().chain(scalars).map(|other| other.to_string());
        let behind = format!("{object} {{}}");
        let deep = format!("{}1{}", "[".repeat(200), "]".repeat(200));
        // Duplicates of a provider's own field are passed on to the provider.
        let twice = twice.filter(|_| !operation.is_dialect());
        for body in others.chain(twice).chain([behind, deep]) {
            let request = operation.request(&app, |parameter| known(parameter, &ada)).bearer(&admin);
            let answer = request.raw("application/json", body.clone()).send().await;
            let is_refused = matches!(answer.status, 400 | 422) && (answer.status == 400 || !operation.is_dialect());
            assert!(is_refused, "{} takes {body}: {answer}", operation.id);
            asked += 1;
        }
    }
    assert!(asked > 500, "{asked} bodies were tried");
}

#[tokio::test]
async fn an_array_changes_nothing() {
    let app = TestApp::start().await;
    let ada = app.signup("ada@example.com").await;
    let wallet = json!({ "wallet_address": "0x52908400098527886E0F7030069857D2E4169EE7" });
    let before = app.patch("/api/users/me").bearer(&ada).json(wallet).send().await.expect_status(200);
    for body in [json!([null, null]), json!([null]), json!([])] {
        app.patch("/api/users/me").bearer(&ada).json(body).send().await.expect_problem(422, "invalid");
    }
    let nested = json!({ "name": "k", "limits": [null, null, null] });
    app.post("/api/keys").bearer(&ada).json(nested).send().await.expect_problem(422, "invalid");
    let after = app.get("/api/users/me").bearer(&ada).send().await.expect_status(200);
    assert_eq!((after.at("/wallet_address"), after.at("/name")), (before.at("/wallet_address"), before.at("/name")));
}
