//! Models: reads `config/models.toml` into the domain's catalogue. Built into the binary; a file in the folder replaces
//! it. An error names the model and the field, at the start.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, anyhow, bail};
use chrono::{DateTime, NaiveDate, NaiveTime, Utc};
use config::{Config, File, FileFormat};
use domain::ai::{Geo, ModelId, ProviderId, ProviderProfiles, Tier};
use domain::prices::{
    CatalogueModel, CataloguePrice, CatalogueVersion, ModelCatalogue, ModelPurpose, PriceFactors, PriceKey, PriceKind,
    UnitPrice, expand,
};
use rust_decimal::Decimal;
use serde::Deserialize;

const MODELS: &str = include_str!("../../../../config/models.toml");

const FILE: &str = "models.toml";

type Texts = BTreeMap<String, String>;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ModelsFile {
    version: String,
    providers: BTreeMap<String, FactorsEntry>,
    models: Vec<ModelEntry>,
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct FactorsEntry {
    tiers: Texts,
    geos: Texts,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ModelEntry {
    id: String,
    provider: String,
    #[serde(default)]
    aliases: Vec<String>,
    #[serde(default)]
    purpose: ModelPurpose,
    max_input_tokens: Option<u64>,
    max_output_tokens: Option<u64>,
    /// The first day without it.
    until: Option<String>,
    #[serde(default)]
    tiers: Texts,
    #[serde(default)]
    geos: Texts,
    prices: Texts,
    long: Option<LongEntry>,
}

/// Prices of the whole request if its input is above so many tokens.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct LongEntry {
    above: u64,
    prices: Texts,
}

/// The catalogue of `folder`, otherwise the built-in one.
pub fn load(folder: &Path, providers: &ProviderProfiles) -> anyhow::Result<ModelCatalogue> {
    let own_file = folder.join(FILE);
    if own_file.is_file() {
        let text =
            std::fs::read_to_string(&own_file).with_context(|| format!("{} cannot be read", own_file.display()))?;
        return parse(&text, providers).with_context(|| format!("{} is not right", own_file.display()));
    }
    parse(MODELS, providers).context("the models.toml of the binary is not right")
}

pub fn parse(text: &str, providers: &ProviderProfiles) -> anyhow::Result<ModelCatalogue> {
    let builder = Config::builder().add_source(File::from_str(text, FileFormat::Toml));
    let file: ModelsFile = builder.build()?.try_deserialize()?;
    let version = CatalogueVersion::parse(&file.version).context("`version`")?;
    let mut shared = BTreeMap::new();
    for (name, entry) in &file.providers {
        let provider = provider(name, providers).with_context(|| format!("`providers.{name}`"))?;
        let factors = factors(&entry.tiers, &entry.geos).with_context(|| format!("`providers.{name}`"))?;
        shared.insert(provider, factors);
    }
    let models = file.models.iter().map(|entry| {
        model(entry, &shared, providers).with_context(|| format!("the model `{}`", entry.id.escape_default()))
    });
    Ok(ModelCatalogue::try_new(version, models.collect::<anyhow::Result<_>>()?)?)
}

fn model(
    entry: &ModelEntry,
    shared: &BTreeMap<ProviderId, PriceFactors>,
    providers: &ProviderProfiles,
) -> anyhow::Result<CatalogueModel> {
    let provider = provider(&entry.provider, providers).context("`provider`")?;
    let id = ModelId::parse(&entry.id).context("`id`")?;
    let aliases = entry.aliases.iter().map(|alias| ModelId::parse(alias).context("`aliases`"));
    let until = entry.until.as_deref().map(|day| midnight(day).context("`until`")).transpose()?;
    for (field, limit) in [("max_input_tokens", entry.max_input_tokens), ("max_output_tokens", entry.max_output_tokens)]
    {
        if limit == Some(0) {
            bail!("`{field}` is 0; leave it out where it is not known");
        }
    }
    // The model's own factor for a tier or a place takes precedence over its provider's.
    let mut factors_here = shared.get(&provider).cloned().unwrap_or_default();
    let own = factors(&entry.tiers, &entry.geos)?;
    factors_here.tiers.extend(own.tiers);
    factors_here.geos.extend(own.geos);
    let mut tables = vec![("prices", 0, &entry.prices)];
    if let Some(long) = &entry.long {
        if long.above == 0 {
            bail!("`long.above` is 0; that is every request");
        }
        tables.push(("long.prices", long.above, &long.prices));
    }
    let mut prices = Vec::new();
    for (table, threshold_tokens, entries) in tables {
        for (kind, amount) in entries {
            let field = || format!("`{table}.{kind}`");
            let parsed: PriceKind = kind.parse().with_context(field)?;
            let price = UnitPrice::per_million(decimal(amount).with_context(field)?).with_context(field)?;
            let (tier, geo) = (Tier::Standard, Geo::ANYWHERE);
            let key = PriceKey { provider, model: id.clone(), kind: parsed, tier, geo, threshold_tokens };
            let standard = CataloguePrice { key, price, until };
            prices.extend(expand(&standard, &factors_here).with_context(field)?);
        }
    }
    let needed: &[PriceKind] = match entry.purpose {
        ModelPurpose::Chat => &[PriceKind::Input, PriceKind::Output],
        ModelPurpose::Embedding => &[PriceKind::Input],
    };
    if let Some(missing) = needed.iter().find(|kind| !entry.prices.contains_key(kind.as_str())) {
        bail!("`prices.{missing}` is missing");
    }
    Ok(CatalogueModel {
        provider,
        id,
        aliases: aliases.collect::<anyhow::Result<_>>()?,
        purpose: entry.purpose,
        max_input_tokens: entry.max_input_tokens,
        max_output_tokens: entry.max_output_tokens,
        until,
        prices,
    })
}

/// A provider of the settings.
fn provider(name: &str, providers: &ProviderProfiles) -> anyhow::Result<ProviderId> {
    let known = name.parse().ok().and_then(|id| providers.get(id));
    let names = || providers.ids().map(String::from).collect::<Vec<_>>().join(", ");
    known.map(|profile| profile.id).with_context(|| format!("a provider is one of the settings: {}", names()))
}

fn factors(tiers: &Texts, geos: &Texts) -> anyhow::Result<PriceFactors> {
    let mut factors = PriceFactors::default();
    for (name, factor) in tiers {
        let field = || format!("`tiers.{name}`");
        let tier: Tier = name.parse().with_context(field)?;
        if tier == Tier::Standard {
            bail!("`tiers.standard` is what `prices` says");
        }
        factors.tiers.insert(tier, decimal(factor).with_context(field)?);
    }
    for (name, factor) in geos {
        let field = || format!("`geos.{name}`");
        let geo = Geo::parse(name).with_context(field)?;
        factors.geos.insert(geo, decimal(factor).with_context(field)?);
    }
    Ok(factors)
}

fn decimal(text: &str) -> anyhow::Result<Decimal> {
    Decimal::from_str_exact(text).map_err(|_| anyhow!("it is not a decimal number in quotes, such as \"2.5\""))
}

fn midnight(day: &str) -> anyhow::Result<DateTime<Utc>> {
    let day: NaiveDate = day.parse().map_err(|_| anyhow!("it is not a day such as \"2027-04-01\""))?;
    Ok(day.and_time(NaiveTime::MIN).and_utc())
}

#[cfg(test)]
mod tests {
    use domain::ai::{CallUsage, TokenUsage};
    use domain::prices::{CatalogueChange, PriceList, refresh};

    use super::*;

    /// The table of the design, copied: model, in, out, cache read, cache writes, long, limits.
    const TABLE: &str = "
        gpt-6-astra | 10 | 50 | 1 | 12.5 / 25 | 272k 20/75/2 | 922k / 128k
        gpt-6.1-sol | 2 | 10 | 0.1 | 2.5 / 5 | 272k 4/15/0.2 | 922k / 128k
        gpt-6-sol | 2 | 10 | 0.2 | 2.5 / 5 | 272k 4/15/0.4 | 922k / 128k
        gpt-6.1-terra | 1 | 5 | 0.05 | 1.25 / 2.5 | 272k 2/7.5/0.1 | 922k / 128k
        gpt-6-luna | 0.1 | 0.5 | 0.01 | 0.125 / 0.25 | 272k 0.2/0.75/0.02 | 922k / 128k
        gpt-5.6 | 4 | 20 | 0.4 | 5 / 10 | 272k 8/30/0.8 | 922k / 128k
        gpt-5.6-terra | 2 | 12 | 0.2 | 2.5 / 5 | 272k 4/18/0.4 | 922k / 128k
        gpt-5.6-luna | 0.2 | 1.2 | 0.02 | 0.25 / 0.5 | 272k 0.4/1.8/0.04 | 922k / 128k
        gpt-5.5 | 5 | 30 | 0.5 | - | 272k 10/45/1 | 1.05M / 128k
        gpt-5.4 | 2.5 | 15 | 0.25 | - | 272k 5/22.5/0.5 | 1.05M / 128k
        gpt-5.4-mini | 0.75 | 4.5 | 0.075 | - | - | 272k / 128k
        gpt-5.4-nano | 0.2 | 1.25 | 0.02 | - | - | 272k / 128k
        gpt-5-mini | 0.25 | 2 | 0.025 | - | - | 272k / 128k
        gpt-4.1 | 2 | 8 | 0.5 | - | - | 1.05M / 32k
        gpt-4o | 2.5 | 10 | 1.25 | - | - | 128k / 16k
        gpt-4o-mini | 0.15 | 0.6 | 0.075 | - | - | 128k / 16k
        claude-fable-5-1 | 10 | 50 | 0.25 | 12.5 / 20 | - | 1M / 128k
        claude-opus-5-5 | 4 | 20 | 0.2 | 5 / 8 | - | 1M / 128k
        claude-opus-5 | 5 | 25 | 0.5 | 6.25 / 10 | - | 1M / 128k
        claude-sonnet-5-5 | 2 | 10 | 0.1 | 2.5 / 4 | - | 1M / 128k
        claude-sonnet-5 | 2 | 10 | 0.2 | 2.5 / 4 | - | 1M / 128k
        claude-sonnet-4-6 | 3 | 15 | 0.3 | 3.75 / 6 | - | 1M / 128k
        claude-haiku-5-5 | 0.1 | 0.5 | 0.01 | 0.125 / 0.2 | 100k 0.5/2.5/0.05 | 1M / 128k
        claude-haiku-4-5 | 1 | 5 | 0.1 | 1.25 / 2 | - | 200k / 64k
        gemini-4-argon | 2 | 10 | 0.1 | - | - | 1.05M / 1.05M
        gemini-3.1-pro-preview | 2 | 12 | 0.2 | - | 200k 4/18/0.4 | 1.05M / 66k
        gemini-3.8-flash | 0.75 | 3.75 | 0.075 | - | - | 1.05M / 66k
        gemini-3.5-flash | 1.5 | 9 | 0.15 | - | - | 1.05M / 66k
        gemini-3.5-flash-lite | 0.3 | 2.5 | 0.03 | - | - | 1.05M / 66k
        gemini-2.5-pro | 1.25 | 10 | 0.125 | - | 200k 2.5/15/0.25 | 1.05M / 66k
        gemini-2.5-flash | 0.3 | 2.5 | 0.03 | - | - | 1.05M / 66k
        gemini-2.5-flash-lite | 0.1 | 0.4 | 0.01 | - | - | 1.05M / 66k
        text-embedding-3-small | 0.02 | | | | |
        text-embedding-3-large | 0.13 | | | | |
        gemini-embedding-001 | 0.15 | | | | |
        gemini-embedding-2 | 0.2 | | | | |";

    fn built_in() -> ModelCatalogue {
        load(Path::new("/nonexistent"), &ProviderProfiles::default()).unwrap()
    }

    /// The standard prices of a model: kind, threshold, price.
    fn standard(model: &CatalogueModel) -> Vec<(&'static str, u64, String)> {
        let at_standard = |row: &&CataloguePrice| row.key.tier == Tier::Standard && row.key.geo.is_anywhere();
        let rows = model.prices.iter().filter(at_standard);
        let mut told: Vec<_> =
            rows.map(|row| (row.key.kind.as_str(), row.key.threshold_tokens, row.price.to_string())).collect();
        told.sort();
        told
    }

    fn expected(cells: &[&str]) -> Vec<(&'static str, u64, String)> {
        let mut rows = vec![("input", 0, cells[1]), ("output", 0, cells[2]), ("cache_read", 0, cells[3])];
        if let Some((short, long)) = cells[4].split_once(" / ") {
            rows.extend([("cache_write_short", 0, short), ("cache_write_long", 0, long)]);
        }
        if let Some((above, prices)) = cells[5].split_once("k ") {
            let above = above.parse::<u64>().unwrap() * 1_000;
            let prices: Vec<&str> = prices.split('/').collect();
            rows.extend([("input", above, prices[0]), ("output", above, prices[1]), ("cache_read", above, prices[2])]);
        }
        let told = rows.into_iter().filter(|(_, _, price)| !price.is_empty());
        let mut told: Vec<_> = told.map(|(kind, above, price)| (kind, above, price.to_owned())).collect();
        told.sort();
        told
    }

    /// Whether a limit is the one that the table rounds: 66k is 65,536.
    fn fits(limit: Option<u64>, told: &str) -> bool {
        let Some(limit) = limit else { return told.is_empty() };
        let (number, unit) = told.split_at(told.len() - 1);
        let unit = if unit == "M" { 1_000_000.0 } else { 1_000.0 };
        let told = number.parse::<f64>().unwrap() * unit;
        let limit = f64::from(u32::try_from(limit).unwrap());
        (limit - told).abs() / told < 0.03
    }

    #[test]
    fn the_file_says_what_the_table_says() {
        let catalogue = built_in();
        let lines: Vec<&str> = TABLE.trim().lines().collect();
        assert_eq!((catalogue.models().len(), lines.len()), (36, 36));
        for line in lines {
            let cells: Vec<&str> = line.split('|').map(str::trim).collect();
            let name = ModelId::parse(cells[0]).unwrap();
            let found = ProviderId::BUILT_IN.into_iter().find_map(|provider| catalogue.find(provider, &name));
            let model = found.unwrap_or_else(|| panic!("{line}"));
            assert_eq!(standard(model), expected(&cells), "{line}");
            let (input, output) = cells[6].split_once(" / ").unwrap_or_default();
            assert!(fits(model.max_input_tokens, input) && fits(model.max_output_tokens, output), "{line}");
            let is_embedding = model.purpose == ModelPurpose::Embedding;
            assert_eq!(is_embedding, cells[0].contains("embedding"));
            assert!(model.id.as_str().starts_with(match model.provider {
                ProviderId::OPENAI if is_embedding => "text-embedding-",
                ProviderId::OPENAI => "gpt-",
                ProviderId::CLAUDE => "claude-",
                _ => "gemini-",
            }));
        }
        let aliases: Vec<_> = catalogue.aliases().map(|(_, alias, of)| (alias.to_string(), of.to_string())).collect();
        let expected = [
            ("claude-opus-4-8", "claude-opus-5"),
            ("gemini-3.7-flash", "gemini-3.8-flash"),
            ("gemini-3.6-flash", "gemini-3.8-flash"),
        ];
        assert_eq!(aliases, expected.map(|(alias, of)| (alias.to_owned(), of.to_owned())));
        let ends = catalogue.models().iter().filter_map(|model| Some((model.id.as_str(), model.until?.to_rfc3339())));
        let expected = [("gpt-5.4-nano", "2027-04-01T00:00:00+00:00"), ("gpt-5-mini", "2026-12-11T00:00:00+00:00")];
        assert_eq!(ends.collect::<Vec<_>>(), expected.map(|(model, day)| (model, day.to_owned())));
    }

    #[test]
    fn a_call_is_priced_by_the_file_at_its_tier_and_place() {
        let catalogue = built_in();
        let CatalogueChange::Apply { add, .. } = refresh(&catalogue, &[], DateTime::UNIX_EPOCH, uuid::Uuid::nil) else {
            panic!("nothing was loaded before");
        };
        let list = PriceList::new(add, catalogue.aliases());
        let tokens = TokenUsage { uncached_input: 10, visible_output: 90, ..TokenUsage::default() };
        for (provider, model, tier, geo, expected) in [
            // 10 x 4,000 + 90 x 20,000, at the double, times 1.1
            (ProviderId::CLAUDE, "claude-opus-5-5", Tier::Fast, "us", 4_048_000),
            // 10 x 5,000 + 90 x 25,000
            (ProviderId::CLAUDE, "claude-opus-4-8", Tier::Standard, "", 2_300_000),
            // 10 x 10,000 + 90 x 50,000, the half
            (ProviderId::OPENAI, "gpt-6-astra", Tier::Flex, "", 2_300_000),
            // 10 x 2,000 + 90 x 8,000, the double
            (ProviderId::OPENAI, "gpt-4.1", Tier::Priority, "", 1_480_000),
            // 10 x 750 + 90 x 3,750, the half
            (ProviderId::GEMINI, "gemini-3.6-flash", Tier::Batch, "", 172_500),
        ] {
            let usage = CallUsage { tier, geo: Geo::parse(geo).unwrap(), ..CallUsage::standard(tokens) };
            let cost = list.cost(provider, &ModelId::parse(model).unwrap(), &usage, DateTime::UNIX_EPOCH).unwrap();
            assert_eq!((cost.amount.0, cost.version.as_str()), (expected, "2026-11-12"), "{model}");
        }
    }

    #[test]
    fn what_is_wrong_is_told_with_its_place() {
        let good = r#"
            version = "2026-11-12"
            [providers.openai]
            tiers = { flex = "0.5" }
            [[models]]
            id = "m"
            provider = "openai"
            max_input_tokens = 5
            until = "2027-01-01"
            prices = { input = "2", output = "3" }
            long = { above = 9, prices = { input = "4" } }
        "#;
        assert_eq!(parse(good, &ProviderProfiles::default()).unwrap().models().len(), 1);
        for (from, to, said) in [
            ("2026-11-12", "soon", "`version`: the version is a date"),
            ("providers.openai", "providers.acme", "`providers.acme`: a provider is"),
            ("flex = \"0.5\"", "turbo = \"2\"", "`providers.openai`: `tiers.turbo`: a tier is"),
            ("flex = \"0.5\"", "standard = \"2\"", "`tiers.standard` is what `prices` says"),
            ("flex = \"0.5\"", "flex = \"half\"", "`tiers.flex`: it is not a decimal"),
            ("flex = \"0.5\"", "flex = \"-1\"", "`prices.input`: a price must not be negative"),
            ("id = \"m\"", "id = \"m m\"", "the model `m m`: `id`: the name"),
            ("provider = \"openai\"", "provider = \"acme\"", "the model `m`: `provider`"),
            ("max_input_tokens = 5", "max_input_tokens = 0", "the model `m`: `max_input_tokens` is 0"),
            ("max_input_tokens = 5", "max_input_tokens = -5", "max_input_tokens"),
            ("max_input_tokens = 5", "max_inputs = 5", "max_inputs"),
            ("2027-01-01", "2027-02-30", "`until`: it is not a day"),
            ("input = \"2\"", "input = \"-2\"", "`prices.input`: a price must not be negative"),
            ("input = \"2\"", "input = \"0.0000001\"", "`prices.input`: a price has at most six decimals"),
            ("input = \"2\"", "smell = \"2\"", "`prices.smell`: this is no kind of price"),
            ("input = \"2\", ", "", "`prices.input` is missing"),
            ("above = 9", "above = 0", "`long.above` is 0"),
            ("input = \"4\"", "input = \"four\"", "`long.prices.input`: it is not a decimal"),
            ("max_input_tokens = 5", "aliases = [\"m\"]", "the name `m` stands for two models"),
        ] {
            assert!(good.contains(from), "{from}");
            let told = format!("{:#}", parse(&good.replacen(from, to, 1), &ProviderProfiles::default()).unwrap_err());
            assert!(told.contains(said), "{to}: {told}");
        }
    }

    #[test]
    fn a_file_in_the_folder_takes_the_place_of_the_built_in_one() {
        let folder = tempfile::tempdir().unwrap();
        let own = "version = \"2027-01-01\"\nmodels = []\n[providers]\n";
        std::fs::write(folder.path().join(FILE), own).unwrap();
        let catalogue = load(folder.path(), &ProviderProfiles::default()).unwrap();
        assert_eq!((catalogue.version.as_str(), catalogue.models().len()), ("2027-01-01", 0));
        std::fs::write(folder.path().join(FILE), "version = 7").unwrap();
        let told = format!("{:#}", load(folder.path(), &ProviderProfiles::default()).unwrap_err());
        assert!(told.contains("models.toml is not right"), "{told}");
    }
}
