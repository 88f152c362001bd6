//! What compiling gives: the evaluation plan's types.

use std::collections::BTreeMap;

use ::oval::check::Truth;
use proto::plan::{Check, CollectionPlan, Existence, ObjectKey, Operator, StateKey, VariableKey};
use proto::verdict::{Severity, Verdict};

use crate::oval::Class;
use crate::xccdf::Role;

/// What a policy and a profile compile to.
#[derive(Debug)]
pub struct Compiled {
    /// The profile's id, or `(default)`.
    pub profile: String,
    /// The benchmark's values in this profile.
    pub values: BTreeMap<String, Vec<String>>,
    /// Where the benchmark says that something applies, by name.
    pub platforms: BTreeMap<String, PlatformPlan>,
    /// What agents get.
    pub collection: CollectionPlan,
    /// The rules, in order; those that are not selected included.
    pub rules: Vec<RulePlan>,
    /// Groups and rules as the score sees them; rules by position.
    pub tree: Vec<TreeNode>,
    /// Definitions, by position.
    pub definitions: Vec<DefinitionPlan>,
    /// Tests, by position.
    pub tests: Vec<TestPlan>,
    /// Where the ids of the OVAL documents have gone.
    pub documents: Vec<DocumentPlan>,
}

impl Compiled {
    /// The tests of OVAL documents that refer to what is not there, or to what cannot be, with the reason.
    pub fn broken(&self) -> impl Iterator<Item = (&str, &str)> {
        self.documents.iter().flat_map(|document| &document.tests).filter_map(|(id, at)| {
            match &self.tests[*at].subject {
                Err((Truth::Error, reason)) => Some((id.as_str(), reason.as_str())),
                _ => None,
            }
        })
    }
}

/// The ids of one OVAL document, compiled with one set of external values.
#[derive(Debug)]
pub struct DocumentPlan {
    /// Its href in the policy.
    pub href: String,
    /// Definitions by id.
    pub definitions: BTreeMap<String, usize>,
    /// Tests by id.
    pub tests: BTreeMap<String, usize>,
    /// Objects by id.
    pub objects: BTreeMap<String, ObjectKey>,
    /// Variables by id.
    pub variables: BTreeMap<String, VariableKey>,
}

/// A rule, ready to be decided.
#[derive(Debug)]
pub struct RulePlan {
    /// Its id.
    pub id: String,
    /// Its title.
    pub title: String,
    /// Its severity in this profile.
    pub severity: Severity,
    /// Its weight in this profile.
    pub weight: f64,
    /// Its role in this profile.
    pub role: Role,
    /// Whether it is selected.
    pub selected: bool,
    /// One list for each level that names platforms (benchmark, groups, rule): any of a list, all lists.
    pub platforms: Vec<Vec<PlatformPlan>>,
    /// How it is decided.
    pub check: CheckPlan,
    /// Which of the rule's checks; none for a complex check, or where there is none. And which of its contents.
    pub chosen: Option<(usize, Option<usize>)>,
    /// A check of the kind `multi-check`: the definitions' ids, each of which has a result of its own.
    pub multi: Vec<String>,
    /// How to mend it, values filled in.
    pub fix: String,
}

/// A place in the benchmark's tree.
#[derive(Debug)]
pub enum TreeNode {
    /// A group with its weight.
    Group(f64, Vec<TreeNode>),
    /// A rule with its weight, by position.
    Rule(f64, usize),
}

/// How a rule is decided.
#[derive(Debug)]
pub enum CheckPlan {
    /// Nothing has to be looked at, with the reason.
    Fixed(Verdict, String),
    /// By definitions, all of which must hold.
    Definitions {
        /// By position.
        definitions: Vec<usize>,
        /// Pass and fail change places.
        negate: bool,
    },
    /// By a script (SCE).
    Script {
        /// The definition that asks for it, by position.
        definition: usize,
        /// Pass and fail change places.
        negate: bool,
    },
    /// By other checks.
    Complex {
        /// All, instead of any.
        is_and: bool,
        /// Pass and fail change places.
        negate: bool,
        /// The checks.
        parts: Vec<CheckPlan>,
    },
}

/// What must hold for a platform.
#[derive(Debug, Clone)]
pub enum PlatformPlan {
    /// Nobody says what it is: it holds nowhere.
    Undefined(String),
    /// A definition, by position.
    Definition(usize),
    /// Others combined.
    Test {
        /// All, instead of any.
        is_and: bool,
        /// The opposite.
        negate: bool,
        /// The others.
        parts: Vec<PlatformPlan>,
    },
}

/// A definition, ready to be decided.
#[derive(Debug)]
pub struct DefinitionPlan {
    /// Its class.
    pub class: Class,
    /// What must hold; `Fixed` where it cannot be decided.
    pub criteria: CriteriaPlan,
}

/// Criteria over tests and definitions by position.
#[derive(Debug)]
pub enum CriteriaPlan {
    /// Decided already, with the reason.
    Fixed(Truth, String),
    /// Parts combined.
    Operator {
        /// How.
        operator: Operator,
        /// True and false change places.
        negate: bool,
        /// The parts.
        parts: Vec<CriteriaPlan>,
    },
    /// A test.
    Test {
        /// By position.
        test: usize,
        /// True and false change places.
        negate: bool,
    },
    /// A definition.
    Definition {
        /// By position.
        definition: usize,
        /// True and false change places.
        negate: bool,
    },
}

/// A test, ready to be decided.
#[derive(Debug, PartialEq, Eq)]
pub struct TestPlan {
    /// Its kind.
    pub kind: String,
    /// How items' results combine.
    pub check: Check,
    /// How many items there must be.
    pub existence: Existence,
    /// How states combine.
    pub state_operator: Operator,
    /// The object and the states, or why there are none.
    pub subject: Result<(ObjectKey, Vec<StateKey>), (Truth, String)>,
    /// For people.
    pub comment: String,
}
