//! systemd's units: asked of systemd where it runs, read from unit files where it does not.
//!
//! Where systemd runs and does not answer, that is an error and no reason to read files: what is loaded may be something
//! else. Where it does not run, what only it knows is `not collected`.

use std::path::Path;
use std::rc::Rc;

use proto::observation::{ItemEntity, Status};
use proto::plan::Datatype;

use super::ProbeError;
use super::systemd::{self, Systemd};
use crate::host::Host;

mod files;
mod name;
mod parse;
mod path;
mod state;
mod unit;

use files::UnitFiles;

/// Why a property has no value, or not all.
pub(super) const DOES_NOT_RUN: &str = "systemd does not run here: this is what unit files say, and no more";

/// What is there where systemd runs (sd_booted(3)).
const BOOTED: &str = "/run/systemd/system";

/// A unit's properties by name.
pub(super) type Properties = std::collections::BTreeMap<String, Property>;

/// What is known of a property.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Property {
    /// Its value as text, several for a list.
    pub(super) values: Vec<String>,
    /// Whether that is all; if not, the rest is `not collected`.
    pub(super) is_whole: bool,
}

impl Property {
    /// All of it.
    pub(super) fn whole(values: Vec<String>) -> Self {
        Self { values, is_whole: true }
    }

    fn one(value: &str) -> Self {
        Self::whole(vec![value.to_owned()])
    }

    fn unknown() -> Self {
        Self { values: Vec::new(), is_whole: false }
    }

    /// The entities of an item that say it.
    pub(super) fn entities(&self, name: &str) -> impl Iterator<Item = ItemEntity> {
        let rest = (!self.is_whole).then(|| ItemEntity::without_value(name, Datatype::String, Status::NotCollected));
        self.values.iter().map(|value| ItemEntity::text(name, value)).chain(rest)
    }
}

/// Where a task has its units from.
#[derive(Debug)]
pub(crate) enum Units {
    /// systemd, over D-Bus.
    Live(Systemd),
    /// Unit files.
    Files(UnitFiles),
}

/// Why neither can be asked.
pub(super) fn missing(host: &Host) -> Option<ProbeError> {
    if is_booted(host) || !has_directories(host) { systemd::missing(host) } else { None }
}

/// Whether systemd runs on this machine.
fn is_booted(host: &Host) -> bool {
    host.is_live() && Path::new(BOOTED).is_dir()
}

/// Whether there is a directory of unit files; what is below `/run` alone is none that somebody has installed.
fn has_directories(host: &Host) -> bool {
    let mut installed = path::SEARCHED.iter().filter(|(path, _)| !path.starts_with("/run/"));
    installed.any(|(path, _)| host.stat(path).is_ok_and(|metadata| metadata.is_dir()))
}

impl Units {
    /// Those of this task.
    pub(super) fn of(host: &Host) -> Result<&Self, ProbeError> {
        host.units.get_or_init(|| Self::open(host)).as_ref().map_err(Clone::clone)
    }

    fn open(host: &Host) -> Result<Self, ProbeError> {
        if is_booted(host) {
            return Systemd::connect(host).map(Self::Live);
        }
        // A container may have its host's D-Bus; a bus that knows no systemd is as good as none.
        let answer = Systemd::connect(host).and_then(|systemd| systemd.units().map(|_| ()).map(|()| systemd));
        match answer {
            Ok(systemd) => Ok(Self::Live(systemd)),
            Err(_) if has_directories(host) => UnitFiles::read(host).map(Self::Files),
            Err(error) => Err(error),
        }
    }

    /// The names of the units: those that systemd has in memory, or those that have a file or that others name. An alias is
    /// none of them.
    pub(super) fn units(&self, host: &Host) -> Result<&[String], ProbeError> {
        match self {
            Self::Live(systemd) => systemd.units(),
            Self::Files(files) => files.units(host),
        }
    }

    /// The names of the units that have a file; an alias is one of them.
    pub(super) fn unit_files(&self) -> Result<&[String], ProbeError> {
        match self {
            Self::Live(systemd) => systemd.unit_files(),
            Self::Files(files) => Ok(files.unit_files()),
        }
    }

    /// The properties of a unit's `org.freedesktop.systemd1.Unit` interface.
    pub(super) fn properties(&self, host: &Host, unit: &str) -> Result<Rc<Properties>, ProbeError> {
        match self {
            Self::Live(systemd) => systemd.properties(unit),
            Self::Files(files) => files.properties(host, unit).map(Rc::new),
        }
    }

    /// Why what is said is not all, such as a file without rights to read it.
    pub(super) fn troubles(&self, host: &Host) -> Result<Vec<ProbeError>, ProbeError> {
        match self {
            Self::Live(_) => Ok(Vec::new()),
            Self::Files(files) => files.troubles(host),
        }
    }
}

#[cfg(test)]
mod tests;
