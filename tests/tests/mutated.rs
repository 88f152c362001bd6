//! Documents with something broken in them, by seed: every reader and the evaluator get an answer, and nobody panics.
//! `MUSTER_MUTATIONS=N` makes so many of each document.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test fails by panicking, and says how much it did")]

use std::collections::BTreeMap;

use jiff::Timestamp;
use scap::characteristics::Characteristics;
use scap::compile::{compile, compile_definitions};
use scap::documents::{ALONE, of_oval, read_benchmark, read_oval, read_variables};
use scap::evaluate::{Evidence, decide, evaluate};
use scap::policy::Policy;
use scap::tailored::EVERY_RULE;
use system_tests::generate::{Random, oval};
use system_tests::generate_xccdf::xccdf;
use system_tests::{BASELINE, workspace};

const MUTATIONS: u64 = 250;

/// The values of attributes: where each is in the text.
fn values(text: &str) -> Vec<std::ops::Range<usize>> {
    let mut found = Vec::new();
    let mut rest = 0;
    while let Some(from) = text[rest..].find("=\"").map(|at| rest + at + 2) {
        let Some(length) = text[from..].find('"') else { break };
        found.push(from..from + length);
        rest = from + length + 1;
    }
    found
}

/// Elements that begin and end on the way: where each is, roughly.
fn element(random: &mut Random, text: &str) -> Option<std::ops::Range<usize>> {
    let starts: Vec<usize> = text.match_indices('<').map(|(at, _)| at).collect();
    let from = *starts.get(random.below(starts.len()))?;
    let name: String = text[from + 1..].chars().take_while(|letter| !" />\n".contains(*letter)).collect();
    let end = text[from..].find(&format!("</{name}>")).map(|at| from + at + name.len() + 3);
    Some(from..end.unwrap_or_else(|| text[from..].find('>').map_or(text.len(), |at| from + at + 1)))
}

const BAD_VALUES: &[&str] =
    &["", "-1", "99999999999999999999999", "(", "(a+)+$", "\u{0}", "NaN", "true", "AND", "all", "&amp;", "é", "record"];

fn mutate(random: &mut Random, text: &str) -> String {
    let mut text = text.to_owned();
    for _ in 0..=random.below(3) {
        let known = values(&text);
        let pick = |random: &mut Random| known.get(random.below(known.len())).cloned().unwrap_or_default();
        match random.below(7) {
            // An id for another: references to nowhere, cycles, the wrong kind of thing.
            0 | 1 => {
                let (from, to) = (text[pick(random)].to_owned(), pick(random));
                text.replace_range(to, &from);
            }
            2 => {
                let to = pick(random);
                text.replace_range(to, random.pick(BAD_VALUES));
            }
            3 => {
                if let Some(range) = element(random, &text) {
                    text.replace_range(range, "");
                }
            }
            4 => {
                if let Some(range) = element(random, &text).filter(|range| range.len() < 20_000) {
                    let copy = text[range.clone()].to_owned();
                    text.insert_str(range.end, &copy);
                }
            }
            5 => {
                let at = text.char_indices().nth(random.below(text.chars().count())).map_or(0, |(at, _)| at);
                text.insert_str(at, random.pick(&["<", ">", "\"", "<![CDATA[", "&x;", "<!--", "\u{ffff}", "]]>"]));
            }
            _ => {
                let at = text.char_indices().nth(random.below(text.chars().count())).map_or(0, |(at, _)| at);
                if random.once_in(4) {
                    text.truncate(at);
                }
            }
        }
    }
    text
}

/// Decides what can be read; whether it could.
fn policy_of(text: &str) -> Option<Policy> {
    let bytes = text.as_bytes();
    let oval = std::fs::read(workspace().join("tests/fixtures/xccdf/features-oval.xml")).unwrap();
    let bundle = read_benchmark(bytes, &mut |_| Some(oval.clone())).map(|bundle| bundle.policy);
    bundle.or_else(|_| scap::datastream::read(bytes.to_vec())).ok()
}

fn everything(text: &str, definitions: &str) -> bool {
    let bytes = text.as_bytes();
    let now = Timestamp::now();
    let _ = scap::validity::faults(bytes);
    let _ = scap::test_result::read(bytes);
    let _ = scap::tailoring::read(bytes);
    let _ = read_variables(bytes);
    let mut is_read = false;
    if let Some(policy) = policy_of(text) {
        is_read = true;
        let first = policy.benchmark.profiles.first().map(|profile| profile.id.clone());
        for profile in [None, Some(EVERY_RULE), first.as_deref()] {
            if let Ok(compiled) = compile(&policy, profile) {
                let evaluation = evaluate(&compiled, &Evidence::default(), now);
                // Nothing was collected: nothing that looks at the endpoint can be as wanted, or not as wanted.
                assert!(
                    evaluation.results.iter().all(|result| result.objects.is_empty() || !result.reasons.is_empty())
                );
            }
        }
        // What was read can be kept and read again.
        assert!(Policy::from_bytes(&policy.to_bytes()).is_ok());
    }
    if let Ok(document) = read_oval(bytes) {
        is_read = true;
        let policy = of_oval(document);
        let compiled = compile_definitions(&policy, ALONE, BTreeMap::new(), true).unwrap();
        decide(&compiled, &Evidence::default(), now);
    }
    if let Ok(found) = Characteristics::read(bytes) {
        is_read = true;
        let policy = of_oval(read_oval(definitions.as_bytes()).unwrap());
        let compiled = compile_definitions(&policy, ALONE, BTreeMap::new(), true).unwrap();
        decide(&compiled, &found.evidence(&compiled.documents[0], now), now);
    }
    is_read
}

#[test]
fn broken_documents_get_an_answer() {
    let mutations = std::env::var("MUSTER_MUTATIONS").map_or(MUTATIONS, |text| text.parse().unwrap());
    let fixture = |name: &str| std::fs::read_to_string(workspace().join("tests/fixtures/xccdf").join(name)).unwrap();
    let generated = oval(1);
    let documents = [
        fixture("features-xccdf.xml"),
        fixture("features-oval.xml"),
        fixture("features-tailoring.xml"),
        xccdf(1).benchmark,
        generated.definitions.clone(),
        generated.characteristics.clone(),
    ];
    let (mut made, mut read) = (0, 0);
    for (number, document) in (0..).zip(&documents) {
        for seed in 0..mutations {
            let text = mutate(&mut Random::new(seed * 64 + number), document);
            made += 1;
            read += u64::from(everything(&text, &generated.definitions));
        }
    }
    let baseline = String::from_utf8(BASELINE.to_vec()).unwrap();
    for seed in 0..mutations / 25 {
        made += 1;
        read += u64::from(everything(&mutate(&mut Random::new(seed), &baseline), &generated.definitions));
    }
    println!("{made} documents, {read} of them could be read");
    assert!(read * 10 > made, "a document that nobody reads tests little: {read} of {made}");
}
