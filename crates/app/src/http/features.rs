//! Features: what plans grant.

use actix_web::HttpResponse;
use actix_web::http::StatusCode;
use actix_web::web::{Data, Json, Path};
use domain::features::{Feature, FeatureChanges, FeatureDraft, FeatureId, FeatureKind};
use domain::identity::Permission;
use serde::{Deserialize, Serialize};
use services::features::FeatureService;
use utoipa::ToSchema;
use validator::Validate;

use super::caller::{OptionalCaller, WriteCatalogue};
use super::idempotent::{RequestKey, answer};
use super::pages::ListView;
use super::plans::feature_id;
use super::problem::{Problem, ProblemView};
use super::recent::RecentCaller;
use super::spawn::detached;
use super::validation::{ValidBody, one_line, present};

#[derive(Deserialize, Validate, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct FeatureIn {
    /// 1 to 50 characters of a-z, 0-9, _ and -.
    #[validate(length(min = 1, max = 50))]
    #[schema(pattern = "^[a-z0-9_-]{1,50}$", min_length = 1, max_length = 50)]
    id: String,
    #[validate(length(min = 1, max = 100), custom(function = "one_line"))]
    #[schema(
        pattern = r"^[^\x00-\x1F\x7F-\x9F]*[^\s\x00-\x1F\x7F-\x9F][^\x00-\x1F\x7F-\x9F]*$",
        min_length = 1,
        max_length = 100
    )]
    name: String,
    #[validate(length(min = 1, max = 100), custom(function = "one_line"))]
    #[schema(
        pattern = r"^[^\x00-\x1F\x7F-\x9F]*[^\s\x00-\x1F\x7F-\x9F][^\x00-\x1F\x7F-\x9F]*$",
        min_length = 1,
        max_length = 100
    )]
    display_name: String,
    #[serde(default)]
    #[validate(length(max = 2000))]
    #[schema(max_length = 2000)]
    description: Option<String>,
    /// `metered` by default.
    #[serde(default)]
    #[schema(value_type = Option<FeatureKindName>)]
    kind: Option<FeatureKind>,
    /// The name of one unit.
    #[serde(default)]
    #[validate(length(min = 1, max = 30), custom(function = "one_line"))]
    #[schema(
        pattern = r"^[^\x00-\x1F\x7F-\x9F]*[^\s\x00-\x1F\x7F-\x9F][^\x00-\x1F\x7F-\x9F]*$",
        min_length = 1,
        max_length = 30
    )]
    unit: Option<String>,
    /// True by default.
    #[serde(default)]
    is_active: Option<bool>,
}

/// The changes; an omitted field stays as it is. Null removes a description or a unit.
#[derive(Deserialize, Validate, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct FeatureChangesIn {
    #[serde(default)]
    #[validate(length(min = 1, max = 100), custom(function = "one_line"))]
    #[schema(
        pattern = r"^[^\x00-\x1F\x7F-\x9F]*[^\s\x00-\x1F\x7F-\x9F][^\x00-\x1F\x7F-\x9F]*$",
        min_length = 1,
        max_length = 100
    )]
    name: Option<String>,
    #[serde(default)]
    #[validate(length(min = 1, max = 100), custom(function = "one_line"))]
    #[schema(
        pattern = r"^[^\x00-\x1F\x7F-\x9F]*[^\s\x00-\x1F\x7F-\x9F][^\x00-\x1F\x7F-\x9F]*$",
        min_length = 1,
        max_length = 100
    )]
    display_name: Option<String>,
    #[serde(default, deserialize_with = "present")]
    #[validate(length(max = 2000))]
    #[schema(value_type = Option<String>, max_length = 2000)]
    description: Option<Option<String>>,
    #[serde(default, deserialize_with = "present")]
    #[validate(length(min = 1, max = 30), custom(function = "one_line"))]
    #[schema(pattern = r"^[^\x00-\x1F\x7F-\x9F]*[^\s\x00-\x1F\x7F-\x9F][^\x00-\x1F\x7F-\x9F]*$", value_type = Option<String>, min_length = 1, max_length = 30)]
    unit: Option<Option<String>>,
    #[serde(default)]
    is_active: Option<bool>,
}

/// A boolean feature is granted or not; a metered one is counted.
#[derive(ToSchema)]
#[schema(rename_all = "snake_case")]
pub enum FeatureKindName {
    Boolean,
    Metered,
}

#[derive(Serialize, ToSchema)]
pub struct FeatureView {
    #[schema(example = "ai_requests")]
    pub id: String,
    pub name: String,
    pub display_name: String,
    #[schema(required = true)]
    pub description: Option<String>,
    #[schema(value_type = FeatureKindName)]
    pub kind: FeatureKind,
    #[schema(required = true)]
    pub unit: Option<String>,
    pub is_active: bool,
}

impl From<&Feature> for FeatureView {
    fn from(feature: &Feature) -> Self {
        Self {
            id: feature.id.to_string(),
            name: feature.name.clone(),
            display_name: feature.display_name.clone(),
            description: feature.description.clone(),
            kind: feature.kind,
            unit: feature.unit.clone(),
            is_active: feature.is_active,
        }
    }
}

/// Lists the features that plans can grant. Administrators also see those that are switched off.
#[utoipa::path(get, path = "/api/features", tag = "plans", operation_id = "list_features", responses(
    (status = 200, description = "The features", body = ListView<FeatureView>),
))]
pub async fn list_features(
    who: OptionalCaller,
    features: Data<FeatureService>,
) -> Result<Json<ListView<FeatureView>>, Problem> {
    let to_admin = who.may_administer(Permission::PlansRead);
    let features = features.into_inner();
    let found = detached(async move { features.list(to_admin).await }).await?;
    Ok(Json(ListView::whole(found.iter().map(FeatureView::from).collect())))
}

/// Reads one feature.
#[utoipa::path(get, path = "/api/features/{feature_id}", tag = "plans", operation_id = "read_feature",
    params(("feature_id" = String, Path, description = "Its id")), responses(
    (status = 200, description = "The feature", body = FeatureView),
    (status = 404, description = "No such feature", body = ProblemView),
))]
pub async fn read_feature(
    who: OptionalCaller,
    id: Path<String>,
    features: Data<FeatureService>,
) -> Result<Json<FeatureView>, Problem> {
    let id = feature_id(&id)?;
    let to_admin = who.may_administer(Permission::PlansRead);
    let features = features.into_inner();
    let feature = detached(async move { features.find(&id, to_admin).await }).await?;
    Ok(Json(FeatureView::from(&feature)))
}

/// Adds a feature. No plan grants it until it is set on one.
#[utoipa::path(post, path = "/api/features", tag = "catalogue", operation_id = "create_feature", request_body = FeatureIn,
    params(("Idempotency-Key" = Option<String>, Header, description = "Makes a repeat answer what the first answered")),
    responses(
    (status = 201, description = "The feature", body = FeatureView),
    (status = 409, description = "The id is taken", body = ProblemView),
), security(("token" = []), ("key" = [])))]
pub async fn create_feature(
    admin: RecentCaller<WriteCatalogue>,
    key: RequestKey,
    features: Data<FeatureService>,
    input: ValidBody<FeatureIn>,
) -> Result<HttpResponse, Problem> {
    let actor = admin.caller.user_id;
    let once =
        key.once(&admin.caller, &input.bytes, StatusCode::CREATED, |feature: &Feature| FeatureView::from(feature));
    let id = FeatureId::parse(&input.body.id);
    let FeatureIn { name, display_name, description, kind, unit, is_active, .. } = input.body;
    let draft = FeatureDraft {
        id: id.map_err(|_| Problem::invalid_field("id", "has characters beside a-z, 0-9, _ and -"))?,
        name,
        display_name,
        description,
        kind: kind.unwrap_or(FeatureKind::Metered),
        unit,
        is_active: is_active.unwrap_or(true),
    };
    let features = features.into_inner();
    Ok(answer(detached(async move { features.create(actor, &draft, once).await }).await?))
}

/// Changes the names, description or unit of a feature, or switches it off for all users.
#[utoipa::path(patch, path = "/api/features/{feature_id}", tag = "catalogue", operation_id = "change_feature",
    request_body = FeatureChangesIn, params(("feature_id" = String, Path, description = "Its id")), responses(
    (status = 200, description = "The feature as it is now", body = FeatureView),
    (status = 404, description = "No such feature", body = ProblemView),
), security(("token" = []), ("key" = [])))]
pub async fn change_feature(
    admin: RecentCaller<WriteCatalogue>,
    id: Path<String>,
    features: Data<FeatureService>,
    input: ValidBody<FeatureChangesIn>,
) -> Result<Json<FeatureView>, Problem> {
    let id = feature_id(&id)?;
    let FeatureChangesIn { name, display_name, description, unit, is_active } = input.body;
    let changes = FeatureChanges { name, display_name, description, unit, is_active };
    let features = features.into_inner();
    let feature = detached(async move { features.change(admin.caller.user_id, &id, &changes).await }).await?;
    Ok(Json(FeatureView::from(&feature)))
}

/// Deletes a feature that no plan grants and that was never used.
#[utoipa::path(delete, path = "/api/features/{feature_id}", tag = "catalogue", operation_id = "delete_feature",
    params(("feature_id" = String, Path, description = "Its id")), responses(
    (status = 204, description = "It is gone"),
    (status = 404, description = "No such feature", body = ProblemView),
    (status = 409, description = "It is in use", body = ProblemView),
), security(("token" = []), ("key" = [])))]
pub async fn delete_feature(
    admin: RecentCaller<WriteCatalogue>,
    id: Path<String>,
    features: Data<FeatureService>,
) -> Result<HttpResponse, Problem> {
    let id = feature_id(&id)?;
    let features = features.into_inner();
    detached(async move { features.delete(admin.caller.user_id, &id).await }).await?;
    Ok(HttpResponse::NoContent().finish())
}
