//! Keeps whoever looks out of mounts that do not answer: every access goes by here first. Where all mounts answer, which is
//! nearly always, nothing is guarded and nothing costs anything; else paths are followed here, component by component, because
//! the kernel that followed a link into such a mount would not come back.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashSet};
use std::ffi::OsString;
use std::io;
use std::path::{Component, Path, PathBuf};

use crate::asking::{Answer, Device, ask};
use crate::limits::{ASKED_AT_ONCE_MAX, ASKED_SECONDS_MAX, GUARDED_DIRECTORIES_MAX, LINK_DEPTH_MAX};
use crate::mounts::{self, Mount};

/// A mount that nobody looks into, and why.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{} mount {} {why}", mounts::called(.fs_type), .target.display())]
pub struct Away {
    target: PathBuf,
    fs_type: String,
    /// What is mounted: a server's directory, a device.
    origin: String,
    device: Device,
    why: Why,
}

/// Why nobody looks into a mount.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
enum Why {
    #[error("does not answer: it was asked for {ASKED_SECONDS_MAX} s")]
    Silent,
    #[error("does not answer: {0}")]
    Failed(String),
    #[error("was not asked whether it answers: {ASKED_AT_ONCE_MAX} others do not")]
    NotAsked,
    #[error("is mounted when somebody looks, and a collector changes nothing")]
    Trigger,
    #[error("is that of another name space, and some mount here does not answer")]
    Elsewhere,
    #[error("is not watched: nobody tells of what others change there")]
    NotTold,
}

impl Away {
    fn of(mount: &Mount, why: Why) -> Self {
        Self {
            target: mount.target.clone(),
            fs_type: mount.fs_type.clone(),
            origin: mount.source.clone(),
            device: mount.device,
            why,
        }
    }

    /// Its device, as `st_dev` has it.
    pub(crate) fn device(&self) -> u64 {
        rustix::fs::makedev(self.device.0, self.device.1)
    }

    /// Whether it is one that a walk over local file systems does not enter.
    pub(crate) fn is_remote(&self) -> bool {
        mounts::is_remote(&self.fs_type, &self.origin)
    }

    /// The one that an error comes from.
    pub(crate) fn behind(error: &io::Error) -> Option<&Self> {
        error.get_ref()?.downcast_ref()
    }
}

impl From<Away> for io::Error {
    fn from(away: Away) -> Self {
        Self::new(io::ErrorKind::HostUnreachable, away)
    }
}

/// Which places nobody looks into.
#[derive(Debug, Default)]
pub(crate) struct Guard {
    away: Vec<Away>,
    /// What is mounted, for what is reached through a mount that is none of its own.
    targets: Vec<PathBuf>,
    /// Directories that are no links and lead through none.
    plain: RefCell<HashSet<PathBuf>>,
}

impl Guard {
    /// The mounts that do not answer now, and those that looking would mount; blocks for at most [`ASKED_SECONDS_MAX`] seconds.
    pub(crate) fn now() -> Self {
        let mounts = mounts::now();
        let asked = mounts.iter().filter(|mount| mounts::may_hang(&mount.fs_type) && !mount.is_covered(&mounts));
        let systems: BTreeMap<Device, PathBuf> = asked.map(|mount| (mount.device, mount.target.clone())).collect();
        let answers = if systems.is_empty() { BTreeMap::new() } else { ask(&systems) };
        Self::of(&mounts, |mount| match answers.get(&mount.device) {
            Some(Answer::Silent) => Some(Why::Silent),
            Some(Answer::Failed(reason)) => Some(Why::Failed(reason.clone())),
            Some(Answer::NotAsked) => Some(Why::NotAsked),
            Some(Answer::Heard) | None => mounts::is_trigger(&mount.fs_type).then_some(Why::Trigger),
        })
    }

    /// Every mount that may hang, without asking: for those who can do without. The root is not one of them.
    pub(crate) fn of_all_that_may_hang() -> Self {
        let is_left_out = |mount: &Mount| {
            let is_one = mounts::may_hang(&mount.fs_type) || mounts::is_trigger(&mount.fs_type);
            (is_one && mount.target != Path::new("/")).then_some(Why::NotTold)
        };
        Self::of(&mounts::now(), is_left_out)
    }

    fn of(all: &[Mount], why: impl Fn(&Mount) -> Option<Why>) -> Self {
        let seen = all.iter().filter(|mount| !mount.is_covered(all));
        let away = seen.filter_map(|mount| Some(Away::of(mount, why(mount)?))).collect();
        Self { away, targets: all.iter().map(|mount| mount.target.clone()).collect(), plain: RefCell::default() }
    }

    /// Whether paths have to be followed here. The kernel's own triggers, such as that of `binfmt_misc`, are in nobody's way.
    pub(crate) fn is_needed(&self) -> bool {
        self.away.iter().any(|away| !is_kernels(&away.target))
    }

    /// Whether it is a place of the kernel that would be mounted if somebody looked: a walk passes it over.
    pub(crate) fn is_passed_over(&self, real: &Path) -> bool {
        self.away.iter().any(|away| away.why == Why::Trigger && is_kernels(&away.target) && away.target == real)
    }

    /// Whether a path without links is in a mount that nobody looks into, or is that mount.
    pub(crate) fn check(&self, real: &Path) -> Result<(), Away> {
        let is_in = |away: &&Away| {
            real.starts_with(&away.target)
                // What is mounted below a trigger is there, and is no trigger.
                && !(away.why == Why::Trigger
                    && self.targets.iter().any(|target| {
                        target != &away.target && target.starts_with(&away.target) && real.starts_with(target)
                    }))
        };
        self.away.iter().find(is_in).map_or(Ok(()), |away| Err(away.clone()))
    }

    /// Where a path of this machine leads, without links and without entering what does not answer. Its last component is
    /// followed on request.
    pub(crate) fn follow(&self, path: &Path, is_last_followed: bool) -> Result<PathBuf, Away> {
        let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
        let mut real = PathBuf::from("/");
        let mut left: Vec<OsString> = reversed(&path);
        let mut links = 0;
        while let Some(name) = left.pop() {
            if name == ".." {
                real.pop();
                continue;
            }
            let next = real.join(&name);
            self.check(&next)?;
            if left.is_empty() && !is_last_followed || self.plain.borrow().contains(&next) {
                real = next;
                continue;
            }
            let Ok(target) = std::fs::read_link(&next) else {
                let mut plain = self.plain.borrow_mut();
                if plain.len() < GUARDED_DIRECTORIES_MAX && !left.is_empty() {
                    plain.insert(next.clone());
                }
                real = next;
                continue;
            };
            links += 1;
            if links > LINK_DEPTH_MAX {
                // The kernel gives up no later: it says that there are too many.
                return Ok(next);
            }
            if is_magic(&next) {
                check_magic(&next)?;
                if target.is_relative() {
                    // A pipe, a socket: no path leads there.
                    real = next;
                    continue;
                }
            }
            if target.is_absolute() {
                real = PathBuf::from("/");
            }
            left.extend(reversed(&target));
        }
        Ok(real)
    }
}

/// The components of a path, the first one last, without what does not lead anywhere.
fn reversed(path: &Path) -> Vec<OsString> {
    let named = path.components().filter_map(|component| match component {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some(OsString::from("..")),
        _ => None,
    });
    named.collect::<Vec<_>>().into_iter().rev().collect()
}

fn is_kernels(path: &Path) -> bool {
    path.starts_with("/proc") || path.starts_with("/sys")
}

/// The kernel's links lead where their text says in the name space of mounts of their process alone.
fn check_magic(link: &Path) -> Result<(), Away> {
    let mut components = link.components();
    let process: PathBuf = components.by_ref().take(3).collect();
    let space = |process: &Path| std::fs::read_link(process.join("ns/mnt")).ok();
    let theirs = space(&process);
    if theirs.is_some() && theirs != space(Path::new("/proc/self")) {
        let fs_type = "foreign".to_owned();
        let (origin, device) = (String::new(), (0, 0));
        return Err(Away { target: link.to_owned(), fs_type, origin, device, why: Why::Elsewhere });
    }
    Ok(())
}

/// Whether a link is one of the kernel's that lead to what a process has, by no path: `/proc/1/cwd`.
fn is_magic(link: &Path) -> bool {
    let mut components = link.components().skip(1);
    let is_proc = components.next().is_some_and(|first| first.as_os_str() == "proc");
    let of_process =
        components.next().is_some_and(|process| process.as_os_str().as_encoded_bytes().iter().all(u8::is_ascii_digit));
    is_proc && of_process && components.next().is_some()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    fn guard(lines: &str, silent: &str) -> Guard {
        let mounts: Vec<Mount> = lines.lines().map(|line| Mount::parse(line.as_bytes()).unwrap()).collect();
        Guard::of(&mounts, |mount| {
            if mount.target == Path::new(silent) {
                Some(Why::Silent)
            } else {
                mounts::is_trigger(&mount.fs_type).then_some(Why::Trigger)
            }
        })
    }

    fn line(id: u32, parent: u32, target: &Path, fs_type: &str) -> String {
        format!("{id} {parent} 0:{id} / {} rw - {fs_type} nas:/x rw\n", target.display())
    }

    #[test]
    fn links_dots_and_chains_into_what_does_not_answer_are_seen_before_they_are_followed() {
        let root = tempfile::tempdir().unwrap();
        let base = root.path().canonicalize().unwrap();
        let at = |path: &str| base.join(path);
        for directory in ["srv/data", "etc/real", "srv/data2"] {
            std::fs::create_dir_all(at(directory)).unwrap();
        }
        std::fs::write(at("etc/real/file"), "x").unwrap();
        symlink(at("srv/data"), at("etc/absolute")).unwrap();
        symlink("../srv/data/deep", at("etc/relative")).unwrap();
        symlink("relative", at("etc/chain")).unwrap();
        symlink("real", at("etc/fine")).unwrap();
        symlink("loop", at("etc/loop")).unwrap();
        let guard = guard(&line(7, 1, &at("srv/data"), "nfs4"), at("srv/data").to_str().unwrap());
        assert!(guard.is_needed());
        let words = format!("NFS mount {} does not answer: it was asked for 5 s", at("srv/data").display());
        for path in ["srv/data", "srv/data/x", "etc/absolute/x", "etc/relative", "etc/chain", "etc/real/../absolute/x"]
        {
            assert_eq!(guard.follow(&at(path), true).unwrap_err().to_string(), words, "{path}");
        }
        // A link as such is looked at, and what only looks like it, and what leads past it.
        assert_eq!(guard.follow(&at("etc/absolute"), false).unwrap(), at("etc/absolute"));
        assert_eq!(guard.follow(&at("srv/data2"), true).unwrap(), at("srv/data2"));
        assert_eq!(guard.follow(&at("etc/fine/file"), true).unwrap(), at("etc/real/file"));
        assert_eq!(guard.follow(&at("srv/../etc/fine/none/x"), true).unwrap(), at("etc/real/none/x"));
        assert!(std::fs::metadata(guard.follow(&at("etc/loop"), true).unwrap()).is_err());
    }

    #[test]
    fn what_would_be_mounted_is_not_looked_into_and_what_is_mounted_below_is() {
        let lines = [
            line(3, 1, Path::new("/misc"), "autofs"),
            line(4, 3, Path::new("/misc/there"), "nfs4"),
            line(5, 1, Path::new("/direct"), "autofs"),
            line(6, 5, Path::new("/direct"), "nfs4"),
            line(8, 1, Path::new("/proc/sys/fs/binfmt_misc"), "autofs"),
        ];
        let guard = guard(&lines.concat(), "");
        let words = guard.check(Path::new("/misc/none")).unwrap_err().to_string();
        assert_eq!(words, "autofs mount /misc is mounted when somebody looks, and a collector changes nothing");
        assert!(guard.check(Path::new("/misc")).is_err());
        assert!(guard.check(Path::new("/misc/there/x")).is_ok());
        assert!(guard.check(Path::new("/direct/x")).is_ok());
        assert!(guard.is_passed_over(Path::new("/proc/sys/fs/binfmt_misc")));
        assert!(!guard.is_passed_over(Path::new("/misc")));
    }

    #[test]
    fn the_kernels_own_triggers_are_no_reason_to_follow_paths() {
        let guard = guard(&line(8, 1, Path::new("/proc/sys/fs/binfmt_misc"), "autofs"), "");
        assert!(!guard.is_needed());
        assert!(is_magic(Path::new("/proc/12/cwd")) && is_magic(Path::new("/proc/12/fd/3")));
        assert!(!is_magic(Path::new("/proc/self")) && !is_magic(Path::new("/proc/mounts")));
        check_magic(Path::new(&format!("/proc/{}/cwd", std::process::id()))).unwrap();
    }

    #[test]
    fn an_error_keeps_what_it_comes_from() {
        let guard = guard(&line(7, 1, Path::new("/srv"), "cifs"), "/srv");
        let error = io::Error::from(guard.check(Path::new("/srv/x")).unwrap_err());
        assert_eq!(error.to_string(), "SMB mount /srv does not answer: it was asked for 5 s");
        assert!(Away::behind(&error).is_some_and(Away::is_remote));
        assert!(Away::behind(&io::Error::other("x")).is_none());
    }
}
