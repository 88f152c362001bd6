//! A whole installation on the real Mosquitto, by configuration alone: members are there, and at the orchestrator's own broker
//! components only join. Where Mosquitto is not installed, the tests say so and count as skipped; CI installs it.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use proto::operator::{Ask, OperatorEvent, RosterEntry, SystemStatus};
use system_tests::endpoint::{SHADOW_RULE, root, set_mode};
use system_tests::mosquitto::Mosquitto;
use system_tests::processes::{Process, Processes, free_port};
use system_tests::{PATIENCE, baseline, eventually, eventually_within, verdicts};
use tokio::sync::Mutex;

/// An installation, and the broker that it is on.
struct Site {
    processes: Processes,
    mosquitto: Arc<Mutex<Mosquitto>>,
    port: u16,
    directory: PathBuf,
}

impl Site {
    async fn start(root: &std::path::Path) -> Option<Self> {
        let data = tempfile::tempdir().unwrap();
        let (port, directory) = (free_port(), data.path().join("broker"));
        let (address, kept) = (format!("127.0.0.1:{port}"), directory.display().to_string());
        let words = ["--external-broker", &address, "--external-broker-config", &kept];
        let starts = async {
            let mosquitto = Arc::new(Mutex::new(Mosquitto::over(directory.clone(), port).await?));
            // As whoever runs a broker does: what is written for it is read.
            tokio::spawn(read_again(Arc::downgrade(&mosquitto), directory.join("acl")));
            Some(mosquitto)
        };
        if !Mosquitto::is_installed() {
            return None;
        }
        let (processes, mosquitto) = tokio::join!(Processes::start_with(data, root, &words), starts);
        Some(Self { processes, mosquitto: mosquitto?, port, directory })
    }

    async fn shadow_verdict(&self) -> String {
        let events = self.processes.ask(Ask::Evaluate(baseline(60))).await;
        let found = verdicts(&events).into_iter().find(|(rule, _)| rule.ends_with(SHADOW_RULE));
        found.unwrap_or_else(|| panic!("{events:?}")).1
    }

    /// The status says that the broker is gone, and why.
    async fn is_gone(&self) {
        eventually("the status says that the broker is gone", async || {
            let link = self.status().await.external_broker?;
            (!link.is_connected && link.reason.is_some()).then_some(())
        })
        .await;
    }

    async fn status(&self) -> SystemStatus {
        match self.processes.ask(Ask::Status).await.into_iter().next() {
            Some(OperatorEvent::Status(status)) => *status,
            other => panic!("{other:?}"),
        }
    }
}

async fn read_again(mosquitto: std::sync::Weak<Mutex<Mosquitto>>, acl: PathBuf) {
    let mut known = std::fs::read(&acl).ok();
    while let Some(mosquitto) = mosquitto.upgrade() {
        let now = std::fs::read(&acl).ok();
        if now != known {
            mosquitto.lock().await.read_again();
            known = now;
        }
        drop(mosquitto);
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_installation_joins_and_evaluates_and_outlives_its_broker_and_its_orchestrator() {
    let root = root();
    let Some(mut site) = Site::start(root.path()).await else { return };
    let link = site.status().await.external_broker.unwrap();
    assert!(link.is_connected && link.address == format!("127.0.0.1:{}", site.port), "{link:?}");
    assert_eq!(site.shadow_verdict().await, "pass");
    // Nobody but the orchestrator is at its own broker.
    let status = site.status().await;
    let connected = status.broker_counts.iter().find(|count| count.name == "connected").unwrap();
    assert_eq!(connected.value, 1);

    // The broker dies while an evaluation is under way, and comes back: it ends with its verdicts.
    set_mode(root.path(), 0o644);
    let verdict = {
        let evaluating = site.shadow_verdict();
        let fault = async {
            eventually("a workflow is open", async || {
                let OperatorEvent::Transactions(all) =
                    site.processes.ask(Ask::Transactions).await.into_iter().next()?
                else {
                    return None;
                };
                all.iter().any(|one| one.ended.is_none()).then_some(())
            })
            .await;
            site.mosquitto.lock().await.kill();
            site.is_gone().await;
            *site.mosquitto.lock().await = Mosquitto::over(site.directory.clone(), site.port).await.unwrap();
        };
        tokio::join!(evaluating, fault).0
    };
    assert_eq!(verdict, "fail");

    // Without its broker an orchestrator says so, and goes on when it is there.
    site.mosquitto.lock().await.kill();
    site.is_gone().await;
    site.processes.orchestrator.restart();
    *site.mosquitto.lock().await = Mosquitto::over(site.directory.clone(), site.port).await.unwrap();
    site.processes.wait_for_active().await;
    set_mode(root.path(), 0o640);
    assert_eq!(site.shadow_verdict().await, "pass");
    let data = site.processes.orchestrator_data();
    site.processes.muster(&["verify", "--data", data.to_str().unwrap()]);
    site.processes.muster(&["audit", "verify", "--data", data.to_str().unwrap()]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_was_put_out_ends_and_whoever_joins_later_has_its_rules() {
    let root = root();
    let Some(site) = Site::start(root.path()).await else { return };
    let evaluator =
        site.processes.roster().await.into_iter().find(|entry| entry.name == "evaluator").unwrap().component;
    let rule = format!("user {evaluator}\ntopic deny #");
    let acl = || std::fs::read_to_string(site.directory.join("acl")).unwrap();
    let own = format!("user {evaluator}\ntopic ");
    eventually("it has rules of its own", async || acl().contains(&own).then_some(())).await;
    assert!(!acl().contains(&rule));
    let dismiss = Ask::Dismiss { component: evaluator, is_ban: false, reason: "tried out".to_owned() };
    site.processes.ask(dismiss).await;
    eventually("it is denied everything", async || acl().contains(&rule).then_some(())).await;
    // Another one does its work.
    let _another = site.processes.add_evaluator("another").await;
    eventually("the new evaluator is active", async || {
        let roster = site.processes.roster().await;
        let is_active = |entry: &RosterEntry| {
            entry.name == "evaluator" && entry.component != evaluator && entry.state.as_str() == "active"
        };
        roster.iter().any(is_active).then_some(())
    })
    .await;
    assert_eq!(site.shadow_verdict().await, "pass");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_installation_moves_to_another_broker_and_nobody_joins_again() {
    if !Mosquitto::is_installed() {
        return;
    }
    let root = root();
    let mut processes = Processes::start(root.path()).await;
    let before = processes.roster().await;
    let (port, directory) = (free_port(), processes.data.path().join("broker"));
    processes.orchestrator.kill();
    let mut words = processes.orchestrator.words().to_vec();
    let (address, kept) = (format!("127.0.0.1:{port}"), directory.display().to_string());
    words.extend(["--external-broker", &address, "--external-broker-config", &kept].map(str::to_owned));
    processes.orchestrator = Process::start(words);
    let mosquitto = Mosquitto::over(directory.clone(), port).await.unwrap();
    let mosquitto = Arc::new(Mutex::new(mosquitto));
    tokio::spawn(read_again(Arc::downgrade(&mosquitto), directory.join("acl")));
    processes.wait_for_active().await;
    let site = Site { processes, mosquitto, port, directory };
    assert_eq!(site.shadow_verdict().await, "pass");
    let ids = |roster: &[RosterEntry]| {
        let mut ids: Vec<String> = roster.iter().map(|entry| entry.component.to_string()).collect();
        ids.sort();
        ids
    };
    assert_eq!(ids(&site.processes.roster().await), ids(&before));

    // And back: whose broker has been away for a minute asks where members are.
    let Site { mut processes, mosquitto, .. } = site;
    let mut words = processes.orchestrator.words().to_vec();
    words.truncate(words.len() - 4);
    mosquitto.lock().await.kill();
    processes.orchestrator.kill();
    processes.orchestrator = Process::start(words);
    let collector = processes.data.path().join("pcs-agent/identity/membership.json");
    eventually_within(3 * PATIENCE, "the collector knows where members are", async || {
        (!std::fs::read_to_string(&collector).ok()?.contains("broker")).then_some(())
    })
    .await;
    let shadow = async || {
        let events = processes.ask(Ask::Evaluate(baseline(60))).await;
        verdicts(&events)
            .into_iter()
            .find(|(rule, _)| rule.ends_with(SHADOW_RULE))
            .filter(|(_, verdict)| verdict == "pass")
    };
    eventually_within(3 * PATIENCE, "an evaluation is done", shadow).await;
    assert_eq!(ids(&processes.roster().await), ids(&before));
}
