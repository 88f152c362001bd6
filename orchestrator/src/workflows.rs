//! Workflows at the operators' door: what has to be collected is asked of the repository, then the core begins.

use jiff::Timestamp;
use proto::fault::{Fault, FaultCode};
use proto::id::{EndpointId, TransactionId};
use proto::message::{StalenessRequest, StalenessResponse};
use proto::operator::{TransactionView, Workflow};
use service::audit::{Act, Actor};
use tokio::sync::broadcast;

use crate::control::ask_repository;
use crate::core::workflow::{Plan, Stale};
use crate::core::{Action, workflow};
use crate::driver::Handle;

/// Endpoints in one question.
const STALENESS_ENDPOINTS: usize = 500;

/// Whether only what is stale is collected.
fn is_selective(plan: &Plan) -> bool {
    plan.max_age_seconds.is_some() && !plan.is_stored_only
}

impl Handle {
    /// Begins what an operator asks for.
    pub(crate) async fn begin_asked(
        &self,
        actor: Actor,
        workflow: &Workflow,
        is_evaluation: bool,
    ) -> Result<TransactionId, Fault> {
        if workflow.as_of.is_some_and(|as_of| as_of > Timestamp::now()) {
            return Err(Fault::new(FaultCode::Malformed, "nothing is known of a time that has not come yet"));
        }
        let plan = self.plan(workflow, is_evaluation).await?;
        let operation = if is_evaluation { "evaluate" } else { "collect" };
        self.begin(actor, operation, plan).await
    }

    /// Begins a workflow. What is fresh enough is not collected: the repository says what is not.
    pub(crate) async fn begin(&self, actor: Actor, operation: &str, plan: Plan) -> Result<TransactionId, Fault> {
        let found = if is_selective(&plan) { self.inner.core.lock().await.targets_of(&plan)? } else { Vec::new() };
        let endpoints: Vec<EndpointId> = found.into_iter().flat_map(|targets| targets.endpoints).collect();
        self.begin_about(actor, operation, plan, &endpoints).await
    }

    /// The same, where it was found out before which endpoints are meant: to find them, everybody is looked at. Of these the repository
    /// says what is stale; which are meant when the workflow begins is found then.
    pub(crate) async fn begin_about(
        &self,
        actor: Actor,
        operation: &str,
        plan: Plan,
        endpoints: &[EndpointId],
    ) -> Result<TransactionId, Fault> {
        let detail = match &plan.profile {
            Some(profile) => format!("policy `{}`, profile {profile}", plan.policy),
            None => format!("policy `{}`", plan.policy),
        };
        let stale = if is_selective(&plan) { Some(self.stale(&plan, endpoints).await?) } else { None };
        let begun = self
            .act(|core, now| match core.begin(plan, stale.as_ref(), now) {
                Ok((id, mut actions)) => {
                    actions.push(Action::Record(Box::new(Act::new(actor, operation, id).because(detail))));
                    (Ok(id), actions)
                }
                Err(fault) => (Err(fault), Vec::new()),
            })
            .await;
        begun.map_err(Fault::from)?
    }

    async fn stale(&self, plan: &Plan, endpoints: &[EndpointId]) -> Result<Stale, Fault> {
        let collected_since = plan.stale_before(Timestamp::now());
        let mut stale = Stale { fresh: endpoints.iter().copied().collect(), ..Stale::default() };
        let mut at = 0;
        while at < endpoints.len() {
            let some = endpoints[at..endpoints.len().min(at + STALENESS_ENDPOINTS)].to_vec();
            let question = StalenessRequest { plan: plan.collection_plan.clone(), endpoints: some, collected_since };
            let answer: StalenessResponse = ask_repository(self, &question).await?;
            let answered = usize::try_from(answer.answered).unwrap_or(usize::MAX);
            if answered == 0 {
                return Err(Fault::new(FaultCode::Internal, "the repository answers nothing"));
            }
            at = at.saturating_add(answered);
            for one in answer.stale {
                stale.fresh.remove(&one.endpoint);
                stale.objects.insert(one.endpoint, one.objects);
            }
        }
        Ok(stale)
    }

    /// A workflow, in memory or stored.
    pub(crate) async fn transaction(&self, id: TransactionId) -> Result<TransactionView, Fault> {
        if let Some(workflow) = self.inner.core.lock().await.workflow(id) {
            return Ok(workflow.view());
        }
        let stored = self.inner.store.workflow(id).await?;
        stored.map(|workflow| workflow.view()).ok_or_else(|| {
            let text = "no workflow has this id; `muster transactions` lists those of late";
            Fault::new(FaultCode::UnknownIdentifier, text)
        })
    }

    /// Waits until a workflow is done with everybody who was there, or with `is_all` until it has ended.
    pub(crate) async fn wait(&self, id: TransactionId, is_all: bool) -> Result<TransactionView, Fault> {
        let is_done = |view: &TransactionView| view.ended.is_some() || !is_all && view.settled.is_some();
        // First listen, then look: nothing falls between the two.
        let mut watched = self.inner.watchers.subscribe();
        loop {
            let view = self.transaction(id).await?;
            if is_done(&view) {
                return Ok(view);
            }
            loop {
                match watched.recv().await {
                    Ok((
                        transaction,
                        proto::operator::OperatorEvent::Ended(_) | proto::operator::OperatorEvent::Fault(_),
                    )) if transaction == id => {
                        break;
                    }
                    Ok(_) => {}
                    Err(broadcast::error::RecvError::Lagged(_)) => break,
                    Err(broadcast::error::RecvError::Closed) => {
                        return Err(Fault::new(FaultCode::Internal, "the orchestrator is stopping"));
                    }
                }
            }
        }
    }

    /// Stops a workflow.
    pub(crate) async fn cancel(&self, actor: Actor, id: TransactionId) -> Result<(), Fault> {
        let cancelled = self
            .act(|core, now| match core.cancel(id, now) {
                Ok(mut actions) => {
                    actions.push(Action::Record(Box::new(Act::new(actor, "cancel", id))));
                    (Ok(()), actions)
                }
                Err(fault) => (Err(fault), Vec::new()),
            })
            .await;
        cancelled.map_err(Fault::from)?
    }

    /// A workflow that is done with everybody who was there.
    pub(crate) async fn settled_view(&self, id: TransactionId) -> Option<TransactionView> {
        let core = self.inner.core.lock().await;
        let is_done = |workflow: &&workflow::Workflow| workflow.ended.is_some() || workflow.settled.is_some();
        core.workflow(id).filter(is_done).map(workflow::Workflow::view)
    }
}
