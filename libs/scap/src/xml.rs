//! The only XML parser: elements pulled one at a time, subtrees where a reader wants one whole.
//!
//! Hardened: a document type, an undefined entity, an unclosed element, text or depth or attributes
//! over the limits are errors with a line number. Nothing is ever fetched.

use quick_xml::events::Event;
use quick_xml::name::ResolveResult;
use quick_xml::{NsReader, XmlVersion};

use crate::limits;

/// What is wrong, and where.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {what}")]
pub struct XmlError {
    /// Line, from 1.
    pub line: u64,
    /// What is wrong.
    pub what: String,
}

/// An element with all that is in it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Node {
    /// Its namespace.
    pub namespace: String,
    /// Its local name.
    pub name: String,
    /// Its attributes by local name, with the namespace where it has one.
    pub attributes: Vec<(String, String)>,
    /// What is in it, in order.
    pub children: Vec<Child>,
    /// Where it begins.
    pub line: u64,
}

/// What is in an element.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Child {
    /// Text.
    Text(String),
    /// An element.
    Element(Node),
}

impl Node {
    /// An attribute by local name.
    pub fn attribute(&self, name: &str) -> Option<&str> {
        self.attributes.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// The elements in it.
    pub fn elements(&self) -> impl Iterator<Item = &Self> + Clone {
        self.children.iter().filter_map(|child| match child {
            Child::Element(element) => Some(element),
            Child::Text(_) => None,
        })
    }

    /// The first element of that name.
    pub fn element(&self, name: &str) -> Option<&Self> {
        self.elements().find(|element| element.name == name)
    }

    /// All text in it, elements included.
    pub fn text(&self) -> String {
        let mut text = String::new();
        self.append_text(&mut text);
        text
    }

    fn append_text(&self, text: &mut String) {
        for child in &self.children {
            match child {
                Child::Text(part) => text.push_str(part),
                Child::Element(element) => element.append_text(text),
            }
        }
    }
}

/// What comes next inside an element.
#[derive(Debug)]
pub enum Step {
    /// A child begins; its attributes are there, its children are not.
    Start(Node),
    /// The element ends.
    End,
}

/// Pulls elements from a document.
#[derive(Debug)]
pub struct Parser<'bytes> {
    reader: NsReader<&'bytes [u8]>,
    bytes: &'bytes [u8],
    depth: usize,
    elements: u64,
    counted: (usize, u64),
}

const XSI: &str = "http://www.w3.org/2001/XMLSchema-instance";

impl<'bytes> Parser<'bytes> {
    /// A parser at the beginning of a document.
    pub fn new(bytes: &'bytes [u8]) -> Self {
        let mut reader = NsReader::from_reader(bytes);
        reader.config_mut().expand_empty_elements = true;
        Self { reader, bytes, depth: 0, elements: 0, counted: (0, 1) }
    }

    /// The line that has been reached.
    pub fn line(&mut self) -> u64 {
        let at = usize::try_from(self.reader.buffer_position()).unwrap_or(usize::MAX).min(self.bytes.len());
        let (from, line) = self.counted;
        if at > from {
            #[expect(clippy::naive_bytecount, reason = "each byte of a document is counted once; no crate is worth it")]
            let newlines = self.bytes[from..at].iter().filter(|byte| **byte == b'\n').count();
            self.counted = (at, line + newlines as u64);
        }
        self.counted.1
    }

    /// An error at the line that has been reached.
    pub fn error(&mut self, what: impl Into<String>) -> XmlError {
        XmlError { line: self.line(), what: what.into() }
    }

    /// The root element.
    pub fn root(&mut self) -> Result<Node, XmlError> {
        match self.step(&mut String::new())? {
            Some(Step::Start(root)) => Ok(root),
            _ => Err(self.error("there is no XML element: this is not an XML document")),
        }
    }

    /// The next element of that name, whatever is around it; none where the document ends. The children of what was
    /// found have to be read, or left out, before the next.
    pub fn find(&mut self, name: &str) -> Result<Option<Node>, XmlError> {
        while let Some(step) = self.step(&mut String::new())? {
            match step {
                Step::Start(start) if start.name == name => return Ok(Some(start)),
                Step::Start(_) | Step::End => {}
            }
        }
        Ok(None)
    }

    /// The next child of the element that is open, its text skipped.
    pub fn step_in(&mut self) -> Result<Step, XmlError> {
        match self.step(&mut String::new())? {
            Some(step) => Ok(step),
            None => Err(self.error("the document ends inside an element: it is cut off")),
        }
    }

    /// All that is in the element that `start` opened.
    pub fn subtree(&mut self, mut start: Node) -> Result<Node, XmlError> {
        loop {
            let mut text = String::new();
            let step = self.step(&mut text)?;
            if !text.is_empty() {
                start.children.push(Child::Text(text));
            }
            match step {
                Some(Step::Start(child)) => {
                    let child = self.subtree(child)?;
                    start.children.push(Child::Element(child));
                }
                Some(Step::End) => return Ok(start),
                None => return Err(self.error("the document ends inside an element: it is cut off")),
            }
        }
    }

    /// Leaves out all that is in the element just opened.
    pub fn skip(&mut self) -> Result<(), XmlError> {
        let outside = self.depth - 1;
        while self.depth > outside {
            self.step_in()?;
        }
        Ok(())
    }

    fn step(&mut self, text: &mut String) -> Result<Option<Step>, XmlError> {
        loop {
            let event = match self.reader.read_event() {
                Ok(event) => event,
                Err(error) => {
                    let what = format!("not well-formed XML: {error}");
                    return Err(self.error(what));
                }
            };
            match event {
                Event::Start(start) => {
                    self.depth += 1;
                    self.elements += 1;
                    if self.depth > limits::XML_DEPTH_MAX {
                        return Err(self.error(format!("elements are nested deeper than {}", limits::XML_DEPTH_MAX)));
                    }
                    if self.elements > limits::XML_ELEMENTS_MAX {
                        return Err(self.error(format!("more than {} elements", limits::XML_ELEMENTS_MAX)));
                    }
                    let line = self.line();
                    let (namespace, local) = self.reader.resolver().resolve_element(start.name());
                    let namespace = match namespace {
                        ResolveResult::Bound(namespace) => namespace.0.to_owned(),
                        ResolveResult::Unbound => String::new(),
                        ResolveResult::Unknown(prefix) => {
                            let what =
                                format!("the namespace prefix `{}` is not declared", proto::limits::shown(&prefix));
                            return Err(XmlError { line, what });
                        }
                    };
                    let mut node = Node { namespace, name: local.as_ref().to_owned(), line, ..Node::default() };
                    for attribute in start.attributes() {
                        let broken = |what: String| XmlError { line, what: format!("attribute: {what}") };
                        let attribute = attribute.map_err(|error| broken(error.to_string()))?;
                        if attribute.key.as_namespace_binding().is_some() {
                            continue;
                        }
                        if node.attributes.len() >= limits::XML_ATTRIBUTES_MAX {
                            return Err(broken(format!("more than {} on one element", limits::XML_ATTRIBUTES_MAX)));
                        }
                        let value = attribute
                            .normalized_value(XmlVersion::Implicit1_0)
                            .map_err(|error| broken(error.to_string()))?;
                        let (namespace, local) = self.reader.resolver().resolve_attribute(attribute.key);
                        let name = match namespace {
                            ResolveResult::Bound(namespace) if namespace.0 == XSI => format!("xsi:{}", local.as_ref()),
                            _ => local.as_ref().to_owned(),
                        };
                        node.attributes.push((name, value.into_owned()));
                    }
                    return Ok(Some(Step::Start(node)));
                }
                Event::End(_) => {
                    self.depth -= 1;
                    return Ok(Some(Step::End));
                }
                Event::Text(part) => text.push_str(&part.xml10_content()),
                Event::CData(part) => text.push_str(&part.xml10_content()),
                Event::GeneralRef(reference) => {
                    let resolved = match reference.resolve_char_ref() {
                        Ok(Some(character)) => Some(character.to_string()),
                        Ok(None) => quick_xml::escape::resolve_xml_entity(&reference).map(str::to_owned),
                        Err(_) => None,
                    };
                    let Some(resolved) = resolved else {
                        let name = proto::limits::shown(&reference);
                        return Err(
                            self.error(format!("the entity `&{name};` is not defined: only XML's own five are"))
                        );
                    };
                    text.push_str(&resolved);
                }
                Event::DocType(_) => {
                    return Err(self.error("a document type (DTD) is refused: SCAP content has none"));
                }
                Event::Eof if self.depth > 0 => {
                    return Err(self.error("the document ends inside an element: it is cut off"));
                }
                Event::Eof => return Ok(None),
                Event::Comment(_) | Event::PI(_) | Event::Decl(_) | Event::Empty(_) => {}
            }
            if text.len() > limits::XML_TEXT_BYTES_MAX {
                return Err(self.error(format!("text longer than {} bytes", limits::XML_TEXT_BYTES_MAX)));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Node, XmlError> {
        let mut parser = Parser::new(text.as_bytes());
        let root = parser.root()?;
        parser.subtree(root)
    }

    #[test]
    fn text_is_whole_whatever_it_is_made_of() {
        let node = parse("<a>x &lt; <![CDATA[y & z]]>&#33;<b>in</b> out</a>").unwrap();
        assert_eq!(node.text(), "x < y & z!in out");
    }

    #[test]
    fn a_document_type_and_its_entities_are_refused_with_the_line() {
        let laughs = "<?xml version=\"1.0\"?>\n<!DOCTYPE a [<!ENTITY b \"ha\"><!ENTITY c \"&b;&b;\">]>\n<a>&c;</a>";
        let error = parse(laughs).unwrap_err();
        assert_eq!(error.line, 2);
        assert!(error.what.contains("DTD"));
        assert!(parse("<a>&c;</a>").unwrap_err().what.contains("&c;"));
        assert!(parse("<!DOCTYPE a SYSTEM \"file:///etc/passwd\"><a/>").is_err());
    }

    #[test]
    fn limits_hold() {
        let deep = "<a>".repeat(limits::XML_DEPTH_MAX + 1);
        assert!(parse(&deep).unwrap_err().what.contains("deeper"));
        let wide: String = (0..=limits::XML_ATTRIBUTES_MAX).fold(String::new(), |all, at| all + &format!(" a{at}=''"));
        assert!(parse(&format!("<a{wide}/>")).is_err());
    }

    #[test]
    fn a_document_that_is_cut_off_is_an_error() {
        assert!(parse("<a><b>").unwrap_err().what.contains("cut off"));
        assert!(parse("").unwrap_err().what.contains("not an XML document"));
        assert!(parse("<a></b>").is_err());
        assert!(parse("plain text").is_err());
        let mut parser = Parser::new(b"\xff\xfe<\x00a\x00/\x00>\x00");
        assert!(parser.root().is_err());
    }

    #[test]
    fn an_element_is_found_wherever_it_is() {
        let mut parser = Parser::new(b"<a><b x='1'><b/></b><c><b x='2'/></c></a>");
        let mut found = Vec::new();
        while let Some(start) = parser.find("b").unwrap() {
            found.push(start.attribute("x").map(str::to_owned));
            parser.skip().unwrap();
        }
        assert_eq!(found, [Some("1".to_owned()), Some("2".to_owned())]);
        assert!(Parser::new(b"<a><b>").find("c").is_err());
    }

    #[test]
    fn namespaces_are_resolved_and_unknown_prefixes_refused() {
        let node = parse("<p:a xmlns:p='urn:x' xmlns:xsi='http://www.w3.org/2001/XMLSchema-instance' xsi:nil='true'/>")
            .unwrap();
        assert_eq!((node.namespace.as_str(), node.attribute("xsi:nil")), ("urn:x", Some("true")));
        assert!(parse("<q:a/>").is_err());
    }
}
