//! What the files of one unit say.

use std::collections::{BTreeMap, BTreeSet};

use super::name;
use super::parse::{self, Setting};
use super::path::LoadPath;
use super::state::Install;
use crate::host::{Host, ReadError};
use crate::limits::UNIT_FILE_BYTES_MAX;
use crate::probe::ProbeError;

/// Lists of units, with the keys of the section `[Unit]` that fill them, and whether files say them in full.
pub(super) const LISTS: [(&str, &[&str], bool); 12] = [
    ("After", &["After"], false),
    ("Before", &["Before"], false),
    ("BindsTo", &["BindsTo", "BindTo"], false),
    ("Conflicts", &["Conflicts"], false),
    ("OnFailure", &["OnFailure"], true),
    ("OnSuccess", &["OnSuccess"], true),
    ("PartOf", &["PartOf"], true),
    (REQUIRES, &[REQUIRES, "RequiresOverridable"], false),
    ("Requisite", &["Requisite", "RequisiteOverridable"], true),
    ("Upholds", &["Upholds"], true),
    (WANTS, &[WANTS], false),
    ("JoinsNamespaceOf", &["JoinsNamespaceOf"], true),
];
pub(super) const REQUIRES: &str = "Requires";
pub(super) const WANTS: &str = "Wants";

/// What the files of one unit say.
#[derive(Debug, Default)]
pub(super) struct Unit {
    pub(super) drop_ins: Vec<(usize, String)>,
    pub(super) description: Option<String>,
    pub(super) documentation: Vec<String>,
    pub(super) lists: BTreeMap<&'static str, BTreeSet<String>>,
    /// Lists with a name in them that only the running system knows.
    pub(super) unsure: BTreeSet<&'static str>,
    pub(super) has_default_dependencies: bool,
    /// Whether a service says what it does; systemd refuses one that does not.
    pub(super) has_commands: bool,
    pub(super) install: Install,
}

impl Unit {
    /// Adds what a file says.
    pub(super) fn take(&mut self, host: &Host, path: &LoadPath, id: &str, file: &str) -> Result<(), ProbeError> {
        let content = match host.stat(file) {
            Ok(metadata) if metadata.len() > UNIT_FILE_BYTES_MAX => {
                return Err(ProbeError::NotCovered(format!(
                    "{file}: a unit file of more than {UNIT_FILE_BYTES_MAX} bytes"
                )));
            }
            _ => match host.read(file) {
                Ok(content) => content,
                // A link that leads nowhere, and what is no file, says nothing.
                Err(ReadError::Absent) => return Ok(()),
                Err(ReadError::Denied) => return Err(ProbeError::Denied(file.to_owned())),
                Err(ReadError::Cut(cut)) => return Err(cut.into()),
                Err(error) => return Err(ProbeError::NotCovered(format!("{file}: {error}"))),
            },
        };
        host.count_found(content.len() as u64)?;
        for Setting { section, key, value } in parse::settings(&content) {
            match section.as_str() {
                "Unit" => self.take_unit(host, path, id, &key, &value)?,
                "Install" => self.install.take(id, &key, &value),
                "Service" if ["ExecStart", "ExecStop", "SuccessAction"].contains(&key.as_str()) => {
                    self.has_commands |= !value.is_empty();
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn take_unit(&mut self, host: &Host, path: &LoadPath, id: &str, key: &str, value: &str) -> Result<(), ProbeError> {
        if let Some((list, ..)) = LISTS.iter().find(|(_, keys, _)| keys.contains(&key)) {
            // A dependency is never taken back: an empty list adds nothing.
            for word in parse::words(value) {
                match name::expand(&word, id) {
                    Some(word) => self.add(host, path, id, list, &word)?,
                    None => {
                        self.unsure.insert(list);
                    }
                }
            }
            return Ok(());
        }
        match key {
            "Description" => self.description = name::expand(value, id).filter(|text| !text.is_empty()),
            "Documentation" if value.is_empty() => self.documentation.clear(),
            "Documentation" => self.documentation.extend(parse::words(value)),
            "SuccessAction" => self.has_commands |= !value.is_empty(),
            "DefaultDependencies" => {
                self.has_default_dependencies = parse::boolean(value).unwrap_or(self.has_default_dependencies);
            }
            _ => {}
        }
        Ok(())
    }

    /// Adds a dependency, by the name that the other unit has of its own.
    pub(super) fn add(
        &mut self,
        host: &Host,
        path: &LoadPath,
        id: &str,
        list: &'static str,
        other: &str,
    ) -> Result<(), ProbeError> {
        host.breathe_now_and_then()?;
        let other = match name::instance(id) {
            _ if !name::is_template(other) => other.to_owned(),
            Some(instance) => name::of_template(other, instance),
            None => return Ok(()),
        };
        if name::split(&other).is_none() {
            return Ok(());
        }
        let other = path.find(host, &other).id;
        // Here, at the other end, and in the list of all units.
        let bytes = 3 * (other.len() + size_of::<String>());
        if other != id && self.lists.entry(list).or_default().insert(other) {
            host.count_found(bytes as u64)?;
        }
        Ok(())
    }
}

impl Install {
    fn take(&mut self, id: &str, key: &str, value: &str) {
        let list = match key {
            "Alias" => &mut self.aliases,
            "WantedBy" => &mut self.wanted_by,
            "RequiredBy" => &mut self.required_by,
            "UpheldBy" => &mut self.upheld_by,
            "Also" => &mut self.also,
            "DefaultInstance" => {
                self.default_instance = name::expand(value, id).filter(|text| !text.is_empty());
                return;
            }
            _ => return,
        };
        if value.is_empty() {
            list.clear();
        }
        list.extend(parse::words(value).iter().filter_map(|word| name::expand(word, id)));
    }
}
