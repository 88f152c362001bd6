//! `muster endpoint`: which endpoint is which, and what an operator says of it.

use std::path::Path;

use anyhow::bail;
use proto::id::EndpointId;
use proto::operator::{Ask, ComponentState, IdentityDecision, OperatorEvent, RosterEntry};

use crate::cli::{EndpointCommand, Output};
use crate::commands::one;
use crate::{admission, exit, show};

/// Shows endpoints, or decides which is which.
pub(crate) async fn run(data: &Path, command: EndpointCommand, output: Output) -> anyhow::Result<u8> {
    let decision = match command {
        EndpointCommand::List => return list(data, output).await,
        EndpointCommand::Same { component } => IdentityDecision::Same(component),
        EndpointCommand::Distinct { component } => IdentityDecision::Distinct(component),
        EndpointCommand::Merge { endpoint, into } => IdentityDecision::Merge(endpoint, into),
        EndpointCommand::Split { endpoint } => IdentityDecision::Split(endpoint),
    };
    admission::told(data, Ask::Identity(decision)).await
}

async fn list(data: &Path, output: Output) -> anyhow::Result<u8> {
    let OperatorEvent::Roster(roster) = one(data, Ask::Roster, &[]).await? else { bail!("unexpected answer") };
    let roster: Vec<RosterEntry> = roster
        .into_iter()
        .filter(|entry| !entry.endpoints.is_empty() || entry.state == ComponentState::Quarantined)
        .collect();
    if output == Output::Json {
        show::json(&roster)?;
        return Ok(exit::DONE);
    }
    let name_of = |label: EndpointId| {
        let speaks = |entry: &&RosterEntry| entry.endpoints.iter().any(|endpoint| endpoint.endpoint == label);
        roster.iter().find(speaks).map_or_else(|| label.to_string(), |entry| format!("{} ({label})", entry.name))
    };
    let mut rows = Vec::new();
    for entry in &roster {
        if let Some(shared) = &entry.collision {
            let seems = format!("seems to be another's machine: {shared}");
            rows.push(row(entry, "", "", &seems, ""));
        }
        for endpoint in &entry.endpoints {
            let evidence: Vec<String> =
                endpoint.evidence.iter().map(|one| format!("{} {}", one.attribute, one.value)).collect();
            let likely = endpoint.likely.map(|likely| format!("likely {}", name_of(likely))).unwrap_or_default();
            let (label, host) = (endpoint.endpoint.to_string(), endpoint.facts.host_name.as_str());
            rows.push(row(entry, host, &label, &likely, &evidence.join("\n")));
        }
    }
    show::table(&["endpoint", "collector", "state", "seems", "evidence", "label", "collector's id"], rows);
    Ok(exit::DONE)
}

fn row(entry: &RosterEntry, host: &str, label: &str, seems: &str, evidence: &str) -> Vec<String> {
    let (name, state, id) = (entry.name.clone(), entry.state.as_str().to_owned(), entry.component.to_string());
    vec![host.to_owned(), name, state, seems.to_owned(), evidence.to_owned(), label.to_owned(), id]
}
