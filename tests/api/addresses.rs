//! Normalization of addresses and passwords: all spellings of an address are one account, and look-alikes are refused.

use adapters::secrets::passwords::Argon2Passwords;
use harness::{Answer, PASSWORD, TestApp};
use ports::identity::PasswordHasher as _;
use serde_json::json;

use crate::expect_field;
use crate::identity::log_in;

async fn sign_up(app: &TestApp, email: &str, password: &str) -> Answer {
    app.post("/api/auth/signup").json(json!({ "email": email, "password": password })).send().await
}

#[tokio::test]
async fn an_address_that_grows_or_hides_something_is_told_so() {
    let app = TestApp::start().await;
    for email in [
        "a@İstanbul.com".to_owned(),
        format!("{}@example.com", "İ".repeat(110)),
        format!("{}@x.y", "İ".repeat(220)),
        "a\u{200B}da@example.com".to_owned(),
        "ada@exam\u{AD}ple.com".to_owned(),
        "\u{FEFF}ada@example.com".to_owned(),
        "ada\u{202E}@example.com".to_owned(),
        "ada\u{2066}@example.com".to_owned(),
        "ａda@example.com".to_owned(),
        "ada@ｅxample.com".to_owned(),
    ] {
        expect_field(sign_up(&app, &email, PASSWORD).await, "email");
        log_in(&app, &email, PASSWORD).await.expect_problem(401, "wrong_credentials");
    }
    let accounts: i64 = app.database().query_scalar("SELECT count(*) FROM auth.users").await;
    assert_eq!(accounts, 1);
}

#[tokio::test]
async fn what_may_be_entered_is_read_back_and_one_spelling_is_one_account() {
    let app = TestApp::start().await;
    for (number, email) in
        ["İx@example.com", "ÄDA@exämple.com", "пример@пример.рф", "ΣΑΣ@example.com"].iter().enumerate()
    {
        let made = sign_up(&app, email, PASSWORD).await.expect_status(201);
        app.get("/api/users/me").bearer(made.text_at("/access_token")).send().await.expect_status(200);
        log_in(&app, email, PASSWORD).await.expect_status(200);
        log_in(&app, &email.to_lowercase(), PASSWORD).await.expect_status(200);
        let accounts: i64 = app.database().query_scalar("SELECT count(*) FROM auth.users").await;
        assert_eq!(accounts, 2 + i64::try_from(number).unwrap());
    }
    sign_up(&app, "A\u{308}da@exa\u{308}mple.com", PASSWORD).await.expect_problem(409, "email_taken");
    log_in(&app, "a\u{308}da@exa\u{308}mple.com", PASSWORD).await.expect_status(200);
}

#[tokio::test]
async fn a_password_is_the_same_in_every_spelling_of_it() {
    let app = TestApp::start().await;
    let (composed, decomposed) = ("mot de passé à moi", "mot de passe\u{301} a\u{300} moi");
    sign_up(&app, "ada@example.com", decomposed).await.expect_status(201);
    for password in [composed, decomposed, "mot de passé à \u{FF4D}oi"] {
        log_in(&app, "ada@example.com", password).await.expect_status(200);
    }
    log_in(&app, "ada@example.com", "mot de passe a moi").await.expect_problem(401, "wrong_credentials");
    // Six characters in the normalized form that is hashed.
    expect_field(sign_up(&app, "bob@example.com", &"e\u{301}".repeat(6)).await, "password");
}

/// Accounts of earlier releases: address and password were stored as entered.
#[tokio::test]
async fn an_account_of_an_earlier_release_logs_in_and_its_hash_is_brought_up_to_date() {
    let app = TestApp::start().await;
    let decomposed = "mot de passe\u{301} a\u{300} moi";
    let hash = Argon2Passwords::default().hash(decomposed.to_owned()).await.unwrap();
    let id = app.signup("ada@example.com").await.id;
    for email in ["a\u{308}da@example.com", "a\u{200B}da@example.com"] {
        app.database()
            .sql(&format!("UPDATE auth.users SET email = '{email}', encrypted_password = '{hash}' WHERE id = '{id}'"))
            .await;
        log_in(&app, email, "mot de passé à moi").await.expect_problem(401, "wrong_credentials");
        let shown = log_in(&app, email, decomposed).await.expect_status(200);
        assert_eq!(shown.text_at("/user/email"), email);
        log_in(&app, email, "mot de passé à moi").await.expect_status(200);
        log_in(&app, email, decomposed).await.expect_status(200);
    }
}
