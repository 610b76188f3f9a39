//! Loads the settings: the files in `config/`, then the environment. Read once, at the start.
//!
//! The files are built into the binary, so that it starts in any folder. Those of a `config/` folder in the working
//! folder override them, each its own: `base.toml`, then the environment's file. The environment is the map that is
//! passed in: only `main` reads the process's own.

use std::collections::HashMap;
use std::path::Path;

use anyhow::{Context, bail};
use config::{Config, File, FileFormat};
use domain::ai::ModelId;

use super::models;
use super::production;
use super::providers::{configured, profiles};
use super::shape::{AiSettings, Environment, Settings};

const BASE: &str = include_str!("../../../../config/base.toml");
const LOCAL: &str = include_str!("../../../../config/local.toml");
const PRODUCTION: &str = include_str!("../../../../config/production.toml");
const TEST: &str = include_str!("../../../../config/test.toml");

/// Keys whose text is a list; every other text stays text.
const LISTS: [&str; 2] = ["server.trusted_proxies", "server.cors_origins"];

/// The most fallbacks for one call: further ones only cost time.
const FALLBACKS_MAX: usize = 5;

/// A load balancer may cut a connection that is silent for a minute.
const PING_MS_MAX: u32 = 15_000;
const HEAD_WAIT_MS_MAX: u32 = 60_000;

/// The settings of a process with these environment variables, and with the files of `folder` if it exists.
#[expect(clippy::implicit_hasher, reason = "a process has one environment, and its map one hasher")]
pub fn load(variables: &HashMap<String, String>, folder: &Path) -> anyhow::Result<Settings> {
    let environment = variables.get("PB__ENVIRONMENT").map_or("local", String::as_str);
    let built_in = match environment {
        "local" => LOCAL,
        "production" => PRODUCTION,
        "test" => TEST,
        other => bail!("PB__ENVIRONMENT is `{other}`; it is local, production or test"),
    };
    let mut builder = Config::builder().set_default("environment", environment)?;
    for (built_in, name) in [(BASE, "base"), (built_in, environment)] {
        builder = builder.add_source(File::from_str(built_in, FileFormat::Toml));
        let own_file = folder.join(format!("{name}.toml"));
        if own_file.is_file() {
            builder = builder.add_source(File::from(own_file).format(FileFormat::Toml));
        }
    }
    let own: HashMap<String, String> = variables
        .iter()
        .filter(|(name, _)| name.starts_with("PB__") && !name.starts_with("PB__TEST__"))
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect();
    let mut from_environment = config::Environment::with_prefix("PB")
        .prefix_separator("__")
        .separator("__")
        .try_parsing(true)
        .list_separator(",")
        .source(Some(own));
    let of_providers = variables.keys().filter_map(|name| missing_list(name));
    for list in LISTS.into_iter().map(str::to_owned).chain(of_providers) {
        from_environment = from_environment.with_list_parse_key(&list);
    }
    let settings: Settings = builder
        .add_source(from_environment)
        .build()?
        .try_deserialize()
        .context("a setting is unknown or has a wrong value (every key stands in config/base.toml)")?;
    let mut settings = with_fallbacks(settings, variables);
    let providers = configured(&settings.ai)?;
    check(&settings)?;
    settings.ai.models = models::load(folder, &profiles(&providers))?;
    Ok(settings)
}

/// The key of a provider's list of missing features, if it is what this variable sets.
fn missing_list(variable: &str) -> Option<String> {
    let name = variable.strip_prefix("PB__AI__PROVIDERS__")?.strip_suffix("__MISSING")?.to_lowercase();
    Some(format!("ai.providers.{name}.missing"))
}

/// The variables in which a Supabase project or a host gives the database's address.
fn with_fallbacks(mut settings: Settings, variables: &HashMap<String, String>) -> Settings {
    use super::shape::SecretText;
    let first_of =
        |names: &[&str]| names.iter().find_map(|name| variables.get(*name).filter(|value| !value.is_empty()));
    let database = &mut settings.database;
    if !database.url.is_set()
        && let Some(url) = first_of(&["SUPABASE_DATABASE_URL", "DATABASE_URL"])
    {
        database.url = SecretText::new(url);
    }
    if !database.direct_url.is_set()
        && let Some(url) = first_of(&["SUPABASE_DIRECT_URL", "DATABASE_URL"])
    {
        database.direct_url = SecretText::new(url);
    }
    settings.stripe.price_ids = variables.iter().filter_map(|(name, id)| Some((priced(name)?, id.clone()))).collect();
    settings
}

/// `STRIPE_GOLD_MONTHLY_PRICE_ID` is the monthly price of the plan gold.
fn priced(name: &str) -> Option<(String, String)> {
    let (plan, interval) = name.strip_prefix("STRIPE_")?.strip_suffix("_PRICE_ID")?.rsplit_once('_')?;
    let interval = match interval {
        "MONTHLY" => "month",
        "YEARLY" => "year",
        _ => return None,
    };
    Some((plan.to_lowercase(), interval.to_owned()))
}

/// Checks what no type can express.
fn check(settings: &Settings) -> anyhow::Result<()> {
    if settings.database.acquire_timeout_ms > 2_000 {
        bail!(
            "database.acquire_timeout_ms is {}; at most 2000, so that a lost database is answered within 3 seconds",
            settings.database.acquire_timeout_ms
        );
    }
    if settings.database.max_connections == 0 {
        bail!("database.max_connections is 0; the service needs at least 1");
    }
    if settings.auth.signing_key.expose().is_some_and(|key| key.len() < 32) {
        bail!("auth.signing_key is shorter than 32 characters");
    }
    check_ai(&settings.ai)?;
    if settings.environment == Environment::Production {
        production::check(settings)?;
    }
    Ok(())
}

fn check_ai(ai: &AiSettings) -> anyhow::Result<()> {
    if [u64::from(ai.breaker_failures), u64::from(ai.breaker_callers), ai.breaker_open_seconds].contains(&0) {
        bail!("ai.breaker_failures, ai.breaker_callers and ai.breaker_open_seconds are at least 1");
    }
    if !(10..=PING_MS_MAX).contains(&ai.calls.ping_ms) {
        bail!("ai.calls.ping_ms is {}; it is 10 to {PING_MS_MAX}", ai.calls.ping_ms);
    }
    if ai.calls.head_wait_ms > HEAD_WAIT_MS_MAX {
        bail!("ai.calls.head_wait_ms is {}; at most {HEAD_WAIT_MS_MAX}", ai.calls.head_wait_ms);
    }
    for (model, fallbacks) in &ai.fallbacks {
        if fallbacks.len() > FALLBACKS_MAX {
            bail!("ai.fallbacks has {} models for {model}; at most {FALLBACKS_MAX}", fallbacks.len());
        }
        if let Some(wrong) = fallbacks.iter().find(|name| *name == model || ModelId::parse(name).is_err()) {
            bail!("ai.fallbacks has `{wrong}` for {model}; it takes the names of other models");
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use domain::subscriptions::BillingMode;

    use super::*;
    use crate::settings::shape::LogFormat;

    fn loaded(variables: &[(&str, &str)]) -> anyhow::Result<Settings> {
        let variables = variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        load(&variables, Path::new("/nonexistent"))
    }

    #[test]
    fn the_layers_lie_over_each_other() {
        let local = loaded(&[]).unwrap();
        assert_eq!((local.billing.mode, local.server.port), (BillingMode::Open, 8080));
        let changed = loaded(&[
            ("PB__SERVER__PORT", "9000"),
            ("PB__BILLING__MODE", "stripe"),
            ("PB__SERVER__TRUSTED_PROXIES", "10.0.0.1,10.0.0.2"),
            ("PB__ADMIN__PASSWORD", "123456789012"),
            ("PB__TEST__DATABASE_URL", "ignored"),
        ])
        .unwrap();
        assert_eq!((changed.billing.mode, changed.server.port), (BillingMode::Stripe, 9000));
        assert_eq!(changed.server.trusted_proxies, ["10.0.0.1", "10.0.0.2"]);
        assert_eq!(changed.admin.password.expose(), Some("123456789012"));
    }

    #[test]
    fn the_files_of_the_folder_lie_over_those_that_are_built_in() {
        let folder = tempfile::tempdir().unwrap();
        let read = |base: &str, local: &str, variables: &[(&str, &str)]| {
            std::fs::write(folder.path().join("base.toml"), base).unwrap();
            std::fs::write(folder.path().join("local.toml"), local).unwrap();
            let variables = variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
            load(&variables, folder.path())
        };
        let own = "[ai]\nretry_budget_ms = 7\n[server]\nport = 1\n[log]\nformat = \"json\"";
        let settings = read(own, "", &[]).unwrap();
        assert_eq!((settings.ai.retry_budget_ms, settings.server.port, settings.ai.calls.ping_ms), (7, 1, 10_000));
        assert_eq!(settings.log.format, LogFormat::Pretty, "the environment's file is after it");
        let settings = read(own, "[server]\nport = 2", &[("PB__AI__RETRY_BUDGET_MS", "9")]).unwrap();
        assert_eq!((settings.ai.retry_budget_ms, settings.server.port), (9, 2));
        let told = format!("{:#}", read("[server]\nprot = 1", "", &[]).unwrap_err());
        assert!(told.contains("prot"), "{told}");
        let told = format!("{:#}", read("[server", "", &[]).unwrap_err());
        assert!(told.contains("base.toml"), "{told}");
    }

    #[test]
    fn an_unknown_key_is_refused_by_name() {
        let error = format!("{:#}", loaded(&[("PB__SERVER__PROT", "1")]).unwrap_err());
        assert!(error.contains("prot"), "{error}");
    }

    #[test]
    fn production_needs_a_key_that_nobody_knows() {
        assert!(loaded(&[("PB__ENVIRONMENT", "production")]).is_err());
        let known = "super-secret-jwt-token-with-at-least-32-characters-long";
        assert!(loaded(&[("PB__ENVIRONMENT", "production"), ("PB__AUTH__SIGNING_KEY", known)]).is_err());
        let own = "a-key-that-stands-in-no-tutorial-at-all";
        assert!(loaded(&[("PB__ENVIRONMENT", "production"), ("PB__AUTH__SIGNING_KEY", own)]).is_ok());
    }

    #[test]
    fn a_secret_does_not_print() {
        let settings = loaded(&[("PB__ADMIN__PASSWORD", "hunter2hunter2")]).unwrap();
        assert!(!format!("{settings:?}").contains("hunter2"));
    }

    #[test]
    fn the_names_of_other_hosts_are_fallbacks() {
        let settings =
            loaded(&[("SUPABASE_DATABASE_URL", "postgres://pooled"), ("DATABASE_URL", "postgres://plain")]).unwrap();
        assert_eq!(settings.database.url.expose(), Some("postgres://pooled"));
        assert_eq!(settings.database.direct_url.expose(), Some("postgres://plain"));
    }
    #[test]
    fn fallbacks_are_read_from_a_file_under_the_names_of_models() {
        let folder = tempfile::tempdir().unwrap();
        let read = |text: &str| {
            std::fs::write(folder.path().join("local.toml"), text).unwrap();
            load(&HashMap::new(), folder.path())
        };
        let ai = read(
            "[ai.fallbacks]\n\"gpt-5.4\" = [\"claude-sonnet-5\", \"gemini/gemini-3.5-flash\"]\n\"ft:Gpt:a/B\" = []",
        )
        .unwrap()
        .ai;
        assert_eq!(ai.fallbacks["gpt-5.4"], ["claude-sonnet-5", "gemini/gemini-3.5-flash"]);
        assert!(ai.fallbacks.contains_key("ft:Gpt:a/B"), "{:?}", ai.fallbacks);
        for wrong in ["\"a\" = [\"a\"]", "\"a\" = [\"\"]", "\"a\" = [\"b\",\"b\",\"b\",\"b\",\"b\",\"b\"]"] {
            assert!(read(&format!("[ai.fallbacks]\n{wrong}")).is_err(), "{wrong}");
        }
        assert!(loaded(&[]).unwrap().ai.fallbacks.is_empty());
    }

    #[test]
    fn bounds_of_the_gateway_are_no_zeros() {
        for (name, value) in [
            ("PB__AI__OPENAI__IDLE_TIMEOUT_MS", "0"),
            ("PB__AI__CLAUDE__MAX_ATTEMPTS", "0"),
            ("PB__AI__GEMINI__MAX_ATTEMPTS", "11"),
            ("PB__AI__BREAKER_FAILURES", "0"),
            ("PB__AI__BREAKER_CALLERS", "0"),
            ("PB__AI__CALLS__PING_MS", "0"),
            ("PB__AI__CALLS__PING_MS", "15001"),
            ("PB__AI__CALLS__HEAD_WAIT_MS", "60001"),
            ("PB__AI__SANDBOX", "maybe"),
        ] {
            assert!(loaded(&[(name, value)]).is_err(), "{name}={value}");
        }
        assert!(loaded(&[("PB__AI__SANDBOX", "off"), ("PB__AI__OPENAI__TOTAL_TIMEOUT_MS", "1")]).is_ok());
    }
}
