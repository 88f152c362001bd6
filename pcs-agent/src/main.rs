//! `muster-pcs-agent`.

use std::path::PathBuf;

use clap::Parser as _;
use service::config::{Config, join_token};
use service::health;

mod cli;

// A collector is a guest: two threads do, one of them for the bus, and whatever else the endpoint does comes first. The
// priority at its disks follows from this one (ioprio_set(2)).
fn main() -> anyhow::Result<()> {
    // Where that is not allowed it looks all the same.
    let _ = rustix::process::nice(pcs_agent::limits::NICENESS);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    runtime.block_on(collect())
}

async fn collect() -> anyhow::Result<()> {
    let cli = cli::Cli::parse();
    service::telemetry::start("info");
    let config = Config::load(cli.config.as_deref())?.pcs_agent;
    let data = cli.data.or(config.data).unwrap_or_else(|| PathBuf::from("/var/lib/muster/pcs-agent"));
    if cli.health {
        return Ok(health::check(&data)?);
    }
    let file = cli.join_token_file.or(config.join_token_file);
    let join_token = join_token(&data, cli.join_token, config.join_token.as_ref(), file.as_ref()).await?;
    let settings = pcs_agent::Settings {
        data,
        join_token,
        broker: cli.broker.or(config.broker),
        name: config.name,
        root: cli.root.or(config.root).unwrap_or_else(|| PathBuf::from("/")),
        tpm: cli.tpm.or(config.tpm),
        budget: cli.budget.or(config.budget).unwrap_or_default(),
    };
    Ok(pcs_agent::run(settings, service::shutdown::on_signal()).await?)
}
