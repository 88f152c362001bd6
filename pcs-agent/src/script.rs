//! Scripts of policies (SCE): code that came over the wire. None runs but those that this endpoint's operator has allowed, by
//! a list that they have signed and that has the script's hash; and these run in a sandbox, or not at all.
//!
//! The collector starts itself, and nothing else ([`run`]); what was started makes the sandbox and starts the script in it
//! ([`run_if_asked`]). The decision is this endpoint's alone: no message changes it.

use std::fs::File;
use std::io::Read as _;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use proto::content::ContentHash;
use rustix::thread::CapabilitySet;
use service::signature::{key_of, signer_in};

mod run;
mod sandbox;

pub use run::{Output, Ran, RunError, run};
pub use sandbox::run_if_asked;

/// What signatures of lists are for: `ssh-keygen -Y sign -n muster-scripts`.
const NAMESPACE: &str = "muster-scripts";
/// Bytes of a list, and of its signature.
const LIST_BYTES_MAX: u64 = 1024 * 1024;
/// What the sandbox is made with.
const NEEDED: CapabilitySet = CapabilitySet::SYS_ADMIN
    .union(CapabilitySet::SETUID)
    .union(CapabilitySet::SETGID)
    .union(CapabilitySet::SETPCAP)
    .union(CapabilitySet::DAC_READ_SEARCH);
/// What is said where nobody has allowed any.
pub(crate) const NOT_CONFIGURED: &str = "scripts are refused here: this endpoint's operator allows them, each by its hash, with \
     `scripts-allowed-file` and `scripts-signer` in the collector's configuration";
/// What is said below another root.
pub(crate) const NOT_LIVE: &str = "scripts run on the machine that the collector runs on, and not below another root";

/// Which scripts may run, and with what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scripts {
    /// The list; its signature is beside it, with `.sig` at the end of the name.
    pub allowed_file: PathBuf,
    /// The key that has to have signed it, as OpenSSH writes it.
    pub signer: String,
    /// What no script sees: the collector's data directory, with its keys.
    pub hidden: PathBuf,
    /// The program that makes the sandbox, whose `main` begins with [`run_if_asked`]: this one.
    pub runner: PathBuf,
}

impl Scripts {
    /// Those of this list, by the program that asks.
    pub fn new(allowed_file: PathBuf, signer: String, hidden: PathBuf) -> Self {
        Self { allowed_file, signer, hidden, runner: PathBuf::from("/proc/self/exe") }
    }

    /// Why no script can run, as far as that can be said before there is one.
    pub(crate) fn unready(&self) -> Option<String> {
        let has = rustix::thread::capabilities(None).map(|sets| sets.effective);
        if !has.is_ok_and(|has| has.contains(NEEDED)) {
            return Some(
                "scripts are refused here: the sandbox for them needs a collector that is root with CAP_SYS_ADMIN, CAP_SETUID, \
                 CAP_SETGID, CAP_SETPCAP and CAP_DAC_READ_SEARCH (docs/packages.md)"
                    .to_owned(),
            );
        }
        self.list().err()
    }

    /// Whether the script with this hash may run: an error in words where it may not, which names the list. The list is read
    /// anew each time.
    pub fn allow(&self, sha256: &ContentHash) -> Result<(), String> {
        let list = self.list()?;
        let is_listed =
            |line: &str| line.split_whitespace().next().is_some_and(|word| word.eq_ignore_ascii_case(sha256.as_str()));
        if list.lines().any(is_listed) {
            return Ok(());
        }
        let file = self.allowed_file.display();
        Err(format!("the script {sha256} is refused: it is not in {file}, which this endpoint's operator keeps"))
    }

    /// The list, once its signature is checked.
    fn list(&self) -> Result<String, String> {
        let refused = |file: &Path, why: &str| format!("scripts are refused here: {}: {why}", file.display());
        let list = trusted(&self.allowed_file).map_err(|why| refused(&self.allowed_file, &why))?;
        let mut name = self.allowed_file.clone().into_os_string();
        name.push(".sig");
        let beside = PathBuf::from(name);
        let signature = trusted(&beside).map_err(|why| {
            refused(
                &beside,
                &format!("{why}; `ssh-keygen -Y sign -n {NAMESPACE} -f KEY {}`", self.allowed_file.display()),
            )
        })?;
        let wanted =
            key_of(&self.signer).map_err(|why| format!("scripts are refused here: `scripts-signer`: {why}"))?;
        let signer = signer_in(NAMESPACE, &signature, list.as_bytes()).map_err(|why| refused(&beside, &why))?;
        if signer == wanted {
            Ok(list)
        } else {
            Err(refused(&beside, "the signature is good, and not by the key in `scripts-signer`"))
        }
    }
}

/// The text of a file that its owner alone may write, who is root or whoever the collector runs as.
fn trusted(path: &Path) -> Result<String, String> {
    // Neither a FIFO holds this up nor a link leads elsewhere.
    let flags = rustix::fs::OFlags::NONBLOCK.union(rustix::fs::OFlags::NOFOLLOW).bits();
    let file = File::options().read(true).custom_flags(i32::try_from(flags).unwrap_or(0)).open(path);
    let file = file.map_err(|error| match error.raw_os_error() {
        Some(code) if code == rustix::io::Errno::LOOP.raw_os_error() => "a link, where a file is wanted".to_owned(),
        _ => error.to_string(),
    })?;
    let metadata = file.metadata().map_err(|error| error.to_string())?;
    if !metadata.is_file() {
        return Err("not a regular file".to_owned());
    }
    let own = rustix::process::geteuid().as_raw();
    if ![0, own].contains(&metadata.uid()) {
        return Err(format!("it belongs to user {}; it has to be root's", metadata.uid()));
    }
    if metadata.mode() & 0o022 != 0 {
        return Err(format!("others may write it (mode {:o}); chmod go-w", metadata.mode() & 0o7777));
    }
    let mut text = String::new();
    file.take(LIST_BYTES_MAX + 1).read_to_string(&mut text).map_err(|error| error.to_string())?;
    if text.len() as u64 > LIST_BYTES_MAX {
        return Err(format!("larger than {} KiB", LIST_BYTES_MAX / 1024));
    }
    Ok(text)
}
