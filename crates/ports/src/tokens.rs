//! Tokens: the balance and its ledger, which move together.

use async_trait::async_trait;
use domain::idempotency::IdempotencyKey;
use domain::tokens::{Credit, Spent, TokenBalance, TokenTransaction, TransactionId};
use domain::users::{User, UserId};

use crate::store::{Locked, Page, StoreError};

#[async_trait]
pub trait TokenRepository: Send {
    /// `None` where there is no such user.
    async fn find_balance(&mut self, user_id: UserId) -> Result<Option<TokenBalance>, StoreError>;
    /// Newest first, by the place in the chain. After an id that is none of the user's there is nothing.
    async fn list(&mut self, user_id: UserId, page: &Page<TransactionId>) -> Result<Vec<TokenTransaction>, StoreError>;
    /// What was written under this key.
    async fn find_by_key(
        &mut self,
        user_id: UserId,
        key: &IdempotencyKey,
    ) -> Result<Option<TokenTransaction>, StoreError>;
    /// What a use of this user took, and what was refunded of it: by now, or in the rows before the place `before`.
    /// `None` where the id is no use, or another's.
    async fn find_spent(
        &mut self,
        user_id: UserId,
        id: TransactionId,
        before: Option<i64>,
    ) -> Result<Option<Spent>, StoreError>;
    /// Adds to the balance and writes the row, in one statement. The lock is what keeps the chain in order, and what
    /// makes `find_by_key` and `find_spent` still true here.
    async fn record(
        &mut self,
        user: &Locked<User>,
        id: TransactionId,
        credit: &Credit,
        key: Option<&IdempotencyKey>,
    ) -> Result<TokenTransaction, StoreError>;
}
