//! Versions of policies: taken, compared, put in force; whose signatures count; where they come from.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context as _, bail};
use jiff::Timestamp;
use proto::limits::FEED_CA_BYTES_MAX;
use proto::message::PolicyDescription;
use proto::operator::{
    Ask, FeedChange, FeedSource, HttpsSource, OperatorEvent, PolicyImport, PolicyPreview, PreviewChange, SignerChange,
    Workflow,
};
use proto::verdict::Verdict;

use crate::cli::{FeedCommand, ListArgs, Output, SignerCommand};
use crate::commands::{endpoint_names, one};
use crate::{admission, client, exit, show};

/// The type of every policy that there is so far.
const XCCDF: &str = "xccdf";
/// Endpoints that are named of many.
const ENDPOINTS_SHOWN_MAX: usize = 2;

/// A policy's name, from the name of its file.
pub(crate) fn name_of(file: &Path) -> String {
    let base = file.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    orchestrator::policy_name(&base).unwrap_or(&base).to_owned()
}

/// Asks for something that is told in several notices.
pub(crate) async fn told(data: &Path, ask: Ask) -> anyhow::Result<u8> {
    let mut answers = client::ask(data, ask, &[]).await?;
    while let Some(event) = answers.next().await? {
        if let OperatorEvent::Notice(text) = event {
            show::note(text);
        }
    }
    Ok(exit::DONE)
}

/// `muster policy import` and `tailor`
pub(crate) async fn import(
    data: &Path,
    import: PolicyImport,
    file: &Path,
    signature: Option<&Path>,
    output: Output,
) -> anyhow::Result<u8> {
    let content = std::fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
    let beside = orchestrator::signature_of(file);
    let signature = match signature.or_else(|| beside.exists().then_some(beside.as_path())) {
        Some(path) => {
            let text = std::fs::read_to_string(path);
            Some(text.with_context(|| format!("cannot read the signature {}", path.display()))?)
        }
        None => None,
    };
    let answer = one(data, Ask::PolicyImport(Box::new(PolicyImport { signature, ..import })), &content).await;
    let OperatorEvent::Policy(policy) = answer.with_context(|| format!("{} was not imported", file.display()))? else {
        bail!("unexpected answer")
    };
    if output == Output::Json {
        show::json(&policy)?;
        return Ok(exit::DONE);
    }
    let signed = policy.signed_by.as_ref().map(|signer| format!(", signed by {signer}")).unwrap_or_default();
    show::line(format!(
        "imported {} version {}: {} ({} rules, {} profiles{signed})",
        policy.name,
        policy.number.unwrap_or(1),
        policy.title,
        policy.rule_count,
        policy.profiles.len()
    ));
    if !policy.is_waiting {
        show::note(format!(
            "hint: `muster evaluate --policy {} --profile PROFILE`; `muster policy list` shows the profiles",
            policy.name
        ));
    }
    Ok(exit::DONE)
}

impl ListArgs {
    fn means(&self, policy: &PolicyDescription) -> bool {
        let platform = self.platform.as_ref().map(|platform| platform.to_lowercase());
        let applies = |platform: &String| {
            policy.platforms.is_empty() || policy.platforms.iter().any(|known| known.to_lowercase().contains(platform))
        };
        self.name.as_ref().is_none_or(|name| policy.name.contains(name))
            && self.policy_type.as_ref().is_none_or(|wanted| wanted.eq_ignore_ascii_case(XCCDF))
            && platform.as_ref().is_none_or(applies)
            && self.version.as_ref().is_none_or(|version| policy.version == *version)
            && self.since.is_none_or(|since| policy.imported >= since)
            && self.until.is_none_or(|until| policy.imported < until)
    }
}

async fn policies(data: &Path, ask: Ask) -> anyhow::Result<Vec<PolicyDescription>> {
    let OperatorEvent::Policies(policies) = one(data, ask, &[]).await? else { bail!("unexpected answer") };
    Ok(policies)
}

/// `muster policy list`
pub(crate) async fn list(data: &Path, args: &ListArgs, output: Output) -> anyhow::Result<u8> {
    let mut policies = policies(data, Ask::PolicyList).await?;
    policies.retain(|policy| args.means(policy));
    if output == Output::Json {
        show::json(&policies)?;
        return Ok(exit::DONE);
    }
    let mut rows = Vec::new();
    for policy in policies {
        rows.push(vec![
            policy.name.clone(),
            policy.version.clone(),
            "(default)".to_owned(),
            policy.rule_count.to_string(),
            policy.title,
        ]);
        for profile in policy.profiles {
            let id = profile.id.rsplit("_profile_").next().unwrap_or(&profile.id).to_owned();
            rows.push(vec![policy.name.clone(), String::new(), id, profile.selected_count.to_string(), profile.title]);
        }
    }
    show::table(&["policy", "version", "profile", "rules", "title"], rows);
    Ok(exit::DONE)
}

/// `muster policy versions`
pub(crate) async fn versions(data: &Path, name: String, output: Output) -> anyhow::Result<u8> {
    let versions = policies(data, Ask::PolicyVersions { name }).await?;
    if output == Output::Json {
        show::json(&versions)?;
        return Ok(exit::DONE);
    }
    let in_force = versions.iter().filter_map(PolicyDescription::in_force_since).max();
    let numbers: BTreeMap<_, _> = versions.iter().map(|version| (&version.content.sha256, version.number)).collect();
    let rows = versions.iter().map(|version| {
        let state = match version.in_force_since() {
            None => "waits".to_owned(),
            since if since == in_force => "in force".to_owned(),
            Some(_) => "was in force".to_owned(),
        };
        let took_over = version.supersedes.as_ref().and_then(|before| *numbers.get(before)?);
        let origin = version.derived_from.as_ref().map(|origin| format!("{} {}", origin.name, origin.number));
        vec![
            version.number.unwrap_or(1).to_string(),
            version.version.clone(),
            state,
            version.in_force_since().map_or_else(|| "-".to_owned(), |since| format!("{since:.0}")),
            took_over.map_or_else(|| "-".to_owned(), |number| number.to_string()),
            version.rule_count.to_string(),
            version.signed_by.clone().unwrap_or_else(|| "-".to_owned()),
            origin.unwrap_or_else(|| "-".to_owned()),
            version.source_sha256.as_str().chars().take(12).collect(),
        ]
    });
    let header = ["number", "version", "state", "since", "supersedes", "rules", "signed by", "tailors", "sha256"];
    show::table(&header, rows.collect());
    Ok(exit::DONE)
}

/// `muster policy preview`
pub(crate) async fn preview(
    data: &Path,
    workflow: Workflow,
    number: Option<u64>,
    output: Output,
) -> anyhow::Result<u8> {
    let name = workflow.policy.clone();
    let OperatorEvent::Preview(preview) = one(data, Ask::PolicyPreview { workflow, number }, &[]).await? else {
        bail!("unexpected answer")
    };
    if output == Output::Json {
        show::json(&preview)?;
        return Ok(exit::DONE);
    }
    let PolicyPreview { from, to, endpoint_count, changed_endpoint_count, unchanged_count, changes, .. } = *preview;
    let names = endpoint_names(data).await;
    let word = |verdict: Option<Verdict>| verdict.map_or("-", Verdict::as_str);
    let rows = changes.iter().map(|change| {
        let called = change.endpoints.iter().take(ENDPOINTS_SHOWN_MAX);
        let called: Vec<String> =
            called.map(|endpoint| names.get(endpoint).cloned().unwrap_or_else(|| endpoint.to_string())).collect();
        let more = change.endpoint_count.saturating_sub(called.len() as u64);
        let called = called.join(", ");
        vec![
            change.severity.to_string(),
            change.title.clone(),
            format!("{} -> {}", word(change.before), word(change.after)),
            if more == 0 { called } else { format!("{called} and {more} more") },
            change.reason.clone().unwrap_or_default(),
        ]
    });
    let rows: Vec<Vec<String>> = rows.collect();
    if !rows.is_empty() {
        show::table(&["severity", "rule", "verdict", "on", "because"], rows);
    }
    let (from, to) = (from.unwrap_or(1), to.unwrap_or(1));
    let count = |is: &dyn Fn(&PreviewChange) -> bool| -> u64 {
        changes.iter().filter(|change| is(change)).map(|change| change.endpoint_count).sum()
    };
    show::note(format!(
        "version {to} instead of {from}: {changed_endpoint_count} of {endpoint_count} endpoints would change; {} verdicts get \
         worse, {} better, {} are of rules that come, {} of rules that go; {unchanged_count} stay",
        count(&|change| is_worse(change.before, change.after)),
        count(&|change| is_worse(change.after, change.before)),
        count(&|change| change.before.is_none()),
        count(&|change| change.after.is_none()),
    ));
    if count(&|change| change.after == Some(Verdict::Unknown)) > 0 {
        show::note(
            "what was never collected is unknown here; `muster evaluate` collects it once the version is in force",
        );
    }
    if endpoint_count == 0 {
        show::note("nothing is stored to decide on: `muster evaluate` first");
    }
    show::note(format!("`muster policy activate {name} --version {to}` puts it in force"));
    Ok(exit::DONE)
}

/// Whether a rule that was met is met no more, or is not known to be.
fn is_worse(before: Option<Verdict>, after: Option<Verdict>) -> bool {
    let is_bad = |verdict| matches!(verdict, Verdict::Fail | Verdict::Error | Verdict::Unknown);
    matches!((before, after), (Some(before), Some(after)) if !is_bad(before) && is_bad(after))
}

/// `muster policy signer`
pub(crate) async fn signer(data: &Path, command: SignerCommand, output: Output) -> anyhow::Result<u8> {
    match command {
        SignerCommand::Add { name, key } => {
            let key = match std::fs::read_to_string(&key) {
                Ok(line) => line,
                Err(_) if key.starts_with("ssh-") => key,
                Err(error) => return Err(error).with_context(|| format!("cannot read the key {key}")),
            };
            admission::told(data, Ask::PolicySigner(SignerChange::Add { name, key })).await
        }
        SignerCommand::Remove { name } => admission::told(data, Ask::PolicySigner(SignerChange::Remove { name })).await,
        SignerCommand::List => {
            let OperatorEvent::Signers(signers) = one(data, Ask::PolicySigners, &[]).await? else {
                bail!("unexpected answer")
            };
            if output == Output::Json {
                show::json(&signers)?;
                return Ok(exit::DONE);
            }
            let rows = signers.into_iter().map(|signer| vec![signer.name, format!("{:.0}", signer.added), signer.key]);
            show::table(&["signer", "since", "key"], rows.collect());
            Ok(exit::DONE)
        }
    }
}

/// Where a feed is, from an operator's words.
fn feed_source(source: &Path, ca: Option<&Path>) -> anyhow::Result<FeedSource> {
    let Some(url) = source.to_str().filter(|text| text.contains("://")) else {
        if ca.is_some() {
            bail!("`--ca` is for a URL; {} is a directory", source.display());
        }
        // As it is seen from here: the orchestrator may work in another directory.
        return Ok(FeedSource::Directory(std::path::absolute(source)?.to_string_lossy().into_owned()));
    };
    let ca = match ca {
        Some(path) => {
            let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
            if text.len() > FEED_CA_BYTES_MAX {
                bail!(
                    "{} has more than {} KiB; name only who certifies the server",
                    path.display(),
                    FEED_CA_BYTES_MAX / 1024
                );
            }
            Some(text)
        }
        None => None,
    };
    Ok(FeedSource::Https(HttpsSource { url: url.to_owned(), ca }))
}

/// `muster policy feed`
pub(crate) async fn feed(data: &Path, command: FeedCommand, output: Output) -> anyhow::Result<u8> {
    match command {
        FeedCommand::Add { name, source, every, ca } => {
            let source = feed_source(&source, ca.as_deref())?;
            let change = FeedChange::Add { name, source, every_seconds: every.0 };
            admission::told(data, Ask::PolicyFeed(change)).await
        }
        FeedCommand::Remove { name } => admission::told(data, Ask::PolicyFeed(FeedChange::Remove { name })).await,
        FeedCommand::List => {
            let OperatorEvent::Feeds(feeds) = one(data, Ask::PolicyFeeds, &[]).await? else {
                bail!("unexpected answer")
            };
            if output == Output::Json {
                show::json(&feeds)?;
                return Ok(exit::DONE);
            }
            let now = Timestamp::now();
            let rows = feeds.iter().map(|feed| {
                vec![
                    feed.name.clone(),
                    feed.source.to_string(),
                    format!("{} s", feed.every_seconds),
                    show::ago(feed.looked, now),
                    if feed.problems.is_empty() { "-".to_owned() } else { feed.problems.join("; ") },
                ]
            });
            show::table(&["feed", "source", "every", "looked", "not taken"], rows.collect());
            Ok(exit::DONE)
        }
    }
}
