//! A repository that keeps everything in PostgreSQL: over TLS, with a database that comes late, is killed, or is shared by two
//! repositories. Where PostgreSQL is not installed the tests say so and count as skipped; CI installs it.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use proto::capability::ComponentType;
use proto::id::ComponentId;
use proto::message::{ResultsRequest, ResultsSelection};
use proto::operator::{Ask, ComponentState, OperatorEvent, RosterEntry, Workflow};
use repository::retention::Retention;
use repository::store::Store as _;
use repository::store::postgres::PostgresStore;
use repository::{RunError, Settings};
use service::shutdown::{self, Stopper};
use system_tests::postgres::{PASSWORD, Postgres};
use system_tests::processes::{Process, Processes, binaries};
use system_tests::{BASELINE, Installation, PATIENCE, baseline, baseline_verdicts, eventually, is_completed, verdicts};
use tokio::task::JoinHandle;

/// A repository that runs beside the test.
struct Running {
    stopper: Stopper,
    run: JoinHandle<Result<(), RunError>>,
}

impl Running {
    async fn start(installation: &Installation, name: &str, url: &str) -> Self {
        let settings = Settings {
            data: installation.data.path().join(name),
            join_token: Some(installation.token(ComponentType::RepositoryInterface).await),
            broker: None,
            name: name.to_owned(),
            retention: Retention::default().into(),
            database: Some(url.parse().unwrap()),
        };
        let (stopper, stop) = shutdown::channel();
        Self { stopper, run: tokio::spawn(repository::run(settings, stop)) }
    }

    async fn stop(self) {
        self.stopper.stop();
        self.run.await.unwrap().unwrap();
    }
}

/// What was stored of these workflows is there, each verdict once, and of each object one observation holds.
async fn check_store(url: &str, workflows: &[Vec<OperatorEvent>]) {
    let store = PostgresStore::open(&url.parse().unwrap()).await.unwrap();
    for events in workflows {
        let transaction = events.iter().find_map(|event| match event {
            OperatorEvent::Started { transaction, .. } => Some(*transaction),
            _ => None,
        });
        let selection = ResultsSelection::Transaction(transaction.unwrap());
        let request = ResultsRequest { selection, verdicts: Vec::new(), only_summaries: false, after: None };
        let page = store.results(&request).await.unwrap();
        let rules: BTreeSet<&str> = page.results[0].iter().map(|result| result.rule.as_str()).collect();
        assert_eq!((page.results.len(), page.results[0].len(), rules.len()), (1, 62, 62));
    }
    let policy = scap::datastream::read(BASELINE.to_vec()).unwrap();
    let objects = scap::compile::compile(&policy, None).unwrap().collection.report.len();
    let counts = store.counts().await.unwrap();
    assert_eq!(counts.current_count, objects as u64);
    assert_eq!(counts.change_count, counts.past_count, "what was is followed by what is, once");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_comes_late_or_is_killed_loses_nothing() {
    let Some(postgres) = Postgres::prepared().await else { return };
    let installation = Installation::orchestrator().await;
    let url = postgres.url(PASSWORD);
    let mut repository = Running::start(&installation, "repository", &url).await;
    installation.add_evaluator().await;
    installation.add_collector("pcs-agent", Path::new("/")).await;
    // Nothing answers there yet: the repository waits, and does not end.
    let ended = tokio::time::timeout(Duration::from_millis(500), &mut repository.run).await;
    assert!(ended.is_err(), "{ended:?}");
    postgres.start().await;
    installation.wait_for_active(3).await;
    let before = installation.ask(Ask::Evaluate(baseline(60))).await;
    assert!(is_completed(&before), "{before:?}");
    assert_eq!(verdicts(&before), baseline_verdicts());

    // Killed before the reports come in, and back after they did.
    postgres.kill();
    let data = installation.data.path().join("orchestrator");
    let running = tokio::spawn(async move { system_tests::ask(&data, Ask::Evaluate(baseline(60)), &[]).await });
    eventually("the collector has sent its reports", async || {
        let outbox = installation.data.path().join("pcs-agent/outbox");
        std::fs::read_dir(outbox).ok()?.next().map(|_| ())
    })
    .await;
    postgres.start().await;
    let events = running.await.unwrap().unwrap();
    assert!(is_completed(&events), "{events:?}");
    assert_eq!(verdicts(&events), baseline_verdicts());

    repository.stop().await;
    check_store(&url, &[before, events]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_repositories_share_a_database_and_what_both_are_told_is_there_once() {
    let Some(postgres) = Postgres::prepared().await else { return };
    postgres.start().await;
    let installation = Installation::orchestrator().await;
    let url = postgres.url(PASSWORD);
    let one = Running::start(&installation, "one", &url).await;
    let other = Running::start(&installation, "other", &url).await;
    let name = async || PostgresStore::open(&url.parse().unwrap()).await.unwrap().name().await.unwrap();
    assert_eq!(name().await, name().await, "it is one database");
    installation.add_evaluator().await;
    installation.add_collector("pcs-agent", Path::new("/")).await;
    installation.wait_for_active(4).await;
    let expected = baseline_verdicts();
    let mut workflows = Vec::new();
    for _ in 0..2 {
        let events = installation.ask(Ask::Evaluate(baseline(60))).await;
        assert!(is_completed(&events), "{events:?}");
        assert_eq!(verdicts(&events), expected);
        workflows.push(events);
    }
    one.stop().await;
    other.stop().await;
    check_store(&url, &workflows).await;
}

/// The repositories that are active, the one that is asked first first.
async fn active_repositories(installation: &Installation) -> Vec<ComponentId> {
    let events = installation.ask(Ask::Roster).await;
    let OperatorEvent::Roster(roster) = &events[0] else { panic!("{events:?}") };
    let is_there = |entry: &&RosterEntry| {
        entry.component_type == ComponentType::RepositoryInterface && entry.state == ComponentState::Active
    };
    roster.iter().filter(is_there).map(|entry| entry.component).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_evaluation_asks_the_other_repository_where_the_first_was_killed_a_moment_ago() {
    let Some(postgres) = Postgres::prepared().await else { return };
    postgres.start().await;
    let installation = Installation::orchestrator().await;
    let url_file = installation.data.path().join("database");
    std::fs::write(&url_file, postgres.url(PASSWORD) + "\n").unwrap();
    let mut processes = Vec::new();
    for name in ["one", "other"] {
        let data = installation.data.path().join(name).display().to_string();
        let token = installation.token(ComponentType::RepositoryInterface).await;
        let file = url_file.display().to_string();
        let words = ["muster-repository", "--data", &data, "--join-token", &token, "--database-file", &file];
        processes.push(Process::start(words.map(str::to_owned).to_vec()));
        let count = processes.len();
        eventually("the repository is active", async || {
            (active_repositories(&installation).await.len() == count).then_some(())
        })
        .await;
    }
    installation.add_evaluator().await;
    installation.add_collector("pcs-agent", Path::new("/")).await;
    installation.wait_for_active(4).await;
    let expected = baseline_verdicts();
    let before = installation.ask(Ask::Evaluate(baseline(60))).await;
    assert!(is_completed(&before), "{before:?}");
    assert_eq!(verdicts(&before), expected);

    // Ids are in the order of joining, and the first that is active is named: the one that joined first is asked.
    processes[0].kill();
    assert_eq!(active_repositories(&installation).await.len(), 2, "nobody has noticed");
    let after = tokio::time::timeout(PATIENCE, installation.ask(Ask::Evaluate(baseline(60)))).await.unwrap();
    assert!(is_completed(&after), "{after:?}");
    assert_eq!(verdicts(&after), expected);
    processes[1].kill();
    check_store(&postgres.url(PASSWORD), &[before, after]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_password_or_a_server_that_cannot_be_believed_is_told_and_not_waited_for() {
    let Some(postgres) = Postgres::prepared().await else { return };
    postgres.start().await;
    let installation = Installation::orchestrator().await;
    let mut told = Vec::new();
    for (name, url) in [
        ("password", postgres.url("wrong")),
        // Anybody's certificate would do if it was not checked.
        ("certificate", postgres.url(PASSWORD).split("&sslrootcert").next().unwrap().to_owned()),
    ] {
        let running = Running::start(&installation, name, &url).await;
        let error = running.run.await.unwrap().unwrap_err();
        let text = service::report::Chain(&error).to_string();
        // Neither as it was given nor as it was meant.
        let is_secret = |secret: &str| text.contains(secret);
        assert!(text.contains("postgres://localhost:") && !is_secret(":wrong@") && !is_secret("horse"), "{text}");
        told.push(text);
    }
    assert!(told[0].contains("password authentication failed"), "{told:?}");
    assert!(told[1].contains("certificate"), "{told:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_in_a_file_is_moved_into_a_database_and_goes_on_there() {
    let Some(postgres) = Postgres::prepared().await else { return };
    postgres.start().await;
    let mut processes = Processes::start(Path::new("/")).await;
    let before = processes.ask(Ask::Evaluate(baseline(60))).await;
    assert!(is_completed(&before), "{before:?}");
    let url_file = processes.data.path().join("database");
    std::fs::write(&url_file, postgres.url(PASSWORD) + "\n").unwrap();
    let data = processes.data.path().join("repository");
    let migrate = || {
        let words = [OsStr::new("migrate"), data.as_os_str(), OsStr::new("--database-file"), url_file.as_os_str()];
        let output = Command::new(binaries().join("muster")).args(words).args(["-o", "json"]).output().unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        (output.status.code(), text(output.stdout), text(output.stderr))
    };
    // Not while it runs.
    let (code, _, told) = migrate();
    assert!(code == Some(1) && told.contains("in use"), "{told}");
    processes.repository.kill();
    let (code, told, error) = migrate();
    assert_eq!(code, Some(0), "{error}");
    let told: serde_json::Value = serde_json::from_str(&told).unwrap();
    assert_eq!(told["rows"]["decided"], 62, "{told}");
    // Only once: what is there is somebody's.
    let (code, _, again) = migrate();
    assert!(code == Some(1) && again.contains("already"), "{again}");

    // It is the same component, and goes on numbering where the file ended.
    let words = ["muster-repository", "--data", data.to_str().unwrap(), "--database-file", url_file.to_str().unwrap()];
    processes.repository = Process::start(words.map(str::to_owned).to_vec());
    processes.wait_for_active().await;
    let stored = processes.ask(Ask::Evaluate(Workflow { is_stored_only: true, ..baseline(60) })).await;
    assert!(is_completed(&stored), "{stored:?}");
    assert_eq!(verdicts(&stored), verdicts(&before));
    let after = processes.ask(Ask::Evaluate(baseline(60))).await;
    assert!(is_completed(&after), "{after:?}");
    assert_eq!(verdicts(&after), baseline_verdicts());
    processes.repository.kill();
    check_store(&postgres.url(PASSWORD), &[before, stored, after]).await;
}
