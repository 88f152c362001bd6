//! `unix:uname`: what the kernel says of itself, read from `/proc/sys/kernel` below the root.

use oval::resolve::Query;
use proto::observation::{Collected, Item, ItemEntity};

use super::{Probe, ProbeError, finish};
use crate::host::Host;

pub(crate) struct Uname;

impl Probe for Uname {
    const KIND: &'static str = "unix:uname";

    fn collect(host: &Host, _query: &Query) -> Result<Collected, ProbeError> {
        let kernel = |name: &str| {
            host.read_text(&format!("/proc/sys/kernel/{name}")).ok().map(|text| text.trim_end().to_owned())
        };
        let (Some(os_name), Some(os_release), Some(os_version)) =
            (kernel("ostype"), kernel("osrelease"), kernel("version"))
        else {
            return Ok(Collected::nothing(
                proto::observation::Flag::NotApplicable,
                "needs a live system: there is no /proc/sys/kernel",
            ));
        };
        let machine = machine(host);
        let entities = vec![
            ItemEntity::text("machine_class", machine.clone()),
            ItemEntity::text("node_name", kernel("hostname").unwrap_or_default()),
            ItemEntity::text("os_name", os_name),
            ItemEntity::text("os_release", os_release),
            ItemEntity::text("os_version", os_version),
            ItemEntity::text("processor_type", machine),
        ];
        Ok(finish(vec![Item::new(Self::KIND, entities)], Vec::new()))
    }
}

/// The machine's hardware name: from the kernel on the live system, from `/proc/sys/kernel/arch`
/// (Linux 6.1) below another root.
pub(crate) fn machine(host: &Host) -> String {
    if host.is_live() {
        return rustix::system::uname().machine().to_string_lossy().into_owned();
    }
    host.read_text("/proc/sys/kernel/arch").map(|text| text.trim().to_owned()).unwrap_or_default()
}
