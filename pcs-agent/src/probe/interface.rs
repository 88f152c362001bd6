//! `unix:interface`: network interfaces and their addresses, from the kernel's own tables (rtnetlink), only read.
//! There is one item for each address, as in `oscap`, and one for each interface that has none.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use oval::resolve::Query;
use proto::observation::{Collected, Flag, Item, ItemEntity, Status};
use proto::plan::Datatype;
use rustix::io::Errno;
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, send, socket_with};

use super::{Probe, ProbeError, matching};
use crate::host::Host;

pub(crate) struct Interface;

/// `IFF_*` as the interface's flags are named.
const FLAGS: [(u32, &str); 16] = [
    (0x0001, "UP"),
    (0x0002, "BROADCAST"),
    (0x0004, "DEBUG"),
    (0x0008, "LOOPBACK"),
    (0x0010, "POINTOPOINT"),
    (0x0020, "NOTRAILERS"),
    (0x0040, "RUNNING"),
    (0x0080, "NOARP"),
    (0x0100, "PROMISC"),
    (0x0200, "ALLMULTI"),
    (0x0400, "MASTER"),
    (0x0800, "SLAVE"),
    (0x1000, "MULTICAST"),
    (0x2000, "PORTSEL"),
    (0x4000, "AUTOMEDIA"),
    (0x8000, "DYNAMIC"),
];
const IFF_BROADCAST: u32 = 0x0002;

/// `ARPHRD_*` as far as the schema names them.
const TYPES: [(u16, &str); 7] = [
    (1, "ARPHRD_ETHER"),
    (4, "ARPHRD_PRONET"),
    (256, "ARPHRD_SLIP"),
    (512, "ARPHRD_PPP"),
    (772, "ARPHRD_LOOPBACK"),
    (774, "ARPHRD_FDDI"),
    (0xffff, "ARPHRD_VOID"),
];

// rtnetlink(7), netlink(7).
const RTM_NEWLINK: u16 = 16;
const RTM_GETLINK: u16 = 18;
const RTM_NEWADDR: u16 = 20;
const RTM_GETADDR: u16 = 22;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const NLM_F_REQUEST: u16 = 0x0001;
const NLM_F_DUMP: u16 = 0x0300;
const NLM_F_DUMP_INTR: u16 = 0x0010;
const HEADER_BYTES: usize = 16;
const IFLA_ADDRESS: u16 = 1;
const IFLA_IFNAME: u16 = 3;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const IFA_LABEL: u16 = 3;
const IFA_BROADCAST: u16 = 4;
const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;
/// The body of a question for links, `struct ifinfomsg`, and of one for addresses, `struct ifaddrmsg`.
const LINK_BYTES: usize = 16;
const ADDRESS_BYTES: usize = 8;

/// The kernel's answers come in pieces that are no larger.
const PIECE_BYTES_MAX: usize = 64 * 1024;
/// Bytes of one answer: some ten thousand interfaces.
const ANSWER_BYTES_MAX: usize = 32 * 1024 * 1024;
/// How often a table is read that changes while it is read.
const TRIES_MAX: usize = 4;
const ANSWER_SECONDS_MAX: u64 = 10;

impl Probe for Interface {
    const KIND: &'static str = "unix:interface";

    fn collect(host: &Host, query: &Query) -> Result<Collected, ProbeError> {
        if !host.is_live() {
            let reason = "needs a live system: interfaces and their addresses are the kernel's";
            return Ok(Collected::nothing(Flag::NotApplicable, reason));
        }
        let links = table(host, RTM_GETLINK, LINK_BYTES)?;
        let addresses = table(host, RTM_GETADDR, ADDRESS_BYTES)?;
        matching(items(&links, &addresses)?, query)
    }
}

/// All messages of one table. They are in pieces, each with whole messages.
fn table(host: &Host, question: u16, body_bytes: usize) -> Result<Vec<Vec<u8>>, ProbeError> {
    for _ in 0..TRIES_MAX {
        if let Some(pieces) = whole(host, question, body_bytes)? {
            return Ok(pieces);
        }
    }
    Err(broken("they change while they are read"))
}

fn broken(what: &str) -> ProbeError {
    ProbeError::Broken(format!("the kernel's interfaces: {what}"))
}

/// None where the table changed while it was read.
fn whole(host: &Host, question: u16, body_bytes: usize) -> Result<Option<Vec<Vec<u8>>>, ProbeError> {
    let failed = |error: Errno| match error {
        Errno::ACCESS | Errno::PERM => ProbeError::Denied("the kernel's interfaces".to_owned()),
        error => broken(&error.to_string()),
    };
    let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, None).map_err(failed)?;
    set_socket_timeout(&socket, Timeout::Recv, Some(Duration::from_secs(ANSWER_SECONDS_MAX))).map_err(failed)?;
    // Without an address it goes to the kernel.
    send(&socket, &request(question, body_bytes), SendFlags::empty()).map_err(failed)?;
    let mut pieces = Vec::new();
    let mut bytes_left = ANSWER_BYTES_MAX;
    let mut buffer = vec![0_u8; PIECE_BYTES_MAX];
    loop {
        host.breathe()?;
        let length = match recv(&socket, buffer.as_mut_slice(), RecvFlags::TRUNC) {
            Ok((_, length)) => length,
            Err(Errno::INTR) => continue,
            Err(error) => return Err(failed(error)),
        };
        let Some(piece) = buffer.get(..length).filter(|piece| !piece.is_empty()) else {
            return Err(broken("a piece of the answer is too long, or there is none"));
        };
        bytes_left = bytes_left.checked_sub(length).ok_or_else(|| broken("there are too many"))?;
        let end = end_of(piece)?;
        pieces.push(piece.to_vec());
        match end {
            End::More => {}
            End::Whole => return Ok(Some(pieces)),
            End::Changed => return Ok(None),
        }
    }
}

/// `struct nlmsghdr` and an empty body, which asks for everything.
fn request(question: u16, body_bytes: usize) -> Vec<u8> {
    let length = HEADER_BYTES + body_bytes;
    let mut request = Vec::with_capacity(length);
    request.extend(u32::try_from(length).unwrap_or(0).to_ne_bytes());
    request.extend(question.to_ne_bytes());
    request.extend((NLM_F_REQUEST | NLM_F_DUMP).to_ne_bytes());
    request.resize(length, 0);
    request
}

/// Whether anything comes after a piece.
#[derive(Debug, PartialEq, Eq)]
enum End {
    More,
    Whole,
    Changed,
}

fn end_of(piece: &[u8]) -> Result<End, ProbeError> {
    let mut end = End::More;
    for message in messages(piece) {
        let message = message?;
        if message.flags & NLM_F_DUMP_INTR != 0 {
            return Ok(End::Changed);
        }
        if matches!(message.kind, NLMSG_DONE | NLMSG_ERROR) {
            // Nothing, or the number of an error with the other sign.
            let code = number(message.body, 0).map(i32::from_ne_bytes).unwrap_or_default();
            if code < 0 || message.kind == NLMSG_ERROR {
                let error = std::io::Error::from_raw_os_error(code.saturating_neg());
                return Err(broken(&format!("the kernel says {error}")));
            }
            end = End::Whole;
        }
    }
    Ok(end)
}

/// A message without its header.
struct Message<'piece> {
    kind: u16,
    flags: u16,
    body: &'piece [u8],
}

/// The messages of a piece; one that is not whole is an error, and the last.
fn messages(piece: &[u8]) -> impl Iterator<Item = Result<Message<'_>, ProbeError>> {
    let mut rest = piece;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let Some((message, after)) = first(rest) else {
            rest = &[];
            return Some(Err(broken("a message is not whole")));
        };
        rest = after;
        Some(Ok(message))
    })
}

/// The first message, and what comes after it.
fn first(piece: &[u8]) -> Option<(Message<'_>, &[u8])> {
    let length = usize::try_from(u32::from_ne_bytes(number(piece, 0)?)).ok()?;
    let kind = u16::from_ne_bytes(number(piece, 4)?);
    let flags = u16::from_ne_bytes(number(piece, 6)?);
    let body = piece.get(HEADER_BYTES..length)?;
    Some((Message { kind, flags, body }, after(piece, length)))
}

/// The attributes of a message after its fixed part, `struct rtattr`; what is not whole is passed over.
fn attributes(body: &[u8], fixed_bytes: usize) -> BTreeMap<u16, &[u8]> {
    /// The two upper bits say how the content is written.
    const KIND: u16 = 0x3fff;
    const ATTRIBUTE_BYTES: usize = 4;
    let mut attributes = BTreeMap::new();
    let mut rest = body.get(fixed_bytes..).unwrap_or_default();
    while let (Some(length), Some(kind)) = (number(rest, 0), number(rest, 2)) {
        let length = usize::from(u16::from_ne_bytes(length));
        let Some(content) = rest.get(ATTRIBUTE_BYTES..length) else { break };
        attributes.entry(u16::from_ne_bytes(kind) & KIND).or_insert(content);
        rest = after(rest, length);
    }
    attributes
}

/// What comes after so many bytes: everything begins at a multiple of four.
fn after(bytes: &[u8], length: usize) -> &[u8] {
    length.checked_next_multiple_of(4).and_then(|next| bytes.get(next..)).unwrap_or_default()
}

fn number<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..at.checked_add(N)?)?.try_into().ok()
}

/// An interface.
#[derive(Debug)]
struct Link {
    name: String,
    kind: u16,
    flags: u32,
    hardware: Option<String>,
}

impl Link {
    /// Its index, and what it is.
    fn parse(body: &[u8]) -> Option<(u32, Self)> {
        let kind = u16::from_ne_bytes(number(body, 2)?);
        let index = u32::from_ne_bytes(number(body, 4)?);
        let flags = u32::from_ne_bytes(number(body, 8)?);
        let attributes = attributes(body, LINK_BYTES);
        let name = text(attributes.get(&IFLA_IFNAME)?)?;
        // Tunnels have an address of the network layer here, which is shorter.
        let hardware = attributes.get(&IFLA_ADDRESS).filter(|address| address.len() >= 6).map(|address| {
            let octets: Vec<String> = address.iter().map(|octet| format!("{octet:02X}")).collect();
            octets.join("-")
        });
        Some((index, Self { name, kind, flags, hardware }))
    }
}

/// An address of an interface.
#[derive(Debug)]
struct Address {
    index: u32,
    /// The interface's name, or another one that the address has.
    label: Option<String>,
    datatype: Datatype,
    inet: String,
    broadcast: Option<String>,
    netmask: Option<String>,
}

impl Address {
    fn parse(body: &[u8]) -> Option<Self> {
        let [family, prefix] = number(body, 0)?;
        let index = u32::from_ne_bytes(number(body, 4)?);
        let attributes = attributes(body, ADDRESS_BYTES);
        // Of a line with two ends, the address is that of the other one.
        let own = attributes.get(&IFA_LOCAL).or_else(|| attributes.get(&IFA_ADDRESS));
        Some(match family {
            AF_INET => Self {
                index,
                label: attributes.get(&IFA_LABEL).and_then(|label| text(label)),
                datatype: Datatype::Ipv4Address,
                inet: v4(own?)?,
                broadcast: match attributes.get(&IFA_BROADCAST) {
                    Some(broadcast) => Some(v4(broadcast)?),
                    None => None,
                },
                netmask: Some(netmask(prefix)?),
            },
            AF_INET6 => {
                let own: [u8; 16] = (*own?).try_into().ok()?;
                (prefix <= 128).then_some(())?;
                Self {
                    index,
                    label: None,
                    datatype: Datatype::Ipv6Address,
                    inet: format!("{}/{prefix}", Ipv6Addr::from(own)),
                    broadcast: None,
                    netmask: None,
                }
            }
            _ => return None,
        })
    }
}

fn v4(bytes: &[u8]) -> Option<String> {
    Some(Ipv4Addr::from(<[u8; 4]>::try_from(bytes).ok()?).to_string())
}

fn netmask(prefix: u8) -> Option<String> {
    let host_bits = 32_u32.checked_sub(u32::from(prefix))?;
    Some(Ipv4Addr::from(u32::MAX.checked_shl(host_bits).unwrap_or(0)).to_string())
}

/// Text that ends with a NUL byte.
fn text(bytes: &[u8]) -> Option<String> {
    let text = bytes.split(|byte| *byte == 0).next()?;
    (!text.is_empty()).then(|| String::from_utf8_lossy(text).into_owned())
}

/// An item for each address, and for each interface without one.
fn items(links: &[Vec<u8>], addresses: &[Vec<u8>]) -> Result<Vec<Item>, ProbeError> {
    let mut known = BTreeMap::new();
    for message in links.iter().flat_map(|piece| messages(piece)) {
        let message = message?;
        if message.kind == RTM_NEWLINK {
            let (index, link) = Link::parse(message.body).ok_or_else(|| broken("an interface is not whole"))?;
            known.insert(index, link);
        }
    }
    let mut items = Vec::new();
    let mut with_address = BTreeSet::new();
    for message in addresses.iter().flat_map(|piece| messages(piece)) {
        let message = message?;
        // There are other families, such as those of radio.
        if message.kind != RTM_NEWADDR || !matches!(message.body.first(), Some(&AF_INET | &AF_INET6)) {
            continue;
        }
        let address = Address::parse(message.body).ok_or_else(|| broken("an address is not whole"))?;
        // An interface may have come in between the two tables.
        if let Some(link) = known.get(&address.index) {
            with_address.insert(address.index);
            items.push(item(link, Some(&address)));
        }
    }
    let bare = known.iter().filter(|(index, _)| !with_address.contains(*index));
    items.extend(bare.map(|(_, link)| item(link, None)));
    Ok(items)
}

fn item(link: &Link, address: Option<&Address>) -> Item {
    let or_absent = |name: &str, datatype: Datatype, value: Option<&str>| match value {
        Some(value) => ItemEntity::new(name, datatype, value),
        None => ItemEntity::without_value(name, datatype, Status::DoesNotExist),
    };
    let datatype = address.map_or(Datatype::String, |address| address.datatype);
    let kind = TYPES.iter().find(|(kind, _)| *kind == link.kind).map(|(_, name)| *name);
    let broadcast =
        address.and_then(|address| address.broadcast.as_deref()).filter(|_| link.flags & IFF_BROADCAST != 0);
    let mut entities = vec![
        ItemEntity::text("name", address.and_then(|address| address.label.as_deref()).unwrap_or(&link.name)),
        or_absent("type", Datatype::String, kind),
        or_absent("hardware_addr", Datatype::String, link.hardware.as_deref()),
        or_absent("inet_addr", datatype, address.map(|address| address.inet.as_str())),
        or_absent("broadcast_addr", datatype, broadcast),
        or_absent("netmask", datatype, address.and_then(|address| address.netmask.as_deref())),
    ];
    let flags: Vec<ItemEntity> = FLAGS
        .iter()
        .filter(|(flag, _)| link.flags & flag != 0)
        .map(|(_, name)| ItemEntity::text("flag", *name))
        .collect();
    if flags.is_empty() {
        entities.push(ItemEntity::without_value("flag", Datatype::String, Status::DoesNotExist));
    }
    entities.extend(flags);
    Item::new(Interface::KIND, entities)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attribute(kind: u16, content: &[u8]) -> Vec<u8> {
        let length = u16::try_from(4 + content.len()).unwrap();
        let mut bytes = [length.to_ne_bytes(), kind.to_ne_bytes()].concat();
        bytes.extend(content);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    fn message(kind: u16, flags: u16, body: &[&[u8]]) -> Vec<u8> {
        let body = body.concat();
        let length = u32::try_from(HEADER_BYTES + body.len()).unwrap();
        let mut bytes = length.to_ne_bytes().to_vec();
        bytes.extend([kind.to_ne_bytes(), flags.to_ne_bytes()].concat());
        bytes.extend([0; 8]);
        bytes.extend(body);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    fn link(index: u32, kind: u16, flags: u32, attributes: &[Vec<u8>]) -> Vec<u8> {
        let [high, low] = kind.to_ne_bytes();
        let fixed = [[0, 0, high, low], index.to_ne_bytes(), flags.to_ne_bytes(), [0; 4]].concat();
        message(RTM_NEWLINK, 2, &[&fixed, &attributes.concat()])
    }

    fn address(family: u8, prefix: u8, index: u32, attributes: &[Vec<u8>]) -> Vec<u8> {
        let fixed = [[family, prefix, 0, 0], index.to_ne_bytes()].concat();
        message(RTM_NEWADDR, 2, &[&fixed, &attributes.concat()])
    }

    fn links() -> Vec<Vec<u8>> {
        let name = |name: &[u8]| attribute(IFLA_IFNAME, name);
        let first = [
            link(1, 772, 0x1_0049, &[name(b"lo\0"), attribute(IFLA_ADDRESS, &[0; 6])]),
            link(2, 1, 0x1143, &[name(b"eth0\0"), attribute(IFLA_ADDRESS, &[2, 0xfc, 0, 0, 0, 1])]),
        ];
        let second = [link(3, 768, 0, &[name(b"tunl0\0"), attribute(IFLA_ADDRESS, &[0; 4])]), done()];
        vec![first.concat(), second.concat()]
    }

    fn addresses() -> Vec<Vec<u8>> {
        let v4 = |kind: u16, address: [u8; 4]| attribute(kind, &address);
        let local = Ipv6Addr::LOCALHOST.octets();
        let all = [
            address(AF_INET, 8, 1, &[v4(IFA_ADDRESS, [127, 0, 0, 1]), attribute(IFA_LABEL, b"lo\0")]),
            address(
                AF_INET,
                24,
                2,
                &[
                    v4(IFA_ADDRESS, [192, 0, 2, 9]),
                    v4(IFA_LOCAL, [192, 0, 2, 2]),
                    v4(IFA_BROADCAST, [192, 0, 2, 255]),
                    attribute(IFA_LABEL, b"eth0:1\0"),
                ],
            ),
            address(AF_INET6, 128, 1, &[attribute(IFA_ADDRESS, &local)]),
            address(7, 0, 1, &[]),
            address(AF_INET, 24, 99, &[v4(IFA_ADDRESS, [10, 0, 0, 1])]),
            done(),
        ];
        vec![all.concat()]
    }

    fn done() -> Vec<u8> {
        message(NLMSG_DONE, 2, &[&[0; 4]])
    }

    fn values<'item>(item: &'item Item, name: &'item str) -> Vec<Option<&'item str>> {
        item.named(name).map(|entity| entity.value.as_deref()).collect()
    }

    #[test]
    fn there_is_an_item_for_each_address_and_each_interface_without_one() {
        let items = items(&links(), &addresses()).unwrap();
        let names: Vec<_> = items.iter().filter_map(|item| item.value("name")).collect();
        assert_eq!(names, ["lo", "eth0:1", "lo", "tunl0"]);
        let check = |at: usize, name: &str, expect: &[Option<&str>]| {
            assert_eq!(values(&items[at], name), expect, "{at} {name}");
        };
        check(0, "netmask", &[Some("255.0.0.0")]);
        check(0, "broadcast_addr", &[None]);
        check(1, "type", &[Some("ARPHRD_ETHER")]);
        check(1, "hardware_addr", &[Some("02-FC-00-00-00-01")]);
        check(1, "inet_addr", &[Some("192.0.2.2")]);
        check(1, "broadcast_addr", &[Some("192.0.2.255")]);
        check(1, "netmask", &[Some("255.255.255.0")]);
        check(1, "flag", &[Some("UP"), Some("BROADCAST"), Some("RUNNING"), Some("PROMISC"), Some("MULTICAST")]);
        check(2, "type", &[Some("ARPHRD_LOOPBACK")]);
        check(2, "inet_addr", &[Some("::1/128")]);
        check(2, "netmask", &[None]);
        check(3, "type", &[None]);
        check(3, "hardware_addr", &[None]);
        check(3, "inet_addr", &[None]);
        check(3, "flag", &[None]);
    }

    #[test]
    fn an_answer_ends_with_a_message_of_its_own() {
        assert_eq!(end_of(&links()[0]).unwrap(), End::More);
        assert_eq!(end_of(&links()[1]).unwrap(), End::Whole);
        assert_eq!(end_of(&message(RTM_NEWLINK, NLM_F_DUMP_INTR, &[])).unwrap(), End::Changed);
        let denied = message(NLMSG_ERROR, 0, &[&(-1_i32).to_ne_bytes()]);
        assert!(end_of(&denied).unwrap_err().to_string().contains("not permitted"));
        assert!(end_of(b"xyz").is_err());
    }

    #[test]
    fn netmasks_are_those_of_prefixes() {
        let check = |prefix, expect: Option<&str>| assert_eq!(netmask(prefix).as_deref(), expect, "{prefix}");
        check(0, Some("0.0.0.0"));
        check(23, Some("255.255.254.0"));
        check(32, Some("255.255.255.255"));
        check(33, None);
    }

    #[test]
    fn damaged_answers_never_panic() {
        let (links, addresses) = (links().concat(), addresses().concat());
        for end in 0..links.len() {
            let _ = items(&[links[..end].to_vec()], &[addresses[..end.min(addresses.len())].to_vec()]);
        }
        for at in 0..links.len().max(addresses.len()) {
            for flip in [0x01, 0x10, 0xff] {
                let flipped = |bytes: &[u8]| {
                    let mut bytes = bytes.to_vec();
                    if let Some(byte) = bytes.get_mut(at) {
                        *byte ^= flip;
                    }
                    bytes
                };
                let _ = end_of(&flipped(&links));
                let _ = items(&[flipped(&links)], &[flipped(&addresses)]);
            }
        }
    }

    #[test]
    fn this_system_has_a_loopback_interface() {
        let query = Query { kind: Interface::KIND.to_owned(), entities: Vec::new(), behaviors: BTreeMap::new() };
        let collected = Interface::collect(&Host::new("/"), &query).unwrap();
        assert!(collected.items.iter().any(|item| item.value("type") == Some("ARPHRD_LOOPBACK")), "{collected:?}");
        let root = tempfile::tempdir().unwrap();
        let elsewhere = Interface::collect(&Host::new(root.path()), &query).unwrap();
        assert_eq!(elsewhere.flag, Flag::NotApplicable);
    }
}
