//! Reads `oval_definitions`. What is not understood costs the thing that it stands in, no more.

use std::collections::BTreeMap;

use proto::plan::{
    Check, Component, Datatype, Entity, EntityValue, Existence, FilterAction, ObjectKey, Operation, Operator,
    SetOperator, VariableKey,
};

use crate::limits::CRITERIA_DEPTH_MAX;
use crate::oval::{
    Class, Criteria, Criterion, Definition, OvalDefinitions, OvalObject, OvalSet, OvalState, OvalVariable,
    OvalVariableSource, Test,
};
use crate::xml::{Node, Parser, Step, XmlError};

/// The namespace of the language itself.
pub(crate) const OVAL_DEF: &str = "http://oval.mitre.org/XMLSchema/oval-definitions-5";

/// Reads the children of an `oval_definitions` element that has just begun.
pub(crate) fn read(parser: &mut Parser<'_>) -> Result<OvalDefinitions, XmlError> {
    let mut document = OvalDefinitions::default();
    loop {
        let Step::Start(section) = parser.step_in()? else { return Ok(document) };
        match section.name.as_str() {
            "generator" => {
                let generator = parser.subtree(section)?;
                document.schema_version = generator.element("schema_version").map(Node::text).unwrap_or_default();
            }
            "definitions" => each(parser, &mut document.definitions, definition)?,
            "tests" => each(parser, &mut document.tests, test)?,
            "objects" => each(parser, &mut document.objects, object)?,
            "states" => each(parser, &mut document.states, state)?,
            "variables" => each(parser, &mut document.variables, variable)?,
            _ => parser.skip()?,
        }
    }
}

fn each<T>(
    parser: &mut Parser<'_>,
    into: &mut BTreeMap<String, T>,
    read: impl Fn(&Node) -> Result<T, XmlError>,
) -> Result<(), XmlError> {
    while let Step::Start(start) = parser.step_in()? {
        let node = parser.subtree(start)?;
        let id = node.attribute("id").unwrap_or_default().to_owned();
        if id.is_empty() {
            return Err(XmlError { line: node.line, what: format!("<{}> has no id", node.name) });
        }
        let value = read(&node)?;
        if into.insert(id.clone(), value).is_some() {
            return Err(XmlError { line: node.line, what: format!("the id `{id}` stands twice") });
        }
    }
    Ok(())
}

fn wrong(node: &Node, what: impl Into<String>) -> XmlError {
    let id = node.attribute("id").map(|id| format!(" `{id}`")).unwrap_or_default();
    XmlError { line: node.line, what: format!("<{}>{id}: {}", node.name, what.into()) }
}

/// A word of one of OVAL's lists.
fn word<T>(node: &Node, attribute: &str, default: T, parse: impl Fn(&str) -> Option<T>) -> Result<T, XmlError> {
    match node.attribute(attribute) {
        None => Ok(default),
        Some(text) => parse(text).ok_or_else(|| wrong(node, format!("{attribute}=\"{text}\" is not in OVAL's list"))),
    }
}

fn flag(node: &Node, attribute: &str, default: bool) -> Result<bool, XmlError> {
    match node.attribute(attribute).map(str::trim) {
        None => Ok(default),
        Some("true" | "1") => Ok(true),
        Some("false" | "0") => Ok(false),
        Some(other) => Err(wrong(node, format!("{attribute}=\"{other}\" is neither true nor false"))),
    }
}

fn operator(text: &str) -> Option<Operator> {
    match text {
        "AND" => Some(Operator::And),
        "OR" => Some(Operator::Or),
        "ONE" => Some(Operator::One),
        "XOR" => Some(Operator::Xor),
        _ => None,
    }
}

fn definition(node: &Node) -> Result<Definition, XmlError> {
    let class = match node.attribute("class") {
        Some("inventory") => Class::Inventory,
        Some("miscellaneous") => Class::Miscellaneous,
        Some("patch") => Class::Patch,
        Some("vulnerability") => Class::Vulnerability,
        Some("compliance") | None => Class::Compliance,
        Some(other) => return Err(wrong(node, format!("class=\"{other}\" is not in OVAL's list"))),
    };
    let title = node.element("metadata").and_then(|metadata| metadata.element("title")).map(Node::text);
    let criteria = node.element("criteria").map(|node| criteria(node, 0)).transpose()?;
    Ok(Definition { class, version: version(node), title: title.unwrap_or_default(), criteria })
}

fn version(node: &Node) -> u64 {
    node.attribute("version").and_then(|text| text.trim().parse().ok()).unwrap_or_default()
}

fn criteria(node: &Node, depth: usize) -> Result<Criteria, XmlError> {
    if depth > CRITERIA_DEPTH_MAX {
        return Err(wrong(node, format!("criteria are nested deeper than {CRITERIA_DEPTH_MAX}")));
    }
    let mut parts = Vec::new();
    for part in node.elements() {
        let negate = flag(part, "negate", false)?;
        let reference = |attribute: &str| {
            part.attribute(attribute).map(str::to_owned).ok_or_else(|| wrong(part, format!("has no {attribute}")))
        };
        parts.push(match part.name.as_str() {
            "criteria" => Criterion::Criteria(criteria(part, depth + 1)?),
            "criterion" => Criterion::Test {
                test: reference("test_ref")?,
                negate,
                comment: part.attribute("comment").unwrap_or_default().to_owned(),
            },
            "extend_definition" => Criterion::Extend { definition: reference("definition_ref")?, negate },
            // What is left out would make a condition weaker than it was meant.
            other => return Err(wrong(part, format!("<{other}> has no place in criteria"))),
        });
    }
    Ok(Criteria {
        operator: word(node, "operator", Operator::And, operator)?,
        negate: flag(node, "negate", false)?,
        parts,
    })
}

/// `unix:file` of `<file_object xmlns="…#unix">`.
fn kind(node: &Node, suffix: &str) -> String {
    let family = node.namespace.strip_prefix(OVAL_DEF).and_then(|rest| rest.strip_prefix('#'));
    let name = node.name.strip_suffix(suffix).unwrap_or(&node.name);
    format!("{}:{name}", family.unwrap_or(&node.namespace))
}

fn test(node: &Node) -> Result<Test, XmlError> {
    let reference = |name: &str, attribute: &str| {
        node.elements()
            .filter(|element| element.name == name)
            .filter_map(|element| element.attribute(attribute))
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    // Before 5.3 the existence was part of `check`, and there it still counts.
    let existence = match node.attribute("check") {
        Some("none exist") => Existence::NoneExist,
        _ => word(node, "check_existence", Existence::AtLeastOneExists, Existence::parse)?,
    };
    Ok(Test {
        kind: kind(node, "_test"),
        check: word(node, "check", Check::All, Check::parse)?,
        existence,
        state_operator: word(node, "state_operator", Operator::And, operator)?,
        version: version(node),
        object: reference("object", "object_ref").into_iter().next(),
        states: reference("state", "state_ref"),
        comment: node.attribute("comment").unwrap_or_default().to_owned(),
    })
}

fn entity(node: &Node) -> Result<Entity, XmlError> {
    let datatype = word(node, "datatype", Datatype::String, Datatype::parse)?;
    let value = if let Some(variable) = node.attribute("var_ref") {
        EntityValue::Variable(VariableKey(variable.to_owned()))
    } else if flag(node, "xsi:nil", false)? {
        EntityValue::Nil
    } else if datatype == Datatype::Record {
        EntityValue::Record(node.elements().map(field).collect::<Result<_, _>>()?)
    } else {
        EntityValue::Literal(node.text())
    };
    Ok(Entity {
        name: node.name.clone(),
        operation: word(node, "operation", Operation::Equals, Operation::parse)?,
        datatype,
        value,
        var_check: word(node, "var_check", Check::All, Check::parse)?,
        entity_check: word(node, "entity_check", Check::All, Check::parse)?,
        check_existence: word(node, "check_existence", Existence::AtLeastOneExists, Existence::parse)?,
        mask: flag(node, "mask", false)?,
    })
}

/// A field of a record: named by its `name` attribute.
fn field(node: &Node) -> Result<Entity, XmlError> {
    let name = node.attribute("name").unwrap_or_default().to_owned();
    Ok(Entity { name, ..entity(node)? })
}

fn filters(node: &Node) -> Result<Vec<(FilterAction, String)>, XmlError> {
    node.elements()
        .filter(|element| element.name == "filter" && element.namespace == OVAL_DEF)
        .map(|element| {
            let action = match element.attribute("action") {
                None | Some("exclude") => FilterAction::Exclude,
                Some("include") => FilterAction::Include,
                Some(other) => return Err(wrong(element, format!("action=\"{other}\" is not in OVAL's list"))),
            };
            Ok((action, element.text().trim().to_owned()))
        })
        .collect()
}

fn object(node: &Node) -> Result<OvalObject, XmlError> {
    let mut entities = Vec::new();
    let mut behaviors = BTreeMap::new();
    for element in node.elements() {
        if element.name == "behaviors" {
            behaviors.extend(element.attributes.iter().cloned());
        } else if element.namespace == node.namespace && element.name != "notes" {
            entities.push(entity(element)?);
        }
    }
    let set =
        node.elements().find(|element| element.name == "set" && element.namespace == OVAL_DEF).map(set).transpose()?;
    let filters = if set.is_some() { Vec::new() } else { filters(node)? };
    Ok(OvalObject { kind: kind(node, "_object"), version: version(node), entities, behaviors, filters, set })
}

fn set(node: &Node) -> Result<OvalSet, XmlError> {
    let parse = |text: &str| match text {
        "COMPLEMENT" => Some(SetOperator::Complement),
        "INTERSECTION" => Some(SetOperator::Intersection),
        "UNION" => Some(SetOperator::Union),
        _ => None,
    };
    let named = |name: &'static str| node.elements().filter(move |element| element.name == name);
    Ok(OvalSet {
        operator: word(node, "set_operator", SetOperator::Union, parse)?,
        objects: named("object_reference").map(|element| element.text().trim().to_owned()).collect(),
        sets: named("set").map(set).collect::<Result<_, _>>()?,
        filters: filters(node)?,
    })
}

fn state(node: &Node) -> Result<OvalState, XmlError> {
    let entities = node
        .elements()
        .filter(|element| element.namespace == node.namespace && element.name != "notes")
        .map(entity)
        .collect::<Result<_, _>>()?;
    Ok(OvalState { kind: kind(node, "_state"), operator: word(node, "operator", Operator::And, operator)?, entities })
}

fn variable(node: &Node) -> Result<OvalVariable, XmlError> {
    let values = |name: &str| -> Vec<String> {
        node.elements().filter(|element| element.name == name).map(Node::text).collect()
    };
    let source = match node.name.as_str() {
        "constant_variable" => OvalVariableSource::Constant(values("value")),
        "external_variable" if node.element("possible_restriction").is_some() => {
            OvalVariableSource::Restricted { values: values("possible_value"), restrictions: restrictions(node)? }
        }
        "external_variable" => OvalVariableSource::External(values("possible_value")),
        "local_variable" => {
            let component = node.elements().find(|element| element.name != "notes");
            let component = component.ok_or_else(|| wrong(node, "has no component"))?;
            match read_component(component) {
                Ok(component) => OvalVariableSource::Local(component),
                Err(construct) => OvalVariableSource::Unsupported(construct),
            }
        }
        other => OvalVariableSource::Unsupported(other.to_owned()),
    };
    Ok(OvalVariable {
        datatype: word(node, "datatype", Datatype::String, Datatype::parse)?,
        comment: node.attribute("comment").unwrap_or_default().to_owned(),
        source,
    })
}

/// One `possible_restriction`: how its parts combine, and the parts.
type Restriction = (Operator, Vec<(Operation, String)>);

fn restrictions(node: &Node) -> Result<Vec<Restriction>, XmlError> {
    let named = |node: &'_ Node, name: &str| -> Vec<Node> {
        node.elements().filter(|element| element.name == name).cloned().collect()
    };
    named(node, "possible_restriction")
        .iter()
        .map(|possible| {
            let parts = named(possible, "restriction")
                .iter()
                .map(|part| Ok((word(part, "operation", Operation::Equals, Operation::parse)?, part.text())))
                .collect::<Result<_, XmlError>>()?;
            Ok((word(possible, "operator", Operator::And, operator)?, parts))
        })
        .collect()
}

/// A component, or the name of what is not understood in it.
fn read_component(node: &Node) -> Result<Component, String> {
    let attribute = |name: &str| node.attribute(name).map(str::to_owned).ok_or_else(|| format!("{}@{name}", node.name));
    let number = |name: &str| attribute(name)?.trim().parse::<i64>().map_err(|_| format!("{}@{name}", node.name));
    let all = || node.elements().map(read_component).collect::<Result<Vec<_>, _>>();
    let one = || all()?.into_iter().next().map(Box::new).ok_or_else(|| node.name.clone());
    Ok(match node.name.as_str() {
        "literal_component" => Component::Literal(node.text()),
        "object_component" => Component::Object {
            object: ObjectKey(attribute("object_ref")?),
            item_field: attribute("item_field")?,
            record_field: node.attribute("record_field").map(str::to_owned),
        },
        "variable_component" => Component::Variable(VariableKey(attribute("var_ref")?)),
        "arithmetic" => {
            Component::Arithmetic { is_product: attribute("arithmetic_operation")? == "multiply", operands: all()? }
        }
        "begin" => Component::Begin(attribute("character")?, one()?),
        "concat" => Component::Concat(all()?),
        "count" => Component::Count(all()?),
        "end" => Component::End(attribute("character")?, one()?),
        "escape_regex" => Component::EscapeRegex(one()?),
        "glob_to_regex" => Component::GlobToRegex {
            noescape: flag(node, "glob_noescape", false).map_err(|error| error.what)?,
            of: one()?,
        },
        "merge" => Component::Merge(node.attribute("delimiter").unwrap_or_default().to_owned(), all()?),
        "regex_capture" => Component::RegexCapture(attribute("pattern")?, one()?),
        "split" => Component::Split(attribute("delimiter")?, one()?),
        "substring" => {
            Component::Substring { start: number("substring_start")?, length: number("substring_length")?, of: one()? }
        }
        "time_difference" => Component::TimeDifference {
            format_1: node.attribute("format_1").unwrap_or("year_month_day").to_owned(),
            format_2: node.attribute("format_2").unwrap_or("year_month_day").to_owned(),
            operands: all()?,
        },
        "unique" => Component::Unique(all()?),
        other => return Err(other.to_owned()),
    })
}
