//! `OpenAPI`: the document of every route, collected from the handlers, completed here with what all routes share.
//!
//! `docs/openapi.json` is this document, written by `product-base openapi`; a test keeps them equal.

use domain::idempotency::KEY_MAX_LENGTH;
use utoipa::openapi::path::{Operation, Parameter, ParameterIn};
use utoipa::openapi::schema::{KnownFormat, ObjectBuilder, Schema, SchemaFormat, SchemaType, Type};
use utoipa::openapi::security::{ApiKey, ApiKeyValue, HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::openapi::{Content, Ref, RefOr, Response, ResponseBuilder};
use utoipa::{Modify, OpenApi};

mod refinements;

use refinements::{refine_dialect, refine_schema};

use super::problem::{CONTENT_TYPE, ProblemView};
use super::{
    ai_usage, api_keys, audit, chat, dialects, entitlements, features, identity, maintenance, metrics, own_account,
    plans, prices, second_factors, subscriptions, tokens, usage, usage_history, users,
};

#[derive(OpenApi)]
#[openapi(
    info(title = "Product Base", description = "Plans, entitlements and API keys for products that sell AI features.",
        license(name = "Apache-2.0", identifier = "Apache-2.0")),
    servers((url = "/", description = "This service")),
    paths(
        identity::sign_up, identity::log_in, identity::refresh, identity::log_out,
        own_account::change_password, own_account::reauthenticate, own_account::list_own_sessions,
        own_account::end_own_session, own_account::end_other_sessions,
        second_factors::enroll_totp, second_factors::confirm_totp, second_factors::remove_totp,
        users::create_profile, users::read_profile, users::change_profile, users::delete_profile, users::export_profile,
        users::list_users, users::read_user, users::change_role,
        plans::list_plans, plans::read_plan, plans::create_plan, plans::change_plan, plans::delete_plan,
        plans::grant_feature, plans::revoke_feature,
        features::list_features, features::read_feature, features::create_feature, features::change_feature,
        features::delete_feature,
        subscriptions::read_own_plan, subscriptions::change_own_plan, subscriptions::keep_own_plan,
        subscriptions::read_users_plan, subscriptions::grant_plan,
        entitlements::check_feature, entitlements::check_entitlement, entitlements::list_overrides,
        entitlements::grant_override, entitlements::revoke_override,
        usage::demands::consume, usage::demands::consume_batch, usage::reservations::reserve, usage::reservations::settle,
        usage::reservations::release, usage::reservations::extend,
        tokens::read_tokens, tokens::list_token_transactions, tokens::top_up_tokens, tokens::grant_bonus_tokens,
        tokens::refund_tokens,
        usage_history::list_usage, usage_history::list_all_usage,
        api_keys::create_key, api_keys::list_keys, api_keys::read_key, api_keys::change_key, api_keys::rotate_key, api_keys::revoke_key,
        api_keys::verify_key, api_keys::revoke_users_key,
        chat::calls::chat, chat::calls::quote_chat, chat::sessions::open_session, chat::sessions::list_sessions, chat::sessions::read_session, chat::sessions::change_session,
        chat::sessions::end_session, chat::sessions::delete_session, chat::messages::list_messages, chat::messages::list_history,
        ai_usage::read_usage, ai_usage::read_any_usage,
        prices::list_models, prices::list_prices, prices::add_price,
        dialects::endpoints::create_chat_completion, dialects::endpoints::create_embeddings, dialects::endpoints::create_message,
        dialects::endpoints::count_message_tokens, dialects::endpoints::call_gemini_model,
        dialects::endpoints::call_gemini_model_stable, dialects::models::list_dialect_models,
        dialects::models::read_dialect_model, dialects::models::list_gemini_models, dialects::models::read_gemini_model,
        audit::list_audit, maintenance::integrity, maintenance::liveness, maintenance::readiness,
        metrics::render,
    ),
    components(schemas(ProblemView, usage_history::BucketName)),
    modifiers(&Shared),
    tags(
        (name = "identity", description = "Accounts and sessions of the built-in identity"),
        (name = "users", description = "The own profile"),
        (name = "plans", description = "What is on offer"),
        (name = "entitlements", description = "The own plan and what it allows"),
        (name = "usage", description = "Consuming against the limits, and what was consumed"),
        (name = "tokens", description = "The own balance of tokens and its ledger"),
        (name = "ai", description = "Conversations with models, and what calls of them cost"),
        (name = "models", description = "The models of the AI providers, with their limits and prices"),
        (name = "dialects", description = "The APIs of OpenAI, Anthropic and Gemini, for their own SDKs"),
        (name = "keys", description = "API keys"),
        (name = "catalogue", description = "Plans and features, for administrators"),
        (name = "operators", description = "Users, audit and integrity, for administrators"),
        (name = "operations", description = "Liveness, readiness, metrics"),
    )
)]
pub struct ApiDocument;

/// The tag of the routes in the providers' formats.
const DIALECTS: &str = "dialects";

/// Operations whose idempotency key is stored with their rows: a repeat waits for the first, and never gets a 409.
const REPEATS_WAIT: [&str; 4] = ["consume", "reserve", "top_up_tokens", "grant_bonus_tokens"];

/// The document as text, as it is served and stored in `docs/`.
pub fn document() -> Result<String, serde_json::Error> {
    ApiDocument::openapi().to_pretty_json().map(|text| text + "\n")
}

/// What every route shares: how callers authenticate, and the problems that any of them may return.
struct Shared;

impl Modify for Shared {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        if let Some(components) = document.components.as_mut() {
            let bearer = |format| HttpBuilder::new().scheme(HttpAuthScheme::Bearer).bearer_format(format).build();
            let requests = components.schemas.iter_mut().filter(|(name, _)| name.ends_with("In"));
            requests.for_each(|(name, schema)| {
                forbid_nul(schema);
                refine_schema(name, schema);
            });
            components.add_security_scheme("token", SecurityScheme::Http(bearer("JWT")));
            components
                .add_security_scheme("key", SecurityScheme::ApiKey(ApiKey::Header(ApiKeyValue::new("X-API-Key"))));
        }
        for item in document.paths.paths.values_mut() {
            let operations = [&mut item.get, &mut item.put, &mut item.post, &mut item.delete, &mut item.patch];
            for operation in operations.into_iter().flatten() {
                complete(operation);
            }
        }
    }
}

/// No text of a request may have U+0000 (`validation` refuses it everywhere); a field's own pattern excludes it too.
fn forbid_nul(schema: &mut RefOr<Schema>) {
    let RefOr::T(Schema::Object(object)) = schema else { return };
    for property in object.properties.values_mut() {
        if let RefOr::T(Schema::Object(field)) = property
            && is_text(&field.schema_type)
            && field.pattern.is_none()
            && field.enum_values.is_none()
            && !matches!(field.format, Some(SchemaFormat::KnownFormat(KnownFormat::Uuid | KnownFormat::DateTime)))
        {
            field.pattern = Some(r"^[^\x00]*$".to_owned());
        }
    }
}

fn is_text(schema_type: &SchemaType) -> bool {
    match schema_type {
        SchemaType::Type(one) => *one == Type::String,
        SchemaType::Array(several) => several.contains(&Type::String),
        SchemaType::AnyValue => false,
    }
}

/// Describes the form of the header `Idempotency-Key`.
fn describe_key(parameter: &mut RefOr<Parameter>) {
    if let RefOr::T(parameter) = parameter
        && parameter.name == "Idempotency-Key"
    {
        let form = ObjectBuilder::new()
            .schema_type(Type::String)
            .min_length(Some(1))
            .max_length(Some(KEY_MAX_LENGTH))
            .pattern(Some("^[!-~]([ -~]*[!-~])?$"));
        parameter.schema = Some(RefOr::T(form.build().into()));
    }
}

fn complete(operation: &mut Operation) {
    operation.parameters.iter_mut().flatten().for_each(describe_key);
    if operation.tags.iter().flatten().any(|tag| tag == DIALECTS) {
        return complete_dialect(operation);
    }
    for response in operation.responses.responses.values_mut() {
        mark_as_problem(response);
    }
    let probes = ["liveness", "readiness"];
    if operation.operation_id.as_deref().is_some_and(|id| probes.contains(&id)) {
        return;
    }
    let has = |place: &ParameterIn| {
        operation.parameters.iter().flatten().any(|parameter| match parameter {
            RefOr::T(parameter) => parameter.parameter_in == *place,
            RefOr::Ref(_) => false,
        })
    };
    let (query, header) = (has(&ParameterIn::Query), has(&ParameterIn::Header));
    let body = operation.request_body.is_some();
    let mut shared = vec![("500", "A fault of ours"), ("503", "The database or a provider does not answer")];
    if operation.security.is_some() {
        shared.push(("401", "No or bad credentials"));
        shared.push(("403", "No profile yet (`profile_missing`), or not allowed (`forbidden`)"));
    }
    if operation.security.is_some() || body {
        shared.push(("429", "Too many attempts from this address"));
    }
    if body {
        shared.push(("400", "The body is not JSON"));
        shared.push(("408", "The body did not arrive in time"));
        shared.push(("413", "The body is too large"));
        shared.push(("415", "The body is not declared as JSON"));
    }
    if body || query || header {
        shared.push(("422", "A field, a parameter or a rule says no"));
    }
    let waits = operation.operation_id.as_deref().is_some_and(|id| REPEATS_WAIT.contains(&id));
    if header && !waits {
        shared.push(("409", "A request with this idempotency key is still at work"));
    }
    for (status, description) in shared {
        operation.responses.responses.entry(status.to_owned()).or_insert_with(|| RefOr::T(problem(description)));
    }
}

/// Refusals there are in the dialect, and our own statuses that the SDKs do not know become a 400.
fn complete_dialect(operation: &mut Operation) {
    refine_dialect(operation);
    let object = || RefOr::T(Schema::from(ObjectBuilder::new().schema_type(Type::Object)));
    for (status, description) in [
        ("400", "A field is wrong or cannot be translated, or the body is no JSON"),
        ("401", "No or bad credentials"),
        ("402", "The limit is reached, and the tokens do not pay for the call"),
        ("403", "Not allowed: the permission, the plan, or a model without a price"),
        ("404", "No such model"),
        ("409", "The answer under this key, or to the call that is tried again, is under way, lost or too long"),
        ("408", "The body did not arrive in time"),
        ("413", "The body is larger than the provider takes"),
        ("422", "The idempotency key was used with another body"),
        ("429", "A limit of the plan or the key, or the provider takes no more"),
        ("500", "A fault of ours"),
        ("502", "The provider failed"),
        ("503", "The provider has no key or is left alone for a while, or the database does not answer"),
        ("504", "The provider took too long"),
    ] {
        let content = Content::new(Some(object()));
        let refusal = ResponseBuilder::new().description(description).content("application/json", content).build();
        operation.responses.responses.entry(status.to_owned()).or_insert_with(|| RefOr::T(refusal));
    }
}

fn problem(description: &str) -> Response {
    let schema = Ref::from_schema_name("Problem");
    ResponseBuilder::new().description(description).content(CONTENT_TYPE, Content::new(Some(schema))).build()
}

/// A handler names only the body of a problem; its media type is set here for all.
fn mark_as_problem(response: &mut RefOr<Response>) {
    let RefOr::T(response) = response else { return };
    let is_problem = |content: &RefOr<Content>| match content {
        RefOr::T(Content { schema: Some(RefOr::Ref(reference)), .. }) => reference.ref_location.ends_with("/Problem"),
        _ => false,
    };
    if response.content.get("application/json").is_some_and(is_problem)
        && let Some(content) = response.content.swap_remove("application/json")
    {
        response.content.insert(CONTENT_TYPE.to_owned(), content);
    }
}
