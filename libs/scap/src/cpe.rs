//! Applicability: CPE dictionaries and the CPE applicability language (NISTIR 7697, 7698).

use serde::{Deserialize, Serialize};

use crate::xml::Node;

/// The system URI of OVAL checks.
pub const OVAL_SYSTEM: &str = "http://oval.mitre.org/XMLSchema/oval-definitions-5";

/// Everything that says what a platform is.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Platforms {
    /// `cpe2:platform`s.
    pub language: Vec<Platform>,
    /// `cpe-item`s of the dictionaries.
    pub dictionary: Vec<DictionaryItem>,
}

/// `cpe2:platform`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Platform {
    /// Its id; rules name it as `#id`.
    pub id: String,
    /// What must hold.
    pub test: Option<LogicalTest>,
}

/// `cpe2:logical-test`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LogicalTest {
    /// All, instead of any.
    pub is_and: bool,
    /// The opposite.
    pub negate: bool,
    /// Its parts.
    pub parts: Vec<LogicalPart>,
}

/// A part of a logical test.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum LogicalPart {
    /// A nested one.
    Test(LogicalTest),
    /// `fact-ref`: a CPE name, to be found in a dictionary.
    Name(String),
    /// `check-fact-ref`: a definition of a component of the data stream.
    Definition {
        /// The component.
        href: String,
        /// The definition.
        id: String,
    },
    /// A check of a system that is not OVAL.
    Unsupported(String),
}

/// A dictionary's `cpe-item`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DictionaryItem {
    /// The CPE name.
    pub name: String,
    /// The component that its check is in.
    pub href: String,
    /// The definition that tells whether it is there.
    pub definition: String,
}

pub(crate) fn platform(node: &Node) -> Platform {
    Platform {
        id: node.attribute("id").unwrap_or_default().to_owned(),
        test: node.element("logical-test").map(logical_test),
    }
}

fn logical_test(node: &Node) -> LogicalTest {
    let parts = node
        .elements()
        .filter_map(|element| match element.name.as_str() {
            "logical-test" => Some(LogicalPart::Test(logical_test(element))),
            "fact-ref" => Some(LogicalPart::Name(element.attribute("name").unwrap_or_default().to_owned())),
            "check-fact-ref" => Some(match element.attribute("system") {
                Some(OVAL_SYSTEM) => LogicalPart::Definition {
                    href: element.attribute("href").unwrap_or_default().to_owned(),
                    id: element.attribute("id-ref").unwrap_or_default().to_owned(),
                },
                other => LogicalPart::Unsupported(other.unwrap_or_default().to_owned()),
            }),
            _ => None,
        })
        .collect();
    LogicalTest {
        is_and: node.attribute("operator") != Some("OR"),
        negate: matches!(node.attribute("negate"), Some("true" | "1" | "TRUE")),
        parts,
    }
}

/// The items of a `cpe-list`.
pub(crate) fn dictionary(node: &Node) -> Vec<DictionaryItem> {
    node.elements()
        .filter(|element| element.name == "cpe-item")
        .filter_map(|item| {
            let check = item
                .elements()
                .find(|element| element.name == "check" && element.attribute("system") == Some(OVAL_SYSTEM))?;
            Some(DictionaryItem {
                name: item.attribute("name").unwrap_or_default().to_owned(),
                href: check.attribute("href").unwrap_or_default().to_owned(),
                definition: check.text().trim().to_owned(),
            })
        })
        .collect()
}

/// Whether two CPE names name the same thing: URIs and formatted strings up to trailing wildcards.
pub fn same_name(left: &str, right: &str) -> bool {
    let trimmed = |name: &str| name.trim_end_matches([':', '*', '-']).to_ascii_lowercase();
    trimmed(left) == trimmed(right)
}
