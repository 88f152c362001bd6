//! Which of two evaluations is the later one, for whichever back end includes this file. Evaluators say when they have looked,
//! each by its own clock, and one may be ahead (ADR 40).

use std::borrow::Cow;

use jiff::{SignedDuration, Timestamp};
use proto::message::{About, EvaluationResults};
use sqlx::Row as _;

use super::super::super::{Received, StoreError, time};
use super::Tx;

/// Verdicts with the time that they count as of, and whether they say what holds: no later evaluation of everything has come.
pub(super) async fn placed<'results>(
    tx: &mut Tx,
    endpoint: &str,
    results: &'results EvaluationResults,
    from: Received,
) -> Result<(Cow<'results, EvaluationResults>, bool), StoreError> {
    let mut results = Cow::Borrowed(results);
    let Some(about) = results.about.as_ref().filter(|about| about.is_current) else { return Ok((results, false)) };
    let later = later(tx, endpoint, about).await?;
    // What is of a time that has not come yet was decided by a clock that was ahead, and before this came.
    let known = from.message.made().map_or(from.received, |made| made.max(from.received));
    if let Some(ahead) = later.any.filter(|any| *any > known) {
        let evaluated = ahead.saturating_add(SignedDuration::from_micros(1)).unwrap_or(Timestamp::MAX);
        let placed = results.to_mut();
        placed.about.iter_mut().for_each(|about| about.evaluated = evaluated);
        placed.summary.iter_mut().for_each(|summary| summary.evaluated = evaluated);
        return Ok((results, true));
    }
    Ok((results, later.whole.is_none()))
}

/// The newest evaluations that are later.
struct Later {
    any: Option<Timestamp>,
    /// Of everything. One that decided a part is newer for that part alone.
    whole: Option<Timestamp>,
}

async fn later(tx: &mut Tx, endpoint: &str, about: &About) -> Result<Later, StoreError> {
    let row = sqlx::query(
        "SELECT MAX(evaluated) AS newest, MAX(CASE WHEN is_partial = 0 THEN evaluated END) AS whole FROM evaluation \
         WHERE endpoint = $1 AND policy = $2 AND profile = $3 AND is_past = 0 AND evaluated > $4",
    )
    .bind(endpoint)
    .bind(&about.policy)
    .bind(&about.profile)
    .bind(about.evaluated.as_microsecond())
    .fetch_one(&mut **tx)
    .await?;
    let [any, whole] = ["newest", "whole"].map(|column| row.try_get::<Option<i64>, _>(column));
    Ok(Later { any: any?.map(time).transpose()?, whole: whole?.map(time).transpose()? })
}
