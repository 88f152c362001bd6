//! A small file system of its own, mounted for real.

#![allow(clippy::print_stdout, reason = "it says what is skipped")]

use std::ffi::CString;
use std::path::{Path, PathBuf};

use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};

/// A small disk, until it is dropped.
#[derive(Debug)]
pub struct Disk(PathBuf);

impl Disk {
    /// Mounts two megabytes at a directory, which is made; `None` where that is not possible, which is an error where
    /// `MUSTER_REQUIRE_MOUNT` is set.
    pub fn mount(path: &Path) -> Option<Self> {
        Self::mount_of(2, path)
    }

    /// The same, with so many megabytes.
    pub fn mount_of(megabytes: u32, path: &Path) -> Option<Self> {
        std::fs::create_dir_all(path).expect("a directory of the test's own can be made");
        let options = CString::new(format!("size={megabytes}m,mode=0700")).expect("text without zeros");
        if let Err(error) = mount("tmpfs", path, "tmpfs", MountFlags::NODEV, options.as_c_str()) {
            assert!(std::env::var_os("MUSTER_REQUIRE_MOUNT").is_none(), "no file system can be mounted: {error}");
            println!("SKIPPED: mounting a small file system needs root ({error})");
            return None;
        }
        Some(Self(path.to_owned()))
    }

    /// Takes all the room that is left.
    pub fn fill(&self) {
        let mut junk = std::fs::File::create(self.junk()).expect("a new disk has room for a name");
        for bytes in [vec![0; 1 << 20], vec![0; 4096]] {
            while std::io::Write::write_all(&mut junk, &bytes).is_ok() {}
        }
    }

    /// Gives it back.
    pub fn free(&self) {
        let _ = std::fs::remove_file(self.junk());
    }

    /// What takes the room.
    pub fn junk(&self) -> PathBuf {
        self.0.join("junk")
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = unmount(&self.0, UnmountFlags::DETACH);
    }
}
