//! `muster-orchestrator`.

use std::path::PathBuf;

use clap::Parser;
use service::config::{Config, Seconds};

service::allocator!();

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
    /// How long a component's certificate holds, such as 12h or 30d; it renews itself at half of that.
    #[arg(long, env = "MUSTER_CERTIFICATE_LIFETIME")]
    certificate_lifetime: Option<Seconds>,
    /// File with a passphrase that encrypts the CA's key at rest.
    #[arg(long, env = "MUSTER_CA_PASSPHRASE_FILE", value_name = "FILE")]
    ca_passphrase_file: Option<PathBuf>,
    /// Certificate (PEM) of a CA of your own, such as an intermediate, for the first start.
    #[arg(long, env = "MUSTER_CA_CERTIFICATE", value_name = "FILE", requires = "ca_key")]
    ca_certificate: Option<PathBuf>,
    /// Its key (PEM, PKCS #8; encrypted with the passphrase, or in the clear).
    #[arg(long, env = "MUSTER_CA_KEY", value_name = "FILE", requires = "ca_certificate")]
    ca_key: Option<PathBuf>,
    /// A machine whose component was evicted has its old label and history at once when it joins anew.
    #[arg(long, env = "MUSTER_TAKE_BACK_ENDPOINTS")]
    take_back_endpoints: bool,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let cli = Cli::parse();
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
        keep_workflows: config.keep_workflows.map_or(orchestrator::KEEP_WORKFLOWS, Seconds::duration),
    };
    Ok(orchestrator::run(settings, service::shutdown::on_signal(), None).await?)
}
