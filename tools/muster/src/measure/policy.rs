//! The policies of a measurement: the one whose rules are evaluated, the same with one rule changed, and one with a rule that reads
//! a file of the real collector.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use jiff::Timestamp;
use pcs_agent::host::Host;
use proto::verdict::Verdict;
use scap::compile::{CheckPlan, Compiled, compile};
use scap::evaluate::{Evidence, evaluate};

use super::installation::WATCHED_FILE;
use crate::drop_in::look_at;

/// What the policy is called in the installation.
pub(crate) const POLICY: &str = "measured";
/// What the one is called that reads a file of the real collector.
pub(crate) const WATCHED: &str = "watched";
/// How many criteria are turned round until one changes one rule.
const TRIES: usize = 40;

/// The policy whose rules are evaluated.
#[derive(Debug, Clone)]
pub(crate) struct Policy {
    /// The data stream, not compressed.
    pub(crate) source: Vec<u8>,
    pub(crate) profile: Option<String>,
    /// Rules that the profile selects.
    pub(crate) rule_count: u64,
    /// Rules that an evaluation says something of.
    pub(crate) result_count: u64,
    /// The kinds of items that it asks for.
    pub(crate) kinds: Vec<String>,
}

/// A version of it with one rule changed.
#[derive(Debug)]
pub(crate) struct Changed {
    pub(crate) source: Vec<u8>,
    /// The rule that says something else of the root.
    pub(crate) rule: String,
}

fn compiled(source: &[u8], profile: Option<&str>) -> anyhow::Result<Compiled> {
    let policy = scap::datastream::read(source.to_vec())?;
    Ok(compile(&policy, profile)?)
}

/// What is found in a root of all that a policy asks for.
fn found(compiled: &Compiled, root: &Path) -> Evidence {
    look_at(&Host::new(root), compiled, |_| true)
}

impl Policy {
    /// Reads it; without a file the one that comes with the orchestrator.
    pub(crate) fn read(file: Option<&PathBuf>, profile: Option<String>) -> anyhow::Result<Self> {
        let source = match file {
            Some(file) => std::fs::read(file).with_context(|| format!("cannot read {}", file.display()))?,
            None => orchestrator::BASELINE_SOURCE.to_vec(),
        };
        let source = scap::source::plain(source)?;
        let compiled = compiled(&source, profile.as_deref())?;
        let mut kinds: Vec<String> = compiled
            .collection
            .report
            .iter()
            .filter_map(|key| compiled.collection.objects.get(key))
            .map(|object| object.kind.clone())
            .collect();
        kinds.sort();
        kinds.dedup();
        let nothing = evaluate(&compiled, &Evidence::default(), Timestamp::now());
        Ok(Self {
            source,
            profile,
            rule_count: compiled.rules.iter().filter(|rule| rule.selected).count() as u64,
            result_count: nothing.results.len() as u64,
            kinds,
        })
    }

    /// Another version, in which one rule means the opposite: a criterion of its definition is turned round. Which one that is, and
    /// that it is one rule alone, shows on the root.
    pub(crate) fn changed(&self, root: &Path) -> anyhow::Result<Changed> {
        let text = std::str::from_utf8(&self.source).context("the policy is no UTF-8")?;
        let before = compiled(&self.source, self.profile.as_deref())?;
        let evidence = found(&before, root);
        let now = Timestamp::now();
        let results = evaluate(&before, &evidence, now).results;
        let decided = results.iter().filter(|result| matches!(result.verdict, Verdict::Pass | Verdict::Fail));
        let mut seen = BTreeSet::new();
        let definitions =
            decided.filter_map(|result| definition_of(&before, &result.rule)).filter(|of| seen.insert(*of));
        for at in definitions.flat_map(|definition| criteria(text, definition).take(2)).take(TRIES) {
            let mut source = text.to_owned();
            source.insert_str(at, "negate=\"true\" ");
            let Ok(after) = compiled(source.as_bytes(), self.profile.as_deref()) else { continue };
            let after = evaluate(&after, &evidence, now).results;
            let different: Vec<&String> = results
                .iter()
                .zip(&after)
                .filter(|(before, after)| before.verdict != after.verdict)
                .map(|(before, _)| &before.rule)
                .collect();
            if let [rule] = different[..]
                && after.len() == results.len()
            {
                return Ok(Changed { rule: rule.clone(), source: source.into_bytes() });
            }
        }
        bail!("none of the first {TRIES} criteria of the policy's rules decides one rule alone on this root")
    }
}

/// The id of the OVAL definition by which a rule is decided, if it is one alone.
fn definition_of<'policy>(policy: &'policy Compiled, rule: &str) -> Option<&'policy str> {
    let rule = policy.rules.iter().find(|plan| plan.id == rule)?;
    let CheckPlan::Definitions { definitions, .. } = &rule.check else { return None };
    let [definition] = definitions[..] else { return None };
    let mut ids = policy.documents.iter().flat_map(|document| &document.definitions);
    ids.find(|(_, at)| **at == definition).map(|(id, _)| id.as_str())
}

/// Where attributes of the criteria of a definition begin that are not turned round already.
fn criteria<'text>(text: &'text str, definition: &str) -> impl Iterator<Item = usize> {
    let ids = [format!("id=\"{definition}\""), format!("id='{definition}'")];
    let is_other = move |tag: &Tag<'text>| {
        tag.name != "definition"
            || !tag.attributes.split_ascii_whitespace().any(|attribute| ids.iter().any(|id| id == attribute))
    };
    let within = tags(text).skip_while(is_other).skip(1).take_while(|tag| tag.name != "definition");
    within.filter(|tag| tag.name == "criterion" && !tag.attributes.contains("negate=")).map(|tag| tag.attributes_at)
}

/// Where an element begins that has attributes.
struct Tag<'text> {
    /// Without its prefix.
    name: &'text str,
    attributes: &'text str,
    /// Where in the text they begin.
    attributes_at: usize,
}

fn tags(text: &str) -> impl Iterator<Item = Tag<'_>> {
    text.match_indices('<').filter_map(|(at, _)| {
        let tag = text[at + 1..].split('>').next()?;
        let (name, attributes) = tag.split_once(|character: char| character.is_ascii_whitespace())?;
        let attributes_at = at + 1 + name.len() + 1;
        Some(Tag { name: name.rsplit(':').next()?, attributes, attributes_at })
    })
}

/// A policy with one rule: a file of the real collector says that its state is good.
pub(crate) fn watched() -> String {
    let of = "http://oval.mitre.org/XMLSchema/oval-definitions-5";
    format!(
        "<ds:data-stream-collection xmlns:ds='http://scap.nist.gov/schema/scap/source/1.2' \
         xmlns:xlink='http://www.w3.org/1999/xlink' xmlns:cat='urn:oasis:names:tc:entity:xmlns:xml:catalog' \
         id='scap_dev.muster_collection_watched' schematron-version='1.2'>\
         <ds:data-stream id='scap_dev.muster_datastream_watched' scap-version='1.2' use-case='CONFIGURATION'>\
         <ds:checklists><ds:component-ref id='scap_dev.muster_cref_xccdf' xlink:href='#scap_dev.muster_comp_xccdf'>\
         <cat:catalog><cat:uri name='oval.xml' uri='#scap_dev.muster_cref_oval'/></cat:catalog></ds:component-ref>\
         </ds:checklists><ds:checks>\
         <ds:component-ref id='scap_dev.muster_cref_oval' xlink:href='#scap_dev.muster_comp_oval'/></ds:checks>\
         </ds:data-stream>\
         <ds:component id='scap_dev.muster_comp_xccdf' timestamp='2026-01-01T00:00:00'>\
         <Benchmark xmlns='http://checklists.nist.gov/xccdf/1.2' id='xccdf_dev.muster_benchmark_watched' resolved='1' \
         xml:lang='en'><status>accepted</status><title>A file</title><description>A file</description><version>1</version>\
         <Rule id='xccdf_dev.muster_rule_watched' selected='true'><title>The state is good</title>\
         <check system='{of}'><check-content-ref href='oval.xml' name='oval:dev.muster.watched:def:1'/></check></Rule>\
         </Benchmark></ds:component>\
         <ds:component id='scap_dev.muster_comp_oval' timestamp='2026-01-01T00:00:00'>\
         <oval_definitions xmlns='{of}' xmlns:oval='http://oval.mitre.org/XMLSchema/oval-common-5' \
         xmlns:ind='{of}#independent'><generator><oval:schema_version>5.11</oval:schema_version>\
         <oval:timestamp>2026-01-01T00:00:00</oval:timestamp></generator>\
         <definitions><definition id='oval:dev.muster.watched:def:1' version='1' class='compliance'><metadata>\
         <title>The state is good</title><description>The state is good</description></metadata>\
         <criteria><criterion test_ref='oval:dev.muster.watched:tst:1'/></criteria></definition></definitions>\
         <tests><ind:textfilecontent54_test id='oval:dev.muster.watched:tst:1' version='1' check='all' \
         check_existence='at_least_one_exists' comment='The state is good'>\
         <ind:object object_ref='oval:dev.muster.watched:obj:1'/></ind:textfilecontent54_test></tests>\
         <objects><ind:textfilecontent54_object id='oval:dev.muster.watched:obj:1' version='1'>\
         <ind:filepath>/{WATCHED_FILE}</ind:filepath>\
         <ind:pattern operation='pattern match'>^state = good$</ind:pattern>\
         <ind:instance datatype='int'>1</ind:instance></ind:textfilecontent54_object></objects>\
         </oval_definitions></ds:component></ds:data-stream-collection>"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_rule_of_the_baseline_is_changed_and_no_other() {
        let policy = Policy::read(None, None).expect("the baseline");
        assert!(policy.rule_count > 40 && policy.result_count >= policy.rule_count && policy.kinds.len() > 3);
        let changed = policy.changed(Path::new("/")).expect("a rule");
        assert!(changed.rule.starts_with("xccdf_dev.muster_rule_"), "{}", changed.rule);
        assert_eq!(changed.source.len(), policy.source.len() + "negate=\"true\" ".len());
    }

    #[test]
    fn elements_are_found_with_and_without_a_prefix_and_nothing_else_is() {
        let text = "<definition id='a:1'><criterion test_ref='0'/></definition> <o:definition class='x' id=\"a:12\"> \
            <criterion test_ref='1'/> a criterion of <o:criterion\ntest_ref='2'/> <criterion negate='true' test_ref='3'/> \
            <extend_definition definition_ref='a:1'/></o:definition><definition id='a:3'><criterion test_ref='4'/></definition>";
        let found = |definition| criteria(text, definition).map(|at| &text[at..at + 12]).collect::<Vec<_>>();
        assert_eq!(found("a:12"), ["test_ref='1'", "test_ref='2'"]);
        assert_eq!((found("a:1"), found("a:3")), (vec!["test_ref='0'"], vec!["test_ref='4'"]));
        assert!(found("a").is_empty());
    }

    #[test]
    fn the_watched_rule_follows_its_file() {
        let compiled = compiled(watched().as_bytes(), None).expect("a policy");
        let root = std::env::temp_dir().join(format!("muster-watched-{}", uuid::Uuid::new_v4()));
        std::fs::create_dir_all(root.join("etc")).expect("a directory");
        let mut verdicts = Vec::new();
        for state in ["good", "bad"] {
            std::fs::write(root.join(WATCHED_FILE), format!("state = {state}\n")).expect("a file");
            let evaluation = evaluate(&compiled, &found(&compiled, &root), Timestamp::now());
            verdicts.extend(evaluation.results.iter().map(|result| result.verdict.as_str()));
        }
        std::fs::remove_dir_all(root).expect("it is there");
        assert_eq!(verdicts, ["pass", "fail"]);
    }
}
