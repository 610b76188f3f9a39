use chrono::{DateTime, Utc};
use domain::ai::ModelId;
use domain::chat::{ChatMessage, ChatSession, ChatSessionChanges, ChatSessionDraft, ChatSessionId, MessageRole};
use domain::prices::NanoUsd;
use domain::users::UserId;
use harness::TestDatabase;
use ports::chat::SessionState;
use ports::store::{Page, Scope, Store, UnitOfWork};

use crate::people::{constraint, new_id, service, sign_up};

fn draft(title: &str) -> ChatSessionDraft {
    ChatSessionDraft {
        title: Some(title.into()),
        model: Some(ModelId::parse("claude-sonnet-5").unwrap()),
        system: Some("Be brief.".into()),
    }
}

async fn opened(store: &dyn Store, owner: UserId, title: &str) -> ChatSession {
    let mut work = service(store).await;
    let session = work.chat().insert(owner, None, &draft(title)).await.unwrap();
    work.commit().await.unwrap();
    session
}

async fn own(store: &dyn Store, owner: UserId) -> Box<dyn UnitOfWork> {
    store.begin(Scope::User(owner)).await.unwrap()
}

/// A question and its answer, written in one statement like a call does, with the sums.
async fn said(database: &TestDatabase, session: &ChatSession, at: &str, text: &str) {
    let id = session.id.0;
    database
        .sql(&format!(
            "INSERT INTO chat_messages (session_id, role, content, tokens, cost_nano_usd, model, created_at) VALUES
                ('{id}', 'user', '{text}?', 3, 10, NULL, '{at}'), ('{id}', 'assistant', '{text}.', 4, 25, 'm', '{at}');
             UPDATE chat_sessions SET tokens_used = tokens_used + 7, cost_nano_usd = cost_nano_usd + 35 WHERE id = '{id}'"
        ))
        .await;
}

fn texts(messages: &[ChatMessage]) -> Vec<&str> {
    messages.iter().map(|message| message.content.as_str()).collect()
}

#[tokio::test]
async fn a_conversation_is_its_owners_from_the_opening_to_the_end() {
    let database = TestDatabase::new().await;
    let store = database.store();
    let (ann, bob) = (sign_up(&*store, "ann").await, sign_up(&*store, "bob").await);
    let session = opened(&*store, ann, "first").await;
    assert_eq!((session.user_id, session.tokens, session.cost, session.ended_at), (ann, 0, NanoUsd(0), None));
    assert_eq!((session.title.as_deref(), session.system.as_deref()), (Some("first"), Some("Be brief.")));
    said(&database, &session, "2026-01-01Z", "a").await;
    let mut work = own(&*store, ann).await;
    let counted = work.chat().find(ann, session.id).await.unwrap().unwrap();
    assert_eq!((counted.messages, counted.session.tokens, counted.session.cost), (2, 7, NanoUsd(35)));
    assert!(counted.session.updated_at > session.updated_at, "a call moves it up");
    assert_eq!(work.chat().open_session(ann, session.id).await.unwrap(), Some(counted.session.clone()));
    assert!(work.chat().end(ann, session.id).await.unwrap());
    assert!(!work.chat().end(ann, session.id).await.unwrap(), "it ends once");
    work.commit().await.unwrap();
    let ended = service(&*store).await.chat().open_session(ann, session.id).await.unwrap().unwrap();
    assert!(ended.ended_at.is_some() && ended.may_go_on().is_err(), "the call is told that it has ended");
    for mut work in [service(&*store).await, own(&*store, bob).await] {
        assert_eq!(work.chat().open_session(bob, session.id).await.unwrap(), None);
        assert_eq!(work.chat().find(bob, session.id).await.unwrap(), None);
        assert!(!work.chat().save_changes(bob, session.id, &ChatSessionChanges::default()).await.unwrap());
        assert!(!work.chat().end(bob, session.id).await.unwrap());
        assert!(!work.chat().delete(bob, session.id).await.unwrap());
        assert_eq!(work.chat().list(bob, None, &Page { after: None, limit: 9 }).await.unwrap(), []);
        assert_eq!(work.chat().list_history(bob, 9).await.unwrap(), []);
    }
    let mut foreign = own(&*store, bob).await;
    let hidden = foreign.chat().list_messages(session.id, &Page { after: None, limit: 9 }).await.unwrap();
    assert_eq!(hidden, [], "row-level security, whoever the statement asks for");
    assert_eq!(foreign.chat().list_history(ann, 9).await.unwrap(), []);
    drop(foreign);
    let mut work = own(&*store, ann).await;
    assert!(work.chat().delete(ann, session.id).await.unwrap());
    assert!(!work.chat().delete(ann, session.id).await.unwrap());
    work.commit().await.unwrap();
    assert_eq!(database.query_scalar::<i64>("SELECT count(*) FROM chat_messages").await, 0);
    let nobodys = service(&*store).await.chat().insert(UserId(new_id()), None, &draft("x")).await;
    assert_eq!(constraint(nobodys), "fk_chat_sessions_user");
}

#[tokio::test]
async fn changes_leave_what_they_do_not_name() {
    let database = TestDatabase::new().await;
    let store = database.store();
    let ann = sign_up(&*store, "ann").await;
    let session = opened(&*store, ann, "first").await;
    for (changes, title, system) in [
        (ChatSessionChanges::default(), Some("first"), Some("Be brief.")),
        (ChatSessionChanges { title: Some(Some("second".into())), system: None }, Some("second"), Some("Be brief.")),
        (ChatSessionChanges { title: None, system: Some(Some("Be long.".into())) }, Some("second"), Some("Be long.")),
        (ChatSessionChanges { title: Some(None), system: Some(None) }, None, None),
    ] {
        let mut work = own(&*store, ann).await;
        assert!(work.chat().save_changes(ann, session.id, &changes).await.unwrap());
        let session_now = work.chat().open_session(ann, session.id).await.unwrap().unwrap();
        assert_eq!((session_now.title.as_deref(), session_now.system.as_deref()), (title, system));
        work.commit().await.unwrap();
    }
    let mut work = own(&*store, ann).await;
    let long = ChatSessionChanges { title: None, system: Some(Some("é".repeat(16_385))) };
    assert_eq!(constraint(work.chat().save_changes(ann, session.id, &long).await), "check_chat_session_system");
}

#[tokio::test]
async fn conversations_are_listed_by_when_they_last_went_on() {
    let database = TestDatabase::new().await;
    let store = database.store();
    let ann = sign_up(&*store, "ann").await;
    let mut sessions = Vec::new();
    for title in ["a", "b", "c", "d"] {
        sessions.push(opened(&*store, ann, title).await);
    }
    said(&database, &sessions[1], "2026-01-01Z", "b").await;
    let mut work = own(&*store, ann).await;
    work.chat().end(ann, sessions[3].id).await.unwrap();
    work.commit().await.unwrap();
    let mut work = own(&*store, ann).await;
    let mut titles = async |state, after, limit| {
        let listed = work.chat().list(ann, state, &Page { after, limit }).await.unwrap();
        let last = listed.last().map(|session| (session.updated_at, session.id));
        (listed.into_iter().map(|session| session.title.unwrap()).collect::<String>(), last)
    };
    assert_eq!(titles(None, None, 9).await.0, "dbca");
    assert_eq!(titles(Some(SessionState::Open), None, 9).await.0, "bca");
    assert_eq!(titles(Some(SessionState::Ended), None, 9).await.0, "d");
    let (first, after) = titles(None, None, 3).await;
    let (second, after) = (titles(None, after, 3).await.0, after);
    assert_eq!((first.as_str(), second.as_str()), ("dbc", "a"));
    assert_eq!(titles(Some(SessionState::Ended), after, 3).await.0, "");
    assert_eq!(work.chat().count(ann, 9).await.unwrap(), 4);
    assert_eq!(work.chat().count(ann, 2).await.unwrap(), 2, "it counts no further than it is asked to");
}

#[tokio::test]
async fn messages_are_in_the_order_in_which_they_were_said() {
    let database = TestDatabase::new().await;
    let store = database.store();
    let ann = sign_up(&*store, "ann").await;
    let session = opened(&*store, ann, "first").await;
    // The later call was written first.
    said(&database, &session, "2026-01-01 00:00:02Z", "c").await;
    said(&database, &session, "2026-01-01 00:00:01Z", "b").await;
    said(&database, &session, "2026-01-01 00:00:00Z", "a").await;
    let expected = ["a?", "a.", "b?", "b.", "c?", "c."];
    let mut work = service(&*store).await;
    let all = work.chat().list_messages(session.id, &Page { after: None, limit: 9 }).await.unwrap();
    assert_eq!(texts(&all), expected);
    assert_eq!((all[1].role, all[1].tokens, all[1].cost), (MessageRole::Assistant, 4, NanoUsd(25)));
    assert_eq!((all[0].model.as_deref(), all[1].model.as_deref()), (None, Some("m")));
    let (mut seen, mut after) = (Vec::new(), None);
    loop {
        let page = work.chat().list_messages(session.id, &Page { after, limit: 1 }).await.unwrap();
        let Some(last) = page.last() else { break };
        after = Some((last.created_at, last.seq));
        seen.extend(page);
    }
    assert_eq!(seen, all, "one by one, none twice and none left out");
    for (limit, expected) in [(3, &expected[3..]), (4, &expected[2..]), (100, &expected[..])] {
        let latest = work.chat().list_latest_messages(session.id, limit).await.unwrap();
        assert_eq!(texts(&latest), expected);
    }
    let none = work.chat().list_latest_messages(ChatSessionId(new_id()), 5).await.unwrap();
    assert_eq!(none, []);
}

#[tokio::test]
async fn the_history_is_the_last_messages_of_all_conversations() {
    let database = TestDatabase::new().await;
    let store = database.store();
    let ann = sign_up(&*store, "ann").await;
    let mut sessions = Vec::new();
    for number in 0..8 {
        sessions.push(opened(&*store, ann, &number.to_string()).await);
    }
    // The messages in order; each conversation changed last when its last message was written.
    let mut expected: Vec<(DateTime<Utc>, String)> = Vec::new();
    for (minute, number) in [(0, 3), (5, 1), (9, 3), (12, 7), (20, 1), (21, 0)] {
        let at = format!("2026-01-01T00:{minute:02}:00Z");
        said(&database, &sessions[number], &at, &format!("{number}/{minute}")).await;
        for end in ["?", "."] {
            expected.push((at.parse().unwrap(), format!("{number}/{minute}{end}")));
        }
    }
    database
        .sql(
            "ALTER TABLE chat_sessions DISABLE TRIGGER USER;
             UPDATE chat_sessions s SET updated_at = coalesce(
                (SELECT max(m.created_at) FROM chat_messages m WHERE m.session_id = s.id), '2025-01-01Z');
             ALTER TABLE chat_sessions ENABLE TRIGGER USER",
        )
        .await;
    expected.reverse();
    let texts: Vec<&str> = expected.iter().map(|(_, text)| text.as_str()).collect();
    let history = async |limit| {
        let mut work = own(&*store, ann).await;
        let found = work.chat().list_history(ann, limit).await.unwrap();
        for recalled in &found {
            let number = recalled.message.content.split('/').next().unwrap();
            assert_eq!(recalled.title.as_deref(), Some(number), "it is told where it was said");
        }
        found.into_iter().map(|recalled| recalled.message.content).collect::<Vec<_>>()
    };
    for limit in [1, 2, 5, 11, 12, 100] {
        let shown = texts.len().min(usize::try_from(limit).unwrap());
        assert_eq!(history(limit).await, texts[..shown], "{limit} of them");
    }
    // Renamed conversations without messages come first in the list and must not displace any message.
    let mut work = own(&*store, ann).await;
    for session in [2, 4, 5, 6] {
        let renamed = ChatSessionChanges { title: Some(Some(session.to_string())), system: None };
        work.chat().save_changes(ann, sessions[session].id, &renamed).await.unwrap();
    }
    work.commit().await.unwrap();
    for limit in [1, 2, 3, 5, 100] {
        let shown = texts.len().min(usize::try_from(limit).unwrap());
        assert_eq!(history(limit).await, texts[..shown], "{limit} of them, after others were renamed");
    }
}
