//! The kinds of object that this version has probes for: what an object of each is asked with, and what its items have
//! (`oval-definitions-schema` and `oval-system-characteristics-schema` 5.11).

use proto::plan::Datatype;

pub mod about;

/// A kind.
#[derive(Debug)]
pub struct Kind {
    /// OVAL schema prefix and test name without `_object`.
    pub name: &'static str,
    /// The entities of an object, in the order of the schema.
    pub asked: &'static [Asked],
    /// The entities of an item, in the order of the schema.
    pub fields: &'static [&'static str],
}

/// An entity of an object.
#[derive(Debug)]
pub struct Asked {
    /// Its name.
    pub name: &'static str,
    /// Its datatype.
    pub datatype: Datatype,
    /// What asks for everything.
    pub otherwise: Otherwise,
}

/// What an entity is where a question does not say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Otherwise {
    /// Any value.
    Any,
    /// Nothing: `xsi:nil`.
    Nil,
    /// It has to be said: to look at everything would be too much.
    Needed,
    /// A path, or a directory and a name in it: one of the two has to be said.
    File,
    /// It may be asked for instead of a file.
    Instead,
}

const fn text(name: &'static str) -> Asked {
    Asked { name, datatype: Datatype::String, otherwise: Otherwise::Any }
}

const fn number(name: &'static str) -> Asked {
    Asked { name, datatype: Datatype::Int, otherwise: Otherwise::Any }
}

const fn needed(name: &'static str) -> Asked {
    Asked { name, datatype: Datatype::String, otherwise: Otherwise::Needed }
}

const fn of_file(name: &'static str) -> Asked {
    Asked { name, datatype: Datatype::String, otherwise: Otherwise::File }
}

/// Every kind, as [`proto::plan::PROBED_KINDS`] has them.
pub const KINDS: &[Kind] = &[
    Kind {
        name: "independent:environmentvariable58",
        asked: &[Asked { name: "pid", datatype: Datatype::Int, otherwise: Otherwise::Nil }, text("name")],
        fields: &["pid", "name", "value"],
    },
    Kind { name: "independent:family", asked: &[], fields: &["family"] },
    Kind {
        name: "independent:filehash58",
        asked: &[of_file("filepath"), of_file("path"), of_file("filename"), text("hash_type")],
        fields: &["filepath", "path", "filename", "hash_type", "hash", "windows_view"],
    },
    Kind {
        name: "independent:textfilecontent",
        asked: &[of_file("path"), of_file("filename"), needed("line")],
        fields: &[
            "filepath",
            "path",
            "filename",
            "pattern",
            "instance",
            "line",
            "text",
            "subexpression",
            "windows_view",
        ],
    },
    Kind {
        name: "independent:textfilecontent54",
        asked: &[of_file("filepath"), of_file("path"), of_file("filename"), needed("pattern"), number("instance")],
        fields: &[
            "filepath",
            "path",
            "filename",
            "pattern",
            "instance",
            "line",
            "text",
            "subexpression",
            "windows_view",
        ],
    },
    Kind { name: "independent:variable", asked: &[needed("var_ref")], fields: &["var_ref", "value"] },
    Kind {
        name: "independent:xmlfilecontent",
        asked: &[of_file("filepath"), of_file("path"), of_file("filename"), needed("xpath")],
        fields: &["filepath", "path", "filename", "xpath", "value_of", "windows_view"],
    },
    Kind {
        name: "independent:yamlfilecontent",
        asked: &[of_file("filepath"), of_file("path"), of_file("filename"), needed("yamlpath")],
        fields: &["filepath", "path", "filename", "yamlpath", "value"],
    },
    Kind {
        name: "linux:apparmorstatus",
        asked: &[],
        fields: &[
            "loaded_profiles_count",
            "enforce_mode_profiles_count",
            "complain_mode_profiles_count",
            "processes_with_profiles_count",
            "enforce_mode_processes_count",
            "complain_mode_processes_count",
            "unconfined_processes_with_profiles_count",
        ],
    },
    Kind {
        name: "linux:dpkginfo",
        asked: &[text("name")],
        fields: &["name", "arch", "epoch", "release", "version", "evr"],
    },
    Kind {
        name: "linux:iflisteners",
        asked: &[text("interface_name")],
        fields: &["interface_name", "protocol", "hw_address", "program_name", "pid", "user_id"],
    },
    Kind {
        name: "linux:inetlisteningservers",
        asked: &[text("protocol"), text("local_address"), number("local_port")],
        fields: &[
            "protocol",
            "local_address",
            "local_port",
            "local_full_address",
            "program_name",
            "foreign_address",
            "foreign_port",
            "foreign_full_address",
            "pid",
            "user_id",
        ],
    },
    Kind {
        name: "linux:partition",
        asked: &[text("mount_point")],
        fields: &[
            "mount_point",
            "device",
            "uuid",
            "fs_type",
            "mount_options",
            "total_space",
            "space_used",
            "space_left",
            "block_size",
        ],
    },
    Kind {
        name: "linux:rpminfo",
        asked: &[text("name")],
        fields: &["name", "arch", "epoch", "release", "version", "evr", "signature_keyid", "extended_name", "filepath"],
    },
    Kind {
        name: "linux:rpmverifyfile",
        asked: &[text("name"), text("epoch"), text("version"), text("release"), text("arch"), text("filepath")],
        fields: &[
            "name",
            "epoch",
            "version",
            "release",
            "arch",
            "filepath",
            "extended_name",
            "size_differs",
            "mode_differs",
            "md5_differs",
            "filedigest_differs",
            "device_differs",
            "link_mismatch",
            "ownership_differs",
            "group_differs",
            "mtime_differs",
            "capabilities_differ",
            "configuration_file",
            "documentation_file",
            "ghost_file",
            "license_file",
            "readme_file",
        ],
    },
    Kind {
        name: "linux:rpmverifypackage",
        asked: &[text("name"), text("epoch"), text("version"), text("release"), text("arch")],
        fields: &[
            "name",
            "epoch",
            "version",
            "release",
            "arch",
            "extended_name",
            "dependency_check_passed",
            "digest_check_passed",
            "verification_script_successful",
            "signature_check_passed",
        ],
    },
    Kind {
        name: "linux:selinuxboolean",
        asked: &[text("name")],
        fields: &["name", "current_status", "pending_status"],
    },
    Kind {
        name: "linux:selinuxsecuritycontext",
        asked: &[
            of_file("filepath"),
            of_file("path"),
            of_file("filename"),
            Asked { name: "pid", datatype: Datatype::Int, otherwise: Otherwise::Instead },
        ],
        fields: &[
            "filepath",
            "path",
            "filename",
            "pid",
            "user",
            "role",
            "type",
            "low_sensitivity",
            "low_category",
            "high_sensitivity",
            "high_category",
            "rawlow_sensitivity",
            "rawlow_category",
            "rawhigh_sensitivity",
            "rawhigh_category",
        ],
    },
    Kind { name: "linux:systemdunitdependency", asked: &[text("unit")], fields: &["unit", "dependency"] },
    Kind {
        name: "linux:systemdunitproperty",
        asked: &[text("unit"), text("property")],
        fields: &["unit", "property", "value"],
    },
    Kind {
        name: "muster:certificate",
        asked: &[text("filepath"), text("path")],
        fields: &[
            "filepath",
            "path",
            "subject",
            "issuer",
            "serial",
            "not_before",
            "not_after",
            "key_type",
            "key_bits",
            "is_ca",
            "fingerprint",
        ],
    },
    Kind { name: "muster:group", asked: &[text("name")], fields: &["name", "group_id", "member"] },
    Kind {
        name: "muster:hardware",
        asked: &[],
        fields: &[
            "cpu_model",
            "cpu_cores",
            "cpu_threads",
            "memory_bytes",
            "vendor",
            "product",
            "serial",
            "bios_version",
            "bios_date",
            "secure_boot",
        ],
    },
    Kind {
        name: "muster:kernel-module",
        asked: &[text("name")],
        fields: &["name", "size", "used_by", "state", "taint"],
    },
    Kind { name: "muster:mount", asked: &[text("target")], fields: &["target", "source", "fs_type", "option"] },
    Kind {
        name: "muster:os",
        asked: &[],
        fields: &[
            "id",
            "name",
            "version",
            "version_id",
            "codename",
            "kernel",
            "architecture",
            "boot_time",
            "timezone",
            "virtualization",
            "container",
            "hostname",
        ],
    },
    Kind {
        name: "muster:package",
        asked: &[text("manager"), text("name")],
        fields: &["manager", "name", "version", "arch", "location"],
    },
    Kind { name: "muster:script", asked: &[needed("sha256")], fields: &["sha256", "exit_code", "stdout", "stderr"] },
    Kind {
        name: "muster:service",
        asked: &[text("name")],
        fields: &["name", "load_state", "active_state", "sub_state", "enabled_state"],
    },
    Kind {
        name: "muster:socket",
        asked: &[text("protocol"), text("address"), number("port")],
        fields: &["protocol", "address", "port", "state", "pid", "program", "user_id"],
    },
    Kind {
        name: "muster:user",
        asked: &[text("name")],
        fields: &[
            "name",
            "user_id",
            "group_id",
            "gecos",
            "home",
            "shell",
            "is_locked",
            "password_state",
            "password_changed",
            "expires",
        ],
    },
    Kind {
        name: "unix:file",
        asked: &[of_file("filepath"), of_file("path"), of_file("filename")],
        fields: &[
            "filepath",
            "path",
            "filename",
            "type",
            "group_id",
            "user_id",
            "a_time",
            "c_time",
            "m_time",
            "size",
            "suid",
            "sgid",
            "sticky",
            "uread",
            "uwrite",
            "uexec",
            "gread",
            "gwrite",
            "gexec",
            "oread",
            "owrite",
            "oexec",
            "has_extended_acl",
        ],
    },
    Kind {
        name: "unix:fileextendedattribute",
        asked: &[of_file("filepath"), of_file("path"), of_file("filename"), text("attribute_name")],
        fields: &["filepath", "path", "filename", "attribute_name", "value"],
    },
    Kind {
        name: "unix:interface",
        asked: &[text("name")],
        fields: &["name", "type", "hardware_addr", "inet_addr", "broadcast_addr", "netmask", "flag"],
    },
    Kind {
        name: "unix:password",
        asked: &[text("username")],
        fields: &["username", "password", "user_id", "group_id", "gcos", "home_dir", "login_shell", "last_login"],
    },
    Kind {
        name: "unix:process58",
        asked: &[text("command_line"), number("pid")],
        fields: &[
            "command_line",
            "exec_time",
            "pid",
            "ppid",
            "priority",
            "ruid",
            "scheduling_class",
            "start_time",
            "tty",
            "user_id",
            "exec_shield",
            "loginuid",
            "posix_capability",
            "selinux_domain_label",
            "session_id",
        ],
    },
    Kind {
        name: "unix:routingtable",
        asked: &[text("destination")],
        fields: &["destination", "gateway", "flags", "interface_name"],
    },
    Kind {
        name: "unix:runlevel",
        asked: &[text("service_name"), text("runlevel")],
        fields: &["service_name", "runlevel", "start", "kill"],
    },
    Kind {
        name: "unix:shadow",
        asked: &[text("username")],
        fields: &[
            "username",
            "password",
            "chg_lst",
            "chg_allow",
            "chg_req",
            "exp_warn",
            "exp_inact",
            "exp_date",
            "flag",
            "encrypt_method",
        ],
    },
    Kind { name: "unix:symlink", asked: &[needed("filepath")], fields: &["filepath", "canonical_path"] },
    Kind { name: "unix:sysctl", asked: &[text("name")], fields: &["name", "value"] },
    Kind {
        name: "unix:uname",
        asked: &[],
        fields: &["machine_class", "node_name", "os_name", "os_release", "os_version", "processor_type"],
    },
];

/// The kind of that name.
pub fn kind(name: &str) -> Option<&'static Kind> {
    KINDS.iter().find(|kind| kind.name == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn they_are_the_kinds_that_the_vocabulary_promises() {
        let names: Vec<&str> = KINDS.iter().map(|kind| kind.name).collect();
        assert_eq!(names, proto::plan::PROBED_KINDS);
    }

    #[test]
    fn what_an_object_is_asked_with_its_items_have() {
        for kind in KINDS.iter().filter(|kind| kind.name != "independent:variable") {
            assert!(kind.asked.iter().all(|asked| kind.fields.contains(&asked.name)), "{}", kind.name);
        }
    }
}
