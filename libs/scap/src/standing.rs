//! Verdicts that are kept: when an object changes, only what reads it is decided again.

use std::collections::BTreeMap;

use jiff::Timestamp;
use proto::plan::ObjectKey;
use proto::verdict::RuleResult;

use crate::compile::Compiled;
use crate::dependencies::{Dependencies, Dependents};
use crate::evaluate::{Decisions, Evaluation, Evaluator, Evidence, Observed};

/// The verdicts on one endpoint, with all that they were decided on.
///
/// At any time the results, counts and scores are what [`evaluate`](crate::evaluate::evaluate) gives for the same
/// evidence.
#[derive(Debug)]
pub struct Standing<'plan> {
    compiled: &'plan Compiled,
    dependencies: Dependencies,
    evidence: Evidence,
    decisions: Decisions,
    /// By position of the rule.
    results: Vec<RuleResult>,
}

impl<'plan> Standing<'plan> {
    /// Decides everything once.
    pub fn new(compiled: &'plan Compiled, evidence: Evidence, now: Timestamp) -> Self {
        let mut evaluator = Evaluator::new(compiled, &evidence, now, Decisions::none(compiled));
        let results = compiled.rules.iter().map(|rule| evaluator.rule(rule)).collect();
        let decisions = evaluator.decisions;
        Self { compiled, dependencies: Dependencies::of(compiled), evidence, decisions, results }
    }

    /// Takes what was observed anew (`None`: it is known no more) and decides again what reads it, and what reads
    /// the clock. The rules whose results are not what they were, by position.
    pub fn update(&mut self, changes: BTreeMap<ObjectKey, Option<Observed>>, now: Timestamp) -> Vec<usize> {
        let mut again: Dependents = self.dependencies.clock.clone();
        for (object, observed) in changes {
            if let Some(dependents) = self.dependencies.objects.get(&object) {
                again.extend(dependents);
            }
            match observed {
                Some(observed) => self.evidence.observations.insert(object, observed),
                None => self.evidence.observations.remove(&object),
            };
        }
        for test in again.tests {
            self.decisions.tests[test] = None;
        }
        for definition in again.definitions {
            self.decisions.definitions[definition] = None;
        }
        let decisions = std::mem::take(&mut self.decisions);
        let mut evaluator = Evaluator::new(self.compiled, &self.evidence, now, decisions);
        let mut changed = Vec::new();
        for at in again.rules {
            let result = evaluator.rule(&self.compiled.rules[at]);
            if result != self.results[at] {
                self.results[at] = result;
                changed.push(at);
            }
        }
        self.decisions = evaluator.decisions;
        changed
    }

    /// A rule's result, by position.
    pub fn result(&self, at: usize) -> &RuleResult {
        &self.results[at]
    }

    /// The verdicts with their counts and scores.
    pub fn evaluation(&self) -> Evaluation {
        Evaluation::of(self.compiled, &self.evidence, self.results.clone(), self.decisions.clone())
    }
}
