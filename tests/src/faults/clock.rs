//! The clock of one process: a library that is loaded before the C library adds to it what a file says.

use std::ffi::OsString;
use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

const SOURCE: &str = include_str!("clock.c");

/// The library, compiled.
#[derive(Debug, Clone)]
pub(super) struct Shim(PathBuf);

impl Shim {
    /// Compiles it into a directory; none where there is no compiler.
    pub(super) fn compile(directory: &Path) -> Option<Self> {
        let (source, library) = (directory.join("clock.c"), directory.join("clock.so"));
        std::fs::write(&source, SOURCE).expect("a file of the campaign's own");
        let words = ["-shared", "-fPIC", "-O2", "-o"];
        let compiled = Command::new("cc").args(words).arg(&library).arg(&source).arg("-ldl").status();
        compiled.is_ok_and(|status| status.success()).then_some(Self(library))
    }

    /// The clock of a process, right at first.
    pub(super) fn clock(&self, file: &Path) -> Clock {
        std::fs::write(file, 0_i64.to_ne_bytes()).expect("a file of the campaign's own");
        Clock { library: self.0.clone(), file: file.to_owned() }
    }
}

/// The clock of one process.
#[derive(Debug)]
pub(super) struct Clock {
    library: PathBuf,
    file: PathBuf,
}

impl Clock {
    /// What its process has to be started with.
    pub(super) fn variables(&self) -> Vec<(&'static str, OsString)> {
        vec![("LD_PRELOAD", self.library.clone().into()), ("FAULT_CLOCK", self.file.clone().into())]
    }

    /// How far it is ahead from now on. The file is mapped: it never becomes shorter.
    pub(super) fn set(&self, seconds: i64) {
        let file = File::options().write(true).open(&self.file).expect("the clock's file");
        file.write_all_at(&seconds.to_ne_bytes(), 0).expect("the clock's file");
    }
}
