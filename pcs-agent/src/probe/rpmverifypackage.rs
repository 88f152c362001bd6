//! `linux:rpmverifypackage`: packages that RPM has installed, from its own database (`rpmdb`). Dependencies, digests
//! and signatures are not verified, and no script is ever run: what only that could say is `not collected`. A package
//! without a script to verify it passes that check, as in `oscap`; keys, which are installed like packages, are passed
//! over.

use oval::resolve::Query;
use proto::observation::{Collected, Item, ItemEntity, Status};
use proto::plan::Datatype;

use super::rpmdb::{self, Package, Wanted};
use super::{Probe, ProbeError, finish};
use crate::host::Host;

pub(crate) struct RpmVerifyPackage;

impl Probe for RpmVerifyPackage {
    const KIND: &'static str = "linux:rpmverifypackage";

    fn collect(host: &Host, query: &Query) -> Result<Collected, ProbeError> {
        if let Some(unused) = rpmdb::unused(host) {
            return Ok(unused);
        }
        let Some(wanted) = Wanted::of(query)? else { return Ok(finish(Vec::new(), Vec::new())) };
        let installed = rpmdb::installed(host)?;
        let mut items = Vec::new();
        for package in &installed.packages {
            if !package.is_key() && wanted.takes(package)? {
                items.push(item(query, package));
            }
        }
        Ok(rpmdb::flagged(items, &installed.problems))
    }
}

fn item(query: &Query, package: &Package) -> Item {
    let mut entities = vec![
        ItemEntity::text("name", &*package.name),
        ItemEntity::text("epoch", package.epoch_text()),
        ItemEntity::text("version", &*package.version),
        ItemEntity::text("release", &*package.release),
        ItemEntity::text("arch", &*package.arch),
        ItemEntity::text("extended_name", package.extended_name()),
    ];
    let mut uncovered = Vec::new();
    // The schema wants no entity where its check is switched off.
    for (name, off, what) in [
        ("dependency_check_passed", "nodeps", "dependencies"),
        ("digest_check_passed", "nodigest", "digests"),
        ("verification_script_successful", "noscripts", "scripts"),
        ("signature_check_passed", "nosignature", "signatures"),
    ] {
        if rpmdb::is_on(query, off) {
            continue;
        }
        if off == "noscripts" && !package.has_verify_script {
            entities.push(ItemEntity::boolean(name, true));
        } else {
            uncovered.push(what);
            entities.push(ItemEntity::without_value(name, Datatype::Boolean, Status::NotCollected));
        }
    }
    let mut item = Item::new(RpmVerifyPackage::KIND, entities);
    if !uncovered.is_empty() {
        item.message = Some(ProbeError::NotCovered(format!("verifying {}", uncovered.join(", "))).to_string());
    }
    item
}

#[cfg(test)]
mod tests {
    use super::super::rpmdb::testing::{entity, host_with, query};
    use super::*;
    use proto::observation::Flag;
    use proto::plan::Operation;

    fn collect(name: &str, behaviors: &[&str]) -> Collected {
        let (_root, host) = host_with("bdb/Packages", "var/lib/rpm/Packages");
        let mut query = query(RpmVerifyPackage::KIND, vec![entity("name", Operation::PatternMatch, name)]);
        query.behaviors = behaviors.iter().map(|name| ((*name).to_owned(), "true".to_owned())).collect();
        RpmVerifyPackage::collect(&host, &query).unwrap_or_else(Collected::from)
    }

    #[test]
    fn what_nothing_is_run_for_is_not_collected() {
        let collected = collect(".*", &[]);
        assert_eq!(collected.flag, Flag::Complete);
        let mut found: Vec<_> = collected
            .items
            .iter()
            .map(|item| (item.value("extended_name").unwrap(), item.value("verification_script_successful")))
            .collect();
        found.sort_unstable();
        let expect = [
            ("alpha-0:1.2-3.noarch", Some("true")),
            ("beta-2:0.9~rc1-1.el9.noarch", None),
            ("gamma-0:3-4.noarch", Some("true")),
        ];
        assert_eq!(found, expect);
        for item in &collected.items {
            assert!(item.named("dependency_check_passed").all(|entity| entity.status == Status::NotCollected));
            assert!(item.message.as_ref().unwrap().starts_with("not covered yet: verifying dependencies, digests, "));
        }
    }

    #[test]
    fn what_is_switched_off_is_left_out() {
        let mut collected = collect("^beta$", &["nodeps", "nodigest", "noscripts", "nosignature"]);
        let item = collected.items.remove(0);
        assert_eq!((item.entities.len(), item.message), (6, None));
        assert_eq!(collect("^delta$", &[]).flag, Flag::DoesNotExist);
    }
}
