//! Labels: names for endpoints. Some mean those that are named, some those of which a question holds. Of a question nobody has
//! answered for an endpoint yet, it is not known whether it is meant: then it is left out of what is done, and counted.

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};
use oval::condition::Matcher;
use proto::capability::ComponentType;
use proto::fault::{Fault, FaultCode};
use proto::id::EndpointId;
use proto::limits::shown;
use proto::observation::{Item, ItemEntity};
use proto::operator::{EndpointEntry, LabelDefinition, LabelView};
use proto::query::{ENDPOINT_KIND, PostureQuery};
use serde::{Deserialize, Serialize};

use super::Core;
use super::roster::Component;

/// Labels that there may be.
const LABELS_MAX: usize = 1_000;
/// Labels that mean each other.
const DEPTH_MAX: usize = 8;
/// How often what a question is about is looked at, at most.
const EVERY_SECONDS_MIN: u64 = 60;
/// How long after a search the next one is made for endpoints of which nothing was known.
const AGAIN: SignedDuration = SignedDuration::from_secs(30);

/// A label as it is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Label {
    /// What was said of it.
    pub definition: LabelDefinition,
    /// When everybody was last asked for what the question is about.
    #[serde(default)]
    pub collected: Option<Timestamp>,
    /// Who was asked since then.
    #[serde(default)]
    pub asked: BTreeSet<EndpointId>,
    /// What the latest search gave.
    #[serde(default)]
    pub found: Found,
    /// Whether it is being searched for; not stored.
    #[serde(skip)]
    pub is_busy: bool,
}

/// What a search gave.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Found {
    /// When.
    pub searched: Option<Timestamp>,
    /// The endpoints on which something was found.
    pub matched: BTreeSet<EndpointId>,
    /// Those on which there is nothing, as far as somebody has looked.
    pub unmatched: BTreeSet<EndpointId>,
}

/// What has to be done for a label.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LabelWork {
    /// Have collectors look on these endpoints, and search.
    Collect(Vec<EndpointId>),
    /// Search in what has been collected.
    Search,
}

impl Label {
    /// One of which nothing is known yet.
    pub fn new(definition: LabelDefinition) -> Self {
        Self { definition, collected: None, asked: BTreeSet::new(), found: Found::default(), is_busy: false }
    }

    /// The question that collectors have to look for.
    pub fn question(&self) -> Option<&PostureQuery> {
        self.definition.query.as_ref().filter(|query| query.kind != ENDPOINT_KIND)
    }
}

impl Core {
    /// Labels of an earlier process.
    pub fn set_labels(&mut self, labels: Vec<Label>) {
        self.labels = labels.into_iter().map(|label| (label.definition.name.clone(), label)).collect();
    }

    /// Gives endpoints a name; what was said of the name before is forgotten.
    pub fn set_label(&mut self, definition: LabelDefinition) -> Result<Label, Fault> {
        let wrong = |text: String| Fault::new(FaultCode::Malformed, text);
        let name = definition.name.clone();
        if definition.members.is_empty() && definition.query.is_none() {
            return Err(wrong("a label means endpoints that are named, or those of which a question holds".to_owned()));
        }
        if definition.query.is_some() && definition.every_seconds < EVERY_SECONDS_MIN {
            return Err(wrong(format!("a question is asked every {EVERY_SECONDS_MIN} s at most")));
        }
        let is_taken = self.components.values().filter(|component| component.is_member()).any(|component| {
            component.name == name
                || component.labels.contains(&name)
                || component.endpoints.iter().any(|(_, entry)| entry.facts.host_name == name)
        });
        if is_taken {
            return Err(wrong(format!("`{}` is what an endpoint or a collector is called", shown(&name))));
        }
        if self.labels.len() >= LABELS_MAX && !self.labels.contains_key(&name) {
            return Err(wrong(format!("there are {LABELS_MAX} labels already")));
        }
        let before = self.labels.get(&name).cloned();
        let mut label = Label::new(definition);
        if let Some(before) = before.clone().filter(|before| before.definition.query == label.definition.query) {
            (label.collected, label.asked, label.found) = (before.collected, before.asked, before.found);
        }
        self.labels.insert(name.clone(), label.clone());
        if self.is_deeper(&name, 0) {
            match before {
                Some(before) => self.labels.insert(name, before),
                None => self.labels.remove(&name),
            };
            return Err(wrong(format!("labels would mean each other without an end, or more than {DEPTH_MAX} deep")));
        }
        Ok(label)
    }

    fn is_deeper(&self, name: &str, depth: usize) -> bool {
        let Some(label) = self.labels.get(name) else { return false };
        let LabelDefinition { members, excluded, .. } = &label.definition;
        depth > DEPTH_MAX || members.iter().chain(excluded).any(|word| self.is_deeper(word, depth + 1))
    }

    /// Takes a name away.
    pub fn remove_label(&mut self, name: &str) -> Result<Label, Fault> {
        let user = self.labels.values().map(|label| &label.definition).find(|other| {
            let is_named = |words: &[String]| words.iter().any(|word| word == name);
            other.name != name && (is_named(&other.members) || is_named(&other.excluded))
        });
        if let Some(user) = user {
            let text = format!("the label `{}` means it: set that otherwise first", user.name);
            return Err(Fault::new(FaultCode::Malformed, text));
        }
        self.labels.remove(name).ok_or_else(|| {
            let text = format!("no label is called `{}`; `muster label list` shows them", shown(name));
            Fault::new(FaultCode::UnknownIdentifier, text)
        })
    }

    /// What there is to do for labels, each told once until it is done.
    pub fn labels_due(&mut self, now: Timestamp) -> Vec<(String, LabelWork)> {
        if self.labels.values().all(|label| label.question().is_none()) {
            return Vec::new();
        }
        let known: Vec<EndpointId> = self.endpoints().map(|(_, entry)| entry.endpoint).collect();
        let mut due = Vec::new();
        for (name, label) in &mut self.labels {
            if label.is_busy || label.question().is_none() {
                continue;
            }
            let every = SignedDuration::from_secs(i64::try_from(label.definition.every_seconds).unwrap_or(i64::MAX));
            let is_past = |time: Option<Timestamp>, after: SignedDuration| {
                time.is_none_or(|time| now.duration_since(time) >= after || time > now)
            };
            let Found { matched, unmatched, searched } = &label.found;
            let is_unknown = |endpoint: &EndpointId| !matched.contains(endpoint) && !unmatched.contains(endpoint);
            let new: Vec<EndpointId> =
                known.iter().copied().filter(|endpoint| !label.asked.contains(endpoint)).collect();
            // Of those who have not answered something may have come in; the longer not, the less often it is looked for.
            let pause = searched.zip(label.collected).map(|(searched, collected)| searched.duration_since(collected));
            let work = if is_past(label.collected, every) && !known.is_empty() {
                label.asked = known.iter().copied().collect();
                label.collected = Some(now);
                LabelWork::Collect(Vec::new())
            } else if !new.is_empty() {
                label.asked.extend(&new);
                LabelWork::Collect(new)
            } else if is_past(*searched, AGAIN.max(pause.unwrap_or_default())) && known.iter().any(is_unknown) {
                LabelWork::Search
            } else {
                continue;
            };
            label.is_busy = true;
            due.push((name.clone(), work));
        }
        due
    }

    /// Nobody could be asked for a label after all: it is due again.
    pub fn label_not_asked(&mut self, name: &str, endpoints: &[EndpointId]) {
        let Some(label) = self.labels.get_mut(name) else { return };
        if endpoints.is_empty() {
            label.collected = None;
            label.asked.clear();
        }
        label.asked.retain(|asked| !endpoints.contains(asked));
    }

    /// The endpoints on the roster, with their collectors.
    pub(crate) fn endpoints(&self) -> impl Iterator<Item = (&Component, &EndpointEntry)> {
        let is_collector = |component: &&Component| {
            component.is_member() && component.component_type == ComponentType::PostureCollectionService
        };
        let collectors = self.components.values().filter(is_collector);
        collectors.flat_map(|component| component.endpoints.iter().map(move |(_, entry)| (component, entry)))
    }

    /// The labels with what they mean now.
    pub fn label_views(&self) -> Vec<LabelView> {
        self.labels.values().map(|label| self.label_view(label)).collect()
    }

    /// One of them.
    pub fn label_view(&self, label: &Label) -> LabelView {
        let name = [label.definition.name.clone()];
        let (found, _) = self.targets_and_unknown(&name, &[]);
        let (mut endpoints, mut undecided) = (Vec::new(), Vec::new());
        for targets in found {
            endpoints.extend(targets.endpoints);
            undecided.extend(targets.undecided);
        }
        LabelView { definition: label.definition.clone(), endpoints, undecided, searched: label.found.searched }
    }
}

/// Labels, ready to be held against endpoints.
pub(super) struct Labels<'core> {
    labels: &'core BTreeMap<String, Label>,
    matchers: BTreeMap<&'core str, Matcher>,
}

impl<'core> Labels<'core> {
    pub(super) fn of(labels: &'core BTreeMap<String, Label>) -> Self {
        let is_of_endpoints = |query: &&PostureQuery| query.kind == ENDPOINT_KIND;
        let matchers = labels.iter().filter_map(|(name, label)| {
            let query = label.definition.query.as_ref().filter(is_of_endpoints)?;
            Some((name.as_str(), Matcher::new(query.condition.as_ref()).ok()?))
        });
        Self { labels, matchers: matchers.collect() }
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.labels.contains_key(name)
    }

    /// Whether a label means an endpoint; `is_called` says whether a word is a name of it. None where nobody knows.
    pub(super) fn mean(
        &self,
        name: &str,
        component: &Component,
        entry: &EndpointEntry,
        is_called: &dyn Fn(&str) -> bool,
    ) -> Option<bool> {
        let Some(label) = self.labels.get(name) else { return Some(false) };
        let any = |words: &[String]| {
            let mut any = Some(false);
            for word in words {
                let is_meant = if is_called(word) { Some(true) } else { self.mean(word, component, entry, is_called) };
                match is_meant {
                    Some(true) => return Some(true),
                    None => any = None,
                    Some(false) => {}
                }
            }
            any
        };
        match any(&label.definition.excluded) {
            Some(false) => {}
            Some(true) => return Some(false),
            None => return None,
        }
        match any(&label.definition.members) {
            Some(true) => Some(true),
            named => match (self.answer(name, label, component, entry), named) {
                (Some(true), _) => Some(true),
                (Some(false), Some(false)) => Some(false),
                _ => None,
            },
        }
    }

    /// Whether a label's question holds of an endpoint.
    fn answer(&self, name: &str, label: &Label, component: &Component, entry: &EndpointEntry) -> Option<bool> {
        let Some(query) = &label.definition.query else { return Some(false) };
        if query.kind == ENDPOINT_KIND {
            return self.matchers.get(name)?.holds(&endpoint_item(component, entry));
        }
        let Found { matched, unmatched, .. } = &label.found;
        if matched.contains(&entry.endpoint) {
            return Some(true);
        }
        unmatched.contains(&entry.endpoint).then_some(false)
    }
}

/// An endpoint as questions about endpoints see it.
pub(crate) fn endpoint_item(component: &Component, entry: &EndpointEntry) -> Item {
    let facts = &entry.facts;
    let mut entities = vec![
        ItemEntity::text("endpoint", entry.endpoint.to_string()),
        ItemEntity::text("host_name", facts.host_name.as_str()),
        ItemEntity::text("os_name", facts.os_name.as_str()),
        ItemEntity::text("os_version", facts.os_version.as_str()),
        ItemEntity::text("architecture", facts.architecture.as_str()),
    ];
    entities.extend(facts.machine_id.as_ref().map(|id| ItemEntity::text("machine_id", id.as_str())));
    entities.push(ItemEntity::boolean("is_privileged", facts.is_privileged));
    entities.push(ItemEntity::text("component", component.id.to_string()));
    entities.push(ItemEntity::text("collector", component.name.as_str()));
    entities.push(ItemEntity::text("state", component.state.as_str()));
    entities.extend(component.software_version.as_ref().map(|is| ItemEntity::text("software_version", is.as_str())));
    entities.extend(component.labels.iter().map(|label| ItemEntity::text("label", label.as_str())));
    Item::new(ENDPOINT_KIND, entities)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;
    use crate::core::RandomIds;
    use crate::core::admission::Joining;
    use proto::capability::Capability;
    use proto::message::{AdvertisedEndpoint, CapabilityAdvertisement};

    const PCS: ComponentType = ComponentType::PostureCollectionService;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_700_000_000 + second).unwrap()
    }

    fn join(core: &mut Core, key: u8) -> EndpointId {
        let joining = Joining {
            component_type: PCS,
            name: "c",
            public_key: [key; 32],
            token: "t",
            labels: &[],
            needs_approval: false,
        };
        let id = core.join(joining, at(0)).0.unwrap();
        let advertisement = CapabilityAdvertisement {
            capabilities: Capability::all_of(PCS),
            endpoints: vec![AdvertisedEndpoint { local_name: "self".to_owned(), ..AdvertisedEndpoint::default() }],
            ..CapabilityAdvertisement::default()
        };
        core.advertise(id, &advertisement, at(0)).unwrap().0.unwrap().endpoints[0].endpoint
    }

    #[test]
    fn everybody_is_asked_at_the_labels_times_and_whoever_is_silent_makes_no_more_work() {
        let mut core = Core::new(Box::new(RandomIds), Vec::new(), Vec::new(), at(0));
        let [answers, _silent] = [join(&mut core, 1), join(&mut core, 2)];
        let definition = LabelDefinition {
            name: "l".to_owned(),
            members: Vec::new(),
            excluded: Vec::new(),
            query: Some("linux:dpkginfo where name = a".parse().unwrap()),
            every_seconds: 3_600,
            max_age_seconds: None,
        };
        core.set_label(definition).unwrap();
        let mut late = None;
        let (mut collected, mut searches) = (Vec::new(), 0);
        for second in 0..7_300 {
            if second == 100 {
                late = Some(join(&mut core, 3));
            }
            for (name, work) in core.labels_due(at(second)) {
                let label = core.labels.get_mut(&name).unwrap();
                label.is_busy = false;
                label.found =
                    Found { searched: Some(at(second)), matched: [answers].into(), unmatched: BTreeSet::new() };
                match work {
                    LabelWork::Collect(of) => collected.push((second, of)),
                    LabelWork::Search => searches += 1,
                }
            }
        }
        // What could not be asked is due again.
        assert_eq!(core.labels_due(at(7_300)), []);
        core.label_not_asked("l", &[answers]);
        let again = core.labels_due(at(7_300));
        assert_eq!(again, [("l".to_owned(), LabelWork::Collect(vec![answers]))]);
        core.labels.get_mut("l").unwrap().is_busy = false;
        core.label_not_asked("l", &[]);
        assert_eq!(core.labels_due(at(7_300)), [("l".to_owned(), LabelWork::Collect(Vec::new()))]);
        let all = Vec::new;
        assert_eq!(collected, [(0, all()), (100, vec![late.unwrap()]), (3_600, all()), (7_200, all())]);
        assert!((6..40).contains(&searches), "{searches}");
    }
}
