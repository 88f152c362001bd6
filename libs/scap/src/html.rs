//! Pages for people: each is one HTML file that needs nothing else, with a style for printing. Text of a
//! document is always escaped.

use std::fmt::Write as _;

mod definitions;
mod guide;
mod report;

pub use definitions::{DefinitionRow, definitions_page};
pub use guide::Guide;
pub use report::Report;

const STYLE: &str = "body{font:15px/1.45 system-ui,sans-serif;max-width:70rem;margin:2rem auto;padding:0 1rem;color:#1c2128}\
h1{font-size:1.5rem;margin:0}p.about{color:#57606a;margin:.2rem 0 1rem}.score{font-size:2rem;font-weight:600}\
.filter label{display:inline-block;margin-right:1rem;cursor:pointer}details{border-bottom:1px solid #d8dee4;padding:.45rem 0}\
summary{cursor:pointer;display:grid;grid-template-columns:8.5rem 6rem 1fr;gap:.5rem}.v{font-weight:600}\
.pass .v{color:#1a7f37}.fail .v{color:#cf222e}.error .v,.unknown .v{color:#9a6700}.notapplicable .v,.notchecked .v,.informational .v{color:#57606a}\
dl{margin:.5rem 0 .5rem 9rem;display:grid;grid-template-columns:6rem 1fr;gap:.2rem .5rem}dt{color:#57606a}dd{margin:0;white-space:pre-wrap;overflow-wrap:anywhere}\
code{font-size:.85em;color:#57606a}.toc a{text-decoration:none;color:inherit}h2,h3,h4{margin:1.4rem 0 .3rem}section.rule{border-left:3px solid #d8dee4;padding-left:1rem;margin:1rem 0}\
pre{background:#f6f8fa;padding:.6rem;overflow:auto;font-size:.85em}table{border-collapse:collapse;width:100%}th,td{text-align:left;vertical-align:top;padding:.35rem .8rem .35rem 0;border-bottom:1px solid #d8dee4}\
@media print{pre{white-space:pre-wrap}.filter{display:none}details{break-inside:avoid}}";

fn escaped(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\'' => safe.push_str("&#39;"),
            other => safe.push(other),
        }
    }
    safe
}

/// A page begins.
fn begin(title: &str) -> String {
    let mut page = String::from("<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">");
    let _ = write!(
        page,
        "<meta name=\"viewport\" content=\"width=device-width\"><title>{}</title><style>{STYLE}</style></head>\n<body>",
        escaped(title)
    );
    page
}
