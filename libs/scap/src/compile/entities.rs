//! Which entities an object of a kind has: one that is not known would be left out of the question, and the answer
//! would be about more than was meant.

use crate::oval::OvalObject;

/// The kind, the entities that it must have, and those that it may have.
const ENTITIES: &[(&str, &[&str], &[&str])] = &[
    ("independent:environmentvariable58", &["pid", "name"], &[]),
    ("independent:family", &[], &[]),
    ("independent:textfilecontent54", &["pattern", "instance"], FILE),
    ("independent:variable", &["var_ref"], &[]),
    ("linux:dpkginfo", &["name"], &[]),
    ("linux:inetlisteningservers", &["protocol", "local_address", "local_port"], &[]),
    ("linux:partition", &["mount_point"], &[]),
    ("linux:rpminfo", &["name"], &[]),
    ("linux:systemdunitdependency", &["unit"], &[]),
    ("linux:systemdunitproperty", &["unit", "property"], &[]),
    ("unix:file", &[], FILE),
    ("unix:password", &["username"], &[]),
    ("unix:shadow", &["username"], &[]),
    ("unix:symlink", &["filepath"], &[]),
    ("unix:sysctl", &["name"], &[]),
    ("unix:uname", &[], &[]),
];

/// A path, or a directory and a name in it.
const FILE: &[&str] = &["filepath", "path", "filename"];

/// What is wrong with an object's entities.
pub(super) fn check(object: &OvalObject) -> Result<(), String> {
    let known = ENTITIES.iter().find(|(kind, ..)| *kind == object.kind);
    let Some((kind, required, optional)) = known.filter(|_| object.set.is_none()) else { return Ok(()) };
    let has = |name: &str| object.entities.iter().any(|entity| entity.name == name);
    for (at, entity) in object.entities.iter().enumerate() {
        let name = entity.name.as_str();
        if !required.contains(&name) && !optional.contains(&name) {
            return Err(format!("a {kind}_object has no `{}`", proto::limits::shown(name)));
        }
        if object.entities[..at].iter().any(|other| other.name == name) {
            return Err(format!("a {kind}_object has one `{name}`, here are two"));
        }
    }
    if let Some(missing) = required.iter().find(|name| !has(name)) {
        return Err(format!("the {kind}_object has no `{missing}`"));
    }
    let is_file = optional.contains(&"filepath");
    if is_file && has("filepath") == (has("path") && has("filename")) {
        return Err(format!("a {kind}_object has either `filepath`, or `path` and `filename`"));
    }
    Ok(())
}
