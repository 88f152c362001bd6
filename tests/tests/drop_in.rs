//! `muster scap` beside `oscap`: the same words, and what comes out compared.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test fails by panicking, and says what it skips")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use system_tests::processes::binaries;
use system_tests::workspace;

/// Rules that `oscap` decides against the specification (docs/oscap-differences.md).
const KNOWN: &[&str] = &["complex_and_ee", "complex_or_ee"];

/// `oscap` does not give its variable a value, because of the `check-import`.
const IMPORTED: &str = "xccdf_dev.muster_rule_imported";

fn oscap_is_missing() -> bool {
    let is_missing = Command::new("oscap").arg("--version").output().is_err();
    if is_missing {
        assert!(std::env::var_os("MUSTER_REQUIRE_OSCAP").is_none(), "oscap is required here and is missing");
        println!("SKIPPED: oscap (package openscap-scanner) is not installed: nothing was compared");
    }
    is_missing
}

fn fixture(name: &str) -> PathBuf {
    workspace().join("tests/fixtures/xccdf").join(name)
}

fn muster(words: &[&str], directory: &Path) -> Output {
    Command::new(binaries().join("muster")).arg("scap").args(words).current_dir(directory).output().unwrap()
}

fn oscap(words: &[&str], directory: &Path) -> Output {
    Command::new("oscap").args(words).current_dir(directory).output().unwrap()
}

/// Results by rule, from what `xccdf eval` prints.
fn printed(output: &Output) -> BTreeMap<String, String> {
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let mut results = BTreeMap::new();
    let mut rule = String::new();
    for line in text.split('\n') {
        match line.split_once("\r\t") {
            Some(("Rule", id)) => id.clone_into(&mut rule),
            Some(("Result", result)) => {
                results.insert(rule.clone(), result.to_owned());
            }
            _ => {}
        }
    }
    results
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn everything_that_a_benchmark_can_say_is_decided_as_oscap_decides_it() {
    if oscap_is_missing() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let (xccdf, tailoring) = (fixture("features-xccdf.xml"), fixture("features-tailoring.xml"));
    let (xccdf, tailoring) = (xccdf.to_str().unwrap(), tailoring.to_str().unwrap());
    let cases: &[&[&str]] = &[
        &[],
        &["--profile", "xccdf_dev.muster_profile_base"],
        &["--profile", "derived"],
        &["--profile", "(all)"],
        &["--tailoring-file", tailoring, "--profile", "xccdf_dev.muster_profile_base"],
        &["--tailoring-file", tailoring, "--profile", "xccdf_dev.muster_profile_tailored"],
        &["--rule", "xccdf_dev.muster_rule_plain_true"],
        &["--skip-rule", "xccdf_dev.muster_rule_plain_true", "--skip-rule", "xccdf_dev.muster_rule_plain_false"],
    ];
    for case in cases {
        let words: Vec<&str> = ["xccdf", "eval"].iter().chain(*case).copied().chain([xccdf]).collect();
        let (ours, theirs) = (muster(&words, directory.path()), oscap(&words, directory.path()));
        assert_eq!(ours.status.code(), theirs.status.code(), "{case:?}: {}", stderr(&ours));
        let (mut found, mut expected) = (printed(&ours), printed(&theirs));
        assert!(!expected.is_empty(), "{case:?}: {}", stderr(&theirs));
        for known in KNOWN {
            let rule = format!("xccdf_dev.muster_rule_{known}");
            assert_ne!(found.remove(&rule).as_deref(), Some("pass"));
            expected.remove(&rule);
        }
        found.remove(IMPORTED);
        expected.remove(IMPORTED);
        assert_eq!(found, expected, "{case:?}");
    }
}

/// Benchmarks compared; `MUSTER_AGREEMENT_SEEDS=FROM..TO` compares others.
const SEEDS: std::ops::Range<u64> = 0..30;

/// Results by rule and scores by model, from an XCCDF results file.
fn written(path: &Path) -> BTreeMap<String, String> {
    let text = std::fs::read_to_string(path).unwrap();
    let mut results = BTreeMap::new();
    for part in text.split("<rule-result ").skip(1) {
        let between = |from: &str, to: &str| Some(part.split(from).nth(1)?.split(to).next()?.to_owned());
        results.insert(between("idref=\"", "\"").unwrap(), between("<result>", "<").unwrap());
    }
    for part in text.split("<score ").skip(1) {
        let system = part.split("system=\"").nth(1).unwrap().split('"').next().unwrap();
        let score: f64 = part.split('>').nth(1).unwrap().split('<').next().unwrap().parse().unwrap();
        results.insert(system.to_owned(), format!("{score:.3}"));
    }
    results
}

#[test]
fn generated_benchmarks_are_decided_as_oscap_decides_them() {
    if oscap_is_missing() {
        return;
    }
    let seeds = system_tests::generate::seeds(SEEDS);
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    let (mut compared, mut died, mut differ) = (0, 0, Vec::new());
    for seed in seeds {
        let generated = system_tests::generate_xccdf::xccdf(seed);
        std::fs::write(path("xccdf.xml"), &generated.benchmark).unwrap();
        std::fs::write(path("oval.xml"), &generated.definitions).unwrap();
        for profile in generated.profiles.iter().map(String::as_str).chain(["", "(all)"]) {
            let mut words = vec!["xccdf", "eval", "--results", "results.xml"];
            if !profile.is_empty() {
                words.extend(["--profile", profile]);
            }
            words.push("xccdf.xml");
            let theirs = oscap(&words, directory.path());
            if theirs.status.code().is_none_or(|code| code > 2) {
                died += 1;
                continue;
            }
            assert!(matches!(theirs.status.code(), Some(0 | 2)), "seed {seed}: {}", stderr(&theirs));
            let expected = written(&path("results.xml"));
            let ours = muster(&words, directory.path());
            if ours.status.code() != theirs.status.code() {
                differ.push(format!("seed {seed}, {profile}: {} and {}", ours.status, theirs.status));
            }
            let found = written(&path("results.xml"));
            assert_eq!(found.len(), expected.len(), "seed {seed}, {profile}");
            for (what, expected) in &expected {
                compared += 1;
                if found.get(what) != Some(expected) {
                    differ.push(format!(
                        "seed {seed}, {profile}: {what}: oscap {expected}, muster {:?}",
                        found.get(what)
                    ));
                }
            }
        }
    }
    println!("{} of {compared} results agree with oscap; it died of {died} runs", compared - differ.len());
    assert!(differ.is_empty(), "{} of {compared} differ:\n{}", differ.len(), differ.join("\n"));
}

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// From the first fix on: headers are each program's own.
fn body(script: &str, from: &str) -> Vec<String> {
    let lines = script.lines().skip_while(|line| !line.starts_with(from));
    // `oscap` leaves more lines empty between tasks.
    lines.filter(|line| !line.is_empty()).map(str::to_owned).collect()
}

#[test]
fn scripts_are_those_that_oscap_makes() {
    let directory = tempfile::tempdir().unwrap();
    let xccdf = fixture("fixes-xccdf.xml");
    let xccdf = xccdf.to_str().unwrap();
    for (words, from) in [
        (&["xccdf", "generate", "fix", xccdf][..], "# BEGIN fix"),
        (&["xccdf", "generate", "fix", "--profile", "strict", "--fix-type", "bash", xccdf], "# BEGIN fix"),
        (&["xccdf", "generate", "--profile", "strict", "fix", "--fix-type", "ansible", xccdf], "- hosts"),
        (&["xccdf", "generate", "fix", "--template", "urn:xccdf:fix:script:sh", xccdf], ""),
    ] {
        let ours = muster(words, directory.path());
        assert_eq!(ours.status.code(), Some(0), "{words:?}: {}", stderr(&ours));
        if !from.is_empty() && !oscap_is_missing() {
            let theirs = oscap(words, directory.path());
            assert_eq!(body(&stdout(&ours), from), body(&stdout(&theirs), from), "{words:?}");
        }
    }
    let strict = stdout(&muster(&["xccdf", "generate", "fix", "--profile", "strict", xccdf], directory.path()));
    assert!(strict.contains("limit='5'\necho \"$limit < 100\" # R1"), "{strict}");
    assert!(strict.contains("FIX FOR THIS RULE 'xccdf_dev.muster_rule_without' IS MISSING!"));

    // Of a result, only what failed; and nothing is run.
    for (option, file) in [("--results", "results.xml"), ("--results-arf", "arf.xml")] {
        let words = ["xccdf", "eval", "--profile", "strict", option, file, xccdf];
        assert_eq!(muster(&words, directory.path()).status.code(), Some(2));
        let words = ["xccdf", "remediate", "--dry-run", file];
        let script = muster(&words, directory.path());
        assert_eq!(script.status.code(), Some(0), "{}", stderr(&script));
        let script = stdout(&script);
        assert!(script.contains("limit='5'") && !script.contains("echo met"), "{script}");
        let refused = muster(&["xccdf", "remediate", file], directory.path());
        assert_eq!(refused.status.code(), Some(1));
        assert!(stderr(&refused).contains("--dry-run"));
        if !oscap_is_missing() {
            // `oscap` reads our results as its own.
            let words = ["xccdf", "generate", "fix", "--result-id", "", file];
            let (ours, theirs) = (muster(&words, directory.path()), oscap(&words, directory.path()));
            assert_eq!(body(&stdout(&ours), "# BEGIN"), body(&stdout(&theirs), "# BEGIN"), "{file}");
        }
        let report = stdout(&muster(&["xccdf", "generate", "report", file], directory.path()));
        assert!(report.contains("One of several (5)") && report.contains("3 pass"), "{report}");
    }
    let wrong = muster(&["xccdf", "generate", "fix", "--result-id", "nobody", "arf.xml"], directory.path());
    assert_eq!(wrong.status.code(), Some(1));
    assert!(stderr(&wrong).contains("nobody") && stderr(&wrong).contains("testresult"));
}

#[test]
fn a_guide_tells_what_is_selected_and_escapes_what_it_tells() {
    let directory = tempfile::tempdir().unwrap();
    let xccdf = fixture("fixes-xccdf.xml");
    let words =
        ["xccdf", "generate", "guide", "--profile", "strict", "--output", "guide.html", xccdf.to_str().unwrap()];
    assert_eq!(muster(&words, directory.path()).status.code(), Some(0));
    let guide = std::fs::read_to_string(directory.path().join("guide.html")).unwrap();
    for part in [
        "Fixes &amp; more",
        "<code>fix</code> elements <b>say</b> &lt;here&gt;",
        "One of several (5)",
        "<pre>a\nb</pre>",
        "Because.",
        "5 rules are selected",
        "Child",
    ] {
        assert!(guide.contains(part), "{part}: {guide}");
    }
    assert!(!guide.contains(">Base<"), "an abstract rule is none");
}

#[test]
fn each_definition_of_a_multi_check_has_its_result() {
    let directory = tempfile::tempdir().unwrap();
    let xccdf = fixture("fixes-xccdf.xml");
    let words = ["xccdf", "eval", "--results", "results.xml", "--results-csv", "results.csv", xccdf.to_str().unwrap()];
    let ours = muster(&words, directory.path());
    assert_eq!(ours.status.code(), Some(2), "{}", stderr(&ours));
    let text = stdout(&ours);
    assert!(
        text.contains("OVAL Definition ID\toval:two:def:2\nOVAL Definition Title\tThere is none\nResult\r\tfail"),
        "{text}"
    );
    let written = std::fs::read_to_string(directory.path().join("results.xml")).unwrap();
    assert_eq!(written.matches("idref=\"xccdf_dev.muster_rule_multi\"").count(), 2);
    let csv = std::fs::read_to_string(directory.path().join("results.csv")).unwrap();
    assert!(csv.starts_with("rule,title,severity,verdict,") && csv.contains(",'=Met,"), "{csv}");
    if !oscap_is_missing() {
        let words = ["xccdf", "eval", xccdf.to_str().unwrap()];
        assert_eq!(text, stdout(&oscap(&words, directory.path())));
    }
}

#[test]
fn a_benchmark_is_decided_on_what_was_collected_somewhere_else() {
    let directory = tempfile::tempdir().unwrap();
    let xccdf = fixture("fixes-xccdf.xml");
    let xccdf = xccdf.to_str().unwrap();
    let collect = |who: &str, name: &str| {
        let oval = fixture(&format!("{name}-oval.xml"));
        let words = ["oval", "collect", "--syschar", &format!("{name}.xml"), oval.to_str().unwrap()];
        let output = if who == "oscap" { oscap(&words, directory.path()) } else { muster(&words, directory.path()) };
        assert!(output.status.success(), "{}", stderr(&output));
    };
    let here = stdout(&muster(&["xccdf", "eval", xccdf], directory.path()));
    for who in if oscap_is_missing() { &["muster"][..] } else { &["muster", "oscap"] } {
        collect(who, "features");
        collect(who, "two");
        let words = ["xccdf", "eval", "--syschar", "features.xml", "--syschar", "two.xml", xccdf];
        let there = muster(&words, directory.path());
        assert_eq!(there.status.code(), Some(2), "{}", stderr(&there));
        assert_eq!(stdout(&there), here, "collected by {who}");
    }
    // The same object in another document is the same question; what nobody collected is unknown.
    let partly = muster(&["xccdf", "eval", "--syschar", "two.xml", xccdf], directory.path());
    assert_eq!(stdout(&partly), here);
    let features = fixture("features-xccdf.xml");
    let (here, partly) = (
        printed(&muster(&["xccdf", "eval", features.to_str().unwrap()], directory.path())),
        printed(&muster(&["xccdf", "eval", "--syschar", "two.xml", features.to_str().unwrap()], directory.path())),
    );
    let lost = here.iter().filter(|(rule, result)| *result == "pass" && partly[*rule] == "unknown").count();
    assert!(lost > 0, "{partly:?}");
    let wrong = muster(&["xccdf", "eval", "--syschar", "nowhere.xml", xccdf], directory.path());
    assert_eq!(wrong.status.code(), Some(1));
}

#[test]
fn what_could_be_taken_for_something_else_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::copy(fixture("two-oval.xml"), directory.path().join("two-oval.xml")).unwrap();
    let benchmark = |body: &str| {
        let text = format!(
            "<Benchmark xmlns='http://checklists.nist.gov/xccdf/1.2' id='xccdf_a.b_benchmark_c'>\n<status>draft</status>\n\
             <version>1</version>\n{body}\n</Benchmark>"
        );
        std::fs::write(directory.path().join("xccdf.xml"), text).unwrap();
        muster(&["xccdf", "eval", "--skip-valid", "xccdf.xml"], directory.path())
    };
    let check = |attributes: &str, definition: u8| {
        format!(
            "<check system='http://oval.mitre.org/XMLSchema/oval-definitions-5' {attributes}>\
             <check-content-ref href='two-oval.xml' name='oval:two:def:{definition}'/></check>"
        )
    };
    for (body, wanted) in [
        (format!("<Rule id='r'>{}</Rule>", check("negate='TRUE'", 1)), "negate=\"TRUE\""),
        (format!("<Rule id='r' selected='yes'>{}</Rule>", check("", 1)), "selected=\"yes\""),
        (format!("<Rule id='r'>{}</Rule>\n<Rule id='r'>{}</Rule>", check("", 2), check("", 1)), "`r` stands twice"),
    ] {
        let output = benchmark(&body);
        assert_eq!(output.status.code(), Some(1), "{body}");
        assert!(stderr(&output).contains(wanted) && stderr(&output).contains("line "), "{}", stderr(&output));
    }
    // Its own check counts, and not the complex one that it inherits.
    let complex = format!("<complex-check operator='AND'>{}</complex-check>", check("", 1));
    let output = benchmark(&format!("<Rule id='r'>{complex}</Rule>\n<Rule id='s' extends='r'>{}</Rule>", check("", 2)));
    assert_eq!(
        printed(&output),
        BTreeMap::from([("r".to_owned(), "pass".to_owned()), ("s".to_owned(), "fail".to_owned())])
    );
    // A shell would carry out what stands in an id.
    let output = benchmark(&format!("<Rule id='r$(touch x)'>{}</Rule>", check("", 2)));
    assert_eq!(output.status.code(), Some(2));
    let script = muster(&["xccdf", "generate", "fix", "--skip-valid", "xccdf.xml"], directory.path());
    assert!(stdout(&script).contains("'r--touch-x-'") && !stdout(&script).contains("$("), "{}", stdout(&script));
}

#[test]
fn a_composed_data_stream_decides_what_its_parts_decided() {
    let directory = tempfile::tempdir().unwrap();
    let xccdf = fixture("fixes-xccdf.xml");
    let xccdf = xccdf.to_str().unwrap();
    let output = muster(&["ds", "sds-compose", xccdf, "stream.xml"], directory.path());
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let alone = muster(&["xccdf", "eval", xccdf], directory.path());
    let composed = muster(&["xccdf", "eval", "stream.xml"], directory.path());
    assert_eq!(stdout(&composed), stdout(&alone));
    let oval =
        ["oval", "eval", "--oval-id", "scap_org.open-scap_cref_two-oval.xml", "--report", "oval.html", "stream.xml"];
    let output = muster(&oval, directory.path());
    assert!(stdout(&output).contains("Definition oval:two:def:1: true"), "{}", stderr(&output));
    assert!(std::fs::read_to_string(directory.path().join("oval.html")).unwrap().contains("There is a family"));
    if !oscap_is_missing() {
        let output = oscap(&["ds", "sds-validate", "stream.xml"], directory.path());
        assert!(output.status.success(), "{}", stderr(&output));
        assert_eq!(stdout(&oscap(&["xccdf", "eval", "stream.xml"], directory.path())), stdout(&alone));
    }
}

#[test]
fn what_is_written_is_valid_for_oscap() {
    if oscap_is_missing() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let stream = workspace().join("orchestrator/policies/muster-baseline-linux-ds.xml");
    let words = [
        "xccdf",
        "eval",
        "--profile",
        "server",
        "--results",
        "results.xml",
        "--results-arf",
        "arf.xml",
        "--oval-results",
        stream.to_str().unwrap(),
    ];
    let output = muster(&words, directory.path());
    assert!(matches!(output.status.code(), Some(0 | 2)), "{}", stderr(&output));
    let mut checks: Vec<Vec<String>> = vec![
        vec!["xccdf".into(), "validate".into(), "results.xml".into()],
        vec!["ds".into(), "rds-validate".into(), "arf.xml".into()],
    ];
    for entry in std::fs::read_dir(directory.path()).unwrap() {
        let name = entry.unwrap().file_name().to_string_lossy().into_owned();
        if name.ends_with(".result.xml") {
            let words = ["oval", "validate", "--skip-schematron", "--results"];
            checks.push(words.iter().map(|word| (*word).to_owned()).chain([name]).collect());
        }
    }
    assert!(checks.len() > 2, "OVAL results were written");
    for check in checks {
        let words: Vec<&str> = check.iter().map(String::as_str).collect();
        let output = oscap(&words, directory.path());
        assert!(output.status.success(), "{words:?}: {}", stderr(&output));
    }
}

#[test]
fn a_result_names_the_check_that_decided() {
    let directory = tempfile::tempdir().unwrap();
    let xccdf = fixture("features-xccdf.xml");
    let named = |profile: &[&str], rule: &str| {
        let words = [&["xccdf", "eval"], profile, &["--results", "results.xml", xccdf.to_str().unwrap()]].concat();
        assert_eq!(muster(&words, directory.path()).status.code(), Some(2));
        let text = std::fs::read_to_string(directory.path().join("results.xml")).unwrap();
        let result = text
            .split("<rule-result ")
            .find(|part| part.contains(&format!("_rule_{rule}\"")) && part.contains("<result>"));
        let from = result.unwrap().split("<check-content-ref ").nth(1).unwrap_or_default();
        from.split("/>").next().unwrap().to_owned()
    };
    assert!(named(&[], "with_selectors").contains("oval:features:def:1\""));
    assert!(named(&["--profile", "derived"], "with_selectors").contains("oval:features:def:2\""));
    // The first content is not there, the second decided.
    assert!(named(&[], "second_content").contains("features-oval.xml"));
    let text = std::fs::read_to_string(directory.path().join("results.xml")).unwrap();
    assert!(text.contains("<check-import import-name=\"oval:features:var:5\">5</check-import>"), "{text}");
}

#[test]
fn characteristics_go_both_ways() {
    if oscap_is_missing() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let oval = fixture("features-oval.xml");
    let oval = oval.to_str().unwrap();
    std::fs::write(
        directory.path().join("variables.xml"),
        "<oval_variables xmlns='http://oval.mitre.org/XMLSchema/oval-variables-5' xmlns:oval='http://oval.mitre.org/XMLSchema/oval-common-5'>\
         <generator><oval:schema_version>5.11</oval:schema_version><oval:timestamp>2026-11-22T00:00:00</oval:timestamp></generator>\
         <variables><variable id='oval:features:var:5' datatype='int' comment='c'><value>8</value></variable></variables></oval_variables>",
    )
    .unwrap();
    // Collected by the one, analysed by the other, and the other way round.
    for (collect, analyse) in [("muster", "oscap"), ("oscap", "muster"), ("muster", "muster")] {
        let run = |who: &str, words: &[&str]| {
            let output = if who == "muster" { muster(words, directory.path()) } else { oscap(words, directory.path()) };
            assert!(output.status.success(), "{who} {words:?}: {}", stderr(&output));
        };
        run(collect, &["oval", "collect", "--variables", "variables.xml", "--syschar", "syschar.xml", oval]);
        run(
            analyse,
            &["oval", "analyse", "--variables", "variables.xml", "--results", "results.xml", oval, "syschar.xml"],
        );
        let text = std::fs::read_to_string(directory.path().join("results.xml")).unwrap();
        for (definition, expected) in [(1, "true"), (2, "false"), (4, "unknown"), (8, "true"), (10, "true")] {
            let element = text
                .split('<')
                .find(|element| {
                    element.starts_with(&format!("definition definition_id=\"oval:features:def:{definition}\""))
                })
                .unwrap();
            assert!(element.contains(&format!("result=\"{expected}\"")), "{collect} to {analyse}: {element}");
        }
    }
}

#[test]
fn wrong_input_is_named_with_its_place() {
    let directory = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(directory.path().join(name), text).unwrap();
    write("bomb.xml", "<?xml version='1.0'?>\n<!DOCTYPE a [<!ENTITY b 'ha'>]>\n<oval_definitions/>");
    write("other.xml", "<a/>");
    write(
        "reference.xml",
        "<oval_system_characteristics xmlns='http://oval.mitre.org/XMLSchema/oval-system-characteristics-5'>\
        \n<collected_objects>\n<object id='oval:x:obj:1' version='1' flag='complete'><reference item_ref='7'/></object>\n\
        </collected_objects></oval_system_characteristics>",
    );
    write("empty.xml", "<oval_definitions xmlns='http://oval.mitre.org/XMLSchema/oval-definitions-5'/>");
    let output = muster(&["oval", "eval", "--results", "r.xml", "empty.xml"], directory.path());
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let oval = fixture("features-oval.xml");
    let (oval, xccdf) = (oval.to_str().unwrap().to_owned(), fixture("features-xccdf.xml"));
    let xccdf = xccdf.to_str().unwrap().to_owned();
    let cases: &[(&[&str], &[&str])] = &[
        (&["oval", "eval", "bomb.xml"], &["bomb.xml", "line 2", "DTD"]),
        (&["oval", "eval", "other.xml"], &["other.xml", "<a>", "oval_definitions"]),
        (&["oval", "eval", "absent.xml"], &["absent.xml"]),
        (&["oval", "analyse", "--results", "r.xml", &oval, "reference.xml"], &["reference.xml", "line 3", "`7`"]),
        (&["xccdf", "eval", "other.xml"], &["other.xml", "Benchmark"]),
        (&["xccdf", "eval", "--profile", "nobody", &xccdf], &["nobody", "profile_base"]),
        (&["xccdf", "eval", "--rule", "nobody", &xccdf], &["nobody"]),
        (&["xccdf", "eval", "--results", "/nonexistent/r.xml", &xccdf], &["/nonexistent/r.xml"]),
    ];
    for (words, expected) in cases {
        let output = muster(words, directory.path());
        assert_eq!(output.status.code(), Some(1), "{words:?}");
        for part in *expected {
            assert!(stderr(&output).contains(part), "{words:?} does not say {part}: {}", stderr(&output));
        }
    }
}
