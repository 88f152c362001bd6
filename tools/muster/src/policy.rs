//! Policies: taken, listed, and assigned to endpoints.

use std::path::Path;

use anyhow::bail;
use proto::operator::{Ask, OperatorEvent, PolicyAssignment, PolicyImport, Workflow};

use crate::cli::{AssignArgs, Output, PolicyCommand};
use crate::commands::{endpoint_names, one, workflow};
use crate::{admission, exit, show, versions};

/// Endpoints that are named of many.
const ENDPOINTS_SHOWN_MAX: usize = 3;
/// Seconds that endpoints may catch up, unless told otherwise.
const CATCH_UP_SECONDS: u64 = 86_400;

/// `muster policy`
pub(crate) async fn run(data: &Path, command: PolicyCommand, output: Output) -> anyhow::Result<u8> {
    match command {
        PolicyCommand::Import { file, name, activate, signature } => {
            let name = name.unwrap_or_else(|| versions::name_of(&file));
            let import = PolicyImport { name, is_activated: activate, ..PolicyImport::default() };
            versions::import(data, import, &file, signature.as_deref(), output).await
        }
        PolicyCommand::Tailor { policy, file, name, activate, signature } => {
            let import =
                PolicyImport { name, tailors: Some(policy), is_activated: activate, ..PolicyImport::default() };
            versions::import(data, import, &file, signature.as_deref(), output).await
        }
        PolicyCommand::List(args) => versions::list(data, &args, output).await,
        PolicyCommand::Versions { policy } => versions::versions(data, policy, output).await,
        PolicyCommand::Preview { policy, version, profile, targets, excluded } => {
            let workflow = Workflow { policy, profile, targets, excluded, ..Workflow::default() };
            versions::preview(data, workflow, version, output).await
        }
        PolicyCommand::Activate { policy, version } => {
            versions::told(data, Ask::PolicyActivate { name: policy, number: version }).await
        }
        PolicyCommand::Signer(command) => versions::signer(data, command, output).await,
        PolicyCommand::Feed(command) => versions::feed(data, command, output).await,
        PolicyCommand::Assign(args) => assign(data, *args).await,
        PolicyCommand::Unassign { name } => admission::told(data, Ask::PolicyUnassign { name }).await,
        PolicyCommand::Assignments => assignments(data, output).await,
        PolicyCommand::Coverage { task, excluded } => {
            coverage(data, Workflow { excluded, ..workflow(&task) }, output).await
        }
    }
}

/// `muster policy assign`
async fn assign(data: &Path, args: AssignArgs) -> anyhow::Result<u8> {
    let schedule = args.schedule.schedule();
    if schedule.is_none() && !args.on_change {
        bail!("say when: --every 1d, --cron '0 3 * * *', --on-change, or both");
    }
    // What is asked next makes up for what was missed.
    let interval = schedule.as_ref().and_then(|schedule| schedule.every_seconds).unwrap_or(CATCH_UP_SECONDS);
    let workflow = Workflow {
        excluded: args.excluded,
        max_age_seconds: args.max_age.map(|age| age.0),
        timeout_seconds: args.timeout,
        expires_seconds: args.catch_up.map_or(CATCH_UP_SECONDS.min(interval), |catch_up| catch_up.0),
        ..workflow(&args.task)
    };
    let assignment = PolicyAssignment {
        name: args.name,
        workflow,
        schedule,
        is_change_based: args.on_change,
        poll_seconds: args.poll.map(|poll| poll.0),
    };
    admission::told(data, Ask::PolicyAssign(Box::new(assignment))).await
}

/// `muster policy assignments`
async fn assignments(data: &Path, output: Output) -> anyhow::Result<u8> {
    let OperatorEvent::Assignments(views) = one(data, Ask::PolicyAssignments, &[]).await? else {
        bail!("unexpected answer")
    };
    if output == Output::Json {
        show::json(&views)?;
        return Ok(exit::DONE);
    }
    let rows = views.into_iter().map(|view| {
        let PolicyAssignment { name, workflow, schedule, is_change_based, .. } = view.assignment;
        let mut when: Vec<String> = schedule.iter().map(ToString::to_string).collect();
        if is_change_based {
            when.push(format!("on change (watched on {})", view.watched_count));
        }
        let policy = match workflow.profile {
            Some(profile) => format!("{}, {profile}", workflow.policy),
            None => workflow.policy,
        };
        let targets = if workflow.targets.is_empty() { "all".to_owned() } else { workflow.targets.join(", ") };
        vec![
            name,
            policy,
            targets,
            view.endpoint_count.to_string(),
            when.join("; "),
            view.next.map_or_else(|| "-".to_owned(), |next| format!("{next:.0}")),
            view.last.map_or_else(|| "-".to_owned(), |last| last.to_string()),
        ]
    });
    let header = ["assignment", "policy", "targets", "endpoints", "when", "next", "latest transaction"];
    show::table(&header, rows.collect());
    Ok(exit::DONE)
}

/// `muster policy coverage`
async fn coverage(data: &Path, workflow: Workflow, output: Output) -> anyhow::Result<u8> {
    let OperatorEvent::Coverage(view) = one(data, Ask::PolicyCoverage(workflow), &[]).await? else {
        bail!("unexpected answer")
    };
    if output == Output::Json {
        show::json(&view)?;
        return Ok(exit::DONE);
    }
    let names = endpoint_names(data).await;
    let rows = view.gaps.iter().map(|gap| {
        let called: Vec<String> = gap
            .endpoints
            .iter()
            .take(ENDPOINTS_SHOWN_MAX)
            .map(|endpoint| names.get(endpoint).cloned().unwrap_or_else(|| endpoint.to_string()))
            .collect();
        let more = gap.endpoints.len() - called.len();
        let place = match (gap.endpoints.len(), more) {
            (0, _) => "anywhere".to_owned(),
            (count, _) if count == view.endpoints.len() && count > 1 => format!("all {count}"),
            (_, 0) => called.join(", "),
            _ => format!("{} and {more} more", called.join(", ")),
        };
        vec![
            gap.severity.to_string(),
            gap.title.clone(),
            gap.kind.clone().unwrap_or_default(),
            place,
            gap.reason.clone(),
        ]
    });
    let rows: Vec<Vec<String>> = rows.collect();
    if !rows.is_empty() {
        show::table(&["severity", "rule", "needs", "not on", "because"], rows);
    }
    let counts = format!("{} of {} rules can be decided", view.covered_count, view.rule_count);
    show::note(match view.endpoints.len() {
        1 => format!("{counts} on the one endpoint"),
        count => format!("{counts} on every one of {count} endpoints"),
    });
    if !view.silent.is_empty() {
        show::note(format!("{} collectors do not say what they can collect", view.silent.len()));
    }
    Ok(if view.gaps.is_empty() { exit::DONE } else { exit::NOT_MET })
}
