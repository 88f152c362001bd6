//! What tells of an object of a plan: files that it reads, and the other ways.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use proto::plan::{CollectionPlan, Entity, EntityValue, Object, ObjectKey, ObjectSet, Operation, SetOperand};

use super::ways::Way;

/// What tells of an object.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reach {
    /// Files and directories, by the endpoint's own paths: if one of them changes, or an entry of it, the object may have.
    pub(super) places: BTreeSet<String>,
    /// The same, where something else tells what they do not.
    pub(super) hints: BTreeSet<String>,
    /// Other ways in which it is told of.
    pub(super) ways: BTreeSet<Way>,
    /// Whether the object can change in no other way than by its places and ways; otherwise it is looked at again and again
    /// as well.
    pub(super) is_whole: bool,
}

impl Reach {
    /// Every file that tells of it.
    pub(super) fn files(&self) -> impl Iterator<Item = &String> {
        self.places.iter().chain(&self.hints)
    }
}

/// What tells of each object that a plan reports.
pub fn reaches(plan: &CollectionPlan) -> BTreeMap<ObjectKey, Reach> {
    plan.report.iter().map(|key| (key.clone(), reach(plan, key, 0))).collect()
}

fn reach(plan: &CollectionPlan, key: &ObjectKey, depth: usize) -> Reach {
    match plan.objects.get(key) {
        Some(Object { set: Some(set), filters, .. }) if depth < 16 => {
            let mut of_set = of_set(plan, set, depth + 1);
            of_set.is_whole &= filters.iter().chain(&set.filters).all(|filter| {
                let state = plan.states.get(&filter.state);
                state.is_some_and(|state| state.entities.iter().all(|entity| entity.variables().is_empty()))
            });
            of_set
        }
        Some(object) if depth < 16 => of_object(object),
        _ => Reach::default(),
    }
}

fn of_set(plan: &CollectionPlan, set: &ObjectSet, depth: usize) -> Reach {
    let mut whole = Reach { is_whole: true, ..Reach::default() };
    for operand in &set.operands {
        let of_operand = match operand {
            SetOperand::Object(key) => reach(plan, key, depth),
            SetOperand::Set(set) if depth < 16 => of_set(plan, set, depth + 1),
            SetOperand::Set(_) => Reach::default(),
        };
        whole.places.extend(of_operand.places);
        whole.hints.extend(of_operand.hints);
        whole.ways.extend(of_operand.ways);
        whole.is_whole &= of_operand.is_whole;
    }
    whole
}

pub(super) fn of_object(object: &Object) -> Reach {
    // What a filter compares with may come from elsewhere.
    let is_plain = object.filters.is_empty();
    let is_fixed = is_plain && object.entities.iter().all(|entity| entity.variables().is_empty());
    let owned = |paths: &[&str]| paths.iter().map(|path| (*path).to_owned()).collect();
    let files = |paths: &[&str]| Reach { places: owned(paths), is_whole: is_fixed, ..Reach::default() };
    let told = |way: Way| Reach { ways: BTreeSet::from([way]), ..Reach::default() };
    match object.kind.as_str() {
        // The last login comes from elsewhere.
        "unix:password" => files(&["/etc/passwd", "/var/log/lastlog"]),
        "unix:shadow" => files(&["/etc/shadow"]),
        "linux:dpkginfo" => files(&["/var/lib/dpkg/status"]),
        "muster:group" => files(&["/etc/group"]),
        "muster:user" => files(&["/etc/passwd", "/etc/shadow"]),
        "independent:filehash58"
        | "independent:textfilecontent"
        | "independent:textfilecontent54"
        | "independent:xmlfilecontent"
        | "independent:yamlfilecontent"
        | "unix:file"
        | "unix:fileextendedattribute"
        | "unix:symlink" => of_files(object, is_plain),
        // Of a file that nobody has made known to it yet, systemd tells nothing.
        "linux:systemdunitdependency" | "linux:systemdunitproperty" | "muster:service" => {
            Reach { hints: owned(&UNIT_DIRECTORIES), is_whole: is_fixed, ..told(Way::Units) }
        }
        // Nobody tells of space, nor of a file system that becomes read-only by itself.
        "linux:partition" | "muster:mount" => told(Way::Mounts),
        // Nobody tells of the processes that hold sockets, nor of connections.
        "linux:iflisteners" | "linux:inetlisteningservers" | "muster:socket" => told(Way::Sockets),
        "unix:routingtable" => told(Way::Routes),
        "unix:sysctl" => of_parameter(object, is_fixed),
        // What these files say is not all that the object is about: the rest is looked at again and again.
        "linux:rpminfo" | "linux:rpmverifyfile" | "linux:rpmverifypackage" => {
            Reach { is_whole: false, ..files(&RPM_DIRECTORIES) }
        }
        "muster:package" => Reach { is_whole: false, ..files(&["/var/lib/dpkg/status", "/var/lib/rpm"]) },
        _ => Reach::default(),
    }
}

/// Where systemd's units have their files.
const UNIT_DIRECTORIES: [&str; 6] = [
    "/etc/systemd/system",
    "/lib/systemd/system",
    "/run/systemd/system",
    "/usr/lib/systemd/system",
    "/usr/local/lib/systemd/system",
    "/etc/init.d",
];
/// Where RPM has its database.
const RPM_DIRECTORIES: [&str; 3] = ["/usr/lib/sysimage/rpm", "/usr/share/rpm", "/var/lib/rpm"];

/// The contents of pseudo file systems change without a word.
pub(super) fn is_told(path: &str) -> bool {
    !["/proc", "/sys", "/dev"].iter().any(|silent| Path::new(path).starts_with(silent))
}

/// The parameter that `name` is equal to.
fn of_parameter(object: &Object, is_fixed: bool) -> Reach {
    let name = object.entities.iter().find(|entity| entity.name == "name");
    match name.map(|entity| (entity.operation, &entity.value)) {
        // Of others no file can be named.
        Some((Operation::Equals, EntityValue::Literal(name)))
            if !name.contains('/') && name.split('.').all(|part| !part.is_empty()) =>
        {
            Reach { ways: BTreeSet::from([Way::Parameter(name.clone())]), is_whole: is_fixed, ..Reach::default() }
        }
        _ => Reach::default(),
    }
}

/// The files that `filepath`, or `path` and `filename`, name.
fn of_files(object: &Object, is_plain: bool) -> Reach {
    let entity = |name: &str| object.entities.iter().find(|entity| entity.name == name);
    let is_recursive = object.behaviors.get("recurse_direction").is_some_and(|direction| direction != "none");
    let one = |path: String, is_whole: bool| Reach {
        is_whole: is_whole && is_plain && !is_recursive && is_told(&path),
        places: BTreeSet::from([path]),
        ..Reach::default()
    };
    let joined = |directory: &str, name: &str| format!("{}/{name}", directory.trim_end_matches('/'));
    match (entity("filepath"), entity("path"), entity("filename")) {
        (Some(filepath), ..) => match named(filepath) {
            Named::Exactly(path) => one(path, true),
            Named::Below(directory) => one(directory, false),
            Named::Nothing => Reach::default(),
        },
        (None, Some(path), Some(filename)) => match (named(path), named(filename)) {
            (Named::Exactly(path), Named::Exactly(name)) => one(joined(&path, &name), true),
            // Whatever the name is, it is an entry of that directory.
            (Named::Exactly(path), _) if filename.variables().is_empty() => one(path, true),
            (Named::Exactly(path) | Named::Below(path), _) => one(path, false),
            (Named::Nothing, _) => Reach::default(),
        },
        (None, Some(path), None) => match named(path) {
            Named::Exactly(path) => one(path, true),
            Named::Below(path) => one(path, false),
            Named::Nothing => Reach::default(),
        },
        _ => Reach::default(),
    }
}

enum Named {
    Exactly(String),
    /// Somewhere below, as a pattern begins.
    Below(String),
    Nothing,
}

fn named(entity: &Entity) -> Named {
    let EntityValue::Literal(value) = &entity.value else { return Named::Nothing };
    match entity.operation {
        Operation::Equals => Named::Exactly(value.clone()),
        Operation::PatternMatch => {
            let Some(rest) = value.strip_prefix('^') else { return Named::Nothing };
            // Up to the first character that means something, back to the last slash.
            let mut literal = String::new();
            let mut characters = rest.chars();
            while let Some(character) = characters.next() {
                match character {
                    '\\' => match characters.next() {
                        Some(escaped) if !escaped.is_ascii_alphanumeric() => literal.push(escaped),
                        _ => break,
                    },
                    '.' | '*' | '+' | '?' | '(' | ')' | '[' | ']' | '{' | '}' | '|' | '$' | '^' => break,
                    character => literal.push(character),
                }
            }
            // What is optional or repeated is not certain.
            match literal.rfind('/') {
                Some(at) if at > 0 && !rest.contains('|') => Named::Below(literal[..at].to_owned()),
                _ => Named::Nothing,
            }
        }
        _ => Named::Nothing,
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in crate::watch) fn object(kind: &str, entities: &[(&str, Operation, &str)]) -> Object {
        let entity = |(name, operation, value): &(&str, Operation, &str)| Entity {
            name: (*name).to_owned(),
            operation: *operation,
            datatype: proto::plan::Datatype::String,
            value: EntityValue::Literal((*value).to_owned()),
            var_check: proto::plan::Check::All,
            entity_check: proto::plan::Check::All,
            check_existence: proto::plan::Existence::AtLeastOneExists,
            mask: false,
        };
        Object {
            kind: kind.to_owned(),
            entities: entities.iter().map(entity).collect(),
            behaviors: BTreeMap::new(),
            filters: Vec::new(),
            set: None,
        }
    }

    use Operation::{Equals, PatternMatch};

    #[test]
    fn files_tell_of_what_is_read_from_them_and_only_where_that_is_certain_is_nothing_else_needed() {
        let cases: [(Object, &[&str], bool); 11] = [
            (object("unix:file", &[("filepath", Equals, "/etc/shadow")]), &["/etc/shadow"], true),
            (object("unix:file", &[("path", Equals, "/etc/ssh/"), ("filename", Equals, "a")]), &["/etc/ssh/a"], true),
            (
                object("unix:file", &[("path", Equals, "/etc/ssh"), ("filename", PatternMatch, ".*")]),
                &["/etc/ssh"],
                true,
            ),
            (
                object("unix:file", &[("path", PatternMatch, "^/etc/ssh.*"), ("filename", Equals, "a")]),
                &["/etc"],
                false,
            ),
            (object("unix:file", &[("filepath", PatternMatch, r"^/etc/sudoers\.d/.*$")]), &["/etc/sudoers.d"], false),
            (object("unix:file", &[("filepath", PatternMatch, "^(/etc/a|/etc/b)$")]), &[], false),
            (
                object("unix:file", &[("filepath", Equals, "/proc/sys/kernel/panic")]),
                &["/proc/sys/kernel/panic"],
                false,
            ),
            (object("unix:password", &[("username", PatternMatch, ".*")]), &["/etc/passwd", "/var/log/lastlog"], true),
            (object("linux:dpkginfo", &[("name", Equals, "sshd")]), &["/var/lib/dpkg/status"], true),
            (object("muster:user", &[("name", PatternMatch, ".*")]), &["/etc/passwd", "/etc/shadow"], true),
            (object("muster:package", &[]), &["/var/lib/dpkg/status", "/var/lib/rpm"], false),
        ];
        for (object, places, is_whole) in cases {
            let found = of_object(&object);
            let places = places.iter().map(|place| (*place).to_owned()).collect();
            let wanted = Reach { places, is_whole, ..Reach::default() };
            assert_eq!(found, wanted, "{object:?}");
        }
        let mut recursive = object("unix:file", &[("path", Equals, "/etc"), ("filename", Equals, "a")]);
        recursive.behaviors.insert("recurse_direction".to_owned(), "down".to_owned());
        assert!(!of_object(&recursive).is_whole);
    }
    #[test]
    fn what_no_file_tells_of_is_told_of_in_other_ways_and_wholly_only_where_nothing_else_changes_it() {
        let parameter = |name: &str| Way::Parameter(name.to_owned());
        let unit = [("unit", Equals, "x.service")];
        let cases = [
            (object("linux:systemdunitproperty", &unit), Some(Way::Units), true),
            (object("linux:systemdunitdependency", &unit), Some(Way::Units), true),
            (object("muster:service", &[("name", PatternMatch, ".*")]), Some(Way::Units), true),
            (object("linux:partition", &[("mount_point", Equals, "/tmp")]), Some(Way::Mounts), false),
            (object("muster:mount", &[]), Some(Way::Mounts), false),
            (object("muster:socket", &[]), Some(Way::Sockets), false),
            (object("linux:inetlisteningservers", &[]), Some(Way::Sockets), false),
            (object("linux:iflisteners", &[]), Some(Way::Sockets), false),
            (object("unix:routingtable", &[]), Some(Way::Routes), false),
            (object("unix:sysctl", &[("name", Equals, "kernel.panic")]), Some(parameter("kernel.panic")), true),
            (object("unix:sysctl", &[("name", PatternMatch, "^kernel")]), None, false),
            (object("unix:sysctl", &[("name", Equals, "../../etc/passwd")]), None, false),
            (object("unix:sysctl", &[("name", Equals, "net..ipv4")]), None, false),
            (object("unix:sysctl", &[("name", Equals, "")]), None, false),
            (object("unix:process58", &[]), None, false),
        ];
        for (object, way, is_whole) in cases {
            let found = of_object(&object);
            assert!(found.places.is_empty(), "{object:?}");
            assert_eq!((found.ways, found.is_whole), (way.into_iter().collect(), is_whole), "{object:?}");
        }
        // What it is compared with may change as well.
        let mut filtered = object("unix:sysctl", &[("name", Equals, "kernel.panic")]);
        let state = proto::plan::StateKey("state".to_owned());
        filtered.filters.push(proto::plan::Filter { action: proto::plan::FilterAction::Include, state });
        let found = of_object(&filtered);
        assert_eq!((found.ways, found.is_whole), (BTreeSet::from([parameter("kernel.panic")]), false));
    }
}
