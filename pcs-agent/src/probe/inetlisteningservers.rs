//! `linux:inetlisteningservers`: sockets of the internet families, from `/proc/net`, with the process
//! that holds each where it can be seen. As in `oscap`, every socket counts, not only listening ones.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Ipv6Addr};

use oval::resolve::Query;
use proto::observation::{Collected, Item, ItemEntity};

use super::environmentvariable58::running;
use super::{Probe, ProbeError, matching, text_of};
use crate::host::Host;

pub(crate) struct InetListeningServers;

const TABLES: [(&str, &str); 6] =
    [("tcp", "tcp"), ("tcp6", "tcp"), ("udp", "udp"), ("udp6", "udp"), ("raw", "raw"), ("raw6", "raw")];

impl Probe for InetListeningServers {
    const KIND: &'static str = "linux:inetlisteningservers";

    fn collect(host: &Host, query: &Query) -> Result<Collected, ProbeError> {
        let mut sockets = Vec::new();
        for (table, protocol) in TABLES {
            let text = text_of(host, &format!("/proc/net/{table}"))?.unwrap_or_default();
            sockets.extend(text.lines().skip(1).filter_map(|line| socket(protocol, line)));
        }
        let holders = if sockets.is_empty() { BTreeMap::new() } else { holders(host) };
        let items = sockets.iter().map(|socket| item(socket, holders.get(&socket.inode))).collect();
        matching(items, query)
    }
}

struct Socket {
    protocol: &'static str,
    local: (String, u16),
    foreign: (String, u16),
    inode: u64,
}

pub(super) struct Holder {
    pub(super) pid: String,
    pub(super) name: String,
    user_id: u32,
}

fn socket(protocol: &'static str, line: &str) -> Option<Socket> {
    let fields: Vec<&str> = line.split_whitespace().collect();
    Some(Socket {
        protocol,
        local: address(fields.get(1)?)?,
        foreign: address(fields.get(2)?)?,
        inode: fields.get(9)?.parse().ok()?,
    })
}

/// `0100007F:1F90` is 127.0.0.1 port 8080: words in the machine's byte order, then the port.
pub(super) fn address(text: &str) -> Option<(String, u16)> {
    let (address, port) = text.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    let words: Vec<[u8; 4]> = (0..address.len() / 8)
        .map(|at| u32::from_str_radix(address.get(at * 8..at * 8 + 8)?, 16).ok().map(u32::to_ne_bytes))
        .collect::<Option<_>>()?;
    let address = match words.as_slice() {
        [only] => Ipv4Addr::from(*only).to_string(),
        [_, _, _, _] => Ipv6Addr::from(<[u8; 16]>::try_from(words.concat()).ok()?).to_string(),
        _ => return None,
    };
    Some((address, port))
}

/// Which process holds which socket. Processes that cannot be looked into are passed over.
pub(super) fn holders(host: &Host) -> BTreeMap<u64, Holder> {
    use std::os::unix::fs::MetadataExt as _;
    let mut holders = BTreeMap::new();
    for pid in running(host) {
        let Ok(base) = host.locate_followed(&format!("/proc/{pid}")) else { continue };
        let Ok(descriptors) = std::fs::read_dir(base.join("fd")) else { continue };
        for descriptor in descriptors.filter_map(Result::ok) {
            let Ok(target) = std::fs::read_link(descriptor.path()) else { continue };
            let target = target.to_string_lossy();
            let inode = target
                .strip_prefix("socket:[")
                .and_then(|rest| rest.strip_suffix(']'))
                .and_then(|inode| inode.parse().ok());
            if let Some(inode) = inode {
                let name = host.read_text(&format!("/proc/{pid}/comm")).unwrap_or_default().trim_end().to_owned();
                let user_id = std::fs::metadata(&base).map(|metadata| metadata.uid()).unwrap_or_default();
                holders.insert(inode, Holder { pid: pid.clone(), name, user_id });
            }
        }
    }
    holders
}

fn item(socket: &Socket, holder: Option<&Holder>) -> Item {
    let mut entities = vec![
        ItemEntity::text("protocol", socket.protocol),
        ItemEntity::text("local_address", &socket.local.0),
        ItemEntity::int("local_port", socket.local.1),
        ItemEntity::text("local_full_address", format!("{}:{}", socket.local.0, socket.local.1)),
    ];
    entities.extend(holder.map(|holder| ItemEntity::text("program_name", &holder.name)));
    entities.push(ItemEntity::text("foreign_address", &socket.foreign.0));
    entities.push(ItemEntity::int("foreign_port", socket.foreign.1));
    entities.push(ItemEntity::text("foreign_full_address", format!("{}:{}", socket.foreign.0, socket.foreign.1)));
    if let Some(holder) = holder {
        entities.push(ItemEntity::int("pid", &holder.pid));
        entities.push(ItemEntity::int("user_id", holder.user_id));
    }
    Item::new(InetListeningServers::KIND, entities)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_proc_net_are_read() {
        assert_eq!(address("0100007F:1F90"), Some(("127.0.0.1".to_owned(), 8080)));
        assert_eq!(address("00000000000000000000000001000000:0016"), Some(("::1".to_owned(), 22)));
        assert_eq!(address("xyz"), None);
        assert_eq!(address("010000:0016"), None);
    }
}
