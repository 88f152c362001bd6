//! XCCDF `TestResult` (`xccdf_1.2.xsd`): the verdicts of one endpoint, as other tools write and read them.

use jiff::Timestamp;
use oval::variable::Variables;
use proto::observation::EndpointFacts;
use proto::plan::ObjectKey;
use proto::verdict::{RuleResult, Verdict};

use std::collections::BTreeMap;

use crate::compile::{Compiled, RulePlan};
use crate::evaluate::{Evaluation, Evidence, Stored};
use crate::policy::Policy;
use crate::script;
use crate::tailored::DEFAULT_PROFILE;
use crate::xccdf::{Check, ComplexCheck, ComplexPart, Role, Rule};
use crate::xccdf_reader;
use crate::xml::{Node, Parser, XmlError};
use crate::xml_out::XmlOut;

/// The namespace of XCCDF 1.2.
pub const XCCDF_12: &str = "http://checklists.nist.gov/xccdf/1.2";

/// The namespace of XCCDF 1.1.
pub const XCCDF_11: &str = "http://checklists.nist.gov/xccdf/1.1";

/// How a message begins that tells what was found.
const FOUND: &str = "found: ";
/// How a message begins that tells what was expected.
const EXPECTED: &str = "expected: ";

/// What a result is about.
#[derive(Debug, Clone, Copy)]
pub struct TestRun<'run> {
    /// The policy.
    pub policy: &'run Policy,
    /// What was compiled of it.
    pub compiled: &'run Compiled,
    /// What was found.
    pub evidence: &'run Evidence,
    /// What came of it.
    pub evaluation: &'run Evaluation,
    /// The endpoint.
    pub facts: &'run EndpointFacts,
    /// The hrefs that the benchmark uses, by component.
    pub names: &'run BTreeMap<String, String>,
    /// Where the benchmark is: its component, or its file's name.
    pub href: &'run str,
    /// When it began.
    pub started: Timestamp,
    /// When it ended.
    pub ended: Timestamp,
}

impl TestRun<'_> {
    /// The id of the result: the one that `oscap` gives, so that scripts that name it go on working.
    pub fn id(&self) -> String {
        let profile = match self.compiled.profile.as_str() {
            DEFAULT_PROFILE => "default-profile",
            profile => profile,
        };
        let is_plain = |letter: char| letter.is_ascii_alphanumeric() || "-_.".contains(letter);
        let word: String = profile.chars().map(|letter| if is_plain(letter) { letter } else { '-' }).collect();
        format!("xccdf_org.open-scap_testresult_{word}")
    }

    /// Writes `TestResult`.
    pub fn write(&self, out: &mut XmlOut) {
        let (started, ended) = (time(self.started), time(self.ended));
        let id = self.id();
        let benchmark = &self.policy.benchmark;
        let mut attributes = vec![
            ("id", id.as_str()),
            ("start-time", started.as_str()),
            ("end-time", ended.as_str()),
            ("version", benchmark.version.as_str()),
            ("test-system", concat!("cpe:/a:muster:muster:", env!("CARGO_PKG_VERSION"))),
        ];
        // Its own namespace: the document around it may have any prefix.
        attributes.insert(0, ("xmlns", benchmark.namespace.as_str()));
        out.start("TestResult", &attributes);
        // XCCDF 1.1 has no id here.
        let about = [("href", self.href), ("id", benchmark.id.as_str())];
        out.leaf("benchmark", if benchmark.namespace == XCCDF_12 { &about } else { &about[..1] }, "");
        let title = if benchmark.title.is_empty() { &benchmark.id } else { &benchmark.title };
        out.leaf("title", &[], &format!("{title}: what Muster found"));
        if self.compiled.profile != DEFAULT_PROFILE {
            out.leaf("profile", &[("idref", &self.compiled.profile)], "");
        }
        out.leaf("target", &[], &self.facts.host_name);
        out.start("target-facts", &[]);
        for (name, value) in [
            ("urn:xccdf:fact:asset:identifier:host_name", &self.facts.host_name),
            ("urn:xccdf:fact:asset:os:name", &self.facts.os_name),
            ("urn:xccdf:fact:asset:os:version", &self.facts.os_version),
        ] {
            out.leaf("fact", &[("name", name), ("type", "string")], value);
        }
        out.end();
        for (name, platform) in &self.compiled.platforms {
            if self.evaluation.is_platform(platform) {
                out.leaf("platform", &[("idref", name)], "");
            }
        }
        for (id, values) in &self.compiled.values {
            // What has been used, for those who mend by this result.
            if let [value] = values.as_slice() {
                out.leaf("set-value", &[("idref", id)], value);
            } else if benchmark.namespace == XCCDF_12 {
                out.start("set-complex-value", &[("idref", id)]);
                for value in values {
                    out.leaf("item", &[], value);
                }
                out.end();
            }
        }
        let decided: BTreeMap<&str, &RuleResult> =
            self.evaluation.results.iter().map(|result| (result.rule.as_str(), result)).collect();
        for (plan, rule) in self.compiled.rules.iter().zip(benchmark.rules()) {
            self.rule(out, plan, rule, decided.get(plan.id.as_str()).copied(), &ended);
        }
        for score in &self.evaluation.scores {
            if score.system.ends_with(":default") || benchmark.models.iter().any(|model| model == score.system) {
                let maximum = number(score.maximum);
                out.leaf("score", &[("system", score.system), ("maximum", &maximum)], &number(score.score));
            }
        }
        out.end();
    }

    fn rule(&self, out: &mut XmlOut, plan: &RulePlan, rule: &Rule, result: Option<&RuleResult>, ended: &str) {
        let verdict = result.map_or(Verdict::NotSelected, |result| result.verdict);
        let parts = self.evaluation.parts(self.compiled, plan, verdict);
        if parts.is_empty() {
            return self.rule_result(out, plan, rule, result, (verdict, None), ended);
        }
        for (definition, verdict) in parts {
            self.rule_result(out, plan, rule, result, (verdict, Some(definition)), ended);
        }
    }

    /// One result of a rule; with a definition, its part of a `multi-check`.
    fn rule_result(
        &self,
        out: &mut XmlOut,
        plan: &RulePlan,
        rule: &Rule,
        result: Option<&RuleResult>,
        (verdict, part): (Verdict, Option<&str>),
        ended: &str,
    ) {
        let weight = number(plan.weight);
        let role = match plan.role {
            Role::Full => "full",
            Role::Unscored => "unscored",
            Role::Unchecked => "unchecked",
        };
        out.start(
            "rule-result",
            &[
                ("idref", plan.id.as_str()),
                ("role", role),
                ("time", ended),
                ("severity", plan.severity.as_str()),
                ("weight", &weight),
            ],
        );
        out.leaf("result", &[], verdict.as_str());
        for (system, name) in &rule.idents {
            out.leaf("ident", &[("system", system)], name);
        }
        if let Some(result) = result {
            for (kind, lines) in [("", &result.reasons), (FOUND, &result.found), (EXPECTED, &result.expected)] {
                for line in lines {
                    out.leaf("message", &[("severity", "info")], &format!("{kind}{line}"));
                }
            }
        }
        if verdict != Verdict::NotSelected {
            match (&rule.complex_check, plan.chosen) {
                (Some(complex), _) => self.complex_check(out, complex),
                (None, Some((check, content))) => self.check(out, &rule.checks[check], content, part),
                (None, None) => {}
            }
        }
        out.end();
    }

    fn complex_check(&self, out: &mut XmlOut, complex: &ComplexCheck) {
        let operator = if complex.is_and { "AND" } else { "OR" };
        let negate = if complex.negate { "true" } else { "false" };
        out.start("complex-check", &[("operator", operator), ("negate", negate)]);
        for part in &complex.parts {
            match part {
                ComplexPart::Check(check) => self.check(out, check, self.policy.content_of(check), None),
                ComplexPart::Complex(inner) => self.complex_check(out, inner),
            }
        }
        out.end();
    }

    /// The check with the content that decided, or with all of them where none was there.
    fn check(&self, out: &mut XmlOut, check: &Check, content: Option<usize>, part: Option<&str>) {
        let mut attributes = vec![("system", check.system.as_str())];
        for (name, is_said) in [("negate", check.negate), ("multi-check", check.multi_check)] {
            if is_said {
                attributes.push((name, "true"));
            }
        }
        out.start("check", &attributes);
        for name in &check.imports {
            let values = match content {
                Some(at) if check.system == script::SYSTEM => self.said(check, at, name),
                Some(at) => self.imported(&check.content[at].0, name),
                None => String::new(),
            };
            out.leaf("check-import", &[("import-name", name)], &values);
        }
        for (value, name) in &check.exports {
            out.leaf("check-export", &[("export-name", name), ("value-id", value)], "");
        }
        for (at, (component, definition)) in check.content.iter().enumerate() {
            if content.is_some_and(|chosen| chosen != at) {
                continue;
            }
            let href = self.names.get(component).unwrap_or(component);
            let mut attributes = Vec::new();
            if let Some(definition) = part.or(definition.as_deref()) {
                attributes.push(("name", definition));
            }
            attributes.push(("href", href.as_str()));
            out.leaf("check-content-ref", &attributes, "");
        }
        out.end();
    }

    /// What a script wrote; nothing where it did not run.
    fn said(&self, check: &Check, content: usize, name: &str) -> String {
        let script =
            self.policy.scripts.get(&check.content[content].0).filter(|_| ["stdout", "stderr"].contains(&name));
        let values = &self.policy.benchmark.values;
        let key = script.map(|text| ObjectKey::of(&script::object(text, check, &self.compiled.values, values)));
        let observed = key.and_then(|key| self.evidence.observations.get(&key));
        let items = observed.iter().flat_map(|observed| &observed.collected_object.items);
        items.filter_map(|item| item.value(name)).collect()
    }

    /// What a variable of the OVAL document came to, a value on each line; nothing where no test had to know it.
    fn imported(&self, href: &str, name: &str) -> String {
        let document = self.compiled.documents.iter().filter(|document| document.href == href);
        let key = document.flat_map(|document| &document.variables).find(|(id, _)| *id == name);
        let mut variables = Variables::new(&self.compiled.collection, self.ended);
        let values = key.map(|(_, key)| variables.values(key, &mut Stored { evidence: self.evidence }, 0));
        values.and_then(Result::ok).map(|values| values.join("\n")).unwrap_or_default()
    }
}

/// A number as `oscap` writes it: it counts in single precision.
#[expect(clippy::cast_possible_truncation, reason = "that is what is wanted")]
fn number(value: f64) -> String {
    format!("{:.6}", value as f32)
}

fn time(time: Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%S+00:00").to_string()
}

/// A `TestResult` that was read.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct TestResult {
    /// Its id.
    pub id: String,
    /// The profile that it is about.
    pub profile: Option<String>,
    /// What was looked at.
    pub targets: Vec<String>,
    /// `end-time`, as it is written.
    pub ended: String,
    /// The values that were used.
    pub values: BTreeMap<String, Vec<String>>,
    /// The rules, without titles: those are in the benchmark.
    pub results: Vec<RuleResult>,
    /// The first score, of 100.
    pub score: Option<f64>,
}

/// Reads every `TestResult` of a document, whatever is around it: XCCDF or ARF.
pub fn read(bytes: &[u8]) -> Result<Vec<TestResult>, XmlError> {
    let mut parser = Parser::new(bytes);
    let mut results = Vec::new();
    while let Some(start) = parser.find("TestResult")? {
        results.push(of_node(&parser.subtree(start)?));
    }
    Ok(results)
}

fn of_node(node: &Node) -> TestResult {
    let mut result = TestResult {
        id: node.attribute("id").unwrap_or_default().to_owned(),
        ended: node.attribute("end-time").unwrap_or_default().to_owned(),
        ..TestResult::default()
    };
    for element in node.elements() {
        match element.name.as_str() {
            "profile" => result.profile = element.attribute("idref").map(str::to_owned),
            "target" => result.targets.push(element.text().trim().to_owned()),
            "set-value" => {
                let id = element.attribute("idref").unwrap_or_default().to_owned();
                result.values.insert(id, vec![element.text()]);
            }
            "set-complex-value" => {
                let id = element.attribute("idref").unwrap_or_default().to_owned();
                result.values.insert(id, element.elements().map(Node::text).collect());
            }
            "rule-result" => result.results.push(rule_result(element)),
            "score" if result.score.is_none() => {
                let number = |text: &str| text.trim().parse::<f64>().ok().filter(|number| number.is_finite());
                let maximum = element.attribute("maximum").and_then(number).filter(|maximum| *maximum > 0.0);
                result.score = number(&element.text()).map(|score| score * 100.0 / maximum.unwrap_or(100.0));
            }
            _ => {}
        }
    }
    result
}

fn rule_result(node: &Node) -> RuleResult {
    let text = node.element("result").map(Node::text).unwrap_or_default();
    let rule = node.attribute("idref").unwrap_or_default();
    let severity = node.attribute("severity").map(xccdf_reader::severity).unwrap_or_default();
    let mut result = RuleResult::new(rule, "", severity, Verdict::parse(text.trim()).unwrap_or(Verdict::Unknown));
    for message in node.elements().filter(|element| element.name == "message") {
        let text = message.text();
        match (text.strip_prefix(FOUND), text.strip_prefix(EXPECTED)) {
            (Some(found), _) => result.found.push(found.to_owned()),
            (_, Some(expected)) => result.expected.push(expected.to_owned()),
            (None, None) => result.reasons.push(text),
        }
    }
    result
}
