//! `linux:rpminfo`: packages that RPM has installed, from its own database (`rpmdb`). Without a database none is
//! installed, and without RPM the question is not applicable. As in `oscap`, a package that is not signed has the key `0`, and where RPM has no value it is `(none)`.

use oval::resolve::Query;
use proto::observation::{Collected, Flag, Item, ItemEntity, Status};
use proto::plan::Datatype;

use super::limits::CANDIDATES_MAX;
use super::rpmdb::{self, Header, Package, Wanted};
use super::{Probe, ProbeError, finish};
use crate::host::{Cut, Host};

pub(crate) struct RpmInfo;

/// Bytes of the paths that are reported, all together.
const PATHS_BYTES_MAX: usize = 64 * 1024 * 1024;

impl Probe for RpmInfo {
    const KIND: &'static str = "linux:rpminfo";

    fn collect(host: &Host, query: &Query) -> Result<Collected, ProbeError> {
        if let Some(unused) = rpmdb::unused(host) {
            return Ok(unused);
        }
        let Some(wanted) = Wanted::of(query)? else { return Ok(finish(Vec::new(), Vec::new())) };
        if rpmdb::is_on(query, "filepaths") {
            return with_files(host, &wanted);
        }
        let installed = rpmdb::installed(host)?;
        let mut items = Vec::new();
        for package in &installed.packages {
            if wanted.takes(package)? {
                items.push(item(package));
            }
        }
        Ok(rpmdb::flagged(items, &installed.problems))
    }
}

/// A database that cannot be read.
pub(super) fn unread(host: &Host) -> Option<ProbeError> {
    rpmdb::unread(host)
}

fn item(package: &Package) -> Item {
    let key_id = package.key_id.map_or_else(|| "0".to_owned(), |key_id| format!("{key_id:016x}"));
    let entities = vec![
        ItemEntity::text("name", &*package.name),
        ItemEntity::text("arch", &*package.arch),
        ItemEntity::text("epoch", package.epoch_text()),
        ItemEntity::text("release", &*package.release),
        ItemEntity::text("version", &*package.version),
        ItemEntity::new("evr", Datatype::EvrString, package.evr()),
        ItemEntity::text("signature_keyid", key_id),
        ItemEntity::text("extended_name", package.extended_name()),
    ];
    Item::new(RpmInfo::KIND, entities)
}

/// What one look at the database finds.
#[derive(Default)]
struct Found {
    items: Vec<Item>,
    bytes: usize,
    /// A package with a path that is not UTF-8.
    unnamed: Option<String>,
}

fn with_files(host: &Host, wanted: &Wanted<'_>) -> Result<Collected, ProbeError> {
    let (found, problems) = rpmdb::scan(host, |found: &mut Found, header| {
        let package = Package::of(header)?;
        if !wanted.takes(&package)? {
            return Ok(());
        }
        if found.items.len() > CANDIDATES_MAX {
            return Err(Cut::Items.into());
        }
        let mut item = item(&package);
        add_files(header, &mut item, found)?;
        found.items.push(item);
        Ok(())
    })?;
    let mut collected = rpmdb::flagged(found.items, &problems);
    if let Some(package) = found.unnamed {
        collected.messages.push(format!("a path in the package {package} is not UTF-8 and cannot be reported"));
        collected.flag = if collected.flag == Flag::Error { Flag::Error } else { Flag::Incomplete };
    }
    Ok(collected)
}

fn add_files(header: &Header<'_>, item: &mut Item, found: &mut Found) -> Result<(), ProbeError> {
    let mut is_any = false;
    for file in header.files()? {
        let file = file?;
        is_any = true;
        let Some(path) = file.path() else {
            found.unnamed = item.value("extended_name").map(str::to_owned);
            continue;
        };
        found.bytes += path.len() + size_of::<ItemEntity>();
        if found.bytes > PATHS_BYTES_MAX {
            return Err(Cut::Memory(PATHS_BYTES_MAX as u64).into());
        }
        item.entities.push(ItemEntity::text("filepath", path));
    }
    if !is_any {
        item.entities.push(ItemEntity::without_value("filepath", Datatype::String, Status::DoesNotExist));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::rpmdb::testing::{FORMATS, entity, host_with, query};
    use super::*;
    use proto::plan::Operation;

    fn collect(host: &Host, operation: Operation, name: &str, filepaths: &str) -> Collected {
        let mut query = query(RpmInfo::KIND, vec![entity("name", operation, name)]);
        query.behaviors.insert("filepaths".into(), filepaths.into());
        RpmInfo::collect(host, &query).unwrap_or_else(Collected::from)
    }

    #[test]
    fn the_packages_of_every_format_are_those_that_rpm_says() {
        for (fixture, place) in FORMATS {
            let (_root, host) = host_with(fixture, place);
            let collected = collect(&host, Operation::PatternMatch, ".*", "false");
            assert_eq!((collected.flag, collected.messages.len()), (Flag::Complete, 0), "{fixture}: {collected:?}");
            let mut lines: Vec<String> = collected
                .items
                .iter()
                .map(|item| item.entities.iter().filter_map(|one| one.value.as_deref()).collect::<Vec<_>>().join(" "))
                .collect();
            lines.sort();
            let expect = [
                "alpha noarch (none) 3 1.2 0:1.2-3 93faf68148aeca89 alpha-0:1.2-3.noarch",
                "beta noarch 2 1.el9 0.9~rc1 2:0.9~rc1-1.el9 2d30c5eb5b0bc975 beta-2:0.9~rc1-1.el9.noarch",
                "gamma noarch (none) 4 3 0:3-4 0 gamma-0:3-4.noarch",
                "gpg-pubkey (none) (none) 6b081d4b 48aeca89 0:48aeca89-6b081d4b 0 \
                 gpg-pubkey-0:48aeca89-6b081d4b.(none)",
            ];
            assert_eq!(lines, expect, "{fixture}");
        }
    }

    #[test]
    fn the_name_selects_and_the_behavior_adds_the_files() {
        let (_root, host) = host_with("ndb/Packages.db", "usr/lib/sysimage/rpm/Packages.db");
        let names = |operation, name| {
            let collected = collect(&host, operation, name, "false");
            collected.items.iter().filter_map(|item| item.value("name").map(str::to_owned)).collect::<Vec<_>>()
        };
        assert_eq!(names(Operation::Equals, "alpha"), ["alpha"]);
        assert_eq!(names(Operation::Equals, "alph"), [""; 0]);
        assert_eq!(names(Operation::NotEqual, "alpha").len(), 3);
        assert_eq!(names(Operation::PatternMatch, "^(al|be)"), ["alpha", "beta"]);

        let with_files = |name| collect(&host, Operation::Equals, name, "true").items.remove(0);
        let paths: Vec<String> =
            with_files("alpha").named("filepath").filter_map(|entity| entity.value.clone()).collect();
        let expect = [
            "/etc/alpha.conf",
            "/etc/alpha.d",
            "/etc/alpha.d/empty",
            "/etc/alpha.d/free",
            "/usr/bin/alpha",
            "/usr/bin/alpha-cap",
            "/usr/bin/alpha-link",
            "/usr/share/doc/alpha/README",
            "/usr/share/licenses/alpha/LICENSE",
            "/var/lib/alpha/state",
        ];
        assert_eq!(paths, expect);
        assert_eq!(with_files("beta").named("filepath").count(), 151);
        let without: Vec<Status> = with_files("gamma").named("filepath").map(|entity| entity.status).collect();
        assert_eq!(without, [Status::DoesNotExist]);
    }

    #[test]
    fn without_rpm_nothing_is_asked_without_a_database_nothing_is_installed_and_one_that_is_none_is_not_guessed_at() {
        let root = tempfile::tempdir().unwrap();
        let flag = || collect(&Host::new(root.path()), Operation::PatternMatch, ".*", "false").flag;
        assert_eq!(flag(), Flag::NotApplicable);
        std::fs::create_dir_all(root.path().join("usr/lib/rpm")).unwrap();
        std::fs::write(root.path().join("usr/lib/rpm/rpmrc"), "").unwrap();
        assert_eq!(flag(), Flag::DoesNotExist);
        std::fs::create_dir_all(root.path().join("var/lib/rpm")).unwrap();
        std::fs::write(root.path().join("var/lib/rpm/Packages"), "").unwrap();
        assert_eq!(flag(), Flag::NotCollected);
        assert!(unread(&Host::new(root.path())).is_some());
    }

    #[test]
    fn a_pattern_that_is_none_is_an_error() {
        let (_root, host) = host_with("ndb/Packages.db", "usr/lib/sysimage/rpm/Packages.db");
        assert_eq!(collect(&host, Operation::PatternMatch, "(", "false").flag, Flag::Error);
    }
}
