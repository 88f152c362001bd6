//! `muster scap oval`: collect, eval, analyse, validate.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use ::oval::check::Truth;
use ::oval::resolve::Resolver;
use anyhow::{Context as _, bail};
use clap::{Args, Subcommand};
use jiff::Timestamp;
use pcs_agent::host::Host;
use pcs_agent::limits::TASK_BUDGET;
use pcs_agent::probe::Probes;
use proto::budget::Budget;
use proto::observation::{EndpointFacts, Flag};
use scap::characteristics::{self, Characteristics, Numbers};
use scap::compile::{Compiled, compile_definitions};
use scap::datastream::{self, Choice, Part};
use scap::documents::{ALONE, of_oval, read_oval, read_variables, without_declaration};
use scap::evaluate::{Decisions, Evidence, Observed, decide};
use scap::html::{DefinitionRow, definitions_page};
use scap::oval_results::OvalRun;
use scap::policy::Policy;
use scap::xml_out::XmlOut;
use scap::xml_slice;

use super::{Validation, read, root, root_name, write};
use crate::{exit, show};

/// `muster scap oval`
#[derive(Debug, Subcommand)]
pub(crate) enum OvalCommand {
    /// Look at this machine and write system characteristics.
    Collect(CollectArgs),
    /// Look at this machine and evaluate definitions.
    Eval(EvalArgs),
    /// Evaluate definitions on system characteristics.
    Analyse(AnalyseArgs),
    /// Whether a file can be read as what it says it is.
    Validate(ValidateArgs),
}

/// `muster scap oval collect`
#[derive(Debug, Args)]
pub(crate) struct CollectArgs {
    /// Only this object.
    #[arg(long)]
    id: Option<String>,
    /// Write system characteristics here.
    #[arg(long)]
    syschar: Option<PathBuf>,
    /// Values of external variables.
    #[arg(long)]
    variables: Option<PathBuf>,
    #[command(flatten)]
    validation: Validation,
    /// OVAL definitions.
    definitions: PathBuf,
}

/// `muster scap oval eval`
#[derive(Debug, Args)]
pub(crate) struct EvalArgs {
    /// Only this definition.
    #[arg(long)]
    id: Option<String>,
    /// Values of external variables.
    #[arg(long)]
    variables: Option<PathBuf>,
    /// Write OVAL results here.
    #[arg(long)]
    results: Option<PathBuf>,
    /// Write a report for people (HTML) here.
    #[arg(long)]
    report: Option<PathBuf>,
    /// Leave system characteristics out of the results.
    #[arg(long)]
    without_syschar: bool,
    /// A data stream by its id.
    #[arg(long, value_name = "ID")]
    datastream_id: Option<String>,
    /// The component-ref of the definitions in the data stream by its id; without, the first.
    #[arg(long, value_name = "ID")]
    oval_id: Option<String>,
    #[command(flatten)]
    validation: Validation,
    /// OVAL definitions, or a data stream with some.
    definitions: PathBuf,
}

/// `muster scap oval analyse`
#[derive(Debug, Args)]
pub(crate) struct AnalyseArgs {
    /// Write OVAL results here.
    #[arg(long)]
    results: PathBuf,
    /// Values of external variables.
    #[arg(long)]
    variables: Option<PathBuf>,
    #[command(flatten)]
    validation: Validation,
    /// OVAL definitions.
    definitions: PathBuf,
    /// System characteristics.
    characteristics: PathBuf,
}

/// `muster scap oval validate`
#[derive(Debug, Args)]
pub(crate) struct ValidateArgs {
    /// It is OVAL definitions.
    #[arg(long)]
    definitions: bool,
    /// It is OVAL variables.
    #[arg(long)]
    variables: bool,
    /// It is OVAL system characteristics.
    #[arg(long)]
    syschar: bool,
    /// It is OVAL results.
    #[arg(long)]
    results: bool,
    /// Taken for the sake of scripts.
    #[arg(long)]
    skip_schematron: bool,
    /// The file.
    file: PathBuf,
}

pub(crate) fn run(command: OvalCommand) -> anyhow::Result<u8> {
    match command {
        OvalCommand::Collect(args) => collect(&args),
        OvalCommand::Eval(args) => eval(&args),
        OvalCommand::Analyse(args) => analyse(&args),
        OvalCommand::Validate(args) => validate(&args),
    }
}

/// A document that was read, with its text.
struct Document {
    policy: Policy,
    text: String,
    values: BTreeMap<String, Vec<String>>,
}

impl Document {
    fn read(definitions: &Path, variables: Option<&Path>) -> anyhow::Result<Self> {
        let named = |path: &Path| format!("cannot read {}", path.display());
        Self::of(read(definitions)?, variables).with_context(|| named(definitions))
    }

    /// One of the OVAL documents of a data stream.
    fn of_stream(bytes: &[u8], args: &EvalArgs) -> anyhow::Result<Self> {
        let choice = Choice { data_stream: args.datastream_id.clone(), ..Choice::default() };
        let parts = datastream::parts(bytes, &choice)?;
        let is_meant = |part: &&Part| match &args.oval_id {
            Some(id) => part.reference == *id,
            None => part.section == "checks",
        };
        for part in parts.iter().filter(is_meant) {
            let text = xml_slice::element(bytes, Some(&part.component))?;
            if let Some(text) = text.filter(|text| args.oval_id.is_some() || text.contains("oval_definitions")) {
                return Self::of(text.into_bytes(), args.variables.as_deref());
            }
        }
        bail!("there are no such OVAL definitions in the data stream")
    }

    fn of(bytes: Vec<u8>, variables: Option<&Path>) -> anyhow::Result<Self> {
        let named = |path: &Path| format!("cannot read {}", path.display());
        let oval = read_oval(&bytes)?;
        let text = String::from_utf8(bytes)?;
        let values = match variables {
            None => BTreeMap::new(),
            Some(path) => read_variables(&read(path)?).with_context(|| named(path))?,
        };
        Ok(Self { policy: of_oval(oval), text: without_declaration(&text).to_owned(), values })
    }

    fn compile(&self, is_any_kind: bool) -> anyhow::Result<Compiled> {
        Ok(compile_definitions(&self.policy, ALONE, self.values.clone(), is_any_kind)?)
    }

    fn results(
        &self,
        compiled: &Compiled,
        evidence: &Evidence,
        decisions: &Decisions,
        facts: &EndpointFacts,
        is_without_characteristics: bool,
    ) -> String {
        let run = OvalRun {
            oval: &self.policy.oval[ALONE],
            source: &self.text,
            compiled,
            document: &compiled.documents[0],
            evidence,
            decisions,
            facts,
            now: Timestamp::now(),
            is_without_characteristics,
        };
        run.to_xml()
    }
}

/// Looks at this machine.
pub(super) fn look(compiled: &Compiled, wanted: impl Fn(&proto::plan::ObjectKey) -> bool) -> Evidence {
    // What is found is all kept to be written.
    look_at(&Host::with_budget(root(), Budget { memory_bytes: None, ..TASK_BUDGET }), compiled, wanted)
}

/// What an endpoint has of all that is wanted.
pub(crate) fn look_at(host: &Host, compiled: &Compiled, wanted: impl Fn(&proto::plan::ObjectKey) -> bool) -> Evidence {
    let now = Timestamp::now();
    let mut resolver = Resolver::new(&compiled.collection, Probes::new(host), now);
    let mut evidence = Evidence::default();
    for key in compiled.collection.report.iter().filter(|key| wanted(key)) {
        let collected_object = resolver.object(key);
        evidence.observations.insert(key.clone(), Observed { collected_object, collected: now });
    }
    evidence
}

fn collect(args: &CollectArgs) -> anyhow::Result<u8> {
    let document = Document::read(&args.definitions, args.variables.as_deref())?;
    let compiled = document.compile(false)?;
    let plan = &compiled.documents[0];
    let mut objects = plan.objects.clone();
    if let Some(id) = &args.id {
        if !document.policy.oval[ALONE].objects.contains_key(id) {
            bail!("there is no object `{id}` in {}", args.definitions.display());
        }
        objects.retain(|object, _| object == id);
    }
    let evidence = look(&compiled, |key| objects.values().any(|wanted| wanted == key));
    for (id, key) in &objects {
        let flag = evidence.observations.get(key).map_or(Flag::NotCollected, |observed| observed.collected_object.flag);
        show::line(format!("Collected: \"{id}\" : {}", characteristics::flag_words(flag)));
    }
    let facts = pcs_agent::facts::gather(&root());
    let mut out = XmlOut::default();
    let mut numbers = Numbers::default();
    let oval = &document.policy.oval[ALONE];
    characteristics::write(&mut out, &facts, oval, &objects, &evidence, &mut numbers, Timestamp::now());
    if let Some(path) = &args.syschar {
        write(path, &out.finish())?;
    }
    Ok(exit::DONE)
}

fn eval(args: &EvalArgs) -> anyhow::Result<u8> {
    let bytes = read(&args.definitions)?;
    let document = match root_name(&bytes).as_deref() {
        Ok("data-stream-collection") => Document::of_stream(&bytes, args),
        _ => Document::of(bytes, args.variables.as_deref()),
    };
    let document = document.with_context(|| format!("cannot read {}", args.definitions.display()))?;
    let compiled = document.compile(false)?;
    let plan = &compiled.documents[0];
    let evidence = look(&compiled, |_| true);
    let decisions = decide(&compiled, &evidence, Timestamp::now());
    let mut shown: Vec<(&String, &usize)> = plan.definitions.iter().collect();
    if let Some(id) = &args.id {
        shown.retain(|(definition, _)| *definition == id);
        if shown.is_empty() {
            bail!("there is no definition `{id}` in {}", args.definitions.display());
        }
    }
    for (id, position) in &shown {
        let position = *position;
        let truth = decisions.definitions[*position].unwrap_or(Truth::NotEvaluated);
        show::line(format!("Definition {id}: {}", truth.as_str()));
    }
    show::line("Evaluation done.");
    if let Some(path) = &args.report {
        let rows: Vec<DefinitionRow<'_>> = shown
            .iter()
            .map(|(id, position)| {
                let definition = &document.policy.oval[ALONE].definitions[*id];
                let truth = decisions.definitions[**position].unwrap_or(Truth::NotEvaluated);
                DefinitionRow { id, title: &definition.title, class: definition.class, truth }
            })
            .collect();
        let facts = pcs_agent::facts::gather(&root());
        write(path, &definitions_page(&facts.host_name, &rows))?;
    }
    if let Some(path) = &args.results {
        let facts = pcs_agent::facts::gather(&root());
        write(path, &document.results(&compiled, &evidence, &decisions, &facts, args.without_syschar))?;
    }
    Ok(exit::DONE)
}

fn analyse(args: &AnalyseArgs) -> anyhow::Result<u8> {
    let document = Document::read(&args.definitions, args.variables.as_deref())?;
    let compiled = document.compile(true)?;
    let found = Characteristics::read(&read(&args.characteristics)?)
        .with_context(|| format!("cannot read {}", args.characteristics.display()))?;
    let now = Timestamp::now();
    let evidence = found.evidence(&compiled.documents[0], now);
    let decisions = decide(&compiled, &evidence, now);
    write(&args.results, &document.results(&compiled, &evidence, &decisions, &found.facts, false))?;
    Ok(exit::DONE)
}

/// What it is said to be, else what its root element says.
fn validate(args: &ValidateArgs) -> anyhow::Result<u8> {
    let bytes = read(&args.file)?;
    // What is no XML is an error, what is XML and no such document is not valid.
    let root = root_name(&bytes)?;
    let is_root = |name: &str| !args.definitions && root == name;
    let outcome = if args.results || is_root("oval_results") {
        bail!("OVAL results are not read here yet: `--definitions`, `--variables` and `--syschar` are");
    } else if args.variables || is_root("oval_variables") {
        read_variables(&bytes).map(drop).map_err(anyhow::Error::from)
    } else if args.syschar || is_root("oval_system_characteristics") {
        Characteristics::read(&bytes).map(drop).map_err(anyhow::Error::from)
    } else {
        read_oval(&bytes).map_err(anyhow::Error::from).and_then(|oval| {
            let compiled = compile_definitions(&of_oval(oval), ALONE, BTreeMap::new(), true)?;
            match compiled.broken().next() {
                Some((test, reason)) => Err(anyhow::anyhow!("{test}: {reason}")),
                None => Ok(()),
            }
        })
    };
    match outcome {
        Ok(()) => Ok(exit::DONE),
        Err(error) => {
            show::error(&error.context(format!("{} is not valid", args.file.display())));
            Ok(exit::NOT_MET)
        }
    }
}
