//! Standing tasks of collectors: periodic and event-based collection. They live at the collectors;
//! the orchestrator asks each of those that are meant, and says what each answered.

use std::time::Duration;

use bus::{Context, RequestError};
use jiff::Timestamp;
use proto::capability::Capability;
use proto::fault::Fault;
use proto::id::{ComponentId, RequestId};
use proto::limits::shown;
use proto::message::{
    CollectionRequest, Message, ObservationOperation, ObservationRequest, ObservationResponse, PeriodicCollection,
    PeriodicCollectionResponse, PeriodicOperation, Schedule,
};
use proto::operator::{AskOutcome, CollectorAnswer, Workflow};
use proto::topic::Topic;
use uuid::Uuid;

use crate::driver::Handle;

/// How long a collector has to answer.
const PATIENCE: Duration = Duration::from_secs(10);

impl Handle {
    /// Schedules, cancels or lists periodic collection.
    pub(crate) async fn periodic(
        &self,
        operation: PeriodicOperation,
        identifier: String,
        every_seconds: u64,
        at_once: bool,
        workflow: &Workflow,
    ) -> Result<Vec<CollectorAnswer>, Fault> {
        let is_begun = operation == PeriodicOperation::Schedule;
        let request = PeriodicCollection {
            collection_identifier: identifier,
            operation,
            collection_schedule: is_begun.then_some(Schedule { every_seconds }),
            collect_upon_acknowledgement: at_once,
            collection_instructions: if is_begun { Some(self.instructions(workflow).await?) } else { None },
        };
        self.ask_collectors(&workflow.targets, Capability::CollectPeriodic, &request, |answer, response| {
            let response: PeriodicCollectionResponse = response;
            answer.schedules = response.schedules;
            response.fault
        })
        .await
    }

    /// Starts, cancels or lists event-based collection.
    pub(crate) async fn observation(
        &self,
        operation: ObservationOperation,
        identifier: String,
        poll_seconds: Option<u64>,
        workflow: &Workflow,
    ) -> Result<Vec<CollectorAnswer>, Fault> {
        let is_begun = operation == ObservationOperation::Start;
        let request = ObservationRequest {
            observation_identifier: identifier,
            operation,
            poll_seconds: poll_seconds.filter(|_| is_begun),
            collection_instructions: if is_begun { Some(self.instructions(workflow).await?) } else { None },
        };
        self.ask_collectors(&workflow.targets, Capability::CollectEventBased, &request, |answer, response| {
            let response: ObservationResponse = response;
            answer.observations = response.observations;
            response.fault
        })
        .await
    }

    /// What a standing task collects. Its runs get requests of their own; asked twice, it is the same.
    async fn instructions(&self, workflow: &Workflow) -> Result<CollectionRequest, Fault> {
        let plan = self.plan(workflow, false).await?;
        Ok(CollectionRequest {
            request: RequestId(Uuid::nil()),
            plan: plan.collection_plan,
            targets: Vec::new(),
            deadline: Timestamp::MAX,
        })
    }

    /// Asks every collector that is meant, all at once.
    async fn ask_collectors<Q: Message + Clone, A: Message>(
        &self,
        targets: &[String],
        capability: Capability,
        request: &Q,
        take: impl Fn(&mut CollectorAnswer, A) -> Option<Fault>,
    ) -> Result<Vec<CollectorAnswer>, Fault> {
        let collectors = self.inner.core.lock().await.collectors_named(targets, capability)?;
        let mut asked = Vec::with_capacity(collectors.len());
        for (component, name, is_there) in collectors {
            let (handle, request) = (self.clone(), request.clone());
            let answer = tokio::spawn(async move {
                if is_there { Some(handle.ask_collector::<Q, A>(component, &request).await) } else { None }
            });
            asked.push((component, name, answer));
        }
        let mut answers = Vec::with_capacity(asked.len());
        for (component, name, answer) in asked {
            let mut of_collector = CollectorAnswer {
                component,
                name,
                outcome: AskOutcome::Done,
                detail: None,
                schedules: Vec::new(),
                observations: Vec::new(),
            };
            let failed = match answer.await {
                Ok(Some(Ok(answer))) => {
                    take(&mut of_collector, answer).map(|fault| (AskOutcome::Refused, shown(&fault.message)))
                }
                Ok(Some(Err(RequestError::Fault(fault)))) => Some((AskOutcome::Refused, shown(&fault.message))),
                Ok(None) => Some((AskOutcome::Offline, "the collector is not there; ask again when it is".to_owned())),
                Ok(Some(Err(error))) => Some((AskOutcome::NoAnswer, error.to_string())),
                Err(error) => Some((AskOutcome::NoAnswer, error.to_string())),
            };
            if let Some((outcome, detail)) = failed {
                (of_collector.outcome, of_collector.detail) = (outcome, Some(detail));
            }
            answers.push(of_collector);
        }
        Ok(answers)
    }

    async fn ask_collector<Q: Message, A: Message>(&self, to: ComponentId, request: &Q) -> Result<A, RequestError> {
        self.inner.bus.request(&Topic::Admin(to), request, Context::alone(), PATIENCE).await
    }
}
