//! Which files an object means: `filepath`, or `path` with `filename`, with their behaviors
//! (`FileBehaviors` of the unix schema). Shared by every probe over files.

use std::collections::{BTreeSet, HashSet};
use std::os::unix::fs::MetadataExt as _;
use std::rc::Rc;

use oval::compare::CompareError;
use oval::pattern::{Flags, Pattern};
use oval::resolve::{Query, QueryEntity, QueryFilter};
use proto::observation::ItemEntity;
use proto::plan::Operation;

use self::directory::{Child, Directory};
use super::ProbeError;
use super::limits::CANDIDATES_MAX;
use super::partition;
use super::prune::{Prune, starts};
use super::sieve::Sieve;
use super::tree::{Identity, Kind, Listing, Seen};
use crate::host::{Away, Cut, Host};
use crate::limits::{DIRECTORY_DEPTH_MAX, TASK_ENTRIES_MAX};
use crate::mounts::is_remote;

mod directory;

/// A file, or (without a name) a directory as such.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Entry {
    /// The directory, as the object spells it.
    pub(super) path: String,
    /// The name in it.
    pub(super) filename: Option<String>,
}

impl Entry {
    pub(super) fn filepath(&self) -> String {
        match &self.filename {
            Some(name) => joined(&self.path, name),
            None => self.path.clone(),
        }
    }

    /// What names it in an item: `filepath`, where it is not a directory that was asked for as one, `path` and `filename`.
    pub(super) fn entities(&self) -> Vec<ItemEntity> {
        let filepath = self.filename.as_ref().map(|_| ItemEntity::text("filepath", self.filepath()));
        let mut entities: Vec<ItemEntity> = filepath.into_iter().collect();
        entities.push(ItemEntity::text("path", &self.path));
        entities.push(ItemEntity::text("filename", self.filename.as_deref().unwrap_or_default()));
        entities
    }
}

/// The path of something in a directory.
pub(super) fn joined(directory: &str, name: &str) -> String {
    if directory.ends_with('/') { format!("{directory}{name}") } else { format!("{directory}/{name}") }
}

/// A directory's path as its files have it: without the slash that joins them.
fn unslashed(directory: &str) -> &str {
    match directory.strip_suffix('/') {
        Some("") | None => directory,
        Some(path) => path,
    }
}

/// What was found, and why it is not all.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) entries: Vec<Entry>,
    pub(super) cut: Option<String>,
    /// The first name that cannot be told.
    unnamed: Option<String>,
    /// The first directory that is too deep.
    deep: Option<String>,
    /// Directories that could not be read.
    pub(super) denied: Vec<String>,
}

impl Found {
    /// Why it is incomplete, in words, each reason once.
    pub(super) fn gaps(&self) -> impl Iterator<Item = &String> {
        [&self.cut, &self.unnamed, &self.deep].into_iter().flatten()
    }
}

/// The files that the query means.
pub(super) fn find(host: &Host, query: &Query) -> Result<Found, ProbeError> {
    find_some(host, query, &[])
}

/// The files that the query means, without those that the filters are certain to drop.
pub(super) fn find_some(host: &Host, query: &Query, filters: &[QueryFilter]) -> Result<Found, ProbeError> {
    Walker::new(host, query, filters)?.find(query)
}

/// Leaves out what was found before: from several directories, a walk may come to the same entry.
fn once(entries: &mut Vec<Entry>) {
    let is_first: Vec<bool> = {
        let mut known = HashSet::with_capacity(entries.len());
        entries.iter().map(|entry| known.insert(entry)).collect()
    };
    let mut is_first = is_first.into_iter();
    entries.retain(|_| is_first.next().unwrap_or(true));
}

/// `recurse_file_system`.
enum FileSystems {
    All,
    Local(BTreeSet<u64>),
    Defined,
}

impl FileSystems {
    fn of(host: &Host, query: &Query) -> Result<Self, ProbeError> {
        Ok(match query.behavior("recurse_file_system", "all") {
            "local" => {
                let mounts = partition::mounts(host)?;
                let is_local = |mount: &&partition::Mount| !is_remote(&mount.fs_type, &mount.device);
                let device = |mount: &partition::Mount| match host.place_of(&mount.target, false) {
                    Ok(located) => std::fs::symlink_metadata(located).ok().map(|metadata| metadata.dev()),
                    Err(away) => Some(away.device()),
                };
                Self::Local(mounts.iter().filter(is_local).filter_map(device).collect())
            }
            "defined" => Self::Defined,
            _ => Self::All,
        })
    }

    /// Whether a walk that began on one device would enter a mount that does not answer, if it did.
    fn allow_away(&self, start: u64, away: &Away) -> bool {
        !(matches!(self, Self::Local(_)) && away.is_remote()) && self.allow(start, away.device())
    }

    fn allow(&self, start: u64, device: u64) -> bool {
        match self {
            Self::All => true,
            // Below another root there are no mounts to know: everything there is local.
            Self::Local(devices) => devices.is_empty() || devices.contains(&device),
            Self::Defined => device == start,
        }
    }
}

/// The directories that a walk is in, and those that it does not enter again.
#[derive(Debug, Default)]
struct Trail {
    /// Those that are open above.
    open: BTreeSet<Identity>,
    /// The devices of `/proc` and `/sys`.
    kernel: Vec<u64>,
    /// Those that were entered from there.
    passed: BTreeSet<Identity>,
    /// The next one that is entered is only on the way: the walk may come back to it.
    is_on_the_way: bool,
}

impl Trail {
    fn of(host: &Host) -> Self {
        let device = |path: &str| host.lstat(path).ok().map(|metadata| metadata.dev());
        let root = device("/");
        let kernel = ["/proc", "/sys"].into_iter().filter_map(device).filter(|found| Some(*found) != root).collect();
        Self { kernel, ..Self::default() }
    }

    /// Whether the walk goes into this directory. Only one that is open above is a cycle; the same one by two links has two
    /// paths. But the kernel's links lead everywhere by more ways than can be gone: what is there is entered once.
    fn enter(&mut self, directory: Identity) -> bool {
        let is_kernels = |(device, _): &Identity| self.kernel.contains(device);
        let is_from_there = is_kernels(&directory) || self.open.iter().any(is_kernels);
        if is_from_there && !self.passed.insert(directory) {
            return false;
        }
        std::mem::take(&mut self.is_on_the_way) || self.open.insert(directory)
    }

    fn leave(&mut self, directory: Identity) {
        self.open.remove(&directory);
    }
}

/// Called with a directory, what is in it, the position of an entry there, and what that leads to.
type Visit<'call, W> = dyn FnMut(&mut W, &Directory, &Listing, usize, &Child) -> Result<(), ProbeError> + 'call;

struct Walker<'host> {
    host: &'host Host,
    found: Found,
    file_systems: FileSystems,
    sieve: Sieve<'host>,
    /// Entries that may still be gone through. Links fan out: few directories, read once, may have very many paths.
    entries_left: u64,
}

/// How far a recursion goes.
struct Recursion {
    depth_max: Option<usize>,
    directories: bool,
    links: bool,
}

impl<'host> Walker<'host> {
    fn new(host: &'host Host, query: &Query, filters: &'host [QueryFilter]) -> Result<Self, ProbeError> {
        Ok(Self {
            host,
            found: Found::default(),
            file_systems: FileSystems::of(host, query)?,
            sieve: Sieve::of(filters),
            entries_left: TASK_ENTRIES_MAX,
        })
    }
}

impl Walker<'_> {
    fn find(mut self, query: &Query) -> Result<Found, ProbeError> {
        let outcome = if let Some(filepath) = query.entity("filepath") {
            self.by_filepath(filepath)
        } else {
            match query.entity("path") {
                Some(path) => self.by_path(query, path, query.entity("filename")),
                None => Ok(()),
            }
        };
        match outcome {
            Ok(()) => {}
            Err(ProbeError::Cut(cut)) => self.found.cut = Some(cut.to_string()),
            Err(error) => return Err(error),
        }
        once(&mut self.found.entries);
        Ok(self.found)
    }

    /// The file of this path.
    fn named(&mut self, filepath: &str) -> Result<(), ProbeError> {
        let Some((path, name)) = filepath.rsplit_once('/').filter(|(_, name)| !name.is_empty()) else { return Ok(()) };
        let Ok(metadata) = self.host.lstat(filepath) else { return Ok(()) };
        // A link counts as what it leads to: a `filepath` means no directory.
        if self.host.stat(filepath).is_ok_and(|target| target.is_dir()) {
            return Ok(());
        }
        self.push(if path.is_empty() { "/" } else { path }, Some(name), Seen::from(&metadata))
    }

    fn by_filepath(&mut self, filepath: &QueryEntity) -> Result<(), ProbeError> {
        if let Some(values) = filepath.exact() {
            return values.iter().try_for_each(|value| self.named(value));
        }
        // A broken pattern finds nothing, as in `oscap`; the text is checked before the walk.
        if filepath.matches("/").is_err() {
            return Err(ProbeError::Broken("the pattern of `filepath` is not a regular expression".to_owned()));
        }
        let matches = matcher(filepath)?;
        let mut trail = Trail::of(self.host);
        let prune = Prune::of(filepath);
        let mut whole = String::new();
        for start in starts(filepath) {
            trail.is_on_the_way = start.is_on_the_way;
            let Some(start) = Directory::at(self.host, &start.directory) else { continue };
            let device = start.identity.0;
            self.walk_matching(
                &start,
                (0, device),
                &prune,
                &mut trail,
                &mut |walker, directory, listing, at, child| {
                    let (name, kind) = listing.entry(at);
                    if kind == Kind::Directory || matches!(child, Child::Directory(_)) {
                        return Ok(());
                    }
                    whole.clear();
                    whole.push_str(&directory.path);
                    if !whole.ends_with('/') {
                        whole.push('/');
                    }
                    whole.push_str(name);
                    if !matches(&whole)? {
                        return Ok(());
                    }
                    match child {
                        // It may be a link to a directory.
                        Child::Away(away) => walker.host.meet(away),
                        _ => walker.entry(directory, listing, at)?,
                    }
                    Ok(())
                },
            )?;
        }
        Ok(())
    }

    fn by_path(&mut self, query: &Query, path: &QueryEntity, filename: Option<&QueryEntity>) -> Result<(), ProbeError> {
        let filename = filename.filter(|filename| !filename.is_nil);
        let wanted = filename.map(Name::of).transpose()?;
        let wanted = wanted.as_ref();
        for start in self.directories(path)? {
            match query.behavior("recurse_direction", "none") {
                "down" => {
                    let recurse = query.behavior("recurse", "symlinks and directories");
                    let recursion = Recursion {
                        depth_max: query
                            .behavior("max_depth", "-1")
                            .parse::<i64>()
                            .ok()
                            .and_then(|depth| usize::try_from(depth).ok()),
                        directories: recurse.contains("directories"),
                        links: recurse.contains("symlinks"),
                    };
                    let device = start.identity.0;
                    self.down(&start, 0, device, &recursion, wanted, &mut BTreeSet::new())?;
                }
                "up" => {
                    let depth_max = query.behavior("max_depth", "-1").parse::<i64>().unwrap_or(-1);
                    self.up(start, depth_max, wanted)?;
                }
                _ => self.here(&start, wanted)?,
            }
        }
        Ok(())
    }

    /// The directories that `path` means.
    fn directories(&mut self, path: &QueryEntity) -> Result<Vec<Directory>, ProbeError> {
        if let Some(values) = path.exact() {
            let named = values.iter().filter(|value| !value.is_empty());
            let mut directories: Vec<Directory> = named.filter_map(|value| Directory::at(self.host, value)).collect();
            directories.dedup_by(|left, right| left.path == right.path);
            return Ok(directories);
        }
        path.matches("/")?;
        let matches = matcher(path)?;
        let mut directories = Vec::new();
        let mut trail = Trail::of(self.host);
        let prune = Prune::of(path);
        for start in starts(path) {
            trail.is_on_the_way = start.is_on_the_way;
            let Some(start) = Directory::at(self.host, &start.directory) else { continue };
            if matches(&start.path)? {
                directories.extend(Directory::at(self.host, &start.path));
            }
            let device = start.identity.0;
            self.walk_matching(&start, (0, device), &prune, &mut trail, &mut |walker, parent, listing, at, child| {
                let (name, kind) = listing.entry(at);
                if matches!(child, Child::Directory(_) | Child::Away(_)) && matches(&joined(&parent.path, name))? {
                    match parent.child(walker.host, name, kind) {
                        Child::Directory(directory) => directories.push(directory),
                        Child::Away(away) => walker.host.meet(&away),
                        Child::PassedOver | Child::Other => {}
                    }
                }
                if directories.len() > CANDIDATES_MAX { Err(Cut::Items.into()) } else { Ok(()) }
            })?;
        }
        Ok(directories)
    }

    /// Visits everything below a directory, links followed, by each path that leads there.
    fn walk_matching(
        &mut self,
        directory: &Directory,
        (depth, device): (usize, u64),
        prune: &Prune,
        trail: &mut Trail,
        visit: &mut Visit<'_, Self>,
    ) -> Result<(), ProbeError> {
        self.note_depth(&directory.path, depth);
        if depth > DIRECTORY_DEPTH_MAX
            || !self.file_systems.allow(device, directory.identity.0)
            || !trail.enter(directory.identity)
        {
            return Ok(());
        }
        let listing = self.list(directory)?;
        self.count(&listing)?;
        for at in 0..listing.len() {
            let (name, kind) = listing.entry(at);
            // Whatever a link leads to, a directory below it is one more directory.
            let child = directory.child(self.host, name, kind);
            if matches!(&child, Child::Directory(child) if trail.open.contains(&child.identity)) {
                continue;
            }
            visit(self, directory, &listing, at, &child)?;
            match child {
                Child::Directory(child) if prune.may_match_below(&child.path) => {
                    self.walk_matching(&child, (depth + 1, device), prune, trail, visit)?;
                }
                Child::Away(away)
                    if self.file_systems.allow_away(device, &away)
                        && prune.may_match_below(&joined(&directory.path, name)) =>
                {
                    self.host.meet(&away);
                }
                _ => {}
            }
        }
        trail.leave(directory.identity);
        Ok(())
    }

    /// A directory's own entries, or the directory as such.
    fn here(&mut self, directory: &Directory, filename: Option<&Name<'_>>) -> Result<(), ProbeError> {
        let Some(filename) = filename else {
            let Ok(metadata) = self.host.lstat(&directory.path) else { return Ok(()) };
            return self.push(&directory.path, None, Seen::from(&metadata));
        };
        if let Some(values) = filename.exact {
            for value in values.iter().filter(|value| !value.is_empty() && !value.contains('/')) {
                let located = directory.located.join(value);
                if let Err(away) = self.host.check(&located) {
                    self.host.meet(&away);
                    continue;
                }
                let metadata = std::fs::symlink_metadata(located);
                if let Some(metadata) = metadata.ok().filter(|metadata| !metadata.is_dir()) {
                    self.push(unslashed(&directory.path), Some(value), Seen::from(&metadata))?;
                }
            }
            return Ok(());
        }
        let listing = self.list(directory)?;
        for at in 0..listing.len() {
            let (name, kind) = listing.entry(at);
            if kind != Kind::Directory && (filename.matches)(name)? {
                self.entry(directory, &listing, at)?;
            }
        }
        Ok(())
    }

    fn down(
        &mut self,
        directory: &Directory,
        depth: usize,
        device: u64,
        recursion: &Recursion,
        filename: Option<&Name<'_>>,
        open: &mut BTreeSet<Identity>,
    ) -> Result<(), ProbeError> {
        self.note_depth(&directory.path, depth);
        // Only a directory that is open above is a cycle; the same one by two links counts twice.
        if depth > DIRECTORY_DEPTH_MAX
            || !self.file_systems.allow(device, directory.identity.0)
            || !open.insert(directory.identity)
        {
            return Ok(());
        }
        self.here(directory, filename)?;
        if recursion.depth_max.is_none_or(|depth_max| depth < depth_max) {
            let listing = self.list(directory)?;
            self.count(&listing)?;
            for at in 0..listing.len() {
                let (name, kind) = listing.entry(at);
                let is_entered = match kind {
                    Kind::Directory => recursion.directories,
                    Kind::Link => recursion.links,
                    Kind::Other => false,
                };
                // Where directories are what is asked for, those that are not entered are told too.
                if !is_entered && (filename.is_some() || kind != Kind::Directory) {
                    continue;
                }
                let child = match directory.child(self.host, name, kind) {
                    Child::Directory(child) => child,
                    Child::Away(away) => {
                        // One that is not entered is told all the same.
                        if !is_entered || self.file_systems.allow_away(device, &away) {
                            self.host.meet(&away);
                        }
                        continue;
                    }
                    Child::PassedOver | Child::Other => continue,
                };
                if is_entered {
                    self.down(&child, depth + 1, device, recursion, filename, open)?;
                } else if !open.contains(&child.identity) {
                    self.here(&child, None)?;
                }
            }
        }
        open.remove(&directory.identity);
        Ok(())
    }

    fn up(&mut self, start: Directory, depth_max: i64, filename: Option<&Name<'_>>) -> Result<(), ProbeError> {
        let device = start.identity.0;
        let mut directory = start;
        let mut depth = 0;
        loop {
            if self.file_systems.allow(device, directory.identity.0) {
                self.here(&directory, filename)?;
            }
            if directory.path == "/" || (depth_max >= 0 && depth >= depth_max) {
                return Ok(());
            }
            let Some(parent) = Directory::at(self.host, parent(&directory.path)) else { return Ok(()) };
            directory = parent;
            depth += 1;
        }
    }

    fn list(&mut self, directory: &Directory) -> Result<Rc<Listing>, ProbeError> {
        let listing = self.host.tree.list(self.host, directory.identity, &directory.located)?;
        if listing.is_denied && self.found.denied.len() < CANDIDATES_MAX {
            self.found.denied.push(directory.path.clone());
        }
        if listing.is_any_unnamed {
            let words = || format!("a name in {} is not UTF-8 and cannot be reported", directory.path);
            self.found.unnamed.get_or_insert_with(words);
        }
        self.host.breathe_now_and_then()?;
        Ok(listing)
    }

    fn note_depth(&mut self, directory: &str, depth: usize) {
        if depth > DIRECTORY_DEPTH_MAX {
            let shown: String = directory.chars().take(60).collect();
            let words = || format!("cut off: directories deeper than {DIRECTORY_DEPTH_MAX} below {shown}…");
            self.found.deep.get_or_insert_with(words);
        }
    }

    /// Counts what a walk goes through.
    fn count(&mut self, listing: &Listing) -> Result<(), Cut> {
        self.entries_left = self.entries_left.checked_sub(listing.len() as u64).ok_or(Cut::Entries)?;
        Ok(())
    }

    /// An entry of a directory that is wanted by its name.
    fn entry(&mut self, directory: &Directory, listing: &Listing, at: usize) -> Result<(), ProbeError> {
        let name = listing.entry(at).0;
        let path = unslashed(&directory.path);
        if self.sieve.is_empty() {
            return self.keep(path, Some(name));
        }
        match listing.seen(self.host, at, &directory.located) {
            Ok(Some(seen)) => self.push(path, Some(name), seen),
            Ok(None) => Ok(()),
            Err(away) => {
                self.host.meet(&away);
                Ok(())
            }
        }
    }

    fn push(&mut self, path: &str, filename: Option<&str>, seen: Seen) -> Result<(), ProbeError> {
        if self.sieve.may_keep(seen, path, filename) { self.keep(path, filename) } else { Ok(()) }
    }

    fn keep(&mut self, path: &str, filename: Option<&str>) -> Result<(), ProbeError> {
        self.found.entries.push(Entry { path: path.to_owned(), filename: filename.map(str::to_owned) });
        if self.found.entries.len() > CANDIDATES_MAX { Err(Cut::Items.into()) } else { Ok(()) }
    }
}

/// A name that is asked for, compiled once.
struct Name<'query> {
    exact: Option<&'query [String]>,
    matches: Matcher<'query>,
}

/// Whether a text is what an entity asks for.
type Matcher<'query> = Box<dyn Fn(&str) -> Result<bool, CompareError> + 'query>;

impl<'query> Name<'query> {
    fn of(entity: &'query QueryEntity) -> Result<Self, ProbeError> {
        entity.matches("")?;
        Ok(Self { exact: entity.exact(), matches: matcher(entity)? })
    }
}

/// An entity's question, with its pattern compiled once where there is one.
fn matcher(entity: &QueryEntity) -> Result<Matcher<'_>, ProbeError> {
    let pattern = match entity.values.as_slice() {
        [only] if entity.operation == Operation::PatternMatch && !entity.is_nil => {
            Some(Pattern::new(only, Flags::default()).map_err(CompareError::from)?)
        }
        _ => None,
    };
    Ok(Box::new(move |actual: &str| match &pattern {
        Some(pattern) => Ok(pattern.is_match(actual.as_bytes())?),
        None => entity.matches(actual),
    }))
}

/// The directory that a directory is in, by its path.
fn parent(path: &str) -> &str {
    let path = path.trim_end_matches('/');
    let parent = path.rsplit_once('/').map_or("", |(parent, _)| parent).trim_end_matches('/');
    if parent.is_empty() { "/" } else { parent }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proto::plan::{Check, Datatype};
    use std::collections::BTreeMap;
    use std::os::unix::fs::symlink;

    fn tree() -> (tempfile::TempDir, Host) {
        let root = tempfile::tempdir().unwrap();
        let at = |path: &str| root.path().join(path);
        std::fs::create_dir_all(at("etc/ssh/sshd_config.d/deep")).unwrap();
        for file in [
            "etc/ssh/sshd_config",
            "etc/ssh/sshd_config.d/a.conf",
            "etc/ssh/sshd_config.d/b.txt",
            "etc/ssh/sshd_config.d/deep/c.conf",
        ] {
            std::fs::write(at(file), "x").unwrap();
        }
        symlink("/etc/ssh/sshd_config.d", at("etc/ssh/link")).unwrap();
        symlink("/etc/ssh", at("etc/ssh/sshd_config.d/deep/back")).unwrap();
        let host = Host::new(root.path());
        (root, host)
    }

    fn entity(name: &str, operation: Operation, value: &str) -> QueryEntity {
        QueryEntity {
            name: name.into(),
            operation,
            datatype: Datatype::String,
            values: vec![value.into()],
            var_check: Check::All,
            is_nil: value.is_empty(),
        }
    }

    fn found(entities: Vec<QueryEntity>, behaviors: &[(&str, &str)]) -> Vec<String> {
        let (_root, host) = tree();
        let behaviors: BTreeMap<String, String> =
            behaviors.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let query = Query { kind: "unix:file".into(), entities, behaviors };
        let mut found: Vec<String> = find(&host, &query).unwrap().entries.iter().map(Entry::filepath).collect();
        found.sort();
        found
    }

    #[test]
    fn a_filepath_means_files_and_never_directories() {
        use Operation::{Equals, PatternMatch};
        assert_eq!(found(vec![entity("filepath", Equals, "/etc/ssh/sshd_config")], &[]), ["/etc/ssh/sshd_config"]);
        assert!(found(vec![entity("filepath", Equals, "/etc/ssh/sshd_config.d")], &[]).is_empty());
        let pattern = entity("filepath", PatternMatch, r"^/etc/ssh/sshd_config\.d/[^/]+\.conf$");
        assert_eq!(found(vec![pattern], &[]), ["/etc/ssh/sshd_config.d/a.conf"]);
    }

    #[test]
    fn path_and_filename_mean_a_directorys_own_files() {
        use Operation::{Equals, PatternMatch};
        let query =
            || vec![entity("path", Equals, "/etc/ssh/sshd_config.d/"), entity("filename", PatternMatch, r"\.conf$")];
        assert_eq!(found(query(), &[]), ["/etc/ssh/sshd_config.d/a.conf"]);
        let down = found(query(), &[("recurse_direction", "down"), ("recurse", "directories")]);
        assert_eq!(down, ["/etc/ssh/sshd_config.d/a.conf", "/etc/ssh/sshd_config.d/deep/c.conf"]);
        assert_eq!(found(query(), &[("recurse_direction", "down"), ("max_depth", "0")]).len(), 1);
    }

    #[test]
    fn links_that_lead_back_end_the_walk() {
        use Operation::{Equals, PatternMatch};
        let query = vec![entity("path", Equals, "/etc/ssh"), entity("filename", PatternMatch, r"^c\.conf$")];
        let everywhere = found(query, &[("recurse_direction", "down")]);
        assert!(everywhere.contains(&"/etc/ssh/link/deep/c.conf".to_owned()), "{everywhere:?}");
        assert!(everywhere.len() < 10);
    }

    #[test]
    fn by_two_links_a_directory_is_found_twice_and_by_a_cycle_never() {
        use Operation::{Equals, PatternMatch};
        let files = found(vec![entity("filepath", PatternMatch, r"^/etc/ssh/.*/c\.conf$")], &[]);
        assert_eq!(files, ["/etc/ssh/link/deep/c.conf", "/etc/ssh/sshd_config.d/deep/c.conf"]);
        let directories =
            found(vec![entity("path", PatternMatch, "^/etc/ssh/.*"), entity("filename", Equals, "")], &[]);
        let both = ["/etc/ssh/link", "/etc/ssh/link/deep", "/etc/ssh/sshd_config.d", "/etc/ssh/sshd_config.d/deep"];
        assert_eq!(directories, both);
    }

    #[test]
    fn what_a_plain_pattern_spells_is_left_and_come_to_again() {
        use Operation::{Equals, PatternMatch};
        // `back` leads to the directory in which the walk begins.
        let files = found(vec![entity("filepath", PatternMatch, r"^/etc/ssh/sshd_config\.d/deep")], &[]);
        let all =
            ["link/a.conf", "link/b.txt", "sshd_config", "sshd_config.d/a.conf", "sshd_config.d/b.txt", "../c.conf"];
        let expect = all.map(|file| format!("/etc/ssh/sshd_config.d/deep/back/{file}").replace("back/../", ""));
        assert_eq!(files, expect);
        let plain = found(vec![entity("path", PatternMatch, "^/etc/ssh/link"), entity("filename", Equals, "")], &[]);
        let others = ["", "/deep", "/deep/back"];
        assert_eq!(plain, others.map(|name| format!("/etc/ssh/link{name}")));
        let anchored = found(vec![entity("filepath", PatternMatch, "^/etc/ssh/link/.*fig$")], &[]);
        assert_eq!(anchored, ["/etc/ssh/link/deep/back/sshd_config"]);
    }

    #[test]
    fn links_that_fan_out_end_at_the_budget() {
        let root = tempfile::tempdir().unwrap();
        let names = ["a", "b", "c", "d", "e", "f", "g", "h"];
        for name in names {
            std::fs::create_dir(root.path().join(name)).unwrap();
            for other in names {
                symlink(format!("/{other}"), root.path().join(name).join(other)).unwrap();
            }
        }
        let host = Host::new(root.path());
        let entities = vec![entity("filepath", Operation::PatternMatch, "^/.*/none$")];
        let query = Query { kind: "unix:file".into(), entities, behaviors: BTreeMap::new() };
        let mut walker = Walker::new(&host, &query, &[]).unwrap();
        walker.entries_left = 1_000;
        assert_eq!(walker.find(&query).unwrap().cut, Some(Cut::Entries.to_string()));
    }

    #[test]
    fn what_is_in_or_behind_the_kernels_file_systems_is_entered_once() {
        let mut trail = Trail { kernel: vec![2], ..Trail::default() };
        let (root, process, elsewhere) = ((1, 1), (2, 1), (1, 2));
        assert!(trail.enter(root) && trail.enter(process) && trail.enter(elsewhere));
        trail.leave(elsewhere);
        assert!(!trail.enter(elsewhere));
        trail.leave(process);
        assert!(!trail.enter(process));
        for _ in 0..2 {
            assert!(trail.enter(elsewhere));
            trail.leave(elsewhere);
        }
    }

    #[test]
    fn an_entry_that_is_come_to_twice_is_told_once() {
        use Operation::{Equals, PatternMatch};
        let everywhere = vec![entity("path", PatternMatch, "^/etc/ssh/sshd.*"), entity("filename", Equals, "c.conf")];
        let down = [("recurse_direction", "down"), ("recurse", "directories")];
        assert_eq!(found(everywhere, &down), ["/etc/ssh/sshd_config.d/deep/c.conf"]);
        let mut twice = entity("filepath", Equals, "/etc/ssh/sshd_config");
        twice.values = vec![twice.values[0].clone(), "/etc/ssh/link/a.conf".to_owned(), twice.values[0].clone()];
        twice.var_check = Check::AtLeastOne;
        assert_eq!(found(vec![twice], &[]), ["/etc/ssh/link/a.conf", "/etc/ssh/sshd_config"]);
    }

    #[test]
    fn a_filepath_that_is_a_link_to_a_directory_finds_nothing() {
        use Operation::Equals;
        assert!(found(vec![entity("filepath", Equals, "/etc/ssh/link")], &[]).is_empty());
        let name = vec![entity("path", Equals, "/etc/ssh"), entity("filename", Equals, "link")];
        assert_eq!(found(name, &[]), ["/etc/ssh/link"]);
    }

    #[test]
    fn an_empty_path_finds_nothing() {
        let empty = || QueryEntity { is_nil: false, ..entity("path", Operation::Equals, "") };
        assert!(found(vec![empty(), entity("filename", Operation::Equals, "")], &[]).is_empty());
        assert!(found(vec![empty(), entity("filename", Operation::PatternMatch, ".*")], &[]).is_empty());
    }

    #[test]
    fn slashes_stay_as_they_are_but_for_the_one_before_the_name() {
        use Operation::{Equals, PatternMatch};
        let (_root, host) = tree();
        let check = |entities, expect: &[(&str, Option<&str>)]| {
            let query = Query { kind: "unix:file".into(), entities, behaviors: BTreeMap::new() };
            let found = find(&host, &query).unwrap().entries;
            let told: Vec<_> = found.iter().map(|entry| (entry.path.as_str(), entry.filename.as_deref())).collect();
            assert_eq!(told, expect);
        };
        let filepath = |path| vec![entity("filepath", Equals, path)];
        check(filepath("//etc//ssh//sshd_config"), &[("//etc//ssh/", Some("sshd_config"))]);
        check(filepath("//etc//ssh/sshd_config"), &[("//etc//ssh", Some("sshd_config"))]);
        let directory = |path| vec![entity("path", Equals, path), entity("filename", Equals, "")];
        check(directory("//etc//ssh//"), &[("//etc//ssh//", None)]);
        check(directory("//"), &[("//", None)]);
        let name = |path| vec![entity("path", Equals, path), entity("filename", PatternMatch, "^sshd_config$")];
        check(name("/etc/ssh/"), &[("/etc/ssh", Some("sshd_config"))]);
        check(name("/etc/ssh//"), &[("/etc/ssh/", Some("sshd_config"))]);
        assert_eq!([joined("/", "a"), joined("/a/", "b"), joined("/a", "b")], ["/a", "/a/b", "/a/b"]);
        assert_eq!(["//a//b//", "/a", "//", "/"].map(parent), ["//a", "/", "/", "/"]);
    }

    #[test]
    fn directories_that_only_links_lead_into_are_told_and_not_entered() {
        use Operation::{Equals, PatternMatch};
        let links = |max_depth| [("recurse_direction", "down"), ("recurse", "symlinks"), ("max_depth", max_depth)];
        let directory = || vec![entity("path", Equals, "/etc/ssh"), entity("filename", Equals, "")];
        let all = ["/etc/ssh", "/etc/ssh/link", "/etc/ssh/link/deep", "/etc/ssh/sshd_config.d"];
        assert_eq!(found(directory(), &links("-1")), all);
        assert_eq!(found(directory(), &links("1")), ["/etc/ssh", "/etc/ssh/link", "/etc/ssh/sshd_config.d"]);
        assert_eq!(found(directory(), &links("0")), ["/etc/ssh"]);
        let files = vec![entity("path", Equals, "/etc/ssh"), entity("filename", PatternMatch, r"\.conf$")];
        assert_eq!(found(files, &links("-1")), ["/etc/ssh/link/a.conf"]);
        // Where the walk began is a cycle, though it would not be entered: `/back/link/deep` is not told.
        let deep = vec![entity("path", Equals, "/etc/ssh/sshd_config.d/deep"), entity("filename", Equals, "")];
        let told =
            ["", "/back", "/back/link", "/back/sshd_config.d"].map(|at| format!("/etc/ssh/sshd_config.d/deep{at}"));
        assert_eq!(found(deep, &links("-1")), told);
    }

    #[test]
    fn a_nil_filename_means_the_directory() {
        use Operation::Equals;
        let query = vec![entity("path", Equals, "/etc/ssh"), entity("filename", Equals, "")];
        assert_eq!(found(query, &[]), ["/etc/ssh"]);
    }
}
