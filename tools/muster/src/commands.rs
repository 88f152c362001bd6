//! What each command asks, and how its answer is shown.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context as _, bail};
use jiff::Timestamp;
use proto::id::EndpointId;
use proto::message::ResultsSelection;
use proto::operator::{Ask, BrokerLink, OperatorEvent, OrchestratorView, ResponderView, TransactionView, Workflow};
use proto::verdict::{EvaluationSummary, RuleResult, Verdict};
use serde_json::json;

use crate::cli::{self, Cli, Command, Output, TaskArgs, WorkflowArgs};
use crate::show::{self, Progress};
use crate::{
    admission, audit, backup, broker, ca, client, config, drop_in, endpoint, exit, measure, metrics, policy, query,
    simulate, tasks, transactions, up, verify,
};

/// Carries out a command; the exit code.
pub(crate) async fn run(cli: Cli) -> anyhow::Result<u8> {
    // Asks no orchestrator, and so needs no data directory.
    if let Command::Scap(command) = cli.command {
        return tokio::task::spawn_blocking(|| drop_in::run(*command)).await?;
    }
    if let Command::Simulate(args) = cli.command {
        return simulate::run(args).await;
    }
    let output = cli.output;
    if output == Output::Csv && !matches!(cli.command, Command::Results(_) | Command::Query(_)) {
        bail!("only `muster results` and `muster query` have CSV; take -o json");
    }
    if let Command::Measure(args) = cli.command {
        return measure::run(*args, output).await;
    }
    if let Command::Config(command) = cli.command {
        return config::run(command, output);
    }
    if let Command::Migrate { data, database_file, ca_passphrase_file } = cli.command {
        return config::migrate(&data, &database_file, ca_passphrase_file.as_ref(), output).await;
    }
    let data = cli::data_directory(cli.data)?;
    match cli.command {
        // Carried out above.
        Command::Scap(_)
        | Command::Simulate(_)
        | Command::Measure(_)
        | Command::Config(_)
        | Command::Migrate { .. } => Ok(exit::DONE),
        Command::Up(args) => up::run(&data, args, output).await,
        Command::Status => status(&data, output).await,
        Command::Metrics => metrics::print(&data, output).await,
        Command::Roster => roster(&data, output).await,
        Command::Collect(args) => collect(&data, &args, output).await,
        Command::Evaluate(args) => {
            let workflow = Workflow {
                is_stored_only: args.stored || args.as_of.is_some(),
                as_of: args.as_of,
                ..followed(&args.workflow)
            };
            evaluate(&data, workflow, output).await
        }
        Command::Results(args) => results(&data, args.verdicts, output).await,
        Command::Query(args) => query::run(&data, *args, output).await,
        Command::Label(command) => query::label(&data, command, output).await,
        Command::Transactions { transaction: None } => transactions::list(&data, output).await,
        Command::Transactions { transaction: Some(id) } => transactions::page(&data, id, output).await,
        Command::Wait { transaction, all, timeout } => {
            transactions::wait(&data, transaction, all, timeout.map(|timeout| timeout.0), output).await
        }
        Command::Cancel { transaction } => admission::told(&data, Ask::Cancel { transaction }).await,
        Command::Schedule(command) => tasks::schedule(&data, command, output).await,
        Command::Observe(command) => tasks::observe(&data, command, output).await,
        Command::Changes(args) => tasks::changes(&data, args, output).await,
        Command::Policy(command) => policy::run(&data, command, output).await,
        Command::Endpoint(command) => endpoint::run(&data, command, output).await,
        Command::Ca(command) => ca::run(&data, command, output).await,
        Command::Verify(args) => verify::run(&data, args, output).await,
        Command::Audit(command) => audit::run(&data, command, output).await,
        Command::Broker(command) => broker::run(&data, command, output).await,
        Command::Token(command) => admission::token(&data, command, output).await,
        Command::Approve { component } => admission::told(&data, Ask::Approve { component }).await,
        Command::Evict { component, reason } => {
            admission::told(&data, Ask::Dismiss { component, is_ban: false, reason }).await
        }
        Command::Pause { component, time, reason } => {
            let until = Timestamp::now().checked_add(time.duration()).context("that is too long")?;
            admission::told(&data, Ask::Pause { component, until: Some(until), reason }).await
        }
        Command::Resume { component } => {
            admission::told(&data, Ask::Pause { component, until: None, reason: String::new() }).await
        }
        Command::Backup { to } => backup::backup(&data, &to).await,
        Command::Restore { from } => backup::restore(&data, &from).await,
        Command::Ban { component, lift: true, .. } => admission::told(&data, Ask::LiftBan { component }).await,
        Command::Ban { component, reason, .. } => {
            admission::told(&data, Ask::Dismiss { component, is_ban: true, reason }).await
        }
    }
}

/// The first answer that is not a notice.
pub(crate) async fn one(data: &Path, ask: Ask, content: &[u8]) -> anyhow::Result<OperatorEvent> {
    let mut answers = client::ask(data, ask, content).await?;
    let mut first = None;
    while let Some(event) = answers.next().await? {
        match event {
            OperatorEvent::Notice(text) if first.is_none() => show::note(format!("note: {text}")),
            event => first = first.or(Some(event)),
        }
    }
    Ok(first.unwrap_or(OperatorEvent::Done))
}

/// What an operator asks for of a policy's objects.
pub(crate) fn workflow(task: &TaskArgs) -> Workflow {
    Workflow {
        policy: task.policy.clone(),
        profile: task.profile.clone(),
        targets: task.targets.clone(),
        budget: task.budget.unwrap_or_default(),
        ..Workflow::default()
    }
}

fn followed(args: &WorkflowArgs) -> Workflow {
    Workflow {
        excluded: args.excluded.clone(),
        max_age_seconds: args.max_age.map(|age| age.0),
        is_broadcast: args.broadcast,
        timeout_seconds: args.timeout,
        expires_seconds: args.catch_up.0,
        ..workflow(&args.task)
    }
}

async fn status(data: &Path, output: Output) -> anyhow::Result<u8> {
    let OperatorEvent::Status(status) = one(data, Ask::Status, &[]).await? else { bail!("unexpected answer") };
    if output == Output::Json {
        show::json(&status)?;
        return Ok(exit::DONE);
    }
    let counts = |counts: Vec<String>| if counts.is_empty() { "none".to_owned() } else { counts.join(", ") };
    let components =
        status.component_counts.iter().map(|(state, count)| format!("{count} {}", state.as_str())).collect();
    let refused = status.refused_counts.iter().map(|(code, count)| format!("{count} {code}")).collect();
    let security = status.security_counts.iter().map(|(code, count)| format!("{count} {code}")).collect();
    let broker =
        |name: &str| status.broker_counts.iter().find(|count| count.name == name).map_or(0, |count| count.value);
    let connections = format!(
        "{} now, {} since the start, {} refused, {} ended for not reading",
        broker("connected"),
        broker("connections_total"),
        broker("connections_refused_total"),
        broker("slow_consumers_total")
    );
    if status.is_standby {
        show::line(format!("{:<17} it waits to take over, and does nothing else", "standby"));
    }
    orchestrators(&status.orchestrators);
    for (name, value) in [
        ("orchestrator", status.orchestrator.to_string()),
        ("version", status.version),
        ("started", format!("{:.0}", status.started)),
        ("listens on", status.listen),
        ("members are at", status.external_broker.as_ref().map_or_else(String::new, link)),
        ("data", status.data_directory),
        ("components", counts(components)),
        ("endpoints", status.endpoint_count.to_string()),
        ("connections", connections),
        ("open workflows", status.open_transaction_count.to_string()),
        ("refused messages", counts(refused)),
        ("security events", counts(security)),
    ] {
        if !value.is_empty() {
            show::line(format!("{name:<17} {value}"));
        }
    }
    Ok(exit::DONE)
}

/// How the connection to a broker is, in words.
fn link(link: &BrokerLink) -> String {
    let BrokerLink { address, is_connected, since, reason } = link;
    let reason = reason.as_ref().map(|reason| format!(": {reason}")).unwrap_or_default();
    let how = if *is_connected { "connected" } else { "NOT CONNECTED" };
    format!("{address}, {how} since {since:.0}{reason}")
}

async fn roster(data: &Path, output: Output) -> anyhow::Result<u8> {
    let OperatorEvent::Roster(roster) = one(data, Ask::Roster, &[]).await? else { bail!("unexpected answer") };
    if output == Output::Json {
        show::json(&roster)?;
        return Ok(exit::DONE);
    }
    if let OperatorEvent::Status(status) = one(data, Ask::Status, &[]).await? {
        orchestrators(&status.orchestrators);
    }
    let now = Timestamp::now();
    let rows = roster
        .into_iter()
        .map(|entry| {
            let endpoints: Vec<String> = entry
                .endpoints
                .iter()
                .map(|endpoint| format!("{} ({})", endpoint.facts.host_name, endpoint.facts.os_name))
                .collect();
            let pause = entry.paused_until.filter(|until| *until > now);
            let paused = pause.map(|until| format!(", paused until {until:.0}")).unwrap_or_default();
            vec![
                entry.name,
                entry.component_type.to_string(),
                format!("{}{paused}", entry.state.as_str()),
                show::ago(entry.heard, now),
                entry.capability_count.to_string(),
                entry.open_request_count.to_string(),
                entry.labels.join(", "),
                endpoints.join(", "),
                entry.component.to_string(),
            ]
        })
        .collect();
    show::table(&["name", "type", "state", "heard", "capabilities", "requests", "labels", "endpoints", "id"], rows);
    Ok(exit::DONE)
}

/// The orchestrators that share a database.
fn orchestrators(all: &[OrchestratorView]) {
    if all.is_empty() {
        return;
    }
    let now = Timestamp::now();
    let row = |one: &OrchestratorView| {
        let state = match one.active_since {
            Some(since) => format!("active since {since:.0}"),
            None if one.is_silent => "gone".to_owned(),
            None => "standby".to_owned(),
        };
        let this = if one.is_this { " (this)" } else { "" };
        let started = format!("{:.0}", one.started);
        vec![format!("{}{this}", one.host), state, started, show::ago(Some(one.seen), now), one.version.clone()]
    };
    show::table(&["orchestrator", "state", "started", "seen", "version"], all.iter().map(row).collect());
    show::line("");
}

/// Everything that a workflow gave.
#[derive(Debug, Default)]
struct Gathered {
    results: BTreeMap<EndpointId, Vec<RuleResult>>,
    summaries: Vec<EvaluationSummary>,
    ended: Option<Box<TransactionView>>,
}

/// Follows a workflow to its end, showing verdicts as they come.
async fn follow(data: &Path, ask: Ask, output: Output) -> anyhow::Result<Gathered> {
    let mut answers = client::ask(data, ask, &[]).await?;
    let mut progress = Progress::new();
    let mut gathered = Gathered::default();
    let outcome = loop {
        match answers.next().await {
            Ok(Some(OperatorEvent::Progress { activity, done, total })) => progress.draw(activity, done, total),
            Ok(Some(OperatorEvent::Verdict { endpoint, result })) => {
                progress.clear();
                if output == Output::Table {
                    show::verdict(&result);
                }
                gathered.results.entry(endpoint).or_default().push(*result);
            }
            Ok(Some(OperatorEvent::Summary(summary))) => gathered.summaries.push(*summary),
            Ok(Some(OperatorEvent::Ended(view))) => gathered.ended = Some(view),
            Ok(Some(OperatorEvent::Notice(text))) => {
                progress.clear();
                show::note(format!("note: {text}"));
            }
            Ok(Some(_)) => {}
            Ok(None) => break Ok(()),
            Err(error) => break Err(error),
        }
    };
    progress.clear();
    outcome.map(|()| gathered)
}

/// Lines about responders that did not do what they were asked.
const COMPLAINTS_MAX: usize = 10;

/// Who did not answer as asked, in words.
pub(crate) fn complain(view: &TransactionView) {
    let is_good = |responder: &&ResponderView| matches!(responder.state.as_str(), "completed" | "fresh" | "waived");
    let wanting: Vec<&ResponderView> = view.responders.iter().filter(|responder| !is_good(responder)).collect();
    for responder in wanting.iter().take(COMPLAINTS_MAX) {
        let detail = responder.detail.as_deref().unwrap_or_default();
        show::note(format!("{} {} {}: {detail}", responder.operation, responder.component, responder.state));
    }
    if wanting.len() > COMPLAINTS_MAX {
        show::note(format!("and {} more: `muster transactions {}`", wanting.len() - COMPLAINTS_MAX, view.transaction));
    }
    if !view.undecided.is_empty() {
        let text = "were left out: it is not known whether a label means them (`muster label list`)";
        show::note(format!("{} endpoints {text}", view.undecided.len()));
    }
    if view.state == "waiting" {
        let until = view.expires.map(|expires| format!(" until {expires:.0}")).unwrap_or_default();
        show::note(format!(
            "those that were not there are asked when they come back{until}: `muster wait --all {id}`, `muster cancel {id}`",
            id = view.transaction
        ));
    }
}

async fn collect(data: &Path, args: &WorkflowArgs, output: Output) -> anyhow::Result<u8> {
    let gathered = follow(data, Ask::Collect(followed(args)), output).await?;
    let view = gathered.ended.context("the workflow did not end")?;
    if output == Output::Json {
        show::json(&view)?;
    } else {
        complain(&view);
        let account = &view.account;
        show::line(format!(
            "collected from {} of {} endpoints ({})",
            account.answered, account.asked, view.transaction
        ));
        if account.fresh > 0 {
            show::line(format!("{} were fresh enough", account.fresh));
        }
    }
    Ok(if view.state == "completed" { exit::DONE } else { exit::NOT_MET })
}

/// Evaluates and shows; the exit code says whether everything passed.
pub(crate) async fn evaluate(data: &Path, workflow: Workflow, output: Output) -> anyhow::Result<u8> {
    let gathered = follow(data, Ask::Evaluate(workflow), output).await?;
    let view = gathered.ended.context("the workflow did not end")?;
    if output == Output::Json {
        let evaluations: Vec<_> = gathered
            .summaries
            .iter()
            .map(|summary| json!({"summary": summary, "results": gathered.results.get(&summary.endpoint)}))
            .collect();
        show::json(&json!({"transaction": view, "evaluations": evaluations}))?;
    } else {
        let names = endpoint_names(data).await;
        for summary in &gathered.summaries {
            let name = names.get(&summary.endpoint).cloned().unwrap_or_else(|| summary.endpoint.to_string());
            let results = gathered.results.get(&summary.endpoint).map(Vec::as_slice).unwrap_or_default();
            show::summary(&name, summary, results);
        }
        complain(&view);
    }
    if gathered.summaries.is_empty() {
        bail!("no endpoint was evaluated; `muster transactions` says why");
    }
    let is_met = |(verdict, count): &(Verdict, u64)| {
        *count == 0 || !matches!(verdict, Verdict::Fail | Verdict::Error | Verdict::Unknown)
    };
    let is_all_met = gathered.summaries.iter().all(|summary| summary.counts.iter().all(is_met));
    Ok(if is_all_met && view.state == "completed" { exit::DONE } else { exit::NOT_MET })
}

pub(crate) async fn endpoint_names(data: &Path) -> BTreeMap<EndpointId, String> {
    let Ok(OperatorEvent::Roster(roster)) = one(data, Ask::Roster, &[]).await else { return BTreeMap::new() };
    roster
        .into_iter()
        .flat_map(|entry| entry.endpoints)
        .map(|endpoint| (endpoint.endpoint, endpoint.facts.host_name))
        .collect()
}

async fn results(data: &Path, verdicts: Vec<Verdict>, output: Output) -> anyhow::Result<u8> {
    let ask = Ask::Results { selection: ResultsSelection::Latest, verdicts };
    let mut answers = client::ask(data, ask, &[]).await?;
    let mut evaluations: Vec<(EvaluationSummary, Vec<RuleResult>)> = Vec::new();
    while let Some(event) = answers.next().await? {
        if let OperatorEvent::Results(page) = event {
            evaluations.extend(page.summaries.into_iter().zip(page.results));
        }
    }
    if output == Output::Json {
        let (summaries, results): (Vec<_>, Vec<_>) = evaluations.into_iter().unzip();
        show::json(&json!({"summaries": summaries, "results": results}))?;
        return Ok(exit::DONE);
    }
    let names = endpoint_names(data).await;
    let mut rows = Vec::new();
    let mut cells = Vec::new();
    for (summary, results) in &evaluations {
        let endpoint = names.get(&summary.endpoint).cloned().unwrap_or_else(|| summary.endpoint.to_string());
        for result in results {
            let about = vec![endpoint.clone(), summary.policy.clone(), format!("{:.0}", summary.evaluated)];
            cells.push([about, show::result_cells(result)].concat());
            rows.push(vec![
                endpoint.clone(),
                summary.policy.clone(),
                result.verdict.to_string(),
                result.severity.to_string(),
                result.since.map(|since| format!("{since:.0}")).unwrap_or_default(),
                format!("{:.0}", summary.evaluated),
                result.title.clone(),
            ]);
        }
    }
    if output == Output::Csv {
        let columns = [&["endpoint", "policy", "evaluated"], &show::RESULT_COLUMNS[..]].concat();
        show::line(show::csv(&columns, &cells).trim_end());
    } else {
        show::table(&["endpoint", "policy", "verdict", "severity", "since", "evaluated", "rule"], rows);
    }
    Ok(exit::DONE)
}
