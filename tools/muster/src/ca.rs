//! `muster ca`: the CAs that are trusted, and replacing one while everything runs.

use std::path::Path;

use anyhow::{Context as _, bail};
use proto::operator::{Ask, CaView, OperatorEvent};

use crate::cli::{CaCommand, Output};
use crate::commands::one;
use crate::{exit, show};

/// Shows the CAs, or changes them.
pub(crate) async fn run(data: &Path, command: CaCommand, output: Output) -> anyhow::Result<u8> {
    let (ask, content, hint) = match command {
        CaCommand::Show => (Ask::CaShow, Vec::new(), None),
        CaCommand::Rotate { certificate, key } => {
            let hint =
                "every component learns the new CA now; it signs once all that are there know it (`muster ca show`)";
            (Ask::CaRotate, certificate.zip(key).map_or(Ok(Vec::new()), |(one, other)| both(&one, &other))?, Some(hint))
        }
        CaCommand::Retire { force } => (
            Ask::CaRetire { is_forced: force },
            Vec::new(),
            Some("join tokens that were made before name the old CA: make new ones"),
        ),
    };
    let OperatorEvent::Cas(cas) = one(data, ask, &content).await? else { bail!("unexpected answer") };
    if output == Output::Json {
        show::json(&cas)?;
    } else {
        table(&cas);
    }
    if let Some(hint) = hint {
        show::note(format!("hint: {hint}"));
    }
    Ok(exit::DONE)
}

fn both(certificate: &Path, key: &Path) -> anyhow::Result<Vec<u8>> {
    let read = |path: &Path| std::fs::read(path).with_context(|| format!("{} cannot be read", path.display()));
    Ok([read(certificate)?, vec![0], read(key)?].concat())
}

fn table(cas: &[CaView]) {
    let last = cas.len().saturating_sub(1);
    let rows = cas.iter().enumerate().map(|(at, ca)| {
        let state = match (ca.is_issuer, at == last) {
            (true, _) => "signs",
            (false, true) => "is made known",
            (false, false) => "trusted still",
        };
        vec![
            ca.fingerprint[..12].to_owned(),
            state.to_owned(),
            ca.subject.clone(),
            format!("{:.0}", ca.not_after),
            ca.known_by.to_string(),
            ca.certificate_count.to_string(),
        ]
    });
    show::table(&["fingerprint", "state", "name", "holds until", "known by", "certificates"], rows.collect());
}
