//! `linux:rpminfo`: on a system without an RPM database no package is installed by RPM. Databases are not
//! read yet: where there is one, nobody has looked, and the verdict is `unknown`.

use oval::resolve::Query;
use proto::observation::Collected;

use super::{Probe, ProbeError, finish};
use crate::host::Host;

pub(crate) struct RpmInfo;

/// Where RPM keeps its database, of whatever format and distribution.
const DATABASES: &[&str] = &[
    "/var/lib/rpm/rpmdb.sqlite",
    "/var/lib/rpm/Packages",
    "/var/lib/rpm/Packages.db",
    "/usr/lib/sysimage/rpm/rpmdb.sqlite",
    "/usr/lib/sysimage/rpm/Packages",
    "/usr/lib/sysimage/rpm/Packages.db",
    "/usr/share/rpm/rpmdb.sqlite",
    "/usr/share/rpm/Packages",
    "/usr/share/rpm/Packages.db",
];

impl Probe for RpmInfo {
    const KIND: &'static str = "linux:rpminfo";

    fn collect(host: &Host, _query: &Query) -> Result<Collected, ProbeError> {
        unread(host).map_or_else(|| Ok(finish(Vec::new(), Vec::new())), Err)
    }
}

/// A database that cannot be read.
pub(super) fn unread(host: &Host) -> Option<ProbeError> {
    DATABASES.iter().find_map(|database| match host.stat(database) {
        Ok(_) => Some(ProbeError::NotCovered(format!("the RPM database {database}"))),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
        Err(_) => Some(ProbeError::Denied((*database).to_owned())),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proto::observation::Flag;

    #[test]
    fn without_a_database_nothing_is_installed_and_with_one_nobody_has_looked() {
        let root = tempfile::tempdir().unwrap();
        let query =
            Query { kind: "linux:rpminfo".into(), entities: Vec::new(), behaviors: std::collections::BTreeMap::new() };
        let flag = || RpmInfo::collect(&Host::new(root.path()), &query).unwrap_or_else(Collected::from).flag;
        assert_eq!(flag(), Flag::DoesNotExist);
        std::fs::create_dir_all(root.path().join("var/lib/rpm")).unwrap();
        std::fs::write(root.path().join("var/lib/rpm/Packages"), "").unwrap();
        assert_eq!(flag(), Flag::NotCollected);
    }
}
