//! XCCDF 1.2 `TestResult` (`xccdf_1.2.xsd`): the verdicts of one endpoint, as other tools read them.

use jiff::Timestamp;
use proto::observation::EndpointFacts;
use proto::verdict::{RuleResult, Verdict};

use std::collections::BTreeMap;

use crate::compile::{Compiled, RulePlan};
use crate::evaluate::Evaluation;
use crate::policy::Policy;
use crate::xccdf::{Check, Role, Rule};
use crate::xml_out::XmlOut;

/// The namespace of XCCDF 1.2.
pub const XCCDF_12: &str = "http://checklists.nist.gov/xccdf/1.2";

/// What a result is about.
#[derive(Debug, Clone, Copy)]
pub struct TestRun<'run> {
    /// The policy.
    pub policy: &'run Policy,
    /// What was compiled of it.
    pub compiled: &'run Compiled,
    /// What came of it.
    pub evaluation: &'run Evaluation,
    /// The endpoint.
    pub facts: &'run EndpointFacts,
    /// The hrefs that the benchmark uses, by component.
    pub names: &'run BTreeMap<String, String>,
    /// The benchmark's href, if it has one.
    pub href: &'run str,
    /// When it began.
    pub started: Timestamp,
    /// When it ended.
    pub ended: Timestamp,
}

impl TestRun<'_> {
    /// The id of the result: XCCDF 1.2 wants a namespace in reverse DNS.
    pub fn id(&self) -> String {
        let profile = self.compiled.profile.rsplit("_profile_").next().unwrap_or_default();
        let word: String = profile
            .chars()
            .map(|letter| if letter.is_ascii_alphanumeric() || "-_.".contains(letter) { letter } else { '-' })
            .collect();
        format!("xccdf_dev.muster_testresult_{word}")
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
        attributes.insert(0, ("xmlns", XCCDF_12));
        out.start("TestResult", &attributes);
        let mut about = vec![("id", benchmark.id.as_str())];
        if !self.href.is_empty() {
            about.insert(0, ("href", self.href));
        }
        out.leaf("benchmark", &about, "");
        out.leaf("title", &[], &format!("{}: what Muster found", benchmark.title));
        if self.compiled.profile.starts_with("xccdf_") {
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
        let rules: BTreeMap<&str, &Rule> =
            benchmark.rules().into_iter().map(|rule| (rule.common.id.as_str(), rule)).collect();
        let decided: BTreeMap<&str, &RuleResult> =
            self.evaluation.results.iter().map(|result| (result.rule.as_str(), result)).collect();
        for plan in &self.compiled.rules {
            self.rule(out, plan, rules.get(plan.id.as_str()).copied(), decided.get(plan.id.as_str()).copied(), &ended);
        }
        for score in &self.evaluation.scores {
            let is_asked = benchmark.models.iter().any(|model| model == score.system);
            if is_asked || (benchmark.models.is_empty() && score.system.ends_with(":default")) {
                let maximum = number(score.maximum);
                out.leaf("score", &[("system", score.system), ("maximum", &maximum)], &number(score.score));
            }
        }
        out.end();
    }

    fn rule(&self, out: &mut XmlOut, plan: &RulePlan, rule: Option<&Rule>, result: Option<&RuleResult>, ended: &str) {
        let verdict = result.map_or(Verdict::NotSelected, |result| result.verdict);
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
        for (system, name) in rule.map(|rule| rule.idents.as_slice()).unwrap_or_default() {
            out.leaf("ident", &[("system", system)], name);
        }
        for reason in result.map(|result| result.reasons.as_slice()).unwrap_or_default() {
            out.leaf("message", &[("severity", "info")], reason);
        }
        if verdict != Verdict::NotSelected
            && let Some((rule, (check, content))) = rule.zip(plan.chosen)
        {
            self.check(out, &rule.checks[check], content);
        }
        out.end();
    }

    fn check(&self, out: &mut XmlOut, check: &Check, content: usize) {
        out.start("check", &[("system", &check.system)]);
        for (value, name) in &check.exports {
            out.leaf("check-export", &[("export-name", name), ("value-id", value)], "");
        }
        if let Some((component, definition)) = check.content.get(content) {
            let href = self.names.get(component).unwrap_or(component);
            let mut attributes = Vec::new();
            if let Some(definition) = definition {
                attributes.push(("name", definition.as_str()));
            }
            attributes.push(("href", href.as_str()));
            out.leaf("check-content-ref", &attributes, "");
        }
        out.end();
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
