//! The middleware over a small app, without a socket.

use std::path::Path;

use actix_web::body::to_bytes;
use actix_web::dev::Service;
use actix_web::http::header::{
    ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_REQUEST_METHOD, ALLOW, AUTHORIZATION, CACHE_CONTROL, CONTENT_TYPE,
    ORIGIN, RETRY_AFTER,
};
use actix_web::middleware::from_fn;
use actix_web::test::{TestRequest, init_service};
use actix_web::web::{self, Json};
use actix_web::{App, HttpResponse};
use serde_json::{Value, json};

use super::*;

struct Counting;

impl Randomness for Counting {
    fn new_id(&self) -> uuid::Uuid {
        uuid::Uuid::from_u128(7)
    }

    fn below(&self, _: u64) -> u64 {
        0
    }
}

struct Answered {
    status: u16,
    headers: HeaderMap,
    body: Vec<u8>,
}

impl Answered {
    fn header(&self, name: impl actix_web::http::header::AsHeaderName) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }

    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }
}

fn finishing() -> Data<MiddlewareSettings> {
    let mut variables = std::collections::HashMap::new();
    variables.insert("PB__SERVER__CORS_ORIGINS".to_owned(), "https://app.example.com".to_owned());
    variables.insert("PB__SERVER__REQUEST_TIMEOUT_SECONDS".to_owned(), "1".to_owned());
    let settings = crate::settings::load::load(&variables, Path::new("/nonexistent")).unwrap();
    Data::new(MiddlewareSettings::new(&settings.server, Arc::new(Counting)).unwrap())
}

async fn answered(request: TestRequest) -> Answered {
    let refuse = || async { Err::<HttpResponse, _>(Problem::invalid_field("name", "is missing").with_retry_after(3)) };
    let own = || async { HttpResponse::ServiceUnavailable().json(json!({ "status": "not_ready" })) };
    let slow = || async {
        tokio::time::sleep(Duration::from_secs(5)).await;
        HttpResponse::Ok().finish()
    };
    let broken = || async {
        assert!(finishing().deadline.is_zero(), "this handler is broken");
        HttpResponse::Ok().finish()
    };
    let app = App::new()
        .app_data(finishing())
        .wrap(from_fn(finish))
        .service(web::resource("/things/{id}").get(|| async { HttpResponse::Ok().json(json!([])) }).post(refuse))
        .service(web::resource("/own").get(own))
        .service(web::resource("/numbers").post(|number: Json<u32>| async move { Json(number.0) }))
        .service(web::resource("/numbers/{number}").get(|number: web::Path<u32>| async move { Json(*number) }))
        .service(web::resource("/slow").get(slow))
        .service(web::resource("/broken").get(broken));
    let app = init_service(app).await;
    match app.call(request.to_request()).await {
        Ok(response) => {
            let (status, headers) = (response.status().as_u16(), response.headers().clone());
            Answered { status, headers, body: to_bytes(response.into_body()).await.ok().unwrap().to_vec() }
        }
        Err(error) => {
            let response = error.error_response();
            let (status, headers) = (response.status().as_u16(), response.headers().clone());
            Answered { status, headers, body: to_bytes(response.into_body()).await.unwrap().to_vec() }
        }
    }
}

#[actix_web::test]
async fn every_refusal_is_a_whole_problem() {
    let json_body =
        |text: &'static str| TestRequest::post().insert_header((CONTENT_TYPE, "application/json")).set_payload(text);
    for (request, path, status, code) in [
        (TestRequest::get().uri("/nothing?secret=1"), "/nothing", 404, "not_found"),
        (TestRequest::get().uri("/numbers/x"), "/numbers/x", 404, "not_found"),
        (TestRequest::delete().uri("/things/1"), "/things/1", 405, "method_not_allowed"),
        (TestRequest::post().uri("/things/1"), "/things/1", 422, "invalid"),
        (json_body("{").uri("/numbers"), "/numbers", 400, "malformed"),
        (TestRequest::get().uri("/slow"), "/slow", 503, "deadline_passed"),
        (TestRequest::get().uri("/broken"), "/broken", 500, "internal"),
    ] {
        let answer = answered(request).await;
        let body = answer.json();
        assert_eq!(answer.status, status, "{body}");
        assert_eq!(answer.header(CONTENT_TYPE), Some("application/problem+json"));
        assert_eq!((&body["status"], &body["code"]), (&json!(status), &json!(code)));
        assert_eq!(body["instance"], path);
        assert_eq!(body["request_id"], answer.header(&REQUEST_ID).unwrap());
        assert_eq!(answer.header(X_CONTENT_TYPE_OPTIONS), Some("nosniff"));
        assert_eq!(answer.header(CACHE_CONTROL), Some("no-store"));
    }
}

#[actix_web::test]
async fn a_refusal_keeps_its_headers_and_fields() {
    let answer = answered(TestRequest::delete().uri("/things/1")).await;
    let allow = answer.header(ALLOW).unwrap();
    assert!(allow.contains("GET") && allow.contains("POST"), "{allow}");
    let answer = answered(TestRequest::post().uri("/things/1")).await;
    assert_eq!(answer.header(RETRY_AFTER), Some("3"));
    assert_eq!(answer.json()["errors"][0]["field"], "name");
}

#[actix_web::test]
async fn a_handler_s_own_body_is_left() {
    let answer = answered(TestRequest::get().uri("/own")).await;
    assert_eq!((answer.status, answer.json()), (503, json!({ "status": "not_ready" })));
}

#[actix_web::test]
async fn a_request_id_is_echoed_if_it_is_one() {
    let with = |id: &str| TestRequest::get().uri("/things/1").insert_header(("x-request-id", id.to_owned()));
    assert_eq!(answered(with("order-7_a.B")).await.header(&REQUEST_ID), Some("order-7_a.B"));
    let own = "00000000-0000-0000-0000-000000000007";
    for refused in ["", "a b", "a\"b", &"a".repeat(65)] {
        assert_eq!(answered(with(refused)).await.header(&REQUEST_ID), Some(own), "{refused}");
    }
}

#[actix_web::test]
async fn what_credentials_opened_is_stored_by_nobody() {
    let open = answered(TestRequest::get().uri("/things/1")).await;
    assert_eq!(open.header(CACHE_CONTROL), None);
    assert_eq!((open.header(REFERRER_POLICY), open.header(X_FRAME_OPTIONS)), (Some("no-referrer"), Some("DENY")));
    let private = answered(TestRequest::get().uri("/things/1").insert_header((AUTHORIZATION, "Bearer x"))).await;
    assert_eq!(private.header(CACHE_CONTROL), Some("no-store"));
}

#[actix_web::test]
async fn pages_of_listed_origins_read_answers_and_refusals() {
    let page = "https://app.example.com";
    let preflight = TestRequest::default()
        .method(Method::OPTIONS)
        .uri("/things/1")
        .insert_header((ORIGIN, page))
        .insert_header((ACCESS_CONTROL_REQUEST_METHOD, "POST"));
    let answer = answered(preflight).await;
    assert_eq!((answer.status, answer.header(ACCESS_CONTROL_ALLOW_ORIGIN)), (204, Some(page)));
    for uri in ["/things/1", "/nothing", "/slow"] {
        let answer = answered(TestRequest::get().uri(uri).insert_header((ORIGIN, page))).await;
        assert_eq!(answer.header(ACCESS_CONTROL_ALLOW_ORIGIN), Some(page), "{uri}");
    }
    let other = answered(TestRequest::get().uri("/things/1").insert_header((ORIGIN, "https://evil.test"))).await;
    assert_eq!(other.header(ACCESS_CONTROL_ALLOW_ORIGIN), None);
}
