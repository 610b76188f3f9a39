//! Tokens: reading the balance and its ledger; top-up, bonus and refund for administrators.
//!
//! Every credit runs under the lock of the user's row, so that the balance and the head of the ledger's chain change
//! together and no use is refunded twice. The idempotency key is the ledger row's own and belongs to the user whose
//! balance changes, whichever actor sends it: a duplicate waits for the lock and finds the row. It is kept as long as
//! the ledger.
//!
//! Costs: BEGIN, the lock, the lookup of the key where there is one, the lookup of the use where it is a refund, the
//! row, COMMIT. Reading is one statement.

use std::sync::Arc;

use domain::idempotency::IdempotencyKey;
use domain::identity::UsageSubject;
use domain::tokens::{
    CreditOrder, CreditOrigin, CreditRefused, TokenBalance, TokenTransaction, TokensSpent, TransactionId, credit,
};
use domain::users::UserId;
use ports::randomness::Randomness;
use ports::store::{Page, Scope, Store, StoreError, UnitOfWork};
use thiserror::Error;

use crate::conflicts::{may_conflict, retry_conflicts};

#[derive(Debug, Error)]
pub enum TokenError {
    #[error("there is no such user")]
    UnknownUser,
    #[error(transparent)]
    Refused(#[from] CreditRefused),
    #[error("this idempotency key was used with another body")]
    KeyReused,
    #[error(transparent)]
    Store(#[from] StoreError),
}
may_conflict!(TokenError);

/// The result of a credit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokensCredited {
    pub transaction: TokenTransaction,
    /// Whether it was written before, under the same key.
    pub replayed: bool,
}

pub struct TokenService {
    pub store: Arc<dyn Store>,
    pub randomness: Arc<dyn Randomness>,
}

impl TokenService {
    /// Read as the user, so that the database itself shows no other user's.
    pub async fn balance(&self, user_id: UserId) -> Result<TokenBalance, TokenError> {
        let mut work = self.store.begin(Scope::User(user_id)).await?;
        let balance = work.tokens().find_balance(user_id).await?.ok_or(TokenError::UnknownUser)?;
        work.commit().await?;
        Ok(balance)
    }

    /// The ledger, newest first.
    pub async fn list(
        &self,
        subject: UsageSubject,
        after: Option<TransactionId>,
        limit: u64,
    ) -> Result<Vec<TokenTransaction>, TokenError> {
        let (user_id, scope) = match subject {
            UsageSubject::Oneself(user_id) => (user_id, Scope::User(user_id)),
            UsageSubject::Another(user_id) => (user_id, Scope::SERVICE),
        };
        let mut work = self.store.begin(scope).await?;
        let transactions = work.tokens().list(user_id, &Page { after, limit }).await?;
        // A user with rows exists; only without any is a second statement needed.
        if transactions.is_empty() && work.users().find_role(user_id).await?.is_none() {
            return Err(TokenError::UnknownUser);
        }
        work.commit().await?;
        Ok(transactions)
    }

    /// Adds to a user's balance, on the order of `actor`, whose right was checked.
    pub async fn credit(
        &self,
        actor: UserId,
        order: &CreditOrder,
        key: Option<&IdempotencyKey>,
    ) -> Result<TokensCredited, TokenError> {
        retry_conflicts(async || self.credit_once(actor, order, key).await).await
    }

    async fn credit_once(
        &self,
        actor: UserId,
        order: &CreditOrder,
        key: Option<&IdempotencyKey>,
    ) -> Result<TokensCredited, TokenError> {
        let mut work = self.store.begin(Scope::on_order_of(actor)).await?;
        let user = work.users().lock(order.user_id).await?.ok_or(TokenError::UnknownUser)?;
        if let Some(key) = key
            && let Some(first) = work.tokens().find_by_key(order.user_id, key).await?
        {
            // The order is checked against the ledger before the row: a refund of all that was left must match its own
            // repeat.
            let spent = spent(&mut *work, order, Some(first.seq)).await?;
            return match credit(order, spent) {
                Ok(credit) if credit.came_to(&first) => Ok(TokensCredited { transaction: first, replayed: true }),
                _ => Err(TokenError::KeyReused),
            };
        }
        let spent = spent(&mut *work, order, None).await?;
        let credit = credit(order, spent)?;
        credit.added_to(user.token_balance)?;
        let id = TransactionId(self.randomness.new_id());
        let transaction = work.tokens().record(&user, id, &credit, key).await?;
        work.commit().await?;
        Ok(TokensCredited { transaction, replayed: false })
    }
}

/// The use that a refund names, as of the position `before` in the ledger.
async fn spent(
    work: &mut dyn UnitOfWork,
    order: &CreditOrder,
    before: Option<i64>,
) -> Result<Option<TokensSpent>, StoreError> {
    match order.origin {
        CreditOrigin::Refund { transaction_id, .. } => {
            work.tokens().find_spent(order.user_id, transaction_id, before).await
        }
        CreditOrigin::Topup { .. } | CreditOrigin::Bonus { .. } => Ok(None),
    }
}
