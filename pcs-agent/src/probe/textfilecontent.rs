//! `independent:textfilecontent`: lines of files that a pattern matches, the deprecated older kind. Each line is
//! searched once and on its own, with its newline. As in `oscap`, `line` is the pattern, `text` what matched,
//! `instance` counts the matches, and what follows a NUL byte in a line does not count.

use oval::compare::CompareError;
use oval::pattern::{Flags, Pattern};
use oval::resolve::Query;
use proto::observation::{Collected, Item};

use super::files::{self, Entry};
use super::textfilecontent54::{MATCHES_MAX, item};
use super::troubles::Troubles;
use super::{Probe, ProbeError, finish};
use crate::host::{Cut, Host};

pub(crate) struct TextFileContent;

impl Probe for TextFileContent {
    const KIND: &'static str = "independent:textfilecontent";

    fn collect(host: &Host, query: &Query) -> Result<Collected, ProbeError> {
        let Some(line) = query.entity("line") else { return Ok(finish(Vec::new(), Vec::new())) };
        // The schema allows a pattern only, whatever the operation says.
        let patterns = line
            .distinct()
            .map(|text| Pattern::new(text, Flags::default()).map(|compiled| (text, compiled)))
            .collect::<Result<Vec<_>, _>>()
            .map_err(CompareError::from)?;
        let found = files::find(host, query)?;
        let mut items = Vec::new();
        let mut troubles = Troubles::default();
        for entry in &found.entries {
            let searched = match troubles.content(host, &entry.filepath()) {
                Ok(Some(content)) => search(host, entry, &patterns, &content, &mut items, &mut troubles),
                Ok(None) => Ok(()),
                Err(reason) => Err(reason),
            };
            if let Err(reason) = searched {
                troubles.cut(reason);
                break;
            }
        }
        Ok(troubles.flag(items, found))
    }
}

/// The lines that match, of one file, for each pattern.
fn search(
    host: &Host,
    entry: &Entry,
    patterns: &[(&str, Pattern)],
    content: &[u8],
    items: &mut Vec<Item>,
    troubles: &mut Troubles,
) -> Result<(), Cut> {
    for (text, pattern) in patterns {
        let mut instance = 0_u64;
        for (at, line) in content.split_inclusive(|byte| *byte == b'\n').enumerate() {
            host.breathe_now_and_then()?;
            let end = line.iter().position(|byte| *byte == 0).unwrap_or(line.len());
            let line = line.get(..end).unwrap_or_default();
            if std::str::from_utf8(line).is_err() {
                troubles.note(format!("{}: line {} is not UTF-8", entry.filepath(), at.saturating_add(1)));
                continue;
            }
            match pattern.find(line, 0) {
                Ok(None) => {}
                Ok(Some(found)) => {
                    if items.len() >= MATCHES_MAX {
                        return Err(Cut::Items);
                    }
                    instance = instance.saturating_add(1);
                    items.push(item(TextFileContent::KIND, entry, text, instance, line, &found));
                }
                Err(error) => {
                    troubles.note(format!("{}: line {}: {error}", entry.filepath(), at.saturating_add(1)));
                    break;
                }
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use oval::resolve::QueryEntity;
    use proto::observation::Flag;
    use proto::plan::{Check, Datatype, Operation};

    fn collect(content: &[u8], pattern: &str) -> Collected {
        let root = tempfile::tempdir().unwrap();
        std::fs::write(root.path().join("file"), content).unwrap();
        let entity = |name: &str, operation, value: &str| QueryEntity {
            name: name.into(),
            operation,
            datatype: Datatype::String,
            values: vec![value.into()],
            var_check: Check::All,
            is_nil: false,
        };
        let query = Query {
            kind: TextFileContent::KIND.into(),
            entities: vec![
                entity("path", Operation::Equals, "/"),
                entity("filename", Operation::Equals, "file"),
                entity("line", Operation::PatternMatch, pattern),
            ],
            behaviors: std::collections::BTreeMap::new(),
        };
        TextFileContent::collect(&Host::new(root.path()), &query).unwrap_or_else(Collected::from)
    }

    #[track_caller]
    fn check(content: &str, pattern: &str, expect: &[&str]) {
        let collected = collect(content.as_bytes(), pattern);
        let texts: Vec<&str> = collected.items.iter().filter_map(|item| item.value("text")).collect();
        assert_eq!(texts, expect, "{:?}", collected.messages);
    }

    const LINES: &str = "a=1\n#a=2\na=3 a=4\nA=5\n\n  a=6\r\nlast a=7";

    #[test]
    fn each_line_is_searched_once_and_from_its_beginning() {
        check(LINES, r"a=(\d)", &["a=1", "a=2", "a=3", "a=6", "a=7"]);
        check(LINES, r"^a=\d$", &["a=1"]);
        check(LINES, r"a=\d$", &["a=1", "a=2", "a=4", "a=7"]);
        check(LINES, ".*", &["a=1", "#a=2", "a=3 a=4", "A=5", "", "  a=6\r", "last a=7"]);
        check("\nx\n\n", "^$", &["", ""]);
        check("", ".*", &[]);
    }

    #[test]
    fn the_newline_belongs_to_the_line_and_no_pattern_reaches_the_next() {
        check(LINES, r"1\n", &["1\n"]);
        check(LINES, r"1\s*$", &["1\n"]);
        check(LINES, r"1\n#", &[]);
    }

    #[test]
    fn instances_count_matches_and_groups_that_took_part_are_subexpressions() {
        let collected = collect(LINES.as_bytes(), r"^(b)?(\w)=(\d)");
        let of = |name: &str| -> Vec<Vec<String>> {
            let values = |item: &Item| item.named(name).filter_map(|entity| entity.value.clone()).collect();
            collected.items.iter().map(values).collect()
        };
        assert_eq!(of("instance"), [["1"], ["2"], ["3"]]);
        assert_eq!(of("subexpression"), [["a", "1"], ["a", "3"], ["A", "5"]]);
        assert_eq!(of("line")[0], [r"^(b)?(\w)=(\d)"]);
    }

    #[test]
    fn what_follows_a_nul_byte_in_a_line_does_not_count() {
        check("b=\0x=3\nx=4\n", "x", &["x"]);
    }

    #[test]
    fn a_line_that_is_not_utf_8_is_an_error_and_the_others_are_searched() {
        let collected = collect(b"x=1\na\xff=2\nx=3\n", "=");
        assert_eq!(collected.flag, Flag::Error);
        assert_eq!(collected.messages, ["/file: line 2 is not UTF-8"]);
        assert_eq!(collected.items.len(), 2);
    }

    #[test]
    fn nothing_found_does_not_exist_and_a_broken_pattern_is_an_error() {
        assert_eq!(collect(b"x", "y").flag, Flag::DoesNotExist);
        assert_eq!(collect(b"x", "(").flag, Flag::Error);
    }
}
