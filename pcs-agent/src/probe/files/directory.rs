//! A directory that a walk is in, and what its entries lead to.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;

use super::joined;
use crate::host::{Away, Host};
use crate::probe::tree::{Identity, Kind};

/// A directory on the way of a walk.
pub(super) struct Directory {
    /// As the object spells it.
    pub(super) path: String,
    /// Where it is on this machine, links followed.
    pub(super) located: PathBuf,
    pub(super) identity: Identity,
}

/// What an entry of a directory leads to.
pub(super) enum Child {
    Directory(Directory),
    /// A directory that is not looked into, because that would mount something of the kernel's.
    PassedOver,
    /// Nobody knows: it is in a mount that does not answer.
    Away(Away),
    Other,
}

impl Child {
    fn of(directory: Result<Option<Directory>, Away>) -> Self {
        match directory {
            Ok(Some(directory)) => Self::Directory(directory),
            Ok(None) => Self::Other,
            Err(away) => Self::Away(away),
        }
    }
}

impl Directory {
    /// The one at this path; none where there is no directory, or none that answers, which is noted.
    pub(super) fn at(host: &Host, path: &str) -> Option<Self> {
        Self::find(host, path).unwrap_or_else(|away| {
            host.meet(&away);
            None
        })
    }

    fn find(host: &Host, path: &str) -> Result<Option<Self>, Away> {
        Ok(Self::of(path.to_owned(), host.place_of(path, true)?))
    }

    fn of(path: String, located: PathBuf) -> Option<Self> {
        let metadata = std::fs::metadata(&located).ok().filter(Metadata::is_dir)?;
        Some(Self { path, located, identity: (metadata.dev(), metadata.ino()) })
    }

    /// What the entry of that name in it leads to.
    pub(super) fn child(&self, host: &Host, name: &str, kind: Kind) -> Child {
        if kind == Kind::Other {
            return Child::Other;
        }
        let path = joined(&self.path, name);
        if kind == Kind::Link {
            return Child::of(Self::find(host, &path));
        }
        let located = self.located.join(name);
        if host.is_passed_over(&located) {
            return Child::PassedOver;
        }
        Child::of(host.check(&located).map(|()| Self::of(path, located)))
    }
}
