//! `muster scap xccdf generate` and `remediate`: guides, scripts and reports. Scripts are printed, never run.

use std::path::{Path, PathBuf};

use anyhow::bail;
use clap::{Args, Subcommand};
use proto::verdict::Verdict;
use scap::compile::compile;
use scap::fix::{FixScript, FixType};
use scap::html::{Guide, Report};
use scap::policy::{Policy, PolicyError};
use scap::tailored::Tailored;
use scap::test_result::{self, TestResult};

use super::{Source, SourceArgs};
use crate::drop_in::write;
use crate::{exit, show};

/// `muster scap xccdf generate`
#[derive(Debug, Args)]
pub(crate) struct GenerateArgs {
    /// A profile by its id or the end of it; `(all)` selects every rule.
    #[arg(id = "generate-profile", long = "profile", value_name = "PROFILE")]
    profile: Option<String>,
    #[command(subcommand)]
    what: Generate,
}

/// What is generated.
#[derive(Debug, Subcommand)]
enum Generate {
    /// What a benchmark asks for, for people (HTML).
    Guide(DocumentArgs),
    /// A script that mends the rules of a profile, or those that failed.
    Fix(Box<FixArgs>),
    /// What a result says, for people (HTML).
    Report(ReportArgs),
}

/// A document made from a benchmark.
#[derive(Debug, Args)]
struct DocumentArgs {
    #[command(flatten)]
    source: SourceArgs,
    /// Write it here instead of printing it.
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Taken for the sake of scripts.
    #[arg(long, hide = true)]
    hide_profile_info: bool,
}

/// `muster scap xccdf generate fix`
#[derive(Debug, Args)]
struct FixArgs {
    #[command(flatten)]
    document: DocumentArgs,
    /// What the script is written in: bash, ansible, puppet, anaconda or kubernetes.
    #[arg(long, default_value = "bash", value_parser = parse_fix_type, value_name = "TYPE")]
    fix_type: FixType,
    /// The same by the fixes' system, such as `urn:xccdf:fix:script:sh`.
    #[arg(long, value_parser = parse_fix_type, value_name = "SYSTEM", conflicts_with = "fix_type")]
    template: Option<FixType>,
    /// Only what failed in this result of the file; empty: in the newest.
    #[arg(long, value_name = "ID")]
    result_id: Option<String>,
}

/// `muster scap xccdf generate report`
#[derive(Debug, Args)]
struct ReportArgs {
    #[command(flatten)]
    document: DocumentArgs,
    /// A result by its id; without, the newest of the file.
    #[arg(long, value_name = "ID")]
    result_id: Option<String>,
}

/// `muster scap xccdf remediate`
#[derive(Debug, Args)]
pub(crate) struct RemediateArgs {
    #[command(flatten)]
    source: SourceArgs,
    /// A result by its id; without, the newest of the file.
    #[arg(long, value_name = "ID")]
    result_id: Option<String>,
    /// Print the script. Muster never runs one, so this has to be said.
    #[arg(long)]
    dry_run: bool,
}

fn parse_fix_type(text: &str) -> Result<FixType, String> {
    FixType::parse(text).ok_or_else(|| {
        let known: Vec<&str> = FixType::ALL.iter().map(|kind| kind.as_str()).collect();
        format!("use one of {}", known.join(", "))
    })
}

fn print(output: Option<&Path>, text: &str) -> anyhow::Result<u8> {
    match output {
        Some(path) => write(path, text)?,
        None => show::line(text.trim_end_matches('\n')),
    }
    Ok(exit::DONE)
}

pub(super) fn run(args: &GenerateArgs) -> anyhow::Result<u8> {
    let profile = |source: &SourceArgs| source.profile.clone().or_else(|| args.profile.clone());
    match &args.what {
        Generate::Guide(document) => {
            let source = Source::read_with_prose(&document.source)?;
            let profile = profile(&document.source);
            let policy = &source.bundle.policy;
            let compiled = compile(policy, profile.as_deref())?;
            let tailored = Tailored::new(policy, profile.as_deref())?;
            let guide = Guide { policy, compiled: &compiled, tailored: &tailored };
            print(document.output.as_deref(), &guide.page())
        }
        Generate::Fix(args) => {
            let document = &args.document;
            let kind = args.template.unwrap_or(args.fix_type);
            let script = script(&document.source, profile(&document.source), kind, args.result_id.as_deref())?;
            print(document.output.as_deref(), &script)
        }
        Generate::Report(args) => {
            let source = Source::read(&args.document.source)?;
            let result = chosen(&source, args.result_id.as_deref().unwrap_or_default())?;
            let policy = &source.bundle.policy;
            let (tailored, _) = tailored(policy, profile(&args.document.source), Some(&result))?;
            let report = Report::of_result(&result, &policy.benchmark, &tailored);
            print(args.document.output.as_deref(), &report.page())
        }
    }
}

pub(super) fn remediate(args: &RemediateArgs) -> anyhow::Result<u8> {
    if !args.dry_run {
        bail!("Muster runs no scripts: see what would be done with --dry-run, and run it yourself");
    }
    let result = args.result_id.as_deref().unwrap_or_default();
    let script = script(&args.source, args.source.profile.clone(), FixType::Bash, Some(result))?;
    print(None, &script)
}

/// The result of that id; with an empty one, the newest, which is the last.
fn chosen(source: &Source, id: &str) -> anyhow::Result<TestResult> {
    let mut results = test_result::read(&source.bytes)?;
    let known = results.iter().map(|result| result.id.clone()).collect::<Vec<_>>().join(", ");
    let at = if id.is_empty() {
        results.len().checked_sub(1)
    } else {
        let ends = |result: &TestResult| result.id == id || result.id.ends_with(&format!("_{id}"));
        results.iter().rposition(ends)
    };
    match at {
        Some(at) => Ok(results.swap_remove(at)),
        None if known.is_empty() => bail!("there is no TestResult in the file"),
        None => bail!("there is no TestResult `{id}` in the file; it has {known}"),
    }
}

/// The benchmark as a profile has it, or as a result says that it was used; and the profile, where it is known here.
fn tailored<'policy>(
    policy: &'policy Policy,
    profile: Option<String>,
    result: Option<&TestResult>,
) -> anyhow::Result<(Tailored<'policy>, Option<String>)> {
    let Some(result) = result else { return Ok((Tailored::new(policy, profile.as_deref())?, profile)) };
    // A profile that only a tailoring knows: the result has its values and its verdicts.
    let wanted = profile.or_else(|| result.profile.clone());
    let known = match Tailored::new(policy, wanted.as_deref()) {
        Err(PolicyError::NoSuchProfile { .. }) => None,
        _ => wanted,
    };
    Ok((Tailored::new(policy, known.as_deref())?.with_values(&result.values), known))
}

fn script(
    args: &SourceArgs,
    profile: Option<String>,
    kind: FixType,
    result_id: Option<&str>,
) -> anyhow::Result<String> {
    let source = Source::read_with_prose(args)?;
    let policy = &source.bundle.policy;
    let result = result_id.map(|id| chosen(&source, id)).transpose()?;
    let (tailored, profile) = tailored(policy, profile, result.as_ref())?;
    let compiled = compile(policy, profile.as_deref())?;
    let script = FixScript {
        policy,
        compiled: &compiled,
        tailored: &tailored,
        kind,
        result: result.as_ref().map(|result| result.id.as_str()),
    };
    Ok(script.write(&|rule| match &result {
        None => rule.selected,
        Some(result) => result.results.iter().any(|of| of.rule == rule.id && of.verdict == Verdict::Fail),
    }))
}
