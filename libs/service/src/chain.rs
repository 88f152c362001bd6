//! From a verdict back to what was asked: the sealed messages, and whether they hold together. What is here needs neither
//! network nor database: a chain can be checked wherever it is, with the CA alone.
//!
//! Each message names what it answers by the SHA-256 of that message's envelope: verdicts name the request to evaluate
//! and the reports of the observations that they rest on, reports name the request to collect.

use std::collections::{BTreeMap, BTreeSet};

use bus::certificate::Certificate;
use jiff::Timestamp;
use proto::capability::ComponentType;
use proto::content::ContentHash;
use proto::envelope::{ENVELOPE_VERSION, Envelope};
use proto::fault::Fault;
use proto::id::{ComponentId, EndpointId, TransactionId};
use proto::message::{
    CollectionRequest, CollectionResults, EvaluationRequest, EvaluationResults, FleetResults, Message,
    ObservationRequest, PeriodicCollection,
};
use proto::plan::ObjectKey;
use proto::seal::{Sealed, Signer};
use proto::verdict::{RuleResult, Verdict};
use serde::{Deserialize, Serialize};

use crate::proof::{Broken, broken};

/// A sealed message as it was kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Link {
    /// The message, exactly as it came.
    pub sealed: String,
    /// When the repository received it; absent for what the orchestrator itself has sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub received: Option<Timestamp>,
    /// Of a message with verdicts on many endpoints, the ones that the chain is about; absent: all.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub endpoints: BTreeSet<EndpointId>,
}

impl Link {
    /// A message of a chain about this endpoint, as a repository received it.
    pub fn received(sealed: String, received: Timestamp, endpoint: EndpointId) -> Self {
        let mut link = Self { sealed, received: Some(received), endpoints: BTreeSet::new() };
        if link.envelope().is_some_and(|(_, envelope)| envelope.kind == FleetResults::KIND) {
            link.endpoints.insert(endpoint);
        }
        link
    }

    /// Its envelope with its hash, if it has one; nothing of it is believed for that.
    fn envelope(&self) -> Option<(ContentHash, Envelope)> {
        let envelope = Sealed::split(self.sealed.as_bytes()).ok()?.envelope;
        Some((ContentHash::of(envelope), serde_json::from_slice(envelope).ok()?))
    }

    /// SHA-256 of its envelope, and the task that its body says it answers.
    pub fn references(&self) -> Option<(ContentHash, Option<ContentHash>)> {
        #[derive(Deserialize)]
        struct Body {
            task: Option<ContentHash>,
        }
        let (hash, envelope) = self.envelope()?;
        let task = serde_json::from_str::<Body>(envelope.body.get()).ok().and_then(|body| body.task);
        Some((hash, task))
    }
}

/// Of the messages of an evaluation, those that one rule needs; nothing of them is believed for that.
pub fn needed_for(links: Vec<Link>, rule: &str) -> Vec<Link> {
    let opened: Vec<_> = links.into_iter().filter_map(|link| link.envelope().map(|read| (link, read))).collect();
    let mut needed = BTreeSet::new();
    for (link, (hash, envelope)) in &opened {
        for results in verdicts_in(envelope, &link.endpoints).unwrap_or_default() {
            let of_rule = results.results.iter().filter(|result| result.rule.ends_with(rule));
            let mut objects = BTreeSet::new();
            for result in of_rule {
                needed.insert(hash.clone());
                objects.extend(result.objects.iter());
            }
            for evidence in &results.evidence {
                if evidence.objects.iter().any(|object| objects.contains(object)) {
                    needed.insert(evidence.report.clone());
                }
            }
        }
    }
    opened.into_iter().filter(|(_, (hash, _))| needed.contains(hash)).map(|(link, _)| link).collect()
}

/// Whether a message has verdicts.
fn has_verdicts(envelope: &Envelope) -> bool {
    matches!(envelope.kind.as_str(), EvaluationResults::KIND | FleetResults::KIND)
}

/// The verdicts that a message has, of each endpoint by itself: of these, or of all; none where it has no verdicts.
fn verdicts_in(envelope: &Envelope, endpoints: &BTreeSet<EndpointId>) -> Result<Vec<EvaluationResults>, Fault> {
    Ok(match envelope.kind.as_str() {
        EvaluationResults::KIND => vec![envelope.decode()?],
        FleetResults::KIND => {
            let results: FleetResults = envelope.decode()?;
            results.check()?;
            let is_meant = |endpoint| endpoints.is_empty() || endpoints.contains(endpoint);
            let meant = results.endpoints.iter().filter(|one| is_meant(&one.summary.endpoint));
            meant.map(|one| results.of(one)).collect()
        }
        _ => Vec::new(),
    })
}

/// A message whose seal holds.
#[derive(Debug, Clone)]
struct Opened {
    envelope: Envelope,
    component_type: ComponentType,
    endpoints: BTreeSet<EndpointId>,
}

/// Who was asked what, when, by whom.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Asked {
    /// SHA-256 of the envelope that asked.
    pub hash: ContentHash,
    /// Its kind.
    pub kind: String,
    /// The orchestrator.
    pub orchestrator: ComponentId,
    /// When it was sent.
    pub sent: Timestamp,
    /// What it is about: a policy's content or a plan, by its hash.
    pub content: ContentHash,
}

/// A report of observations.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Reported {
    /// SHA-256 of its envelope.
    pub hash: ContentHash,
    /// On which endpoint: that of the verdict, or one that was merged into it.
    pub endpoint: EndpointId,
    /// Who looked.
    pub collector: ComponentId,
    /// When it was sent.
    pub sent: Timestamp,
    /// The objects of it that the verdict rests on.
    pub objects: Vec<ObjectKey>,
    /// What it answers.
    pub asked: Asked,
}

/// A verdict that can be followed back.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Proven {
    /// Of which workflow.
    pub transaction: TransactionId,
    /// On which endpoint.
    pub endpoint: EndpointId,
    /// What was decided.
    pub result: RuleResult,
    /// Who decided.
    pub evaluator: ComponentId,
    /// When that was sent.
    pub sent: Timestamp,
    /// What it answers.
    pub asked: Asked,
    /// What it rests on.
    pub evidence: Vec<Reported>,
    /// Objects that it would have rested on, had anything been stored of them.
    pub missing: Vec<ObjectKey>,
}

/// Follows verdicts back to what was asked: all of a chain, or those of one rule, by its id or the end of it.
pub fn verify(links: &[Link], cas: &[Vec<u8>], rule: Option<&str>) -> Result<Vec<Proven>, Broken> {
    let mut messages = BTreeMap::new();
    for link in links {
        let (hash, opened) = open(link, cas)?;
        messages.insert(hash, opened);
    }
    let chain = Chain { messages };
    let decided = chain.decided()?;
    let mut proven = Vec::new();
    for decided in &decided {
        proven.extend(chain.verdicts(decided, rule)?);
    }
    if proven.is_empty() {
        return broken("there is no such verdict in the chain");
    }
    if rule.is_none() {
        are_complete(&decided)?;
    }
    proven.sort_by(|one, other| (one.endpoint, &one.result.rule).cmp(&(other.endpoint, &other.result.rule)));
    Ok(proven)
}

/// Checks seal, certificate and sender, at the time at which the message was made or received.
fn open(link: &Link, cas: &[Vec<u8>]) -> Result<(ContentHash, Opened), Broken> {
    let parts = Sealed::split(link.sealed.as_bytes()).map_err(|fault| Broken { what: fault.message })?;
    let hash = ContentHash::of(parts.envelope);
    let fail = |why: &str| Broken { what: format!("the message {} cannot be believed: {why}", hash.short()) };
    let Ok(Signer::Certificate(der, _)) = parts.signer() else {
        return Err(fail("it is sealed without a certificate"));
    };
    let certificate = cas.iter().find_map(|ca| Certificate::issued_by(&der, ca).ok());
    let certificate = certificate.ok_or_else(|| fail("its certificate is not signed by the CA"))?;
    parts.verify(&certificate.public_key).map_err(|fault| fail(&fault.message))?;
    let envelope: Envelope = serde_json::from_slice(parts.envelope).map_err(|error| fail(&error.to_string()))?;
    if envelope.v != ENVELOPE_VERSION {
        return Err(fail("its envelope is of another version"));
    }
    if envelope.from != certificate.component {
        return Err(fail("`from` is not the component that has signed it"));
    }
    // What waited in an outbox is sealed again with a fresh certificate: it may be younger than the message.
    let (made, received) = (envelope.sent.as_second(), link.received.unwrap_or(envelope.sent).as_second());
    if certificate.not_after < made || certificate.not_before > received + proto::time::SKEW_SECONDS_MAX {
        return Err(fail("its certificate did not hold when it was sent"));
    }
    let endpoints = link.endpoints.clone();
    Ok((hash, Opened { envelope, component_type: certificate.component_type, endpoints }))
}

impl Opened {
    /// Broken where a component of another type has sent it.
    fn is_by(&self, hash: &ContentHash, by: ComponentType) -> Result<(), Broken> {
        if self.component_type == by {
            return Ok(());
        }
        broken(format!("the message {} is not of a {by}, but of a {}", hash.short(), self.component_type))
    }
}

struct Chain {
    messages: BTreeMap<ContentHash, Opened>,
}

/// The verdicts on one endpoint that came in a message.
struct DecidedIn<'chain> {
    hash: &'chain ContentHash,
    message: &'chain Opened,
    results: EvaluationResults,
}

/// What a task asks for, whichever kind of message it is.
struct Task {
    request: proto::id::RequestId,
    content: ContentHash,
    targets: Vec<EndpointId>,
    is_standing: bool,
}

impl Chain {
    /// A message of this kind by a component of this type.
    fn message<M: Message>(&self, hash: &ContentHash, by: ComponentType) -> Result<(&Opened, M), Broken> {
        let Some(message) = self.messages.get(hash) else {
            return broken(format!("the {} {} is missing", M::KIND, hash.short()));
        };
        message.is_by(hash, by)?;
        message.envelope.decode::<M>().map(|body| (message, body)).map_err(|fault| unreadable(hash, &fault))
    }

    /// What evaluators have decided, message by message.
    fn decided(&self) -> Result<Vec<DecidedIn<'_>>, Broken> {
        let mut decided = Vec::new();
        for (hash, message) in self.messages.iter().filter(|(_, message)| has_verdicts(&message.envelope)) {
            message.is_by(hash, ComponentType::PostureEvaluationService)?;
            let of_message =
                verdicts_in(&message.envelope, &message.endpoints).map_err(|fault| unreadable(hash, &fault))?;
            decided.extend(of_message.into_iter().map(|results| DecidedIn { hash, message, results }));
        }
        Ok(decided)
    }

    fn verdicts(&self, decided: &DecidedIn<'_>, rule: Option<&str>) -> Result<Vec<Proven>, Broken> {
        let DecidedIn { hash, message, results } = decided;
        let what = format!("the verdicts {}", hash.short());
        let is_wanted = |result: &&RuleResult| rule.is_none_or(|rule| result.rule.ends_with(rule));
        if !results.results.iter().any(|result| is_wanted(&result)) {
            return Ok(Vec::new());
        }
        let Some(task) = &results.task else { return broken(format!("{what} do not say what they answer")) };
        let (asked, request) = self.message::<EvaluationRequest>(task, ComponentType::Orchestrator)?;
        let from = message.envelope.from;
        if asked.envelope.to != Some(from) || asked.envelope.transaction != message.envelope.transaction {
            return broken(format!("{what} answer what another evaluator was asked, or in another workflow"));
        }
        if request.request != results.request || !request.targets.contains(&results.endpoint) {
            return broken(format!("{what} are about another request, or another endpoint"));
        }
        let asked = asked_as(task, asked, request.content.sha256.clone());
        // What was merged into it counts as it, by the word of the orchestrator that asked.
        let merged = request.aliases.iter().filter(|alias| alias.of == results.endpoint).map(|alias| alias.endpoint);
        let endpoints: BTreeSet<EndpointId> = merged.chain([results.endpoint]).collect();
        let reports: BTreeMap<&ObjectKey, &ContentHash> = results
            .evidence
            .iter()
            .flat_map(|evidence| evidence.objects.iter().map(move |object| (object, &evidence.report)))
            .collect();
        let prove = |result: &RuleResult| {
            let (mut evidence, mut missing) = (BTreeMap::<&ContentHash, Vec<ObjectKey>>::new(), Vec::new());
            for object in &result.objects {
                match reports.get(object) {
                    Some(report) => evidence.entry(report).or_default().push(object.clone()),
                    None => missing.push(object.clone()),
                }
            }
            let is_decided = matches!(result.verdict, Verdict::Pass | Verdict::Fail);
            if is_decided && evidence.is_empty() && !missing.is_empty() {
                return broken(format!("{what}: `{}` is {} without any evidence", result.rule, result.verdict));
            }
            let evidence = evidence
                .into_iter()
                .map(|(report, objects)| self.report(report, &endpoints, objects, message.envelope.sent))
                .collect::<Result<_, _>>()?;
            Ok(Proven {
                transaction: message.envelope.transaction,
                endpoint: results.endpoint,
                result: result.clone(),
                evaluator: from,
                sent: message.envelope.sent,
                asked: asked.clone(),
                evidence,
                missing,
            })
        };
        results.results.iter().filter(is_wanted).map(prove).collect()
    }

    fn report(
        &self,
        hash: &ContentHash,
        endpoints: &BTreeSet<EndpointId>,
        objects: Vec<ObjectKey>,
        evaluated: Timestamp,
    ) -> Result<Reported, Broken> {
        let what = format!("the report {}", hash.short());
        let (message, results) = self.message::<CollectionResults>(hash, ComponentType::PostureCollectionService)?;
        if !endpoints.contains(&results.endpoint) {
            return broken(format!("{what} is about another endpoint"));
        }
        let collected: BTreeMap<&ObjectKey, Timestamp> =
            results.objects.iter().map(|part| (&part.object, part.collected)).collect();
        for object in &objects {
            match collected.get(object) {
                None => return broken(format!("{what} has nothing on the object {object}")),
                Some(at) if *at > evaluated && proto::time::is_skewed(*at, evaluated) => {
                    return broken(format!("{what}: {object} was collected after the verdict"));
                }
                Some(_) => {}
            }
        }
        let Some(hash_of_task) = &results.task else { return broken(format!("{what} does not say what it answers")) };
        let (asked, task) = self.task(hash_of_task)?;
        let from = message.envelope.from;
        if asked.envelope.to.is_some_and(|to| to != from) {
            return broken(format!("{what} answers what another collector was asked"));
        }
        if !task.targets.is_empty() && !task.targets.contains(&results.endpoint) {
            return broken(format!("{what} is about an endpoint that was not asked about"));
        }
        let request = if task.is_standing { results.standing } else { Some(results.request) };
        if request != Some(task.request) || results.plan != task.content {
            return broken(format!("{what} answers another request, or follows another plan"));
        }
        let asked = asked_as(hash_of_task, asked, task.content);
        let endpoint = results.endpoint;
        Ok(Reported { hash: hash.clone(), endpoint, collector: from, sent: message.envelope.sent, objects, asked })
    }

    /// What a collector was asked.
    fn task(&self, hash: &ContentHash) -> Result<(&Opened, Task), Broken> {
        let kind = self.messages.get(hash).map_or(CollectionRequest::KIND, |message| message.envelope.kind.as_str());
        let standing = |message, instructions: Option<CollectionRequest>| match instructions {
            Some(instructions) => Ok((message, task_of(instructions, true))),
            None => broken(format!("the task {} asks for nothing", hash.short())),
        };
        let by = ComponentType::Orchestrator;
        match kind {
            PeriodicCollection::KIND => {
                let (message, body) = self.message::<PeriodicCollection>(hash, by)?;
                standing(message, body.collection_instructions)
            }
            ObservationRequest::KIND => {
                let (message, body) = self.message::<ObservationRequest>(hash, by)?;
                standing(message, body.collection_instructions)
            }
            _ => {
                let (message, body) = self.message::<CollectionRequest>(hash, by)?;
                Ok((message, task_of(body, false)))
            }
        }
    }
}

fn unreadable(hash: &ContentHash, fault: &Fault) -> Broken {
    Broken { what: format!("the message {}: {}", hash.short(), fault.message) }
}

/// Whether the verdicts of each evaluation are all there: every part says how many there are.
fn are_complete(decided: &[DecidedIn<'_>]) -> Result<(), Broken> {
    let mut evaluations = BTreeMap::<_, (u32, BTreeSet<&str>)>::new();
    for DecidedIn { message, results: part, .. } in decided {
        let of = (message.envelope.transaction, part.endpoint, part.request, message.envelope.from);
        let (count, rules) = evaluations.entry(of).or_default();
        *count = part.rule_count;
        rules.extend(part.results.iter().map(|result| result.rule.as_str()));
    }
    for ((transaction, endpoint, ..), (count, rules)) in evaluations {
        if rules.len() != count as usize {
            let there = rules.len();
            return broken(format!("of {count} verdicts on {endpoint} in {transaction}, {there} are there"));
        }
    }
    Ok(())
}

fn task_of(request: CollectionRequest, is_standing: bool) -> Task {
    // More of the plan than was asked for by name may come back (RFC 8248 OP-003).
    let CollectionRequest { request, plan, targets, objects: _, deadline: _, budget: _, priority: _ } = request;
    Task { request, content: plan.sha256, targets, is_standing }
}

fn asked_as(hash: &ContentHash, message: &Opened, content: ContentHash) -> Asked {
    let Envelope { kind, from, sent, .. } = &message.envelope;
    Asked { hash: hash.clone(), kind: kind.clone(), orchestrator: *from, sent: *sent, content }
}

/// How many different messages verdicts rest on: reports, and what was asked.
pub fn counts(proven: &[Proven]) -> (usize, usize) {
    let reports: BTreeSet<&ContentHash> =
        proven.iter().flat_map(|verdict| &verdict.evidence).map(|report| &report.hash).collect();
    let tasks: BTreeSet<&ContentHash> = proven
        .iter()
        .flat_map(|verdict| verdict.evidence.iter().map(|report| &report.asked.hash).chain([&verdict.asked.hash]))
        .collect();
    (reports.len(), tasks.len())
}
