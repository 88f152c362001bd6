//! `muster-pcs-agent`.

use clap::Parser as _;
use pcs_agent::{RunError, Settings};
use service::config::join_token;
use service::{daemon, health, reload, shutdown};

mod cli;

// A collector is a guest: two threads do, one of them for the bus, and whatever else the endpoint does comes first. The
// priority at its disks follows from this one (ioprio_set(2)).
fn main() -> anyhow::Result<()> {
    pcs_agent::script::run_if_asked();
    // Where that is not allowed it looks all the same.
    let _ = rustix::process::nice(pcs_agent::limits::NICENESS);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    runtime.block_on(collect())
}

async fn collect() -> anyhow::Result<()> {
    let cli = cli::Cli::parse();
    service::telemetry::start(service::telemetry::INFO);
    let sources = cli.load()?;
    let config = sources.config().pcs_agent;
    let settings = Settings::try_from(&config)?;
    if cli.member.daemon.check {
        daemon::tell_checked();
        return Ok(());
    }
    if cli.member.health {
        return Ok(health::check(&settings.data)?);
    }
    daemon::begin();
    let live = settings.clone();
    reload::on_hangup("pcs-agent", sources, move || cli.load(), move |config| live.take_over(&config.pcs_agent));
    let mut shutdown = shutdown::on_signal();
    let waits = join_token(&settings.data, config.join_token.as_ref(), config.join_token_file.as_ref());
    let Some(join_token) = shutdown.unless_requested(waits).await.transpose()? else { return Ok(()) };
    let ended = pcs_agent::run(Settings { join_token, ..settings }, shutdown).await;
    if let Err(RunError::Member(error)) = &ended {
        daemon::leave_if_dismissed(error);
    }
    Ok(ended?)
}
