//! The audit compares the books with the journals. It is pure, so that it can be tested with tampered books (`cooked`).
//! Every difference is a finding, as text.

use std::collections::HashMap;
use std::fmt::Debug;
use std::hash::Hash;

use uuid::Uuid;

use super::books::{Books, Counter, Event, HoldRow, Kept};
use super::journal::{End, Hold, Outcome, Told, Use};
use super::people::{CREDITS, limit_of};

/// Returns the findings. No use in the journals may be uncertain any more.
pub fn audit(journals: &[Use], books: &Books) -> Vec<String> {
    let mut findings: Vec<String> = books.integrity.iter().map(|found| format!("integrity: {found}")).collect();
    findings.extend(keys(journals, books));
    findings.extend(events(journals, books));
    findings.extend(holds(journals, books));
    findings.extend(counters(journals, books));
    findings.extend(payments(books));
    findings.extend(work(journals, books));
    findings
}

type OfUser = (Uuid, String);

fn grouped<T, K: Hash + Eq>(rows: &[T], key: impl Fn(&T) -> Option<K>) -> HashMap<K, Vec<&T>> {
    let mut groups: HashMap<K, Vec<&T>> = HashMap::new();
    for row in rows {
        if let Some(key) = key(row) {
            groups.entry(key).or_default().push(row);
        }
    }
    groups
}

/// A finding for each row that is left after the expected rows were removed: no request explains it.
fn unasked<K: Debug, T: Debug>(what: &str, left: HashMap<K, T>) -> Vec<String> {
    left.into_iter().map(|(key, row)| format!("{what} that nobody asked for, {key:?}: {row:?}")).collect()
}

/// Each grant has one row with its stored outcome, and a refusal has none.
fn keys(journals: &[Use], books: &Books) -> Vec<String> {
    let mut findings = Vec::new();
    let mut kept = grouped(&books.keys, |row: &Kept| Some((row.user, row.key.clone())));
    for asked in journals {
        let rows = kept.remove(&(asked.user(), asked.key.clone())).unwrap_or_default();
        match (&asked.outcome, &rows[..]) {
            (Outcome::Refused, []) => {}
            (Outcome::Granted(told), [row]) if is_kept(asked, told, row) => {}
            _ => findings.push(format!("its key is kept as {rows:?}: {asked:?}")),
        }
    }
    findings.extend(unasked("a key", kept));
    findings
}

fn is_kept(asked: &Use, told: &Told, row: &Kept) -> bool {
    (row.feature.as_str(), row.amount) == (asked.feature, asked.amount)
        && (row.current, row.limit, row.remaining, row.reserved)
            == (told.current, told.limit, told.remaining, told.reserved)
        && row.hold == told.hold.map(|(id, _)| id)
        && row.limit == Some(limit_of(asked.person, asked.feature))
}

/// Each use has one event of its amount, and a reservation has one if an amount was settled.
fn events(journals: &[Use], books: &Books) -> Vec<String> {
    let mut findings = Vec::new();
    let mut of_keys = grouped(&books.events, |event: &Event| Some((event.user, event.key.clone()?)));
    let mut of_holds = grouped(&books.events, |event: &Event| event.hold);
    findings.extend(
        books
            .events
            .iter()
            .filter(|event| event.key.is_some() == event.hold.is_some())
            .map(|event| format!("an event is of a key or of a hold: {event:?}")),
    );
    for asked in journals {
        let of_key = of_keys.remove(&(asked.user(), asked.key.clone())).unwrap_or_default();
        let of_hold = asked.told().and_then(|told| of_holds.remove(&told.hold?.0)).unwrap_or_default();
        let ended = asked.hold.as_ref().and_then(|hold| hold.ended.as_ref());
        let overage = ended.map_or(0, |ended| ended.overage);
        let fits = |events: &[&Event], amount: i64| match events {
            [] => amount == 0,
            [event] => event.amount == amount && amount > 0 && event.feature == asked.feature,
            _ => false,
        };
        let (by_key, by_hold) = if asked.hold.is_some() { (0, asked.counted()) } else { (asked.counted(), 0) };
        if !fits(&of_key, by_key) || !fits(&of_hold, by_hold) || of_hold.iter().any(|event| event.overage != overage) {
            findings.push(format!("its events are {of_key:?} and {of_hold:?}: {asked:?}"));
        }
    }
    findings.extend(unasked("an event of a key", of_keys));
    findings.extend(unasked("an event of a hold", of_holds));
    findings
}

/// Each granted reservation exists with the end that was acknowledged, and none is pending.
fn holds(journals: &[Use], books: &Books) -> Vec<String> {
    let mut findings = Vec::new();
    let mut kept = grouped(&books.holds, |hold: &HoldRow| Some((hold.user, hold.key.clone()?)));
    findings
        .extend(books.holds.iter().filter(|hold| hold.key.is_none()).map(|hold| format!("without a key: {hold:?}")));
    for asked in journals {
        let rows = kept.remove(&(asked.user(), asked.key.clone())).unwrap_or_default();
        let fits = match (&asked.hold, asked.told(), &rows[..]) {
            (None, _, []) | (Some(_), None, []) => true,
            (Some(hold), Some(told), [row]) => {
                told.hold.is_some_and(|(id, _)| id == row.id) && has_ended_as_said(hold, row)
            }
            _ => false,
        };
        if !fits {
            findings.push(format!("its holds are {rows:?}: {asked:?}"));
        }
    }
    findings.extend(unasked("a hold", kept));
    findings
}

fn has_ended_as_said(hold: &Hold, row: &HoldRow) -> bool {
    let (status, settled) = match hold.end {
        End::Settle(amount) => ("settled", Some(amount)),
        End::Release => ("released", None),
        End::Leave => ("expired", None),
    };
    let overage = hold.ended.as_ref().map_or(0, |ended| ended.overage);
    (hold.end == End::Leave) == hold.ended.is_none()
        && hold.amounts.contains(&row.amount)
        && (row.status.as_str(), row.settled, row.overage) == (status, settled, overage)
}

/// Each counter is the sum of the grants, has nothing reserved, and its use without overage is within the limit.
fn counters(journals: &[Use], books: &Books) -> Vec<String> {
    let mut findings = Vec::new();
    let mut sums: HashMap<OfUser, (u32, i64, i64)> = HashMap::new();
    for asked in journals {
        let (_, used, overage) = sums.entry((asked.user(), asked.feature.to_owned())).or_insert((asked.person, 0, 0));
        *used += asked.counted();
        *overage += asked.hold.as_ref().and_then(|hold| hold.ended.as_ref()).map_or(0, |ended| ended.overage);
    }
    let mut overage_of_events: HashMap<OfUser, i64> = HashMap::new();
    for event in &books.events {
        *overage_of_events.entry((event.user, event.feature.clone())).or_default() += event.overage;
    }
    let mut kept = grouped(&books.counters, |row: &Counter| Some((row.user, row.feature.clone())));
    for ((user, feature), (person, used, overage)) in sums {
        let rows = kept.remove(&(user, feature.clone())).unwrap_or_default();
        let limit = limit_of(person, &feature);
        let in_journals = (used, 0);
        let fits = match &rows[..] {
            // A counter is created by the first request, even if that is refused.
            [] => used == 0,
            [row] => {
                (row.used, row.reserved) == in_journals
                    && row.overage == overage_of_events.get(&(user, feature.clone())).copied().unwrap_or_default()
                    && row.used - row.overage <= limit
            }
            _ => false,
        };
        // By the journals alone: if only settlements can exceed the limit, everything else is within it.
        if !fits || (feature != CREDITS && used - overage > limit) {
            findings.push(format!("{user} {feature} used {used}, overage {overage}, limit {limit}: {rows:?}"));
        }
    }
    findings.extend(unasked("a counter", kept));
    findings
}

/// Overage was paid with one token a unit; for a reservation once, and at most its overage.
fn payments(books: &Books) -> Vec<String> {
    let mut findings = Vec::new();
    let mut owed: HashMap<Uuid, i64> = HashMap::new();
    let mut overage_of_holds: HashMap<Uuid, i64> = HashMap::new();
    for event in books.events.iter().filter(|event| event.overage > 0) {
        match event.hold {
            None => *owed.entry(event.user).or_default() += event.overage,
            Some(hold) => *overage_of_holds.entry(hold).or_default() += event.overage,
        }
    }
    for payment in &books.payments {
        match payment.hold {
            None => *owed.entry(payment.user).or_default() -= payment.tokens,
            Some(hold) => match overage_of_holds.remove(&hold) {
                Some(overage) if payment.tokens <= overage => {}
                other => findings.push(format!("{payment:?} for an overage of {other:?}")),
            },
        }
    }
    findings.extend(
        owed.iter()
            .filter(|(_, owed)| **owed != 0)
            .map(|(user, owed)| format!("{user} owes {owed} tokens for what was consumed beyond the limit")),
    );
    findings
}

/// The rows of work in SQL are exactly the granted ones.
fn work(journals: &[Use], books: &Books) -> Vec<String> {
    let mut findings = Vec::new();
    let mut done = grouped(&books.work, |(user, key, _): &(Uuid, String, i64)| Some((*user, key.clone())));
    for asked in journals {
        let rows = done.remove(&(asked.user(), asked.key.clone())).unwrap_or_default();
        let amounts: Vec<i64> = rows.iter().map(|(_, _, amount)| *amount).collect();
        let expected: &[i64] = if asked.in_sql && asked.told().is_some() { &[asked.amount] } else { &[] };
        if amounts != expected {
            findings.push(format!("its work is {amounts:?}: {asked:?}"));
        }
    }
    findings.extend(unasked("work", done));
    findings
}
