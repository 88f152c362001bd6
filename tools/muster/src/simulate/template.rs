//! What simulated collectors find: what the root has, looked at once for all of them, with a little variety.

use std::collections::BTreeSet;
use std::sync::Arc;

use bus::{Bus, Context};
use jiff::Timestamp;
use oval::resolve::Resolver;
use pcs_agent::host::Host;
use pcs_agent::probe::Probes;
use pcs_agent::report::{self, Found};
use proto::fault::{Fault, FaultCode};
use proto::message::{CollectionRequest, ContentRequest, Message as _};
use proto::observation::{Collected, Item};
use proto::plan::ObjectKey;
use proto::topic::Topic;
use service::content::plan_of;

use super::fleet::Fleet;

impl Fleet {
    /// What the root has of a plan; looked at once.
    pub(super) async fn template(
        &self,
        bus: &Bus,
        request: &CollectionRequest,
        context: Context,
    ) -> Result<Arc<Vec<Found>>, Fault> {
        let mut templates = self.templates.lock().await;
        if let Some(known) = templates.get(&request.plan.sha256) {
            return Ok(Arc::clone(known));
        }
        let ask = Topic::AdminUp(bus.own(), ContentRequest::KIND.to_owned());
        let plan = plan_of(&self.content.fetch(bus, &ask, &request.plan, context).await?)?;
        let root = self.settings.root.clone();
        let looked = tokio::task::spawn_blocking(move || {
            let host = Host::new(root);
            let mut resolver = Resolver::new(&plan, Probes::new(&host), Timestamp::now());
            let look = |key: &ObjectKey| {
                let collected = Collected::clone(&resolver.object(key));
                (key.clone(), collected, Timestamp::now())
            };
            plan.report.iter().map(look).collect::<Vec<Found>>()
        });
        let found = looked.await.map_err(|_| Fault::new(FaultCode::Internal, "a probe failed badly"))?;
        let found = Arc::new(found);
        templates.insert(request.plan.sha256.clone(), Arc::clone(&found));
        Ok(found)
    }

    /// What one of them finds, of what is wanted.
    pub(super) fn found(&self, number: u64, template: &[Found], wanted: &[ObjectKey]) -> Vec<Found> {
        let now = Timestamp::now();
        let is_wanted = |(object, ..): &&Found| wanted.is_empty() || wanted.contains(object);
        let found = template.iter().filter(is_wanted).enumerate();
        found
            .map(|(at, (object, collected, _))| (object.clone(), self.varied(number, at as u64, collected), now))
            .collect()
    }

    /// How many different items so many of them find in all: what a repository has to have of them. Of the plan that asks for most.
    pub(crate) async fn item_count(self: &Arc<Self>, collectors: u64) -> anyhow::Result<u64> {
        let template = self.templates.lock().await.values().max_by_key(|template| template.len()).cloned();
        let Some(template) = template else { return Ok(0) };
        let fleet = Arc::clone(self);
        let counted = tokio::task::spawn_blocking(move || {
            let of_one = |number: u64| {
                let parts = report::parts(fleet.found(number, &template, &[]));
                parts.into_iter().flat_map(|part| part.items).collect::<BTreeSet<Item>>().len() as u64
            };
            (0..collectors).map(of_one).sum()
        });
        Ok(counted.await?)
    }

    /// Some objects are otherwise than there, in one of three ways: machines of a fleet are alike.
    pub(super) fn varied(&self, number: u64, object: u64, collected: &Collected) -> Collected {
        let dice = mixed(self.settings.seed ^ mixed(number ^ mixed(object)));
        let mut varied = collected.clone();
        if dice % 100 < self.settings.variety_percent
            && let Some(value) = varied
                .items
                .first_mut()
                .and_then(|item| item.entities.iter_mut().rev().find_map(|entity| entity.value.as_mut()))
        {
            value.push_str(["1", "2", "3"][usize::try_from(dice / 100 % 3).unwrap_or_default()]);
        }
        varied
    }
}

/// splitmix64: the same for the same seed.
pub(super) fn mixed(seed: u64) -> u64 {
    let mut mixed = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use proto::observation::{Flag, ItemEntity};

    use super::super::fleet::FleetSettings;
    use super::*;

    #[test]
    fn the_same_seed_gives_the_same_variety_and_most_is_as_it_is_here() {
        let simulation = |seed| {
            Fleet::new(FleetSettings {
                directory: PathBuf::new(),
                join_token: String::new(),
                seed,
                variety_percent: 10,
                root: PathBuf::from("/"),
            })
            .unwrap()
        };
        let item = Item::new("unix:file", vec![ItemEntity::text("filepath", "/etc/passwd")]);
        let here = Collected { flag: Flag::Complete, items: vec![item], messages: Vec::new() };
        let all = |seed: u64| {
            let simulation = simulation(seed);
            (0..1_000).map(|number| simulation.varied(number, 7, &here)).collect::<Vec<_>>()
        };
        assert_eq!(all(1), all(1));
        assert_ne!(all(1), all(2));
        let otherwise = all(1).iter().filter(|collected| **collected != here).count();
        assert!((50..150).contains(&otherwise), "{otherwise}");
    }
}
