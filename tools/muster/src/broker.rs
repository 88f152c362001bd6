//! `muster broker config`: what a broker that is not embedded needs to carry this installation's messages. The key is
//! made here and never sent; the orchestrator's CA signs the certificate.

use std::path::Path;

use anyhow::bail;
use jiff::Timestamp;
use proto::operator::{Ask, OperatorEvent};
use serde_json::json;
use service::broker_files::{BrokerFiles, Kind, Roster};

use crate::cli::{BrokerCommand, BrokerConfigArgs, BrokerKind, Output};
use crate::commands::one;
use crate::{exit, show};

impl From<BrokerKind> for Kind {
    fn from(kind: BrokerKind) -> Self {
        match kind {
            BrokerKind::Mosquitto => Self::Mosquitto,
            BrokerKind::Emqx => Self::Emqx,
        }
    }
}

/// Carries out a command about other brokers.
pub(crate) async fn run(data: &Path, command: BrokerCommand, output: Output) -> anyhow::Result<u8> {
    let BrokerCommand::Config(args) = command;
    config(data, args, output).await
}

async fn config(data: &Path, args: BrokerConfigArgs, output: Output) -> anyhow::Result<u8> {
    let BrokerConfigArgs { broker, out, hosts, listen } = args;
    let kind = Kind::from(broker);
    let files = BrokerFiles::open(&out, kind, listen)?;
    let roster = roster(data).await?;
    let ask = Ask::BrokerCertificate { certificate_signing_request: files.signing_request()?, hosts };
    let signed = match one(data, ask, &[]).await? {
        OperatorEvent::BrokerCertificate(signed) => *signed,
        other => bail!("unexpected answer: {other:?}"),
    };
    files.write(&signed.certificate, &signed.ca_certificate)?;
    files.write_rules(&roster)?;
    tell(files.name(), kind, signed.ends, roster.services.len(), output)?;
    Ok(exit::DONE)
}

fn tell(out: &str, kind: Kind, ends: Timestamp, service_count: usize, output: Output) -> anyhow::Result<()> {
    if output == Output::Json {
        return show::json(&json!({"directory": out, "files": kind.files(), "certificate-ends": ends}));
    }
    for file in kind.files() {
        show::line(format!("{out}/{file}"));
    }
    show::note(format!("rules by id for {service_count} components; collectors need none"));
    show::note(format!("the certificate ends {ends:.0}: run this again before, and let the broker read it"));
    show::note(
        "hint: `external-broker` in the orchestrator's configuration makes it the one; docs/brokers.md says more",
    );
    Ok(())
}

/// Whom the access list is about.
async fn roster(data: &Path) -> anyhow::Result<Roster> {
    let OperatorEvent::Status(status) = one(data, Ask::Status, &[]).await? else { bail!("unexpected answer") };
    let OperatorEvent::Roster(entries) = one(data, Ask::Roster, &[]).await? else { bail!("unexpected answer") };
    Ok(Roster::of(status.orchestrator, entries.iter().map(Into::into), Timestamp::now()))
}
