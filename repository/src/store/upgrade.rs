//! What an earlier version stored, for whichever back end includes this file: the tables become others, and what is in them does
//! not.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use proto::content::ContentRef;
use proto::id::{ComponentId, EndpointId, MessageId, TransactionId};
use proto::message::{About, CollectedPart, CollectionResults, EvaluationResults, ResultsSelection};
use proto::observation::{EndpointFacts, Flag, Item, ItemEntity, Method};
use proto::verdict::{RuleResult, Sense, Severity, Verdict};
use sqlx::migrate::{Migration, Migrator};
use uuid::Uuid;

use super::super::super::{Incoming, Received, Report, Said, Stored, label};
use super::*;

/// The last step before observations and verdicts had numbers.
const BEFORE: usize = 10;
const OBJECT: &str = "obj:one";
/// The packed messages of the reports.
const PACKED: [&[u8]; 2] = [b"one", b"another"];
const FIRST: i64 = 1_700_000_000_000_000;

fn at(second: i64) -> Timestamp {
    Timestamp::from_microsecond(FIRST + second * 1_000_000).unwrap()
}

fn item(value: &str) -> Item {
    Item::new("x", vec![ItemEntity::text("value", value)])
}

fn result(verdict: Verdict) -> RuleResult {
    RuleResult {
        rule: "rule".to_owned(),
        title: "A rule".to_owned(),
        severity: Severity::Low,
        verdict,
        sense: Sense::default(),
        found: Vec::new(),
        expected: Vec::new(),
        reasons: Vec::new(),
        fix: None,
        since: None,
        objects: Vec::new(),
    }
}

/// A report as the version before kept it.
struct Sealed {
    hash: String,
    bytes: &'static [u8],
    task: Option<String>,
    released: Option<i64>,
}

impl Sealed {
    async fn store(self, pool: &Pool) {
        sqlx::query(
            "INSERT INTO report (hash, kind, content, bytes, received, released, task) VALUES ($1, 'x', $2, $3, $4, $5, $6)",
        )
        .bind(self.hash)
        .bind(ContentRef::to(self.bytes).sha256.to_string())
        .bind(self.bytes)
        .bind(FIRST)
        .bind(self.released)
        .bind(self.task)
        .execute(pool)
        .await
        .unwrap();
    }
}

/// One endpoint, whose one object was `a` and is `b`, by one collector; and one rule, which failed and passes.
struct Before {
    endpoint: EndpointId,
    collector: ComponentId,
    transaction: TransactionId,
    reports: [ContentHash; 2],
    message: MessageId,
}

impl Before {
    async fn store(pool: &Pool) -> Self {
        let reports = [ContentHash::of(b"first"), ContentHash::of(b"second")];
        let before = Self {
            endpoint: EndpointId(Uuid::new_v4()),
            collector: ComponentId(Uuid::new_v4()),
            transaction: TransactionId(Uuid::new_v4()),
            reports,
            message: MessageId(Uuid::now_v7()),
        };
        let (endpoint, collector) = (endpoint_text(before.endpoint), before.collector.to_string());
        let transaction = before.transaction.to_string();
        let run = async |sql: &str| {
            sqlx::query(sqlx::AssertSqlSafe(sql.to_owned())).execute(pool).await.unwrap();
        };
        let items = ["a", "b"].map(|value| json(&item(value)));
        let hashes = items.each_ref().map(|item| ContentHash::of(item.as_bytes()).to_string());
        let flag = label(&Flag::Complete);
        for (at, (item, hash)) in items.iter().zip(&hashes).enumerate() {
            run(&format!("INSERT INTO item (hash, content) VALUES ('{hash}', '{item}')")).await;
            let list = json(&[hash]);
            let content = ContentHash::of(format!("{flag}\n{list}\n[]").as_bytes()).to_string();
            let (from, last) = (FIRST + 100_000_000 * i64::try_from(at).unwrap(), FIRST + 150_000_000);
            let to = if at == 0 { (FIRST + 100_000_000).to_string() } else { "NULL".to_owned() };
            run(&format!(
                "INSERT INTO observation (endpoint, object, origin, method, flag, items, messages, content, valid_from, \
                 last_seen, valid_to, received, report) VALUES ('{endpoint}', '{OBJECT}', '{collector}', '{}', '{flag}', \
                 '{list}', '[]', '{content}', {from}, {last}, {to}, {from}, '{}')",
                label(&Method::SelfReported),
                before.reports[at]
            ))
            .await;
            let sealed = Sealed {
                hash: before.reports[at].to_string(),
                bytes: PACKED[at],
                task: Some(format!("task {at}")),
                released: (at == 0).then_some(from),
            };
            sealed.store(pool).await;
        }
        run(&format!(
            "INSERT INTO change (endpoint, object, origin, old_content, new_content, collected, old_observation, \
             new_observation) VALUES ('{endpoint}', '{OBJECT}', '{collector}', 'a', 'b', {}, 1, 2)",
            FIRST + 100_000_000
        ))
        .await;
        run(&format!("INSERT INTO assignment (endpoint, collector) VALUES ('{endpoint}', '{collector}')")).await;
        for (at, verdict) in [Verdict::Fail, Verdict::Pass].into_iter().enumerate() {
            let from = FIRST + 100_000_000 * i64::try_from(at).unwrap();
            // Verdicts of even earlier versions name no evaluation.
            let (to, by) = match at {
                0 => ((FIRST + 100_000_000).to_string(), "NULL".to_owned()),
                _ => ("NULL".to_owned(), format!("'{transaction}'")),
            };
            run(&format!(
                "INSERT INTO verdict (endpoint, policy, profile, rule, position, verdict, result, content, since, decided, \
                 valid_from, valid_to, transaction_id) VALUES ('{endpoint}', 'policy', '', 'rule', 0, '{verdict}', '{}', '', \
                 {from}, {from}, {from}, {to}, {by})",
                json(&result(verdict))
            ))
            .await;
        }
        // Two that no observation came with, and a message that had its effect.
        for other in ["x", "y"] {
            let hash = ContentHash::of(other.as_bytes()).to_string();
            Sealed { hash, bytes: other.as_bytes(), task: None, released: None }.store(pool).await;
        }
        run(&format!(
            "INSERT INTO message (sender, id, received) VALUES ('{collector}', '{}', {FIRST})",
            before.message
        ))
        .await;
        let summary = before.summary(at(100));
        run(&format!(
            "INSERT INTO evaluation (transaction_id, endpoint, policy, profile, evaluated, summary) VALUES \
             ('{transaction}', '{endpoint}', 'policy', '', {}, '{}')",
            summary.evaluated.as_microsecond(),
            json(&summary)
        ))
        .await;
        // One of before changes had sides, on what nothing else names any more.
        run("INSERT INTO change (endpoint, object, origin, old_content, new_content, collected) VALUES ('gone', 'gone', 'gone', 'a', \
             'b', 1)")
        .await;
        before
    }

    fn summary(&self, evaluated: Timestamp) -> EvaluationSummary {
        EvaluationSummary {
            transaction: self.transaction,
            endpoint: self.endpoint,
            policy: "policy".to_owned(),
            profile: String::new(),
            evaluated,
            oldest_collected: None,
            evaluator: self.collector,
            score: None,
            counts: [(Verdict::Pass, 1)].into(),
            as_of: None,
            collected_since: None,
            is_fresh: None,
            content: None,
            verdicts: String::new(),
            is_partial: false,
            knowledge: None,
        }
    }

    fn received(&self) -> Received {
        Received {
            sender: self.collector,
            message: MessageId(Uuid::now_v7()),
            transaction: self.transaction,
            received: at(500),
        }
    }
}

async fn seen(store: &SqlStore, endpoint: EndpointId, as_of: Option<Timestamp>) -> (String, Option<ContentHash>) {
    let objects = vec![ObjectKey(OBJECT.to_owned())];
    let page = store
        .query(&QueryRequest { request: None, endpoint, objects, as_of, is_brief: false, others: Vec::new() })
        .await
        .unwrap();
    let row = &page.rows[0];
    (page.items[row.items[0] as usize].value("value").unwrap().to_owned(), row.report.clone())
}

/// Stores as the version before did, brings the tables up to date, and looks.
pub(in super::super) async fn check(pool: Pool, mut migrations: Vec<Migration>) {
    let all = migrations.clone();
    migrations.truncate(BEFORE);
    Migrator::with_migrations(migrations).run(&pool).await.unwrap();
    let before = Before::store(&pool).await;
    Migrator::with_migrations(all).run(&pool).await.unwrap();
    let store = SqlStore::over(pool.clone(), pool);

    // What was and is observed, by which reports, and the change from the one to the other.
    let [first, second] = before.reports.clone();
    assert_eq!(seen(&store, before.endpoint, Some(at(50))).await, ("a".to_owned(), Some(first)));
    assert_eq!(seen(&store, before.endpoint, None).await, ("b".to_owned(), Some(second)));
    let everything = ChangesRequest { endpoints: Vec::new(), before: None, limit: 10, numbers: Vec::new() };
    let changes = store.changes(&everything).await.unwrap().changes;
    assert_eq!(changes.len(), 1);
    assert_eq!(
        (&changes[0].past.as_ref().unwrap().items[..], &changes[0].current.items[..]),
        (&[item("a")][..], &[item("b")][..])
    );
    assert_eq!(store.counts().await.unwrap().change_count, 2);
    // The reports themselves: those that observations name, and the others, each with a number of its own.
    let rows = sqlx::query("SELECT hash, task, released, content, bytes FROM report ORDER BY id")
        .fetch_all(&store.readers)
        .await
        .unwrap();
    // What was told of a report goes when the report has gone.
    let told =
        "INSERT INTO told (content, report) SELECT content, id FROM report UNION ALL SELECT 'of one that is gone', 0";
    sqlx::query(told).execute(&store.writer).await.unwrap();
    let gone = store.expire(&Retention::default(), Timestamp::UNIX_EPOCH).await.unwrap();
    assert!(gone.is_nothing(), "{gone:?}");
    let told: i64 = sqlx::query_scalar("SELECT count(*) FROM told").fetch_one(&store.readers).await.unwrap();
    assert_eq!(told, i64::try_from(rows.len()).unwrap());
    for (packed, row) in PACKED.into_iter().zip(&rows) {
        assert_eq!(store.content(&ContentRef::to(packed).sha256).await.unwrap().as_deref(), Some(packed));
        assert_eq!(
            (row.get::<&[u8], _>("bytes"), row.get("content")),
            (packed, ContentRef::to(packed).sha256.as_str())
        );
    }
    let kept: Vec<(String, Option<String>, Option<i64>)> =
        rows.iter().map(|row| (row.get("hash"), row.get("task"), row.get("released"))).collect();
    let named = |hash: &ContentHash, task: &str, released| (hash.to_string(), Some(task.to_owned()), released);
    let [first, second] = &before.reports;
    assert_eq!(kept[..2], [named(first, "task 0", Some(FIRST)), named(second, "task 1", None)]);
    let others: BTreeSet<&str> = kept[2..].iter().map(|(hash, ..)| hash.as_str()).collect();
    let expected = ["x", "y"].map(|other| ContentHash::of(other.as_bytes()).to_string());
    assert_eq!(others, expected.iter().map(String::as_str).collect());
    // One that does not say what it answers may answer anything.
    let tasks = ["task 0", "nobody's"].map(|task| ContentHash::of(task.as_bytes()));
    assert_eq!(store.referenced(&tasks).await.unwrap(), tasks);
    // What held, and holds.
    let request = |selection| ResultsRequest { selection, verdicts: Vec::new(), only_summaries: false, after: None };
    let held = store.results(&request(ResultsSelection::Latest)).await.unwrap();
    assert_eq!(held.results, [[RuleResult { since: Some(at(100)), ..result(Verdict::Pass) }]]);
    let counts = store.counts().await.unwrap();
    assert_eq!((counts.current_count, counts.past_count, counts.result_count), (1, 1, 2));

    // The same again is no change, of an observation as of a verdict; another one has a number of its own.
    let collected = |value: &str, second: i64| CollectionResults {
        standing: None,
        task: None,
        request: proto::id::RequestId(Uuid::new_v4()),
        plan: ContentHash::of(b"plan"),
        endpoint: before.endpoint,
        facts: EndpointFacts::default(),
        method: Method::SelfReported,
        part: 0,
        is_final: true,
        stream: None,
        items: vec![item(value)],
        objects: vec![CollectedPart {
            object: ObjectKey(OBJECT.to_owned()),
            flag: Flag::Complete,
            collected: at(second),
            items: vec![0],
            messages: Vec::new(),
        }],
    };
    let report = |text: &str| Report { hash: ContentHash::of(text.as_bytes()), packed: text.as_bytes().to_vec() };
    let record = async |value: &str, second: i64| {
        let report = report(&format!("{value} {second}"));
        let (results, from) = (collected(value, second), before.received());
        let incoming = Incoming { said: Said::Observations(&results), from, report: &report };
        store.record(&[incoming]).await.remove(0).unwrap()
    };
    let again = Received { message: before.message, ..before.received() };
    let (results, sealed) = (collected("b", 190), report("again"));
    let incoming = Incoming { said: Said::Observations(&results), from: again, report: &sealed };
    assert_eq!(store.record(&[incoming]).await.remove(0).unwrap(), Stored::Again);
    assert_eq!(record("b", 200).await, added_nothing());
    // Numbers of changes go on where they were.
    assert_eq!(record("c", 300).await, Stored::New { change_count: 1, changed: vec![3] });
    let verdicts = EvaluationResults {
        request: proto::id::RequestId(Uuid::new_v4()),
        task: None,
        endpoint: before.endpoint,
        about: Some(About {
            policy: "policy".to_owned(),
            profile: String::new(),
            evaluated: at(400),
            content: None,
            part_count: 1,
            is_current: true,
            is_partial: false,
        }),
        part: 0,
        rule_count: 1,
        evidence: Vec::new(),
        results: vec![result(Verdict::Pass)],
        summary: Some(before.summary(at(400))),
    };
    let (said, report) = (Said::Verdicts(&verdicts), report("verdicts"));
    let decided = store.record(&[Incoming { said, from: before.received(), report: &report }]).await.remove(0);
    assert_eq!(decided.unwrap(), added_nothing());
    let counts = store.counts().await.unwrap();
    assert_eq!((counts.current_count, counts.past_count, counts.result_count), (1, 2, 2));
    let held = store.results(&request(ResultsSelection::Latest)).await.unwrap();
    assert_eq!(held.results, [[RuleResult { since: Some(at(100)), ..result(Verdict::Pass) }]]);
    store.close().await;
}
