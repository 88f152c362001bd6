//! `muster query`: which items are there, on which endpoints; and `muster label`: names for endpoints.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use anyhow::bail;
use jiff::Timestamp;
use proto::id::EndpointId;
use proto::limits::shown;
use proto::message::{OnStale, SearchContent, SearchOutcome, SearchResponse, SearchRow, SearchedEndpoint};
use proto::observation::Item;
use proto::operator::{Ask, LabelDefinition, LabelView, OperatorEvent, Question};
use proto::query::{ENDPOINT_KIND, PostureQuery};
use serde_json::json;

use crate::cli::{LabelCommand, Output, QueryArgs, Staleness};
use crate::commands::{complain, endpoint_names, one};
use crate::show::{self, Progress};
use crate::{admission, client, exit};

/// Columns of a table, where nobody says which.
const COLUMNS_MAX: usize = 7;

/// A question from words of the command line.
pub(crate) fn parse(words: &[String]) -> anyhow::Result<PostureQuery> {
    let text = words.join(" ");
    text.parse().map_err(|error: proto::query::QueryError| {
        let pointer = format!("{}^", " ".repeat(error.at.saturating_sub(1)));
        anyhow::anyhow!("{}\n  {text}\n  {pointer}", error.what)
    })
}

/// Everything that came back.
#[derive(Default)]
struct Answer {
    endpoints: BTreeMap<EndpointId, SearchedEndpoint>,
    rows: Vec<(SearchRow, Vec<Item>)>,
}

impl Answer {
    fn take(&mut self, page: SearchResponse) {
        for one in page.endpoints {
            self.endpoints.insert(one.endpoint, one);
        }
        for row in page.rows {
            let items = row.items.iter().filter_map(|at| page.items.get(*at as usize)).cloned().collect();
            self.rows.push((row, items));
        }
    }

    fn count(&self, outcome: SearchOutcome) -> usize {
        self.endpoints.values().filter(|one| one.outcome == outcome).count()
    }
}

/// `muster query`
pub(crate) async fn run(data: &Path, args: QueryArgs, output: Output) -> anyhow::Result<u8> {
    let query = parse(&args.question)?;
    let content = match (args.count, args.metadata) {
        (true, _) => SearchContent::Count,
        (_, true) => SearchContent::Metadata,
        _ => SearchContent::Data,
    };
    let question = Question {
        query,
        targets: args.targets,
        excluded: args.excluded,
        as_of: args.as_of,
        max_age_seconds: args.max_age.map(|age| age.0),
        is_collected: args.collect || args.on_stale == Staleness::Collect,
        on_stale: if args.on_stale == Staleness::Omit { OnStale::Omit } else { OnStale::Mark },
        content,
        timeout_seconds: args.timeout,
        budget: args.budget.unwrap_or_default(),
    };
    let mut answers = client::ask(data, Ask::Query(Box::new(question)), &[]).await?;
    let mut progress = Progress::new();
    let mut answer = Answer::default();
    let outcome = loop {
        match answers.next().await {
            Ok(Some(OperatorEvent::Progress { activity, done, total })) => progress.draw(activity, done, total),
            Ok(Some(OperatorEvent::Found(page))) => answer.take(*page),
            Ok(Some(OperatorEvent::Ended(view))) => {
                progress.clear();
                complain(&view);
            }
            Ok(Some(OperatorEvent::Notice(text))) => show::note(format!("note: {text}")),
            Ok(Some(_)) => {}
            Ok(None) => break Ok(()),
            Err(error) => break Err(error),
        }
    };
    progress.clear();
    outcome?;
    let names = endpoint_names(data).await;
    show_answer(&answer, &names, content, &args.select, output)?;
    Ok(exit::DONE)
}

fn name_of(endpoint: EndpointId, names: &BTreeMap<EndpointId, String>) -> String {
    names.get(&endpoint).map_or_else(|| endpoint.to_string(), |name| shown(name))
}

fn show_answer(
    answer: &Answer,
    names: &BTreeMap<EndpointId, String>,
    content: SearchContent,
    select: &[String],
    output: Output,
) -> anyhow::Result<()> {
    if output == Output::Json {
        let rows: Vec<_> = answer.rows.iter().map(|(row, items)| json!({"observation": row, "items": items})).collect();
        let endpoints: Vec<_> = answer.endpoints.values().collect();
        return show::json(&json!({"endpoints": endpoints, "rows": rows}));
    }
    let now = Timestamp::now();
    let collected = |row: &SearchRow| {
        let mark = if row.is_stale { ", stale" } else { "" };
        match output {
            Output::Csv => format!("{:.0}{mark}", row.collected),
            _ => format!("{}{mark}", show::ago(Some(row.collected), now)),
        }
    };
    let (header, rows): (Vec<String>, Vec<Vec<String>>) = match content {
        SearchContent::Count => {
            let matched = answer.endpoints.values().filter(|one| one.matched > 0);
            let rows = matched.map(|one| vec![name_of(one.endpoint, names), one.matched.to_string()]).collect();
            (vec!["endpoint".to_owned(), "items".to_owned()], rows)
        }
        SearchContent::Metadata => {
            let header = ["endpoint", "items", "flag", "collected", "since", "origin", "object"];
            let rows = answer.rows.iter().map(|(row, _)| {
                let text = |value: Option<String>| value.unwrap_or_default();
                vec![
                    name_of(row.endpoint, names),
                    row.matched.to_string(),
                    serde_json::to_value(row.flag)
                        .ok()
                        .and_then(|flag| flag.as_str().map(str::to_owned))
                        .unwrap_or_default(),
                    collected(row),
                    format!("{:.0}", row.since),
                    text(row.origin.map(|origin| origin.to_string())),
                    text(row.object.as_ref().map(ToString::to_string)),
                ]
            });
            (header.map(str::to_owned).to_vec(), rows.collect())
        }
        SearchContent::Data => {
            let columns = if select.is_empty() { columns_of(answer, output) } else { select.to_vec() };
            let mut rows = Vec::new();
            for (row, items) in &answer.rows {
                for item in items {
                    let mut cells = vec![name_of(row.endpoint, names)];
                    cells.extend(columns.iter().map(|column| cell(item, column)));
                    cells.push(collected(row));
                    rows.push(cells);
                }
            }
            let header = [vec!["endpoint".to_owned()], columns, vec!["collected".to_owned()]].concat();
            (header, rows)
        }
    };
    let header: Vec<&str> = header.iter().map(String::as_str).collect();
    if output == Output::Csv {
        show::text(&show::csv(&header, &rows));
    } else if !rows.is_empty() {
        show::table(&header, rows);
    }
    show::note(in_words(answer, names.len()));
    Ok(())
}

/// The values of a field; what comes from endpoints is shown without what a terminal would obey.
fn cell(item: &Item, column: &str) -> String {
    let of = |column: &str| item.named(column).filter_map(|entity| entity.value.clone()).collect::<Vec<String>>();
    let mut values = of(column);
    if column == "filepath" && values.is_empty() {
        // A directory has a path and no name.
        values = of("path");
    }
    shown(&values.join(", ").replace(['\n', '\t'], " "))
}

/// The fields that the items have, in their order; for people as many as fit.
fn columns_of(answer: &Answer, output: Output) -> Vec<String> {
    let mut columns: Vec<String> = Vec::new();
    for item in answer.rows.iter().flat_map(|(_, items)| items) {
        for entity in &item.entities {
            if entity.value.is_some() && !columns.contains(&entity.name) {
                columns.push(entity.name.clone());
            }
        }
    }
    if output == Output::Table {
        // An endpoint's name and its identity stand in front already.
        if answer.rows.iter().flat_map(|(_, items)| items).any(|item| item.kind == ENDPOINT_KIND) {
            columns.retain(|column| !matches!(column.as_str(), "endpoint" | "host_name" | "machine_id"));
        }
        // A path says what these two say.
        if columns.iter().any(|column| column == "filepath") {
            columns.retain(|column| !matches!(column.as_str(), "path" | "filename"));
        }
        // What is the same as a name, or as a version in parts, is said by the other.
        if columns.iter().any(|column| column == "evr") {
            columns.retain(|column| !matches!(column.as_str(), "epoch" | "release" | "version"));
        }
        columns.truncate(COLUMNS_MAX);
    }
    columns
}

fn in_words(answer: &Answer, known: usize) -> String {
    let items: u64 = answer.endpoints.values().map(|one| one.matched).sum();
    let on: usize = answer.endpoints.values().filter(|one| one.matched > 0).count();
    let plural = |count: u64, word: &str| if count == 1 { format!("1 {word}") } else { format!("{count} {word}s") };
    let mut said = vec![format!("{} on {}", plural(items, "item"), plural(on as u64, "endpoint"))];
    let none = answer.count(SearchOutcome::Unmatched);
    if none > 0 {
        said.push(format!("on {none} nothing"));
    }
    let unsure = answer.endpoints.values().filter(|one| one.outcome == SearchOutcome::Unknown && one.matched == 0);
    let unsure = unsure.count();
    if unsure > 0 {
        said.push(format!("of {unsure} it cannot be said"));
    }
    if answer.endpoints.is_empty() && known > 0 {
        said.push("nothing of this kind is stored: `--collect` has collectors look".to_owned());
    }
    said.join("; ")
}

/// `muster label`
pub(crate) async fn label(data: &Path, command: LabelCommand, output: Output) -> anyhow::Result<u8> {
    let ask = match command {
        LabelCommand::Set { name, members, excluded, query, every, max_age } => {
            let query = query.map(|query| parse(&[query])).transpose()?;
            Ask::LabelSet(Box::new(LabelDefinition {
                name,
                members,
                excluded,
                query,
                every_seconds: every.0,
                max_age_seconds: max_age.map(|age| age.0),
            }))
        }
        LabelCommand::Remove { name } => return admission::told(data, Ask::LabelRemove { name }).await,
        LabelCommand::List => Ask::LabelList,
    };
    let OperatorEvent::Labels(labels) = one(data, ask, &[]).await? else { bail!("unexpected answer") };
    if output == Output::Json {
        show::json(&labels)?;
        return Ok(exit::DONE);
    }
    let names = endpoint_names(data).await;
    let now = Timestamp::now();
    let rows = labels.iter().map(|label| row_of(label, &names, now)).collect();
    show::table(&["label", "means", "endpoints", "unknown", "searched", "now"], rows);
    Ok(exit::DONE)
}

fn row_of(label: &LabelView, names: &BTreeMap<EndpointId, String>, now: Timestamp) -> Vec<String> {
    let definition = &label.definition;
    let named = Some(definition.members.join(", ")).filter(|named| !named.is_empty());
    let asked = definition.query.as_ref().map(ToString::to_string);
    let mut means = named.into_iter().chain(asked).collect::<Vec<_>>().join(", or ");
    if !definition.excluded.is_empty() {
        means = format!("{means}; not {}", definition.excluded.join(", "));
    }
    let called: BTreeSet<String> = label.endpoints.iter().map(|endpoint| name_of(*endpoint, names)).collect();
    let mut called: Vec<String> = called.into_iter().collect();
    let more = called.len().saturating_sub(4);
    called.truncate(4);
    if more > 0 {
        called.push(format!("and {more} more"));
    }
    let is_asked = definition.query.as_ref().is_some_and(|query| query.kind != ENDPOINT_KIND);
    vec![
        definition.name.clone(),
        shown(&means),
        label.endpoints.len().to_string(),
        label.undecided.len().to_string(),
        if is_asked { show::ago(label.searched, now) } else { "at once".to_owned() },
        called.join(", "),
    ]
}
