//! Gathers the sealed messages that verdicts rest on: a repository keeps what was answered, the orchestrator what it has
//! asked.

use std::collections::{BTreeMap, BTreeSet};

use bus::Context;
use proto::content::ContentHash;
use proto::fault::{Fault, FaultCode};
use proto::id::{EndpointId, TransactionId};
use proto::limits::SERVICE_PAYLOAD_BYTES_MAX;
use proto::message::{
    ChainRequest, ChainResponse, ContentRequest, Message as _, ResultsRequest, ResultsResponse, ResultsSelection,
};
use proto::topic::Topic;
use service::chain::{Link, needed_for};
use service::content::{ContentStore, unpack};

use crate::control::ask_repository;
use crate::driver::Handle;

/// Evaluations that are followed at once.
const EVALUATIONS_MAX: usize = 1_000;

impl Handle {
    /// The chain of a workflow's verdicts, or of the newest evaluation's.
    pub(crate) async fn chain(
        &self,
        transaction: Option<TransactionId>,
        endpoint: Option<&str>,
        rule: Option<&str>,
    ) -> Result<Vec<Link>, Fault> {
        let wanted = match endpoint {
            Some(endpoint) => Some(self.inner.core.lock().await.endpoints_of(&[endpoint.to_owned()])?),
            None => None,
        };
        let evaluations = match (transaction, &wanted) {
            (Some(transaction), Some(wanted)) => wanted.iter().map(|endpoint| (transaction, *endpoint)).collect(),
            _ => self.evaluations(transaction, wanted.as_deref()).await?,
        };
        let mut links: Vec<Link> = Vec::new();
        let mut seen: BTreeMap<ContentHash, usize> = BTreeMap::new();
        for (transaction, endpoint) in evaluations {
            for link in self.answers(transaction, endpoint, rule).await? {
                let Some((hash, task)) = link.references() else { continue };
                if let Some(at) = seen.get(&hash).copied() {
                    // It has verdicts on this one, too.
                    if let Some(known) = links.get_mut(at) {
                        known.endpoints.extend(&link.endpoints);
                    }
                    continue;
                }
                seen.insert(hash, links.len());
                links.push(link);
                if let Some(task) = task.filter(|task| !seen.contains_key(task)) {
                    seen.insert(task.clone(), links.len());
                    links.extend(self.sent(&task).await?);
                }
            }
        }
        Ok(links)
    }

    /// The endpoints that a workflow, or the newest evaluation, has verdicts on.
    async fn evaluations(
        &self,
        transaction: Option<TransactionId>,
        wanted: Option<&[EndpointId]>,
    ) -> Result<Vec<(TransactionId, EndpointId)>, Fault> {
        let selection = transaction.map_or(ResultsSelection::Latest, ResultsSelection::Transaction);
        let is_wanted = |endpoint: EndpointId| wanted.is_none_or(|wanted| wanted.contains(&endpoint));
        let mut known = Vec::new();
        let mut after = None;
        loop {
            let request =
                ResultsRequest { selection: selection.clone(), verdicts: Vec::new(), only_summaries: true, after };
            let page: ResultsResponse = ask_repository(self, &request).await?;
            known.extend(page.summaries.into_iter().filter(|summary| is_wanted(summary.endpoint)));
            after = page.next;
            if after.is_none() {
                break;
            }
        }
        // Of everything that is there, the newest.
        let newest = known.iter().max_by_key(|summary| summary.evaluated).map(|summary| summary.transaction);
        let meant = transaction.or(newest);
        let evaluations: Vec<(TransactionId, EndpointId)> = known
            .iter()
            .filter(|summary| Some(summary.transaction) == meant)
            .map(|summary| (summary.transaction, summary.endpoint))
            .collect();
        if evaluations.len() > EVALUATIONS_MAX {
            let text = "there are verdicts on more endpoints than are followed at once: name the workflow and, with \
                        --target, an endpoint";
            return Err(Fault::new(FaultCode::TooLarge, text));
        }
        if evaluations.is_empty() {
            let text = "there are no such verdicts; `muster transactions` and `muster results` show what there is";
            return Err(Fault::new(FaultCode::UnknownIdentifier, text));
        }
        Ok(evaluations)
    }

    /// What a repository keeps of it. A verdict on one rule that an evaluation has taken over is followed where it was decided.
    async fn answers(
        &self,
        transaction: TransactionId,
        endpoint: EndpointId,
        rule: Option<&str>,
    ) -> Result<Vec<Link>, Fault> {
        let (mut links, taken_over) = self.kept_of(transaction, endpoint, rule).await?;
        if links.is_empty() && rule.is_some() {
            for earlier in taken_over {
                links.extend(self.kept_of(earlier, endpoint, rule).await?.0);
            }
        }
        Ok(links)
    }

    async fn kept_of(
        &self,
        transaction: TransactionId,
        endpoint: EndpointId,
        rule: Option<&str>,
    ) -> Result<(Vec<Link>, Vec<TransactionId>), Fault> {
        let repository =
            self.repository().await.ok_or_else(|| Fault::new(FaultCode::Busy, "no repository is active"))?;
        let bus = &self.inner.bus;
        let asked = ChainRequest { transaction, endpoint, rule: rule.map(str::to_owned) };
        let kept: ChainResponse = ask_repository(self, &asked).await?;
        let ask = Topic::Directed { to: repository, operation: ContentRequest::KIND.to_owned(), from: bus.own() };
        let content = ContentStore::new(None);
        let mut links = Vec::with_capacity(kept.messages.len());
        for message in kept.messages {
            let packed = content.fetch(bus, &ask, &message.content, Context::of(transaction)).await?;
            let bytes = unpack(&packed, SERVICE_PAYLOAD_BYTES_MAX as u64)?;
            let sealed = String::from_utf8(bytes);
            let sealed = sealed.map_err(|_| Fault::new(FaultCode::ContentInvalid, "a kept message is not text"))?;
            links.push(Link::received(sealed, message.received, endpoint));
        }
        let links = match rule {
            Some(rule) => needed_for(links, rule),
            None => links,
        };
        Ok((links, kept.taken_over))
    }

    async fn sent(&self, task: &ContentHash) -> Result<Option<Link>, Fault> {
        Ok(self.inner.store.sent(task).await?.map(|sealed| Link { sealed, received: None, endpoints: BTreeSet::new() }))
    }
}
