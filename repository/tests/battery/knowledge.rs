//! The word for all that is known of an endpoint.

use proto::message::{Knowledge, QueryRequest};

use super::*;

impl Case<'_> {
    pub(super) async fn newest_summary(&self) -> EvaluationSummary {
        self.store.newest(&[self.endpoint], "policy", "(default)").await.unwrap().remove(0).unwrap()
    }

    /// The word, which is the same whatever is asked with it.
    async fn knowledge(&self) -> Option<Knowledge> {
        let another = EndpointId(Uuid::new_v4());
        let mut words = Vec::new();
        for (object, others) in
            [(OBJECT, Vec::new()), ("obj:nowhere", Vec::new()), (OBJECT, vec![another]), ("obj:nowhere", vec![another])]
        {
            let (objects, request) = (vec![ObjectKey(object.to_owned())], None);
            let question =
                QueryRequest { request, endpoint: self.endpoint, objects, as_of: None, is_brief: true, others };
            let answer = self.store.query(&question).await.unwrap();
            words.push(match (answer.brief, answer.briefs) {
                (Some(brief), None) => brief.knowledge,
                (None, Some(briefs)) => {
                    assert_eq!((briefs.knowledge.len(), &briefs.knowledge[1]), (2, &None));
                    briefs.knowledge[0].clone()
                }
                other => panic!("{other:?}"),
            });
        }
        assert!(words.iter().all(|word| *word == words[0]), "{words:?}");
        let past = QueryRequest {
            request: None,
            endpoint: self.endpoint,
            objects: vec![ObjectKey(OBJECT.to_owned())],
            as_of: Some(at(1_000)),
            is_brief: true,
            others: Vec::new(),
        };
        assert_eq!(self.store.query(&past).await.unwrap().brief.unwrap().knowledge, None);
        words.remove(0)
    }
}

pub(super) async fn cases(store: &dyn Store) {
    what_is_known_of_an_endpoint_has_a_word_of_its_own(store).await;
    what_was_decided_last_is_told_of_many(store).await;
    what_was_taken_over_leads_to_who_decided_it(store).await;
}

/// Whatever is observed anew or otherwise has another word, also where it is as it was before; what is looked at again has not.
async fn what_is_known_of_an_endpoint_has_a_word_of_its_own(store: &dyn Store) {
    let (case, beside) = (Case::new(store).await, Case::new(store).await);
    assert_eq!(case.knowledge().await, None);
    let mut words = Vec::new();
    for (second, value) in [(0, "a"), (10, "b"), (20, "a"), (30, "b")] {
        case.collect(value, at(second)).await;
        beside.collect(value, at(second)).await;
        let word = case.knowledge().await.unwrap();
        assert!(!words.contains(&word), "{word:?} of {words:?}");
        assert_ne!(Some(&word), beside.knowledge().await.as_ref());
        words.push(word);
        case.collect(value, at(second + 5)).await;
        // What comes late is of the past.
        case.collect("late", at(second - 100)).await;
        assert_eq!(case.knowledge().await.as_ref(), words.last());
    }
    // Another object is found, and one of two changes.
    for value in ["x", "y"] {
        let mut results = case.results(value, at(50));
        results.objects[0].object = ObjectKey("obj:two".to_owned());
        store.record_collection(&results, case.received(), &Case::any_report()).await.unwrap();
        let word = case.knowledge().await.unwrap();
        assert!(!words.contains(&word), "{word:?} of {words:?}");
        words.push(word);
    }
    // What was merged into it counts as it, and is not in the word; until they are taken apart again.
    let aliases = |of: &[EndpointAlias]| EndpointAssignment { assignments: Vec::new(), aliases: Some(of.to_vec()) };
    let merged = aliases(&[EndpointAlias { endpoint: beside.endpoint, of: case.endpoint }]);
    store.assign(&merged, case.received()).await.unwrap();
    assert_eq!(case.knowledge().await, None);
    store.assign(&aliases(&[]), case.received()).await.unwrap();
    assert_eq!(case.knowledge().await.as_ref(), words.last());
    // Of what two see the later counts, and neither has to change for that.
    let other = Case { sender: ComponentId(Uuid::new_v4()), ..case };
    let assignment = Assignment { collector: other.sender, endpoints: vec![other.endpoint] };
    store.assign(&told(assignment), other.received()).await.unwrap();
    other.collect("c", at(60)).await;
    assert_eq!(other.knowledge().await, None);
}

/// Of each of many what was decided last, in their order.
async fn what_was_decided_last_is_told_of_many(store: &dyn Store) {
    let [decided, unknown, another] = [Case::new(store).await, Case::unassigned(store), Case::new(store).await];
    decided.decide(&decided.verdicts(0, &[("a", Pass)], |_| {})).await;
    let last = decided.verdicts(10, &[("a", Fail)], |results| {
        results.summary.as_mut().unwrap().knowledge = Some(Knowledge("what was known".to_owned()));
    });
    decided.decide(&last).await;
    another.decide(&another.verdicts(5, &[("a", Pass)], |_| {})).await;
    let endpoints = [decided.endpoint, unknown.endpoint, another.endpoint, decided.endpoint];
    let newest = store.newest(&endpoints, "policy", "(default)").await.unwrap();
    let told: Vec<_> = newest.iter().map(|summary| summary.as_ref().map(|it| (it.endpoint, it.evaluated))).collect();
    let first = Some((decided.endpoint, at(10)));
    assert_eq!(told, [first, None, Some((another.endpoint, at(5))), first]);
    assert_eq!(newest[0].as_ref().unwrap().knowledge, last.summary.unwrap().knowledge);
    assert_eq!(store.newest(&[decided.endpoint], "policy", "another").await.unwrap(), [None]);
    // Those that fit: each of them says very much.
    let many = vec![decided.endpoint; 200];
    let long = decided.verdicts(20, &[("a", Fail)], |results| {
        results.summary.as_mut().unwrap().verdicts = "p".repeat(10_000);
    });
    decided.decide(&long).await;
    let fitting = store.newest(&many, "policy", "(default)").await.unwrap().len();
    assert!((10..100).contains(&fitting), "{fitting}");
}

/// A verdict that an evaluation has taken over leads to the workflow that decided it.
async fn what_was_taken_over_leads_to_who_decided_it(store: &dyn Store) {
    let case = Case::new(store).await;
    let partly = |second, verdicts: &[(&str, Verdict)], content: &[u8]| {
        case.verdicts(second, verdicts, |results| {
            let content = Some(ContentHash::of(content));
            let (about, summary) = (results.about.as_mut().unwrap(), results.summary.as_mut().unwrap());
            (about.is_partial, summary.is_partial) = (true, true);
            (about.content, summary.content) = (content.clone(), content);
        })
    };
    let first = case.decide(&case.verdicts(0, &[("rule_a", Pass), ("rule_b", Fail), ("rule_c", Pass)], |_| {})).await;
    let second = case.decide(&partly(10, &[("rule_b", Pass)], b"the next version")).await;
    let third = case.decide(&partly(20, &[("rule_c", Fail)], b"the one after it")).await;
    let taken_over = async |transaction, rule: Option<&str>| {
        let request = ChainRequest { transaction, endpoint: case.endpoint, rule: rule.map(str::to_owned) };
        let chain = store.chain(&request).await.unwrap();
        assert!(!chain.messages.is_empty());
        chain.taken_over
    };
    assert_eq!(taken_over(first, Some("_a")).await, []);
    assert_eq!(taken_over(second, None).await, [first]);
    assert_eq!(taken_over(second, Some("_b")).await, []);
    // As it was then.
    assert_eq!(taken_over(second, Some("_c")).await, [first]);
    assert_eq!(taken_over(third, Some("_a")).await, [first]);
    assert_eq!(taken_over(third, Some("_b")).await, [second]);
    assert_eq!(taken_over(third, Some("_c")).await, []);
}
