//! Prices on Postgres.
//!
//! Costs: one round trip per call, whatever the number of rows. `list_usable` and `list_every` read the table and are
//! called once a minute and once per change; `list` sorts the rows that its filter leaves. Locks: `lock` blocks other
//! writers of prices (SHARE ROW EXCLUSIVE on the table), and no reader.

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use domain::ai::{Geo, ModelId, ProviderId, Tier};
use domain::prices::{ModelPrice, PriceId, PriceKey, PriceKind, PriceSource, UnitPrice};
use ports::prices::{PRICES_MAX, PriceFilter, PriceRepository};
use ports::store::{Page, StoreError};
use rust_decimal::Decimal;
use sea_orm::{FromQueryResult, Value};
use uuid::Uuid;

use super::rows::{inconsistent, limit};
use super::store::PgUnitOfWork;

/// The columns of a price that every statement reads. A price written in SQL may be valid for ever.
const COLUMNS: &str = "p.id, p.provider, p.model, p.kind, p.tier, p.geo, p.threshold_tokens, p.usd_per_million, \
    p.version, p.source, greatest(p.valid_from, 'epoch') AS valid_from, nullif(p.valid_to, 'infinity') AS valid_to";

/// The kinds and tiers that this program knows, as the first two values of each statement.
const KNOWN: &str = "p.kind = ANY($1) AND p.tier = ANY($2)";

/// Means "no end" in a column of times, since these arrays contain no nulls.
const NO_END: DateTime<Utc> = DateTime::UNIX_EPOCH;

#[derive(FromQueryResult)]
struct PriceRow {
    id: Uuid,
    provider: String,
    model: String,
    kind: String,
    tier: String,
    geo: String,
    threshold_tokens: i64,
    usd_per_million: Decimal,
    version: String,
    source: Option<String>,
    valid_from: DateTime<Utc>,
    valid_to: Option<DateTime<Utc>>,
}

#[async_trait]
impl PriceRepository for PgUnitOfWork {
    async fn lock(&mut self) -> Result<DateTime<Utc>, StoreError> {
        self.run("LOCK TABLE model_prices IN SHARE ROW EXCLUSIVE MODE", []).await?;
        let now = self.read_value("SELECT clock_timestamp()", []).await?;
        now.ok_or_else(|| StoreError::Unexpected("the database does not know the time".into()))
    }

    async fn list_usable(&mut self) -> Result<Vec<ModelPrice>, StoreError> {
        let sql = format!(
            "SELECT {COLUMNS} FROM model_prices AS p WHERE {KNOWN} \
             AND (p.valid_to IS NULL OR p.valid_to > now() - interval '1 day') LIMIT $3"
        );
        read(self, &sql, [limit(PRICES_MAX)]).await
    }

    async fn list_every(&mut self) -> Result<Vec<ModelPrice>, StoreError> {
        let sql = format!("SELECT {COLUMNS} FROM model_prices AS p WHERE {KNOWN} LIMIT $3");
        read(self, &sql, [limit(PRICES_MAX)]).await
    }

    async fn count(&mut self) -> Result<u64, StoreError> {
        let count: Option<i64> = self.read_value("SELECT count(*) FROM model_prices", []).await?;
        Ok(count.and_then(|count| u64::try_from(count).ok()).unwrap_or_default())
    }

    async fn list(
        &mut self,
        filter: &PriceFilter,
        page: &Page<(DateTime<Utc>, PriceId)>,
    ) -> Result<Vec<ModelPrice>, StoreError> {
        let sql = format!(
            "SELECT * FROM (SELECT {COLUMNS} FROM model_prices AS p WHERE {KNOWN} \
                 AND ($3::text IS NULL OR p.provider = $3) AND ($4::text IS NULL OR p.model = $4) \
                 AND ($5::boolean IS NULL OR $5 = (p.valid_from <= now() AND (p.valid_to IS NULL OR p.valid_to > now()))) \
             ) AS p WHERE $6::timestamptz IS NULL OR (p.valid_from, p.id) < ($6, $7) \
             ORDER BY p.valid_from DESC, p.id DESC LIMIT $8"
        );
        let after = page.after;
        let values: [Value; 6] = [
            filter.provider.map(|provider| provider.as_str().to_owned()).into(),
            filter.model.as_ref().map(ToString::to_string).into(),
            filter.in_force.into(),
            after.map(|(valid_from, _)| valid_from).into(),
            after.map(|(_, id)| id.0).into(),
            limit(page.limit),
        ];
        read(self, &sql, values).await
    }

    async fn insert(&mut self, prices: &[ModelPrice]) -> Result<(), StoreError> {
        let texts = |text: &dyn Fn(&ModelPrice) -> &str| -> Value {
            prices.iter().map(|price| text(price).to_owned()).collect::<Vec<_>>().into()
        };
        // Below 2^63 where it was read from a request or a file; no request has more tokens.
        let thresholds = prices.iter().map(|price| i64::try_from(price.key.threshold_tokens).unwrap_or(i64::MAX));
        let values: [Value; 12] = [
            prices.iter().map(|price| price.id.0).collect::<Vec<_>>().into(),
            texts(&|price| price.key.provider.as_str()),
            texts(&|price| price.key.model.as_str()),
            texts(&|price| price.key.kind.as_str()),
            texts(&|price| price.key.tier.as_str()),
            texts(&|price| price.key.geo.as_str()),
            thresholds.collect::<Vec<_>>().into(),
            prices.iter().map(|price| price.price.usd_per_million()).collect::<Vec<_>>().into(),
            texts(&|price| &price.version),
            texts(&|price| price.source.as_str()),
            prices.iter().map(|price| price.valid_from).collect::<Vec<_>>().into(),
            prices.iter().map(|price| price.valid_to.unwrap_or(NO_END)).collect::<Vec<_>>().into(),
        ];
        self.run(include_str!("sql/insert_prices.sql"), values).await.map(drop)
    }

    async fn register_providers(&mut self, providers: &[ProviderId]) -> Result<(), StoreError> {
        let names: Vec<String> = providers.iter().map(|provider| provider.as_str().to_owned()).collect();
        let sql = "INSERT INTO ai_providers (id) SELECT unnest($1::text[]) ON CONFLICT (id) DO NOTHING";
        self.run(sql, [names.into()]).await.map(drop)
    }

    async fn close(&mut self, prices: &[PriceId], at: DateTime<Utc>) -> Result<u64, StoreError> {
        let ids: Vec<Uuid> = prices.iter().map(|price| price.0).collect();
        self.run("UPDATE model_prices SET valid_to = $2 WHERE id = ANY($1)", [ids.into(), at.into()]).await
    }
}

async fn read(
    work: &PgUnitOfWork,
    sql: &str,
    values: impl IntoIterator<Item = Value>,
) -> Result<Vec<ModelPrice>, StoreError> {
    let kinds: Vec<String> = PriceKind::ALL.map(|kind| kind.as_str().to_owned()).into();
    let tiers: Vec<String> = Tier::ALL.map(|tier| tier.as_str().to_owned()).into();
    let known: [Value; 2] = [kinds.into(), tiers.into()];
    let rows: Vec<PriceRow> = work.read_all(sql, known.into_iter().chain(values)).await?;
    rows.into_iter().map(price).collect()
}

fn price(row: PriceRow) -> Result<ModelPrice, StoreError> {
    let unfit = || inconsistent("model_prices", row.id);
    let key = PriceKey {
        provider: row.provider.parse().map_err(|_| unfit())?,
        model: ModelId::parse(&row.model).map_err(|_| unfit())?,
        kind: row.kind.parse().map_err(|_| unfit())?,
        tier: row.tier.parse().map_err(|_| unfit())?,
        geo: Geo::parse(&row.geo).map_err(|_| unfit())?,
        threshold_tokens: u64::try_from(row.threshold_tokens).map_err(|_| unfit())?,
    };
    // A row without a source was written in SQL, by an operator.
    let source = row.source.as_deref().and_then(|source| source.parse().ok()).unwrap_or(PriceSource::Operator);
    Ok(ModelPrice {
        id: PriceId(row.id),
        key,
        price: UnitPrice::per_million(row.usd_per_million).map_err(|_| unfit())?,
        version: row.version,
        source,
        valid_from: row.valid_from,
        valid_to: row.valid_to,
    })
}
