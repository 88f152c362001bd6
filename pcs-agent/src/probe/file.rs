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
    if let Some(cut) = found.cut {
        collected.messages.push(cut);
        collected.flag = Flag::Incomplete;
    }
    if let Some(directory) = found.denied.first() {
        collected.messages.push(ProbeError::Denied(directory.clone()).to_string());
        collected.flag = if collected.items.is_empty() { Flag::NotCollected } else { Flag::Incomplete };
    }
    collected
}

fn item(host: &Host, entry: &Entry, metadata: &Metadata) -> Item {
    let mut entities = Vec::with_capacity(24);
    if entry.filename.is_some() {
        entities.push(ItemEntity::text("filepath", entry.filepath()));
    }
    entities.push(ItemEntity::text("path", &entry.path));
    entities.push(ItemEntity::text("filename", entry.filename.as_deref().unwrap_or_default()));
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
    let located = host.locate_followed(&entry.filepath());
    entities.push(match rustix::fs::getxattr(&located, "system.posix_acl_access", &mut [0_u8; 0]) {
        Ok(_) => ItemEntity::boolean("has_extended_acl", true),
        Err(rustix::io::Errno::NODATA) => ItemEntity::boolean("has_extended_acl", false),
        Err(_) => ItemEntity::without_value("has_extended_acl", Datatype::Boolean, Status::DoesNotExist),
    });
    Item::new(File::KIND, entities)
}
