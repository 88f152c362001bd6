//! Who comes with nothing but the documents: a collector in Python, which shares no code with Muster, joins, is asked,
//! and is believed (`examples/python`, docs/wire.md).

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::PathBuf;
use std::process::Command;

use proto::capability::ComponentType;
use proto::operator::{Ask, Workflow};
use system_tests::processes::Process;
use system_tests::{BASELINE, Installation, assess, baseline, eventually, verdicts, workspace};

/// Debian's, whose modules come from packages.
const PYTHON: &str = "/usr/bin/python3";

fn example(name: &str) -> PathBuf {
    workspace().join("examples/python").join(name)
}

/// Whether Python is here, with these modules. Where it is not, says that a test did nothing, past the capture of its
/// output; CI demands that it is.
fn has_python(modules: &str) -> bool {
    let is_there = Command::new(PYTHON).args(["-c", &format!("import {modules}")]).output();
    let is_there = is_there.is_ok_and(|output| output.status.success());
    if !is_there {
        use std::io::Write as _;
        assert!(std::env::var_os("MUSTER_REQUIRE_PYTHON").is_none(), "python3 is required here, with {modules}");
        let _ = writeln!(std::io::stderr(), "SKIPPED: no {PYTHON} with {modules}: nothing was tested with it");
    }
    is_there
}

async fn decides_by(protocol: &str) {
    if !has_python("paho.mqtt.client, cryptography") {
        return;
    }
    let installation = Installation::orchestrator().await;
    installation.add_repository().await;
    installation.add_evaluator().await;
    let token = installation.token(ComponentType::PostureCollectionService).await;
    let data = installation.data.path().join("python").display().to_string();
    let script = example("collector.py").display().to_string();
    let words = [PYTHON, &script, "--data", &data, "--name", "python", "--protocol", protocol, &token];
    let mut collector = Process::start(words.map(str::to_owned).to_vec());
    installation.wait_for_active(3).await;
    let own = assess(BASELINE, None, "/");
    let workflow = Workflow { targets: vec!["python".to_owned()], ..baseline(60) };
    // Once more after a kill: what it keeps is enough to come back.
    for round in 0..2 {
        let found = verdicts(&installation.ask(Ask::Evaluate(workflow.clone())).await);
        assert_eq!(found.len(), own.results.len(), "round {round}");
        let mut decided = 0;
        for result in &own.results {
            let verdict = &found[&result.rule];
            if matches!(verdict.as_str(), "pass" | "fail") {
                decided += 1;
                assert_eq!(*verdict, result.verdict.to_string(), "{}", result.rule);
            }
        }
        assert!(decided >= 5, "it decides only {decided} rules: {found:?}");
        if round == 0 {
            let before = roster_entry(&installation).await;
            collector.restart();
            eventually("it is back", async || {
                let now = roster_entry(&installation).await;
                (now.heard > before.heard && now.state.as_str() == "active").then_some(())
            })
            .await;
        }
    }
}

async fn roster_entry(installation: &Installation) -> proto::operator::RosterEntry {
    let roster = installation.roster().await;
    roster.into_iter().find(|entry| entry.name == "python").unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_collector_that_shares_no_code_decides_rules_as_ours_does() {
    decides_by("5").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_collector_over_mqtt_3_1_1_decides_rules_as_ours_does() {
    decides_by("3.1.1").await;
}

#[test]
fn the_vectors_and_the_schemas_hold_for_somebody_else() {
    if !has_python("cryptography, jsonschema") {
        return;
    }
    let checked = Command::new(PYTHON).arg(example("check_vectors.py")).output().unwrap();
    let said = String::from_utf8_lossy(&checked.stdout);
    assert!(checked.status.success(), "{said}{}", String::from_utf8_lossy(&checked.stderr));
    assert!(said.lines().count() > 40 && said.lines().all(|line| line.starts_with("ok ")), "{said}");
}
