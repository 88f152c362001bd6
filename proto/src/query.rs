//! Questions about posture: of which endpoints, which items, under which condition (proposal P-15).
//!
//! Written by people as `KIND where CONDITION`:
//!
//! ```text
//! linux:dpkginfo where name prefix 'openssl' and evr < '0:3.0.11-1~deb12u2'
//! unix:sysctl where name = net.ipv4.ip_forward and not value = 0
//! endpoint where os_name glob 'Debian*' and exists machine_id
//! verdict where verdict in (fail, unknown) and severity = high
//! ```
//!
//! `or` binds least, then `and`, then `not`. A value stands in quotes, or bare if it has no blank, bracket, comma or
//! operator in it. Names are those of OVAL's items. What an item says nothing of is neither so nor not so.

use std::fmt;
use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The kind that stands for the endpoints themselves.
pub const ENDPOINT_KIND: &str = "endpoint";
/// The kind that stands for verdicts that hold.
pub const VERDICT_KIND: &str = "verdict";

/// Characters of a question.
const TEXT_CHARS_MAX: usize = 8 * 1024;
/// Parts of a condition, in all.
const PARTS_MAX: usize = 256;
/// Brackets in each other.
const DEPTH_MAX: usize = 24;
/// Characters of a kind's or field's name.
const NAME_CHARS_MAX: usize = 64;

/// What is asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct PostureQuery {
    /// The kind of items: one of OVAL's such as `linux:dpkginfo`, `endpoint`, or `verdict`.
    pub kind: String,
    /// What must hold of an item; absent: nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub condition: Option<Condition>,
}

/// What must hold of an item.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Condition {
    /// All of these.
    All(Vec<Condition>),
    /// Any of these.
    Any(Vec<Condition>),
    /// Not this.
    Not(Box<Condition>),
    /// The item has that field, with a value.
    Exists(String),
    /// A field compares so with a value; of several values of the field, one does.
    Compare(Comparison),
}

/// A field beside values.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct Comparison {
    /// The field's name.
    pub field: String,
    /// How they compare.
    pub operator: ComparisonOperator,
    /// The values: one, or for `in` one or more.
    pub values: Vec<String>,
}

/// How a field compares with a value, in the field's datatype.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ComparisonOperator {
    /// `=`
    Equal,
    /// `!=`
    NotEqual,
    /// `<`. Numbers in text are in the order of numbers: 9.10 comes after 9.9.
    Less,
    /// `<=`
    LessOrEqual,
    /// `>`
    Greater,
    /// `>=`
    GreaterOrEqual,
    /// `in (…)`: equal to one of them.
    In,
    /// `prefix`: begins with it.
    Prefix,
    /// `glob`: the whole text is as this, where `*` is any text and `?` any character.
    Glob,
    /// `matches`: a Perl regular expression finds a match.
    Matches,
}

impl ComparisonOperator {
    const SPELLED: [(Self, &'static str); 10] = [
        (Self::Equal, "="),
        (Self::NotEqual, "!="),
        (Self::LessOrEqual, "<="),
        (Self::GreaterOrEqual, ">="),
        (Self::Less, "<"),
        (Self::Greater, ">"),
        (Self::In, "in"),
        (Self::Prefix, "prefix"),
        (Self::Glob, "glob"),
        (Self::Matches, "matches"),
    ];

    /// As it is written.
    pub fn as_str(self) -> &'static str {
        Self::SPELLED.iter().find(|(operator, _)| *operator == self).map_or("=", |(_, text)| text)
    }
}

/// A question that is none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueryError {
    /// Where, in characters from 1; 0 where it did not come as text.
    pub at: usize,
    /// What is wrong.
    pub what: String,
}

impl fmt::Display for QueryError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.at > 0 {
            write!(formatter, "at character {}: ", self.at)?;
        }
        formatter.write_str(&self.what)
    }
}

impl std::error::Error for QueryError {}

impl PostureQuery {
    /// An error for one that is larger than any that is written, or that says nothing.
    pub fn check(&self) -> Result<(), QueryError> {
        let wrong = |what: &str| Err(QueryError { at: 0, what: what.to_owned() });
        if !is_name(&self.kind) {
            return wrong("a kind is a name such as linux:dpkginfo");
        }
        let Some(condition) = &self.condition else { return Ok(()) };
        let (mut open, mut count) = (vec![(condition, 0)], 0);
        while let Some((condition, depth)) = open.pop() {
            count += 1;
            if depth > DEPTH_MAX || count > PARTS_MAX {
                return wrong("the condition is too large");
            }
            match condition {
                Condition::All(parts) | Condition::Any(parts) => {
                    open.extend(parts.iter().map(|part| (part, depth + 1)));
                }
                Condition::Not(part) => open.push((part, depth + 1)),
                Condition::Exists(field) if is_name(field) => {}
                Condition::Compare(Comparison { field, operator, values }) if is_name(field) => {
                    count += values.len();
                    if values.len() != 1 && *operator != ComparisonOperator::In || values.is_empty() {
                        return wrong("a comparison needs a value");
                    }
                    if values.iter().any(|value| value.len() > TEXT_CHARS_MAX) {
                        return wrong("a value is too long");
                    }
                }
                _ => return wrong("a field is a name such as evr"),
            }
        }
        if count > PARTS_MAX {
            return wrong("the condition is too large");
        }
        Ok(())
    }

    /// What must hold in any case: the condition, or what it joins with `and`.
    pub fn conjuncts(&self) -> &[Condition] {
        match &self.condition {
            None => &[],
            Some(Condition::All(parts)) => parts,
            Some(other) => std::slice::from_ref(other),
        }
    }

    /// The names of the fields in the condition.
    pub fn fields(&self) -> Vec<&str> {
        let mut open: Vec<&Condition> = self.condition.iter().collect();
        let mut fields = Vec::new();
        while let Some(condition) = open.pop() {
            match condition {
                Condition::All(parts) | Condition::Any(parts) => open.extend(parts),
                Condition::Not(part) => open.push(part),
                Condition::Exists(field) => fields.push(field.as_str()),
                Condition::Compare(comparison) => fields.push(comparison.field.as_str()),
            }
        }
        fields
    }
}

fn is_name(text: &str) -> bool {
    let is_part = |character: char| character.is_ascii_alphanumeric() || "_-:.".contains(character);
    !text.is_empty() && text.len() <= NAME_CHARS_MAX && text.chars().all(is_part)
}

impl fmt::Display for PostureQuery {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.kind)?;
        match &self.condition {
            Some(condition) => write!(formatter, " where {condition}"),
            None => Ok(()),
        }
    }
}

impl fmt::Display for Condition {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let joined = |parts: &[Self], word: &str, formatter: &mut fmt::Formatter<'_>| {
            for (at, part) in parts.iter().enumerate() {
                if at > 0 {
                    write!(formatter, " {word} ")?;
                }
                match part {
                    Self::All(_) | Self::Any(_) => write!(formatter, "({part})")?,
                    _ => write!(formatter, "{part}")?,
                }
            }
            Ok(())
        };
        match self {
            Self::All(parts) => joined(parts, "and", formatter),
            Self::Any(parts) => joined(parts, "or", formatter),
            Self::Not(part) if matches!(**part, Self::All(_) | Self::Any(_)) => write!(formatter, "not ({part})"),
            Self::Not(part) => write!(formatter, "not {part}"),
            Self::Exists(field) => write!(formatter, "exists {field}"),
            Self::Compare(Comparison { field, operator, values }) => {
                let values: Vec<String> = values.iter().map(|value| quoted(value)).collect();
                match operator {
                    ComparisonOperator::In => write!(formatter, "{field} in ({})", values.join(", ")),
                    _ => write!(formatter, "{field} {} {}", operator.as_str(), values.concat()),
                }
            }
        }
    }
}

/// A value as it is read again: a quote in it is doubled.
fn quoted(value: &str) -> String {
    format!("'{}'", value.replace('\'', "''"))
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Token {
    /// Bare text: a name, a word of the language, or a value.
    Word(String),
    Quoted(String),
    /// `(`, `)`, `,` or an operator.
    Sign(&'static str),
}

const SIGNS: [&str; 9] = ["!=", "<=", ">=", "=", "<", ">", "(", ")", ","];

fn tokens(text: &str) -> Result<Vec<(usize, Token)>, QueryError> {
    let characters: Vec<char> = text.chars().collect();
    if characters.len() > TEXT_CHARS_MAX {
        return Err(QueryError {
            at: TEXT_CHARS_MAX,
            what: format!("a question has up to {TEXT_CHARS_MAX} characters"),
        });
    }
    let mut tokens = Vec::new();
    let mut at = 0;
    while at < characters.len() {
        let (start, first) = (at, characters[at]);
        if first.is_whitespace() {
            at += 1;
            continue;
        }
        let rest: String = characters[at..].iter().take(2).collect();
        if let Some(sign) = SIGNS.iter().find(|sign| rest.starts_with(**sign)) {
            at += sign.len();
            tokens.push((start + 1, Token::Sign(sign)));
        } else if first == '\'' || first == '"' {
            let mut value = String::new();
            at += 1;
            loop {
                match (characters.get(at), characters.get(at + 1)) {
                    (Some(quote), Some(next)) if *quote == first && *next == first => {
                        value.push(first);
                        at += 2;
                    }
                    (Some(quote), _) if *quote == first => {
                        at += 1;
                        break;
                    }
                    (Some(character), _) => {
                        value.push(*character);
                        at += 1;
                    }
                    (None, _) => {
                        return Err(QueryError { at: start + 1, what: "the quote is not closed".to_owned() });
                    }
                }
            }
            tokens.push((start + 1, Token::Quoted(value)));
        } else {
            let is_part = |character: &char| !character.is_whitespace() && !"()<>=!,'\"".contains(*character);
            let word: String = characters[at..].iter().take_while(|character| is_part(character)).collect();
            if word.is_empty() {
                return Err(QueryError { at: start + 1, what: format!("`{first}` means nothing here") });
            }
            at += word.chars().count();
            tokens.push((start + 1, Token::Word(word)));
        }
    }
    Ok(tokens)
}

struct Reader {
    tokens: Vec<(usize, Token)>,
    at: usize,
    end: usize,
}

impl Reader {
    fn wrong<T>(&self, what: impl Into<String>) -> Result<T, QueryError> {
        let at = self.tokens.get(self.at).map_or(self.end, |(at, _)| *at);
        Err(QueryError { at, what: what.into() })
    }

    fn take_word(&mut self, wanted: &str) -> bool {
        let is_there =
            matches!(self.tokens.get(self.at), Some((_, Token::Word(word))) if word.eq_ignore_ascii_case(wanted));
        self.at += usize::from(is_there);
        is_there
    }

    fn take_sign(&mut self, wanted: &str) -> bool {
        let is_there = matches!(self.tokens.get(self.at), Some((_, Token::Sign(sign))) if *sign == wanted);
        self.at += usize::from(is_there);
        is_there
    }

    fn name(&mut self, what: &str) -> Result<String, QueryError> {
        match self.tokens.get(self.at) {
            Some((_, Token::Word(word))) if is_name(word) => {
                let word = word.clone();
                self.at += 1;
                Ok(word)
            }
            _ => self.wrong(what),
        }
    }

    fn value(&mut self) -> Result<String, QueryError> {
        match self.tokens.get(self.at) {
            Some((_, Token::Word(value) | Token::Quoted(value))) => {
                let value = value.clone();
                self.at += 1;
                Ok(value)
            }
            _ => self.wrong("here a value has to follow, such as 'openssl'"),
        }
    }

    fn any(&mut self, depth: usize) -> Result<Condition, QueryError> {
        let mut parts = vec![self.all(depth)?];
        while self.take_word("or") {
            parts.push(self.all(depth)?);
        }
        Ok(if parts.len() == 1 { parts.remove(0) } else { Condition::Any(parts) })
    }

    fn all(&mut self, depth: usize) -> Result<Condition, QueryError> {
        let mut parts = vec![self.one(depth)?];
        while self.take_word("and") {
            parts.push(self.one(depth)?);
        }
        Ok(if parts.len() == 1 { parts.remove(0) } else { Condition::All(parts) })
    }

    fn one(&mut self, depth: usize) -> Result<Condition, QueryError> {
        if depth > DEPTH_MAX {
            return self.wrong("too many brackets in each other");
        }
        if self.take_word("not") {
            return Ok(Condition::Not(Box::new(self.one(depth + 1)?)));
        }
        if self.take_sign("(") {
            let inner = self.any(depth + 1)?;
            return if self.take_sign(")") { Ok(inner) } else { self.wrong("here a `)` is missing") };
        }
        if self.take_word("exists") {
            return Ok(Condition::Exists(self.name("after `exists` comes the name of a field")?));
        }
        let field = self.name("here the name of a field has to follow, such as name")?;
        let operator = match self.tokens.get(self.at) {
            Some((_, Token::Sign(sign))) => *sign,
            Some((_, Token::Word(word))) => {
                let known = ComparisonOperator::SPELLED.iter().find(|(_, text)| word.eq_ignore_ascii_case(text));
                known.map_or("", |(_, text)| text)
            }
            _ => "",
        };
        let known = ComparisonOperator::SPELLED.iter().find(|(_, text)| *text == operator);
        let Some((operator, _)) = known else {
            return self.wrong(format!("after `{field}` comes one of = != < <= > >= in prefix glob matches"));
        };
        self.at += 1;
        let mut values = Vec::new();
        if *operator == ComparisonOperator::In {
            if !self.take_sign("(") {
                return self.wrong("after `in` come values in brackets: (a, b)");
            }
            loop {
                values.push(self.value()?);
                if !self.take_sign(",") {
                    break;
                }
            }
            if !self.take_sign(")") {
                return self.wrong("here a `,` or a `)` is missing");
            }
        } else {
            values.push(self.value()?);
        }
        Ok(Condition::Compare(Comparison { field, operator: *operator, values }))
    }
}

impl FromStr for PostureQuery {
    type Err = QueryError;

    fn from_str(text: &str) -> Result<Self, QueryError> {
        let end = text.chars().count() + 1;
        let mut reader = Reader { tokens: tokens(text)?, at: 0, end };
        let kind = reader.name("a question begins with a kind, such as linux:dpkginfo, endpoint or verdict")?;
        let condition = if reader.take_word("where") { Some(reader.any(0)?) } else { None };
        if reader.at < reader.tokens.len() {
            let expected = if condition.is_some() { "`and`, `or` or the end" } else { "`where` or the end" };
            return reader.wrong(format!("here {expected} has to follow"));
        }
        let query = Self { kind, condition };
        query.check()?;
        Ok(query)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    fn read(text: &str) -> PostureQuery {
        text.parse().unwrap()
    }

    #[test]
    fn what_is_written_is_what_was_read() {
        for text in [
            "linux:dpkginfo",
            "linux:dpkginfo where name = 'openssl'",
            "linux:dpkginfo where name prefix 'lib' and not arch in ('amd64', 'it''s') and (evr < '1' or exists epoch)",
            "unix:sysctl where not (name = 'a' or name = 'b')",
            "verdict where (verdict = 'fail' and (policy glob 'x*' or rule matches '^a|b$')) or since >= '2'",
        ] {
            let query = read(text);
            assert_eq!(query.to_string(), text);
            assert_eq!(read(&query.to_string()), query);
            let json = serde_json::to_string(&query).unwrap();
            assert_eq!(serde_json::from_str::<PostureQuery>(&json).unwrap(), query);
        }
    }

    #[test]
    fn and_binds_more_than_or_and_words_have_no_case() {
        let query = read("a WHERE x=1 or y=2 AND NOT z=3");
        assert_eq!(query, read("a where x = '1' or (y = '2' and (not z = '3'))"));
        let double = read("a where x = \"say \"\"no\"\"\"");
        assert_eq!(double.to_string(), "a where x = 'say \"no\"'");
    }

    #[test]
    fn what_is_wrong_says_where() {
        for (text, at, what) in [
            ("", 1, "kind"),
            ("= 1", 1, "kind"),
            ("linux:dpkginfo name = 1", 16, "`where`"),
            ("a where", 8, "field"),
            ("a where x", 10, "after `x`"),
            ("a where x =", 12, "value"),
            ("a where x = 1 y = 2", 15, "`and`"),
            ("a where x in 1", 14, "brackets"),
            ("a where x in (1", 16, "`)`"),
            ("a where (x = 1", 15, "`)`"),
            ("a where x = 'b", 13, "quote"),
            ("a where x ! 1", 11, "nothing"),
        ] {
            let error = text.parse::<PostureQuery>().unwrap_err();
            assert_eq!(error.at, at, "{text}: {error}");
            assert!(error.what.contains(what), "{text}: {error}");
        }
        let deep = format!("a where {}x = 1{}", "(".repeat(100), ")".repeat(100));
        assert!(deep.parse::<PostureQuery>().unwrap_err().what.contains("brackets"));
        let nots = format!("a where {}x = 1", "not ".repeat(2_000));
        assert!(nots.parse::<PostureQuery>().is_err());
        let long = format!("a where x = '{}'", "y".repeat(TEXT_CHARS_MAX));
        assert!(long.parse::<PostureQuery>().is_err());
    }

    #[test]
    fn what_comes_by_the_wire_is_bounded_too() {
        let mut condition = Condition::Exists("x".to_owned());
        for _ in 0..30 {
            condition = Condition::Not(Box::new(condition));
        }
        let deep = PostureQuery { kind: "a".to_owned(), condition: Some(condition) };
        assert!(deep.check().is_err());
        let many = PostureQuery {
            kind: "a".to_owned(),
            condition: Some(Condition::Any(vec![Condition::Exists("x".to_owned()); 300])),
        };
        assert!(many.check().is_err());
        let none = Comparison { field: "x".to_owned(), operator: ComparisonOperator::Equal, values: Vec::new() };
        assert!(PostureQuery { kind: "a".to_owned(), condition: Some(Condition::Compare(none)) }.check().is_err());
    }
}
