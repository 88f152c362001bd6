//! `policy-publication`, `policies-request` and its response (proposal P-22).

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::content::{ContentHash, ContentRef};

/// A policy: the repositories fetch its content and keep it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct PolicyPublication {
    /// The policy.
    pub policy: PolicyDescription,
}

/// What is known of a policy without reading it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct PolicyDescription {
    /// What operators call it; several versions may have the name, of which one is in force.
    pub name: String,
    /// The benchmark's id.
    pub benchmark: String,
    /// The benchmark's title.
    pub title: String,
    /// The benchmark's version.
    pub version: String,
    /// The compiled policy.
    pub content: ContentRef,
    /// SHA-256 of the data stream as imported, uncompressed.
    pub source_sha256: ContentHash,
    /// How many rules it has.
    pub rule_count: u64,
    /// Its profiles.
    pub profiles: Vec<ProfileDescription>,
    /// When it was imported.
    pub imported: Timestamp,
    /// Which of its name it is, from 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub number: Option<u64>,
    /// The CPE names of where the benchmark applies; none: everywhere.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub platforms: Vec<String>,
    /// It is kept, and not in force until an operator activates it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_waiting: bool,
    /// When it came into force, if that was later than its import.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub activated: Option<Timestamp>,
    /// The version that it took the place of, by the hash of its content.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub supersedes: Option<ContentHash>,
    /// Whose signature it came with, by the name that operators gave the key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signed_by: Option<String>,
    /// What it was tailored from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub derived_from: Option<PolicyOrigin>,
}

/// What a policy was derived from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct PolicyOrigin {
    /// The policy, by its name.
    pub name: String,
    /// Which version of it.
    pub number: u64,
    /// Its content.
    pub content: ContentHash,
    /// The tailoring (XCCDF 1.2, `Tailoring`), as it was given.
    pub tailoring: ContentRef,
}

impl PolicyDescription {
    /// When it came into force, if it is.
    pub fn in_force_since(&self) -> Option<Timestamp> {
        (!self.is_waiting).then(|| self.activated.unwrap_or(self.imported))
    }
}

/// A profile of a policy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct ProfileDescription {
    /// Its id.
    pub id: String,
    /// Its title.
    pub title: String,
    /// How many rules it selects.
    pub selected_count: u64,
}

/// Which policies are there.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct PoliciesRequest {}

/// These.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct PoliciesResponse {
    /// Of each name the one that is in force, by name.
    pub policies: Vec<PolicyDescription>,
}
