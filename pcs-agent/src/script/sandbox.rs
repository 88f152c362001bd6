//! The sandbox, from inside: what the collector started runs this before anything else, has one thread, and talks to nobody.
//!
//! Two processes stand between the collector and a script. The one outside has the script's session and namespaces
//! made; the one inside is the first of its process namespace, makes the file system read-only, lets go of every right but
//! that of reading, and starts the last one, which becomes the script. When the one inside ends, so does everything that the
//! script has started. What cannot be made is an error, and then nothing runs.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::AsFd as _;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio, exit};
use std::time::{Duration, Instant};

use rustix::fs::StatVfsMountFlags;
use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_change, mount_remount};
use rustix::process::{Gid, Resource, Rlimit, Signal, Uid, set_parent_process_death_signal, setrlimit, setsid};
use rustix::thread::{CapabilitySet, CapabilitySets, UnshareFlags};

/// The first word of the process outside; nobody else uses it.
pub(super) const OUTSIDE: &str = "run-script";
/// The first word of the process inside.
const INSIDE: &str = "run-script-inside";
/// The first word of the process that becomes the script.
const LAST: &str = "run-script-last";
/// Where the script is: in a /tmp of its own.
const SCRIPT: &str = "/tmp/script";
/// What a script may write to.
const WRITABLE: [&str; 2] = ["/tmp", "/var/tmp"];
/// What it does not see. In /run are the sockets by which other programs are told what to do; and what /proc/sys/net says in a
/// network namespace of its own is not what the machine has.
const HIDDEN: [&str; 3] = ["/run", "/dev/shm", "/proc/sys/net"];
/// Who a script is: from here on, a user and a group that nobody hands out, so that it owns nothing and no other process is its
/// own: above those of containers (systemd's `containeruidbasemax`, 1,878,982,656) and of directories (SSSD's `ldap_idmap_range_max`,
/// 2,000,200,000), and with the largest number of a process (4,194,304) below 2^31. The process outside adds its number, so that of two scripts
/// neither is the other: the kernel counts processes by user.
const NOBODY: u32 = 2_100_000_000;
/// How long another script is waited for that has left no process to this one: one of a collector in another container, whose
/// processes have numbers of their own.
const OTHERS_END: Duration = Duration::from_secs(10);
/// The one right that is kept.
const READ: CapabilitySet = CapabilitySet::DAC_READ_SEARCH;

/// How a run ended, as the collector reads it.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// With this exit code, or minus the signal.
    Ended(i32),
    /// The sandbox cannot be made.
    NoSandbox(String),
    /// The script cannot be started.
    Broken(String),
}

impl Outcome {
    fn write(&self, exchange: &File, token: &str) -> io::Result<()> {
        let words = match self {
            Self::Ended(code) => format!("ended {code}"),
            Self::NoSandbox(why) => format!("no-sandbox {why}"),
            Self::Broken(why) => format!("broken {why}"),
        };
        exchange.set_len(0)?;
        exchange.write_all_at(format!("{token} {words}").as_bytes(), 0)
    }

    /// What was left by who knows the token.
    pub(super) fn read(exchange: &File, token: &str) -> Option<Self> {
        let mut bytes = vec![0; 4096];
        let count = exchange.read_at(&mut bytes, 0).ok()?;
        let text = String::from_utf8_lossy(&bytes[..count]).into_owned();
        let (kind, rest) = text.strip_prefix(token)?.strip_prefix(' ')?.split_once(' ')?;
        match kind {
            "ended" => rest.parse().ok().map(Self::Ended),
            "no-sandbox" => Some(Self::NoSandbox(rest.to_owned())),
            "broken" => Some(Self::Broken(rest.to_owned())),
            _ => None,
        }
    }
}

/// Where this process was started to run a script, does so and ends. A `main` calls it before anything else.
pub fn run_if_asked() {
    let mut words = std::env::args_os().skip(1);
    let first = words.next();
    let is = |word: &str| first.as_deref() == Some(OsStr::new(word));
    if !is(OUTSIDE) && !is(INSIDE) && !is(LAST) {
        return;
    }
    let token = words.next().and_then(|word| word.into_string().ok()).unwrap_or_default();
    let hidden = words.next().unwrap_or_default();
    let user: Option<u32> = words.next().and_then(|word| word.to_str()?.parse().ok());
    let Ok(exchange) = io::stdin().as_fd().try_clone_to_owned().map(File::from) else { exit(1) };
    let outcome = match () {
        () if is(OUTSIDE) => outside(&token, &hidden),
        () if is(INSIDE) => inside(&exchange, &token, Path::new(&hidden), user),
        () => Some(last()),
    };
    let told = outcome.map_or(Ok(()), |outcome| outcome.write(&exchange, &token));
    exit(i32::from(told.is_err()))
}

/// What cannot be done, and why.
fn failed<E: std::fmt::Display>(what: impl std::fmt::Display) -> impl FnOnce(E) -> String {
    move |error| format!("{what}: {error}")
}

/// Makes namespaces, and starts the process inside, which says how it ended.
fn outside(token: &str, hidden: &OsString) -> Option<Outcome> {
    let start = || {
        // Who started this may be killed: then nobody waits for the script.
        set_parent_process_death_signal(Some(Signal::KILL)).map_err(failed("prctl"))?;
        // Of all processes, this one goes first where memory is short.
        let _ = std::fs::write("/proc/self/oom_score_adj", "1000");
        // No terminal of the collector's.
        setsid().map_err(failed("setsid"))?;
        let apart = UnshareFlags::NEWNS
            | UnshareFlags::NEWNET
            | UnshareFlags::NEWIPC
            | UnshareFlags::NEWUTS
            | UnshareFlags::NEWPID;
        #[expect(deprecated, reason = "it is unsafe with CLONE_FILES alone, which is not asked for")]
        rustix::thread::unshare(apart).map_err(failed("namespaces of its own"))?;
        let user = NOBODY.saturating_add(std::process::id());
        let mut inside = Command::new("/proc/self/exe");
        inside.args([INSIDE, token]).arg(hidden).arg(user.to_string());
        inside.status().map_err(failed("starting itself"))
    };
    start().err().map(Outcome::NoSandbox)
}

/// Starts the last process, and waits for its end. Where another script has all processes of their user, that one is ended soon.
fn start_last(token: &str) -> io::Result<ExitStatus> {
    let began = Instant::now();
    loop {
        match Command::new("/proc/self/exe").args([LAST, token]).status() {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock && began.elapsed() < OTHERS_END => {
                std::thread::sleep(Duration::from_millis(50));
            }
            ended => return ended,
        }
    }
}

/// Makes the file system, lets go of rights, and runs the script; nothing where the last one has said why it does not.
fn inside(exchange: &File, token: &str, hidden: &Path, user: Option<u32>) -> Option<Outcome> {
    let user = user.ok_or_else(|| "nobody said which user it is".to_owned());
    let prepared = file_system(exchange, hidden).and_then(|()| limits()).and_then(|()| rights(user?));
    if let Err(why) = prepared {
        return Some(Outcome::NoSandbox(why));
    }
    match start_last(token) {
        Ok(_) if Outcome::read(exchange, token).is_some() => None,
        Ok(status) => Some(Outcome::Ended(status.code().unwrap_or_else(|| -status.signal().unwrap_or_default()))),
        Err(error) => Some(Outcome::NoSandbox(failed("starting itself")(error))),
    }
}

/// Becomes the script. Only here can memory be limited: this program may have more set aside than a script may have.
fn last() -> Outcome {
    let most = Some(crate::limits::SCRIPT_MEMORY_BYTES_MAX);
    if let Err(error) = setrlimit(Resource::As, Rlimit { current: most, maximum: most }) {
        return Outcome::NoSandbox(failed("limits")(error));
    }
    Outcome::Broken(failed("its interpreter cannot be started")(Command::new(SCRIPT).stdin(Stdio::null()).exec()))
}

fn file_system(exchange: &File, hidden: &Path) -> Result<(), String> {
    let mut script = Vec::new();
    exchange.take(crate::limits::SCRIPT_BYTES_MAX as u64).read_to_end(&mut script).map_err(failed("the script"))?;
    // What is mounted here is seen by nobody else.
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC).map_err(failed("/"))?;
    let own = MountFlags::NOSUID | MountFlags::NODEV;
    for place in WRITABLE.iter().map(Path::new).filter(|place| place.is_dir()) {
        let options = c"size=16m,nr_inodes=4k,mode=1777";
        mount("tmpfs", place, "tmpfs", own, options).map_err(failed(place.display()))?;
    }
    for place in HIDDEN.iter().map(Path::new).chain([hidden]).filter(|place| place.is_dir()) {
        mount("tmpfs", place, "tmpfs", own, c"size=4k,mode=0555").map_err(failed(place.display()))?;
    }
    let mut file = File::options();
    let file = file.write(true).create_new(true).mode(0o555).open(SCRIPT).map_err(failed(SCRIPT))?;
    file.write_all_at(&script, 0).map_err(failed(SCRIPT))?;
    drop(file);
    let mounted = mounts()?;
    for (place, flags) in &mounted {
        // What is under something else cannot be reached: neither here nor by the script.
        let _ = mount_remount(place, *flags | MountFlags::BIND | MountFlags::RDONLY | MountFlags::NOSUID, c"");
    }
    for (place, _) in &mounted {
        let is_read_only = |state: rustix::fs::StatVfs| state.f_flag.contains(StatVfsMountFlags::RDONLY);
        if rustix::fs::statvfs(place).is_ok_and(|state| !is_read_only(state)) && !is_writable(place) {
            return Err(format!("{} cannot be made read-only", place.display()));
        }
    }
    std::env::set_current_dir("/").map_err(failed("/"))
}

fn is_writable(place: &Path) -> bool {
    WRITABLE.iter().any(|writable| place == Path::new(writable))
}

/// Everything that is mounted and that a script may not write to, with what it was mounted with.
fn mounts() -> Result<Vec<(PathBuf, MountFlags)>, String> {
    let table = std::fs::read_to_string("/proc/self/mountinfo").map_err(failed("/proc/self/mountinfo"))?;
    let row = |line: &str| {
        let mut words = line.split(' ').skip(4);
        let (place, options) = (unescaped(words.next()?), words.next()?);
        let of_option = |option: &str| match option {
            "nodev" => MountFlags::NODEV,
            "noexec" => MountFlags::NOEXEC,
            "noatime" => MountFlags::NOATIME,
            "nodiratime" => MountFlags::NODIRATIME,
            "relatime" => MountFlags::RELATIME,
            _ => MountFlags::empty(),
        };
        let flags = options.split(',').map(of_option).fold(MountFlags::empty(), MountFlags::union);
        Some((place, flags))
    };
    let all: Vec<(PathBuf, MountFlags)> = table.lines().filter_map(row).collect();
    if all.is_empty() {
        return Err("/proc/self/mountinfo names nothing that is mounted".to_owned());
    }
    Ok(all.into_iter().filter(|(place, _)| !is_writable(place)).collect())
}

/// A path of mountinfo, in which blanks and their like are octal numbers.
fn unescaped(word: &str) -> PathBuf {
    use std::os::unix::ffi::OsStringExt as _;
    let mut bytes = Vec::with_capacity(word.len());
    let mut rest = word.as_bytes();
    while let Some((first, more)) = rest.split_first() {
        let code = more.get(..3).and_then(|code| u8::from_str_radix(std::str::from_utf8(code).ok()?, 8).ok());
        if let Some(byte) = code.filter(|_| *first == b'\\') {
            bytes.push(byte);
            rest = &more[3..];
        } else {
            bytes.push(*first);
            rest = more;
        }
    }
    PathBuf::from(OsString::from_vec(bytes))
}

fn limits() -> Result<(), String> {
    for (resource, most) in [
        (Resource::Cpu, crate::limits::SCRIPT_SECONDS_MAX),
        (Resource::Core, 0),
        (Resource::Fsize, 1024 * 1024),
        (Resource::Nofile, 256),
        (Resource::Nproc, 64),
        (Resource::Memlock, 0),
    ] {
        let limit = Rlimit { current: Some(most), maximum: Some(most) };
        setrlimit(resource, limit).map_err(failed("limits"))?;
    }
    Ok(())
}

fn rights(user: u32) -> Result<(), String> {
    use rustix::thread::{
        configure_capability_in_ambient_set, remove_capability_from_bounding_set, set_capabilities,
        set_keep_capabilities, set_no_new_privs, set_thread_groups, set_thread_res_gid, set_thread_res_uid,
    };
    let lost = || failed("letting go of rights");
    for number in 0..64 {
        let capability = CapabilitySet::from_bits_retain(1 << number);
        if capability == READ {
            continue;
        }
        match remove_capability_from_bounding_set(capability) {
            Ok(()) => {}
            // The kernel knows no more of them.
            Err(rustix::io::Errno::INVAL) => break,
            Err(error) => return Err(lost()(error)),
        }
    }
    let (user, group) = (Uid::from_raw(user), Gid::from_raw(user));
    set_keep_capabilities(true).map_err(lost())?;
    set_thread_groups(&[]).map_err(lost())?;
    set_thread_res_gid(group, group, group).map_err(lost())?;
    // That it was root is kept of this process alone, and not of the next: who started it may kill it then, without a right
    // to kill anybody.
    set_thread_res_uid(user, user, Uid::ROOT).map_err(lost())?;
    set_capabilities(None, CapabilitySets { effective: READ, permitted: READ, inheritable: READ }).map_err(lost())?;
    configure_capability_in_ambient_set(READ, true).map_err(lost())?;
    set_no_new_privs(true).map_err(lost())?;
    // Another user than before: the kernel has forgotten it.
    set_parent_process_death_signal(Some(Signal::KILL)).map_err(lost())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_of_mounts_may_have_blanks() {
        assert_eq!(unescaped("/mnt/a\\040b\\134c"), Path::new("/mnt/a b\\c"));
        assert_eq!(unescaped("/end\\04"), Path::new("/end\\04"));
        assert!(mounts().is_ok_and(|all| all.iter().any(|(place, _)| place == Path::new("/proc"))));
    }

    #[test]
    fn how_it_ended_is_believed_with_the_token_alone() {
        let exchange = tempfile::tempfile().expect("a file");
        let outcomes =
            [Outcome::Ended(101), Outcome::Ended(-9), Outcome::NoSandbox("a b".into()), Outcome::Broken("c".into())];
        for outcome in outcomes {
            outcome.write(&exchange, "token").expect("it can be written");
            assert_eq!(Outcome::read(&exchange, "token"), Some(outcome));
            assert_eq!(Outcome::read(&exchange, "other"), None);
        }
        exchange.set_len(0).expect("it can be cut");
        exchange.write_all_at(b"ended 101", 0).expect("it can be written");
        assert_eq!(Outcome::read(&exchange, "token"), None);
    }
}
