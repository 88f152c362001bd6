//! Which tests, definitions and rules read an object: what has to be decided again when it changes.

use std::collections::{BTreeMap, BTreeSet};

use proto::plan::{CollectionPlan, Component, Entity, ObjectKey, StateKey, VariableKey, VariableSource};

use crate::compile::{CheckPlan, Compiled, CriteriaPlan, PlatformPlan, references};

/// What reads something, by position in the plan.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Dependents {
    /// Tests.
    pub tests: BTreeSet<usize>,
    /// Definitions that use the tests, at any depth.
    pub definitions: BTreeSet<usize>,
    /// Rules that use the definitions, as check or as platform.
    pub rules: BTreeSet<usize>,
}

impl Dependents {
    /// Both together.
    pub fn extend(&mut self, other: &Self) {
        self.tests.extend(&other.tests);
        self.definitions.extend(&other.definitions);
        self.rules.extend(&other.rules);
    }
}

/// The index of a plan.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Dependencies {
    /// By object.
    pub objects: BTreeMap<ObjectKey, Dependents>,
    /// What reads the clock (`time_difference`): it may change with nothing else changing.
    pub clock: Dependents,
    /// What would read something that cannot be read, by the reason.
    pub unread: BTreeMap<String, Dependents>,
}

/// What a test reads.
#[derive(Default)]
pub(crate) struct Reads {
    pub(crate) objects: BTreeSet<ObjectKey>,
    pub(crate) is_clock: bool,
}

impl Dependencies {
    /// The index of this plan.
    pub fn of(compiled: &Compiled) -> Self {
        let mut index = Self::default();
        for (test, dependents) in compiled.tests.iter().zip(dependents_of_tests(compiled)) {
            let (object, states) = match &test.subject {
                Ok(subject) => subject,
                Err((_, reason)) => {
                    index.unread.entry(reason.clone()).or_default().extend(&dependents);
                    continue;
                }
            };
            let reads = reads(&compiled.collection, object, states);
            if reads.is_clock {
                index.clock.extend(&dependents);
            }
            for object in reads.objects {
                index.objects.entry(object).or_default().extend(&dependents);
            }
        }
        index
    }
}

/// What uses each test, by the test's position.
pub(crate) fn dependents_of_tests(compiled: &Compiled) -> Vec<Dependents> {
    let mut users_of_test: Vec<BTreeSet<usize>> = vec![BTreeSet::new(); compiled.tests.len()];
    let mut users_of_definition: Vec<BTreeSet<usize>> = vec![BTreeSet::new(); compiled.definitions.len()];
    for (at, definition) in compiled.definitions.iter().enumerate() {
        uses(&definition.criteria, at, &mut users_of_test, &mut users_of_definition);
    }
    let mut rules_of_definition: Vec<BTreeSet<usize>> = vec![BTreeSet::new(); compiled.definitions.len()];
    for (at, rule) in compiled.rules.iter().enumerate().filter(|(_, rule)| rule.selected) {
        let mut add = |definition: usize| {
            rules_of_definition[definition].insert(at);
        };
        of_check(&rule.check, &mut add);
        rule.platforms.iter().flatten().for_each(|platform| of_platform(platform, &mut add));
    }
    let of_test = |(at, users): (usize, BTreeSet<usize>)| {
        let mut dependents = Dependents { tests: BTreeSet::from([at]), ..Dependents::default() };
        let mut open: Vec<usize> = users.into_iter().collect();
        while let Some(definition) = open.pop() {
            if dependents.definitions.insert(definition) {
                dependents.rules.extend(&rules_of_definition[definition]);
                open.extend(&users_of_definition[definition]);
            }
        }
        dependents
    };
    users_of_test.into_iter().enumerate().map(of_test).collect()
}

fn uses(criteria: &CriteriaPlan, user: usize, tests: &mut [BTreeSet<usize>], definitions: &mut [BTreeSet<usize>]) {
    match criteria {
        CriteriaPlan::Fixed(..) => {}
        CriteriaPlan::Operator { parts, .. } => parts.iter().for_each(|part| uses(part, user, tests, definitions)),
        CriteriaPlan::Test { test, .. } => {
            tests[*test].insert(user);
        }
        CriteriaPlan::Definition { definition, .. } => {
            definitions[*definition].insert(user);
        }
    }
}

fn of_check(check: &CheckPlan, add: &mut dyn FnMut(usize)) {
    match check {
        CheckPlan::Fixed(..) => {}
        CheckPlan::Definitions { definitions, .. } => definitions.iter().for_each(|definition| add(*definition)),
        CheckPlan::Script { definition, .. } => add(*definition),
        CheckPlan::Complex { parts, .. } => parts.iter().for_each(|part| of_check(part, add)),
    }
}

fn of_platform(platform: &PlatformPlan, add: &mut dyn FnMut(usize)) {
    match platform {
        PlatformPlan::Undefined(_) => {}
        PlatformPlan::Definition(definition) => add(*definition),
        PlatformPlan::Test { parts, .. } => parts.iter().for_each(|part| of_platform(part, add)),
    }
}

/// The object of a test, and what the variables of its states are made of.
pub(crate) fn reads(plan: &CollectionPlan, object: &ObjectKey, states: &[StateKey]) -> Reads {
    let mut reads = Reads { objects: BTreeSet::from([object.clone()]), is_clock: false };
    let mut open: Vec<&VariableKey> = states
        .iter()
        .filter_map(|key| plan.states.get(key))
        .flat_map(|state| &state.entities)
        .flat_map(Entity::variables)
        .collect();
    let mut seen: BTreeSet<&VariableKey> = BTreeSet::new();
    while let Some(key) = open.pop() {
        if let Some(VariableSource::Local(component)) = plan.variables.get(key).map(|variable| &variable.source)
            && seen.insert(key)
        {
            references(component, &mut reads.objects, &mut open);
            reads.is_clock |= is_clock(component);
        }
    }
    reads
}

/// Whether a component reads the clock itself: a difference of one time is a difference from now.
fn is_clock(component: &Component) -> bool {
    let is_from_now = matches!(component, Component::TimeDifference { operands, .. } if operands.len() == 1);
    is_from_now || component.parts().iter().any(is_clock)
}
