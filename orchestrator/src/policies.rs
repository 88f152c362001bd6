//! Policies: importing data streams, publishing them to the repositories, and making collection plans.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bus::Context;
use proto::content::{ContentHash, ContentRef};
use proto::fault::{Fault, FaultCode};
use proto::id::ComponentId;
use proto::limits::shown;
use proto::message::{
    ContentRequest, Message as _, PoliciesRequest, PoliciesResponse, PolicyDescription, PolicyPublication, QueryRequest,
};
use proto::operator::{PolicyImport, Workflow};
use proto::topic::Topic;
use scap::compile::Compiled;
use scap::policy::{Policy, deflate};
use service::audit::Actor;
use service::report::Chain;

use crate::BASELINE;
use crate::core::workflow::Plan;
use crate::driver::Handle;

/// The data stream of the policy that comes with the program.
pub const BASELINE_SOURCE: &[u8] = include_bytes!("../policies/muster-baseline-linux-ds.xml");
/// Plans kept in memory.
const PLANS_KEPT_MAX: usize = 16;

type PlanKey = (ContentHash, Option<String>);

/// Collection plans that were made, by policy and profile.
#[derive(Debug, Default)]
pub(crate) struct Policies {
    plans: Mutex<BTreeMap<PlanKey, (ContentRef, Option<String>)>>,
    /// Held while versions are counted.
    pub(crate) changing: tokio::sync::Mutex<()>,
}

/// Whether it can be the name of a policy.
pub(crate) fn is_name(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= 64
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
}

impl Handle {
    /// Imports the policy that comes with the program, where it is not there already.
    pub(crate) async fn ensure_baseline(&self) -> Result<(), String> {
        let source_sha256 = ContentHash::of(BASELINE_SOURCE);
        // As any version: an operator may have put another one in force.
        let known = self.inner.store.policy_versions().await.map_err(|error| Chain(&error).to_string())?;
        let is_there = known.iter().any(|policy| {
            policy.name == BASELINE
                && policy.source_sha256 == source_sha256
                && self
                    .inner
                    .content
                    .find(&policy.content.sha256)
                    .is_some_and(|bytes| Policy::from_bytes(&bytes).is_ok())
        });
        if is_there {
            return Ok(());
        }
        // It comes with the program, and so does its being in force.
        let import = PolicyImport { name: BASELINE.to_owned(), is_activated: true, ..PolicyImport::default() };
        let kept = self.keep_policy(import, BASELINE_SOURCE.to_vec(), None, Actor::Orchestrator).await;
        let (policy, _) = kept.map_err(|fault| fault.message)?;
        self.derive_again(&policy, &Actor::Orchestrator).await;
        Ok(())
    }

    pub(crate) async fn publish(&self, policy: &PolicyDescription, patience: Duration) -> Result<(), Fault> {
        let bus = &self.inner.bus;
        let publication = PolicyPublication { policy: policy.clone() };
        let sent = bus
            .send_durable(&Topic::Policy(bus.own()), &publication, Context::alone())
            .map_err(|error| Fault::new(FaultCode::Internal, error.to_string()))?;
        let stored = tokio::time::timeout(patience, bus.settled(sent));
        stored.await.map_err(|_| Fault::new(FaultCode::Timeout, "no repository took it"))
    }

    /// A repository has come: it gets the policies that it lacks.
    pub(crate) async fn publish_missing(&self, repository: ComponentId) {
        let Ok(known) = self.ask_policies(repository).await else { return };
        let Ok(own) = self.inner.store.policies().await else { return };
        let Ok(versions) = self.inner.store.policy_versions().await else { return };
        // What waits is evaluated, too, before it is in force; of that a repository does not say what it has.
        for policy in own.into_iter().chain(versions.into_iter().filter(|version| version.is_waiting)) {
            if !known.iter().any(|known| known.name == policy.name && known.content == policy.content) {
                let _ = self.publish(&policy, Duration::from_mins(1)).await;
            }
        }
    }

    async fn ask_policies(&self, repository: ComponentId) -> Result<Vec<PolicyDescription>, Fault> {
        let bus = &self.inner.bus;
        let ask = Topic::Directed { to: repository, operation: QueryRequest::KIND.to_owned(), from: bus.own() };
        for _ in 0..3 {
            let answer: Result<PoliciesResponse, _> =
                bus.request(&ask, &PoliciesRequest {}, Context::alone(), Duration::from_secs(5)).await;
            match answer {
                Ok(answer) => return Ok(answer.policies),
                Err(bus::RequestError::Fault(fault)) => return Err(fault),
                Err(_) => {}
            }
        }
        Err(Fault::new(FaultCode::Timeout, "the repository does not answer"))
    }

    /// Every policy that is known: the repository's, and those that it has not taken yet.
    pub(crate) async fn policies(&self) -> Result<Vec<PolicyDescription>, Fault> {
        let own = self.inner.store.policies().await?;
        let mut all: BTreeMap<String, PolicyDescription> = BTreeMap::new();
        if let Some(repository) = self.repository().await {
            all.extend(self.ask_policies(repository).await?.into_iter().map(|policy| (policy.name.clone(), policy)));
        }
        all.extend(own.into_iter().map(|policy| (policy.name.clone(), policy)));
        Ok(all.into_values().collect())
    }

    /// A policy by its name.
    pub(crate) async fn policy_named(&self, name: &str) -> Result<PolicyDescription, Fault> {
        // Those that were imported here need no answer from the repository.
        let own = self.inner.store.policies().await?;
        let is_own = own.iter().any(|policy| policy.name == name);
        let mut policies = if is_own { own } else { self.policies().await? };
        let Some(at) = policies.iter().position(|policy| policy.name == name) else {
            let names: Vec<&str> = policies.iter().map(|policy| policy.name.as_str()).collect();
            let text = format!("no policy is called `{}`; there is {}", shown(name), names.join(", "));
            return Err(Fault::new(FaultCode::UnknownIdentifier, text));
        };
        Ok(policies.swap_remove(at))
    }

    /// What a workflow needs: the policy, and the collection plan for its profile.
    pub(crate) async fn plan(&self, workflow: &Workflow, is_evaluation: bool) -> Result<Plan, Fault> {
        let policy = self.policy_named(&workflow.policy).await?;
        self.plan_of(&policy, workflow, is_evaluation).await
    }

    /// The same for a version of the policy.
    pub(crate) async fn plan_of(
        &self,
        policy: &PolicyDescription,
        workflow: &Workflow,
        is_evaluation: bool,
    ) -> Result<Plan, Fault> {
        let (collection_plan, profile) = self.collection_plan(policy, workflow.profile.clone()).await?;
        Ok(Plan {
            is_evaluation,
            is_stored_only: is_evaluation && (workflow.is_stored_only || workflow.as_of.is_some()),
            is_broadcast: workflow.is_broadcast,
            policy: policy.name.clone(),
            policy_content: policy.content.clone(),
            collection_plan,
            profile,
            targets: workflow.targets.clone(),
            excluded: workflow.excluded.clone(),
            timeout_seconds: i64::try_from(workflow.timeout_seconds).unwrap_or(i64::MAX),
            expires_seconds: i64::try_from(workflow.expires_seconds).unwrap_or(i64::MAX),
            as_of: workflow.as_of,
            max_age_seconds: workflow.max_age_seconds.map(|age| i64::try_from(age).unwrap_or(i64::MAX)),
            changed: Vec::new(),
            is_assigned: false,
            budget: workflow.budget,
        })
    }

    async fn collection_plan(
        &self,
        policy: &PolicyDescription,
        profile: Option<String>,
    ) -> Result<(ContentRef, Option<String>), Fault> {
        let key = (policy.content.sha256.clone(), profile.clone());
        let known = self.inner.policies.plans.lock().unwrap_or_else(PoisonError::into_inner).get(&key).cloned();
        if let Some(known) = known
            && self.find_content(&known.0.sha256).await.is_some()
        {
            return Ok(known);
        }
        let is_default = profile.is_none();
        let compiled =
            self.compiled(policy, profile, |compiled| (deflate(&compiled.collection.to_bytes()), compiled.profile));
        let (plan, profile) = compiled.await?;
        let profile = Some(profile).filter(|_| !is_default);
        let reference = ContentRef::to(&plan);
        self.keep_content(plan).await?;
        let mut plans = self.inner.policies.plans.lock().unwrap_or_else(PoisonError::into_inner);
        if plans.len() >= PLANS_KEPT_MAX {
            plans.pop_first();
        }
        plans.insert(key, (reference.clone(), profile.clone()));
        Ok((reference, profile))
    }

    /// What is wanted of a policy and profile, compiled beside everything else.
    pub(crate) async fn compiled<T: Send + 'static>(
        &self,
        policy: &PolicyDescription,
        profile: Option<String>,
        wanted: impl FnOnce(Compiled) -> T + Send + 'static,
    ) -> Result<T, Fault> {
        let bytes = self.policy_bytes(policy).await?;
        let compiled = tokio::task::spawn_blocking(move || {
            let policy = Policy::from_bytes(&bytes)?;
            scap::compile::compile(&policy, profile.as_deref()).map(wanted)
        });
        let compiled =
            compiled.await.map_err(|_| Fault::new(FaultCode::Internal, "the policy could not be compiled"))?;
        compiled.map_err(|error| Fault::new(FaultCode::UnknownIdentifier, error.to_string()))
    }

    pub(crate) async fn policy_bytes(&self, policy: &PolicyDescription) -> Result<Arc<Vec<u8>>, Fault> {
        if let Some(found) = self.find_content(&policy.content.sha256).await {
            return Ok(found);
        }
        let repository =
            self.repository().await.ok_or_else(|| Fault::new(FaultCode::Busy, "no repository is active"))?;
        let bus = &self.inner.bus;
        let ask = Topic::Directed { to: repository, operation: ContentRequest::KIND.to_owned(), from: bus.own() };
        self.inner.content.fetch(bus, &ask, &policy.content, Context::alone()).await
    }
}
