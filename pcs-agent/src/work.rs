//! Tasks: one at a time, from the request to its one terminal status. Looks of observations wait in
//! the same line.
//!
//! A task that a killed process leaves behind is asked for again by the orchestrator when the
//! collector comes back; doing it twice stores the same observations once.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bus::{Authentic, Bus, Context};
use jiff::Timestamp;
use oval::resolve::Resolver;
use proto::budget::Budget;
use proto::content::ContentHash;
use proto::fault::{Fault, FaultCode};
use proto::id::{EndpointId, MessageId, RequestId, TransactionId};
use proto::message::{
    COLLECTION_CUT, CollectionRequest, CollectionResults, ContentRequest, Message as _, ObservationEntry,
    ObservationOperation, ObservationRequest, ObservationResponse, PeriodicCollection, PeriodicCollectionResponse,
    Phase, Priority, StatusNotification, TaskProgress,
};
use proto::observation::{EndpointFacts, Method};
use proto::plan::{CollectionPlan, ObjectKey};
use proto::topic::Topic;
use service::content::{self, ContentStore};
use service::member::Assigned;
use service::reload::Live;
use tokio::sync::{mpsc, watch};
use uuid::Uuid;

use crate::clock::KeptClock;
use crate::host::Host;
use crate::looking::{self, Pulse};
use crate::observe::{Look, Observations};
use crate::pause::Pause;
use crate::probe::Probes;
use crate::report::Found;
use crate::schedule::{Run, Schedules};
use crate::script::Scripts;
use crate::watch::{Watch, reaches};
use crate::{RunError, SELF, Settings, facts, limits, report};

/// How often schedules and observations are looked after.
const TICK: Duration = Duration::from_millis(200);

/// A request with the workflow that it belongs to.
#[derive(Debug, Clone)]
struct Task {
    request: CollectionRequest,
    transaction: TransactionId,
    /// What it is a run of.
    standing: Option<RequestId>,
    /// SHA-256 of the envelope that asked.
    asked_by: Option<ContentHash>,
}

/// What waits in line.
#[derive(Debug)]
enum Job {
    /// A request.
    Task(Task),
    /// A look of an observation.
    Look(Look),
}

pub(crate) struct Worker {
    bus: Bus,
    assigned: watch::Receiver<Assigned>,
    root: PathBuf,
    budget: Live<Budget>,
    scripts: Option<Scripts>,
    content: ContentStore,
    /// What somebody waits for goes first.
    interactive: mpsc::Sender<Job>,
    scheduled: mpsc::Sender<Job>,
    state: Mutex<State>,
    schedules: tokio::sync::Mutex<Schedules>,
    observations: tokio::sync::Mutex<Observations>,
    watch: Mutex<Watch>,
    pause: Arc<Pause>,
    clock: Mutex<KeptClock>,
}

#[derive(Default)]
struct State {
    /// Requests that are waiting or running; whether somebody wants no more of them, which ends the looking in the middle.
    open: BTreeMap<RequestId, Arc<AtomicBool>>,
    /// Terminal statuses that nobody has acknowledged yet, by request.
    ended: BTreeMap<RequestId, MessageId>,
    /// What was done of late, with the words that said so.
    done: VecDeque<(RequestId, Instant, StatusNotification)>,
}

impl State {
    fn done_of_late(&self, request: RequestId) -> Option<StatusNotification> {
        let is_late = |time: &Instant| time.elapsed() < Duration::from_secs(limits::DONE_SECONDS);
        self.done.iter().find(|(done, time, _)| *done == request && is_late(time)).map(|(_, _, status)| status.clone())
    }

    fn note_done(&mut self, request: RequestId, status: StatusNotification) {
        if status.phase == Some(Phase::Completed) {
            self.done.retain(|(done, ..)| *done != request);
            self.done.push_back((request, Instant::now(), status));
            if self.done.len() > limits::TASKS_MAX {
                self.done.pop_front();
            }
        }
    }
}

impl Worker {
    pub(crate) fn start(
        bus: Bus,
        assigned: watch::Receiver<Assigned>,
        settings: &Settings,
    ) -> Result<Arc<Self>, RunError> {
        let (interactive, first) = mpsc::channel(limits::TASKS_MAX);
        let (scheduled, then) = mpsc::channel(limits::TASKS_MAX);
        let schedules = Schedules::load(&settings.data.join("schedules.json"))?;
        let observations = Observations::load(&settings.data.join("observations.json"))?;
        let clock = KeptClock::load(&settings.data.join("clock.json"))?;
        let worker = Arc::new(Self {
            bus,
            assigned,
            root: settings.root.clone(),
            budget: settings.budget.clone(),
            scripts: settings.scripts.clone(),
            content: ContentStore::new(Some(settings.data.join("plans"))),
            interactive,
            scheduled,
            state: Mutex::default(),
            schedules: tokio::sync::Mutex::new(schedules),
            observations: tokio::sync::Mutex::new(observations),
            watch: Mutex::new(Watch::new(&settings.root)),
            pause: Arc::default(),
            clock: Mutex::new(clock),
        });
        tokio::spawn(follow_pause(worker.assigned.clone(), Arc::clone(&worker.pause)));
        tokio::spawn(Arc::clone(&worker).work(first, then));
        tokio::spawn(Arc::clone(&worker).keep_schedules());
        Ok(worker)
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a request on, or says why not.
    pub(crate) fn request(&self, request: CollectionRequest, message: &Authentic) {
        let transaction = message.envelope().transaction;
        let task = Task { request, transaction, standing: None, asked_by: Some(message.hash().clone()) };
        let fault = if task.request.deadline < Timestamp::now() {
            Some(Fault::new(FaultCode::Expired, "the request's deadline has passed"))
        } else {
            // After a start the label comes with the handshake, and is looked at then.
            self.endpoint().and_then(|own| not_meant(&task.request, own))
        };
        if let Some(fault) = fault {
            return self.end(&task, Phase::Rejected, Some(fault));
        }
        self.enqueue(task);
    }

    fn enqueue(&self, task: Task) {
        {
            let mut state = self.state();
            // Asked again while it is open, or while its end is on its way: nothing to do.
            let is_ending = state.ended.get(&task.request.request).is_some_and(|id| self.bus.is_unacknowledged(*id));
            if is_ending || state.open.contains_key(&task.request.request) {
                return;
            }
            state.open.insert(task.request.request, Arc::default());
        }
        // Asked again after a break by who has not heard the end of it: it is said again, not done again.
        let done = self.state().done_of_late(task.request.request);
        if let Some(status) = done {
            return self.end_with(&task, status);
        }
        let is_scheduled = task.standing.is_some() || task.request.priority == Priority::Scheduled;
        let queue = if is_scheduled { &self.scheduled } else { &self.interactive };
        if let Err(refused) = queue.try_send(Job::Task(task)) {
            let Job::Task(task) = refused.into_inner() else { return };
            self.state().open.remove(&task.request.request);
            let text = format!("{} tasks are waiting already", limits::TASKS_MAX);
            self.end(&task, Phase::Rejected, Some(Fault::new(FaultCode::Busy, text)));
        }
    }

    pub(crate) fn cancel(&self, request: RequestId) {
        if let Some(is_cancelled) = self.state().open.get(&request) {
            is_cancelled.store(true, Ordering::Relaxed);
        }
    }

    /// Says that a message was refused, to who sent it and on the status topic.
    pub(crate) fn refuse(&self, message: &Authentic, fault: Fault) {
        self.bus.count_refusal(&fault);
        let status = self.status(
            None,
            None,
            "collect.refused",
            &format!("`{}` was refused", message.envelope().kind),
            Some(fault),
        );
        self.send_status(&status, Context::answering(message));
    }

    pub(crate) async fn periodic(&self, request: PeriodicCollection, message: &Authentic) {
        let asked = (message.envelope().from, Some(message.hash().clone()));
        let outcome = self.schedules.lock().await.apply(request, asked, Timestamp::now());
        match outcome {
            Ok(outcome) => {
                let up = Topic::AdminUp(self.bus.own(), PeriodicCollectionResponse::KIND.to_owned());
                let _ = self.bus.send(&up, &outcome.response, Context::answering(message));
                if let Some(run) = outcome.run_now {
                    self.enqueue(Self::task_of(run));
                }
            }
            Err(error) => {
                tracing::error!(%error, "schedules");
                self.refuse(message, Fault::new(FaultCode::Internal, "the schedules cannot be kept"));
            }
        }
    }

    pub(crate) async fn observation(&self, request: ObservationRequest, message: &Authentic) {
        let (operation, identifier) = (request.operation, request.observation_identifier.clone());
        // How it is watched is part of the answer, and follows from the plan.
        let plan = match (operation, &request.collection_instructions) {
            (ObservationOperation::Start, Some(instructions)) => {
                self.plan_of(instructions, Context::of(message.envelope().transaction)).await.ok()
            }
            _ => None,
        };
        let outcome = {
            let asked = (message.envelope().from, Some(message.hash().clone()));
            let mut observations = self.observations.lock().await;
            let outcome = observations.apply(request, asked);
            match (operation, &outcome) {
                (ObservationOperation::Start, Ok(ObservationResponse { fault: None, .. })) => {
                    if let Some(plan) = plan {
                        self.watch_plan(&mut observations, &identifier, &plan);
                    }
                    outcome
                }
                (ObservationOperation::Cancel, Ok(_)) => {
                    self.watch.lock().unwrap_or_else(PoisonError::into_inner).remove(&identifier);
                    outcome
                }
                _ => outcome,
            }
        };
        let outcome = match outcome {
            Ok(response) if operation == ObservationOperation::Start && response.fault.is_none() => {
                let observations = self.started(&identifier).await;
                Ok(ObservationResponse { observations, ..response })
            }
            outcome => outcome,
        };
        match outcome {
            Ok(response) => {
                let up = Topic::AdminUp(self.bus.own(), ObservationResponse::KIND.to_owned());
                let _ = self.bus.send(&up, &response, Context::answering(message));
            }
            Err(error) => {
                tracing::error!(%error, "observations");
                self.refuse(message, Fault::new(FaultCode::Internal, "the observations cannot be kept"));
            }
        }
    }

    /// An observation that was started, as it is listed: soon it is known whether systemd is listened to.
    async fn started(&self, identifier: &str) -> Vec<ObservationEntry> {
        let known = self.watch.lock().unwrap_or_else(PoisonError::into_inner).units_known(identifier);
        if let Some(mut known) = known {
            let _ = tokio::time::timeout(limits::LISTENING_PATIENCE, known.wait_for(Option::is_some)).await;
            let followed = self.watch.lock().unwrap_or_else(PoisonError::into_inner).followed(identifier);
            self.observations.lock().await.follow(identifier, followed);
        }
        self.observations.lock().await.entries_of(identifier)
    }

    async fn plan_of(&self, instructions: &CollectionRequest, context: Context) -> Result<CollectionPlan, Fault> {
        let ask = Topic::AdminUp(self.bus.own(), ContentRequest::KIND.to_owned());
        let bytes = self.content.fetch(&self.bus, &ask, &instructions.plan, context).await?;
        content::plan_of(&bytes)
    }

    /// Has the kernel tell what an observation reads.
    fn watch_plan(&self, observations: &mut Observations, identifier: &str, plan: &CollectionPlan) {
        let mut watch = self.watch.lock().unwrap_or_else(PoisonError::into_inner);
        let followed = watch.set(identifier, reaches(plan));
        observations.follow(identifier, followed);
    }

    /// A run of a schedule: a request of its own.
    fn task_of(Run { instructions, asked_by }: Run) -> Task {
        let deadline = Timestamp::now() + jiff::SignedDuration::from_hours(1);
        let standing = Some(instructions.request);
        let request = CollectionRequest { request: RequestId(Uuid::now_v7()), deadline, ..instructions };
        Task { request, transaction: TransactionId(Uuid::now_v7()), standing, asked_by }
    }

    async fn keep_schedules(self: Arc<Self>) {
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut running = BTreeMap::new();
        loop {
            tick.tick().await;
            self.run_schedules(&mut running).await;
            let now = Timestamp::now();
            let mut observations = self.observations.lock().await;
            self.take_told(&mut observations, now);
            // Where all is told of, the next look may be long in coming, and others would miss what was refused until then.
            self.settle(&mut observations);
            for look in observations.due(now) {
                let (identifier, generation) = (look.identifier.clone(), look.generation);
                if self.scheduled.try_send(Job::Look(look)).is_err() {
                    observations.lost(&identifier, generation);
                }
            }
        }
    }

    /// What became of the reports that were sent.
    fn settle(&self, observations: &mut Observations) {
        observations.settle(|id| self.bus.is_unacknowledged(id), |id| self.bus.was_given_up(id));
    }

    /// What was told since the last time.
    fn take_told(&self, observations: &mut Observations, now: Timestamp) {
        let mut watch = self.watch.lock().unwrap_or_else(PoisonError::into_inner);
        let (dirty, is_refreshed) = watch.take();
        for (identifier, objects) in dirty {
            observations.touched(&identifier, objects, now);
        }
        if is_refreshed {
            // More may be told of, or less, than before.
            for identifier in watch.identifiers() {
                observations.follow(&identifier, watch.followed(&identifier));
            }
        }
    }

    /// Begins the runs that are due; `running` is the latest of each schedule.
    async fn run_schedules(&self, running: &mut BTreeMap<String, RequestId>) {
        let mut schedules = self.schedules.lock().await;
        match schedules.due(Timestamp::now()) {
            Ok(due) => {
                for (identifier, run) in due {
                    let is_running =
                        running.get(&identifier).is_some_and(|before| self.state().open.contains_key(before));
                    if is_running && schedules.skips_overlaps(&identifier) {
                        tracing::warn!(identifier, "a run is left out: the one before goes on");
                        continue;
                    }
                    let task = Self::task_of(run);
                    running.insert(identifier, task.request.request);
                    self.enqueue(task);
                }
            }
            Err(error) => tracing::error!(%error, "schedules"),
        }
    }

    fn endpoint(&self) -> Option<EndpointId> {
        self.assigned.borrow().endpoints.iter().find(|(name, _)| name == SELF).map(|(_, endpoint)| *endpoint)
    }

    async fn work(self: Arc<Self>, mut first: mpsc::Receiver<Job>, mut then: mpsc::Receiver<Job>) {
        loop {
            let job = tokio::select! {
                biased;
                Some(job) = first.recv() => job,
                Some(job) = then.recv() => job,
                else => return,
            };
            match job {
                Job::Look(look) => {
                    let (identifier, generation) = (look.identifier.clone(), look.generation);
                    if let Err(fault) = self.look_again(look).await {
                        self.observations.lock().await.lost(&identifier, generation);
                        let text = format!("the observation `{}` could not look", proto::limits::shown(&identifier));
                        let status = self.status(None, None, "collect.observation-failed", &text, Some(fault));
                        self.send_status(&status, Context::alone());
                    }
                }
                Job::Task(task) => match self.collect(&task).await {
                    Ok(cut) => self.end_cut(&task, cut),
                    Err(fault) => {
                        let phase = match fault.code {
                            FaultCode::Cancelled => Phase::Cancelled,
                            FaultCode::TargetUnknown => Phase::Rejected,
                            _ => Phase::Failed,
                        };
                        self.end(&task, phase, Some(fault));
                    }
                },
            }
        }
    }

    fn is_cancelled(&self, request: RequestId) -> bool {
        self.state().open.get(&request).is_some_and(|is_cancelled| is_cancelled.load(Ordering::Relaxed))
    }

    /// Looks and reports; what was cut off, in words.
    async fn collect(self: &Arc<Self>, task: &Task) -> Result<Option<String>, Fault> {
        let request = task.request.request;
        let context = Context::of(task.transaction);
        let endpoint = self.wait_for_label().await?;
        if let Some(fault) = not_meant(&task.request, endpoint) {
            return Err(fault);
        }
        let paused = self.pause.until().map(|until| format!("taken on; the collector is paused until {until:.0}"));
        self.tell(task, Phase::Accepted, paused.as_deref().unwrap_or("taken on"), None);
        let (progress, mut steps) = mpsc::channel::<TaskProgress>(64);
        let mut look = tokio::spawn(Arc::clone(self).look(task.request.clone(), context, progress));
        let mut told = tokio::time::Instant::now();
        // A task that was given up never lets go of its end of the channel.
        let looked = loop {
            let step = tokio::select! {
                biased;
                Some(step) = steps.recv() => step,
                looked = &mut look => break looked,
            };
            // A few times a second is enough for a person.
            if step.done == step.total || told.elapsed() > Duration::from_millis(200) {
                told = tokio::time::Instant::now();
                self.tell(task, Phase::Progress, "collecting", Some(step));
            }
        };
        let (found, facts) = looked.map_err(|_| Fault::new(FaultCode::Internal, "a probe failed badly"))??;
        let cut = report::cut_off(&found);
        let parts = report::parts(found);
        let last = parts.len() - 1;
        let mut sent = Vec::with_capacity(parts.len());
        for (at, part) in parts.into_iter().enumerate() {
            let results = results_of(task, endpoint, &facts, (at, last), part);
            sent.push(self.send_results(&results, context)?);
        }
        // Completed means stored: a repository has acknowledged every part.
        while sent.iter().any(|id| self.bus.is_unacknowledged(*id)) {
            if self.is_cancelled(request) {
                return Err(Fault::new(FaultCode::Cancelled, "cancelled by who asked"));
            }
            if task.request.deadline < Timestamp::now() {
                // It stays in the outbox; but others wait to be begun.
                let text = "no repository has acknowledged the report before the deadline; it is sent until one does";
                return Err(Fault::new(FaultCode::Timeout, text));
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let refused = sent.iter().filter(|id| self.bus.was_given_up(**id)).count();
        if refused > 0 {
            let text = format!("a repository refused {refused} of {} parts of the report", sent.len());
            return Err(Fault::new(FaultCode::NotAuthorized, text));
        }
        Ok(cut)
    }

    /// A look of an observation: nothing is sent unless something changed.
    async fn look_again(self: &Arc<Self>, Look { identifier, generation, run, is_whole }: Look) -> Result<(), Fault> {
        let identifier = identifier.as_str();
        let task = Self::task_of(run);
        let context = Context::of(task.transaction);
        let endpoint = self.wait_for_label().await?;
        if self.observations.lock().await.is_not_watched(identifier, generation) {
            // After a start nobody asks for it anew. What changes from now on is told, what is so already is looked at.
            let plan = self.plan_of(&task.request, context).await?;
            self.watch_plan(&mut *self.observations.lock().await, identifier, &plan);
        }
        let (progress, _) = mpsc::channel(1);
        let (found, facts) = Arc::clone(self).look(task.request.clone(), context, progress).await?;
        let mut observations = self.observations.lock().await;
        self.settle(&mut observations);
        let (changed, is_baseline) = observations.changed((identifier, generation, is_whole), found, Uuid::new_v4());
        if changed.is_empty() {
            return Ok(());
        }
        let parts = report::parts(changed);
        let last = parts.len() - 1;
        for (at, part) in parts.into_iter().enumerate() {
            let results = CollectionResults {
                stream: observations.position(identifier, is_baseline),
                ..results_of(&task, endpoint, &facts, (at, last), part)
            };
            let report = self.send_results(&results, context)?;
            observations.sent(identifier, report);
        }
        Ok(())
    }

    /// Looks at everything that a plan asks for, and says what endpoint it is.
    async fn look(
        self: Arc<Self>,
        request: CollectionRequest,
        context: Context,
        progress: mpsc::Sender<TaskProgress>,
    ) -> Result<(Vec<Found>, EndpointFacts), Fault> {
        let plan = self.plan_of(&request, context).await?;
        // Nobody cancels a look of an observation.
        let is_cancelled = self.state().open.get(&request.request).cloned().unwrap_or_default();
        // What is looked at afterwards is known to be so then, and not from before.
        while let Some(until) = self.pause.until().filter(|_| !is_cancelled.load(Ordering::Relaxed)) {
            if request.deadline < Timestamp::now() {
                let text = format!("the collector is paused until {until:.0}, and the request's deadline has passed");
                return Err(Fault::new(FaultCode::Expired, text));
            }
            tokio::time::sleep(TICK).await;
        }
        let pulse = Arc::new(Pulse::default());
        let (shown, wanted_no_more) = (Arc::clone(&pulse), Arc::clone(&is_cancelled));
        let looked = looking::watched(pulse, Arc::clone(&is_cancelled), move || {
            let host =
                Host::with_budget(self.root.clone(), self.budget.get().or(limits::TASK_BUDGET).within(request.budget))
                    .with_scripts(self.scripts.clone())
                    .until(wanted_no_more)
                    .pausing(Arc::clone(&self.pause))
                    .with_pulse(shown);
            // What objects share is read once: none of it is younger than this.
            let now = Timestamp::now();
            let began = self.clock().next(now);
            let mut resolver = Resolver::new(&plan, Probes::new(&host), now);
            let named: BTreeSet<&ObjectKey> = request.objects.iter().collect();
            let wanted = plan.report.iter().filter(|key| named.is_empty() || named.contains(key));
            let total = wanted.clone().count() as u64;
            let mut found = Vec::with_capacity(plan.report.len());
            for (done, key) in wanted.enumerate() {
                if self.is_cancelled(request.request) {
                    return Err(Fault::new(FaultCode::Cancelled, "cancelled by who asked"));
                }
                let collected = resolver.object(key);
                found.push((key.clone(), proto::observation::Collected::clone(&collected), began));
                let _ = progress.try_send(TaskProgress { done: done as u64 + 1, total });
            }
            if self.is_cancelled(request.request) {
                return Err(Fault::new(FaultCode::Cancelled, "cancelled by who asked"));
            }
            Ok((found, facts::of(&host)))
        });
        looked.await.map_err(|ended| {
            tracing::error!(%ended, "a task");
            Fault::new(ended.code(), ended.to_string())
        })?
    }

    fn clock(&self) -> std::sync::MutexGuard<'_, KeptClock> {
        self.clock.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn send_results(&self, results: &CollectionResults, context: Context) -> Result<MessageId, Fault> {
        if let Err(error) = self.clock().keep() {
            tracing::warn!(%error, "should the clock be set back while the collector restarts, what it sees may seem old for a while");
        }
        self.bus
            .send_durable(&Topic::CollectionResults(self.bus.own()), results, context)
            .map_err(|error| Fault::new(FaultCode::Internal, error.to_string()))
    }

    /// The endpoint's label; after a start it comes with the handshake.
    async fn wait_for_label(&self) -> Result<EndpointId, Fault> {
        let mut assigned = self.assigned.clone();
        let labelled = assigned.wait_for(|assigned| assigned.endpoints.iter().any(|(name, _)| name == SELF));
        match tokio::time::timeout(Duration::from_secs(30), labelled).await {
            Ok(Ok(_)) => {
                self.endpoint().ok_or_else(|| Fault::new(FaultCode::TargetUnknown, "the endpoint has no label"))
            }
            _ => Err(Fault::new(FaultCode::TargetUnknown, "the endpoint has no label yet: the handshake is not done")),
        }
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

    fn send_status(&self, status: &StatusNotification, context: Context) {
        if let Err(error) = self.bus.send(&Topic::Status(self.bus.own()), status, context) {
            tracing::warn!(%error, "a status cannot be sent");
        }
    }

    fn tell(&self, task: &Task, phase: Phase, text: &str, progress: Option<TaskProgress>) {
        let mut status = self.status(Some(task.request.request), Some(phase), "collect.progress", text, None);
        status.progress = progress;
        self.send_status(&status, Context::of(task.transaction));
    }

    /// The end of a task that was done, but for what was cut off.
    fn end_cut(&self, task: &Task, cut: Option<String>) {
        let (code, text) = match &cut {
            Some(cut) => (COLLECTION_CUT, cut.as_str()),
            None => ("collect.completed", "every observation is stored"),
        };
        self.end_with(task, self.status(Some(task.request.request), Some(Phase::Completed), code, text, None));
    }

    fn end(&self, task: &Task, phase: Phase, fault: Option<Fault>) {
        let (code, text) = match phase {
            Phase::Cancelled => ("collect.cancelled", "cancelled"),
            Phase::Rejected => ("collect.rejected", "refused"),
            _ => ("collect.failed", "the collection failed"),
        };
        self.end_with(task, self.status(Some(task.request.request), Some(phase), code, text, fault));
    }

    /// The one terminal status of a task; kept until the orchestrator has it.
    fn end_with(&self, task: &Task, status: StatusNotification) {
        let request = task.request.request;
        let kept = self.bus.send_durable(&Topic::Status(self.bus.own()), &status, Context::of(task.transaction));
        let mut state = self.state();
        state.open.remove(&request);
        let bus = &self.bus;
        state.ended.retain(|_, id| bus.is_unacknowledged(*id));
        match kept {
            Ok(id) => {
                state.ended.insert(request, id);
                state.note_done(request, status);
            }
            Err(error) => tracing::error!(%error, "the end of a task cannot be kept"),
        }
    }
}

/// Hears of pauses as long as there is an orchestrator to say them.
async fn follow_pause(mut assigned: watch::Receiver<Assigned>, pause: Arc<Pause>) {
    loop {
        let until = assigned.borrow_and_update().paused_until;
        if until != pause.until() {
            tracing::info!(until = ?until.map(|until| until.to_string()), "an operator pauses the collector, or has it go on");
        }
        pause.set(until);
        if assigned.changed().await.is_err() {
            return;
        }
    }
}

/// A fault for a request that is about other endpoints.
fn not_meant(request: &CollectionRequest, own: EndpointId) -> Option<Fault> {
    let is_meant = request.targets.is_empty() || request.targets.contains(&own);
    let text = "none of the targets is an endpoint of this collector";
    (!is_meant).then(|| Fault::new(FaultCode::TargetUnknown, text))
}

/// A part as a message.
fn results_of(
    task: &Task,
    endpoint: EndpointId,
    facts: &EndpointFacts,
    (at, last): (usize, usize),
    part: report::Part,
) -> CollectionResults {
    CollectionResults {
        request: task.request.request,
        standing: task.standing,
        task: task.asked_by.clone(),
        plan: task.request.plan.sha256.clone(),
        endpoint,
        facts: facts.clone(),
        method: Method::SelfReported,
        part: u32::try_from(at).unwrap_or(u32::MAX),
        is_final: at == last,
        stream: None,
        items: part.items,
        objects: part.objects,
    }
}
