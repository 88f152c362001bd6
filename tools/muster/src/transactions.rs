//! Workflows: who was asked, what became of it, to wait for one, to stop one.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::bail;
use jiff::Timestamp;
use proto::id::TransactionId;
use proto::operator::{Ask, OperatorEvent, ResponderView, TransactionView};

use crate::cli::Output;
use crate::commands::{endpoint_names, one};
use crate::{exit, show};

/// Responders that did what they were asked, on a page for people.
const GOOD_SHOWN_MAX: usize = 20;

/// `muster transactions`
pub(crate) async fn list(data: &Path, output: Output) -> anyhow::Result<u8> {
    let OperatorEvent::Transactions(views) = one(data, Ask::Transactions, &[]).await? else {
        bail!("unexpected answer")
    };
    if output == Output::Json {
        show::json(&views)?;
        return Ok(exit::DONE);
    }
    let rows = views.into_iter().map(|view| {
        let became = became(&view);
        vec![
            view.transaction.to_string(),
            view.workflow,
            view.policy,
            view.state,
            format!("{:.0}", view.begun),
            view.endpoint_count.to_string(),
            became,
        ]
    });
    let header = ["transaction", "workflow", "policy", "state", "begun", "endpoints", "of them"];
    show::table(&header, rows.collect());
    Ok(exit::DONE)
}

/// `muster transactions ID`
pub(crate) async fn page(data: &Path, transaction: TransactionId, output: Output) -> anyhow::Result<u8> {
    let view = ask(data, Ask::Transaction { transaction }).await?;
    show_page(data, &view, output).await?;
    Ok(exit::DONE)
}

/// `muster wait`
pub(crate) async fn wait(
    data: &Path,
    transaction: TransactionId,
    is_all: bool,
    seconds: Option<u64>,
    output: Output,
) -> anyhow::Result<u8> {
    let waiting = ask(data, Ask::Wait { transaction, is_all });
    let view = match seconds {
        None => waiting.await?,
        Some(seconds) => match tokio::time::timeout(std::time::Duration::from_secs(seconds), waiting).await {
            Ok(view) => view?,
            Err(_) => {
                bail!("it is not done after {seconds} s: `muster transactions {transaction}` shows how far it is")
            }
        },
    };
    show_page(data, &view, output).await?;
    Ok(if view.state == "completed" { exit::DONE } else { exit::NOT_MET })
}

async fn ask(data: &Path, ask: Ask) -> anyhow::Result<TransactionView> {
    match one(data, ask, &[]).await? {
        OperatorEvent::Ended(view) => Ok(*view),
        _ => bail!("unexpected answer"),
    }
}

/// What became of the endpoints, in words; of those who were to evaluate, where nothing was collected.
fn became(view: &TransactionView) -> String {
    let parts = view.account.parts();
    let words: Vec<String> =
        parts.into_iter().filter(|(_, count)| *count > 0).map(|(word, count)| format!("{count} {word}")).collect();
    if words.is_empty() {
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        for responder in &view.responders {
            *counts.entry(responder.state.as_str()).or_default() += 1;
        }
        let counts: Vec<String> = counts.into_iter().map(|(state, count)| format!("{count} {state}")).collect();
        return format!("nothing collected; evaluators: {}", counts.join(", "));
    }
    words.join(", ")
}

async fn show_page(data: &Path, view: &TransactionView, output: Output) -> anyhow::Result<()> {
    if output == Output::Json {
        return show::json(view);
    }
    let time = |time: Option<Timestamp>| time.map_or_else(|| "-".to_owned(), |time| format!("{time:.0}"));
    let profile = view.profile.as_deref().unwrap_or("(default)");
    for (name, value) in [
        ("transaction", view.transaction.to_string()),
        ("workflow", view.workflow.clone()),
        ("policy", format!("{}, profile {profile}", view.policy)),
        ("state", view.state.clone()),
        ("begun", time(Some(view.begun))),
        ("settled", time(view.settled)),
        ("expires", time(view.expires)),
        ("ended", time(view.ended)),
        ("endpoints", view.endpoint_count.to_string()),
    ] {
        show::line(format!("{name:<12} {value}"));
    }
    if let Some(fault) = &view.fault {
        show::line(format!("{:<12} {fault}", "because"));
    }
    if view.account.asked > 0 {
        let parts: Vec<String> = view
            .account
            .parts()
            .into_iter()
            .filter(|(_, count)| *count > 0)
            .map(|(word, count)| format!("{count} {word}"))
            .collect();
        show::line(format!("{:<12} {} meant = {}", "account", view.account.asked, parts.join(" + ")));
    }
    show::line("");
    let names = endpoint_names(data).await;
    let is_good = |responder: &&ResponderView| matches!(responder.state.as_str(), "completed" | "fresh");
    let (good, other): (Vec<_>, Vec<_>) = view.responders.iter().partition(is_good);
    let row = |responder: &&ResponderView| {
        let mut of: Vec<String> = responder
            .endpoints
            .iter()
            .take(3)
            .map(|endpoint| names.get(endpoint).cloned().unwrap_or_else(|| endpoint.to_string()))
            .collect();
        if responder.endpoints.len() > 3 {
            of.push(format!("and {} more", responder.endpoints.len() - 3));
        }
        let objects = if responder.object_count == 0 { "all".to_owned() } else { responder.object_count.to_string() };
        vec![
            responder.operation.clone(),
            of.join(", "),
            if responder.operation == "collect" { objects } else { String::new() },
            responder.state.clone(),
            time(responder.ended),
            responder.component.to_string(),
            responder.detail.clone().unwrap_or_default(),
        ]
    };
    let hidden = good.len().saturating_sub(GOOD_SHOWN_MAX);
    let rows = other.iter().map(row).chain(good.iter().take(GOOD_SHOWN_MAX).map(row)).collect();
    show::table(&["asked to", "endpoints", "objects", "state", "ended", "component", "why"], rows);
    if hidden > 0 {
        show::note(format!("and {hidden} more that are done; -o json has all"));
    }
    Ok(())
}
