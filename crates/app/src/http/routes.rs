//! Routes: the handler of each path. Resources, not macros, so that a wrong method is a 405 with `Allow`.

use actix_web::body::MessageBody;
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::http::header::{CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderValue};
use actix_web::middleware::{Next, from_fn};
use actix_web::web::{self, ServiceConfig, resource, scope};
use actix_web::{HttpResponse, guard};

use super::bodies::BodyLimit;
use super::chat::{calls, messages, sessions};
use super::dialects::{endpoints, models};
use super::problem::Problem;
use super::usage::{demands, reservations};
use super::{
    ai_usage, api_keys, audit, entitlements, features, identity, maintenance, metrics, openapi, own_account, plans,
    prices, second_factors, subscriptions, tokens, usage_history, users,
};

/// What the pages of the documentation may load: their own files. The viewer writes styles into its elements.
const PAGE_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; \
    font-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// Every route of the service; the documentation is a setting (`server.docs`).
pub fn routes(config: &mut ServiceConfig, with_documentation: bool) {
    config
        .configure(operations)
        .configure(accounts)
        .configure(own)
        .configure(metering)
        .configure(ledger)
        .configure(ai)
        .configure(catalogue)
        .configure(keys)
        .configure(dialects)
        .configure(operators)
        .default_service(web::to(nothing_here));
    if with_documentation {
        documentation(config);
    }
}

async fn nothing_here() -> Result<HttpResponse, Problem> {
    Err(Problem::not_found("There is nothing at this address. The routes are listed at /api/docs."))
}

fn operations(config: &mut ServiceConfig) {
    config
        .service(resource("/healthz").get(maintenance::liveness).head(maintenance::liveness))
        .service(resource("/readyz").get(maintenance::readiness).head(maintenance::readiness))
        .service(resource("/metrics").get(metrics::render));
}

fn accounts(config: &mut ServiceConfig) {
    config
        .service(resource("/api/auth/signup").post(identity::sign_up))
        .service(resource("/api/auth/login").post(identity::log_in))
        .service(resource("/api/auth/refresh").post(identity::refresh))
        .service(resource("/api/auth/logout").post(identity::log_out))
        .service(resource("/api/auth/password/change").post(own_account::change_password))
        .service(resource("/api/auth/totp").delete(second_factors::remove_totp))
        .service(resource("/api/auth/totp/enroll").post(second_factors::enroll_totp))
        .service(resource("/api/auth/totp/confirm").post(second_factors::confirm_totp))
        .service(resource("/api/auth/reauthenticate").post(own_account::reauthenticate))
        .service(
            resource("/api/auth/sessions").get(own_account::list_own_sessions).delete(own_account::end_other_sessions),
        )
        .service(resource("/api/auth/sessions/{session_id}").delete(own_account::end_own_session));
}

fn own(config: &mut ServiceConfig) {
    config
        .service(resource("/api/users").post(users::create_profile))
        .service(
            resource("/api/users/me")
                .get(users::read_profile)
                .patch(users::change_profile)
                .delete(users::delete_profile),
        )
        .service(resource("/api/users/me/export").get(users::export_profile))
        .service(resource("/api/users/me/plan").get(subscriptions::read_own_plan).post(subscriptions::change_own_plan))
        .service(resource("/api/users/me/plan/scheduled").delete(subscriptions::keep_own_plan))
        .service(resource("/api/users/me/features/{feature_id}").get(entitlements::check_feature))
        .service(resource("/api/entitlements/check").post(entitlements::check_entitlement));
}

fn metering(config: &mut ServiceConfig) {
    let batch = resource("/api/usage/batch").app_data(BodyLimit(demands::BATCH_BODY_LIMIT));
    config
        .service(resource("/api/usage").get(usage_history::list_usage).post(demands::consume))
        .service(batch.post(demands::consume_batch))
        .service(resource("/api/usage/reservations").post(reservations::reserve))
        .service(resource("/api/usage/reservations/{reservation_id}/settle").post(reservations::settle))
        .service(resource("/api/usage/reservations/{reservation_id}/release").post(reservations::release))
        .service(resource("/api/usage/reservations/{reservation_id}/extend").post(reservations::extend));
}

fn ledger(config: &mut ServiceConfig) {
    config
        .service(resource("/api/tokens").get(tokens::read_tokens))
        .service(resource("/api/tokens/transactions").get(tokens::list_token_transactions))
        .service(resource("/api/tokens/topup").post(tokens::top_up_tokens))
        .service(resource("/api/tokens/bonus").post(tokens::grant_bonus_tokens))
        .service(resource("/api/tokens/refund").post(tokens::refund_tokens));
}

fn ai(config: &mut ServiceConfig) {
    let room = || BodyLimit(calls::CHAT_BODY_LIMIT);
    config
        .service(resource("/api/ai/chat").app_data(room()).post(calls::chat))
        .service(resource("/api/ai/quote").app_data(room()).post(calls::quote_chat))
        .service(resource("/api/ai/sessions").get(sessions::list_sessions).post(sessions::open_session))
        .service(
            resource("/api/ai/sessions/{session_id}")
                .get(sessions::read_session)
                .patch(sessions::change_session)
                .delete(sessions::delete_session),
        )
        .service(resource("/api/ai/sessions/{session_id}/end").post(sessions::end_session))
        .service(resource("/api/ai/sessions/{session_id}/messages").get(messages::list_messages))
        .service(resource("/api/ai/usage").get(ai_usage::read_usage))
        .service(resource("/api/ai/history").get(messages::list_history));
}

fn catalogue(config: &mut ServiceConfig) {
    config
        .service(resource("/api/plans").get(plans::list_plans).post(plans::create_plan))
        .service(
            resource("/api/plans/{plan_id}").get(plans::read_plan).patch(plans::change_plan).delete(plans::delete_plan),
        )
        .service(
            resource("/api/plans/{plan_id}/features/{feature_id}")
                .put(plans::grant_feature)
                .delete(plans::revoke_feature),
        )
        .service(resource("/api/models").get(prices::list_models))
        .service(resource("/api/features").get(features::list_features).post(features::create_feature))
        .service(
            resource("/api/features/{feature_id}")
                .get(features::read_feature)
                .patch(features::change_feature)
                .delete(features::delete_feature),
        );
}

fn keys(config: &mut ServiceConfig) {
    config
        .service(resource("/api/keys").get(api_keys::list_keys).post(api_keys::create_key))
        .service(resource("/api/keys/verify").post(api_keys::verify_key))
        .service(
            resource("/api/keys/{key_id}")
                .get(api_keys::read_key)
                .patch(api_keys::change_key)
                .delete(api_keys::revoke_key),
        )
        .service(resource("/api/keys/{key_id}/rotate").post(api_keys::rotate_key));
}

/// The routes of the dialects. A model's name may contain slashes, and tuned ones colons: one of Gemini's verbs follows
/// the last colon of a POST, and a GET reads the model of that name.
fn dialects(config: &mut ServiceConfig) {
    let chat = resource("/v1/chat/completions");
    let embeddings = resource("/v1/embeddings");
    let messages = resource("/v1/messages");
    let counting = resource("/v1/messages/count_tokens");
    let stable = resource("/v1/models/{model:.+}:{verb}").guard(guard::Post());
    let beta = resource("/v1beta/models/{model:.+}:{verb}").guard(guard::Post());
    config
        .service(chat.post(endpoints::create_chat_completion))
        .service(embeddings.post(endpoints::create_embeddings))
        .service(messages.post(endpoints::create_message))
        .service(counting.post(endpoints::count_message_tokens))
        .service(stable.post(endpoints::call_gemini_model_stable))
        .service(beta.post(endpoints::call_gemini_model))
        .service(resource("/v1/models").get(models::list_dialect_models))
        .service(resource("/v1/models/{model:.+}").get(models::read_dialect_model))
        .service(resource("/v1beta/models").get(models::list_gemini_models))
        .service(resource("/v1beta/models/{model:.+}").get(models::read_gemini_model));
}

fn operators(config: &mut ServiceConfig) {
    config
        .service(resource("/api/admin/users").get(users::list_users))
        .service(resource("/api/admin/users/{user_id}").get(users::read_user))
        .service(resource("/api/admin/users/{user_id}/role").put(users::change_role))
        .service(
            resource("/api/admin/users/{user_id}/plan")
                .get(subscriptions::read_users_plan)
                .post(subscriptions::grant_plan),
        )
        .service(resource("/api/admin/users/{user_id}/overrides").get(entitlements::list_overrides))
        .service(
            resource("/api/admin/users/{user_id}/overrides/{feature_id}")
                .put(entitlements::grant_override)
                .delete(entitlements::revoke_override),
        )
        .service(resource("/api/admin/users/{user_id}/keys/{key_id}").delete(api_keys::revoke_users_key))
        .service(resource("/api/admin/usage").get(usage_history::list_all_usage))
        .service(resource("/api/admin/ai/usage").get(ai_usage::read_any_usage))
        .service(resource("/api/admin/prices").get(prices::list_prices).post(prices::add_price))
        .service(resource("/api/admin/audit").get(audit::list_audit))
        .service(resource("/api/admin/integrity").get(maintenance::integrity));
}

fn documentation(config: &mut ServiceConfig) {
    use utoipa::OpenApi;
    let pages = utoipa_swagger_ui::SwaggerUi::new("/api/docs/{_:.*}");
    let pages = pages.url("/api/openapi.json", openapi::ApiDocument::openapi());
    config
        .service(scope("").wrap(from_fn(dress_page)).service(web::redirect("/api/docs", "/api/docs/")).service(pages));
}

/// Adds the headers that a browser needs for our pages: the charset, and that nothing is loaded from elsewhere.
async fn dress_page(
    request: ServiceRequest,
    next: Next<impl MessageBody>,
) -> Result<ServiceResponse<impl MessageBody>, actix_web::Error> {
    let mut response = next.call(request).await?;
    let headers = response.headers_mut();
    let bare = headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).filter(|kind| !kind.contains("charset"));
    let text = bare.filter(|kind| kind.starts_with("text/") || kind.ends_with("javascript"));
    if let Some(named) = text.and_then(|kind| HeaderValue::from_str(&format!("{kind}; charset=utf-8")).ok()) {
        headers.insert(CONTENT_TYPE, named);
    }
    headers.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(PAGE_POLICY));
    Ok(response)
}
