//! SCE, OpenSCAP's Script Check Engine: checks that are scripts.
//!
//! A script is an object like any other, of the kind `muster:script`: whether it runs is decided where it would run, and what
//! its exit code means is decided here. Nothing in this crate runs anything.

use std::collections::BTreeMap;

use ::oval::check::Truth;
use proto::content::ContentHash;
use proto::observation::{Collected, Flag, Item};
use proto::plan::{Check, Datatype, Entity, EntityValue, Existence, Object, Operation};
use proto::verdict::Verdict;

use crate::evaluate::TestDecision;
use crate::limits::SCRIPT_BYTES_MAX;
use crate::xccdf;
use crate::xml::Node;

/// The check system.
pub const SYSTEM: &str = "http://open-scap.org/page/SCE";
/// The kind of its objects.
pub const KIND: &str = "muster:script";
/// The behavior that has the script itself.
pub const SCRIPT: &str = "script";
/// The namespace of a script in a data stream.
const STREAM_NAMESPACE: &str = "http://open-scap.org/page/SCE_xccdf_stream";
/// How many lines of what a script said are told.
const LINES_MAX: usize = 3;

/// The script in an `extended-component`; an error in words where it is too long, nothing where it is something else.
pub(crate) fn read(node: &Node) -> Option<Result<String, String>> {
    if node.namespace != STREAM_NAMESPACE || node.name != "script" {
        return None;
    }
    let text = node.text();
    let is_short = text.len() <= SCRIPT_BYTES_MAX;
    Some(if is_short { Ok(text) } else { Err(format!("longer than {} KiB", SCRIPT_BYTES_MAX / 1024)) })
}

/// The object of a check: the script, and what it is told of the benchmark's values, as `oscap` tells it. Its name in words
/// is the hash of the script's bytes.
pub(crate) fn object(
    script: &str,
    check: &xccdf::Check,
    values: &BTreeMap<String, Vec<String>>,
    about: &BTreeMap<String, xccdf::Value>,
) -> Object {
    let mut behaviors = BTreeMap::from([(SCRIPT.to_owned(), script.to_owned())]);
    for (id, name) in &check.exports {
        let Some(value) = values.get(id) else { continue };
        let about = about.get(id);
        let word = |given: Option<&str>, otherwise: &str| {
            given.filter(|word| !word.is_empty()).unwrap_or(otherwise).to_uppercase().replace(' ', "_")
        };
        behaviors.insert(format!("XCCDF_VALUE_{name}"), value.join("\n"));
        behaviors.insert(format!("XCCDF_TYPE_{name}"), word(about.map(|about| about.value_type.as_str()), "STRING"));
        behaviors.insert(format!("XCCDF_OPERATOR_{name}"), word(about.map(|about| about.operator.as_str()), "EQUALS"));
    }
    let sha256 = Entity {
        name: "sha256".to_owned(),
        operation: Operation::Equals,
        datatype: Datatype::String,
        value: EntityValue::Literal(ContentHash::of(script.as_bytes()).as_str().to_owned()),
        var_check: Check::All,
        entity_check: Check::All,
        check_existence: Existence::AtLeastOneExists,
        mask: false,
    };
    Object { kind: KIND.to_owned(), entities: vec![sha256], behaviors, filters: Vec::new(), set: None }
}

/// The result that an exit code says; anything else is an error, as for `oscap`. A rule that was selected cannot say that it
/// was not: that is `notchecked`.
fn verdict_of_code(code: &str) -> Verdict {
    match code {
        "101" => Verdict::Pass,
        "102" => Verdict::Fail,
        "104" => Verdict::Unknown,
        "105" => Verdict::NotApplicable,
        "106" | "107" => Verdict::NotChecked,
        "108" => Verdict::Informational,
        "109" => Verdict::Fixed,
        _ => Verdict::Error,
    }
}

/// The item of a script that ran to its end.
fn item(collected: &Collected) -> Option<&Item> {
    collected.items.iter().find(|item| item.value("exit_code").is_some())
}

/// What a script that ran says, where a definition could not say it.
pub(crate) fn verdict(collected: &Collected) -> Option<Verdict> {
    let verdict = verdict_of_code(item(collected)?.value("exit_code")?);
    matches!(verdict, Verdict::Informational | Verdict::Fixed).then_some(verdict)
}

/// That a verdict rests on a script: said of every one that does.
pub(crate) fn note(collected: &Collected) -> Option<String> {
    let sha256 = item(collected)?.value("sha256")?;
    Some(format!("decided by the script {sha256} that the endpoint's operator allowed (sandboxed)"))
}

/// What a script came to. One that nobody allowed makes no check: `not evaluated`, with the collector's reason.
pub(crate) fn decide(collected: &Collected) -> TestDecision {
    let Some(item) = item(collected) else {
        let reason = |otherwise: &str| collected.messages.first().cloned().unwrap_or_else(|| otherwise.to_owned());
        return match collected.flag {
            Flag::Error => TestDecision::because(Truth::Error, reason("the script could not be run")),
            Flag::NotCollected => TestDecision::because(Truth::NotEvaluated, reason("the script was not run")),
            Flag::NotApplicable => {
                TestDecision::because(Truth::NotApplicable, reason("not applicable on this endpoint"))
            }
            _ => TestDecision::because(Truth::Unknown, reason("the script was not run to its end")),
        };
    };
    let code = item.value("exit_code").unwrap_or_default();
    let said = |name: &str| -> Vec<String> {
        let lines = item.value(name).unwrap_or_default().lines().filter(|line| !line.trim().is_empty());
        lines
            .take(LINES_MAX)
            .map(|line| format!("{name}: {}", line.trim().chars().take(160).collect::<String>()))
            .collect()
    };
    let truth = match verdict_of_code(code) {
        Verdict::Pass | Verdict::Fixed => Truth::True,
        Verdict::Fail => Truth::False,
        Verdict::Unknown => Truth::Unknown,
        Verdict::NotApplicable => Truth::NotApplicable,
        Verdict::NotChecked | Verdict::NotSelected | Verdict::Informational => Truth::NotEvaluated,
        Verdict::Error => Truth::Error,
    };
    let mut decision = TestDecision::because(truth, format!("the script's exit code is {code}"));
    if truth == Truth::Error && code != "103" {
        decision.reasons = vec![format!("the script's exit code is {code}: a result is one from 101 to 109")];
    }
    decision.found = [said("stdout"), said("stderr")].concat();
    decision.reasons.extend(collected.messages.iter().cloned());
    decision
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::xml::Parser;
    use proto::observation::ItemEntity;

    fn ran(code: i32) -> Collected {
        let entities = vec![
            ItemEntity::text("sha256", "abc"),
            ItemEntity::int("exit_code", code),
            ItemEntity::text("stdout", "\nno\n"),
        ];
        Collected::from_items(vec![Item::new(KIND, entities)])
    }

    #[test]
    fn an_exit_code_is_a_result_and_any_other_is_an_error() {
        let truths = [
            (101, Truth::True),
            (102, Truth::False),
            (103, Truth::Error),
            (104, Truth::Unknown),
            (105, Truth::NotApplicable),
            (106, Truth::NotEvaluated),
            (107, Truth::NotEvaluated),
            (109, Truth::True),
            (0, Truth::Error),
            (1, Truth::Error),
            (110, Truth::Error),
            (-9, Truth::Error),
        ];
        for (code, truth) in truths {
            assert_eq!(decide(&ran(code)).truth, truth, "{code}");
        }
        assert_eq!(verdict(&ran(108)), Some(Verdict::Informational));
        assert_eq!(verdict(&ran(109)), Some(Verdict::Fixed));
        assert_eq!(verdict(&ran(101)), None);
        assert_eq!(decide(&ran(102)).found, ["stdout: no"]);
        assert!(decide(&ran(7)).reasons[0].contains("from 101 to 109"));
    }

    fn component(element: &str) -> Option<Result<String, String>> {
        let mut parser = Parser::new(element.as_bytes());
        let root = parser.root().unwrap();
        read(&parser.subtree(root).unwrap())
    }

    #[test]
    fn a_script_is_read_to_the_byte_and_only_where_it_is_one() {
        let of = |namespace: &str, text: &str| component(&format!("<s:script xmlns:s='{namespace}'>{text}</s:script>"));
        assert_eq!(of(STREAM_NAMESPACE, "#!/bin/sh\n\ta &lt; b\n\n"), Some(Ok("#!/bin/sh\n\ta < b\n\n".to_owned())));
        assert_eq!(of("urn:other", "#!/bin/sh"), None);
        let long = "x".repeat(SCRIPT_BYTES_MAX + 1);
        assert!(of(STREAM_NAMESPACE, &long).unwrap().unwrap_err().contains("256 KiB"));
        assert!(of(STREAM_NAMESPACE, &long[1..]).unwrap().is_ok());
    }

    #[test]
    fn the_object_is_named_by_the_script_and_has_the_values_that_are_exported() {
        let check = xccdf::Check {
            exports: vec![("v".to_owned(), "wanted".to_owned()), ("none".to_owned(), "absent".to_owned())],
            ..xccdf::Check::default()
        };
        let values = BTreeMap::from([("v".to_owned(), vec!["7".to_owned()])]);
        let operator = "greater than".to_owned();
        let about = BTreeMap::from([("v".to_owned(), xccdf::Value { operator, ..xccdf::Value::default() })]);
        let object = object("#!/bin/sh\n", &check, &values, &about);
        let told: Vec<(&str, &str)> =
            object.behaviors.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let expected = [
            ("XCCDF_OPERATOR_wanted", "GREATER_THAN"),
            ("XCCDF_TYPE_wanted", "STRING"),
            ("XCCDF_VALUE_wanted", "7"),
            ("script", "#!/bin/sh\n"),
        ];
        assert_eq!(told, expected);
        let EntityValue::Literal(hash) = &object.entities[0].value else { panic!("{object:?}") };
        assert_eq!(*hash, ContentHash::of(b"#!/bin/sh\n").as_str());
    }

    #[test]
    fn what_did_not_run_says_why_and_never_passes() {
        for (flag, truth) in [
            (Flag::NotCollected, Truth::NotEvaluated),
            (Flag::Error, Truth::Error),
            (Flag::Incomplete, Truth::Unknown),
            (Flag::DoesNotExist, Truth::Unknown),
            (Flag::Complete, Truth::Unknown),
        ] {
            let nothing = Collected::nothing(flag, "refused here");
            let decision = decide(&nothing);
            assert_eq!((decision.truth, decision.reasons.as_slice()), (truth, &["refused here".to_owned()][..]));
            assert_eq!((note(&nothing), verdict(&nothing)), (None, None));
        }
    }
}
