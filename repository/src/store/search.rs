//! Questions over all endpoints, for whichever back end includes this file. Identical items are one item: a condition is held
//! against each of them once, however many endpoints have it.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use jiff::Timestamp;
use oval::condition::Matcher;
use proto::limits::SERVICE_PAYLOAD_BYTES_MAX;
use proto::message::{
    OnStale, SearchContent, SearchOutcome, SearchRequest, SearchResponse, SearchRow, SearchedEndpoint,
};
use proto::observation::{Flag, Item, ItemEntity};
use proto::plan::ObjectKey;
use proto::query::{ComparisonOperator, Condition, VERDICT_KIND};
use proto::verdict::RuleResult;
use sqlx::Row as _;

use super::super::super::{StoreError, endpoint_text, id, time, unjson, unlabel};
use super::super::Database;
use super::SqlStore;
use super::observations::collected_by;
use super::statement::places;

type Row = <Database as sqlx::Database>::Row;

/// Endpoints that are looked up at a time.
const BATCH: usize = 100;
/// Endpoints that one page is about, at most.
const PAGE_ENDPOINTS_MAX: usize = 2_000;
/// A page ends behind the endpoint that fills it to this.
const PAGE_BYTES: usize = SERVICE_PAYLOAD_BYTES_MAX / 3;
/// What of one endpoint does not fit into the page any more is counted only.
const PAGE_BYTES_MAX: usize = SERVICE_PAYLOAD_BYTES_MAX * 3 / 4;
/// Different items whose answer is remembered within a page.
const ITEMS_KEPT_MAX: usize = 50_000;

/// One observation or verdict, before its items are held against the condition.
struct Found {
    object: Option<String>,
    origin: Option<String>,
    flag: Flag,
    collected: i64,
    since: i64,
    /// Hashes of items, or keys of what stands for them.
    items: Vec<String>,
}

/// What the condition says of an item, and the item where it holds.
struct Answered {
    holds: Option<bool>,
    item: Option<Item>,
    bytes: usize,
}

/// A page in the making.
struct Page<'request> {
    request: &'request SearchRequest,
    response: SearchResponse,
    positions: HashMap<String, u32>,
    bytes: usize,
}

impl SqlStore {
    pub(super) async fn search_page(
        &self,
        request: &SearchRequest,
        matcher: &Matcher,
    ) -> Result<SearchResponse, StoreError> {
        let aliases = self.aliases().await?;
        let mut merged: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for (endpoint, of) in &aliases {
            merged.entry(of).or_default().push(endpoint);
        }
        let meant = self.meant(request, &aliases).await?;
        let mut page = Page { request, response: SearchResponse::default(), positions: HashMap::new(), bytes: 0 };
        let mut answered: HashMap<String, Answered> = HashMap::new();
        let mut done = 0;
        for some in meant.chunks(BATCH) {
            let mut names: Vec<&str> = Vec::new();
            let mut of: HashMap<&str, &str> = HashMap::new();
            for endpoint in some {
                for name in merged.get(endpoint.as_str()).into_iter().flatten().copied().chain([endpoint.as_str()]) {
                    names.push(name);
                    of.insert(name, endpoint);
                }
            }
            let mut found: BTreeMap<&str, Vec<Found>> = BTreeMap::new();
            if request.query.kind == VERDICT_KIND {
                self.verdicts_of(request, matcher, &names, &of, &mut found, &mut answered).await?;
            } else {
                for (endpoint, one) in self.observations_of(request, &names, &of).await? {
                    found.entry(endpoint).or_default().push(one);
                }
                self.answer_items(matcher, &found, &mut answered).await?;
            }
            for endpoint in some {
                done += 1;
                if let Some(found) = found.get(endpoint.as_str()) {
                    page.add(endpoint, found, &answered)?;
                }
                let is_full = page.bytes > PAGE_BYTES || done >= PAGE_ENDPOINTS_MAX;
                if is_full && done < meant.len() {
                    page.response.next = Some(endpoint.clone());
                    return Ok(page.response);
                }
            }
            if answered.len() > ITEMS_KEPT_MAX {
                answered.clear();
            }
        }
        Ok(page.response)
    }

    /// The endpoints that the rest of the answer is about, those that were merged left out.
    async fn meant(
        &self,
        request: &SearchRequest,
        aliases: &BTreeMap<String, String>,
    ) -> Result<Vec<String>, StoreError> {
        let mut meant: BTreeSet<String> = if request.endpoints.is_empty() {
            let rows = sqlx::query("SELECT endpoint FROM endpoint UNION SELECT alias_of FROM endpoint_alias");
            let rows = rows.fetch_all(&self.readers).await?;
            let names: BTreeSet<String> = rows.iter().map(|row| row.try_get(0)).collect::<Result<_, _>>()?;
            names.into_iter().filter(|endpoint| !aliases.contains_key(endpoint)).collect()
        } else {
            request.endpoints.iter().map(|endpoint| endpoint_text(*endpoint)).collect()
        };
        if let Some(after) = &request.after {
            meant = meant.split_off(after);
            meant.remove(after);
        }
        Ok(meant.into_iter().collect())
    }

    /// Of each endpoint and object the observation that was made last, whoever made it.
    async fn observations_of<'names>(
        &self,
        request: &SearchRequest,
        names: &[&str],
        of: &HashMap<&str, &'names str>,
    ) -> Result<Vec<(&'names str, Found)>, StoreError> {
        let held = held(request, 1);
        let endpoints = places(2, names.len());
        let from = 2 + names.len();
        let objects = if request.objects.is_empty() {
            format!("(SELECT object FROM object_kind WHERE kind = ${from})")
        } else {
            format!("({})", places(from, request.objects.len()))
        };
        let sql = format!(
            "SELECT endpoint, object, origin, flag, items, valid_from, last_seen FROM observation \
             WHERE {held} AND endpoint IN ({endpoints}) AND object IN {objects} ORDER BY last_seen DESC, id DESC"
        );
        let as_of = request.as_of.unwrap_or(Timestamp::MAX).as_microsecond();
        let mut query = sqlx::query(sqlx::AssertSqlSafe(sql)).bind(as_of);
        for name in names {
            query = query.bind(*name);
        }
        if request.objects.is_empty() {
            query = query.bind(&request.query.kind);
        }
        for object in &request.objects {
            query = query.bind(&object.0);
        }
        let mut seen = BTreeSet::new();
        let mut found = Vec::new();
        for row in query.fetch_all(&self.readers).await? {
            let name: String = row.try_get("endpoint")?;
            let Some(endpoint) = of.get(name.as_str()).copied() else { continue };
            let object: String = row.try_get("object")?;
            if seen.insert((endpoint, object.clone())) {
                found.push((endpoint, found_in(&row, object, as_of)?));
            }
        }
        found.sort_by(|(_, one), (_, other)| one.object.cmp(&other.object));
        Ok(found)
    }

    /// Holds the condition against the items that it was not held against before.
    async fn answer_items(
        &self,
        matcher: &Matcher,
        found: &BTreeMap<&str, Vec<Found>>,
        answered: &mut HashMap<String, Answered>,
    ) -> Result<(), StoreError> {
        let hashes: BTreeSet<&String> = found.values().flatten().flat_map(|found| &found.items).collect();
        let hashes: Vec<&String> = hashes.into_iter().filter(|hash| !answered.contains_key(*hash)).collect();
        for (hash, content) in self.items(&hashes).await? {
            let item: Item = unjson(&content)?;
            let holds = matcher.holds(&item);
            let item = (holds == Some(true)).then_some(item);
            answered.insert(hash, Answered { holds, item, bytes: content.len() });
        }
        Ok(())
    }

    /// The verdicts that hold, each as an item.
    async fn verdicts_of<'names>(
        &self,
        request: &SearchRequest,
        matcher: &Matcher,
        names: &[&str],
        of: &HashMap<&str, &'names str>,
        found: &mut BTreeMap<&'names str, Vec<Found>>,
        answered: &mut HashMap<String, Answered>,
    ) -> Result<(), StoreError> {
        // What is asked of these in any case need not be read.
        let pinned: Vec<(&str, &str)> = request.query.conjuncts().iter().filter_map(pinned).collect();
        let numbered = pinned.iter().zip(2 + names.len()..);
        let pins: Vec<String> = numbered.map(|((column, _), number)| format!(" AND {column} = ${number}")).collect();
        let sql = format!(
            "SELECT endpoint, policy, profile, rule, verdict, result, since, decided FROM verdict \
             WHERE {} AND endpoint IN ({}){pins} ORDER BY policy, profile, position, rule",
            held(request, 1),
            places(2, names.len()),
            pins = pins.concat()
        );
        let as_of = request.as_of.unwrap_or(Timestamp::MAX).as_microsecond();
        let mut query = sqlx::query(sqlx::AssertSqlSafe(sql)).bind(as_of);
        for name in names {
            query = query.bind(*name);
        }
        for (_, value) in &pinned {
            query = query.bind(*value);
        }
        let is_deep = request.query.fields().iter().any(|field| matches!(*field, "severity" | "title"));
        for row in query.fetch_all(&self.readers).await? {
            let name: String = row.try_get("endpoint")?;
            let Some(endpoint) = of.get(name.as_str()).copied() else { continue };
            let mut item = verdict_item(&row, is_deep)?;
            let holds = matcher.holds(&item);
            if holds == Some(true) && !is_deep {
                item = verdict_item(&row, true)?;
            }
            let (policy, rule): (String, String) = (row.try_get("policy")?, row.try_get("rule")?);
            let key = format!("{name} {policy} {} {rule}", row.try_get::<String, _>("profile")?);
            found.entry(endpoint).or_default().push(Found {
                object: None,
                origin: None,
                flag: Flag::Complete,
                collected: row.try_get("decided")?,
                since: row.try_get("since")?,
                items: vec![key.clone()],
            });
            let item = (holds == Some(true)).then_some(item);
            answered.insert(key, Answered { holds, item, bytes: 400 });
        }
        Ok(())
    }
}

/// Which rows held at the time that a parameter names; that they hold now needs none, and has one.
fn held(request: &SearchRequest, at: usize) -> String {
    match request.as_of {
        None => format!("valid_to IS NULL AND valid_from <= ${at}"),
        Some(_) => format!("valid_from <= ${at} AND (valid_to IS NULL OR valid_to > ${at})"),
    }
}

/// A column of `verdict` that has to have one value.
fn pinned(condition: &Condition) -> Option<(&str, &str)> {
    let Condition::Compare(comparison) = condition else { return None };
    let column = ["policy", "rule", "profile"].into_iter().find(|column| *column == comparison.field)?;
    let value = comparison.values.first().filter(|_| comparison.operator == ComparisonOperator::Equal)?;
    Some((column, value))
}

fn found_in(row: &Row, object: String, as_of: i64) -> Result<Found, StoreError> {
    Ok(Found {
        object: Some(object),
        origin: Some(row.try_get("origin")?),
        flag: unlabel(row.try_get("flag")?)?,
        collected: collected_by(row, as_of)?,
        since: row.try_get("valid_from")?,
        items: unjson(row.try_get("items")?)?,
    })
}

/// A verdict as an item; `is_deep`: with what has to be read out of the result.
fn verdict_item(row: &Row, is_deep: bool) -> Result<Item, StoreError> {
    let text = |column: &str| -> Result<ItemEntity, StoreError> {
        Ok(ItemEntity::text(column, row.try_get::<String, _>(column)?))
    };
    let since = ItemEntity::text("since", format!("{:.0}", time(row.try_get("since")?)?));
    let mut entities = vec![text("policy")?, text("profile")?, text("rule")?, text("verdict")?, since];
    if is_deep {
        let result: RuleResult = unjson(row.try_get("result")?)?;
        entities.push(ItemEntity::text("severity", result.severity.to_string()));
        entities.push(ItemEntity::text("title", result.title));
    }
    Ok(Item::new(VERDICT_KIND, entities))
}

impl Page<'_> {
    /// What came of one endpoint.
    fn add(&mut self, endpoint: &str, found: &[Found], answered: &HashMap<String, Answered>) -> Result<(), StoreError> {
        let endpoint = id(endpoint)?;
        let since = self.request.collected_since.map_or(i64::MIN, Timestamp::as_microsecond);
        let mut counted: BTreeSet<&str> = BTreeSet::new();
        let (mut is_matched, mut is_unknown) = (false, false);
        let mut without: BTreeSet<&str> = BTreeSet::new();
        for one in found {
            let is_stale = one.collected < since;
            if is_stale && self.request.on_stale == OnStale::Omit {
                is_unknown = true;
                continue;
            }
            let (mut matching, mut is_undecided) = (Vec::new(), false);
            for hash in &one.items {
                let answer = answered.get(hash);
                let answer = answer.ok_or_else(|| StoreError::Damaged(format!("the item {hash} is not there")))?;
                match answer.holds {
                    Some(true) => matching.push((hash, answer)),
                    Some(false) => {}
                    None => is_undecided = true,
                }
            }
            match (is_stale, matching.is_empty()) {
                (false, false) => is_matched = true,
                (false, true) if !is_undecided && matches!(one.flag, Flag::Complete | Flag::DoesNotExist) => {
                    without.insert(one.object.as_deref().unwrap_or_default());
                }
                _ => is_unknown = true,
            }
            // What another object has found as well is the same item.
            matching.retain(|(hash, _)| counted.insert(hash));
            if !matching.is_empty() && self.request.content != SearchContent::Count {
                self.add_row(endpoint, one, is_stale, &matching)?;
            }
        }
        // That what somebody else has looked for is not it says nothing. Verdicts are all there.
        let decides = &self.request.decides;
        let is_nowhere = if self.request.query.kind == VERDICT_KIND {
            !without.is_empty() && !is_unknown
        } else {
            !decides.is_empty() && decides.iter().all(|object| without.contains(object.0.as_str()))
        };
        let outcome = match (is_matched, is_nowhere) {
            (true, _) => SearchOutcome::Matched,
            (false, true) => SearchOutcome::Unmatched,
            (false, false) => SearchOutcome::Unknown,
        };
        self.bytes += 100;
        self.response.endpoints.push(SearchedEndpoint { endpoint, matched: counted.len() as u64, outcome });
        Ok(())
    }

    fn add_row(
        &mut self,
        endpoint: proto::id::EndpointId,
        found: &Found,
        is_stale: bool,
        matching: &[(&String, &Answered)],
    ) -> Result<(), StoreError> {
        let mut items = Vec::new();
        self.bytes += 300;
        if self.bytes > PAGE_BYTES_MAX {
            return Ok(());
        }
        if self.request.content == SearchContent::Data {
            for (hash, answer) in matching {
                let Some(item) = &answer.item else { continue };
                let position = if let Some(position) = self.positions.get(*hash) {
                    *position
                } else {
                    self.bytes += answer.bytes;
                    if self.bytes > PAGE_BYTES_MAX {
                        break;
                    }
                    let position = u32::try_from(self.response.items.len()).unwrap_or(u32::MAX);
                    self.response.items.push(item.clone());
                    self.positions.insert((*hash).clone(), position);
                    position
                };
                self.bytes += 8;
                items.push(position);
            }
        }
        self.response.rows.push(SearchRow {
            endpoint,
            object: found.object.clone().map(ObjectKey),
            origin: found.origin.as_deref().map(id).transpose()?,
            flag: found.flag,
            collected: time(found.collected)?,
            since: time(found.since)?,
            is_stale,
            matched: matching.len() as u64,
            items,
        });
        Ok(())
    }
}
