//! The text of a unit file: sections, settings, continued lines (systemd.syntax(7)). A line that is not UTF-8 is left out, as
//! systemd does; nothing here fails.

/// One assignment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Setting {
    pub(super) section: String,
    pub(super) key: String,
    pub(super) value: String,
}

/// The assignments of a file, in its order.
pub(super) fn settings(content: &[u8]) -> Vec<Setting> {
    let content = content.strip_prefix(b"\xef\xbb\xbf").unwrap_or(content);
    let mut settings = Vec::new();
    let mut section = String::new();
    let mut continued = String::new();
    for line in content.split(|byte| *byte == b'\n') {
        let Ok(line) = std::str::from_utf8(line) else { continue };
        let line = line.strip_suffix('\r').unwrap_or(line);
        // A comment inside a continued line does not end it.
        if line.trim_start().starts_with(['#', ';']) {
            continue;
        }
        continued.push_str(line);
        let backslashes = line.len() - line.trim_end_matches('\\').len();
        if !backslashes.is_multiple_of(2) {
            continued.pop();
            continued.push(' ');
            continue;
        }
        take(&continued, &mut section, &mut settings);
        continued.clear();
    }
    take(&continued, &mut section, &mut settings);
    settings
}

fn take(line: &str, section: &mut String, settings: &mut Vec<Setting>) {
    let line = line.trim();
    if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        name.clone_into(section);
    } else if let Some((key, value)) = line.split_once('=') {
        let (key, value) = (key.trim_end().to_owned(), value.trim_start().to_owned());
        settings.push(Setting { section: section.clone(), key, value });
    }
}

/// The words of a list: apart by blanks, quotes around them gone, escapes left.
pub(super) fn words(text: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word = None::<String>;
    let mut quote = None;
    for character in text.chars() {
        match (quote, character) {
            (Some(open), _) if character == open => quote = None,
            (None, '"' | '\'') => {
                quote = Some(character);
                word.get_or_insert_default();
            }
            (None, _) if character.is_whitespace() => words.extend(word.take()),
            _ => word.get_or_insert_default().push(character),
        }
    }
    words.extend(word);
    words
}

/// A boolean, as systemd reads it.
pub(super) fn boolean(text: &str) -> Option<bool> {
    match text.to_ascii_lowercase().as_str() {
        "1" | "yes" | "y" | "true" | "t" | "on" => Some(true),
        "0" | "no" | "n" | "false" | "f" | "off" => Some(false),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(content: &[u8]) -> Vec<(String, String)> {
        settings(content).into_iter().map(|set| (format!("{}.{}", set.section, set.key), set.value)).collect()
    }

    fn check(content: &[u8], wanted: &[(&str, &str)]) {
        let wanted: Vec<(String, String)> =
            wanted.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        assert_eq!(read(content), wanted, "{}", String::from_utf8_lossy(content));
    }

    #[test]
    fn settings_have_sections() {
        check(
            b"# a comment\n[Unit]\nWants = a.service\n ; another\nno assignment\n[Install]\r\nAlias=b\r\n",
            &[("Unit.Wants", "a.service"), ("Install.Alias", "b")],
        );
        check(b"\xef\xbb\xbf[Unit]\nA=", &[("Unit.A", "")]);
        check(b"A=1", &[(".A", "1")]);
    }

    #[test]
    fn a_backslash_continues_a_line_over_comments() {
        check(b"[S]\nA=1 \\\n# not here\n  2\\\n;nor here\n3\nB=4", &[("S.A", "1    2 3"), ("S.B", "4")]);
        check(b"[S]\nA=1\\\\\nB=2\\", &[("S.A", "1\\\\"), ("S.B", "2")]);
    }

    #[test]
    fn a_line_that_is_no_text_is_left_out() {
        check(b"[S]\nA=\xff\nB=2\n\xff[T]\nC=3", &[("S.B", "2"), ("S.C", "3")]);
        check(b"\0\0[S]\n\0=\0", &[(".\0", "\0")]);
    }

    #[test]
    fn words_may_be_quoted() {
        assert_eq!(words(r#" a  "b c" d'e f'g "" h\x2d "#), ["a", "b c", "de fg", "", r"h\x2d"]);
        assert_eq!(words("\"open to the end"), ["open to the end"]);
        assert!(words(" \t").is_empty());
    }

    #[test]
    fn a_long_line_is_one_line() {
        let long = format!("[S]\nA={}", "x ".repeat(500_000));
        assert_eq!(words(&settings(long.as_bytes())[0].value).len(), 500_000);
        let continued = format!("[S]\nA={}", "x\\\n".repeat(100_000));
        assert_eq!(words(&settings(continued.as_bytes())[0].value).len(), 100_000);
    }
}
