//! Names of units: their types, templates and instances, and what a name stands for inside a unit file (systemd.unit(5)).

/// The ends of names: the types of units.
const TYPES: [&str; 11] =
    ["automount", "device", "mount", "path", "scope", "service", "slice", "socket", "swap", "target", "timer"];
/// Bytes of a name.
const NAME_BYTES_MAX: usize = 255;

/// A name without its type, and its type; none for what cannot be a unit.
pub(super) fn split(name: &str) -> Option<(&str, &str)> {
    let (stem, kind) = name.rsplit_once('.')?;
    let is_name = |character: char| character.is_ascii_alphanumeric() || ":-_.\\@".contains(character);
    let is_valid = name.len() <= NAME_BYTES_MAX
        && TYPES.contains(&kind)
        && !stem.is_empty()
        && !stem.starts_with('@')
        && stem.chars().all(is_name);
    is_valid.then_some((stem, kind))
}

/// The type, such as `service`.
pub(super) fn kind(name: &str) -> &str {
    split(name).map_or("", |(_, kind)| kind)
}

/// Whether it is a template, such as `getty@.service`.
pub(super) fn is_template(name: &str) -> bool {
    split(name).is_some_and(|(stem, _)| stem.find('@').is_some_and(|at| at + 1 == stem.len()))
}

/// What an instance is called behind the `@`.
pub(super) fn instance(name: &str) -> Option<&str> {
    let (stem, _) = split(name)?;
    stem.split_once('@').map(|(_, instance)| instance).filter(|instance| !instance.is_empty())
}

/// The template of an instance.
pub(super) fn template(name: &str) -> Option<String> {
    instance(name)?;
    let (prefix, _) = name.split_once('@')?;
    Some(format!("{prefix}@.{}", kind(name)))
}

/// A template's instance of this name.
pub(super) fn of_template(template: &str, instance: &str) -> String {
    match template.split_once("@.") {
        Some((prefix, kind)) => format!("{prefix}@{instance}.{kind}"),
        None => template.to_owned(),
    }
}

/// The names of directories that belong to a unit, without their end: `a-b.service` has those of `a-.service` too, an
/// instance those of its template. The most special is first.
pub(super) fn of_directories(name: &str) -> Vec<String> {
    let mut names = vec![name.to_owned()];
    names.extend(template(name));
    let Some((stem, kind)) = split(name) else { return names };
    let (mut prefix, instance) = match stem.split_once('@') {
        Some((prefix, instance)) => (prefix, format!("@{instance}")),
        None => (stem, String::new()),
    };
    while let Some(at) = prefix.trim_end_matches('-').rfind('-') {
        prefix = &prefix[..=at];
        let name = format!("{prefix}{instance}.{kind}");
        names.extend([name.clone()].into_iter().chain(template(&name)));
    }
    names
}

/// Text of a unit's file with the specifiers replaced that its name decides; none where another one is used, which only the
/// running system knows.
pub(super) fn expand(text: &str, unit: &str) -> Option<String> {
    let stem = split(unit).map_or(unit, |(stem, _)| stem);
    let prefix = stem.split_once('@').map_or(stem, |(prefix, _)| prefix);
    let instance = instance(unit).unwrap_or_default();
    let last = prefix.rsplit('-').next().unwrap_or(prefix);
    let mut expanded = String::with_capacity(text.len());
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        if character != '%' {
            expanded.push(character);
            continue;
        }
        match characters.next()? {
            'n' => expanded.push_str(unit),
            'N' => expanded.push_str(stem),
            'p' => expanded.push_str(prefix),
            'P' => expanded.push_str(&unescape(prefix)),
            'i' => expanded.push_str(instance),
            'I' => expanded.push_str(&unescape(instance)),
            'j' => expanded.push_str(last),
            'J' => expanded.push_str(&unescape(last)),
            '%' => expanded.push('%'),
            _ => return None,
        }
    }
    Some(expanded)
}

/// What systemd-escape(1) had made of it: `-` is `/`, `\xNN` a byte.
fn unescape(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let code = after.strip_prefix(b"x").and_then(|hex| std::str::from_utf8(hex.get(..2)?).ok());
        match (first, code.and_then(|code| u8::from_str_radix(code, 16).ok())) {
            (b'\\', Some(byte)) => {
                bytes.push(byte);
                rest = &after[3..];
            }
            (b'-', _) => {
                bytes.push(b'/');
                rest = after;
            }
            (other, _) => {
                bytes.push(*other);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_unit_has_no_type() {
        for name in ["README", ".service", "@.service", "a b.service", "a.servic", "a/b.service", "ä.service"] {
            assert_eq!(split(name), None, "{name}");
        }
        assert_eq!(split(&format!("{}.service", "a".repeat(300))), None);
        assert_eq!(split("a.b@c.d.timer"), Some(("a.b@c.d", "timer")));
    }

    #[test]
    fn an_instance_has_a_template() {
        assert_eq!(template("getty@tty1.service").as_deref(), Some("getty@.service"));
        assert_eq!((template("getty@.service"), is_template("getty@.service")), (None, true));
        assert_eq!((template("a.service"), instance("a.service")), (None, None));
        assert_eq!(of_template("getty@.service", "tty1"), "getty@tty1.service");
    }

    #[test]
    fn directories_go_from_the_special_to_the_common() {
        assert_eq!(of_directories("a-b-c.service"), ["a-b-c.service", "a-b-.service", "a-.service"]);
        assert_eq!(of_directories("a-.service"), ["a-.service"]);
        assert_eq!(of_directories("x@y.timer"), ["x@y.timer", "x@.timer"]);
        assert_eq!(of_directories("a-x@y.timer"), ["a-x@y.timer", "a-x@.timer", "a-@y.timer", "a-@.timer"]);
    }

    #[test]
    fn a_name_decides_what_specifiers_are() {
        let unit = r"disk-check@dev-sda\x2d1.service";
        for (text, wanted) in [
            ("%i.mount", Some(r"dev-sda\x2d1.mount")),
            ("%I", Some("dev/sda-1")),
            ("%p %P %j %N", Some(r"disk-check disk/check check disk-check@dev-sda\x2d1")),
            ("%n", Some(unit)),
            ("100%%", Some("100%")),
            ("%H.service", None),
            ("%", None),
        ] {
            assert_eq!(expand(text, unit).as_deref(), wanted, "{text}");
        }
        assert_eq!(expand("[%i]", "a.service").as_deref(), Some("[]"));
        assert_eq!(unescape("a\\x"), "a\\x");
    }
}
