//! Watching: the kernel tells which files have changed (inotify, through `notify`), and the objects of a plan that read them
//! are looked at again at once. What no file tells of, such as kernel parameters or listening sockets, is looked at again and
//! again; whatever is watched is looked at as a whole now and then, too.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use notify::{EventKind, RecommendedWatcher, RecursiveMode, Watcher as _};
use proto::plan::{CollectionPlan, Entity, EntityValue, Object, ObjectKey, ObjectSet, Operation, SetOperand};
use tokio::sync::mpsc;

/// Directories that are watched, for all observations together.
const DIRECTORIES_MAX: usize = 4_096;
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
        "unix:password" => files(&["/etc/passwd"]),
        "unix:shadow" => files(&["/etc/shadow"]),
        "linux:dpkginfo" => files(&["/var/lib/dpkg/status"]),
        "independent:textfilecontent54" | "unix:file" | "unix:symlink" => of_files(object, is_plain),
        _ => Reach::default(),
    }
}

/// The files that `filepath`, or `path` and `filename`, name.
fn of_files(object: &Object, is_plain: bool) -> Reach {
    let entity = |name: &str| object.entities.iter().find(|entity| entity.name == name);
    let is_recursive = object.behaviors.get("recurse_direction").is_some_and(|direction| direction != "none");
    // The contents of pseudo file systems change without a word.
    let is_told = |path: &str| !["/proc", "/sys", "/dev"].iter().any(|silent| path.starts_with(silent));
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
    directories: BTreeSet<PathBuf>,
    /// By observation.
    reaches: BTreeMap<String, BTreeMap<ObjectKey, Reach>>,
    /// Places as they are on this machine, and of which object they tell.
    places: BTreeMap<PathBuf, BTreeSet<(String, ObjectKey)>>,
}

/// What may have changed: by observation the objects; none: all of them.
pub type Dirty = BTreeMap<String, BTreeSet<ObjectKey>>;

impl Watch {
    /// Over the endpoint at this root. Where the kernel does not tell, nothing is watched and everything is looked at again
    /// and again.
    pub fn new(root: &Path) -> Self {
        let (tell, told) = mpsc::channel(EVENTS_MAX);
        let lost = std::sync::atomic::AtomicBool::new(false);
        let watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            use std::sync::atomic::Ordering::Relaxed;
            let message = match event {
                Ok(event) if event.need_rescan() => Told::Lost,
                Ok(event) if matches!(event.kind, EventKind::Access(_)) => return,
                Ok(event) => Told::Paths(event.paths),
                Err(_) => Told::Lost,
            };
            // What does not fit is made up for by the next that does.
            let message = if lost.swap(false, Relaxed) { Told::Lost } else { message };
            if tell.try_send(message).is_err() {
                lost.store(true, Relaxed);
            }
        });
        if let Err(error) = &watcher {
            tracing::warn!(%error, "the kernel does not tell what changes: everything is looked at again and again");
        }
        Self {
            root: root.to_owned(),
            watcher: watcher.ok(),
            told,
            directories: BTreeSet::new(),
            reaches: BTreeMap::new(),
            places: BTreeMap::new(),
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

    fn counts(&self, identifier: &str) -> (u64, BTreeSet<ObjectKey>) {
        let reaches = self.reaches.get(identifier).into_iter().flatten();
        let is_watched = |reach: &Reach| self.watcher.is_some() && reach.is_whole && self.covers(reach);
        let (watched, polled): (Vec<_>, Vec<_>) = reaches.partition(|(_, reach)| is_watched(reach));
        (watched.len() as u64, polled.into_iter().map(|(object, _)| object.clone()).collect())
    }

    /// Whether the directories of all its places are watched.
    fn covers(&self, reach: &Reach) -> bool {
        reach
            .places
            .iter()
            .flat_map(|place| self.located(place))
            .all(|place| existing(&place).is_none_or(|directory| self.directories.contains(&directory)))
    }

    /// Where a path of the endpoint is on this machine: itself, and what it leads to where it is a link.
    fn located(&self, place: &str) -> Vec<PathBuf> {
        let literal = self.root.join(place.trim_start_matches('/'));
        let followed = std::fs::canonicalize(&literal).ok().filter(|followed| *followed != literal);
        [literal].into_iter().chain(followed).collect()
    }

    /// Watches the directories that there are now: what was not there may have come, and what was may have gone.
    pub fn refresh(&mut self) {
        let mut places: BTreeMap<PathBuf, BTreeSet<(String, ObjectKey)>> = BTreeMap::new();
        for (identifier, reaches) in &self.reaches {
            for (object, reach) in reaches {
                for place in reach.places.iter().flat_map(|place| self.located(place)) {
                    places.entry(place).or_default().insert((identifier.clone(), object.clone()));
                }
            }
        }
        let mut wanted = BTreeSet::new();
        for place in places.keys() {
            // Its own entries, if it has some, and that it goes or comes.
            wanted.extend(place.is_dir().then(|| place.clone()));
            wanted.extend(existing(place));
        }
        self.places = places;
        let Some(watcher) = &mut self.watcher else { return };
        for gone in self.directories.difference(&wanted) {
            let _ = watcher.unwatch(gone);
        }
        self.directories.retain(|directory| wanted.contains(directory));
        for directory in wanted {
            if self.directories.contains(&directory) || self.directories.len() >= DIRECTORIES_MAX {
                continue;
            }
            match watcher.watch(&directory, RecursiveMode::NonRecursive) {
                Ok(()) => {
                    self.directories.insert(directory);
                }
                Err(error) => tracing::warn!(%error, directory = %directory.display(), "cannot be watched"),
            }
        }
    }

    /// What the kernel has told since it was asked last.
    pub fn take(&mut self) -> Dirty {
        let mut dirty = Dirty::new();
        let mut is_any = false;
        while let Ok(told) = self.told.try_recv() {
            is_any = true;
            match told {
                Told::Lost => {
                    for identifier in self.reaches.keys() {
                        dirty.insert(identifier.clone(), BTreeSet::new());
                    }
                }
                Told::Paths(paths) => {
                    for path in paths {
                        self.touch(&path, &mut dirty);
                    }
                }
            }
        }
        if is_any {
            self.refresh();
        }
        dirty
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

/// The nearest directory above a place that is there.
fn existing(place: &Path) -> Option<PathBuf> {
    place.ancestors().skip(1).find(|directory| directory.is_dir()).map(Path::to_owned)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

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
        let cases: [(Object, &[&str], bool); 10] = [
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
            (object("unix:password", &[("username", PatternMatch, ".*")]), &["/etc/passwd"], true),
            (object("linux:dpkginfo", &[("name", Equals, "sshd")]), &["/var/lib/dpkg/status"], true),
            (object("unix:sysctl", &[("name", Equals, "kernel.panic")]), &[], false),
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
            let dirty = watch.take();
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
            for (identifier, objects) in watch.take() {
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
        std::os::unix::fs::symlink(root.path().join("usr/real"), root.path().join("etc/link")).unwrap();
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
        // The one that tells of the loss.
        for _ in 0..500 {
            std::thread::sleep(Duration::from_millis(10));
            if watch.take().get("test").is_some_and(BTreeSet::is_empty) {
                return;
            }
            std::fs::write(root.path().join("etc/again"), "").unwrap();
        }
        panic!("the loss is not told");
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
        assert!(watch.take().is_empty());
    }
}
