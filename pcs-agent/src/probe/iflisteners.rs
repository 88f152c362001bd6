//! `linux:iflisteners`: programs with a packet socket that is bound to an interface, from `/proc/net/packet`, with the
//! process that holds each. As in `oscap`, a socket that is bound to no interface does not count.

use std::collections::BTreeMap;

use oval::resolve::Query;
use proto::observation::{Collected, Flag, Item, ItemEntity, Status};
use proto::plan::Datatype;

use super::inetlisteningservers::{Holder, holders};
use super::process58::{file_of, user_ids};
use super::{Probe, ProbeError, finish, text_of};
use crate::host::{Host, ReadError};

pub(crate) struct IfListeners;

const SOCKETS: &str = "/proc/net/packet";
const INTERFACES: &str = "/sys/class/net";

/// Protocols as the schema names them.
const PROTOCOLS: [(u16, &str); 50] = [
    (0x0001, "ETH_P_802_3"),
    (0x0002, "ETH_P_AX25"),
    (0x0003, "ETH_P_ALL"),
    (0x0004, "ETH_P_802_2"),
    (0x0005, "ETH_P_SNAP"),
    (0x0006, "ETH_P_DDCMP"),
    (0x0007, "ETH_P_WAN_PPP"),
    (0x0008, "ETH_P_PPP_MP"),
    (0x0009, "ETH_P_LOCALTALK"),
    (0x0010, "ETH_P_PPPTALK"),
    (0x0011, "ETH_P_TR_802_2"),
    (0x0015, "ETH_P_MOBITEX"),
    (0x0016, "ETH_P_CONTROL"),
    (0x0017, "ETH_P_IRDA"),
    (0x0018, "ETH_P_ECONET"),
    (0x0019, "ETH_P_HDLC"),
    (0x001a, "ETH_P_ARCNET"),
    (0x0060, "ETH_P_LOOP"),
    (0x0200, "ETH_P_PUP"),
    (0x0201, "ETH_P_PUPAT"),
    (0x0800, "ETH_P_IP"),
    (0x0805, "ETH_P_X25"),
    (0x0806, "ETH_P_ARP"),
    (0x08ff, "ETH_P_BPQ"),
    (0x0a00, "ETH_P_IEEEPUP"),
    (0x0a01, "ETH_P_IEEEPUPAT"),
    (0x6000, "ETH_P_DEC"),
    (0x6001, "ETH_P_DNA_DL"),
    (0x6002, "ETH_P_DNA_RC"),
    (0x6003, "ETH_P_DNA_RT"),
    (0x6004, "ETH_P_LAT"),
    (0x6005, "ETH_P_DIAG"),
    (0x6006, "ETH_P_CUST"),
    (0x6007, "ETH_P_SCA"),
    (0x8035, "ETH_P_RARP"),
    (0x809b, "ETH_P_ATALK"),
    (0x80f3, "ETH_P_AARP"),
    (0x8100, "ETH_P_8021Q"),
    (0x8137, "ETH_P_IPX"),
    (0x86dd, "ETH_P_IPV6"),
    (0x8809, "ETH_P_SLOW"),
    (0x883e, "ETH_P_WCCP"),
    (0x8847, "ETH_P_MPLS_UC"),
    (0x8848, "ETH_P_MPLS_MC"),
    (0x884c, "ETH_P_ATMMPOA"),
    (0x8863, "ETH_P_PPP_DISC"),
    (0x8864, "ETH_P_PPP_SES"),
    (0x8884, "ETH_P_ATMFATE"),
    (0x88a2, "ETH_P_AOE"),
    (0x88ca, "ETH_P_TIPC"),
];

impl Probe for IfListeners {
    const KIND: &'static str = "linux:iflisteners";

    fn collect(host: &Host, query: &Query) -> Result<Collected, ProbeError> {
        let Some(text) = text_of(host, SOCKETS)? else {
            // A kernel without packet sockets has no such table.
            return Ok(match host.stat("/proc/net") {
                Ok(_) => finish(Vec::new(), Vec::new()),
                Err(_) => Collected::nothing(Flag::NotApplicable, "needs a live system: there is no /proc/net"),
            });
        };
        let mut sockets = Vec::new();
        let mut is_broken = false;
        for line in text.lines().skip(1) {
            host.count_entry()?;
            match Socket::parse(line) {
                Some(socket) if socket.interface != 0 => sockets.push(socket),
                Some(_) => {}
                None => is_broken = true,
            }
        }
        let interfaces = if sockets.is_empty() { BTreeMap::new() } else { interfaces(host)? };
        let mut wanted = Vec::new();
        for socket in &sockets {
            // The interface may have gone since.
            let Some(interface) = interfaces.get(&socket.interface) else { continue };
            if query.entity("interface_name").map_or(Ok(true), |name| name.matches(&interface.name))? {
                wanted.push((socket, interface));
            }
        }
        let holders = if wanted.is_empty() { BTreeMap::new() } else { holders(host) };
        let mut items = Vec::new();
        for (socket, interface) in wanted {
            let holder = holders.get(&socket.inode);
            if holder.is_none() && host.is_live() && !rustix::process::geteuid().is_root() {
                return Err(ProbeError::Denied("/proc/<pid>/fd".to_owned()));
            }
            items.push(item(host, socket, interface, holder)?);
        }
        let mut collected = finish(items, Vec::new());
        if is_broken {
            collected.messages.push(format!("{SOCKETS}: a line is not in the form that the kernel gives it"));
            collected.flag = Flag::Error;
        }
        Ok(collected)
    }
}

#[derive(Debug, PartialEq, Eq)]
struct Socket {
    protocol: u16,
    /// Its interface's index; none is 0.
    interface: u32,
    inode: u64,
}

impl Socket {
    /// Address, references, type, protocol, interface, whether it runs, memory, user, inode.
    fn parse(line: &str) -> Option<Self> {
        let fields: Vec<&str> = line.split_ascii_whitespace().collect();
        let [_, _, _, protocol, interface, _, _, _, inode, ..] = fields.as_slice() else { return None };
        Some(Self {
            protocol: u16::from_str_radix(protocol, 16).ok()?,
            interface: interface.parse().ok()?,
            inode: inode.parse().ok()?,
        })
    }
}

struct Interface {
    name: String,
    hw_address: Option<String>,
}

/// The interfaces by their index.
fn interfaces(host: &Host) -> Result<BTreeMap<u32, Interface>, ProbeError> {
    let mut interfaces = BTreeMap::new();
    let Ok(entries) = host.read_dir(INTERFACES) else { return Ok(interfaces) };
    for entry in entries.filter_map(Result::ok) {
        host.count_entry()?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let said = |what: &str| match host.read_text(&format!("{INTERFACES}/{name}/{what}")) {
            Ok(text) => Ok(Some(text.trim().to_owned())),
            Err(ReadError::Cut(cut)) => Err(cut),
            // Not an interface, or gone since.
            Err(_) => Ok(None),
        };
        let Some(index) = said("ifindex")?.and_then(|index| index.parse().ok()) else { continue };
        let hw_address = said("address")?.filter(|address| !address.is_empty());
        interfaces.insert(index, Interface { name, hw_address });
    }
    Ok(interfaces)
}

fn item(host: &Host, socket: &Socket, interface: &Interface, holder: Option<&Holder>) -> Result<Item, ProbeError> {
    let text_or = |name: &str, value: Option<&str>, status| match value {
        Some(value) => ItemEntity::text(name, value),
        None => ItemEntity::without_value(name, Datatype::String, status),
    };
    let int_or_error = |name: &str, value: Option<String>| match value {
        Some(value) => ItemEntity::int(name, value),
        None => ItemEntity::without_value(name, Datatype::Int, Status::Error),
    };
    let protocol = PROTOCOLS.iter().find(|(number, _)| *number == socket.protocol).map(|(_, name)| *name);
    let entities = vec![
        ItemEntity::text("interface_name", &interface.name),
        text_or("protocol", protocol, Status::DoesNotExist),
        text_or("hw_address", interface.hw_address.as_deref(), Status::DoesNotExist),
        // Somebody holds it, somewhere that cannot be seen from here.
        text_or("program_name", holder.map(|holder| holder.name.as_str()), Status::Error),
        int_or_error("pid", holder.map(|holder| holder.pid.clone())),
        int_or_error("user_id", holder.map_or(Ok(None), |holder| user_id(host, holder))?),
    ];
    Ok(Item::new(IfListeners::KIND, entities))
}

/// The effective user: the owner of a process's directory is another one where it may not be dumped.
fn user_id(host: &Host, holder: &Holder) -> Result<Option<String>, ProbeError> {
    let Ok(pid) = holder.pid.parse() else { return Ok(None) };
    match file_of(host, pid, "status") {
        Ok(status) => {
            let ids = status.and_then(|status| user_ids(&String::from_utf8_lossy(&status)));
            Ok(ids.map(|(_, effective)| effective.to_string()))
        }
        Err(ReadError::Cut(cut)) => Err(cut.into()),
        Err(_) => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use oval::resolve::QueryEntity;
    use proto::plan::{Check, Operation};
    use std::os::unix::fs::symlink;

    const TABLE: &str = "sk               RefCnt Type Proto  Iface R Rmem   User   Inode\n\
                         00000000ebf9f40b 3      3    0003   4     1 0      0      101 \n\
                         000000008cd56dda 3      2    888e   1     1 0      0      102 \n\
                         00000000a26cb2c6 3      3    0003   0     1 0      0      103 \n\
                         00000000a26cb2c7 3      3    0800   9     1 0      0      101 \n";

    fn collect(table: &str, interface: &str) -> Collected {
        let root = tempfile::tempdir().unwrap();
        let write = |path: &str, content: &str| {
            let path = root.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, content).unwrap();
        };
        write("proc/net/packet", table);
        for (name, index, address) in [("eth0", "4\n", "02:fc:00:00:00:01\n"), ("lo", "1\n", ""), ("bad", "x", "")] {
            write(&format!("sys/class/net/{name}/ifindex"), index);
            write(&format!("sys/class/net/{name}/address"), address);
        }
        write("proc/41/comm", "dhclient\n");
        write("proc/41/status", "Name:\tdhclient\nUid:\t0\t7\t7\t7\n");
        std::fs::create_dir_all(root.path().join("proc/41/fd")).unwrap();
        symlink("socket:[101]", root.path().join("proc/41/fd/3")).unwrap();
        let entity = QueryEntity {
            name: "interface_name".to_owned(),
            operation: Operation::PatternMatch,
            datatype: Datatype::String,
            values: vec![interface.to_owned()],
            var_check: Check::All,
            is_nil: false,
        };
        let query = Query { kind: IfListeners::KIND.to_owned(), entities: vec![entity], behaviors: BTreeMap::new() };
        IfListeners::collect(&Host::new(root.path()), &query).unwrap_or_else(Collected::from)
    }

    #[test]
    fn a_socket_that_is_bound_to_an_interface_is_a_listener() {
        let collected = collect(TABLE, "^eth");
        let [item] = collected.items.as_slice() else { panic!("{collected:?}") };
        for (name, value) in [
            ("interface_name", "eth0"),
            ("protocol", "ETH_P_ALL"),
            ("hw_address", "02:fc:00:00:00:01"),
            ("program_name", "dhclient"),
            ("pid", "41"),
            ("user_id", "7"),
        ] {
            assert_eq!(item.value(name), Some(value), "{name}");
        }
    }

    #[test]
    fn a_socket_whose_holder_cannot_be_seen_is_reported_all_the_same() {
        let collected = collect(TABLE, "^lo$");
        let [item] = collected.items.as_slice() else { panic!("{collected:?}") };
        let statuses: Vec<Status> = item.entities.iter().map(|entity| entity.status).collect();
        let (absent, error) = (Status::DoesNotExist, Status::Error);
        assert_eq!(statuses, [Status::Exists, absent, absent, error, error, error]);
    }

    #[test]
    fn a_broken_line_is_an_error_beside_the_other_sockets() {
        let collected = collect(&format!("{TABLE}xyz\n"), ".*");
        assert_eq!((collected.flag, collected.items.len()), (Flag::Error, 2));
    }

    #[test]
    fn damaged_tables_never_panic() {
        for end in 0..TABLE.len() {
            collect(&TABLE[..end], ".*");
        }
    }
}
