//! `capability-advertisement` and its response: the handshake (draft-ietf-sacm-arch-13 §6.2.1). The
//! endpoint list is that of draft -06, which draft -13 §5.1 still demands.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::capability::CapabilityUrn;
use crate::fault::Fault;
use crate::id::{ComponentId, EndpointId};
use crate::identity::IdentityEvidence;
use crate::observation::EndpointFacts;
use crate::residency::Residency;

/// What the component can do, and for which endpoints.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct CapabilityAdvertisement {
    /// Every capability, each answered by itself.
    pub capabilities: Vec<CapabilityUrn>,
    /// The endpoints that a collector speaks for; empty for the others.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub endpoints: Vec<AdvertisedEndpoint>,
    /// The component's software version.
    pub software_version: String,
    /// Which process of the component says it: made by chance at every start. Two that take turns use one key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instance: Option<Uuid>,
    /// SHA-256 of the CA certificates that it trusts, DER; a component that does not say is not waited for when the CA is
    /// rotated.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub trusted_cas: Vec<String>,
    /// The database that a repository keeps everything in, where others may use it too: those that say the same stand in for
    /// each other.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub store: Option<Uuid>,
}

/// An endpoint that a collector speaks for.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct AdvertisedEndpoint {
    /// The collector's own name for it, such as `self`.
    pub local_name: String,
    /// What describes it.
    pub facts: EndpointFacts,
    /// What tells it from others.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub evidence: Vec<IdentityEvidence>,
    /// What its TPM says, where the collector was told to ask it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub residency: Option<Residency>,
    /// Kinds of items that can be collected there, such as `unix:file`; a collector that does not say has all that there are.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub kinds: Vec<String>,
    /// Kinds that the collector knows and cannot collect there.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub lacks: Vec<LackedKind>,
}

/// A kind of items that cannot be collected.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct LackedKind {
    /// Which.
    pub kind: String,
    /// Why, for people.
    pub reason: String,
}

/// The orchestrator's answer. Zero successes leave the component registered but not active.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct CapabilityAdvertisementResponse {
    /// One answer a capability, in the order asked.
    #[serde(default)]
    pub capabilities: Vec<CapabilityAnswer>,
    /// Labels for the advertised endpoints.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub endpoints: Vec<AssignedEndpoint>,
    /// Repositories that are there, so that services know whom to ask.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub repositories: Vec<ComponentId>,
    /// All CAs that are to be trusted from now on (PEM), where they are others than the component has said.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ca_certificates: Vec<String>,
    /// What the TPMs of the endpoints are to sign ([`crate::residency`]). Nothing else is in an answer that has it: the
    /// component advertises again, with the proofs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub challenge: Option<Uuid>,
}

impl CapabilityAdvertisementResponse {
    /// Nothing is granted until this is answered.
    pub fn challenging(challenge: Uuid) -> Self {
        Self { challenge: Some(challenge), ..Self::default() }
    }
}

/// Success or failure of one capability.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct CapabilityAnswer {
    /// Which.
    pub capability_urn: CapabilityUrn,
    /// Whether it is registered.
    pub registration_status: RegistrationStatus,
    /// Topics to subscribe to for it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub capability_topics: Vec<String>,
    /// Why not.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub messages: Vec<Fault>,
}

/// `registration-status`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum RegistrationStatus {
    /// Registered.
    Success,
    /// Not registered; `messages` says why.
    Failure,
}

/// The label of an advertised endpoint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct AssignedEndpoint {
    /// The collector's own name for it.
    pub local_name: String,
    /// Its label from now on.
    pub endpoint: EndpointId,
}
