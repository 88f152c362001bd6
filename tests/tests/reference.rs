//! The evaluator against a slow one that is plainly right (`tests/src/reference.rs`).

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test fails by panicking, and says how much it did")]

use std::collections::BTreeMap;

use jiff::Timestamp;
use oval::check::Truth;
use proto::observation::Status;
use proto::plan::{Check, Existence, Operator};
use scap::characteristics::Characteristics;
use scap::compile::compile_definitions;
use scap::documents::{ALONE, of_oval, read_oval};
use scap::evaluate::decide;
use system_tests::generate;
use system_tests::reference::{self, Reference};

/// Every way to take up to `most` of each of these.
fn multisets<T: Copy>(of: &[T], most: usize) -> Vec<Vec<T>> {
    let Some((first, rest)) = of.split_first() else { return vec![Vec::new()] };
    let mut all = Vec::new();
    for others in multisets(rest, most) {
        for count in 0..=most {
            all.push([vec![*first; count], others.clone()].concat());
        }
    }
    all
}

#[test]
fn the_truth_tables_are_those_of_the_schema() {
    for values in multisets(&Truth::ALL, 3) {
        for kind in Check::ALL {
            let (found, expected) =
                (oval::check::check(*kind, values.iter().copied()), reference::check(*kind, &values));
            assert_eq!(found, expected, "{kind} of {values:?}");
        }
        for kind in [Operator::And, Operator::Or, Operator::One, Operator::Xor] {
            let found = oval::check::operator(kind, values.iter().copied());
            assert_eq!(found, reference::operator(kind, &values), "{kind:?} of {values:?}");
        }
    }
    let statuses = [Status::Exists, Status::DoesNotExist, Status::Error, Status::NotCollected];
    for values in multisets(&statuses, 3) {
        for kind in Existence::ALL {
            let found = oval::check::existence(*kind, values.iter().copied());
            assert_eq!(found, reference::existence(*kind, &values), "{kind} of {values:?}");
        }
    }
}

#[test]
fn generated_documents_are_decided_as_the_slow_evaluator_decides_them() {
    let (mut compared, mut left_out) = (0, 0);
    for seed in generate::seeds(0..600) {
        let generated = generate::oval(seed);
        let document = read_oval(generated.definitions.as_bytes()).unwrap();
        let found = Characteristics::read(generated.characteristics.as_bytes()).unwrap();
        let policy = of_oval(document.clone());
        let compiled = compile_definitions(&policy, ALONE, BTreeMap::new(), true).unwrap();
        let now = Timestamp::now();
        let plan = &compiled.documents[0];
        let decisions = decide(&compiled, &found.evidence(plan, now), now);
        let reference = Reference { oval: &document, found: &found };
        let definitions =
            plan.definitions.iter().map(|(id, at)| (id, decisions.definitions[*at], reference.definition(id)));
        let tests = plan
            .tests
            .iter()
            .map(|(id, at)| (id, decisions.tests[*at].as_ref().map(|test| test.truth), reference.test(id)));
        for (id, found, expected) in definitions.chain(tests) {
            if expected.is_none() {
                left_out += 1;
                continue;
            }
            compared += 1;
            assert_eq!(found, expected, "seed {seed}: {id}");
        }
    }
    println!("{compared} results agree; {left_out} depend on functions and are left out");
    assert!(compared > left_out, "{compared} compared, {left_out} left out");
}
