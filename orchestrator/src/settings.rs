//! What an orchestrator is told before it runs, and what of that may change while it does.

use std::path::PathBuf;

use jiff::SignedDuration;
use service::config::{self, ConfigError, OrchestratorConfig, Seconds};
use service::reload::Live;
use store::postgres::DatabaseUrl;

use crate::external::ExternalBroker;
use crate::feeds::FeedLimits;
use crate::lease;
use crate::retention::KEEP_DAYS_MIN;

/// What an orchestrator needs to run.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Its data directory.
    pub data: PathBuf,
    /// Where the broker listens.
    pub listen: String,
    /// Where components are told to connect, if not there.
    pub advertise: Option<String>,
    /// Another broker, at which members are.
    pub external_broker: Option<ExternalBroker>,
    /// Seconds that a certificate holds; it is renewed at half of that.
    pub certificate_seconds: i64,
    /// Encrypts the CA's key at rest.
    pub ca_passphrase: Option<String>,
    /// A CA that the operator brings: files with its certificate and key, PEM.
    pub ca: Option<(PathBuf, PathBuf)>,
    /// Whether a machine whose component was put out has its label again when it joins anew, without being asked for.
    pub takes_back_endpoints: Live<bool>,
    /// How long workflows that have ended are kept.
    pub keep_workflows: Live<SignedDuration>,
    /// A directory in which a join token for each type of component is kept.
    pub join_tokens: Option<PathBuf>,
    /// How long servers of feeds are waited for, and how much is taken of them.
    pub feeds: FeedLimits,
    /// A database that other orchestrators may share, instead of a file in the data directory.
    pub database: Option<DatabaseUrl>,
}

impl Settings {
    /// With everything that may be left out left out.
    pub fn new(data: PathBuf, listen: String) -> Self {
        Self {
            data,
            listen,
            advertise: None,
            external_broker: None,
            certificate_seconds: CERTIFICATE_SECONDS,
            ca_passphrase: None,
            ca: None,
            takes_back_endpoints: false.into(),
            keep_workflows: KEEP_WORKFLOWS.into(),
            join_tokens: None,
            feeds: FeedLimits::default(),
            database: None,
        }
    }
}

impl TryFrom<&OrchestratorConfig> for Settings {
    type Error = ConfigError;

    fn try_from(config: &OrchestratorConfig) -> Result<Self, ConfigError> {
        let wrong = |key, reason: String| ConfigError::Value { key, reason };
        let keep_workflows = config.keep_workflows.map_or(KEEP_WORKFLOWS, Seconds::duration);
        if keep_workflows < KEEP_WORKFLOWS_MIN {
            return Err(wrong("keep-workflows", kept_too_short()));
        }
        let ca = match (&config.ca_certificate, &config.ca_key) {
            (Some(certificate), Some(key)) => Some((certificate.clone(), key.clone())),
            (None, None) => None,
            _ => return Err(wrong("ca-certificate", "it is given with `ca-key`, or not at all".to_owned())),
        };
        let data = config.data.clone().unwrap_or_else(|| PathBuf::from("/var/lib/muster/orchestrator"));
        let listen = config::address("listen", config.listen.as_ref())?.unwrap_or_else(|| "0.0.0.0:8883".to_owned());
        Ok(Self {
            external_broker: ExternalBroker::of(config)?,
            advertise: config::address("advertise", config.advertise.as_ref())?,
            certificate_seconds: config
                .certificate_lifetime
                .map_or(CERTIFICATE_SECONDS, |lifetime| lifetime.0.cast_signed()),
            ca_passphrase: config::secret("ca-passphrase", config.ca_passphrase_file.as_ref())?,
            ca,
            takes_back_endpoints: config.take_back_endpoints.into(),
            keep_workflows: keep_workflows.into(),
            join_tokens: config.join_tokens.clone(),
            database: lease::database(config)?,
            ..Self::new(data, listen)
        })
    }
}

impl Settings {
    /// Takes over what of a configuration may change while it runs.
    pub fn take_over(&self, config: &OrchestratorConfig) -> Result<(), ConfigError> {
        let new = Self::try_from(config)?;
        self.takes_back_endpoints.follow(&new.takes_back_endpoints);
        self.keep_workflows.follow(&new.keep_workflows);
        Ok(())
    }
}

/// Seconds that a certificate holds, unless the configuration says otherwise: 30 days.
pub const CERTIFICATE_SECONDS: i64 = 30 * 86_400;

/// How long workflows that have ended are kept, unless the configuration says otherwise.
pub const KEEP_WORKFLOWS: SignedDuration = KEEP_WORKFLOWS_MIN;

/// How long they are kept at least.
pub(crate) const KEEP_WORKFLOWS_MIN: SignedDuration = SignedDuration::from_hours(24 * KEEP_DAYS_MIN);

pub(crate) fn kept_too_short() -> String {
    format!("it is at least {KEEP_DAYS_MIN}d: a report that waited for its network may come in so late")
}
