//! What was measured, as a table and for programs.

use serde_json::{Value, json};

use super::cores::Cores;
use super::rows::Measure;
use crate::cli::Output;
use crate::show;

/// What came of a measure.
#[derive(Debug)]
pub(crate) struct Finding {
    /// In words.
    pub(crate) measured: String,
    /// The same for programs.
    pub(crate) figures: Value,
    pub(crate) is_met: bool,
    /// What limits it, by what was seen.
    pub(crate) limit: String,
}

/// A measure with its target, and what came of it.
#[derive(Debug)]
pub(crate) struct Row {
    pub(crate) measure: Measure,
    pub(crate) what: String,
    pub(crate) target: String,
    pub(crate) outcome: anyhow::Result<Finding>,
}

impl Row {
    pub(crate) fn is_measured(&self) -> bool {
        self.outcome.is_ok()
    }

    /// What was measured, or why it was not.
    pub(crate) fn measured(&self) -> String {
        match &self.outcome {
            Ok(finding) => finding.measured.clone(),
            Err(error) => format!("not measured: {}", reason(error)),
        }
    }

    fn json(&self) -> Value {
        let (finding, fault) = match &self.outcome {
            Ok(finding) => (Some(finding), None),
            Err(error) => (None, Some(reason(error))),
        };
        json!({
            "measure": self.measure.name(),
            "what": self.what,
            "target": self.target,
            "measured": finding.map(|finding| &finding.measured),
            "figures": finding.map(|finding| &finding.figures),
            "is-met": finding.map(|finding| finding.is_met),
            "limit": finding.map(|finding| &finding.limit),
            "fault": fault,
        })
    }
}

fn reason(error: &anyhow::Error) -> String {
    error.chain().map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

/// Shows all of them.
pub(crate) fn print(rows: &[Row], collectors: u64, cores: Cores, output: Output) -> anyhow::Result<()> {
    if output == Output::Json {
        return show::json(&json!({
            "collectors": collectors,
            "cores": cores.in_words(),
            "is-pinned": cores.is_pinned,
            "is-one-core": cores.is_shared(),
            "rows": rows.iter().map(Row::json).collect::<Vec<_>>(),
        }));
    }
    let cells = rows.iter().map(|row| {
        let (is_met, limit) = match &row.outcome {
            Ok(finding) if finding.is_met => ("yes", finding.limit.clone()),
            Ok(finding) => ("no", finding.limit.clone()),
            Err(_) => ("-", String::new()),
        };
        vec![row.what.clone(), row.target.clone(), row.measured(), is_met.to_owned(), limit]
    });
    show::table_that_fits(&["measure", "target", "measured", "met?", "what limits it"], cells.collect());
    show::line("");
    show::line(format!("{}; targets are those for 10,000 collectors, these are {collectors}", cores.in_words()));
    Ok(())
}
