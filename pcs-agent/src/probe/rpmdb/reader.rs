//! Files of a database, read at positions, within limits.

use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt as _, MetadataExt as _, OpenOptionsExt as _};

use super::limits::DATABASE_BYTES_MAX;
use crate::host::{Away, Host};
use crate::probe::ProbeError;

/// A file that is open.
#[derive(Debug)]
pub(super) struct Reader<'host> {
    host: &'host Host,
    file: File,
    path: String,
    length: u64,
}

impl<'host> Reader<'host> {
    /// The file at this path; none where there is no such file.
    pub(super) fn open(host: &'host Host, path: &str) -> Result<Option<Self>, ProbeError> {
        let located = match host.locate_followed(path) {
            Ok(located) => located,
            Err(error) => return absent(path, &error),
        };
        // Without this look, opening a device could have effects; `O_NONBLOCK` covers the race.
        match std::fs::metadata(&located) {
            Ok(metadata) if metadata.is_file() => {}
            Ok(_) => return Err(ProbeError::Broken(format!("{path}: not a regular file"))),
            Err(error) => return absent(path, &error),
        }
        let nonblock = i32::try_from(rustix::fs::OFlags::NONBLOCK.bits()).unwrap_or(0);
        let file = match File::options().read(true).custom_flags(nonblock).open(located) {
            Ok(file) => file,
            Err(error) => return absent(path, &error),
        };
        let metadata = file.metadata().map_err(|error| ProbeError::Broken(format!("{path}: {error}")))?;
        if !metadata.is_file() {
            return Err(ProbeError::Broken(format!("{path}: not a regular file")));
        }
        let length = metadata.size();
        if length > DATABASE_BYTES_MAX {
            let most = DATABASE_BYTES_MAX / 1024 / 1024;
            return Err(ProbeError::NotCovered(format!("{path}: a database larger than {most} MiB")));
        }
        Ok(Some(Self { host, file, path: path.to_owned(), length }))
    }

    /// How long it was when it was opened.
    pub(super) fn length(&self) -> u64 {
        self.length
    }

    /// Fills these bytes from that position.
    pub(super) fn read(&self, at: u64, into: &mut [u8]) -> Result<(), ProbeError> {
        self.host.count_read(into.len() as u64)?;
        self.host.breathe_now_and_then()?;
        self.file.read_exact_at(into, at).map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => self.broken("it ends too early"),
            _ => self.broken(&error.to_string()),
        })
    }

    /// What is wrong with it.
    pub(super) fn broken(&self, what: &str) -> ProbeError {
        ProbeError::Broken(format!("{}: {what}", self.path))
    }

    /// What cannot be read of it.
    pub(super) fn not_covered(&self, what: &str) -> ProbeError {
        ProbeError::NotCovered(format!("the RPM database {}: {what}", self.path))
    }
}

fn absent<T>(path: &str, error: &io::Error) -> Result<Option<T>, ProbeError> {
    if let Some(away) = Away::behind(error) {
        return Err(away.clone().into());
    }
    match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => Ok(None),
        io::ErrorKind::PermissionDenied => Err(ProbeError::Denied(path.to_owned())),
        _ => Err(ProbeError::Broken(format!("{path}: {error}"))),
    }
}

/// Pages that were read: in a sound database nothing leads to one twice.
#[derive(Debug)]
pub(super) struct Seen(Vec<u64>);

impl Seen {
    /// None of so many.
    pub(super) fn new(pages: u32) -> Self {
        Self(vec![0; super::bytes::size(pages) / 64 + 1])
    }

    /// Whether this is the first time; a page that is not there has no first time.
    pub(super) fn first(&mut self, page: u32) -> bool {
        let Some(word) = self.0.get_mut(super::bytes::size(page) / 64) else { return false };
        let bit = 1_u64 << (page % 64);
        let is_first = *word & bit == 0;
        *word |= bit;
        is_first
    }
}
