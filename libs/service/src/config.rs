//! Configuration: one TOML file with a table for each daemon. Flags go before `MUSTER_…` variables, these before the file, the
//! file before what is built in. An unknown key is an error that names the nearest known one. [`mod@reference`] has every key.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use jiff::SignedDuration;
use proto::budget::Budget;
use serde::Deserialize;

use crate::token::host_and_port;
use crate::{member, supervisor};

pub mod reference;
mod sources;

pub use sources::{Origin, Sources};

/// How often a file is looked for that is not there yet.
const TOKEN_PAUSE: Duration = Duration::from_millis(200);

/// `muster.toml`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct Config {
    /// `[orchestrator]`
    pub orchestrator: OrchestratorConfig,
    /// `[repository]`
    pub repository: RepositoryConfig,
    /// `[pes-evaluator]`
    pub pes_evaluator: DaemonConfig,
    /// `[pcs-agent]`
    pub pcs_agent: CollectorConfig,
}

/// `[orchestrator]`
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct OrchestratorConfig {
    /// Data directory.
    pub data: Option<PathBuf>,
    /// Address and port that the broker listens on.
    pub listen: Option<String>,
    /// Address and port that components are told to connect to, where it is not `listen`.
    pub advertise: Option<String>,
    /// Another broker, at which members are.
    pub external_broker: Option<String>,
    /// The directory that is kept for it.
    pub external_broker_config: Option<PathBuf>,
    /// What it is.
    pub external_broker_kind: Option<String>,
    /// How long a component's certificate holds.
    pub certificate_lifetime: Option<Seconds>,
    /// File with a passphrase that encrypts the CA's key at rest.
    pub ca_passphrase_file: Option<PathBuf>,
    /// Certificate of a CA that the operator brings, for the first start.
    pub ca_certificate: Option<PathBuf>,
    /// Its key.
    pub ca_key: Option<PathBuf>,
    /// Whether a machine whose component was evicted has its old label at once when it joins anew.
    pub take_back_endpoints: bool,
    /// How long workflows that have ended are kept.
    pub keep_workflows: Option<Seconds>,
    /// A directory in which a join token for each type of component is kept.
    pub join_tokens: Option<PathBuf>,
    /// A PostgreSQL database, which another orchestrator may share, instead of a file in the data directory.
    pub database: Option<String>,
    /// A file with its URL.
    pub database_file: Option<PathBuf>,
}

/// A duration with its unit, such as `30m`, `1h` or `7d`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Seconds(pub u64);

impl Seconds {
    /// As a duration.
    pub fn duration(self) -> SignedDuration {
        SignedDuration::from_secs(self.0.cast_signed())
    }
}

impl FromStr for Seconds {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (number, unit) = text.split_at(text.len() - text.chars().last().map_or(0, char::len_utf8));
        let factor = match unit {
            "s" => 1,
            "m" => 60,
            "h" => 3_600,
            "d" => 86_400,
            _ => return Err("use a number with s, m, h or d, such as 30m".to_owned()),
        };
        let number: u64 = number.parse().map_err(|_| "use a number with s, m, h or d, such as 30m".to_owned())?;
        // More than a thousand years is a slip.
        let seconds = number.checked_mul(factor).filter(|seconds| (1..=31_536_000_000).contains(seconds));
        seconds.map(Self).ok_or_else(|| "too long, or nothing".to_owned())
    }
}

impl TryFrom<String> for Seconds {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

/// `[repository]`
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct RepositoryConfig {
    /// Data directory.
    pub data: Option<PathBuf>,
    /// A join token, for the first start.
    pub join_token: Option<String>,
    /// A file with the join token.
    pub join_token_file: Option<PathBuf>,
    /// Where the broker is, if not where it was when the component joined.
    pub broker: Option<String>,
    /// What operators call it.
    pub name: Option<String>,
    /// A PostgreSQL database instead of a file in the data directory.
    pub database: Option<String>,
    /// A file with its URL.
    pub database_file: Option<PathBuf>,
    /// How long observations are kept that hold no more.
    pub keep_observations: Option<Seconds>,
    /// The same, for kinds of items.
    pub keep_observations_of: BTreeMap<String, Seconds>,
    /// How long verdicts are kept that hold no more.
    pub keep_verdicts: Option<Seconds>,
    /// How long evaluations are kept that decided nothing anew.
    pub keep_evaluations: Option<Seconds>,
}

/// `[pes-evaluator]`
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct DaemonConfig {
    /// Data directory.
    pub data: Option<PathBuf>,
    /// A join token, for the first start.
    pub join_token: Option<String>,
    /// A file with the join token.
    pub join_token_file: Option<PathBuf>,
    /// Where the broker is, if not where it was when the component joined.
    pub broker: Option<String>,
    /// What operators call it.
    pub name: Option<String>,
}

/// `[pcs-agent]`
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct CollectorConfig {
    /// Data directory.
    pub data: Option<PathBuf>,
    /// A join token, for the first start.
    pub join_token: Option<String>,
    /// A file with the join token.
    pub join_token_file: Option<PathBuf>,
    /// Where the broker is, if not where it was when the component joined.
    pub broker: Option<String>,
    /// What operators call it.
    pub name: Option<String>,
    /// The root directory of the endpoint.
    pub root: Option<PathBuf>,
    /// The TPM that ties the endpoint to its machine.
    pub tpm: Option<PathBuf>,
    /// What one task may cost this machine.
    #[serde(deserialize_with = "parsed")]
    pub budget: Option<Budget>,
    /// The list of scripts that may run on this machine.
    pub scripts_allowed_file: Option<PathBuf>,
    /// The key that has signed that list.
    pub scripts_signer: Option<String>,
}

/// A value that stands in the file as people write it.
fn parsed<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<Budget>, D::Error> {
    let text = String::deserialize(deserializer)?;
    text.parse().map(Some).map_err(serde::de::Error::custom)
}

/// Why a configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("the configuration {path} cannot be read")]
    Io {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A file with a secret cannot be read.
    #[error("`{key}-file`: {path} cannot be read")]
    Secret {
        /// Of which key.
        key: &'static str,
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// It is not TOML, or a value has the wrong type.
    #[error("the configuration {path}: {reason}")]
    Invalid {
        /// Which file.
        path: PathBuf,
        /// What is wrong, with line and column.
        reason: String,
    },
    /// A key that nobody knows.
    #[error("the configuration {path} has an unknown key `{key}`{}", .nearest.as_ref().map(|near| format!("; did you mean `{near}`?")).unwrap_or_default())]
    UnknownKey {
        /// Which file.
        path: PathBuf,
        /// The key with its table.
        key: String,
        /// The known key that is most like it.
        nearest: Option<String>,
    },
    /// A variable whose name is almost that of a key.
    #[error("{name} is the variable of no key; did you mean {nearest}?")]
    UnknownVariable {
        /// Its name.
        name: String,
        /// The known one that is most like it.
        nearest: String,
    },
    /// A variable or a flag with a value that cannot be.
    #[error("{name}: {reason}")]
    Word {
        /// Which.
        name: String,
        /// What is wrong.
        reason: String,
    },
    /// A value that cannot be used here.
    #[error("`{key}`: {reason}")]
    Value {
        /// Of which key.
        key: &'static str,
        /// What is wrong.
        reason: String,
    },
    /// A secret stands in two places.
    #[error("`{key}` and `{key}-file` are both given: leave one out")]
    Twice {
        /// The key.
        key: &'static str,
    },
}

/// What the file of `KEY-file` holds, without the end of its line.
pub fn secret(key: &'static str, file: Option<&PathBuf>) -> Result<Option<String>, ConfigError> {
    let read = |path: &PathBuf| {
        std::fs::read_to_string(path)
            .map(|text| text.trim_end_matches(['\r', '\n']).to_owned())
            .map_err(|source| ConfigError::Secret { key, path: path.clone(), source })
    };
    file.map(read).transpose()
}

/// An address, if there is one.
pub fn address(key: &'static str, given: Option<&String>) -> Result<Option<String>, ConfigError> {
    match given {
        // Several are tried in turn.
        Some(text) if text.split(',').any(|one| host_and_port(one.trim()).is_none()) => {
            Err(ConfigError::Value { key, reason: format!("`{text}` is not an address: HOST:PORT is wanted") })
        }
        given => Ok(given.cloned()),
    }
}

/// A secret that is given as it is, or in a file.
pub fn secret_or_file(
    key: &'static str,
    text: Option<&String>,
    file: Option<&PathBuf>,
) -> Result<Option<String>, ConfigError> {
    match (text, file) {
        (Some(_), Some(_)) => Err(ConfigError::Twice { key }),
        (text, file) => Ok(secret(key, file)?.or_else(|| text.cloned())),
    }
}

/// The join token from wherever it was given, for the component with this data directory. A file is for the first start alone: one
/// that is not there yet is waited for, and whoever was put out does not come back by it.
pub async fn join_token(
    data: &Path,
    text: Option<&String>,
    file: Option<&PathBuf>,
) -> Result<Option<String>, ConfigError> {
    let (None, Some(path)) = (text, file) else { return Ok(text.cloned()) };
    if !member::needs_token(data) {
        return Ok(None);
    }
    let mut is_told = false;
    loop {
        match std::fs::read_to_string(path) {
            Ok(text) if !text.trim().is_empty() => return Ok(Some(text.trim().to_owned())),
            Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
                return Err(ConfigError::Secret { key: "join-token", path: path.clone(), source });
            }
            Ok(_) | Err(_) => {}
        }
        if !std::mem::replace(&mut is_told, true) {
            tracing::info!(file = %path.display(), "waits for a file with a join token");
            supervisor::status(&format!("waits for a join token in {}", path.display()));
        }
        tokio::time::sleep(TOKEN_PAUSE).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Config, ConfigError> {
        let mut sources = Sources::default();
        sources.add_text(Path::new("muster.toml"), text)?;
        Ok(sources.config())
    }

    #[test]
    fn an_unknown_key_names_the_nearest_one() {
        let error = parse("[orchestrator]\nlisten-on = '127.0.0.1:1'\n").unwrap_err().to_string();
        assert!(error.contains("orchestrator.listen-on") && error.contains("`listen`"), "{error}");
        assert!(parse("colour = 1").is_err());
        // Of the same table, or of the table that has it.
        let error = parse("[pcs-agent]\nroots = '/'\n").unwrap_err().to_string();
        assert!(error.contains("did you mean `root`?"), "{error}");
        let error = parse("[repositry]\nname = 'x'\n").unwrap_err().to_string();
        assert!(error.contains("did you mean `repository`?"), "{error}");
    }

    #[test]
    fn known_keys_are_read() {
        let config = parse("[orchestrator]\nlisten = '127.0.0.1:1'\n[pcs-agent]\nroot = '/mnt'\n").unwrap();
        assert_eq!(config.orchestrator.listen.as_deref(), Some("127.0.0.1:1"));
        assert_eq!(config.pcs_agent.root, Some(PathBuf::from("/mnt")));
    }

    #[test]
    fn durations_have_units() {
        assert_eq!("30m".parse(), Ok(Seconds(1_800)));
        assert_eq!("7d".parse(), Ok(Seconds(604_800)));
        for wrong in ["", "m", "30", "1w", "0s", "é", "99999999999d"] {
            assert!(wrong.parse::<Seconds>().is_err(), "{wrong}");
        }
        let error = parse("[orchestrator]\ncertificate-lifetime = '30'\n").unwrap_err().to_string();
        assert!(error.contains("line 2") && error.contains("s, m, h or d"), "{error}");
    }

    #[test]
    fn what_is_not_toml_is_an_error_with_its_place() {
        assert!(parse("[orchestrator\n").unwrap_err().to_string().contains("line 1"));
        assert!(parse("[orchestrator]\nlisten = 7\n").is_err());
    }
}
