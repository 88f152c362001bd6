//! `unix:runlevel`: which System V init scripts start and end at which runlevel, from the links in `/etc/rc?.d`.
//! As in `oscap`, a link belongs to the script that it leads to, whatever it is called.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt as _;

use oval::resolve::Query;
use proto::observation::{Collected, Flag, Item, ItemEntity};

use super::{Probe, ProbeError, finish};
use crate::host::Host;

pub(crate) struct Runlevel;

const RUNLEVELS: [&str; 7] = ["0", "1", "2", "3", "4", "5", "6"];
/// Red Hat's place, and everybody else's.
const SCRIPTS: [&str; 2] = ["/etc/rc.d/init.d", "/etc/init.d"];

impl Probe for Runlevel {
    const KIND: &'static str = "unix:runlevel";

    fn collect(host: &Host, query: &Query) -> Result<Collected, ProbeError> {
        let mut messages = Vec::new();
        let mut scripts = Vec::new();
        for directory in SCRIPTS {
            let Some(names) = names(host, directory, &mut messages)? else { continue };
            for name in names {
                let Ok(metadata) = host.stat(&format!("{directory}/{name}")) else { continue };
                if metadata.is_file() {
                    scripts.push((name, (metadata.dev(), metadata.ino())));
                }
            }
            break;
        }
        let mut items = Vec::new();
        let mut is_any_level = false;
        for runlevel in RUNLEVELS {
            let Some(links) = links(host, runlevel, &mut messages)? else { continue };
            is_any_level = true;
            if !query.entity("runlevel").map_or(Ok(true), |wanted| wanted.matches(runlevel))? {
                continue;
            }
            for (name, identity) in &scripts {
                if query.entity("service_name").map_or(Ok(true), |wanted| wanted.matches(name))? {
                    let link = links.by_script.get(identity).copied().unwrap_or_default();
                    // SUSE knows what starts; all else ends.
                    let is_killed = if links.is_suse { !link.starts } else { link.kills };
                    items.push(item(name, runlevel, link.starts, is_killed));
                }
            }
        }
        if !is_any_level && host.stat("/etc/runlevels").is_ok_and(|metadata| metadata.is_dir()) {
            return Err(ProbeError::NotCovered("the runlevels of OpenRC".to_owned()));
        }
        messages.dedup();
        let is_any_unnamed = !messages.is_empty();
        let mut collected = finish(items, messages);
        if is_any_unnamed {
            collected.flag = Flag::Incomplete;
        }
        Ok(collected)
    }
}

/// What the links of one runlevel say of one script.
#[derive(Debug, Clone, Copy, Default)]
struct Link {
    starts: bool,
    kills: bool,
}

/// The links of one runlevel, by the device and inode of what they lead to.
struct Links {
    by_script: BTreeMap<(u64, u64), Link>,
    is_suse: bool,
}

fn links(host: &Host, runlevel: &str, messages: &mut Vec<String>) -> Result<Option<Links>, ProbeError> {
    for (directory, is_suse) in [
        (format!("/etc/rc{runlevel}.d"), false),
        (format!("/etc/init.d/rc{runlevel}.d"), true),
        (format!("/etc/rc.d/rc{runlevel}.d"), false),
    ] {
        let Some(names) = names(host, &directory, messages)? else { continue };
        let mut by_script: BTreeMap<(u64, u64), Link> = BTreeMap::new();
        for name in names {
            let Ok(metadata) = host.stat(&format!("{directory}/{name}")) else { continue };
            let link = by_script.entry((metadata.dev(), metadata.ino())).or_default();
            match name.bytes().next() {
                Some(b'S') => link.starts = true,
                Some(b'K') => link.kills = true,
                _ => {}
            }
        }
        return Ok(Some(Links { by_script, is_suse }));
    }
    Ok(None)
}

/// The names in a directory, sorted; none where there is no such directory.
fn names(host: &Host, directory: &str, messages: &mut Vec<String>) -> Result<Option<Vec<String>>, ProbeError> {
    use std::io::ErrorKind;
    let entries = match host.read_dir(directory) {
        Ok(entries) => entries,
        Err(error) => match error.kind() {
            ErrorKind::NotFound | ErrorKind::NotADirectory => return Ok(None),
            ErrorKind::PermissionDenied => return Err(ProbeError::Denied(directory.to_owned())),
            _ => return Err(ProbeError::Broken(format!("{directory}: {error}"))),
        },
    };
    let mut names = Vec::new();
    for entry in entries.filter_map(Result::ok) {
        host.count_entry()?;
        match entry.file_name().into_string() {
            Ok(name) => names.push(name),
            Err(_) => messages.push(format!("a name in {directory} is not UTF-8 and cannot be reported")),
        }
    }
    names.sort_unstable();
    Ok(Some(names))
}

fn item(name: &str, runlevel: &str, starts: bool, kills: bool) -> Item {
    let entities = vec![
        ItemEntity::text("service_name", name),
        ItemEntity::text("runlevel", runlevel),
        ItemEntity::boolean("start", starts),
        ItemEntity::boolean("kill", kills),
    ];
    Item::new(Runlevel::KIND, entities)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt as _;
    use std::os::unix::fs::symlink;
    use std::path::Path;

    fn collect(build: impl Fn(&Path)) -> Collected {
        let root = tempfile::tempdir().unwrap();
        build(root.path());
        let query = Query { kind: Runlevel::KIND.to_owned(), entities: Vec::new(), behaviors: BTreeMap::new() };
        Runlevel::collect(&Host::new(root.path()), &query).unwrap_or_else(Collected::from)
    }

    fn script(root: &Path, path: &str) {
        let path = root.join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, "#!/bin/sh\n").unwrap();
    }

    fn link(root: &Path, path: &str, target: &str) {
        let path = root.join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        symlink(target, path).unwrap();
    }

    fn said(collected: &Collected) -> Vec<[&str; 4]> {
        collected
            .items
            .iter()
            .map(|item| ["service_name", "runlevel", "start", "kill"].map(|name| item.value(name).unwrap()))
            .collect()
    }

    #[test]
    fn links_say_what_starts_and_what_ends() {
        let collected = collect(|root| {
            script(root, "etc/init.d/ssh");
            script(root, "etc/init.d/cron");
            std::fs::create_dir_all(root.join("etc/init.d/directory")).unwrap();
            link(root, "etc/rc3.d/S01ssh", "../init.d/ssh");
            link(root, "etc/rc3.d/README", "../init.d/cron");
            link(root, "etc/rc6.d/K01whatever", "/etc/init.d/ssh");
            link(root, "etc/rc6.d/S99gone", "../init.d/gone");
        });
        assert_eq!(
            said(&collected),
            [
                ["cron", "3", "false", "false"],
                ["ssh", "3", "true", "false"],
                ["cron", "6", "false", "false"],
                ["ssh", "6", "false", "true"],
            ]
        );
        assert_eq!(collected.flag, Flag::Complete);
    }

    #[test]
    fn on_suse_what_does_not_start_ends() {
        let collected = collect(|root| {
            script(root, "etc/init.d/ssh");
            script(root, "etc/init.d/cron");
            link(root, "etc/init.d/rc5.d/S01ssh", "../ssh");
        });
        assert_eq!(said(&collected), [["cron", "5", "false", "true"], ["ssh", "5", "true", "false"]]);
    }

    #[test]
    fn without_scripts_there_is_no_service_and_openrc_is_not_covered() {
        assert_eq!(collect(|_| {}).flag, Flag::DoesNotExist);
        let collected = collect(|root| {
            script(root, "etc/init.d/ssh");
            std::fs::create_dir_all(root.join("etc/runlevels/default")).unwrap();
        });
        assert_eq!(collected.flag, Flag::NotCollected);
    }

    #[test]
    fn a_name_that_cannot_be_reported_does_not_pass_for_absent() {
        let collected = collect(|root| {
            script(root, "etc/init.d/ssh");
            link(root, "etc/rc3.d/S01ssh", "../init.d/ssh");
            std::fs::write(root.join("etc/init.d").join(OsStr::from_bytes(b"\xff")), "x").unwrap();
        });
        assert_eq!(collected.flag, Flag::Incomplete);
        assert_eq!(collected.items.len(), 1);
    }
}
