//! Which directories a walk can leave out, from the shape of an anchored pattern, and where it begins.
//!
//! A pattern such as `^/(home|root)/[^/]+$` is cut at its slashes; a directory whose components do
//! not match the pieces cannot lead to a match. Pieces that might match a slash themselves end the
//! knowledge: below them everything is walked.

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
            return compiled(&mut pieces, is_whole);
        }
        pieces.push(text.clone());
    }
    if let Some(last) = last.strip_suffix('$').filter(|last| !last.ends_with('\\') && is_closed(last)) {
        pieces.push(last.to_owned());
        is_whole = true;
    }
    compiled(&mut pieces, is_whole)
}

fn compiled(pieces: &mut [String], is_whole: bool) -> Option<Pieces> {
    let pieces = pieces
        .iter()
        .map(|piece| Pattern::new(&format!("^(?:{piece})$"), Flags::default()).ok())
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

/// Where a walk has to begin: below the fixed beginning of each pattern.
pub(super) fn starts(entity: &QueryEntity) -> Vec<String> {
    let mut starts: Vec<String> = entity
        .values
        .iter()
        .map(|value| if entity.operation == Operation::PatternMatch { fixed_directory(value) } else { "/".to_owned() })
        .collect();
    starts.sort();
    starts.dedup();
    // A start below another one is walked already.
    let all = starts.clone();
    starts.retain(|start| {
        !all.iter().any(|other| other != start && (other == "/" || start.starts_with(&format!("{other}/"))))
    });
    starts
}

/// The directory that every match of the pattern is below.
fn fixed_directory(pattern: &str) -> String {
    let Some(anchored) = pattern.strip_prefix('^') else { return "/".to_owned() };
    let mut fixed = String::new();
    let mut characters = anchored.chars().peekable();
    while let Some(character) = characters.next() {
        let literal = match character {
            '\\' => match characters.next() {
                Some(escaped) if !escaped.is_ascii_alphanumeric() => escaped,
                _ => break,
            },
            '.' | '[' | '(' | '*' | '?' | '+' | '{' | '|' | '$' | '^' => break,
            plain => plain,
        };
        // A quantifier makes what stands before it optional.
        if matches!(characters.peek(), Some('*' | '?' | '{')) {
            break;
        }
        fixed.push(literal);
    }
    // An alternative anywhere outside a group may begin with something else.
    if has_open_alternative(anchored) {
        return "/".to_owned();
    }
    match fixed.rsplit_once('/') {
        Some(("", _)) | None => "/".to_owned(),
        Some((directory, _)) => directory.to_owned(),
    }
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
        assert_eq!(fixed_directory(r"^/etc/ssh/sshd_config\.d/.*$"), "/etc/ssh/sshd_config.d");
        assert_eq!(fixed_directory(r"^/etc/a?b"), "/etc");
        assert_eq!(fixed_directory(r"^/(etc|usr)/x"), "/");
        assert_eq!(fixed_directory(r"^/etc/x|^/usr/y"), "/");
        assert_eq!(fixed_directory("/etc/x"), "/");
        assert_eq!(fixed_directory(r"^/etc/\w+"), "/etc");
    }
}
