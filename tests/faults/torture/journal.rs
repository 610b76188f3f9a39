//! The journal of a client: each use with the responses to it. A use is recorded before it is sent.

use chrono::{DateTime, Utc};
use serde_json::{Value, json};
use uuid::Uuid;

use super::people;

/// A requested use or reservation.
#[derive(Clone, Debug)]
pub struct Use {
    pub key: String,
    /// The number of the charged user.
    pub person: u32,
    pub feature: &'static str,
    pub amount: i64,
    /// Whether it was sent through the SQL function, together with a row of work.
    pub in_sql: bool,
    pub outcome: Outcome,
    /// How often it was sent without a response, so that it may have been executed.
    pub doubts: u32,
    pub hold: Option<Hold>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Not answered yet.
    Open,
    Granted(Told),
    Refused,
}

/// The numbers of the first response, which every repeat must return too.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told {
    pub current: i64,
    pub limit: Option<i64>,
    pub remaining: Option<i64>,
    pub reserved: i64,
    pub as_of: DateTime<Utc>,
    /// For a reservation: its id and its expiry.
    pub hold: Option<(Uuid, DateTime<Utc>)>,
}

/// The planned end of a reservation, and the actual one.
#[derive(Clone, Debug)]
pub struct Hold {
    pub ttl_seconds: i64,
    pub end: End,
    /// The total to reserve before the end; it is requested until there is a response.
    pub extend_to: Option<i64>,
    /// The reserved amount is one of these: an extension without a response may have been made.
    pub amounts: Vec<i64>,
    /// How often the end was sent without a response.
    pub doubts: u32,
    pub ended: Option<Ended>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    Settle(i64),
    Release,
    /// The client does nothing, and the reservation expires.
    Leave,
}

/// The content of the response to the end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ended {
    pub status: String,
    pub amount: i64,
    pub overage: i64,
    pub held: i64,
    pub current: i64,
    pub reserved: i64,
}

impl Use {
    pub fn user(&self) -> Uuid {
        people::id(self.person)
    }

    pub fn told(&self) -> Option<&Told> {
        match &self.outcome {
            Outcome::Granted(told) => Some(told),
            Outcome::Open | Outcome::Refused => None,
        }
    }

    /// The outcome may still change: there was no response, or a refusal after an attempt that got no response and may
    /// have been granted meanwhile.
    pub fn is_uncertain(&self) -> bool {
        self.outcome == Outcome::Open || self.outcome == Outcome::Refused && self.doubts > 0
    }

    pub fn body(&self) -> Value {
        let Self { key, feature, amount, .. } = self;
        let mut body =
            json!({ "user_id": self.user(), "feature_id": feature, "amount": amount, "idempotency_key": key });
        if let Some(hold) = &self.hold {
            body["ttl_seconds"] = json!(hold.ttl_seconds);
        }
        body
    }

    pub fn path(&self) -> &'static str {
        if self.hold.is_some() { "/api/usage/reservations" } else { "/api/usage" }
    }

    /// The amount that was counted for it, by the responses to the client.
    pub fn counted(&self) -> i64 {
        match (&self.outcome, &self.hold) {
            (Outcome::Granted(_), None) => self.amount,
            (Outcome::Granted(_), Some(hold)) => match (hold.end, &hold.ended) {
                (End::Settle(_), Some(ended)) => ended.amount,
                _ => 0,
            },
            (Outcome::Open | Outcome::Refused, _) => 0,
        }
    }
}

impl Told {
    /// Reads them from a response, over REST or in SQL.
    pub fn read(body: &Value) -> Option<Self> {
        let time = |name: &str| body[name].as_str()?.parse::<DateTime<Utc>>().ok();
        let hold = match body.get("expires_at") {
            Some(_) => Some((body["id"].as_str()?.parse().ok()?, time("expires_at")?)),
            None => None,
        };
        Some(Self {
            current: body["current"].as_i64()?,
            limit: body["limit"].as_i64(),
            remaining: body["remaining"].as_i64(),
            reserved: body["reserved"].as_i64()?,
            as_of: time("as_of")?,
            hold,
        })
    }
}

impl Ended {
    pub fn read(body: &Value) -> Option<Self> {
        let number = |name: &str| body[name].as_i64();
        Some(Self {
            status: body["status"].as_str()?.to_owned(),
            amount: number("amount")?,
            overage: number("overage")?,
            held: number("held")?,
            current: number("current")?,
            reserved: number("reserved")?,
        })
    }
}
