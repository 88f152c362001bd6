//! Numbers and their texts. An exponent is allowed, as libxml2 allows it.

use super::tree::SPACE;

/// How many bytes at the beginning are a number without a sign; 0 where there is none.
pub(super) fn length(text: &str) -> usize {
    let digits = |from: usize| text.bytes().skip(from).take_while(u8::is_ascii_digit).count();
    let whole = digits(0);
    let mut end = whole;
    if text.as_bytes().get(end) == Some(&b'.') {
        let fraction = digits(end.saturating_add(1));
        if whole == 0 && fraction == 0 {
            return 0;
        }
        end = end.saturating_add(1).saturating_add(fraction);
    }
    if end > 0 && matches!(text.as_bytes().get(end), Some(b'e' | b'E')) {
        let sign = usize::from(matches!(text.as_bytes().get(end.saturating_add(1)), Some(b'+' | b'-')));
        let from = end.saturating_add(1).saturating_add(sign);
        let exponent = digits(from);
        if exponent > 0 {
            end = from.saturating_add(exponent);
        }
    }
    end
}

/// `number()` of a text.
pub(super) fn of(text: &str) -> f64 {
    let text = text.trim_matches(SPACE);
    let (is_negative, digits) = match text.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, text),
    };
    if digits.is_empty() || length(digits) != digits.len() {
        return f64::NAN;
    }
    let number = digits.parse().unwrap_or(f64::NAN);
    if is_negative { -number } else { number }
}

/// `number()` of how many there are.
pub(super) fn count(many: usize) -> f64 {
    u32::try_from(many).map_or(f64::INFINITY, f64::from)
}

/// `round()`: the nearest integer, the greater one of two.
pub(super) fn round(number: f64) -> f64 {
    (number + 0.5).floor()
}

/// `string()` of a number: 15 digits, with an exponent where it is large or small.
pub(super) fn text(number: f64) -> String {
    const POWERS: [f64; 9] = [1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9];
    const FRACTIONS: [f64; 5] = [1e-1, 1e-2, 1e-3, 1e-4, 1e-5];
    let size = number.abs();
    if number.is_nan() {
        return "NaN".to_owned();
    }
    if number.is_infinite() {
        let text = if number > 0.0 { "Infinity" } else { "-Infinity" };
        return text.to_owned();
    }
    if number == 0.0 {
        return "0".to_owned();
    }
    if number.fract() == 0.0 && size < f64::from(i32::MAX) {
        return format!("{number:.0}");
    }
    if !(1e-5..=1e9).contains(&size) {
        let written = format!("{number:.14e}");
        let (digits, exponent) = written.split_once('e').unwrap_or((&written, "0"));
        let (sign, exponent) = match exponent.strip_prefix('-') {
            Some(exponent) => ('-', exponent),
            None => ('+', exponent),
        };
        return format!("{}e{sign}{exponent:0>2}", trimmed(digits));
    }
    let places = if size >= 10.0 {
        14_usize.saturating_sub(POWERS.iter().filter(|power| size >= **power).count())
    } else {
        15_usize.saturating_add(FRACTIONS.iter().filter(|fraction| size <= **fraction).count())
    };
    trimmed(&format!("{number:.places$}")).to_owned()
}

fn trimmed(digits: &str) -> &str {
    if digits.contains('.') { digits.trim_end_matches('0').trim_end_matches('.') } else { digits }
}
