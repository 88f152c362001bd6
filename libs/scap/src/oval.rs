//! OVAL definitions as a model that serialises (`oval-definitions-schema` 5.11).
//!
//! Objects, states and variables keep the ids of the document; [`crate::compile`](mod@crate::compile)
//! turns them into content-addressed plan types.

use std::collections::BTreeMap;

use proto::plan::{Check, Datatype, Entity, Existence, FilterAction, Operator, SetOperator};
use serde::{Deserialize, Serialize};

/// `oval_definitions`.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct OvalDefinitions {
    /// `generator/schema_version`.
    pub schema_version: String,
    /// By id.
    pub definitions: BTreeMap<String, Definition>,
    /// By id.
    pub tests: BTreeMap<String, Test>,
    /// By id.
    pub objects: BTreeMap<String, OvalObject>,
    /// By id.
    pub states: BTreeMap<String, OvalState>,
    /// By id.
    pub variables: BTreeMap<String, OvalVariable>,
}

/// `ClassEnumeration`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Class {
    /// True: as it should be.
    Compliance,
    /// True: it is there.
    Inventory,
    /// Neither.
    Miscellaneous,
    /// True: the patch is missing.
    Patch,
    /// True: vulnerable.
    Vulnerability,
}

impl Class {
    /// The class as OVAL spells it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Compliance => "compliance",
            Self::Inventory => "inventory",
            Self::Miscellaneous => "miscellaneous",
            Self::Patch => "patch",
            Self::Vulnerability => "vulnerability",
        }
    }
}

/// `definition`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Definition {
    /// Its class.
    pub class: Class,
    /// Its version.
    #[serde(default)]
    pub version: u64,
    /// `metadata/title`.
    pub title: String,
    /// Absent: it is not evaluated.
    pub criteria: Option<Criteria>,
}

/// `criteria`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Criteria {
    /// How the parts combine.
    pub operator: Operator,
    /// True and false change places.
    pub negate: bool,
    /// The parts.
    pub parts: Vec<Criterion>,
}

/// A part of criteria.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Criterion {
    /// Nested criteria.
    Criteria(Criteria),
    /// `criterion`.
    Test {
        /// The test's id.
        test: String,
        /// True and false change places.
        negate: bool,
        /// For people.
        comment: String,
    },
    /// `extend_definition`.
    Extend {
        /// The definition's id.
        definition: String,
        /// True and false change places.
        negate: bool,
    },
}

/// A test of any kind.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Test {
    /// Its kind, such as `unix:file`.
    pub kind: String,
    /// How items' results combine.
    pub check: Check,
    /// How many items there must be.
    pub existence: Existence,
    /// How states combine.
    pub state_operator: Operator,
    /// Its version.
    #[serde(default)]
    pub version: u64,
    /// The object's id; none for `unknown_test`.
    pub object: Option<String>,
    /// The states' ids.
    pub states: Vec<String>,
    /// For people.
    pub comment: String,
}

/// An entity before its variable is known by content: `value` holds the variable's id in
/// `Variable`, which compiling replaces by its key.
pub type OvalEntity = Entity;

/// An object of any kind.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct OvalObject {
    /// Its kind.
    pub kind: String,
    /// Its version.
    #[serde(default)]
    pub version: u64,
    /// Its entities; a variable is named by its id.
    pub entities: Vec<OvalEntity>,
    /// Its behaviors.
    pub behaviors: BTreeMap<String, String>,
    /// Its filters, with the state's id.
    pub filters: Vec<(FilterAction, String)>,
    /// A set instead of entities.
    pub set: Option<OvalSet>,
}

/// `set`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct OvalSet {
    /// How the operands combine.
    pub operator: SetOperator,
    /// Objects' ids.
    pub objects: Vec<String>,
    /// Nested sets.
    pub sets: Vec<OvalSet>,
    /// Filters, with the state's id.
    pub filters: Vec<(FilterAction, String)>,
}

/// A state of any kind.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct OvalState {
    /// Its kind.
    pub kind: String,
    /// How its entities combine.
    pub operator: Operator,
    /// Its entities; a variable is named by its id.
    pub entities: Vec<OvalEntity>,
}

/// A variable of any kind.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct OvalVariable {
    /// Its datatype.
    pub datatype: Datatype,
    /// For people.
    pub comment: String,
    /// What it is.
    pub source: OvalVariableSource,
}

/// What a variable is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum OvalVariableSource {
    /// `constant_variable`.
    Constant(Vec<String>),
    /// `external_variable` with its `possible_value`s, if it has any.
    External(Vec<String>),
    /// `external_variable` whose values may also be what a restriction allows.
    Restricted {
        /// `possible_value`s.
        values: Vec<String>,
        /// `possible_restriction`s: any of them, each with all or any of its parts.
        restrictions: Vec<(Operator, Vec<(proto::plan::Operation, String)>)>,
    },
    /// `local_variable`; components name objects and variables by id.
    Local(proto::plan::Component),
    /// Something that is not covered; its name.
    Unsupported(String),
}
