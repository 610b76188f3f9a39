//! The first administrator of the built-in identity: made by a start, and only where there is no administrator.
//!
//! An account that somebody opened is never made an administrator because of its address: nobody has proved the address.
//! An operator does that by `product-base admin grant`.

use domain::identity::{Email, Role};
use domain::users::UserId;
use ports::store::Scope;

use super::accounts::{AccountError, AccountService};

/// What became of the first administrator at a start.
#[derive(Clone, PartialEq, Eq)]
pub enum FirstAdmin {
    /// There is one already, so nothing was done. `unused` says that the settings name another account than hers.
    Present { unused: Option<Unused> },
    /// The account was made now, with this password if it was generated.
    Made { email: Email, generated: Option<String> },
    /// There is none: somebody opened an account with the address before, and it stays what it is.
    NotMade { email: Email, user_id: UserId },
}

/// An account that the settings name and that is no administrator, beside others that are.
#[derive(Clone, PartialEq, Eq)]
pub struct Unused {
    pub email: Email,
    /// Where somebody has an account with this address.
    pub user_id: Option<UserId>,
}

impl AccountService {
    /// Sees to it that there is an administrator: the one named in the settings, else `admin@example.com`.
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
        // Of several processes that start at once one makes the account; the others find it.
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

    /// What there is to say where no account is to be made.
    async fn settled_admin(&self, named: Option<&Email>, email: &Email) -> Result<Option<FirstAdmin>, AccountError> {
        let mut work = self.store.begin(Scope::SERVICE).await?;
        let user_id = work.identity().find_by_email(email).await?;
        let settled = if work.users().has_admin().await? {
            let role = match user_id {
                Some(user_id) => work.users().find_role(user_id).await?,
                None => None,
            };
            let unused = named.filter(|_| role != Some(Role::Admin));
            Some(FirstAdmin::Present { unused: unused.map(|email| Unused { email: email.clone(), user_id }) })
        } else {
            user_id.map(|user_id| FirstAdmin::NotMade { email: email.clone(), user_id })
        };
        work.commit().await?;
        Ok(settled)
    }

    /// As random as a refresh token, without the mark of one.
    fn generate_password(&self) -> String {
        let secret = self.secrets.mint().secret;
        secret.split_once('_').map_or_else(|| secret.clone(), |(_, random)| random.to_owned())
    }
}

/// Who the first administrator is where no e-mail is set.
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
