//! `muster scap ds` and `muster scap info`: what is in a file, and its parts as files.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use clap::Subcommand;
use scap::characteristics::Characteristics;
use scap::datastream::{self, Bundle, Choice};
use scap::documents::{read_benchmark, read_oval};
use scap::xml_slice;

use super::xccdf::beside;
use super::{InfoArgs, Validation, read, root_name, write};
use crate::{exit, show};

/// `muster scap ds`
#[derive(Debug, Subcommand)]
#[expect(clippy::enum_variant_names, reason = "these are oscap's words")]
pub(crate) enum DsCommand {
    /// Write the parts of a data stream as files.
    SdsSplit {
        /// A data stream by its id.
        #[arg(long, value_name = "ID")]
        datastream_id: Option<String>,
        /// Taken for the sake of scripts.
        #[arg(long, alias = "skip-validation")]
        skip_valid: bool,
        /// The data stream.
        file: PathBuf,
        /// Where the parts go; it is made if it is not there.
        directory: PathBuf,
    },
    /// Make a data stream of a benchmark and the documents beside it that it names.
    SdsCompose {
        #[command(flatten)]
        validation: Validation,
        /// The benchmark.
        xccdf: PathBuf,
        /// Where the data stream goes.
        target: PathBuf,
    },
    /// Whether a file can be read as a source data stream.
    SdsValidate {
        /// The data stream.
        file: PathBuf,
    },
}

pub(crate) fn run(command: DsCommand) -> anyhow::Result<u8> {
    match command {
        DsCommand::SdsSplit { datastream_id, file, directory, .. } => split(&file, &directory, datastream_id),
        DsCommand::SdsCompose { validation, xccdf, target } => compose(&xccdf, &target, &validation),
        DsCommand::SdsValidate { file } => match datastream::read_chosen(&read(&file)?, &Choice::default()) {
            Ok(_) => Ok(exit::DONE),
            Err(error) => {
                show::error(&anyhow::Error::from(error).context(format!("{} is not valid", file.display())));
                Ok(exit::NOT_MET)
            }
        },
    }
}

fn split(file: &Path, directory: &Path, data_stream: Option<String>) -> anyhow::Result<u8> {
    let bytes = read(file)?;
    let choice = Choice { data_stream, ..Choice::default() };
    let parts = datastream::parts(&bytes, &choice).with_context(|| format!("cannot read {}", file.display()))?;
    std::fs::create_dir_all(directory).with_context(|| format!("cannot make {}", directory.display()))?;
    let mut written = std::collections::BTreeSet::new();
    for part in parts {
        let Some(text) = xml_slice::element(&bytes, Some(&part.component))? else {
            bail!("the component `{}` is not in {}", part.component, file.display());
        };
        // A name from a document never leads out of the directory.
        let Some(name) = Path::new(&part.file_name).file_name().map(Path::new) else {
            bail!("`{}` is no file name", part.file_name);
        };
        let is_xml = name.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("xml"));
        let name = if is_xml { name.to_owned() } else { PathBuf::from(format!("{}.xml", name.display())) };
        if !written.insert(name.clone()) {
            bail!("two parts of {} are called {}", file.display(), name.display());
        }
        write(&directory.join(name), &format!("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n{text}\n"))?;
    }
    Ok(exit::DONE)
}

fn compose(xccdf: &Path, target: &Path, validation: &Validation) -> anyhow::Result<u8> {
    let bytes = read(xccdf)?;
    super::xccdf::require_valid(xccdf, &bytes, validation)?;
    let failed = || format!("cannot read {}", xccdf.display());
    let mut files = BTreeMap::new();
    let bundle = read_benchmark(&bytes, &mut |href| beside(xccdf, href, &[], &mut files)).with_context(failed)?;
    for problem in &bundle.policy.problems {
        show::note(format!("WARNING: {problem}"));
    }
    let stream = super::xccdf::compose(xccdf, &bytes, &files)?;
    // Two names that are one id would be found here.
    datastream::read_chosen(stream.as_bytes(), &Choice::default()).context("the data stream cannot be composed")?;
    write(target, &stream)?;
    Ok(exit::DONE)
}

/// `muster scap info`
pub(crate) fn info(args: &InfoArgs) -> anyhow::Result<u8> {
    let bytes = read(&args.file)?;
    let failed = || format!("cannot read {}", args.file.display());
    // What it is, by its root element.
    let root = root_name(&bytes).with_context(failed)?;
    let bundle = match root.as_str() {
        "data-stream-collection" => datastream::read_chosen(&bytes, &Choice::default()).with_context(failed)?,
        "Benchmark" => read_benchmark(&bytes, &mut |_| None).with_context(failed)?,
        "oval_definitions" => {
            let oval = read_oval(&bytes).with_context(failed)?;
            show::line("Document type: OVAL Definitions");
            show::line(format!("OVAL version: {}", oval.schema_version));
            show::line(format!("Definitions: {}", oval.definitions.len()));
            return Ok(exit::DONE);
        }
        "oval_system_characteristics" => {
            let found = Characteristics::read(&bytes).with_context(failed)?;
            show::line("Document type: OVAL System Characteristics");
            show::line(format!("Host: {}", found.facts.host_name));
            show::line(format!("Objects: {}", found.objects.len()));
            return Ok(exit::DONE);
        }
        other => bail!("<{other}> is neither a data stream, nor XCCDF, nor OVAL"),
    };
    if args.profiles {
        for profile in &bundle.policy.benchmark.profiles {
            show::line(format!("{}:{}", profile.id, profile.title));
        }
        return Ok(exit::DONE);
    }
    describe(args, &root, &bundle, &bytes)
}

fn describe(args: &InfoArgs, root: &str, bundle: &Bundle, bytes: &[u8]) -> anyhow::Result<u8> {
    let benchmark = &bundle.policy.benchmark;
    let is_data_stream = root == "data-stream-collection";
    show::line(if is_data_stream { "Document type: Source Data Stream" } else { "Document type: XCCDF Checklist" });
    if let Some(wanted) = &args.profile {
        let profile = bundle.policy.profile(wanted)?;
        show::line(format!("Profile\n\tTitle: {}\n\tId: {}", profile.title, profile.id));
        return Ok(exit::DONE);
    }
    show::line(format!("Benchmark: {}\n\tTitle: {}\n\tVersion: {}", benchmark.id, benchmark.title, benchmark.version));
    show::line(format!("\tRules: {}\n\tProfiles:", benchmark.rules().len()));
    for profile in &benchmark.profiles {
        show::line(format!("\t\tTitle: {}\n\t\t\tId: {}", profile.title, profile.id));
    }
    if is_data_stream {
        for section in ["checklists", "checks", "dictionaries"] {
            show::line(format!("{section}:"));
            for part in datastream::parts(bytes, &Choice::default())?.iter().filter(|part| part.section == section) {
                show::line(format!("\tRef-Id: {} ({})", part.reference, part.file_name));
            }
        }
    }
    for problem in &bundle.policy.problems {
        show::note(format!("WARNING: {problem}"));
    }
    Ok(exit::DONE)
}
