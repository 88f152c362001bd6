//! `muster-repository`.

use clap::Parser;
use repository::{RunError, Settings};
use service::config::join_token;
use service::daemon::{self, AFTER_HELP, MemberArgs};
use service::{health, reload, shutdown};

service::allocator!();

/// The repository of a Muster installation.
#[derive(Debug, Parser)]
#[command(name = "muster-repository", version, after_help = AFTER_HELP)]
struct Cli {
    /// The words of those that join.
    #[command(flatten)]
    member: MemberArgs,
    /// File with the URL of a PostgreSQL database to keep everything in.
    #[arg(long, value_name = "FILE")]
    database_file: Option<String>,
}

fn main() -> anyhow::Result<()> {
    service::process::take_small_pages();
    // Before there are threads.
    service::process::step_back();
    tokio::runtime::Runtime::new()?.block_on(run())
}

async fn run() -> anyhow::Result<()> {
    let Cli { member: cli, database_file } = Cli::parse();
    service::telemetry::start(service::telemetry::INFO);
    let (is_check, is_health) = (cli.daemon.check, cli.health);
    let load = move || cli.load("repository", [("database-file", database_file.clone())]);
    let sources = load()?;
    let config = sources.config().repository;
    let settings = Settings::try_from(&config)?;
    if is_check {
        daemon::tell_checked();
        return Ok(());
    }
    if is_health {
        return Ok(health::check(&settings.data)?);
    }
    daemon::begin();
    let live = settings.clone();
    reload::on_hangup("repository", sources, load, move |config| live.take_over(&config.repository));
    let mut shutdown = shutdown::on_signal();
    let waits = join_token(&settings.data, config.join_token.as_ref(), config.join_token_file.as_ref());
    let Some(join_token) = shutdown.unless_requested(waits).await.transpose()? else { return Ok(()) };
    let ended = repository::run(Settings { join_token, ..settings }, shutdown).await;
    if let Err(RunError::Member(error)) = &ended {
        daemon::leave_if_dismissed(error);
    }
    Ok(ended?)
}
