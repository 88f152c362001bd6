//! The operators' door: a socket in the data directory that only its owner can open. One request a
//! connection; answers are JSON lines.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::Duration;

use bus::Context;
use jiff::Timestamp;
use proto::fault::{Fault, FaultCode};
use proto::id::{ComponentId, EndpointId, TransactionId};
use proto::limits::{CONTENT_BYTES_MAX, shown};
use proto::message::{
    AttributeChange, ChangesRequest, ChangesResponse, Message, QueryRequest, ResultsRequest, ResultsResponse,
    ResultsSelection,
};
use proto::operator::{
    Ask, BrokerCertificate, IdentityDecision, OperatorEvent, OperatorRequest, TransactionView, Workflow,
};
use proto::topic::Topic;
use service::audit::{Act, Actor, Line};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::broadcast;
use tokio::task::JoinHandle;
use uuid::Uuid;

use crate::core::{Action, Core};
use crate::driver::{Handle, RunError};
use crate::posture::ChangeFilter;
use crate::registration::{TokenScope, create_token, revoke_token};

/// Bytes of a request line.
pub(crate) const LINE_BYTES_MAX: u64 = 64 * 1024;

/// Opens the socket.
pub(crate) fn listen(handle: Handle, data: &Path) -> Result<JoinHandle<()>, RunError> {
    let listener = bind(data)?;
    Ok(tokio::spawn(async move {
        loop {
            match listener.accept().await {
                Ok((stream, _)) => {
                    let handle = handle.clone();
                    tokio::spawn(async move {
                        if let Err(error) = serve(handle, stream).await {
                            tracing::debug!(%error, "an operator's connection ended");
                        }
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot accept an operator");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }))
}

/// The socket, readable by its owner alone.
pub(crate) fn bind(data: &Path) -> Result<UnixListener, RunError> {
    let path = data.join(crate::CONTROL_SOCKET);
    let failed = |source| RunError::Control { path: path.clone(), source };
    // The data directory is locked: a socket that is there belongs to nobody any more.
    match std::fs::remove_file(&path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(failed(error)),
        _ => {}
    }
    let listener = UnixListener::bind(&path).map_err(failed)?;
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).map_err(failed)?;
    Ok(listener)
}

/// Entries of the log of acts in one answer.
const AUDIT_PAGE: u32 = 500;

/// Sealed messages in one answer.
const CHAIN_PAGE: usize = 16;

/// The answering side of a connection.
pub(crate) struct Answers {
    stream: tokio::net::unix::OwnedWriteHalf,
}

impl Answers {
    pub(crate) fn new(stream: tokio::net::unix::OwnedWriteHalf) -> Self {
        Self { stream }
    }

    pub(crate) async fn send(&mut self, event: &OperatorEvent) -> std::io::Result<()> {
        let mut line = serde_json::to_vec(event)?;
        line.push(b'\n');
        self.stream.write_all(&line).await
    }
}

async fn serve(handle: Handle, stream: UnixStream) -> std::io::Result<()> {
    let actor = Actor::Operator(stream.peer_cred()?.uid());
    let (reading, stream) = stream.into_split();
    let mut answers = Answers { stream };
    let mut reader = BufReader::new(reading);
    let mut line = String::new();
    (&mut reader).take(LINE_BYTES_MAX).read_line(&mut line).await?;
    let request: OperatorRequest = match serde_json::from_str(&line) {
        Ok(request) => request,
        Err(error) => {
            return answers.send(&OperatorEvent::Fault(Fault::new(FaultCode::Malformed, error.to_string()))).await;
        }
    };
    let mut content = Vec::new();
    if request.content_bytes > 0 {
        if request.content_bytes > CONTENT_BYTES_MAX * 4 {
            let text = format!(
                "{} bytes; at most {} MiB are taken",
                request.content_bytes,
                CONTENT_BYTES_MAX * 4 / 1024 / 1024
            );
            return answers.send(&OperatorEvent::Fault(Fault::new(FaultCode::TooLarge, text))).await;
        }
        (&mut reader).take(request.content_bytes).read_to_end(&mut content).await?;
    }
    let outcome = answer(&handle, actor, request.ask, content, &mut answers).await?;
    answers.send(&outcome.map_or_else(OperatorEvent::Fault, |()| OperatorEvent::Done)).await
}

async fn answer(
    handle: &Handle,
    actor: Actor,
    ask: Ask,
    content: Vec<u8>,
    answers: &mut Answers,
) -> std::io::Result<Result<(), Fault>> {
    let event = match ask {
        Ask::Status => Ok(OperatorEvent::Status(Box::new(handle.status().await))),
        Ask::Roster => {
            let core = handle.inner.core.lock().await;
            Ok(OperatorEvent::Roster(core.roster()))
        }
        Ask::Collect(workflow) => return follow(handle, actor, &workflow, false, answers).await,
        Ask::Evaluate(workflow) => return follow(handle, actor, &workflow, true, answers).await,
        Ask::Query(question) => return handle.answer_question(actor, &question, answers).await,
        Ask::LabelSet(definition) => {
            handle.set_label(actor, *definition).await.map(|view| OperatorEvent::Labels(vec![view]))
        }
        Ask::LabelRemove { name } => handle
            .remove_label(actor, &name)
            .await
            .map(|()| OperatorEvent::Notice(format!("`{}` means nothing any more", shown(&name)))),
        Ask::LabelList => Ok(OperatorEvent::Labels(handle.labels().await)),
        Ask::Results { selection, verdicts } => {
            let mut after = None;
            loop {
                let request = ResultsRequest {
                    selection: selection.clone(),
                    verdicts: verdicts.clone(),
                    only_summaries: false,
                    after,
                };
                let page: ResultsResponse = match ask_repository(handle, &request).await {
                    Ok(page) => page,
                    Err(fault) => return Ok(Err(fault)),
                };
                after = page.next.clone();
                answers.send(&OperatorEvent::Results(Box::new(page))).await?;
                if after.is_none() {
                    return Ok(Ok(()));
                }
            }
        }
        Ask::PolicyImport(import) => match handle.import_policy(*import, content, actor).await {
            Ok((policy, notices)) => {
                for notice in notices {
                    answers.send(&OperatorEvent::Notice(notice)).await?;
                }
                Ok(OperatorEvent::Policy(Box::new(policy)))
            }
            Err(fault) => Err(fault),
        },
        Ask::PolicyAssign(assignment) => {
            let name = shown(&assignment.name);
            handle.assign_policy(actor, *assignment).await.map(|count| {
                let endpoints = match count {
                    0 => "no endpoint that is known yet".to_owned(),
                    1 => "1 endpoint".to_owned(),
                    count => format!("{count} endpoints"),
                };
                OperatorEvent::Notice(format!("`{name}` is assigned to {endpoints}"))
            })
        }
        Ask::PolicyUnassign { name } => handle
            .unassign_policy(actor, &name)
            .await
            .map(|()| OperatorEvent::Notice(format!("`{}` is assigned no more", shown(&name)))),
        Ask::PolicyAssignments => Ok(OperatorEvent::Assignments(handle.assignments().await)),
        Ask::PolicyCoverage(workflow) => {
            handle.coverage(&workflow).await.map(|view| OperatorEvent::Coverage(Box::new(view)))
        }
        Ask::PolicyList => handle.policies().await.map(OperatorEvent::Policies),
        Ask::PolicyVersions { name } => handle.policy_versions(&name).await.map(OperatorEvent::Policies),
        Ask::PolicyPreview { workflow, number } => {
            handle.preview(actor, &workflow, number).await.map(|preview| OperatorEvent::Preview(Box::new(preview)))
        }
        Ask::PolicyActivate { name, number } => match handle.activate_policy(actor, &name, number).await {
            Ok(notices) => {
                for notice in notices {
                    answers.send(&OperatorEvent::Notice(notice)).await?;
                }
                return Ok(Ok(()));
            }
            Err(fault) => Err(fault),
        },
        Ask::PolicySigner(change) => handle.change_signer(actor, change).await.map(OperatorEvent::Notice),
        Ask::PolicySigners => handle.inner.store.signers().await.map(OperatorEvent::Signers).map_err(Fault::from),
        Ask::PolicyFeed(change) => handle.change_feed(actor, change).await.map(OperatorEvent::Notice),
        Ask::PolicyFeeds => handle.inner.store.feeds().await.map(OperatorEvent::Feeds).map_err(Fault::from),
        Ask::Transaction { transaction } => {
            handle.transaction(transaction).await.map(|view| OperatorEvent::Ended(Box::new(view)))
        }
        Ask::Wait { transaction, is_all } => {
            handle.wait(transaction, is_all).await.map(|view| OperatorEvent::Ended(Box::new(view)))
        }
        Ask::Cancel { transaction } => {
            let text = format!("{transaction} is cancelled: whoever is at it is told to stop");
            handle.cancel(actor, transaction).await.map(|()| OperatorEvent::Notice(text))
        }
        Ask::Transactions => {
            let core = handle.inner.core.lock().await;
            Ok(OperatorEvent::Transactions(core.workflows().map(crate::core::workflow::Workflow::view).collect()))
        }
        Ask::TokenCreate { component_type, uses, ttl_seconds, labels, needs_approval } => {
            let scope = TokenScope { component_type, uses, ttl_seconds, labels, needs_approval };
            create_token(handle, actor, scope).await.map(OperatorEvent::Token).map_err(Fault::from)
        }
        Ask::TokenList => handle
            .inner
            .store
            .tokens()
            .await
            .map_err(Fault::from)
            .map(|tokens| OperatorEvent::Tokens(tokens.into_iter().map(|token| token.view).collect())),
        Ask::TokenRevoke { id } => revoke_token(handle, actor, &id).await.map_err(Fault::from).and_then(|revoked| {
            revoked.map(|()| OperatorEvent::Notice(format!("nobody joins with the token {id} any more")))
        }),
        Ask::Periodic { operation, identifier, schedule, at_once, workflow } => handle
            .periodic(actor, operation, identifier, schedule, at_once, &workflow)
            .await
            .map(OperatorEvent::Collectors),
        Ask::Observation { operation, identifier, poll_seconds, workflow } => handle
            .observation(actor, operation, identifier, poll_seconds, &workflow)
            .await
            .map(OperatorEvent::Collectors),
        Ask::Changes { targets, limit, is_followed, query } => {
            let filter = match query.as_deref().map(ChangeFilter::new).transpose() {
                Ok(filter) => filter,
                Err(fault) => return Ok(Err(fault)),
            };
            return changes(handle, &targets, limit, is_followed, filter.as_ref(), answers).await;
        }
        Ask::CaShow => Ok(OperatorEvent::Cas(handle.cas().await)),
        Ask::CaRotate => handle.rotate_ca(actor, &content).await.map(OperatorEvent::Cas),
        Ask::CaRetire { is_forced } => handle.retire_ca(actor, is_forced).await.map(OperatorEvent::Cas),
        Ask::Identity(decision) => identify(handle, actor, decision).await,
        Ask::Audit => return audit(handle, answers).await,
        Ask::Chain { transaction, endpoint, rule } => {
            match handle.chain(transaction, endpoint.as_deref(), rule.as_deref()).await {
                Ok(links) => {
                    for some in links.chunks(CHAIN_PAGE) {
                        answers.send(&OperatorEvent::Chain(json_lines(some))).await?;
                    }
                    return Ok(Ok(()));
                }
                Err(fault) => Err(fault),
            }
        }
        Ask::BrokerCertificate { certificate_signing_request, hosts } => {
            broker_certificate(handle, actor, &certificate_signing_request, &hosts).await
        }
        Ask::Approve { component } => {
            let text = format!("{component} is approved: it gets its certificate when it asks the next time");
            admit(handle, text, Act::new(actor, "approve", component), |core| core.approve(component)).await
        }
        Ask::Dismiss { component, is_ban, reason } => {
            let text = format!("{component} is put out: its certificate is refused from now on");
            let act = Act::new(actor, if is_ban { "ban" } else { "evict" }, component).because(shown(&reason));
            admit(handle, text, act, |core| core.dismiss(component, is_ban, &reason)).await
        }
        Ask::Pause { component, until, reason } => {
            let (text, act) = match until {
                Some(until) => (format!("{component} looks at nothing until {until:.0}"), "pause"),
                None => (format!("{component} goes on"), "resume"),
            };
            let act = Act::new(actor, act, component).because(shown(&reason));
            admit(handle, text, act, |core| core.pause(component, until, &shown(&reason), Timestamp::now())).await
        }
        Ask::LiftBan { component } => {
            let text = format!("{component} is evicted now: it may join again with a new token");
            admit(handle, text, Act::new(actor, "lift-ban", component), |core| core.lift_ban(component)).await
        }
    };
    match event {
        Ok(event) => answers.send(&event).await.map(Ok),
        Err(fault) => Ok(Err(fault)),
    }
}

/// The whole log of acts, with what was signed of it and what repositories remember.
async fn audit(handle: &Handle, answers: &mut Answers) -> std::io::Result<Result<(), Fault>> {
    if let Err(error) = handle.sign_acts().await {
        return Ok(Err(error.into()));
    }
    let (witnesses, silent) = handle.witnesses().await;
    for repository in silent {
        let text = format!("the repository {repository} does not say what it remembers of the log");
        answers.send(&OperatorEvent::Notice(text)).await?;
    }
    let witnesses: Vec<Line> = witnesses.into_iter().map(Line::Witness).collect();
    answers.send(&OperatorEvent::Audit(json_lines(&witnesses))).await?;
    let mut last = 0;
    loop {
        let (lines, until) = match handle.inner.store.audit_lines(last, AUDIT_PAGE).await {
            Ok(page) => page,
            Err(error) => return Ok(Err(error.into())),
        };
        let is_end = until < last + u64::from(AUDIT_PAGE);
        answers.send(&OperatorEvent::Audit(json_lines(&lines))).await?;
        if is_end {
            return Ok(Ok(()));
        }
        last = until;
    }
}

fn json_lines<T: serde::Serialize>(lines: &[T]) -> Vec<String> {
    lines.iter().map(|line| serde_json::to_string(line).expect("a line always serialises")).collect()
}

/// Decides which endpoint is which, and says what came of it.
async fn identify(handle: &Handle, actor: Actor, decision: IdentityDecision) -> Result<OperatorEvent, Fault> {
    let decided = match decision {
        IdentityDecision::Same(id) => {
            let text = format!("{id} speaks for the endpoint that it seemed to be, with all that is known of it");
            admit(handle, text, Act::new(actor, "same-endpoint", id), |core| core.same_endpoint(id)).await
        }
        IdentityDecision::Distinct(id) => {
            let text = format!("{id} speaks for an endpoint of its own");
            admit(handle, text, Act::new(actor, "distinct-endpoint", id), |core| core.distinct_endpoint(id)).await
        }
        IdentityDecision::Merge(from, into) => {
            let text = format!("what is known of {from} is known of {into} from now on");
            let act = Act::new(actor, "merge-endpoint", from).because(format!("into {into}"));
            admit(handle, text, act, |core| core.merge_endpoints(from, into)).await
        }
        IdentityDecision::Split(label) => {
            let text = format!("{label} has a history of its own again");
            admit(handle, text, Act::new(actor, "split-endpoint", label), |core| core.split_endpoint(label)).await
        }
    };
    if decided.is_ok() {
        handle.tell_aliases().await;
    }
    decided
}

/// Decides who is in, and says what came of it.
async fn admit(
    handle: &Handle,
    text: String,
    act: Act,
    decide: impl FnOnce(&mut Core) -> Result<Vec<Action>, Fault>,
) -> Result<OperatorEvent, Fault> {
    let decided = handle
        .act(|core, _| match decide(core) {
            Ok(mut actions) => {
                let put_out = actions.iter().filter_map(|action| match action {
                    Action::Kick(component) => Some(*component),
                    _ => None,
                });
                let put_out: Vec<ComponentId> = put_out.collect();
                actions.push(Action::Record(Box::new(act)));
                (Ok(put_out), actions)
            }
            Err(fault) => (Err(fault), Vec::new()),
        })
        .await
        .map_err(Fault::from)?;
    for component in decided? {
        // A repository that has not heard of it yet would go on to believe it.
        handle.tell_dismissal(component).await;
    }
    Ok(OperatorEvent::Notice(text))
}

/// A certificate for a broker that is not embedded; that it was signed is in the log before it is told.
pub(crate) async fn broker_certificate(
    handle: &Handle,
    actor: Actor,
    request: &str,
    hosts: &[String],
) -> Result<OperatorEvent, Fault> {
    let ca = &handle.inner.ca;
    let broker = ComponentId(Uuid::new_v4());
    let signed = handle
        .act(|_, now| match ca.issue_for_broker(request, broker, hosts, now) {
            Ok(signed) => {
                let act = Act::new(actor, "sign-broker-certificate", broker).because(hosts.join(", "));
                (Ok(signed), vec![Action::Record(Box::new(act))])
            }
            Err(error) => (Err(Fault::new(FaultCode::Malformed, error.to_string())), Vec::new()),
        })
        .await
        .map_err(Fault::from)?;
    signed.map(|(certificate, validity)| {
        // All that are trusted: during a rotation components have certificates of either.
        let ca_certificate = ca.pems().concat();
        OperatorEvent::BrokerCertificate(Box::new(BrokerCertificate {
            certificate,
            ca_certificate,
            ends: validity.until,
        }))
    })
}

/// Of several repositories, the first that answers.
pub(crate) async fn ask_repository<Q: Message, A: Message>(handle: &Handle, request: &Q) -> Result<A, Fault> {
    let mut last = Fault::new(FaultCode::Busy, "no repository is active; `muster roster` shows why");
    for (repository, _) in handle.repositories().await.into_iter().filter(|(_, is_there)| *is_there) {
        match ask_one_repository(handle, repository, request).await {
            Err(fault) if fault.code == FaultCode::Timeout => last = fault,
            answer => return answer,
        }
    }
    Err(last)
}

pub(crate) async fn ask_one_repository<Q: Message, A: Message>(
    handle: &Handle,
    repository: ComponentId,
    request: &Q,
) -> Result<A, Fault> {
    let bus = &handle.inner.bus;
    let ask = Topic::Directed { to: repository, operation: QueryRequest::KIND.to_owned(), from: bus.own() };
    bus.request(&ask, request, Context::alone(), Duration::from_secs(15)).await.map_err(|error| match error {
        bus::RequestError::Fault(fault) => fault,
        other => Fault::new(FaultCode::Timeout, other.to_string()),
    })
}

/// Tells stored changes, the oldest first, and then those that come in.
async fn changes(
    handle: &Handle,
    targets: &[String],
    limit: u32,
    is_followed: bool,
    filter: Option<&ChangeFilter>,
    answers: &mut Answers,
) -> std::io::Result<Result<(), Fault>> {
    // First listen, then ask: nothing falls between the two.
    let mut watched = handle.inner.watchers.subscribe();
    let endpoints = match targets {
        [] => Vec::new(),
        _ => match handle.inner.core.lock().await.endpoints_of(targets) {
            Ok(endpoints) => endpoints,
            Err(fault) => return Ok(Err(fault)),
        },
    };
    let is_asked = |change: &AttributeChange| filter.is_none_or(|filter| filter.is_meant(change));
    let mut stored = Vec::new();
    let mut request = ChangesRequest { endpoints: endpoints.clone(), before: None, limit, numbers: Vec::new() };
    loop {
        let page: ChangesResponse = match ask_repository(handle, &request).await {
            Ok(page) => page,
            Err(fault) => return Ok(Err(fault)),
        };
        if request.before.is_none() {
            answers.send(&OperatorEvent::Streams(page.streams)).await?;
        }
        stored.extend(page.changes.into_iter().filter(is_asked));
        request.limit = limit.saturating_sub(u32::try_from(stored.len()).unwrap_or(u32::MAX));
        match page.next {
            Some(next) if request.limit > 0 => request.before = Some(next),
            _ => break,
        }
    }
    let mut told = BTreeSet::new();
    for change in stored.into_iter().rev() {
        told.insert(change.change);
        answers.send(&OperatorEvent::Change(Box::new(change))).await?;
    }
    if !is_followed {
        return Ok(Ok(()));
    }
    loop {
        match watched.recv().await {
            Ok((_, OperatorEvent::Change(change))) => {
                // Of many that come at once, those are asked for together that were told without their items.
                let (mut changes, mut missed) = (vec![*change], 0);
                while changes.len() < FOLLOWED_TOGETHER_MAX {
                    match watched.try_recv() {
                        Ok((_, OperatorEvent::Change(change))) => changes.push(*change),
                        Ok(_) => {}
                        Err(broadcast::error::TryRecvError::Lagged(more)) => missed += more,
                        Err(_) => break,
                    }
                }
                if missed > 0 {
                    answers.send(&events_missed(missed)).await?;
                }
                changes.retain(|change| {
                    (endpoints.is_empty() || endpoints.contains(&change.endpoint)) && !told.contains(&change.change)
                });
                let lacking = complete(handle, &mut changes).await;
                if lacking > 0 {
                    let text = format!("of {lacking} changes no repository says what has changed in them");
                    answers.send(&OperatorEvent::Notice(text)).await?;
                }
                for change in changes.into_iter().filter(is_asked) {
                    answers.send(&OperatorEvent::Change(Box::new(change))).await?;
                }
            }
            Ok(_) => {}
            Err(broadcast::error::RecvError::Lagged(missed)) => {
                answers.send(&events_missed(missed)).await?;
            }
            Err(broadcast::error::RecvError::Closed) => return Ok(Ok(())),
        }
    }
}

fn events_missed(count: u64) -> OperatorEvent {
    OperatorEvent::Notice(format!("{count} events were missed; ask again for what is stored"))
}

/// Changes that are told to whoever follows in one go.
const FOLLOWED_TOGETHER_MAX: usize = 200;

/// Asks for the items of changes that were told without. How many of them no repository has.
async fn complete(handle: &Handle, changes: &mut [AttributeChange]) -> usize {
    // Each repository has numbers of its own.
    let key = |change: &AttributeChange| (change.change, change.endpoint, change.object.clone(), change.collected);
    let brief = changes.iter_mut().filter(|change| change.is_brief());
    let mut lacking: BTreeMap<_, &mut AttributeChange> = brief.map(|change| (key(change), change)).collect();
    if lacking.is_empty() {
        return 0;
    }
    for (repository, _) in handle.repositories().await.into_iter().filter(|(_, is_there)| *is_there) {
        // An answer has as many as fit.
        loop {
            let numbers: Vec<u64> = lacking.keys().map(|(number, ..)| *number).collect();
            let request = ChangesRequest { endpoints: Vec::new(), before: None, limit: 1, numbers };
            let answer: Result<ChangesResponse, Fault> = ask_one_repository(handle, repository, &request).await;
            let before = lacking.len();
            for stored in answer.map(|page| page.changes).unwrap_or_default() {
                if let Some(change) = lacking.remove(&key(&stored)) {
                    *change = stored;
                }
            }
            if lacking.is_empty() {
                return 0;
            }
            if lacking.len() == before {
                break;
            }
        }
    }
    lacking.len()
}

/// Begins a workflow and tells how it goes until it has ended.
async fn follow(
    handle: &Handle,
    actor: Actor,
    workflow: &Workflow,
    is_evaluation: bool,
    answers: &mut Answers,
) -> std::io::Result<Result<(), Fault>> {
    let mut watched = handle.inner.watchers.subscribe();
    let id = match handle.begin_asked(actor, workflow, is_evaluation).await {
        Ok(id) => id,
        Err(fault) => return Ok(Err(fault)),
    };
    let following = handle.inner.followed.follow(id);
    let mut told = BTreeSet::new();
    let ended = match until_settled(handle, id, &mut watched, answers, &mut told).await? {
        Ok(ended) => ended,
        Err(fault) => return Ok(Err(fault)),
    };
    drop(following);
    if is_evaluation {
        // What is stored is the truth; what came by on the bus was for the eyes.
        let mut after = None;
        loop {
            let selection = ResultsSelection::Transaction(id);
            let request = ResultsRequest { selection, verdicts: Vec::new(), only_summaries: false, after };
            let page: ResultsResponse = match ask_repository(handle, &request).await {
                Ok(page) => page,
                Err(fault) => return Ok(Err(fault)),
            };
            for (summary, results) in page.summaries.into_iter().zip(page.results) {
                let endpoint = summary.endpoint;
                for result in results {
                    if told.insert((endpoint, result.rule.clone())) {
                        answers.send(&OperatorEvent::Verdict { endpoint, result: Box::new(result) }).await?;
                    }
                }
                answers.send(&OperatorEvent::Summary(Box::new(summary))).await?;
            }
            after = page.next;
            if after.is_none() {
                break;
            }
        }
    }
    answers.send(&OperatorEvent::Ended(ended)).await?;
    Ok(Ok(()))
}

/// Tells how a workflow goes until it is done with everybody who was there. `told`: the verdicts that were shown.
pub(crate) async fn until_settled(
    handle: &Handle,
    id: TransactionId,
    watched: &mut broadcast::Receiver<(TransactionId, OperatorEvent)>,
    answers: &mut Answers,
    told: &mut BTreeSet<(EndpointId, String)>,
) -> std::io::Result<Result<Box<TransactionView>, Fault>> {
    loop {
        match watched.recv().await {
            Ok((transaction, event)) if transaction == id => match event {
                OperatorEvent::Fault(fault) => return Ok(Err(fault)),
                OperatorEvent::Ended(view) => return Ok(Ok(view)),
                OperatorEvent::Verdict { endpoint, result } => {
                    // A message that came twice is shown once.
                    if told.insert((endpoint, result.rule.clone())) {
                        answers.send(&OperatorEvent::Verdict { endpoint, result }).await?;
                    }
                }
                OperatorEvent::Change(_) => {}
                other => answers.send(&other).await?,
            },
            Ok(_) => {}
            // Too slow to see every step; the end is asked for below.
            Err(broadcast::error::RecvError::Lagged(_)) => {
                if let Some(view) = handle.settled_view(id).await {
                    return Ok(Ok(Box::new(view)));
                }
            }
            Err(broadcast::error::RecvError::Closed) => {
                return Ok(Err(Fault::new(FaultCode::Internal, "the orchestrator is stopping")));
            }
        }
    }
}
