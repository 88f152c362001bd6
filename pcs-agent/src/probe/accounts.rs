//! The lines of `/etc/passwd` and `/etc/shadow`, as the C library's `nss_files` reads them.

use std::collections::HashSet;

use proto::observation::Item;

/// The lines that may be entries: comments and empty ones are none.
pub(super) fn lines(text: &str) -> impl Iterator<Item = &str> {
    text.split('\n').map(as_c_string).filter(|line| !line.is_empty() && !line.starts_with('#'))
}

/// A line from its first character that is no blank to where C ends it.
fn as_c_string(line: &str) -> &str {
    line.split_once('\0').map_or(line, |(before, _)| before).trim_start_matches(is_blank)
}

/// `isspace`.
fn is_blank(character: char) -> bool {
    matches!(character, ' ' | '\t'..='\r')
}

/// Whether entries of NIS are meant and no account of this file.
pub(super) fn is_for_nis(name: &str) -> bool {
    name.starts_with(['+', '-'])
}

/// Items that are the same are one.
pub(super) fn each_once(items: impl Iterator<Item = Item>) -> Vec<Item> {
    let mut seen = HashSet::new();
    items.filter(|item| seen.insert(item.clone())).collect()
}

/// What is left of a line while its fields are read. As in C, a field that is not there and an empty one at the end are
/// the same.
pub(super) struct Fields<'line> {
    rest: &'line str,
}

impl<'line> Fields<'line> {
    pub(super) fn of(line: &'line str) -> Self {
        Self { rest: line }
    }

    /// What no field has taken yet, colons included.
    pub(super) fn rest(&self) -> &'line str {
        self.rest
    }

    pub(super) fn is_at_end(&self) -> bool {
        self.rest.is_empty()
    }

    pub(super) fn skip_blanks(&mut self) {
        self.rest = self.rest.trim_start_matches(is_blank);
    }

    /// Text, up to the next colon.
    pub(super) fn text(&mut self) -> &'line str {
        let (field, rest) = self.rest.split_once(':').unwrap_or((self.rest, ""));
        self.rest = rest;
        field
    }

    /// A number; without one, the line is no entry.
    pub(super) fn number(&mut self) -> Option<u32> {
        number(self.text())
    }

    /// A number that may be empty; where the line has ended before, it is no entry.
    pub(super) fn number_or(&mut self, empty: u32) -> Option<u32> {
        if self.is_at_end() {
            return None;
        }
        let field = self.text();
        if field.is_empty() { Some(empty) } else { number(field) }
    }
}

/// A field as `strtoul` reads it, if that is all of the field and fits into 32 bits. A minus sign wraps in 64 bits.
pub(super) fn number(field: &str) -> Option<u32> {
    let signed = field.trim_start_matches(is_blank);
    let digits = signed.strip_prefix(['+', '-']).unwrap_or(signed);
    if !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let value: u64 = digits.parse().ok()?;
    u32::try_from(if signed.starts_with('-') { value.wrapping_neg() } else { value }).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_begins_after_blanks_and_ends_where_c_ends_it() {
        let text = " \t\u{b}a:1\r\n\n\r\n#b\n  #c\nd:\0e\n\0f\n \0\n\u{a0}g\u{2028}h\n-";
        assert_eq!(lines(text).collect::<Vec<_>>(), ["a:1\r", "d:", "\u{a0}g\u{2028}h", "-"]);
    }

    #[test]
    fn a_number_is_what_strtoul_takes_within_32_bits() {
        let check = |text: &str, expect: Option<u32>| assert_eq!(number(text), expect, "{text:?}");
        check("0", Some(0));
        check("+4", Some(4));
        check(" \t\u{b}+07", Some(7));
        check("4294967295", Some(u32::MAX));
        check("4294967296", None);
        check("99999999999999999999", None);
        check("-0", Some(0));
        check("-1", None);
        check("-18446744069414584321", Some(u32::MAX));
        check("-18446744073709551615", Some(1));
        check("-18446744073709551616", None);
        for text in ["", " ", "+", "-", "--1", "+-1", "+ 1", "1 ", "1\r", "0x1", "1:2"] {
            check(text, None);
        }
    }

    #[test]
    fn fields_end_at_colons_and_then_there_are_no_more() {
        let mut fields = Fields::of("a::3:  b:c");
        assert_eq!((fields.text(), fields.number_or(7), fields.number_or(7)), ("a", Some(7), Some(3)));
        fields.skip_blanks();
        assert_eq!((fields.rest(), fields.text(), fields.text()), ("b:c", "b", "c"));
        assert!(fields.is_at_end());
        assert_eq!((fields.text(), fields.number(), fields.number_or(7)), ("", None, None));
    }
}
