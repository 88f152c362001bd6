//! Policies: taken, listed, and assigned to endpoints.

use std::path::Path;

use anyhow::{Context as _, bail};
use proto::operator::{Ask, OperatorEvent, PolicyAssignment, Workflow};

use crate::cli::{AssignArgs, Output};
use crate::commands::{endpoint_names, one, workflow};
use crate::{admission, exit, show};

/// Endpoints that are named of many.
const ENDPOINTS_SHOWN_MAX: usize = 3;
/// Seconds that endpoints may catch up, unless told otherwise.
const CATCH_UP_SECONDS: u64 = 86_400;

/// `muster policy assign`
pub(crate) async fn assign(data: &Path, args: AssignArgs) -> anyhow::Result<u8> {
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
pub(crate) async fn assignments(data: &Path, output: Output) -> anyhow::Result<u8> {
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
pub(crate) async fn coverage(data: &Path, workflow: Workflow, output: Output) -> anyhow::Result<u8> {
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

pub(crate) async fn import(data: &Path, file: &Path, name: Option<String>, output: Output) -> anyhow::Result<u8> {
    let content = std::fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
    let name = name.unwrap_or_else(|| {
        let base = file.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        base.trim_end_matches(".xz").trim_end_matches(".gz").trim_end_matches(".xml").trim_end_matches("-ds").to_owned()
    });
    let answer = one(data, Ask::PolicyImport { name }, &content).await;
    let OperatorEvent::Policy(policy) = answer.with_context(|| format!("{} was not imported", file.display()))? else {
        bail!("unexpected answer")
    };
    if output == Output::Json {
        show::json(&policy)?;
    } else {
        show::line(format!(
            "imported {}: {} ({} rules, {} profiles)",
            policy.name,
            policy.title,
            policy.rule_count,
            policy.profiles.len()
        ));
        show::note(format!(
            "hint: `muster evaluate --policy {} --profile PROFILE`; `muster policy list` shows the profiles",
            policy.name
        ));
    }
    Ok(exit::DONE)
}

pub(crate) async fn list(data: &Path, output: Output) -> anyhow::Result<u8> {
    let OperatorEvent::Policies(policies) = one(data, Ask::PolicyList, &[]).await? else { bail!("unexpected answer") };
    if output == Output::Json {
        show::json(&policies)?;
        return Ok(exit::DONE);
    }
    let mut rows = Vec::new();
    for policy in policies {
        rows.push(vec![
            policy.name.clone(),
            policy.version.clone(),
            "(default)".to_owned(),
            policy.rule_count.to_string(),
            policy.title,
        ]);
        for profile in policy.profiles {
            let id = profile.id.rsplit("_profile_").next().unwrap_or(&profile.id).to_owned();
            rows.push(vec![policy.name.clone(), String::new(), id, profile.selected_count.to_string(), profile.title]);
        }
    }
    show::table(&["policy", "version", "profile", "rules", "title"], rows);
    Ok(exit::DONE)
}
