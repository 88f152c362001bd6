//! The data model: an observation is what was found when one object was asked of one endpoint.
//!
//! It carries what OVAL system characteristics carry (`oval-system-characteristics-schema`), so that
//! OVAL can be evaluated on it and exported from it without loss. Absence is explicit.

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::id::{ComponentId, EndpointId};
use crate::plan::{Datatype, ObjectKey};

/// `FlagEnumeration`: how completely an object was collected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Flag {
    /// Something went wrong.
    Error,
    /// Everything that matches is here.
    Complete,
    /// Some of what matches is here.
    Incomplete,
    /// Nothing matches.
    DoesNotExist,
    /// Nobody looked.
    NotCollected,
    /// The question makes no sense on this endpoint.
    NotApplicable,
}

/// `StatusEnumeration` of an item or an entity.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Status {
    /// It could not be read.
    Error,
    /// It is there, with a value.
    #[default]
    Exists,
    /// It is not there.
    DoesNotExist,
    /// Nobody looked.
    NotCollected,
}

fn is_exists(status: &Status) -> bool {
    *status == Status::Exists
}

fn is_string(datatype: &Datatype) -> bool {
    *datatype == Datatype::String
}

/// One entity of an item, such as a file's `user_id`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct ItemEntity {
    /// The element's name in the OVAL schema.
    #[serde(rename = "n")]
    pub name: String,
    /// The value's datatype.
    #[serde(rename = "t", default, skip_serializing_if = "is_string")]
    pub datatype: Datatype,
    /// Whether it is there.
    #[serde(rename = "s", default, skip_serializing_if = "is_exists")]
    pub status: Status,
    /// The value in OVAL's lexical form; absent unless it exists.
    #[serde(rename = "v", default, skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
    /// The fields of a record, named as they are.
    #[serde(rename = "f", default, skip_serializing_if = "Vec::is_empty")]
    pub fields: Vec<ItemEntity>,
}

impl ItemEntity {
    /// An entity that exists.
    pub fn new(name: &str, datatype: Datatype, value: impl Into<String>) -> Self {
        Self { name: name.to_owned(), datatype, status: Status::Exists, value: Some(value.into()), fields: Vec::new() }
    }

    /// A text entity that exists.
    pub fn text(name: &str, value: impl Into<String>) -> Self {
        Self::new(name, Datatype::String, value)
    }

    /// An integer entity that exists.
    pub fn int(name: &str, value: impl ToString) -> Self {
        Self::new(name, Datatype::Int, value.to_string())
    }

    /// A boolean entity that exists.
    pub fn boolean(name: &str, value: bool) -> Self {
        Self::new(name, Datatype::Boolean, if value { "true" } else { "false" })
    }

    /// An entity without a value.
    pub fn without_value(name: &str, datatype: Datatype, status: Status) -> Self {
        Self { name: name.to_owned(), datatype, status, value: None, fields: Vec::new() }
    }
}

/// What was found: an `item` of OVAL system characteristics.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct Item {
    /// The kind, such as `unix:file`.
    pub kind: String,
    /// Whether it is there.
    #[serde(default, skip_serializing_if = "is_exists")]
    pub status: Status,
    /// Its entities in the order of the OVAL schema.
    pub entities: Vec<ItemEntity>,
    /// Why it is not there or not complete.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

impl Item {
    /// An item that exists.
    pub fn new(kind: &str, entities: Vec<ItemEntity>) -> Self {
        Self { kind: kind.to_owned(), status: Status::Exists, entities, message: None }
    }

    /// The entities of that name.
    pub fn named<'both>(&'both self, name: &'both str) -> impl Iterator<Item = &'both ItemEntity> {
        self.entities.iter().filter(move |entity| entity.name == name)
    }

    /// The first value of that name.
    pub fn value(&self, name: &str) -> Option<&str> {
        self.entities.iter().filter(|entity| entity.name == name).find_map(|entity| entity.value.as_deref())
    }
}

/// What asking one object gave: a `collected_object` with its items.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct Collected {
    /// How completely.
    pub flag: Flag,
    /// What was found.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub items: Vec<Item>,
    /// Why it is not complete, in words.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub messages: Vec<String>,
}

impl Collected {
    /// Complete if there is anything, `does not exist` otherwise.
    pub fn from_items(items: Vec<Item>) -> Self {
        let flag = if items.is_empty() { Flag::DoesNotExist } else { Flag::Complete };
        Self { flag, items, messages: Vec::new() }
    }

    /// Nothing but a flag and a reason.
    pub fn nothing(flag: Flag, reason: impl Into<String>) -> Self {
        Self { flag, items: Vec::new(), messages: vec![reason.into()] }
    }
}

/// How a value came to be known (information model `collectionTaskType`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Method {
    /// The endpoint's own agent looked.
    SelfReported,
    /// Somebody else asked the endpoint over the network.
    RemoteAcquisition,
    /// Somebody watched the endpoint's behaviour.
    NetworkObservation,
}

/// One observation with all that says where it comes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct Observation {
    /// Of which endpoint.
    pub endpoint: EndpointId,
    /// What was asked.
    pub object: ObjectKey,
    /// What was found.
    pub collected_object: Collected,
    /// When the endpoint was looked at (RFC 8248 DM-009).
    pub collected: Timestamp,
    /// Who looked (RFC 8248 DM-008).
    pub origin: ComponentId,
    /// How (RFC 8248 DM-010).
    pub method: Method,
}

/// Attributes that identify and describe an endpoint (`oval-sc:system_info` and more).
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct EndpointFacts {
    /// Its name.
    pub host_name: String,
    /// `PRETTY_NAME` of os-release, or what stands for it.
    pub os_name: String,
    /// Kernel release.
    pub os_version: String,
    /// Machine hardware name.
    pub architecture: String,
    /// `/etc/machine-id`, where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub machine_id: Option<String>,
    /// Whether the collector ran with root rights.
    pub is_privileged: bool,
}
