//! The repository: keeps observations with their history, policies and verdicts, and answers
//! questions about them.
//!
//! Listens: collection and evaluation results, policy publications, queries. Tells: whoever asked;
//! every durable message is acknowledged after the commit, and after the commit only. Never: decides,
//! collects, or takes an older observation for a newer one.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bus::{Authentic, Bus, Context};
use jiff::Timestamp;
use oval::condition::Matcher;
use proto::capability::ComponentType;
use proto::envelope::Envelope;
use proto::fault::{Fault, FaultCode};
use proto::id::{ComponentId, EndpointId};
use proto::limits::FLEET_ENDPOINTS_MAX;
use proto::message::{
    Ack, AuditWitness, ChainRequest, ChangesRequest, ContentRequest, Message, PoliciesResponse, PolicyPublication,
    QueryRequest, ReferenceRequest, ReferenceResponse, SearchRequest, StalenessRequest, StatusNotification,
    SummaryRequest, SummaryResponse, ToRepository,
};
use proto::topic::Topic;
use service::config::{self, ConfigError, RepositoryConfig};
use service::content::{ContentStore, chunk_of, pack};
use service::member::{self, Member, MemberError, MemberSettings};
use service::reload::Live;
use service::report::Chain;
use service::shutdown::Shutdown;
use tokio::sync::mpsc;
use uuid::Uuid;

mod expected;
mod pacing;
mod reports;
pub mod retention;
mod room;
pub mod store;
mod telling;
pub mod transfer;

use expected::Expected;
use pacing::{Pacing, SentBack};
use retention::Retention;
use room::{Place, REPORTS_MAX, Room};
use store::postgres::{DatabaseUrl, PostgresStore};
use store::sqlite::SqliteStore;
use store::{Received, Report, Store, StoreError, Stored};
use telling::Telling;

/// What is kept, in the data directory.
pub(crate) const DATABASE_FILE: &str = "repository.db";

/// What a repository needs to run.
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
    /// How long what is past is kept.
    pub retention: Live<Retention>,
    /// Where it is kept, if not in the data directory.
    pub database: Option<DatabaseUrl>,
}

impl TryFrom<&RepositoryConfig> for Settings {
    type Error = ConfigError;

    fn try_from(config: &RepositoryConfig) -> Result<Self, ConfigError> {
        let url = config::secret_or_file("database", config.database.as_ref(), config.database_file.as_ref())?;
        let database = url.map(|url| url.parse()).transpose();
        Ok(Self {
            data: config.data.clone().unwrap_or_else(|| PathBuf::from("/var/lib/muster/repository")),
            join_token: config.join_token.clone(),
            broker: config::address("broker", config.broker.as_ref())?,
            name: config.name.clone().unwrap_or_else(|| "repository".to_owned()),
            retention: Retention::try_from(config)?.into(),
            database: database.map_err(|reason| ConfigError::Value { key: "database", reason })?,
        })
    }
}

impl Settings {
    /// Takes over what of a configuration may change while it runs.
    pub fn take_over(&self, config: &RepositoryConfig) -> Result<(), ConfigError> {
        self.retention.follow(&Self::try_from(config)?.retention);
        Ok(())
    }
}

/// Why a repository ends.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The data directory.
    #[error(transparent)]
    Data(#[from] service::data::DataError),
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Membership.
    #[error(transparent)]
    Member(#[from] MemberError),
}

/// Runs until it is asked to stop.
pub async fn run(settings: Settings, mut shutdown: Shutdown) -> Result<(), RunError> {
    let data = service::data::DataDirectory::open(&settings.data)?;
    let opened = open_store(data.path(), settings.database.as_ref(), &mut shutdown).await?;
    let Some((store, name)) = opened else { return Ok(()) };
    let member_settings = MemberSettings {
        component_type: ComponentType::RepositoryInterface,
        name: settings.name,
        data: settings.data.clone(),
        join_token: settings.join_token,
        broker: settings.broker,
        endpoints: Vec::new(),
        tpm: None,
        tied: &[],
        store: name,
    };
    match member::start_unless(&mut shutdown, member_settings).await? {
        Some(member) => {
            let expiring = tokio::spawn(expire(Arc::clone(&store), settings.retention));
            let served = serve(member, store, &mut shutdown).await;
            expiring.abort();
            Ok(served?)
        }
        None => Ok(()),
    }
}

/// The store as it is configured, with its name where others may use it too; `None` where the end came first. A database that
/// does not answer is waited for.
async fn open_store(
    data: &Path,
    database: Option<&DatabaseUrl>,
    shutdown: &mut Shutdown,
) -> Result<Option<(Arc<dyn Store>, Option<Uuid>)>, StoreError> {
    let Some(url) = database else {
        return Ok(Some((Arc::new(SqliteStore::open(&data.join(DATABASE_FILE)).await?), None)));
    };
    let mut waiting = ::store::Waiting::default();
    loop {
        let opened = async {
            let store = PostgresStore::open(url).await?;
            let name = store.name().await?;
            Ok::<_, StoreError>((store, name))
        };
        let error = match opened.await {
            Ok((store, name)) => return Ok(Some((Arc::new(store), Some(name)))),
            Err(error) if error.is_absence() => error,
            Err(error) => return Err(error),
        };
        if !waiting.after(&error, shutdown).await {
            return Ok(None);
        }
    }
}

/// Lets go of what is old, again and again.
async fn expire(store: Arc<dyn Store>, retention: Live<Retention>) {
    tokio::time::sleep(EXPIRY_FIRST).await;
    loop {
        match store.expire(&retention.get(), Timestamp::now()).await {
            Ok(expired) if expired.is_nothing() => {}
            Ok(expired) => tracing::info!(?expired, "what was old is gone"),
            Err(error) => tracing::error!(error = %Chain(&error), "what is old stays until the next time"),
        }
        tokio::time::sleep(EXPIRY_EVERY).await;
    }
}

/// Serves a member's inbox from a store.
pub async fn serve(member: Member, store: Arc<dyn Store>, shutdown: &mut Shutdown) -> Result<(), MemberError> {
    let Member { bus, mut inbox, dismissal, .. } = member;
    let expected = Expected::new(bus.clone());
    let pacing = Pacing::new();
    let repository = Arc::new(Repository {
        bus: bus.clone(),
        store,
        expected,
        pacing,
        room: Arc::default(),
        telling: Telling::default(),
        told: Mutex::default(),
    });
    // Reports may have to wait for the orchestrator's word: they are stored in their order, beside everything else.
    let questions = Arc::new(tokio::sync::Semaphore::new(QUESTIONS_MAX));
    let (reports, reported) = mpsc::channel::<(Authentic, Place)>(REPORTS_MAX);
    let record = reports::store_all(&repository, reported);
    let telling = tokio::spawn(telling::tell_all(Arc::clone(&repository)));
    let serve = async {
        loop {
            tokio::select! {
                () = shutdown.requested() => break,
                message = inbox.recv() => {
                    let Some(message) = message else { break };
                    match message.envelope().kind.as_str() {
                        _ if reports::is_report(&message) => {
                            let Envelope { from: to, id, transaction, .. } = *message.envelope();
                            let (pacing, now) = (&repository.pacing, Instant::now());
                            let place = repository.room.take(message.sealed().len(), pacing.is_promised(to, id, now));
                            let way = place.and_then(|place| Some((place, reports.try_reserve().ok()?)));
                            if let Some((place, way)) = way {
                                pacing.taken(to, id);
                                way.send((message, place));
                            } else {
                                let report = SentBack { to, message: id, transaction };
                                let seconds = pacing.put_off(report, repository.room.kept(), now);
                                let fault = Fault::new(FaultCode::Busy, "too many reports wait").after(seconds);
                                repository.put_off(&message, &fault);
                            }
                        }
                        // Publications fetch content, which comes in by this inbox's bus: they must not hold it up.
                        PolicyPublication::KIND => {
                            let repository = Arc::clone(&repository);
                            tokio::spawn(async move { repository.take(message).await });
                        }
                        // Nor must questions, for which the orchestrator is asked what their sender may read, or the store waits for
                        // its turn to write what it tells.
                        ChainRequest::KIND | ChangesRequest::KIND | QueryRequest::KIND | ReferenceRequest::KIND | SearchRequest::KIND
                        | StalenessRequest::KIND | SummaryRequest::KIND => match Arc::clone(&questions).try_acquire_owned() {
                            Ok(place) => {
                                let repository = Arc::clone(&repository);
                                tokio::spawn(async move {
                                    repository.take(message).await;
                                    drop(place);
                                });
                            }
                            Err(_) => {
                                repository.put_off(&message, &Fault::new(FaultCode::Busy, "too many questions wait"));
                            }
                        },
                        _ => repository.take(message).await,
                    }
                }
            }
        }
    };
    tokio::select! {
        () = serve => {}
        () = record => {}
    }
    telling.abort();
    bus.close();
    dismissal.check()
}

/// From the start until what is old goes, and from then to the next time.
const EXPIRY_FIRST: Duration = Duration::from_mins(1);
const EXPIRY_EVERY: Duration = Duration::from_hours(1);

/// Questions that are answered at a time.
const QUESTIONS_MAX: usize = 256;
/// Seconds after which a component whose reports are refused is spoken of again.
const TOLD_AGAIN_SECONDS: u64 = 60;

struct Repository {
    bus: Bus,
    store: Arc<dyn Store>,
    expected: Expected,
    pacing: Pacing,
    room: Arc<Room>,
    telling: Telling,
    /// When it was last said that a component's reports are refused.
    told: Mutex<BTreeMap<ComponentId, Instant>>,
}

impl Repository {
    async fn take(self: &Arc<Self>, message: Authentic) {
        let request = match ToRepository::decode(message.envelope()) {
            Ok(request) => request,
            Err(fault) => return self.refuse(&message, &fault),
        };
        let outcome = match request {
            ToRepository::ResultsRequest(_)
            | ToRepository::ChangesRequest(_)
            | ToRepository::ChainRequest(_)
            | ToRepository::SearchRequest(_)
            | ToRepository::ReferenceRequest(_)
            | ToRepository::StalenessRequest(_)
                if message.sender_type() != Some(ComponentType::Orchestrator) =>
            {
                let text = "what is kept of all endpoints is read by an orchestrator, for its operators";
                let fault = Fault::new(FaultCode::NotAuthorized, text);
                self.refuse(&message, &fault);
                return self.tell_refused(&message, "a question", &fault);
            }
            ToRepository::ChangesRequest(request) => {
                self.store.changes(&request).await.map(|response| self.answer(&message, &response))
            }
            ToRepository::EndpointAssignment(told) => {
                let stored = self.store.assign(&told, received(&message)).await;
                self.acknowledge(&message, stored)
            }
            // They have a way of their own.
            ToRepository::CollectionResults(_) | ToRepository::EvaluationResults(_) | ToRepository::FleetResults(_) => {
                Ok(())
            }
            ToRepository::AuditCheckpoint(told) => self
                .store
                .witness(&told, received(&message))
                .await
                .map(|checkpoints| self.answer(&message, &AuditWitness { checkpoints })),
            ToRepository::PolicyPublication(publication) => self.publish(&message, &publication).await,
            ToRepository::PoliciesRequest(_) => {
                self.store.policies().await.map(|policies| self.answer(&message, &PoliciesResponse { policies }))
            }
            ToRepository::QueryRequest(mut request) => {
                if let Err(fault) = self.may_read(&message, &mut request).await {
                    return self.refuse(&message, &fault);
                }
                self.store.query(&request).await.map(|response| self.answer(&message, &response))
            }
            ToRepository::SearchRequest(request) => {
                let wrong = |text: String| Fault::new(FaultCode::Malformed, text);
                let matcher = request.query.check().map_err(|error| wrong(error.to_string())).and_then(|()| {
                    Matcher::new(request.query.condition.as_ref()).map_err(|error| wrong(error.to_string()))
                });
                match matcher {
                    Ok(matcher) => {
                        self.store.search(&request, &matcher).await.map(|response| self.answer(&message, &response))
                    }
                    Err(fault) => return self.refuse(&message, &fault),
                }
            }
            ToRepository::ReferenceRequest(request) => self
                .store
                .referenced(&request.tasks)
                .await
                .map(|tasks| self.answer(&message, &ReferenceResponse { tasks })),
            ToRepository::StalenessRequest(request) => match self.expected.objects(&request.plan).await {
                Ok(objects) => self
                    .store
                    .stale(&request.endpoints, &objects.keys().cloned().collect(), request.collected_since)
                    .await
                    .map(|response| self.answer(&message, &response)),
                Err(fault) => return self.refuse(&message, &fault),
            },
            ToRepository::SummaryRequest(request) => {
                if let Err(fault) = self.may_read_summary(&message, &request).await {
                    return self.refuse(&message, &fault);
                }
                self.newest(&request).await.map(|response| self.answer(&message, &response))
            }
            ToRepository::ChainRequest(request) => {
                self.store.chain(&request).await.map(|response| self.answer(&message, &response))
            }
            ToRepository::ResultsRequest(request) => {
                self.store.results(&request).await.map(|response| self.answer(&message, &response))
            }
            ToRepository::ContentRequest(request) => self.content(&message, &request).await,
        };
        if let Err(error) = outcome {
            self.not_stored(&message, &error);
        }
    }

    /// The store has not done what a message asks for.
    fn not_stored(&self, message: &Authentic, error: &StoreError) {
        if let StoreError::NotAssigned(endpoint) = error {
            let text = format!("the sender does not speak for the endpoint {endpoint}");
            return self.not_expected(message, &Fault::new(FaultCode::NotAuthorized, text));
        }
        tracing::error!(error = %Chain(error), "the store failed");
        let is_passing = matches!(error, StoreError::DiskFull(_) | StoreError::Unassigned(_));
        let code = if is_passing { FaultCode::Busy } else { FaultCode::Internal };
        let text = "the repository could not do it; it will take the message when it comes again";
        self.put_off(message, &Fault::new(code, text));
    }

    /// An error for a question that its sender has no task for: an evaluator reads what it was asked to evaluate, the
    /// orchestrator whatever its operators want to see (RFC 8248 G-015, ARCH-008).
    async fn may_read(&self, message: &Authentic, request: &mut QueryRequest) -> Result<(), Fault> {
        are_few(&request.others)?;
        if message.sender_type() == Some(ComponentType::Orchestrator) {
            return Ok(());
        }
        let Received { sender, transaction, .. } = received(message);
        self.told_refused(message, self.expected.query(sender, transaction, request).await)
    }

    /// The same, for what was decided on endpoints before.
    async fn may_read_summary(&self, message: &Authentic, request: &SummaryRequest) -> Result<(), Fault> {
        are_few(&request.others)?;
        let Received { sender, transaction, .. } = received(message);
        for endpoint in std::iter::once(&request.endpoint).chain(&request.others) {
            let read = self.expected.may_evaluate(sender, transaction, *endpoint, request.request).await;
            self.told_refused(message, read.map(|_| ()))?;
        }
        Ok(())
    }

    /// What was decided last, of one endpoint or of many.
    async fn newest(&self, request: &SummaryRequest) -> Result<SummaryResponse, StoreError> {
        let endpoints: Vec<EndpointId> = std::iter::once(&request.endpoint).chain(&request.others).copied().collect();
        let mut newest = self.store.newest(&endpoints, &request.policy, &request.profile).await?;
        if request.others.is_empty() {
            return Ok(SummaryResponse { summary: newest.pop().flatten(), newest: Vec::new() });
        }
        Ok(SummaryResponse { summary: None, newest })
    }

    fn told_refused(&self, message: &Authentic, read: Result<(), Fault>) -> Result<(), Fault> {
        if let Err(fault) = &read
            && !fault.code.is_retryable()
        {
            self.tell_refused(message, "a question", fault);
        }
        read
    }

    /// Nothing was stored: the sender keeps the message and sends it again.
    fn put_off(&self, message: &Authentic, fault: &Fault) {
        self.bus.forget(message);
        self.refuse(message, fault);
    }

    /// Those who were told to wait with their reports, as far as there is room for them now.
    fn call_in(&self) {
        for SentBack { to, message, transaction } in self.pacing.call_in(self.room.left(), Instant::now()) {
            let fault = Fault::new(FaultCode::Busy, "there is room now").after(0);
            let context = Context { in_reply_to: Some(message), ..Context::of(transaction) };
            let topic = Topic::Directed { to, operation: Ack::KIND.to_owned(), from: self.bus.own() };
            let _ = self.bus.send(&topic, &fault, context);
        }
    }

    /// A report that nobody asked for, or about somebody else's endpoint, is refused, and whoever watches is told:
    /// a component that does its work does not send it.
    fn not_expected(&self, message: &Authentic, fault: &Fault) {
        if fault.code.is_retryable() {
            return self.put_off(message, fault);
        }
        self.refuse(message, fault);
        self.tell_refused(message, "a report", fault);
    }

    /// Tells whoever watches, once a while, what of whom is refused.
    fn tell_refused(&self, message: &Authentic, what: &str, fault: &Fault) {
        let sender = message.envelope().from;
        let now = Instant::now();
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        told.retain(|_, at| now.duration_since(*at) < Duration::from_secs(TOLD_AGAIN_SECONDS));
        if told.contains_key(&sender) {
            return;
        }
        told.insert(sender, now);
        tracing::warn!(by = %sender, %fault, "{what} is refused");
        let status = StatusNotification {
            publisher: self.bus.own(),
            message: format!("{what} of {sender} is refused"),
            code: format!("security.{}-refused", if what == "a report" { "report" } else { "question" }),
            request: None,
            phase: None,
            progress: None,
            fault: Some(fault.clone()),
        };
        let _ = self.bus.send(&Topic::Status(self.bus.own()), &status, Context::answering(message));
    }

    /// After the commit, and only then.
    fn acknowledge(&self, message: &Authentic, stored: Result<Stored, StoreError>) -> Result<(), StoreError> {
        if stored? == Stored::Again {
            tracing::debug!(message = %message.envelope().id, "stored before");
        }
        self.bus.acknowledge(message, self.directed(message, Ack::KIND));
        Ok(())
    }

    async fn publish(&self, message: &Authentic, publication: &PolicyPublication) -> Result<(), StoreError> {
        let policy = &publication.policy;
        let bytes = if let Some(bytes) = self.store.content(&policy.content.sha256).await? {
            bytes
        } else {
            let ask = self.directed(message, ContentRequest::KIND);
            let context = Context::of(message.envelope().transaction);
            match ContentStore::new(None).fetch(&self.bus, &ask, &policy.content, context).await {
                Ok(bytes) => bytes.to_vec(),
                Err(fault) => {
                    self.bus.forget(message);
                    self.refuse(message, &fault);
                    return Ok(());
                }
            }
        };
        let stored = self.store.record_policy(policy, &bytes, received(message)).await;
        self.acknowledge(message, stored)
    }

    async fn content(&self, message: &Authentic, request: &ContentRequest) -> Result<(), StoreError> {
        match self.store.content(&request.sha256).await? {
            Some(bytes) => self.answer(message, &chunk_of(&bytes, request)),
            None => self.refuse(message, &Fault::new(FaultCode::ContentUnavailable, "the repository does not have it")),
        }
        Ok(())
    }

    fn answer<M: Message>(&self, message: &Authentic, answer: &M) {
        if let Err(error) = self.bus.send(&self.directed(message, M::KIND), answer, Context::answering(message)) {
            tracing::error!(error = %Chain(&error), "the answer cannot be sent");
        }
    }

    fn refuse(&self, message: &Authentic, fault: &Fault) {
        self.bus.count_refusal(fault);
        let _ = self.bus.send(&self.directed(message, Fault::KIND), fault, Context::answering(message));
    }

    /// The reply topic follows from who asked; it is never taken from the message.
    fn directed(&self, message: &Authentic, operation: &str) -> Topic {
        let to: ComponentId = message.envelope().from;
        // Faults travel under the operation that they answer: the grant is for a closed list of words.
        let operation = match operation {
            "error" => match message.envelope().kind.as_str() {
                "query-request" | "results-request" | "policies-request" | "changes-request" | "chain-request"
                | "search-request" | "staleness-request" | "summary-request" | "reference-request"
                | "audit-checkpoint" => "query-response",
                "content-request" => "content-response",
                _ => "ack",
            },
            "results-response" | "policies-response" | "changes-response" | "chain-response" | "search-response"
            | "staleness-response" | "summary-response" | "reference-response" | "audit-witness" => "query-response",
            other => other,
        };
        Topic::Directed { to, operation: operation.to_owned(), from: self.bus.own() }
    }
}

/// An error for a question about too many endpoints.
fn are_few(others: &[EndpointId]) -> Result<(), Fault> {
    if others.len() > FLEET_ENDPOINTS_MAX {
        let text = format!("a question is about at most {FLEET_ENDPOINTS_MAX} endpoints besides the first");
        return Err(Fault::new(FaultCode::TooLarge, text));
    }
    Ok(())
}

fn received(message: &Authentic) -> Received {
    let envelope = message.envelope();
    Received {
        sender: envelope.from,
        message: envelope.id,
        transaction: envelope.transaction,
        received: Timestamp::now(),
    }
}

fn report(message: &Authentic) -> Report {
    // Whoever packed it has done the work already.
    let packed = message.packed().map_or_else(|| pack(message.sealed()), <[u8]>::to_vec);
    Report { hash: message.hash().clone(), packed }
}
