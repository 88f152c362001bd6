//! Which files an object means: `filepath`, or `path` with `filename`, with their behaviors
//! (`FileBehaviors` of the unix schema). Shared by every probe over files.

use std::collections::BTreeSet;
use std::os::unix::fs::MetadataExt as _;

use oval::resolve::{Query, QueryEntity};
use proto::plan::Operation;

use super::ProbeError;
use super::limits::CANDIDATES_MAX;
use super::partition;
use super::prune::Prune;
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
            Some(name) if self.path == "/" => format!("/{name}"),
            Some(name) => format!("{}/{name}", self.path),
            None => self.path.clone(),
        }
    }
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
    let mut walker = Walker { host, found: Found::default(), file_systems: FileSystems::of(host, query)? };
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

/// Called with a directory, the name of something in it, and whether that is a directory.
type Visit<'call, W> = dyn FnMut(&mut W, &str, Option<&str>, bool) -> Result<(), ProbeError> + 'call;

struct Walker<'host> {
    host: &'host Host,
    found: Found,
    file_systems: FileSystems,
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
                let is_file = !name.is_empty() && self.host.lstat(value).is_ok_and(|metadata| !metadata.is_dir());
                if is_file {
                    let path = if path.is_empty() { "/" } else { path };
                    self.push(path, Some(name));
                }
            }
            return Ok(());
        }
        // A broken pattern finds nothing, as in `oscap`; the text is checked before the walk.
        if filepath.matches("/").is_err() {
            return Err(ProbeError::Broken("the pattern of `filepath` is not a regular expression".to_owned()));
        }
        let mut seen = BTreeSet::new();
        let prune = Prune::of(filepath);
        for start in starts(filepath) {
            self.walk_matching(&start, (0, None), &prune, &mut seen, &mut |walker, path, name, is_directory| {
                if let Some(name) = name
                    && !is_directory
                {
                    let entry = Entry { path: path.to_owned(), filename: Some(name.to_owned()) };
                    if filepath.matches(&entry.filepath())? {
                        walker.found.entries.push(entry);
                    }
                }
                Ok(())
            })?;
        }
        Ok(())
    }

    fn by_path(&mut self, query: &Query, path: &QueryEntity, filename: Option<&QueryEntity>) -> Result<(), ProbeError> {
        let filename = filename.filter(|filename| !filename.is_nil);
        if let Some(filename) = filename {
            filename.matches("")?;
        }
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
                    let device = self.host.stat(&start).map(|metadata| metadata.dev()).unwrap_or_default();
                    self.down(&start, 0, device, &recursion, filename, &mut BTreeSet::new())?;
                }
                "up" => {
                    let depth_max = query.behavior("max_depth", "-1").parse::<i64>().unwrap_or(-1);
                    self.up(&start, depth_max, filename)?;
                }
                _ => self.here(&start, filename)?,
            }
        }
        Ok(())
    }

    /// The directories that `path` means.
    fn directories(&mut self, path: &QueryEntity) -> Result<Vec<String>, ProbeError> {
        if let Some(values) = path.exact() {
            let is_directory = |value: &&String| self.host.stat(value).is_ok_and(|metadata| metadata.is_dir());
            let mut directories: Vec<String> = values.iter().filter(is_directory).map(|value| trimmed(value)).collect();
            directories.dedup();
            return Ok(directories);
        }
        path.matches("/")?;
        let mut directories = Vec::new();
        let mut seen = BTreeSet::new();
        let prune = Prune::of(path);
        for start in starts(path) {
            if self.host.stat(&start).is_ok_and(|metadata| metadata.is_dir()) && path.matches(&start)? {
                directories.push(start.clone());
            }
            self.walk_matching(&start, (0, None), &prune, &mut seen, &mut |_, parent, name, is_directory| {
                if let Some(name) = name.filter(|_| is_directory) {
                    let directory = Entry { path: parent.to_owned(), filename: Some(name.to_owned()) }.filepath();
                    if path.matches(&directory)? {
                        directories.push(directory);
                    }
                }
                Ok(())
            })?;
        }
        Ok(directories)
    }

    /// Visits everything below a directory, links followed, each directory once.
    fn walk_matching(
        &mut self,
        directory: &str,
        (depth, device): (usize, Option<u64>),
        prune: &Prune,
        seen: &mut BTreeSet<(u64, u64)>,
        visit: &mut Visit<'_, Self>,
    ) -> Result<(), ProbeError> {
        let Ok(metadata) = self.host.stat(directory) else { return Ok(()) };
        self.note_depth(directory, depth);
        let start = device.unwrap_or_else(|| metadata.dev());
        if depth > DIRECTORY_DEPTH_MAX
            || !metadata.is_dir()
            || !self.file_systems.allow(start, metadata.dev())
            || !seen.insert((metadata.dev(), metadata.ino()))
        {
            return Ok(());
        }
        for (name, is_directory, is_link) in self.list(directory)? {
            let path = Entry { path: directory.to_owned(), filename: Some(name.clone()) }.filepath();
            let is_directory = is_directory || is_link && self.host.stat(&path).is_ok_and(|metadata| metadata.is_dir());
            visit(self, directory, Some(&name), is_directory)?;
            if is_directory && prune.may_match_below(&path) {
                self.walk_matching(&path, (depth + 1, Some(start)), prune, seen, visit)?;
            }
        }
        Ok(())
    }

    /// A directory's own entries, or the directory as such.
    fn here(&mut self, directory: &str, filename: Option<&QueryEntity>) -> Result<(), ProbeError> {
        let Some(filename) = filename else {
            self.push(directory, None);
            return Ok(());
        };
        if let Some(values) = filename.exact() {
            for value in values {
                let entry = Entry { path: directory.to_owned(), filename: Some(value.clone()) };
                let is_plain = !value.is_empty() && !value.contains('/');
                if is_plain && self.host.lstat(&entry.filepath()).is_ok_and(|metadata| !metadata.is_dir()) {
                    self.found.entries.push(entry);
                }
            }
            return Ok(());
        }
        for (name, is_directory, _) in self.list(directory)? {
            if !is_directory && filename.matches(&name)? {
                self.push(directory, Some(&name));
            }
        }
        Ok(())
    }

    fn down(
        &mut self,
        directory: &str,
        depth: usize,
        device: u64,
        recursion: &Recursion,
        filename: Option<&QueryEntity>,
        open: &mut BTreeSet<(u64, u64)>,
    ) -> Result<(), ProbeError> {
        let Ok(metadata) = self.host.stat(directory) else { return Ok(()) };
        let identity = (metadata.dev(), metadata.ino());
        self.note_depth(directory, depth);
        // Only a directory that is open above is a cycle; the same one by two links counts twice.
        if depth > DIRECTORY_DEPTH_MAX || !self.file_systems.allow(device, metadata.dev()) || !open.insert(identity) {
            return Ok(());
        }
        self.here(directory, filename)?;
        if recursion.depth_max.is_none_or(|depth_max| depth < depth_max) {
            for (name, is_directory, is_link) in self.list(directory)? {
                let path = Entry { path: directory.to_owned(), filename: Some(name) }.filepath();
                let is_followed =
                    is_link && recursion.links && self.host.stat(&path).is_ok_and(|metadata| metadata.is_dir());
                if is_directory && recursion.directories || is_followed {
                    self.down(&path, depth + 1, device, recursion, filename, open)?;
                }
            }
        }
        open.remove(&identity);
        Ok(())
    }

    fn up(&mut self, directory: &str, depth_max: i64, filename: Option<&QueryEntity>) -> Result<(), ProbeError> {
        let mut directory = directory.to_owned();
        let mut depth = 0;
        loop {
            self.here(&directory, filename)?;
            if directory == "/" || (depth_max >= 0 && depth >= depth_max) {
                return Ok(());
            }
            let parent = directory.rsplit_once('/').map_or("/", |(parent, _)| parent);
            directory = if parent.is_empty() { "/".to_owned() } else { parent.to_owned() };
            depth += 1;
        }
    }

    /// Name, whether it is a directory, whether it is a link; sorted, so that results do not depend
    /// on the file system's order.
    fn list(&mut self, directory: &str) -> Result<Vec<(String, bool, bool)>, ProbeError> {
        let entries = match std::fs::read_dir(self.host.locate_followed(directory)) {
            Ok(entries) => entries,
            Err(error) => {
                // What even root may not read, such as parts of /proc, is not there, as for `oscap`.
                if error.kind() == std::io::ErrorKind::PermissionDenied && !rustix::process::geteuid().is_root() {
                    self.found.denied.push(directory.to_owned());
                }
                return Ok(Vec::new());
            }
        };
        if self.found.entries.len() > CANDIDATES_MAX {
            return Err(ProbeError::Cut(Cut::Items));
        }
        let mut listed = Vec::new();
        for entry in entries.filter_map(Result::ok) {
            // What cannot be named cannot be reported, and must not pass for absent.
            let Ok(name) = entry.file_name().into_string() else {
                self.found.cut = Some(format!("a name in {directory} is not UTF-8 and cannot be reported"));
                continue;
            };
            self.host.count_entry().map_err(ProbeError::Cut)?;
            let Ok(kind) = entry.file_type() else { continue };
            listed.push((name, kind.is_dir(), kind.is_symlink()));
        }
        listed.sort();
        Ok(listed)
    }

    fn note_depth(&mut self, directory: &str, depth: usize) {
        if depth > DIRECTORY_DEPTH_MAX {
            let shown: String = directory.chars().take(60).collect();
            self.found.cut = Some(format!("cut off: directories deeper than {DIRECTORY_DEPTH_MAX} below {shown}…"));
        }
    }

    fn push(&mut self, path: &str, filename: Option<&str>) {
        self.found.entries.push(Entry { path: path.to_owned(), filename: filename.map(str::to_owned) });
    }
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
