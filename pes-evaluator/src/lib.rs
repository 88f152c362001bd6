//! The posture evaluation service: compares stored observations with policy.
//!
//! Listens: evaluation requests from the orchestrator. Asks: the repository for the policy and for
//! observations. Tells: the repositories its verdicts, the orchestrator how each request ended. Never:
//! contacts an endpoint.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bus::{Authentic, Bus, Context};
use jiff::Timestamp;
use proto::capability::ComponentType;
use proto::content::ContentHash;
use proto::fault::{Fault, FaultCode};
use proto::id::{EndpointId, MessageId, RequestId, TransactionId};
use proto::limits::RESULT_PART_BYTES;
use proto::message::{
    About, EvaluationRequest, EvaluationResults, Evidence, Message, Phase, Priority, StatusNotification, TaskProgress,
    ToEvaluator,
};
use proto::plan::ObjectKey;
use proto::topic::Topic;
use proto::verdict::{EvaluationSummary, RuleResult};
use scap::policy::Policy;
use service::config::{self, ConfigError, DaemonConfig};
use service::content::ContentStore;
use service::member::{self, Member, MemberError, MemberSettings};
use service::shutdown::Shutdown;
use tokio::sync::mpsc;

mod deciding;
mod fleet;
mod repositories;
mod versions;

use deciding::{Decided, Prepared};
use fleet::Fleet;
use repositories::Repositories;
use versions::{Engine, Others, may_take_over};

/// Requests that wait at one evaluator.
const TASKS_MAX: usize = 256;
/// Endpoints that are evaluated at a time, each by itself.
const ENDPOINTS_AT_ONCE: usize = 64;
/// Endpoints that are evaluated together, and how many times so many are at a time.
const TOGETHER: usize = 64;
const TOGETHER_AT_ONCE: usize = 3;
/// Messages that no repository has acknowledged while more are made: a repository that is slower is waited for, and has not to
/// send any of them back. Of those about many endpoints fewer.
const UNACKNOWLEDGED_MAX: usize = 256;
const UNACKNOWLEDGED_OF_MANY_MAX: usize = 6;
/// How often acknowledgements are looked for.
const ACKNOWLEDGED: Duration = Duration::from_millis(20);
/// Policies and profiles that are kept compiled.
const PREPARED_MAX: usize = 4;
/// Seconds after which it is said again how far a task is. The orchestrator waits for several of these before it gives the task
/// to another evaluator.
const WORD_SECONDS: u64 = 5;

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

impl TryFrom<&DaemonConfig> for Settings {
    type Error = ConfigError;

    fn try_from(config: &DaemonConfig) -> Result<Self, ConfigError> {
        Ok(Self {
            data: config.data.clone().unwrap_or_else(|| PathBuf::from("/var/lib/muster/pes-evaluator")),
            join_token: config.join_token.clone(),
            broker: config::address("broker", config.broker.as_ref())?,
            name: config.name.clone().unwrap_or_else(|| "evaluator".to_owned()),
        })
    }
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
        store: None,
    };
    match member::start_unless(&mut shutdown, member_settings).await? {
        Some(member) => Ok(serve(member, ContentStore::new(Some(settings.data.join("policies"))), shutdown).await?),
        None => Ok(()),
    }
}

/// Serves a member's inbox.
pub async fn serve(member: Member, content: ContentStore, mut shutdown: Shutdown) -> Result<(), MemberError> {
    let Member { bus, mut inbox, dismissal, .. } = member;
    let (interactive, first) = mpsc::channel(TASKS_MAX);
    let (scheduled, then) = mpsc::channel(TASKS_MAX);
    let queues = Queues { interactive, scheduled };
    let evaluator = Arc::new(Evaluator {
        repositories: Repositories::new(bus.clone()),
        bus: bus.clone(),
        content,
        prepared: Mutex::default(),
        open: Mutex::default(),
        engine: Engine::own(),
    });
    tokio::spawn(Arc::clone(&evaluator).work(first, then));
    loop {
        tokio::select! {
            () = shutdown.requested() => break,
            message = inbox.recv() => {
                let Some(message) = message else { break };
                evaluator.take(&message, &queues);
            }
        }
    }
    bus.close();
    dismissal.check()
}

/// Tasks that wait: those for which somebody waits go first.
struct Queues {
    interactive: mpsc::Sender<Task>,
    scheduled: mpsc::Sender<Task>,
}

struct Task {
    request: EvaluationRequest,
    transaction: TransactionId,
    /// SHA-256 of the envelope that asked.
    asked_by: ContentHash,
    /// How many endpoints are decided.
    done: AtomicU64,
    /// Whether the repository answers about many endpoints at once, and so takes verdicts on many at once.
    is_together: AtomicBool,
}

impl Task {
    /// How many endpoints it is about.
    fn total(&self) -> u64 {
        self.request.targets.len() as u64
    }
}

#[derive(Default)]
struct Open {
    requests: BTreeSet<RequestId>,
    cancelled: BTreeSet<RequestId>,
    ended: Vec<(RequestId, MessageId)>,
}

/// Those of late: most requests in a row are for the same ones.
type PreparedOfLate = Vec<(EvaluationKey, Arc<Prepared>)>;
type EvaluationKey = (ContentHash, Option<String>);

struct Evaluator {
    bus: Bus,
    repositories: Repositories,
    content: ContentStore,
    prepared: Mutex<PreparedOfLate>,
    open: Mutex<Open>,
    engine: Engine,
}

impl Evaluator {
    fn take(&self, message: &Authentic, queues: &Queues) {
        match ToEvaluator::decode(message.envelope()) {
            Ok(ToEvaluator::EvaluationRequest(mut request)) => {
                let mut targets = BTreeSet::new();
                request.targets.retain(|endpoint| targets.insert(*endpoint));
                let asked_by = message.hash().clone();
                let transaction = message.envelope().transaction;
                // What has changed is decided from what was decided before, of each endpoint by itself.
                let is_together = (request.targets.len() > 1 && request.changed.is_empty()).into();
                let task = Task { request: *request, transaction, asked_by, done: AtomicU64::new(0), is_together };
                if !self.open_task(task.request.request) {
                    return;
                }
                let queue = match task.request.priority {
                    Priority::Interactive => &queues.interactive,
                    Priority::Scheduled => &queues.scheduled,
                };
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

    async fn work(self: Arc<Self>, mut first: mpsc::Receiver<Task>, mut then: mpsc::Receiver<Task>) {
        loop {
            let task = tokio::select! {
                biased;
                Some(task) = first.recv() => task,
                Some(task) = then.recv() => task,
                else => return,
            };
            let task = Arc::new(task);
            let outcome = tokio::select! {
                outcome = self.evaluate(Arc::clone(&task)) => outcome,
                never = self.say_again(&task) => match never {},
            };
            let (phase, fault) = match outcome {
                Ok(()) => (Phase::Completed, None),
                Err(fault) if fault.code == FaultCode::Cancelled => (Phase::Cancelled, Some(fault)),
                Err(fault) => (Phase::Failed, Some(fault)),
            };
            self.end(&task, phase, fault);
        }
    }

    /// Says how far a task is, again and again, also where that is as far as before.
    async fn say_again(&self, task: &Task) -> Infallible {
        loop {
            tokio::time::sleep(Duration::from_secs(WORD_SECONDS)).await;
            self.tell(task, Phase::Progress);
        }
    }

    async fn evaluate(self: &Arc<Self>, task: Arc<Task>) -> Result<(), Fault> {
        let request = &task.request;
        let context = Context::of(task.transaction);
        if request.deadline < Timestamp::now() {
            return Err(Fault::new(FaultCode::Expired, "the request's deadline has passed"));
        }
        let total = task.total();
        self.tell(&task, Phase::Accepted);
        let prepared = self.prepared(request, context).await?;
        let others = Arc::new(self.others(&task, &prepared));
        let mut sent = Vec::new();
        let mut told = tokio::time::Instant::now();
        // Questions to the repository overlap.
        let mut open = tokio::task::JoinSet::new();
        let mut rest = request.targets.as_slice();
        loop {
            if self.is_cancelled(request.request) {
                return Err(Fault::new(FaultCode::Cancelled, "cancelled by who asked"));
            }
            while !rest.is_empty() {
                let (together, at_once, unacknowledged) = if task.is_together.load(Ordering::Relaxed) {
                    (TOGETHER, TOGETHER_AT_ONCE, UNACKNOWLEDGED_OF_MANY_MAX)
                } else {
                    (1, ENDPOINTS_AT_ONCE, UNACKNOWLEDGED_MAX)
                };
                if open.len() >= at_once || self.bus.unacknowledged_count() >= unacknowledged {
                    break;
                }
                let (some, left) = rest.split_at(rest.len().min(together));
                rest = left;
                let (this, task, prepared) = (Arc::clone(self), Arc::clone(&task), Arc::clone(&prepared));
                let (endpoints, others) = (some.to_vec(), Arc::clone(&others));
                open.spawn(async move {
                    let published = this.evaluate_endpoints(&task, &endpoints, &prepared, &others).await;
                    published.map(|published| (endpoints.len() as u64, published))
                });
            }
            let Some(published) = open.join_next().await else {
                if rest.is_empty() {
                    break;
                }
                self.wait_for_acknowledgements(request).await?;
                continue;
            };
            let (count, published) =
                published.map_err(|_| Fault::new(FaultCode::Internal, "the evaluation failed badly"))??;
            sent.extend(published);
            let done = task.done.fetch_add(count, Ordering::Relaxed) + count;
            // A few times a second is enough for a person.
            if done == total || told.elapsed() > Duration::from_millis(200) {
                told = tokio::time::Instant::now();
                self.tell(&task, Phase::Progress);
            }
        }
        // Completed means stored.
        while sent.iter().any(|id| self.bus.is_unacknowledged(*id)) {
            self.wait_for_acknowledgements(request).await?;
        }
        let refused = sent.iter().filter(|id| self.bus.was_given_up(**id)).count();
        if refused > 0 {
            let text = format!("a repository refused {refused} of {} messages with verdicts", sent.len());
            return Err(Fault::new(FaultCode::NotAuthorized, text));
        }
        Ok(())
    }

    /// A moment for repositories to acknowledge verdicts; an error where nobody waits for them any more.
    async fn wait_for_acknowledgements(&self, request: &EvaluationRequest) -> Result<(), Fault> {
        if self.is_cancelled(request.request) {
            return Err(Fault::new(FaultCode::Cancelled, "cancelled by who asked"));
        }
        if request.deadline < Timestamp::now() {
            let text = "no repository has acknowledged the verdicts before the deadline; they are sent until one does";
            return Err(Fault::new(FaultCode::Timeout, text));
        }
        tokio::time::sleep(ACKNOWLEDGED).await;
        Ok(())
    }

    /// Evaluates these endpoints, together where the repository answers about many.
    async fn evaluate_endpoints(
        &self,
        task: &Task,
        endpoints: &[EndpointId],
        prepared: &Arc<Prepared>,
        others: &Others,
    ) -> Result<Vec<MessageId>, Fault> {
        let mut sent = Vec::new();
        let mut fleet = Fleet::new(task, prepared);
        let mut whole = endpoints.to_vec();
        if whole.len() > 1 && others.are_hoped_for() && task.is_together.load(Ordering::Relaxed) {
            let evaluated = Timestamp::now();
            let decided = self.decide_unshared(task, endpoints, prepared, (others, evaluated)).await?;
            let mut decided = decided.into_iter();
            whole.clear();
            for endpoint in endpoints {
                match decided.next().flatten() {
                    Some(decided) => sent.extend(self.add(task, *endpoint, &mut fleet, (&decided, evaluated))?),
                    None => whole.push(*endpoint),
                }
            }
        }
        let all: Vec<usize> = (0..prepared.objects().len()).collect();
        let mut rest = whole.as_slice();
        while rest.len() > 1 && task.is_together.load(Ordering::Relaxed) {
            // As of the time before anything is read: what changes meanwhile is newer.
            let evaluated = Timestamp::now();
            let Some(seen) = self.seen_of_many(task, rest, prepared, &all).await? else {
                task.is_together.store(false, Ordering::Relaxed);
                break;
            };
            for seen in seen {
                let Some((endpoint, others)) = rest.split_first() else { break };
                rest = others;
                let decided = self.decide_seen(task, *endpoint, prepared, seen).await?;
                sent.extend(self.add(task, *endpoint, &mut fleet, (&decided, evaluated))?);
            }
        }
        sent.extend(self.publish_fleet(task, &mut fleet)?);
        for endpoint in rest {
            sent.extend(self.evaluate_endpoint(task, *endpoint, prepared).await?);
        }
        Ok(sent)
    }

    /// Puts what was decided on an endpoint to what was decided on others; what there is no room for is sent.
    fn add(
        &self,
        task: &Task,
        endpoint: EndpointId,
        fleet: &mut Fleet<'_>,
        (decided, evaluated): (&Decided, Timestamp),
    ) -> Result<Vec<MessageId>, Fault> {
        let mut sent = Vec::new();
        if !fleet.has_room_for(decided) {
            sent.extend(self.publish_fleet(task, fleet)?);
            if !fleet.has_room_for(decided) {
                sent.extend(self.publish(task, endpoint, fleet.prepared(), (decided, evaluated))?);
                return Ok(sent);
            }
        }
        let summary = self.summary(task, endpoint, fleet.prepared(), (decided, evaluated));
        fleet.add(decided, summary);
        Ok(sent)
    }

    async fn evaluate_endpoint(
        &self,
        task: &Task,
        endpoint: EndpointId,
        prepared: &Arc<Prepared>,
    ) -> Result<Vec<MessageId>, Fault> {
        // As of the time before anything is read: what changes meanwhile is newer.
        let evaluated = Timestamp::now();
        let decided = match self.decide_changed(task, endpoint, prepared).await? {
            Some(decided) => decided,
            None => self.decide_all(task, endpoint, prepared).await?,
        };
        self.publish(task, endpoint, prepared, (&decided, evaluated))
    }

    fn is_cancelled(&self, request: RequestId) -> bool {
        self.open.lock().unwrap_or_else(PoisonError::into_inner).cancelled.contains(&request)
    }

    async fn prepared(&self, request: &EvaluationRequest, context: Context) -> Result<Arc<Prepared>, Fault> {
        let key = (request.content.sha256.clone(), request.profile.clone());
        let is_known = |known: &PreparedOfLate| {
            known.iter().find(|(known, _)| *known == key).map(|(_, prepared)| Arc::clone(prepared))
        };
        if let Some(prepared) = is_known(&self.prepared.lock().unwrap_or_else(PoisonError::into_inner)) {
            return Ok(prepared);
        }
        let bytes = self.repositories.policy(&self.content, request, context).await?;
        let profile = request.profile.clone();
        let compiled = tokio::task::spawn_blocking(move || {
            let policy = Policy::from_bytes(&bytes)?;
            scap::compile::compile(&policy, profile.as_deref())
        })
        .await
        .map_err(|_| Fault::new(FaultCode::Internal, "the policy could not be compiled"))?
        .map_err(|error| Fault::new(FaultCode::ContentInvalid, error.to_string()))?;
        let prepared = Arc::new(Prepared::of(compiled));
        let mut known = self.prepared.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= PREPARED_MAX {
            known.remove(0);
        }
        known.push((key, Arc::clone(&prepared)));
        Ok(prepared)
    }

    /// Other versions of what a task evaluates, of those that were evaluated of late; none where all of it is decided.
    fn others(&self, task: &Task, prepared: &Prepared) -> Others {
        if !may_take_over(&task.request) {
            return Others::default();
        }
        let of_profile: Vec<(ContentHash, Arc<Prepared>)> = {
            let known = self.prepared.lock().unwrap_or_else(PoisonError::into_inner);
            let of_profile = known.iter().filter(|((_, profile), _)| *profile == task.request.profile);
            of_profile.map(|((content, _), known)| (content.clone(), Arc::clone(known))).collect()
        };
        Others::of(task, prepared, &of_profile)
    }

    /// What was decided on an endpoint, in short.
    fn summary(
        &self,
        task: &Task,
        endpoint: EndpointId,
        prepared: &Prepared,
        (decided, evaluated): (&Decided, Timestamp),
    ) -> EvaluationSummary {
        let (request, tally) = (&task.request, &decided.tally);
        EvaluationSummary {
            transaction: task.transaction,
            endpoint,
            policy: request.policy.clone(),
            profile: prepared.compiled.profile.clone(),
            evaluated,
            oldest_collected: decided.oldest_collected,
            evaluator: self.bus.own(),
            score: tally.score,
            counts: tally.counts.clone(),
            as_of: request.as_of,
            collected_since: request.collected_since,
            is_fresh: Some(decided.is_fresh),
            content: Some(request.content.sha256.clone()),
            verdicts: tally.letters.clone(),
            is_partial: decided.is_partial,
            knowledge: decided.knowledge.as_ref().and_then(|knowledge| self.engine.decided_on(knowledge)),
        }
    }

    /// Sends the verdicts on many endpoints that are put together, if there are any.
    fn publish_fleet(&self, task: &Task, fleet: &mut Fleet<'_>) -> Result<Option<MessageId>, Fault> {
        fleet.take().map(|message| self.send_results(task, &message)).transpose()
    }

    fn send_results<M: Message>(&self, task: &Task, message: &M) -> Result<MessageId, Fault> {
        let topic = Topic::EvaluationResults(self.bus.own());
        let kept = self.bus.send_durable(&topic, message, Context::of(task.transaction));
        kept.map_err(|error| Fault::new(FaultCode::Internal, error.to_string()))
    }

    fn publish(
        &self,
        task: &Task,
        endpoint: EndpointId,
        prepared: &Prepared,
        (decided, evaluated): (&Decided, Timestamp),
    ) -> Result<Vec<MessageId>, Fault> {
        let Decided { decisions, reports, is_partial, .. } = decided;
        let request = &task.request;
        let summary = self.summary(task, endpoint, prepared, (decided, evaluated));
        let rule_count = u32::try_from(decisions.len()).unwrap_or(u32::MAX);
        let parts = parts_of(decisions.iter().map(|(_, decision)| decision.result.clone()).collect());
        let about = About {
            policy: request.policy.clone(),
            profile: summary.profile.clone(),
            evaluated,
            content: Some(request.content.sha256.clone()),
            part_count: u32::try_from(parts.len()).unwrap_or(u32::MAX),
            is_current: request.as_of.is_none(),
            is_partial: *is_partial,
        };
        let last = parts.len() - 1;
        let mut sent = Vec::with_capacity(parts.len());
        for (at, results) in parts.into_iter().enumerate() {
            let message = EvaluationResults {
                request: request.request,
                task: Some(task.asked_by.clone()),
                endpoint,
                about: Some(about.clone()),
                part: u32::try_from(at).unwrap_or(u32::MAX),
                rule_count,
                evidence: evidence_for(&results, prepared, reports),
                results,
                summary: (at == last).then(|| summary.clone()),
            };
            sent.push(self.send_results(task, &message)?);
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

    fn tell(&self, task: &Task, phase: Phase) {
        let progress = TaskProgress { done: task.done.load(Ordering::Relaxed), total: task.total() };
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
fn evidence_for(results: &[RuleResult], prepared: &Prepared, reports: &[Option<Arc<ContentHash>>]) -> Vec<Evidence> {
    let mut objects: BTreeMap<&ContentHash, BTreeSet<&ObjectKey>> = BTreeMap::new();
    for object in results.iter().flat_map(|result| &result.objects) {
        let position = prepared.position(object);
        if let Some(report) = position.and_then(|position| reports.get(position)?.as_deref()) {
            objects.entry(report).or_default().insert(object);
        }
    }
    let evidence = objects
        .into_iter()
        .map(|(report, objects)| Evidence { report: report.clone(), objects: objects.into_iter().cloned().collect() });
    evidence.collect()
}

/// Verdicts, cut into messages.
fn parts_of(results: Vec<RuleResult>) -> Vec<Vec<RuleResult>> {
    let (mut parts, mut bytes) = (vec![Vec::new()], 0);
    for result in results {
        let size = serde_json::to_vec(&result).map_or(0, |json| json.len());
        if bytes + size > RESULT_PART_BYTES && bytes > 0 {
            parts.push(Vec::new());
            bytes = 0;
        }
        bytes += size;
        parts.last_mut().expect("there is always one").push(result);
    }
    parts
}
