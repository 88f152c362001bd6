//! The measures, in the order in which they are taken: each in a file of its own, with its target.

use clap::ValueEnum;

use super::Ground;
use super::table::Finding;

mod ad_hoc;
mod agent;
mod change;
mod changed_rule;
mod evaluation;
mod freshness;
mod idle;
mod ingest;
mod restart;

/// What there is to measure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub(crate) enum Measure {
    /// What connected collectors cost that do nothing.
    Idle,
    /// How fast an ad-hoc task reaches all of them.
    AdHoc,
    /// How many observations are stored a second.
    Ingest,
    /// How long collecting from and evaluating all of them takes.
    Evaluation,
    /// From a change on an endpoint to its verdict.
    Change,
    /// How fast a question is answered that says how fresh.
    Freshness,
    /// How long deciding anew takes, once one rule has changed.
    ChangedRule,
    /// What a kill of orchestrator and broker costs.
    Restart,
    /// What an agent costs that does nothing.
    Agent,
}

impl Measure {
    /// Those that are wanted, each once and in order; all where nobody says which.
    pub(crate) fn chosen(only: &[Self]) -> Vec<Self> {
        let all = Self::value_variants().iter().copied();
        all.filter(|measure| only.is_empty() || only.contains(measure)).collect()
    }

    /// As it is called on the command line.
    pub(crate) fn name(self) -> String {
        self.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
    }

    /// Whether it needs simulated collectors.
    pub(crate) fn needs_fleet(self) -> bool {
        self != Self::Agent
    }

    /// What is measured, in words.
    pub(super) fn what(self, ground: &Ground) -> String {
        let (count, rules) = (ground.collectors, ground.policy.rule_count);
        match self {
            Self::Idle => format!("{count} connected idle collectors, heartbeat {} s", ground.heartbeat().as_secs()),
            Self::AdHoc => format!("ad-hoc task to {count} collectors"),
            Self::Ingest => "durable ingest of 4 KB signed observations".to_owned(),
            Self::Evaluation => format!("{count} endpoints × {rules} rules at once, no ramp"),
            Self::Change => "change on disk → verdict readable by the operators' API".to_owned(),
            Self::Freshness => "freshness query, hit / miss".to_owned(),
            Self::ChangedRule => format!("one changed rule re-evaluated on {count} stored endpoints"),
            Self::Restart => format!("kill -9 of orchestrator and broker with {count} collectors"),
            Self::Agent => "agent idle".to_owned(),
        }
    }

    /// What is aimed at.
    pub(super) fn target(self) -> String {
        match self {
            Self::Idle => idle::target(),
            Self::AdHoc => ad_hoc::target(),
            Self::Ingest => ingest::target(),
            Self::Evaluation => evaluation::target(),
            Self::Change => change::target(),
            Self::Freshness => freshness::target(),
            Self::ChangedRule => changed_rule::target(),
            Self::Restart => restart::target(),
            Self::Agent => agent::target(),
        }
    }

    /// Measures it.
    pub(super) async fn take(self, ground: &mut Ground) -> anyhow::Result<Finding> {
        match self {
            Self::Idle => idle::measure(ground).await,
            Self::AdHoc => ad_hoc::measure(ground).await,
            Self::Ingest => ingest::measure(ground).await,
            Self::Evaluation => evaluation::measure(ground).await,
            Self::Change => change::measure(ground).await,
            Self::Freshness => freshness::measure(ground).await,
            Self::ChangedRule => changed_rule::measure(ground).await,
            Self::Restart => restart::measure(ground).await,
            Self::Agent => agent::measure(ground).await,
        }
    }
}
