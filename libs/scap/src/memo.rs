//! Verdicts remembered by what they were decided on. Endpoints of a fleet are alike: where two of them show a test the same, it is
//! decided once, and where all tests of a rule came to the same, so did the rule. What is remembered is found by the hashes of
//! what was observed, so that contents have to be read only where nobody has decided on them before.
//!
//! What comes out is what [`evaluate`](crate::evaluate::evaluate) gives for the same evidence.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::rc::Rc;
use std::sync::Arc;

use jiff::Timestamp;
use proto::content::ContentHash;
use proto::observation::{Collected, Flag};
use proto::plan::ObjectKey;
use proto::verdict::{RuleResult, Verdict};

use crate::compile::{CheckPlan, Compiled, RulePlan};
use crate::dependencies::{dependents_of_tests, reads};
use crate::evaluate::{Decisions, Evaluator, Evidence, Observed, TestDecision, counted, scored};
use crate::{score, script};

/// Bytes that are remembered, about; then it is begun anew.
const BYTES_MAX: usize = 64 * 1024 * 1024;

/// What an object was found to be: equal numbers mean equal contents. A number is never given twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Content(u64);

/// Nothing is known.
const NOTHING: Content = Content(0);

/// What is known of one object of one endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Known {
    /// What it was found to be.
    pub content: Content,
    /// When.
    pub collected: Timestamp,
}

/// What is known of one endpoint.
#[derive(Debug, Clone, Default)]
pub struct View {
    /// By the object's position in what the plan reports.
    pub known: Vec<Option<Known>>,
    /// Anything older is stale.
    pub collected_since: Option<Timestamp>,
}

impl View {
    fn fresh(&self, object: usize) -> Option<Known> {
        let known = (*self.known.get(object)?)?;
        self.collected_since.is_none_or(|since| known.collected >= since).then_some(known)
    }

    fn is_stale(&self, object: usize) -> bool {
        self.known.get(object).is_some_and(Option::is_some) && self.fresh(object).is_none()
    }

    /// The oldest of what these verdicts were decided on.
    pub fn oldest(&self, decisions: &[(usize, Arc<Decision>)]) -> Option<Timestamp> {
        let used: BTreeSet<usize> = decisions.iter().flat_map(|(_, decision)| decision.uses.iter().copied()).collect();
        used.into_iter().filter_map(|object| self.fresh(object)).map(|known| known.collected).min()
    }
}

/// A rule's verdict, wherever it is the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    /// In words.
    pub result: RuleResult,
    /// The objects that it was decided on, by position in what the plan reports.
    uses: Box<[usize]>,
}

#[derive(Debug)]
struct TestMemo {
    /// The objects that it reads.
    reads: Box<[usize]>,
    /// Whether nothing else matters: neither the clock, nor what a script said.
    is_remembered: bool,
    /// By what its objects were found to be.
    decided: HashMap<Box<[Content]>, (u64, Arc<TestDecision>)>,
    /// The number of each outcome.
    numbers: HashMap<Arc<TestDecision>, u64>,
}

#[derive(Debug)]
struct RuleMemo {
    /// The tests that it may ask, and the object of each.
    tests: Box<[(usize, Option<usize>)]>,
    is_remembered: bool,
    /// By what its tests came to, and whether their objects were known.
    decided: HashMap<Box<[u64]>, Arc<Decision>>,
}

/// What is remembered of one policy and profile.
#[derive(Debug)]
pub struct Memo {
    tests: Vec<TestMemo>,
    rules: Vec<RuleMemo>,
    contents: HashMap<ContentHash, Content>,
    /// The last number that was given.
    last: u64,
    bytes: usize,
}

/// What is remembered for one endpoint, and what has to be read to decide the rest.
#[derive(Debug)]
pub struct Recalled {
    /// By position; those that nothing asks for are not there.
    tests: Vec<Option<(u64, Arc<TestDecision>)>>,
    /// The tests that are not remembered.
    missing: Vec<usize>,
    /// The objects that they read, of which something is known that is not stale.
    pub unread: BTreeSet<usize>,
}

impl Recalled {
    /// Whether every test is remembered.
    pub fn is_complete(&self) -> bool {
        self.missing.is_empty()
    }

    /// Decides the tests that are not remembered. `contents` has at least what is [`unread`](Self::unread), by position.
    pub fn decide(
        &self,
        compiled: &Compiled,
        view: &View,
        contents: BTreeMap<usize, Collected>,
        now: Timestamp,
    ) -> DecidedTests {
        let evidence = evidence_of(compiled, view, contents);
        let mut evaluator = Evaluator::new(compiled, &evidence, now, Decisions::none(compiled));
        let tests = self.missing.iter().map(|test| (*test, evaluator.test(*test))).collect();
        let mut scripts = BTreeMap::new();
        for (position, object) in compiled.collection.report.iter().enumerate() {
            let is_script = compiled.collection.objects.get(object).is_some_and(|object| object.kind == script::KIND);
            if let Some(observed) = evidence.observations.get(object).filter(|_| is_script) {
                scripts.insert(position, Collected::clone(&observed.collected_object));
            }
        }
        DecidedTests { tests, scripts }
    }
}

/// Tests that were decided for one endpoint.
#[derive(Debug, Default)]
pub struct DecidedTests {
    tests: Vec<(usize, Arc<TestDecision>)>,
    /// What scripts said: verdicts that rest on one say so.
    scripts: BTreeMap<usize, Collected>,
}

impl Memo {
    /// Of a policy of which nothing is remembered.
    pub fn of(compiled: &Compiled) -> Self {
        let positions: HashMap<&ObjectKey, usize> =
            compiled.collection.report.iter().enumerate().map(|(at, object)| (object, at)).collect();
        let mut tests_of_rules: Vec<Vec<(usize, Option<usize>)>> = vec![Vec::new(); compiled.rules.len()];
        let mut tests = Vec::with_capacity(compiled.tests.len());
        for (at, (test, dependents)) in compiled.tests.iter().zip(dependents_of_tests(compiled)).enumerate() {
            let read = test.subject.as_ref().ok().map(|(object, states)| reads(&compiled.collection, object, states));
            let read = read.unwrap_or_default();
            let object = test.subject.as_ref().ok().and_then(|(object, _)| positions.get(object).copied());
            for rule in dependents.rules {
                tests_of_rules[rule].push((at, object));
            }
            tests.push(TestMemo {
                reads: read.objects.iter().filter_map(|object| positions.get(object).copied()).collect(),
                is_remembered: !read.is_clock && test.kind != script::KIND,
                decided: HashMap::new(),
                numbers: HashMap::new(),
            });
        }
        let rule = |(rule, tests): (&RulePlan, Vec<_>)| RuleMemo {
            tests: tests.into(),
            is_remembered: !is_by_script(&rule.check),
            decided: HashMap::new(),
        };
        let rules = compiled.rules.iter().zip(tests_of_rules).map(rule).collect();
        Self { tests, rules, contents: HashMap::new(), last: 0, bytes: 0 }
    }

    /// The number of what has this hash.
    pub fn content(&mut self, hash: &ContentHash) -> Content {
        if let Some(known) = self.contents.get(hash) {
            return *known;
        }
        let content = self.content_of_its_own();
        self.bytes += 120;
        self.contents.insert(hash.clone(), content);
        content
    }

    /// A number for what is like nothing else.
    pub fn content_of_its_own(&mut self) -> Content {
        self.last += 1;
        Content(self.last)
    }

    /// What is remembered that these rules need on an endpoint.
    pub fn recall(&self, view: &View, rules: &BTreeSet<usize>) -> Recalled {
        let mut recalled =
            Recalled { tests: vec![None; self.tests.len()], missing: Vec::new(), unread: BTreeSet::new() };
        let mut is_asked = vec![false; self.tests.len()];
        for (test, _) in rules.iter().filter_map(|rule| self.rules.get(*rule)).flat_map(|rule| rule.tests.iter()) {
            if std::mem::replace(&mut is_asked[*test], true) {
                continue;
            }
            let memo = &self.tests[*test];
            recalled.tests[*test] = memo.key(view).and_then(|key| memo.decided.get(&key).cloned());
            if recalled.tests[*test].is_none() {
                recalled.missing.push(*test);
                recalled.unread.extend(memo.reads.iter().copied().filter(|object| view.fresh(*object).is_some()));
            }
        }
        recalled
    }

    /// The verdicts of these rules, in order, by position. Remembers what is new about them.
    pub fn conclude(
        &mut self,
        compiled: &Compiled,
        view: &View,
        recalled: Recalled,
        decided: DecidedTests,
        rules: &BTreeSet<usize>,
        now: Timestamp,
    ) -> Vec<(usize, Arc<Decision>)> {
        if self.bytes > BYTES_MAX {
            self.forget();
        }
        let mut tests = recalled.tests;
        for (test, decision) in decided.tests {
            tests[test] = Some(self.keep(test, view, decision));
        }
        let (numbers, tests): (Vec<u64>, Vec<Option<Arc<TestDecision>>>) =
            tests.into_iter().map(|test| test.map_or((0, None), |(number, decision)| (number, Some(decision)))).unzip();
        let mut evidence = None;
        let mut scripts = Some(decided.scripts);
        let mut concluded = Vec::with_capacity(rules.len());
        for at in rules.iter().copied() {
            let Some(memo) = self.rules.get_mut(at) else { continue };
            let key: Box<[u64]> = memo
                .tests
                .iter()
                .map(|(test, object)| {
                    let is_known = object.is_some_and(|object| view.fresh(object).is_some());
                    numbers[*test] << 1 | u64::from(is_known)
                })
                .collect();
            if let Some(known) = memo.decided.get(&key) {
                concluded.push((at, Arc::clone(known)));
                continue;
            }
            let evidence =
                evidence.get_or_insert_with(|| evidence_of(compiled, view, scripts.take().unwrap_or_default()));
            let decision = Arc::new(decide(compiled, at, evidence, &tests, now));
            if memo.is_remembered {
                self.bytes += 8 * key.len() + size_of_result(&decision.result);
                memo.decided.insert(key, Arc::clone(&decision));
            }
            concluded.push((at, decision));
        }
        concluded
    }

    /// Remembers a test; its outcome has the same number wherever it is the same.
    fn keep(&mut self, test: usize, view: &View, decision: Arc<TestDecision>) -> (u64, Arc<TestDecision>) {
        let memo = &mut self.tests[test];
        let known = memo.numbers.get_key_value(&decision).map(|(decision, number)| (*number, Arc::clone(decision)));
        let (number, decision) = known.unwrap_or_else(|| {
            self.last += 1;
            self.bytes += size_of_decision(&decision);
            memo.numbers.insert(Arc::clone(&decision), self.last);
            (self.last, decision)
        });
        if let Some(key) = memo.key(view) {
            self.bytes += 64 + 8 * key.len();
            memo.decided.insert(key, (number, Arc::clone(&decision)));
        }
        (number, decision)
    }

    fn forget(&mut self) {
        for test in &mut self.tests {
            test.decided.clear();
            test.numbers.clear();
        }
        self.rules.iter_mut().for_each(|rule| rule.decided.clear());
        self.contents.clear();
        self.bytes = 0;
    }
}

impl TestMemo {
    /// What the test reads, where that alone says what it comes to: of what is stale it is told when it was collected.
    fn key(&self, view: &View) -> Option<Box<[Content]>> {
        let is_plain = self.is_remembered && !self.reads.iter().any(|object| view.is_stale(*object));
        let content = |object: &usize| view.fresh(*object).map_or(NOTHING, |known| known.content);
        is_plain.then(|| self.reads.iter().map(content).collect())
    }
}

/// Decides a rule by what its tests came to.
fn decide(
    compiled: &Compiled,
    at: usize,
    evidence: &Evidence,
    tests: &[Option<Arc<TestDecision>>],
    now: Timestamp,
) -> Decision {
    let mut evaluator = Evaluator::new(compiled, evidence, now, Decisions::none(compiled));
    evaluator.decided_before = tests;
    let result = evaluator.rule(&compiled.rules[at]);
    let asked = compiled.tests.iter().zip(&evaluator.decisions.tests).filter(|(_, decision)| decision.is_some());
    let objects = asked.filter_map(|(test, _)| test.subject.as_ref().ok());
    let positions = objects.filter_map(|(object, _)| compiled.collection.report.binary_search(object).ok());
    let uses: BTreeSet<usize> = positions.collect();
    Decision { result, uses: uses.into_iter().collect() }
}

/// What is known, with the contents that were read; of the others that they are there.
fn evidence_of(compiled: &Compiled, view: &View, mut contents: BTreeMap<usize, Collected>) -> Evidence {
    let unread = Rc::new(Collected { flag: Flag::NotCollected, items: Vec::new(), messages: Vec::new() });
    let mut observations = BTreeMap::new();
    for (position, (object, known)) in compiled.collection.report.iter().zip(&view.known).enumerate() {
        let Some(known) = known else { continue };
        let collected_object = contents.remove(&position).map_or_else(|| Rc::clone(&unread), Rc::new);
        observations.insert(object.clone(), Observed { collected_object, collected: known.collected });
    }
    Evidence { observations, collected_since: view.collected_since }
}

fn is_by_script(check: &CheckPlan) -> bool {
    match check {
        CheckPlan::Script { .. } => true,
        CheckPlan::Complex { parts, .. } => parts.iter().any(is_by_script),
        CheckPlan::Fixed(..) | CheckPlan::Definitions { .. } => false,
    }
}

fn size_of(lines: &[String]) -> usize {
    lines.iter().map(|line| 24 + line.len()).sum()
}

fn size_of_decision(decision: &TestDecision) -> usize {
    200 + decision.items.len() + size_of(&decision.found) + size_of(&decision.expected) + size_of(&decision.reasons)
}

fn size_of_result(result: &RuleResult) -> usize {
    let objects: usize = result.objects.iter().map(|object| 24 + object.0.len()).sum();
    let words = size_of(&result.found) + size_of(&result.expected) + size_of(&result.reasons);
    400 + objects + words + result.title.len() + result.fix.as_ref().map_or(0, String::len)
}

/// The verdicts on one endpoint, counted.
#[derive(Debug, Clone, PartialEq)]
pub struct Tally {
    /// A letter for each rule of the plan.
    pub letters: String,
    /// The default score; `None` where no rule counts.
    pub score: Option<f64>,
    /// How many rules got each verdict, `notselected` included.
    pub counts: Vec<(Verdict, u64)>,
}

impl Tally {
    /// Of these verdicts; of the other rules what `before` says, a letter for each rule of the plan, or `notselected`.
    /// `None` where the letters are those of another plan.
    pub fn of(compiled: &Compiled, decisions: &[(usize, Arc<Decision>)], before: Option<&str>) -> Option<Self> {
        let mut verdicts: Vec<Verdict> = match before {
            Some(letters) => letters.chars().map(Verdict::of_letter).collect::<Option<_>>()?,
            None => vec![Verdict::NotSelected; compiled.rules.len()],
        };
        if verdicts.len() != compiled.rules.len() {
            return None;
        }
        for (at, decision) in decisions {
            verdicts[*at] = decision.result.verdict;
        }
        Some(Self {
            letters: verdicts.iter().map(|verdict| verdict.letter()).collect(),
            score: score::default_model(&scored(&compiled.tree, &verdicts)),
            counts: counted(&verdicts),
        })
    }
}
