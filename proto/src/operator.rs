//! What an operator's command asks of an orchestrator, over a local socket that only the owner of
//! the data directory can open. One request a connection: a JSON line, then `content-bytes` raw
//! bytes; the answer is JSON lines, the last of which is `done` or `fault`.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::budget::Budget;
use crate::capability::ComponentType;
use crate::fault::Fault;
use crate::id::{ComponentId, EndpointId, TransactionId};
use crate::identity::IdentityEvidence;
use crate::message::{
    AttributeChange, LackedKind, ObservationEntry, ObservationOperation, PeriodicOperation, PolicyDescription,
    ResultsResponse, ResultsSelection, ScheduleEntry, SearchResponse, StreamState,
};
use crate::observation::EndpointFacts;
use crate::query::PostureQuery;
use crate::schedule::Schedule;
use crate::verdict::{EvaluationSummary, RuleResult, Verdict};

mod coverage;
mod policy;
mod posture;
mod transaction;

pub use coverage::{CoverageGap, CoverageView};
pub use policy::{
    FeedChange, FeedSource, HttpsSource, PolicyFeed, PolicyImport, PolicyPreview, PolicySigner, PreviewChange,
    SignerChange,
};
pub use posture::{LabelDefinition, LabelView, Question};
pub use transaction::{Account, ResponderView, TransactionView};

/// What an operator decides of endpoints.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum IdentityDecision {
    /// The component's endpoint is the one that it seems to be.
    Same(ComponentId),
    /// It is not.
    Distinct(ComponentId),
    /// The first endpoint is the second.
    Merge(EndpointId, EndpointId),
    /// It is not, after all.
    Split(EndpointId),
}

/// A CA of the installation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct CaView {
    /// SHA-256 of its certificate.
    pub fingerprint: String,
    /// Its name.
    pub subject: String,
    /// From when its certificate holds.
    pub not_before: Timestamp,
    /// And until when.
    pub not_after: Timestamp,
    /// Whether it signs now.
    pub is_issuer: bool,
    /// How many components say that they trust it.
    pub known_by: u64,
    /// How many components have a certificate of it.
    pub certificate_count: u64,
}

/// A request line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct OperatorRequest {
    /// What is asked.
    pub ask: Ask,
    /// How many raw bytes follow the line.
    #[serde(default)]
    pub content_bytes: u64,
}

/// What is asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Ask {
    /// How is the system.
    Status,
    /// Who is registered.
    Roster,
    /// Collect what a policy needs.
    Collect(Workflow),
    /// Collect unless told otherwise, and evaluate.
    Evaluate(Workflow),
    /// Which items are there, on which endpoints.
    Query(Box<Question>),
    /// Give endpoints a name.
    LabelSet(Box<LabelDefinition>),
    /// Take the name away.
    #[serde(rename_all = "kebab-case")]
    LabelRemove {
        /// It.
        name: String,
    },
    /// Which labels there are, and what they mean.
    LabelList,
    /// Stored verdicts.
    #[serde(rename_all = "kebab-case")]
    Results {
        /// Which.
        selection: ResultsSelection,
        /// Only these; empty: all.
        verdicts: Vec<Verdict>,
    },
    /// Take the data stream that follows as a policy.
    PolicyImport(Box<PolicyImport>),
    /// Put a version of a policy in force.
    #[serde(rename_all = "kebab-case")]
    PolicyActivate {
        /// The policy.
        name: String,
        /// Which version; without, the newest that waits.
        #[serde(default)]
        number: Option<u64>,
    },
    /// The versions of a policy.
    #[serde(rename_all = "kebab-case")]
    PolicyVersions {
        /// Its name.
        name: String,
    },
    /// What a version would change, decided on what is stored.
    #[serde(rename_all = "kebab-case")]
    PolicyPreview {
        /// The policy, profile and endpoints.
        workflow: Workflow,
        /// Which version; without, the newest that waits.
        #[serde(default)]
        number: Option<u64>,
    },
    /// Believe, or no longer believe, a key that signs policies.
    PolicySigner(SignerChange),
    /// The keys that are believed.
    PolicySigners,
    /// Look for policies in a place, or do no longer.
    PolicyFeed(FeedChange),
    /// Where policies are looked for.
    PolicyFeeds,
    /// Which policies are there.
    PolicyList,
    /// Which rules of a policy nobody can decide on some endpoints.
    PolicyCoverage(Workflow),
    /// The workflows of late.
    Transactions,
    /// A workflow with everybody who was asked.
    #[serde(rename_all = "kebab-case")]
    Transaction {
        /// Which.
        transaction: TransactionId,
    },
    /// Tell when a workflow is done with everybody who was there; with `is-all`, with those too that were not.
    #[serde(rename_all = "kebab-case")]
    Wait {
        /// Which.
        transaction: TransactionId,
        /// Until it has ended.
        #[serde(default)]
        is_all: bool,
    },
    /// Stop a workflow.
    #[serde(rename_all = "kebab-case")]
    Cancel {
        /// Which.
        transaction: TransactionId,
    },
    /// Evaluate a policy again and again, or when what it reads changes.
    PolicyAssign(Box<PolicyAssignment>),
    /// End that.
    #[serde(rename_all = "kebab-case")]
    PolicyUnassign {
        /// What it is called.
        name: String,
    },
    /// Which policies are assigned to what.
    PolicyAssignments,
    /// Make a join token.
    #[serde(rename_all = "kebab-case")]
    TokenCreate {
        /// For this type of component.
        component_type: ComponentType,
        /// How many components may join with it.
        uses: u32,
        /// How long it holds.
        ttl_seconds: u64,
        /// What to call those who come with it.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        labels: Vec<String>,
        /// Whether an operator has to approve each of them.
        #[serde(default)]
        needs_approval: bool,
    },
    /// Which join tokens are there.
    TokenList,
    /// Nobody joins with this token any more.
    #[serde(rename_all = "kebab-case")]
    TokenRevoke {
        /// Its id.
        id: String,
    },
    /// Schedule, cancel or list periodic collection at collectors.
    #[serde(rename_all = "kebab-case")]
    Periodic {
        /// What to do.
        operation: PeriodicOperation,
        /// The schedule's identifier.
        identifier: String,
        /// When it runs; to schedule.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        schedule: Option<Schedule>,
        /// Collect at once, or once more before it ends.
        #[serde(default)]
        at_once: bool,
        /// What to collect, and where.
        workflow: Workflow,
    },
    /// Start, cancel or list event-based collection at collectors.
    #[serde(rename_all = "kebab-case")]
    Observation {
        /// What to do.
        operation: ObservationOperation,
        /// The observation's identifier.
        identifier: String,
        /// Seconds from one look to the next.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        poll_seconds: Option<u64>,
        /// What to watch, and where.
        workflow: Workflow,
    },
    /// What changed, and with `is-followed` what changes from now on.
    #[serde(rename_all = "kebab-case")]
    Changes {
        /// On these endpoints, by label or name; empty: on all.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        targets: Vec<String>,
        /// At most so many of those that are stored.
        limit: u32,
        /// Go on as changes come in.
        #[serde(default)]
        is_followed: bool,
        /// Only changes of items of which this holds, before or after.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        query: Option<Box<PostureQuery>>,
    },
    /// The log of acts.
    Audit,
    /// Which endpoint is which: say so.
    Identity(IdentityDecision),
    /// The CAs that are trusted.
    CaShow,
    /// Make a successor of the CA; with content, the PEM of its certificate, a zero byte, and the PEM of its key.
    CaRotate,
    /// Trust the old CA no more.
    #[serde(rename_all = "kebab-case")]
    CaRetire {
        /// Even if components are cut off by it.
        is_forced: bool,
    },
    /// The sealed messages that verdicts rest on.
    #[serde(rename_all = "kebab-case")]
    Chain {
        /// Of this workflow; without, of the newest evaluation.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        transaction: Option<TransactionId>,
        /// On this endpoint, by label or name; without, on all.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        endpoint: Option<String>,
        /// Of this rule, by its id or the end of it; without, of all.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        rule: Option<String>,
    },
    /// Sign a certificate for a broker that is not embedded.
    #[serde(rename_all = "kebab-case")]
    BrokerCertificate {
        /// A PKCS #10 request for its key, PEM. Nothing else of it is taken over.
        certificate_signing_request: String,
        /// Host names and addresses that the certificate is for.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        hosts: Vec<String>,
    },
    /// Let a component in that waits for approval.
    #[serde(rename_all = "kebab-case")]
    Approve {
        /// Which.
        component: ComponentId,
    },
    /// Put a component out: its certificate is refused from now on.
    #[serde(rename_all = "kebab-case")]
    Dismiss {
        /// Which.
        component: ComponentId,
        /// Whether it may not join again.
        is_ban: bool,
        /// Why, for the component and for whoever looks at the roster.
        reason: String,
    },
    /// Have a collector look at nothing for a while.
    #[serde(rename_all = "kebab-case")]
    Pause {
        /// Which.
        component: ComponentId,
        /// Until when; none: it goes on now.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        until: Option<Timestamp>,
        /// Why, for whoever looks at the log.
        #[serde(default)]
        reason: String,
    },
    /// Let a banned component join again with a new token.
    #[serde(rename_all = "kebab-case")]
    LiftBan {
        /// Which.
        component: ComponentId,
    },
}

/// What a workflow is about.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Workflow {
    /// The policy's name.
    pub policy: String,
    /// A profile's id, or the end of one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub profile: Option<String>,
    /// Endpoints by label or name; empty: all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub targets: Vec<String>,
    /// Endpoints that are left out, by label or name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub excluded: Vec<String>,
    /// Evaluate what is stored, contact no endpoint.
    #[serde(default)]
    pub is_stored_only: bool,
    /// Evaluate what was known at that time; contacts no endpoint.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub as_of: Option<Timestamp>,
    /// What is stored and not older than this is not collected again; what is older and is not collected is stale. Absent:
    /// everything is collected, or with `is-stored-only` nothing is stale.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_age_seconds: Option<u64>,
    /// Ask by one broadcast instead of one request a collector.
    #[serde(default)]
    pub is_broadcast: bool,
    /// How long to wait for answers.
    pub timeout_seconds: u64,
    /// How long endpoints that are not there may catch up, from the beginning.
    #[serde(default)]
    pub expires_seconds: u64,
    /// What collecting may cost an endpoint.
    #[serde(default, skip_serializing_if = "Budget::is_empty")]
    pub budget: Budget,
}

/// A policy that is evaluated on some endpoints again and again, or when what it reads changes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct PolicyAssignment {
    /// What it is called.
    pub name: String,
    /// The policy, the endpoints, and how fresh what is stored has to be.
    pub workflow: Workflow,
    /// When it is evaluated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schedule: Option<Schedule>,
    /// Whether it is evaluated when something that it reads has changed; collectors watch for that.
    #[serde(default)]
    pub is_change_based: bool,
    /// Seconds from one look of the collectors to the next; absent: as they like.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub poll_seconds: Option<u64>,
}

/// The same, and how it goes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct AssignmentView {
    /// It.
    pub assignment: PolicyAssignment,
    /// When it is evaluated next.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<Timestamp>,
    /// The latest workflow.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last: Option<TransactionId>,
    /// How many endpoints it is about.
    pub endpoint_count: u64,
    /// On how many of them collectors watch for changes.
    pub watched_count: u64,
}

/// An answer line.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OperatorEvent {
    /// The workflow has begun.
    #[serde(rename_all = "kebab-case")]
    Started {
        /// Its id.
        transaction: TransactionId,
        /// How many endpoints are asked.
        endpoint_count: u64,
    },
    /// How far it is.
    #[serde(rename_all = "kebab-case")]
    Progress {
        /// What is going on.
        activity: Activity,
        /// Units done.
        done: u64,
        /// Units in all.
        total: u64,
    },
    /// A verdict came in.
    #[serde(rename_all = "kebab-case")]
    Verdict {
        /// On which endpoint.
        endpoint: EndpointId,
        /// The verdict.
        result: Box<RuleResult>,
    },
    /// An endpoint is evaluated.
    Summary(Box<EvaluationSummary>),
    /// The workflow has ended: every responder is in one terminal state.
    Ended(Box<TransactionView>),
    /// Answer to `status`.
    Status(Box<SystemStatus>),
    /// Answer to `roster`.
    Roster(Vec<RosterEntry>),
    /// Answer to `results`.
    Results(Box<ResultsResponse>),
    /// Answer to `policy-import`.
    Policy(Box<PolicyDescription>),
    /// Answer to `policy-preview`.
    Preview(Box<PolicyPreview>),
    /// Answer to `policy-signers`.
    Signers(Vec<PolicySigner>),
    /// Answer to `policy-feeds`.
    Feeds(Vec<PolicyFeed>),
    /// Answer to `policy-list` and `policy-versions`.
    Policies(Vec<PolicyDescription>),
    /// Answer to `transactions`.
    Transactions(Vec<TransactionView>),
    /// Answer to `token-create`.
    Token(String),
    /// Answer to `audit`: lines of the log, as it is written out.
    Audit(Vec<String>),
    /// Answer to `ca-show` and what changes the CA.
    Cas(Vec<CaView>),
    /// Answer to `chain`: sealed messages, one JSON document each.
    Chain(Vec<String>),
    /// Answer to `broker-certificate`.
    BrokerCertificate(Box<BrokerCertificate>),
    /// Answer to `token-list`.
    Tokens(Vec<TokenView>),
    /// Answer to `periodic` and `observation`: what each collector said.
    Collectors(Vec<CollectorAnswer>),
    /// Answer to `changes`: the observations that reports come from, before the changes.
    Streams(Vec<StreamState>),
    /// Answer to `changes`, one each.
    Change(Box<AttributeChange>),
    /// Answer to `query`, a page of it.
    Found(Box<SearchResponse>),
    /// Answer to `label-list`, and to `label-set`.
    Labels(Vec<LabelView>),
    /// What can be decided, and what not.
    Coverage(Box<CoverageView>),
    /// Answer to `policy-assignments`.
    Assignments(Vec<AssignmentView>),
    /// Something the operator should know.
    Notice(String),
    /// Nothing follows.
    Done,
    /// It did not work; nothing follows.
    Fault(Fault),
}

/// A certificate for a broker that is not embedded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct BrokerCertificate {
    /// It, PEM.
    pub certificate: String,
    /// The CA's, PEM.
    pub ca_certificate: String,
    /// When it ends: nobody renews it but an operator.
    pub ends: Timestamp,
}

/// What one collector said to `periodic` or `observation`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct CollectorAnswer {
    /// Who.
    pub component: ComponentId,
    /// What its operator calls it.
    pub name: String,
    /// What came of it.
    pub outcome: AskOutcome,
    /// Why it was not done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// Its schedules, where they were asked for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub schedules: Vec<ScheduleEntry>,
    /// Its observations, where they were asked for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub observations: Vec<ObservationEntry>,
}

/// What came of asking one collector.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AskOutcome {
    /// It did it.
    Done,
    /// It said no.
    Refused,
    /// It did not answer in time.
    NoAnswer,
    /// It was not there to be asked.
    Offline,
}

impl AskOutcome {
    /// The outcome as it is spelled.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Refused => "refused",
            Self::NoAnswer => "no-answer",
            Self::Offline => "offline",
        }
    }
}

/// What a workflow does at the moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Activity {
    /// Endpoints are being looked at.
    Collecting,
    /// Verdicts are being made.
    Evaluating,
}

/// Answer to `status`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct SystemStatus {
    /// The orchestrator.
    pub orchestrator: ComponentId,
    /// Its software version.
    pub version: String,
    /// Since when it runs.
    pub started: Timestamp,
    /// Where it listens.
    pub listen: String,
    /// The broker at which members are, where that is not its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub external_broker: Option<BrokerLink>,
    /// Its data directory.
    pub data_directory: String,
    /// How many components are in each state.
    pub component_counts: Vec<(ComponentState, u64)>,
    /// How many endpoints are known.
    pub endpoint_count: u64,
    /// How many workflows are open.
    pub open_transaction_count: u64,
    /// Messages refused since the start, by fault code.
    pub refused_counts: Vec<(String, u64)>,
    /// Security statuses since the start, by code.
    #[serde(default)]
    pub security_counts: Vec<(String, u64)>,
    /// What the broker counts.
    #[serde(default)]
    pub broker_counts: Vec<BrokerCount>,
    /// Whether it waits to take over from another one, and does nothing else.
    #[serde(default)]
    pub is_standby: bool,
    /// The orchestrators that share a database, this one among them; none where there is no database.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub orchestrators: Vec<OrchestratorView>,
}

/// An orchestrator's process, of those that share a database.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct OrchestratorView {
    /// The name of its host.
    pub host: String,
    /// Its software version.
    pub version: String,
    /// Since when it runs.
    pub started: Timestamp,
    /// Since when it is the active one, if it is.
    pub active_since: Option<Timestamp>,
    /// When it was last there.
    pub seen: Timestamp,
    /// Whether that is long enough ago to say that it is gone.
    pub is_silent: bool,
    /// Whether it is the one that answers.
    pub is_this: bool,
}

/// How the connection to a broker is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct BrokerLink {
    /// Where the broker is.
    pub address: String,
    /// Whether the connection is there.
    pub is_connected: bool,
    /// Since when it is so.
    pub since: Timestamp,
    /// Why it is not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// Something that the broker counts, over all connections.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct BrokerCount {
    /// Its name; `_total` at the end says that it only grows, from zero at the start.
    pub name: String,
    /// What it is, in a sentence.
    pub help: String,
    /// How much it is now.
    pub value: u64,
}

impl BrokerCount {
    /// Whether it only grows.
    pub fn is_total(&self) -> bool {
        self.name.ends_with("_total")
    }
}

/// Where a component is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ComponentState {
    /// Waits for an operator's approval.
    Pending,
    /// Seems to be the machine of another component that is in: an operator has to decide.
    Quarantined,
    /// Has its id, has not shaken hands.
    Registered,
    /// Has shaken hands and is heard from.
    Active,
    /// Missed its heartbeats; a health check is out.
    Suspect,
    /// Did not answer the health check either.
    Unavailable,
    /// Put out by an operator; it may join again with a new token.
    #[serde(alias = "retired")]
    Evicted,
    /// Put out by an operator for good.
    Banned,
}

impl ComponentState {
    /// The state as the wire spells it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Quarantined => "quarantined",
            Self::Registered => "registered",
            Self::Active => "active",
            Self::Suspect => "suspect",
            Self::Unavailable => "unavailable",
            Self::Evicted => "evicted",
            Self::Banned => "banned",
        }
    }

    /// The state that this text spells.
    pub fn parse(text: &str) -> Option<Self> {
        use ComponentState::{Active, Banned, Evicted, Pending, Quarantined, Registered, Suspect, Unavailable};
        [Pending, Quarantined, Registered, Active, Suspect, Unavailable, Evicted, Banned]
            .into_iter()
            .find(|state| state.as_str() == text)
    }
}

/// A component on the roster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct RosterEntry {
    /// Its id.
    pub component: ComponentId,
    /// What it is.
    pub component_type: ComponentType,
    /// What its operator calls it.
    pub name: String,
    /// Where it is in its life.
    pub state: ComponentState,
    /// When it was last heard.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub heard: Option<Timestamp>,
    /// Its software version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub software_version: Option<String>,
    /// How many of its capabilities are registered.
    pub capability_count: u64,
    /// How many requests are with it.
    #[serde(default)]
    pub open_request_count: u64,
    /// What its token said of it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub labels: Vec<String>,
    /// When its certificate ends, unless it is renewed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate_ends: Option<Timestamp>,
    /// Why it was evicted or banned.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dismissal: Option<String>,
    /// Until when an operator has it look at nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub paused_until: Option<Timestamp>,
    /// Why it is in quarantine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub collision: Option<String>,
    /// The endpoints that it speaks for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub endpoints: Vec<EndpointEntry>,
}

/// A join token as operators see it; its secret was shown once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct TokenView {
    /// Its id.
    pub id: String,
    /// For this type of component.
    pub component_type: ComponentType,
    /// How many more components may join with it.
    pub uses_left: u32,
    /// When it was made.
    #[serde(default)]
    pub created: Timestamp,
    /// Until when it holds.
    pub expires: Timestamp,
    /// What those who come with it are called.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub labels: Vec<String>,
    /// Whether an operator has to approve each of them.
    #[serde(default)]
    pub needs_approval: bool,
    /// Whether an operator has revoked it.
    #[serde(default)]
    pub is_revoked: bool,
}

impl TokenView {
    /// `open`, or why nobody joins with it any more.
    pub fn state(&self, now: Timestamp) -> &'static str {
        match self {
            Self { is_revoked: true, .. } => "revoked",
            Self { expires, .. } if *expires <= now => "expired",
            Self { uses_left: 0, .. } => "used up",
            _ => "open",
        }
    }
}

/// An endpoint that a collector speaks for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct EndpointEntry {
    /// Its label.
    pub endpoint: EndpointId,
    /// What describes it.
    pub facts: EndpointFacts,
    /// What tells it from others.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub evidence: Vec<IdentityEvidence>,
    /// An endpoint that it is likely to be: an operator has not said yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub likely: Option<EndpointId>,
    /// Kinds of items that its collector can collect there; empty: it does not say.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub kinds: Vec<String>,
    /// Kinds that its collector cannot collect there.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub lacks: Vec<LackedKind>,
}
