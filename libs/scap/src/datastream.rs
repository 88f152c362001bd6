//! Reads a SCAP source data stream (NIST SP 800-126r3 §3) into a policy.

use std::collections::BTreeMap;

use crate::cpe::{self, Platform, Platforms};
use crate::oval::OvalDefinitions;
use crate::oval_reader;
use crate::policy::Policy;
use crate::source::{self, SourceError};
use crate::xccdf::{Benchmark, Check, ComplexCheck, ComplexPart, Item};
use crate::xccdf_reader;
use crate::xml::{Node, Parser, Step, XmlError};

/// Why a data stream cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// It cannot be uncompressed.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// It is not well-formed, or not OVAL or XCCDF.
    #[error("the data stream cannot be read: {0}")]
    Xml(#[from] XmlError),
    /// It is well-formed, and something is missing.
    #[error("{0}")]
    Incomplete(String),
}

/// What a component is.
enum Component {
    Benchmark(Box<Benchmark>, Vec<Platform>),
    Oval(OvalDefinitions),
    Dictionary(Vec<cpe::DictionaryItem>),
}

/// A `component-ref`: the component that it stands for, and what hrefs mean inside it.
#[derive(Debug, Default)]
struct Reference {
    component: String,
    section: String,
    /// href in the component → id of another component-ref.
    catalog: BTreeMap<String, String>,
}

/// Reads a policy from a data stream, plain or compressed. `Policy::problems` says what was left out.
pub fn read(bytes: Vec<u8>) -> Result<Policy, ReadError> {
    let bytes = source::plain(bytes)?;
    let mut parser = Parser::new(&bytes);
    let root = parser.root()?;
    match root.name.as_str() {
        "data-stream-collection" => collection(&mut parser),
        "Benchmark" | "oval_definitions" => Err(ReadError::Incomplete(format!(
            "this is a stand-alone <{}>, not a data stream: compose a data stream from it and its checks first",
            root.name
        ))),
        other => {
            Err(ReadError::Incomplete(format!("<{other}> is not a SCAP source data stream (data-stream-collection)")))
        }
    }
}

fn collection(parser: &mut Parser<'_>) -> Result<Policy, ReadError> {
    let mut references: BTreeMap<String, Reference> = BTreeMap::new();
    let mut components: BTreeMap<String, Component> = BTreeMap::new();
    let mut problems = Vec::new();
    while let Step::Start(child) = parser.step_in()? {
        match child.name.as_str() {
            "data-stream" => {
                let stream = parser.subtree(child)?;
                if references.is_empty() {
                    read_references(&stream, &mut references);
                } else {
                    problems.push(format!(
                        "the collection has several data streams; `{}` is left out",
                        stream.attribute("id").unwrap_or_default()
                    ));
                }
            }
            "component" => {
                let id = child.attribute("id").unwrap_or_default().to_owned();
                if let Some(component) = component(parser)?
                    && components.insert(id.clone(), component).is_some()
                {
                    return Err(parser.error(format!("the component `{id}` stands twice")).into());
                }
            }
            _ => parser.skip()?,
        }
    }
    assemble(&references, components, problems)
}

fn read_references(stream: &Node, references: &mut BTreeMap<String, Reference>) {
    for section in stream.elements() {
        for reference in section.elements().filter(|element| element.name == "component-ref") {
            let href = reference.attribute("xlink:href").or_else(|| reference.attribute("href")).unwrap_or_default();
            let mut entry = Reference {
                component: href.trim_start_matches('#').to_owned(),
                section: section.name.clone(),
                catalog: BTreeMap::new(),
            };
            for uri in reference.elements().filter(|element| element.name == "catalog").flat_map(Node::elements) {
                if let (Some(name), Some(target)) = (uri.attribute("name"), uri.attribute("uri")) {
                    entry.catalog.insert(name.to_owned(), target.trim_start_matches('#').to_owned());
                }
            }
            references.insert(reference.attribute("id").unwrap_or_default().to_owned(), entry);
        }
    }
}

/// Reads what is in a `component`; `None` where it is of a kind that no rule of ours uses.
fn component(parser: &mut Parser<'_>) -> Result<Option<Component>, XmlError> {
    let mut found = None;
    while let Step::Start(content) = parser.step_in()? {
        found = match content.name.as_str() {
            "Benchmark" => {
                let (benchmark, platforms) = xccdf_reader::read(parser, &content)?;
                Some(Component::Benchmark(Box::new(benchmark), platforms))
            }
            "oval_definitions" => Some(Component::Oval(oval_reader::read(parser)?)),
            "cpe-list" => Some(Component::Dictionary(cpe::dictionary(&parser.subtree(content)?))),
            _ => {
                parser.skip()?;
                None
            }
        };
    }
    Ok(found)
}

fn assemble(
    references: &BTreeMap<String, Reference>,
    mut components: BTreeMap<String, Component>,
    mut problems: Vec<String>,
) -> Result<Policy, ReadError> {
    let (checklist, mut benchmark, language) = references
        .iter()
        .filter(|(_, reference)| reference.section == "checklists")
        .find_map(|(_, reference)| match components.remove(&reference.component) {
            Some(Component::Benchmark(benchmark, platforms)) => Some((reference, *benchmark, platforms)),
            other => {
                components.extend(other.map(|component| (reference.component.clone(), component)));
                None
            }
        })
        .ok_or_else(|| ReadError::Incomplete("the data stream has no XCCDF benchmark in its checklists".to_owned()))?;
    // hrefs are rewritten to component ids here, so that nothing later needs a catalog.
    let resolve = |reference: &Reference, href: &str| -> String {
        let target = reference.catalog.get(href).map_or(href, String::as_str).trim_start_matches('#');
        references.get(target).map_or_else(|| target.to_owned(), |reference| reference.component.clone())
    };
    for item in &mut benchmark.items {
        each_check(item, &mut |check| {
            for (href, _) in &mut check.content {
                *href = resolve(checklist, href);
            }
        });
    }
    let mut platforms = Platforms { language, dictionary: Vec::new() };
    for platform in &mut platforms.language {
        if let Some(test) = &mut platform.test {
            each_definition(test, &mut |href| *href = resolve(checklist, href));
        }
    }
    let mut oval = BTreeMap::new();
    for (id, component) in components {
        match component {
            Component::Oval(definitions) => {
                oval.insert(id, definitions);
            }
            Component::Dictionary(mut items) => {
                let reference = references.values().find(|reference| reference.component == id);
                for item in &mut items {
                    if let Some(reference) = reference {
                        item.href = resolve(reference, &item.href);
                    }
                }
                platforms.dictionary.extend(items);
            }
            Component::Benchmark(benchmark, _) => {
                problems.push(format!("the data stream has several benchmarks; `{}` is left out", benchmark.id));
            }
        }
    }
    let rule_count = benchmark.rules().len();
    if rule_count == 0 {
        return Err(ReadError::Incomplete("the benchmark has no rules".to_owned()));
    }
    for (id, reference) in references {
        let is_used = reference.section == "checks" || reference.section == "checklists";
        if is_used && reference.component.starts_with("http") {
            problems.push(format!(
                "`{id}` is at {}, and nothing is fetched; its rules are notchecked",
                reference.component
            ));
        }
    }
    Ok(Policy { benchmark, oval, platforms, problems })
}

fn each_check(item: &mut Item, change: &mut impl FnMut(&mut Check)) {
    match item {
        Item::Group(group) => group.items.iter_mut().for_each(|item| each_check(item, change)),
        Item::Rule(rule) => {
            rule.checks.iter_mut().for_each(&mut *change);
            if let Some(complex) = &mut rule.complex_check {
                each_complex(complex, change);
            }
        }
    }
}

fn each_complex(complex: &mut ComplexCheck, change: &mut impl FnMut(&mut Check)) {
    for part in &mut complex.parts {
        match part {
            ComplexPart::Check(check) => change(check),
            ComplexPart::Complex(inner) => each_complex(inner, change),
        }
    }
}

fn each_definition(test: &mut cpe::LogicalTest, change: &mut impl FnMut(&mut String)) {
    for part in &mut test.parts {
        match part {
            cpe::LogicalPart::Test(inner) => each_definition(inner, change),
            cpe::LogicalPart::Definition { href, .. } => change(href),
            cpe::LogicalPart::Name(_) | cpe::LogicalPart::Unsupported(_) => {}
        }
    }
}
