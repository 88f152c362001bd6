//! `muster-repository`.

use std::path::PathBuf;

use clap::Parser;
use service::config::{Config, join_token};
use service::health;

service::allocator!();

/// The repository of a Muster installation.
#[derive(Debug, Parser)]
#[command(name = "muster-repository", version)]
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
    /// File with the join token, for the first start; waited for where it is not there yet.
    #[arg(long, env = "MUSTER_JOIN_TOKEN_FILE", value_name = "FILE")]
    join_token_file: Option<PathBuf>,
    /// Say whether the component with this data directory is active, and end.
    #[arg(long)]
    health: bool,
    /// Where the broker is, if not where it was when this component joined.
    #[arg(long, env = "MUSTER_BROKER", value_name = "HOST:PORT")]
    broker: Option<String>,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let cli = Cli::parse();
    service::telemetry::start("info");
    let config = Config::load(cli.config.as_deref())?.repository;
    let retention = (&config).try_into()?;
    let data = cli.data.or(config.data).unwrap_or_else(|| PathBuf::from("/var/lib/muster/repository"));
    if cli.health {
        return Ok(health::check(&data)?);
    }
    let file = cli.join_token_file.or(config.join_token_file);
    let join_token = join_token(&data, cli.join_token, config.join_token.as_ref(), file.as_ref()).await?;
    let settings = repository::Settings {
        retention,
        data,
        join_token,
        broker: cli.broker.or(config.broker),
        name: config.name.unwrap_or_else(|| "repository".to_owned()),
    };
    Ok(repository::run(settings, service::shutdown::on_signal()).await?)
}
