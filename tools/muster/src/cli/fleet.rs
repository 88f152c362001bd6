//! The words of `muster simulate` and `muster measure`.

use std::path::PathBuf;

use clap::Args;

use crate::measure::Measure;

pub(super) const MEASURE_HELP: &str = "\
The programs muster-orchestrator, muster-repository, muster-pes-evaluator and muster-pcs-agent have to be beside muster. They run as \
in production, with TLS, signatures and everything flushed to disk, in a temporary directory that is removed at the end. The \
servers have one core, simulated collectors another. Targets are those for 10,000 collectors.
Exit codes: 0 everything was measured, whether or not targets are met; 2 something could not be measured; 1 an error, or stopped.";

/// What the machines of a simulated fleet are like.
#[derive(Debug, Args)]
pub(crate) struct MachinesArgs {
    /// Of 100 objects, how many are otherwise than there.
    #[arg(long, default_value_t = 5, value_name = "PERCENT", value_parser = clap::value_parser!(u64).range(0..=100))]
    pub(crate) variety: u64,
    /// The same number gives the same machines.
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,
    /// What collectors report is what is found below this directory: the root of a machine like those of the fleet.
    #[arg(long, default_value = "/", value_name = "DIR")]
    pub(crate) root: PathBuf,
}

/// `muster simulate`
#[derive(Debug, Args)]
pub(crate) struct SimulateArgs {
    /// How many.
    #[arg(long, default_value_t = 100)]
    pub(crate) collectors: u64,
    /// A join token for as many uses: `muster token create --type pcs --uses 100`.
    #[arg(long, env = "MUSTER_JOIN_TOKEN", hide_env_values = true)]
    pub(crate) join_token: String,
    /// Keep their keys and outboxes in this directory: run again, they are the same. Without, they are removed at the end.
    #[arg(long, value_name = "DIR")]
    pub(crate) keep: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) machines: MachinesArgs,
}

/// `muster measure`
#[derive(Debug, Args)]
pub(crate) struct MeasureArgs {
    /// How many collectors are simulated.
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u64).range(1..=100_000))]
    pub(crate) collectors: u64,
    /// Measure this alone; several with commas between them.
    #[arg(long, value_enum, value_name = "MEASURE", value_delimiter = ',')]
    pub(crate) only: Vec<Measure>,
    /// A data stream whose rules are evaluated; without, the baseline that comes with Muster.
    #[arg(long, value_name = "FILE")]
    pub(crate) policy: Option<PathBuf>,
    /// A profile of it, by its id or the end of it.
    #[arg(long)]
    pub(crate) profile: Option<String>,
    #[command(flatten)]
    pub(crate) machines: MachinesArgs,
    /// Keep data and logs of the installation in this directory, which is made, or is empty. Without, they are removed at the end.
    #[arg(long, value_name = "DIR")]
    pub(crate) keep: Option<PathBuf>,
}
