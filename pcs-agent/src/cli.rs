//! The words on the command line.

use std::path::PathBuf;

use clap::Parser;
use proto::budget::Budget;

/// The collector of a Muster installation: looks at the machine that it runs on.
#[derive(Debug, Parser)]
#[command(name = "muster-pcs-agent", version)]
pub(crate) struct Cli {
    /// Configuration file.
    #[arg(long, env = "MUSTER_CONFIG")]
    pub(crate) config: Option<PathBuf>,
    /// Data directory.
    #[arg(long, env = "MUSTER_DATA")]
    pub(crate) data: Option<PathBuf>,
    /// Join token, for the first start.
    #[arg(long, env = "MUSTER_JOIN_TOKEN", hide_env_values = true)]
    pub(crate) join_token: Option<String>,
    /// File with the join token, for the first start; waited for where it is not there yet.
    #[arg(long, env = "MUSTER_JOIN_TOKEN_FILE", value_name = "FILE")]
    pub(crate) join_token_file: Option<PathBuf>,
    /// Say whether the component with this data directory is active, and end.
    #[arg(long)]
    pub(crate) health: bool,
    /// Where the broker is, if not where it was when this component joined.
    #[arg(long, env = "MUSTER_BROKER", value_name = "HOST:PORT")]
    pub(crate) broker: Option<String>,
    /// Root directory of the endpoint.
    #[arg(long, env = "MUSTER_ROOT", value_name = "DIR")]
    pub(crate) root: Option<PathBuf>,
    /// The TPM that ties the endpoint to its machine, such as /dev/tpmrm0 (in builds with the feature `tpm`).
    #[arg(long, env = "MUSTER_TPM", value_name = "PATH")]
    pub(crate) tpm: Option<PathBuf>,
    /// What one task may cost this machine, such as cpu=20%,memory=64M,read=200M,time=60s.
    #[arg(long, env = "MUSTER_BUDGET")]
    pub(crate) budget: Option<Budget>,
}
