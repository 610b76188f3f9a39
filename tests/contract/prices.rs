use chrono::{DateTime, TimeDelta, Utc};
use domain::ai::{Geo, ModelId, ProviderId, Tier};
use domain::prices::{ModelPrice, PriceId, PriceKey, PriceKind, PriceSource, UnitPrice};
use harness::TestDatabase;
use ports::prices::PriceFilter;
use ports::store::{Page, Scope, StoreError, UnitOfWork};
use rust_decimal::{Decimal, dec};

use crate::people::{at, constraint, new_id, service};

fn model(name: &str) -> ModelId {
    ModelId::parse(name).unwrap()
}

/// A Claude model's price, valid from this time on.
fn price(name: &str, per_million: Decimal, valid_from: DateTime<Utc>) -> ModelPrice {
    ModelPrice {
        id: PriceId(new_id()),
        key: PriceKey {
            provider: ProviderId::CLAUDE,
            model: model(name),
            kind: PriceKind::Input,
            tier: Tier::Standard,
            geo: Geo::ANYWHERE,
            threshold_tokens: 0,
        },
        price: UnitPrice::per_million(per_million).unwrap(),
        version: "v1".to_owned(),
        source: PriceSource::Operator,
        valid_from,
        valid_to: None,
    }
}

async fn listed(work: &mut dyn UnitOfWork, filter: &PriceFilter) -> Vec<ModelPrice> {
    work.prices().list(filter, &Page { after: None, limit: 100 }).await.unwrap()
}

fn sorted(mut prices: Vec<ModelPrice>) -> Vec<ModelPrice> {
    prices.sort_by_key(|price| price.id);
    prices
}

#[tokio::test]
async fn a_price_comes_back_as_it_was_written() {
    let database = TestDatabase::new().await;
    let store = database.store();
    let mut work = service(&*store).await;
    let now = work.prices().lock().await.unwrap();
    let plain = price("claude-a", dec!(0.000001), DateTime::UNIX_EPOCH);
    let mut full = price("ft:gpt/b::1", dec!(999999999999.999999), at(0));
    full.key.provider = ProviderId::OPENAI;
    full.key.kind = PriceKind::CacheWriteLong;
    full.key.tier = Tier::Priority;
    full.key.geo = Geo::parse("us").unwrap();
    full.key.threshold_tokens = 272_000;
    full.source = PriceSource::Catalogue;
    full.valid_to = Some(now + TimeDelta::days(5));
    work.prices().insert(&[plain.clone(), full.clone()]).await.unwrap();
    work.prices().insert(&[]).await.unwrap();
    let expected = sorted(vec![plain, full]);
    assert_eq!(sorted(work.prices().list_every().await.unwrap()), expected);
    assert_eq!(sorted(work.prices().list_usable().await.unwrap()), expected);
    assert_eq!(work.prices().count().await.unwrap(), 2);
}

#[tokio::test]
async fn a_closed_price_is_usable_for_a_day_and_kept_for_good() {
    let database = TestDatabase::new().await;
    let store = database.store();
    let mut work = service(&*store).await;
    let now = work.prices().lock().await.unwrap();
    let rows = ["a", "b", "c"].map(|name| price(name, dec!(1), at(0)));
    let planned = price("d", dec!(1), now + TimeDelta::days(9));
    work.prices().insert(&rows).await.unwrap();
    work.prices().insert(std::slice::from_ref(&planned)).await.unwrap();
    assert_eq!(work.prices().close(&[rows[0].id], now - TimeDelta::hours(25)).await.unwrap(), 1);
    assert_eq!(work.prices().close(&[rows[1].id, PriceId(new_id())], now - TimeDelta::hours(23)).await.unwrap(), 1);
    let usable: Vec<_> = sorted(work.prices().list_usable().await.unwrap()).into_iter().map(|row| row.id).collect();
    let mut expected = vec![rows[1].id, rows[2].id, planned.id];
    expected.sort();
    assert_eq!(usable, expected);
    assert_eq!(work.prices().list_every().await.unwrap().len(), 4);
}

#[tokio::test]
async fn the_list_is_filtered_and_read_page_by_page() {
    let database = TestDatabase::new().await;
    let store = database.store();
    let mut work = service(&*store).await;
    let now = work.prices().lock().await.unwrap();
    let mut rows: Vec<ModelPrice> = (1..=5).map(|n| price(&format!("m{n}"), dec!(1), at(n / 2))).collect();
    rows[0].key.provider = ProviderId::GEMINI;
    rows[1].valid_to = Some(at(60));
    rows[2].valid_from = now + TimeDelta::days(1);
    work.prices().insert(&rows).await.unwrap();
    rows.sort_by_key(|row| std::cmp::Reverse((row.valid_from, row.id)));
    assert_eq!(listed(&mut *work, &PriceFilter::default()).await, rows);
    let of = |keep: &dyn Fn(&ModelPrice) -> bool| rows.iter().filter(|row| keep(row)).cloned().collect::<Vec<_>>();
    let by = |provider, name: Option<&str>, in_force| PriceFilter { provider, model: name.map(model), in_force };
    for (filter, expected) in [
        (by(Some(ProviderId::GEMINI), None, None), of(&|row| row.key.provider == ProviderId::GEMINI)),
        (by(None, Some("m4"), None), of(&|row| row.key.model == model("m4"))),
        (by(Some(ProviderId::GEMINI), Some("m4"), None), vec![]),
        (by(None, None, Some(true)), of(&|row| row.is_in_force(now))),
        (by(None, None, Some(false)), of(&|row| !row.is_in_force(now))),
    ] {
        assert_eq!(listed(&mut *work, &filter).await, expected, "{filter:?}");
    }
    let (mut seen, mut after) = (Vec::new(), None);
    loop {
        let page = work.prices().list(&PriceFilter::default(), &Page { after, limit: 2 }).await.unwrap();
        let Some(last) = page.last() else { break };
        after = Some((last.valid_from, last.id));
        seen.extend(page);
    }
    assert_eq!(seen, rows);
}

#[tokio::test]
async fn two_prices_at_one_time_are_refused_by_name() {
    let database = TestDatabase::new().await;
    let store = database.store();
    let mut work = service(&*store).await;
    work.prices().insert(&[price("m", dec!(1), at(0))]).await.unwrap();
    work.commit().await.unwrap();
    let mut work = service(&*store).await;
    let mut other_kind = price("m", dec!(1), at(0));
    other_kind.key.kind = PriceKind::Output;
    work.prices().insert(&[other_kind]).await.unwrap();
    assert_eq!(constraint(work.prices().insert(&[price("m", dec!(2), at(9))]).await), "model_prices_no_overlap");
}

#[tokio::test]
async fn one_writer_at_a_time_and_readers_go_on() {
    let database = TestDatabase::new().await;
    let store = database.store();
    let mut first = service(&*store).await;
    let earlier = first.prices().lock().await.unwrap();
    let mut second = service(&*store).await;
    assert!(second.prices().list_usable().await.unwrap().is_empty(), "a reader does not wait");
    // A lock wait is limited to one second.
    let refused = second.prices().lock().await;
    assert!(matches!(refused, Err(StoreError::Busy)), "{refused:?}");
    first.commit().await.unwrap();
    let mut third = service(&*store).await;
    assert!(third.prices().lock().await.unwrap() > earlier);
}

#[tokio::test]
async fn what_a_later_program_wrote_is_passed_over_and_what_sql_wrote_is_an_operators() {
    let database = TestDatabase::new().await;
    let store = database.store();
    database
        .sql(
            "INSERT INTO model_prices (provider, model, kind, tier, usd_per_million, version, source, valid_from, valid_to)
             VALUES ('claude', 'm', 'smell', 'standard', 1, 'v', NULL, 'epoch', NULL),
                ('claude', 'm', 'input', 'warp', 1, 'v', NULL, 'epoch', NULL),
                ('claude', 'm', 'input', 'standard', 2, 'v', NULL, '-infinity', 'infinity')",
        )
        .await;
    let mut work = service(&*store).await;
    let rows = work.prices().list_usable().await.unwrap();
    assert_eq!(rows.len(), 1);
    assert_eq!(
        (rows[0].source, rows[0].valid_from, rows[0].valid_to),
        (PriceSource::Operator, DateTime::UNIX_EPOCH, None)
    );
    assert_eq!(listed(&mut *work, &PriceFilter::default()).await, rows);
    database.sql("UPDATE model_prices SET model = 'two words' WHERE tier = 'standard' AND kind = 'input'").await;
    let unfit = work.prices().list_every().await;
    assert!(matches!(unfit, Err(StoreError::Inconsistent { table: "model_prices", .. })), "{unfit:?}");
}

#[tokio::test]
async fn prices_are_the_services_own() {
    let database = TestDatabase::new().await;
    let store = database.store();
    let mut work = service(&*store).await;
    work.prices().insert(&[price("m", dec!(1), at(0))]).await.unwrap();
    work.commit().await.unwrap();
    let mut anyone = store.begin(Scope::Anonymous).await.unwrap();
    assert!(anyone.prices().list_usable().await.is_err());
}
