//! What the orchestrator keeps across restarts: roster, workflows, tokens, imported policies.

use std::path::{Path, PathBuf};

use ::store::postgres::DatabaseUrl;
use bus::Prepared;
use proto::content::{ContentHash, ContentRef};
use proto::fault::{Fault, FaultCode};
use proto::id::{ComponentId, EndpointId, RequestId, TransactionId};
use proto::message::{AuditCheckpoint, PolicyDescription};
use proto::operator::{PolicyFeed, PolicySigner, TokenView};
use serde::{Deserialize, Serialize};
use service::audit::{Act, Line};
use service::report::Chain;
use uuid::Uuid;

use crate::core::Action;
use crate::core::label::Label;
use crate::core::roster::Component;
use crate::core::standing::Assigned;
use crate::core::workflow::Workflow;

/// The file in a data directory.
pub(crate) const DATABASE_FILE: &str = "orchestrator.db";

/// Why the store does not do it.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The file or server cannot be used.
    #[error("the orchestrator's database {0} cannot be opened")]
    Open(PathBuf, #[source] sqlx::Error),
    /// Its tables cannot be brought up to date.
    #[error("the orchestrator's database cannot be migrated; a newer program may have made it")]
    Migrate(#[source] sqlx::migrate::MigrateError),
    /// Another orchestrator is the active one.
    #[error("another orchestrator on this database is the active one now: nothing was stored")]
    Deposed,
    /// The CA's files, which are to be kept.
    #[error("the CA's files cannot be read, and so are not in the database")]
    Ca(#[source] std::io::Error),
    /// Something else.
    #[error("the orchestrator's database failed")]
    Database(#[from] sqlx::Error),
    /// A row is not what it should be.
    #[error("the orchestrator's database holds something unreadable")]
    Damaged(#[source] serde_json::Error),
}

impl StoreError {
    /// Whether the database is not there, or not yet: it may be soon.
    pub fn is_absence(&self) -> bool {
        matches!(self, Self::Open(_, error) | Self::Database(error) if ::store::postgres::is_absence(error))
    }
}

/// What an operator is told; the log says more.
impl From<StoreError> for Fault {
    fn from(error: StoreError) -> Self {
        tracing::error!(error = %Chain(&error), "the store failed");
        Self::new(FaultCode::Internal, "the orchestrator's store failed; its log says why")
    }
}

/// A join token as it is kept.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct TokenRow {
    /// What operators see.
    #[serde(flatten)]
    pub view: TokenView,
    /// Its secret.
    pub secret: String,
}

impl std::fmt::Debug for TokenRow {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("TokenRow").field("view", &self.view).finish_non_exhaustive()
    }
}

/// What a component was asked, as it was signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SentTask {
    /// By which request.
    pub request: RequestId,
    /// Who; `None`: everybody, by broadcast.
    pub responder: Option<ComponentId>,
    /// The message.
    pub message: Prepared,
}

/// A schedule or an observation as it is kept.
#[derive(Debug, Clone)]
pub struct StandingTask {
    /// The request that begins it.
    pub request: RequestId,
    /// Which of the two.
    pub operation: &'static str,
    /// What it is called.
    pub identifier: String,
    /// What it collects.
    pub plan: ContentRef,
}

pub mod postgres;
pub mod sqlite;

/// The orchestrator's store.
#[derive(Debug, Clone)]
pub struct Store(BackEnd);

#[derive(Debug, Clone)]
enum BackEnd {
    Sqlite(sqlite::SqliteStore),
    Postgres(postgres::PostgresStore),
}

impl Store {
    /// Opens or makes the file.
    pub async fn open(path: &Path) -> Result<Self, StoreError> {
        Ok(Self(BackEnd::Sqlite(sqlite::SqliteStore::open(path).await?)))
    }

    /// Connects to a database; nothing is written to it before its lease is taken.
    pub async fn connect(url: &DatabaseUrl) -> Result<Self, StoreError> {
        Ok(Self(BackEnd::Postgres(postgres::PostgresStore::open(url).await?)))
    }

    /// The database that others may use too, if it is one.
    pub(crate) fn database(&self) -> Option<&postgres::PostgresStore> {
        match &self.0 {
            BackEnd::Sqlite(_) => None,
            BackEnd::Postgres(store) => Some(store),
        }
    }
}

/// What both back ends do.
macro_rules! both {
    ($($(#[$doc:meta])* fn $name:ident(&$self:ident $(, $argument:ident: $type:ty)*) -> $answer:ty;)*) => {
        impl Store {
            $($(#[$doc])* pub async fn $name(&$self $(, $argument: $type)*) -> Result<$answer, StoreError> {
                match &$self.0 {
                    BackEnd::Sqlite(store) => store.$name($($argument),*).await,
                    BackEnd::Postgres(store) => store.$name($($argument),*).await,
                }
            })*
        }
    };
}

both! {
    /// The roster.
    fn components(&self) -> Vec<Component>;
    /// Workflows that are open, and the latest of the others.
    fn workflows(&self) -> Vec<Workflow>;
    /// Endpoints that were merged into others.
    fn aliases(&self) -> Vec<(EndpointId, EndpointId)>;
    /// Assigned policies.
    fn assigned(&self) -> Vec<Assigned>;
    /// Keeps an assigned policy; with an act, it was an operator's word.
    fn put_assigned(&self, assigned: &Assigned, act: Option<&Act>) -> ();
    /// An assigned policy is no more.
    fn remove_assigned(&self, name: &str, act: &Act) -> ();
    /// What operators call endpoints.
    fn labels(&self) -> Vec<Label>;
    /// Keeps a label; with an act, it was an operator's word.
    fn put_label(&self, label: &Label, act: Option<&Act>) -> ();
    /// A label is no more.
    fn remove_label(&self, name: &str, act: &Act) -> ();
    /// Keeps what components are going to be asked.
    fn put_tasks(&self, tasks: &[SentTask]) -> ();
    /// Deletes workflows that ended before a time, with their responders.
    fn expire_workflows(&self, before: jiff::Timestamp) -> u64;
    /// Messages that were sent before a time, after one of them, with their requests; not those of schedules and observations
    /// that were in force since.
    fn old_tasks(&self, before: jiff::Timestamp, after: Option<&ContentHash>, limit: i64) -> Vec<(ContentHash, RequestId)>;
    /// Deletes messages.
    fn delete_tasks(&self, hashes: impl Iterator<Item = &ContentHash>) -> u64;
    /// What was asked by which of these messages, and of whom; of nobody in particular, where that is not said.
    fn sent_by(&self, hashes: &[&ContentHash]) -> Vec<(ContentHash, RequestId, Option<ComponentId>)>;
    /// The message that asked.
    fn sent(&self, hash: &ContentHash) -> Option<String>;
    /// What a component was last asked by a request, as it was sealed.
    fn task_of(&self, request: RequestId, responder: ComponentId) -> Option<String>;
    /// Stores what the core wants stored, and what is going to be asked, in one transaction.
    fn apply(&self, batch: Uuid, actions: &[&Action], tasks: &[SentTask]) -> ();
    /// A workflow that is in memory no more.
    fn workflow(&self, id: TransactionId) -> Option<Workflow>;
    /// A standing task is in force at these collectors; gives the request that stands for it, which is the same for
    /// the same question, and those of the collectors at whom it was not in force before.
    fn begin_standing(&self, task: &StandingTask, collectors: &[ComponentId], act: impl FnOnce(RequestId) -> Act) -> (RequestId, Vec<ComponentId>);
    /// A standing task is in force at a collector no more: the one that a request began, or all of that name. Where
    /// none was, nothing is done and nothing is written down.
    fn end_standing(&self, name: (&str, &str), request: Option<RequestId>, collector: ComponentId, ended: jiff::Timestamp, act: &Act) -> ();
    /// The plan of a standing task at a collector, and when it ended.
    fn standing(&self, request: RequestId, collector: ComponentId) -> Option<(ContentRef, Option<jiff::Timestamp>)>;
    /// Keeps a token.
    fn put_token(&self, token: &TokenRow, act: &Act) -> ();
    /// All tokens.
    fn tokens(&self) -> Vec<TokenRow>;
    /// A token by its id.
    fn token(&self, id: &str) -> Option<TokenRow>;
    /// Of each name the policy that is in force.
    fn policies(&self) -> Vec<PolicyDescription>;
    /// The versions of all policies, the oldest first.
    fn policy_versions(&self) -> Vec<PolicyDescription>;
    /// Keeps a version; where it does not wait, it is the one in force from now on.
    fn put_policy(&self, policy: &PolicyDescription, act: &Act) -> ();
    /// Keys whose signatures are believed.
    fn signers(&self) -> Vec<PolicySigner>;
    /// Believes a key.
    fn put_signer(&self, signer: &PolicySigner, act: &Act) -> ();
    /// Believes it no more.
    fn remove_signer(&self, name: &str, act: &Act) -> ();
    /// Where policies are looked for.
    fn feeds(&self) -> Vec<PolicyFeed>;
    /// Keeps a feed; with an act, it was an operator's word.
    fn put_feed(&self, feed: &PolicyFeed, act: Option<&Act>) -> ();
    /// A feed is no more.
    fn remove_feed(&self, name: &str, act: &Act) -> ();
    /// How far the log has come, unless that is signed already.
    fn unsigned(&self) -> Option<AuditCheckpoint>;
    /// How far the log has come.
    fn last_entry(&self) -> Option<AuditCheckpoint>;
    /// Keeps what the orchestrator has signed.
    fn put_checkpoint(&self, number: u64, sealed: &str) -> ();
    /// The log from an entry on: so many entries, and the checkpoints that were signed among them.
    fn audit_lines(&self, after: u64, limit: u32) -> (Vec<Line>, u64);
}

fn json<T: Serialize>(value: &T) -> String {
    serde_json::to_string(value).expect("rows always serialise")
}

#[cfg(test)]
mod tests;
