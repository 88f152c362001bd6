//! Package version order: RPM's and Debian's.

use std::cmp::Ordering;

/// Splits `epoch:version-release`. A missing epoch is 0.
fn split(evr: &str) -> (&str, &str, &str) {
    let (epoch, rest) = match evr.split_once(':') {
        Some((epoch, rest)) if epoch.bytes().all(|byte| byte.is_ascii_digit()) => (epoch, rest),
        _ => ("0", evr),
    };
    let (version, release) = rest.rsplit_once('-').unwrap_or((rest, ""));
    (if epoch.is_empty() { "0" } else { epoch }, version, release)
}

/// RPM's order (`evr_string`).
pub fn rpm(left: &str, right: &str) -> Ordering {
    let (left, right) = (split(left), split(right));
    digits(left.0, right.0).then_with(|| rpm_segment(left.1, right.1)).then_with(|| rpm_segment(left.2, right.2))
}

/// Two strings of decimal digits by value, of any length.
fn digits(left: &str, right: &str) -> Ordering {
    let (left, right) = (left.trim_start_matches('0'), right.trim_start_matches('0'));
    left.len().cmp(&right.len()).then_with(|| left.cmp(right))
}

fn take(text: &str, is_wanted: impl Fn(u8) -> bool) -> (&str, &str) {
    text.split_at(text.bytes().position(|byte| !is_wanted(byte)).unwrap_or(text.len()))
}

fn rpm_segment(mut left: &str, mut right: &str) -> Ordering {
    loop {
        let skip =
            |text: &str| text.bytes().take_while(|byte| !byte.is_ascii_alphanumeric() && !b"~^".contains(byte)).count();
        left = left.get(skip(left)..).unwrap_or("");
        right = right.get(skip(right)..).unwrap_or("");
        // A tilde sorts before everything, even before the end.
        match (left.strip_prefix('~'), right.strip_prefix('~')) {
            (Some(left_rest), Some(right_rest)) => {
                (left, right) = (left_rest, right_rest);
                continue;
            }
            (Some(_), None) => return Ordering::Less,
            (None, Some(_)) => return Ordering::Greater,
            (None, None) => {}
        }
        // A caret sorts after the end, before everything else.
        match (left.strip_prefix('^'), right.strip_prefix('^')) {
            (Some(left_rest), Some(right_rest)) => {
                (left, right) = (left_rest, right_rest);
                continue;
            }
            (Some(_), None) => return if right.is_empty() { Ordering::Greater } else { Ordering::Less },
            (None, Some(_)) => return if left.is_empty() { Ordering::Less } else { Ordering::Greater },
            (None, None) => {}
        }
        match (left.is_empty(), right.is_empty()) {
            (true, true) => return Ordering::Equal,
            (true, false) => return Ordering::Less,
            (false, true) => return Ordering::Greater,
            (false, false) => {}
        }
        let is_number = left.as_bytes()[0].is_ascii_digit();
        let kind = |byte: u8| if is_number { byte.is_ascii_digit() } else { byte.is_ascii_alphabetic() };
        let (left_part, left_rest) = take(left, kind);
        let (right_part, right_rest) = take(right, kind);
        if right_part.is_empty() {
            // Different kinds: a number is newer than letters.
            return if is_number { Ordering::Greater } else { Ordering::Less };
        }
        let order = if is_number { digits(left_part, right_part) } else { left_part.cmp(right_part) };
        if order != Ordering::Equal {
            return order;
        }
        (left, right) = (left_rest, right_rest);
    }
}

/// Debian's order (`debian_evr_string`, deb-version(7)).
pub fn debian(left: &str, right: &str) -> Ordering {
    let (left, right) = (split(left), split(right));
    digits(left.0, right.0).then_with(|| debian_part(left.1, right.1)).then_with(|| debian_part(left.2, right.2))
}

fn debian_weight(byte: Option<u8>) -> i32 {
    match byte {
        Some(b'~') => -1,
        None => 0,
        Some(letter) if letter.is_ascii_alphabetic() => i32::from(letter),
        Some(other) => i32::from(other) + 256,
    }
}

fn debian_part(mut left: &str, mut right: &str) -> Ordering {
    while !left.is_empty() || !right.is_empty() {
        let (left_text, left_rest) = take(left, |byte| !byte.is_ascii_digit());
        let (right_text, right_rest) = take(right, |byte| !byte.is_ascii_digit());
        for at in 0..left_text.len().max(right_text.len()) {
            let weight = |text: &str| debian_weight(text.as_bytes().get(at).copied());
            let order = weight(left_text).cmp(&weight(right_text));
            if order != Ordering::Equal {
                return order;
            }
        }
        let (left_number, left_rest) = take(left_rest, |byte| byte.is_ascii_digit());
        let (right_number, right_rest) = take(right_rest, |byte| byte.is_ascii_digit());
        let order = digits(left_number, right_number);
        if order != Ordering::Equal {
            return order;
        }
        (left, right) = (left_rest, right_rest);
    }
    Ordering::Equal
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn check(compare: fn(&str, &str) -> Ordering, left: &str, expect: Ordering, right: &str) {
        assert_eq!(compare(left, right), expect, "{left} against {right}");
        assert_eq!(compare(right, left), expect.reverse(), "{right} against {left}");
    }

    #[test]
    fn rpm_orders_versions() {
        use Ordering::{Equal, Less};
        check(rpm, "0:1.0-1", Equal, "1.0-1");
        check(rpm, "1:1.0-1", Equal, "1:1.0-1");
        check(rpm, "2.0-1", Less, "1:1.0-1");
        check(rpm, "1.0-1", Less, "1.0-2");
        check(rpm, "1.9-1", Less, "1.10-1");
        check(rpm, "1.0~rc1-1", Less, "1.0-1");
        check(rpm, "1.0-1", Less, "1.0^git1-1");
        check(rpm, "1.0a-1", Less, "1.0.1-1");
        check(rpm, "1.05-1", Equal, "1.5-1");
    }

    #[test]
    fn debian_orders_versions() {
        use Ordering::{Equal, Less};
        check(debian, "1.0-1", Less, "1.0-1+deb12u1");
        check(debian, "1.0~beta-1", Less, "1.0-1");
        check(debian, "1:0.9-1", Less, "2:0.1-1");
        check(debian, "9.2p1-2+deb12u3", Less, "9.2p1-2+deb12u10");
        check(debian, "0:1.0", Equal, "1.0");
        check(debian, "1.0", Less, "1.0+b1");
        check(debian, "1.0a", Less, "1.0+");
    }

    proptest! {
        #[test]
        fn both_orders_are_total(
            a in "[0-9a-c.~+-]{0,8}", b in "[0-9a-c.~+-]{0,8}", c in "[0-9a-c.~+-]{0,8}",
        ) {
            for compare in [rpm as fn(&str, &str) -> Ordering, debian] {
                prop_assert_eq!(compare(&a, &b), compare(&b, &a).reverse());
                if compare(&a, &b) != Ordering::Greater && compare(&b, &c) != Ordering::Greater {
                    prop_assert_ne!(compare(&a, &c), Ordering::Greater, "{} {} {}", a, b, c);
                }
            }
        }
    }
}
