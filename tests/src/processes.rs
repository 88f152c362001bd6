//! The shipped binaries as processes of their own.

#![allow(clippy::print_stderr, reason = "what a process says belongs in the test's output")]

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Command, Stdio};
use std::sync::OnceLock;

use proto::capability::ComponentType;
use proto::message::ResultsSelection;
use proto::operator::{Ask, OperatorEvent, RosterEntry};
use proto::verdict::Verdict;

use crate::{ask, eventually, workspace};

/// Where the binaries are; they are built on first use.
pub fn binaries() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| {
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let mut building = Command::new(cargo);
        // What Cargo tells a test of the test's own package: `ring` is built anew where that differs, and all that uses it.
        let is_of_test = |name: &str| name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_");
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_str().is_some_and(is_of_test)) {
            building.env_remove(name);
        }
        let status = building
            .args(["build", "--quiet", "--workspace", "--bins"])
            // As this was built: a bench compares what is shipped.
            .args(if cfg!(debug_assertions) { &[][..] } else { &["--release"] })
            .current_dir(workspace())
            .status()
            .expect("cargo runs");
        assert!(status.success(), "the binaries cannot be built");
        // This test is in `target/PROFILE/deps`.
        let test = std::env::current_exe().expect("the test's own path");
        test.parent().and_then(Path::parent).expect("a target directory").to_owned()
    })
}

/// Shows what a process says, under its name.
pub(crate) fn echo(name: &str, stderr: ChildStderr) {
    let name = name.to_owned();
    std::thread::spawn(move || {
        for line in BufReader::new(stderr).lines().map_while(Result::ok) {
            eprintln!("[{name}] {line}");
        }
    });
}

/// What a process has around it.
#[derive(Debug, Clone, Default)]
pub struct Surroundings {
    /// Variables beside those of the test.
    pub variables: Vec<(&'static str, OsString)>,
    /// The file that all it says is added to; none: the test's output has its warnings.
    pub log: Option<PathBuf>,
}

/// A process that ends with the test.
#[derive(Debug)]
pub struct Process {
    child: Child,
    command: Vec<String>,
    surroundings: Surroundings,
}

impl Process {
    /// Starts a binary with its words.
    pub fn start(command: Vec<String>) -> Self {
        Self::start_in(command, Surroundings::default())
    }

    /// The same, with all that it says in a file.
    pub fn start_with_log(command: Vec<String>, log: &Path) -> Self {
        Self::start_in(command, Surroundings { log: Some(log.to_owned()), ..Surroundings::default() })
    }

    /// The same, in other surroundings, which stay when it is started again.
    pub fn start_in(command: Vec<String>, surroundings: Surroundings) -> Self {
        let (level, stderr) = match &surroundings.log {
            None => ("warn", Stdio::piped()),
            Some(log) => ("info", File::options().create(true).append(true).open(log).expect("a log file").into()),
        };
        let mut starting = Command::new(binaries().join(&command[0]));
        starting.args(&command[1..]).env("MUSTER_LOG", level);
        if surroundings.log.is_some() {
            starting.env("NO_COLOR", "1");
        }
        let variables = surroundings.variables.iter().map(|(name, value)| (name, value));
        let child = starting
            .envs(variables)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(stderr)
            .spawn()
            .expect("the binary starts");
        let mut process = Self { child, command, surroundings };
        if let Some(stderr) = process.child.stderr.take() {
            echo(&process.command[0], stderr);
        }
        process
    }

    /// The words that it was started with.
    pub fn words(&self) -> &[String] {
        &self.command
    }

    /// `kill -9`.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Whether it has ended by itself.
    pub fn has_ended(&mut self) -> bool {
        self.child.try_wait().is_ok_and(|status| status.is_some())
    }

    /// `kill -STOP`: it does nothing more until it is killed, or goes on.
    pub fn hold(&self) {
        self.signal(rustix::process::Signal::STOP);
    }

    /// `kill -CONT`: it goes on where it was held.
    pub fn go_on(&self) {
        self.signal(rustix::process::Signal::CONT);
    }

    /// `kill`: it is to end by itself.
    pub fn terminate(&self) {
        self.signal(rustix::process::Signal::TERM);
    }

    /// `kill -HUP`: it reads its configuration again.
    pub fn hang_up(&self) {
        self.signal(rustix::process::Signal::HUP);
    }

    fn signal(&self, signal: rustix::process::Signal) {
        let id = i32::try_from(self.child.id()).ok().and_then(rustix::process::Pid::from_raw).expect("a process id");
        rustix::process::kill_process(id, signal).expect("the process is there");
    }

    /// `kill -9`, and started again with the same words.
    pub fn restart(&mut self) {
        self.kill();
        *self = Self::start_in(self.command.clone(), self.surroundings.clone());
    }

    /// How many files and connections it has open.
    pub fn descriptor_count(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.child.id())).map(Iterator::count).unwrap_or_default()
    }

    /// The memory that it holds, in KiB, and the most that it held.
    pub fn memory_kib(&self) -> (u64, u64) {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap_or_default();
        let field = |name: &str| {
            status
                .lines()
                .find_map(|line| line.strip_prefix(name)?.split_whitespace().next()?.parse().ok())
                .unwrap_or_default()
        };
        (field("VmRSS:"), field("VmHWM:"))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A join token of an orchestrator that may still be starting.
pub(crate) async fn token(directory: &Path, component_type: ComponentType) -> String {
    eventually("the orchestrator makes a token", async || {
        let (labels, needs_approval) = (Vec::new(), false);
        let ask_token = Ask::TokenCreate { component_type, uses: 1, ttl_seconds: 600, labels, needs_approval };
        match ask(directory, ask_token, &[]).await.ok()?.into_iter().next()? {
            OperatorEvent::Token(token) => Some(token),
            _ => None,
        }
    })
    .await
}

/// Ports that no connection gets by itself: those that it does begin at 32,768 (ip(7), `ip_local_port_range`).
const PORTS: std::ops::Range<u16> = 20_000..32_000;

/// A port that is free, and stays so: whoever listens there has to come back to the same one.
pub fn free_port() -> u16 {
    loop {
        let (_, chance) = uuid::Uuid::new_v4().as_u64_pair();
        let port = PORTS.start + u16::try_from(chance % u64::from(PORTS.end - PORTS.start)).expect("a small number");
        if std::net::TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

/// The words that start a daemon with its directory below this one.
pub(crate) fn words(data: &Path, binary: &str, directory: &str, more: &[&str]) -> Vec<String> {
    let path = data.join(directory).display().to_string();
    [&[binary, "--data", &path], more].concat().into_iter().map(str::to_owned).collect()
}

/// An installation of four processes.
#[derive(Debug)]
pub struct Processes {
    /// Where its data is.
    pub data: tempfile::TempDir,
    /// `muster-orchestrator`.
    pub orchestrator: Process,
    /// `muster-repository`.
    pub repository: Process,
    /// `muster-pes-evaluator`.
    pub evaluator: Process,
    /// `muster-pcs-agent`.
    pub collector: Process,
}

impl Processes {
    /// Starts all four and waits until they are active.
    pub async fn start(root: &Path) -> Self {
        Self::start_with(tempfile::tempdir().expect("a temporary directory"), root, &[]).await
    }

    /// The same, in this directory, with more words for the orchestrator.
    pub async fn start_with(data: tempfile::TempDir, root: &Path, more: &[&str]) -> Self {
        let port = free_port();
        let words = |binary: &str, directory: &str, more: &[&str]| words(data.path(), binary, directory, more);
        let orchestrator = Process::start(words(
            "muster-orchestrator",
            "orchestrator",
            &[&["--listen", &format!("127.0.0.1:{port}")], more].concat(),
        ));
        let directory = data.path().join("orchestrator");
        let repository_token = token(&directory, ComponentType::RepositoryInterface).await;
        let evaluator_token = token(&directory, ComponentType::PostureEvaluationService).await;
        let collector_token = token(&directory, ComponentType::PostureCollectionService).await;
        let root = root.display().to_string();
        let processes = Self {
            repository: Process::start(words("muster-repository", "repository", &["--join-token", &repository_token])),
            evaluator: Process::start(words(
                "muster-pes-evaluator",
                "pes-evaluator",
                &["--join-token", &evaluator_token],
            )),
            collector: Process::start(words(
                "muster-pcs-agent",
                "pcs-agent",
                &["--join-token", &collector_token, "--root", &root],
            )),
            orchestrator,
            data,
        };
        processes.wait_for_active().await;
        processes
    }

    /// Starts all four with data directories that are there, and waits until they are active.
    pub async fn over(data: tempfile::TempDir, root: &Path) -> Self {
        let address = format!("127.0.0.1:{}", free_port());
        let start =
            |binary: &str, directory: &str, more: &[&str]| Process::start(words(data.path(), binary, directory, more));
        let broker = ["--broker", &address];
        let root = root.display().to_string();
        let processes = Self {
            orchestrator: start("muster-orchestrator", "orchestrator", &["--listen", &address]),
            repository: start("muster-repository", "repository", &broker),
            evaluator: start("muster-pes-evaluator", "pes-evaluator", &broker),
            collector: start("muster-pcs-agent", "pcs-agent", &[&broker[..], &["--root", &root]].concat()),
            data,
        };
        processes.wait_for_active().await;
        processes
    }

    /// Runs `muster`, which has to succeed; what it says.
    pub fn muster(&self, words: &[&str]) -> String {
        let output = Command::new(binaries().join("muster")).args(words).output().expect("muster runs");
        let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "muster {words:?}: {said}");
        said
    }

    /// The verdicts that are stored, as soon as a repository answers.
    pub async fn stored(&self) -> BTreeMap<String, Verdict> {
        eventually("the repository answers", async || {
            let mut rules = BTreeMap::new();
            for event in self.ask(Ask::Results { selection: ResultsSelection::Latest, verdicts: Vec::new() }).await {
                match event {
                    OperatorEvent::Results(page) => {
                        let results = page.results.into_iter().flatten();
                        rules.extend(results.map(|result| (result.rule.clone(), result.verdict)));
                    }
                    OperatorEvent::Fault(_) => return None,
                    _ => {}
                }
            }
            Some(rules)
        })
        .await
    }

    /// The roster.
    pub async fn roster(&self) -> Vec<RosterEntry> {
        match self.ask(Ask::Roster).await.into_iter().next() {
            Some(OperatorEvent::Roster(roster)) => roster,
            other => panic!("{other:?}"),
        }
    }

    /// The orchestrator's data directory.
    pub fn orchestrator_data(&self) -> PathBuf {
        self.data.path().join("orchestrator")
    }

    /// Waits until the three others are active and heard of late.
    pub async fn wait_for_active(&self) {
        self.wait_for(3).await;
    }

    /// The same, of so many.
    pub async fn wait_for(&self, count: usize) {
        eventually("the processes are active", async || {
            let events = ask(&self.orchestrator_data(), Ask::Roster, &[]).await.ok()?;
            let OperatorEvent::Roster(roster) = events.into_iter().next()? else { return None };
            let active = roster.iter().filter(|entry| entry.state.as_str() == "active").count();
            (active == count).then_some(())
        })
        .await;
    }

    /// Starts one more evaluator, with this data directory.
    pub async fn add_evaluator(&self, directory: &str) -> Process {
        let token = token(&self.orchestrator_data(), ComponentType::PostureEvaluationService).await;
        let data = self.data.path().join(directory).display().to_string();
        let words = ["muster-pes-evaluator", "--data", &data, "--join-token", &token];
        Process::start(words.map(str::to_owned).to_vec())
    }

    /// Asks, as long as nobody answers because a process is being started again.
    pub async fn ask(&self, question: Ask) -> Vec<OperatorEvent> {
        eventually("the orchestrator answers", async || {
            ask(&self.orchestrator_data(), question.clone(), &[]).await.ok()
        })
        .await
    }
}
