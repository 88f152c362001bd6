//! `muster scap xccdf`: a benchmark, where it is read from, and what is made of it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use clap::{Args, Subcommand};
use jiff::Timestamp;
use scap::compose::{self, Document};
use scap::datastream::{self, Bundle, Choice};
use scap::documents::{join_checks, join_platforms, read_benchmark};
use scap::{tailoring, validity, xml_slice};

use super::{Validation, read, root_name};
use crate::{exit, show};

mod eval;
mod generate;

/// `muster scap xccdf`
#[derive(Debug, Subcommand)]
pub(crate) enum XccdfCommand {
    /// Look at this machine and evaluate a benchmark.
    Eval(Box<eval::EvalArgs>),
    /// Make a guide, a script or a report.
    Generate(generate::GenerateArgs),
    /// The script that mends what a result says has failed; nothing is run.
    Remediate(generate::RemediateArgs),
    /// Whether a benchmark can be read, with all that it refers to.
    Validate(SourceArgs),
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
    /// A CPE dictionary or language for applicability; may be given several times.
    #[arg(long, value_name = "FILE")]
    cpe: Vec<PathBuf>,
    /// A data stream by its id.
    #[arg(long, value_name = "ID")]
    datastream_id: Option<String>,
    /// A checklist's component-ref by its id.
    #[arg(long, value_name = "ID")]
    xccdf_id: Option<String>,
    /// A benchmark by its id.
    #[arg(long, value_name = "ID")]
    benchmark_id: Option<String>,
    /// Where copies of documents are that a data stream names by address: by the last part of it.
    #[arg(long, value_name = "DIR")]
    local_files: Option<PathBuf>,
    #[command(flatten)]
    validation: Validation,
    /// Taken for the sake of scripts; signatures are not looked at.
    #[arg(long)]
    skip_signature_validation: bool,
    /// Refused: signatures are not looked at.
    #[arg(long)]
    enforce_signature: bool,
    /// An XCCDF benchmark or a source data stream.
    input: PathBuf,
    /// OVAL definitions, where a stand-alone benchmark's are not beside it.
    oval: Vec<PathBuf>,
}

pub(crate) fn run(command: XccdfCommand) -> anyhow::Result<u8> {
    match command {
        XccdfCommand::Eval(args) => eval::run(&args),
        XccdfCommand::Generate(args) => generate::run(&args),
        XccdfCommand::Remediate(args) => generate::remediate(&args),
        XccdfCommand::Validate(args) => match read(&args.input).map(|_| Source::read(&args))? {
            Ok(_) => Ok(exit::DONE),
            Err(error) => {
                show::error(&error.context(format!("{} is not valid", args.input.display())));
                Ok(exit::NOT_MET)
            }
        },
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
    /// With descriptions and scripts, for those who make something of them.
    fn read_with_prose(args: &SourceArgs) -> anyhow::Result<Self> {
        Self::read_chosen(args, true)
    }

    fn read(args: &SourceArgs) -> anyhow::Result<Self> {
        Self::read_chosen(args, false)
    }

    fn read_chosen(args: &SourceArgs, with_prose: bool) -> anyhow::Result<Self> {
        if args.enforce_signature {
            bail!("signatures of data streams are not looked at yet, so none can be enforced");
        }
        let bytes = read(&args.input)?;
        let failed = || format!("cannot read {}", args.input.display());
        require_valid(&args.input, &bytes, &args.validation)?;
        let choice = Choice {
            with_prose,
            data_stream: args.datastream_id.clone(),
            checklist: args.xccdf_id.clone(),
            benchmark: args.benchmark_id.clone(),
            tailoring: args.tailoring_id.clone(),
        };
        let mut files = BTreeMap::new();
        let root = root_name(&bytes).with_context(failed)?;
        let is_data_stream = matches!(root.as_str(), "data-stream-collection" | "asset-report-collection");
        let mut bundle = if is_data_stream {
            datastream::read_chosen(&bytes, &choice).with_context(failed)?
        } else {
            let mut load = |href: &str| beside(&args.input, href, &args.oval, &mut files);
            read_benchmark(&bytes, &mut load).with_context(failed)?
        };
        if let Some(directory) = &args.local_files {
            let mut load = |href: &str| match href.split_once("://") {
                Some((_, address)) => beside(&directory.join("x"), address.rsplit('/').next()?, &[], &mut files),
                None => None,
            };
            join_checks(&mut bundle.policy, &mut load).with_context(failed)?;
            let policy = &mut bundle.policy;
            policy.problems.retain(|problem| !policy.oval.keys().any(|href| problem.contains(href.as_str())));
        }
        for path in &args.cpe {
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

    /// The source data stream, made of the benchmark and its documents where they are files.
    fn data_stream(&self, input: &Path) -> anyhow::Result<String> {
        if self.is_data_stream {
            return Ok(String::from_utf8_lossy(&self.bytes).into_owned());
        }
        compose(input, &self.bytes, &self.files)
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

/// Tells what is wrong with the benchmarks of a file, and goes no further.
pub(super) fn require_valid(file: &Path, bytes: &[u8], validation: &Validation) -> anyhow::Result<()> {
    if validation.skip_valid {
        return Ok(());
    }
    let faults = validity::faults(bytes).with_context(|| format!("cannot read {}", file.display()))?;
    for fault in &faults {
        show::note(format!("{}: {fault}", file.display()));
    }
    if !faults.is_empty() {
        bail!("{} is not valid XCCDF; --skip-valid reads it as far as it can be read", file.display());
    }
    Ok(())
}

/// A data stream of a benchmark and the documents that it names.
pub(super) fn compose(input: &Path, bytes: &[u8], files: &BTreeMap<String, Vec<u8>>) -> anyhow::Result<String> {
    let text = |bytes: &[u8]| -> anyhow::Result<String> {
        xml_slice::element(bytes, None)?.with_context(|| format!("cannot read {}", input.display()))
    };
    let name = input.file_name().unwrap_or_default().to_string_lossy();
    let benchmark = text(bytes)?;
    let checks: BTreeMap<&String, String> =
        files.iter().map(|(href, bytes)| Ok((href, text(bytes)?))).collect::<anyhow::Result<_>>()?;
    let checks: Vec<Document<'_>> = checks.iter().map(|(name, text)| Document { name, text }).collect();
    Ok(compose::compose(Document { name: &name, text: &benchmark }, &checks, Timestamp::now()))
}

/// A document named by a benchmark: one of those given, else the file beside it. A path that leads out of
/// the benchmark's directory is not followed.
pub(super) fn beside(
    benchmark: &Path,
    href: &str,
    given: &[PathBuf],
    files: &mut BTreeMap<String, Vec<u8>>,
) -> Option<Vec<u8>> {
    let relative = Path::new(href.trim_start_matches("file://"));
    relative.file_name()?;
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
