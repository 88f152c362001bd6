//! A benchmark as a profile has it: what is selected, which values hold, what is refined.

use std::collections::BTreeMap;

use proto::verdict::Severity;

use crate::limits::REFERENCE_DEPTH_MAX;
use crate::policy::{Policy, PolicyError};
use crate::xccdf::{Change, Common, Item, Role, TextPart};

/// The name of a profile that every benchmark has: everything is selected.
pub const EVERY_RULE: &str = "(all)";

/// The benchmark as a profile has it.
#[derive(Debug)]
pub struct Tailored<'policy> {
    policy: &'policy Policy,
    selected: BTreeMap<String, bool>,
    values: BTreeMap<String, Vec<String>>,
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
            selected: BTreeMap::new(),
            values: BTreeMap::new(),
            refined: BTreeMap::new(),
            is_all: profile == Some(EVERY_RULE),
        };
        let profile = profile.filter(|wanted| *wanted != EVERY_RULE);
        let mut chain = Vec::new();
        let mut next = profile.map(|wanted| policy.profile(wanted)).transpose()?;
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
                self.selected.insert(item.clone(), *selected);
            }
            Change::SetValue { value, to } => {
                self.values.insert(value.clone(), to.clone());
            }
            Change::RefineValue { value, selector } => {
                let chosen = self.policy.benchmark.values.get(value).and_then(|value| value.by_selector.get(selector));
                if let Some(chosen) = chosen {
                    self.values.insert(value.clone(), chosen.clone());
                }
            }
            Change::RefineRule { rule, selector, severity, weight, role } => {
                let refined = self.refined.entry(rule.clone()).or_default();
                refined.selector = selector.clone().or(refined.selector.take());
                refined.severity = severity.or(refined.severity);
                refined.weight = weight.or(refined.weight);
                refined.role = role.or(refined.role);
            }
        }
    }

    pub(crate) fn is_selected(&self, common: &Common) -> bool {
        if self.is_all {
            return true;
        }
        let by_cluster = common.cluster.as_ref().and_then(|cluster| self.selected.get(cluster));
        self.selected.get(&common.id).or(by_cluster).copied().unwrap_or(common.selected)
    }

    pub(crate) fn value(&self, id: &str) -> Option<Vec<String>> {
        self.values.get(id).cloned().or_else(|| {
            let value = self.policy.benchmark.values.get(id)?;
            value.by_selector.get("").cloned().or_else(|| value.first.clone())
        })
    }

    /// Every value as the profile has it.
    pub(crate) fn values(&self) -> BTreeMap<String, Vec<String>> {
        self.policy.benchmark.values.keys().filter_map(|id| Some((id.clone(), self.value(id)?))).collect()
    }

    /// The same with values that a result says were used.
    #[must_use]
    pub fn with_values(mut self, values: &BTreeMap<String, Vec<String>>) -> Self {
        self.values.extend(values.clone());
        self
    }

    /// What stands in place of a `sub`: a value as the profile has it, or a plain text of the benchmark.
    pub(crate) fn substitute(&self, id: &str) -> String {
        match self.value(id) {
            Some(values) => values.join(", "),
            None => self.policy.benchmark.plain_texts.get(id).cloned().unwrap_or_default(),
        }
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
        fn find<'items>(items: &'items [Item], id: &str) -> Option<&'items Common> {
            items.iter().find_map(|item| match item {
                Item::Rule(rule) => (rule.common.id == id).then_some(&rule.common),
                Item::Group(group) if group.common.id == id => Some(&group.common),
                Item::Group(group) => find(&group.items, id),
            })
        }
        find(&self.policy.benchmark.items, id).is_some_and(|common| self.is_selected(common))
    }
}
