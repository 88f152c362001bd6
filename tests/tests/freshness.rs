//! Freshness is an argument: what is fresh enough is not collected again, what is stale is never a pass, and any time of
//! the past can be asked about.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::Path;

use jiff::{SignedDuration, Timestamp};
use proto::operator::{Ask, OperatorEvent, TransactionView, Workflow};
use proto::verdict::{EvaluationSummary, RuleResult, Verdict};
use system_tests::endpoint::{self, SHADOW_RULE, root, set_mode};
use system_tests::{Installation, baseline, eventually};

async fn installation(root: &Path) -> Installation {
    let installation = Installation::complete().await;
    installation.add_collector("small", root).await;
    installation.wait_for_active(4).await;
    installation
}

fn on_small() -> Workflow {
    Workflow { targets: vec!["small".to_owned()], ..baseline(60) }
}

struct Outcome {
    view: TransactionView,
    summary: EvaluationSummary,
    results: Vec<RuleResult>,
}

impl Outcome {
    fn verdict(&self, rule: &str) -> Verdict {
        self.results.iter().find(|result| result.rule.ends_with(rule)).unwrap().verdict
    }

    fn collect(&self) -> Vec<(&str, u64)> {
        let collect = self.view.responders.iter().filter(|responder| responder.operation == "collect");
        collect.map(|responder| (responder.state.as_str(), responder.object_count)).collect()
    }
}

async fn evaluate(installation: &Installation, workflow: Workflow) -> Outcome {
    let events = installation.ask(Ask::Evaluate(workflow)).await;
    let mut outcome = (None, None, Vec::new());
    for event in events {
        match event {
            OperatorEvent::Ended(view) => outcome.0 = Some(*view),
            OperatorEvent::Summary(summary) => outcome.1 = Some(*summary),
            OperatorEvent::Verdict { result, .. } => outcome.2.push(*result),
            OperatorEvent::Fault(fault) => panic!("{fault}"),
            _ => {}
        }
    }
    Outcome { view: outcome.0.unwrap(), summary: outcome.1.unwrap(), results: outcome.2 }
}

fn plain(results: &[RuleResult]) -> Vec<(String, Verdict)> {
    let mut plain: Vec<_> = results.iter().map(|result| (result.rule.clone(), result.verdict)).collect();
    plain.sort();
    plain
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_fresh_enough_is_not_collected_again_and_what_is_missing_is_collected_once() {
    let root = root();
    let installation = installation(root.path()).await;
    // A profile reads less than the whole policy.
    let profile = Workflow { profile: Some("server".to_owned()), ..on_small() };
    let all = evaluate(&installation, on_small()).await;
    assert_eq!((all.collect(), all.summary.is_fresh), (vec![("completed", 0)], Some(true)));
    let before = all.view.account;
    assert_eq!((before.asked, before.answered, before.sum()), (1, 1, 1));

    // Nobody is contacted, whatever there is to see.
    set_mode(root.path(), 0o644);
    let aged = |max_age_seconds| Workflow { max_age_seconds: Some(max_age_seconds), ..on_small() };
    let fresh = evaluate(&installation, aged(3_600)).await;
    assert_eq!(fresh.collect(), [("fresh", 0)]);
    assert_eq!(
        (fresh.view.state.as_str(), fresh.view.account.fresh, fresh.summary.is_fresh),
        ("completed", 1, Some(true))
    );
    assert_eq!(plain(&fresh.results), plain(&all.results));
    assert_eq!(fresh.verdict(SHADOW_RULE), Verdict::Pass);

    // No tolerance at all: everything is collected, once, and that is fresh.
    let anew = evaluate(&installation, aged(0)).await;
    assert_eq!((anew.collect(), anew.summary.is_fresh), (vec![("completed", 0)], Some(true)));
    assert_eq!(anew.verdict(SHADOW_RULE), Verdict::Fail);

    // Of a machine of which only a part is known, the rest is collected.
    let other = endpoint::root();
    installation.add_collector("other", other.path()).await;
    installation.wait_for_active(5).await;
    let on_other = |workflow: Workflow| Workflow { targets: vec!["other".to_owned()], ..workflow };
    evaluate(&installation, on_other(profile)).await;
    let rest = evaluate(&installation, on_other(aged(3_600))).await;
    let [(state, objects)] = rest.collect()[..] else { panic!("{:?}", rest.view) };
    let whole = all.results.iter().flat_map(|result| &result.objects).collect::<std::collections::BTreeSet<_>>().len();
    assert!(state == "completed" || state == "fresh", "{:?}", rest.view);
    assert!(objects < whole as u64, "{objects} objects of {whole}");
    assert_eq!(rest.summary.is_fresh, Some(true));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_stale_is_unknown_in_every_count() {
    let root = root();
    let installation = installation(root.path()).await;
    let first = evaluate(&installation, on_small()).await;
    assert!(first.results.iter().any(|result| result.verdict == Verdict::Pass));
    tokio::time::sleep(std::time::Duration::from_millis(1_100)).await;
    let stale = Workflow { is_stored_only: true, max_age_seconds: Some(1), ..on_small() };
    let stale = evaluate(&installation, stale).await;
    assert_eq!(stale.summary.is_fresh, Some(false));
    for result in stale.results.iter().filter(|result| !result.objects.is_empty()) {
        assert_eq!(result.verdict, Verdict::Unknown, "{result:?}");
    }
    let passed = stale.summary.counts.iter().find(|(verdict, _)| *verdict == Verdict::Pass);
    assert!(passed.is_none_or(|(_, count)| *count == 0), "{:?}", stale.summary.counts);
    assert!(stale.summary.score.is_none_or(|score| score == 0.0), "{:?}", stale.summary.score);
    // With no age given, what is stored is taken as it is.
    let stored = evaluate(&installation, Workflow { is_stored_only: true, ..on_small() }).await;
    assert_eq!(plain(&stored.results), plain(&first.results));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_past_is_evaluated_as_it_was_known_and_changes_nothing_of_what_holds() {
    let root = root();
    let installation = installation(root.path()).await;
    let long_ago = Timestamp::now();
    tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    evaluate(&installation, on_small()).await;
    let good = Timestamp::now();
    set_mode(root.path(), 0o644);
    let bad = evaluate(&installation, on_small()).await;
    assert_eq!(bad.verdict(SHADOW_RULE), Verdict::Fail);

    let then = |as_of| Workflow { as_of: Some(as_of), ..on_small() };
    let past = evaluate(&installation, then(good)).await;
    assert_eq!((past.verdict(SHADOW_RULE), past.summary.as_of), (Verdict::Pass, Some(good)));
    assert!(past.view.responders.iter().all(|responder| responder.operation == "evaluate"), "{:?}", past.view);
    // Before anything was known, nothing passes.
    let before = evaluate(&installation, then(long_ago)).await;
    assert!(
        before
            .results
            .iter()
            .filter(|result| !result.objects.is_empty())
            .all(|result| result.verdict == Verdict::Unknown)
    );
    assert_eq!(before.summary.is_fresh, Some(false));

    let latest = installation
        .ask(Ask::Results {
            selection: proto::message::ResultsSelection::Endpoint(bad.summary.endpoint),
            verdicts: Vec::new(),
        })
        .await;
    let OperatorEvent::Results(latest) = &latest[0] else { panic!("{latest:?}") };
    assert_eq!(latest.summaries[0].transaction, bad.view.transaction);
    let shadow = latest.results[0].iter().find(|result| result.rule.ends_with(SHADOW_RULE)).unwrap();
    let micros = |time: Timestamp| time.as_microsecond();
    assert_eq!((shadow.verdict, shadow.since.map(micros)), (Verdict::Fail, Some(micros(bad.summary.evaluated))));
    let kept = latest.results[0].iter().find(|result| result.since.is_some_and(|since| since < good));
    assert!(kept.is_some(), "what did not change holds since the first evaluation");

    let never = installation.ask(Ask::Evaluate(then(Timestamp::now() + SignedDuration::from_hours(1)))).await;
    let Some(OperatorEvent::Fault(fault)) = never.last() else { panic!("{never:?}") };
    assert!(fault.message.contains("has not come yet"), "{fault}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_was_away_catches_up_until_the_request_expires() {
    let root = root();
    let installation = Installation::complete().await;
    let token = installation.token(proto::capability::ComponentType::PostureCollectionService).await;
    let collector = installation.start_collector("small", root.path(), Some(token));
    installation.wait_for_active(4).await;
    evaluate(&installation, on_small()).await;
    installation.stop_collector("small", collector).await;
    set_mode(root.path(), 0o644);
    // Clocks may differ by a few seconds: what is that old is old for certain.
    tokio::time::sleep(std::time::Duration::from_secs(5)).await;

    let short = |expires_seconds| Workflow { timeout_seconds: 1, expires_seconds, ..on_small() };
    let expired = evaluate(&installation, short(0)).await;
    assert_eq!((expired.view.state.as_str(), expired.view.account.timed_out), ("partial", 1));
    let missed = evaluate(&installation, short(600)).await;
    assert_eq!((missed.view.state.as_str(), missed.view.account.timed_out), ("waiting", 1));
    // What is known of it is older than the request.
    assert_eq!((missed.verdict(SHADOW_RULE), missed.summary.is_fresh), (Verdict::Unknown, Some(false)));

    let _again = installation.start_collector("small", root.path(), None);
    let transaction = missed.view.transaction;
    let waited = installation.ask(Ask::Wait { transaction, is_all: true }).await;
    let OperatorEvent::Ended(view) = &waited[0] else { panic!("{waited:?}") };
    let account = view.account;
    assert_eq!((account.asked, account.answered, account.sum()), (1, 1, 1), "{view:?}");
    // Decided without it at first, and then with it.
    let evaluations = view.responders.iter().filter(|responder| responder.operation == "evaluate").count();
    assert_eq!((view.state.as_str(), evaluations), ("completed", 2));
    let results = installation
        .ask(Ask::Results {
            selection: proto::message::ResultsSelection::Transaction(transaction),
            verdicts: Vec::new(),
        })
        .await;
    let OperatorEvent::Results(results) = &results[0] else { panic!("{results:?}") };
    let shadow = results.results[0].iter().find(|result| result.rule.ends_with(SHADOW_RULE)).unwrap();
    assert_eq!(shadow.verdict, Verdict::Fail);
    // The other request had expired: nobody was asked for it.
    let events = installation.ask(Ask::Transaction { transaction: expired.view.transaction }).await;
    let OperatorEvent::Ended(view) = &events[0] else { panic!("{events:?}") };
    assert_eq!(view.account.timed_out, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_left_out_is_named_and_not_asked() {
    let root = root();
    let installation = installation(root.path()).await;
    let workflow = Workflow { excluded: vec!["small".to_owned()], ..baseline(60) };
    let outcome = evaluate(&installation, workflow).await;
    let account = outcome.view.account;
    assert_eq!((account.asked, account.answered, account.waived), (2, 1, 1));
    assert_eq!((outcome.view.endpoint_count, outcome.view.state.as_str()), (1, "completed"));
    for excluded in [vec!["small".to_owned(), "pcs-agent".to_owned()], vec!["nobody".to_owned()]] {
        let events = installation.ask(Ask::Evaluate(Workflow { excluded, ..baseline(60) })).await;
        assert!(matches!(events.last(), Some(OperatorEvent::Fault(_))), "{events:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_workflow_that_is_cancelled_ends_and_tells_whoever_is_at_it() {
    let installation = Installation::complete().await;
    let mut silent = installation.scripted(proto::capability::ComponentType::PostureCollectionService, "silent").await;
    let workflow = Workflow { targets: vec!["silent".to_owned()], expires_seconds: 3_600, ..baseline(300) };
    let script = async {
        let asked = tokio::time::timeout(system_tests::PATIENCE, silent.inbox.recv()).await.unwrap().unwrap();
        let transaction = asked.envelope().transaction;
        let events = installation.ask(Ask::Cancel { transaction }).await;
        assert!(matches!(&events[0], OperatorEvent::Notice(_)), "{events:?}");
        let told = eventually("it is told to stop", async || {
            let message = silent.inbox.recv().await?;
            (message.envelope().kind == "cancel-request").then_some(message)
        });
        assert_eq!(told.await.envelope().transaction, transaction);
        transaction
    };
    let (events, transaction) = tokio::join!(installation.ask(Ask::Evaluate(workflow)), script);
    let view = events.iter().find_map(|event| match event {
        OperatorEvent::Ended(view) => Some(view),
        _ => None,
    });
    let view = view.unwrap_or_else(|| panic!("{events:?}"));
    assert_eq!((view.state.as_str(), view.account.timed_out), ("cancelled", 1));
    assert!(view.responders.iter().all(|responder| responder.operation == "collect"));
    let again = installation.ask(Ask::Cancel { transaction }).await;
    assert!(matches!(&again[0], OperatorEvent::Fault(fault) if fault.message.contains("ended")), "{again:?}");
}
