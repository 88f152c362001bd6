//! The engine against `oscap oval analyse`: generated documents, by seed.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test fails by panicking, and says what it skips")]

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use jiff::Timestamp;
use oval::check::Truth;
use scap::characteristics::Characteristics;
use scap::compile::compile_definitions;
use scap::documents::{ALONE, of_oval, read_oval};
use scap::evaluate::decide;
use system_tests::generate::{Generated, oval as generated};

/// Documents compared; `MUSTER_AGREEMENT_SEEDS=FROM..TO` compares others.
const SEEDS: std::ops::Range<u64> = 0..150;

type Results = BTreeMap<String, String>;

/// Definitions and tests by id, as the engine decides them.
fn ours(generated: &Generated) -> Results {
    let policy = of_oval(read_oval(generated.definitions.as_bytes()).unwrap());
    let compiled = compile_definitions(&policy, ALONE, BTreeMap::new(), true).unwrap();
    let now = Timestamp::now();
    let document = &compiled.documents[0];
    let evidence = Characteristics::read(generated.characteristics.as_bytes()).unwrap().evidence(document, now);
    let decisions = decide(&compiled, &evidence, now);
    let mut results = Results::new();
    for (id, at) in &document.definitions {
        results.insert(id.clone(), decisions.definitions[*at].unwrap_or(Truth::NotEvaluated).as_str().to_owned());
    }
    for (id, at) in &document.tests {
        let truth = decisions.tests[*at].as_ref().map_or(Truth::NotEvaluated, |test| test.truth);
        results.insert(id.clone(), truth.as_str().to_owned());
    }
    results
}

/// The same from `oscap`'s results; none where it dies (1.3.7 does, of some documents that its own schemas accept).
fn theirs(generated: &Generated, directory: &Path) -> Option<Results> {
    let path = |name: &str| directory.join(name);
    std::fs::write(path("definitions.xml"), &generated.definitions).unwrap();
    std::fs::write(path("characteristics.xml"), &generated.characteristics).unwrap();
    let output = Command::new("oscap")
        .args(["oval", "analyse", "--results"])
        .args([path("results.xml"), path("definitions.xml"), path("characteristics.xml")])
        .output()
        .unwrap();
    // Killed by a signal: no code.
    output.status.code()?;
    assert!(output.status.success(), "{}: {}", output.status, String::from_utf8_lossy(&output.stderr));
    let text = std::fs::read_to_string(path("results.xml")).unwrap();
    let mut results = Results::new();
    for element in text.split('<').filter(|element| element.starts_with("definition ") || element.starts_with("test "))
    {
        let attribute = |name: &str| {
            let from = element.find(&format!("{name}=\""))? + name.len() + 2;
            Some(element[from..].split('"').next()?.to_owned())
        };
        let id = attribute("definition_id").or_else(|| attribute("test_id"));
        if let (Some(id), Some(result)) = (id, attribute("result")) {
            results.insert(id, result);
        }
    }
    Some(results)
}

#[test]
fn generated_documents_are_decided_as_oscap_decides_them() {
    if Command::new("oscap").arg("--version").output().is_err() {
        assert!(std::env::var_os("MUSTER_REQUIRE_OSCAP").is_none(), "oscap is required here and is missing");
        println!("SKIPPED: oscap (package openscap-scanner) is not installed");
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let (mut compared, mut died) = (0, 0);
    let mut differ = Vec::new();
    for seed in system_tests::generate::seeds(SEEDS) {
        let generated = generated(seed);
        let ours = ours(&generated);
        let Some(theirs) = theirs(&generated, directory.path()) else {
            died += 1;
            continue;
        };
        // For a look at what differs.
        if let Some(keep) = std::env::var_os("MUSTER_AGREEMENT_KEEP") {
            let keep = Path::new(&keep).join(seed.to_string());
            std::fs::create_dir_all(&keep).unwrap();
            for name in ["definitions.xml", "characteristics.xml", "results.xml"] {
                std::fs::copy(directory.path().join(name), keep.join(name)).unwrap();
            }
        }
        for (id, result) in &theirs {
            compared += 1;
            if ours.get(id) != Some(result) {
                differ.push(format!("seed {seed}: {id}: oscap {result}, muster {:?}", ours.get(id)));
            }
        }
    }
    println!("{} of {compared} results agree with oscap; it died of {died} documents", compared - differ.len());
    assert!(differ.is_empty(), "{} of {compared} differ:\n{}", differ.len(), differ.join("\n"));
}
