//! Stand-alone documents: OVAL definitions, and files with values for their external variables.

use std::collections::BTreeMap;

use crate::cpe::{self, Platforms};
use crate::datastream::{self, Bundle, ReadError};
use crate::oval::OvalDefinitions;
use crate::oval_reader::{self, OVAL_DEF};
use crate::policy::Policy;
use crate::xccdf::Benchmark;
use crate::xccdf_reader;
use crate::xml::{Node, Parser, Step, XmlError};

const OVAL_VAR: &str = "http://oval.mitre.org/XMLSchema/oval-variables-5";

/// The href of the only document of a policy made by [`of_oval`].
pub const ALONE: &str = "";

/// Reads OVAL definitions.
pub fn read_oval(bytes: &[u8]) -> Result<OvalDefinitions, ReadError> {
    let mut parser = Parser::new(bytes);
    let root = parser.root()?;
    if root.name != "oval_definitions" || root.namespace != OVAL_DEF {
        let what = format!("the root is <{}>, not <oval_definitions> of OVAL 5", root.name);
        return Err(XmlError { line: root.line, what }.into());
    }
    Ok(oval_reader::read(&mut parser)?)
}

/// A policy of one OVAL document and no rules.
pub fn of_oval(oval: OvalDefinitions) -> Policy {
    Policy {
        benchmark: Benchmark::default(),
        oval: BTreeMap::from([(ALONE.to_owned(), oval)]),
        scripts: BTreeMap::new(),
        platforms: Platforms::default(),
        problems: Vec::new(),
    }
}

/// Reads an OVAL variables file: values by variable id.
pub fn read_variables(bytes: &[u8]) -> Result<BTreeMap<String, Vec<String>>, XmlError> {
    let mut parser = Parser::new(bytes);
    let root = parser.root()?;
    if root.name != "oval_variables" || root.namespace != OVAL_VAR {
        let what = format!("the root is <{}>, not <oval_variables> of OVAL 5", root.name);
        return Err(XmlError { line: root.line, what });
    }
    let mut values: BTreeMap<String, Vec<String>> = BTreeMap::new();
    while let Step::Start(section) = parser.step_in()? {
        if section.name != "variables" {
            parser.skip()?;
            continue;
        }
        while let Step::Start(start) = parser.step_in()? {
            let node = parser.subtree(start)?;
            let id = node.attribute("id").unwrap_or_default().to_owned();
            let of_variable = node.elements().filter(|element| element.name == "value").map(Node::text);
            values.entry(id).or_default().extend(of_variable);
        }
    }
    Ok(values)
}

/// A document's text from its root element on: what another document can take in.
pub fn without_declaration(text: &str) -> &str {
    let text = text.trim_start_matches('\u{feff}').trim_start();
    match text.strip_prefix("<?xml").and_then(|rest| rest.split_once("?>")) {
        Some((_, rest)) => rest.trim_start(),
        None => text,
    }
}

/// Reads a stand-alone benchmark (XCCDF 1.1 or 1.2). `load` gives the documents that it names, by href.
pub fn read_benchmark(bytes: &[u8], load: &mut dyn FnMut(&str) -> Option<Vec<u8>>) -> Result<Bundle, ReadError> {
    let mut parser = Parser::new(bytes);
    let root = parser.root()?;
    if root.name != "Benchmark" {
        let what = format!("the root is <{}>, neither <Benchmark> nor <data-stream-collection>", root.name);
        return Err(XmlError { line: root.line, what }.into());
    }
    let (benchmark, language) = xccdf_reader::read(&mut parser, &root, true)?;
    let mut policy = Policy {
        benchmark,
        oval: BTreeMap::new(),
        scripts: BTreeMap::new(),
        platforms: Platforms { language, dictionary: Vec::new() },
        problems: Vec::new(),
    };
    join_checks(&mut policy, load)?;
    let names = policy.oval.keys().map(|href| (href.clone(), href.clone())).collect();
    Ok(Bundle { policy, benchmark_component: String::new(), names })
}

/// Joins a CPE dictionary or a CPE language document to a policy.
pub fn join_platforms(
    policy: &mut Policy,
    bytes: &[u8],
    load: &mut dyn FnMut(&str) -> Option<Vec<u8>>,
) -> Result<(), ReadError> {
    let mut parser = Parser::new(bytes);
    let root = parser.root()?;
    match root.name.as_str() {
        "cpe-list" => policy.platforms.dictionary.extend(cpe::dictionary(&parser.subtree(root)?)),
        "platform-specification" => {
            let node = parser.subtree(root)?;
            let platforms = node.elements().filter(|element| element.name == "platform").map(cpe::platform);
            policy.platforms.language.extend(platforms);
        }
        other => {
            let what = format!("the root is <{other}>, neither <cpe-list> nor <platform-specification>");
            return Err(XmlError { line: root.line, what }.into());
        }
    }
    join_checks(policy, load)
}

/// Loads the OVAL documents that checks and platforms name. One that is not there costs the rules that
/// use it; one that cannot be read is an error.
pub fn join_checks(policy: &mut Policy, load: &mut dyn FnMut(&str) -> Option<Vec<u8>>) -> Result<(), ReadError> {
    for href in datastream::hrefs(policy) {
        if policy.oval.contains_key(&href) {
            continue;
        }
        match load(&href) {
            Some(bytes) => {
                policy.oval.insert(href, read_oval(&bytes)?);
            }
            None => policy.problems.push(format!("`{href}` is not there; its rules are notchecked")),
        }
    }
    Ok(())
}
