//! What a broker that is not embedded needs to carry this installation's messages, in a directory: its settings, its access
//! list, its key and certificate. `muster broker config` writes it when it is asked to, and an orchestrator keeps it as it has
//! to be (`external-broker-config`).

use std::fmt::Write as _;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::{MetadataExt as _, lchown};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::{Duration, SystemTime};

use jiff::Timestamp;
use proto::acl;
use proto::capability::ComponentType;
use proto::id::ComponentId;
use proto::limits::{PACKET_OVERHEAD_BYTES, PAYLOAD_BYTES_MAX, SERVICE_PAYLOAD_BYTES_MAX};
use proto::operator::{ComponentState, RosterEntry};

use crate::data;
use crate::identity::{self, IdentityError};

/// Messages that the broker keeps for a client that is slow to take them. What is dropped beyond is sent again: it waits
/// in its sender's outbox until the receiver has acknowledged it.
const QUEUED_MESSAGES_MAX: u32 = 10_000;
/// And their bytes.
const QUEUED_BYTES_MAX: usize = 256 * PAYLOAD_BYTES_MAX;
/// Seconds of the longest keep-alive.
const KEEP_ALIVE_SECONDS_MAX: u16 = 600;
/// The largest packet.
const PACKET_BYTES_MAX: usize = PACKET_OVERHEAD_BYTES
    + if PAYLOAD_BYTES_MAX > SERVICE_PAYLOAD_BYTES_MAX { PAYLOAD_BYTES_MAX } else { SERVICE_PAYLOAD_BYTES_MAX };

const CA_FILE: &str = "ca.pem";
const CERTIFICATE_FILE: &str = "certificate.pem";
const KEY_FILE: &str = "key.pem";
/// Where Mosquitto keeps what it has to remember.
const DATA_DIRECTORY: &str = "data";

/// A broker that configuration can be written for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Eclipse Mosquitto 2.
    Mosquitto,
    /// EMQX 5.
    Emqx,
}

impl FromStr for Kind {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "mosquitto" => Ok(Self::Mosquitto),
            "emqx" => Ok(Self::Emqx),
            _ => Err(format!(
                "there is no configuration for `{}`: mosquitto or emqx is wanted",
                proto::limits::shown(text)
            )),
        }
    }
}

impl Kind {
    fn config_file(self) -> &'static str {
        match self {
            Self::Mosquitto => "mosquitto.conf",
            Self::Emqx => "emqx.conf",
        }
    }

    fn acl_file(self) -> &'static str {
        match self {
            Self::Mosquitto => "acl",
            Self::Emqx => "acl.conf",
        }
    }

    /// Everything that is written.
    pub fn files(self) -> [&'static str; 5] {
        [CA_FILE, CERTIFICATE_FILE, KEY_FILE, self.acl_file(), self.config_file()]
    }
}

/// Why a directory cannot be written.
#[derive(Debug, thiserror::Error)]
pub enum BrokerFilesError {
    /// A file or the directory.
    #[error("{path} cannot be written")]
    Io {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The broker's key.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The same.
    #[error("the key in {0} is not of the kind that is wanted: remove it, and another one is made")]
    Key(PathBuf),
    /// A link that somebody else may have made.
    #[error("{path} has a symbolic link in it ({name})\nhint: remove it; what is written here is read by root")]
    Link {
        /// The directory.
        path: PathBuf,
        /// The link.
        name: String,
    },
    /// It is used for something else.
    #[error("{path} has other things in it ({name})\nhint: give a directory of its own")]
    Foreign {
        /// The directory.
        path: PathBuf,
        /// What.
        name: String,
    },
    /// Configuration files cannot spell it.
    #[error("{0} has characters that a broker's configuration cannot have")]
    Name(PathBuf),
}

/// Whom the access list is about.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Roster {
    /// Those that have rules of their own; collectors need none.
    pub services: Vec<(ComponentId, ComponentType)>,
    /// Put out, with a certificate that still holds.
    pub dismissed: Vec<ComponentId>,
}

/// A component, as far as an access list is about it.
#[derive(Debug, Clone, Copy)]
pub struct Listed {
    /// Its id.
    pub component: ComponentId,
    /// What it is.
    pub component_type: ComponentType,
    /// Where it is in its life.
    pub state: ComponentState,
    /// When its certificate ends, if it has one.
    pub certificate_ends: Option<Timestamp>,
}

impl From<&RosterEntry> for Listed {
    fn from(entry: &RosterEntry) -> Self {
        let RosterEntry { component, component_type, state, certificate_ends, .. } = *entry;
        Self { component, component_type, state, certificate_ends }
    }
}

impl Roster {
    /// Of all that an orchestrator knows of.
    pub fn of(orchestrator: ComponentId, all: impl Iterator<Item = Listed>, now: Timestamp) -> Self {
        let mut services = vec![(orchestrator, ComponentType::Orchestrator)];
        let mut dismissed = Vec::new();
        for entry in all {
            match entry.state {
                ComponentState::Pending => {}
                ComponentState::Evicted | ComponentState::Banned => {
                    if entry.certificate_ends.is_none_or(|ends| ends > now) {
                        dismissed.push(entry.component);
                    }
                }
                _ if entry.component_type == ComponentType::PostureCollectionService => {}
                _ => services.push((entry.component, entry.component_type)),
            }
        }
        Self { services, dismissed }
    }
}

/// A directory of a broker's files.
#[derive(Debug, Clone)]
pub struct BrokerFiles {
    directory: PathBuf,
    /// The directory as both brokers' files can spell it.
    name: String,
    kind: Kind,
    listen: SocketAddr,
}

impl BrokerFiles {
    /// In this directory, for a broker that listens there; it is made when something is written. What is in it has to be ours.
    pub fn open(directory: &Path, kind: Kind, listen: SocketAddr) -> Result<Self, BrokerFilesError> {
        let failed = |source| BrokerFilesError::Io { path: directory.to_owned(), source };
        let name = quotable(&std::path::absolute(directory).map_err(failed)?)?;
        let files = Self { directory: PathBuf::from(&name), name, kind, listen };
        files.check()?;
        Ok(files)
    }

    /// The directory, as it is written in the files.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// A signing request for the broker's key, which is made here on the first time, and never sent.
    pub fn signing_request(&self) -> Result<String, BrokerFilesError> {
        let kept = self.directory.join(DATA_DIRECTORY);
        let directory = if self.kind == Kind::Mosquitto { &kept } else { &self.directory };
        data::make(directory).map_err(|source| BrokerFilesError::Io { path: directory.clone(), source })?;
        let key = identity::key(&self.directory)?;
        let unusable = || BrokerFilesError::Key(self.directory.clone());
        let pem = identity::portable_pem(&key).ok_or_else(unusable)?;
        self.put(KEY_FILE, &pem)?;
        identity::signing_request(&key).map_err(|_| unusable())
    }

    /// Settings and certificate; `ca_pem` are the CAs that are trusted.
    pub fn write(&self, certificate_pem: &str, ca_pem: &str) -> Result<(), BrokerFilesError> {
        let config = match self.kind {
            Kind::Mosquitto => mosquitto_conf(&self.name, self.listen),
            Kind::Emqx => emqx_conf(&self.name, self.listen),
        };
        // The broker sends the CA along: components know it by its fingerprint and look for it in the chain.
        self.put(CA_FILE, ca_pem)?;
        self.put(CERTIFICATE_FILE, &format!("{certificate_pem}{ca_pem}"))?;
        self.put(self.kind.config_file(), &config)
    }

    /// How old the certificate is that is there, for these CAs.
    pub fn age(&self, ca_pem: &str, now: SystemTime) -> Option<Duration> {
        let is_for = std::fs::read_to_string(self.directory.join(CA_FILE)).is_ok_and(|text| text == ca_pem);
        let made = std::fs::metadata(self.directory.join(self.kind.config_file())).and_then(|file| file.modified());
        is_for.then(|| now.duration_since(made.ok()?).ok()).flatten()
    }

    /// The access list.
    pub fn write_rules(&self, roster: &Roster) -> Result<(), BrokerFilesError> {
        let Roster { services, dismissed } = roster;
        let rules = match self.kind {
            Kind::Mosquitto => acl::mosquitto(services, dismissed),
            Kind::Emqx => acl::emqx(services, dismissed),
        };
        self.put(self.kind.acl_file(), &rules)
    }

    /// Gives what is written to whoever has the directory: it was made the broker's user's, and the broker has to read what root
    /// writes into it later.
    fn put(&self, name: &str, content: &str) -> Result<(), BrokerFilesError> {
        let path = self.directory.join(name);
        let hand_over = || {
            let owner = self.directory.metadata()?;
            if path.symlink_metadata()?.uid() == owner.uid() {
                return Ok(());
            }
            lchown(&path, Some(owner.uid()), Some(owner.gid()))
        };
        data::write_private(&path, content.as_bytes())
            .and_then(|()| hand_over())
            .map_err(|source| BrokerFilesError::Io { path: path.clone(), source })
    }

    /// That nothing of anybody else's is overwritten.
    fn check(&self) -> Result<(), BrokerFilesError> {
        let path = self.directory.clone();
        let entries = match std::fs::read_dir(&path) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(source) => return Err(BrokerFilesError::Io { path, source }),
        };
        for entry in entries {
            let kind_of = |entry: &std::fs::DirEntry| entry.file_type();
            let (entry, kind) = entry
                .and_then(|entry| kind_of(&entry).map(|kind| (entry, kind)))
                .map_err(|source| BrokerFilesError::Io { path: path.clone(), source })?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if kind.is_symlink() {
                return Err(BrokerFilesError::Link { path, name });
            }
            let is_ours = self.kind.files().contains(&&*name)
                || (self.kind == Kind::Mosquitto && name == DATA_DIRECTORY)
                // As a kill in the middle of writing leaves it.
                || Path::new(&name).extension().is_some_and(|extension| extension == "tmp");
            if !is_ours {
                return Err(BrokerFilesError::Foreign { path, name });
            }
        }
        Ok(())
    }
}

fn quotable(path: &Path) -> Result<String, BrokerFilesError> {
    let is_special = |letter: char| letter.is_control() || matches!(letter, '"' | '\\' | '$');
    match path.to_str() {
        Some(text) if !text.contains(is_special) => Ok(text.trim_end_matches('/').to_owned()),
        _ => Err(BrokerFilesError::Name(path.to_owned())),
    }
}

fn mosquitto_conf(out: &str, listen: SocketAddr) -> String {
    let mut text = format!(
        "# Mosquitto as the broker of a Muster installation; tested with 2.0.11. Made by `muster broker config`;\n\
         # docs/brokers.md says how to run it, and what it does not do.\n\n\
         listener {} {}\n",
        listen.port(),
        listen.ip()
    );
    for (name, file) in [("cafile", CA_FILE), ("certfile", CERTIFICATE_FILE), ("keyfile", KEY_FILE)] {
        let _ = writeln!(text, "{name} {out}/{file}");
    }
    let acl_file = Kind::Mosquitto.acl_file();
    let _ = write!(
        text,
        "tls_version tlsv1.3\n\n\
         # Everybody shows a certificate. Its CN is the user's name and the client id, whatever the client says: without\n\
         # the last line anybody could end anybody's session. Nobody joins here: a listener without certificates would\n\
         # let strangers do the same.\n\
         require_certificate true\n\
         use_identity_as_username true\n\
         use_username_as_clientid true\n\
         allow_anonymous false\n\
         acl_file {out}/{acl_file}\n\n\
         # As the embedded broker has it.\n\
         max_qos 1\n\
         max_topic_alias 0\n\
         retain_available false\n\
         max_packet_size {PACKET_BYTES_MAX}\n\
         max_keepalive {KEEP_ALIVE_SECONDS_MAX}\n\
         set_tcp_nodelay true\n\n\
         # What waits for a slow client. Mosquitto drops what is beyond without a word; senders send it again.\n\
         max_queued_messages {QUEUED_MESSAGES_MAX}\n\
         max_queued_bytes {QUEUED_BYTES_MAX}\n\n\
         persistence true\n\
         persistence_location {out}/{DATA_DIRECTORY}/\n"
    );
    text
}

fn emqx_conf(out: &str, listen: SocketAddr) -> String {
    let acl_file = Kind::Emqx.acl_file();
    format!(
        r#"# EMQX 5 as the broker of a Muster installation: to be merged into emqx.conf (or base.hocon). Made by
# `muster broker config` after EMQX's documentation; not tested. docs/brokers.md says more.

listeners.ssl.default {{
  bind = "{listen}"
  ssl_options {{
    cacertfile = "{out}/{CA_FILE}"
    certfile = "{out}/{CERTIFICATE_FILE}"
    keyfile = "{out}/{KEY_FILE}"
    versions = ["tlsv1.3"]
    verify = verify_peer
    fail_if_no_peer_cert = true
  }}
}}
# Nobody comes in without a certificate.
listeners.tcp.default.enable = false
listeners.ws.default.enable = false
listeners.wss.default.enable = false

mqtt {{
  # The certificate's CN is the client id and the user's name, whatever the client says.
  peer_cert_as_clientid = cn
  peer_cert_as_username = cn
  # As the embedded broker has it.
  max_qos_allowed = 1
  max_topic_alias = 0
  retain_available = false
  shared_subscription = false
  max_packet_size = {PACKET_BYTES_MAX}
  # What waits for a slow client.
  max_mqueue_len = {QUEUED_MESSAGES_MAX}
}}

authorization {{
  # Before EMQX 6 what no rule matches is allowed.
  no_match = deny
  deny_action = disconnect
  sources = [
    {{ type = file, enable = true, path = "{out}/{acl_file}" }}
  ]
}}
"#
    )
}
