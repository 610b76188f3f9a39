//! Tokens: the caller's own balance and its ledger; top-up, bonus and refund for administrators.

use actix_web::HttpResponse;
use actix_web::http::StatusCode;
use actix_web::web::{Data, Json};
use chrono::{DateTime, Utc};
use domain::identity::{Permission, UsageSubject};
use domain::tokens::{
    CreditOrder, CreditOrigin, CreditRefused, TokenBalance, TokenTransaction, TransactionId, TransactionKind,
};
use domain::users::UserId;
use serde::{Deserialize, Serialize};
use services::tokens::{TokenError, TokenService};
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;
use validator::Validate;

use super::caller::{CheckUsage, ManageTokens, PermittedCaller};
use super::idempotent::{RequestKey, now_or_again, one_key};
use super::pages::{PageQuery, PageView};
use super::problem::{Problem, ProblemView};
use super::recent::RecentCaller;
use super::spawn::detached;
use super::validation::{ValidBody, ValidQuery, one_line};

#[derive(Deserialize, Validate, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct TokenCreditIn {
    /// The user whose balance is credited.
    user_id: Uuid,
    #[serde(deserialize_with = "super::validation::whole_number")]
    #[validate(range(min = 1))]
    #[schema(minimum = 1)]
    amount: i64,
    #[serde(default)]
    #[validate(length(max = 500), custom(function = "one_line"))]
    #[schema(pattern = r"^[^\x00-\x1F\x7F-\x9F]*[^\s\x00-\x1F\x7F-\x9F][^\x00-\x1F\x7F-\x9F]*$", max_length = 500)]
    description: Option<String>,
    /// What it refers to, such as the id of a payment.
    #[serde(default)]
    reference_id: Option<Uuid>,
    /// A repeat with this key counts once. The header `Idempotency-Key` does the same.
    #[serde(default)]
    #[validate(length(min = 1, max = 255))]
    #[schema(min_length = 1, max_length = 255, pattern = "^[!-~]([ -~]*[!-~])?$")]
    idempotency_key: Option<String>,
}

#[derive(Deserialize, Validate, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct TokenRefundIn {
    /// The user whose balance is credited.
    user_id: Uuid,
    /// The transaction of type `usage` that is refunded.
    transaction_id: Uuid,
    /// How much of it; all that is left by default.
    #[serde(default, deserialize_with = "super::validation::whole")]
    #[validate(range(min = 1))]
    #[schema(minimum = 1)]
    amount: Option<i64>,
    #[serde(default)]
    #[validate(length(max = 500), custom(function = "one_line"))]
    #[schema(pattern = r"^[^\x00-\x1F\x7F-\x9F]*[^\s\x00-\x1F\x7F-\x9F][^\x00-\x1F\x7F-\x9F]*$", max_length = 500)]
    description: Option<String>,
    /// A repeat with this key counts once. The header `Idempotency-Key` does the same.
    #[serde(default)]
    #[validate(length(min = 1, max = 255))]
    #[schema(min_length = 1, max_length = 255, pattern = "^[!-~]([ -~]*[!-~])?$")]
    idempotency_key: Option<String>,
}

#[derive(Deserialize, Validate, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub struct TokenTransactionQuery {
    /// The user; the caller by default. Another user needs `usage:check` with `on_behalf`, or an administrator.
    user_id: Option<Uuid>,
    /// How many rows to show; 20 by default.
    #[validate(range(min = 1, max = 100))]
    #[param(minimum = 1, maximum = 100)]
    limit: Option<u64>,
    /// `next_cursor` of the previous page.
    #[validate(length(max = 100))]
    #[param(pattern = r"^[0-9]{1,16}_[0-9a-f]{32}$")]
    cursor: Option<String>,
}

#[derive(Serialize, ToSchema)]
pub struct TokenBalanceView {
    pub balance: i64,
    /// The part of the balance that is reserved for work under way.
    pub reserved: i64,
    /// What can be spent: the balance less the reserved part.
    pub available: i64,
}

impl From<TokenBalance> for TokenBalanceView {
    fn from(tokens: TokenBalance) -> Self {
        Self { balance: tokens.balance, reserved: tokens.reserved, available: tokens.available() }
    }
}

/// A row of the ledger.
#[derive(Serialize, ToSchema)]
pub struct TokenTransactionView {
    pub id: Uuid,
    /// Negative if tokens were taken.
    pub amount: i64,
    /// `topup`, `usage`, `refund` or `bonus`.
    #[serde(rename = "type")]
    #[schema(value_type = String, example = "topup")]
    pub kind: TransactionKind,
    #[schema(required = true)]
    pub description: Option<String>,
    /// What it refers to; for a refund, the transaction that is refunded.
    #[schema(required = true)]
    pub reference_id: Option<Uuid>,
    pub balance_after: i64,
    pub created_at: DateTime<Utc>,
}

impl From<&TokenTransaction> for TokenTransactionView {
    fn from(transaction: &TokenTransaction) -> Self {
        Self {
            id: transaction.id.0,
            amount: transaction.amount,
            kind: transaction.kind,
            description: transaction.description.clone(),
            reference_id: transaction.reference_id,
            balance_after: transaction.balance_after,
            created_at: transaction.created_at,
        }
    }
}

impl From<TokenError> for Problem {
    fn from(error: TokenError) -> Self {
        match error {
            TokenError::UnknownUser => Self::not_found("There is no such user."),
            TokenError::Refused(why) => match why {
                CreditRefused::NotPositive => Self::invalid_field("amount", "is at least 1"),
                CreditRefused::BalanceFull => Self::invalid_field(
                    "amount",
                    format!("is too much: the balance would pass {}, the most that it can hold", i64::MAX),
                ),
                CreditRefused::BeyondLeft(left) => {
                    Self::invalid_field("amount", format!("is more than the {left} that are left to refund"))
                }
                CreditRefused::UnknownUsage => {
                    Self::not_found("There is no such transaction of this user, or it is not of the type `usage`.")
                }
                CreditRefused::NothingLeft => Self::conflict("nothing_to_refund", &why),
            },
            TokenError::KeyReused => Self::unprocessable("idempotency_key_reused", &error),
            TokenError::Store(error) => error.into(),
        }
    }
}

/// Reads the caller's own token balance.
#[utoipa::path(get, path = "/api/tokens", tag = "tokens", operation_id = "read_tokens", responses(
    (status = 200, description = "What there is and what of it is held", body = TokenBalanceView),
    (status = 404, description = "The profile is gone", body = ProblemView),
), security(("token" = []), ("key" = [])))]
pub async fn read_tokens(
    asking: PermittedCaller<CheckUsage>,
    tokens: Data<TokenService>,
) -> Result<Json<TokenBalanceView>, Problem> {
    let tokens = tokens.into_inner();
    let balance = detached(async move { tokens.balance(asking.caller.user_id).await }).await?;
    Ok(Json(balance.into()))
}

/// Lists the ledger of tokens, newest first.
#[utoipa::path(get, path = "/api/tokens/transactions", tag = "tokens", operation_id = "list_token_transactions",
    params(TokenTransactionQuery), responses(
    (status = 200, description = "A page of the ledger", body = PageView<TokenTransactionView>),
    (status = 404, description = "No such user", body = ProblemView),
), security(("token" = []), ("key" = [])))]
pub async fn list_token_transactions(
    asking: PermittedCaller<CheckUsage>,
    query: ValidQuery<TokenTransactionQuery>,
    tokens: Data<TokenService>,
) -> Result<Json<PageView<TokenTransactionView>>, Problem> {
    let TokenTransactionQuery { user_id, limit, cursor } = query.0;
    let subject: UsageSubject = asking.caller.acting_for(user_id.map(UserId), Permission::UsageCheck)?;
    let page = PageQuery { limit, cursor };
    // The ledger has an order of its own, finer than time, so the id alone marks the end of the previous page.
    let after = page.after()?.map(|(_, id)| TransactionId(id));
    let rows = page.rows();
    let tokens = tokens.into_inner();
    let found = detached(async move { tokens.list(subject, after, rows).await }).await?;
    Ok(Json(page.page(&found, |row| (row.created_at, row.id.0), |row| TokenTransactionView::from(row))))
}

/// Adds tokens that were bought.
#[utoipa::path(post, path = "/api/tokens/topup", tag = "operators", operation_id = "top_up_tokens", request_body = TokenCreditIn,
    params(("Idempotency-Key" = Option<String>, Header, description = "Makes a repeat count once; the body's key says the same")),
    responses(
    (status = 201, description = "The transaction", body = TokenTransactionView),
    (status = 404, description = "No such user", body = ProblemView),
), security(("token" = []), ("key" = [])))]
pub async fn top_up_tokens(
    admin: RecentCaller<ManageTokens>,
    key: RequestKey,
    tokens: Data<TokenService>,
    input: ValidBody<TokenCreditIn>,
) -> Result<HttpResponse, Problem> {
    let TokenCreditIn { user_id, amount, description, reference_id, idempotency_key } = input.body;
    let origin = CreditOrigin::Topup { amount, reference_id };
    let order = CreditOrder { user_id: UserId(user_id), origin, description };
    credit(admin.caller.user_id, order, key, idempotency_key, tokens).await
}

/// Adds tokens as a bonus.
#[utoipa::path(post, path = "/api/tokens/bonus", tag = "operators", operation_id = "grant_bonus_tokens", request_body = TokenCreditIn,
    params(("Idempotency-Key" = Option<String>, Header, description = "Makes a repeat count once; the body's key says the same")),
    responses(
    (status = 201, description = "The transaction", body = TokenTransactionView),
    (status = 404, description = "No such user", body = ProblemView),
), security(("token" = []), ("key" = [])))]
pub async fn grant_bonus_tokens(
    admin: RecentCaller<ManageTokens>,
    key: RequestKey,
    tokens: Data<TokenService>,
    input: ValidBody<TokenCreditIn>,
) -> Result<HttpResponse, Problem> {
    let TokenCreditIn { user_id, amount, description, reference_id, idempotency_key } = input.body;
    let origin = CreditOrigin::Bonus { amount, reference_id };
    let order = CreditOrder { user_id: UserId(user_id), origin, description };
    credit(admin.caller.user_id, order, key, idempotency_key, tokens).await
}

/// Refunds the tokens of a use, in all never more than it took.
#[utoipa::path(post, path = "/api/tokens/refund", tag = "operators", operation_id = "refund_tokens", request_body = TokenRefundIn,
    params(("Idempotency-Key" = Option<String>, Header, description = "Makes a repeat count once; the body's key says the same")),
    responses(
    (status = 201, description = "The transaction", body = TokenTransactionView),
    (status = 404, description = "No such user, or no such transaction of type `usage` of theirs", body = ProblemView),
    (status = 409, description = "All of it was refunded before", body = ProblemView),
), security(("token" = []), ("key" = [])))]
pub async fn refund_tokens(
    admin: RecentCaller<ManageTokens>,
    key: RequestKey,
    tokens: Data<TokenService>,
    input: ValidBody<TokenRefundIn>,
) -> Result<HttpResponse, Problem> {
    let TokenRefundIn { user_id, transaction_id, amount, description, idempotency_key } = input.body;
    let origin = CreditOrigin::Refund { transaction_id: TransactionId(transaction_id), amount };
    let order = CreditOrder { user_id: UserId(user_id), origin, description };
    credit(admin.caller.user_id, order, key, idempotency_key, tokens).await
}

async fn credit(
    actor: UserId,
    order: CreditOrder,
    header: RequestKey,
    body: Option<String>,
    tokens: Data<TokenService>,
) -> Result<HttpResponse, Problem> {
    let key = one_key(header.into_key(), body.as_deref())?;
    let tokens = tokens.into_inner();
    let credited = detached(async move { tokens.credit(actor, &order, key.as_ref()).await }).await?;
    Ok(now_or_again(StatusCode::CREATED, credited.replayed).json(TokenTransactionView::from(&credited.transaction)))
}
