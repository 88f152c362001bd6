//! OVAL results (`oval-results-schema` 5.11): definitions, tests and characteristics of one endpoint.

use std::collections::BTreeMap;
use std::rc::Rc;

use ::oval::check::{self, Truth};
use ::oval::variable::Variables;
use jiff::Timestamp;
use proto::observation::EndpointFacts;
use proto::plan::{Check, Entity, Operator, VariableKey};

use crate::characteristics::{self, Numbers, write_generator};
use crate::compile::{Compiled, DocumentPlan};
use crate::evaluate::{Decisions, Evidence, Stored};
use crate::oval::{Criteria, Criterion, OvalDefinitions, Test};
use crate::xml_out::XmlOut;

/// What results are about.
#[derive(Debug, Clone, Copy)]
pub struct OvalRun<'run> {
    /// The document.
    pub oval: &'run OvalDefinitions,
    /// Its XML, from `<oval_definitions` on.
    pub source: &'run str,
    /// The plan that it is in.
    pub compiled: &'run Compiled,
    /// Where its ids have gone.
    pub document: &'run DocumentPlan,
    /// What was found.
    pub evidence: &'run Evidence,
    /// What it came to.
    pub decisions: &'run Decisions,
    /// The endpoint.
    pub facts: &'run EndpointFacts,
    /// When.
    pub now: Timestamp,
    /// Whether characteristics are left out.
    pub is_without_characteristics: bool,
}

impl OvalRun<'_> {
    /// What a definition came to.
    pub fn definition(&self, id: &str) -> Truth {
        let position = self.document.definitions.get(id);
        position.and_then(|at| self.decisions.definitions.get(*at).copied().flatten()).unwrap_or(Truth::NotEvaluated)
    }

    fn test(&self, id: &str) -> Truth {
        let position = self.document.tests.get(id);
        position
            .and_then(|at| self.decisions.tests.get(*at)?.as_ref())
            .map_or(Truth::NotEvaluated, |decision| decision.truth)
    }

    /// The whole document.
    pub fn to_xml(&self) -> String {
        let mut out = XmlOut::default();
        self.write(&mut out);
        out.finish()
    }

    /// Writes `oval_results`.
    pub fn write(&self, out: &mut XmlOut) {
        out.start(
            "oval_results",
            &[
                ("xmlns", "http://oval.mitre.org/XMLSchema/oval-results-5"),
                ("xmlns:oval", "http://oval.mitre.org/XMLSchema/oval-common-5"),
                ("xmlns:xsi", "http://www.w3.org/2001/XMLSchema-instance"),
            ],
        );
        write_generator(out, self.now);
        out.start("directives", &[]);
        for name in ["true", "false", "unknown", "error", "not_evaluated", "not_applicable"] {
            out.leaf(&format!("definition_{name}"), &[("reported", "true"), ("content", "full")], "");
        }
        out.end();
        out.raw(self.source);
        out.start("results", &[]);
        out.start("system", &[]);
        self.write_definitions(out);
        let mut numbers = Numbers::default();
        self.write_tests(out, &mut numbers);
        let empty = BTreeMap::new();
        let objects = if self.is_without_characteristics { &empty } else { &self.document.objects };
        if self.is_without_characteristics {
            numbers = Numbers::default();
        }
        characteristics::write(out, self.facts, self.oval, objects, self.evidence, &mut numbers, self.now);
        out.end();
        out.end();
        out.end();
    }

    fn write_definitions(&self, out: &mut XmlOut) {
        let decided: Vec<&String> =
            self.oval.definitions.keys().filter(|id| self.document.definitions.contains_key(*id)).collect();
        if decided.is_empty() {
            return;
        }
        out.start("definitions", &[]);
        for id in decided {
            let definition = &self.oval.definitions[id];
            let version = definition.version.to_string();
            let class = definition.class.as_str();
            let result = self.definition(id).as_str();
            out.start(
                "definition",
                &[("definition_id", id), ("version", &version), ("result", result), ("class", class)],
            );
            if let Some(criteria) = &definition.criteria {
                self.write_criteria(out, criteria);
            }
            out.end();
        }
        out.end();
    }

    fn truth(&self, criteria: &Criteria) -> Truth {
        let truths: Vec<Truth> = criteria
            .parts
            .iter()
            .map(|part| match part {
                Criterion::Criteria(inner) => self.truth(inner),
                Criterion::Test { test, negate, .. } => negated(self.test(test), *negate),
                Criterion::Extend { definition, negate } => negated(self.definition(definition), *negate),
            })
            .collect();
        negated(check::operator(criteria.operator, truths), criteria.negate)
    }

    fn write_criteria(&self, out: &mut XmlOut, criteria: &Criteria) {
        let result = self.truth(criteria).as_str();
        let negate = criteria.negate.then_some(("negate", "true"));
        let mut attributes = vec![("operator", operator_words(criteria.operator)), ("result", result)];
        attributes.extend(negate);
        out.start("criteria", &attributes);
        for part in &criteria.parts {
            match part {
                Criterion::Criteria(inner) => self.write_criteria(out, inner),
                Criterion::Test { test, negate, .. } => {
                    let version = self.oval.tests.get(test).map_or(1, |test| test.version).to_string();
                    let result = negated(self.test(test), *negate).as_str();
                    let mut attributes = vec![("test_ref", test.as_str()), ("version", &version), ("result", result)];
                    attributes.extend(negate.then_some(("negate", "true")));
                    out.leaf("criterion", &attributes, "");
                }
                Criterion::Extend { definition, negate } => {
                    let version = self.oval.definitions.get(definition).map_or(1, |found| found.version).to_string();
                    let result = negated(self.definition(definition), *negate).as_str();
                    let mut attributes =
                        vec![("definition_ref", definition.as_str()), ("version", &version), ("result", result)];
                    attributes.extend(negate.then_some(("negate", "true")));
                    out.leaf("extend_definition", &attributes, "");
                }
            }
        }
        out.end();
    }

    fn write_tests<'run>(&'run self, out: &mut XmlOut, numbers: &mut Numbers<'run>) {
        let decided: Vec<(&String, usize)> = self.document.tests.iter().map(|(id, at)| (id, *at)).collect();
        if decided.is_empty() {
            return;
        }
        out.start("tests", &[]);
        let mut variables = Variables::new(&self.compiled.collection, self.now);
        for (id, at) in decided {
            let Some(test) = self.oval.tests.get(id) else { continue };
            // Criteria name it, whether it was needed or not.
            let decision = self.decisions.tests.get(at).and_then(Option::as_ref);
            let version = test.version.to_string();
            // `none exist` is deprecated, and is not in the results schema's list any more.
            let check = if test.check == Check::NoneExist { Check::NoneSatisfy } else { test.check };
            out.start(
                "test",
                &[
                    ("test_id", id),
                    ("version", &version),
                    ("check_existence", test.existence.as_str()),
                    ("check", check.as_str()),
                    ("state_operator", operator_words(test.state_operator)),
                    ("result", decision.map_or(Truth::NotEvaluated, |decision| decision.truth).as_str()),
                ],
            );
            let Some(decision) = decision else {
                out.end();
                continue;
            };
            for reason in &decision.reasons {
                out.leaf("message", &[("level", "info")], reason);
            }
            if let Ok((key, _)) = &self.compiled.tests[at].subject
                && let Some(observed) = self.evidence.observations.get(key)
            {
                for (item, truth) in observed.collected_object.items.iter().zip(&decision.items) {
                    let number = numbers.of(item).to_string();
                    out.leaf("tested_item", &[("item_id", &number), ("result", truth.as_str())], "");
                }
            }
            for (id, values) in self.tested_variables(test, &mut variables) {
                for value in values.iter() {
                    out.leaf("tested_variable", &[("variable_id", id)], value);
                }
            }
            out.end();
        }
        out.end();
    }

    /// The variables that a test's object and states name, with their values; those without any are left out.
    fn tested_variables<'run>(
        &'run self,
        test: &'run Test,
        variables: &mut Variables<'run>,
    ) -> BTreeMap<&'run str, Rc<Vec<String>>> {
        let object = test.object.as_ref().and_then(|id| self.oval.objects.get(id));
        let states = test.states.iter().filter_map(|id| self.oval.states.get(id));
        let entities = object.map(|object| &object.entities).into_iter().chain(states.map(|state| &state.entities));
        let mut found = BTreeMap::new();
        for VariableKey(id) in entities.flatten().flat_map(Entity::variables) {
            if let Some(key) = self.document.variables.get(id)
                && let Ok(values) = variables.values(key, &mut Stored { evidence: self.evidence }, 0)
            {
                found.insert(id.as_str(), values);
            }
        }
        found
    }
}

fn negated(truth: Truth, negate: bool) -> Truth {
    if negate { truth.negated() } else { truth }
}

fn operator_words(operator: Operator) -> &'static str {
    match operator {
        Operator::And => "AND",
        Operator::One => "ONE",
        Operator::Or => "OR",
        Operator::Xor => "XOR",
    }
}
