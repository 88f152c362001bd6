//! Clocks that are ahead by less than others mind, and are set back: what was seen and decided until then does not outlive what
//! is seen and decided afterwards.

use std::collections::BTreeMap;

use proto::id::EndpointId;
use proto::operator::Workflow;

use super::plan::Kind;
use super::world::{COLLECTORS, EVALUATORS, World, workflow};
use super::{Report, checks, truth};

/// Seconds that clocks are ahead: far longer than anybody waits here for the truth.
const AHEAD: i64 = 240;
/// The fact that changes.
const FACT: usize = 0;

type Endpoints = BTreeMap<usize, EndpointId>;

/// Runs it; whether clocks can be set here. What does not hold ends it.
pub async fn set_back() -> Result<bool, String> {
    let mut world = World::start().await?;
    if world.skipped.contains(&Kind::ClockSlip) {
        return Ok(false);
    }
    let endpoints = checks::members(&mut world, &mut Report::default()).await?;
    checks::follow(&world, &endpoints, "verdicts are there").await?;
    collectors(&mut world, &endpoints).await?;
    evaluators(&mut world, &endpoints).await?;
    Ok(true)
}

fn set(world: &World, is_met: bool) {
    COLLECTORS.for_each(|collector| truth::set(&world.root(collector), FACT, is_met));
}

async fn collectors(world: &mut World, endpoints: &Endpoints) -> Result<(), String> {
    COLLECTORS.for_each(|collector| world.strike(Kind::ClockSlip, collector, AHEAD));
    set(world, false);
    checks::follow(world, endpoints, "verdicts follow where clocks of collectors are ahead").await?;
    // One of them has to remember it.
    world.strike(Kind::Kill, COLLECTORS.start, 0);
    for collector in COLLECTORS {
        world.heal(Kind::ClockSlip, collector).await?;
    }
    set(world, true);
    world.heal(Kind::Kill, COLLECTORS.start).await?;
    checks::follow(world, endpoints, "verdicts follow after clocks of collectors were set back").await
}

async fn evaluators(world: &mut World, endpoints: &Endpoints) -> Result<(), String> {
    let [ahead, right] = [EVALUATORS.start, EVALUATORS.start + 1];
    world.strike(Kind::Kill, right, 0);
    world.strike(Kind::ClockSlip, ahead, AHEAD);
    set(world, false);
    // For a clock that is ahead, what is usual would be over when it comes.
    let patient = Workflow { timeout_seconds: 600, ..workflow() };
    checks::ask(world, endpoints, &patient).await?;
    world.strike(Kind::Kill, ahead, 0);
    world.heal(Kind::ClockSlip, ahead).await?;
    world.heal(Kind::Kill, right).await?;
    set(world, true);
    checks::follow(world, endpoints, "verdicts follow after the work of an evaluator that was ahead moved to another")
        .await
}
