//! `muster broker config`: what a broker that is not embedded needs to carry this installation's messages. The key is
//! made here and never sent; the orchestrator's CA signs the certificate.

use std::fmt::Write as _;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::{MetadataExt as _, lchown};
use std::path::Path;

use anyhow::{Context as _, bail};
use jiff::Timestamp;
use proto::acl;
use proto::capability::ComponentType;
use proto::id::ComponentId;
use proto::limits::{PACKET_OVERHEAD_BYTES, PAYLOAD_BYTES_MAX, SERVICE_PAYLOAD_BYTES_MAX};
use proto::operator::{Ask, BrokerCertificate, ComponentState, OperatorEvent};
use serde_json::json;
use service::{data, identity};

use crate::cli::{BrokerCommand, BrokerConfigArgs, BrokerKind, Output};
use crate::commands::one;
use crate::{exit, show};

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

impl BrokerKind {
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

    /// Everything that this command writes.
    fn files(self) -> [&'static str; 5] {
        [CA_FILE, CERTIFICATE_FILE, KEY_FILE, self.acl_file(), self.config_file()]
    }
}

/// Carries out a command about other brokers.
pub(crate) async fn run(data: &Path, command: BrokerCommand, output: Output) -> anyhow::Result<u8> {
    let BrokerCommand::Config(args) = command;
    config(data, args, output).await
}

async fn config(data: &Path, args: BrokerConfigArgs, output: Output) -> anyhow::Result<u8> {
    let BrokerConfigArgs { broker, out, hosts, listen } = args;
    let out = quotable(&out)?;
    let directory = Path::new(&out);
    check(directory, broker)?;
    let roster = Roster::ask(data).await?;
    let written = |path: &Path| format!("{} cannot be written", path.display());
    data::make(directory).with_context(|| written(directory))?;
    let signed = certificate(data, directory, hosts).await?;
    let (acl, config) = match broker {
        BrokerKind::Mosquitto => {
            let kept = directory.join(DATA_DIRECTORY);
            data::make(&kept).with_context(|| written(&kept))?;
            (acl::mosquitto(&roster.services, &roster.dismissed), mosquitto_conf(&out, listen))
        }
        BrokerKind::Emqx => (acl::emqx(&roster.services, &roster.dismissed), emqx_conf(&out, listen)),
    };
    // The broker sends the CA along: components know it by its fingerprint and look for it in the chain.
    let chain = format!("{}{}", signed.certificate, signed.ca_certificate);
    for (name, content) in [
        (CA_FILE, &signed.ca_certificate),
        (CERTIFICATE_FILE, &chain),
        (broker.acl_file(), &acl),
        (broker.config_file(), &config),
    ] {
        let path = directory.join(name);
        data::write_private(&path, content.as_bytes()).with_context(|| written(&path))?;
    }
    hand_over(directory, broker).with_context(|| written(directory))?;
    tell(&out, broker, signed.ends, roster.services.len(), output)?;
    Ok(exit::DONE)
}

fn tell(out: &str, broker: BrokerKind, ends: Timestamp, service_count: usize, output: Output) -> anyhow::Result<()> {
    if output == Output::Json {
        return show::json(&json!({"directory": out, "files": broker.files(), "certificate-ends": ends}));
    }
    for file in broker.files() {
        show::line(format!("{out}/{file}"));
    }
    show::note(format!("rules by id for {service_count} components; collectors need none"));
    show::note(format!("the certificate ends {ends:.0}: run this again before, and let the broker read it"));
    show::note("hint: components still join at the orchestrator; docs/brokers.md says what goes over this broker");
    Ok(())
}

/// Gives what is in the directory to whoever has the directory: it was made the broker's user's, and the broker has to
/// read what root writes into it later.
fn hand_over(directory: &Path, broker: BrokerKind) -> io::Result<()> {
    let owner = directory.metadata()?;
    for file in broker.files() {
        let path = directory.join(file);
        if path.symlink_metadata()?.uid() != owner.uid() {
            lchown(&path, Some(owner.uid()), Some(owner.gid()))?;
        }
    }
    Ok(())
}

/// That nothing of anybody else's is overwritten.
fn check(out: &Path, broker: BrokerKind) -> anyhow::Result<()> {
    let entries = match std::fs::read_dir(out) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error).with_context(|| format!("{} cannot be written to", out.display())),
    };
    for entry in entries {
        let entry = entry.with_context(|| format!("{} cannot be read", out.display()))?;
        let name = entry.file_name();
        let kind = entry.file_type().with_context(|| format!("{} cannot be read", out.display()))?;
        if kind.is_symlink() {
            let (out, name) = (out.display(), name.display());
            bail!("{out} has a symbolic link in it ({name})\nhint: remove it; what is written here is read by root");
        }
        let is_ours = broker.files().iter().any(|file| name == *file)
            || (broker == BrokerKind::Mosquitto && name == DATA_DIRECTORY);
        if !is_ours {
            let (out, name) = (out.display(), name.display());
            bail!("{out} has other things in it ({name})\nhint: give a directory of its own with --out DIR");
        }
    }
    Ok(())
}

/// The directory as both brokers' files can spell it.
fn quotable(out: &Path) -> anyhow::Result<String> {
    let path = std::path::absolute(out).context("--out names no directory")?;
    let is_special = |letter: char| letter.is_control() || matches!(letter, '"' | '\\' | '$');
    match path.to_str() {
        Some(text) if !text.contains(is_special) => Ok(text.trim_end_matches('/').to_owned()),
        _ => bail!("{} has characters that a broker's configuration cannot have", path.display()),
    }
}

/// Whom the access list is about.
struct Roster {
    services: Vec<(ComponentId, ComponentType)>,
    /// Put out, with a certificate that still holds.
    dismissed: Vec<ComponentId>,
}

impl Roster {
    async fn ask(data: &Path) -> anyhow::Result<Self> {
        let OperatorEvent::Status(status) = one(data, Ask::Status, &[]).await? else { bail!("unexpected answer") };
        let OperatorEvent::Roster(entries) = one(data, Ask::Roster, &[]).await? else { bail!("unexpected answer") };
        let now = Timestamp::now();
        let mut roster =
            Self { services: vec![(status.orchestrator, ComponentType::Orchestrator)], dismissed: Vec::new() };
        for entry in entries {
            match entry.state {
                ComponentState::Pending => {}
                ComponentState::Evicted | ComponentState::Banned => {
                    if entry.certificate_ends.is_none_or(|ends| ends > now) {
                        roster.dismissed.push(entry.component);
                    }
                }
                _ => roster.services.push((entry.component, entry.component_type)),
            }
        }
        roster.services.retain(|(_, component_type)| *component_type != ComponentType::PostureCollectionService);
        Ok(roster)
    }
}

/// The broker's certificate, for the key in the directory: made there on the first run.
async fn certificate(data: &Path, directory: &Path, hosts: Vec<String>) -> anyhow::Result<BrokerCertificate> {
    let key = identity::key(directory)?;
    let pem = identity::portable_pem(&key).context("the key in the directory is not of the kind that is wanted")?;
    let file = directory.join(KEY_FILE);
    data::write_private(&file, pem.as_bytes()).with_context(|| format!("{} cannot be written", file.display()))?;
    let certificate_signing_request = identity::signing_request(&key).context("the broker's key cannot be used")?;
    let ask = Ask::BrokerCertificate { certificate_signing_request, hosts };
    match one(data, ask, &[]).await? {
        OperatorEvent::BrokerCertificate(signed) => Ok(*signed),
        other => bail!("unexpected answer: {other:?}"),
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
    let acl_file = BrokerKind::Mosquitto.acl_file();
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
    let acl_file = BrokerKind::Emqx.acl_file();
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
