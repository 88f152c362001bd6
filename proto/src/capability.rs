//! What a component can do, as URNs (draft-ietf-sacm-arch-13 §9), and what type it is.

use std::fmt;
use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The types of draft -13 §6.1; the short names of earlier drafts are accepted as input.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
pub enum ComponentType {
    /// Registers components, shakes hands, starts every workflow.
    #[serde(rename = "orchestrator")]
    Orchestrator,
    /// PCS: collects posture attributes.
    #[serde(rename = "posture-collection-service", alias = "pcs", alias = "collector")]
    PostureCollectionService,
    /// PES: compares attributes with policy.
    #[serde(rename = "posture-evaluation-service", alias = "pes", alias = "evaluator")]
    PostureEvaluationService,
    /// Keeps attributes, policies and results.
    #[serde(rename = "repository-interface", alias = "repository")]
    RepositoryInterface,
}

impl ComponentType {
    /// Every type.
    pub const ALL: [Self; 4] =
        [Self::Orchestrator, Self::PostureCollectionService, Self::PostureEvaluationService, Self::RepositoryInterface];

    /// The canonical name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Orchestrator => "orchestrator",
            Self::PostureCollectionService => "posture-collection-service",
            Self::PostureEvaluationService => "posture-evaluation-service",
            Self::RepositoryInterface => "repository-interface",
        }
    }
}

impl fmt::Display for ComponentType {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(self.as_str())
    }
}

impl FromStr for ComponentType {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "orchestrator" => Ok(Self::Orchestrator),
            "posture-collection-service" | "pcs" | "collector" => Ok(Self::PostureCollectionService),
            "posture-evaluation-service" | "pes" | "evaluator" => Ok(Self::PostureEvaluationService),
            "repository-interface" | "repository" => Ok(Self::RepositoryInterface),
            other => Err(format!("`{other}` is not a component type: use pcs, pes, repository or orchestrator")),
        }
    }
}

/// One capability URN. Unknown URNs are carried, not refused: the handshake answers `failure` for
/// each of them by itself.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct CapabilityUrn(pub String);

impl fmt::Display for CapabilityUrn {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

macro_rules! capabilities {
    ($($(#[doc = $doc:literal])+ $name:ident = $urn:literal for $($role:ident)|+;)*) => {
        /// The capabilities that this version knows.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Capability { $($(#[doc = $doc])+ $name,)* }

        impl Capability {
            /// Every capability, in the order of the documentation.
            pub const ALL: &[Self] = &[$(Self::$name),*];

            /// The URN as it is advertised.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$name => $urn,)* }
            }

            /// The capability's documentation, for `docs/wire.md`.
            pub fn doc(self) -> &'static str {
                match self { $(Self::$name => concat!($($doc),+),)* }
            }

            /// The component types that may hold it.
            pub fn holders(self) -> &'static [ComponentType] {
                match self { $(Self::$name => &[$(ComponentType::$role),+],)* }
            }
        }
    };
}

// The first four are draft -13 §9.2 verbatim. IANA never made a `sacm` branch, so ours are `tag:`
// URIs (RFC 4151) that the project owns.
capabilities! {
    /// Answers health checks.
    HealthCheck = "urn:ietf:sacm:capability:action:health-check"
        for Orchestrator | PostureCollectionService | PostureEvaluationService | RepositoryInterface;
    /// Sends heartbeats.
    Heartbeat = "urn:ietf:sacm:capability:action:heartbeat"
        for PostureCollectionService | PostureEvaluationService | RepositoryInterface;
    /// Publishes status notifications.
    PublishStatus = "urn:ietf:sacm:capability:publish:status-notification"
        for Orchestrator | PostureCollectionService | PostureEvaluationService | RepositoryInterface;
    /// Receives status notifications.
    SubscribeStatus = "urn:ietf:sacm:capability:subscribe:status-notification" for Orchestrator;
    /// Collects the objects of a collection plan, asked directly.
    CollectOval = "tag:muster.dev,2026:cap:action:collect:oval" for PostureCollectionService;
    /// Follows broadcast collection requests.
    CollectOvalBroadcast = "tag:muster.dev,2026:cap:subscribe:collection-request:oval" for PostureCollectionService;
    /// Collects by schedules of its own.
    CollectPeriodic = "tag:muster.dev,2026:cap:action:collect-periodic:oval" for PostureCollectionService;
    /// Watches what a plan reads, and reports what changes.
    CollectEventBased = "tag:muster.dev,2026:cap:action:collect-event-based:oval" for PostureCollectionService;
    /// Publishes collection results.
    PublishCollectionResults = "tag:muster.dev,2026:cap:publish:collection-results" for PostureCollectionService;
    /// Stores collection results.
    StoreCollectionResults = "tag:muster.dev,2026:cap:subscribe:collection-results" for RepositoryInterface;
    /// Stores evaluation results.
    StoreEvaluationResults = "tag:muster.dev,2026:cap:subscribe:evaluation-results" for RepositoryInterface;
    /// Stores policies.
    StorePolicy = "tag:muster.dev,2026:cap:subscribe:policy" for RepositoryInterface;
    /// Answers queries for posture attributes.
    QueryPosture = "tag:muster.dev,2026:cap:action:query:posture-attribute" for RepositoryInterface;
    /// Publishes what changed.
    PublishChange = "tag:muster.dev,2026:cap:publish:attribute-change" for RepositoryInterface;
    /// Evaluates XCCDF policies.
    EvaluateXccdf = "tag:muster.dev,2026:cap:action:evaluate:xccdf" for PostureEvaluationService;
    /// Publishes evaluation results.
    PublishEvaluationResults = "tag:muster.dev,2026:cap:publish:evaluation-results" for PostureEvaluationService;
}

impl Capability {
    /// The capability that a URN names, if this version knows it.
    pub fn from_urn(urn: &CapabilityUrn) -> Option<Self> {
        Self::ALL.iter().copied().find(|capability| capability.as_str() == urn.0)
    }

    /// The URN as it is advertised.
    pub fn urn(self) -> CapabilityUrn {
        CapabilityUrn(self.as_str().to_owned())
    }

    /// What a component of this type advertises when it has everything that this version builds.
    pub fn all_of(component_type: ComponentType) -> Vec<CapabilityUrn> {
        Self::ALL
            .iter()
            .filter(|capability| capability.holders().contains(&component_type))
            .map(|capability| capability.urn())
            .collect()
    }
}
