//! What keeps a probe over files from the whole answer, and what the answer is flagged with then.

use std::io::ErrorKind;
use std::rc::Rc;

use proto::observation::{Collected, Flag, Item};

use super::ProbeError;
use super::file::flagged;
use super::files::Found;
use crate::host::{Cut, Host, ReadError};

/// Files that are named, of each trouble.
const NAMED_MAX: usize = 20;

/// What is there and no file to read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Unreadable {
    #[error("the link leads to a directory")]
    Directory,
    #[error("not a regular file")]
    NoFile,
    #[error("the link leads to nothing that can be read")]
    Nothing,
}

/// Why a file cannot be read, where that is not said by reading it.
pub(super) fn unreadable(host: &Host, filepath: &str) -> Option<Unreadable> {
    match host.stat(filepath) {
        Ok(metadata) if metadata.is_file() => None,
        Ok(metadata) if metadata.is_dir() => Some(Unreadable::Directory),
        Ok(_) => Some(Unreadable::NoFile),
        Err(error) if error.kind() == ErrorKind::PermissionDenied => None,
        Err(_) => {
            let is_link = host.lstat(filepath).is_ok_and(|metadata| metadata.is_symlink());
            is_link.then_some(Unreadable::Nothing)
        }
    }
}

/// The troubles of one object.
#[derive(Debug, Default)]
pub(super) struct Troubles {
    /// What is wrong with files: the object is an error.
    pub(super) broken: Vec<String>,
    /// What nobody has looked at.
    lacking: Vec<String>,
    denied: Option<String>,
    cut: Option<Cut>,
}

impl Troubles {
    /// Something is wrong with a file. Of very many some are named.
    pub(super) fn note(&mut self, what: String) {
        if self.broken.len() < NAMED_MAX {
            self.broken.push(what);
        }
    }

    /// Nobody has looked at something, in words.
    pub(super) fn lack(&mut self, what: String) {
        if self.lacking.len() < NAMED_MAX {
            self.lacking.push(what);
        }
    }

    /// The looking ended before the end.
    pub(super) fn cut(&mut self, reason: Cut) {
        self.cut = Some(reason);
    }

    /// The content of a file; none where there is none or it cannot be read, which is a trouble of its own.
    pub(super) fn content(&mut self, host: &Host, filepath: &str) -> Result<Option<Rc<[u8]>>, Cut> {
        match host.content(filepath) {
            Ok(content) => return Ok(Some(content)),
            Err(ReadError::Absent) => {}
            Err(ReadError::Denied) => self.denied = Some(ProbeError::Denied(filepath.to_owned()).to_string()),
            Err(ReadError::Cut(reason)) => return Err(reason),
            Err(ReadError::Away(away)) => self.lack(format!("{filepath}: {away}")),
            Err(error) => self.note(format!("{filepath}: {error}")),
        }
        Ok(None)
    }

    /// The answer: an error where something is wrong, incomplete or not collected where somebody did not look.
    pub(super) fn flag(self, items: Vec<Item>, found: Found) -> Collected {
        let mut collected = flagged(items, found);
        for what in self.lacking.into_iter().chain(self.denied) {
            collected.messages.push(what);
            collected.flag = if collected.items.is_empty() { Flag::NotCollected } else { Flag::Incomplete };
        }
        if let Some(cut) = self.cut {
            collected.messages.push(cut.to_string());
            collected.flag = Flag::Incomplete;
        }
        if !self.broken.is_empty() {
            collected.messages.extend(self.broken);
            collected.flag = Flag::Error;
        }
        collected
    }
}
