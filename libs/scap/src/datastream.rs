//! Reads a SCAP source data stream (NIST SP 800-126r3 §3) into a policy.

use std::collections::BTreeMap;

use crate::cpe::{self, Platform, Platforms};
use crate::oval::OvalDefinitions;
use crate::oval_reader;
use crate::policy::Policy;
use crate::script;
use crate::source::{self, SourceError};
use crate::tailoring;
use crate::xccdf::{Benchmark, Check, ComplexCheck, ComplexPart, Item, Profile};
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
    Tailoring(Vec<Profile>),
    Oval(OvalDefinitions),
    Dictionary(Vec<cpe::DictionaryItem>),
    Script(String),
}

/// Which of several to take; the first, where nothing is said.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Choice {
    /// A `data-stream` by its id.
    pub data_stream: Option<String>,
    /// A checklist by the id of its `component-ref`.
    pub checklist: Option<String>,
    /// A benchmark by its id.
    pub benchmark: Option<String>,
    /// Whether `fix` elements and descriptions are kept: guides and scripts are made of them.
    pub with_prose: bool,
    /// A tailoring by the id of its `component-ref` or component; its profiles join the benchmark's.
    pub tailoring: Option<String>,
}

/// A policy with where its parts come from.
#[derive(Debug)]
pub struct Bundle {
    /// The policy.
    pub policy: Policy,
    /// The component that the benchmark is in.
    pub benchmark_component: String,
    /// The hrefs that the benchmark uses, by component.
    pub names: BTreeMap<String, String>,
}

/// A `component-ref`: the component that it stands for, and what hrefs mean inside it.
#[derive(Debug, Default)]
struct Reference {
    /// Its place in the data stream.
    order: usize,
    component: String,
    section: String,
    /// href in the component → id of another component-ref.
    catalog: BTreeMap<String, String>,
}

/// Reads a policy from a data stream, plain or compressed. `Policy::problems` says what was left out.
pub fn read(bytes: Vec<u8>) -> Result<Policy, ReadError> {
    let bytes = source::plain(bytes)?;
    Ok(read_chosen(&bytes, &Choice::default())?.policy)
}

/// Reads what was chosen of a data stream collection (plain bytes), with where its parts come from.
pub fn read_chosen(bytes: &[u8], choice: &Choice) -> Result<Bundle, ReadError> {
    collection(&mut begin(bytes)?, choice)
}

/// A parser inside the collection, which may stand in an ARF.
fn begin(bytes: &[u8]) -> Result<Parser<'_>, ReadError> {
    let mut parser = Parser::new(bytes);
    let root = parser.root()?;
    match root.name.as_str() {
        "data-stream-collection" => Ok(parser),
        // A result data stream holds what was asked.
        "asset-report-collection" => match parser.find("data-stream-collection")? {
            Some(_) => Ok(parser),
            None => Err(ReadError::Incomplete("this ARF has no source data stream in it".to_owned())),
        },
        "Benchmark" | "oval_definitions" => Err(ReadError::Incomplete(format!(
            "this is a stand-alone <{}>, not a data stream: compose a data stream from it and its checks first",
            root.name
        ))),
        other => {
            Err(ReadError::Incomplete(format!("<{other}> is not a SCAP source data stream (data-stream-collection)")))
        }
    }
}

fn collection(parser: &mut Parser<'_>, choice: &Choice) -> Result<Bundle, ReadError> {
    let mut references: BTreeMap<String, Reference> = BTreeMap::new();
    let mut components: BTreeMap<String, Component> = BTreeMap::new();
    let mut problems = Vec::new();
    while let Step::Start(child) = parser.step_in()? {
        match child.name.as_str() {
            "data-stream" => {
                let stream = parser.subtree(child)?;
                let id = stream.attribute("id");
                if choice.data_stream.is_some() && choice.data_stream.as_deref() != id {
                    continue;
                }
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
                if let Some(component) = component(parser, choice.with_prose)?
                    && components.insert(id.clone(), component).is_some()
                {
                    return Err(parser.error(format!("the component `{id}` stands twice")).into());
                }
            }
            "extended-component" => {
                let id = child.attribute("id").unwrap_or_default().to_owned();
                match script_in(parser)? {
                    Some(Ok(script)) if !components.contains_key(&id) => {
                        components.insert(id, Component::Script(script));
                    }
                    Some(Ok(_)) => return Err(parser.error(format!("the component `{id}` stands twice")).into()),
                    Some(Err(why)) => problems.push(format!("the script `{id}` is left out: {why}")),
                    None => {}
                }
            }
            _ => parser.skip()?,
        }
    }
    if let (true, Some(wanted)) = (references.is_empty(), &choice.data_stream) {
        return Err(ReadError::Incomplete(format!("there is no data stream `{}`", proto::limits::shown(wanted))));
    }
    assemble(&references, components, problems, choice)
}

fn read_references(stream: &Node, references: &mut BTreeMap<String, Reference>) {
    for section in stream.elements() {
        for reference in section.elements().filter(|element| element.name == "component-ref") {
            let href = reference.attribute("xlink:href").or_else(|| reference.attribute("href")).unwrap_or_default();
            let mut entry = Reference {
                order: references.len(),
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
fn component(parser: &mut Parser<'_>, with_prose: bool) -> Result<Option<Component>, XmlError> {
    let mut found = None;
    while let Step::Start(content) = parser.step_in()? {
        found = match content.name.as_str() {
            "Benchmark" => {
                let (benchmark, platforms) = xccdf_reader::read(parser, &content, with_prose)?;
                Some(Component::Benchmark(Box::new(benchmark), platforms))
            }
            "oval_definitions" => Some(Component::Oval(oval_reader::read(parser)?)),
            "Tailoring" => Some(Component::Tailoring(tailoring::profiles(parser.subtree(content)?)?)),
            "cpe-list" => Some(Component::Dictionary(cpe::dictionary(&parser.subtree(content)?))),
            _ => {
                parser.skip()?;
                None
            }
        };
    }
    Ok(found)
}

/// The script in an `extended-component`.
fn script_in(parser: &mut Parser<'_>) -> Result<Option<Result<String, String>>, XmlError> {
    let mut found = None;
    while let Step::Start(content) = parser.step_in()? {
        found = script::read(&parser.subtree(content)?);
    }
    Ok(found)
}

fn assemble(
    references: &BTreeMap<String, Reference>,
    mut components: BTreeMap<String, Component>,
    mut problems: Vec<String>,
    choice: &Choice,
) -> Result<Bundle, ReadError> {
    let mut checklists: Vec<(&String, &Reference)> =
        references.iter().filter(|(_, reference)| reference.section == "checklists").collect();
    checklists.sort_by_key(|(_, reference)| reference.order);
    checklists.retain(|(id, _)| choice.checklist.as_ref().is_none_or(|wanted| wanted == *id));
    let chosen = checklists.into_iter().find(|(_, reference)| match components.get(&reference.component) {
        Some(Component::Benchmark(benchmark, _)) => {
            choice.benchmark.as_ref().is_none_or(|wanted| *wanted == benchmark.id)
        }
        _ => false,
    });
    let found = chosen.and_then(|(_, reference)| match components.remove(&reference.component) {
        Some(Component::Benchmark(benchmark, platforms)) => Some((reference, *benchmark, platforms)),
        _ => None,
    });
    let Some((checklist, mut benchmark, language)) = found else {
        let wanted = choice.checklist.as_ref().or(choice.benchmark.as_ref());
        return Err(ReadError::Incomplete(match wanted {
            Some(wanted) => format!("the data stream has no XCCDF benchmark `{}`", proto::limits::shown(wanted)),
            None => "the data stream has no XCCDF benchmark in its checklists".to_owned(),
        }));
    };
    if let Some(wanted) = &choice.tailoring {
        let component = references.get(wanted).map_or(wanted, |reference| &reference.component);
        let Some(Component::Tailoring(profiles)) = components.remove(component) else {
            return Err(ReadError::Incomplete(format!(
                "the data stream has no tailoring `{}`",
                proto::limits::shown(wanted)
            )));
        };
        tailoring::join(&mut benchmark, profiles);
    }
    let names = checklist
        .catalog
        .iter()
        .filter_map(|(name, target)| Some((references.get(target)?.component.clone(), name.clone())))
        .collect();
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
    let mut scripts = BTreeMap::new();
    for (id, component) in components {
        match component {
            Component::Script(script) => {
                scripts.insert(id, script);
            }
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
            Component::Tailoring(_) => {}
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
    let policy = Policy { benchmark, oval, scripts, platforms, problems };
    Ok(Bundle { policy, benchmark_component: checklist.component.clone(), names })
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

/// A part of a data stream, for those who want it as a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// The id of its `component-ref`.
    pub reference: String,
    /// The component's id.
    pub component: String,
    /// Where in the data stream it stands: `checklists`, `checks`, `dictionaries`.
    pub section: String,
    /// What the others call it.
    pub file_name: String,
}

/// The parts of the first data stream (or the one chosen), in order.
pub fn parts(bytes: &[u8], choice: &Choice) -> Result<Vec<Part>, ReadError> {
    let mut parser = begin(bytes)?;
    let mut references: BTreeMap<String, Reference> = BTreeMap::new();
    while let Step::Start(child) = parser.step_in()? {
        let is_chosen = child.name == "data-stream"
            && references.is_empty()
            && choice.data_stream.as_deref().is_none_or(|wanted| child.attribute("id") == Some(wanted));
        if is_chosen {
            read_references(&parser.subtree(child)?, &mut references);
        } else {
            parser.skip()?;
        }
    }
    let named = |id: &str| {
        references
            .values()
            .flat_map(|reference| &reference.catalog)
            .find(|(_, target)| *target == id)
            .map_or_else(|| id.to_owned(), |(name, _)| name.clone())
    };
    let mut parts: Vec<(usize, Part)> = references
        .iter()
        .filter(|(_, reference)| !reference.component.contains("://"))
        .map(|(id, reference)| {
            let part = Part {
                reference: id.clone(),
                component: reference.component.clone(),
                section: reference.section.clone(),
                file_name: named(id),
            };
            (reference.order, part)
        })
        .collect();
    parts.sort_by_key(|(order, _)| *order);
    Ok(parts.into_iter().map(|(_, part)| part).collect())
}

/// The hrefs of OVAL documents that a policy's checks and platforms name.
pub(crate) fn hrefs(policy: &mut Policy) -> std::collections::BTreeSet<String> {
    let mut hrefs = std::collections::BTreeSet::new();
    for item in &mut policy.benchmark.items {
        each_check(item, &mut |check| {
            if check.system == cpe::OVAL_SYSTEM {
                hrefs.extend(check.content.iter().map(|(href, _)| href.clone()));
            }
        });
    }
    for test in policy.platforms.language.iter_mut().filter_map(|platform| platform.test.as_mut()) {
        each_definition(test, &mut |href| {
            hrefs.insert(href.clone());
        });
    }
    hrefs.extend(policy.platforms.dictionary.iter().map(|item| item.href.clone()));
    hrefs
}
