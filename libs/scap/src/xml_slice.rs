//! Cuts an element out of a document as text that stands by itself: namespaces that were declared further
//! up are declared on it.

use std::collections::BTreeMap;

use quick_xml::Reader;
use quick_xml::events::{BytesStart, Event};

use crate::xml::XmlError;

/// Namespace declarations by attribute name, `xmlns` or `xmlns:prefix`.
type Declarations = BTreeMap<String, String>;

fn broken(what: impl std::fmt::Display) -> XmlError {
    XmlError { line: 0, what: what.to_string() }
}

fn attributes(start: &BytesStart<'_>) -> Vec<(String, String)> {
    start
        .attributes()
        .filter_map(Result::ok)
        .map(|attribute| (attribute.key.as_ref().to_owned(), attribute.value.into_owned()))
        .collect()
}

/// The root element, or with `component` the element inside the `component` of that id.
pub fn element(bytes: &[u8], component: Option<&str>) -> Result<Option<String>, XmlError> {
    let text = std::str::from_utf8(bytes).map_err(broken)?;
    // The parser passes over a byte order mark without counting it.
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut reader = Reader::from_str(text);
    let mut open: Vec<Declarations> = Vec::new();
    // Where the wanted element begins, its depth, and what it needs.
    let mut found: Option<(usize, usize, String)> = None;
    let mut is_inside = component.is_none();
    loop {
        let before = position(&reader);
        match reader.read_event().map_err(broken)? {
            Event::Start(start) => {
                let declared = declarations(&start);
                if found.is_none() && is_inside {
                    found = Some((before, open.len(), missing(&open, &declared)));
                }
                is_inside = is_inside || is_component(&start, component);
                open.push(declared);
            }
            Event::Empty(start) if found.is_none() && is_inside => {
                let needs = missing(&open, &declarations(&start));
                return Ok(Some(cut(&text[before..position(&reader)], &needs)));
            }
            Event::End(_) => {
                open.pop();
                if let Some((from, depth, needs)) = &found
                    && open.len() == *depth
                {
                    return Ok(Some(cut(&text[*from..position(&reader)], needs)));
                }
            }
            Event::Eof => return Ok(None),
            _ => {}
        }
    }
}

fn position(reader: &Reader<&[u8]>) -> usize {
    usize::try_from(reader.buffer_position()).unwrap_or(usize::MAX)
}

fn is_component(start: &BytesStart<'_>, wanted: Option<&str>) -> bool {
    let Some(wanted) = wanted else { return false };
    start.local_name().as_ref() == "component"
        && attributes(start).iter().any(|(name, value)| name == "id" && value == wanted)
}

fn declarations(start: &BytesStart<'_>) -> Declarations {
    attributes(start).into_iter().filter(|(name, _)| name == "xmlns" || name.starts_with("xmlns:")).collect()
}

fn missing(open: &[Declarations], own: &Declarations) -> String {
    let mut inherited = Declarations::new();
    for declared in open {
        inherited.extend(declared.clone());
    }
    inherited.retain(|name, _| !own.contains_key(name));
    inherited
        .into_iter()
        .fold(String::new(), |text, (name, value)| text + " " + &name + "=\"" + &value.replace('"', "&quot;") + "\"")
}

/// The element's text with declarations put behind its name.
fn cut(text: &str, needs: &str) -> String {
    let end = text.find(|character: char| character.is_whitespace() || character == '>' || character == '/');
    let end = end.unwrap_or(text.len());
    format!("{}{needs}{}", &text[..end], &text[end..])
}

#[cfg(test)]
mod tests {
    use super::*;

    const STREAM: &str = "<?xml version='1.0'?><!-- x --><ds:c xmlns:ds='urn:ds' xmlns:p='urn:p'>\
        <ds:component id='one'><p:a xmlns='urn:own'><p:b/>1 &lt; 2</p:a></ds:component>\
        <ds:component id='two'><p:e x='/'/></ds:component></ds:c>";

    #[test]
    fn a_component_stands_by_itself() {
        let one = element(STREAM.as_bytes(), Some("one")).unwrap().unwrap();
        assert_eq!(one, "<p:a xmlns:ds=\"urn:ds\" xmlns:p=\"urn:p\" xmlns='urn:own'><p:b/>1 &lt; 2</p:a>");
        let two = element(STREAM.as_bytes(), Some("two")).unwrap().unwrap();
        assert_eq!(two, "<p:e xmlns:ds=\"urn:ds\" xmlns:p=\"urn:p\" x='/'/>");
        assert_eq!(element(STREAM.as_bytes(), Some("three")), Ok(None));
        let marked = format!("\u{feff}{}", STREAM.replace("'urn:ds'", "'urn:\"é\"'"));
        let two = element(marked.as_bytes(), Some("two")).unwrap().unwrap();
        assert_eq!(two, "<p:e xmlns:ds=\"urn:&quot;é&quot;\" xmlns:p=\"urn:p\" x='/'/>");
        assert!(element(STREAM.as_bytes(), None).unwrap().unwrap().starts_with("<ds:c xmlns:ds"));
    }
}
