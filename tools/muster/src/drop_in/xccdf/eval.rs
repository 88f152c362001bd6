//! `muster scap xccdf eval`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use clap::Args;
use jiff::Timestamp;
use proto::observation::EndpointFacts;
use proto::verdict::{RuleResult, Verdict};
use scap::arf;
use scap::characteristics::Characteristics;
use scap::compile::{Compiled, compile_rules};
use scap::documents::without_declaration;
use scap::evaluate::{Evaluation, Evidence, evaluate};
use scap::explain::Explanation;
use scap::html::Report;
use scap::oval_results::OvalRun;
use scap::policy::Policy;
use scap::tailored::Tailored;
use scap::test_result::TestRun;
use scap::xml_out::XmlOut;

use super::{Source, SourceArgs};
use crate::drop_in::oval::look;
use crate::drop_in::{read, root, write};
use crate::{exit, show};

/// `muster scap xccdf eval`
#[derive(Debug, Args)]
pub(crate) struct EvalArgs {
    #[command(flatten)]
    source: SourceArgs,
    /// Evaluate on these OVAL system characteristics, one file for each OVAL document, instead of looking at this
    /// machine; not an option of `oscap xccdf eval`.
    #[arg(long, value_name = "FILE")]
    syschar: Vec<PathBuf>,
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
    /// Write the results as JSON here; not an option of `oscap`.
    #[arg(long, value_name = "FILE")]
    results_json: Option<PathBuf>,
    /// Write the results as CSV here; not an option of `oscap`.
    #[arg(long, value_name = "FILE")]
    results_csv: Option<PathBuf>,
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
    /// Like `--without-syschar`.
    #[arg(long)]
    thin_results: bool,
    /// Taken for the sake of scripts: there are no check engines to load.
    #[arg(long)]
    check_engine_results: bool,
    /// Refused: Muster runs nothing on the machines that it looks at.
    #[arg(long)]
    remediate: bool,
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

pub(super) fn run(args: &EvalArgs) -> anyhow::Result<u8> {
    if args.remediate {
        bail!("Muster runs no scripts: see them with `muster scap xccdf remediate --dry-run`");
    }
    let started = Timestamp::now();
    let source = Source::read(&args.source)?;
    let policy = &source.bundle.policy;
    let is_skipped = |rule: &str| args.skipped.iter().any(|skipped| skipped == rule);
    let known: BTreeSet<&str> = policy.benchmark.rules().iter().map(|rule| rule.common.id.as_str()).collect();
    if let Some(unknown) = args.rules.iter().find(|rule| is_skipped(rule) || !known.contains(rule.as_str())) {
        bail!("there is no rule `{unknown}` to evaluate in the benchmark");
    }
    // Rules that are asked for by name are evaluated, and no others, whatever is selected.
    let is_wanted = |rule: &str| match args.rules.as_slice() {
        [] => is_skipped(rule).then_some(false),
        wanted => Some(wanted.iter().any(|wanted| wanted == rule)),
    };
    let profile = args.source.profile.as_deref();
    let compiled = compile_rules(policy, profile, &is_wanted, !args.syschar.is_empty())?;
    for model in &policy.benchmark.models {
        if !["default", "flat", "flat-unweighted", "absolute"].iter().any(|known| model.ends_with(known)) {
            show::note(format!("WARNING: the scoring model `{model}` is not known"));
        }
    }
    if args.progress_full {
        show::line("---evaluation");
    } else if !args.progress {
        show::line("--- Starting Evaluation ---\n");
    }
    let (evidence, facts) = match args.syschar.as_slice() {
        [] => (look(&compiled, |_| true), pcs_agent::facts::gather(&root())),
        files => collected(files, &compiled)?,
    };
    let evaluation = evaluate(&compiled, &evidence, Timestamp::now());
    let tailored = Tailored::new(policy, profile)?;
    tell(args, policy, &tailored, &compiled, &evaluation);
    let run = Run { source: &source, compiled, evidence, evaluation, facts, started, ended: Timestamp::now() };
    run.write(args)?;
    run.explain(&args.explain)?;
    let is_met = |result: &RuleResult| !matches!(result.verdict, Verdict::Fail | Verdict::Unknown | Verdict::Error);
    let is_met = run.evaluation.results.iter().all(is_met);
    Ok(if is_met { exit::DONE } else { exit::NOT_MET })
}

/// What somebody else collected, wherever: of each object the first file that has it.
fn collected(files: &[PathBuf], compiled: &Compiled) -> anyhow::Result<(Evidence, EndpointFacts)> {
    let mut evidence = Evidence::default();
    let mut facts = None;
    for file in files {
        let failed = || format!("cannot read {}", file.display());
        let found = Characteristics::read(&read(file)?).with_context(failed)?;
        for document in &compiled.documents {
            for (object, observed) in found.evidence(document, Timestamp::now()).observations {
                evidence.observations.entry(object).or_insert(observed);
            }
        }
        let known = facts.get_or_insert_with(|| found.facts.clone());
        if known.host_name != found.facts.host_name {
            bail!("{} is about {}, not about {}", file.display(), found.facts.host_name, known.host_name);
        }
    }
    Ok((evidence, facts.unwrap_or_default()))
}

/// Prints the results as `oscap` does, titles as they stand in the document.
fn tell(args: &EvalArgs, policy: &Policy, tailored: &Tailored<'_>, compiled: &Compiled, evaluation: &Evaluation) {
    let results: BTreeMap<&str, &RuleResult> =
        evaluation.results.iter().map(|result| (result.rule.as_str(), result)).collect();
    for (plan, rule) in compiled.rules.iter().zip(policy.benchmark.rules()) {
        let Some(result) = results.get(plan.id.as_str()) else { continue };
        let title = escaped(&tailored.title(&rule.common));
        let parts = evaluation.parts(compiled, plan, result.verdict);
        let of_parts = parts.iter().map(|(definition, verdict)| (Some(*definition), *verdict));
        let whole = parts.is_empty().then_some((None, result.verdict));
        for (definition, verdict) in of_parts.chain(whole) {
            if args.progress {
                show::line(format!("{}:{verdict}", plan.id));
                continue;
            }
            if args.progress_full {
                show::line(format!("{}|{title}|{verdict}", plan.id));
                continue;
            }
            show::line(format!("Title\r\t{title}\nRule\r\t{}", plan.id));
            for (_, ident) in &rule.idents {
                show::line(format!("Ident\r\t{ident}"));
            }
            if let Some(definition) = definition {
                let known = policy.oval.values().find_map(|oval| oval.definitions.get(definition));
                let title = known.map_or("", |definition| definition.title.as_str());
                show::line(format!("OVAL Definition ID\t{definition}\nOVAL Definition Title\t{title}"));
            }
            show::line(format!("Result\r\t{verdict}\n"));
        }
    }
}

/// `oscap` prints titles as XML.
fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
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
        let input = args.source.input.display().to_string();
        let test = TestRun {
            policy: &bundle.policy,
            compiled: &self.compiled,
            evidence: &self.evidence,
            evaluation: &self.evaluation,
            facts: &self.facts,
            names: &bundle.names,
            href: if self.source.is_data_stream { &bundle.benchmark_component } else { &input },
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
            write(path, &Report::from(&test).page())?;
        }
        let results = &self.evaluation.results;
        if let Some(path) = &args.results_json {
            write(path, &(serde_json::to_string_pretty(results)? + "\n"))?;
        }
        if let Some(path) = &args.results_csv {
            let rows: Vec<Vec<String>> = results.iter().map(show::result_cells).collect();
            write(path, &show::csv(&show::RESULT_COLUMNS, &rows))?;
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
                is_without_characteristics: args.without_syschar || args.thin_results,
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
            let text = self.source.data_stream(&args.source.input)?;
            write(path, &arf::write(without_declaration(&text), &test, &runs))?;
        }
        Ok(())
    }
}
