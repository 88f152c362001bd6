//! From plans and stored observations to verdicts, with the evidence in words.
//!
//! What was not collected, is stale, or was cut off is `unknown` with the reason; never `pass`.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::sync::Arc;

use jiff::Timestamp;
use oval::check::{self, Truth};
use oval::state::{Mismatch, States};
use oval::variable::{ObjectSource, Variables};
use proto::observation::{Collected, Flag, Item, Status};
use proto::plan::{CollectionPlan, Entity, EntityValue, Existence, Object, ObjectKey, Operator, StateKey};
use proto::verdict::{RuleResult, Sense, Verdict};

use crate::compile::{CheckPlan, Compiled, CriteriaPlan, PlatformPlan, RulePlan, TestPlan, TreeNode};
use crate::oval::Class;
use crate::score::{self, Score, Scored};
use crate::script;
use crate::xccdf::Role;

/// A stored observation, as the evaluator needs it.
#[derive(Debug, Clone)]
pub struct Observed {
    /// What was found.
    pub collected_object: Rc<Collected>,
    /// When.
    pub collected: Timestamp,
}

/// What to decide on.
#[derive(Debug, Clone, Default)]
pub struct Evidence {
    /// By object.
    pub observations: BTreeMap<ObjectKey, Observed>,
    /// Anything older is stale.
    pub collected_since: Option<Timestamp>,
}

/// Verdicts on one endpoint.
#[derive(Debug, Clone, PartialEq)]
pub struct Evaluation {
    /// The selected rules, in the benchmark's order.
    pub results: Vec<RuleResult>,
    /// The scores by all models.
    pub scores: Vec<Score>,
    /// The default score; `None` where no rule counts.
    pub score: Option<f64>,
    /// The oldest observation that was used.
    pub oldest_collected: Option<Timestamp>,
    /// How many rules got each verdict, `notselected` included.
    pub counts: Vec<(Verdict, u64)>,
    /// What the rules' definitions and tests came to.
    pub decisions: Decisions,
}

/// What definitions and tests came to, by position in the plan; none where nothing asked.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Decisions {
    /// Definitions.
    pub definitions: Vec<Option<Truth>>,
    /// Tests.
    pub tests: Vec<Option<Arc<TestDecision>>>,
}

impl Decisions {
    pub(crate) fn none(compiled: &Compiled) -> Self {
        Self { definitions: vec![None; compiled.definitions.len()], tests: vec![None; compiled.tests.len()] }
    }
}

/// What a test came to.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct TestDecision {
    /// The test.
    pub truth: Truth,
    /// Each item of its object against its states, in order; `not evaluated` where there are none.
    pub items: Vec<Truth>,
    /// What was found, in words, where it is not as wanted.
    pub found: Vec<String>,
    /// What was expected, in words.
    pub expected: Vec<String>,
    /// Why, where it is not plain.
    pub reasons: Vec<String>,
}

/// Decides every definition and every test of the plan, whatever rules there are.
pub fn decide(compiled: &Compiled, evidence: &Evidence, now: Timestamp) -> Decisions {
    let mut evaluator = Evaluator::new(compiled, evidence, now, Decisions::none(compiled));
    for position in 0..compiled.definitions.len() {
        evaluator.definition(position);
    }
    for position in 0..compiled.tests.len() {
        evaluator.test(position);
    }
    evaluator.decisions
}

/// Lines of evidence kept for each rule.
const EVIDENCE_LINES_MAX: usize = 6;

/// Decides every rule.
pub fn evaluate(compiled: &Compiled, evidence: &Evidence, now: Timestamp) -> Evaluation {
    let mut evaluator = Evaluator::new(compiled, evidence, now, Decisions::none(compiled));
    let results = compiled.rules.iter().map(|rule| evaluator.rule(rule)).collect();
    let decisions = evaluator.decisions;
    Evaluation::of(compiled, evidence, results, decisions)
}

impl Evaluation {
    /// The verdicts of a `multi-check`: the definition's id and what came of it. Empty for every other rule, and
    /// for one that was not decided by its definitions.
    pub fn parts<'plan>(
        &self,
        compiled: &Compiled,
        rule: &'plan RulePlan,
        whole: Verdict,
    ) -> Vec<(&'plan str, Verdict)> {
        let CheckPlan::Definitions { definitions, negate } = &rule.check else { return Vec::new() };
        if matches!(whole, Verdict::NotApplicable | Verdict::NotChecked | Verdict::NotSelected | Verdict::Informational)
        {
            return Vec::new();
        }
        // The last one first, as `oscap` tells them.
        let parts = rule.multi.iter().zip(definitions).rev().map(|(id, at)| {
            let truth = self.decisions.definitions[*at]?;
            let verdict = verdict_of(truth, is_bad_when_true(compiled.definitions[*at].class));
            Some((id.as_str(), if *negate { negated(verdict) } else { verdict }))
        });
        parts.collect::<Option<_>>().unwrap_or_default()
    }

    /// Whether the endpoint is such a platform, as far as the rules asked.
    pub fn is_platform(&self, platform: &PlatformPlan) -> bool {
        platform_truth(platform, &mut |definition| self.decisions.definitions[definition], &mut |_| ()) == Truth::True
    }

    /// Of the results of all rules, by position, and the decisions that they came from.
    pub(crate) fn of(compiled: &Compiled, evidence: &Evidence, results: Vec<RuleResult>, decisions: Decisions) -> Self {
        let verdicts: Vec<Verdict> = results.iter().map(|result| result.verdict).collect();
        let tree = scored(&compiled.tree, &verdicts);
        let used = compiled.tests.iter().zip(&decisions.tests).filter(|(_, decision)| decision.is_some());
        let objects = used.filter_map(|(test, _)| test.subject.as_ref().ok());
        let oldest_collected = objects
            .filter_map(|(object, _)| evidence.observations.get(object))
            .map(|observed| observed.collected)
            .filter(|collected| evidence.collected_since.is_none_or(|since| *collected >= since))
            .min();
        Self {
            results: results.into_iter().filter(|result| result.verdict != Verdict::NotSelected).collect(),
            scores: score::all_models(&tree),
            score: score::default_model(&tree),
            oldest_collected,
            counts: counted(&verdicts),
            decisions,
        }
    }
}

/// How many there are of each.
pub(crate) fn counted(verdicts: &[Verdict]) -> Vec<(Verdict, u64)> {
    let mut counts: BTreeMap<Verdict, u64> = BTreeMap::new();
    for verdict in verdicts {
        *counts.entry(*verdict).or_default() += 1;
    }
    counts.into_iter().collect()
}

pub(crate) fn scored(tree: &[TreeNode], verdicts: &[Verdict]) -> Vec<Scored> {
    tree.iter()
        .map(|node| match node {
            TreeNode::Group(weight, children) => Scored::Group(*weight, scored(children, verdicts)),
            TreeNode::Rule(weight, at) => Scored::Rule(*weight, verdicts[*at]),
        })
        .collect()
}

/// Observations as a source for variables.
pub(crate) struct Stored<'evidence> {
    pub(crate) evidence: &'evidence Evidence,
}

impl ObjectSource for Stored<'_> {
    fn object(&mut self, key: &ObjectKey, _depth: usize) -> Option<Rc<Collected>> {
        let observed = self.evidence.observations.get(key)?;
        if self.evidence.collected_since.is_some_and(|since| observed.collected < since) {
            return None;
        }
        Some(Rc::clone(&observed.collected_object))
    }
}

impl TestDecision {
    pub(crate) fn because(truth: Truth, reason: impl Into<String>) -> Self {
        Self { reasons: vec![reason.into()], ..Self::plain(truth) }
    }

    fn plain(truth: Truth) -> Self {
        Self { truth, items: Vec::new(), found: Vec::new(), expected: Vec::new(), reasons: Vec::new() }
    }
}

pub(crate) struct Evaluator<'run> {
    compiled: &'run Compiled,
    source: Stored<'run>,
    states: States<'run>,
    /// What is known already, and what becomes known.
    pub(crate) decisions: Decisions,
    /// Tests that somebody else has decided, by position: taken over when something asks.
    pub(crate) decided_before: &'run [Option<Arc<TestDecision>>],
    /// Definitions that are being decided, to see a cycle.
    open: Vec<usize>,
}

impl<'run> Evaluator<'run> {
    pub(crate) fn new(
        compiled: &'run Compiled,
        evidence: &'run Evidence,
        now: Timestamp,
        decisions: Decisions,
    ) -> Self {
        let plan = &compiled.collection;
        Self {
            compiled,
            source: Stored { evidence },
            states: States { plan, variables: Variables::new(plan, now) },
            decisions,
            decided_before: &[],
            open: Vec::new(),
        }
    }

    pub(crate) fn rule(&mut self, rule: &RulePlan) -> RuleResult {
        let mut result = RuleResult::new(&rule.id, &rule.title, rule.severity, Verdict::NotSelected);
        if !rule.selected {
            return result;
        }
        if rule.role == Role::Unchecked {
            result.verdict = Verdict::NotChecked;
            result.reasons.push("the profile says `unchecked`".to_owned());
            return result;
        }
        if let Some((verdict, reason)) = self.not_applicable(rule) {
            result.verdict = verdict;
            result.reasons.push(reason);
            return result;
        }
        let mut told = Told::default();
        let verdict = self.check(&rule.check, &mut told);
        result.sense = told.sense;
        result.objects = told.objects;
        result.objects.sort();
        result.objects.dedup();
        result.reasons.extend(told.notes);
        if verdict != Verdict::Pass {
            for (from, to) in [
                (told.found, &mut result.found),
                (told.expected, &mut result.expected),
                (told.reasons, &mut result.reasons),
            ] {
                for line in from {
                    if to.len() < EVIDENCE_LINES_MAX && !to.contains(&line) {
                        to.push(line);
                    }
                }
            }
        }
        if matches!(verdict, Verdict::Fail) && !rule.fix.is_empty() {
            result.fix = Some(rule.fix.chars().take(1200).collect());
        }
        // Whatever came of its check; where there is none to make, that has to be said.
        let is_checked = rule.chosen.is_some() || matches!(rule.check, CheckPlan::Complex { .. });
        let is_information = rule.role == Role::Unscored && is_checked;
        result.verdict = if is_information { Verdict::Informational } else { verdict };
        result
    }

    /// Why a rule is not for this endpoint, or why that is not known: where what tells it was not collected, or is stale.
    fn not_applicable(&mut self, rule: &RulePlan) -> Option<(Verdict, String)> {
        for level in &rule.platforms {
            let mut names = Vec::new();
            let mut undefined = |name: &str| names.push(name.to_owned());
            let mut asked = Vec::new();
            let mut of_definition = |definition| {
                asked.push(definition);
                Some(self.definition(definition))
            };
            let is_here = level
                .iter()
                .any(|platform| platform_truth(platform, &mut of_definition, &mut undefined) == Truth::True);
            if is_here {
                continue;
            }
            let lacking: BTreeMap<usize, String> =
                asked.iter().filter_map(|definition| Some((*definition, self.lacking(*definition)?))).collect();
            let may_be_here = |assumed: Truth| {
                let mut of_definition = |definition| {
                    if lacking.contains_key(&definition) {
                        Some(assumed)
                    } else {
                        self.decisions.definitions[definition]
                    }
                };
                level.iter().any(|platform| platform_truth(platform, &mut of_definition, &mut |_| ()) == Truth::True)
            };
            // The first that was asked, wherever another version of the policy has its definition.
            if let Some(reason) = asked.iter().find_map(|definition| lacking.get(definition))
                && (may_be_here(Truth::True) || may_be_here(Truth::False))
            {
                let reason = format!("whether the rule's platform is here is not known: {reason}");
                return Some((Verdict::Unknown, reason));
            }
            let reason = if names.is_empty() {
                "none of the rule's platforms is here".to_owned()
            } else {
                format!("the platform is not defined: {}", names.join(", "))
            };
            return Some((Verdict::NotApplicable, reason));
        }
        None
    }

    /// Why a definition that was decided is not known: what it reads is not there, or is stale.
    fn lacking(&mut self, definition: usize) -> Option<String> {
        if self.decisions.definitions[definition] != Some(Truth::Unknown) {
            return None;
        }
        let compiled = self.compiled;
        let mut open = vec![&compiled.definitions[definition].criteria];
        let mut seen = BTreeSet::from([definition]);
        while let Some(criteria) = open.pop() {
            match criteria {
                CriteriaPlan::Fixed(..) => {}
                CriteriaPlan::Operator { parts, .. } => open.extend(parts),
                CriteriaPlan::Definition { definition, .. } => {
                    if seen.insert(*definition) {
                        open.push(&compiled.definitions[*definition].criteria);
                    }
                }
                CriteriaPlan::Test { test, .. } => {
                    if let Ok((object, _)) = &compiled.tests[*test].subject
                        && self.source.object(object, 0).is_none()
                    {
                        return self.test(*test).reasons.first().cloned();
                    }
                }
            }
        }
        None
    }

    fn check(&mut self, plan: &CheckPlan, told: &mut Told) -> Verdict {
        let (verdict, negate) = match plan {
            CheckPlan::Fixed(verdict, reason) => {
                told.reasons.push(reason.clone());
                return *verdict;
            }
            CheckPlan::Definitions { definitions, negate } => {
                let verdicts: Vec<Verdict> =
                    definitions.iter().map(|definition| self.decided(*definition, told)).collect();
                (combine(true, &verdicts), *negate)
            }
            CheckPlan::Script { definition, negate } => {
                let verdict = self.decided(*definition, told);
                let collected = self.script(*definition);
                told.notes.extend(collected.as_deref().and_then(script::note));
                (collected.as_deref().and_then(script::verdict).unwrap_or(verdict), *negate)
            }
            CheckPlan::Complex { is_and, negate, parts } => {
                let verdicts: Vec<Verdict> = parts.iter().map(|part| self.check(part, told)).collect();
                (combine(*is_and, &verdicts), *negate)
            }
        };
        if negate { negated(verdict) } else { verdict }
    }

    /// What was found by the script that a definition asks for, where that counts.
    fn script(&mut self, definition: usize) -> Option<Rc<Collected>> {
        let CriteriaPlan::Test { test, .. } = &self.compiled.definitions[definition].criteria else { return None };
        let (object, _) = self.compiled.tests[*test].subject.as_ref().ok()?;
        self.source.object(object, 0)
    }

    /// A definition's verdict: for patches and vulnerabilities, true is bad.
    fn decided(&mut self, position: usize, told: &mut Told) -> Verdict {
        let truth = self.definition(position);
        let definition = &self.compiled.definitions[position];
        let is_bad_when_true = is_bad_when_true(definition.class);
        if is_bad_when_true {
            told.sense = Sense::Vulnerability;
        }
        self.tell(&definition.criteria, is_bad_when_true, told, 0);
        verdict_of(truth, is_bad_when_true)
    }

    fn definition(&mut self, position: usize) -> Truth {
        if let Some(known) = self.decisions.definitions[position] {
            return known;
        }
        if self.open.contains(&position) {
            return Truth::Error;
        }
        self.open.push(position);
        let compiled = self.compiled;
        let truth = self.criteria(&compiled.definitions[position].criteria);
        self.open.pop();
        self.decisions.definitions[position] = Some(truth);
        truth
    }

    fn criteria(&mut self, criteria: &CriteriaPlan) -> Truth {
        let (truth, negate) = match criteria {
            CriteriaPlan::Fixed(truth, _) => (*truth, false),
            CriteriaPlan::Operator { operator, negate, parts } => {
                let truths: Vec<Truth> = parts.iter().map(|part| self.criteria(part)).collect();
                (check::operator(*operator, truths), *negate)
            }
            CriteriaPlan::Test { test, negate } => (self.test(*test).truth, *negate),
            CriteriaPlan::Definition { definition, negate } => (self.definition(*definition), *negate),
        };
        if negate { truth.negated() } else { truth }
    }

    pub(crate) fn test(&mut self, position: usize) -> Arc<TestDecision> {
        if let Some(known) = &self.decisions.tests[position] {
            return Arc::clone(known);
        }
        if let Some(Some(before)) = self.decided_before.get(position) {
            self.decisions.tests[position] = Some(Arc::clone(before));
            return Arc::clone(before);
        }
        let compiled = self.compiled;
        let test = &compiled.tests[position];
        let outcome = match &test.subject {
            Err((truth, reason)) => TestDecision::because(*truth, reason.clone()),
            Ok((object, states)) => self.decide(test, object, states),
        };
        let outcome = Arc::new(outcome);
        self.decisions.tests[position] = Some(Arc::clone(&outcome));
        outcome
    }

    fn decide(&mut self, test: &TestPlan, object: &ObjectKey, states: &[StateKey]) -> TestDecision {
        let Some(observed) = self.source.evidence.observations.get(object) else {
            return TestDecision::because(Truth::Unknown, format!("not collected: {}", self.object_words(object)));
        };
        if self.source.evidence.collected_since.is_some_and(|since| observed.collected < since) {
            let text = format!("stale: collected {:.0}, too old for this evaluation", observed.collected);
            return TestDecision::because(Truth::Unknown, text);
        }
        let collected = Rc::clone(&observed.collected_object);
        if test.kind == script::KIND {
            return script::decide(&collected);
        }
        let reason = |what: &str| collected.messages.first().map_or_else(|| what.to_owned(), Clone::clone);
        match collected.flag {
            // Whatever there is, or is not, is as wanted.
            Flag::Error | Flag::NotApplicable if test.existence == Existence::AnyExist && states.is_empty() => {
                TestDecision::plain(Truth::True)
            }
            Flag::Error => TestDecision::because(Truth::Error, reason("the object could not be collected")),
            Flag::NotCollected => TestDecision::because(Truth::Unknown, reason("not collected")),
            Flag::NotApplicable => {
                TestDecision::because(Truth::NotApplicable, reason("not applicable on this endpoint"))
            }
            Flag::DoesNotExist => {
                let truth = check::existence(test.existence, []);
                let mut outcome = TestDecision::plain(truth);
                if truth == Truth::False {
                    outcome.found.push(format!("nothing: {}", self.object_words(object)));
                    outcome.expected = self.states_words(states).unwrap_or_else(|| vec!["that it exists".to_owned()]);
                    outcome.reasons.clone_from(&collected.messages);
                }
                outcome
            }
            Flag::Complete | Flag::Incomplete => self.decide_items(test, &collected, states),
        }
    }

    fn decide_items(&mut self, test: &TestPlan, collected: &Collected, states: &[StateKey]) -> TestDecision {
        let is_incomplete = collected.flag == Flag::Incomplete;
        let existence = if is_incomplete {
            incomplete_existence(test.existence, &collected.items)
        } else {
            check::existence(test.existence, collected.items.iter().map(|item| item.status))
        };
        let mut outcome = TestDecision::plain(existence);
        outcome.items = vec![Truth::NotEvaluated; collected.items.len()];
        if is_incomplete {
            outcome.reasons.clone_from(&collected.messages);
        }
        let existing: Vec<&Item> = collected.items.iter().filter(|item| item.status == Status::Exists).collect();
        if existence != Truth::True {
            outcome.found = existing.iter().take(EVIDENCE_LINES_MAX).map(|item| item_words(item)).collect();
            if existing.len() > EVIDENCE_LINES_MAX {
                outcome.found.push(format!("and {} more", existing.len() - EVIDENCE_LINES_MAX));
            }
            outcome.expected.push(match test.existence {
                Existence::NoneExist => "none".to_owned(),
                Existence::OnlyOneExists => "exactly one".to_owned(),
                _ => "that it exists".to_owned(),
            });
            return outcome;
        }
        if is_incomplete && existing.is_empty() && !states.is_empty() {
            // There may be items that nobody looked at.
            outcome.truth = Truth::Unknown;
        }
        if states.is_empty() || collected.items.is_empty() {
            return outcome;
        }
        let plan = self.compiled;
        let mut truths = Vec::with_capacity(collected.items.len());
        // An item that could not be read, or is not there, counts as well: it is no item that is as wanted.
        for (at, item) in collected.items.iter().enumerate() {
            let mut mismatches: Vec<Mismatch> = Vec::new();
            let of_states: Vec<Truth> = states
                .iter()
                .map(|key| match plan.collection.states.get(key) {
                    Some(state) => self.states.evaluate(state, item, &mut self.source, 0, &mut mismatches),
                    None => Truth::Error,
                })
                .collect();
            let truth = check::operator(test.state_operator, of_states);
            truths.push(truth);
            outcome.items[at] = truth;
            if truth != Truth::True && outcome.found.len() < EVIDENCE_LINES_MAX {
                for mismatch in mismatches {
                    outcome.found.push(format!("{}: {}", subject_words(item), mismatch.found));
                    outcome.expected.push(mismatch.expected);
                    outcome.reasons.extend(mismatch.reason);
                }
            }
        }
        outcome.expected.dedup();
        let met_count = truths.iter().filter(|truth| **truth == Truth::True).count();
        outcome.truth = check::check(test.check, truths);
        if is_incomplete {
            // Only what no unseen item can change stands.
            use proto::plan::Check::{All, AtLeastOne, NoneExist, NoneSatisfy, OnlyOne};
            let is_decided = match (test.check, outcome.truth) {
                (AtLeastOne, Truth::True) | (All | NoneSatisfy | NoneExist, Truth::False) => true,
                (OnlyOne, Truth::False) => met_count > 1,
                _ => false,
            };
            if !is_decided {
                outcome.truth = Truth::Unknown;
            }
        }
        outcome
    }

    /// Gathers the evidence of the parts that made the criteria what they are; `want_false` follows
    /// negation.
    fn tell(&mut self, criteria: &CriteriaPlan, want_false: bool, told: &mut Told, depth: usize) {
        if depth > 2 * crate::limits::REFERENCE_DEPTH_MAX {
            return;
        }
        let compiled = self.compiled;
        match criteria {
            CriteriaPlan::Fixed(_, reason) => told.reasons.push(reason.clone()),
            CriteriaPlan::Operator { negate, parts, .. } => {
                for part in parts {
                    self.tell(part, want_false ^ negate, told, depth + 1);
                }
            }
            CriteriaPlan::Definition { definition, negate } => {
                // Told once: definitions that extend each other many times over must not take for ever.
                if told.definitions.insert((*definition, want_false ^ negate)) {
                    self.tell(&compiled.definitions[*definition].criteria, want_false ^ negate, told, depth + 1);
                }
            }
            CriteriaPlan::Test { test, negate } => {
                let outcome = self.test(*test);
                let plan = &compiled.tests[*test];
                if let Ok((object, _)) = &plan.subject {
                    told.objects.push(object.clone());
                }
                let truth = if *negate { outcome.truth.negated() } else { outcome.truth };
                let is_good = truth == Truth::from(!want_false);
                if is_good {
                    return;
                }
                if outcome.truth == Truth::True {
                    told.found.push(format!("so it is: {}", one_line(&plan.comment)));
                    told.expected.push("that it is not so".to_owned());
                }
                told.found.extend(outcome.found.iter().cloned());
                told.expected.extend(outcome.expected.iter().cloned());
                told.reasons.extend(outcome.reasons.iter().cloned());
            }
        }
    }

    fn object_words(&self, key: &ObjectKey) -> String {
        let plan = &self.compiled.collection;
        plan.objects.get(key).map_or_else(|| key.to_string(), |object| object_words(plan, object))
    }

    fn states_words(&self, states: &[StateKey]) -> Option<Vec<String>> {
        let plan = &self.compiled.collection;
        let words: Vec<String> = states
            .iter()
            .filter_map(|key| plan.states.get(key))
            .flat_map(|state| &state.entities)
            .map(|entity| entity_words(plan, entity))
            .collect();
        (!words.is_empty()).then_some(words)
    }
}

/// What is told about a rule.
#[derive(Debug, Default)]
struct Told {
    sense: Sense,
    found: Vec<String>,
    expected: Vec<String>,
    reasons: Vec<String>,
    objects: Vec<ObjectKey>,
    /// What is said of a pass, too.
    notes: BTreeSet<String>,
    definitions: BTreeSet<(usize, bool)>,
}

/// Whether something is such a platform; names that nobody defines are told.
fn platform_truth(
    platform: &PlatformPlan,
    definition: &mut dyn FnMut(usize) -> Option<Truth>,
    undefined: &mut dyn FnMut(&str),
) -> Truth {
    match platform {
        PlatformPlan::Undefined(name) => {
            undefined(name);
            Truth::False
        }
        // Only a clear yes makes a platform: `oscap` takes everything else as no.
        PlatformPlan::Definition(at) => Truth::from(definition(*at) == Some(Truth::True)),
        PlatformPlan::Test { is_and, negate, parts } => {
            let truths: Vec<Truth> = parts.iter().map(|part| platform_truth(part, definition, undefined)).collect();
            let operator = if *is_and { Operator::And } else { Operator::Or };
            let truth = check::operator(operator, truths);
            if *negate { truth.negated() } else { truth }
        }
    }
}

fn is_bad_when_true(class: Class) -> bool {
    matches!(class, Class::Patch | Class::Vulnerability)
}

fn verdict_of(truth: Truth, is_bad_when_true: bool) -> Verdict {
    match truth {
        Truth::True if is_bad_when_true => Verdict::Fail,
        Truth::False if is_bad_when_true => Verdict::Pass,
        Truth::True => Verdict::Pass,
        Truth::False => Verdict::Fail,
        Truth::Unknown => Verdict::Unknown,
        Truth::Error => Verdict::Error,
        Truth::NotEvaluated => Verdict::NotChecked,
        Truth::NotApplicable => Verdict::NotApplicable,
    }
}

fn negated(verdict: Verdict) -> Verdict {
    match verdict {
        Verdict::Pass => Verdict::Fail,
        Verdict::Fail => Verdict::Pass,
        other => other,
    }
}

/// The truth tables of `complexCheckType` (`xccdf_1.2.xsd`): what was not asked for says nothing.
fn combine(is_and: bool, verdicts: &[Verdict]) -> Verdict {
    use Verdict::{Error, Fail, NotApplicable, NotChecked, Pass, Unknown};
    let (strong, weak) = if is_and { (Fail, Pass) } else { (Pass, Fail) };
    let order = [strong, Unknown, Error, weak, NotApplicable, NotChecked];
    order.into_iter().find(|verdict| verdicts.contains(verdict)).unwrap_or(NotChecked)
}

/// §5.3.6.4: what can be said of existence when there may be more items.
fn incomplete_existence(existence: Existence, items: &[Item]) -> Truth {
    let there = items.iter().filter(|item| item.status == Status::Exists).count();
    let is_any_absent = items.iter().any(|item| item.status == Status::DoesNotExist);
    match existence {
        Existence::AnyExist => Truth::True,
        Existence::AtLeastOneExists if there > 0 => Truth::True,
        Existence::AllExist if is_any_absent => Truth::False,
        Existence::NoneExist if there > 0 => Truth::False,
        Existence::OnlyOneExists if there > 1 => Truth::False,
        _ => Truth::Unknown,
    }
}

fn one_line(text: &str) -> String {
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    text.chars().take(160).collect()
}

/// What an item is about.
fn subject_words(item: &Item) -> String {
    let first = |names: &[&str]| names.iter().find_map(|name| item.value(name)).map(one_line);
    let words = match item.kind.as_str() {
        "unix:file" | "independent:textfilecontent54" | "independent:yamlfilecontent" => first(&["filepath", "path"]),
        "linux:partition" => first(&["mount_point"]),
        "unix:password" | "unix:shadow" => first(&["username"]),
        "linux:inetlisteningservers" => first(&["local_full_address"]),
        "linux:systemdunitproperty" | "linux:systemdunitdependency" => first(&["unit"]),
        _ => first(&["name", "value"]),
    };
    words.unwrap_or_else(|| item.kind.clone())
}

/// An item in a few words.
fn item_words(item: &Item) -> String {
    match item.kind.as_str() {
        "independent:textfilecontent54" => {
            format!("{}: {}", subject_words(item), one_line(item.value("text").unwrap_or_default()))
        }
        "linux:dpkginfo" => format!("package {} {}", subject_words(item), item.value("evr").unwrap_or_default()),
        _ => subject_words(item),
    }
}

fn object_words(plan: &CollectionPlan, object: &Object) -> String {
    if object.set.is_some() {
        return format!("a set of {}", object.kind);
    }
    let words: Vec<String> = object
        .entities
        .iter()
        .filter(|entity| entity.name != "instance" && entity.value != EntityValue::Nil)
        .map(|entity| entity_words(plan, entity))
        .collect();
    if words.is_empty() {
        return object.kind.clone();
    }
    format!("{} with {}", object.kind, words.join(", "))
}

fn entity_words(plan: &CollectionPlan, entity: &Entity) -> String {
    let value = match &entity.value {
        EntityValue::Literal(value) => one_line(value),
        EntityValue::Nil => "(nothing)".to_owned(),
        EntityValue::Record(_) => "(record)".to_owned(),
        EntityValue::Variable(key) => match plan.variables.get(key).map(|variable| &variable.source) {
            Some(proto::plan::VariableSource::Constant(values)) => one_line(&values.join(", ")),
            _ => "(a computed value)".to_owned(),
        },
    };
    format!("{} {} {value}", entity.name, entity.operation)
}
