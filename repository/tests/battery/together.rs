//! Reports that are stored together leave what they leave one after the other.

use std::collections::{BTreeMap, BTreeSet};

use proto::content::ContentHash;
use proto::id::{ComponentId, MessageId, RequestId, TransactionId};
use proto::message::{
    AttributeChange, ChangesRequest, CollectedPart, CollectionResults, EndpointResults, EvaluationResults, Evidence,
    FleetEvidence, FleetResults, ObjectState, ResultsRequest, ResultsSelection,
};
use proto::observation::{Flag, Item, ItemEntity};
use proto::plan::ObjectKey;
use proto::verdict::Verdict::{Fail, Pass, Unknown};
use repository::store::{Incoming, Received, Report, Said, Store, StoreError, Stored};
use uuid::Uuid;

use super::{Case, at, position};

const ENDPOINTS: usize = 3;
/// One of them says a lot about more objects than are looked up by name.
const OBJECTS: u64 = 4;
const OBJECTS_OF_MANY: u64 = 130;
const STEPS: usize = 240;

/// The same number gives the same reports (splitmix64).
struct Chance(u64);

impl Chance {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        ((mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb) >> 8) % limit
    }

    /// About when this step was: some come late.
    fn second(&mut self, step: usize) -> i64 {
        2 * i64::try_from(step).unwrap() + i64::try_from(self.below(24)).unwrap()
    }
}

enum Words {
    Observations(CollectionResults),
    Verdicts(EvaluationResults),
    FleetVerdicts(FleetResults),
}

/// A report of one world.
struct Step {
    words: Words,
    from: Received,
    report: Report,
}

impl Step {
    fn incoming(&self) -> Incoming<'_> {
        let said = match &self.words {
            Words::Observations(results) => Said::Observations(results),
            Words::Verdicts(results) => Said::Verdicts(results),
            Words::FleetVerdicts(results) => Said::FleetVerdicts(results),
        };
        Incoming { said, from: self.from, report: &self.report }
    }

    /// What comes of it alone; where it is about many endpoints, as so many messages about one each.
    async fn store(&self, store: &dyn Store) -> String {
        let Words::FleetVerdicts(results) = &self.words else {
            return outcome(&store.record(&[self.incoming()]).await[0]);
        };
        let (mut count, mut is_again) = (0, true);
        for (number, one) in results.endpoints.iter().enumerate() {
            let message = Uuid::from_u128(self.from.message.0.as_u128() ^ u128::try_from(number).unwrap());
            let from = Received { message: MessageId(message), ..self.from };
            let report = Case::report(&format!("{} {number}", self.report.hash));
            match store.record(&[Incoming { said: Said::Verdicts(&results.of(one)), from, report: &report }]).await[0] {
                Ok(Stored::New { change_count, .. }) => (count, is_again) = (count + change_count, false),
                Ok(Stored::Again) => assert!(is_again),
                Err(ref error) => panic!("{error:?}"),
            }
        }
        let new = Stored::New { change_count: count, changed: Vec::new() };
        outcome(&Ok(if is_again { Stored::Again } else { new }))
    }
}

/// Endpoints of their own, and what is reported of them.
struct World<'store> {
    cases: Vec<Case<'store>>,
    unassigned: Case<'store>,
    stranger: ComponentId,
    epoch: Uuid,
    steps: Vec<Step>,
}

fn object(number: u64) -> ObjectKey {
    ObjectKey(format!("obj:together-{number:03}"))
}

impl<'store> World<'store> {
    async fn new(store: &'store dyn Store) -> Self {
        let mut cases = Vec::new();
        for _ in 0..ENDPOINTS {
            cases.push(Case::new(store).await);
        }
        let (unassigned, stranger) = (Case::unassigned(store), ComponentId(Uuid::new_v4()));
        Self { cases, unassigned, stranger, epoch: Uuid::new_v4(), steps: Vec::new() }
    }

    fn observations(&self, case: &Case<'_>, number: usize, chance: &mut Chance) -> CollectionResults {
        let is_of_many = std::ptr::eq(case, &raw const self.cases[0]);
        let second = chance.second(number);
        let count = if is_of_many && chance.below(4) == 0 { OBJECTS_OF_MANY } else { 1 + chance.below(OBJECTS) };
        let values =
            [0, 1, 2].map(|value| Item::new("x", vec![ItemEntity::text("value", format!("together {value}"))]));
        let part = |number: u64, chance: &mut Chance| CollectedPart {
            object: object(number),
            flag: if chance.below(9) == 0 { Flag::Incomplete } else { Flag::Complete },
            collected: at(second + i64::try_from(chance.below(3)).unwrap()),
            items: (0..3).filter(|_| chance.below(3) == 0).collect(),
            messages: Vec::new(),
        };
        let mut objects: Vec<CollectedPart> = (0..count).map(|number| part(number, chance)).collect();
        if chance.below(5) == 0 {
            // One that is there twice.
            objects.push(part(0, chance));
        }
        let sequence = 1 + chance.below(9);
        let stream = (chance.below(4) == 0).then(|| position(self.epoch, sequence));
        let mut results = case.results("", at(second));
        results.facts.host_name = format!("host {number}");
        CollectionResults { items: values.to_vec(), objects, stream, ..results }
    }

    fn verdicts(case: &Case<'_>, number: usize, transaction: TransactionId, chance: &mut Chance) -> EvaluationResults {
        let mut rules = Vec::new();
        for rule in ["a", "b", "c", "d"] {
            if chance.below(4) > 0 {
                rules.push((rule, [Pass, Fail, Unknown][usize::try_from(chance.below(3)).unwrap()]));
            }
        }
        let evidence = Evidence { report: ContentHash::of(b"together"), objects: vec![object(0)] };
        let (is_current, is_partial) = (chance.below(6) > 0, chance.below(4) == 0);
        let (part, part_count) =
            if chance.below(4) == 0 { (u32::try_from(chance.below(2)).unwrap(), 2) } else { (0, 1) };
        let content = ContentHash::of(if chance.below(3) == 0 { b"one" } else { b"two" });
        case.verdicts(chance.second(number), &rules, |results| {
            (results.part, results.evidence) = (part, vec![evidence.clone(); 2]);
            let about = results.about.as_mut().unwrap();
            (about.is_current, about.is_partial, about.part_count) = (is_current, is_partial, part_count);
            about.content = Some(content.clone());
            let summary = results.summary.as_mut().unwrap();
            (summary.is_partial, summary.transaction) = (is_partial, transaction);
        })
    }

    /// One more report: the same numbers give the same in each world.
    fn step(&mut self, number: usize, transaction: TransactionId, chance: &mut Chance) {
        let which = usize::try_from(chance.below(u64::try_from(ENDPOINTS).unwrap())).unwrap();
        let case = &self.cases[which];
        let mut from = Received { transaction, ..case.received() };
        let words = match chance.below(20) {
            0 => {
                from.sender = self.stranger;
                Words::Observations(self.observations(case, number, chance))
            }
            1 => {
                from.sender = self.unassigned.sender;
                Words::Observations(self.observations(&self.unassigned, number, chance))
            }
            2..7 => Words::Verdicts(Self::verdicts(case, number, transaction, chance)),
            7..9 => {
                let all = self.cases.iter().map(|case| Self::verdicts(case, number, transaction, chance));
                Words::FleetVerdicts(fleet_of(all))
            }
            _ => Words::Observations(self.observations(case, number, chance)),
        };
        let report = Case::report(&format!("together {} {number}", self.epoch));
        self.steps.push(Step { words, from, report });
    }

    /// What is left of them, without what is of this world alone.
    async fn left(&self, store: &dyn Store, transactions: &[TransactionId]) -> Vec<String> {
        let step_of: BTreeMap<&ContentHash, usize> =
            self.steps.iter().enumerate().map(|(number, step)| (&step.report.hash, number)).collect();
        let mut left = Vec::new();
        let objects: Vec<ObjectKey> = (0..OBJECTS_OF_MANY).map(object).collect();
        for case in &self.cases {
            for as_of in [None, Some(at(60)), Some(at(250)), Some(at(400))] {
                let page = case.query(&objects, as_of).await;
                left.push(page.facts.host_name.clone());
                for row in &page.rows {
                    let items: Vec<&Item> = row.items.iter().map(|item| &page.items[*item as usize]).collect();
                    let step = row.report.as_ref().map(|report| step_of[report]);
                    left.push(format!("{} {:?} {} {step:?} {items:?}", row.object, row.flag, row.collected));
                }
            }
            let request =
                ChangesRequest { endpoints: vec![case.endpoint], before: None, limit: 50, numbers: Vec::new() };
            let (mut changes, mut before) = (Vec::new(), None);
            loop {
                let page = store.changes(&ChangesRequest { before, ..request.clone() }).await.unwrap();
                changes.extend(page.changes);
                before = page.next;
                if before.is_none() {
                    break;
                }
            }
            let state = |state: &ObjectState| format!("{} {:?} {:?}", state.seen, state.flag, state.items);
            let mut of_case: Vec<String> = changes
                .iter()
                .map(|AttributeChange { object, collected, past, current, .. }| {
                    format!("{object} {collected} {:?} {}", past.as_ref().map(state), state(current))
                })
                .collect();
            of_case.sort_unstable();
            left.push(format!("{} changes", of_case.len()));
            left.extend(of_case);
            for selection in std::iter::once(ResultsSelection::Endpoint(case.endpoint))
                .chain(transactions.iter().map(|transaction| ResultsSelection::Transaction(*transaction)))
            {
                let request = ResultsRequest { selection, verdicts: Vec::new(), only_summaries: false, after: None };
                let page = store.results(&request).await.unwrap();
                for (summary, results) in page.summaries.iter().zip(page.results) {
                    if summary.endpoint == case.endpoint {
                        let results: Vec<String> =
                            results.iter().map(|it| format!("{} {:?} {:?}", it.rule, it.verdict, it.since)).collect();
                        left.push(format!("{} {} {results:?}", summary.evaluated, summary.is_partial));
                    }
                }
            }
        }
        let page = store
            .changes(&ChangesRequest { endpoints: Vec::new(), before: None, limit: 1, numbers: Vec::new() })
            .await
            .unwrap();
        let senders: Vec<ComponentId> = self.cases.iter().map(|case| case.sender).collect();
        let mut streams: Vec<(usize, u64, u64)> = page
            .streams
            .iter()
            .filter_map(|stream| {
                let at = senders.iter().position(|sender| *sender == stream.origin)?;
                Some((at, stream.highest, stream.received))
            })
            .collect();
        streams.sort_unstable();
        left.push(format!("{streams:?}"));
        left
    }
}

/// The same verdicts in one message.
fn fleet_of(all: impl Iterator<Item = EvaluationResults>) -> FleetResults {
    let mut fleet = FleetResults {
        request: RequestId(Uuid::new_v4()),
        task: ContentHash::of(b"task"),
        results: Vec::new(),
        objects: vec![object(0)],
        endpoints: Vec::new(),
    };
    for one in all {
        let (about, mut summary) = (one.about.unwrap(), one.summary.unwrap());
        summary.as_of = (!about.is_current).then_some(about.evaluated);
        summary.content = about.content;
        let mut results = Vec::new();
        for result in one.results {
            let known = fleet.results.iter().position(|known| *known == result).unwrap_or_else(|| {
                fleet.results.push(result);
                fleet.results.len() - 1
            });
            results.push(u32::try_from(known).unwrap());
        }
        let evidence = vec![FleetEvidence { report: ContentHash::of(b"together"), objects: vec![0] }];
        fleet.endpoints.push(EndpointResults { results, evidence, summary });
    }
    fleet.check().unwrap();
    fleet
}

/// What came of a report, without what is of one world alone.
fn outcome(stored: &Result<Stored, StoreError>) -> String {
    match stored {
        Ok(Stored::New { change_count, changed }) => format!("{change_count} new, {} changed", changed.len()),
        Ok(Stored::Again) => "again".to_owned(),
        Err(StoreError::Unassigned(_)) => "unassigned".to_owned(),
        Err(StoreError::NotAssigned(_)) => "not assigned".to_owned(),
        Err(error) => panic!("{error:?}"),
    }
}

pub(super) async fn what_is_stored_together_is_what_is_stored_one_after_the_other(store: &dyn Store) {
    for seed in 1..=4 {
        let mut worlds = [World::new(store).await, World::new(store).await];
        let mut chance = Chance(seed);
        let transactions: Vec<TransactionId> = (0..12).map(|_| TransactionId(Uuid::now_v7())).collect();
        // Which report is sent when: some come again.
        let mut sent = Vec::new();
        for number in 0..STEPS {
            let transaction = transactions[usize::try_from(chance.below(12)).unwrap()];
            let state = chance.0;
            for world in &mut worlds {
                chance.0 = state;
                world.step(number, transaction, &mut chance);
            }
            sent.push(number);
            if chance.below(6) == 0 {
                sent.push(usize::try_from(chance.below(u64::try_from(number + 1).unwrap())).unwrap());
            }
        }
        let [one, many] = &worlds;
        let (mut of_one, mut of_many) = (Vec::new(), Vec::new());
        for number in &sent {
            of_one.push(one.steps[*number].store(store).await);
        }
        let mut rest = sent.as_slice();
        while !rest.is_empty() {
            let count = (1 + usize::try_from(chance.below(40)).unwrap()).min(rest.len());
            let (some, others) = rest.split_at(count);
            let incoming: Vec<Incoming<'_>> = some.iter().map(|number| many.steps[*number].incoming()).collect();
            of_many.extend(store.record(&incoming).await.iter().map(outcome));
            rest = others;
        }
        assert_eq!(of_one, of_many, "seed {seed}");
        let kinds: BTreeSet<&str> = of_one.iter().map(|outcome| outcome.split(' ').next_back().unwrap()).collect();
        assert_eq!(kinds, ["again", "assigned", "changed", "unassigned"].into(), "everything happens");
        let (one, many) = (one.left(store, &transactions).await, many.left(store, &transactions).await);
        assert!(one.len() > 200, "{one:?}");
        for (one, many) in one.iter().zip(&many) {
            assert_eq!(one, many, "seed {seed}");
        }
        assert_eq!(one.len(), many.len(), "seed {seed}");
    }
}

/// One of them has a name with a zero byte, which one back end does not store.
pub(super) async fn what_cannot_be_stored_keeps_no_other_away(store: &dyn Store, is_refused: bool) {
    let cases = [Case::new(store).await, Case::new(store).await, Case::new(store).await];
    let reports = ["a", "b\0", "c"].map(|value| {
        let report = Case::report(&format!("{value} {}", Uuid::new_v4()));
        (value, report)
    });
    let results: Vec<CollectionResults> = cases
        .iter()
        .zip(&reports)
        .map(|(case, (value, _))| {
            let mut results = case.results(value, at(0));
            results.request = RequestId(Uuid::new_v4());
            (*value).clone_into(&mut results.facts.host_name);
            results.objects[0].object = ObjectKey(format!("obj:{value}"));
            results
        })
        .collect();
    let incoming: Vec<Incoming<'_>> = cases
        .iter()
        .zip(&reports)
        .zip(&results)
        .map(|((case, (_, report)), results)| Incoming {
            said: Said::Observations(results),
            from: case.received(),
            report,
        })
        .collect();
    let stored = store.record(&incoming).await;
    assert!(stored[0].is_ok() && stored[2].is_ok(), "{stored:?}");
    assert_eq!(stored[1].is_err(), is_refused, "{stored:?}");
    for (case, results) in cases.iter().zip(&results).step_by(2) {
        assert_eq!(case.query(&[results.objects[0].object.clone()], None).await.rows.len(), 1);
    }
}
