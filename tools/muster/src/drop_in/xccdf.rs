//! `muster scap xccdf`: eval.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use clap::{Args, Subcommand};
use jiff::Timestamp;
use proto::observation::EndpointFacts;
use proto::verdict::{RuleResult, Verdict};
use scap::compile::{Compiled, compile_rules};
use scap::datastream::{self, Bundle, Choice};
use scap::documents::{join_platforms, read_benchmark, without_declaration};
use scap::evaluate::{Evaluation, Evidence, evaluate};
use scap::explain::Explanation;
use scap::oval_results::OvalRun;
use scap::test_result::TestRun;
use scap::xml_out::XmlOut;
use scap::{arf, html, tailoring, xml_slice};

use super::{Validation, read, root, root_name, write};
use crate::{exit, show};

/// `muster scap xccdf`
#[derive(Debug, Subcommand)]
pub(crate) enum XccdfCommand {
    /// Look at this machine and evaluate a benchmark.
    Eval(Box<EvalArgs>),
}

/// Which benchmark of a file, and which of its profiles.
#[derive(Debug, Args)]
pub(crate) struct SourceArgs {
    /// A profile by its id or the end of it; `(all)` selects every rule.
    #[arg(long)]
    profile: Option<String>,
    /// A tailoring file.
    #[arg(long, value_name = "FILE")]
    tailoring_file: Option<PathBuf>,
    /// A component of the data stream as tailoring.
    #[arg(long, value_name = "ID")]
    tailoring_id: Option<String>,
    /// A CPE dictionary or language for applicability.
    #[arg(long, value_name = "FILE")]
    cpe: Option<PathBuf>,
    /// A data stream by its id.
    #[arg(long, value_name = "ID")]
    datastream_id: Option<String>,
    /// A checklist's component-ref by its id.
    #[arg(long, value_name = "ID")]
    xccdf_id: Option<String>,
    /// A benchmark by its id.
    #[arg(long, value_name = "ID")]
    benchmark_id: Option<String>,
    #[command(flatten)]
    validation: Validation,
    /// Taken for the sake of scripts; signatures are not looked at.
    #[arg(long)]
    skip_signature_validation: bool,
    /// An XCCDF benchmark or a source data stream.
    input: PathBuf,
    /// OVAL definitions, where a stand-alone benchmark's are not beside it.
    oval: Vec<PathBuf>,
}

/// `muster scap xccdf eval`
#[derive(Debug, Args)]
pub(crate) struct EvalArgs {
    #[command(flatten)]
    source: SourceArgs,
    /// Only this rule; may be given several times.
    #[arg(long = "rule", value_name = "ID")]
    rules: Vec<String>,
    /// Not this rule; may be given several times.
    #[arg(long = "skip-rule", value_name = "ID")]
    skipped: Vec<String>,
    /// Write the benchmark with its result here.
    #[arg(long, value_name = "FILE")]
    results: Option<PathBuf>,
    /// Write a result data stream (ARF) here.
    #[arg(long, value_name = "FILE")]
    results_arf: Option<PathBuf>,
    /// Write OVAL results into the working directory.
    #[arg(long)]
    oval_results: bool,
    /// Write a report for people (HTML) here.
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
    /// Say how this rule came to its result, from the check down to the items; not an option of `oscap`.
    #[arg(long, value_name = "RULE")]
    explain: Vec<String>,
    /// Leave system characteristics out of OVAL results.
    #[arg(long)]
    without_syschar: bool,
    /// Print `rule:result` and nothing else.
    #[arg(long)]
    progress: bool,
    /// Print `rule|title|result` and nothing else.
    #[arg(long)]
    progress_full: bool,
    /// Taken for the sake of scripts: nothing is ever fetched, with or without.
    #[arg(long)]
    fetch_remote_resources: bool,
}

pub(crate) fn run(command: XccdfCommand) -> anyhow::Result<u8> {
    match command {
        XccdfCommand::Eval(args) => eval(&args),
    }
}

/// What a benchmark was read from.
struct Source {
    bundle: Bundle,
    /// The whole file, uncompressed.
    bytes: Vec<u8>,
    is_data_stream: bool,
    /// Documents beside a stand-alone benchmark, by href.
    files: BTreeMap<String, Vec<u8>>,
}

impl Source {
    fn read(args: &SourceArgs) -> anyhow::Result<Self> {
        let bytes = read(&args.input)?;
        let failed = || format!("cannot read {}", args.input.display());
        let choice = Choice {
            data_stream: args.datastream_id.clone(),
            checklist: args.xccdf_id.clone(),
            benchmark: args.benchmark_id.clone(),
            tailoring: args.tailoring_id.clone(),
        };
        let mut files = BTreeMap::new();
        let is_data_stream = root_name(&bytes).with_context(failed)? == "data-stream-collection";
        let mut bundle = if is_data_stream {
            datastream::read_chosen(&bytes, &choice).with_context(failed)?
        } else {
            let mut load = |href: &str| beside(&args.input, href, &args.oval, &mut files);
            read_benchmark(&bytes, &mut load).with_context(failed)?
        };
        if let Some(path) = &args.cpe {
            let mut load = |href: &str| beside(path, href, &args.oval, &mut files);
            let failed = || format!("cannot read {}", path.display());
            join_platforms(&mut bundle.policy, &read(path)?, &mut load).with_context(failed)?;
        }
        if let Some(path) = &args.tailoring_file {
            let profiles = tailoring::read(&read(path)?).with_context(|| format!("cannot read {}", path.display()))?;
            tailoring::join(&mut bundle.policy.benchmark, profiles);
        }
        for problem in &bundle.policy.problems {
            show::note(format!("WARNING: {problem}"));
        }
        Ok(Self { bundle, bytes, is_data_stream, files })
    }

    /// The text of the benchmark, or of one of its OVAL documents by component or href.
    fn text(&self, part: Option<&str>) -> anyhow::Result<String> {
        let (bytes, component) = match part {
            Some(part) => match self.files.get(part) {
                Some(file) => (file, None),
                None => (&self.bytes, Some(part)),
            },
            None if self.is_data_stream => (&self.bytes, Some(self.bundle.benchmark_component.as_str())),
            None => (&self.bytes, None),
        };
        let cut = xml_slice::element(bytes, component)?;
        cut.with_context(|| format!("`{}` is not there", part.unwrap_or("the benchmark")))
    }
}

/// A document named by a benchmark: one of those given, else the file beside it. A path that leads out of
/// the benchmark's directory is not followed.
fn beside(benchmark: &Path, href: &str, given: &[PathBuf], files: &mut BTreeMap<String, Vec<u8>>) -> Option<Vec<u8>> {
    let relative = Path::new(href.trim_start_matches("file://"));
    let is_inside = relative.components().all(|part| matches!(part, std::path::Component::Normal(_)));
    // The whole path, or the name where it is the only one.
    let mut by_name = given.iter().filter(|path| path.file_name() == relative.file_name());
    let only = by_name.next().filter(|_| by_name.next().is_none());
    let named = given.iter().find(|path| path.ends_with(relative)).or(only);
    let path = match named {
        Some(path) => path.clone(),
        None if is_inside => benchmark.parent().unwrap_or_else(|| Path::new("")).join(relative),
        None => return None,
    };
    let bytes = read(&path).ok()?;
    files.insert(href.to_owned(), bytes.clone());
    Some(bytes)
}

/// A run of one benchmark on this machine.
struct Run<'source> {
    source: &'source Source,
    compiled: Compiled,
    evidence: Evidence,
    evaluation: Evaluation,
    facts: EndpointFacts,
    started: Timestamp,
    ended: Timestamp,
}

fn eval(args: &EvalArgs) -> anyhow::Result<u8> {
    let started = Timestamp::now();
    let source = Source::read(&args.source)?;
    let policy = &source.bundle.policy;
    let known: BTreeSet<&str> = policy.benchmark.rules().iter().map(|rule| rule.common.id.as_str()).collect();
    if let Some(unknown) = args.rules.iter().chain(&args.skipped).find(|rule| !known.contains(rule.as_str())) {
        bail!("there is no rule `{unknown}` in the benchmark");
    }
    let is_wanted = |rule: &str| {
        (args.rules.is_empty() || args.rules.iter().any(|wanted| wanted == rule))
            && !args.skipped.iter().any(|skipped| skipped == rule)
    };
    let compiled = compile_rules(policy, args.source.profile.as_deref(), &is_wanted)?;
    let is_quiet = args.progress || args.progress_full;
    if !is_quiet {
        show::line("--- Starting Evaluation ---\n");
    }
    let evidence = super::oval::look(&compiled, |_| true);
    let evaluation = evaluate(&compiled, &evidence, Timestamp::now());
    for result in &evaluation.results {
        tell(args, policy, result);
    }
    let facts = pcs_agent::facts::gather(&root());
    let run = Run { source: &source, compiled, evidence, evaluation, facts, started, ended: Timestamp::now() };
    run.write(args)?;
    run.explain(&args.explain)?;
    let is_met =
        run.evaluation.results.iter().all(|result| !matches!(result.verdict, Verdict::Fail | Verdict::Unknown));
    Ok(if is_met { exit::DONE } else { exit::NOT_MET })
}

fn tell(args: &EvalArgs, policy: &scap::policy::Policy, result: &RuleResult) {
    if args.progress {
        return show::line(format!("{}:{}", result.rule, result.verdict));
    }
    if args.progress_full {
        return show::line(format!("{}|{}|{}", result.rule, result.title, result.verdict));
    }
    show::line(format!("Title\r\t{}\nRule\r\t{}", result.title, result.rule));
    let rules = policy.benchmark.rules();
    if let Some(rule) = rules.iter().find(|rule| rule.common.id == result.rule) {
        for (_, ident) in &rule.idents {
            show::line(format!("Ident\r\t{ident}"));
        }
    }
    show::line(format!("Result\r\t{}\n", result.verdict));
}

impl Run<'_> {
    fn explain(&self, rules: &[String]) -> anyhow::Result<()> {
        let explanation =
            Explanation { compiled: &self.compiled, decisions: &self.evaluation.decisions, evidence: &self.evidence };
        for wanted in rules {
            let is_meant =
                |result: &&RuleResult| result.rule == *wanted || result.rule.ends_with(&format!("_{wanted}"));
            let Some(result) = self.evaluation.results.iter().find(is_meant) else {
                bail!("no rule that was evaluated is called `{wanted}`");
            };
            show::line(explanation.of(result).unwrap_or_default());
        }
        Ok(())
    }

    fn write(&self, args: &EvalArgs) -> anyhow::Result<()> {
        let bundle = &self.source.bundle;
        let test = TestRun {
            policy: &bundle.policy,
            compiled: &self.compiled,
            evaluation: &self.evaluation,
            facts: &self.facts,
            names: &bundle.names,
            href: if self.source.is_data_stream { &bundle.benchmark_component } else { "" },
            started: self.started,
            ended: self.ended,
        };
        if let Some(path) = &args.results {
            let benchmark = self.source.text(None)?;
            let Some(end) = benchmark.rfind("</") else { bail!("the benchmark has no end") };
            let mut out = XmlOut::default();
            out.raw(&benchmark[..end]);
            test.write(&mut out);
            out.raw(&benchmark[end..]);
            write(path, &out.finish())?;
        }
        if let Some(path) = &args.report {
            write(path, &html::report(&test))?;
        }
        if !args.oval_results && args.results_arf.is_none() {
            return Ok(());
        }
        let mut texts = Vec::new();
        for document in &self.compiled.documents {
            texts.push(self.source.text(Some(&document.href))?);
        }
        let runs: Vec<OvalRun<'_>> = self
            .compiled
            .documents
            .iter()
            .zip(&texts)
            .map(|(document, text)| OvalRun {
                oval: &bundle.policy.oval[&document.href],
                source: without_declaration(text),
                compiled: &self.compiled,
                document,
                evidence: &self.evidence,
                decisions: &self.evaluation.decisions,
                facts: &self.facts,
                now: self.ended,
                is_without_characteristics: args.without_syschar,
            })
            .collect();
        if args.oval_results {
            let mut written = BTreeSet::new();
            for run in &runs {
                let name = bundle.names.get(&run.document.href).unwrap_or(&run.document.href);
                let name = Path::new(name).file_name().unwrap_or_default().to_string_lossy().into_owned();
                // One document with several sets of values: one file for each.
                let mut file = format!("{name}.result.xml");
                let mut number = 1;
                while !written.insert(file.clone()) {
                    number += 1;
                    file = format!("{name}-{number}.result.xml");
                }
                write(Path::new(&file), &run.to_xml())?;
            }
        }
        if let Some(path) = &args.results_arf {
            if !self.source.is_data_stream {
                bail!("--results-arf needs a source data stream: compose one from the benchmark first");
            }
            let text = String::from_utf8_lossy(&self.source.bytes);
            write(path, &arf::write(without_declaration(&text), &test, &runs))?;
        }
        Ok(())
    }
}
