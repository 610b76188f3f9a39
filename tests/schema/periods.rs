//! The periods of usage: `usage_period_start` and `usage_period_end` equal `Period::containing`.

use chrono::{DateTime, TimeDelta, Utc};
use domain::usage::{Period, PeriodKind};
use harness::{TestDatabase, sqlx};

use crate::dice::Dice;

const KINDS: [PeriodKind; 4] = [PeriodKind::Day, PeriodKind::Month, PeriodKind::BillingPeriod, PeriodKind::Lifetime];

type Boundaries = (Option<DateTime<Utc>>, Option<DateTime<Utc>>);

/// All queries in one statement, so that a session's time zone applies to all.
async fn by_sql(
    database: &TestDatabase,
    zone: &str,
    asked: &[(PeriodKind, DateTime<Utc>, DateTime<Utc>)],
) -> Vec<Boundaries> {
    let kinds: Vec<&str> = asked.iter().map(|(kind, ..)| kind.as_str()).collect();
    let anchors: Vec<DateTime<Utc>> = asked.iter().map(|(_, anchor, _)| *anchor).collect();
    let moments: Vec<DateTime<Utc>> = asked.iter().map(|(.., at)| *at).collect();
    let mut transaction = database.owner().begin().await.unwrap();
    sqlx::query("SELECT set_config('TimeZone', $1, true)").bind(zone).execute(&mut *transaction).await.unwrap();
    sqlx::query_as(
        "SELECT usage_period_start(a.kind, a.anchor, a.moment), usage_period_end(a.kind, a.anchor, a.moment)
         FROM unnest($1::text[], $2::timestamptz[], $3::timestamptz[]) WITH ORDINALITY AS a (kind, anchor, moment, n) ORDER BY a.n",
    )
    .bind(kinds)
    .bind(anchors)
    .bind(moments)
    .fetch_all(&mut *transaction)
    .await
    .unwrap()
}

async fn assert_twins(database: &TestDatabase, zone: &str, asked: &[(PeriodKind, DateTime<Utc>, DateTime<Utc>)]) {
    let answers = by_sql(database, zone, asked).await;
    assert_eq!(answers.len(), asked.len());
    for ((kind, anchor, at), answer) in asked.iter().zip(answers) {
        let period = Period::containing(*kind, *anchor, *at);
        assert_eq!(answer, (Some(period.start), period.end), "{kind:?} anchored at {anchor} containing {at} in {zone}");
    }
}

/// Any microsecond between 1990 and 2060.
fn moment(dice: &mut Dice) -> DateTime<Utc> {
    let seconds = 631_152_000 + i64::try_from(dice.below(2_208_988_800)).unwrap();
    DateTime::from_timestamp(seconds, u32::try_from(dice.below(1_000_000)).unwrap() * 1_000).unwrap()
}

#[tokio::test]
async fn sql_and_rust_draw_the_same_boundaries_at_random_times() {
    let database = TestDatabase::new().await;
    let mut dice = Dice::seeded(2);
    for zone in ["UTC", "Asia/Tokyo", "America/St_Johns"] {
        let asked: Vec<_> = (0..2_000).map(|_| (*dice.pick(&KINDS), moment(&mut dice), moment(&mut dice))).collect();
        assert_twins(&database, zone, &asked).await;
    }
}

/// Anchors on the last days of months, tested at and around every boundary that such an anchor can have.
#[tokio::test]
async fn sql_and_rust_draw_the_same_boundaries_at_the_ends_of_months() {
    let database = TestDatabase::new().await;
    let mut asked = Vec::new();
    for anchor in
        ["2023-12-31T10:00:00.000001Z", "2024-01-30T23:59:59.999999Z", "2024-02-29T00:00:00Z", "2026-08-28T12:00:00Z"]
    {
        let anchor = DateTime::parse_from_rfc3339(anchor).unwrap().to_utc();
        for months in -30_i32..=30 {
            let boundary =
                Period::containing(PeriodKind::BillingPeriod, anchor, anchor + TimeDelta::days(31 * i64::from(months)));
            for microseconds in [-1, 0, 1] {
                for at in [boundary.start, boundary.end.unwrap()] {
                    let at = at + TimeDelta::microseconds(microseconds);
                    asked.extend(KINDS.map(|kind| (kind, anchor, at)));
                }
            }
        }
    }
    assert_twins(&database, "Europe/Berlin", &asked).await;
}

#[tokio::test]
async fn a_period_of_no_known_kind_has_no_boundaries() {
    let database = TestDatabase::new().await;
    let none: (Option<DateTime<Utc>>, Option<DateTime<Utc>>) = database
        .query_one("SELECT usage_period_start('week', now(), now()), usage_period_end('week', now(), now())")
        .await;
    assert_eq!(none, (None, None));
}
