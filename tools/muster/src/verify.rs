//! `muster verify`: from a verdict back to what was asked, by signatures and hashes alone.

use std::collections::BTreeSet;
use std::io::Write as _;
use std::path::Path;

use anyhow::{Context as _, bail};
use jiff::Timestamp;
use proto::id::EndpointId;
use proto::operator::{Ask, OperatorEvent};
use proto::verdict::Verdict;
use service::chain::{Asked, Link, Proven, counts, verify};

use crate::cli::{Output, VerifyArgs};
use crate::{audit, client, exit, show};

/// Checks a chain, of the orchestrator or from a file; or writes it out.
pub(crate) async fn run(data: &Path, args: VerifyArgs, output: Output) -> anyhow::Result<u8> {
    let links = match &args.file {
        Some(file) => read(file)?,
        None => ask(data, &args).await?,
    };
    if let Some(file) = &args.export {
        write(file, &links)?;
    }
    let target: Option<EndpointId> = args.target.as_ref().and_then(|target| target.parse().ok());
    let cas = audit::cas_of(data, args.ca)?;
    let proven = verify(&links, &cas, args.rule.as_deref()).context("the chain does not hold")?;
    // What was answered is what was asked, whoever answers.
    let is_asked = |verdict: &Proven| {
        args.transaction.is_none_or(|transaction| verdict.transaction == transaction)
            && target.is_none_or(|target| verdict.endpoint == target)
    };
    if let Some(other) = proven.iter().find(|verdict| !is_asked(verdict)) {
        bail!("the answer is about the endpoint {} in the workflow {}", other.endpoint, other.transaction);
    }
    if output == Output::Json {
        show::json(&proven)?;
    } else {
        print(&proven, args.rule.is_some());
    }
    Ok(exit::DONE)
}

async fn ask(data: &Path, args: &VerifyArgs) -> anyhow::Result<Vec<Link>> {
    let (transaction, endpoint, rule) = (args.transaction, args.target.clone(), args.rule.clone());
    let mut answers = client::ask(data, Ask::Chain { transaction, endpoint, rule }, &[]).await?;
    let mut links = Vec::new();
    while let Some(event) = answers.next().await? {
        let OperatorEvent::Chain(more) = event else { bail!("unexpected answer: {event:?}") };
        for line in more {
            links.push(serde_json::from_str(&line).context("the orchestrator's answer cannot be read")?);
        }
    }
    Ok(links)
}

fn read(file: &Path) -> anyhow::Result<Vec<Link>> {
    audit::json_lines(file, "a message of a chain")
}

fn write(file: &Path, links: &[Link]) -> anyhow::Result<()> {
    let written = || -> std::io::Result<()> {
        let mut out = std::io::BufWriter::new(std::fs::File::create_new(file)?);
        for link in links {
            serde_json::to_writer(&mut out, link)?;
            out.write_all(b"\n")?;
        }
        out.flush()
    };
    written().with_context(|| format!("{} cannot be written", file.display()))?;
    show::note(format!("{} messages written to {}", links.len(), file.display()));
    Ok(())
}

fn print(proven: &[Proven], is_detailed: bool) {
    if is_detailed {
        for verdict in proven {
            print_one(verdict);
        }
    }
    let (reports, tasks) = counts(proven);
    let of = |count: usize, what: &str| format!("{count} {what}{}", if count == 1 { "" } else { "s" });
    show::line(format!(
        "{} on {} in {} can be followed back over {} and {}: every signature and every reference holds",
        of(proven.len(), "verdict"),
        of_which(proven.iter().map(|verdict| verdict.endpoint).collect(), "endpoint"),
        of_which(proven.iter().map(|verdict| verdict.transaction).collect(), "workflow"),
        of(reports, "report"),
        of(tasks, "request")
    ));
    let missing = proven.iter().filter(|verdict| !verdict.missing.is_empty()).count();
    let on_nothing = |verdict: &&Proven| {
        matches!(verdict.result.verdict, Verdict::Pass | Verdict::Fail) && verdict.evidence.is_empty()
    };
    let on_nothing = proven.iter().filter(on_nothing).count();
    if on_nothing > 0 {
        show::line(format!("{} of pass or fail, by the policy alone, rest on no object", of(on_nothing, "verdict")));
    }
    if missing > 0 {
        show::line(format!("{} rest in part on objects of which nothing was stored", of(missing, "verdict")));
    }
}

/// The one that it is, or how many there are.
fn of_which<T: std::fmt::Display + Ord>(which: BTreeSet<T>, what: &str) -> String {
    match which.first() {
        Some(one) if which.len() == 1 => format!("{what} {one}"),
        _ => format!("{} {what}s", which.len()),
    }
}

fn print_one(verdict: &Proven) {
    let result = &verdict.result;
    show::line(format!("{}  {}", result.verdict.as_str().to_uppercase(), result.rule));
    show::line(format!("  endpoint  {}", verdict.endpoint));
    show::line(format!("  decided   {} by evaluator {}", time(verdict.sent), verdict.evaluator));
    show::line(format!("  asked     {}", words(&verdict.asked, "policy")));
    for report in &verdict.evidence {
        show::line(format!(
            "  rests on  report {} of {} by collector {}",
            report.hash.short(),
            time(report.sent),
            report.collector
        ));
        if report.endpoint != verdict.endpoint {
            show::line(format!("    on      {}, which was merged into this endpoint", report.endpoint));
        }
        for object in &report.objects {
            show::line(format!("            {object}"));
        }
        show::line(format!("    asked   {}", words(&report.asked, "plan")));
    }
    for object in &verdict.missing {
        show::line(format!("  missing   {object}: nothing was stored of it"));
    }
}

fn words(asked: &Asked, content: &str) -> String {
    let Asked { hash, kind, orchestrator, sent, content: of } = asked;
    format!("{kind} {} of {} by orchestrator {orchestrator}, {content} {}", hash.short(), time(*sent), of.short())
}

fn time(at: Timestamp) -> String {
    format!("{at:.0}")
}
