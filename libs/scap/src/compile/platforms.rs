//! Where rules apply: platforms become definitions to decide.

use super::{Compiler, PlatformPlan};
use crate::cpe::{self, LogicalPart, LogicalTest};
use crate::limits::REFERENCE_DEPTH_MAX;

impl<'policy> Compiler<'policy, '_> {
    pub(super) fn platforms(&mut self, names: &[String]) -> Vec<PlatformPlan> {
        let mut plans = Vec::with_capacity(names.len());
        for name in names {
            let plan = self.platform(name);
            self.compiled.platforms.insert(name.clone(), plan.clone());
            plans.push(plan);
        }
        plans
    }

    fn platform(&mut self, name: &str) -> PlatformPlan {
        let policy = self.policy;
        let id = name.strip_prefix('#').unwrap_or(name);
        if let Some(platform) = policy.platforms.language.iter().find(|platform| platform.id == id) {
            return match &platform.test {
                Some(test) => self.logical(test),
                None => PlatformPlan::Undefined(name.to_owned()),
            };
        }
        let item = policy.platforms.dictionary.iter().find(|item| cpe::same_name(&item.name, name));
        match item.and_then(|item| Some((item, policy.oval.get(&item.href)?))) {
            Some((item, oval)) => {
                let context = self.context(&item.href, &[]);
                PlatformPlan::Definition(self.definition(oval, &context, &item.definition, 0))
            }
            None => PlatformPlan::Undefined(name.to_owned()),
        }
    }

    fn logical(&mut self, test: &'policy LogicalTest) -> PlatformPlan {
        self.platforms_open += 1;
        let parts = if self.platforms_open > REFERENCE_DEPTH_MAX {
            vec![PlatformPlan::Undefined("platforms are nested too deep".to_owned())]
        } else {
            test.parts
                .iter()
                .map(|part| match part {
                    LogicalPart::Test(inner) => self.logical(inner),
                    LogicalPart::Name(name) => self.platform(name),
                    LogicalPart::Unsupported(system) => PlatformPlan::Undefined(system.clone()),
                    LogicalPart::Definition { href, id } => match self.policy.oval.get(href) {
                        Some(oval) => {
                            let context = self.context(href, &[]);
                            PlatformPlan::Definition(self.definition(oval, &context, id, 0))
                        }
                        None => PlatformPlan::Undefined(format!("{id} in {href}")),
                    },
                })
                .collect()
        };
        self.platforms_open -= 1;
        PlatformPlan::Test { is_and: test.is_and, negate: test.negate, parts }
    }
}
