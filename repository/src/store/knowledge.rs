//! All that is known of an endpoint, in one word, for whichever back end includes this file: as long as it is the same, so is what
//! was observed of it.

use proto::message::Knowledge;
use sqlx::Row as _;
use uuid::Uuid;

use super::super::super::StoreError;
use super::Row;

/// What the word of an endpoint is made from, as a column `knowledge`; `text` is its id. What holds is a set of rows, and a row that
/// takes the place of another has a greater number: how many they are and their sum are never both the same again. Nothing where several
/// look at an endpoint, or another was merged into it: of what each saw the later counts, and a row does not change by being looked at
/// again. To compare each with the first takes half as long as the least and the greatest.
pub(super) fn of(text: &str) -> String {
    format!(
        "(SELECT CASE WHEN COUNT(*) FILTER (WHERE observed.origin <> first.origin) = 0 \
         THEN CAST(COUNT(*) AS TEXT) || ' ' || CAST(SUM(observed.id) AS TEXT) END \
         FROM (SELECT endpoint, origin FROM observed WHERE endpoint = (SELECT id FROM name WHERE name.text = {text}) \
         AND valid_to IS NULL AND NOT EXISTS (SELECT 1 FROM endpoint_alias WHERE alias_of = {text}) LIMIT 1) AS first \
         JOIN observed ON observed.endpoint = first.endpoint AND observed.valid_to IS NULL) AS knowledge"
    )
}

/// The word, of this process alone: another database has other rows with the same numbers, and so may this one when it was put back.
pub(super) fn in_row(row: &Row, process: Uuid) -> Result<Option<Knowledge>, StoreError> {
    let numbers: Option<String> = row.try_get("knowledge")?;
    Ok(numbers.map(|numbers| Knowledge(format!("{} {numbers}", process.simple()))))
}
