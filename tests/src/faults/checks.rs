//! What has to hold when a storm is over, each with the words for what is broken.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use proto::id::{ComponentId, EndpointId};
use proto::message::ResultsSelection;
use proto::operator::{Ask, CollectorAnswer, OperatorEvent, TransactionView, Workflow};
use service::identity::Identity;
use tokio::time::Instant;

use super::outboxes::{Outboxes, waiting};
use super::world::{COLLECTORS, COUNT, ORCHESTRATOR, REPOSITORY, SWEEP, World, workflow};
use super::{Report, Told, truth, within};
use crate::generate::Random;
use crate::processes::binaries;

/// How long components may take to be back: the longest back-off, and a handshake.
const BACK: Duration = Duration::from_mins(2);
/// How long a workflow may go on that somebody has been at since the storm: as long as an evaluation may take.
const CLOSED: Duration = Duration::from_mins(7);
/// How long messages may wait: the longest time between two attempts, and a little.
const SENT: Duration = Duration::from_secs(90);

/// Rules with their verdicts, by endpoint.
type Verdicts = BTreeMap<EndpointId, BTreeMap<String, String>>;

/// What has to hold whenever nothing is broken any more, while all goes on.
pub(super) async fn lull(world: &mut World, told: &Told, dice: &mut Random, report: &mut Report) -> Result<(), String> {
    let endpoints = members(world, report).await?;
    by_themselves(world, &endpoints, dice, report).await?;
    transactions(world, told, report).await?;
    sent(world, report).await?;
    streams(world, report).await?;
    ask(world, &endpoints, &workflow()).await?;
    report.holds("verdicts of an evaluation as in truth", endpoints.len() * truth::FACT_COUNT);
    // Once more: nobody has joined or was lost by what came after the storm.
    members(world, report).await?;
    Ok(())
}

/// All of them; the first that is broken.
pub(super) async fn all(
    world: &mut World,
    told: &Told,
    outboxes: &Outboxes,
    dice: &mut Random,
    report: &mut Report,
) -> Result<(), String> {
    lull(world, told, dice, report).await?;
    proofs(world, report)?;
    world.stop().await;
    stored(world, outboxes, report)?;
    statuses(world, outboxes, report)?;
    words(world, report)
}

/// Everybody is there, as who it was; the endpoints of collectors.
pub(super) async fn members(world: &mut World, report: &mut Report) -> Result<BTreeMap<usize, EndpointId>, String> {
    let roster = within(BACK, "all are back", async || {
        world.revive();
        world.are_active(COUNT - 1).await?;
        world.roster().await
    })
    .await?;
    let mut endpoints = BTreeMap::new();
    for (number, node) in world.nodes.iter().enumerate() {
        let identity = Identity::load(&node.data.join("identity")).map_err(|error| error.to_string())?;
        let is_now = identity.ok_or_else(|| format!("{} has lost its identity", node.name))?.component;
        let was = world.ids[number];
        if is_now != was {
            return Err(format!("{} has joined anew: it was {was} and is {is_now}", node.name));
        }
        if number == ORCHESTRATOR {
            continue;
        }
        let entry = roster.iter().find(|entry| entry.component == was);
        let entry = entry.ok_or_else(|| format!("{} is not on the roster any more", node.name))?;
        if COLLECTORS.contains(&number) {
            let [endpoint] = entry.endpoints.as_slice() else {
                return Err(format!("{} has {} endpoints instead of one", node.name, entry.endpoints.len()));
            };
            endpoints.insert(number, endpoint.endpoint);
        }
    }
    report.holds("members active as who they were", roster.len());
    Ok(endpoints)
}

/// What is so, by endpoint.
fn truths(world: &World, endpoints: &BTreeMap<usize, EndpointId>) -> Verdicts {
    endpoints.iter().map(|(collector, endpoint)| (*endpoint, truth::verdicts(&world.root(*collector)))).collect()
}

/// The first difference.
fn compare(world: &World, endpoints: &BTreeMap<usize, EndpointId>, are: &Verdicts) -> Result<(), String> {
    let expected = truths(world, endpoints);
    for (collector, endpoint) in endpoints {
        let name = &world.nodes[*collector].name;
        let rules = are.get(endpoint).ok_or_else(|| format!("there are no verdicts on the endpoint of {name}"))?;
        for (rule, verdict) in &expected[endpoint] {
            let is_now = rules.get(rule).map_or("nothing", String::as_str);
            if is_now != verdict {
                return Err(format!("{rule} is `{is_now}` on the endpoint of {name}, and in truth `{verdict}`"));
            }
        }
    }
    Ok(())
}

/// What holds, as the repository says.
async fn latest(world: &World) -> Result<Verdicts, String> {
    let mut latest = Verdicts::new();
    for event in world.ask(Ask::Results { selection: ResultsSelection::Latest, verdicts: Vec::new() }).await? {
        match event {
            OperatorEvent::Results(page) => {
                for (summary, results) in page.summaries.iter().zip(&page.results) {
                    let rules = results.iter().map(|result| (result.rule.clone(), result.verdict.to_string()));
                    latest.entry(summary.endpoint).or_default().extend(rules);
                }
            }
            OperatorEvent::Fault(fault) => return Err(format!("no verdicts, but {fault}")),
            _ => {}
        }
    }
    Ok(latest)
}

/// Facts change once more, and nobody asks: verdicts follow.
async fn by_themselves(
    world: &mut World,
    endpoints: &BTreeMap<usize, EndpointId>,
    dice: &mut Random,
    report: &mut Report,
) -> Result<(), String> {
    for collector in COLLECTORS {
        for fact in 0..truth::FACT_COUNT {
            truth::set(&world.root(collector), fact, dice.once_in(2));
            report.change_count += 1;
        }
    }
    follow(world, endpoints, "verdicts by themselves are those of a fresh evaluation").await?;
    report.holds("verdicts by themselves as in truth", endpoints.len() * truth::FACT_COUNT);
    Ok(())
}

/// Within two sweep periods what holds is the truth.
pub(super) async fn follow(world: &World, endpoints: &BTreeMap<usize, EndpointId>, what: &str) -> Result<(), String> {
    within(2 * SWEEP, what, async || compare(world, endpoints, &latest(world).await?)).await
}

/// Whatever an operator was told of has ended, and everybody who was meant is counted.
async fn transactions(world: &World, told: &Told, report: &mut Report) -> Result<(), String> {
    let ids: BTreeSet<_> = told.ids().iter().copied().collect();
    let began = Instant::now();
    let count = ids.len();
    for transaction in ids {
        let patience = CLOSED.saturating_sub(began.elapsed());
        let what = format!("the transaction {transaction} is closed");
        let view = within(patience, &what, async || {
            match world.ask(Ask::Transaction { transaction }).await?.into_iter().next() {
                Some(OperatorEvent::Ended(view)) if view.ended.is_some() => Ok(view),
                Some(OperatorEvent::Ended(view)) => Err(described(&view)),
                other => Err(format!("{other:?}")),
            }
        })
        .await?;
        let account = view.account;
        if account.asked != account.sum() || account.open > 0 {
            return Err(format!("the sum of the transaction {transaction} is not right: {account:?}"));
        }
    }
    report.holds("transactions closed, with the right sum", count);
    Ok(())
}

fn described(view: &TransactionView) -> String {
    let open = view.responders.iter().filter(|one| one.ended.is_none());
    let open: Vec<String> =
        open.map(|one| format!("{} {} is {} since {:?}", one.component, one.operation, one.state, one.asked)).collect();
    let (state, begun, expires) = (&view.state, view.begun, view.expires);
    format!("it is {state}, begun {begun}, expires {expires:?}, open: [{}]", open.join(", "))
}

/// Nothing waits any more.
async fn sent(world: &World, report: &mut Report) -> Result<(), String> {
    for node in &world.nodes[REPOSITORY..] {
        // What is on its way at a moment is not what waits.
        let before: BTreeSet<String> = waiting(&node.data).into_iter().collect();
        within(SENT, &format!("the outbox of {} is empty", node.name), async || {
            let left = waiting(&node.data).into_iter().filter(|id| before.contains(id)).count();
            if left == 0 { Ok(()) } else { Err(format!("{left} messages wait")) }
        })
        .await?;
    }
    report.holds("outboxes empty", COUNT - REPOSITORY);
    Ok(())
}

/// What each collector has reported last is what the repository has, without a gap and without anything twice.
async fn streams(world: &World, report: &mut Report) -> Result<(), String> {
    let database = world.nodes[REPOSITORY].data.join("repository.db");
    let count = within(SENT, "the repository has what collectors have reported", async || {
        let mut answers: Vec<CollectorAnswer> = Vec::new();
        for event in world.observations().await? {
            if let OperatorEvent::Collectors(of) = event {
                answers.extend(of);
            }
        }
        let mut reports = 0;
        for collector in COLLECTORS {
            reports += same(&world.nodes[collector].name, world.ids[collector], &answers, &database)?;
        }
        Ok(reports)
    })
    .await?;
    report.holds("reports in the newest epochs", count);
    Ok(())
}

fn same(name: &str, component: ComponentId, answers: &[CollectorAnswer], database: &Path) -> Result<usize, String> {
    let answer = answers.iter().find(|answer| answer.component == component);
    let answer = answer.ok_or_else(|| format!("{name} was not asked"))?;
    let said = answer.observations.first();
    let said = said.ok_or_else(|| format!("{name} watches nothing: {:?}", answer.outcome))?;
    let epoch = said.epoch.ok_or_else(|| format!("{name} has reported nothing"))?;
    let sql =
        format!("SELECT received || ' of ' || highest FROM stream WHERE epoch = '{epoch}' AND origin = '{component}'");
    let Some(stored) = select(database, &sql)? else { return Ok(0) };
    let stored = stored.first().map_or("none", String::as_str);
    if stored == format!("{0} of {0}", said.sequence) {
        return Ok(usize::try_from(said.sequence).unwrap_or_default());
    }
    Err(format!("{name} has made {} reports in the epoch {epoch}, and the repository has {stored}", said.sequence))
}

/// An operator asks, and is told the truth.
pub(super) async fn ask(
    world: &World,
    endpoints: &BTreeMap<usize, EndpointId>,
    workflow: &Workflow,
) -> Result<(), String> {
    within(Duration::from_secs(30), "an evaluation that is asked for is the truth", async || {
        let asking = crate::ask(&world.nodes[ORCHESTRATOR].data, Ask::Evaluate(workflow.clone()), &[]);
        let events = tokio::time::timeout(Duration::from_mins(1), asking).await;
        let events = events.map_err(|_| "it does not end".to_owned())?.map_err(|error| error.to_string())?;
        let mut verdicts = Verdicts::new();
        for event in &events {
            if let OperatorEvent::Verdict { endpoint, result } = event {
                verdicts.entry(*endpoint).or_default().insert(result.rule.clone(), result.verdict.to_string());
            }
        }
        if !crate::is_completed(&events) {
            return Err(format!("it is not completed: {:?}", events.last()));
        }
        compare(world, endpoints, &verdicts)
    })
    .await
}

/// Signatures and hashes hold.
fn proofs(world: &World, report: &mut Report) -> Result<(), String> {
    for words in [&["verify"][..], &["audit", "verify"]] {
        let data = &world.nodes[ORCHESTRATOR].data;
        let output = Command::new(binaries().join("muster")).args(words).arg("--data").arg(data).output();
        let output = output.map_err(|error| error.to_string())?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            return Err(format!("`muster {}` does not hold: {said}", words.join(" ")));
        }
        report.holds(if words.len() == 1 { "chain of verdicts whole" } else { "log of acts whole" }, 1);
    }
    Ok(())
}

/// Reads a database file with what Python has for it.
const READ: &str = "import sqlite3, sys
file = sqlite3.connect(f'file:{sys.argv[1]}?mode=ro', uri=True)
for row in file.execute(sys.argv[2]):
    print(row[0])";

/// What is in a database file, a column of it.
fn select(database: &Path, sql: &str) -> Result<Option<Vec<String>>, String> {
    let output = match Command::new("/usr/bin/python3").args(["-c", READ]).arg(database).arg(sql).output() {
        Err(error)
            if error.kind() == std::io::ErrorKind::NotFound && std::env::var_os("MUSTER_REQUIRE_PYTHON").is_none() =>
        {
            return Ok(None);
        }
        other => other.map_err(|error| error.to_string())?,
    };
    if !output.status.success() {
        return Err(format!("the database cannot be read: {}", String::from_utf8_lossy(&output.stderr)));
    }
    Ok(Some(String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect()))
}

/// Rows that there must not be, with what they are.
const WRONG: [(&str, &str); 5] = [
    (
        "two states of one object hold at a time",
        "SELECT count(*) FROM observation one JOIN observation other USING (endpoint, object, origin) \
         WHERE one.id < other.id AND (one.valid_to IS NULL OR one.valid_to > other.valid_from)",
    ),
    (
        "two verdicts of one rule hold at a time",
        "SELECT count(*) FROM verdict one JOIN verdict other USING (endpoint, policy, profile, rule) \
         WHERE one.valid_from < other.valid_from AND (one.valid_to IS NULL OR one.valid_to > other.valid_from)",
    ),
    ("an observation counts more reports than were made", "SELECT count(*) FROM stream WHERE received > highest"),
    (
        "a state ended, and nothing came after it",
        "SELECT count(*) FROM observation WHERE valid_to IS NOT NULL \
         AND id NOT IN (SELECT old_observation FROM change WHERE old_observation IS NOT NULL)",
    ),
    (
        "a state came after another, and no change says so",
        "SELECT count(*) FROM observation WHERE id NOT IN (SELECT new_observation FROM change) \
         AND id NOT IN (SELECT min(id) FROM observation GROUP BY endpoint, object, origin)",
    ),
];

/// What was acknowledged is stored, and nothing is there twice.
fn stored(world: &World, outboxes: &Outboxes, report: &mut Report) -> Result<(), String> {
    let database = world.nodes[REPOSITORY].data.join("repository.db");
    let Some(known) = select(&database, "SELECT id FROM message")? else {
        println!("SKIPPED, NOT PASSED: what is stored is not looked at, as there is no `/usr/bin/python3`");
        return Ok(());
    };
    let known: BTreeSet<String> = known.into_iter().collect();
    let still: BTreeSet<String> = world.nodes.iter().flat_map(|node| waiting(&node.data)).collect();
    let given_up = given_up(world);
    let (mut stored, mut given_up_count) = (0, 0);
    for id in outboxes.results() {
        if known.contains(&id) {
            stored += 1;
        } else if given_up.contains(&id) {
            given_up_count += 1;
        } else if !still.contains(&id) {
            return Err(format!("the message {id} was acknowledged, and is not stored"));
        }
    }
    report.holds("messages acknowledged and stored", stored);
    report.holds("messages given up, and said so", given_up_count);
    for (what, sql) in WRONG {
        let count = select(&database, sql)?.and_then(|lines| lines.first()?.parse().ok());
        match count {
            Some(0_u64) => {}
            Some(count) => return Err(format!("{what}: {count} times")),
            None => return Err(format!("nobody can say whether {what}")),
        }
    }
    let rows = select(&database, "SELECT count(*) FROM observation")?.and_then(|lines| lines.first()?.parse().ok());
    report.holds("states of objects, none twice", rows.unwrap_or_default());
    Ok(())
}

/// The states of a responder in which it has ended as it said, and those that the orchestrator has given it before it said so.
const ENDED: [&str; 5] = ["completed", "partial", "rejected", "failed", "cancelled"];
const ENDED_BY_OTHERS: [&str; 5] = ["no-answer", "offline", "moved", "cancelled", "waived"];

/// An end that was acknowledged is the end that is stored, of every transaction that the orchestrator has begun. It keeps no
/// ids of messages: what a status says is found where it has its effect.
fn statuses(world: &World, outboxes: &Outboxes, report: &mut Report) -> Result<(), String> {
    let database = world.nodes[ORCHESTRATOR].data.join("orchestrator.db");
    let words = ["component", "request", "state"].map(|field| format!("json_extract(document, '$.{field}')"));
    let sql = format!("SELECT workflow || ' ' || {} FROM responder", words.join(" || ' ' || "));
    let Some(rows) = select(&database, &sql)? else { return Ok(()) };
    let states: BTreeMap<&str, &str> = rows.iter().filter_map(|row| row.rsplit_once(' ')).collect();
    let still: BTreeSet<String> = world.nodes.iter().flat_map(|node| waiting(&node.data)).collect();
    let given_up = given_up(world);
    let mut said: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    let ends = outboxes.ends();
    for (id, end) in &ends {
        if !still.contains(id) && !given_up.contains(id) {
            said.entry(&end.responder).or_default().insert(&end.phase);
        }
    }
    let (mut as_said, mut before) = (0, 0);
    for (responder, phases) in said {
        // What a collector does by its own schedule is nobody's transaction.
        let Some(state) = states.get(responder) else { continue };
        if phases.contains(state) && ENDED.contains(state) {
            as_said += 1;
        } else if ENDED_BY_OTHERS.contains(state) {
            before += 1;
        } else {
            return Err(format!("that {responder} ended {phases:?} was acknowledged, and it is stored as {state}"));
        }
    }
    report.holds("ends acknowledged and stored", as_said);
    report.holds("ends that came too late", before);
    Ok(())
}

/// The messages of which their senders say that they have given them up.
fn given_up(world: &World) -> BTreeSet<String> {
    let logs = world.nodes.iter().filter_map(|node| std::fs::read_to_string(&node.log).ok());
    let mut given_up = BTreeSet::new();
    for log in logs {
        for line in log.lines().filter(|line| line.contains("is given up")) {
            let words = line.split(|letter: char| !letter.is_ascii_hexdigit() && letter != '-');
            given_up.extend(words.filter(|word| word.len() == 36).map(str::to_owned));
        }
    }
    given_up
}

/// Nobody has panicked.
fn words(world: &World, report: &mut Report) -> Result<(), String> {
    for node in &world.nodes {
        let log = std::fs::read(&node.log).map_err(|error| error.to_string())?;
        let log = String::from_utf8_lossy(&log);
        if let Some(line) = log.lines().find(|line| line.contains("panicked at")) {
            return Err(format!("{} has panicked: {line}", node.name));
        }
    }
    report.holds("logs without a panic", world.nodes.len());
    Ok(())
}
