//! `linux:dpkginfo`: packages that are installed, from dpkg's own status file. As in `oscap`, a plain name means the
//! native architecture or `all`; a package of another one is `name:architecture`.

use std::collections::BTreeMap;

use oval::resolve::Query;
use proto::observation::{Collected, Item, ItemEntity};
use proto::plan::{Datatype, Operation};

use super::{Probe, ProbeError, finish, machine, text_of};
use crate::host::Host;

pub(crate) struct DpkgInfo;

/// A package whose files are there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Package {
    pub(super) name: String,
    pub(super) arch: String,
    pub(super) version: String,
}

const STATUS: &str = "/var/lib/dpkg/status";
/// Where dpkg keeps the architectures that it was told of, its own first.
const ARCHITECTURES: &str = "/var/lib/dpkg/arch";

impl Probe for DpkgInfo {
    const KIND: &'static str = "linux:dpkginfo";

    fn collect(host: &Host, query: &Query) -> Result<Collected, ProbeError> {
        let packages = host.packages.get_or_init(|| Ok(parse(&text_of(host, STATUS)?.unwrap_or_default())));
        let packages = packages.as_ref().map_err(Clone::clone)?;
        let Some(name) = query.entity("name") else { return Ok(finish(Vec::new(), Vec::new())) };
        let native = native(host, packages)?;
        let mut found: Vec<&Package> = Vec::new();
        if name.operation == Operation::Equals {
            for package in name.values.iter().filter_map(|wanted| called(packages, wanted, &native)) {
                if !found.contains(&package) {
                    found.push(package);
                }
            }
        } else {
            for package in one_of_each_name(packages, &native) {
                if name.matches(&package.name)? {
                    found.push(package);
                }
            }
        }
        Ok(finish(found.into_iter().map(item).collect(), Vec::new()))
    }
}

/// The package that dpkg knows by this name, with or without an architecture. Of several paragraphs the last counts.
fn called<'all>(packages: &'all [Package], wanted: &str, native: &str) -> Option<&'all Package> {
    let (name, arch) = wanted.split_once(':').unwrap_or((wanted, "native"));
    let is_meant = |package: &&Package| match arch {
        "native" | "all" => package.is_at_home(native),
        "" | "any" => false,
        arch => package.arch == arch || arch == native && package.is_at_home(native),
    };
    packages.iter().rev().find(|package| package.name == name && is_meant(package))
}

/// Several architectures of a package are one package to its name: the native one, where there is one.
fn one_of_each_name<'all>(packages: &'all [Package], native: &str) -> Vec<&'all Package> {
    let mut by_name: BTreeMap<&str, &Package> = BTreeMap::new();
    for package in packages {
        let known = by_name.entry(&package.name).or_insert(package);
        if package.is_at_home(native) || !known.is_at_home(native) {
            *known = package;
        }
    }
    by_name.into_values().collect()
}

impl Package {
    /// Whether a plain name can mean it.
    fn is_at_home(&self, native: &str) -> bool {
        self.arch == native || self.arch == "all"
    }
}

/// The native architecture: that of dpkg itself, else the first that it was told of, else that of the machine.
fn native(host: &Host, packages: &[Package]) -> Result<String, ProbeError> {
    let is_dpkg = |package: &&Package| package.name == "dpkg" && !matches!(package.arch.as_str(), "" | "all" | "any");
    if let Some(dpkg) = packages.iter().rev().find(is_dpkg) {
        return Ok(dpkg.arch.clone());
    }
    let told = text_of(host, ARCHITECTURES)?.unwrap_or_default();
    if let Some(first) = told.split_whitespace().next() {
        return Ok(first.to_owned());
    }
    let machine = machine(host);
    Ok(debian_name(if machine.is_empty() { std::env::consts::ARCH } else { &machine }).to_owned())
}

/// What Debian calls a machine that the kernel calls so.
fn debian_name(machine: &str) -> &str {
    match machine {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "x86" | "i386" | "i486" | "i586" | "i686" => "i386",
        "arm" | "armv7l" | "armv8l" => "armhf",
        "ppc64le" => "ppc64el",
        "loongarch64" => "loong64",
        other => other,
    }
}

/// The paragraphs of packages that are at least unpacked; broken paragraphs are passed over.
pub(crate) fn parse(status: &str) -> Vec<Package> {
    status
        .split("\n\n")
        .filter_map(|paragraph| {
            let state = field(paragraph, "Status")?.split_whitespace().nth(2)?;
            if matches!(state, "not-installed" | "config-files") {
                return None;
            }
            Some(Package {
                name: field(paragraph, "Package")?.to_owned(),
                arch: field(paragraph, "Architecture").unwrap_or_default().to_owned(),
                version: field(paragraph, "Version")?.to_owned(),
            })
        })
        .collect()
}

/// The value of a field, if it is there and not empty; of two of that name the last counts, as for apt.
fn field<'text>(paragraph: &'text str, name: &str) -> Option<&'text str> {
    let value_of = |line: &'text str| {
        let (label, value) = line.split_once(':')?;
        label.trim_end().eq_ignore_ascii_case(name).then(|| value.trim())
    };
    paragraph.lines().rev().find_map(value_of).filter(|value| !value.is_empty())
}

fn item(package: &Package) -> Item {
    let (epoch, rest) = package.version.split_once(':').unwrap_or(("0", &package.version));
    let (version, release) = rest.split_once('-').unwrap_or((rest, ""));
    // With the hyphen of a revision that is empty.
    let evr = format!("{epoch}:{rest}");
    let entities = vec![
        ItemEntity::text("name", &package.name),
        ItemEntity::text("arch", &package.arch),
        ItemEntity::text("epoch", epoch),
        ItemEntity::text("release", release),
        ItemEntity::text("version", version),
        ItemEntity::new("evr", Datatype::DebianEvrString, evr),
    ];
    Item::new(DpkgInfo::KIND, entities)
}

#[cfg(test)]
mod tests {
    use super::super::entities::fixture::{asked, query, tree, values};
    use super::*;

    const DPKG: &str = "Package: dpkg\nStatus: install ok installed\nArchitecture: amd64\nVersion: 1.21\n";

    fn paragraph(name: &str, arch: &str, version: &str) -> String {
        format!("\nPackage: {name}\nStatus: install ok installed\nArchitecture: {arch}\nVersion: {version}\n")
    }

    /// Architecture and version of each package that is found.
    fn found(status: &str, operation: Operation, name: &str) -> Vec<String> {
        let (_root, host) = tree(&[("var/lib/dpkg/status", status)]);
        let query = query(DpkgInfo::KIND, vec![asked("name", operation, name)]);
        let items = DpkgInfo::collect(&host, &query).unwrap().items;
        let (arches, evrs) = (values(&items, "arch"), values(&items, "evr"));
        arches.into_iter().zip(evrs).map(|(arch, evr)| format!("{arch} {evr}")).collect()
    }

    #[track_caller]
    fn check(status: &str, name: &str, expect: &[&str]) {
        assert_eq!(found(status, Operation::Equals, name), expect, "{name}");
    }

    #[test]
    fn a_plain_name_means_the_native_architecture_or_all() {
        let of = paragraph;
        let status = [
            DPKG,
            &of("foreign", "i386", "2"),
            &of("both", "amd64", "3"),
            &of("both", "i386", "3i"),
            &of("every", "all", "4"),
            &of("any", "any", "5"),
        ]
        .concat();
        check(&status, "foreign", &[]);
        check(&status, "foreign:i386", &["i386 0:2"]);
        check(&status, "foreign:amd64", &[]);
        check(&status, "both", &["amd64 0:3"]);
        check(&status, "both:amd64", &["amd64 0:3"]);
        check(&status, "both:i386", &["i386 0:3i"]);
        check(&status, "both:native", &["amd64 0:3"]);
        check(&status, "every", &["all 0:4"]);
        check(&status, "every:all", &["all 0:4"]);
        check(&status, "every:amd64", &["all 0:4"]);
        check(&status, "every:i386", &[]);
        check(&status, "any", &[]);
        check(&status, "any:any", &[]);
        check(&status, "both:", &[]);
        // An operation is asked of names without architectures.
        assert_eq!(found(&status, Operation::PatternMatch, "^both$"), ["amd64 0:3"]);
        assert_eq!(found(&status, Operation::PatternMatch, "^foreign$"), ["i386 0:2"]);
    }

    #[test]
    fn without_dpkg_the_native_architecture_is_the_first_that_it_was_told_of_or_the_machine_s() {
        let status = [paragraph("one", "arm64", "1"), paragraph("one", "i386", "2")].concat();
        let native_of = |files: &[(&str, &str)]| {
            let (_root, host) = tree(files);
            native(&host, &parse(&status)).unwrap()
        };
        assert_eq!(native_of(&[("var/lib/dpkg/arch", "arm64\ni386\n")]), "arm64");
        assert_eq!(native_of(&[("proc/sys/kernel/arch", "x86_64\n")]), "amd64");
        assert_eq!(native_of(&[]), debian_name(std::env::consts::ARCH));
    }

    #[test]
    fn of_a_package_that_stands_twice_the_last_paragraph_counts() {
        let twice = |first, second| [DPKG, &paragraph("p", "amd64", first), &paragraph("p", second, "2")].concat();
        check(&twice("1", "amd64"), "p", &["amd64 0:2"]);
        check(&twice("3", "amd64"), "p", &["amd64 0:2"]);
        check(&twice("3", "all"), "p", &["all 0:2"]);
        let gone = "\nPackage: p\nStatus: deinstall ok config-files\nArchitecture: amd64\nVersion: 9\n";
        check(&(twice("1", "amd64") + gone), "p", &["amd64 0:2"]);
    }

    #[test]
    fn of_a_field_that_stands_twice_the_last_counts_and_an_empty_one_is_none() {
        let with = |more: &str| [DPKG, &paragraph("p", "amd64", "1"), more].concat();
        check(&with("Version: 9-9\n"), "p", &["amd64 0:9-9"]);
        check(&with("version : 9\nX: y\n Version: 8\n"), "p", &["amd64 0:9"]);
        check(&with("Architecture: i386\n"), "p", &[]);
        check(&with("Package: q\n"), "q", &["amd64 0:1"]);
        check(&with("Status: deinstall ok config-files\n"), "p", &[]);
        check(&[DPKG, &paragraph("p", "amd64", "")].concat(), "p", &[]);
    }

    #[test]
    fn an_empty_revision_keeps_its_hyphen_in_the_whole_version() {
        check(&[DPKG, &paragraph("p", "amd64", "1.0-")].concat(), "p", &["amd64 0:1.0-"]);
        let (_root, host) = tree(&[("var/lib/dpkg/status", &[DPKG, &paragraph("p", "amd64", "2:1.0-")].concat())]);
        let items = DpkgInfo::collect(&host, &query(DpkgInfo::KIND, vec![asked("name", Operation::Equals, "p")]))
            .unwrap()
            .items;
        assert_eq!([values(&items, "version"), values(&items, "release")], [["1.0"], [""]]);
    }

    #[test]
    fn only_packages_whose_files_are_there_count() {
        let status = "Package: a\nStatus: install ok installed\nArchitecture: amd64\nVersion: 1:2.3-4-5\n\n\
                      Package: b\nStatus: deinstall ok config-files\nVersion: 1\n\n\
                      Package: c\nStatus: install ok half-configured\nVersion: 7\n\ngarbage\n\n\
                      Package: d\nDescription: Version: 9\n";
        let packages = parse(status);
        assert_eq!(packages.iter().map(|package| package.name.as_str()).collect::<Vec<_>>(), ["a", "c"]);
        let item = item(&packages[0]);
        assert_eq!(item.value("evr"), Some("1:2.3-4-5"));
        assert_eq!((item.value("version"), item.value("release")), (Some("2.3"), Some("4-5")));
    }
}
