//! `unix:file`: metadata of files. The last component of a path is never followed.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt as _;

use oval::resolve::{Query, QueryFilter};
use proto::observation::{Collected, Flag, Item, ItemEntity, Status};
use proto::plan::Datatype;

use super::files::{self, Entry};
use super::sieve::{MODE_BITS, type_name};
use super::{Probe, ProbeError, finish};
use crate::host::Host;

pub(crate) struct File;

impl Probe for File {
    const KIND: &'static str = "unix:file";

    fn collect(host: &Host, query: &Query) -> Result<Collected, ProbeError> {
        Self::collect_some(host, query, &[])
    }

    fn collect_some(host: &Host, query: &Query, filters: &[QueryFilter]) -> Result<Collected, ProbeError> {
        let found = files::find_some(host, query, filters)?;
        let items = found
            .entries
            .iter()
            .filter_map(|entry| host.lstat(&entry.filepath()).ok().map(|metadata| item(host, entry, &metadata)))
            .collect();
        Ok(flagged(items, found))
    }
}

/// What was cut or could not be read makes the answer incomplete, or no answer.
pub(super) fn flagged(items: Vec<Item>, found: files::Found) -> Collected {
    let mut collected = finish(items, Vec::new());
    for gap in found.gaps() {
        collected.messages.push(gap.clone());
        collected.flag = Flag::Incomplete;
    }
    if let Some(directory) = found.denied.first() {
        collected.messages.push(ProbeError::Denied(directory.clone()).to_string());
        collected.flag = if collected.items.is_empty() { Flag::NotCollected } else { Flag::Incomplete };
    }
    collected
}

fn item(host: &Host, entry: &Entry, metadata: &Metadata) -> Item {
    let mut entities = entry.entities();
    entities.push(ItemEntity::text("type", type_name(metadata.mode())));
    entities.push(ItemEntity::int("group_id", metadata.gid()));
    entities.push(ItemEntity::int("user_id", metadata.uid()));
    entities.push(ItemEntity::int("a_time", metadata.atime()));
    entities.push(ItemEntity::int("c_time", metadata.ctime()));
    entities.push(ItemEntity::int("m_time", metadata.mtime()));
    entities.push(ItemEntity::int("size", metadata.size()));
    let mode = metadata.mode();
    for (name, bit) in MODE_BITS {
        entities.push(ItemEntity::boolean(name, mode & bit != 0));
    }
    // As acl_extended_file(3) has it: the default of what is made in a directory counts too. A link counts as its target.
    // Where a link leads to a mount that does not answer, only this is not known.
    let Ok(located) = host.place_of(&entry.filepath(), true) else {
        entities.push(ItemEntity::without_value("has_extended_acl", Datatype::Boolean, Status::NotCollected));
        return Item::new(File::KIND, entities);
    };
    let acl = |name: &str| rustix::fs::getxattr(&located, name, &mut [0_u8; 0]);
    entities.push(match acl("system.posix_acl_access") {
        Ok(_) => ItemEntity::boolean("has_extended_acl", true),
        Err(rustix::io::Errno::NODATA) => {
            ItemEntity::boolean("has_extended_acl", acl("system.posix_acl_default").is_ok())
        }
        Err(_) => ItemEntity::without_value("has_extended_acl", Datatype::Boolean, Status::DoesNotExist),
    });
    Item::new(File::KIND, entities)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use std::io::Write as _;

    use proto::plan::Operation;
    use rustix::fs::{XattrFlags, setxattr};
    use rustix::io::Errno;

    use super::super::entities::fixture::{asked, query, tree, values};
    use super::*;

    /// Owner, group and others, with all rights: version 2, then tag, rights and id of each.
    const ACL: [u8; 28] =
        [2, 0, 0, 0, 1, 0, 7, 0, 255, 255, 255, 255, 4, 0, 7, 0, 255, 255, 255, 255, 32, 0, 7, 0, 255, 255, 255, 255];

    #[test]
    fn an_access_control_list_that_a_directory_gives_what_is_made_there_counts() {
        let (root, host) = tree(&[("with/file", ""), ("without/file", "")]);
        std::os::unix::fs::symlink("../with", root.path().join("without/link")).unwrap();
        match setxattr(root.path().join("with"), "system.posix_acl_default", &ACL, XattrFlags::empty()) {
            Err(Errno::OPNOTSUPP) => {
                let _ = writeln!(std::io::stderr(), "SKIPPED: there are no access control lists here");
                return;
            }
            set => set.unwrap(),
        }
        let has_acl = |path: &str, name: &str| {
            let entities = vec![asked("path", Operation::Equals, path), asked("filename", Operation::Equals, name)];
            let items = File::collect(&host, &query(File::KIND, entities)).unwrap().items;
            values(&items, "has_extended_acl").concat()
        };
        assert_eq!(
            [has_acl("/with", "file"), has_acl("/without", "file"), has_acl("/without", "link")],
            ["false", "false", "true"]
        );
    }

    #[test]
    fn upwards_too_a_walk_stays_on_the_file_system_it_began_on() {
        let host = Host::new("/");
        let up = |file_system: &str| {
            let mut query = query(
                File::KIND,
                vec![asked("path", Operation::Equals, "/proc/sys"), asked("filename", Operation::Equals, "")],
            );
            query.entities[1].is_nil = true;
            for (name, value) in [("recurse_direction", "up"), ("recurse_file_system", file_system)] {
                query.behaviors.insert(name.to_owned(), value.to_owned());
            }
            let items = File::collect(&host, &query).unwrap().items;
            values(&items, "path").into_iter().map(str::to_owned).collect::<Vec<_>>()
        };
        assert_eq!(up("all").last().map(String::as_str), Some("/"));
        assert!(!up("defined").contains(&"/".to_owned()), "{:?}", up("defined"));
        assert!(up("defined").contains(&"/proc/sys".to_owned()), "{:?}", up("defined"));
    }

    #[test]
    fn what_cannot_be_named_and_what_is_too_deep_are_both_told() {
        use std::os::unix::ffi::OsStrExt as _;
        let (root, host) = tree(&[("a/file", "")]);
        std::fs::write(root.path().join("a").join(std::ffi::OsStr::from_bytes(b"\xff")), "").unwrap();
        let deep = "b/".repeat(crate::limits::DIRECTORY_DEPTH_MAX + 2);
        std::fs::create_dir_all(root.path().join(deep)).unwrap();
        let pattern = vec![asked("filepath", Operation::PatternMatch, "^/.*")];
        let collected = File::collect(&host, &query(File::KIND, pattern)).unwrap();
        assert_eq!((collected.flag, values(&collected.items, "filename")), (Flag::Incomplete, vec!["file"]));
        assert!(collected.messages[0].contains("not UTF-8"), "{:?}", collected.messages);
        assert!(collected.messages[1].contains("deeper than"), "{:?}", collected.messages);
    }
}
