//! The users of a run: own users of each client, hot users that all clients use in parallel, and an administrator who
//! may act for them. Their limits are small, so that they are reached all the time.

use std::sync::Arc;

use adapters::clock::SystemClock;
use adapters::secrets::access_tokens::BuiltInTokens;
use domain::identity::{Email, Role};
use domain::users::UserId;
use harness::SIGNING_KEY;
use harness::sqlx::{self, AssertSqlSafe, Connection as _, PgConnection};
use ports::identity::TokenIssuer as _;
use uuid::Uuid;

use super::form::Form;

/// The feature without overage: use ends at its limit.
pub const CALLS: &str = "torture_calls";

/// The feature with overage: use continues beyond its limit, paid with tokens.
pub const CREDITS: &str = "torture_credits";

pub const CALLS_LIMIT: i64 = 60;
/// An override for the hot users; the others have the limit of the plan.
pub const HOT_CALLS_LIMIT: i64 = 250;
pub const CREDITS_LIMIT: i64 = 20;
const TOKENS: i64 = 30;
const HOT_TOKENS: i64 = 200;

/// Longer than any run.
const TOKEN_SECONDS: u64 = 24 * 60 * 60;

const HOT_FROM: u32 = 1_000_000;
const ADMINISTRATOR: u32 = 2_000_000;

pub struct People {
    issuer: BuiltInTokens,
    pub administrator: String,
    users_each: u32,
    hot_users: u32,
}

impl People {
    /// Writes them into the database, with a plan, two features, and a table of work that is done in SQL.
    pub async fn settle(owner_url: &str, form: &Form) -> Self {
        let mut owner = PgConnection::connect(owner_url).await.unwrap();
        let Form { clients, users_each, hot_users, .. } = *form;
        let users = clients * users_each;
        let last_hot = HOT_FROM + hot_users - 1;
        let sql = format!(
            "INSERT INTO plans (id, name, display_name, price_monthly) VALUES ('torture', 'torture', 'Torture', 0);
             INSERT INTO features (id, name, display_name, kind) VALUES
                ('{CALLS}', '{CALLS}', 'Calls', 'metered'), ('{CREDITS}', '{CREDITS}', 'Credits', 'metered');
             INSERT INTO plan_features (plan_id, feature_id, enabled, limit_value, limit_period, overage) VALUES
                ('torture', '{CALLS}', true, {CALLS_LIMIT}, 'lifetime', 'block'),
                ('torture', '{CREDITS}', true, {CREDITS_LIMIT}, 'month', 'tokens');
             CREATE TEMPORARY TABLE people AS
                SELECT ('00000000-0000-4000-8000-' || lpad(n::text, 12, '0'))::uuid AS id, n
                FROM (SELECT generate_series(0, {users} - 1) UNION ALL SELECT generate_series({HOT_FROM}, {last_hot})
                    UNION ALL SELECT {ADMINISTRATOR}) AS numbers (n);
             INSERT INTO auth.users (id, email) SELECT id, 'person' || n || '@example.com' FROM people;
             INSERT INTO users (id, name, plan_id, role, token_balance) SELECT id, 'Person ' || n, 'torture',
                CASE WHEN n = {ADMINISTRATOR} THEN 'admin' ELSE 'user' END,
                CASE WHEN n >= {HOT_FROM} THEN {HOT_TOKENS} ELSE {TOKENS} END FROM people;
             INSERT INTO feature_overrides (user_id, feature_id, enabled, limit_value, reason)
                SELECT id, '{CALLS}', true, {HOT_CALLS_LIMIT}, 'the torture' FROM people
                WHERE n >= {HOT_FROM} AND n < {ADMINISTRATOR};
             CREATE TABLE torture_work (user_id uuid NOT NULL, key text NOT NULL, amount bigint NOT NULL);
             GRANT INSERT ON torture_work TO authenticated"
        );
        sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut owner).await.unwrap();
        owner.close().await.unwrap();
        let issuer = BuiltInTokens::new(SIGNING_KEY.as_bytes(), TOKEN_SECONDS, Arc::new(SystemClock)).unwrap();
        let administrator = token(&issuer, ADMINISTRATOR);
        Self { issuer, administrator, users_each, hot_users }
    }

    /// The number of a client's own user for this turn.
    pub fn own(&self, client: u32, turn: u32) -> u32 {
        client * self.users_each + turn % self.users_each
    }

    pub fn hot(&self, turn: u32) -> u32 {
        HOT_FROM + turn % self.hot_users
    }

    /// The token for charging a user: the user's own, or the administrator's for a hot user.
    pub fn token_for(&self, number: u32) -> String {
        if is_hot(number) { self.administrator.clone() } else { token(&self.issuer, number) }
    }
}

pub fn is_hot(number: u32) -> bool {
    number >= HOT_FROM
}

pub fn id(number: u32) -> Uuid {
    format!("00000000-0000-4000-8000-{number:012}").parse().unwrap()
}

/// The limit of a feature, as `People::settle` wrote it.
pub fn limit_of(number: u32, feature: &str) -> i64 {
    match feature {
        CREDITS => CREDITS_LIMIT,
        _ if is_hot(number) => HOT_CALLS_LIMIT,
        _ => CALLS_LIMIT,
    }
}

fn token(issuer: &BuiltInTokens, number: u32) -> String {
    let email = Email::parse(&format!("person{number}@example.com")).unwrap();
    issuer
        .issue(UserId(id(number)), &email.into(), Role::User, id(number), ports::identity::TokenScope::Everything)
        .unwrap()
        .token
}
