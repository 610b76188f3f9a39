//! Models: the catalogue in the format of each dialect. They share the path `/v1/models`; the headers tell the dialect.

use actix_web::web::{Data, Path};
use actix_web::{HttpRequest, HttpResponse};
use chrono::{DateTime, SecondsFormat, Utc};
use domain::ai::Dialect;
use domain::prices::ModelPurpose;
use serde_json::{Value, json};
use services::ai::AiService;
use services::ai::errors::CallError;
use services::prices::PricedModel;

use super::{dialect, paging};
use crate::http::caller::{Chat, PermittedCaller};
use crate::http::problem::Problem;
use crate::http::spawn::detached;

/// Lists the models that have a price: in `OpenAI`'s format, in Anthropic's with `anthropic-version`, or in Gemini's
/// with `x-goog-api-key`. Returns all of them, or a page if the dialect's own parameters ask for one.
#[utoipa::path(get, path = "/v1/models", tag = "dialects", operation_id = "list_dialect_models", params(
    ("limit" = Option<u16>, Query, minimum = 1, maximum = 1000, description = "How many, in the dialects of `OpenAI` and Anthropic"),
    ("after_id" = Option<String>, Query, description = "The id after which the page begins"),
    ("before_id" = Option<String>, Query, description = "The id before which the page ends"),
    ("pageSize" = Option<u16>, Query, description = "How many, in Gemini's dialect"),
    ("pageToken" = Option<String>, Query, description = "`nextPageToken` of the page before, in Gemini's dialect"),
), responses(
    (status = 200, description = "The models in the shape of the dialect", body = Object),
), security(("token" = []), ("key" = [])))]
pub async fn list_dialect_models(
    _asking: PermittedCaller<Chat>,
    ai: Data<AiService>,
    request: HttpRequest,
) -> Result<HttpResponse, Problem> {
    let dialect = dialect_of(&request);
    let asked = paging::PageRequest::read(dialect, request.query_string())?;
    let ai = ai.into_inner();
    let models = detached(async move { ai.models(None).await }).await?;
    let ids: Vec<&str> = models.iter().map(|priced| priced.name.as_str()).collect();
    let page = asked.page(&ids)?;
    let shown = models.get(page.from..page.to).unwrap_or_default();
    let items: Vec<_> = shown.iter().map(|model| one(dialect, model)).collect();
    Ok(HttpResponse::Ok().json(page.listed(dialect, &items, &ids)))
}

/// Reads one model, by its name or an alias.
#[utoipa::path(get, path = "/v1/models/{model}", tag = "dialects", operation_id = "read_dialect_model",
    params(("model" = String, Path, description = "The model's name, which may hold slashes")), responses(
    (status = 200, description = "The model in the shape of the dialect", body = Object),
    (status = 404, description = "No such model, with near names", body = Object),
), security(("token" = []), ("key" = [])))]
pub async fn read_dialect_model(
    _asking: PermittedCaller<Chat>,
    ai: Data<AiService>,
    request: HttpRequest,
    path: Path<String>,
) -> Result<HttpResponse, Problem> {
    let (dialect, name) = (dialect_of(&request), path.into_inner());
    let ai = ai.into_inner();
    let model = detached(async move { find(&ai, &name).await }).await?;
    Ok(HttpResponse::Ok().json(one(dialect, &model)))
}

/// Lists the models in Gemini's format.
#[utoipa::path(get, path = "/v1beta/models", tag = "dialects", operation_id = "list_gemini_models", params(
    ("pageSize" = Option<u16>, Query, description = "How many; all where nothing is said"),
    ("pageToken" = Option<String>, Query, description = "`nextPageToken` of the page before"),
), responses(
    (status = 200, description = "The models", body = Object),
), security(("token" = []), ("key" = [])))]
pub async fn list_gemini_models(
    asking: PermittedCaller<Chat>,
    ai: Data<AiService>,
    request: HttpRequest,
) -> Result<HttpResponse, Problem> {
    list_dialect_models(asking, ai, request).await
}

/// Reads one model in Gemini's format.
#[utoipa::path(get, path = "/v1beta/models/{model}", tag = "dialects", operation_id = "read_gemini_model",
    params(("model" = String, Path, description = "The model's name, which may hold slashes")), responses(
    (status = 200, description = "The model", body = Object),
    (status = 404, description = "No such model, with near names", body = Object),
), security(("token" = []), ("key" = [])))]
pub async fn read_gemini_model(
    asking: PermittedCaller<Chat>,
    ai: Data<AiService>,
    request: HttpRequest,
    path: Path<String>,
) -> Result<HttpResponse, Problem> {
    read_dialect_model(asking, ai, request, path).await
}

fn dialect_of(request: &HttpRequest) -> Dialect {
    dialect::dialect_of(request.path(), request.headers()).unwrap_or(Dialect::OpenAiChat)
}

/// Finds a model by the same rules as a call, so that every model that is shown can be called.
async fn find(ai: &AiService, name: &str) -> Result<PricedModel, Problem> {
    let target = match ai.target(name, None, ModelPurpose::Chat).await {
        Err(CallError::WrongPurpose(_)) => ai.target(name, None, ModelPurpose::Embedding).await,
        found => found,
    };
    let target = target?;
    let models = ai.models(Some(target.provider.id)).await?;
    let is_meant =
        |priced: &PricedModel| priced.model.id == target.model || priced.model.aliases.contains(&target.model);
    models.into_iter().find(is_meant).ok_or_else(|| Problem::not_found(format!("There is no model `{name}`.")))
}

fn one(dialect: Dialect, priced: &PricedModel) -> Value {
    let model = &priced.model;
    let (id, provider) = (priced.name.as_str(), model.provider.as_str());
    match dialect {
        Dialect::OpenAiChat => {
            json!({ "id": id, "object": "model", "created": since(priced).timestamp(), "owned_by": provider })
        }
        Dialect::Anthropic => {
            let since = since(priced).to_rfc3339_opts(SecondsFormat::Secs, true);
            json!({ "type": "model", "id": id, "display_name": id, "created_at": since })
        }
        Dialect::Gemini => {
            let verbs = match model.purpose {
                ModelPurpose::Chat => ["generateContent", "countTokens"],
                ModelPurpose::Embedding => ["embedContent", "batchEmbedContents"],
            };
            json!({ "name": format!("models/{id}"), "baseModelId": id, "displayName": id, "version": provider,
                "inputTokenLimit": model.max_input_tokens, "outputTokenLimit": model.max_output_tokens,
                "supportedGenerationMethods": verbs })
        }
    }
}

/// Since when it is on offer: its first price that is still valid.
fn since(priced: &PricedModel) -> DateTime<Utc> {
    priced.prices.iter().map(|price| price.valid_from).min().unwrap_or(DateTime::UNIX_EPOCH)
}
