//! Which core the servers have, and which one this process: what plays the fleet takes nothing from what is measured.

use rustix::process::Pid;
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// The cores.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Cores {
    /// The servers'.
    pub(crate) servers: usize,
    /// This process', and the real collector's.
    pub(crate) own: usize,
    /// Whether anything is pinned: some systems do not let one.
    pub(crate) is_pinned: bool,
}

/// A set of one.
fn only(core: usize) -> CpuSet {
    let mut set = CpuSet::new();
    set.set(core);
    set
}

impl Cores {
    /// Chooses two of those that this process may use, and moves all threads of it to one of them.
    pub(crate) fn take() -> Self {
        let allowed = sched_getaffinity(None).unwrap_or_default();
        let mut cores = (0..CpuSet::MAX_CPU).filter(|core| allowed.is_set(*core));
        let servers = cores.next().unwrap_or_default();
        let own = cores.next().unwrap_or(servers);
        let is_pinned = move_all(own);
        Self { servers, own, is_pinned }
    }

    /// Whether both have the same one.
    pub(crate) fn is_shared(self) -> bool {
        self.servers == self.own
    }

    /// Starts something on a core: a process has the affinity of the thread that started it.
    pub(crate) fn start_on<T>(self, core: usize, start: impl FnOnce() -> T) -> T {
        if !self.is_pinned {
            return start();
        }
        let _ = sched_setaffinity(None, &only(core));
        let started = start();
        let _ = sched_setaffinity(None, &only(self.own));
        started
    }

    /// In words, what was done.
    pub(crate) fn in_words(self) -> String {
        match (self.is_pinned, self.is_shared()) {
            (false, _) => {
                "no process could be pinned to a core: what plays the fleet takes from what is measured".to_owned()
            }
            (true, true) => {
                "there is one core only: servers and simulated collectors share it, and each takes from the other"
                    .to_owned()
            }
            (true, false) => format!("servers on core {}, simulated collectors on core {}", self.servers, self.own),
        }
    }
}

/// Moves all threads of this process; those that they start later are where they are.
fn move_all(core: usize) -> bool {
    let Ok(threads) = std::fs::read_dir("/proc/self/task") else { return false };
    let ids = threads.filter_map(|thread| thread.ok()?.file_name().to_str()?.parse().ok());
    let mut ids = ids.filter_map(Pid::from_raw).peekable();
    // A thread may have ended meanwhile; this one is there.
    ids.peek().is_some()
        && ids.map(|id| sched_setaffinity(Some(id), &only(core)).is_ok()).fold(false, |any, is_done| any | is_done)
}
