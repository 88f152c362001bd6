//! The topics of the contract by their shape: what travels on each, and who says and hears it. `docs/asyncapi.json` and
//! `docs/wire.md` print it; nothing is decided by it.
//!
//! The access table and [`Topic::carries`] allow more than is ever said: an orchestrator may say anything on a
//! component's administrative interface. Here is what somebody takes, and the answers to it.

use crate::capability::ComponentType;
use crate::id::ComponentId;
use crate::message::{
    Ack, AuditCheckpoint, AuditWitness, KINDS, Message as _, TaskRequest, TasksRequest, ToCollector, ToEvaluator,
    ToMember, ToOrchestrator, ToRepository,
};
use crate::topic::{Act, GRANTS, Grant, Holder, Topic};

/// Ids that stand for any, in topics that are printed with parameters.
const SENDER: ComponentId = ComponentId(uuid::Uuid::from_u128(1));
const RECEIVER: ComponentId = ComponentId(uuid::Uuid::from_u128(2));

/// Topics of one shape.
#[derive(Debug, Clone)]
pub struct Channel {
    /// What it is called in documents.
    pub name: String,
    /// The topic, with parameters in braces.
    pub address: String,
    /// The kinds that travel on it.
    pub kinds: Vec<&'static str>,
    topic: Topic,
}

/// Everything that somebody may say or hear on a channel by one grant.
#[derive(Debug, Clone)]
pub struct Operation {
    /// By which grant.
    pub grant: &'static Grant,
    /// Where.
    pub channel: Channel,
    /// What.
    pub kinds: Vec<&'static str>,
}

fn kinds() -> impl Iterator<Item = &'static str> {
    KINDS.iter().map(|(kind, _)| *kind)
}

/// Every channel of the contract.
pub fn channels() -> Vec<Channel> {
    let named = [
        Topic::Registration,
        Topic::RegistrationAnswer(SENDER),
        Topic::Admin(SENDER),
        Topic::AdminUp(SENDER, "{kind}".to_owned()),
        Topic::Collection("{collection-type}".to_owned()),
        Topic::Evaluation("{evaluation-type}".to_owned()),
        Topic::CollectionResults(SENDER),
        Topic::EvaluationResults(SENDER),
        Topic::Status(SENDER),
        Topic::Policy(SENDER),
        Topic::Change(SENDER),
    ];
    let directed = kinds().map(|kind| Topic::Directed { to: RECEIVER, operation: kind.to_owned(), from: SENDER });
    let channels = named.into_iter().chain(directed).map(|topic| Channel {
        name: name_of(&topic),
        address: address_of(&topic),
        kinds: kinds().filter(|kind| travels(&topic, kind)).collect(),
        topic,
    });
    channels.filter(|channel| !channel.kinds.is_empty()).collect()
}

/// Everything that anybody may say or hear, in the order of the access table.
pub fn operations() -> Vec<Operation> {
    let channels = channels();
    let of_grant = |grant: &'static Grant| {
        let reached = channels.iter().filter(move |channel| is_of(grant.pattern, &channel.address));
        reached.map(move |channel| Operation { grant, channel: channel.clone(), kinds: Vec::new() })
    };
    let mut operations: Vec<Operation> = GRANTS.iter().flat_map(of_grant).collect();
    for operation in operations.iter_mut().filter(|operation| operation.grant.act == Act::Publish) {
        let says = |kind: &&&str| says(operation.grant.holder, kind);
        operation.kinds = operation.channel.kinds.iter().filter(says).copied().collect();
    }
    let said = operations.clone();
    for operation in operations.iter_mut().filter(|operation| operation.grant.act == Act::Subscribe) {
        let hears = |kind: &&&str| hears(operation.grant.holder, &operation.channel, kind, &said);
        operation.kinds = operation.channel.kinds.iter().filter(hears).copied().collect();
        // A fault answers something else that is answered here.
        if operation.kinds == ["error"] {
            operation.kinds.clear();
        }
    }
    operations.retain(|operation| !operation.kinds.is_empty());
    operations
}

fn name_of(topic: &Topic) -> String {
    match topic {
        Topic::Registration => "registration",
        Topic::RegistrationAnswer(_) => "registration-answer",
        Topic::Admin(_) => "administration",
        Topic::AdminUp(..) => "administration-up",
        Topic::Collection(_) => "collection",
        Topic::Evaluation(_) => "evaluation",
        Topic::CollectionResults(_) => "collection-results",
        Topic::EvaluationResults(_) => "evaluation-results",
        Topic::Status(_) => "status",
        Topic::Policy(_) => "policy",
        Topic::Change(_) => "change",
        Topic::Directed { operation, .. } => return format!("directed-{operation}"),
    }
    .to_owned()
}

fn address_of(topic: &Topic) -> String {
    let parameter = match topic {
        Topic::RegistrationAnswer(_) => "{client}",
        Topic::Admin(_) | Topic::AdminUp(..) => "{component}",
        _ => "{sender}",
    };
    topic.to_string().replace(&SENDER.to_string(), parameter).replace(&RECEIVER.to_string(), "{receiver}")
}

/// Whether somebody says this on topics of this shape.
fn travels(topic: &Topic, kind: &str) -> bool {
    match topic {
        Topic::Admin(_) => goes_down(kind),
        Topic::AdminUp(..) => goes_up(kind),
        topic => topic.carries(kind),
    }
}

/// What an orchestrator takes, and what is said nowhere else for all to hear.
fn goes_up(kind: &str) -> bool {
    let others = [Topic::Registration, Topic::EvaluationResults(SENDER), Topic::Status(SENDER), Topic::Change(SENDER)];
    ToOrchestrator::KINDS.contains(&kind) && !others.iter().any(|topic| topic.carries(kind))
}

/// What components take from an orchestrator, and its answers to what they say to it.
fn goes_down(kind: &str) -> bool {
    let asked = [ToMember::KINDS, ToCollector::KINDS, ToEvaluator::KINDS];
    let is_answer = kinds().any(|question| {
        (goes_up(question) || Topic::Registration.carries(question)) && answer_to(question) == Some(kind)
    });
    asked.iter().any(|kinds| kinds.contains(&kind)) || is_answer || kind == Ack::KIND || kind == "error"
}

/// The kind that answers this one.
pub fn answer_to(kind: &str) -> Option<&'static str> {
    if kind == AuditCheckpoint::KIND {
        return Some(AuditWitness::KIND);
    }
    let answer = format!("{}-response", kind.strip_suffix("-request").unwrap_or(kind));
    kinds().find(|known| *known == answer)
}

/// Whether topics under a pattern of the access table may have this shape.
fn is_of(pattern: &str, address: &str) -> bool {
    if !address.contains('{') {
        return pattern == address;
    }
    let fits = |(level, shape): (&str, &str)| match level {
        "+" => true,
        "{self}" => shape.starts_with('{'),
        word => word == shape || shape.ends_with("-type}"),
    };
    pattern.split('/').count() == address.split('/').count() && pattern.split('/').zip(address.split('/')).all(fits)
}

/// What a holder takes, whoever says it.
fn takes(holder: Holder, kind: &str) -> bool {
    let Holder::Component(component_type) = holder else { return false };
    let own = match component_type {
        ComponentType::Orchestrator => return ToOrchestrator::KINDS.contains(&kind),
        ComponentType::PostureCollectionService => ToCollector::KINDS,
        ComponentType::PostureEvaluationService => ToEvaluator::KINDS,
        ComponentType::RepositoryInterface => ToRepository::KINDS,
    };
    own.contains(&kind) || ToMember::KINDS.contains(&kind)
}

/// Whoever answers takes the question; what others were asked, a repository alone may ask.
fn says(holder: Holder, kind: &str) -> bool {
    if [TaskRequest::KIND, TasksRequest::KIND].contains(&kind) {
        return holder == Holder::Component(ComponentType::RepositoryInterface);
    }
    let mut questions = kinds().filter(|question| answer_to(question) == Some(kind)).peekable();
    questions.peek().is_none() || questions.any(|question| takes(holder, question))
}

/// What it takes; and answers, where it may ask. A question between services is answered there, and one to the
/// orchestrator on the administrative interface.
fn hears(holder: Holder, channel: &Channel, kind: &str, said: &[Operation]) -> bool {
    let is_directed = |channel: &Channel| matches!(channel.topic, Topic::Directed { .. });
    let asks = |operation: &Operation| {
        operation.grant.holder == holder
            && is_directed(&operation.channel) == is_directed(channel)
            && operation.kinds.iter().any(|question| answer_to(question) == Some(kind))
    };
    takes(holder, kind) || kind == Ack::KIND || kind == "error" || said.iter().any(asks)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn heard_by(component_type: ComponentType) -> Vec<String> {
        let holder = Holder::Component(component_type);
        let is_heard =
            |operation: &&Operation| operation.grant.holder == holder && operation.grant.act == Act::Subscribe;
        let operations = operations();
        let heard = operations.iter().filter(is_heard);
        heard.map(|operation| format!("{}: {}", operation.channel.name, operation.kinds.join(" "))).collect()
    }

    #[test]
    fn a_collector_hears_what_it_takes_and_answers_to_what_it_asks() {
        assert_eq!(
            heard_by(ComponentType::PostureCollectionService),
            [
                "administration: component-registration-response capability-advertisement-response \
                 health-check-request heartbeat-response collection-request cancel-request periodic-collection \
                 observation-request content-response ack error",
                "directed-ack: ack error",
                "collection: collection-request",
            ]
        );
    }

    #[test]
    fn every_kind_travels_and_every_grant_is_used() {
        let (channels, operations) = (channels(), operations());
        for kind in kinds() {
            assert!(channels.iter().any(|channel| channel.kinds.contains(&kind)), "{kind} travels nowhere");
        }
        for grant in GRANTS {
            let row = |grant: &Grant| (grant.holder, grant.act, grant.pattern);
            let is_used = operations.iter().any(|operation| row(operation.grant) == row(grant));
            assert!(is_used, "nothing is said by the grant for {}", grant.pattern);
        }
    }

    #[test]
    fn what_is_said_may_be_said() {
        for channel in channels() {
            for kind in &channel.kinds {
                let topic = match &channel.topic {
                    Topic::AdminUp(component, _) => Topic::AdminUp(*component, (*kind).to_owned()),
                    topic => topic.clone(),
                };
                assert!(topic.carries(kind), "{kind} on {}", channel.address);
            }
        }
    }

    #[test]
    fn what_is_said_is_heard_by_somebody() {
        let operations = operations();
        for said in operations.iter().filter(|operation| operation.grant.act == Act::Publish) {
            for kind in &said.kinds {
                let is_heard = operations.iter().any(|heard| {
                    heard.grant.act == Act::Subscribe
                        && heard.channel.name == said.channel.name
                        && heard.kinds.contains(kind)
                });
                assert!(is_heard, "nobody hears {kind} on {}", said.channel.address);
            }
        }
    }
}
