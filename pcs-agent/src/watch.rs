//! Watching: the kernel tells which files have changed (inotify, through `notify`), and the objects of a plan that read them
//! are looked at again at once. On a live system it is told of units, mounts, sockets, routes and kernel parameters as well
//! (`ways`). What nobody tells of is looked at again and again; whatever is watched is looked at as a whole now and then, too.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use notify::{EventKind, RecommendedWatcher, RecursiveMode, Watcher as _};
use proto::message::{FollowedBy, Following};
use proto::plan::ObjectKey;
use tokio::sync::{mpsc, watch};

mod fingerprint;
mod mounts;
mod pace;
mod reach;
mod units;
mod ways;

use pace::Pace;
use reach::is_told;
pub use reach::{Reach, reaches};
pub use ways::Way;
use ways::{Teller, Told, Ways};

use crate::guard::Guard;

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

/// Watches for observations.
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
    /// Other ways in which it is told; none where the endpoint is not this machine.
    ways: Option<Ways>,
    /// How often objects are looked at that other ways tell of.
    paces: BTreeMap<(String, ObjectKey), Pace>,
    /// Whether systemd was listened to when it was last asked.
    heard_units: bool,
    /// What nobody looks after here, as of then.
    guard: Guard,
}

/// A directory that is watched.
#[derive(Debug, Default)]
struct Watched {
    file: (u64, u64),
    aliases: BTreeSet<PathBuf>,
}

/// What may have changed: by observation the objects; none: all of them.
pub type Dirty = BTreeMap<String, BTreeSet<ObjectKey>>;

/// How the objects of an observation are followed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Followed {
    /// How many can change in no way that is not told.
    pub watched_count: u64,
    /// The others, which have to be looked at again and again.
    pub polled: BTreeSet<ObjectKey>,
    /// The ways that tell, and of how many objects each does, wholly or in part.
    pub by: Vec<FollowedBy>,
}

impl Watch {
    /// Over the endpoint at this root. Where the kernel does not tell, nothing is watched and everything is looked at again
    /// and again.
    pub fn new(root: &Path) -> Self {
        let (tell, told) = mpsc::channel(EVENTS_MAX);
        let is_lost = Arc::new(AtomicBool::new(false));
        let teller = Teller::new(tell, Arc::clone(&is_lost));
        let of_files = teller.clone();
        let watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            let message = match event {
                Ok(event) if event.need_rescan() => Told::Lost,
                Ok(event) if matches!(event.kind, EventKind::Access(_)) => return,
                Ok(event) => Told::Paths(event.paths),
                Err(_) => Told::Lost,
            };
            of_files.tell(message);
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
            ways: (root == Path::new("/")).then(|| Ways::new(root, teller)),
            paces: BTreeMap::new(),
            heard_units: false,
            guard: Guard::default(),
        }
    }

    /// Watches what an observation reads, and says how.
    pub fn set(&mut self, identifier: &str, reaches: BTreeMap<ObjectKey, Reach>) -> Followed {
        self.reaches.insert(identifier.to_owned(), reaches);
        self.refresh();
        self.want_ways();
        self.followed(identifier)
    }

    /// An observation has ended.
    pub fn remove(&mut self, identifier: &str) {
        if self.reaches.remove(identifier).is_some() {
            self.refresh();
            self.want_ways();
        }
    }

    fn want_ways(&mut self) {
        let reaches = &self.reaches;
        self.paces.retain(|(identifier, object), _| {
            reaches.get(identifier).is_some_and(|reaches| reaches.contains_key(object))
        });
        if let Some(ways) = &mut self.ways {
            let wanted = reaches.values().flat_map(BTreeMap::values).flat_map(|reach| &reach.ways);
            ways.want(&wanted.cloned().collect());
        }
    }

    /// How the objects of an observation are followed at present.
    pub fn followed(&self, identifier: &str) -> Followed {
        let tells = |way: &Way| self.ways.as_ref().is_some_and(|ways| ways.tells(way));
        let seconds = self.ways.as_ref().and_then(Ways::fingerprint_interval).map(|interval| interval.as_secs());
        let mut counts: BTreeMap<Following, u64> = BTreeMap::new();
        let mut followed = Followed::default();
        for (object, reach) in self.reaches.get(identifier).into_iter().flatten() {
            let has_files = self.watcher.is_some() && reach.files().any(|file| is_told(file));
            let files = has_files.then_some(Following::Files);
            let others = reach.ways.iter().filter(|way| tells(way)).map(Way::following);
            for following in files.into_iter().chain(others).collect::<BTreeSet<_>>() {
                *counts.entry(following).or_default() += 1;
            }
            let is_covered = || reach.places.is_empty() || self.watcher.is_some() && self.covers(reach);
            if reach.is_whole && reach.ways.iter().all(tells) && is_covered() {
                followed.watched_count += 1;
            } else {
                followed.polled.insert(object.clone());
            }
        }
        let by = |(way, count)| FollowedBy { way, count, seconds: seconds.filter(|_| way == Following::Fingerprints) };
        followed.by = counts.into_iter().map(by).collect();
        followed
    }

    /// Where an observation is of units: becomes something when it is known whether systemd is listened to.
    pub fn units_known(&self, identifier: &str) -> Option<watch::Receiver<Option<bool>>> {
        let mut reaches = self.reaches.get(identifier)?.values();
        let is_of_units = reaches.any(|reach| reach.ways.contains(&Way::Units));
        self.ways.as_ref().filter(|_| is_of_units)?.units_known()
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
            let is_near = self.is_told_of(&located, true);
            is_near
                && is_told(&place)
                && existing(&located).is_none_or(|directory| is_watched(&directory))
                && !has_links()
        })
    }

    /// Whether a place is in no mount that others answer for: the kernel does not tell what they change, and who looks there may
    /// not come back.
    fn is_told_of(&self, located: &Path, is_last_followed: bool) -> bool {
        !self.guard.is_needed() || self.guard.follow(located, is_last_followed).is_ok()
    }

    fn located(&self, place: &str) -> PathBuf {
        self.root.join(place.trim_start_matches('/'))
    }

    /// A path of the endpoint, and what it leads to where it is a link, step by step.
    fn hops(&self, place: &str) -> Vec<String> {
        let mut hops = vec![place.to_owned()];
        while hops.len() < HOPS_MAX
            && let Some(last) = hops.last()
            && self.is_told_of(&self.located(last), false)
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
        self.guard = Guard::of_all_that_may_hang();
        let mut places: BTreeMap<PathBuf, BTreeSet<(String, ObjectKey)>> = BTreeMap::new();
        for (identifier, reaches) in &self.reaches {
            for (object, reach) in reaches {
                for place in reach.files().flat_map(|place| self.hops(place)) {
                    places.entry(self.located(&place)).or_default().insert((identifier.clone(), object.clone()));
                }
            }
        }
        let mut wanted: BTreeMap<PathBuf, BTreeSet<PathBuf>> = BTreeMap::new();
        for place in places.keys() {
            // Its own entries, if it has some, and whatever is on the way to it.
            for directory in place.ancestors().take_while(|directory| directory.starts_with(&self.root)) {
                if self.is_told_of(directory, true)
                    && let Ok(real) = std::fs::canonicalize(directory)
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

    /// What was told since this was asked last, and whether objects may be followed otherwise than before.
    pub fn take(&mut self) -> (Dirty, bool) {
        let mut dirty = Dirty::new();
        let mut is_any = false;
        let mut ways = BTreeSet::new();
        while let Ok(told) = self.told.try_recv() {
            match told {
                Told::Way(way) => {
                    ways.insert(way);
                }
                Told::Lost => {
                    is_any = true;
                    self.lose(&mut dirty);
                }
                Told::Paths(paths) => {
                    is_any = true;
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
        if self.ways.as_ref().is_some_and(Ways::are_mounts_changed) {
            ways.insert(Way::Mounts);
        }
        self.touch_told(&ways, Instant::now(), &mut dirty);
        let hears_units = self.ways.as_ref().is_some_and(Ways::hears_units);
        let is_otherwise = std::mem::replace(&mut self.heard_units, hears_units) != hears_units;
        (dirty, is_refreshed || is_otherwise)
    }

    /// The objects of which these ways tell, and those that were told of before, as far as it is time to look at them.
    fn touch_told(&mut self, ways: &BTreeSet<Way>, now: Instant, dirty: &mut Dirty) {
        if !ways.is_empty() {
            for (identifier, reaches) in &self.reaches {
                for (object, _) in reaches.iter().filter(|(_, reach)| !reach.ways.is_disjoint(ways)) {
                    self.paces.entry((identifier.clone(), object.clone())).or_default().told();
                }
            }
        }
        for (of, pace) in &mut self.paces {
            if pace.is_time(now) {
                mark(dirty, of);
            }
        }
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
        let mut tell = |told: &BTreeSet<(String, ObjectKey)>| told.iter().for_each(|of| mark(dirty, of));
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

fn mark(dirty: &mut Dirty, (identifier, object): &(String, ObjectKey)) {
    match dirty.get_mut(identifier) {
        // None means all already.
        Some(objects) if objects.is_empty() => {}
        Some(objects) => {
            objects.insert(object.clone());
        }
        None => {
            dirty.insert(identifier.clone(), BTreeSet::from([object.clone()]));
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
    use super::reach::of_object;
    use super::reach::tests::object;
    use super::*;
    use proto::plan::Object;
    use proto::plan::Operation::{Equals, PatternMatch};

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
        let followed = watch.set("test", reaches);
        (watch, followed.watched_count, followed.polled)
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
    #[test]
    fn another_way_tells_of_its_own_objects_only_and_on_another_root_no_way_is_followed() {
        let root = tempfile::tempdir().unwrap();
        let parameter = |name: &str| object("unix:sysctl", &[("name", Equals, name)]);
        let objects = [
            ("panic", parameter("kernel.panic")),
            ("ptrace", parameter("kernel.yama.ptrace_scope")),
            ("mount", object("muster:mount", &[])),
        ];
        let (mut watch, count, polled) = watching(root.path(), &objects);
        assert_eq!((count, polled.len(), watch.ways.is_none()), (0, 3, true));
        assert!(watch.followed("test").by.is_empty());
        let key = |name: &str| ObjectKey(name.to_owned());
        let now = Instant::now();
        let mut touched = |ways: &[Way], seconds: u64| {
            let mut dirty = Dirty::new();
            watch.touch_told(&ways.iter().cloned().collect(), now + Duration::from_secs(seconds), &mut dirty);
            dirty.remove("test").unwrap_or_default()
        };
        let panic = Way::Parameter("kernel.panic".to_owned());
        assert_eq!(touched(&[Way::Mounts], 0), BTreeSet::from([key("mount")]));
        assert_eq!(touched(&[panic.clone(), Way::Units], 0), BTreeSet::from([key("panic")]));
        // What changes all the time does not hold up the others, and is looked at in the end.
        while !touched(std::slice::from_ref(&panic), 0).is_empty() {}
        assert_eq!(touched(&[Way::Mounts], 1), BTreeSet::from([key("mount")]));
        assert_eq!(touched(&[], 60), BTreeSet::from([key("panic")]));
        assert!(touched(&[], 600).is_empty());
        let mut dirty = Dirty::from([("test".to_owned(), BTreeSet::new())]);
        watch.touch_told(&BTreeSet::from([panic]), now + Duration::from_mins(15), &mut dirty);
        assert!(dirty["test"].is_empty(), "all is all");
        watch.remove("test");
        assert!(watch.paces.is_empty());
    }
}
