//! Tokens: the balance and its ledger, which change together.

use async_trait::async_trait;
use domain::features::FeatureId;
use domain::idempotency::IdempotencyKey;
use domain::tokens::{TokenBalance, TokenCredit, TokenTransaction, TokensSpent, TransactionId};
use domain::usage::HoldId;
use domain::users::{User, UserId};

use crate::store::{Locked, Page, StoreError};

/// Tokens that are reserved, freed or spent for use beyond a limit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenChange {
    pub user_id: UserId,
    pub feature_id: FeatureId,
    /// What is added to the reserved tokens; negative where they are freed.
    pub reserved: i64,
    /// What is taken from the balance, with a row of the ledger.
    pub spent: i64,
    pub reservation_id: Option<HoldId>,
}

#[async_trait]
pub trait TokenRepository: Send {
    /// `None` where there is no such user.
    async fn find_balance(&mut self, user_id: UserId) -> Result<Option<TokenBalance>, StoreError>;
    /// Newest first, by the position in the chain. Nothing after an id that is not the user's.
    async fn list(&mut self, user_id: UserId, page: &Page<TransactionId>) -> Result<Vec<TokenTransaction>, StoreError>;
    /// The row that was written under this key.
    async fn find_by_key(
        &mut self,
        user_id: UserId,
        key: &IdempotencyKey,
    ) -> Result<Option<TokenTransaction>, StoreError>;
    /// What a use of this user took, and what was refunded of it: by now, or in the rows before the position `before`.
    /// `None` where the id is no use, or another user's.
    async fn find_spent(
        &mut self,
        user_id: UserId,
        id: TransactionId,
        before: Option<i64>,
    ) -> Result<Option<TokensSpent>, StoreError>;
    /// Adds to the balance and writes the row, in one statement. The lock keeps the chain in order, and the results of
    /// `find_by_key` and `find_spent` valid.
    async fn record(
        &mut self,
        user: &Locked<User>,
        id: TransactionId,
        credit: &TokenCredit,
        key: Option<&IdempotencyKey>,
    ) -> Result<TokenTransaction, StoreError>;
    /// Reserves, releases and spends tokens, under the lock of the user's row.
    async fn move_tokens(&mut self, change: &TokenChange) -> Result<(), StoreError>;
}
