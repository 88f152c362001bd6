//! A report for people: one HTML file that needs nothing else, with filters, evidence in words, and a style
//! for printing. Evidence is cut where it is made, so that no finding makes the page too large.

use std::fmt::Write as _;

use proto::verdict::{RuleResult, Severity, Verdict};

use crate::test_result::TestRun;

const STYLE: &str = "body{font:15px/1.45 system-ui,sans-serif;max-width:70rem;margin:2rem auto;padding:0 1rem;color:#1c2128}\
h1{font-size:1.5rem;margin:0}p.about{color:#57606a;margin:.2rem 0 1rem}.score{font-size:2rem;font-weight:600}\
.filter label{display:inline-block;margin-right:1rem;cursor:pointer}details{border-bottom:1px solid #d8dee4;padding:.45rem 0}\
summary{cursor:pointer;display:grid;grid-template-columns:8.5rem 6rem 1fr;gap:.5rem}.v{font-weight:600}\
.pass .v{color:#1a7f37}.fail .v{color:#cf222e}.error .v,.unknown .v{color:#9a6700}.notapplicable .v,.notchecked .v,.informational .v{color:#57606a}\
dl{margin:.5rem 0 .5rem 9rem;display:grid;grid-template-columns:6rem 1fr;gap:.2rem .5rem}dt{color:#57606a}dd{margin:0;white-space:pre-wrap;overflow-wrap:anywhere}\
code{font-size:.85em;color:#57606a}@media print{.filter{display:none}details{break-inside:avoid}}";

/// Shows what is ticked; without scripts everything is shown.
const SCRIPT: &str = "document.querySelectorAll('.filter input').forEach(box=>box.addEventListener('change',()=>{\
document.querySelectorAll('details.'+box.value).forEach(row=>{row.hidden=!box.checked})}));";

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

/// The report of a run.
pub fn report(run: &TestRun<'_>) -> String {
    let benchmark = &run.policy.benchmark;
    let mut page = String::from("<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">");
    let _ = write!(
        page,
        "<meta name=\"viewport\" content=\"width=device-width\"><title>{}</title><style>{STYLE}</style></head>\n<body>",
        escaped(&benchmark.title)
    );
    let _ = write!(
        page,
        "<h1>{}</h1><p class=\"about\">{} · version {} · profile {} · {} · {:.0}</p>",
        escaped(&benchmark.title),
        escaped(&run.facts.host_name),
        escaped(&benchmark.version),
        escaped(&run.compiled.profile),
        escaped(&run.facts.os_name),
        run.ended
    );
    match run.evaluation.score {
        Some(score) => {
            let _ = write!(page, "<p><span class=\"score\">{score:.1}</span> of 100</p>");
        }
        None => page.push_str("<p>No rule counts for a score.</p>"),
    }
    page.push_str("<p class=\"filter\">");
    for (verdict, count) in run.evaluation.counts.iter().filter(|(verdict, _)| *verdict != Verdict::NotSelected) {
        let _ = write!(page, "<label><input type=\"checkbox\" checked value=\"{verdict}\"> {count} {verdict}</label>");
    }
    page.push_str("</p>\n");
    let mut results: Vec<&RuleResult> = run.evaluation.results.iter().collect();
    results.sort_by_key(|result| (rank(result.verdict), std::cmp::Reverse(weight(result.severity))));
    for result in results {
        row(&mut page, result);
    }
    let _ = writeln!(page, "<script>{SCRIPT}</script></body></html>");
    page
}

/// What has to be looked at comes first.
fn rank(verdict: Verdict) -> u8 {
    match verdict {
        Verdict::Fail => 0,
        Verdict::Error => 1,
        Verdict::Unknown => 2,
        Verdict::NotChecked => 3,
        Verdict::Informational => 4,
        Verdict::Pass | Verdict::Fixed => 5,
        Verdict::NotApplicable | Verdict::NotSelected => 6,
    }
}

/// A severity that nobody says is no high one.
fn weight(severity: Severity) -> u8 {
    match severity {
        Severity::High => 3,
        Severity::Medium => 2,
        Severity::Low => 1,
        Severity::Info | Severity::Unknown => 0,
    }
}

fn row(page: &mut String, result: &RuleResult) {
    let _ = write!(
        page,
        "<details class=\"{verdict}\"{open}><summary><span class=\"v\">{verdict}</span><span>{}</span><span>{}</span></summary><dl>",
        result.severity,
        escaped(&result.title),
        verdict = result.verdict,
        open = if result.verdict == Verdict::Fail { " open" } else { "" },
    );
    for (name, lines) in [("found", &result.found), ("expected", &result.expected), ("because", &result.reasons)] {
        if !lines.is_empty() {
            let _ = write!(page, "<dt>{name}</dt><dd>{}</dd>", escaped(&lines.join("\n")));
        }
    }
    if let Some(fix) = &result.fix {
        let _ = write!(page, "<dt>fix</dt><dd>{}</dd>", escaped(fix));
    }
    let _ = writeln!(page, "<dt>rule</dt><dd><code>{}</code></dd></dl></details>", escaped(&result.rule));
}
