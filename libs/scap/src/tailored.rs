//! A benchmark as a profile has it: what is selected, which values hold, what is refined.

use std::collections::BTreeMap;

use proto::verdict::Severity;

use crate::limits::REFERENCE_DEPTH_MAX;
use crate::policy::{Policy, PolicyError};
use crate::xccdf::{Change, Common, Item, Role, TextPart};

/// The name of a profile that every benchmark has: everything is selected.
pub const EVERY_RULE: &str = "(all)";

/// What stands for a profile where none was asked for: the benchmark selects by itself.
pub const DEFAULT_PROFILE: &str = "(default)";

/// The benchmark as a profile has it.
#[derive(Debug)]
pub struct Tailored<'policy> {
    policy: &'policy Policy,
    /// Groups and rules, by id.
    items: BTreeMap<&'policy str, &'policy Common>,
    /// By id or cluster: which `select` it was, and what it said. The last one counts.
    selected: BTreeMap<String, (usize, bool)>,
    selects: usize,
    /// What `set-value` says; it counts more than a selector.
    set: BTreeMap<String, Vec<String>>,
    /// By `refine-value`.
    selectors: BTreeMap<String, String>,
    refined: BTreeMap<String, Refined>,
    is_all: bool,
}

#[derive(Debug, Clone, Default)]
pub(crate) struct Refined {
    pub(crate) selector: Option<String>,
    pub(crate) severity: Option<Severity>,
    pub(crate) weight: Option<f64>,
    pub(crate) role: Option<Role>,
}

impl<'policy> Tailored<'policy> {
    /// For a profile by its id or the end of it; `None`: what the benchmark says by itself.
    pub fn new(policy: &'policy Policy, profile: Option<&str>) -> Result<Self, PolicyError> {
        let mut tailored = Self {
            policy,
            items: BTreeMap::new(),
            selected: BTreeMap::new(),
            selects: 0,
            set: BTreeMap::new(),
            selectors: BTreeMap::new(),
            refined: BTreeMap::new(),
            is_all: profile == Some(EVERY_RULE),
        };
        by_id(&policy.benchmark.items, &mut tailored.items);
        let profile = profile.filter(|wanted| *wanted != EVERY_RULE);
        let mut chain = Vec::new();
        let mut next = profile.map(|wanted| policy.profile(wanted)).transpose()?;
        if let Some(profile) = next.filter(|profile| profile.is_abstract) {
            let known = format!("`{}`, which is abstract: only other profiles use it", profile.id);
            return Err(PolicyError::NoSuchProfile { wanted: profile.id.clone(), known });
        }
        while let Some(profile) = next {
            if chain.len() >= REFERENCE_DEPTH_MAX {
                return Err(PolicyError::Damaged(format!("the profile `{}` extends itself", profile.id)));
            }
            chain.push(profile);
            next = profile.extends.as_deref().map(|extended| policy.profile(extended)).transpose()?;
        }
        for profile in chain.iter().rev() {
            for change in &profile.changes {
                tailored.apply(change);
            }
        }
        Ok(tailored)
    }

    fn apply(&mut self, change: &Change) {
        match change {
            Change::Select { item, selected } => {
                self.selects += 1;
                self.selected.insert(item.clone(), (self.selects, *selected));
            }
            Change::SetValue { value, to } => {
                self.set.insert(value.clone(), to.clone());
            }
            Change::RefineValue { value, selector } => {
                self.selectors.insert(value.clone(), selector.clone());
            }
            Change::RefineRule { rule, selector, severity, weight, role } => {
                // One of an extending profile stands for the whole of the extended one's.
                let refined = Refined { selector: selector.clone(), severity: *severity, weight: *weight, role: *role };
                self.refined.insert(rule.clone(), refined);
            }
        }
    }

    pub(crate) fn is_selected(&self, common: &Common) -> bool {
        if self.is_all {
            return true;
        }
        let by_cluster = common.cluster.as_ref().and_then(|cluster| self.selected.get(cluster));
        let last = self.selected.get(&common.id).max(by_cluster);
        last.map_or(common.selected, |(_, selected)| *selected)
    }

    /// A value; none where there is no such value, or it has nothing for the selector that was asked for.
    pub(crate) fn value(&self, id: &str) -> Option<Vec<String>> {
        self.set.get(id).cloned().or_else(|| {
            let value = self.policy.benchmark.values.get(id)?;
            match self.selectors.get(id) {
                Some(selector) => value.by_selector.get(selector).cloned(),
                None => value.by_selector.get("").cloned().or_else(|| value.first.clone()),
            }
        })
    }

    /// Every value as the profile has it.
    pub(crate) fn values(&self) -> BTreeMap<String, Vec<String>> {
        self.policy.benchmark.values.keys().filter_map(|id| Some((id.clone(), self.value(id)?))).collect()
    }

    /// The same with values that a result says were used.
    #[must_use]
    pub fn with_values(mut self, values: &BTreeMap<String, Vec<String>>) -> Self {
        self.set.extend(values.clone());
        self
    }

    /// What stands in place of a `sub`: a value as the profile has it, or a plain text of the benchmark.
    pub(crate) fn substitute(&self, id: &str) -> String {
        match self.value(id) {
            Some(values) => values.join(", "),
            None => self.policy.benchmark.plain_texts.get(id).cloned().unwrap_or_default(),
        }
    }

    /// A title as it is written, values filled in.
    pub fn title(&self, common: &Common) -> String {
        if common.title_parts.is_empty() { common.title.clone() } else { self.text(&common.title_parts) }
    }

    /// A text with its values, without its marks.
    pub fn text(&self, parts: &[TextPart]) -> String {
        let mut text = String::new();
        for part in parts {
            match part {
                TextPart::Text(plain) => text.push_str(plain),
                TextPart::Sub(id) => text.push_str(&self.substitute(id)),
                TextPart::Title(id) => {
                    text.push_str(self.policy.benchmark.values.get(id).map_or("", |value| value.title.as_str()));
                }
                TextPart::Open(_) | TextPart::Close(_) => {}
            }
        }
        text
    }

    pub(crate) fn refined(&self, common: &Common) -> Refined {
        let by_cluster = common.cluster.as_ref().and_then(|cluster| self.refined.get(cluster));
        self.refined.get(&common.id).or(by_cluster).cloned().unwrap_or_default()
    }

    /// Selected ids, for `requires` and `conflicts`.
    pub(crate) fn is_selected_id(&self, id: &str) -> bool {
        self.items.get(id).is_some_and(|common| self.is_selected(common))
    }
}

fn by_id<'policy>(items: &'policy [Item], into: &mut BTreeMap<&'policy str, &'policy Common>) {
    for item in items {
        let common = match item {
            Item::Rule(rule) => &rule.common,
            Item::Group(group) => {
                by_id(&group.items, into);
                &group.common
            }
        };
        into.insert(&common.id, common);
    }
}
