//! Running a script from the collector's side: it starts itself, reads what the script says, and ends it in time.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Write as _};
use std::os::unix::fs::FileExt as _;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use rustix::fs::{MemfdFlags, memfd_create};
use rustix::process::{Pid, Signal, kill_process_group};
use uuid::Uuid;

use super::Scripts;
use super::sandbox::{OUTSIDE, Outcome};
use crate::host::Cut;
use crate::limits::{SCRIPT_BYTES_MAX, SCRIPT_OUTPUT_BYTES_MAX, SCRIPT_SECONDS_MAX};

/// The results that a script may exit with, as `oscap` tells it.
const RESULTS: [(&str, &str); 9] = [
    ("XCCDF_RESULT_PASS", "101"),
    ("XCCDF_RESULT_FAIL", "102"),
    ("XCCDF_RESULT_ERROR", "103"),
    ("XCCDF_RESULT_UNKNOWN", "104"),
    ("XCCDF_RESULT_NOT_APPLICABLE", "105"),
    ("XCCDF_RESULT_NOT_CHECKED", "106"),
    ("XCCDF_RESULT_NOT_SELECTED", "107"),
    ("XCCDF_RESULT_INFORMATIONAL", "108"),
    ("XCCDF_RESULT_FIXED", "109"),
];
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// How a value of the benchmark comes to a script.
const VALUES: [&str; 3] = ["XCCDF_VALUE_", "XCCDF_TYPE_", "XCCDF_OPERATOR_"];
/// How often it is looked whether a script has ended.
const PAUSE: Duration = Duration::from_millis(10);
/// How long is waited for what was killed: a process may hang in the kernel.
const KILLED: Duration = Duration::from_secs(5);

/// What a script wrote.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Output {
    /// The beginning; bytes that are not UTF-8 are replaced.
    pub text: String,
    /// Whether there was more.
    pub is_cut: bool,
}

/// A script that ran to its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ran {
    /// Its exit code; minus the signal that ended it.
    pub code: i32,
    /// What it wrote.
    pub stdout: Output,
    /// What it wrote as errors.
    pub stderr: Output,
}

/// Why a script did not run to its end.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RunError {
    /// There is no sandbox for it.
    #[error("scripts are refused here: there is no sandbox: {0}")]
    NoSandbox(String),
    /// It cannot be run.
    #[error("the script cannot be run: {0}")]
    Broken(String),
    /// It was ended.
    #[error("the script was ended after {SCRIPT_SECONDS_MAX} s")]
    Time,
    /// The task was.
    #[error(transparent)]
    Cut(#[from] Cut),
}

impl From<io::Error> for RunError {
    fn from(error: io::Error) -> Self {
        Self::Broken(error.to_string())
    }
}

/// Runs a script that was allowed, with the benchmark's values among these; `breathe` says, often, whether the task goes on.
pub fn run(
    scripts: &Scripts,
    script: &str,
    values: &BTreeMap<String, String>,
    breathe: &mut dyn FnMut() -> Result<(), Cut>,
) -> Result<Ran, RunError> {
    if !script.starts_with("#!") {
        return Err(RunError::Broken("it does not begin with `#!` and an interpreter".to_owned()));
    }
    if script.len() > SCRIPT_BYTES_MAX {
        return Err(RunError::Broken(format!("it is longer than {} KiB", SCRIPT_BYTES_MAX / 1024)));
    }
    breathe()?;
    // What was started reads the script from its standard input, and leaves there how it ended. The word makes one of the two.
    let token = Uuid::new_v4().simple().to_string();
    let exchange = File::from(memfd_create("script", MemfdFlags::CLOEXEC).map_err(io::Error::from)?);
    exchange.write_all_at(script.as_bytes(), 0)?;
    let mut child = Command::new(&scripts.runner)
        .args([OUTSIDE, &token])
        .arg(&scripts.hidden)
        .env_clear()
        .envs(environment(values)?)
        .current_dir("/")
        .stdin(Stdio::from(exchange.try_clone()?))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    let outputs = [child.stdout.take().map(reading), child.stderr.take().map(reading)];
    let waited = wait(&mut child, breathe);
    if waited.is_err() {
        end(&mut child);
    }
    waited?;
    let mut outputs = outputs.into_iter().map(|output| {
        // Everybody who could write is gone.
        output.and_then(|output| output.recv_timeout(KILLED).ok()).unwrap_or_default()
    });
    let (stdout, stderr) = (outputs.next().unwrap_or_default(), outputs.next().unwrap_or_default());
    match Outcome::read(&exchange, &token) {
        Some(Outcome::Ended(code)) => Ok(Ran { code, stdout, stderr }),
        Some(Outcome::NoSandbox(why)) => Err(RunError::NoSandbox(why)),
        Some(Outcome::Broken(why)) => Err(RunError::Broken(why)),
        None => Err(RunError::Broken("what was to run it ended before".to_owned())),
    }
}

fn environment(values: &BTreeMap<String, String>) -> Result<BTreeMap<String, String>, RunError> {
    let mut environment = BTreeMap::new();
    for (name, value) in values.iter().filter(|(name, _)| VALUES.iter().any(|prefix| name.starts_with(prefix))) {
        if name.contains(['=', '\0']) || value.contains('\0') {
            let name = proto::limits::shown(name);
            return Err(RunError::Broken(format!("`{name}` cannot be a variable of its environment")));
        }
        environment.insert(name.clone(), value.clone());
    }
    environment.extend(RESULTS.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
    environment.insert("PATH".to_owned(), PATH.to_owned());
    Ok(environment)
}

/// Reads to the end on a thread of its own, and keeps the beginning.
fn reading(mut from: impl Read + Send + 'static) -> mpsc::Receiver<Output> {
    let (sender, output) = mpsc::sync_channel(1);
    std::thread::spawn(move || {
        let mut kept = Vec::new();
        let mut is_cut = false;
        let mut buffer = [0; 8 * 1024];
        while let Ok(count @ 1..) = from.read(&mut buffer) {
            let room = SCRIPT_OUTPUT_BYTES_MAX - kept.len();
            // A buffer in memory takes what fits.
            let _ = kept.write_all(&buffer[..count.min(room)]);
            is_cut |= count > room;
        }
        let _ = sender.send(Output { text: String::from_utf8_lossy(&kept).into_owned(), is_cut });
    });
    output
}

fn wait(child: &mut Child, breathe: &mut dyn FnMut() -> Result<(), Cut>) -> Result<(), RunError> {
    let began = Instant::now();
    while child.try_wait()?.is_none() {
        breathe()?;
        if began.elapsed() > Duration::from_secs(SCRIPT_SECONDS_MAX) {
            return Err(RunError::Time);
        }
        std::thread::sleep(PAUSE);
    }
    Ok(())
}

/// Kills it with all that it has started: with the first process of a namespace the kernel ends all of them.
fn end(child: &mut Child) {
    if let Some(group) = i32::try_from(child.id()).ok().and_then(Pid::from_raw) {
        let _ = kill_process_group(group, Signal::KILL);
    }
    let _ = child.kill();
    let began = Instant::now();
    while matches!(child.try_wait(), Ok(None)) && began.elapsed() < KILLED {
        std::thread::sleep(PAUSE);
    }
}
