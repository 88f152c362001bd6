//! `pattern match`: Perl-compatible regular expressions, bounded.
//!
//! OVAL §5.1.2 names PCRE. A pattern may come from a policy, from a variable, or from a file on a
//! hostile endpoint, so every match has a step limit; over it the match is an error.

use std::cell::RefCell;
use std::collections::BTreeMap;

use pcre2::bytes::{CaptureLocations, Regex, RegexBuilder};

use crate::limits;

/// How a pattern is applied (`Textfilecontent54Behaviors`; the default is that of plain entities).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Flags {
    /// Letters match whatever their case.
    pub is_caseless: bool,
    /// `^` and `$` match at every line.
    pub is_multiline: bool,
    /// `.` matches a newline.
    pub is_singleline: bool,
}

/// A pattern that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PatternError {
    /// It does not compile.
    #[error("the pattern `{pattern}` is not a regular expression: {reason}")]
    Invalid {
        /// The pattern, cut.
        pattern: String,
        /// What PCRE says.
        reason: String,
    },
    /// It needs more steps than the limit.
    #[error("the pattern `{pattern}` takes more than {} steps on this text", limits::PATTERN_STEPS_MAX)]
    TooCostly {
        /// The pattern, cut.
        pattern: String,
    },
}

/// A compiled pattern.
#[derive(Debug, Clone)]
pub struct Pattern {
    text: String,
    /// For text that is UTF-8.
    regex: Regex,
    /// For bytes that are not, and for ASCII where that is the same.
    bytes: Option<Regex>,
}

fn cut(text: &str) -> String {
    text.chars().take(120).collect()
}

thread_local! {
    static KEPT: RefCell<BTreeMap<(String, Flags), Pattern>> = const { RefCell::new(BTreeMap::new()) };
}

impl Pattern {
    /// Compiles a pattern, or takes it from those kept by this thread.
    pub fn new(text: &str, flags: Flags) -> Result<Self, PatternError> {
        let key = (text.to_owned(), flags);
        if let Some(kept) = KEPT.with_borrow(|kept| kept.get(&key).cloned()) {
            return Ok(kept);
        }
        let pattern = Self::compile(text, flags)?;
        KEPT.with_borrow_mut(|kept| {
            if kept.len() >= limits::PATTERNS_KEPT_MAX {
                kept.clear();
            }
            kept.insert(key, pattern.clone());
        });
        Ok(pattern)
    }

    fn compile(text: &str, flags: Flags) -> Result<Self, PatternError> {
        let invalid = |reason: String| PatternError::Invalid { pattern: cut(text), reason };
        if text.len() > limits::PATTERN_BYTES_MAX {
            return Err(invalid(format!("longer than {} bytes", limits::PATTERN_BYTES_MAX)));
        }
        // The limit rides in the pattern: the wrapper has no setter for it. A pattern may lower it
        // with a verb of its own, not raise it.
        let build = |text: &str, is_utf: bool| {
            let limited = format!("(*LIMIT_MATCH={}){text}", limits::PATTERN_STEPS_MAX);
            RegexBuilder::new()
                .caseless(flags.is_caseless)
                .multi_line(flags.is_multiline)
                .dotall(flags.is_singleline)
                .utf(is_utf)
                .jit_if_available(true)
                .build(&limited)
        };
        let (regex, bytes) = match build(text, true) {
            Ok(regex) => (regex, build(text, false)),
            Err(error) => {
                let perl = as_perl(text);
                (build(&perl, true).map_err(|_| invalid(error.to_string()))?, build(&perl, false))
            }
        };
        Ok(Self { text: text.to_owned(), regex, bytes: bytes.ok() })
    }

    /// PCRE checks at each search the rest of a text for UTF-8, and the wrapper has no way to turn that off. ASCII is the
    /// same to both engines if the pattern is ASCII too: one that names a character beyond 255, which might have a letter
    /// of ASCII as its other case, does not compile for bytes.
    fn engine(&self, subject: &[u8]) -> &Regex {
        match &self.bytes {
            Some(bytes) if subject.is_ascii() && self.text.is_ascii() => bytes,
            Some(bytes) if !subject.is_ascii() && std::str::from_utf8(subject).is_err() => bytes,
            _ => &self.regex,
        }
    }

    fn costly(&self, _error: pcre2::Error) -> PatternError {
        PatternError::TooCostly { pattern: cut(&self.text) }
    }

    /// Whether the pattern finds a match anywhere.
    pub fn is_match(&self, subject: &[u8]) -> Result<bool, PatternError> {
        self.engine(subject).is_match(subject).map_err(|error| self.costly(error))
    }

    /// The first match at or after `start`: where it is, and its groups from 1 on.
    pub fn find(&self, subject: &[u8], start: usize) -> Result<Option<Found>, PatternError> {
        self.on(subject).find(start)
    }

    /// The pattern on a text that is searched more than once: what the text is made of is looked at once.
    pub fn on<'all>(&'all self, subject: &'all [u8]) -> Search<'all> {
        let regex = self.engine(subject);
        Search { pattern: self, regex, subject, locations: regex.capture_locations() }
    }
}

/// A pattern on one text.
#[derive(Debug)]
pub struct Search<'all> {
    pattern: &'all Pattern,
    regex: &'all Regex,
    subject: &'all [u8],
    locations: CaptureLocations,
}

impl Search<'_> {
    /// The first match at or after `start`: where it is, and its groups from 1 on.
    pub fn find(&mut self, start: usize) -> Result<Option<Found>, PatternError> {
        let found = self.regex.captures_read_at(&mut self.locations, self.subject, start);
        let found = found.map_err(|error| self.pattern.costly(error))?;
        Ok(found.map(|whole| Found {
            start: whole.start(),
            end: whole.end(),
            groups: (1..self.locations.len()).map(|group| self.locations.get(group)).collect(),
        }))
    }
}

/// A match.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// Where it begins.
    pub start: usize,
    /// Where it ends.
    pub end: usize,
    /// The groups; `None` where a group took no part.
    pub groups: Vec<Option<(usize, usize)>>,
}

/// Makes text match itself (`escape_regex`, §5.3.4.6).
pub fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        if r"\^$.|?*+()[]{}".contains(character) {
            escaped.push('\\');
        }
        escaped.push(character);
    }
    escaped
}

/// A glob as a pattern (`glob_to_regex`, §5.3.4.14).
pub fn from_glob(glob: &str, noescape: bool) -> String {
    let mut pattern = String::from("^");
    let characters: Vec<char> = glob.chars().collect();
    // Behind the last `]` nothing closes a class any more.
    let last_close = characters.iter().rposition(|character| *character == ']').unwrap_or(0);
    let mut at = 0;
    let mut is_first_of_part = true;
    while at < characters.len() {
        let character = characters[at];
        at += 1;
        match character {
            '*' => pattern.push_str(if is_first_of_part { r"(?=[^.])[^/]*" } else { "[^/]*" }),
            '?' => pattern.push_str(if is_first_of_part { "[^./]" } else { "[^/]" }),
            '[' if at > last_close => pattern.push_str(r"\["),
            '[' => match glob_class(&characters[at..]) {
                Some((class, length)) => {
                    pattern.push_str(&class);
                    at += length;
                }
                None => pattern.push_str(r"\["),
            },
            // As `oscap` writes it: alone it stands for itself.
            ']' => pattern.push(']'),
            '\\' if !noescape && at < characters.len() => {
                pattern.push_str(&escape(&characters[at].to_string()));
                at += 1;
            }
            other => pattern.push_str(&escape(&other.to_string())),
        }
        is_first_of_part = character == '/';
    }
    pattern.push('$');
    pattern
}

/// What follows a `[` of a glob as a class of a pattern, and how long it is; none where nothing closes it. A `]` that
/// comes first stands for itself, and so does one inside `[:name:]`.
fn glob_class(rest: &[char]) -> Option<(String, usize)> {
    let mut class = String::from("[");
    let mut at = 0;
    if matches!(rest.first(), Some('!' | '^')) {
        class.push('^');
        at = 1;
    }
    let first = at;
    while let Some(inside) = rest.get(at) {
        match inside {
            ']' if at > first => {
                class.push(']');
                return Some((class, at + 1));
            }
            '[' if rest.get(at + 1) == Some(&':') => {
                // The names that there are have at most six letters.
                let mut ends = at + 2..(at + 10).min(rest.len().saturating_sub(1));
                if let Some(end) = ends.find(|end| rest[*end] == ':' && rest[end + 1] == ']') {
                    class.extend(&rest[at..=end + 1]);
                    at = end + 2;
                    continue;
                }
                class.push_str(r"\[");
            }
            '\\' | '[' => {
                class.push('\\');
                class.push(*inside);
            }
            other => class.push(*other),
        }
        at += 1;
    }
    None
}

/// A pattern that PCRE2 refuses as PCRE and Perl read it: a hyphen behind `\w` and the like in a class is a hyphen,
/// and an escape that means nothing is its letter.
fn as_perl(pattern: &str) -> String {
    let mut perl = String::with_capacity(pattern.len() + 4);
    let mut is_class = false;
    let mut characters = pattern.chars().peekable();
    while let Some(character) = characters.next() {
        match character {
            '\\' => {
                let Some(next) = characters.next() else {
                    perl.push('\\');
                    break;
                };
                if "FIJMOTYijmqy".contains(next) {
                    perl.push(next);
                } else {
                    perl.push('\\');
                    perl.push(next);
                }
                if is_class && "wWsSdDhHvV".contains(next) && characters.peek() == Some(&'-') {
                    characters.next();
                    perl.push_str("\\-");
                }
            }
            '[' if !is_class => {
                is_class = true;
                perl.push('[');
                // Here a closing bracket stands for itself.
                for first in ['^', ']'] {
                    if characters.peek() == Some(&first) {
                        characters.next();
                        perl.push(first);
                    }
                }
            }
            ']' if is_class => {
                is_class = false;
                perl.push(']');
            }
            other => perl.push(other),
        }
    }
    perl
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(pattern: &str, subject: &str, expect: bool) {
        let pattern = Pattern::new(pattern, Flags::default()).unwrap();
        assert_eq!(pattern.is_match(subject.as_bytes()).unwrap(), expect);
    }

    #[test]
    fn perl_syntax_is_understood() {
        check(r"^(?!root:)[^:]+:[^!*]", "daemon:x", true);
        check(r"^\s*PermitRootLogin(?-i)[ \t]+no", "PermitRootLogin no", true);
        check(r"(a)\1", "aa", true);
        check(r"^[\w-_.]+$", "a-b_c.d", true);
        check(r"^[^\s-x]+$", "a-b", false);
        check(r"^\y\.$", "y.", true);
    }

    #[test]
    fn a_catastrophic_pattern_is_an_error_and_not_a_hang() {
        let pattern = Pattern::new("^(a+)+$", Flags::default()).unwrap();
        let subject = format!("{}b", "a".repeat(60));
        assert!(matches!(pattern.is_match(subject.as_bytes()), Err(PatternError::TooCostly { .. }) | Ok(false)));
        let pattern = Pattern::new(r"^(([a-z])+.)+[A-Z]([a-z])+$", Flags::default()).unwrap();
        assert!(matches!(
            pattern.is_match("a".repeat(200).as_bytes()),
            Err(PatternError::TooCostly { .. }) | Ok(false)
        ));
    }

    #[test]
    fn a_broken_pattern_names_itself() {
        let error = Pattern::new("(", Flags::default()).unwrap_err().to_string();
        assert!(error.contains("`(`"), "{error}");
    }

    #[test]
    fn bytes_that_are_not_utf_8_can_be_searched() {
        let pattern = Pattern::new("b+", Flags::default()).unwrap();
        assert_eq!(pattern.find(b"\xff\xfebb", 0).unwrap().unwrap().start, 2);
    }

    #[test]
    fn ascii_is_searched_as_bytes_and_says_the_same_as_text() {
        let patterns = [
            r"^(\w+)\s*=\s*(.*)$",
            r"\bk\w",
            r"[^\x80-\xff]+",
            r"[^\d\xe5]\R",
            r"(?<=a)\p{Lu}|\X\z",
            r"x*",
            r"[[:^alpha:]]+",
            r"[\x{61}-\x{ff}]+",
            r"[\x61-\x{17f}]+",
            r"\xb5|\x{212a}|S",
            "ä|a",
        ];
        let subjects = ["", "key = Value\nK s\r\n", "aB\u{7f}~\tkind\n", "xxS_9", "ab\u{b}\u{c}"];
        for (pattern, is_caseless) in patterns.iter().flat_map(|pattern| [(pattern, false), (pattern, true)]) {
            let flags = Flags { is_caseless, is_multiline: true, is_singleline: false };
            let pattern = Pattern::new(pattern, flags).unwrap();
            let as_text = Pattern { bytes: None, ..pattern.clone() };
            for subject in subjects.map(str::as_bytes) {
                for start in 0..=subject.len() {
                    assert_eq!(pattern.find(subject, start), as_text.find(subject, start), "{pattern:?} {start}");
                }
            }
        }
    }

    #[test]
    fn each_text_has_the_engine_that_looks_at_it_least() {
        let is_of_bytes = |pattern: &str, subject: &[u8]| {
            let pattern = Pattern::new(pattern, Flags::default()).unwrap();
            !std::ptr::eq(pattern.on(subject).regex, &raw const pattern.regex)
        };
        assert!(is_of_bytes("a", b"aaa"));
        assert!(is_of_bytes("a", b"a\xff"));
        assert!(!is_of_bytes("a", "aä".as_bytes()));
        assert!(!is_of_bytes("ä*", b"aaa"));
        assert!(!is_of_bytes(r"\x{212a}", b"aaa"));
    }

    #[test]
    fn a_search_goes_on_behind_what_it_found() {
        let pattern = Pattern::new(r"(\w)=(x)?", Flags::default()).unwrap();
        let mut search = pattern.on(b"a= b=x");
        let first = Found { start: 0, end: 2, groups: vec![Some((0, 1)), None] };
        assert_eq!(search.find(0).unwrap(), Some(first));
        let second = Found { start: 3, end: 6, groups: vec![Some((3, 4)), Some((5, 6))] };
        assert_eq!(search.find(2).unwrap(), Some(second));
        assert_eq!(search.find(6).unwrap(), None);
    }

    #[test]
    fn a_glob_becomes_a_pattern() {
        let matches = |glob: &str, path: &str| {
            Pattern::new(&from_glob(glob, false), Flags::default()).unwrap().is_match(path.as_bytes()).unwrap()
        };
        assert!(matches("/etc/*.conf", "/etc/a.conf"));
        assert!(!matches("/etc/*.conf", "/etc/.conf"));
        assert!(!matches("/etc/*.conf", "/etc/a/b.conf"));
        assert!(matches("/etc/[!a]?", "/etc/bc"));
        assert!(!matches("/etc/[!a]?", "/etc/ac"));
        assert_eq!(from_glob(r"x[[:digit:]]\*", false), r"^x[[:digit:]]\*$");
        assert_eq!(from_glob("[!]]", false), "^[^]]$");
        assert_eq!(from_glob("[a", false), r"^\[a$");
        assert!(matches("[]a]x", "]x"));
    }

    #[test]
    fn escaped_text_matches_itself() {
        let text = r"a.b*c[d](e){f}^$|\+?";
        check(&format!("^{}$", escape(text)), text, true);
    }
}
