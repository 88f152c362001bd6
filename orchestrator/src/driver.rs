//! Drives the core: messages and time in, actions out, everything stored before anything is sent.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use bus::certificate::Certificate;
use bus::{Authentic, Bus, Context, Event, Sender, mqtt, outbox::Outbox, tls};
use jiff::Timestamp;
use proto::capability::ComponentType;
use proto::fault::{Fault, FaultCode};
use proto::id::{ComponentId, TransactionId};
use proto::limits::TASKS_MAX;
use proto::message::{
    CancelRequest, CapabilityAdvertisement, EvaluationResults, HealthCheckRequest, Message, Priority,
    StatusNotification, TaskAnswer, TasksResponse, ToOrchestrator,
};
use proto::operator::OperatorEvent;
use proto::topic::{COLLECTION_OVAL, Topic};
use service::audit::Actor;
use service::broker_files::BrokerFilesError;
use service::content::ContentStore;
use service::identity::{self, Identity};
use service::reload::Live;
use service::renewal;
use service::report::Chain;
use service::shutdown::Shutdown;
use tokio::sync::{Mutex, broadcast, mpsc, oneshot, watch};
use uuid::Uuid;

use crate::admitted::Admitted;
use crate::assignments::Told;
use crate::broker::{Admission, Broker, BrokerError, BrokerSettings};
use crate::ca::{Ca, CaSettings};
use crate::control;
use crate::core::pacing::HEARTBEAT_SECONDS_MIN;
use crate::core::standing::Standing as Assignments;
use crate::core::{Action, Core, RandomIds};
use crate::courier::{Courier, Letter};
use crate::external::{self, Connections, ExternalBroker, Link};
use crate::followed::Followed;
use crate::lease::{self, Entered};
use crate::policies::Policies;
use crate::registration::{self, TokenScope};
use crate::settings::{KEEP_WORKFLOWS_MIN, Settings, kept_too_short};
use crate::shared::{CONTENT, CaKept, SharedError};
use crate::standing;
use crate::statuses;
use crate::store::{SentTask, Store, StoreError};

/// Questions of one act that are sealed and stored with it: the others have their turn.
const SEALED_AT_ONCE: usize = 8;
/// Different security statuses that are counted.
const SECURITY_CODES_MAX: usize = 64;

/// Why an orchestrator ends.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// Workflows would go before the last report about them can come in.
    #[error("keep-workflows: {}", kept_too_short())]
    Keep,
    /// The data directory.
    #[error(transparent)]
    Data(#[from] service::data::DataError),
    /// The CA.
    #[error(transparent)]
    Ca(#[from] crate::ca::CaError),
    /// Its own identity.
    #[error(transparent)]
    Identity(#[from] identity::IdentityError),
    /// Its own certificate.
    #[error("the orchestrator's own certificate cannot be made")]
    Certificate(#[from] crate::ca::RequestError),
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The broker.
    #[error(transparent)]
    Broker(#[from] BrokerError),
    /// What another broker needs.
    #[error("external-broker-config")]
    BrokerFiles(#[from] BrokerFilesError),
    /// The outbox.
    #[error(transparent)]
    Outbox(#[from] bus::outbox::OutboxError),
    /// The operators' socket.
    #[error("the operators' socket {path} cannot be opened")]
    Control {
        /// Where.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A join token.
    #[error("the join token {path} cannot be written: the directory has to be this process's own")]
    Tokens {
        /// Where.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// What a database needs.
    #[error(transparent)]
    Shared(#[from] SharedError),
    /// Another orchestrator took over.
    #[error(
        "this orchestrator is not the active one any more: another took the lease in the database, or the lease could not be renewed in time; started again it is a standby"
    )]
    Deposed,
    /// The policy that comes with the program.
    #[error("the baseline policy cannot be read: {0}")]
    Baseline(String),
}

/// A running orchestrator; clones share it.
#[derive(Clone)]
pub struct Handle {
    pub(crate) inner: Arc<Inner>,
}

impl std::fmt::Debug for Handle {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Handle").finish_non_exhaustive()
    }
}

/// What is stored together.
struct Batch {
    id: Uuid,
    work: Vec<Pending>,
}

/// Something to be done once it is stored.
pub(crate) enum Pending {
    Action(Action),
    /// A question, sealed.
    Ask {
        task: SentTask,
        transaction: TransactionId,
        priority: Priority,
    },
    /// One that is sealed when its turn comes.
    Later(Letter, Priority),
}

pub(crate) struct Inner {
    pub(crate) core: Mutex<Core>,
    /// What could not be stored yet, and so was not done, in its order.
    pending: Mutex<VecDeque<Batch>>,
    pub(crate) store: Store,
    pub(crate) bus: Bus,
    /// With those who join; where members are at the own broker, it is the same.
    pub(crate) joins: Bus,
    /// The connection to another broker, if members are at one.
    pub(crate) external: Option<Link>,
    pub(crate) courier: Courier,
    pub(crate) ca: Ca,
    pub(crate) content: ContentStore,
    pub(crate) policies: Policies,
    pub(crate) told: Mutex<Told>,
    takes_back: Live<bool>,
    pub(crate) standing: Mutex<Assignments>,
    pub(crate) watchers: broadcast::Sender<(TransactionId, OperatorEvent)>,
    pub(crate) followed: Followed,
    /// The own certificate.
    pub(crate) certificate: std::sync::Mutex<Certificate>,
    /// What the own connection shows.
    tls: watch::Sender<Arc<rustls::ClientConfig>>,
    /// When it was last said that the CA comes to its end.
    pub(crate) ca_ending_told: std::sync::Mutex<Option<Timestamp>>,
    /// Held while the log of acts is signed.
    pub(crate) signing: Mutex<()>,
    /// Security statuses, by code.
    pub(crate) security: std::sync::Mutex<BTreeMap<String, u64>>,
    pub(crate) broker: Broker,
    admitted: Arc<Admitted>,
    pub(crate) started: Timestamp,
    pub(crate) data: PathBuf,
    /// This process among those on a database.
    pub(crate) instance: Option<String>,
    pub(crate) ca_kept: Mutex<CaKept>,
    advertise: String,
}

/// Runs until it is asked to stop; `ready` is told when components can join.
pub async fn run(
    settings: Settings,
    mut shutdown: Shutdown,
    ready: Option<oneshot::Sender<Handle>>,
) -> Result<(), RunError> {
    if settings.keep_workflows.get() < KEEP_WORKFLOWS_MIN {
        return Err(RunError::Keep);
    }
    let data = service::data::DataDirectory::open(&settings.data)?;
    let now = Timestamp::now();
    let ca_settings = CaSettings {
        directory: data.path().join("ca"),
        component_seconds: settings.certificate_seconds,
        passphrase: settings.ca_passphrase.clone(),
        brought: settings.ca.clone(),
    };
    let entered = lease::enter(data.path(), settings.database.as_ref(), ca_settings, &mut shutdown).await?;
    let Some(Entered { store, ca, component, mut held }) = entered else { return Ok(()) };
    let assigned = store.assigned().await?;
    let mut core = Core::new(Box::new(RandomIds), store.components().await?, store.workflows().await?, now);
    core.set_trusted(ca.fingerprints());
    core.set_labels(store.labels().await?);
    core.set_aliases(store.aliases().await?);
    let identity_directory = data.path().join("identity");
    let own = own_certificate(&ca, &identity_directory, component, now)?;
    let (connects, connecting) = mpsc::unbounded_channel();
    let admitted = Arc::new(Admitted::new(connects, settings.external_broker.is_some()));
    for component in core.components() {
        admitted.set(component);
    }
    admitted.set_own(own.component);
    let broker = Broker::start(BrokerSettings {
        listen: settings.listen.clone(),
        cas: ca.ders(),
        certificate_der: own.certificate_der.clone(),
        key_pkcs8: own.key_pkcs8.clone(),
        admission: Arc::clone(&admitted) as Arc<dyn Admission>,
    })
    .await?;
    let address = broker.address();
    let external = settings.external_broker.as_ref();
    let broker_files = external.map(external::files_of).transpose()?.flatten();
    let elsewhere = external.and_then(ExternalBroker::host_and_port);
    let own = Identity { host: loopback(address), port: address.port(), broker: elsewhere, ..own };
    let Connections { bus, events, joins, tls } = external::connect(&own, Outbox::open(&data.path().join("outbox"))?)?;
    let (joins, strangers) = joins.map_or_else(|| (bus.clone(), None), |(joins, events)| (joins, Some(events)));
    let (watchers, _) = broadcast::channel(4096);
    let handle = Handle {
        inner: Arc::new(Inner {
            core: Mutex::new(core),
            pending: Mutex::default(),
            store,
            bus,
            joins,
            external: external.map(|external| Link::new(external.address.clone(), now)),
            courier: Courier::default(),
            ca,
            content: ContentStore::new(Some(data.path().join(CONTENT))),
            policies: Policies::default(),
            told: Mutex::default(),
            takes_back: settings.takes_back_endpoints,
            standing: Mutex::new(Assignments::new(assigned)),
            watchers,
            followed: Followed::default(),
            certificate: std::sync::Mutex::new(own.certificate.clone()),
            tls,
            ca_ending_told: std::sync::Mutex::default(),
            signing: Mutex::default(),
            security: std::sync::Mutex::default(),
            broker,
            admitted,
            started: now,
            data: data.path().to_owned(),
            instance: held.instance(),
            ca_kept: Mutex::new(CaKept::default()),
            advertise: settings.advertise.unwrap_or_else(|| format!("{}:{}", loopback(address), address.port())),
        }),
    };
    handle.ensure_baseline().await.map_err(RunError::Baseline)?;
    let socket = control::listen(handle.clone(), data.path())?;
    held.begun();
    let mut tokens = None;
    if let Some(directory) = settings.join_tokens {
        handle.write_tokens(&directory).await?;
        tokens = Some(tokio::spawn(handle.clone().mind_tokens(directory)));
    }
    let (connected, mut connection) = mpsc::channel(1);
    let follow = tokio::spawn(handle.clone().follow(events, connected, connecting));
    let renewal = tokio::spawn(handle.clone().renew_own());
    let letters = tokio::spawn(handle.clone().mind_letters());
    let feeds = tokio::spawn(handle.clone().mind_feeds(settings.feeds));
    let expiry = tokio::spawn(handle.clone().mind_retention(settings.keep_workflows));
    let strangers = strangers.map(|events| tokio::spawn(handle.clone().follow_joins(events)));
    let broker_files = broker_files.map(|(files, host)| tokio::spawn(handle.clone().mind_broker_files(files, host)));
    let serving = async {
        external::wait_for_broker(external, &mut connection).await;
        if let Some(ready) = ready {
            let _ = ready.send(handle.clone());
        }
        std::future::pending::<()>().await;
    };
    let is_deposed = tokio::select! {
        _ = shutdown.unless_requested(serving) => false,
        () = held.lost() => true,
    };
    if !is_deposed && let Err(error) = handle.sign_acts().await {
        tracing::error!(error = %Chain(&error), "the log of acts cannot be signed");
    }
    // Nobody is told that the own connection ends with the broker.
    follow.abort();
    handle.inner.bus.close();
    handle.inner.joins.close();
    strangers.inspect(tokio::task::JoinHandle::abort);
    broker_files.inspect(tokio::task::JoinHandle::abort);
    handle.inner.broker.stop();
    socket.abort();
    renewal.abort();
    letters.abort();
    feeds.abort();
    tokens.inspect(tokio::task::JoinHandle::abort);
    expiry.abort();
    let _ = std::fs::remove_file(data.path().join(crate::CONTROL_SOCKET));
    if is_deposed { Err(RunError::Deposed) } else { held.give_back().await.map_err(RunError::Store) }
}

/// Where this process reaches its own broker.
fn loopback(address: SocketAddr) -> String {
    if address.ip().is_unspecified() { "127.0.0.1".to_owned() } else { address.ip().to_string() }
}

/// The orchestrator's own id, kept, with a certificate that its own CA signs at every start.
pub(crate) fn own_certificate(
    ca: &Ca,
    directory: &Path,
    component: Option<ComponentId>,
    now: Timestamp,
) -> Result<Identity, RunError> {
    let component = match component {
        Some(component) => component,
        None => Identity::load(directory)?.map_or_else(|| ComponentId(Uuid::now_v7()), |identity| identity.component),
    };
    let key = identity::key(directory)?;
    let damaged = |what: String| identity::IdentityError::Damaged { path: directory.to_owned(), what };
    let request = identity::signing_request(&key).map_err(|error| damaged(error.to_string()))?;
    let (certificate, _) = ca.issue_own(&request, component, now)?;
    Identity::store(directory, &certificate, &ca.pems().concat(), ("127.0.0.1", 0), None, HEARTBEAT_SECONDS_MIN)?;
    Ok(Identity::load(directory)?.ok_or_else(|| damaged("membership.json".to_owned()))?)
}

impl Handle {
    /// Asks the core, stores what it wants stored, then does the rest.
    pub(crate) async fn act<T>(
        &self,
        ask: impl FnOnce(&mut Core, Timestamp) -> (T, Vec<Action>),
    ) -> Result<T, StoreError> {
        let mut core = self.inner.core.lock().await;
        core.take_back(self.inner.takes_back.get());
        let (answer, actions) = ask(&mut core, Timestamp::now());
        // What an earlier failure left is stored first; nothing is done before it is stored.
        let mut pending = self.inner.pending.lock().await;
        let work = self.prepare_all(actions);
        if !work.is_empty() {
            pending.push_back(Batch { id: Uuid::new_v4(), work });
        }
        while let Some(batch) = pending.front() {
            let (mut to_store, mut tasks) = (Vec::new(), Vec::new());
            for one in &batch.work {
                match one {
                    Pending::Action(action) => to_store.push(action),
                    Pending::Ask { task, .. } => tasks.push(task.clone()),
                    Pending::Later(..) => {}
                }
            }
            self.inner.store.apply(batch.id, &to_store, &tasks).await?;
            for one in pending.pop_front().into_iter().flat_map(|batch| batch.work) {
                match one {
                    Pending::Action(action) => self.perform(action),
                    Pending::Ask { task, transaction, priority } => self.send_task(task, transaction, priority),
                    Pending::Later(letter, priority) => self.inner.courier.add(letter, false, priority),
                }
            }
        }
        Ok(answer)
    }

    /// Of very many questions the first; the others have their turn.
    fn prepare_all(&self, actions: Vec<Action>) -> Vec<Pending> {
        let mut sealed = 0;
        let prepare = |action| match action {
            Action::Collect { to: Some(to), transaction, request } if sealed >= SEALED_AT_ONCE => {
                Pending::Later(Letter { transaction, request: request.request, to }, request.priority)
            }
            action => {
                sealed += usize::from(matches!(action, Action::Collect { .. }));
                self.prepare(action)
            }
        };
        actions.into_iter().map(prepare).collect()
    }

    /// What asks somebody for something is sealed first, and kept as it was sealed: answers refer to it.
    pub(crate) fn prepare(&self, action: Action) -> Pending {
        let bus = &self.inner.bus;
        let (responder, id, transaction, priority, prepared) = match &action {
            Action::Collect { to, transaction, request } => {
                let topic = to.map_or_else(|| Topic::Collection(COLLECTION_OVAL.to_owned()), Topic::Admin);
                let context = Context { to: *to, expires: Some(request.deadline), ..Context::of(*transaction) };
                (*to, request.request, *transaction, request.priority, bus.prepare(&topic, request, context))
            }
            Action::Evaluate { to, transaction, request } => {
                let context = Context { to: Some(*to), expires: Some(request.deadline), ..Context::of(*transaction) };
                let prepared = bus.prepare(&Topic::Admin(*to), &**request, context);
                (Some(*to), request.request, *transaction, request.priority, prepared)
            }
            _ => return Pending::Action(action),
        };
        match prepared {
            Ok(message) => Pending::Ask { task: SentTask { request: id, responder, message }, transaction, priority },
            Err(error) => {
                tracing::error!(error = %Chain(&error), "cannot ask");
                Pending::Action(action)
            }
        }
    }

    fn perform(&self, action: Action) {
        let inner = &self.inner;
        let sent = match action {
            Action::StoreComponent(component) => {
                inner.admitted.set(&component);
                Ok(())
            }
            Action::StoreWorkflow(_)
            | Action::StoreResponder(..)
            | Action::StoreAlias(..)
            | Action::UseToken(_)
            | Action::Record(_) => Ok(()),
            // They were sealed before they were stored; what could not be is asked again when it is due.
            Action::Collect { .. } | Action::Evaluate { .. } => Ok(()),
            Action::AskAgain { to, transaction, request, priority } => {
                inner.courier.add(Letter { transaction, request, to }, true, priority);
                Ok(())
            }
            Action::Cancel { to, transaction, request } => {
                inner.courier.call_back(&Letter { transaction, request, to });
                let context = Context { to: Some(to), ..Context::of(transaction) };
                inner.bus.send(&Topic::Admin(to), &CancelRequest { request }, context).map(|_| ())
            }
            Action::CheckHealth(id, action) => {
                inner.bus.send(&Topic::Admin(id), &HealthCheckRequest { action }, Context::alone()).map(|_| ())
            }
            Action::Pulse(id, pulse) => inner.bus.send(&Topic::Admin(id), &pulse, Context::alone()).map(|_| ()),
            Action::Announce { code, text } => {
                tracing::info!(code, text);
                self.count_security(code);
                let status = StatusNotification {
                    publisher: inner.bus.own(),
                    message: text,
                    code: code.to_owned(),
                    request: None,
                    phase: None,
                    progress: None,
                    fault: None,
                };
                inner.bus.send(&Topic::Status(inner.bus.own()), &status, Context::alone()).map(|_| ())
            }
            Action::Kick(id) => {
                inner.broker.kick(id);
                Ok(())
            }
            Action::Tell(transaction, event) => {
                let _ = inner.watchers.send((transaction, *event));
                Ok(())
            }
        };
        if let Err(error) = sent {
            tracing::error!(error = %Chain(&error), "cannot send");
        }
    }

    async fn follow(
        self,
        mut events: mpsc::Receiver<Event>,
        connected: mpsc::Sender<()>,
        mut connecting: mpsc::UnboundedReceiver<ComponentId>,
    ) {
        let mut tick = tokio::time::interval(Duration::from_millis(500));
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut next = None;
        loop {
            let event = if let Some(event) = next.take() {
                Some(event)
            } else {
                tokio::select! {
                    biased;
                    // Before anything that it says on that connection.
                    Some(component) = connecting.recv() => {
                        self.note_connection(component).await;
                        continue;
                    }
                    _ = tick.tick() => {
                        self.on_tick().await;
                        continue;
                    }
                    event = events.recv() => event,
                }
            };
            match event {
                None => return,
                Some(Event::Connected) => {
                    self.note_link(None);
                    let _ = connected.try_send(());
                }
                Some(Event::Disconnected(reason) | Event::Refused(reason)) => {
                    tracing::warn!(reason, "the own connection to the broker is lost");
                    self.note_link(Some(&reason));
                }
                Some(Event::Message(message)) => {
                    let gathered = statuses::gather(*message, &mut events);
                    while let Ok(component) = connecting.try_recv() {
                        self.note_connection(component).await;
                    }
                    self.take_all(gathered.messages).await;
                    next = gathered.then;
                }
            }
        }
    }

    async fn note_connection(&self, component: ComponentId) {
        if let Err(error) = self.act(|core, _| ((), core.connected(component))).await {
            tracing::error!(error = %Chain(&error), "the store failed");
        }
    }

    fn note_link(&self, gone: Option<&str>) {
        if let Some(link) = &self.inner.external {
            link.set(gone, Timestamp::now());
        }
    }

    async fn on_tick(&self) {
        if let Err(error) = self.act(|core, now| ((), core.tick(now))).await {
            tracing::error!(error = %Chain(&error), "the store failed");
        }
        self.mind_labels().await;
        standing::complain(self.mind_assignments().await);
        if let Err(error) = self.mind_cas().await {
            tracing::error!(error = %Chain(&error), "the store failed");
        }
        if let Err(error) = self.sign_acts().await {
            tracing::error!(error = %Chain(&error), "the log of acts cannot be signed");
        }
    }

    pub(crate) async fn take(&self, message: &Authentic) {
        let sender = match message.sender() {
            Sender::Member { component, .. } => Some(*component),
            Sender::Joining { .. } => None,
        };
        // Its own status notifications come back to it.
        if sender == Some(self.inner.bus.own()) {
            return;
        }
        let outcome = match (ToOrchestrator::decode(message.envelope()), sender) {
            (Err(fault), _) => Ok(Err(fault)),
            (Ok(ToOrchestrator::ComponentRegistrationRequest(request)), _) => {
                registration::take(self, message, &request).await;
                return;
            }
            (Ok(_), None) => Ok(Err(Fault::new(FaultCode::NotAuthorized, "join first"))),
            // What was on its way when its sender was put out comes too late.
            (Ok(_), Some(sender)) if !self.is_member(sender, message).await => {
                Ok(Err(Fault::new(FaultCode::Revoked, "the sender was put out, or has never been in")))
            }
            (Ok(request), Some(sender)) => {
                if let Err(error) = self.act(|core, now| ((), core.heard(sender, now))).await {
                    Err(error)
                } else {
                    self.take_from(sender, message, request).await
                }
            }
        };
        match outcome {
            Ok(Ok(())) => {}
            Ok(Err(fault)) => {
                self.inner.bus.count_refusal(&fault);
                if let Some(sender) = sender {
                    self.answer(sender, message, &fault);
                }
            }
            Err(error) => {
                tracing::error!(error = %Chain(&error), "the store failed");
                // Not acknowledged: it comes again.
                self.inner.bus.forget(message);
            }
        }
    }

    async fn is_member(&self, sender: ComponentId, message: &Authentic) -> bool {
        let core = self.inner.core.lock().await;
        message.sender_type().is_some_and(|component_type| core.is_admitted(sender, component_type))
    }

    async fn take_from(
        &self,
        sender: ComponentId,
        message: &Authentic,
        request: ToOrchestrator,
    ) -> Result<Result<(), Fault>, StoreError> {
        match request {
            ToOrchestrator::ComponentRegistrationRequest(_) => {}
            ToOrchestrator::CapabilityAdvertisement(advertisement) => {
                return self.shake_hands(sender, message, &advertisement).await;
            }
            ToOrchestrator::HeartbeatRequest(_) => {
                let pulse = self.act(|core, now| core.answer(sender, now)).await?;
                self.answer(sender, message, &pulse);
            }
            // Having been heard is all that it is for.
            ToOrchestrator::HealthCheckResponse(_) => {}
            // `take_all` has taken it out before.
            ToOrchestrator::StatusNotification(_) => {}
            // Late: whoever asked has been told that there was no answer.
            ToOrchestrator::PeriodicCollectionResponse(response) => {
                tracing::debug!(identifier = response.collection_identifier, "an answer that nobody waits for");
            }
            ToOrchestrator::ObservationResponse(response) => {
                tracing::debug!(identifier = response.observation_identifier, "an answer that nobody waits for");
            }
            ToOrchestrator::AttributeChange(_) | ToOrchestrator::AttributeChanges(_)
                if message.sender_type() != Some(ComponentType::RepositoryInterface) =>
            {
                return Ok(Err(Fault::new(FaultCode::NotAuthorized, "a repository says what has changed")));
            }
            ToOrchestrator::AttributeChange(change) => {
                self.note_changes(message.envelope().transaction, vec![*change]).await;
            }
            ToOrchestrator::AttributeChanges(told) => {
                self.note_changes(message.envelope().transaction, told.changes).await;
            }
            ToOrchestrator::EvaluationResults(results) => {
                self.show(message.envelope().transaction, std::iter::once(*results));
            }
            ToOrchestrator::FleetResults(results) => {
                if let Err(fault) = results.check() {
                    return Ok(Err(fault));
                }
                self.show(message.envelope().transaction, results.all());
            }
            ToOrchestrator::TaskRequest(_) | ToOrchestrator::TasksRequest(_)
                if message.sender_type() != Some(ComponentType::RepositoryInterface) =>
            {
                let text = "only a repository asks what others were asked";
                return Ok(Err(Fault::new(FaultCode::NotAuthorized, text)));
            }
            ToOrchestrator::TaskRequest(request) => match self.tasks(std::slice::from_ref(&*request)).await?.pop() {
                Some(TaskAnswer::Given(task)) => self.answer(sender, message, &task),
                Some(TaskAnswer::NotGiven(fault)) => return Ok(Err(fault)),
                None => {}
            },
            ToOrchestrator::TasksRequest(request) if request.tasks.len() > TASKS_MAX => {
                let text = format!("at most {TASKS_MAX} questions come in one message");
                return Ok(Err(Fault::new(FaultCode::TooLarge, text)));
            }
            ToOrchestrator::TasksRequest(request) => {
                let answers = self.tasks(&request.tasks).await?;
                self.answer(sender, message, &TasksResponse { answers });
            }
            ToOrchestrator::ContentRequest(request) => return Ok(self.give_content(sender, message, &request).await),
        }
        Ok(Ok(()))
    }

    /// Answers on the component's administrative interface.
    pub(crate) fn answer<M: Message>(&self, to: ComponentId, message: &Authentic, answer: &M) {
        if let Err(error) = self.inner.bus.send(&Topic::Admin(to), answer, Context::answering(message)) {
            tracing::error!(error = %Chain(&error), "cannot answer");
        }
    }

    async fn shake_hands(
        &self,
        sender: ComponentId,
        message: &Authentic,
        advertisement: &CapabilityAdvertisement,
    ) -> Result<Result<(), Fault>, StoreError> {
        let answered = self
            .act(|core, now| match core.advertise(sender, advertisement, now) {
                Ok(answered) => answered,
                Err(fault) => (Err(fault), Vec::new()),
            })
            .await?;
        let mut response = match answered {
            Ok(response) => response,
            Err(fault) => return Ok(Err(fault)),
        };
        self.add_cas(&advertisement.trusted_cas, &mut response);
        // Before the answer: what a collector reports after it is expected.
        self.tell_assignments(sender).await;
        self.answer(sender, message, &response);
        if message.sender_type() == Some(ComponentType::RepositoryInterface) {
            let handle = self.clone();
            tokio::spawn(async move {
                handle.remind(sender).await;
                handle.publish_missing(sender).await;
            });
        }
        Ok(Ok(()))
    }

    pub(crate) fn count_security(&self, code: &str) {
        let mut counts = self.inner.security.lock().unwrap_or_else(PoisonError::into_inner);
        // Components choose their words: there is no end to them.
        if code.starts_with("security.") && (counts.len() < SECURITY_CODES_MAX || counts.contains_key(code)) {
            *counts.entry(code.to_owned()).or_default() += 1;
        }
    }

    /// Verdicts for whoever follows the workflow; the repositories keep them.
    fn show(&self, transaction: TransactionId, results: impl Iterator<Item = EvaluationResults>) {
        if !self.inner.followed.is_followed(transaction) {
            return;
        }
        for EvaluationResults { endpoint, results, .. } in results {
            for result in results.into_iter().map(Box::new) {
                let _ = self.inner.watchers.send((transaction, OperatorEvent::Verdict { endpoint, result }));
            }
        }
    }

    /// Makes a join token.
    pub async fn create_token(&self, scope: TokenScope) -> Result<String, StoreError> {
        registration::create_token(self, Actor::Orchestrator, scope).await
    }

    /// Renews the orchestrator's own certificate whenever it is due.
    async fn renew_own(self) {
        loop {
            let certificate = self.inner.certificate.lock().unwrap_or_else(PoisonError::into_inner).clone();
            let due = renewal::due(&certificate, mqtt::rand_fraction());
            loop {
                let now = Timestamp::now();
                // A clock that was set back makes it one of the future.
                if now >= due || certificate.valid_at(now).is_err() {
                    break;
                }
                tokio::time::sleep(renewal::wait(due, now)).await;
            }
            if let Err(error) = self.renew_own_now() {
                tracing::error!(error = %Chain(&error), "the own certificate could not be renewed");
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    }

    /// A fresh certificate for the orchestrator itself: the broker shows it to new connections, and new messages carry it.
    pub(crate) fn renew_own_now(&self) -> Result<(), RunError> {
        let inner = &self.inner;
        let fresh = own_certificate(&inner.ca, &inner.data.join("identity"), Some(inner.bus.own()), Timestamp::now())?;
        inner.broker.renew(&fresh.certificate_der, &fresh.key_pkcs8)?;
        inner.bus.renew(fresh.sealer()?);
        inner.joins.renew(fresh.sealer()?);
        inner.tls.send_replace(fresh.tls()?);
        *inner.certificate.lock().unwrap_or_else(PoisonError::into_inner) = fresh.certificate;
        Ok(())
    }

    /// Where components connect.
    pub fn address(&self) -> &str {
        &self.inner.advertise
    }

    pub(crate) fn ca_fingerprint(&self) -> String {
        tls::fingerprint(&self.inner.ca.der())
    }

    /// The first repository that is active.
    pub(crate) async fn repository(&self) -> Option<ComponentId> {
        self.repositories().await.into_iter().find(|(_, is_there)| *is_there).map(|(repository, _)| repository)
    }
}
