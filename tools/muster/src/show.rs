//! How things look: lines and tables on stdout, progress and the rest on stderr, colour only on a
//! terminal.

use std::io::{IsTerminal as _, Write as _};

use comfy_table::{ContentArrangement, Table, presets};
use jiff::Timestamp;
use proto::operator::Activity;
use proto::verdict::{EvaluationSummary, RuleResult, Severity, Verdict};

/// Prints a line of data.
pub(crate) fn line(text: impl AsRef<str>) {
    let _ = writeln!(std::io::stdout(), "{}", text.as_ref());
}

/// Prints data that has its line ends.
pub(crate) fn text(text: &str) {
    let _ = write!(std::io::stdout(), "{text}");
}

/// Prints a line that is not data.
pub(crate) fn note(text: impl AsRef<str>) {
    let _ = writeln!(std::io::stderr(), "{}", text.as_ref());
}

/// Prints an error with its causes.
pub(crate) fn error(error: &anyhow::Error) {
    let text: Vec<String> = error.chain().map(ToString::to_string).collect();
    note(format!("{} {}", paint(Colour::Red, "error:", std::io::stderr().is_terminal()), text.join(": ")));
}

/// Prints data as JSON.
pub(crate) fn json<T: serde::Serialize>(data: &T) -> anyhow::Result<()> {
    line(serde_json::to_string_pretty(data)?);
    Ok(())
}

/// Prints a table.
pub(crate) fn table(header: &[&str], rows: Vec<Vec<String>>) {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(header.iter().map(|name| name.to_uppercase()).collect::<Vec<_>>());
    for row in rows {
        table.add_row(row);
    }
    for row in table.lines() {
        line(row.trim_end());
    }
}

/// Characters in a line of a table whose cells are sentences, where nobody says how wide the terminal is.
const WIDTH: u16 = 160;

/// Prints a table whose cells are sentences: they are broken into lines.
pub(crate) fn table_that_fits(header: &[&str], rows: Vec<Vec<String>>) {
    let columns = std::env::var("COLUMNS").ok().and_then(|columns| columns.parse::<u16>().ok());
    let width = columns.map_or(WIDTH, |columns| columns.max(WIDTH / 2));
    let mut table = Table::new();
    table.load_style(presets::UTF8_HORIZONTAL_ONLY).set_content_arrangement(ContentArrangement::Dynamic);
    table.set_width(width).set_header(header.iter().map(|name| name.to_uppercase()).collect::<Vec<_>>());
    for row in rows {
        table.add_row(row);
    }
    for row in table.lines() {
        line(row.trim_end());
    }
}

/// How long ago, in words.
pub(crate) fn ago(then: Option<Timestamp>, now: Timestamp) -> String {
    let Some(then) = then else { return "never".to_owned() };
    match now.duration_since(then).as_secs() {
        ..=1 => "now".to_owned(),
        seconds @ ..=119 => format!("{seconds} s ago"),
        seconds @ ..=7_199 => format!("{} min ago", seconds / 60),
        seconds @ ..=172_799 => format!("{} h ago", seconds / 3_600),
        seconds => format!("{} d ago", seconds / 86_400),
    }
}

#[derive(Debug, Clone, Copy)]
enum Colour {
    Red,
    Green,
    Yellow,
    Grey,
    Bold,
}

fn paint(colour: Colour, text: &str, is_terminal: bool) -> String {
    if !is_terminal || std::env::var_os("NO_COLOR").is_some() {
        return text.to_owned();
    }
    let code = match colour {
        Colour::Red => "31;1",
        Colour::Green => "32",
        Colour::Yellow => "33",
        Colour::Grey => "90",
        Colour::Bold => "1",
    };
    format!("\x1b[{code}m{text}\x1b[0m")
}

fn on_stdout(colour: Colour, text: &str) -> String {
    paint(colour, text, std::io::stdout().is_terminal())
}

fn colour_of(verdict: Verdict) -> Colour {
    match verdict {
        Verdict::Pass | Verdict::Fixed => Colour::Green,
        Verdict::Fail | Verdict::Error => Colour::Red,
        Verdict::Unknown => Colour::Yellow,
        Verdict::NotApplicable | Verdict::NotChecked | Verdict::NotSelected | Verdict::Informational => Colour::Grey,
    }
}

/// A bar on stderr, while it is a terminal.
#[derive(Debug)]
pub(crate) struct Progress {
    is_terminal: bool,
    is_shown: bool,
}

impl Progress {
    pub(crate) fn new() -> Self {
        Self { is_terminal: std::io::stderr().is_terminal(), is_shown: false }
    }

    /// Draws the bar.
    pub(crate) fn draw(&mut self, activity: Activity, done: u64, total: u64) {
        if !self.is_terminal {
            return;
        }
        const WIDTH: u64 = 32;
        let filled = (done.min(total) * WIDTH).checked_div(total).unwrap_or_default();
        let bar: String = (0..WIDTH).map(|at| if at < filled { '█' } else { '░' }).collect();
        let what = match activity {
            Activity::Collecting => "collecting",
            Activity::Evaluating => "evaluating",
        };
        let _ = write!(std::io::stderr(), "\r\x1b[2K{what:<11} {bar} {done}/{total}");
        let _ = std::io::stderr().flush();
        self.is_shown = true;
    }

    /// Takes the bar away, so that a line can be printed.
    pub(crate) fn clear(&mut self) {
        if self.is_shown {
            let _ = write!(std::io::stderr(), "\r\x1b[2K");
            let _ = std::io::stderr().flush();
            self.is_shown = false;
        }
    }
}

/// A verdict as it comes in.
pub(crate) fn verdict(result: &RuleResult) {
    let verdict = on_stdout(colour_of(result.verdict), &format!("{:<13}", result.verdict.as_str()));
    line(format!("{verdict} {:<7} {}", result.severity.as_str(), result.title));
}

/// The outcome of an evaluation: score, counts, and what is not as it should be.
pub(crate) fn summary(endpoint: &str, summary: &EvaluationSummary, results: &[RuleResult]) {
    line("");
    let score =
        summary.score.map_or_else(|| "no score: no rule counts".to_owned(), |score| format!("score {score:.1} of 100"));
    line(on_stdout(Colour::Bold, &format!("{endpoint}   {}   {score}", summary.policy)));
    let counts: Vec<String> = summary
        .counts
        .iter()
        .filter(|(verdict, _)| *verdict != Verdict::NotSelected)
        .map(|(verdict, count)| on_stdout(colour_of(*verdict), &format!("{count} {verdict}")))
        .collect();
    line(counts.join("   "));
    let mut wanting: Vec<&RuleResult> = results
        .iter()
        .filter(|result| matches!(result.verdict, Verdict::Fail | Verdict::Error | Verdict::Unknown))
        .collect();
    wanting.sort_by_key(|result| (std::cmp::Reverse(weight(result.severity)), result.verdict, result.rule.clone()));
    for result in wanting {
        line("");
        let head = format!("{} {}", result.verdict.as_str().to_uppercase(), result.severity);
        line(format!("{}  {}", on_stdout(colour_of(result.verdict), &head), on_stdout(Colour::Bold, &result.title)));
        for (label, lines) in [("found", &result.found), ("expected", &result.expected), ("because", &result.reasons)] {
            for (at, text) in lines.iter().enumerate() {
                line(format!("    {:<9} {text}", if at == 0 { label } else { "" }));
            }
        }
        if let Some(fix) = &result.fix {
            for (at, text) in fix.lines().enumerate() {
                line(format!("    {:<9} {text}", if at == 0 { "fix" } else { "" }));
            }
        }
    }
}

fn weight(severity: Severity) -> u8 {
    match severity {
        Severity::High => 4,
        Severity::Medium => 3,
        Severity::Unknown => 2,
        Severity::Low => 1,
        Severity::Info => 0,
    }
}

/// Rows as CSV (RFC 4180). A cell that a spreadsheet would compute begins with an apostrophe: titles and values come
/// from policies and endpoints.
pub(crate) fn csv(header: &[&str], rows: &[Vec<String>]) -> String {
    let cell = |text: &str| {
        let guard = if text.starts_with(['=', '+', '-', '@', '\t', '\r']) { "'" } else { "" };
        if text.contains([',', '"', '\n', '\r']) {
            format!("\"{guard}{}\"", text.replace('"', "\"\""))
        } else {
            format!("{guard}{text}")
        }
    };
    let line = |cells: &mut dyn Iterator<Item = &str>| cells.map(cell).collect::<Vec<_>>().join(",") + "\r\n";
    let mut text = line(&mut header.iter().copied());
    for row in rows {
        text.push_str(&line(&mut row.iter().map(String::as_str)));
    }
    text
}

/// The columns of results as CSV.
pub(crate) const RESULT_COLUMNS: [&str; 7] = ["rule", "title", "severity", "verdict", "found", "expected", "reasons"];

/// One result in those columns.
pub(crate) fn result_cells(result: &RuleResult) -> Vec<String> {
    let (severity, verdict) = (result.severity.to_string(), result.verdict.to_string());
    let lines = |lines: &[String]| lines.join("; ");
    vec![
        result.rule.clone(),
        result.title.clone(),
        severity,
        verdict,
        lines(&result.found),
        lines(&result.expected),
        lines(&result.reasons),
    ]
}
