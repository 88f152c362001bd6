//! `muster:package`: what package managers have installed. dpkg: its status file. rpm: its database. pip: `*.dist-info` and `*.egg-info`
//! in directories `site-packages` and `dist-packages`; npm: `package.json` of the packages in directories
//! `node_modules`, both below `/usr/lib`, `/usr/lib64`, `/usr/local` and `/opt`. `location` is where the package is
//! recorded. A package of a distribution that brings one of pip is both.

use std::collections::BTreeSet;
use std::os::unix::fs::MetadataExt as _;

use oval::resolve::Query;
use proto::observation::{Collected, Item, Status};

use super::dpkginfo::parse;
use super::entities::{Known, lacking, not_empty, text};
use super::limits::CANDIDATES_MAX;
use super::{Probe, ProbeError, finish, rpmdb, text_of};
use crate::host::{Cut, Host};

pub(crate) struct Package;

const DPKG_STATUS: &str = "/var/lib/dpkg/status";
/// Where pip and npm put packages, and how many directories further down theirs may be.
const BASES: [(&str, usize); 5] =
    [("/usr/lib", 3), ("/usr/lib64", 3), ("/usr/local/lib", 3), ("/usr/local/lib64", 3), ("/opt", 8)];
/// Packages of npm inside each other.
const NESTED_MAX: usize = 16;

const MANAGERS: [&str; 4] = ["dpkg", "npm", "pip", "rpm"];
const OF_PIP: [&str; 2] = ["site-packages", "dist-packages"];
const OF_NPM: [&str; 1] = ["node_modules"];

impl Probe for Package {
    const KIND: &'static str = "muster:package";

    fn collect(host: &Host, query: &Query) -> Result<Collected, ProbeError> {
        let mut search = Search { host, query, items: Vec::new(), errors: Vec::new() };
        for manager in MANAGERS {
            if !query.entity("manager").map_or(Ok(true), |asked| asked.matches(manager))? {
                continue;
            }
            match search.gather(manager) {
                Ok(()) => {}
                Err(error @ ProbeError::Query(_)) => return Err(error),
                // What the others have counts all the same.
                Err(error) => search.errors.push(error),
            }
        }
        Ok(lacking(finish(search.items, Vec::new()), search.errors))
    }
}

/// What was found so far, and why it is not all.
struct Search<'task> {
    host: &'task Host,
    query: &'task Query,
    items: Vec<Item>,
    errors: Vec<ProbeError>,
}

/// An entry of a directory.
struct Entry {
    path: String,
    name: String,
    is_directory: bool,
    is_link: bool,
}

impl Search<'_> {
    fn gather(&mut self, manager: &str) -> Result<(), ProbeError> {
        match manager {
            "dpkg" => self.dpkg(),
            "npm" => self.npm(),
            "pip" => self.pip(),
            _ => self.rpm(),
        }
    }

    fn dpkg(&mut self) -> Result<(), ProbeError> {
        let host = self.host;
        let packages =
            host.packages.get_or_init(|| Ok(parse(&text_of(host, DPKG_STATUS)?.unwrap_or_default()))).as_ref();
        for package in packages.map_err(Clone::clone)? {
            let arch = not_empty(&package.arch);
            self.push(item("dpkg", &package.name, Ok(package.version.clone()), arch, DPKG_STATUS))?;
        }
        Ok(())
    }

    fn rpm(&mut self) -> Result<(), ProbeError> {
        let installed = rpmdb::installed(self.host)?;
        let place = rpmdb::place(self.host)?;
        for package in installed.packages.iter().filter(|package| !package.is_key()) {
            self.push(item("rpm", &package.name, Ok(package.evr()), not_empty(&package.arch), place))?;
        }
        self.errors.extend(installed.problems.iter().cloned().map(ProbeError::Broken));
        Ok(())
    }

    fn pip(&mut self) -> Result<(), ProbeError> {
        for place in self.places(&OF_PIP)? {
            for entry in self.list(&place)? {
                let metadata = if entry.is_directory && entry.name.ends_with(".dist-info") {
                    format!("{}/METADATA", entry.path)
                } else if entry.is_directory && entry.name.ends_with(".egg-info") {
                    format!("{}/PKG-INFO", entry.path)
                } else if entry.name.ends_with(".egg-info") {
                    entry.path.clone()
                } else {
                    continue;
                };
                // What an upgrade left behind has no such file and is no package, for pip neither.
                let Some(content) = self.content_of("pip", &metadata)? else { continue };
                match header(&content, "Name") {
                    Some(name) => {
                        let version = header(&content, "Version").ok_or(Status::DoesNotExist);
                        self.push(item("pip", name, version.map(str::to_owned), NO_ARCH, &entry.path))?;
                    }
                    None => self.push(broken("pip", &metadata, "there is no name"))?,
                }
            }
        }
        Ok(())
    }

    fn npm(&mut self) -> Result<(), ProbeError> {
        for place in self.places(&OF_NPM)? {
            self.node_modules(&place, 0)?;
        }
        Ok(())
    }

    fn node_modules(&mut self, place: &str, depth: usize) -> Result<(), ProbeError> {
        if depth > NESTED_MAX {
            self.errors.push(ProbeError::NotCovered(format!("packages deeper than {NESTED_MAX} in each other")));
            return Ok(());
        }
        for entry in self.list(place)?.into_iter().filter(is_package) {
            if !entry.name.starts_with('@') {
                self.node_package(&entry, &entry.name, depth)?;
                continue;
            }
            for inner in self.list(&entry.path)?.into_iter().filter(is_package) {
                self.node_package(&inner, &format!("{}/{}", entry.name, inner.name), depth)?;
            }
        }
        Ok(())
    }

    fn node_package(&mut self, entry: &Entry, name: &str, depth: usize) -> Result<(), ProbeError> {
        let file = format!("{}/package.json", entry.path);
        if let Some(content) = self.content_of("npm", &file)? {
            match serde_json::from_str::<PackageJson>(content.trim_start_matches('\u{feff}')) {
                Ok(json) => {
                    let version = not_empty(json.version.as_deref().unwrap_or_default());
                    // Without a name of its own it is what node finds it by.
                    let name = json.name.as_deref().unwrap_or(name);
                    self.push(item("npm", name, version, NO_ARCH, &entry.path))?;
                }
                Err(error) => self.push(broken("npm", &file, &error.to_string()))?,
            }
        }
        // A link may lead back here.
        let nested = format!("{}/node_modules", entry.path);
        if !entry.is_link && self.host.lstat(&nested).is_ok_and(|metadata| metadata.is_dir()) {
            self.node_modules(&nested, depth + 1)?;
        }
        Ok(())
    }

    /// A file of a package; a broken one is an item that says so.
    fn content_of(&mut self, manager: &str, path: &str) -> Result<Option<String>, ProbeError> {
        match text_of(self.host, path) {
            Err(ProbeError::Broken(message)) => {
                self.push(broken(manager, path, &message))?;
                Ok(None)
            }
            Err(error @ ProbeError::Denied(_)) => {
                self.deny(error);
                Ok(None)
            }
            // The answer as a whole says so.
            Err(ProbeError::Away(_)) => Ok(None),
            other => other,
        }
    }

    fn push(&mut self, item: Item) -> Result<(), ProbeError> {
        if self.query.matches(&item)? {
            if self.items.len() >= CANDIDATES_MAX {
                return Err(Cut::Items.into());
            }
            self.items.push(item);
        }
        Ok(())
    }

    /// One of them says enough.
    fn deny(&mut self, error: ProbeError) {
        if !self.errors.iter().any(|known| matches!(known, ProbeError::Denied(_))) {
            self.errors.push(error);
        }
    }

    /// Directories of these names below the bases, each once.
    fn places(&mut self, names: &[&str]) -> Result<Vec<String>, ProbeError> {
        let mut places = Vec::new();
        let mut seen = BTreeSet::new();
        for (base, depth) in BASES {
            let mut open = vec![(base.to_owned(), depth)];
            while let Some((directory, depth)) = open.pop() {
                // One may be a link to another, such as `/usr/lib64`.
                let Ok(metadata) = self.host.stat(&directory) else { continue };
                if !seen.insert((metadata.dev(), metadata.ino())) {
                    continue;
                }
                for entry in self.list(&directory)?.into_iter().filter(|entry| entry.is_directory && !entry.is_link) {
                    // Inside a place of either there is no other one to look for.
                    let name = entry.name.as_str();
                    if names.contains(&name) {
                        places.push(entry.path);
                    } else if depth > 1 && !OF_PIP.contains(&name) && !OF_NPM.contains(&name) {
                        open.push((entry.path, depth - 1));
                    }
                }
            }
        }
        places.sort();
        Ok(places)
    }

    /// What is in a directory, by name.
    fn list(&mut self, directory: &str) -> Result<Vec<Entry>, ProbeError> {
        let entries = match self.host.read_dir(directory) {
            Ok(entries) => entries,
            Err(error) => {
                if error.kind() == std::io::ErrorKind::PermissionDenied {
                    self.deny(ProbeError::Denied(directory.to_owned()));
                }
                return Ok(Vec::new());
            }
        };
        let mut listed = Vec::new();
        for entry in entries.filter_map(Result::ok) {
            self.host.count_entry()?;
            let Ok(kind) = entry.file_type() else { continue };
            // What cannot be named cannot be reported, and must not pass for absent.
            let Ok(name) = entry.file_name().into_string() else {
                if kind.is_dir() {
                    let words = format!("a name in {directory} that is not UTF-8");
                    self.errors.push(ProbeError::NotCovered(words));
                }
                continue;
            };
            let path = format!("{directory}/{name}");
            let is_link = kind.is_symlink();
            let is_directory = kind.is_dir() || is_link && self.host.stat(&path).is_ok_and(|target| target.is_dir());
            listed.push(Entry { path, name, is_directory, is_link });
        }
        listed.sort_by(|one, other| one.name.cmp(&other.name));
        Ok(listed)
    }
}

const NO_ARCH: Known<String> = Err(Status::DoesNotExist);

/// `.bin` and the like are npm's own.
fn is_package(entry: &Entry) -> bool {
    entry.is_directory && !entry.name.starts_with('.')
}

/// The part of `package.json` that counts.
#[derive(serde::Deserialize)]
struct PackageJson {
    name: Option<String>,
    version: Option<String>,
}

/// A field of what stands before the first empty line.
fn header<'content>(content: &'content str, name: &str) -> Option<&'content str> {
    let mut lines = content.lines().take_while(|line| !line.trim().is_empty());
    let value = lines.find_map(|line| {
        let (key, value) = line.split_once(':')?;
        key.eq_ignore_ascii_case(name).then_some(value.trim())
    });
    value.filter(|value| !value.is_empty())
}

fn item(manager: &str, name: &str, version: Known<String>, arch: Known<String>, location: &str) -> Item {
    let entities = vec![
        text("manager", Ok(manager)),
        text("name", Ok(name)),
        text("version", version),
        text("arch", arch),
        text("location", Ok(location)),
    ];
    Item::new(Package::KIND, entities)
}

fn broken(manager: &str, path: &str, message: &str) -> Item {
    let mut item = Item::new(Package::KIND, vec![text("manager", Ok(manager)), text("location", Ok(path))]);
    item.status = Status::Error;
    item.message = Some(if message.starts_with(path) { message.to_owned() } else { format!("{path}: {message}") });
    item
}

#[cfg(test)]
mod tests {
    use super::super::entities::fixture::{asked, query, tree};
    use super::*;
    use proto::observation::Flag;
    use proto::plan::Operation;

    const TREE: [(&str, &str); 14] = [
        (
            "var/lib/dpkg/status",
            "Package: bash\nStatus: install ok installed\nArchitecture: amd64\nVersion: 5.2-1\n\n\
             Package: gone\nStatus: deinstall ok config-files\nVersion: 1\n",
        ),
        (
            "usr/lib/python3/dist-packages/idna-3.3.egg-info/PKG-INFO",
            "Metadata-Version: 1.2\nName: idna\nVersion: 3.3\n",
        ),
        ("usr/lib/python3/dist-packages/six-1.16.0.egg-info", "name: six\nVersion: 1.16.0\n\nVersion: 9\n"),
        ("usr/lib/python3/dist-packages/six.py", "Name: none\n"),
        ("usr/local/lib/python3.11/site-packages/left-1.0.dist-info/RECORD", "left behind"),
        (
            "opt/app/venv/lib/python3.11/site-packages/Flask-3.0.0.dist-info/METADATA",
            "Name: Flask\nVersion: 3.0.0\n\nName: text\n",
        ),
        ("usr/lib/node_modules/npm/package.json", "{\"name\":\"npm\",\"version\":\"10.1.0\",\"bin\":{}}"),
        ("usr/lib/node_modules/npm/node_modules/@npm/arborist/package.json", "{\"version\":\"7.0.0\"}"),
        ("usr/lib/node_modules/npm/node_modules/.bin/package.json", "{\"name\":\"none\"}"),
        ("usr/lib/node_modules/npm/src/package.json", "{\"name\":\"none\"}"),
        ("opt/tool/node_modules/local/package.json", "\u{feff}{\"name\":\"local\"}"),
        ("usr/share/python3/site-packages/x-1.dist-info/METADATA", "Name: elsewhere\n"),
        ("usr/lib/a/b/c/d/node_modules/deep/package.json", "{\"name\":\"deep\"}"),
        ("opt/empty", ""),
    ];

    fn collect(manager: &str, name: &str, more: &[(&str, &str)]) -> Collected {
        let (_root, host) = tree(&[&TREE[..], more].concat());
        let pattern = |entity, pattern| asked(entity, Operation::PatternMatch, pattern);
        let query = query(Package::KIND, vec![pattern("manager", manager), pattern("name", name)]);
        Package::collect(&host, &query).unwrap()
    }

    fn found(manager: &str, name: &str) -> Vec<String> {
        let collected = collect(manager, name, &[]);
        let word = |item: &Item, name: &str| item.value(name).unwrap_or("-").to_owned();
        collected
            .items
            .iter()
            .map(|item| ["manager", "name", "version", "arch"].map(|name| word(item, name)).join(" "))
            .collect()
    }

    #[test]
    fn every_manager_has_its_packages() {
        assert_eq!(
            found(".*", ".*"),
            [
                "dpkg bash 5.2-1 amd64",
                "npm local - -",
                "npm npm 10.1.0 -",
                "npm @npm/arborist 7.0.0 -",
                "pip Flask 3.0.0 -",
                "pip idna 3.3 -",
                "pip six 1.16.0 -",
            ]
        );
    }

    #[test]
    fn only_what_is_asked_for_is_found() {
        assert_eq!(found("^pip$", "^idna$"), ["pip idna 3.3 -"]);
        assert!(found("^dpkg$", "^idna$").is_empty());
        let flask = &collect("pip", "^Flask$", &[]).items[0];
        let location = "/opt/app/venv/lib/python3.11/site-packages/Flask-3.0.0.dist-info";
        assert_eq!(flask.value("location"), Some(location));
    }

    #[test]
    fn what_is_broken_is_an_error_and_the_rest_counts() {
        for (path, content) in [
            ("opt/tool/node_modules/bad/package.json", "{\"name\":"),
            ("opt/tool/node_modules/bad/package.json", "{\"name\":7}"),
            ("usr/lib/python3/dist-packages/bad-1.dist-info/METADATA", "Version: 1\n"),
            ("usr/lib/python3/dist-packages/bad-1.egg-info", "\u{1}\u{0}"),
        ] {
            let collected = collect(".*", ".*", &[(path, content)]);
            assert_eq!((collected.flag, collected.items.len()), (Flag::Error, 8), "{content:?}");
            let broken = collected.items.iter().find(|item| item.status == Status::Error).unwrap();
            assert!(broken.message.as_deref().unwrap().contains("bad"), "{broken:?}");
        }
    }

    #[test]
    fn packages_of_rpm_are_those_of_its_database_and_a_broken_one_is_no_absence() {
        let (_root, host) = rpmdb::testing::host_with("ndb/Packages.db", "usr/lib/sysimage/rpm/Packages.db");
        let rpm = query(Package::KIND, vec![asked("manager", Operation::Equals, "rpm")]);
        let collected = Package::collect(&host, &rpm).unwrap();
        assert_eq!((collected.flag, collected.items.len()), (Flag::Complete, 3), "{collected:?}");
        assert_eq!(collected.items[0].value("location"), Some("/usr/lib/sysimage/rpm/Packages.db"));
        let broken = [("var/lib/rpm/rpmdb.sqlite", "no database")];
        assert!(matches!(collect("^rpm$", ".*", &broken).flag, Flag::Error | Flag::NotCollected));
        assert_eq!(collect("^dpkg$", ".*", &broken).flag, Flag::Complete);
        assert_eq!(collect("^rpm$", ".*", &[]).flag, Flag::DoesNotExist);
    }

    #[test]
    fn links_among_packages_end() {
        let (root, host) = tree(&TREE);
        let at = |path: &str| root.path().join(path);
        std::os::unix::fs::symlink("/opt/tool", at("opt/tool/node_modules/back")).unwrap();
        std::os::unix::fs::symlink("/usr/lib", at("usr/lib64")).unwrap();
        let collected = Package::collect(&host, &query(Package::KIND, Vec::new())).unwrap();
        assert_eq!((collected.flag, collected.items.len()), (Flag::Complete, 7));
    }
}
