//! What another version of a policy would change: both versions are decided on what is stored, as of the same moment, and
//! compared. Nothing of it holds afterwards, and no endpoint is contacted.

use std::collections::{BTreeMap, VecDeque};

use jiff::Timestamp;
use proto::fault::{Fault, FaultCode};
use proto::id::{EndpointId, TransactionId};
use proto::limits::shown;
use proto::message::{PolicyDescription, ResultsRequest, ResultsResponse, ResultsSelection};
use proto::operator::{PolicyPreview, PreviewChange, Workflow};
use proto::verdict::{RuleResult, Verdict};
use service::audit::Actor;

use crate::control::ask_repository;
use crate::driver::Handle;

/// Endpoints that are named of each change.
const ENDPOINTS_NAMED_MAX: usize = 5;

/// What one evaluation decided, endpoint by endpoint, in the order of their ids.
struct Decided<'handle> {
    handle: &'handle Handle,
    transaction: TransactionId,
    after: Option<String>,
    is_end: bool,
    page: VecDeque<(EndpointId, Vec<RuleResult>)>,
    profile: Option<String>,
}

impl<'handle> Decided<'handle> {
    fn of(handle: &'handle Handle, transaction: TransactionId) -> Self {
        Self { handle, transaction, after: None, is_end: false, page: VecDeque::new(), profile: None }
    }

    /// The next endpoint, without taking it.
    async fn peek(&mut self) -> Result<Option<EndpointId>, Fault> {
        while self.page.is_empty() && !self.is_end {
            let request = ResultsRequest {
                selection: ResultsSelection::Transaction(self.transaction),
                verdicts: Vec::new(),
                only_summaries: false,
                after: self.after.take(),
            };
            let page: ResultsResponse = ask_repository(self.handle, &request).await?;
            self.after = page.next;
            self.is_end = self.after.is_none();
            for (summary, results) in page.summaries.into_iter().zip(page.results) {
                self.profile.get_or_insert(summary.profile);
                self.page.push_back((summary.endpoint, results));
            }
        }
        Ok(self.page.front().map(|(endpoint, _)| *endpoint))
    }

    fn take(&mut self) -> Vec<RuleResult> {
        self.page.pop_front().map(|(_, results)| results).unwrap_or_default()
    }
}

/// What differs, so far.
#[derive(Default)]
struct Differences {
    endpoint_count: u64,
    changed_endpoint_count: u64,
    unchanged_count: u64,
    /// Rules in the order in which they come.
    order: BTreeMap<String, usize>,
    changes: BTreeMap<(usize, Option<Verdict>, Option<Verdict>), PreviewChange>,
}

impl Differences {
    fn add(&mut self, endpoint: EndpointId, before: Vec<RuleResult>, after: Vec<RuleResult>) {
        self.endpoint_count += 1;
        let mut before: BTreeMap<String, RuleResult> =
            before.into_iter().map(|result| (result.rule.clone(), result)).collect();
        let mut is_changed = false;
        for result in after {
            let was = before.remove(&result.rule).map(|before| before.verdict);
            if was == Some(result.verdict) {
                self.unchanged_count += 1;
            } else {
                is_changed = true;
                let verdict = result.verdict;
                self.note(endpoint, result, was, Some(verdict));
            }
        }
        for result in before.into_values() {
            is_changed = true;
            let verdict = result.verdict;
            self.note(endpoint, result, Some(verdict), None);
        }
        self.changed_endpoint_count += u64::from(is_changed);
    }

    fn note(&mut self, endpoint: EndpointId, result: RuleResult, before: Option<Verdict>, after: Option<Verdict>) {
        let next = self.order.len();
        let at = *self.order.entry(result.rule.clone()).or_insert(next);
        let reason = result.reasons.first().filter(|_| after.is_some()).cloned();
        let change = self.changes.entry((at, before, after)).or_insert_with(|| PreviewChange {
            rule: result.rule,
            title: result.title,
            severity: result.severity,
            before,
            after,
            reason,
            endpoint_count: 0,
            endpoints: Vec::new(),
        });
        change.endpoint_count += 1;
        if change.endpoints.len() < ENDPOINTS_NAMED_MAX {
            change.endpoints.push(endpoint);
        }
    }
}

impl Handle {
    /// What a version would change, where it is meant.
    pub(crate) async fn preview(
        &self,
        actor: Actor,
        workflow: &Workflow,
        number: Option<u64>,
    ) -> Result<PolicyPreview, Fault> {
        let in_force = self.policy_named(&workflow.policy).await?;
        let other = self.policy_version(&workflow.policy, number).await?;
        if in_force.content == other.content {
            let text = format!("that version of `{}` is in force: there is nothing to compare", shown(&in_force.name));
            return Err(Fault::new(FaultCode::Conflict, text));
        }
        let as_of = Timestamp::now();
        let workflow = Workflow { is_stored_only: true, as_of: Some(as_of), max_age_seconds: None, ..workflow.clone() };
        let before = self.decide(actor.clone(), &in_force, &workflow).await?;
        let after = self.decide(actor, &other, &workflow).await?;
        let (mut before, mut after) = (Decided::of(self, before), Decided::of(self, after));
        let mut differences = Differences::default();
        loop {
            match (before.peek().await?, after.peek().await?) {
                (None, None) => break,
                (Some(one), Some(other)) if one == other => differences.add(one, before.take(), after.take()),
                // Decided by one of the two alone: there is nothing to compare.
                (Some(one), other) if other.is_none_or(|other| one < other) => drop(before.take()),
                _ => drop(after.take()),
            }
        }
        let versions = self.policy_versions(&other.name).await?;
        let known = |content| versions.iter().find(|known| known.content == content).and_then(|known| known.number);
        Ok(PolicyPreview {
            from: known(in_force.content),
            to: known(other.content),
            policy: other.name,
            profile: after.profile.unwrap_or_default(),
            as_of,
            endpoint_count: differences.endpoint_count,
            changed_endpoint_count: differences.changed_endpoint_count,
            unchanged_count: differences.unchanged_count,
            changes: differences.changes.into_values().collect(),
        })
    }

    /// Decides a version on what is stored.
    async fn decide(
        &self,
        actor: Actor,
        policy: &PolicyDescription,
        workflow: &Workflow,
    ) -> Result<TransactionId, Fault> {
        let plan = self.plan_of(policy, workflow, true).await?;
        let id = self.begin(actor, "preview", plan).await?;
        let view = self.wait(id, false).await?;
        match view.state.as_str() {
            "completed" => Ok(id),
            state => {
                let why = view.fault.or_else(|| view.responders.iter().find_map(|one| one.detail.clone()));
                let text = format!("deciding version {} ended as {state}", policy.number.unwrap_or(1));
                Err(Fault::new(FaultCode::Internal, why.map_or(text.clone(), |why| format!("{text}: {why}"))))
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use proto::verdict::Severity;
    use uuid::Uuid;

    use super::*;

    #[test]
    fn what_stays_is_counted_and_what_changes_is_told_by_rule_and_verdicts() {
        let result = |rule: &str, verdict| RuleResult::new(rule, rule, Severity::High, verdict);
        let mut differences = Differences::default();
        for number in 0..7 {
            let endpoint = EndpointId(Uuid::from_u128(number));
            let before =
                vec![result("same", Verdict::Pass), result("worse", Verdict::Pass), result("gone", Verdict::Fail)];
            let after =
                vec![result("new", Verdict::Unknown), result("same", Verdict::Pass), result("worse", Verdict::Fail)];
            differences.add(endpoint, before, after);
        }
        differences.add(
            EndpointId(Uuid::from_u128(9)),
            vec![result("same", Verdict::Pass)],
            vec![result("same", Verdict::Pass)],
        );
        assert_eq!((differences.endpoint_count, differences.changed_endpoint_count), (8, 7));
        assert_eq!(differences.unchanged_count, 8);
        let told: Vec<_> = differences
            .changes
            .into_values()
            .map(|change| (change.rule, change.before, change.after, change.endpoint_count, change.endpoints.len()))
            .collect();
        assert_eq!(
            told,
            [
                ("new".to_owned(), None, Some(Verdict::Unknown), 7, 5),
                ("worse".to_owned(), Some(Verdict::Pass), Some(Verdict::Fail), 7, 5),
                ("gone".to_owned(), Some(Verdict::Fail), None, 7, 5),
            ]
        );
    }
}
