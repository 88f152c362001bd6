//! Two orchestrators on one PostgreSQL database, as processes: one is active, the other takes over when it dies, hangs or is
//! stopped, and nothing is lost or there twice. Where PostgreSQL is not installed the tests say so; CI installs it.

#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "a test fails by panicking, and says how long it took")]

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use proto::capability::ComponentType;
use proto::operator::{Ask, OperatorEvent, SystemStatus, Workflow};
use system_tests::postgres::{PASSWORD, Postgres};
use system_tests::processes::{Process, Processes, binaries, free_port};
use system_tests::{ask, baseline, baseline_verdicts, eventually, is_completed, verdicts};

const PASSPHRASE: &str = "a passphrase of a CA";

/// Two orchestrators, and one of each of the others.
struct Two {
    postgres: Postgres,
    data: tempfile::TempDir,
    orchestrators: [Process; 2],
    others: Vec<Process>,
}

async fn status(data: &Path) -> Option<SystemStatus> {
    match ask(data, Ask::Status, &[]).await.ok()?.into_iter().next()? {
        OperatorEvent::Status(status) => Some(*status),
        _ => None,
    }
}

impl Two {
    async fn start() -> Option<Self> {
        let postgres = Postgres::prepared().await?;
        postgres.start().await;
        let data = tempfile::tempdir().unwrap();
        let file = |name: &str, text: &str| {
            let path = data.path().join(name);
            std::fs::write(&path, text).unwrap();
            path.display().to_string()
        };
        let database = file("database", &postgres.url(PASSWORD));
        let passphrase = file("passphrase", PASSPHRASE);
        let ports = [free_port(), free_port()];
        let advertise = format!("127.0.0.1:{},127.0.0.1:{}", ports[0], ports[1]);
        let start = |number: usize| {
            let words = [
                "muster-orchestrator",
                "--data",
                &data.path().join(format!("orchestrator-{number}")).display().to_string(),
                "--listen",
                &format!("127.0.0.1:{}", ports[number]),
                "--advertise",
                &advertise,
                "--database-file",
                &database,
                "--ca-passphrase-file",
                &passphrase,
            ];
            Process::start(words.map(str::to_owned).to_vec())
        };
        let first = start(0);
        let directory = data.path().join("orchestrator-0");
        eventually("the first is active", async || status(&directory).await.filter(|status| !status.is_standby)).await;
        let mut two = Self { orchestrators: [first, start(1)], postgres, data, others: Vec::new() };
        two.is_standby(1).await;
        for (binary, component_type) in [
            ("muster-repository", ComponentType::RepositoryInterface),
            ("muster-pes-evaluator", ComponentType::PostureEvaluationService),
            ("muster-pcs-agent", ComponentType::PostureCollectionService),
        ] {
            let (labels, needs_approval) = (Vec::new(), false);
            let question = Ask::TokenCreate { component_type, uses: 1, ttl_seconds: 600, labels, needs_approval };
            let events = ask(&two.of(0), question, &[]).await.unwrap();
            let OperatorEvent::Token(token) = &events[0] else { panic!("{events:?}") };
            let directory = two.data.path().join(binary).display().to_string();
            let words = [binary, "--data", &directory, "--join-token", token];
            two.others.push(Process::start(words.map(str::to_owned).to_vec()));
        }
        two.everybody_is_with(0).await;
        Some(two)
    }

    /// The data directory of one of the orchestrators.
    fn of(&self, number: usize) -> PathBuf {
        self.data.path().join(format!("orchestrator-{number}"))
    }

    async fn is_standby(&self, number: usize) {
        eventually("it is a standby that knows who is active", async || {
            let status = status(&self.of(number)).await.filter(|status| status.is_standby)?;
            let active = status.orchestrators.iter().filter(|one| one.active_since.is_some()).count();
            (active == 1).then_some(())
        })
        .await;
    }

    async fn is_active(&self, number: usize) {
        eventually("it is active", async || status(&self.of(number)).await.filter(|status| !status.is_standby)).await;
    }

    async fn everybody_is_with(&self, number: usize) {
        let mut last = 0;
        eventually("everybody is with the active one", async || {
            let events = ask(&self.of(number), Ask::Roster, &[]).await.ok()?;
            let OperatorEvent::Roster(roster) = events.into_iter().next()? else { return None };
            last = roster.iter().filter(|entry| entry.state.as_str() == "active").count();
            (last == 3).then_some(())
        })
        .await;
    }

    /// What the operator's command says of an orchestrator.
    fn muster(&self, number: usize, words: &[&str]) -> (bool, String) {
        let output = Command::new(binaries().join("muster"))
            .args(["--data", &self.of(number).display().to_string()])
            .args(words)
            .output()
            .unwrap();
        let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        (output.status.success(), text)
    }

    /// An evaluation from the beginning to its end, with every verdict once.
    async fn evaluates(&self, number: usize) {
        let events = eventually("an evaluation is done", async || {
            let events = ask(&self.of(number), Ask::Evaluate(baseline(60)), &[]).await.ok()?;
            is_completed(&events).then_some(events)
        })
        .await;
        assert_eq!(verdicts(&events), baseline_verdicts());
    }

    /// The log of acts is whole, and every verdict rests on what was signed.
    fn everything_is_whole(&self, number: usize) {
        for words in [&["audit", "verify"][..], &["verify"]] {
            let (is_good, text) = self.muster(number, words);
            assert!(is_good, "{words:?}: {text}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_standby_takes_over_from_one_that_was_killed_and_what_was_open_ends_once() {
    let Some(mut two) = Two::start().await else { return };
    two.evaluates(0).await;
    // A standby says what it is, and answers nothing else.
    let (is_good, text) = two.muster(1, &["status"]);
    assert!(is_good && text.contains("standby") && text.contains("active since"), "{text}");
    let (is_good, text) = two.muster(1, &["roster"]);
    assert!(!is_good && text.contains("ask the active one"), "{text}");
    let (is_good, text) = two.muster(0, &["roster"]);
    assert!(is_good && text.contains("standby") && text.contains("(this)"), "{text}");

    // Killed with an evaluation open: an operator does not wait for it, but its workflow is there.
    let directory = two.of(0);
    let asking = tokio::spawn(async move { ask(&directory, Ask::Evaluate(baseline(120)), &[]).await });
    let open = eventually("a workflow is open", async || {
        let events = ask(&two.of(0), Ask::Transactions, &[]).await.ok()?;
        let OperatorEvent::Transactions(all) = events.into_iter().next()? else { return None };
        all.into_iter().find(|one| one.ended.is_none()).map(|one| one.transaction)
    })
    .await;
    two.orchestrators[0].kill();
    let killed = Instant::now();
    two.is_active(1).await;
    eprintln!("MEASURED: the standby was active {:.1} s after the kill", killed.elapsed().as_secs_f64());
    assert!(!asking.await.unwrap().is_ok_and(|events| is_completed(&events)), "nobody is left to say so");
    two.everybody_is_with(1).await;
    eprintln!("MEASURED: everybody was back {:.1} s after the kill", killed.elapsed().as_secs_f64());
    let events = ask(&two.of(1), Ask::Wait { transaction: open, is_all: true }, &[]).await.unwrap();
    let OperatorEvent::Ended(view) = &events[0] else { panic!("{events:?}") };
    assert!(view.ended.is_some() && view.fault.is_none(), "{view:?}");
    let (is_good, text) = two.muster(1, &["results", "-o", "json"]);
    assert!(is_good, "{text}");
    let results: serde_json::Value = serde_json::from_str(&text).unwrap();
    let rules: Vec<&str> =
        results["results"][0].as_array().unwrap().iter().map(|result| result["rule"].as_str().unwrap()).collect();
    let different: std::collections::BTreeSet<&&str> = rules.iter().collect();
    assert_eq!((rules.len(), different.len()), (62, 62));
    two.evaluates(1).await;
    two.everything_is_whole(1);

    // The one that was killed comes back as a standby, and takes over from one that is stopped.
    two.orchestrators[0].restart();
    two.is_standby(0).await;
    two.orchestrators[1].hold();
    let held = Instant::now();
    two.is_active(0).await;
    eprintln!("MEASURED: the standby was active {:.1} s after the other hung", held.elapsed().as_secs_f64());
    two.orchestrators[1].go_on();
    eventually("what was stopped finds out, and ends", async || two.orchestrators[1].has_ended().then_some(())).await;
    two.everybody_is_with(0).await;
    two.evaluates(0).await;
    two.orchestrators[1].restart();
    two.is_standby(1).await;

    // The database is killed and comes back.
    two.postgres.kill();
    two.postgres.start().await;
    eventually("one of them is active", async || {
        for number in 0..2 {
            if two.orchestrators[number].has_ended() {
                two.orchestrators[number].restart();
            }
        }
        let active =
            [status(&two.of(0)).await, status(&two.of(1)).await].map(|one| one.is_some_and(|one| !one.is_standby));
        active.contains(&true).then_some(())
    })
    .await;
    let active = usize::from(status(&two.of(0)).await.is_none_or(|one| one.is_standby));
    two.everybody_is_with(active).await;
    two.evaluates(active).await;
    two.everything_is_whole(active);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_installation_is_moved_into_a_database_with_its_ca_its_id_and_its_log() {
    let Some(postgres) = Postgres::prepared().await else { return };
    postgres.start().await;
    let mut processes = Processes::start(Path::new("/")).await;
    let before = processes.ask(Ask::Evaluate(baseline(60))).await;
    assert!(is_completed(&before), "{before:?}");
    let data = processes.orchestrator_data();
    let was = status(&data).await.unwrap();
    let file = |name: &str, text: &str| {
        let path = processes.data.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let (database, passphrase) = (file("database", &postgres.url(PASSWORD)), file("passphrase", PASSPHRASE));
    let directory = data.display().to_string();
    let muster = |words: &[&str]| {
        let output = Command::new(binaries().join("muster")).args(words).output().unwrap();
        let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        (output.status.success(), text)
    };
    let migrate = ["migrate", &directory, "--database-file", &database, "--ca-passphrase-file", &passphrase];
    // Not while it runs, and not without what the CA's keys are encrypted with.
    let (is_moved, text) = muster(&migrate);
    assert!(!is_moved && text.contains("in use"), "{text}");
    processes.orchestrator.kill();
    let (is_moved, text) = muster(&migrate[..4]);
    assert!(!is_moved && text.contains("ca-passphrase-file"), "{text}");
    let (is_moved, text) = muster(&migrate);
    assert!(is_moved && text.contains("ca_file"), "{text}");
    let (is_moved, text) = muster(&migrate);
    assert!(!is_moved && text.contains("only an empty one"), "{text}");

    // On another machine: nothing but the database and the passphrase.
    let elsewhere = processes.data.path().join("elsewhere");
    let words = [
        "muster-orchestrator",
        "--data",
        &elsewhere.display().to_string(),
        "--listen",
        &was.listen,
        "--database-file",
        &database,
        "--ca-passphrase-file",
        &passphrase,
    ];
    processes.orchestrator = Process::start(words.map(str::to_owned).to_vec());
    eventually("the others are back", async || {
        let events = ask(&elsewhere, Ask::Roster, &[]).await.ok()?;
        let OperatorEvent::Roster(roster) = events.into_iter().next()? else { return None };
        (roster.iter().filter(|entry| entry.state.as_str() == "active").count() == 3).then_some(())
    })
    .await;
    assert_eq!(status(&elsewhere).await.unwrap().orchestrator, was.orchestrator);
    for workflow in [Workflow { is_stored_only: true, ..baseline(60) }, baseline(60)] {
        let events = ask(&elsewhere, Ask::Evaluate(workflow), &[]).await.unwrap();
        assert!(is_completed(&events), "{events:?}");
        assert_eq!(verdicts(&events), baseline_verdicts());
    }
    let directory = elsewhere.display().to_string();
    for words in [&["--data", &directory, "audit", "verify"][..], &["--data", &directory, "verify"]] {
        let (is_whole, text) = muster(words);
        assert!(is_whole, "{words:?}: {text}");
    }
    // No key is in the database in the clear.
    let store = orchestrator::store::postgres::PostgresStore::open(&postgres.url(PASSWORD).parse().unwrap()).await;
    let files = store.unwrap().ca_files().await.unwrap();
    let is_plain = |bytes: &[u8]| String::from_utf8_lossy(bytes).contains("BEGIN PRIVATE KEY");
    assert!(files.iter().any(|(path, _)| path == "key.pem") && !files.iter().any(|(_, bytes)| is_plain(bytes)));
}
