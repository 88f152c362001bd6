//! XCCDF tailoring (XCCDF 1.2, `Tailoring`): profiles of somebody else's, joined to a benchmark.

use crate::xccdf::{Benchmark, Profile};
use crate::xccdf_reader;
use crate::xml::{Node, Parser, XmlError};

/// What a profile of the benchmark is called that a tailoring has another one for.
const SHADOWED: &str = " (benchmark)";

/// Reads a stand-alone `Tailoring`.
pub fn read(bytes: &[u8]) -> Result<Vec<Profile>, XmlError> {
    let mut parser = Parser::new(bytes);
    let root = parser.root()?;
    if root.name != "Tailoring" {
        return Err(XmlError { line: root.line, what: format!("the root is <{}>, not <Tailoring>", root.name) });
    }
    let root = parser.subtree(root)?;
    profiles(root)
}

pub(crate) fn profiles(tailoring: Node) -> Result<Vec<Profile>, XmlError> {
    let tailoring = xccdf_reader::checked(tailoring)?;
    let profiles = tailoring.elements().filter(|element| element.name == "Profile").map(xccdf_reader::profile);
    Ok(profiles.collect())
}

/// Joins profiles to a benchmark's. One that has the id of a profile that is there stands for it, and may
/// extend it.
pub fn join(benchmark: &mut Benchmark, profiles: Vec<Profile>) {
    let shadowed: Vec<String> = benchmark
        .profiles
        .iter()
        .map(|known| known.id.clone())
        .filter(|id| profiles.iter().any(|profile| profile.id == *id))
        .collect();
    // The benchmark's own profiles go on extending each other.
    for known in &mut benchmark.profiles {
        for id in std::iter::once(&mut known.id).chain(&mut known.extends) {
            if shadowed.contains(id) {
                id.push_str(SHADOWED);
            }
        }
    }
    for mut profile in profiles {
        if let Some(extended) = profile.extends.as_mut().filter(|extended| **extended == profile.id)
            && shadowed.contains(extended)
        {
            extended.push_str(SHADOWED);
        }
        benchmark.profiles.push(profile);
    }
}
