//! A campaign of faults against processes: from a seed they are killed, held, cut off, told to end, their disks are full, their
//! clocks jump, and records on the wire are changed, doubled, lost and put in another order, while files of endpoints change
//! and operators ask. In a lull now and then, and afterwards, everything that was promised has to hold (`checks`).

#![allow(clippy::print_stdout, reason = "a campaign takes a while, and says how far it is")]

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use proto::id::TransactionId;
use proto::operator::{Ask, OperatorEvent, OperatorRequest, Workflow};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::UnixStream;
use tokio::sync::Semaphore;
use tokio::time::Instant;

mod checks;
mod clock;
mod outboxes;
mod plan;
mod set_back;
mod truth;
mod world;

pub use plan::Kind;
pub use set_back::set_back;

use crate::generate::Random;
use outboxes::Outboxes;
use plan::{Asked, Event, Plan};
use world::{COUNT, ORCHESTRATOR, World, workflow};

/// Operators that wait for an answer at a time.
const OPERATORS_MAX: usize = 8;

/// What a campaign is to be.
#[derive(Debug, Clone)]
pub struct Campaign {
    /// How many faults.
    pub count: usize,
    /// What decides which.
    pub seed: u64,
    /// Of which kinds.
    pub kinds: Vec<Kind>,
}

impl Campaign {
    /// So many faults of all kinds.
    pub fn new(count: usize, seed: u64) -> Self {
        Self { count, seed, kinds: Kind::ALL.to_vec() }
    }
}

/// What a campaign did.
#[derive(Debug, Default)]
pub struct Report {
    /// The seed.
    pub seed: u64,
    /// How many faults of each kind.
    pub faults: BTreeMap<Kind, usize>,
    /// Kinds that cannot be made here.
    pub skipped: Vec<Kind>,
    /// How often a process ended by itself, by name.
    pub ended: BTreeMap<String, usize>,
    /// How often an operator asked.
    pub ask_count: usize,
    /// Facts that became others.
    pub change_count: usize,
    /// What was checked, and of how many at last.
    pub checked: Vec<(&'static str, usize)>,
    /// In how many lulls, beside the end.
    pub lull_count: usize,
    /// How long the storm was.
    pub storm: Duration,
    /// And the lulls, and what came after it.
    pub calm: Duration,
}

impl Report {
    /// Something holds, of so many.
    fn holds(&mut self, what: &'static str, count: usize) {
        match self.checked.iter_mut().find(|(known, _)| *known == what) {
            Some((_, before)) => *before = count,
            None => self.checked.push((what, count)),
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(formatter, "{:<44}{:>8}", "seed", self.seed)?;
        writeln!(formatter, "{:<44}{:>8}", "faults", self.faults.values().sum::<usize>())?;
        for (kind, count) in &self.faults {
            writeln!(formatter, "  {kind:<42}{count:>8}")?;
        }
        for kind in &self.skipped {
            writeln!(formatter, "  {kind:<42}{:>8}", "skipped")?;
        }
        writeln!(formatter, "{:<44}{:>8}", "facts of endpoints that changed", self.change_count)?;
        writeln!(formatter, "{:<44}{:>8}", "asks of operators", self.ask_count)?;
        for (name, count) in &self.ended {
            writeln!(formatter, "{:<44}{count:>8}", format!("{name} ended by itself"))?;
        }
        for (what, count) in &self.checked {
            writeln!(formatter, "{what:<44}{count:>8}")?;
        }
        writeln!(formatter, "{:<44}{:>8}", "lulls in which it was checked, too", self.lull_count)?;
        writeln!(formatter, "{:<44}{:>7.0}s", "the storm", self.storm.as_secs_f64())?;
        write!(formatter, "{:<44}{:>7.0}s", "the lulls, and until all was checked", self.calm.as_secs_f64())
    }
}

/// What does not hold, in words, and what was done before.
#[derive(Debug)]
pub struct Broken {
    /// What does not hold.
    pub what: String,
    /// What the campaign did until then.
    pub report: Report,
}

/// The transactions that operators were told of.
#[derive(Debug, Default)]
struct Told(Mutex<Vec<TransactionId>>);

impl Told {
    fn ids(&self) -> MutexGuard<'_, Vec<TransactionId>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Runs a campaign; what does not hold ends it.
pub async fn run(campaign: &Campaign) -> Result<Report, Box<Broken>> {
    let mut report = Report { seed: campaign.seed, ..Report::default() };
    match weather(campaign, &mut report).await {
        Ok(()) => Ok(report),
        Err(what) => Err(Box::new(Broken { what, report })),
    }
}

async fn weather(campaign: &Campaign, report: &mut Report) -> Result<(), String> {
    let mut world = World::start().await?;
    let kinds: Vec<Kind> = campaign.kinds.iter().copied().filter(|kind| !world.skipped.contains(kind)).collect();
    report.skipped = campaign.kinds.iter().copied().filter(|kind| world.skipped.contains(kind)).collect();
    let watched = (1..COUNT).map(|node| world.nodes[node].data.clone()).collect();
    let outboxes = Outboxes::watch(watched);
    let told = Arc::new(Told::default());
    let mut dice = Random::new(campaign.seed);
    let plan = Plan::new(campaign.count, &kinds, &mut dice);
    let checked = match storm(&mut world, plan, &told, &mut dice, report).await {
        Ok(()) => {
            let began = Instant::now();
            let checked = checks::all(&mut world, &told, &outboxes, &mut dice, report).await;
            report.calm += began.elapsed();
            checked
        }
        Err(what) => Err(what),
    };
    let ended = world.nodes.iter().filter(|node| node.ended_count > 0);
    report.ended = ended.map(|node| (node.name.clone(), node.ended_count)).collect();
    checked
}

/// Does what is planned, when it is planned.
async fn storm(
    world: &mut World,
    plan: Plan,
    told: &Arc<Told>,
    dice: &mut Random,
    report: &mut Report,
) -> Result<(), String> {
    let mut began = Instant::now();
    let operators = Arc::new(Semaphore::new(OPERATORS_MAX));
    let count = plan.events.iter().filter(|(_, event)| matches!(event, Event::Strike(..))).count();
    let mut done = 0;
    for (at, event) in plan.events {
        tokio::time::sleep_until(began + at).await;
        world.revive();
        match event {
            Event::Strike(kind, victim, measure) => {
                world.strike(kind, victim, measure);
                *report.faults.entry(kind).or_default() += 1;
                done += 1;
                if done % 100 == 0 {
                    println!("{done} of {count} faults, {} s", began.elapsed().as_secs());
                }
            }
            Event::Heal(kind, victim) => world.heal(kind, victim).await?,
            Event::Lull => {
                let lull = Instant::now();
                let holds = checks::lull(world, told, dice, report).await;
                report.calm += lull.elapsed();
                holds.map_err(|what| format!("after {done} faults: {what}"))?;
                report.lull_count += 1;
                // The storm goes on as planned.
                began += lull.elapsed();
            }
            Event::Truth(collector, fact, is_met) => {
                truth::set(&world.root(collector), fact, is_met);
                report.change_count += 1;
            }
            Event::Ask(asked) => {
                report.ask_count += 1;
                // Who finds too many others waiting goes away.
                if let Ok(place) = Arc::clone(&operators).try_acquire_owned() {
                    let (door, told) = (world.nodes[ORCHESTRATOR].data.clone(), Arc::clone(told));
                    tokio::spawn(async move {
                        let _ = operate(&door, asked, &told).await;
                        drop(place);
                    });
                }
            }
        }
    }
    report.storm = began.elapsed();
    Ok(())
}

/// An operator asks, and notes the transaction that it is told of, whatever comes after that.
async fn operate(door: &std::path::Path, asked: Asked, told: &Told) -> std::io::Result<()> {
    let usual = workflow();
    let ask = match asked {
        Asked::Evaluate => Ask::Evaluate(usual),
        Asked::Collect => Ask::Collect(usual),
        Asked::EvaluateLate(expires_seconds) => {
            Ask::Evaluate(Workflow { expires_seconds, timeout_seconds: 10, ..usual })
        }
        Asked::EvaluateStored => Ask::Evaluate(Workflow { is_stored_only: true, ..usual }),
        Asked::Cancel => {
            let Some(transaction) = told.ids().last().copied() else { return Ok(()) };
            Ask::Cancel { transaction }
        }
    };
    let (reading, mut writing) = UnixStream::connect(door.join(orchestrator::CONTROL_SOCKET)).await?.into_split();
    let mut line = serde_json::to_vec(&OperatorRequest { ask, content_bytes: 0 })?;
    line.push(b'\n');
    writing.write_all(&line).await?;
    let mut lines = BufReader::new(reading).lines();
    while let Some(line) = lines.next_line().await? {
        if let OperatorEvent::Started { transaction, .. } = serde_json::from_str(&line)? {
            told.ids().push(transaction);
        }
    }
    Ok(())
}

/// Waits until something holds; what did not, and why, where it does not in time.
async fn within<T>(
    patience: Duration,
    what: &str,
    mut attempt: impl AsyncFnMut() -> Result<T, String>,
) -> Result<T, String> {
    let began = Instant::now();
    loop {
        match attempt().await {
            Ok(value) => return Ok(value),
            Err(why) if began.elapsed() > patience => return Err(format!("not within {patience:?}: {what}: {why}")),
            Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
        }
    }
}
