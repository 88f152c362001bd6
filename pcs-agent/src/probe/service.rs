//! `muster:service`: systemd's services over D-Bus, those that run and those that only have a file. The words of the
//! states are systemd's own; a service that others name and that has no file has the `load_state` `not-found`.

use std::collections::BTreeSet;

use oval::resolve::Query;
use proto::observation::{Collected, Flag, Item, Status};

use super::entities::{lacking, not_empty, text};
use super::systemd::{Properties, Systemd};
use super::{Probe, ProbeError, finish};
use crate::host::Host;

pub(crate) struct Service;

/// Entities, and the properties of a unit that they are.
const STATES: [(&str, &str); 4] = [
    ("load_state", "LoadState"),
    ("active_state", "ActiveState"),
    ("sub_state", "SubState"),
    ("enabled_state", "UnitFileState"),
];

impl Probe for Service {
    const KIND: &'static str = "muster:service";

    fn collect(host: &Host, query: &Query) -> Result<Collected, ProbeError> {
        if !host.is_live() {
            return Ok(Collected::nothing(Flag::NotApplicable, "needs a live system: systemd is asked over D-Bus"));
        }
        let systemd = Systemd::of(host)?;
        let mut items = Vec::new();
        let mut errors = Vec::new();
        let all = systemd.units()?.iter().chain(systemd.unit_files()?);
        let names: BTreeSet<&String> = all.filter(|name| name.ends_with(".service")).collect();
        for name in names {
            if let Err(cut) = host.breathe() {
                errors.push(cut.into());
                break;
            }
            if query.entity("name").map_or(Ok(true), |asked| asked.matches(name))? {
                items.push(systemd.properties(name).map_or_else(|error| broken(name, &error), |all| item(name, &all)));
            }
        }
        Ok(lacking(finish(items, Vec::new()), errors))
    }
}

fn broken(name: &str, error: &ProbeError) -> Item {
    let mut item = Item::new(Service::KIND, vec![text("name", Ok(name))]);
    item.status = Status::Error;
    item.message = Some(format!("{name}: {error}"));
    item
}

fn item(name: &str, properties: &Properties) -> Item {
    let mut entities = vec![text("name", Ok(name))];
    for (entity, property) in STATES {
        let value = properties.get(property).and_then(|values| values.first());
        // A service without a file has an empty state of it.
        entities.push(text(entity, value.ok_or(Status::DoesNotExist).and_then(|value| not_empty(value))));
    }
    Item::new(Service::KIND, entities)
}

#[cfg(test)]
mod tests {
    use super::super::entities::fixture::{query, tree};
    use super::*;

    #[test]
    fn a_service_is_told_by_its_states() {
        let properties: Properties = [
            ("LoadState", "loaded"),
            ("ActiveState", "active"),
            ("SubState", "running"),
            ("UnitFileState", ""),
            ("Id", "a"),
        ]
        .into_iter()
        .map(|(name, value)| (name.to_owned(), vec![value.to_owned()]))
        .collect();
        let item = item("a.service", &properties);
        let said: Vec<Option<&str>> = item.entities.iter().map(|entity| entity.value.as_deref()).collect();
        assert_eq!(said, [Some("a.service"), Some("loaded"), Some("active"), Some("running"), None]);
        assert_eq!(item.named("enabled_state").next().unwrap().status, Status::DoesNotExist);
    }

    #[test]
    fn nobody_is_asked_about_a_tree_of_files() {
        let (_root, host) = tree(&[]);
        assert_eq!(Service::collect(&host, &query(Service::KIND, Vec::new())).unwrap().flag, Flag::NotApplicable);
    }
}
