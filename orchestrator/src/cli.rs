//! The words on the command line.

use std::path::PathBuf;

use clap::Parser;
use service::config::Seconds;

/// The orchestrator of a Muster installation, with the broker inside.
#[derive(Debug, Parser)]
#[command(name = "muster-orchestrator", version)]
pub(crate) struct Cli {
    /// Configuration file.
    #[arg(long, env = "MUSTER_CONFIG")]
    pub(crate) config: Option<PathBuf>,
    /// Data directory.
    #[arg(long, env = "MUSTER_DATA")]
    pub(crate) data: Option<PathBuf>,
    /// Address and port that the broker listens on.
    #[arg(long, env = "MUSTER_LISTEN")]
    pub(crate) listen: Option<String>,
    /// Address and port that join tokens tell components to connect to.
    #[arg(long, env = "MUSTER_ADVERTISE")]
    pub(crate) advertise: Option<String>,
    /// How long a component's certificate holds, such as 12h or 30d; it renews itself at half of that.
    #[arg(long, env = "MUSTER_CERTIFICATE_LIFETIME")]
    pub(crate) certificate_lifetime: Option<Seconds>,
    /// File with a passphrase that encrypts the CA's key at rest.
    #[arg(long, env = "MUSTER_CA_PASSPHRASE_FILE", value_name = "FILE")]
    pub(crate) ca_passphrase_file: Option<PathBuf>,
    /// Certificate (PEM) of a CA of your own, such as an intermediate, for the first start.
    #[arg(long, env = "MUSTER_CA_CERTIFICATE", value_name = "FILE", requires = "ca_key")]
    pub(crate) ca_certificate: Option<PathBuf>,
    /// Its key (PEM, PKCS #8; encrypted with the passphrase, or in the clear).
    #[arg(long, env = "MUSTER_CA_KEY", value_name = "FILE", requires = "ca_certificate")]
    pub(crate) ca_key: Option<PathBuf>,
    /// A machine whose component was evicted has its old label and history at once when it joins anew.
    #[arg(long, env = "MUSTER_TAKE_BACK_ENDPOINTS")]
    pub(crate) take_back_endpoints: bool,
    /// Keep a join token for each type of component in this directory, in TYPE/token: whoever may read the file may join.
    #[arg(long, env = "MUSTER_JOIN_TOKENS", value_name = "DIR")]
    pub(crate) join_tokens: Option<PathBuf>,
}
