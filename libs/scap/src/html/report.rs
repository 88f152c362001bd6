//! What was found on one endpoint, with filters and evidence in words. Evidence is cut where it is made, so that
//! no finding makes the page too large.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use proto::verdict::{RuleResult, Severity, Verdict};

use super::{begin, escaped};
use crate::tailored::Tailored;
use crate::test_result::{TestResult, TestRun};
use crate::xccdf::Benchmark;

/// Shows what is ticked; without scripts everything is shown.
const SCRIPT: &str = "document.querySelectorAll('.filter input').forEach(box=>box.addEventListener('change',()=>{\
document.querySelectorAll('details.'+box.value).forEach(row=>{row.hidden=!box.checked})}));";

/// What a report tells.
#[derive(Debug, Clone, PartialEq)]
pub struct Report {
    /// The benchmark's title and its version.
    pub benchmark: (String, String),
    /// The profile's id; empty where there is none.
    pub profile: String,
    /// The endpoint, in a few words.
    pub target: String,
    /// When it was evaluated.
    pub ended: String,
    /// The score, of 100.
    pub score: Option<f64>,
    /// The rules that were selected.
    pub results: Vec<RuleResult>,
}

impl From<&TestRun<'_>> for Report {
    fn from(run: &TestRun<'_>) -> Self {
        let benchmark = &run.policy.benchmark;
        Self {
            benchmark: (benchmark.title.clone(), benchmark.version.clone()),
            profile: run.compiled.profile.clone(),
            target: format!("{} · {}", run.facts.host_name, run.facts.os_name),
            ended: format!("{:.0}", run.ended),
            score: run.evaluation.score,
            results: run.evaluation.results.clone(),
        }
    }
}

impl Report {
    /// Of a result that was read, with what the benchmark knows of its rules.
    pub fn of_result(result: &TestResult, benchmark: &Benchmark, tailored: &Tailored<'_>) -> Self {
        let rules: BTreeMap<&str, _> =
            benchmark.rules().into_iter().map(|rule| (rule.common.id.as_str(), rule)).collect();
        let mut results: Vec<RuleResult> =
            result.results.iter().filter(|result| result.verdict != Verdict::NotSelected).cloned().collect();
        for result in &mut results {
            let rule = rules.get(result.rule.as_str());
            result.title = rule.map_or_else(String::new, |rule| tailored.title(&rule.common));
        }
        Self {
            benchmark: (benchmark.title.clone(), benchmark.version.clone()),
            profile: result.profile.clone().unwrap_or_default(),
            target: result.targets.join(", "),
            ended: result.ended.clone(),
            score: result.score,
            results,
        }
    }

    /// The page.
    pub fn page(&self) -> String {
        let (title, version) = &self.benchmark;
        let mut page = begin(title);
        let _ = write!(
            page,
            "<h1>{}</h1><p class=\"about\">{} · version {} · profile {} · {}</p>",
            escaped(title),
            escaped(&self.target),
            escaped(version),
            escaped(&self.profile),
            escaped(&self.ended),
        );
        match self.score {
            Some(score) => {
                let _ = write!(page, "<p><span class=\"score\">{score:.1}</span> of 100</p>");
            }
            None => page.push_str("<p>No rule counts for a score.</p>"),
        }
        let mut counts: BTreeMap<Verdict, usize> = BTreeMap::new();
        for result in &self.results {
            *counts.entry(result.verdict).or_default() += 1;
        }
        page.push_str("<p class=\"filter\">");
        for (verdict, count) in counts {
            let _ =
                write!(page, "<label><input type=\"checkbox\" checked value=\"{verdict}\"> {count} {verdict}</label>");
        }
        page.push_str("</p>\n");
        let mut results: Vec<&RuleResult> = self.results.iter().collect();
        results.sort_by_key(|result| (rank(result.verdict), std::cmp::Reverse(weight(result.severity))));
        for result in results {
            row(&mut page, result);
        }
        let _ = writeln!(page, "<script>{SCRIPT}</script></body></html>");
        page
    }
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
