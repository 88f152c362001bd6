//! The records of an item: what a path leads to, as far as records can say it.
//!
//! As in `oscap`: a map is a record, with a field for each value of a key; values of a sequence inside it are fields of one
//! name. A sequence of sequences is a record for each; values that stand alone, in whatever document, are one record
//! together. What is nested deeper has no records.

use proto::plan::Datatype;

use super::path::{Path, Selected};
use super::scalar::Scalar;
use super::tree::{Node, Stream};

/// The name of what has no key.
const NAMELESS: &str = "#";

/// A record: names, datatypes and values of its fields.
pub(in crate::probe) type Record = Vec<(String, Datatype, String)>;

/// The records of what a path leads to; why there are none, in words.
pub(in crate::probe) fn records(stream: &Stream, path: &Path) -> Result<Vec<Record>, String> {
    let mut found = Records { stream, done: Vec::new(), alone: Record::new() };
    for selected in path.select(stream) {
        match found.level(selected) {
            Level::Sequence(items) => items.into_iter().try_for_each(|item| found.item(item))?,
            other => found.level_of_item(other)?,
        }
    }
    found.end_alone();
    Ok(found.done)
}

/// One level of what is selected.
enum Level<'all> {
    Scalar(&'all Scalar),
    Sequence(Vec<Selected>),
    Map(Vec<(usize, Vec<Selected>)>),
}

struct Records<'all> {
    stream: &'all Stream,
    done: Vec<Record>,
    /// Values that stand alone.
    alone: Record,
}

impl<'all> Records<'all> {
    fn level(&self, selected: Selected) -> Level<'all> {
        match selected {
            Selected::Sequence(items) => Level::Sequence(items),
            Selected::Map(pairs) => Level::Map(pairs),
            Selected::Node(at) => match self.stream.node(at) {
                Node::Scalar(scalar) => Level::Scalar(scalar),
                Node::Sequence(items) => Level::Sequence(items.iter().copied().map(Selected::Node).collect()),
                Node::Map(pairs) => {
                    Level::Map(pairs.iter().map(|(key, value)| (*key, vec![Selected::Node(*value)])).collect())
                }
            },
        }
    }

    /// What stands by itself, or in the outermost sequence.
    fn item(&mut self, selected: Selected) -> Result<(), String> {
        let level = self.level(selected);
        self.level_of_item(level)
    }

    fn level_of_item(&mut self, level: Level<'all>) -> Result<(), String> {
        match level {
            Level::Scalar(scalar) => push(&mut self.alone, NAMELESS, scalar),
            Level::Sequence(items) => {
                self.end_alone();
                let mut record = Record::new();
                self.values(items, NAMELESS, &mut record)?;
                self.end(record);
                Ok(())
            }
            Level::Map(_) if !self.alone.is_empty() => {
                Err("it leads to a map behind values that stand alone".to_owned())
            }
            Level::Map(pairs) => {
                let mut record = Record::new();
                for (key, values) in pairs {
                    let key = self.stream.scalar(key).ok_or("it leads to a map with a key that is no scalar")?;
                    let name = field_name(&key.text);
                    for value in values {
                        match self.level(value) {
                            Level::Scalar(scalar) => push(&mut record, &name, scalar)?,
                            Level::Sequence(items) => self.values(items, &name, &mut record)?,
                            Level::Map(_) => return Err("it leads to a map in a map".to_owned()),
                        }
                    }
                }
                self.end(record);
                Ok(())
            }
        }
    }

    /// The values of an inner sequence.
    fn values(&self, items: Vec<Selected>, name: &str, record: &mut Record) -> Result<(), String> {
        for item in items {
            match self.level(item) {
                Level::Scalar(scalar) => push(record, name, scalar)?,
                Level::Sequence(_) => return Err("it leads to sequences that are nested too deep".to_owned()),
                Level::Map(_) => return Err("it leads to a map in an inner sequence".to_owned()),
            }
        }
        Ok(())
    }

    fn end_alone(&mut self) {
        let alone = std::mem::take(&mut self.alone);
        self.end(alone);
    }

    /// There are no empty records.
    fn end(&mut self, record: Record) {
        if !record.is_empty() {
            self.done.push(record);
        }
    }
}

fn push(record: &mut Record, name: &str, scalar: &Scalar) -> Result<(), String> {
    let (datatype, value) = scalar.value()?;
    record.push((name.to_owned(), datatype, value));
    Ok(())
}

/// A key as a field's name, which has no capital letters: each is its small letter behind a `^`, and so is `^` itself.
fn field_name(key: &str) -> String {
    let mut name = String::with_capacity(key.len());
    for character in key.chars() {
        if character.is_ascii_uppercase() || character == '^' {
            name.push('^');
        }
        name.push(character.to_ascii_lowercase());
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Records as `name=value` with commas between the fields.
    fn shown(text: &str, path: &str) -> Result<Vec<String>, String> {
        let records = records(&Stream::parse(text.as_bytes()).unwrap(), &Path::new(path).unwrap())?;
        let of_record = |record: &Record| {
            let fields: Vec<String> = record.iter().map(|(name, _, value)| format!("{name}={value}")).collect();
            fields.join(",")
        };
        Ok(records.iter().map(of_record).collect())
    }

    #[track_caller]
    fn is(text: &str, path: &str, expect: &[&str]) {
        assert_eq!(shown(text, path).unwrap(), expect, "{path} of {text}");
    }

    #[track_caller]
    fn fails(text: &str, path: &str, with: &str) {
        let reason = shown(text, path).unwrap_err();
        assert!(reason.contains(with), "{path} of {text}: {reason}");
    }

    const NESTED: &str = "{first: {Map: {1: '1'}, Nop: 0, Yep: '1', Arr: [[11, 12], 2, ['31', '32'], \
        [4, 5, 6, 7, 8, 9], {k: val, 0: 0}]}, \
        second: [{abc: &anc [1, 2], def: [11, 22], abcdef: 2, z: *anc, q: Q}, {abc: [3, 4], def: {z: '!'}, z: zzz}]}";

    #[test]
    fn a_path_leads_to_what_oscap_has() {
        is(NESTED, "$.first.Map", &["1=1"]);
        is(NESTED, ".first.Nop", &["#=0"]);
        is(NESTED, ".first.Arr[0]", &["#=11,#=12"]);
        is(NESTED, ".first.Arr[2][0]", &["#=31"]);
        is(NESTED, ".first.Arr[3][0,2]", &["#=4,#=6"]);
        is(NESTED, ".first.Arr[:][:]", &["#=11,#=12", "#=31,#=32", "#=4,#=5,#=6,#=7,#=8,#=9"]);
        is(NESTED, ".first.Arr[:][0,1]", &["#=11,#=12", "#=31,#=32", "#=4,#=5"]);
        is(NESTED, ".first.Arr[:][0]", &["#=11,#=31,#=4"]);
        is(NESTED, ".first.Arr[:].k", &["#=val"]);
        is(NESTED, ".first['Nop','Yep']", &["^nop=0,^yep=1"]);
        is(NESTED, ".second[0]['abc','def'][0]", &["abc=1,def=11"]);
        is(NESTED, ".second[:]['abc','def'][0]", &["abc=1,def=11", "abc=3"]);
        is(NESTED, ".second[:]['abc','q']", &["abc=1,abc=2,q=Q", "abc=3,abc=4"]);
        for path in [".second[2].abc", ".second[:]['none','x']", ".first.Nop.x", ".first[0]", ".second.x", "[:]"] {
            is(NESTED, path, &[]);
        }
        fails(NESTED, ".first", "a map in a map");
        fails(NESTED, "$", "a map in a map");
    }

    #[test]
    fn aliases_are_what_they_stand_for() {
        is(NESTED, ".second[0].z", &["#=1,#=2"]);
        is("a: &x 1\nb: *x\nc: [*x, 2]\n", "$", &["a=1,b=1,c=1,c=2"]);
        is("&k a: 1\n*k : 2\n", "$", &["a=1,a=2"]);
        is("<<: &m [1]\nb: *m\n", "$", &["<<=1,b=1"]);
    }

    #[test]
    fn keys_without_what_is_asked_for_are_left_out() {
        is(NESTED, ".second[:]['abc','def'].z", &["def=!"]);
    }

    #[test]
    fn maps_and_sequences_are_records_as_far_as_they_can_be() {
        is("[{a: 1}, {b: [x, y], c: []}]", "$", &["a=1", "b=x,b=y"]);
        is("[[1], [], [2]]", "$", &["#=1", "#=2"]);
        is("[1, [2, 3], 4]", "$", &["#=1", "#=2,#=3", "#=4"]);
        is("- [1, 2]\n- {a: 1}\n", "$", &["#=1,#=2", "a=1"]);
        is("[{a: 1}, 5, [6]]", "$", &["a=1", "#=5", "#=6"]);
        is("[{}, [], {a: 1}]", "$", &["a=1"]);
        fails("[5, {a: 1}]", "$", "behind values");
        fails("[[[1]]]", "$", "too deep");
        fails("[[1, {a: 2}]]", "$", "a map in an inner sequence");
        fails("{a: [[1]]}", "$", "too deep");
        fails("{a: {}}", "$", "a map in a map");
        fails("? [x]\n: 1\n", "$", "no scalar");
        fails("a: !!int x\nb: 1\n", ".a", "`x` is no");
        is("a: !!int x\nb: 1\n", ".b", &["#=1"]);
    }

    #[test]
    fn every_document_counts() {
        let documents = "a: 1\n---\na: 2\nb: 3\n...\n---\n- x\n---\nalone\n";
        is(documents, ".a", &["#=1,#=2"]);
        is(documents, "$", &["a=1", "a=2,b=3", "#=x,#=alone"]);
        is("--- 5\n--- [6, 7]\n", "$", &["#=5,#=6,#=7"]);
        fails("---\n---\na: 1\n", "$", "behind values");
        is("", "$", &[]);
        is("# nothing\n", "$", &[]);
        is("---\n", "$", &["#=(null)"]);
        is("--- []\n--- {}\n", "$", &[]);
    }

    #[test]
    fn a_key_that_stands_twice_is_there_twice() {
        is("a: {x: 1}\na: {x: 2}\n", ".a.x", &["#=1,#=2"]);
        is("a: {x: 1}\na: {x: 2}\n", ".a", &["x=1", "x=2"]);
        is("a: 1\na: 2\n", "['a','b']", &["a=1,a=2"]);
    }

    #[test]
    fn capitals_and_the_sign_before_them_are_escaped() {
        is("{lastTransitionTime: 1, B^C: 2, \u{c4}: 3, '': 4}", "$", &["last^transition^time=1,^b^^^c=2,\u{c4}=3,=4"]);
    }

    #[test]
    fn tabs_and_line_ends_of_other_systems() {
        is("a: \t1\r\nb:\r\n  - 2\t# two\r\n", "$", &["a=1,b=2"]);
        is("a: |\r\n  x\r\n  y\r\n", ".a", &["#=x\ny\n"]);
    }
}
