//! What earlier versions have kept is gone on from: nothing of it is lost, and nobody joins again.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::process::Command;

use proto::operator::Ask;
use proto::verdict::Verdict;
use system_tests::endpoint::{SHADOW_RULE, root, set_mode};
use system_tests::processes::{Processes, binaries};
use system_tests::{baseline, eventually, verdicts, workspace};

/// What stands in `tests/fixtures/earlier`.
const VERSIONS: [&str; 1] = ["2026-11-24"];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_installation_of_an_earlier_version_goes_on_with_all_that_it_kept() {
    for version in VERSIONS {
        let fixtures = workspace().join("tests/fixtures/earlier");
        let data = tempfile::tempdir().unwrap();
        let archive = fixtures.join(format!("{version}.tar.gz"));
        let unpacked = Command::new("tar").arg("-xzf").arg(archive).arg("-C").arg(data.path()).status().unwrap();
        assert!(unpacked.success());
        let kept = std::fs::read(fixtures.join(format!("{version}.json"))).unwrap();
        let kept: BTreeMap<String, Verdict> = serde_json::from_slice(&kept).unwrap();
        let identities = |of: &str| std::fs::read(data.path().join(of).join("identity/key.pem")).unwrap();
        let keys = ["orchestrator", "repository", "pes-evaluator", "pcs-agent"].map(identities);
        let root = root();
        let processes = Processes::over(data, root.path()).await;
        assert_eq!(processes.stored().await, kept, "{version}");
        let roster = processes.roster().await;
        assert_eq!(roster.len(), 3, "nobody has joined again: {roster:?}");
        let identities = |of: &str| std::fs::read(processes.data.path().join(of).join("identity/key.pem")).unwrap();
        assert_eq!(["orchestrator", "repository", "pes-evaluator", "pcs-agent"].map(identities), keys);
        let orchestrator = processes.orchestrator_data();
        let muster = |words: &[&str]| processes.muster(&[words, &["--data", orchestrator.to_str().unwrap()]].concat());
        // The roster says that the collector is active, and it may still be on its way.
        eventually("the collector has its schedule", async || {
            let data = orchestrator.to_str().unwrap();
            let listed = Command::new(binaries().join("muster")).args(["schedule", "list", "--data", data]).output();
            String::from_utf8_lossy(&listed.unwrap().stdout).contains("nightly").then_some(())
        })
        .await;
        muster(&["audit", "verify"]);

        // And it goes on: what is decided now rests on signatures to the end.
        set_mode(root.path(), 0o644);
        let events = processes.ask(Ask::Evaluate(baseline(60))).await;
        let (_, verdict) = verdicts(&events).into_iter().find(|(rule, _)| rule.ends_with(SHADOW_RULE)).unwrap();
        assert_eq!(verdict, "fail");
        let (rule, _) = kept.iter().find(|(rule, _)| rule.ends_with(SHADOW_RULE)).unwrap();
        assert_eq!(processes.stored().await[rule], Verdict::Fail);
        muster(&["verify", "--rule", rule]);
        muster(&["audit", "verify"]);
    }
}
