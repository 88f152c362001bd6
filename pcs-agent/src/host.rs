//! The endpoint as probes see it: files below a root directory, read within limits.
//!
//! Nothing here starts a process, follows a link out of the root, or blocks on a FIFO or a device
//! (RFC 8248 OP-002). Everything on an endpoint is hostile: names, contents, sizes.

use std::cell::{Cell, OnceCell};
use std::fs::{File, Metadata};
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Component, Path, PathBuf};
use std::time::{Duration, Instant};

use crate::limits;
use crate::probe::dpkginfo::Package;
use crate::probe::systemd::Systemd;

/// An endpoint's file system, and how much of it one task may look at.
#[derive(Debug)]
pub struct Host {
    root: PathBuf,
    deadline: Instant,
    bytes_left: Cell<u64>,
    entries_left: Cell<u64>,
    pub(crate) packages: OnceCell<Result<Vec<Package>, String>>,
    pub(crate) systemd: OnceCell<Result<Systemd, String>>,
}

/// Why looking stops before the end.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Cut {
    /// The time for this task is over.
    #[error("cut off: the time limit of {} s for one task is reached", limits::TASK_SECONDS_MAX)]
    Time,
    /// So many bytes were read.
    #[error("cut off: {} MiB were read for one task", limits::TASK_BYTES_MAX / 1024 / 1024)]
    Bytes,
    /// So many directory entries were looked at.
    #[error("cut off: {} directory entries were looked at for one task", limits::TASK_ENTRIES_MAX)]
    Entries,
    /// So many items were found.
    #[error("cut off: more than {} items", proto::limits::OBJECT_ITEMS_MAX)]
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
    /// The system says no.
    #[error("{0}")]
    Io(io::Error),
}

impl From<io::Error> for ReadError {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => Self::Absent,
            io::ErrorKind::PermissionDenied => Self::Denied,
            _ => Self::Io(error),
        }
    }
}

/// A name that nothing has: where too many links lead.
const NOWHERE: &str = ".too-many-links\u{1}/nowhere";

impl Host {
    /// The endpoint below `root`; `/` is this machine.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self {
            root: root.into(),
            deadline: Instant::now() + Duration::from_secs(limits::TASK_SECONDS_MAX),
            bytes_left: Cell::new(limits::TASK_BYTES_MAX),
            entries_left: Cell::new(limits::TASK_ENTRIES_MAX),
            packages: OnceCell::new(),
            systemd: OnceCell::new(),
        }
    }

    /// Whether this is the machine that the collector runs on.
    pub fn is_live(&self) -> bool {
        self.root == Path::new("/")
    }

    /// Where a path of the endpoint is on this machine. Below another root, links are resolved here,
    /// so that an absolute one does not lead out; the last component is left as it is.
    pub fn locate(&self, path: &str) -> PathBuf {
        if self.is_live() {
            return PathBuf::from(path);
        }
        let (parent, last) = path.rsplit_once('/').unwrap_or(("", path));
        let mut located = self.resolve(parent, &mut 0);
        if !last.is_empty() && last != "." && last != ".." {
            located.push(last);
        }
        located
    }

    /// The same, with a link as the last component followed too.
    pub fn locate_followed(&self, path: &str) -> PathBuf {
        if self.is_live() { PathBuf::from(path) } else { self.resolve(path, &mut 0) }
    }

    fn resolve(&self, path: &str, links: &mut usize) -> PathBuf {
        let mut located = self.root.clone();
        for component in Path::new(path).components() {
            match component {
                Component::Normal(name) => {
                    let next = located.join(name);
                    match std::fs::read_link(&next) {
                        Ok(target) => {
                            // One count for the whole path: links may fan out as well as chain.
                            *links += 1;
                            if *links > limits::LINK_DEPTH_MAX {
                                return self.root.join(NOWHERE);
                            }
                            let target = target.to_string_lossy();
                            let absolute = if target.starts_with('/') {
                                target.into_owned()
                            } else {
                                format!("{}/{target}", self.path_of(&located))
                            };
                            located = self.resolve(&absolute, links);
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
        located
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
        std::fs::symlink_metadata(self.locate(path))
    }

    /// `stat`.
    pub fn stat(&self, path: &str) -> io::Result<Metadata> {
        std::fs::metadata(self.locate_followed(path))
    }

    /// Counts a directory entry against the task's budget, and looks at the clock.
    pub fn count_entry(&self) -> Result<(), Cut> {
        let left = self.entries_left.get();
        if left == 0 {
            return Err(Cut::Entries);
        }
        self.entries_left.set(left - 1);
        if left.is_multiple_of(256) && Instant::now() > self.deadline {
            return Err(Cut::Time);
        }
        Ok(())
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
        let budget = self.bytes_left.get();
        let mut content = Vec::new();
        // A file that grows while it is read ends at the limit all the same.
        file.take((limits::FILE_BYTES_MAX + 1).min(budget + 1)).read_to_end(&mut content)?;
        let length = content.len() as u64;
        if length > budget {
            return Err(Cut::Bytes.into());
        }
        if length > limits::FILE_BYTES_MAX {
            return Err(ReadError::TooLarge);
        }
        if Instant::now() > self.deadline {
            return Err(Cut::Time.into());
        }
        self.bytes_left.set(budget - length);
        Ok(content)
    }

    fn open(&self, path: &str) -> Result<File, ReadError> {
        let located = self.locate_followed(path);
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

    #[test]
    fn a_loop_of_links_is_absent() {
        let (_root, host) = tree();
        assert!(host.read("/etc/loop").is_err());
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
