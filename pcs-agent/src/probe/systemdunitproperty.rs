//! `linux:systemdunitproperty`: properties of units.

use oval::resolve::Query;
use proto::observation::{Collected, Item, ItemEntity};

use super::systemd::Systemd;
use super::{Probe, ProbeError, finish};
use crate::host::Host;

pub(crate) struct SystemdUnitProperty;

impl Probe for SystemdUnitProperty {
    const KIND: &'static str = "linux:systemdunitproperty";

    fn collect(host: &Host, query: &Query) -> Result<Collected, ProbeError> {
        let (Some(unit), Some(property)) = (query.entity("unit"), query.entity("property")) else {
            return Ok(finish(Vec::new(), Vec::new()));
        };
        let systemd = Systemd::of(host)?;
        let mut items = Vec::new();
        for name in systemd.units()? {
            if !unit.matches(name)? {
                continue;
            }
            for (key, values) in &*systemd.properties(name)? {
                if property.matches(key)? {
                    let mut entities = vec![ItemEntity::text("unit", name), ItemEntity::text("property", key)];
                    entities.extend(values.iter().map(|value| ItemEntity::text("value", value)));
                    items.push(Item::new(Self::KIND, entities));
                }
            }
        }
        Ok(finish(items, Vec::new()))
    }
}
