//! Records, from a file through a probe, a plan and characteristics to a verdict; and tests that ask nobody.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;

use jiff::Timestamp;
use oval::check::Truth;
use proto::observation::EndpointFacts;
use scap::characteristics::{self, Characteristics, Numbers};
use scap::compile::{Compiled, compile_definitions};
use scap::documents::{ALONE, of_oval, read_oval};
use scap::evaluate::{Evidence, decide};
use scap::oval::OvalDefinitions;
use scap::xml_out::XmlOut;
use system_tests::evidence_of;

/// As a cluster's settings are asked about: a path, and what the fields of its records must be.
const KUBELET: &str = r#"
authentication:
  anonymous: {enabled: false}
featureGates: {RotateKubeletServerCertificate: true}
eventRecordQPS: 0x32
tlsCipherSuites: [TLS_A, TLS_B]
conditions:
- {type: Ready, status: "True", lastTransitionTime: 2021-05-05T11:22:33Z}
- {type: Upgradeable, status: "False", reasons: [x, y]}
"#;

/// A path, attributes of the record, its fields, and what `oscap` 1.3.7 says.
const STATES: &[(&str, &str, &str, &str)] = &[
    (".authentication.anonymous.enabled", "", r##"<field name="#" datatype="boolean">false</field>"##, "true"),
    (
        ".featureGates",
        "",
        r#"<field name="^rotate^kubelet^server^certificate" datatype="boolean">true</field>"#,
        "true",
    ),
    (".eventRecordQPS", "", r##"<field name="#" datatype="int" operation="greater than">49</field>"##, "true"),
    (".tlsCipherSuites[:]", "", r##"<field name="#" operation="pattern match">^TLS_[AB]$</field>"##, "true"),
    (".tlsCipherSuites[:]", "", r##"<field name="#">TLS_A</field>"##, "false"),
    (".tlsCipherSuites[:]", "", r##"<field name="#" entity_check="at least one">TLS_A</field>"##, "true"),
    (
        ".conditions[:]",
        r#"entity_check="at least one""#,
        r#"<field name="type">Upgradeable</field><field name="status">False</field>"#,
        "true",
    ),
    (
        ".conditions[:]",
        r#"entity_check="at least one""#,
        r#"<field name="type">Upgradeable</field><field name="status">True</field>"#,
        "false",
    ),
    (
        ".conditions[0]",
        "",
        r#"<field name="last^transition^time" operation="pattern match">^\d+-\d+-.*Z$</field>"#,
        "true",
    ),
    (".conditions[:]", "", r#"<field name="reasons" entity_check="at least one">y</field>"#, "error"),
    (".none", "", r##"<field name="#">x</field>"##, "false"),
    (".authentication", "", r##"<field name="#">x</field>"##, "error"),
];

const UNKNOWN: usize = 900;

fn document() -> String {
    let (mut definitions, mut tests, mut objects, mut states) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let mut define = |number: usize| {
        definitions.push(format!(
            r#"<definition class="compliance" version="1" id="oval:r:def:{number}"><metadata><title>t</title>
            <description>d</description></metadata><criteria><criterion test_ref="oval:r:tst:{number}"/></criteria></definition>"#
        ));
    };
    for (number, (path, attributes, fields, _)) in STATES.iter().enumerate() {
        define(number);
        tests.push(format!(
            r#"<ind:yamlfilecontent_test version="1" id="oval:r:tst:{number}" check="all" comment="c">
            <ind:object object_ref="oval:r:obj:{number}"/><ind:state state_ref="oval:r:ste:{number}"/></ind:yamlfilecontent_test>"#
        ));
        objects.push(format!(
            r#"<ind:yamlfilecontent_object version="1" id="oval:r:obj:{number}"><ind:filepath>/kubelet.conf</ind:filepath>
            <ind:yamlpath>{path}</ind:yamlpath></ind:yamlfilecontent_object>"#
        ));
        states.push(format!(
            r#"<ind:yamlfilecontent_state version="1" id="oval:r:ste:{number}">
            <ind:value datatype="record" {attributes}>{fields}</ind:value></ind:yamlfilecontent_state>"#
        ));
    }
    define(UNKNOWN);
    tests.push(format!(r#"<ind:unknown_test version="1" id="oval:r:tst:{UNKNOWN}" check="all" comment="c"/>"#));
    let [definitions, tests, objects, states] = [definitions, tests, objects, states].map(|all| all.concat());
    format!(
        r#"<oval_definitions xmlns="http://oval.mitre.org/XMLSchema/oval-definitions-5"
        xmlns:ind="http://oval.mitre.org/XMLSchema/oval-definitions-5#independent"
        xmlns:oval="http://oval.mitre.org/XMLSchema/oval-common-5"><generator><oval:schema_version>5.11.3</oval:schema_version>
        <oval:timestamp>2026-01-01T00:00:00</oval:timestamp></generator><definitions>{definitions}</definitions>
        <tests>{tests}</tests><objects>{objects}</objects><states>{states}</states></oval_definitions>"#
    )
}

fn compiled() -> (OvalDefinitions, Compiled) {
    let policy = of_oval(read_oval(document().as_bytes()).unwrap());
    let compiled = compile_definitions(&policy, ALONE, BTreeMap::new(), false).unwrap();
    (policy.oval[ALONE].clone(), compiled)
}

fn found(compiled: &Compiled) -> Evidence {
    let root = tempfile::tempdir().unwrap();
    std::fs::write(root.path().join("kubelet.conf"), KUBELET).unwrap();
    evidence_of(compiled, root.path().to_str().unwrap())
}

#[track_caller]
fn check(compiled: &Compiled, evidence: &Evidence) {
    let decisions = decide(compiled, evidence, Timestamp::now());
    let definition = |number: usize| {
        let at = compiled.documents[0].definitions[&format!("oval:r:def:{number}")];
        decisions.definitions[at].unwrap_or(Truth::NotEvaluated).as_str()
    };
    for (number, (path, _, fields, expect)) in STATES.iter().enumerate() {
        assert_eq!(definition(number), *expect, "{path}: {fields}");
    }
    assert_eq!(definition(UNKNOWN), "unknown");
}

#[test]
fn states_of_records_are_decided_as_oscap_decides_them() {
    let (_, compiled) = compiled();
    check(&compiled, &found(&compiled));
}

#[test]
fn records_go_through_characteristics_and_come_back() {
    let (oval, compiled) = compiled();
    let evidence = found(&compiled);
    let (mut out, mut numbers, now) = (XmlOut::default(), Numbers::default(), Timestamp::now());
    let objects = &compiled.documents[0].objects;
    characteristics::write(&mut out, &EndpointFacts::default(), &oval, objects, &evidence, &mut numbers, now);
    let written = out.finish();
    assert!(written.contains(r##"<field name="#" datatype="boolean">false</field>"##), "{written}");
    assert!(written.contains(r#"<independent:value datatype="record">"#), "{written}");
    let read = Characteristics::read(written.as_bytes()).unwrap().evidence(&compiled.documents[0], now);
    for key in objects.values() {
        let (ours, back) = (&evidence.observations[key], &read.observations[key]);
        assert_eq!(ours.collected_object, back.collected_object);
    }
    check(&compiled, &read);
}

#[test]
fn an_unknown_test_asks_nobody() {
    let (_, compiled) = compiled();
    let at = compiled.documents[0].tests[&format!("oval:r:tst:{UNKNOWN}")];
    assert!(compiled.tests[at].subject.is_err());
    assert!(compiled.collection.objects.values().all(|object| object.kind == "independent:yamlfilecontent"));
}
