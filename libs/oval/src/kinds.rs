//! The kinds of object that this version has probes for: what an object of each is asked with, and what its items have
//! (`oval-definitions-schema` and `oval-system-characteristics-schema` 5.11).

use proto::plan::Datatype;

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
        name: "linux:dpkginfo",
        asked: &[text("name")],
        fields: &["name", "arch", "epoch", "release", "version", "evr"],
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
    Kind { name: "linux:systemdunitdependency", asked: &[text("unit")], fields: &["unit", "dependency"] },
    Kind {
        name: "linux:systemdunitproperty",
        asked: &[text("unit"), text("property")],
        fields: &["unit", "property", "value"],
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
        name: "unix:password",
        asked: &[text("username")],
        fields: &["username", "password", "user_id", "group_id", "gcos", "home_dir", "login_shell", "last_login"],
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
