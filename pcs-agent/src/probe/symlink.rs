//! `unix:symlink`: where a link leads in the end.

use std::collections::BTreeSet;
use std::io;

use oval::resolve::Query;
use proto::observation::{Collected, Item, ItemEntity};

use super::entities::lacking;
use super::{Probe, ProbeError, finish};
use crate::host::{Away, Host};

pub(crate) struct Symlink;

impl Probe for Symlink {
    const KIND: &'static str = "unix:symlink";

    fn collect(host: &Host, query: &Query) -> Result<Collected, ProbeError> {
        let mut items = Vec::new();
        let mut messages = Vec::new();
        let mut errors = Vec::new();
        let paths: BTreeSet<&String> = query.entity("filepath").into_iter().flat_map(|entity| &entity.values).collect();
        for path in paths {
            if let Err(cut) = host.breathe_now_and_then() {
                errors.push(ProbeError::from(cut));
                break;
            }
            match look(host, path) {
                Ok(Link::To(target)) => {
                    let entities = vec![ItemEntity::text("filepath", path), ItemEntity::text("canonical_path", target)];
                    items.push(Item::new(Self::KIND, entities));
                }
                Ok(Link::None(why)) => messages.push(why),
                Err(error) => errors.push(error),
            }
        }
        Ok(lacking(finish(items, messages), errors))
    }
}

/// What is at a path.
enum Link {
    /// A link, and the path that it leads to in the end.
    To(String),
    /// No link, in words.
    None(String),
}

fn look(host: &Host, path: &str) -> Result<Link, ProbeError> {
    match host.lstat(path) {
        Ok(metadata) if metadata.is_symlink() => {}
        Ok(_) => return Ok(Link::None(format!("File '{path}' is not a symlink."))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Ok(Link::None(format!("File '{path}' does not exist.")));
        }
        Err(error) => return Err(broken(path, &error)),
    }
    let located = host.locate_followed(path).map_err(|error| broken(path, &error))?;
    let target =
        if host.is_live() { std::fs::canonicalize(&located) } else { std::fs::metadata(&located).map(|_| located) };
    match target {
        Ok(target) => Ok(Link::To(host.path_of(&target))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Err(ProbeError::Broken(format!(
            "the target of the link '{path}' does not exist, or the link leads to itself"
        ))),
        Err(error) => Err(broken(path, &error)),
    }
}

fn broken(path: &str, error: &io::Error) -> ProbeError {
    if let Some(away) = Away::behind(error) {
        ProbeError::Away(away.clone())
    } else if error.kind() == io::ErrorKind::PermissionDenied {
        ProbeError::Denied(path.to_owned())
    } else {
        ProbeError::Broken(format!("{path}: {error}"))
    }
}

#[cfg(test)]
mod tests {
    use super::super::entities::fixture;
    use super::*;
    use proto::observation::Flag;
    use proto::plan::{Check, Operation};
    use std::os::unix::fs::symlink;

    fn tree() -> (tempfile::TempDir, Host) {
        let (root, host) = fixture::tree(&[("a/b/f", "x")]);
        for (target, link) in
            [("a/b/f", "link"), ("link", "chain"), ("/a/b", "directory"), ("none", "dangling"), ("loop", "loop")]
        {
            symlink(target, root.path().join(link)).unwrap();
        }
        (root, host)
    }

    fn collect(host: &Host, paths: &[&str]) -> Collected {
        let mut asked = fixture::asked("filepath", Operation::Equals, "");
        asked.values = paths.iter().map(|path| (*path).to_owned()).collect();
        asked.var_check = Check::AtLeastOne;
        Symlink::collect(host, &fixture::query(Symlink::KIND, vec![asked])).unwrap_or_else(Collected::from)
    }

    #[test]
    fn a_link_is_followed_to_its_end() {
        let (_root, host) = tree();
        for (path, expect) in [("/link", "/a/b/f"), ("/chain", "/a/b/f"), ("/directory", "/a/b")] {
            let collected = collect(&host, &[path]);
            assert_eq!(fixture::values(&collected.items, "filepath"), [path]);
            assert_eq!(fixture::values(&collected.items, "canonical_path"), [expect]);
            assert_eq!(collected.flag, Flag::Complete);
        }
    }

    #[test]
    fn what_is_no_link_does_not_exist_and_a_link_to_nothing_is_an_error() {
        let (_root, host) = tree();
        for (path, flag) in [
            ("/none", Flag::DoesNotExist),
            ("/a", Flag::DoesNotExist),
            ("/a/b/f", Flag::DoesNotExist),
            ("/dangling", Flag::Error),
            ("/loop", Flag::Error),
        ] {
            let collected = collect(&host, &[path]);
            assert_eq!((collected.flag, collected.items.len(), collected.messages.len()), (flag, 0, 1), "{path}");
        }
    }

    #[test]
    fn a_broken_link_does_not_hide_the_others_and_each_is_told_once() {
        let (_root, host) = tree();
        let collected = collect(&host, &["/link", "/dangling", "/directory", "/link", "/none"]);
        assert_eq!(fixture::values(&collected.items, "filepath"), ["/directory", "/link"]);
        assert_eq!(collected.flag, Flag::Error);
        assert_eq!(collected.messages.len(), 2);
        assert_eq!(collect(&host, &["/link", "/none", "/link"]).flag, Flag::Complete);
    }

    #[test]
    fn on_this_machine_the_system_follows_links() {
        let (root, _) = tree();
        let host = Host::new("/");
        // The directory of the tree may be behind a link itself.
        let at = |name: &str| root.path().canonicalize().unwrap().join(name).to_str().unwrap().to_owned();
        let collected = collect(&host, &[&at("chain"), &at("loop"), &at("link/x")]);
        assert_eq!(fixture::values(&collected.items, "canonical_path"), [at("a/b/f")]);
        assert_eq!((collected.flag, collected.messages.len()), (Flag::Error, 2));
    }
}
