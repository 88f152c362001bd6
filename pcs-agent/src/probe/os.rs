//! `muster:os`: the operating system, in one item: `/etc/os-release`, `/proc`, `/etc/hostname`, `/etc/localtime`.
//! `boot_time` is in seconds since the epoch, UTC. `virtualization` and `container` are hints: `none` where nothing
//! tells of one, no value where it cannot be told.

use oval::resolve::Query;
use proto::observation::{Collected, Item, Status};

use super::entities::{Known, int, not_empty, text, text_in};
use super::{Probe, ProbeError, finish, machine};
use crate::host::{Cut, Host};

pub(crate) struct Os;

/// What firmware says of the machine that it makes up, and the word for it.
const MACHINES: [(&str, &str); 14] = [
    ("Amazon EC2", "amazon"),
    ("Apple Virtualization", "apple"),
    ("BHYVE", "bhyve"),
    ("Bochs", "bochs"),
    ("Google Compute Engine", "google"),
    ("Hyper-V", "microsoft"),
    ("KVM", "kvm"),
    ("Parallels", "parallels"),
    ("QEMU", "qemu"),
    ("VMware", "vmware"),
    ("Virtual Machine", "microsoft"),
    ("VirtualBox", "oracle"),
    ("Xen", "xen"),
    ("innotek GmbH", "oracle"),
];
/// Clocks that only a guest has.
const CLOCKS: [(&str, &str); 3] = [("kvm-clock", "kvm"), ("hyperv_clocksource", "microsoft"), ("xen", "xen")];
/// Control groups of the first process.
const GROUPS: [(&str, &str); 7] = [
    ("/kubepods", "kubernetes"),
    ("/docker/", "docker"),
    ("/docker-", "docker"),
    ("/libpod-", "podman"),
    ("/lxc/", "lxc"),
    ("/lxc.payload", "lxc"),
    ("/machine.slice/systemd-nspawn@", "systemd-nspawn"),
];

impl Probe for Os {
    const KIND: &'static str = "muster:os";

    fn collect(host: &Host, _query: &Query) -> Result<Collected, ProbeError> {
        let mut release = text_in(host, "/etc/os-release")?;
        if release == Err(Status::DoesNotExist) {
            release = text_in(host, "/usr/lib/os-release")?;
        }
        let said = |key: &str| match &release {
            Ok(release) => field(release, key).ok_or(Status::DoesNotExist),
            Err(status) => Err(*status),
        };
        let entities = vec![
            text("id", said("ID")),
            text("name", said("NAME")),
            text("version", said("VERSION")),
            text("version_id", said("VERSION_ID")),
            text("codename", said("VERSION_CODENAME")),
            text("kernel", text_in(host, "/proc/sys/kernel/osrelease")?),
            text("architecture", not_empty(&machine(host))),
            int("boot_time", boot_time(host)?),
            text("timezone", timezone(host)?),
            text("virtualization", virtualization(host)?),
            text("container", container(host)?),
            text("hostname", hostname(host)?),
        ];
        let is_anything_known = entities.iter().any(|entity| entity.status != Status::DoesNotExist);
        let items = if is_anything_known { vec![Item::new(Self::KIND, entities)] } else { Vec::new() };
        Ok(finish(items, Vec::new()))
    }
}

/// A value of `os-release`; where a key stands twice, the last one counts, as for a shell.
fn field(release: &str, key: &str) -> Option<String> {
    let of_line = |line: &str| line.trim().strip_prefix(key)?.strip_prefix('=').map(unquoted);
    release.lines().filter_map(of_line).next_back().filter(|value| !value.is_empty())
}

/// A word as a shell reads it, as far as `os-release` allows it.
fn unquoted(word: &str) -> String {
    if let Some(plain) = word.strip_prefix('\'') {
        return plain.strip_suffix('\'').unwrap_or(plain).to_owned();
    }
    let word = word.strip_prefix('"').map_or(word, |quoted| quoted.strip_suffix('"').unwrap_or(quoted));
    let mut value = String::with_capacity(word.len());
    let mut characters = word.chars();
    while let Some(character) = characters.next() {
        value.extend(if character == '\\' { characters.next() } else { Some(character) });
    }
    value
}

fn boot_time(host: &Host) -> Result<Known<u64>, Cut> {
    Ok(text_in(host, "/proc/stat")?.and_then(|stat| {
        let time = stat.lines().find_map(|line| line.strip_prefix("btime ")).ok_or(Status::DoesNotExist)?;
        time.trim().parse().map_err(|_| Status::Error)
    }))
}

/// The name of the zone; that of a copied zone file is known from `/etc/timezone` alone.
fn timezone(host: &Host) -> Result<Known<String>, Cut> {
    if let Ok(target) = host.read_link("/etc/localtime")
        && let Some((_, name)) = target.to_string_lossy().split_once("/zoneinfo/")
    {
        return Ok(not_empty(name));
    }
    Ok(text_in(host, "/etc/timezone")?.map(|text| first_line(&text)))
}

fn hostname(host: &Host) -> Result<Known<String>, Cut> {
    let of_kernel = text_in(host, "/proc/sys/kernel/hostname")?;
    if of_kernel.is_ok() {
        return Ok(of_kernel);
    }
    Ok(text_in(host, "/etc/hostname")?.and_then(|text| {
        let mut lines = text.lines().map(str::trim);
        not_empty(lines.find(|line| !line.is_empty() && !line.starts_with('#')).unwrap_or_default())
    }))
}

fn first_line(text: &str) -> String {
    text.lines().next().unwrap_or_default().trim().to_owned()
}

fn word_of(text: &str, words: &[(&str, &str)]) -> Option<String> {
    words.iter().find(|(sign, _)| text.contains(sign)).map(|(_, word)| (*word).to_owned())
}

fn virtualization(host: &Host) -> Result<Known<String>, Cut> {
    let none = || Ok(Ok("none".to_owned()));
    if let Ok(hypervisor) = text_in(host, "/sys/hypervisor/type")? {
        // Xen's first domain is the machine itself.
        let is_first = text_in(host, "/proc/xen/capabilities")?.is_ok_and(|text| text.contains("control_d"));
        return if is_first { none() } else { Ok(Ok(hypervisor)) };
    }
    let cpu = text_in(host, "/proc/cpuinfo")?.unwrap_or_default();
    // Processors of the x86 family say whether they are made up; on them, firmware alone proves nothing: the makers of
    // clouds rent out whole machines, too.
    let flags = cpu.lines().find_map(|line| line.strip_prefix("flags"));
    let is_guest = flags.map(|flags| flags.split_whitespace().any(|flag| flag == "hypervisor"));
    if is_guest == Some(false) {
        return none();
    }
    let clocks = text_in(host, "/sys/devices/system/clocksource/clocksource0/available_clocksource")?;
    let by_clock = clocks.ok().and_then(|clocks| word_of(&clocks, &CLOCKS));
    for name in ["product_name", "sys_vendor", "board_vendor", "bios_vendor"] {
        let Ok(said) = text_in(host, &format!("/sys/class/dmi/id/{name}"))? else { continue };
        if name == "product_name" && said.strip_suffix(".metal").is_some() {
            return none();
        }
        match word_of(&said, &MACHINES) {
            // QEMU's machines run on the processor itself where there is KVM.
            Some(word) if word == "qemu" => return Ok(Ok(by_clock.unwrap_or(word))),
            Some(word) => return Ok(Ok(word)),
            None => {}
        }
    }
    if let Ok(compatible) = text_in(host, "/proc/device-tree/hypervisor/compatible")? {
        return Ok(Ok(if compatible.contains("kvm") { "kvm" } else { "other" }.to_owned()));
    }
    Ok(match (by_clock, is_guest) {
        (Some(word), _) => Ok(word),
        (None, Some(true)) => Ok("other".to_owned()),
        (None, _) => Err(Status::DoesNotExist),
    })
}

fn container(host: &Host) -> Result<Known<String>, Cut> {
    if let Ok(name) = text_in(host, "/run/systemd/container")? {
        return Ok(Ok(first_line(&name)));
    }
    let environment = text_in(host, "/proc/1/environ")?.unwrap_or_default();
    if let Some(name) = environment.split('\0').find_map(|variable| variable.strip_prefix("container=")) {
        return Ok(not_empty(name));
    }
    for (mark, word) in [("/.dockerenv", "docker"), ("/run/.containerenv", "podman")] {
        if host.lstat(mark).is_ok() {
            return Ok(Ok(word.to_owned()));
        }
    }
    let kernel = text_in(host, "/proc/sys/kernel/osrelease")?.unwrap_or_default().to_ascii_lowercase();
    if kernel.contains("microsoft") {
        return Ok(Ok("wsl".to_owned()));
    }
    let groups = text_in(host, "/proc/1/cgroup")?.unwrap_or_default();
    Ok(match word_of(&groups, &GROUPS) {
        Some(word) => Ok(word),
        None if host.lstat("/proc/1").is_ok() => Ok("none".to_owned()),
        None => Err(Status::DoesNotExist),
    })
}

#[cfg(test)]
mod tests {
    use super::super::entities::fixture::{query, tree};
    use super::*;
    use proto::observation::Flag;

    fn collect(files: &[(&str, &str)]) -> Collected {
        let (_root, host) = tree(files);
        Os::collect(&host, &query(Os::KIND, Vec::new())).unwrap()
    }

    fn check(files: &[(&str, &str)], name: &str, expect: Option<&str>) {
        let collected = collect(files);
        assert_eq!(collected.items.first().and_then(|item| item.value(name)), expect, "{name} of {files:?}");
    }

    #[test]
    fn os_release_is_read_as_a_shell_reads_it() {
        let release = "# x\nNAME=\"Debian \\\"GNU\\\"\"\nID=debian\nID=other\nVERSION_ID='12'\nVERSION=\n";
        let files = [("etc/os-release", release)];
        check(&files, "name", Some("Debian \"GNU\""));
        check(&files, "id", Some("other"));
        check(&files, "version_id", Some("12"));
        check(&files, "version", None);
        check(&[("usr/lib/os-release", "ID=fedora")], "id", Some("fedora"));
        check(&[("etc/os-release", "ID=\"a\\")], "id", Some("a"));
    }

    #[test]
    fn the_kernel_and_files_tell_of_time_and_names() {
        let files = [
            ("proc/stat", "cpu 1 2\nbtime 1700000000\n"),
            ("proc/sys/kernel/osrelease", "6.1.0-18-amd64\n"),
            ("proc/sys/kernel/arch", "x86_64\n"),
            ("etc/hostname", "# the name\nweb1\n"),
            ("etc/timezone", "Europe/Berlin\n"),
        ];
        check(&files, "boot_time", Some("1700000000"));
        check(&files, "kernel", Some("6.1.0-18-amd64"));
        check(&files, "architecture", Some("x86_64"));
        check(&files, "hostname", Some("web1"));
        check(&files, "timezone", Some("Europe/Berlin"));
        let broken = collect(&[("proc/stat", "btime 99999999999999999999\n")]);
        let boot_time = broken.items[0].named("boot_time").next().unwrap();
        assert_eq!((boot_time.status, &boot_time.value), (Status::Error, &None));
    }

    #[test]
    fn a_link_to_a_zone_is_its_name() {
        let (root, host) = tree(&[("etc/timezone", "Etc/UTC")]);
        std::os::unix::fs::symlink("../usr/share/zoneinfo/Asia/Tokyo", root.path().join("etc/localtime")).unwrap();
        assert_eq!(timezone(&host).unwrap(), Ok("Asia/Tokyo".to_owned()));
    }

    #[test]
    fn virtualization_is_what_processor_and_firmware_say_together() {
        let guest = ("proc/cpuinfo", "flags\t\t: fpu hypervisor sse\n");
        let machine = ("proc/cpuinfo", "flags\t\t: fpu sse\n");
        let vendor = |name| ("sys/class/dmi/id/sys_vendor", name);
        check(&[machine, vendor("Amazon EC2")], "virtualization", Some("none"));
        check(&[guest, vendor("Amazon EC2")], "virtualization", Some("amazon"));
        check(&[guest, vendor("QEMU")], "virtualization", Some("qemu"));
        let clock = ("sys/devices/system/clocksource/clocksource0/available_clocksource", "tsc kvm-clock");
        check(&[guest, vendor("QEMU"), clock], "virtualization", Some("kvm"));
        check(&[guest, clock], "virtualization", Some("kvm"));
        check(&[guest], "virtualization", Some("other"));
        check(&[("proc/cpuinfo", "CPU part\t: 0xd0c\n")], "virtualization", None);
        let first = ("proc/xen/capabilities", "control_d\n");
        check(&[("sys/hypervisor/type", "xen\n"), first], "virtualization", Some("none"));
    }

    #[test]
    fn a_container_is_told_by_its_marks() {
        check(&[("proc/1/environ", "A=b\0container=lxc\0")], "container", Some("lxc"));
        check(&[(".dockerenv", ""), ("etc/hostname", "a")], "container", Some("docker"));
        check(&[("proc/1/cgroup", "0::/kubepods/besteffort/docker/x\n")], "container", Some("kubernetes"));
        check(&[("proc/1/cgroup", "0::/init.scope\n")], "container", Some("none"));
        check(&[("etc/hostname", "a")], "container", None);
    }

    #[test]
    fn where_nothing_is_known_there_is_no_item() {
        assert_eq!(collect(&[]).flag, Flag::DoesNotExist);
    }
}
