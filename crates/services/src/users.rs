//! Users: profiles, created once the identity exists; read, changed, exported and deleted by their owner.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use domain::identity::{Email, Permission, Role, UsageSubject};
use domain::users::{NewUser, User, UserChanges, UserId};
use ports::identity::CallerCache;
use ports::store::{Page, Scope, Store, StoreError, UnitOfWork};
use ports::users::{ExportSection, UserPosition};
use thiserror::Error;

use crate::conflicts::{may_conflict, retry_conflicts};
use crate::idempotency::{IdempotencyService, IdempotentAnswer, KeyConflict};
use crate::identity::callers::IdentifiedCaller;

/// How many rows of each table an export holds at most; a longer part is marked as truncated.
pub const EXPORT_ROWS: u64 = 10_000;

/// The keeper of the identities.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IdentityProvider {
    BuiltIn,
    Supabase,
}

/// The body of `POST /api/users`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewProfile {
    pub user_id: Option<UserId>,
    pub name: String,
    pub email: Option<Email>,
}

/// The reason in the audit trail where a start made an administrator.
const STARTED: &str = "the start: admin.email is theirs by the identity provider's word";

/// How many administrators a list shows at most.
const ADMINS_LISTED: u64 = 1_000;

/// The result of a start for the administrator whom the settings name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NamedAdmin {
    /// None is named, or there is no profile yet.
    None,
    Present,
    /// There is another administrator, or the provider does not confirm that the address is theirs alone.
    NotPromoted(UserId),
}

#[derive(Debug, Error)]
pub enum UserError {
    #[error("the profile needs the id of the identity: send `user_id`, the `id` that sign-up gave")]
    IdMissing,
    /// Another user's id, or an unknown one: the answer is the same.
    #[error("there is no such user")]
    NotFound,
    #[error("there is no identity with this id; sign up first, then make the profile")]
    UnknownIdentity,
    #[error("this identity has a profile already")]
    Exists,
    #[error("the e-mail differs from the identity's; leave it out, it is never stored here")]
    EmailDiffers,
    #[error(transparent)]
    Key(#[from] KeyConflict),
    #[error(transparent)]
    Store(#[from] StoreError),
}
may_conflict!(UserError);

pub struct UserService {
    pub store: Arc<dyn Store>,
    pub cache: Arc<dyn CallerCache>,
    pub provider: IdentityProvider,
    /// The address of the first administrator where another service keeps the identities (`admin.email`): the identity
    /// that owns it according to that service.
    pub admin_email: Option<Email>,
}

impl UserService {
    /// Creates the profile of an existing identity: the caller's own, or another's where the caller may act for others.
    pub async fn create_profile(
        &self,
        who: &IdentifiedCaller,
        profile: NewProfile,
        once: IdempotencyService<User>,
    ) -> Result<IdempotentAnswer, UserError> {
        let user_id = subject_of(who, profile.user_id)?;
        let actor = who.user_id();
        retry_conflicts(async || self.insert_profile(actor, user_id, &profile, &once).await).await
    }

    async fn insert_profile(
        &self,
        actor: UserId,
        user_id: UserId,
        profile: &NewProfile,
        once: &IdempotencyService<User>,
    ) -> Result<IdempotentAnswer, UserError> {
        let mut work = self.store.begin(Scope::on_order_of(actor)).await?;
        if let Some(replayed) = once.claim(&mut *work).await?? {
            return Ok(replayed);
        }
        if !work.identity().exists(user_id).await? {
            return Err(UserError::UnknownIdentity);
        }
        let email = work.identity().find_email(user_id).await?;
        let differs = |named: &Email| !email.as_ref().is_some_and(|stored| stored.is(named));
        if profile.email.as_ref().is_some_and(differs) {
            return Err(UserError::EmailDiffers);
        }
        let is_named = self.admin_email.as_ref().is_some_and(|named| !differs(named));
        let is_first_admin = is_named && self.may_be_first_admin(&mut *work, user_id).await?;
        let role = if is_first_admin { Role::Admin } else { Role::User };
        let new = NewUser { id: user_id, name: profile.name.clone(), role };
        let user = work.users().insert(&new).await.map_err(|error| match error {
            StoreError::Constraint { constraint } if constraint == "fk_users_auth" => UserError::UnknownIdentity,
            StoreError::Constraint { constraint } if constraint == "users_pkey" => UserError::Exists,
            other => UserError::Store(other),
        })?;
        let performed = once.record(&mut *work, &user).await?;
        work.commit().await?;
        self.cache.forget(user_id);
        Ok(performed)
    }

    /// Whether there is no administrator and the identity provider confirms that this identity owns `admin.email`. The
    /// lock is held until the end of the transaction.
    async fn may_be_first_admin(&self, work: &mut dyn UnitOfWork, user_id: UserId) -> Result<bool, UserError> {
        let Some(named) = &self.admin_email else { return Ok(false) };
        if !work.identity().owns_address(user_id, named).await? {
            return Ok(false);
        }
        work.users().lock_first_admin().await?;
        Ok(!work.users().has_admin().await?)
    }

    /// Where Supabase keeps the identities, makes the owner of `admin.email` an administrator, if the profile exists
    /// and there is no administrator.
    pub async fn promote_named_admin(&self) -> Result<NamedAdmin, UserError> {
        let Some(named) = &self.admin_email else { return Ok(NamedAdmin::None) };
        let mut work = self.store.begin(Scope::Service { actor: None, reason: Some(STARTED.to_owned()) }).await?;
        let Some(user_id) = work.identity().find_by_email(named).await? else { return Ok(NamedAdmin::None) };
        match work.users().find_role(user_id).await? {
            None => return Ok(NamedAdmin::None),
            Some(Role::Admin) => return Ok(NamedAdmin::Present),
            Some(Role::User) => {}
        }
        if !self.may_be_first_admin(&mut *work, user_id).await? {
            return Ok(NamedAdmin::NotPromoted(user_id));
        }
        work.users().save_role(user_id, Role::Admin).await?;
        work.commit().await?;
        self.cache.forget(user_id);
        Ok(NamedAdmin::Present)
    }

    pub async fn find(&self, user_id: UserId) -> Result<User, UserError> {
        let mut work = self.store.begin(Scope::User(user_id)).await?;
        let user = work.users().find(user_id).await?.ok_or(UserError::NotFound)?;
        work.commit().await?;
        Ok(user)
    }

    /// Changes the user's own name or wallet: as the user, so that the database itself allows no other column.
    pub async fn change(&self, user_id: UserId, changes: &UserChanges) -> Result<User, UserError> {
        retry_conflicts::<_, UserError, _>(async || {
            let mut work = self.store.begin(Scope::User(user_id)).await?;
            let user = work.users().save(user_id, changes).await?.ok_or(UserError::NotFound)?;
            work.commit().await?;
            Ok(user)
        })
        .await
    }

    /// Deletes the profile and all that belongs to it, and a built-in identity too.
    pub async fn delete(&self, user_id: UserId) -> Result<(), UserError> {
        retry_conflicts::<_, UserError, _>(async || {
            let mut work = self.store.begin(Scope::on_order_of(user_id)).await?;
            if !work.users().delete(user_id).await? {
                return Err(UserError::NotFound);
            }
            if self.provider == IdentityProvider::BuiltIn {
                work.identity().delete(user_id).await?;
            }
            Ok(work.commit().await?)
        })
        .await?;
        self.cache.forget(user_id);
        Ok(())
    }

    /// All stored data of a user.
    pub async fn export(&self, user_id: UserId) -> Result<Vec<ExportSection>, UserError> {
        let mut work = self.store.begin(Scope::on_order_of(user_id)).await?;
        let sections = work.users().export(user_id, EXPORT_ROWS).await?;
        work.commit().await?;
        Ok(sections)
    }

    /// For operators: any user's profile.
    pub async fn find_any(&self, user_id: UserId) -> Result<User, UserError> {
        let mut work = self.store.begin(Scope::SERVICE).await?;
        let user = work.users().find(user_id).await?.ok_or(UserError::NotFound)?;
        work.commit().await?;
        Ok(user)
    }

    /// For operators: profiles, newest first.
    pub async fn list(&self, after: Option<UserPosition>, limit: u64) -> Result<Vec<User>, UserError> {
        let mut work = self.store.begin(Scope::SERVICE).await?;
        let users = work.users().list(&Page { after, limit }).await?;
        work.commit().await?;
        Ok(users)
    }

    /// For operators: the administrators.
    pub async fn list_admins(&self) -> Result<Vec<User>, UserError> {
        let mut work = self.store.begin(Scope::SERVICE).await?;
        let admins = work.users().list_admins(ADMINS_LISTED).await?;
        work.commit().await?;
        Ok(admins)
    }

    /// For operators: makes a user an administrator, or no longer one. Without an actor, the reason names who asked.
    pub async fn change_role(
        &self,
        actor: Option<UserId>,
        user_id: UserId,
        role: Role,
        reason: Option<String>,
    ) -> Result<User, UserError> {
        let mut work = self.store.begin(Scope::Service { actor, reason }).await?;
        let user = change_role_in(&mut *work, user_id, role).await?;
        work.commit().await?;
        self.cache.forget(user_id);
        Ok(user)
    }

    /// The position of a user in lists. The store sets the times, so no clock of ours is needed.
    pub fn position(user: &User) -> (DateTime<Utc>, uuid::Uuid) {
        (user.created_at, user.id.0)
    }
}

async fn change_role_in(work: &mut dyn UnitOfWork, user_id: UserId, role: Role) -> Result<User, UserError> {
    if !work.users().save_role(user_id, role).await? {
        return Err(UserError::NotFound);
    }
    work.users().find(user_id).await?.ok_or(UserError::NotFound)
}

/// The user whose profile is made. A missing id is reported first, since that is the most common mistake.
fn subject_of(who: &IdentifiedCaller, named: Option<UserId>) -> Result<UserId, UserError> {
    let named = named.ok_or(UserError::IdMissing)?;
    match who {
        IdentifiedCaller::Newcomer(user_id) if *user_id == named => Ok(named),
        IdentifiedCaller::Newcomer(_) | IdentifiedCaller::Enrolling(_) => Err(UserError::NotFound),
        IdentifiedCaller::Caller(caller) => caller
            .acting_for(Some(named), Permission::UsersWrite)
            .map(UsageSubject::user_id)
            .map_err(|_| UserError::NotFound),
    }
}

#[cfg(test)]
mod tests {
    use domain::identity::{Caller, Credential};
    use uuid::Uuid;

    use super::*;

    #[test]
    fn a_profile_is_made_for_oneself_unless_one_may_act_for_others() {
        let (me, other) = (UserId(Uuid::from_u128(1)), UserId(Uuid::from_u128(2)));
        let newcomer = IdentifiedCaller::Newcomer(me);
        assert!(matches!(subject_of(&newcomer, None), Err(UserError::IdMissing)));
        assert!(matches!(subject_of(&newcomer, Some(other)), Err(UserError::NotFound)));
        assert_eq!(subject_of(&newcomer, Some(me)).ok(), Some(me));
        let admin = IdentifiedCaller::Caller(Caller {
            user_id: me,
            role: Role::Admin,
            credential: Credential::Token,
            token: None,
        });
        assert_eq!(subject_of(&admin, Some(other)).ok(), Some(other));
    }
}
