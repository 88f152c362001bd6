//! What an endpoint says of itself.

use std::path::Path;

use proto::limits::shown;
use proto::observation::EndpointFacts;

use crate::host::Host;
use crate::probe::machine;

/// The facts of the endpoint below `root`.
pub fn gather(root: &Path) -> EndpointFacts {
    of(&Host::new(root))
}

/// The facts of this endpoint.
pub(crate) fn of(host: &Host) -> EndpointFacts {
    let first_line = |path: &str| {
        host.read_text(path)
            .ok()
            .and_then(|text| text.lines().next().map(|line| shown(line.trim())))
            .filter(|line| !line.is_empty())
    };
    let os_release = host.read_text("/etc/os-release").unwrap_or_default();
    let os_name = os_release
        .lines()
        .find_map(|line| line.strip_prefix("PRETTY_NAME="))
        .map(|value| shown(value.trim_matches('"')));
    EndpointFacts {
        host_name: first_line("/proc/sys/kernel/hostname")
            .or_else(|| first_line("/etc/hostname"))
            .unwrap_or_else(|| "unnamed".to_owned()),
        os_name: os_name.unwrap_or_else(|| "Linux".to_owned()),
        os_version: first_line("/proc/sys/kernel/osrelease").unwrap_or_default(),
        architecture: machine(host),
        machine_id: first_line("/etc/machine-id"),
        is_privileged: rustix::process::geteuid().is_root(),
    }
}
