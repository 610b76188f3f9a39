//! Users: the profiles.

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use domain::identity::{CallerFacts, Role};
use domain::users::{NewUser, User, UserChanges, UserId};
use uuid::Uuid;

use crate::store::{Locked, Page, StoreError};

/// A position in the list of users: newest first, the id breaks ties.
pub type UserPosition = (DateTime<Utc>, Uuid);

/// One part of all stored data of a user: a table and its rows as JSON objects, as text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExportSection {
    pub table: &'static str,
    pub rows: Vec<String>,
    /// Whether there were more rows than the export allows.
    pub truncated: bool,
}

#[async_trait]
pub trait UserRepository: Send {
    async fn find(&mut self, id: UserId) -> Result<Option<User>, StoreError>;
    /// The role of a profile.
    async fn find_role(&mut self, id: UserId) -> Result<Option<Role>, StoreError>;
    /// The facts about callers, for many at once in one statement: of every id, with a profile or without.
    async fn find_callers(&mut self, ids: &[UserId]) -> Result<Vec<(UserId, CallerFacts)>, StoreError>;
    /// FOR NO KEY UPDATE: inserts of child rows go on meanwhile.
    async fn lock(&mut self, id: UserId) -> Result<Option<Locked<User>>, StoreError>;
    /// `Constraint { fk_users_auth }` without an identity, `Constraint { users_pkey }` where there is a profile.
    async fn insert(&mut self, user: &NewUser) -> Result<User, StoreError>;
    /// Writes the fields that a user may change; `None` where there is no profile.
    async fn save(&mut self, id: UserId, changes: &UserChanges) -> Result<Option<User>, StoreError>;
    /// Whether there is an administrator yet.
    async fn has_admin(&mut self) -> Result<bool, StoreError>;
    /// Lets one process at a time create the first administrator, until the end of the transaction.
    async fn lock_first_admin(&mut self) -> Result<(), StoreError>;
    /// The administrators, longest-standing first, at most `limit`.
    async fn list_admins(&mut self, limit: u64) -> Result<Vec<User>, StoreError>;
    async fn save_role(&mut self, id: UserId, role: Role) -> Result<bool, StoreError>;
    /// Deletes the profile and what depends on it; a tombstone stays. `false` where there was none.
    async fn delete(&mut self, id: UserId) -> Result<bool, StoreError>;
    async fn list(&mut self, page: &Page<UserPosition>) -> Result<Vec<User>, StoreError>;
    /// All stored data of a user, table by table, at most `limit` rows of each.
    async fn export(&mut self, id: UserId, limit: u64) -> Result<Vec<ExportSection>, StoreError>;
}
