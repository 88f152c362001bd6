//! `linux:rpmverifyfile`: files of packages that RPM has installed, compared with what RPM's own database (`rpmdb`)
//! says of them. A file that is gone is `not performed` in everything, and what does not apply to a kind of file
//! passes, as in `oscap`. What the collector has no rights to read is `not collected`.

mod capabilities;
mod verify;

use std::collections::HashSet;
use std::rc::Rc;

use oval::check::{self, Truth};
use oval::resolve::{Query, QueryFilter};
use proto::observation::{Collected, Flag, Item, ItemEntity, Status};
use proto::plan::{Datatype, FilterAction, Operator};

use super::limits::CANDIDATES_MAX;
use super::rpmdb::{self, Asked, Header, Package, Wanted};
use super::{Probe, ProbeError, finish};
use crate::host::{Cut, Host};
use verify::{Accounts, Outcome, Record};

pub(crate) struct RpmVerifyFile;

/// Bytes of memory for what packages say of their files.
const RECORDS_BYTES_MAX: usize = 64 * 1024 * 1024;

/// What is compared, in the order of the schema.
const COMPARED: [(&str, u32); 10] = [
    ("size_differs", verify::SIZE),
    ("mode_differs", verify::MODE),
    ("md5_differs", verify::DIGEST),
    ("filedigest_differs", verify::DIGEST),
    ("device_differs", verify::DEVICE),
    ("link_mismatch", verify::LINK),
    ("ownership_differs", verify::USER),
    ("group_differs", verify::GROUP),
    ("mtime_differs", verify::MTIME),
    ("capabilities_differ", verify::CAPABILITIES),
];

/// What a file is, in the order of the schema.
const MARKS: [(&str, u32); 5] = [
    ("configuration_file", verify::CONFIG),
    ("documentation_file", verify::DOC),
    ("ghost_file", verify::GHOST),
    ("license_file", verify::LICENSE),
    ("readme_file", verify::README),
];

/// Behaviors that leave out a comparison.
const LEFT_OUT: [(&str, u32); 10] = [
    ("nolinkto", verify::LINK),
    ("nomd5", verify::DIGEST),
    ("nofiledigest", verify::DIGEST),
    ("nosize", verify::SIZE),
    ("nouser", verify::USER),
    ("nogroup", verify::GROUP),
    ("nomtime", verify::MTIME),
    ("nomode", verify::MODE),
    ("nordev", verify::DEVICE),
    ("nocaps", verify::CAPABILITIES),
];

/// Behaviors that pass over files.
const PASSED_OVER: [(&str, u32); 2] = [("noconfigfiles", verify::CONFIG), ("noghostfiles", verify::GHOST)];

impl Probe for RpmVerifyFile {
    const KIND: &'static str = "linux:rpmverifyfile";

    fn collect(host: &Host, query: &Query) -> Result<Collected, ProbeError> {
        Self::collect_some(host, query, &[])
    }

    fn collect_some(host: &Host, query: &Query, filters: &[QueryFilter]) -> Result<Collected, ProbeError> {
        if let Some(unused) = rpmdb::unused(host) {
            return Ok(unused);
        }
        let (Some(wanted), Some(filepath)) = (Wanted::of(query)?, query.entity("filepath")) else {
            return Ok(finish(Vec::new(), Vec::new()));
        };
        let filepath = Asked::of(filepath)?;
        let passed_over = bits(query, &PASSED_OVER);
        // First all that packages say, which does not take long, then the files: the database may not change meanwhile.
        let (found, problems) = rpmdb::scan(host, |found: &mut Found, header| {
            let package = Package::of(header)?;
            if wanted.takes(&package)? { found.add(header, package, &filepath, passed_over) } else { Ok(()) }
        })?;
        let mut items = Vec::new();
        let cut = verified(host, query, filters, &found, &mut items)?;
        let mut collected = rpmdb::flagged(items, &problems);
        let unnamed = found.unnamed.map(|package| format!("a path in the package {package} is not UTF-8"));
        for reason in unnamed.into_iter().chain(cut.map(|cut| cut.to_string())) {
            collected.messages.push(reason);
            collected.flag = if collected.flag == Flag::Error { Flag::Error } else { Flag::Incomplete };
        }
        Ok(collected)
    }
}

/// The bits of the behaviors that are on.
fn bits(query: &Query, behaviors: &[(&str, u32)]) -> u32 {
    behaviors.iter().filter(|(name, _)| rpmdb::is_on(query, name)).fold(0, |bits, (_, bit)| bits | bit)
}

/// Compares the files; an item for each one that the filters may keep. Returns why it ends early.
fn verified(
    host: &Host,
    query: &Query,
    filters: &[QueryFilter],
    found: &Found,
    items: &mut Vec<Item>,
) -> Result<Option<Cut>, ProbeError> {
    if found.records.is_empty() {
        return Ok(None);
    }
    let left_out = bits(query, &LEFT_OUT);
    let accounts = Accounts::of(host)?;
    let sieve = Sieve::of(filters);
    for (at, record) in &found.records {
        let Some(package) = found.packages.get(*at) else { continue };
        let outcome = match verify::verify(host, &accounts, record, left_out) {
            Ok(outcome) => outcome,
            Err(cut) => return Ok(Some(cut)),
        };
        let item = item(package, record, outcome);
        if sieve.may_keep(&item) {
            items.push(item);
        }
        if items.len() > CANDIDATES_MAX {
            return Ok(Some(Cut::Items));
        }
    }
    Ok(None)
}

fn item(package: &Package, record: &Record, outcome: Outcome) -> Item {
    let mut entities = vec![
        ItemEntity::text("name", &*package.name),
        ItemEntity::text("epoch", package.epoch_text()),
        ItemEntity::text("version", &*package.version),
        ItemEntity::text("release", &*package.release),
        ItemEntity::text("arch", &*package.arch),
        ItemEntity::text("filepath", &*record.path),
        ItemEntity::text("extended_name", package.extended_name()),
    ];
    entities.extend(COMPARED.iter().map(|(name, attribute)| {
        if outcome.not_performed & attribute != 0 {
            ItemEntity::text(name, "not performed")
        } else if outcome.not_collected & attribute != 0 {
            ItemEntity::without_value(name, Datatype::String, Status::NotCollected)
        } else {
            ItemEntity::text(name, if outcome.failed & attribute != 0 { "fail" } else { "pass" })
        }
    }));
    entities.extend(MARKS.iter().map(|(name, mark)| ItemEntity::boolean(name, record.flags & mark != 0)));
    Item { message: outcome.message, ..Item::new(RpmVerifyFile::KIND, entities) }
}

/// What one look at the database finds.
#[derive(Default)]
struct Found {
    packages: Vec<Package>,
    /// Files, each with the position of its package.
    records: Vec<(usize, Record)>,
    /// Names of owners, each once.
    owners: HashSet<Rc<str>>,
    bytes: usize,
    /// A package with a path that is not UTF-8.
    unnamed: Option<String>,
}

impl Found {
    fn add(
        &mut self,
        header: &Header<'_>,
        package: Package,
        filepath: &Asked<'_>,
        passed_over: u32,
    ) -> Result<(), ProbeError> {
        let algorithm = header.digest_algorithm()?;
        let at = self.packages.len();
        for file in header.files()? {
            let file = file?;
            if file.flags & passed_over != 0 {
                continue;
            }
            let Some(path) = file.path() else {
                self.unnamed = Some(package.extended_name());
                continue;
            };
            if !filepath.takes(&path)? {
                continue;
            }
            let record = Record {
                path: path.into(),
                state: file.state,
                flags: file.flags,
                verify_flags: file.verify_flags,
                mode: file.mode,
                rdev: file.rdev,
                size: file.size,
                mtime: file.mtime,
                algorithm,
                digest: file.digest.into(),
                link: file.link.into(),
                user: self.owner(file.user),
                group: self.owner(file.group),
                capabilities: file.capabilities.into(),
            };
            self.count(
                size_of::<Record>()
                    + record.path.len()
                    + record.digest.len()
                    + record.link.len()
                    + record.capabilities.len(),
            )?;
            self.records.push((at, record));
        }
        self.count(package.bytes())?;
        self.packages.push(package);
        Ok(())
    }

    fn owner(&mut self, name: &[u8]) -> Rc<str> {
        let name = String::from_utf8_lossy(name);
        if let Some(known) = self.owners.get(&*name) {
            return Rc::clone(known);
        }
        let name: Rc<str> = name.into();
        self.bytes += name.len();
        self.owners.insert(Rc::clone(&name));
        name
    }

    fn count(&mut self, bytes: usize) -> Result<(), Cut> {
        self.bytes += bytes;
        if self.bytes > RECORDS_BYTES_MAX { Err(Cut::Memory(RECORDS_BYTES_MAX as u64)) } else { Ok(()) }
    }
}

/// The filters of the object: of all the files of a system only few items are ever kept.
struct Sieve<'query>(Vec<(FilterAction, Operator, Vec<Option<Asked<'query>>>)>);

impl<'query> Sieve<'query> {
    fn of(filters: &'query [QueryFilter]) -> Self {
        let asked = |filter: &'query QueryFilter| {
            let entities = filter.entities.iter().map(|entity| Asked::of(entity.as_ref()?).ok());
            (filter.action, filter.operator, entities.collect())
        };
        Self(filters.iter().map(asked).collect())
    }

    /// Whether the filters may keep this item: what is not decided here is for them to say.
    fn may_keep(&self, item: &Item) -> bool {
        for (action, operator, entities) in &self.0 {
            let truths = entities.iter().map(|asked| asked.as_ref().map_or(Truth::Unknown, |asked| truth(asked, item)));
            let is_kept = match check::operator(*operator, truths) {
                Truth::True => *action == FilterAction::Include,
                Truth::False => *action == FilterAction::Exclude,
                _ => return true,
            };
            if !is_kept {
                return false;
            }
        }
        true
    }
}

fn truth(asked: &Asked<'_>, item: &Item) -> Truth {
    match item.named(asked.name()).next() {
        Some(ItemEntity { status: Status::Exists, value: Some(value), .. }) => asked.truth(value),
        _ => Truth::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::super::rpmdb::testing::{FORMATS, entity, host_with, query};
    use super::*;
    use proto::plan::Operation;
    use std::os::unix::fs::{PermissionsExt as _, symlink};
    use std::path::Path;
    use std::time::{Duration, UNIX_EPOCH};

    /// When the fixtures' files were made.
    const MADE: u64 = 1_795_693_899;
    const BETA: [(&str, &str, u32); 1] = [("opt/beta/file-with-a-long-name-7", "same\n", 0o644)];
    const ALPHA: [(&str, &str, u32); 7] = [
        ("etc/alpha.conf", "one\n", 0o644),
        ("etc/alpha.d/empty", "", 0o644),
        ("etc/alpha.d/free", "mt\n", 0o644),
        ("usr/bin/alpha", "run\n", 0o4755),
        ("usr/share/doc/alpha/README", "doc\n", 0o644),
        ("usr/share/licenses/alpha/LICENSE", "lic\n", 0o644),
        ("usr/bin/alpha-cap", "cap\n", 0o644),
    ];

    fn mode(path: &Path, mode: u32) {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    }

    /// A root with the packages' files as they should be, but for their owners, times and capabilities.
    fn root(fixture: &str, place: &str) -> (tempfile::TempDir, Host) {
        let (root, host) = host_with(fixture, place);
        let at = |path: &str| root.path().join(path);
        for (path, content, bits) in ALPHA.iter().chain(&BETA) {
            std::fs::create_dir_all(at(path).parent().unwrap()).unwrap();
            std::fs::write(at(path), content).unwrap();
            mode(&at(path), *bits);
        }
        mode(&at("etc/alpha.d"), 0o750);
        symlink("alpha", at("usr/bin/alpha-link")).unwrap();
        (root, host)
    }

    const PLACE: (&str, &str) = ("sqlite/rpmdb.sqlite", "var/lib/rpm/rpmdb.sqlite");
    /// What depends on who runs the tests, and where.
    const BASICS: [&str; 4] = ["nouser", "nogroup", "nomtime", "nocaps"];

    fn collect(host: &Host, filepath: &str, behaviors: &[&str], filters: &[QueryFilter]) -> Collected {
        let entities = vec![
            entity("name", Operation::PatternMatch, ".*"),
            entity("epoch", Operation::PatternMatch, ".*"),
            entity("filepath", Operation::PatternMatch, filepath),
        ];
        let mut query = query(RpmVerifyFile::KIND, entities);
        query.behaviors = behaviors.iter().map(|name| ((*name).to_owned(), "true".to_owned())).collect();
        RpmVerifyFile::collect_some(host, &query, filters).unwrap_or_else(Collected::from)
    }

    /// What does not pass and is not left out, in words.
    fn differences(item: &Item, behaviors: &[&str]) -> String {
        let left_out: Vec<&str> = COMPARED
            .iter()
            .filter(|(_, bit)| LEFT_OUT.iter().any(|(name, left)| left == bit && behaviors.contains(name)))
            .map(|(name, _)| *name)
            .collect();
        let compared = COMPARED.iter().filter(|(name, _)| !left_out.contains(name));
        let words = compared.filter_map(|(name, _)| match item.value(name) {
            Some("pass") => None,
            value => Some(format!("{name}={}", value.unwrap_or("?"))),
        });
        words.collect::<Vec<_>>().join(" ")
    }

    fn check(host: &Host, filepath: &str, expect: &str) {
        let collected = collect(host, filepath, &BASICS, &[]);
        assert_eq!(collected.items.len(), 1, "{filepath}: {collected:?}");
        assert_eq!(differences(&collected.items[0], &BASICS), expect, "{filepath}");
    }

    const GONE: &str = "size_differs=not performed mode_differs=not performed md5_differs=not performed \
                        filedigest_differs=not performed device_differs=not performed link_mismatch=not performed";

    #[test]
    fn files_that_are_as_the_package_says_pass_whatever_the_format_of_the_database() {
        for (fixture, place) in FORMATS {
            let (_root, host) = root(fixture, place);
            let collected = collect(&host, "alpha|-name-7$", &BASICS, &[]);
            assert_eq!((collected.flag, collected.items.len()), (Flag::Complete, 11), "{fixture}");
            for item in &collected.items {
                let expect = if item.value("filepath") == Some("/var/lib/alpha/state") { GONE } else { "" };
                assert_eq!(differences(item, &BASICS), expect, "{fixture}: {item:?}");
            }
        }
    }

    #[test]
    fn what_is_changed_fails_as_in_rpm_and_nothing_else() {
        let (root, host) = root(PLACE.0, PLACE.1);
        let at = |path: &str| root.path().join(path);
        let digest = "md5_differs=fail filedigest_differs=fail";
        std::fs::write(at("etc/alpha.conf"), "two\n").unwrap();
        check(&host, "^/etc/alpha.conf$", digest);
        std::fs::write(at("etc/alpha.conf"), "one and two\n").unwrap();
        check(&host, "^/etc/alpha.conf$", &format!("size_differs=fail {digest}"));
        std::fs::write(at("opt/beta/file-with-a-long-name-7"), "Same\n").unwrap();
        check(&host, "-name-7$", digest);
        mode(&at("usr/bin/alpha"), 0o755);
        check(&host, "/usr/bin/alpha$", "mode_differs=fail");
        std::fs::remove_file(at("usr/bin/alpha-link")).unwrap();
        symlink("elsewhere", at("usr/bin/alpha-link")).unwrap();
        check(&host, "alpha-link$", "link_mismatch=fail");
        // The package wants nobody to compare these.
        std::fs::write(at("etc/alpha.d/free"), "whatever").unwrap();
        check(&host, "free$", "");
        // Another kind of file: only what applies to both is compared.
        std::fs::remove_file(at("usr/share/doc/alpha/README")).unwrap();
        std::fs::create_dir(at("usr/share/doc/alpha/README")).unwrap();
        check(&host, "README$", "mode_differs=fail");
        std::fs::remove_file(at("etc/alpha.d/empty")).unwrap();
        symlink("/etc/alpha.conf", at("etc/alpha.d/empty")).unwrap();
        check(&host, "empty$", "link_mismatch=fail");
        std::fs::remove_file(at("usr/share/licenses/alpha/LICENSE")).unwrap();
        check(&host, "LICENSE$", GONE);
    }

    #[test]
    fn of_a_ghost_only_its_permissions_count() {
        let (root, host) = root(PLACE.0, PLACE.1);
        let state = root.path().join("var/lib/alpha/state");
        std::fs::create_dir_all(state.parent().unwrap()).unwrap();
        std::fs::write(&state, "something").unwrap();
        mode(&state, 0o600);
        check(&host, "state$", "");
        mode(&state, 0o644);
        check(&host, "state$", "mode_differs=fail");
    }

    #[test]
    fn owners_and_times_are_compared_by_name_and_second() {
        use std::os::unix::fs::MetadataExt as _;
        let (root, host) = root(PLACE.0, PLACE.1);
        let conf = root.path().join("etc/alpha.conf");
        let (uid, gid) = (conf.metadata().unwrap().uid(), conf.metadata().unwrap().gid());
        let only = |expect: &str| {
            let item = collect(&host, "^/etc/alpha.conf$", &["nocaps"], &[]).items.remove(0);
            assert_eq!(differences(&item, &["nocaps"]), expect, "{item:?}");
            item
        };
        let write = |name: &str, text: String| std::fs::write(root.path().join(name), text).unwrap();
        let time = |seconds: u64| {
            let file = std::fs::File::options().write(true).open(&conf).unwrap();
            file.set_modified(UNIX_EPOCH + Duration::from_secs(seconds)).unwrap();
        };
        time(MADE);
        let item = only("ownership_differs=? group_differs=?");
        assert!(item.message.as_ref().is_some_and(|message| message.ends_with("or root")), "{item:?}");
        write("etc/passwd", format!("root:x:{uid}:0::/:/bin/sh\n"));
        write("etc/group", format!("root:x:{gid}:\n"));
        only("");
        // Another name for the same number is the same owner.
        write("etc/passwd", format!("other:x:{uid}:0::/:/bin/sh\nroot:x:{uid}:0::/:/bin/sh\n"));
        only("");
        write("etc/passwd", format!("other:x:{uid}:0::/:/bin/sh\nroot:x:77:0::/:/bin/sh\n"));
        only("ownership_differs=fail");
        write("etc/group", "root:x:77:\n".to_owned());
        only("ownership_differs=fail group_differs=fail");
        time(MADE + 1);
        only("ownership_differs=fail group_differs=fail mtime_differs=fail");
    }

    #[test]
    fn behaviors_leave_out_comparisons_and_files() {
        let (root, host) = root(PLACE.0, PLACE.1);
        std::fs::write(root.path().join("etc/alpha.conf"), "changed").unwrap();
        let item = collect(&host, "^/etc/alpha.conf$", &["nomd5", "nosize"], &[]).items.remove(0);
        for name in ["md5_differs", "filedigest_differs", "size_differs"] {
            assert_eq!(item.value(name), Some("not performed"));
        }
        assert_eq!(item.value("mode_differs"), Some("pass"));
        assert_eq!(item.value("configuration_file"), Some("true"));
        let names = |behaviors: &[&str]| collect(&host, "alpha.conf$|state$", behaviors, &[]).items.len();
        assert_eq!((names(&[]), names(&["noconfigfiles"]), names(&["noconfigfiles", "noghostfiles"])), (2, 1, 0));
    }

    #[test]
    fn what_filters_are_certain_to_drop_is_no_item() {
        let (root, host) = root(PLACE.0, PLACE.1);
        mode(&root.path().join("usr/bin/alpha"), 0o755);
        let filter = |action, name: &str, value: &str| QueryFilter {
            action,
            operator: Operator::And,
            entities: vec![Some(entity(name, Operation::Equals, value))],
        };
        let kept = |filters: &[QueryFilter]| -> Vec<String> {
            let items = collect(&host, "bin/alpha", &[], filters).items;
            items.iter().filter_map(|item| item.value("filepath").map(str::to_owned)).collect()
        };
        let is_changed = |action| filter(action, "mode_differs", "fail");
        assert_eq!(kept(&[is_changed(FilterAction::Include)]), ["/usr/bin/alpha"]);
        assert_eq!(kept(&[is_changed(FilterAction::Exclude)]), ["/usr/bin/alpha-cap", "/usr/bin/alpha-link"]);
        let undecided = QueryFilter { entities: vec![None], ..is_changed(FilterAction::Include) };
        assert_eq!(kept(&[undecided]).len(), 3);
    }

    #[test]
    fn a_directory_may_be_a_link_to_one() {
        let (root, host) = root(PLACE.0, PLACE.1);
        std::fs::rename(root.path().join("etc/alpha.d"), root.path().join("etc/real.d")).unwrap();
        symlink("real.d", root.path().join("etc/alpha.d")).unwrap();
        let uid = std::os::unix::fs::MetadataExt::uid(&root.path().join("etc/alpha.d").symlink_metadata().unwrap());
        std::fs::write(root.path().join("etc/passwd"), format!("root:x:{uid}:0::/:/bin/sh\n")).unwrap();
        check(&host, "alpha.d$", "");
        check(&host, "alpha.d/empty$", "");
    }

    #[test]
    fn without_a_database_there_is_nothing_to_verify() {
        let root = tempfile::tempdir().unwrap();
        assert_eq!(collect(&Host::new(root.path()), ".*", &[], &[]).flag, Flag::NotApplicable);
        std::fs::create_dir_all(root.path().join("usr/lib/rpm")).unwrap();
        std::fs::write(root.path().join("usr/lib/rpm/rpmrc"), "").unwrap();
        assert_eq!(collect(&Host::new(root.path()), ".*", &[], &[]).flag, Flag::DoesNotExist);
    }
}
