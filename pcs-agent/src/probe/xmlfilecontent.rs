//! `independent:xmlfilecontent`: what an XPath 1.0 expression finds in XML files. As in `oscap`, namespaces are
//! taken out of a document first, paths begin at the root, and an item has the values of texts and attributes
//! only: elements have none. What is there and cannot be read as a file is an error, as in `oscap`; devices and FIFOs
//! are never opened.

use oval::resolve::Query;
use proto::limits::{ENTITY_VALUE_BYTES_MAX, RESULT_PART_BYTES};
use proto::observation::{Collected, Item, ItemEntity, Status};
use proto::plan::Datatype;

use super::files::{self, Entry};
use super::troubles::{Troubles, Unreadable, unreadable};
use super::xpath::{Document, DocumentError, Expression, Value, XPathError};
use super::{Probe, ProbeError, finish};
use crate::host::{Cut, Host};

pub(crate) struct XmlFileContent;

/// Values of one item.
const VALUES_MAX: usize = 5_000;

impl Probe for XmlFileContent {
    const KIND: &'static str = "independent:xmlfilecontent";

    fn collect(host: &Host, query: &Query) -> Result<Collected, ProbeError> {
        let Some(xpath) = query.entity("xpath") else { return Ok(finish(Vec::new(), Vec::new())) };
        // Whatever the operation says, `oscap` evaluates the entity; the schema allows `equals` only.
        let expressions = xpath
            .distinct()
            .map(|text| Expression::new(text).map(|expression| (text, expression)))
            .collect::<Result<Vec<_>, _>>()
            .map_err(unusable)?;
        let found = files::find(host, query)?;
        let mut seen = Seen::default();
        let is_by_filepath = query.entity("filepath").is_some();
        for entry in found.entries.iter().filter(|entry| entry.filename.is_some()) {
            let filepath = entry.filepath();
            match unreadable(host, &filepath) {
                // `oscap` goes straight to what `filepath` names, and does not look at it if it is a directory.
                Some(Unreadable::Directory) if is_by_filepath => continue,
                Some(why) => {
                    seen.troubles.note(format!("{filepath}: {why}"));
                    continue;
                }
                None => {}
            }
            if let Err(cut) = seen.look(host, entry, &expressions) {
                seen.troubles.cut(cut);
                break;
            }
        }
        Ok(seen.troubles.flag(seen.items, found))
    }
}

fn unusable(error: XPathError) -> ProbeError {
    match error {
        XPathError::NotCovered(what) => ProbeError::NotCovered(what.to_owned()),
        XPathError::Cut(cut) => ProbeError::Cut(cut),
        other => ProbeError::Broken(other.to_string()),
    }
}

/// What was found in the files so far.
#[derive(Default)]
struct Seen {
    items: Vec<Item>,
    troubles: Troubles,
}

impl Seen {
    fn look(&mut self, host: &Host, entry: &Entry, expressions: &[(&str, Expression)]) -> Result<(), Cut> {
        let filepath = entry.filepath();
        let Some(content) = self.troubles.content(host, &filepath)? else { return Ok(()) };
        let document = match Document::parse(&content) {
            Ok(document) => document,
            Err(DocumentError::NotCovered(what)) => {
                self.troubles.lack(ProbeError::NotCovered(format!("{filepath}: {what}")).to_string());
                return Ok(());
            }
            Err(DocumentError::Broken(what)) => {
                self.troubles.note(format!("{filepath}: not well-formed XML: {what}"));
                return Ok(());
            }
        };
        let breathe = || host.breathe();
        for (text, expression) in expressions {
            host.breathe()?;
            match expression.evaluate(&document, &breathe) {
                Ok(value) => match values(&document, value) {
                    Values::None => {}
                    Values::Some(values, message) => self.items.push(item(entry, text, values, message)),
                    Values::NoNumber(what) => {
                        let value = ItemEntity::without_value("value_of", Datatype::Float, Status::Error);
                        let message = Some(format!("the XPath expression comes to {what}"));
                        self.items.push(Item { status: Status::Error, ..item(entry, text, vec![value], message) });
                    }
                    Values::TooMany => {
                        let value = ItemEntity::without_value("value_of", Datatype::String, Status::NotCollected);
                        let message = Some("more values than can be reported".to_owned());
                        let item = item(entry, text, vec![value], message);
                        self.items.push(Item { status: Status::NotCollected, ..item });
                    }
                },
                Err(XPathError::Cut(cut)) => return Err(cut),
                Err(error) => self.troubles.note(format!("{filepath}: {error}")),
            }
        }
        if self.items.len() > super::limits::CANDIDATES_MAX { Err(Cut::Items) } else { Ok(()) }
    }
}

/// What a value comes to in an item.
#[derive(Debug, PartialEq)]
enum Values {
    /// No node: no item.
    None,
    /// The entities, and what to say of them.
    Some(Vec<ItemEntity>, Option<String>),
    /// A number that is none.
    NoNumber(&'static str),
    /// More than one item can carry.
    TooMany,
}

fn values(document: &Document, value: Value<'_>) -> Values {
    let one = |entity| Values::Some(vec![entity], None);
    match value {
        Value::Boolean(truth) => one(ItemEntity::boolean("value_of", truth)),
        Value::Number(number) if number.is_nan() => Values::NoNumber("no number"),
        Value::Number(number) if number.is_infinite() => Values::NoNumber("an infinite number"),
        // Minus zero is zero.
        Value::Number(0.0) => one(ItemEntity::int("value_of", 0)),
        Value::Number(number) if number.fract() == 0.0 => one(ItemEntity::int("value_of", number)),
        Value::Number(number) => one(ItemEntity::new("value_of", Datatype::Float, number.to_string())),
        Value::Text(text) => {
            let (entity, is_cut) = entity(&text);
            Values::Some(vec![entity], is_cut.then(cut_message))
        }
        Value::Nodes(nodes) if nodes.is_empty() => Values::None,
        Value::Nodes(nodes) => {
            let mut entities = Vec::new();
            let mut bytes = 0_usize;
            let mut is_any_cut = false;
            for node in nodes.into_iter().filter(|node| document.has_value(*node)) {
                let (entity, is_cut) = entity(document.text(node));
                bytes = bytes.saturating_add(entity.value.as_ref().map_or(0, String::len));
                if entities.len() >= VALUES_MAX || bytes > RESULT_PART_BYTES {
                    return Values::TooMany;
                }
                is_any_cut |= is_cut;
                entities.push(entity);
            }
            Values::Some(entities, is_any_cut.then(cut_message))
        }
    }
}

fn cut_message() -> String {
    format!("a value is longer than {ENTITY_VALUE_BYTES_MAX} bytes and is cut")
}

/// A text as an entity, and whether it was cut.
fn entity(text: &str) -> (ItemEntity, bool) {
    let end = text.floor_char_boundary(ENTITY_VALUE_BYTES_MAX);
    (ItemEntity::text("value_of", text.get(..end).unwrap_or_default()), end < text.len())
}

fn item(entry: &Entry, xpath: &str, values: Vec<ItemEntity>, message: Option<String>) -> Item {
    let mut entities = entry.entities();
    entities.push(ItemEntity::text("xpath", xpath));
    entities.extend(values);
    Item { message, ..Item::new(XmlFileContent::KIND, entities) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use oval::resolve::QueryEntity;
    use proto::observation::Flag;
    use proto::plan::{Check, Operation};

    fn collect(files: &[(&str, &[u8])], xpath: &str) -> Collected {
        let root = tempfile::tempdir().unwrap();
        for (name, content) in files {
            std::fs::write(root.path().join(name), content).unwrap();
        }
        collect_in(root.path(), &[("path", Operation::Equals, "/"), ("filename", MATCH, r"\.xml$")], xpath)
    }

    const MATCH: Operation = Operation::PatternMatch;

    fn collect_in(root: &std::path::Path, asked: &[(&str, Operation, &str)], xpath: &str) -> Collected {
        let entity = |name: &str, operation, value: &str| QueryEntity {
            name: name.into(),
            operation,
            datatype: Datatype::String,
            values: vec![value.into()],
            var_check: Check::All,
            is_nil: false,
        };
        let mut entities: Vec<_> =
            asked.iter().map(|(name, operation, value)| entity(name, *operation, value)).collect();
        entities.push(entity("xpath", Operation::Equals, xpath));
        let query = Query { kind: XmlFileContent::KIND.into(), entities, behaviors: std::collections::BTreeMap::new() };
        XmlFileContent::collect(&Host::new(root), &query).unwrap_or_else(Collected::from)
    }

    const DOCUMENT: &[u8] = b"<r xmlns='urn:d'><a x='1'>one<b>two</b>three</a><a x='2'/><num>3.50</num></r>";

    /// Status, datatype and value of each `value_of` of the only item; none where there is no item.
    #[track_caller]
    fn check(xpath: &str, expect: Option<&[(Status, Datatype, &str)]>) {
        let collected = collect(&[("a.xml", DOCUMENT)], xpath);
        assert!(collected.items.len() < 2);
        let values: Option<Vec<_>> = collected.items.first().map(|item| {
            assert_eq!(item.value("xpath"), Some(xpath));
            let shown =
                |entity: &ItemEntity| (entity.status, entity.datatype, entity.value.clone().unwrap_or_default());
            item.named("value_of").map(shown).collect()
        });
        let expect: Option<Vec<_>> = expect
            .map(|all| all.iter().map(|(status, datatype, value)| (*status, *datatype, (*value).to_owned())).collect());
        assert_eq!(values, expect, "{:?}", collected.messages);
    }

    #[test]
    fn texts_and_attributes_are_values_and_elements_are_there_without_one() {
        use Datatype::String;
        use Status::Exists;
        check("/r/a/text()", Some(&[(Exists, String, "one"), (Exists, String, "three")]));
        check("/r/a/@x", Some(&[(Exists, String, "1"), (Exists, String, "2")]));
        check("/r/a", Some(&[]));
        check("/", Some(&[]));
        check("/r/a[1]/node()", Some(&[(Exists, String, "one"), (Exists, String, "three")]));
        check("/r/none", None);
        check("r/a", None);
        check(".", None);
    }

    #[test]
    fn texts_booleans_and_numbers_are_one_value_of_their_datatype() {
        use Datatype::{Boolean, Float, Int, String};
        use Status::{Error, Exists};
        check("string(/r/none)", Some(&[(Exists, String, "")]));
        check("/r/a = 'x'", Some(&[(Exists, Boolean, "false")]));
        check("count(/r/a)", Some(&[(Exists, Int, "2")]));
        check("-0", Some(&[(Exists, Int, "0")]));
        check("1000000000000000000000", Some(&[(Exists, Int, "1000000000000000000000")]));
        check("sum(//num)", Some(&[(Exists, Float, "3.5")]));
        check("1 div 0", Some(&[(Error, Float, "")]));
        check("number('x')", Some(&[(Error, Float, "")]));
    }

    #[test]
    fn a_file_that_is_not_well_formed_is_an_error_and_the_others_are_read() {
        let collected = collect(&[("a.xml", DOCUMENT), ("b.xml", b"<r><a>"), ("c.xml", b"")], "//a/@x");
        assert_eq!(collected.flag, Flag::Error);
        assert_eq!(collected.items.len(), 1);
        assert!(collected.messages.iter().any(|message| message.starts_with("/b.xml: not well-formed XML")));
        assert!(collected.messages.iter().any(|message| message.starts_with("/c.xml: not well-formed XML")));
    }

    #[test]
    fn what_is_there_and_no_file_is_an_error_and_a_directory_only_where_it_is_not_named_whole() {
        use std::os::unix::fs::symlink;
        let root = tempfile::tempdir().unwrap();
        let at = |name: &str| root.path().join(name);
        std::fs::create_dir(at("directory.xml")).unwrap();
        std::fs::write(at("file.xml"), DOCUMENT).unwrap();
        let _listener = std::os::unix::net::UnixListener::bind(at("socket.xml")).unwrap();
        for (target, name) in [
            ("nowhere", "dangling.xml"),
            ("loop.xml", "loop.xml"),
            ("socket.xml", "to-socket.xml"),
            ("directory.xml", "to-directory.xml"),
            ("file.xml", "to-file.xml"),
        ] {
            symlink(target, at(name)).unwrap();
        }
        let by_filepath = |name: &str| {
            let filepath = format!("/{name}");
            collect_in(root.path(), &[("filepath", Operation::Equals, filepath.as_str())], "//a/@x")
        };
        let by_filename = |name: &str| {
            let asked = [("path", Operation::Equals, "/"), ("filename", Operation::Equals, name)];
            collect_in(root.path(), &asked, "//a/@x")
        };
        for name in ["dangling.xml", "loop.xml", "socket.xml", "to-socket.xml"] {
            for collected in [by_filepath(name), by_filename(name)] {
                assert_eq!((collected.flag, collected.items.len()), (Flag::Error, 0), "{name}");
                assert!(collected.messages[0].contains(name), "{:?}", collected.messages);
                assert_eq!(collected.messages.len(), 1, "{:?}", collected.messages);
            }
        }
        assert_eq!(by_filepath("to-file.xml").flag, Flag::Complete);
        assert_eq!(by_filepath("none.xml").flag, Flag::DoesNotExist);
        for name in ["directory.xml", "to-directory.xml"] {
            assert_eq!(by_filepath(name).flag, Flag::DoesNotExist, "{name}");
        }
        assert_eq!(by_filename("directory.xml").flag, Flag::DoesNotExist);
        assert_eq!(by_filename("to-directory.xml").flag, Flag::Error);
        let all = collect_in(root.path(), &[("path", Operation::Equals, "/"), ("filename", MATCH, ".")], "//a/@x");
        assert_eq!((all.flag, all.items.len(), all.messages.len()), (Flag::Error, 2, 5));
    }

    #[test]
    fn a_document_type_is_not_covered_and_says_so() {
        let dtd: &[u8] = b"<!DOCTYPE r [<!ENTITY e 'x'>]><r><a>&e;</a></r>";
        let collected = collect(&[("b.xml", dtd)], "//a/text()");
        assert_eq!(collected.flag, Flag::NotCollected);
        assert!(collected.messages[0].contains("document type"), "{:?}", collected.messages);
        assert_eq!(collect(&[("a.xml", DOCUMENT), ("b.xml", dtd)], "//a/@x").flag, Flag::Incomplete);
    }

    #[test]
    fn an_expression_that_is_none_is_an_error_before_any_file_is_read() {
        for xpath in ["", "/r/a[", "foo()", "$v", "/r/p:n"] {
            assert_eq!(collect(&[("a.xml", DOCUMENT)], xpath).flag, Flag::Error, "{xpath}");
        }
        assert_eq!(collect(&[("a.xml", DOCUMENT)], "//namespace::*").flag, Flag::NotCollected);
    }

    #[test]
    fn more_values_than_an_item_can_carry_are_not_collected() {
        let many = format!("<r>{}</r>", "<a>1</a>".repeat(VALUES_MAX + 1));
        let collected = collect(&[("a.xml", many.as_bytes())], "//a/text()");
        assert_eq!(collected.items[0].status, Status::NotCollected);
        let long = format!("<r>{}</r>", "ä".repeat(ENTITY_VALUE_BYTES_MAX));
        let collected = collect(&[("a.xml", long.as_bytes())], "string(/r)");
        assert_eq!(collected.items[0].value("value_of").unwrap().len(), ENTITY_VALUE_BYTES_MAX);
        assert!(collected.items[0].message.is_some());
    }
}
