//! OVAL system characteristics (`oval-system-characteristics-schema` 5.11): what `oscap oval collect`
//! writes, read as observations, and observations written as characteristics.

use std::collections::BTreeMap;
use std::rc::Rc;

use jiff::Timestamp;
use proto::observation::{Collected, EndpointFacts, Flag, Item, ItemEntity, Status};
use proto::plan::{Datatype, ObjectKey};

use crate::compile::DocumentPlan;
use crate::evaluate::{Evidence, Observed};
use crate::oval::OvalDefinitions;
use crate::xml::{Node, Parser, Step, XmlError};
use crate::xml_out::XmlOut;

/// The namespace of the language itself.
pub const OVAL_SC: &str = "http://oval.mitre.org/XMLSchema/oval-system-characteristics-5";
const OVAL_COMMON: &str = "http://oval.mitre.org/XMLSchema/oval-common-5";
/// References to items in one document.
const REFERENCES_MAX: usize = 2_000_000;
/// The document is as new as `oscap`'s.
const SCHEMA_VERSION: &str = "5.11.1";

/// System characteristics of one endpoint.
#[derive(Debug, Clone, Default)]
pub struct Characteristics {
    /// `system_info`.
    pub facts: EndpointFacts,
    /// `generator/timestamp`, where it says the time zone; `oscap` does not.
    pub collected: Option<Timestamp>,
    /// By object id; of several variable instances, the first.
    pub objects: BTreeMap<String, Rc<Collected>>,
}

/// A collected object before its items are known.
struct Reference {
    id: String,
    flag: Flag,
    messages: Vec<String>,
    items: Vec<String>,
    line: u64,
}

impl Characteristics {
    /// Reads a document.
    pub fn read(bytes: &[u8]) -> Result<Self, XmlError> {
        let mut parser = Parser::new(bytes);
        let root = parser.root()?;
        if root.name != "oval_system_characteristics" || root.namespace != OVAL_SC {
            let what = format!("the root is <{}>, not <oval_system_characteristics> of OVAL 5", root.name);
            return Err(XmlError { line: root.line, what });
        }
        let mut read = Self::default();
        let mut references = Vec::new();
        let mut items = BTreeMap::new();
        while let Step::Start(section) = parser.step_in()? {
            match section.name.as_str() {
                "generator" => {
                    let generator = parser.subtree(section)?;
                    read.collected =
                        generator.element("timestamp").and_then(|node| node.text().trim().parse::<Timestamp>().ok());
                }
                "system_info" => {
                    let info = parser.subtree(section)?;
                    let text = |name: &str| info.element(name).map(|node| node.text().trim().to_owned());
                    read.facts.os_name = text("os_name").unwrap_or_default();
                    read.facts.os_version = text("os_version").unwrap_or_default();
                    read.facts.architecture = text("architecture").unwrap_or_default();
                    read.facts.host_name = text("primary_host_name").unwrap_or_default();
                }
                "collected_objects" => {
                    while let Step::Start(start) = parser.step_in()? {
                        references.push(reference(&parser.subtree(start)?)?);
                    }
                }
                "system_data" => {
                    while let Step::Start(start) = parser.step_in()? {
                        let node = parser.subtree(start)?;
                        let id = node.attribute("id").unwrap_or_default().to_owned();
                        items.insert(id, item(&node)?);
                    }
                }
                _ => parser.skip()?,
            }
        }
        let mut copied = 0_usize;
        for reference in references {
            let mut of_object = Vec::new();
            let mut seen = std::collections::BTreeSet::new();
            for id in reference.items.iter().filter(|id| seen.insert(*id)) {
                copied += 1;
                if copied > REFERENCES_MAX {
                    let what = format!("more than {REFERENCES_MAX} references to items");
                    return Err(XmlError { line: reference.line, what });
                }
                let item = items.get(id).ok_or_else(|| XmlError {
                    line: reference.line,
                    what: format!("the object `{}` refers to the item `{id}`, which is not there", reference.id),
                })?;
                of_object.push(Item::clone(item));
            }
            let collected = Collected { flag: reference.flag, items: of_object, messages: reference.messages };
            read.objects.entry(reference.id).or_insert_with(|| Rc::new(collected));
        }
        Ok(read)
    }

    /// As evidence for a document that was compiled.
    pub fn evidence(&self, document: &DocumentPlan, now: Timestamp) -> Evidence {
        let collected = self.collected.unwrap_or(now);
        let mut evidence = Evidence::default();
        for (id, key) in &document.objects {
            if let Some(object) = self.objects.get(id) {
                let observed = Observed { collected_object: Rc::clone(object), collected };
                evidence.observations.insert(key.clone(), observed);
            }
        }
        evidence
    }
}

fn wrong(node: &Node, what: impl Into<String>) -> XmlError {
    let id = node.attribute("id").map(|id| format!(" `{id}`")).unwrap_or_default();
    XmlError { line: node.line, what: format!("<{}>{id}: {}", node.name, what.into()) }
}

fn messages(node: &Node) -> Vec<String> {
    node.elements()
        .filter(|element| element.name == "message" && element.namespace == OVAL_SC)
        .map(Node::text)
        .collect()
}

fn reference(node: &Node) -> Result<Reference, XmlError> {
    let id = node.attribute("id").ok_or_else(|| wrong(node, "has no id"))?.to_owned();
    let flag = match node.attribute("flag").unwrap_or_default() {
        "error" => Flag::Error,
        "complete" => Flag::Complete,
        "incomplete" => Flag::Incomplete,
        "does not exist" => Flag::DoesNotExist,
        "not collected" => Flag::NotCollected,
        "not applicable" => Flag::NotApplicable,
        other => return Err(wrong(node, format!("flag=\"{other}\" is not in OVAL's list"))),
    };
    let items = node
        .elements()
        .filter(|element| element.name == "reference")
        .filter_map(|element| element.attribute("item_ref"))
        .map(str::to_owned)
        .collect();
    Ok(Reference { id, flag, messages: messages(node), items, line: node.line })
}

fn status(node: &Node) -> Result<Status, XmlError> {
    match node.attribute("status") {
        None | Some("exists") => Ok(Status::Exists),
        Some("error") => Ok(Status::Error),
        Some("does not exist") => Ok(Status::DoesNotExist),
        Some("not collected") => Ok(Status::NotCollected),
        Some(other) => Err(wrong(node, format!("status=\"{other}\" is not in OVAL's list"))),
    }
}

/// Kinds whose items are not called what their objects are.
const ITEM_NAMES: &[(&str, &str)] = &[
    ("iflisteners", "iflistener"),
    ("inetlisteningservers", "inetlisteningserver"),
    ("textfilecontent54", "textfilecontent"),
];

fn item(node: &Node) -> Result<Item, XmlError> {
    let family = node.namespace.strip_prefix(OVAL_SC).and_then(|rest| rest.strip_prefix('#'));
    let name = node.name.strip_suffix("_item").unwrap_or(&node.name);
    let name = ITEM_NAMES.iter().find(|(_, item)| *item == name).map_or(name, |(object, _)| object);
    let entities =
        node.elements().filter(|element| element.namespace == node.namespace).map(entity).collect::<Result<_, _>>()?;
    Ok(Item {
        kind: format!("{}:{name}", family.unwrap_or(&node.namespace)),
        status: status(node)?,
        entities,
        message: messages(node).into_iter().next(),
    })
}

fn entity(node: &Node) -> Result<ItemEntity, XmlError> {
    let datatype = match node.attribute("datatype") {
        None => Datatype::String,
        Some(text) => {
            Datatype::parse(text).ok_or_else(|| wrong(node, format!("datatype=\"{text}\" is not in OVAL's list")))?
        }
    };
    let status = status(node)?;
    let is_nil = node.attribute("xsi:nil").is_some_and(|text| matches!(text.trim(), "true" | "1"));
    let is_record = datatype == Datatype::Record;
    let fields = if is_record { node.elements().map(field).collect::<Result<_, _>>()? } else { Vec::new() };
    let value = (status == Status::Exists && !is_nil && !is_record).then(|| node.text());
    Ok(ItemEntity { name: node.name.clone(), datatype, status, value, fields })
}

fn field(node: &Node) -> Result<ItemEntity, XmlError> {
    Ok(ItemEntity { name: node.attribute("name").unwrap_or_default().to_owned(), ..entity(node)? })
}

/// A flag as OVAL spells it.
pub fn flag_words(flag: Flag) -> &'static str {
    match flag {
        Flag::Error => "error",
        Flag::Complete => "complete",
        Flag::Incomplete => "incomplete",
        Flag::DoesNotExist => "does not exist",
        Flag::NotCollected => "not collected",
        Flag::NotApplicable => "not applicable",
    }
}

fn status_words(status: Status) -> &'static str {
    match status {
        Status::Error => "error",
        Status::Exists => "exists",
        Status::DoesNotExist => "does not exist",
        Status::NotCollected => "not collected",
    }
}

/// The numbers of items in a document: the same item stands once.
#[derive(Debug, Default)]
pub struct Numbers<'evidence> {
    numbers: BTreeMap<&'evidence Item, u64>,
    items: Vec<&'evidence Item>,
}

impl<'evidence> Numbers<'evidence> {
    /// The number of an item.
    pub fn of(&mut self, item: &'evidence Item) -> u64 {
        let next = self.items.len() as u64 + 1;
        *self.numbers.entry(item).or_insert_with(|| {
            self.items.push(item);
            next
        })
    }
}

/// The `generator` element; `prefix` is that of the OVAL common namespace.
pub(crate) fn write_generator(out: &mut XmlOut, now: Timestamp) {
    out.start("generator", &[]);
    out.leaf("oval:product_name", &[], "cpe:/a:muster:muster");
    out.leaf("oval:product_version", &[], env!("CARGO_PKG_VERSION"));
    out.leaf("oval:schema_version", &[], SCHEMA_VERSION);
    out.leaf("oval:timestamp", &[], &now.strftime("%Y-%m-%dT%H:%M:%S").to_string());
    out.end();
}

/// Writes `oval_system_characteristics` of what a document's objects found.
pub fn write<'evidence>(
    out: &mut XmlOut,
    facts: &EndpointFacts,
    oval: &OvalDefinitions,
    objects: &BTreeMap<String, ObjectKey>,
    evidence: &'evidence Evidence,
    numbers: &mut Numbers<'evidence>,
    now: Timestamp,
) {
    let families = ["unix", "linux", "independent"];
    let mut attributes = vec![
        ("xmlns".to_owned(), OVAL_SC.to_owned()),
        ("xmlns:oval".to_owned(), OVAL_COMMON.to_owned()),
        ("xmlns:xsi".to_owned(), "http://www.w3.org/2001/XMLSchema-instance".to_owned()),
    ];
    attributes.extend(families.iter().map(|family| (format!("xmlns:{family}"), format!("{OVAL_SC}#{family}"))));
    let attributes: Vec<(&str, &str)> =
        attributes.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    out.start("oval_system_characteristics", &attributes);
    write_generator(out, now);
    out.start("system_info", &[]);
    out.leaf("os_name", &[], &facts.os_name);
    out.leaf("os_version", &[], &facts.os_version);
    out.leaf("architecture", &[], &facts.architecture);
    out.leaf("primary_host_name", &[], &facts.host_name);
    out.leaf("interfaces", &[], "");
    out.end();
    if !objects.is_empty() {
        out.start("collected_objects", &[]);
        for (id, key) in objects {
            let version = oval.objects.get(id).map_or(1, |object| object.version.max(1)).to_string();
            let observed = evidence.observations.get(key).map(|observed| &*observed.collected_object);
            let flag = observed.map_or(Flag::NotCollected, |collected| collected.flag);
            out.start("object", &[("id", id), ("version", &version), ("flag", flag_words(flag))]);
            if let Some(collected) = observed {
                for message in &collected.messages {
                    let level = if collected.flag == Flag::Error { "error" } else { "info" };
                    out.leaf("message", &[("level", level)], message);
                }
                for item in &collected.items {
                    out.leaf("reference", &[("item_ref", &numbers.of(item).to_string())], "");
                }
            }
            out.end();
        }
        out.end();
    }
    if !numbers.items.is_empty() {
        out.start("system_data", &[]);
        for (at, item) in numbers.items.iter().enumerate() {
            write_item(out, item, at as u64 + 1, &families);
        }
        out.end();
    }
    out.end();
}

fn write_item(out: &mut XmlOut, item: &Item, number: u64, families: &[&str]) {
    let (family, name) = item.kind.rsplit_once(':').unwrap_or(("independent", &item.kind));
    let name = ITEM_NAMES.iter().find(|(object, _)| *object == name).map_or(name, |(_, item)| item);
    let is_declared = families.contains(&family);
    // Kinds of other families carry their namespace with them.
    let prefix = if is_declared { family } else { "item" };
    let namespace = if family.contains(':') { family.to_owned() } else { format!("{OVAL_SC}#{family}") };
    let number = number.to_string();
    let mut attributes = vec![("id", number.as_str()), ("status", status_words(item.status))];
    if !is_declared {
        attributes.push(("xmlns:item", namespace.as_str()));
    }
    out.start(&format!("{prefix}:{name}_item"), &attributes);
    if let Some(message) = &item.message {
        out.leaf("message", &[], message);
    }
    for entity in &item.entities {
        write_entity(out, prefix, entity);
    }
    out.end();
}

fn write_entity(out: &mut XmlOut, prefix: &str, entity: &ItemEntity) {
    let mut attributes = Vec::new();
    if entity.datatype != Datatype::String {
        attributes.push(("datatype", entity.datatype.as_str()));
    }
    if entity.status != Status::Exists {
        attributes.push(("status", status_words(entity.status)));
    }
    let name = format!("{prefix}:{}", entity.name);
    if entity.fields.is_empty() {
        out.leaf(&name, &attributes, entity.value.as_deref().unwrap_or_default());
        return;
    }
    out.start(&name, &attributes);
    for field in &entity.fields {
        let mut attributes = vec![("name", field.name.as_str())];
        if field.datatype != Datatype::String {
            attributes.push(("datatype", field.datatype.as_str()));
        }
        if field.status != Status::Exists {
            attributes.push(("status", status_words(field.status)));
        }
        out.leaf("field", &attributes, field.value.as_deref().unwrap_or_default());
    }
    out.end();
}
