//! `muster-pes-evaluator`.

use clap::Parser;
use pes_evaluator::{RunError, Settings};
use service::config::{Config, join_token};
use service::daemon::{self, AFTER_HELP, MemberArgs};
use service::{health, reload, shutdown};

service::allocator!();

/// The evaluator of a Muster installation.
#[derive(Debug, Parser)]
#[command(name = "muster-pes-evaluator", version, after_help = AFTER_HELP)]
struct Cli {
    /// The words of those that join.
    #[command(flatten)]
    member: MemberArgs,
}

fn main() -> anyhow::Result<()> {
    service::process::take_small_pages();
    // Before there are threads.
    service::process::step_back();
    tokio::runtime::Runtime::new()?.block_on(run())
}

async fn run() -> anyhow::Result<()> {
    let cli = Cli::parse().member;
    service::telemetry::start(service::telemetry::INFO);
    let sources = cli.load("pes-evaluator", [])?;
    let config = sources.config().pes_evaluator;
    let settings = Settings::try_from(&config)?;
    if cli.daemon.check {
        daemon::tell_checked();
        return Ok(());
    }
    if cli.health {
        return Ok(health::check(&settings.data)?);
    }
    daemon::begin();
    let check = |config: &Config| Settings::try_from(&config.pes_evaluator).map(|_| ());
    reload::on_hangup("pes-evaluator", sources, move || cli.load("pes-evaluator", []), check);
    let mut shutdown = shutdown::on_signal();
    let waits = join_token(&settings.data, config.join_token.as_ref(), config.join_token_file.as_ref());
    let Some(join_token) = shutdown.unless_requested(waits).await.transpose()? else { return Ok(()) };
    let ended = pes_evaluator::run(Settings { join_token, ..settings }, shutdown).await;
    if let Err(RunError::Member(error)) = &ended {
        daemon::leave_if_dismissed(error);
    }
    Ok(ended?)
}
