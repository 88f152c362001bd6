//! Assigned policies: kept, evaluated when they are due, and watched for at collectors.

use std::collections::BTreeSet;
use std::time::Duration;

use bus::mqtt::rand_fraction;
use jiff::Timestamp;
use proto::capability::Capability;
use proto::fault::{Fault, FaultCode};
use proto::id::{ComponentId, EndpointId, TransactionId};
use proto::message::{AttributeChange, ObservationOperation};
use proto::operator::{AskOutcome, AssignmentView, ComponentState, OperatorEvent, PolicyAssignment, Workflow};
use proto::plan::ObjectKey;
use service::audit::{Act, Actor};
use service::content::plan_of;
use service::report::Chain;

use crate::core::Core;
use crate::core::standing::{Due, Meant};
use crate::driver::Handle;
use crate::policies::is_name;
use crate::store::StoreError;

/// How long a collector is left alone that could not be asked to watch.
const AGAIN: Duration = Duration::from_secs(30);

/// What an observation for an assignment is called at collectors.
fn identifier(name: &str) -> String {
    format!("policy.{name}")
}

/// The endpoints of an assignment, each with its collector if that can be asked now.
fn meant(core: &Core, assignment: &PolicyAssignment) -> Meant {
    let workflow = &assignment.workflow;
    // A word that means nothing yet may mean somebody who joins tomorrow.
    let (targets, _) = core.targets_and_unknown(&workflow.targets, &workflow.excluded);
    let mut meant = Meant::new();
    for targets in targets {
        let can_watch = core.components.get(&targets.component).is_some_and(|component| {
            component.state == ComponentState::Active && component.has(Capability::CollectEventBased)
        });
        let collector = can_watch.then_some(targets.component);
        meant.extend(targets.endpoints.into_iter().map(|endpoint| (endpoint, collector)));
    }
    meant
}

impl Handle {
    /// Assigns a policy; says how many endpoints that means now.
    pub(crate) async fn assign_policy(&self, actor: Actor, assignment: PolicyAssignment) -> Result<u64, Fault> {
        let wrong = |text: &str| Err(Fault::new(FaultCode::Malformed, text));
        if !is_name(&assignment.name) {
            return wrong("an assignment's name is up to 64 letters, digits, dots, dashes and underscores");
        }
        if assignment.schedule.is_none() && !assignment.is_change_based {
            return wrong("say when: with a schedule, when something changes, or both");
        }
        if assignment.workflow.is_stored_only || assignment.workflow.as_of.is_some() {
            return wrong("what is assigned is evaluated as of the time when it is due, on what is collected then");
        }
        if assignment.schedule.is_none() && assignment.workflow.max_age_seconds.is_some() {
            return wrong("an age needs a schedule: what is decided on changes rests on what was seen to change");
        }
        // It has to be there, with that profile.
        self.plan(&assignment.workflow, true).await?;
        self.unwatch(&assignment.name).await;
        let act = Act::new(actor, "assign-policy", &assignment.name)
            .because(format!("policy `{}`", assignment.workflow.policy));
        let count = meant(&*self.inner.core.lock().await, &assignment).len() as u64;
        let mut standing = self.inner.standing.lock().await;
        let assigned = standing
            .assign(assignment, Timestamp::now(), rand_fraction())
            .map_err(|error| Fault::new(FaultCode::Malformed, error.to_string()))?;
        self.inner.store.put_assigned(assigned, Some(&act)).await?;
        Ok(count)
    }

    /// Ends an assignment, and what collectors watch for it.
    pub(crate) async fn unassign_policy(&self, actor: Actor, name: &str) -> Result<(), Fault> {
        if self.inner.standing.lock().await.get(name).is_none() {
            let text = format!(
                "no assignment is called `{}`; `muster policy assignments` lists them",
                proto::limits::shown(name)
            );
            return Err(Fault::new(FaultCode::UnknownIdentifier, text));
        }
        self.unwatch(name).await;
        // Held until it is stored: what is stored of it meanwhile does not bring it back.
        let mut standing = self.inner.standing.lock().await;
        standing.unassign(name);
        self.inner.store.remove_assigned(name, &Act::new(actor, "unassign-policy", name)).await?;
        Ok(())
    }

    /// Which there are.
    pub(crate) async fn assignments(&self) -> Vec<AssignmentView> {
        let core = self.inner.core.lock().await;
        self.inner.standing.lock().await.views(|assignment| meant(&core, assignment).len() as u64)
    }

    /// Collectors that watch for an assignment are told to stop; one that is away goes on until it is asked for something
    /// else under that name.
    async fn unwatch(&self, name: &str) {
        let assignment = match self.inner.standing.lock().await.get(name) {
            Some(assigned) if assigned.assignment.is_change_based => assigned.assignment.clone(),
            _ => return,
        };
        let watching: BTreeSet<ComponentId> =
            meant(&*self.inner.core.lock().await, &assignment).into_values().flatten().collect();
        for collector in watching {
            let workflow = at_collector(&assignment, collector);
            let cancel = ObservationOperation::Cancel;
            if let Err(fault) = self.observation(Actor::Orchestrator, cancel, identifier(name), None, &workflow).await {
                tracing::warn!(%collector, %fault, "a collector still watches for `{name}`");
            }
        }
    }

    /// Objects of endpoints have changed: what reads them is evaluated in a moment, and whoever follows is told.
    pub(crate) async fn note_changes(&self, transaction: TransactionId, changes: Vec<AttributeChange>) {
        let mut standing = self.inner.standing.lock().await;
        for change in &changes {
            standing.change(change.endpoint, &change.object, Timestamp::now());
        }
        drop(standing);
        for change in changes {
            let _ = self.inner.watchers.send((transaction, OperatorEvent::Change(Box::new(change))));
        }
    }

    /// A policy has a new version: what it is assigned to is evaluated anew, and watched for what it reads now.
    pub(crate) async fn renew_assignments(&self, policy: &str) {
        let mut standing = self.inner.standing.lock().await;
        for assigned in standing.renew(policy) {
            complain(self.inner.store.put_assigned(&assigned, None).await);
        }
    }

    /// Begins what is due.
    pub(crate) async fn mind_assignments(&self) -> Result<(), StoreError> {
        let core = self.inner.core.lock().await;
        let mut standing = self.inner.standing.lock().await;
        let (due, stored) = standing.look(Timestamp::now(), rand_fraction(), |assignment| meant(&core, assignment));
        drop(core);
        // Held meanwhile: nobody stores something newer before this.
        for assigned in stored {
            complain(self.inner.store.put_assigned(&assigned, None).await);
        }
        drop(standing);
        for due in due {
            let handle = self.clone();
            // Repositories and collectors are asked on the way.
            tokio::spawn(async move { handle.carry_out(due).await });
        }
        Ok(())
    }

    async fn carry_out(&self, due: Due) {
        let (Due::All(name) | Due::New(name, _) | Due::Changed(name, ..) | Due::Watch(name, _)) = &due;
        let Some(assignment) = self.inner.standing.lock().await.get(name).map(|one| one.assignment.clone()) else {
            return;
        };
        let done = match &due {
            Due::All(name) => self.evaluate_assigned(name, assignment.workflow, None).await,
            Due::New(name, endpoints) => {
                self.evaluate_assigned(name, narrowed(assignment.workflow, endpoints), None).await
            }
            Due::Changed(name, endpoints, objects) => {
                // What is watched is as it was seen, however long ago.
                let workflow = Workflow {
                    is_stored_only: true,
                    max_age_seconds: None,
                    ..narrowed(assignment.workflow, endpoints)
                };
                self.evaluate_assigned(name, workflow, Some(objects)).await
            }
            Due::Watch(_, collector) => {
                self.watch(&assignment, *collector).await;
                Ok(())
            }
        };
        if let Err(fault) = done {
            tracing::error!(%fault, "the assigned policy `{name}` could not be evaluated; it is tried again");
            tokio::time::sleep(AGAIN).await;
            self.inner.standing.lock().await.put_back(due, Timestamp::now());
        }
    }

    async fn evaluate_assigned(
        &self,
        name: &str,
        workflow: Workflow,
        changed: Option<&BTreeSet<ObjectKey>>,
    ) -> Result<(), Fault> {
        let mut plan = self.plan(&workflow, true).await?;
        plan.is_assigned = true;
        if let Some(changed) = changed.filter(|changed| !changed.is_empty()) {
            let bytes = self.find_content(&plan.collection_plan.sha256).await;
            let bytes = bytes.ok_or_else(|| Fault::new(FaultCode::Internal, "the collection plan is gone"))?;
            let read = plan_of(&bytes)?.report;
            plan.changed = read.into_iter().filter(|object| changed.contains(object)).collect();
            if plan.changed.is_empty() {
                // Another policy reads it.
                return Ok(());
            }
        }
        let is_full = !plan.is_stored_only;
        let begun = self.begin(Actor::Orchestrator, "evaluate", plan).await?;
        let before = self.inner.standing.lock().await.begun(name, begun, is_full);
        if let Some(before) = before {
            // What was begun now makes up for whoever it still waits for.
            let expired = self.act(|core, now| ((), core.expire(before, now))).await;
            complain(expired);
        }
        Ok(())
    }

    async fn watch(&self, assignment: &PolicyAssignment, collector: ComponentId) {
        let name = &assignment.name;
        let workflow = at_collector(assignment, collector);
        let ask = async |operation| {
            let answers = self
                .observation(Actor::Orchestrator, operation, identifier(name), assignment.poll_seconds, &workflow)
                .await?;
            Ok::<_, Fault>(answers.first().map_or(AskOutcome::NoAnswer, |answer| answer.outcome))
        };
        let mut outcome = ask(ObservationOperation::Start).await;
        if matches!(outcome, Ok(AskOutcome::Refused)) {
            // It watches for what the policy has read before, or for what was assigned under that name before.
            outcome = match ask(ObservationOperation::Cancel).await {
                Ok(AskOutcome::Done) => ask(ObservationOperation::Start).await,
                other => other,
            };
        }
        if matches!(outcome, Ok(AskOutcome::Done)) {
            return;
        }
        tracing::warn!(%collector, ?outcome, "a collector could not be asked to watch for `{name}`");
        tokio::time::sleep(AGAIN).await;
        self.inner.standing.lock().await.watches(name, collector, false);
    }
}

/// The same on these endpoints alone.
fn narrowed(workflow: Workflow, endpoints: &BTreeSet<EndpointId>) -> Workflow {
    let targets = endpoints.iter().map(ToString::to_string).collect();
    Workflow { targets, excluded: Vec::new(), ..workflow }
}

fn at_collector(assignment: &PolicyAssignment, collector: ComponentId) -> Workflow {
    Workflow { targets: vec![collector.to_string()], excluded: Vec::new(), ..assignment.workflow.clone() }
}

/// Says what went wrong where nobody waits for it.
pub(crate) fn complain(outcome: Result<(), StoreError>) {
    if let Err(error) = outcome {
        tracing::error!(error = %Chain(&error), "assigned policies");
    }
}
