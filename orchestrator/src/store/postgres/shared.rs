//! What an orchestrator keeps beside its rows, so that another can take over: the id that they have in common, the CA's files,
//! and content that cannot be made again.

use proto::content::ContentHash;
use proto::id::ComponentId;

use super::{PostgresStore, StoreError};

impl PostgresStore {
    /// The id that all orchestrators on this database have: this one, where there is none yet.
    pub async fn component(&self, proposed: ComponentId) -> Result<ComponentId, StoreError> {
        let mut tx = self.begin().await?;
        sqlx::query("INSERT INTO identity (id, component) VALUES (1, $1) ON CONFLICT (id) DO NOTHING")
            .bind(proposed.to_string())
            .execute(&mut *tx)
            .await?;
        let component: String =
            sqlx::query_scalar("SELECT component FROM identity WHERE id = 1").fetch_one(&mut *tx).await?;
        tx.commit().await?;
        serde_json::from_value(component.into()).map_err(StoreError::Damaged)
    }

    /// The same, if there is one.
    pub async fn known_component(&self) -> Result<Option<ComponentId>, StoreError> {
        let component: Option<String> =
            sqlx::query_scalar("SELECT component FROM identity WHERE id = 1").fetch_optional(&self.readers).await?;
        component.map(|text| serde_json::from_value(text.into()).map_err(StoreError::Damaged)).transpose()
    }

    /// The CA's files, by their path below its directory.
    pub async fn ca_files(&self) -> Result<Vec<(String, Vec<u8>)>, StoreError> {
        Ok(sqlx::query_as("SELECT path, bytes FROM ca_file ORDER BY path").fetch_all(&self.readers).await?)
    }

    /// Keeps the CA's files, and no others.
    pub async fn put_ca_files(&self, files: &[(String, Vec<u8>)]) -> Result<(), StoreError> {
        let mut tx = self.begin().await?;
        sqlx::query("DELETE FROM ca_file").execute(&mut *tx).await?;
        for (path, bytes) in files {
            sqlx::query("INSERT INTO ca_file (path, bytes) VALUES ($1, $2)")
                .bind(path)
                .bind(bytes)
                .execute(&mut *tx)
                .await?;
        }
        tx.commit().await?;
        Ok(())
    }

    /// Content by its hash.
    pub async fn content(&self, hash: &ContentHash) -> Result<Option<Vec<u8>>, StoreError> {
        let bytes = sqlx::query_scalar("SELECT bytes FROM content WHERE hash = $1").bind(hash.as_str());
        Ok(bytes.fetch_optional(&self.readers).await?)
    }

    /// Keeps content.
    pub async fn put_content(&self, bytes: &[u8]) -> Result<(), StoreError> {
        let mut tx = self.begin().await?;
        sqlx::query("INSERT INTO content (hash, bytes) VALUES ($1, $2) ON CONFLICT (hash) DO NOTHING")
            .bind(ContentHash::of(bytes).as_str())
            .bind(bytes)
            .execute(&mut *tx)
            .await?;
        tx.commit().await?;
        Ok(())
    }
}
