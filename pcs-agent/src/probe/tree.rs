//! The one walk: what a task has seen of the file system. Each directory is read once, and each file's mode and owner, for all
//! objects of the plan that ask for files.
//!
//! It is a memory of one task and not a cache: the next task looks anew. Over its bound nothing more is kept, and what was
//! not kept is read again.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::fs::Metadata;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::rc::Rc;

use rustix::fs::{Dir, FileType, Mode, OFlags};

use crate::host::{Away, Cut, Host};
use crate::limits::TREE_BYTES_MAX;

/// Which directory: its device and inode.
pub(super) type Identity = (u64, u64);

/// What is kept of the directories.
#[derive(Debug, Default)]
pub(crate) struct Tree {
    listings: RefCell<HashMap<Identity, Rc<Listing>>>,
    bytes: Cell<usize>,
}

/// The entries of a directory, sorted by name, so that results do not depend on the file system's order.
#[derive(Debug, Default)]
pub(super) struct Listing {
    names: Box<str>,
    entries: Box<[Entry]>,
    /// Some names are not UTF-8: what cannot be named cannot be reported, and must not pass for absent.
    pub(super) is_any_unnamed: bool,
    /// It may not be read.
    pub(super) is_denied: bool,
}

#[derive(Debug)]
struct Entry {
    /// Where its name ends; it begins where the one before ends.
    name_end: u32,
    kind: Kind,
    seen: Cell<Option<Seen>>,
}

/// What an entry is, as its directory says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Directory,
    Link,
    Other,
}

/// What a filter may ask of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Seen {
    /// Type and permissions, as `st_mode` has them.
    pub(super) mode: u32,
    pub(super) user_id: u32,
    pub(super) group_id: u32,
}

impl From<&Metadata> for Seen {
    fn from(metadata: &Metadata) -> Self {
        Self { mode: metadata.mode(), user_id: metadata.uid(), group_id: metadata.gid() }
    }
}

impl Listing {
    /// How many entries there are.
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// An entry's name and kind.
    pub(super) fn entry(&self, at: usize) -> (&str, Kind) {
        let from = at.checked_sub(1).map_or(0, |before| self.entries[before].name_end);
        let entry = &self.entries[at];
        (&self.names[from as usize..entry.name_end as usize], entry.kind)
    }

    /// What a filter may ask of an entry of this directory; none if it has gone.
    pub(super) fn seen(&self, host: &Host, at: usize, directory: &Path) -> Result<Option<Seen>, Away> {
        let entry = &self.entries[at];
        if entry.seen.get().is_none() {
            let located = directory.join(self.entry(at).0);
            host.check(&located)?;
            entry.seen.set(std::fs::symlink_metadata(located).ok().as_ref().map(Seen::from));
        }
        Ok(entry.seen.get())
    }

    fn bytes(&self) -> usize {
        size_of::<(Identity, Rc<Self>)>() + size_of::<Self>() + self.names.len() + size_of_val(&*self.entries)
    }
}

impl Tree {
    /// The entries of a directory of the endpoint, which is at this place of the machine. Directories that are gone are empty.
    pub(super) fn list(&self, host: &Host, identity: Identity, directory: &Path) -> Result<Rc<Listing>, Cut> {
        if let Some(known) = self.listings.borrow().get(&identity) {
            return Ok(Rc::clone(known));
        }
        let listing = Rc::new(read(host, directory)?);
        let bytes = self.bytes.get() + listing.bytes();
        if bytes <= host.share_of_memory(TREE_BYTES_MAX) {
            self.bytes.set(bytes);
            self.listings.borrow_mut().insert(identity, Rc::clone(&listing));
        }
        Ok(listing)
    }
}

/// What an entry is as its directory says, without a look at the entry; what is mounted somewhere is a directory unless that says
/// otherwise.
fn kind_by_name(directory: &Path, name: &str) -> Kind {
    let opened = rustix::fs::open(directory, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty());
    let entries = opened.and_then(Dir::new).into_iter().flatten().filter_map(Result::ok);
    let mut named = entries.filter(|entry| entry.file_name().to_bytes() == name.as_bytes());
    match named.next().map(|entry| entry.file_type()) {
        Some(FileType::Directory | FileType::Unknown) | None => Kind::Directory,
        Some(FileType::Symlink) => Kind::Link,
        Some(_) => Kind::Other,
    }
}

fn read(host: &Host, directory: &Path) -> Result<Listing, Cut> {
    host.at(directory);
    let read = match std::fs::read_dir(directory) {
        Ok(read) => read,
        Err(error) => {
            // What even root may not read, such as parts of /proc, is not there, as for `oscap`.
            let is_denied =
                error.kind() == std::io::ErrorKind::PermissionDenied && !rustix::process::geteuid().is_root();
            return Ok(Listing { is_denied, ..Listing::default() });
        }
    };
    let mut is_any_unnamed = false;
    let mut found = Vec::new();
    for entry in read.filter_map(Result::ok) {
        host.count_entry()?;
        let Ok(name) = entry.file_name().into_string() else {
            is_any_unnamed = true;
            continue;
        };
        // Where a directory does not say what an entry is, the entry is looked at: not where that does not answer.
        let kind = if host.is_guarded() && host.check(&entry.path()).is_err() {
            kind_by_name(directory, &name)
        } else {
            let Ok(file_type) = entry.file_type() else { continue };
            match () {
                () if file_type.is_dir() => Kind::Directory,
                () if file_type.is_symlink() => Kind::Link,
                () => Kind::Other,
            }
        };
        found.push((name, kind));
    }
    found.sort_unstable_by(|left, right| left.0.cmp(&right.0));
    let mut names = String::with_capacity(found.iter().map(|(name, _)| name.len()).sum());
    let mut entries = Vec::with_capacity(found.len());
    for (name, kind) in found {
        names.push_str(&name);
        let Ok(name_end) = u32::try_from(names.len()) else { break };
        entries.push(Entry { name_end, kind, seen: Cell::new(None) });
    }
    Ok(Listing { names: names.into_boxed_str(), entries: entries.into_boxed_slice(), is_any_unnamed, is_denied: false })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listed(host: &Host, directory: &Path) -> Vec<String> {
        let metadata = std::fs::metadata(directory).unwrap();
        let listing = host.tree.list(host, (metadata.dev(), metadata.ino()), directory).unwrap();
        (0..listing.len()).map(|at| listing.entry(at).0.to_owned()).collect()
    }

    #[test]
    fn a_directory_is_read_once_a_task() {
        let root = tempfile::tempdir().unwrap();
        for name in ["b", "a", "ä"] {
            std::fs::write(root.path().join(name), "").unwrap();
        }
        let host = Host::new(root.path());
        assert_eq!(listed(&host, root.path()), ["a", "b", "ä"]);
        std::fs::write(root.path().join("c"), "").unwrap();
        assert_eq!(listed(&host, root.path()), ["a", "b", "ä"]);
        assert_eq!(listed(&Host::new(root.path()), root.path()).len(), 4);
    }

    #[test]
    fn a_name_that_is_no_text_is_told_and_what_has_gone_is_empty() {
        use std::os::unix::ffi::OsStrExt as _;
        let root = tempfile::tempdir().unwrap();
        std::fs::write(root.path().join(std::ffi::OsStr::from_bytes(b"a\xff")), "").unwrap();
        let host = Host::new(root.path());
        let listing = host.tree.list(&host, (1, 1), root.path()).unwrap();
        assert_eq!((listing.len(), listing.is_any_unnamed), (0, true));
        let listing = host.tree.list(&host, (1, 2), &root.path().join("gone")).unwrap();
        assert_eq!((listing.len(), listing.is_denied), (0, false));
    }

    #[test]
    fn a_task_with_a_small_budget_keeps_little() {
        let root = tempfile::tempdir().unwrap();
        std::fs::write(root.path().join("a"), "").unwrap();
        let budget = proto::budget::Budget { memory_bytes: Some(100), ..proto::budget::Budget::default() };
        let host = Host::with_budget(root.path(), budget);
        assert_eq!(listed(&host, root.path()), ["a"]);
        std::fs::write(root.path().join("b"), "").unwrap();
        assert_eq!(listed(&host, root.path()), ["a", "b"]);
    }

    #[test]
    fn what_does_not_fit_is_read_again() {
        let root = tempfile::tempdir().unwrap();
        std::fs::write(root.path().join("a"), "").unwrap();
        let host = Host::new(root.path());
        host.tree.bytes.set(TREE_BYTES_MAX);
        assert_eq!(listed(&host, root.path()), ["a"]);
        std::fs::write(root.path().join("b"), "").unwrap();
        assert_eq!(listed(&host, root.path()), ["a", "b"]);
    }
}
