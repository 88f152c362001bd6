//! systemd's units as their files tell them, where systemd does not run.
//!
//! Only what files decide is told. What systemd has at run time (states, times, jobs), and what it adds to a unit by itself
//! (mounts, slices, sockets, the order of all this), is a property that is not whole: never an empty one.

use std::cell::{OnceCell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use super::path::{Found, LoadPath, Where, is_mask};
use super::state;
use super::unit::{LISTS, REQUIRES, Unit, WANTS};
use super::{Properties, Property, name};
use crate::host::Host;
use crate::limits::UNITS_MAX;
use crate::probe::ProbeError;

/// Directories of a unit whose links are dependencies.
const FOLDERS: [(&str, &str); 3] = [(".requires", REQUIRES), (".upholds", "Upholds"), (".wants", WANTS)];

/// The other ends of dependencies. Nobody knows all of them.
const REVERSED: [(&str, &str); 6] = [
    ("BindsTo", "BoundBy"),
    ("PartOf", "ConsistsOf"),
    (REQUIRES, "RequiredBy"),
    ("Requisite", "RequisiteOf"),
    ("Upholds", "UpheldBy"),
    (WANTS, "WantedBy"),
];

/// What only a running systemd knows of a unit, or what is not read from files: the rest of `org.freedesktop.systemd1.Unit`.
const RUN_TIME: &[&str] = &[
    "ActivationDetails",
    "ActiveEnterTimestamp",
    "ActiveEnterTimestampMonotonic",
    "ActiveExitTimestamp",
    "ActiveExitTimestampMonotonic",
    "ActiveState",
    "AllowIsolate",
    "AssertResult",
    "AssertTimestamp",
    "AssertTimestampMonotonic",
    "Asserts",
    "CanClean",
    "CanFreeze",
    "CanIsolate",
    "CanReload",
    "CanStart",
    "CanStop",
    "CollectMode",
    "ConditionResult",
    "ConditionTimestamp",
    "ConditionTimestampMonotonic",
    "Conditions",
    "ConflictedBy",
    "DefaultDependencies",
    "FailureAction",
    "FailureActionExitStatus",
    "Following",
    "FreezerState",
    "IgnoreOnIsolate",
    "InactiveEnterTimestamp",
    "InactiveEnterTimestampMonotonic",
    "InactiveExitTimestamp",
    "InactiveExitTimestampMonotonic",
    "InvocationID",
    "Job",
    "JobRunningTimeoutUSec",
    "JobTimeoutAction",
    "JobTimeoutRebootArgument",
    "JobTimeoutUSec",
    "LoadError",
    "Markers",
    "NeedDaemonReload",
    "OnFailureJobMode",
    "OnFailureOf",
    "OnSuccessJobMode",
    "OnSuccessOf",
    "Perpetual",
    "PropagatesReloadTo",
    "PropagatesStopTo",
    "RebootArgument",
    "Refs",
    "RefuseManualStart",
    "RefuseManualStop",
    "ReloadPropagatedFrom",
    "RequiresMountsFor",
    "SliceOf",
    "SourcePath",
    "StartLimitAction",
    "StartLimitBurst",
    "StartLimitIntervalUSec",
    "StateChangeTimestamp",
    "StateChangeTimestampMonotonic",
    "StopPropagatedFrom",
    "StopWhenUnneeded",
    "SubState",
    "SuccessAction",
    "SuccessActionExitStatus",
    "Transient",
    "TriggeredBy",
    "Triggers",
    "UnitFilePreset",
];

/// Types of units that systemd makes by itself, without a file.
const MADE_BY_SYSTEMD: [&str; 6] = ["automount", "device", "mount", "scope", "slice", "swap"];

/// The units of an endpoint's files, as long as one task takes: each file is read once.
#[derive(Debug)]
pub(crate) struct UnitFiles {
    path: LoadPath,
    aliases: BTreeMap<String, BTreeSet<String>>,
    files: Vec<String>,
    read: RefCell<BTreeMap<String, Rc<Result<Unit, ProbeError>>>>,
    graph: OnceCell<Graph>,
    is_any_script: OnceCell<bool>,
}

/// What all files say together.
#[derive(Debug)]
struct Graph {
    units: Vec<String>,
    /// By the property and the unit that has it.
    reversed: BTreeMap<(&'static str, String), BTreeSet<String>>,
    troubles: Vec<ProbeError>,
}

impl UnitFiles {
    /// Reads the directories.
    pub(super) fn read(host: &Host) -> Result<Self, ProbeError> {
        let path = LoadPath::read(host)?;
        let mut aliases: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        let mut files = Vec::new();
        for name in path.names().into_iter().filter(|name| !name::is_template(name)) {
            if files.len() == UNITS_MAX {
                return Err(ProbeError::NotCovered(format!("more than {UNITS_MAX} unit files")));
            }
            host.breathe_now_and_then()?;
            let found = path.find(host, name);
            if found.id != name {
                aliases.entry(found.id).or_default().insert(name.to_owned());
            }
            files.push(name.to_owned());
        }
        let (read, graph, is_any_script) = Default::default();
        Ok(Self { path, aliases, files, read, graph, is_any_script })
    }

    /// The names of units that have a file, and of aliases; no templates.
    pub(super) fn unit_files(&self) -> &[String] {
        &self.files
    }

    /// The names of units that have a file, and of those that others name; neither aliases nor templates.
    pub(super) fn units(&self, host: &Host) -> Result<&[String], ProbeError> {
        Ok(&self.graph(host)?.units)
    }

    /// Why what is said is not all.
    pub(super) fn troubles(&self, host: &Host) -> Result<Vec<ProbeError>, ProbeError> {
        let mut troubles = self.graph(host)?.troubles.clone();
        troubles.extend(self.path.troubles.iter().map(|what| ProbeError::NotCovered(what.clone())));
        Ok(troubles)
    }

    /// The properties of a unit.
    pub(super) fn properties(&self, host: &Host, asked: &str) -> Result<Properties, ProbeError> {
        let found = self.path.find(host, asked);
        let id = found.id.as_str();
        let unit = self.unit(host, &found)?;
        let unit = (*unit).as_ref().map_err(Clone::clone)?;
        let graph = self.graph(host)?;
        let is_there = matches!(found.file, Where::In { .. } | Where::Linked(_));
        // What has no file may still be there at run time, made by systemd or from a script.
        let may_be_made = found.file == Where::Nowhere && may_be_made(host, id);
        let mut all: Properties = RUN_TIME.iter().map(|name| ((*name).to_owned(), Property::unknown())).collect();
        let mut say = |name: &str, property: Property| all.insert(name.to_owned(), property);
        for (name, _, is_whole) in LISTS {
            let values = unit.lists.get(name).into_iter().flatten().cloned().collect();
            let is_whole = match found.file {
                Where::Nowhere => !may_be_made,
                Where::Masked(_) => true,
                _ => (is_whole || self.says_all(host, id, name)?) && !unit.unsure.contains(name),
            };
            say(name, Property { values, is_whole });
        }
        for (_, name) in REVERSED {
            let values = graph.reversed.get(&(name, id.to_owned())).into_iter().flatten().cloned().collect();
            say(name, Property { values, is_whole: false });
        }
        let mut names = self.names(id);
        names.insert(asked.to_owned());
        say("Names", Property::whole(names.into_iter().collect()));
        say("Id", Property::one(id));
        let known = |value: &str| if may_be_made { Property::unknown() } else { Property::one(value) };
        say(
            "LoadState",
            match found.file {
                Where::Nowhere => known("not-found"),
                Where::Masked(_) => Property::one("masked"),
                _ if name::kind(id) == "service" && !unit.has_commands => Property::unknown(),
                _ => Property::one("loaded"),
            },
        );
        let state = state::state(&self.path, id, id, &found.file, &unit.install);
        say(
            "UnitFileState",
            match (state, is_there) {
                (Some(state), _) => Property::one(state),
                (None, true) => Property::unknown(),
                (None, false) => known(""),
            },
        );
        say(
            "Description",
            match &unit.description {
                Some(description) => Property::one(description),
                None if is_there => Property::one(id),
                None => Property::unknown(),
            },
        );
        say("Documentation", Property { values: unit.documentation.clone(), is_whole: !may_be_made });
        say(
            "FragmentPath",
            match &found.file {
                Where::Nowhere => known(""),
                Where::Masked(_) => Property::unknown(),
                Where::Linked(path) => Property::one(path),
                Where::In { directory, .. } if self.path.directories[*directory].has_two_names => Property::unknown(),
                Where::In { path, .. } => Property::one(path),
            },
        );
        let has_two_names = |at: &usize| self.path.directories[*at].has_two_names;
        let (untold, told): (Vec<_>, Vec<_>) = unit.drop_ins.iter().partition(|(at, _)| has_two_names(at));
        let values = told.into_iter().map(|(_, path)| path.clone()).collect();
        say("DropInPaths", Property { values, is_whole: untold.is_empty() && !may_be_made });
        Ok(all)
    }

    fn names(&self, id: &str) -> BTreeSet<String> {
        let mut names = self.aliases.get(id).cloned().unwrap_or_default();
        names.insert(id.to_owned());
        names
    }

    /// Whether files say all that a unit requires or wants: systemd adds nothing to a target by itself, but units that it
    /// makes from the scripts of System V.
    fn says_all(&self, host: &Host, id: &str, list: &str) -> Result<bool, ProbeError> {
        if name::kind(id) != "target" || ![REQUIRES, WANTS].contains(&list) {
            return Ok(false);
        }
        let is_of_scripts = list == WANTS && ["multi-user.target", "graphical.target"].contains(&id);
        Ok(!(is_of_scripts && self.is_any_script(host)?))
    }

    /// Whether there is a script that starts by itself and has no unit: systemd makes one for it at boot.
    fn is_any_script(&self, host: &Host) -> Result<bool, ProbeError> {
        if let Some(known) = self.is_any_script.get() {
            return Ok(*known);
        }
        let mut is_any = false;
        for level in ["2", "3", "4", "5"] {
            for directory in [format!("/etc/rc{level}.d"), format!("/etc/rc.d/rc{level}.d")] {
                let Ok(entries) = host.read_dir(&directory) else { continue };
                for entry in entries.filter_map(Result::ok) {
                    host.count_entry()?;
                    let name = entry.file_name();
                    let Some(name) = name.to_str() else { continue };
                    let Some(script) = name.strip_prefix('S').and_then(|rest| rest.get(2..)) else { continue };
                    let unit = format!("{}.service", script.strip_suffix(".sh").unwrap_or(script));
                    is_any |= self.path.find(host, &unit).file == Where::Nowhere
                        && host.stat(&format!("{directory}/{name}")).is_ok();
                }
            }
        }
        Ok(*self.is_any_script.get_or_init(|| is_any))
    }

    /// What all units name, and who names whom.
    fn graph(&self, host: &Host) -> Result<&Graph, ProbeError> {
        if let Some(known) = self.graph.get() {
            return Ok(known);
        }
        let mut graph = Graph { units: Vec::new(), reversed: BTreeMap::new(), troubles: Vec::new() };
        let mut open: BTreeSet<String> = self.files.iter().map(|name| self.path.find(host, name).id).collect();
        let mut units = BTreeSet::new();
        while let Some(id) = open.pop_first() {
            host.breathe_now_and_then()?;
            let unit = self.unit(host, &self.path.find(host, &id))?;
            if units.len() == UNITS_MAX {
                graph.troubles.push(ProbeError::NotCovered(format!("more than {UNITS_MAX} units")));
                break;
            }
            units.insert(id.clone());
            let unit = match &*unit {
                Ok(unit) => unit,
                Err(trouble) => {
                    graph.troubles.push(trouble.clone());
                    continue;
                }
            };
            for (list, others) in &unit.lists {
                open.extend(others.difference(&units).cloned());
                let Some((_, reversed)) = REVERSED.iter().find(|(name, _)| name == list) else { continue };
                for other in others {
                    graph.reversed.entry((reversed, other.clone())).or_default().insert(id.clone());
                }
            }
        }
        graph.units = units.into_iter().collect();
        Ok(self.graph.get_or_init(|| graph))
    }

    /// What the files of a unit say. What is wrong with them is kept; what ends the task is not.
    fn unit(&self, host: &Host, found: &Found) -> Result<Rc<Result<Unit, ProbeError>>, ProbeError> {
        if let Some(known) = self.read.borrow().get(&found.id) {
            return Ok(Rc::clone(known));
        }
        let unit = match self.read_unit(host, found) {
            Err(ProbeError::Cut(cut)) => return Err(cut.into()),
            other => Rc::new(other),
        };
        self.read.borrow_mut().insert(found.id.clone(), Rc::clone(&unit));
        Ok(unit)
    }

    fn read_unit(&self, host: &Host, found: &Found) -> Result<Unit, ProbeError> {
        let mut unit = Unit { has_default_dependencies: true, ..Unit::default() };
        let file = match &found.file {
            Where::In { path, .. } | Where::Linked(path) => path,
            Where::Nowhere | Where::Masked(_) => return Ok(unit),
        };
        let names = self.names(&found.id);
        unit.take(host, &self.path, &found.id, file)?;
        // Whether it can be enabled is up to those of its own name and of its template.
        let own = std::iter::once(found.id.clone()).chain(name::template(&found.id));
        let own: Vec<String> = own.map(|name| format!("/{name}.d/")).collect();
        for (name, (at, path)) in self.path.in_folders(&names, &found.id, ".d") {
            if name.strip_suffix(".conf").is_some() && !is_mask(host, &path, self.path.link(at, &path)) {
                let install = unit.install.clone();
                unit.take(host, &self.path, &found.id, &path)?;
                if !own.iter().any(|directory| path.contains(directory.as_str())) {
                    unit.install = install;
                }
                unit.drop_ins.push((at, path));
            }
        }
        for (end, list) in FOLDERS {
            for (name, (at, path)) in self.path.in_folders(&names, &found.id, end) {
                let target = self.path.link(at, &path);
                if target.is_some() && name::split(&name).is_some() && !is_mask(host, &path, target) {
                    unit.add(host, &self.path, &found.id, list, &name)?;
                }
            }
        }
        let needs_the_system = ["path", "service", "socket", "timer"].contains(&name::kind(&found.id));
        if needs_the_system && unit.has_default_dependencies {
            unit.add(host, &self.path, &found.id, REQUIRES, "sysinit.target")?;
        }
        Ok(unit)
    }
}

/// Whether systemd makes this unit at run time, though it has no file.
fn may_be_made(host: &Host, id: &str) -> bool {
    let script = id.strip_suffix(".service").unwrap_or_default();
    let is_script = |name: String| host.lstat(&format!("/etc/init.d/{name}")).is_ok();
    MADE_BY_SYSTEMD.contains(&name::kind(id))
        || (!script.is_empty() && (is_script(script.to_owned()) || is_script(format!("{script}.sh"))))
}
