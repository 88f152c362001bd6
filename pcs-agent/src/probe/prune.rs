//! Which directories a walk can leave out, from the shape of an anchored pattern, and where it begins.
//!
//! A pattern such as `^/(home|root)/[^/]+$` is cut at its slashes; a directory whose components do
//! not match the pieces cannot lead to a match. Pieces that might match a slash themselves end the
//! knowledge: below them everything is walked.

use std::collections::BTreeMap;

use oval::pattern::{Flags, Pattern};
use oval::resolve::QueryEntity;
use proto::plan::Operation;

/// What is known of all patterns of an entity.
#[derive(Debug)]
pub(super) struct Prune {
    /// One for each pattern; `None`: nothing is known of it.
    pieces: Vec<Option<Pieces>>,
}

#[derive(Debug)]
struct Pieces {
    pieces: Vec<Pattern>,
    /// The pattern ends with its last piece.
    is_whole: bool,
}

impl Prune {
    pub(super) fn of(entity: &QueryEntity) -> Self {
        let is_pattern = entity.operation == Operation::PatternMatch;
        Self { pieces: entity.values.iter().map(|value| if is_pattern { pieces(value) } else { None }).collect() }
    }

    /// Whether something at or below this directory may match.
    pub(super) fn may_match_below(&self, directory: &str) -> bool {
        let components: Vec<&str> = directory.split('/').filter(|component| !component.is_empty()).collect();
        self.pieces.iter().any(|pieces| match pieces {
            None => true,
            Some(known) => {
                let is_deeper = known.is_whole && components.len() >= known.pieces.len();
                !is_deeper
                    && known
                        .pieces
                        .iter()
                        .zip(&components)
                        .all(|(piece, component)| piece.is_match(component.as_bytes()).unwrap_or(true))
            }
        })
    }
}

fn pieces(pattern: &str) -> Option<Pieces> {
    let rest = pattern.strip_prefix("^/")?;
    let mut pieces = Vec::new();
    let mut is_whole = false;
    let mut texts = split(rest)?;
    let last = texts.pop()?;
    for text in &texts {
        if !is_closed(text) {
            return compiled(&pieces, is_whole);
        }
        pieces.push(format!("{text})$"));
    }
    if let Some(last) = last.strip_suffix('$').filter(|last| !last.ends_with('\\') && is_closed(last)) {
        pieces.push(format!("{last})$"));
        is_whole = true;
    } else if is_closed(&last) {
        // Whatever follows, a component begins so.
        pieces.push(format!("{last})"));
    }
    compiled(&pieces, is_whole)
}

fn compiled(pieces: &[String], is_whole: bool) -> Option<Pieces> {
    let pieces = pieces
        .iter()
        .map(|piece| Pattern::new(&format!("^(?:{piece}"), Flags::default()).ok())
        .collect::<Option<Vec<_>>>()?;
    Some(Pieces { pieces, is_whole })
}

/// Cuts at slashes that stand outside groups and classes; nothing where an alternative is open.
fn split(pattern: &str) -> Option<Vec<String>> {
    let (mut parts, mut part) = (Vec::new(), String::new());
    let (mut depth, mut is_in_class, mut is_escaped) = (0_usize, false, false);
    for character in pattern.chars() {
        match character {
            _ if is_escaped => is_escaped = false,
            '\\' => is_escaped = true,
            ']' if is_in_class => is_in_class = false,
            _ if is_in_class => {}
            '[' => is_in_class = true,
            '(' => depth += 1,
            ')' => depth = depth.checked_sub(1)?,
            '|' if depth == 0 => return None,
            '/' if depth == 0 => {
                parts.push(std::mem::take(&mut part));
                continue;
            }
            _ => {}
        }
        part.push(character);
    }
    parts.push(part);
    Some(parts)
}

/// Whether a piece cannot match a slash: plain text, `[^…/…]` and positive classes, groups of these.
fn is_closed(piece: &str) -> bool {
    let mut characters = piece.chars().peekable();
    while let Some(character) = characters.next() {
        match character {
            '.' | '/' | '$' | '^' => return false,
            '\\' => match characters.next() {
                Some('d' | 'w' | 's') => {}
                Some(escaped) if !escaped.is_ascii_alphanumeric() && escaped != '/' => {}
                _ => return false,
            },
            '[' => {
                let class: String = characters.by_ref().take_while(|inside| *inside != ']').collect();
                let is_negated = class.starts_with('^');
                // Ranges and escapes might hide a slash; only `-` between letters or digits is plain.
                if class.contains('\\')
                    || class.contains('[')
                    || is_negated != class.contains('/')
                    || has_wide_range(&class)
                {
                    return false;
                }
            }
            '(' if characters.peek() == Some(&'?') => {
                characters.next();
                if characters.next() != Some(':') {
                    return false;
                }
            }
            _ => {}
        }
    }
    true
}

fn has_wide_range(class: &str) -> bool {
    let characters: Vec<char> = class.chars().collect();
    characters.windows(3).any(|window| {
        window[1] == '-' && !(window[0].is_ascii_alphanumeric() && window[2].is_ascii_alphanumeric() && window[0] > '/')
    })
}

/// Where a walk begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Start {
    pub(super) directory: String,
    /// It is only on the way to what plain patterns spell: below that, a link that leads back to it is no cycle yet.
    pub(super) is_on_the_way: bool,
}

impl Start {
    fn at(directory: &str) -> Self {
        Self { directory: directory.to_owned(), is_on_the_way: false }
    }
}

/// Where a walk has to begin: below the fixed beginning of each pattern.
pub(super) fn starts(entity: &QueryEntity) -> Vec<Start> {
    let mut starts = BTreeMap::new();
    for value in &entity.values {
        let start = if entity.operation == Operation::PatternMatch { fixed_start(value) } else { Start::at("/") };
        *starts.entry(start.directory).or_insert(true) &= start.is_on_the_way;
    }
    // A start below another one is walked already.
    let is_below =
        |start: &str, other: &str| start != other && (other == "/" || start.starts_with(&format!("{other}/")));
    starts
        .iter()
        .filter(|(start, _)| !starts.keys().any(|other| is_below(start, other)))
        .map(|(directory, is_on_the_way)| Start { directory: directory.clone(), is_on_the_way: *is_on_the_way })
        .collect()
}

/// The directory that every match of the pattern is below.
fn fixed_start(pattern: &str) -> Start {
    let Some(anchored) = pattern.strip_prefix('^') else { return Start::at("/") };
    let mut fixed = String::new();
    let mut is_plain = true;
    let mut characters = anchored.chars().peekable();
    while let Some(character) = characters.next() {
        let literal = match character {
            '\\' => match characters.next() {
                Some(escaped) if !escaped.is_ascii_alphanumeric() => Some(escaped),
                _ => None,
            },
            '.' | '[' | '(' | '*' | '?' | '+' | '{' | '|' | '$' | '^' => None,
            plain => Some(plain),
        };
        // A quantifier makes what stands before it optional.
        let is_optional = matches!(characters.peek(), Some('*' | '?' | '{'));
        let Some(literal) = literal.filter(|_| !is_optional) else {
            is_plain = false;
            break;
        };
        fixed.push(literal);
    }
    // An alternative anywhere outside a group may begin with something else.
    if has_open_alternative(anchored) {
        return Start::at("/");
    }
    let directory = match fixed.rsplit_once('/') {
        Some(("", _)) | None => "/",
        Some((directory, _)) => directory,
    };
    Start { is_on_the_way: is_plain, ..Start::at(directory) }
}

fn has_open_alternative(pattern: &str) -> bool {
    let mut depth = 0_usize;
    let mut is_escaped = false;
    let mut is_in_class = false;
    for character in pattern.chars() {
        match character {
            _ if is_escaped => is_escaped = false,
            '\\' => is_escaped = true,
            ']' => is_in_class = false,
            _ if is_in_class => {}
            '[' => is_in_class = true,
            '(' => depth += 1,
            ')' => depth = depth.saturating_sub(1),
            '|' if depth == 0 => return true,
            _ => {}
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;
    use proto::plan::{Check, Datatype};

    fn check(pattern: &str, directory: &str, expect: bool) {
        let entity = QueryEntity {
            name: "path".into(),
            operation: Operation::PatternMatch,
            datatype: Datatype::String,
            values: vec![pattern.into()],
            var_check: Check::All,
            is_nil: false,
        };
        assert_eq!(Prune::of(&entity).may_match_below(directory), expect, "{pattern} below {directory}");
    }

    #[test]
    fn directories_that_cannot_lead_to_a_match_are_left_out() {
        check(r"^/(home|root)$", "/", true);
        check(r"^/(home|root)$", "/home", false);
        check(r"^/(home|root)$", "/proc", false);
        check(r"^/etc/[^/]+/x\.conf$", "/etc/a", true);
        check(r"^/etc/[^/]+/x\.conf$", "/usr", false);
        check(r"^/etc/[^/]+/x\.conf$", "/etc/a/b", false);
        check(r"^/etc/[^/]+/x\.conf$", "/etc/a/x.conf", false);
        check(r"^/etc/ssh", "/etc/sshd", true);
        check(r"^/etc/ssh", "/etc/ssh.d/keys", true);
        check(r"^/etc/ssh", "/etc/ss", false);
        check(r"^/etc/ssh", "/etc/a/ssh", false);
        check(r"^/etc/(a|b\.c)", "/etc/b.conf", true);
        check(r"^/etc/(a|b\.c)", "/etc/bin", false);
        check(r"^/etc/", "/etc/bin", true);
    }

    #[test]
    fn what_may_match_a_slash_is_walked() {
        check(r"^/etc/.*\.conf$", "/etc/a/b/c", true);
        check(r"^/etc/.*\.conf$", "/usr", false);
        check(r"^/(etc|usr/lib)/x$", "/usr/lib", true);
        check(r"^/etc/[^a]+$", "/etc/b/c", true);
        check(r"/etc/", "/anything", true);
        check(r"^/etc|/usr", "/usr", true);
        check(r"^/etc/[ -z]+$", "/etc/b/c", true);
    }

    #[test]
    fn a_walk_begins_where_the_pattern_is_fixed() {
        assert_eq!(fixed_start(r"^/etc/ssh/sshd_config\.d/.*$"), Start::at("/etc/ssh/sshd_config.d"));
        assert_eq!(fixed_start(r"^/etc/a?b"), Start::at("/etc"));
        assert_eq!(fixed_start(r"^/(etc|usr)/x"), Start::at("/"));
        assert_eq!(fixed_start(r"^/etc/x|^/usr/y"), Start::at("/"));
        assert_eq!(fixed_start("/etc/x"), Start::at("/"));
        assert_eq!(fixed_start(r"^/etc/\w+"), Start::at("/etc"));
        assert_eq!(fixed_start(r"^/etc/x$"), Start::at("/etc"));
    }

    #[test]
    fn where_all_patterns_are_plain_a_walk_begins_on_the_way() {
        let check = |patterns: &[&str], expect: &[(&str, bool)]| {
            let entity = QueryEntity {
                name: "path".into(),
                operation: Operation::PatternMatch,
                datatype: Datatype::String,
                values: patterns.iter().map(|pattern| (*pattern).to_owned()).collect(),
                var_check: Check::AtLeastOne,
                is_nil: false,
            };
            let starts = starts(&entity);
            let found: Vec<_> = starts.iter().map(|start| (start.directory.as_str(), start.is_on_the_way)).collect();
            assert_eq!(found, expect, "{patterns:?}");
        };
        check(&[r"^/etc/x\.d", r"^/etc/y"], &[("/etc", true)]);
        check(&[r"^/etc/x\.d", r"^/etc/y$"], &[("/etc", false)]);
        check(&[r"^/etc/x", r"^/usr/.*"], &[("/etc", true), ("/usr", false)]);
        check(&[r"^/etc/x", r"^/etc/y/z"], &[("/etc", true)]);
        check(&[r"^/etc", "/usr/x"], &[("/", false)]);
    }
}
