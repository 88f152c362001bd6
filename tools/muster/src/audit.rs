//! `muster audit`: the log of acts, and whether it is whole.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use proto::operator::{Ask, OperatorEvent};
use service::audit::{Actor, Entry, Line, Verified, hash_of, verify};
use service::identity::certificates_der;

use crate::cli::{AuditCommand, Output};
use crate::commands::one;
use crate::{client, exit, show};

/// Shows, writes out, or checks the log.
pub(crate) async fn run(data: &Path, command: AuditCommand, output: Output) -> anyhow::Result<u8> {
    match command {
        AuditCommand::Log { limit } => log(&ask(data).await?, &names(data).await?, limit, output),
        AuditCommand::Export => {
            for line in ask(data).await? {
                show::line(serde_json::to_string(&line)?);
            }
            Ok(exit::DONE)
        }
        AuditCommand::Verify { file, ca, has } => {
            let lines = match &file {
                Some(file) => json_lines(file, "a line of a log")?,
                None => ask(data).await?,
            };
            check(&lines, &cas_of(data, ca)?, has.as_deref(), output)
        }
    }
}

async fn ask(data: &Path) -> anyhow::Result<Vec<Line>> {
    let mut answers = client::ask(data, Ask::Audit, &[]).await?;
    let mut lines = Vec::new();
    while let Some(event) = answers.next().await? {
        match event {
            OperatorEvent::Audit(more) => {
                for line in more {
                    lines.push(serde_json::from_str(&line).context("the orchestrator's log cannot be read")?);
                }
            }
            OperatorEvent::Notice(text) => show::note(format!("note: {text}")),
            other => bail!("unexpected answer: {other:?}"),
        }
    }
    Ok(lines)
}

/// A file with one document a line.
pub(crate) fn json_lines<T: serde::de::DeserializeOwned>(file: &Path, what: &str) -> anyhow::Result<Vec<T>> {
    let text = std::fs::read_to_string(file).with_context(|| format!("{} cannot be read", file.display()))?;
    text.lines()
        .enumerate()
        .map(|(number, line)| {
            serde_json::from_str(line).with_context(|| format!("{} line {}: not {what}", file.display(), number + 1))
        })
        .collect()
}

/// The CAs of an orchestrator that runs here, or those that were given.
pub(crate) fn cas_of(data: &Path, given: Option<PathBuf>) -> anyhow::Result<Vec<Vec<u8>>> {
    // With those that were there before: what an old one has signed stays signed.
    let files = ["orchestrator/ca/history.pem", "ca/history.pem"];
    let known = || files.into_iter().map(|file| data.join(file)).find(|path| path.exists());
    let Some(path) = given.or_else(known) else {
        bail!("there is no CA below {}: give its certificate with --ca FILE", data.display());
    };
    let pem = std::fs::read_to_string(&path).with_context(|| format!("{} cannot be read", path.display()))?;
    let cas = certificates_der(&pem);
    if cas.is_empty() {
        bail!("{} holds no certificate", path.display());
    }
    Ok(cas)
}

/// What components are called.
async fn names(data: &Path) -> anyhow::Result<BTreeMap<String, String>> {
    let OperatorEvent::Roster(roster) = one(data, Ask::Roster, &[]).await? else { bail!("unexpected answer") };
    Ok(roster.into_iter().map(|entry| (entry.component.to_string(), entry.name)).collect())
}

fn log(lines: &[Line], names: &BTreeMap<String, String>, limit: usize, output: Output) -> anyhow::Result<u8> {
    let entries: Vec<Entry> = lines
        .iter()
        .filter_map(|line| if let Line::Entry(text) = line { Some(serde_json::from_str(text)) } else { None })
        .collect::<Result<_, _>>()
        .context("an entry cannot be read: `muster audit verify` says more")?;
    let entries = &entries[entries.len().saturating_sub(limit)..];
    if output == Output::Json {
        show::json(&entries)?;
        return Ok(exit::DONE);
    }
    let rows = entries.iter().map(|entry| {
        let actor = match &entry.actor {
            Actor::Operator(uid) => format!("operator (uid {uid})"),
            Actor::Component(id) => names.get(id).cloned().unwrap_or_else(|| "component".to_owned()),
            Actor::Orchestrator => "orchestrator".to_owned(),
        };
        vec![
            entry.number.to_string(),
            format!("{:.0}", entry.at),
            actor,
            entry.act.clone(),
            entry.detail.clone(),
            match names.get(&entry.subject) {
                Some(name) => format!("{name} ({})", entry.subject),
                None => entry.subject.clone(),
            },
        ]
    });
    show::table(&["no", "when", "who", "what", "why", "to what"], rows.collect());
    Ok(exit::DONE)
}

fn check(lines: &[Line], cas: &[Vec<u8>], has: Option<&str>, output: Output) -> anyhow::Result<u8> {
    let Verified { entry_count, checkpoint_count, witness_count, hash, .. } =
        verify(lines, cas).context("the log is not as it was written")?;
    if let Some(has) = has {
        let is_in = lines.iter().any(|line| matches!(line, Line::Entry(text) if hash_of(text).as_str() == has));
        if !is_in {
            bail!("the log is not as it was written: no entry has the hash {has}; it was cut off, or written anew");
        }
    }
    if output == Output::Json {
        show::json(&serde_json::json!({
            "entry-count": entry_count,
            "checkpoint-count": checkpoint_count,
            "witness-count": witness_count,
            "hash": hash,
        }))?;
        return Ok(exit::DONE);
    }
    show::line(format!(
        "{entry_count} entries, whole and in order; {checkpoint_count} checkpoints signed by the orchestrator, \
         {witness_count} remembered by repositories"
    ));
    show::line(format!("hash of the last entry: {hash}"));
    Ok(exit::DONE)
}
