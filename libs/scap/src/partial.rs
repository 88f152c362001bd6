//! Deciding again only what reads certain objects; the other verdicts are taken over.

use std::collections::BTreeSet;

use jiff::Timestamp;
use proto::plan::ObjectKey;
use proto::verdict::{RuleResult, Verdict};

use crate::compile::Compiled;
use crate::dependencies::Dependencies;
use crate::evaluate::{Decisions, Evaluation, Evaluator, Evidence};

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

    /// The verdicts on one endpoint: `before` has one letter for each rule of the plan ([`letters_of`]). Gives
    /// the evaluation as a whole, whose results are those that were decided. `None` where the letters are those of another
    /// plan.
    pub fn decide(
        &self,
        compiled: &Compiled,
        evidence: &Evidence,
        before: &str,
        now: Timestamp,
    ) -> Option<(Evaluation, String)> {
        let before: Vec<Verdict> = before.chars().map(Verdict::of_letter).collect::<Option<_>>()?;
        if before.len() != compiled.rules.len() {
            return None;
        }
        let mut evaluator = Evaluator::new(compiled, evidence, now, Decisions::none(compiled));
        let mut decided = BTreeSet::new();
        let mut results: Vec<RuleResult> = Vec::with_capacity(compiled.rules.len());
        for (position, (rule, verdict)) in compiled.rules.iter().zip(before).enumerate() {
            results.push(if self.rules.contains(&position) {
                decided.insert(rule.id.clone());
                evaluator.rule(rule)
            } else {
                RuleResult::new(&rule.id, "", rule.severity, verdict)
            });
        }
        let letters = letters(&results);
        let mut evaluation = Evaluation::of(compiled, evidence, results, evaluator.decisions);
        evaluation.results.retain(|result| decided.contains(&result.rule));
        Some((evaluation, letters))
    }
}

/// A letter for each rule of a plan, by position.
fn letters(results: &[RuleResult]) -> String {
    results.iter().map(|result| result.verdict.letter()).collect()
}

/// The letters of a whole evaluation, whose results are those of the rules that are selected.
pub fn letters_of(compiled: &Compiled, evaluation: &Evaluation) -> String {
    let mut results = evaluation.results.iter();
    let letter = |rule: &crate::compile::RulePlan| {
        if rule.selected {
            results.next().map_or(Verdict::NotSelected, |result| result.verdict)
        } else {
            Verdict::NotSelected
        }
    };
    compiled.rules.iter().map(letter).map(Verdict::letter).collect()
}
