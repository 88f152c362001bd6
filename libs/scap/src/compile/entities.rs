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
    let of = |otherwise: Otherwise| kind.asked.iter().filter(move |asked| asked.otherwise == otherwise);
    let mut required =
        kind.asked.iter().filter(|asked| !matches!(asked.otherwise, Otherwise::File | Otherwise::Instead));
    if let Some(missing) = required.find(|asked| !has(asked.name)) {
        return Err(format!("the {}_object has no `{}`", kind.name, missing.name));
    }
    if let Some(instead) = of(Otherwise::Instead).find(|asked| has(asked.name)) {
        return match of(Otherwise::File).find(|asked| has(asked.name)) {
            Some(other) => Err(format!("a {}_object has `{}` or `{}`", kind.name, instead.name, other.name)),
            None => Ok(()),
        };
    }
    if of(Otherwise::File).next().is_some() && has("filepath") == (has("path") && has("filename")) {
        return Err(format!("a {}_object has either `filepath`, or `path` and `filename`", kind.name));
    }
    Ok(())
}
