//! Fingerprints of what nobody tells of: sockets that wait for others, routes, and kernel parameters. A thread takes them
//! again and again, without looking at processes, and tells where one is another one than before. What it takes of the
//! processor says how often that is: at most a five-hundredth of its time.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::hash::{DefaultHasher, Hasher as _};
use std::io::{BufRead as _, BufReader, Read as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;

use super::ways::{Teller, Told, Way};

/// From one to the next, where they cost next to nothing.
const INTERVAL_LEAST: Duration = Duration::from_secs(1);
/// From one to the next, whatever they cost.
const INTERVAL_MOST: Duration = Duration::from_secs(30);
/// They may take one part in so many of a processor.
const SHARE: u32 = 500;
/// Bytes of one table: what is behind them is looked at with everything else.
const TABLE_BYTES_MAX: u64 = 16 * 1024 * 1024;
/// What a probe reads of one parameter.
const PARAMETER_BYTES_MAX: u64 = 8192;

/// Which fields of a table's lines count: those that stay as they are while a socket or a route does.
struct Table {
    path: &'static str,
    fields: &'static [usize],
    /// The field of the state, and the states that count.
    states: Option<(usize, &'static str)>,
    /// Whether the kernel lists those first that count.
    is_sorted: bool,
}

/// Lines are `sl local remote state queues timer retransmits uid timeout inode`. `0A` is `TCP_LISTEN`, and `07` of UDP that
/// it is bound and not connected.
const INET: &[usize] = &[1, 3, 7, 9];
const SOCKETS: [Table; 7] = [
    Table { path: "proc/net/tcp", fields: INET, states: Some((3, "0A")), is_sorted: true },
    Table { path: "proc/net/tcp6", fields: INET, states: Some((3, "0A")), is_sorted: true },
    Table { path: "proc/net/udp", fields: INET, states: Some((3, "07")), is_sorted: false },
    Table { path: "proc/net/udp6", fields: INET, states: Some((3, "07")), is_sorted: false },
    Table { path: "proc/net/raw", fields: INET, states: None, is_sorted: false },
    Table { path: "proc/net/raw6", fields: INET, states: None, is_sorted: false },
    // Address, references, type, protocol, interface, whether it runs, memory, user, inode.
    Table { path: "proc/net/packet", fields: &[2, 3, 4, 5, 7, 8], states: None, is_sorted: false },
];
const ROUTES: [Table; 2] = [
    // Interface, destination, gateway, flags, references, uses, metric, mask, and sizes.
    Table { path: "proc/net/route", fields: &[0, 1, 2, 3, 6, 7, 8, 9, 10], states: None, is_sorted: false },
    // Destination and source with lengths, next hop, metric, references, uses, flags, interface.
    Table { path: "proc/net/ipv6_route", fields: &[0, 1, 2, 3, 4, 5, 8, 9], states: None, is_sorted: false },
];

/// Where a kernel parameter has its value.
pub(super) fn parameter(root: &Path, name: &str) -> PathBuf {
    root.join("proc/sys").join(name.replace('.', "/"))
}

/// A fingerprint; what cannot be read has one, too.
fn of(root: &Path, way: &Way) -> u64 {
    match way {
        Way::Sockets => of_tables(root, &SOCKETS),
        Way::Routes => of_tables(root, &ROUTES),
        Way::Parameter(name) => {
            let mut bytes = Vec::new();
            let read = File::open(parameter(root, name))
                .and_then(|file| file.take(PARAMETER_BYTES_MAX).read_to_end(&mut bytes))
                .map_err(|error| error.kind());
            hash((read, bytes))
        }
        // Nobody asks for them: they are told of.
        Way::Units | Way::Mounts => 0,
    }
}

fn of_tables(root: &Path, tables: &[Table]) -> u64 {
    let of_table = |(at, table): (usize, &Table)| hash((at, table.fingerprint(root)));
    tables.iter().enumerate().map(of_table).fold(0, u64::wrapping_add)
}

impl Table {
    /// None where there is no such table.
    fn fingerprint(&self, root: &Path) -> Option<u64> {
        let file = File::open(root.join(self.path)).ok()?;
        let mut lines = BufReader::new(file.take(TABLE_BYTES_MAX));
        let (mut sum, mut line) = (0_u64, Vec::new());
        loop {
            line.clear();
            if lines.read_until(b'\n', &mut line).ok()? == 0 {
                return Some(sum);
            }
            let fields: Vec<&[u8]> =
                line.split(u8::is_ascii_whitespace).filter(|field| !field.is_empty()).take(12).collect();
            if let Some((at, state)) = self.states
                && fields.get(at).is_none_or(|field| *field != state.as_bytes())
            {
                // The first line is of titles.
                let is_over = self.is_sorted && fields.first().is_some_and(|field| field.ends_with(b":"));
                if is_over {
                    return Some(sum);
                }
                continue;
            }
            // In which order they stand is of no account.
            let counted: Vec<_> = self.fields.iter().map(|at| fields.get(*at)).collect();
            sum = sum.wrapping_add(hash(counted));
        }
    }
}

fn hash(value: impl std::hash::Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}

/// The thread that takes them; it ends with this.
#[derive(Debug)]
pub(super) struct Fingerprints {
    wanted: BTreeSet<Way>,
    want: mpsc::Sender<BTreeSet<Way>>,
    interval_millis: Arc<AtomicU64>,
}

impl Fingerprints {
    /// None where there can be no thread.
    pub(super) fn start(root: &Path, teller: Teller) -> Option<Self> {
        let (want, wanted) = mpsc::channel();
        let interval_millis = Arc::new(AtomicU64::new(millis(INTERVAL_LEAST)));
        let taker = Taker {
            root: root.to_owned(),
            teller,
            wanted: BTreeSet::new(),
            known: BTreeMap::new(),
            cost: Duration::ZERO,
            interval_millis: Arc::clone(&interval_millis),
        };
        let begun = std::thread::Builder::new().name("fingerprints".to_owned()).spawn(move || taker.run(&wanted));
        match begun {
            Ok(_) => Some(Self { wanted: BTreeSet::new(), want, interval_millis }),
            Err(error) => {
                tracing::warn!(%error, "sockets and kernel parameters are only looked at again and again");
                None
            }
        }
    }

    /// Of what. One that is new is told of once, as it may have changed before.
    pub(super) fn want(&mut self, wanted: BTreeSet<Way>) {
        if self.wanted != wanted {
            self.wanted.clone_from(&wanted);
            let _ = self.want.send(wanted);
        }
    }

    /// From one to the next, at present.
    pub(super) fn interval(&self) -> Duration {
        Duration::from_millis(self.interval_millis.load(Relaxed))
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

struct Taker {
    root: PathBuf,
    teller: Teller,
    wanted: BTreeSet<Way>,
    known: BTreeMap<Way, u64>,
    /// Of the processor's time, for all of them, in the mean.
    cost: Duration,
    interval_millis: Arc<AtomicU64>,
}

impl Taker {
    fn run(mut self, wanted: &mpsc::Receiver<BTreeSet<Way>>) {
        loop {
            let interval = Duration::from_millis(self.interval_millis.load(Relaxed));
            match wanted.recv_timeout(interval) {
                Ok(wanted) => {
                    self.known.retain(|way, _| wanted.contains(way));
                    self.wanted = wanted;
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            let before = crate::host::cpu_of_thread();
            for way in self.round() {
                self.teller.tell(Told::Way(way));
            }
            let took = crate::host::cpu_of_thread().saturating_sub(before);
            self.cost = if self.cost.is_zero() { took } else { (self.cost * 3 + took) / 4 };
            self.interval_millis.store(millis(interval_of(self.cost)), Relaxed);
        }
    }

    /// Takes them all, and says which are others than before.
    fn round(&mut self) -> Vec<Way> {
        let Self { root, wanted, known, .. } = self;
        let is_other = |way: &&Way| {
            let taken = of(root, way);
            known.insert((*way).clone(), taken) != Some(taken)
        };
        wanted.iter().filter(is_other).cloned().collect()
    }
}

/// How long to wait after what took so much, in whole seconds.
fn interval_of(cost: Duration) -> Duration {
    let wanted = cost.saturating_mul(SHARE);
    Duration::from_secs(wanted.as_micros().div_ceil(1_000_000).try_into().unwrap_or(u64::MAX))
        .clamp(INTERVAL_LEAST, INTERVAL_MOST)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TITLES: &str =
        "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n";

    fn line(number: u8, local: &str, state: &str, queue: &str, inode: u32) -> String {
        format!(
            "   {number}: {local} 00000000:0000 {state} 00000000:{queue} 00:00000000 00000000     0        0 {inode} 1 0\n"
        )
    }

    fn root() -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(root.path().join("proc/net")).unwrap();
        std::fs::create_dir_all(root.path().join("proc/sys/net/ipv4")).unwrap();
        root
    }

    fn write(root: &tempfile::TempDir, path: &str, text: &str) {
        std::fs::write(root.path().join("proc").join(path), text).unwrap();
    }

    #[test]
    fn a_socket_that_waits_counts_by_address_owner_and_inode_and_by_nothing_that_traffic_changes() {
        let root = root();
        let tcp = |lines: &[String]| {
            write(&root, "net/tcp", &format!("{TITLES}{}", lines.concat()));
            of(root.path(), &Way::Sockets)
        };
        let none = of(root.path(), &Way::Sockets);
        let ssh = line(0, "00000000:0016", "0A", "00000000", 100);
        let web = line(1, "00000000:0050", "0A", "00000000", 101);
        let both = tcp(&[ssh.clone(), web.clone()]);
        assert_ne!(none, both);
        assert_eq!(tcp(&[web.clone(), ssh.clone()]), both, "the order");
        assert_eq!(tcp(&[ssh.clone(), line(7, "00000000:0050", "0A", "00000009", 101)]), both, "number and queue");
        let open = line(2, "0100007F:A000", "01", "00000000", 102);
        assert_eq!(tcp(&[ssh.clone(), web.clone(), open]), both, "a connection");
        assert_ne!(tcp(&[ssh.clone(), line(1, "00000000:0050", "0A", "00000000", 103)]), both, "another inode");
        assert_ne!(tcp(std::slice::from_ref(&ssh)), both);
        assert_eq!(tcp(&[ssh.clone(), web.clone()]), both);

        // The same in another table is another socket.
        write(&root, "net/udp", &format!("{TITLES}{}", line(0, "00000000:0044", "07", "00000000", 104)));
        let with_udp = of(root.path(), &Way::Sockets);
        assert_ne!(with_udp, both);
        write(&root, "net/udp6", &format!("{TITLES}{}", line(0, "00000000:0044", "07", "00000000", 104)));
        write(&root, "net/udp", TITLES);
        assert_ne!(of(root.path(), &Way::Sockets), with_udp);

        let packet = |memory: u32, interface: u32| {
            let titles = "sk RefCnt Type Proto Iface R Rmem User Inode\n";
            write(&root, "net/packet", &format!("{titles}0000 3 3 0003 {interface} 1 {memory} 0 105\n"));
            of(root.path(), &Way::Sockets)
        };
        assert_eq!(packet(0, 2), packet(4_096, 2));
        assert_ne!(packet(0, 2), packet(0, 3));
        for damaged in ["", "\n", "garbage", " 1:", "\u{0}\u{ff}\n\n 2: x"] {
            write(&root, "net/tcp", damaged);
            of(root.path(), &Way::Sockets);
        }
    }

    #[test]
    fn routes_and_parameters_count_by_what_they_say() {
        let root = root();
        let route = |uses: u32, gateway: &str| {
            let titles = "Iface Destination Gateway Flags RefCnt Use Metric Mask MTU Window IRTT\n";
            write(&root, "net/route", &format!("{titles}eth0 00000000 {gateway} 0003 0 {uses} 100 00000000 0 0 0\n"));
            of(root.path(), &Way::Routes)
        };
        assert_eq!(route(1, "0100A8C0"), route(2, "0100A8C0"));
        assert_ne!(route(1, "0100A8C0"), route(1, "0200A8C0"));
        let forward = Way::Parameter("net.ipv4.ip_forward".to_owned());
        let absent = of(root.path(), &forward);
        write(&root, "sys/net/ipv4/ip_forward", "");
        let empty = of(root.path(), &forward);
        write(&root, "sys/net/ipv4/ip_forward", "0\n");
        let off = of(root.path(), &forward);
        write(&root, "sys/net/ipv4/ip_forward", "1\n");
        let on = of(root.path(), &forward);
        assert_eq!(BTreeSet::from([absent, empty, off, on]).len(), 4);
    }

    #[test]
    fn one_that_is_new_or_another_is_told_of_and_the_others_are_not() {
        let root = root();
        write(&root, "sys/net/ipv4/ip_forward", "0\n");
        let (told, mut heard) = tokio::sync::mpsc::channel(8);
        let mut fingerprints = Fingerprints::start(root.path(), Teller::new(told, Arc::default())).unwrap();
        let (forward, ttl) =
            (Way::Parameter("net.ipv4.ip_forward".to_owned()), Way::Parameter("net.ipv4.ip_ttl".to_owned()));
        let mut next = || match heard.blocking_recv() {
            Some(Told::Way(way)) => way,
            other => panic!("{other:?}"),
        };
        fingerprints.want(BTreeSet::from([forward.clone()]));
        assert_eq!(next(), forward);
        fingerprints.want(BTreeSet::from([forward.clone(), ttl.clone()]));
        assert_eq!(next(), ttl);
        write(&root, "sys/net/ipv4/ip_forward", "1\n");
        assert_eq!(next(), forward);
        drop(fingerprints);
        assert!(heard.blocking_recv().is_none(), "the thread has ended");
    }

    #[test]
    fn what_costs_more_is_done_less_often() {
        let seconds = |micros: u64| interval_of(Duration::from_micros(micros)).as_secs();
        assert_eq!([0, 300, 2_000, 2_001, 9_000, 1_000_000].map(seconds), [1, 1, 1, 2, 5, 30]);
    }
}
