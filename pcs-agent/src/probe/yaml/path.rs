//! Paths into YAML, as `yaml-filter` 1.0 has them: `$` or nothing for the root, then keys (`.key`, `['key']`), several keys
//! (`['a','b']`, `.*`, `[*]`), indices (`[0]`), several indices (`[0,2]`, `[:]`).

use super::limits::{CHOICES_MAX, PATH_BYTES_MAX};
use super::tree::{Node, Stream};

/// A step down.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Step {
    Key(String),
    /// Some keys of a map, which stays a map; every key where none is named.
    Keys(Vec<String>),
    Index(usize),
    /// Some items of a sequence, which stays a sequence; every item where none is named.
    Indices(Vec<usize>),
}

/// A path.
#[derive(Debug)]
pub(in crate::probe) struct Path(Vec<Step>);

/// Why there is no path.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(in crate::probe) enum PathError {
    /// It is none.
    #[error("the YAML path is not one: {what} at byte {at}")]
    Syntax {
        /// What is wrong.
        what: &'static str,
        /// Where, from 1.
        at: usize,
    },
    /// It is one that this version does not follow.
    #[error("{0}")]
    NotCovered(&'static str),
}

/// Where a path leads to: a node with all that is below it, or a part of a sequence or a map.
#[derive(Debug)]
pub(super) enum Selected {
    Node(usize),
    Sequence(Vec<Selected>),
    /// Of each key what is selected of its value.
    Map(Vec<(usize, Vec<Selected>)>),
}

impl Path {
    /// Reads a path.
    pub(in crate::probe) fn new(text: &str) -> Result<Self, PathError> {
        Reader { text, at: 0 }.path().map(Self)
    }

    /// What the path leads to, in every document, in order.
    pub(super) fn select(&self, stream: &Stream) -> Vec<Selected> {
        let mut found = Vec::new();
        for root in stream.roots() {
            select(stream, *root, &self.0, &mut found);
        }
        found
    }
}

/// A tree's depth and size are bounded, and so is this: no node is looked at twice for the same place in the path.
fn select(stream: &Stream, at: usize, steps: &[Step], into: &mut Vec<Selected>) {
    let Some((step, rest)) = steps.split_first() else {
        into.push(Selected::Node(at));
        return;
    };
    let key_of = |key: usize| stream.scalar(key).map(|scalar| scalar.text.as_str());
    match (step, stream.node(at)) {
        (Step::Key(wanted), Node::Map(pairs)) => {
            for (_, value) in pairs.iter().filter(|(key, _)| key_of(*key) == Some(wanted)) {
                select(stream, *value, rest, into);
            }
        }
        (Step::Keys(wanted), Node::Map(pairs)) => {
            let is_wanted = |key: usize| {
                wanted.is_empty() || key_of(key).is_some_and(|key| wanted.iter().any(|wanted| wanted == key))
            };
            let kept = pairs.iter().filter(|(key, _)| is_wanted(*key)).map(|(key, value)| {
                let mut below = Vec::new();
                select(stream, *value, rest, &mut below);
                (*key, below)
            });
            into.push(Selected::Map(kept.collect()));
        }
        (Step::Index(wanted), Node::Sequence(items)) => {
            if let Some(item) = items.get(*wanted) {
                select(stream, *item, rest, into);
            }
        }
        (Step::Indices(wanted), Node::Sequence(items)) => {
            let mut below = Vec::new();
            for (index, item) in items.iter().enumerate() {
                if wanted.is_empty() || wanted.contains(&index) {
                    select(stream, *item, rest, &mut below);
                }
            }
            into.push(Selected::Sequence(below));
        }
        _ => {}
    }
}

struct Reader<'path> {
    text: &'path str,
    at: usize,
}

impl<'path> Reader<'path> {
    fn rest(&self) -> &'path str {
        &self.text[self.at..]
    }

    fn wrong<T>(&self, what: &'static str) -> Result<T, PathError> {
        Err(PathError::Syntax { what, at: self.at + 1 })
    }

    fn takes(&mut self, wanted: &str) -> bool {
        let is_there = self.rest().starts_with(wanted);
        self.at += if is_there { wanted.len() } else { 0 };
        is_there
    }

    fn path(mut self) -> Result<Vec<Step>, PathError> {
        if self.text.is_empty() {
            return self.wrong("it is empty");
        }
        if self.text.len() > PATH_BYTES_MAX {
            return Err(PathError::NotCovered("a YAML path of more than 8 KiB"));
        }
        let mut steps = Vec::new();
        match self.text.as_bytes()[0] {
            b'$' => self.at = 1,
            b'&' if self.name_ends_at(1) > 1 => {
                return Err(PathError::NotCovered("a YAML path that begins at an anchor"));
            }
            b'&' => return self.wrong("an anchor without a name"),
            b'.' | b'[' => {}
            _ => steps.push(Step::Key(self.name().to_owned())),
        }
        while self.at < self.text.len() {
            if self.takes(".") {
                steps.push(match self.name() {
                    "" => return self.wrong("a key is missing"),
                    "*" => Step::Keys(Vec::new()),
                    // `yaml-filter` takes it for a star.
                    name if name.starts_with('*') => {
                        return Err(PathError::NotCovered("a YAML path with something behind a star"));
                    }
                    name => Step::Key(name.to_owned()),
                });
            } else if self.takes("[") {
                steps.push(self.bracket()?);
            } else if self.rest().starts_with('$') {
                return self.wrong("the root stands at the beginning only");
            } else if self.rest().starts_with('&') {
                return self.wrong("an anchor stands at the beginning only");
            } else {
                // `yaml-filter` passes over it.
                return Err(PathError::NotCovered("a YAML path with something between two of its parts"));
            }
        }
        Ok(steps)
    }

    fn name_ends_at(&self, from: usize) -> usize {
        self.text[from..].find(['.', '[']).map_or(self.text.len(), |end| from + end)
    }

    /// A key without quotes: to the next point or bracket.
    fn name(&mut self) -> &'path str {
        let from = self.at;
        self.at = self.name_ends_at(from);
        &self.text[from..self.at]
    }

    /// What follows an opening bracket.
    fn bracket(&mut self) -> Result<Step, PathError> {
        if self.takes("*]") {
            return Ok(Step::Keys(Vec::new()));
        }
        if self.takes(":]") {
            return Ok(Step::Indices(Vec::new()));
        }
        if self.rest().starts_with(['\'', '"']) {
            let mut keys = self.several(Self::quoted)?;
            return Ok(if keys.len() == 1 { Step::Key(keys.remove(0)) } else { Step::Keys(keys) });
        }
        let mut indices = self.several(Self::index)?;
        Ok(if indices.len() == 1 { Step::Index(indices.remove(0)) } else { Step::Indices(indices) })
    }

    /// One or more, with commas between them, to the closing bracket.
    fn several<T>(&mut self, one: fn(&mut Self) -> Result<T, PathError>) -> Result<Vec<T>, PathError> {
        let mut all = Vec::new();
        loop {
            if all.len() == CHOICES_MAX {
                return self.wrong("more than 256 keys or indices");
            }
            all.push(one(self)?);
            if self.takes("]") {
                return Ok(all);
            }
            if !self.takes(",") {
                return self.wrong("a comma or a closing bracket is missing");
            }
        }
    }

    fn quoted(&mut self) -> Result<String, PathError> {
        let Some(quote @ ('\'' | '"')) = self.rest().chars().next() else { return self.wrong("a quote is missing") };
        let Some(length) = self.rest()[1..].find(quote) else { return self.wrong("a quote is not closed") };
        if length == 0 {
            return self.wrong("a key is missing");
        }
        let key = self.rest()[1..=length].to_owned();
        self.at += length + 2;
        Ok(key)
    }

    fn index(&mut self) -> Result<usize, PathError> {
        let blank = self.rest().len() - self.rest().trim_start_matches([' ', '\t']).len();
        self.at += blank;
        if self.rest().starts_with('-') {
            return self.wrong("an index is negative");
        }
        self.takes("+");
        let length = self.rest().bytes().take_while(u8::is_ascii_digit).count();
        let digits = &self.rest()[..length];
        if digits.is_empty() {
            return self.wrong("an index is missing");
        }
        self.at += length;
        // What does not fit is behind the end of every sequence.
        Ok(digits.parse().unwrap_or(usize::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn is(text: &str, expect: &[Step]) {
        assert_eq!(Path::new(text).unwrap().0, expect, "{text}");
    }

    #[track_caller]
    fn is_none(text: &str, with: &str) {
        let error = Path::new(text).unwrap_err();
        assert!(matches!(error, PathError::Syntax { .. }) && error.to_string().contains(with), "{text}: {error}");
    }

    fn key(name: &str) -> Step {
        Step::Key(name.to_owned())
    }

    fn keys(names: &[&str]) -> Step {
        Step::Keys(names.iter().map(|name| (*name).to_owned()).collect())
    }

    #[test]
    fn the_forms_of_a_path() {
        is("$", &[]);
        is("$.a.b", &[key("a"), key("b")]);
        is(".a", &[key("a")]);
        is("a.0", &[key("a"), key("0")]);
        is("!", &[key("!")]);
        is("*", &[key("*")]);
        is("el.k'&'ey$ x", &[key("el"), key("k'&'ey$ x")]);
        is("el['key'].b", &[key("el"), key("key"), key("b")]);
        is("['a.b[]c']", &[key("a.b[]c")]);
        is("[\"bar's\"]", &[key("bar's")]);
        is("['a',\"b's\"]", &[keys(&["a", "b's"])]);
        is(".a.*", &[key("a"), keys(&[])]);
        is("[*]", &[keys(&[])]);
        is("['*']", &[key("*")]);
        is("$[0]", &[Step::Index(0)]);
        is("[ 1][+2]", &[Step::Index(1), Step::Index(2)]);
        is("[99999999999999999999999]", &[Step::Index(usize::MAX)]);
        is("[:]", &[Step::Indices(Vec::new())]);
        is("a[0, 2,20]", &[key("a"), Step::Indices(vec![0, 2, 20])]);
        is(".ä['ö']", &[key("ä"), key("ö")]);
    }

    #[test]
    fn what_is_no_path_says_why_and_where() {
        for text in ["", ".", "$.", "..a", "a[", "[", "[']", "['a", "['a'", "['a',", "['a',b]", "['a';'b']", "['']"] {
            is_none(text, "at byte");
        }
        is_none("a[-1]", "an index is negative at byte 3");
        for text in
            ["[0", "[0:1]", "[::]", "[:", "[*", "[ *]", "[0,]", "[,]", "[1 ]", "[x]", "[]", "a[0,-1]", "[1ä]", "[ä]"]
        {
            is_none(text, "at byte");
        }
        is_none("$$", "the root");
        is_none("$&a", "an anchor stands");
        is_none("&", "without a name");
        is_none(&format!("[{}0]", "0,".repeat(256)), "more than 256");
    }

    #[test]
    fn what_yaml_filter_passes_over_or_begins_elsewhere_is_not_covered() {
        for text in ["&anc", "&anc[0].x", "$a", "a[0]x", "['a']b.c", ".*x", &"a".repeat(PATH_BYTES_MAX + 1)] {
            assert!(matches!(Path::new(text), Err(PathError::NotCovered(_))), "{text}");
        }
    }
}
