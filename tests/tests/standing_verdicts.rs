//! Verdicts that are kept while objects change, against deciding everything anew.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use proto::content::ContentHash;
use proto::observation::{Collected, Flag};
use proto::plan::ObjectKey;
use proto::verdict::RuleResult;
use scap::compile::{Compiled, compile};
use scap::dependencies::Dependencies;
use scap::evaluate::{Evaluation, Evidence, Observed, evaluate};
use scap::memo::{DecidedTests, Decision, Known, Memo, Tally, View};
use scap::partial::Partial;
use scap::standing::Standing;
use scap::versions::changed_rules;
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

/// One endpoint after the other, by one memory.
struct Remembering<'plan> {
    compiled: &'plan Compiled,
    memo: Memo,
    /// Objects that had to be read.
    read: usize,
}

impl Remembering<'_> {
    /// Decides these rules as an evaluator does: by hashes, and by contents where those say nothing.
    fn decide(
        &mut self,
        evidence: &Evidence,
        rules: &BTreeSet<usize>,
        now: Timestamp,
    ) -> (View, Vec<(usize, Arc<Decision>)>) {
        let found: Vec<Option<&Observed>> =
            self.compiled.collection.report.iter().map(|object| evidence.observations.get(object)).collect();
        let mut known = |observed: &&Observed| {
            let hash = ContentHash::of(&serde_json::to_vec(&*observed.collected_object).unwrap());
            Known { content: self.memo.content(&hash), collected: observed.collected }
        };
        let known = found.iter().map(|observed| observed.as_ref().map(&mut known)).collect();
        let view = View { known, collected_since: evidence.collected_since };
        let recalled = self.memo.recall(&view, rules);
        self.read += recalled.unread.len();
        let contents = recalled.unread.iter().map(|at| (*at, Collected::clone(&found[*at].unwrap().collected_object)));
        let contents = contents.collect();
        let decided = if recalled.is_complete() {
            DecidedTests::default()
        } else {
            recalled.decide(self.compiled, &view, contents, now)
        };
        let decisions = self.memo.conclude(self.compiled, &view, recalled, decided, rules, now);
        (view, decisions)
    }
}

fn selected(compiled: &Compiled) -> BTreeSet<usize> {
    compiled.rules.iter().enumerate().filter(|(_, rule)| rule.selected).map(|(at, _)| at).collect()
}

fn assert_the_same(
    compiled: &Compiled,
    (view, decisions): &(View, Vec<(usize, Arc<Decision>)>),
    evaluation: &Evaluation,
) {
    let results: Vec<&RuleResult> = decisions.iter().map(|(_, decision)| &decision.result).collect();
    assert_eq!(results, evaluation.results.iter().collect::<Vec<_>>());
    let tally = Tally::of(compiled, decisions, None).unwrap();
    assert_eq!((&tally.counts, tally.score), (&evaluation.counts, evaluation.score));
    assert_eq!(view.oldest(decisions), evaluation.oldest_collected);
}

#[test]
fn endpoints_that_are_alike_are_decided_once_and_each_as_if_it_were_alone() {
    let policy = scap::datastream::read(BASELINE.to_vec()).unwrap();
    let compiled = compile(&policy, Some("server")).unwrap();
    let original = evidence_of(&compiled, "/");
    let objects: Vec<&ObjectKey> = original.observations.keys().collect();
    let rules = selected(&compiled);
    let mut remembering = Remembering { compiled: &compiled, memo: Memo::of(&compiled), read: 0 };
    let mut random = Random::new(5);
    let mut now = Timestamp::now();
    let mut verdicts = BTreeSet::new();
    for endpoint in 0..300 {
        now += SignedDuration::from_mins(1);
        let mut evidence = original.clone();
        // Most have been looked at lately; what some of them say is too old.
        evidence.collected_since = random.once_in(3).then(|| now - SignedDuration::from_mins(90));
        for object in &objects {
            if random.once_in(8) {
                match changed(&mut random, &original, object, now) {
                    Some(observed) => evidence.observations.insert((*object).clone(), observed),
                    None => evidence.observations.remove(*object),
                };
            } else if let Some(observed) = evidence.observations.get_mut(*object) {
                observed.collected = now - SignedDuration::from_mins(if random.once_in(20) { 100 } else { 1 });
            }
        }
        let evaluation = evaluate(&compiled, &evidence, now);
        assert_the_same(&compiled, &remembering.decide(&evidence, &rules, now), &evaluation);
        verdicts.extend(evaluation.results.iter().map(|result| (result.rule.clone(), result.verdict)));
        if endpoint == 0 {
            // The same again: nothing has to be read, but for what reads the clock.
            let before = std::mem::take(&mut remembering.read);
            let again = evaluate(&compiled, &evidence, now);
            assert_the_same(&compiled, &remembering.decide(&evidence, &rules, now), &again);
            assert!(before > objects.len() / 2 && remembering.read < before / 10, "{before}, {}", remembering.read);
        }
    }
    assert!(remembering.read < 300 * objects.len() / 2, "{} objects were read", remembering.read);
    assert!(verdicts.len() > rules.len() * 2, "{} verdicts on {} rules", verdicts.len(), rules.len());
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
    let rules = selected(&compiled);
    let mut remembering = Remembering { compiled: &compiled, memo: Memo::of(&compiled), read: 0 };
    let (_, decisions) = remembering.decide(&evidence, &rules, now);
    let mut letters = Tally::of(&compiled, &decisions, None).unwrap().letters;
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
        let (_, part) = remembering.decide(&read, &partial.rules, now);
        let part_tally = Tally::of(&compiled, &part, Some(&letters)).unwrap();
        let changed = standing.update(changes, now);
        rules_again += changed.len();
        rules_changed.extend(changed);
        let (kept, anew) = (standing.evaluation(), evaluate(&compiled, &evidence, now));
        assert_eq!((&kept.results, &kept.scores, &kept.counts), (&anew.results, &anew.scores, &anew.counts));
        assert_eq!((part_tally.score, &part_tally.counts), (anew.score, &anew.counts));
        assert_eq!(part.len(), partial.rules.len());
        for (_, decision) in &part {
            assert_eq!(Some(&decision.result), anew.results.iter().find(|one| one.rule == decision.result.rule));
        }
        let whole = remembering.decide(&evidence, &rules, now);
        assert_the_same(&compiled, &whole, &anew);
        letters = Tally::of(&compiled, &whole.1, None).unwrap().letters;
        assert_eq!(part_tally.letters, letters);
        // What nothing asks for any more may still be known, and is right.
        for (kept, anew) in kept.decisions.tests.iter().zip(&anew.decisions.tests) {
            assert!(anew.is_none() || kept == anew, "{kept:?} is not {anew:?}");
        }
    }
    assert!(objects_read < 300 * objects.len() / 4, "{objects_read} of {} objects were read", 300 * objects.len());
    // It would be easy to agree on nothing.
    assert!(rules_changed.len() > 20 && rules_again > 200, "{} rules, {rules_again} times", rules_changed.len());
}

/// Another version of a policy: one thing in it says something else.
fn another_version(random: &mut Random, text: &str) -> String {
    const EDITS: [(&str, &str); 12] = [
        (" test_ref=\"", " negate=\"true\" test_ref=\""),
        (" operator=\"AND\"", " operator=\"OR\""),
        (" severity=\"medium\"", " severity=\"high\""),
        (" selected=\"true\" severity=", " selected=\"true\" weight=\"7.5\" severity="),
        (" selected=\"true\" severity=", " selected=\"true\" role=\"unscored\" severity="),
        ("<fixtext>", "<fixtext>First of all: "),
        ("<title>", "<title>From now on: "),
        (" check=\"all\"", " check=\"none satisfy\""),
        (" check_existence=\"none_exist\"", " check_existence=\"any_exist\""),
        (" comment=\"", " comment=\"what is said here: "),
        (" operation=\"greater than or equal\"", " operation=\"less than\""),
        (" operation=\"pattern match\"", " operation=\"equals\""),
    ];
    let (from, to) = EDITS[random.below(EDITS.len())];
    let places: Vec<usize> = text.match_indices(from).map(|(at, _)| at).collect();
    let at = places[random.below(places.len())];
    format!("{}{to}{}", &text[..at], &text[at + from.len()..])
}

#[test]
fn what_another_version_does_not_change_is_taken_over_as_if_everything_were_decided_by_it() {
    let text = String::from_utf8(BASELINE.to_vec()).unwrap();
    let compiled_from =
        |text: &str| compile(&scap::datastream::read(text.as_bytes().to_vec()).unwrap(), Some("server")).unwrap();
    let before = compiled_from(&text);
    assert_eq!(changed_rules(&before, &compiled_from(&text)), Some(BTreeSet::new()));
    let original = evidence_of(&before, "/");
    let rules = selected(&before);
    let mut random = Random::new(17);
    let mut now = Timestamp::now();
    let (mut changed_count, mut different) = (0, BTreeSet::new());
    for _ in 0..200 {
        now += SignedDuration::from_mins(1);
        let mut evidence = original.clone();
        for object in original.observations.keys() {
            if random.once_in(4) {
                match changed(&mut random, &original, object, now) {
                    Some(observed) => evidence.observations.insert(object.clone(), observed),
                    None => evidence.observations.remove(object),
                };
            }
        }
        let after = compiled_from(&another_version(&mut random, &text));
        let changed = changed_rules(&before, &after).expect("the same rules");
        changed_count += changed.len();
        let of = |evaluation: Evaluation| -> BTreeMap<String, RuleResult> {
            evaluation.results.into_iter().map(|result| (result.rule.clone(), result)).collect()
        };
        let whole = evaluate(&after, &evidence, now);
        let (said, counts, score) = (of(evaluate(&before, &evidence, now)), whole.counts.clone(), whole.score);
        let says = of(whole);
        for at in &rules {
            let rule = &before.rules[*at].id;
            if said[rule] != says[rule] {
                assert!(changed.contains(at), "{rule} is not what it was: {:?}, {:?}", said[rule], says[rule]);
                different.insert(rule.clone());
            }
        }
        // Without anything but the letters of the version before, and the objects that have to be read.
        let mut by_before = Remembering { compiled: &before, memo: Memo::of(&before), read: 0 };
        let letters = Tally::of(&before, &by_before.decide(&evidence, &rules, now).1, None).unwrap().letters;
        let partial = Partial::of_rules(&Dependencies::of(&after), changed);
        evidence.observations.retain(|object, _| partial.objects.contains(object));
        let mut by_after = Remembering { compiled: &after, memo: Memo::of(&after), read: 0 };
        let (_, part) = by_after.decide(&evidence, &partial.rules, now);
        let tally = Tally::of(&after, &part, Some(&letters)).unwrap();
        assert_eq!((tally.score, tally.counts), (score, counts));
        assert!(part.iter().all(|(_, decision)| says[&decision.result.rule] == decision.result));
    }
    assert!(changed_count < 200 * rules.len() / 4, "{changed_count} rules were taken for others");
    assert!(different.len() > 20, "{different:?}");
}

#[test]
fn versions_with_other_rules_have_nothing_that_could_be_taken_over() {
    let text = String::from_utf8(BASELINE.to_vec()).unwrap();
    let compiled_from = |text: &str, profile: &str| {
        compile(&scap::datastream::read(text.as_bytes().to_vec()).unwrap(), Some(profile)).unwrap()
    };
    let before = compiled_from(&text, "server");
    let rule = &before.rules[3].id;
    let renamed = text.replace(&format!("\"{rule}\""), "\"xccdf_dev.muster_rule_another\"");
    let selects = |is_selected| format!("<select idref=\"{rule}\" selected=\"{is_selected}\"/>");
    let left_out = text.replace(&selects(true), &selects(false));
    for other in [renamed, left_out] {
        assert_ne!(other, text);
        assert_eq!(changed_rules(&before, &compiled_from(&other, "server")), None);
    }
    let profiles = scap::datastream::read(BASELINE.to_vec()).unwrap();
    let another = profiles.benchmark.profiles.iter().find(|profile| profile.id != before.profile).unwrap();
    assert_eq!(changed_rules(&before, &compiled_from(&text, &another.id)), None);
}
