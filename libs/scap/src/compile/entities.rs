//! Which entities an object of a kind has: one that is not known would be left out of the question, and the answer
//! would be about more than was meant.

use ::oval::kinds::{self, Otherwise};

use crate::oval::OvalObject;

/// What is wrong with an object's entities.
pub(super) fn check(object: &OvalObject) -> Result<(), String> {
    let Some(kind) = kinds::kind(&object.kind).filter(|_| object.set.is_none()) else { return Ok(()) };
    let has = |name: &str| object.entities.iter().any(|entity| entity.name == name);
    for (at, entity) in object.entities.iter().enumerate() {
        let name = entity.name.as_str();
        if kind.asked.iter().all(|asked| asked.name != name) {
            return Err(format!("a {}_object has no `{}`", kind.name, proto::limits::shown(name)));
        }
        if object.entities[..at].iter().any(|other| other.name == name) {
            return Err(format!("a {}_object has one `{name}`, here are two", kind.name));
        }
    }
    let (of_file, required): (Vec<_>, Vec<_>) = kind.asked.iter().partition(|asked| asked.otherwise == Otherwise::File);
    if let Some(missing) = required.iter().find(|asked| !has(asked.name)) {
        return Err(format!("the {}_object has no `{}`", kind.name, missing.name));
    }
    if !of_file.is_empty() && has("filepath") == (has("path") && has("filename")) {
        return Err(format!("a {}_object has either `filepath`, or `path` and `filename`", kind.name));
    }
    Ok(())
}
