//! The log of acts: who did what, through the public interface, and that nobody takes anything out of it.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test fails by panicking, and says what it skips")]

use std::process::Command;

use proto::capability::ComponentType;
use proto::message::AuditCheckpoint;
use proto::operator::{Ask, OperatorEvent};
use service::audit::{Actor, Entry, Line, hash_of, verify};
use service::identity::certificate_der;
use system_tests::processes::binaries;
use system_tests::{Installation, baseline, eventually};

async fn lines(installation: &Installation) -> Vec<Line> {
    let mut lines = Vec::new();
    for event in installation.ask(Ask::Audit).await {
        match event {
            OperatorEvent::Audit(more) => lines.extend(more.iter().map(|line| serde_json::from_str(line).unwrap())),
            OperatorEvent::Done => {}
            other => panic!("{other:?}"),
        }
    }
    lines
}

fn entries(lines: &[Line]) -> Vec<Entry> {
    let text =
        |line: &Line| if let Line::Entry(text) = line { Some(serde_json::from_str(text).unwrap()) } else { None };
    lines.iter().filter_map(text).collect()
}

fn ca_of(installation: &Installation) -> Vec<u8> {
    let file = installation.data.path().join("orchestrator/ca/ca.pem");
    certificate_der(&std::fs::read_to_string(file).unwrap()).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_act_is_in_the_log_with_who_did_it_and_what_it_changed() {
    let installation = Installation::orchestrator().await;
    installation.add_repository().await;
    let member = installation.scripted(ComponentType::PostureCollectionService, "collector").await;
    let component = member.bus.own();
    installation.ask(Ask::Collect(baseline(1))).await;
    installation.ask(Ask::Dismiss { component, is_ban: false, reason: "sold".to_owned() }).await;
    let log = entries(&lines(&installation).await);
    let acts: Vec<&str> = log.iter().map(|entry| entry.act.as_str()).collect();
    for act in ["import-policy", "create-token", "join", "issue-certificate", "bind-endpoints", "collect", "evict"] {
        assert!(acts.contains(&act), "{act} is missing: {acts:?}");
    }
    let evicted = log.iter().find(|entry| entry.act == "evict").unwrap();
    assert!(matches!(evicted.actor, Actor::Operator(_)), "{:?}", evicted.actor);
    assert_eq!((evicted.subject.as_str(), evicted.detail.as_str()), (component.to_string().as_str(), "sold"));
    assert!(evicted.before.is_some() && evicted.after.is_some() && evicted.before != evicted.after);
    // What was stored after one act is what was there before the next on the same component.
    let joined = log.iter().find(|entry| entry.act == "join" && entry.subject == evicted.subject).unwrap();
    let certified =
        log.iter().find(|entry| entry.act == "issue-certificate" && entry.subject == evicted.subject).unwrap();
    assert_eq!((&joined.before, &joined.after), (&None, &certified.before));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_that_lost_its_end_is_found_out_by_the_repository() {
    let installation = Installation::orchestrator().await;
    installation.add_repository().await;
    installation.wait_for_active(1).await;
    installation.token(ComponentType::PostureCollectionService).await;
    let ca_der = ca_of(&installation);
    let log = eventually("a repository remembers the last entry", async || {
        let log = lines(&installation).await;
        let count = entries(&log).len() as u64;
        let is_last = |line: &Line| matches!(line, Line::Witness(AuditCheckpoint { number, .. }) if *number == count);
        log.iter().any(is_last).then_some(log)
    })
    .await;
    verify(&log, std::slice::from_ref(&ca_der)).unwrap();
    // Cut off with all signatures that would tell of it.
    let count = entries(&log).len();
    let mut kept = 0;
    let cut: Vec<Line> = log
        .into_iter()
        .filter(|line| match line {
            Line::Entry(_) => {
                kept += 1;
                kept < count
            }
            Line::Checkpoint(sealed) => !sealed.contains(&format!("\"number\":{count}")),
            Line::Witness(_) => true,
        })
        .collect();
    let told = verify(&cut, std::slice::from_ref(&ca_der)).unwrap_err().to_string();
    assert!(told.contains("cut off") && told.contains("a repository was told"), "{told}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_log_goes_on_after_a_restart_and_the_command_checks_it() {
    let installation = Installation::orchestrator().await;
    installation.token(ComponentType::PostureCollectionService).await;
    let before = entries(&lines(&installation).await);
    let data = installation.stop().await;
    let installation = Installation::orchestrator_in(data, "127.0.0.1:0").await;
    installation.token(ComponentType::PostureCollectionService).await;
    let log = lines(&installation).await;
    let after = entries(&log);
    assert_eq!(after.len(), before.len() + 1);
    let muster = |words: &[&str]| {
        let output = Command::new(binaries().join("muster"))
            .args(words)
            .arg("--data")
            .arg(installation.data.path().join("orchestrator"))
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        (output.status.code(), text)
    };
    let (code, text) = muster(&["audit", "verify"]);
    assert!(code == Some(0) && text.contains(&format!("{} entries, whole and in order", after.len())), "{text}");
    let (code, text) = muster(&["audit", "log", "--limit", "1"]);
    assert!(code == Some(0) && text.contains("create-token") && !text.contains("import-policy"), "{text}");
    let (_, export) = muster(&["audit", "export"]);
    let file = installation.data.path().join("log.jsonl");
    std::fs::write(&file, &export).unwrap();
    let file = file.to_str().unwrap();
    assert_eq!(muster(&["audit", "verify", file]).0, Some(0));
    let Some(Line::Entry(first)) = log.iter().find(|line| matches!(line, Line::Entry(_))) else { panic!("{log:?}") };
    assert_eq!(muster(&["audit", "verify", file, "--has", hash_of(first).as_str()]).0, Some(0));
    let (code, text) = muster(&["audit", "verify", file, "--has", "00"]);
    assert!(code == Some(1) && text.contains("no entry has the hash 00"), "{text}");
    std::fs::write(file, export.replacen("import-policy", "remove-policy", 1)).unwrap();
    let (code, text) = muster(&["audit", "verify", file]);
    assert!(code == Some(1) && text.contains("entry 2 does not follow"), "{text}");
    std::fs::write(file, "junk").unwrap();
    let (code, text) = muster(&["audit", "verify", file]);
    assert!(code == Some(1) && text.contains("line 1"), "{text}");
}
