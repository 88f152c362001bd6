//! The SACM loop through the public bus: annex F of the digest, over real TLS and a real broker.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test fails by panicking, and says what it skips")]

use std::collections::BTreeMap;
use std::time::Duration;

use bus::Context;
use proto::capability::{Capability, CapabilityUrn, ComponentType};
use proto::content::{ContentHash, ContentRef};
use proto::fault::FaultCode;
use proto::id::{EndpointId, RequestId, TransactionId};
use proto::message::{
    CapabilityAdvertisement, CapabilityAdvertisementResponse, CollectionRequest, EndpointResults, FleetResults,
    Message as _, Phase, RegistrationStatus, StatusNotification, Task, TaskRequest, TaskResponse, TasksRequest,
    TasksResponse, ToCollector,
};
use proto::operator::{Ask, OperatorEvent, TransactionView};
use proto::topic::Topic;
use proto::verdict::EvaluationSummary;
use service::member::Member;
use system_tests::{Installation, PATIENCE, assess, baseline, eventually, verdicts};
use uuid::Uuid;

fn ended(events: &[OperatorEvent]) -> &TransactionView {
    events
        .iter()
        .find_map(|event| match event {
            OperatorEvent::Ended(view) => Some(&**view),
            _ => None,
        })
        .unwrap_or_else(|| panic!("the workflow ended: {events:?}"))
}

/// What an evaluation came to.
fn summary_of(events: &[OperatorEvent]) -> EvaluationSummary {
    let summary = events.iter().find_map(|event| match event {
        OperatorEvent::Summary(summary) => Some(&**summary),
        _ => None,
    });
    summary.unwrap_or_else(|| panic!("an endpoint was evaluated: {events:?}")).clone()
}

/// The endpoint that was evaluated.
fn evaluated(events: &[OperatorEvent]) -> EndpointId {
    summary_of(events).endpoint
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_evaluation_through_the_whole_system_gives_the_verdicts_of_the_bare_engine() {
    let installation = Installation::complete().await;
    let events = installation.ask(Ask::Evaluate(baseline(60))).await;
    assert_eq!(ended(&events).state, "completed");
    let expected: BTreeMap<String, String> = assess(system_tests::BASELINE, None, "/")
        .results
        .iter()
        .map(|result| (result.rule.clone(), result.verdict.to_string()))
        .collect();
    assert_eq!(verdicts(&events), expected);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stored_observations_are_evaluated_without_contacting_the_endpoint() {
    let installation = Installation::complete().await;
    let first = installation.ask(Ask::Evaluate(baseline(60))).await;
    let stored = proto::operator::Workflow { is_stored_only: true, ..baseline(60) };
    let second = installation.ask(Ask::Evaluate(stored)).await;
    assert_eq!(verdicts(&first), verdicts(&second));
    assert!(ended(&second).responders.iter().all(|responder| responder.operation == "evaluate"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn directed_and_broadcast_collection_store_the_same() {
    let installation = Installation::complete().await;
    for is_broadcast in [false, true] {
        let workflow = proto::operator::Workflow { is_broadcast, ..baseline(60) };
        let events = installation.ask(Ask::Evaluate(workflow)).await;
        assert_eq!(ended(&events).state, "completed", "broadcast: {is_broadcast}");
        assert_eq!(verdicts(&events).len(), 62);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_capability_is_answered_by_itself() {
    let installation = Installation::orchestrator().await;
    let member = installation.scripted(ComponentType::PostureCollectionService, "collector").await;
    let unknown = CapabilityUrn("urn:example:nobody-knows".to_owned());
    let advertisement = CapabilityAdvertisement {
        capabilities: vec![
            Capability::Heartbeat.urn(),
            unknown,
            Capability::CollectOvalBroadcast.urn(),
            Capability::EvaluateXccdf.urn(),
        ],
        endpoints: Vec::new(),
        software_version: "test".to_owned(),
        ..CapabilityAdvertisement::default()
    };
    let up = Topic::AdminUp(member.bus.own(), CapabilityAdvertisement::KIND.to_owned());
    let answer: CapabilityAdvertisementResponse =
        member.bus.request(&up, &advertisement, Context::alone(), PATIENCE).await.unwrap();
    let statuses: Vec<_> = answer.capabilities.iter().map(|answer| answer.registration_status).collect();
    use RegistrationStatus::{Failure, Success};
    assert_eq!(statuses, [Success, Failure, Success, Failure]);
    assert_eq!(answer.capabilities[1].messages[0].code, FaultCode::UnsupportedCapability);
    assert_eq!(answer.capabilities[3].messages[0].code, FaultCode::NotAuthorized);
    assert_eq!(answer.capabilities[2].capability_topics, ["/collection/oval"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_roster_survives_a_restart_and_nobody_registers_again() {
    let installation = Installation::orchestrator_in(tempfile::tempdir().unwrap(), "127.0.0.1:0").await;
    let port = installation.handle.status().await.listen;
    let member = installation.scripted(ComponentType::PostureCollectionService, "collector").await;
    let own = member.bus.own();
    let data = installation.stop().await;
    let installation = Installation::orchestrator_in(data, &port).await;
    installation.wait_for_active(1).await;
    let events = installation.ask(Ask::Roster).await;
    let OperatorEvent::Roster(roster) = &events[0] else { panic!("{events:?}") };
    assert_eq!(roster.iter().map(|entry| entry.component).collect::<Vec<_>>(), [own]);
    // The administrative interface is live again: an advertisement is answered.
    let advertisement = CapabilityAdvertisement {
        capabilities: vec![Capability::Heartbeat.urn()],
        endpoints: Vec::new(),
        software_version: "test".to_owned(),
        ..CapabilityAdvertisement::default()
    };
    let up = Topic::AdminUp(own, CapabilityAdvertisement::KIND.to_owned());
    eventually("the interface answers", async || {
        let answer: Result<CapabilityAdvertisementResponse, _> =
            member.bus.request(&up, &advertisement, Context::alone(), Duration::from_secs(2)).await;
        answer.ok()
    })
    .await;
}

/// The next request to collect that a component gets.
async fn asked(member: &mut Member) -> CollectionRequest {
    let next = async {
        loop {
            let message = member.inbox.recv().await.expect("the membership lives");
            if let Ok(request) = message.envelope().decode::<CollectionRequest>() {
                return request;
            }
        }
    };
    tokio::time::timeout(PATIENCE, next).await.expect("a request in time")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_many_who_are_asked_those_are_asked_too_whose_request_an_orchestrator_had_not_stored_when_it_ended() {
    let installation = Installation::orchestrator().await;
    let mut members = Vec::new();
    for number in 0..20 {
        let name = format!("collector-{number}");
        members.push(installation.scripted(ComponentType::PostureCollectionService, &name).await);
    }
    let data = installation.data.path().join("orchestrator");
    let asking = tokio::spawn(async move { system_tests::ask(&data, Ask::Collect(baseline(60)), &[]).await });
    let mut before = Vec::new();
    for member in &mut members {
        before.push(asked(member).await);
    }
    let listen = installation.handle.status().await.listen;
    let data = installation.stop().await;
    asking.abort();
    // As if it had ended before: who is to be asked is stored, and of some that and how they were asked is not.
    let database = data.path().join("orchestrator/orchestrator.db");
    let first = members[0].bus.own().to_string();
    let gone = store::testing::tamper(&database, "DELETE FROM sent_task WHERE responder <> $1", &first).await;
    assert_eq!(gone, 19);
    let installation = Installation::orchestrator_in(data, &listen).await;
    for (member, before) in members.iter_mut().zip(&before).skip(1) {
        let again = asked(member).await;
        assert_eq!((again.request, &again.plan), (before.request, &before.plan));
    }
    let events = installation.ask(Ask::Transactions).await;
    let OperatorEvent::Transactions(views) = &events[0] else { panic!("{events:?}") };
    assert_eq!(views.len(), 1);
    let silent = views[0].responders.iter().filter(|responder| responder.state == "asked").count();
    assert_eq!((silent, views[0].responders.len()), (members.len(), members.len()), "{:?}", views[0].responders);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broadcast_with_a_silent_collector_ends_partial_at_the_deadline() {
    let installation = Installation::complete().await;
    let silent = installation.scripted(ComponentType::PostureCollectionService, "silent").await;
    let workflow = proto::operator::Workflow { is_broadcast: true, ..baseline(4) };
    let events = installation.ask(Ask::Collect(workflow)).await;
    let view = ended(&events);
    assert_eq!(view.state, "partial");
    let states: Vec<(bool, &str)> = view
        .responders
        .iter()
        .map(|responder| (responder.component == silent.bus.own(), responder.state.as_str()))
        .collect();
    assert!(states.contains(&(true, "no-answer")) && states.contains(&(false, "completed")), "{states:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unknown_policy_profile_or_target_is_named_with_what_there_is() {
    let installation = Installation::complete().await;
    let cases = [
        (proto::operator::Workflow { policy: "nothing".to_owned(), ..baseline(5) }, orchestrator::BASELINE),
        (proto::operator::Workflow { profile: Some("nothing".to_owned()), ..baseline(5) }, "profile_server"),
        (proto::operator::Workflow { targets: vec!["nobody".to_owned()], ..baseline(5) }, "muster roster"),
    ];
    for (workflow, expected) in cases {
        let events = installation.ask(Ask::Evaluate(workflow)).await;
        let Some(OperatorEvent::Fault(fault)) = events.last() else { panic!("{events:?}") };
        assert!(fault.message.contains(expected), "{fault}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_empty_root_is_an_answer_and_not_a_failure() {
    let installation = Installation::complete().await;
    let root = tempfile::tempdir().unwrap();
    installation.add_collector("elsewhere", root.path()).await;
    installation.wait_for_active(4).await;
    let events = installation.ask(Ask::Evaluate(baseline(60))).await;
    assert_eq!(ended(&events).state, "completed");
    let summaries = events.iter().filter(|event| matches!(event, OperatorEvent::Summary(_))).count();
    assert_eq!(summaries, 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_task_has_one_end_whatever_its_responder_says_later() {
    let installation = Installation::orchestrator().await;
    let mut member = installation.scripted(ComponentType::PostureCollectionService, "scripted").await;
    let own = member.bus.own();
    let script = async {
        let message = tokio::time::timeout(PATIENCE, member.inbox.recv()).await.unwrap().unwrap();
        let Ok(ToCollector::CollectionRequest(request)) = ToCollector::decode(message.envelope()) else { panic!() };
        assert!(!request.plan.sha256.as_str().is_empty());
        let status = |phase| StatusNotification {
            publisher: own,
            message: "scripted".to_owned(),
            code: "collect.completed".to_owned(),
            request: Some(request.request),
            phase: Some(phase),
            progress: None,
            fault: None,
        };
        let context = Context::of(message.envelope().transaction);
        member.bus.send_durable(&Topic::Status(own), &status(Phase::Completed), context).unwrap();
        member.bus.send_durable(&Topic::Status(own), &status(Phase::Failed), context).unwrap();
    };
    let (events, ()) = tokio::join!(installation.ask(Ask::Collect(baseline(30))), script);
    assert_eq!(ended(&events).state, "completed");
    eventually("both ends are acknowledged", async || (member.bus.unacknowledged_count() == 0).then_some(())).await;
    let events = installation.ask(Ask::Transactions).await;
    let OperatorEvent::Transactions(views) = &events[0] else { panic!("{events:?}") };
    assert_eq!(views[0].responders[0].state, "completed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_collectors_status_does_not_end_a_task() {
    let installation = Installation::orchestrator().await;
    let mut asked = installation.scripted(ComponentType::PostureCollectionService, "asked").await;
    let liar = installation.scripted(ComponentType::PostureCollectionService, "liar").await;
    let script = async {
        let message = tokio::time::timeout(PATIENCE, asked.inbox.recv()).await.unwrap().unwrap();
        let Ok(ToCollector::CollectionRequest(request)) = ToCollector::decode(message.envelope()) else { panic!() };
        let status = StatusNotification {
            // Says that it is the other one, on its own topic.
            publisher: asked.bus.own(),
            message: "all done".to_owned(),
            code: "collect.completed".to_owned(),
            request: Some(request.request),
            phase: Some(Phase::Completed),
            progress: None,
            fault: None,
        };
        let context = Context::of(message.envelope().transaction);
        liar.bus.send(&Topic::Status(liar.bus.own()), &status, context).unwrap();
    };
    let workflow = proto::operator::Workflow { targets: vec!["asked".to_owned()], ..baseline(4) };
    let (events, ()) = tokio::join!(installation.ask(Ask::Collect(workflow)), script);
    assert_eq!(ended(&events).responders[0].state, "no-answer");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_an_orchestrator_commands_a_collector() {
    let installation = Installation::orchestrator().await;
    let victim = installation.scripted(ComponentType::PostureCollectionService, "victim").await;
    let mut inbox = victim.inbox;
    let attacker = installation.scripted(ComponentType::PostureEvaluationService, "attacker").await;
    let request = CollectionRequest {
        request: RequestId(Uuid::now_v7()),
        plan: ContentRef::to(b"plan"),
        targets: Vec::new(),
        objects: Vec::new(),
        deadline: jiff::Timestamp::now() + jiff::SignedDuration::from_mins(1),
        budget: proto::budget::Budget::default(),
        priority: proto::message::Priority::default(),
    };
    let context = Context::of(TransactionId(Uuid::now_v7()));
    // The broker denies it, whatever the envelope says.
    attacker.bus.send(&Topic::Admin(victim.bus.own()), &request, context).unwrap();
    attacker.bus.send(&Topic::Collection("oval".to_owned()), &request, context).unwrap();
    let got = tokio::time::timeout(Duration::from_secs(1), inbox.recv()).await;
    assert!(got.is_err(), "{got:?}");
}

fn forged_verdict(before: &BTreeMap<String, String>, endpoint: EndpointId) -> proto::message::EvaluationResults {
    proto::message::EvaluationResults {
        request: RequestId(Uuid::now_v7()),
        task: Some(ContentHash::of(b"an envelope")),
        endpoint,
        about: None,
        evidence: Vec::new(),
        part: 0,
        rule_count: 1,
        results: vec![proto::verdict::RuleResult {
            rule: before.keys().next().unwrap().clone(),
            title: "forged".to_owned(),
            severity: proto::verdict::Severity::High,
            verdict: proto::verdict::Verdict::Fixed,
            sense: proto::verdict::Sense::Compliance,
            found: Vec::new(),
            expected: Vec::new(),
            reasons: Vec::new(),
            fix: None,
            since: None,
            objects: Vec::new(),
        }],
        summary: None,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_collector_cannot_put_verdicts_into_the_repository() {
    let installation = Installation::complete().await;
    let events = installation.ask(Ask::Evaluate(baseline(60))).await;
    let (transaction, before) = (ended(&events).transaction, verdicts(&events));
    let endpoint = evaluated(&events);
    let liar = installation.scripted(ComponentType::PostureCollectionService, "liar").await;
    // The broker lets it publish on its own topic; what it says there is for receivers to refuse.
    let forged = forged_verdict(&before, endpoint);
    let own = liar.bus.own();
    liar.bus.send(&Topic::CollectionResults(own), &forged, Context::of(transaction)).unwrap();
    // An honest message after it, on the same way, so that the forged one has been seen.
    let status = StatusNotification {
        publisher: own,
        message: "after".to_owned(),
        code: "test.after".to_owned(),
        request: Some(RequestId(Uuid::now_v7())),
        phase: Some(Phase::Completed),
        progress: None,
        fault: None,
    };
    liar.bus.send_durable(&Topic::Status(own), &status, Context::alone()).unwrap();
    eventually("the honest message is acknowledged", async || (liar.bus.unacknowledged_count() == 0).then_some(()))
        .await;
    let selection = proto::message::ResultsSelection::Transaction(transaction);
    let events = installation.ask(Ask::Results { selection, verdicts: Vec::new() }).await;
    let OperatorEvent::Results(stored) = &events[0] else { panic!("{events:?}") };
    assert!(stored.results[0].iter().all(|result| result.title != "forged"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_collector_is_believed_about_its_own_endpoint_only() {
    use proto::message::{CollectedPart, CollectionResults};
    let installation = Installation::complete().await;
    let events = installation.ask(Ask::Evaluate(baseline(60))).await;
    let (evaluation, before) = (ended(&events).transaction, verdicts(&events));
    let endpoint = evaluated(&events);
    let mut liar = installation.scripted(ComponentType::PostureCollectionService, "liar").await;
    let own = liar.assigned.borrow().endpoints[0].1;
    // It is asked for something, like any other collector.
    let asked = proto::operator::Workflow { targets: vec!["liar".to_owned()], ..baseline(60) };
    let data = installation.data.path().join("orchestrator");
    tokio::spawn(async move { system_tests::ask(&data, Ask::Collect(asked), &[]).await });
    let (transaction, request, task) = loop {
        let message = tokio::time::timeout(PATIENCE, liar.inbox.recv()).await.unwrap().unwrap();
        if let Ok(ToCollector::CollectionRequest(request)) = ToCollector::decode(message.envelope()) {
            break (message.envelope().transaction, *request, message.hash().clone());
        }
    };
    let plan = scap::compile::compile(&scap::datastream::read(system_tests::BASELINE.to_vec()).unwrap(), None).unwrap();
    let nothing = |object: &proto::plan::ObjectKey| CollectedPart {
        object: object.clone(),
        flag: proto::observation::Flag::DoesNotExist,
        collected: jiff::Timestamp::now(),
        items: Vec::new(),
        messages: Vec::new(),
    };
    let honest = CollectionResults {
        request: request.request,
        standing: None,
        task: Some(task),
        plan: request.plan.sha256.clone(),
        endpoint: own,
        facts: proto::observation::EndpointFacts::default(),
        method: proto::observation::Method::SelfReported,
        part: 0,
        is_final: true,
        stream: None,
        items: Vec::new(),
        // Nothing is there, of anything: whoever believes it decides otherwise.
        objects: plan.collection.report.iter().map(nothing).collect(),
    };
    let invented: proto::plan::ObjectKey = serde_json::from_str("\"obj-00000000000000000000000000000000\"").unwrap();
    let stray = proto::observation::Item {
        kind: "family".to_owned(),
        status: proto::observation::Status::Exists,
        entities: Vec::new(),
        message: None,
    };
    let lies = [
        // About somebody else's endpoint, with its own task and with that endpoint's.
        (transaction, CollectionResults { endpoint, ..honest.clone() }),
        (evaluation, CollectionResults { endpoint, ..honest.clone() }),
        // About its own endpoint, and nobody asked for it.
        (TransactionId(Uuid::now_v7()), honest.clone()),
        (transaction, CollectionResults { request: RequestId(Uuid::now_v7()), ..honest.clone() }),
        (transaction, CollectionResults { standing: Some(RequestId(Uuid::now_v7())), ..honest.clone() }),
        (transaction, CollectionResults { plan: ContentHash::of(b"plan"), ..honest.clone() }),
        // By its own word, but not by a message that asked for it.
        (transaction, CollectionResults { task: Some(ContentHash::of(b"an envelope")), ..honest.clone() }),
        (transaction, CollectionResults { task: None, ..honest.clone() }),
        (transaction, CollectionResults { objects: vec![nothing(&invented)], ..honest.clone() }),
        // What nobody asked for, beside what was asked for.
        (transaction, CollectionResults { items: vec![stray.clone()], ..honest.clone() }),
        // Items of a kind that the object does not find.
        (
            transaction,
            CollectionResults {
                items: vec![stray.clone()],
                objects: vec![CollectedPart { items: vec![0], ..honest.objects[0].clone() }],
                ..honest.clone()
            },
        ),
        (
            transaction,
            CollectionResults {
                items: vec![stray],
                objects: vec![CollectedPart { items: vec![7], ..honest.objects[0].clone() }],
                ..honest.clone()
            },
        ),
    ];
    let topic = Topic::CollectionResults(liar.bus.own());
    let send = |(transaction, results): &(TransactionId, CollectionResults)| {
        liar.bus.send_durable(&topic, results, Context::of(*transaction)).unwrap()
    };
    let lies: Vec<_> = lies.iter().map(send).collect();
    let honest = send(&(transaction, honest));
    eventually("all are answered", async || (liar.bus.unacknowledged_count() == 0).then_some(())).await;
    for (number, lie) in lies.into_iter().enumerate() {
        assert!(liar.bus.was_given_up(lie), "lie {number} was believed");
    }
    assert!(!liar.bus.was_given_up(honest));
    let workflow =
        proto::operator::Workflow { is_stored_only: true, targets: vec![endpoint.to_string()], ..baseline(60) };
    assert_eq!(verdicts(&installation.ask(Ask::Evaluate(workflow)).await), before);
    let counts = installation.handle.status().await.security_counts;
    assert!(counts.iter().any(|(code, count)| code == "security.report-refused" && *count == 1), "{counts:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_evaluator_is_believed_about_what_it_was_asked_only() {
    let installation = Installation::complete().await;
    let events = installation.ask(Ask::Evaluate(baseline(60))).await;
    let (evaluation, before, endpoint) = (ended(&events).transaction, verdicts(&events), evaluated(&events));
    let liar = installation.scripted(ComponentType::PostureEvaluationService, "liar").await;
    let forged = forged_verdict(&before, endpoint);
    let topic = Topic::EvaluationResults(liar.bus.own());
    // In a workflow of another evaluator, and in one that there is not.
    for transaction in [evaluation, TransactionId(Uuid::now_v7())] {
        let sent = liar.bus.send_durable(&topic, &forged, Context::of(transaction)).unwrap();
        eventually("it is answered", async || (liar.bus.unacknowledged_count() == 0).then_some(())).await;
        assert!(liar.bus.was_given_up(sent));
    }
    // Nor on many endpoints at once.
    let own = liar.bus.own();
    let summary = EvaluationSummary { evaluator: own, ..summary_of(&events) };
    let one = EndpointResults { results: vec![0], evidence: Vec::new(), summary };
    let elsewhere = EndpointResults {
        summary: EvaluationSummary { endpoint: EndpointId(Uuid::new_v4()), ..one.summary.clone() },
        ..one.clone()
    };
    let nowhere = EndpointResults { results: vec![7], ..elsewhere.clone() };
    let twice = EndpointResults { results: vec![0, 0], ..one.clone() };
    let many = (0..257).map(|_| EndpointResults {
        summary: EvaluationSummary { endpoint: EndpointId(Uuid::new_v4()), ..one.summary.clone() },
        ..one.clone()
    });
    for endpoints in [
        vec![one.clone(), elsewhere],
        vec![one.clone(), one.clone()],
        vec![one.clone(), nowhere],
        vec![twice],
        many.collect(),
    ] {
        let forged = FleetResults {
            request: forged.request,
            task: ContentHash::of(b"an envelope"),
            results: forged.results.clone(),
            objects: Vec::new(),
            endpoints,
        };
        let sent = liar.bus.send_durable(&topic, &forged, Context::of(evaluation)).unwrap();
        eventually("it is answered", async || (liar.bus.unacknowledged_count() == 0).then_some(())).await;
        assert!(liar.bus.was_given_up(sent));
    }
    let selection = proto::message::ResultsSelection::Transaction(evaluation);
    let kept = installation.ask(Ask::Results { selection, verdicts: Vec::new() }).await;
    let OperatorEvent::Results(stored) = &kept[0] else { panic!("{kept:?}") };
    assert!(stored.results.iter().flatten().all(|result| result.title != "forged") && stored.results.len() == 1);
    // Only a repository asks what others were asked.
    let question = TaskRequest {
        responder: liar.bus.own(),
        endpoint,
        task: Task::Workflow { transaction: evaluation, request: RequestId(Uuid::now_v7()) },
        message: None,
    };
    let up = Topic::AdminUp(liar.bus.own(), TaskRequest::KIND.to_owned());
    let answer: Result<TaskResponse, _> = liar.bus.request(&up, &question, Context::alone(), PATIENCE).await;
    assert!(matches!(&answer, Err(bus::RequestError::Fault(fault)) if fault.code == FaultCode::NotAuthorized));
    let many = TasksRequest { tasks: vec![question] };
    let up = Topic::AdminUp(liar.bus.own(), TasksRequest::KIND.to_owned());
    let answer: Result<TasksResponse, _> = liar.bus.request(&up, &many, Context::alone(), PATIENCE).await;
    assert!(matches!(&answer, Err(bus::RequestError::Fault(fault)) if fault.code == FaultCode::NotAuthorized));
}
