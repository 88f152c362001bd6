//! What each kind is, and where a collector finds it: the source of `docs/probes.md`.

use super::{KINDS, Otherwise};

/// A kind in words.
#[derive(Debug)]
pub struct About {
    /// Its name.
    pub name: &'static str,
    /// What its items are.
    pub what: &'static str,
    /// Where they come from.
    pub source: &'static str,
    /// Its fields, where no OVAL schema documents them.
    pub fields: &'static [(&'static str, &'static str)],
}

const fn of(name: &'static str, what: &'static str, source: &'static str) -> About {
    About { name, what, source, fields: &[] }
}

/// Every kind of [`KINDS`], in its order.
pub const ABOUT: &[About] = &[
    of("independent:environmentvariable58", "environment variables of a process", "`/proc/PID/environ`"),
    of("independent:family", "the family of the operating system", "always `unix`"),
    of("independent:filehash58", "hashes of files: MD5, SHA-1, SHA-224 to SHA-512", "the files, at most 1 GiB each"),
    of("independent:textfilecontent", "matches of a pattern in the lines of a file", "the files"),
    of(
        "independent:textfilecontent54",
        "matches of a pattern in the text of a file",
        "the files, each read once a task",
    ),
    of("independent:variable", "the values of a variable", "the plan: no endpoint is looked at"),
    of(
        "independent:xmlfilecontent",
        "what an XPath 1.0 expression selects in XML",
        "the files; no DTD, nothing fetched",
    ),
    of("independent:yamlfilecontent", "what a YAML path leads to, as records", "the files; every document of each"),
    of("linux:apparmorstatus", "how many profiles and processes AppArmor has", "securityfs, `/proc/PID/attr`"),
    of("linux:dpkginfo", "packages that dpkg has installed", "`/var/lib/dpkg/status`"),
    of("linux:iflisteners", "programs with packet sockets", "`/proc/net/packet`, `/proc/PID/fd`"),
    of("linux:inetlisteningservers", "sockets of the internet families", "`/proc/net`, `/proc/PID/fd`"),
    of("linux:partition", "file systems that are mounted, with their space", "`/proc/mounts`, `statvfs`"),
    of("linux:rpminfo", "packages that RPM has installed", "the RPM database: SQLite, ndb, Berkeley DB"),
    of("linux:rpmverifyfile", "files against what RPM knows of them", "the RPM database and the files"),
    of("linux:rpmverifypackage", "packages against what RPM knows of them", "the RPM database and the files"),
    of("linux:selinuxboolean", "SELinux's booleans", "`/sys/fs/selinux/booleans`"),
    of(
        "linux:selinuxsecuritycontext",
        "SELinux's labels of files and processes",
        "`security.selinux`, `/proc/PID/attr`",
    ),
    of(
        "linux:systemdunitdependency",
        "what a systemd unit pulls in",
        "systemd over D-Bus; unit files where it does not run",
    ),
    of(
        "linux:systemdunitproperty",
        "properties of systemd's units",
        "systemd over D-Bus; unit files where it does not run",
    ),
    About {
        name: "muster:certificate",
        what: "X.509 certificates in files; no private key is ever decoded",
        source: "`/etc/ssl/certs`, `/etc/pki/tls/certs`, `/etc/ssl/private`, or where the question says",
        fields: &[
            ("filepath", "the file"),
            ("path", "its directory"),
            ("subject", "the subject's distinguished name"),
            ("issuer", "the issuer's distinguished name"),
            ("serial", "the serial number, lower-case hexadecimal"),
            ("not_before", "since when it is valid, seconds since the epoch, UTC"),
            ("not_after", "until when it is valid, seconds since the epoch, UTC"),
            ("key_type", "`rsa`, `ec`, `ed25519`, …"),
            ("key_bits", "the key's size in bits"),
            ("is_ca", "whether it may sign others"),
            ("fingerprint", "SHA-256 of the certificate, lower-case hexadecimal"),
        ],
    },
    About {
        name: "muster:group",
        what: "groups of the machine itself",
        source: "`/etc/group`",
        fields: &[("name", "the group"), ("group_id", "its number"), ("member", "users that it names, each a value")],
    },
    About {
        name: "muster:hardware",
        what: "the machine",
        source: "`/proc/cpuinfo`, `/proc/meminfo`, `/sys/class/dmi/id`, EFI variables",
        fields: &[
            ("cpu_model", "the processor's name"),
            ("cpu_cores", "cores of all processors"),
            ("cpu_threads", "processors as the kernel counts them"),
            ("memory_bytes", "memory in bytes"),
            ("vendor", "who made the machine"),
            ("product", "what it is called"),
            ("serial", "its serial number; root's to read"),
            ("bios_version", "the firmware's version"),
            ("bios_date", "the firmware's day, seconds since the epoch, UTC"),
            ("secure_boot", "whether the firmware starts signed systems alone; no value without EFI"),
        ],
    },
    About {
        name: "muster:kernel-module",
        what: "modules that are loaded into the kernel",
        source: "`/proc/modules`",
        fields: &[
            ("name", "the module"),
            ("size", "its size in bytes"),
            ("used_by", "modules that use it, each a value"),
            ("state", "`live`, `loading` or `unloading`"),
            ("taint", "a letter of the kernel's for each reason, such as `E` for one without a good signature"),
        ],
    },
    About {
        name: "muster:mount",
        what: "what is mounted, in order",
        source: "`/proc/self/mountinfo`",
        fields: &[
            ("target", "where"),
            ("source", "what"),
            ("fs_type", "the type of file system"),
            ("option", "options of the mount and of the file system, each a value"),
        ],
    },
    About {
        name: "muster:os",
        what: "the operating system",
        source: "`/etc/os-release`, `/proc`, `/etc/localtime`, firmware",
        fields: &[
            ("id", "`ID` of os-release"),
            ("name", "`NAME` of os-release"),
            ("version", "`VERSION` of os-release"),
            ("version_id", "`VERSION_ID` of os-release"),
            ("codename", "`VERSION_CODENAME` of os-release"),
            ("kernel", "the kernel's release"),
            ("architecture", "the machine's, such as `x86_64`"),
            ("boot_time", "when it started, seconds since the epoch, UTC"),
            ("timezone", "the zone's name"),
            ("virtualization", "the hypervisor, or `none`; a hint"),
            ("container", "the container manager, or `none`; a hint"),
            ("hostname", "the kernel's host name"),
        ],
    },
    About {
        name: "muster:package",
        what: "packages of every manager",
        source: "dpkg's and RPM's databases; Python's and npm's metadata below `/usr`, `/usr/local` and `/opt`",
        fields: &[
            ("manager", "`dpkg`, `rpm`, `pip` or `npm`"),
            ("name", "the package"),
            ("version", "its version, as its manager writes it"),
            ("arch", "its architecture"),
            ("location", "where that is known from"),
        ],
    },
    About {
        name: "muster:script",
        what: "what scripts of a policy (SCE) say, where the endpoint's operator has allowed them",
        source: "the script, which runs in a sandbox ([ADR 31](adr/0031-scripts.md)); refused otherwise",
        fields: &[
            ("sha256", "SHA-256 of the script, lower-case hexadecimal"),
            ("exit_code", "its exit code; minus the signal that ended it"),
            ("stdout", "what it wrote, at most 16 KiB"),
            ("stderr", "what it wrote as errors, at most 16 KiB"),
        ],
    },
    About {
        name: "muster:service",
        what: "systemd's services, also those that only have a file",
        source: "systemd over D-Bus; unit files where it does not run",
        fields: &[
            ("name", "the unit"),
            ("load_state", "`LoadState`, such as `loaded`, `masked`, `not-found`"),
            ("active_state", "`ActiveState`, such as `active`, `inactive`, `failed`"),
            ("sub_state", "`SubState`, such as `running`"),
            ("enabled_state", "`UnitFileState`, such as `enabled`, `static`"),
        ],
    },
    About {
        name: "muster:socket",
        what: "sockets that wait for others: TCP that listens, UDP that is bound",
        source: "`/proc/net`, `/proc/PID/fd`",
        fields: &[
            ("protocol", "`tcp` or `udp`"),
            ("address", "the local address"),
            ("port", "the local port"),
            ("state", "`listening` or `bound`"),
            ("pid", "the process that holds it"),
            ("program", "that process's name"),
            ("user_id", "the socket's owner"),
        ],
    },
    About {
        name: "muster:user",
        what: "users of the machine itself",
        source: "`/etc/passwd`, `/etc/shadow`; a hash is never told",
        fields: &[
            ("name", "the user"),
            ("user_id", "its number"),
            ("group_id", "its group's number"),
            ("gecos", "the comment"),
            ("home", "the home directory"),
            ("shell", "the login shell"),
            ("is_locked", "whether no password opens it"),
            ("password_state", "`set`, `locked`, `none` or `empty`"),
            ("password_changed", "the day it was changed, seconds since the epoch, UTC; 0: must be changed"),
            ("expires", "the day the account ends, seconds since the epoch, UTC"),
        ],
    },
    of("unix:file", "files and directories: type, owner, size, times, permissions", "`lstat`, one walk a task"),
    of("unix:fileextendedattribute", "extended attributes of files", "`lgetxattr`"),
    of("unix:interface", "network interfaces and their addresses", "the kernel, over rtnetlink"),
    of("unix:password", "users", "`/etc/passwd`, `/var/log/lastlog`"),
    of("unix:process58", "processes", "`/proc/PID`"),
    of("unix:routingtable", "routes", "`/proc/net/route`, `/proc/net/ipv6_route`"),
    of("unix:runlevel", "which services of System V start in which runlevel", "`/etc/rc?.d`, `/etc/init.d`"),
    of("unix:shadow", "passwords of users", "`/etc/shadow`"),
    of("unix:symlink", "where symbolic links lead", "`readlink`"),
    of("unix:sysctl", "kernel parameters", "`/proc/sys`"),
    of("unix:uname", "the kernel's name and release", "`/proc/sys/kernel`"),
];

/// `docs/probes.md`.
pub fn probes_md() -> String {
    use std::fmt::Write as _;
    let mut page = String::from(
        "# What collectors can look at\n\n\
         Made from `libs/oval/src/kinds`. Kinds of OVAL have the entities of the OVAL 5.11 schemas; kinds of Muster's own begin \
         with `muster:` and are documented below. A policy asks with objects; an operator asks with `muster query`, \
         such as `muster query --collect \"muster:package where manager = 'pip' and name = 'requests'\"`. Nothing is run but scripts that the \
         endpoint's operator has allowed: everything else is read in-process. What is in a mount that does not answer is not collected, and \
         the mount is named.\n\n\
         | kind | what | asked with | from |\n|---|---|---|---|\n",
    );
    for (kind, about) in KINDS.iter().zip(ABOUT) {
        let asked: Vec<String> = kind
            .asked
            .iter()
            .map(|asked| match asked.otherwise {
                Otherwise::Needed => format!("**`{}`**", asked.name),
                _ => format!("`{}`", asked.name),
            })
            .collect();
        // Writing to text cannot fail.
        let _ = writeln!(page, "| `{}` | {} | {} | {} |", kind.name, about.what, asked.join(", "), about.source);
    }
    page.push_str("\nWhat stands in bold has to be said; of files, `filepath`, or `path` and `filename`.\n");
    for (kind, about) in KINDS.iter().zip(ABOUT).filter(|(_, about)| !about.fields.is_empty()) {
        let _ = write!(
            page,
            "\n## `{}`\n\nFrom {}: {}.\n\n| field | is |\n|---|---|\n",
            kind.name, about.source, about.what
        );
        for (name, is) in about.fields {
            let _ = writeln!(page, "| `{name}` | {is} |");
        }
    }
    page
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_is_told_and_every_field_of_our_own() {
        let names: Vec<&str> = ABOUT.iter().map(|about| about.name).collect();
        assert_eq!(names, KINDS.iter().map(|kind| kind.name).collect::<Vec<_>>());
        for (kind, about) in KINDS.iter().zip(ABOUT) {
            let told: Vec<&str> = about.fields.iter().map(|(name, _)| *name).collect();
            let expected: &[&str] = if kind.name.starts_with("muster:") { kind.fields } else { &[] };
            assert_eq!(told, expected, "{}", kind.name);
        }
    }
}
