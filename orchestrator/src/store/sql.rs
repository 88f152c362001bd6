//! The SQL of the store, for whichever back end includes this file.

use std::collections::BTreeMap;

use proto::content::{ContentHash, ContentRef};
use proto::id::{ComponentId, EndpointId, RequestId, TransactionId};
use serde::Deserialize;
use service::audit::Act;
use sqlx::{Row as _, Transaction};
use uuid::Uuid;

use super::super::{SentTask, StandingTask, StoreError, TokenRow, json};
use super::{BEGIN, Database, Fence, MARKS, Pool, READ};
use crate::core::label::Label;
use crate::core::roster::Component;
use crate::core::standing::Assigned;
use crate::core::workflow::{Responder, Workflow};
use crate::core::{Action, ENDED_RESPONDERS_MAX, ENDED_WORKFLOWS_MAX};

#[path = "audit.rs"]
mod audit;

use audit::Effect;

type Tx = Transaction<'static, Database>;
type RowOf = <Database as sqlx::Database>::Row;

/// How documents of a kind are read and written.
#[derive(Clone, Copy)]
struct Table {
    select: &'static str,
    upsert: &'static str,
}

/// The table of this name, whose documents have this key.
macro_rules! table {
    ($table:literal, $key:literal) => {
        Table {
            select: concat!("SELECT document FROM ", $table, " WHERE ", $key, " = $1"),
            upsert: concat!(
                "INSERT INTO ",
                $table,
                " (",
                $key,
                ", document) VALUES ($1, $2) ON CONFLICT (",
                $key,
                ") DO UPDATE SET document = excluded.document"
            ),
        }
    };
}

const COMPONENT: Table = table!("component", "id");
const TOKEN: Table = table!("token", "id");

const LABEL: Table = table!("label", "name");
const ASSIGNED: Table = table!("policy_assignment", "name");

#[path = "policies.rs"]
mod policies;

/// Writes a document, and says what it was.
async fn put(tx: &mut Tx, table: Table, key: &str, document: &str) -> Result<Effect, StoreError> {
    let before: Option<String> = sqlx::query_scalar(table.select).bind(key).fetch_optional(&mut **tx).await?;
    sqlx::query(table.upsert).bind(key).bind(document).execute(&mut **tx).await?;
    let hash = |text: &str| ContentHash::of(text.as_bytes());
    Ok(Effect { before: before.as_deref().map(hash), after: Some(hash(document)) })
}

async fn put_tasks(tx: &mut Tx, tasks: &[SentTask]) -> Result<(), StoreError> {
    for some in tasks.chunks(ROWS_AT_ONCE) {
        let rows = MARKS.rows(some.len(), 5);
        let sql = format!(
            "INSERT INTO sent_task (hash, request, responder, sealed, sent) VALUES {rows} ON CONFLICT (hash) DO NOTHING"
        );
        let mut query = sqlx::query(sqlx::AssertSqlSafe(sql));
        for task in some {
            query = query
                .bind(task.message.hash.as_str())
                .bind(task.request.to_string())
                .bind(task.responder.map(|responder| responder.to_string()))
                .bind(String::from_utf8_lossy(&task.message.sealed).into_owned())
                .bind(jiff::Timestamp::now().as_microsecond());
        }
        query.execute(&mut **tx).await?;
    }
    Ok(())
}

/// Responders by workflow and position.
type Responders<'action> = BTreeMap<(String, i64), &'action Responder>;

async fn put_responders(tx: &mut Tx, responders: &Responders<'_>) -> Result<(), StoreError> {
    for some in responders.iter().collect::<Vec<_>>().chunks(ROWS_AT_ONCE) {
        let rows = MARKS.rows(some.len(), 3);
        let sql = format!(
            "INSERT INTO responder (workflow, position, document) VALUES {rows} \
             ON CONFLICT (workflow, position) DO UPDATE SET document = excluded.document"
        );
        let mut query = sqlx::query(sqlx::AssertSqlSafe(sql));
        for ((workflow, position), responder) in some {
            query = query.bind(workflow.as_str()).bind(*position).bind(json(*responder));
        }
        query.execute(&mut **tx).await?;
    }
    Ok(())
}

fn position_of(position: usize) -> i64 {
    i64::try_from(position).unwrap_or(i64::MAX)
}

/// When a workflow ended.
#[derive(Deserialize)]
struct Ended {
    ended: Option<jiff::Timestamp>,
}

/// Rows of one statement.
const ROWS_AT_ONCE: usize = 100;

/// The store over pools: of connections that read, and of those that write.
#[derive(Debug, Clone)]
pub struct SqlStore {
    pub(super) readers: Pool,
    pub(super) writer: Pool,
    pub(super) fence: Fence,
}

impl SqlStore {
    pub(super) fn over(readers: Pool, writer: Pool, fence: Fence) -> Self {
        Self { readers, writer, fence }
    }

    /// Everything that is written is written between this and a commit.
    pub(super) async fn begin(&self) -> Result<Tx, StoreError> {
        let mut tx = self.writer.begin_with(BEGIN).await?;
        self.fence.check(&mut tx).await?;
        Ok(tx)
    }

    /// Ends the connections.
    pub async fn close(&self) {
        self.readers.close().await;
        self.writer.close().await;
    }

    async fn documents<T: for<'de> Deserialize<'de>>(&self, sql: &'static str) -> Result<Vec<T>, StoreError> {
        let rows = sqlx::query(sql).fetch_all(&self.readers).await?;
        rows.iter()
            .map(|row| serde_json::from_str(&row.try_get::<String, _>("document")?).map_err(StoreError::Damaged))
            .collect()
    }

    async fn document<T: for<'de> Deserialize<'de>>(
        &self,
        sql: &'static str,
        key: &str,
    ) -> Result<Option<T>, StoreError> {
        let text: Option<String> = sqlx::query_scalar(sql).bind(key).fetch_optional(&self.readers).await?;
        text.map(|text| serde_json::from_str(&text).map_err(StoreError::Damaged)).transpose()
    }

    /// The roster.
    pub async fn components(&self) -> Result<Vec<Component>, StoreError> {
        self.documents("SELECT document FROM component").await
    }

    /// Workflows that are open, and the latest of the others.
    pub async fn workflows(&self) -> Result<Vec<Workflow>, StoreError> {
        let rows = sqlx::query(
            "SELECT id, is_open, (SELECT count(*) FROM responder WHERE workflow = workflow.id) AS responders FROM workflow \
             WHERE is_open = 1 OR id IN (SELECT id FROM workflow ORDER BY begun DESC LIMIT $1) ORDER BY begun DESC",
        );
        let rows = rows.bind(i64::try_from(ENDED_WORKFLOWS_MAX).unwrap_or(i64::MAX)).fetch_all(&self.readers).await?;
        let (mut workflows, mut responders) = (Vec::new(), 0);
        for row in rows {
            let is_open = row.try_get::<i64, _>("is_open")? != 0;
            if !is_open {
                responders += usize::try_from(row.try_get::<i64, _>("responders")?).unwrap_or_default();
            }
            // What is not in memory is read when it is asked for.
            if (is_open || responders <= ENDED_RESPONDERS_MAX)
                && let Some(workflow) = self.workflow_of(&row.try_get::<String, _>("id")?).await?
            {
                workflows.push(workflow);
            }
        }
        Ok(workflows)
    }

    /// Those that are kept in rows. Workflows of earlier versions have them inside; they move into rows here.
    async fn add_responders(&self, workflow: &mut Workflow) -> Result<(), StoreError> {
        let rows = sqlx::query("SELECT document FROM responder WHERE workflow = $1 ORDER BY position")
            .bind(workflow.id.to_string())
            .fetch_all(&self.readers)
            .await?;
        if rows.is_empty() {
            workflow.add_due();
            let mut tx = self.begin().await?;
            let id = workflow.id.to_string();
            let responders = workflow.responders.iter().enumerate();
            let responders = responders.map(|(position, responder)| ((id.clone(), position_of(position)), responder));
            put_responders(&mut tx, &responders.collect()).await?;
            tx.commit().await?;
            return Ok(());
        }
        let documents = rows.iter().map(|row| row.try_get::<String, _>("document"));
        workflow.responders = documents
            .map(|document| serde_json::from_str(&document?).map_err(StoreError::Damaged))
            .collect::<Result<_, _>>()?;
        Ok(())
    }

    /// Endpoints that were merged into others.
    pub async fn aliases(&self) -> Result<Vec<(EndpointId, EndpointId)>, StoreError> {
        let rows = sqlx::query("SELECT endpoint, alias_of FROM endpoint_alias").fetch_all(&self.readers).await?;
        let id = |row: &RowOf, column: &str| -> Result<EndpointId, StoreError> {
            let text: String = row.try_get(column)?;
            serde_json::from_value(text.into()).map_err(StoreError::Damaged)
        };
        rows.iter().map(|row| Ok((id(row, "endpoint")?, id(row, "alias_of")?))).collect()
    }

    /// Assigned policies.
    pub async fn assigned(&self) -> Result<Vec<Assigned>, StoreError> {
        self.documents("SELECT document FROM policy_assignment ORDER BY name").await
    }

    /// Keeps an assigned policy; with an act, it was an operator's word.
    pub async fn put_assigned(&self, assigned: &Assigned, act: Option<&Act>) -> Result<(), StoreError> {
        self.put_maybe_recorded(ASSIGNED, &assigned.assignment.name, &json(assigned), act).await
    }

    /// An assigned policy is no more.
    pub async fn remove_assigned(&self, name: &str, act: &Act) -> Result<(), StoreError> {
        self.remove(ASSIGNED, "DELETE FROM policy_assignment WHERE name = $1", name, act).await
    }

    /// What operators call endpoints.
    pub async fn labels(&self) -> Result<Vec<Label>, StoreError> {
        self.documents("SELECT document FROM label ORDER BY name").await
    }

    /// Keeps a label; with an act, it was an operator's word.
    pub async fn put_label(&self, label: &Label, act: Option<&Act>) -> Result<(), StoreError> {
        self.put_maybe_recorded(LABEL, &label.definition.name, &json(label), act).await
    }

    /// A label is no more.
    pub async fn remove_label(&self, name: &str, act: &Act) -> Result<(), StoreError> {
        self.remove(LABEL, "DELETE FROM label WHERE name = $1", name, act).await
    }

    async fn put_maybe_recorded(
        &self,
        table: Table,
        key: &str,
        document: &str,
        act: Option<&Act>,
    ) -> Result<(), StoreError> {
        let mut tx = self.begin().await?;
        let effect = put(&mut tx, table, key, document).await?;
        if let Some(act) = act {
            audit::record(&mut tx, act, effect).await?;
        }
        tx.commit().await?;
        Ok(())
    }

    async fn remove(&self, table: Table, delete: &'static str, key: &str, act: &Act) -> Result<(), StoreError> {
        let mut tx = self.begin().await?;
        let before: Option<String> = sqlx::query_scalar(table.select).bind(key).fetch_optional(&mut *tx).await?;
        sqlx::query(delete).bind(key).execute(&mut *tx).await?;
        let before = before.as_deref().map(|text| ContentHash::of(text.as_bytes()));
        audit::record(&mut tx, act, Effect { before, after: None }).await?;
        tx.commit().await?;
        Ok(())
    }

    async fn put_and_record(&self, table: Table, key: &str, document: &str, act: &Act) -> Result<(), StoreError> {
        self.put_maybe_recorded(table, key, document, Some(act)).await
    }

    /// Keeps what components are going to be asked.
    pub async fn put_tasks(&self, tasks: &[SentTask]) -> Result<(), StoreError> {
        if tasks.is_empty() {
            return Ok(());
        }
        let mut tx = self.begin().await?;
        put_tasks(&mut tx, tasks).await?;
        tx.commit().await?;
        Ok(())
    }

    /// Deletes workflows that ended before a time, with their responders.
    pub async fn expire_workflows(&self, before: jiff::Timestamp) -> Result<u64, StoreError> {
        let mut tx = self.begin().await?;
        // What ended before had begun before; few others had.
        let rows = sqlx::query("SELECT id, document FROM workflow WHERE is_open = 0 AND begun < $1");
        let rows = rows.bind(before.as_microsecond()).fetch_all(&mut *tx).await?;
        let mut count = 0;
        for row in rows {
            let ended: Ended =
                serde_json::from_str(&row.try_get::<String, _>("document")?).map_err(StoreError::Damaged)?;
            if ended.ended.is_none_or(|ended| ended >= before) {
                continue;
            }
            let id: String = row.try_get("id")?;
            for delete in ["DELETE FROM responder WHERE workflow = $1", "DELETE FROM workflow WHERE id = $1"] {
                sqlx::query(delete).bind(&id).execute(&mut *tx).await?;
            }
            count += 1;
        }
        tx.commit().await?;
        Ok(count)
    }

    /// Messages that were sent before a time, after one of them, with their requests; not those of schedules and observations
    /// that were in force since.
    pub async fn old_tasks(
        &self,
        before: jiff::Timestamp,
        after: Option<&ContentHash>,
        limit: i64,
    ) -> Result<Vec<(ContentHash, RequestId)>, StoreError> {
        let rows = sqlx::query(
            "SELECT hash, request FROM sent_task WHERE sent < $1 AND hash > $2 AND NOT EXISTS (SELECT 1 FROM standing_task \
             WHERE standing_task.request = sent_task.request AND (ended IS NULL OR ended >= $1)) ORDER BY hash LIMIT $3",
        )
        .bind(before.as_microsecond())
        .bind(after.map_or("", ContentHash::as_str))
        .bind(limit)
        .fetch_all(&self.readers)
        .await?;
        let parsed = rows.iter().map(|row| {
            let (hash, request): (String, String) = (row.try_get("hash")?, row.try_get("request")?);
            // Nobody else writes this table; what cannot be read is left alone.
            Ok(hash.parse().ok().zip(request.parse().ok()))
        });
        Ok(parsed.collect::<Result<Vec<_>, sqlx::Error>>()?.into_iter().flatten().collect())
    }

    /// Deletes messages.
    pub async fn delete_tasks(&self, hashes: impl Iterator<Item = &ContentHash>) -> Result<u64, StoreError> {
        let mut tx = self.begin().await?;
        let mut count = 0;
        for hash in hashes {
            let deleted = sqlx::query("DELETE FROM sent_task WHERE hash = $1").bind(hash.as_str());
            count += deleted.execute(&mut *tx).await?.rows_affected();
        }
        tx.commit().await?;
        Ok(count)
    }

    /// What was asked by which of these messages, and of whom; of nobody in particular, where that is not said.
    pub async fn sent_by(
        &self,
        hashes: &[&ContentHash],
    ) -> Result<Vec<(ContentHash, RequestId, Option<ComponentId>)>, StoreError> {
        let marks: Vec<String> = (1..=hashes.len()).map(|number| format!("${number}")).collect();
        let sql = format!("SELECT hash, request, responder FROM sent_task WHERE hash IN ({})", marks.join(", "));
        let mut query = sqlx::query(sqlx::AssertSqlSafe(sql));
        for hash in hashes {
            query = query.bind(hash.as_str());
        }
        let rows = query.fetch_all(&self.readers).await?;
        let of_row = |row: &RowOf| -> Result<_, sqlx::Error> {
            let [hash, request] = ["hash", "request"].map(|column| row.try_get::<String, _>(column));
            let responder: Option<String> = row.try_get("responder")?;
            let responder = responder.map(|responder| responder.parse().ok());
            // What cannot be read was asked of nobody.
            let known = hash?.parse().ok().zip(request?.parse().ok()).filter(|_| responder != Some(None));
            Ok(known.map(|(hash, request)| (hash, request, responder.flatten())))
        };
        let known = rows.iter().map(of_row).collect::<Result<Vec<_>, sqlx::Error>>()?;
        Ok(known.into_iter().flatten().collect())
    }

    /// The message that asked.
    pub async fn sent(&self, hash: &ContentHash) -> Result<Option<String>, StoreError> {
        let sealed = sqlx::query_scalar("SELECT sealed FROM sent_task WHERE hash = $1");
        Ok(sealed.bind(hash.as_str()).fetch_optional(&self.readers).await?)
    }

    /// What a component was last asked by a request, as it was sealed.
    pub async fn task_of(&self, request: RequestId, responder: ComponentId) -> Result<Option<String>, StoreError> {
        let sealed = sqlx::query_scalar(
            "SELECT sealed FROM sent_task WHERE request = $1 AND responder = $2 ORDER BY sent DESC LIMIT 1",
        );
        Ok(sealed.bind(request.to_string()).bind(responder.to_string()).fetch_optional(&self.readers).await?)
    }

    /// Stores what the core wants stored, and what is going to be asked, in one transaction. The same batch once more, because nobody
    /// heard whether it was stored, has one effect.
    pub async fn apply(&self, batch: Uuid, actions: &[&Action], tasks: &[SentTask]) -> Result<(), StoreError> {
        let is_stored = |action: &&Action| {
            matches!(
                action,
                Action::StoreComponent(_)
                    | Action::StoreWorkflow(_)
                    | Action::StoreResponder(..)
                    | Action::StoreAlias(..)
                    | Action::UseToken(_)
                    | Action::Record(_)
            )
        };
        if !actions.iter().any(is_stored) && tasks.is_empty() {
            return Ok(());
        }
        let mut tx = self.begin().await?;
        let batch = batch.to_string();
        let last: Option<String> =
            sqlx::query_scalar("SELECT batch FROM applied WHERE id = 1").fetch_optional(&mut *tx).await?;
        if last.as_ref() == Some(&batch) {
            return Ok(());
        }
        sqlx::query(
            "INSERT INTO applied (id, batch) VALUES (1, $1) ON CONFLICT (id) DO UPDATE SET batch = excluded.batch",
        )
        .bind(batch)
        .execute(&mut *tx)
        .await?;
        put_tasks(&mut tx, tasks).await?;
        let mut effects: BTreeMap<String, Effect> = BTreeMap::new();
        // Of several that are the same one, the last says how it is.
        let (mut workflows, mut responders) = (BTreeMap::new(), Responders::new());
        for action in actions {
            match action {
                Action::StoreComponent(component) => {
                    let id = component.id.to_string();
                    let effect = put(&mut tx, COMPONENT, &id, &json(component)).await?;
                    // Of several, the first knows what was before.
                    effects
                        .entry(id)
                        .and_modify(|known: &mut Effect| known.after.clone_from(&effect.after))
                        .or_insert(effect);
                }
                Action::StoreWorkflow(workflow) => drop(workflows.insert(workflow.id, workflow)),
                Action::StoreResponder(id, position, responder) => {
                    responders.insert((id.to_string(), position_of(*position)), responder);
                }
                Action::StoreAlias(endpoint, of) => {
                    sqlx::query("DELETE FROM endpoint_alias WHERE endpoint = $1")
                        .bind(endpoint.to_string())
                        .execute(&mut *tx)
                        .await?;
                    if let Some(of) = of {
                        sqlx::query("INSERT INTO endpoint_alias (endpoint, alias_of) VALUES ($1, $2)")
                            .bind(endpoint.to_string())
                            .bind(of.to_string())
                            .execute(&mut *tx)
                            .await?;
                    }
                }
                Action::UseToken(id) => {
                    let token: Option<String> =
                        sqlx::query_scalar(TOKEN.select).bind(id).fetch_optional(&mut *tx).await?;
                    if let Some(text) = token {
                        let mut token: TokenRow = serde_json::from_str(&text).map_err(StoreError::Damaged)?;
                        token.view.uses_left = token.view.uses_left.saturating_sub(1);
                        put(&mut tx, TOKEN, id, &json(&token)).await?;
                    }
                }
                _ => {}
            }
        }
        for (id, workflow) in workflows {
            sqlx::query(
                "INSERT INTO workflow (id, is_open, begun, document) VALUES ($1, $2, $3, $4) \
                 ON CONFLICT (id) DO UPDATE SET is_open = excluded.is_open, document = excluded.document",
            )
            .bind(id.to_string())
            .bind(i64::from(workflow.ended.is_none()))
            .bind(workflow.begun.as_microsecond())
            .bind(json(workflow))
            .execute(&mut *tx)
            .await?;
        }
        put_responders(&mut tx, &responders).await?;
        for action in actions {
            if let Action::Record(act) = action {
                let effect = effects.get(&act.subject).cloned().unwrap_or_default();
                audit::record(&mut tx, act, effect).await?;
            }
        }
        tx.commit().await?;
        Ok(())
    }

    /// A workflow that is in memory no more.
    pub async fn workflow(&self, id: TransactionId) -> Result<Option<Workflow>, StoreError> {
        self.workflow_of(&id.to_string()).await
    }

    async fn workflow_of(&self, id: &str) -> Result<Option<Workflow>, StoreError> {
        let workflow = self.document("SELECT document FROM workflow WHERE id = $1", id).await?;
        let Some(mut workflow) = workflow else { return Ok(None) };
        self.add_responders(&mut workflow).await?;
        let responders = std::mem::take(&mut workflow.responders);
        Ok(Some(workflow.with_responders(responders)))
    }

    /// A standing task is in force at these collectors; gives the request that stands for it, which is the same for
    /// the same question, and those of the collectors at whom it was not in force before.
    pub async fn begin_standing(
        &self,
        task: &StandingTask,
        collectors: &[ComponentId],
        act: impl FnOnce(RequestId) -> Act,
    ) -> Result<(RequestId, Vec<ComponentId>), StoreError> {
        let mut tx = self.begin().await?;
        let known = sqlx::query(
            "SELECT request, collector, ended FROM standing_task WHERE operation = $1 AND identifier = $2 AND plan = $3",
        )
        .bind(task.operation)
        .bind(&task.identifier)
        .bind(task.plan.sha256.as_str())
        .fetch_all(&mut *tx)
        .await?;
        let mut request = task.request;
        let mut in_force = Vec::new();
        for row in known {
            request = row.try_get::<String, _>("request")?.parse().unwrap_or(request);
            if row.try_get::<Option<i64>, _>("ended")?.is_none() {
                in_force.push(row.try_get::<String, _>("collector")?);
            }
        }
        let begun: Vec<ComponentId> =
            collectors.iter().copied().filter(|collector| !in_force.contains(&collector.to_string())).collect();
        for collector in &begun {
            sqlx::query(
                "INSERT INTO standing_task (request, collector, operation, identifier, plan, document, ended) \
                 VALUES ($1, $2, $3, $4, $5, $6, NULL) \
                 ON CONFLICT (operation, identifier, plan, collector) DO UPDATE SET ended = NULL",
            )
            .bind(request.to_string())
            .bind(collector.to_string())
            .bind(task.operation)
            .bind(&task.identifier)
            .bind(task.plan.sha256.as_str())
            .bind(json(&task.plan))
            .execute(&mut *tx)
            .await?;
        }
        if !begun.is_empty() {
            audit::record(&mut tx, &act(request), Effect::default()).await?;
        }
        tx.commit().await?;
        Ok((request, begun))
    }

    /// A standing task is in force at a collector no more: the one that a request began, or all of that name. Where
    /// none was, nothing is done and nothing is written down.
    pub async fn end_standing(
        &self,
        (operation, identifier): (&str, &str),
        request: Option<RequestId>,
        collector: ComponentId,
        ended: jiff::Timestamp,
        act: &Act,
    ) -> Result<(), StoreError> {
        let mut tx = self.begin().await?;
        let done = sqlx::query(
            "UPDATE standing_task SET ended = $4 \
             WHERE operation = $1 AND identifier = $2 AND collector = $3 AND ended IS NULL \
             AND (request = $5 OR $5 IS NULL)",
        )
        .bind(operation)
        .bind(identifier)
        .bind(collector.to_string())
        .bind(ended.as_microsecond())
        .bind(request.map(|request| request.to_string()))
        .execute(&mut *tx)
        .await?;
        if done.rows_affected() > 0 {
            audit::record(&mut tx, act, Effect::default()).await?;
        }
        tx.commit().await?;
        Ok(())
    }

    /// The plan of a standing task at a collector, and when it ended.
    pub async fn standing(
        &self,
        request: RequestId,
        collector: ComponentId,
    ) -> Result<Option<(ContentRef, Option<jiff::Timestamp>)>, StoreError> {
        let row = sqlx::query("SELECT document, ended FROM standing_task WHERE request = $1 AND collector = $2")
            .bind(request.to_string())
            .bind(collector.to_string())
            .fetch_optional(&self.readers)
            .await?;
        let Some(row) = row else { return Ok(None) };
        let plan = serde_json::from_str(&row.try_get::<String, _>("document")?).map_err(StoreError::Damaged)?;
        let ended: Option<i64> = row.try_get("ended")?;
        Ok(Some((plan, ended.and_then(|at| jiff::Timestamp::from_microsecond(at).ok()))))
    }

    /// Keeps a token.
    pub async fn put_token(&self, token: &TokenRow, act: &Act) -> Result<(), StoreError> {
        self.put_and_record(TOKEN, &token.view.id, &json(token), act).await
    }

    /// All tokens.
    pub async fn tokens(&self) -> Result<Vec<TokenRow>, StoreError> {
        self.documents("SELECT document FROM token").await
    }

    /// A token by its id.
    pub async fn token(&self, id: &str) -> Result<Option<TokenRow>, StoreError> {
        self.document(TOKEN.select, id).await
    }
}
