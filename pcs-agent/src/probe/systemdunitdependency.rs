//! `linux:systemdunitdependency`: what a unit pulls in, through the targets that it pulls in.

use std::collections::BTreeSet;

use oval::resolve::Query;
use proto::observation::{Collected, Item, ItemEntity};

use super::systemd::Systemd;
use super::{Probe, ProbeError, finish};
use crate::host::Host;

pub(crate) struct SystemdUnitDependency;

impl Probe for SystemdUnitDependency {
    const KIND: &'static str = "linux:systemdunitdependency";

    fn collect(host: &Host, query: &Query) -> Result<Collected, ProbeError> {
        let Some(unit) = query.entity("unit") else { return Ok(finish(Vec::new(), Vec::new())) };
        let systemd = Systemd::of(host)?;
        let mut items = Vec::new();
        for name in systemd.units()? {
            if unit.matches(name)? {
                let mut entities = vec![ItemEntity::text("unit", name)];
                let dependencies = dependencies(systemd, name)?;
                entities.extend(dependencies.iter().map(|name| ItemEntity::text("dependency", name)));
                items.push(Item::new(Self::KIND, entities));
            }
        }
        Ok(finish(items, Vec::new()))
    }
}

/// Everything required or wanted; only targets are followed, each once.
fn dependencies(systemd: &Systemd, unit: &str) -> Result<BTreeSet<String>, ProbeError> {
    let mut all = BTreeSet::new();
    let mut open = vec![unit.to_owned()];
    while let Some(unit) = open.pop() {
        if !unit.ends_with(".target") {
            continue;
        }
        let properties = systemd.properties(&unit)?;
        for name in ["Requires", "Wants"].iter().filter_map(|name| properties.get(*name)).flatten() {
            if all.insert(name.clone()) {
                open.push(name.clone());
            }
        }
    }
    Ok(all)
}
