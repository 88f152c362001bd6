//! Why a rule got its verdict: from the rule down to the items, in words.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use ::oval::check::{self, Truth};
use proto::plan::Operator;
use proto::verdict::RuleResult;

use crate::compile::{CheckPlan, Compiled, CriteriaPlan, DocumentPlan};
use crate::evaluate::{Decisions, Evidence};

/// Definitions inside each other that are followed.
const DEPTH_MAX: usize = 40;

/// What an explanation is made from.
#[derive(Debug, Clone, Copy)]
pub struct Explanation<'run> {
    /// The plan.
    pub compiled: &'run Compiled,
    /// What definitions and tests came to.
    pub decisions: &'run Decisions,
    /// What was found.
    pub evidence: &'run Evidence,
}

struct Told<'text> {
    text: &'text mut String,
    definitions: BTreeSet<usize>,
}

impl Explanation<'_> {
    /// A rule's verdict as an indented tree; `None` where the plan has no such rule.
    pub fn of(&self, result: &RuleResult) -> Option<String> {
        let rule = self.compiled.rules.iter().find(|rule| rule.id == result.rule)?;
        let mut text = format!("{}: {}\n  {}\n", rule.id, result.verdict, rule.title);
        for reason in &result.reasons {
            let _ = writeln!(text, "  because: {reason}");
        }
        self.check(&rule.check, &mut Told { text: &mut text, definitions: BTreeSet::new() }, 1);
        Some(text)
    }

    fn check(&self, check: &CheckPlan, told: &mut Told<'_>, depth: usize) {
        let pad = "  ".repeat(depth);
        match check {
            CheckPlan::Fixed(verdict, reason) => {
                let _ = writeln!(told.text, "{pad}{verdict}: {reason}");
            }
            CheckPlan::Definitions { definitions, negate } => {
                for definition in definitions {
                    self.definition(*definition, *negate, told, depth);
                }
            }
            CheckPlan::Script { definition, negate } => self.definition(*definition, *negate, told, depth),
            CheckPlan::Complex { is_and, negate, parts } => {
                let (not, operator) = (if *negate { "not " } else { "" }, if *is_and { "all of" } else { "any of" });
                let _ = writeln!(told.text, "{pad}{not}{operator}");
                for part in parts {
                    self.check(part, told, depth + 1);
                }
            }
        }
    }

    fn definition(&self, position: usize, negate: bool, told: &mut Told<'_>, depth: usize) {
        let pad = "  ".repeat(depth);
        let truth = self.decisions.definitions.get(position).copied().flatten().unwrap_or(Truth::NotEvaluated);
        let id = self.id(position, |document| &document.definitions).unwrap_or("(unnamed)");
        let not = if negate { ", negated" } else { "" };
        let _ = writeln!(told.text, "{pad}definition {id}: {}{not}", truth.as_str());
        // Definitions that extend each other many times over are told once.
        if depth > DEPTH_MAX || !told.definitions.insert(position) {
            let _ = writeln!(told.text, "{pad}  (as told above)");
            return;
        }
        if let Some(definition) = self.compiled.definitions.get(position) {
            self.criteria(&definition.criteria, told, depth + 1);
        }
    }

    fn criteria(&self, criteria: &CriteriaPlan, told: &mut Told<'_>, depth: usize) {
        let pad = "  ".repeat(depth);
        match criteria {
            CriteriaPlan::Fixed(truth, reason) => {
                let _ = writeln!(told.text, "{pad}{}: {reason}", truth.as_str());
            }
            CriteriaPlan::Operator { operator, negate, parts } => {
                let (not, word) = (if *negate { "not " } else { "" }, operator_words(*operator));
                let _ = writeln!(told.text, "{pad}{not}{word}: {}", self.truth(criteria, 0).as_str());
                for part in parts {
                    self.criteria(part, told, depth + 1);
                }
            }
            CriteriaPlan::Definition { definition, negate } => self.definition(*definition, *negate, told, depth),
            CriteriaPlan::Test { test, negate } => self.test(*test, *negate, told, depth),
        }
    }

    fn truth(&self, criteria: &CriteriaPlan, depth: usize) -> Truth {
        let (truth, negate) = match criteria {
            _ if depth > DEPTH_MAX => (Truth::Error, false),
            CriteriaPlan::Fixed(truth, _) => (*truth, false),
            CriteriaPlan::Operator { operator, negate, parts } => {
                (check::operator(*operator, parts.iter().map(|part| self.truth(part, depth + 1))), *negate)
            }
            CriteriaPlan::Definition { definition, negate } => {
                let known = self.decisions.definitions.get(*definition).copied().flatten();
                (known.unwrap_or(Truth::NotEvaluated), *negate)
            }
            CriteriaPlan::Test { test, negate } => {
                let known = self.decisions.tests.get(*test).and_then(Option::as_ref);
                (known.map_or(Truth::NotEvaluated, |decision| decision.truth), *negate)
            }
        };
        if negate { truth.negated() } else { truth }
    }

    fn test(&self, position: usize, negate: bool, told: &mut Told<'_>, depth: usize) {
        let pad = "  ".repeat(depth);
        let Some(plan) = self.compiled.tests.get(position) else { return };
        let decision = self.decisions.tests.get(position).and_then(Option::as_ref);
        let truth = decision.map_or(Truth::NotEvaluated, |decision| decision.truth);
        let id = self.id(position, |document| &document.tests).unwrap_or("(unnamed)");
        let not = if negate { ", negated" } else { "" };
        let _ = writeln!(told.text, "{pad}test {id}: {}{not}", truth.as_str());
        let _ = writeln!(told.text, "{pad}  {} ({}, {}, {})", plan.comment, plan.kind, plan.existence, plan.check);
        if let Ok((object, _)) = &plan.subject {
            match self.evidence.observations.get(object) {
                None => {
                    let _ = writeln!(told.text, "{pad}  object {object}: nobody looked");
                }
                Some(observed) => {
                    let found = &observed.collected_object;
                    let _ =
                        writeln!(told.text, "{pad}  object {object}: {:?}, {} items", found.flag, found.items.len());
                    for message in &found.messages {
                        let _ = writeln!(told.text, "{pad}    {message}");
                    }
                }
            }
        }
        let Some(decision) = decision else { return };
        for (word, lines) in
            [("found", &decision.found), ("expected", &decision.expected), ("because", &decision.reasons)]
        {
            for line in lines {
                let _ = writeln!(told.text, "{pad}  {word:<9}{line}");
            }
        }
    }

    fn id(
        &self,
        position: usize,
        map: impl Fn(&DocumentPlan) -> &std::collections::BTreeMap<String, usize>,
    ) -> Option<&str> {
        self.compiled
            .documents
            .iter()
            .find_map(|document| map(document).iter().find(|(_, at)| **at == position).map(|(id, _)| id.as_str()))
    }
}

fn operator_words(operator: Operator) -> &'static str {
    match operator {
        Operator::And => "all of",
        Operator::Or => "any of",
        Operator::One => "exactly one of",
        Operator::Xor => "an odd number of",
    }
}
