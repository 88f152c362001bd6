//! The truth tables (§5.3.6.2): six-valued results under `check`, `check_existence` and operators.

use proto::observation::Status;
use proto::plan::{Check, Existence, Operator};
use serde::{Deserialize, Serialize};

/// `ResultEnumeration` of OVAL results.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Truth {
    /// Yes.
    True,
    /// No.
    False,
    /// It could not be found out.
    Unknown,
    /// Something went wrong.
    Error,
    /// Nobody tried.
    NotEvaluated,
    /// The question makes no sense here.
    NotApplicable,
}

impl Truth {
    /// Every value.
    pub const ALL: [Self; 6] =
        [Self::True, Self::False, Self::Unknown, Self::Error, Self::NotEvaluated, Self::NotApplicable];

    /// `negate`: only true and false change.
    #[must_use]
    pub fn negated(self) -> Self {
        match self {
            Self::True => Self::False,
            Self::False => Self::True,
            other => other,
        }
    }

    /// The value as OVAL results spell it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::True => "true",
            Self::False => "false",
            Self::Unknown => "unknown",
            Self::Error => "error",
            Self::NotEvaluated => "not evaluated",
            Self::NotApplicable => "not applicable",
        }
    }
}

impl From<bool> for Truth {
    fn from(value: bool) -> Self {
        if value { Self::True } else { Self::False }
    }
}

#[derive(Debug, Default, Clone, Copy)]
struct Counts {
    yes: usize,
    no: usize,
    unknown: usize,
    error: usize,
    not_evaluated: usize,
    not_applicable: usize,
}

impl Counts {
    fn of(values: impl IntoIterator<Item = Truth>) -> Self {
        let mut counts = Self::default();
        for value in values {
            match value {
                Truth::True => counts.yes += 1,
                Truth::False => counts.no += 1,
                Truth::Unknown => counts.unknown += 1,
                Truth::Error => counts.error += 1,
                Truth::NotEvaluated => counts.not_evaluated += 1,
                Truth::NotApplicable => counts.not_applicable += 1,
            }
        }
        counts
    }

    /// What is left where true and false do not decide.
    fn undecided(self) -> Option<Truth> {
        if self.error > 0 {
            Some(Truth::Error)
        } else if self.unknown > 0 {
            Some(Truth::Unknown)
        } else if self.not_evaluated > 0 {
            Some(Truth::NotEvaluated)
        } else if self.yes + self.no == 0 && self.not_applicable > 0 {
            Some(Truth::NotApplicable)
        } else {
            None
        }
    }
}

/// Table of `CheckEnumeration`.
pub fn check(check: Check, values: impl IntoIterator<Item = Truth>) -> Truth {
    let counts = Counts::of(values);
    match check {
        Check::All if counts.no > 0 => Truth::False,
        Check::All => counts.undecided().unwrap_or(if counts.yes > 0 { Truth::True } else { Truth::Unknown }),
        Check::AtLeastOne if counts.yes > 0 => Truth::True,
        Check::AtLeastOne => counts.undecided().unwrap_or(if counts.no > 0 { Truth::False } else { Truth::Unknown }),
        Check::NoneSatisfy | Check::NoneExist if counts.yes > 0 => Truth::False,
        Check::NoneSatisfy | Check::NoneExist => {
            counts.undecided().unwrap_or(if counts.no > 0 { Truth::True } else { Truth::Unknown })
        }
        Check::OnlyOne if counts.yes > 1 => Truth::False,
        Check::OnlyOne => counts
            .undecided()
            .unwrap_or_else(|| if counts.yes + counts.no == 0 { Truth::Unknown } else { Truth::from(counts.yes == 1) }),
    }
}

/// Table of `OperatorEnumeration`.
pub fn operator(operator: Operator, values: impl IntoIterator<Item = Truth>) -> Truth {
    match operator {
        Operator::And => check(Check::All, values),
        Operator::Or => check(Check::AtLeastOne, values),
        Operator::One => check(Check::OnlyOne, values),
        Operator::Xor => {
            let counts = Counts::of(values);
            counts.undecided().unwrap_or_else(|| {
                if counts.yes + counts.no == 0 { Truth::Unknown } else { Truth::from(counts.yes % 2 == 1) }
            })
        }
    }
}

/// Table of `ExistenceEnumeration`, over the statuses of an object's items.
pub fn existence(existence: Existence, statuses: impl IntoIterator<Item = Status>) -> Truth {
    let (mut there, mut absent, mut error, mut not_collected) = (0_usize, 0_usize, 0_usize, 0_usize);
    for status in statuses {
        match status {
            Status::Exists => there += 1,
            Status::DoesNotExist => absent += 1,
            Status::Error => error += 1,
            Status::NotCollected => not_collected += 1,
        }
    }
    let undecided = |decided: Truth| {
        if error > 0 {
            Truth::Error
        } else if not_collected > 0 {
            Truth::Unknown
        } else {
            decided
        }
    };
    match existence {
        Existence::AllExist if absent > 0 => Truth::False,
        Existence::AllExist => undecided(Truth::from(there > 0)),
        Existence::AnyExist => {
            if there == 0 && error > 0 {
                Truth::Error
            } else {
                Truth::True
            }
        }
        Existence::AtLeastOneExists if there > 0 => Truth::True,
        Existence::AtLeastOneExists => undecided(Truth::False),
        Existence::NoneExist if there > 0 => Truth::False,
        Existence::NoneExist => undecided(Truth::True),
        Existence::OnlyOneExists if there > 1 => Truth::False,
        Existence::OnlyOneExists => undecided(Truth::from(there == 1)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Truth::{Error, False, NotApplicable, NotEvaluated, True, Unknown};

    fn expect_check(kind: Check, values: &[Truth], expect: Truth) {
        assert_eq!(check(kind, values.iter().copied()), expect, "{kind} {values:?}");
    }

    #[test]
    fn a_false_decides_all_whatever_else_there_is() {
        expect_check(Check::All, &[True, Error, Unknown, False], False);
        expect_check(Check::All, &[True, Error, Unknown], Error);
        expect_check(Check::All, &[True, Unknown, NotEvaluated], Unknown);
        expect_check(Check::All, &[True, NotEvaluated], NotEvaluated);
        expect_check(Check::All, &[True, NotApplicable], True);
        expect_check(Check::All, &[NotApplicable], NotApplicable);
    }

    #[test]
    fn a_true_decides_at_least_one_and_none_satisfy() {
        expect_check(Check::AtLeastOne, &[False, Error, True], True);
        expect_check(Check::AtLeastOne, &[False, Error], Error);
        expect_check(Check::AtLeastOne, &[False, NotApplicable], False);
        expect_check(Check::NoneSatisfy, &[False, Error, True], False);
        expect_check(Check::NoneSatisfy, &[False, False], True);
        expect_check(Check::NoneSatisfy, &[False, Unknown], Unknown);
    }

    #[test]
    fn only_one_counts() {
        expect_check(Check::OnlyOne, &[True, False], True);
        expect_check(Check::OnlyOne, &[True, True, Error], False);
        expect_check(Check::OnlyOne, &[True, Error], Error);
        expect_check(Check::OnlyOne, &[False, False], False);
    }

    #[test]
    fn xor_is_parity() {
        assert_eq!(operator(Operator::Xor, [True, True, True]), True);
        assert_eq!(operator(Operator::Xor, [True, True]), False);
        assert_eq!(operator(Operator::Xor, [True, Error]), Error);
    }

    #[test]
    fn the_order_of_values_never_matters() {
        for kind in Check::ALL {
            for a in Truth::ALL {
                for b in Truth::ALL {
                    for c in Truth::ALL {
                        assert_eq!(check(*kind, [a, b, c]), check(*kind, [c, a, b]));
                    }
                }
            }
        }
    }

    #[test]
    fn existence_follows_its_table() {
        use Status::{DoesNotExist, Error as Broken, Exists, NotCollected};
        let expect = |kind, statuses: &[Status], truth| {
            assert_eq!(existence(kind, statuses.iter().copied()), truth, "{kind} {statuses:?}");
        };
        expect(Existence::AllExist, &[], False);
        expect(Existence::AllExist, &[Exists, DoesNotExist], False);
        expect(Existence::AllExist, &[Exists, Broken], Error);
        expect(Existence::AnyExist, &[], True);
        expect(Existence::AnyExist, &[Broken], Error);
        expect(Existence::AnyExist, &[Exists, Broken], True);
        expect(Existence::AtLeastOneExists, &[DoesNotExist], False);
        expect(Existence::AtLeastOneExists, &[NotCollected], Unknown);
        expect(Existence::NoneExist, &[], True);
        expect(Existence::NoneExist, &[Exists], False);
        expect(Existence::OnlyOneExists, &[Exists], True);
        expect(Existence::OnlyOneExists, &[Exists, Exists], False);
    }
}
