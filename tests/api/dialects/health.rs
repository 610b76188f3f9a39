//! Circuit breakers by model and caller, and the number of attempts for a call.

use app::settings::shape::Settings;
use harness::{Answer, TestApp};
use testkit::upstream::{Fault, Refusal, Script, Upstream, Why};

use super::asking::{Dialect, key_of};
use super::calls::{allow, streamed};
use super::upstream::with;

const MODEL: &str = "gpt-6-sol";
const OTHER: &str = "gpt-5.4";

fn watchful(settings: &mut Settings) {
    (settings.ai.breaker_failures, settings.ai.breaker_callers, settings.ai.breaker_open_seconds) = (4, 2, 60);
}

async fn tenant(app: &TestApp, name: &str) -> String {
    let user = app.signup(&format!("{name}@example.com")).await;
    allow(app, &user, None).await;
    key_of(app, &user, &["ai:chat"]).await
}

async fn ask(app: &TestApp, key: &str, model: &str) -> Answer {
    Dialect::OpenAi.ask(app, key, model).send().await
}

#[tokio::test]
async fn a_model_rests_alone_and_never_for_the_failures_of_one_tenant() {
    let stub = Upstream::start();
    let app = with(&stub, watchful).await;
    let (ada, bob, eve) = (tenant(&app, "ada").await, tenant(&app, "bob").await, tenant(&app, "eve").await);
    stub.script(MODEL, Script::refuses(Refusal::of(Why::Unavailable)));
    for _ in 0..12 {
        ask(&app, &ada, MODEL).await.expect_status(502);
    }
    for _ in 0..2 {
        ask(&app, &bob, MODEL).await.expect_status(502);
    }
    let resting = ask(&app, &eve, MODEL).await.expect_status(503);
    assert_eq!(resting.text_at("/error/code"), "provider_circuit_open");
    assert_eq!(stub.totals().requests, 14);
    for key in [&ada, &bob, &eve] {
        ask(&app, key, OTHER).await.expect_status(200);
    }
    let page = app.metrics().send().await.expect_status(200);
    assert!(page.text.contains("ai_breaker_open{gen_ai_provider_name=\"openai\"} 1\n"), "{page}");
}

#[tokio::test]
async fn what_callers_cause_and_what_we_cannot_read_rests_nobody() {
    let stub = Upstream::start();
    let app = with(&stub, watchful).await;
    let tenants = [tenant(&app, "ada").await, tenant(&app, "bob").await, tenant(&app, "eve").await];
    for script in [
        Script::refuses(Refusal::of(Why::Invalid("no".to_owned()))),
        Script::refuses(Refusal::of(Why::Unauthenticated)),
        Script::refuses(Refusal::of(Why::Forbidden)),
        Script::refuses(Refusal::of(Why::NotFound("no".to_owned()))),
        Script::refuses(Refusal::of(Why::Proxy(408))),
        Script::refuses(Refusal::of(Why::Proxy(409))),
        Script::refuses(Refusal::of(Why::TooLarge)),
        Script::refuses(Refusal::of(Why::Proxy(422))),
        Script::refuses(Refusal::of(Why::TooFast)),
        Script::refuses(Refusal::of(Why::SpendLimit)),
        Script::fails(Fault::Garbage { after_events: 0 }),
        Script::fails(Fault::WrongContentType("text/html".to_owned())),
    ] {
        let shown = format!("{:?}", script.fault);
        stub.script(MODEL, script);
        stub.clear();
        for _ in 0..3 {
            for key in &tenants {
                ask(&app, key, MODEL).await;
                streamed(Dialect::OpenAi, &app, key, MODEL, "x").send().await;
            }
        }
        assert_eq!(stub.totals().requests, 18, "nobody is held back: {shown}");
    }
}

#[tokio::test]
async fn our_attempts_do_not_multiply_those_of_an_sdk() {
    let stub = Upstream::start();
    let app = with(&stub, |settings| {
        settings.ai.openai.max_attempts = 3;
        settings.ai.breaker_failures = 1_000;
    })
    .await;
    let ada = tenant(&app, "ada").await;
    stub.script(MODEL, Script::refuses(Refusal::of(Why::Unavailable)));
    for retries in ["0", "1", "2"] {
        let request = Dialect::OpenAi.ask(&app, &ada, MODEL).header("x-stainless-retry-count", retries);
        request.send().await.expect_status(502);
    }
    assert_eq!(stub.totals().requests, 3, "one create() with two retries");
    ask(&app, &ada, MODEL).await.expect_status(502);
    assert_eq!(stub.totals().requests, 6, "whoever does not try again is tried for");
}
