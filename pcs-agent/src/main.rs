//! `muster-pcs-agent`.

use std::path::PathBuf;

use clap::Parser;
use proto::budget::Budget;
use service::config::{Config, join_token};

/// The collector of a Muster installation: looks at the machine that it runs on.
#[derive(Debug, Parser)]
#[command(name = "muster-pcs-agent", version)]
struct Cli {
    /// Configuration file.
    #[arg(long, env = "MUSTER_CONFIG")]
    config: Option<PathBuf>,
    /// Data directory.
    #[arg(long, env = "MUSTER_DATA")]
    data: Option<PathBuf>,
    /// Join token, for the first start.
    #[arg(long, env = "MUSTER_JOIN_TOKEN", hide_env_values = true)]
    join_token: Option<String>,
    /// Where the broker is, if not where it was when this component joined.
    #[arg(long, env = "MUSTER_BROKER", value_name = "HOST:PORT")]
    broker: Option<String>,
    /// Root directory of the endpoint.
    #[arg(long)]
    root: Option<PathBuf>,
    /// The TPM that ties the endpoint to its machine, such as /dev/tpmrm0 (in builds with the feature `tpm`).
    #[arg(long, env = "MUSTER_TPM", value_name = "PATH")]
    tpm: Option<PathBuf>,
    /// What one task may cost this machine, such as cpu=20%,memory=64M,read=200M,time=60s.
    #[arg(long, env = "MUSTER_BUDGET")]
    budget: Option<Budget>,
}

// A collector is a guest: two threads do, one of them for the bus.
#[tokio::main(flavor = "multi_thread", worker_threads = 1)]
async fn main() -> anyhow::Result<()> {
    let cli = Cli::parse();
    service::telemetry::start("info");
    let config = Config::load(cli.config.as_deref())?.pcs_agent;
    let settings = pcs_agent::Settings {
        data: cli.data.or(config.data).unwrap_or_else(|| PathBuf::from("/var/lib/muster/pcs-agent")),
        join_token: join_token(cli.join_token, config.join_token.as_ref(), config.join_token_file.as_ref())?,
        broker: cli.broker.or(config.broker),
        name: config.name,
        root: cli.root.or(config.root).unwrap_or_else(|| PathBuf::from("/")),
        tpm: cli.tpm.or(config.tpm),
        budget: cli.budget.or(config.budget).unwrap_or_default(),
    };
    Ok(pcs_agent::run(settings, service::shutdown::on_signal()).await?)
}
