//! What has to be decided again when certain objects change; the other verdicts are taken over.

use std::collections::BTreeSet;

use proto::plan::ObjectKey;

use crate::dependencies::Dependencies;

/// What is to be decided again, and what is needed for it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Partial {
    /// Rules, by position in the plan.
    pub rules: BTreeSet<usize>,
    /// The objects that they read.
    pub objects: BTreeSet<ObjectKey>,
}

impl Partial {
    /// What reads these objects, and what reads the clock.
    pub fn of(dependencies: &Dependencies, changed: &[ObjectKey]) -> Self {
        let mut rules = dependencies.clock.rules.clone();
        for object in changed {
            rules.extend(dependencies.objects.get(object).iter().flat_map(|dependents| &dependents.rules));
        }
        let reads = |(object, dependents): (&ObjectKey, &crate::dependencies::Dependents)| {
            (!dependents.rules.is_disjoint(&rules)).then(|| object.clone())
        };
        let objects = dependencies.objects.iter().filter_map(reads).collect();
        Self { rules, objects }
    }
}
