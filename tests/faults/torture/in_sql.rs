//! Consuming in SQL, over a direct connection: the transaction that counts the use also writes a row of work.

use harness::sqlx::{self, PgPool, Postgres, Transaction};
use serde_json::{Value, json};

use super::client::Client;
use super::ground::count;
use super::journal::{Outcome, Use};

/// The server rolled the transaction back: a conflict, or a time limit.
const NOTHING_HAPPENED: [&str; 4] = ["40001", "40P01", "55P03", "57014"];

/// One in this many transactions is rolled back after all its writes.
const ROLLED_BACK_IN: u64 = 8;

impl Client {
    pub(super) async fn consume_in_sql(&mut self) {
        let place = self.note(true, |_, _| None);
        if self.dice.once_in(ROLLED_BACK_IN) {
            // Nothing of it may remain, even if the rollback fails.
            if let Ok((transaction, _)) = consume(&self.ground.sql, &self.journal[place]).await {
                transaction.rollback().await.ok();
            }
            self.journal[place].outcome = Outcome::Refused;
            return;
        }
        self.send_in_sql(place).await;
    }

    pub(super) async fn send_in_sql(&mut self, place: usize) {
        let outcome = match consume(&self.ground.sql, &self.journal[place]).await {
            Ok((transaction, told)) => transaction.commit().await.map(|()| told),
            Err(error) => Err(error),
        };
        match outcome {
            Ok(told) if told["allowed"] == true => {
                let replayed = told["replayed"] == true;
                self.grant(place, &told, replayed);
            }
            Ok(told) => self.refuse(place, &told),
            Err(error) if happened_not(&error) => {
                count(&self.ground.counts.away);
                self.reopen(place);
            }
            Err(_) => {
                count(&self.ground.counts.unanswered);
                self.doubt(place);
            }
        }
    }
}

/// Runs up to the commit, as the user in the claims, like a Supabase client.
async fn consume(sql: &PgPool, asked: &Use) -> Result<(Transaction<'static, Postgres>, Value), sqlx::Error> {
    let user = asked.user();
    let mut transaction = sql.begin().await?;
    let claims = json!({ "sub": user, "role": "authenticated" }).to_string();
    let opening = "SELECT set_config('role', 'authenticated', true), set_config('request.jwt.claims', $1, true), \
        set_config('lock_timeout', '4000', true), set_config('statement_timeout', '6000', true)";
    sqlx::query(opening).bind(claims).execute(&mut *transaction).await?;
    let consuming = "SELECT to_jsonb(c) FROM consume_usage($1, $2, $3, $4) c";
    let consuming = sqlx::query_scalar(consuming).bind(user).bind(asked.feature).bind(asked.amount).bind(&asked.key);
    let told: Value = consuming.fetch_one(&mut *transaction).await?;
    // A repeat does not write the work again.
    if told["allowed"] == true && told["replayed"] == false {
        let work = "INSERT INTO torture_work (user_id, key, amount) VALUES ($1, $2, $3)";
        sqlx::query(work).bind(user).bind(&asked.key).bind(asked.amount).execute(&mut *transaction).await?;
    }
    Ok((transaction, told))
}

fn happened_not(error: &sqlx::Error) -> bool {
    let state = error.as_database_error().and_then(sqlx::error::DatabaseError::code);
    state.is_some_and(|state| NOTHING_HAPPENED.contains(&&*state))
}
