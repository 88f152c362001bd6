//! Reads a `Benchmark`.

use proto::verdict::Severity;

use crate::cpe::{self, Platform};
use crate::xccdf::{
    Benchmark, Change, Check, Common, ComplexCheck, ComplexPart, Fix, Group, Item, Mark, Profile, Role, Rule, TextPart,
    Value,
};
use crate::xml::{Child, Node, Parser, Step, XmlError};

/// Reads the children of a `Benchmark` element that has just begun, and the platform definitions of
/// the CPE language that stand in it.
pub(crate) fn read(parser: &mut Parser<'_>, start: &Node) -> Result<(Benchmark, Vec<Platform>), XmlError> {
    let mut benchmark = Benchmark { id: id(start), namespace: start.namespace.clone(), ..Benchmark::default() };
    let mut platforms = Vec::new();
    loop {
        let Step::Start(child) = parser.step_in()? else { return Ok((benchmark, platforms)) };
        match child.name.as_str() {
            "title" => benchmark.title = plain(&parser.subtree(child)?),
            "description" => benchmark.description = prose(&parser.subtree(child)?),
            "version" => benchmark.version = plain(&parser.subtree(child)?),
            "model" => {
                let node = parser.subtree(child)?;
                benchmark.models.extend(node.attribute("system").map(str::to_owned));
            }
            "platform" => {
                let node = parser.subtree(child)?;
                benchmark.platforms.extend(node.attribute("idref").map(str::to_owned));
            }
            "platform-specification" => {
                let node = parser.subtree(child)?;
                platforms.extend(node.elements().filter(|element| element.name == "platform").map(cpe::platform));
            }
            "plain-text" => {
                let node = parser.subtree(child)?;
                benchmark.plain_texts.insert(id(&node), node.text());
            }
            "Profile" => benchmark.profiles.push(profile(&parser.subtree(child)?)),
            "Value" => {
                let node = parser.subtree(child)?;
                benchmark.values.insert(id(&node), value(&node));
            }
            "Group" => {
                let node = parser.subtree(child)?;
                values_in(&node, &mut benchmark);
                benchmark.items.push(group(&node));
            }
            "Rule" => benchmark.items.push(Item::Rule(Box::new(rule(&parser.subtree(child)?)))),
            _ => parser.skip()?,
        }
    }
}

fn id(node: &Node) -> String {
    node.attribute("id").unwrap_or_default().to_owned()
}

/// Text on one line.
fn plain(node: &Node) -> String {
    node.text().split_whitespace().collect::<Vec<_>>().join(" ")
}

fn is_true(node: &Node, attribute: &str, default: bool) -> bool {
    node.attribute(attribute).map_or(default, |text| matches!(text.trim(), "true" | "1"))
}

fn named<'node>(node: &'node Node, name: &'node str) -> impl Iterator<Item = &'node Node> {
    node.elements().filter(move |element| element.name == name)
}

/// Values may stand in groups; references to them do not say where.
fn values_in(node: &Node, benchmark: &mut Benchmark) {
    for element in node.elements() {
        match element.name.as_str() {
            "Value" => {
                benchmark.values.insert(id(element), value(element));
            }
            "Group" => values_in(element, benchmark),
            _ => {}
        }
    }
}

fn value(node: &Node) -> Value {
    let title = node.element("title").map(plain).unwrap_or_default();
    let mut value = Value { title, ..Value::default() };
    for element in node.elements() {
        let texts = match element.name.as_str() {
            "value" => vec![element.text()],
            "complex-value" => named(element, "item").map(Node::text).collect(),
            _ => continue,
        };
        let selector = element.attribute("selector").unwrap_or_default().to_owned();
        value.first.get_or_insert_with(|| texts.clone());
        value.by_selector.insert(selector, texts);
    }
    value
}

fn common(node: &Node) -> Common {
    let list = |element: &Node| -> Vec<String> {
        element.attribute("idref").unwrap_or_default().split_whitespace().map(str::to_owned).collect()
    };
    Common {
        id: id(node),
        cluster: node.attribute("cluster-id").map(str::to_owned),
        title: node.element("title").map(plain).unwrap_or_default(),
        description: node.element("description").map(prose).unwrap_or_default(),
        selected: is_true(node, "selected", true),
        weight: node.attribute("weight").and_then(|weight| weight.trim().parse().ok()).unwrap_or(1.0),
        platforms: named(node, "platform")
            .filter_map(|element| element.attribute("idref"))
            .map(str::to_owned)
            .collect(),
        requires: named(node, "requires").map(list).collect(),
        conflicts: named(node, "conflicts").flat_map(list).collect(),
    }
}

fn group(node: &Node) -> Item {
    let items = node
        .elements()
        .filter_map(|element| match element.name.as_str() {
            "Group" => Some(group(element)),
            "Rule" => Some(Item::Rule(Box::new(rule(element)))),
            _ => None,
        })
        .collect();
    Item::Group(Group { common: common(node), items })
}

pub(crate) fn severity(text: &str) -> Severity {
    match text {
        "info" => Severity::Info,
        "low" => Severity::Low,
        "medium" => Severity::Medium,
        "high" => Severity::High,
        _ => Severity::Unknown,
    }
}

fn role(text: &str) -> Role {
    match text {
        "unscored" => Role::Unscored,
        "unchecked" => Role::Unchecked,
        _ => Role::Full,
    }
}

fn rule(node: &Node) -> Rule {
    let fix = node.element("fixtext").or_else(|| node.element("fix"));
    Rule {
        common: common(node),
        severity: node.attribute("severity").map(severity).unwrap_or_default(),
        role: node.attribute("role").map(role).unwrap_or_default(),
        checks: named(node, "check").map(check).collect(),
        complex_check: node.element("complex-check").map(complex_check),
        fix_text: fix.map(|node| text_parts(node, &|_| None)).unwrap_or_default(),
        fixes: named(node, "fix").map(script).collect(),
        references: named(node, "reference")
            .map(|element| (element.attribute("href").unwrap_or_default().to_owned(), plain(element)))
            .collect(),
        idents: named(node, "ident")
            .map(|element| (element.attribute("system").unwrap_or_default().to_owned(), plain(element)))
            .collect(),
        rationale: node.element("rationale").map(plain).unwrap_or_default(),
    }
}

/// Text in which some elements are marks; the others are as if they were not there.
fn text_parts(node: &Node, mark: &dyn Fn(&str) -> Option<Mark>) -> Vec<TextPart> {
    let mut parts = Vec::new();
    for child in &node.children {
        match child {
            Child::Text(text) => parts.push(TextPart::Text(text.clone())),
            Child::Element(element) if element.name == "sub" => {
                let id = element.attribute("idref").unwrap_or_default().to_owned();
                let is_title = element.attribute("use") == Some("title");
                parts.push(if is_title { TextPart::Title(id) } else { TextPart::Sub(id) });
            }
            Child::Element(element) if element.name == "br" => parts.push(TextPart::Text("\n".to_owned())),
            Child::Element(element) => {
                let mark_of_element = mark(&element.name);
                parts.extend(mark_of_element.map(TextPart::Open));
                parts.extend(text_parts(element, mark));
                parts.extend(mark_of_element.map(TextPart::Close));
            }
        }
    }
    parts
}

/// A description.
fn prose(node: &Node) -> Vec<TextPart> {
    text_parts(node, &|name| {
        Some(match name {
            "p" | "div" => Mark::Paragraph,
            "pre" => Mark::Preformatted,
            "code" | "tt" => Mark::Code,
            "ul" => Mark::List,
            "ol" => Mark::NumberedList,
            "li" => Mark::ListItem,
            "b" | "strong" => Mark::Strong,
            "i" | "em" => Mark::Emphasis,
            _ => return None,
        })
    })
}

fn script(node: &Node) -> Fix {
    let notes = ["reboot", "strategy", "disruption", "complexity"]
        .iter()
        .filter_map(|name| Some(((*name).to_owned(), node.attribute(name)?.to_owned())))
        .collect();
    Fix {
        id: node.attribute("id").map(str::to_owned),
        system: node.attribute("system").unwrap_or_default().to_owned(),
        platform: node.attribute("platform").map(str::to_owned),
        notes,
        content: text_parts(node, &|_| None),
    }
}

fn check(node: &Node) -> Check {
    Check {
        system: node.attribute("system").unwrap_or_default().to_owned(),
        selector: node.attribute("selector").unwrap_or_default().to_owned(),
        negate: is_true(node, "negate", false),
        multi_check: is_true(node, "multi-check", false),
        exports: named(node, "check-export")
            .filter_map(|element| {
                Some((element.attribute("value-id")?.to_owned(), element.attribute("export-name")?.to_owned()))
            })
            .collect(),
        content: named(node, "check-content-ref")
            .map(|element| {
                let name = element.attribute("name").map(str::to_owned);
                (element.attribute("href").unwrap_or_default().to_owned(), name)
            })
            .collect(),
    }
}

fn complex_check(node: &Node) -> ComplexCheck {
    ComplexCheck {
        is_and: node.attribute("operator") != Some("OR"),
        negate: is_true(node, "negate", false),
        parts: node
            .elements()
            .filter_map(|element| match element.name.as_str() {
                "check" => Some(ComplexPart::Check(check(element))),
                "complex-check" => Some(ComplexPart::Complex(complex_check(element))),
                _ => None,
            })
            .collect(),
    }
}

pub(crate) fn profile(node: &Node) -> Profile {
    let changes = node
        .elements()
        .filter_map(|element| {
            let idref = element.attribute("idref")?.to_owned();
            Some(match element.name.as_str() {
                "select" => Change::Select { item: idref, selected: is_true(element, "selected", true) },
                "set-value" => Change::SetValue { value: idref, to: vec![element.text()] },
                "set-complex-value" => {
                    Change::SetValue { value: idref, to: named(element, "item").map(Node::text).collect() }
                }
                "refine-value" => {
                    Change::RefineValue { value: idref, selector: element.attribute("selector")?.to_owned() }
                }
                "refine-rule" => Change::RefineRule {
                    rule: idref,
                    selector: element.attribute("selector").map(str::to_owned),
                    severity: element.attribute("severity").map(severity),
                    weight: element.attribute("weight").and_then(|weight| weight.trim().parse().ok()),
                    role: element.attribute("role").map(role),
                },
                _ => return None,
            })
        })
        .collect();
    Profile {
        id: id(node),
        title: node.element("title").map(plain).unwrap_or_default(),
        description: node.element("description").map(prose).unwrap_or_default(),
        extends: node.attribute("extends").map(str::to_owned),
        changes,
    }
}
