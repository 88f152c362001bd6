//! `policy-publication`, `policies-request` and its response (proposal P-22).

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::content::ContentRef;

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
    /// What operators call it; a later import of the same name supersedes it.
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
    pub source_sha256: crate::content::ContentHash,
    /// How many rules it has.
    pub rule_count: u64,
    /// Its profiles.
    pub profiles: Vec<ProfileDescription>,
    /// When it was imported.
    pub imported: Timestamp,
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
    /// The newest of each name, by name.
    pub policies: Vec<PolicyDescription>,
}
