//! The posture evaluation service: compares stored observations with policy.
//!
//! Listens: evaluation requests from the orchestrator. Asks: the repository for the policy and for
//! observations. Tells: the repositories its verdicts, the orchestrator how each request ended. Never:
//! contacts an endpoint.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bus::{Authentic, Bus, Context};
use jiff::Timestamp;
use proto::capability::ComponentType;
use proto::content::ContentHash;
use proto::fault::{Fault, FaultCode};
use proto::id::{EndpointId, MessageId, RequestId, TransactionId};
use proto::message::{
    ContentRequest, EvaluationRequest, EvaluationResults, Evidence, Message as _, Phase, QueryRequest, QueryResponse,
    StatusNotification, TaskProgress, ToEvaluator,
};
use proto::observation::Collected;
use proto::plan::ObjectKey;
use proto::topic::Topic;
use proto::verdict::{EvaluationSummary, RuleResult};
use scap::compile::Compiled;
use scap::evaluate::{Evaluation, Observed};
use scap::policy::Policy;
use service::content::ContentStore;
use service::member::{self, Member, MemberError, MemberSettings};
use service::shutdown::Shutdown;
use tokio::sync::mpsc;

/// Requests that wait at one evaluator.
const TASKS_MAX: usize = 256;
/// Objects in one question to the repository.
const QUERY_OBJECTS: usize = 500;
/// Verdicts in one message: whoever watches sees them come in.
const PART_RULES: usize = 8;
/// Seconds to wait for the repository.
const QUERY_SECONDS: u64 = 15;

/// What an evaluator needs to run.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Its data directory.
    pub data: PathBuf,
    /// A token, for the first start.
    pub join_token: Option<String>,
    /// Where the broker is, if not where it was when the component joined.
    pub broker: Option<String>,
    /// What operators call it.
    pub name: String,
}

/// Why an evaluator ends.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The data directory.
    #[error(transparent)]
    Data(#[from] service::data::DataError),
    /// Membership.
    #[error(transparent)]
    Member(#[from] MemberError),
}

/// Runs until it is asked to stop.
pub async fn run(settings: Settings, mut shutdown: Shutdown) -> Result<(), RunError> {
    let _data = service::data::DataDirectory::open(&settings.data)?;
    let member_settings = MemberSettings {
        component_type: ComponentType::PostureEvaluationService,
        name: settings.name,
        data: settings.data.clone(),
        join_token: settings.join_token,
        broker: settings.broker,
        endpoints: Vec::new(),
        tpm: None,
        tied: &[],
    };
    match member::start_unless(&mut shutdown, member_settings).await? {
        Some(member) => Ok(serve(member, ContentStore::new(Some(settings.data.join("policies"))), shutdown).await?),
        None => Ok(()),
    }
}

/// Serves a member's inbox.
pub async fn serve(member: Member, content: ContentStore, mut shutdown: Shutdown) -> Result<(), MemberError> {
    let Member { bus, mut inbox, dismissal, .. } = member;
    let (queue, tasks) = mpsc::channel(TASKS_MAX);
    let evaluator =
        Arc::new(Evaluator { bus: bus.clone(), content, compiled: Mutex::new(None), open: Mutex::default() });
    tokio::spawn(Arc::clone(&evaluator).work(tasks));
    loop {
        tokio::select! {
            () = shutdown.requested() => break,
            message = inbox.recv() => {
                let Some(message) = message else { break };
                evaluator.take(&message, &queue);
            }
        }
    }
    bus.close();
    dismissal.check()
}

struct Task {
    request: EvaluationRequest,
    transaction: TransactionId,
    /// SHA-256 of the envelope that asked.
    asked_by: ContentHash,
}

/// What was observed of an object, when, and by which report it is known.
struct Observation {
    object: ObjectKey,
    collected_object: Collected,
    collected: Timestamp,
    report: Option<ContentHash>,
}

#[derive(Default)]
struct Open {
    requests: BTreeSet<RequestId>,
    cancelled: BTreeSet<RequestId>,
    ended: Vec<(RequestId, MessageId)>,
}

/// The last policy and profile, compiled: most requests in a row are for the same one.
type LastCompiled = Option<(EvaluationKey, Arc<Compiled>)>;
type EvaluationKey = (ContentHash, Option<String>);

struct Evaluator {
    bus: Bus,
    content: ContentStore,
    compiled: Mutex<LastCompiled>,
    open: Mutex<Open>,
}

impl Evaluator {
    fn take(&self, message: &Authentic, queue: &mpsc::Sender<Task>) {
        match ToEvaluator::decode(message.envelope()) {
            Ok(ToEvaluator::EvaluationRequest(request)) => {
                let asked_by = message.hash().clone();
                let task = Task { request: *request, transaction: message.envelope().transaction, asked_by };
                if !self.open_task(task.request.request) {
                    return;
                }
                if let Err(mpsc::error::TrySendError::Full(task) | mpsc::error::TrySendError::Closed(task)) =
                    queue.try_send(task)
                {
                    self.end(
                        &task,
                        Phase::Rejected,
                        Some(Fault::new(FaultCode::Busy, "too many evaluations are waiting")),
                    );
                }
            }
            Ok(ToEvaluator::CancelRequest(cancel)) => {
                let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
                if open.requests.contains(&cancel.request) {
                    open.cancelled.insert(cancel.request);
                }
            }
            Err(fault) => {
                self.bus.count_refusal(&fault);
                let status = self.status(None, None, "evaluate.refused", "a message was refused", Some(fault));
                let _ = self.bus.send(&Topic::Status(self.bus.own()), &status, Context::answering(message));
            }
        }
    }

    /// Whether the request is new: neither open nor ended with its end still on its way.
    fn open_task(&self, request: RequestId) -> bool {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let is_ending = open.ended.iter().any(|(ended, id)| *ended == request && self.bus.is_unacknowledged(*id));
        !is_ending && open.requests.insert(request)
    }

    async fn work(self: Arc<Self>, mut tasks: mpsc::Receiver<Task>) {
        while let Some(task) = tasks.recv().await {
            let (phase, fault) = match self.evaluate(&task).await {
                Ok(()) => (Phase::Completed, None),
                Err(fault) if fault.code == FaultCode::Cancelled => (Phase::Cancelled, Some(fault)),
                Err(fault) => (Phase::Failed, Some(fault)),
            };
            self.end(&task, phase, fault);
        }
    }

    async fn evaluate(&self, task: &Task) -> Result<(), Fault> {
        let request = &task.request;
        let context = Context::of(task.transaction);
        if request.deadline < Timestamp::now() {
            return Err(Fault::new(FaultCode::Expired, "the request's deadline has passed"));
        }
        let total = request.targets.len() as u64;
        self.tell(task, Phase::Accepted, TaskProgress { done: 0, total });
        let compiled = self.compiled(request, context).await?;
        let mut sent = Vec::new();
        for (done, endpoint) in request.targets.iter().enumerate() {
            if self.is_cancelled(request.request) {
                return Err(Fault::new(FaultCode::Cancelled, "cancelled by who asked"));
            }
            let observed = self.observations(request, *endpoint, &compiled.collection.report, context).await?;
            let reports: BTreeMap<ObjectKey, ContentHash> = observed
                .iter()
                .filter_map(|observation| Some((observation.object.clone(), observation.report.clone()?)))
                .collect();
            let since = request.collected_since;
            let plans = Arc::clone(&compiled);
            let evaluation = tokio::task::spawn_blocking(move || decide(&plans, observed, since))
                .await
                .map_err(|_| Fault::new(FaultCode::Internal, "the evaluation failed badly"))?;
            sent.extend(self.publish(task, *endpoint, &compiled.profile, evaluation, &reports)?);
            self.tell(task, Phase::Progress, TaskProgress { done: done as u64 + 1, total });
        }
        // Completed means stored.
        while sent.iter().any(|id| self.bus.is_unacknowledged(*id)) {
            if self.is_cancelled(request.request) {
                return Err(Fault::new(FaultCode::Cancelled, "cancelled by who asked"));
            }
            if request.deadline < Timestamp::now() {
                let text =
                    "no repository has acknowledged the verdicts before the deadline; they are sent until one does";
                return Err(Fault::new(FaultCode::Timeout, text));
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let refused = sent.iter().filter(|id| self.bus.was_given_up(**id)).count();
        if refused > 0 {
            let text = format!("a repository refused {refused} of {} messages with verdicts", sent.len());
            return Err(Fault::new(FaultCode::NotAuthorized, text));
        }
        Ok(())
    }

    fn is_cancelled(&self, request: RequestId) -> bool {
        self.open.lock().unwrap_or_else(PoisonError::into_inner).cancelled.contains(&request)
    }

    async fn compiled(&self, request: &EvaluationRequest, context: Context) -> Result<Arc<Compiled>, Fault> {
        let key = (request.content.sha256.clone(), request.profile.clone());
        if let Some((known, compiled)) = self.compiled.lock().unwrap_or_else(PoisonError::into_inner).as_ref()
            && *known == key
        {
            return Ok(Arc::clone(compiled));
        }
        let ask = Topic::Directed {
            to: request.repository,
            operation: ContentRequest::KIND.to_owned(),
            from: self.bus.own(),
        };
        let bytes = self.content.fetch(&self.bus, &ask, &request.content, context).await?;
        let profile = request.profile.clone();
        let compiled = tokio::task::spawn_blocking(move || {
            let policy = Policy::from_bytes(&bytes)?;
            scap::compile::compile(&policy, profile.as_deref())
        })
        .await
        .map_err(|_| Fault::new(FaultCode::Internal, "the policy could not be compiled"))?
        .map_err(|error| Fault::new(FaultCode::ContentInvalid, error.to_string()))?;
        let compiled = Arc::new(compiled);
        *self.compiled.lock().unwrap_or_else(PoisonError::into_inner) = Some((key, Arc::clone(&compiled)));
        Ok(compiled)
    }

    async fn observations(
        &self,
        request: &EvaluationRequest,
        endpoint: EndpointId,
        objects: &[ObjectKey],
        context: Context,
    ) -> Result<Vec<Observation>, Fault> {
        let ask =
            Topic::Directed { to: request.repository, operation: QueryRequest::KIND.to_owned(), from: self.bus.own() };
        let mut observed = Vec::with_capacity(objects.len());
        let mut at = 0;
        while at < objects.len() {
            let wanted = objects[at..objects.len().min(at + QUERY_OBJECTS)].to_vec();
            let question = QueryRequest { request: Some(request.request), endpoint, objects: wanted, as_of: None };
            let page = self.page(&ask, &question, context).await?;
            if page.answered == 0 {
                return Err(Fault::new(FaultCode::Internal, "the repository answers nothing"));
            }
            at += usize::try_from(page.answered).unwrap_or(usize::MAX);
            for row in page.rows {
                let items =
                    row.items.iter().filter_map(|position| page.items.get(*position as usize).cloned()).collect();
                observed.push(Observation {
                    object: row.object,
                    collected_object: Collected { flag: row.flag, items, messages: row.messages },
                    collected: row.collected,
                    report: row.report,
                });
            }
        }
        Ok(observed)
    }

    async fn page(&self, ask: &Topic, question: &QueryRequest, context: Context) -> Result<QueryResponse, Fault> {
        let mut last = None;
        for _ in 0..3 {
            match self.bus.request(ask, question, context, Duration::from_secs(QUERY_SECONDS)).await {
                Ok(page) => return Ok(page),
                Err(bus::RequestError::Fault(fault)) if !fault.code.is_retryable() => return Err(fault),
                Err(error) => last = Some(error.to_string()),
            }
        }
        Err(Fault::new(FaultCode::Timeout, format!("the repository does not answer: {}", last.unwrap_or_default())))
    }

    fn publish(
        &self,
        task: &Task,
        endpoint: EndpointId,
        profile: &str,
        evaluation: Evaluation,
        reports: &BTreeMap<ObjectKey, ContentHash>,
    ) -> Result<Vec<MessageId>, Fault> {
        let summary = EvaluationSummary {
            transaction: task.transaction,
            endpoint,
            policy: task.request.policy.clone(),
            profile: profile.to_owned(),
            evaluated: Timestamp::now(),
            oldest_collected: evaluation.oldest_collected,
            evaluator: self.bus.own(),
            score: evaluation.score,
            counts: evaluation.counts,
        };
        let rule_count = u32::try_from(evaluation.results.len()).unwrap_or(u32::MAX);
        let mut parts: Vec<_> = evaluation.results.chunks(PART_RULES).map(<[_]>::to_vec).collect();
        if parts.is_empty() {
            parts.push(Vec::new());
        }
        let last = parts.len() - 1;
        let topic = Topic::EvaluationResults(self.bus.own());
        let mut sent = Vec::with_capacity(parts.len());
        for (at, results) in parts.into_iter().enumerate() {
            let message = EvaluationResults {
                request: task.request.request,
                task: Some(task.asked_by.clone()),
                endpoint,
                part: u32::try_from(at).unwrap_or(u32::MAX),
                rule_count,
                evidence: evidence_of(&results, reports),
                results,
                summary: (at == last).then(|| summary.clone()),
            };
            let kept = self.bus.send_durable(&topic, &message, Context::of(task.transaction));
            sent.push(kept.map_err(|error| Fault::new(FaultCode::Internal, error.to_string()))?);
        }
        Ok(sent)
    }

    fn status(
        &self,
        request: Option<RequestId>,
        phase: Option<Phase>,
        code: &str,
        text: &str,
        fault: Option<Fault>,
    ) -> StatusNotification {
        StatusNotification {
            publisher: self.bus.own(),
            message: text.to_owned(),
            code: code.to_owned(),
            request,
            phase,
            progress: None,
            fault,
        }
    }

    fn tell(&self, task: &Task, phase: Phase, progress: TaskProgress) {
        let mut status = self.status(Some(task.request.request), Some(phase), "evaluate.progress", "evaluating", None);
        status.progress = Some(progress);
        let _ = self.bus.send(&Topic::Status(self.bus.own()), &status, Context::of(task.transaction));
    }

    fn end(&self, task: &Task, phase: Phase, fault: Option<Fault>) {
        let request = task.request.request;
        let (code, text) = match phase {
            Phase::Completed => ("evaluate.completed", "every verdict is stored"),
            Phase::Cancelled => ("evaluate.cancelled", "cancelled"),
            Phase::Rejected => ("evaluate.rejected", "refused"),
            _ => ("evaluate.failed", "the evaluation failed"),
        };
        let status = self.status(Some(request), Some(phase), code, text, fault);
        let kept = self.bus.send_durable(&Topic::Status(self.bus.own()), &status, Context::of(task.transaction));
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.requests.remove(&request);
        open.cancelled.remove(&request);
        let bus = &self.bus;
        open.ended.retain(|(_, id)| bus.is_unacknowledged(*id));
        match kept {
            Ok(id) => open.ended.push((request, id)),
            Err(error) => tracing::error!(%error, "the end of a task cannot be kept"),
        }
    }
}

/// The reports that these verdicts rest on.
fn evidence_of(results: &[RuleResult], reports: &BTreeMap<ObjectKey, ContentHash>) -> Vec<Evidence> {
    let mut objects: BTreeMap<&ContentHash, BTreeSet<&ObjectKey>> = BTreeMap::new();
    for object in results.iter().flat_map(|result| &result.objects) {
        if let Some(report) = reports.get(object) {
            objects.entry(report).or_default().insert(object);
        }
    }
    let evidence = objects
        .into_iter()
        .map(|(report, objects)| Evidence { report: report.clone(), objects: objects.into_iter().cloned().collect() });
    evidence.collect()
}

fn decide(compiled: &Compiled, observed: Vec<Observation>, collected_since: Option<Timestamp>) -> Evaluation {
    let observations = observed
        .into_iter()
        .map(|Observation { object, collected_object, collected, .. }| {
            (object, Observed { collected_object: Rc::new(collected_object), collected })
        })
        .collect();
    scap::evaluate::evaluate(compiled, &scap::evaluate::Evidence { observations, collected_since }, Timestamp::now())
}
