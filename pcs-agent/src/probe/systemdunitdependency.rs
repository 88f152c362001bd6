//! `linux:systemdunitdependency`: what a unit pulls in, through the targets that it pulls in.

use std::collections::BTreeSet;

use oval::resolve::Query;
use proto::observation::{Collected, Item, ItemEntity};

use super::entities::lacking;
use super::units::{DOES_NOT_RUN, Property, Units};
use super::{Probe, ProbeError, finish};
use crate::host::Host;

pub(crate) struct SystemdUnitDependency;

impl Probe for SystemdUnitDependency {
    const KIND: &'static str = "linux:systemdunitdependency";

    fn collect(host: &Host, query: &Query) -> Result<Collected, ProbeError> {
        let Some(unit) = query.entity("unit") else { return Ok(finish(Vec::new(), Vec::new())) };
        let units = Units::of(host)?;
        let mut items = Vec::new();
        for name in units.units(host)? {
            host.breathe_now_and_then()?;
            if unit.matches(name)? {
                let mut entities = vec![ItemEntity::text("unit", name)];
                let dependencies = dependencies(host, units, name)?;
                entities.extend(dependencies.entities("dependency"));
                let mut item = Item::new(Self::KIND, entities);
                item.message = (!dependencies.is_whole).then(|| DOES_NOT_RUN.to_owned());
                items.push(item);
            }
        }
        Ok(lacking(finish(items, Vec::new()), units.troubles(host)?))
    }
}

/// Everything required or wanted; only targets are followed, each once.
fn dependencies(host: &Host, units: &Units, unit: &str) -> Result<Property, ProbeError> {
    let mut all = BTreeSet::new();
    let mut is_whole = true;
    let mut open = vec![unit.to_owned()];
    while let Some(unit) = open.pop() {
        if !unit.ends_with(".target") {
            continue;
        }
        let properties = match units.properties(host, &unit) {
            Err(ProbeError::Denied(_) | ProbeError::NotCovered(_)) => {
                is_whole = false;
                continue;
            }
            other => other?,
        };
        for said in ["Requires", "Wants"].iter().filter_map(|name| properties.get(*name)) {
            is_whole &= said.is_whole;
            for name in &said.values {
                if all.insert(name.clone()) {
                    open.push(name.clone());
                }
            }
        }
    }
    Ok(Property { values: all.into_iter().collect(), is_whole })
}
