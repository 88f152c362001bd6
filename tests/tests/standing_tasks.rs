//! Periodic and event-based collection, as an operator asks for it, over real TLS and a real broker.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use proto::message::{AttributeChange, ObservationOperation, PeriodicOperation, StreamState};
use proto::operator::{Ask, AskOutcome, CollectorAnswer, OperatorEvent, PolicyImport, Workflow};
use service::shutdown::Stopper;
use system_tests::{Installation, baseline, eventually, verdicts};
use tempfile::TempDir;

fn answers(events: &[OperatorEvent]) -> &[CollectorAnswer] {
    let OperatorEvent::Collectors(answers) = &events[0] else { panic!("{events:?}") };
    answers
}

/// A repository, an evaluator, and one collector of a small root.
async fn installation() -> (Installation, TempDir, Stopper) {
    let installation = Installation::orchestrator().await;
    installation.add_repository().await;
    installation.add_evaluator().await;
    let root = tempfile::tempdir().unwrap();
    std::fs::create_dir(root.path().join("etc")).unwrap();
    std::fs::write(root.path().join("etc/passwd"), "root:x:0:0:root:/root:/bin/sh\n").unwrap();
    mode(root.path(), 0o644);
    let token = installation.token(proto::capability::ComponentType::PostureCollectionService).await;
    let collector = installation.start_collector("small", root.path(), Some(token));
    installation.wait_for_active(3).await;
    (installation, root, collector)
}

fn mode(root: &Path, mode: u32) {
    std::fs::set_permissions(root.join("etc/passwd"), std::fs::Permissions::from_mode(mode)).unwrap();
}

async fn periodic(
    installation: &Installation,
    operation: PeriodicOperation,
    seconds: u64,
    at_once: bool,
) -> CollectorAnswer {
    let ask = Ask::Periodic {
        operation,
        identifier: "daily".to_owned(),
        schedule: Some(proto::schedule::Schedule::every(seconds)),
        at_once,
        workflow: baseline(0),
    };
    answers(&installation.ask(ask).await)[0].clone()
}

async fn observation(
    installation: &Installation,
    operation: ObservationOperation,
    workflow: Workflow,
) -> CollectorAnswer {
    let ask = Ask::Observation { operation, identifier: "files".to_owned(), poll_seconds: Some(1), workflow };
    answers(&installation.ask(ask).await)[0].clone()
}

async fn changes(installation: &Installation) -> (Vec<StreamState>, Vec<AttributeChange>) {
    let ask = Ask::Changes { targets: vec!["small".to_owned()], limit: 100, is_followed: false, query: None };
    let mut streams = Vec::new();
    let mut changes = Vec::new();
    for event in installation.ask(ask).await {
        match event {
            OperatorEvent::Streams(of) => streams = of,
            OperatorEvent::Change(change) => changes.push(*change),
            OperatorEvent::Done => {}
            other => panic!("{other:?}"),
        }
    }
    (streams, changes)
}

async fn is_stored(installation: &Installation) -> bool {
    let stored = Workflow { is_stored_only: true, ..baseline(30) };
    let verdicts = verdicts(&installation.ask(Ask::Evaluate(stored)).await);
    verdicts.get("xccdf_dev.muster_rule_passwd_file_permissions").is_some_and(|verdict| verdict == "pass")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_schedule_collects_by_itself_and_survives_its_collector() {
    let (installation, root, collector) = installation().await;
    assert!(!is_stored(&installation).await, "nothing was collected yet");
    let first = periodic(&installation, PeriodicOperation::Schedule, 3_600, true).await;
    assert_eq!((first.outcome, first.detail), (AskOutcome::Done, None));
    eventually("the run at once is stored", async || is_stored(&installation).await.then_some(())).await;
    // The same again is taken, another with the same name is not.
    assert_eq!(periodic(&installation, PeriodicOperation::Schedule, 3_600, true).await.outcome, AskOutcome::Done);
    let other = periodic(&installation, PeriodicOperation::Schedule, 60, true).await;
    assert_eq!(other.outcome, AskOutcome::Refused);
    assert!(other.detail.unwrap().contains("in use"));
    installation.stop_collector("small", collector).await;
    let _again = installation.start_collector("small", root.path(), None);
    let listed = eventually("the schedule is there again", async || {
        let listed = periodic(&installation, PeriodicOperation::List, 0, false).await;
        (listed.outcome == AskOutcome::Done).then_some(listed.schedules)
    })
    .await;
    assert_eq!(listed.iter().map(|entry| entry.collection_identifier.as_str()).collect::<Vec<_>>(), ["daily"]);
    // Once more before it ends: what is there by then is seen.
    mode(root.path(), 0o666);
    assert_eq!(periodic(&installation, PeriodicOperation::Cancel, 0, true).await.outcome, AskOutcome::Done);
    eventually("the last run is stored", async || (!is_stored(&installation).await).then_some(())).await;
    assert!(periodic(&installation, PeriodicOperation::List, 0, false).await.schedules.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_that_changes_is_an_event_with_past_and_current_state() {
    let (installation, root, collector) = installation().await;
    let started = observation(&installation, ObservationOperation::Start, baseline(0)).await;
    assert_eq!((started.outcome, started.observations[0].poll_seconds), (AskOutcome::Done, 1));
    eventually("everything is reported once", async || is_stored(&installation).await.then_some(())).await;
    let (streams, before) = changes(&installation).await;
    assert!(before.is_empty(), "the first report is no change: {before:?}");
    let first_epoch = streams[0].epoch;
    mode(root.path(), 0o600);
    let change = eventually("the change is known", async || {
        changes(&installation).await.1.into_iter().find(|change| {
            change.current.items.iter().any(|item| item.kind == "unix:file" && item.value("oread") == Some("false"))
        })
    })
    .await;
    let past = change.past.unwrap();
    assert_eq!(past.items[0].value("oread"), Some("true"));
    assert!(past.seen < change.current.seen);
    let stream = change.stream.unwrap();
    assert_eq!((stream.epoch, stream.is_baseline), (first_epoch, false));

    // A collector that starts anew promises nothing about what it missed: a new epoch, everything again.
    installation.stop_collector("small", collector).await;
    mode(root.path(), 0o640);
    let _again = installation.start_collector("small", root.path(), None);
    let change = eventually("what changed while it was away is known", async || {
        changes(&installation).await.1.into_iter().find(|change| {
            change.current.items.iter().any(|item| item.kind == "unix:file" && item.value("gread") == Some("true"))
                && change
                    .past
                    .as_ref()
                    .is_some_and(|past| past.items.iter().any(|item| item.value("gread") == Some("false")))
        })
    })
    .await;
    let stream = change.stream.unwrap();
    assert!(stream.epoch != first_epoch && stream.is_baseline, "{stream:?}");
    let (streams, _) = changes(&installation).await;
    let newest = streams.iter().find(|stream| stream.observation_identifier == "files").unwrap();
    assert_eq!((newest.epoch, newest.received), (stream.epoch, newest.highest));
    assert_eq!(observation(&installation, ObservationOperation::Cancel, baseline(0)).await.outcome, AskOutcome::Done);
    assert!(observation(&installation, ObservationOperation::List, baseline(0)).await.observations.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_collector_that_is_away_is_named() {
    let (installation, _root, _collector) = installation().await;
    let silent = installation.scripted(proto::capability::ComponentType::PostureCollectionService, "silent").await;
    let ask = Ask::Periodic {
        operation: PeriodicOperation::List,
        identifier: String::new(),
        schedule: None,
        at_once: false,
        workflow: baseline(0),
    };
    let events = installation.ask(ask).await;
    let outcome = |name: &str| answers(&events).iter().find(|answer| answer.name == name).unwrap().outcome;
    assert_eq!((outcome("small"), outcome("silent")), (AskOutcome::Done, AskOutcome::NoAnswer));
    drop(silent);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_vulnerability_that_is_there_is_bad_and_compliance_that_is_there_is_good() {
    let (installation, _root, _collector) = installation().await;
    let good = verdicts(&installation.ask(Ask::Evaluate(baseline(60))).await);
    let text = String::from_utf8(system_tests::BASELINE.to_vec()).unwrap();
    let turned = text.replace("class=\"compliance\"", "class=\"vulnerability\"");
    let orchestrator = installation.data.path().join("orchestrator");
    let import = Ask::PolicyImport(Box::new(PolicyImport { name: "turned".to_owned(), ..PolicyImport::default() }));
    system_tests::ask(&orchestrator, import, turned.as_bytes()).await.unwrap();
    let workflow = Workflow { policy: "turned".to_owned(), ..baseline(60) };
    let events = installation.ask(Ask::Evaluate(workflow)).await;
    let bad = verdicts(&events);
    let mut turned = 0;
    for (rule, verdict) in &good {
        let expected = match verdict.as_str() {
            "pass" => "fail",
            "fail" => "pass",
            other => other,
        };
        assert_eq!(bad[rule], expected, "{rule}");
        turned += usize::from(verdict != expected);
    }
    assert!(turned > 10, "{good:?}");
    let is_told = events.iter().any(|event| {
        matches!(event, OperatorEvent::Verdict { result, .. } if result.sense == proto::verdict::Sense::Vulnerability)
    });
    assert!(is_told);
}
