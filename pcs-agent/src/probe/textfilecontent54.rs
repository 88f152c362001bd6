//! `independent:textfilecontent54`: matches of a pattern in files.

use oval::compare::CompareError;
use oval::pattern::{Flags, Found, Pattern};
use oval::resolve::Query;
use proto::limits::{ENTITY_VALUE_BYTES_MAX, OBJECT_ITEMS_MAX};
use proto::observation::{Collected, Item, ItemEntity};

use super::files::{self, Entry};
use super::troubles::Troubles;
use super::{Probe, ProbeError, finish};
use crate::host::{Cut, Host};

pub(crate) struct TextFileContent54;

/// Matches that one object may have before filters.
pub(super) const MATCHES_MAX: usize = 50 * OBJECT_ITEMS_MAX;

impl Probe for TextFileContent54 {
    const KIND: &'static str = "independent:textfilecontent54";

    fn collect(host: &Host, query: &Query) -> Result<Collected, ProbeError> {
        let Some(pattern) = query.entity("pattern") else { return Ok(finish(Vec::new(), Vec::new())) };
        let flags = Flags {
            is_caseless: is_true(query.behavior("ignore_case", "false")),
            is_multiline: is_true(query.behavior("multiline", "true")),
            is_singleline: is_true(query.behavior("singleline", "false")),
        };
        // Whatever the operation says, `oscap` and content read the entity as a pattern.
        let patterns = pattern
            .distinct()
            .map(|text| Pattern::new(text, flags).map(|compiled| (text, compiled)))
            .collect::<Result<Vec<_>, _>>()
            .map_err(CompareError::from)?;
        let found = files::find(host, query)?;
        let mut items = Vec::new();
        let mut troubles = Troubles::default();
        for entry in &found.entries {
            let filepath = entry.filepath();
            let content = match troubles.content(host, &filepath) {
                Ok(Some(content)) => content,
                Ok(None) => continue,
                Err(reason) => {
                    troubles.cut(reason);
                    break;
                }
            };
            // `oscap` searches a C string: what follows a NUL byte does not count.
            let end = content.iter().position(|byte| *byte == 0).unwrap_or(content.len());
            let content = &content[..end];
            if std::str::from_utf8(content).is_err() {
                troubles.broken.push(format!("{filepath}: the content is not UTF-8"));
                continue;
            }
            let mut is_cut = false;
            for (text, pattern) in &patterns {
                match search(query, entry, text, pattern, content, &mut items) {
                    Ok(()) => {}
                    Err(ProbeError::Cut(reason)) => {
                        troubles.cut(reason);
                        is_cut = true;
                    }
                    Err(other) => troubles.broken.push(format!("{filepath}: {other}")),
                }
            }
            if is_cut {
                break;
            }
        }
        Ok(troubles.flag(items, found))
    }
}

/// `xsd:boolean`.
fn is_true(value: &str) -> bool {
    matches!(value, "true" | "1")
}

fn search(
    query: &Query,
    entry: &Entry,
    text: &str,
    pattern: &Pattern,
    content: &[u8],
    items: &mut Vec<Item>,
) -> Result<(), ProbeError> {
    let instances = query.entity("instance");
    let mut search = pattern.on(content);
    let mut from = 0;
    let mut instance = 0_u64;
    while from <= content.len() {
        let Some(found) = search.find(from).map_err(CompareError::from)? else { return Ok(()) };
        instance += 1;
        let is_wanted = instances.map_or(Ok(true), |instances| instances.matches(&instance.to_string()))?;
        if is_wanted {
            if items.len() >= MATCHES_MAX {
                return Err(Cut::Items.into());
            }
            items.push(item(TextFileContent54::KIND, entry, text, instance, content, &found));
        }
        // After an empty match the search goes on one byte later, at the next character.
        from = if found.end == from { next_character(content, from) } else { found.end };
    }
    Ok(())
}

fn next_character(content: &[u8], from: usize) -> usize {
    let mut next = from + 1;
    while content.get(next).is_some_and(|byte| byte & 0xc0 == 0x80) {
        next += 1;
    }
    next
}

/// A match, of either kind of item that has one.
pub(super) fn item(kind: &str, entry: &Entry, text: &str, instance: u64, content: &[u8], found: &Found) -> Item {
    let value = |start: usize, end: usize| {
        let end = end.min(start + ENTITY_VALUE_BYTES_MAX);
        String::from_utf8_lossy(&content[start..end]).into_owned()
    };
    let mut entities = entry.entities();
    entities.extend([
        ItemEntity::text("pattern", text),
        ItemEntity::int("instance", instance),
        // `oscap` puts the pattern here.
        ItemEntity::text("line", text),
        ItemEntity::text("text", value(found.start, found.end)),
    ]);
    entities.extend(
        found.groups.iter().flatten().map(|(start, end)| ItemEntity::text("subexpression", value(*start, *end))),
    );
    Item::new(kind, entities)
}

#[cfg(test)]
mod tests {
    use super::*;
    use oval::resolve::QueryEntity;
    use proto::observation::Flag;
    use proto::plan::{Check, Datatype, Operation};

    fn collect(content: &[u8], pattern: &str, instance: (Operation, &str)) -> Collected {
        behaving(&[], content, pattern, instance)
    }

    fn behaving(behaviors: &[(&str, &str)], content: &[u8], pattern: &str, instance: (Operation, &str)) -> Collected {
        let root = tempfile::tempdir().unwrap();
        std::fs::write(root.path().join("file"), content).unwrap();
        let entity = |name: &str, operation, datatype, value: &str| QueryEntity {
            name: name.into(),
            operation,
            datatype,
            values: vec![value.into()],
            var_check: Check::All,
            is_nil: false,
        };
        let query = Query {
            kind: TextFileContent54::KIND.into(),
            entities: vec![
                entity("filepath", Operation::Equals, Datatype::String, "/file"),
                entity("pattern", Operation::PatternMatch, Datatype::String, pattern),
                entity("instance", instance.0, Datatype::Int, instance.1),
            ],
            behaviors: behaviors.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
        };
        TextFileContent54::collect(&Host::new(root.path()), &query).unwrap_or_else(Collected::from)
    }

    fn texts(collected: &Collected) -> Vec<&str> {
        collected.items.iter().filter_map(|item| item.value("text")).collect()
    }

    const ANY: (Operation, &str) = (Operation::GreaterThanOrEqual, "1");

    #[test]
    fn every_match_is_an_instance_and_every_group_a_subexpression() {
        let collected = collect(b"a=1\n#a=2\na=3\n", r"^a=(\d)$", ANY);
        assert_eq!(texts(&collected), ["a=1", "a=3"]);
        assert_eq!(collected.items[1].value("subexpression"), Some("3"));
        assert_eq!(texts(&collect(b"a=1\na=3\n", r"^a=(\d)$", (Operation::Equals, "2"))), ["a=3"]);
    }

    #[test]
    fn a_pattern_that_a_variable_has_twice_is_asked_once() {
        let root = tempfile::tempdir().unwrap();
        std::fs::write(root.path().join("file"), "a\n").unwrap();
        let entity = |name: &str, operation, values: &[&str]| QueryEntity {
            name: name.into(),
            operation,
            datatype: Datatype::String,
            values: values.iter().map(|value| (*value).to_owned()).collect(),
            var_check: Check::AtLeastOne,
            is_nil: false,
        };
        let query = Query {
            kind: TextFileContent54::KIND.into(),
            entities: vec![
                entity("filepath", Operation::Equals, &["/file"]),
                entity("pattern", Operation::PatternMatch, &["a", "^a", "a"]),
            ],
            behaviors: std::collections::BTreeMap::new(),
        };
        let collected = TextFileContent54::collect(&Host::new(root.path()), &query).unwrap_or_else(Collected::from);
        let patterns: Vec<_> = collected.items.iter().filter_map(|item| item.value("pattern")).collect();
        assert_eq!(patterns, ["a", "^a"]);
    }

    #[test]
    fn behaviors_are_booleans_of_xml_schema() {
        let check = |name: &str, value: &str, pattern: &str, expect: &[&str]| {
            let collected = behaving(&[(name, value)], b"one\nTwo\n", pattern, ANY);
            assert_eq!(texts(&collected), expect, "{name}={value}");
        };
        for (yes, no) in [("true", "false"), ("1", "0")] {
            check("multiline", yes, "^Two", &["Two"]);
            check("multiline", no, "^Two", &[]);
            check("ignore_case", yes, "^two", &["Two"]);
            check("ignore_case", no, "^two", &[]);
            check("singleline", yes, "one.Two", &["one\nTwo"]);
            check("singleline", no, "one.Two", &[]);
        }
    }

    #[test]
    fn very_many_matches_in_one_text_are_found_where_they_are() {
        let ascii = collect("a=1\n".repeat(20_000).as_bytes(), r"^a=(\d)$", (Operation::Equals, "20000"));
        assert_eq!(texts(&ascii), ["a=1"]);
        let other = collect("ä=1\n".repeat(200).as_bytes(), r"^.=(\d)$", (Operation::Equals, "200"));
        assert_eq!(texts(&other), ["ä=1"]);
    }

    #[test]
    fn nothing_found_does_not_exist_and_a_broken_pattern_is_an_error() {
        assert_eq!(collect(b"x", "y", ANY).flag, Flag::DoesNotExist);
        assert_eq!(collect(b"x", "(", ANY).flag, Flag::Error);
    }

    #[test]
    fn text_after_a_nul_byte_does_not_count() {
        assert_eq!(texts(&collect(b"a\0a", "a", ANY)), ["a"]);
    }

    #[test]
    fn bytes_that_are_not_utf_8_are_an_error_with_the_file() {
        let collected = collect(b"a\xffb", "a", ANY);
        assert_eq!(collected.flag, Flag::Error);
        assert!(collected.messages[0].contains("/file"));
    }

    #[test]
    fn empty_matches_end() {
        assert_eq!(collect("äö".as_bytes(), "x*", ANY).items.len(), 3);
        assert_eq!(texts(&collect(b"", "^.*$", ANY)), [""]);
    }
}
