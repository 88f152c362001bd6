//! Writes XML: elements nest, text is escaped, characters that XML does not have become `?`.

use std::fmt::Write as _;

/// A document that is being written.
#[derive(Debug)]
pub struct XmlOut {
    text: String,
    open: Vec<String>,
}

impl Default for XmlOut {
    fn default() -> Self {
        Self { text: "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n".to_owned(), open: Vec::new() }
    }
}

/// Whether XML 1.0 has this character (production 2, `Char`).
fn is_char(character: char) -> bool {
    matches!(character, '\t' | '\n' | '\r' | '\u{20}'..='\u{d7ff}' | '\u{e000}'..='\u{fffd}' | '\u{10000}'..)
}

fn escape(into: &mut String, text: &str, is_attribute: bool) {
    for character in text.chars() {
        match character {
            '&' => into.push_str("&amp;"),
            '<' => into.push_str("&lt;"),
            '>' => into.push_str("&gt;"),
            '"' if is_attribute => into.push_str("&quot;"),
            '\n' | '\t' if is_attribute => {
                let _ = write!(into, "&#{};", u32::from(character));
            }
            // A reader would make a newline of it.
            '\r' => into.push_str("&#13;"),
            other if is_char(other) => into.push(other),
            _ => into.push('?'),
        }
    }
}

impl XmlOut {
    fn indent(&mut self) {
        for _ in 0..self.open.len() {
            self.text.push_str("  ");
        }
    }

    fn tag(&mut self, name: &str, attributes: &[(&str, &str)]) {
        self.indent();
        self.text.push('<');
        self.text.push_str(name);
        for (attribute, value) in attributes {
            let _ = write!(self.text, " {attribute}=\"");
            escape(&mut self.text, value, true);
            self.text.push('"');
        }
    }

    /// Begins an element that has others in it.
    pub fn start(&mut self, name: &str, attributes: &[(&str, &str)]) {
        self.tag(name, attributes);
        self.text.push_str(">\n");
        self.open.push(name.to_owned());
    }

    /// Ends the element begun last.
    pub fn end(&mut self) {
        if let Some(name) = self.open.pop() {
            self.indent();
            let _ = writeln!(self.text, "</{name}>");
        }
    }

    /// An element with text, or with nothing in it.
    pub fn leaf(&mut self, name: &str, attributes: &[(&str, &str)], text: &str) {
        self.tag(name, attributes);
        if text.is_empty() {
            self.text.push_str("/>\n");
        } else {
            self.text.push('>');
            escape(&mut self.text, text, false);
            let _ = writeln!(self.text, "</{name}>");
        }
    }

    /// XML as it is.
    pub fn raw(&mut self, xml: &str) {
        self.text.push_str(xml);
        if !xml.ends_with('\n') {
            self.text.push('\n');
        }
    }

    /// The document.
    pub fn finish(mut self) -> String {
        while !self.open.is_empty() {
            self.end();
        }
        self.text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_reads_back() {
        let mut out = XmlOut::default();
        out.start("a", &[("b", "x \"y\" <z>\n")]);
        out.leaf("c", &[], "1 < 2 & 3 > 2\r\n\u{1}");
        out.leaf("d", &[], "");
        let text = out.finish();
        let mut parser = crate::xml::Parser::new(text.as_bytes());
        let root = parser.root().unwrap();
        let root = parser.subtree(root).unwrap();
        assert_eq!(root.attribute("b"), Some("x \"y\" <z>\n"));
        assert_eq!(root.element("c").unwrap().text(), "1 < 2 & 3 > 2\r\n?");
        assert_eq!(root.element("d").unwrap().text(), "");
    }
}
