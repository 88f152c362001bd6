//! Verdicts, as they are stored: what is as it was is not written again. For whichever back end includes this file.

use std::borrow::Cow;
use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use jiff::Timestamp;
use proto::content::ContentHash;
use proto::message::About;
use proto::verdict::EvaluationSummary;
use sqlx::Row as _;

use super::super::super::{Received, Report, StoreError, endpoint_text, json};
use super::super::{INSERT, UPDATE};
use super::names::ByHash;
use super::overtaken::{self, Placed};
use super::statement::{BATCH, NAMED_MAX, gathered, marks, rows_in, rows_of};
use super::told::{Spoken, Told};
use super::{SqlStore, Tx};

/// A policy of which nothing is said: of versions before it.
const NO_CONTENT: &str = "";

/// A verdict that is current.
struct Current {
    position: i64,
    decided: i64,
    decision: i64,
    content: i64,
    since: i64,
}

/// What a current verdict says.
struct Said {
    verdict: String,
    /// What it came to, where the hash of that is not known.
    result: Option<String>,
}

/// A part of an evaluation with the numbers of its names.
pub(super) struct Prepared<'report> {
    pub(super) told: Told<'report>,
    pub(super) from: Received,
    pub(super) report: &'report Report,
    pub(super) transaction: String,
    pub(super) endpoint: String,
    /// Where it says what holds now.
    numbers: Option<Numbers>,
}

/// The policy's content, the evaluation and the rules, with what they are about, in numbers.
struct Numbers {
    endpoint: i64,
    policy: i64,
    profile: i64,
    content: i64,
    transaction: i64,
    rules: Vec<i64>,
}

/// Verdicts that hold from now on.
struct Held<'round> {
    numbers: &'round Numbers,
    about: &'round About,
    told: &'round Told<'round>,
    evaluated: i64,
}

impl Held<'_> {
    /// Whether these are all verdicts of their policy.
    fn is_whole(&self) -> bool {
        !self.about.is_partial && self.about.part_count <= 1
    }

    /// Whether a verdict that is as it was is not written again. Of a policy's next version it is not either, where all verdicts are
    /// here and those on rules that are gone can be told by that.
    fn goes_on(&self, before: &Current, at: usize) -> bool {
        before.content == self.numbers.content || (self.is_whole() && before.position == self.told.position(at))
    }
}

/// A rule as it was decided now, and as it was.
struct Meant<'round> {
    /// Of which of the evaluations.
    held: usize,
    at: usize,
    rule: i64,
    spoken: &'round Spoken<'round>,
    before: Option<Current>,
}

/// A verdict that holds from now on, as it is stored.
struct Begun {
    held: usize,
    rule: i64,
    position: i64,
    decision: i64,
    since: i64,
}

/// A current verdict, and a time that one of its columns is set to.
struct Set {
    held: usize,
    rule: i64,
    time: i64,
}

impl SqlStore {
    /// Verdicts with their names' numbers.
    pub(super) async fn prepared_verdicts<'report>(
        &self,
        reports: impl Iterator<Item = (Told<'report>, Received, &'report Report)>,
    ) -> Result<Vec<Prepared<'report>>, StoreError> {
        let mut prepared: Vec<Prepared<'report>> = reports
            .map(|(told, from, report)| Prepared {
                from,
                report,
                transaction: from.transaction.to_string(),
                endpoint: endpoint_text(told.endpoint),
                numbers: None,
                told,
            })
            .collect();
        let mut names: Vec<&str> = Vec::new();
        for Prepared { told, transaction, endpoint, .. } in &prepared {
            let Some(about) = told.current() else { continue };
            let content = about.content.as_ref().map_or(NO_CONTENT, ContentHash::as_str);
            names.extend([endpoint.as_str(), &about.policy, &about.profile, content, transaction]);
            names.extend(told.verdicts.iter().map(|spoken| spoken.result.rule.as_str()));
        }
        let mut numbers = self.numbers(&names).await?.into_iter();
        for Prepared { told, numbers: of_it, .. } in &mut prepared {
            if told.current().is_none() {
                continue;
            }
            let [endpoint, policy, profile, content, transaction] =
                std::array::from_fn(|_| numbers.next().unwrap_or_default());
            let rules = numbers.by_ref().take(told.verdicts.len()).collect();
            *of_it = Some(Numbers { endpoint, policy, profile, content, transaction, rules });
        }
        Ok(prepared)
    }

    /// Stores what was decided; of each how many verdicts are new or others.
    pub(super) async fn keep_verdicts(&self, tx: &mut Tx, decided: &[&Prepared<'_>]) -> Result<Vec<u64>, StoreError> {
        let mut counts = vec![0; decided.len()];
        // What is decided of an endpoint comes one after the other.
        let mut waiting: Vec<usize> = (0..decided.len()).collect();
        while !waiting.is_empty() {
            let mut endpoints = HashSet::new();
            let (round, others): (Vec<usize>, Vec<usize>) =
                waiting.into_iter().partition(|at| endpoints.insert(decided[*at].endpoint.as_str()));
            let of_round: Vec<&Prepared<'_>> = round.iter().map(|at| decided[*at]).collect();
            for (at, count) in round.into_iter().zip(self.keep_round(tx, &of_round).await?) {
                counts[at] = count;
            }
            waiting = others;
        }
        Ok(counts)
    }

    /// Parts of evaluations of as many endpoints.
    async fn keep_round(&self, tx: &mut Tx, round: &[&Prepared<'_>]) -> Result<Vec<u64>, StoreError> {
        keep_evidence(tx, round).await?;
        keep_parts(tx, round).await?;
        let placed = overtaken::placed(tx, round).await?;
        let mut counts = vec![0; round.len()];
        let (mut held, mut places) = (Vec::new(), Vec::new());
        for (at, (prepared, Placed { moved, is_current })) in round.iter().zip(&placed).enumerate() {
            let told = &prepared.told;
            match told.current().filter(|_| *is_current).zip(prepared.numbers.as_ref()) {
                Some((about, numbers)) => {
                    let evaluated = moved.unwrap_or(about.evaluated).as_microsecond();
                    held.push(Held { numbers, about, told, evaluated });
                    places.push(at);
                }
                None => counts[at] = keep(tx, prepared).await?,
            }
        }
        for (at, count) in places.iter().zip(self.hold(tx, &held).await?) {
            counts[*at] = count;
        }
        keep_summaries(tx, round, &placed).await?;
        for (at, held) in places.iter().zip(&held).filter(|(_, held)| !held.about.is_partial && !held.is_whole()) {
            end_others(tx, round[*at], held).await?;
        }
        Ok(counts)
    }

    /// Verdicts that hold from now on: of each evaluation how many are new or others.
    async fn hold(&self, tx: &mut Tx, held: &[Held<'_>]) -> Result<Vec<u64>, StoreError> {
        let mut known = current(tx, held).await?;
        let hashes = known.iter().flat_map(HashMap::values).map(|current| current.decision).collect();
        let hashes = self.hashes(&mut *tx, "decision", hashes).await?;
        let (mut others, mut confirmed, mut ended) = (Vec::new(), Vec::new(), Vec::new());
        for (place, (of, known)) in held.iter().zip(&mut known).enumerate() {
            let (numbers, time) = (of.numbers, of.evaluated);
            // A rule that is there twice is decided once.
            let mut seen = HashSet::new();
            for (at, (spoken, rule)) in of.told.verdicts.iter().zip(&numbers.rules).enumerate() {
                if !seen.insert(*rule) {
                    continue;
                }
                let before = known.remove(rule);
                // Decided later, by an evaluation of what has changed.
                if before.as_ref().is_some_and(|before| before.decided > time) {
                    continue;
                }
                let is_same = |before: &Current| {
                    of.goes_on(before, at)
                        && hashes.get(&before.decision).is_some_and(|known| **known == *spoken.hash.as_str())
                };
                if before.as_ref().is_some_and(is_same) {
                    confirmed.push(Set { held: place, rule: *rule, time });
                } else {
                    others.push(Meant { held: place, at, rule: *rule, spoken, before });
                }
            }
            if of.is_whole() {
                // Rules that the policy does not have any more.
                let gone = known.iter().filter(|(_, it)| it.content != numbers.content && it.decided <= time);
                ended.extend(gone.map(|(rule, _)| Set { held: place, rule: *rule, time }));
            }
        }
        let rows = others
            .iter()
            .map(|Meant { spoken, .. }| (spoken.hash.as_str(), [spoken.result.verdict.as_str(), spoken.text.as_str()]));
        let by_hash = ByHash { table: "decision", columns: ["verdict", "result"], rows: rows.collect() };
        let decisions = by_hash.numbers(tx).await?;
        let said = said(tx, &others).await?;
        let (mut counts, mut fresh) = (vec![0; held.len()], Vec::new());
        for Meant { held: place, at, rule, spoken, before } in &others {
            let (of, verdict) = (&held[*place], spoken.result.verdict.as_str());
            let set = || Set { held: *place, rule: *rule, time: of.evaluated };
            let decision = decisions.get(spoken.hash.as_str()).copied();
            let decision = decision.ok_or_else(|| StoreError::Damaged("a decision is not there".to_owned()))?;
            let said = before.as_ref().and_then(|before| said.get(&before.decision));
            let is_same = before.as_ref().is_some_and(|before| before.decision == decision)
                || said.is_some_and(|said| said.result.as_ref() == Some(&spoken.text));
            if is_same && before.as_ref().is_some_and(|before| of.goes_on(before, *at)) {
                confirmed.push(set());
                continue;
            }
            let is_same_verdict = said.is_some_and(|said| said.verdict == verdict);
            counts[*place] += u64::from(!is_same_verdict);
            let since = before.as_ref().filter(|_| is_same_verdict).map_or(of.evaluated, |before| before.since);
            if before.is_some() {
                ended.push(set());
            }
            let position = of.told.position(*at);
            // A part keeps the places of the whole.
            let position = before.as_ref().filter(|_| of.about.is_partial).map_or(position, |before| before.position);
            fresh.push(Begun { held: *place, rule: *rule, position, decision, since });
        }
        confirmed.retain(|set| held[set.held].about.is_partial);
        set(tx, held, "valid_to", &ended).await?;
        set(tx, held, "decided", &confirmed).await?;
        begin(tx, held, &fresh).await?;
        Ok(counts)
    }
}

/// What the verdicts rest on.
async fn keep_evidence(tx: &mut Tx, round: &[&Prepared<'_>]) -> Result<(), StoreError> {
    // Of which endpoint a report is evidence, where the message is about several; of none by itself where that is not one alone.
    let mut evidence: BTreeMap<(&str, &str), Option<&str>> = BTreeMap::new();
    for Prepared { told, report, endpoint, .. } in round.iter().copied() {
        let of = told.is_among_others.then_some(endpoint.as_str());
        for rested in &told.evidence {
            match evidence.entry((report.hash.as_str(), rested.as_str())) {
                Entry::Vacant(vacant) => drop(vacant.insert(of)),
                Entry::Occupied(mut known) if *known.get() != of => drop(known.insert(None)),
                Entry::Occupied(_) => {}
            }
        }
    }
    let evidence: Vec<((&str, &str), Option<&str>)> = evidence.into_iter().collect();
    for some in evidence.chunks(BATCH) {
        let rows = rows_of(some.len(), 3);
        // On which endpoint others of the message said that they rest on it may be stored already.
        let sql = format!(
            "{INSERT} evidence (verdicts, report, endpoint) VALUES {rows} ON CONFLICT (verdicts, report) \
             DO UPDATE SET endpoint = NULL WHERE evidence.endpoint IS DISTINCT FROM excluded.endpoint"
        );
        let mut query = sqlx::query(sqlx::AssertSqlSafe(sql));
        for ((verdicts, report), endpoint) in some {
            query = query.bind(*verdicts).bind(*report).bind(*endpoint);
        }
        query.execute(&mut **tx).await?;
    }
    Ok(())
}

/// The messages that an evaluation comes in.
async fn keep_parts(tx: &mut Tx, round: &[&Prepared<'_>]) -> Result<(), StoreError> {
    for some in round.chunks(BATCH) {
        let sql = format!(
            "{INSERT} evaluation_part (transaction_id, endpoint, part, report) VALUES {} \
             ON CONFLICT (transaction_id, endpoint, part) DO UPDATE SET report = excluded.report",
            rows_of(some.len(), 4)
        );
        let mut query = sqlx::query(sqlx::AssertSqlSafe(sql));
        for Prepared { told, report, transaction, endpoint, .. } in some.iter().copied() {
            query = query
                .bind(transaction.as_str())
                .bind(endpoint.as_str())
                .bind(i64::from(told.part))
                .bind(report.hash.as_str());
        }
        query.execute(&mut **tx).await?;
    }
    Ok(())
}

/// What evaluations came to in all, with the messages that say so.
async fn keep_summaries(tx: &mut Tx, round: &[&Prepared<'_>], placed: &[Placed]) -> Result<(), StoreError> {
    let summaries = round.iter().zip(placed).filter_map(|(prepared, Placed { moved, is_current })| {
        let said = prepared.told.summary?;
        let summary = match moved {
            Some(evaluated) => Cow::Owned(EvaluationSummary { evaluated: *evaluated, ..said.clone() }),
            None => Cow::Borrowed(said),
        };
        // Verdicts of versions that do not say when they were decided are the latest until others come.
        Some((prepared, summary, prepared.told.about.is_some() && !is_current))
    });
    for some in summaries.collect::<Vec<_>>().chunks(BATCH) {
        let sql = format!(
            "INSERT INTO evaluation (transaction_id, endpoint, policy, profile, evaluated, summary, is_past, is_partial, as_of) \
             VALUES {} ON CONFLICT (transaction_id, endpoint) DO UPDATE SET evaluated = excluded.evaluated, summary = excluded.summary, \
             is_past = excluded.is_past, is_partial = excluded.is_partial, as_of = excluded.as_of WHERE excluded.evaluated >= evaluation.evaluated",
            rows_of(some.len(), 9)
        );
        let mut query = sqlx::query(sqlx::AssertSqlSafe(sql));
        for (prepared, summary, is_past) in some {
            query = query
                .bind(prepared.transaction.as_str())
                .bind(prepared.endpoint.as_str())
                .bind(&summary.policy)
                .bind(&summary.profile)
                .bind(summary.evaluated.as_microsecond())
                .bind(json(&**summary))
                .bind(i64::from(*is_past))
                .bind(i64::from(summary.is_partial))
                .bind(summary.as_of.map(Timestamp::as_microsecond));
        }
        query.execute(&mut **tx).await?;
    }
    Ok(())
}

/// Ends the verdicts on rules that the policy does not have any more, once all parts of the evaluation are there.
async fn end_others(tx: &mut Tx, prepared: &Prepared<'_>, held: &Held<'_>) -> Result<(), StoreError> {
    let Held { numbers, about, .. } = held;
    let there = sqlx::query("SELECT count(*) FROM evaluation_part WHERE transaction_id = $1 AND endpoint = $2")
        .bind(prepared.transaction.as_str())
        .bind(prepared.endpoint.as_str())
        .fetch_one(&mut **tx)
        .await?;
    if there.try_get::<i64, _>(0)? < i64::from(about.part_count) {
        return Ok(());
    }
    sqlx::query(
        "UPDATE decided SET valid_to = $4 WHERE endpoint = $1 AND policy = $2 AND profile = $3 \
         AND valid_to IS NULL AND content <> $5 AND decided <= $4",
    )
    .bind(numbers.endpoint)
    .bind(numbers.policy)
    .bind(numbers.profile)
    .bind(held.evaluated)
    .bind(numbers.content)
    .execute(&mut **tx)
    .await?;
    Ok(())
}

/// Begins intervals.
async fn begin(tx: &mut Tx, held: &[Held<'_>], fresh: &[Begun]) -> Result<(), StoreError> {
    for some in fresh.chunks(BATCH) {
        let sql = format!(
            "{INSERT} decided (endpoint, policy, profile, rule, position, decision, content, since, decided, valid_from, \
             transaction_id) VALUES {} ON CONFLICT (endpoint, policy, profile, rule, valid_from) DO UPDATE SET \
             position = excluded.position, decision = excluded.decision, content = excluded.content, \
             decided = excluded.decided, transaction_id = excluded.transaction_id, valid_to = NULL",
            rows_of(some.len(), 11)
        );
        let mut query = sqlx::query(sqlx::AssertSqlSafe(sql));
        for Begun { held: place, rule, position, decision, since } in some {
            let of = &held[*place];
            query = query
                .bind(of.numbers.endpoint)
                .bind(of.numbers.policy)
                .bind(of.numbers.profile)
                .bind(*rule)
                .bind(*position)
                .bind(*decision)
                .bind(of.numbers.content)
                .bind(*since)
                .bind(of.evaluated)
                .bind(of.evaluated)
                .bind(of.numbers.transaction);
        }
        query.execute(&mut **tx).await?;
    }
    Ok(())
}

/// What the verdicts of before say, by their decisions' numbers.
async fn said(tx: &mut Tx, meant: &[Meant<'_>]) -> Result<HashMap<i64, Said>, StoreError> {
    let decisions: BTreeSet<i64> =
        meant.iter().filter_map(|meant| meant.before.as_ref()).map(|before| before.decision).collect();
    let decisions: Vec<i64> = decisions.into_iter().collect();
    let mut said = HashMap::with_capacity(decisions.len());
    for some in decisions.chunks(BATCH) {
        let sql = format!(
            "SELECT id, verdict, CASE WHEN hash LIKE 'earlier %' THEN result END AS result FROM decision WHERE id IN ({})",
            marks(1, some.len())
        );
        let mut query = sqlx::query(sqlx::AssertSqlSafe(sql));
        for decision in some {
            query = query.bind(*decision);
        }
        for row in query.fetch_all(&mut **tx).await? {
            said.insert(row.try_get("id")?, Said { verdict: row.try_get("verdict")?, result: row.try_get("result")? });
        }
    }
    Ok(said)
}

/// Sets a column of current verdicts to a time.
async fn set(tx: &mut Tx, held: &[Held<'_>], column: &'static str, verdicts: &[Set]) -> Result<(), StoreError> {
    for some in verdicts.chunks(BATCH) {
        let sql = format!(
            "{UPDATE} decided SET {column} = meant.column5 FROM (VALUES {}) AS meant WHERE endpoint = meant.column1 \
             AND policy = meant.column2 AND profile = meant.column3 AND rule = meant.column4 AND valid_to IS NULL",
            rows_of(some.len(), 5)
        );
        let mut query = sqlx::query(sqlx::AssertSqlSafe(sql));
        for Set { held: place, rule, time } in some {
            let Numbers { endpoint, policy, profile, .. } = held[*place].numbers;
            query = query.bind(*endpoint).bind(*policy).bind(*profile).bind(*rule).bind(*time);
        }
        query.execute(&mut **tx).await?;
    }
    Ok(())
}

/// What is current of the rules of these evaluations, or of all rules of their policies.
async fn current(tx: &mut Tx, held: &[Held<'_>]) -> Result<Vec<HashMap<i64, Current>>, StoreError> {
    const COLUMNS: [&str; 6] = ["rule", "position", "decided", "decision", "content", "since"];
    const OF: &str = "endpoint = asked.column1 AND policy = asked.column2 AND profile = asked.column3";
    let places: HashMap<i64, usize> =
        held.iter().enumerate().map(|(place, held)| (held.numbers.endpoint, place)).collect();
    let mut known: Vec<HashMap<i64, Current>> = held.iter().map(|_| HashMap::new()).collect();
    let mut take = |endpoint: i64, [rule, position, decided, decision, content, since]: [i64; 6]| {
        if let Some(place) = places.get(&endpoint) {
            known[*place].insert(rule, Current { position, decided, decision, content, since });
        }
    };
    // Many are read faster without their names.
    let is_read_whole = |held: &&Held<'_>| held.is_whole() || held.numbers.rules.len() > NAMED_MAX;
    let (whole, named): (Vec<&Held<'_>>, Vec<&Held<'_>>) = held.iter().partition(is_read_whole);
    for some in whole.chunks(BATCH) {
        let rows = gathered(&COLUMNS, &format!("decided WHERE {OF} AND valid_to IS NULL"));
        let sql = format!(
            "SELECT asked.column1 AS endpoint, {rows} AS known FROM (VALUES {}) AS asked",
            rows_of(some.len(), 3)
        );
        let mut query = sqlx::query(sqlx::AssertSqlSafe(sql));
        for Numbers { endpoint, policy, profile, .. } in some.iter().map(|held| held.numbers) {
            query = query.bind(*endpoint).bind(*policy).bind(*profile);
        }
        for row in query.fetch_all(&mut **tx).await? {
            let endpoint = row.try_get("endpoint")?;
            rows_in(row.try_get::<Option<&str>, _>("known")?.unwrap_or_default()).for_each(|row| take(endpoint, row));
        }
    }
    let rules = |held: &Held<'_>| held.numbers.rules.iter().copied().collect::<BTreeSet<i64>>();
    let named: Vec<(&Numbers, i64)> =
        named.into_iter().flat_map(|held| rules(held).into_iter().map(|rule| (held.numbers, rule))).collect();
    for some in named.chunks(BATCH) {
        let sql = format!(
            "SELECT endpoint, {} FROM (VALUES {}) AS asked JOIN decided ON {OF} AND rule = asked.column4 WHERE valid_to IS NULL",
            COLUMNS.join(", "),
            rows_of(some.len(), 4)
        );
        let mut query = sqlx::query(sqlx::AssertSqlSafe(sql));
        for (Numbers { endpoint, policy, profile, .. }, rule) in some {
            query = query.bind(*endpoint).bind(*policy).bind(*profile).bind(*rule);
        }
        for row in query.fetch_all(&mut **tx).await? {
            let mut columns = [0; COLUMNS.len()];
            for (column, name) in columns.iter_mut().zip(COLUMNS) {
                *column = row.try_get(name)?;
            }
            take(row.try_get("endpoint")?, columns);
        }
    }
    Ok(known)
}

/// Verdicts that say nothing of what holds now.
async fn keep(tx: &mut Tx, prepared: &Prepared<'_>) -> Result<u64, StoreError> {
    let told = &prepared.told;
    // A rule that is there twice counts once, as it was decided last.
    let mut rules: BTreeMap<&str, (i64, &Spoken<'_>)> = BTreeMap::new();
    for (at, spoken) in told.verdicts.iter().enumerate() {
        rules.insert(&spoken.result.rule, (told.position(at), spoken));
    }
    for some in rules.values().collect::<Vec<_>>().chunks(BATCH) {
        // The same evaluation done twice, by an evaluator that was killed, counts once.
        let sql = format!(
            "INSERT INTO result (transaction_id, endpoint, rule, position, verdict, result, report) VALUES {} \
             ON CONFLICT (transaction_id, endpoint, rule) DO UPDATE SET position = excluded.position, \
             verdict = excluded.verdict, result = excluded.result, report = excluded.report",
            rows_of(some.len(), 7)
        );
        let mut query = sqlx::query(sqlx::AssertSqlSafe(sql));
        for (position, spoken) in some {
            query = query
                .bind(prepared.transaction.as_str())
                .bind(prepared.endpoint.as_str())
                .bind(spoken.result.rule.as_str())
                .bind(*position)
                .bind(spoken.result.verdict.as_str())
                .bind(spoken.text.as_str())
                .bind(prepared.report.hash.as_str());
        }
        query.execute(&mut **tx).await?;
    }
    Ok(told.verdicts.len() as u64)
}
