//! Which endpoints are meant.

use std::collections::HashSet;

use proto::capability::{Capability, ComponentType};
use proto::fault::{Fault, FaultCode};
use proto::id::{ComponentId, EndpointId};
use proto::limits::shown;
use proto::operator::{ComponentState, EndpointEntry};

use super::Plan;
use crate::core::Core;
use crate::core::label::Labels;
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
    /// Those of which it is not known whether they are meant: nothing is done there.
    pub undecided: Vec<EndpointId>,
    /// Whether it is there.
    pub is_there: bool,
}

/// Words that mean endpoints: a label, a name or the id of one, the id or name of its collector, or a label of that.
struct Words<'words> {
    names: HashSet<&'words str>,
    /// A bit for each length that a name has: most of what others are called has another, and need not be looked up.
    lengths: u64,
    endpoints: HashSet<EndpointId>,
    components: HashSet<ComponentId>,
    /// Those that operators have given a meaning.
    labels: Vec<&'words str>,
}

impl<'words> Words<'words> {
    fn of(words: &'words [String], labels: &Labels<'_>) -> Self {
        let names: HashSet<&str> = words.iter().map(String::as_str).collect();
        let (endpoints, components) =
            words.iter().map(|word| (word.parse().ok(), word.parse().ok())).unzip::<_, _, Vec<_>, Vec<_>>();
        Self {
            labels: names.iter().copied().filter(|name| labels.has(name)).collect(),
            lengths: names.iter().fold(0, |lengths, name| lengths | length_bit(name)),
            names,
            endpoints: endpoints.into_iter().flatten().collect(),
            components: components.into_iter().flatten().collect(),
        }
    }

    /// Whether one of them means the endpoint, none where that is not known; those that do are taken off what is unknown.
    fn mean(
        &self,
        labels: &Labels<'_>,
        component: &Component,
        entry: &EndpointEntry,
        unknown: &mut HashSet<String>,
    ) -> Option<bool> {
        if self.names.is_empty() {
            return Some(false);
        }
        let mut is_meant = false;
        let is_named = |name: &&str| self.lengths & length_bit(name) != 0 && self.names.contains(name);
        for name in called(component, entry).filter(is_named) {
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
        if is_meant {
            return Some(true);
        }
        let is_called = |word: &str| {
            called(component, entry).any(|name| name == word)
                || word.parse() == Ok(entry.endpoint)
                || word.parse() == Ok(component.id)
        };
        let mut outcome = Some(false);
        for label in &self.labels {
            match labels.mean(label, component, entry, &is_called) {
                Some(true) => return Some(true),
                None => outcome = None,
                Some(false) => {}
            }
        }
        outcome
    }
}

fn length_bit(name: &str) -> u64 {
    1 << (name.len() % 64)
}

/// The names of an endpoint, of its collector, and the labels of that.
fn called<'of>(component: &'of Component, entry: &'of EndpointEntry) -> impl Iterator<Item = &'of str> {
    let labels = component.labels.iter().map(String::as_str);
    labels.chain([entry.facts.host_name.as_str(), component.name.as_str()])
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
        unknown.retain(|word| !self.labels.contains_key(word));
        let labels = Labels::of(&self.labels);
        let (meant, left_out) = (Words::of(targets, &labels), Words::of(excluded, &labels));
        let mut found = Vec::new();
        for component in self.components.values() {
            if !component.is_member() || component.component_type != ComponentType::PostureCollectionService {
                continue;
            }
            let mut of_component = Targets {
                component: component.id,
                endpoints: Vec::new(),
                excluded: Vec::new(),
                undecided: Vec::new(),
                is_there: component.state != ComponentState::Unavailable,
            };
            for (_, entry) in &component.endpoints {
                let is_left_out = left_out.mean(&labels, component, entry, &mut unknown);
                let is_meant =
                    if targets.is_empty() { Some(true) } else { meant.mean(&labels, component, entry, &mut unknown) };
                let place = match (is_meant, is_left_out) {
                    (Some(false), _) => continue,
                    (Some(true), Some(true)) => &mut of_component.excluded,
                    (Some(true), Some(false)) => &mut of_component.endpoints,
                    (None, Some(true)) => continue,
                    (None, _) | (_, None) => &mut of_component.undecided,
                };
                place.push(entry.endpoint);
            }
            let Targets { endpoints, excluded, undecided, .. } = &of_component;
            if !(endpoints.is_empty() && excluded.is_empty() && undecided.is_empty()) {
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
        let undecided: usize = found.iter().map(|targets| targets.undecided.len()).sum();
        let text = match (found.is_empty(), undecided) {
            (_, 1..) => format!("of {undecided} endpoints it is not known whether they are meant: `muster label list`"),
            (true, _) => "no endpoint is meant".to_owned(),
            (false, _) => "every endpoint was left out".to_owned(),
        };
        return Err(Fault::new(FaultCode::TargetUnknown, text));
    }
    Ok(found)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use jiff::Timestamp;
    use proto::message::{AdvertisedEndpoint, CapabilityAdvertisement};

    use super::*;
    use crate::core::RandomIds;
    use crate::core::admission::Joining;

    const PCS: ComponentType = ComponentType::PostureCollectionService;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_700_000_000 + second).unwrap()
    }

    fn advertise(core: &mut Core, id: ComponentId, endpoints: &[&str]) -> Vec<EndpointId> {
        let endpoint =
            |name: &&str| AdvertisedEndpoint { local_name: (*name).to_owned(), ..AdvertisedEndpoint::default() };
        let advertisement = CapabilityAdvertisement {
            capabilities: Capability::all_of(PCS),
            endpoints: endpoints.iter().map(endpoint).collect(),
            ..CapabilityAdvertisement::default()
        };
        let told = core.advertise(id, &advertisement, at(0)).unwrap().0.unwrap();
        told.endpoints.iter().map(|endpoint| endpoint.endpoint).collect()
    }

    fn join(core: &mut Core, name: &str, key: u8) -> ComponentId {
        let labels = &["all".to_owned()];
        let joining =
            Joining { component_type: PCS, name, public_key: [key; 32], token: "t", labels, needs_approval: false };
        core.join(joining, at(0)).0.unwrap()
    }

    fn words(words: &[&str]) -> Vec<String> {
        words.iter().map(|word| (*word).to_owned()).collect()
    }

    #[test]
    fn words_mean_what_is_called_so_and_not_what_is_as_long() {
        let mut core = Core::new(Box::new(RandomIds), Vec::new(), Vec::new(), at(0));
        let [one, two] = [("one", 1), ("two", 2)].map(|(name, key)| join(&mut core, name, key));
        let (of_one, of_two) = (advertise(&mut core, one, &["a", "b"]), advertise(&mut core, two, &["a"]));
        let found = |targets: &[&str], excluded: &[&str]| {
            let found = core.targets(&words(targets), &words(excluded))?;
            Ok::<Vec<EndpointId>, Fault>(found.into_iter().flat_map(|targets| targets.endpoints).collect())
        };
        let all = [of_one.clone(), of_two.clone()].concat();
        let sorted = |mut endpoints: Vec<EndpointId>| {
            endpoints.sort_unstable();
            endpoints
        };
        assert_eq!(sorted(found(&[], &[]).unwrap()), sorted(all.clone()));
        assert_eq!(sorted(found(&["all"], &[]).unwrap()), sorted(all));
        assert_eq!(
            (found(&["one"], &[]).unwrap(), found(&["all"], &["one"]).unwrap()),
            (of_one.clone(), of_two.clone())
        );
        let by_id = [of_one[1].to_string(), two.to_string()];
        assert_eq!(sorted(found(&[&by_id[0], &by_id[1]], &[]).unwrap()), sorted(vec![of_one[1], of_two[0]]));
        // As long as names are, or as long by the rest of 64.
        for unknown in ["six", &"x".repeat(67)] {
            assert_eq!(found(&["one", unknown], &[]).unwrap_err().code, FaultCode::TargetUnknown);
            assert_eq!(found(&["one"], &[unknown]).unwrap_err().code, FaultCode::TargetUnknown);
        }
    }
}
