//! `muster-orchestrator`.

use std::path::PathBuf;

use clap::Parser;
use service::config::Config;

/// The orchestrator of a Muster installation, with the broker inside.
#[derive(Debug, Parser)]
#[command(name = "muster-orchestrator", version)]
struct Cli {
    /// Configuration file.
    #[arg(long, env = "MUSTER_CONFIG")]
    config: Option<PathBuf>,
    /// Data directory.
    #[arg(long, env = "MUSTER_DATA")]
    data: Option<PathBuf>,
    /// Address and port that the broker listens on.
    #[arg(long, env = "MUSTER_LISTEN")]
    listen: Option<String>,
    /// Address and port that join tokens tell components to connect to.
    #[arg(long, env = "MUSTER_ADVERTISE")]
    advertise: Option<String>,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let cli = Cli::parse();
    service::telemetry::start("info");
    let config = Config::load(cli.config.as_deref())?.orchestrator;
    let settings = orchestrator::Settings {
        data: cli.data.or(config.data).unwrap_or_else(|| PathBuf::from("/var/lib/muster/orchestrator")),
        listen: cli.listen.or(config.listen).unwrap_or_else(|| "0.0.0.0:8883".to_owned()),
        advertise: cli.advertise.or(config.advertise),
    };
    Ok(orchestrator::run(settings, service::shutdown::on_signal(), None).await?)
}
