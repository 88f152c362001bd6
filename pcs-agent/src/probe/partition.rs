//! `linux:partition`: what is mounted, from `/proc/mounts`, with sizes from `statvfs`.

use oval::resolve::Query;
use proto::observation::{Collected, Flag, Item, ItemEntity, Status};
use proto::plan::{Datatype, Operation};

use super::{Probe, ProbeError, finish, text_of};
use crate::host::Host;
use crate::mounts::unescaped;

pub(crate) struct Partition;

impl Probe for Partition {
    const KIND: &'static str = "linux:partition";

    fn collect(host: &Host, query: &Query) -> Result<Collected, ProbeError> {
        let Some(mount_point) = query.entity("mount_point") else { return Ok(finish(Vec::new(), Vec::new())) };
        let mounts = mounts(host)?;
        if let Some(collected) = unseen(host, &mounts) {
            return Ok(collected);
        }
        let mut items = Vec::new();
        for mount in &mounts {
            if mount.fs_type == "rootfs" || !mount_point.matches(&mount.target)? {
                continue;
            }
            // An exact name means the first mount there, as `oscap` has it.
            let is_again = items.iter().any(|item: &Item| item.value("mount_point") == Some(&mount.target));
            if mount_point.operation == Operation::Equals && is_again {
                continue;
            }
            items.extend(item(host, mount));
        }
        Ok(finish(items, Vec::new()))
    }
}

/// The answer where a machine shows no mounts: it has some.
fn unseen(host: &Host, mounts: &[Mount]) -> Option<Collected> {
    let reason = "nothing is in /proc/mounts: /proc is not mounted";
    (host.is_live() && mounts.is_empty()).then(|| Collected::nothing(Flag::NotCollected, reason))
}

/// A line of `/proc/mounts`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Mount {
    pub(crate) device: String,
    pub(crate) target: String,
    pub(crate) fs_type: String,
    options: String,
}

/// Everything that is mounted, in order.
pub(crate) fn mounts(host: &Host) -> Result<Vec<Mount>, ProbeError> {
    let text = text_of(host, "/proc/mounts")?.unwrap_or_default();
    Ok(text
        .lines()
        .filter_map(|line| {
            let mut fields = line.split(' ').map(unescape);
            Some(Mount {
                device: fields.next()?,
                target: fields.next()?,
                fs_type: fields.next()?,
                options: fields.next()?,
            })
        })
        .collect())
}

/// Blanks and the like stand as three octal digits.
pub(super) fn unescape(field: &str) -> String {
    String::from_utf8_lossy(&unescaped(field.as_bytes())).into_owned()
}

fn item(host: &Host, mount: &Mount) -> Option<Item> {
    // One that does not answer is mounted all the same; only its space is not known.
    let sizes = match host.place_of(&mount.target, true) {
        Ok(located) => Ok(rustix::fs::statvfs(located).ok()?),
        Err(away) => Err(away),
    };
    let mut entities = vec![ItemEntity::text("mount_point", &mount.target), ItemEntity::text("device", &mount.device)];
    entities.push(match uuid(host, &mount.device) {
        Some(uuid) => ItemEntity::text("uuid", uuid),
        None => ItemEntity::without_value("uuid", Datatype::String, Status::DoesNotExist),
    });
    entities.push(ItemEntity::text("fs_type", &mount.fs_type));
    entities.extend(mount.options.split(',').map(|option| ItemEntity::text("mount_options", option)));
    if mount.options.split(',').any(|option| option == "relatime") {
        // `oscap` reads ST_RELATIME as MS_BIND; content that asks for `bind` expects it.
        entities.push(ItemEntity::text("mount_options", "bind"));
    }
    let mut message = None;
    match sizes {
        Ok(sizes) => {
            entities.push(ItemEntity::int("total_space", sizes.f_blocks));
            entities.push(ItemEntity::int("space_used", sizes.f_blocks.saturating_sub(sizes.f_bfree)));
            entities.push(ItemEntity::int("space_left", sizes.f_bfree));
        }
        Err(away) => {
            let unknown = |name| ItemEntity::without_value(name, Datatype::Int, Status::NotCollected);
            entities.extend(["total_space", "space_used", "space_left"].map(unknown));
            message = Some(away.to_string());
        }
    }
    Some(Item { message, ..Item::new(Partition::KIND, entities) })
}

fn uuid(host: &Host, device: &str) -> Option<String> {
    let wanted = std::fs::canonicalize(host.place_of(device, true).ok().filter(|_| device.starts_with('/'))?).ok()?;
    let entries = host.read_dir("/dev/disk/by-uuid").ok()?;
    entries.filter_map(Result::ok).find_map(|entry| {
        let is_it = std::fs::canonicalize(entry.path()).is_ok_and(|target| target == wanted);
        is_it.then(|| entry.file_name().to_string_lossy().into_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::super::entities::fixture::tree;
    use super::*;

    #[test]
    fn blanks_in_mount_points_are_unescaped() {
        assert_eq!(unescape(r"/mnt/a\040b\\c"), r"/mnt/a b\\c");
        assert_eq!(unescape(r"\04"), r"\04");
    }

    #[test]
    fn a_machine_that_shows_no_mounts_was_not_looked_at() {
        let (_root, elsewhere) = tree(&[]);
        let mount = Mount { device: "/dev/a".into(), target: "/".into(), fs_type: "ext4".into(), options: "rw".into() };
        let flag = |host: &Host, mounts: &[Mount]| unseen(host, mounts).map(|collected| collected.flag);
        assert_eq!(flag(&Host::new("/"), &[]), Some(Flag::NotCollected));
        assert_eq!(flag(&Host::new("/"), &[mount]), None);
        assert_eq!(flag(&elsewhere, &[]), None);
    }
}
