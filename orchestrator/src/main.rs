//! `muster-orchestrator`.

use std::path::PathBuf;

use clap::Parser as _;
use service::config::{Config, Seconds};

mod cli;

service::allocator!();

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let cli = cli::Cli::parse();
    service::telemetry::start("info");
    let config = Config::load(cli.config.as_deref())?.orchestrator;
    let lifetime = cli.certificate_lifetime.or(config.certificate_lifetime).map(|Seconds(seconds)| seconds);
    let settings = orchestrator::Settings {
        data: cli.data.or(config.data).unwrap_or_else(|| PathBuf::from("/var/lib/muster/orchestrator")),
        listen: cli.listen.or(config.listen).unwrap_or_else(|| "0.0.0.0:8883".to_owned()),
        advertise: cli.advertise.or(config.advertise),
        certificate_seconds: lifetime.map_or(orchestrator::CERTIFICATE_SECONDS, u64::cast_signed),
        ca_passphrase: service::config::secret(cli.ca_passphrase_file.or(config.ca_passphrase_file).as_ref())?,
        ca: cli.ca_certificate.zip(cli.ca_key).or(config.ca_certificate.zip(config.ca_key)),
        takes_back_endpoints: cli.take_back_endpoints || config.take_back_endpoints,
        join_tokens: cli.join_tokens.or(config.join_tokens),
        keep_workflows: config.keep_workflows.map_or(orchestrator::KEEP_WORKFLOWS, Seconds::duration),
    };
    Ok(orchestrator::run(settings, service::shutdown::on_signal(), None).await?)
}
