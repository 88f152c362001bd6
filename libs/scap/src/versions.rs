//! What another version of a policy has changed: the rules that it decides otherwise, or speaks of in other words. The verdicts on
//! all others are the same, as long as what they were decided on is.

use std::collections::{BTreeSet, HashMap};

use crate::compile::{CheckPlan, Compiled, CriteriaPlan, PlatformPlan, RulePlan};

/// The rules of `later` that `earlier` does not have word for word, by position. `None` where the two differ in which rules there
/// are, in their order, or in which of them are selected: then a verdict's place is another.
pub fn changed_rules(earlier: &Compiled, later: &Compiled) -> Option<BTreeSet<usize>> {
    let is_same_place = |(one, other): (&RulePlan, &RulePlan)| one.id == other.id && one.selected == other.selected;
    let rules = || earlier.rules.iter().zip(&later.rules);
    if earlier.profile != later.profile || earlier.rules.len() != later.rules.len() || !rules().all(is_same_place) {
        return None;
    }
    let mut versions = Versions { earlier, later, definitions: HashMap::new() };
    let changed = rules().enumerate().filter(|(_, (one, other))| one.selected && !versions.is_same_rule(one, other));
    Some(changed.map(|(at, _)| at).collect())
}

/// Two versions, compared. Objects, states and variables go by what they say; definitions and tests have other positions.
struct Versions<'plan> {
    earlier: &'plan Compiled,
    later: &'plan Compiled,
    /// Definitions that were compared, by their positions in the one and the other.
    definitions: HashMap<(usize, usize), bool>,
}

impl Versions<'_> {
    fn is_same_rule(&mut self, one: &RulePlan, other: &RulePlan) -> bool {
        let words = |rule: &RulePlan| (rule.severity, rule.role, rule.chosen.is_some());
        (&one.title, &one.fix, words(one)) == (&other.title, &other.fix, words(other))
            && all_same(&one.platforms, &other.platforms, |one, other| {
                all_same(one, other, |one, other| self.is_same_platform(one, other))
            })
            && self.is_same_check(&one.check, &other.check)
    }

    fn is_same_platform(&mut self, one: &PlatformPlan, other: &PlatformPlan) -> bool {
        use PlatformPlan::{Definition, Test, Undefined};
        match (one, other) {
            (Undefined(one), Undefined(other)) => one == other,
            (Definition(one), Definition(other)) => self.is_same_definition(*one, *other),
            (Test { is_and, negate, parts }, Test { is_and: other_and, negate: other_negate, parts: others }) => {
                (is_and, negate) == (other_and, other_negate)
                    && all_same(parts, others, |one, other| self.is_same_platform(one, other))
            }
            _ => false,
        }
    }

    fn is_same_check(&mut self, one: &CheckPlan, other: &CheckPlan) -> bool {
        use CheckPlan::{Complex, Definitions, Fixed, Script};
        match (one, other) {
            (Fixed(verdict, reason), Fixed(other_verdict, other_reason)) => {
                (verdict, reason) == (other_verdict, other_reason)
            }
            (Definitions { definitions, negate }, Definitions { definitions: others, negate: other_negate }) => {
                negate == other_negate
                    && all_same(definitions, others, |one, other| self.is_same_definition(*one, *other))
            }
            (Script { definition, negate }, Script { definition: other, negate: other_negate }) => {
                negate == other_negate && self.is_same_definition(*definition, *other)
            }
            (Complex { is_and, negate, parts }, Complex { is_and: other_and, negate: other_negate, parts: others }) => {
                (is_and, negate) == (other_and, other_negate)
                    && all_same(parts, others, |one, other| self.is_same_check(one, other))
            }
            _ => false,
        }
    }

    fn is_same_definition(&mut self, one: usize, other: usize) -> bool {
        if let Some(known) = self.definitions.get(&(one, other)) {
            return *known;
        }
        let (before, after) = (&self.earlier.definitions[one], &self.later.definitions[other]);
        let is_same = before.class == after.class && self.is_same_criteria(&before.criteria, &after.criteria);
        self.definitions.insert((one, other), is_same);
        is_same
    }

    fn is_same_criteria(&mut self, one: &CriteriaPlan, other: &CriteriaPlan) -> bool {
        use CriteriaPlan::{Definition, Fixed, Operator, Test};
        match (one, other) {
            (Fixed(truth, reason), Fixed(other_truth, other_reason)) => (truth, reason) == (other_truth, other_reason),
            (
                Operator { operator, negate, parts },
                Operator { operator: other_operator, negate: other_negate, parts: others },
            ) => {
                (operator, negate) == (other_operator, other_negate)
                    && all_same(parts, others, |one, other| self.is_same_criteria(one, other))
            }
            (Test { test, negate }, Test { test: other, negate: other_negate }) => {
                negate == other_negate && self.earlier.tests[*test] == self.later.tests[*other]
            }
            (Definition { definition, negate }, Definition { definition: other, negate: other_negate }) => {
                negate == other_negate && self.is_same_definition(*definition, *other)
            }
            _ => false,
        }
    }
}

fn all_same<T>(one: &[T], other: &[T], mut is_same: impl FnMut(&T, &T) -> bool) -> bool {
    one.len() == other.len() && one.iter().zip(other).all(|(one, other)| is_same(one, other))
}
