//! The programs of the installation, as processes of their own. They know nothing of this process' configuration, and end with it.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context as _, bail};

use super::cores::Cores;

/// Lines at the end of a log that are shown of a program that ended.
const LOG_LINES: usize = 5;

/// Which program.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Program {
    Orchestrator,
    Repository,
    Evaluator,
    Agent,
}

impl Program {
    pub(crate) const ALL: [Self; 4] = [Self::Orchestrator, Self::Repository, Self::Evaluator, Self::Agent];

    /// What its file is called.
    pub(crate) fn file(self) -> &'static str {
        match self {
            Self::Orchestrator => "muster-orchestrator",
            Self::Repository => "muster-repository",
            Self::Evaluator => "muster-pes-evaluator",
            Self::Agent => "muster-pcs-agent",
        }
    }

    /// What it is called here; its data directory has this name, too.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Orchestrator => "orchestrator",
            Self::Repository => "repository",
            Self::Evaluator => "evaluator",
            Self::Agent => "agent",
        }
    }

    /// An endpoint's collector is no server: it has the core of the simulated ones.
    pub(crate) fn is_server(self) -> bool {
        self != Self::Agent
    }
}

/// Where the programs are: beside this one.
pub(crate) fn programs() -> anyhow::Result<PathBuf> {
    let this = std::env::current_exe().context("it is not known where this program is")?;
    let directory = this.parent().context("it is not known where this program is")?.to_owned();
    let is_missing = |program: &Program| !directory.join(program.file()).is_file();
    let missing: Vec<&str> = Program::ALL.into_iter().filter(is_missing).map(Program::file).collect();
    if !missing.is_empty() {
        bail!(
            "an installation of its own needs {} beside {}, and {} is not there\n\
             hint: build all programs (`cargo build --release --bins`) or install all of them in one directory; what an \
             installation carries that runs already is seen with `muster simulate`",
            Program::ALL.map(Program::file).join(", "),
            this.display(),
            missing.join(", "),
        );
    }
    Ok(directory)
}

/// A program that runs.
#[derive(Debug)]
pub(crate) struct Daemon {
    pub(crate) program: Program,
    child: Child,
    programs: PathBuf,
    words: Vec<String>,
    log: PathBuf,
    cores: Cores,
}

impl Daemon {
    /// Starts a program with its data and its log below a directory.
    pub(crate) fn start(
        program: Program,
        programs: &Path,
        directory: &Path,
        words: &[&str],
        cores: Cores,
    ) -> anyhow::Result<Self> {
        let data = directory.join(program.name()).display().to_string();
        let words: Vec<String> = ["--data", &data].iter().chain(words).map(|word| (*word).to_owned()).collect();
        let log = directory.join(format!("{}.log", program.name()));
        let child = spawn(program, programs, &words, &log, cores)?;
        Ok(Self { program, child, programs: programs.to_owned(), words, log, cores })
    }

    /// Its process.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// `kill -9`.
    pub(crate) fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Starts it again as it was started before.
    pub(crate) fn start_again(&mut self) -> anyhow::Result<()> {
        self.kill();
        self.child = spawn(self.program, &self.programs, &self.words, &self.log, self.cores)?;
        Ok(())
    }

    /// An error with the end of its log, where it has ended by itself.
    pub(crate) fn check(&mut self) -> anyhow::Result<()> {
        let Some(status) = self.child.try_wait()? else { return Ok(()) };
        let log = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        let last = lines[lines.len().saturating_sub(LOG_LINES)..].join("\n  ");
        bail!("{} has ended ({status}):\n  {last}", self.program.file())
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.kill();
    }
}

fn spawn(program: Program, programs: &Path, words: &[String], log: &Path, cores: Cores) -> anyhow::Result<Child> {
    let cannot = || format!("{} cannot be started", program.file());
    let to = File::options().create(true).append(true).open(log).with_context(cannot)?;
    // Without one it would read that of the machine, which is another installation's.
    let configuration = log.with_file_name("muster.toml");
    if !configuration.exists() {
        std::fs::write(&configuration, "").with_context(cannot)?;
    }
    let beside = programs.join(program.file());
    let mut starting = Command::new(beside);
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("MUSTER_")) {
        starting.env_remove(name);
    }
    starting
        .args(words)
        .env("MUSTER_CONFIG", configuration)
        .env("NO_COLOR", "1")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(to);
    let core = if program.is_server() { cores.servers } else { cores.own };
    cores.start_on(core, || starting.spawn()).with_context(cannot)
}
