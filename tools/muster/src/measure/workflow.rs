//! Workflows on the fleet, as an operator begins them and looks at what came of them.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::{Context as _, bail};
use proto::id::{EndpointId, TransactionId};
use proto::message::{OnStale, ResultsSelection, SearchContent, SearchResponse};
use proto::operator::{Ask, OperatorEvent, Question, TransactionView, Workflow};
use proto::verdict::Verdict;

use super::installation::{FLEET, Installation};
use super::policy::POLICY;
use crate::client;

/// Seconds that anything on the whole fleet may take; what takes longer could not be measured.
pub(crate) const PATIENCE: Duration = Duration::from_mins(30);

/// What is asked of the fleet.
pub(crate) fn on_fleet(profile: Option<&String>) -> Workflow {
    Workflow {
        policy: POLICY.to_owned(),
        profile: profile.cloned(),
        targets: vec![FLEET.to_owned()],
        timeout_seconds: PATIENCE.as_secs(),
        expires_seconds: PATIENCE.as_secs(),
        ..Workflow::default()
    }
}

/// Begins a workflow, and does not follow it.
pub(crate) async fn begin(installation: &Installation, ask: Ask) -> anyhow::Result<TransactionId> {
    let mut answers = client::ask(installation.directory(), ask, &[]).await?;
    while let Some(event) = answers.next().await? {
        if let OperatorEvent::Started { transaction, .. } = event {
            return Ok(transaction);
        }
    }
    bail!("the workflow did not begin")
}

/// Waits until it is done with everybody.
pub(crate) async fn end(installation: &Installation, transaction: TransactionId) -> anyhow::Result<TransactionView> {
    let waiting = installation.one(Ask::Wait { transaction, is_all: true }, &[]);
    let event = tokio::time::timeout(PATIENCE, waiting).await;
    match event.with_context(|| format!("it has not ended after {} s", PATIENCE.as_secs()))?? {
        OperatorEvent::Ended(view) => Ok(*view),
        _ => bail!("unexpected answer"),
    }
}

/// What is stored of an evaluation.
#[derive(Debug, Default)]
pub(crate) struct Stored {
    /// Endpoints that it has a summary of.
    pub(crate) endpoints: BTreeSet<EndpointId>,
    /// Different rules, by number, on different endpoints.
    pub(crate) verdicts: BTreeSet<(EndpointId, usize)>,
    /// The same rule on the same endpoint again.
    pub(crate) doubled: u64,
    /// How often each verdict was given for a rule that was asked about.
    pub(crate) of_rule: Vec<(Verdict, u64)>,
}

/// Looks at what is stored of an evaluation, and how often each verdict was given for one rule.
pub(crate) async fn stored(
    installation: &Installation,
    transaction: TransactionId,
    rule: Option<&str>,
) -> anyhow::Result<Stored> {
    let selection = ResultsSelection::Transaction(transaction);
    let mut answers =
        client::ask(installation.directory(), Ask::Results { selection, verdicts: Vec::new() }, &[]).await?;
    let mut stored = Stored::default();
    let mut numbers: BTreeMap<String, usize> = BTreeMap::new();
    while let Some(event) = answers.next().await? {
        let OperatorEvent::Results(page) = event else { continue };
        for (summary, results) in page.summaries.into_iter().zip(page.results) {
            stored.doubled += u64::from(!stored.endpoints.insert(summary.endpoint));
            for result in results {
                if rule == Some(result.rule.as_str()) {
                    match stored.of_rule.iter_mut().find(|(verdict, _)| *verdict == result.verdict) {
                        Some((_, count)) => *count += 1,
                        None => stored.of_rule.push((result.verdict, 1)),
                    }
                }
                let next = numbers.len();
                let number = *numbers.entry(result.rule).or_insert(next);
                stored.doubled += u64::from(!stored.verdicts.insert((summary.endpoint, number)));
            }
        }
    }
    Ok(stored)
}

/// A question about everything that is stored of a kind.
pub(crate) fn question(text: &str, target: &str) -> anyhow::Result<Question> {
    Ok(Question {
        query: text.parse().map_err(|error: proto::query::QueryError| anyhow::anyhow!("{text}: {}", error.what))?,
        targets: vec![target.to_owned()],
        excluded: Vec::new(),
        as_of: None,
        max_age_seconds: None,
        is_collected: false,
        on_stale: OnStale::Mark,
        content: SearchContent::Data,
        timeout_seconds: 30,
        budget: proto::budget::Budget::default(),
    })
}

/// Asks it; every page.
pub(crate) async fn search(installation: &Installation, question: Question) -> anyhow::Result<Vec<SearchResponse>> {
    let events = installation.ask(Ask::Query(Box::new(question)), &[]).await?;
    Ok(events
        .into_iter()
        .filter_map(|event| match event {
            OperatorEvent::Found(page) => Some(*page),
            _ => None,
        })
        .collect())
}
