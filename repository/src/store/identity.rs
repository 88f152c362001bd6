//! Endpoints that turned out to be others, for whichever back end includes this file.

use std::collections::BTreeMap;

use proto::message::EndpointAlias;
use sqlx::Row as _;

use super::super::super::{Received, StoreError, endpoint_text};
use super::{SqlStore, Tx};

/// All that were merged, in the place of those that were before; a message that was overtaken by a later one is too late.
pub(super) async fn take_aliases(tx: &mut Tx, aliases: &[EndpointAlias], from: Received) -> Result<(), StoreError> {
    // Message ids are in the order of their making (UUIDv7).
    let told = sqlx::query(
        "INSERT INTO endpoint_alias_told (id, message) VALUES (1, $1) \
         ON CONFLICT (id) DO UPDATE SET message = excluded.message WHERE excluded.message > endpoint_alias_told.message",
    )
    .bind(from.message.to_string())
    .execute(&mut **tx)
    .await?;
    if told.rows_affected() == 0 {
        return Ok(());
    }
    sqlx::query("DELETE FROM endpoint_alias").execute(&mut **tx).await?;
    for alias in aliases {
        sqlx::query("INSERT INTO endpoint_alias (endpoint, alias_of) VALUES ($1, $2) ON CONFLICT DO NOTHING")
            .bind(endpoint_text(alias.endpoint))
            .bind(endpoint_text(alias.of))
            .execute(&mut **tx)
            .await?;
    }
    Ok(())
}

impl SqlStore {
    /// Each endpoint that was merged, and into which.
    pub(super) async fn aliases(&self) -> Result<BTreeMap<String, String>, StoreError> {
        let rows = sqlx::query("SELECT endpoint, alias_of FROM endpoint_alias").fetch_all(&self.readers).await?;
        rows.iter().map(|row| Ok((row.try_get("endpoint")?, row.try_get("alias_of")?))).collect()
    }
}
