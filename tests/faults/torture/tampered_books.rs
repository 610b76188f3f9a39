//! Tests of the audit itself: it has no findings for books that agree with the journals, and has findings for books
//! that were tampered with in any of these ways.

use chrono::DateTime;
use uuid::Uuid;

use super::audit::audit;
use super::books::{Books, Counter, Event, HoldRow, Kept, Payment};
use super::journal::{End, Ended, Hold, Outcome, Told, Use};
use super::people::{self, CALLS, CALLS_LIMIT, CREDITS, CREDITS_LIMIT};

const SETTLED: Uuid = Uuid::from_u128(1);
const LEFT: Uuid = Uuid::from_u128(2);

fn told(current: i64, reserved: i64, limit: i64, hold: Option<Uuid>) -> Told {
    let remaining = Some((limit - current - reserved).max(0));
    let hold = hold.map(|id| (id, DateTime::UNIX_EPOCH));
    Told { current, limit: Some(limit), remaining, reserved, as_of: DateTime::UNIX_EPOCH, hold }
}

fn asked(key: &str, feature: &'static str, amount: i64, outcome: Outcome) -> Use {
    Use { key: key.to_owned(), person: 0, feature, amount, in_sql: false, outcome, doubts: 0, hold: None }
}

fn held(key: &str, amount: i64, told: Told, end: End, ended: Option<Ended>) -> Use {
    let hold = Hold { ttl_seconds: 1, end, extend_to: None, amounts: vec![amount], doubts: 0, ended };
    Use { hold: Some(hold), ..asked(key, CALLS, amount, Outcome::Granted(told)) }
}

/// One use of each kind: plain, in SQL, partly paid, refused, settled with more than was reserved, and left to expire.
fn journal() -> Vec<Use> {
    let granted = |current, limit| Outcome::Granted(told(current, 0, limit, None));
    let ended = Ended { status: "settled".to_owned(), amount: 5, overage: 1, held: 4, current: 10, reserved: 0 };
    vec![
        asked("used", CALLS, 3, granted(3, CALLS_LIMIT)),
        Use { in_sql: true, ..asked("in sql", CALLS, 2, granted(5, CALLS_LIMIT)) },
        asked("paid", CREDITS, CREDITS_LIMIT + 2, granted(CREDITS_LIMIT + 2, CREDITS_LIMIT)),
        asked("refused", CALLS, 5, Outcome::Refused),
        held("settled", 4, told(5, 4, CALLS_LIMIT, Some(SETTLED)), End::Settle(5), Some(ended)),
        held("left", 7, told(10, 7, CALLS_LIMIT, Some(LEFT)), End::Leave, None),
    ]
}

/// The books as the service would have written them.
fn books() -> Books {
    let user = people::id(0);
    let mut books = Books::default();
    for asked in journal() {
        let Some(told) = asked.told() else { continue };
        let (hold, feature) = (told.hold.map(|(id, _)| id), asked.feature.to_owned());
        let Told { current, limit, remaining, reserved, .. } = *told;
        let key = asked.key.clone();
        books.keys.push(Kept {
            user,
            key,
            feature: feature.clone(),
            amount: asked.amount,
            current,
            limit,
            remaining,
            reserved,
            hold,
        });
        if hold.is_none() {
            let overage = (current - limit.unwrap_or(current)).max(0);
            let key = Some(asked.key.clone());
            books.events.push(Event { user, feature, amount: asked.amount, overage, key, hold: None });
        }
        if asked.in_sql {
            books.work.push((user, asked.key.clone(), asked.amount));
        }
    }
    let hold = |id, key: &str, amount, status: &str, settled, overage| HoldRow {
        id,
        user,
        key: Some(key.to_owned()),
        amount,
        status: status.to_owned(),
        settled,
        overage,
    };
    books.holds = vec![hold(SETTLED, "settled", 4, "settled", Some(5), 1), hold(LEFT, "left", 7, "expired", None, 0)];
    let event = Event { user, feature: CALLS.to_owned(), amount: 5, overage: 1, key: None, hold: Some(SETTLED) };
    books.events.push(event);
    let counter =
        |feature: &str, used, overage| Counter { user, feature: feature.to_owned(), used, reserved: 0, overage };
    books.counters = vec![counter(CALLS, 10, 1), counter(CREDITS, CREDITS_LIMIT + 2, 2)];
    books.payments = vec![Payment { user, tokens: 2, hold: None }];
    books
}

type Cook = fn(&mut Books);

/// Each way of tampering with the books, with its description.
const COOKED: [(&str, Cook); 22] = [
    ("a finding of the product's own checks", |books| books.integrity.push("BALANCE_MISMATCH".to_owned())),
    ("an outcome is lost", |books| drop(books.keys.remove(0))),
    ("an outcome is of another amount", |books| books.keys[0].amount += 1),
    ("an outcome has other numbers than were told", |books| books.keys[0].current += 1),
    ("an outcome that nobody asked for", |books| "other".clone_into(&mut books.keys[0].key)),
    ("what was refused is kept", |books| {
        let row = Kept { key: "refused".to_owned(), ..books.keys[0].clone() };
        books.keys.push(row);
    }),
    ("a use is lost", |books| drop(books.events.remove(0))),
    ("a use is counted twice", |books| books.events.push(books.events[0].clone())),
    ("a use of another amount", |books| books.events[0].amount += 1),
    ("a use that nobody asked for", |books| {
        let event = Event { key: Some("other".to_owned()), ..books.events[0].clone() };
        books.events.push(event);
    }),
    ("a settled use is lost", |books| books.events.retain(|event| event.hold.is_none())),
    ("a hold is lost", |books| drop(books.holds.remove(0))),
    ("a hold is made twice", |books| books.holds.push(HoldRow { id: Uuid::from_u128(3), ..books.holds[0].clone() })),
    ("a hold is still pending", |books| "pending".clone_into(&mut books.holds[1].status)),
    ("a hold was settled with another amount", |books| books.holds[0].settled = Some(6)),
    ("a counter says less", |books| books.counters[0].used -= 1),
    ("a counter still holds something", |books| books.counters[0].reserved += 1),
    ("a counter hides what is over its limit", |books| books.counters[1].overage -= 1),
    ("a counter of nobody", |books| books.counters[0].user = people::id(7)),
    ("what lay beyond the limit was paid twice", |books| books.payments.push(books.payments[0].clone())),
    ("work that was granted is not done", |books| books.work.clear()),
    ("work is done twice", |books| books.work.push(books.work[0].clone())),
];

#[test]
fn books_that_agree_with_the_journals_have_no_findings() {
    assert_eq!(audit(&journal(), &books()), Vec::<String>::new());
}

#[test]
fn the_audit_finds_whatever_was_cooked() {
    for (what, cook) in COOKED {
        let mut cooked = books();
        cook(&mut cooked);
        assert!(!audit(&journal(), &cooked).is_empty(), "{what}");
    }
}

/// The books record overage, and are consistent in themselves; the journals contain no overage.
#[test]
fn more_granted_than_the_limit_allows_is_found_in_the_journals_alone() {
    let (mut journal, mut books) = (journal(), books());
    let amount = CALLS_LIMIT - 9 + 1;
    let told = told(CALLS_LIMIT + 2, 0, CALLS_LIMIT, None);
    let (key, current, remaining) = ("beyond".to_owned(), told.current, told.remaining);
    books.events.push(Event { amount, overage: 1, key: Some(key.clone()), ..books.events[0].clone() });
    books.keys.push(Kept { key, amount, current, remaining, ..books.keys[0].clone() });
    books.counters[0].used += amount;
    books.counters[0].overage += 1;
    books.payments[0].tokens += 1;
    journal.push(asked("beyond", CALLS, amount, Outcome::Granted(told)));
    let findings = audit(&journal, &books);
    assert!(findings.len() == 1 && findings[0].contains("limit 60"), "{findings:?}");
}
