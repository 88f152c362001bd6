//! What is mounted in the collector's own name space, from `/proc/self/mountinfo` (proc_pid_mountinfo(5)), and which of it
//! may keep whoever looks waiting.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt as _;
use std::path::PathBuf;

/// A line of `/proc/self/mountinfo`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Mount {
    pub(crate) id: u64,
    /// What it is mounted on.
    pub(crate) parent: u64,
    /// Major and minor number of the file system's device.
    pub(crate) device: (u32, u32),
    pub(crate) target: PathBuf,
    /// Options of the mount, with commas, as they stand there.
    pub(crate) options: String,
    pub(crate) fs_type: String,
    pub(crate) source: String,
    /// Options of the file system, with commas, as they stand there.
    pub(crate) system_options: String,
}

impl Mount {
    /// `id parent device root target options tags… - type source options`; none where that is not what it is.
    pub(crate) fn parse(line: &[u8]) -> Option<Self> {
        let text = |field: &[u8]| String::from_utf8_lossy(field).into_owned();
        let number = |field: &[u8]| std::str::from_utf8(field).ok()?.parse().ok();
        let mut fields = line.split(|byte| *byte == b' ');
        let (id, parent) = (number(fields.next()?)?, number(fields.next()?)?);
        let device = text(fields.next()?);
        let (major, minor) = device.split_once(':')?;
        let device = (major.parse().ok()?, minor.parse().ok()?);
        let target = PathBuf::from(OsString::from_vec(unescaped(fields.nth(1)?)));
        let options = text(fields.next()?);
        let mut of_system = fields.skip_while(|field| *field != b"-").skip(1);
        let fs_type = String::from_utf8_lossy(&unescaped(of_system.next()?)).into_owned();
        let source = String::from_utf8_lossy(&unescaped(of_system.next()?)).into_owned();
        let system_options = text(of_system.next().unwrap_or_default());
        Some(Self { id, parent, device, target, options, fs_type, source, system_options })
    }

    /// Whether another file system is mounted over the whole of it.
    pub(crate) fn is_covered(&self, all: &[Self]) -> bool {
        all.iter().any(|other| other.parent == self.id && other.id != self.id && other.target == self.target)
    }
}

/// Everything that is mounted now. Where the kernel does not say, nothing is known of mounts.
pub(crate) fn now() -> Vec<Mount> {
    let text = std::fs::read("/proc/self/mountinfo").unwrap_or_default();
    text.split(|byte| *byte == b'\n').filter_map(Mount::parse).collect()
}

/// Blanks and the like stand as three octal digits.
pub(crate) fn unescaped(field: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((first, after)) = rest.split_first() {
        let octal = after
            .get(..3)
            .filter(|_| *first == b'\\')
            .and_then(|digits| std::str::from_utf8(digits).ok())
            .and_then(|digits| u8::from_str_radix(digits, 8).ok());
        if let Some(byte) = octal {
            bytes.push(byte);
            rest = &after[3..];
        } else {
            bytes.push(*first);
            rest = after;
        }
    }
    bytes
}

/// What `recurse_file_system="local"` does not enter, as `oscap` has it.
pub(crate) fn is_remote(fs_type: &str, source: &str) -> bool {
    matches!(
        fs_type,
        "nfs" | "nfs4" | "cifs" | "smbfs" | "smb3" | "afs" | "ceph" | "9p" | "autofs" | "fuse.sshfs" | "ncpfs" | "coda"
    ) || source.starts_with("//")
        || source.contains(":/")
}

/// Whether somebody else answers for the file system: another machine, or a process.
pub(crate) fn may_hang(fs_type: &str) -> bool {
    const SYSTEMS: &[&str] = &[
        "9p",
        "afs",
        "beegfs",
        "ceph",
        "cifs",
        "coda",
        "fuse",
        "fuseblk",
        "gfs2",
        "glusterfs",
        "gpfs",
        "lustre",
        "ncpfs",
        "nfs",
        "nfs4",
        "ocfs2",
        "orangefs",
        "pvfs2",
        "smb3",
        "smbfs",
        "vboxsf",
        "virtiofs",
    ];
    SYSTEMS.contains(&fs_type) || fs_type.starts_with("fuse.")
}

/// Whether looking into it would mount something.
pub(crate) fn is_trigger(fs_type: &str) -> bool {
    fs_type == "autofs"
}

/// What people call it.
pub(crate) fn called(fs_type: &str) -> &str {
    match fs_type {
        "nfs" | "nfs4" => "NFS",
        "cifs" | "smb3" | "smbfs" => "SMB",
        other if other.starts_with("fuse") => "FUSE",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    const LINES: &str = "22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw,errors=remount-ro\n\
                         30 22 0:44 / /mnt/a\\040b ro,nosuid shared:5 master:1 - nfs4 nas:/a\\040b rw,vers=4.2\n\
                         31 30 0:45 / /mnt/a\\040b rw - tmpfs none rw\n\
                         garbage\n";

    fn parsed(lines: &str) -> Vec<Mount> {
        lines.split('\n').filter_map(|line| Mount::parse(line.as_bytes())).collect()
    }

    #[test]
    fn a_line_is_read_and_a_damaged_one_is_none() {
        let mounts = parsed(LINES);
        let nfs = &mounts[1];
        assert_eq!(mounts.len(), 3);
        assert_eq!((nfs.id, nfs.parent, nfs.device), (30, 22, (0, 44)));
        assert_eq!((nfs.target.as_path(), nfs.source.as_str()), (Path::new("/mnt/a b"), "nas:/a b"));
        assert_eq!((nfs.fs_type.as_str(), nfs.system_options.as_str()), ("nfs4", "rw,vers=4.2"));
        for end in 0..LINES.len() {
            parsed(&LINES[..end]);
        }
    }

    #[test]
    fn what_another_is_mounted_over_is_covered() {
        let mounts = parsed(LINES);
        let covered: Vec<bool> = mounts.iter().map(|mount| mount.is_covered(&mounts)).collect();
        assert_eq!(covered, [false, true, false]);
    }

    #[test]
    fn blanks_are_unescaped() {
        assert_eq!(unescaped(br"/mnt/a\040b\\c"), br"/mnt/a b\\c");
        assert_eq!(unescaped(br"\04"), br"\04");
    }

    #[test]
    fn what_a_server_or_a_process_answers_for_may_hang() {
        for fs_type in ["nfs4", "cifs", "fuse.sshfs", "fuse", "9p", "virtiofs"] {
            assert!(may_hang(fs_type), "{fs_type}");
        }
        for fs_type in ["ext4", "xfs", "tmpfs", "proc", "overlay", "fusectl", "autofs", "nfsd"] {
            assert!(!may_hang(fs_type), "{fs_type}");
        }
        assert!(is_remote("nfs", "x") && is_remote("ext4", "nas:/x") && !is_remote("ext4", "/dev/sda1"));
    }
}
