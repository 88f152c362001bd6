//! `linux:dpkginfo`: packages that are installed, from dpkg's own status file.

use oval::resolve::Query;
use proto::observation::{Collected, Item, ItemEntity};
use proto::plan::{Datatype, Operation};

use super::{Probe, ProbeError, finish, text_of};
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

impl Probe for DpkgInfo {
    const KIND: &'static str = "linux:dpkginfo";

    fn collect(host: &Host, query: &Query) -> Result<Collected, ProbeError> {
        let packages = host.packages.get_or_init(|| Ok(parse(&text_of(host, STATUS)?.unwrap_or_default())));
        let packages = packages.as_ref().map_err(Clone::clone)?;
        let Some(name) = query.entity("name") else { return Ok(finish(Vec::new(), Vec::new())) };
        let mut items = Vec::new();
        for package in packages {
            let is_wanted = if name.operation == Operation::Equals {
                name.values
                    .iter()
                    .any(|wanted| wanted == &package.name || *wanted == format!("{}:{}", package.name, package.arch))
            } else {
                name.matches(&package.name)?
            };
            let item = item(package);
            // Several architectures of one package are one package to dpkg's name.
            let is_known = items.iter().any(|known: &Item| known.value("name") == Some(&package.name));
            if is_wanted && !is_known {
                items.push(item);
            }
        }
        Ok(finish(items, Vec::new()))
    }
}

/// The paragraphs of packages that are at least unpacked; broken paragraphs are passed over.
pub(crate) fn parse(status: &str) -> Vec<Package> {
    status
        .split("\n\n")
        .filter_map(|paragraph| {
            let field = |name: &str| {
                paragraph
                    .lines()
                    .find_map(|line| line.strip_prefix(name)?.strip_prefix(':').map(|value| value.trim().to_owned()))
            };
            let state = field("Status")?;
            let state = state.split_whitespace().nth(2)?;
            if matches!(state, "not-installed" | "config-files") {
                return None;
            }
            Some(Package {
                name: field("Package")?,
                arch: field("Architecture").unwrap_or_default(),
                version: field("Version")?,
            })
        })
        .collect()
}

fn item(package: &Package) -> Item {
    let (epoch, rest) = package.version.split_once(':').unwrap_or(("0", &package.version));
    let (version, release) = rest.split_once('-').unwrap_or((rest, ""));
    let evr = if release.is_empty() { format!("{epoch}:{version}") } else { format!("{epoch}:{version}-{release}") };
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
    use super::*;

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
