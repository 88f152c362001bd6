//! Helpers of the system tests: an installation in one process, scripted components, the shipped
//! binaries as separate processes, attackers, and waiting without sleeping.

use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;
use orchestrator::{Handle, TokenScope};
use oval::resolve::Resolver;
use pcs_agent::host::Host;
use pcs_agent::probe::Probes;
use proto::capability::ComponentType;
use proto::message::{AdvertisedEndpoint, PolicyDescription};
use proto::observation::EndpointFacts;
use proto::operator::{Ask, OperatorEvent, OperatorRequest, Workflow};
use scap::compile::Compiled;
use scap::evaluate::{Evaluation, Evidence, Observed, evaluate};
use service::chain::Link;
use service::member::{self, Member, MemberSettings};
use service::shutdown::{self, Stopper};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::oneshot;

pub mod attack;
pub mod disk;
pub mod endpoint;
pub mod faults;
pub mod generate;
pub mod generate_xccdf;
pub mod https;
pub mod hung;
pub mod isolation;
pub mod mosquitto;
pub mod mqtt;
pub mod postgres;
pub mod processes;
pub mod raw;
pub mod reference;
pub mod relay;
pub mod signing;

/// The shipped baseline.
pub const BASELINE: &[u8] = include_bytes!("../../orchestrator/policies/muster-baseline-linux-ds.xml");

/// How long anything in a test may take.
pub const PATIENCE: Duration = Duration::from_mins(1);

/// Assesses a root without any service: read, compile, collect, evaluate.
pub fn assess(data_stream: &[u8], profile: Option<&str>, root: &str) -> Evaluation {
    let policy = scap::datastream::read(data_stream.to_vec()).expect("the data stream can be read");
    let compiled = scap::compile::compile(&policy, profile).expect("the profile exists");
    evaluate(&compiled, &evidence_of(&compiled, root), Timestamp::now())
}

/// What the agent's probes find in a root.
pub fn evidence_of(compiled: &Compiled, root: &str) -> Evidence {
    let host = Host::new(root);
    let now = Timestamp::now();
    let mut resolver = Resolver::new(&compiled.collection, Probes::new(&host), now);
    let mut evidence = Evidence::default();
    for key in &compiled.collection.report {
        let collected_object = resolver.object(key);
        evidence.observations.insert(key.clone(), Observed { collected_object, collected: now });
    }
    evidence
}

/// Waits until something holds; panics with `what` when it does not in time.
pub async fn eventually<T>(what: &str, attempt: impl AsyncFnMut() -> Option<T>) -> T {
    eventually_within(PATIENCE, what, attempt).await
}

/// The same, of what takes its time by design.
pub async fn eventually_within<T>(patience: Duration, what: &str, mut attempt: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = tokio::time::Instant::now() + patience;
    loop {
        if let Some(value) = attempt().await {
            return value;
        }
        assert!(tokio::time::Instant::now() < deadline, "not within {patience:?}: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// An installation in this process, over real TLS on loopback.
#[derive(Debug)]
pub struct Installation {
    /// Where its data is.
    pub data: TempDir,
    /// Its orchestrator.
    pub handle: Handle,
    stopper: Stopper,
}

impl Installation {
    /// An orchestrator with its broker, and nothing else.
    pub async fn orchestrator() -> Self {
        let data = tempfile::tempdir().expect("a temporary directory");
        Self::orchestrator_in(data, "127.0.0.1:0").await
    }

    /// The same, in a directory that may have been used before.
    pub async fn orchestrator_in(data: TempDir, listen: &str) -> Self {
        Self::with_certificates_of(orchestrator::CERTIFICATE_SECONDS, data, listen).await
    }

    /// The same, with certificates that hold so many seconds.
    pub async fn with_certificates_of(certificate_seconds: i64, data: TempDir, listen: &str) -> Self {
        Self::with(data, listen, |settings| settings.certificate_seconds = certificate_seconds).await
    }

    /// The same, with other settings.
    pub async fn with(data: TempDir, listen: &str, change: impl FnOnce(&mut orchestrator::Settings)) -> Self {
        attack::count_panics();
        let (stopper, stop) = shutdown::channel();
        let mut settings = orchestrator::Settings::new(data.path().join("orchestrator"), listen.to_owned());
        change(&mut settings);
        let (ready, is_ready) = oneshot::channel();
        let run = tokio::spawn(orchestrator::run(settings, stop, Some(ready)));
        let Ok(handle) = is_ready.await else { panic!("the orchestrator did not start: {:?}", run.await) };
        Self { data, handle, stopper }
    }

    /// With repository, evaluator and a collector of the root `/`.
    pub async fn complete() -> Self {
        let installation = Self::orchestrator().await;
        installation.add_repository().await;
        installation.add_evaluator().await;
        installation.add_collector("pcs-agent", Path::new("/")).await;
        installation.wait_for_active(3).await;
        installation
    }

    /// A join token.
    pub async fn token(&self, component_type: ComponentType) -> String {
        self.handle.create_token(TokenScope::one(component_type, 600)).await.expect("a token")
    }

    /// Adds the repository.
    pub async fn add_repository(&self) {
        let settings = repository::Settings {
            database: None,
            data: self.data.path().join("repository"),
            join_token: Some(self.token(ComponentType::RepositoryInterface).await),
            broker: None,
            name: "repository".to_owned(),
            retention: repository::retention::Retention::default().into(),
        };
        let (keep, stop) = shutdown::channel();
        tokio::spawn(async move {
            let _keep = keep;
            repository::run(settings, stop).await.expect("the repository runs");
        });
    }

    /// Adds the evaluator.
    pub async fn add_evaluator(&self) {
        let settings = pes_evaluator::Settings {
            data: self.data.path().join("pes-evaluator"),
            join_token: Some(self.token(ComponentType::PostureEvaluationService).await),
            broker: None,
            name: "evaluator".to_owned(),
        };
        let (keep, stop) = shutdown::channel();
        tokio::spawn(async move {
            let _keep = keep;
            pes_evaluator::run(settings, stop).await.expect("the evaluator runs");
        });
    }

    /// Adds a collector; its name and data directory are `name`.
    pub async fn add_collector(&self, name: &str, root: &Path) {
        let token = self.token(ComponentType::PostureCollectionService).await;
        let stopper = self.start_collector(name, root, Some(token));
        // It runs as long as the test does.
        std::mem::forget(stopper);
    }

    /// Starts a collector, which may have joined before.
    pub fn start_collector(&self, name: &str, root: &Path, join_token: Option<String>) -> Stopper {
        self.start_collector_with(name, root, join_token, None)
    }

    /// The same, on a machine with a TPM.
    pub fn start_collector_with(
        &self,
        name: &str,
        root: &Path,
        join_token: Option<String>,
        tpm: Option<PathBuf>,
    ) -> Stopper {
        let settings = pcs_agent::Settings {
            data: self.data.path().join(name),
            join_token,
            broker: None,
            name: Some(name.to_owned()),
            root: root.to_owned(),
            tpm,
            budget: proto::budget::Budget::default().into(),
            scripts: None,
        };
        let (stopper, stop) = shutdown::channel();
        tokio::spawn(async move { pcs_agent::run(settings, stop).await.expect("the collector runs") });
        stopper
    }

    /// Stops a collector, and waits until its data directory is free again.
    pub async fn stop_collector(&self, name: &str, collector: Stopper) {
        collector.stop();
        let data = self.data.path().join(name);
        eventually("the collector has stopped", async || service::data::DataDirectory::open(&data).ok().map(drop))
            .await;
    }

    /// What a component of the test's own needs to join; its endpoint has the name as its machine-id.
    pub fn settings(&self, component_type: ComponentType, name: &str, join_token: Option<String>) -> MemberSettings {
        let is_collector = component_type == ComponentType::PostureCollectionService;
        let machine_id = Some(name.to_owned());
        let facts = EndpointFacts { host_name: name.to_owned(), machine_id, ..EndpointFacts::default() };
        let endpoint =
            AdvertisedEndpoint { local_name: pcs_agent::SELF.to_owned(), facts, ..AdvertisedEndpoint::default() };
        MemberSettings {
            component_type,
            name: name.to_owned(),
            data: self.data.path().join(name),
            join_token,
            broker: None,
            endpoints: is_collector.then_some(endpoint).into_iter().collect(),
            tpm: None,
            tied: &[],
            store: None,
        }
    }

    /// A component of the test's own: it joins and shakes hands, and the test plays its part.
    pub async fn scripted(&self, component_type: ComponentType, name: &str) -> Member {
        let settings = self.settings(component_type, name, Some(self.token(component_type).await));
        let member = member::start(settings).await.expect("a scripted component joins");
        let mut assigned = member.assigned.clone();
        tokio::time::timeout(PATIENCE, assigned.wait_for(|assigned| assigned.is_active))
            .await
            .expect("a handshake in time")
            .expect("the membership lives");
        member
    }

    /// Waits until so many components are active.
    pub async fn wait_for_active(&self, count: u64) {
        eventually("components are active", async || {
            let status = self.handle.status().await;
            let active: u64 = status
                .component_counts
                .iter()
                .filter(|(state, _)| state.as_str() == "active")
                .map(|(_, count)| *count)
                .sum();
            (active >= count).then_some(())
        })
        .await;
    }

    /// Asks as an operator does; every answer.
    pub async fn ask(&self, question: Ask) -> Vec<OperatorEvent> {
        ask(&self.data.path().join("orchestrator"), question, &[]).await.expect("the orchestrator answers")
    }

    /// Asks what is answered for as long as somebody listens.
    pub async fn listen(&self, question: Ask) -> Answers {
        let data = self.data.path().join("orchestrator");
        Answers::begin(&data, question, &[]).await.expect("the orchestrator answers")
    }

    /// What was said, or why it was not done.
    pub async fn told(&self, question: Ask) -> Result<String, String> {
        match self.ask(question).await.into_iter().next() {
            Some(OperatorEvent::Notice(text)) => Ok(text),
            Some(OperatorEvent::Fault(fault)) => Err(fault.message),
            other => panic!("{other:?}"),
        }
    }

    /// The versions of a policy; none where nobody knows it.
    pub async fn versions(&self, name: &str) -> Vec<PolicyDescription> {
        match self.ask(Ask::PolicyVersions { name: name.to_owned() }).await.into_iter().next() {
            Some(OperatorEvent::Policies(versions)) => versions,
            Some(OperatorEvent::Fault(_)) => Vec::new(),
            other => panic!("{other:?}"),
        }
    }

    /// The messages behind the newest verdicts: on one endpoint, of one rule.
    pub async fn chain(&self, endpoint: Option<String>, rule: Option<&str>) -> Vec<Link> {
        let ask = Ask::Chain { transaction: None, endpoint, rule: rule.map(str::to_owned) };
        let mut links = Vec::new();
        for event in self.ask(ask).await {
            match event {
                OperatorEvent::Chain(lines) => {
                    links.extend(lines.iter().map(|line| serde_json::from_str::<Link>(line).expect("a link")));
                }
                OperatorEvent::Done => {}
                other => panic!("{other:?}"),
            }
        }
        links
    }

    /// The orchestrator starts anew, where the others find it.
    pub async fn restarted(self) -> Self {
        let listen = self.handle.status().await.listen;
        Self::orchestrator_in(self.stop().await, &listen).await
    }

    /// Stops the orchestrator and gives its data back.
    pub async fn stop(self) -> TempDir {
        self.stopper.stop();
        let lock = self.data.path().join("orchestrator");
        eventually("the orchestrator lets go of its data", async || {
            service::data::DataDirectory::open(&lock).ok().map(drop)
        })
        .await;
        self.data
    }
}

/// What an orchestrator answers.
#[derive(Debug)]
pub struct Answers {
    lines: Lines<BufReader<OwnedReadHalf>>,
    /// Whoever closes it wants to hear no more.
    _writing: OwnedWriteHalf,
}

impl Answers {
    async fn begin(data: &Path, question: Ask, content: &[u8]) -> std::io::Result<Self> {
        let stream = UnixStream::connect(data.join(orchestrator::CONTROL_SOCKET)).await?;
        let (reading, mut writing) = stream.into_split();
        let mut line = serde_json::to_vec(&OperatorRequest { ask: question, content_bytes: content.len() as u64 })?;
        line.push(b'\n');
        writing.write_all(&line).await?;
        writing.write_all(content).await?;
        Ok(Self { lines: BufReader::new(reading).lines(), _writing: writing })
    }

    /// The next of them.
    pub async fn next(&mut self) -> std::io::Result<Option<OperatorEvent>> {
        let line = self.lines.next_line().await?;
        Ok(line.map(|line| serde_json::from_str(&line)).transpose()?)
    }
}

/// Asks the orchestrator of a data directory.
pub async fn ask(data: &Path, question: Ask, content: &[u8]) -> std::io::Result<Vec<OperatorEvent>> {
    let mut answers = Answers::begin(data, question, content).await?;
    let mut events = Vec::new();
    while let Some(event) = answers.next().await? {
        let is_last = matches!(event, OperatorEvent::Done | OperatorEvent::Fault(_));
        events.push(event);
        if is_last {
            return Ok(events);
        }
    }
    Err(std::io::ErrorKind::UnexpectedEof.into())
}

/// A workflow over the baseline.
pub fn baseline(timeout_seconds: u64) -> Workflow {
    Workflow { policy: orchestrator::BASELINE.to_owned(), timeout_seconds, ..Workflow::default() }
}

/// Whether a workflow was completed, from the answers to it.
pub fn is_completed(events: &[OperatorEvent]) -> bool {
    events.iter().any(|event| matches!(event, OperatorEvent::Ended(view) if view.state == "completed"))
}

/// What the baseline says of this machine, by rule, without an installation.
pub fn baseline_verdicts() -> std::collections::BTreeMap<String, String> {
    assess(BASELINE, None, "/").results.iter().map(|result| (result.rule.clone(), result.verdict.to_string())).collect()
}

/// Verdicts by rule, from the answers to an evaluation.
pub fn verdicts(events: &[OperatorEvent]) -> std::collections::BTreeMap<String, String> {
    events
        .iter()
        .filter_map(|event| match event {
            OperatorEvent::Verdict { result, .. } => Some((result.rule.clone(), result.verdict.to_string())),
            _ => None,
        })
        .collect()
}

/// Where the workspace is.
pub fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the tests stand in the workspace").to_owned()
}
