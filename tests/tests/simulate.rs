//! `muster simulate`: collectors that are not there, through the real protocol.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;

use proto::capability::ComponentType;
use proto::operator::{Ask, OperatorEvent, Workflow};
use system_tests::processes::{Process, binaries};
use system_tests::{Installation, baseline};

const COLLECTORS: usize = 12;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn simulated_collectors_join_report_and_are_accounted_for_as_real_ones_are() {
    let installation = Installation::complete().await;
    let mut words = vec!["muster".to_owned(), "simulate".to_owned()];
    let scope = orchestrator::TokenScope {
        uses: u32::try_from(COLLECTORS).unwrap(),
        ..orchestrator::TokenScope::one(ComponentType::PostureCollectionService, 600)
    };
    let token = installation.handle.create_token(scope).await.unwrap();
    let count = COLLECTORS.to_string();
    let keep = installation.data.path().join("simulated").display().to_string();
    std::fs::create_dir(&keep).unwrap();
    let more = ["--collectors", &count, "--join-token", &token, "--variety", "30", "--keep", &keep];
    words.extend(more.map(str::to_owned));
    assert!(binaries().join("muster").exists());
    let simulated = Process::start(words);
    installation.wait_for_active(3 + COLLECTORS as u64).await;
    let events = installation.ask(Ask::Evaluate(baseline(120))).await;
    let view = events.iter().find_map(|event| match event {
        OperatorEvent::Ended(view) => Some(view),
        _ => None,
    });
    let account = view.unwrap_or_else(|| panic!("{events:?}")).account;
    assert_eq!((account.asked, account.answered), (1 + COLLECTORS as u64, 1 + COLLECTORS as u64), "{account:?}");
    let mut verdicts: BTreeMap<_, Vec<(String, String)>> = BTreeMap::new();
    for event in &events {
        if let OperatorEvent::Verdict { endpoint, result } = event {
            verdicts.entry(*endpoint).or_default().push((result.rule.clone(), result.verdict.to_string()));
        }
    }
    assert_eq!(verdicts.len(), 1 + COLLECTORS);
    let kinds: std::collections::BTreeSet<_> = verdicts.into_values().collect();
    assert!(kinds.len() > 1, "they are not all alike");
    // They go, and are asked no more: nobody answers for them.
    drop(simulated);
    let workflow = Workflow { targets: vec!["sim-00000".to_owned()], ..baseline(2) };
    let events = installation.ask(Ask::Collect(workflow)).await;
    let is_timed_out =
        |event: &OperatorEvent| matches!(event, OperatorEvent::Ended(view) if view.account.timed_out == 1);
    assert!(events.iter().any(is_timed_out), "{events:?}");
}
