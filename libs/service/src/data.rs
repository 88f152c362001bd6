//! A data directory: private to its owner, used by one process, of a version that we know.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

/// The version of the layout below a data directory.
pub const LAYOUT_VERSION: u32 = 1;
/// The file that says it.
pub const VERSION_FILE: &str = "version";
/// What is being restored into a data directory, until all of it is there.
pub const RESTORE_DIRECTORY: &str = "restore.partial";

/// Why a data directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DataError {
    /// It cannot be made, read or written.
    #[error("the data directory {path} cannot be used; give another one with --data, or mend its permissions")]
    Io {
        /// Where.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Another process has it.
    #[error("the data directory {0} is in use by another process; stop it, or give another one with --data")]
    InUse(PathBuf),
    /// It is not whole.
    #[error("the data directory {0} was being restored, and that was broken off: empty it and restore it again")]
    Partial(PathBuf),
    /// A newer program made it.
    #[error(
        "the data directory {path} has layout version {found}, this program knows {LAYOUT_VERSION}: use the newer program, or another directory"
    )]
    Newer {
        /// Where.
        path: PathBuf,
        /// Its version.
        found: String,
    },
}

/// A data directory in use by this process.
#[derive(Debug)]
pub struct DataDirectory {
    path: PathBuf,
    _lock: File,
}

impl DataDirectory {
    /// Makes the directory if need be, locks it, and checks its version.
    pub fn open(path: &Path) -> Result<Self, DataError> {
        let failed = |source| DataError::Io { path: path.to_owned(), source };
        make(path).map_err(failed)?;
        let lock = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(path.join("lock"))
            .map_err(failed)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(fs::TryLockError::WouldBlock) => return Err(DataError::InUse(path.to_owned())),
            Err(fs::TryLockError::Error(source)) => return Err(failed(source)),
        }
        if path.join(RESTORE_DIRECTORY).exists() {
            return Err(DataError::Partial(path.to_owned()));
        }
        let version_file = path.join(VERSION_FILE);
        match fs::read_to_string(&version_file) {
            Ok(text) if text.trim().parse::<u32>().is_ok_and(|version| version <= LAYOUT_VERSION) => {}
            Ok(text) => {
                return Err(DataError::Newer { path: path.to_owned(), found: proto::limits::shown(text.trim()) });
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                write_private(&version_file, format!("{LAYOUT_VERSION}\n").as_bytes()).map_err(failed)?;
            }
            Err(source) => return Err(failed(source)),
        }
        Ok(Self { path: path.to_owned(), _lock: lock })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// Makes a directory that only its owner can enter.
pub fn make(path: &Path) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path)
}

/// Writes a file that only its owner can read: whole, or not at all.
pub fn write_private(path: &Path, content: &[u8]) -> io::Result<()> {
    let temporary = path.with_extension("tmp");
    // What a kill has left, or somebody else has put there: nothing is written through a link.
    if let Err(error) = fs::remove_file(&temporary)
        && error.kind() != io::ErrorKind::NotFound
    {
        return Err(error);
    }
    let mut file = File::options().create_new(true).write(true).mode(0o600).open(&temporary)?;
    file.write_all(content)?;
    file.sync_all()?;
    fs::rename(&temporary, path)?;
    match path.parent() {
        Some(parent) => File::open(parent)?.sync_all(),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_is_used_by_one_process_at_a_time() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("data");
        let first = DataDirectory::open(&path).unwrap();
        assert!(matches!(DataDirectory::open(&path), Err(DataError::InUse(_))));
        drop(first);
        DataDirectory::open(&path).unwrap();
    }

    #[test]
    fn a_directory_of_a_newer_program_is_left_alone() {
        let root = tempfile::tempdir().unwrap();
        fs::write(root.path().join("version"), "99\n").unwrap();
        let error = DataDirectory::open(root.path()).unwrap_err().to_string();
        assert!(error.contains("99") && error.contains("newer"), "{error}");
    }

    #[test]
    fn a_directory_that_cannot_be_made_is_named_with_the_remedy() {
        let error = DataDirectory::open(Path::new("/proc/muster")).unwrap_err().to_string();
        assert!(error.contains("/proc/muster") && error.contains("--data"), "{error}");
    }
}
