//! A file system that does not answer: mounted for real over `/dev/fuse`, with a server that answers as many requests as a test
//! says. It has one file, `file`. The protocol is that of `linux/fuse.h`, as little of it as that takes.

use std::ffi::CString;
use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};

/// What is in its file.
pub const CONTENT: &str = "Key = value\n";

/// A mount, until it is dropped.
#[derive(Debug)]
pub struct Hung {
    target: PathBuf,
    left: Arc<Left>,
    server: Option<JoinHandle<()>>,
}

/// How many requests are answered yet; none: all of them.
#[derive(Debug)]
struct Left {
    requests: Mutex<Option<u64>>,
    changed: Condvar,
}

impl Left {
    fn set(&self, requests: Option<u64>) {
        *self.requests.lock().unwrap_or_else(PoisonError::into_inner) = requests;
        self.changed.notify_all();
    }

    /// Reads the next request that may be answered. None is read that is not: what waits in the kernel unread can still be killed.
    fn read(&self, mut device: &File, request: &mut [u8], is_counted: bool) -> std::io::Result<usize> {
        loop {
            let mut requests = self.requests.lock().unwrap_or_else(PoisonError::into_inner);
            while is_counted && *requests == Some(0) {
                requests = self.changed.wait(requests).unwrap_or_else(PoisonError::into_inner);
            }
            match device.read(request) {
                Ok(length) => {
                    if let Some(requests) = requests.as_mut().filter(|_| is_counted) {
                        *requests -= 1;
                    }
                    return Ok(length);
                }
                // There is none yet, or the one that was there is gone.
                Err(error) if matches!(error.raw_os_error(), Some(EAGAIN | EINTR | ENOENT)) => {}
                Err(error) => return Err(error),
            }
            drop(requests);
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

impl Hung {
    /// Mounts it; `None` where that is not possible, which is an error where `MUSTER_REQUIRE_MOUNT` is set.
    pub fn mount(source: &str, target: &Path) -> Option<Self> {
        match Self::try_mount(source, target) {
            Ok(hung) => Some(hung),
            Err(error) => {
                assert!(std::env::var_os("MUSTER_REQUIRE_MOUNT").is_none(), "no file system can be mounted: {error}");
                None
            }
        }
    }

    fn try_mount(source: &str, target: &Path) -> std::io::Result<Self> {
        let nonblock = i32::try_from(rustix::fs::OFlags::NONBLOCK.bits()).map_err(std::io::Error::other)?;
        let device = File::options().read(true).write(true).custom_flags(nonblock).open("/dev/fuse")?;
        let options = format!("fd={},rootmode=40000,user_id=0,group_id=0,allow_other", device.as_raw_fd());
        let options = CString::new(options).map_err(std::io::Error::other)?;
        let flags = MountFlags::NOSUID | MountFlags::NODEV;
        mount(source, target, "fuse.hung", flags, options.as_c_str())?;
        let left = Arc::new(Left { requests: Mutex::new(None), changed: Condvar::new() });
        let shared = Arc::clone(&left);
        let server = std::thread::spawn(move || serve(&device, &shared));
        Ok(Self { target: target.to_owned(), left, server: Some(server) })
    }

    /// Answers so many more requests, and then none.
    pub fn answer(&self, requests: u64) {
        self.left.set(Some(requests));
    }

    /// Answers everything, also what has waited.
    pub fn go_on(&self) {
        self.left.set(None);
    }
}

impl Drop for Hung {
    fn drop(&mut self) {
        // What waits for an answer gets an error.
        let _ = unmount(&self.target, UnmountFlags::FORCE | UnmountFlags::DETACH);
        self.left.set(None);
        if let Some(server) = self.server.take() {
            let _ = server.join();
        }
    }
}

const ENOENT: i32 = 2;
const EINTR: i32 = 4;
const EAGAIN: i32 = 11;
const ENOSYS: i32 = 38;

fn serve(device: &File, left: &Left) {
    let mut request = vec![0; 256 * 1024];
    let mut has_begun = false;
    loop {
        // When it is unmounted, nothing more comes.
        let Ok(length) = left.read(device, &mut request, has_begun) else { return };
        let word = |at: usize| u32::from_le_bytes(request[at..at + 4].try_into().expect("four bytes"));
        let long = |at: usize| u64::from_le_bytes(request[at..at + 8].try_into().expect("eight bytes"));
        let (opcode, unique, node) = (word(4), long(8), long(16));
        let body = &request[40..length];
        let answer = match opcode {
            // FORGET, INTERRUPT, BATCH_FORGET have no answer.
            2 | 36 | 42 => continue,
            1 if body.starts_with(b"file\0") => Ok(entry()),
            1 => Err(ENOENT),
            3 => Ok(attributes_out(node)),
            14 | 27 => Ok(vec![0; 16]),
            15 => Ok(if long(48) == 0 { CONTENT.as_bytes().to_vec() } else { Vec::new() }),
            17 => Ok([longs(&[100, 50, 50, 10, 5]), words(&[4096, 255, 4096, 0, 0, 0, 0, 0, 0, 0])].concat()),
            18 | 25 | 29 => Ok(Vec::new()),
            26 => {
                has_begun = true;
                Ok(words(&[7, 31, 0, 0, 0, 4096, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0]))
            }
            28 => Ok(if long(48) == 0 { listing() } else { Vec::new() }),
            _ => Err(ENOSYS),
        };
        let (error, body) = match answer {
            Ok(body) => (0, body),
            Err(error) => (-error, Vec::new()),
        };
        let mut out = u32::try_from(16 + body.len()).expect("short").to_le_bytes().to_vec();
        out.extend(error.to_le_bytes());
        out.extend(unique.to_le_bytes());
        out.extend(body);
        // Who asked may be gone.
        let _ = (&*device).write(&out);
    }
}

fn words(values: &[u32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

fn longs(values: &[u64]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

/// `fuse_attr`: the root is a directory, everything else its file.
fn attributes(node: u64) -> Vec<u8> {
    let (mode, size) = if node == 1 { (0o040_755, 0) } else { (0o100_644, CONTENT.len() as u64) };
    [longs(&[node, size, 1, 0, 0, 0]), words(&[0, 0, 0, mode, 1, 0, 0, 0, 4096, 0])].concat()
}

/// `fuse_attr_out`, good for no time at all: each look is asked for anew.
fn attributes_out(node: u64) -> Vec<u8> {
    [longs(&[0]), words(&[0, 0]), attributes(node)].concat()
}

/// `fuse_entry_out` of its file.
fn entry() -> Vec<u8> {
    [longs(&[2, 0, 0, 0]), words(&[0, 0]), attributes(2)].concat()
}

/// `fuse_dirent`s.
fn listing() -> Vec<u8> {
    let entries = [(1_u64, 4_u32, "."), (1, 4, ".."), (2, 8, "file")];
    let mut all = Vec::new();
    for (at, (node, kind, name)) in (1..).zip(entries) {
        all.extend(longs(&[node, at]));
        all.extend(words(&[u32::try_from(name.len()).expect("short"), kind]));
        all.extend(name.as_bytes());
        all.resize(all.len().next_multiple_of(8), 0);
    }
    all
}
