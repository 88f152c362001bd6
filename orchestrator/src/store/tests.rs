//! One battery for both back ends, and the lease of those who share a database.

use std::time::Duration;

use ::store::postgres::DatabaseUrl;
use jiff::{SignedDuration, Timestamp};
use proto::capability::ComponentType;
use service::audit::Actor;
use uuid::Uuid;

use super::*;
use crate::core::workflow::Responder;

mod audit;

/// An empty database; `None` where there is no server.
async fn database() -> Option<DatabaseUrl> {
    ::store::testing::database("orchestrator").await
}

/// Someone who has the lease of a database.
async fn active(url: &DatabaseUrl) -> Store {
    let store = Store::connect(url).await.unwrap();
    assert!(store.database().unwrap().take_lease("one", Duration::from_mins(1)).await.unwrap());
    store
}

fn act() -> Act {
    Act::new(Actor::Orchestrator, "test", "x")
}

fn token(id: &str, uses_left: u32) -> TokenRow {
    let view = TokenView {
        id: id.to_owned(),
        component_type: ComponentType::PostureCollectionService,
        uses_left,
        created: Timestamp::UNIX_EPOCH,
        expires: Timestamp::UNIX_EPOCH,
        labels: Vec::new(),
        is_revoked: false,
        needs_approval: false,
    };
    TokenRow { view, secret: "s".to_owned() }
}

/// What holds for every back end.
async fn battery(store: &Store) {
    standing_tasks(store).await;
    tokens(store).await;
    workflows(store).await;
    many_at_once(store).await;
}

async fn tokens(store: &Store) {
    store.put_token(&token("t", 1), &act()).await.unwrap();
    let uses = async || store.token("t").await.unwrap().unwrap().view.uses_left;
    store.apply(Uuid::new_v4(), &[&Action::UseToken("t".to_owned())], &[]).await.unwrap();
    assert_eq!(uses().await, 0);
    // It does not go below nothing, and one that is not there is none.
    store
        .apply(Uuid::new_v4(), &[&Action::UseToken("t".to_owned()), &Action::UseToken("no".to_owned())], &[])
        .await
        .unwrap();
    assert_eq!(uses().await, 0);
    assert_eq!(store.token("t").await.unwrap().unwrap(), token("t", 0));
    assert_eq!(store.tokens().await.unwrap().len(), 1);
    // The answer to a commit was lost, and it is asked once more: it has one effect.
    store.put_token(&token("t", 5), &act()).await.unwrap();
    let batch = Uuid::new_v4();
    let actions = [Action::UseToken("t".to_owned()), Action::Record(Box::new(act()))];
    let entries = async || store.last_entry().await.unwrap().unwrap().number;
    let before = entries().await;
    for _ in 0..2 {
        store.apply(batch, &[&actions[0], &actions[1]], &[]).await.unwrap();
    }
    assert_eq!((uses().await, entries().await), (4, before + 1));
    store.apply(Uuid::new_v4(), &[&actions[0]], &[]).await.unwrap();
    assert_eq!(uses().await, 3);
}

async fn workflows(store: &Store) {
    let now = Timestamp::from_second(1_800_000_000).unwrap();
    let hour = SignedDuration::from_hours(1);
    let content = ContentRef::to(b"plan");
    let mut workflow: Workflow = serde_json::from_value(serde_json::json!({
        "id": TransactionId(Uuid::now_v7()),
        "plan": crate::posture::of_question("test", content),
        "endpoints": [],
        "begun": now,
        "ended": null,
    }))
    .unwrap();
    store.apply(Uuid::new_v4(), &[&Action::StoreWorkflow(Box::new(workflow.clone()))], &[]).await.unwrap();
    assert_eq!(store.expire_workflows(now + hour).await.unwrap(), 0, "it is open");
    // Of many in one batch, the last one of each is how it is: more than one statement takes, and in whatever order.
    let responder = |progress: u64| -> Responder {
        serde_json::from_value(serde_json::json!({
            "component": ComponentId(Uuid::from_u128(7)), "operation": "collect", "request": RequestId(Uuid::from_u128(8)),
            "endpoints": [], "state": "accepted", "detail": null, "asked": now, "deadline": now + hour,
            "ended": null, "progress": [progress, 9],
        }))
        .unwrap()
    };
    let mut actions = vec![Action::StoreWorkflow(Box::new(workflow.clone()))];
    for progress in 0..2 {
        let some = (0..150).map(|at| Action::StoreResponder(workflow.id, 149 - at, Box::new(responder(progress))));
        actions.extend(some);
    }
    workflow.cancelled = Some(now);
    actions.push(Action::StoreWorkflow(Box::new(workflow.clone())));
    store.apply(Uuid::new_v4(), &actions.iter().collect::<Vec<_>>(), &[]).await.unwrap();
    let stored = store.workflow(workflow.id).await.unwrap().unwrap();
    assert_eq!((stored.cancelled, stored.responders.len()), (Some(now), 150));
    assert!(stored.responders.iter().all(|responder| responder.progress == (1, 9)));
    workflow.ended = Some(now + hour);
    store.apply(Uuid::new_v4(), &[&Action::StoreWorkflow(Box::new(workflow.clone()))], &[]).await.unwrap();
    assert_eq!(store.workflows().await.unwrap().len(), 1);
    assert_eq!(store.expire_workflows(now + hour).await.unwrap(), 0, "it ended then, not before");
    assert_eq!(store.expire_workflows(now + hour + hour).await.unwrap(), 1);
    assert!(store.workflow(workflow.id).await.unwrap().is_none());
}

/// The entries of the log come one after another, whoever writes.
async fn many_at_once(store: &Store) {
    let before = store.last_entry().await.unwrap().map_or(0, |entry| entry.number);
    let writing: Vec<_> = (0..20)
        .map(|number| {
            let store = store.clone();
            tokio::spawn(async move { store.put_token(&token(&format!("many-{number}"), 1), &act()).await })
        })
        .collect();
    for one in writing {
        one.await.unwrap().unwrap();
    }
    assert_eq!(store.last_entry().await.unwrap().unwrap().number, before + 20);
}

async fn standing_tasks(store: &Store) {
    let [one, other] = [ComponentId(Uuid::new_v4()), ComponentId(Uuid::new_v4())];
    let act = Act::new(Actor::Orchestrator, "test", "x");
    let begin = async |plan: &[u8], collectors: &[ComponentId]| {
        let task = StandingTask {
            request: RequestId(Uuid::now_v7()),
            operation: "periodic",
            identifier: "daily".to_owned(),
            plan: ContentRef::to(plan),
        };
        store.begin_standing(&task, collectors, |_| act.clone()).await.unwrap()
    };
    let (first, begun) = begin(b"plan", &[one]).await;
    assert_eq!(begun, [one]);
    assert_eq!(begin(b"plan", &[one, other]).await, (first, vec![other]));
    let (another, _) = begin(b"another plan", &[one]).await;
    assert_ne!(another, first);
    let now = Timestamp::from_second(1_800_000_000).unwrap();
    let name = ("periodic", "daily");
    // What was not taken on ends alone; the other goes on.
    store.end_standing(name, Some(another), one, now, &act).await.unwrap();
    assert_eq!(store.standing(first, one).await.unwrap(), Some((ContentRef::to(b"plan"), None)));
    store.end_standing(name, None, one, now, &act).await.unwrap();
    assert_eq!(store.standing(first, one).await.unwrap(), Some((ContentRef::to(b"plan"), Some(now))));
    assert_eq!(store.standing(first, other).await.unwrap(), Some((ContentRef::to(b"plan"), None)));
    assert_eq!(store.standing(another, other).await.unwrap(), None);
    // Nothing ends twice, and nothing is written down for it.
    let before = store.last_entry().await.unwrap();
    store.end_standing(name, None, one, now, &act).await.unwrap();
    assert_eq!(store.last_entry().await.unwrap(), before);
    // Asked once more, it is in force again.
    assert_eq!(begin(b"plan", &[one]).await, (first, vec![one]));
    assert_eq!(store.standing(first, one).await.unwrap(), Some((ContentRef::to(b"plan"), None)));
}

#[tokio::test]
async fn sqlite_passes_the_battery() {
    let directory = tempfile::tempdir().unwrap();
    battery(&Store::open(&directory.path().join("store.db")).await.unwrap()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn postgresql_passes_the_battery() {
    let Some(url) = database().await else { return };
    battery(&active(&url).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_has_no_lease_writes_nothing() {
    let Some(url) = database().await else { return };
    let one = Store::connect(&url).await.unwrap();
    let other = Store::connect(&url).await.unwrap();
    let (one_lease, other_lease) = (one.database().unwrap(), other.database().unwrap());
    let refused = |outcome: Result<(), StoreError>| assert!(matches!(outcome, Err(StoreError::Deposed)));
    refused(one.put_token(&token("a", 1), &act()).await);
    // It is free: the first has it, and the other has not.
    assert!(one_lease.take_lease("one", Duration::from_mins(1)).await.unwrap());
    assert!(!other_lease.take_lease("other", Duration::from_mins(1)).await.unwrap());
    one.put_token(&token("a", 1), &act()).await.unwrap();
    refused(other.put_token(&token("b", 1), &act()).await);
    // It runs out: who has not written since goes on as long as nobody else takes it.
    one_lease.renew_lease(Duration::ZERO).await.unwrap();
    while !one_lease.lease().await.unwrap().is_over {}
    one.put_token(&token("a", 2), &act()).await.unwrap();
    assert!(other_lease.take_lease("other", Duration::from_mins(1)).await.unwrap());
    refused(one.put_token(&token("a", 3), &act()).await);
    refused(one_lease.renew_lease(Duration::from_mins(1)).await);
    refused(one_lease.put_content(b"x").await);
    refused(one_lease.put_ca_files(&[]).await);
    one_lease.deposed().await;
    // What the first gives back is not its own any more.
    one_lease.give_lease_back().await.unwrap();
    let row = other_lease.lease().await.unwrap();
    assert_eq!((row.holder.as_str(), row.epoch, row.is_over), ("other", 2, false));
    // What was stored before is there, and is followed by what comes after.
    assert_eq!(other.tokens().await.unwrap(), [token("a", 2)]);
    other.put_token(&token("b", 1), &act()).await.unwrap();
    assert_eq!(other.last_entry().await.unwrap().unwrap().number, 3);
    other_lease.give_lease_back().await.unwrap();
    refused(other.put_token(&token("c", 1), &act()).await);
    assert!(one_lease.take_lease("one", Duration::from_mins(1)).await.unwrap());
    one.put_token(&token("c", 1), &act()).await.unwrap();
}

/// Two that lose the lease to each other at any time, in the middle of what they write.
#[tokio::test(flavor = "multi_thread")]
async fn however_often_the_lease_changes_hands_the_log_has_no_gap_and_every_answer_was_true() {
    let Some(url) = database().await else { return };
    let contend = async |name: &'static str| {
        let store = Store::connect(&url).await.unwrap();
        let lease = store.database().unwrap();
        let mut stored = Vec::new();
        for round in 0..60 {
            // Held for so short a time that it is lost now and then.
            lease.take_lease(name, Duration::from_millis(3)).await.unwrap();
            let id = format!("{name}-{round}");
            match store.put_token(&token(&id, 1), &act()).await {
                Ok(()) => stored.push(id),
                Err(StoreError::Deposed) => {}
                Err(error) => panic!("{error:?}"),
            }
        }
        stored
    };
    let (mut stored, more) = tokio::join!(contend("one"), contend("other"));
    stored.extend(more);
    stored.sort();
    let store = Store::connect(&url).await.unwrap();
    let mut found: Vec<String> = store.tokens().await.unwrap().into_iter().map(|token| token.view.id).collect();
    found.sort();
    assert_eq!(found, stored);
    assert!(!stored.is_empty());
    assert_eq!(store.last_entry().await.unwrap().unwrap().number, stored.len() as u64);
}
