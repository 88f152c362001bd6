//! A read-only tree of the documents of a YAML file.
//!
//! An alias is the node that it stands for, so that nothing is copied; what it would come to if it were is counted all the same.

use std::borrow::Cow;
use std::collections::HashMap;

use saphyr_parser::{Event, Parser, ScalarStyle, Tag};

use super::limits::{DEPTH_MAX, NODES_MAX, STREAM_BYTES_MAX};
use super::scalar::Scalar;

/// What a node is.
#[derive(Debug)]
pub(super) enum Node {
    Scalar(Scalar),
    Sequence(Vec<usize>),
    /// Keys and values, in the order of the file; a key may stand twice.
    Map(Vec<(usize, usize)>),
}

/// The documents of a file.
#[derive(Debug, Default)]
pub(in crate::probe) struct Stream {
    nodes: Vec<Node>,
    /// Of each node: how many nodes it is with all that is below it, and how many are inside each other.
    extents: Vec<Extent>,
    roots: Vec<usize>,
    /// How many nodes all documents have together.
    total: usize,
}

#[derive(Debug, Clone, Copy)]
struct Extent {
    nodes: usize,
    depth: usize,
}

/// A sequence or a map that has begun.
struct Open {
    is_map: bool,
    anchor: usize,
    children: Vec<usize>,
}

impl Stream {
    /// The documents of these bytes: UTF-8, or UTF-16 with a byte order mark. Why there are none, in words.
    pub(in crate::probe) fn parse(bytes: &[u8]) -> Result<Self, String> {
        if bytes.len() > STREAM_BYTES_MAX {
            return Err(format!("YAML of more than {} MiB", STREAM_BYTES_MAX / 1024 / 1024));
        }
        let text = decoded(bytes)?;
        if let Some(wrong) = text.chars().find(|character| !is_printable(*character)) {
            return Err(format!("not readable as YAML: the control character U+{:04X}", u32::from(wrong)));
        }
        let mut stream = Self::default();
        let mut open: Vec<Open> = Vec::new();
        let mut anchors: HashMap<usize, usize> = HashMap::new();
        for event in Parser::new_from_str(&text) {
            let (event, span) = event
                .map_err(|error| format!("not readable as YAML: {} (line {})", error.info(), error.marker().line()))?;
            let (node, anchor) = match event {
                Event::Nothing
                | Event::StreamStart
                | Event::StreamEnd
                | Event::DocumentStart(_)
                | Event::DocumentEnd => {
                    continue;
                }
                Event::SequenceStart(anchor, _) | Event::MappingStart(anchor, _) => {
                    if open.len() >= DEPTH_MAX {
                        return Err(too_deep());
                    }
                    open.push(Open { is_map: matches!(event, Event::MappingStart(..)), anchor, children: Vec::new() });
                    continue;
                }
                Event::Scalar(value, style, anchor, tag) => {
                    (stream.add(Node::Scalar(scalar(&value, style, tag.as_deref())))?, anchor)
                }
                Event::SequenceEnd | Event::MappingEnd => {
                    let Some(ended) = open.pop() else { continue };
                    let node = if ended.is_map {
                        Node::Map(ended.children.chunks_exact(2).map(|pair| (pair[0], pair[1])).collect())
                    } else {
                        Node::Sequence(ended.children)
                    };
                    (stream.add(node)?, ended.anchor)
                }
                Event::Alias(of) => {
                    let line = span.start.line();
                    let known = anchors.get(&of).copied();
                    (known.ok_or_else(|| format!("the alias in line {line} stands in what it stands for"))?, 0)
                }
            };
            if anchor > 0 {
                anchors.insert(anchor, node);
            }
            if let Some(parent) = open.last_mut() {
                parent.children.push(node);
            } else {
                stream.total = stream.total.saturating_add(stream.extents[node].nodes);
                stream.roots.push(node);
            }
            // Aliases make no node of their own: what is there to be added is bounded as well.
            if stream.total > NODES_MAX || open.last().is_some_and(|parent| parent.children.len() > NODES_MAX) {
                return Err(too_many());
            }
        }
        Ok(stream)
    }

    fn add(&mut self, node: Node) -> Result<usize, String> {
        let below: &mut dyn Iterator<Item = usize> = match &node {
            Node::Scalar(_) => &mut std::iter::empty(),
            Node::Sequence(items) => &mut items.iter().copied(),
            Node::Map(pairs) => &mut pairs.iter().flat_map(|(key, value)| [*key, *value]),
        };
        let mut extent = Extent { nodes: 1, depth: 0 };
        for child in below {
            extent.nodes = extent.nodes.saturating_add(self.extents[child].nodes);
            extent.depth = extent.depth.max(self.extents[child].depth + 1);
        }
        if extent.depth > DEPTH_MAX {
            return Err(too_deep());
        }
        if extent.nodes > NODES_MAX || self.nodes.len() >= NODES_MAX {
            return Err(too_many());
        }
        self.nodes.push(node);
        self.extents.push(extent);
        Ok(self.nodes.len() - 1)
    }

    /// The roots of the documents, in order.
    pub(super) fn roots(&self) -> &[usize] {
        &self.roots
    }

    /// A node.
    pub(super) fn node(&self, at: usize) -> &Node {
        &self.nodes[at]
    }

    /// The scalar that a node is.
    pub(super) fn scalar(&self, at: usize) -> Option<&Scalar> {
        match self.node(at) {
            Node::Scalar(scalar) => Some(scalar),
            Node::Sequence(_) | Node::Map(_) => None,
        }
    }
}

fn too_deep() -> String {
    format!("YAML with more than {DEPTH_MAX} sequences and maps inside each other")
}

fn too_many() -> String {
    format!("YAML that comes to more than {NODES_MAX} values with its aliases")
}

/// A text as a C library has it: it ends at a NUL character, which only an escape can bring.
fn scalar(value: &str, style: ScalarStyle, tag: Option<&Tag>) -> Scalar {
    let end = value.find('\0').unwrap_or(value.len());
    Scalar {
        text: value[..end].to_owned(),
        is_plain: style == ScalarStyle::Plain,
        tag: tag.map(|tag| format!("{}{}", tag.handle, tag.suffix)),
    }
}

/// The text of a file, without its byte order mark.
fn decoded(bytes: &[u8]) -> Result<Cow<'_, str>, String> {
    let wide = |rest: &[u8], of: fn([u8; 2]) -> u16| {
        let (pairs, odd) = rest.as_chunks::<2>();
        let text: Result<String, _> = char::decode_utf16(pairs.iter().map(|pair| of(*pair))).collect();
        text.ok().filter(|_| odd.is_empty()).map(Cow::Owned).ok_or_else(|| "the content is not UTF-16".to_owned())
    };
    match bytes {
        [0xff, 0xfe, rest @ ..] => wide(rest, u16::from_le_bytes),
        [0xfe, 0xff, rest @ ..] => wide(rest, u16::from_be_bytes),
        [0xef, 0xbb, 0xbf, rest @ ..] | rest => {
            std::str::from_utf8(rest).map(Cow::Borrowed).map_err(|_| "the content is not UTF-8".to_owned())
        }
    }
}

/// `c-printable` of YAML 1.2.
fn is_printable(character: char) -> bool {
    matches!(character, '\t' | '\n' | '\r' | ' '..='~' | '\u{85}' | '\u{a0}'..='\u{fffd}' | '\u{10000}'..)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fmt::Write as _;

    #[track_caller]
    fn fails(bytes: &[u8], with: &str) {
        let reason = Stream::parse(bytes).unwrap_err();
        assert!(reason.contains(with), "{reason}");
    }

    #[test]
    fn what_is_no_yaml_says_where() {
        fails(b"a: 1\nb: [1,\n", "not readable as YAML: ");
        fails(b"a: 1\nb: c: d\n", "(line 2)");
        fails(b"a:\n\tb: 1\n", "line 2");
        fails(b"a: *x\n", "anchor");
        fails(b"a: \"\\q\"\n", "escape");
        fails(b"a: !u!x 1\n", "(line 1)");
    }

    #[test]
    fn encodings_are_those_of_yaml() {
        for text in ["a: \u{e4}\n", "\u{feff}a: \u{e4}\n"] {
            let stream = Stream::parse(text.as_bytes()).unwrap();
            let Node::Map(pairs) = stream.node(stream.roots()[0]) else { panic!("{text:?}") };
            assert_eq!(stream.scalar(pairs[0].1).unwrap().text, "\u{e4}");
        }
        let wide: Vec<u8> = "\u{feff}a: \u{1f600}\n".encode_utf16().flat_map(u16::to_le_bytes).collect();
        assert_eq!(Stream::parse(&wide).unwrap().roots().len(), 1);
        let wide: Vec<u8> = "\u{feff}a: \u{1f600}\n".encode_utf16().flat_map(u16::to_be_bytes).collect();
        assert_eq!(Stream::parse(&wide).unwrap().roots().len(), 1);
        fails(b"a: \xff\n", "not UTF-8");
        fails(b"\xff\xfea\0\n", "not UTF-16");
        fails(b"\xff\xfe\x00\xd8a\0", "not UTF-16");
        fails(b"a: 1\0", "U+0000");
        fails(b"a: \x1b[0m\n", "U+001B");
    }

    #[test]
    fn what_there_is_ends_somewhere() {
        // The parser has a limit of its own on brackets that it has to look beyond.
        fails("[".repeat(10_000).as_bytes(), "recursion limit exceeded");
        fails(format!("a: {}{}\nb: 1\n", "[".repeat(100), "]".repeat(100)).as_bytes(), "inside each other");
        fails("- ".repeat(10_000).as_bytes(), "inside each other");
        fails("? ".repeat(10_000).as_bytes(), "inside each other");
        fails("{a: ".repeat(10_000).as_bytes(), "recursion limit exceeded");
        fails("- 1\n".repeat(NODES_MAX + 1).as_bytes(), "more than 100000 values");
        fails("---\n".repeat(NODES_MAX + 1).as_bytes(), "more than 100000 values");
        fails(&vec![b' '; STREAM_BYTES_MAX + 1], "more than 16 MiB");
        let deepest = format!("{}{}", "[".repeat(DEPTH_MAX), "]".repeat(DEPTH_MAX));
        assert!(Stream::parse(deepest.as_bytes()).is_ok());
    }

    #[test]
    fn an_alias_counts_as_all_that_it_stands_for() {
        let mut laughs = "a0: &a0 [lol, lol, lol, lol, lol, lol, lol, lol, lol, lol]\n".to_owned();
        for step in 1..10 {
            let of = format!("*a{}, ", step - 1).repeat(10);
            writeln!(laughs, "a{step}: &a{step} [{of}]").unwrap();
        }
        fails(laughs.as_bytes(), "more than 100000 values");
        let wide = format!("a: &a [{}]\nb: [{}]\n", "x, ".repeat(1_000), "*a, ".repeat(1_000));
        fails(wide.as_bytes(), "more than 100000 values");
        let documents = format!("--- &a [{}]\n", "x, ".repeat(1_000)).repeat(101);
        fails(documents.as_bytes(), "more than 100000 values");
        let many = format!("a: &a x\nb: [{}]\n", "*a, ".repeat(NODES_MAX + 1));
        fails(many.as_bytes(), "more than 100000 values");
        let mut deep = "a0: &a0 [x]\n".to_owned();
        for step in 1..=DEPTH_MAX {
            writeln!(deep, "a{step}: &a{step} [*a{}]", step - 1).unwrap();
        }
        fails(deep.as_bytes(), "inside each other");
        fails(b"a: &a [1, *a]\n", "line 1 stands in what it stands for");
        let twice = Stream::parse(b"- &a x\n- &a y\n- *a\n").unwrap();
        let Node::Sequence(items) = twice.node(twice.roots()[0]) else { panic!("{twice:?}") };
        assert_eq!(twice.scalar(items[2]).unwrap().text, "y");
    }
}
