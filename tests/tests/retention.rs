//! What is old goes, and nothing of what is still needed to show what a verdict rests on.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeSet;

use jiff::{SignedDuration, Timestamp};
use orchestrator::Expired;
use proto::capability::ComponentType;
use proto::operator::{Ask, OperatorEvent, TransactionView, Workflow};
use system_tests::endpoint::{root, set_mode};
use system_tests::{Installation, baseline};

async fn transactions(installation: &Installation) -> Vec<TransactionView> {
    match installation.ask(Ask::Transactions).await.into_iter().next().unwrap() {
        OperatorEvent::Transactions(views) => views,
        other => panic!("{other:?}"),
    }
}

async fn chain(installation: &Installation) -> BTreeSet<String> {
    installation.chain(None, None).await.into_iter().map(|link| link.sealed).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn workflows_that_are_old_go_and_what_shows_a_verdict_stays() {
    let root = root();
    let installation = Installation::complete().await;
    installation.add_collector("small", root.path()).await;
    installation.wait_for_active(4).await;
    let on = |name: &str, timeout| Workflow { targets: vec![name.to_owned()], ..baseline(timeout) };
    // Two that collect the same; the verdict rests on the first.
    installation.ask(Ask::Evaluate(on("small", 60))).await;
    installation.ask(Ask::Collect(on("small", 60))).await;
    // One that nobody answers, and one that is not over.
    let _silent = installation.scripted(ComponentType::PostureCollectionService, "silent").await;
    let unanswered = Workflow { expires_seconds: 0, ..on("silent", 1) };
    installation.ask(Ask::Collect(unanswered)).await;
    set_mode(root.path(), 0o600);
    let before = chain(&installation).await;
    assert!(before.len() >= 4, "{before:?}");
    let (open, ended): (Vec<_>, Vec<_>) =
        transactions(&installation).await.into_iter().partition(|view| view.ended.is_none());
    assert!(ended.len() >= 3, "{ended:?}");

    let keep = SignedDuration::from_hours(1);
    assert_eq!(installation.handle.expire(keep, Timestamp::now()).await.unwrap(), Expired::default());
    let later = Timestamp::now() + SignedDuration::from_hours(2);
    let gone = installation.handle.expire(keep, later).await.unwrap();
    // What nobody has answered is the one message that nothing refers to.
    assert_eq!((gone.workflow_count, gone.task_count), (ended.len() as u64, 1));
    let left: Vec<_> = transactions(&installation).await.into_iter().map(|view| view.transaction).collect();
    assert_eq!(left, open.iter().map(|view| view.transaction).collect::<Vec<_>>());
    assert_eq!(chain(&installation).await, before);
    assert_eq!(installation.handle.expire(keep, later).await.unwrap(), Expired::default());

    // It stays so, and goes on.
    let data = installation.stop().await;
    let installation = Installation::orchestrator_in(data, "127.0.0.1:0").await;
    assert_eq!(transactions(&installation).await.len(), open.len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_repository_nothing_that_it_may_need_goes() {
    let installation = Installation::orchestrator().await;
    let _silent = installation.scripted(ComponentType::PostureCollectionService, "silent").await;
    installation.ask(Ask::Collect(Workflow { expires_seconds: 0, ..baseline(1) })).await;
    let later = Timestamp::now() + SignedDuration::from_hours(2);
    let fault = installation.handle.expire(SignedDuration::from_hours(1), later).await.unwrap_err();
    assert!(fault.message.contains("no repository to ask"), "{fault}");
}
