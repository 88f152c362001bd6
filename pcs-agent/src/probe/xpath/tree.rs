//! A read-only tree of an XML document, without namespaces, comments and processing instructions.
//!
//! Nodes lie in document order: an element, its attributes, what is in it. So the descendants of a node are a
//! range, and so is its text. A document type is refused, and so is every entity but the five of XML itself.

use std::borrow::Cow;
use std::collections::HashSet;
use std::rc::Rc;

use quick_xml::events::{BytesStart, Event};
use quick_xml::name::ResolveResult;
use quick_xml::{NsReader, XmlVersion};

use super::limits::{ATTRIBUTES_MAX, DEPTH_MAX, DOCUMENT_BYTES_MAX, NODES_MAX};

/// Why there is no tree.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(in crate::probe) enum DocumentError {
    /// It is no XML document.
    #[error("not well-formed XML: {0}")]
    Broken(String),
    /// This version does not read it.
    #[error("not covered yet: {0}")]
    NotCovered(String),
}

fn broken(what: impl Into<String>) -> DocumentError {
    DocumentError::Broken(what.into())
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Root,
    Element,
    Attribute,
    Text,
}

#[derive(Debug)]
struct Node {
    kind: Kind,
    /// The local name; empty where a node has none.
    name: Rc<str>,
    parent: usize,
    /// The place after the last node below this one.
    end: usize,
    /// Its text: from here to there in that of the document, or of all attributes.
    from: usize,
    to: usize,
}

/// A document.
#[derive(Debug)]
pub(in crate::probe) struct Document {
    nodes: Vec<Node>,
    text: String,
    attributes: String,
}

impl Document {
    /// The tree of a document.
    pub(in crate::probe) fn parse(bytes: &[u8]) -> Result<Self, DocumentError> {
        if bytes.len() > DOCUMENT_BYTES_MAX {
            let most = DOCUMENT_BYTES_MAX / 1024 / 1024;
            return Err(DocumentError::NotCovered(format!("an XML document of more than {most} MiB")));
        }
        let text = decoded(bytes)?;
        if !text.chars().all(is_xml_character) {
            return Err(broken("there is a character that XML does not allow"));
        }
        Builder::new().build(&text)
    }

    /// How many nodes there are; the root is the first.
    pub(super) fn len(&self) -> usize {
        self.nodes.len()
    }

    /// What a node is; past the end, something that nothing asks for.
    pub(super) fn kind(&self, node: usize) -> Kind {
        self.nodes.get(node).map_or(Kind::Root, |node| node.kind)
    }

    /// The local name of an element or an attribute.
    pub(super) fn name(&self, node: usize) -> &str {
        self.nodes.get(node).map_or("", |node| &*node.name)
    }

    /// The place after the last node below this one.
    pub(super) fn end(&self, node: usize) -> usize {
        self.nodes.get(node).map_or(self.nodes.len(), |node| node.end)
    }

    /// The node that this one is in or belongs to.
    pub(super) fn parent(&self, node: usize) -> Option<usize> {
        self.nodes.get(node).filter(|node| node.kind != Kind::Root).map(|node| node.parent)
    }

    /// Whether a node is a text or an attribute: what OVAL takes a value from.
    pub(in crate::probe) fn has_value(&self, node: usize) -> bool {
        matches!(self.kind(node), Kind::Text | Kind::Attribute)
    }

    /// The string-value of a node.
    pub(in crate::probe) fn text(&self, node: usize) -> &str {
        let Some(node) = self.nodes.get(node) else { return "" };
        let all = if node.kind == Kind::Attribute { &self.attributes } else { &self.text };
        all.get(node.from..node.to).unwrap_or_default()
    }
}

/// `Char` of XML 1.0.
fn is_xml_character(character: char) -> bool {
    match character {
        '\t' | '\n' | '\r' => true,
        _ => character >= ' ' && !matches!(character, '\u{fffe}' | '\u{ffff}'),
    }
}

/// Whether a name may begin like that. Letters beyond ASCII are not told apart.
pub(super) fn begins_name(character: char) -> bool {
    character.is_ascii_alphabetic() || character == '_' || !character.is_ascii()
}

/// Whether a name may go on like that.
pub(super) fn continues_name(character: char) -> bool {
    begins_name(character) || character.is_ascii_digit() || matches!(character, '-' | '.')
}

fn is_name(name: &str) -> bool {
    name.chars().next().is_some_and(begins_name) && name.chars().all(continues_name)
}

/// Space as XML has it.
pub(super) const SPACE: [char; 4] = [' ', '\t', '\n', '\r'];

/// The text of a document, from the encoding that it says it has.
fn decoded(bytes: &[u8]) -> Result<Cow<'_, str>, DocumentError> {
    if let Some(rest) = bytes.strip_prefix(b"\xfe\xff") {
        return utf_16(rest, u16::from_be_bytes);
    }
    if let Some(rest) = bytes.strip_prefix(b"\xff\xfe") {
        return utf_16(rest, u16::from_le_bytes);
    }
    if bytes.starts_with(b"\0<") {
        return utf_16(bytes, u16::from_be_bytes);
    }
    if bytes.starts_with(b"<\0") {
        return utf_16(bytes, u16::from_le_bytes);
    }
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    let encoding = declared_encoding(bytes).unwrap_or_default().to_ascii_uppercase();
    match encoding.as_str() {
        "" | "UTF-8" | "UTF8" | "US-ASCII" | "ASCII" => {
            std::str::from_utf8(bytes).map(Cow::Borrowed).map_err(|_| broken("it is not UTF-8"))
        }
        "ISO-8859-1" | "ISO_8859-1" | "LATIN1" | "ISO-LATIN-1" => {
            Ok(Cow::Owned(bytes.iter().map(|byte| char::from(*byte)).collect()))
        }
        "UTF-16" | "UTF-16LE" | "UTF-16BE" => Err(broken("it says that it is UTF-16, and is not")),
        other => Err(DocumentError::NotCovered(format!("XML in the encoding {}", proto::limits::shown(other)))),
    }
}

fn utf_16(bytes: &[u8], unit: fn([u8; 2]) -> u16) -> Result<Cow<'static, str>, DocumentError> {
    let (pairs, rest) = bytes.as_chunks::<2>();
    if !rest.is_empty() {
        return Err(broken("it is not UTF-16"));
    }
    let text: Result<String, _> = char::decode_utf16(pairs.iter().map(|pair| unit(*pair))).collect();
    text.map(Cow::Owned).map_err(|_| broken("it is not UTF-16"))
}

/// `encoding` of the XML declaration.
fn declared_encoding(bytes: &[u8]) -> Option<String> {
    let start = bytes.strip_prefix(b"<?xml")?;
    let start = String::from_utf8_lossy(start.get(..start.len().min(256))?).into_owned();
    let declaration = start.split("?>").next()?;
    let (_, value) = declaration.split_once("encoding")?;
    let value = value.trim_start_matches(SPACE).strip_prefix('=')?.trim_start_matches(SPACE);
    let quote = value.chars().next().filter(|quote| matches!(quote, '"' | '\''))?;
    value.split(quote).nth(1).map(str::to_owned)
}

struct Builder {
    document: Document,
    names: HashSet<Rc<str>>,
    /// The elements that are open, the root first.
    open: Vec<usize>,
    has_element: bool,
}

impl Builder {
    fn new() -> Self {
        let root = Node { kind: Kind::Root, name: Rc::from(""), parent: 0, end: 1, from: 0, to: 0 };
        Self {
            document: Document { nodes: vec![root], text: String::new(), attributes: String::new() },
            names: HashSet::new(),
            open: vec![0],
            has_element: false,
        }
    }

    fn build(mut self, source: &str) -> Result<Document, DocumentError> {
        let mut reader = NsReader::from_str(source);
        reader.config_mut().expand_empty_elements = true;
        reader.config_mut().check_comments = true;
        let mut is_first = true;
        loop {
            let event = reader.read_event().map_err(|error| broken(error.to_string()))?;
            match event {
                Event::Start(start) => self.start(&reader, &start)?,
                Event::End(_) => self.close(),
                Event::Text(part) => {
                    if part.contains("]]>") {
                        return Err(broken("`]]>` in text"));
                    }
                    self.text(&part.xml10_content())?;
                }
                Event::CData(part) => {
                    if self.open.len() < 2 {
                        return Err(broken("text outside the root element"));
                    }
                    self.text(&part.xml10_content())?;
                }
                Event::GeneralRef(reference) => {
                    if self.open.len() < 2 {
                        return Err(broken("text outside the root element"));
                    }
                    let name: &str = &reference;
                    match reference.resolve_char_ref() {
                        Ok(Some(character)) if is_xml_character(character) => {
                            self.text(character.encode_utf8(&mut [0; 4]))?;
                        }
                        Ok(None) => {
                            let Some(text) = quick_xml::escape::resolve_xml_entity(name) else {
                                let name = proto::limits::shown(name);
                                return Err(broken(format!("the entity `&{name};` is not one of XML's own five")));
                            };
                            self.text(text)?;
                        }
                        _ => return Err(broken("a reference to a character that XML does not allow")),
                    }
                }
                // One without declarations of its own says nothing, and what it points to is not fetched.
                Event::DocType(text) if text.contains('[') => {
                    return Err(DocumentError::NotCovered("an XML document with a document type (DTD)".to_owned()));
                }
                Event::Decl(_) if !is_first => {
                    return Err(broken("the XML declaration is not at the beginning"));
                }
                Event::Eof => break,
                Event::Decl(_) | Event::DocType(_) | Event::Comment(_) | Event::PI(_) | Event::Empty(_) => {}
            }
            is_first = false;
        }
        if self.open.len() > 1 {
            return Err(broken("it ends inside an element"));
        }
        if !self.has_element {
            return Err(broken("there is no element"));
        }
        self.close();
        Ok(self.document)
    }

    fn start(&mut self, reader: &NsReader<&[u8]>, start: &BytesStart<'_>) -> Result<(), DocumentError> {
        if self.open.len() == 1 && self.has_element {
            return Err(broken("a second root element"));
        }
        if self.open.len() > DEPTH_MAX {
            return Err(broken(format!("elements are nested deeper than {DEPTH_MAX}")));
        }
        self.has_element = true;
        let (namespace, local) = reader.resolver().resolve_element(start.name());
        declared(&namespace)?;
        let element = self.push(Kind::Element, local.as_ref())?;
        for (at, attribute) in start.attributes().enumerate() {
            // Each is compared with those before it.
            if at >= ATTRIBUTES_MAX {
                let what = format!("an XML element with more than {ATTRIBUTES_MAX} attributes");
                return Err(DocumentError::NotCovered(what));
            }
            let attribute = attribute.map_err(|error| broken(format!("attribute: {error}")))?;
            if attribute.value.contains('<') {
                return Err(broken("`<` in the value of an attribute"));
            }
            if attribute.key.as_namespace_binding().is_some() {
                continue;
            }
            let value = attribute
                .normalized_value(XmlVersion::Implicit1_0)
                .map_err(|error| broken(format!("attribute: {error}")))?;
            if !value.chars().all(is_xml_character) {
                return Err(broken("a reference to a character that XML does not allow"));
            }
            let (namespace, local) = reader.resolver().resolve_attribute(attribute.key);
            declared(&namespace)?;
            self.attribute(element, local.as_ref(), &value)?;
        }
        self.open.push(element);
        Ok(())
    }

    /// An attribute; of two that differ only in the namespace, the last is there.
    fn attribute(&mut self, element: usize, name: &str, value: &str) -> Result<(), DocumentError> {
        let from = self.document.attributes.len();
        self.document.attributes.push_str(value);
        let to = self.document.attributes.len();
        let mut attributes = self.document.nodes.iter_mut().skip(element.saturating_add(1));
        if let Some(known) = attributes.find(|node| &*node.name == name) {
            (known.from, known.to) = (from, to);
            return Ok(());
        }
        let attribute = self.push(Kind::Attribute, name)?;
        if let Some(node) = self.document.nodes.get_mut(attribute) {
            (node.parent, node.from, node.to) = (element, from, to);
        }
        Ok(())
    }

    fn text(&mut self, text: &str) -> Result<(), DocumentError> {
        if text.is_empty() {
            return Ok(());
        }
        let parent = self.open.last().copied().unwrap_or(0);
        if self.open.len() < 2 {
            let is_blank = text.chars().all(|character| SPACE.contains(&character));
            return if is_blank { Ok(()) } else { Err(broken("text outside the root element")) };
        }
        let is_more = self.document.nodes.last().is_some_and(|node| node.kind == Kind::Text && node.parent == parent);
        if !is_more {
            self.push(Kind::Text, "")?;
        }
        self.document.text.push_str(text);
        let to = self.document.text.len();
        if let Some(node) = self.document.nodes.last_mut() {
            node.to = to;
        }
        Ok(())
    }

    /// One more node below the innermost open element.
    fn push(&mut self, kind: Kind, name: &str) -> Result<usize, DocumentError> {
        let at = self.document.nodes.len();
        if at >= NODES_MAX {
            return Err(DocumentError::NotCovered(format!("an XML document of more than {NODES_MAX} nodes")));
        }
        if kind != Kind::Text && !is_name(name) {
            return Err(broken("a name that is none"));
        }
        let known = self.names.get(name).cloned();
        let name = known.unwrap_or_else(|| Rc::from(name));
        self.names.insert(Rc::clone(&name));
        let parent = self.open.last().copied().unwrap_or(0);
        let from = self.document.text.len();
        self.document.nodes.push(Node { kind, name, parent, end: at.saturating_add(1), from, to: from });
        Ok(at)
    }

    /// Ends the innermost open element.
    fn close(&mut self) {
        let (end, to) = (self.document.nodes.len(), self.document.text.len());
        if let Some(node) = self.open.pop().and_then(|at| self.document.nodes.get_mut(at)) {
            (node.end, node.to) = (end, to);
        }
    }
}

/// A prefix that nothing declares makes the document unusable, as in `oscap`.
fn declared(namespace: &ResolveResult<'_>) -> Result<(), DocumentError> {
    match namespace {
        ResolveResult::Unknown(prefix) => {
            let prefix = proto::limits::shown(prefix);
            Err(broken(format!("the namespace prefix `{prefix}` is not declared")))
        }
        ResolveResult::Bound(_) | ResolveResult::Unbound => Ok(()),
    }
}
