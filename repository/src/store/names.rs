//! Names by number, for whichever back end includes this file. Endpoints, objects, components, policies and rules are named in
//! hundreds of rows each; a name keeps its number for good, so numbers are remembered.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use sqlx::Row as _;

use super::super::super::StoreError;
use super::super::{Database, INSERT};
use super::statement::{BATCH, marks, rows_of};
use super::{Query, SqlStore, Tx};

/// Names that are remembered.
const KEPT_MAX: usize = 500_000;
/// Hashes that are remembered.
const HASHES_MAX: usize = 100_000;

/// The hashes of rows, by number.
pub(super) type Hashes = HashMap<i64, Arc<str>>;

/// Numbers that are known already.
#[derive(Debug, Default)]
pub(super) struct Names {
    numbers: Mutex<HashMap<String, i64>>,
    /// Objects of which the kind is stored.
    with_kind: Mutex<HashSet<i64>>,
    /// Hashes of rows, by table and number.
    hashes: Mutex<HashMap<(&'static str, i64), Arc<str>>>,
}

impl Names {
    fn numbers(&self) -> MutexGuard<'_, HashMap<String, i64>> {
        self.numbers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Those of which the kind is not known to be stored.
    pub(super) fn without_kind(&self, objects: impl IntoIterator<Item = i64>) -> HashSet<i64> {
        let with_kind = self.with_kind.lock().unwrap_or_else(PoisonError::into_inner);
        objects.into_iter().filter(|object| !with_kind.contains(object)).collect()
    }

    /// The kinds of these are stored now.
    pub(super) fn have_kind(&self, objects: impl IntoIterator<Item = i64>) {
        let mut with_kind = self.with_kind.lock().unwrap_or_else(PoisonError::into_inner);
        if with_kind.len() > KEPT_MAX {
            with_kind.clear();
        }
        with_kind.extend(objects);
    }

    /// The hashes of these rows of a table that are known, and the other rows.
    fn hashes_of(&self, table: &'static str, numbers: BTreeSet<i64>) -> (Hashes, Vec<i64>) {
        let remembered = self.hashes.lock().unwrap_or_else(PoisonError::into_inner);
        let mut hashes = Hashes::with_capacity(numbers.len());
        let mut unknown = Vec::new();
        for number in numbers {
            match remembered.get(&(table, number)) {
                Some(hash) => drop(hashes.insert(number, Arc::clone(hash))),
                None => unknown.push(number),
            }
        }
        (hashes, unknown)
    }

    fn keep_hashes(&self, table: &'static str, found: &Hashes) {
        let mut remembered = self.hashes.lock().unwrap_or_else(PoisonError::into_inner);
        if remembered.len() > HASHES_MAX {
            remembered.clear();
        }
        remembered.extend(found.iter().map(|(number, hash)| ((table, *number), Arc::clone(hash))));
    }

    /// The number of this name may go.
    pub(super) fn forget(&self, name: &str) {
        self.numbers().remove(name);
    }

    fn keep(&self, found: &HashMap<String, i64>) {
        let mut numbers = self.numbers();
        if numbers.len() > KEPT_MAX {
            numbers.clear();
        }
        numbers.extend(found.iter().map(|(name, number)| (name.clone(), *number)));
    }
}

impl SqlStore {
    /// The numbers of these names, in their order; none for those that were never stored.
    pub(super) async fn known_numbers(&self, names: &[&str]) -> Result<Vec<Option<i64>>, StoreError> {
        let (mut numbers, unknown) = self.remembered(names);
        if !unknown.is_empty() {
            let found = self.read(&unknown).await?;
            self.names.keep(&found);
            for (number, name) in numbers.iter_mut().zip(names) {
                *number = number.or_else(|| found.get(*name).copied());
            }
        }
        Ok(numbers)
    }

    /// The same; those that were never stored are stored, in transactions of their own: what is remembered stays, whatever becomes
    /// of that for which it was wanted.
    pub(super) async fn numbers(&self, names: &[&str]) -> Result<Vec<i64>, StoreError> {
        let known = self.known_numbers(names).await?;
        if let Some(known) = known.iter().copied().collect() {
            return Ok(known);
        }
        let lacking = known.iter().zip(names).filter(|(number, _)| number.is_none()).map(|(_, name)| *name);
        let lacking: Vec<&str> = lacking.collect::<BTreeSet<_>>().into_iter().collect();
        for some in lacking.chunks(BATCH) {
            let sql = format!("INSERT INTO name (text) VALUES {} ON CONFLICT DO NOTHING", rows_of(some.len(), 1));
            let mut query = sqlx::query(sqlx::AssertSqlSafe(sql));
            for name in some {
                query = query.bind(*name);
            }
            query.execute(&self.writer).await?;
        }
        let known = self.known_numbers(names).await?.into_iter().zip(names);
        known
            .map(|(number, name)| number.ok_or_else(|| StoreError::Damaged(format!("the name `{name}` is not there"))))
            .collect()
    }

    /// The hashes of rows that somebody has committed. A row's number is never given again: they are remembered.
    pub(super) async fn hashes(
        &self,
        connection: &mut <Database as sqlx::Database>::Connection,
        table: &'static str,
        numbers: BTreeSet<i64>,
    ) -> Result<Hashes, StoreError> {
        let (mut hashes, unknown) = self.names.hashes_of(table, numbers);
        for some in unknown.chunks(BATCH) {
            let sql = format!("SELECT id, hash FROM {table} WHERE id IN ({})", marks(1, some.len()));
            let mut query = sqlx::query(sqlx::AssertSqlSafe(sql));
            for number in some {
                query = query.bind(*number);
            }
            let mut found = Hashes::with_capacity(some.len());
            for row in query.fetch_all(&mut *connection).await? {
                found.insert(row.try_get("id")?, row.try_get::<&str, _>("hash")?.into());
            }
            self.names.keep_hashes(table, &found);
            hashes.extend(found);
        }
        Ok(hashes)
    }

    fn remembered<'name>(&self, names: &[&'name str]) -> (Vec<Option<i64>>, Vec<&'name str>) {
        let remembered = self.names.numbers();
        let numbers: Vec<Option<i64>> = names.iter().map(|name| remembered.get(*name).copied()).collect();
        let unknown = numbers.iter().zip(names).filter(|(number, _)| number.is_none()).map(|(_, name)| *name);
        let unknown = unknown.collect::<BTreeSet<_>>().into_iter().collect();
        (numbers, unknown)
    }

    async fn read(&self, names: &[&str]) -> Result<HashMap<String, i64>, StoreError> {
        let mut found = HashMap::with_capacity(names.len());
        for some in names.chunks(BATCH) {
            let sql = format!("SELECT id, text FROM name WHERE text IN ({})", marks(1, some.len()));
            let mut query = sqlx::query(sqlx::AssertSqlSafe(sql));
            for name in some {
                query = query.bind(*name);
            }
            for row in query.fetch_all(&self.readers).await? {
                found.insert(row.try_get("text")?, row.try_get("id")?);
            }
        }
        Ok(found)
    }
}

/// What is stored once by its hash: a table with the columns `hash` and these, and the values of a row.
pub(super) struct ByHash<'row, const COLUMNS: usize> {
    pub(super) table: &'static str,
    pub(super) columns: [&'static str; COLUMNS],
    pub(super) rows: HashMap<&'row str, [&'row str; COLUMNS]>,
}

impl<'row, const COLUMNS: usize> ByHash<'row, COLUMNS> {
    /// The numbers of these rows; those that are not there are stored.
    pub(super) async fn numbers(&self, tx: &mut Tx) -> Result<HashMap<String, i64>, StoreError> {
        let (mut numbers, lacking) = self.known(tx).await?;
        numbers.extend(self.keep(tx, &lacking).await?);
        Ok(numbers)
    }

    /// The numbers of those that are there, and the hashes of those that are not.
    pub(super) async fn known(&self, tx: &mut Tx) -> Result<(HashMap<String, i64>, Vec<&'row str>), StoreError> {
        let mut numbers = HashMap::with_capacity(self.rows.len());
        // In this order: transactions beside each other never wait for each other in a circle.
        let mut hashes: Vec<&str> = self.rows.keys().copied().collect();
        hashes.sort_unstable();
        for some in hashes.chunks(BATCH) {
            numbers.extend(numbers_of(tx, self.table, some).await?);
        }
        hashes.retain(|hash| !numbers.contains_key(*hash));
        Ok((numbers, hashes))
    }

    /// Stores those of these hashes; their numbers.
    pub(super) async fn keep(&self, tx: &mut Tx, hashes: &[&str]) -> Result<HashMap<String, i64>, StoreError> {
        let mut numbers = HashMap::with_capacity(hashes.len());
        for some in hashes.chunks(BATCH) {
            let sql = format!(
                "{INSERT} {} (hash, {}) VALUES {} ON CONFLICT DO NOTHING RETURNING id, hash",
                self.table,
                self.columns.join(", "),
                rows_of(some.len(), 1 + COLUMNS)
            );
            let mut query = sqlx::query(sqlx::AssertSqlSafe(sql));
            for hash in some {
                query = query.bind(*hash);
                for value in self.rows.get(*hash).into_iter().flatten() {
                    query = query.bind(*value);
                }
            }
            numbers.extend(numbered(tx, self.table, query, some.iter().copied()).await?);
        }
        Ok(numbers)
    }
}

/// The numbers of these hashes, which a statement stores where they are not there yet; it says which it has stored.
pub(super) async fn numbered(
    tx: &mut Tx,
    table: &'static str,
    storing: Query<'_>,
    hashes: impl Iterator<Item = &str> + Send,
) -> Result<HashMap<String, i64>, StoreError> {
    let mut numbers = HashMap::new();
    for row in storing.fetch_all(&mut **tx).await? {
        numbers.insert(row.try_get("hash")?, row.try_get("id")?);
    }
    // Somebody else may have stored one of them since it was looked for.
    let others: Vec<&str> = hashes.filter(|hash| !numbers.contains_key(*hash)).collect();
    if !others.is_empty() {
        numbers.extend(numbers_of(tx, table, &others).await?);
    }
    Ok(numbers)
}

/// The numbers of those of these hashes that are there.
async fn numbers_of(tx: &mut Tx, table: &'static str, hashes: &[&str]) -> Result<HashMap<String, i64>, StoreError> {
    let sql = format!("SELECT id, hash FROM {table} WHERE hash IN ({})", marks(1, hashes.len()));
    let mut query = sqlx::query(sqlx::AssertSqlSafe(sql));
    for hash in hashes {
        query = query.bind(*hash);
    }
    let rows = query.fetch_all(&mut **tx).await?;
    rows.iter().map(|row| Ok((row.try_get("hash")?, row.try_get("id")?))).collect()
}
