//! The one place that spells a topic, and the one table of who may use it.
//!
//! Names are those of draft-ietf-sacm-arch-06/-07 where the drafts have one. An MQTT subscriber
//! cannot see who published, so every topic that carries a claim has a level for the sender (or the
//! receiver), and the broker pins that level to the certificate of the connection.
//!
//! The broker's rules, the handshake's answers, ACL files for other brokers and `docs/wire.md` are
//! all derived from [`GRANTS`].

use std::fmt;
use std::str::FromStr;

use crate::capability::{Capability, ComponentType};
use crate::id::ComponentId;

/// A topic that messages are published to.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Topic {
    /// `/orchestrator/registration`: a component asks to be registered.
    Registration,
    /// `/orchestrator/registration/[client-id]`: the answer, for that connection alone.
    RegistrationAnswer(ComponentId),
    /// `/orchestrator/[component-unique-identifier]`: the administrative interface, downward.
    Admin(ComponentId),
    /// `/orchestrator/[component-unique-identifier]/up/[kind]`: the same interface, upward.
    AdminUp(ComponentId, String),
    /// `/collection/[collection-type]`: broadcast collection requests.
    Collection(String),
    /// `/evaluation/[evaluation-type]`: broadcast evaluation requests.
    Evaluation(String),
    /// `/collection/results/[sender]`.
    CollectionResults(ComponentId),
    /// `/evaluation/results/[sender]`.
    EvaluationResults(ComponentId),
    /// `/status/[sender]`: status notifications.
    Status(ComponentId),
    /// `/policy/[sender]`: policy publications.
    Policy(ComponentId),
    /// `/change/[sender]`: what changed in a repository.
    Change(ComponentId),
    /// `/[component-unique-identifier]/[operation]/[sender]`: between services.
    Directed {
        /// Who is asked or answered.
        to: ComponentId,
        /// The message's kind.
        operation: String,
        /// Who sends; pinned by the broker.
        from: ComponentId,
    },
}

impl Topic {
    /// The sender that this topic names, where it names one.
    pub fn sender(&self) -> Option<ComponentId> {
        match self {
            Self::AdminUp(id, _)
            | Self::CollectionResults(id)
            | Self::EvaluationResults(id)
            | Self::Status(id)
            | Self::Policy(id)
            | Self::Change(id)
            | Self::Directed { from: id, .. } => Some(*id),
            Self::Registration
            | Self::RegistrationAnswer(_)
            | Self::Admin(_)
            | Self::Collection(_)
            | Self::Evaluation(_) => None,
        }
    }

    /// The one component that may receive this, where the topic names it. Brokers may hand such a message over without
    /// looking for subscriptions.
    pub fn receiver(&self) -> Option<ComponentId> {
        match self {
            Self::RegistrationAnswer(id) | Self::Admin(id) | Self::Directed { to: id, .. } => Some(*id),
            Self::Registration
            | Self::AdminUp(..)
            | Self::Collection(_)
            | Self::Evaluation(_)
            | Self::CollectionResults(_)
            | Self::EvaluationResults(_)
            | Self::Status(_)
            | Self::Policy(_)
            | Self::Change(_) => None,
        }
    }

    /// Whether only an orchestrator may publish here, so that a receiver can demand its signature.
    pub fn is_from_orchestrator(&self) -> bool {
        matches!(self, Self::RegistrationAnswer(_) | Self::Admin(_) | Self::Collection(_) | Self::Evaluation(_))
    }
}

impl fmt::Display for Topic {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Registration => formatter.write_str("/orchestrator/registration"),
            Self::RegistrationAnswer(client) => write!(formatter, "/orchestrator/registration/{client}"),
            Self::Admin(id) => write!(formatter, "/orchestrator/{id}"),
            Self::AdminUp(id, kind) => write!(formatter, "/orchestrator/{id}/up/{kind}"),
            Self::Collection(kind) => write!(formatter, "/collection/{kind}"),
            Self::Evaluation(kind) => write!(formatter, "/evaluation/{kind}"),
            Self::CollectionResults(id) => write!(formatter, "/collection/results/{id}"),
            Self::EvaluationResults(id) => write!(formatter, "/evaluation/results/{id}"),
            Self::Status(id) => write!(formatter, "/status/{id}"),
            Self::Policy(id) => write!(formatter, "/policy/{id}"),
            Self::Change(id) => write!(formatter, "/change/{id}"),
            Self::Directed { to, operation, from } => write!(formatter, "/{to}/{operation}/{from}"),
        }
    }
}

/// A topic that is none of ours.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a topic of the contract; docs/wire.md lists them")]
pub struct TopicError(String);

/// Whether a level is a plain word of the contract: what a kind or an operation may be.
fn is_word(level: &str) -> bool {
    !level.is_empty()
        && level.len() <= 64
        && level.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
}

impl FromStr for Topic {
    type Err = TopicError;

    fn from_str(text: &str) -> Result<Self, TopicError> {
        let unknown = || TopicError(crate::limits::shown(text));
        let levels: Vec<&str> = text.strip_prefix('/').ok_or_else(unknown)?.split('/').collect();
        let id = |level: &str| level.parse::<ComponentId>().map_err(|_| unknown());
        let word = |level: &str| if is_word(level) { Ok(level.to_owned()) } else { Err(unknown()) };
        match levels.as_slice() {
            ["orchestrator", "registration"] => Ok(Self::Registration),
            ["orchestrator", "registration", client] => Ok(Self::RegistrationAnswer(id(client)?)),
            ["orchestrator", component] => Ok(Self::Admin(id(component)?)),
            ["orchestrator", component, "up", kind] => Ok(Self::AdminUp(id(component)?, word(kind)?)),
            ["collection", "results", sender] => Ok(Self::CollectionResults(id(sender)?)),
            ["evaluation", "results", sender] => Ok(Self::EvaluationResults(id(sender)?)),
            ["collection" | "evaluation", "results"] => Err(unknown()),
            ["collection", kind] => Ok(Self::Collection(word(kind)?)),
            ["evaluation", kind] => Ok(Self::Evaluation(word(kind)?)),
            ["status", sender] => Ok(Self::Status(id(sender)?)),
            ["policy", sender] => Ok(Self::Policy(id(sender)?)),
            ["change", sender] => Ok(Self::Change(id(sender)?)),
            [to, operation, from] => Ok(Self::Directed { to: id(to)?, operation: word(operation)?, from: id(from)? }),
            _ => Err(unknown()),
        }
    }
}

/// The collection type of broadcast requests for OVAL-like collection plans.
pub const COLLECTION_OVAL: &str = "oval";

impl Topic {
    /// Whether messages on this topic may travel packed: those that are long, and are for repositories.
    pub fn may_be_packed(&self) -> bool {
        matches!(self, Self::CollectionResults(_) | Self::EvaluationResults(_))
    }

    /// Whether messages of this kind travel on this topic. The broker knows topics, receivers know
    /// kinds: this ties them together, so that what a sender may publish says what it may say.
    pub fn carries(&self, kind: &str) -> bool {
        match self {
            Self::Registration => kind == "component-registration-request",
            Self::RegistrationAnswer(_) => matches!(kind, "component-registration-response" | "error"),
            // Downward an orchestrator says whatever it has to; nobody else speaks there.
            Self::Admin(_) => true,
            Self::AdminUp(_, word) => kind == word,
            Self::Collection(_) => kind == "collection-request",
            Self::Evaluation(_) => kind == "evaluation-request",
            Self::CollectionResults(_) => kind == "collection-results",
            Self::EvaluationResults(_) => matches!(kind, "evaluation-results" | "fleet-results"),
            Self::Status(_) => kind == "status-notification",
            Self::Policy(_) => kind == "policy-publication",
            Self::Change(_) => matches!(kind, "attribute-change" | "attribute-changes"),
            Self::Directed { operation, .. } => match operation.as_str() {
                "ack" => matches!(kind, "ack" | "error"),
                "query-request" => {
                    matches!(
                        kind,
                        "query-request"
                            | "results-request"
                            | "policies-request"
                            | "changes-request"
                            | "chain-request"
                            | "reference-request"
                            | "search-request"
                            | "staleness-request"
                            | "summary-request"
                    )
                }
                "query-response" => {
                    matches!(
                        kind,
                        "query-response"
                            | "results-response"
                            | "policies-response"
                            | "changes-response"
                            | "audit-witness"
                            | "chain-response"
                            | "reference-response"
                            | "search-response"
                            | "staleness-response"
                            | "summary-response"
                            | "error"
                    )
                }
                "endpoint-assignment" => kind == "endpoint-assignment",
                "audit-checkpoint" => kind == "audit-checkpoint",
                "content-request" => kind == "content-request",
                "content-response" => matches!(kind, "content-response" | "error"),
                _ => false,
            },
        }
    }
}

/// Who holds a grant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Holder {
    /// A connection without a certificate: it can join and nothing else.
    Joining,
    /// A registered component of this type.
    Component(ComponentType),
}

/// What a grant allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Act {
    /// Publish to topics under the pattern.
    Publish,
    /// Subscribe to filters that the pattern covers.
    Subscribe,
}

/// One row of the access table. In a pattern `{self}` is the connection's own id and `+` is any one
/// level; there is no `#` anywhere in the contract.
#[derive(Debug, Clone, Copy)]
pub struct Grant {
    /// Who.
    pub holder: Holder,
    /// What.
    pub act: Act,
    /// Where.
    pub pattern: &'static str,
    /// The capability that it comes with: the handshake hands it out, and the broker asks for it; `None`: it comes with
    /// registration.
    pub with: Option<Capability>,
}

impl Grant {
    /// Whether it is for what names the receiver itself, and so for messages that nobody else receives.
    pub fn is_for_receiver(&self) -> bool {
        self.act == Act::Subscribe && self.pattern.contains("{self}")
    }
}

const fn publish(holder: Holder, pattern: &'static str) -> Grant {
    Grant { holder, act: Act::Publish, pattern, with: None }
}

const fn publish_with(holder: Holder, pattern: &'static str, capability: Capability) -> Grant {
    Grant { holder, act: Act::Publish, pattern, with: Some(capability) }
}

const fn subscribe(holder: Holder, pattern: &'static str, with: Option<Capability>) -> Grant {
    Grant { holder, act: Act::Subscribe, pattern, with }
}

const JOINING: Holder = Holder::Joining;
const ORCHESTRATOR: Holder = Holder::Component(ComponentType::Orchestrator);
const PCS: Holder = Holder::Component(ComponentType::PostureCollectionService);
const PES: Holder = Holder::Component(ComponentType::PostureEvaluationService);
const REPOSITORY: Holder = Holder::Component(ComponentType::RepositoryInterface);

/// Who may do what. Everything that is not here is denied.
pub const GRANTS: &[Grant] = &[
    publish(JOINING, "/orchestrator/registration"),
    // A stranger's answer is delivered by the broker front itself; the grant is what it checks.
    subscribe(JOINING, "/orchestrator/registration/{self}", None),
    publish(ORCHESTRATOR, "/orchestrator/+"),
    publish(ORCHESTRATOR, "/orchestrator/registration/+"),
    publish(ORCHESTRATOR, "/collection/+"),
    publish(ORCHESTRATOR, "/evaluation/+"),
    publish(ORCHESTRATOR, "/policy/{self}"),
    publish(ORCHESTRATOR, "/status/{self}"),
    publish(ORCHESTRATOR, "/+/query-request/{self}"),
    publish(ORCHESTRATOR, "/+/endpoint-assignment/{self}"),
    publish(ORCHESTRATOR, "/+/audit-checkpoint/{self}"),
    publish(ORCHESTRATOR, "/+/content-request/{self}"),
    publish(ORCHESTRATOR, "/+/content-response/{self}"),
    publish(ORCHESTRATOR, "/+/ack/{self}"),
    subscribe(ORCHESTRATOR, "/orchestrator/registration", None),
    subscribe(ORCHESTRATOR, "/orchestrator/+/up/+", None),
    subscribe(ORCHESTRATOR, "/status/+", Some(Capability::SubscribeStatus)),
    subscribe(ORCHESTRATOR, "/evaluation/results/+", None),
    subscribe(ORCHESTRATOR, "/change/+", None),
    subscribe(ORCHESTRATOR, "/{self}/+/+", None),
    publish(PCS, "/orchestrator/registration"),
    publish(PCS, "/orchestrator/{self}/up/+"),
    publish_with(PCS, "/collection/results/{self}", Capability::PublishCollectionResults),
    publish(PCS, "/status/{self}"),
    subscribe(PCS, "/orchestrator/{self}", None),
    subscribe(PCS, "/{self}/+/+", None),
    subscribe(PCS, "/collection/oval", Some(Capability::CollectOvalBroadcast)),
    publish(PES, "/orchestrator/registration"),
    publish(PES, "/orchestrator/{self}/up/+"),
    publish_with(PES, "/evaluation/results/{self}", Capability::PublishEvaluationResults),
    publish(PES, "/status/{self}"),
    publish(PES, "/+/query-request/{self}"),
    publish(PES, "/+/content-request/{self}"),
    subscribe(PES, "/orchestrator/{self}", None),
    subscribe(PES, "/{self}/+/+", None),
    subscribe(PES, "/evaluation/xccdf", Some(Capability::EvaluateXccdf)),
    publish(REPOSITORY, "/orchestrator/registration"),
    publish(REPOSITORY, "/orchestrator/{self}/up/+"),
    publish(REPOSITORY, "/status/{self}"),
    publish_with(REPOSITORY, "/change/{self}", Capability::PublishChange),
    publish(REPOSITORY, "/+/query-response/{self}"),
    publish(REPOSITORY, "/+/content-request/{self}"),
    publish(REPOSITORY, "/+/content-response/{self}"),
    publish(REPOSITORY, "/+/ack/{self}"),
    subscribe(REPOSITORY, "/orchestrator/{self}", None),
    subscribe(REPOSITORY, "/{self}/+/+", None),
    subscribe(REPOSITORY, "/collection/results/+", Some(Capability::StoreCollectionResults)),
    subscribe(REPOSITORY, "/evaluation/results/+", Some(Capability::StoreEvaluationResults)),
    subscribe(REPOSITORY, "/policy/+", Some(Capability::StorePolicy)),
];

/// A connection as the broker knows it after the TLS handshake.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Principal {
    /// The certificate's CN, or the client id of a joining connection.
    pub id: ComponentId,
    /// What it may do.
    pub holder: Holder,
}

impl Principal {
    fn grants(self, act: Act) -> impl Iterator<Item = &'static Grant> {
        GRANTS.iter().filter(move |grant| grant.holder == self.holder && grant.act == act)
    }

    /// The grant by which this connection may publish to the topic. Only topics of the contract pass: a topic that does
    /// not parse is refused whatever the table says. Whether the grant's capability is held, the roster knows.
    pub fn publish_grant(self, topic: &str) -> Option<&'static Grant> {
        let is_of_contract = match topic.parse::<Topic>() {
            // A kind or operation is one of the registry: brokers remember every topic for ever.
            Ok(Topic::AdminUp(_, word) | Topic::Directed { operation: word, .. }) => {
                crate::message::KINDS.iter().any(|(kind, _)| *kind == word)
            }
            Ok(_) => true,
            Err(_) => false,
        };
        self.grants(Act::Publish).find(|grant| is_of_contract && covers(grant.pattern, topic, self.id))
    }

    /// Whether a component of this type may publish to the topic, given the capability that may go with it.
    pub fn may_publish(self, topic: &str) -> bool {
        self.publish_grant(topic).is_some()
    }

    /// The grant by which this connection may subscribe to the filter: the filter must be one of its grants, not merely
    /// inside one, because brokers remember every filter for ever.
    pub fn subscribe_grant(self, filter: &str) -> Option<&'static Grant> {
        let own = self.id.to_string();
        self.grants(Act::Subscribe).find(|grant| grant.pattern.replace("{self}", &own) == filter)
    }

    /// Whether a component of this type may subscribe to the filter, given the capability that may go with it.
    pub fn may_subscribe(self, filter: &str) -> bool {
        self.subscribe_grant(filter).is_some()
    }
}

/// Whether every topic that `filter` (or topic) matches is matched by `pattern`, after `{self}` is
/// filled in. Set inclusion, not matching: `+` in the filter needs `+` in the pattern, and `#`
/// is covered by nothing.
pub fn covers(pattern: &str, filter: &str, own: ComponentId) -> bool {
    let own = own.to_string();
    let mut wanted = filter.split('/');
    for level in pattern.split('/') {
        let is_inside = match (level, wanted.next()) {
            (_, None | Some("#")) => false,
            ("+", Some(other)) => other == "+" || !other.contains(['+', '#', '$']),
            ("{self}", Some(other)) => other == own,
            (literal, Some(other)) => literal == other,
        };
        if !is_inside {
            return false;
        }
    }
    wanted.next().is_none()
}

/// The filters that a component of this type subscribes to with registration alone.
pub fn filters_of(component_type: ComponentType, id: ComponentId) -> Vec<String> {
    assigned(component_type, id, None)
}

/// The filters that the capability handshake hands out for a capability.
pub fn filters_with(component_type: ComponentType, id: ComponentId, capability: Capability) -> Vec<String> {
    assigned(component_type, id, Some(capability))
}

/// The filters that every component of this type may have, whoever it is: those of broadcasts.
pub fn shared_filters(component_type: ComponentType) -> impl Iterator<Item = &'static str> {
    let is_shared = move |grant: &&Grant| {
        grant.holder == Holder::Component(component_type) && grant.act == Act::Subscribe && !grant.is_for_receiver()
    };
    GRANTS.iter().filter(is_shared).map(|grant| grant.pattern)
}

/// Whether a filter matches a topic, by the rules of MQTT; `#` is in no filter of ours.
pub fn matches(filter: &str, topic: &str) -> bool {
    let (mut levels, mut others) = (filter.split('/'), topic.split('/'));
    loop {
        match (levels.next(), others.next()) {
            (None, None) => return true,
            (Some(level), Some(other)) if level == "+" || level == other => {}
            _ => return false,
        }
    }
}

fn assigned(component_type: ComponentType, id: ComponentId, with: Option<Capability>) -> Vec<String> {
    Principal { id, holder: Holder::Component(component_type) }
        .grants(Act::Subscribe)
        .filter(|grant| grant.with == with)
        .map(|grant| grant.pattern.replace("{self}", &id.to_string()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const A: &str = "0190b6a0-7c1e-7000-8000-00000000000a";
    const B: &str = "0190b6a0-7c1e-7000-8000-00000000000b";

    fn collector_a() -> Principal {
        Principal { id: A.parse().unwrap(), holder: PCS }
    }

    #[test]
    fn every_topic_prints_and_parses_to_itself() {
        let (a, b): (ComponentId, ComponentId) = (A.parse().unwrap(), B.parse().unwrap());
        let topics = [
            Topic::Registration,
            Topic::RegistrationAnswer(a),
            Topic::Admin(a),
            Topic::AdminUp(a, "heartbeat-request".into()),
            Topic::Collection("oval".into()),
            Topic::Evaluation("xccdf".into()),
            Topic::CollectionResults(a),
            Topic::EvaluationResults(a),
            Topic::Status(a),
            Topic::Policy(a),
            Topic::Change(a),
            Topic::Directed { to: a, operation: "ack".into(), from: b },
        ];
        for topic in topics {
            assert_eq!(topic.to_string().parse::<Topic>().unwrap(), topic);
        }
    }

    #[test]
    fn a_collector_uses_its_own_topics_and_no_others() {
        let collector = collector_a();
        for allowed in [
            format!("/collection/results/{A}"),
            format!("/orchestrator/{A}/up/heartbeat-request"),
            format!("/status/{A}"),
        ] {
            assert!(collector.may_publish(&allowed), "{allowed}");
        }
        for refused in [
            format!("/collection/results/{B}"),
            format!("/orchestrator/{B}/up/heartbeat-request"),
            format!("/orchestrator/{A}"),
            format!("/orchestrator/{B}"),
            format!("/orchestrator/registration/{A}"),
            "/collection/oval".to_owned(),
            "/collection/results".to_owned(),
            format!("/{B}/ack/{A}"),
            format!("/evaluation/results/{A}"),
            format!("/orchestrator/{A}/up/a/b"),
            format!("orchestrator/{A}/up/x"),
            "é/x".to_owned(),
            String::new(),
        ] {
            assert!(!collector.may_publish(&refused), "{refused}");
        }
    }

    #[test]
    fn a_collector_cannot_subscribe_wider_than_its_grants() {
        let collector = collector_a();
        for allowed in [format!("/orchestrator/{A}"), format!("/{A}/+/+"), "/collection/oval".to_owned()] {
            assert!(collector.may_subscribe(&allowed), "{allowed}");
        }
        for refused in [
            "#".to_owned(),
            "/#".to_owned(),
            "+/#".to_owned(),
            "/+/+/+".to_owned(),
            format!("/+/{A}"),
            format!("/orchestrator/{B}"),
            "/orchestrator/+".to_owned(),
            format!("/orchestrator/{A}/#"),
            format!("/{A}/#"),
            "$share/g/#".to_owned(),
            format!("$share/g//orchestrator/{A}"),
            "/collection/+".to_owned(),
            "/collection/results/+".to_owned(),
            "/orchestrator/registration".to_owned(),
            "$SYS/#".to_owned(),
            String::new(),
        ] {
            assert!(!collector.may_subscribe(&refused), "{refused}");
        }
    }

    #[test]
    fn a_topic_carries_its_own_kinds_only() {
        let (a, b): (ComponentId, ComponentId) = (A.parse().unwrap(), B.parse().unwrap());
        let results = Topic::CollectionResults(a);
        assert!(results.carries("collection-results"));
        for forged in ["evaluation-results", "policy-publication", "ack", "status-notification"] {
            assert!(!results.carries(forged), "{forged}");
        }
        let query = Topic::Directed { to: b, operation: "query-request".into(), from: a };
        for forged in ["collection-request", "cancel-request", "periodic-collection", "collection-results"] {
            assert!(!query.carries(forged), "{forged}");
        }
        assert!(!Topic::AdminUp(a, "heartbeat-request".into()).carries("content-request"));
    }

    #[test]
    fn a_joining_connection_reaches_the_two_registration_topics_and_nothing_else() {
        let joining = Principal { id: A.parse().unwrap(), holder: Holder::Joining };
        assert!(joining.may_publish("/orchestrator/registration"));
        assert!(joining.may_subscribe(&format!("/orchestrator/registration/{A}")));
        assert!(!joining.may_subscribe(&format!("/orchestrator/registration/{B}")));
        assert!(!joining.may_subscribe("/orchestrator/registration/+"));
        assert!(!joining.may_publish(&format!("/status/{A}")));
    }

    /// All of MQTT's matching, the reference that `covers` is checked against.
    fn matches_with_hash(filter: &str, topic: &str) -> bool {
        let (mut filter, mut topic) = (filter.split('/'), topic.split('/'));
        loop {
            match (filter.next(), topic.next()) {
                (Some("#"), _) => return true,
                (Some("+"), Some(_)) => {}
                (Some(level), Some(other)) if level == other => {}
                (None, None) => return true,
                _ => return false,
            }
        }
    }

    proptest! {
        #[test]
        fn what_a_pattern_covers_it_matches(
            pattern in prop::collection::vec(prop::sample::select(vec!["a", "b", "+"]), 1..4),
            filter in prop::collection::vec(prop::sample::select(vec!["a", "b", "+", "#"]), 1..4),
            topic in prop::collection::vec(prop::sample::select(vec!["a", "b", "c"]), 1..4),
        ) {
            let (pattern, filter, topic) = (pattern.join("/"), filter.join("/"), topic.join("/"));
            if covers(&pattern, &filter, A.parse().unwrap()) && matches_with_hash(&filter, &topic) {
                prop_assert!(matches_with_hash(&pattern, &topic));
            }
            if !filter.contains('#') {
                prop_assert_eq!(matches(&filter, &topic), matches_with_hash(&filter, &topic));
            }
        }

        #[test]
        fn parsing_any_text_does_not_panic(text in "\\PC{0,80}") {
            let _ = text.parse::<Topic>();
        }
    }
}
