//! The `OpenAPI` document for other tools: it passes an independent validator (`PyPI` `openapi-spec-validator`), and
//! requests that another tool generates from it (`PyPI` `schemathesis`) get the documented responses, for a minute in
//! all, with the credential of an administrator, of a user and of an API key.
//!
//! Python with the two packages is searched in `.openapi` (`make openapi-tools`), then on the path. If one is missing,
//! its test reports on standard error that it skips; it downloads nothing.

#![expect(clippy::expect_used, reason = "a test that cannot go on fails")]

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use harness::TestApp;
use serde_json::json;

/// The duration of the requests with each credential, in seconds.
const SECONDS: &str = "20";

/// A bug of `CPython` 3.11 in `ast.parse` that sometimes aborts a run of schemathesis; it does not mean a wrong
/// response.
const FAULT_OF_PYTHON: &str = "AST constructor recursion depth mismatch";
/// Such a run is repeated with other requests; one of the runs must have no errors.
const SEEDS: [&str; 4] = ["9", "10", "11", "12"];

/// Operations that are not called: after `delete_profile` the credential's user may call nothing else.
const LEFT_OUT: [&str; 1] = ["delete_profile"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests/ stands in the repository").to_owned()
}

/// A Python program: the project's own, or the one on the path.
fn program(name: &str) -> PathBuf {
    let own = root().join(".openapi/bin").join(name);
    if own.exists() { own } else { name.into() }
}

fn skip(what: &str, because: &str) {
    harness::skip(what, because, "`make openapi-tools` installs it.");
}

fn document() -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().expect("a file");
    let text = app::http::openapi::document().expect("the document");
    file.write_all(text.as_bytes()).expect("it can be written");
    file
}

#[test]
fn the_document_is_valid() {
    let document = document();
    let python = if program("python").is_absolute() { program("python") } else { "python3".into() };
    let script = root().join("tests/openapi/validate.py");
    let Ok(output) = Command::new(python).arg(script).arg(document.path()).output() else {
        return skip("the OpenAPI document was not validated", "there is no Python");
    };
    let told = String::from_utf8_lossy(&output.stdout);
    if output.status.success() && told.starts_with("{\"missing\"") {
        return skip("the OpenAPI document was not validated", "openapi-spec-validator is missing");
    }
    assert!(output.status.success(), "{told}{}", String::from_utf8_lossy(&output.stderr));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_made_of_the_document_are_answered_as_it_says() {
    let schemathesis = program("schemathesis");
    if Command::new(&schemathesis).arg("--version").output().is_err() {
        return skip("no requests were made of the OpenAPI document", "schemathesis is missing");
    }
    let app = TestApp::with(|settings| {
        let limits = &mut settings.rate_limits;
        for limit in [
            &mut limits.logins_per_ip,
            &mut limits.login_failures_per_account,
            &mut limits.login_failures_before_delay,
            &mut limits.refreshes_per_ip,
            &mut limits.signups_per_ip,
        ] {
            *limit = 1_000_000;
        }
        limits.failures_per_ip = 1_000_000;
    })
    .await;
    let (admin, ada) = (app.admin().await, app.signup("ada@example.com").await);
    app.post("/api/users/me/plan").bearer(&ada).json(json!({ "plan_id": "gold" })).send().await.expect_status(200);
    let permissions = ["users:read", "usage:check", "usage:write", "ai:chat", "plans:read"];
    let key = json!({ "name": "k", "permissions": permissions });
    let key = app.post("/api/keys").bearer(&ada).json(key).send().await.expect_status(201);
    let credentials = [
        ("an administrator", format!("Authorization: Bearer {}", admin.access_token)),
        ("a user", format!("Authorization: Bearer {}", ada.access_token)),
        ("a key", format!("Authorization: Bearer {}", key.text_at("/key"))),
    ];
    let document = document();
    let folder = tempfile::tempdir().expect("a folder");
    for (who, header) in credentials {
        let run = |seed: &'static str| {
            let mut command = Command::new(&schemathesis);
            command.current_dir(folder.path()).arg("--config-file").arg(root().join("tests/openapi/schemathesis.toml"));
            command.arg("run").arg(document.path());
            command.args(["--url", &app.url(""), "--header", &header, "--max-time", SECONDS]);
            command.args(["--phases", "examples,coverage,fuzzing", "--generation-deterministic", "--seed", seed]);
            command.args(["--workers", "1", "--no-color", "--warnings", "off", "--request-timeout", "20"]);
            command.args(LEFT_OUT.iter().flat_map(|operation| ["--exclude-operation-id", operation]));
            tokio::task::spawn_blocking(move || command.output())
        };
        let (mut is_sound, mut told) = (false, String::new());
        for seed in SEEDS {
            let output = run(seed).await.expect("it runs").expect("it starts");
            told = String::from_utf8_lossy(&output.stdout).into_owned();
            is_sound = output.status.success();
            if is_sound || told.contains("= FAILURES =") || !told.contains(FAULT_OF_PYTHON) {
                break;
            }
        }
        assert!(is_sound, "with the credential of {who}:\n{told}");
    }
    app.stop().await;
}
