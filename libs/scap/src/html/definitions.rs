//! What OVAL definitions came to on one endpoint.

use std::fmt::Write as _;

use ::oval::check::Truth;

use super::{begin, escaped};
use crate::oval::Class;

/// A definition and what it came to.
#[derive(Debug, Clone, Copy)]
pub struct DefinitionRow<'run> {
    /// Its id.
    pub id: &'run str,
    /// Its title.
    pub title: &'run str,
    /// Its class.
    pub class: Class,
    /// What it came to.
    pub truth: Truth,
}

/// The page.
pub fn definitions_page(host: &str, rows: &[DefinitionRow<'_>]) -> String {
    let mut page = begin("OVAL definitions");
    let count = |truth: Truth| rows.iter().filter(|row| row.truth == truth).count();
    let counts: Vec<String> = Truth::ALL
        .into_iter()
        .filter(|truth| count(*truth) > 0)
        .map(|truth| format!("{} {}", count(truth), truth.as_str()))
        .collect();
    let _ = write!(
        page,
        "<h1>OVAL definitions</h1><p class=\"about\">{} · {} definitions: {}</p><table>\
         <tr><th>result</th><th>class</th><th>definition</th></tr>",
        escaped(host),
        rows.len(),
        counts.join(", "),
    );
    for row in rows {
        // Whether true is good depends on the class (draft-ietf-sacm-arch §4.1.3, "context").
        let is_bad = match row.class {
            Class::Patch | Class::Vulnerability => row.truth == Truth::True,
            Class::Compliance => row.truth == Truth::False,
            Class::Inventory | Class::Miscellaneous => false,
        };
        let class = match row.truth {
            _ if is_bad => "fail",
            Truth::True | Truth::False => "pass",
            _ => "unknown",
        };
        let _ = write!(
            page,
            "<tr class=\"{class}\"><td class=\"v\">{}</td><td>{}</td><td>{}<br><code>{}</code></td></tr>",
            row.truth.as_str(),
            row.class.as_str(),
            escaped(row.title),
            escaped(row.id),
        );
    }
    page.push_str("</table></body></html>\n");
    page
}
