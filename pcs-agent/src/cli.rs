//! The words on the command line.

use clap::Parser;
use service::config::{ConfigError, Sources};
use service::daemon::{AFTER_HELP, MemberArgs};

/// The collector of a Muster installation: looks at the machine that it runs on.
#[derive(Debug, Parser)]
#[command(name = "muster-pcs-agent", version, after_help = AFTER_HELP)]
pub(crate) struct Cli {
    /// The words of those that join.
    #[command(flatten)]
    pub(crate) member: MemberArgs,
    /// Root directory of the endpoint.
    #[arg(long, value_name = "DIR")]
    root: Option<String>,
    /// The TPM that ties the endpoint to its machine, such as /dev/tpmrm0 (in builds with the feature `tpm`).
    #[arg(long, value_name = "PATH")]
    tpm: Option<String>,
    /// What one task may cost this machine, such as cpu=20%,memory=64M,read=200M,time=60s.
    #[arg(long)]
    budget: Option<String>,
}

impl Cli {
    /// What the file, the environment and these words say together.
    pub(crate) fn load(&self) -> Result<Sources, ConfigError> {
        let own = [("root", self.root.clone()), ("tpm", self.tpm.clone()), ("budget", self.budget.clone())];
        self.member.load("pcs-agent", own)
    }
}
