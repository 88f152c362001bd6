//! The words on the command line.

use clap::Parser;
use service::config::{ConfigError, Sources};
use service::daemon::{AFTER_HELP, DaemonArgs};

/// The orchestrator of a Muster installation, with the broker inside.
#[derive(Debug, Parser)]
#[command(name = "muster-orchestrator", version, after_help = AFTER_HELP)]
pub(crate) struct Cli {
    /// The words of every daemon.
    #[command(flatten)]
    pub(crate) daemon: DaemonArgs,
    /// Address and port that the broker listens on.
    #[arg(long, value_name = "ADDRESS:PORT")]
    listen: Option<String>,
    /// Address and port that join tokens tell components to connect to.
    #[arg(long, value_name = "HOST:PORT")]
    advertise: Option<String>,
    /// Address of a broker that is not the embedded one: members connect there.
    #[arg(long, value_name = "HOST:PORT")]
    external_broker: Option<String>,
    /// Keep settings, certificate and access list for that broker in this directory.
    #[arg(long, value_name = "DIR")]
    external_broker_config: Option<String>,
    /// How long a component's certificate holds, such as 12h or 30d; it renews itself at half of that.
    #[arg(long, value_name = "TIME")]
    certificate_lifetime: Option<String>,
    /// File with a passphrase that encrypts the CA's key at rest.
    #[arg(long, value_name = "FILE")]
    ca_passphrase_file: Option<String>,
    /// Certificate (PEM) of a CA of your own, such as an intermediate, for the first start.
    #[arg(long, value_name = "FILE")]
    ca_certificate: Option<String>,
    /// Its key (PEM, PKCS #8; encrypted with the passphrase, or in the clear).
    #[arg(long, value_name = "FILE")]
    ca_key: Option<String>,
    /// A machine whose component was evicted has its old label and history at once when it joins anew.
    #[arg(long)]
    take_back_endpoints: bool,
    /// Keep a join token for each type of component in this directory, in TYPE/token: whoever may read the file may join.
    #[arg(long, value_name = "DIR")]
    join_tokens: Option<String>,
    /// File with the URL of a PostgreSQL database to keep everything in; other orchestrators may share it.
    #[arg(long, value_name = "FILE")]
    database_file: Option<String>,
}

impl Cli {
    /// What the file, the environment and these words say together.
    pub(crate) fn load(&self) -> Result<Sources, ConfigError> {
        let flags = [
            ("listen", self.listen.clone()),
            ("advertise", self.advertise.clone()),
            ("external-broker", self.external_broker.clone()),
            ("external-broker-config", self.external_broker_config.clone()),
            ("certificate-lifetime", self.certificate_lifetime.clone()),
            ("ca-passphrase-file", self.ca_passphrase_file.clone()),
            ("ca-certificate", self.ca_certificate.clone()),
            ("ca-key", self.ca_key.clone()),
            ("take-back-endpoints", self.take_back_endpoints.then(|| "true".to_owned())),
            ("join-tokens", self.join_tokens.clone()),
            ("database-file", self.database_file.clone()),
        ];
        self.daemon.load("orchestrator", flags)
    }
}
