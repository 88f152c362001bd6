//! Which of two evaluations is the later one, for whichever back end includes this file. Evaluators say when they have looked,
//! each by its own clock, and one may be ahead (ADR 40).

use jiff::{SignedDuration, Timestamp};
use proto::message::About;
use sqlx::Row as _;

use super::super::super::{Received, StoreError, time};
use super::Tx;
use super::keep_verdicts::Prepared;
use super::statement::{BATCH, rows_of};

/// Where verdicts have their place.
pub(super) struct Placed {
    /// The time that they count as of, if it is not the one that they say.
    pub(super) moved: Option<Timestamp>,
    /// Whether they say what holds: no later evaluation of everything has come.
    pub(super) is_current: bool,
}

/// Where parts of evaluations, each of another endpoint, have their place.
pub(super) async fn placed(tx: &mut Tx, decided: &[&Prepared<'_>]) -> Result<Vec<Placed>, StoreError> {
    let later = later(tx, decided).await?;
    Ok(decided
        .iter()
        .zip(later)
        .map(|(prepared, later)| place(prepared.told.current(), prepared.from, &later))
        .collect())
}

fn place(about: Option<&About>, from: Received, later: &Later) -> Placed {
    if about.is_none() {
        return Placed { moved: None, is_current: false };
    }
    // What is of a time that has not come yet was decided by a clock that was ahead, and before this came.
    let known = from.message.made().map_or(from.received, |made| made.max(from.received));
    let Some(ahead) = later.any.filter(|any| *any > known) else {
        return Placed { moved: None, is_current: later.whole.is_none() };
    };
    let evaluated = ahead.saturating_add(SignedDuration::from_micros(1)).unwrap_or(Timestamp::MAX);
    Placed { moved: Some(evaluated), is_current: true }
}

/// The newest evaluations that are later.
#[derive(Clone, Copy, Default)]
struct Later {
    any: Option<Timestamp>,
    /// Of everything. One that decided a part is newer for that part alone.
    whole: Option<Timestamp>,
}

/// Of each of these, in their order.
async fn later(tx: &mut Tx, decided: &[&Prepared<'_>]) -> Result<Vec<Later>, StoreError> {
    let mut later = vec![Later::default(); decided.len()];
    let asked: Vec<(i64, &Prepared<'_>, &About)> =
        (0..).zip(decided).filter_map(|(at, prepared)| Some((at, *prepared, prepared.told.current()?))).collect();
    for some in asked.chunks(BATCH) {
        let sql = format!(
            "SELECT asked.column1 AS at, MAX(evaluated) AS newest, MAX(CASE WHEN is_partial = 0 THEN evaluated END) AS whole \
             FROM (VALUES {}) AS asked JOIN evaluation ON endpoint = asked.column2 AND policy = asked.column3 \
             AND profile = asked.column4 AND evaluated > asked.column5 WHERE is_past = 0 GROUP BY asked.column1",
            rows_of(some.len(), 5)
        );
        let mut query = sqlx::query(sqlx::AssertSqlSafe(sql));
        for (at, prepared, about) in some {
            query = query
                .bind(*at)
                .bind(prepared.endpoint.as_str())
                .bind(&about.policy)
                .bind(&about.profile)
                .bind(about.evaluated.as_microsecond());
        }
        for row in query.fetch_all(&mut **tx).await? {
            let [any, whole] = ["newest", "whole"].map(|column| row.try_get::<Option<i64>, _>(column));
            let of_it = Later { any: any?.map(time).transpose()?, whole: whole?.map(time).transpose()? };
            let at = usize::try_from(row.try_get::<i64, _>("at")?).unwrap_or(usize::MAX);
            later.get_mut(at).into_iter().for_each(|later| *later = of_it);
        }
    }
    Ok(later)
}
