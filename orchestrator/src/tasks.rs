//! Standing tasks of collectors: periodic and event-based collection. They live at the collectors;
//! the orchestrator asks each of those that are meant, and says what each answered.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bus::{Context, Prepared, RequestError};
use jiff::{SignedDuration, Timestamp};
use proto::capability::Capability;
use proto::content::ContentHash;
use proto::fault::{Fault, FaultCode};
use proto::id::{ComponentId, RequestId};
use proto::limits::{TASK_ENDPOINTS_MAX, TASKS_MAX, shown};
use proto::message::{
    CollectionRequest, Message, ObservationOperation, ObservationRequest, ObservationResponse, PeriodicCollection,
    PeriodicCollectionResponse, PeriodicOperation, Priority, Task, TaskAnswer, TaskRequest, TaskResponse,
};
use proto::operator::{AskOutcome, CollectorAnswer, Workflow};
use proto::schedule::Schedule;
use proto::topic::Topic;
use service::audit::{Act, Actor};
use service::recurrence::Recurrence;
use uuid::Uuid;

use crate::driver::Handle;
use crate::store::{SentTask, StandingTask, StoreError};

/// The two kinds of standing tasks, as the store spells them.
const PERIODIC: &str = "periodic";
const OBSERVATION: &str = "observation";
/// How long a run may take after its schedule was cancelled.
const LAST_RUN: SignedDuration = SignedDuration::from_hours(1);

/// A collector with its name, and whether it is there.
type Named = (ComponentId, String, bool);

/// A standing task at collectors.
struct Standing {
    actor: Actor,
    operation: &'static str,
    identifier: String,
    collectors: Vec<Named>,
    /// The request that stands for it, and the collectors at whom it was not in force before.
    begun: Option<(RequestId, Vec<ComponentId>)>,
}

/// How long a collector has to answer.
const PATIENCE: Duration = Duration::from_secs(10);

impl Handle {
    /// Schedules, cancels or lists periodic collection.
    pub(crate) async fn periodic(
        &self,
        actor: Actor,
        operation: PeriodicOperation,
        identifier: String,
        schedule: Option<Schedule>,
        at_once: bool,
        workflow: &Workflow,
    ) -> Result<Vec<CollectorAnswer>, Fault> {
        let is_begun = operation == PeriodicOperation::Schedule;
        if is_begun {
            // Here, before it is asked of a thousand collectors, it can still be mended.
            let schedule = schedule.clone().unwrap_or_default();
            Recurrence::of(&schedule).map_err(|error| Fault::new(FaultCode::Malformed, error.to_string()))?;
        }
        let collectors = self.collectors_named(&workflow.targets, Capability::CollectPeriodic).await?;
        let mut standing =
            Standing { actor, operation: PERIODIC, identifier: identifier.clone(), collectors, begun: None };
        let request = PeriodicCollection {
            collection_identifier: identifier,
            operation,
            collection_schedule: schedule.filter(|_| is_begun),
            collect_upon_acknowledgement: at_once,
            collection_instructions: if is_begun {
                Some(self.instructions(workflow, &mut standing).await?)
            } else {
                None
            },
        };
        let is_cancelled = operation == PeriodicOperation::Cancel;
        self.ask_collectors(&standing, &request, is_cancelled, |answer, response| {
            let response: PeriodicCollectionResponse = response;
            answer.schedules = response.schedules;
            response.fault
        })
        .await
    }

    /// Starts, cancels or lists event-based collection.
    pub(crate) async fn observation(
        &self,
        actor: Actor,
        operation: ObservationOperation,
        identifier: String,
        poll_seconds: Option<u64>,
        workflow: &Workflow,
    ) -> Result<Vec<CollectorAnswer>, Fault> {
        let is_begun = operation == ObservationOperation::Start;
        let collectors = self.collectors_named(&workflow.targets, Capability::CollectEventBased).await?;
        let mut standing =
            Standing { actor, operation: OBSERVATION, identifier: identifier.clone(), collectors, begun: None };
        let request = ObservationRequest {
            observation_identifier: identifier,
            operation,
            poll_seconds: poll_seconds.filter(|_| is_begun),
            collection_instructions: if is_begun {
                Some(self.instructions(workflow, &mut standing).await?)
            } else {
                None
            },
        };
        let is_cancelled = operation == ObservationOperation::Cancel;
        self.ask_collectors(&standing, &request, is_cancelled, |answer, response| {
            let response: ObservationResponse = response;
            answer.observations = response.observations;
            response.fault
        })
        .await
    }

    async fn collectors_named(&self, targets: &[String], capability: Capability) -> Result<Vec<Named>, Fault> {
        self.inner.core.lock().await.collectors_named(targets, capability)
    }

    /// What a standing task collects. It is kept before anybody is asked: what is reported is expected then. Its runs
    /// get requests of their own; asked twice, it is the same.
    async fn instructions(&self, workflow: &Workflow, standing: &mut Standing) -> Result<CollectionRequest, Fault> {
        let plan = self.plan(workflow, false).await?.collection_plan;
        let collectors: Vec<ComponentId> = standing.collectors.iter().map(|(collector, _, _)| *collector).collect();
        let task = StandingTask {
            request: RequestId(Uuid::now_v7()),
            operation: standing.operation,
            identifier: standing.identifier.clone(),
            plan: plan.clone(),
        };
        let detail =
            format!("`{}` with the policy `{}`, at {} collectors", task.identifier, workflow.policy, collectors.len());
        let (actor, word) = (standing.actor.clone(), format!("begin-{}", standing.operation));
        let act = |request| Act::new(actor, &word, request).because(detail);
        let (request, begun) = self.inner.store.begin_standing(&task, &collectors, act).await?;
        standing.begun = Some((request, begun));
        Ok(CollectionRequest {
            request,
            plan,
            targets: Vec::new(),
            objects: Vec::new(),
            deadline: Timestamp::MAX,
            budget: workflow.budget,
            priority: Priority::Scheduled,
        })
    }

    /// A task that was cancelled has ended. One that a collector did not take on has ended too, but not another one of
    /// the same name that it has.
    async fn settle(&self, standing: &Standing, answers: &[CollectorAnswer], is_cancelled: bool) -> Result<(), Fault> {
        for answer in answers {
            let collector = answer.component;
            let begun = standing.begun.as_ref().filter(|(_, begun)| begun.contains(&collector));
            let request = begun.map(|(request, _)| *request);
            let is_over = match answer.outcome {
                AskOutcome::Done => is_cancelled,
                AskOutcome::Refused | AskOutcome::Offline => request.is_some(),
                // It may have heard the question.
                AskOutcome::NoAnswer => false,
            };
            if is_over {
                let Standing { actor, operation, identifier, .. } = standing;
                let act =
                    Act::new(actor.clone(), &format!("end-{operation}"), collector).because(format!("`{identifier}`"));
                let now = Timestamp::now();
                self.inner.store.end_standing((operation, identifier), request, collector, now, &act).await?;
            }
        }
        Ok(())
    }

    /// Whether components were asked for what they report.
    pub(crate) async fn tasks(&self, requests: &[TaskRequest]) -> Result<Vec<TaskAnswer>, StoreError> {
        let hashes: BTreeSet<&ContentHash> = requests.iter().filter_map(|request| request.message.as_ref()).collect();
        let hashes: Vec<&ContentHash> = hashes.into_iter().collect();
        let mut sent = BTreeMap::new();
        for some in hashes.chunks(TASKS_MAX) {
            let some = self.inner.store.sent_by(some).await?;
            sent.extend(some.into_iter().map(|(hash, request, responder)| (hash, (request, responder))));
        }
        let mut answers = Vec::with_capacity(requests.len());
        let mut room = TASK_ENDPOINTS_MAX;
        for request in requests {
            let (Task::Workflow { request: asked, .. } | Task::Standing(asked)) = request.task;
            let is_sent = request.message.as_ref().is_none_or(|message| {
                sent.get(message).is_some_and(|(request_id, responder)| {
                    *request_id == asked && responder.is_none_or(|responder| responder == request.responder)
                })
            });
            let unknown = |text: &str| TaskAnswer::NotGiven(Fault::new(FaultCode::UnknownIdentifier, text));
            answers.push(if is_sent {
                let task = self.task(request).await?.map(|mut task| {
                    // As many as fit into one answer.
                    if task.endpoints.len() > room {
                        task.endpoints.clear();
                    }
                    room -= task.endpoints.len();
                    task
                });
                task.map_or_else(|| unknown("the component was not asked for this"), TaskAnswer::Given)
            } else {
                unknown("the component was not asked by this message")
            });
        }
        Ok(answers)
    }

    /// What a component was asked, whatever the message.
    async fn task(&self, request: &TaskRequest) -> Result<Option<TaskResponse>, StoreError> {
        match request.task {
            Task::Standing(standing) => {
                let standing = self.inner.store.standing(standing, request.responder).await?;
                Ok(standing.map(|(plan, ended)| {
                    // A last run may have been asked for with the cancellation.
                    let until = ended.map(|ended| ended.saturating_add(LAST_RUN).unwrap_or(Timestamp::MAX));
                    TaskResponse { is_collection: true, plan: Some(plan), until, endpoints: Vec::new() }
                }))
            }
            Task::Workflow { transaction, request: asked } => {
                let task = |workflow: &crate::core::workflow::Workflow| {
                    workflow.task(request.responder, asked, request.endpoint)
                };
                let known = self.inner.core.lock().await.workflow(transaction).map(task);
                Ok(match known {
                    Some(task) => task,
                    None => self.inner.store.workflow(transaction).await?.as_ref().and_then(task),
                })
            }
        }
    }

    /// Asks every collector that is meant, all at once, and keeps where the task is in force then.
    async fn ask_collectors<Q: Message + Clone, A: Message>(
        &self,
        standing: &Standing,
        request: &Q,
        is_cancelled: bool,
        take: impl Fn(&mut CollectorAnswer, A) -> Option<Fault>,
    ) -> Result<Vec<CollectorAnswer>, Fault> {
        let mut asked = Vec::with_capacity(standing.collectors.len());
        let mut questions = BTreeMap::new();
        for (component, ..) in standing.collectors.iter().filter(|(.., is_there)| *is_there) {
            let question = self.inner.bus.prepare(
                &Topic::Admin(*component),
                request,
                Context { to: Some(*component), ..Context::alone() },
            );
            let question = question.map_err(|error| Fault::new(FaultCode::TooLarge, error.to_string()))?;
            questions.insert(*component, question);
        }
        if let Some((request, _)) = standing.begun {
            // What is collected because of it refers to the message that began it.
            let of_collector = |(component, message): (&ComponentId, &Prepared)| SentTask {
                request,
                responder: Some(*component),
                message: message.clone(),
            };
            let tasks: Vec<SentTask> = questions.iter().map(of_collector).collect();
            self.inner.store.put_tasks(&tasks).await?;
        }
        for (component, name, _) in standing.collectors.iter().cloned() {
            let (bus, question) = (self.inner.bus.clone(), questions.remove(&component));
            let answer = tokio::spawn(async move {
                match question {
                    Some(question) => Some(bus.ask::<A>(question, PATIENCE).await),
                    None => None,
                }
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
        self.settle(standing, &answers, is_cancelled).await?;
        Ok(answers)
    }
}
