//! Preparation: what the service sets up in the database before it serves, or as soon as the database answers.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use domain::identity::Email;
use domain::users::UserId;
use ports::store::StoreError;
use services::identity::accounts::AccountService;
use services::identity::first_admin::{AdminUnused, FirstAdmin};
use services::plans::PlanService;
use services::prices::PriceService;
use services::users::{NamedAdmin, UserService};
use tracing::{info, warn};

use crate::http::server::Services;
use crate::settings::shape::{SecretText, Settings, given};

/// How long a preparation that could not reach the database waits before it tries again.
const PREPARATION_PAUSE: Duration = Duration::from_secs(5);

/// What the service stores about itself: the grace, the prices, the signing key's name, the first administrator.
#[derive(Clone)]
pub struct StartPreparation {
    plans: Arc<PlanService>,
    prices: Arc<PriceService>,
    users: Arc<UserService>,
    accounts: Option<Arc<AccountService>>,
    past_due_grace_days: u16,
    admin_email: Option<Email>,
    admin_password: SecretText,
    may_wait: bool,
}

impl StartPreparation {
    pub fn new(settings: &Settings, rooms: &Services) -> anyhow::Result<Self> {
        Ok(Self {
            plans: Arc::clone(&rooms.plans),
            prices: Arc::clone(&rooms.prices),
            users: Arc::clone(&rooms.users),
            accounts: rooms.accounts.clone(),
            past_due_grace_days: settings.billing.past_due_grace_days,
            admin_email: admin_email(settings)?,
            admin_password: settings.admin.password.clone(),
            may_wait: !settings.database.migrate_on_start,
        })
    }

    /// Runs it now; if the database does not answer and need not yet, later, as soon as it does.
    pub async fn run(self) -> anyhow::Result<FirstAdmin> {
        match self.attempt().await {
            Err(error) if self.may_wait && is_away(&error) => {
                tokio::spawn(self.run_later());
                Ok(FirstAdmin::Present { unused: None })
            }
            settled => settled.context("the first administrator could not be seen to"),
        }
    }

    async fn run_later(self) {
        loop {
            tokio::time::sleep(PREPARATION_PAUSE).await;
            match self.attempt().await {
                Ok(_) => return info!("the database is there; the first administrator and the grace are seen to"),
                Err(error) if is_away(&error) => {}
                Err(error) => return warn!(%error, "the first administrator could not be seen to"),
            }
        }
    }

    async fn attempt(&self) -> anyhow::Result<FirstAdmin> {
        self.plans.keep_grace_days(self.past_due_grace_days).await?;
        self.prices.register_providers().await?;
        self.prices.keep_catalogue().await?;
        let Some(accounts) = &self.accounts else {
            if let NamedAdmin::NotPromoted(user_id) = self.users.promote_named_admin().await? {
                warn!(
                    %user_id,
                    "the profile of admin.email is no administrator's: there is another administrator, or Supabase does not \
                     say that the address is confirmed and this identity's alone; `product-base admin grant {user_id}` \
                     makes it one"
                );
            }
            return Ok(FirstAdmin::Present { unused: None });
        };
        accounts.record_signing_key().await?;
        let password = self.admin_password.expose().map(str::to_owned);
        let first = accounts.ensure_admin(self.admin_email.clone(), password).await?;
        self.tell(&first);
        Ok(first)
    }

    /// Logs every setting of the administrator that the start did not apply.
    fn tell(&self, first: &FirstAdmin) {
        match first {
            FirstAdmin::Made { .. } => {}
            FirstAdmin::NotMade { user_id, .. } => warn!(%user_id, "{}", not_made(*user_id)),
            FirstAdmin::Present { unused: Some(AdminUnused { user_id: Some(user_id), .. }) } => warn!(
                %user_id,
                "the account of admin.email is no administrator's, and admin.password is not used; \
                 `product-base admin grant {user_id}` makes it one"
            ),
            FirstAdmin::Present { unused: Some(AdminUnused { user_id: None, .. }) } => warn!(
                "admin.email has no account: there is an administrator already, so none was made, and admin.password is \
                 not used; `product-base admin list` shows who it is"
            ),
            FirstAdmin::Present { unused: None } => {
                if self.admin_password.is_set() {
                    info!("there is an administrator already; admin.password is not used");
                }
            }
        }
    }
}

/// What to do if another user signed up with the address of the first administrator.
pub fn not_made(user_id: UserId) -> String {
    format!(
        "no administrator was made: somebody signed up with the address before, and admin.password is not used; if the \
         account is yours, `product-base admin grant {user_id}` makes it an administrator's, else name another address"
    )
}

pub fn admin_email(settings: &Settings) -> anyhow::Result<Option<Email>> {
    given(&settings.admin.email).map(Email::parse).transpose().context("admin.email is no e-mail address")
}

fn is_away(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| matches!(cause.downcast_ref::<StoreError>(), Some(StoreError::Unavailable(_))))
}
