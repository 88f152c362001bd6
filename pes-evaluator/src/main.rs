//! `muster-pes-evaluator`.

use std::path::PathBuf;

use clap::Parser;
use service::config::{Config, join_token};

service::allocator!();

/// The evaluator of a Muster installation.
#[derive(Debug, Parser)]
#[command(name = "muster-pes-evaluator", version)]
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
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let cli = Cli::parse();
    service::telemetry::start("info");
    let config = Config::load(cli.config.as_deref())?.pes_evaluator;
    let settings = pes_evaluator::Settings {
        data: cli.data.or(config.data).unwrap_or_else(|| PathBuf::from("/var/lib/muster/pes-evaluator")),
        join_token: join_token(cli.join_token, config.join_token.as_ref(), config.join_token_file.as_ref())?,
        broker: cli.broker.or(config.broker),
        name: config.name.unwrap_or_else(|| "evaluator".to_owned()),
    };
    Ok(pes_evaluator::run(settings, service::shutdown::on_signal()).await?)
}
