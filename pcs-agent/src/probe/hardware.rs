//! `muster:hardware`: the machine, in one item: `/proc/cpuinfo`, `/proc/meminfo`, `/sys/class/dmi/id` or else the
//! device tree, and the EFI variable `SecureBoot`. `memory_bytes` is what the kernel can use, `bios_date` is in
//! seconds since the epoch, UTC. The serial number is root's to read: without rights it is `not collected`.

use std::collections::BTreeSet;

use jiff::civil::Date;
use jiff::tz::TimeZone;
use oval::resolve::Query;
use proto::observation::{Collected, Item, Status};

use super::entities::{Known, boolean, int, text, text_in};
use super::{Probe, ProbeError, finish};
use crate::host::{Cut, Host, ReadError};

pub(crate) struct Hardware;

/// The global variable of the UEFI specification: four bytes of attributes, one of value.
const SECURE_BOOT: &str = "/sys/firmware/efi/efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c";

impl Probe for Hardware {
    const KIND: &'static str = "muster:hardware";

    fn collect(host: &Host, _query: &Query) -> Result<Collected, ProbeError> {
        let (model, cores, threads) = match text_in(host, "/proc/cpuinfo")? {
            Ok(cpuinfo) => processors(&cpuinfo),
            Err(status) => (Err(status), Err(status), Err(status)),
        };
        let firmware = |name: &str| text_in(host, &format!("/sys/class/dmi/id/{name}"));
        let or_tree = |known: Known<String>, name: &str| match known {
            Err(Status::DoesNotExist) => text_in(host, &format!("/proc/device-tree/{name}")),
            known => Ok(known),
        };
        let entities = vec![
            text("cpu_model", model),
            int("cpu_cores", cores),
            int("cpu_threads", threads),
            int("memory_bytes", text_in(host, "/proc/meminfo")?.and_then(|meminfo| memory_bytes(&meminfo))),
            text("vendor", firmware("sys_vendor")?),
            text("product", or_tree(firmware("product_name")?, "model")?),
            text("serial", or_tree(firmware("product_serial")?, "serial-number")?),
            text("bios_version", firmware("bios_version")?),
            int("bios_date", firmware("bios_date")?.and_then(|date| seconds_of(&date).ok_or(Status::Error))),
            boolean("secure_boot", secure_boot(host)?),
        ];
        let is_anything_known = entities.iter().any(|entity| entity.status != Status::DoesNotExist);
        let items = if is_anything_known { vec![Item::new(Self::KIND, entities)] } else { Vec::new() };
        Ok(finish(items, Vec::new()))
    }
}

/// The first model, and how many cores and threads there are. Not every architecture tells of all three.
fn processors(cpuinfo: &str) -> (Known<String>, Known<usize>, Known<usize>) {
    let mut model = None;
    let mut cores = BTreeSet::new();
    let mut threads = 0_usize;
    let mut package = "";
    for line in cpuinfo.lines() {
        let Some((key, value)) = line.split_once(':') else { continue };
        match (key.trim(), value.trim()) {
            ("processor", _) => {
                threads += 1;
                package = "";
            }
            // s390 counts by itself.
            ("# processors", count) => threads = count.parse().unwrap_or(0),
            ("model name" | "cpu model" | "cpu", name) if model.is_none() && !name.is_empty() => {
                model = Some(name.to_owned());
            }
            ("physical id", id) => package = id,
            ("core id", id) => {
                cores.insert((package, id));
            }
            _ => {}
        }
    }
    let some = |count: usize| if count == 0 { Err(Status::DoesNotExist) } else { Ok(count) };
    (model.ok_or(Status::DoesNotExist), some(cores.len()), some(threads))
}

fn memory_bytes(meminfo: &str) -> Known<u64> {
    let total = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:")).ok_or(Status::DoesNotExist)?;
    let kibibytes = total.trim().strip_suffix("kB").and_then(|number| number.trim().parse::<u64>().ok());
    kibibytes.and_then(|kibibytes| kibibytes.checked_mul(1024)).ok_or(Status::Error)
}

/// The beginning of a day as SMBIOS writes it: month/day/year.
fn seconds_of(date: &str) -> Option<i64> {
    let mut parts = date.split('/').map(str::trim);
    let (month, day, year) = (parts.next()?, parts.next()?, parts.next()?);
    let years: i16 = year.parse().ok()?;
    // Two digits are of the twentieth century (SMBIOS 2.3 on has four).
    let years = if year.len() == 2 { years.checked_add(1900)? } else { years };
    let date = Date::new(years, month.parse().ok()?, day.parse().ok()?).ok()?;
    Some(date.to_zoned(TimeZone::UTC).ok()?.timestamp().as_second())
}

/// A machine that was not started by EFI has no such variable.
fn secure_boot(host: &Host) -> Result<Known<bool>, Cut> {
    Ok(match host.read(SECURE_BOOT) {
        Ok(variable) => match variable.as_slice() {
            [_, _, _, _, 0] => Ok(false),
            [_, _, _, _, 1] => Ok(true),
            _ => Err(Status::Error),
        },
        Err(ReadError::Absent) => Err(Status::DoesNotExist),
        Err(ReadError::Denied) => Err(Status::NotCollected),
        Err(ReadError::Cut(cut)) => return Err(cut),
        Err(_) => Err(Status::Error),
    })
}

#[cfg(test)]
mod tests {
    use super::super::entities::fixture::{query, tree};
    use super::*;
    use proto::observation::Flag;

    fn collect(files: &[(&str, &str)]) -> Collected {
        let (_root, host) = tree(files);
        Hardware::collect(&host, &query(Hardware::KIND, Vec::new())).unwrap()
    }

    #[test]
    fn a_core_with_two_threads_counts_once_in_each_package() {
        let one = |package: u32, core: u32| {
            format!("processor\t: 0\nmodel name\t: Xeon: 7\nphysical id\t: {package}\ncore id\t\t: {core}\n\n")
        };
        let cpuinfo = [one(0, 0), one(0, 1), one(0, 0), one(1, 0)].concat();
        assert_eq!(processors(&cpuinfo), (Ok("Xeon: 7".to_owned()), Ok(3), Ok(4)));
        let of_arm = "processor\t: 0\nCPU part\t: 0xd0c\n\nprocessor\t: 1\n";
        assert_eq!(processors(of_arm), (Err(Status::DoesNotExist), Err(Status::DoesNotExist), Ok(2)));
        assert_eq!(processors("# processors    : 4\nprocessor 0: version = FF\n").2, Ok(4));
        assert_eq!(processors(""), (Err(Status::DoesNotExist), Err(Status::DoesNotExist), Err(Status::DoesNotExist)));
    }

    #[test]
    fn memory_is_in_bytes_and_too_much_of_it_is_an_error() {
        assert_eq!(memory_bytes("MemTotal:       16384 kB\nMemFree: 1 kB\n"), Ok(16_777_216));
        assert_eq!(memory_bytes("MemTotal: 18446744073709551615 kB"), Err(Status::Error));
        assert_eq!(memory_bytes("MemTotal: many"), Err(Status::Error));
        assert_eq!(memory_bytes("MemFree: 1 kB"), Err(Status::DoesNotExist));
    }

    #[test]
    fn a_date_of_firmware_is_a_time() {
        assert_eq!(seconds_of("01/02/1970"), Some(86_400));
        assert_eq!(seconds_of("12/31/99"), Some(946_598_400));
        for broken in ["", "13/01/2020", "2/30/2020", "a/b/c", "1/1", "1/1/99999", "-1/1/2020"] {
            assert_eq!(seconds_of(broken), None, "{broken}");
        }
    }

    #[test]
    fn secure_boot_is_the_fifth_byte_of_the_variable() {
        let check = |variable: &str, expect: Known<bool>| {
            let (_root, host) = tree(&[(&SECURE_BOOT[1..], variable)]);
            assert_eq!(secure_boot(&host).unwrap(), expect, "{variable:?}");
        };
        check("\x06\0\0\0\x01", Ok(true));
        check("\x06\0\0\0\0", Ok(false));
        check("\x06\0\0\0\x02", Err(Status::Error));
        check("\x06\0\0\0", Err(Status::Error));
        check("", Err(Status::Error));
    }

    #[test]
    fn firmware_names_the_machine_and_else_the_device_tree() {
        let of_firmware = collect(&[
            ("sys/class/dmi/id/product_name", "PowerEdge R640\n"),
            ("sys/class/dmi/id/bios_date", "soon\n"),
            ("proc/device-tree/model", "Pi\0"),
        ]);
        let item = &of_firmware.items[0];
        assert_eq!(item.value("product"), Some("PowerEdge R640"));
        assert_eq!(item.named("bios_date").next().unwrap().status, Status::Error);
        assert_eq!(item.named("serial").next().unwrap().status, Status::DoesNotExist);
        let of_tree = collect(&[("proc/device-tree/model", "Raspberry Pi 4\0")]);
        assert_eq!(of_tree.items[0].value("product"), Some("Raspberry Pi 4"));
        assert_eq!(collect(&[]).flag, Flag::DoesNotExist);
    }
}
