//! Which rules of a policy nobody can decide, where and why: what rules read, beside what collectors say that they can collect.

use std::collections::{BTreeMap, BTreeSet};

use proto::fault::Fault;
use proto::id::EndpointId;
use proto::message::LackedKind;
use proto::operator::{CoverageGap, CoverageView, Workflow};
use proto::plan::PROBED_KINDS;
use scap::coverage::{RuleNeeds, needs};

use crate::driver::Handle;

/// Why a collector lacks what it does not speak of.
const UNKNOWN_TO_IT: &str = "the collector has no probe for it";

/// Endpoints of which collectors say the same; thousands of machines are of a few kinds.
type Alike = BTreeMap<(Vec<String>, Vec<LackedKind>), Vec<EndpointId>>;

impl Handle {
    /// How much of a policy can be decided on the endpoints that are meant.
    pub(crate) async fn coverage(&self, workflow: &Workflow) -> Result<CoverageView, Fault> {
        let policy = self.policy_named(&workflow.policy).await?;
        let compiled =
            self.compiled(&policy, workflow.profile.clone(), |compiled| (needs(&compiled), compiled.profile));
        let (rules, profile) = compiled.await?;
        let (mut endpoints, mut alike) = (Vec::new(), Alike::new());
        {
            let core = self.inner.core.lock().await;
            let targets = core.targets(&workflow.targets, &workflow.excluded)?;
            let meant: BTreeSet<EndpointId> = targets.into_iter().flat_map(|of| of.endpoints).collect();
            for (_, entry) in core.endpoints().filter(|(_, entry)| meant.contains(&entry.endpoint)) {
                endpoints.push(entry.endpoint);
                alike.entry((entry.kinds.clone(), entry.lacks.clone())).or_default().push(entry.endpoint);
            }
        }
        let gaps: Vec<CoverageGap> = rules.iter().flat_map(|rule| gaps_of(rule, &alike)).collect();
        let open: BTreeSet<&str> = gaps.iter().map(|gap| gap.rule.as_str()).collect();
        let silent = alike.iter().filter(|((kinds, _), _)| kinds.is_empty()).flat_map(|(_, endpoints)| endpoints);
        Ok(CoverageView {
            policy: policy.name,
            profile: workflow.profile.as_ref().map(|_| profile),
            rule_count: rules.len() as u64,
            covered_count: (rules.len() - open.len()) as u64,
            silent: silent.copied().collect(),
            endpoints,
            gaps,
        })
    }
}

/// What keeps a rule from being decided.
fn gaps_of(rule: &RuleNeeds, alike: &Alike) -> Vec<CoverageGap> {
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
        for ((kinds, lacks), endpoints) in alike {
            if let Some(reason) = lacking_of(kinds, lacks, kind) {
                lacking.entry(reason).or_default().extend(endpoints);
            }
        }
        gaps.extend(lacking.into_iter().map(|(reason, endpoints)| gap(Some(kind), reason, endpoints)));
    }
    gaps
}

/// Why a kind cannot be collected by whoever says this of itself.
fn lacking_of(kinds: &[String], lacks: &[LackedKind], kind: &str) -> Option<String> {
    if let Some(lack) = lacks.iter().find(|lack| lack.kind == kind) {
        return Some(lack.reason.clone());
    }
    let is_there =
        if kinds.is_empty() { PROBED_KINDS.contains(&kind) } else { kinds.iter().any(|known| known == kind) };
    (!is_there).then(|| UNKNOWN_TO_IT.to_owned())
}
