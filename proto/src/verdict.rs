//! Verdicts and what they are based on.

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::content::ContentHash;
use crate::id::{ComponentId, EndpointId, TransactionId};
use crate::message::Knowledge;
use crate::plan::ObjectKey;

/// XCCDF 1.2 `resultEnumType`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// The endpoint meets the rule.
    Pass,
    /// It does not.
    Fail,
    /// The check could not be carried out.
    Error,
    /// It could not be decided; never counts as pass.
    Unknown,
    /// The rule does not apply to this endpoint.
    NotApplicable,
    /// There is no check, or it uses something that is not covered yet.
    NotChecked,
    /// The profile does not select the rule.
    NotSelected,
    /// For information only.
    Informational,
    /// Was wrong, has been mended.
    Fixed,
}

impl Verdict {
    /// Every verdict.
    pub const ALL: [Self; 9] = [
        Self::Pass,
        Self::Fail,
        Self::Error,
        Self::Unknown,
        Self::NotApplicable,
        Self::NotChecked,
        Self::NotSelected,
        Self::Informational,
        Self::Fixed,
    ];

    /// The verdict as XCCDF spells it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Fail => "fail",
            Self::Error => "error",
            Self::Unknown => "unknown",
            Self::NotApplicable => "notapplicable",
            Self::NotChecked => "notchecked",
            Self::NotSelected => "notselected",
            Self::Informational => "informational",
            Self::Fixed => "fixed",
        }
    }

    /// The verdict as a letter.
    pub fn letter(self) -> char {
        match self {
            Self::Pass => 'p',
            Self::Fail => 'f',
            Self::Error => 'e',
            Self::Unknown => 'u',
            Self::NotApplicable => 'n',
            Self::NotChecked => 'c',
            Self::NotSelected => 's',
            Self::Informational => 'i',
            Self::Fixed => 'x',
        }
    }

    /// The verdict of a letter.
    pub fn of_letter(letter: char) -> Option<Self> {
        Self::ALL.into_iter().find(|verdict| verdict.letter() == letter)
    }

    /// The verdict that this text spells.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|verdict| verdict.as_str() == text)
    }
}

impl std::fmt::Display for Verdict {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.pad(self.as_str())
    }
}

/// XCCDF `severityEnumType`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Not a security matter.
    Info,
    /// Low.
    Low,
    /// Medium.
    Medium,
    /// High.
    High,
    /// Not said.
    #[default]
    Unknown,
}

impl Severity {
    /// The severity as XCCDF spells it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Info => "info",
            Self::Low => "low",
            Self::Medium => "medium",
            Self::High => "high",
            Self::Unknown => "unknown",
        }
    }
}

impl std::fmt::Display for Severity {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.pad(self.as_str())
    }
}

/// What a met expectation means: good for a compliance rule, bad for a vulnerability's description
/// (draft-ietf-sacm-arch-13 §4.1.3, "context").
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Sense {
    /// True is satisfactory.
    #[default]
    Compliance,
    /// True is unsatisfactory.
    Vulnerability,
}

/// One rule's verdict on one endpoint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct RuleResult {
    /// The XCCDF rule's id.
    pub rule: String,
    /// Its title.
    pub title: String,
    /// Its severity in this profile.
    pub severity: Severity,
    /// The verdict.
    pub verdict: Verdict,
    /// Whether true means good or bad.
    #[serde(default)]
    pub sense: Sense,
    /// What was found, in words; empty for a pass.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub found: Vec<String>,
    /// What was expected, in words.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub expected: Vec<String>,
    /// Why it is unknown, error, or not checked.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub reasons: Vec<String>,
    /// How to mend it, for a person.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fix: Option<String>,
    /// Since when the verdict is this one: what a repository says, never an evaluator.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<Timestamp>,
    /// The objects whose observations it was decided on.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub objects: Vec<ObjectKey>,
}

impl RuleResult {
    /// A verdict with nothing to say yet.
    pub fn new(rule: &str, title: &str, severity: Severity, verdict: Verdict) -> Self {
        Self {
            rule: rule.to_owned(),
            title: title.to_owned(),
            severity,
            verdict,
            sense: Sense::Compliance,
            found: Vec::new(),
            expected: Vec::new(),
            reasons: Vec::new(),
            fix: None,
            since: None,
            objects: Vec::new(),
        }
    }
}

/// The outcome of one policy and profile on one endpoint.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct EvaluationSummary {
    /// The workflow that asked.
    pub transaction: TransactionId,
    /// Of which endpoint.
    pub endpoint: EndpointId,
    /// The policy's name.
    pub policy: String,
    /// The profile's id, or `(default)`.
    pub profile: String,
    /// When it was decided.
    pub evaluated: Timestamp,
    /// The oldest observation that it rests on; `None` where it rests on none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub oldest_collected: Option<Timestamp>,
    /// Who decided.
    pub evaluator: ComponentId,
    /// XCCDF default score, 0 to 100 (`urn:xccdf:scoring:default`); absent where no rule counts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub score: Option<f64>,
    /// How many rules got each verdict.
    pub counts: Vec<(Verdict, u64)>,
    /// As of when it was decided, if that was not the time of deciding.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub as_of: Option<Timestamp>,
    /// How old an observation might be: what was collected earlier was stale, and its rules `unknown`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub collected_since: Option<Timestamp>,
    /// Whether everything that was read was fresh enough; absent from versions before it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub is_fresh: Option<bool>,
    /// The policy's content.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content: Option<ContentHash>,
    /// The verdict of every rule of the profile in the benchmark's order, a letter each ([`Verdict::letter`]): what an
    /// evaluation of what has changed starts from.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub verdicts: String,
    /// Whether only what reads changed objects, or what another version of the policy has changed, was decided, and the rest taken over.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_partial: bool,
    /// What was known of the endpoint then: where it is the same later, what was decided may be taken over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub knowledge: Option<Knowledge>,
}
