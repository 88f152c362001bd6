//! Groups and rules as a profile has them: which are selected, and how each is decided.

use proto::plan::{Check, Existence, ObjectKey, Operator};
use proto::verdict::Verdict;

use super::{CheckPlan, Compiler, CriteriaPlan, DefinitionPlan, PlatformPlan, RulePlan, TestPlan, TreeNode};
use crate::cpe;
use crate::oval::Class;
use crate::script;
use crate::xccdf::{self, Common, ComplexCheck, ComplexPart, Item, Role, Rule};

fn not_checked(reason: impl Into<String>) -> CheckPlan {
    CheckPlan::Fixed(Verdict::NotChecked, reason.into())
}

/// Of the checks with the selector, or where there are none those without one, the last that is OVAL, as `oscap`
/// picks it; else the last that is a script.
fn chosen_check(rule: &Rule, selector: &str) -> Option<usize> {
    let has = rule.checks.iter().any(|check| check.selector == selector);
    let selector = if has { selector } else { "" };
    let last =
        |system: &str| rule.checks.iter().rposition(|check| check.system == system && check.selector == selector);
    last(cpe::OVAL_SYSTEM).or_else(|| last(script::SYSTEM))
}

impl<'policy> Compiler<'policy, '_> {
    pub(super) fn items(
        &mut self,
        items: &'policy [Item],
        is_selected: bool,
        levels: &mut Vec<Vec<PlatformPlan>>,
    ) -> Vec<TreeNode> {
        let mut nodes = Vec::with_capacity(items.len());
        for item in items {
            match item {
                Item::Group(group) => {
                    let is_asked = is_selected && self.tailored.is_selected(&group.common);
                    let is_selected = is_asked && self.is_allowed(&group.common);
                    if is_asked && !is_selected {
                        self.exclude(item);
                    }
                    let depth = levels.len();
                    if !group.common.platforms.is_empty() {
                        levels.push(self.platforms(&group.common.platforms));
                    }
                    let children = self.items(&group.items, is_selected, levels);
                    levels.truncate(depth);
                    let weight = self.tailored.refined(&group.common).weight.unwrap_or(group.common.weight);
                    nodes.push(TreeNode::Group(weight, children));
                }
                Item::Rule(rule) => {
                    let weight = self.tailored.refined(&rule.common).weight.unwrap_or(rule.common.weight);
                    let is_asked = self.tailored.is_selected(&rule.common);
                    let is_allowed = is_asked && self.is_allowed(&rule.common);
                    // What stands in a group that is not selected is not looked at, so it excludes nothing.
                    if is_selected && is_asked && !is_allowed {
                        self.excluded.insert(&rule.common.id);
                    }
                    let is_selected = (self.is_wanted)(&rule.common.id).unwrap_or(is_selected && is_allowed);
                    nodes.push(TreeNode::Rule(weight, self.compiled.rules.len()));
                    let plan = self.rule(rule, is_selected, levels);
                    self.compiled.rules.push(plan);
                }
            }
        }
        nodes
    }

    /// A group goes out with all that is in it.
    fn exclude(&mut self, item: &'policy Item) {
        match item {
            Item::Rule(rule) => {
                self.excluded.insert(&rule.common.id);
            }
            Item::Group(group) => {
                self.excluded.insert(&group.common.id);
                group.items.iter().for_each(|item| self.exclude(item));
            }
        }
    }

    fn is_allowed(&self, common: &Common) -> bool {
        let is_in = |id: &String| self.tailored.is_selected_id(id) && !self.excluded.contains(id.as_str());
        common.requires.iter().all(|any| any.iter().any(is_in)) && !common.conflicts.iter().any(is_in)
    }

    fn rule(&mut self, rule: &'policy Rule, selected: bool, levels: &[Vec<PlatformPlan>]) -> RulePlan {
        let refined = self.tailored.refined(&rule.common);
        let role = refined.role.unwrap_or(rule.role);
        let mut platforms: Vec<Vec<PlatformPlan>> = levels.to_vec();
        let check = if !selected {
            not_checked("not selected")
        } else if role == Role::Unchecked {
            not_checked("the profile says `unchecked`")
        } else {
            if !rule.common.platforms.is_empty() {
                platforms.push(self.platforms(&rule.common.platforms));
            }
            self.check_of(rule, refined.selector.as_deref().unwrap_or_default())
        };
        let chosen = chosen_check(rule, refined.selector.as_deref().unwrap_or_default())
            .filter(|_| rule.complex_check.is_none())
            .map(|at| (at, self.policy.content_of(&rule.checks[at])));
        RulePlan {
            multi: chosen.map(|chosen| self.multi(rule, chosen)).unwrap_or_default(),
            chosen,
            id: rule.common.id.clone(),
            title: self.title(&rule.common),
            severity: refined.severity.unwrap_or(rule.severity),
            weight: refined.weight.unwrap_or(rule.common.weight),
            role,
            selected,
            platforms,
            check,
            fix: self.fix_text(&rule.fix_text),
        }
    }

    /// The definitions of a `multi-check`: those of the whole document.
    fn multi(&self, rule: &Rule, (check, content): (usize, Option<usize>)) -> Vec<String> {
        let check = &rule.checks[check];
        match content.map(|at| &check.content[at]) {
            Some((href, None)) if check.multi_check && check.system == cpe::OVAL_SYSTEM => {
                self.policy.oval[href].definitions.keys().cloned().collect()
            }
            _ => Vec::new(),
        }
    }

    /// A title on one line.
    fn title(&self, common: &Common) -> String {
        self.tailored.title(common).split_whitespace().collect::<Vec<_>>().join(" ")
    }

    fn fix_text(&self, parts: &[xccdf::TextPart]) -> String {
        let text = self.tailored.text(parts);
        let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
        lines.join("\n")
    }

    /// A complex check, or the last OVAL check (else script) with the selector (else without one), as `oscap` picks it.
    fn check_of(&mut self, rule: &'policy Rule, selector: &str) -> CheckPlan {
        if let Some(complex) = &rule.complex_check {
            return self.complex(complex);
        }
        match chosen_check(rule, selector) {
            Some(at) => self.check(&rule.checks[at]),
            None => not_checked(match rule.checks.first() {
                Some(check) => format!("not covered yet: checks of the system {}", check.system),
                None => "the rule has no automated check".to_owned(),
            }),
        }
    }

    fn complex(&mut self, complex: &'policy ComplexCheck) -> CheckPlan {
        let parts = complex
            .parts
            .iter()
            .map(|part| match part {
                ComplexPart::Check(check) if [cpe::OVAL_SYSTEM, script::SYSTEM].contains(&check.system.as_str()) => {
                    self.check(check)
                }
                ComplexPart::Check(check) => {
                    not_checked(format!("not covered yet: checks of the system {}", check.system))
                }
                ComplexPart::Complex(inner) => self.complex(inner),
            })
            .collect();
        CheckPlan::Complex { is_and: complex.is_and, negate: complex.negate, parts }
    }

    /// A script becomes a test of a definition of its own: what depends on what it found is known like everything else.
    fn script(&mut self, check: &xccdf::Check) -> CheckPlan {
        let policy = self.policy;
        let content = policy.content_of(check).and_then(|at| policy.scripts.get(&check.content[at].0));
        let Some(script) = content else {
            let wanted: Vec<&str> = check.content.iter().map(|(href, _)| href.as_str()).collect();
            return not_checked(format!("the script is not in the data stream: {}", wanted.join(", ")));
        };
        let object = script::object(script, check, &self.compiled.values, &policy.benchmark.values);
        let key = ObjectKey::of(&object);
        self.compiled.collection.objects.insert(key.clone(), object);
        self.compiled.tests.push(TestPlan {
            kind: script::KIND.to_owned(),
            check: Check::All,
            existence: Existence::AtLeastOneExists,
            state_operator: Operator::And,
            subject: Ok((key, Vec::new())),
            comment: "what a script says".to_owned(),
        });
        let criteria = CriteriaPlan::Test { test: self.compiled.tests.len() - 1, negate: false };
        self.compiled.definitions.push(DefinitionPlan { class: Class::Compliance, criteria });
        CheckPlan::Script { definition: self.compiled.definitions.len() - 1, negate: check.negate }
    }

    fn check(&mut self, check: &'policy xccdf::Check) -> CheckPlan {
        if check.system == script::SYSTEM {
            return self.script(check);
        }
        if let Some((href, name)) = self.policy.content_of(check).and_then(|at| check.content.get(at))
            && let Some(document) = self.policy.oval.get(href)
        {
            let context = self.context(href, &check.exports);
            let ids: Vec<&String> = match name {
                Some(name) => vec![name],
                None => document.definitions.keys().collect(),
            };
            if ids.is_empty() {
                let reason = format!("{href} has no definitions");
                // One result for each of no definitions is none at all; one for all of them is an error.
                return CheckPlan::Fixed(if check.multi_check { Verdict::Unknown } else { Verdict::Error }, reason);
            }
            let definitions = ids.into_iter().map(|id| self.definition(document, &context, id, 0)).collect();
            return CheckPlan::Definitions { definitions, negate: check.negate };
        }
        let wanted: Vec<String> = check
            .content
            .iter()
            .map(|(href, name)| format!("{} in {href}", name.as_deref().unwrap_or("all definitions")))
            .collect();
        not_checked(format!("the check is not in the data stream: {}", wanted.join(", ")))
    }
}
