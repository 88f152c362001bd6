//! A small file system of its own, mounted for real.

#![allow(clippy::print_stdout, reason = "it says what is skipped")]

use std::path::Path;

use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};

/// A small disk, until it is dropped.
#[derive(Debug)]
pub struct Disk<'path>(&'path Path);

impl<'path> Disk<'path> {
    /// Mounts two megabytes at a directory, which is made; `None` where that is not possible, which is an error where
    /// `MUSTER_REQUIRE_MOUNT` is set.
    pub fn mount(path: &'path Path) -> Option<Self> {
        std::fs::create_dir_all(path).expect("a directory of the test's own can be made");
        if let Err(error) = mount("tmpfs", path, "tmpfs", MountFlags::NODEV, c"size=2m,mode=0700") {
            assert!(std::env::var_os("MUSTER_REQUIRE_MOUNT").is_none(), "no file system can be mounted: {error}");
            println!("SKIPPED: mounting a small file system needs root ({error})");
            return None;
        }
        Some(Self(path))
    }

    /// Takes all the room that is left.
    pub fn fill(&self) {
        let mut junk = std::fs::File::create(self.junk()).expect("a new disk has room for a name");
        while std::io::Write::write_all(&mut junk, &[0; 4096]).is_ok() {}
    }

    /// What takes the room.
    pub fn junk(&self) -> std::path::PathBuf {
        self.0.join("junk")
    }
}

impl Drop for Disk<'_> {
    fn drop(&mut self) {
        let _ = unmount(self.0, UnmountFlags::DETACH);
    }
}
