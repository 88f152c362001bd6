//! Policies that are assigned: evaluated at times, on whoever joins, and when something changes that they read.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::os::unix::fs::PermissionsExt as _;

use proto::message::ResultsSelection;
use proto::operator::{Ask, AssignmentView, OperatorEvent, PolicyAssignment, TransactionView, Workflow};
use proto::schedule::Schedule;
use proto::verdict::{EvaluationSummary, RuleResult, Verdict};
use system_tests::endpoint::{SHADOW_RULE, root, set_mode};
use system_tests::{Installation, baseline, eventually};

fn assignment(targets: &[&str]) -> PolicyAssignment {
    let targets = targets.iter().map(|target| (*target).to_owned()).collect();
    PolicyAssignment {
        name: "everyday".to_owned(),
        workflow: Workflow { targets, ..baseline(30) },
        schedule: None,
        is_change_based: false,
        poll_seconds: None,
    }
}

async fn assign(installation: &Installation, assignment: PolicyAssignment) {
    let events = installation.ask(Ask::PolicyAssign(Box::new(assignment))).await;
    assert!(matches!(&events[0], OperatorEvent::Notice(_)), "{events:?}");
}

async fn assignments(installation: &Installation) -> Vec<AssignmentView> {
    match installation.ask(Ask::PolicyAssignments).await.remove(0) {
        OperatorEvent::Assignments(views) => views,
        other => panic!("{other:?}"),
    }
}

async fn transactions(installation: &Installation) -> Vec<TransactionView> {
    match installation.ask(Ask::Transactions).await.remove(0) {
        OperatorEvent::Transactions(views) => views,
        other => panic!("{other:?}"),
    }
}

/// What holds, by endpoint.
async fn latest(installation: &Installation) -> Vec<(EvaluationSummary, Vec<RuleResult>)> {
    let ask = Ask::Results { selection: ResultsSelection::Latest, verdicts: Vec::new() };
    match installation.ask(ask).await.remove(0) {
        OperatorEvent::Results(page) => page.summaries.into_iter().zip(page.results).collect(),
        other => panic!("{other:?}"),
    }
}

fn shadow(results: &[RuleResult]) -> &RuleResult {
    results.iter().find(|result| result.rule.ends_with(SHADOW_RULE)).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_decides_again_what_reads_it_and_nothing_else() {
    let root = root();
    let installation = Installation::complete().await;
    installation.add_collector("small", root.path()).await;
    installation.wait_for_active(4).await;
    let on_change = PolicyAssignment { is_change_based: true, poll_seconds: Some(1), ..assignment(&["small"]) };
    assign(&installation, on_change).await;
    // It begins with everything.
    let (first, before) =
        eventually("it is evaluated once it is assigned", async || latest(&installation).await.pop()).await;
    assert_eq!((first.is_partial, shadow(&before).verdict), (false, Verdict::Pass));
    eventually("the collector watches", async || {
        let streams =
            installation.ask(Ask::Changes { targets: Vec::new(), limit: 1, is_followed: false, query: None }).await;
        matches!(&streams[0], OperatorEvent::Streams(streams) if !streams.is_empty()).then_some(())
    })
    .await;
    assert_eq!(assignments(&installation).await[0].watched_count, 1);

    set_mode(root.path(), 0o644);
    let (second, after) = eventually("the change is decided", async || {
        let (summary, results) = latest(&installation).await.pop()?;
        (shadow(&results).verdict == Verdict::Fail).then_some((summary, results))
    })
    .await;
    assert!(second.is_partial && second.evaluated > first.evaluated);
    assert!(shadow(&after).since > shadow(&before).since);
    // The rest is as it was, and counts as before.
    assert_eq!(after.len(), before.len());
    let rest = |results: &[RuleResult]| -> Vec<RuleResult> {
        results.iter().filter(|result| !result.rule.ends_with(SHADOW_RULE)).cloned().collect()
    };
    assert_eq!(rest(&after), rest(&before));
    let count = |summary: &EvaluationSummary, verdict: Verdict| {
        summary.counts.iter().find(|(known, _)| *known == verdict).map_or(0, |(_, count)| *count)
    };
    assert_eq!(count(&second, Verdict::Fail), count(&first, Verdict::Fail) + 1);
    assert_eq!(count(&second, Verdict::Pass), count(&first, Verdict::Pass) - 1);
    assert!(second.score < first.score);
    // No endpoint was asked for it, and few rules were decided.
    let view =
        transactions(&installation).await.into_iter().find(|view| view.transaction == second.transaction).unwrap();
    assert!(view.responders.iter().all(|responder| responder.operation == "evaluate"));
    let links = installation.chain(Some("small".to_owned()), None).await;
    let proven = service::chain::verify(&links, &[installation.ca_der()], None).unwrap();
    assert!(!proven.is_empty() && proven.len() < 10, "{} verdicts were decided", proven.len());
    // The same as if all had been decided anew.
    let workflow = Workflow { targets: vec!["small".to_owned()], ..baseline(30) };
    let anew = system_tests::verdicts(&installation.ask(Ask::Evaluate(workflow)).await);
    let held: std::collections::BTreeMap<String, String> =
        after.iter().map(|result| (result.rule.clone(), result.verdict.to_string())).collect();
    assert_eq!(held, anew);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_assigned_policy_is_evaluated_at_its_times_and_on_whoever_joins_until_it_is_assigned_no_more() {
    let installation = Installation::complete().await;
    let every_second = PolicyAssignment { schedule: Some(Schedule::every(1)), ..assignment(&[]) };
    assign(&installation, every_second).await;
    eventually("it is evaluated again and again", async || {
        (transactions(&installation).await.iter().filter(|view| view.state == "completed").count() >= 3).then_some(())
    })
    .await;
    // Less often, but new endpoints at once.
    let daily = PolicyAssignment { schedule: Some(Schedule::every(86_400)), ..assignment(&[]) };
    assign(&installation, daily).await;
    let root = root();
    installation.add_collector("later", root.path()).await;
    eventually("who joins is evaluated", async || (latest(&installation).await.len() == 2).then_some(())).await;
    let view = assignments(&installation).await.remove(0);
    assert!(view.endpoint_count == 2 && view.last.is_some() && view.next.is_some(), "{view:?}");

    let events = installation.ask(Ask::PolicyUnassign { name: "everyday".to_owned() }).await;
    assert!(matches!(&events[0], OperatorEvent::Notice(_)), "{events:?}");
    assert!(assignments(&installation).await.is_empty());
    let again = installation.ask(Ask::PolicyUnassign { name: "everyday".to_owned() }).await;
    assert!(
        matches!(&again[0], OperatorEvent::Fault(fault) if fault.message.contains("muster policy assignments")),
        "{again:?}"
    );
    let log = format!("{:?}", installation.ask(Ask::Audit).await);
    assert!(log.contains("assign-policy") && log.contains("unassign-policy"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_assignment_survives_a_restart_and_one_that_cannot_be_is_refused_with_the_reason() {
    let installation = Installation::orchestrator_in(tempfile::tempdir().unwrap(), "127.0.0.1:0").await;
    let nightly = Schedule {
        cron: Some("0 3 * * *".to_owned()),
        time_zone: Some("Europe/Berlin".to_owned()),
        ..Schedule::default()
    };
    assign(&installation, PolicyAssignment { schedule: Some(nightly.clone()), ..assignment(&["label-of-tomorrow"]) })
        .await;
    let before = assignments(&installation).await;
    let installation = Installation::orchestrator_in(installation.stop().await, "127.0.0.1:0").await;
    assert_eq!(assignments(&installation).await, before);

    let wrong = [
        (assignment(&[]), "say when"),
        (PolicyAssignment { name: "no/name".to_owned(), is_change_based: true, ..assignment(&[]) }, "64 letters"),
        (
            PolicyAssignment {
                schedule: Some(Schedule { cron: Some("0 3".to_owned()), ..nightly }),
                ..assignment(&[])
            },
            "five fields",
        ),
        (
            PolicyAssignment {
                workflow: Workflow { policy: "nothing".to_owned(), ..baseline(5) },
                is_change_based: true,
                ..assignment(&[])
            },
            "no policy is called",
        ),
        (
            PolicyAssignment {
                workflow: Workflow { is_stored_only: true, ..baseline(5) },
                is_change_based: true,
                ..assignment(&[])
            },
            "as of the time when it is due",
        ),
    ];
    for (assignment, expected) in wrong {
        let events = installation.ask(Ask::PolicyAssign(Box::new(assignment))).await;
        let OperatorEvent::Fault(fault) = &events[0] else { panic!("{events:?}") };
        assert!(fault.message.contains(expected), "{fault}");
    }
    assert_eq!(assignments(&installation).await, before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_that_changes_is_a_verdict_in_moments_without_anybody_looking_again_and_again() {
    let root = root();
    let installation = Installation::complete().await;
    let token = installation.token(proto::capability::ComponentType::PostureCollectionService).await;
    let collector = installation.start_collector("small", root.path(), Some(token));
    installation.wait_for_active(4).await;
    let watched = PolicyAssignment { is_change_based: true, poll_seconds: Some(3_600), ..assignment(&["small"]) };
    assign(&installation, watched).await;
    eventually("it is evaluated once it is assigned", async || latest(&installation).await.pop()).await;
    let epoch = async |before: Option<uuid::Uuid>| {
        eventually("the collector watches", async || {
            let streams =
                installation.ask(Ask::Changes { targets: Vec::new(), limit: 1, is_followed: false, query: None }).await;
            let OperatorEvent::Streams(streams) = &streams[0] else { return None };
            streams.first().map(|stream| stream.epoch).filter(|epoch| Some(*epoch) != before)
        })
        .await
    };
    let first = epoch(None).await;
    let becomes = async |verdict: Verdict| {
        eventually("the file's change is a verdict", async || {
            let (_, results) = latest(&installation).await.pop()?;
            (shadow(&results).verdict == verdict).then_some(())
        })
        .await;
    };
    set_mode(root.path(), 0o644);
    becomes(Verdict::Fail).await;
    // As editors and package managers do it: another file takes its place.
    let (new, old) = (root.path().join("etc/shadow.new"), root.path().join("etc/shadow"));
    std::fs::write(&new, "root:*:19000:0:99999:7:::\n").unwrap();
    std::fs::set_permissions(&new, std::fs::Permissions::from_mode(0o600)).unwrap();
    std::fs::rename(new, old).unwrap();
    becomes(Verdict::Pass).await;
    // After a restart nobody has to ask for it anew.
    installation.stop_collector("small", collector).await;
    let _again = installation.start_collector("small", root.path(), None);
    epoch(Some(first)).await;
    set_mode(root.path(), 0o666);
    becomes(Verdict::Fail).await;
}
