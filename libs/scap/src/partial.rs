//! What has to be decided again when certain objects change, or a policy does; the other verdicts are taken over.

use std::collections::BTreeSet;

use proto::plan::ObjectKey;

use crate::dependencies::{Dependencies, Dependents};

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
        let reading = |object| dependencies.objects.get(object).into_iter().flat_map(|dependents| &dependents.rules);
        Self::of_rules(dependencies, changed.iter().flat_map(reading).copied().collect())
    }

    /// These rules, and what reads the clock.
    pub fn of_rules(dependencies: &Dependencies, mut rules: BTreeSet<usize>) -> Self {
        rules.extend(&dependencies.clock.rules);
        let reads = |(object, dependents): (&ObjectKey, &Dependents)| {
            (!dependents.rules.is_disjoint(&rules)).then(|| object.clone())
        };
        let objects = dependencies.objects.iter().filter_map(reads).collect();
        Self { rules, objects }
    }
}
