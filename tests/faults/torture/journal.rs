//! The journal of a client: each use with what it was told of it. A use is written down before it is sent.

use chrono::{DateTime, Utc};
use serde_json::{Value, json};
use uuid::Uuid;

use super::people;

/// A use that was asked for, or a hold.
#[derive(Clone, Debug)]
pub struct Use {
    pub key: String,
    /// The number of the charged user.
    pub person: u32,
    pub feature: &'static str,
    pub amount: i64,
    /// Whether it came by the SQL function, with a row of work beside it.
    pub in_sql: bool,
    pub outcome: Outcome,
    /// How often it was sent and not answered, so that it may have happened.
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

/// The numbers of the first answer, which is also the answer to every repeat.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told {
    pub current: i64,
    pub limit: Option<i64>,
    pub remaining: Option<i64>,
    pub reserved: i64,
    pub as_of: DateTime<Utc>,
    /// Of a hold: its id and its end.
    pub hold: Option<(Uuid, DateTime<Utc>)>,
}

/// What is to become of a hold, and what became of it.
#[derive(Clone, Debug)]
pub struct Hold {
    pub ttl_seconds: i64,
    pub end: End,
    /// To be held in all, before the end: asked for until it is answered.
    pub extend_to: Option<i64>,
    /// What is held, one of these: an extension that was not answered may have been made.
    pub amounts: Vec<i64>,
    /// How often the end was sent and not answered.
    pub doubts: u32,
    pub ended: Option<Ended>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    Settle(i64),
    Release,
    /// Nobody says anything, until it expires.
    Leave,
}

/// What the answer to the end said.
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

    /// It may still turn out otherwise: nothing was answered, or a refusal after an attempt that was never answered and
    /// may have been granted meanwhile.
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

    /// What was counted of it, by what the client was told.
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
    /// Out of an answer, over REST or in SQL.
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
