//! `unix:routingtable`: routes, from `/proc/net/route` and `/proc/net/ipv6_route`. Destinations are prefixes, as the
//! schema has them; an object that asks with an address alone means the destination's address.

use std::net::{Ipv4Addr, Ipv6Addr};

use oval::resolve::{Query, QueryEntity};
use proto::observation::{Collected, Flag, Item, ItemEntity, Status};
use proto::plan::Datatype;

use super::{Probe, ProbeError, finish, text_of};
use crate::host::Host;

pub(crate) struct RoutingTable;

const V4: &str = "/proc/net/route";
const V6: &str = "/proc/net/ipv6_route";

/// `RTF_*` by their names in the schema, as far as the kernel sets them.
const FLAGS: [(u32, &str); 10] = [
    (0x0001, "UP"),
    (0x0002, "GATEWAY"),
    (0x0004, "HOST"),
    (0x0008, "REINSTATE"),
    (0x0010, "DYNAMIC"),
    (0x0020, "MODIFIED"),
    (0x0004_0000, "ADDRCONF"),
    (0x0100_0000, "CACHE"),
    (0x0200, "REJECT"),
    (0x8000_0000, "LOCAL"),
];
/// The flags that a route of IPv4 has: those above are of IPv6.
const V4_FLAGS: u32 = 0xffff;

impl Probe for RoutingTable {
    const KIND: &'static str = "unix:routingtable";

    fn collect(host: &Host, query: &Query) -> Result<Collected, ProbeError> {
        if host.stat("/proc/net").is_err() {
            return Ok(Collected::nothing(Flag::NotApplicable, "needs a live system: there is no /proc/net"));
        }
        let destination = query.entity("destination").filter(|destination| !destination.is_nil);
        let datatype = destination.map(|destination| destination.datatype);
        let mut routes = Vec::new();
        let mut broken = None;
        if datatype != Some(Datatype::Ipv6Address) {
            let text = text_of(host, V4)?.unwrap_or_default();
            read(host, V4, text.lines().skip(1), v4, &mut routes, &mut broken)?;
        }
        if datatype != Some(Datatype::Ipv4Address) {
            let text = text_of(host, V6)?.unwrap_or_default();
            read(host, V6, text.lines(), v6, &mut routes, &mut broken)?;
        }
        let mut items = Vec::new();
        for route in routes {
            host.count_entry()?;
            if destination.map_or(Ok(true), |destination| route.is_wanted(destination))? {
                items.push(route.item());
            }
        }
        let mut collected = finish(items, Vec::new());
        if let Some(broken) = broken {
            collected.messages.push(broken);
            collected.flag = Flag::Error;
        }
        Ok(collected)
    }
}

/// A line of one of the tables.
#[derive(Debug, PartialEq, Eq)]
struct Route {
    datatype: Datatype,
    address: String,
    prefix: u32,
    gateway: String,
    flags: u32,
    interface: String,
}

fn read<'text>(
    host: &Host,
    path: &str,
    lines: impl Iterator<Item = &'text str>,
    parse: fn(&str) -> Option<Route>,
    routes: &mut Vec<Route>,
    broken: &mut Option<String>,
) -> Result<(), ProbeError> {
    for line in lines.filter(|line| !line.trim().is_empty()) {
        host.count_entry()?;
        match parse(line) {
            Some(route) => routes.push(route),
            None => *broken = Some(format!("{path}: a line is not in the form that the kernel gives it")),
        }
    }
    Ok(())
}

/// Interface, destination, gateway, flags, three counters, mask: addresses are words in the machine's byte order.
fn v4(line: &str) -> Option<Route> {
    let fields: Vec<&str> = line.split_ascii_whitespace().collect();
    let [interface, destination, gateway, flags, _, _, _, mask, ..] = fields.as_slice() else { return None };
    let word = |text: &str| u32::from_str_radix(text, 16).ok().map(u32::to_ne_bytes);
    let mask = u32::from_be_bytes(word(mask)?);
    let prefix = mask.leading_ones();
    // A mask with holes is no prefix.
    (mask.count_ones() == prefix).then_some(())?;
    Some(Route {
        datatype: Datatype::Ipv4Address,
        address: Ipv4Addr::from(word(destination)?).to_string(),
        prefix,
        gateway: Ipv4Addr::from(word(gateway)?).to_string(),
        flags: u32::from_str_radix(flags, 16).ok()? & V4_FLAGS,
        interface: (*interface).to_owned(),
    })
}

/// Destination and its prefix's length, source and its prefix's length, gateway, three counters, flags, interface.
fn v6(line: &str) -> Option<Route> {
    let fields: Vec<&str> = line.split_ascii_whitespace().collect();
    let [destination, prefix, _, _, gateway, _, _, _, flags, interface] = fields.as_slice() else { return None };
    let address = |text: &str| {
        (text.len() == 32)
            .then(|| u128::from_str_radix(text, 16).ok())
            .flatten()
            .map(|bits| Ipv6Addr::from(bits).to_string())
    };
    let prefix = u32::from_str_radix(prefix, 16).ok().filter(|prefix| *prefix <= 128)?;
    Some(Route {
        datatype: Datatype::Ipv6Address,
        address: address(destination)?,
        prefix,
        gateway: address(gateway)?,
        flags: u32::from_str_radix(flags, 16).ok()?,
        interface: (*interface).to_owned(),
    })
}

impl Route {
    fn destination(&self) -> String {
        format!("{}/{}", self.address, self.prefix)
    }

    fn is_wanted(&self, destination: &QueryEntity) -> Result<bool, ProbeError> {
        let is_of_addresses = destination.datatype != Datatype::String;
        let is_by_address = is_of_addresses && destination.values.iter().all(|value| !value.contains('/'));
        Ok(if is_by_address { destination.matches(&self.address) } else { destination.matches(&self.destination()) }?)
    }

    fn item(&self) -> Item {
        let mut entities = vec![
            ItemEntity::new("destination", self.datatype, self.destination()),
            ItemEntity::new("gateway", self.datatype, &self.gateway),
        ];
        let named = FLAGS.iter().filter(|(flag, _)| self.flags & flag != 0);
        entities.extend(named.map(|(_, name)| ItemEntity::text("flags", *name)));
        if entities.len() == 2 {
            entities.push(ItemEntity::without_value("flags", Datatype::String, Status::DoesNotExist));
        }
        entities.push(ItemEntity::text("interface_name", &self.interface));
        Item::new(RoutingTable::KIND, entities)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proto::plan::{Check, Operation};

    const V4_TABLE: &str = "Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\tMTU\tWindow\tIRTT\n\
                            eth0\tZERO\tGATE\t0003\t0\t0\t0\tZERO\t0\t0\t0   \n\
                            eth0\tNET\tZERO\t0001\t0\t0\t0\tMASK\t0\t0\t0   \n";
    const V6_TABLE: &str = "\
         fe800000000000000000000000000000 40 00000000000000000000000000000000 00 00000000000000000000000000000000 \
         00000100 00000001 00000000 00000001     eth0\n\
         00000000000000000000000000000001 80 00000000000000000000000000000000 00 00000000000000000000000000000000 \
         00000000 00000002 00000000 80200001       lo\n";

    /// The table as a kernel of this byte order writes it.
    fn v4_table() -> String {
        let word = |address: [u8; 4]| format!("{:08X}", u32::from_ne_bytes(address));
        V4_TABLE
            .replace("ZERO", "00000000")
            .replace("GATE", &word([192, 0, 2, 1]))
            .replace("NET", &word([192, 0, 2, 0]))
            .replace("MASK", &word([255, 255, 255, 0]))
    }

    fn collect(v4: &str, v6: &str, asked: Option<(Datatype, Operation, &str)>) -> Collected {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(root.path().join("proc/net")).unwrap();
        std::fs::write(root.path().join("proc/net/route"), v4).unwrap();
        std::fs::write(root.path().join("proc/net/ipv6_route"), v6).unwrap();
        let entity = asked.map(|(datatype, operation, value)| QueryEntity {
            name: "destination".to_owned(),
            operation,
            datatype,
            values: vec![value.to_owned()],
            var_check: Check::All,
            is_nil: false,
        });
        let query = Query {
            kind: RoutingTable::KIND.to_owned(),
            entities: entity.into_iter().collect(),
            behaviors: std::collections::BTreeMap::new(),
        };
        RoutingTable::collect(&Host::new(root.path()), &query).unwrap_or_else(Collected::from)
    }

    fn destinations(collected: &Collected) -> Vec<&str> {
        collected.items.iter().filter_map(|item| item.value("destination")).collect()
    }

    fn flags(item: &Item) -> Vec<&str> {
        item.named("flags").filter_map(|flag| flag.value.as_deref()).collect()
    }

    #[test]
    fn routes_of_both_families_are_read() {
        let collected = collect(&v4_table(), V6_TABLE, None);
        assert_eq!(collected.flag, Flag::Complete);
        assert_eq!(destinations(&collected), ["0.0.0.0/0", "192.0.2.0/24", "fe80::/64", "::1/128"]);
        let first = &collected.items[0];
        assert_eq!((first.value("gateway"), first.value("interface_name")), (Some("192.0.2.1"), Some("eth0")));
        assert_eq!(flags(first), ["UP", "GATEWAY"]);
        assert_eq!(flags(&collected.items[3]), ["UP", "LOCAL"]);
        assert_eq!(collected.items[3].value("interface_name"), Some("lo"));
    }

    #[test]
    fn an_object_asks_for_an_address_or_for_a_prefix() {
        use Operation::{Equals, GreaterThan, PatternMatch, SubsetOf};
        let check = |asked, expect: &[&str]| {
            assert_eq!(destinations(&collect(&v4_table(), V6_TABLE, Some(asked))), expect, "{asked:?}");
        };
        check((Datatype::Ipv4Address, Equals, "0.0.0.0"), &["0.0.0.0/0"]);
        check((Datatype::Ipv4Address, Equals, "192.0.2.0/24"), &["192.0.2.0/24"]);
        check((Datatype::Ipv4Address, Equals, "192.0.2.0/25"), &[]);
        check((Datatype::Ipv4Address, SubsetOf, "192.0.0.0/16"), &["192.0.2.0/24"]);
        check((Datatype::Ipv4Address, GreaterThan, "10.0.0.0"), &["192.0.2.0/24"]);
        check((Datatype::Ipv6Address, Equals, "fe80::"), &["fe80::/64"]);
        check((Datatype::String, PatternMatch, "^(0|::)"), &["0.0.0.0/0", "::1/128"]);
    }

    #[test]
    fn a_broken_line_is_an_error_beside_the_other_routes() {
        let collected = collect(&v4_table(), &format!("xyz\n{V6_TABLE}"), None);
        assert_eq!((collected.flag, collected.items.len()), (Flag::Error, 4));
        let holes = v4_table().replace(&format!("{:08X}", u32::from_ne_bytes([255, 255, 255, 0])), "00FF00FF");
        assert_eq!(collect(&holes, "", None).flag, Flag::Error);
    }

    #[test]
    fn damaged_tables_never_panic() {
        let table = v4_table();
        for end in 0..table.len() {
            collect(&table[..end], &V6_TABLE[..end.min(V6_TABLE.len())], None);
        }
        for at in 0..V6_TABLE.len() {
            let mut flipped = V6_TABLE.as_bytes().to_vec();
            flipped[at] ^= 0x15;
            collect("", &String::from_utf8_lossy(&flipped), None);
        }
    }

    #[test]
    fn without_the_kernels_tables_the_question_makes_no_sense() {
        let root = tempfile::tempdir().unwrap();
        let (kind, behaviors) = (RoutingTable::KIND.to_owned(), std::collections::BTreeMap::new());
        let query = Query { kind, entities: Vec::new(), behaviors };
        assert_eq!(RoutingTable::collect(&Host::new(root.path()), &query).unwrap().flag, Flag::NotApplicable);
    }
}
