//! An installation of its own, as it would be in production: separate processes, TLS, signatures, everything flushed to disk. Only
//! its place is another: a temporary directory, and the loopback interface.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use proto::capability::ComponentType;
use proto::id::EndpointId;
use proto::operator::{Ask, ComponentState, OperatorEvent, PolicyImport, SystemStatus};

use super::cores::Cores;
use super::daemon::{Daemon, Program, programs};
use crate::client;

/// What the simulated collectors are called: their token's label.
pub(crate) const FLEET: &str = "simulated";
/// What the real one is called.
pub(crate) const AGENT: &str = "real";
/// The file that the rule of the watched policy reads, below the real collector's root.
pub(crate) const WATCHED_FILE: &str = "etc/muster-measure.conf";
/// Seconds for everything to be there.
const START: Duration = Duration::from_mins(1);
/// Seconds that tokens hold: ten thousand collectors take a while to join.
const TOKEN_SECONDS: u64 = 3_600;
/// Ports that no connection gets by itself: the orchestrator comes back to the same one after it was killed, while all others
/// look for it (ip(7), `ip_local_port_range`).
const PORTS: std::ops::Range<u16> = 20_000..32_000;
/// How often something is looked at that is waited for.
const LOOK: Duration = Duration::from_millis(50);

/// It.
#[derive(Debug)]
pub(crate) struct Installation {
    directory: PathBuf,
    cores: Cores,
    daemons: Vec<Daemon>,
    /// The endpoint of the real collector.
    agent: EndpointId,
}

/// A port that is free.
fn free_port() -> anyhow::Result<u16> {
    let chance =
        u16::try_from(uuid::Uuid::new_v4().as_u128() % u128::from(PORTS.end - PORTS.start)).unwrap_or_default();
    let mut ports = (PORTS.start + chance..PORTS.end).chain(PORTS.start..PORTS.start + chance);
    ports
        .find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok())
        .context("no port is free on the loopback interface")
}

/// The root of the real collector: as little as an endpoint can have.
fn make_root(root: &Path) -> std::io::Result<()> {
    std::fs::create_dir_all(root.join("etc"))?;
    std::fs::write(root.join("etc/hostname"), "measured\n")?;
    std::fs::write(root.join("etc/machine-id"), format!("{}\n", uuid::Uuid::new_v4().simple()))?;
    std::fs::write(root.join(WATCHED_FILE), "state = good\n")
}

impl Installation {
    /// Starts all four programs and waits until they are active.
    pub(crate) async fn start(directory: &Path, cores: Cores) -> anyhow::Result<Self> {
        let programs = programs()?;
        let root = directory.join("root");
        make_root(&root).with_context(|| format!("cannot make {}", root.display()))?;
        let listen = format!("127.0.0.1:{}", free_port()?);
        let start = |program: Program, words: &[&str]| Daemon::start(program, &programs, directory, words, cores);
        let daemons = vec![start(Program::Orchestrator, &["--listen", &listen])?];
        let mut installation =
            Self { directory: directory.to_owned(), cores, daemons, agent: EndpointId(uuid::Uuid::nil()) };
        installation
            .wait_for("the orchestrator answers", START, async |it| Ok(it.status().await.ok().map(drop)))
            .await?;
        let repository = installation.token(ComponentType::RepositoryInterface, 1, &[]).await?;
        let evaluator = installation.token(ComponentType::PostureEvaluationService, 1, &[]).await?;
        let agent = installation.token(ComponentType::PostureCollectionService, 1, &[AGENT]).await?;
        let root = root.display().to_string();
        for (program, words) in [
            (Program::Repository, &["--join-token", &repository][..]),
            (Program::Evaluator, &["--join-token", &evaluator]),
            (Program::Agent, &["--join-token", &agent, "--root", &root]),
        ] {
            let daemon = start(program, words)?;
            installation.daemons.push(daemon);
        }
        let agent = async |it: &Self| {
            let OperatorEvent::Roster(roster) = it.one(Ask::Roster, &[]).await? else { bail!("no roster") };
            let active = roster.iter().filter(|entry| entry.state == ComponentState::Active);
            let is_whole = active.count() == Program::ALL.len() - 1;
            let agents = roster.iter().filter(|entry| entry.labels.iter().any(|label| label == AGENT));
            let endpoint = agents.flat_map(|entry| &entry.endpoints).next().map(|entry| entry.endpoint);
            Ok(endpoint.filter(|_| is_whole))
        };
        installation.agent = installation.wait_for("the services have joined", START, agent).await?;
        Ok(installation)
    }

    /// Where its data is.
    pub(crate) fn directory(&self) -> &Path {
        &self.directory
    }

    pub(crate) fn cores(&self) -> Cores {
        self.cores
    }

    pub(crate) fn daemons(&self) -> impl Iterator<Item = &Daemon> {
        self.daemons.iter()
    }

    /// The endpoint of the real collector.
    pub(crate) fn agent(&self) -> EndpointId {
        self.agent
    }

    /// The file that the watched policy reads.
    pub(crate) fn watched_file(&self) -> PathBuf {
        self.directory.join("root").join(WATCHED_FILE)
    }

    /// `kill -9` of a program, and when that was; it is started again at once.
    pub(crate) fn kill(&mut self, program: Program) -> anyhow::Result<Instant> {
        let daemon = self.daemons.iter_mut().find(|daemon| daemon.program == program).context("it runs")?;
        daemon.kill();
        let killed = Instant::now();
        daemon.start_again()?;
        Ok(killed)
    }

    /// An error where a program has ended by itself.
    pub(crate) fn check(&mut self) -> anyhow::Result<()> {
        self.daemons.iter_mut().try_for_each(Daemon::check)
    }

    /// Asks as an operator does; every answer but the last word.
    pub(crate) async fn ask(&self, ask: Ask, content: &[u8]) -> anyhow::Result<Vec<OperatorEvent>> {
        let mut answers = client::ask(&self.directory, ask, content).await?;
        let mut events = Vec::new();
        while let Some(event) = answers.next().await? {
            events.push(event);
        }
        Ok(events)
    }

    /// The first answer that is not a notice; of a question that is answered by a notice, the notice.
    pub(crate) async fn one(&self, ask: Ask, content: &[u8]) -> anyhow::Result<OperatorEvent> {
        let mut events = self.ask(ask, content).await?;
        let at = events.iter().position(|event| !matches!(event, OperatorEvent::Notice(_))).unwrap_or_default();
        if events.is_empty() {
            bail!("the orchestrator has no answer")
        }
        Ok(events.swap_remove(at))
    }

    /// How it is.
    pub(crate) async fn status(&self) -> anyhow::Result<SystemStatus> {
        match self.one(Ask::Status, &[]).await? {
            OperatorEvent::Status(status) => Ok(*status),
            _ => bail!("unexpected answer"),
        }
    }

    /// How many messages its broker has taken since it began.
    pub(crate) async fn message_count(&self) -> anyhow::Result<u64> {
        let counts = self.status().await?.broker_counts;
        counts.iter().find(|count| count.name == "publishes_total").map(|count| count.value).context("no such count")
    }

    /// A join token.
    pub(crate) async fn token(
        &self,
        component_type: ComponentType,
        uses: u64,
        labels: &[&str],
    ) -> anyhow::Result<String> {
        let ask = Ask::TokenCreate {
            component_type,
            uses: u32::try_from(uses)?,
            ttl_seconds: TOKEN_SECONDS,
            labels: labels.iter().map(|label| (*label).to_owned()).collect(),
            needs_approval: false,
        };
        match self.one(ask, &[]).await? {
            OperatorEvent::Token(token) => Ok(token),
            _ => bail!("unexpected answer"),
        }
    }

    /// Takes a data stream as a policy, and puts it in force.
    pub(crate) async fn import(&self, name: &str, source: &[u8]) -> anyhow::Result<()> {
        let import = PolicyImport { name: name.to_owned(), is_activated: true, ..PolicyImport::default() };
        match self.one(Ask::PolicyImport(Box::new(import)), source).await? {
            OperatorEvent::Policy(_) => Ok(()),
            _ => bail!("unexpected answer"),
        }
    }

    /// Waits for something; an error where it does not come, or where a program ends meanwhile.
    pub(crate) async fn wait_for<T>(
        &mut self,
        what: &str,
        patience: Duration,
        mut look: impl AsyncFnMut(&Self) -> anyhow::Result<Option<T>>,
    ) -> anyhow::Result<T> {
        let deadline = Instant::now() + patience;
        loop {
            if let Some(found) = look(self).await? {
                return Ok(found);
            }
            self.check()?;
            if Instant::now() >= deadline {
                bail!("not within {} s: {what}", patience.as_secs());
            }
            tokio::time::sleep(LOOK).await;
        }
    }
}
