//! Tokens: the balance that a user can spend, and the ledger in which every change of it is a row.
//!
//! The balance is the sum of its rows and is never negative. A row is never changed: an error is corrected by another
//! row, and a refund references the use that it returns.

use std::str::FromStr;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use thiserror::Error;
use uuid::Uuid;

use crate::users::UserId;

/// Why a balance changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TransactionKind {
    Topup,
    Usage,
    Refund,
    Bonus,
}

impl TransactionKind {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Topup => "topup",
            Self::Usage => "usage",
            Self::Refund => "refund",
            Self::Bonus => "bonus",
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("`{0}` is no kind of token transaction: topup, usage, refund or bonus")]
pub struct UnknownTransactionKind(pub String);

impl FromStr for TransactionKind {
    type Err = UnknownTransactionKind;

    fn from_str(text: &str) -> Result<Self, UnknownTransactionKind> {
        [Self::Topup, Self::Usage, Self::Refund, Self::Bonus]
            .into_iter()
            .find(|kind| kind.as_str() == text)
            .ok_or_else(|| UnknownTransactionKind(text.to_owned()))
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TransactionId(pub Uuid);

/// The tokens of a user. `reserved` is the part of `balance` that is reserved for work in progress.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TokenBalance {
    pub balance: i64,
    pub reserved: i64,
}

impl TokenBalance {
    pub const fn available(self) -> i64 {
        self.balance.saturating_sub(self.reserved)
    }
}

/// A row of the ledger.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenTransaction {
    pub id: TransactionId,
    /// The position in the user's ledger, from 1 without gaps. The ledger is ordered by this and not by time, so rows
    /// with the same time have an order too.
    pub seq: i64,
    /// Negative if tokens were taken.
    pub amount: i64,
    pub kind: TransactionKind,
    pub description: Option<String>,
    pub reference_id: Option<Uuid>,
    pub balance_after: i64,
    pub created_at: DateTime<Utc>,
}

/// A credit to a user's balance that an administrator orders.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CreditOrder {
    pub user_id: UserId,
    pub origin: CreditOrigin,
    pub description: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CreditOrigin {
    Topup {
        amount: i64,
        reference_id: Option<Uuid>,
    },
    Bonus {
        amount: i64,
        reference_id: Option<Uuid>,
    },
    /// Returns what a use took: `amount`, or all that is left of it if `None`.
    Refund {
        transaction_id: TransactionId,
        amount: Option<i64>,
    },
}

/// What a use took, and how much of it was refunded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TokensSpent {
    pub taken: i64,
    pub refunded: i64,
}

impl TokensSpent {
    pub fn left(self) -> i64 {
        self.taken.saturating_sub(self.refunded).max(0)
    }
}

/// A row to be added to the ledger; its amount is positive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenCredit {
    pub kind: TransactionKind,
    pub amount: i64,
    pub reference_id: Option<Uuid>,
    pub description: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum CreditRefused {
    #[error("an amount of tokens is 1 or more")]
    NotPositive,
    #[error("the balance would pass {}, the most that it can hold", i64::MAX)]
    BalanceFull,
    #[error("there is no such use of tokens by this user")]
    UnknownUsage,
    #[error("all that this use took was refunded before")]
    NothingLeft,
    #[error("only {0} of what this use took are left to refund")]
    BeyondLeft(i64),
}

/// The row for an order. `spent` is the use that a refund references, `None` if it does not exist.
pub fn credit(order: &CreditOrder, spent: Option<TokensSpent>) -> Result<TokenCredit, CreditRefused> {
    let (kind, amount, reference_id) = match order.origin {
        CreditOrigin::Topup { amount, reference_id } => (TransactionKind::Topup, amount, reference_id),
        CreditOrigin::Bonus { amount, reference_id } => (TransactionKind::Bonus, amount, reference_id),
        CreditOrigin::Refund { transaction_id, amount } => {
            let amount = refundable(spent.ok_or(CreditRefused::UnknownUsage)?, amount)?;
            (TransactionKind::Refund, amount, Some(transaction_id.0))
        }
    };
    if amount < 1 {
        return Err(CreditRefused::NotPositive);
    }
    Ok(TokenCredit { kind, amount, reference_id, description: order.description.clone() })
}

fn refundable(spent: TokensSpent, asked: Option<i64>) -> Result<i64, CreditRefused> {
    match (spent.left(), asked) {
        (0, _) => Err(CreditRefused::NothingLeft),
        (left, None) => Ok(left),
        (left, Some(amount)) if amount > left => Err(CreditRefused::BeyondLeft(left)),
        (_, Some(amount)) => Ok(amount),
    }
}

impl TokenCredit {
    /// The balance after this row.
    pub fn added_to(&self, balance: i64) -> Result<i64, CreditRefused> {
        balance.checked_add(self.amount).ok_or(CreditRefused::BalanceFull)
    }

    /// Whether `row` is the result of this credit. It tells a repeat of a request from another one with its key.
    pub fn came_to(&self, row: &TokenTransaction) -> bool {
        let (of_row, own) = ((row.kind, row.amount, row.reference_id), (self.kind, self.amount, self.reference_id));
        of_row == own && row.description == self.description
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn order(origin: CreditOrigin) -> CreditOrder {
        CreditOrder { user_id: UserId(Uuid::from_u128(1)), origin, description: Some("why".to_owned()) }
    }

    fn refund(usage: u128, amount: Option<i64>) -> CreditOrder {
        order(CreditOrigin::Refund { transaction_id: TransactionId(Uuid::from_u128(usage)), amount })
    }

    #[test]
    fn a_kind_reads_back_from_its_name() {
        for kind in ["topup", "usage", "refund", "bonus"] {
            assert_eq!(kind.parse::<TransactionKind>().map(TransactionKind::as_str), Ok(kind));
        }
        assert!("gift".parse::<TransactionKind>().is_err());
    }

    #[test]
    fn a_refund_gives_back_what_is_left_and_no_more() {
        let spent = Some(TokensSpent { taken: 10, refunded: 4 });
        let amount = |asked, spent| credit(&refund(7, asked), spent).map(|credit| credit.amount);
        assert_eq!(amount(None, spent), Ok(6));
        assert_eq!(amount(Some(6), spent), Ok(6));
        assert_eq!(amount(Some(7), spent), Err(CreditRefused::BeyondLeft(6)));
        assert_eq!(amount(Some(0), spent), Err(CreditRefused::NotPositive));
        assert_eq!(amount(Some(-1), spent), Err(CreditRefused::NotPositive));
        for asked in [None, Some(1)] {
            assert_eq!(amount(asked, Some(TokensSpent { taken: 10, refunded: 10 })), Err(CreditRefused::NothingLeft));
            // A usage row that took nothing: written by hand, since the service writes none.
            assert_eq!(amount(asked, Some(TokensSpent { taken: -5, refunded: 0 })), Err(CreditRefused::NothingLeft));
            assert_eq!(amount(asked, None), Err(CreditRefused::UnknownUsage));
        }
    }

    #[test]
    fn a_balance_ends_before_it_overflows() {
        let topup = |amount| credit(&order(CreditOrigin::Topup { amount, reference_id: None }), None);
        assert_eq!(topup(0), Err(CreditRefused::NotPositive));
        let most = topup(i64::MAX).unwrap();
        assert_eq!(most.added_to(0), Ok(i64::MAX));
        assert_eq!(most.added_to(1), Err(CreditRefused::BalanceFull));
    }

    #[test]
    fn every_word_of_an_order_tells_it_from_another() {
        let reference_id = Some(Uuid::from_u128(3));
        let topup = credit(&order(CreditOrigin::Topup { amount: 5, reference_id }), None).unwrap();
        let row = TokenTransaction {
            id: TransactionId(Uuid::from_u128(9)),
            seq: 2,
            amount: 5,
            kind: TransactionKind::Topup,
            description: Some("why".to_owned()),
            reference_id,
            balance_after: 105,
            created_at: DateTime::UNIX_EPOCH,
        };
        assert!(topup.came_to(&row));
        for other in [
            TokenTransaction { amount: 6, ..row.clone() },
            TokenTransaction { kind: TransactionKind::Bonus, ..row.clone() },
            TokenTransaction { description: None, ..row.clone() },
            TokenTransaction { reference_id: None, ..row.clone() },
        ] {
            assert!(!topup.came_to(&other), "{other:?}");
        }
    }

    /// A change of a balance in the property below.
    #[derive(Clone, Debug)]
    enum Event {
        Topup(i64),
        Use(i64),
        /// Of the use at this place, of this amount or of all that is left.
        Refund(usize, Option<i64>),
    }

    fn event() -> impl Strategy<Value = Event> {
        prop_oneof![
            (1_i64..50).prop_map(Event::Topup),
            (1_i64..50).prop_map(Event::Use),
            (0_usize..8, proptest::option::of(-2_i64..60)).prop_map(|(place, amount)| Event::Refund(place, amount)),
        ]
    }

    proptest! {
        #[test]
        fn the_rows_sum_to_the_balance_and_no_refund_exceeds_its_use(events in proptest::collection::vec(event(), 0..80)) {
            let mut balance = 100_i64;
            let mut rows = vec![(TransactionKind::Bonus, 100, None)];
            let mut uses: Vec<TokensSpent> = Vec::new();
            for event in events {
                let (origin, place) = match event {
                    Event::Use(amount) => {
                        if amount <= balance {
                            balance -= amount;
                            rows.push((TransactionKind::Usage, -amount, None));
                            uses.push(TokensSpent { taken: amount, refunded: 0 });
                        }
                        continue;
                    }
                    Event::Topup(amount) => (CreditOrigin::Topup { amount, reference_id: None }, None),
                    Event::Refund(place, amount) => {
                        let transaction_id = TransactionId(Uuid::from_u128(place as u128));
                        (CreditOrigin::Refund { transaction_id, amount }, Some(place))
                    }
                };
                let spent = place.and_then(|place| uses.get(place).copied());
                let Ok(credit) = credit(&order(origin), spent) else { continue };
                balance = credit.added_to(balance).unwrap();
                rows.push((credit.kind, credit.amount, credit.reference_id));
                if let Some(spent) = place.and_then(|place| uses.get_mut(place)) {
                    spent.refunded += credit.amount;
                }
            }
            prop_assert_eq!(rows.iter().map(|row| row.1).sum::<i64>(), balance);
            prop_assert!(balance >= 0);
            for (place, spent) in uses.iter().enumerate() {
                let reference = Some(Uuid::from_u128(place as u128));
                let refunds = rows.iter().filter(|row| row.0 == TransactionKind::Refund && row.2 == reference);
                let refunded: i64 = refunds.map(|row| row.1).sum();
                prop_assert!(refunded <= spent.taken);
                prop_assert_eq!(refunded, spent.refunded);
            }
        }

        /// A repeat is judged by what was left before the first, so a refund of "all that is left" equals its repeat.
        #[test]
        fn a_refund_is_its_own_repeat(taken in 1_i64..100, before in 0_i64..100, asked in proptest::option::of(1_i64..100)) {
            let spent = Some(TokensSpent { taken, refunded: before.min(taken) });
            let Ok(first) = credit(&refund(7, asked), spent) else { return Ok(()) };
            let row = TokenTransaction {
                id: TransactionId(Uuid::from_u128(9)),
                seq: 3,
                amount: first.amount,
                kind: first.kind,
                description: first.description.clone(),
                reference_id: first.reference_id,
                balance_after: 0,
                created_at: DateTime::UNIX_EPOCH,
            };
            prop_assert!(credit(&refund(7, asked), spent).unwrap().came_to(&row));
            prop_assert!(!credit(&refund(8, asked), spent).unwrap().came_to(&row));
            prop_assert!(!credit(&refund(7, Some(first.amount + 1)), spent).is_ok_and(|other| other.came_to(&row)));
        }
    }
}
