//! An installation of processes, each with a way, a clock and a disk of its own that can fail.

#![allow(clippy::print_stdout, reason = "it says what is skipped")]

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use proto::capability::ComponentType;
use proto::id::ComponentId;
use proto::message::ObservationOperation;
use proto::operator::{Ask, OperatorEvent, PolicyAssignment, PolicyImport, RosterEntry, Workflow};
use proto::schedule::Schedule;
use service::identity::Identity;

use super::clock::{Clock, Shim};
use super::plan::Kind;
use super::{truth, within};
use crate::disk::Disk;
use crate::processes::{Process, Surroundings, free_port, token, words};
use crate::relay::{Relay, Tamper, Way};

/// The orchestrator's place among the processes.
pub(super) const ORCHESTRATOR: usize = 0;
/// The repository's.
pub(super) const REPOSITORY: usize = 1;
/// The evaluators'.
pub(super) const EVALUATORS: Range<usize> = 2..4;
/// The collectors'.
pub(super) const COLLECTORS: Range<usize> = 4..8;
/// How many processes there are.
pub(super) const COUNT: usize = COLLECTORS.end;

/// The policy's name, and that of its assignment.
pub(super) const POLICY: &str = "faults";
/// From one evaluation by itself to the next.
pub(super) const SWEEP: Duration = Duration::from_secs(20);
/// Megabytes of each process's disk.
const DISK_MEGABYTES: u32 = 192;
/// How long a process that was told to end may take.
const END_PATIENCE: Duration = Duration::from_secs(20);
/// A process that has ended by itself is started again after that, as a service manager does.
const AGAIN: Duration = Duration::from_secs(1);
/// How long an answer at the operators' door may take.
const ANSWER: Duration = Duration::from_secs(15);

const BINARIES: [(&str, &str, ComponentType); 4] = [
    ("orchestrator", "muster-orchestrator", ComponentType::Orchestrator),
    ("repository", "muster-repository", ComponentType::RepositoryInterface),
    ("evaluator", "muster-pes-evaluator", ComponentType::PostureEvaluationService),
    ("collector", "muster-pcs-agent", ComponentType::PostureCollectionService),
];

/// A process, and what can fail of it.
#[derive(Debug)]
pub(super) struct Node {
    /// What it is called.
    pub(super) name: String,
    /// Its data directory.
    pub(super) data: PathBuf,
    /// What it says.
    pub(super) log: PathBuf,
    /// How often it ended by itself.
    pub(super) ended_count: usize,
    /// Since when it has.
    ended: Option<Instant>,
    /// Whether it is down because it was struck.
    is_down: bool,
    process: Process,
    relay: Option<Relay>,
    clock: Option<Clock>,
    disk: Option<Disk>,
}

/// The installation.
#[derive(Debug)]
pub(super) struct World {
    /// Its processes.
    pub(super) nodes: Vec<Node>,
    /// Kinds of faults that cannot be made here.
    pub(super) skipped: Vec<Kind>,
    /// Who they are: their ids, when all had joined.
    pub(super) ids: Vec<ComponentId>,
    roots: PathBuf,
    directory: Directory,
}

/// Where everything is.
#[derive(Debug)]
enum Directory {
    Passing(tempfile::TempDir),
    Kept(PathBuf),
}

impl Directory {
    /// A temporary one, or the one that `MUSTER_FAULT_KEEP` names, which stays.
    fn make() -> Self {
        match std::env::var_os("MUSTER_FAULT_KEEP") {
            None => Self::Passing(tempfile::tempdir().expect("a temporary directory")),
            Some(path) => {
                std::fs::create_dir_all(&path).expect("a directory that is kept");
                Self::Kept(path.into())
            }
        }
    }

    fn path(&self) -> &Path {
        match self {
            Self::Passing(directory) => directory.path(),
            Self::Kept(path) => path,
        }
    }
}

impl World {
    /// Starts all, lets them join, and assigns the policy.
    pub(super) async fn start() -> Result<Self, String> {
        let directory = Directory::make();
        let path = directory.path().to_owned();
        let listener = format!("127.0.0.1:{}", free_port());
        let shim = Shim::compile(&path);
        let mut skipped = Vec::new();
        if shim.is_none() {
            println!("SKIPPED, NOT PASSED: no clock is made to jump, as there is no C compiler `cc`");
            skipped.extend([Kind::ClockSlip, Kind::ClockJump]);
        }
        let roots = path.join("roots");
        let mut world = Self { nodes: Vec::new(), skipped, ids: Vec::new(), roots, directory };
        for number in 0..COUNT {
            let (role, which) = match number {
                ORCHESTRATOR => (0, None),
                REPOSITORY => (1, None),
                number if EVALUATORS.contains(&number) => (2, Some(number - EVALUATORS.start)),
                number => (3, Some(number - COLLECTORS.start)),
            };
            let (role, binary, component_type) = BINARIES[role];
            let name = which.map_or(role.to_owned(), |which| format!("{role}-{}", which + 1));
            let (data, log) = (path.join(&name), path.join(format!("{name}.log")));
            let disk = Disk::mount_of(DISK_MEGABYTES, &data);
            if disk.is_none() && !world.skipped.contains(&Kind::FullDisk) {
                world.skipped.push(Kind::FullDisk);
            }
            let clock = shim.as_ref().map(|shim| shim.clock(&path.join(format!("{name}.clock"))));
            let mut relay = None;
            let mut more = Vec::new();
            if number == ORCHESTRATOR {
                more.extend(["--listen".to_owned(), listener.clone()]);
            } else {
                let before = Relay::forgetful(&listener).await.map_err(|error| error.to_string())?;
                let token = token(&world.nodes[ORCHESTRATOR].data, component_type).await;
                more.extend(["--broker".to_owned(), before.address.clone(), "--join-token".to_owned(), token]);
                relay = Some(before);
            }
            if COLLECTORS.contains(&number) {
                let root = world.root(number);
                truth::make(&root, &name);
                more.extend(["--root".to_owned(), root.display().to_string()]);
            }
            let more: Vec<&str> = more.iter().map(String::as_str).collect();
            let words = words(&path, binary, &name, &more);
            let variables = clock.as_ref().map(Clock::variables).unwrap_or_default();
            let process = Process::start_in(words, Surroundings { variables, log: Some(log.clone()) });
            let (ended, ended_count) = (None, 0);
            world.nodes.push(Node { name, data, log, ended_count, ended, is_down: false, process, relay, clock, disk });
        }
        within(Duration::from_mins(1), "all components join", async || world.are_active(COUNT - 1).await).await?;
        for node in &world.nodes {
            let identity = Identity::load(&node.data.join("identity")).ok().flatten();
            world.ids.push(identity.ok_or_else(|| format!("{} has no identity", node.name))?.component);
        }
        world.assign().await?;
        Ok(world)
    }

    async fn assign(&self) -> Result<(), String> {
        let name = POLICY.to_owned();
        let import = Ask::PolicyImport(Box::new(PolicyImport { name: name.clone(), ..PolicyImport::default() }));
        let told = crate::ask(&self.nodes[ORCHESTRATOR].data, import, truth::policy().as_bytes()).await;
        told.map_err(|error| error.to_string())?;
        let assignment = PolicyAssignment {
            name,
            workflow: Workflow { timeout_seconds: 15, ..workflow() },
            schedule: Some(Schedule::every(SWEEP.as_secs())),
            is_change_based: true,
            poll_seconds: Some(5),
        };
        match self.ask(Ask::PolicyAssign(Box::new(assignment))).await?.as_slice() {
            [OperatorEvent::Notice(_), ..] => Ok(()),
            other => Err(format!("the policy cannot be assigned: {other:?}")),
        }
    }

    /// The root directory of a collector.
    pub(super) fn root(&self, collector: usize) -> PathBuf {
        self.roots.join(collector.to_string())
    }

    /// Asks as an operator does; an orchestrator that is not there is an error.
    pub(super) async fn ask(&self, question: Ask) -> Result<Vec<OperatorEvent>, String> {
        let answer = tokio::time::timeout(ANSWER, crate::ask(&self.nodes[ORCHESTRATOR].data, question, &[])).await;
        let events = answer.map_err(|_| "the orchestrator gives no answer".to_owned())?;
        events.map_err(|error| format!("the orchestrator gives no answer: {error}"))
    }

    /// The roster.
    pub(super) async fn roster(&self) -> Result<Vec<RosterEntry>, String> {
        match self.ask(Ask::Roster).await?.into_iter().next() {
            Some(OperatorEvent::Roster(roster)) => Ok(roster),
            other => Err(format!("no roster, but {other:?}")),
        }
    }

    /// An error that names who is not active.
    pub(super) async fn are_active(&self, count: usize) -> Result<(), String> {
        let roster = self.roster().await?;
        let others = roster.iter().filter(|entry| entry.state.as_str() != "active");
        let others: Vec<String> =
            others.map(|entry| format!("{} is {}", entry.component, entry.state.as_str())).collect();
        if !others.is_empty() {
            return Err(others.join(", "));
        }
        if roster.len() == count { Ok(()) } else { Err(format!("{} of {count} are on the roster", roster.len())) }
    }

    /// What collectors say of what they watch.
    pub(super) async fn observations(&self) -> Result<Vec<OperatorEvent>, String> {
        let (operation, identifier) = (ObservationOperation::List, String::new());
        self.ask(Ask::Observation { operation, identifier, poll_seconds: None, workflow: workflow() }).await
    }

    /// A fault begins.
    pub(super) fn strike(&mut self, kind: Kind, victim: usize, measure: i64) {
        let node = &mut self.nodes[victim];
        let tamper = |node: &Node, tamper: Tamper| {
            let way = if measure > 0 { Way::Up } else { Way::Down };
            node.relay.as_ref().expect("it has a way").tamper_on(way, tamper);
        };
        match kind {
            Kind::Kill => {
                node.is_down = true;
                node.process.kill();
            }
            Kind::Terminate => {
                node.is_down = true;
                if !node.process.has_ended() {
                    node.process.terminate();
                }
            }
            Kind::Hold => {
                if !node.process.has_ended() {
                    node.process.hold();
                }
            }
            Kind::Partition => node.relay.as_ref().expect("it has a way").block(),
            Kind::Silence => node.relay.as_ref().expect("it has a way").hold(),
            Kind::Change => tamper(node, Tamper::Change),
            Kind::Repeat => tamper(node, Tamper::Repeat),
            Kind::Insert => {
                let invented = [vec![0x17, 0x03, 0x03, 0x00, 0x40], vec![0x42; 64]].concat();
                tamper(node, Tamper::Insert(invented));
            }
            Kind::Swallow => tamper(node, Tamper::Swallow),
            Kind::Swap => tamper(node, Tamper::Swap),
            Kind::FullDisk => {
                if let Some(disk) = &node.disk {
                    disk.fill();
                }
            }
            Kind::ClockSlip | Kind::ClockJump => {
                if let Some(clock) = &node.clock {
                    clock.set(measure);
                }
            }
        }
    }

    /// And ends.
    pub(super) async fn heal(&mut self, kind: Kind, victim: usize) -> Result<(), String> {
        let node = &mut self.nodes[victim];
        match kind {
            Kind::Kill => node.start_again(),
            Kind::Terminate => {
                let name = node.name.clone();
                let process = &mut node.process;
                let ends = async || if process.has_ended() { Ok(()) } else { Err(format!("{name} runs")) };
                within(END_PATIENCE, "a process that is told to end does", ends).await?;
                node.start_again();
            }
            Kind::Hold => {
                if !node.process.has_ended() {
                    node.process.go_on();
                }
            }
            Kind::Partition => node.relay.as_ref().expect("it has a way").unblock(),
            Kind::Silence => node.relay.as_ref().expect("it has a way").go_on(),
            Kind::FullDisk => {
                if let Some(disk) = &node.disk {
                    disk.free();
                }
            }
            Kind::ClockSlip | Kind::ClockJump => {
                if let Some(clock) = &node.clock {
                    clock.set(0);
                }
            }
            Kind::Change | Kind::Repeat | Kind::Insert | Kind::Swallow | Kind::Swap => {}
        }
        Ok(())
    }

    /// Who has ended by itself is started again.
    pub(super) fn revive(&mut self) {
        for node in self.nodes.iter_mut().filter(|node| !node.is_down) {
            if !node.process.has_ended() {
                continue;
            }
            let ended = *node.ended.get_or_insert_with(|| {
                node.ended_count += 1;
                Instant::now()
            });
            if ended.elapsed() >= AGAIN {
                node.start_again();
            }
        }
    }

    /// Ends all, as a service manager does.
    pub(super) async fn stop(&mut self) {
        for node in &mut self.nodes {
            node.is_down = true;
            if !node.process.has_ended() {
                node.process.terminate();
            }
        }
        let have_ended = async || {
            let runs = self.nodes.iter_mut().find_map(|node| (!node.process.has_ended()).then(|| node.name.clone()));
            runs.map_or(Ok(()), Err)
        };
        // Whoever does not end is killed.
        let _ = within(END_PATIENCE, "all have ended", have_ended).await;
        for node in &mut self.nodes {
            node.process.kill();
        }
    }
}

impl Drop for World {
    /// Disks go with the campaign: what is to be kept of them is copied.
    fn drop(&mut self) {
        let Directory::Kept(path) = &self.directory else { return };
        for node in &mut self.nodes {
            node.process.kill();
            let _ = Command::new("cp").arg("-a").arg(&node.data).arg(path.join(format!("{}.data", node.name))).status();
        }
    }
}

impl Node {
    fn start_again(&mut self) {
        (self.is_down, self.ended) = (false, None);
        self.process.restart();
    }
}

/// What is asked for: the policy, on all.
pub(super) fn workflow() -> Workflow {
    Workflow { policy: POLICY.to_owned(), timeout_seconds: 20, ..Workflow::default() }
}
