//! `component-registration-request` and its response (draft-ietf-sacm-arch-13 §6.1).

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::capability::ComponentType;
use crate::id::ComponentId;

/// A component asks to be registered. With `component-unique-identifier` it comes back and asks for
/// its place again (and for a fresh certificate); without, it joins, and brings a token's proof.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct ComponentRegistrationRequest {
    /// The id that was minted for it; only from the holder of that id's certificate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub component_unique_identifier: Option<ComponentId>,
    /// What it is.
    pub component_type: ComponentType,
    /// What its operator calls it.
    pub component_name: String,
    /// More, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub component_description: Option<String>,
    /// A certificate signing request for a key that the component made itself (PKCS #10, PEM). The
    /// same key asks for the same component: a lost answer can be asked for again.
    pub certificate_signing_request: String,
    /// Proof of a join token; absent when the component comes back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub join_proof: Option<JoinProof>,
}

/// Shows that the component holds a token's secret without sending it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct JoinProof {
    /// Which token.
    pub token_id: String,
    /// HMAC-SHA-256 by the token's secret over the signing request's text, base64url.
    pub mac: String,
}

/// The component is registered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct ComponentRegistrationResponse {
    /// Its id, to be kept.
    pub component_unique_identifier: ComponentId,
    /// Its certificate: CN is the id, OU the component type (PEM).
    pub certificate: String,
    /// The installation's CA (PEM).
    pub ca_certificate: String,
    /// The orchestrator that registered it: who may command it.
    pub orchestrator: ComponentId,
    /// How often to send a heartbeat.
    pub heartbeat_interval_seconds: u64,
    /// The orchestrator's clock.
    pub server_time: Timestamp,
    /// Where members connect, `host:port`, where that is not where they register: the address of a broker that is not the
    /// orchestrator's own. Each registration says it anew.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub broker: Option<String>,
}
