//! What RPM has installed, from its own database: SQLite (RHEL 9, Fedora), ndb (SUSE), or a Berkeley DB hash (RHEL 7
//! and 8).
//!
//! One package at a time is in memory. No lock is taken: a database that has changed while it was read is read again.

mod bdb;
mod bytes;
mod header;
mod ndb;
mod pgp;
mod reader;
mod sqlite;
mod wal;

use std::io;
use std::os::unix::fs::MetadataExt as _;

use oval::check::Truth;
use oval::compare::CompareError;
use oval::pattern::{Flags, Pattern};
use oval::resolve::{Query, QueryEntity};
use proto::observation::{Collected, Flag, Item};
use proto::plan::Operation;

pub(super) use header::{Damaged, Header};

use super::{ProbeError, finish};
use crate::host::{Away, Cut, Host};

/// Where RPM keeps its database, of whatever format and distribution.
const DATABASES: [(&str, Format); 9] = [
    ("/var/lib/rpm/rpmdb.sqlite", Format::Sqlite),
    ("/var/lib/rpm/Packages", Format::Bdb),
    ("/var/lib/rpm/Packages.db", Format::Ndb),
    ("/usr/lib/sysimage/rpm/rpmdb.sqlite", Format::Sqlite),
    ("/usr/lib/sysimage/rpm/Packages", Format::Bdb),
    ("/usr/lib/sysimage/rpm/Packages.db", Format::Ndb),
    ("/usr/share/rpm/rpmdb.sqlite", Format::Sqlite),
    ("/usr/share/rpm/Packages", Format::Bdb),
    ("/usr/share/rpm/Packages.db", Format::Ndb),
];

/// RPM's own configuration: where it is missing too, RPM is not used.
const CONFIGURATION: &str = "/usr/lib/rpm/rpmrc";

/// What RPM writes where there is no value.
const NONE: &str = "(none)";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Format {
    Bdb,
    Ndb,
    Sqlite,
}

/// A package, without its files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Package {
    pub(super) name: Box<str>,
    /// `(none)` for a key, which is installed like a package.
    pub(super) arch: Box<str>,
    pub(super) epoch: Option<u32>,
    pub(super) version: Box<str>,
    pub(super) release: Box<str>,
    /// Of the key that it says it was signed with.
    pub(super) key_id: Option<u64>,
    pub(super) has_verify_script: bool,
}

/// All packages, read once a task.
#[derive(Debug, Default)]
pub(crate) struct Installed {
    pub(super) packages: Vec<Package>,
    /// What could not be read, in words.
    pub(super) problems: Vec<String>,
}

impl Package {
    pub(super) fn of(header: &Header<'_>) -> Result<Self, Damaged> {
        let boxed = |text: Option<std::borrow::Cow<'_, str>>| Box::from(text.as_deref().unwrap_or(NONE));
        Ok(Self {
            name: boxed(header.name()?),
            arch: boxed(header.arch()?),
            epoch: header.epoch()?,
            version: boxed(header.version()?),
            release: boxed(header.release()?),
            key_id: header.key_id()?,
            has_verify_script: header.has_verify_script()?,
        })
    }

    /// Whether it is a key, which RPM keeps among the packages.
    pub(super) fn is_key(&self) -> bool {
        &*self.name == "gpg-pubkey" && &*self.arch == NONE
    }

    /// The epoch in the words of RPM.
    pub(super) fn epoch_text(&self) -> String {
        self.epoch.map_or_else(|| NONE.to_owned(), |epoch| epoch.to_string())
    }

    /// `EPOCH:VERSION-RELEASE`.
    pub(super) fn evr(&self) -> String {
        format!("{}:{}-{}", self.epoch.unwrap_or(0), self.version, self.release)
    }

    /// `NAME-EPOCH:VERSION-RELEASE.ARCHITECTURE`.
    pub(super) fn extended_name(&self) -> String {
        format!("{}-{}.{}", self.name, self.evr(), self.arch)
    }

    /// Bytes of memory.
    pub(super) fn bytes(&self) -> usize {
        size_of::<Self>() + self.name.len() + self.arch.len() + self.version.len() + self.release.len()
    }
}

/// What any question about RPM comes to where RPM is not used, as `oscap` has it.
pub(super) fn unused(host: &Host) -> Option<Collected> {
    let is_unused = matches!(database(host), Ok(None)) && host.lstat(CONFIGURATION).is_err();
    let reason = format!("RPM is not used here: there is neither a database nor {CONFIGURATION}");
    is_unused.then(|| Collected::nothing(Flag::NotApplicable, reason))
}

/// Where the database is.
pub(super) fn place(host: &Host) -> Result<&'static str, ProbeError> {
    Ok(database(host)?.map_or("", |(path, _)| path))
}

/// The packages that are installed, without their files.
pub(super) fn installed(host: &Host) -> Result<&Installed, ProbeError> {
    host.rpm.get_or_init(|| read_installed(host)).as_ref().map_err(Clone::clone)
}

fn read_installed(host: &Host) -> Result<Installed, ProbeError> {
    let (packages, problems) = scan(host, |packages: &mut Vec<Package>, header| {
        let package = Package::of(header)?;
        host.count_found(package.bytes() as u64)?;
        packages.push(package);
        Ok(())
    })?;
    Ok(Installed { packages, problems })
}

/// Calls with the header of each package. What comes of it is thrown away when the database has changed meanwhile.
/// Returns also what could not be read, in words.
pub(super) fn scan<T: Default>(
    host: &Host,
    mut visit: impl FnMut(&mut T, &Header<'_>) -> Result<(), ProbeError>,
) -> Result<(T, Vec<String>), ProbeError> {
    let Some((path, format)) = database(host)? else { return Ok((T::default(), Vec::new())) };
    for _ in 0..limits::READS_MAX {
        let before = Stamp::of(host, path);
        let mut found = T::default();
        let mut problems = Problems::default();
        let mut packages = 0_usize;
        let outcome = read(host, path, format, &mut problems, &mut |number, blob| {
            packages += 1;
            if packages > limits::PACKAGES_MAX {
                return Err(Cut::Items.into());
            }
            let visited = Header::parse(blob).map_err(ProbeError::from).and_then(|header| visit(&mut found, &header));
            visited.map_err(|error| match error {
                ProbeError::Broken(what) => ProbeError::Broken(format!("{path}: package {number}: {what}")),
                other => other,
            })
        });
        if matches!(outcome, Err(ProbeError::Cut(_))) || before == Stamp::of(host, path) {
            return outcome.map(|()| (found, problems.into_words()));
        }
    }
    Err(ProbeError::Broken(format!("{path}: it changes again and again while it is read")))
}

/// A database that cannot be read, as far as that can be said before anybody asks.
pub(super) fn unread(host: &Host) -> Option<ProbeError> {
    let opened = database(host).and_then(|database| match database {
        Some((path, Format::Sqlite)) => sqlite::Database::open(host, path).map(|_| ()),
        Some((path, Format::Ndb)) => ndb::Database::open(host, path).map(|_| ()),
        Some((path, Format::Bdb)) => bdb::Database::open(host, path).map(|_| ()),
        None => Ok(()),
    });
    opened.err()
}

/// The database that there is. Of several nobody knows which one counts.
fn database(host: &Host) -> Result<Option<(&'static str, Format)>, ProbeError> {
    let mut found = None;
    for (path, format) in DATABASES {
        let metadata = match host.stat(path) {
            Ok(metadata) => metadata,
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => continue,
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                return Err(ProbeError::Denied(path.to_owned()));
            }
            Err(error) => {
                let broken = || ProbeError::Broken(format!("{path}: {error}"));
                return Err(Away::behind(&error).map_or_else(broken, |away| away.clone().into()));
            }
        };
        // One directory is often a link to another one.
        let identity = (metadata.dev(), metadata.ino());
        match found {
            None => found = Some((path, format, identity)),
            Some((_, _, known)) if known == identity => {}
            Some((other, _, _)) => {
                return Err(ProbeError::NotCovered(format!("more than one RPM database: {other} and {path}")));
            }
        }
    }
    Ok(found.map(|(path, format, _)| (path, format)))
}

/// Called with the number of each package and its header's bytes.
type Blobs<'call> = dyn FnMut(u64, &[u8]) -> Result<(), ProbeError> + 'call;

fn read(
    host: &Host,
    path: &str,
    format: Format,
    problems: &mut Problems,
    visit: &mut Blobs<'_>,
) -> Result<(), ProbeError> {
    match format {
        Format::Sqlite => sqlite::Database::open(host, path)?.map(|database| database.packages(problems, visit)),
        Format::Ndb => ndb::Database::open(host, path)?.map(|database| database.packages(problems, visit)),
        Format::Bdb => bdb::Database::open(host, path)?.map(|database| database.packages(problems, visit)),
    }
    // It was there a moment ago.
    .unwrap_or_else(|| Err(ProbeError::Broken(format!("{path}: it is gone"))))
}

/// What is different after a database was written: the file, or the beginning of its write-ahead log. What is added to
/// a log does not change what was read.
#[derive(Debug, PartialEq, Eq)]
struct Stamp {
    file: Option<(u64, u64, u64, i64, i64)>,
    log: Option<[u8; wal::HEADER_BYTES]>,
}

impl Stamp {
    fn of(host: &Host, path: &str) -> Self {
        let file = host
            .stat(path)
            .ok()
            .map(|metadata| (metadata.dev(), metadata.ino(), metadata.size(), metadata.mtime(), metadata.mtime_nsec()));
        let log = reader::Reader::open(host, &format!("{path}-wal")).ok().flatten().and_then(|log| {
            let mut header = [0; wal::HEADER_BYTES];
            log.read(0, &mut header).ok().map(|()| header)
        });
        Self { file, log }
    }
}

/// What is damaged, in words. The rest is read all the same.
#[derive(Debug, Default)]
struct Problems {
    words: Vec<String>,
    more: usize,
}

impl Problems {
    /// What there is; none where it is damaged.
    fn pass<T>(&mut self, outcome: Result<T, ProbeError>) -> Result<Option<T>, ProbeError> {
        match outcome {
            Ok(value) => Ok(Some(value)),
            Err(ProbeError::Broken(what)) => {
                if self.words.len() < limits::PROBLEMS_MAX {
                    self.words.push(what);
                } else {
                    self.more += 1;
                }
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    fn into_words(mut self) -> Vec<String> {
        if self.more > 0 {
            self.words.push(format!("and {} more", self.more));
        }
        self.words
    }
}

/// What was found in a database that may be damaged in places.
pub(super) fn flagged(items: Vec<Item>, problems: &[String]) -> Collected {
    let mut collected = finish(items, Vec::new());
    if !problems.is_empty() {
        collected.messages.extend_from_slice(problems);
        collected.flag = Flag::Error;
    }
    collected
}

/// Whether a behavior is on (`xsd:boolean`).
pub(super) fn is_on(query: &Query, behavior: &str) -> bool {
    matches!(query.behavior(behavior, "false"), "true" | "1")
}

/// An entity of an object, with its pattern compiled once where there is one.
pub(super) struct Asked<'query> {
    entity: &'query QueryEntity,
    pattern: Option<Pattern>,
}

impl<'query> Asked<'query> {
    pub(super) fn of(entity: &'query QueryEntity) -> Result<Self, CompareError> {
        let pattern = match entity.values.as_slice() {
            [only] if entity.operation == Operation::PatternMatch && !entity.is_nil => {
                Some(Pattern::new(only, Flags::default())?)
            }
            _ => None,
        };
        // An operation that its datatype does not have is an error before anything is compared.
        if pattern.is_none() {
            entity.matches("0")?;
        }
        Ok(Self { entity, pattern })
    }

    pub(super) fn name(&self) -> &str {
        &self.entity.name
    }

    pub(super) fn truth(&self, actual: &str) -> Truth {
        match &self.pattern {
            Some(pattern) => pattern.is_match(actual.as_bytes()).map_or(Truth::Error, Truth::from),
            None => self.entity.truth(actual),
        }
    }

    /// A value that cannot be compared, such as no epoch with a number, is not what is asked for.
    pub(super) fn takes(&self, actual: &str) -> Result<bool, ProbeError> {
        match &self.pattern {
            Some(pattern) => pattern.is_match(actual.as_bytes()).map_err(|error| CompareError::from(error).into()),
            None => Ok(self.entity.is_nil || self.truth(actual) == Truth::True),
        }
    }
}

/// Which packages an object asks for.
pub(super) struct Wanted<'query>(Vec<Asked<'query>>);

impl<'query> Wanted<'query> {
    /// None where the object does not say a name.
    pub(super) fn of(query: &'query Query) -> Result<Option<Self>, ProbeError> {
        if query.entity("name").is_none() {
            return Ok(None);
        }
        let names = ["name", "epoch", "version", "release", "arch"];
        let asked = names.iter().filter_map(|name| query.entity(name)).map(Asked::of).collect::<Result<_, _>>()?;
        Ok(Some(Self(asked)))
    }

    pub(super) fn takes(&self, package: &Package) -> Result<bool, ProbeError> {
        for asked in &self.0 {
            let is_taken = match asked.name() {
                "name" => asked.takes(&package.name),
                "epoch" => asked.takes(&package.epoch_text()),
                "version" => asked.takes(&package.version),
                "release" => asked.takes(&package.release),
                _ => asked.takes(&package.arch),
            };
            if !is_taken? {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

mod limits {
    /// Bytes of a database, and of its write-ahead log.
    pub(super) const DATABASE_BYTES_MAX: u64 = 1024 * 1024 * 1024;
    /// Bytes of a package's header.
    pub(super) const BLOB_BYTES_MAX: usize = 32 * 1024 * 1024;
    /// Entries of a header's index; RPM has the same limit.
    pub(super) const TAGS_MAX: u32 = 0xffff;
    /// Bytes of a name, a version or a path (`PATH_MAX`).
    pub(super) const TEXT_BYTES_MAX: usize = 4096;
    /// Packages of a database.
    pub(super) const PACKAGES_MAX: usize = 100_000;
    /// How often a database is read that changes meanwhile.
    pub(super) const READS_MAX: usize = 3;
    /// Damages that are told one by one.
    pub(super) const PROBLEMS_MAX: usize = 8;
}

#[cfg(test)]
pub(super) mod testing {
    use super::*;
    use std::path::PathBuf;

    pub(in crate::probe) use crate::probe::entities::fixture::{asked as entity, query};

    /// Databases with the same packages, and where such a one is installed.
    pub(in crate::probe) const FORMATS: [(&str, &str); 5] = [
        ("sqlite/rpmdb.sqlite", "var/lib/rpm/rpmdb.sqlite"),
        ("wal/rpmdb.sqlite", "usr/lib/sysimage/rpm/rpmdb.sqlite"),
        ("ndb/Packages.db", "usr/lib/sysimage/rpm/Packages.db"),
        ("bdb/Packages", "var/lib/rpm/Packages"),
        ("bdb-big-endian/Packages", "var/lib/rpm/Packages"),
    ];

    pub(in crate::probe) fn fixture(name: &str) -> PathBuf {
        PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/rpm")).join(name)
    }

    /// A root with this database and, if there is one, its write-ahead log.
    pub(in crate::probe) fn host_with(name: &str, place: &str) -> (tempfile::TempDir, Host) {
        let root = tempfile::tempdir().unwrap();
        let place = root.path().join(place);
        std::fs::create_dir_all(place.parent().unwrap()).unwrap();
        std::fs::copy(fixture(name), &place).unwrap();
        let log = fixture(&format!("{name}-wal"));
        if log.exists() {
            std::fs::copy(log, place.with_file_name("rpmdb.sqlite-wal")).unwrap();
        }
        let host = Host::new(root.path());
        (root, host)
    }
}

#[cfg(test)]
mod tests {
    use super::testing::{FORMATS, entity, fixture, host_with, query};
    use super::*;
    use proto::plan::Datatype;

    const SQLITE: &str = "var/lib/rpm/rpmdb.sqlite";

    /// Names of packages, and how many files each has.
    type Looked = Vec<(String, usize)>;

    /// The packages, and the problems.
    fn look(host: &Host) -> Result<(Looked, Vec<String>), ProbeError> {
        scan(host, |found: &mut Looked, header| {
            let name = Package::of(header)?.name.into_string();
            let files = header.files()?.collect::<Result<Vec<_>, _>>()?;
            found.push((name, files.len()));
            Ok(())
        })
    }

    fn names(host: &Host) -> Vec<String> {
        let (found, problems) = look(host).unwrap();
        assert_eq!(problems, [""; 0]);
        let mut names: Vec<String> = found.into_iter().map(|(name, _)| name).collect();
        names.sort();
        names
    }

    fn write(root: &tempfile::TempDir, place: &str, bytes: &[u8]) -> Host {
        let place = root.path().join(place);
        std::fs::create_dir_all(place.parent().unwrap()).unwrap();
        std::fs::write(place, bytes).unwrap();
        Host::new(root.path())
    }

    #[test]
    fn every_format_gives_the_same_packages_with_their_files() {
        for (name, place) in FORMATS {
            let (_root, host) = host_with(name, place);
            let (mut found, problems) = look(&host).unwrap();
            found.sort();
            let expect = [("alpha", 10), ("beta", 151), ("gamma", 0), ("gpg-pubkey", 0)];
            assert_eq!(found, expect.map(|(name, files)| (name.to_owned(), files)), "{name}");
            assert_eq!(problems, [""; 0], "{name}");
            assert!(unread(&host).is_none());
        }
    }

    #[test]
    fn a_file_is_as_the_package_says() {
        let (_root, host) = host_with("ndb/Packages.db", "usr/lib/sysimage/rpm/Packages.db");
        let (found, _) = scan(&host, |found: &mut Vec<String>, header| {
            if Package::of(header)?.name.as_ref() == "alpha" {
                assert_eq!(header.digest_algorithm(), Ok(8));
                for file in header.files()? {
                    let file = file?;
                    let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
                    found.push(format!(
                        "{} {:?} {} {:o} {:o} {} {} {}:{} {}{}",
                        file.path().unwrap(),
                        file.state,
                        file.flags,
                        file.verify_flags,
                        file.mode,
                        file.size,
                        text(file.digest).len(),
                        text(file.user),
                        text(file.group),
                        text(file.link),
                        text(file.capabilities),
                    ));
                }
            }
            Ok(())
        })
        .unwrap();
        let expect = [
            "/etc/alpha.conf Some(0) 17 37777777777 100644 4 64 root:root ",
            "/etc/alpha.d Some(0) 0 37777777777 40750 0 0 root:daemon ",
            "/etc/alpha.d/empty Some(0) 0 37777777777 100644 0 64 root:root ",
            "/etc/alpha.d/free Some(0) 0 37777777734 100644 3 64 root:root ",
            "/usr/bin/alpha Some(0) 0 37777777777 104755 4 64 root:root ",
            "/usr/bin/alpha-cap Some(0) 0 37777777777 100644 4 64 root:root cap_net_raw=p",
            "/usr/bin/alpha-link Some(0) 0 37777777777 120777 5 0 root:root alpha",
            "/usr/share/doc/alpha/README Some(0) 2 37777777777 100644 4 64 root:root ",
            "/usr/share/licenses/alpha/LICENSE Some(0) 128 37777777777 100644 4 64 root:root ",
            "/var/lib/alpha/state Some(0) 64 37777777730 100600 0 0 daemon:daemon ",
        ];
        assert_eq!(found, expect);
    }

    #[test]
    fn only_what_the_log_has_committed_counts() {
        let place = "usr/lib/sysimage/rpm/rpmdb.sqlite";
        let (root, host) = host_with("wal/rpmdb.sqlite", place);
        assert_eq!(names(&host), ["alpha", "beta", "gamma", "gpg-pubkey"]);
        // Without the log, and with a log that ends in its first transaction, the database is as it was before.
        let log = root.path().join(format!("{place}-wal"));
        let bytes = std::fs::read(&log).unwrap();
        std::fs::write(&log, &bytes[..600]).unwrap();
        assert_eq!(names(&Host::new(root.path())), ["alpha", "gpg-pubkey"]);
        std::fs::remove_file(&log).unwrap();
        assert_eq!(names(&Host::new(root.path())), ["alpha", "gpg-pubkey"]);
        // A frame that is not whole ends the log.
        let mut broken = bytes.clone();
        broken[40] ^= 1;
        std::fs::write(&log, &broken).unwrap();
        assert_eq!(names(&Host::new(root.path())), ["alpha", "gpg-pubkey"]);
        // Salts of an older log, too.
        let mut old = bytes;
        old[32 + 8] ^= 1;
        std::fs::write(&log, &old).unwrap();
        assert_eq!(names(&Host::new(root.path())), ["alpha", "gpg-pubkey"]);
    }

    #[test]
    fn what_is_not_a_database_of_a_known_kind_is_not_covered() {
        let check = |place: &str, bytes: &[u8]| {
            let root = tempfile::tempdir().unwrap();
            let host = write(&root, place, bytes);
            assert!(matches!(look(&host), Err(ProbeError::NotCovered(_))), "{place}");
            assert!(unread(&host).is_some());
        };
        check(SQLITE, &[0xa5; 4096]);
        check("var/lib/rpm/Packages", &[0; 4096]);
        check("var/lib/rpm/Packages", b"");
        check("usr/share/rpm/Packages.db", &[0; 4096]);
        let mut sqlite = std::fs::read(fixture("sqlite/rpmdb.sqlite")).unwrap();
        sqlite[19] = 3;
        check(SQLITE, &sqlite);
    }

    #[test]
    fn a_transaction_that_may_have_to_be_rolled_back_is_not_guessed_at() {
        let (root, host) = host_with("sqlite/rpmdb.sqlite", SQLITE);
        let journal = root.path().join(format!("{SQLITE}-journal"));
        std::fs::write(&journal, [0_u8; 512]).unwrap();
        assert_eq!(names(&host).len(), 4);
        std::fs::write(&journal, [0xd9, 0xd5, 0x05, 0xf9, 0x20, 0xa1, 0x63, 0xd7, 0, 0, 0, 1]).unwrap();
        assert!(matches!(look(&host), Err(ProbeError::NotCovered(_))));
    }

    #[test]
    fn one_database_by_two_paths_is_one_and_two_are_not_guessed_at() {
        let (root, host) = host_with("sqlite/rpmdb.sqlite", "usr/lib/sysimage/rpm/rpmdb.sqlite");
        std::fs::create_dir_all(root.path().join("var/lib")).unwrap();
        std::os::unix::fs::symlink("../../usr/lib/sysimage/rpm", root.path().join("var/lib/rpm")).unwrap();
        assert_eq!(names(&host).len(), 4);
        std::fs::copy(fixture("bdb/Packages"), root.path().join("var/lib/rpm/Packages")).unwrap();
        assert!(matches!(look(&host), Err(ProbeError::NotCovered(_))));
    }

    #[test]
    fn packages_are_read_once_a_task() {
        let (root, host) = host_with("sqlite/rpmdb.sqlite", SQLITE);
        assert_eq!(installed(&host).unwrap().packages.len(), 4);
        std::fs::remove_file(root.path().join(SQLITE)).unwrap();
        assert_eq!(installed(&host).unwrap().packages.len(), 4);
    }

    #[test]
    fn a_damaged_package_does_not_hide_the_others() {
        let mut bytes = std::fs::read(fixture("ndb/Packages.db")).unwrap();
        let at = bytes.windows(5).position(|part| part == b"alpha").unwrap();
        bytes[at] ^= 1;
        let root = tempfile::tempdir().unwrap();
        let (found, problems) = look(&write(&root, "var/lib/rpm/Packages.db", &bytes)).unwrap();
        assert_eq!((found.len(), problems.len()), (3, 1), "{problems:?}");
        let flag = |problems: &[String]| flagged(Vec::new(), problems).flag;
        assert_eq!(flag(&problems), Flag::Error);
        assert_eq!(flag(&[]), Flag::DoesNotExist);
    }

    #[test]
    fn no_damage_makes_the_reader_panic_or_loop() {
        for (name, place) in FORMATS {
            let whole = std::fs::read(fixture(name)).unwrap();
            let root = tempfile::tempdir().unwrap();
            if let Ok(log) = std::fs::read(fixture(&format!("{name}-wal"))) {
                write(&root, &format!("{place}-wal"), &log);
            }
            // The header byte by byte; further on every so many, of a large file fewer.
            let step = (whole.len() / 50) | 1;
            for at in (0..100).chain((100..whole.len()).step_by(step)) {
                let mut bytes = whole.clone();
                bytes[at] ^= if at % 2 == 0 { 0x01 } else { 0xff };
                let _ = look(&write(&root, place, &bytes));
                let _ = look(&write(&root, place, &whole[..at]));
            }
        }
    }

    #[test]
    fn no_damage_of_the_log_makes_the_reader_panic() {
        let place = "usr/lib/sysimage/rpm/rpmdb.sqlite";
        let (root, host) = host_with("wal/rpmdb.sqlite", place);
        let log = root.path().join(format!("{place}-wal"));
        let whole = std::fs::read(&log).unwrap();
        for at in (0..64).chain((64..whole.len()).step_by(997)) {
            let mut bytes = whole.clone();
            bytes[at] ^= 0xff;
            std::fs::write(&log, &bytes).unwrap();
            let _ = look(&host);
            std::fs::write(&log, &whole[..at]).unwrap();
            let _ = look(&host);
        }
    }

    #[test]
    fn no_damage_of_a_header_makes_the_reader_panic() {
        let (_root, host) = host_with("ndb/Packages.db", "var/lib/rpm/Packages.db");
        let database = ndb::Database::open(&host, "/var/lib/rpm/Packages.db").unwrap().unwrap();
        let mut blobs = Vec::new();
        let mut keep = |_: u64, blob: &[u8]| {
            blobs.push(blob.to_vec());
            Ok(())
        };
        database.packages(&mut Problems::default(), &mut keep).unwrap();
        let read = |blob: &[u8]| {
            let header = Header::parse(blob)?;
            let files = header.files()?.collect::<Result<Vec<_>, _>>()?.len();
            Package::of(&header).map(|_| files)
        };
        for blob in blobs.iter().filter(|blob| blob.len() < 5_000) {
            assert!(read(blob).is_ok());
            for at in 0..blob.len() {
                assert_eq!(read(&blob[..at]), Err(Damaged));
                let mut bytes = blob.clone();
                bytes[at] ^= 0xff;
                let _ = read(&bytes);
            }
        }
    }

    #[test]
    fn an_object_asks_for_packages_by_all_of_its_entities() {
        let package = |epoch| Package {
            name: "beta".into(),
            arch: "noarch".into(),
            epoch,
            version: "0.9".into(),
            release: "1.el9".into(),
            key_id: None,
            has_verify_script: false,
        };
        let takes = |name: &str, operation, value: &str, epoch| {
            let query = query(
                "linux:rpmverifyfile",
                vec![entity("name", Operation::PatternMatch, ".*"), entity(name, operation, value)],
            );
            Wanted::of(&query).unwrap().unwrap().takes(&package(epoch)).unwrap()
        };
        assert!(takes("epoch", Operation::Equals, "(none)", None));
        assert!(takes("epoch", Operation::Equals, "2", Some(2)));
        assert!(!takes("epoch", Operation::Equals, "0", None));
        assert!(!takes("arch", Operation::NotEqual, "noarch", None));
        assert!(takes("release", Operation::PatternMatch, r"\.el9$", None));
        assert!(!takes("version", Operation::Equals, "0.8", None));
        let mut at_least = entity("epoch", Operation::GreaterThan, "1");
        at_least.datatype = Datatype::Int;
        let query = query("linux:rpmverifyfile", vec![entity("name", Operation::Equals, "beta"), at_least]);
        let wanted = Wanted::of(&query).unwrap().unwrap();
        assert!(wanted.takes(&package(Some(2))).unwrap());
        assert!(!wanted.takes(&package(None)).unwrap());
    }
}
