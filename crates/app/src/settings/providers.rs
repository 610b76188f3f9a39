//! Providers: the built-in ones and the rows of `ai.providers`, made into one list. An error names the setting.

use adapters::ai::ProviderAuth;
use anyhow::{Context, bail};
use domain::ai::{Dialect, MissingFeatures, ProviderId, ProviderProfile, ProviderProfiles};

use super::shape::{AiProviderRow, AiProviderSettings, AiSettings, SecretText};

/// The most attempts of a call at one provider; further ones only cost time.
const ATTEMPTS_MAX: u32 = 10;

/// A provider with all of its settings.
#[derive(Clone, Debug)]
pub struct ConfiguredProvider {
    pub profile: ProviderProfile,
    pub settings: AiProviderSettings,
    /// `None`: as the dialect's own provider expects it.
    pub auth: Option<ProviderAuth>,
    pub headers: Vec<(String, String)>,
    pub query: Vec<(String, String)>,
    /// The section of the settings.
    pub section: String,
}

impl ConfiguredProvider {
    /// The environment variable of its API key.
    pub fn key_variable(&self) -> String {
        format!("PB__{}__API_KEY", self.section.replace('.', "__").to_uppercase())
    }
}

/// The profiles of the configured providers.
pub fn profiles(providers: &[ConfiguredProvider]) -> ProviderProfiles {
    providers.iter().map(|provider| provider.profile).collect()
}

/// All providers, the built-in ones first.
pub fn configured(ai: &AiSettings) -> anyhow::Result<Vec<ConfiguredProvider>> {
    let built_in = [(ProviderProfile::OPENAI, &ai.openai), (ProviderProfile::CLAUDE, &ai.claude)];
    let built_in = built_in.into_iter().chain([(ProviderProfile::GEMINI, &ai.gemini)]);
    let mut all: Vec<ConfiguredProvider> = built_in.map(|(profile, settings)| of_section(profile, settings)).collect();
    for (name, row) in &ai.providers {
        let section = || format!("ai.providers.{name}");
        let id: ProviderId = name.parse().with_context(section)?;
        match all.iter_mut().find(|provider| provider.profile.id == id) {
            Some(built_in) => change(built_in, row).with_context(section)?,
            None => all.push(added(id, row, &ai.openai).with_context(section)?),
        }
    }
    for provider in &all {
        check(provider)?;
    }
    Ok(all)
}

fn of_section(profile: ProviderProfile, settings: &AiProviderSettings) -> ConfiguredProvider {
    let section = format!("ai.{}", profile.id);
    let (headers, query) = (Vec::new(), Vec::new());
    ConfiguredProvider { profile, settings: settings.clone(), auth: None, headers, query, section }
}

/// A row for a built-in provider.
fn change(provider: &mut ConfiguredProvider, row: &AiProviderRow) -> anyhow::Result<()> {
    let own = provider.profile.dialect;
    if dialect(row)?.is_some_and(|dialect| dialect != own) {
        bail!("`dialect`: the built-in provider {} speaks {own}; give yours another name", provider.profile.id);
    }
    fill(provider, row)
}

/// A row for a further provider, with the time limits of the built-in ones unless it has its own.
fn added(id: ProviderId, row: &AiProviderRow, usual: &AiProviderSettings) -> anyhow::Result<ConfiguredProvider> {
    let dialect = dialect(row)?.context("`dialect` is missing: it is openai_chat, anthropic or gemini")?;
    if row.base_url.is_none() {
        bail!("`base_url` is missing");
    }
    // Only the operator knows how it counts.
    let missing = MissingFeatures { known_tokens: true, ..MissingFeatures::default() };
    let settings = AiProviderSettings { base_url: String::new(), api_key: SecretText::new(""), ..usual.clone() };
    let mut provider = of_section(ProviderProfile { id, dialect, missing }, &settings);
    provider.section = format!("ai.providers.{id}");
    fill(&mut provider, row)?;
    Ok(provider)
}

fn dialect(row: &AiProviderRow) -> anyhow::Result<Option<Dialect>> {
    row.dialect.as_deref().map(|name| name.parse().with_context(|| format!("`dialect` is `{name}`"))).transpose()
}

/// Takes over what the row sets.
fn fill(provider: &mut ConfiguredProvider, row: &AiProviderRow) -> anyhow::Result<()> {
    let ConfiguredProvider { profile, settings, auth, headers, query, .. } = provider;
    if let Some(text) = &row.auth {
        *auth = Some(text.parse().with_context(|| format!("`auth` is `{text}`"))?);
    }
    for name in &row.missing {
        profile.missing.add(name).with_context(|| format!("`missing` has `{name}`"))?;
    }
    if let Some(known) = row.known_tokens {
        profile.missing.known_tokens = !known;
    }
    let pairs = |of: &std::collections::BTreeMap<String, String>| of.clone().into_iter().collect();
    (*headers, *query) = (pairs(&row.headers), pairs(&row.query));
    let set = |field: &mut u64, value: Option<u64>| *field = value.unwrap_or(*field);
    set(&mut settings.connect_timeout_ms, row.connect_timeout_ms);
    set(&mut settings.first_byte_timeout_ms, row.first_byte_timeout_ms);
    set(&mut settings.idle_timeout_ms, row.idle_timeout_ms);
    set(&mut settings.total_timeout_ms, row.total_timeout_ms);
    settings.max_attempts = row.max_attempts.unwrap_or(settings.max_attempts);
    if let Some(url) = &row.base_url {
        settings.base_url.clone_from(url);
    }
    if let Some(key) = &row.api_key {
        settings.api_key = key.clone();
    }
    Ok(())
}

fn check(provider: &ConfiguredProvider) -> anyhow::Result<()> {
    let (section, settings) = (&provider.section, &provider.settings);
    let AiProviderSettings { connect_timeout_ms, first_byte_timeout_ms, idle_timeout_ms, total_timeout_ms, .. } =
        settings;
    if [connect_timeout_ms, first_byte_timeout_ms, idle_timeout_ms, total_timeout_ms].contains(&&0) {
        bail!("{section} has a timeout of 0; each is at least 1 ms");
    }
    if !(1..=ATTEMPTS_MAX).contains(&settings.max_attempts) {
        bail!("{section}.max_attempts is {}; it is 1 to {ATTEMPTS_MAX}", settings.max_attempts);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::path::Path;

    use super::*;
    use crate::settings::load::load;

    fn loaded(row: &str) -> anyhow::Result<Vec<ConfiguredProvider>> {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("local.toml"), row).unwrap();
        configured(&load(&HashMap::new(), folder.path())?.ai)
    }

    const AZURE: &str = "[ai.providers.azure]\ndialect = \"openai_chat\"\nbase_url = \"https://x.test/openai/v1\"\n";

    #[test]
    fn a_provider_is_a_row_of_the_settings() {
        let row = "api_key = \"k\"\nauth = \"header:api-key\"\nquery = { api-version = \"2026-10-01\" }\nknown_tokens = true\n\
            headers = { x-Extra = \"1\" }\nmissing = [\"parallel_tool_calls\"]\nidle_timeout_ms = 7\nmax_attempts = 2\n";
        let all = loaded(&format!("{AZURE}{row}")).unwrap();
        let ids: Vec<&str> = all.iter().map(|provider| provider.profile.id.as_str()).collect();
        assert_eq!(ids, ["openai", "claude", "gemini", "azure"]);
        let azure = &all[3];
        assert_eq!(azure.profile.dialect, Dialect::OpenAiChat);
        assert!(azure.profile.missing.parallel_tool_calls && !azure.profile.missing.known_tokens);
        assert_eq!(azure.auth, Some(ProviderAuth::Header("api-key".to_owned())));
        assert_eq!(azure.headers, [("x-Extra".to_owned(), "1".to_owned())]);
        assert_eq!(azure.query, [("api-version".to_owned(), "2026-10-01".to_owned())]);
        let AiProviderSettings { idle_timeout_ms, total_timeout_ms, max_attempts, .. } = azure.settings;
        assert_eq!((idle_timeout_ms, total_timeout_ms, max_attempts), (7, 600_000, 2));
        assert_eq!(azure.key_variable(), "PB__AI__PROVIDERS__AZURE__API_KEY");
        assert_eq!(all[1].key_variable(), "PB__AI__CLAUDE__API_KEY");
    }

    #[test]
    fn a_row_of_a_built_in_provider_changes_its_section() {
        let all = loaded("[ai.providers.openai]\nauth = \"header:x-key\"\nmax_attempts = 1").unwrap();
        assert_eq!((all.len(), all[0].settings.max_attempts), (3, 1));
        assert_eq!(all[0].settings.base_url, "https://api.openai.com/v1");
        assert_eq!(all[0].auth, Some(ProviderAuth::Header("x-key".to_owned())));
        assert!(loaded("[ai.providers.claude]\ndialect = \"anthropic\"").is_ok());
    }

    #[test]
    fn what_cannot_be_used_is_named_at_the_start() {
        for (row, named) in [
            (AZURE.replace("openai_chat", "openai"), "ai.providers.azure: `dialect` is `openai`: a dialect is"),
            (AZURE.replace("dialect", "#"), "ai.providers.azure: `dialect` is missing"),
            (AZURE.replace("base_url", "#"), "ai.providers.azure: `base_url` is missing"),
            (AZURE.replace("azure", "Azure"), "ai.providers.Azure: the name of a provider"),
            (AZURE.replace("azure", "\"a/b\""), "ai.providers.a/b: the name of a provider"),
            (AZURE.replace("azure", "claude"), "ai.providers.claude: `dialect`: the built-in provider claude speaks"),
            (format!("{AZURE}auth = \"basic\""), "ai.providers.azure: `auth` is `basic`: it is `bearer`"),
            (format!("{AZURE}missing = [\"sense\"]"), "ai.providers.azure: `missing` has `sense`: a missing feature"),
            (format!("{AZURE}idle_timeout_ms = 0"), "ai.providers.azure has a timeout of 0"),
            (format!("{AZURE}max_attempts = 11"), "ai.providers.azure.max_attempts is 11"),
            (format!("{AZURE}api_kye = \"k\""), "api_kye"),
        ] {
            let told = format!("{:#}", loaded(&row).map(drop).unwrap_err());
            assert!(told.contains(named), "{row}: {told}");
        }
    }

    #[test]
    fn the_environment_sets_a_row_too() {
        let variables = [
            ("PB__AI__PROVIDERS__AZURE__DIALECT", "openai_chat"),
            ("PB__AI__PROVIDERS__AZURE__BASE_URL", "https://x.test/openai/v1"),
            ("PB__AI__PROVIDERS__AZURE__QUERY__API-VERSION", "2026-10-01"),
            ("PB__AI__PROVIDERS__AZURE__MISSING", "stream_options,max_completion_tokens"),
        ];
        let variables = variables.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
        let all = configured(&load(&variables, Path::new("/nonexistent")).unwrap().ai).unwrap();
        assert_eq!(all[3].query, [("api-version".to_owned(), "2026-10-01".to_owned())]);
        assert!(all[3].profile.missing.stream_options && all[3].profile.missing.max_completion_tokens);
    }
}
