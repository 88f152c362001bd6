//! Composes a source data stream (NIST SP 800-126r3 §3.1) from a benchmark and the documents that it names.

use jiff::Timestamp;

use crate::documents::without_declaration;
use crate::xml_out::XmlOut;

/// A document that becomes a component.
#[derive(Debug, Clone, Copy)]
pub struct Document<'text> {
    /// What others call it: its file name, or the href that the benchmark uses.
    pub name: &'text str,
    /// Its text.
    pub text: &'text str,
}

/// Ids are those that `oscap ds sds-compose` gives, so that scripts that name them go on working.
fn id(kind: &str, name: &str) -> String {
    let is_plain = |letter: char| letter.is_alphanumeric() || "-_.".contains(letter);
    let name = name.replace('/', "--");
    let name: String = name.chars().map(|letter| if is_plain(letter) { letter } else { '-' }).collect();
    format!("scap_org.open-scap_{kind}_{name}")
}

/// The data stream collection.
pub fn compose(benchmark: Document<'_>, checks: &[Document<'_>], now: Timestamp) -> String {
    let time = now.strftime("%Y-%m-%dT%H:%M:%S").to_string();
    let mut out = XmlOut::default();
    out.start(
        "ds:data-stream-collection",
        &[
            ("xmlns:ds", "http://scap.nist.gov/schema/scap/source/1.2"),
            ("xmlns:xlink", "http://www.w3.org/1999/xlink"),
            ("xmlns:cat", "urn:oasis:names:tc:entity:xmlns:xml:catalog"),
            ("id", &id("collection_from_xccdf", benchmark.name)),
            ("schematron-version", "1.3"),
        ],
    );
    out.start(
        "ds:data-stream",
        &[
            ("id", &id("datastream_from_xccdf", benchmark.name)),
            ("scap-version", "1.3"),
            ("use-case", "OTHER"),
            ("timestamp", &time),
        ],
    );
    out.start("ds:checklists", &[]);
    let target = format!("#{}", id("comp", benchmark.name));
    out.start("ds:component-ref", &[("id", &id("cref", benchmark.name)), ("xlink:href", &target)]);
    if !checks.is_empty() {
        out.start("cat:catalog", &[]);
        for check in checks {
            out.leaf("cat:uri", &[("name", check.name), ("uri", &format!("#{}", id("cref", check.name)))], "");
        }
        out.end();
    }
    out.end();
    out.end();
    if !checks.is_empty() {
        out.start("ds:checks", &[]);
        for check in checks {
            let target = format!("#{}", id("comp", check.name));
            out.leaf("ds:component-ref", &[("id", &id("cref", check.name)), ("xlink:href", &target)], "");
        }
        out.end();
    }
    out.end();
    for document in std::iter::once(&benchmark).chain(checks) {
        out.start("ds:component", &[("id", &id("comp", document.name)), ("timestamp", &time)]);
        out.raw(without_declaration(document.text));
        out.end();
    }
    out.finish()
}
