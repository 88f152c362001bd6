//! The words that all daemons take, and what they do before they serve.

use std::path::PathBuf;

use crate::config::{ConfigError, Sources};
use crate::member::MemberError;
use crate::supervisor;

/// What stands at the end of a daemon's help.
pub const AFTER_HELP: &str = "Each flag is also a key of the configuration file and a variable, such as --data, `data` and \
    MUSTER_DATA. Some keys have no flag: `muster config reference` explains all of them.";

/// The words of every daemon.
#[derive(Debug, clap::Args)]
pub struct DaemonArgs {
    /// Configuration file.
    #[arg(long, env = "MUSTER_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    /// Data directory.
    #[arg(long, value_name = "DIR")]
    data: Option<String>,
    /// Check the configuration, and end.
    #[arg(long)]
    pub check: bool,
}

impl DaemonArgs {
    /// What the file, the environment and these flags say together.
    pub fn load<'flag>(
        &self,
        table: &str,
        flags: impl IntoIterator<Item = (&'flag str, Option<String>)>,
    ) -> Result<Sources, ConfigError> {
        let mut sources = Sources::read(self.config.as_deref())?;
        sources.add_flags(table, [("data", self.data.clone())])?;
        sources.add_flags(table, flags)?;
        Ok(sources)
    }
}

/// The words of those that join.
#[derive(Debug, clap::Args)]
pub struct MemberArgs {
    /// The words of every daemon.
    #[command(flatten)]
    pub daemon: DaemonArgs,
    /// Join token, for the first start.
    #[arg(long, value_name = "TOKEN")]
    join_token: Option<String>,
    /// File with the join token, for the first start; waited for where it is not there yet.
    #[arg(long, value_name = "FILE")]
    join_token_file: Option<String>,
    /// Where the broker is, if not where it was when this component joined.
    #[arg(long, value_name = "HOST:PORT")]
    broker: Option<String>,
    /// Say whether the component with this data directory is active, and end.
    #[arg(long)]
    pub health: bool,
}

impl MemberArgs {
    /// What the file, the environment and these flags say together; `more` are the flags of this daemon alone.
    pub fn load<'flag>(
        &self,
        table: &str,
        more: impl IntoIterator<Item = (&'flag str, Option<String>)>,
    ) -> Result<Sources, ConfigError> {
        let own = [
            ("join-token", self.join_token.clone()),
            ("join-token-file", self.join_token_file.clone()),
            ("broker", self.broker.clone()),
        ];
        self.daemon.load(table, own.into_iter().chain(more))
    }
}

/// What a member that was put out ends with (sysexits: EX_NOPERM): whoever watches it need not start it again.
pub const DISMISSED: i32 = 77;

/// Ends the process of a member that was put out, and says why.
pub fn leave_if_dismissed(error: &MemberError) {
    if let MemberError::Dismissed(fault) = error {
        tracing::error!(%fault, "this component is no member any more; with a new token, and --join-token, it may join again");
        supervisor::status(&format!("was put out: {fault}"));
        std::process::exit(DISMISSED);
    }
}

/// The configuration was checked, and that was all that was wanted.
pub fn tell_checked() {
    tracing::info!("the configuration can be used");
}

/// Tells the service manager that this process runs, and from now on that it is alive. Must be called inside a tokio runtime.
pub fn begin() {
    static BEGUN: std::sync::Once = std::sync::Once::new();
    BEGUN.call_once(|| {
        supervisor::keep_alive();
        supervisor::ready();
    });
}
