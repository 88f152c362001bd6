//! `independent:filehash58`: hashes of regular files, read a piece at a time. A link to a file counts as the
//! file; a socket and a link to nothing are items that are errors, as in `oscap`, and have no hash. Devices and FIFOs
//! are never opened.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, OpenOptionsExt as _};

use md5::Md5;
use oval::resolve::Query;
use proto::observation::{Collected, Item, ItemEntity, Status};
use proto::plan::Datatype;
use ring::digest;
use sha2::{Digest as _, Sha224};

use super::files::{self, Entry};
use super::troubles::Troubles;
use super::{Probe, ProbeError, finish};
use crate::host::{Away, Cut, Host};

pub(crate) struct FileHash58;

/// Bytes that are read at a time.
const PIECE_BYTES: usize = 64 * 1024;
/// Bytes of one file that is hashed. Files below `/proc` may have no end.
const HASHED_BYTES_MAX: u64 = 1024 * 1024 * 1024;

/// `EntityObjectHashTypeType`.
const ALGORITHMS: [&str; 6] = ["MD5", "SHA-1", "SHA-224", "SHA-256", "SHA-384", "SHA-512"];

impl Probe for FileHash58 {
    const KIND: &'static str = "independent:filehash58";

    fn collect(host: &Host, query: &Query) -> Result<Collected, ProbeError> {
        let Some(hash_type) = query.entity("hash_type") else { return Ok(finish(Vec::new(), Vec::new())) };
        let mut algorithms = Vec::new();
        for name in ALGORITHMS {
            if hash_type.matches(name)? {
                algorithms.push(name);
            }
        }
        if algorithms.is_empty() {
            return Ok(finish(Vec::new(), Vec::new()));
        }
        let found = files::find(host, query)?;
        let mut items = Vec::new();
        let mut troubles = Troubles::default();
        for entry in found.entries.iter().filter(|entry| entry.filename.is_some()) {
            match hashes(host, &entry.filepath(), &algorithms) {
                Ok(hashes) => {
                    items.extend(
                        hashes.into_iter().map(|(name, hash)| item(entry, name, Some(ItemEntity::text("hash", hash)))),
                    );
                }
                Err(Unhashed::NoFile) => {}
                Err(Unhashed::Cut(reason)) => {
                    troubles.cut(reason);
                    break;
                }
                Err(Unhashed::Broken(what)) => {
                    items.extend(algorithms.iter().map(|name| Item {
                        status: Status::Error,
                        message: Some(what.clone()),
                        ..item(entry, name, None)
                    }));
                }
                Err(Unhashed::NotCollected(what)) => {
                    items.extend(algorithms.iter().map(|name| {
                        let hash = ItemEntity::without_value("hash", Datatype::String, Status::NotCollected);
                        Item {
                            status: Status::NotCollected,
                            message: Some(what.clone()),
                            ..item(entry, name, Some(hash))
                        }
                    }));
                }
            }
        }
        Ok(troubles.flag(items, found))
    }
}

fn item(entry: &Entry, algorithm: &str, hash: Option<ItemEntity>) -> Item {
    let mut entities = entry.entities();
    entities.push(ItemEntity::text("hash_type", algorithm));
    entities.extend(hash);
    Item::new(FileHash58::KIND, entities)
}

/// Why a file has no hash.
#[derive(Debug)]
enum Unhashed {
    /// It is a directory, a device or a FIFO, or it is gone: no item.
    NoFile,
    Cut(Cut),
    Broken(String),
    NotCollected(String),
}

impl From<Cut> for Unhashed {
    fn from(cut: Cut) -> Self {
        Self::Cut(cut)
    }
}

/// One hash that is being made.
enum Hasher {
    Ring(digest::Context),
    Md5(Md5),
    Sha224(Sha224),
}

impl Hasher {
    fn new(algorithm: &str) -> Option<Self> {
        Some(match algorithm {
            "MD5" => Self::Md5(Md5::new()),
            "SHA-1" => Self::Ring(digest::Context::new(&digest::SHA1_FOR_LEGACY_USE_ONLY)),
            "SHA-224" => Self::Sha224(Sha224::new()),
            "SHA-256" => Self::Ring(digest::Context::new(&digest::SHA256)),
            "SHA-384" => Self::Ring(digest::Context::new(&digest::SHA384)),
            "SHA-512" => Self::Ring(digest::Context::new(&digest::SHA512)),
            _ => return None,
        })
    }

    fn update(&mut self, piece: &[u8]) {
        match self {
            Self::Ring(context) => context.update(piece),
            Self::Md5(hasher) => hasher.update(piece),
            Self::Sha224(hasher) => hasher.update(piece),
        }
    }

    fn finish(self) -> String {
        match self {
            Self::Ring(context) => hex(context.finish().as_ref()),
            Self::Md5(hasher) => hex(&hasher.finalize()),
            Self::Sha224(hasher) => hex(&hasher.finalize()),
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

/// The hashes of one file, which is read once for all of them.
fn hashes<'name>(
    host: &Host,
    filepath: &str,
    algorithms: &[&'name str],
) -> Result<Vec<(&'name str, String)>, Unhashed> {
    host.breathe()?;
    let located = host.locate_followed(filepath).map_err(|error| unhashed(filepath, &error))?;
    // Without this look, opening a device could have effects; `O_NONBLOCK` covers the race.
    match std::fs::metadata(&located) {
        Ok(metadata) if metadata.is_file() => {}
        Ok(metadata) if metadata.file_type().is_socket() => {
            return Err(Unhashed::Broken(format!("{filepath}: a socket cannot be read")));
        }
        Ok(_) => return Err(Unhashed::NoFile),
        // The name is still there: it is a link that leads to nothing.
        Err(_) if host.lstat(filepath).is_ok_and(|metadata| metadata.is_symlink()) => {
            return Err(Unhashed::Broken(format!("{filepath}: the link leads to nothing that can be read")));
        }
        Err(error) => return Err(unhashed(filepath, &error)),
    }
    let nonblock = i32::try_from(rustix::fs::OFlags::NONBLOCK.bits()).unwrap_or(0);
    let opened = File::options().read(true).custom_flags(nonblock).open(located);
    let mut file = opened.map_err(|error| unhashed(filepath, &error))?;
    let metadata = file.metadata().map_err(|error| unhashed(filepath, &error))?;
    if !metadata.is_file() {
        return Err(Unhashed::NoFile);
    }
    let too_large = || {
        let most = HASHED_BYTES_MAX / 1024 / 1024;
        Unhashed::NotCollected(format!("{filepath}: larger than {most} MiB: files of that size are not hashed"))
    };
    if metadata.size() > HASHED_BYTES_MAX {
        return Err(too_large());
    }
    let mut hashers: Vec<(&str, Hasher)> =
        algorithms.iter().filter_map(|name| Hasher::new(name).map(|hasher| (*name, hasher))).collect();
    let mut piece = vec![0_u8; PIECE_BYTES];
    let mut total = 0_u64;
    loop {
        let length = match file.read(&mut piece) {
            Ok(0) => break,
            Ok(length) => length,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(unhashed(filepath, &error)),
        };
        // A file that grows while it is read ends at the limit all the same.
        total = total.saturating_add(length as u64);
        host.count_read(length as u64)?;
        if total > HASHED_BYTES_MAX {
            return Err(too_large());
        }
        let read = piece.get(..length).unwrap_or_default();
        for (_, hasher) in &mut hashers {
            hasher.update(read);
        }
        host.breathe_now_and_then()?;
    }
    Ok(hashers.into_iter().map(|(name, hasher)| (name, hasher.finish())).collect())
}

fn unhashed(filepath: &str, error: &io::Error) -> Unhashed {
    match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => Unhashed::NoFile,
        io::ErrorKind::PermissionDenied => Unhashed::NotCollected(ProbeError::Denied(filepath.to_owned()).to_string()),
        _ if Away::behind(error).is_some() => Unhashed::NotCollected(format!("{filepath}: {error}")),
        _ => Unhashed::Broken(format!("{filepath}: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use oval::resolve::QueryEntity;
    use proto::observation::Flag;
    use proto::plan::{Check, Operation};
    use std::os::unix::fs::symlink;

    fn entity(name: &str, operation: Operation, value: &str) -> QueryEntity {
        QueryEntity {
            name: name.into(),
            operation,
            datatype: Datatype::String,
            values: vec![value.into()],
            var_check: Check::All,
            is_nil: false,
        }
    }

    fn collect(host: &Host, filename: &str, hash_type: (Operation, &str)) -> Collected {
        let query = Query {
            kind: FileHash58::KIND.into(),
            entities: vec![
                entity("path", Operation::Equals, "/t"),
                entity("filename", Operation::PatternMatch, filename),
                entity("hash_type", hash_type.0, hash_type.1),
            ],
            behaviors: std::collections::BTreeMap::new(),
        };
        FileHash58::collect(host, &query).unwrap_or_else(Collected::from)
    }

    fn tree() -> (tempfile::TempDir, Host) {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(root.path().join("t/dir")).unwrap();
        std::fs::write(root.path().join("t/abc"), "abc").unwrap();
        std::fs::write(root.path().join("t/empty"), "").unwrap();
        symlink("abc", root.path().join("t/link")).unwrap();
        symlink("dir", root.path().join("t/way")).unwrap();
        symlink("nowhere", root.path().join("t/dangling")).unwrap();
        let fifo = root.path().join("t/fifo");
        rustix::fs::mknodat(rustix::fs::CWD, &fifo, rustix::fs::FileType::Fifo, rustix::fs::Mode::RUSR, 0).unwrap();
        let host = Host::new(root.path());
        (root, host)
    }

    #[track_caller]
    fn check(algorithm: &str, expect: &str) {
        let (_root, host) = tree();
        let collected = collect(&host, "^abc$", (Operation::Equals, algorithm));
        assert_eq!(collected.flag, Flag::Complete);
        assert_eq!(collected.items[0].value("hash_type"), Some(algorithm));
        assert_eq!(collected.items[0].value("hash"), Some(expect));
    }

    #[test]
    fn every_algorithm_gives_its_published_hash() {
        check("MD5", "900150983cd24fb0d6963f7d28e17f72");
        check("SHA-1", "a9993e364706816aba3e25717850c26c9cd0d89d");
        check("SHA-224", "23097d223405d8228642a477bda255b32aadbce4bda0b3f7e36c9da7");
        check("SHA-256", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
        check(
            "SHA-384",
            "cb00753f45a35e8bb5a03d699ac65007272c32ab0eded1631a8b605a43ff5bed8086072ba1e7cc2358baeca134c825a7",
        );
        check(
            "SHA-512",
            concat!(
                "ddaf35a193617abacc417349ae20413112e6fa4e89a97ea20a9eeee64b55d39a",
                "2192992a274fc1a836ba3c23a3feebbd454d4423643ce80e2a9ac94fa54ca49f"
            ),
        );
    }

    #[test]
    fn a_file_larger_than_one_piece_is_hashed_whole() {
        let (root, host) = tree();
        std::fs::write(root.path().join("t/a"), vec![b'a'; 1_000_000]).unwrap();
        let collected = collect(&host, "^a$", (Operation::Equals, "SHA-1"));
        assert_eq!(collected.items[0].value("hash"), Some("34aa973cd4c4daa4f61eeb2bdbad27316534016f"));
    }

    #[test]
    fn links_to_files_count_directories_and_fifos_do_not_and_a_link_to_nothing_and_a_socket_are_errors() {
        let (root, host) = tree();
        let _listener = std::os::unix::net::UnixListener::bind(root.path().join("t/socket")).unwrap();
        symlink("socket", root.path().join("t/to-socket")).unwrap();
        let collected = collect(&host, ".*", (Operation::Equals, "MD5"));
        assert_eq!(collected.flag, Flag::Error);
        let mut found: Vec<_> = collected
            .items
            .iter()
            .map(|item| (item.value("filename").unwrap(), item.value("hash"), item.status))
            .collect();
        found.sort_unstable();
        assert_eq!(
            found,
            [
                ("abc", Some("900150983cd24fb0d6963f7d28e17f72"), Status::Exists),
                ("dangling", None, Status::Error),
                ("empty", Some("d41d8cd98f00b204e9800998ecf8427e"), Status::Exists),
                ("link", Some("900150983cd24fb0d6963f7d28e17f72"), Status::Exists),
                ("socket", None, Status::Error),
                ("to-socket", None, Status::Error),
            ]
        );
        let broken = collected.items.iter().filter(|item| item.status == Status::Error);
        assert_eq!(broken.flat_map(|item| item.named("hash")).count(), 0);
    }

    #[test]
    fn a_pattern_means_every_algorithm_that_it_matches() {
        let (_root, host) = tree();
        let types = |operation, value: &str| -> Vec<String> {
            let collected = collect(&host, "^abc$", (operation, value));
            collected.items.iter().filter_map(|item| item.value("hash_type")).map(str::to_owned).collect()
        };
        assert_eq!(types(Operation::PatternMatch, "^SHA-[23]"), ["SHA-224", "SHA-256", "SHA-384"]);
        assert_eq!(types(Operation::NotEqual, "MD5").len(), 5);
        assert!(types(Operation::Equals, "CRC").is_empty());
    }

    #[test]
    fn a_file_over_the_limit_is_not_collected_and_says_so() {
        let (root, host) = tree();
        let sparse = File::create(root.path().join("t/sparse")).unwrap();
        sparse.set_len(HASHED_BYTES_MAX + 1).unwrap();
        let collected = collect(&host, "^sparse$", (Operation::Equals, "MD5"));
        assert_eq!(collected.items[0].status, Status::NotCollected);
        assert!(collected.items[0].message.as_deref().unwrap().contains("1024 MiB"));
    }
}
