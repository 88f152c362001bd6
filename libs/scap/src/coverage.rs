//! What collectors have to be able to look at, rule by rule: before anybody is asked, it can be said which rules nobody can
//! decide, and why.

use std::collections::{BTreeMap, BTreeSet};

use proto::verdict::{Severity, Verdict};

use crate::compile::{CheckPlan, Compiled};
use crate::dependencies::Dependencies;

/// A rule that is selected, and what deciding it needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuleNeeds {
    /// Its id.
    pub rule: String,
    /// Its title.
    pub title: String,
    /// Its severity.
    pub severity: Severity,
    /// The kinds of items that it reads, also where it finds out whether it applies.
    pub kinds: BTreeSet<String>,
    /// Why a part of it cannot be decided anywhere: something that is not covered, or no check at all.
    pub problems: BTreeSet<String>,
}

/// The needs of every rule that is selected, in order.
pub fn needs(compiled: &Compiled) -> Vec<RuleNeeds> {
    let index = Dependencies::of(compiled);
    let mut kinds: BTreeMap<usize, BTreeSet<String>> = BTreeMap::new();
    for (key, dependents) in &index.objects {
        // A set, and a variable, are made of others.
        let object = compiled.collection.objects.get(key).filter(|object| object.set.is_none());
        let Some(object) = object.filter(|object| object.kind != "independent:variable") else { continue };
        for rule in &dependents.rules {
            kinds.entry(*rule).or_default().insert(object.kind.clone());
        }
    }
    let mut problems: BTreeMap<usize, BTreeSet<String>> = BTreeMap::new();
    for (reason, dependents) in &index.unread {
        for rule in &dependents.rules {
            problems.entry(*rule).or_default().insert(reason.clone());
        }
    }
    let selected = compiled.rules.iter().enumerate().filter(|(_, rule)| rule.selected);
    let needs = selected.map(|(at, rule)| {
        let mut problems = problems.remove(&at).unwrap_or_default();
        fixed(&rule.check, &mut problems);
        RuleNeeds {
            rule: rule.id.clone(),
            title: rule.title.clone(),
            severity: rule.severity,
            kinds: kinds.remove(&at).unwrap_or_default(),
            problems,
        }
    });
    needs.collect()
}

/// Why parts of a check say nothing, whatever is collected.
fn fixed(check: &CheckPlan, problems: &mut BTreeSet<String>) {
    match check {
        CheckPlan::Fixed(Verdict::Pass | Verdict::Fail | Verdict::NotApplicable, _)
        | CheckPlan::Definitions { .. }
        | CheckPlan::Script { .. } => {}
        CheckPlan::Fixed(_, reason) => {
            problems.insert(reason.clone());
        }
        CheckPlan::Complex { parts, .. } => parts.iter().for_each(|part| fixed(part, problems)),
    }
}
