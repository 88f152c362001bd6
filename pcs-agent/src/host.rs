//! The endpoint as probes see it: files below a root directory, read within limits.
//!
//! Nothing here starts a process (`script` does, of what the operator has allowed), follows a link out of the root, or blocks
//! on a FIFO, a device, or a mount that does not answer (RFC 8248 OP-002, ADR 32). Everything on an endpoint is hostile: names,
//! contents, sizes.

use std::cell::{Cell, OnceCell, RefCell};
use std::collections::BTreeSet;
use std::fs::{File, Metadata, ReadDir};
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use proto::budget::{Budget, bytes_in_words};

pub use crate::guard::Away;

use crate::contents::Contents;
use crate::guard::Guard;
use crate::limits;
use crate::looking::Pulse;
use crate::pause::Pause;
use crate::probe::ProbeError;
use crate::probe::dpkginfo::Package;
use crate::probe::rpmdb::Installed;
use crate::probe::tree::Tree;
use crate::probe::units::Units;
use crate::script::Scripts;

/// An endpoint's file system, and how much of it one task may look at.
#[derive(Debug)]
pub struct Host {
    root: PathBuf,
    began: Instant,
    /// The processor's time that this thread had used when it began.
    cpu_before: Duration,
    /// The processor's time of processes that were started for this task.
    cpu_of_others: Cell<Duration>,
    budget: Budget,
    /// The scripts that may run here; none where nobody has allowed any.
    scripts: Option<Scripts>,
    /// Set by whoever wants no more of it.
    is_cancelled: Option<Arc<AtomicBool>>,
    /// Set by whoever wants it later, and for how long that was so.
    pause: Option<Arc<Pause>>,
    paused: Cell<Duration>,
    bytes_left: Cell<u64>,
    memory_left: Cell<u64>,
    entries_left: Cell<u64>,
    pub(crate) packages: OnceCell<Result<Vec<Package>, ProbeError>>,
    pub(crate) units: OnceCell<Result<Units, ProbeError>>,
    pub(crate) rpm: OnceCell<Result<Installed, ProbeError>>,
    pub(crate) tree: Tree,
    pub(crate) contents: Contents,
    looks: Cell<u32>,
    pulse: Arc<Pulse>,
    guarded: OnceCell<Guarded>,
    /// Mounts that were to be looked into and do not answer, in words, since somebody asked.
    met: RefCell<BTreeSet<String>>,
}

/// What keeps a task out of mounts that do not answer.
#[derive(Debug)]
struct Guarded {
    guard: Guard,
    is_needed: bool,
    /// The root without links, as mounts are told of.
    root: Result<PathBuf, Away>,
}

/// How what a [`Cut`] says begins.
pub const CUT_OFF: &str = "cut off: ";

/// Why looking stops before the end.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Cut {
    /// Nobody wants it any more.
    #[error("{CUT_OFF}cancelled")]
    Cancelled,
    /// The time for this task is over.
    #[error("{CUT_OFF}the time limit of {0} s for one task is reached")]
    Time(u64),
    /// So many bytes were read.
    #[error("{CUT_OFF}{} were read for one task", bytes_in_words(*.0))]
    Bytes(u64),
    /// What was found, or a file, takes more memory.
    #[error("{CUT_OFF}it takes more than the {} of memory for one task", bytes_in_words(*.0))]
    Memory(u64),
    /// So many directory entries were looked at.
    #[error("{CUT_OFF}{} directory entries were looked at for one task", limits::TASK_ENTRIES_MAX)]
    Entries,
    /// So many items were found.
    #[error("{CUT_OFF}more than {} items", proto::limits::OBJECT_ITEMS_MAX)]
    Items,
}

/// Why a file cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// It is not there, or not a regular file.
    #[error("not a regular file")]
    Absent,
    /// No rights.
    #[error("permission denied")]
    Denied,
    /// Larger than the limit on files.
    #[error("larger than {} MiB", limits::FILE_BYTES_MAX / 1024 / 1024)]
    TooLarge,
    /// The budget is used up.
    #[error(transparent)]
    Cut(#[from] Cut),
    /// It is in a mount that does not answer.
    #[error(transparent)]
    Away(#[from] Away),
    /// The system says no.
    #[error("{0}")]
    Io(io::Error),
}

impl From<io::Error> for ReadError {
    fn from(error: io::Error) -> Self {
        if let Some(away) = Away::behind(&error) {
            return Self::Away(away.clone());
        }
        // What a loop of links should lead to is not there.
        if error.raw_os_error() == Some(rustix::io::Errno::LOOP.raw_os_error()) {
            return Self::Absent;
        }
        match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => Self::Absent,
            io::ErrorKind::PermissionDenied => Self::Denied,
            _ => Self::Io(error),
        }
    }
}

/// The processor's time that this thread has used.
pub(crate) fn cpu_of_thread() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    let part = |value: i64| value.unsigned_abs();
    Duration::new(part(time.tv_sec), u32::try_from(part(time.tv_nsec)).unwrap_or(0))
}

/// Reads, and shows that it moves.
struct Moving<'pulse, R>(&'pulse Pulse, R);

impl<R: Read> Read for Moving<'_, R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        self.0.beat();
        // No more at once than a slow server gives in time.
        let most = into.len().min(limits::PIECE_BYTES_MAX);
        self.1.read(into.get_mut(..most).unwrap_or_default())
    }
}

/// A name that nothing has: where too many links lead.
const NOWHERE: &str = ".too-many-links\u{1}/nowhere";

impl Host {
    /// The endpoint below `root`; `/` is this machine.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self::with_budget(root, limits::TASK_BUDGET)
    }

    /// The same, for one task with a budget, on the thread that looks. What the budget does not say has no limit.
    pub fn with_budget(root: impl Into<PathBuf>, budget: Budget) -> Self {
        Self {
            root: root.into(),
            began: Instant::now(),
            cpu_before: cpu_of_thread(),
            cpu_of_others: Cell::default(),
            budget,
            scripts: None,
            is_cancelled: None,
            pause: None,
            paused: Cell::new(Duration::ZERO),
            bytes_left: Cell::new(budget.read_bytes.unwrap_or(u64::MAX)),
            memory_left: Cell::new(budget.memory_bytes.unwrap_or(u64::MAX)),
            entries_left: Cell::new(limits::TASK_ENTRIES_MAX),
            packages: OnceCell::new(),
            units: OnceCell::new(),
            rpm: OnceCell::new(),
            tree: Tree::default(),
            contents: Contents::default(),
            looks: Cell::new(0),
            pulse: Arc::default(),
            guarded: OnceCell::new(),
            met: RefCell::default(),
        }
    }

    /// The same, until somebody sets this.
    #[must_use]
    pub fn until(self, is_cancelled: Arc<AtomicBool>) -> Self {
        Self { is_cancelled: Some(is_cancelled), ..self }
    }

    /// The same, which looks at nothing while this says so.
    #[must_use]
    pub fn pausing(self, pause: Arc<Pause>) -> Self {
        Self { pause: Some(pause), ..self }
    }

    /// The same, on which these scripts may run.
    #[must_use]
    pub fn with_scripts(self, scripts: Option<Scripts>) -> Self {
        Self { scripts, ..self }
    }

    /// The scripts that may run here.
    pub(crate) fn scripts(&self) -> Option<&Scripts> {
        self.scripts.as_ref()
    }

    /// Counts what others have used of the processor for this task.
    pub(crate) fn count_processor(&self, used: Duration) {
        self.cpu_of_others.set(self.cpu_of_others.get() + used);
    }

    /// Whether this is the machine that the collector runs on.
    pub fn is_live(&self) -> bool {
        self.root == Path::new("/")
    }

    /// The same, and it shows here that it moves.
    #[must_use]
    pub fn with_pulse(self, pulse: Arc<Pulse>) -> Self {
        Self { pulse, ..self }
    }

    /// Where a path of the endpoint is on this machine. Below another root, links are resolved here,
    /// so that an absolute one does not lead out; the last component is left as it is. An error where that is in a mount
    /// that does not answer: what a probe then gives is not complete.
    pub fn locate(&self, path: &str) -> io::Result<PathBuf> {
        self.met(self.place_of(path, false))
    }

    /// The same, with a link as the last component followed too.
    pub fn locate_followed(&self, path: &str) -> io::Result<PathBuf> {
        self.met(self.place_of(path, true))
    }

    /// The same, where it is the caller's to say whether something is missing then.
    pub(crate) fn place_of(&self, path: &str, is_last_followed: bool) -> Result<PathBuf, Away> {
        self.pulse.at(Path::new(path));
        let guarded = self.guarded();
        if self.is_live() {
            let path = Path::new(path);
            return if guarded.is_needed { guarded.guard.follow(path, is_last_followed) } else { Ok(path.to_owned()) };
        }
        if is_last_followed {
            return self.resolve(path, &mut 0);
        }
        let (parent, last) = path.rsplit_once('/').unwrap_or(("", path));
        let mut located = self.resolve(parent, &mut 0)?;
        if !last.is_empty() && last != "." && last != ".." {
            located.push(last);
        }
        self.check(&located)?;
        Ok(located)
    }

    /// Whether a place on this machine, links followed, is one to look at: none that is in a mount that does not answer.
    pub(crate) fn check(&self, located: &Path) -> Result<(), Away> {
        self.pulse.at(located);
        let guarded = self.guarded();
        if !guarded.is_needed {
            return Ok(());
        }
        match (located.strip_prefix(&self.root), &guarded.root) {
            // Where the root itself does not answer, nothing below it is looked at.
            (_, Err(away)) => Err(away.clone()),
            (Ok(below), Ok(root)) => guarded.guard.check(&root.join(below)),
            (Err(_), Ok(_)) => guarded.guard.check(located),
        }
    }

    /// Whether some mount does not answer, so that there is something to [`Self::check`].
    pub(crate) fn is_guarded(&self) -> bool {
        self.guarded().is_needed
    }

    /// It is about to look at this place on this machine.
    pub(crate) fn at(&self, located: &Path) {
        self.pulse.at(located);
    }

    /// Whether it is a directory of the kernel that would be mounted if somebody looked.
    pub(crate) fn is_passed_over(&self, located: &Path) -> bool {
        self.guarded().guard.is_passed_over(located)
    }

    /// Something is missing because this does not answer.
    pub(crate) fn meet(&self, away: &Away) {
        let mut met = self.met.borrow_mut();
        if met.len() < limits::MET_MAX {
            met.insert(away.to_string());
        }
    }

    fn met(&self, located: Result<PathBuf, Away>) -> io::Result<PathBuf> {
        if let Err(away) = &located {
            self.meet(away);
        }
        Ok(located?)
    }

    /// What was met since this was asked last.
    pub(crate) fn take_met(&self) -> BTreeSet<String> {
        self.met.take()
    }

    /// Asks the mounts whether they answer, once a task.
    fn guarded(&self) -> &Guarded {
        self.guarded.get_or_init(|| {
            let guard = Guard::now();
            let is_needed = guard.is_needed();
            let root = if is_needed { guard.follow(&self.root, true) } else { Ok(self.root.clone()) };
            Guarded { guard, is_needed, root }
        })
    }

    fn resolve(&self, path: &str, links: &mut usize) -> Result<PathBuf, Away> {
        let mut located = self.root.clone();
        for component in Path::new(path).components() {
            match component {
                Component::Normal(name) => {
                    let next = located.join(name);
                    self.check(&next)?;
                    match std::fs::read_link(&next) {
                        Ok(target) => {
                            // One count for the whole path: links may fan out as well as chain.
                            *links += 1;
                            if *links > limits::LINK_DEPTH_MAX {
                                return Ok(self.root.join(NOWHERE));
                            }
                            let target = target.to_string_lossy();
                            let absolute = if target.starts_with('/') {
                                target.into_owned()
                            } else {
                                format!("{}/{target}", self.path_of(&located))
                            };
                            located = self.resolve(&absolute, links)?;
                        }
                        Err(_) => located = next,
                    }
                }
                Component::ParentDir if located != self.root => {
                    located.pop();
                }
                _ => {}
            }
        }
        self.check(&located)?;
        Ok(located)
    }

    /// The endpoint's path of a place on this machine.
    pub fn path_of(&self, located: &Path) -> String {
        if self.is_live() {
            return located.to_string_lossy().into_owned();
        }
        let below = located.strip_prefix(&self.root).unwrap_or(located).to_string_lossy();
        format!("/{below}")
    }

    /// `lstat`.
    pub fn lstat(&self, path: &str) -> io::Result<Metadata> {
        std::fs::symlink_metadata(self.locate(path)?)
    }

    /// `stat`.
    pub fn stat(&self, path: &str) -> io::Result<Metadata> {
        std::fs::metadata(self.locate_followed(path)?)
    }

    /// The entries of a directory.
    pub fn read_dir(&self, path: &str) -> io::Result<ReadDir> {
        std::fs::read_dir(self.locate_followed(path)?)
    }

    /// What a link says.
    pub fn read_link(&self, path: &str) -> io::Result<PathBuf> {
        std::fs::read_link(self.locate(path)?)
    }

    /// Counts a directory entry against the task's budget, and looks at the clock.
    pub fn count_entry(&self) -> Result<(), Cut> {
        let left = self.entries_left.get();
        if left == 0 {
            return Err(Cut::Entries);
        }
        self.pulse.beat();
        self.entries_left.set(left - 1);
        if left.is_multiple_of(256) {
            self.breathe()?;
        }
        Ok(())
    }

    /// The same, for something that is done very often: it looks at the clock now and then.
    pub fn breathe_now_and_then(&self) -> Result<(), Cut> {
        self.pulse.beat();
        self.looks.set(self.looks.get().wrapping_add(1));
        if self.looks.get().is_multiple_of(64) { self.breathe() } else { Ok(()) }
    }

    /// Leaves the processor to others for as long as the budget wants it, and looks at the clock.
    pub fn breathe(&self) -> Result<(), Cut> {
        loop {
            self.pulse.beat();
            let elapsed = self.began.elapsed().saturating_sub(self.paused.get());
            if self.is_cancelled.as_ref().is_some_and(|is_cancelled| is_cancelled.load(Ordering::Relaxed)) {
                return Err(Cut::Cancelled);
            }
            if let Some(seconds) = self.budget.time_seconds
                && elapsed > Duration::from_secs(seconds)
            {
                return Err(Cut::Time(seconds));
            }
            if self.pause.as_ref().is_some_and(|pause| pause.until().is_some()) {
                // A pause costs the task none of its time.
                let before = Instant::now();
                std::thread::sleep(Duration::from_millis(limits::PAUSE_MILLISECONDS_MAX));
                self.paused.set(self.paused.get() + before.elapsed());
                continue;
            }
            let Some(percent) = self.budget.cpu_percent.filter(|percent| *percent < 100) else { return Ok(()) };
            let used = cpu_of_thread().saturating_sub(self.cpu_before) + self.cpu_of_others.get();
            let owed = (used * 100 / u32::from(percent.max(1))).saturating_sub(elapsed);
            if owed.is_zero() {
                return Ok(());
            }
            std::thread::sleep(owed.min(Duration::from_millis(limits::PAUSE_MILLISECONDS_MAX)));
        }
    }

    /// Counts what was found against the budget.
    pub fn count_found(&self, bytes: u64) -> Result<(), Cut> {
        match self.memory_left.get().checked_sub(bytes) {
            Some(left) => {
                self.memory_left.set(left);
                Ok(())
            }
            None => Err(Cut::Memory(self.budget.memory_bytes.unwrap_or(u64::MAX))),
        }
    }

    /// Bytes that a memory of what was seen may have: so many, and a part of what the task may take at all.
    pub(crate) fn share_of_memory(&self, most: usize) -> usize {
        let share = self.budget.memory_bytes.map_or(most as u64, |bytes| bytes / 4);
        usize::try_from(share).map_or(most, |share| most.min(share))
    }

    /// Counts bytes that were read piece by piece against the budget.
    pub(crate) fn count_read(&self, bytes: u64) -> Result<(), Cut> {
        let left = self.bytes_left.get();
        self.bytes_left.set(left.saturating_sub(bytes));
        if bytes > left { Err(Cut::Bytes(self.budget.read_bytes.unwrap_or(u64::MAX))) } else { Ok(()) }
    }

    /// The whole content of a regular file, links followed.
    pub fn read(&self, path: &str) -> Result<Vec<u8>, ReadError> {
        let file = self.open(path)?;
        let metadata = file.metadata()?;
        if !metadata.is_file() {
            return Err(ReadError::Absent);
        }
        if metadata.size() > limits::FILE_BYTES_MAX {
            return Err(ReadError::TooLarge);
        }
        self.breathe()?;
        let budget = self.bytes_left.get();
        if metadata.size() > budget {
            return Err(Cut::Bytes(self.budget.read_bytes.unwrap_or(u64::MAX)).into());
        }
        if metadata.size() > self.memory_left.get() {
            return Err(Cut::Memory(self.budget.memory_bytes.unwrap_or(u64::MAX)).into());
        }
        let mut content = Vec::new();
        // A file that grows while it is read ends at the limit all the same.
        let file = file.take((limits::FILE_BYTES_MAX + 1).min(budget.saturating_add(1)));
        Moving(&self.pulse, file).read_to_end(&mut content)?;
        let length = content.len() as u64;
        // What was read was read, also where nothing comes of it.
        self.bytes_left.set(budget.saturating_sub(length));
        if length > budget {
            return Err(Cut::Bytes(self.budget.read_bytes.unwrap_or(u64::MAX)).into());
        }
        if length > limits::FILE_BYTES_MAX {
            return Err(ReadError::TooLarge);
        }
        Ok(content)
    }

    /// So many bytes of a regular file from a place on.
    pub(crate) fn part(&self, path: &str, at: u64, bytes: &mut [u8]) -> Result<(), ReadError> {
        use std::os::unix::fs::FileExt as _;
        self.open(path)?.read_exact_at(bytes, at)?;
        Ok(self.count_read(bytes.len() as u64)?)
    }

    fn open(&self, path: &str) -> Result<File, ReadError> {
        let located = self.locate_followed(path)?;
        // Without this look, opening a device could have effects; `O_NONBLOCK` covers the race.
        if !std::fs::metadata(&located)?.is_file() {
            return Err(ReadError::Absent);
        }
        let nonblock = i32::try_from(rustix::fs::OFlags::NONBLOCK.bits()).unwrap_or(0);
        Ok(File::options().read(true).custom_flags(nonblock).open(located)?)
    }

    /// The content as text, bytes that are not UTF-8 replaced.
    pub fn read_text(&self, path: &str) -> Result<String, ReadError> {
        self.read(path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proto::content::ContentHash;
    use std::os::unix::fs::symlink;

    fn tree() -> (tempfile::TempDir, Host) {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(root.path().join("etc/real")).unwrap();
        std::fs::write(root.path().join("etc/real/file"), "inside").unwrap();
        symlink("/etc/real", root.path().join("etc/absolute")).unwrap();
        symlink("../../../../../../etc/real", root.path().join("etc/upward")).unwrap();
        symlink("loop", root.path().join("etc/loop")).unwrap();
        let host = Host::new(root.path());
        (root, host)
    }

    #[test]
    fn links_do_not_lead_out_of_the_root() {
        let (_root, host) = tree();
        assert_eq!(host.read("/etc/absolute/file").unwrap(), b"inside");
        assert_eq!(host.read("/etc/upward/file").unwrap(), b"inside");
        assert_eq!(host.read("/../../etc/real/file").unwrap(), b"inside");
    }

    fn of_budget(root: &Path, budget: &str) -> Host {
        Host::with_budget(root, budget.parse().unwrap())
    }

    #[test]
    fn what_a_task_may_read_and_hold_is_bounded_and_what_is_not_said_is_not() {
        let root = tempfile::tempdir().unwrap();
        std::fs::write(root.path().join("small"), vec![b'x'; 600]).unwrap();
        std::fs::write(root.path().join("large"), vec![b'x'; 3_000]).unwrap();
        let host = of_budget(root.path(), "read=1K");
        assert_eq!(host.read("/small").unwrap().len(), 600);
        let cut = host.read("/small").unwrap_err().to_string();
        assert_eq!(cut, "cut off: 1 KiB were read for one task");

        let host = of_budget(root.path(), "memory=2K");
        assert_eq!(host.read("/small").unwrap().len(), 600);
        let cut = host.read("/large").unwrap_err().to_string();
        assert_eq!(cut, "cut off: it takes more than the 2 KiB of memory for one task");
        host.count_found(2_000).unwrap();
        assert_eq!(host.count_found(100), Err(Cut::Memory(2_048)));
        host.count_found(48).unwrap();

        let host = Host::with_budget(root.path(), Budget { time_seconds: Some(0), ..Budget::default() });
        assert_eq!(host.breathe(), Err(Cut::Time(0)));
        assert!(matches!(host.read("/small"), Err(ReadError::Cut(Cut::Time(0)))));
        let host = Host::with_budget(root.path(), Budget::default());
        host.count_found(u64::MAX - 1).unwrap();
        host.breathe().unwrap();
        assert_eq!(host.read("/small").unwrap_err().to_string(), Cut::Memory(u64::MAX).to_string());
    }

    #[test]
    fn a_paused_task_waits_loses_no_time_of_its_own_and_can_be_cancelled() {
        let pause = Arc::new(Pause::default());
        let is_cancelled = Arc::new(AtomicBool::new(false));
        let root = tempfile::tempdir().unwrap();
        let budget = Budget { time_seconds: Some(1), ..Budget::default() };
        let host = Host::with_budget(root.path(), budget).pausing(Arc::clone(&pause)).until(Arc::clone(&is_cancelled));
        pause.set(Some(jiff::Timestamp::now() + jiff::SignedDuration::from_secs(60)));
        let (went_on, has_gone_on) = std::sync::mpsc::channel();
        let others = std::thread::spawn({
            let (pause, is_cancelled) = (Arc::clone(&pause), Arc::clone(&is_cancelled));
            move || {
                std::thread::sleep(Duration::from_millis(1_500));
                pause.set(None);
                has_gone_on.recv().unwrap();
                pause.set(Some(jiff::Timestamp::now() + jiff::SignedDuration::from_secs(60)));
                std::thread::sleep(Duration::from_millis(100));
                is_cancelled.store(true, Ordering::Relaxed);
            }
        });
        let began = Instant::now();
        // Longer than the task may take at all, and it is not cut off.
        host.breathe().unwrap();
        assert!(began.elapsed() >= Duration::from_millis(1_400));
        went_on.send(()).unwrap();
        let end = loop {
            if let Err(cut) = host.breathe() {
                break cut;
            }
        };
        assert_eq!(end, Cut::Cancelled);
        others.join().unwrap();
    }

    #[test]
    fn a_task_leaves_most_of_the_processor_to_others() {
        let root = tempfile::tempdir().unwrap();
        let host = of_budget(root.path(), "cpu=20%");
        let mut used = Duration::ZERO;
        while used < Duration::from_millis(40) {
            std::hint::black_box(ContentHash::of(&[7; 4_096]));
            used = cpu_of_thread().saturating_sub(host.cpu_before);
        }
        host.breathe().unwrap();
        assert!(host.began.elapsed() >= used * 5, "{:?} of {:?}", used, host.began.elapsed());
        // What comes from elsewhere is no reason to divide by nothing.
        let host = Host::with_budget(root.path(), Budget { cpu_percent: Some(0), ..Budget::default() });
        host.breathe().unwrap();
    }

    #[test]
    fn a_loop_of_links_is_absent() {
        let (root, host) = tree();
        assert!(matches!(host.read("/etc/loop"), Err(ReadError::Absent)));
        // On this machine it is the system that follows links.
        let path = root.path().join("etc/loop");
        assert!(matches!(Host::new("/").read(path.to_str().unwrap()), Err(ReadError::Absent)));
    }

    #[test]
    fn a_chain_of_links_longer_than_the_limit_leads_nowhere() {
        let (root, host) = tree();
        let secret = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(secret.path(), "outside").unwrap();
        for at in 0..=limits::LINK_DEPTH_MAX {
            symlink(format!("/l{}", at + 1), root.path().join(format!("l{at}"))).unwrap();
        }
        symlink(secret.path(), root.path().join(format!("l{}", limits::LINK_DEPTH_MAX + 1))).unwrap();
        assert!(host.read("/l0").is_err());
    }

    #[test]
    fn a_fifo_does_not_block() {
        let (root, host) = tree();
        let fifo = root.path().join("etc/fifo");
        rustix::fs::mknodat(rustix::fs::CWD, &fifo, rustix::fs::FileType::Fifo, rustix::fs::Mode::RUSR, 0).unwrap();
        assert!(matches!(host.read("/etc/fifo"), Err(ReadError::Absent)));
    }

    #[test]
    fn a_file_over_the_limit_is_not_read() {
        let (root, host) = tree();
        let file = File::create(root.path().join("etc/sparse")).unwrap();
        file.set_len(limits::FILE_BYTES_MAX + 1).unwrap();
        assert!(matches!(host.read("/etc/sparse"), Err(ReadError::TooLarge)));
    }
}
