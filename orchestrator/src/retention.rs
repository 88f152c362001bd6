//! What was asked goes when it is old and nothing that a repository keeps answers it any more.

use std::collections::BTreeSet;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use proto::content::ContentHash;
use proto::fault::{Fault, FaultCode};
use proto::id::RequestId;
use proto::message::{ReferenceRequest, ReferenceResponse};
use service::reload::Live;

use crate::control::ask_one_repository;
use crate::driver::Handle;

/// From the start to the first time, and from one time to the next.
const FIRST: Duration = Duration::from_mins(2);
const EVERY: Duration = Duration::from_hours(6);
/// The least that may be kept: so late the bus takes a report that waited in an outbox, and what it answers must be known then.
pub const KEEP_DAYS_MIN: i64 = bus::limits::AGE_DAYS_MAX + 1;
/// Messages of one question to the repository.
const TASKS: i64 = 1_000;

/// What went.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Expired {
    /// Workflows.
    pub workflow_count: u64,
    /// Messages that asked for something.
    pub task_count: u64,
}

impl Handle {
    /// Lets go of what is old, again and again.
    pub(crate) async fn mind_retention(self, keep: Live<SignedDuration>) {
        tokio::time::sleep(FIRST).await;
        loop {
            match self.expire(keep.get(), Timestamp::now()).await {
                Ok(expired) if expired != Expired::default() => {
                    let Expired { workflow_count, task_count } = expired;
                    tracing::info!(workflow_count, task_count, "what was old is gone");
                }
                Ok(_) => {}
                Err(fault) => tracing::warn!(%fault, "what is old stays until the next time"),
            }
            tokio::time::sleep(EVERY).await;
        }
    }

    /// Lets go of workflows that ended so long before, and of messages that asked for what is not kept any more.
    pub async fn expire(&self, keep: SignedDuration, now: Timestamp) -> Result<Expired, Fault> {
        let before = now.saturating_sub(keep).unwrap_or(Timestamp::MIN);
        let open = self.inner.core.lock().await.forget_workflows(before);
        let workflow_count = self.inner.store.expire_workflows(before).await?;
        let task_count = self.expire_tasks(before, &open).await?;
        Ok(Expired { workflow_count, task_count })
    }

    async fn expire_tasks(&self, before: Timestamp, open: &BTreeSet<RequestId>) -> Result<u64, Fault> {
        let (mut count, mut after) = (0, None);
        loop {
            let page = self.inner.store.old_tasks(before, after.as_ref(), TASKS).await?;
            let Some((hash, _)) = page.last() else { return Ok(count) };
            after = Some(hash.clone());
            let candidates = page.into_iter().filter(|(_, request)| !open.contains(request));
            let candidates: BTreeSet<ContentHash> = candidates.map(|(hash, _)| hash).collect();
            if candidates.is_empty() {
                continue;
            }
            let question = ReferenceRequest { tasks: candidates.iter().cloned().collect() };
            // What any of them keeps stays; while one of them is not there, everything does.
            let repositories = self.repositories().await;
            if repositories.is_empty() {
                return Err(Fault::new(FaultCode::Busy, "there is no repository to ask what it keeps"));
            }
            let mut kept: BTreeSet<ContentHash> = BTreeSet::new();
            for (repository, _) in repositories {
                let answer: ReferenceResponse = ask_one_repository(self, repository, &question).await?;
                kept.extend(answer.tasks);
            }
            count += self.inner.store.delete_tasks(candidates.difference(&kept)).await?;
        }
    }
}
