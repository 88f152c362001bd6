//! `muster metrics`: what is counted, in the OpenMetrics text format 1.0.

use std::fmt::Write as _;
use std::path::Path;

use anyhow::bail;
use proto::operator::{Ask, OperatorEvent, SystemStatus};

use crate::cli::Output;
use crate::commands::one;
use crate::{exit, show};

pub(crate) async fn print(data: &Path, output: Output) -> anyhow::Result<u8> {
    let OperatorEvent::Status(status) = one(data, Ask::Status, &[]).await? else { bail!("unexpected answer") };
    if output == Output::Json {
        show::json(&status)?;
    } else {
        show::text(&text(&status));
    }
    Ok(exit::DONE)
}

fn text(status: &SystemStatus) -> String {
    let mut out = String::new();
    let version = [("version", status.version.as_str())];
    family(&mut out, "muster_build", "info", "The orchestrator that says this.", [(&version[..], 1)]);
    let started = u64::try_from(status.started.as_second()).unwrap_or_default();
    family(&mut out, "muster_start_time_seconds", "gauge", "When it started.", [(&[][..], started)]);
    let components: Vec<_> =
        status.component_counts.iter().map(|(state, count)| ([("state", state.as_str())], *count)).collect();
    family(&mut out, "muster_components", "gauge", "Components on the roster.", labelled(&components));
    family(
        &mut out,
        "muster_endpoints",
        "gauge",
        "Endpoints that collectors speak for.",
        [(&[][..], status.endpoint_count)],
    );
    family(
        &mut out,
        "muster_open_workflows",
        "gauge",
        "Workflows that go on.",
        [(&[][..], status.open_transaction_count)],
    );
    for (name, help, counts) in [
        ("muster_refused_messages", "Messages that the orchestrator refused.", &status.refused_counts),
        ("muster_security_events", "Security statuses.", &status.security_counts),
    ] {
        let counts: Vec<_> = counts.iter().map(|(code, count)| ([("code", code.as_str())], *count)).collect();
        family(&mut out, name, "counter", help, labelled(&counts));
    }
    for count in &status.broker_counts {
        let kind = if count.is_total() { "counter" } else { "gauge" };
        let name = format!("muster_broker_{}", count.name.trim_end_matches("_total"));
        family(&mut out, &name, kind, &count.help, [(&[][..], count.value)]);
    }
    out.push_str("# EOF\n");
    out
}

type Labels<'a> = &'a [(&'a str, &'a str)];

fn labelled<'a>(samples: &'a [([(&'a str, &'a str); 1], u64)]) -> impl Iterator<Item = (Labels<'a>, u64)> {
    samples.iter().map(|(labels, value)| (&labels[..], *value))
}

/// A metric family: what it is, and its samples. Counters and infos have a suffix that their family has not.
fn family<'a>(
    out: &mut String,
    name: &str,
    kind: &str,
    help: &str,
    samples: impl IntoIterator<Item = (Labels<'a>, u64)>,
) {
    let _ = writeln!(out, "# TYPE {name} {kind}\n# HELP {name} {}", escaped(help));
    let suffix = match kind {
        "counter" => "_total",
        "info" => "_info",
        _ => "",
    };
    for (labels, value) in samples {
        let labels: Vec<String> = labels.iter().map(|(name, value)| format!("{name}=\"{}\"", escaped(value))).collect();
        let labels = if labels.is_empty() { String::new() } else { format!("{{{}}}", labels.join(",")) };
        let _ = writeln!(out, "{name}{suffix}{labels} {value}");
    }
}

fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_are_written_as_openmetrics_does() {
        let mut out = String::new();
        let counts = [([("code", "a\"b\\c\nd")], 3), ([("code", "plain")], 0)];
        family(&mut out, "muster_refused_messages", "counter", "Messages.", labelled(&counts));
        family(&mut out, "muster_endpoints", "gauge", "Endpoints.", [(&[][..], 7)]);
        let expected = [
            "# TYPE muster_refused_messages counter",
            "# HELP muster_refused_messages Messages.",
            r#"muster_refused_messages_total{code="a\"b\\c\nd"} 3"#,
            r#"muster_refused_messages_total{code="plain"} 0"#,
            "# TYPE muster_endpoints gauge",
            "# HELP muster_endpoints Endpoints.",
            "muster_endpoints 7\n",
        ];
        assert_eq!(out, expected.join("\n"));
    }
}
