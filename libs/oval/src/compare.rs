//! Every operation on every datatype (§5.3.6.3.1, "Datatype and Operation Evaluation").

use std::cmp::Ordering;
use std::net::{Ipv4Addr, Ipv6Addr};

use proto::plan::{Datatype, Operation};

use crate::evr;
use crate::pattern::{Flags, Pattern, PatternError};

/// A comparison that cannot be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CompareError {
    /// The text is no value of the datatype.
    #[error("`{value}` is not a value of the datatype {datatype}")]
    NotOfType {
        /// The text, cut.
        value: String,
        /// The datatype.
        datatype: Datatype,
    },
    /// The datatype has no such operation.
    #[error("the operation `{operation}` does not apply to the datatype {datatype}")]
    NoSuchOperation {
        /// The operation.
        operation: Operation,
        /// The datatype.
        datatype: Datatype,
    },
    /// Networks of different sizes have no order.
    #[error("values of the datatype {datatype} with different prefixes cannot be ordered")]
    NoOrder {
        /// The datatype.
        datatype: Datatype,
    },
    /// The pattern cannot be used.
    #[error(transparent)]
    Pattern(#[from] PatternError),
}

fn not_of_type(value: &str, datatype: Datatype) -> CompareError {
    CompareError::NotOfType { value: value.chars().take(80).collect(), datatype }
}

/// Whether the item's value `actual` stands to `expected` as the operation says.
pub fn compare(datatype: Datatype, operation: Operation, actual: &str, expected: &str) -> Result<bool, CompareError> {
    if operation == Operation::PatternMatch && datatype == Datatype::String {
        return Ok(Pattern::new(expected, Flags::default())?.is_match(actual.as_bytes())?);
    }
    match datatype {
        Datatype::String => text(operation, actual, expected),
        Datatype::Int => int(operation, actual, expected),
        Datatype::Boolean => equality(operation, datatype, boolean(actual)? == boolean(expected)?),
        Datatype::Binary => equality(operation, datatype, binary(actual)? == binary(expected)?),
        Datatype::Float => ordered(operation, datatype, float_order(actual, expected)?),
        Datatype::Version => ordered(operation, datatype, version_order(actual, expected)),
        Datatype::IosVersion | Datatype::FilesetRevision => {
            ordered(operation, datatype, lettered_order(actual, expected))
        }
        Datatype::EvrString => ordered(operation, datatype, evr::rpm(actual, expected)),
        Datatype::DebianEvrString => ordered(operation, datatype, evr::debian(actual, expected)),
        Datatype::Ipv4Address => address(operation, datatype, ipv4(actual)?, ipv4(expected)?),
        Datatype::Ipv6Address => address(operation, datatype, ipv6(actual)?, ipv6(expected)?),
        Datatype::Record => Err(CompareError::NoSuchOperation { operation, datatype }),
    }
}

fn equality(operation: Operation, datatype: Datatype, is_equal: bool) -> Result<bool, CompareError> {
    match operation {
        Operation::Equals => Ok(is_equal),
        Operation::NotEqual => Ok(!is_equal),
        _ => Err(CompareError::NoSuchOperation { operation, datatype }),
    }
}

fn ordered(operation: Operation, datatype: Datatype, order: Ordering) -> Result<bool, CompareError> {
    match operation {
        Operation::GreaterThan => Ok(order.is_gt()),
        Operation::LessThan => Ok(order.is_lt()),
        Operation::GreaterThanOrEqual => Ok(order.is_ge()),
        Operation::LessThanOrEqual => Ok(order.is_le()),
        _ => equality(operation, datatype, order.is_eq()),
    }
}

fn text(operation: Operation, actual: &str, expected: &str) -> Result<bool, CompareError> {
    match operation {
        Operation::CaseInsensitiveEquals => Ok(actual.eq_ignore_ascii_case(expected)),
        Operation::CaseInsensitiveNotEqual => Ok(!actual.eq_ignore_ascii_case(expected)),
        _ => equality(operation, Datatype::String, actual == expected),
    }
}

/// An integer of any size: sign and digits without leading zeros.
fn big(value: &str) -> Result<(bool, &str), CompareError> {
    let trimmed = value.trim();
    let (is_negative, digits) = match trimmed.as_bytes().first() {
        Some(b'-') => (true, &trimmed[1..]),
        Some(b'+') => (false, &trimmed[1..]),
        _ => (false, trimmed),
    };
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(not_of_type(value, Datatype::Int));
    }
    let digits = digits.trim_start_matches('0');
    Ok((is_negative && !digits.is_empty(), digits))
}

fn int(operation: Operation, actual: &str, expected: &str) -> Result<bool, CompareError> {
    let (left, right) = (big(actual)?, big(expected)?);
    if matches!(operation, Operation::BitwiseAnd | Operation::BitwiseOr) {
        let bits = |value: &str| value.trim().parse::<i128>().map_err(|_| not_of_type(value, Datatype::Int));
        let (actual, expected) = (bits(actual)?, bits(expected)?);
        return Ok(if operation == Operation::BitwiseAnd {
            actual & expected == expected
        } else {
            actual | expected == expected
        });
    }
    let magnitude = left.1.len().cmp(&right.1.len()).then_with(|| left.1.cmp(right.1));
    let order = match (left.0, right.0) {
        (true, false) => Ordering::Less,
        (false, true) => Ordering::Greater,
        (false, false) => magnitude,
        (true, true) => magnitude.reverse(),
    };
    ordered(operation, Datatype::Int, order)
}

fn boolean(value: &str) -> Result<bool, CompareError> {
    match value.trim() {
        "true" | "1" => Ok(true),
        "false" | "0" => Ok(false),
        _ => Err(not_of_type(value, Datatype::Boolean)),
    }
}

fn binary(value: &str) -> Result<String, CompareError> {
    if value.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        Ok(value.to_ascii_lowercase())
    } else {
        Err(not_of_type(value, Datatype::Binary))
    }
}

fn float_order(actual: &str, expected: &str) -> Result<Ordering, CompareError> {
    let number = |value: &str| value.trim().parse::<f64>().map_err(|_| not_of_type(value, Datatype::Float));
    let (left, right) = (number(actual)?, number(expected)?);
    left.partial_cmp(&right).ok_or_else(|| not_of_type("NaN", Datatype::Float))
}

/// Numbers between any other characters; the shorter one is filled up with zeros.
fn version_order(actual: &str, expected: &str) -> Ordering {
    let parts = |value: &str| -> Vec<String> {
        value
            .split(|character: char| !character.is_ascii_digit())
            .map(|part| part.trim_start_matches('0').to_owned())
            .collect()
    };
    let (left, right) = (parts(actual), parts(expected));
    for at in 0..left.len().max(right.len()) {
        let part = |parts: &[String]| parts.get(at).cloned().unwrap_or_default();
        let (left, right) = (part(&left), part(&right));
        let order = left.len().cmp(&right.len()).then_with(|| left.cmp(&right));
        if order != Ordering::Equal {
            return order;
        }
    }
    Ordering::Equal
}

/// Versions in which letters count, such as `12.4(15)T9` and `A.03.05`: runs of digits compare as numbers, runs of
/// letters as text, and what goes on is greater than what ends.
fn lettered_order(actual: &str, expected: &str) -> Ordering {
    let parts = |value: &str| -> Vec<(bool, String)> {
        let mut parts: Vec<(bool, String)> = Vec::new();
        let mut is_open = false;
        for character in value.chars() {
            let is_digit = character.is_ascii_digit();
            if !is_digit && !character.is_alphabetic() {
                is_open = false;
                continue;
            }
            match parts.last_mut() {
                Some((is_number, part)) if is_open && *is_number == is_digit => part.push(character),
                _ => parts.push((is_digit, character.to_string())),
            }
            is_open = true;
        }
        for (_, part) in parts.iter_mut().filter(|(is_number, _)| *is_number) {
            *part = part.trim_start_matches('0').to_owned();
        }
        parts
    };
    let (left, right) = (parts(actual), parts(expected));
    for (left, right) in left.iter().zip(&right) {
        let order = match (left, right) {
            ((true, left), (true, right)) => left.len().cmp(&right.len()).then_with(|| left.cmp(right)),
            ((is_number, left), (is_other_number, right)) => {
                is_other_number.cmp(is_number).then_with(|| left.cmp(right))
            }
        };
        if order != Ordering::Equal {
            return order;
        }
    }
    left.len().cmp(&right.len())
}

/// An address, how many of its bits count, and how many it has.
type Network = (u128, u32, u32);

fn ipv4(value: &str) -> Result<Network, CompareError> {
    let wrong = || not_of_type(value, Datatype::Ipv4Address);
    let (address, prefix) = match value.trim().split_once('/') {
        None => (value.trim(), 32),
        Some((address, mask)) if mask.contains('.') => {
            let mask = u32::from(mask.parse::<Ipv4Addr>().map_err(|_| wrong())?);
            if mask.leading_ones() + mask.trailing_zeros() != 32 {
                return Err(wrong());
            }
            (address, mask.leading_ones())
        }
        Some((address, prefix)) => (address, prefix.parse().map_err(|_| wrong())?),
    };
    if prefix > 32 {
        return Err(wrong());
    }
    let address = u32::from(address.parse::<Ipv4Addr>().map_err(|_| wrong())?);
    Ok((u128::from(address), prefix, 32))
}

fn ipv6(value: &str) -> Result<Network, CompareError> {
    let wrong = || not_of_type(value, Datatype::Ipv6Address);
    let (address, prefix) = match value.trim().split_once('/') {
        None => (value.trim(), 128),
        Some((address, prefix)) => (address, prefix.parse().map_err(|_| wrong())?),
    };
    if prefix > 128 {
        return Err(wrong());
    }
    Ok((u128::from(address.parse::<Ipv6Addr>().map_err(|_| wrong())?), prefix, 128))
}

fn address(operation: Operation, datatype: Datatype, actual: Network, expected: Network) -> Result<bool, CompareError> {
    let masked = |network: Network, prefix: u32| {
        if prefix == 0 { 0 } else { network.0 >> (network.2 - prefix) }
    };
    let is_inside =
        |inner: Network, outer: Network| inner.1 >= outer.1 && masked(inner, outer.1) == masked(outer, outer.1);
    match operation {
        Operation::SubsetOf => Ok(is_inside(actual, expected)),
        Operation::SupersetOf => Ok(is_inside(expected, actual)),
        Operation::Equals | Operation::NotEqual => {
            let is_equal = actual.1 == expected.1 && masked(actual, actual.1) == masked(expected, expected.1);
            equality(operation, datatype, is_equal)
        }
        _ if actual.1 != expected.1 => Err(CompareError::NoOrder { datatype }),
        _ => ordered(operation, datatype, masked(actual, actual.1).cmp(&masked(expected, expected.1))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(datatype: Datatype, actual: &str, operation: Operation, expected: &str, expect: bool) {
        assert_eq!(compare(datatype, operation, actual, expected), Ok(expect), "{actual} {operation} {expected}");
    }

    #[test]
    fn integers_have_any_size_and_a_sign() {
        use Operation::{BitwiseAnd, BitwiseOr, Equals, GreaterThan, LessThan};
        check(Datatype::Int, "007", Equals, "7", true);
        check(Datatype::Int, "-1", LessThan, "0", true);
        check(Datatype::Int, "-10", LessThan, "-9", true);
        check(Datatype::Int, "340282366920938463463374607431768211456", GreaterThan, "1", true);
        check(Datatype::Int, "-0", Equals, "0", true);
        check(Datatype::Int, "7", BitwiseAnd, "5", true);
        check(Datatype::Int, "2", BitwiseAnd, "5", false);
        check(Datatype::Int, "1", BitwiseOr, "5", true);
        check(Datatype::Int, "2", BitwiseOr, "5", false);
    }

    #[test]
    fn what_is_no_value_of_the_datatype_is_an_error() {
        assert!(compare(Datatype::Int, Operation::Equals, "seven", "7").is_err());
        assert!(compare(Datatype::Int, Operation::Equals, "", "7").is_err());
        assert!(compare(Datatype::Boolean, Operation::Equals, "yes", "true").is_err());
        assert!(compare(Datatype::Ipv4Address, Operation::Equals, "10.0.0.1/33", "10.0.0.1").is_err());
        assert!(compare(Datatype::String, Operation::GreaterThan, "b", "a").is_err());
        assert!(compare(Datatype::Int, Operation::PatternMatch, "10", "^1").is_err());
    }

    #[test]
    fn versions_compare_number_by_number() {
        check(Datatype::Version, "1.10.0", Operation::GreaterThan, "1.9", true);
        check(Datatype::Version, "1.0", Operation::Equals, "1", true);
        check(Datatype::Version, "8.4p1", Operation::LessThan, "8.4p2", true);
    }

    #[test]
    fn letters_count_in_some_versions() {
        check(Datatype::IosVersion, "12.4(15)T9", Operation::GreaterThan, "12.4(15)T8", true);
        check(Datatype::IosVersion, "12.4(1)", Operation::Equals, "12.4(1)T", false);
        check(Datatype::IosVersion, "12.4(10)", Operation::GreaterThan, "12.4(9)", true);
        check(Datatype::FilesetRevision, "A.03.05", Operation::LessThan, "B.01.00", true);
        check(Datatype::FilesetRevision, "A.03.05", Operation::Equals, "A.3.5", true);
    }

    #[test]
    fn addresses_have_prefixes() {
        use Operation::{Equals, SubsetOf, SupersetOf};
        check(Datatype::Ipv4Address, "10.1.2.3", SubsetOf, "10.0.0.0/8", true);
        check(Datatype::Ipv4Address, "10.0.0.0/8", SupersetOf, "10.1.0.0/255.255.0.0", true);
        check(Datatype::Ipv4Address, "11.0.0.1", SubsetOf, "10.0.0.0/8", false);
        check(Datatype::Ipv6Address, "2001:db8::1", SubsetOf, "2001:db8::/32", true);
        check(Datatype::Ipv6Address, "::1", Equals, "0:0:0:0:0:0:0:1", true);
        check(Datatype::Ipv4Address, "10.0.0.1", Operation::LessThan, "10.0.0.2", true);
        assert!(compare(Datatype::Ipv4Address, Operation::LessThan, "10.0.0.0/8", "10.0.0.1").is_err());
    }

    #[test]
    fn text_compares_with_and_without_case() {
        check(Datatype::String, "Yes", Operation::CaseInsensitiveEquals, "yes", true);
        check(Datatype::String, "Yes", Operation::Equals, "yes", false);
        check(Datatype::String, "PermitRootLogin no", Operation::PatternMatch, r"^Permit\w+\s+no$", true);
    }
}
