//! Which rules of a policy nobody can decide, where and why: what rules read, beside what collectors say that they can collect.

use std::collections::BTreeMap;

use proto::fault::{Fault, FaultCode};
use proto::id::EndpointId;
use proto::operator::{CoverageGap, CoverageView, EndpointEntry, Workflow};
use proto::plan::PROBED_KINDS;
use scap::coverage::{RuleNeeds, needs};
use scap::policy::Policy;

use crate::driver::Handle;

/// Why a collector lacks what it does not speak of.
const UNKNOWN_TO_IT: &str = "the collector has no probe for it";

impl Handle {
    /// How much of a policy can be decided on the endpoints that are meant.
    pub(crate) async fn coverage(&self, workflow: &Workflow) -> Result<CoverageView, Fault> {
        let policy = self.policy_named(&workflow.policy).await?;
        let bytes = self.policy_bytes(&policy).await?;
        let profile = workflow.profile.clone();
        let compiled = tokio::task::spawn_blocking(move || {
            let policy = Policy::from_bytes(&bytes)?;
            let compiled = scap::compile::compile(&policy, profile.as_deref())?;
            Ok::<_, scap::policy::PolicyError>((needs(&compiled), compiled.profile))
        });
        let compiled =
            compiled.await.map_err(|_| Fault::new(FaultCode::Internal, "the policy could not be compiled"))?;
        let (rules, profile) = compiled.map_err(|error| Fault::new(FaultCode::UnknownIdentifier, error.to_string()))?;
        let core = self.inner.core.lock().await;
        let meant: Vec<EndpointId> =
            core.targets(&workflow.targets, &workflow.excluded)?.into_iter().flat_map(|of| of.endpoints).collect();
        let entries = core.endpoints().map(|(_, entry)| entry).filter(|entry| meant.contains(&entry.endpoint));
        let entries: Vec<&EndpointEntry> = entries.collect();
        let gaps: Vec<CoverageGap> = rules.iter().flat_map(|rule| gaps_of(rule, &entries)).collect();
        let open: std::collections::BTreeSet<&str> = gaps.iter().map(|gap| gap.rule.as_str()).collect();
        Ok(CoverageView {
            policy: policy.name,
            profile: workflow.profile.as_ref().map(|_| profile),
            rule_count: rules.len() as u64,
            covered_count: (rules.len() - open.len()) as u64,
            silent: entries.iter().filter(|entry| entry.kinds.is_empty()).map(|entry| entry.endpoint).collect(),
            endpoints: meant,
            gaps,
        })
    }
}

/// What keeps a rule from being decided.
fn gaps_of(rule: &RuleNeeds, entries: &[&EndpointEntry]) -> Vec<CoverageGap> {
    let gap = |kind: Option<&String>, reason: String, endpoints: Vec<EndpointId>| CoverageGap {
        rule: rule.rule.clone(),
        title: rule.title.clone(),
        severity: rule.severity,
        kind: kind.cloned(),
        reason,
        endpoints,
    };
    let mut gaps: Vec<CoverageGap> = rule.problems.iter().map(|reason| gap(None, reason.clone(), Vec::new())).collect();
    for kind in &rule.kinds {
        let mut lacking: BTreeMap<String, Vec<EndpointId>> = BTreeMap::new();
        for entry in entries {
            if let Some(reason) = lacks(entry, kind) {
                lacking.entry(reason).or_default().push(entry.endpoint);
            }
        }
        gaps.extend(lacking.into_iter().map(|(reason, endpoints)| gap(Some(kind), reason, endpoints)));
    }
    gaps
}

/// Why a kind cannot be collected on an endpoint.
fn lacks(entry: &EndpointEntry, kind: &str) -> Option<String> {
    if let Some(lack) = entry.lacks.iter().find(|lack| lack.kind == kind) {
        return Some(lack.reason.clone());
    }
    let is_there = if entry.kinds.is_empty() {
        PROBED_KINDS.contains(&kind)
    } else {
        entry.kinds.iter().any(|known| known == kind)
    };
    (!is_there).then(|| UNKNOWN_TO_IT.to_owned())
}
