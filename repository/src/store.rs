//! What the repository keeps. One trait, two back ends: SQLite and PostgreSQL run the same SQL and
//! the same battery of tests.

use std::collections::BTreeSet;
use std::path::PathBuf;

use async_trait::async_trait;
use jiff::Timestamp;
use oval::condition::Matcher;
use proto::content::ContentHash;
use proto::id::{ComponentId, EndpointId, MessageId, TransactionId};
use proto::message::{
    AttributeChange, AuditCheckpoint, ChainRequest, ChainResponse, ChangesRequest, ChangesResponse, CollectionResults,
    EndpointAssignment, EvaluationResults, FleetResults, PolicyDescription, QueryRequest, QueryResponse,
    ResultsRequest, ResultsResponse, SearchRequest, SearchResponse, StalenessResponse,
};
use proto::plan::ObjectKey;
use proto::verdict::EvaluationSummary;

use crate::retention::{Expired, Retention};

pub mod postgres;
pub mod sqlite;

/// Where a message came from, and when.
#[derive(Debug, Clone, Copy)]
pub struct Received {
    /// Who sent it.
    pub sender: ComponentId,
    /// Its id.
    pub message: MessageId,
    /// The workflow.
    pub transaction: TransactionId,
    /// When it was received.
    pub received: Timestamp,
}

/// A sealed message, to be kept as it came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// SHA-256 of its envelope.
    pub hash: ContentHash,
    /// Its bytes, compressed.
    pub packed: Vec<u8>,
}

/// What a report says.
#[derive(Debug, Clone, Copy)]
pub enum Said<'report> {
    /// A part of a collection.
    Observations(&'report CollectionResults),
    /// A part of an evaluation.
    Verdicts(&'report EvaluationResults),
    /// Evaluations of many endpoints.
    FleetVerdicts(&'report FleetResults),
}

/// A report that is to be stored.
#[derive(Debug, Clone, Copy)]
pub struct Incoming<'report> {
    /// What it says.
    pub said: Said<'report>,
    /// Where it came from.
    pub from: Received,
    /// The message itself.
    pub report: &'report Report,
}

/// What storing a message did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stored {
    /// It is stored.
    New {
        /// How many observations are new or changed.
        change_count: u64,
        /// The numbers of the changes of what was known before.
        changed: Vec<u64>,
    },
    /// It was stored before, and nothing was done.
    Again,
}

/// Why the store does not do it.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The file or server cannot be used.
    #[error("the repository's database {0} cannot be opened")]
    Open(PathBuf, #[source] sqlx::Error),
    /// Its tables cannot be brought up to date.
    #[error("the repository's database cannot be migrated; a newer program may have made it")]
    Migrate(#[source] sqlx::migrate::MigrateError),
    /// The disk is full: nothing was stored, the sender keeps the message.
    #[error("the disk of the repository's database is full")]
    DiskFull(#[source] sqlx::Error),
    /// Nobody has said yet who speaks for the endpoint; the message comes again.
    #[error("nobody has said yet which collector speaks for the endpoint {0}")]
    Unassigned(EndpointId),
    /// Somebody else speaks for the endpoint.
    #[error("another collector speaks for the endpoint {0}")]
    NotAssigned(EndpointId),
    /// Something else.
    #[error("the repository's database failed")]
    Database(#[source] sqlx::Error),
    /// A row is not what it should be.
    #[error("the repository's database holds something unreadable: {0}")]
    Damaged(String),
}

impl StoreError {
    /// Whether the database is not there, or not yet: it may be soon.
    pub fn is_absence(&self) -> bool {
        matches!(self, Self::Open(_, error) | Self::Database(error) if ::store::postgres::is_absence(error))
    }
}

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        let code = error.as_database_error().and_then(|database| database.code().map(std::borrow::Cow::into_owned));
        // SQLITE_FULL is 13, in whatever extended code; PostgreSQL's disk_full is 53100.
        let is_full =
            code.is_some_and(|code| code == "53100" || code.parse::<u32>().is_ok_and(|number| number & 0xff == 13));
        if is_full { Self::DiskFull(error) } else { Self::Database(error) }
    }
}

/// The repository's store.
#[async_trait]
pub trait Store: Send + Sync + 'static {
    /// Stores reports, their changes and their message ids in one transaction, as if one came after the other; observations only
    /// from who speaks for the endpoint. What came of each, in their order: one that cannot be stored keeps no other away.
    async fn record(&self, reports: &[Incoming<'_>]) -> Vec<Result<Stored, StoreError>>;

    /// Takes over who speaks for which endpoint, and which endpoints turned out to be others.
    async fn assign(&self, told: &EndpointAssignment, from: Received) -> Result<Stored, StoreError>;

    /// The sealed messages that verdicts rest on; from now on they can be had by their content.
    async fn chain(&self, request: &ChainRequest) -> Result<ChainResponse, StoreError>;

    /// Stores a policy with its content.
    async fn record_policy(
        &self,
        policy: &PolicyDescription,
        bytes: &[u8],
        from: Received,
    ) -> Result<Stored, StoreError>;

    /// Of each name the policy that came into force last.
    async fn policies(&self) -> Result<Vec<PolicyDescription>, StoreError>;

    /// Content by its hash: a policy, or a sealed message of which a chain has told.
    async fn content(&self, hash: &ContentHash) -> Result<Option<Vec<u8>>, StoreError>;

    /// Stored observations of an endpoint, as many as fit into an answer; or what is known of one or many, by its hash.
    async fn query(&self, request: &QueryRequest) -> Result<QueryResponse, StoreError>;

    /// Which items are stored of which endpoints, under a condition; as many endpoints as fit into an answer.
    async fn search(&self, request: &SearchRequest, matcher: &Matcher) -> Result<SearchResponse, StoreError>;

    /// What of these objects is missing or stale at each endpoint, as many endpoints as fit into an answer.
    async fn stale(
        &self,
        endpoints: &[EndpointId],
        objects: &BTreeSet<ObjectKey>,
        collected_since: Timestamp,
    ) -> Result<StalenessResponse, StoreError>;

    /// Of each of these endpoints the newest evaluation by a policy and profile that holds now; of as many of them as fit into an answer.
    async fn newest(
        &self,
        endpoints: &[EndpointId],
        policy: &str,
        profile: &str,
    ) -> Result<Vec<Option<EvaluationSummary>>, StoreError>;

    /// Changes of what was known before, by their numbers and in their order. Without items unless they are whole.
    async fn changes_numbered(&self, numbers: &[u64], is_whole: bool) -> Result<Vec<AttributeChange>, StoreError>;

    /// The newest changes, and what came of the observations that report them.
    async fn changes(&self, request: &ChangesRequest) -> Result<ChangesResponse, StoreError>;

    /// Stored verdicts.
    async fn results(&self, request: &ResultsRequest) -> Result<ResultsResponse, StoreError>;

    /// Keeps what an orchestrator says of its log; to the question that has the number 0, gives the first and the latest
    /// of what was ever said.
    async fn witness(&self, told: &AuditCheckpoint, from: Received) -> Result<Vec<AuditCheckpoint>, StoreError>;

    /// Lets go of what is old by then.
    async fn expire(&self, retention: &Retention, now: Timestamp) -> Result<Expired, StoreError>;

    /// Those of these messages that asked for something which is stored, by the hash of their envelope.
    async fn referenced(&self, tasks: &[ContentHash]) -> Result<Vec<ContentHash>, StoreError>;

    /// How many observations, changes and results there are.
    async fn counts(&self) -> Result<Counts, StoreError>;
}

/// How much there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Counts {
    /// Items.
    pub item_count: u64,
    /// What looking at an object gave, each once.
    pub finding_count: u64,
    /// What a rule came to, each once.
    pub decision_count: u64,
    /// Observations that are current.
    pub current_count: u64,
    /// Observations of the past.
    pub past_count: u64,
    /// Changes.
    pub change_count: u64,
    /// Verdicts.
    pub result_count: u64,
}

pub(crate) fn label<T: serde::Serialize>(value: &T) -> String {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::String(text)) => text,
        _ => String::new(),
    }
}

pub(crate) fn unlabel<T: serde::de::DeserializeOwned>(text: &str) -> Result<T, StoreError> {
    serde_json::from_value(serde_json::Value::String(text.to_owned()))
        .map_err(|error| StoreError::Damaged(error.to_string()))
}

pub(crate) fn json<T: serde::Serialize>(value: &T) -> String {
    serde_json::to_string(value).expect("vocabulary types always serialise")
}

pub(crate) fn unjson<T: serde::de::DeserializeOwned>(text: &str) -> Result<T, StoreError> {
    serde_json::from_str(text).map_err(|error| StoreError::Damaged(error.to_string()))
}

pub(crate) fn time(microseconds: i64) -> Result<Timestamp, StoreError> {
    Timestamp::from_microsecond(microseconds).map_err(|error| StoreError::Damaged(error.to_string()))
}

pub(crate) fn id<T: std::str::FromStr>(text: &str) -> Result<T, StoreError> {
    text.parse().map_err(|_| StoreError::Damaged(format!("`{text}` is not an id")))
}

pub(crate) fn endpoint_text(endpoint: EndpointId) -> String {
    endpoint.to_string()
}
