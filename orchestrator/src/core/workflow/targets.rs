//! Which endpoints are meant.

use proto::capability::{Capability, ComponentType};
use proto::fault::{Fault, FaultCode};
use proto::id::{ComponentId, EndpointId};
use proto::operator::{ComponentState, EndpointEntry};

use crate::core::Core;
use crate::core::roster::Component;

/// A collector with those of its endpoints that are meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Targets {
    /// Who speaks for them.
    pub component: ComponentId,
    /// They.
    pub endpoints: Vec<EndpointId>,
    /// Those that were left out.
    pub excluded: Vec<EndpointId>,
    /// Whether it is there.
    pub is_there: bool,
}

/// Whether a word means an endpoint: its label or name, its collector's name, or a label of its collector.
fn is_named(component: &Component, entry: &EndpointEntry, word: &str) -> bool {
    word == entry.facts.host_name
        || word == component.name
        || component.labels.iter().any(|label| label == word)
        || word.parse() == Ok(entry.endpoint)
}

impl Core {
    /// The endpoints that are meant, by label or name.
    pub fn endpoints_of(&self, targets: &[String]) -> Result<Vec<EndpointId>, Fault> {
        Ok(self.targets(targets, &[])?.into_iter().flat_map(|targets| targets.endpoints).collect())
    }

    /// The collectors of the endpoints that are meant, with names, and whether each is there; those that
    /// cannot do it are named in the fault.
    pub fn collectors_named(
        &self,
        targets: &[String],
        capability: Capability,
    ) -> Result<Vec<(ComponentId, String, bool)>, Fault> {
        let mut named = Vec::new();
        for Targets { component: id, is_there, .. } in self.targets(targets, &[])? {
            let Some(component) = self.components.get(&id) else { continue };
            if !component.has(capability) {
                let text = format!("the collector `{}` does not offer {}", component.name, capability.as_str());
                return Err(Fault::new(FaultCode::UnsupportedCapability, text));
            }
            named.push((id, component.name.clone(), is_there));
        }
        Ok(named)
    }

    /// Collectors with the endpoints that are meant. A word that means nothing is a fault, so that a slip does not go for
    /// an empty answer.
    pub fn targets(&self, targets: &[String], excluded: &[String]) -> Result<Vec<Targets>, Fault> {
        let mut unknown: Vec<&String> = targets.iter().chain(excluded).collect();
        let mut found = Vec::new();
        for component in self.components.values() {
            if !component.is_member() || component.component_type != ComponentType::PostureCollectionService {
                continue;
            }
            let mut of_component = Targets {
                component: component.id,
                endpoints: Vec::new(),
                excluded: Vec::new(),
                is_there: component.state != ComponentState::Unavailable,
            };
            for (_, entry) in &component.endpoints {
                let is_meant = |word: &&String| is_named(component, entry, word);
                unknown.retain(|word| !is_meant(word));
                if excluded.iter().any(|word| is_meant(&word)) {
                    if targets.is_empty() || targets.iter().any(|word| is_meant(&word)) {
                        of_component.excluded.push(entry.endpoint);
                    }
                } else if targets.is_empty() || targets.iter().any(|word| is_meant(&word)) {
                    of_component.endpoints.push(entry.endpoint);
                }
            }
            if !of_component.endpoints.is_empty() || !of_component.excluded.is_empty() {
                found.push(of_component);
            }
        }
        if let Some(word) = unknown.first() {
            let text = format!("no endpoint is called `{word}`; `muster roster` lists them");
            return Err(Fault::new(FaultCode::TargetUnknown, text));
        }
        if found.iter().all(|targets| targets.endpoints.is_empty()) {
            let text = if found.is_empty() { "no collector has joined yet" } else { "every endpoint was left out" };
            return Err(Fault::new(FaultCode::TargetUnknown, text));
        }
        Ok(found)
    }
}
