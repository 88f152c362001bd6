//! What is past goes when it is old.

use std::collections::BTreeSet;

use jiff::{SignedDuration, Timestamp};
use proto::content::{ContentHash, ContentRef};
use proto::id::RequestId;
use proto::message::{
    ChainRequest, ChangesRequest, EndpointResults, EvaluationResults, Evidence, FleetEvidence, FleetResults,
    ResultsRequest, ResultsSelection,
};
use proto::observation::Flag;
use proto::plan::ObjectKey;
use proto::verdict::Verdict::{self, Fail, Pass};
use repository::retention::{Expired, Retention};
use repository::store::{Incoming, Received, Report, Said, Store, Stored};
use uuid::Uuid;

use super::{Case, OBJECT, One as _, at, is_kept, task_of};

const DAY: i64 = 86_400;

fn days(days: i64) -> SignedDuration {
    SignedDuration::from_secs(days * DAY)
}

/// A tenth of a day is one.
fn day(tenths: i64) -> Timestamp {
    at(tenths * DAY / 10)
}

fn retention() -> Retention {
    Retention { observations: days(10), verdicts: days(400), evaluations: days(30), ..Retention::default() }
}

async fn change_count(case: &Case<'_>) -> usize {
    let request = ChangesRequest { endpoints: vec![case.endpoint], before: None, limit: 100, numbers: Vec::new() };
    case.store.changes(&request).await.unwrap().changes.len()
}

/// Lets everything go that others have left, so that what goes next is one's own.
async fn swept(store: &dyn Store) {
    store.expire(&retention(), day(20_000)).await.unwrap();
}

pub(super) async fn what_is_past_goes_when_it_is_old_and_what_a_verdict_rests_on_stays(store: &dyn Store) {
    swept(store).await;
    let case = Case::new(store).await;
    let value = |name: &str| format!("{name} {}", case.endpoint);
    let seen = async |time: Timestamp| case.value(Some(time)).await.map(|(value, _)| value);
    for (name, tenths) in [("a", 0), ("b", 10), ("c", 20), ("d", 30)] {
        case.collect(&value(name), day(tenths)).await;
    }
    // One that is decided again as it was, and one that is decided anew.
    let decide = async |tenths: i64, verdict: Verdict| {
        let results = case.verdicts(tenths * DAY / 10, &[("rule", verdict)], |_| {});
        case.decide(&results).await
    };
    let (first, again) = (decide(15, Pass).await, decide(16, Pass).await);
    let (anew, newest) = (decide(25, Fail).await, decide(35, Fail).await);
    let is_there = async |transaction| {
        let selection = ResultsSelection::Transaction(transaction);
        let request = ResultsRequest { selection, verdicts: Vec::new(), only_summaries: false, after: None };
        let found = store.results(&request).await.unwrap();
        (found.summaries.len(), found.results.first().map_or(0, Vec::len))
    };

    // Nothing is old.
    assert!(store.expire(&retention(), day(90)).await.unwrap().is_nothing());
    assert_eq!(change_count(&case).await, 3);

    // The observations are; those of the time of a decision stay, and the last one holds.
    let gone = store.expire(&retention(), day(400)).await.unwrap();
    let wanted =
        Expired { observation_count: 1, change_count: 3, item_count: 1, verdict_count: 0, evaluation_count: 1 };
    assert_eq!(gone, wanted);
    assert_eq!((seen(day(5)).await, seen(day(15)).await), (None, Some(value("b"))));
    assert_eq!((seen(day(25)).await, seen(day(9_999)).await), (Some(value("c")), Some(value("d"))));
    assert_eq!(change_count(&case).await, 0);
    assert_eq!(is_there(again).await, (0, 0));
    for transaction in [first, anew, newest] {
        assert_eq!(is_there(transaction).await, (1, 1));
    }
    assert!(store.expire(&retention(), day(400)).await.unwrap().is_nothing());

    // Later the first verdict is old, and with it what it rested on.
    let gone = store.expire(&retention(), day(5_000)).await.unwrap();
    let wanted =
        Expired { observation_count: 1, change_count: 0, item_count: 1, verdict_count: 1, evaluation_count: 1 };
    assert_eq!(gone, wanted);
    assert_eq!((seen(day(15)).await, seen(day(25)).await), (None, Some(value("c"))));
    assert_eq!(is_there(first).await, (0, 0));
    assert_eq!(case.holds().await, [("rule".to_owned(), Fail, Some(25 * DAY / 10))]);
    // What holds, holds for ever.
    assert!(store.expire(&retention(), day(900_000)).await.unwrap().is_nothing());
    assert_eq!(case.holds().await, [("rule".to_owned(), Fail, Some(25 * DAY / 10))]);
    assert_eq!(seen(day(9_999)).await, Some(value("d")));
}

pub(super) async fn what_is_kept_once_goes_with_the_last_that_refers_to_it(store: &dyn Store) {
    swept(store).await;
    let (case, other, decided) = (Case::new(store).await, Case::new(store).await, Case::new(store).await);
    let counts = async || {
        let counts = store.counts().await.unwrap();
        (counts.finding_count, counts.decision_count)
    };
    let (findings, decisions) = counts().await;
    let value = |name: &str| format!("{name} {}", case.endpoint);
    case.collect(&value("a"), day(0)).await;
    other.collect(&value("a"), day(0)).await;
    case.collect(&value("b"), day(10)).await;
    let rule = format!("rule {}", case.endpoint);
    for (tenths, verdict) in [(5, Pass), (15, Fail)] {
        let results = decided.verdicts(tenths * DAY / 10, &[(&rule, verdict)], |_| {});
        decided.decide(&results).await;
    }
    assert_eq!(counts().await, (findings + 2, decisions + 2));
    // One has it no more, and another still does.
    assert_eq!(store.expire(&retention(), day(400)).await.unwrap().observation_count, 1);
    assert_eq!(counts().await, (findings + 2, decisions + 2));
    assert_eq!(other.value(None).await.map(|(value, _)| value), Some(value("a")));
    other.collect(&value("b"), day(410)).await;
    let gone = store.expire(&retention(), day(5_000)).await.unwrap();
    assert_eq!((gone.observation_count, gone.verdict_count), (1, 1));
    assert_eq!(counts().await, (findings + 1, decisions + 1));
    for one in [&case, &other] {
        assert_eq!(one.value(None).await.map(|(value, _)| value), Some(value("b")));
    }
    assert_eq!(decided.holds().await, [(rule, Fail, Some(15 * DAY / 10))]);
}

pub(super) async fn an_evaluation_of_the_past_keeps_what_was_then(store: &dyn Store) {
    swept(store).await;
    let case = Case::new(store).await;
    for (name, tenths) in [("a", 0), ("b", 10), ("c", 20)] {
        case.collect(&format!("{name} {}", case.endpoint), day(tenths)).await;
    }
    let results = case.verdicts(50 * DAY / 10, &[("rule", Pass)], |results| {
        results.about.as_mut().unwrap().is_current = false;
        results.summary.as_mut().unwrap().as_of = Some(day(5));
    });
    case.decide(&results).await;
    let gone = store.expire(&retention(), day(200)).await.unwrap();
    assert_eq!((gone.observation_count, gone.evaluation_count), (1, 0));
    assert!(case.value(Some(day(5))).await.is_some() && case.value(Some(day(15))).await.is_none());
    let gone = store.expire(&retention(), day(400)).await.unwrap();
    assert_eq!((gone.observation_count, gone.evaluation_count), (1, 1));
    assert!(case.value(Some(day(5))).await.is_none() && case.value(None).await.is_some());
}

pub(super) async fn kinds_of_items_have_their_own_time(store: &dyn Store) {
    swept(store).await;
    let case = Case::new(store).await;
    let kinds = [format!("test:k{}", Uuid::new_v4().simple()), format!("test:k{}", Uuid::new_v4().simple())];
    for kind in &kinds {
        for (value, tenths) in [("one", 0), ("two", 10), ("three", 20)] {
            case.has(kind, &format!("obj:{kind}"), &[value], Flag::Complete, day(tenths)).await;
        }
    }
    let own = Retention { observations_of: [(kinds[0].clone(), days(2))].into(), ..retention() };
    // The first has been past for two days, the second for one.
    let gone = store.expire(&own, day(31)).await.unwrap();
    assert_eq!((gone.observation_count, gone.change_count, gone.item_count), (1, 1, 1));
    let gone = store.expire(&own, day(41)).await.unwrap();
    assert_eq!((gone.observation_count, gone.change_count, gone.item_count), (1, 1, 1));
    assert!(store.expire(&own, day(90)).await.unwrap().is_nothing());
    let longer = Retention { observations_of: [(kinds[0].clone(), days(100))].into(), ..retention() };
    let gone = store.expire(&longer, day(200)).await.unwrap();
    assert_eq!((gone.observation_count, gone.change_count, gone.item_count), (2, 2, 2));
}

pub(super) async fn messages_are_kept_as_long_as_something_refers_to_them(store: &dyn Store) {
    swept(store).await;
    let case = Case::new(store).await;
    let [rested, loose, verdicts] =
        ["rested", "loose", "verdicts"].map(|name| Case::report(&format!("{name} {}", case.endpoint)));
    let task = |name: &str| ContentHash::of(format!("{name} {}", case.endpoint).as_bytes());
    let collect = async |value: &str, tenths: i64, report: &Report| {
        let mut results = case.results(&format!("{value} {}", case.endpoint), day(tenths));
        results.task = Some(task(value));
        let received = Received { received: day(tenths), ..case.received() };
        store.record_collection(&results, received, report).await.unwrap();
    };
    collect("a", 0, &rested).await;
    let evidence = Evidence { report: rested.hash.clone(), objects: vec![ObjectKey(OBJECT.to_owned())] };
    let results = case.verdicts(5 * DAY / 10, &[("rule", Pass)], |results: &mut EvaluationResults| {
        results.evidence = vec![evidence.clone()];
        results.task = Some(task("evaluate"));
        results.about.as_mut().unwrap().is_current = false;
    });
    let from = Received { transaction: case.transaction, received: day(5), ..case.received() };
    store.record_evaluation(&results, from, &verdicts).await.unwrap();
    collect("b", 10, &loose).await;
    collect("c", 20, &Case::any_report()).await;
    let tasks = ["a", "b", "c", "evaluate", "nobody"].map(task);
    let referenced = async || store.referenced(&tasks).await.unwrap();
    assert_eq!(referenced().await, tasks[..4]);

    // What the verdict rests on stays with it, also where it is looked up by its message alone.
    let content = async |report: &Report| store.content(&ContentRef::to(&report.packed).sha256).await.unwrap();
    let request = ChainRequest { transaction: case.transaction, endpoint: case.endpoint, rule: None };
    assert_eq!(store.chain(&request).await.unwrap().messages.len(), 2);
    let gone = store.expire(&retention(), day(300)).await.unwrap();
    assert_eq!((gone.observation_count, gone.evaluation_count), (1, 0));
    // Reports go with the next one that is stored.
    collect("c", 310, &Case::any_report()).await;
    assert!(content(&rested).await.is_some() && content(&verdicts).await.is_some() && content(&loose).await.is_none());
    assert_eq!(referenced().await, [task("a"), task("c"), task("evaluate")]);

    let gone = store.expire(&retention(), day(500)).await.unwrap();
    assert_eq!((gone.observation_count, gone.evaluation_count), (1, 1));
    assert_eq!(content(&verdicts).await, None);
    collect("c", 510, &Case::any_report()).await;
    assert_eq!(content(&rested).await, None);
    assert_eq!(referenced().await, [task("c")]);
    assert!(store.chain(&request).await.unwrap().messages.is_empty());
}

pub(super) async fn a_message_about_many_endpoints_is_kept_as_long_as_one_of_them_needs_it(store: &dyn Store) {
    swept(store).await;
    let cases = [Case::new(store).await, Case::new(store).await];
    let transaction = cases[0].transaction;
    let name = |what: &str, case: &Case<'_>| Case::report(&format!("{what} {}", case.endpoint));
    let rested = [name("rested", &cases[0]), name("rested", &cases[1])];
    let (both, verdicts) = (name("both", &cases[0]), name("verdicts", &cases[0]));
    let collect = async |case: &Case<'_>, value: &str, tenths: i64, report: &Report| {
        let results = case.results(&format!("{value} {}", case.endpoint), day(tenths));
        let received = Received { received: day(tenths), ..case.received() };
        store.record_collection(&results, received, report).await.unwrap();
    };
    let mut fleet = FleetResults {
        request: RequestId(Uuid::new_v4()),
        task: task_of(Some(&ContentHash::of(b"task")), &verdicts).unwrap(),
        results: Vec::new(),
        objects: vec![ObjectKey(OBJECT.to_owned())],
        endpoints: Vec::new(),
    };
    // One that was merged: what was found on it is evidence of both.
    collect(&cases[0], "a", -1, &both).await;
    for ((case, report), tenths) in cases.iter().zip(&rested).zip([5, 1_505]) {
        collect(case, "a", 0, report).await;
        let EvaluationResults { results, summary, .. } = case.verdicts(tenths * DAY / 10, &[("rule", Pass)], |_| {});
        let mut summary = summary.unwrap();
        (summary.as_of, summary.transaction) = (Some(summary.evaluated), transaction);
        let position = u32::try_from(fleet.results.len()).unwrap();
        fleet.results.extend(results);
        let rests_on = |report: &Report| FleetEvidence { report: report.hash.clone(), objects: vec![0] };
        let evidence = vec![rests_on(report), rests_on(&both)];
        fleet.endpoints.push(EndpointResults { results: vec![position], evidence, summary });
    }
    let from = Received { transaction, received: day(5), ..cases[0].received() };
    let incoming = Incoming { said: Said::FleetVerdicts(&fleet), from, report: &verdicts };
    assert_eq!(
        store.record(&[incoming]).await.remove(0).unwrap(),
        Stored::New { change_count: 2, changed: Vec::new() }
    );
    // The chain of one has nothing of the other but the message in which the verdicts on both are.
    let chain = async |case: &Case<'_>| -> BTreeSet<ContentHash> {
        let request = ChainRequest { transaction, endpoint: case.endpoint, rule: None };
        store.chain(&request).await.unwrap().messages.into_iter().map(|message| message.hash).collect()
    };
    for (case, report) in cases.iter().zip(&rested) {
        assert_eq!(chain(case).await, [report.hash.clone(), both.hash.clone(), verdicts.hash.clone()].into());
        collect(case, "b", 20, &name("later", case)).await;
    }
    let gone = store.expire(&retention(), day(500)).await.unwrap();
    assert_eq!(gone.evaluation_count, 1);
    collect(&cases[0], "b", 510, &Case::any_report()).await;
    assert!(chain(&cases[0]).await.is_empty() && !is_kept(store, &rested[0]).await);
    assert_eq!(chain(&cases[1]).await, [rested[1].hash.clone(), both.hash.clone(), verdicts.hash.clone()].into());
    let gone = store.expire(&retention(), day(2_000)).await.unwrap();
    assert_eq!(gone.evaluation_count, 1);
    collect(&cases[0], "b", 2_010, &Case::any_report()).await;
    for report in [&rested[1], &both, &verdicts] {
        assert!(!is_kept(store, report).await);
    }
}
