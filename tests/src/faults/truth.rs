//! What is so on the endpoints, and a policy that says what should be.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use crate::assess;
use crate::generate::Random;

/// A file of which a rule says something: how it is when it should be, and when it should not.
enum Fact {
    /// A line in a file is this one, or another.
    Line(&'static str, &'static str, &'static str),
    /// The file is there, or is not; the other way round where it should not be.
    There(&'static str, bool),
    /// Its mode.
    Mode(&'static str, u32, u32),
}

/// Each with the name of its rule.
const FACTS: [(&str, Fact); 8] = [
    ("strict", Fact::Line("etc/app.conf", "mode = strict", "mode = lax")),
    ("no_debug", Fact::Line("etc/app.conf", "debug = off", "debug = on")),
    ("few", Fact::Line("etc/limits.conf", "limit = 4", "limit = 40")),
    ("greets", Fact::There("etc/motd", true)),
    ("nothing_forbidden", Fact::There("etc/forbidden", false)),
    ("secret", Fact::Mode("etc/secret", 0o600, 0o644)),
    ("not_writable", Fact::Mode("etc/d/one.conf", 0o644, 0o666)),
    ("not_run", Fact::Mode("etc/d/two.conf", 0o644, 0o755)),
];

/// How many facts of an endpoint change.
pub(super) const FACT_COUNT: usize = FACTS.len();

/// What a rule's id begins with.
pub(super) const RULE: &str = "xccdf_x_rule_";

/// A root directory in which all is as it should be.
pub(super) fn make(root: &Path, name: &str) {
    std::fs::create_dir_all(root.join("etc/d")).expect("a directory");
    std::fs::write(root.join("etc/hostname"), format!("{name}\n")).expect("a file");
    let machine = uuid::Uuid::new_v4().simple().to_string();
    std::fs::write(root.join("etc/machine-id"), format!("{machine}\n")).expect("a file");
    for file in ["etc/secret", "etc/d/one.conf", "etc/d/two.conf"] {
        std::fs::write(root.join(file), "x\n").expect("a file");
    }
    for (at, _) in FACTS.iter().enumerate() {
        set(root, at, true);
    }
}

/// Makes one fact what it should be, or what it should not.
pub(super) fn set(root: &Path, fact: usize, is_met: bool) {
    match &FACTS[fact].1 {
        Fact::Line(file, met, unmet) => {
            let (file, key) = (root.join(file), &met[..4]);
            let text = std::fs::read_to_string(&file).unwrap_or_default();
            let others = text.lines().filter(|line| !line.starts_with(key)).map(|line| format!("{line}\n"));
            let text = others.collect::<String>() + if is_met { met } else { unmet } + "\n";
            // As editors do it: another file takes its place.
            let new = file.with_extension("new");
            std::fs::write(&new, text).expect("a file");
            std::fs::rename(new, file).expect("a file");
        }
        Fact::There(file, is_wanted) if is_met == *is_wanted => {
            std::fs::write(root.join(file), "x\n").expect("a file");
        }
        Fact::There(file, _) => {
            let _ = std::fs::remove_file(root.join(file));
        }
        Fact::Mode(file, met, unmet) => {
            let mode = std::fs::Permissions::from_mode(if is_met { *met } else { *unmet });
            std::fs::set_permissions(root.join(file), mode).expect("the file is there");
        }
    }
}

/// A fact that changes, and to what.
pub(super) fn change(dice: &mut Random) -> (usize, bool) {
    (dice.below(FACT_COUNT), dice.once_in(2))
}

/// What is so, decided without any service: verdicts by rule.
pub(super) fn verdicts(root: &Path) -> BTreeMap<String, String> {
    let root = root.to_str().expect("a path that is text");
    let evaluation = assess(policy().as_bytes(), None, root);
    evaluation.results.iter().map(|result| (result.rule.clone(), result.verdict.to_string())).collect()
}

/// The policy: a rule for each fact.
pub(super) fn policy() -> String {
    let mut parts: [Vec<String>; 5] = Default::default();
    for (number, (name, fact)) in FACTS.iter().enumerate() {
        let id = |kind: &str| format!("oval:x:{kind}:{}", number + 1);
        let (space, kind, existence, object, state) = match fact {
            Fact::Line(file, met, _) => {
                let object = format!(
                    "<ind:filepath>/{file}</ind:filepath><ind:pattern operation='pattern match'>^{met}$</ind:pattern>\
                     <ind:instance datatype='int'>1</ind:instance>"
                );
                ("ind", "textfilecontent54", "at_least_one_exists", object, String::new())
            }
            Fact::There(file, is_wanted) => {
                let existence = if *is_wanted { "at_least_one_exists" } else { "none_exist" };
                ("unix", "file", existence, format!("<unix:filepath>/{file}</unix:filepath>"), String::new())
            }
            Fact::Mode(file, met, unmet) => {
                let bits = [("gread", 0o040), ("gwrite", 0o020), ("gexec", 0o010), ("oread", 0o004)];
                let differ = bits.into_iter().filter(|(_, bit)| (met ^ unmet) & bit != 0);
                let state = differ.map(|(name, _)| format!("<unix:{name} datatype='boolean'>false</unix:{name}>"));
                let object = format!("<unix:filepath>/{file}</unix:filepath>");
                ("unix", "file", "at_least_one_exists", object, state.collect())
            }
        };
        let [object_id, state_id, test_id, definition_id] = ["obj", "ste", "tst", "def"].map(id);
        let uses_state = if state.is_empty() {
            String::new()
        } else {
            let head = format!("{space}:{kind}_state");
            parts[0].push(format!("<{head} id='{state_id}' version='1'>{state}</{head}>"));
            format!("<{space}:state state_ref='{state_id}'/>")
        };
        let head = format!("{space}:{kind}_object");
        parts[1].push(format!("<{head} id='{object_id}' version='1'>{object}</{head}>"));
        let head = format!("{space}:{kind}_test");
        parts[2].push(format!(
            "<{head} id='{test_id}' version='1' check='all' check_existence='{existence}' comment='{name}'>\
             <{space}:object object_ref='{object_id}'/>{uses_state}</{head}>"
        ));
        parts[3].push(format!(
            "<definition id='{definition_id}' version='1' class='compliance'><metadata><title>{name}</title>\
             <description>{name}</description></metadata><criteria><criterion test_ref='{test_id}'/></criteria></definition>"
        ));
        parts[4].push(format!(
            "<Rule id='{RULE}{name}' selected='true'><title>{name}</title>\
             <check system='http://oval.mitre.org/XMLSchema/oval-definitions-5'>\
             <check-content-ref href='oval.xml' name='{definition_id}'/></check></Rule>"
        ));
    }
    let [states, objects, tests, definitions, rules] = parts.map(|part| part.concat());
    let of = "http://oval.mitre.org/XMLSchema/oval-definitions-5";
    format!(
        "<ds:data-stream-collection xmlns:ds='http://scap.nist.gov/schema/scap/source/1.2' \
         xmlns:xlink='http://www.w3.org/1999/xlink' xmlns:cat='urn:oasis:names:tc:entity:xmlns:xml:catalog' \
         id='scap_x_collection_x' schematron-version='1.2'><ds:data-stream id='scap_x_datastream_x' scap-version='1.2' \
         use-case='CONFIGURATION'><ds:checklists><ds:component-ref id='cref_x' xlink:href='#comp_x'><cat:catalog>\
         <cat:uri name='oval.xml' uri='#cref_oval'/></cat:catalog></ds:component-ref></ds:checklists><ds:checks>\
         <ds:component-ref id='cref_oval' xlink:href='#comp_oval'/></ds:checks></ds:data-stream>\
         <ds:component id='comp_x' timestamp='2026-01-01T00:00:00'><Benchmark \
         xmlns='http://checklists.nist.gov/xccdf/1.2' id='xccdf_x_benchmark_x' resolved='1' xml:lang='en'>\
         <status>accepted</status><title>x</title><description>x</description><version>1</version>{rules}</Benchmark>\
         </ds:component><ds:component id='comp_oval' timestamp='2026-01-01T00:00:00'><oval_definitions xmlns='{of}' \
         xmlns:oval='http://oval.mitre.org/XMLSchema/oval-common-5' xmlns:ind='{of}#independent' xmlns:unix='{of}#unix'>\
         <generator><oval:schema_version>5.11</oval:schema_version>\
         <oval:timestamp>2026-01-01T00:00:00</oval:timestamp></generator><definitions>{definitions}</definitions>\
         <tests>{tests}</tests><objects>{objects}</objects><states>{states}</states></oval_definitions></ds:component>\
         </ds:data-stream-collection>"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_rule_follows_its_fact_and_no_other() {
        let root = tempfile::tempdir().expect("a directory");
        make(root.path(), "truth");
        let good = verdicts(root.path());
        assert_eq!(good.len(), FACT_COUNT);
        assert!(good.values().all(|verdict| verdict == "pass"), "{good:?}");
        for (at, (name, _)) in FACTS.iter().enumerate() {
            set(root.path(), at, false);
            let mut expected = good.clone();
            expected.insert(format!("{RULE}{name}"), "fail".to_owned());
            assert_eq!(verdicts(root.path()), expected);
            set(root.path(), at, true);
        }
        assert_eq!(verdicts(root.path()), good);
    }
}
