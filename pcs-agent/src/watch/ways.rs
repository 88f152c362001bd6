//! The ways, other than files, in which an endpoint tells that something may have changed. Each is followed as long as an
//! observation reads what it tells of; on a live system only.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use proto::message::Following;
use tokio::sync::{mpsc, watch};

use super::fingerprint::{self, Fingerprints};
use super::mounts::Mounts;
use super::units::Units;

/// What is told of.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Way {
    /// systemd's units: systemd, over D-Bus.
    Units,
    /// Mounts: the kernel.
    Mounts,
    /// Sockets that wait for others: a fingerprint.
    Sockets,
    /// Routes: a fingerprint.
    Routes,
    /// A kernel parameter, by its name: a fingerprint.
    Parameter(String),
}

impl Way {
    /// Its name on the wire.
    pub(super) fn following(&self) -> Following {
        match self {
            Self::Units => Following::Units,
            Self::Mounts => Following::Mounts,
            Self::Sockets | Self::Routes | Self::Parameter(_) => Following::Fingerprints,
        }
    }

    fn is_fingerprint(&self) -> bool {
        self.following() == Following::Fingerprints
    }
}

/// What is told.
#[derive(Debug)]
pub(super) enum Told {
    /// Something about these files.
    Paths(Vec<PathBuf>),
    /// Something about what this way tells of.
    Way(Way),
    /// Something was lost: everything may have changed.
    Lost,
}

/// Tells. What does not fit counts as lost.
#[derive(Debug, Clone)]
pub(super) struct Teller {
    told: mpsc::Sender<Told>,
    is_lost: Arc<AtomicBool>,
}

impl Teller {
    /// Over a queue, and a mark for what did not fit into it.
    pub(super) fn new(told: mpsc::Sender<Told>, is_lost: Arc<AtomicBool>) -> Self {
        Self { told, is_lost }
    }

    pub(super) fn tell(&self, told: Told) {
        if self.told.try_send(told).is_err() {
            self.is_lost.store(true, Relaxed);
        }
    }
}

/// Follows the ways that somebody wants.
#[derive(Debug)]
pub(super) struct Ways {
    root: PathBuf,
    teller: Teller,
    mounts: Option<Mounts>,
    units: Option<Units>,
    fingerprints: Option<Fingerprints>,
}

impl Ways {
    /// None is followed yet.
    pub(super) fn new(root: &Path, teller: Teller) -> Self {
        Self { root: root.to_owned(), teller, mounts: None, units: None, fingerprints: None }
    }

    /// Begins with what is wanted and is not followed, ends what is not wanted any more.
    pub(super) fn want(&mut self, wanted: &BTreeSet<Way>) {
        if !wanted.contains(&Way::Mounts) {
            self.mounts = None;
        } else if self.mounts.is_none() {
            match Mounts::open(&self.root) {
                Ok(mounts) => self.mounts = Some(mounts),
                Err(error) => tracing::debug!(%error, "mounts are not told of"),
            }
        }
        if !wanted.contains(&Way::Units) {
            self.units = None;
        } else if self.units.is_none() {
            self.units = Units::follow(self.teller.clone());
        }
        let of_fingerprints: BTreeSet<Way> = wanted.iter().filter(|way| way.is_fingerprint()).cloned().collect();
        if of_fingerprints.is_empty() {
            self.fingerprints = None;
        } else {
            let teller = &self.teller;
            let begun = || Fingerprints::start(&self.root, teller.clone());
            if self.fingerprints.is_none() {
                self.fingerprints = begun();
            }
            if let Some(fingerprints) = &mut self.fingerprints {
                fingerprints.want(of_fingerprints);
            }
        }
    }

    /// Whether mounts have changed since this was asked last.
    pub(super) fn are_mounts_changed(&self) -> bool {
        self.mounts.as_ref().is_some_and(Mounts::is_changed)
    }

    /// Whether systemd is listened to at present. It may begin or end at any time.
    pub(super) fn hears_units(&self) -> bool {
        self.units.as_ref().is_some_and(Units::is_heard)
    }

    /// Becomes something when it is known whether systemd is listened to.
    pub(super) fn units_known(&self) -> Option<watch::Receiver<Option<bool>>> {
        self.units.as_ref().map(Units::known)
    }

    /// How often fingerprints are taken.
    pub(super) fn fingerprint_interval(&self) -> Option<Duration> {
        self.fingerprints.as_ref().map(Fingerprints::interval)
    }

    /// Whether a way tells at present.
    pub(super) fn tells(&self, way: &Way) -> bool {
        match way {
            Way::Units => self.hears_units(),
            Way::Mounts => self.mounts.is_some(),
            Way::Sockets | Way::Routes => self.fingerprints.is_some(),
            // A name with so many dots may be that of an interface, whose own dots only a search finds.
            Way::Parameter(name) => {
                let is_there = || fingerprint::parameter(&self.root, name).is_file();
                self.fingerprints.is_some() && (name.matches('.').count() <= 3 || is_there())
            }
        }
    }
}
