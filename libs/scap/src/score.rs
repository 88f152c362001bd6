//! The default scoring model, `urn:xccdf:scoring:default` (XCCDF 1.2 §7.3.2).

use proto::verdict::Verdict;

/// A group of the benchmark, or a rule with its verdict.
#[derive(Debug, Clone, PartialEq)]
pub enum Scored {
    /// A group.
    Group(f64, Vec<Scored>),
    /// A rule.
    Rule(f64, Verdict),
}

/// The score from 0 to 100, or `None` where no rule counts.
pub fn default_model(items: &[Scored]) -> Option<f64> {
    let mut sum = 0.0;
    let mut weights = 0.0;
    for item in items {
        let (weight, score) = match item {
            Scored::Group(weight, items) => (*weight, default_model(items)),
            Scored::Rule(weight, verdict) => (*weight, rule_score(*verdict)),
        };
        if let Some(score) = score {
            sum += score * weight;
            weights += weight;
        }
    }
    (weights > 0.0).then(|| sum / weights)
}

fn rule_score(verdict: Verdict) -> Option<f64> {
    match verdict {
        Verdict::Pass | Verdict::Fixed => Some(100.0),
        Verdict::Fail | Verdict::Error | Verdict::Unknown => Some(0.0),
        Verdict::NotApplicable | Verdict::NotChecked | Verdict::NotSelected | Verdict::Informational => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Verdict::{Error, Fail, NotChecked, Pass, Unknown};

    fn rule(verdict: Verdict) -> Scored {
        Scored::Rule(1.0, verdict)
    }

    #[test]
    fn groups_count_as_one_item_of_their_weight() {
        let first = Scored::Group(2.0, vec![rule(Pass), rule(Fail)]);
        let second = Scored::Group(1.0, vec![Scored::Rule(3.0, Pass), rule(Fail)]);
        assert_eq!(default_model(&[first, second, rule(Fail)]), Some(43.75));
    }

    #[test]
    fn unknown_and_error_never_count_as_pass() {
        assert_eq!(default_model(&[rule(Pass), rule(Unknown), rule(Error), rule(Fail)]), Some(25.0));
    }

    #[test]
    fn what_was_not_checked_does_not_count() {
        assert_eq!(default_model(&[rule(NotChecked), rule(Pass)]), Some(100.0));
        assert_eq!(default_model(&[rule(NotChecked), Scored::Group(1.0, vec![])]), None);
    }
}
