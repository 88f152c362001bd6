//! `linux:systemdunitproperty`: properties of units.

use oval::resolve::Query;
use proto::observation::{Collected, Item, ItemEntity};

use super::entities::lacking;
use super::limits::CANDIDATES_MAX;
use super::units::{DOES_NOT_RUN, Units};
use super::{Probe, ProbeError, finish};
use crate::host::Host;

pub(crate) struct SystemdUnitProperty;

impl Probe for SystemdUnitProperty {
    const KIND: &'static str = "linux:systemdunitproperty";

    fn collect(host: &Host, query: &Query) -> Result<Collected, ProbeError> {
        let (Some(unit), Some(property)) = (query.entity("unit"), query.entity("property")) else {
            return Ok(finish(Vec::new(), Vec::new()));
        };
        let units = Units::of(host)?;
        let mut items = Vec::new();
        for name in units.units(host)? {
            host.breathe_now_and_then()?;
            if items.len() > CANDIDATES_MAX {
                break;
            }
            if !unit.matches(name)? {
                continue;
            }
            let properties = match units.properties(host, name) {
                // The troubles below tell it.
                Err(ProbeError::Denied(_) | ProbeError::NotCovered(_)) => continue,
                other => other?,
            };
            for (key, said) in &*properties {
                if property.matches(key)? {
                    let mut entities = vec![ItemEntity::text("unit", name), ItemEntity::text("property", key)];
                    entities.extend(said.entities("value"));
                    let mut item = Item::new(Self::KIND, entities);
                    item.message = (!said.is_whole).then(|| DOES_NOT_RUN.to_owned());
                    items.push(item);
                }
            }
        }
        Ok(lacking(finish(items, Vec::new()), units.troubles(host)?))
    }
}
