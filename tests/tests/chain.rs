//! From verdicts back to what was asked: what `muster verify` believes, and what it does not.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use bus::{Context, RequestError};
use proto::capability::ComponentType;
use proto::content::ContentHash;
use proto::envelope::Envelope;
use proto::fault::FaultCode;
use proto::id::{EndpointId, RequestId, TransactionId};
use proto::message::{
    ChainRequest, ChainResponse, ChangesRequest, ChangesResponse, EvaluationRequest, Message as _, OnStale,
    QueryRequest, QueryResponse, ResultsRequest, ResultsResponse, ResultsSelection, SearchContent, SearchRequest,
    SearchResponse, ToEvaluator,
};
use proto::operator::Ask;
use proto::seal::{Sealed, Sealer};
use proto::topic::Topic;
use service::chain::{Link, counts, verify};
use service::identity::Identity;
use system_tests::{Installation, PATIENCE, baseline, eventually, verdicts};
use uuid::Uuid;

const RULE: &str = "rule_passwd_file_permissions";

fn identity_of(installation: &Installation, name: &str) -> Identity {
    Identity::load(&installation.data.path().join(name).join("identity")).unwrap().unwrap()
}

fn cas(installation: &Installation) -> Vec<Vec<u8>> {
    vec![identity_of(installation, "orchestrator").ca_der]
}

fn kind(link: &Link) -> String {
    let sealed = Sealed::split(link.sealed.as_bytes()).unwrap();
    serde_json::from_slice::<Envelope>(sealed.envelope).unwrap().kind
}

/// The message with another envelope, sealed by somebody.
fn resealed(link: &Link, sealer: &Sealer, change: impl FnOnce(&mut serde_json::Value)) -> Link {
    let sealed = Sealed::split(link.sealed.as_bytes()).unwrap();
    let mut envelope = serde_json::from_slice(sealed.envelope).unwrap();
    change(&mut envelope);
    let sealed = sealer.seal(&serde_json::to_vec(&envelope).unwrap());
    Link { sealed: String::from_utf8(sealed).unwrap(), ..link.clone() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn verdicts_are_followed_back_to_what_was_asked_and_nothing_in_between_can_be_changed() {
    let installation = Installation::complete().await;
    let before = verdicts(&installation.ask(Ask::Evaluate(baseline(60))).await);
    let cas = cas(&installation);
    let links = installation.chain(None, None).await;
    let proven = verify(&links, &cas, None).unwrap();
    assert_eq!(proven.len(), before.len());
    for verdict in &proven {
        assert_eq!(before.get(&verdict.result.rule), Some(&verdict.result.verdict.to_string()));
        assert!(!verdict.evidence.is_empty() || verdict.result.objects.is_empty(), "{verdict:?}");
    }
    let (reports, tasks) = counts(&proven);
    assert!(reports >= 1 && tasks == 2, "{reports} reports, {tasks} requests");

    // A part of it holds by itself, and without any one of its messages it does not.
    let part = installation.chain(None, Some(RULE)).await;
    assert!(part.len() <= links.len());
    assert_eq!(verify(&part, &cas, Some(RULE)).unwrap().len(), 1);
    for missing in 0..part.len() {
        let without: Vec<Link> =
            part.iter().enumerate().filter(|(at, _)| *at != missing).map(|(_, link)| link.clone()).collect();
        assert!(verify(&without, &cas, Some(RULE)).is_err(), "{}", kind(&part[missing]));
    }
    // Nobody's word is changed without its signature.
    for at in 0..part.len() {
        let mut changed = part.clone();
        changed[at].sealed = changed[at].sealed.replacen("\"seq\":", "\"seq\":1", 1);
        let told = verify(&changed, &cas, Some(RULE)).unwrap_err().to_string();
        assert!(told.contains("cannot be believed"), "{told}");
    }
    // Another installation's CA knows none of it.
    let other = Installation::orchestrator().await;
    assert!(verify(&part, &self::cas(&other), Some(RULE)).is_err());

    // And with a signature: the evaluator that lies about its evidence, the collector that says that it was asked
    // something else, somebody who answers for another.
    let evaluator = identity_of(&installation, "pes-evaluator").sealer().unwrap();
    let collector = identity_of(&installation, "pcs-agent").sealer().unwrap();
    let liar = |at: &str, sealer: &Sealer, change: &dyn Fn(&mut serde_json::Value)| {
        let lie = |link: &Link| if kind(link) == at { resealed(link, sealer, change) } else { link.clone() };
        let lied: Vec<Link> = part.iter().map(lie).collect();
        verify(&lied, &cas, Some(RULE)).unwrap_err().to_string()
    };
    let nobody = ContentHash::of(b"nothing that there is").to_string();
    let told = liar("evaluation-results", &evaluator, &|envelope| envelope["body"]["evidence"] = serde_json::json!([]));
    assert!(told.contains("without any evidence"), "{told}");
    let told = liar("evaluation-results", &evaluator, &|envelope| envelope["body"]["task"] = nobody.clone().into());
    assert!(told.contains("is missing"), "{told}");
    let somewhere = Uuid::new_v4().to_string();
    let told =
        liar("evaluation-results", &evaluator, &|envelope| envelope["body"]["endpoint"] = somewhere.clone().into());
    assert!(told.contains("another endpoint"), "{told}");
    let told = liar("evaluation-results", &collector, &|_| {});
    assert!(told.contains("not the component that has signed"), "{told}");
    let own = identity_of(&installation, "pcs-agent").component.to_string();
    let told = liar("evaluation-results", &collector, &|envelope| envelope["from"] = own.clone().into());
    assert!(told.contains("is not of a posture-evaluation-service"), "{told}");
    // Nor are verdicts left out: each part says how many there are.
    let longer = |link: &Link| {
        if kind(link) != "evaluation-results" {
            return link.clone();
        }
        resealed(link, &evaluator, |envelope| {
            let count = envelope["body"]["rule-count"].as_u64().unwrap();
            envelope["body"]["rule-count"] = (count + 1).into();
        })
    };
    let longer: Vec<Link> = links.iter().map(longer).collect();
    let told = verify(&longer, &cas, None).unwrap_err().to_string();
    assert!(told.contains("of 63 verdicts"), "{told}");
    // A report that is sealed anew is another one: what rests on it is gone.
    let told = liar("collection-results", &collector, &|envelope| envelope["body"]["items"] = serde_json::json!([]));
    assert!(told.contains("is missing"), "{told}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn verdicts_on_many_endpoints_that_come_in_one_message_are_followed_back_each_by_itself() {
    let installation = Installation::complete().await;
    let root = tempfile::tempdir().unwrap();
    std::fs::create_dir(root.path().join("etc")).unwrap();
    std::fs::write(root.path().join("etc/machine-id"), "00112233445566778899aabbccddeeff\n").unwrap();
    installation.add_collector("second", root.path()).await;
    installation.wait_for_active(4).await;
    installation.ask(Ask::Evaluate(baseline(60))).await;
    let cas = cas(&installation);
    let links = installation.chain(None, None).await;
    let count = |of: &[Link], wanted: &str| of.iter().filter(|link| kind(link) == wanted).count();
    assert_eq!((count(&links, "fleet-results"), count(&links, "evaluation-results")), (1, 0));
    let proven = verify(&links, &cas, None).unwrap();
    let endpoints: std::collections::BTreeSet<EndpointId> = proven.iter().map(|verdict| verdict.endpoint).collect();
    assert_eq!((endpoints.len(), proven.len() % 2), (2, 0));

    // Of one endpoint, with the reports on that one alone.
    let endpoint = *endpoints.first().unwrap();
    let of_one = installation.chain(Some(endpoint.to_string()), None).await;
    assert!(count(&of_one, "collection-results") < count(&links, "collection-results"));
    let of_it = verify(&of_one, &cas, None).unwrap();
    assert!(of_it.iter().all(|verdict| verdict.endpoint == endpoint) && of_it.len() == proven.len() / 2);
    let part = installation.chain(Some(endpoint.to_string()), Some(RULE)).await;
    assert_eq!(verify(&part, &cas, Some(RULE)).unwrap().len(), 1);
    assert!(part.len() <= of_one.len() && count(&part, "fleet-results") == 1);

    // Whoever says that it is about both lacks the reports on the other.
    let mut more = of_one.clone();
    for link in &mut more {
        link.endpoints.clear();
    }
    let told = verify(&more, &cas, None).unwrap_err().to_string();
    assert!(told.contains("is missing"), "{told}");
    // The evaluator that lies.
    let evaluator = identity_of(&installation, "pes-evaluator").sealer().unwrap();
    let liar = |change: &dyn Fn(&mut serde_json::Value)| {
        let lie = |link: &Link| {
            if kind(link) != "fleet-results" {
                return link.clone();
            }
            resealed(link, &evaluator, |envelope| change(&mut envelope["body"]))
        };
        verify(&of_one.iter().map(lie).collect::<Vec<_>>(), &cas, None).unwrap_err().to_string()
    };
    let told = liar(&|body| {
        body["endpoints"].as_array_mut().unwrap().iter_mut().for_each(|one| one["evidence"] = serde_json::json!([]));
    });
    assert!(told.contains("without any evidence"), "{told}");
    let told = liar(&|body| body["endpoints"][0]["results"][0] = 100_000.into());
    assert!(told.contains("points nowhere"), "{told}");
    let told = liar(&|body| body["endpoints"][1] = body["endpoints"][0].clone());
    assert!(told.contains("there twice"), "{told}");
    let told = liar(&|body| {
        let evidence = body["endpoints"][0]["evidence"].clone();
        body["endpoints"][0]["evidence"] = body["endpoints"][1]["evidence"].clone();
        body["endpoints"][1]["evidence"] = evidence;
    });
    assert!(told.contains("is missing"), "{told}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_schedule_collected_is_followed_back_to_the_schedule() {
    use proto::message::PeriodicOperation;
    let installation = Installation::complete().await;
    let periodic = |operation, at_once| Ask::Periodic {
        operation,
        identifier: "daily".to_owned(),
        schedule: Some(proto::schedule::Schedule::every(86_400)),
        at_once,
        workflow: baseline(60),
    };
    installation.ask(periodic(PeriodicOperation::Schedule, true)).await;
    let stored = || proto::operator::Workflow { is_stored_only: true, ..baseline(60) };
    let proven = eventually("what the schedule collected is evaluated", async || {
        let events = installation.ask(Ask::Evaluate(stored())).await;
        let is_known = verdicts(&events).values().any(|verdict| verdict == "pass");
        if !is_known {
            return None;
        }
        verify(&installation.chain(None, None).await, &cas(&installation), None).ok()
    })
    .await;
    let kinds: Vec<&str> =
        proven.iter().flat_map(|verdict| &verdict.evidence).map(|report| report.asked.kind.as_str()).collect();
    assert!(!kinds.is_empty() && kinds.iter().all(|kind| *kind == "periodic-collection"), "{kinds:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_evaluator_reads_what_it_was_asked_to_evaluate_and_nothing_else() {
    let installation = Installation::orchestrator().await;
    installation.add_repository().await;
    installation.add_collector("pcs-agent", std::path::Path::new("/")).await;
    let mut curious = installation.scripted(ComponentType::PostureEvaluationService, "curious").await;
    installation.wait_for_active(3).await;
    installation.ask(Ask::Collect(baseline(60))).await;
    let repository = identity_of(&installation, "repository").component;
    let ask = Topic::Directed { to: repository, operation: QueryRequest::KIND.to_owned(), from: curious.bus.own() };
    let bus = curious.bus.clone();
    let read = async |transaction: TransactionId, question: QueryRequest| {
        let answer: Result<QueryResponse, _> = bus.request(&ask, &question, Context::of(transaction), PATIENCE).await;
        match answer {
            Ok(answer) => Ok(answer.brief.map_or(answer.rows.len(), |brief| brief.known.len())),
            Err(RequestError::Fault(fault)) => Err(fault.code),
            Err(other) => panic!("{other}"),
        }
    };
    // It is asked to evaluate, like any other.
    let data = installation.data.path().join("orchestrator");
    let workflow = proto::operator::Workflow { is_stored_only: true, ..baseline(60) };
    tokio::spawn(async move { system_tests::ask(&data, Ask::Evaluate(workflow), &[]).await });
    let (transaction, request): (TransactionId, EvaluationRequest) = loop {
        let message = tokio::time::timeout(PATIENCE, curious.inbox.recv()).await.unwrap().unwrap();
        if let Ok(ToEvaluator::EvaluationRequest(request)) = ToEvaluator::decode(message.envelope()) {
            break (message.envelope().transaction, *request);
        }
    };
    let policy = scap::datastream::read(system_tests::BASELINE.to_vec()).unwrap();
    let objects = scap::compile::compile(&policy, None).unwrap().collection.report;
    let asked = QueryRequest {
        request: Some(request.request),
        endpoint: request.targets[0],
        objects: objects[..2].to_vec(),
        as_of: None,
        is_brief: false,
        others: Vec::new(),
    };
    assert_eq!(read(transaction, asked.clone()).await, Ok(2));
    let denied = Err(FaultCode::NotAuthorized);
    let another: proto::plan::ObjectKey = serde_json::from_str("\"obj-00000000000000000000000000000000\"").unwrap();
    assert_eq!(read(transaction, QueryRequest { request: None, ..asked.clone() }).await, denied);
    let invented = Some(RequestId(Uuid::now_v7()));
    assert_eq!(read(transaction, QueryRequest { request: invented, ..asked.clone() }).await, denied);
    assert_eq!(read(TransactionId(Uuid::now_v7()), asked.clone()).await, denied);
    let elsewhere = EndpointId(Uuid::new_v4());
    assert_eq!(read(transaction, QueryRequest { endpoint: elsewhere, ..asked.clone() }).await, denied);
    assert_eq!(read(transaction, QueryRequest { objects: vec![another], ..asked.clone() }).await, denied);
    let beside = |others| QueryRequest { objects: Vec::new(), is_brief: true, others, ..asked.clone() };
    assert_eq!(read(transaction, beside(Vec::new())).await, Ok(objects.len()));
    assert_eq!(read(transaction, beside(vec![elsewhere])).await, denied);
    assert_eq!(read(transaction, beside(vec![elsewhere; 257])).await, Err(FaultCode::TooLarge));
    // Nor what is kept of all: that is for operators.
    let endpoint = request.targets[0];
    let all = ResultsRequest {
        selection: ResultsSelection::Latest,
        verdicts: Vec::new(),
        only_summaries: false,
        after: None,
    };
    let refused = |outcome: Result<(), RequestError>| {
        assert!(
            matches!(&outcome, Err(RequestError::Fault(fault)) if fault.code == FaultCode::NotAuthorized),
            "{outcome:?}"
        );
    };
    let alone = Context::alone;
    refused(bus.request::<_, ResultsResponse>(&ask, &all, alone(), PATIENCE).await.map(drop));
    let changes = ChangesRequest { endpoints: vec![endpoint], before: None, limit: 1, numbers: Vec::new() };
    refused(bus.request::<_, ChangesResponse>(&ask, &changes, alone(), PATIENCE).await.map(drop));
    let search = SearchRequest {
        query: "unix:file".parse().unwrap(),
        objects: Vec::new(),
        decides: Vec::new(),
        endpoints: vec![endpoint],
        as_of: None,
        collected_since: None,
        on_stale: OnStale::Mark,
        content: SearchContent::Data,
        after: None,
    };
    refused(bus.request::<_, SearchResponse>(&ask, &search, alone(), PATIENCE).await.map(drop));
    let chain = ChainRequest { transaction, endpoint, rule: None };
    refused(bus.request::<_, ChainResponse>(&ask, &chain, alone(), PATIENCE).await.map(drop));
    eventually("it is told of", async || {
        let counts = installation.handle.status().await.security_counts;
        counts.iter().any(|(code, _)| code == "security.question-refused").then_some(())
    })
    .await;
}
