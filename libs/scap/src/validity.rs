//! Whether a benchmark is one: the order and number of its elements, their attributes, ids and references, as
//! `xccdf_1.2.xsd` wants them. What this does not look at is the inside of descriptions and metadata.

use std::collections::BTreeSet;

use crate::test_result::{XCCDF_11, XCCDF_12};
use crate::xml::{Node, Parser, Step, XmlError};

/// Faults that are told; a document with more is broken enough.
const FAULTS_MAX: usize = 20;

/// The children of an element in their order; `a|b` in any order, `!` once, `?` at most once, `+` at least once.
const CHILDREN: &[(&str, &str)] = &[
    (
        "Benchmark",
        "status+ dc-status title description notice front-matter rear-matter reference plain-text \
         platform-specification? platform version! metadata model Profile Value Group|Rule TestResult signature?",
    ),
    (
        "Profile",
        "status dc-status version? title+ description reference platform \
         select|set-complex-value|set-value|refine-value|refine-rule metadata signature?",
    ),
    (
        "Group",
        "status dc-status version? title description warning question reference metadata rationale platform requires \
         conflicts Value Group|Rule signature?",
    ),
    (
        "Rule",
        "status dc-status version? title description warning question reference metadata rationale platform requires \
         conflicts ident impact-metric? profile-note fixtext fix check complex-check? signature?",
    ),
    (
        "Value",
        "status dc-status version? title description warning question reference metadata value|complex-value+ \
         default|complex-default match lower-bound upper-bound choices source signature?",
    ),
    ("check", "check-import check-export check-content-ref check-content?"),
    ("complex-check", "check|complex-check+"),
];

/// Attributes that must be there.
const REQUIRED: &[(&str, &[&str])] = &[
    ("Benchmark", &["id"]),
    ("Profile", &["id"]),
    ("Group", &["id"]),
    ("Rule", &["id"]),
    ("Value", &["id"]),
    ("plain-text", &["id"]),
    ("model", &["system"]),
    ("platform", &["idref"]),
    ("select", &["idref", "selected"]),
    ("set-value", &["idref"]),
    ("refine-value", &["idref"]),
    ("refine-rule", &["idref"]),
    ("requires", &["idref"]),
    ("conflicts", &["idref"]),
    ("check", &["system"]),
    ("complex-check", &["operator"]),
    ("check-export", &["value-id", "export-name"]),
    ("check-content-ref", &["href"]),
    ("sub", &["idref"]),
];

const BOOLEANS: &[&str] = &[
    "abstract",
    "hidden",
    "interactive",
    "multi-check",
    "multiple",
    "negate",
    "override",
    "prohibitChanges",
    "selected",
];

#[derive(Default)]
struct Checker {
    is_12: bool,
    faults: Vec<XmlError>,
    items: BTreeSet<String>,
    profiles: BTreeSet<String>,
    values: BTreeSet<String>,
    rules: BTreeSet<String>,
    groups: BTreeSet<String>,
    /// What has to be among which ids, and where it is said.
    references: Vec<(&'static str, String, u64)>,
}

/// What is wrong with the benchmarks in a document: a stand-alone one, or those of a data stream.
pub fn faults(bytes: &[u8]) -> Result<Vec<XmlError>, XmlError> {
    let mut parser = Parser::new(bytes);
    let mut faults = Vec::new();
    while let Some(start) = parser.find("Benchmark")? {
        faults.extend(of_benchmark(&mut parser, &start)?);
    }
    Ok(faults)
}

fn of_benchmark(parser: &mut Parser<'_>, start: &Node) -> Result<Vec<XmlError>, XmlError> {
    let mut checker = Checker { is_12: start.namespace == XCCDF_12, ..Checker::default() };
    if !checker.is_12 && start.namespace != XCCDF_11 {
        let what = format!("the namespace of <Benchmark> is `{}`: neither XCCDF 1.2 nor 1.1", start.namespace);
        checker.fault(start.line, what);
    }
    checker.attributes(start);
    let mut children = Vec::new();
    while let Step::Start(child) = parser.step_in()? {
        children.push((child.name.clone(), child.line));
        match child.name.as_str() {
            "Profile" | "Group" | "Rule" | "Value" => checker.element(&parser.subtree(child)?),
            "plain-text" | "platform" | "model" => checker.attributes(&parser.subtree(child)?),
            _ => parser.skip()?,
        }
    }
    checker.order("Benchmark", start.line, &children);
    Ok(checker.finish())
}

impl Checker {
    fn fault(&mut self, line: u64, what: String) {
        if self.faults.len() < FAULTS_MAX {
            self.faults.push(XmlError { line, what });
        }
    }

    fn finish(mut self) -> Vec<XmlError> {
        for (kind, id, line) in std::mem::take(&mut self.references) {
            let known = match kind {
                "Value" => &self.values,
                "Profile" => &self.profiles,
                "Rule" => &self.rules,
                _ => &self.groups,
            };
            if !known.contains(&id) {
                self.fault(line, format!("there is no {kind} `{}`", proto::limits::shown(&id)));
            }
        }
        self.faults.sort_by_key(|fault| fault.line);
        self.faults
    }

    fn element(&mut self, node: &Node) {
        self.attributes(node);
        let children: Vec<(String, u64)> =
            node.elements().map(|element| (element.name.clone(), element.line)).collect();
        self.order(&node.name, node.line, &children);
        match node.name.as_str() {
            "Rule" => self.checks(node),
            "Profile" => self.changes(node),
            _ => {}
        }
        for element in node.elements() {
            match element.name.as_str() {
                "Group" | "Rule" | "Value" | "check" | "complex-check" => self.element(element),
                // What is inside is not looked at, but for its places for values.
                _ => {
                    self.attributes(element);
                    self.subs(element);
                }
            }
        }
    }

    fn subs(&mut self, node: &Node) {
        for element in node.elements() {
            if element.name == "sub" && matches!(element.namespace.as_str(), XCCDF_11 | XCCDF_12) {
                self.attributes(element);
            }
            self.subs(element);
        }
    }

    /// The order and the number of an element's children.
    fn order(&mut self, name: &str, line: u64, children: &[(String, u64)]) {
        let Some((_, sequence)) = CHILDREN.iter().find(|(element, _)| *element == name) else { return };
        let places: Vec<(Vec<&str>, char)> = sequence
            .split_whitespace()
            .map(|place| {
                let mark = place.chars().last().filter(|mark| "!?+".contains(*mark)).unwrap_or(' ');
                (place.trim_end_matches(['!', '?', '+']).split('|').collect(), mark)
            })
            .collect();
        let mut reached = 0;
        let mut counts = vec![0_usize; places.len()];
        for (child, line) in children {
            let Some(at) = places.iter().position(|(names, _)| names.contains(&child.as_str())) else {
                self.fault(*line, format!("<{child}> has no place in <{name}>"));
                continue;
            };
            counts[at] += 1;
            if at < reached {
                self.fault(*line, format!("<{child}> stands too late in <{name}>: the order is {sequence}"));
            }
            reached = reached.max(at);
        }
        for ((names, mark), count) in places.iter().zip(counts) {
            let what = match (mark, count) {
                // XCCDF 1.1 asks for less.
                ('!' | '+', 0) if self.is_12 || name == "complex-check" => "is missing in",
                ('!' | '?', 2..) => "stands more than once in",
                _ => continue,
            };
            self.fault(line, format!("<{}> {what} <{name}>", names.join("|")));
        }
    }

    fn attributes(&mut self, node: &Node) {
        let name = node.name.as_str();
        let required = REQUIRED.iter().find(|(element, _)| *element == name).map_or(&[][..], |(_, names)| *names);
        for attribute in required {
            // XCCDF 1.1 has another name for nothing here, and every one of these.
            if node.attribute(attribute).is_none_or(|value| value.trim().is_empty()) {
                self.fault(node.line, format!("<{name}> has no `{attribute}`"));
            }
        }
        for (attribute, value) in &node.attributes {
            let value = value.trim();
            let allowed: &[&str] = match (name, attribute.as_str()) {
                (_, attribute) if BOOLEANS.contains(&attribute) => &["true", "false", "1", "0"],
                (_, "severity") => &["unknown", "info", "low", "medium", "high"],
                ("Rule" | "refine-rule", "role") => &["full", "unscored", "unchecked"],
                ("complex-check", "operator") => &["AND", "OR"],
                (_, "weight") => {
                    if !value.parse::<f64>().is_ok_and(|weight| weight.is_finite() && weight >= 0.0) {
                        self.fault(node.line, format!("<{name}> has the weight `{}`", proto::limits::shown(value)));
                    }
                    continue;
                }
                _ => continue,
            };
            if !allowed.contains(&value) {
                let (value, allowed) = (proto::limits::shown(value), allowed.join(", "));
                self.fault(node.line, format!("<{name}> has {attribute}=\"{value}\"; it must be one of {allowed}"));
            }
        }
        self.ids(node);
    }

    fn ids(&mut self, node: &Node) {
        let name = node.name.as_str();
        let kind = match name {
            "Benchmark" | "Profile" | "Group" | "Rule" | "Value" => name,
            _ => "",
        };
        if let Some(id) = node.attribute("id") {
            let is_new = match name {
                "Profile" => self.profiles.insert(id.to_owned()),
                "Group" | "Rule" | "Value" | "plain-text" => self.items.insert(id.to_owned()),
                _ => true,
            };
            if !is_new {
                self.fault(node.line, format!("<{name}> has an id that stands twice: `{}`", proto::limits::shown(id)));
            }
            let of_kind = match name {
                "Value" | "plain-text" => Some(&mut self.values),
                "Rule" => Some(&mut self.rules),
                "Group" => Some(&mut self.groups),
                _ => None,
            };
            of_kind.map(|ids| ids.insert(id.to_owned()));
            // xccdf_<reverse DNS>_<kind>_<name>
            let is_well_formed = id.strip_prefix("xccdf_").is_some_and(|rest| {
                let marker = format!("_{}_", kind.to_lowercase());
                let is_plain = |letter: char| letter.is_alphanumeric() || "-_.".contains(letter);
                let is_name = |name: &str| !name.is_empty() && name.chars().all(is_plain);
                rest.split_once(&marker).is_some_and(|(owner, name)| !owner.contains('_') && is_name(name))
            });
            if self.is_12 && !kind.is_empty() && !is_well_formed {
                let (id, kind) = (proto::limits::shown(id), kind.to_lowercase());
                self.fault(node.line, format!("`{id}` is no id of XCCDF 1.2: xccdf_[reverse DNS]_{kind}_[name]"));
            }
        }
        let reference = match name {
            "Value" | "Profile" | "Rule" | "Group" => node.attribute("extends"),
            "check-export" => node.attribute("value-id"),
            "sub" => node.attribute("idref"),
            _ => None,
        };
        if let Some(id) = reference {
            let kind = match name {
                "Profile" => "Profile",
                "Rule" => "Rule",
                "Group" => "Group",
                _ => "Value",
            };
            self.references.push((kind, id.to_owned(), node.line));
        }
    }

    /// A rule has checks or one complex check; two checks of a system differ in their selectors.
    fn checks(&mut self, rule: &Node) {
        let mut known = BTreeSet::new();
        for check in rule.elements().filter(|element| element.name == "check") {
            let key = |name: &str| check.attribute(name).unwrap_or_default();
            if !known.insert((key("system"), key("selector"))) {
                self.fault(check.line, "two checks of the rule have the same system and selector".to_owned());
            }
        }
        if let (false, Some(complex)) = (known.is_empty(), rule.element("complex-check")) {
            self.fault(complex.line, "a rule has either checks or a complex-check".to_owned());
        }
    }

    /// A profile says one thing of one kind about an item.
    fn changes(&mut self, profile: &Node) {
        let mut known = BTreeSet::new();
        for change in profile.elements() {
            let idref = change.attribute("idref").unwrap_or_default();
            let is_change = matches!(change.name.as_str(), "select" | "set-value" | "refine-value" | "refine-rule");
            if is_change && !known.insert((change.name.as_str(), idref)) {
                let (name, id) = (&change.name, proto::limits::shown(idref));
                self.fault(change.line, format!("the profile has two <{name}> for `{id}`"));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(body: &str) -> Vec<String> {
        let text = format!(
            "<Benchmark xmlns='http://checklists.nist.gov/xccdf/1.2' id='xccdf_a.b_benchmark_c'>{body}</Benchmark>"
        );
        faults(text.as_bytes()).unwrap().into_iter().map(|fault| fault.what).collect()
    }

    #[test]
    fn a_benchmark_that_is_one_has_no_faults() {
        let body = "<status>draft</status><version>1</version>\
            <Profile id='xccdf_a.b_profile_p'><title>p</title><select idref='xccdf_a.b_rule_r' selected='true'/></Profile>\
            <Value id='xccdf_a.b_value_v'><value>1</value></Value>\
            <Rule id='xccdf_a.b_rule_r' weight='2.5' severity='high'><title>r <sub idref='xccdf_a.b_value_v'/></title>\
            <check system='s'><check-export value-id='xccdf_a.b_value_v' export-name='n'/></check></Rule>";
        assert_eq!(told(body), Vec::<String>::new());
        assert_eq!(faults(b"<other><a/></other>"), Ok(Vec::new()));
    }

    #[test]
    fn every_fault_is_told() {
        let rule = |attributes: &str, inside: &str| {
            let body = "<status>draft</status><version>1</version>";
            told(&format!("{body}<Rule id='xccdf_a.b_rule_r' {attributes}>{inside}</Rule>"))
        };
        for (faults, wanted) in [
            (told("<version>1</version>"), "<status> is missing in <Benchmark>"),
            (told("<status>draft</status>"), "<version> is missing in <Benchmark>"),
            (told("<version>1</version><status>draft</status>"), "<status> stands too late"),
            (rule("selected='maybe'", ""), "selected=\"maybe\""),
            (rule("weight='-1'", ""), "weight `-1`"),
            (rule("severity='bad'", ""), "severity=\"bad\""),
            (rule("", "<nothing/>"), "<nothing> has no place in <Rule>"),
            (rule("", "<complex-check operator='AND'/>"), "<check|complex-check> is missing"),
            (rule("", "<complex-check operator='XOR'><check system='s'/></complex-check>"), "operator=\"XOR\""),
            (rule("", "<check system='s'/><check system='s'/>"), "same system and selector"),
            (rule("", "<check system='s'/><complex-check operator='OR'><check system='s'/></complex-check>"), "either"),
            (rule("", "<check system='s'><check-export value-id='x' export-name='y'/></check>"), "no Value `x`"),
            (rule("", "<title>a <sub idref='x'/></title>"), "no Value `x`"),
            (rule("extends='x'", ""), "no Rule `x`"),
            (told("<status/><version/><Rule/>"), "<Rule> has no `id`"),
            (told("<status/><version/><Rule id='x'/>"), "no id of XCCDF 1.2"),
        ] {
            assert!(faults.iter().any(|fault| fault.contains(wanted)), "{wanted}: {faults:?}");
        }
        let twice = "<Rule id='xccdf_a.b_rule_r'/>".repeat(2);
        assert!(told(&format!("<status/><version/>{twice}")).iter().any(|fault| fault.contains("stands twice")));
        let other = "<Benchmark xmlns='urn:x' id='x'/>";
        assert!(faults(other.as_bytes()).unwrap()[0].what.contains("neither XCCDF 1.2 nor 1.1"));
    }
}
