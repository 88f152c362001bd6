//! Reads a `Benchmark`.

use std::collections::{BTreeMap, BTreeSet};

use proto::verdict::Severity;

use crate::cpe::{self, Platform};
use crate::limits::{EXTENDED_BYTES_MAX, REFERENCE_DEPTH_MAX};
use crate::xccdf::{
    Benchmark, Change, Check, Common, ComplexCheck, ComplexPart, Fix, Group, Item, Mark, Profile, Role, Rule, TextPart,
    Value,
};
use crate::xml::{Child, Node, Parser, Step, XmlError};

/// Reads the children of a `Benchmark` element that has just begun, and the platform definitions of
/// the CPE language that stand in it. Descriptions and scripts are most of what large
/// benchmarks are, and only some need them.
pub(crate) fn read(
    parser: &mut Parser<'_>,
    start: &Node,
    with_prose: bool,
) -> Result<(Benchmark, Vec<Platform>), XmlError> {
    let mut benchmark = Benchmark { id: id(start), namespace: start.namespace.clone(), ..Benchmark::default() };
    let mut platforms = Vec::new();
    let mut titles = Vec::new();
    let mut reader = Items { with_prose, ..Items::default() };
    loop {
        let Step::Start(child) = parser.step_in()? else {
            benchmark.title = best_title(titles.iter()).map(plain).unwrap_or_default();
            reader.finish(&mut benchmark.items).map_err(|what| parser.error(what))?;
            return Ok((benchmark, platforms));
        };
        match child.name.as_str() {
            "title" => titles.push(parser.subtree(child)?),
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
            "Profile" => benchmark.profiles.push(profile(&checked(parser.subtree(child)?)?)),
            "Value" => {
                let node = parser.subtree(child)?;
                benchmark.values.insert(id(&node), value(&node));
            }
            "Group" => {
                let group = reader.group(parser, child, &mut benchmark.values)?;
                benchmark.items.extend(group);
            }
            "Rule" => benchmark.items.push(reader.rule(&checked(parser.subtree(child)?)?)?),
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

/// Words that decide must be what they can be: one that is none would be taken for its opposite, or for nothing.
pub(crate) fn checked(node: Node) -> Result<Node, XmlError> {
    fn look(node: &Node) -> Result<(), XmlError> {
        for (name, value) in &node.attributes {
            let allowed: &[&str] = match (node.name.as_str(), name.as_str()) {
                (_, "abstract" | "multi-check" | "negate" | "override" | "selected") => &["true", "false", "1", "0"],
                ("complex-check", "operator") => &["AND", "OR"],
                _ => continue,
            };
            if !allowed.contains(&value.trim()) {
                let (value, allowed) = (proto::limits::shown(value), allowed.join(", "));
                let what = format!("<{}> has {name}=\"{value}\"; it must be one of {allowed}", node.name);
                return Err(XmlError { line: node.line, what });
            }
        }
        node.elements().try_for_each(look)
    }
    look(&node)?;
    Ok(node)
}

fn is_true(node: &Node, attribute: &str, default: bool) -> bool {
    node.attribute(attribute).map_or(default, |text| matches!(text.trim(), "true" | "1"))
}

fn named<'node>(node: &'node Node, name: &'node str) -> impl Iterator<Item = &'node Node> + Clone {
    node.elements().filter(move |element| element.name == name)
}

fn value(node: &Node) -> Value {
    let title = node.element("title").map(plain).unwrap_or_default();
    let said = |name: &str| node.attribute(name).unwrap_or_default().to_owned();
    let mut value = Value { title, value_type: said("type"), operator: said("operator"), ..Value::default() };
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

/// The title in English as spoken in the United States, else in no language, else the first.
fn best_title<'node>(titles: impl Iterator<Item = &'node Node> + Clone) -> Option<&'node Node> {
    let in_language = |wanted: Option<&str>| titles.clone().find(|title| title.attribute("lang") == wanted);
    in_language(Some("en-US")).or_else(|| in_language(None)).or_else(|| titles.clone().next())
}

/// What `node` says of a group or a rule, on top of what is said already.
fn fill(common: &mut Common, node: &Node) {
    let list = |element: &Node| -> Vec<String> {
        element.attribute("idref").unwrap_or_default().split_whitespace().map(str::to_owned).collect()
    };
    common.id = id(node);
    common.cluster = node.attribute("cluster-id").map(str::to_owned);
    if let Some(title) = best_title(named(node, "title")) {
        if is_true(title, "override", false) {
            common.title.clear();
            common.title_parts.clear();
        }
        let parts = text_parts(title, &|_| None);
        common.title.push_str(&plain(title));
        if !common.title_parts.is_empty() || parts != [TextPart::Text(plain(title))] {
            common.title_parts.extend(parts);
        }
    }
    if let Some(description) = node.element("description") {
        common.description = prose(description);
    }
    common.selected = is_true(node, "selected", common.selected);
    let weight = node.attribute("weight").and_then(|weight| weight.trim().parse().ok());
    common.weight = weight.unwrap_or(common.weight);
    let platforms = named(node, "platform").filter_map(|element| element.attribute("idref"));
    common.platforms.extend(platforms.map(str::to_owned));
    common.requires.extend(named(node, "requires").map(list));
    common.conflicts.extend(named(node, "conflicts").flat_map(list));
}

fn blank() -> Common {
    Common { weight: 1.0, selected: true, ..Common::default() }
}

/// Groups and rules while a benchmark is read. A rule that extends another waits until all are there
/// (XCCDF 1.2 §6.3, `extends`); one that is abstract is only there to be extended.
#[derive(Default)]
struct Items {
    with_prose: bool,
    /// By id.
    extending: BTreeMap<String, Node>,
    abstracts: BTreeSet<String>,
    /// The ids of all rules.
    rules: BTreeSet<String>,
}

impl Items {
    /// A group whose children are read one by one: a benchmark may be one group. Values may stand in it; references
    /// to them do not say where. An abstract group is only there to be extended.
    fn group(
        &mut self,
        parser: &mut Parser<'_>,
        start: Node,
        values: &mut BTreeMap<String, Value>,
    ) -> Result<Option<Item>, XmlError> {
        let mut head = start;
        let mut items = Vec::new();
        while let Step::Start(child) = parser.step_in()? {
            match child.name.as_str() {
                "Group" => items.extend(self.group(parser, child, values)?),
                "Rule" => items.push(self.rule(&checked(parser.subtree(child)?)?)?),
                "Value" => {
                    let node = parser.subtree(child)?;
                    values.insert(id(&node), value(&node));
                }
                _ => head.children.push(Child::Element(parser.subtree(child)?)),
            }
        }
        let head = checked(head)?;
        if is_true(&head, "abstract", false) {
            return Ok(None);
        }
        let mut common = blank();
        fill(&mut common, &head);
        if !self.with_prose {
            common.description = Vec::new();
        }
        Ok(Some(Item::Group(Box::new(Group { common, items }))))
    }

    fn rule(&mut self, node: &Node) -> Result<Item, XmlError> {
        let mut rule = Rule { common: blank(), ..Rule::default() };
        self.fill_rule(&mut rule, node);
        let id = rule.common.id.clone();
        if !self.rules.insert(id.clone()) {
            // Two rules of one id would have one verdict.
            let what = format!("the rule `{}` stands twice", proto::limits::shown(&id));
            return Err(XmlError { line: node.line, what });
        }
        if is_true(node, "abstract", false) {
            self.abstracts.insert(id.clone());
        }
        if node.attribute("extends").is_some() {
            self.extending.insert(id, node.clone());
        }
        Ok(Item::Rule(Box::new(rule)))
    }

    fn finish(&self, items: &mut Vec<Item>) -> Result<(), String> {
        if !self.extending.is_empty() {
            let mut bases = BTreeMap::new();
            each_rule(items, &mut |rule| {
                bases.insert(rule.common.id.clone(), rule.clone());
            });
            let mut resolved = BTreeMap::new();
            let mut inherited = 0;
            for id in self.extending.keys() {
                self.resolve(id, &bases, &mut resolved, &mut Vec::new(), &mut inherited)?;
            }
            each_rule(items, &mut |rule| {
                if let Some(whole) = resolved.remove(&rule.common.id) {
                    *rule = whole;
                }
            });
        }
        if !self.abstracts.is_empty() {
            self.drop_abstracts(items);
        }
        Ok(())
    }

    /// A rule with what it extends, once. A cycle ends where it would close; what extends nothing that is there stands
    /// alone.
    fn resolve(
        &self,
        id: &str,
        bases: &BTreeMap<String, Rule>,
        resolved: &mut BTreeMap<String, Rule>,
        open: &mut Vec<String>,
        inherited: &mut usize,
    ) -> Result<(), String> {
        let Some(node) = self.extending.get(id).filter(|_| !resolved.contains_key(id)) else { return Ok(()) };
        let extended = node.attribute("extends").unwrap_or_default();
        let is_cycle =
            open.len() >= REFERENCE_DEPTH_MAX || open.iter().any(|known| known == extended) || extended == id;
        // The rules of an abstract group are not there.
        let Some(base) = bases.get(id) else { return Ok(()) };
        let mut rule = base.clone();
        if !is_cycle && bases.contains_key(extended) {
            open.push(id.to_owned());
            self.resolve(extended, bases, resolved, open, inherited)?;
            open.pop();
            rule = resolved.get(extended).unwrap_or(&bases[extended]).clone();
            // What it needs is its own, as for `oscap`.
            rule.common.requires.clear();
            self.fill_rule(&mut rule, node);
            *inherited += serde_json::to_vec(&rule).map_or(0, |bytes| bytes.len());
            if *inherited > EXTENDED_BYTES_MAX {
                return Err(format!("rules that extend each other come to more than {EXTENDED_BYTES_MAX} bytes"));
            }
        }
        resolved.insert(id.to_owned(), rule);
        Ok(())
    }

    fn fill_rule(&self, rule: &mut Rule, node: &Node) {
        fill_rule(rule, node);
        if !self.with_prose {
            rule.fixes = Vec::new();
            rule.common.description = Vec::new();
        }
    }

    fn drop_abstracts(&self, items: &mut Vec<Item>) {
        items.retain(|item| match item {
            Item::Rule(rule) => !self.abstracts.contains(&rule.common.id),
            Item::Group(_) => true,
        });
        for item in items {
            if let Item::Group(group) = item {
                self.drop_abstracts(&mut group.items);
            }
        }
    }
}

fn each_rule(items: &mut [Item], change: &mut dyn FnMut(&mut Rule)) {
    for item in items {
        match item {
            Item::Group(group) => each_rule(&mut group.items, change),
            Item::Rule(rule) => change(rule),
        }
    }
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

/// What `node` says of a rule, on top of what is said already.
fn fill_rule(rule: &mut Rule, node: &Node) {
    fill(&mut rule.common, node);
    rule.severity = node.attribute("severity").map_or(rule.severity, severity);
    rule.role = node.attribute("role").map_or(rule.role, role);
    rule.checks.extend(named(node, "check").map(check));
    if let Some(complex) = node.element("complex-check") {
        rule.complex_check = Some(complex_check(complex));
    } else if node.element("check").is_some() {
        // Its own check counts, and not what it inherits.
        rule.complex_check = None;
    }
    if let Some(text) = node.element("fixtext").or_else(|| node.element("fix")) {
        rule.fix_text = text_parts(text, &|_| None);
    }
    rule.fixes.extend(named(node, "fix").map(script));
    let references = named(node, "reference");
    rule.references
        .extend(references.map(|element| (element.attribute("href").unwrap_or_default().to_owned(), plain(element))));
    let idents = named(node, "ident");
    rule.idents
        .extend(idents.map(|element| (element.attribute("system").unwrap_or_default().to_owned(), element.text())));
    if let Some(rationale) = node.element("rationale") {
        rule.rationale = plain(rationale);
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
    let notes = ["reboot", "strategy", "disruption", "complexity", "platform"]
        .iter()
        .filter_map(|name| Some(((*name).to_owned(), node.attribute(name)?.to_owned())))
        .collect();
    Fix {
        id: node.attribute("id").map(str::to_owned),
        system: node.attribute("system").unwrap_or_default().to_owned(),
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
        imports: named(node, "check-import")
            .filter_map(|element| element.attribute("import-name").map(str::to_owned))
            .collect(),
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
        title: best_title(named(node, "title")).map(plain).unwrap_or_default(),
        description: node.element("description").map(prose).unwrap_or_default(),
        is_abstract: is_true(node, "abstract", false),
        extends: node.attribute("extends").map(str::to_owned),
        changes,
    }
}
