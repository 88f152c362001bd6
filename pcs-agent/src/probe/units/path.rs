//! Where unit files lie: systemd's directories in their order (systemd.unit(5)), what each has, and which file a name leads
//! to. The first directory that has a name wins; links make aliases, and a link to `/dev/null` or an empty file masks.

use std::collections::{BTreeMap, BTreeSet};
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt as _;

use super::name;
use crate::host::Host;
use crate::limits::LINK_DEPTH_MAX;
use crate::probe::ProbeError;

/// What a directory is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    /// What the administrator has set, for good.
    Configuration,
    /// What systemd or a program has set until the next boot.
    RunTime,
    /// What a program has started.
    Transient,
    /// What generators have made at boot.
    Generated,
    /// What packages have brought.
    Vendor,
}

use Purpose::{Configuration, Generated, RunTime, Transient, Vendor};

/// systemd's directories; the first one wins.
pub(super) const SEARCHED: [(&str, Purpose); 12] = [
    ("/etc/systemd/system.control", Configuration),
    ("/run/systemd/system.control", RunTime),
    ("/run/systemd/transient", Transient),
    ("/run/systemd/generator.early", Generated),
    (ADMINISTRATOR, Configuration),
    ("/etc/systemd/system.attached", Configuration),
    ("/run/systemd/system", RunTime),
    ("/run/systemd/generator", Generated),
    ("/usr/local/lib/systemd/system", Vendor),
    ("/usr/lib/systemd/system", Vendor),
    ("/lib/systemd/system", Vendor),
    ("/run/systemd/generator.late", Generated),
];

/// Where `systemctl enable` makes its links.
pub(super) const ADMINISTRATOR: &str = "/etc/systemd/system";

/// The ends of the directories that belong to a unit.
const FOLDERS: [&str; 4] = [".d", ".wants", ".requires", ".upholds"];

/// What a name in one of the directories is.
#[derive(Debug)]
pub(super) enum Entry {
    File,
    /// A link, and where it leads: an absolute path.
    Link(String),
}

/// Names in a directory, and what they are: none for what is neither a file nor a link.
type Listed = Vec<(String, Option<Entry>)>;

/// A directory of a unit, such as `a.target.wants`.
#[derive(Debug)]
pub(super) struct Folder {
    /// Whether it is itself a link.
    pub(super) is_link: bool,
    pub(super) entries: BTreeMap<String, Entry>,
}

/// One of systemd's directories.
#[derive(Debug)]
pub(super) struct Directory {
    pub(super) path: &'static str,
    pub(super) purpose: Purpose,
    /// Whether two of systemd's names lead here: which of them it tells depends on how it was built.
    pub(super) has_two_names: bool,
    identity: (u64, u64),
    pub(super) entries: BTreeMap<String, Entry>,
    pub(super) folders: BTreeMap<String, Folder>,
}

/// What a name leads to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Found {
    /// The unit's own name; another one than asked for where that is an alias.
    pub(super) id: String,
    pub(super) file: Where,
}

/// Which file a unit has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Where {
    /// None.
    Nowhere,
    /// A link to `/dev/null` or an empty file, at this path.
    Masked(String),
    /// In one of systemd's directories, by its place in [`LoadPath::directories`].
    In { directory: usize, path: String },
    /// Elsewhere, where a link in one of the directories leads.
    Linked(String),
}

/// systemd's directories, read.
#[derive(Debug, Default)]
pub(super) struct LoadPath {
    pub(super) directories: Vec<Directory>,
    /// What could not be taken, in words.
    pub(super) troubles: Vec<String>,
}

impl LoadPath {
    /// Reads all of them.
    pub(super) fn read(host: &Host) -> Result<Self, ProbeError> {
        let mut load_path = Self::default();
        for (path, purpose) in SEARCHED {
            let Ok(metadata) = host.stat(path) else { continue };
            let identity = (metadata.dev(), metadata.ino());
            if let Some(same) = load_path.directories.iter_mut().find(|other| other.identity == identity) {
                same.has_two_names = true;
                continue;
            }
            let Some(entries) = load_path.list(host, path)? else { continue };
            let mut directory = Directory {
                path,
                purpose,
                has_two_names: false,
                identity,
                entries: BTreeMap::new(),
                folders: BTreeMap::new(),
            };
            for (name, entry) in entries {
                if FOLDERS.iter().any(|end| name.ends_with(end)) {
                    let is_link = matches!(entry, Some(Entry::Link(_)));
                    if let Some(entries) = load_path.list(host, &format!("{path}/{name}"))? {
                        let entries = entries.into_iter().filter_map(|(name, entry)| Some((name, entry?))).collect();
                        directory.folders.insert(name, Folder { is_link, entries });
                    }
                } else if let (Some(entry), Some(_)) = (entry, name::split(&name)) {
                    directory.entries.insert(name, entry);
                }
            }
            load_path.directories.push(directory);
        }
        Ok(load_path)
    }

    /// What is in a directory; none where there is no such directory.
    fn list(&mut self, host: &Host, path: &str) -> Result<Option<Listed>, ProbeError> {
        let read = match host.read_dir(path) {
            Ok(read) => read,
            Err(error) => match error.kind() {
                ErrorKind::NotFound | ErrorKind::NotADirectory => return Ok(None),
                ErrorKind::PermissionDenied => return Err(ProbeError::Denied(path.to_owned())),
                // What a loop of links should lead to is not there.
                _ if error.raw_os_error() == Some(rustix::io::Errno::LOOP.raw_os_error()) => return Ok(None),
                _ => return Err(ProbeError::Broken(format!("{path}: {error}"))),
            },
        };
        let mut found = Vec::new();
        for entry in read.filter_map(Result::ok) {
            host.count_entry()?;
            let Ok(name) = entry.file_name().into_string() else {
                self.troubles.push(format!("a name in {path} is not UTF-8 and cannot be reported"));
                continue;
            };
            let Ok(file_type) = entry.file_type() else { continue };
            let kind = if file_type.is_symlink() {
                let target = std::fs::read_link(entry.path()).unwrap_or_default();
                Some(Entry::Link(absolute(path, &target.to_string_lossy())))
            } else {
                file_type.is_file().then_some(Entry::File)
            };
            let target_bytes = if let Some(Entry::Link(target)) = &kind { target.len() } else { 0 };
            host.count_found((size_of::<(String, Entry)>() + name.len() + target_bytes) as u64)?;
            found.push((name, kind));
        }
        Ok(Some(found))
    }

    /// Every name of a unit that has a file or a link.
    pub(super) fn names(&self) -> BTreeSet<&str> {
        self.directories.iter().flat_map(|directory| directory.entries.keys()).map(String::as_str).collect()
    }

    /// The first directory that has a name.
    pub(super) fn first(&self, name: &str) -> Option<(usize, &Entry)> {
        let mut directories = self.directories.iter().enumerate();
        directories.find_map(|(at, directory)| directory.entries.get(name).map(|entry| (at, entry)))
    }

    /// What a name leads to, over aliases and templates.
    pub(super) fn find(&self, host: &Host, name: &str) -> Found {
        let mut id = name.to_owned();
        let nowhere = |id: &str| Found { id: id.to_owned(), file: Where::Nowhere };
        let first = |id: &str| {
            let of_name = self.first(id).map(|(at, entry)| (at, id.to_owned(), entry));
            of_name.or_else(|| {
                let template = name::template(id)?;
                self.first(&template).map(|(at, entry)| (at, template, entry))
            })
        };
        let mut next = first(&id);
        for _ in 0..LINK_DEPTH_MAX {
            let Some((at, file_name, entry)) = next else { return nowhere(&id) };
            let path = format!("{}/{file_name}", self.directories[at].path);
            let Entry::Link(target) = entry else {
                let is_empty = host.lstat(&path).is_ok_and(|metadata| metadata.len() == 0);
                let file = if is_empty { Where::Masked(path) } else { Where::In { directory: at, path } };
                return Found { id, file };
            };
            if target == "/dev/null" {
                return Found { id, file: Where::Masked(path) };
            }
            let (parent, base) = target.rsplit_once('/').unwrap_or(("", target));
            let Some(at) = self.directory_of(host, parent) else {
                return Found { file: outside(host, path, target), id };
            };
            if base == file_name {
                next = self.directories[at].entries.get(base).map(|entry| (at, file_name, entry));
                continue;
            }
            if name::kind(base) != name::kind(&file_name) {
                return nowhere(&id);
            }
            id = match name::instance(&id) {
                Some(instance) if name::is_template(base) => name::of_template(base, instance),
                _ => base.to_owned(),
            };
            next = first(&id);
        }
        nowhere(name)
    }

    fn directory_of(&self, host: &Host, path: &str) -> Option<usize> {
        if let Some(at) = self.directories.iter().position(|directory| directory.path == path) {
            return Some(at);
        }
        let metadata = host.stat(path).ok()?;
        let identity = (metadata.dev(), metadata.ino());
        self.directories.iter().position(|directory| directory.identity == identity)
    }

    /// What lies in the directories of a unit with this end, by name; the first wins. A link to `/dev/null` and an empty file
    /// are there, as they hide what is further on.
    pub(super) fn in_folders(
        &self,
        names: &BTreeSet<String>,
        id: &str,
        end: &str,
    ) -> BTreeMap<String, (usize, String)> {
        let own = std::iter::once(id).chain(names.iter().map(String::as_str).filter(|name| *name != id));
        let mut groups: Vec<Vec<String>> = own.map(name::of_directories).collect();
        groups.push(vec![name::kind(id).to_owned()]);
        let mut found = BTreeMap::new();
        for group in groups {
            for (at, directory) in self.directories.iter().enumerate() {
                for folder_name in group.iter().map(|name| format!("{name}{end}")) {
                    let Some(folder) = directory.folders.get(&folder_name) else { continue };
                    for name in folder.entries.keys() {
                        let path = || (at, format!("{}/{folder_name}/{name}", directory.path));
                        found.entry(name.clone()).or_insert_with(path);
                    }
                }
            }
        }
        found
    }

    /// Where a link in a unit's directory leads; none for a file.
    pub(super) fn link(&self, at: usize, path: &str) -> Option<&str> {
        let below = path.strip_prefix(self.directories[at].path)?.strip_prefix('/')?;
        let (folder, name) = below.split_once('/')?;
        match self.directories[at].folders.get(folder)?.entries.get(name)? {
            Entry::Link(target) => Some(target),
            Entry::File => None,
        }
    }
}

/// What a link out of systemd's directories leads to.
fn outside(host: &Host, link: String, target: &str) -> Where {
    match host.stat(target) {
        Ok(metadata) if metadata.is_file() && metadata.len() > 0 => Where::Linked(target.to_owned()),
        Ok(metadata) if metadata.is_file() => Where::Masked(link),
        _ => Where::Nowhere,
    }
}

/// Whether a link or a file hides what others have under its name.
pub(super) fn is_mask(host: &Host, path: &str, target: Option<&str>) -> bool {
    target == Some("/dev/null") || host.stat(path).is_ok_and(|metadata| metadata.is_file() && metadata.len() == 0)
}

/// Where a link leads, without `.` and `..`.
fn absolute(directory: &str, target: &str) -> String {
    let whole = if target.starts_with('/') { target.to_owned() } else { format!("{directory}/{target}") };
    let mut parts = Vec::new();
    for part in whole.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    format!("/{}", parts.join("/"))
}
