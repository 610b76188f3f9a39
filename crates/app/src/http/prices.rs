//! Prices: the models with prices, for callers; all prices, and adding one, for administrators.

use actix_web::HttpResponse;
use actix_web::http::StatusCode;
use actix_web::web::{Data, Json};
use chrono::{DateTime, Utc};
use domain::ai::{Geo, ModelId, ProviderId, ProviderProfiles, Tier};
use domain::prices::{
    ModelPrice, ModelPurpose, PriceDraft, PriceId, PriceKey, PriceKind, PriceRefused, PriceSource, UnitPrice,
};
use ports::prices::PriceFilter;
use rust_decimal::Decimal;
use serde::{Deserialize, Serialize};
use services::prices::{PriceError, PriceService, PricedModel};
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;
use validator::Validate;

use super::caller::{PermittedCaller, ReadCatalogue, ReadOwnPlan, WriteCatalogue};
use super::idempotent::{RequestKey, answer};
use super::pages::{ListView, PageQuery, PageView};
use super::problem::{Problem, ProblemView};
use super::recent::RecentCaller;
use super::spawn::detached;
use super::validation::{ValidBody, ValidQuery, in_calendar, one_line};

#[derive(Deserialize, Validate, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PriceIn {
    #[schema(value_type = ProviderName)]
    provider: ProviderId,
    /// The model's name at its provider: 1 to 200 visible ASCII characters.
    #[validate(length(min = 1, max = 200))]
    #[schema(pattern = "^[!-~]{1,200}$", min_length = 1, max_length = 200)]
    model: String,
    #[schema(value_type = PriceKindName)]
    kind: PriceKind,
    /// `standard` by default.
    #[serde(default)]
    #[schema(value_type = Option<TierName>)]
    tier: Option<Tier>,
    /// Where the call is served, such as `us`; anywhere by default.
    #[serde(default)]
    #[validate(length(min = 1, max = 20))]
    #[schema(pattern = "^[a-z0-9_-]{1,20}$", min_length = 1, max_length = 20)]
    geo: Option<String>,
    /// Applies to requests with more input tokens than this, as a whole; to all by default.
    #[serde(default, deserialize_with = "super::validation::whole")]
    #[validate(range(min = 0, max = 1_000_000_000))]
    #[schema(minimum = 0, maximum = 1_000_000_000)]
    threshold_tokens: Option<i64>,
    /// US dollars for a million tokens, or calls; not negative, at most six decimals, as text: `"2.50"`.
    #[schema(value_type = String, pattern = r"^[0-9]{1,12}(\.[0-9]{1,6})?$", example = "2.50")]
    usd_per_million: Decimal,
    /// The edition of your prices that it belongs to; it is stored with every call that it bills.
    #[validate(length(min = 1, max = 100), custom(function = "one_line"))]
    #[schema(
        pattern = r"^[^\x00-\x1F\x7F-\x9F]*[^\s\x00-\x1F\x7F-\x9F][^\x00-\x1F\x7F-\x9F]*$",
        min_length = 1,
        max_length = 100
    )]
    version: String,
    /// When it takes effect: now by default, and never in the past.
    #[serde(default)]
    #[validate(custom(function = "in_calendar"))]
    valid_from: Option<DateTime<Utc>>,
}

#[derive(Deserialize, Validate, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub struct PriceQuery {
    /// Only prices of this provider.
    #[param(value_type = Option<ProviderName>, inline)]
    provider: Option<ProviderId>,
    /// Only prices of this model.
    #[validate(length(min = 1, max = 200))]
    #[param(min_length = 1, max_length = 200, pattern = "^[!-~]{1,200}$")]
    model: Option<String>,
    /// Only prices in force now (true), or only the others (false).
    in_force: Option<bool>,
    /// How many rows to show; 20 by default.
    #[validate(range(min = 1, max = 100))]
    #[param(minimum = 1, maximum = 100)]
    limit: Option<u64>,
    /// `next_cursor` of the previous page.
    #[validate(length(max = 100))]
    #[param(pattern = r"^[0-9]{1,16}_[0-9a-f]{32}$")]
    cursor: Option<String>,
}

#[derive(Deserialize, Validate, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub struct ModelQuery {
    /// Only models of this provider.
    #[param(value_type = Option<ProviderName>, inline)]
    provider: Option<ProviderId>,
}

/// The name of a provider of the settings: `openai`, `claude`, `gemini`, or one that the operator added.
#[derive(ToSchema)]
#[schema(value_type = String, pattern = "^[a-z][a-z0-9_-]{0,19}$", min_length = 1, max_length = 20, example = "openai")]
pub struct ProviderName(pub String);

/// How fast and how reliably a call is served.
#[derive(ToSchema)]
#[schema(rename_all = "snake_case")]
pub enum TierName {
    Standard,
    Batch,
    Flex,
    Priority,
    Fast,
}

/// What is priced: a kind of tokens, or calls of the provider's own tools.
#[derive(ToSchema)]
#[schema(rename_all = "snake_case")]
pub enum PriceKindName {
    Input,
    CacheRead,
    CacheWriteShort,
    CacheWriteLong,
    Output,
    Reasoning,
    AudioInput,
    AudioOutput,
    ImageInput,
    ImageOutput,
    SearchCall,
    FetchCall,
    CodeCall,
}

#[derive(ToSchema)]
#[schema(rename_all = "snake_case")]
pub enum PurposeName {
    Chat,
    Embedding,
}

#[derive(ToSchema)]
#[schema(rename_all = "snake_case")]
pub enum PriceSourceName {
    Catalogue,
    Operator,
}

#[derive(Serialize, ToSchema)]
pub struct PriceView {
    pub id: Uuid,
    #[schema(value_type = ProviderName)]
    pub provider: ProviderId,
    #[schema(example = "gpt-6-sol")]
    pub model: String,
    #[serde(flatten)]
    pub rate: RateView,
    #[schema(example = "2026-11-12")]
    pub version: String,
    /// `catalogue` for the settings' file, `operator` for an administrator.
    #[schema(value_type = PriceSourceName)]
    pub source: PriceSource,
    pub valid_from: DateTime<Utc>,
    /// When it ended or will end; null while no successor is known.
    #[schema(required = true)]
    pub valid_to: Option<DateTime<Utc>>,
}

/// What is priced, and its price.
#[derive(Serialize, ToSchema)]
pub struct RateView {
    #[schema(value_type = PriceKindName)]
    pub kind: PriceKind,
    #[schema(value_type = TierName)]
    pub tier: Tier,
    /// Null is anywhere.
    #[schema(required = true)]
    pub geo: Option<String>,
    /// It applies to requests with more input tokens than this; 0 is all of them.
    pub threshold_tokens: u64,
    /// US dollars for a million, as text.
    #[schema(example = "2.5")]
    pub usd_per_million: String,
}

#[derive(Serialize, ToSchema)]
pub struct ModelView {
    #[schema(example = "gpt-6-sol")]
    pub id: String,
    #[schema(value_type = ProviderName)]
    pub provider: ProviderId,
    #[schema(value_type = PurposeName)]
    pub purpose: ModelPurpose,
    /// Other names of the same model.
    pub aliases: Vec<String>,
    /// Null if it is not known.
    #[schema(required = true)]
    pub max_input_tokens: Option<u64>,
    #[schema(required = true)]
    pub max_output_tokens: Option<u64>,
    /// When the provider retires it; null if no day is known.
    #[schema(required = true)]
    pub until: Option<DateTime<Utc>>,
    /// The prices in force, each for one kind of tokens.
    pub prices: Vec<RateView>,
}

impl From<&ModelPrice> for RateView {
    fn from(price: &ModelPrice) -> Self {
        let key = &price.key;
        Self {
            kind: key.kind,
            tier: key.tier,
            geo: (!key.geo.is_anywhere()).then(|| key.geo.as_str().to_owned()),
            threshold_tokens: key.threshold_tokens,
            usd_per_million: price.price.to_string(),
        }
    }
}

impl From<&ModelPrice> for PriceView {
    fn from(price: &ModelPrice) -> Self {
        Self {
            id: price.id.0,
            provider: price.key.provider,
            model: price.key.model.to_string(),
            rate: price.into(),
            version: price.version.clone(),
            source: price.source,
            valid_from: price.valid_from,
            valid_to: price.valid_to,
        }
    }
}

impl From<&PricedModel> for ModelView {
    fn from(priced: &PricedModel) -> Self {
        let model = &priced.model;
        Self {
            id: model.id.to_string(),
            provider: model.provider,
            purpose: model.purpose,
            aliases: model.aliases.iter().map(ToString::to_string).collect(),
            max_input_tokens: model.max_input_tokens,
            max_output_tokens: model.max_output_tokens,
            until: model.until,
            prices: priced.prices.iter().map(RateView::from).collect(),
        }
    }
}

impl From<PriceError> for Problem {
    fn from(error: PriceError) -> Self {
        match error {
            PriceError::Refused(PriceRefused::InThePast) => {
                Self::invalid_field("valid_from", "lies in the past, and what was used by then is billed already")
            }
            PriceError::Refused(PriceRefused::MomentTaken) => Self::conflict("price_exists", &error),
            PriceError::Full(_) => Self::unprocessable("catalogue_full", &error),
            PriceError::Key(conflict) => conflict.into(),
            PriceError::Store(error) => error.into(),
        }
    }
}

/// Lists the models that have prices now, with their limits.
#[utoipa::path(get, path = "/api/models", tag = "models", operation_id = "list_models", params(ModelQuery), responses(
    (status = 200, description = "The models", body = ListView<ModelView>),
), security(("token" = []), ("key" = [])))]
pub async fn list_models(
    _asking: PermittedCaller<ReadOwnPlan>,
    query: ValidQuery<ModelQuery>,
    prices: Data<PriceService>,
) -> Result<Json<ListView<ModelView>>, Problem> {
    let prices = prices.into_inner();
    let provider = known_provider(query.0.provider, prices.providers())?;
    let models = detached(async move { prices.models(provider).await }).await?;
    Ok(Json(ListView::whole(models.iter().map(ModelView::from).collect())))
}

/// Lists every price, including planned and past ones; the latest to take effect first.
#[utoipa::path(get, path = "/api/admin/prices", tag = "catalogue", operation_id = "list_prices", params(PriceQuery),
    responses((status = 200, description = "A page of prices", body = PageView<PriceView>)),
    security(("token" = []), ("key" = [])))]
pub async fn list_prices(
    _admin: PermittedCaller<ReadCatalogue>,
    query: ValidQuery<PriceQuery>,
    prices: Data<PriceService>,
) -> Result<Json<PageView<PriceView>>, Problem> {
    let PriceQuery { provider, model, in_force, limit, cursor } = query.0;
    let provider = known_provider(provider, prices.providers())?;
    let model = model.as_deref().map(model_id).transpose()?;
    let page = PageQuery { limit, cursor };
    let after = page.after()?.map(|(valid_from, id)| (valid_from, PriceId(id)));
    let (filter, rows) = (PriceFilter { provider, model, in_force }, page.rows());
    let prices = prices.into_inner();
    let found = detached(async move { prices.list(&filter, after, rows).await }).await?;
    Ok(Json(page.page(&found, |price| (price.valid_from, price.id.0), |price| PriceView::from(price))))
}

/// Adds a price. It ends the previous one where it begins; one that is planned for later ends it.
#[utoipa::path(post, path = "/api/admin/prices", tag = "catalogue", operation_id = "add_price", request_body = PriceIn,
    params(("Idempotency-Key" = Option<String>, Header, description = "Makes a repeat answer what the first answered")),
    responses(
    (status = 201, description = "The price", body = PriceView),
    (status = 409, description = "There is one for the same from the same moment on", body = ProblemView),
), security(("token" = []), ("key" = [])))]
pub async fn add_price(
    admin: RecentCaller<WriteCatalogue>,
    key: RequestKey,
    prices: Data<PriceService>,
    input: ValidBody<PriceIn>,
) -> Result<HttpResponse, Problem> {
    let actor = admin.caller.user_id;
    let once = key.once(&admin.caller, &input.bytes, StatusCode::CREATED, |price: &ModelPrice| PriceView::from(price));
    known_provider(Some(input.body.provider), prices.providers())?;
    let draft = draft(input.body)?;
    let prices = prices.into_inner();
    Ok(answer(detached(async move { prices.add(actor, &draft, once).await }).await?))
}

fn draft(input: PriceIn) -> Result<PriceDraft, Problem> {
    let geo = input.geo.as_deref().map_or(Ok(Geo::ANYWHERE), Geo::parse);
    let key = PriceKey {
        provider: input.provider,
        model: model_id(&input.model)?,
        kind: input.kind,
        tier: input.tier.unwrap_or_default(),
        geo: geo.map_err(|_| Problem::invalid_field("geo", "has characters beside a-z, 0-9, _ and -"))?,
        threshold_tokens: input.threshold_tokens.and_then(|tokens| u64::try_from(tokens).ok()).unwrap_or_default(),
    };
    let price = UnitPrice::per_million(input.usd_per_million)
        .map_err(|why| Problem::invalid_field("usd_per_million", format!("was refused: {why}")))?;
    Ok(PriceDraft { key, price, version: input.version, valid_from: input.valid_from })
}

/// The same name, if it is of a configured provider.
pub fn known_provider(name: Option<ProviderId>, providers: &ProviderProfiles) -> Result<Option<ProviderId>, Problem> {
    let is_unknown = name.is_some_and(|name| providers.get(name).is_none());
    if is_unknown { Err(Problem::invalid_field("provider", "is the name of no configured provider")) } else { Ok(name) }
}

fn model_id(text: &str) -> Result<ModelId, Problem> {
    ModelId::parse(text).map_err(|_| Problem::invalid_field("model", "has characters that are not visible ASCII"))
}
