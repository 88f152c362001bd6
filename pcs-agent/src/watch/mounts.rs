//! What is mounted: the kernel says of `/proc/self/mountinfo` that it is another one now (`POLLPRI`, proc_pid_mountinfo(5)),
//! in the mount namespace of the collector, which is where it looks.

use std::fs::File;
use std::io;
use std::path::Path;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// The table of mounts, held open.
#[derive(Debug)]
pub(super) struct Mounts {
    table: File,
}

impl Mounts {
    /// What changes from now on is told.
    pub(super) fn open(root: &Path) -> io::Result<Self> {
        Ok(Self { table: File::open(root.join("proc/self/mountinfo"))? })
    }

    /// Whether something was mounted, unmounted or mounted otherwise since this was asked last. Does not wait.
    pub(super) fn is_changed(&self) -> bool {
        let mut asked = [PollFd::new(&self.table, PollFlags::PRI)];
        let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
        let is_answered = poll(&mut asked, Some(&at_once)).is_ok_and(|count| count > 0);
        is_answered && asked[0].revents().intersects(PollFlags::PRI | PollFlags::ERR)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_that_is_no_file_of_the_kernels_never_changes_and_one_that_is_not_there_is_an_error() {
        let root = tempfile::tempdir().unwrap();
        assert!(Mounts::open(root.path()).is_err());
        let table = root.path().join("proc/self/mountinfo");
        std::fs::create_dir_all(table.parent().unwrap()).unwrap();
        std::fs::write(&table, "1").unwrap();
        let mounts = Mounts::open(root.path()).unwrap();
        std::fs::write(&table, "2").unwrap();
        assert!(!mounts.is_changed());
    }
}
