//! A collector that is paused looks at nothing, loses nothing that it is asked, and goes on.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use proto::capability::ComponentType;
use proto::fault::FaultCode;
use proto::id::ComponentId;
use proto::operator::{Ask, ComponentState, OperatorEvent, RosterEntry};
use system_tests::endpoint::root;
use system_tests::{Installation, PATIENCE, baseline, eventually, is_completed};

/// The collector's entry.
async fn collector(installation: &Installation) -> RosterEntry {
    installation.roster().await.into_iter().find(|entry| !entry.endpoints.is_empty()).unwrap()
}

async fn pause(installation: &Installation, component: ComponentId, minutes: i64) -> Vec<OperatorEvent> {
    let until = Some(Timestamp::now() + SignedDuration::from_mins(minutes));
    installation.ask(Ask::Pause { component, until, reason: "backup runs".to_owned() }).await
}

async fn resume(installation: &Installation, component: ComponentId) -> Vec<OperatorEvent> {
    installation.ask(Ask::Pause { component, until: None, reason: String::new() }).await
}

fn refusal(events: &[OperatorEvent]) -> FaultCode {
    match &events[0] {
        OperatorEvent::Fault(fault) => fault.code,
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_paused_collector_waits_through_a_restart_and_then_does_what_it_was_asked() {
    let root = root();
    let installation = Installation::orchestrator().await;
    installation.add_repository().await;
    installation.add_evaluator().await;
    let token = installation.token(ComponentType::PostureCollectionService).await;
    let running = installation.start_collector("paused", root.path(), Some(token));
    installation.wait_for_active(3).await;
    let entry = collector(&installation).await;
    assert_eq!(entry.paused_until, None);

    let told = pause(&installation, entry.component, 10).await;
    assert!(matches!(&told[0], OperatorEvent::Notice(text) if text.contains("looks at nothing until")), "{told:?}");
    assert!(collector(&installation).await.paused_until.is_some());
    let asked = tokio::time::timeout(Duration::from_secs(3), installation.ask(Ask::Evaluate(baseline(120)))).await;
    assert!(asked.is_err(), "it looked while it was paused");

    // It was told nothing but what it hears when it comes back.
    installation.stop_collector("paused", running).await;
    let began = Timestamp::now();
    let _running = installation.start_collector("paused", root.path(), None);
    eventually("the collector is back", async || {
        let entry = collector(&installation).await;
        (entry.state == ComponentState::Active && entry.heard > Some(began)).then_some(())
    })
    .await;
    let asked = installation.ask(Ask::Evaluate(baseline(120)));
    tokio::pin!(asked);
    assert!(tokio::time::timeout(Duration::from_secs(3), &mut asked).await.is_err(), "it looked after its restart");

    resume(&installation, entry.component).await;
    let done = tokio::time::timeout(PATIENCE, asked).await.unwrap();
    assert!(is_completed(&done), "{done:?}");
    assert_eq!(collector(&installation).await.paused_until, None);
    assert_eq!(refusal(&resume(&installation, entry.component).await), FaultCode::TargetUnknown);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_a_collector_is_paused_and_not_for_ever() {
    let installation = Installation::orchestrator().await;
    installation.add_repository().await;
    installation.wait_for_active(1).await;
    let repository = installation.roster().await.remove(0).component;
    assert_eq!(refusal(&pause(&installation, repository, 10).await), FaultCode::TargetUnknown);
    let collector = installation.enrolled(ComponentType::PostureCollectionService, "one").await;
    for minutes in [-1, 8 * 24 * 60] {
        assert_eq!(
            refusal(&pause(&installation, collector.component, minutes).await),
            FaultCode::Malformed,
            "{minutes}"
        );
    }
    assert!(matches!(pause(&installation, collector.component, 10).await[0], OperatorEvent::Notice(_)));
}
