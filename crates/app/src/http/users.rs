//! Users: the caller's own profile, and all profiles for operators.

use std::collections::BTreeMap;

use actix_web::http::StatusCode;
use actix_web::http::header::{CONTENT_DISPOSITION, ContentType};
use actix_web::web::{Data, Json, Path};
use actix_web::{HttpResponse, mime};
use chrono::{DateTime, Utc};
use domain::identity::{CallerRights, Email, Role};
use domain::users::{User, UserChanges, UserId, check_wallet};
use ports::users::ExportSection;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;
use services::identity::callers::IdentifiedCaller;
use services::users::{NewProfile, UserError, UserService};
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;
use validator::{Validate, ValidationError};

use super::caller::{AnyCaller, PermittedCaller, ReadAnyUser, ReadOwnProfile, WriteAnyUser, WriteOwnProfile};
use super::idempotent::{RequestKey, answer};
use super::middleware::RequestActor;
use super::pages::{PageQuery, PageView};
use super::problem::{Problem, ProblemView};
use super::recent::RecentlyInPerson;
use super::spawn::detached;
use super::validation::{ValidBody, ValidQuery, one_line};

#[derive(Deserialize, Validate, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewProfileIn {
    /// The id of the identity: `user.id` of the sign-up. `userId` is accepted too.
    #[serde(default, alias = "userId")]
    #[schema(required = true, nullable = false)]
    user_id: Option<Uuid>,
    #[validate(length(min = 1, max = 100), custom(function = "one_line"))]
    #[schema(
        pattern = r"^[^\x00-\x1F\x7F-\x9F]*[^\s\x00-\x1F\x7F-\x9F][^\x00-\x1F\x7F-\x9F]*$",
        min_length = 1,
        max_length = 100
    )]
    name: String,
    /// If given, it must equal the identity's; it is never stored here.
    #[serde(default)]
    #[validate(length(max = 254))]
    #[schema(format = "email", max_length = 254)]
    email: Option<String>,
}

#[derive(Deserialize, Validate, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ProfileChangesIn {
    #[serde(default)]
    #[validate(length(min = 1, max = 100), custom(function = "one_line"))]
    #[schema(
        pattern = r"^[^\x00-\x1F\x7F-\x9F]*[^\s\x00-\x1F\x7F-\x9F][^\x00-\x1F\x7F-\x9F]*$",
        min_length = 1,
        max_length = 100
    )]
    name: Option<String>,
    /// An Ethereum address: `0x` and 40 hexadecimal digits, in mixed case with the checksum of EIP-55. Null removes it.
    #[serde(default, deserialize_with = "super::validation::present")]
    #[validate(custom(function = "wallet"))]
    #[schema(pattern = "^0x[0-9a-fA-F]{40}$", value_type = Option<String>, min_length = 42, max_length = 42)]
    wallet_address: Option<Option<String>>,
}

#[derive(Deserialize, Validate, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RoleIn {
    #[schema(value_type = String, example = "admin")]
    role: Role,
    /// Stored in the audit trail.
    #[serde(default)]
    #[validate(length(max = 500), custom(function = "one_line"))]
    #[schema(pattern = r"^[^\x00-\x1F\x7F-\x9F]*[^\s\x00-\x1F\x7F-\x9F][^\x00-\x1F\x7F-\x9F]*$", max_length = 500)]
    reason: Option<String>,
}

#[derive(Serialize, ToSchema)]
pub struct UserView {
    pub id: Uuid,
    /// Null if the identity has none.
    #[schema(required = true)]
    pub email: Option<String>,
    pub name: String,
    #[schema(value_type = String, example = "user")]
    pub role: Role,
    #[schema(example = "free")]
    pub plan_id: String,
    #[schema(required = true)]
    pub wallet_address: Option<String>,
    pub token_balance: i64,
    pub created_at: DateTime<Utc>,
    pub updated_at: DateTime<Utc>,
}

impl From<&User> for UserView {
    fn from(user: &User) -> Self {
        Self {
            id: user.id.0,
            email: user.email.as_ref().map(ToString::to_string),
            name: user.name.clone(),
            role: user.role,
            plan_id: user.plan_id.to_string(),
            wallet_address: user.wallet_address.clone(),
            token_balance: user.token_balance,
            created_at: user.created_at,
            updated_at: user.updated_at,
        }
    }
}

impl From<UserError> for Problem {
    fn from(error: UserError) -> Self {
        match error {
            UserError::IdMissing => Self::invalid_field("user_id", "is missing: send the `id` that sign-up gave"),
            UserError::NotFound => Self::not_found("There is no such user."),
            UserError::UnknownIdentity => Self::unprocessable("identity_unknown", &error),
            UserError::Exists => Self::conflict("profile_exists", &error),
            UserError::EmailDiffers => Self::invalid_field("email", "differs from the identity's; leave it out"),
            UserError::Key(conflict) => conflict.into(),
            UserError::Store(error) => error.into(),
        }
    }
}

/// Creates the profile of an existing identity. Built-in sign-up creates both, so this is for other identity providers.
#[utoipa::path(post, path = "/api/users", tag = "users", operation_id = "create_profile", request_body = NewProfileIn,
    params(("Idempotency-Key" = Option<String>, Header, description = "Makes a repeat answer what the first answered")),
    responses(
    (status = 201, description = "The profile", body = UserView),
    (status = 404, description = "Not your id", body = ProblemView),
    (status = 409, description = "There is a profile already", body = ProblemView),
    (status = 422, description = "No id, an unknown identity, or a field is wrong", body = ProblemView),
), security(("token" = [])))]
pub async fn create_profile(
    who: AnyCaller,
    key: RequestKey,
    users: Data<UserService>,
    input: ValidBody<NewProfileIn>,
) -> Result<HttpResponse, Problem> {
    let NewProfileIn { user_id, name, email } = input.body;
    let email = email.as_deref().map(Email::parse).transpose();
    let email = email.map_err(|why| Problem::invalid_field("email", format!("is refused: {why}")))?;
    let profile = NewProfile { user_id: user_id.map(UserId), name, email };
    let rights = match &who.0 {
        IdentifiedCaller::Caller(caller) => CallerRights::of(caller),
        IdentifiedCaller::Newcomer(_) | IdentifiedCaller::Enrolling(_) => CallerRights::of_newcomer(),
    };
    let view = |user: &User| UserView::from(user);
    let once = key.once_for(who.0.user_id(), rights, &input.bytes, StatusCode::CREATED, view);
    let users = users.into_inner();
    let performed = detached(async move { users.create_profile(&who.0, profile, once).await }).await?;
    Ok(answer(performed))
}

/// Reads the caller's own profile.
#[utoipa::path(get, path = "/api/users/me", tag = "users", operation_id = "read_profile", responses(
    (status = 200, description = "The profile", body = UserView),
), security(("token" = []), ("key" = [])))]
pub async fn read_profile(
    me: PermittedCaller<ReadOwnProfile>,
    users: Data<UserService>,
) -> Result<Json<UserView>, Problem> {
    let users = users.into_inner();
    let user = detached(async move { users.find(me.caller.user_id).await }).await?;
    Ok(Json(UserView::from(&user)))
}

/// Changes the caller's own name or wallet.
#[utoipa::path(patch, path = "/api/users/me", tag = "users", operation_id = "change_profile", request_body = ProfileChangesIn, responses(
    (status = 200, description = "The profile as it is now", body = UserView),
), security(("token" = []), ("key" = [])))]
pub async fn change_profile(
    me: PermittedCaller<WriteOwnProfile>,
    users: Data<UserService>,
    input: ValidBody<ProfileChangesIn>,
) -> Result<Json<UserView>, Problem> {
    let changes = UserChanges { name: input.body.name, wallet_address: input.body.wallet_address };
    let users = users.into_inner();
    let user = detached(async move { users.change(me.caller.user_id, &changes).await }).await?;
    Ok(Json(UserView::from(&user)))
}

/// Deletes the caller's own profile and everything that belongs to it. Only in person, after a recent authentication.
#[utoipa::path(delete, path = "/api/users/me", tag = "users", operation_id = "delete_profile", responses(
    (status = 204, description = "It is gone"),
), security(("token" = [])))]
pub async fn delete_profile(
    me: RecentlyInPerson<WriteOwnProfile>,
    users: Data<UserService>,
) -> Result<HttpResponse, Problem> {
    let users = users.into_inner();
    detached(async move { users.delete(me.caller.user_id).await }).await?;
    Ok(HttpResponse::NoContent().finish())
}

#[derive(Clone, Copy, Default, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ExportFormat {
    #[default]
    Json,
    Csv,
}

#[derive(Deserialize, Validate, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub struct ExportQuery {
    /// `json` by default.
    #[serde(default)]
    #[param(inline)]
    format: Option<ExportFormat>,
}

#[derive(Serialize, ToSchema)]
pub struct ExportPartView {
    /// The rows as they are stored, without secrets.
    #[schema(value_type = Vec<Object>)]
    pub rows: Vec<Box<RawValue>>,
    /// Whether there are more than 10,000.
    pub truncated: bool,
}

/// Exports everything stored about the caller: as JSON by table, or as CSV with columns table, row, field and value.
#[utoipa::path(get, path = "/api/users/me/export", tag = "users", operation_id = "export_profile", params(ExportQuery), responses(
    (status = 200, description = "Everything, by table", content(
        (BTreeMap<String, ExportPartView> = "application/json"), (String = "text/csv"))),
), security(("token" = []), ("key" = [])))]
pub async fn export_profile(
    me: PermittedCaller<ReadOwnProfile>,
    query: ValidQuery<ExportQuery>,
    users: Data<UserService>,
) -> Result<HttpResponse, Problem> {
    let users = users.into_inner();
    let sections = detached(async move { users.export(me.caller.user_id).await }).await?;
    match query.0.format.unwrap_or_default() {
        ExportFormat::Json => {
            let parts = sections.into_iter().map(part).collect::<Result<BTreeMap<_, _>, _>>();
            let parts = parts.map_err(|why| Problem::internal(&why))?;
            Ok(HttpResponse::Ok()
                .insert_header((CONTENT_DISPOSITION, "attachment; filename=\"export.json\""))
                .json(parts))
        }
        ExportFormat::Csv => {
            let csv = export_csv(&sections).map_err(|why| Problem::internal(&why))?;
            Ok(HttpResponse::Ok()
                .insert_header(ContentType(mime::TEXT_CSV_UTF_8))
                .insert_header((CONTENT_DISPOSITION, "attachment; filename=\"export.csv\""))
                .body(csv))
        }
    }
}

fn wallet(text: &str) -> Result<(), ValidationError> {
    check_wallet(text).map_err(|why| ValidationError::new("wallet").with_message(why.to_string().into()))
}

fn part(section: ExportSection) -> serde_json::Result<(String, ExportPartView)> {
    let rows = section.rows.into_iter().map(RawValue::from_string).collect::<Result<_, _>>()?;
    Ok((section.table.to_owned(), ExportPartView { rows, truncated: section.truncated }))
}

/// RFC 4180, a line a field of a row: the tables have different columns, and one sheet has them all.
fn export_csv(sections: &[ExportSection]) -> anyhow::Result<Vec<u8>> {
    let mut sheet = csv::WriterBuilder::new().terminator(csv::Terminator::CRLF).from_writer(Vec::new());
    sheet.write_record(["table", "row", "field", "value"])?;
    for section in sections {
        for (number, row) in section.rows.iter().enumerate() {
            let fields: BTreeMap<String, Value> = serde_json::from_str(row)?;
            for (field, value) in fields {
                let text = match value {
                    Value::Null => String::new(),
                    Value::String(text) => text,
                    other => other.to_string(),
                };
                sheet.write_record([section.table, &(number + 1).to_string(), &field, &harmless(text)])?;
            }
        }
    }
    Ok(sheet.into_inner()?)
}

/// A leading quote turns a cell that a spreadsheet would run as a formula into text.
fn harmless(cell: String) -> String {
    if cell.starts_with(['=', '+', '-', '@', '\t', '\r']) { format!("'{cell}") } else { cell }
}

/// Lists all profiles, newest first.
#[utoipa::path(get, path = "/api/admin/users", tag = "operators", operation_id = "list_users", params(PageQuery), responses(
    (status = 200, description = "A page of profiles", body = PageView<UserView>),
), security(("token" = []), ("key" = [])))]
pub async fn list_users(
    _admin: PermittedCaller<ReadAnyUser>,
    query: ValidQuery<PageQuery>,
    users: Data<UserService>,
) -> Result<Json<PageView<UserView>>, Problem> {
    let (after, rows) = (query.0.after()?, query.0.rows());
    let users = users.into_inner();
    let found = detached(async move { users.list(after, rows).await }).await?;
    Ok(Json(query.0.page(&found, UserService::position, |user| UserView::from(user))))
}

/// Reads one profile.
#[utoipa::path(get, path = "/api/admin/users/{user_id}", tag = "operators", operation_id = "read_user",
    params(("user_id" = Uuid, Path, description = "Whose")), responses(
    (status = 200, description = "The profile", body = UserView),
    (status = 404, description = "No such user", body = ProblemView),
), security(("token" = []), ("key" = [])))]
pub async fn read_user(
    _admin: PermittedCaller<ReadAnyUser>,
    id: Path<String>,
    users: Data<UserService>,
) -> Result<Json<UserView>, Problem> {
    let id = user_id(&id)?;
    let users = users.into_inner();
    let user = detached(async move { users.find_any(id).await }).await?;
    Ok(Json(UserView::from(&user)))
}

/// Makes a user an administrator, or a plain user again. Only in person, after a recent authentication.
#[utoipa::path(put, path = "/api/admin/users/{user_id}/role", tag = "operators", operation_id = "change_role", request_body = RoleIn,
    params(("user_id" = Uuid, Path, description = "Whose")), responses(
    (status = 200, description = "The profile as it is now", body = UserView),
    (status = 404, description = "No such user", body = ProblemView),
), security(("token" = [])))]
pub async fn change_role(
    admin: RecentlyInPerson<WriteAnyUser>,
    id: Path<String>,
    users: Data<UserService>,
    who: RequestActor,
    input: ValidBody<RoleIn>,
) -> Result<Json<UserView>, Problem> {
    let id = user_id(&id)?;
    let users = users.into_inner();
    let RoleIn { role, reason } = input.body;
    let actor = admin.caller.user_id;
    let user = detached(async move { users.change_role(Some(actor), id, role, reason).await }).await?;
    tracing::info!(%actor, user = %id, role = ?user.role, address = who.address_text(), "a role was changed");
    Ok(Json(UserView::from(&user)))
}

/// A path without an id names no user.
pub fn user_id(text: &str) -> Result<UserId, Problem> {
    Uuid::try_parse(text).map(UserId).map_err(|_| UserError::NotFound.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sheet_runs_nothing() {
        let row = r#"{"name":"=HYPERLINK(\"x\")","note":"a,\"b\"\nc","n":-1,"gone":null}"#.to_owned();
        let sheet = export_csv(&[ExportSection { table: "users", rows: vec![row], truncated: false }]).unwrap();
        let text = String::from_utf8(sheet).unwrap();
        assert!(text.contains("users,1,name,\"'=HYPERLINK(\"\"x\"\")\"\r\n"), "{text}");
        assert!(text.contains("users,1,note,\"a,\"\"b\"\"\nc\"\r\n"), "{text}");
        assert!(text.contains("users,1,n,'-1\r\n") && text.contains("users,1,gone,\r\n"), "{text}");
    }
}
