//! Verdicts on their way into the store, for whichever back end includes this file: of one endpoint each, whether they came alone
//! or with those on others.

use std::borrow::Cow;
use std::sync::Arc;

use proto::content::ContentHash;
use proto::id::EndpointId;
use proto::message::{About, EvaluationResults, FleetResults};
use proto::verdict::{EvaluationSummary, RuleResult};

use super::super::super::json;

/// What a rule came to, and the words that are stored of it.
#[derive(Debug)]
pub(super) struct Spoken<'report> {
    pub(super) result: &'report RuleResult,
    pub(super) text: String,
    pub(super) hash: ContentHash,
}

impl<'report> Spoken<'report> {
    fn of(result: &'report RuleResult) -> Arc<Self> {
        let result_only = match result.since {
            None => Cow::Borrowed(result),
            Some(_) => Cow::Owned(RuleResult { since: None, ..result.clone() }),
        };
        let text = json(&*result_only);
        let hash = ContentHash::of(text.as_bytes());
        Arc::new(Self { result, text, hash })
    }
}

/// A part of an evaluation of one endpoint.
#[derive(Debug)]
pub(super) struct Told<'report> {
    pub(super) endpoint: EndpointId,
    pub(super) about: Option<Cow<'report, About>>,
    pub(super) part: u32,
    pub(super) verdicts: Vec<Arc<Spoken<'report>>>,
    /// The reports that they rest on.
    pub(super) evidence: Vec<&'report ContentHash>,
    pub(super) summary: Option<&'report EvaluationSummary>,
    /// Whether others came in the same message.
    pub(super) is_among_others: bool,
}

impl<'report> Told<'report> {
    pub(super) fn alone(results: &'report EvaluationResults) -> Self {
        Self {
            endpoint: results.endpoint,
            about: results.about.as_ref().map(Cow::Borrowed),
            part: results.part,
            verdicts: results.results.iter().map(Spoken::of).collect(),
            evidence: results.evidence.iter().map(|evidence| &evidence.report).collect(),
            summary: results.summary.as_ref(),
            is_among_others: false,
        }
    }

    /// Of each of these endpoints.
    pub(super) fn all(results: &'report FleetResults) -> impl Iterator<Item = Self> {
        let spoken: Vec<Arc<Spoken<'report>>> = results.results.iter().map(Spoken::of).collect();
        results.endpoints.iter().map(move |one| Self {
            endpoint: one.summary.endpoint,
            about: Some(Cow::Owned(one.about())),
            part: 0,
            verdicts: one.results.iter().filter_map(|at| spoken.get(*at as usize).cloned()).collect(),
            evidence: one.evidence.iter().map(|evidence| &evidence.report).collect(),
            summary: Some(&one.summary),
            is_among_others: true,
        })
    }

    /// What they are about, where they say what holds.
    pub(super) fn current(&self) -> Option<&About> {
        self.about.as_deref().filter(|about| about.is_current)
    }

    /// Where a verdict stands among all of its evaluation.
    pub(super) fn position(&self, at: usize) -> i64 {
        i64::from(self.part) * 100_000 + i64::try_from(at).unwrap_or(i64::MAX)
    }
}
