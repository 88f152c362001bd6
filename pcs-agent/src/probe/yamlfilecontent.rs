//! `independent:yamlfilecontent`: what a path leads to in YAML files, as records. A file with anything to find is one item
//! with a `value` for each record. As in `oscap`, what is no regular file has none, and a link of a directory that leads to no
//! file is an error; devices and FIFOs are never opened.

use oval::resolve::Query;
use proto::limits::{ENTITY_VALUE_BYTES_MAX, RESULT_PART_BYTES};
use proto::observation::{Collected, Item, ItemEntity, Status};
use proto::plan::Datatype;

use super::files::{self, Entry};
use super::troubles::{Troubles, unreadable};
use super::yaml::{Path, PathError, Record, Stream, records};
use super::{Probe, ProbeError, finish};
use crate::host::{Cut, Host};

pub(crate) struct YamlFileContent;

/// Fields of all records of one item.
const FIELDS_MAX: usize = 5_000;

impl Probe for YamlFileContent {
    const KIND: &'static str = "independent:yamlfilecontent";

    fn collect(host: &Host, query: &Query) -> Result<Collected, ProbeError> {
        let Some(yamlpath) = query.entity("yamlpath") else { return Ok(finish(Vec::new(), Vec::new())) };
        // Whatever the operation says, `oscap` follows the path; the schema allows `equals` only.
        let paths = yamlpath
            .distinct()
            .map(|text| Path::new(text).map(|path| (text, path)))
            .collect::<Result<Vec<_>, _>>()
            .map_err(|error| match error {
                PathError::NotCovered(what) => ProbeError::NotCovered(what.to_owned()),
                PathError::Syntax { .. } => ProbeError::Broken(error.to_string()),
            })?;
        let found = files::find(host, query)?;
        let mut seen = Seen::default();
        let is_by_filepath = query.entity("filepath").is_some();
        for entry in found.entries.iter().filter(|entry| entry.filename.is_some()) {
            let filepath = entry.filepath();
            if let Some(why) = unreadable(host, &filepath) {
                // `oscap` goes straight to what `filepath` names.
                if !is_by_filepath && host.lstat(&filepath).is_ok_and(|metadata| metadata.is_symlink()) {
                    seen.troubles.note(format!("{filepath}: {why}"));
                }
                continue;
            }
            if let Err(cut) = seen.look(host, entry, &paths) {
                seen.troubles.cut(cut);
                break;
            }
        }
        Ok(seen.troubles.flag(seen.items, found))
    }
}

/// What was found in the files so far.
#[derive(Default)]
struct Seen {
    items: Vec<Item>,
    troubles: Troubles,
}

impl Seen {
    fn look(&mut self, host: &Host, entry: &Entry, paths: &[(&str, Path)]) -> Result<(), Cut> {
        let filepath = entry.filepath();
        host.breathe()?;
        let Some(content) = self.troubles.content(host, &filepath)? else { return Ok(()) };
        let stream = match Stream::parse(&content) {
            Ok(stream) => stream,
            Err(reason) => {
                self.troubles.note(format!("{filepath}: {reason}"));
                return Ok(());
            }
        };
        for (text, path) in paths {
            host.breathe()?;
            match records(&stream, path) {
                Ok(records) if records.is_empty() => {}
                Ok(records) => self.items.push(item(entry, text, records)),
                Err(reason) => self.troubles.note(format!("{filepath}: `{}`: {reason}", proto::limits::shown(text))),
            }
        }
        if self.items.len() > super::limits::CANDIDATES_MAX { Err(Cut::Items) } else { Ok(()) }
    }
}

fn item(entry: &Entry, yamlpath: &str, records: Vec<Record>) -> Item {
    let mut entities = entry.entities();
    entities.push(ItemEntity::text("yamlpath", yamlpath));
    let (mut fields, mut bytes) = (0_usize, 0_usize);
    let mut is_any_cut = false;
    for record in &records {
        fields = fields.saturating_add(record.len());
        for (name, _, value) in record {
            bytes = bytes.saturating_add(name.len()).saturating_add(value.len().min(ENTITY_VALUE_BYTES_MAX));
            is_any_cut |= value.len() > ENTITY_VALUE_BYTES_MAX;
        }
    }
    if fields > FIELDS_MAX || bytes > RESULT_PART_BYTES {
        entities.push(ItemEntity::without_value("value", Datatype::Record, Status::NotCollected));
        let message = Some("more values than can be reported".to_owned());
        return Item { status: Status::NotCollected, message, ..Item::new(YamlFileContent::KIND, entities) };
    }
    entities.extend(records.into_iter().map(|record| ItemEntity {
        name: "value".to_owned(),
        datatype: Datatype::Record,
        status: Status::Exists,
        value: None,
        fields: record.into_iter().map(field).collect(),
    }));
    let message = is_any_cut.then(|| format!("a value is longer than {ENTITY_VALUE_BYTES_MAX} bytes and is cut"));
    Item { message, ..Item::new(YamlFileContent::KIND, entities) }
}

fn field((name, datatype, mut value): (String, Datatype, String)) -> ItemEntity {
    value.truncate(value.floor_char_boundary(ENTITY_VALUE_BYTES_MAX));
    ItemEntity::new(&name, datatype, value)
}

#[cfg(test)]
mod tests {
    use super::super::entities::fixture::{asked as named, query};
    use super::*;
    use proto::observation::Flag;
    use proto::plan::Operation;

    const MATCH: Operation = Operation::PatternMatch;

    fn collect(files: &[(&str, &[u8])], yamlpath: &str) -> Collected {
        let root = tempfile::tempdir().unwrap();
        for (name, content) in files {
            std::fs::write(root.path().join(name), content).unwrap();
        }
        collect_in(root.path(), &[("path", Operation::Equals, "/"), ("filename", MATCH, r"\.yaml$")], yamlpath)
    }

    fn collect_in(root: &std::path::Path, asked: &[(&str, Operation, &str)], yamlpath: &str) -> Collected {
        let mut entities: Vec<_> =
            asked.iter().map(|(name, operation, value)| named(name, *operation, value)).collect();
        entities.push(named("yamlpath", Operation::Equals, yamlpath));
        let query = query(YamlFileContent::KIND, entities);
        YamlFileContent::collect(&Host::new(root), &query).unwrap_or_else(Collected::from)
    }

    #[test]
    fn a_file_is_an_item_with_a_record_for_each_map() {
        let yaml = b"status:\n  conditions:\n  - {type: Ready, lastTime: 1}\n  - {type: Old, tags: [a, b]}\n";
        let collected =
            collect(&[("a.yaml", yaml), ("b.yaml", b"other: 1\n"), ("c.yaml", b"")], ".status.conditions[:]");
        assert_eq!((collected.flag, collected.items.len()), (Flag::Complete, 1));
        let item = &collected.items[0];
        for (name, value) in [("filepath", "/a.yaml"), ("path", "/"), ("filename", "a.yaml")] {
            assert_eq!(item.value(name), Some(value));
        }
        assert_eq!(item.value("yamlpath"), Some(".status.conditions[:]"));
        let values: Vec<_> = item.named("value").collect();
        assert!(values.iter().all(|value| value.datatype == Datatype::Record && value.value.is_none()));
        assert_eq!(values[0].fields, [ItemEntity::text("type", "Ready"), ItemEntity::int("last^time", 1)]);
        let names: Vec<_> = values[1].fields.iter().map(|field| field.name.as_str()).collect();
        assert_eq!(names, ["type", "tags", "tags"]);
    }

    #[test]
    fn a_file_that_is_no_yaml_is_an_error_and_the_others_are_read() {
        let deep = "- ".repeat(10_000);
        let files: &[(&str, &[u8])] = &[
            ("a.yaml", b"a: 1\n"),
            ("b.yaml", b"a: [\n"),
            ("c.yaml", b"a: \xff\n"),
            ("d.yaml", deep.as_bytes()),
            ("e.yaml", b"a: {b: {c: 1}}\n"),
        ];
        let collected = collect(files, ".a");
        assert_eq!((collected.flag, collected.items.len()), (Flag::Error, 1));
        for (name, with) in
            [("b", "not readable as YAML"), ("c", "not UTF-8"), ("d", "inside each other"), ("e", "`.a`: it leads")]
        {
            let is_told = |message: &String| message.starts_with(&format!("/{name}.yaml: ")) && message.contains(with);
            assert!(collected.messages.iter().any(is_told), "{name}: {:?}", collected.messages);
        }
    }

    #[test]
    fn a_path_that_is_none_is_an_error_before_any_file_is_read() {
        for yamlpath in ["", "$$", "a[", "[0:1]"] {
            assert_eq!(collect(&[], yamlpath).flag, Flag::Error, "{yamlpath}");
        }
        let collected = collect(&[("a.yaml", b"&anc 1\n")], "&anc");
        assert_eq!(collected.flag, Flag::NotCollected);
        assert!(collected.messages[0].contains("anchor"), "{:?}", collected.messages);
    }

    #[test]
    fn what_is_no_file_has_no_item_and_a_link_to_none_is_an_error_where_it_is_not_named_whole() {
        use std::os::unix::fs::symlink;
        let root = tempfile::tempdir().unwrap();
        let at = |name: &str| root.path().join(name);
        std::fs::create_dir(at("directory.yaml")).unwrap();
        std::fs::write(at("file.yaml"), "a: 1\n").unwrap();
        let _listener = std::os::unix::net::UnixListener::bind(at("socket.yaml")).unwrap();
        for (target, name) in [
            ("nowhere", "dangling.yaml"),
            ("loop.yaml", "loop.yaml"),
            ("socket.yaml", "to-socket.yaml"),
            ("directory.yaml", "to-directory.yaml"),
            ("file.yaml", "to-file.yaml"),
        ] {
            symlink(target, at(name)).unwrap();
        }
        let by_filepath = |name: &str| {
            let filepath = format!("/{name}");
            collect_in(root.path(), &[("filepath", Operation::Equals, filepath.as_str())], ".a")
        };
        let by_filename = |name: &str| {
            let asked = [("path", Operation::Equals, "/"), ("filename", Operation::Equals, name)];
            collect_in(root.path(), &asked, ".a")
        };
        for name in ["dangling.yaml", "loop.yaml", "to-socket.yaml", "to-directory.yaml"] {
            assert_eq!(by_filepath(name).flag, Flag::DoesNotExist, "{name}");
            let collected = by_filename(name);
            assert_eq!((collected.flag, collected.items.len()), (Flag::Error, 0), "{name}");
            assert!(collected.messages[0].contains(name), "{:?}", collected.messages);
        }
        for name in ["socket.yaml", "directory.yaml", "none.yaml"] {
            assert_eq!(by_filepath(name).flag, Flag::DoesNotExist, "{name}");
            assert_eq!(by_filename(name).flag, Flag::DoesNotExist, "{name}");
        }
        for name in ["file.yaml", "to-file.yaml"] {
            assert_eq!(by_filepath(name).items.len(), 1, "{name}");
            assert_eq!(by_filename(name).items.len(), 1, "{name}");
        }
    }

    #[test]
    fn more_values_than_an_item_can_carry_are_not_collected() {
        let many = "- 1\n".repeat(FIELDS_MAX + 1);
        let collected = collect(&[("a.yaml", many.as_bytes())], "$");
        assert_eq!(collected.items[0].status, Status::NotCollected);
        let long = format!("a: {}\n", "ä".repeat(ENTITY_VALUE_BYTES_MAX));
        let collected = collect(&[("a.yaml", long.as_bytes())], ".a");
        let value = collected.items[0].named("value").next().unwrap();
        assert_eq!(value.fields[0].value.as_ref().unwrap().len(), ENTITY_VALUE_BYTES_MAX);
        assert!(collected.items[0].message.is_some());
    }
}
