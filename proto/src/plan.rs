//! The collection plan: what an agent receives instead of XML.
//!
//! A plan is declarative (RFC 8248 OP-002): it names things to look at, never commands; a script that comes with a policy
//! (`muster:script`) is one more thing, which a collector runs only if its own operator has allowed it. Objects,
//! states and variables are addressed by the hash of their content, so that the same question in two
//! policies is one object, is collected once, and its stored answer serves both. References by hash
//! cannot form a cycle.
//!
//! The shapes are OVAL 5.11's (`oval-definitions-schema`): objects with entities, behaviors, sets and
//! filters; states; constant, external (already bound) and local variables with every function.

use std::collections::BTreeMap;
use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::content::ContentHash;

/// The version of the plan's format.
pub const PLAN_VERSION: u32 = 1;

macro_rules! key {
    ($(#[doc = $doc:literal])+ $name:ident, $content:ty, $prefix:literal) => {
        $(#[doc = $doc])+
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
        #[serde(transparent)]
        #[schemars(extend("pattern" = concat!("^", $prefix)))]
        pub struct $name(pub String);

        impl $name {
            /// The key of this content: a prefix and 128 bits of its SHA-256.
            pub fn of(content: &$content) -> Self {
                let bytes = serde_json::to_vec(content).expect("plan types always serialise");
                Self(format!(concat!($prefix, "{}"), &ContentHash::of(&bytes).as_str()[..32]))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str(&self.0)
            }
        }
    };
}

key! {
    /// Names an object by its content; the `object asked` of an observation.
    ObjectKey, Object, "obj:"
}
key! {
    /// Names a state by its content.
    StateKey, State, "ste:"
}
key! {
    /// Names a variable by its content.
    VariableKey, Variable, "var:"
}

/// The kinds of object that this version has probes for. A test over another kind is `not evaluated`,
/// with the kind's name as the reason.
pub const PROBED_KINDS: &[&str] = &[
    "independent:environmentvariable58",
    "independent:family",
    "independent:filehash58",
    "independent:textfilecontent",
    "independent:textfilecontent54",
    "independent:variable",
    "independent:xmlfilecontent",
    "independent:yamlfilecontent",
    "linux:apparmorstatus",
    "linux:dpkginfo",
    "linux:iflisteners",
    "linux:inetlisteningservers",
    "linux:partition",
    "linux:rpminfo",
    "linux:rpmverifyfile",
    "linux:rpmverifypackage",
    "linux:selinuxboolean",
    "linux:selinuxsecuritycontext",
    "linux:systemdunitdependency",
    "linux:systemdunitproperty",
    "muster:certificate",
    "muster:group",
    "muster:hardware",
    "muster:kernel-module",
    "muster:mount",
    "muster:os",
    "muster:package",
    "muster:script",
    "muster:service",
    "muster:socket",
    "muster:user",
    "unix:file",
    "unix:fileextendedattribute",
    "unix:interface",
    "unix:password",
    "unix:process58",
    "unix:routingtable",
    "unix:runlevel",
    "unix:shadow",
    "unix:symlink",
    "unix:sysctl",
    "unix:uname",
];

/// What to collect.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct CollectionPlan {
    /// The version of the format, [`PLAN_VERSION`].
    #[schemars(extend("const" = PLAN_VERSION))]
    pub version: u32,
    /// The objects whose findings are to be reported.
    pub report: Vec<ObjectKey>,
    /// Objects to report, and those that they refer to.
    pub objects: BTreeMap<ObjectKey, Object>,
    /// States that filters use.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub states: BTreeMap<StateKey, State>,
    /// Variables that entities use.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub variables: BTreeMap<VariableKey, Variable>,
}

/// `oval-def:object` of some kind, such as `unix:file`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct Object {
    /// The kind of the items: OVAL schema prefix and test name without `_object`.
    pub kind: String,
    /// What the items' entities must be.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub entities: Vec<Entity>,
    /// `behaviors` attributes as written.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub behaviors: BTreeMap<String, String>,
    /// Filters of the object itself.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub filters: Vec<Filter>,
    /// A set of other objects instead of entities.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub set: Option<ObjectSet>,
}

/// `oval-def:set`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct ObjectSet {
    /// How the operands combine.
    pub operator: SetOperator,
    /// One or two operands.
    pub operands: Vec<SetOperand>,
    /// Filters of the set.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub filters: Vec<Filter>,
}

/// An operand of a set.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum SetOperand {
    /// The items of an object.
    Object(ObjectKey),
    /// A nested set.
    Set(Box<ObjectSet>),
}

/// `SetOperatorEnumeration`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum SetOperator {
    /// Items of the first that are not in the second.
    Complement,
    /// Items in both.
    Intersection,
    /// Items in either.
    Union,
}

/// `oval-def:filter`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct Filter {
    /// Keep or drop what the state matches.
    pub action: FilterAction,
    /// The state.
    pub state: StateKey,
}

/// `FilterActionEnumeration`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum FilterAction {
    /// Drop the items that match.
    Exclude,
    /// Keep only the items that match.
    Include,
}

/// `oval-def:state`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct State {
    /// The kind of item that it describes.
    pub kind: String,
    /// How the entities combine.
    #[serde(default, skip_serializing_if = "is_and")]
    pub operator: Operator,
    /// What is expected of the item's entities.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub entities: Vec<Entity>,
}

fn is_and(operator: &Operator) -> bool {
    *operator == Operator::And
}

/// `OperatorEnumeration`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
pub enum Operator {
    /// All true.
    #[default]
    And,
    /// Exactly one true.
    One,
    /// At least one true.
    Or,
    /// An odd number true.
    Xor,
}

/// An entity of an object or a state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct Entity {
    /// The element's name.
    pub name: String,
    /// How the item's value compares with this one.
    #[serde(default, skip_serializing_if = "is_equals")]
    pub operation: Operation,
    /// The datatype in which to compare.
    #[serde(default, skip_serializing_if = "is_string")]
    pub datatype: Datatype,
    /// The value, or where it comes from.
    pub value: EntityValue,
    /// How several values of a variable count.
    #[serde(default, skip_serializing_if = "is_all")]
    pub var_check: Check,
    /// How several entities of an item count; states only.
    #[serde(default, skip_serializing_if = "is_all")]
    pub entity_check: Check,
    /// How many entities of that name an item must have; states only.
    #[serde(default, skip_serializing_if = "is_at_least_one")]
    pub check_existence: Existence,
    /// The value must not leave the endpoint in clear.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub mask: bool,
}

fn is_at_least_one(existence: &Existence) -> bool {
    *existence == Existence::AtLeastOneExists
}

impl Entity {
    /// The variables that its value comes from, those of a record's fields too.
    pub fn variables(&self) -> Vec<&VariableKey> {
        match &self.value {
            EntityValue::Variable(key) => vec![key],
            EntityValue::Record(fields) => fields.iter().flat_map(Self::variables).collect(),
            EntityValue::Literal(_) | EntityValue::Nil => Vec::new(),
        }
    }
}

fn is_equals(operation: &Operation) -> bool {
    *operation == Operation::Equals
}

fn is_string(datatype: &Datatype) -> bool {
    *datatype == Datatype::String
}

fn is_all(check: &Check) -> bool {
    *check == Check::All
}

/// Where an entity's value comes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum EntityValue {
    /// Text as written.
    Literal(String),
    /// `xsi:nil="true"`: the entity itself is not asked about.
    Nil,
    /// The values of a variable.
    Variable(VariableKey),
    /// `datatype="record"`: fields, each an entity.
    Record(Vec<Entity>),
}

macro_rules! words {
    ($(#[doc = $doc:literal])+ $name:ident $(default $default:ident)? { $($(#[doc = $vdoc:literal])+ $variant:ident = $text:literal,)* }) => {
        $(#[doc = $doc])+
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
        pub enum $name { $($(#[doc = $vdoc])+ #[serde(rename = $text)] $variant,)* }

        impl $name {
            /// Every value.
            pub const ALL: &[Self] = &[$(Self::$variant),*];

            /// The value as OVAL and the wire spell it.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text,)* }
            }

            /// The value that this text spells.
            pub fn parse(text: &str) -> Option<Self> {
                match text { $($text => Some(Self::$variant),)* _ => None }
            }
        }

        $(impl Default for $name {
            fn default() -> Self {
                Self::$default
            }
        })?

        impl fmt::Display for $name {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.pad(self.as_str())
            }
        }
    };
}

words! {
    /// `OperationEnumeration`.
    Operation default Equals {
        /// Equal in the datatype.
        Equals = "equals",
        /// Not equal.
        NotEqual = "not equal",
        /// Equal, ASCII case ignored.
        CaseInsensitiveEquals = "case insensitive equals",
        /// Not equal, ASCII case ignored.
        CaseInsensitiveNotEqual = "case insensitive not equal",
        /// The item's value is greater.
        GreaterThan = "greater than",
        /// The item's value is less.
        LessThan = "less than",
        /// Greater or equal.
        GreaterThanOrEqual = "greater than or equal",
        /// Less or equal.
        LessThanOrEqual = "less than or equal",
        /// All bits of this value are set in the item's.
        BitwiseAnd = "bitwise and",
        /// No bits outside this value are set in the item's.
        BitwiseOr = "bitwise or",
        /// A Perl regular expression finds a match.
        PatternMatch = "pattern match",
        /// The item's address or set is inside.
        SubsetOf = "subset of",
        /// The item's address or set contains this one.
        SupersetOf = "superset of",
    }
}

words! {
    /// `CheckEnumeration`.
    Check default All {
        /// Every one.
        All = "all",
        /// One or more.
        AtLeastOne = "at least one",
        /// None (deprecated spelling `none exist`).
        NoneSatisfy = "none satisfy",
        /// Deprecated spelling of `none satisfy`.
        NoneExist = "none exist",
        /// Exactly one.
        OnlyOne = "only one",
    }
}

words! {
    /// `ExistenceEnumeration`.
    Existence default AtLeastOneExists {
        /// Everything asked for exists.
        AllExist = "all_exist",
        /// Whatever exists.
        AnyExist = "any_exist",
        /// One or more exist.
        AtLeastOneExists = "at_least_one_exists",
        /// Nothing exists.
        NoneExist = "none_exist",
        /// Exactly one exists.
        OnlyOneExists = "only_one_exists",
    }
}

words! {
    /// `SimpleDatatypeEnumeration` and `record`.
    Datatype default String {
        /// Base64 or hexadecimal bytes.
        Binary = "binary",
        /// true, false, 1, 0.
        Boolean = "boolean",
        /// epoch:version-release, RPM order.
        EvrString = "evr_string",
        /// epoch:version-release, Debian order.
        DebianEvrString = "debian_evr_string",
        /// File set revision of HP-UX.
        FilesetRevision = "fileset_revision",
        /// A decimal number.
        Float = "float",
        /// Cisco IOS train and release.
        IosVersion = "ios_version",
        /// An integer of any size.
        Int = "int",
        /// IPv4 address, optionally with prefix or mask.
        Ipv4Address = "ipv4_address",
        /// IPv6 address, optionally with prefix.
        Ipv6Address = "ipv6_address",
        /// Text.
        String = "string",
        /// Numbers with separators.
        Version = "version",
        /// Fields of their own.
        Record = "record",
    }
}

/// A variable, already bound: external variables have become constants.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct Variable {
    /// The datatype of its values.
    pub datatype: Datatype,
    /// Where the values come from.
    pub source: VariableSource,
}

/// Where a variable's values come from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum VariableSource {
    /// `constant_variable`, or an `external_variable` with its values.
    Constant(Vec<String>),
    /// `local_variable`.
    Local(Component),
    /// An `external_variable` that nobody gave a value, or one whose value breaks a restriction:
    /// everything that uses it is an error, with this reason.
    Unbound(String),
}

/// `ComponentGroup`: a value, or a function of others.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Component {
    /// `literal_component`.
    Literal(String),
    /// `object_component`: an entity of every item of an object.
    #[serde(rename_all = "kebab-case")]
    Object {
        /// The object.
        object: ObjectKey,
        /// The entity's name.
        item_field: String,
        /// The field, where the entity is a record.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        record_field: Option<String>,
    },
    /// `variable_component`.
    Variable(VariableKey),
    /// `arithmetic`, `add` or `multiply`.
    #[serde(rename_all = "kebab-case")]
    Arithmetic {
        /// Multiply instead of add.
        is_product: bool,
        /// Two or more.
        operands: Vec<Component>,
    },
    /// `begin`: with this prefix, added where it lacks.
    Begin(String, Box<Component>),
    /// `concat`: every combination in order.
    Concat(Vec<Component>),
    /// `count`.
    Count(Vec<Component>),
    /// `end`: with this suffix, added where it lacks.
    End(String, Box<Component>),
    /// `escape_regex`.
    EscapeRegex(Box<Component>),
    /// `glob_to_regex`.
    #[serde(rename_all = "kebab-case")]
    GlobToRegex {
        /// Backslash is a plain character.
        noescape: bool,
        /// The glob.
        of: Box<Component>,
    },
    /// `merge`: all values with a delimiter.
    Merge(String, Vec<Component>),
    /// `regex_capture`: the first group, or empty text.
    RegexCapture(String, Box<Component>),
    /// `split` at a delimiter.
    Split(String, Box<Component>),
    /// `substring`, `start` from 1.
    #[serde(rename_all = "kebab-case")]
    Substring {
        /// First character, from 1.
        start: i64,
        /// Characters; negative: to the end.
        length: i64,
        /// The text.
        of: Box<Component>,
    },
    /// `time_difference` in seconds.
    #[serde(rename_all = "kebab-case")]
    TimeDifference {
        /// Format of the first time.
        format_1: String,
        /// Format of the second time.
        format_2: String,
        /// One or two.
        operands: Vec<Component>,
    },
    /// `unique`.
    Unique(Vec<Component>),
}

impl Component {
    /// The components that it is made of.
    pub fn parts(&self) -> &[Self] {
        match self {
            Self::Literal(_) | Self::Object { .. } | Self::Variable(_) => &[],
            Self::Arithmetic { operands: parts, .. }
            | Self::Concat(parts)
            | Self::Count(parts)
            | Self::Merge(_, parts)
            | Self::Unique(parts)
            | Self::TimeDifference { operands: parts, .. } => parts,
            Self::Begin(_, of)
            | Self::End(_, of)
            | Self::EscapeRegex(of)
            | Self::GlobToRegex { of, .. }
            | Self::RegexCapture(_, of)
            | Self::Split(_, of)
            | Self::Substring { of, .. } => std::slice::from_ref(of),
        }
    }
}

impl CollectionPlan {
    /// Bytes as they are hashed and sent.
    pub fn to_bytes(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("plan types always serialise")
    }
}
