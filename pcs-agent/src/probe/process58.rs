//! `unix:process58`: processes, from `/proc`, with `oscap`'s texts; threads of the kernel are left out.
//! Times of day are those of the endpoint's `/etc/localtime`.

use jiff::Timestamp;
use jiff::tz::TimeZone;
use oval::resolve::Query;
use proto::limits::ENTITY_VALUE_BYTES_MAX;
use proto::observation::{Collected, Flag, Item, ItemEntity, Status};
use proto::plan::Datatype;

use super::environmentvariable58::running;
use super::{Probe, ProbeError, finish, selinuxsecuritycontext, text_of};
use crate::host::{Host, ReadError};

pub(crate) struct Process58;

/// `USER_HZ`, the unit of times in `/proc`: 100 wherever this program runs.
const TICKS_PER_SECOND: u64 = 100;
/// `PF_KTHREAD` of a process's flags.
const KERNEL_THREAD: u64 = 0x0020_0000;

/// Capabilities in the order of their bits, as far as the schema names them.
const CAPABILITIES: [&str; 38] = [
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_DAC_READ_SEARCH",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETPCAP",
    "CAP_LINUX_IMMUTABLE",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_BROADCAST",
    "CAP_NET_ADMIN",
    "CAP_NET_RAW",
    "CAP_IPC_LOCK",
    "CAP_IPC_OWNER",
    "CAP_SYS_MODULE",
    "CAP_SYS_RAWIO",
    "CAP_SYS_CHROOT",
    "CAP_SYS_PTRACE",
    "CAP_SYS_PACCT",
    "CAP_SYS_ADMIN",
    "CAP_SYS_BOOT",
    "CAP_SYS_NICE",
    "CAP_SYS_RESOURCE",
    "CAP_SYS_TIME",
    "CAP_SYS_TTY_CONFIG",
    "CAP_MKNOD",
    "CAP_LEASE",
    "CAP_AUDIT_WRITE",
    "CAP_AUDIT_CONTROL",
    "CAP_SETFCAP",
    "CAP_MAC_OVERRIDE",
    "CAP_MAC_ADMIN",
    "CAP_SYSLOG",
    "CAP_WAKE_ALARM",
    "CAP_BLOCK_SUSPEND",
    "CAP_AUDIT_READ",
];

impl Probe for Process58 {
    const KIND: &'static str = "unix:process58";

    fn collect(host: &Host, query: &Query) -> Result<Collected, ProbeError> {
        let pids = processes(host);
        if pids.is_empty() {
            let reason = "needs a live system: there are no processes in /proc";
            return Ok(Collected::nothing(Flag::NotApplicable, reason));
        }
        let system = System::of(host)?;
        let mut items = Vec::new();
        let mut denied = None;
        let mut cut = None;
        for pid in pids {
            match look(host, query, &system, pid) {
                Ok(item) => items.extend(item),
                // One process that cannot be looked at hides no other one.
                Err(ProbeError::Broken(problem)) => items.push(broken(pid, problem)),
                Err(error @ ProbeError::Denied(_)) => denied = denied.or(Some(error)),
                Err(ProbeError::Cut(reason)) => {
                    cut = Some(reason);
                    break;
                }
                Err(error) => return Err(error),
            }
        }
        let mut collected = finish(items, Vec::new());
        if let Some(denied) = denied {
            collected.messages.push(denied.to_string());
            collected.flag = if collected.items.is_empty() { Flag::NotCollected } else { Flag::Incomplete };
        }
        if let Some(cut) = cut {
            collected.messages.push(cut.to_string());
            collected.flag = Flag::Incomplete;
        }
        Ok(collected)
    }
}

/// The ids of all processes, in order.
pub(super) fn processes(host: &Host) -> Vec<u32> {
    let mut pids: Vec<u32> = running(host).iter().filter_map(|pid| pid.parse().ok()).collect();
    pids.sort_unstable();
    pids
}

/// A file of a process; none where the process has ended.
pub(super) fn file_of(host: &Host, pid: u32, name: &str) -> Result<Option<Vec<u8>>, ReadError> {
    match host.read(&format!("/proc/{pid}/{name}")) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(ReadError::Absent) => Ok(None),
        Err(ReadError::Io(error)) if error.raw_os_error() == Some(rustix::io::Errno::SRCH.raw_os_error()) => Ok(None),
        Err(error) => Err(error),
    }
}

/// The real and the effective user of a process, from its `status`.
pub(super) fn user_ids(status: &str) -> Option<(u32, u32)> {
    let mut ids = field(status, "Uid")?.split_ascii_whitespace();
    Some((ids.next()?.parse().ok()?, ids.next()?.parse().ok()?))
}

fn field<'text>(status: &'text str, name: &str) -> Option<&'text str> {
    status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':').map(str::trim))
}

/// What is the same for all processes.
struct System {
    boot: Option<i64>,
    now: Timestamp,
    zone: TimeZone,
    drivers: String,
    is_selinux: bool,
}

impl System {
    fn of(host: &Host) -> Result<Self, ProbeError> {
        let stat = text_of(host, "/proc/stat")?.unwrap_or_default();
        let zone = match host.read("/etc/localtime") {
            Ok(bytes) => TimeZone::tzif("localtime", &bytes).unwrap_or(TimeZone::UTC),
            Err(ReadError::Cut(cut)) => return Err(cut.into()),
            Err(_) => TimeZone::UTC,
        };
        Ok(Self {
            boot: stat.lines().find_map(|line| line.strip_prefix("btime ")?.trim().parse().ok()),
            now: Timestamp::now(),
            zone,
            drivers: text_of(host, "/proc/tty/drivers")?.unwrap_or_default(),
            is_selinux: selinuxsecuritycontext::is_enabled(host),
        })
    }
}

/// `/proc/<pid>/stat`, as far as it is used.
#[derive(Debug, PartialEq, Eq)]
struct Stat {
    name: Vec<u8>,
    is_zombie: bool,
    is_of_kernel: bool,
    ppid: u32,
    session: i64,
    tty: i64,
    user_ticks: u64,
    system_ticks: u64,
    priority: i64,
    start_ticks: u64,
    policy: Option<u64>,
}

impl Stat {
    fn parse(text: &[u8]) -> Option<Self> {
        // The name may hold anything, brackets too: it goes from the first one to the last one.
        let open = text.iter().position(|byte| *byte == b'(')?;
        let close = text.iter().rposition(|byte| *byte == b')')?;
        let name = text.get(open.checked_add(1)?..close)?.to_vec();
        let rest = std::str::from_utf8(text.get(close.checked_add(1)?..)?).ok()?;
        let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
        // Numbered as in proc(5); the state is the third.
        let at = |number: usize| fields.get(number.checked_sub(3)?).copied();
        Some(Self {
            name,
            is_zombie: at(3)? == "Z",
            is_of_kernel: at(9)?.parse::<u64>().ok()? & KERNEL_THREAD != 0,
            ppid: at(4)?.parse().ok()?,
            session: at(6)?.parse().ok()?,
            tty: at(7)?.parse().ok()?,
            user_ticks: at(14)?.parse().ok()?,
            system_ticks: at(15)?.parse().ok()?,
            priority: at(18)?.parse().ok()?,
            start_ticks: at(22)?.parse().ok()?,
            policy: at(41).and_then(|policy| policy.parse().ok()),
        })
    }
}

fn look(host: &Host, query: &Query, system: &System, pid: u32) -> Result<Option<Item>, ProbeError> {
    host.count_entry()?;
    if !is_wanted(query, "pid", &pid.to_string())? {
        return Ok(None);
    }
    let problem = |name: &str, error: ReadError| match error {
        ReadError::Cut(cut) => ProbeError::Cut(cut),
        ReadError::Denied => ProbeError::Denied(format!("/proc/{pid}/{name}")),
        error => ProbeError::Broken(format!("/proc/{pid}/{name}: {error}")),
    };
    let Some(raw) = file_of(host, pid, "stat").map_err(|error| problem("stat", error))? else { return Ok(None) };
    let Some(stat) = Stat::parse(&raw) else {
        let problem = format!("/proc/{pid}/stat: it is not in the form that the kernel gives it");
        return Err(ProbeError::Broken(problem));
    };
    if stat.is_of_kernel {
        return Ok(None);
    }
    let arguments = file_of(host, pid, "cmdline").map_err(|error| problem("cmdline", error))?;
    let line = command_line(&stat, &arguments.unwrap_or_default());
    if !is_wanted(query, "command_line", &line)? {
        return Ok(None);
    }
    let Some(status) = file_of(host, pid, "status").map_err(|error| problem("status", error))? else {
        return Ok(None);
    };
    item(host, system, pid, &stat, line, &String::from_utf8_lossy(&status)).map(Some)
}

fn broken(pid: u32, problem: String) -> Item {
    let mut item = Item::new(Process58::KIND, vec![ItemEntity::int("pid", pid)]);
    item.status = Status::Error;
    item.message = Some(problem);
    item
}

fn is_wanted(query: &Query, name: &str, value: &str) -> Result<bool, ProbeError> {
    Ok(query.entity(name).map_or(Ok(true), |entity| entity.matches(value))?)
}

/// The arguments as `ps` shows them; the name where there are none.
fn command_line(stat: &Stat, arguments: &[u8]) -> String {
    let name = || shown(&stat.name);
    if stat.is_zombie {
        return format!("[{}] <defunct>", name());
    }
    let last = arguments.iter().rposition(|byte| *byte != 0).unwrap_or(0);
    arguments.get(..=last).map_or_else(name, shown)
}

fn shown(bytes: &[u8]) -> String {
    let shown = |byte: &u8| match byte {
        0 | b'\n' => ' ',
        0x20..=0x7e => char::from(*byte),
        _ => '.',
    };
    bytes.iter().map(shown).collect()
}

fn item(
    host: &Host,
    system: &System,
    pid: u32,
    stat: &Stat,
    mut line: String,
    status: &str,
) -> Result<Item, ProbeError> {
    // Every character of it is one byte.
    line.truncate(ENTITY_VALUE_BYTES_MAX);
    let ids = user_ids(status);
    let run = (stat.user_ticks / TICKS_PER_SECOND).saturating_add(stat.system_ticks / TICKS_PER_SECOND);
    let loginuid = file_of(host, pid, "loginuid").map(|raw| {
        let text = String::from_utf8_lossy(&raw.unwrap_or_default()).into_owned();
        text.trim().parse::<u32>().ok().map(|id| id.to_string())
    });
    let exec_shield = file_of(host, pid, "maps")
        .map(|raw| raw.map(|raw| is_exec_shielded(&String::from_utf8_lossy(&raw)).to_string()));
    let mut entities = vec![
        ItemEntity::text("command_line", line),
        ItemEntity::text("exec_time", clock(run)),
        ItemEntity::int("pid", pid),
        ItemEntity::int("ppid", stat.ppid),
        ItemEntity::int("priority", stat.priority),
        entity("ruid", Datatype::Int, Ok(ids.map(|(real, _)| real.to_string())))?,
        ItemEntity::text("scheduling_class", scheduling_class(stat.policy)),
        entity("start_time", Datatype::String, Ok(started(system, stat.start_ticks)))?,
        ItemEntity::text("tty", tty(host, &system.drivers, stat.tty)),
        entity("user_id", Datatype::Int, Ok(ids.map(|(_, effective)| effective.to_string())))?,
        entity("exec_shield", Datatype::Boolean, exec_shield)?,
        entity("loginuid", Datatype::Int, loginuid)?,
    ];
    entities.extend(capabilities(status));
    let label = if system.is_selinux { selinuxsecuritycontext::label_of(host, pid) } else { Ok(None) };
    let domain = label.map(|label| {
        let context = selinuxsecuritycontext::Context::parse(&label?)?;
        Some(context.domain)
    });
    entities.push(entity("selinux_domain_label", Datatype::String, domain)?);
    entities.push(ItemEntity::int("session_id", stat.session));
    Ok(Item::new(Process58::KIND, entities))
}

/// An entity that may not be there, or may not be read.
fn entity(name: &str, datatype: Datatype, value: Result<Option<String>, ReadError>) -> Result<ItemEntity, ProbeError> {
    match value {
        Ok(Some(value)) => Ok(ItemEntity::new(name, datatype, value)),
        Ok(None) => Ok(ItemEntity::without_value(name, datatype, Status::DoesNotExist)),
        Err(ReadError::Cut(cut)) => Err(cut.into()),
        Err(_) => Ok(ItemEntity::without_value(name, datatype, Status::Error)),
    }
}

/// `[DD-]HH:MM:SS`.
fn clock(seconds: u64) -> String {
    let (days, rest) = (seconds / 86_400, seconds % 86_400);
    let time = format!("{:02}:{:02}:{:02}", rest / 3_600, rest / 60 % 60, rest % 60);
    if days == 0 { time } else { format!("{days}-{time}") }
}

/// The time of day of a process that started today, the day of an older one.
fn started(system: &System, ticks: u64) -> Option<String> {
    let second = system.boot?.checked_add(i64::try_from(ticks / TICKS_PER_SECOND).ok()?)?;
    let start = Timestamp::from_second(second).ok()?.to_zoned(system.zone.clone());
    let is_today = start.date() == system.now.to_zoned(system.zone.clone()).date();
    Some(start.strftime(if is_today { "%H:%M:%S" } else { "%b_%d" }).to_string())
}

/// As `ps` spells the policies; those that `oscap` does not know are `?`.
fn scheduling_class(policy: Option<u64>) -> &'static str {
    match policy {
        Some(0) => "TS",
        Some(1) => "FF",
        Some(2) => "RR",
        Some(3) => "B",
        Some(5) => "#5",
        _ => "?",
    }
}

/// The terminal's name below `/dev`; `?` without one.
fn tty(host: &Host, drivers: &str, number: i64) -> String {
    let Ok(number) = u32::try_from(number) else { return "?".to_owned() };
    let (major, minor) = ((number >> 8) & 0xfff, (number & 0xff) | ((number >> 12) & 0xf_ff00));
    let name = match (major, minor) {
        (0, _) => None,
        (4, 0..=63) => Some(format!("tty{minor}")),
        (4, _) => Some(format!("ttyS{}", minor - 64)),
        (5, 1) => Some("console".to_owned()),
        (136..=143, _) => Some(format!("pts/{}", minor + (major - 136) * 256)),
        _ => drivers.lines().find_map(|line| driven(host, line, (major, minor))),
    };
    name.unwrap_or_else(|| "?".to_owned())
}

/// The device's name, where this line of `/proc/tty/drivers` is that of its driver and the device is there.
fn driven(host: &Host, line: &str, (major, minor): (u32, u32)) -> Option<String> {
    use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
    // What stands before the path is a driver's name, with or without spaces.
    let (base, rest) = line.split_once(" /dev/")?.1.split_once(' ')?;
    let mut fields = rest.split_ascii_whitespace();
    let driven: u32 = fields.next()?.parse().ok()?;
    let range = fields.next()?;
    let (first, last) = range.split_once('-').unwrap_or((range, range));
    let (first, last): (u32, u32) = (first.parse().ok()?, last.parse().ok()?);
    if driven != major || !(first..=last).contains(&minor) {
        return None;
    }
    let is_it = |name: &String| {
        host.stat(&format!("/dev/{name}")).is_ok_and(|metadata| {
            let device = metadata.rdev();
            metadata.file_type().is_char_device()
                && rustix::fs::major(device) == major
                && rustix::fs::minor(device) == minor
        })
    };
    [format!("{base}{}", minor.checked_sub(first)?), format!("{base}{minor}"), base.to_owned()].into_iter().find(is_it)
}

/// The rule of `oscap`: the last writable mapping without a name decides; one with code and an offset is no shield.
fn is_exec_shielded(maps: &str) -> bool {
    let mut unnamed = maps.lines().filter_map(|line| {
        let fields: Vec<&str> = line.split_ascii_whitespace().collect();
        let [_, permissions, offset, _, _] = fields.as_slice() else { return None };
        let is_executable = permissions.strip_prefix("rw")?.starts_with('x');
        Some(!(is_executable && offset.bytes().any(|digit| digit != b'0')))
    });
    unnamed.next_back().unwrap_or(false)
}

/// The effective capabilities that the schema has names for.
fn capabilities(status: &str) -> Vec<ItemEntity> {
    const NAME: &str = "posix_capability";
    let Some(bits) = field(status, "CapEff").and_then(|bits| u64::from_str_radix(bits, 16).ok()) else {
        return vec![ItemEntity::without_value(NAME, Datatype::String, Status::Error)];
    };
    let held: Vec<ItemEntity> = CAPABILITIES
        .iter()
        .enumerate()
        .filter(|(bit, _)| (bits >> bit) & 1 == 1)
        .map(|(_, capability)| ItemEntity::text(NAME, *capability))
        .collect();
    if held.is_empty() { vec![ItemEntity::without_value(NAME, Datatype::String, Status::DoesNotExist)] } else { held }
}

#[cfg(test)]
mod tests {
    use super::*;
    use oval::resolve::QueryEntity;
    use proto::plan::{Check, Operation};

    const STAT: &str = "41 (a) b (c) S 1 41 40 34816 41 4194304 1 0 0 0 8640123 250 0 0 20 0 1 0 12345 1 2 \
                        18446744073709551615 1 1 0 0 0 0 0 0 0 0 0 0 17 0 0 1 0 0 0 0 0 0 0 0 0 0 0\n";
    const STATUS: &str = "Name:\ta\nUid:\t1000\t0\t0\t0\nCapEff:\t0000000000100001\n";

    fn write(root: &std::path::Path, path: &str, content: &[u8]) {
        let path = root.join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
    }

    fn tree() -> (tempfile::TempDir, Host) {
        let root = tempfile::tempdir().unwrap();
        let at = |path: &str, content: &[u8]| write(root.path(), path, content);
        at("proc/stat", b"cpu 1\nbtime 1000000000\n");
        at("proc/41/stat", STAT.as_bytes());
        at("proc/41/status", STATUS.as_bytes());
        at("proc/41/cmdline", b"/bin/a\0--b\n\xff\0\0");
        at("proc/41/maps", b"1-2 rw-p 00000000 00:00 0\n3-4 r-xp 00001000 08:01 7 /bin/a\n");
        at("proc/41/loginuid", b"1000");
        at("proc/42/stat", STAT.replace("4194304", "2097216").as_bytes());
        at("proc/43/stat", b"43 (x) S 1");
        let host = Host::new(root.path());
        (root, host)
    }

    fn entity(name: &str, operation: Operation, datatype: Datatype, value: &str) -> QueryEntity {
        let (name, values) = (name.to_owned(), vec![value.to_owned()]);
        QueryEntity { name, operation, datatype, values, var_check: Check::All, is_nil: false }
    }

    fn collect(host: &Host, entities: Vec<QueryEntity>) -> Collected {
        let query = Query { kind: Process58::KIND.to_owned(), entities, behaviors: std::collections::BTreeMap::new() };
        Process58::collect(host, &query).unwrap_or_else(Collected::from)
    }

    #[test]
    fn a_process_is_what_its_files_say() {
        let (_root, host) = tree();
        let collected = collect(&host, vec![entity("pid", Operation::Equals, Datatype::Int, "41")]);
        let [item] = collected.items.as_slice() else { panic!("{collected:?}") };
        for (name, value) in [
            ("command_line", "/bin/a --b ."),
            ("exec_time", "1-00:00:03"),
            ("pid", "41"),
            ("ppid", "1"),
            ("priority", "20"),
            ("ruid", "1000"),
            ("scheduling_class", "FF"),
            ("start_time", "Sep_09"),
            ("tty", "pts/0"),
            ("user_id", "0"),
            ("exec_shield", "true"),
            ("loginuid", "1000"),
            ("session_id", "40"),
        ] {
            assert_eq!(item.value(name), Some(value), "{name}");
        }
        let held: Vec<_> = item.named("posix_capability").filter_map(|held| held.value.as_deref()).collect();
        assert_eq!(held, ["CAP_CHOWN", "CAP_SYS_PACCT"]);
        let label = item.named("selinux_domain_label").next().unwrap();
        assert_eq!(label.status, Status::DoesNotExist);
    }

    #[test]
    fn threads_of_the_kernel_are_left_out_and_what_cannot_be_read_is_an_error() {
        let (_root, host) = tree();
        let collected = collect(&host, Vec::new());
        assert_eq!(collected.flag, Flag::Error);
        let pids: Vec<_> = collected.items.iter().filter_map(|item| item.value("pid")).collect();
        assert_eq!(pids, ["41", "43"]);
        assert_eq!(collected.items[1].status, Status::Error);
        let line = entity("command_line", Operation::PatternMatch, Datatype::String, "^/bin/a ");
        assert_eq!(collect(&host, vec![line]).items.len(), 2);
    }

    #[test]
    fn without_processes_the_question_makes_no_sense() {
        let root = tempfile::tempdir().unwrap();
        assert_eq!(collect(&Host::new(root.path()), Vec::new()).flag, Flag::NotApplicable);
    }

    #[test]
    fn damaged_files_of_a_process_never_panic() {
        for end in 0..STAT.len() {
            drop(Stat::parse(&STAT.as_bytes()[..end]));
        }
        for at in 0..STAT.len() {
            let mut flipped = STAT.as_bytes().to_vec();
            flipped[at] ^= 0x15;
            drop(Stat::parse(&flipped));
        }
        for huge in ["18446744073709551615", "-9223372036854775808", "99999999999999999999999"] {
            let (root, host) = tree();
            write(root.path(), "proc/41/stat", STAT.replace("12345", huge).replace("34816", huge).as_bytes());
            write(root.path(), "proc/stat", format!("btime {huge}\n").as_bytes());
            assert_eq!(collect(&host, Vec::new()).items.len(), 2);
        }
    }

    #[test]
    fn a_line_without_arguments_is_the_name() {
        let mut stat = Stat::parse(STAT.as_bytes()).unwrap();
        assert_eq!(command_line(&stat, b""), "a) b (c");
        stat.is_zombie = true;
        assert_eq!(command_line(&stat, b"/bin/a\0"), "[a) b (c] <defunct>");
    }

    #[test]
    fn a_writable_mapping_with_code_at_an_offset_is_no_shield() {
        let check = |maps: &str, expect: bool| assert_eq!(is_exec_shielded(maps), expect, "{maps}");
        check("1-2 rwxp 00001000 00:00 0\n", false);
        check("1-2 rwxp 00000000 00:00 0\n", true);
        check("1-2 rwxp 00001000 00:00 0\n1-2 rw-p 00000000 00:00 0\n", true);
        check("1-2 rw-p 00000000 00:00 0 [heap]\n", false);
        check("", false);
    }

    #[test]
    fn terminals_are_named_by_their_number() {
        let root = tempfile::tempdir().unwrap();
        let host = Host::new(root.path());
        let check = |number: i64, expect: &str| {
            assert_eq!(tty(&host, "usb /dev/ttyUSB 188 0-511 serial\n", number), expect, "{number}");
        };
        check(0, "?");
        check(-1, "?");
        check((4 << 8) + 1, "tty1");
        check((4 << 8) + 64, "ttyS0");
        check((136 << 8) + 5 + (1 << 20), "pts/261");
        check(188 << 8, "?");
    }
}
