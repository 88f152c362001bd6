//! Watching: the kernel tells which files have changed (inotify, through `notify`), and the objects of a plan that read them
//! are looked at again at once. What no file tells of, such as kernel parameters or listening sockets, is looked at again and
//! again; whatever is watched is looked at as a whole now and then, too.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use notify::{EventKind, RecommendedWatcher, RecursiveMode, Watcher as _};
use proto::plan::{CollectionPlan, Entity, EntityValue, Object, ObjectKey, ObjectSet, Operation, SetOperand};
use tokio::sync::mpsc;

/// Directories that are watched, for all observations together.
const DIRECTORIES_MAX: usize = 4_096;
/// Entries of a directory that are looked at for links.
const LISTED_MAX: usize = 10_000;
/// Links that lead to each other.
const HOPS_MAX: usize = 16;
/// Directories inside each other that come at once.
const REFRESHES_MAX: usize = 8;
/// How often it is looked whether the directories are still the same ones.
const REFRESH: Duration = Duration::from_secs(10);
/// Events that wait; what is more counts as an overflow.
const EVENTS_MAX: usize = 1_024;

/// What files tell of an object.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reach {
    /// Files and directories, by the endpoint's own paths: if one of them changes, or an entry of it, the object may have.
    places: BTreeSet<String>,
    /// Whether the object can change in no other way; otherwise it is looked at again and again as well.
    is_whole: bool,
}

/// What tells of each object that a plan reports.
pub fn reaches(plan: &CollectionPlan) -> BTreeMap<ObjectKey, Reach> {
    plan.report.iter().map(|key| (key.clone(), reach(plan, key, 0))).collect()
}

fn reach(plan: &CollectionPlan, key: &ObjectKey, depth: usize) -> Reach {
    match plan.objects.get(key) {
        Some(Object { set: Some(set), filters, .. }) if depth < 16 => {
            let mut of_set = of_set(plan, set, depth + 1);
            of_set.is_whole &= filters.iter().chain(&set.filters).all(|filter| {
                let state = plan.states.get(&filter.state);
                state.is_some_and(|state| state.entities.iter().all(|entity| entity.variables().is_empty()))
            });
            of_set
        }
        Some(object) if depth < 16 => of_object(object),
        _ => Reach::default(),
    }
}

fn of_set(plan: &CollectionPlan, set: &ObjectSet, depth: usize) -> Reach {
    let mut whole = Reach { places: BTreeSet::new(), is_whole: true };
    for operand in &set.operands {
        let of_operand = match operand {
            SetOperand::Object(key) => reach(plan, key, depth),
            SetOperand::Set(set) if depth < 16 => of_set(plan, set, depth + 1),
            SetOperand::Set(_) => Reach::default(),
        };
        whole.places.extend(of_operand.places);
        whole.is_whole &= of_operand.is_whole;
    }
    whole
}

fn of_object(object: &Object) -> Reach {
    // What a filter compares with may come from elsewhere.
    let is_plain = object.filters.is_empty();
    let files = |paths: &[&str]| Reach {
        places: paths.iter().map(|path| (*path).to_owned()).collect(),
        is_whole: is_plain && object.entities.iter().all(|entity| entity.variables().is_empty()),
    };
    match object.kind.as_str() {
        // The last login comes from elsewhere.
        "unix:password" => files(&["/etc/passwd", "/var/log/lastlog"]),
        "unix:shadow" => files(&["/etc/shadow"]),
        "linux:dpkginfo" => files(&["/var/lib/dpkg/status"]),
        "muster:group" => files(&["/etc/group"]),
        "muster:user" => files(&["/etc/passwd", "/etc/shadow"]),
        "independent:filehash58"
        | "independent:textfilecontent"
        | "independent:textfilecontent54"
        | "independent:xmlfilecontent"
        | "unix:file"
        | "unix:fileextendedattribute"
        | "unix:symlink" => of_files(object, is_plain),
        // What these files say is not all that the object is about: the rest is looked at again and again.
        "linux:systemdunitdependency" | "linux:systemdunitproperty" | "muster:service" => {
            Reach { is_whole: false, ..files(&UNIT_DIRECTORIES) }
        }
        "linux:rpminfo" | "linux:rpmverifyfile" | "linux:rpmverifypackage" => {
            Reach { is_whole: false, ..files(&RPM_DIRECTORIES) }
        }
        "muster:package" => Reach { is_whole: false, ..files(&["/var/lib/dpkg/status", "/var/lib/rpm"]) },
        _ => Reach::default(),
    }
}

/// Where systemd's units have their files.
const UNIT_DIRECTORIES: [&str; 6] = [
    "/etc/systemd/system",
    "/lib/systemd/system",
    "/run/systemd/system",
    "/usr/lib/systemd/system",
    "/usr/local/lib/systemd/system",
    "/etc/init.d",
];
/// Where RPM has its database.
const RPM_DIRECTORIES: [&str; 3] = ["/usr/lib/sysimage/rpm", "/usr/share/rpm", "/var/lib/rpm"];

/// The contents of pseudo file systems change without a word.
fn is_told(path: &str) -> bool {
    !["/proc", "/sys", "/dev"].iter().any(|silent| Path::new(path).starts_with(silent))
}

/// The files that `filepath`, or `path` and `filename`, name.
fn of_files(object: &Object, is_plain: bool) -> Reach {
    let entity = |name: &str| object.entities.iter().find(|entity| entity.name == name);
    let is_recursive = object.behaviors.get("recurse_direction").is_some_and(|direction| direction != "none");
    let one = |path: String, is_whole: bool| Reach {
        is_whole: is_whole && is_plain && !is_recursive && is_told(&path),
        places: BTreeSet::from([path]),
    };
    let joined = |directory: &str, name: &str| format!("{}/{name}", directory.trim_end_matches('/'));
    match (entity("filepath"), entity("path"), entity("filename")) {
        (Some(filepath), ..) => match named(filepath) {
            Named::Exactly(path) => one(path, true),
            Named::Below(directory) => one(directory, false),
            Named::Nothing => Reach::default(),
        },
        (None, Some(path), Some(filename)) => match (named(path), named(filename)) {
            (Named::Exactly(path), Named::Exactly(name)) => one(joined(&path, &name), true),
            // Whatever the name is, it is an entry of that directory.
            (Named::Exactly(path), _) if filename.variables().is_empty() => one(path, true),
            (Named::Exactly(path) | Named::Below(path), _) => one(path, false),
            (Named::Nothing, _) => Reach::default(),
        },
        (None, Some(path), None) => match named(path) {
            Named::Exactly(path) => one(path, true),
            Named::Below(path) => one(path, false),
            Named::Nothing => Reach::default(),
        },
        _ => Reach::default(),
    }
}

enum Named {
    Exactly(String),
    /// Somewhere below, as a pattern begins.
    Below(String),
    Nothing,
}

fn named(entity: &Entity) -> Named {
    let EntityValue::Literal(value) = &entity.value else { return Named::Nothing };
    match entity.operation {
        Operation::Equals => Named::Exactly(value.clone()),
        Operation::PatternMatch => {
            let Some(rest) = value.strip_prefix('^') else { return Named::Nothing };
            // Up to the first character that means something, back to the last slash.
            let mut literal = String::new();
            let mut characters = rest.chars();
            while let Some(character) = characters.next() {
                match character {
                    '\\' => match characters.next() {
                        Some(escaped) if !escaped.is_ascii_alphanumeric() => literal.push(escaped),
                        _ => break,
                    },
                    '.' | '*' | '+' | '?' | '(' | ')' | '[' | ']' | '{' | '}' | '|' | '$' | '^' => break,
                    character => literal.push(character),
                }
            }
            // What is optional or repeated is not certain.
            match literal.rfind('/') {
                Some(at) if at > 0 && !rest.contains('|') => Named::Below(literal[..at].to_owned()),
                _ => Named::Nothing,
            }
        }
        _ => Named::Nothing,
    }
}

/// What the kernel tells.
#[derive(Debug)]
enum Told {
    /// Something about these.
    Paths(Vec<PathBuf>),
    /// Something was lost: everything may have changed.
    Lost,
}

/// Watches files for observations.
#[derive(Debug)]
pub struct Watch {
    root: PathBuf,
    watcher: Option<RecommendedWatcher>,
    told: mpsc::Receiver<Told>,
    /// An event did not fit.
    is_lost: Arc<AtomicBool>,
    /// Directories that are watched, by their real paths: which file each was then, and by which other paths it is known.
    directories: BTreeMap<PathBuf, Watched>,
    /// By observation.
    reaches: BTreeMap<String, BTreeMap<ObjectKey, Reach>>,
    /// Places as they are on this machine, and of which object they tell.
    places: BTreeMap<PathBuf, BTreeSet<(String, ObjectKey)>>,
    refreshed: Instant,
}

/// A directory that is watched.
#[derive(Debug, Default)]
struct Watched {
    file: (u64, u64),
    aliases: BTreeSet<PathBuf>,
}

/// What may have changed: by observation the objects; none: all of them.
pub type Dirty = BTreeMap<String, BTreeSet<ObjectKey>>;

impl Watch {
    /// Over the endpoint at this root. Where the kernel does not tell, nothing is watched and everything is looked at again
    /// and again.
    pub fn new(root: &Path) -> Self {
        let (tell, told) = mpsc::channel(EVENTS_MAX);
        let is_lost = Arc::new(AtomicBool::new(false));
        let lost = Arc::clone(&is_lost);
        let watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            let message = match event {
                Ok(event) if event.need_rescan() => Told::Lost,
                Ok(event) if matches!(event.kind, EventKind::Access(_)) => return,
                Ok(event) => Told::Paths(event.paths),
                Err(_) => Told::Lost,
            };
            if tell.try_send(message).is_err() {
                lost.store(true, Relaxed);
            }
        });
        if let Err(error) = &watcher {
            tracing::warn!(%error, "the kernel does not tell what changes: everything is looked at again and again");
        }
        Self {
            // Events come with real paths.
            root: std::fs::canonicalize(root).unwrap_or_else(|_| root.to_owned()),
            watcher: watcher.ok(),
            told,
            is_lost,
            directories: BTreeMap::new(),
            reaches: BTreeMap::new(),
            places: BTreeMap::new(),
            refreshed: Instant::now(),
        }
    }

    /// Watches what an observation reads. Says how many of its objects files tell all of, and which have to be looked at again
    /// and again.
    pub fn set(&mut self, identifier: &str, reaches: BTreeMap<ObjectKey, Reach>) -> (u64, BTreeSet<ObjectKey>) {
        self.reaches.insert(identifier.to_owned(), reaches);
        self.refresh();
        self.counts(identifier)
    }

    /// An observation has ended.
    pub fn remove(&mut self, identifier: &str) {
        if self.reaches.remove(identifier).is_some() {
            self.refresh();
        }
    }

    /// How many objects of an observation files tell all of, and which they do not.
    pub fn counts(&self, identifier: &str) -> (u64, BTreeSet<ObjectKey>) {
        let reaches = self.reaches.get(identifier).into_iter().flatten();
        let is_watched = |reach: &Reach| self.watcher.is_some() && reach.is_whole && self.covers(reach);
        let (watched, polled): (Vec<_>, Vec<_>) = reaches.partition(|(_, reach)| is_watched(reach));
        (watched.len() as u64, polled.into_iter().map(|(object, _)| object.clone()).collect())
    }

    /// The observations.
    pub fn identifiers(&self) -> Vec<String> {
        self.reaches.keys().cloned().collect()
    }

    /// Whether the directories of all its places are watched, and nothing leads out of them.
    fn covers(&self, reach: &Reach) -> bool {
        reach.places.iter().flat_map(|place| self.hops(place)).all(|place| {
            let located = self.located(&place);
            let is_watched = |directory: &Path| {
                std::fs::canonicalize(directory).is_ok_and(|real| self.directories.contains_key(&real))
            };
            // What an entry of a directory leads to is elsewhere.
            let has_links = || {
                let entries = std::fs::read_dir(&located).into_iter().flatten().flatten();
                entries.take(LISTED_MAX).any(|entry| entry.file_type().is_ok_and(|kind| kind.is_symlink()))
            };
            is_told(&place) && existing(&located).is_none_or(|directory| is_watched(&directory)) && !has_links()
        })
    }

    fn located(&self, place: &str) -> PathBuf {
        self.root.join(place.trim_start_matches('/'))
    }

    /// A path of the endpoint, and what it leads to where it is a link, step by step.
    fn hops(&self, place: &str) -> Vec<String> {
        let mut hops = vec![place.to_owned()];
        while hops.len() < HOPS_MAX
            && let Some(last) = hops.last()
            && let Ok(target) = std::fs::read_link(self.located(last))
        {
            let directory = Path::new(last).parent().unwrap_or_else(|| Path::new("/"));
            // Absolute targets are of the endpoint.
            let next = directory.join(target);
            hops.push(plain(&next));
        }
        hops
    }

    /// Watches the directories that there are now: what was not there may have come, and what was may have gone. Says whether
    /// something is watched that was not before.
    pub fn refresh(&mut self) -> bool {
        self.refreshed = Instant::now();
        let mut places: BTreeMap<PathBuf, BTreeSet<(String, ObjectKey)>> = BTreeMap::new();
        for (identifier, reaches) in &self.reaches {
            for (object, reach) in reaches {
                for place in reach.places.iter().flat_map(|place| self.hops(place)) {
                    places.entry(self.located(&place)).or_default().insert((identifier.clone(), object.clone()));
                }
            }
        }
        let mut wanted: BTreeMap<PathBuf, BTreeSet<PathBuf>> = BTreeMap::new();
        for place in places.keys() {
            // Its own entries, if it has some, and whatever is on the way to it.
            for directory in place.ancestors().take_while(|directory| directory.starts_with(&self.root)) {
                if let Ok(real) = std::fs::canonicalize(directory)
                    && real.is_dir()
                {
                    wanted.entry(real).or_default().insert(directory.to_owned());
                }
            }
        }
        self.places = places;
        let Some(watcher) = &mut self.watcher else { return false };
        self.directories.retain(|directory, _| {
            let is_wanted = wanted.contains_key(directory);
            if !is_wanted {
                let _ = watcher.unwatch(directory);
            }
            is_wanted
        });
        let mut is_any_new = false;
        for (directory, aliases) in wanted {
            use std::os::unix::fs::MetadataExt as _;
            let Ok(metadata) = std::fs::metadata(&directory) else { continue };
            let file = (metadata.dev(), metadata.ino());
            if let Some(known) = self.directories.get_mut(&directory)
                && known.file == file
            {
                known.aliases = aliases;
                continue;
            }
            if self.directories.remove(&directory).is_some() {
                // Another one is in its place.
                let _ = watcher.unwatch(&directory);
            }
            if self.directories.len() >= DIRECTORIES_MAX {
                continue;
            }
            match watcher.watch(&directory, RecursiveMode::NonRecursive) {
                Ok(()) => {
                    self.directories.insert(directory, Watched { file, aliases });
                    is_any_new = true;
                }
                Err(error) => tracing::debug!(%error, directory = %directory.display(), "cannot be watched"),
            }
        }
        is_any_new
    }

    /// What the kernel has told since it was asked last, and whether other directories are watched than before.
    pub fn take(&mut self) -> (Dirty, bool) {
        let mut dirty = Dirty::new();
        let mut is_any = false;
        while let Ok(told) = self.told.try_recv() {
            is_any = true;
            match told {
                Told::Lost => self.lose(&mut dirty),
                Told::Paths(paths) => {
                    for path in paths {
                        self.touch_real(&path, &mut dirty);
                    }
                }
            }
        }
        if self.is_lost.swap(false, Relaxed) {
            is_any = true;
            self.lose(&mut dirty);
        }
        let is_refreshed = is_any || self.refreshed.elapsed() > REFRESH;
        if is_refreshed {
            let before: BTreeSet<PathBuf> = self.directories.keys().cloned().collect();
            // A directory that is new may have some of its own already.
            for _ in 0..REFRESHES_MAX {
                if !self.refresh() {
                    break;
                }
            }
            let fresh: Vec<PathBuf> =
                self.directories.keys().filter(|directory| !before.contains(*directory)).cloned().collect();
            for directory in fresh {
                self.touch_real(&directory, &mut dirty);
            }
        }
        (dirty, is_refreshed)
    }

    fn lose(&self, dirty: &mut Dirty) {
        for identifier in self.reaches.keys() {
            dirty.insert(identifier.clone(), BTreeSet::new());
        }
    }

    /// Something about a real path: it may be known by others.
    fn touch_real(&self, path: &Path, dirty: &mut Dirty) {
        self.touch(path, dirty);
        if let Some(known) = self.directories.get(path) {
            known.aliases.iter().for_each(|alias| self.touch(alias, dirty));
        }
        if let (Some(directory), Some(name)) = (path.parent(), path.file_name())
            && let Some(known) = self.directories.get(directory)
        {
            known.aliases.iter().for_each(|alias| self.touch(&alias.join(name), dirty));
        }
    }

    fn touch(&self, path: &Path, dirty: &mut Dirty) {
        let mut tell = |told: &BTreeSet<(String, ObjectKey)>| {
            for (identifier, object) in told {
                let is_new = !dirty.contains_key(identifier);
                let objects = dirty.entry(identifier.clone()).or_default();
                // None means all already.
                if is_new || !objects.is_empty() {
                    objects.insert(object.clone());
                }
            }
        };
        // The place itself, a directory whose entry it is, and whatever is below it.
        for place in [Some(path), path.parent()].into_iter().flatten() {
            if let Some(told) = self.places.get(place) {
                tell(told);
            }
        }
        for (place, told) in self.places.range(path.to_owned()..) {
            if !place.starts_with(path) {
                break;
            }
            tell(told);
        }
    }
}

/// A path without `.` and `..`.
fn plain(path: &Path) -> String {
    let mut names: Vec<&std::ffi::OsStr> = Vec::new();
    for component in path.components() {
        match component {
            Component::Normal(name) => names.push(name),
            Component::ParentDir => {
                names.pop();
            }
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
    names.iter().fold(String::new(), |path, name| format!("{path}/{}", name.to_string_lossy()))
}

/// The nearest directory above a place that is there.
fn existing(place: &Path) -> Option<PathBuf> {
    place.ancestors().skip(1).find(|directory| directory.is_dir()).map(Path::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(kind: &str, entities: &[(&str, Operation, &str)]) -> Object {
        let entity = |(name, operation, value): &(&str, Operation, &str)| Entity {
            name: (*name).to_owned(),
            operation: *operation,
            datatype: proto::plan::Datatype::String,
            value: EntityValue::Literal((*value).to_owned()),
            var_check: proto::plan::Check::All,
            entity_check: proto::plan::Check::All,
            check_existence: proto::plan::Existence::AtLeastOneExists,
            mask: false,
        };
        Object {
            kind: kind.to_owned(),
            entities: entities.iter().map(entity).collect(),
            behaviors: BTreeMap::new(),
            filters: Vec::new(),
            set: None,
        }
    }

    use Operation::{Equals, PatternMatch};

    #[test]
    fn files_tell_of_what_is_read_from_them_and_only_where_that_is_certain_is_nothing_else_needed() {
        let cases: [(Object, &[&str], bool); 12] = [
            (object("unix:file", &[("filepath", Equals, "/etc/shadow")]), &["/etc/shadow"], true),
            (object("unix:file", &[("path", Equals, "/etc/ssh/"), ("filename", Equals, "a")]), &["/etc/ssh/a"], true),
            (
                object("unix:file", &[("path", Equals, "/etc/ssh"), ("filename", PatternMatch, ".*")]),
                &["/etc/ssh"],
                true,
            ),
            (
                object("unix:file", &[("path", PatternMatch, "^/etc/ssh.*"), ("filename", Equals, "a")]),
                &["/etc"],
                false,
            ),
            (object("unix:file", &[("filepath", PatternMatch, r"^/etc/sudoers\.d/.*$")]), &["/etc/sudoers.d"], false),
            (object("unix:file", &[("filepath", PatternMatch, "^(/etc/a|/etc/b)$")]), &[], false),
            (
                object("unix:file", &[("filepath", Equals, "/proc/sys/kernel/panic")]),
                &["/proc/sys/kernel/panic"],
                false,
            ),
            (object("unix:password", &[("username", PatternMatch, ".*")]), &["/etc/passwd", "/var/log/lastlog"], true),
            (object("linux:dpkginfo", &[("name", Equals, "sshd")]), &["/var/lib/dpkg/status"], true),
            (object("unix:sysctl", &[("name", Equals, "kernel.panic")]), &[], false),
            (object("muster:user", &[("name", PatternMatch, ".*")]), &["/etc/passwd", "/etc/shadow"], true),
            (object("linux:systemdunitproperty", &[("unit", Equals, "x.service")]), &UNIT_DIRECTORIES, false),
        ];
        for (object, places, is_whole) in cases {
            let found = of_object(&object);
            let wanted = Reach { places: places.iter().map(|place| (*place).to_owned()).collect(), is_whole };
            assert_eq!(found, wanted, "{object:?}");
        }
        let mut recursive = object("unix:file", &[("path", Equals, "/etc"), ("filename", Equals, "a")]);
        recursive.behaviors.insert("recurse_direction".to_owned(), "down".to_owned());
        assert!(!of_object(&recursive).is_whole);
    }

    fn told(watch: &mut Watch) -> Dirty {
        for _ in 0..500 {
            let (dirty, _) = watch.take();
            if !dirty.is_empty() {
                return dirty;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        panic!("nothing was told");
    }

    fn watching(root: &Path, objects: &[(&str, Object)]) -> (Watch, u64, BTreeSet<ObjectKey>) {
        let mut watch = Watch::new(root);
        let reaches = objects.iter().map(|(key, object)| (ObjectKey((*key).to_owned()), of_object(object))).collect();
        let (count, polled) = watch.set("test", reaches);
        (watch, count, polled)
    }

    #[test]
    fn a_file_that_changes_goes_comes_or_is_replaced_is_told_of() {
        let root = tempfile::tempdir().unwrap();
        let etc = root.path().join("etc");
        std::fs::create_dir(&etc).unwrap();
        std::fs::write(etc.join("shadow"), "a").unwrap();
        let shadow = object("unix:file", &[("filepath", Equals, "/etc/shadow")]);
        let deep = object("unix:file", &[("filepath", Equals, "/etc/not/there/yet")]);
        let listing = object("unix:file", &[("path", Equals, "/etc/conf.d"), ("filename", PatternMatch, ".*")]);
        let kernel = object("unix:sysctl", &[("name", Equals, "kernel.panic")]);
        let (mut watch, count, polled) =
            watching(root.path(), &[("shadow", shadow), ("deep", deep), ("listing", listing), ("kernel", kernel)]);
        assert_eq!((count, polled), (3, BTreeSet::from([ObjectKey("kernel".to_owned())])));
        let mut after = |what: &dyn Fn(), key: &str| {
            what();
            let mut seen = told(&mut watch);
            std::thread::sleep(Duration::from_millis(50));
            for (identifier, objects) in watch.take().0 {
                seen.entry(identifier).or_default().extend(objects);
            }
            assert!(seen["test"].contains(&ObjectKey(key.to_owned())), "{key}: {seen:?}");
        };
        after(&|| std::fs::write(etc.join("shadow"), "b").unwrap(), "shadow");
        after(&|| std::fs::remove_file(etc.join("shadow")).unwrap(), "shadow");
        after(&|| std::fs::write(etc.join("shadow"), "c").unwrap(), "shadow");
        std::fs::write(root.path().join("new"), "d").unwrap();
        after(&|| std::fs::rename(root.path().join("new"), etc.join("shadow")).unwrap(), "shadow");
        // Directories that come one after the other.
        after(&|| std::fs::create_dir(etc.join("not")).unwrap(), "deep");
        after(&|| std::fs::create_dir(etc.join("not/there")).unwrap(), "deep");
        after(&|| std::fs::write(etc.join("not/there/yet"), "e").unwrap(), "deep");
        after(&|| std::fs::create_dir(etc.join("conf.d")).unwrap(), "listing");
        after(&|| std::fs::write(etc.join("conf.d/a"), "f").unwrap(), "listing");
        after(&|| std::fs::rename(&etc, root.path().join("elsewhere")).unwrap(), "shadow");
    }

    #[test]
    fn a_file_behind_a_link_is_told_of() {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir(root.path().join("etc")).unwrap();
        std::fs::create_dir(root.path().join("usr")).unwrap();
        std::fs::write(root.path().join("usr/real"), "a").unwrap();
        std::os::unix::fs::symlink("/usr/real", root.path().join("etc/link")).unwrap();
        let link = object("unix:file", &[("filepath", Equals, "/etc/link")]);
        let (mut watch, ..) = watching(root.path(), &[("link", link)]);
        std::fs::write(root.path().join("usr/real"), "b").unwrap();
        assert_eq!(told(&mut watch)["test"].len(), 1);
    }

    #[test]
    fn more_events_than_fit_mean_that_everything_may_have_changed() {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir(root.path().join("etc")).unwrap();
        let listing = object("unix:file", &[("path", Equals, "/etc"), ("filename", PatternMatch, ".*")]);
        let other = object("unix:file", &[("filepath", Equals, "/other")]);
        let (mut watch, ..) = watching(root.path(), &[("listing", listing), ("other", other)]);
        for number in 0..3 * EVENTS_MAX {
            std::fs::write(root.path().join(format!("etc/{number}")), "").unwrap();
        }
        // Nothing more happens, and the loss is told all the same.
        std::thread::sleep(Duration::from_millis(300));
        assert!(watch.take().0["test"].is_empty());
    }

    #[test]
    fn a_directory_that_is_another_one_now_is_watched_as_that() {
        let root = tempfile::tempdir().unwrap();
        let (etc, old) = (root.path().join("etc"), root.path().join("old"));
        std::fs::create_dir(&etc).unwrap();
        let file = object("unix:file", &[("filepath", Equals, "/etc/a")]);
        let (mut watch, ..) = watching(root.path(), &[("a", file)]);
        std::fs::rename(&etc, &old).unwrap();
        std::fs::create_dir(&etc).unwrap();
        told(&mut watch);
        std::thread::sleep(Duration::from_millis(100));
        watch.take();
        std::fs::write(etc.join("a"), "").unwrap();
        assert_eq!(told(&mut watch)["test"].len(), 1);
    }

    #[test]
    fn a_file_in_a_linked_directory_goes_and_comes_back() {
        let root = tempfile::tempdir().unwrap();
        let sbin = root.path().join("usr/sbin");
        std::fs::create_dir_all(&sbin).unwrap();
        std::os::unix::fs::symlink("/usr/sbin", root.path().join("sbin")).unwrap();
        std::os::unix::fs::symlink("usr/sbin", root.path().join("bin")).unwrap();
        std::fs::write(sbin.join("x"), "a").unwrap();
        let file = |path| object("unix:file", &[("filepath", Equals, path)]);
        let (mut watch, ..) = watching(root.path(), &[("linked", file("/bin/x")), ("real", file("/usr/sbin/x"))]);
        for round in 0..3 {
            std::fs::remove_file(sbin.join("x")).unwrap();
            assert_eq!(told(&mut watch)["test"].len(), 2, "{round}");
            std::thread::sleep(Duration::from_millis(50));
            watch.take();
            std::fs::write(sbin.join("x"), "b").unwrap();
            assert_eq!(told(&mut watch)["test"].len(), 2, "{round}");
            std::thread::sleep(Duration::from_millis(50));
            watch.take();
        }
    }

    #[test]
    fn what_leads_elsewhere_is_not_told_of_in_whole() {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(root.path().join("etc/conf.d")).unwrap();
        std::os::unix::fs::symlink("/proc/self/mounts", root.path().join("etc/mtab")).unwrap();
        std::os::unix::fs::symlink("../elsewhere", root.path().join("etc/conf.d/a")).unwrap();
        let mtab = object("unix:file", &[("filepath", Equals, "/etc/mtab")]);
        let listing = object("unix:file", &[("path", Equals, "/etc/conf.d"), ("filename", PatternMatch, ".*")]);
        let (_, count, polled) = watching(root.path(), &[("mtab", mtab), ("listing", listing)]);
        assert_eq!((count, polled.len()), (0, 2));
    }

    #[test]
    fn what_is_not_observed_any_more_is_not_watched() {
        let root = tempfile::tempdir().unwrap();
        let file = object("unix:file", &[("filepath", Equals, "/a")]);
        let (mut watch, count, _) = watching(root.path(), &[("a", file)]);
        assert_eq!((count, watch.directories.len()), (1, 1));
        watch.remove("test");
        assert!(watch.directories.is_empty());
        std::fs::write(root.path().join("a"), "").unwrap();
        std::thread::sleep(Duration::from_millis(100));
        assert!(watch.take().0.is_empty());
    }
}
