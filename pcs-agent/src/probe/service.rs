//! `muster:service`: systemd's services, those that run and those that only have a file. The words of the states are
//! systemd's own; a service that others name and that has no file has the `load_state` `not-found`. Where systemd does not
//! run, unit files say what they can, and the other states are `not collected`.

use std::collections::BTreeSet;

use oval::resolve::Query;
use proto::observation::{Collected, Flag, Item, Status};

use super::entities::{lacking, not_empty, text};
use super::units::{self, DOES_NOT_RUN, Properties, Units};
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
        if let Some(reason) = units::missing(host).filter(|_| !host.is_live()) {
            return Ok(Collected::nothing(Flag::NotApplicable, reason.to_string()));
        }
        let units = Units::of(host)?;
        let mut items = Vec::new();
        let mut errors = units.troubles(host)?;
        let all = units.units(host)?.iter().chain(units.unit_files()?);
        let names: BTreeSet<&String> = all.filter(|name| name.ends_with(".service")).collect();
        for name in names {
            if let Err(cut) = host.breathe() {
                errors.push(cut.into());
                break;
            }
            if query.entity("name").map_or(Ok(true), |asked| asked.matches(name))? {
                match units.properties(host, name) {
                    Ok(properties) => items.push(item(name, &properties)),
                    // The troubles tell it.
                    Err(ProbeError::Denied(_) | ProbeError::NotCovered(_)) => {}
                    Err(error) => items.push(broken(name, &error)),
                }
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
        let said = properties.get(property);
        let nothing = if said.is_some_and(|said| !said.is_whole) { Status::NotCollected } else { Status::DoesNotExist };
        let value = said.and_then(|said| said.values.first());
        // A service without a file has an empty state of it.
        entities.push(text(entity, value.ok_or(nothing).and_then(|value| not_empty(value))));
    }
    let mut item = Item::new(Service::KIND, entities);
    let is_any_missing = item.entities.iter().any(|entity| entity.status == Status::NotCollected);
    item.message = is_any_missing.then(|| DOES_NOT_RUN.to_owned());
    item
}

#[cfg(test)]
mod tests {
    use super::super::entities::fixture::{query, tree, values};
    use super::super::units::Property;
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
        .map(|(name, value)| (name.to_owned(), Property::whole(vec![value.to_owned()])))
        .collect();
        let item = item("a.service", &properties);
        let said: Vec<Option<&str>> = item.entities.iter().map(|entity| entity.value.as_deref()).collect();
        assert_eq!(said, [Some("a.service"), Some("loaded"), Some("active"), Some("running"), None]);
        assert_eq!(item.named("enabled_state").next().unwrap().status, Status::DoesNotExist);
    }

    #[test]
    fn nobody_is_asked_about_a_tree_without_units() {
        let (_root, host) = tree(&[]);
        assert_eq!(Service::collect(&host, &query(Service::KIND, Vec::new())).unwrap().flag, Flag::NotApplicable);
    }

    #[test]
    fn unit_files_say_what_does_not_run() {
        let (_root, host) = tree(&[
            ("usr/lib/systemd/system/a.service", "[Unit]\nAfter=b.service\n[Service]\nExecStart=/bin/a\n"),
            ("etc/systemd/system/c.service", ""),
        ]);
        let collected = Service::collect(&host, &query(Service::KIND, Vec::new())).unwrap();
        assert_eq!(collected.flag, Flag::Complete);
        let said = |name: &str| values(&collected.items, name);
        assert_eq!(said("name"), ["a.service", "b.service", "c.service"]);
        assert_eq!(said("load_state"), ["loaded", "not-found", "masked"]);
        assert_eq!(said("enabled_state"), ["static", "masked"]);
        for item in &collected.items {
            assert_eq!(item.named("active_state").next().unwrap().status, Status::NotCollected);
            assert_eq!(item.message.as_deref(), Some(DOES_NOT_RUN));
        }
    }
}
