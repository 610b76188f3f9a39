use domain::features::FeatureId;
use domain::idempotency::IdempotencyKey;
use domain::tokens::{TokenBalance, TokenCredit, TokenTransaction, TokensSpent, TransactionId, TransactionKind};
use domain::users::UserId;
use harness::TestDatabase;
use ports::store::{Page, Scope, UnitOfWork};
use ports::tokens::TokenChange;

use crate::people::{constraint, feature_id, new_id, service, sign_up};

fn key(text: &str) -> IdempotencyKey {
    IdempotencyKey::parse(text).unwrap()
}

fn of(kind: TransactionKind, amount: i64, reference_id: Option<TransactionId>) -> TokenCredit {
    TokenCredit { kind, amount, reference_id: reference_id.map(|id| id.0), description: Some("why".to_owned()) }
}

async fn record(
    work: &mut dyn UnitOfWork,
    user_id: UserId,
    credit: &TokenCredit,
    key: Option<&IdempotencyKey>,
) -> TokenTransaction {
    let user = work.users().lock(user_id).await.unwrap().unwrap();
    work.tokens().record(&user, TransactionId(new_id()), credit, key).await.unwrap()
}

async fn all(work: &mut dyn UnitOfWork, user_id: UserId) -> Vec<TokenTransaction> {
    work.tokens().list(user_id, &Page { after: None, limit: 100 }).await.unwrap()
}

/// The ledger row of a use that took this many tokens.
async fn spend(work: &mut dyn UnitOfWork, user_id: UserId, amount: i64) -> TokenTransaction {
    let feature: FeatureId = feature_id("ai_requests");
    work.users().lock(user_id).await.unwrap();
    let spent = TokenChange { user_id, feature_id: feature, reserved: 0, spent: amount, reservation_id: None };
    work.tokens().move_tokens(&spent).await.unwrap();
    all(work, user_id).await.remove(0)
}

#[tokio::test]
async fn a_credit_moves_the_balance_and_the_chain_together() {
    let database = TestDatabase::new().await;
    let store = database.store();
    let ann = sign_up(&*store, "ann").await;
    let mut work = service(&*store).await;
    let reference = TransactionId(new_id());
    let topup = of(TransactionKind::Topup, 50, Some(reference));
    let row = record(&mut *work, ann, &topup, Some(&key("one"))).await;
    assert_eq!((row.seq, row.amount, row.balance_after), (2, 50, 150));
    assert_eq!(
        (row.kind, row.reference_id, row.description.as_deref()),
        (TransactionKind::Topup, Some(reference.0), Some("why"))
    );
    let bonus = TokenCredit { description: None, ..of(TransactionKind::Bonus, 1, None) };
    let second = record(&mut *work, ann, &bonus, None).await;
    assert_eq!((second.seq, second.balance_after, &second.description), (3, 151, &None));
    work.commit().await.unwrap();

    let mut work = service(&*store).await;
    let balance = work.tokens().find_balance(ann).await.unwrap();
    assert_eq!(balance, Some(TokenBalance { balance: 151, reserved: 0 }));
    assert_eq!(work.tokens().find_balance(UserId(new_id())).await.unwrap(), None);
    assert_eq!(work.maintenance().list_findings(10).await.unwrap(), []);
    assert_eq!(work.tokens().find_by_key(ann, &key("one")).await.unwrap(), Some(row));
    assert_eq!(work.tokens().find_by_key(ann, &key("two")).await.unwrap(), None);
    let user = work.users().lock(ann).await.unwrap().unwrap();
    let twice = work.tokens().record(&user, TransactionId(new_id()), &topup, Some(&key("one"))).await;
    assert_eq!(constraint(twice), "token_transactions_user_id_idempotency_key_key");
}

#[tokio::test]
async fn a_key_belongs_to_its_user() {
    let database = TestDatabase::new().await;
    let store = database.store();
    let (ann, bob) = (sign_up(&*store, "ann").await, sign_up(&*store, "bob").await);
    let mut work = service(&*store).await;
    let topup = of(TransactionKind::Topup, 5, None);
    let anns = record(&mut *work, ann, &topup, Some(&key("one"))).await;
    assert_eq!(work.tokens().find_by_key(bob, &key("one")).await.unwrap(), None);
    let bobs = record(&mut *work, bob, &topup, Some(&key("one"))).await;
    assert_eq!(work.tokens().find_by_key(ann, &key("one")).await.unwrap(), Some(anns));
    assert_eq!(work.tokens().find_by_key(bob, &key("one")).await.unwrap(), Some(bobs));
}

#[tokio::test]
async fn the_ledger_is_listed_by_its_chain() {
    let database = TestDatabase::new().await;
    let store = database.store();
    let (ann, bob) = (sign_up(&*store, "ann").await, sign_up(&*store, "bob").await);
    let mut work = service(&*store).await;
    // One transaction has one time, and the ids decrease: only the chain gives the order.
    let mut ids = [new_id(), new_id(), new_id(), new_id()];
    ids.reverse();
    for id in ids {
        let user = work.users().lock(ann).await.unwrap().unwrap();
        let topup = of(TransactionKind::Topup, 1, None);
        work.tokens().record(&user, TransactionId(id), &topup, None).await.unwrap();
    }
    work.commit().await.unwrap();
    let mut work = service(&*store).await;
    let rows = all(&mut *work, ann).await;
    assert_eq!(rows.iter().map(|row| row.seq).collect::<Vec<_>>(), [5, 4, 3, 2, 1]);
    let mut page = async |user_id, after, limit| work.tokens().list(user_id, &Page { after, limit }).await.unwrap();
    assert_eq!(page(ann, None, 2).await, rows[..2]);
    assert_eq!(page(ann, Some(rows[1].id), 2).await, rows[2..4]);
    assert_eq!(page(ann, Some(rows[4].id), 2).await, []);
    assert_eq!(page(ann, Some(TransactionId(new_id())), 2).await, []);
    assert_eq!(page(bob, Some(rows[0].id), 2).await, [], "another's place is none");
}

#[tokio::test]
async fn what_is_left_of_a_use_is_told_for_every_place_of_the_chain() {
    let database = TestDatabase::new().await;
    let store = database.store();
    let (ann, bob) = (sign_up(&*store, "ann").await, sign_up(&*store, "bob").await);
    let mut work = service(&*store).await;
    let (usage, other) = (spend(&mut *work, ann, 30).await, spend(&mut *work, ann, 5).await);
    let refund = of(TransactionKind::Refund, 10, Some(usage.id));
    let first = record(&mut *work, ann, &refund, None).await;
    let second = record(&mut *work, ann, &refund, None).await;
    // A top-up that references the use refunds nothing of it.
    record(&mut *work, ann, &of(TransactionKind::Topup, 3, Some(usage.id)), None).await;
    let mut spent = async |user_id, id, before| work.tokens().find_spent(user_id, id, before).await.unwrap();
    assert_eq!(spent(ann, usage.id, None).await, Some(TokensSpent { taken: 30, refunded: 20 }));
    assert_eq!(spent(ann, usage.id, Some(first.seq)).await, Some(TokensSpent { taken: 30, refunded: 0 }));
    assert_eq!(spent(ann, usage.id, Some(second.seq)).await, Some(TokensSpent { taken: 30, refunded: 10 }));
    assert_eq!(spent(ann, other.id, None).await, Some(TokensSpent { taken: 5, refunded: 0 }));
    assert_eq!(spent(bob, usage.id, None).await, None, "another's");
    assert_eq!(spent(ann, first.id, None).await, None, "no use");
    assert_eq!(spent(ann, TransactionId(new_id()), None).await, None);
}

#[tokio::test]
async fn who_holds_the_row_is_waited_for() {
    let database = TestDatabase::new().await;
    let store = database.store();
    let ann = sign_up(&*store, "ann").await;
    let topup = of(TransactionKind::Topup, 1, None);
    let once = async |number: usize| {
        // A store has two connections: one has locked the row, the other waits for it, with the same key.
        let key = key(&(number / 4).to_string());
        let mut work = service(&*store).await;
        let user = work.users().lock(ann).await.unwrap().unwrap();
        if work.tokens().find_by_key(ann, &key).await.unwrap().is_none() {
            work.tokens().record(&user, TransactionId(new_id()), &topup, Some(&key)).await.unwrap();
        }
        work.commit().await.unwrap();
    };
    futures_util::future::join_all((0..20).map(once)).await;
    let mut work = service(&*store).await;
    assert_eq!(work.tokens().find_balance(ann).await.unwrap(), Some(TokenBalance { balance: 105, reserved: 0 }));
    assert_eq!(all(&mut *work, ann).await.len(), 6);
    assert_eq!(work.maintenance().list_findings(10).await.unwrap(), []);
}

#[tokio::test]
async fn a_user_reads_the_own_ledger_and_writes_none() {
    let database = TestDatabase::new().await;
    let store = database.store();
    let (ann, bob) = (sign_up(&*store, "ann").await, sign_up(&*store, "bob").await);
    let mut own = store.begin(Scope::User(ann)).await.unwrap();
    assert_eq!(own.tokens().find_balance(ann).await.unwrap(), Some(TokenBalance { balance: 100, reserved: 0 }));
    assert_eq!(own.tokens().find_balance(bob).await.unwrap(), None);
    assert_eq!((all(&mut *own, ann).await.len(), all(&mut *own, bob).await.len()), (1, 0));
    drop(own);
    let mut work = service(&*store).await;
    let user = work.users().lock(ann).await.unwrap().unwrap();
    drop(work);
    let mut own = store.begin(Scope::User(ann)).await.unwrap();
    let gift = of(TransactionKind::Topup, 1_000_000, None);
    assert!(own.tokens().record(&user, TransactionId(new_id()), &gift, None).await.is_err());
}

#[tokio::test]
async fn refunds_are_found_through_their_index() {
    let database = TestDatabase::new().await;
    let ann = sign_up(&*database.store(), "ann").await;
    let rows = format!(
        "INSERT INTO token_transactions (user_id, amount, type) SELECT '{ann}', 1, 'topup' FROM generate_series(1, 3000); ANALYZE token_transactions"
    );
    database.sql(&rows).await;
    let explained: Vec<(String,)> = database
        .query_all(&format!(
            "EXPLAIN SELECT sum(r.amount) FROM token_transactions AS r
             WHERE r.reference_id = '{ann}' AND r.type = 'refund' AND r.user_id = '{ann}' AND r.seq < 100000"
        ))
        .await;
    let plan = explained.into_iter().map(|(line,)| line).collect::<Vec<_>>().join("\n");
    assert!(plan.contains("idx_token_transactions_refunds"), "{plan}");
}
