//! Which endpoints are meant.

use std::collections::HashSet;

use proto::capability::{Capability, ComponentType};
use proto::fault::{Fault, FaultCode};
use proto::id::{ComponentId, EndpointId};
use proto::limits::shown;
use proto::operator::{ComponentState, EndpointEntry};

use super::Plan;
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

/// Words that mean endpoints: a label or name of one, the id or name of its collector, or a label of that.
struct Words<'words> {
    names: HashSet<&'words str>,
    endpoints: HashSet<EndpointId>,
    components: HashSet<ComponentId>,
}

impl<'words> Words<'words> {
    fn of(words: &'words [String]) -> Self {
        let names = words.iter().map(String::as_str).collect();
        let (endpoints, components) =
            words.iter().map(|word| (word.parse().ok(), word.parse().ok())).unzip::<_, _, Vec<_>, Vec<_>>();
        Self {
            names,
            endpoints: endpoints.into_iter().flatten().collect(),
            components: components.into_iter().flatten().collect(),
        }
    }

    /// Whether one of them means the endpoint; those that do are taken off what is unknown.
    fn mean(&self, component: &Component, entry: &EndpointEntry, unknown: &mut HashSet<String>) -> bool {
        let labels = component.labels.iter().map(String::as_str);
        let called = labels.chain([entry.facts.host_name.as_str(), component.name.as_str()]);
        let mut is_meant = false;
        for name in called.filter(|name| self.names.contains(name)) {
            unknown.remove(name);
            is_meant = true;
        }
        if self.endpoints.contains(&entry.endpoint) {
            unknown.remove(&entry.endpoint.to_string());
            is_meant = true;
        }
        if self.components.contains(&component.id) {
            unknown.remove(&component.id.to_string());
            is_meant = true;
        }
        is_meant
    }
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

    /// Collectors with the endpoints that a workflow is about.
    pub fn targets_of(&self, plan: &Plan) -> Result<Vec<Targets>, Fault> {
        let (found, unknown) = self.targets_and_unknown(&plan.targets, &plan.excluded);
        if plan.is_assigned { something(found) } else { known(found, unknown) }
    }

    /// The same of words. A word that means nothing is a fault, so that a slip does not go for an empty answer.
    pub fn targets(&self, targets: &[String], excluded: &[String]) -> Result<Vec<Targets>, Fault> {
        let (found, unknown) = self.targets_and_unknown(targets, excluded);
        known(found, unknown)
    }

    /// Collectors with the endpoints that are meant, and the words that mean nothing.
    pub(crate) fn targets_and_unknown(
        &self,
        targets: &[String],
        excluded: &[String],
    ) -> (Vec<Targets>, HashSet<String>) {
        let mut unknown: HashSet<String> = targets.iter().chain(excluded).cloned().collect();
        let (meant, left_out) = (Words::of(targets), Words::of(excluded));
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
                let is_left_out = left_out.mean(component, entry, &mut unknown);
                if !(meant.mean(component, entry, &mut unknown) || targets.is_empty()) {
                    continue;
                }
                let place = if is_left_out { &mut of_component.excluded } else { &mut of_component.endpoints };
                place.push(entry.endpoint);
            }
            if !of_component.endpoints.is_empty() || !of_component.excluded.is_empty() {
                found.push(of_component);
            }
        }
        (found, unknown)
    }
}

fn known(found: Vec<Targets>, unknown: HashSet<String>) -> Result<Vec<Targets>, Fault> {
    if let Some(word) = unknown.iter().min() {
        let text = format!("no endpoint is called `{}`; `muster roster` lists them", shown(word));
        return Err(Fault::new(FaultCode::TargetUnknown, text));
    }
    something(found)
}

fn something(found: Vec<Targets>) -> Result<Vec<Targets>, Fault> {
    if found.iter().all(|targets| targets.endpoints.is_empty()) {
        let text = if found.is_empty() { "no collector has joined yet" } else { "every endpoint was left out" };
        return Err(Fault::new(FaultCode::TargetUnknown, text));
    }
    Ok(found)
}
