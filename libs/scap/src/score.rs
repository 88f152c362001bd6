//! The four scoring models of XCCDF 1.2 §7.3.

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
    let mut is_any = false;
    for item in items {
        let (weight, score) = match item {
            Scored::Group(weight, items) => (*weight, default_model(items)),
            Scored::Rule(weight, verdict) => (*weight, rule_score(*verdict)),
        };
        if let Some(score) = score {
            sum += score * weight;
            weights += weight;
            is_any = true;
        }
    }
    // What weighs nothing still counts, as nothing.
    is_any.then(|| if weights > 0.0 { sum / weights } else { 0.0 })
}

/// A score by one of the models.
#[derive(Debug, Clone, PartialEq)]
pub struct Score {
    /// The model's URN.
    pub system: &'static str,
    /// The score.
    pub score: f64,
    /// The most that it can be.
    pub maximum: f64,
}

/// The scores by all four models.
pub fn all_models(items: &[Scored]) -> Vec<Score> {
    let mut rules = Vec::new();
    flatten(items, &mut rules);
    let counted: Vec<(f64, bool)> =
        rules.into_iter().filter_map(|(weight, verdict)| Some((weight, rule_score(verdict)? > 0.0))).collect();
    let sum = |only_passed: bool| -> f64 {
        let weights = counted.iter().filter(|(_, passed)| *passed || !only_passed).map(|(weight, _)| weight);
        // The sum of nothing is a negative zero.
        weights.fold(0.0, |sum, weight| sum + weight)
    };
    let count = |only_passed: bool| -> f64 {
        counted.iter().filter(|(_, passed)| *passed || !only_passed).fold(0.0, |count, _| count + 1.0)
    };
    let is_all = sum(true) >= sum(false);
    vec![
        Score { system: "urn:xccdf:scoring:default", score: default_model(items).unwrap_or_default(), maximum: 100.0 },
        Score { system: "urn:xccdf:scoring:flat", score: sum(true), maximum: sum(false) },
        Score { system: "urn:xccdf:scoring:flat-unweighted", score: count(true), maximum: count(false) },
        Score { system: "urn:xccdf:scoring:absolute", score: f64::from(u8::from(is_all)), maximum: 1.0 },
    ]
}

fn flatten(items: &[Scored], rules: &mut Vec<(f64, Verdict)>) {
    for item in items {
        match item {
            Scored::Group(_, items) => flatten(items, rules),
            Scored::Rule(weight, verdict) => rules.push((*weight, *verdict)),
        }
    }
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
        assert_eq!(default_model(&[rule(Pass), Scored::Group(1.0, vec![Scored::Rule(0.0, Pass)])]), Some(50.0));
    }

    #[test]
    fn every_model_counts_in_its_own_way() {
        let items = [Scored::Rule(2.0, Pass), Scored::Group(5.0, vec![rule(Fail), rule(NotChecked)])];
        let scores: Vec<(f64, f64)> = all_models(&items).iter().map(|score| (score.score, score.maximum)).collect();
        // Default: (2 x 100 + 5 x 0) / 7; the flat models know no groups, and rules that were not checked do not count.
        let expected = [(200.0 / 7.0, 100.0), (2.0, 3.0), (1.0, 2.0), (0.0, 1.0)];
        for (found, expected) in scores.iter().zip(expected) {
            assert!((found.0 - expected.0).abs() < 1e-9 && (found.1 - expected.1).abs() < 1e-9, "{scores:?}");
        }
    }
}
