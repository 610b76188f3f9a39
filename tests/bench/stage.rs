//! The stage: one durable Postgres for this run with all its users, and the service on it.

use std::path::{Path, PathBuf};
use std::time::Duration;

use adapters::postgres::embedded::{EmbeddedPostgres, EmbeddedSettings};
use adapters::secrets::opaque::OpaqueSecrets;
use anyhow::Context as _;
use ports::identity::SecretMint as _;
use reqwest::Url;
use sea_orm::sqlx::{self, Connection as _, PgConnection};
use tempfile::TempDir;
use tokio::time::timeout;

use crate::arguments::Arguments;
use crate::cases::{CASES, GATEWAY_USERS, House};
use crate::people;
use crate::service::{Orders, Service, Special};
use crate::supabase::Supabase;
use crate::tools::Tools;
use crate::warmth::introduce;
use crate::wrk::Tokens;

/// The service's database login.
const SERVICE_LOGIN: &str = "app_user";

const MIGRATION_LIMIT: Duration = Duration::from_mins(2);
/// For the users, and one more minute for each million of them.
const PEOPLE_LIMIT: Duration = Duration::from_mins(5);

/// The fields drop in this order: the service before its database, and the folder after both.
pub struct Stage {
    pub service: Service,
    /// For further services on the same database.
    orders: Orders,
    /// If a case needs one.
    pub supabase: Option<Supabase>,
    postgres: EmbeddedPostgres,
    pub owner: Url,
    pub tokens: Tokens,
    pub postmaster: Option<u32>,
    pub postgres_version: String,
    folder: TempDir,
}

/// The part of the stage that is quick to build, enough to decide whether the run is possible.
pub struct Ground {
    postgres: EmbeddedPostgres,
    folder: TempDir,
}

impl Ground {
    /// Makes a cluster with the settings of `make run`, so with fsync, and starts it.
    pub async fn prepare() -> anyhow::Result<Self> {
        let folder = tempfile::Builder::new().prefix("product-base-bench-").tempdir()?;
        let settings = EmbeddedSettings { data_dir: folder.path().to_owned(), ..EmbeddedSettings::default() };
        let postgres = EmbeddedPostgres::start(&settings).await?;
        for notice in postgres.notices() {
            eprintln!("{notice}");
        }
        Ok(Self { postgres, folder })
    }

    pub async fn tools(&self) -> Result<Tools, String> {
        Tools::find(self.postgres.bin()).await
    }

    pub async fn strike(self) -> anyhow::Result<()> {
        Ok(self.postgres.stop().await?)
    }

    pub async fn build(self, arguments: &Arguments) -> anyhow::Result<Stage> {
        let Self { postgres, folder } = self;
        let url = postgres.owner_url();
        let migrated = timeout(MIGRATION_LIMIT, async { migration::up(url).await.and(migration::seed(url).await) });
        migrated.await.context("the migration took too long")??;
        let mut owner = PgConnection::connect(url).await?;
        let key = OpaqueSecrets.mint().secret;
        let limit = PEOPLE_LIMIT + Duration::from_secs(u64::from(arguments.users) * 60 / 1_000_000);
        let is_foreign = |house| matches!(house, House::Supabase | House::SupabaseUnseen);
        let wants_supabase = CASES.iter().any(|case| is_foreign(case.house) && arguments.wants(case.name));
        let asks_models = arguments.soak_minutes.is_some()
            || CASES.iter().any(|case| case.asks_models() && arguments.wants(case.name));
        let made = timeout(limit, async {
            people::settle(&mut owner, arguments.users).await?;
            if asks_models {
                people::let_ask(&mut owner, GATEWAY_USERS).await?;
            }
            let tokens = people::sign_tokens(&mut owner, &key, &folder.path().join("tokens")).await?;
            let supabase = if wants_supabase {
                Some(Supabase::open(&mut owner, &folder.path().join("tokens-es256")).await?)
            } else {
                None
            };
            anyhow::Ok((tokens, supabase))
        });
        let (tokens, supabase) = made.await.context("the users took too long")??;
        let postmaster = postmaster(&mut owner).await;
        let postgres_version = sqlx::query_scalar("SHOW server_version").fetch_one(&mut owner).await?;
        owner.close().await?;
        let password = postgres.set_password(SERVICE_LOGIN).await?;
        let orders = Orders {
            program: arguments.service.clone(),
            database_url: postgres.url_as(SERVICE_LOGIN, &password, postgres.database()),
            signing_key: key,
            folder: folder.path().to_owned(),
        };
        let service = Service::start(&orders, Special::default()).await?;
        introduce(&tokens, service.url()).await?;
        // Without the error's own text: the URL contains the password.
        let owner = Url::parse(url).ok().context("the address of the database")?;
        Ok(Stage { service, orders, supabase, postgres, owner, tokens, postmaster, postgres_version, folder })
    }
}

impl Stage {
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// A further process of the service beside the first, for one case.
    pub async fn guest(&self, special: Special<'_>) -> anyhow::Result<Service> {
        Service::start(&self.orders, special).await
    }

    /// The folder of the database's files.
    pub fn data(&self) -> PathBuf {
        self.postgres.data_dir().to_owned()
    }

    pub async fn strike(self) -> anyhow::Result<()> {
        self.service.stop().await?;
        Ok(self.postgres.stop().await?)
    }
}

/// Reads the first line of the pid file.
async fn postmaster(owner: &mut PgConnection) -> Option<u32> {
    let file: String = sqlx::query_scalar("SELECT pg_read_file('postmaster.pid')").fetch_one(owner).await.ok()?;
    file.lines().next()?.trim().parse().ok()
}
