//! `fleet-results`: verdicts on many endpoints in one message. Endpoints of a fleet are alike: what is decided in the same words
//! is there once.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::content::ContentHash;
use crate::fault::{Fault, FaultCode};
use crate::id::{EndpointId, RequestId};
use crate::limits::FLEET_ENDPOINTS_MAX;
use crate::message::{About, EvaluationResults, Evidence};
use crate::plan::ObjectKey;
use crate::verdict::{EvaluationSummary, RuleResult};

/// All verdicts on each of these endpoints; at most [`FLEET_ENDPOINTS_MAX`](crate::limits::FLEET_ENDPOINTS_MAX).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct FleetResults {
    /// The request that this answers.
    pub request: RequestId,
    /// SHA-256 of the envelope of the `evaluation-request`.
    pub task: ContentHash,
    /// What was decided; endpoints refer to it by position.
    pub results: Vec<RuleResult>,
    /// Objects; evidence refers to them by position.
    pub objects: Vec<ObjectKey>,
    /// Each once.
    pub endpoints: Vec<EndpointResults>,
}

/// The verdicts on one of them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct EndpointResults {
    /// Positions of the verdicts, in the order of the rules.
    pub results: Vec<u32>,
    /// The reports that the observations came with on which they rest.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub evidence: Vec<FleetEvidence>,
    /// Which endpoint it is, by which policy, when, and what it came to.
    pub summary: EvaluationSummary,
}

/// Observations that verdicts rest on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct FleetEvidence {
    /// SHA-256 of the envelope of the `collection-results` that brought them.
    pub report: ContentHash,
    /// Of which objects, by position.
    pub objects: Vec<u32>,
}

impl EndpointResults {
    /// What the verdicts are about.
    pub fn about(&self) -> About {
        let EvaluationSummary { policy, profile, evaluated, content, as_of, is_partial, .. } = &self.summary;
        About {
            policy: policy.clone(),
            profile: profile.clone(),
            evaluated: *evaluated,
            content: content.clone(),
            part_count: 1,
            is_current: as_of.is_none(),
            is_partial: *is_partial,
        }
    }
}

impl FleetResults {
    /// A fault where a position points nowhere, an endpoint is there twice, or too many are, or an endpoint refers to something
    /// twice: a short message would come to more than anybody holds.
    pub fn check(&self) -> Result<(), Fault> {
        if self.endpoints.len() > FLEET_ENDPOINTS_MAX {
            let text = format!("verdicts on at most {FLEET_ENDPOINTS_MAX} endpoints come in one message");
            return Err(Fault::new(FaultCode::TooLarge, text));
        }
        let malformed = |text: &str| Err(Fault::new(FaultCode::Malformed, text));
        let mut seen = std::collections::BTreeSet::new();
        // Which endpoint referred to it last.
        let [mut of_results, mut of_objects] = [self.results.len(), self.objects.len()].map(|count| vec![None; count]);
        let is_new = |of: &mut [Option<EndpointId>], at: u32, endpoint| {
            of.get_mut(at as usize).map(|last| last.replace(endpoint) != Some(endpoint))
        };
        for EndpointResults { results, evidence, summary } in &self.endpoints {
            if !seen.insert(summary.endpoint) {
                return malformed("an endpoint is there twice");
            }
            let results = results.iter().map(|at| is_new(&mut of_results, *at, summary.endpoint));
            let objects = evidence.iter().flat_map(|evidence| &evidence.objects);
            let objects = objects.map(|at| is_new(&mut of_objects, *at, summary.endpoint));
            for is_new in results.chain(objects) {
                match is_new {
                    Some(true) => {}
                    Some(false) => return malformed("an endpoint refers to something twice"),
                    None => return malformed("a position points nowhere"),
                }
            }
        }
        Ok(())
    }

    /// The verdicts on each of its endpoints, as if they had come alone.
    pub fn all(&self) -> impl Iterator<Item = EvaluationResults> {
        self.endpoints.iter().map(|one| self.of(one))
    }

    /// The verdicts on one of its endpoints, as if they had come alone. What points nowhere is left out.
    pub fn of(&self, one: &EndpointResults) -> EvaluationResults {
        let results: Vec<RuleResult> =
            one.results.iter().filter_map(|at| self.results.get(*at as usize).cloned()).collect();
        let object = |at: &u32| self.objects.get(*at as usize).cloned();
        let evidence = one.evidence.iter().map(|FleetEvidence { report, objects }| Evidence {
            report: report.clone(),
            objects: objects.iter().filter_map(object).collect(),
        });
        EvaluationResults {
            request: self.request,
            task: Some(self.task.clone()),
            endpoint: one.summary.endpoint,
            about: Some(one.about()),
            part: 0,
            rule_count: u32::try_from(results.len()).unwrap_or(u32::MAX),
            results,
            evidence: evidence.collect(),
            summary: Some(one.summary.clone()),
        }
    }
}
