//! What is known by its hash is what is known in full.

use std::collections::BTreeSet;

use jiff::Timestamp;
use proto::content::ContentHash;
use proto::id::EndpointId;
use proto::message::{Brief, CollectedPart, CollectionResults, KnownAt, QueryRequest, QueryResponse};
use proto::observation::{Flag, Item, ItemEntity};
use proto::plan::ObjectKey;
use repository::store::Store;
use uuid::Uuid;

use super::{Case, One as _, at};

impl Case<'_> {
    /// What is stored of some objects, asked for in full, in brief, and in brief beside another endpoint: all say the same.
    pub(super) async fn query(&self, objects: &[ObjectKey], as_of: Option<Timestamp>) -> QueryResponse {
        let request = |is_brief| QueryRequest {
            request: None,
            endpoint: self.endpoint,
            objects: objects.to_vec(),
            as_of,
            is_brief,
            others: Vec::new(),
        };
        let full = self.store.query(&request(false)).await.unwrap();
        let short = self.store.query(&request(true)).await.unwrap();
        assert_eq!((short.items.as_slice(), short.rows.as_slice()), ([].as_slice(), [].as_slice()));
        let brief = short.brief.unwrap();
        assert_eq!(short.answered, objects.len() as u64);
        assert_eq!((brief.known.len(), &brief.objects), (objects.len(), &Brief::hash_of(objects)));
        let nobody = EndpointId(Uuid::new_v4());
        for (place, endpoint, other) in [(0, self.endpoint, nobody), (1, nobody, self.endpoint)] {
            let question = QueryRequest { endpoint, others: vec![other], ..request(true) };
            let page = self.store.query(&question).await.unwrap();
            let briefs = page.briefs.unwrap();
            assert_eq!((page.answered, briefs.endpoints.len(), briefs.objects), (2, 2, brief.objects.clone()));
            // What nothing is known of at the end need not be said.
            let mut known = briefs.endpoints[place].clone();
            known.resize(objects.len(), None);
            let said = |known: Vec<KnownAt>, contents: &[ContentHash], times: &[Timestamp], reports: &[ContentHash]| {
                let said = known.into_iter().map(|known| {
                    let (content, time, report) = known?;
                    let report = report.map(|report| reports[report as usize].clone());
                    Some((contents[content as usize].clone(), times[time as usize], report))
                });
                said.collect::<Vec<_>>()
            };
            assert_eq!(
                said(known, &briefs.contents, &briefs.times, &briefs.reports),
                said(brief.known.clone(), &brief.contents, &brief.times, &brief.reports)
            );
            assert!(briefs.endpoints[1 - place].iter().all(Option::is_none));
        }
        for (object, known) in objects.iter().zip(brief.known).take(usize::try_from(full.answered).unwrap()) {
            let row = full.rows.iter().find(|row| row.object == *object);
            let of_row = row.map(|row| (row.content.clone().unwrap(), row.collected, row.report.clone()));
            let known = known.map(|(content, time, report)| {
                let report = report.map(|report| brief.reports[report as usize].clone());
                (brief.contents[content as usize].clone(), brief.times[time as usize], report)
            });
            assert_eq!(known, of_row, "{object}");
        }
        full
    }
}

/// A report on so many objects, of which each third finds the same.
fn results(case: &Case<'_>, count: u32, second: i64) -> CollectionResults {
    let item = |number: u32| Item::new("x", vec![ItemEntity::text("value", format!("brief {number}"))]);
    let object = |number: u32| CollectedPart {
        object: ObjectKey(format!("obj:brief-{number:04}")),
        flag: if number == 7 { Flag::Incomplete } else { Flag::Complete },
        collected: at(second + i64::from(number % 2)),
        items: vec![if number.is_multiple_of(3) { 0 } else { number }],
        messages: if number == 8 { vec!["something is to be said".to_owned()] } else { Vec::new() },
    };
    CollectionResults {
        items: (0..count).map(item).collect(),
        objects: (0..count).map(object).collect(),
        ..case.results("", at(second))
    }
}

pub(super) async fn what_is_known_by_its_hash_is_what_is_known(store: &dyn Store) {
    let (case, other) = (Case::new(store).await, Case::new(store).await);
    let report = Case::report("a brief report");
    store.record_collection(&results(&case, 300, 0), case.received(), &report).await.unwrap();
    let mut objects: Vec<ObjectKey> = (0..310).map(|number| ObjectKey(format!("obj:brief-{number:04}"))).collect();
    // Many, few, in whatever order, and none.
    for some in [&objects[..], &objects[40..60], &objects[299..301], &[]] {
        let full = case.query(some, None).await;
        assert_eq!(full.rows.len() + full.missing.len(), some.len());
        assert!(full.rows.iter().all(|row| row.report.as_ref() == Some(&report.hash)));
    }
    objects.reverse();
    let first = case.query(&objects, None).await;
    let contents: BTreeSet<_> = first.rows.iter().map(|row| row.content.clone()).collect();
    assert_eq!((first.rows.len(), contents.len()), (300, 201), "each third finds the same");
    // The same elsewhere has the same hash; what has changed has another, also in the past.
    store.record_collection(&results(&other, 300, 5), other.received(), &Case::any_report()).await.unwrap();
    let elsewhere = other.query(&objects, None).await;
    assert!(first.rows.iter().zip(&elsewhere.rows).all(|(one, other)| one.content == other.content));
    let mut changed = results(&case, 300, 100);
    changed.objects[299].items = vec![5];
    changed.objects[298].flag = Flag::Incomplete;
    store.record_collection(&changed, case.received(), &Case::any_report()).await.unwrap();
    let second = case.query(&objects, None).await;
    let differ = first.rows.iter().zip(&second.rows).filter(|(one, other)| one.content != other.content);
    assert_eq!(differ.count(), 2);
    assert!(second.rows.iter().all(|row| row.report.as_ref() != Some(&report.hash)));
    let then = case.query(&objects, Some(at(50))).await;
    assert!(first.rows.iter().zip(&then.rows).all(|(one, other)| one.content == other.content));
    assert_eq!(case.query(&objects[..20], Some(at(-1))).await.rows, []);

    // Of many endpoints, those that fit into an answer; of an endpoint with too many objects, it alone.
    let others: Vec<EndpointId> = (0..40).map(|_| EndpointId(Uuid::new_v4())).collect();
    let mut question =
        QueryRequest { request: None, endpoint: case.endpoint, objects, as_of: None, is_brief: true, others };
    let page = store.query(&question).await.unwrap();
    assert_eq!((page.answered, page.briefs.unwrap().endpoints.len()), (32, 32));
    question.objects = (0..2_001).map(|number| ObjectKey(format!("obj:brief-{number:04}"))).collect();
    let page = store.query(&question).await.unwrap();
    assert!(page.briefs.is_none() && page.answered == 2_000 && page.brief.unwrap().known.len() == 2_000);
}
