//! Endpoints whose every file lies, by seed: each probe gives an answer, says what is wrong in words, and nobody panics.
//! `MUSTER_HOSTILE_ENDPOINTS=N` makes so many.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test fails by panicking, and says how much it did")]

use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;

use jiff::Timestamp;
use oval::kinds::KINDS;
use oval::resolve::Resolver;
use pcs_agent::host::Host;
use pcs_agent::probe::Probes;
use proto::observation::{Collected, Flag, Status};
use proto::query::PostureQuery;
use system_tests::generate::Random;
use system_tests::workspace;

const ENDPOINTS: u64 = 60;

/// What probes read, each in a form that they understand.
const FILES: &[(&str, &str)] = &[
    ("etc/passwd", "root:x:0:0:root:/root:/bin/sh\nann:x:1000:1000:Ann,,,:/home/ann:/bin/bash\n+::::::\n"),
    ("etc/shadow", "root:$y$j9T$abc$def:19000:0:99999:7:::\nann:!:19000:0:99999:7:30:20000:\n"),
    ("etc/group", "root:x:0:\nsudo:x:27:ann,bob\n"),
    ("etc/os-release", "NAME=\"Debian\"\nID=debian\nVERSION_ID='12'\n"),
    ("etc/localtime", "TZif2"),
    ("etc/target.conf", "Key = value\n# Key = no\n[part]\nother=1\n"),
    ("etc/target.xml", "<?xml version=\"1.0\"?><a xmlns=\"x\"><b c='1'>text</b><b/><!-- x --><![CDATA[y]]></a>"),
    ("etc/target.yaml", "%YAML 1.1\n---\na: &x [1, {b: 'c'}]\n\"d\": *x\n# e\nf: |\n  g\n---\n- !!int 0x1\n"),
    ("etc/ssl/certs/a.pem", "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n"),
    ("etc/rc2.d/S01x", "#!/bin/sh\n"),
    ("etc/init.d/x", "#!/bin/sh\n"),
    ("var/lib/dpkg/status", "Package: bash\nStatus: install ok installed\nArchitecture: amd64\nVersion: 1:5.2-3\n\n"),
    ("var/log/lastlog", "\u{1}\u{2}\u{3}\u{4}"),
    ("usr/lib/python3/dist-packages/six-1.egg-info/PKG-INFO", "Name: six\nVersion: 1\n"),
    ("usr/lib/node_modules/npm/package.json", "{\"name\":\"npm\",\"version\":\"1.0.0\"}"),
    ("proc/mounts", "/dev/sda1 / ext4 rw,relatime 0 0\ntmpfs /tmp\\040x tmpfs rw 0 0\n"),
    ("proc/self/mountinfo", "22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw\n"),
    ("proc/modules", "nf_tables 303104 2 nft_ct,nft_chain, Live 0xffffffffc0a00000 (E)\n"),
    ("proc/cpuinfo", "processor : 0\nmodel name : x\nphysical id : 0\ncore id : 0\ncpu cores : 1\n"),
    ("proc/meminfo", "MemTotal: 1000 kB\n"),
    ("proc/stat", "btime 1700000000\n"),
    ("proc/net/tcp", "  sl\n   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000 0 0 77 1\n"),
    ("proc/net/udp6", "  sl\n   0: 00000000000000000000000001000000:0016 00:0 07 0:0 0:0 0 0 0 78 1\n"),
    (
        "proc/net/route",
        "Iface\tDestination\tGateway\tFlags\neth0\t00000000\t0102A8C0\t0003\t0\t0\t0\t00000000\t0\t0\t0\n",
    ),
    ("proc/net/packet", "sk RefCnt Type Proto Iface R Rmem User Inode\n0 3 3 0003 2 1 0 0 79\n"),
    ("proc/1/stat", "1 (a) b) S 0 1 1 0 -1 4194560 1 1 1 1 1 1 1 1 20 0 1 0 5 1 1\n"),
    ("proc/1/status", "Name:\ta\nUid:\t0\t0\t0\t0\nCapEff:\t000001ffffffffff\n"),
    ("proc/1/environ", "PATH=/bin\0container=x\0"),
    ("proc/1/cmdline", "/sbin/init\0--x\0"),
    ("proc/sys/kernel/osrelease", "6.1.0\n"),
    ("proc/sys/kernel/ostype", "Linux\n"),
    ("proc/sys/kernel/version", "#1\n"),
    ("proc/sys/net/ipv4/ip_forward", "0\n"),
    ("sys/fs/selinux/booleans/x", "0 1"),
    ("sys/fs/selinux/enforce", "1"),
    ("sys/kernel/security/apparmor/profiles", "/bin/x (enforce)\n/bin/y (complain)\n"),
    ("sys/module/apparmor/parameters/enabled", "Y\n"),
    ("sys/class/dmi/id/bios_date", "01/02/2020\n"),
];

/// Questions that need to be told where to look.
const ASKED: &[(&str, &str)] = &[
    ("independent:filehash58", "where path = '/etc'"),
    ("independent:textfilecontent", "where path = '/etc' and line = 'Key *= *(.*)'"),
    ("independent:textfilecontent54", "where path prefix '/etc' and pattern = '^Key *= *(.*)$'"),
    ("independent:xmlfilecontent", "where path = '/etc' and xpath = '//b[@c]/text()'"),
    ("independent:yamlfilecontent", "where path = '/etc' and yamlpath = '.a[0]'"),
    ("linux:selinuxsecuritycontext", "where path = '/etc'"),
    ("muster:script", "where sha256 = '00'"),
    ("unix:file", "where path prefix '/etc'"),
    ("unix:fileextendedattribute", "where path = '/etc'"),
    ("unix:symlink", "where filepath = '/etc/link'"),
];

fn damage(random: &mut Random, content: &mut Vec<u8>) {
    let at = random.below(content.len().max(1));
    match random.below(11) {
        0 => content.clear(),
        1 => content.truncate(at),
        2 => content.iter_mut().skip(at).take(1).for_each(|byte| *byte ^= 0x80),
        3 => content.splice(at.min(content.len())..at.min(content.len()), [0, 0xff, 0xfe]).for_each(drop),
        4 if content.len() < 100_000 => content.extend(std::iter::repeat_n(b'x', 100_000)),
        5 => *content = String::from_utf8_lossy(content).replace('\n', "\r\n").into_bytes(),
        6 => *content = String::from_utf8_lossy(content).replace(['1', '0'], "99999999999999999999999").into_bytes(),
        7 => *content = content.iter().copied().filter(|byte| !b":= \t".contains(byte)).collect(),
        8 if content.len() < 10_000 => *content = content.repeat(200),
        9 => *content = String::from_utf8_lossy(content).replace('1', "-1").into_bytes(),
        _ => content.iter_mut().for_each(|byte| *byte = byte.wrapping_add(u8::try_from(at % 3).unwrap())),
    }
}

fn databases() -> Vec<(String, Vec<u8>)> {
    let fixtures = workspace().join("pcs-agent/fixtures/rpm");
    let mut found = Vec::new();
    for format in std::fs::read_dir(fixtures).unwrap().map(|entry| entry.unwrap().path()).filter(|path| path.is_dir()) {
        for file in std::fs::read_dir(format).unwrap().map(|entry| entry.unwrap()) {
            found.push((file.file_name().into_string().unwrap(), std::fs::read(file.path()).unwrap()));
        }
    }
    found.sort();
    found
}

/// Writes a file, or something else in its place.
fn place(random: &mut Random, path: &Path, content: &[u8]) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    match random.below(24) {
        0 => {}
        1 => std::fs::create_dir(path).unwrap(),
        2 => symlink(path, path).unwrap(),
        3 => symlink("/../../../../etc/passwd", path).unwrap(),
        4 => {
            let (kind, mode) = (rustix::fs::FileType::Fifo, rustix::fs::Mode::RUSR);
            rustix::fs::mknodat(rustix::fs::CWD, path, kind, mode, 0).unwrap();
        }
        5 => std::fs::File::create(path).unwrap().set_len(100 << 30).unwrap(),
        _ => std::fs::write(path, content).unwrap(),
    }
}

fn endpoint(seed: u64, databases: &[(String, Vec<u8>)]) -> tempfile::TempDir {
    let mut random = Random::new(seed);
    let root = tempfile::tempdir().unwrap();
    for (path, content) in FILES {
        let mut content = content.as_bytes().to_vec();
        for _ in 0..random.below(4) {
            damage(&mut random, &mut content);
        }
        place(&mut random, &root.path().join(path), &content);
    }
    if !databases.is_empty() {
        let (name, content) = &databases[random.below(databases.len())];
        let mut content = content.clone();
        for _ in 0..random.below(3) {
            for _ in 0..random.below(20) {
                let at = random.below(content.len());
                content[at] = u8::try_from(random.below(256)).unwrap();
            }
            if random.once_in(8) {
                content.truncate(random.below(content.len().max(1)));
            }
        }
        place(&mut random, &root.path().join("var/lib/rpm").join(name), &content);
    }
    let etc = root.path().join("etc");
    symlink("link2", etc.join("link")).unwrap();
    symlink("../etc/target.conf", etc.join("link2")).unwrap();
    for name in [&b"new\nline"[..], b"\x01control", b"not\xffutf8", b" ", b"a*b[c]\\", "ü".as_bytes()] {
        std::fs::write(etc.join(std::ffi::OsStr::from_bytes(name)), "Key = x\n").unwrap();
    }
    if random.once_in(4) {
        let deep = etc.join("d/".repeat(300));
        std::fs::create_dir_all(deep).unwrap();
        symlink("/etc", etc.join("d/up")).unwrap();
    }
    // Nothing of this machine is changed through a link: only what was made here loses its permissions.
    let closed = etc.join("closed");
    std::fs::write(&closed, "Key = x\n").unwrap();
    std::fs::set_permissions(&closed, std::fs::Permissions::from_mode(0o000)).unwrap();
    root
}

/// An answer is one whatever was found: what is not whole says why, and only what exists has a value.
fn check(kind: &str, seed: u64, collected: &Collected) {
    let is_in_words = !collected.messages.is_empty() || collected.items.iter().any(|item| item.message.is_some());
    match collected.flag {
        Flag::Complete => assert!(!collected.items.is_empty(), "{kind}, seed {seed}"),
        Flag::DoesNotExist => assert!(collected.items.is_empty(), "{kind}, seed {seed}"),
        _ => assert!(is_in_words, "{kind}, seed {seed}: {:?} without a word", collected.flag),
    }
    let fields = KINDS.iter().find(|known| known.name == kind).unwrap().fields;
    for item in &collected.items {
        assert_eq!(item.kind, kind);
        assert!(item.status != Status::Error || item.message.is_some(), "{kind}, seed {seed}: {item:?}");
        for entity in &item.entities {
            assert!(fields.contains(&entity.name.as_str()), "{kind}, seed {seed}: {}", entity.name);
            let is_there = entity.value.is_some() || !entity.fields.is_empty();
            assert_eq!(is_there, entity.status == Status::Exists, "{kind}, seed {seed}: {entity:?}");
        }
    }
}

#[test]
fn every_probe_answers_whatever_the_endpoint_is_like() {
    let endpoints =
        std::env::var("MUSTER_HOSTILE_ENDPOINTS").ok().and_then(|text| text.parse().ok()).unwrap_or(ENDPOINTS);
    let databases = databases();
    let (mut items, mut troubled) = (0, 0);
    for seed in 0..endpoints {
        let root = endpoint(seed, &databases);
        for kind in KINDS.iter().map(|kind| kind.name).filter(|kind| *kind != "independent:variable") {
            let condition = ASKED.iter().find(|(asked, _)| *asked == kind).map_or("", |(_, condition)| condition);
            let question: PostureQuery = format!("{kind} {condition}").parse().unwrap();
            let (plan, keys) = oval::question::plan_of(&question).unwrap();
            let host = Host::new(root.path());
            let mut resolver = Resolver::new(&plan, Probes::new(&host), Timestamp::UNIX_EPOCH);
            for key in keys {
                let collected = resolver.object(&key);
                check(kind, seed, &collected);
                items += collected.items.len();
                troubled += usize::from(!matches!(collected.flag, Flag::Complete | Flag::DoesNotExist));
            }
        }
    }
    println!("{endpoints} endpoints: {items} items, {troubled} answers that are not whole");
    assert!(items > 0 && troubled > 0);
}
