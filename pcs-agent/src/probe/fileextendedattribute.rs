//! `unix:fileextendedattribute`: extended attributes of files of any type, links not followed. A value that is
//! text is text, without the NUL bytes at its end; any other value is binary in hexadecimal, where `oscap` cuts
//! it at the first NUL byte.

use std::path::Path;

use oval::resolve::{Query, QueryEntity};
use proto::limits::ENTITY_VALUE_BYTES_MAX;
use proto::observation::{Collected, Item, ItemEntity, Status};
use proto::plan::Datatype;
use rustix::fs::{lgetxattr, llistxattr};
use rustix::io::Errno;

use super::files::{self, Entry};
use super::troubles::Troubles;
use super::{Probe, ProbeError, finish};
use crate::host::{Cut, Host};

pub(crate) struct FileExtendedAttribute;

/// `XATTR_LIST_MAX` and `XATTR_SIZE_MAX` of Linux are both 64 KiB: no more can come back.
const ATTRIBUTE_BYTES_MAX: usize = 64 * 1024;
/// Items that one object may have before filters.
const ITEMS_MAX: usize = super::limits::CANDIDATES_MAX;

impl Probe for FileExtendedAttribute {
    const KIND: &'static str = "unix:fileextendedattribute";

    fn collect(host: &Host, query: &Query) -> Result<Collected, ProbeError> {
        let Some(wanted) = query.entity("attribute_name") else { return Ok(finish(Vec::new(), Vec::new())) };
        // The text of a pattern is checked before the walk.
        wanted.matches("")?;
        let found = files::find(host, query)?;
        let mut reader = Reader {
            wanted,
            buffer: vec![0; ATTRIBUTE_BYTES_MAX],
            items: Vec::new(),
            unnamed: None,
            troubles: Troubles::default(),
        };
        for entry in &found.entries {
            match reader.read(host, entry) {
                Ok(()) => {}
                Err(ProbeError::Cut(reason)) => {
                    reader.troubles.cut(reason);
                    break;
                }
                Err(error) => return Err(error),
            }
        }
        let Reader { items, unnamed, mut troubles, .. } = reader;
        if let Some(filepath) = unnamed {
            troubles.lack(format!("an attribute's name of {filepath} is not UTF-8 and cannot be reported"));
        }
        Ok(troubles.flag(items, found))
    }
}

struct Reader<'query> {
    wanted: &'query QueryEntity,
    /// For names, and for values.
    buffer: Vec<u8>,
    items: Vec<Item>,
    /// A file with an attribute that has no name that is text.
    unnamed: Option<String>,
    troubles: Troubles,
}

impl Reader<'_> {
    fn read(&mut self, host: &Host, entry: &Entry) -> Result<(), ProbeError> {
        host.breathe_now_and_then()?;
        let filepath = entry.filepath();
        // Where a mount does not answer, the answer as a whole says so.
        let Ok(located) = host.locate(&filepath) else { return Ok(()) };
        let names = match llistxattr(&located, self.buffer.as_mut_slice()) {
            Ok(length) => self.buffer.get(..length).unwrap_or_default().to_vec(),
            // A file that is gone by now, or a file system without attributes, has none.
            Err(Errno::NOENT | Errno::NOTDIR | Errno::OPNOTSUPP) => return Ok(()),
            Err(error) => {
                self.troubles.note(format!("{filepath}: {error}"));
                return Ok(());
            }
        };
        for name in names.split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
            let Ok(name) = std::str::from_utf8(name) else {
                self.unnamed = Some(filepath.clone());
                continue;
            };
            if !self.wanted.matches(name)? {
                continue;
            }
            if self.items.len() >= ITEMS_MAX {
                return Err(Cut::Items.into());
            }
            self.attribute(entry, &located, name);
        }
        Ok(())
    }

    fn attribute(&mut self, entry: &Entry, located: &Path, name: &str) {
        let without = |status| ItemEntity::without_value("value", Datatype::String, status);
        let (value, message) = match lgetxattr(located, name, self.buffer.as_mut_slice()) {
            Ok(length) => {
                let value = value(self.buffer.get(..length).unwrap_or_default());
                let message =
                    value.is_none().then(|| format!("the value of {name} is binary and too large to be reported"));
                (value.unwrap_or_else(|| without(Status::NotCollected)), message)
            }
            Err(Errno::NODATA | Errno::NOENT | Errno::NOTDIR) => return,
            Err(Errno::PERM | Errno::ACCESS) => {
                let what = ProbeError::Denied(format!("{name} of {}", entry.filepath())).to_string();
                (without(Status::NotCollected), Some(what))
            }
            Err(error) => (without(Status::Error), Some(format!("{name}: {error}"))),
        };
        let status = if value.status == Status::Error { Status::Error } else { Status::Exists };
        let mut entities = entry.entities();
        entities.push(ItemEntity::text("attribute_name", name));
        entities.push(value);
        self.items.push(Item { status, message, ..Item::new(FileExtendedAttribute::KIND, entities) });
    }
}

/// A value as an entity; none where it is binary and its hexadecimal form too long.
fn value(bytes: &[u8]) -> Option<ItemEntity> {
    let end = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last.saturating_add(1));
    let shown = bytes.get(..end).unwrap_or_default();
    if let Ok(text) = std::str::from_utf8(shown)
        && text.chars().all(|character| !character.is_control() || matches!(character, '\t' | '\n' | '\r'))
        && (end > 0 || bytes.is_empty())
    {
        return Some(ItemEntity::text("value", text));
    }
    if bytes.len() > ENTITY_VALUE_BYTES_MAX / 2 {
        return None;
    }
    use std::fmt::Write as _;
    let hex = bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    });
    Some(ItemEntity::new("value", Datatype::Binary, hex))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proto::plan::{Check, Operation};
    use rustix::fs::{XattrFlags, lsetxattr};

    #[track_caller]
    fn check(bytes: &[u8], expect: Option<(Datatype, &str)>) {
        let found = value(bytes);
        let found = found.as_ref().map(|entity| (entity.datatype, entity.value.as_deref().unwrap()));
        assert_eq!(found, expect);
    }

    #[test]
    fn text_is_text_without_the_nul_bytes_at_its_end_and_all_else_is_binary() {
        check(b"hello", Some((Datatype::String, "hello")));
        check(b"", Some((Datatype::String, "")));
        check(b"system_u:object_r:etc_t:s0\0", Some((Datatype::String, "system_u:object_r:etc_t:s0")));
        check("ä\n".as_bytes(), Some((Datatype::String, "ä\n")));
        check(b"A\0B", Some((Datatype::Binary, "410042")));
        check(b"\0\xffA", Some((Datatype::Binary, "00ff41")));
        check(b"\x01\x02", Some((Datatype::Binary, "0102")));
        check(b"\0\0", Some((Datatype::Binary, "0000")));
        check(&vec![0xff; ENTITY_VALUE_BYTES_MAX / 2 + 1], None);
    }

    fn entity(name: &str, operation: Operation, value: &str) -> QueryEntity {
        QueryEntity {
            name: name.into(),
            operation,
            datatype: Datatype::String,
            values: vec![value.into()],
            var_check: Check::All,
            is_nil: false,
        }
    }

    /// None where the file system of the test has no attributes for users.
    fn tree() -> Option<(tempfile::TempDir, Host)> {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(root.path().join("t/dir")).unwrap();
        std::fs::write(root.path().join("t/file"), "").unwrap();
        std::os::unix::fs::symlink("file", root.path().join("t/link")).unwrap();
        for (path, name, value) in
            [("t/file", "user.a", "hello"), ("t/file", "user.b", "1\0"), ("t/dir", "user.d", "x")]
        {
            lsetxattr(root.path().join(path), name, value.as_bytes(), XattrFlags::empty()).ok()?;
        }
        let host = Host::new(root.path());
        Some((root, host))
    }

    fn found(host: &Host, entities: Vec<QueryEntity>) -> Vec<(String, String, String)> {
        let query =
            Query { kind: FileExtendedAttribute::KIND.into(), entities, behaviors: std::collections::BTreeMap::new() };
        let collected = FileExtendedAttribute::collect(host, &query).unwrap_or_else(Collected::from);
        let of = |item: &Item, name: &str| item.value(name).unwrap_or("-").to_owned();
        let mut found: Vec<_> = collected
            .items
            .iter()
            .filter(|item| of(item, "attribute_name").starts_with("user."))
            .map(|item| (of(item, "filepath"), of(item, "attribute_name"), of(item, "value")))
            .collect();
        found.sort();
        found
    }

    fn row(filepath: &str, name: &str, value: &str) -> (String, String, String) {
        (filepath.to_owned(), name.to_owned(), value.to_owned())
    }

    #[test]
    fn the_attributes_of_a_file_are_found_by_name_and_a_link_is_not_followed() {
        use Operation::{Equals, PatternMatch};
        let Some((_root, host)) = tree() else { return };
        let of = |filepath: &str, operation, name: &str| {
            found(&host, vec![entity("filepath", Equals, filepath), entity("attribute_name", operation, name)])
        };
        assert_eq!(of("/t/file", Equals, "user.a"), [row("/t/file", "user.a", "hello")]);
        assert_eq!(
            of("/t/file", PatternMatch, "^user"),
            [row("/t/file", "user.a", "hello"), row("/t/file", "user.b", "1")]
        );
        assert!(of("/t/file", Equals, "user.none").is_empty());
        assert!(of("/t/none", PatternMatch, ".*").is_empty());
        assert!(of("/t/link", PatternMatch, ".*").is_empty());
    }

    #[test]
    fn a_directory_is_found_by_a_nil_filename() {
        let Some((_root, host)) = tree() else { return };
        let nil = QueryEntity { is_nil: true, ..entity("filename", Operation::Equals, "") };
        let entities = vec![
            entity("path", Operation::Equals, "/t/dir"),
            nil,
            entity("attribute_name", Operation::PatternMatch, "."),
        ];
        assert_eq!(found(&host, entities), [row("-", "user.d", "x")]);
    }
}
