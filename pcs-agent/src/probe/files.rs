//! Which files an object means: `filepath`, or `path` with `filename`, with their behaviors
//! (`FileBehaviors` of the unix schema). Shared by every probe over files.

use std::collections::BTreeSet;
use std::fs::Metadata;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::rc::Rc;

use oval::compare::CompareError;
use oval::pattern::{Flags, Pattern};
use oval::resolve::{Query, QueryEntity, QueryFilter};
use proto::plan::Operation;

use super::ProbeError;
use super::limits::CANDIDATES_MAX;
use super::partition;
use super::prune::Prune;
use super::sieve::Sieve;
use super::tree::{Identity, Kind, Listing, Seen};
use crate::host::{Cut, Host};
use crate::limits::DIRECTORY_DEPTH_MAX;

/// A file, or (without a name) a directory as such.
#[derive(Debug, Clone, PartialEq, Eq)]
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
}

/// The path of something in a directory.
pub(super) fn joined(directory: &str, name: &str) -> String {
    if directory == "/" { format!("/{name}") } else { format!("{directory}/{name}") }
}

/// What was found, and why it is not all.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) entries: Vec<Entry>,
    pub(super) cut: Option<String>,
    /// Directories that could not be read.
    pub(super) denied: Vec<String>,
}

/// The files that the query means.
pub(super) fn find(host: &Host, query: &Query) -> Result<Found, ProbeError> {
    find_some(host, query, &[])
}

/// The files that the query means, without those that the filters are certain to drop.
pub(super) fn find_some(host: &Host, query: &Query, filters: &[QueryFilter]) -> Result<Found, ProbeError> {
    let file_systems = FileSystems::of(host, query)?;
    let mut walker = Walker { host, found: Found::default(), file_systems, sieve: Sieve::of(filters) };
    let outcome = if let Some(filepath) = query.entity("filepath") {
        walker.by_filepath(filepath)
    } else {
        match query.entity("path") {
            Some(path) => walker.by_path(query, path, query.entity("filename")),
            None => Ok(()),
        }
    };
    match outcome {
        Ok(()) => {}
        Err(ProbeError::Cut(cut)) => walker.found.cut = Some(cut.to_string()),
        Err(error) => return Err(error),
    }
    Ok(walker.found)
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
                let is_local = |mount: &&partition::Mount| {
                    !matches!(
                        mount.fs_type.as_str(),
                        "nfs"
                            | "nfs4"
                            | "cifs"
                            | "smbfs"
                            | "smb3"
                            | "afs"
                            | "ceph"
                            | "9p"
                            | "autofs"
                            | "fuse.sshfs"
                            | "ncpfs"
                            | "coda"
                    ) && !mount.device.starts_with("//")
                        && !mount.device.contains(":/")
                };
                let devices = mounts.iter().filter(is_local).filter_map(|mount| host.lstat(&mount.target).ok());
                Self::Local(devices.map(|metadata| metadata.dev()).collect())
            }
            "defined" => Self::Defined,
            _ => Self::All,
        })
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

/// A directory on the way of a walk.
struct Directory {
    /// As the object spells it.
    path: String,
    /// Where it is on this machine, links followed.
    located: PathBuf,
    identity: Identity,
}

impl Directory {
    /// The one at this path; none where there is no directory.
    fn at(host: &Host, path: &str) -> Option<Self> {
        Self::of(path.to_owned(), host.locate_followed(path))
    }

    fn of(path: String, located: PathBuf) -> Option<Self> {
        let metadata = std::fs::metadata(&located).ok().filter(Metadata::is_dir)?;
        Some(Self { path, located, identity: (metadata.dev(), metadata.ino()) })
    }

    /// The one of that name in it, and what it leads to if it is a link.
    fn child(&self, host: &Host, name: &str, kind: Kind) -> Option<Self> {
        let path = joined(&self.path, name);
        match kind {
            Kind::Directory => Self::of(path, self.located.join(name)),
            Kind::Link => Self::at(host, &path),
            Kind::Other => None,
        }
    }
}

/// Called with a directory, what is in it, the position of an entry there, and whether that is a directory.
type Visit<'call, W> = dyn FnMut(&mut W, &Directory, &Listing, usize, bool) -> Result<(), ProbeError> + 'call;

struct Walker<'host> {
    host: &'host Host,
    found: Found,
    file_systems: FileSystems,
    sieve: Sieve<'host>,
}

/// How far a recursion goes.
struct Recursion {
    depth_max: Option<usize>,
    directories: bool,
    links: bool,
}

impl Walker<'_> {
    fn by_filepath(&mut self, filepath: &QueryEntity) -> Result<(), ProbeError> {
        if let Some(values) = filepath.exact() {
            for value in values {
                let Some((path, name)) = value.rsplit_once('/') else { continue };
                let path = path.trim_end_matches('/');
                let file = self.host.lstat(value).ok().filter(|metadata| !name.is_empty() && !metadata.is_dir());
                if let Some(metadata) = file {
                    self.push(if path.is_empty() { "/" } else { path }, Some(name), Seen::from(&metadata));
                }
            }
            return Ok(());
        }
        // A broken pattern finds nothing, as in `oscap`; the text is checked before the walk.
        if filepath.matches("/").is_err() {
            return Err(ProbeError::Broken("the pattern of `filepath` is not a regular expression".to_owned()));
        }
        let matches = matcher(filepath)?;
        let mut seen = BTreeSet::new();
        let prune = Prune::of(filepath);
        let mut whole = String::new();
        for start in starts(filepath) {
            let Some(start) = Directory::at(self.host, &start) else { continue };
            let device = start.identity.0;
            self.walk_matching(
                &start,
                (0, device),
                &prune,
                &mut seen,
                &mut |walker, directory, listing, at, is_directory| {
                    if is_directory {
                        return Ok(());
                    }
                    whole.clear();
                    whole.push_str(if directory.path == "/" { "" } else { &directory.path });
                    whole.push('/');
                    whole.push_str(listing.entry(at).0);
                    if matches(&whole)? { walker.entry(directory, listing, at) } else { Ok(()) }
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
            let mut directories: Vec<Directory> =
                values.iter().filter_map(|value| Directory::at(self.host, &trimmed(value))).collect();
            directories.dedup_by(|left, right| left.path == right.path);
            return Ok(directories);
        }
        path.matches("/")?;
        let matches = matcher(path)?;
        let mut directories = Vec::new();
        let mut seen = BTreeSet::new();
        let prune = Prune::of(path);
        for start in starts(path) {
            let Some(start) = Directory::at(self.host, &start) else { continue };
            if matches(&start.path)? {
                directories.extend(Directory::at(self.host, &start.path));
            }
            let device = start.identity.0;
            self.walk_matching(
                &start,
                (0, device),
                &prune,
                &mut seen,
                &mut |walker, parent, listing, at, is_directory| {
                    if is_directory {
                        let (name, kind) = listing.entry(at);
                        if matches(&joined(&parent.path, name))? {
                            directories.extend(parent.child(walker.host, name, kind));
                        }
                    }
                    Ok(())
                },
            )?;
        }
        Ok(directories)
    }

    /// Visits everything below a directory, links followed, each directory once.
    fn walk_matching(
        &mut self,
        directory: &Directory,
        (depth, device): (usize, u64),
        prune: &Prune,
        seen: &mut BTreeSet<Identity>,
        visit: &mut Visit<'_, Self>,
    ) -> Result<(), ProbeError> {
        self.note_depth(&directory.path, depth);
        if depth > DIRECTORY_DEPTH_MAX
            || !self.file_systems.allow(device, directory.identity.0)
            || !seen.insert(directory.identity)
        {
            return Ok(());
        }
        let listing = self.list(directory)?;
        for at in 0..listing.len() {
            let (name, kind) = listing.entry(at);
            // Whatever a link leads to, a directory below it is one more directory.
            let child = if kind == Kind::Other { None } else { directory.child(self.host, name, kind) };
            visit(self, directory, &listing, at, child.is_some())?;
            if let Some(child) = child.filter(|child| prune.may_match_below(&child.path)) {
                self.walk_matching(&child, (depth + 1, device), prune, seen, visit)?;
            }
        }
        Ok(())
    }

    /// A directory's own entries, or the directory as such.
    fn here(&mut self, directory: &Directory, filename: Option<&Name<'_>>) -> Result<(), ProbeError> {
        let Some(filename) = filename else {
            let Ok(metadata) = self.host.lstat(&directory.path) else { return Ok(()) };
            self.push(&directory.path, None, Seen::from(&metadata));
            return Ok(());
        };
        if let Some(values) = filename.exact {
            for value in values.iter().filter(|value| !value.is_empty() && !value.contains('/')) {
                let metadata = std::fs::symlink_metadata(directory.located.join(value));
                if let Some(metadata) = metadata.ok().filter(|metadata| !metadata.is_dir()) {
                    self.push(&directory.path, Some(value), Seen::from(&metadata));
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
            for at in 0..listing.len() {
                let (name, kind) = listing.entry(at);
                let is_followed = match kind {
                    Kind::Directory => recursion.directories,
                    Kind::Link => recursion.links,
                    Kind::Other => false,
                };
                if let Some(child) = is_followed.then(|| directory.child(self.host, name, kind)).flatten() {
                    self.down(&child, depth + 1, device, recursion, filename, open)?;
                }
            }
        }
        open.remove(&directory.identity);
        Ok(())
    }

    fn up(&mut self, start: Directory, depth_max: i64, filename: Option<&Name<'_>>) -> Result<(), ProbeError> {
        let mut directory = start;
        let mut depth = 0;
        loop {
            self.here(&directory, filename)?;
            if directory.path == "/" || (depth_max >= 0 && depth >= depth_max) {
                return Ok(());
            }
            let parent = directory.path.rsplit_once('/').map_or("/", |(parent, _)| parent);
            let parent = if parent.is_empty() { "/" } else { parent };
            let Some(parent) = Directory::at(self.host, parent) else { return Ok(()) };
            directory = parent;
            depth += 1;
        }
    }

    fn list(&mut self, directory: &Directory) -> Result<Rc<Listing>, ProbeError> {
        let listing = self.host.tree.list(self.host, directory.identity, &directory.located)?;
        if listing.is_denied {
            self.found.denied.push(directory.path.clone());
        }
        if listing.is_any_unnamed {
            self.found.cut = Some(format!("a name in {} is not UTF-8 and cannot be reported", directory.path));
        }
        self.host.breathe_now_and_then()?;
        Ok(listing)
    }

    fn note_depth(&mut self, directory: &str, depth: usize) {
        if depth > DIRECTORY_DEPTH_MAX {
            let shown: String = directory.chars().take(60).collect();
            self.found.cut = Some(format!("cut off: directories deeper than {DIRECTORY_DEPTH_MAX} below {shown}…"));
        }
    }

    /// An entry of a directory that is wanted by its name.
    fn entry(&mut self, directory: &Directory, listing: &Listing, at: usize) -> Result<(), ProbeError> {
        let name = listing.entry(at).0;
        if self.sieve.is_empty() {
            self.found.entries.push(Entry { path: directory.path.clone(), filename: Some(name.to_owned()) });
        } else if let Some(seen) = listing.seen(at, &directory.located) {
            self.push(&directory.path, Some(name), seen);
        }
        if self.found.entries.len() > CANDIDATES_MAX { Err(Cut::Items.into()) } else { Ok(()) }
    }

    fn push(&mut self, path: &str, filename: Option<&str>, seen: Seen) {
        if self.sieve.may_keep(seen, path, filename) {
            self.found.entries.push(Entry { path: path.to_owned(), filename: filename.map(str::to_owned) });
        }
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

fn trimmed(path: &str) -> String {
    let trimmed = path.trim_end_matches('/');
    if trimmed.is_empty() { "/".to_owned() } else { trimmed.to_owned() }
}

/// Where a walk has to begin: below the fixed beginning of each pattern.
fn starts(entity: &QueryEntity) -> Vec<String> {
    let mut starts: Vec<String> = entity
        .values
        .iter()
        .map(|value| if entity.operation == Operation::PatternMatch { fixed_directory(value) } else { "/".to_owned() })
        .collect();
    starts.sort();
    starts.dedup();
    // A start below another one is walked already.
    let all = starts.clone();
    starts.retain(|start| {
        !all.iter().any(|other| other != start && (other == "/" || start.starts_with(&format!("{other}/"))))
    });
    starts
}

/// The directory that every match of the pattern is below.
fn fixed_directory(pattern: &str) -> String {
    let Some(anchored) = pattern.strip_prefix('^') else { return "/".to_owned() };
    let mut fixed = String::new();
    let mut characters = anchored.chars().peekable();
    while let Some(character) = characters.next() {
        let literal = match character {
            '\\' => match characters.next() {
                Some(escaped) if !escaped.is_ascii_alphanumeric() => escaped,
                _ => break,
            },
            '.' | '[' | '(' | '*' | '?' | '+' | '{' | '|' | '$' | '^' => break,
            plain => plain,
        };
        // A quantifier makes what stands before it optional.
        if matches!(characters.peek(), Some('*' | '?' | '{')) {
            break;
        }
        fixed.push(literal);
    }
    // An alternative anywhere outside a group may begin with something else.
    if has_open_alternative(anchored) {
        return "/".to_owned();
    }
    match fixed.rsplit_once('/') {
        Some(("", _)) | None => "/".to_owned(),
        Some((directory, _)) => directory.to_owned(),
    }
}

fn has_open_alternative(pattern: &str) -> bool {
    let mut depth = 0_usize;
    let mut is_escaped = false;
    let mut is_in_class = false;
    for character in pattern.chars() {
        match character {
            _ if is_escaped => is_escaped = false,
            '\\' => is_escaped = true,
            ']' => is_in_class = false,
            _ if is_in_class => {}
            '[' => is_in_class = true,
            '(' => depth += 1,
            ')' => depth = depth.saturating_sub(1),
            '|' if depth == 0 => return true,
            _ => {}
        }
    }
    false
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
    fn a_nil_filename_means_the_directory() {
        use Operation::Equals;
        let query = vec![entity("path", Equals, "/etc/ssh"), entity("filename", Equals, "")];
        assert_eq!(found(query, &[]), ["/etc/ssh"]);
    }

    #[test]
    fn a_walk_begins_where_the_pattern_is_fixed() {
        assert_eq!(fixed_directory(r"^/etc/ssh/sshd_config\.d/.*$"), "/etc/ssh/sshd_config.d");
        assert_eq!(fixed_directory(r"^/etc/a?b"), "/etc");
        assert_eq!(fixed_directory(r"^/(etc|usr)/x"), "/");
        assert_eq!(fixed_directory(r"^/etc/x|^/usr/y"), "/");
        assert_eq!(fixed_directory("/etc/x"), "/");
        assert_eq!(fixed_directory(r"^/etc/\w+"), "/etc");
    }
}
