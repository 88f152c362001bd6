//! What a task may cost an endpoint: what is cut off says so, and what depends on it is unknown, never pass.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;

use proto::budget::Budget;
use proto::capability::ComponentType;
use proto::message::PeriodicOperation;
use proto::operator::{Ask, AskOutcome, OperatorEvent, TransactionView, Workflow};
use proto::schedule::Schedule;
use proto::verdict::{RuleResult, Verdict};
use service::shutdown;
use system_tests::endpoint::{SHADOW_RULE, root};
use system_tests::processes::{Process, Processes};
use system_tests::{Installation, baseline, eventually, verdicts};

const USERS_RULE: &str = "_rule_user_ids_are_unique";

fn of(budget: &str) -> Workflow {
    Workflow { budget: budget.parse().unwrap(), ..baseline(60) }
}

async fn evaluate(installation: &Installation, workflow: Workflow) -> (TransactionView, BTreeMap<String, RuleResult>) {
    let (mut view, mut results) = (None, BTreeMap::new());
    for event in installation.ask(Ask::Evaluate(workflow)).await {
        match event {
            OperatorEvent::Ended(ended) => view = Some(*ended),
            OperatorEvent::Verdict { result, .. } => {
                results.insert(result.rule.clone(), *result);
            }
            OperatorEvent::Fault(fault) => panic!("{fault}"),
            _ => {}
        }
    }
    (view.unwrap(), results)
}

fn result<'of>(results: &'of BTreeMap<String, RuleResult>, rule: &str) -> &'of RuleResult {
    results.values().find(|result| result.rule.ends_with(rule)).unwrap()
}

/// What the collector said of how it ended.
fn said(view: &TransactionView) -> String {
    let collect = view.responders.iter().find(|responder| responder.operation == "collect").unwrap();
    assert_eq!(collect.state, "completed", "{collect:?}");
    collect.detail.clone().unwrap_or_default()
}

/// A machine with more accounts than a small budget may read.
fn large_root() -> tempfile::TempDir {
    let root = root();
    let accounts: Vec<String> =
        (1_000..1_200).map(|id| format!("u{id}:x:{id}:{id}:somebody:/home/u{id}:/bin/sh\n")).collect();
    std::fs::write(root.path().join("etc/passwd"), accounts.concat()).unwrap();
    root
}

async fn installation(budget: Budget) -> (Installation, tempfile::TempDir) {
    let root = large_root();
    let installation = Installation::orchestrator().await;
    installation.add_repository().await;
    installation.add_evaluator().await;
    let settings = pcs_agent::Settings {
        data: installation.data.path().join("small"),
        join_token: Some(installation.token(ComponentType::PostureCollectionService).await),
        broker: None,
        name: Some("small".to_owned()),
        root: root.path().to_owned(),
        tpm: None,
        budget: budget.into(),
        scripts: None,
    };
    let (keep, stop) = shutdown::channel();
    tokio::spawn(async move {
        let _keep = keep;
        pcs_agent::run(settings, stop).await.unwrap();
    });
    installation.wait_for_active(3).await;
    (installation, root)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_budget_cuts_off_is_unknown_and_says_why() {
    let (installation, _root) = installation(Budget::default()).await;
    let (view, results) = evaluate(&installation, baseline(60)).await;
    assert_eq!(said(&view), "");
    assert_eq!(result(&results, USERS_RULE).verdict, Verdict::Pass);
    assert_eq!(result(&results, SHADOW_RULE).verdict, Verdict::Pass);

    for (budget, reason) in [
        ("read=2K", "cut off: 2 KiB were read for one task"),
        ("memory=2K", "cut off: it takes more than the 2 KiB of memory for one task"),
    ] {
        let (view, results) = evaluate(&installation, of(budget)).await;
        assert!(said(&view).contains(reason), "{budget}: {}", said(&view));
        let cut = result(&results, USERS_RULE);
        assert_eq!(cut.verdict, Verdict::Unknown, "{budget}: {cut:?}");
        assert!(cut.reasons.iter().any(|said| said.contains(reason)), "{budget}: {cut:?}");
    }
    // What needs no file to be read is as before.
    let (_, results) = evaluate(&installation, of("read=2K")).await;
    assert_eq!(result(&results, SHADOW_RULE).verdict, Verdict::Pass);

    // One that is enough changes nothing, however slow it makes the task.
    let (view, results) = evaluate(&installation, of("cpu=50%,memory=64M,read=64M,time=5m")).await;
    assert_eq!((said(&view).as_str(), result(&results, USERS_RULE).verdict), ("", Verdict::Pass));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_collectors_own_budget_is_not_raised_by_who_asks() {
    let (installation, _root) = installation("read=2K".parse().unwrap()).await;
    for workflow in [baseline(60), of("read=1G")] {
        let (view, results) = evaluate(&installation, workflow).await;
        assert!(said(&view).contains("cut off: 2 KiB were read"), "{}", said(&view));
        assert_eq!(result(&results, USERS_RULE).verdict, Verdict::Unknown);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_schedule_has_its_budget_and_another_budget_is_another_schedule() {
    let (installation, _root) = installation(Budget::default()).await;
    let add = async |workflow: Workflow| {
        let ask = Ask::Periodic {
            operation: PeriodicOperation::Schedule,
            identifier: "nightly".to_owned(),
            schedule: Some(Schedule::every(3_600)),
            at_once: true,
            workflow,
        };
        let events = installation.ask(ask).await;
        let OperatorEvent::Collectors(answers) = &events[0] else { panic!("{events:?}") };
        answers[0].outcome
    };
    assert_eq!(add(of("read=2K")).await, AskOutcome::Done);
    assert_eq!(add(of("read=2K")).await, AskOutcome::Done);
    assert_eq!(add(baseline(60)).await, AskOutcome::Refused);
    let stored = || Workflow { is_stored_only: true, ..baseline(60) };
    eventually("its run is stored", async || {
        let (_, results) = evaluate(&installation, stored()).await;
        let cut = result(&results, USERS_RULE);
        cut.reasons.iter().any(|said| said.contains("cut off: 2 KiB were read")).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_budget_in_the_file_takes_effect_when_it_is_read_again_and_what_cannot_be_used_changes_nothing() {
    let root = large_root();
    let mut processes = Processes::start(root.path()).await;
    processes.collector.kill();
    let (file, log) = (processes.data.path().join("muster.toml"), processes.data.path().join("log"));
    let written = |keys: &str| {
        let (data, root) = (processes.data.path().join("pcs-agent"), root.path());
        let text = format!("[pcs-agent]\ndata = '{}'\nroot = '{}'\n{keys}", data.display(), root.display());
        std::fs::write(&file, text).unwrap();
    };
    written("");
    let words = ["muster-pcs-agent", "--config", file.to_str().unwrap()].map(str::to_owned);
    let collector = Process::start_with_log(words.to_vec(), &log);
    processes.wait_for_active().await;
    let verdict = async || {
        let events = processes.ask(Ask::Evaluate(baseline(60))).await;
        verdicts(&events).into_iter().find(|(rule, _)| rule.ends_with(USERS_RULE)).unwrap().1
    };
    let read_again = async |keys: &str, expected: &[&str]| {
        let before = std::fs::metadata(&log).unwrap().len();
        written(keys);
        collector.hang_up();
        eventually("the configuration was read again", async || {
            let text = std::fs::read(&log).unwrap();
            let text = String::from_utf8_lossy(&text[usize::try_from(before).unwrap()..]).into_owned();
            expected.iter().all(|said| text.contains(said)).then_some(())
        })
        .await;
    };
    assert_eq!(verdict().await, "pass");
    let now = "takes effect now keys=\"budget\"";
    read_again("budget = 'read=2K'\nname = 'x'\n", &["takes effect at the next start keys=\"name\"", now]).await;
    assert_eq!(verdict().await, "unknown");
    for wrong in ["budget = 'read=lots'\n", "budgets = 'read=1G'\n", "root = '/none/such'\n"] {
        read_again(wrong, &["everything stays as it was"]).await;
        assert_eq!(verdict().await, "unknown");
    }
    read_again("", &[now]).await;
    assert_eq!(verdict().await, "pass");
}
