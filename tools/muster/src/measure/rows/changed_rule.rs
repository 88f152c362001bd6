//! A policy's next version has one rule that means something else: it is put in force, and what is stored is decided anew. No
//! endpoint is contacted.

use std::time::{Duration, Instant};

use anyhow::bail;
use proto::operator::{Ask, Workflow};
use proto::verdict::Verdict;
use serde_json::json;

use crate::measure::Ground;
use crate::measure::figures::{millis, time};
use crate::measure::policy::{POLICY, Policy};
use crate::measure::table::Finding;
use crate::measure::usage::Watch;
use crate::measure::workflow::{begin, end, on_fleet, stored};

const DECIDED_MAX: Duration = Duration::from_secs(5);

pub(super) fn target() -> String {
    format!("≤ {}", time(DECIDED_MAX))
}

pub(super) async fn measure(ground: &mut Ground) -> anyhow::Result<Finding> {
    ground.evaluate_once().await?;
    let (policy, root) = (ground.policy.clone(), ground.root.clone());
    let changed = tokio::task::spawn_blocking(move || Policy::changed(&policy, &root)).await??;
    let workflow = Workflow { is_stored_only: true, ..on_fleet(ground.policy.profile.as_ref()) };
    // Beside it, so that one can tell what was decided anew: the verdicts of the rule before.
    let before = begin(&ground.installation, Ask::Evaluate(workflow.clone())).await?;
    end(&ground.installation, before).await?;
    let before = stored(&ground.installation, before, Some(&changed.rule)).await?;

    let watch = Watch::begin(&ground.installation);
    let began = Instant::now();
    ground.installation.import(POLICY, &changed.source).await?;
    let in_force = began.elapsed();
    let transaction = begin(&ground.installation, Ask::Evaluate(workflow)).await?;
    let view = end(&ground.installation, transaction).await?;
    let decided = began.elapsed();
    let load = watch.end();
    let after = stored(&ground.installation, transaction, Some(&changed.rule)).await?;
    ground.policy.source = changed.source;
    let expected = ground.collectors * ground.policy.result_count;
    let verdicts = after.verdicts.len() as u64;
    if verdicts != expected {
        bail!("{verdicts} of {expected} verdicts are stored: the evaluation is {}", view.state);
    }
    // What was good is bad now, and the other way round.
    let of = |counts: &[(Verdict, u64)], wanted: Verdict| {
        counts.iter().find(|(verdict, _)| *verdict == wanted).map_or(0, |(_, count)| *count)
    };
    let [passed, failed] = [Verdict::Pass, Verdict::Fail].map(|verdict| of(&before.of_rule, verdict));
    let turned = [Verdict::Fail, Verdict::Pass].map(|verdict| of(&after.of_rule, verdict));
    if turned != [passed, failed] || passed + failed == 0 {
        bail!("the rule {} was not decided anew: {:?} and then {:?}", changed.rule, before.of_rule, after.of_rule);
    }
    Ok(Finding {
        measured: format!(
            "{} from the import to the last verdict ({} until the version is in force); {} verdicts have changed, {verdicts} are stored",
            time(decided),
            time(in_force),
            passed + failed
        ),
        is_met: decided <= DECIDED_MAX,
        limit: load.limit(),
        figures: json!({
            "decided-ms": millis(decided),
            "in-force-ms": millis(in_force),
            "rule": changed.rule,
            "changed": passed + failed,
            "verdicts": verdicts,
            "processes": load.json(),
        }),
    })
}
