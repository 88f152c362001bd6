//! Scalars and their types: those of YAML 1.2's core schema (§10.3), as `oscap` reads them.

use proto::limits::shown;
use proto::plan::Datatype;

/// A scalar as it stands in the file.
#[derive(Debug)]
pub(super) struct Scalar {
    /// Its text.
    pub(super) text: String,
    /// Without quotes, and no block.
    pub(super) is_plain: bool,
    /// The tag that is written at it, in full.
    pub(super) tag: Option<String>,
}

/// What a scalar may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Type {
    /// What its text looks like.
    Any,
    Bool,
    Int,
    Float,
    Null,
    Text,
}

impl Scalar {
    fn type_of(&self) -> Type {
        let Some(tag) = &self.tag else { return if self.is_plain { Type::Any } else { Type::Text } };
        match tag.strip_prefix("tag:yaml.org,2002:") {
            Some("bool") => Type::Bool,
            Some("int") => Type::Int,
            Some("float") => Type::Float,
            Some("null") => Type::Null,
            _ if tag == "?" => Type::Any,
            _ => Type::Text,
        }
    }

    /// Its datatype and its value in OVAL's lexical form; why it has none, in words.
    pub(super) fn value(&self) -> Result<(Datatype, String), String> {
        let kind = self.type_of();
        if kind == Type::Text {
            return Ok((Datatype::String, self.text.clone()));
        }
        let may_be = |wanted: Type| kind == Type::Any || kind == wanted;
        // A block ends with a line's end, which is not of the value.
        let text = self.text.strip_suffix('\n').unwrap_or(&self.text);
        if may_be(Type::Bool)
            && let Some(truth) = boolean(text)
        {
            return Ok((Datatype::Boolean, truth.to_string()));
        }
        if may_be(Type::Int)
            && let Some(number) = integer(text)
        {
            return number.map(|number| (Datatype::Int, number));
        }
        if may_be(Type::Float)
            && let Some(number) = float(text)
        {
            return Ok((Datatype::Float, number));
        }
        if may_be(Type::Null) && matches!(text, "null" | "Null" | "NULL" | "~" | "") {
            // A field of a record cannot be nil: `oscap` has this word.
            return Ok((Datatype::String, "(null)".to_owned()));
        }
        match &self.tag {
            Some(tag) if kind != Type::Any => Err(format!("`{}` is no `{}`", shown(text), shown(tag))),
            _ => Ok((Datatype::String, self.text.clone())),
        }
    }
}

fn boolean(text: &str) -> Option<bool> {
    match text {
        "true" | "True" | "TRUE" => Some(true),
        "false" | "False" | "FALSE" => Some(false),
        _ => None,
    }
}

fn is_digits(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

fn unsigned(text: &str) -> &str {
    text.strip_prefix(['+', '-']).unwrap_or(text)
}

/// An integer in decimal digits; an error where one of another base is too large to be written so.
fn integer(text: &str) -> Option<Result<String, String>> {
    if is_digits(unsigned(text)) {
        let digits = unsigned(text).trim_start_matches('0');
        return Some(Ok(match digits {
            "" => "0".to_owned(),
            digits if text.starts_with('-') => format!("-{digits}"),
            digits => digits.to_owned(),
        }));
    }
    let (digits, base) = match (text.strip_prefix("0o"), text.strip_prefix("0x")) {
        (Some(octal), _) => (octal, 8),
        (_, Some(hexadecimal)) => (hexadecimal, 16),
        _ => return None,
    };
    if digits.is_empty() || !digits.chars().all(|digit| digit.is_digit(base)) {
        return None;
    }
    let number = u128::from_str_radix(digits, base).map(|number| number.to_string());
    Some(number.map_err(|_| format!("`{}` is a number of more than 128 bits", shown(text))))
}

fn float(text: &str) -> Option<String> {
    match (unsigned(text), text) {
        (".inf" | ".Inf" | ".INF", text) => return Some(if text.starts_with('-') { "-inf" } else { "inf" }.to_owned()),
        (_, ".nan" | ".NaN" | ".NAN") => return Some("nan".to_owned()),
        _ => {}
    }
    let (mantissa, exponent) = match unsigned(text).split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, Some(unsigned(exponent))),
        None => (unsigned(text), None),
    };
    let is_mantissa = match mantissa.split_once('.') {
        Some(("", part)) => is_digits(part),
        Some((whole, part)) => is_digits(whole) && (part.is_empty() || is_digits(part)),
        None => is_digits(mantissa),
    };
    if !is_mantissa || !exponent.is_none_or(is_digits) {
        return None;
    }
    text.parse::<f64>().ok().map(|number| number.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use Datatype::{Boolean, Float, Int, String as Text};

    #[track_caller]
    fn plain(text: &str, expect: (Datatype, &str)) {
        let scalar = Scalar { text: text.to_owned(), is_plain: true, tag: None };
        assert_eq!(scalar.value(), Ok((expect.0, expect.1.to_owned())), "{text}");
    }

    fn tagged(tag: &str, text: &str) -> Result<(Datatype, String), String> {
        Scalar { text: text.to_owned(), is_plain: false, tag: Some(tag.to_owned()) }.value()
    }

    #[test]
    fn plain_scalars_are_what_they_look_like() {
        for (text, expect) in [
            ("true", (Boolean, "true")),
            ("FALSE", (Boolean, "false")),
            ("tRUE", (Text, "tRUE")),
            ("yes", (Text, "yes")),
            ("42", (Int, "42")),
            ("-17", (Int, "-17")),
            ("+5", (Int, "5")),
            ("007", (Int, "7")),
            ("-0", (Int, "0")),
            ("0o33", (Int, "27")),
            ("0xFF", (Int, "255")),
            ("99999999999999999999999999999999999999999", (Int, "99999999999999999999999999999999999999999")),
            ("1_000", (Text, "1_000")),
            ("0o9", (Text, "0o9")),
            ("0x", (Text, "0x")),
            ("0b1", (Text, "0b1")),
            ("7.4", (Float, "7.4")),
            ("+12e03", (Float, "12000")),
            ("-43e-4", (Float, "-0.0043")),
            ("1.", (Float, "1")),
            (".5", (Float, "0.5")),
            (".inf", (Float, "inf")),
            ("-.INF", (Float, "-inf")),
            (".NaN", (Float, "nan")),
            ("1e400", (Float, "inf")),
            ("inf", (Text, "inf")),
            ("nan", (Text, "nan")),
            (".", (Text, ".")),
            (".e3", (Text, ".e3")),
            ("1e", (Text, "1e")),
            ("+", (Text, "+")),
            ("1.2.3", (Text, "1.2.3")),
            ("", (Text, "(null)")),
            ("~", (Text, "(null)")),
            ("Null", (Text, "(null)")),
            ("2020-01-01", (Text, "2020-01-01")),
        ] {
            plain(text, expect);
        }
    }

    #[test]
    fn quotes_make_a_text_and_a_tag_makes_what_it_says() {
        let quoted = Scalar { text: "1".into(), is_plain: false, tag: None };
        assert_eq!(quoted.value(), Ok((Text, "1".into())));
        let core = |name: &str| format!("tag:yaml.org,2002:{name}");
        assert_eq!(tagged(&core("int"), "0x1F"), Ok((Int, "31".into())));
        assert_eq!(tagged(&core("int"), "5\n"), Ok((Int, "5".into())));
        assert_eq!(tagged(&core("float"), "5"), Ok((Float, "5".into())));
        assert_eq!(tagged(&core("bool"), "True"), Ok((Boolean, "true".into())));
        assert_eq!(tagged(&core("null"), ""), Ok((Text, "(null)".into())));
        assert_eq!(tagged(&core("str"), "1"), Ok((Text, "1".into())));
        assert_eq!(tagged("!", "1"), Ok((Text, "1".into())));
        assert_eq!(tagged("!own", "1"), Ok((Text, "1".into())));
        assert_eq!(tagged("?", "1"), Ok((Int, "1".into())));
        assert!(tagged(&core("int"), "x").unwrap_err().contains("`x` is no `tag:yaml.org,2002:int`"));
        assert!(tagged(&core("bool"), "yes").is_err());
        assert!(tagged(&core("int"), &format!("0x{}", "f".repeat(33))).unwrap_err().contains("128 bits"));
    }
}
