//! Second factors of the built-in accounts: set up, confirmed by a first code, required at every log-in, removed.
//!
//! Promise: a code is used once, since each use is written under the lock of the account's credentials, in the
//! transaction that it was sent for. A secret is shown once and stored sealed; a recovery code is stored as a keyed
//! hash (mark).

use domain::identity::totp::{ShownCode, open_steps, otpauth_url};
use domain::identity::{Role, StoredEmail};
use domain::users::{User, UserId};
use ports::identity::{SecondFactor, TokenScope};
use ports::store::{Scope, UnitOfWork};
use tracing::info;

use super::accounts::{AccountError, AccountService};

/// The name of the service in an authenticator.
const ISSUER: &str = "Product Base";

/// A second factor that is not confirmed yet.
pub struct OfferedFactor {
    /// In base32, for typing.
    pub secret: String,
    /// For a QR code.
    pub otpauth_url: String,
}

impl AccountService {
    /// Creates a secret. Until a code confirms it, log-ins do not ask for it and the next offer replaces it.
    pub async fn offer_second_factor(&self, user_id: UserId) -> Result<OfferedFactor, AccountError> {
        let made = self.second_factors.mint(user_id)?;
        let mut work = self.store.begin(Scope::on_order_of(user_id)).await?;
        work.identity().lock_credentials(user_id).await?;
        let email = work.identity().find_email(user_id).await?;
        if work.identity().find_second_factor(user_id).await?.is_some_and(|factor| factor.confirmed_at.is_some()) {
            return Err(AccountError::TotpEnrolled);
        }
        work.identity().offer_second_factor(user_id, &made.sealed).await?;
        work.commit().await?;
        let account = email.as_ref().map_or("account", StoredEmail::as_str);
        Ok(OfferedFactor { otpauth_url: otpauth_url(ISSUER, account, &made.secret), secret: made.secret })
    }

    /// Checks the first code, and returns the recovery codes, once.
    pub async fn confirm_second_factor(&self, user_id: UserId, code: &str) -> Result<Vec<String>, AccountError> {
        let now = self.clock.now();
        let codes = self.second_factors.mint_recovery_codes();
        let marks: Vec<String> = codes.iter().map(|code| self.recovery_mark(user_id, code)).collect();
        let mut work = self.store.begin(Scope::on_order_of(user_id)).await?;
        work.identity().lock_credentials(user_id).await?;
        let factor = work.identity().find_second_factor(user_id).await?.ok_or(AccountError::TotpMissing)?;
        if factor.confirmed_at.is_some() {
            return Err(AccountError::TotpEnrolled);
        }
        let step = match ShownCode::read(code) {
            ShownCode::Totp(digits) => self.step_of(user_id, &factor, &digits)?,
            ShownCode::Recovery(_) => None,
        };
        let step = step.ok_or(AccountError::TotpWrong)?;
        work.identity().confirm_second_factor(user_id, now, step, &marks).await?;
        work.commit().await?;
        info!(%user_id, "a second factor was set up");
        Ok(codes)
    }

    /// Removes the second factor, by a code of it or a recovery code.
    pub async fn remove_second_factor(&self, user_id: UserId, code: &str) -> Result<(), AccountError> {
        let mut work = self.store.begin(Scope::on_order_of(user_id)).await?;
        work.identity().lock_credentials(user_id).await?;
        let factor = work.identity().find_second_factor(user_id).await?;
        factor.filter(|factor| factor.confirmed_at.is_some()).ok_or(AccountError::TotpMissing)?;
        self.check_second_factor(&mut *work, user_id, Some(code)).await?;
        work.identity().delete_second_factor(user_id).await?;
        work.commit().await?;
        info!(%user_id, "a second factor was taken away");
        Ok(())
    }

    /// Checks the second factor where there is one. The caller has locked the credentials.
    pub(super) async fn check_second_factor(
        &self,
        work: &mut dyn UnitOfWork,
        user_id: UserId,
        code: Option<&str>,
    ) -> Result<(), AccountError> {
        let factor = work.identity().find_second_factor(user_id).await?;
        let Some(factor) = factor.filter(|factor| factor.confirmed_at.is_some()) else { return Ok(()) };
        match ShownCode::read(code.ok_or(AccountError::TotpRequired)?) {
            ShownCode::Totp(digits) => {
                let step = self.step_of(user_id, &factor, &digits)?.ok_or(AccountError::TotpWrong)?;
                work.identity().save_totp_step(user_id, step).await?;
                Ok(())
            }
            ShownCode::Recovery(code) => {
                let mark = self.recovery_mark(user_id, &code);
                let was_there = work.identity().use_recovery_code(user_id, &mark).await?;
                if was_there { Ok(()) } else { Err(AccountError::TotpWrong) }
            }
        }
    }

    /// The scope of a token: an administrator without a second factor may have to set one up first.
    pub(super) async fn scope_of(&self, work: &mut dyn UnitOfWork, user: &User) -> Result<TokenScope, AccountError> {
        if !self.require_admin_totp || user.role != Role::Admin {
            return Ok(TokenScope::Everything);
        }
        let factor = work.identity().find_second_factor(user.id).await?;
        let has_one = factor.is_some_and(|factor| factor.confirmed_at.is_some());
        Ok(if has_one { TokenScope::Everything } else { TokenScope::OwnAccount })
    }

    fn step_of(&self, user_id: UserId, factor: &SecondFactor, digits: &str) -> Result<Option<i64>, AccountError> {
        let steps = open_steps(self.clock.now(), factor.last_step);
        Ok(self.second_factors.matching_step(user_id, &factor.sealed_secret, digits, &steps)?)
    }

    fn recovery_mark(&self, user_id: UserId, code: &str) -> String {
        let mark = self.secrets.mark(&format!("recovery code of {user_id}: {code}"));
        mark.iter()
            .flat_map(|byte| [byte >> 4, byte & 0xF])
            .filter_map(|half| char::from_digit(half.into(), 16))
            .collect()
    }
}
