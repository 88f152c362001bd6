//! Verdicts that are kept while objects change, against deciding everything anew.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use jiff::{SignedDuration, Timestamp};
use proto::observation::{Collected, Flag};
use proto::plan::ObjectKey;
use scap::compile::compile;
use scap::dependencies::Dependencies;
use scap::evaluate::{Evidence, Observed, evaluate};
use scap::partial::{Partial, letters_of};
use scap::standing::Standing;
use system_tests::generate::Random;
use system_tests::{BASELINE, evidence_of};

/// What an object might be found to be next time; none: it is known no more.
fn changed(random: &mut Random, evidence: &Evidence, object: &ObjectKey, now: Timestamp) -> Option<Observed> {
    let known = evidence.observations.get(object)?;
    let collected = &*known.collected_object;
    let next = match random.below(6) {
        0 => return None,
        1 => Collected::nothing(Flag::Error, "it could not be read"),
        2 => Collected::nothing(Flag::DoesNotExist, "it is gone"),
        3 => Collected { flag: Flag::Incomplete, ..collected.clone() },
        4 => {
            let mut fewer = collected.clone();
            fewer.items.pop();
            fewer
        }
        _ => {
            let mut other = collected.clone();
            for value in
                other.items.iter_mut().flat_map(|item| &mut item.entities).filter_map(|entity| entity.value.as_mut())
            {
                if random.once_in(2) {
                    value.push('1');
                }
            }
            other
        }
    };
    Some(Observed { collected_object: Rc::new(next), collected: now })
}

#[test]
fn what_changes_is_decided_as_if_everything_were() {
    let policy = scap::datastream::read(BASELINE.to_vec()).unwrap();
    let compiled = compile(&policy, Some("server")).unwrap();
    let mut now = Timestamp::now();
    let original = evidence_of(&compiled, "/");
    let mut evidence = original.clone();
    let mut standing = Standing::new(&compiled, evidence.clone(), now);
    assert_eq!(standing.evaluation().results, evaluate(&compiled, &evidence, now).results);
    let objects: Vec<&ObjectKey> = original.observations.keys().collect();
    let dependencies = Dependencies::of(&compiled);
    let mut letters = letters_of(&compiled, &standing.evaluation());
    let mut objects_read = 0;
    let mut random = Random::new(11);
    let (mut rules_changed, mut rules_again) = (BTreeSet::new(), 0);
    for _ in 0..300 {
        now += SignedDuration::from_mins(1);
        let mut changes = BTreeMap::new();
        for _ in 0..=random.below(3) {
            let object = objects[random.below(objects.len())];
            // From what was found first, so that what broke is mended again now and then.
            let next = if random.once_in(3) {
                original.observations.get(object).cloned()
            } else {
                changed(&mut random, &original, object, now)
            };
            match &next {
                Some(observed) => evidence.observations.insert(object.clone(), observed.clone()),
                None => evidence.observations.remove(object),
            };
            changes.insert(object.clone(), next);
        }
        // Without anything but the letters of before, and the objects that have to be read.
        let objects_changed: Vec<ObjectKey> = changes.keys().cloned().collect();
        let partial = Partial::of(&dependencies, &objects_changed);
        let mut read = evidence.clone();
        read.observations.retain(|object, _| partial.objects.contains(object));
        objects_read += read.observations.len();
        let (part, after) = partial.decide(&compiled, &read, &letters, now).unwrap();
        let changed = standing.update(changes, now);
        rules_again += changed.len();
        rules_changed.extend(changed);
        let (kept, anew) = (standing.evaluation(), evaluate(&compiled, &evidence, now));
        assert_eq!((&kept.results, &kept.scores, &kept.counts), (&anew.results, &anew.scores, &anew.counts));
        assert_eq!((&part.scores, &part.counts), (&anew.scores, &anew.counts));
        assert_eq!(after, letters_of(&compiled, &anew));
        for result in &part.results {
            assert_eq!(Some(result), anew.results.iter().find(|one| one.rule == result.rule));
        }
        letters = after;
        // What nothing asks for any more may still be known, and is right.
        for (kept, anew) in kept.decisions.tests.iter().zip(&anew.decisions.tests) {
            assert!(anew.is_none() || kept == anew, "{kept:?} is not {anew:?}");
        }
    }
    assert!(objects_read < 300 * objects.len() / 4, "{objects_read} of {} objects were read", 300 * objects.len());
    // It would be easy to agree on nothing.
    assert!(rules_changed.len() > 20 && rules_again > 200, "{} rules, {rules_again} times", rules_changed.len());
}
