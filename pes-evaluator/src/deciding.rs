//! How one endpoint is decided. What is known of it is asked for by its hash; contents are read where nobody has decided on them
//! before, on whatever endpoint that was.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bus::Context;
use jiff::Timestamp;
use proto::content::ContentHash;
use proto::fault::{Fault, FaultCode};
use proto::id::EndpointId;
use proto::message::{Brief, Briefs, Knowledge, KnownAt, QueryRequest, QueryResponse, SummaryRequest, SummaryResponse};
use proto::observation::Collected;
use proto::plan::ObjectKey;
use proto::verdict::EvaluationSummary;
use scap::compile::Compiled;
use scap::dependencies::Dependencies;
use scap::memo::{Content, DecidedTests, Decision, Known, Memo, Tally, View};
use scap::partial::Partial;

use crate::{Evaluator, Task};

/// Objects in one question to the repository.
const QUERY_OBJECTS: usize = 500;

/// A policy and profile, compiled; what reads what in it; and what was decided by it.
#[derive(Debug)]
pub(crate) struct Prepared {
    pub(crate) compiled: Compiled,
    pub(crate) dependencies: Dependencies,
    /// The rules that are selected.
    rules: BTreeSet<usize>,
    /// Of all objects that it reads.
    objects_hash: ContentHash,
    memo: Mutex<Memo>,
}

impl Prepared {
    pub(crate) fn of(compiled: Compiled) -> Self {
        let selected = compiled.rules.iter().enumerate().filter(|(_, rule)| rule.selected);
        Self {
            dependencies: Dependencies::of(&compiled),
            rules: selected.map(|(at, _)| at).collect(),
            objects_hash: Brief::hash_of(&compiled.collection.report),
            memo: Mutex::new(Memo::of(&compiled)),
            compiled,
        }
    }

    fn memo(&self) -> MutexGuard<'_, Memo> {
        self.memo.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn objects(&self) -> &[ObjectKey] {
        &self.compiled.collection.report
    }

    /// Where an object is in what the plan reports, which is in the order of its keys.
    pub(crate) fn position(&self, object: &ObjectKey) -> Option<usize> {
        self.objects().binary_search(object).ok()
    }
}

/// What was decided on one endpoint.
pub(crate) struct Decided {
    /// By position of the rule.
    pub(crate) decisions: Vec<(usize, Arc<Decision>)>,
    pub(crate) tally: Tally,
    /// Which report each object is known by, by the object's position.
    pub(crate) reports: Vec<Option<Arc<ContentHash>>>,
    pub(crate) is_fresh: bool,
    pub(crate) is_partial: bool,
    /// The oldest observation that the whole rests on.
    pub(crate) oldest_collected: Option<Timestamp>,
    /// What was known of the endpoint, where every verdict was decided on that.
    pub(crate) knowledge: Option<Knowledge>,
}

/// What is known of an endpoint.
pub(crate) struct Seen {
    view: View,
    /// By the object's position.
    reports: Vec<Option<Arc<ContentHash>>>,
    /// Those that were read.
    contents: BTreeMap<usize, Collected>,
    /// All that is known of it, in one word; what was read by its hash is no newer.
    pub(crate) knowledge: Option<Knowledge>,
}

/// What was found of objects, when, by which reports: what the brief answers of a repository refer to.
struct Listed {
    contents: Vec<Content>,
    times: Vec<Timestamp>,
    reports: Vec<Arc<ContentHash>>,
}

impl Listed {
    fn of(prepared: &Prepared, contents: &[ContentHash], times: Vec<Timestamp>, reports: Vec<ContentHash>) -> Self {
        let mut memo = prepared.memo();
        let contents = contents.iter().map(|hash| memo.content(hash)).collect();
        Self { contents, times, reports: reports.into_iter().map(Arc::new).collect() }
    }
}

impl Seen {
    fn nothing(prepared: &Prepared, collected_since: Option<Timestamp>) -> Self {
        let count = prepared.objects().len();
        let view = View { known: vec![None; count], collected_since };
        Self { view, reports: vec![None; count], contents: BTreeMap::new(), knowledge: None }
    }

    /// Whether everything that is read is there, and collected late enough.
    fn is_fresh(&self, objects: impl IntoIterator<Item = usize>) -> bool {
        let is_late_enough = |known: &Known| self.view.collected_since.is_none_or(|since| known.collected >= since);
        objects
            .into_iter()
            .all(|object| self.view.known.get(object).copied().flatten().as_ref().is_some_and(is_late_enough))
    }

    fn set(&mut self, at: usize, known: Option<(Content, Timestamp)>, report: Option<Arc<ContentHash>>) {
        self.view.known[at] = known.map(|(content, collected)| Known { content, collected });
        self.reports[at] = report;
    }

    /// Takes over a brief answer about the first of these objects; none where it refers to what is not in it.
    fn take(
        &mut self,
        positions: impl ExactSizeIterator<Item = usize>,
        listed: &Listed,
        known: Vec<KnownAt>,
    ) -> Option<()> {
        if known.len() > positions.len() {
            return None;
        }
        for (position, known) in positions.zip(known) {
            let Some((content, time, report)) = known else { continue };
            let content = *listed.contents.get(content as usize)?;
            let collected = *listed.times.get(time as usize)?;
            let report = match report {
                Some(report) => Some(Arc::clone(listed.reports.get(report as usize)?)),
                None => None,
            };
            self.set(position, Some((content, collected)), report);
        }
        Some(())
    }
}

fn silent() -> Fault {
    Fault::new(FaultCode::Internal, "the repository answers nothing")
}

fn wrong() -> Fault {
    Fault::new(FaultCode::Internal, "the repository's answer is wrong")
}

fn failed_badly() -> Fault {
    Fault::new(FaultCode::Internal, "the evaluation failed badly")
}

impl Evaluator {
    pub(crate) async fn decide_all(
        &self,
        task: &Task,
        endpoint: EndpointId,
        prepared: &Arc<Prepared>,
    ) -> Result<Decided, Fault> {
        let all: Vec<usize> = (0..prepared.objects().len()).collect();
        let seen = self.seen(task, endpoint, prepared, &all).await?;
        self.decide_seen(task, endpoint, prepared, seen).await
    }

    /// Decides an endpoint of which it is known what is known.
    pub(crate) async fn decide_seen(
        &self,
        task: &Task,
        endpoint: EndpointId,
        prepared: &Arc<Prepared>,
        seen: Seen,
    ) -> Result<Decided, Fault> {
        let (seen, decisions) = self.decide(task, endpoint, prepared, seen, prepared.rules.clone()).await?;
        let tally = Tally::of(&prepared.compiled, &decisions, None).ok_or_else(failed_badly)?;
        Ok(Decided {
            oldest_collected: seen.view.oldest(&decisions),
            decisions,
            tally,
            is_fresh: seen.is_fresh(0..prepared.objects().len()),
            reports: seen.reports,
            is_partial: false,
            knowledge: seen.knowledge,
        })
    }

    /// Decides only what reads changed objects, where that is asked for and what was decided before is known.
    pub(crate) async fn decide_changed(
        &self,
        task: &Task,
        endpoint: EndpointId,
        prepared: &Arc<Prepared>,
    ) -> Result<Option<Decided>, Fault> {
        let request = &task.request;
        if request.changed.is_empty() || request.as_of.is_some() {
            return Ok(None);
        }
        let question = SummaryRequest {
            request: request.request,
            endpoint,
            policy: request.policy.clone(),
            profile: prepared.compiled.profile.clone(),
            others: Vec::new(),
        };
        let SummaryResponse { summary, .. } =
            self.repositories.ask(request, &question, Context::of(task.transaction)).await?;
        let same = |summary: &EvaluationSummary| summary.content.as_ref() == Some(&request.content.sha256);
        let Some(before) = summary.filter(same) else { return Ok(None) };
        // What is taken over must not be older than what may be used.
        let is_stale = |since: Timestamp| before.oldest_collected.is_none_or(|oldest| oldest < since);
        if request.collected_since.is_some_and(is_stale) {
            return Ok(None);
        }
        let partial = Partial::of(&prepared.dependencies, &request.changed);
        let objects: Vec<usize> = partial.objects.iter().filter_map(|object| prepared.position(object)).collect();
        let mut seen = self.seen(task, endpoint, prepared, &objects).await?;
        // What else has changed since is decided by itself.
        seen.knowledge = None;
        self.decide_part(task, endpoint, prepared, seen, (&partial.rules, &objects), &before).await
    }

    /// Decides these rules, which read these objects, and takes the other verdicts over; nothing where those are of another plan.
    pub(crate) async fn decide_part(
        &self,
        task: &Task,
        endpoint: EndpointId,
        prepared: &Arc<Prepared>,
        seen: Seen,
        (rules, objects): (&BTreeSet<usize>, &[usize]),
        before: &EvaluationSummary,
    ) -> Result<Option<Decided>, Fault> {
        let (seen, decisions) = self.decide(task, endpoint, prepared, seen, rules.clone()).await?;
        let Some(tally) = Tally::of(&prepared.compiled, &decisions, Some(&before.verdicts)) else { return Ok(None) };
        Ok(Some(Decided {
            oldest_collected: [seen.view.oldest(&decisions), before.oldest_collected].into_iter().flatten().min(),
            decisions,
            tally,
            is_fresh: seen.is_fresh(objects.iter().copied()) && before.is_fresh.unwrap_or(false),
            reports: seen.reports,
            is_partial: true,
            knowledge: seen.knowledge,
        }))
    }

    /// Decides these rules, reading what has to be read for that.
    async fn decide(
        &self,
        task: &Task,
        endpoint: EndpointId,
        prepared: &Arc<Prepared>,
        mut seen: Seen,
        rules: BTreeSet<usize>,
    ) -> Result<(Seen, Vec<(usize, Arc<Decision>)>), Fault> {
        let recalled = loop {
            let recalled = prepared.memo().recall(&seen.view, &rules);
            let unread = recalled.unread.iter().copied().filter(|at| !seen.contents.contains_key(at));
            let unread: Vec<usize> = unread.collect();
            if unread.is_empty() {
                break recalled;
            }
            // It may have changed meanwhile, and with it what is remembered.
            self.read(task, endpoint, prepared, &unread, &mut seen).await?;
        };
        let now = task.request.as_of.unwrap_or_else(Timestamp::now);
        if recalled.is_complete() {
            let decided = DecidedTests::default();
            let decisions = prepared.memo().conclude(&prepared.compiled, &seen.view, recalled, decided, &rules, now);
            return Ok((seen, decisions));
        }
        let prepared = Arc::clone(prepared);
        let decided = tokio::task::spawn_blocking(move || {
            let contents = std::mem::take(&mut seen.contents);
            let decided = recalled.decide(&prepared.compiled, &seen.view, contents, now);
            let decisions = prepared.memo().conclude(&prepared.compiled, &seen.view, recalled, decided, &rules, now);
            (seen, decisions)
        });
        decided.await.map_err(|_| failed_badly())
    }

    /// What is known of these objects, which are all or in the order of their positions; by its hash where the repository
    /// says that.
    async fn seen(
        &self,
        task: &Task,
        endpoint: EndpointId,
        prepared: &Prepared,
        positions: &[usize],
    ) -> Result<Seen, Fault> {
        let request = &task.request;
        let count = prepared.objects().len();
        let mut seen = Seen::nothing(prepared, request.collected_since);
        let (mut at, mut knowledge) = (0, None);
        // That it is everything which the policy reads need not be spelled out, where both mean the same by it.
        let mut is_everything = positions.len() == count;
        while at < positions.len() {
            let rest = &positions[at..];
            let named = if is_everything { &[] } else { &rest[..rest.len().min(QUERY_OBJECTS)] };
            let objects: Vec<ObjectKey> = named.iter().map(|at| prepared.objects()[*at].clone()).collect();
            let asked_hash = (!is_everything).then(|| Brief::hash_of(&objects));
            let question = QueryRequest {
                request: Some(request.request),
                endpoint,
                objects,
                as_of: request.as_of,
                is_brief: true,
                others: Vec::new(),
            };
            let page: QueryResponse = self.repositories.ask(request, &question, Context::of(task.transaction)).await?;
            let is_meant = |brief: &Brief| brief.objects == *asked_hash.as_ref().unwrap_or(&prepared.objects_hash);
            let Some(brief) = page.brief.filter(|brief| is_meant(brief) && !brief.known.is_empty()) else {
                if std::mem::take(&mut is_everything) {
                    continue;
                }
                // A repository of before answers in full.
                self.read(task, endpoint, prepared, rest, &mut seen).await?;
                return Ok(seen);
            };
            let Brief { contents, times, reports, known, knowledge: of_page, .. } = brief;
            // It may have changed from one page to the next.
            knowledge = if at == 0 { of_page } else { knowledge.filter(|known| Some(known) == of_page.as_ref()) };
            at += known.len();
            let listed = Listed::of(prepared, &contents, times, reports);
            seen.take(rest.iter().copied(), &listed, known).ok_or_else(wrong)?;
        }
        seen.knowledge = knowledge;
        Ok(seen)
    }

    /// What is known of these objects of the first of these endpoints, by its hash; `None` where a repository does not say that of
    /// many.
    pub(crate) async fn seen_of_many(
        &self,
        task: &Task,
        endpoints: &[EndpointId],
        prepared: &Prepared,
        positions: &[usize],
    ) -> Result<Option<Vec<Seen>>, Fault> {
        let request = &task.request;
        let is_everything = positions.len() == prepared.objects().len();
        let named = if is_everything { &[] } else { positions };
        let objects: Vec<ObjectKey> = named.iter().map(|at| prepared.objects()[*at].clone()).collect();
        let asked_hash = if is_everything { prepared.objects_hash.clone() } else { Brief::hash_of(&objects) };
        let [endpoint, others @ ..] = endpoints else { return Ok(Some(Vec::new())) };
        let question = QueryRequest {
            request: Some(request.request),
            endpoint: *endpoint,
            objects,
            as_of: request.as_of,
            is_brief: true,
            others: others.to_vec(),
        };
        let page: QueryResponse = self.repositories.ask(request, &question, Context::of(task.transaction)).await?;
        let is_meant = |briefs: &Briefs| briefs.objects == asked_hash && !briefs.endpoints.is_empty();
        let Some(briefs) = page.briefs.filter(is_meant) else { return Ok(None) };
        let Briefs { contents, times, reports, endpoints: known, knowledge, .. } = briefs;
        let listed = Listed::of(prepared, &contents, times, reports);
        let knowledge = knowledge.into_iter().chain(std::iter::repeat(None));
        let seen = known.into_iter().take(endpoints.len()).zip(knowledge).map(|(known, knowledge)| {
            let mut seen = Seen::nothing(prepared, request.collected_since);
            seen.knowledge = knowledge;
            seen.take(positions.iter().copied(), &listed, known).ok_or_else(wrong).map(|()| seen)
        });
        seen.collect::<Result<_, _>>().map(Some)
    }

    /// Reads what was found of these objects.
    async fn read(
        &self,
        task: &Task,
        endpoint: EndpointId,
        prepared: &Prepared,
        positions: &[usize],
        seen: &mut Seen,
    ) -> Result<(), Fault> {
        let request = &task.request;
        let mut at = 0;
        while at < positions.len() {
            let some = &positions[at..positions.len().min(at + QUERY_OBJECTS)];
            let objects = some.iter().map(|position| prepared.objects()[*position].clone()).collect();
            let question = QueryRequest {
                request: Some(request.request),
                endpoint,
                objects,
                as_of: request.as_of,
                is_brief: false,
                others: Vec::new(),
            };
            let page: QueryResponse = self.repositories.ask(request, &question, Context::of(task.transaction)).await?;
            let answered = usize::try_from(page.answered).unwrap_or(usize::MAX).min(some.len());
            if answered == 0 {
                return Err(silent());
            }
            for position in &some[..answered] {
                seen.set(*position, None, None);
                seen.contents.remove(position);
            }
            at += answered;
            let mut memo = prepared.memo();
            for row in page.rows {
                let Some(position) = prepared.position(&row.object) else { continue };
                let items =
                    row.items.iter().filter_map(|position| page.items.get(*position as usize).cloned()).collect();
                let content = match &row.content {
                    Some(hash) => memo.content(hash),
                    None => memo.content_of_its_own(),
                };
                seen.set(position, Some((content, row.collected)), row.report.map(Arc::new));
                seen.contents.insert(position, Collected { flag: row.flag, items, messages: row.messages });
            }
        }
        Ok(())
    }
}
