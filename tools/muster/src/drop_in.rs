//! `muster scap`: the words, options and exit codes of `oscap`, on Muster's own engine. A script written
//! for `oscap` runs with the name replaced.
//!
//! Exit codes are `oscap`'s: 0 done (for evaluations: everything passed), 2 something did not, 1 an error.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::{Args, Subcommand};

mod ds;
mod oval;
mod xccdf;

pub(crate) use oval::look_at;

/// `muster scap`
#[derive(Debug, Args)]
pub(crate) struct ScapArgs {
    /// Taken for the sake of scripts; what is worth saying is said.
    #[arg(long, global = true, value_name = "LEVEL")]
    verbose: Option<String>,
    /// Taken for the sake of scripts.
    #[arg(long, global = true, value_name = "FILE")]
    verbose_log_file: Option<PathBuf>,
    #[command(subcommand)]
    command: ScapCommand,
}

/// What is done.
#[derive(Debug, Subcommand)]
enum ScapCommand {
    /// Open Vulnerability and Assessment Language.
    #[command(subcommand)]
    Oval(oval::OvalCommand),
    /// eXtensible Configuration Checklist Description Format.
    #[command(subcommand)]
    Xccdf(Box<xccdf::XccdfCommand>),
    /// Source data streams.
    #[command(subcommand)]
    Ds(ds::DsCommand),
    /// What is in a file.
    Info(InfoArgs),
}

/// `muster scap info`
#[derive(Debug, Args)]
pub(crate) struct InfoArgs {
    /// The profiles, one on a line, as `id:title`.
    #[arg(long)]
    profiles: bool,
    /// Only this profile.
    #[arg(long, value_name = "ID")]
    profile: Option<String>,
    /// Taken for the sake of scripts: nothing is ever fetched.
    #[arg(long)]
    fetch_remote_resources: bool,
    /// The file.
    file: PathBuf,
}

/// What every command takes and none needs.
#[derive(Debug, Args)]
pub(crate) struct Validation {
    /// Read what is not valid as far as it can be read; what must be there to decide must be there in any case.
    #[arg(long, alias = "skip-validation")]
    skip_valid: bool,
}

/// Carries out a command; the exit code.
pub(crate) fn run(args: ScapArgs) -> anyhow::Result<u8> {
    match args.command {
        ScapCommand::Oval(command) => oval::run(command),
        ScapCommand::Xccdf(command) => xccdf::run(*command),
        ScapCommand::Ds(command) => ds::run(command),
        ScapCommand::Info(args) => ds::info(&args),
    }
}

/// A file's bytes, uncompressed.
fn read(path: &Path) -> anyhow::Result<Vec<u8>> {
    let bytes = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    scap::source::plain(bytes).with_context(|| format!("cannot read {}", path.display()))
}

fn write(path: &Path, text: &str) -> anyhow::Result<()> {
    std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}

/// What a document is: the name of its root element.
fn root_name(bytes: &[u8]) -> anyhow::Result<String> {
    Ok(scap::xml::Parser::new(bytes).root()?.name)
}

/// Where the endpoint's files are: `OSCAP_PROBE_ROOT`, as `oscap` takes it, or `/`.
fn root() -> PathBuf {
    std::env::var_os("OSCAP_PROBE_ROOT")
        .filter(|root| !root.is_empty())
        .map_or_else(|| PathBuf::from("/"), PathBuf::from)
}
