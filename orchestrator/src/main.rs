//! `muster-orchestrator`.

use clap::Parser as _;
use service::{daemon, reload, shutdown};
use tokio::sync::oneshot;

mod cli;

service::allocator!();

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let cli = cli::Cli::parse();
    service::process::take_small_pages();
    service::telemetry::start(service::telemetry::INFO);
    let sources = cli.load()?;
    let settings = orchestrator::Settings::try_from(&sources.config().orchestrator)?;
    if cli.daemon.check {
        daemon::tell_checked();
        return Ok(());
    }
    let live = settings.clone();
    reload::on_hangup("orchestrator", sources, move || cli.load(), move |config| live.take_over(&config.orchestrator));
    let (ready, is_ready) = oneshot::channel();
    tokio::spawn(async move {
        if is_ready.await.is_ok() {
            daemon::begin();
        }
    });
    Ok(orchestrator::run(settings, shutdown::on_signal(), Some(ready)).await?)
}
