//! Questions over all endpoints.

use std::collections::BTreeMap;

use jiff::Timestamp;
use oval::condition::Matcher;
use proto::id::{ComponentId, EndpointId, TransactionId};
use proto::message::{
    Assignment, CollectedPart, CollectionResults, EndpointAlias, EndpointAssignment, OnStale, SearchContent,
    SearchOutcome, SearchRequest, SearchResponse,
};
use proto::observation::{Flag, Item, ItemEntity};
use proto::plan::ObjectKey;
use proto::query::PostureQuery;
use proto::verdict::Verdict::{Fail, Pass, Unknown};
use repository::store::Store;
use uuid::Uuid;

use super::{Case, One as _, at, told};

/// A question on a kind that this battery alone uses, so that what others store is not found.
fn question(kind: &str, condition: &str, endpoints: &[EndpointId]) -> SearchRequest {
    let query: PostureQuery = format!("{kind} where {condition}").parse().unwrap();
    SearchRequest {
        query,
        objects: Vec::new(),
        decides: Vec::new(),
        endpoints: endpoints.to_vec(),
        as_of: None,
        collected_since: None,
        on_stale: OnStale::Mark,
        content: SearchContent::Data,
        after: None,
    }
}

/// The same, where this object finds everything that is asked for.
fn decided_by(request: &SearchRequest, object: &str) -> SearchRequest {
    SearchRequest { decides: vec![ObjectKey(object.to_owned())], ..request.clone() }
}

async fn search(store: &dyn Store, request: &SearchRequest) -> SearchResponse {
    let matcher = Matcher::new(request.query.condition.as_ref()).unwrap();
    store.search(request, &matcher).await.unwrap()
}

fn outcomes(response: &SearchResponse) -> BTreeMap<EndpointId, (u64, SearchOutcome)> {
    response.endpoints.iter().map(|one| (one.endpoint, (one.matched, one.outcome))).collect()
}

/// What is found, as text.
fn found(response: &SearchResponse) -> Vec<String> {
    let items = response.rows.iter().flat_map(|row| row.items.iter().map(|at| &response.items[*at as usize]));
    let mut values: Vec<String> = items.map(|item| item.value("value").unwrap().to_owned()).collect();
    values.sort();
    values
}

impl Case<'_> {
    /// Items of one object, whatever it is called.
    fn items(&self, kind: &str, object: &str, values: &[&str], flag: Flag, collected: Timestamp) -> CollectionResults {
        let items = values.iter().map(|value| Item::new(kind, vec![ItemEntity::text("value", *value)])).collect();
        let count = u32::try_from(values.len()).unwrap();
        let objects = vec![CollectedPart {
            object: ObjectKey(object.to_owned()),
            flag,
            collected,
            items: (0..count).collect(),
            messages: Vec::new(),
        }];
        CollectionResults { items, objects, ..self.results("x", collected) }
    }

    pub(super) async fn has(&self, kind: &str, object: &str, values: &[&str], flag: Flag, collected: Timestamp) {
        let results = self.items(kind, object, values, flag, collected);
        self.store.record_collection(&results, self.received(), &Case::any_report()).await.unwrap();
    }
}

/// A kind and an object that nobody else asks for.
fn own() -> (String, String) {
    (format!("test:k{}", Uuid::new_v4().simple()), format!("obj:{}", Uuid::new_v4().simple()))
}

pub(super) async fn a_condition_finds_items_on_the_endpoints_that_have_them(store: &dyn Store) {
    let (kind, object) = own();
    let (one, two, three) = (Case::new(store).await, Case::new(store).await, Case::new(store).await);
    one.has(&kind, &object, &["a-1", "b-1"], Flag::Complete, at(0)).await;
    two.has(&kind, &object, &["b-1"], Flag::Complete, at(1)).await;
    three.has(&kind, &object, &["c-1"], Flag::Incomplete, at(2)).await;
    let all = [one.endpoint, two.endpoint, three.endpoint];

    let asked = question(&kind, "value prefix a", &all);
    let answer = search(store, &decided_by(&asked, &object)).await;
    assert_eq!(found(&answer), ["a-1"]);
    // Of what was cut off nobody knows what else there is.
    let (yes, no, unsure) = ((1, SearchOutcome::Matched), (0, SearchOutcome::Unmatched), (0, SearchOutcome::Unknown));
    assert_eq!(outcomes(&answer), BTreeMap::from([(all[0], yes), (all[1], no), (all[2], unsure)]));
    // Where nobody has looked for just that, that others found something else says nothing.
    for decides in [vec![], vec!["obj:other"], vec![object.as_str(), "obj:other"]] {
        let decides = decides.into_iter().map(|object| ObjectKey(object.to_owned())).collect();
        let loose = search(store, &SearchRequest { decides, ..asked.clone() }).await;
        assert_eq!(outcomes(&loose), BTreeMap::from([(all[0], yes), (all[1], unsure), (all[2], unsure)]));
    }
    let row = &answer.rows[0];
    assert_eq!((row.endpoint, row.origin, row.collected), (one.endpoint, Some(one.sender), at(0)));

    // What two have is one item.
    let answer = search(store, &question(&kind, "value = 'b-1'", &all)).await;
    assert_eq!((answer.items.len(), answer.rows.len()), (1, 2));
    // Without endpoints everything that is stored is meant.
    let everywhere = search(store, &question(&kind, "value = 'b-1'", &[])).await;
    assert_eq!(everywhere.rows, answer.rows);
    // A field that no item has says nothing.
    let answer = search(store, &question(&kind, "other = 1", &all)).await;
    assert!(answer.endpoints.iter().all(|one| one.outcome == SearchOutcome::Unknown));
    // Nothing is known of an endpoint that nobody looked at, and of another object.
    let stranger = EndpointId(Uuid::new_v4());
    let other =
        SearchRequest { objects: vec![ObjectKey("obj:other".to_owned())], ..question(&kind, "value = x", &all) };
    assert_eq!(search(store, &question(&kind, "value = x", &[stranger])).await, SearchResponse::default());
    assert_eq!(search(store, &other).await, SearchResponse::default());
    let named = SearchRequest { objects: vec![ObjectKey(object.clone())], ..question(&kind, "value = 'c-1'", &all) };
    assert_eq!(found(&search(store, &named).await), ["c-1"]);

    let counted = SearchRequest { content: SearchContent::Count, ..question(&kind, "value glob '*-1'", &all) };
    let counted = search(store, &counted).await;
    assert_eq!(outcomes(&counted)[&one.endpoint], (2, SearchOutcome::Matched));
    assert!(counted.rows.is_empty() && counted.items.is_empty());
    let bare = SearchRequest { content: SearchContent::Metadata, ..question(&kind, "value glob '*-1'", &all) };
    let bare = search(store, &bare).await;
    assert_eq!((bare.rows.len(), bare.rows.iter().map(|row| row.matched).sum::<u64>()), (3, 4));
    assert!(bare.items.is_empty() && bare.rows.iter().all(|row| row.items.is_empty()));
}

pub(super) async fn what_was_so_at_a_time_is_found_at_that_time_and_what_is_old_is_stale(store: &dyn Store) {
    let (kind, object) = own();
    let case = Case::new(store).await;
    case.has(&kind, &object, &["old"], Flag::Complete, at(0)).await;
    case.has(&kind, &object, &["new"], Flag::Complete, at(100)).await;
    let all = question(&kind, "exists value", &[case.endpoint]);
    assert_eq!(found(&search(store, &all).await), ["new"]);
    let then = SearchRequest { as_of: Some(at(50)), ..all.clone() };
    assert_eq!(found(&search(store, &then).await), ["old"]);
    assert_eq!(search(store, &SearchRequest { as_of: Some(at(-1)), ..all.clone() }).await.rows, []);

    let fresh = SearchRequest { collected_since: Some(at(100)), ..all.clone() };
    assert_eq!(outcomes(&search(store, &fresh).await)[&case.endpoint], (1, SearchOutcome::Matched));
    // It is told, and says nothing of what is there now.
    let stale = SearchRequest { collected_since: Some(at(101)), ..all.clone() };
    let marked = search(store, &stale).await;
    assert!(marked.rows[0].is_stale);
    assert_eq!(outcomes(&marked)[&case.endpoint], (1, SearchOutcome::Unknown));
    let omitted = search(store, &SearchRequest { on_stale: OnStale::Omit, ..stale }).await;
    assert_eq!((omitted.rows.len(), outcomes(&omitted)[&case.endpoint]), (0, (0, SearchOutcome::Unknown)));
    let absent = SearchRequest { collected_since: Some(at(101)), ..question(&kind, "value = x", &[case.endpoint]) };
    assert_eq!(outcomes(&search(store, &absent).await)[&case.endpoint].1, SearchOutcome::Unknown);
    // Looked at, and nothing there.
    case.has(&kind, &object, &[], Flag::DoesNotExist, at(200)).await;
    assert_eq!(
        outcomes(&search(store, &decided_by(&all, &object)).await)[&case.endpoint],
        (0, SearchOutcome::Unmatched)
    );
}

pub(super) async fn whoever_looked_last_is_right_and_merged_endpoints_are_one(store: &dyn Store) {
    let (kind, object) = own();
    let (one, two) = (Case::new(store).await, Case::new(store).await);
    one.has(&kind, &object, &["mine"], Flag::Complete, at(10)).await;
    two.has(&kind, &object, &["yours"], Flag::Complete, at(20)).await;
    let aliases = Some(vec![EndpointAlias { endpoint: one.endpoint, of: two.endpoint }]);
    store.assign(&EndpointAssignment { assignments: Vec::new(), aliases }, one.received()).await.unwrap();
    for endpoints in [vec![two.endpoint], Vec::new()] {
        let answer = search(store, &question(&kind, "exists value", &endpoints)).await;
        assert_eq!(found(&answer), ["yours"]);
        assert_eq!(outcomes(&answer), BTreeMap::from([(two.endpoint, (1, SearchOutcome::Matched))]));
    }
    let aliases = Some(Vec::new());
    store.assign(&EndpointAssignment { assignments: Vec::new(), aliases }, one.received()).await.unwrap();
    assert_eq!(found(&search(store, &question(&kind, "exists value", &[])).await), ["mine", "yours"]);
    // Another collector took over the endpoint: what the first has seen is kept, and was before.
    let successor = Case { sender: ComponentId(Uuid::new_v4()), ..Case::new(store).await };
    let successor = Case { endpoint: one.endpoint, ..successor };
    let assignment = Assignment { collector: successor.sender, endpoints: vec![one.endpoint] };
    store.assign(&told(assignment), successor.received()).await.unwrap();
    successor.has(&kind, &object, &["ours"], Flag::Complete, at(30)).await;
    assert_eq!(found(&search(store, &question(&kind, "exists value", &[one.endpoint])).await), ["ours"]);
}

pub(super) async fn answers_come_in_pages_that_end_behind_an_endpoint(store: &dyn Store) {
    let (kind, object) = own();
    let mut all = Vec::new();
    for number in 0..6 {
        let case = Case::new(store).await;
        let long: Vec<String> = (0..4).map(|at| format!("{number}.{at}{}", "y".repeat(30_000))).collect();
        let long: Vec<&str> = long.iter().map(String::as_str).collect();
        case.has(&kind, &object, &long, Flag::Complete, at(0)).await;
        all.push(case.endpoint);
    }
    let mut request = question(&kind, "exists value", &[]);
    let (mut pages, mut seen, mut items) = (0, Vec::new(), 0);
    loop {
        let page = search(store, &request).await;
        assert!(serde_json::to_vec(&page).unwrap().len() < 1024 * 1024);
        seen.extend(page.endpoints.iter().map(|one| one.endpoint));
        items += found(&page).len();
        pages += 1;
        request.after = page.next;
        if request.after.is_none() {
            break;
        }
    }
    seen.sort();
    all.sort();
    assert_eq!((seen, items), (all, 24));
    assert!(pages > 1, "700 kB came in one page");

    // Of one endpoint alone with more than a page holds, the rest is counted.
    let case = Case::new(store).await;
    let (kind, _) = own();
    for number in 0..40 {
        let long = format!("{number}{}", "z".repeat(40_000));
        case.has(&kind, &format!("obj:{}", Uuid::new_v4().simple()), &[&long], Flag::Complete, at(0)).await;
    }
    let page = search(store, &question(&kind, "exists value", &[case.endpoint])).await;
    assert!(serde_json::to_vec(&page).unwrap().len() < 1024 * 1024);
    assert_eq!(outcomes(&page)[&case.endpoint], (40, SearchOutcome::Matched));
    assert!(found(&page).len() < 40 && page.next.is_none());
}

pub(super) async fn verdicts_that_hold_are_found_by_what_they_are(store: &dyn Store) {
    let mut case = Case::new(store).await;
    for (second, verdicts) in [(10, [Pass, Fail, Unknown]), (20, [Fail, Fail, Pass])] {
        case.transaction = TransactionId(Uuid::new_v4());
        let rules = [("rule_one", verdicts[0]), ("rule_two", verdicts[1]), ("rule_three", verdicts[2])];
        let results = case.verdicts(second, &rules, |_| {});
        store.record_evaluation(&results, case.received(), &Case::any_report()).await.unwrap();
    }
    let asked = |condition: &str, as_of| SearchRequest {
        as_of,
        ..question("verdict", &format!("policy = policy and {condition}"), &[case.endpoint])
    };
    let rules = |response: &SearchResponse| -> Vec<String> {
        let items = response.rows.iter().map(|row| &response.items[row.items[0] as usize]);
        items.map(|item| item.value("rule").unwrap().to_owned()).collect()
    };
    let answer = search(store, &asked("verdict = fail", None)).await;
    assert_eq!(rules(&answer), ["rule_one", "rule_two"]);
    assert_eq!((answer.rows[0].since, answer.rows[1].since), (at(20), at(10)));
    assert_eq!(rules(&search(store, &asked("verdict = fail", Some(at(15)))).await), ["rule_two"]);
    let severe = search(store, &asked("verdict in (fail, unknown) and severity = high", None)).await;
    assert_eq!(rules(&severe), ["rule_one", "rule_two"]);
    assert!(search(store, &asked("severity = low", None)).await.rows.is_empty());
    let lately = search(store, &asked(&format!("since > '{}'", at(15)), None)).await;
    assert_eq!(rules(&lately), ["rule_one", "rule_three"]);
    let none = search(store, &asked("rule = rule_three and verdict = fail", None)).await;
    assert_eq!(outcomes(&none)[&case.endpoint], (0, SearchOutcome::Unmatched));
    // A rule that nobody has decided.
    assert!(search(store, &asked("rule = rule_nine and verdict = fail", None)).await.endpoints.is_empty());
}
