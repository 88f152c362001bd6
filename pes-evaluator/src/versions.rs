//! Endpoints that another version of the same policy has decided before, and of which nothing was observed since: what the two
//! versions do not share is decided, and the other verdicts are taken over.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bus::Context;
use jiff::Timestamp;
use proto::content::ContentHash;
use proto::fault::Fault;
use proto::id::EndpointId;
use proto::message::{EvaluationRequest, Knowledge, SummaryRequest, SummaryResponse};
use proto::verdict::EvaluationSummary;
use scap::partial::Partial;
use scap::versions::changed_rules;

use crate::deciding::{Decided, Prepared};
use crate::{Evaluator, Task};

/// Other versions of a policy, by their content, and what each of them does not share with it.
#[derive(Debug, Default)]
pub(crate) struct Others {
    versions: BTreeMap<ContentHash, Unshared>,
    /// Nothing could be taken over of endpoints that were asked about: of those that are left it is not asked.
    is_in_vain: AtomicBool,
}

/// What two versions do not share.
#[derive(Debug)]
struct Unshared {
    /// Rules that are to be decided, by position.
    rules: BTreeSet<usize>,
    /// The objects that they read, by position, in order.
    objects: Vec<usize>,
}

impl Unshared {
    /// `None` where most of it has to be decided, or nothing: an evaluation has a verdict.
    fn of(other: &Prepared, prepared: &Prepared) -> Option<Self> {
        let changed = changed_rules(&other.compiled, &prepared.compiled)?;
        let Partial { rules, objects } = Partial::of_rules(&prepared.dependencies, changed);
        let objects: Vec<usize> = objects.iter().filter_map(|object| prepared.position(object)).collect();
        (!objects.is_empty() && 2 * objects.len() <= prepared.objects().len()).then_some(Self { rules, objects })
    }
}

/// An endpoint that another version has decided.
struct Before<'versions> {
    /// Which of the endpoints that are asked about.
    at: usize,
    summary: EvaluationSummary,
    unshared: &'versions Unshared,
}

impl Others {
    /// Those of these that are versions of what a task evaluates.
    pub(crate) fn of(task: &Task, prepared: &Prepared, known: &[(ContentHash, Arc<Prepared>)]) -> Self {
        let others = known.iter().filter(|(content, _)| *content != task.request.content.sha256);
        let unshared = others.filter_map(|(content, other)| Some((content.clone(), Unshared::of(other, prepared)?)));
        Self { versions: unshared.collect(), is_in_vain: AtomicBool::new(false) }
    }

    /// Whether it is worth asking what was decided before.
    pub(crate) fn are_hoped_for(&self) -> bool {
        !self.versions.is_empty() && !self.is_in_vain.load(Ordering::Relaxed)
    }

    /// What was decided, where it may be gone on from: by another version, and before now.
    fn before(&self, at: usize, summary: EvaluationSummary, now: Timestamp) -> Option<Before<'_>> {
        let unshared = self.versions.get(summary.content.as_ref()?)?;
        // What was stale then may count now.
        let is_all_told = summary.collected_since.is_none() || summary.is_fresh == Some(true);
        (is_all_told && summary.evaluated < now).then_some(Before { at, summary, unshared })
    }
}

/// Whether verdicts of another version may be taken over in a request: it is about several endpoints, what is known of them now, and
/// however old that is.
pub(crate) fn may_take_over(request: &EvaluationRequest) -> bool {
    request.is_stored_only
        && request.targets.len() > 1
        && request.as_of.is_none()
        && request.collected_since.is_none()
        && request.changed.is_empty()
}

/// What decides, and how: this program, by its hash, where it can be read. Another may come to other verdicts.
#[derive(Debug)]
pub(crate) struct Engine(Option<ContentHash>);

impl Engine {
    pub(crate) fn own() -> Self {
        Self(std::fs::read("/proc/self/exe").ok().map(|program| ContentHash::of(&program)))
    }

    /// What was known when this decided.
    pub(crate) fn decided_on(&self, knowledge: &Knowledge) -> Option<Knowledge> {
        self.0.as_ref().map(|program| Knowledge(format!("{} {}", program.short(), knowledge.0)))
    }
}

impl Evaluator {
    /// Decides those of these endpoints where another version has decided before and nothing was observed since; of each of them in
    /// turn what was decided, or nothing where all of it has to be.
    pub(crate) async fn decide_unshared(
        &self,
        task: &Task,
        endpoints: &[EndpointId],
        prepared: &Arc<Prepared>,
        (others, now): (&Others, Timestamp),
    ) -> Result<Vec<Option<Decided>>, Fault> {
        let mut decided: Vec<Option<Decided>> = endpoints.iter().map(|_| None).collect();
        let [endpoint, rest @ ..] = endpoints else { return Ok(decided) };
        let request = &task.request;
        let question = SummaryRequest {
            request: request.request,
            endpoint: *endpoint,
            policy: request.policy.clone(),
            profile: prepared.compiled.profile.clone(),
            others: rest.to_vec(),
        };
        let answer: SummaryResponse = self.repositories.ask(request, &question, Context::of(task.transaction)).await?;
        let mut by_version: BTreeMap<ContentHash, Vec<Before<'_>>> = BTreeMap::new();
        for (at, newest) in answer.newest.into_iter().take(endpoints.len()).enumerate() {
            let Some(before) = newest.and_then(|summary| others.before(at, summary, now)) else { continue };
            let Some(content) = before.summary.content.clone() else { continue };
            by_version.entry(content).or_default().push(before);
        }
        for of_version in by_version.into_values() {
            let mut left = of_version.as_slice();
            // What is known of one alone is asked for when all of it is decided.
            while let [Before { unshared, .. }, _, ..] = left {
                let some: Vec<EndpointId> = left.iter().map(|before| endpoints[before.at]).collect();
                let seen = self.seen_of_many(task, &some, prepared, &unshared.objects).await?;
                let Some(seen) = seen.filter(|seen| !seen.is_empty()) else { break };
                let (some, others) = left.split_at(seen.len().min(left.len()));
                left = others;
                for (Before { at, summary, unshared: Unshared { rules, objects } }, seen) in some.iter().zip(seen) {
                    let known = seen.knowledge.as_ref().and_then(|known| self.engine.decided_on(known));
                    // Nothing else may be known than was then.
                    if known.is_some() && known == summary.knowledge {
                        let part = (rules, objects.as_slice());
                        decided[*at] = self.decide_part(task, endpoints[*at], prepared, seen, part, summary).await?;
                    }
                }
            }
        }
        if decided.iter().all(Option::is_none) {
            others.is_in_vain.store(true, Ordering::Relaxed);
        }
        Ok(decided)
    }
}
