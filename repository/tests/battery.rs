//! One battery of cases for every back end of the store.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeSet;

use jiff::Timestamp;
use proto::content::{ContentHash, ContentRef};
use proto::id::{ComponentId, EndpointId, MessageId, RequestId, TransactionId};
use proto::message::{
    About, Assignment, AuditCheckpoint, ChainRequest, ChangesRequest, CollectedPart, CollectionResults, EndpointAlias,
    EndpointAssignment, EvaluationResults, Evidence, ObjectState, PolicyDescription, ResultsRequest, ResultsSelection,
    StreamPosition,
};
use proto::observation::{EndpointFacts, Flag, Item, ItemEntity, Method};
use proto::plan::ObjectKey;
use proto::verdict::Verdict::{Fail, Pass, Unknown};
use proto::verdict::{EvaluationSummary, RuleResult, Severity, Verdict};
use repository::store::postgres::PostgresStore;
use repository::store::sqlite::SqliteStore;
use repository::store::{Incoming, Received, Report, Said, Store, StoreError, Stored};
use uuid::Uuid;

#[path = "battery/brief.rs"]
mod brief;
#[path = "battery/knowledge.rs"]
mod knowledge;
#[path = "battery/retention.rs"]
mod retention;
#[path = "battery/search.rs"]
mod search;
#[path = "battery/together.rs"]
mod together;

const OBJECT: &str = "obj:one";

/// One report by itself.
trait One {
    async fn record_collection(
        &self,
        results: &CollectionResults,
        from: Received,
        report: &Report,
    ) -> Result<Stored, StoreError>;

    async fn record_evaluation(
        &self,
        results: &EvaluationResults,
        from: Received,
        report: &Report,
    ) -> Result<Stored, StoreError>;
}

impl One for dyn Store + '_ {
    async fn record_collection(
        &self,
        results: &CollectionResults,
        from: Received,
        report: &Report,
    ) -> Result<Stored, StoreError> {
        let results = CollectionResults { task: task_of(results.task.as_ref(), report), ..results.clone() };
        self.record(&[Incoming { said: Said::Observations(&results), from, report }]).await.remove(0)
    }

    async fn record_evaluation(
        &self,
        results: &EvaluationResults,
        from: Received,
        report: &Report,
    ) -> Result<Stored, StoreError> {
        let results = EvaluationResults { task: task_of(results.task.as_ref(), report), ..results.clone() };
        self.record(&[Incoming { said: Said::Verdicts(&results), from, report }]).await.remove(0)
    }
}

/// What a report answers: where nothing else is said, what nobody but it does.
fn task_of(said: Option<&ContentHash>, report: &Report) -> Option<ContentHash> {
    let usual = ContentHash::of(b"task");
    said.map(|said| if *said == usual { ContentHash::of(report.hash.as_str().as_bytes()) } else { said.clone() })
}

/// Whether a report is kept that answers what no other does.
async fn is_kept(store: &dyn Store, report: &Report) -> bool {
    let task = task_of(Some(&ContentHash::of(b"task")), report).unwrap();
    let asked = [task.clone(), ContentHash::of(b"what nobody answers")];
    store.referenced(&asked).await.unwrap() == [task]
}

struct Case<'store> {
    store: &'store dyn Store,
    endpoint: EndpointId,
    sender: ComponentId,
    transaction: TransactionId,
}

fn told(assignment: Assignment) -> EndpointAssignment {
    EndpointAssignment { assignments: vec![assignment], aliases: None }
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_700_000_000 + second).unwrap()
}

impl<'store> Case<'store> {
    /// An endpoint that the sender speaks for.
    async fn new(store: &'store dyn Store) -> Self {
        let case = Self::unassigned(store);
        let assignment = Assignment { collector: case.sender, endpoints: vec![case.endpoint] };
        store.assign(&told(assignment), case.received()).await.unwrap();
        case
    }

    fn unassigned(store: &'store dyn Store) -> Self {
        Self {
            store,
            endpoint: EndpointId(Uuid::new_v4()),
            sender: ComponentId(Uuid::new_v4()),
            transaction: TransactionId(Uuid::new_v4()),
        }
    }

    fn received(&self) -> Received {
        Received {
            sender: self.sender,
            message: MessageId(Uuid::now_v7()),
            transaction: self.transaction,
            received: Timestamp::now(),
        }
    }

    /// Some report.
    fn any_report() -> Report {
        Self::report(&Uuid::new_v4().to_string())
    }

    /// A report with this envelope.
    fn report(envelope: &str) -> Report {
        Report { hash: ContentHash::of(envelope.as_bytes()), packed: envelope.as_bytes().to_vec() }
    }

    fn results(&self, value: &str, collected: Timestamp) -> CollectionResults {
        CollectionResults {
            standing: None,
            task: Some(ContentHash::of(b"task")),
            request: RequestId(Uuid::new_v4()),
            plan: ContentHash::of(b"plan"),
            endpoint: self.endpoint,
            facts: EndpointFacts { host_name: "here".to_owned(), ..EndpointFacts::default() },
            method: Method::SelfReported,
            part: 0,
            is_final: true,
            stream: None,
            items: vec![Item::new("x", vec![ItemEntity::text("value", value)])],
            objects: vec![CollectedPart {
                object: ObjectKey(OBJECT.to_owned()),
                flag: Flag::Complete,
                collected,
                items: vec![0],
                messages: Vec::new(),
            }],
        }
    }

    async fn collect(&self, value: &str, collected: Timestamp) -> Stored {
        self.store
            .record_collection(&self.results(value, collected), self.received(), &Case::any_report())
            .await
            .unwrap()
    }

    async fn value(&self, as_of: Option<Timestamp>) -> Option<(String, Timestamp)> {
        let page = self.query(&[ObjectKey(OBJECT.to_owned())], as_of).await;
        let row = page.rows.first()?;
        Some((page.items[row.items[0] as usize].value("value")?.to_owned(), row.collected))
    }
}

fn added(change_count: u64) -> Stored {
    Stored::New { change_count, changed: Vec::new() }
}

fn position(epoch: Uuid, sequence: u64) -> StreamPosition {
    StreamPosition { observation_identifier: "files".to_owned(), epoch, sequence, is_baseline: sequence == 1 }
}

async fn battery(store: &dyn Store) {
    a_message_has_its_effect_once(store).await;
    what_is_unchanged_is_seen_later_and_what_changes_is_history(store).await;
    what_was_seen_earlier_never_overwrites_what_was_seen_later(store).await;
    what_is_not_there_is_missing(store).await;
    brief::what_is_known_by_its_hash_is_what_is_known(store).await;
    knowledge::cases(store).await;
    together::what_is_stored_together_is_what_is_stored_one_after_the_other(store).await;
    only_who_speaks_for_an_endpoint_is_believed(store).await;
    a_change_shows_both_sides_and_where_it_came_from(store).await;
    reports_that_are_missing_are_counted(store).await;
    verdicts_count_once_however_often_they_come(store).await;
    a_verdict_has_a_time_since_when_it_holds(store).await;
    what_was_decided_in_part_leaves_the_rest_as_it_is_and_a_new_policy_lets_old_rules_go(store).await;
    what_was_decided_by_a_clock_that_was_ahead_does_not_outlive_what_is_decided_afterwards(store).await;
    verdicts_come_in_pages(store).await;
    what_is_missing_or_stale_is_named(store).await;
    verdicts_lead_back_to_the_reports_that_they_rest_on(store).await;
    an_endpoint_that_was_another_is_known_with_it_until_they_are_taken_apart(store).await;
    a_policy_is_kept_with_its_content(store).await;
    pages_end_and_go_on(store).await;
    what_was_said_of_a_log_is_remembered(store).await;
    search::a_condition_finds_items_on_the_endpoints_that_have_them(store).await;
    search::what_was_so_at_a_time_is_found_at_that_time_and_what_is_old_is_stale(store).await;
    search::whoever_looked_last_is_right_and_merged_endpoints_are_one(store).await;
    search::answers_come_in_pages_that_end_behind_an_endpoint(store).await;
    search::verdicts_that_hold_are_found_by_what_they_are(store).await;
    retention::what_is_past_goes_when_it_is_old_and_what_a_verdict_rests_on_stays(store).await;
    retention::what_is_kept_once_goes_with_the_last_that_refers_to_it(store).await;
    retention::an_evaluation_of_the_past_keeps_what_was_then(store).await;
    retention::kinds_of_items_have_their_own_time(store).await;
    retention::messages_are_kept_as_long_as_something_refers_to_them(store).await;
    retention::a_message_about_many_endpoints_is_kept_as_long_as_one_of_them_needs_it(store).await;
}

async fn what_was_said_of_a_log_is_remembered(store: &dyn Store) {
    let case = Case::new(store).await;
    let point = |number: u64, text: &str| AuditCheckpoint { number, hash: ContentHash::of(text.as_bytes()) };
    let from = case.received();
    for told in [point(2, "two"), point(5, "five"), point(2, "two"), point(0, "only a question")] {
        store.witness(&told, from).await.unwrap();
    }
    // A log that was written anew does not replace what was said before, whoever says it.
    let other = Received { sender: ComponentId(Uuid::new_v4()), ..from };
    assert_eq!(store.witness(&point(2, "another"), other).await.unwrap(), []);
    let known = store.witness(&point(0, ""), from).await.unwrap();
    for told in [point(2, "two"), point(2, "another"), point(5, "five")] {
        assert!(known.contains(&told), "{known:?}");
    }
}

async fn a_message_has_its_effect_once(store: &dyn Store) {
    let case = Case::new(store).await;
    let (results, received) = (case.results("a", at(0)), case.received());
    assert_eq!(store.record_collection(&results, received, &Case::any_report()).await.unwrap(), added(1));
    let before = store.counts().await.unwrap();
    assert_eq!(store.record_collection(&results, received, &Case::any_report()).await.unwrap(), Stored::Again);
    assert_eq!(store.counts().await.unwrap(), before);
}

async fn what_is_unchanged_is_seen_later_and_what_changes_is_history(store: &dyn Store) {
    let case = Case::new(store).await;
    let before = store.counts().await.unwrap();
    assert_eq!(case.collect("a", at(0)).await, added(1));
    assert_eq!(case.collect("a", at(10)).await, added(0));
    assert_eq!(case.value(None).await, Some(("a".to_owned(), at(10))));
    assert!(matches!(case.collect("b", at(20)).await, Stored::New { change_count: 1, changed } if changed.len() == 1));
    assert_eq!(case.value(None).await.unwrap().0, "b");
    assert_eq!(case.value(Some(at(15))).await.unwrap().0, "a");
    assert_eq!(case.value(Some(at(20))).await.unwrap().0, "b");
    assert_eq!(case.value(Some(at(-1))).await, None);
    let after = store.counts().await.unwrap();
    assert_eq!((after.change_count - before.change_count, after.past_count - before.past_count), (1, 1));
}

async fn what_was_seen_earlier_never_overwrites_what_was_seen_later(store: &dyn Store) {
    let case = Case::new(store).await;
    case.collect("new", at(100)).await;
    assert_eq!(case.collect("old", at(50)).await, added(0));
    assert_eq!(case.value(None).await, Some(("new".to_owned(), at(100))));
}

async fn only_who_speaks_for_an_endpoint_is_believed(store: &dyn Store) {
    let case = Case::unassigned(store);
    let record = async |case: &Case<'_>| {
        store.record_collection(&case.results("a", at(0)), case.received(), &Case::any_report()).await
    };
    assert!(matches!(record(&case).await, Err(StoreError::Unassigned(endpoint)) if endpoint == case.endpoint));
    let assign = async |collector, endpoints| {
        store.assign(&told(Assignment { collector, endpoints }), case.received()).await.unwrap();
    };
    assign(case.sender, vec![case.endpoint]).await;
    assert!(record(&case).await.is_ok());
    let liar = Case { sender: ComponentId(Uuid::new_v4()), store, ..case };
    assert!(matches!(record(&liar).await, Err(StoreError::NotAssigned(_))));
    assert_eq!(case.value(None).await.unwrap().0, "a");
    // What was said earlier and comes late changes nothing.
    let earlier = Received { message: MessageId(Uuid::nil()), ..case.received() };
    let nothing = Assignment { collector: case.sender, endpoints: Vec::new() };
    store.assign(&told(nothing), earlier).await.unwrap();
    assert!(record(&case).await.is_ok());
    // Another collector takes the endpoint over, because the orchestrator says so.
    assign(liar.sender, vec![case.endpoint]).await;
    assert!(record(&liar).await.is_ok());
    assert!(matches!(record(&case).await, Err(StoreError::NotAssigned(_))));
    assign(liar.sender, Vec::new()).await;
    assert!(matches!(record(&liar).await, Err(StoreError::Unassigned(_))));
}

async fn a_change_shows_both_sides_and_where_it_came_from(store: &dyn Store) {
    let case = Case::new(store).await;
    case.collect("a", at(0)).await;
    case.collect("a", at(5)).await;
    let stream = position(Uuid::new_v4(), 2);
    let results = CollectionResults { stream: Some(stream.clone()), ..case.results("b", at(20)) };
    store.record_collection(&results, case.received(), &Case::any_report()).await.unwrap();
    // Seen once more: the change stays where it was.
    case.collect("b", at(25)).await;
    case.collect("c", at(30)).await;
    let request = ChangesRequest { endpoints: vec![case.endpoint], before: None, limit: 1, numbers: Vec::new() };
    let page = store.changes(&request).await.unwrap();
    let values = |state: &ObjectState| {
        state.items.iter().filter_map(|item| item.value("value").map(str::to_owned)).collect::<Vec<_>>()
    };
    assert_eq!(page.changes.len(), 1);
    assert_eq!(
        (values(page.changes[0].past.as_ref().unwrap()), values(&page.changes[0].current)),
        (vec!["b".to_owned()], vec!["c".to_owned()])
    );
    // The first time that something is seen is not a change of it.
    let page = store.changes(&ChangesRequest { before: page.next, limit: 10, ..request }).await.unwrap();
    assert_eq!((page.changes.len(), page.next), (1, None));
    let change = &page.changes[0];
    let past = change.past.as_ref().unwrap();
    assert_eq!((past.seen, change.collected, change.stream.clone()), (at(5), at(20), Some(stream)));
    let numbered = async |is_whole| store.changes_numbered(&[change.change, 1_000_000], is_whole).await.unwrap();
    assert_eq!(numbered(true).await, std::slice::from_ref(change));
    assert!(!change.is_brief());
    let by_number =
        ChangesRequest { endpoints: Vec::new(), before: None, limit: 1, numbers: vec![1_000_000, change.change] };
    assert_eq!(store.changes(&by_number).await.unwrap().changes, std::slice::from_ref(change));
    // Where many are told they say that there are items, and not which.
    let [brief] = &numbered(false).await[..] else { panic!("one change") };
    let without = |state: &ObjectState| ObjectState { items: Vec::new(), ..state.clone() };
    let expected = change.past.as_ref().map(without);
    assert_eq!(
        (brief.past.clone(), brief.current.clone(), brief.is_brief()),
        (expected, without(&change.current), true)
    );
}

async fn reports_that_are_missing_are_counted(store: &dyn Store) {
    let case = Case::new(store).await;
    let (old, new) = (Uuid::new_v4(), Uuid::new_v4());
    // What the collector made before it was started anew comes last.
    for (epoch, sequence) in [(new, 1), (old, 1), (old, 2), (new, 3)] {
        let results = CollectionResults { stream: Some(position(epoch, sequence)), ..case.results("a", at(0)) };
        let made = uuid::Timestamp::from_unix(uuid::NoContext, if epoch == old { 1_000 } else { 2_000 }, 0);
        let received = Received { message: MessageId(Uuid::new_v7(made)), ..case.received() };
        for _ in 0..2 {
            store.record_collection(&results, received, &Case::any_report()).await.unwrap();
        }
    }
    let page = store
        .changes(&ChangesRequest { endpoints: Vec::new(), before: None, limit: 1, numbers: Vec::new() })
        .await
        .unwrap();
    let stream = page.streams.iter().find(|stream| stream.origin == case.sender).unwrap();
    assert_eq!((stream.epoch, stream.highest, stream.received), (new, 3, 2), "number 2 is missing");
}

async fn what_is_not_there_is_missing(store: &dyn Store) {
    let case = Case::new(store).await;
    let objects = vec![ObjectKey("obj:none".to_owned())];
    let page = case.query(&objects, None).await;
    assert_eq!((page.missing, page.answered), (objects, 1));
}

impl Case<'_> {
    /// Verdicts of a policy's evaluation that was made then.
    fn verdicts(
        &self,
        second: i64,
        verdicts: &[(&str, Verdict)],
        change: impl Fn(&mut EvaluationResults),
    ) -> EvaluationResults {
        let result = |(rule, verdict): &(&str, Verdict)| RuleResult {
            found: vec!["x".to_owned()],
            ..RuleResult::new(rule, "A rule", Severity::High, *verdict)
        };
        let content = Some(ContentHash::of(b"policy"));
        let mut results = EvaluationResults {
            task: Some(ContentHash::of(b"task")),
            about: Some(About {
                policy: "policy".to_owned(),
                profile: "(default)".to_owned(),
                evaluated: at(second),
                content: content.clone(),
                part_count: 1,
                is_current: true,
                is_partial: false,
            }),
            evidence: Vec::new(),
            request: RequestId(Uuid::new_v4()),
            endpoint: self.endpoint,
            part: 0,
            rule_count: u32::try_from(verdicts.len()).unwrap(),
            results: verdicts.iter().map(result).collect(),
            summary: Some(EvaluationSummary {
                transaction: self.transaction,
                endpoint: self.endpoint,
                policy: "policy".to_owned(),
                profile: "(default)".to_owned(),
                evaluated: at(second),
                oldest_collected: None,
                evaluator: self.sender,
                score: Some(100.0),
                counts: Vec::new(),
                as_of: None,
                collected_since: None,
                is_fresh: Some(true),
                content,
                verdicts: String::new(),
                is_partial: false,
                knowledge: None,
            }),
        };
        change(&mut results);
        results
    }

    /// Stores them as those of a workflow of their own.
    async fn decide(&self, results: &EvaluationResults) -> TransactionId {
        let transaction = TransactionId(Uuid::now_v7());
        let mut results = results.clone();
        if let Some(summary) = &mut results.summary {
            summary.transaction = transaction;
        }
        let from = Received { transaction, ..self.received() };
        self.store.record_evaluation(&results, from, &Self::any_report()).await.unwrap();
        transaction
    }

    /// Rules with their verdicts, and since when they have them.
    async fn held(&self, selection: ResultsSelection) -> Vec<(String, Verdict, Option<i64>)> {
        let request = ResultsRequest { selection, verdicts: Vec::new(), only_summaries: false, after: None };
        let found = self.store.results(&request).await.unwrap();
        assert_eq!(found.summaries.len(), 1, "{found:?}");
        let second = |time: Timestamp| time.as_second() - at(0).as_second();
        let of = |result: &RuleResult| (result.rule.clone(), result.verdict, result.since.map(second));
        found.results[0].iter().map(of).collect()
    }

    async fn holds(&self) -> Vec<(String, Verdict, Option<i64>)> {
        self.held(ResultsSelection::Endpoint(self.endpoint)).await
    }
}

fn rows(rows: &[(&str, Verdict, Option<i64>)]) -> Vec<(String, Verdict, Option<i64>)> {
    rows.iter().map(|(rule, verdict, since)| ((*rule).to_owned(), *verdict, *since)).collect()
}

async fn verdicts_count_once_however_often_they_come(store: &dyn Store) {
    let case = Case::new(store).await;
    let before = store.counts().await.unwrap().result_count;
    let verdicts = case.verdicts(0, &[("rule", Fail)], |_| {});
    for _ in 0..2 {
        // Another message each time: an evaluator that was killed does it again.
        store.record_evaluation(&verdicts, case.received(), &Case::any_report()).await.unwrap();
    }
    assert_eq!(store.counts().await.unwrap().result_count - before, 1);
    assert_eq!(case.holds().await, rows(&[("rule", Fail, Some(0))]));
    let ask = |verdicts| ResultsRequest {
        selection: ResultsSelection::Endpoint(case.endpoint),
        verdicts,
        only_summaries: false,
        after: None,
    };
    assert!(store.results(&ask(vec![Pass])).await.unwrap().results[0].is_empty());
}

async fn a_verdict_has_a_time_since_when_it_holds(store: &dyn Store) {
    let case = Case::new(store).await;
    let first = case.decide(&case.verdicts(0, &[("a", Pass), ("b", Fail)], |_| {})).await;
    case.decide(&case.verdicts(10, &[("a", Pass), ("b", Pass)], |_| {})).await;
    assert_eq!(case.holds().await, rows(&[("a", Pass, Some(0)), ("b", Pass, Some(10))]));
    // What was found may change, and the verdict still be the same.
    let found_otherwise = case.verdicts(20, &[("a", Pass), ("b", Pass)], |results| results.results[1].found.clear());
    case.decide(&found_otherwise).await;
    assert_eq!(case.holds().await, rows(&[("a", Pass, Some(0)), ("b", Pass, Some(10))]));
    // What held when a workflow was done can still be asked for.
    assert_eq!(
        case.held(ResultsSelection::Transaction(first)).await,
        rows(&[("a", Pass, Some(0)), ("b", Fail, Some(0))])
    );
    // What comes late, and what is as of the past, changes nothing of what holds.
    let late = case.decide(&case.verdicts(15, &[("a", Fail), ("b", Fail)], |_| {})).await;
    let past = case.verdicts(30, &[("a", Unknown), ("b", Unknown)], |results| {
        results.about.as_mut().unwrap().is_current = false;
    });
    let past = case.decide(&past).await;
    assert_eq!(case.holds().await, rows(&[("a", Pass, Some(0)), ("b", Pass, Some(10))]));
    assert_eq!(case.held(ResultsSelection::Transaction(late)).await, rows(&[("a", Fail, None), ("b", Fail, None)]));
    assert_eq!(
        case.held(ResultsSelection::Transaction(past)).await,
        rows(&[("a", Unknown, None), ("b", Unknown, None)])
    );
    assert_eq!(case.newest_summary().await.evaluated, at(20));
}

async fn what_was_decided_in_part_leaves_the_rest_as_it_is_and_a_new_policy_lets_old_rules_go(store: &dyn Store) {
    let case = Case::new(store).await;
    case.decide(&case.verdicts(0, &[("a", Pass), ("b", Fail)], |_| {})).await;
    let part = case.verdicts(10, &[("b", Pass)], |results| {
        results.about.as_mut().unwrap().is_partial = true;
        results.summary.as_mut().unwrap().is_partial = true;
    });
    case.decide(&part).await;
    assert_eq!(case.holds().await, rows(&[("a", Pass, Some(0)), ("b", Pass, Some(10))]));
    // An evaluation of everything that read before that does not undo it, and one of another part is not kept out by it.
    let late = case.verdicts(5, &[("a", Fail), ("b", Fail)], |_| {});
    case.decide(&late).await;
    assert_eq!(case.holds().await, rows(&[("a", Fail, Some(5)), ("b", Pass, Some(10))]));
    let another = case.verdicts(8, &[("a", Pass)], |results| {
        results.about.as_mut().unwrap().is_partial = true;
        results.summary.as_mut().unwrap().is_partial = true;
    });
    case.decide(&another).await;
    assert_eq!(case.holds().await, rows(&[("a", Pass, Some(8)), ("b", Pass, Some(10))]));
    let other = case.verdicts(20, &[("b", Pass), ("c", Fail)], |results| {
        results.about.as_mut().unwrap().content = Some(ContentHash::of(b"another version"));
    });
    case.decide(&other).await;
    assert_eq!(case.holds().await, rows(&[("b", Pass, Some(10)), ("c", Fail, Some(20))]));
}

async fn what_was_decided_by_a_clock_that_was_ahead_does_not_outlive_what_is_decided_afterwards(store: &dyn Store) {
    for is_partial in [false, true] {
        let case = Case::new(store).await;
        case.decide(&case.verdicts(0, &[("a", Pass), ("b", Pass)], |_| {})).await;
        let began = Timestamp::now();
        let decided = |seconds: i64, verdict: Verdict, is_partial: bool| {
            let evaluated = began + jiff::SignedDuration::from_secs(seconds);
            case.verdicts(0, &[("a", verdict)], move |results| {
                let (about, summary) = (results.about.as_mut().unwrap(), results.summary.as_mut().unwrap());
                (about.evaluated, about.is_partial) = (evaluated, is_partial);
                (summary.evaluated, summary.is_partial) = (evaluated, is_partial);
            })
        };
        let a = async || case.holds().await.into_iter().find(|(rule, ..)| rule == "a").map(|(_, verdict, _)| verdict);
        case.decide(&decided(240, Fail, is_partial)).await;
        assert_eq!(a().await, Some(Fail));
        // Its clock was set back, or somebody else does the work: each is later than the one before.
        let first = case.decide(&decided(-1, Pass, false)).await;
        assert_eq!(a().await, Some(Pass));
        case.decide(&decided(0, Fail, true)).await;
        assert_eq!(a().await, Some(Fail));
        case.decide(&decided(0, Pass, true)).await;
        assert_eq!(a().await, Some(Pass));
        assert_eq!(case.held(ResultsSelection::Transaction(first)).await[0].1, Pass);
        let newest = case.newest_summary().await;
        assert!(newest.evaluated > began + jiff::SignedDuration::from_secs(240), "{newest:?}");
        // What is of a time that has come is not overtaken by what comes late.
        let case = Case::new(store).await;
        let decided = |seconds: i64, verdict: Verdict| {
            let evaluated = began - jiff::SignedDuration::from_secs(seconds);
            case.verdicts(0, &[("a", verdict)], move |results| {
                results.about.as_mut().unwrap().evaluated = evaluated;
                results.summary.as_mut().unwrap().evaluated = evaluated;
            })
        };
        case.decide(&decided(10, Pass)).await;
        case.decide(&decided(20, Fail)).await;
        assert_eq!(case.holds().await[0].1, Pass);
    }
}

async fn verdicts_come_in_pages(store: &dyn Store) {
    let cases = [Case::new(store).await, Case::new(store).await];
    let transaction = TransactionId(Uuid::now_v7());
    for case in &cases {
        let many: Vec<(String, Verdict)> = (0..300).map(|number| (format!("rule {number}"), Fail)).collect();
        let many: Vec<(&str, Verdict)> = many.iter().map(|(rule, verdict)| (rule.as_str(), *verdict)).collect();
        let long = case.verdicts(0, &many, |results| {
            results.results.iter_mut().for_each(|result| result.found = vec!["x".repeat(2_000)]);
        });
        let from = Received { transaction, ..case.received() };
        store.record_evaluation(&long, from, &Case::any_report()).await.unwrap();
    }
    let mut after = None;
    let mut pages = Vec::new();
    loop {
        let selection = ResultsSelection::Transaction(transaction);
        let request = ResultsRequest { selection, verdicts: Vec::new(), only_summaries: false, after };
        let page = store.results(&request).await.unwrap();
        assert_eq!(page.summaries.len(), page.results.len());
        pages.push(page.results.iter().map(Vec::len).collect::<Vec<_>>());
        assert_eq!(page.is_cut, page.next.is_some());
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    assert_eq!(pages, [[300], [300]]);
}

async fn what_is_missing_or_stale_is_named(store: &dyn Store) {
    let (case, unknown) = (Case::new(store).await, Case::new(store).await);
    let other = ObjectKey("obj:two".to_owned());
    let objects: BTreeSet<ObjectKey> = [ObjectKey(OBJECT.to_owned()), other.clone()].into();
    case.collect("a", at(100)).await;
    let stale = async |since: i64| {
        let asked = [case.endpoint, unknown.endpoint];
        let answer = store.stale(&asked, &objects, at(since)).await.unwrap();
        assert_eq!(answer.answered, 2);
        answer.stale.into_iter().map(|one| (one.endpoint, one.objects)).collect::<Vec<_>>()
    };
    // Everything of whom nothing is known: no object is named.
    assert_eq!(stale(100).await, [(case.endpoint, vec![other]), (unknown.endpoint, Vec::new())]);
    assert_eq!(stale(101).await, [(case.endpoint, Vec::new()), (unknown.endpoint, Vec::new())]);
    // Seen again, it is fresh, though it is as it was.
    case.collect("a", at(200)).await;
    assert_eq!(stale(150).await[0].1.len(), 1);
}

async fn an_endpoint_that_was_another_is_known_with_it_until_they_are_taken_apart(store: &dyn Store) {
    let (before, after) = (Case::new(store).await, Case::new(store).await);
    before.collect("as it was", at(0)).await;
    let say = async |aliases: Vec<EndpointAlias>, from: Received| {
        store.assign(&EndpointAssignment { assignments: Vec::new(), aliases: Some(aliases) }, from).await.unwrap();
    };
    let (early, late) = (after.received(), after.received());
    let alias = EndpointAlias { endpoint: before.endpoint, of: after.endpoint };
    assert_eq!(after.value(None).await, None);
    say(vec![alias.clone()], late).await;
    assert_eq!(after.value(None).await, Some(("as it was".to_owned(), at(0))));
    // What it has been since is newer; what it was is still its past.
    after.collect("as it is", at(100)).await;
    assert_eq!(after.value(None).await, Some(("as it is".to_owned(), at(100))));
    assert_eq!(after.value(Some(at(50))).await, Some(("as it was".to_owned(), at(0))));
    // What it was asked about before, under its own label, may come in late.
    let nothing = Assignment { collector: before.sender, endpoints: Vec::new() };
    store.assign(&told(nothing), before.received()).await.unwrap();
    let late_report = before.results("on its way", at(110));
    let speaker = after.received();
    store.record_collection(&late_report, speaker, &Case::any_report()).await.unwrap();
    assert_eq!(after.value(None).await, Some(("on its way".to_owned(), at(110))));
    // A message that was overtaken takes nothing back.
    say(Vec::new(), early).await;
    assert_eq!(after.value(Some(at(50))).await.unwrap().0, "as it was");
    say(Vec::new(), after.received()).await;
    assert_eq!(after.value(Some(at(50))).await, None);
    assert_eq!(before.value(None).await, Some(("on its way".to_owned(), at(110))));
}

async fn verdicts_lead_back_to_the_reports_that_they_rest_on(store: &dyn Store) {
    let case = Case::new(store).await;
    let object = ObjectKey(OBJECT.to_owned());
    let [first, confirmed, later] =
        ["first", "confirmed", "later"].map(|name| Case::report(&format!("{name} {}", case.endpoint)));
    let collect = async |value: &str, second: i64, hour: i64, report: &Report| {
        let received = Received { received: at(3_600 * hour), ..case.received() };
        store.record_collection(&case.results(value, at(second)), received, report).await.unwrap();
    };
    let reported = async || case.query(std::slice::from_ref(&object), None).await.rows[0].report.clone().unwrap();
    let is_kept = async |report: &Report| is_kept(store, report).await;
    let content = async |report: &Report| store.content(&ContentRef::to(&report.packed).sha256).await.unwrap();
    collect("a", 0, 0, &first).await;
    assert_eq!(reported().await, first.hash);
    // The evaluator has read the first report when a second one confirms what it says.
    collect("a", 10, 0, &confirmed).await;
    assert_eq!(reported().await, confirmed.hash);
    let verdicts = Case::any_report();
    let results = EvaluationResults {
        request: RequestId(Uuid::new_v4()),
        task: Some(ContentHash::of(b"task")),
        endpoint: case.endpoint,
        about: None,
        part: 0,
        rule_count: 1,
        results: vec![RuleResult::new("rule_that_rests", "t", Severity::Low, Pass)],
        evidence: vec![Evidence { report: first.hash.clone(), objects: vec![object.clone()] }],
        summary: None,
    };
    store.record_evaluation(&results, case.received(), &verdicts).await.unwrap();
    // Long after, what nothing refers to is gone; what the verdict rests on is there.
    collect("a", 20, 2, &later).await;
    collect("b", 30, 4, &Case::any_report()).await;
    assert!(is_kept(&first).await && is_kept(&verdicts).await && is_kept(&later).await);
    assert!(!is_kept(&confirmed).await);
    let chain = async |rule: Option<&str>| {
        let rule = rule.map(str::to_owned);
        let request = ChainRequest { transaction: case.transaction, endpoint: case.endpoint, rule };
        let mut hashes: Vec<ContentHash> =
            store.chain(&request).await.unwrap().messages.into_iter().map(|message| message.hash).collect();
        hashes.sort();
        hashes
    };
    let mut wanted = vec![first.hash.clone(), verdicts.hash.clone()];
    wanted.sort();
    // A message can be had once somebody was told of it.
    assert_eq!((content(&first).await, content(&verdicts).await), (None, None));
    assert_eq!(chain(None).await, wanted);
    for told in [&first, &verdicts] {
        assert_eq!(content(told).await.as_ref(), Some(&told.packed));
    }
    assert_eq!(content(&later).await, None);
    assert_eq!(chain(Some("that_rests")).await, wanted);
    // An evaluation is kept as it came: whoever wants one rule of it finds it in there.
    assert_eq!(chain(Some("another_rule")).await, wanted);
}

async fn a_policy_is_kept_with_its_content(store: &dyn Store) {
    let case = Case::new(store).await;
    let bytes = Uuid::new_v4().as_bytes().to_vec();
    let name = format!("policy-{}", Uuid::new_v4());
    let policy = |version: &str| PolicyDescription {
        name: name.clone(),
        benchmark: "b".to_owned(),
        title: "t".to_owned(),
        version: version.to_owned(),
        content: ContentRef::to(&bytes),
        source_sha256: ContentHash::of(b"source"),
        rule_count: 1,
        profiles: Vec::new(),
        imported: Timestamp::now(),
        number: None,
        platforms: Vec::new(),
        is_waiting: false,
        activated: None,
        supersedes: None,
        signed_by: None,
        derived_from: None,
    };
    for version in ["1", "2"] {
        store.record_policy(&policy(version), &bytes, case.received()).await.unwrap();
    }
    // What waits is kept, and is not the policy; what comes into force again is, however old it is.
    let waiting = PolicyDescription { content: ContentRef::to(b"3"), is_waiting: true, ..policy("3") };
    store.record_policy(&waiting, b"3", case.received()).await.unwrap();
    assert!(store.content(&waiting.content.sha256).await.unwrap().is_some());
    let known = store.policies().await.unwrap();
    let versions: Vec<&str> =
        known.iter().filter(|policy| policy.name == name).map(|policy| policy.version.as_str()).collect();
    assert_eq!(versions, ["2"]);
    assert_eq!(store.content(&ContentHash::of(&bytes)).await.unwrap(), Some(bytes));
    assert_eq!(store.content(&ContentHash::of(b"nothing")).await.unwrap(), None);
}

async fn pages_end_and_go_on(store: &dyn Store) {
    let case = Case::new(store).await;
    let mut results = case.results("x", at(0));
    results.items = (0..8)
        .map(|at| Item::new("x", vec![ItemEntity::text("value", format!("{at}{}", "y".repeat(60_000)))]))
        .collect();
    results.objects = (0..8)
        .map(|number| CollectedPart {
            object: ObjectKey(format!("obj:{number}")),
            flag: Flag::Complete,
            collected: at(0),
            items: vec![number],
            messages: Vec::new(),
        })
        .collect();
    store.record_collection(&results, case.received(), &Case::any_report()).await.unwrap();
    let objects: Vec<ObjectKey> = results.objects.iter().map(|part| part.object.clone()).collect();
    let (mut seen, mut asked) = (0, 0);
    while seen < objects.len() {
        let page = case.query(&objects[seen..], None).await;
        assert!(page.answered > 0);
        seen += usize::try_from(page.answered).unwrap();
        asked += 1;
    }
    assert!(asked > 1, "eight times 60 kB fit into one page");
}

#[tokio::test]
async fn sqlite_passes_the_battery_and_keeps_everything_over_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("repository.db");
    let store = SqliteStore::open(&path).await.unwrap();
    battery(&store).await;
    together::what_cannot_be_stored_keeps_no_other_away(&store, false).await;
    let counts = store.counts().await.unwrap();
    store.close().await;
    assert_eq!(SqliteStore::open(&path).await.unwrap().counts().await.unwrap(), counts);
}

#[tokio::test]
async fn postgresql_passes_the_battery() {
    let Ok(url) = std::env::var("MUSTER_TEST_POSTGRES") else {
        assert!(std::env::var_os("MUSTER_REQUIRE_POSTGRES").is_none(), "PostgreSQL is required here and is missing");
        skipped("MUSTER_TEST_POSTGRES is not set: PostgreSQL was not tested");
        return;
    };
    let store = PostgresStore::open(&url.parse().unwrap()).await.unwrap();
    battery(&store).await;
    together::what_cannot_be_stored_keeps_no_other_away(&store, true).await;
}

#[tokio::test]
async fn a_database_of_a_newer_program_or_a_broken_one_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("junk.db");
    std::fs::write(&path, vec![7_u8; 8192]).unwrap();
    assert!(SqliteStore::open(&path).await.is_err());
    assert!(SqliteStore::open(&directory.path().join("no/such/place.db")).await.is_err());
}

/// Says that a test did nothing, past the capture of its output.
fn skipped(why: &str) {
    use std::io::Write as _;
    let _ = writeln!(std::io::stderr(), "SKIPPED: {why}");
}
