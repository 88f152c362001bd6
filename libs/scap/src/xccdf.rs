//! XCCDF 1.2 benchmarks as a model that serialises (`xccdf_1.2.xsd`; 1.1 documents fit as well).

use std::collections::BTreeMap;

use proto::verdict::Severity;
use serde::{Deserialize, Serialize};

/// `Benchmark`.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Benchmark {
    /// The namespace that it is written in: XCCDF 1.2's or 1.1's.
    #[serde(default)]
    pub namespace: String,
    /// Its id.
    pub id: String,
    /// Its title.
    pub title: String,
    /// Its version.
    pub version: String,
    /// What it is for.
    #[serde(default)]
    pub description: Vec<TextPart>,
    /// The scoring models that it asks for; empty: the default.
    #[serde(default)]
    pub models: Vec<String>,
    /// Where it applies; empty: everywhere.
    pub platforms: Vec<String>,
    /// Groups and rules, in order.
    pub items: Vec<Item>,
    /// `plain-text`, by id.
    #[serde(default)]
    pub plain_texts: BTreeMap<String, String>,
    /// By id.
    pub values: BTreeMap<String, Value>,
    /// In order.
    pub profiles: Vec<Profile>,
}

/// A group or a rule.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Item {
    /// `Group`.
    Group(Box<Group>),
    /// `Rule`.
    Rule(Box<Rule>),
}

/// What groups and rules share.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Common {
    /// Its id.
    pub id: String,
    /// `cluster-id`, which profiles may select by.
    pub cluster: Option<String>,
    /// Its title.
    pub title: String,
    /// Its title with values and line breaks, where it is more than plain words.
    #[serde(default)]
    pub title_parts: Vec<TextPart>,
    /// What it is about.
    #[serde(default)]
    pub description: Vec<TextPart>,
    /// Whether it is selected when no profile says otherwise.
    pub selected: bool,
    /// Its weight in the score.
    pub weight: f64,
    /// Where it applies; empty: everywhere.
    pub platforms: Vec<String>,
    /// Each: one of these must be selected.
    pub requires: Vec<Vec<String>>,
    /// None of these may be selected.
    pub conflicts: Vec<String>,
}

/// `Group`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Group {
    /// What groups and rules share.
    pub common: Common,
    /// What is in it.
    pub items: Vec<Item>,
}

/// `Rule`.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Rule {
    /// What groups and rules share.
    pub common: Common,
    /// Its severity.
    pub severity: Severity,
    /// `full`, `unscored` or `unchecked`.
    pub role: Role,
    /// Its checks, in order.
    pub checks: Vec<Check>,
    /// Instead of checks.
    pub complex_check: Option<ComplexCheck>,
    /// How to mend it, for people.
    pub fix_text: Vec<TextPart>,
    /// How to mend it, for machines.
    #[serde(default)]
    pub fixes: Vec<Fix>,
    /// References: where from and what.
    pub references: Vec<(String, String)>,
    /// `ident`: system and name.
    pub idents: Vec<(String, String)>,
    /// Why.
    pub rationale: String,
}

/// `roleEnumType`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum Role {
    /// Checked and scored.
    #[default]
    Full,
    /// Checked, for information.
    Unscored,
    /// Not checked.
    Unchecked,
}

/// Text with places for values.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum TextPart {
    /// Plain.
    Text(String),
    /// The value of a `Value`, or a `plain-text`.
    Sub(String),
    /// The title of a `Value`.
    Title(String),
    /// XHTML begins; plain text goes on as if nothing were there.
    Open(Mark),
    /// XHTML ends.
    Close(Mark),
}

/// The XHTML that is kept of descriptions; the rest becomes text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Mark {
    /// `p` and `div`.
    Paragraph,
    /// `pre`.
    Preformatted,
    /// `code` and `tt`.
    Code,
    /// `ul`.
    List,
    /// `ol`.
    NumberedList,
    /// `li`.
    ListItem,
    /// `b` and `strong`.
    Strong,
    /// `i` and `em`.
    Emphasis,
}

/// `fix`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Fix {
    /// Its id, which results refer to.
    pub id: Option<String>,
    /// What its content is written in, a URI such as `urn:xccdf:fix:script:sh`.
    pub system: String,
    /// Attributes that tell people what it takes: `reboot`, `strategy`, `disruption`, `complexity`, `platform`.
    pub notes: Vec<(String, String)>,
    /// The script.
    pub content: Vec<TextPart>,
}

/// `check`.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Check {
    /// Its system, a URI.
    pub system: String,
    /// Its selector.
    pub selector: String,
    /// Pass and fail change places.
    pub negate: bool,
    /// One result for each definition.
    pub multi_check: bool,
    /// What is told of the checking: names of variables, whose values go into the result.
    pub imports: Vec<String>,
    /// Value id and variable name.
    pub exports: Vec<(String, String)>,
    /// Where the check is: the component's href in the data stream, and the definition's id.
    pub content: Vec<(String, Option<String>)>,
}

/// `complex-check`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ComplexCheck {
    /// All, instead of any.
    pub is_and: bool,
    /// Pass and fail change places.
    pub negate: bool,
    /// Its parts.
    pub parts: Vec<ComplexPart>,
}

/// A part of a complex check.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum ComplexPart {
    /// A check.
    Check(Check),
    /// A nested one.
    Complex(ComplexCheck),
}

/// `Value`.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Value {
    /// Its title.
    #[serde(default)]
    pub title: String,
    /// `type`: `string`, `number` or `boolean`; empty: not said.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub value_type: String,
    /// `operator`, such as `greater than`; empty: not said.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub operator: String,
    /// Values by selector; the empty selector is the default.
    pub by_selector: BTreeMap<String, Vec<String>>,
    /// The first one written, where there is no default.
    pub first: Option<Vec<String>>,
}

/// `Profile`.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Profile {
    /// Its id.
    pub id: String,
    /// Its title.
    pub title: String,
    /// What it is for.
    #[serde(default)]
    pub description: Vec<TextPart>,
    /// Whether only other profiles use it.
    #[serde(default)]
    pub is_abstract: bool,
    /// The profile that it adds to.
    pub extends: Option<String>,
    /// What it changes, in order.
    pub changes: Vec<Change>,
}

/// One thing that a profile changes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Change {
    /// `select`.
    Select {
        /// An item's id or cluster.
        item: String,
        /// Whether it is selected.
        selected: bool,
    },
    /// `set-value` and `set-complex-value`.
    SetValue {
        /// The value's id.
        value: String,
        /// What it is.
        to: Vec<String>,
    },
    /// `refine-value`.
    RefineValue {
        /// The value's id.
        value: String,
        /// Which of its values.
        selector: String,
    },
    /// `refine-rule`.
    RefineRule {
        /// The rule's id or cluster.
        rule: String,
        /// Which of its checks.
        selector: Option<String>,
        /// Its severity.
        severity: Option<Severity>,
        /// Its weight.
        weight: Option<f64>,
        /// Its role.
        role: Option<Role>,
    },
}

impl Benchmark {
    /// Every rule, in order.
    pub fn rules(&self) -> Vec<&Rule> {
        fn collect<'items>(items: &'items [Item], rules: &mut Vec<&'items Rule>) {
            for item in items {
                match item {
                    Item::Group(group) => collect(&group.items, rules),
                    Item::Rule(rule) => rules.push(rule),
                }
            }
        }
        let mut rules = Vec::new();
        collect(&self.items, &mut rules);
        rules
    }
}
