//! Documents that are made from code, and names in files that are not code, are as the code says.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use system_tests::workspace;

/// Compares a document with what the code says it is; `MUSTER_BLESS=1` writes it.
fn check(path: &str, expected: &str) {
    let file = workspace().join(path);
    if std::env::var_os("MUSTER_BLESS").is_some() {
        std::fs::write(&file, expected).unwrap();
    }
    let found = std::fs::read_to_string(&file).unwrap_or_default();
    assert!(
        found == expected,
        "{path} is not what the code says: MUSTER_BLESS=1 cargo test -p system-tests --test documents"
    );
}

#[test]
fn the_wire_document_is_what_the_registries_say() {
    check("docs/wire.md", &proto::wire_doc::wire_md());
}

#[test]
fn the_wire_document_names_the_limits_of_the_bus() {
    let text = proto::wire_doc::wire_md();
    for said in [
        format!("after {} seconds, and then after twice", bus::limits::RESEND_SECONDS),
        format!("up to {}.", bus::limits::RESEND_SECONDS << bus::limits::RESEND_DOUBLINGS_MAX),
        format!("older than {} days is refused", bus::limits::AGE_DAYS_MAX),
        format!("`sent` is more than {} days ago", bus::limits::AGE_DAYS_MAX),
    ] {
        assert!(text.contains(&said), "docs/wire.md does not say: {said}");
    }
}

/// A document as it stands in a file.
fn pretty(document: &serde_json::Value) -> String {
    format!("{document:#}\n")
}

#[test]
fn the_schemas_are_what_the_types_say_and_there_are_no_others() {
    let schemas = proto::schema::schemas();
    for (name, schema) in &schemas {
        check(&format!("docs/schema/{name}.json"), &pretty(schema));
    }
    for file in std::fs::read_dir(workspace().join("docs/schema")).unwrap() {
        let file = file.unwrap().file_name().into_string().unwrap();
        let is_known = schemas.iter().any(|(name, _)| file == format!("{name}.json"));
        assert!(is_known, "docs/schema/{file} is of no message any more");
    }
}

#[test]
fn the_page_of_the_probes_is_what_the_kinds_say() {
    check("docs/probes.md", &oval::kinds::about::probes_md());
}

#[test]
fn the_asyncapi_document_is_what_the_access_table_says() {
    check("docs/asyncapi.json", &pretty(&proto::asyncapi::asyncapi()));
}

#[test]
fn the_baseline_document_is_what_the_policy_says() {
    use std::fmt::Write as _;
    let policy = scap::datastream::read(system_tests::BASELINE.to_vec()).unwrap();
    assert!(policy.problems.is_empty(), "{:?}", policy.problems);
    let mut text = format!(
        "# {}\n\nGenerated from `orchestrator/policies/muster-baseline-linux-ds.xml`, version {}. \
         Numbers refer to the CIS Debian Linux 12 Benchmark v1.1.0 and to NIST SP 800-53 revision 5.\n\n\
         | rule | severity | title | references |\n|---|---|---|---|\n",
        policy.benchmark.title, policy.benchmark.version
    );
    for rule in policy.benchmark.rules() {
        let references: Vec<&str> = rule.references.iter().map(|(_, name)| name.as_str()).collect();
        let id = rule.common.id.trim_start_matches("xccdf_dev.muster_rule_");
        writeln!(text, "| `{id}` | {} | {} | {} |", rule.severity, rule.common.title, references.join(", ")).unwrap();
        assert!(!rule.fix_text.is_empty() && !rule.rationale.is_empty() && !references.is_empty(), "{id}");
    }
    check("docs/baseline.md", &text);
}

#[test]
fn compose_names_only_binaries_that_there_are() {
    let text = std::fs::read_to_string(workspace().join("docker-compose.yml")).unwrap();
    for binary in ["muster-orchestrator", "muster-repository", "muster-pes-evaluator", "muster-pcs-agent"] {
        assert!(text.contains(binary), "{binary} is not in docker-compose.yml");
    }
}

#[test]
fn the_reference_of_the_configuration_is_what_the_keys_say() {
    check("docs/muster.toml", &service::config::reference::muster_toml());
}

#[test]
fn what_the_reference_calls_built_in_is_what_holds_without_it() {
    let path = workspace().join("docs/muster.toml");
    let of = |path| service::config::Sources::read(path).unwrap().config();
    let (given, built_in) = (of(Some(&*path)), of(None));
    let settings = |config: &service::config::Config| {
        [
            format!("{:?}", orchestrator::Settings::try_from(&config.orchestrator).unwrap()),
            format!("{:?}", repository::Settings::try_from(&config.repository).unwrap()),
            format!("{:?}", pes_evaluator::Settings::try_from(&config.pes_evaluator).unwrap()),
            format!("{:?}", pcs_agent::Settings::try_from(&config.pcs_agent).unwrap()),
        ]
    };
    assert_eq!(settings(&given), settings(&built_in));
    assert!(given != built_in);
}

#[test]
fn what_the_reference_has_for_example_can_be_used_too() {
    let text = std::fs::read_to_string(workspace().join("docs/muster.toml")).unwrap();
    let directory = tempfile::tempdir().unwrap();
    for table in service::config::reference::TABLES {
        for key in table.keys {
            assert!(text.contains(&format!("{} = {}", key.name, key.value)), "{} is not there", key.name);
            let file = directory.path().join("muster.toml");
            std::fs::write(&file, format!("[{}]\n{} = {}\n", table.name, key.name, key.value)).unwrap();
            let read = service::config::Sources::read(Some(&file));
            assert!(read.is_ok(), "{}.{}: {read:?}", table.name, key.name);
        }
    }
}
