//! Standing tasks of collectors, and what they saw change.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use anyhow::{Context as _, bail};
use proto::message::{
    AttributeChange, FollowedBy, Following, ObjectState, ObservationEntry, ObservationMode, ObservationOperation,
    PeriodicOperation, StreamState,
};
use proto::observation::Item;
use proto::operator::{Ask, AskOutcome, CollectorAnswer, OperatorEvent, Workflow};

use crate::cli::{ChangesArgs, ObserveCommand, Output, ScheduleAddArgs, ScheduleCommand, TaskArgs};
use crate::commands::{endpoint_names, one, workflow};
use crate::{client, exit, show};

/// Characters of one value on a line for people.
const VALUE_CHARS_MAX: usize = 60;
/// Items of one side of a change, for people.
const ITEMS_SHOWN_MAX: usize = 5;

fn nothing_but(targets: Vec<String>) -> Workflow {
    workflow(&TaskArgs { policy: String::new(), profile: None, targets, budget: None })
}

/// `muster schedule`
pub(crate) async fn schedule(data: &Path, command: ScheduleCommand, output: Output) -> anyhow::Result<u8> {
    let ask = |operation, identifier, schedule, at_once, workflow| Ask::Periodic {
        operation,
        identifier,
        schedule,
        at_once,
        workflow,
    };
    let (ask, is_list) = match command {
        ScheduleCommand::Add(args) => {
            let ScheduleAddArgs { identifier, schedule, now, task } = *args;
            let schedule = schedule.schedule().context("say how often: --every 1d, or --cron '0 3 * * *'")?;
            (ask(PeriodicOperation::Schedule, identifier, Some(schedule), now, workflow(&task)), false)
        }
        ScheduleCommand::Cancel { identifier, last, targets } => {
            (ask(PeriodicOperation::Cancel, identifier, None, last, nothing_but(targets)), false)
        }
        ScheduleCommand::List { targets } => {
            (ask(PeriodicOperation::List, String::new(), None, false, nothing_but(targets)), true)
        }
    };
    show_answers(data, ask, is_list, output).await
}

/// `muster observe`
pub(crate) async fn observe(data: &Path, command: ObserveCommand, output: Output) -> anyhow::Result<u8> {
    let ask = |operation, identifier, poll_seconds, workflow| Ask::Observation {
        operation,
        identifier,
        poll_seconds,
        workflow,
    };
    let (ask, is_list) = match command {
        ObserveCommand::Start { identifier, poll, task } => {
            (ask(ObservationOperation::Start, identifier, poll.map(|poll| poll.0), workflow(&task)), false)
        }
        ObserveCommand::Cancel { identifier, targets } => {
            (ask(ObservationOperation::Cancel, identifier, None, nothing_but(targets)), false)
        }
        ObserveCommand::List { targets } => {
            (ask(ObservationOperation::List, String::new(), None, nothing_but(targets)), true)
        }
    };
    show_answers(data, ask, is_list, output).await
}

async fn show_answers(data: &Path, ask: Ask, is_list: bool, output: Output) -> anyhow::Result<u8> {
    let OperatorEvent::Collectors(answers) = one(data, ask, &[]).await? else { bail!("unexpected answer") };
    let is_done = answers.iter().all(|answer| answer.outcome == AskOutcome::Done);
    if output == Output::Json {
        show::json(&answers)?;
    } else {
        for answer in answers.iter().filter(|answer| answer.outcome != AskOutcome::Done) {
            let detail = answer.detail.as_deref().unwrap_or_default();
            show::note(format!("{} ({}): {}: {detail}", answer.name, answer.component, answer.outcome.as_str()));
        }
        if is_list {
            list(&answers);
        } else {
            let done = answers.iter().filter(|answer| answer.outcome == AskOutcome::Done).count();
            show::line(format!("done at {done} of {} collectors", answers.len()));
            if let Some(entry) = answers.iter().flat_map(|answer| &answer.observations).next() {
                show::line(how(entry));
            }
        }
    }
    Ok(if is_done { exit::DONE } else { exit::NOT_MET })
}

/// One way of following objects, in words.
fn followed(by: &FollowedBy) -> String {
    let FollowedBy { way, count, seconds } = by;
    let every = seconds.map(|seconds| format!(" every {seconds} s")).unwrap_or_default();
    match way {
        Following::Files => format!("files tell of {count} objects"),
        Following::Units => format!("systemd of {count}"),
        Following::Mounts => format!("mounts of {count}"),
        Following::Fingerprints => format!("fingerprints{every} of {count}"),
        Following::Polling => format!("looks{every} at {count}"),
    }
}

/// How an observation watches, in words.
fn how(entry: &ObservationEntry) -> String {
    if !entry.followed.is_empty() {
        let words: Vec<String> = entry.followed.iter().map(followed).collect();
        return words.join(", ");
    }
    // From versions that do not say more.
    let looks = format!("looks every {} s", entry.poll_seconds);
    match (entry.mode, entry.watched_count, entry.polled_count) {
        (ObservationMode::Realtime, Some(watched), _) => format!("told of all {watched} objects by the kernel"),
        (ObservationMode::Mixed, Some(watched), Some(polled)) => {
            format!("told of {watched} objects by the kernel, {looks} at {polled}")
        }
        _ => looks,
    }
}

fn list(answers: &[CollectorAnswer]) {
    let mut rows = Vec::new();
    for answer in answers {
        for entry in &answer.schedules {
            let next = entry.next.map_or_else(|| "ended".to_owned(), |next| format!("next {next:.0}"));
            let when = entry.collection_schedule.to_string();
            rows.push(vec![answer.name.clone(), entry.collection_identifier.clone(), when, next]);
        }
        for entry in &answer.observations {
            let how = how(entry);
            let reports = entry.epoch.map(|epoch| format!("{} in epoch {epoch}", entry.sequence));
            let identifier = entry.observation_identifier.clone();
            rows.push(vec![answer.name.clone(), identifier, how, reports.unwrap_or_else(|| "none yet".to_owned())]);
        }
    }
    show::table(&["collector", "identifier", "when", "reports or next run"], rows);
}

/// `muster changes`
pub(crate) async fn changes(data: &Path, args: ChangesArgs, output: Output) -> anyhow::Result<u8> {
    let query = args.question.map(|question| crate::query::parse(&[question])).transpose()?.map(Box::new);
    let ask = Ask::Changes { targets: args.targets, limit: args.limit, is_followed: args.follow, query };
    let names = if output == Output::Table { endpoint_names(data).await } else { BTreeMap::new() };
    let mut answers = client::ask(data, ask, &[]).await?;
    let mut is_any = false;
    while let Some(event) = answers.next().await? {
        match event {
            OperatorEvent::Streams(streams) if output == Output::Table => complain(&streams),
            OperatorEvent::Change(change) if output == Output::Json => {
                show::line(serde_json::to_string(&change)?);
            }
            OperatorEvent::Change(change) => {
                is_any = true;
                let name = names.get(&change.endpoint).cloned().unwrap_or_else(|| change.endpoint.to_string());
                tell(&name, &change);
            }
            OperatorEvent::Notice(text) => show::note(format!("note: {text}")),
            _ => {}
        }
    }
    if !is_any && output == Output::Table {
        show::note(
            "nothing has changed; `muster observe start NAME` watches, `muster schedule add` collects regularly",
        );
    }
    Ok(exit::DONE)
}

/// Reports that are missing are said, not hidden.
fn complain(streams: &[StreamState]) {
    for stream in streams.iter().filter(|stream| stream.received < stream.highest) {
        show::note(format!(
            "note: of the observation `{}` of {}, {} reports are missing or on their way",
            stream.observation_identifier,
            stream.origin,
            stream.highest - stream.received
        ));
    }
}

fn tell(name: &str, change: &AttributeChange) {
    let past = change.past.as_ref();
    let items = change.current.items.first().or_else(|| past.and_then(|past| past.items.first()));
    let kind = items.map_or("", |item| item.kind.as_str());
    show::line(format!("{:.0}  {name}  {kind} {}", change.collected, change.object));
    if let Some(past) = past {
        side("was", past, &change.current);
    }
    side("is", &change.current, past.unwrap_or(&change.current));
}

fn side(word: &str, state: &ObjectState, other: &ObjectState) {
    if state.items.is_empty() {
        let why = state.messages.first().map(|message| format!(": {message}")).unwrap_or_default();
        let flag = serde_json::to_value(state.flag).ok().and_then(|flag| flag.as_str().map(str::to_owned));
        show::line(format!("    {word:<3} {} items, {}{why}", state.item_count, flag.unwrap_or_default()));
    }
    for item in state.items.iter().take(ITEMS_SHOWN_MAX) {
        show::line(format!("    {word:<3} {}", words_of(item, other)));
    }
    if state.items.len() > ITEMS_SHOWN_MAX {
        show::line(format!("        and {} more", state.items.len() - ITEMS_SHOWN_MAX));
    }
}

/// An item by what names it, and by what differs from every item of the other side.
fn words_of(item: &Item, other: &ObjectState) -> String {
    let known: BTreeSet<_> = other.items.iter().flat_map(|item| &item.entities).collect();
    let mut words = Vec::new();
    for (at, entity) in item.entities.iter().enumerate() {
        let Some(value) = &entity.value else { continue };
        if at == 0 || other.items.is_empty() || !known.contains(entity) {
            let mut value: String = value.chars().take(VALUE_CHARS_MAX).collect();
            value = value.escape_debug().to_string();
            words.push(format!("{}={value}", entity.name));
        }
    }
    words.join(" ")
}
