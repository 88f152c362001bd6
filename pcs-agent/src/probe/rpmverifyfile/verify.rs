//! Whether a file is as its package says, attribute by attribute, as `rpm --verify` compares them.

use std::collections::HashMap;
use std::fs::{File, Metadata};
use std::io::{self, Read as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::rc::Rc;

use md5::{Digest as _, Md5};
use ring::digest;

use super::capabilities::Capabilities;
use crate::host::{Cut, Host};
use crate::probe::{ProbeError, text_of};

/// Attributes, with the bits that RPM gives them.
pub(super) const DIGEST: u32 = 1;
pub(super) const SIZE: u32 = 1 << 1;
pub(super) const LINK: u32 = 1 << 2;
pub(super) const USER: u32 = 1 << 3;
pub(super) const GROUP: u32 = 1 << 4;
pub(super) const MTIME: u32 = 1 << 5;
pub(super) const MODE: u32 = 1 << 6;
pub(super) const DEVICE: u32 = 1 << 7;
pub(super) const CAPABILITIES: u32 = 1 << 8;
const EVERY: u32 = (1 << 9) - 1;

/// What a file of a package is.
pub(super) const CONFIG: u32 = 1;
pub(super) const DOC: u32 = 1 << 1;
pub(super) const GHOST: u32 = 1 << 6;
pub(super) const LICENSE: u32 = 1 << 7;
pub(super) const README: u32 = 1 << 8;

/// States of files that are not as the package says, and should not be.
const REPLACED: u8 = 1;
const NOT_INSTALLED: u8 = 2;
const NET_SHARED: u8 = 3;
const WRONG_COLOR: u8 = 4;

const TYPE_BITS: u32 = 0o170_000;
const DIRECTORY: u32 = 0o040_000;
const CHARACTER_DEVICE: u32 = 0o020_000;
const BLOCK_DEVICE: u32 = 0o060_000;

/// Bytes that are read at a time.
const PIECE_BYTES: usize = 64 * 1024;
/// Bytes of one file that is hashed.
const HASHED_BYTES_MAX: u64 = 1024 * 1024 * 1024;

/// A file as its package says.
#[derive(Debug, Clone)]
pub(super) struct Record {
    pub(super) path: Box<str>,
    pub(super) state: Option<u8>,
    pub(super) flags: u32,
    pub(super) verify_flags: u32,
    pub(super) mode: u16,
    pub(super) rdev: u16,
    pub(super) size: u64,
    pub(super) mtime: u32,
    pub(super) algorithm: u32,
    /// In hexadecimal.
    pub(super) digest: Box<[u8]>,
    pub(super) link: Box<[u8]>,
    pub(super) user: Rc<str>,
    pub(super) group: Rc<str>,
    pub(super) capabilities: Box<[u8]>,
}

/// What came of it: a bit for each attribute. What is in none of them passes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Outcome {
    pub(super) failed: u32,
    pub(super) not_performed: u32,
    /// This collector could not look.
    pub(super) not_collected: u32,
    pub(super) message: Option<String>,
}

impl Outcome {
    fn fail(&mut self, attribute: u32, is_failed: bool) {
        if is_failed {
            self.failed |= attribute;
        }
    }

    fn unknown(&mut self, attributes: u32, why: String) {
        self.not_collected |= attributes & !self.not_performed;
        self.message.get_or_insert(why);
    }
}

/// Names and numbers of users, or of groups.
#[derive(Debug, Default)]
struct Names {
    by_number: HashMap<u32, String>,
    by_name: HashMap<String, u32>,
}

impl Names {
    /// From files in the order in which they count.
    fn of(host: &Host, paths: [&str; 2]) -> Result<Self, ProbeError> {
        let mut names = Self::default();
        for path in paths {
            let Some(text) = text_of(host, path)? else { continue };
            for line in text.lines() {
                let mut fields = line.split(':');
                let (Some(name), Some(number)) = (fields.next(), fields.nth(1)) else { continue };
                let Ok(number) = number.parse() else { continue };
                names.by_number.entry(number).or_insert_with(|| name.to_owned());
                names.by_name.entry(name.to_owned()).or_insert(number);
            }
        }
        Ok(names)
    }

    /// Whether the number is that name's; none where neither is known here.
    fn is(&self, number: u32, name: &str) -> Option<bool> {
        match (self.by_number.get(&number), self.by_name.get(name)) {
            (None, None) => None,
            // Of names with one number the first would hide the others.
            (known, wanted) => Some(known.is_some_and(|known| known == name) || wanted == Some(&number)),
        }
    }
}

/// Who owns files: names are those of the files of the system, no directory service is asked.
#[derive(Debug)]
pub(super) struct Accounts {
    users: Names,
    groups: Names,
}

impl Accounts {
    pub(super) fn of(host: &Host) -> Result<Self, ProbeError> {
        Ok(Self {
            users: Names::of(host, ["/etc/passwd", "/usr/lib/passwd"])?,
            groups: Names::of(host, ["/etc/group", "/usr/lib/group"])?,
        })
    }
}

/// Compares a file with its record, but for what is left out.
pub(super) fn verify(host: &Host, accounts: &Accounts, record: &Record, left_out: u32) -> Result<Outcome, Cut> {
    host.breathe_now_and_then()?;
    let mut outcome = Outcome { not_performed: left_out & EVERY, ..Outcome::default() };
    let mut attributes = record.verify_flags & !left_out;
    match record.state {
        Some(NOT_INSTALLED | NET_SHARED) => return Ok(outcome),
        // Only whether it is there.
        Some(REPLACED) => attributes = 0,
        Some(WRONG_COLOR) => attributes &= !(DIGEST | SIZE | MTIME | DEVICE),
        _ => {}
    }
    let metadata = match host.lstat(&record.path) {
        Ok(metadata) => followed(host, accounts, record, metadata),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            outcome.not_performed = EVERY;
            return Ok(outcome);
        }
        Err(error) => {
            outcome.unknown(EVERY, unreadable(&record.path, &error));
            return Ok(outcome);
        }
    };
    if metadata.is_symlink() {
        attributes &= !MODE;
    } else {
        attributes &= !LINK;
    }
    if !metadata.is_file() {
        attributes &= !(DIGEST | SIZE | MTIME | CAPABILITIES);
    }
    if record.flags & GHOST != 0 {
        attributes &= !(DIGEST | SIZE | MTIME | LINK);
    }
    compare(host, accounts, record, &metadata, attributes, &mut outcome)?;
    Ok(outcome)
}

/// Where a directory is a link to a directory, and root or the directory's owner made the link, that one counts.
fn followed(host: &Host, accounts: &Accounts, record: &Record, metadata: Metadata) -> Metadata {
    let is_directory = u32::from(record.mode) & TYPE_BITS == DIRECTORY;
    if is_directory
        && metadata.is_symlink()
        && (metadata.uid() == 0 || accounts.users.by_name.get(&*record.user) == Some(&metadata.uid()))
        && let Ok(behind) = host.stat(&record.path)
        && behind.is_dir()
    {
        return behind;
    }
    metadata
}

fn compare(
    host: &Host,
    accounts: &Accounts,
    record: &Record,
    metadata: &Metadata,
    attributes: u32,
    outcome: &mut Outcome,
) -> Result<(), Cut> {
    let is_asked = |attribute: u32| attributes & attribute != 0;
    if is_asked(SIZE) {
        outcome.fail(SIZE, metadata.size() != record.size);
    }
    if is_asked(MODE) {
        // What kind of file a ghost is says nothing.
        let bits = if record.flags & GHOST == 0 { 0o177_777 } else { 0o007_777 };
        outcome.fail(MODE, (metadata.mode() ^ u32::from(record.mode)) & bits != 0);
    }
    if is_asked(DEVICE) {
        outcome.fail(DEVICE, is_other_device(record, metadata));
    }
    if is_asked(MTIME) {
        outcome.fail(MTIME, metadata.mtime() != i64::from(record.mtime));
    }
    let owners = [
        (USER, &accounts.users, metadata.uid(), &record.user),
        (GROUP, &accounts.groups, metadata.gid(), &record.group),
    ];
    for (attribute, names, number, name) in owners {
        if is_asked(attribute) {
            match names.is(number, name) {
                Some(is_same) => outcome.fail(attribute, !is_same),
                None => outcome.unknown(attribute, format!("nobody knows here who {number} is, or {name}")),
            }
        }
    }
    if is_asked(LINK) {
        match host.read_link(&record.path) {
            Ok(target) => outcome.fail(LINK, target.as_os_str().as_bytes() != &*record.link),
            Err(error) => outcome.unknown(LINK, unreadable(&record.path, &error)),
        }
    }
    if is_asked(CAPABILITIES) {
        match capabilities(host, record) {
            Ok(is_same) => outcome.fail(CAPABILITIES, !is_same),
            Err(why) => outcome.unknown(CAPABILITIES, why),
        }
    }
    if is_asked(DIGEST) {
        match digest_of(host, record) {
            Ok(found) => outcome.fail(DIGEST, !found.as_bytes().eq_ignore_ascii_case(&record.digest)),
            Err(Unhashed::Cut(cut)) => return Err(cut),
            Err(Unhashed::Because(why)) => outcome.unknown(DIGEST, why),
        }
    }
    Ok(())
}

fn is_other_device(record: &Record, metadata: &Metadata) -> bool {
    let device = |mode: u32| match mode & TYPE_BITS {
        kind @ (CHARACTER_DEVICE | BLOCK_DEVICE) => Some(kind),
        _ => None,
    };
    let wanted = device(u32::from(record.mode));
    wanted != device(metadata.mode()) || (wanted.is_some() && metadata.rdev() & 0xffff != u64::from(record.rdev))
}

/// Whether a file has the capabilities that its package says.
fn capabilities(host: &Host, record: &Record) -> Result<bool, String> {
    let wanted = str::from_utf8(&record.capabilities).ok().and_then(Capabilities::of_text);
    let wanted = wanted.ok_or_else(|| format!("{}: its package names unknown capabilities", record.path))?;
    let mut bytes = [0; 64];
    let located = host.locate(&record.path).map_err(|error| unreadable(&record.path, &error))?;
    let found = match rustix::fs::lgetxattr(located, "security.capability", &mut bytes[..]) {
        Ok(length) => bytes.get(..length).and_then(Capabilities::of_attribute),
        Err(rustix::io::Errno::NODATA | rustix::io::Errno::OPNOTSUPP) => Some(Capabilities::default()),
        Err(error) => return Err(format!("{}: its capabilities cannot be read: {error}", record.path)),
    };
    let found = found.ok_or_else(|| format!("{}: its capabilities are of an unknown kind", record.path))?;
    Ok(found == wanted)
}

fn unreadable(path: &str, error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::PermissionDenied => ProbeError::Denied(path.to_owned()).to_string(),
        _ => format!("{path}: {error}"),
    }
}

/// Why a file has no digest.
#[derive(Debug)]
enum Unhashed {
    Cut(Cut),
    Because(String),
}

/// A digest that is being made.
enum Hasher {
    Md5(Md5),
    Ring(digest::Context),
}

impl Hasher {
    /// By the number that OpenPGP gives the algorithm.
    fn new(algorithm: u32) -> Option<Self> {
        Some(Self::Ring(digest::Context::new(match algorithm {
            1 => return Some(Self::Md5(Md5::new())),
            2 => &digest::SHA1_FOR_LEGACY_USE_ONLY,
            8 => &digest::SHA256,
            9 => &digest::SHA384,
            10 => &digest::SHA512,
            _ => return None,
        })))
    }

    fn update(&mut self, piece: &[u8]) {
        match self {
            Self::Md5(hasher) => hasher.update(piece),
            Self::Ring(context) => context.update(piece),
        }
    }

    fn finish(self) -> String {
        match self {
            Self::Md5(hasher) => hex(&hasher.finalize()),
            Self::Ring(context) => hex(context.finish().as_ref()),
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn digest_of(host: &Host, record: &Record) -> Result<String, Unhashed> {
    host.breathe().map_err(Unhashed::Cut)?;
    let because = |error: io::Error| Unhashed::Because(unreadable(&record.path, &error));
    let Some(mut hasher) = Hasher::new(record.algorithm) else {
        return Err(Unhashed::Because(format!("{}: hashed by algorithm {}", record.path, record.algorithm)));
    };
    // What was a regular file a moment ago may be a link or a FIFO now.
    let flags = rustix::fs::OFlags::NONBLOCK | rustix::fs::OFlags::NOFOLLOW;
    let flags = i32::try_from(flags.bits()).unwrap_or(0);
    let located = host.locate(&record.path).map_err(because)?;
    let mut file = File::options().read(true).custom_flags(flags).open(located).map_err(because)?;
    let metadata = file.metadata().map_err(because)?;
    let most = HASHED_BYTES_MAX / 1024 / 1024;
    let unhashed = || Unhashed::Because(format!("{}: no regular file of at most {most} MiB", record.path));
    if !metadata.is_file() || metadata.size() > HASHED_BYTES_MAX {
        return Err(unhashed());
    }
    let mut piece = vec![0_u8; PIECE_BYTES];
    let mut total = 0_u64;
    loop {
        let length = match file.read(&mut piece) {
            Ok(0) => break,
            Ok(length) => length,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(because(error)),
        };
        // A file that grows while it is read ends at the limit all the same.
        total = total.saturating_add(length as u64);
        if total > HASHED_BYTES_MAX {
            return Err(unhashed());
        }
        host.count_read(length as u64).and_then(|()| host.breathe_now_and_then()).map_err(Unhashed::Cut)?;
        hasher.update(piece.get(..length).unwrap_or_default());
    }
    Ok(hasher.finish())
}
