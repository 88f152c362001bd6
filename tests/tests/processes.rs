//! The four services as separate processes over TCP, and what is left after `kill -9`.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test fails by panicking, and says what it skips")]

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use proto::message::{ResultsRequest, ResultsSelection};
use proto::operator::{Ask, OperatorEvent, TransactionView};
use repository::store::Store as _;
use repository::store::sqlite::SqliteStore;
use system_tests::processes::{Process, Processes, binaries};
use system_tests::{BASELINE, assess, baseline, baseline_verdicts, is_completed, verdicts};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn separate_processes_give_the_same_verdicts_and_stay_small() {
    let processes = Processes::start(Path::new("/")).await;
    let events = processes.ask(Ask::Evaluate(baseline(60))).await;
    assert!(is_completed(&events), "{events:?}");
    assert_eq!(verdicts(&events), baseline_verdicts());
    for (name, process) in [
        ("orchestrator", &processes.orchestrator),
        ("repository", &processes.repository),
        ("evaluator", &processes.evaluator),
        ("collector", &processes.collector),
    ] {
        let (now, most) = process.memory_kib();
        println!("{name}: {now} KiB, at most {most} KiB");
        assert!(most > 0 && most < 300 * 1024, "{name} holds {most} KiB");
    }
}

/// Evaluates while `kill -9` hits a process in the middle, then checks that everything ended, that the
/// verdicts are right, and that nothing was counted twice. A process that is held when the workflow
/// begins cannot have done its part before it dies.
async fn survives(victim: fn(&mut Processes) -> &mut Process, is_held: bool) {
    let mut processes = Processes::start(Path::new("/")).await;
    let before = processes.ask(Ask::Evaluate(baseline(120))).await;
    assert!(is_completed(&before));
    if is_held {
        victim(&mut processes).hold();
    }
    let directory = processes.orchestrator_data();
    let running = tokio::spawn(async move { system_tests::ask(&directory, Ask::Evaluate(baseline(120)), &[]).await });
    // In the middle: the workflow has begun, and its collector has been asked.
    system_tests::eventually("the workflow is open", async || {
        let events = system_tests::ask(&processes.orchestrator_data(), Ask::Transactions, &[]).await.ok()?;
        let OperatorEvent::Transactions(views) = events.into_iter().next()? else { return None };
        (views.len() == 2).then_some(())
    })
    .await;
    victim(&mut processes).restart();
    let _ = running.await;
    processes.wait_for_active().await;
    system_tests::eventually("every workflow has ended", async || {
        let events = system_tests::ask(&processes.orchestrator_data(), Ask::Transactions, &[]).await.ok()?;
        let OperatorEvent::Transactions(views) = events.into_iter().next()? else { return None };
        (views.len() == 2 && views.iter().all(|view| view.state == "completed")).then_some(())
    })
    .await;
    let after = processes.ask(Ask::Evaluate(baseline(120))).await;
    assert!(is_completed(&after), "{after:?}");
    assert_eq!(verdicts(&after), baseline_verdicts());
    let events = processes.ask(Ask::Transactions).await;
    let OperatorEvent::Transactions(views) = &events[0] else { panic!("{events:?}") };
    assert_eq!(views.len(), 3);
    let database = processes.data.path().join("repository/repository.db");
    for process in
        [&mut processes.collector, &mut processes.evaluator, &mut processes.repository, &mut processes.orchestrator]
    {
        process.kill();
    }
    let store = SqliteStore::open(&database).await.unwrap();
    let counts = store.counts().await.unwrap();
    // Three evaluations of 62 rules, each result once; one current observation an object.
    for view in views {
        let selection = ResultsSelection::Transaction(view.transaction);
        let request = ResultsRequest { selection, verdicts: Vec::new(), only_summaries: false, after: None };
        let page = store.results(&request).await.unwrap();
        let rules: BTreeSet<&str> = page.results[0].iter().map(|result| result.rule.as_str()).collect();
        assert_eq!((page.results.len(), page.results[0].len(), rules.len()), (1, 62, 62));
    }
    let objects = scap::compile::compile(&scap::datastream::read(BASELINE.to_vec()).unwrap(), None)
        .unwrap()
        .collection
        .report
        .len();
    assert_eq!(counts.current_count, objects as u64);
    assert_eq!(counts.change_count, counts.past_count, "what was is followed by what is, once");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_collector_is_asked_again() {
    survives(|processes| &mut processes.collector, true).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_repository_loses_nothing_that_it_acknowledged() {
    survives(|processes| &mut processes.repository, true).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_evaluator_is_asked_again() {
    survives(|processes| &mut processes.evaluator, true).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_orchestrator_goes_on_with_its_workflows() {
    survives(|processes| &mut processes.orchestrator, false).await;
}

/// An evaluator has an evaluation and is held; another one joins. It has to do the work, whether the first one is killed or
/// comes back later and does it too.
async fn work_moves(is_killed: bool) {
    let mut processes = Processes::start(Path::new("/")).await;
    let before = processes.ask(Ask::Evaluate(baseline(120))).await;
    assert!(is_completed(&before), "{before:?}");
    processes.evaluator.hold();
    let directory = processes.orchestrator_data();
    let running = tokio::spawn(async move { system_tests::ask(&directory, Ask::Evaluate(baseline(120)), &[]).await });
    let directory = processes.orchestrator_data();
    let evaluations = async || {
        let events = system_tests::ask(&directory, Ask::Transactions, &[]).await.ok()?;
        let OperatorEvent::Transactions(views) = events.into_iter().next()? else { return None };
        let responders = views.into_iter().filter(|view| view.ended.is_none()).flat_map(|view| view.responders);
        Some(responders.filter(|responder| responder.operation == "evaluate").collect::<Vec<_>>())
    };
    let first =
        system_tests::eventually("the evaluator is asked", async || evaluations().await?.into_iter().next()).await;
    if is_killed {
        processes.evaluator.kill();
    }
    let mut other = processes.add_evaluator("other").await;
    let moved = system_tests::eventually("the work has moved", async || {
        let responders = evaluations().await?;
        // It may be over before it is looked at; then it is not in the list.
        (responders.is_empty() || responders.len() == 2).then_some(responders)
    })
    .await;
    assert!(moved.iter().all(|one| (one.component == first.component) == (one.state == "moved")), "{moved:?}");
    let events = running.await.unwrap().unwrap();
    assert!(is_completed(&events), "{events:?}");
    assert_eq!(verdicts(&events), baseline_verdicts());
    if !is_killed {
        // What it was asked is in its inbox still.
        processes.evaluator.go_on();
        processes.wait_for(4).await;
    }
    let after = processes.ask(Ask::Evaluate(baseline(120))).await;
    assert!(is_completed(&after), "{after:?}");
    let events = processes.ask(Ask::Transactions).await;
    let OperatorEvent::Transactions(views) = &events[0] else { panic!("{events:?}") };
    assert_eq!(views.len(), 3);
    assert!(views.iter().all(|view| view.state == "completed"), "{views:?}");
    let has_moved = |view: &&TransactionView| view.responders.iter().any(|responder| responder.state == "moved");
    assert_eq!(views.iter().filter(has_moved).count(), 1);
    let database = processes.data.path().join("repository/repository.db");
    for process in [
        &mut other,
        &mut processes.collector,
        &mut processes.evaluator,
        &mut processes.repository,
        &mut processes.orchestrator,
    ] {
        process.kill();
    }
    let store = SqliteStore::open(&database).await.unwrap();
    for view in views {
        let selection = ResultsSelection::Transaction(view.transaction);
        let request = ResultsRequest { selection, verdicts: Vec::new(), only_summaries: false, after: None };
        let page = store.results(&request).await.unwrap();
        let rules: BTreeSet<&str> = page.results[0].iter().map(|result| result.rule.as_str()).collect();
        assert_eq!((page.results.len(), page.results[0].len(), rules.len()), (1, 62, 62));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn work_of_an_evaluator_that_is_killed_goes_to_another() {
    work_moves(true).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn work_of_an_evaluator_that_is_held_goes_to_another_and_counts_once_when_both_do_it() {
    work_moves(false).await;
}

#[test]
fn the_main_job_ends_with_a_code_that_says_whether_everything_passed() {
    let data = tempfile::tempdir().unwrap();
    let run = |more: &[&str]| {
        Command::new(binaries().join("muster"))
            .args(["up", "--once", "--listen", "127.0.0.1:0", "--data"])
            .arg(data.path().join("muster"))
            .args(more)
            .output()
            .unwrap()
    };
    let expected = assess(BASELINE, None, "/");
    let is_met = expected.results.iter().all(|result| !matches!(result.verdict.as_str(), "fail" | "error" | "unknown"));
    let output = run(&[]);
    let text = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(if is_met { 0 } else { 2 }), "{text}");
    assert!(text.contains("score"), "{text}");
    // Again in the same directory, on another port.
    let again = run(&[]);
    assert_eq!(again.status.code(), output.status.code(), "{}", String::from_utf8_lossy(&again.stderr));
    assert_eq!(run(&["--policy", "nothing"]).status.code(), Some(1));
}

#[test]
fn a_port_in_use_and_a_directory_in_use_are_errors_with_a_remedy() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let data = tempfile::tempdir().unwrap();
    let run = |listen: &str, data: &Path| {
        let output = Command::new(binaries().join("muster"))
            .args(["up", "--once", "--listen", listen, "--data"])
            .arg(data)
            .output()
            .unwrap();
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let (code, text) = run(&taken.local_addr().unwrap().to_string(), data.path());
    assert!(code == Some(1) && text.contains("--listen"), "{text}");
    let held = service::data::DataDirectory::open(&data.path().join("orchestrator")).unwrap();
    let (code, text) = run("127.0.0.1:0", data.path());
    assert!(code == Some(1) && text.contains("in use"), "{text}");
    drop(held);
    let (code, text) = run("127.0.0.1:0", Path::new("/proc/nowhere"));
    assert!(code == Some(1) && text.contains("--data"), "{text}");
}

#[test]
fn wrong_words_are_answered_with_usage_and_code_64() {
    let output = Command::new(binaries().join("muster")).args(["evaluat"]).output().unwrap();
    assert_eq!(output.status.code(), Some(64));
    assert!(String::from_utf8_lossy(&output.stderr).contains("evaluate"));
    let output = Command::new(binaries().join("muster")).args(["status", "--data", "/nonexistent"]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("muster up"));
}
