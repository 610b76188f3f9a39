//! Coverage: every documented operation has its 401, 403, 404 and 405, and the served document equals the one in
//! `docs/`. A new route gets these tests automatically.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use harness::{Answer, Request, TestApp, TestUser};
use reqwest::Method;
use serde_json::{Value, json};

use crate::NOBODY;

/// Exceptions and their reasons: (test, operation id, reason). This list may only shrink.
const EXCEPTIONS: [(&str, &str, &str); 0] = [];

/// Routes that the document leaves out on purpose. This list may only shrink.
const UNDOCUMENTED: [&str; 0] = [];

const METHODS: [&str; 5] = ["get", "post", "put", "patch", "delete"];

pub struct Operation {
    pub id: String,
    tag: String,
    method: Method,
    path: String,
    parameters: Vec<String>,
    has_security: bool,
    pub has_body: bool,
    statuses: BTreeSet<String>,
}

pub async fn document(app: &TestApp) -> Value {
    app.get("/api/openapi.json").send().await.expect_status(200).body
}

pub fn operations(document: &Value) -> Vec<Operation> {
    let paths = document["paths"].as_object().expect("the document has paths");
    let every = paths.iter().flat_map(|(path, item)| {
        METHODS.iter().filter_map(move |method| item.get(method).map(|operation| (path, *method, operation)))
    });
    every.map(|(path, method, operation)| read_operation(path, method, operation)).collect()
}

fn read_operation(path: &str, method: &str, operation: &Value) -> Operation {
    let text = |field: &str| operation[field].as_str().unwrap_or_default().to_owned();
    let parameters = path.split('{').skip(1).filter_map(|rest| rest.split('}').next()).map(str::to_owned);
    Operation {
        id: text("operationId"),
        tag: operation["tags"][0].as_str().unwrap_or_default().to_owned(),
        method: Method::from_bytes(method.to_uppercase().as_bytes()).unwrap(),
        path: path.to_owned(),
        parameters: parameters.collect(),
        has_security: operation["security"].as_array().is_some_and(|security| !security.is_empty()),
        has_body: operation.get("requestBody").is_some(),
        statuses: operation["responses"].as_object().map(|all| all.keys().cloned().collect()).unwrap_or_default(),
    }
}

/// A valid body for each operation.
pub fn body_of(operation: &str) -> Value {
    let named = |id: &str| json!({ "id": id, "name": "x", "display_name": "x" });
    match operation {
        "sign_up" | "log_in" => json!({ "email": "ada@example.com", "password": "correct horse battery" }),
        "change_password" => json!({ "current": "correct horse battery", "password": "a staple of old batteries" }),
        "confirm_totp" | "remove_totp" => json!({ "code": "000000" }),
        "reauthenticate" => json!({ "password": "correct horse battery" }),
        "refresh" | "log_out" => json!({ "refresh_token": "x" }),
        "create_profile" => json!({ "user_id": NOBODY, "name": "x" }),
        "change_profile" | "change_plan_description" | "change_feature" | "create_key" => json!({ "name": "x" }),
        "create_plan" => named("silver"),
        "create_feature" => named("search"),
        "grant_feature" | "grant_override" => json!({ "enabled": true }),
        "change_own_plan" | "grant_plan" => json!({ "plan_id": "gold" }),
        "check_entitlement" | "consume" | "reserve" => json!({ "feature_id": "ai_requests" }),
        "consume_batch" => json!({ "items": [{ "feature_id": "ai_requests" }] }),
        "top_up_tokens" | "grant_bonus_tokens" => json!({ "user_id": NOBODY, "amount": 1 }),
        "refund_tokens" => json!({ "user_id": NOBODY, "transaction_id": NOBODY }),
        "settle_reservation" => json!({ "amount": 1 }),
        "rotate_key" | "extend_reservation" | "change_key" | "open_chat_session" | "change_chat_session" => json!({}),
        "verify_key" => json!({ "key": "x" }),
        "add_price" => {
            json!({ "provider": "claude", "model": "m", "kind": "input", "usd_per_million": "1", "version": "v" })
        }
        "change_role" => json!({ "role": "user" }),
        "chat" | "quote_chat" => json!({ "message": "x", "model": "gpt-6-sol" }),
        "create_chat_completion" | "create_message" | "count_message_tokens" => {
            json!({ "model": "gpt-6-sol", "max_tokens": 9, "messages": [{ "role": "user", "content": "x" }] })
        }
        "create_embeddings" => json!({ "model": "text-embedding-3-small", "input": "x" }),
        "call_gemini_model" | "call_gemini_model_stable" => json!({ "contents": [{ "parts": [{ "text": "x" }] }] }),
        other => panic!("the operation {other} has a body: say here which one it takes"),
    }
}

/// A value for each path parameter; most of them exist.
pub fn known(parameter: &str, user: &TestUser) -> String {
    match parameter {
        "plan_id" => "gold".to_owned(),
        "feature_id" => "ai_requests".to_owned(),
        "user_id" => user.id.to_string(),
        "model" => "gpt-6-sol".to_owned(),
        "verb" => "countTokens".to_owned(),
        "key_id" | "reservation_id" | "session_id" => NOBODY.to_owned(),
        other => panic!("the path parameter {other} is new: say here what it may be"),
    }
}

fn unknown(parameter: &str) -> &'static str {
    match parameter {
        "plan_id" | "feature_id" => "nothing",
        _ => NOBODY,
    }
}

impl Operation {
    /// The request, with `value` for each path parameter.
    pub fn request(&self, app: &TestApp, value: impl Fn(&str) -> String) -> Request {
        let mut path = self.path.clone();
        for parameter in &self.parameters {
            path = path.replace(&format!("{{{parameter}}}"), &value(parameter));
        }
        let request = app.request(self.method.clone(), &path);
        if self.has_body { request.json(body_of(&self.id)) } else { request }
    }

    /// Whether its errors have a provider's format, which the tests in `dialects` check.
    pub fn is_dialect(&self) -> bool {
        self.tag == "dialects"
    }

    /// Whether the response is an error with this status and, in our own format, this code.
    fn refuses(&self, answer: &Answer, status: u16, code: &str) -> bool {
        let is_told = if self.is_dialect() { answer.body["error"].is_object() } else { answer.body["code"] == code };
        answer.status == status && is_told
    }

    fn is_for_operators(&self) -> bool {
        ["operators", "catalogue"].contains(&self.tag.as_str())
    }
}

/// Collects all failures, so that one run shows them all, and fails for exceptions that are not needed any more.
struct Findings {
    test: &'static str,
    wrong: Vec<String>,
    excused: BTreeSet<&'static str>,
}

impl Findings {
    fn of(test: &'static str) -> Self {
        Self { test, wrong: Vec::new(), excused: BTreeSet::new() }
    }

    fn hold(&mut self, operation: &Operation, is_right: bool, said: &impl ToString) {
        if is_right {
            return;
        }
        match EXCEPTIONS.iter().find(|(test, id, _)| *test == self.test && *id == operation.id) {
            Some((_, id, _)) => drop(self.excused.insert(id)),
            None => self.wrong.push(format!("{}: {}", operation.id, said.to_string())),
        }
    }

    fn settle(self) {
        assert!(self.wrong.is_empty(), "{}", self.wrong.join("\n"));
        for (test, id, reason) in EXCEPTIONS {
            let is_needed = test != self.test || self.excused.contains(id);
            assert!(is_needed, "{id} is excused from {test} ({reason}) and does not need it: strike it out");
        }
    }
}

#[tokio::test]
async fn every_operation_that_asks_for_credentials_refuses_none_and_garbage() {
    let app = TestApp::start().await;
    let ada = app.signup("ada@example.com").await;
    let mut findings = Findings::of("401");
    let operations = operations(&document(&app).await);
    for operation in operations.iter().filter(|operation| operation.has_security) {
        let request = || operation.request(&app, |parameter| known(parameter, &ada));
        for answer in [
            request().send().await,
            request().bearer("garbage").send().await,
            request().header("X-API-Key", "garbage").send().await,
        ] {
            let is_right = operation.refuses(&answer, 401, "unauthorized");
            findings.hold(operation, is_right, &answer);
        }
    }
    findings.settle();
}

#[tokio::test]
async fn every_operation_for_operators_refuses_an_ordinary_user() {
    let app = TestApp::start().await;
    let ada = app.signup("ada@example.com").await;
    let mut findings = Findings::of("403");
    let operations = operations(&document(&app).await);
    assert!(operations.iter().any(Operation::is_for_operators));
    for operation in operations.iter().filter(|operation| operation.is_for_operators()) {
        findings.hold(operation, operation.has_security, &"it asks for no credentials");
        // Existing or not, the response is 403, so that it does not reveal what exists.
        let there = operation.request(&app, |parameter| known(parameter, &ada)).bearer(&ada).send().await;
        let not_there = operation.request(&app, |parameter| unknown(parameter).to_owned()).bearer(&ada).send().await;
        for answer in [there, not_there] {
            let is_right = answer.status == 403 && answer.body["code"] == "forbidden";
            findings.hold(operation, is_right, &answer);
        }
    }
    findings.settle();
}

#[tokio::test]
async fn every_operation_on_something_does_not_find_what_is_not_there() {
    let app = TestApp::start().await;
    let (admin, ada) = (app.admin().await, app.signup("ada@example.com").await);
    let mut findings = Findings::of("404");
    for operation in operations(&document(&app).await) {
        for missing in &operation.parameters {
            for absent in [unknown(missing), "%00", "no%20id", "..%2F.."] {
                let value = |parameter: &str| {
                    if parameter == missing { absent.to_owned() } else { known(parameter, &ada) }
                };
                let answer = operation.request(&app, value).bearer(&admin).send().await;
                let is_right = operation.refuses(&answer, 404, "not_found");
                findings.hold(&operation, is_right, &format!("{missing} = {absent}: {answer}"));
            }
        }
    }
    findings.settle();
}

#[tokio::test]
async fn every_path_names_its_methods_to_who_uses_another() {
    let app = TestApp::start().await;
    let document = document(&app).await;
    let operations = operations(&document);
    // After a colon, GET treats the rest as part of a model name; `dialects` tests the methods of these paths.
    let paths = document["paths"].as_object().unwrap().keys().filter(|path| !path.ends_with(":{verb}"));
    for path in paths {
        let here = || operations.iter().filter(|operation| operation.path == *path);
        let documented: BTreeSet<String> = here().map(|operation| operation.method.to_string()).collect();
        let first = here().next().unwrap_or_else(|| panic!("{path} has no operation"));
        let concrete = first
            .parameters
            .iter()
            .fold(path.clone(), |path, parameter| path.replace(&format!("{{{parameter}}}"), unknown(parameter)));
        for method in METHODS.map(str::to_uppercase).iter().filter(|method| !documented.contains(*method)) {
            let answer = app.request(method.parse().unwrap(), &concrete).send().await;
            let is_told = first.refuses(&answer, 405, "method_not_allowed");
            assert!(is_told, "expected 405, got {answer}");
            let allow = answer.header("allow").unwrap_or_else(|| panic!("no Allow: {answer}"));
            let allowed: BTreeSet<String> = allow.split(',').map(|method| method.trim().to_owned()).collect();
            let besides: BTreeSet<String> = ["HEAD", "OPTIONS"].map(str::to_owned).into();
            assert!(allowed.is_superset(&documented), "{path}: {allow} lacks some of {documented:?}");
            assert!(allowed.difference(&documented).all(|more| besides.contains(more)), "{path}: {allow}");
        }
    }
}

#[tokio::test]
async fn every_operation_documents_the_refusals_that_it_gives() {
    let app = TestApp::start().await;
    let mut findings = Findings::of("documented");
    let operations = operations(&document(&app).await);
    let ids: BTreeSet<&str> = operations.iter().map(|operation| operation.id.as_str()).collect();
    assert_eq!(ids.len(), operations.len(), "each operation has an id of its own");
    for operation in &operations {
        let expected = [
            ("401", operation.has_security),
            ("403", operation.has_security),
            ("404", !operation.parameters.is_empty()),
            ("400", operation.has_body),
            ("422", operation.has_body && !operation.is_dialect()),
        ];
        for (status, is_given) in expected {
            let is_documented = operation.statuses.contains(status);
            findings.hold(operation, !is_given || is_documented, &format!("{status} is not documented"));
        }
    }
    findings.settle();
}

#[tokio::test]
async fn every_route_is_documented() {
    let app = TestApp::start().await;
    let document = document(&app).await;
    let routes = fs::read_to_string(of_the_project("crates/app/src/http/routes.rs")).unwrap();
    let paths = routes.split("resource(\"").skip(1).filter_map(|rest| rest.split('"').next());
    // A model name may contain slashes, which the document's paths do not express.
    let paths: Vec<String> = paths.map(|path| path.replace(":.+}", "}")).collect();
    assert!(paths.len() > 20, "the routes are where they were: {paths:?}");
    for path in &paths {
        let is_documented = document["paths"].get(path).is_some();
        assert!(is_documented != UNDOCUMENTED.contains(&path.as_str()), "{path} is in the document: {is_documented}");
    }
    for path in document["paths"].as_object().unwrap().keys() {
        assert!(paths.contains(path), "{path} is documented and leads nowhere");
    }
}

#[tokio::test]
async fn the_document_in_docs_is_the_one_that_is_served() {
    let app = TestApp::start().await;
    let kept = fs::read_to_string(of_the_project("docs/openapi.json")).expect("docs/openapi.json: run `make docs`");
    let kept: Value = serde_json::from_str(&kept).expect("docs/openapi.json is JSON");
    let served = document(&app).await;
    assert_eq!(served["openapi"], "3.1.0");
    assert!(kept == served, "docs/openapi.json is out of date: run `make docs`");
}

fn of_the_project(path: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path)
}
