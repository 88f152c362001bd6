//! `unix:sysctl`: kernel parameters, from `/proc/sys`.

use std::collections::BTreeSet;

use oval::resolve::Query;
use proto::observation::{Collected, Flag, Item, ItemEntity, Status};

use super::{Probe, ProbeError, finish};
use crate::host::{Cut, Host, ReadError};

pub(crate) struct Sysctl;

const BASE: &str = "/proc/sys";
/// What `oscap` reads of one parameter.
const VALUE_BYTES_MAX: usize = 8191;

impl Probe for Sysctl {
    const KIND: &'static str = "unix:sysctl";

    fn collect(host: &Host, query: &Query) -> Result<Collected, ProbeError> {
        let Some(name) = query.entity("name") else { return Ok(finish(Vec::new(), Vec::new())) };
        // Parameters that nobody can ask for are not parameters that are not there.
        if !host.stat(BASE).is_ok_and(|metadata| metadata.is_dir()) {
            return Ok(unasked(host));
        }
        let mut items = Vec::new();
        if let Some(values) = name.exact() {
            let mut missed = false;
            // A variable may say the same twice.
            let values: BTreeSet<&String> = values.iter().collect();
            for value in &values {
                // No parameter has such a name, though the file system would find one.
                if value.contains('/') {
                    continue;
                }
                // Only the name of an interface may have dots in a row, and the walk finds those.
                if value.split('.').any(str::is_empty) {
                    missed = true;
                    continue;
                }
                let path = format!("{BASE}/{}", value.replace('.', "/"));
                match host.lstat(&path) {
                    Ok(metadata) if metadata.is_file() => items.extend(item(host, value, &path)?),
                    // A name with dots of its own, such as an interface `eth0.1`.
                    _ => missed = true,
                }
            }
            if !missed || !values.iter().any(|value| value.matches('.').count() > 3) {
                return Ok(finish(items, Vec::new()));
            }
            items.clear();
        }
        let mut messages = Vec::new();
        if let Err(error) = walk(host, BASE, 0, &mut |path| {
            let dotted = path[BASE.len() + 1..].replace('/', ".");
            if name.matches(&dotted)? {
                items.extend(item(host, &dotted, path)?);
            }
            Ok(())
        }) {
            match error {
                ProbeError::Cut(cut) => messages.push(cut.to_string()),
                other => return Err(other),
            }
        }
        let is_cut = !messages.is_empty();
        let mut collected = finish(items, messages);
        if is_cut {
            collected.flag = Flag::Incomplete;
        }
        Ok(collected)
    }
}

/// The answer where there is no `/proc/sys`.
fn unasked(host: &Host) -> Collected {
    if host.is_live() {
        Collected::nothing(Flag::NotCollected, format!("there is no {BASE}: /proc is not mounted"))
    } else {
        Collected::nothing(Flag::NotApplicable, format!("needs a live system: there is no {BASE}"))
    }
}

fn walk(
    host: &Host,
    directory: &str,
    depth: usize,
    visit: &mut dyn FnMut(&str) -> Result<(), ProbeError>,
) -> Result<(), ProbeError> {
    // `oscap` goes seven levels down.
    if depth > 7 {
        return Ok(());
    }
    let Ok(entries) = host.read_dir(directory) else { return Ok(()) };
    for entry in entries.filter_map(Result::ok) {
        host.count_entry().map_err(|cut: Cut| ProbeError::Cut(cut))?;
        let path = format!("{directory}/{}", entry.file_name().to_string_lossy());
        match entry.file_type() {
            Ok(kind) if kind.is_dir() && path != "/proc/sys/fs/binfmt_misc" => walk(host, &path, depth + 1, visit)?,
            Ok(kind) if kind.is_file() => visit(&path)?,
            _ => {}
        }
    }
    Ok(())
}

/// A parameter's item; none for one that nobody may read and for one without content.
fn item(host: &Host, name: &str, path: &str) -> Result<Option<Item>, Cut> {
    use std::os::unix::fs::MetadataExt as _;
    if host.lstat(path).is_ok_and(|metadata| metadata.mode() & 0o400 == 0) {
        return Ok(None);
    }
    let bytes = match host.read(path) {
        Ok(bytes) if bytes.is_empty() => return Ok(None),
        Ok(bytes) => bytes,
        Err(ReadError::Absent) => return Ok(None),
        Err(ReadError::Cut(cut)) => return Err(cut),
        Err(error) if path.ends_with("/stable_secret") && !matches!(error, ReadError::Denied) => {
            return Ok(None);
        }
        Err(error) => {
            let mut item = Item::new(Sysctl::KIND, Vec::new());
            item.status = Status::Error;
            item.message = Some(format!("{path}: {error}"));
            return Ok(Some(item));
        }
    };
    let text = String::from_utf8_lossy(&bytes[..bytes.len().min(VALUE_BYTES_MAX)]).into_owned();
    let text = text.strip_suffix('\n').unwrap_or(&text);
    let mut entities = vec![ItemEntity::text("name", name)];
    let is_break = |character: char| character != '\t' && character.is_ascii_control();
    entities.extend(text.split(is_break).map(|line| ItemEntity::text("value", line)));
    Ok(Some(Item::new(Sysctl::KIND, entities)))
}

#[cfg(test)]
mod tests {
    use super::super::entities::fixture::{asked, query, tree, values};
    use super::*;
    use proto::plan::{Check, Operation};

    #[track_caller]
    fn check(name: &str, expect: &[&str]) {
        let (_root, host) = tree(&[
            ("proc/sys/kernel/ostype", "Linux\n"),
            ("proc/sys/net/ipv4/conf/eth0.1/forwarding", "1\n"),
            ("proc/sys/net/ipv4/conf/a..b/forwarding", "0\n"),
        ]);
        let query = query(Sysctl::KIND, vec![asked("name", Operation::Equals, name)]);
        let collected = Sysctl::collect(&host, &query).unwrap();
        assert_eq!(values(&collected.items, "value"), expect, "{name}");
    }

    #[test]
    fn a_root_without_a_kernel_has_no_parameters_to_ask_for() {
        let (_root, host) = tree(&[("etc/sysctl.conf", "kernel.panic = 1\n")]);
        let query = query(Sysctl::KIND, vec![asked("name", Operation::Equals, "kernel.panic")]);
        let collected = Sysctl::collect(&host, &query).unwrap();
        assert_eq!((collected.flag, collected.items.len()), (Flag::NotApplicable, 0));
        assert_eq!(collected.messages, ["needs a live system: there is no /proc/sys"]);
        // A machine has parameters, seen or not.
        assert_eq!(unasked(&Host::new("/")).flag, Flag::NotCollected);
    }

    #[test]
    fn names_are_parts_with_dots_between_them() {
        check("kernel.ostype", &["Linux"]);
        check("net.ipv4.conf.eth0.1.forwarding", &["1"]);
        check("net.ipv4.conf.a..b.forwarding", &["0"]);
    }

    #[test]
    fn a_name_that_is_asked_for_twice_is_one_item() {
        let (_root, host) = tree(&[("proc/sys/kernel/ostype", "Linux\n"), ("proc/sys/kernel/hostname", "h\n")]);
        let mut names = asked("name", Operation::Equals, "kernel.ostype");
        names.var_check = Check::AtLeastOne;
        names.values.extend(["kernel.hostname", "kernel.ostype"].map(String::from));
        let collected = Sysctl::collect(&host, &query(Sysctl::KIND, vec![names])).unwrap();
        assert_eq!(values(&collected.items, "name"), ["kernel.hostname", "kernel.ostype"]);
    }

    #[test]
    fn a_slash_or_an_empty_part_finds_nothing() {
        for name in [
            "",
            "kernel/ostype",
            "kernel..ostype",
            ".kernel.ostype",
            "kernel.ostype.",
            "kernel.ostype/",
            "/kernel.ostype",
            "..sys.kernel.ostype",
            "net.ipv4.conf/eth0.1/forwarding",
            "net..ipv4..conf.eth0.1.forwarding",
        ] {
            check(name, &[]);
        }
    }
}
