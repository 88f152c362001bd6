//! Questions about posture, and the labels that rest on them: what has to be looked at is collected, then the repository
//! searches.

use std::collections::BTreeSet;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use oval::condition::Matcher;
use oval::question;
use proto::budget::Budget;
use proto::content::ContentRef;
use proto::fault::{Fault, FaultCode};
use proto::id::{EndpointId, TransactionId};
use proto::limits::shown;
use proto::message::{
    AttributeChange, OnStale, SearchContent, SearchOutcome, SearchRequest, SearchResponse, SearchRow, SearchedEndpoint,
};
use proto::observation::Flag;
use proto::operator::{LabelDefinition, LabelView, OperatorEvent, Question};
use proto::plan::ObjectKey;
use proto::query::{ENDPOINT_KIND, PostureQuery};
use scap::policy::deflate;
use service::audit::{Act, Actor};
use service::report::Chain;

use crate::control::{Answers, ask_repository, until_settled};
use crate::core::label::{Found, LabelWork, endpoint_item};
use crate::core::workflow::{Plan, Targets};
use crate::driver::Handle;
use crate::policies::is_name;

/// Endpoints in one question to the repository, and on one page of the roster.
const SEARCH_ENDPOINTS: usize = 2_000;
/// Characters of a question that stand for it where transactions are listed.
const NAME_CHARS_MAX: usize = 120;
/// Seconds that collectors have to look for what a label's question is about.
const LABEL_SECONDS: i64 = 120;
/// After how long what the collectors have answered is first searched, and after how long for the last time.
const LABEL_PATIENCE_MIN: Duration = Duration::from_secs(2);
const LABEL_PATIENCE: Duration = Duration::from_secs(64);

fn malformed(error: impl std::fmt::Display) -> Fault {
    Fault::new(FaultCode::Malformed, error.to_string())
}

fn checked(query: &PostureQuery) -> Result<(), Fault> {
    query.check().map_err(malformed)?;
    question::check(query).map_err(malformed)
}

/// A condition on changes: what an item was, or what it is.
pub(crate) struct ChangeFilter {
    kind: String,
    matcher: Matcher,
}

impl ChangeFilter {
    pub(crate) fn new(query: &PostureQuery) -> Result<Self, Fault> {
        checked(query)?;
        let matcher = Matcher::new(query.condition.as_ref()).map_err(malformed)?;
        Ok(Self { kind: query.kind.clone(), matcher })
    }

    /// Whether an item that came, went, or is otherwise now is one of those.
    pub(crate) fn is_meant(&self, change: &AttributeChange) -> bool {
        let past = change.past.iter().flat_map(|past| &past.items);
        let mut items = past.chain(&change.current.items);
        items.any(|item| item.kind == self.kind && self.matcher.holds(item) == Some(true))
    }
}

impl Handle {
    /// Answers an operator's question, a page at a time.
    pub(crate) async fn answer_question(
        &self,
        actor: Actor,
        question: &Question,
        answers: &mut Answers,
    ) -> std::io::Result<Result<(), Fault>> {
        let targets = match self.prepare_question(question).await {
            Ok(targets) => targets,
            Err(fault) => return Ok(Err(fault)),
        };
        let undecided: usize = targets.iter().map(|targets| targets.undecided.len()).sum();
        let endpoints: Vec<EndpointId> = targets.iter().flat_map(|targets| targets.endpoints.clone()).collect();
        if undecided > 0 {
            let text = format!("{undecided} endpoints are left out: it is not known whether a label means them");
            answers.send(&OperatorEvent::Notice(text)).await?;
        }
        if question.query.kind == ENDPOINT_KIND {
            for page in self.search_roster(question, &endpoints).await {
                answers.send(&OperatorEvent::Found(Box::new(page))).await?;
            }
            return Ok(Ok(()));
        }
        let now = Timestamp::now();
        // What decides where there is nothing; where nobody could look for it, nothing does.
        let decides = question::plan_of(&question.query).map(|(_, objects)| objects).unwrap_or_default();
        let mut objects = Vec::new();
        if question.is_collected {
            let mut watched = self.inner.watchers.subscribe();
            let id = match self.collect_for(actor, question, &endpoints).await {
                Ok(begun) => begun,
                Err(fault) => return Ok(Err(fault)),
            };
            match until_settled(self, id, &mut watched, answers, &mut BTreeSet::new()).await? {
                Ok(view) => answers.send(&OperatorEvent::Ended(view)).await?,
                Err(fault) => return Ok(Err(fault)),
            }
            objects.clone_from(&decides);
        }
        let request = SearchRequest {
            query: question.query.clone(),
            objects,
            decides,
            endpoints: Vec::new(),
            as_of: question.as_of,
            collected_since: question.max_age_seconds.map(|age| before(question.as_of.unwrap_or(now), age)),
            on_stale: question.on_stale,
            content: question.content,
            after: None,
        };
        let mut search = Search::new(request, endpoints);
        loop {
            match search.next(self).await {
                Ok(Some(page)) => answers.send(&OperatorEvent::Found(Box::new(page))).await?,
                Ok(None) => return Ok(Ok(())),
                Err(fault) => return Ok(Err(fault)),
            }
        }
    }

    /// The endpoints that a question is about.
    async fn prepare_question(&self, question: &Question) -> Result<Vec<Targets>, Fault> {
        checked(&question.query)?;
        if question.as_of.is_some_and(|as_of| as_of > Timestamp::now()) {
            return Err(malformed("nothing is known of a time that has not come yet"));
        }
        if question.is_collected && question.as_of.is_some() {
            return Err(malformed("what was known at a time in the past cannot be collected any more"));
        }
        if question.query.kind == ENDPOINT_KIND && (question.as_of.is_some() || question.is_collected) {
            return Err(malformed("endpoints are those that are on the roster now"));
        }
        self.inner.core.lock().await.targets(&question.targets, &question.excluded)
    }

    /// The roster as an answer.
    async fn search_roster(&self, question: &Question, endpoints: &[EndpointId]) -> Vec<SearchResponse> {
        let Ok(matcher) = Matcher::new(question.query.condition.as_ref()) else { return Vec::new() };
        let meant: BTreeSet<&EndpointId> = endpoints.iter().collect();
        let now = Timestamp::now();
        let core = self.inner.core.lock().await;
        let mut page = SearchResponse::default();
        let mut pages = Vec::new();
        for (component, entry) in core.endpoints().filter(|(_, entry)| meant.contains(&entry.endpoint)) {
            let item = endpoint_item(component, entry);
            let outcome = match matcher.holds(&item) {
                Some(true) => SearchOutcome::Matched,
                Some(false) => SearchOutcome::Unmatched,
                None => SearchOutcome::Unknown,
            };
            let matched = u64::from(outcome == SearchOutcome::Matched);
            page.endpoints.push(SearchedEndpoint { endpoint: entry.endpoint, matched, outcome });
            if matched == 1 && question.content != SearchContent::Count {
                let items = match question.content {
                    SearchContent::Data => vec![u32::try_from(page.items.len()).unwrap_or(u32::MAX)],
                    _ => Vec::new(),
                };
                if question.content == SearchContent::Data {
                    page.items.push(item);
                }
                let heard = component.heard.unwrap_or(now);
                page.rows.push(SearchRow {
                    endpoint: entry.endpoint,
                    object: None,
                    origin: Some(component.id),
                    flag: Flag::Complete,
                    collected: heard,
                    since: heard,
                    is_stale: false,
                    matched,
                    items,
                });
            }
            if page.endpoints.len() == SEARCH_ENDPOINTS {
                pages.push(std::mem::take(&mut page));
            }
        }
        pages.push(page);
        pages
    }

    /// Has collectors look for what an operator's question is about.
    async fn collect_for(
        &self,
        actor: Actor,
        question: &Question,
        endpoints: &[EndpointId],
    ) -> Result<TransactionId, Fault> {
        let (content, _) = self.question_plan(&question.query).await?;
        let plan = Plan {
            targets: question.targets.clone(),
            excluded: question.excluded.clone(),
            timeout_seconds: i64::try_from(question.timeout_seconds).unwrap_or(i64::MAX),
            max_age_seconds: question.max_age_seconds.map(|age| i64::try_from(age).unwrap_or(i64::MAX)),
            budget: question.budget,
            ..of_question(&format!("({})", cut(&question.query.to_string())), content)
        };
        self.begin_about(actor, "query", plan, endpoints).await
    }

    /// The collection plan of a question, ready to be pulled.
    async fn question_plan(&self, query: &PostureQuery) -> Result<(ContentRef, Vec<ObjectKey>), Fault> {
        let (plan, objects) = question::plan_of(query).map_err(malformed)?;
        let bytes = deflate(&plan.to_bytes());
        let content = ContentRef::to(&bytes);
        self.keep_content(bytes).await?;
        Ok((content, objects))
    }

    /// Gives endpoints a name.
    pub(crate) async fn set_label(&self, actor: Actor, definition: LabelDefinition) -> Result<LabelView, Fault> {
        if !is_name(&definition.name) {
            return Err(malformed("a label is up to 64 letters, digits, dots, dashes and underscores"));
        }
        if let Some(query) = &definition.query {
            checked(query)?;
            if query.kind != ENDPOINT_KIND {
                // It has to be something that collectors can look at.
                question::plan_of(query).map_err(malformed)?;
            }
        }
        let mut core = self.inner.core.lock().await;
        let because = definition.query.as_ref().map_or_else(|| definition.members.join(", "), ToString::to_string);
        let act = Act::new(actor, "set-label", &definition.name).because(shown(&because));
        let before = core.labels.get(&definition.name).cloned();
        let label = core.set_label(definition)?;
        if let Err(error) = self.inner.store.put_label(&label, Some(&act)).await {
            match before {
                Some(before) => core.labels.insert(label.definition.name.clone(), before),
                None => core.labels.remove(&label.definition.name),
            };
            return Err(error.into());
        }
        Ok(core.label_view(&label))
    }

    /// Takes a name away.
    pub(crate) async fn remove_label(&self, actor: Actor, name: &str) -> Result<(), Fault> {
        let mut core = self.inner.core.lock().await;
        let removed = core.remove_label(name)?;
        if let Err(error) = self.inner.store.remove_label(name, &Act::new(actor, "remove-label", name)).await {
            core.labels.insert(name.to_owned(), removed);
            return Err(error.into());
        }
        Ok(())
    }

    /// Which there are.
    pub(crate) async fn labels(&self) -> Vec<LabelView> {
        self.inner.core.lock().await.label_views()
    }

    /// Does what is due for labels.
    pub(crate) async fn mind_labels(&self) {
        let due = self.inner.core.lock().await.labels_due(Timestamp::now());
        for (name, work) in due {
            let handle = self.clone();
            tokio::spawn(async move {
                let searched = handle.search_label(&name, work).await;
                if let Err(fault) = &searched {
                    tracing::warn!(%fault, "what the label `{name}` means could not be found out; it is tried again");
                    // Not at every tick.
                    tokio::time::sleep(Duration::from_secs(10)).await;
                }
                if let Some(label) = handle.inner.core.lock().await.labels.get_mut(&name) {
                    label.is_busy = false;
                }
            });
        }
    }

    async fn search_label(&self, name: &str, work: LabelWork) -> Result<(), Fault> {
        let (query, every_seconds) = {
            let core = self.inner.core.lock().await;
            let Some(label) = core.labels.get(name) else { return Ok(()) };
            let Some(query) = label.question().cloned() else { return Ok(()) };
            (query, label.definition.every_seconds)
        };
        let (content, objects) = self.question_plan(&query).await?;
        let LabelWork::Collect(endpoints) = work else {
            return self.find_labelled(name, &query, &objects).await;
        };
        let plan = Plan {
            is_assigned: true,
            targets: endpoints.iter().map(ToString::to_string).collect(),
            timeout_seconds: LABEL_SECONDS,
            // Whoever is away answers when it comes back, until everybody is asked anew.
            expires_seconds: i64::try_from(every_seconds).unwrap_or(i64::MAX),
            ..of_question(&format!("(label {name})"), content)
        };
        let begun = match self.begin(Actor::Orchestrator, "query", plan).await {
            Ok(begun) => begun,
            Err(fault) => {
                self.inner.core.lock().await.label_not_asked(name, &endpoints);
                return Err(fault);
            }
        };
        self.keep_label(name).await;
        // Whoever is silent keeps nobody waiting: what has come in by then counts.
        let mut patience = LABEL_PATIENCE_MIN;
        loop {
            let waited = tokio::time::timeout(patience, self.wait(begun, false)).await;
            self.find_labelled(name, &query, &objects).await?;
            if waited.is_ok() || patience > LABEL_PATIENCE {
                return Ok(());
            }
            patience *= 2;
        }
    }

    /// Searches what is stored for the endpoints that a label means.
    async fn find_labelled(&self, name: &str, query: &PostureQuery, objects: &[ObjectKey]) -> Result<(), Fault> {
        let (endpoints, age) = {
            let core = self.inner.core.lock().await;
            let Some(label) = core.labels.get(name) else { return Ok(()) };
            let endpoints: Vec<EndpointId> = core.endpoints().map(|(_, entry)| entry.endpoint).collect();
            (endpoints, label.definition.max_age_seconds)
        };
        let mut found = Found { searched: Some(Timestamp::now()), ..Found::default() };
        let request = SearchRequest {
            query: query.clone(),
            objects: objects.to_vec(),
            decides: objects.to_vec(),
            endpoints: Vec::new(),
            as_of: None,
            collected_since: age.map(|age| before(Timestamp::now(), age)),
            on_stale: OnStale::Mark,
            content: SearchContent::Count,
            after: None,
        };
        let mut search = Search::new(request, endpoints);
        while let Some(page) = search.next(self).await? {
            for one in page.endpoints {
                match one.outcome {
                    SearchOutcome::Matched => found.matched.insert(one.endpoint),
                    SearchOutcome::Unmatched => found.unmatched.insert(one.endpoint),
                    SearchOutcome::Unknown => false,
                };
            }
        }
        let mut core = self.inner.core.lock().await;
        // It may have been set otherwise meanwhile.
        let Some(label) = core.labels.get_mut(name).filter(|label| label.question() == Some(query)) else {
            return Ok(());
        };
        label.found = found;
        drop(core);
        self.keep_label(name).await;
        Ok(())
    }

    async fn keep_label(&self, name: &str) {
        let core = self.inner.core.lock().await;
        let Some(label) = core.labels.get(name) else { return };
        if let Err(error) = self.inner.store.put_label(label, None).await {
            tracing::error!(error = %Chain(&error), "a label");
        }
    }
}

/// A search that goes on, page by page, until it has asked about every endpoint.
struct Search {
    request: SearchRequest,
    endpoints: std::vec::IntoIter<EndpointId>,
}

impl Search {
    fn new(request: SearchRequest, endpoints: Vec<EndpointId>) -> Self {
        Self { request, endpoints: endpoints.into_iter() }
    }

    async fn next(&mut self, handle: &Handle) -> Result<Option<SearchResponse>, Fault> {
        if self.request.after.is_none() {
            self.request.endpoints = self.endpoints.by_ref().take(SEARCH_ENDPOINTS).collect();
            if self.request.endpoints.is_empty() {
                return Ok(None);
            }
        }
        let page: SearchResponse = ask_repository(handle, &self.request).await?;
        self.request.after.clone_from(&page.next);
        Ok(Some(page))
    }
}

/// So many seconds before a time.
fn before(time: Timestamp, seconds: u64) -> Timestamp {
    let age = SignedDuration::from_secs(i64::try_from(seconds).unwrap_or(i64::MAX));
    time.saturating_sub(age).unwrap_or(Timestamp::MIN)
}

/// A question as the name of a transaction.
fn cut(question: &str) -> String {
    let mut cut: String = question.chars().take(NAME_CHARS_MAX).collect();
    if cut.len() < question.len() {
        cut.push('…');
    }
    shown(&cut)
}

/// What a question has collectors look at.
pub(crate) fn of_question(name: &str, content: ContentRef) -> Plan {
    Plan {
        is_evaluation: false,
        is_stored_only: false,
        is_broadcast: false,
        policy: name.to_owned(),
        policy_content: content.clone(),
        collection_plan: content,
        profile: None,
        targets: Vec::new(),
        excluded: Vec::new(),
        timeout_seconds: 0,
        expires_seconds: 0,
        as_of: None,
        max_age_seconds: None,
        changed: Vec::new(),
        is_assigned: false,
        budget: Budget::default(),
    }
}
