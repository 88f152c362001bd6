//! `muster:mount`: what is mounted, from `/proc/self/mountinfo`, in the order in which it was: of several at one
//! target the last one is seen. Options are those of the mount and of its file system; `ro` where one of the two is.

use oval::resolve::Query;
use proto::observation::{Collected, Item, ItemEntity, Status};

use super::entities::text;
use super::partition::unescape;
use super::{Probe, ProbeError, matching, text_of};
use crate::host::Host;
use crate::mounts;

pub(crate) struct Mount;

const MOUNTS: &str = "/proc/self/mountinfo";

impl Probe for Mount {
    const KIND: &'static str = "muster:mount";

    fn collect(host: &Host, query: &Query) -> Result<Collected, ProbeError> {
        let mounts = text_of(host, MOUNTS)?.unwrap_or_default();
        let items = mounts.lines().filter(|line| !line.is_empty()).map(|line| item(line).unwrap_or_else(broken));
        matching(items.collect(), query)
    }
}

fn broken() -> Item {
    let mut item = Item::new(Mount::KIND, Vec::new());
    item.status = Status::Error;
    item.message = Some(format!("{MOUNTS}: a line is not one of a mount"));
    item
}

fn item(line: &str) -> Option<Item> {
    let mount = mounts::Mount::parse(line.as_bytes())?;
    let all = || mount.options.split(',').chain(mount.system_options.split(',')).filter(|option| !option.is_empty());
    let mut options = vec![if all().any(|option| option == "ro") { "ro" } else { "rw" }.to_owned()];
    for option in all().filter(|option| !matches!(*option, "ro" | "rw")).map(unescape) {
        if !options.contains(&option) {
            options.push(option);
        }
    }
    let source = match mount.source.as_str() {
        "" | "none" => Err(Status::DoesNotExist),
        source => Ok(source),
    };
    let target = mount.target.to_string_lossy();
    let mut entities = vec![text("target", Ok(target)), text("source", source), text("fs_type", Ok(&mount.fs_type))];
    entities.extend(options.into_iter().map(|option| ItemEntity::text("option", option)));
    Some(Item::new(Mount::KIND, entities))
}

#[cfg(test)]
mod tests {
    use super::super::entities::fixture::{asked, query, tree, values};
    use super::*;
    use proto::observation::Flag;
    use proto::plan::Operation;

    const LINES: &str = "22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw,errors=remount-ro\n\
                         30 22 8:2 / /mnt/a\\040b ro,nosuid shared:5 master:1 - ext4 /dev/sda2 rw,nosuid\n\
                         31 22 0:30 / /tmp rw - tmpfs none ro\n";

    fn collect(mounts: &str, target: &str) -> Collected {
        let (_root, host) = tree(&[("proc/self/mountinfo", mounts)]);
        Mount::collect(&host, &query(Mount::KIND, vec![asked("target", Operation::Equals, target)])).unwrap()
    }

    #[test]
    fn options_of_both_kinds_count_once_and_read_only_wins() {
        assert_eq!(values(&collect(LINES, "/").items, "option"), ["rw", "relatime", "errors=remount-ro"]);
        assert_eq!(values(&collect(LINES, "/mnt/a b").items, "option"), ["ro", "nosuid"]);
        assert_eq!(values(&collect(LINES, "/tmp").items, "option"), ["ro"]);
    }

    #[test]
    fn a_mount_has_a_source_and_a_type_and_none_is_no_source() {
        let root = collect(LINES, "/").items;
        assert_eq!((values(&root, "source"), values(&root, "fs_type")), (vec!["/dev/sda1"], vec!["ext4"]));
        assert!(values(&collect(LINES, "/tmp").items, "source").is_empty());
        assert_eq!(collect(LINES, "/home").flag, Flag::DoesNotExist);
    }

    #[test]
    fn a_damaged_line_is_an_error_and_the_others_count() {
        let collected = collect(&format!("{LINES}garbage\n"), "/");
        assert_eq!((collected.flag, collected.items.len()), (Flag::Error, 2));
        for end in 0..LINES.len() {
            collect(&LINES[..end], "/");
        }
    }
}
