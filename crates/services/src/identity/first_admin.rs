//! The first administrator of the built-in identity: created at a start, and only if there is no administrator.
//!
//! An existing account is never made an administrator because of its address, since the address is not proved. An
//! operator does that by `product-base admin grant`.

use domain::identity::{Email, Role};
use domain::users::UserId;
use ports::store::Scope;

use super::accounts::{AccountError, AccountService};

/// The result of a start for the first administrator.
#[derive(Clone, PartialEq, Eq)]
pub enum FirstAdmin {
    /// There is one already, so nothing was done. `unused` says that the settings name an account that is none.
    Present { unused: Option<AdminUnused> },
    /// The account was created now, with this password if it was generated.
    Made { email: Email, generated: Option<String> },
    /// There is none: an account with the address was opened before, and it stays as it is.
    NotMade { email: Email, user_id: UserId },
}

/// An account that the settings name and that is no administrator, while others are.
#[derive(Clone, PartialEq, Eq)]
pub struct AdminUnused {
    pub email: Email,
    /// Set where an account with this address exists.
    pub user_id: Option<UserId>,
}

impl AccountService {
    /// Makes sure that there is an administrator: the one named in the settings, else `admin@example.com`.
    pub async fn ensure_admin(
        &self,
        named: Option<Email>,
        password: Option<String>,
    ) -> Result<FirstAdmin, AccountError> {
        let email = named.clone().unwrap_or_else(default_admin);
        if let Some(settled) = self.settled_admin(named.as_ref(), &email).await? {
            return Ok(settled);
        }
        let generated = password.is_none().then(|| self.generate_password());
        let password = password.or_else(|| generated.clone()).unwrap_or_default();
        let hash = self.hash_password(&password).await?;
        let mut work = self.store.begin(Scope::SERVICE).await?;
        // Of several processes that start at once, one creates the account; the others find it.
        work.users().lock_first_admin().await?;
        if !work.users().has_admin().await? {
            let name = "Administrator".to_owned();
            match self.register(&mut *work, &email, &hash, name, Role::Admin).await {
                Ok(_) => {
                    work.commit().await?;
                    return Ok(FirstAdmin::Made { email, generated });
                }
                Err(AccountError::EmailTaken) => {}
                Err(error) => return Err(error),
            }
        }
        drop(work);
        self.settled_admin(named.as_ref(), &email).await?.ok_or(AccountError::EmailTaken)
    }

    /// The result where no account is to be created.
    async fn settled_admin(&self, named: Option<&Email>, email: &Email) -> Result<Option<FirstAdmin>, AccountError> {
        let mut work = self.store.begin(Scope::SERVICE).await?;
        let user_id = work.identity().find_by_email(email).await?;
        let settled = if work.users().has_admin().await? {
            let role = match user_id {
                Some(user_id) => work.users().find_role(user_id).await?,
                None => None,
            };
            let unused = named.filter(|_| role != Some(Role::Admin));
            Some(FirstAdmin::Present { unused: unused.map(|email| AdminUnused { email: email.clone(), user_id }) })
        } else {
            user_id.map(|user_id| FirstAdmin::NotMade { email: email.clone(), user_id })
        };
        work.commit().await?;
        Ok(settled)
    }

    /// As random as a refresh token, without its prefix.
    fn generate_password(&self) -> String {
        let secret = self.secrets.mint().secret;
        secret.split_once('_').map_or_else(|| secret.clone(), |(_, random)| random.to_owned())
    }
}

/// The first administrator's address where no e-mail is set.
fn default_admin() -> Email {
    // The literal is an address by the rule that `parse` checks; a test holds it.
    Email::parse("admin@example.com").unwrap_or_else(|_| unreachable!("the default address is well formed"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_administrator_has_an_address() {
        assert_eq!(default_admin().as_str(), "admin@example.com");
    }
}
