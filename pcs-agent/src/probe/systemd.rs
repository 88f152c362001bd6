//! systemd's units over D-Bus: one connection a task, one question at a time, each with a deadline, and none
//! twice.
//!
//! Where systemd does not run there is nobody to ask: [`super::units`] reads files then.

use std::cell::{OnceCell, RefCell};
use std::collections::BTreeMap;
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use zbus::{Connection, OwnedObjectPath, OwnedVariant, Variant};

use super::ProbeError;
use super::units::{Properties, Property};
use crate::host::Host;
use crate::limits::DBUS_SECONDS_MAX;

pub(crate) const DESTINATION: &str = "org.freedesktop.systemd1";
pub(crate) const MANAGER_PATH: &str = "/org/freedesktop/systemd1";
pub(crate) const MANAGER: &str = "org.freedesktop.systemd1.Manager";
pub(crate) const UNIT: &str = "org.freedesktop.systemd1.Unit";
pub(crate) const SOCKET: &str = "/run/dbus/system_bus_socket";

/// systemd, as long as one task takes: what it has said once is not asked again.
pub(crate) struct Systemd {
    runtime: tokio::runtime::Runtime,
    connection: Connection,
    units: OnceCell<Vec<String>>,
    unit_files: OnceCell<Vec<String>>,
    properties: RefCell<BTreeMap<String, Rc<Properties>>>,
}

impl std::fmt::Debug for Systemd {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Systemd").finish_non_exhaustive()
    }
}

fn no_answer(error: impl std::fmt::Display) -> ProbeError {
    ProbeError::Broken(format!("systemd does not answer over D-Bus: {error}"))
}

/// Why systemd cannot be asked at all.
pub(super) fn missing(host: &Host) -> Option<ProbeError> {
    if !host.is_live() {
        return Some(ProbeError::Broken("needs a live system: systemd is asked over D-Bus".to_owned()));
    }
    let is_there = Path::new(SOCKET).exists();
    (!is_there).then(|| ProbeError::Broken(format!("systemd cannot be asked: there is no D-Bus socket {SOCKET}")))
}

impl Systemd {
    /// Connects to this machine's.
    pub(super) fn connect(host: &Host) -> Result<Self, ProbeError> {
        if let Some(missing) = missing(host) {
            return Err(missing);
        }
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(no_answer)?;
        let deadline = Duration::from_secs(DBUS_SECONDS_MAX);
        let connection = runtime
            .block_on(async {
                let builder =
                    zbus::connection::Builder::address(format!("unix:path={SOCKET}").as_str()).method_timeout(deadline);
                tokio::time::timeout(deadline, builder.build()).await
            })
            .map_err(|_| no_answer("no answer in time"))?
            .map_err(no_answer)?;
        Ok(Self {
            runtime,
            connection,
            units: OnceCell::new(),
            unit_files: OnceCell::new(),
            properties: RefCell::default(),
        })
    }

    /// The names of the units that systemd has in memory, as `oscap` 1.3.7 has them: a unit that nothing refers to, and an
    /// alias, is none of them.
    pub(super) fn units(&self) -> Result<&[String], ProbeError> {
        if let Some(known) = self.units.get() {
            return Ok(known);
        }
        type Loaded = (String, String, String, String, String, String, OwnedObjectPath, u32, String, OwnedObjectPath);
        let loaded: Vec<Loaded> = self.manager("ListUnits", &())?;
        let mut names: Vec<String> = loaded.into_iter().map(|unit| unit.0).collect();
        names.sort();
        Ok(self.units.get_or_init(|| names))
    }

    /// The names of the units that have a file, whether in memory or not; an alias is one of them.
    pub(super) fn unit_files(&self) -> Result<&[String], ProbeError> {
        if let Some(known) = self.unit_files.get() {
            return Ok(known);
        }
        let files: Vec<(String, String)> = self.manager("ListUnitFiles", &())?;
        let of_file = |path: String| path.rsplit('/').next().map(str::to_owned);
        // A template is no unit until it has an instance.
        let names = files.into_iter().filter_map(|(path, _)| of_file(path)).filter(|name| !name.contains("@."));
        Ok(self.unit_files.get_or_init(|| names.collect()))
    }

    /// The properties of a unit's `org.freedesktop.systemd1.Unit` interface.
    pub(super) fn properties(&self, unit: &str) -> Result<Rc<Properties>, ProbeError> {
        if let Some(known) = self.properties.borrow().get(unit) {
            return Ok(Rc::clone(known));
        }
        let path: OwnedObjectPath = self.manager("LoadUnit", &(unit,))?;
        let properties: std::collections::HashMap<String, OwnedVariant> = self.runtime.block_on(async {
            let reply = self
                .connection
                .call_method(
                    Some(DESTINATION),
                    path.as_str(),
                    Some("org.freedesktop.DBus.Properties"),
                    "GetAll",
                    &(UNIT,),
                )
                .await
                .map_err(no_answer)?;
            reply.body().deserialize().map_err(no_answer)
        })?;
        let properties: Properties =
            properties.into_iter().map(|(name, value)| (name, Property::whole(words(&value)))).collect();
        let properties = Rc::new(properties);
        self.properties.borrow_mut().insert(unit.to_owned(), Rc::clone(&properties));
        Ok(properties)
    }

    fn manager<A, R>(&self, method: &str, arguments: &A) -> Result<R, ProbeError>
    where
        A: serde::Serialize + zbus::Type,
        R: serde::de::DeserializeOwned + zbus::Type,
    {
        self.runtime.block_on(async {
            let reply = self
                .connection
                .call_method(Some(DESTINATION), MANAGER_PATH, Some(MANAGER), method, arguments)
                .await
                .map_err(no_answer)?;
            reply.body().deserialize().map_err(no_answer)
        })
    }
}

/// A value as text: a list is several texts.
fn words(value: &Variant<'_>) -> Vec<String> {
    match value {
        Variant::Array(list) => list.inner().iter().map(word).collect(),
        Variant::Variant(inner) => words(inner),
        other => vec![word(other)],
    }
}

fn word(value: &Variant<'_>) -> String {
    match value {
        Variant::Bool(flag) => flag.to_string(),
        Variant::U8(number) => number.to_string(),
        Variant::U16(number) => number.to_string(),
        Variant::I16(number) => number.to_string(),
        Variant::U32(number) => number.to_string(),
        Variant::I32(number) => number.to_string(),
        Variant::U64(number) => number.to_string(),
        Variant::I64(number) => number.to_string(),
        Variant::F64(number) => number.to_string(),
        Variant::Str(text) => text.as_str().to_owned(),
        Variant::ObjectPath(path) => path.as_str().to_owned(),
        Variant::Structure(fields) => fields.fields().iter().map(word).collect::<Vec<_>>().join(" "),
        _ => String::new(),
    }
}
