//! API keys: created, listed, rotated, revoked and verified by their owner. A secret is in a response once.

mod limits;

use actix_web::HttpResponse;
use actix_web::http::StatusCode;
use actix_web::http::header::CACHE_CONTROL;
use actix_web::web::{Data, Json, Path};
use chrono::{DateTime, TimeDelta, Utc};
use domain::api_keys::{
    ApiKey, ApiKeyDraft, ApiKeyId, KeyChanges, KeyLimits, KeyOrigin, KeyRefused, ROTATION_OVERLAP_MAX,
};
use domain::identity::{Permission, PermissionSet};
use serde::{Deserialize, Serialize};
use services::api_keys::{ApiKeyError, ApiKeyService, CreatedKey};
use utoipa::ToSchema;
use uuid::Uuid;
use validator::Validate;

use limits::{KeyLimitsIn, KeyLimitsView, limit_changes};

use super::caller::{ManageOwnKeys, PermittedCaller, WriteAnyUser};
use super::idempotent::{RequestKey, answer};
use super::pages::{PageQuery, PageView};
use super::problem::{Problem, ProblemView, sentence};
use super::recent::RecentCaller;
use super::spawn::detached;
use super::users::user_id;
use super::validation::{ValidBody, ValidQuery, in_calendar, one_line};

/// How long a rotated key works by default, in seconds: an hour to deploy the new one.
const DEFAULT_OVERLAP_SECONDS: i64 = 3_600;

#[derive(Deserialize, Validate, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewKeyIn {
    #[validate(length(min = 1, max = 100), custom(function = "one_line"))]
    #[schema(
        pattern = r"^[^\x00-\x1F\x7F-\x9F]*[^\s\x00-\x1F\x7F-\x9F][^\x00-\x1F\x7F-\x9F]*$",
        min_length = 1,
        max_length = 100
    )]
    name: String,
    /// What the key may do. By default: check and write usage, chat, and read plans.
    #[serde(default)]
    #[validate(length(min = 1, max = 11, message = "has 1 to 11 of them"))]
    #[schema(min_items = 1, max_items = 11, example = json!(["usage:check", "usage:write"]))]
    permissions: Option<Vec<PermissionName>>,
    /// Whether it may check, consume and create profiles for other users. Administrators only.
    #[serde(default)]
    on_behalf: Option<bool>,
    /// None by default.
    #[serde(default)]
    #[validate(nested)]
    #[schema(nullable = true)]
    limits: Option<KeyLimitsIn>,
    /// By default never, or when the key expires that creates it.
    #[serde(default)]
    #[validate(custom(function = "in_calendar"))]
    expires_at: Option<DateTime<Utc>>,
}

#[derive(Deserialize, Validate, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct KeyChangesIn {
    #[serde(default)]
    #[validate(length(min = 1, max = 100), custom(function = "one_line"))]
    #[schema(
        pattern = r"^[^\x00-\x1F\x7F-\x9F]*[^\s\x00-\x1F\x7F-\x9F][^\x00-\x1F\x7F-\x9F]*$",
        min_length = 1,
        max_length = 100
    )]
    name: Option<String>,
    /// Only the given limits change. Null, for one of them or for all, removes it.
    #[serde(default, deserialize_with = "super::validation::present")]
    #[validate(nested)]
    #[schema(value_type = Option<KeyLimitsIn>)]
    limits: Option<Option<KeyLimitsIn>>,
}

/// A permission by its name on the wire.
#[derive(Clone, Copy, Deserialize, Serialize, ToSchema)]
#[serde(transparent)]
#[schema(value_type = String, pattern = "^(\\*|(plans:read|plans:write|usage:check|usage:write|ai:chat|keys:manage|billing:manage|users:read|users:write|audit:read))$")]
pub struct PermissionName(Permission);

#[derive(Deserialize, Validate, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RotateIn {
    /// How long the old key still works; an hour by default, at most seven days.
    #[serde(default, deserialize_with = "super::validation::whole")]
    #[validate(range(min = 0, max = 604_800))]
    #[schema(minimum = 0, maximum = 604_800)]
    overlap_seconds: Option<i64>,
}

#[derive(Deserialize, Validate, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct VerifyIn {
    #[validate(length(min = 1, max = 200))]
    #[schema(min_length = 1, max_length = 200)]
    key: String,
}

#[derive(Serialize, ToSchema)]
pub struct ApiKeyView {
    pub id: Uuid,
    pub name: String,
    /// The public beginning, to recognize the key.
    #[schema(example = "sk_live_8fK2xQ1mZp0a")]
    pub prefix: String,
    pub last_four: String,
    pub permissions: Vec<PermissionName>,
    pub on_behalf: bool,
    pub limits: KeyLimitsView,
    /// False once it is revoked.
    pub is_active: bool,
    #[schema(required = true)]
    pub last_used_at: Option<DateTime<Utc>>,
    #[schema(required = true)]
    pub expires_at: Option<DateTime<Utc>>,
    /// The key that replaces it.
    #[schema(required = true)]
    pub rotated_to: Option<Uuid>,
    /// The first key of the rotations that led to this one. All of them share the limits and their usage.
    pub lineage_id: Uuid,
    /// The API key that created it; null if its owner used none.
    #[schema(required = true)]
    pub made_by: Option<Uuid>,
    #[schema(required = true)]
    pub revoked_at: Option<DateTime<Utc>>,
    pub created_at: DateTime<Utc>,
}

#[derive(Serialize, ToSchema)]
pub struct CreatedKeyView {
    /// The whole key. It is in this response only.
    pub key: String,
    #[serde(flatten)]
    pub described: ApiKeyView,
}

#[derive(Serialize, ToSchema)]
pub struct VerifiedKeyView {
    /// Whether the key works now. False if it is unknown, expired, revoked or another user's.
    pub valid: bool,
    /// The key, if it is valid.
    #[schema(required = true)]
    pub key: Option<ApiKeyView>,
}

impl From<&ApiKey> for ApiKeyView {
    fn from(key: &ApiKey) -> Self {
        Self {
            id: key.id.0,
            name: key.name.clone(),
            prefix: key.prefix.clone(),
            last_four: key.last_four.clone(),
            permissions: key.permissions.iter().map(PermissionName).collect(),
            on_behalf: key.on_behalf,
            limits: KeyLimitsView::from(&key.limits),
            is_active: key.is_active,
            last_used_at: key.last_used_at,
            expires_at: key.expires_at,
            rotated_to: key.rotated_to.map(|id| id.0),
            lineage_id: key.lineage_id.0,
            made_by: key.makers.first().map(|id| id.0),
            revoked_at: key.revoked_at,
            created_at: key.created_at,
        }
    }
}

fn created_view(created: &CreatedKey) -> CreatedKeyView {
    CreatedKeyView { key: created.secret.clone(), described: ApiKeyView::from(&created.key) }
}

impl From<ApiKeyError> for Problem {
    fn from(error: ApiKeyError) -> Self {
        match error {
            ApiKeyError::NotFound => Self::not_found("There is no such key."),
            ApiKeyError::PermissionMissing(why) => why.into(),
            ApiKeyError::Key(conflict) => conflict.into(),
            ApiKeyError::Store(error) => error.into(),
            ApiKeyError::Refused(why) => match why {
                KeyRefused::BeyondCaller(_)
                | KeyRefused::BeyondCallersLimits
                | KeyRefused::BeyondCallersLife
                | KeyRefused::OnBehalfNeedsAdmin => Self::forbidden(&why),
                KeyRefused::CallerEnded => Self::unauthorized(),
                KeyRefused::TooManyMakers => Self::unprocessable("too_many_makers", &why),
                KeyRefused::NoPermission => Self::invalid_field("permissions", "needs at least one"),
                KeyRefused::AlreadyExpired => Self::invalid_field("expires_at", "lies in the past"),
                KeyRefused::OverlapTooLong => Self::invalid_field("overlap_seconds", "is between 0 and 604800"),
                KeyRefused::TooMany => Self::unprocessable("too_many_keys", &why),
                KeyRefused::NotRotatable => {
                    Self::new(StatusCode::CONFLICT, "key_not_rotatable", sentence(&why.to_string()))
                }
            },
        }
    }
}

/// Creates a key. The secret is in this response only.
#[utoipa::path(post, path = "/api/keys", tag = "keys", operation_id = "create_key", request_body = NewKeyIn,
    params(("Idempotency-Key" = Option<String>, Header, description = "Makes a repeat answer what the first answered")),
    responses((status = 201, description = "The key", body = CreatedKeyView)),
    security(("token" = []), ("key" = [])))]
pub async fn create_key(
    me: RecentCaller<ManageOwnKeys>,
    key: RequestKey,
    keys: Data<ApiKeyService>,
    input: ValidBody<NewKeyIn>,
) -> Result<HttpResponse, Problem> {
    let once = key.once(&me.caller, &input.bytes, StatusCode::CREATED, created_view);
    let NewKeyIn { name, permissions, on_behalf, limits, expires_at } = input.body;
    let limits = KeyLimits::NONE.changed(&limit_changes(limits.map(Some))?);
    let permissions =
        permissions.map_or_else(default_permissions, |names| names.into_iter().map(|name| name.0).collect());
    let on_behalf = on_behalf.unwrap_or(false);
    let draft = ApiKeyDraft { name, permissions, on_behalf, limits, expires_at, origin: KeyOrigin::default() };
    let keys = keys.into_inner();
    Ok(answer(detached(async move { keys.create(&me.caller, &draft, once).await }).await?))
}

/// What a server that meters usage and chats needs, and no more.
fn default_permissions() -> PermissionSet {
    [Permission::PlansRead, Permission::UsageCheck, Permission::UsageWrite, Permission::AiChat].into_iter().collect()
}

/// Lists the caller's own keys, newest first, including revoked ones.
#[utoipa::path(get, path = "/api/keys", tag = "keys", operation_id = "list_keys", params(PageQuery), responses(
    (status = 200, description = "A page of keys", body = PageView<ApiKeyView>),
), security(("token" = []), ("key" = [])))]
pub async fn list_keys(
    me: PermittedCaller<ManageOwnKeys>,
    query: ValidQuery<PageQuery>,
    keys: Data<ApiKeyService>,
) -> Result<Json<PageView<ApiKeyView>>, Problem> {
    let after = query.0.after()?.map(|(at, id)| (at, ApiKeyId(id)));
    let rows = query.0.rows();
    let keys = keys.into_inner();
    let found = detached(async move { keys.list(&me.caller, after, rows).await }).await?;
    Ok(Json(query.0.page(&found, |key| (key.created_at, key.id.0), |key| ApiKeyView::from(key))))
}

/// Reads one of the caller's own keys.
#[utoipa::path(get, path = "/api/keys/{key_id}", tag = "keys", operation_id = "read_key",
    params(("key_id" = Uuid, Path, description = "Its id")), responses(
    (status = 200, description = "The key", body = ApiKeyView),
    (status = 404, description = "No such key", body = ProblemView),
), security(("token" = []), ("key" = [])))]
pub async fn read_key(
    me: PermittedCaller<ManageOwnKeys>,
    id: Path<String>,
    keys: Data<ApiKeyService>,
) -> Result<Json<ApiKeyView>, Problem> {
    let id = key_id(&id)?;
    let keys = keys.into_inner();
    let key = detached(async move { keys.find(&me.caller, id).await }).await?;
    Ok(Json(ApiKeyView::from(&key)))
}

/// Renames one of the caller's own keys, or changes the limits of it and its successors.
#[utoipa::path(patch, path = "/api/keys/{key_id}", tag = "keys", operation_id = "change_key", request_body = KeyChangesIn,
    params(("key_id" = Uuid, Path, description = "Its id")), responses(
    (status = 200, description = "The key", body = ApiKeyView),
    (status = 404, description = "No such key", body = ProblemView),
), security(("token" = []), ("key" = [])))]
pub async fn change_key(
    me: PermittedCaller<ManageOwnKeys>,
    id: Path<String>,
    keys: Data<ApiKeyService>,
    input: ValidBody<KeyChangesIn>,
) -> Result<Json<ApiKeyView>, Problem> {
    let id = key_id(&id)?;
    let KeyChangesIn { name, limits } = input.body;
    let changes = KeyChanges { name, limits: limit_changes(limits)? };
    let keys = keys.into_inner();
    let key = detached(async move { keys.change(&me.caller, id, &changes).await }).await?;
    Ok(Json(ApiKeyView::from(&key)))
}

/// Replaces a key by one with the same rights and limits. Both work during the overlap.
#[utoipa::path(post, path = "/api/keys/{key_id}/rotate", tag = "keys", operation_id = "rotate_key", request_body = RotateIn,
    params(("key_id" = Uuid, Path, description = "Its id"),
        ("Idempotency-Key" = Option<String>, Header, description = "Makes a repeat answer what the first answered")),
    responses(
    (status = 201, description = "The successor", body = CreatedKeyView),
    (status = 404, description = "No such key", body = ProblemView),
    (status = 409, description = "It is revoked, expired or already rotated", body = ProblemView),
), security(("token" = []), ("key" = [])))]
pub async fn rotate_key(
    me: RecentCaller<ManageOwnKeys>,
    id: Path<String>,
    key: RequestKey,
    keys: Data<ApiKeyService>,
    input: ValidBody<RotateIn>,
) -> Result<HttpResponse, Problem> {
    let id = key_id(&id)?;
    let once = key.once(&me.caller, &input.bytes, StatusCode::CREATED, created_view);
    let overlap = TimeDelta::try_seconds(input.body.overlap_seconds.unwrap_or(DEFAULT_OVERLAP_SECONDS));
    let overlap = overlap.unwrap_or(ROTATION_OVERLAP_MAX);
    let keys = keys.into_inner();
    Ok(answer(detached(async move { keys.rotate(&me.caller, id, overlap, once).await }).await?))
}

/// Revokes a key, and the keys that were created with it: at once here, within a second in every other process.
#[utoipa::path(delete, path = "/api/keys/{key_id}", tag = "keys", operation_id = "revoke_key",
    params(("key_id" = Uuid, Path, description = "Its id")), responses(
    (status = 204, description = "It is revoked"),
    (status = 404, description = "No such key", body = ProblemView),
), security(("token" = []), ("key" = [])))]
pub async fn revoke_key(
    me: PermittedCaller<ManageOwnKeys>,
    id: Path<String>,
    keys: Data<ApiKeyService>,
) -> Result<HttpResponse, Problem> {
    let id = key_id(&id)?;
    let keys = keys.into_inner();
    detached(async move { keys.revoke(&me.caller, id).await }).await?;
    Ok(HttpResponse::NoContent().finish())
}

/// Revokes any user's key.
#[utoipa::path(delete, path = "/api/admin/users/{user_id}/keys/{key_id}", tag = "operators", operation_id = "revoke_users_key",
    params(("user_id" = Uuid, Path, description = "Whose"), ("key_id" = Uuid, Path, description = "Which")), responses(
    (status = 204, description = "It is revoked"),
    (status = 404, description = "No such key", body = ProblemView),
), security(("token" = []), ("key" = [])))]
pub async fn revoke_users_key(
    admin: PermittedCaller<WriteAnyUser>,
    ids: Path<(String, String)>,
    keys: Data<ApiKeyService>,
) -> Result<HttpResponse, Problem> {
    let (owner, id) = (user_id(&ids.0)?, key_id(&ids.1)?);
    let keys = keys.into_inner();
    detached(async move { keys.revoke_any(admin.caller.user_id, owner, id).await }).await?;
    Ok(HttpResponse::NoContent().finish())
}

/// Verifies a key: one of the caller's own, or for an administrator any user's.
#[utoipa::path(post, path = "/api/keys/verify", tag = "keys", operation_id = "verify_key", request_body = VerifyIn, responses(
    (status = 200, description = "The answer, also where it is no", body = VerifiedKeyView),
), security(("token" = []), ("key" = [])))]
pub async fn verify_key(
    me: PermittedCaller<ManageOwnKeys>,
    keys: Data<ApiKeyService>,
    input: ValidBody<VerifyIn>,
) -> Result<HttpResponse, Problem> {
    let keys = keys.into_inner();
    let found = detached(async move { keys.verify(&input.body.key).await }).await?;
    let shown = found.filter(|key| key.user_id == me.caller.user_id || me.caller.is_admin());
    let view = VerifiedKeyView { valid: shown.is_some(), key: shown.as_ref().map(ApiKeyView::from) };
    Ok(HttpResponse::Ok().insert_header((CACHE_CONTROL, "no-store")).json(view))
}

/// A path without an id names no key.
fn key_id(text: &str) -> Result<ApiKeyId, Problem> {
    Uuid::try_parse(text).map(ApiKeyId).map_err(|_| ApiKeyError::NotFound.into())
}
