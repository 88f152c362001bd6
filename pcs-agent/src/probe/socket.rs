//! `muster:socket`: what waits for others to begin: TCP sockets that listen and UDP sockets that are bound and not
//! connected, from `/proc/net`, with the process that holds each where it can be seen. `user_id` is the socket's
//! owner.

use std::collections::BTreeMap;

use oval::resolve::Query;
use proto::observation::{Collected, Item, Status};

use super::entities::{int, text};
use super::inetlisteningservers::{Holder, address, holders};
use super::{Probe, ProbeError, matching, text_of};
use crate::host::Host;

pub(crate) struct Socket;

/// Table, protocol, the kernel's number of the state (`TCP_LISTEN`, and `TCP_CLOSE` for want of one of UDP), its name
/// here.
const TABLES: [(&str, &str, &str, &str); 4] = [
    ("tcp", "tcp", "0A", "listening"),
    ("tcp6", "tcp", "0A", "listening"),
    ("udp", "udp", "07", "bound"),
    ("udp6", "udp", "07", "bound"),
];

impl Probe for Socket {
    const KIND: &'static str = "muster:socket";

    fn collect(host: &Host, query: &Query) -> Result<Collected, ProbeError> {
        let mut rows = Vec::new();
        for (table, protocol, number, state) in TABLES {
            let text = text_of(host, &format!("/proc/net/{table}"))?.unwrap_or_default();
            rows.extend(text.lines().skip(1).filter_map(|line| row(line, protocol, number, state)));
        }
        let holders = if rows.is_empty() { BTreeMap::new() } else { holders(host) };
        // Others' processes show what they hold to root alone.
        let is_all_seen = !host.is_live() || rustix::process::geteuid().is_root();
        let unheld = if is_all_seen { Status::DoesNotExist } else { Status::NotCollected };
        matching(rows.iter().map(|row| item(row, holders.get(&row.inode).ok_or(unheld))).collect(), query)
    }
}

struct Row {
    protocol: &'static str,
    state: &'static str,
    local: (String, u16),
    user_id: u32,
    inode: u64,
}

/// `sl local remote state queues timer retransmits uid timeout inode …`; of another state it is none of ours.
fn row(line: &str, protocol: &'static str, number: &str, state: &'static str) -> Option<Row> {
    let fields: Vec<&str> = line.split_whitespace().collect();
    if *fields.get(3)? != number {
        return None;
    }
    Some(Row {
        protocol,
        state,
        local: address(fields.get(1)?)?,
        user_id: fields.get(7)?.parse().ok()?,
        inode: fields.get(9)?.parse().ok()?,
    })
}

fn item(row: &Row, holder: Result<&Holder, Status>) -> Item {
    let entities = vec![
        text("protocol", Ok(row.protocol)),
        text("address", Ok(&row.local.0)),
        int("port", Ok(row.local.1)),
        text("state", Ok(row.state)),
        int("pid", holder.map(|holder| &holder.pid)),
        text("program", holder.map(|holder| &holder.name)),
        int("user_id", Ok(row.user_id)),
    ];
    Item::new(Socket::KIND, entities)
}

#[cfg(test)]
mod tests {
    use super::super::entities::fixture::{asked, query, tree, values};
    use super::*;
    use proto::observation::Flag;
    use proto::plan::{Datatype, Operation};

    const TCP: &str = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt uid timeout inode\n\
        0: 00000000:0016 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0 0 7001 1 0 100 0 0 10 0\n\
        1: 00000000:0016 00000000:1234 01 00000000:00000000 00:00000000 00000000     0 0 7002 1 0 20 4 30 10 -1\n";
    const UDP: &str = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt uid timeout inode\n\
        9: 00000000:0044 00000000:0000 07 00000000:00000000 00:00000000 00000000   101        0 7003 2 0 0\n\
        9: 00000000:0045 00000000:0035 01 00000000:00000000 00:00000000 00000000   101        0 7004 2 0 0\n";

    fn collect(entities: Vec<oval::resolve::QueryEntity>) -> Collected {
        let (root, host) = tree(&[("proc/net/tcp", TCP), ("proc/net/udp", UDP), ("proc/42/comm", "sshd\n")]);
        std::fs::create_dir_all(root.path().join("proc/42/fd")).unwrap();
        std::os::unix::fs::symlink("socket:[7001]", root.path().join("proc/42/fd/3")).unwrap();
        Socket::collect(&host, &query(Socket::KIND, entities)).unwrap()
    }

    #[test]
    fn only_what_waits_for_others_counts() {
        let items = collect(Vec::new()).items;
        assert_eq!(values(&items, "port"), ["22", "68"]);
        assert_eq!(values(&items, "state"), ["listening", "bound"]);
        assert_eq!(values(&items, "user_id"), ["0", "101"]);
    }

    #[test]
    fn the_process_that_holds_a_socket_is_named_where_there_is_one() {
        let items = collect(Vec::new()).items;
        assert_eq!((items[0].value("pid"), items[0].value("program")), (Some("42"), Some("sshd")));
        assert_eq!(items[1].named("pid").next().unwrap().status, Status::DoesNotExist);
    }

    #[test]
    fn ports_are_asked_for_as_numbers() {
        let port = |operation, value| {
            let mut port = asked("port", operation, value);
            port.datatype = Datatype::Int;
            collect(vec![asked("protocol", Operation::PatternMatch, ".*"), port])
        };
        assert_eq!(values(&port(Operation::LessThan, "023").items, "port"), ["22"]);
        assert_eq!(port(Operation::Equals, "443").flag, Flag::DoesNotExist);
    }

    #[test]
    fn damaged_tables_do_no_harm() {
        for end in 0..TCP.len() {
            let (_root, host) = tree(&[("proc/net/tcp", &TCP[..end])]);
            Socket::collect(&host, &query(Socket::KIND, Vec::new())).unwrap();
        }
    }
}
