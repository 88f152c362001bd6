//! `muster measure`: what a machine carries. An installation of its own with as many simulated collectors as one likes is put to
//! the things that have a target, one after the other; beside each stand what was measured and what limits it.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use proto::capability::ComponentType;
use service::shutdown;

use crate::cli::{MeasureArgs, Output};
use crate::simulate::fleet::{Fleet, FleetSettings};
use crate::simulate::{fleet_directory, is_in_memory, temporary_directory};
use crate::{exit, show};

mod cores;
mod daemon;
mod figures;
mod installation;
mod peaks;
mod policy;
mod rows;
mod table;
mod usage;
mod workflow;

use cores::Cores;
use installation::{FLEET, Installation};
use peaks::Peaks;
use policy::{POLICY, Policy};
pub(crate) use rows::Measure;
use table::Row;

/// Seconds from one word about joining to the next.
const WORD: Duration = Duration::from_secs(10);
/// Milliseconds for each collector to join, and a minute for the first.
const JOIN_MILLIS: u64 = 200;
/// How often what nobody keeps is looked for again: somebody may just have written to it.
const REMOVALS: u32 = 20;

/// What is measured stands on this.
struct Ground {
    installation: Installation,
    fleet: Arc<Fleet>,
    collectors: u64,
    policy: Policy,
    root: PathBuf,
    /// Whether the policy was evaluated on the fleet.
    is_evaluated: bool,
    /// Whether the watched policy is there.
    is_watched_there: bool,
    /// How evenly load came while nobody did anything, where that was looked at.
    peaks: Option<Peaks>,
}

/// Measures, and shows the table.
pub(crate) async fn run(args: MeasureArgs, output: Output) -> anyhow::Result<u8> {
    if !args.machines.root.is_dir() {
        bail!("--root {}: there is no such directory", args.machines.root.display());
    }
    daemon::programs()?;
    let directory = match &args.keep {
        Some(keep) => empty(keep)?,
        None => temporary_directory("muster-measure")?,
    };
    let cores = Cores::take();
    show::note(cores.in_words());
    if is_in_memory(&directory) {
        show::note(format!(
            "note: {} is in memory, where flushing to disk costs nothing; with --keep DIR the installation is on a disk",
            directory.display()
        ));
    }
    let of_fleet = fleet_directory(args.collectors)?;
    let fleet = Arc::default();
    let outcome = tokio::select! {
        outcome = measure_all(&args, [&directory, &of_fleet], cores, &fleet) => outcome.map(Some),
        // What was started ends where it was waited for.
        () = shutdown::signal() => Ok(None),
    };
    if let Some(fleet) = locked(&fleet).take() {
        fleet.stop();
    }
    if args.keep.is_none() {
        remove(&directory).await;
    }
    remove(&of_fleet).await;
    let Some(rows) = outcome? else {
        show::note("stopped; nothing is left behind");
        return Ok(exit::ERROR);
    };
    table::print(&rows, args.collectors, cores, output)?;
    Ok(if rows.iter().all(Row::is_measured) { exit::DONE } else { exit::NOT_MET })
}

/// The fleet, for whoever has to stop it.
type Playing = std::sync::Mutex<Option<Arc<Fleet>>>;

fn locked(playing: &Playing) -> std::sync::MutexGuard<'_, Option<Arc<Fleet>>> {
    playing.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// A directory with nothing in it, as the whole path: programs have another one before their eyes.
fn empty(path: &Path) -> anyhow::Result<PathBuf> {
    let cannot = || format!("--keep {}", path.display());
    service::data::make(path).with_context(cannot)?;
    if std::fs::read_dir(path).with_context(cannot)?.next().is_some() {
        bail!("--keep {}: the directory is not empty", path.display());
    }
    path.canonicalize().with_context(cannot)
}

async fn remove(directory: &Path) {
    for _ in 0..REMOVALS {
        let _ = std::fs::remove_dir_all(directory);
        // Whoever has just ended may have written to it meanwhile.
        tokio::time::sleep(Duration::from_millis(50)).await;
        if !directory.exists() {
            return;
        }
    }
    show::note(format!("note: {} could not be removed", directory.display()));
}

async fn measure_all(
    args: &MeasureArgs,
    [directory, of_fleet]: [&Path; 2],
    cores: Cores,
    playing: &Playing,
) -> anyhow::Result<Vec<Row>> {
    let measures = Measure::chosen(&args.only);
    let (file, profile) = (args.policy.clone(), args.profile.clone());
    let policy = tokio::task::spawn_blocking(move || Policy::read(file.as_ref(), profile)).await??;
    let mut installation = Installation::start(directory, cores).await?;
    installation.import(POLICY, &policy.source).await?;
    let join_token = installation.token(ComponentType::PostureCollectionService, args.collectors, &[FLEET]).await?;
    let fleet = Arc::new(Fleet::new(FleetSettings {
        directory: of_fleet.to_owned(),
        join_token,
        seed: args.machines.seed,
        variety_percent: args.machines.variety,
        root: args.machines.root.clone(),
    })?);
    *locked(playing) = Some(Arc::clone(&fleet));
    if measures.iter().any(|measure| measure.needs_fleet()) {
        join(&mut installation, &fleet, args.collectors).await?;
    }
    let root = args.machines.root.clone();
    let collectors = args.collectors;
    let mut ground = Ground {
        installation,
        fleet,
        collectors,
        policy,
        root,
        is_evaluated: false,
        is_watched_there: false,
        peaks: None,
    };
    let mut rows = Vec::new();
    for measure in measures {
        show::note(format!("{}: {}", measure.name(), measure.what(&ground)));
        let outcome = measure.take(&mut ground).await;
        // Where a program has ended, that is why.
        let outcome = ground.installation.check().and(outcome);
        let row = Row { measure, what: measure.what(&ground), target: measure.target(), outcome };
        show::note(format!("{}: {}", measure.name(), row.measured()));
        rows.push(row);
    }
    Ok(rows)
}

/// Has the fleet join.
async fn join(installation: &mut Installation, fleet: &Arc<Fleet>, collectors: u64) -> anyhow::Result<()> {
    let began = Instant::now();
    let joining = tokio::spawn({
        let fleet = Arc::clone(fleet);
        async move { fleet.join(collectors).await }
    });
    let patience = Duration::from_mins(1) + Duration::from_millis(JOIN_MILLIS) * u32::try_from(collectors)?;
    let mut word = began;
    let all = async |_: &Installation| {
        let (active, failed) = (fleet.counts.active.load(Relaxed), fleet.counts.failed.load(Relaxed));
        if failed > 0 {
            bail!("{failed} simulated collectors could not join");
        }
        if word.elapsed() >= WORD {
            word = Instant::now();
            show::note(format!("{active} of {collectors} collectors have joined"));
        }
        Ok((active == collectors).then_some(()))
    };
    installation.wait_for("all simulated collectors have joined", patience, all).await?;
    joining.await??;
    show::note(format!("{collectors} collectors have joined in {}", figures::time(began.elapsed())));
    Ok(())
}

impl Ground {
    /// Has the policy evaluated on the whole fleet, where it was not yet.
    async fn evaluate_once(&mut self) -> anyhow::Result<()> {
        if !self.is_evaluated {
            show::note("everything is collected and evaluated once");
            let ask = proto::operator::Ask::Evaluate(workflow::on_fleet(self.policy.profile.as_ref()));
            let transaction = workflow::begin(&self.installation, ask).await?;
            let view = workflow::end(&self.installation, transaction).await?;
            if view.state != "completed" {
                bail!("the evaluation before it is {}", view.state);
            }
            self.is_evaluated = true;
        }
        Ok(())
    }

    /// Makes the policy known that reads a file of the real collector.
    async fn import_watched(&mut self) -> anyhow::Result<()> {
        if !self.is_watched_there {
            self.installation.import(policy::WATCHED, policy::watched().as_bytes()).await?;
            self.is_watched_there = true;
        }
        Ok(())
    }

    /// Has one of the fleet look at the root: it looks for all of them, which no machine of a fleet would have to.
    async fn look_once(&self) -> anyhow::Result<()> {
        let workflow = proto::operator::Workflow {
            targets: vec!["sim-00000".to_owned()],
            ..workflow::on_fleet(self.policy.profile.as_ref())
        };
        let transaction = workflow::begin(&self.installation, proto::operator::Ask::Collect(workflow)).await?;
        let view = workflow::end(&self.installation, transaction).await?;
        if view.account.answered == 1 {
            Ok(())
        } else {
            bail!("a collector that was asked first is {:?}", view.account)
        }
    }

    /// Seconds between two heartbeats of each component, as the orchestrator has it for so many.
    fn heartbeat(&self) -> Duration {
        let components = usize::try_from(self.collectors).unwrap_or(usize::MAX).saturating_add(3);
        Duration::from_secs(orchestrator::core::pacing::heartbeat_seconds(components))
    }
}
